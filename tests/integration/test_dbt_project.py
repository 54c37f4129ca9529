"""The dbt project against a small warehouse: what it computes, what its tests catch, what Dagster makes of it.

dbt takes seconds to start, so one build by Dagster serves most tests here.
"""

from __future__ import annotations

import bisect
import json
import math
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from finance_assets.contracts import CONTRACTS, sectors, transactions
from finance_assets.contracts.arrow import conform
from finance_assets.contracts.dbt import PROJECT_DIR, dbt_test_names, rules_by_test
from finance_assets.contracts.model import Contract, Store
from finance_assets.macro.assets import macro_models
from finance_assets.sectors import analytics, risk
from finance_assets.sectors.assets import sector_models, sector_risk_models
from finance_assets.transactions.assets import transaction_models
from finance_assets.transform.dbt_assets import build_dbt_assets, dbt_executable, environment

pytestmark = [
    pytest.mark.slow,
    # The first test waits for two builds by dbt, which a busy machine stretches.
    pytest.mark.timeout(900),
    # Of dbt and what it loads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

#: Sessions: weekdays without a few holidays.
HOLIDAYS = {date(2020, 11, 26), date(2020, 12, 25), date(2021, 1, 1), date(2021, 5, 31), date(2021, 12, 24)}
SESSIONS = [day.date() for day in pd.bdate_range("2020-10-01", "2022-04-29") if day.date() not in HOLIDAYS]
LISTED = date(2021, 7, 15)
RECLASSIFIED = date(2021, 6, 15)
RUINED = date(2021, 9, 1)
PERIODS = {"1m": 1, "3m": 3, "1y": 12}

#: symbol, sector, valid from, valid to, instrument type.
MEMBERSHIPS: list[tuple[str, str | None, date, date | None, str]] = [
    ("E1", "Energy", date(1990, 1, 2), None, "equity"),
    ("E2", "Energy", date(1990, 1, 2), None, "equity"),
    ("E3", "Energy", date(1990, 1, 2), None, "equity"),  # never closed: the next version ends it
    ("E3", "Utilities", RECLASSIFIED, None, "equity"),
    ("U1", "Utilities", date(1990, 1, 2), None, "equity"),
    ("T1", "Technology", date(1990, 1, 2), None, "equity"),
    ("T2", "Technology", date(1990, 1, 2), None, "equity"),
    ("F1", "Financials", date(1990, 1, 2), None, "equity"),
    ("F2", "Financials", date(1990, 1, 2), None, "equity"),
    ("M1", "Materials", date(1990, 1, 2), None, "equity"),
    ("M2", "Materials", date(1990, 1, 2), None, "equity"),
    ("N1", None, date(1990, 1, 2), None, "equity"),
    ("^X", "Energy", date(1990, 1, 2), None, "index"),
    ("^GSPC", None, date(1990, 1, 2), None, "index"),
]
#: Sessions without a quote. One of three members missing is no break; one of two is.
MISSING = {
    ("E2", date(2021, 3, 10)),
    ("T2", date(2021, 11, 10)),
    ("U1", date(2021, 2, 3)),
    ("U1", date(2021, 2, 4)),
    ("^GSPC", date(2021, 4, 7)),
}


def observed_returns() -> pd.DataFrame:
    """Total returns between observed closes, as core/ticker_kpis holds them."""
    rng = np.random.default_rng(20260101)
    rows: list[dict[str, Any]] = []
    for symbol in sorted({membership[0] for membership in MEMBERSHIPS}):
        last: int | None = None
        for position, day in enumerate(SESSIONS):
            if (symbol, day) in MISSING or (symbol == "F1" and day < LISTED):
                continue
            value = float(rng.normal(0.0005, 0.02))
            if symbol in ("M1", "M2") and day == RUINED:
                value = -1.0
            rows.append(
                {
                    "symbol": symbol,
                    "session_date": day,
                    "total_return": None if last is None else value,
                    "return_span_sessions": None if last is None else position - last,
                }
            )
            last = position
    return pd.DataFrame(rows)


def fill(path: Path, *, price_basis: str = "raw") -> None:
    """Make a warehouse whose lake views hold the rows above; tables of no interest here are empty."""
    kpis = observed_returns()
    rows = {
        "core/ticker_kpis": kpis,
        "core/quotes": kpis[["symbol", "session_date"]].assign(
            close=10.0, volume=100, currency="USD", price_basis=price_basis
        ),
        "raw/instruments": pd.DataFrame(
            MEMBERSHIPS, columns=["symbol", "gics_sector", "valid_from", "valid_to", "instrument_type"]
        ).assign(name="Name", currency="USD", source="test"),
        "raw/trading_sessions": pd.DataFrame(
            {"session_date": SESSIONS, "session_ordinal": range(len(SESSIONS)), "is_early_close": False}
        ),
    }
    with duckdb.connect(str(path)) as connection:
        connection.execute("create schema lake")
        for contract in CONTRACTS.values():
            if contract.store is not Store.LAKE:
                continue
            connection.execute(f"create schema if not exists {contract.layer}")
            held = rows.get(contract.path, pd.DataFrame())
            columns = ", ".join(
                f'cast({column.name if column.name in held else "null"} as {column.sql_type}) as "{column.name}"'
                for column in contract.columns
            )
            table = f"lake.{contract.layer}_{contract.name}"
            source = "held" if len(held) else "(select 1) where false"
            connection.execute(f"create table {table} as select {columns} from {source}")
            connection.execute(f"create view {contract.layer}.{contract.name} as select * from {table}")


@dataclass
class SmallWarehouse:
    """The part of the resource ``warehouse`` that a dbt run uses."""

    folder: Path
    refreshed: list[str] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "warehouse.duckdb"

    @property
    def scratch_dir(self) -> Path:
        return self.folder / "scratch"

    def refresh_lake_views(self) -> list[str]:
        self.refreshed.append("views")
        return self.refreshed

    def dbt_environment(self) -> dict[str, str]:
        return {"FINANCE_ASSETS_DBT_WAREHOUSE_PATH": str(self.path)}

    def rows(self, contract: Contract) -> pd.DataFrame:
        with duckdb.connect(str(self.path), read_only=True) as connection:
            order = ", ".join(contract.key)
            return connection.execute(f"select * from {contract.layer}.{contract.name} order by {order}").df()


def small_warehouse(folder: Path, **rows: Any) -> SmallWarehouse:
    folder.mkdir(parents=True, exist_ok=True)
    warehouse = SmallWarehouse(folder)
    fill(warehouse.path, **rows)
    return warehouse


def oil() -> pa.Table:
    """A price of each session, known on the day after."""
    days = pd.DatetimeIndex(SESSIONS)
    price = 60 + 5 * np.sin(np.arange(days.size) / 9)
    frame = pd.DataFrame({"series_id": "DCOILWTICO", "reference_date": days, "value": price})
    return pa.Table.from_pandas(frame.assign(release_date=days + pd.Timedelta(days=1)), preserve_index=False)


@dataclass
class Built:
    """A warehouse that Dagster has built, with what Dagster and dbt said about it."""

    warehouse: SmallWarehouse
    results: list[dg.ExecuteInProcessResult]
    left_behind: set[Path]

    @property
    def targets(self) -> list[Path]:
        return sorted((self.warehouse.scratch_dir / "dbt" / "runs").iterdir())

    def artifact(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.targets[0] / name).read_text()))

    def compiled(self) -> dict[str, str]:
        """Compiled SQL by the name of the model or test."""
        results = [
            result
            for target in self.targets
            for result in json.loads((target / "run_results.json").read_text())["results"]
        ]
        return {result["unique_id"].split(".")[2]: result["compiled_code"] for result in results}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    warehouse = small_warehouse(tmp_path_factory.mktemp("built"))
    before = set(PROJECT_DIR.rglob("*"))
    first = dg.materialize([sector_models], resources={"warehouse": warehouse}, raise_on_error=False)
    fill_risk(warehouse)
    second = dg.materialize([sector_risk_models], resources={"warehouse": warehouse}, raise_on_error=False)
    return Built(warehouse, [first, second], set(PROJECT_DIR.rglob("*")) - before)


def fill_risk(warehouse: SmallWarehouse) -> None:
    """Put what Python computes from the composites into the lake tables of the warehouse."""
    with duckdb.connect(str(warehouse.path)) as connection:

        def read(contract: Contract, names: tuple[str, ...]) -> Any:
            return connection.execute(
                f"select {', '.join(names)} from {contract.layer}.{contract.name}"
            ).to_arrow_table()

        panel = analytics.read_panel(
            read(sectors.INT_SECTOR_RETURNS, analytics.COMPOSITE_COLUMNS),
            read(sectors.INT_INDEX_RETURNS, analytics.INDEX_COLUMNS),
        )
        tables = {
            sectors.SECTOR_RISK.name: analytics.risk_table(panel),
            sectors.SECTOR_CORRELATIONS.name: analytics.correlation_table(panel),
            sectors.SECTOR_VOLATILITY.name: analytics.volatility_table(panel),
            sectors.SECTOR_PORTFOLIOS.name: analytics.portfolio_table(panel),
            sectors.SECTOR_SIGNALS.name: analytics.signal_table(panel),
            sectors.SECTOR_EXPOSURES.name: analytics.exposure_table(panel, oil(), {"DCOILWTICO": "relative_change"}),
        }
        assert set(tables) == {contract.name for contract in sectors.ANALYTICS}
        for contract in sectors.ANALYTICS:
            held = conform(contract, tables[contract.name])
            assert held.num_rows
            connection.register("held", held)
            connection.execute(f"insert into lake.{contract.layer}_{contract.name} select * from held")
            connection.unregister("held")


# --- what Dagster says -------------------------------------------------------------------------------------------


def test_a_run_materialises_every_model_and_evaluates_every_check(built: Built) -> None:
    for result, contracts in zip(built.results, (sectors.COMPOSITES, sectors.RISK_MARTS), strict=True):
        assert result.success
        made = {event.asset_key for event in result.get_asset_materialization_events()}
        assert made == {dg.AssetKey(contract.asset_key) for contract in contracts}
        evaluations = result.get_asset_check_evaluations()
        assert {evaluation.check_name for evaluation in evaluations} == {
            name for contract in contracts for name in dbt_test_names(contract)
        }
        assert all(evaluation.passed for evaluation in evaluations)
    assert built.warehouse.refreshed == ["views", "views"]


def test_materialisations_carry_rows_units_and_column_lineage(built: Built) -> None:
    metadata = {
        event.asset_key.to_user_string(): event.materialization.metadata
        for result in built.results
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    mart = metadata["mart/mart_sector_performance"]
    assert mart["dagster/row_count"].value == len(built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE))
    assert all(column.tags["unit"] for column in mart["dagster/column_schema"].value.columns)
    lineage = mart["dagster/column_lineage"].value.deps_by_column
    assert set(lineage) == set(sectors.MART_SECTOR_PERFORMANCE.column_names)
    sources = {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["return_1m"]}
    assert ("intermediate/int_period_returns", "return_1m") in sources
    lineage = metadata["intermediate/int_period_returns"]["dagster/column_lineage"].value.deps_by_column
    sources = {(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["return_1m"]}
    assert ("intermediate/int_sector_returns", "level") in sources
    assert ("intermediate/int_reference_sessions", "reference_1m_date") in sources
    staged = metadata["staging/stg_stock_prices"]["dagster/column_lineage"].value.deps_by_column["close_price"]
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in staged] == [("core/quotes", "close")]


def test_column_lineage_is_that_of_dagster_dbt(built: Built) -> None:
    """Ours reads the SQL of a model once; dagster-dbt's, once per column."""
    from dagster_dbt import DagsterDbtTranslator
    from dagster_dbt.core.dbt_cli_event import EventHistoryMetadata, _build_column_lineage_metadata

    told = {
        event.asset_key: event.materialization.metadata["dagster/column_lineage"].value.deps_by_column
        for result in built.results
        for event in result.get_asset_materialization_events()
    }
    compared = 0
    for target in built.targets:
        manifest = json.loads((target / "manifest.json").read_text())
        for result in json.loads((target / "run_results.json").read_text())["results"]:
            model = manifest["nodes"][result["unique_id"]]
            if model["resource_type"] != "model":
                continue
            parents = [
                manifest["sources" if name.startswith("source.") else "nodes"][name]
                for name in model["depends_on"]["nodes"]
            ]
            theirs = _build_column_lineage_metadata(
                EventHistoryMetadata(
                    model["columns"], {parent["relation_name"]: parent["columns"] for parent in parents}
                ),
                model,
                manifest,
                DagsterDbtTranslator(),
                target,
                None,
            )["dagster/column_lineage"].deps_by_column
            ours = told[dg.AssetKey(model["config"]["meta"]["dagster"]["asset_key"])]
            assert {column: set(found) for column, found in ours.items()} == {
                column: set(found) for column, found in theirs.items()
            }
            compared += 1
    assert compared == len(sectors.COMPOSITES) + len(sectors.RISK_MARTS)


def test_the_file_is_free_when_the_run_is_over(built: Built) -> None:
    with duckdb.connect(str(built.warehouse.path)) as connection:
        connection.execute("create or replace table free as select 1")


def test_dbt_leaves_nothing_in_the_source_tree(built: Built) -> None:
    assert built.left_behind == set()


def test_definitions_agree_with_dbt(built: Built) -> None:
    """Specs are made without dbt, so that loading is quick; here they are held against its manifest."""
    manifest = built.artifact("manifest.json")
    keys = {
        unique_id: tuple(node["config"]["meta"]["dagster"]["asset_key"])
        for unique_id, node in {**manifest["nodes"], **manifest["sources"]}.items()
        if node["resource_type"] in ("model", "source")
    }
    specs = {
        tuple(spec.key.path): spec
        for models in (macro_models, sector_models, sector_risk_models, transaction_models)
        for spec in models.specs
    }
    models = {keys[name]: node for name, node in manifest["nodes"].items() if node["resource_type"] == "model"}
    warehouse_contracts = {
        tuple(contract.asset_key): contract for contract in CONTRACTS.values() if contract.is_built_by_dbt
    }
    assert set(models) == set(warehouse_contracts)
    for key, node in models.items():
        contract = warehouse_contracts[key]
        assert (node["schema"], node["name"]) == key
        assert node["config"]["contract"]["enforced"]
        assert {keys[name] for name in node["depends_on"]["nodes"]} == {
            tuple(path.split("/")) for path in contract.inputs
        }
        assert list(node["columns"]) == contract.column_names
        tests = {
            other["name"]
            for other in manifest["nodes"].values()
            if other["resource_type"] == "test" and other["attached_node"] == node["unique_id"]
        }
        assert tests == set(dbt_test_names(contract))
        spec = specs[key]
        assert {tuple(dep.asset_key.path) for dep in spec.deps} == {tuple(path.split("/")) for path in contract.inputs}


# --- what dbt says -----------------------------------------------------------------------------------------------


def dbt(warehouse: SmallWarehouse, *arguments: str) -> subprocess.CompletedProcess[str]:
    target = warehouse.scratch_dir / "dbt"  # where the last run left what it had parsed
    with environment(
        {
            **warehouse.dbt_environment(),
            "DBT_TARGET_PATH": str(target),
            "DBT_LOG_PATH": str(target),
            "DBT_USE_COLORS": "false",
        }
    ):
        return subprocess.run(
            [str(dbt_executable()), *arguments, "--project-dir", str(PROJECT_DIR), "--profiles-dir", str(PROJECT_DIR)],
            capture_output=True,
            text=True,
            check=False,
        )


def test_unit_tests_of_the_models_pass(built: Built) -> None:
    # dbt reads the columns of a unit test's inputs off the relations, which only the sectors have here so far.
    models = [contract.name for contract in transactions.CONTRACTS if contract.is_built_by_dbt]
    made = dbt(built.warehouse, "run", "--empty", "--select", " ".join(models))
    assert made.returncode == 0, made.stdout
    done = dbt(built.warehouse, "test", "--select", "test_type:unit")
    assert done.returncode == 0, done.stdout
    assert "TOTAL=0" not in done.stdout


def test_names_are_short_enough_for_postgresql(built: Built) -> None:
    manifest = built.artifact("manifest.json")
    nodes = [*manifest["nodes"].values(), *manifest["unit_tests"].values()]
    assert not [node["name"] for node in nodes if len(node["name"]) > 63]


# --- what the models compute -------------------------------------------------------------------------------------


def memberships_on(day: date) -> dict[str, str]:
    """Symbol -> sector on a day: the newest version that has begun, of equities whose sector is known."""
    newest: dict[str, tuple[date, str | None]] = {}
    for symbol, sector, start, end, kind in MEMBERSHIPS:
        if (
            kind == "equity"
            and start <= day
            and (end is None or day < end)
            and start >= newest.get(symbol, (start, ""))[0]
        ):
            newest[symbol] = (start, sector)
    return {symbol: sector for symbol, (_, sector) in newest.items() if sector is not None}


def composites() -> dict[str, list[tuple[date, int, int, float | None]]]:
    """(session, members, returns, composite return) by sector, computed session by session in plain Python."""
    rows = observed_returns()
    first = rows.groupby("symbol")["session_date"].min().to_dict()
    single = rows[rows["return_span_sessions"] == 1]
    returned = {(row.symbol, row.session_date): row.total_return for row in single.itertuples()}
    found: dict[str, list[tuple[date, int, int, float | None]]] = {}
    for day in SESSIONS:
        by_sector: dict[str, list[str]] = {}
        for symbol, sector in memberships_on(day).items():
            by_sector.setdefault(sector, [])
            if first[symbol] < day:
                by_sector[sector].append(symbol)
        for sector, members in by_sector.items():
            values = [returned[symbol, day] for symbol in members if (symbol, day) in returned]
            defined = len(values) >= 2 or (len(values) == 1 and len(members) == 1)
            found.setdefault(sector, []).append(
                (day, len(members), len(values), math.fsum(values) / len(values) if defined else None)
            )
    return found


@dataclass
class Expected:
    """One sector, one session, computed independently."""

    members: int
    returns: int
    daily: float | None
    level: float | None
    base: date | None


def expected_rows() -> dict[tuple[str, date], Expected]:
    found = {}
    for sector, rows in composites().items():
        begins = next(position for position, row in enumerate(rows) if row[3] is not None) - 1
        level, base = 1.0, rows[begins][0]
        for position, (day, members, returns, daily) in enumerate(rows[begins:]):
            if daily is None:
                start = position == 0
                level, base = 1.0, day
                found[sector, day] = Expected(members, returns, None, 1.0 if start else None, day if start else None)
            else:
                level *= 1 + daily
                found[sector, day] = Expected(members, returns, daily, level, base)
    return found


def value(number: Any) -> float | None:
    return None if pd.isna(number) else float(number)


def agree(found: Any, wanted: float | None, *, relative: float = 1e-10) -> bool:
    """Whether both are undefined, or both are the same number up to rounding."""
    number = value(found)
    if number is None or wanted is None:
        return number is None and wanted is None
    return math.isclose(number, wanted, rel_tol=relative, abs_tol=1e-13)


def day_of(stamp: Any) -> date | None:
    return None if pd.isna(stamp) else pd.Timestamp(stamp).date()


def test_composites_agree_with_an_independent_computation(built: Built) -> None:
    expected = expected_rows()
    rows = built.warehouse.rows(sectors.INT_SECTOR_RETURNS)
    assert {(row.sector, row.session_date.date()) for row in rows.itertuples()} == set(expected)
    for row in rows.itertuples():
        want = expected[row.sector, row.session_date.date()]
        assert (row.member_count, row.return_count) == (want.members, want.returns)
        assert agree(row.daily_return, want.daily, relative=1e-13)
        assert agree(row.level, want.level, relative=1e-12)
        assert day_of(row.chain_start_date) == want.base
        if want.daily is not None:
            assert row.daily_return_status == "ok"


def test_the_data_holds_every_case(built: Built) -> None:
    """The comparison above is worth what its data covers."""
    rows = built.warehouse.rows(sectors.INT_SECTOR_RETURNS)
    assert set(rows["daily_return_status"]) == set(sectors.DAILY_STATUSES)
    assert (rows["level"] == 0).any()
    marts = built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE)
    assert set(marts["return_1d_status"]) == set(sectors.RETURN_STATUSES) - {"gap"}
    assert set(marts["return_3m_status"]) == set(sectors.RETURN_STATUSES)
    assert rows.groupby("sector")["chain_start_date"].nunique().to_dict() == {
        "Energy": 1,
        "Financials": 1,
        "Materials": 1,
        "Technology": 2,
        "Utilities": 2,
    }


def reference(day: date, period: str) -> date | None:
    """Last session on or before the period's calendar date, by pandas' calendar arithmetic."""
    if period == "1d":
        target = day - pd.Timedelta(days=1)
    elif period == "ytd":
        target = pd.Timestamp(day.year - 1, 12, 31)
    else:
        target = pd.Timestamp(day) - pd.DateOffset(months=PERIODS[period])
    after = bisect.bisect_right(SESSIONS, pd.Timestamp(target).date())
    return SESSIONS[after - 1] if after else None


def test_period_returns_agree_with_an_independent_computation(built: Built) -> None:
    expected = expected_rows()
    begins = {sector: min(day for name, day in expected if name == sector) for sector, _ in expected}
    references = {(day, period): reference(day, period) for day in SESSIONS for period in sectors.REFERENCE_PERIODS}
    for row in built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE).to_dict("records"):
        sector, day = row["sector"], row["session_date"].date()
        now = expected[sector, day]
        for period in sectors.PERIODS:
            then = begins[sector] if period == "cumulative" else references[day, period]
            if now.level is None or now.base is None:
                want, status = None, ("no_data" if now.returns == 0 else "missing_input")
            elif then is None or then < begins[sector]:
                want, status = None, "insufficient_history"
            elif then < now.base:
                want, status = None, "gap"
            else:
                base = 1.0 if then == now.base else expected[sector, then].level
                assert base is not None
                want, status = (None, "undefined_denominator") if base == 0 else (now.level / base - 1, "ok")
            where = (sector, day, period)
            assert (where, row[f"return_{period}_status"]) == (where, status)
            assert agree(row[f"return_{period}"], want), (where, row[f"return_{period}"], want)


def test_period_returns_agree_with_the_public_function(built: Built) -> None:
    """`period_return` is what notebooks call. It knows no chains, so it is given one at a time."""
    returns = pytest.importorskip("finance_assets.sectors.returns")
    rows = built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE)
    compared = 0
    for (_, base), chain in rows.dropna(subset=["level"]).groupby(["sector", "chain_start_date"]):
        levels = pd.Series(chain["level"].to_numpy(), index=chain["session_date"].dt.date)
        levels = pd.concat([pd.Series([1.0], index=[base.date()]), levels[levels.index > base.date()]])
        first_chain = base == rows[rows["sector"] == chain["sector"].iloc[0]]["session_date"].min()
        for row in chain[::23].to_dict("records"):
            for period, name in (("1d", "1D"), ("1m", "1M"), ("3m", "3M"), ("ytd", "YTD"), ("1y", "1Y")):
                want = returns.period_return(levels, row["session_date"].date(), name)
                assert agree(row[f"return_{period}"], want), (row, period, want)
                compared += want is not None
            if first_chain:
                want = returns.period_return(levels, row["session_date"].date(), "cumulative")
                assert agree(row["return_cumulative"], want), (row, want)
    assert compared > 200


def test_numbers_do_not_depend_on_the_order_of_rows_or_threads(built: Built, tmp_path: Path) -> None:
    """Bit for bit: sums are exact, so shuffled rows and other threads give the same composite."""
    sql = built.compiled()["int_sector_returns"]
    sql = sql.replace('"warehouse"."staging"."stg_ticker_returns"', "shuffled")
    found = []
    for seed, threads in ((0.1, 1), (0.7, 4)):
        with duckdb.connect(config={"threads": threads}) as connection:
            connection.execute(f"attach '{built.warehouse.path}' as warehouse (read_only)")
            connection.execute(f"select setseed({seed})")
            connection.execute(
                "create table shuffled as select * from warehouse.staging.stg_ticker_returns order by random()"
            )
            found.append(connection.execute(f"select * from ({sql}) order by sector, session_date").fetchall())
    assert found[0] == found[1]
    assert len(found[0]) > 1000


def series_of(built: Built, contract: Contract, name: str, column: str) -> dict[str, pd.Series]:
    """A column by session, for each series of a relation."""
    rows = built.warehouse.rows(contract)
    return {key: group.set_index("session_date")[column].sort_index() for key, group in rows.groupby(name)}


def test_the_benchmark_is_an_index_and_beside_every_sector(built: Built) -> None:
    rows = observed_returns()
    own = rows[(rows["symbol"] == "^GSPC") & (rows["return_span_sessions"] == 1)].set_index("session_date")
    indices = series_of(built, sectors.INT_INDEX_RETURNS, "index_symbol", "daily_return")
    assert set(indices) == {"^GSPC", "^X"}
    found = indices["^GSPC"].dropna()
    assert [day.date() for day in found.index] == list(own.index)
    np.testing.assert_allclose(found, own["total_return"], rtol=1e-15)
    mart = built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE)
    assert set(mart["market_return_1d_status"]) >= {"ok", "no_data", "insufficient_history"}
    assert set(mart["market_return_3m_status"]) >= {"ok", "gap"}
    both = mart.dropna(subset=["return_1m", "market_return_1m"])
    np.testing.assert_allclose(both["relative_return_1m"], both["return_1m"] - both["market_return_1m"], atol=1e-15)
    # The index of a sector stands beside that sector and no other.
    assert set(mart.dropna(subset=["index_return_1d"])["sector"]) == {"Energy"}
    ranks = mart.groupby("session_date")["return_1d"].rank(ascending=False, method="min")
    np.testing.assert_array_equal(mart["rank_1d"].astype(float), ranks)
    # Over the composite's life: the product of the benchmark's returns since, where none is missing.
    last = mart[mart["session_date"] < pd.Timestamp(2021, 4, 7)].groupby("sector").tail(1)
    compared = 0
    for row in last[last["market_return_cumulative_status"] == "ok"].itertuples():
        begins = mart[mart["sector"] == row.sector]["session_date"].min()
        since = found[(found.index > begins) & (found.index <= row.session_date)]
        assert agree(row.market_return_cumulative, float((1 + since).prod() - 1))
        compared += 1
    assert compared >= 3


def test_rolling_volatility_agrees_with_the_public_functions(built: Built) -> None:
    market = series_of(built, sectors.INT_INDEX_RETURNS, "index_symbol", "daily_return")["^GSPC"]
    composite = series_of(built, sectors.INT_SECTOR_RETURNS, "sector", "daily_return")
    mart = built.warehouse.rows(sectors.MART_RISK_METRICS)
    for (sector, window), rows in mart.groupby(["sector", "risk_window"]):
        returns = composite[sector].astype(float)
        wanted = pd.Series(risk.rolling_volatility(returns.to_numpy()), index=returns.index)
        found = rows.set_index("session_date")
        np.testing.assert_allclose(
            found["volatility_30"].astype(float), wanted.reindex(found.index), rtol=1e-12, err_msg=str(sector)
        )
        assert ((found["volatility_30_status"] == "ok") == found["volatility_30"].notna()).all()
        pairs = pd.concat([returns, market.astype(float)], axis=1, keys=["own", "market"]).dropna()
        relative = found["relative_volatility_30"].dropna().astype(float)
        assert len(relative) > (100 if window == "trailing_252" else 3)
        for day in relative.index[::40]:
            last = pairs[pairs.index <= day].tail(30)
            assert agree(relative[day], risk.relative_volatility(last["own"], last["market"]))


def test_risk_marts_hold_what_python_computed(built: Built) -> None:
    """A mart adds to its table and changes none of it; the square of correlations holds each pair twice."""
    for mart, core in (
        (sectors.MART_RISK_METRICS, sectors.SECTOR_RISK),
        (sectors.MART_VOLATILITY_CLUSTERING, sectors.SECTOR_VOLATILITY),
        (sectors.MART_DIVERSIFICATION, sectors.SECTOR_PORTFOLIOS),
        (sectors.MART_TRADING_SIGNALS, sectors.SECTOR_SIGNALS),
        (sectors.MART_MACRO_EXPOSURE, sectors.SECTOR_EXPOSURES),
    ):
        names = [name for name in core.column_names if name != "input_fingerprint"]
        pd.testing.assert_frame_equal(built.warehouse.rows(mart)[names], built.warehouse.rows(core)[names])
    square = built.warehouse.rows(sectors.MART_CORRELATIONS)
    there = square.merge(
        square, left_on=["series", "other_series", "session_date"], right_on=["other_series", "series", "session_date"]
    )
    assert len(there) == len(square)
    pd.testing.assert_series_equal(there["correlation_30_x"], there["correlation_30_y"], check_names=False)
    one = square[(square["series"] == "Energy") & (square["other_series"] == "^GSPC")].set_index("session_date")
    change = one["correlation_30"] - one["correlation_30"].shift(21)
    np.testing.assert_allclose(one["correlation_30_change"].astype(float), change.astype(float), atol=1e-15)
    assert one["with_benchmark"].all()


# --- what the tests catch ----------------------------------------------------------------------------------------

#: For each row rule of a contract: what to change in a legal row so that it breaks the rule.
RULE_BREAKERS: dict[str, dict[str, str]] = {
    "return_has_a_span": {"total_return": "0.1", "span_sessions": "null"},
    "valid_interval": {"valid_to": "valid_from"},
    "counted_members": {"return_count": "member_count + 1"},
    "level_has_a_base": {"chain_start_date": "null"},
    "base_is_past": {"chain_start_date": "session_date + 1"},
    "daily_return_explained": {"daily_return": "null", "daily_return_status": "'ok'"},
    "return_has_a_level": {"daily_return": "0.1", "level": "null", "chain_start_date": "null"},
    **{
        f"reference_{period}_is_past": {f"reference_{period}_date": "session_date"}
        for period in sectors.REFERENCE_PERIODS
    },
    **{f"return_{period}_explained": {f"return_{period}": "null"} for period in sectors.PERIODS},
    **{
        f"{name}_{period}_{rule}": {f"{name}_{period}": f"case when {name}_{period} is null then 1 end"}
        for name, rule in (("relative_return", "has_both"), ("rank", "has_a_return"))
        for period in sectors.PERIODS
    },
    "benchmark_is_broad": {"is_benchmark": "true", "sector": "'Energy'"},
    "drawdown_order": {"drawdown_trough_date": "drawdown_peak_date"},
    "recovery_order": {"drawdown_recovery_date": "drawdown_trough_date"},
    **{
        f"correlation_{window}_diagonal": {
            "series": "other_series",
            **{f"correlation_{other}": "1" for other in ("30", "252", "full")},
            f"correlation_{window}": "0.5",
        }
        for window in ("30", "252", "full")
    },
    "model_named": {"volatility_model": "null"},
    "t_has_an_error": {"t_statistic": "1", "standard_error": "null"},
    "ranked": {"volatility_rank": "null"},
    "state_has_numbers": {"value": "null"},
    "state_has_both_numbers": {"reference_value": "null"},
    "state_has_a_start": {"since_date": "null"},
    "start_is_past": {"since_date": "session_date + 1"},
    "new_begins_today": {"is_new": "true", "since_date": "session_date - 1"},
    "event_is_new": {"event": "'x'", "is_new": "false"},
}


def rule_breaker(name: str) -> dict[str, str]:
    """What to change in a legal row so that it breaks a rule on several columns."""
    if name in RULE_BREAKERS:
        return RULE_BREAKERS[name]
    column = name.removesuffix("_explained")
    assert column != name, f"say how to break the rule {name}"
    return {f"{column}_status": f"case when {column} is null then 'ok' else 'no_data' end"}


def breakers(contract: Contract) -> Iterator[tuple[str, str, dict[str, str]]]:
    """(test, rule, changes to a legal row) for every rule that is generated for a model."""
    for kind, rules in rules_by_test(contract).items():
        for rule in rules:
            name = rule.split(":")[0] if kind == "rules" else rule.split(" ")[0]
            if kind == "rules":
                yield kind, rule, rule_breaker(name)
                continue
            column = contract.column(name)
            if kind == "not_null":
                yield kind, rule, {name: "null"}
            elif kind == "finite":
                yield kind, rule, {name: "'nan'::double"}
                yield kind, rule, {name: "'inf'::double"}
                yield kind, rule, {name: "'-inf'::double"}
            elif kind == "allowed":
                yield kind, rule, {name: "'nonsense'"}
            elif f"> {column.minimum}" in rule:
                yield kind, rule, {name: str(column.minimum)}
            elif f">= {column.minimum}" in rule:
                yield kind, rule, {name: f"{column.minimum} - 1"}
            else:
                yield kind, rule, {name: f"{column.maximum} + 1"}


@pytest.mark.parametrize("contract", (*sectors.COMPOSITES, *sectors.RISK_MARTS), ids=lambda contract: contract.name)
def test_every_generated_test_passes_a_legal_row_and_catches_a_bad_one(built: Built, contract: Contract) -> None:
    compiled = built.compiled()
    relation = f'"warehouse"."{contract.layer}"."{contract.name}"'
    exercised = {f"{contract.name}__unique_key"}
    with duckdb.connect() as connection:
        connection.execute(f"attach '{built.warehouse.path}' as warehouse (read_only)")
        # The row with the most values, so that there is something to break.
        filled = " + ".join(f'("{name}" is not null)::int' for name in contract.column_names)
        order = ", ".join(contract.key)
        connection.execute(
            f"create table legal as select * from {relation} order by {filled} desc, {order} desc limit 1"
        )

        def offences(test: str) -> list[tuple[Any, ...]]:
            assert relation in compiled[test]
            return connection.execute(compiled[test].replace(relation, "rows")).fetchall()

        connection.execute("create table rows as from legal")
        for test in dbt_test_names(contract):
            assert offences(test) == [], test
        for kind, rule, changes in breakers(contract):
            changed = ", ".join(f'"{name}" = {expression}' for name, expression in changes.items())
            connection.execute("create or replace table rows as from legal")
            connection.execute(f"update rows set {changed}")
            found = offences(f"{contract.name}__{kind}")
            assert [row[0] for row in found] == [rule], changes
            exercised.add(f"{contract.name}__{kind}")
        connection.execute("create or replace table rows as from legal union all from legal")
        assert len(offences(f"{contract.name}__unique_key")) == 1
    assert exercised == set(dbt_test_names(contract))


# --- what a run does when something is wrong ---------------------------------------------------------------------


def test_one_model_can_be_built_alone(built: Built, tmp_path: Path) -> None:
    """A run of one model builds that one, and evaluates its checks and no other."""
    warehouse = SmallWarehouse(tmp_path)
    warehouse.path.write_bytes(built.warehouse.path.read_bytes())
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("drop table mart.mart_sector_performance")
    key = dg.AssetKey(sectors.MART_SECTOR_PERFORMANCE.asset_key)
    result = dg.materialize([sector_models], resources={"warehouse": warehouse}, selection=[key])
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [key]
    assert {evaluation.check_name for evaluation in result.get_asset_check_evaluations()} == set(
        dbt_test_names(sectors.MART_SECTOR_PERFORMANCE)
    )
    pd.testing.assert_frame_equal(
        warehouse.rows(sectors.MART_SECTOR_PERFORMANCE), built.warehouse.rows(sectors.MART_SECTOR_PERFORMANCE)
    )


def test_bad_rows_fail_their_check_and_stop_what_is_behind(tmp_path: Path) -> None:
    warehouse = small_warehouse(tmp_path / "bad", price_basis="hearsay")
    ran: list[str] = []

    @dg.asset(deps=[dg.AssetKey(sectors.STG_STOCK_PRICES.asset_key)])
    def behind() -> None:
        ran.append("behind")

    result = dg.materialize(
        [sector_models, behind],
        resources={"warehouse": warehouse},
        selection=dg.AssetSelection.keys(
            sectors.STG_STOCK_PRICES.asset_key, sectors.INT_SECTOR_RETURNS.asset_key, ["behind"]
        ),
        raise_on_error=False,
    )
    assert not result.success
    assert ran == []
    # Its rows are there to be looked at; the model behind it was not built on them.
    assert [event.asset_key for event in result.get_asset_materialization_events()] == [
        dg.AssetKey(sectors.STG_STOCK_PRICES.asset_key)
    ]
    evaluations = {evaluation.check_name: evaluation for evaluation in result.get_asset_check_evaluations()}
    failed = evaluations.pop("stg_stock_prices__allowed")
    assert not failed.passed
    assert failed.blocking
    assert failed.severity is dg.AssetCheckSeverity.ERROR
    quotes = len(observed_returns())
    assert failed.metadata["failed_rows"].value == quotes
    assert failed.description is not None
    assert f"price_basis is one of its allowed values: {quotes} rows, the first E1, 2020-10-01" in failed.description
    assert "price_basis" in str(failed.metadata["sql"].value)
    assert evaluations
    assert all(evaluation.passed for evaluation in evaluations.values())
    assert not any(name.startswith("int_sector_returns") for name in evaluations)
    [error] = [event for event in result.all_events if event.is_step_failure]
    assert "stg_stock_prices__allowed" in str(error.step_failure_data.error)


def test_a_model_that_cannot_be_built_fails_the_run_with_dbts_message(tmp_path: Path) -> None:
    warehouse = small_warehouse(tmp_path / "broken")
    with duckdb.connect(str(warehouse.path)) as connection:
        connection.execute("drop view raw.trading_sessions")
    models = build_dbt_assets("sessions_only", [sectors.STG_TRADING_SESSIONS])
    result = dg.materialize([models], resources={"warehouse": warehouse}, raise_on_error=False)
    [event] = [event for event in result.all_events if event.is_step_failure]
    failure = event.step_failure_data
    assert "stg_trading_sessions" in str(failure.user_failure_data.description)
    assert "trading_sessions does not exist" in str(failure.user_failure_data.description)
    assert failure.user_failure_data.metadata["failed"].value == ["stg_trading_sessions"]
    assert not result.get_asset_materialization_events()
