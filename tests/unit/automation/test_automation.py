"""What starts by itself: schedules, alerts of failed runs, conditions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.quotes import JANUARY, FakeProvider, fake_settings, raw_row, raw_table, sessions_table

from finance_assets.automation import run_failures
from finance_assets.automation.conditions import (
    WHEN_HISTORY_IS_NEW,
    WHEN_INPUTS_ARE_GOOD,
    when_history_is_new_at,
    when_missing_or_on,
)
from finance_assets.automation.run_failures import failure_alert, failure_message, run_failure_alerts
from finance_assets.contracts import market
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, QUOTES_RAW, REJECTED_QUOTES, TICKER_KPIS
from finance_assets.contracts.model import Partitioning
from finance_assets.market.kpis import ticker_kpis
from finance_assets.market.planning import SessionRange
from finance_assets.market.resources import MarketData
from finance_assets.market.schedules import market_sessions_daily, market_sessions_job, ranges_to_run
from finance_assets.market.sources import InMemoryQuotaLedger
from finance_assets.market.validation import validate_quotes
from finance_assets.publishing.alerts import Alert
from finance_assets.registry import build_definitions
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.ledger import Ledger

# -- schedules ---------------------------------------------------------------------------------------------------------


class Deployment:
    """A lake that is filled without runs, and the clock on the evening of 2012-01-13."""

    def __init__(self, home: Path, **changes: Any) -> None:
        given = {"now": datetime(2012, 1, 13, 22, tzinfo=UTC), "market_start": JANUARY[0]} | changes
        self.settings = fake_settings(home, **given)
        self.lake = Lake(self.settings.lake)
        self.market_data = MarketData(self.settings, InMemoryQuotaLedger(), [FakeProvider()])

    def fill(self, *days: date, symbols: tuple[str, ...] = ("AAA", "BBB"), refused: str = "", upto: str = "") -> None:
        """Write sessions with some tickers, one of them refused; ``upto`` names the last table that is written."""
        raw = raw_table(
            *(
                raw_row(symbol=symbol, session_date=day, close=None if symbol == refused else "10.5")
                for day in days
                for symbol in symbols
            )
        )
        judged = validate_quotes(raw)
        kpis = ticker_kpis(judged.quotes, judged.actions, sessions_table(JANUARY))
        tables = {
            QUOTES_RAW: raw,
            REJECTED_QUOTES: judged.rejected,
            CORPORATE_ACTIONS: judged.actions,
            QUOTES: judged.quotes,
            TICKER_KPIS: kpis,
        }
        for contract, table in tables.items():
            self.lake.write_partitions(contract, table, [day.isoformat() for day in days])
            if contract.path == upto:
                return

    def ranges(self, *, everything: bool = False) -> list[SessionRange]:
        return ranges_to_run(self.settings, self.lake, self.market_data, everything=everything)

    def tick(self) -> list[dg.RunRequest] | dg.SkipReason:
        context = dg.build_schedule_context(
            scheduled_execution_time=datetime(2012, 1, 13, 23, 30, tzinfo=UTC),
            resources={"settings": self.settings, "lake": self.lake, "market_data": self.market_data},
        )
        answer = market_sessions_daily(context)
        assert isinstance(answer, list | dg.SkipReason)
        return answer


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


CLOSED = JANUARY[:9]


def test_an_empty_lake_is_filled_in_one_run(deployment: Deployment) -> None:
    requests = deployment.tick()
    assert isinstance(requests, list)
    (request,) = requests
    assert request.tags == {RANGE_START_TAG: "2012-01-03", RANGE_END_TAG: "2012-01-13"}


def test_a_complete_lake_is_left_alone(deployment: Deployment) -> None:
    deployment.fill(*CLOSED)
    skipped = deployment.tick()
    assert isinstance(skipped, dg.SkipReason)
    assert "newest 30 closed sessions are all complete" in str(skipped.skip_message)


def test_each_gap_is_a_run_of_its_own_with_a_key_of_its_own(deployment: Deployment) -> None:
    deployment.fill(*CLOSED[:2], *CLOSED[3:5])
    deployment.fill(CLOSED[6], symbols=("AAA",))
    deployment.fill(CLOSED[7])
    requests = deployment.tick()
    assert isinstance(requests, list)
    assert [(r.tags[RANGE_START_TAG], r.tags[RANGE_END_TAG]) for r in requests] == [
        ("2012-01-05", "2012-01-05"),
        ("2012-01-10", "2012-01-11"),
        ("2012-01-13", "2012-01-13"),
    ]
    keys = [request.run_key for request in requests]
    assert len(set(keys)) == 3
    # The next tick asks again for what is still missing, and a key that was used once would be skipped for ever.
    assert all("2012-01-13T23:30:00+00:00" in str(key) for key in keys)


def test_a_session_counts_when_it_has_come_through_to_the_kpis(deployment: Deployment) -> None:
    deployment.fill(*CLOSED)
    later = {QUOTES_RAW.path: CLOSED[0], QUOTES.path: CLOSED[1]}
    for path, day in later.items():
        for contract in (QUOTES, TICKER_KPIS)[0 if path == QUOTES_RAW.path else 1 :]:
            Path(deployment.lake.file(contract, day.isoformat())).unlink()
    assert deployment.ranges() == [SessionRange(CLOSED[0], CLOSED[1])]


@pytest.mark.parametrize("stage", [QUOTES_RAW.path, QUOTES.path])
def test_a_ticker_that_was_left_on_the_way_makes_its_session_incomplete(deployment: Deployment, stage: str) -> None:
    deployment.fill(*CLOSED[:-1])
    deployment.fill(CLOSED[-1], symbols=("AAA",))
    deployment.fill(CLOSED[-1], upto=stage)
    assert deployment.ranges() == [SessionRange(CLOSED[-1], CLOSED[-1])]


def test_a_ticker_whose_quote_was_refused_is_not_asked_for_again_and_again(deployment: Deployment) -> None:
    deployment.fill(*CLOSED, refused="BBB")
    assert deployment.ranges() == []


def test_the_schedule_looks_back_as_far_as_it_is_told(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path, heal_sessions=3)
    assert deployment.ranges() == [SessionRange(CLOSED[-3], CLOSED[-1])]
    assert deployment.ranges(everything=True) == [SessionRange(CLOSED[0], CLOSED[-1])]
    assert Deployment(tmp_path, heal_sessions=0).ranges() == []


def test_a_session_that_has_not_closed_is_not_asked_for(tmp_path: Path) -> None:
    during = Deployment(tmp_path, now=datetime(2012, 1, 13, 20, tzinfo=UTC))
    assert during.ranges()[-1].last == JANUARY[7]
    before_any = Deployment(tmp_path, now=datetime(2012, 1, 3, 20, tzinfo=UTC))
    assert before_any.ranges() == []


def test_the_job_is_everything_that_is_cut_into_sessions_and_the_schedule_runs_after_the_close() -> None:
    paths = {contract.path for contract in market.CONTRACTS if contract.partitioning is Partitioning.SESSION}
    assert {key.to_user_string() for key in market_sessions_job.selection.selected_keys} == paths  # type: ignore[attr-defined]
    assert market_sessions_daily.cron_schedule == "30 18 * * 1-5"
    assert market_sessions_daily.execution_timezone == "America/New_York"
    assert market_sessions_daily.default_status is dg.DefaultScheduleStatus.RUNNING


# -- alerts of failed runs ---------------------------------------------------------------------------------------------


@contextmanager
def failed_run(body: Callable[[], None], tmp_path: Path, **resources: Any) -> Iterator[dg.RunFailureSensorContext]:
    """What the sensor is given for a run that failed in ``core/quotes``."""

    @dg.asset(key=["core", "quotes"])
    def quotes() -> None:
        body()

    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        result = dg.materialize(
            [quotes],
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        event = next(event for event in result.all_events if event.event_type_value == "PIPELINE_FAILURE")
        run = instance.get_run_by_id(result.run_id)
        assert run is not None
        with dg.build_run_status_sensor_context(
            "run_failure_alerts", dagster_event=event, dagster_instance=instance, dagster_run=run, resources=resources
        ) as context:
            yield context.for_run_failure()


def raising(error: Exception) -> Callable[[], None]:
    def body() -> None:
        raise error

    return body


def test_an_alert_says_which_run_failed_where_why_and_what_to_do(tmp_path: Path) -> None:
    with failed_run(raising(ValueError("close of 'AAA' is not a number")), tmp_path) as context:
        alert = failure_alert(context.instance, context.dagster_run)
        run = context.dagster_run
        record = context.instance.get_run_record_by_id(run.run_id)
    assert alert.title == f"run {run.run_id[:8]} of {run.job_name} failed"
    assert alert.severity == "error"
    assert record is not None
    assert alert.since == record.create_timestamp
    assert alert.since.tzinfo is not None
    assert alert.detail == "core__quotes: ValueError: close of 'AAA' is not a number"
    assert f"/runs/{run.run_id}" in alert.action
    assert "re-execute" in alert.action
    assert alert.key == f"run-failure:{run.run_id}"


def test_the_words_of_a_failure_are_told_and_not_dagsters_wrapping(tmp_path: Path) -> None:
    failure = dg.Failure("no provider answered. Set a key", allow_retries=False)
    with failed_run(raising(failure), tmp_path) as context:
        assert (
            failure_alert(context.instance, context.dagster_run).detail
            == "core__quotes: no provider answered. Set a key"
        )


def test_a_long_message_is_cut_and_a_chain_of_errors_begins_with_the_last(tmp_path: Path) -> None:
    def body() -> None:
        try:
            raise KeyError("first")
        except KeyError as error:
            raise RuntimeError("x" * 5000) from error

    with failed_run(body, tmp_path) as context:
        detail = failure_alert(context.instance, context.dagster_run).detail
        (event,) = context.get_step_failure_events()
        assert failure_message(event).startswith("RuntimeError: xxx")
    assert len(detail) == run_failures.LONGEST_DETAIL
    assert detail.startswith("core__quotes: RuntimeError: xxx")


def test_the_sensor_sends_one_alert(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[Alert] = []

    class Recorder:
        def send(self, alert: Alert) -> None:
            sent.append(alert)

    asked: list[Settings] = []

    def sinks(settings: Settings) -> list[Recorder]:
        asked.append(settings)
        return [Recorder()]

    monkeypatch.setattr(run_failures, "alert_sinks", sinks)
    settings = fake_settings(tmp_path)
    ledger = Ledger("sqlite:///:memory:", settings.clock)
    with failed_run(raising(ValueError("broken")), tmp_path, settings=settings, ledger=ledger) as context:
        run_failure_alerts(context)
    ledger.close()
    assert [alert.detail for alert in sent] == ["core__quotes: ValueError: broken"]
    assert asked == [settings]
    assert run_failure_alerts.default_status is dg.DefaultSensorStatus.RUNNING


# -- conditions --------------------------------------------------------------------------------------------------------

DAYS = dg.DailyPartitionsDefinition("2012-01-03", end_date="2012-01-07")


def graph(condition: dg.AutomationCondition[Any], *, partitioned: bool) -> dg.Definitions:
    """An input with a blocking check, and a table made of it."""

    @dg.asset(partitions_def=DAYS if partitioned else None)
    def quotes() -> None: ...

    @dg.asset(deps=[quotes], automation_condition=condition)
    def table() -> None: ...

    @dg.asset_check(asset=quotes, blocking=True)
    def honours_contract() -> dg.AssetCheckResult:
        raise AssertionError("results are reported, not computed")

    return dg.Definitions(assets=[quotes, table], asset_checks=[honours_contract])


class Observer:
    """Looks at the conditions again and again, as the sensor does."""

    def __init__(self, definitions: dg.Definitions, instance: dg.DagsterInstance) -> None:
        self.definitions, self.instance = definitions, instance
        self._cursor: Any = None
        self.requested()

    def requested(self) -> int:
        """How many partitions of the table are requested now."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.instance,
            asset_selection=dg.AssetSelection.all(),
            cursor=self._cursor,
            evaluation_time=datetime(2012, 1, 7, tzinfo=UTC),
        )
        self._cursor = result.cursor
        return result.get_num_requested(dg.AssetKey("table"))

    def make(self, asset: str, *, passed: bool | None = None, partition: str | None = None) -> None:
        """Record that an asset was made, and how its check ended."""
        self.instance.report_runless_asset_event(dg.AssetMaterialization(asset, partition=partition))
        if passed is not None:
            self.instance.report_runless_asset_event(
                dg.AssetCheckEvaluation(
                    asset_key=dg.AssetKey(asset),
                    check_name="honours_contract",
                    passed=passed,
                    metadata={},
                    blocking=True,
                )
            )


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


@pytest.mark.parametrize("condition", [WHEN_INPUTS_ARE_GOOD, WHEN_HISTORY_IS_NEW])
def test_a_new_input_that_is_good_starts_what_follows(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]
) -> None:
    observer = Observer(graph(condition, partitioned=False), instance)
    observer.make("quotes", passed=True)
    assert observer.requested() == 1
    observer.make("table")
    assert observer.requested() == 0
    observer.make("quotes", passed=True)
    assert observer.requested() == 1


@pytest.mark.parametrize("condition", [WHEN_INPUTS_ARE_GOOD, WHEN_HISTORY_IS_NEW])
def test_an_input_whose_blocking_check_failed_starts_nothing(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]
) -> None:
    observer = Observer(graph(condition, partitioned=False), instance)
    observer.make("quotes", passed=False)
    assert observer.requested() == 0
    assert observer.requested() == 0
    # Once it is mended, what follows starts.
    observer.make("quotes", passed=True)
    assert observer.requested() == 1


def test_plain_eager_would_not_have_waited_for_the_check(instance: dg.DagsterInstance) -> None:
    observer = Observer(graph(dg.AutomationCondition.eager(), partitioned=False), instance)
    observer.make("quotes", passed=False)
    assert observer.requested() == 1


def test_a_table_over_all_sessions_does_not_wait_for_those_that_were_never_made(instance: dg.DagsterInstance) -> None:
    observer = Observer(graph(WHEN_HISTORY_IS_NEW, partitioned=True), instance)
    observer.make("quotes", passed=True, partition="2012-01-06")
    assert observer.requested() == 1


def test_with_the_condition_of_a_partition_it_would_wait_for_ever(instance: dg.DagsterInstance) -> None:
    observer = Observer(graph(WHEN_INPUTS_ARE_GOOD, partitioned=True), instance)
    observer.make("quotes", passed=True, partition="2012-01-06")
    assert observer.requested() == 0


def test_a_table_over_all_sessions_does_not_follow_bad_ones(instance: dg.DagsterInstance) -> None:
    observer = Observer(graph(WHEN_HISTORY_IS_NEW, partitioned=True), instance)
    observer.make("quotes", passed=False, partition="2012-01-06")
    assert observer.requested() == 0


def test_a_table_without_inputs_is_made_when_it_is_missing_and_at_each_tick(instance: dg.DagsterInstance) -> None:
    @dg.asset(automation_condition=when_missing_or_on("0 5 * * 1", "America/New_York"))
    def table() -> None: ...

    definitions = dg.Definitions(assets=[table])

    def requested(cursor: Any, now: datetime) -> tuple[int, Any]:
        result = dg.evaluate_automation_conditions(
            defs=definitions,
            instance=instance,
            asset_selection=dg.AssetSelection.all(),
            cursor=cursor,
            evaluation_time=now,
        )
        return result.total_requested, result.cursor

    def at(day: int, hour: int) -> datetime:
        return datetime(2012, 1, day, hour, tzinfo=UTC)

    # On a new deployment the table is missing at the first look; a run that failed is not repeated at the next one.
    count, cursor = requested(None, at(8, 12))
    assert count == 1
    count, cursor = requested(cursor, at(8, 13))
    assert count == 0
    count, cursor = requested(cursor, at(9, 12))
    assert count == 1
    instance.report_runless_asset_event(dg.AssetMaterialization("table"))
    count, cursor = requested(cursor, at(9, 13))
    assert count == 0
    count, cursor = requested(cursor, at(15, 12))
    assert count == 0
    count, cursor = requested(cursor, at(16, 12))
    assert count == 1


def test_a_table_that_is_there_waits_for_the_tick(instance: dg.DagsterInstance) -> None:
    @dg.asset(automation_condition=when_missing_or_on("0 5 * * 1", "America/New_York"))
    def table() -> None: ...

    instance.report_runless_asset_event(dg.AssetMaterialization("table"))
    result = dg.evaluate_automation_conditions(
        defs=dg.Definitions(assets=[table]),
        instance=instance,
        asset_selection=dg.AssetSelection.all(),
        evaluation_time=datetime(2012, 1, 8, 12, tzinfo=UTC),
    )
    assert result.total_requested == 0


def test_inputs_that_change_all_the_time_are_followed_at_each_tick_only(instance: dg.DagsterInstance) -> None:
    @dg.asset
    def messages() -> None: ...

    @dg.asset(deps=[messages], automation_condition=when_history_is_new_at("*/10 * * * *", daily="5 13 * * *"))
    def table() -> None: ...

    @dg.asset(deps=[table], automation_condition=when_history_is_new_at("*/10 * * * *", daily="5 13 * * *"))
    def mart() -> None: ...

    definitions, cursor = dg.Definitions(assets=[messages, table, mart]), None

    def look(minute: int, hour: int = 12) -> int:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(
            defs=definitions,
            instance=instance,
            asset_selection=dg.AssetSelection.all(),
            cursor=cursor,
            evaluation_time=datetime(2012, 1, 6, hour, minute, tzinfo=UTC),
        )
        cursor = result.cursor
        return result.total_requested

    assert look(1) == 0
    requests = []
    for minute in range(2, 32):
        instance.report_runless_asset_event(dg.AssetMaterialization("messages"))
        requests.append(look(minute))
        if requests[-1]:
            instance.report_runless_asset_event(dg.AssetMaterialization("table"))
            instance.report_runless_asset_event(dg.AssetMaterialization("mart"))
    # At ten past, twenty past and half past, the table and what is made of it in one run.
    assert {minute: count for minute, count in zip(range(2, 32), requests, strict=True) if count} == {
        10: 2,
        20: 2,
        30: 2,
    }
    # The last message came after the last table: the next tick brings it in. A tick without anything new is no reason,
    # but once a day all is made again.
    assert [look(minute) for minute in (35, 41, 51, 59)] == [0, 2, 0, 0]
    assert [look(minute, hour=13) for minute in (4, 6, 11)] == [0, 2, 0]


# -- the platform's own assets -----------------------------------------------------------------------------------------


def test_an_instance_that_is_new_is_filled_without_a_hand(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    """The first look requests the tables without inputs; the daily run, which needs them, need not wait for Monday."""
    result = dg.evaluate_automation_conditions(
        defs=build_definitions(fake_settings(tmp_path)),
        instance=instance,
        asset_selection=dg.AssetSelection.all(),
        evaluation_time=datetime(2012, 1, 12, 12, tzinfo=UTC),
    )
    requested = {str(each.key.to_user_string()) for each in result.results if each.true_subset.size}
    assert {"raw/trading_sessions", "raw/instruments"} <= requested


def test_a_run_of_everything_that_follows_holds_every_check_of_it(tmp_path: Path) -> None:
    """An asset that is bound to a check of its own would make Dagster leave out the checks of all others in its run."""
    graph = build_definitions(fake_settings(tmp_path)).get_repository_def().asset_graph
    bound = {
        key.to_user_string()
        for key in graph.materializable_asset_keys
        if any(isinstance(other, dg.AssetCheckKey) for other in graph.get(key).execution_set_entity_keys)
    }
    assert bound == set()


def test_a_failed_run_whose_alert_reached_nobody_is_told_again(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    @dg.op
    def fails() -> None:
        raise dg.Failure("the disk is full")

    @dg.job
    def daily() -> None:
        fails()

    failed = daily.execute_in_process(instance=instance, raise_on_error=False)
    now = datetime.now(UTC)
    # A run of the command line is told of in the terminal.
    assert run_failures.recent_failure_alerts(instance, now) == []
    monkeypatch.setattr(dg.DagsterRun, "remote_job_origin", property(lambda _: object()), raising=False)
    (alert,) = run_failures.recent_failure_alerts(instance, now)
    assert alert.detail == "fails: the disk is full"
    assert alert.key == f"run-failure:{failed.run_id}", "the key of the first attempt: each place is told once"
    assert run_failures.recent_failure_alerts(instance, now + timedelta(days=2)) == []
