"""The sectors branch as Dagster sees it, without starting dbt."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.returns import market_returns, stock_returns
from fixtures.rows import table_of

from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW
from finance_assets.contracts import market, sectors
from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.contracts.dbt import dbt_test_names
from finance_assets.contracts.macro import MACRO_INDICATORS
from finance_assets.contracts.model import Contract, ContractError
from finance_assets.sectors import assets
from finance_assets.sectors.assets import sector_models, sector_risk_models
from finance_assets.settings import Settings
from finance_assets.storage.io_managers import LakeIOManager
from finance_assets.storage.lake import Lake
from finance_assets.transform import dbt_assets

STEPS = [(sector_models, sectors.COMPOSITES), (sector_risk_models, sectors.RISK_MARTS)]


@pytest.mark.parametrize(("models", "contracts"), STEPS)
def test_each_model_is_an_asset_with_what_its_contract_says(
    models: dg.AssetsDefinition, contracts: tuple[Contract, ...]
) -> None:
    specs = {spec.key.to_user_string(): spec for spec in models.specs}
    assert set(specs) == {contract.path for contract in contracts}
    for contract in contracts:
        spec = specs[contract.path]
        assert {dep.asset_key.to_user_string() for dep in spec.deps} == set(contract.inputs)
        assert spec.group_name == "sectors"
        assert list(spec.owners) == [contract.owner]
        assert spec.kinds == {"dbt", "sql", "duckdb"}
        assert spec.description is not None
        assert spec.description.startswith(contract.grain)
        assert spec.automation_condition is not None
        columns = spec.metadata["dagster/column_schema"].columns
        assert [(column.name, column.type) for column in columns] == [
            (column.name, column.sql_type) for column in contract.columns
        ]
        assert all(column.tags["unit"] for column in columns)


@pytest.mark.parametrize(("models", "contracts"), STEPS)
def test_each_generated_test_is_a_blocking_check(models: dg.AssetsDefinition, contracts: tuple[Contract, ...]) -> None:
    checks = list(models.check_specs)
    assert {(check.asset_key.to_user_string(), check.name) for check in checks} == {
        (contract.path, name) for contract in contracts for name in dbt_test_names(contract)
    }
    assert all(check.blocking for check in checks)
    assert all(check.description for check in checks)


def test_models_run_one_at_a_time_and_can_be_chosen() -> None:
    for models, _ in STEPS:
        assert models.op.pool == "warehouse"
        assert "warehouse" in models.required_resource_keys
        assert models.can_subset


def test_models_wait_for_the_blocking_checks_of_their_inputs() -> None:
    for models, _ in STEPS:
        assert all(spec.automation_condition == WHEN_HISTORY_IS_NEW for spec in models.specs)


def test_loading_the_definitions_imports_no_dbt() -> None:
    """dbt and dagster-dbt take seconds to import; every run starts a process that loads the definitions."""
    code = (
        "import sys, finance_assets.sectors.assets; "
        "print([name for name in sys.modules if name.split('.')[0] in ('dbt', 'dagster_dbt', 'duckdb', 'pandas')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


class Composites(dg.IOManager):
    """The warehouse, holding two sectors and the market over some sessions."""

    def __init__(self, sessions: int) -> None:
        self.sessions = sessions

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:
        raise AssertionError("what is under test only reads the warehouse")

    def load_input(self, context: dg.InputContext) -> pa.Table:
        own = context.asset_key.path[-1] == sectors.INT_SECTOR_RETURNS.name
        frames = []
        for name, series in (
            [("Energy", stock_returns()["XOM"]), ("Financials", stock_returns()["JPM"])]
            if own
            else [("^GSPC", market_returns().reindex(stock_returns().index))]
        ):
            returns = series.iloc[:600].iloc[: self.sessions].copy()
            returns.iloc[0] = math.nan
            frame = pd.DataFrame({"session_date": returns.index.date, "daily_return": returns.to_numpy()})
            frame["level"] = (1 + returns.fillna(0)).cumprod().to_numpy()
            frame["chain_start_date"] = frame["session_date"].iloc[0]
            frames.append(frame.assign(sector=name) if own else frame.assign(index_symbol=name, is_benchmark=True))
        assert context.definition_metadata is not None
        columns = context.definition_metadata["columns"]
        return pa.Table.from_pandas(pd.concat(frames), preserve_index=False).select(columns)


def oil_as_it_was_known() -> pa.Table:
    """Oil on every session, known two days late, and beside it a series of which nothing is known."""
    days = list(stock_returns().index[:600].date)
    rng = np.random.default_rng(8)
    prices = [Decimal(f"{price:.2f}") for price in 60 + np.cumsum(rng.normal(0, 1, len(days)))]
    about: dict[str, Any] = {"series_name": "Oil", "unit": "USD per barrel", "frequency": "daily", "is_new": False}
    unknown = dict.fromkeys(("published_value", "reference_date", "release_date", "release_basis", "age_days"))
    rows = [
        {**about, "series_id": "VIXCLS", "session_date": day, "published_value_status": "no_data", **unknown}
        for day in days
    ]
    for place, day in enumerate(days[2:]):
        known = {
            "published_value": prices[place],
            "published_value_status": "ok",
            "reference_date": days[place],
            "release_date": day,
            "release_basis": "assumed_lag",
            "age_days": (day - days[place]).days,
        }
        rows.append({**about, "series_id": "DCOILWTICO", "session_date": day, **known})
    return table_of(MACRO_INDICATORS, *rows)


def test_risk_is_computed_for_what_is_new_and_for_nothing_else(tmp_path: Path) -> None:
    """As Dagster runs the assets: into the lake, again without work, and with one more session."""
    lake = Lake(str(tmp_path / "lake"))
    analytics = [
        assets.sector_risk,
        assets.sector_correlations,
        assets.sector_volatility,
        assets.sector_portfolios,
        assets.sector_signals,
        assets.sector_exposures,
    ]

    lake.write(MACRO_INDICATORS, oil_as_it_was_known())

    def run(sessions: int) -> dict[str, int]:
        result = dg.materialize(
            [
                *(
                    dg.AssetSpec(c.asset_key)
                    for c in (sectors.INT_SECTOR_RETURNS, sectors.INT_INDEX_RETURNS, MACRO_INDICATORS)
                ),
                *analytics,
                *contract_checks(sectors.ANALYTICS),
            ],
            resources={
                "lake": lake,
                "settings": Settings(home=tmp_path, risk_free_rate=0.01),
                "lake_io_manager": LakeIOManager(lake),
                "warehouse_io_manager": Composites(sessions),
            },
        )
        assert all(check.passed for check in result.get_asset_check_evaluations())
        assert len(result.get_asset_check_evaluations()) == len(sectors.ANALYTICS)
        return {
            event.asset_key.path[-1]: int(event.materialization.metadata["rows_computed"].value)
            for event in result.get_asset_materialization_events()
            if event.asset_key is not None and "rows_computed" in event.materialization.metadata
        }

    def files() -> dict[str, bytes]:
        return {contract.name: Path(lake.file(contract)).read_bytes() for contract in sectors.ANALYTICS}

    everything = run(599)
    assert everything["sector_risk"] > 2 * 599
    assert set(lake.read(sectors.SECTOR_RISK).table.column("risk_free_rate").to_pylist()) == {0.01}
    before = files()
    assert run(599) == dict.fromkeys(("sector_risk", "sector_volatility", "sector_portfolios", "sector_exposures"), 0)
    assert files() == before
    # Of each sector the window of the session and the month since the start; three series; four rules for two sectors;
    # and for these two the factors alpha, market and oil, by itself and in the joint regression.
    assert run(600) == {"sector_risk": 4, "sector_volatility": 3, "sector_portfolios": 8, "sector_exposures": 12}
    exposures = lake.read(sectors.SECTOR_EXPOSURES).table
    assert set(exposures.column("model").to_pylist()) == {"DCOILWTICO", "joint"}
    # Oil is known from the first month's end, so the first change is February's; a series without numbers is no factor.
    assert (
        max(exposures.column("month_count").to_pylist()) == len(set(exposures.column("session_date").to_pylist())) - 1
    )
    grown = files()
    for contract in sectors.ANALYTICS:
        Path(lake.file(contract)).unlink()
    run(600)
    assert files() == grown


def test_a_lake_table_is_no_dbt_model() -> None:
    with pytest.raises(ContractError, match="core/quotes is kept in the lake"):
        dbt_assets.dbt_asset_specs([market.QUOTES])


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path.cwd()
    monkeypatch.setenv("HELD", "before")
    monkeypatch.delenv("FREE", raising=False)
    with pytest.raises(RuntimeError), dbt_assets.environment({"HELD": "within", "FREE": "within"}):
        assert (os.environ["HELD"], os.environ["FREE"]) == ("within", "within")
        os.chdir(tmp_path)
        raise RuntimeError
    assert Path.cwd() == folder
    assert os.environ["HELD"] == "before"
    assert "FREE" not in os.environ


def test_a_missing_dbt_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(dg.Failure, match="make setup"):
        dbt_assets.dbt_executable()


def test_only_the_newest_targets_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        os.utime(folder, (number, number))
    dbt_assets._keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3", "run-4"]
