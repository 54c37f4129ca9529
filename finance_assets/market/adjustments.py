"""Corporate actions: split- and dividend-adjusted prices, adjusted volumes, total returns.

Belongs here: turning stored raw closes and dated actions into comparable series, for one ticker and for a
panel. Does not belong here: where prices and actions come from, indicators, storage, Dagster.

The rule (backward adjustment, as by CRSP, Yahoo and Alpha Vantage)
-------------------------------------------------------------------
* A split of ratio ``q`` (new shares per old share; 2.0 for two-for-one, 0.1 for a one-for-ten reverse split)
  divides every price before its ex-date by ``q`` and multiplies every volume before it by ``q``.
* A cash dividend ``D`` multiplies every price before its ex-date by ``1 - D / P``, ``P`` being the last
  observed
  raw close before the ex-date. ``D`` is quoted in the shares of the ex-date, so ``P`` is first divided by the
  splits that go ex after that close and not after the dividend: with a split on the same day, ``P / q``.
* Actions between the same two observed closes count as one: their dividends are added up, in the shares of
  the last of them. The return over them is ``shares * close / (close before - dividends) - 1``: the dividends
  are reinvested at the close before, less what was paid.
* All actions given are applied. One on or before the first date changes nothing; one after the last date
  rescales
  the whole series. For a view as of a date, pass the actions known at it.
* Restating history is the point: when an action arrives, recompute the ticker from its first row.
* A number depends on its own inputs alone, to the last bit: the splits of a row are multiplied from the newest known
  one back to it, whatever rows lie between, and a return is made of its two closes and the actions between them.
"""

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from typing import Any, Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from finance_assets.arrays import as_floats
from finance_assets.market._arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    RowArray,
    SessionArray,
    as_offsets,
    as_rows,
    as_sessions,
    is_price,
    is_volume,
)

__all__ = [
    "AdjustmentFactors",
    "BetweenCloses",
    "CorporateAction",
    "TotalReturns",
    "adjustment_factors",
    "split_adjusted",
    "split_adjusted_volume",
    "total_return_adjusted",
    "total_returns",
]

ActionType = Literal["split", "dividend"]
DateLike = date | np.datetime64 | str | int


class CorporateAction(NamedTuple):
    """One split or cash dividend of one ticker.

    Attributes
    ----------
    ex_date
        First session that trades without the dividend or after the split: a date, ISO text, or, for prices
        without dates, a position in the array.
    action_type
        ``"split"`` or ``"dividend"``.
    value
        Split: new shares per old share. Dividend: cash per share, in the shares of the ex-date.
    """

    ex_date: DateLike
    action_type: ActionType
    value: float


@runtime_checkable
class _ArrowTable(Protocol):
    def to_pylist(self) -> list[dict[str, Any]]: ...


@runtime_checkable
class _DataFrame(Protocol):
    def to_dict(self, orient: str) -> list[dict[str, Any]]: ...


Action = CorporateAction | tuple[DateLike, str, float] | Mapping[str, Any]
Actions = Iterable[Action] | _ArrowTable | _DataFrame
Prices = npt.ArrayLike | Mapping[Any, float]


class BetweenCloses(NamedTuple):
    """What happened to a share between an observed close and the next one; rows without an action are left out.

    Attributes
    ----------
    rows
        Row of the close before the actions, each once, ascending.
    shares
        Shares after the actions per share before them.
    paid
        Dividends per share before them; NaN where an action had to be rejected.
    """

    rows: RowArray
    shares: FloatArray
    paid: FloatArray


class AdjustmentFactors(NamedTuple):
    """Factors of a panel, row by row.

    Adjusted close = raw close x factor; split-adjusted volume = volume / `split`.

    Attributes
    ----------
    split
        Split adjustment only; basis of RSI, moving averages and volumes. NaN before a rejected split.
    total_return
        Split and dividend adjustment; basis of returns, volatility and risk. NaN before a rejected action.
    rejected
        One flag per action given: True where the value cannot be right (a split ratio that is not positive, a
        negative dividend, a dividend not below the close before it), so that the history before it is
        unknown.
    between
        The actions by the close before them, from which `total_returns` computes each return by itself.
    """

    split: FloatArray
    total_return: FloatArray
    rejected: BoolArray
    between: BetweenCloses


class TotalReturns(NamedTuple):
    """Simple returns between observed closes.

    Attributes
    ----------
    values
        Decimal fraction; NaN on the first observed row and where the close is missing.
    span_sessions
        int32, sessions between the two closes: 1 for consecutive sessions, 0 where there is no return.
    """

    values: FloatArray
    span_sessions: npt.NDArray[np.int32]


# -- one series ----------------------------------------------------------------------------------------------


def split_adjusted(close: Prices, actions: Actions, *, dates: npt.ArrayLike | None = None) -> FloatArray:
    """Express closes in the shares of the latest date: each divided by the splits that come after it.

    Parameters
    ----------
    close
        Raw closes in the order of time, NaN where missing: a pandas Series indexed by date, a mapping from
        date to close, or an array together with `dates`.
    actions
        Splits and dividends of this ticker (dividends are passed over): `CorporateAction`, an Arrow table or
        a DataFrame with the columns ``ex_date``, ``action_type``, ``split_ratio``, ``cash_amount``, or dicts
        with those keys (or ``value`` in place of the last two).
    dates
        Dates of the closes, ascending. Without any dates, actions name positions in the array as ``ex_date``.

    Returns
    -------
    numpy.ndarray
        float64, same length; NaN where the close is NaN.

    Raises
    ------
    TypeError
        If actions carry dates and the closes have none, or the other way round.
    ValueError
        If dates do not ascend, an action is of unknown type, or a split ratio is not positive and finite.
    """
    series = _Series.read("close", close, dates)
    return series.values * series.factors(actions, with_dividends=False).split


def total_return_adjusted(close: Prices, actions: Actions, *, dates: npt.ArrayLike | None = None) -> FloatArray:
    """Adjust closes for splits and dividends, so that their relative changes are total returns.

    Parameters
    ----------
    close, actions, dates
        As in `split_adjusted`; dividends are applied too.

    Returns
    -------
    numpy.ndarray
        float64, same length; NaN where the close is NaN.

    Raises
    ------
    TypeError
        If actions carry dates and the closes have none, or the other way round.
    ValueError
        As `split_adjusted`; also if a dividend is negative or not below the last close before it.

    References
    ----------
    CRSP, *Data Definitions and Coding Schemes*, "Factor to adjust price"; Yahoo Finance help, "What is the
    adjusted close?".
    """
    series = _Series.read("close", close, dates)
    return series.values * series.factors(actions, with_dividends=True).total_return


def split_adjusted_volume(volume: Prices, actions: Actions, *, dates: npt.ArrayLike | None = None) -> FloatArray:
    """Express volumes in the shares of the latest date: each multiplied by the splits that come after it.

    Parameters
    ----------
    volume, actions, dates
        As in `split_adjusted`, with volumes for closes.

    Returns
    -------
    numpy.ndarray
        float64 shares, same length; NaN where the volume is NaN.

    Raises
    ------
    TypeError
        If actions carry dates and the volumes have none, or the other way round.
    ValueError
        As `split_adjusted`.
    """
    series = _Series.read("volume", volume, dates)
    return series.values / series.factors(actions, with_dividends=False).split


# -- panels --------------------------------------------------------------------------------------------------


def adjustment_factors(
    offsets: npt.ArrayLike,
    dates: npt.ArrayLike,
    close: npt.ArrayLike,
    action_ticker: npt.ArrayLike,
    action_ex_date: npt.ArrayLike,
    split_ratio: npt.ArrayLike,
    cash_amount: npt.ArrayLike,
) -> AdjustmentFactors:
    """Compute the adjustment factors of many tickers at once.

    Parameters
    ----------
    offsets
        Integers ``0 .. n_rows`` of length ``n_tickers + 1``; ticker ``i`` owns the rows
        ``offsets[i]:offsets[i + 1]``.
    dates
        Session date per row, ascending within a ticker: datetime64, or integer days as in an Arrow date32.
    close
        Raw close per row, NaN where missing.
    action_ticker
        Number of the ticker per action, ``0 .. n_tickers - 1``; actions may come in any order.
    action_ex_date
        Ex-date per action, in the same kind as `dates`.
    split_ratio, cash_amount
        Values per action, NaN where the action is not of that type; one row may carry both.

    Returns
    -------
    AdjustmentFactors
        Factors per row, and a flag per action that had to be rejected. One bad action spoils the history of
        its own ticker only.

    Raises
    ------
    ValueError
        If shapes do not fit together, dates do not ascend within a ticker or `action_ticker` is out of range.
    """
    starts = as_offsets(offsets)
    days = as_sessions("dates", _as_day_numbers("dates", dates), starts)
    prices = as_rows("close", close, starts)
    events = _read_events(starts, days, action_ticker, action_ex_date, split_ratio, cash_amount)
    rejected = np.zeros(events.n_actions, dtype=np.bool_)
    rejected[events.action[events.invalid]] = True

    dividend = np.ones(prices.size)
    between, refused = _between_closes(events, starts, prices)
    rejected[events.action[refused]] = True
    paying = ~(between.paid == 0.0)  # keeps NaN: an invalid action makes the history before it unknown
    rows = between.rows[paying]
    dividend[rows] = 1.0 - between.paid[paying] / prices[rows]
    _multiply_backwards(dividend, starts, np.searchsorted(starts, rows, side="right") - 1)

    split = 1.0 / _later_splits(events, starts)
    return AdjustmentFactors(split, split * dividend, rejected, between)


def total_returns(
    close: npt.ArrayLike,
    session_index: npt.ArrayLike | None = None,
    *,
    offsets: npt.ArrayLike | None = None,
    between: BetweenCloses | None = None,
) -> TotalReturns:
    """Compute the simple return from each observed close to the next, never from a price carried forward.

    Parameters
    ----------
    close
        Closes, NaN where missing: raw ones together with ``between``, else total-return adjusted ones.
    session_index
        Ordinal of each row's exchange session; without it, each row is one session after the row before.
    offsets
        Bounds of the tickers in a panel; without them, one series.
    between
        The actions between raw closes, from `adjustment_factors` of the same rows. Each return is then made of its
        two closes and these, and is the same, to the last bit, whichever other rows the panel holds.

    Returns
    -------
    TotalReturns
        Returns and the number of sessions each one spans.

    Raises
    ------
    ValueError
        If shapes do not fit together or sessions do not ascend within a ticker.
    """
    prices = as_floats("close", close)
    starts = as_offsets([0, prices.size] if offsets is None else offsets)
    prices = as_rows("close", prices, starts)
    values = np.full(prices.size, np.nan)
    span = np.zeros(prices.size, dtype=np.int32)
    observed = np.flatnonzero(is_price(prices))
    row, previous = observed[1:], observed[:-1]
    same_ticker = np.ones(row.size, dtype=np.bool_)
    first = np.searchsorted(observed, starts)
    same_ticker[first[(first > 0) & (first < observed.size)] - 1] = False
    row, previous = row[same_ticker], previous[same_ticker]
    after, before = prices[row], prices[previous]
    if between is not None and between.rows.size:
        place = np.searchsorted(previous, between.rows)
        # What comes after a ticker's last close is part of no return.
        used = place < previous.size
        used[used] = previous[place[used]] == between.rows[used]
        after[place[used]] *= between.shares[used]
        before[place[used]] -= between.paid[used]
    with np.errstate(over="ignore"):
        returns = (after - before) / before
    values[row] = np.where(np.isfinite(returns), returns, np.nan)
    sessions: SessionArray
    if session_index is None:
        span[row] = row - previous
    else:
        sessions = as_sessions("session_index", session_index, starts)
        span[row] = sessions[row] - sessions[previous]
    return TotalReturns(values, span)


# -- the rule ------------------------------------------------------------------------------------------------


class _Events(NamedTuple):
    """Splits and dividends one by one, sorted by ticker and ex-date, on one day the splits first."""

    ticker: IntArray
    row: RowArray
    """First row of the ticker at or after the ex-date."""
    ratio: FloatArray
    """1 for a dividend, NaN for a split that cannot be right."""
    cash: FloatArray
    """0 for a split, NaN for a dividend that cannot be right."""
    invalid: BoolArray
    action: IntArray
    """Number of the action as given by the caller."""
    n_actions: int


def _read_events(
    starts: IntArray,
    days: SessionArray,
    action_ticker: npt.ArrayLike,
    action_ex_date: npt.ArrayLike,
    split_ratio: npt.ArrayLike,
    cash_amount: npt.ArrayLike,
) -> _Events:
    given_ratio = as_floats("split_ratio", split_ratio)
    given_cash = as_floats("cash_amount", cash_amount)
    given_ticker = np.asarray(action_ticker)
    given_day = _as_day_numbers("action_ex_date", action_ex_date)
    n_actions = given_ratio.size
    if not (given_cash.shape == given_ticker.shape == given_day.shape == (n_actions,)):
        raise ValueError("action_ticker, action_ex_date, split_ratio and cash_amount differ in length")
    if n_actions == 0:
        given_ticker = given_ticker.astype(np.int64)
    if given_ticker.dtype.kind not in "iu":
        raise ValueError(f"action_ticker must hold integers, got {given_ticker.dtype}")
    if n_actions and not (given_ticker.min() >= 0 and given_ticker.max() < starts.size - 1):
        raise ValueError(f"action_ticker must lie in 0 .. {starts.size - 2}")

    splits = np.flatnonzero(~np.isnan(given_ratio))
    payments = np.flatnonzero(~np.isnan(given_cash))
    action = np.concatenate((splits, payments))
    ratio = np.concatenate((given_ratio[splits], np.ones(payments.size)))
    cash = np.concatenate((np.zeros(splits.size), given_cash[payments]))
    ratio[~is_price(ratio)] = np.nan
    cash[~is_volume(cash)] = np.nan
    is_payment = np.arange(action.size) >= splits.size
    # The last two keys make the order of actions of one kind and day that of their values, not that of the caller.
    order = np.lexsort((cash, ratio, is_payment, given_day[action], given_ticker[action]))
    action = action[order]
    ticker = given_ticker[action].astype(np.int64)
    row = _first_row_from(starts, days, ticker, given_day[action])
    invalid = np.isnan(ratio[order]) | np.isnan(cash[order])
    return _Events(ticker, row, ratio[order], cash[order], invalid, action.astype(np.int64), n_actions)


def _first_row_from(starts: IntArray, days: SessionArray, ticker: IntArray, day: SessionArray) -> RowArray:
    """Find the first row of each ticker at or after the day, its end where there is none (binary search)."""
    low, high = starts[ticker], starts[ticker + 1]
    while (open_ := low < high).any():
        middle = (low + high) // 2
        earlier = np.zeros(low.size, dtype=np.bool_)
        earlier[open_] = days[middle[open_]] < day[open_]
        low = np.where(earlier, middle + 1, low)
        high = np.where(open_ & ~earlier, middle, high)
    return low.astype(np.intp)


def _later_splits(events: _Events, starts: IntArray) -> FloatArray:
    """Multiply for each row the ratios of the splits after it, the newest first.

    A product so begins with the same factor whichever rows are there.
    """
    divisor = np.ones(int(starts[-1]))
    splits = np.flatnonzero(events.ratio != 1.0)
    for own in np.split(splits, np.flatnonzero(np.diff(events.ticker[splits])) + 1):
        if own.size == 0:
            continue
        ticker = events.ticker[own[0]]
        products = np.append(np.multiply.accumulate(events.ratio[own][::-1])[::-1], 1.0)
        bounds = np.concatenate(([starts[ticker]], events.row[own], [starts[ticker + 1]]))
        divisor[starts[ticker] : starts[ticker + 1]] = np.repeat(products, np.diff(bounds))
    return divisor


def _between_closes(events: _Events, starts: IntArray, prices: FloatArray) -> tuple[BetweenCloses, RowArray]:
    """Put the events together by the last close before them, and find those to refuse."""
    base = _last_observed_before(events, starts, prices)
    used = np.flatnonzero(base >= 0)
    # Events on the same last close are one group; the order of tickers and days keeps them together.
    rows, group = np.unique(base[used], return_inverse=True)
    rank = np.arange(used.size) - np.searchsorted(group, group)
    # Of each group so far: shares held per share of the last close, and dividends per share held.
    shares = np.ones(rows.size)
    cash = np.zeros(rows.size)
    for turn in range(int(rank.max()) + 1 if rank.size else 0):
        event, which = used[rank == turn], group[rank == turn]
        shares[which] *= events.ratio[event]
        cash[which] = cash[which] / events.ratio[event] + events.cash[event]
    paid = cash * shares
    refused = paid >= prices[rows]
    paid[refused] = np.nan
    culprits = used[refused[group] & (events.cash[used] > 0)]
    return BetweenCloses(rows.astype(np.intp), shares, paid), culprits


def _last_observed_before(events: _Events, starts: IntArray, prices: FloatArray) -> RowArray:
    """Row of the last observed close before each event within its ticker; -1 where there is none."""
    observed = is_price(prices)
    if observed.all():
        base = events.row - 1
    else:
        latest = np.maximum.accumulate(np.where(observed, np.arange(prices.size), -1))
        base = np.where(events.row > 0, latest[np.maximum(events.row - 1, 0)], -1)
    return np.where(base >= starts[events.ticker], base, -1).astype(np.intp)


def _multiply_backwards(steps: FloatArray, starts: IntArray, tickers: IntArray | RowArray) -> None:
    """Turn the steps of the given tickers into products over the row itself and all later rows, in place."""
    for ticker in np.unique(tickers).tolist():
        own = steps[starts[ticker] : starts[ticker + 1]][::-1]
        np.multiply.accumulate(own, out=own)


# -- reading what callers give -------------------------------------------------------------------------------


class _Series(NamedTuple):
    """Values of one ticker with day numbers, or with positions where the caller has no dates."""

    name: str
    values: FloatArray
    days: SessionArray
    dated: bool

    @classmethod
    def read(cls, name: str, values: Prices, dates: npt.ArrayLike | None) -> "_Series":
        if isinstance(values, Mapping):
            dates = list(values.keys()) if dates is None else dates
            values = list(values.values())
        elif dates is None:
            index = getattr(values, "index", None)  # a method on lists and tuples
            if index is not None and not callable(index) and np.asarray(index).dtype.kind not in "iuf":
                dates = index
        array = as_floats(name, values)
        if dates is None:
            return cls(name, array, np.arange(array.size), dated=False)
        days = _as_day_numbers("dates", dates)
        if np.asarray(dates).dtype.kind in "iu":
            raise TypeError("dates must be dates, not integers; leave them out to work with positions")
        if days.shape != array.shape:
            raise ValueError(f"{name} has {array.size} values, but there are {days.size} dates")
        return cls(name, array, days, dated=True)

    def factors(self, actions: Actions, *, with_dividends: bool) -> AdjustmentFactors:
        wanted = [a for a in _read_actions(actions) if with_dividends or a.action_type == "split"]
        result = adjustment_factors(
            offsets=[0, self.values.size],
            dates=self.days,
            close=self.values,
            action_ticker=np.zeros(len(wanted), dtype=np.int64),
            action_ex_date=np.array([self._day(a) for a in wanted], dtype=np.int64),
            split_ratio=[a.value if a.action_type == "split" else np.nan for a in wanted],
            cash_amount=[a.value if a.action_type == "dividend" else np.nan for a in wanted],
        )
        if result.rejected.any():
            bad = wanted[int(np.argmax(result.rejected))]
            rule = (
                "a split ratio must be positive and finite"
                if bad.action_type == "split"
                else "dividends must be at least 0 and together below the last close before them"
            )
            raise ValueError(f"{bad.action_type} of {bad.value!r} with ex-date {bad.ex_date}: {rule}")
        return result

    def _day(self, action: CorporateAction) -> int:
        if isinstance(action.ex_date, int | np.integer):
            if self.dated:
                raise TypeError(f"ex_date {action.ex_date!r} is a position, but {self.name} has dates")
            return int(action.ex_date)
        if not self.dated:
            raise TypeError(
                f"ex_date {action.ex_date!r} is a date, but {self.name} has none: pass dates=..., "
                "a pandas Series indexed by date, or a mapping from date to value"
            )
        return _day_number(action.ex_date)


def _read_actions(actions: Actions) -> list[CorporateAction]:
    if isinstance(actions, _ArrowTable):
        records: Iterable[Any] = actions.to_pylist()
    elif isinstance(actions, _DataFrame) and not isinstance(actions, Mapping):
        records = actions.to_dict("records")
    elif isinstance(actions, Mapping) or not isinstance(actions, Iterable):
        raise TypeError(f"actions must be a table or a sequence of actions, got {type(actions).__name__}")
    else:
        records = actions
    return [action for record in records for action in _read_action(record)]


def _read_action(record: Any) -> list[CorporateAction]:
    if not isinstance(record, Mapping):
        ex_date, action_type, value = record
    else:
        ex_date, action_type = record["ex_date"], record["action_type"]
        column = {"split": "split_ratio", "dividend": "cash_amount"}.get(action_type)
        value = record.get("value", record.get(column))
    if action_type not in ("split", "dividend"):
        raise ValueError(f"action_type must be 'split' or 'dividend', got {action_type!r} ({ex_date})")
    if value is None or value != value:
        raise ValueError(f"{action_type} with ex-date {ex_date} has no value")
    return [CorporateAction(ex_date, action_type, float(value))]


def _day_number(day: Any) -> int:
    if isinstance(day, datetime):
        day = day.date()  # the calendar date as written, whatever its time zone
    return int(np.datetime64(day, "D").astype(np.int64))


def _as_day_numbers(name: str, dates: npt.ArrayLike) -> SessionArray:
    """Days since 1970-01-01 of datetime64, dates, ISO texts, or integers that are such numbers already."""
    array = np.asarray(dates)
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    if array.size == 0:
        return np.zeros(0, dtype=np.int64)
    if array.dtype.kind in "iu":
        return array
    try:
        if array.dtype.kind == "M":
            days = array.astype("datetime64[D]")
        else:
            days = np.array([_day_number(day) for day in array.tolist()], dtype="datetime64[D]")
    except (TypeError, ValueError) as error:
        raise TypeError(f"{name} must hold dates: {error}") from error
    if np.isnat(days).any():
        raise ValueError(f"{name} must not hold missing dates")
    return days.astype(np.int64)
