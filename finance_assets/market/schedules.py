"""The schedules of market sessions: which sessions a run fills, and when it starts.

A missing or incomplete session is filled by the next run, whatever the reason. The ranges are computed by
:mod:`finance_assets.market.planning` from the content of the lake.
"""

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts import market
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.market import QUOTES, QUOTES_RAW, REJECTED_QUOTES, TICKER_KPIS
from finance_assets.contracts.model import Partitioning
from finance_assets.market.planning import SessionRange, absent_symbols, contiguous_ranges, sessions_to_fill
from finance_assets.market.resources import MarketData, held_symbols
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

#: Everything that is cut into sessions. Tables over all sessions follow by their automation conditions.
market_sessions_job = dg.define_asset_job(
    "market_sessions",
    selection=dg.AssetSelection.assets(
        *(
            dg.AssetKey(contract.asset_key)
            for contract in market.CONTRACTS
            if contract.partitioning is Partitioning.SESSION
        )
    ),
    description="Quotes of a range of sessions, validated, to ticker KPIs.",
)


def ranges_to_run(
    settings: Settings, lake: Lake, market_data: MarketData, *, everything: bool = False
) -> list[SessionRange]:
    """Return the ranges of sessions that a run should fill now, oldest first.

    A session is to be filled where one of its tables was never written; where raw/quotes lacks a ticker that it ought
    to have; and where a ticker did not come through to the KPIs, as when a run died on the way.

    Parameters
    ----------
    settings, lake, market_data
        The deployment.
    everything
        Look at every session of the deployment, not only at the newest ``heal_sessions``.
    """
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    lookback = None if everything else settings.heal_sessions
    stages = (QUOTES_RAW, QUOTES, TICKER_KPIS)
    written = set.intersection(*(set(partition_days(lake.partitions(contract))) for contract in stages))
    missing = sessions_to_fill(closed, written, lookback)
    kept = [session for session in sessions_to_fill(closed, (), lookback) if session in written]
    raw, good, refused, computed = (
        held_symbols(lake, kept, contract) for contract in (QUOTES_RAW, QUOTES, REJECTED_QUOTES, TICKER_KPIS)
    )
    judged = {session: good[session] | refused[session] for session in kept}
    lacking = [
        *absent_symbols(market_data.symbols_of, raw),
        *absent_symbols(raw.__getitem__, judged),
        *absent_symbols(good.__getitem__, computed),
    ]
    return contiguous_ranges([*missing, *lacking], closed)


def _market_sessions_schedule(name: str, cron: str, description: str) -> dg.ScheduleDefinition:
    """Return a schedule that plans one run per range of sessions that are missing or incomplete."""

    @dg.schedule(
        name=name,
        job=market_sessions_job,
        cron_schedule=cron,
        execution_timezone=EXCHANGE_ZONE,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=description,
    )
    def plan(
        context: dg.ScheduleEvaluationContext,
        lake: dg.ResourceParam[Lake],
        market_data: dg.ResourceParam[MarketData],
        settings: dg.ResourceParam[Settings],
    ) -> list[dg.RunRequest] | dg.SkipReason:
        ranges = ranges_to_run(settings, lake, market_data)
        if not ranges:
            return dagster_output.skip(f"the newest {settings.heal_sessions} closed sessions are all complete")
        stamp = context.scheduled_execution_time.isoformat()
        return [
            dg.RunRequest(
                run_key=f"market:{first}:{last}:{stamp}",
                tags={RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()},
            )
            for first, last in ranges
        ]

    definition: dg.ScheduleDefinition = plan
    return definition


market_sessions_daily = _market_sessions_schedule(
    "market_sessions_daily",
    "30 18 * * 1-5",
    "After the close: every session that is missing or incomplete, not only the newest.",
)


morning_quotes = _market_sessions_schedule(
    "morning_quotes", "0 6 * * 1-5", "06:00: sessions that the evening left missing or incomplete."
)
