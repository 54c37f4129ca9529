"""The sectors branch in Dagster: dbt models to composites, risk computed from them, dbt models over that.

What belongs here: the definitions of the branch. SQL stands in ``dbt_project/models``, promises about tables in
``finance_assets.contracts.sectors``, maths in the modules beside this one.
"""

from typing import TYPE_CHECKING, Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW
from finance_assets.contracts import sectors
from finance_assets.contracts.dagster_metadata import asset_attributes
from finance_assets.contracts.macro import MACRO_INDICATORS
from finance_assets.reference.pools import WAREHOUSE as WAREHOUSE_POOL
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.transform.dbt_assets import build_dbt_assets

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.contracts.model import Contract

#: Every model follows its inputs, once their blocking checks have passed: bad quotes move no composite.
sector_models = build_dbt_assets(
    "sector_models",
    sectors.COMPOSITES,
    automation_condition=WHEN_HISTORY_IS_NEW,
)

#: The marts over what Python computes from the composites: a second step of dbt, since that lies between.
sector_risk_models = build_dbt_assets(
    "sector_risk_models",
    sectors.RISK_MARTS,
    automation_condition=WHEN_HISTORY_IS_NEW,
)


def _from_warehouse(contract: "Contract", columns: tuple[str, ...]) -> dg.AssetIn:
    return dg.AssetIn(
        key=dg.AssetKey(contract.asset_key),
        input_manager_key="warehouse_io_manager",
        metadata={"columns": list(columns)},
    )


def _composites() -> dict[str, dg.AssetIn]:
    # Written out: the module with the maths is imported when it is used.
    level = ("daily_return", "level", "chain_start_date")
    return {
        "composites": _from_warehouse(sectors.INT_SECTOR_RETURNS, ("sector", "session_date", *level)),
        "indices": _from_warehouse(sectors.INT_INDEX_RETURNS, ("index_symbol", "session_date", "is_benchmark", *level)),
    }


def _attributes(contract: "Contract") -> dict[str, Any]:
    return {
        **asset_attributes(contract),
        "io_manager_key": "lake_io_manager",
        # The composites are read from the warehouse.
        "pool": WAREHOUSE_POOL,
        "automation_condition": WHEN_HISTORY_IS_NEW,
    }


def _stored(lake: Lake, contract: "Contract") -> "pa.Table | None":
    """Return the table as it is, unless it was written by an earlier contract or not at all."""
    if not lake.partitions(contract):
        return None
    read = lake.read(contract)
    return None if read.outdated else read.table


def _result(table: "pa.Table", stored: "pa.Table | None") -> dg.MaterializeResult[Any]:
    """Return a table, with how many of its rows were computed anew."""
    before = set() if stored is None else set(stored.column("input_fingerprint").to_pylist())
    fresh = sum(print_ not in before for print_ in table.column("input_fingerprint").to_pylist())
    return dagster_output.materialized(value=table, metadata={"rows_computed": fresh})


@dg.asset(**_attributes(sectors.SECTOR_RISK), ins=_composites())
def sector_risk(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings], composites: Any, indices: Any
) -> dg.MaterializeResult[Any]:
    """One row per sector, session and window: ratios, regression on the market, tails, drawdowns; null with a status.

    From the equal-weight composites (total returns) and the benchmark (a price index). Returns are fractions.
    """
    from finance_assets.sectors.analytics import read_panel, risk_table

    stored = _stored(lake, sectors.SECTOR_RISK)
    return _result(risk_table(read_panel(composites, indices), settings.risk_free_rate, stored), stored)


@dg.asset(**_attributes(sectors.SECTOR_CORRELATIONS), ins=_composites())
def sector_correlations(composites: Any, indices: Any) -> dg.MaterializeResult[Any]:
    """One row per pair of composites or benchmark and session: Pearson's correlation over 30, 252 and all sessions."""
    from finance_assets.sectors.analytics import correlation_table, read_panel

    return dagster_output.materialized(value=correlation_table(read_panel(composites, indices)))


@dg.asset(**_attributes(sectors.SECTOR_VOLATILITY), ins=_composites())
def sector_volatility(lake: dg.ResourceParam[Lake], composites: Any, indices: Any) -> dg.MaterializeResult[Any]:
    """One row per composite or benchmark and quarter: volatility clustering, GARCH(1,1), EWMA; fractions per year."""
    from finance_assets.sectors.analytics import read_panel, volatility_table

    stored = _stored(lake, sectors.SECTOR_VOLATILITY)
    return _result(volatility_table(read_panel(composites, indices), stored), stored)


@dg.asset(**_attributes(sectors.SECTOR_PORTFOLIOS), ins=_composites())
def sector_portfolios(lake: dg.ResourceParam[Lake], composites: Any, indices: Any) -> dg.MaterializeResult[Any]:
    """One row per month, rule and sector: the sector's weight in a long-only portfolio, and how diversified that is."""
    from finance_assets.sectors.analytics import portfolio_table, read_panel

    stored = _stored(lake, sectors.SECTOR_PORTFOLIOS)
    return _result(portfolio_table(read_panel(composites, indices), stored), stored)


@dg.asset(**_attributes(sectors.SECTOR_SIGNALS), ins=_composites())
def sector_signals(composites: Any, indices: Any) -> dg.MaterializeResult[Any]:
    """One row per sector, session and signal: its state, since when, and the numbers behind it; never looks ahead."""
    from finance_assets.sectors.analytics import read_panel, signal_table

    return dagster_output.materialized(value=signal_table(read_panel(composites, indices)))


@dg.asset(**_attributes(sectors.SECTOR_EXPOSURES), ins=_composites(), deps=[dg.AssetKey(MACRO_INDICATORS.asset_key)])
def sector_exposures(lake: dg.ResourceParam[Lake], composites: Any, indices: Any) -> dg.MaterializeResult[Any]:
    """One row per sector, month, regression and factor: how returns move with the market and with macro changes.

    Coefficients are monthly returns per unit of the factor. A month sees only numbers published by its newest session.
    """
    import pyarrow.compute as pc

    from finance_assets.sectors.analytics import exposure_table, read_panel

    known = lake.read(
        MACRO_INDICATORS, columns=["series_id", "reference_date", "release_date", "published_value"]
    ).table
    known = known.filter(pc.field("published_value").is_valid())
    # A regression is no money: doubles.
    indicators = known.drop_columns("published_value").append_column(
        "value", pc.cast(known.column("published_value"), "float64")
    )
    followed = set(indicators.column("series_id").unique().to_pylist())
    transforms = {name: transform for name, transform in sectors.MACRO_FACTORS.items() if name in followed}
    stored = _stored(lake, sectors.SECTOR_EXPOSURES)
    return _result(exposure_table(read_panel(composites, indices), indicators, transforms, stored), stored)
