"""The asset graph as a whole: a snapshot of its shape, and what every asset must have."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.model import Store
from finance_assets.registry import DOMAINS, build_definitions, build_resources
from finance_assets.settings import Settings

SNAPSHOT = Path(__file__).with_name("asset_graph.json")
MOST_PARTITIONS = 20_000


@cache
def definitions() -> dg.Definitions:
    return build_definitions(Settings(home=Path("/nowhere")))


def specs() -> list[dg.AssetSpec]:
    return sorted(
        (
            spec
            for asset in definitions().assets or []
            if isinstance(asset, dg.AssetsDefinition)
            for spec in asset.specs
        ),
        key=lambda spec: spec.key,
    )


def graph() -> dict[str, Any]:
    """The shape of the graph, as plain data."""
    repository = definitions().get_repository_def()
    checks: dict[str, list[str]] = {}
    for check in repository.asset_graph.asset_check_keys:
        checks.setdefault(check.asset_key.to_user_string(), []).append(check.name)
    return {
        spec.key.to_user_string(): {
            "group": spec.group_name,
            "owners": list(spec.owners),
            "kinds": sorted(spec.kinds),
            "deps": sorted(dep.asset_key.to_user_string() for dep in spec.deps),
            "partitioned": spec.partitions_def is not None,
            "automated": spec.automation_condition is not None,
            "checks": sorted(checks.get(spec.key.to_user_string(), [])),
        }
        for spec in specs()
    }


def test_the_graph_is_as_it_was() -> None:
    """A change of keys, dependencies, groups, owners or checks is meant, or it is a mistake.

    If it is meant, run ``make generate`` and read the difference.
    """
    found = json.loads(json.dumps(graph()))
    if os.environ.get("UPDATE_SNAPSHOT"):
        SNAPSHOT.write_text(json.dumps(found, indent=2) + "\n")
    assert found == json.loads(SNAPSHOT.read_text())


@pytest.mark.parametrize("spec", specs(), ids=lambda spec: spec.key.to_user_string())
def test_every_asset_has_what_it_needs(spec: dg.AssetSpec) -> None:
    path = spec.key.to_user_string()
    assert path in CONTRACTS, "no contract"
    contract = CONTRACTS[path]
    assert spec.owners, "no owner"
    assert spec.group_name in {domain.__name__.split(".")[1] for domain in DOMAINS}, (
        "no group, or one that the registry does not know"
    )
    assert spec.group_name == contract.group
    assert spec.kinds, "no kind"
    assert len(spec.description or "") > 30, "no docstring that says what one row is"
    schema = spec.metadata["dagster/column_schema"]
    columns = schema.value.columns if hasattr(schema, "value") else schema.columns
    assert [column.name for column in columns] == contract.column_names
    assert all("unit" in column.tags for column in columns)


def test_every_contract_has_an_asset() -> None:
    assert {spec.key.to_user_string() for spec in specs()} == set(CONTRACTS)


def test_every_table_has_a_blocking_check() -> None:
    repository = definitions().get_repository_def()
    blocked = {
        key.asset_key.to_user_string()
        for key in repository.asset_graph.asset_check_keys
        if repository.asset_graph.get_check_spec(key).blocking
    }
    assert blocked == set(CONTRACTS)
    for contract in CONTRACTS.values():
        if contract.store is Store.LAKE:
            key = dg.AssetCheckKey(dg.AssetKey(contract.asset_key), "honours_contract")
            assert key in repository.asset_graph.asset_check_keys


def test_ten_years_stay_far_below_the_partition_limit() -> None:
    for spec in specs():
        if spec.partitions_def is not None:
            assert spec.partitions_def.get_num_partitions() / 13 * 10 < MOST_PARTITIONS


def test_partitioned_assets_share_the_calendar_of_the_settings() -> None:
    late = build_definitions(Settings(home=Path("/nowhere"), market_start="2013-01-02"))
    partitions = {
        tuple(spec.partitions_def.get_partition_keys())
        for asset in late.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for spec in asset.specs
        if spec.partitions_def is not None
    }
    assert len(partitions) == 1
    keys = partitions.pop()
    assert (len(keys), keys[0], keys[-1]) == (41, "2013-01-02", "2013-03-01")


def test_range_runs_are_single_runs() -> None:
    for asset in definitions().assets or []:
        assert isinstance(asset, dg.AssetsDefinition)
        if asset.partitions_def is not None:
            assert asset.backfill_policy == dg.BackfillPolicy.single_run()


def test_the_warehouse_pool_holds_whatever_opens_the_file() -> None:
    pools = {
        asset.op.name: asset.op.pool for asset in definitions().assets or [] if isinstance(asset, dg.AssetsDefinition)
    }
    assert pools["sector_models"] == "warehouse"
    assert pools["published__sector_performance"] == "warehouse"
    assert pools["raw__quotes"] == "market_providers"
    assert pools["core__ticker_kpis"] == "ticker_kpis"


def test_overriding_an_unknown_resource_is_refused() -> None:
    with pytest.raises(KeyError, match="unknown resources lakke"):
        build_definitions(Settings(), resource_overrides={"lakke": object()})


def test_overrides_reach_the_definitions() -> None:
    other = object()
    defs = build_definitions(Settings(), resource_overrides={"market_data": other})
    assert (defs.resources or {})["market_data"] is other
    assert set(defs.resources or {}) == set(build_resources(Settings()))


def test_sensors_and_schedules_are_on() -> None:
    repository = definitions().get_repository_def()
    assert {sensor.name: sensor.default_status.value for sensor in repository.sensor_defs} == {
        "automation": "RUNNING",
        "data_alerts": "RUNNING",
        "queued_transactions": "RUNNING",
        "run_failure_alerts": "RUNNING",
        "unfinished_sessions": "RUNNING",
        "unfinished_work": "RUNNING",
        "vendor_files": "RUNNING",
    }
    assert {schedule.name: schedule.default_status.value for schedule in repository.schedule_defs} == {
        "market_sessions_daily": "RUNNING",
        "morning_quotes": "RUNNING",
        "morning_ingestion": "RUNNING",
        "morning_quality": "RUNNING",
        "morning_dbt": "RUNNING",
        "morning_dbt_tests": "RUNNING",
        "morning_metrics": "RUNNING",
        "morning_report": "RUNNING",
    }
