"""Ticker indicators: RSI, moving average, historical volatility and volume scores.

Belongs here: functions from prices or volumes to indicators, for one series and for a panel of many tickers,
and the status that explains each undefined value. Does not belong here: corporate actions (`adjustments`),
reading tables (`panel`), thresholds of alerts as settings, storage, Dagster.

Conventions of every function
-----------------------------
* Arrays are one-dimensional and ordered in time; the **position is the exchange session**, so a missed
  session is a NaN, not a missing element. Results are float64 arrays of the same length, NaN where undefined.
* A price that is NaN, infinite, zero or negative counts as not observed, and so does a volume that is NaN,
  infinite or negative; a volume of zero is an observation. Windows and recursions run over the observed rows
  only, and a full window is required.
* A window reads nothing outside itself: results are bit for bit the same however much earlier history is
  loaded. RSI is recursive, but a change of the price fades as ``((period - 1) / period) ** rows``: from the row
  on before which `rsi_window` changes lie it is computed from these alone, so that it is a window too.
* ``*_with_status`` returns the values with an int8 status code per position (`Status.code`); the panel
  functions return the same for concatenated tickers. Both run the same kernels.
"""

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finance_assets.arrays import as_floats
from finance_assets.contracts.status import Status
from finance_assets.market._arrays import (
    BoolArray,
    FloatArray,
    IntArray,
    RowArray,
    SessionArray,
    as_offsets,
    as_rows,
    as_sessions,
    first_rows,
    is_price,
    is_volume,
)

__all__ = [
    "MAX_RETURN_SPAN_SESSIONS",
    "RSI_OVERBOUGHT",
    "RSI_OVERSOLD",
    "VOLUME_Z_ANOMALY",
    "Indicator",
    "PriceIndicators",
    "VolumeIndicators",
    "historical_volatility",
    "historical_volatility_with_status",
    "price_indicators",
    "rsi",
    "rsi_window",
    "rsi_with_status",
    "sma",
    "sma_with_status",
    "volume_indicators",
    "volume_modified_zscore",
    "volume_modified_zscore_with_status",
    "volume_zscore",
    "volume_zscore_with_status",
    "window_missing_sessions",
]

StatusArray = npt.NDArray[np.int8]

MAX_RETURN_SPAN_SESSIONS: Final = 5
"""A return between closes further apart than this many sessions is left out of volatility windows."""
RSI_OVERBOUGHT: Final = 70.0
"""An RSI strictly above this is overbought."""
RSI_OVERSOLD: Final = 30.0
"""An RSI strictly below this is oversold."""
VOLUME_Z_ANOMALY: Final = 3.0
"""A volume z-score at or above this is an anomaly (at or below its negative: unusually low)."""
"""A modified z-score strictly above this is an anomaly (Iglewicz and Hoaglin)."""

_MAD_TO_SD: Final = 0.67449  # 0.75 quantile of the normal distribution: MAD / sd of normal data
_ZERO_SPREAD: Final = 1e-12
# Between these, average movements and their sums keep within the range of normal doubles.
_TINY_PRICE: Final = 1e-100
_HUGE_PRICE: Final = 1e100
# What a change of the price may still weigh in an RSI when it is left out: about as much as rounding adds.
_FORGOTTEN: Final = 4e-16
# Windows of RSI are multiples of it, so that they are put together from few runs.
_RSI_WINDOW_STEP: Final = 16
_TALIB_MAX_PERIOD: Final = 100_000
# Blocks keep the temporaries in the cache and bound the memory; measured best of 2**11 .. 2**18.
_BLOCK_ROWS: Final = 1 << 15
_SORT_BLOCK_VALUES: Final = 1 << 18
_GROUP_ROWS: Final = 1 << 17
_THREADS: Final = 2

_OK: Final = np.int8(Status.OK.code)
_NO_DATA: Final = np.int8(Status.NO_DATA.code)
_INSUFFICIENT: Final = np.int8(Status.INSUFFICIENT_HISTORY.code)
_ZERO_VARIANCE: Final = np.int8(Status.ZERO_VARIANCE.code)
_NO_MOVEMENT: Final = np.int8(Status.NO_MOVEMENT.code)


class Indicator(NamedTuple):
    """Values of one indicator and the reason for each undefined one, position by position.

    Attributes
    ----------
    values
        float64, NaN exactly where `status` is not OK.
    status
        int8 codes; ``STATUSES[code]`` is the `Status`.
    """

    values: FloatArray
    status: StatusArray


class PriceIndicators(NamedTuple):
    """Price indicators of a panel, row by row.

    Attributes
    ----------
    rsi
        Relative strength index, 0 to 100.
    sma
        Simple moving average, in units of the split-adjusted close.
    historical_volatility
        Annualised standard deviation of log returns, decimal fraction.
    """

    rsi: Indicator
    sma: Indicator
    historical_volatility: Indicator


class VolumeIndicators(NamedTuple):
    """Volume scores of a panel, row by row; both without unit.

    Attributes
    ----------
    zscore
        Distance from the mean of the previous sessions in sample standard deviations.
    modified_zscore
        The same with median and median absolute deviation, which earlier spikes cannot mask.
    """

    zscore: Indicator
    modified_zscore: Indicator


# -- one series ----------------------------------------------------------------------------------------------


def rsi(close: npt.ArrayLike, period: int = 14) -> FloatArray:
    """Relative strength index of Wilder, from 0 to 100.

    With ``d`` the change from one observed close to the next, the average gain and average loss start as
    plain means of the first `period` gains and losses and continue as ``AG = ((period - 1) * AG + gain) /
    period`` (AL likewise); ``RSI = 100 * AG / (AG + AL)``.

    Parameters
    ----------
    close
        Split-adjusted closes, one per session, NaN where missing. Only their ratios matter.
    period
        Number of changes in the seed and smoothing constant, at least 2.

    Returns
    -------
    numpy.ndarray
        First value at the observed close number ``period + 1``. 100 while there has been no loss, 0 while
        there has been no gain, NaN while there has been neither, and NaN where the close is missing.

    Raises
    ------
    ValueError
        If `close` is not one-dimensional or `period` is not an integer of at least 2.

    Notes
    -----
    TA-Lib computes the rows before which fewer than ``rsi_window(period)`` changes lie. On a flat line it reports
    0, an oversold signal, and older builds of its C library do so too for any average movement below 1e-14; from
    such a row on the recursion is followed here instead. Later rows weigh their last ``rsi_window(period)``
    changes, up to the last one that moved the price: what came before weighs less than 4e-16, and leaving it out
    makes the result the same, to the last bit, however much of it is loaded.

    References
    ----------
    J. W. Wilder, *New Concepts in Technical Trading Systems*, 1978. StockCharts ChartSchool, "Relative
    Strength Index (RSI)", worked example.
    """
    return rsi_with_status(close, period).values


def rsi_with_status(close: npt.ArrayLike, period: int = 14) -> Indicator:
    """Give `rsi` with its status: ok, no_data, insufficient_history or no_movement."""
    _require_count("period", period, 2)
    return _rsi(_observe_series("close", close, is_price), period)


def rsi_window(period: int = 14) -> int:
    """Return how many changes of the price an RSI rests on; those before weigh less than 4e-16 of it.

    Parameters
    ----------
    period
        As in `rsi`; 480 changes at a period of 14.
    """
    needed = math.log(_FORGOTTEN) / math.log1p(-1 / period)
    return math.ceil(needed / _RSI_WINDOW_STEP) * _RSI_WINDOW_STEP


def sma(close: npt.ArrayLike, period: int = 50) -> FloatArray:
    """Mean of the last `period` observed closes, the current one included.

    Parameters
    ----------
    close
        Split-adjusted closes, one per session, NaN where missing.
    period
        Number of closes in the window, at least 1.

    Returns
    -------
    numpy.ndarray
        In units of `close`; first value at the observed close number `period`; NaN where the close is
        missing.

    Raises
    ------
    ValueError
        If `close` is not one-dimensional or `period` is not an integer of at least 1.

    Notes
    -----
    A running sum would carry the rounding error of a former high price to the end of the series; here each
    window is added up by itself. The average of a constant price is exactly that price.
    """
    return sma_with_status(close, period).values


def sma_with_status(close: npt.ArrayLike, period: int = 50) -> Indicator:
    """Give `sma` with its status: ok, no_data or insufficient_history."""
    _require_count("period", period, 1)
    return _sma(_observe_series("close", close, is_price), period)


def historical_volatility(close: npt.ArrayLike, period: int = 30, sessions_per_year: float = 252) -> FloatArray:
    """Annualised sample standard deviation of the last `period` log returns.

    Parameters
    ----------
    close
        Total-return (split- and dividend-adjusted) closes, one per session, NaN where missing.
    period
        Number of log returns in the window, at least 2; `period` returns need ``period + 1`` closes.
    sessions_per_year
        Sessions in a year of the exchange calendar.

    Returns
    -------
    numpy.ndarray
        Decimal fraction (0.25 is 25 % a year). First value at the observed close number ``period + 1``. A
        constant price gives exactly 0. NaN where the close is missing.

    Raises
    ------
    ValueError
        If `close` is not one-dimensional, `period` is not an integer of at least 2, or `sessions_per_year` is
        not positive and finite.

    Notes
    -----
    Returns are taken between consecutive observed closes. One that spans more than `MAX_RETURN_SPAN_SESSIONS`
    sessions is left out: the window then reaches further back, and the row that ends the gap repeats the
    volatility known before it. The variance merges the means and squared deviations of half-windows (Chan,
    Golub and LeVeque 1979), so there is neither cancellation nor drift.

    References
    ----------
    J. C. Hull, *Options, Futures, and Other Derivatives*, "Estimating volatility from historical data".
    """
    return historical_volatility_with_status(close, period, sessions_per_year).values


def historical_volatility_with_status(
    close: npt.ArrayLike, period: int = 30, sessions_per_year: float = 252
) -> Indicator:
    """Give `historical_volatility` with its status: ok, no_data or insufficient_history."""
    _require_count("period", period, 2)
    _require_positive("sessions_per_year", sessions_per_year)
    rows = _observe_series("close", close, is_price)
    return _historical_volatility(rows, _log_returns(rows), period, sessions_per_year)


def volume_zscore(volume: npt.ArrayLike, period: int = 20) -> FloatArray:
    """Volume against the mean of the previous `period` sessions, in sample standard deviations.

    Parameters
    ----------
    volume
        Split-adjusted volumes, one per session, NaN where missing. Half days are not comparable: pass them as
        NaN.
    period
        Number of earlier observed sessions to compare with, at least 2; the current one is not among them.

    Returns
    -------
    numpy.ndarray
        First value at the observed volume number ``period + 1``. NaN where the window does not vary or the
        volume is missing. `VOLUME_Z_ANOMALY` and above is an anomaly.

    Raises
    ------
    ValueError
        If `volume` is not one-dimensional or `period` is not an integer of at least 2.
    """
    return volume_zscore_with_status(volume, period).values


def volume_zscore_with_status(volume: npt.ArrayLike, period: int = 20) -> Indicator:
    """Give `volume_zscore` with its status: ok, no_data, insufficient_history or zero_variance."""
    _require_count("period", period, 2)
    return _volume_zscore(_observe_series("volume", volume, is_volume), period)


def volume_modified_zscore(volume: npt.ArrayLike, period: int = 20) -> FloatArray:
    """Volume against the median of the previous `period` sessions: ``0.67449 * (V - median) / MAD``.

    MAD is the median absolute deviation from that median. One earlier spike in the window inflates a standard
    deviation and hides the next spike; it hardly moves the MAD.

    Parameters
    ----------
    volume
        Split-adjusted volumes, one per session, NaN where missing. Half days are not comparable: pass them as
        NaN.
    period
        Number of earlier observed sessions to compare with, at least 2; the current one is not among them.

    Returns
    -------
    numpy.ndarray
        First value at the observed volume number ``period + 1``. NaN where the MAD is zero (more than half of
        the window is one same value) or the volume is missing. Above `MODIFIED_Z_THRESHOLD`
        (:mod:`finance_assets.reference.anomalies`) is an anomaly.

    Raises
    ------
    ValueError
        If `volume` is not one-dimensional or `period` is not an integer of at least 2.

    References
    ----------
    B. Iglewicz and D. C. Hoaglin, *How to Detect and Handle Outliers*, ASQC Quality Press, 1993.
    """
    return volume_modified_zscore_with_status(volume, period).values


def volume_modified_zscore_with_status(volume: npt.ArrayLike, period: int = 20) -> Indicator:
    """Give `volume_modified_zscore` with its status: ok, no_data, insufficient_history or zero_variance."""
    _require_count("period", period, 2)
    return _volume_modified_zscore(_observe_series("volume", volume, is_volume), period)


# -- panels --------------------------------------------------------------------------------------------------


def price_indicators(
    offsets: npt.ArrayLike,
    close_split_adjusted: npt.ArrayLike,
    close_total_return: npt.ArrayLike,
    session_index: npt.ArrayLike | None = None,
    *,
    total_return: npt.ArrayLike | None = None,
    rsi_period: int = 14,
    sma_period: int = 50,
    volatility_period: int = 30,
    sessions_per_year: float = 252,
) -> PriceIndicators:
    """RSI, moving average and volatility of many tickers at once.

    Parameters
    ----------
    offsets
        Integers ``0 .. n_rows`` of length ``n_tickers + 1``; ticker ``i`` owns the rows
        ``offsets[i]:offsets[i + 1]``, in the order of sessions.
    close_split_adjusted
        Prices for RSI and moving average, all tickers end to end.
    close_total_return
        Prices for the volatility, the same shape.
    session_index
        Ordinal of each row's exchange session. Needed when a ticker may lack rows for sessions it missed;
        without it, each row is one session after the row before.
    total_return
        Simple return of each row since the observed row before, as `adjustments.total_returns` gives them: the
        volatility is then that of these, and `close_total_return` only says which rows are observed. Adjusted
        closes carry the rounding of all later dividends; these returns do not.
    rsi_period, sma_period, volatility_period, sessions_per_year
        As in `rsi`, `sma` and `historical_volatility`.

    Returns
    -------
    PriceIndicators
        What the functions for one series give when the missed sessions are put in as NaN.

    Raises
    ------
    ValueError
        If the shapes or offsets do not fit together, sessions do not ascend within a ticker, or a parameter
        is out of range.
    """
    _require_count("rsi_period", rsi_period, 2)
    _require_count("sma_period", sma_period, 1)
    _require_count("volatility_period", volatility_period, 2)
    _require_positive("sessions_per_year", sessions_per_year)
    starts = as_offsets(offsets)
    sessions = None if session_index is None else as_sessions("session_index", session_index, starts)
    split_adjusted = as_rows("close_split_adjusted", close_split_adjusted, starts)
    adjusted = as_rows("close_total_return", close_total_return, starts)
    returns = None if total_return is None else as_rows("total_return", total_return, starts)

    def compute(rows: slice, bounds: IntArray) -> tuple[Indicator, ...]:
        ordinals = None if sessions is None else sessions[rows]
        split = _observe(split_adjusted[rows], bounds, ordinals, is_price)
        total = _observe(adjusted[rows], bounds, ordinals, is_price)
        logs = _log_returns(total) if returns is None else _logs_of(total, returns[rows])
        return (
            _rsi(split, rsi_period),
            _sma(split, sma_period),
            _historical_volatility(total, logs, volatility_period, sessions_per_year),
        )

    return PriceIndicators(*_in_groups(starts, compute, len(PriceIndicators._fields)))


def volume_indicators(offsets: npt.ArrayLike, volume: npt.ArrayLike, period: int = 20) -> VolumeIndicators:
    """Volume scores of many tickers at once.

    Parameters
    ----------
    offsets
        As in `price_indicators`.
    volume
        Split-adjusted volumes of all tickers end to end, NaN where missing. Sessions without a row need no
        mark: the windows count observations.
    period
        As in `volume_zscore`.

    Returns
    -------
    VolumeIndicators
        What the functions for one series give.

    Raises
    ------
    ValueError
        If the shapes or offsets do not fit together or `period` is not an integer of at least 2.
    """
    _require_count("period", period, 2)
    starts = as_offsets(offsets)
    volumes = as_rows("volume", volume, starts)

    def compute(rows: slice, bounds: IntArray) -> tuple[Indicator, ...]:
        observed = _observe(volumes[rows], bounds, None, is_volume)
        return _volume_zscore(observed, period), _volume_modified_zscore(observed, period)

    return VolumeIndicators(*_in_groups(starts, compute, len(VolumeIndicators._fields)))


def _in_groups(
    starts: IntArray, compute: Callable[[slice, IntArray], tuple[Indicator, ...]], n_indicators: int
) -> list[Indicator]:
    """Run `compute` on groups of whole tickers and put the results together.

    A group's arrays stay in the cache, and NumPy and TA-Lib release the interpreter while they work, so two
    threads share the groups. Nothing in the results depends on the grouping.
    """
    n_rows = int(starts[-1])
    results = [Indicator(np.empty(n_rows), np.empty(n_rows, dtype=np.int8)) for _ in range(n_indicators)]

    def run(first: int, last: int) -> None:
        begin, end = int(starts[first]), int(starts[last])
        parts = compute(slice(begin, end), starts[first : last + 1] - begin)
        for result, part in zip(results, parts, strict=True):
            result.values[begin:end] = part.values
            result.status[begin:end] = part.status

    # The first ticker of each group; a ticker longer than a group is one by itself.
    cuts = np.unique(np.searchsorted(starts, np.arange(0, n_rows, _GROUP_ROWS)))
    groups = list(pairwise([*cuts.tolist(), starts.size - 1]))
    if len(groups) < 2:
        for group in groups:
            run(*group)
        return results
    with ThreadPoolExecutor(_THREADS) as pool:
        for done in [pool.submit(run, *group) for group in groups]:
            done.result()
    return results


def window_missing_sessions(
    observed: npt.ArrayLike,
    window: int,
    *,
    offsets: npt.ArrayLike | None = None,
    session_index: npt.ArrayLike | None = None,
) -> npt.NDArray[np.int32]:
    """Count the sessions without an observation inside the window that ends at each row.

    Parameters
    ----------
    observed
        True where the row has a usable input (`rsi`, `sma`: ``status != NO_DATA``).
    window
        Number of observed rows in the window: `period` for a moving average, ``period + 1`` for RSI and
        volatility.
    offsets, session_index
        As in `price_indicators`; without offsets, one series.

    Returns
    -------
    numpy.ndarray
        int32; 0 for a window of consecutive sessions, -1 where the row is not observed or the window is not
        full.

    Raises
    ------
    ValueError
        If the shapes do not fit together or `window` is not an integer of at least 1.
    """
    _require_count("window", window, 1)
    mask = np.asarray(observed, dtype=np.bool_)
    if mask.ndim != 1:
        raise ValueError(f"observed must be one-dimensional, got shape {mask.shape}")
    starts = as_offsets([0, mask.size] if offsets is None else offsets)
    if starts[-1] != mask.size:
        raise ValueError(f"observed has {mask.size} rows, but offsets end at {starts[-1]}")
    sessions = None if session_index is None else as_sessions("session_index", session_index, starts)
    index = np.flatnonzero(mask)
    dense = index if sessions is None else sessions[index]
    dense_starts = np.searchsorted(index, starts)
    missing = np.full(index.size, -1, dtype=np.int32)
    missing[window - 1 :] = dense[window - 1 :] - dense[: dense.size - window + 1] - (window - 1)
    missing[first_rows(dense_starts, window - 1)] = -1
    result = np.full(mask.size, -1, dtype=np.int32)
    result[index] = missing
    return result


# -- from what a caller gives to rows the kernels can trust --------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Observed:
    """The observed rows of a panel, gaps closed, and the way back to the caller's rows."""

    values: FloatArray
    offsets: IntArray
    """Bounds of the tickers among the observed rows."""
    sessions: SessionArray | None
    """Session ordinal per observed row; None where each row is one session after the one before."""
    positions: RowArray | None
    """Where each observed row stands among all rows; None where all are observed."""
    n_rows: int

    def spread(self, values: FloatArray, status: StatusArray) -> Indicator:
        """Put results of the observed rows back into the caller's rows."""
        if self.positions is None:
            return Indicator(values, status)
        all_values = np.full(self.n_rows, np.nan)
        all_values[self.positions] = values
        all_status = np.full(self.n_rows, _NO_DATA)
        all_status[self.positions] = status
        return Indicator(all_values, all_status)


def _observe_series(name: str, values: npt.ArrayLike, is_observed: Callable[[FloatArray], BoolArray]) -> _Observed:
    array = as_floats(name, values)
    return _observe(array, np.array([0, array.size], dtype=np.int64), None, is_observed)


def _observe(
    values: FloatArray,
    offsets: IntArray,
    sessions: SessionArray | None,
    is_observed: Callable[[FloatArray], BoolArray],
) -> _Observed:
    mask = is_observed(values)
    if mask.all():
        return _Observed(values, offsets, sessions, None, values.size)
    positions = np.flatnonzero(mask)
    return _Observed(
        values=values[positions],
        offsets=np.searchsorted(positions, offsets).astype(np.int64),
        sessions=positions if sessions is None else sessions[positions],
        positions=positions,
        n_rows=values.size,
    )


def _require_count(name: str, value: int, at_least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < at_least:
        raise ValueError(f"{name} must be an integer of at least {at_least}, got {value!r}")


def _require_positive(name: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name} must be positive and finite, got {value!r}")


# -- kernels: one implementation of each rule ----------------------------------------------------------------


def _rsi(rows: _Observed, period: int) -> Indicator:
    prices = rows.values
    window = rsi_window(period)
    values = np.full(prices.size, np.nan)
    for start, stop in pairwise(rows.offsets.tolist()):
        if stop - start > period:
            own = slice(start, min(stop, start + window))
            values[own] = _first_rsi(prices[own], period)
    if (np.diff(rows.offsets) > window).any():
        values = _later_rsi(rows, period, window, values)
    status = np.full(prices.size, _OK)
    status[np.isnan(values)] = _NO_MOVEMENT
    warm_up = first_rows(rows.offsets, period)
    values[warm_up] = np.nan
    status[warm_up] = _INSUFFICIENT
    return rows.spread(values, status)


def _first_rsi(prices: FloatArray, period: int) -> FloatArray:
    """RSI of a ticker's first rows, by the recursion; each value depends on the rows up to it alone."""
    values = np.full(prices.size, np.nan)
    doubtful = period
    if period <= _TALIB_MAX_PERIOD:
        values[:] = _talib_rsi()(prices, period)
        # An exact 0 may be its "too small to divide"; a NaN is an overflow or a changed global setting of TA-Lib.
        wrong = ~(values[period:] > 0) | (prices[period:] < _TINY_PRICE)
        if prices[:period].min() >= _TINY_PRICE:
            doubtful += int(np.argmax(wrong)) if wrong.any() else wrong.size
    if doubtful < prices.size:
        values[doubtful:] = _wilder_rsi(prices, period)[doubtful:]
    return values


def _later_rsi(rows: _Observed, period: int, window: int, first: FloatArray) -> FloatArray:
    """RSI of the rows that have a full window of changes before them, beside that of the `first` rows given."""
    prices = rows.values
    lowest, highest = prices.min(), prices.max()
    if lowest < _TINY_PRICE or highest > _HUGE_PRICE:
        # A power of two changes no digit, and brings the changes away from underflow and overflow.
        lengths = np.diff(rows.offsets)
        exponents = np.zeros(lengths.size, dtype=np.int32)
        exponents[lengths > 0] = np.frexp(np.maximum.reduceat(prices, rows.offsets[:-1][lengths > 0]))[1]
        prices = np.ldexp(prices, -np.repeat(exponents, lengths))
    place = np.arange(prices.size) - np.repeat(rows.offsets[:-1], np.diff(rows.offsets))
    values = first
    moved = np.zeros(prices.size, dtype=np.bool_)
    moved[1:] = prices[1:] != prices[:-1]
    fade = (period - 1) / period
    for start in range(window, prices.size, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, prices.size)
        own = slice(start, stop)
        wanted = moved[own] & (place[own] >= window)
        if not wanted.any():
            continue
        changes = np.diff(prices[start - window : stop])
        gain = _faded_sums(np.maximum(changes, 0.0), window, fade)
        loss = _faded_sums(np.maximum(-changes, 0.0), window, fade)
        with np.errstate(invalid="ignore"):
            gain /= gain + loss
        gain *= 100.0
        np.copyto(values[own], gain, where=wanted)
    # While the price stands still both averages shrink by the same factor: RSI stays what the last movement left.
    source = np.where(moved | (place < window), np.arange(prices.size), 0)
    return values[np.maximum.accumulate(source)]


def _faded_sums(values: FloatArray, window: int, fade: float) -> FloatArray:
    """Add up all runs of `window` values, the newest whole and each older one faded once more.

    As in `_block_moments` they are put together from runs of 1, 2, 4, ... values, in the same order for each.
    """
    size, run = 1, values
    merged: FloatArray | None = None
    merged_size = 0
    while True:
        if window & size:
            merged = run if merged is None else _join_faded(run, merged, size, fade**merged_size)
            merged_size += size
        if 2 * size > window:
            break
        run = _join_faded(run, run, size, fade**size)
        size *= 2
    assert merged is not None  # window >= 1 has a bit set
    return merged


def _join_faded(older: FloatArray, newer: FloatArray, size: int, fade: float) -> FloatArray:
    """Join each run of `older`, of `size` values, with the run of `newer` that begins where it ends."""
    count = newer.size - size
    joined = older[:count] * fade
    joined += newer[size:]
    return joined


@lru_cache(maxsize=1)
def _talib_rsi() -> Callable[[FloatArray, int], FloatArray]:
    # Imported at first use: the package imports pandas and polars where they are installed (about a second).
    import talib

    # The function below the wrapper for pandas and polars, which costs as much as the RSI of a short series.
    return getattr(talib.RSI, "__wrapped__", talib.RSI)


def _wilder_rsi(prices: FloatArray, period: int) -> FloatArray:
    """RSI of observed prices by the definition, at any scale and after any number of unchanged sessions."""
    # A power of two changes no digit, and brings the changes away from underflow and overflow.
    scaled = np.ldexp(prices, -int(np.frexp(prices.max())[1]))
    changes = np.diff(scaled)
    gain = float(np.maximum(changes[:period], 0.0).mean())
    loss = float(np.maximum(-changes[:period], 0.0).mean())
    result = np.full(prices.size, np.nan)
    result[period] = current = _strength(gain, loss)
    fade = (period - 1) / period
    unchanged = 0
    for position, change in enumerate(changes[period:].tolist(), start=period + 1):
        if change == 0.0:
            # Both averages shrink by the same factor; their ratio stays. Applied at the next movement, so
            # that they cannot both vanish.
            unchanged += 1
        else:
            carried = fade**unchanged * fade
            gain = carried * gain + max(change, 0.0) / period
            loss = carried * loss + max(-change, 0.0) / period
            unchanged = 0
            current = _strength(gain, loss)
        result[position] = current
    return result


def _strength(gain: float, loss: float) -> float:
    return 100.0 * (gain / (gain + loss)) if gain + loss > 0 else math.nan


def _sma(rows: _Observed, period: int) -> Indicator:
    values, _ = _window_moments(rows.values, period, with_squares=False)
    status = np.full(values.size, _OK)
    warm_up = first_rows(rows.offsets, period - 1)
    values[warm_up] = np.nan
    status[warm_up] = _INSUFFICIENT
    return rows.spread(values, status)


def _historical_volatility(rows: _Observed, returns: FloatArray, period: int, sessions_per_year: float) -> Indicator:
    too_long = _long_spans(rows)
    undefined: RowArray | BoolArray
    if too_long is None:
        squares = _window_moments(returns, period, with_squares=True)[1]
        undefined = first_rows(rows.offsets, period)
    else:
        keep = ~too_long
        keep[first_rows(rows.offsets, 1)] = False
        kept_so_far = np.cumsum(keep)
        kept = _window_moments(returns[keep], period, with_squares=True)[1]
        # Each row sees the window that ends with the last return kept up to it (none so far: masked below).
        squares = kept[np.maximum(kept_so_far - 1, 0)] if kept.size else np.full(returns.size, np.nan)
        kept_before = np.concatenate(([0], kept_so_far))[rows.offsets[:-1]]
        undefined = kept_so_far - np.repeat(kept_before, np.diff(rows.offsets)) < period
    values = np.sqrt(squares / (period - 1)) * math.sqrt(sessions_per_year)
    status = np.full(values.size, _OK)
    values[undefined] = np.nan
    status[undefined] = _INSUFFICIENT
    return rows.spread(values, status)


def _log_returns(rows: _Observed) -> FloatArray:
    """Log return from the observed row before; without meaning in the first row of each ticker."""
    prices = rows.values
    returns = np.zeros(prices.size)
    with np.errstate(over="ignore", under="ignore", divide="ignore"):
        np.log(prices[1:] / prices[:-1], out=returns[1:])
    # The quotient keeps all digits of small returns; only where it leaves the range of doubles the logs are
    # subtracted.
    extreme = np.flatnonzero(~np.isfinite(returns))
    if extreme.size:
        returns[extreme] = np.log(prices[extreme]) - np.log(prices[extreme - 1])
    return returns


def _logs_of(rows: _Observed, returns: FloatArray) -> FloatArray:
    """Log returns of the observed rows from simple ones; without meaning in the first row of each ticker."""
    own = returns if rows.positions is None else returns[rows.positions]
    logs = np.log1p(own)
    logs[first_rows(rows.offsets, 1)] = 0.0
    return logs


def _long_spans(rows: _Observed) -> BoolArray | None:
    """Mark the rows whose return spans too many sessions; None where there are none."""
    if rows.sessions is None:
        return None
    too_long = np.zeros(rows.values.size, dtype=np.bool_)
    too_long[1:] = np.diff(rows.sessions) > MAX_RETURN_SPAN_SESSIONS
    too_long[first_rows(rows.offsets, 1)] = False
    return too_long if too_long.any() else None


def _volume_zscore(rows: _Observed, period: int) -> Indicator:
    volume = rows.values
    values = np.full(volume.size, np.nan)
    status = np.full(volume.size, _OK)
    mean, squares = _window_moments(volume, period, with_squares=True)
    mean, deviation = mean[:-1], np.sqrt(squares[:-1] / (period - 1))
    _score(volume[1:], mean, deviation, 1.0, values[1:], status[1:])
    return _finish_score(rows, period, values, status)


def _volume_modified_zscore(rows: _Observed, period: int) -> Indicator:
    volume = rows.values
    values = np.full(volume.size, np.nan)
    status = np.full(volume.size, _OK)
    block_rows = max(1, _SORT_BLOCK_VALUES // period)
    for start in range(period, volume.size, block_rows):
        stop = min(start + block_rows, volume.size)
        windows = np.lib.stride_tricks.sliding_window_view(volume[start - period : stop - 1], period)
        middle, spread = _median_and_mad(windows)
        _score(volume[start:stop], middle, spread, _MAD_TO_SD, values[start:stop], status[start:stop])
    return _finish_score(rows, period, values, status)


def _score(
    volume: FloatArray,
    centre: FloatArray,
    spread: FloatArray,
    factor: float,
    values: FloatArray,
    status: StatusArray,
) -> None:
    """Write ``factor * (volume - centre) / spread`` and the status of a window that does not vary."""
    with np.errstate(divide="ignore", invalid="ignore"):
        np.divide(factor * (volume - centre), spread, out=values)
        flat = spread <= _ZERO_SPREAD * np.maximum(1.0, np.abs(centre))
    values[flat] = np.nan
    status[flat] = _ZERO_VARIANCE


def _finish_score(rows: _Observed, period: int, values: FloatArray, status: StatusArray) -> Indicator:
    warm_up = first_rows(rows.offsets, period)
    values[warm_up] = np.nan
    status[warm_up] = _INSUFFICIENT
    return rows.spread(values, status)


def _median_and_mad(windows: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Median of each row and median of the absolute deviations from it."""
    # Sorted row by row, then one column per window: the steps below run along contiguous memory.
    ordered = np.ascontiguousarray(np.sort(windows, axis=1).T)
    size = ordered.shape[0]
    low, high = (size - 1) // 2, size // 2
    median = 0.5 * (ordered[low] + ordered[high])

    def smallest_deviation(rank: int) -> FloatArray:
        # The `rank` values nearest to the median are neighbours in the sorted window, so the deviation of
        # that rank is the least, over all runs of `rank` neighbours, of the larger distance at the two ends
        # of the run.
        farthest = np.maximum(median - ordered[: size - rank + 1], ordered[rank - 1 :] - median)
        nearest: FloatArray = farthest.min(axis=0)
        return nearest

    if low == high:
        return median, smallest_deviation(high + 1)
    return median, 0.5 * (smallest_deviation(low + 1) + smallest_deviation(high + 1))


def _window_moments(values: FloatArray, window: int, *, with_squares: bool) -> tuple[FloatArray, FloatArray]:
    """Mean and sum of squared deviations of the `window` values that end at each position.

    The first ``window - 1`` positions are NaN, and so is every sum of squares unless `with_squares`.
    """
    mean = np.empty(values.size)
    squares = np.empty(values.size if with_squares else 0)
    mean[: window - 1] = np.nan
    squares[: window - 1] = np.nan
    for start in range(window - 1, values.size, _BLOCK_ROWS):
        stop = min(start + _BLOCK_ROWS, values.size)
        block = _block_moments(values[start - window + 1 : stop], window, with_squares)
        mean[start:stop] = block.mean
        if with_squares:
            squares[start:stop] = block.squares
    return mean, squares


class _Moments(NamedTuple):
    """Mean and sum of squared deviations of the runs of `size` values that begin at each position."""

    size: int
    mean: FloatArray
    squares: FloatArray | float
    """The number 0 for runs of one value."""


def _block_moments(values: FloatArray, window: int, with_squares: bool) -> _Moments:
    """Moments of all full windows, from runs of 1, 2, 4, ... values merged as the bits of `window` say.

    Each result is made of its own window's values in a fixed order: about two merges per bit instead of
    `window` additions, and nothing carried over from earlier rows.
    """
    run = _Moments(1, values, 0.0)
    merged: _Moments | None = None
    while True:
        if window & run.size:
            merged = run if merged is None else _merge(run, merged, with_squares)
        if 2 * run.size > window:
            break
        run = _merge(run, run, with_squares)
    assert merged is not None  # window >= 1 has a bit set
    return merged


def _merge(older: _Moments, newer: _Moments, with_squares: bool) -> _Moments:
    """Join each run of `older` with the run of `newer` that begins where it ends (Chan et al. 1979)."""
    size = older.size + newer.size
    count = newer.mean.size - older.size
    difference = newer.mean[older.size :] - older.mean[:count]
    mean = difference * (newer.size / size)
    mean += older.mean[:count]
    if not with_squares:
        return _Moments(size, mean, 0.0)
    squares = difference
    squares *= difference
    squares *= older.size * newer.size / size
    if isinstance(older.squares, np.ndarray):
        squares += older.squares[:count]
    if isinstance(newer.squares, np.ndarray):
        squares += newer.squares[older.size :]
    return _Moments(size, mean, squares)
