"""Checks of the sector branch beyond the contracts: whether the composites are as new and as whole as the quotes.

What belongs here: questions about a table as a whole. They read the exports in the lake, so nobody waits for the
warehouse.
"""

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts.market import QUOTES
from finance_assets.contracts.publishing import SECTOR_PERFORMANCE
from finance_assets.partitions import partition_days
from finance_assets.storage.lake import Lake

#: Sectors that a description names.
LISTED = 10


@dg.asset_check(
    asset=dg.AssetKey(SECTOR_PERFORMANCE.asset_key),
    description="The newest session of the composites is that of the quotes, and no sector has dropped out.",
)
def composites_are_current(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare the newest session with that of core/quotes, and its sectors with those of the session before."""
    import pyarrow.compute as pc

    table = lake.read(SECTOR_PERFORMANCE, columns=["sector", "session_date"]).table
    quotes = partition_days(lake.partitions(QUOTES)[-1:])
    days = sorted(table.column("session_date").unique().to_pylist())[-2:]
    of_day = [
        set(table.filter(pc.equal(table.column("session_date"), day)).column("sector").to_pylist()) for day in days
    ]
    said = []
    if quotes and (not days or days[-1] < quotes[0]):
        said.append(f"the newest session is {days[-1] if days else None}, that of core/quotes {quotes[0]}")
    gone = sorted(of_day[0] - of_day[1]) if len(of_day) == 2 else []
    if gone:
        said.append(f"{', '.join(gone[:LISTED])} had a row on {days[0]} and none on {days[1]}")
    return dagster_output.asset_check(
        passed=not said,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(said) or f"{len(of_day[-1]) if of_day else 0} sectors on {days[-1] if days else None}",
        metadata={"newest_session": str(days[-1] if days else None), "dropped_sectors": gone},
    )


@dg.asset_check(
    asset=dg.AssetKey(SECTOR_PERFORMANCE.asset_key),
    description="Every member of every composite has a return on the newest session.",
)
def members_are_complete(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare the members with the returns in the mean."""
    import pyarrow.compute as pc

    columns = ["sector", "session_date", "member_count", "return_count"]
    table = lake.read(SECTOR_PERFORMANCE, columns=columns).table
    newest = pc.max(table.column("session_date")).as_py() if table.num_rows else None
    rows = table.filter(pc.equal(table.column("session_date"), newest)).to_pylist() if table.num_rows else []
    short = [row for row in rows if row["return_count"] < row["member_count"]]
    told = [f"{row['sector']}: {row['return_count']} of {row['member_count']}" for row in short]
    return dagster_output.asset_check(
        passed=not short,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"on {newest}, returns of members: {'; '.join(told[:LISTED])}"
        if short
        else f"complete on {newest}",
        metadata={"sectors": [row["sector"] for row in short]},
    )
