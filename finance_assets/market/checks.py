"""Checks of the market branch beyond the contracts: whether everything is there that should be.

What belongs here: questions about a table as a whole. Rules on rows are in the contracts.
"""

from datetime import date
from itertools import pairwise

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts.market import CORPORATE_ACTIONS, INSTRUMENTS, QUOTES, QUOTES_RAW, TICKER_KPIS
from finance_assets.market.planning import absent_symbols
from finance_assets.market.quality import Jump, drift, jumps, stale_symbols
from finance_assets.market.resources import MarketData, held_symbols
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

#: Sessions and tickers that a description names.
LISTED = 10
#: Partitions that hold the returns before the newest ones, a year and some.
USUAL_PARTITIONS = 280
#: Sessions whose rows say how many a session has, and the share that is too different.
DRIFT_SESSIONS, LARGEST_DRIFT = 20, 0.2


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
    return dagster_output.asset_check(
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
    return dagster_output.asset_check(
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
    return dagster_output.asset_check(
        passed=not clashes,
        description=", ".join(clashes[:LISTED]) or f"{len(rows)} versions, none overlaps",
        metadata={"versions": len(rows), "overlaps": len(clashes)},
    )


@dg.asset_check(
    asset=dg.AssetKey(QUOTES.asset_key),
    description="No session is missing between the first one and the newest: a gap makes returns unknown.",
)
def no_session_missing(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Compare the partitions with the exchange calendar, from the first one held."""
    present = partition_days(lake.partitions(QUOTES))
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    held = set(present)
    missing = [day for day in closed if present and present[0] <= day <= present[-1] and day not in held]
    shown = ", ".join(str(day) for day in missing[:LISTED])
    return dagster_output.asset_check(
        passed=not missing,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{len(missing)} sessions are missing: {shown}; `finance-assets materialize` fills them"
        if missing
        else f"{len(present)} sessions without a gap",
        metadata={"missing": len(missing), "sessions": len(present)},
    )


@dg.asset_check(
    asset=dg.AssetKey(QUOTES.asset_key),
    description="No ticker repeats its close for a week: a price that never moves is a provider's, not the market's.",
)
def no_stale_price(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Look for equal closes up to the newest session."""
    keys = lake.partitions(QUOTES)[-DRIFT_SESSIONS:]
    stale = stale_symbols(lake.read(QUOTES, keys=keys, columns=["symbol", "session_date", "close"]).table)
    shown = [f"{symbol} since {since}, {count} sessions" for symbol, (since, count) in stale.items()]
    return dagster_output.asset_check(
        passed=not stale,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(shown[:LISTED]) or f"no close repeats in {len(keys)} sessions",
        metadata={"stale": list(stale)[:LISTED], "stale_count": len(stale)},
    )


@dg.asset_check(
    asset=dg.AssetKey(QUOTES.asset_key),
    description="The newest session has about as many rows as the twenty before it.",
)
def row_count_is_usual(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Compare the newest partition's rows with the median of those before."""
    keys = lake.partitions(QUOTES)[-DRIFT_SESSIONS - 1 :]
    table = lake.read(QUOTES, keys=keys, columns=["session_date"]).table
    counts = dict.fromkeys(keys, 0)
    for entry in table.column("session_date").value_counts().to_pylist():
        counts[entry["values"].isoformat()] = entry["counts"]
    compared = drift(counts, DRIFT_SESSIONS)
    if compared is None:
        return dagster_output.asset_check(passed=True, description=f"{len(keys)} sessions are too few to compare")
    rows, usual, difference = compared
    return dagster_output.asset_check(
        passed=abs(difference) <= LARGEST_DRIFT,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{rows} rows on {keys[-1]}, usually {usual:g} ({difference:+.0%})",
        metadata={"rows": rows, "usual_rows": float(usual)},
    )


def _jumps(lake: Lake, settings: Settings) -> list[Jump]:
    """Return the jumps of the newest sessions that nothing explains."""
    keys = lake.partitions(TICKER_KPIS)[-max(settings.heal_sessions, 1) - USUAL_PARTITIONS :]
    if not keys:
        return []
    since = partition_days(keys[-max(settings.heal_sessions, 1) :])[0]
    columns = ["symbol", "session_date", "total_return"]
    actions = lake.read(CORPORATE_ACTIONS, first=since.isoformat(), columns=["symbol", "ex_date"]).table
    acted = [(row["symbol"], row["ex_date"]) for row in actions.to_pylist()]
    for text in settings.acknowledged_jumps:
        symbol, _, day = text.rpartition(":")
        acted.append((symbol, date.fromisoformat(day)))
    return jumps(lake.read(TICKER_KPIS, keys=keys, columns=columns).table, since, acted)


@dg.asset_check(
    asset=dg.AssetKey(TICKER_KPIS.asset_key),
    blocking=True,
    description="No recent return looks like a split that nobody has recorded: earlier returns would be wrong.",
)
def no_unrecorded_split(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Look for jumps by the ratio of a split; one that is real is named in FINANCE_ASSETS_ACKNOWLEDGED_JUMPS."""
    found = [jump for jump in _jumps(lake, settings) if jump.split_ratio is not None]
    advice = (
        ". Materialise raw/quotes of the session again from a provider that reports splits, "
        "or name a real move in FINANCE_ASSETS_ACKNOWLEDGED_JUMPS"
    )
    return dagster_output.asset_check(
        passed=not found,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(map(str, found[:LISTED])) + advice if found else "no return looks like a split",
        metadata={"jumps": len(found)},
    )


@dg.asset_check(
    asset=dg.AssetKey(TICKER_KPIS.asset_key),
    description="No recent return is far out of the ordinary without a corporate action.",
)
def no_unexplained_jump(lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]) -> dg.AssetCheckResult:
    """Look for jumps by their robust z-score."""
    found = [jump for jump in _jumps(lake, settings) if jump.split_ratio is None]
    return dagster_output.asset_check(
        passed=not found,
        severity=dg.AssetCheckSeverity.WARN,
        description="; ".join(map(str, found[:LISTED])) or "no return jumps",
        metadata={"jumps": len(found)},
    )


@dg.asset_check(
    asset=dg.AssetKey(TICKER_KPIS.asset_key),
    description="No ticker's volume of the newest session is out of the ordinary.",
)
def volume_is_usual(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """List the anomalies that the KPIs found."""
    import pyarrow.compute as pc

    keys = lake.partitions(TICKER_KPIS)[-1:]
    table = lake.read(TICKER_KPIS, keys=keys, columns=["symbol", "is_volume_anomaly", "is_low_volume"]).table
    high, low = (pc.fill_null(table.column(name), False) for name in ("is_volume_anomaly", "is_low_volume"))
    symbols = sorted(table.filter(pc.or_(high, low)).column("symbol").to_pylist())
    return dagster_output.asset_check(
        passed=not symbols,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{', '.join(symbols[:LISTED])} on {keys[-1]}" if symbols else "every volume is usual",
        metadata={"symbols": symbols[:LISTED], "count": len(symbols)},
    )
