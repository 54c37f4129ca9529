"""Trading signals of a level: trend, momentum, rotation against a benchmark, volatility regime.

Belongs here: what state a series is in as of each session, since when, and the numbers behind it. Does not belong here:
what to do about a signal, tables, storage, Dagster.

A signal as of a session rests on that session and earlier ones, never on later ones; a test perturbs the future and
asks that the past does not move. Levels are positive numbers in the order of time; a level that is missing or not
positive is left out, and windows count the levels that are there. States are texts; an empty text is an undefined
state, and ``status`` says why.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import (
    NO_VARIATION,
    BoolArray,
    CodeArray,
    FloatArray,
    as_returns,
    mean_and_deviation,
    windows,
)

__all__ = [
    "Signal",
    "momentum",
    "rotation",
    "since",
    "trend",
    "volatility_regime",
]

TextArray = npt.NDArray[np.str_]

#: Moving averages of the trend.
FAST, SLOW = 50, 200
#: 12-1 momentum: from a year ago to a month ago, in sessions.
YEAR, MONTH = 252, 21
#: Rotation: sessions of its means and deviations, and of the rate of change.
ROTATION_WINDOW, ROTATION_CHANGE = 63, 21
#: Volatility regime: returns of a volatility, volatilities it is ranked among, and the ranks that are extreme.
REGIME_WINDOW, REGIME_HISTORY = 30, 252
REGIME_LOW, REGIME_HIGH = 0.2, 0.8

TREND_STATES: Final = ("bullish", "bearish", "neutral")
MOMENTUM_STATES: Final = ("positive", "negative", "neutral")
QUADRANTS: Final = ("leading", "weakening", "lagging", "improving")
REGIMES: Final = ("low", "normal", "high")


@dataclass(frozen=True, slots=True)
class Signal:
    """A signal as of each session.

    Attributes
    ----------
    state
        Text per session; empty where undefined.
    since
        Position of the session since which the state holds without a break; -1 where it is undefined. A session
        without an observation breaks nothing.
    changed
        Whether the state is another than that of the observation before, both defined: a cross, an event.
    value, reference
        The number that decides, and the number it is compared with; NaN where undefined.
    status
        Codes of :class:`~finance_assets.contracts.status.Status`.
    """

    state: TextArray
    since: npt.NDArray[np.intp]
    changed: BoolArray
    value: FloatArray
    reference: FloatArray
    status: CodeArray


def trend(levels: npt.ArrayLike, fast: int = FAST, slow: int = SLOW) -> Signal:
    """Compare the moving average of the last 50 levels with that of the last 200.

    ``value`` is the fast average, ``reference`` the slow one; ``bullish`` above, ``bearish`` below, ``neutral`` where
    they are equal. A change from bearish to bullish is a golden cross, from bullish to bearish a death cross.

    Raises
    ------
    ValueError
        `fast` is not below `slow`, or below 1.
    """
    if not 1 <= fast < slow:
        raise ValueError(f"fast must be at least 1 and below slow, got {fast} and {slow}")
    present, places = _levels(levels)
    count = present.size
    value, reference = np.full((2, count), np.nan)
    if count >= slow:
        reference[slow - 1 :] = windows(present, slow).mean(axis=1)
        value[slow - 1 :] = windows(present, fast).mean(axis=1)[slow - fast :]
    state = _compared(value, reference, "bullish", "bearish")
    return _signal(_size(levels), places, state, value, reference, _status(value))


def momentum(levels: npt.ArrayLike, year: int = YEAR, month: int = MONTH) -> Signal:
    """Compute the return from 252 to 21 levels ago: a year without its last month (Jegadeesh and Titman's 12-1).

    ``value`` is the return, ``reference`` 0; ``positive``, ``negative``, or ``neutral`` where it is 0.
    """
    if not 0 <= month < year:
        raise ValueError(f"month must be below year and not negative, got {month} and {year}")
    present, places = _levels(levels)
    value, reference = np.full((2, present.size), np.nan)
    if present.size > year:
        value[year:] = present[year - month : present.size - month] / present[: present.size - year] - 1.0
        reference[year:] = 0.0
    state = _compared(value, reference, "positive", "negative")
    return _signal(_size(levels), places, state, value, reference, _status(value))


def rotation(
    levels: npt.ArrayLike,
    benchmark: npt.ArrayLike,
    window: int = ROTATION_WINDOW,
    change: int = ROTATION_CHANGE,
) -> Signal:
    """Place a series in the quadrants of relative strength and its momentum ("RRG-style").

    The relative strength is 100 times the level over the benchmark's. Its ratio is 100 plus its distance from its mean
    of 63 in deviations; its momentum is 100 plus the distance of the ratio's rate of change over 21, likewise. The
    JdK RS-Ratio and RS-Momentum are proprietary; this is the form in public use.

    ``value`` is the ratio, ``reference`` the momentum. Of both at least 100: ``leading``; only the ratio:
    ``weakening``; only the momentum: ``improving``; neither: ``lagging``. The first is at the 146th level.

    Raises
    ------
    ValueError
        The series differ in length.
    """
    own, other = _as_levels(levels), _as_levels(benchmark)
    if own.size != other.size:
        raise ValueError(f"levels has {own.size} values and benchmark {other.size}; give both on the same sessions")
    places = np.flatnonzero(~np.isnan(own) & ~np.isnan(other))
    strength = 100.0 * own[places] / other[places]
    ratio, ratio_still = _distance(strength, window)
    pace = np.full(ratio.size, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        pace[change:] = 100.0 * (ratio[change:] / ratio[:-change] - 1.0) if ratio.size > change else pace[change:]
    speed, speed_still = _distance(pace, window)
    state = np.full(places.size, "", dtype="U16")
    for quadrant, strong, quick in (
        ("leading", True, True),
        ("weakening", True, False),
        ("improving", False, True),
        ("lagging", False, False),
    ):
        state[((ratio >= 100) == strong) & ((speed >= 100) == quick)] = quadrant
    state[np.isnan(ratio) | np.isnan(speed)] = ""
    status = _status(speed)
    # Once the history is long enough, what is missing lacks variation, in the ratio itself or in a window of its pace.
    long_enough = np.arange(places.size) >= 2 * window + change - 2
    status[(state == "") & long_enough] = Status.ZERO_VARIANCE.code
    status[(ratio_still | speed_still) & (state == "")] = Status.ZERO_VARIANCE.code
    return _signal(own.size, places, state, ratio, speed, status)


def volatility_regime(
    returns: npt.ArrayLike,
    window: int = REGIME_WINDOW,
    history: int = REGIME_HISTORY,
    low: float = REGIME_LOW,
    high: float = REGIME_HIGH,
) -> Signal:
    """Rank the volatility of the last 30 returns among the last 252 volatilities.

    ``value`` is the annualised volatility, ``reference`` its rank, the share of the other volatilities that are below
    it (half of those that are equal): ``high`` from 0.8, ``low`` up to 0.2, else ``normal``.
    """
    from finance_assets.sectors.risk import rolling_volatility

    array = as_returns("returns", returns)
    places = np.flatnonzero(~np.isnan(array))
    value = rolling_volatility(array[places], window)
    rank = np.full(value.size, np.nan)
    first = window - 1
    if value.size - first >= history:
        seen = windows(value[first:], history)
        newest = seen[:, -1:]
        # The newest is among those it is compared with, and equal to itself.
        below = (seen < newest).sum(axis=1) + 0.5 * ((seen == newest).sum(axis=1) - 1)
        rank[first + history - 1 :] = below / (history - 1)
    state = np.full(value.size, "normal", dtype="U16")
    state[rank >= high], state[rank <= low] = "high", "low"
    state[np.isnan(rank)] = ""
    return _signal(array.size, places, state, value, rank, _status(rank))


def since(state: npt.NDArray[np.str_]) -> npt.NDArray[np.intp]:
    """Return for each element the position at which its unbroken run of equal elements begins."""
    starts = np.r_[True, state[1:] != state[:-1]] if state.size else np.empty(0, dtype=np.bool_)
    return np.asarray(np.maximum.accumulate(np.where(starts, np.arange(state.size), 0)), dtype=np.intp)


def _size(levels: npt.ArrayLike) -> int:
    return int(np.asarray(levels).size)


def _as_levels(levels: npt.ArrayLike) -> FloatArray:
    array = np.asarray(levels, dtype=np.float64)
    if array.ndim != 1:
        raise ValueError(f"levels must be one-dimensional, got shape {array.shape}")
    return np.where(np.isfinite(array) & (array > 0), array, np.nan)


def _levels(levels: npt.ArrayLike) -> tuple[FloatArray, npt.NDArray[np.intp]]:
    array = _as_levels(levels)
    places = np.flatnonzero(~np.isnan(array))
    return np.ascontiguousarray(array[places]), places


def _distance(values: FloatArray, window: int) -> tuple[FloatArray, BoolArray]:
    """Return 100 plus each value's distance from the mean of its window, in deviations, and where there are none."""
    result = np.full(values.size, np.nan)
    still = np.zeros(values.size, dtype=np.bool_)
    if values.size >= window:
        mean, deviation, flat = mean_and_deviation(windows(values, window))
        # Levels of relative strength are near 100: their own size is the measure of what is rounding.
        flat |= deviation <= NO_VARIATION * np.maximum(1.0, np.abs(mean))
        with np.errstate(divide="ignore", invalid="ignore"):
            distance = 100.0 + (values[window - 1 :] - mean) / deviation
        result[window - 1 :] = np.where(flat, np.nan, distance)
        still[window - 1 :] = flat
    return result, still


def _compared(value: FloatArray, reference: FloatArray, above: str, below: str) -> TextArray:
    state = np.full(value.size, "", dtype="U16")
    state[value > reference], state[value < reference], state[value == reference] = above, below, "neutral"
    return state


def _status(value: FloatArray) -> CodeArray:
    return np.where(np.isnan(value), Status.INSUFFICIENT_HISTORY.code, Status.OK.code).astype(np.int8)


def _signal(
    size: int,
    places: npt.NDArray[np.intp],
    state: TextArray,
    value: FloatArray,
    reference: FloatArray,
    status: CodeArray,
) -> Signal:
    """Return a signal over all sessions from one over those with an observation, at `places`."""
    defined = state != ""
    began = since(state)
    new = np.zeros(state.size, dtype=np.bool_)
    new[1:] = (state[1:] != state[:-1]) & defined[1:] & defined[:-1]
    full_state = np.full(size, "", dtype="U16")
    full_since = np.full(size, -1, dtype=np.intp)
    full_new = np.zeros(size, dtype=np.bool_)
    full_value, full_reference = np.full((2, size), np.nan)
    full_status = np.full(size, Status.NO_DATA.code, dtype=np.int8)
    full_state[places], full_new[places], full_status[places] = state, new, status
    full_since[places] = np.where(defined, places[began] if places.size else began, -1)
    full_value[places], full_reference[places] = np.where(defined, value, np.nan), np.where(defined, reference, np.nan)
    return Signal(full_state, full_since, full_new, full_value, full_reference, full_status)
