"""Checks of the market branch beyond the contracts: whether everything is there that should be.

What belongs here: questions about a table as a whole. Rules on rows are in the contracts.
"""

from itertools import pairwise

import dagster as dg

from finance_assets.contracts.market import INSTRUMENTS, QUOTES, QUOTES_RAW
from finance_assets.market.planning import absent_symbols
from finance_assets.market.resources import MarketData, held_symbols
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

#: Sessions and tickers that a description names.
LISTED = 10


@dg.asset_check(
    asset=dg.AssetKey(QUOTES.asset_key),
    description="The newest closed session is there. Dagster's freshness takes an old backfill for today's data.",
)
def newest_session_present(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare the newest partition with rows with the newest session whose hours have ended."""
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    expected = closed[-1] if closed else None
    present = lake.partitions(QUOTES)
    newest = partition_days(present[-1:])[0] if present else None
    rows = lake.read(QUOTES, keys=present[-1:]).table.num_rows if present else 0
    passed = expected is None or (newest is not None and newest >= expected and rows > 0)
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"expected {expected}, newest {newest} with {rows} quotes",
        metadata={"expected_session": str(expected), "newest_session": str(newest), "quotes": rows},
    )


@dg.asset_check(
    asset=dg.AssetKey(QUOTES_RAW.asset_key),
    description="Every ticker has a row in each of the newest sessions; the next run fetches what is missing.",
)
def every_ticker_present(
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
    market_data: dg.ResourceParam[MarketData],
) -> dg.AssetCheckResult:
    """Look for tickers that no provider delivered."""
    recent = partition_days(lake.partitions(QUOTES_RAW)[-max(settings.heal_sessions, 1) :])
    lacking = absent_symbols(market_data.symbols_of, held_symbols(lake, recent))
    absent = [f"{session}: {', '.join(symbols[:LISTED])}" for session, symbols in lacking.items()]
    return dg.AssetCheckResult(
        passed=not absent,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(absent[:LISTED]) or f"{len(recent)} sessions are complete",
        metadata={"incomplete_sessions": len(absent), "sessions": len(recent)},
    )


@dg.asset_check(
    asset=dg.AssetKey(INSTRUMENTS.asset_key),
    blocking=True,
    description="No two versions of an instrument hold on the same day: membership is point in time.",
)
def versions_do_not_overlap(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare each version with the next of its ticker."""
    rows = lake.read(INSTRUMENTS).table.sort_by([("symbol", "ascending"), ("valid_from", "ascending")]).to_pylist()
    clashes = [
        f"{later['symbol']} {later['valid_from']}"
        for earlier, later in pairwise(rows)
        if earlier["symbol"] == later["symbol"]
        and (earlier["valid_to"] is None or earlier["valid_to"] > later["valid_from"])
    ]
    return dg.AssetCheckResult(
        passed=not clashes,
        description=", ".join(clashes[:LISTED]) or f"{len(rows)} versions, none overlaps",
        metadata={"versions": len(rows), "overlaps": len(clashes)},
    )
