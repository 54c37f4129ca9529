"""Sector composites, their levels, and returns over calendar periods.

Belongs here: the equal- or given-weight mean of member returns, the level it compounds to, and period returns
between dated levels. Does not belong here: risk and attribution measures, membership data, storage, Dagster.
The warehouse computes the same in SQL; this is the reference it is tested against, and what notebooks call.
"""

import calendar
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["PERIODS", "composite_returns", "levels_from_returns", "period_return", "reference_date"]

Period = Literal["1D", "1M", "3M", "YTD", "1Y", "cumulative"]
PERIODS: Final[tuple[str, ...]] = get_args(Period)
"""Periods that `period_return` knows."""

FloatArray = npt.NDArray[np.float64]
DayArray = npt.NDArray[np.datetime64]
DateLike = date | np.datetime64 | str
Levels = Mapping[Any, float] | tuple[npt.ArrayLike, npt.ArrayLike] | Any

_MONTHS: Final = {"1M": 1, "3M": 3, "1Y": 12}


def period_return(levels: Levels, as_of: DateLike, period: str) -> float | None:
    """Compute the simple return of a level series over the period that ends at a date.

    ``L(as_of) / L(reference) - 1``. The reference is the last level at or before `as_of` minus 1, 3 or 12
    calendar months (the day clipped to the end of the month), the last level of the year before for ``YTD``,
    the level before for ``1D``, and the first level for ``cumulative``.

    Parameters
    ----------
    levels
        Dated levels, ascending: a pandas Series indexed by date, a mapping from date to level, or a pair
        ``(dates, levels)``. A level that is NaN, infinite or negative counts as missing.
    as_of
        Last date of the period: a date, datetime64 or ISO text.
    period
        One of `PERIODS`.

    Returns
    -------
    float or None
        Decimal fraction, not annualised. None if there is no level on `as_of` itself (a return as of a date
        needs the price of that date), if the reference lies before the first level, or if the reference level
        is zero.

    Raises
    ------
    ValueError
        If `period` is unknown or the dates do not ascend.
    TypeError
        If `levels` carry no dates.

    Examples
    --------
    On 2022-03-31 the reference of ``1M`` is 2022-02-28 and that of ``3M`` is 2021-12-31.
    """
    _require_period(period)
    days, values = _read_levels(levels)
    end = int(np.searchsorted(days, _as_day(as_of)))
    if end == days.size or days[end] != _as_day(as_of):
        return None
    if period == "1D":
        start = end - 1
    elif period == "cumulative":
        start = 0
    else:
        start = int(np.searchsorted(days, np.datetime64(reference_date(as_of, period)), side="right")) - 1
    if start < 0 or values[start] == 0:
        return None
    return float(values[end] / values[start] - 1)


def reference_date(as_of: DateLike, period: str) -> date:
    """Give the calendar date at or before which the reference level of a period is sought.

    Parameters
    ----------
    as_of
        Last date of the period.
    period
        ``1M``, ``3M``, ``1Y`` or ``YTD``; the others have no calendar date.

    Returns
    -------
    datetime.date
        `as_of` minus the months, with the day clipped to the end of that month; 31 December of the year
        before for ``YTD``.

    Raises
    ------
    ValueError
        If `period` is unknown or is counted in levels.
    """
    _require_period(period)
    end = date.fromisoformat(str(_as_day(as_of)))
    if period == "YTD":
        return date(end.year - 1, 12, 31)
    if period not in _MONTHS:
        raise ValueError(f"period {period!r} refers to a level, not to a calendar date")
    year, month = divmod(end.year * 12 + end.month - 1 - _MONTHS[period], 12)
    return date(year, month + 1, min(end.day, calendar.monthrange(year, month + 1)[1]))


def composite_returns(
    returns: npt.ArrayLike, members: npt.ArrayLike | None = None, weights: npt.ArrayLike | None = None
) -> FloatArray:
    """Compute the return of a composite per session: the mean of its members, rebalanced every session.

    Parameters
    ----------
    returns
        Simple returns, sessions x securities, NaN where undefined.
    members
        True where the security belongs to the composite on that session, the same shape; by default always.
    weights
        Weights known before the session (capitalisation at the previous close), the same shape; by default
        equal. They are scaled to 1 over the members that have a return. A member whose weight is missing, or
        is not positive, takes no part.

    Returns
    -------
    numpy.ndarray
        One return per session, decimal fraction. NaN where fewer than two members have a return, unless the
        composite has only one member on that session.

    Raises
    ------
    ValueError
        If `returns` is not two-dimensional or the shapes differ.
    """
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"returns must be sessions x securities, got shape {table.shape}")
    belongs = np.ones(table.shape, dtype=np.bool_) if members is None else np.asarray(members, dtype=np.bool_)
    weight = np.ones(table.shape) if weights is None else np.asarray(weights, dtype=np.float64)
    if belongs.shape != table.shape or weight.shape != table.shape:
        raise ValueError("returns, members and weights must have the same shape")
    counts = belongs & np.isfinite(table) & np.isfinite(weight) & (weight > 0)
    weight = np.where(counts, weight, 0.0)
    total = weight.sum(axis=1)
    n_counting, n_members = counts.sum(axis=1), belongs.sum(axis=1)
    defined = (n_counting >= 2) | ((n_counting == 1) & (n_members == 1))
    result = np.full(table.shape[0], np.nan)
    weighted = (weight * np.where(counts, table, 0.0)).sum(axis=1)
    result[defined] = weighted[defined] / total[defined]
    return result


def levels_from_returns(returns: npt.ArrayLike) -> FloatArray:
    """Compound simple returns to levels that start at 1.0 on the session before the first return.

    Parameters
    ----------
    returns
        Simple returns in the order of sessions, NaN where undefined.

    Returns
    -------
    numpy.ndarray
        One element more than `returns`. From the first undefined return on there is no level (NaN): what the
        composite gained on that session is unknown, and so is everything that builds on it. What follows a gap is
        a chain of its own, as it is in the marts: pass its returns alone. A return of -1 leaves the level at zero
        for good.

    Raises
    ------
    ValueError
        If `returns` is not one-dimensional or holds a return below -1.
    """
    values = np.asarray(returns, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"returns must be one-dimensional, got shape {values.shape}")
    if (values < -1).any():
        raise ValueError("a simple return cannot be below -1")
    known = np.where(np.isfinite(values), values, np.nan)
    return np.concatenate(([1.0], np.multiply.accumulate(1.0 + known)))


def _require_period(period: str) -> None:
    if period not in PERIODS:
        raise ValueError(f"period must be one of {', '.join(PERIODS)}, got {period!r}")


def _read_levels(levels: Levels) -> tuple[DayArray, FloatArray]:
    dates: Any
    values: Any
    if isinstance(levels, Mapping):
        dates, values = list(levels.keys()), list(levels.values())
    elif isinstance(levels, tuple) and len(levels) == 2:
        dates, values = levels
    elif (index := getattr(levels, "index", None)) is not None and not callable(index):
        dates, values = index, levels
    else:
        raise TypeError(
            "levels must carry dates: a pandas Series indexed by date, a mapping from date to level, "
            "or a pair (dates, levels)"
        )
    day_array, value_array = _as_days(dates), np.asarray(values, dtype=np.float64)
    if day_array.shape != value_array.shape or value_array.ndim != 1:
        raise ValueError(f"dates {day_array.shape} and levels {value_array.shape} differ in shape")
    if (day_array[1:] <= day_array[:-1]).any():
        raise ValueError("dates of the levels must ascend")
    present = (value_array >= 0) & (value_array < np.inf)
    return day_array[present], value_array[present]


def _as_day(day: Any) -> np.datetime64:
    if isinstance(day, datetime):
        day = day.date()  # the calendar date as written, whatever its time zone
    result = np.datetime64(day, "D")
    if np.isnat(result):
        raise ValueError(f"{day!r} is not a date")
    return result


def _as_days(dates: Any) -> DayArray:
    array = np.asarray(dates)
    if array.dtype.kind == "M":
        days: DayArray = array.astype("datetime64[D]")
        if np.isnat(days).any():
            raise ValueError("dates of the levels must not be missing")
        return days
    if array.size and array.dtype.kind in "iufb":
        raise TypeError(f"levels must be indexed by date, got {array.dtype}")
    return np.array([_as_day(day) for day in array.tolist()], dtype="datetime64[D]")
