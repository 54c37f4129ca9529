"""The morning's steps: each at its hour, once, on sessions, when what it needs is there and good."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path

import dagster as dg
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.automation.morning import MORNING_SCHEDULES, MORNING_TAG, STEP_TAG, STEPS, waits_for
from finance_assets.contracts.market import QUOTES
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

BY_NAME = {step.name: step for step in STEPS}
MONDAY = date(2013, 3, 4)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, market_start=date(2013, 2, 25), now=datetime(2013, 3, 4, 14, tzinfo=UTC))


@pytest.fixture
def lake(settings: Settings) -> Lake:
    lake = build_lake(settings)
    held(lake, date(2013, 3, 1))
    return lake


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def held(lake: Lake, day: date) -> None:
    lake.write_partitions(QUOTES, table_of(QUOTES, good_row(QUOTES, session_date=day)), [day.isoformat()])


def ran(instance: dg.DagsterInstance, step: str, status: dg.DagsterRunStatus = dg.DagsterRunStatus.SUCCESS) -> None:
    tags = {STEP_TAG: step, MORNING_TAG: MONDAY.isoformat()}
    instance.add_run(dg.DagsterRun(job_name=step, run_id=str(uuid.uuid4()), status=status, tags=tags))


def at(hour: int, minute: int = 0, day: date = MONDAY) -> datetime:
    """A time in New York in winter."""
    return datetime(day.year, day.month, day.day, hour + 5, minute, tzinfo=UTC)


def test_the_hours_are_those_of_new_york() -> None:
    assert {step.name.removeprefix("morning_"): f"{step.at:%H:%M}" for step in STEPS} == {
        "ingestion": "06:00",
        "quality": "06:30",
        "dbt": "07:00",
        "dbt_tests": "07:30",
        "metrics": "08:00",
        "report": "08:30",
    }
    assert {schedule.execution_timezone for schedule in MORNING_SCHEDULES} == {"America/New_York"}
    report = next(schedule for schedule in MORNING_SCHEDULES if schedule.name == "morning_report")
    assert report.cron_schedule == ["30,35,40,45,50,55 8 * * 1-5", "*/5 9-11 * * 1-5"]


def test_the_first_step_needs_its_hour_and_a_session(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance
) -> None:
    first = BY_NAME["morning_ingestion"]
    assert waits_for(first, at(5, 55), settings, lake, instance) == "its hour, 06:00 in New York"
    assert waits_for(first, at(6), settings, lake, instance) is None
    good_friday = date(2013, 3, 29)
    assert "no session" in str(waits_for(first, at(6, day=good_friday), settings, lake, instance))


def test_a_step_starts_once_and_a_failed_one_is_left_to_a_person(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance
) -> None:
    first = BY_NAME["morning_ingestion"]
    ran(instance, first.name, dg.DagsterRunStatus.STARTED)
    assert "the end of its own run" in str(waits_for(first, at(6, 5), settings, lake, instance))
    ran(instance, first.name, dg.DagsterRunStatus.FAILURE)
    assert "re-execute its failed run" in str(waits_for(first, at(6, 5), settings, lake, instance))
    ran(instance, first.name)
    assert "it has run" in str(waits_for(first, at(6, 5), settings, lake, instance))


def test_a_step_waits_for_the_one_before_and_for_quotes(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance
) -> None:
    step = BY_NAME["morning_quality"]
    assert waits_for(step, at(6, 30), settings, lake, instance) == "morning_ingestion, which has not run today"
    ran(instance, "morning_ingestion")
    assert waits_for(step, at(6, 30), settings, lake, instance) is None
    empty = build_lake(settings.model_copy(update={"home": settings.home / "elsewhere"}))
    said = waits_for(step, at(6, 30), settings, empty, instance)
    assert said == "quotes of 2013-03-01; the newest in core/quotes are of no session"


def test_a_failed_blocking_check_holds_up_what_follows(
    settings: Settings, lake: Lake, instance: dg.DagsterInstance
) -> None:
    step = BY_NAME["morning_dbt"]
    ran(instance, "morning_quality")
    assert waits_for(step, at(7), settings, lake, instance) is None
    result = {"passed": False}

    @dg.asset(key=["core", "quotes"])
    def quotes() -> None: ...

    @dg.asset_check(asset=dg.AssetKey(["core", "quotes"]))
    def honours_contract() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=result["passed"])

    dg.materialize([quotes, honours_contract], instance=instance)
    said = waits_for(step, at(7), settings, lake, instance)
    assert said == "blocking checks to pass: core/quotes honours_contract"
    result["passed"] = True
    dg.materialize([quotes, honours_contract], instance=instance)
    assert waits_for(step, at(7, 5), settings, lake, instance) is None


def test_the_report_comes_late_rather_than_never(settings: Settings, lake: Lake, instance: dg.DagsterInstance) -> None:
    step = BY_NAME["morning_report"]
    assert "morning_metrics" in str(waits_for(step, at(9, 25), settings, lake, instance))
    assert waits_for(step, at(9, 30), settings, lake, instance) is None
    ran(instance, step.name)
    assert "it has run" in str(waits_for(step, at(9, 35), settings, lake, instance))


def test_a_tick_says_what_it_waits_for_or_starts_a_run_that_is_found_again(
    settings: Settings, lake: Lake, tmp_path: Path
) -> None:
    # A schedule's context reopens its instance, which one in memory cannot be.
    (tmp_path / "dagster").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        _tick_twice(settings, lake, instance)


def _tick_twice(settings: Settings, lake: Lake, instance: dg.DagsterInstance) -> None:
    schedule = next(one for one in MORNING_SCHEDULES if one.name == "morning_quality")

    def tick() -> dg.RunRequest | dg.SkipReason:
        resources = {"settings": settings, "lake": lake}
        with dg.build_schedule_context(
            instance=instance, resources=resources, scheduled_execution_time=at(6, 35)
        ) as context:
            answer = schedule(context)
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    waiting = tick()
    assert isinstance(waiting, dg.SkipReason)
    assert waiting.skip_message == "morning_quality waits for morning_ingestion, which has not run today"
    ran(instance, "morning_ingestion")
    request = tick()
    assert isinstance(request, dg.RunRequest)
    assert (request.tags[STEP_TAG], request.tags[MORNING_TAG]) == ("morning_quality", "2013-03-04")
