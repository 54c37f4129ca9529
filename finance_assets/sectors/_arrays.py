"""Arrays of returns that the sector maths can trust, and values that come with a status.

What belongs here: conversions, windows and the pair of value and status that the modules beside this one share. No
financial rule beyond "what counts as an observed return" and "what counts as no variation".
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from finance_assets.arrays import as_floats
from finance_assets.contracts.status import Status

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
CodeArray = npt.NDArray[np.int8]

#: Sessions of a year, for annualising.
SESSIONS_PER_YEAR = 252
#: A deviation below this share of the mean's size (or of 1) is rounding, not variation.
NO_VARIATION = 1e-12


class Measured(NamedTuple):
    """Values of one measure and why they are undefined.

    Attributes
    ----------
    value
        NaN where undefined.
    status
        Codes of :class:`~finance_assets.contracts.status.Status`, of the same shape.
    """

    value: FloatArray
    status: CodeArray


def measured(value: npt.ArrayLike, *undefined: tuple[npt.ArrayLike, Status]) -> Measured:
    """Return values with their statuses: the first condition that holds decides.

    A value that is not finite although no condition holds is ``outside_domain``: nothing infinite is ever told.
    """
    values = np.array(value, dtype=np.float64)
    codes = np.where(np.isfinite(values), Status.OK.code, Status.OUTSIDE_DOMAIN.code).astype(np.int8)
    for condition, status in reversed(undefined):
        codes[np.broadcast_to(np.asarray(condition, dtype=np.bool_), codes.shape)] = status.code
    values[codes != Status.OK.code] = np.nan
    return Measured(values, codes)


def only(result: Measured) -> float | None:
    """Return the one value of a measure, None where it is undefined."""
    value = float(result.value.ravel()[0])
    return None if np.isnan(value) else value


def as_series(name: str, values: npt.ArrayLike) -> FloatArray:
    """Convert to one-dimensional float64; what is not finite is NaN, and so are None, NA and masked elements.

    Raises
    ------
    ValueError
        Not one-dimensional numbers.
    """
    array = as_floats(name, values)
    return np.where(np.isfinite(array), array, np.nan)


def as_returns(name: str, values: npt.ArrayLike) -> FloatArray:
    """Convert to simple returns as :func:`as_series` does.

    Raises
    ------
    ValueError
        Not one-dimensional numbers, or a return below -1: more than everything cannot be lost.
    """
    array = as_series(name, values)
    if (array < -1).any():
        place = int(np.argmax(array < -1))
        raise ValueError(f"{name} holds {array[place]} at position {place}; a simple return cannot be below -1")
    return array


def observed(name: str, values: npt.ArrayLike) -> FloatArray:
    """Return the observed returns as one row of a matrix, in order; missing ones are left out."""
    array = as_returns(name, values)
    return np.ascontiguousarray(array[~np.isnan(array)][None, :])


def observed_pairs(
    first_name: str, first: npt.ArrayLike, second_name: str, second: npt.ArrayLike
) -> tuple[FloatArray, FloatArray]:
    """Return the positions where both series have a return, each as one row of a matrix.

    Raises
    ------
    ValueError
        The series differ in length.
    """
    a, b, both = aligned(first_name, as_returns(first_name, first), second_name, as_returns(second_name, second))
    return np.ascontiguousarray(a[both][None, :]), np.ascontiguousarray(b[both][None, :])


def aligned(
    first_name: str, first: FloatArray, second_name: str, second: FloatArray
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return two series, and where both have a value.

    Raises
    ------
    ValueError
        The series differ in length.
    """
    if first.size != second.size:
        raise ValueError(
            f"{first_name} has {first.size} values and {second_name} {second.size}; give both on the same sessions"
        )
    return first, second, ~np.isnan(first) & ~np.isnan(second)


def windows(values: FloatArray, length: int) -> FloatArray:
    """Return every full window of a series as the row of a matrix; no row where the series is shorter.

    The rows are copies, so that a sum over one adds in the same order wherever in the series it lies: a row computed
    alone is bit by bit the row computed among thousands.
    """
    if values.size < length:
        return np.empty((0, length))
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(values, length))


def mean_and_deviation(rows: FloatArray) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return mean, sample deviation (NaN below two values), and whether there is no variation, of each row."""
    n = rows.shape[1]
    if n == 0:
        nothing = np.full(rows.shape[0], np.nan)
        return nothing, nothing.copy(), np.zeros(rows.shape[0], dtype=np.bool_)
    mean = rows.mean(axis=1)
    if n < 2:
        return mean, np.full(mean.shape, np.nan), np.zeros(mean.shape, dtype=np.bool_)
    deviation = np.sqrt(((rows - mean[:, None]) ** 2).sum(axis=1) / (n - 1))
    return mean, deviation, deviation <= NO_VARIATION * np.maximum(1.0, np.abs(mean))
