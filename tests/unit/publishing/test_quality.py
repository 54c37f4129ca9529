"""What checks found last, also where a run planned a check and did not come to it."""

from __future__ import annotations

from collections.abc import Iterator

import dagster as dg
import pytest

from finance_assets.automation.data_alerts import check_alerts
from finance_assets.publishing.quality import check_keys, newest_evaluation, quality_lines

KEY = dg.AssetCheckKey(dg.AssetKey(["raw", "table"]), "is_good")


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as made:
        yield made


def run(instance: dg.DagsterInstance, *, passed: bool = True, dies: bool = False) -> None:
    @dg.asset(key=KEY.asset_key)
    def table() -> None:
        if dies:
            raise ValueError("no data")

    @dg.asset_check(asset=table, name=KEY.name)
    def is_good() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, description="two rows are wrong")

    definitions = dg.Definitions(
        assets=[table], asset_checks=[is_good], jobs=[dg.define_asset_job("all", dg.AssetSelection.all())]
    )
    definitions.resolve_job_def("all").execute_in_process(instance=instance, raise_on_error=False)


def test_a_check_that_never_ran_is_counted(instance: dg.DagsterInstance) -> None:
    assert newest_evaluation(instance, KEY) is None
    assert quality_lines(instance, [KEY]) == ([], 1)


@pytest.mark.parametrize("passed", [True, False])
def test_a_check_that_is_planned_and_does_not_run_leaves_what_was_found(
    instance: dg.DagsterInstance, passed: bool
) -> None:
    run(instance, passed=passed)
    before = quality_lines(instance, [KEY])
    assert [(line.table, line.check, line.passed, line.is_error) for line in before[0]] == [
        ("raw/table", "is_good", passed, True)
    ]
    alerts = check_alerts(instance, [KEY])
    assert len(alerts) == (0 if passed else 1)
    run(instance, dies=True)
    planned = instance.get_latest_asset_check_evaluation_record(KEY)
    assert planned is not None
    assert planned.event is not None
    assert planned.event.dagster_event is not None
    assert planned.event.dagster_event.event_type_value == "ASSET_CHECK_EVALUATION_PLANNED"
    assert quality_lines(instance, [KEY]) == before
    assert check_alerts(instance, [KEY]) == alerts


def test_a_check_that_has_only_been_planned_has_found_nothing(instance: dg.DagsterInstance) -> None:
    run(instance, dies=True)
    assert quality_lines(instance, [KEY]) == ([], 1)
    assert check_alerts(instance, [KEY]) == []


def test_every_check_is_known_once() -> None:
    keys = check_keys()
    assert len(set(keys)) == len(keys) > 100
