"""Correlation of returns: of a pair, of a table, over moving and growing windows.

Belongs here: Pearson's coefficient on the sessions that both series have. Does not belong here: regressions
(``risk``, ``exposure``), tables, storage, Dagster.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import (
    NO_VARIATION,
    BoolArray,
    FloatArray,
    Measured,
    aligned,
    as_series,
    mean_and_deviation,
    measured,
    only,
    windows,
)

__all__ = [
    "correlation",
    "correlation_matrix",
    "expanding_correlations",
    "rolling_correlations",
]

#: Fewest sessions that both series must have.
LEAST_PAIRS: Final = 30


def correlation(first: npt.ArrayLike, second: npt.ArrayLike) -> float | None:
    """Compute Pearson's correlation on the sessions where both series have a return.

    None with fewer than 30 of them, and where one of the series does not vary on them.
    """
    a, b, _ = _pairs(first, second)
    return only(_correlation(a[None, :], b[None, :], LEAST_PAIRS))


def correlation_matrix(returns: npt.ArrayLike) -> FloatArray:
    """Compute the pairwise complete correlations of a table, sessions x series.

    Returns
    -------
    numpy.ndarray
        Symmetric; NaN where undefined (see :func:`correlation`), and otherwise exactly 1 on the diagonal. Being
        pairwise, it need not be positive semi-definite where sessions are missing.

    Raises
    ------
    ValueError
        `returns` is not two-dimensional.
    """
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2:
        raise ValueError(f"returns must be sessions x series, got shape {table.shape}")
    count = table.shape[1]
    result = np.full((count, count), np.nan)
    for i in range(count):
        for j in range(i, count):
            found = correlation(table[:, i], table[:, j])
            if found is not None:
                result[i, j] = result[j, i] = 1.0 if i == j else found
    return result


def rolling_correlations(first: npt.ArrayLike, second: npt.ArrayLike, window: int = 30) -> Measured:
    """Compute the correlation over the last `window` sessions that both series have, as of each session.

    Returns
    -------
    Measured
        One value and status per session: ``no_data`` where one of the series has no return on the session itself,
        ``insufficient_history`` before the first full window, ``zero_variance``.

    Raises
    ------
    ValueError
        `window` is below 2, or the lengths differ.
    """
    if window < 2:
        raise ValueError(f"window must be at least 2, got {window}")
    a, b, both = _pairs(first, second)
    found = _correlation(windows(a, window), windows(b, window), window)
    return _placed(found, both, window)


def expanding_correlations(first: npt.ArrayLike, second: npt.ArrayLike) -> Measured:
    """Compute the correlation over all sessions so far that both series have, as of each session.

    Statuses are those of :func:`rolling_correlations`; 30 pairs are needed. The running sums are of deviations from the
    means of the first 30, so that they lose no digits, and look at nothing later.
    """
    a, b, both = _pairs(first, second)
    if a.size < LEAST_PAIRS:
        nothing = Measured(np.empty(0), np.empty(0, dtype=np.int8))
        return _placed(nothing, both, LEAST_PAIRS)
    x, y = a - a[:LEAST_PAIRS].mean(), b - b[:LEAST_PAIRS].mean()
    n = np.arange(1, a.size + 1)
    sx, sy = np.add.accumulate(x), np.add.accumulate(y)
    sxx = np.add.accumulate(x * x) - sx * sx / n
    syy = np.add.accumulate(y * y) - sy * sy / n
    sxy = np.add.accumulate(x * y) - sx * sy / n
    still = np.zeros(a.size, dtype=np.bool_)
    for values, sums in ((a, sxx), (b, syy)):
        # Equal values from the first on: running sums would leave a rounding of the variance.
        constant = np.maximum.accumulate(values) == np.minimum.accumulate(values)
        still |= constant | (sums <= (NO_VARIATION * np.maximum(1.0, np.abs(values))) ** 2 * n)
    with np.errstate(divide="ignore", invalid="ignore"):
        value = np.clip(sxy / np.sqrt(sxx * syy), -1.0, 1.0)
    found = measured(value, (still, Status.ZERO_VARIANCE))
    tail = slice(LEAST_PAIRS - 1, None)
    return _placed(Measured(found.value[tail], found.status[tail]), both, LEAST_PAIRS)


def _pairs(first: npt.ArrayLike, second: npt.ArrayLike) -> tuple[FloatArray, FloatArray, BoolArray]:
    a, b, both = aligned("first", as_series("first", first), "second", as_series("second", second))
    return a[both], b[both], both


def _placed(found: Measured, both: BoolArray, window: int) -> Measured:
    """Return values of full windows at the sessions where they end."""
    value = np.full(both.size, np.nan)
    status = np.where(both, Status.INSUFFICIENT_HISTORY.code, Status.NO_DATA.code).astype(np.int8)
    places = np.flatnonzero(both)[window - 1 :]
    value[places], status[places] = found.value, found.status
    return Measured(value, status)


def _correlation(a: FloatArray, b: FloatArray, least: int) -> Measured:
    """Return the correlation of each row of two matrices."""
    n = a.shape[1]
    if n < 2:
        status = Status.NO_DATA if n == 0 else Status.INSUFFICIENT_HISTORY
        return measured(np.full(a.shape[0], np.nan), (True, status))
    a_mean, _, a_still = mean_and_deviation(a)
    b_mean, _, b_still = mean_and_deviation(b)
    da, db = a - a_mean[:, None], b - b_mean[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (da * db).sum(axis=1) / np.sqrt((da * da).sum(axis=1) * (db * db).sum(axis=1))
    return measured(
        np.clip(value, -1.0, 1.0),
        (np.full(a.shape[0], n < least), Status.INSUFFICIENT_HISTORY),
        (a_still | b_still, Status.ZERO_VARIANCE),
    )
