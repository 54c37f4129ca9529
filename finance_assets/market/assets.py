"""Assets of the market branch: calendar, instruments, quotes, corporate actions, ticker KPIs.

What belongs here: thin Dagster assets that read inputs, call the maths beside them and hand over tables.
"""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.conditions import WHEN_INPUTS_ARE_GOOD, when_missing_or_on
from finance_assets.contracts.dagster_metadata import asset_attributes
from finance_assets.contracts.market import (
    CORPORATE_ACTIONS,
    INSTRUMENTS,
    QUOTES,
    QUOTES_RAW,
    REJECTED_QUOTES,
    TICKER_KPIS,
    TRADING_SESSIONS,
)
from finance_assets.market import kpis as kpi_tables
from finance_assets.market.ingestion import LandedBatch, instrument_versions, keep_known, raw_quotes
from finance_assets.market.resources import MarketData
from finance_assets.market.validation import validate_quotes
from finance_assets.partitions import SESSIONS, SessionCalendar, partition_days
from finance_assets.reference import pools
from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.write_steps import sole_writer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pyarrow as pa

    from finance_assets.contracts.model import Contract
    from finance_assets.market.sources import Overview, ProviderError

#: One run at a time talks to quote providers, and one rewrites KPIs: the pools' slots are set in dagster.yaml.
#: Calendar and descriptions change rarely: once a week, before Monday's session.
WEEKLY = when_missing_or_on("0 5 * * 1", EXCHANGE_ZONE)
#: Tickers listed in a metadata value, and those whose errors a message quotes.
LISTED = 20
TOLD = 3


def _key(contract: "Contract") -> dg.AssetKey:
    return dg.AssetKey(contract.asset_key)


@dg.asset(
    **asset_attributes(TRADING_SESSIONS),
    io_manager_key="lake_io_manager",
    automation_condition=WEEKLY,
)
def trading_sessions(settings: dg.ResourceParam[Settings]) -> dg.MaterializeResult[Any]:
    """The exchange calendar: one row per session, opening and close in UTC; from exchange_calendars."""
    return dagster_output.materialized(value=SessionCalendar.of(settings).table())


@dg.asset(
    **asset_attributes(INSTRUMENTS),
    io_manager_key="lake_io_manager",
    pool=pools.MARKET_PROVIDERS,
    automation_condition=WEEKLY,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=30, backoff=dg.Backoff.EXPONENTIAL),
)
def instruments(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    market_data: dg.ResourceParam[MarketData],
    settings: dg.ResourceParam[Settings],
) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per version of an instrument: name, GICS sector, listing; hand-made universe and company overviews."""
    overviews: dict[str, Overview] = {}
    failures: dict[str, str] = {}
    try:
        for fetched in market_data.overviews():
            if fetched.answer is None:
                failures[fetched.symbol] = str(fetched.error)
                dagster_output.log(context).warning(f"{fetched.symbol} was not described: {fetched.error}")
                continue
            if fetched.answer.page is not None:
                lake.land(fetched.answer.page, "market", fetched.answer.provider, suffix=fetched.answer.page_suffix)
            overviews[fetched.symbol] = fetched.answer
    finally:
        market_data.close()
    with sole_writer(lake, INSTRUMENTS.name, INSTRUMENTS):
        stored = lake.read(INSTRUMENTS).table if lake.partitions(INSTRUMENTS) else None
        table = instrument_versions(market_data.universe(), overviews, settings.clock().date(), stored)
        yield dagster_output.materialized(
            value=table,
            metadata={
                "overviews": len(overviews),
                "failed_symbols": dict(sorted(failures.items())[:LISTED]),
                "failed_count": len(failures),
            },
        )


@dg.asset(
    **asset_attributes(QUOTES_RAW),
    partitions_def=SESSIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="lake_io_manager",
    pool=pools.MARKET_PROVIDERS,
    retry_policy=dg.RetryPolicy(max_retries=2, delay=60, backoff=dg.Backoff.EXPONENTIAL),
)
def raw_quotes_asset(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    market_data: dg.ResourceParam[MarketData],
    settings: dg.ResourceParam[Settings],
) -> Any:
    """One row per quote as a provider gave it, prices as exact decimals, with provider, time and request.

    A partition is all tickers of a session. A range run asks for each ticker once and splits the answer.
    """
    keys = list(context.partition_keys)
    sessions = partition_days(keys)
    before = SessionCalendar.of(settings).sessions(last=sessions[0] - timedelta(days=1))
    after = before[-1] if before else settings.start - timedelta(days=1)
    symbols = market_data.symbols(sessions[0], sessions[-1])
    landed: list[LandedBatch] = []
    failures: dict[str, ProviderError] = {}
    try:
        # From the day after the session before: a row for a weekend belongs to the session that follows it.
        for fetched in market_data.quotes(symbols, after + timedelta(days=1), sessions[-1]):
            batch = fetched.answer
            if batch is None:
                assert fetched.error is not None
                failures[fetched.symbol] = fetched.error
                dagster_output.log(context).warning(f"{fetched.symbol} was not fetched: {fetched.error}")
                continue
            digest = None
            if batch.page is not None:
                digest = lake.land(batch.page, "market", batch.provider, suffix=batch.page_suffix)
            for note in batch.notes:
                dagster_output.log(context).info(f"{fetched.symbol}: {note}")
            landed.append(LandedBatch(batch, digest))
    finally:
        market_data.close()
    if symbols and not landed:
        raise _nobody_answered(failures)
    fetched_rows = raw_quotes(landed, sessions, after)
    metadata: dict[str, Any] = {
        "symbols": len(symbols),
        "providers": sorted({entry.batch.provider for entry in landed}),
        "failed_symbols": {symbol: str(error) for symbol, error in sorted(failures.items())[:LISTED]},
        "failed_count": len(failures),
        "fallbacks": sum(entry.batch.fallback_reason is not None for entry in landed),
    }

    def result() -> Iterator[dg.MaterializeResult[Any]]:
        with sole_writer(lake, QUOTES_RAW.name, QUOTES_RAW):
            stored = lake.read(QUOTES_RAW, keys=keys).table
            yield dagster_output.materialized(value=keep_known(fetched_rows, stored), metadata=metadata)

    return result()


def _nobody_answered(failures: "Mapping[str, ProviderError]") -> dg.Failure:
    """Return the failure of a run that got no ticker at all: why, whether it may pass, and what to do."""
    retryable = any(error.retryable for error in failures.values())
    advice = (
        "This may pass: the step is tried again, and the next run fetches what is missing."
        if retryable
        else "Asking again will not help: mend what is named above. FINANCE_ASSETS_MARKET_PROVIDERS names the "
        "providers, FINANCE_ASSETS_<PROVIDER>_API_KEY holds a key."
    )
    told = list(dict.fromkeys(str(error) for error in failures.values()))
    more = f"; and {len(told) - TOLD} more" if len(told) > TOLD else ""
    return dagster_output.failure(
        f"no provider answered for any of {len(failures)} tickers. {'; '.join(told[:TOLD])}{more}. {advice}",
        metadata={"failed_symbols": {symbol: str(error) for symbol, error in sorted(failures.items())[:LISTED]}},
        allow_retries=retryable,
    )


def _core_out(contract: "Contract", description: str) -> dg.AssetOut:
    attributes = asset_attributes(contract)
    return dg.AssetOut(
        **attributes,
        description=description,
        io_manager_key="lake_io_manager",
        automation_condition=WHEN_INPUTS_ARE_GOOD,
    )


@dg.multi_asset(
    name="validated_quotes",
    # In the order of writing. A session without rejected rows or actions has no file of them, so core/quotes comes
    # last: where it is there, the other two were written.
    outs={
        "rejected_quotes": _core_out(
            REJECTED_QUOTES,
            "One row per raw quote that validation refused, with the reason; from raw/quotes.",
        ),
        "corporate_actions": _core_out(
            CORPORATE_ACTIONS,
            "One row per split (new shares per old) or dividend (currency per share) and ex-date; from raw/quotes.",
        ),
        "quotes": _core_out(
            QUOTES,
            "One row per ticker and session that passed validation, prices as exact decimals; from raw/quotes.",
        ),
    },
    ins={"raw": dg.AssetIn(key=_key(QUOTES_RAW), input_manager_key="lake_io_manager")},
    partitions_def=SESSIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def validated_quotes(raw: Any) -> tuple[dg.Output[Any], dg.Output[Any], dg.Output[Any]]:
    """Sort raw quotes into good and refused ones, and read their splits and dividends."""
    validated = validate_quotes(raw)
    reasons = validated.rejected.column("reason").value_counts().to_pylist()
    return (
        dg.Output(validated.rejected, metadata={"reasons": {r["values"]: r["counts"] for r in reasons}}),
        dg.Output(validated.actions),
        dg.Output(validated.quotes, metadata={"rejected": validated.rejected.num_rows}),
    )


@dg.asset(
    **asset_attributes(TICKER_KPIS),
    deps=[_key(QUOTES), _key(CORPORATE_ACTIONS), _key(TRADING_SESSIONS)],
    partitions_def=SESSIONS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="lake_io_manager",
    pool=pools.TICKER_KPIS,
    automation_condition=WHEN_INPUTS_ARE_GOOD,
)
def ticker_kpis(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per ticker and session: RSI, SMA, volatility (fraction), volume scores, each null with a status.

    From core/quotes, adjusted by every known corporate action. Enough history is loaded that one session gives the
    same bytes as all of them. What this run changes in stored partitions outside it is restated: earlier ones of a
    ticker whose splits have changed, later ones that follow from the quotes and dividends of these sessions.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    with sole_writer(lake, TICKER_KPIS.name, TICKER_KPIS):
        keys = list(context.partition_keys)
        stored = lake.partitions(TICKER_KPIS)
        later = [key for key in stored if key > keys[-1]]
        first, last, horizon = partition_days([keys[0], keys[-1], [*keys, *later][-1]])
        sessions = lake.read(TRADING_SESSIONS).table
        actions = lake.read(CORPORATE_ACTIONS).table
        quotes = _quotes_with_history(lake, sessions, actions, first, horizon)
        computed = kpi_tables.ticker_kpis(quotes, actions, sessions, first)

        # The partitions of this run are written last, by the IO manager: a run that dies before is run again.
        earlier, symbols = _restate_earlier(lake, sessions, actions, [key for key in stored if key < keys[0]])
        restated = [*earlier, *_restate_later(lake, computed, later)]
        for key in restated:
            context.log_event(dg.AssetMaterialization(context.asset_key, partition=key, metadata={"restated": True}))
        if restated:
            dagster_output.log(context).info(
                f"restated {len(restated)} partitions outside this run, {restated[0]} to {restated[-1]}"
            )
        own = pc.less_equal(computed.column("session_date"), pa.scalar(last, pa.date32()))
        yield dagster_output.materialized(
            value=computed.filter(own),
            metadata={"restated_partitions": len(restated), "restated_symbols": symbols[:LISTED]},
        )


def _quotes_with_history(lake: Lake, sessions: "pa.Table", actions: "pa.Table", first: date, last: date) -> "pa.Table":
    """Read the quotes of a range, and before it as many as its recursive KPIs need."""
    import bisect

    import pyarrow as pa
    import pyarrow.compute as pc

    days = sorted(sessions.column("session_date").to_pylist())
    if not days:
        raise dagster_output.failure("raw/trading_sessions holds no session; materialise it first", allow_retries=False)
    start = days[max(bisect.bisect_left(days, first) - kpi_tables.HISTORY_SESSIONS, 0)]
    columns = list(kpi_tables.QUOTE_COLUMNS)
    quotes = lake.read(QUOTES, first=start.isoformat(), last=last.isoformat(), columns=columns).table
    short = kpi_tables.symbols_short_of_history(quotes, first, actions) if start > days[0] else []
    if not short:
        return quotes
    # Listed lately, often silent or long unchanged: these few need whatever there is before.
    before = days[bisect.bisect_left(days, start) - 1].isoformat()
    of_short = pc.is_in(pc.field("symbol"), pa.array(short))
    return pa.concat_tables([lake.read(QUOTES, last=before, columns=columns, where=of_short).table, quotes])


def _restate_earlier(
    lake: Lake, sessions: "pa.Table", actions: "pa.Table", keys: list[str]
) -> tuple[list[str], list[str]]:
    """Recompute what rests on other corporate actions than are known now; return the partitions and the tickers.

    Every stored row is asked, so a run that dies in between is finished by the next one, wherever it stopped.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    basis = lake.read(TICKER_KPIS, keys=keys, columns=["symbol", "session_date", "adjustment_basis"]).table
    stale = basis.filter(kpi_tables.stale_rows(basis, actions))
    if stale.num_rows == 0:
        return [], []
    symbols, days = stale.column("symbol").unique(), stale.column("session_date").unique()
    touched = sorted(days.cast(pa.string()).to_pylist())
    of_symbols = pc.is_in(pc.field("symbol"), symbols)
    quotes = lake.read(QUOTES, last=touched[-1], columns=list(kpi_tables.QUOTE_COLUMNS), where=of_symbols).table
    fresh = kpi_tables.ticker_kpis(quotes, actions, sessions)
    fresh = fresh.filter(pc.is_in(fresh.column("session_date"), days))
    kept = lake.read(TICKER_KPIS, keys=touched, where=~of_symbols).table
    lake.write_partitions(TICKER_KPIS, pa.concat_tables([kept, fresh]), touched)
    return touched, sorted(symbols.to_pylist())


def _restate_later(lake: Lake, computed: "pa.Table", keys: list[str]) -> list[str]:
    """Rewrite the stored partitions after a run that now say something else; return them.

    Their moving windows reach back into the sessions of the run, which may have been filled late.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not keys:
        return []
    fresh = computed.filter(pc.is_in(computed.column("session_date"), pa.array(partition_days(keys), pa.date32())))
    changed = kpi_tables.changed_sessions(lake.read(TICKER_KPIS, keys=keys).table, fresh, tolerance=0.0)
    touched = [day.isoformat() for day in changed]
    rows = fresh.filter(pc.is_in(fresh.column("session_date"), pa.array(changed, pa.date32())))
    lake.write_partitions(TICKER_KPIS, rows, touched)
    return touched
