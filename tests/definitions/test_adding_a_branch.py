"""A new domain needs a contract, a ``definitions`` function and a line in the registry, as docs/adding-a-branch.md says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest

from finance_assets import contracts, registry
from finance_assets.contracts.dagster_metadata import asset_attributes, contract_checks
from finance_assets.contracts.model import Column, Contract, Layer
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

TRADE_COUNTS = Contract(
    layer=Layer.CORE,
    name="trade_counts",
    group="trades",
    grain="One symbol.",
    description="Number of trades.",
    source="This test.",
    columns=(
        Column("symbol", "string", "ticker", "Ticker of the exchange."),
        Column("trade_count", "int64", "trades", "Number of trades."),
    ),
    key=("symbol",),
)


@dg.asset(**asset_attributes(TRADE_COUNTS), io_manager_key="lake_io_manager")
def trade_counts() -> Any:
    """One row per symbol."""
    return pa.table({"symbol": ["B", "A"], "trade_count": [1, 2]})


def definitions(_: Settings) -> dg.Definitions:
    return dg.Definitions(assets=[trade_counts], asset_checks=contract_checks([TRADE_COUNTS]))


def test_a_new_domain_is_built_checked_and_stored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(contracts.CONTRACTS, TRADE_COUNTS.path, TRADE_COUNTS)
    monkeypatch.setattr(registry, "DOMAINS", (*registry.DOMAINS, SimpleNamespace(definitions=definitions)))
    settings = Settings(home=tmp_path)
    defs = registry.build_definitions(settings)
    key = dg.AssetKey(TRADE_COUNTS.asset_key)
    graph = defs.get_repository_def().asset_graph
    assert graph.get(key).group_name == "trades"
    assert [check.asset_key for check in graph.asset_check_keys].count(key) == 1
    job = dg.Definitions(
        assets=[trade_counts],
        asset_checks=contract_checks([TRADE_COUNTS]),
        resources=defs.resources,
        executor=defs.executor,
    ).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process()
    assert result.success
    assert [check.passed for check in result.get_asset_check_evaluations()] == [True]
    table = Lake(settings.lake).read(TRADE_COUNTS).table
    assert table.to_pylist() == [{"symbol": "A", "trade_count": 2}, {"symbol": "B", "trade_count": 1}]
