"""Checks of the macro branch beyond the contracts: numbers that are overdue or could not be read.

What belongs here: questions about a table as a whole. Rules on rows are in the contracts.
"""

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts.macro import MACRO_SERIES
from finance_assets.macro.point_in_time import overdue_series
from finance_assets.macro.resources import MacroData
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

#: Numbers that a description names.
LISTED = 10


@dg.asset_check(
    asset=dg.AssetKey(MACRO_SERIES.asset_key),
    description="The newest number of every series is there: none is later than its calendar of publication allows.",
)
def macro_release_overdue(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings], macro_data: dg.ResourceParam[MacroData]
) -> dg.AssetCheckResult:
    """Compare the newest reference date of each series with the day on which the next number is due."""
    provider = macro_data.provider
    if provider is None:
        return dagster_output.asset_check(
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description="there is no provider of macro series; set FINANCE_ASSETS_FRED_API_KEY",
        )
    table = lake.read(MACRO_SERIES).table
    late = overdue_series(table, provider.series, settings.clock().date())
    held = set(table.column("series_id").unique().to_pylist())
    absent = [series.series_id for series in provider.series if series.series_id not in held]
    told = [f"{one.series_id}: newest is {one.newest_reference}, {one.days_late} days late" for one in late]
    if absent:
        told.append(f"no number yet of {', '.join(absent)}")
    return dagster_output.asset_check(
        passed=not late,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(told[:LISTED]) or f"{len(provider.series)} series are up to date",
        metadata={"overdue": [one.series_id for one in late], "without_numbers": absent},
    )


@dg.asset_check(
    asset=dg.AssetKey(MACRO_SERIES.asset_key),
    description="Every number could be read; what could not is kept as text and counts as missing.",
)
def macro_values_readable(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Count the rows whose text is no number."""
    import pyarrow.compute as pc

    table = lake.read(MACRO_SERIES).table
    odd = table.filter(pc.equal(table.column("value_reading"), "unreadable"))
    shown = [
        f"{row['series_id']} {row['reference_date']}: {row['value_text'][:40]!r}" for row in odd[:LISTED].to_pylist()
    ]
    return dagster_output.asset_check(
        passed=odd.num_rows == 0,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(shown) or f"{table.num_rows} numbers were read",
        metadata={"unreadable": odd.num_rows},
    )
