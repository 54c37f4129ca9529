"""Assets of the macro branch: published numbers, and what was known of them on each session.

What belongs here: thin Dagster assets that read inputs, call the functions beside them and hand over tables.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW, when_missing_or_on
from finance_assets.contracts.dagster_metadata import asset_attributes
from finance_assets.contracts.macro import MACRO_INDICATORS, MACRO_SERIES, STG_MACRO_INDICATORS
from finance_assets.contracts.market import TRADING_SESSIONS
from finance_assets.macro.point_in_time import LandedSeries, macro_indicators, macro_series
from finance_assets.macro.resources import MacroData
from finance_assets.partitions import SessionCalendar
from finance_assets.reference import pools
from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.write_steps import sole_writer
from finance_assets.transform.dbt_assets import build_dbt_assets

#: Before the morning's first step, on working days.
MORNINGS = when_missing_or_on("45 5 * * 1-5", EXCHANGE_ZONE)

macro_models = build_dbt_assets("macro_models", (STG_MACRO_INDICATORS,), automation_condition=WHEN_HISTORY_IS_NEW)


@dg.asset(
    **asset_attributes(MACRO_SERIES),
    io_manager_key="lake_io_manager",
    pool=pools.MACRO_PROVIDERS,
    automation_condition=MORNINGS,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL),
)
def macro_series_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    macro_data: dg.ResourceParam[MacroData],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per published number: reference date, release date, value as an exact decimal in the series' unit.

    From FRED with its vintages, or the packaged sample. A series that fails keeps the rows it has.
    """
    from finance_assets.providers.errors import ProviderError

    provider = macro_data.provider
    landed: list[LandedSeries] = []
    failures: dict[str, ProviderError] = {}
    wanted = () if provider is None else provider.series
    if provider is None:
        dagster_output.log(context).warning("no provider of macro series: set FINANCE_ASSETS_FRED_API_KEY")
    try:
        for series in wanted:
            assert provider is not None
            try:
                batch = provider.fetch(series)
            except ProviderError as error:
                failures[series.series_id] = error
                dagster_output.log(context).warning(f"{series.series_id} was not fetched: {error}")
                continue
            digests = [lake.land(page, "macro", batch.provider, suffix=batch.page_suffix) for page in batch.pages]
            landed.append(LandedSeries(series, batch, digests[-1]))
    finally:
        macro_data.close()
    if wanted and not landed:
        told = "; ".join(dict.fromkeys(str(error) for error in failures.values()))
        raise dagster_output.failure(
            f"no macro series was fetched: {told[:1000]}",
            allow_retries=any(error.retryable for error in failures.values()),
        )
    with sole_writer(lake, MACRO_SERIES.name, MACRO_SERIES):
        stored = lake.read(MACRO_SERIES).table if lake.partitions(MACRO_SERIES) else None
        table = macro_series(landed, stored, settings.clock().date())
        yield dagster_output.materialized(
            value=table,
            metadata={
                "provider": "none" if provider is None else provider.name,
                "series": len(landed),
                "failed_series": {name: str(error) for name, error in sorted(failures.items())},
                "new_rows": table.num_rows - (0 if stored is None else stored.num_rows),
            },
        )


@dg.asset(
    **asset_attributes(MACRO_INDICATORS),
    deps=[dg.AssetKey(MACRO_SERIES.asset_key), dg.AssetKey(TRADING_SESSIONS.asset_key)],
    io_manager_key="lake_io_manager",
    automation_condition=WHEN_HISTORY_IS_NEW,
)
def macro_indicators_asset(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """One row per series and session: the newest number published by then, with the day it became known; or no_data."""
    sessions = SessionCalendar.of(settings).closed_sessions(settings.clock())
    return dagster_output.materialized(value=macro_indicators(lake.read(MACRO_SERIES).table, sessions))
