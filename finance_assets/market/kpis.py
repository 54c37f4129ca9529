"""The rows of ``core/ticker_kpis``: indicators of many tickers, from quotes, corporate actions and the calendar.

What belongs here: putting the maths of ``adjustments`` and ``indicators`` together for tables, and knowing how much
history they need and which stored rows rest on something else than is known now. Pure: tables in, tables out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np

from finance_assets.contracts.market import TICKER_KPIS
from finance_assets.contracts.status import STATUSES, Status
from finance_assets.reference.anomalies import MODIFIED_Z_THRESHOLD

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    from finance_assets.market.panel import Panel

#: Quotes of a ticker that must lie between the first one loaded and its last change of price: the changes that its RSI
#: is computed from (`indicators.rsi_window`). With fewer it is loaded whole, so that every row is the same, to the last
#: bit, whatever range it is computed in.
HISTORY_QUOTES = 480
#: Sessions loaded before the first one asked for; tickers for which these do not do are loaded whole.
HISTORY_SESSIONS = 504
LOW_VOLUME_ZSCORE = -3.0
#: Quotes in the widest window: 50 returns of a moving average and the close before them.
WIDEST_WINDOW = 51
BASIS_LENGTH = 16
#: Numbers of two computations that differ by less say the same to a reader. Stored rows are compared exactly.
TOLERANCE = 1e-10

QUOTE_COLUMNS = ("symbol", "session_date", "close", "volume", "price_basis")
ACTION_COLUMNS = ("symbol", "ex_date", "action_type", "split_ratio", "cash_amount")


def ticker_kpis(quotes: pa.Table, actions: pa.Table, sessions: pa.Table, first: date | None = None) -> pa.Table:
    """Compute every KPI of every ticker and session.

    Parameters
    ----------
    quotes
        Rows of ``core/quotes`` (the columns `QUOTE_COLUMNS`), with enough history before ``first``.
    actions
        All known rows of ``core/corporate_actions`` (the columns `ACTION_COLUMNS`), whatever their date.
    sessions
        Rows of ``raw/trading_sessions``.
    first
        Rows before this day are history only and are left out of the result.

    Returns
    -------
    pyarrow.Table
        Rows of ``core/ticker_kpis``. What is undefined is null, and its status says why.

    Raises
    ------
    ValueError
        A quote lies on a day that is no session, or a ticker has two quotes on one day.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.contracts.arrow import conform, empty_table
    from finance_assets.market.adjustments import total_returns
    from finance_assets.market.indicators import Indicator, volume_indicators, window_missing_sessions
    from finance_assets.market.panel import Panel

    if quotes.num_rows == 0:
        return empty_table(TICKER_KPIS)
    strange = pc.invert(pc.is_in(quotes.column("session_date"), sessions.column("session_date").combine_chunks()))
    if pc.any(strange).as_py():
        raise ValueError(
            f"core/quotes has {pc.min(quotes.column('session_date').filter(strange))}, which raw/trading_sessions "
            "lacks; materialise raw/trading_sessions first"
        )
    calendar = np.sort(sessions.column("session_date").to_numpy().astype("datetime64[D]"))
    panel = Panel.from_arrow(quotes, ("close", "volume"), calendar=calendar)
    offsets, ordinal, close = panel.offsets, panel.session_index, panel.columns["close"]

    factors = panel.adjustment_factors("close", _applicable(panel, actions))
    panel = panel.with_columns({"split": close * factors.split, "total_return": close * factors.total_return})
    # Closes that a rejected action has made unknown are no end of a return.
    known = np.where(np.isnan(factors.total_return), np.nan, close)
    returns = total_returns(known, ordinal, offsets=offsets, between=factors.between)
    prices = panel.price_indicators("split", "total_return", total_return=returns.values)
    # A half day's volume is no measure of interest: it is neither judged nor part of a window.
    early = _is_early_close(panel, sessions)
    volumes = volume_indicators(offsets, np.where(early, np.nan, panel.columns["volume"] / factors.split))
    observed = np.isfinite(panel.columns["split"])
    missing = np.full(panel.n_rows, -1, dtype=np.int32)
    # Fewer rows than one window in the whole panel: window_missing_sessions would cut a slice from the wrong end.
    if np.count_nonzero(observed) >= WIDEST_WINDOW:
        missing = window_missing_sessions(observed, WIDEST_WINDOW, offsets=offsets, session_index=ordinal)

    names = pa.array([str(status) for status in STATUSES])

    def kpi(name: str, indicator: Indicator) -> dict[str, Any]:
        return {
            name: _nullable(indicator.values),
            f"{name}_status": names.take(pa.array(indicator.status)),
        }

    modified = volumes.modified_zscore.values
    zscore = volumes.zscore.values
    rows = panel.n_rows
    ticker = _ticker_of_rows(panel)
    basis = quotes.column("price_basis")
    table = pa.table(
        {
            "symbol": pa.DictionaryArray.from_arrays(ticker, pa.array(panel.symbols)).cast(pa.string()),
            "session_date": pa.array(panel.days).cast(pa.date32()),
            "close_split_adjusted": _nullable(panel.columns["split"]),
            "total_return": _nullable(returns.values),
            "return_span_sessions": pa.array(returns.span_sessions, pa.int32(), mask=np.isnan(returns.values)),
            **kpi("rsi_14", prices.rsi),
            **kpi("sma_50", prices.sma),
            **kpi("historical_volatility_30", prices.historical_volatility),
            **kpi("volume_zscore_20", volumes.zscore),
            **kpi("volume_modified_zscore_20", volumes.modified_zscore),
            # Needs the net income and the dividends of a fiscal period, which only filings state.
            "dividend_payout_ratio": pa.nulls(rows, pa.float64()),
            "dividend_payout_ratio_status": pa.repeat(str(Status.MISSING_INPUT), rows),
            "is_volume_anomaly": pa.array(modified > MODIFIED_Z_THRESHOLD, pa.bool_(), mask=np.isnan(modified)),
            "is_low_volume": pa.array(zscore <= LOW_VOLUME_ZSCORE, pa.bool_(), mask=np.isnan(zscore)),
            "window_missing_sessions": pa.array(missing, pa.int32(), mask=missing < 0),
            "price_basis": basis if panel.order is None else basis.take(pa.array(panel.order)),
            "adjustment_basis": _basis_of_rows(panel.symbols, ticker, panel.days, actions).cast(pa.string()),
        }
    )
    if first is not None:
        table = table.filter(pc.greater_equal(table.column("session_date"), pa.scalar(first, pa.date32())))
    return conform(TICKER_KPIS, table)


def adjustment_basis(actions: Iterable[tuple[date, str, float | None, Decimal | None]], session: date) -> str:
    """Return the fingerprint of the corporate actions that a row of ``session`` depends on.

    A split rescales all earlier prices, so every known split counts, whatever its date; a dividend changes
    only what comes after it, so those up to the session count.

    Parameters
    ----------
    actions
        ``(ex_date, action_type, split_ratio, cash_amount)`` of one ticker.
    session
        The row's session.
    """
    dates, texts = _fingerprints(list(actions))
    return texts[sum(ex_date <= session for ex_date in dates)]


def stale_rows(written: pa.Table, actions: pa.Table) -> pa.Array:
    """Tell which stored rows rest on other corporate actions than are known now.

    Parameters
    ----------
    written
        ``symbol``, ``session_date`` and ``adjustment_basis`` of stored rows, in any order.
    actions
        All known rows of ``core/corporate_actions``.

    Returns
    -------
    pyarrow.Array
        Booleans, one per row.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if written.num_rows == 0:
        return pa.array([], pa.bool_())
    encoded = written.column("symbol").combine_chunks().dictionary_encode()
    days = written.column("session_date").cast(pa.int32()).to_numpy()
    expected = _basis_of_rows(encoded.dictionary.to_pylist(), encoded.indices.to_numpy(), days, actions)
    return pc.not_equal(expected.cast(pa.string()), written.column("adjustment_basis").combine_chunks())


def restated_symbols(written: pa.Table, actions: pa.Table) -> list[str]:
    """Return the tickers of which `stale_rows` finds a row, sorted; arguments as there."""
    symbols: list[str] = written.column("symbol").filter(stale_rows(written, actions)).unique().to_pylist()
    return sorted(symbols)


def changed_sessions(stored: pa.Table, computed: pa.Table, tolerance: float = TOLERANCE) -> list[date]:
    """Return the sessions on which two versions of ``core/ticker_kpis`` differ, in order.

    Parameters
    ----------
    stored, computed
        Rows of ``core/ticker_kpis``. A row that only one side has differs.
    tolerance
        Numbers differ where more than this lies between them, relative to 1 plus their size; 0 compares exactly.
    """
    import duckdb

    def differ(name: str, kind: str) -> str:
        old, new = f's."{name}"', f'c."{name}"'
        if kind != "float64":
            return f"{old} is distinct from {new}"
        near = f"abs({old} - {new}) <= {tolerance!r} * (1 + abs({new}))"
        return f"not coalesce({near}, {old} is null and {new} is null)"

    keys = [column for column in TICKER_KPIS.columns if column.name in TICKER_KPIS.key]
    compared = [differ(column.name, column.type) for column in TICKER_KPIS.columns if column not in keys]
    with duckdb.connect() as connection:
        connection.register("s", stored)
        connection.register("c", computed)
        rows = connection.execute(
            f"""
            select distinct session_date from s full join c using (symbol, session_date)
            where {" or ".join(compared)}
            order by 1
            """
        ).fetchall()
    return [row[0] for row in rows]


def symbols_short_of_history(quotes: pa.Table, first: date, actions: pa.Table | None = None) -> list[str]:
    """Return the tickers for whose RSI from ``first`` on these quotes do not reach back far enough.

    The RSI rests on the last `HISTORY_QUOTES` changes before its last change of price, also on a flat line: what counts
    is how many quotes lie before the last change, not how many there are.

    Parameters
    ----------
    quotes
        ``symbol``, ``session_date`` and ``close`` of ``core/quotes``.
    first
        First session asked for; a ticker without a quote from it on is not asked for.
    actions
        Known rows of ``core/corporate_actions``: a price that moves by a split alone stands still.
    """
    from finance_assets.market.panel import Panel

    panel = Panel.from_arrow(quotes, ("close",))
    if panel.n_rows == 0:
        return []
    starts, ends = panel.offsets[:-1], panel.offsets[1:]
    before = panel.dates < np.datetime64(first, "D")
    close = panel.columns["close"]
    if actions is not None:
        close = close * panel.adjustment_factors("close", _applicable(panel, actions)).split
    changed = before & np.r_[False, close[1:] != close[:-1]]
    changed[starts] = False
    place = np.arange(panel.n_rows) - np.repeat(starts, ends - starts)
    last_change = np.maximum.reduceat(np.where(changed, place, 0), starts)
    asked = ~before[ends - 1]
    short = asked & (last_change < HISTORY_QUOTES)
    return sorted(panel.symbols[number] for number in np.flatnonzero(short).tolist())


def _applicable(panel: Panel, actions: pa.Table) -> pa.Table:
    """Return the actions that may touch the panel's prices.

    A dividend after a ticker's last row changes no return before it, and must not be held against an older price.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    known = pc.is_in(actions.column("symbol"), pa.array(panel.symbols, pa.string()))
    own = actions.select(ACTION_COLUMNS).filter(known)
    ticker = pc.index_in(own.column("symbol"), pa.array(panel.symbols, pa.string())).to_numpy()
    last_day = panel.days[panel.offsets[1:] - 1]
    is_split = pc.equal(own.column("action_type"), "split").to_numpy()
    return own.filter(pa.array(is_split | (own.column("ex_date").cast(pa.int32()).to_numpy() <= last_day[ticker])))


def _is_early_close(panel: Panel, sessions: pa.Table) -> npt.NDArray[np.bool_]:
    """Tell which rows lie on a session that the exchange closed early."""
    import pyarrow as pa

    early = sessions.filter(sessions.column("is_early_close")).column("session_date").cast(pa.int32())
    return np.isin(panel.days, early.to_numpy())


def _ticker_of_rows(panel: Panel) -> npt.NDArray[np.int32]:
    """Return the number of each row's ticker."""
    return np.repeat(np.arange(len(panel.symbols), dtype=np.int32), np.diff(panel.offsets))


def _nullable(values: npt.NDArray[np.float64]) -> pa.Array:
    """Return floats as Arrow, null for NaN: tables never hold NaN."""
    import pyarrow as pa

    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _fingerprints(actions: list[tuple[date, str, float | None, Decimal | None]]) -> tuple[list[date], list[str]]:
    """Return the ex-dates of one ticker, and the fingerprint before the first of them and from each one on."""
    splits = sorted(f"{day.isoformat()} split {ratio}" for day, kind, ratio, _ in actions if kind == "split")
    dividends: dict[date, list[str]] = {}
    for day, kind, _, amount in actions:
        if kind != "split":
            dividends.setdefault(day, []).append(f"{day.isoformat()} {kind} {amount:.8f}")
    digest = hashlib.sha256("\n".join(splits).encode())
    dates = sorted(dividends)
    texts = [digest.hexdigest()[:BASIS_LENGTH]]
    for day in dates:
        digest.update("\n".join(["", *sorted(dividends[day])]).encode())
        texts.append(digest.hexdigest()[:BASIS_LENGTH])
    return dates, texts


def _basis_of_rows(
    symbols: Sequence[str], ticker: npt.NDArray[np.int32], days: npt.NDArray[np.int32], actions: pa.Table
) -> pa.DictionaryArray:
    """Return the adjustment basis of each row, given by the number of its ticker and its day since 1970.

    It changes only on a ticker's ex-dates, so it is computed once for each of those.
    """
    import pyarrow as pa

    columns = actions.select(ACTION_COLUMNS).to_pydict().values()
    known: dict[str, list[tuple[date, str, float | None, Decimal | None]]] = {}
    for symbol, *action in zip(*columns, strict=True):
        known.setdefault(symbol, []).append(tuple(action))
    ex_keys: list[int] = []
    texts: list[str] = []
    for number, symbol in enumerate(symbols):
        dates, fingerprints = _fingerprints(known.get(symbol, []))
        ex_keys.extend(_row_key(number, day.toordinal() - _EPOCH) for day in dates)
        texts.extend(fingerprints)
    # Each ticker has one fingerprint more than ex-dates, so the number of the ticker leads past those before.
    place = np.searchsorted(np.array(ex_keys, np.int64), _row_key(ticker.astype(np.int64), days), side="right")
    return pa.DictionaryArray.from_arrays(pa.array(place + ticker, pa.int64()), pa.array(texts, pa.string()))


_EPOCH = date(1970, 1, 1).toordinal()
_DAYS = 1 << 22


def _row_key(ticker: Any, day: Any) -> Any:
    """Return a number that orders rows by ticker, then day; days may lie before 1970."""
    return ticker * _DAYS + day + _DAYS // 2
