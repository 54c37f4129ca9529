"""Checked conversion of what callers give into arrays the market maths can trust.

Belongs here: type names, conversions and index helpers shared by `indicators`, `adjustments` and `panel`.
Does not belong here: any financial rule beyond "what counts as an observed price or volume".

A *panel* is the rows of many tickers end to end; ``offsets`` (length ``n_tickers + 1``) bound the rows of
each.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

from finance_assets.arrays import as_floats

FloatArray = npt.NDArray[np.float64]
IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]
RowArray = npt.NDArray[np.intp]
SessionArray = npt.NDArray[np.integer[Any]]


def is_price(values: FloatArray) -> BoolArray:
    """Tell which values are observed prices: finite and above zero."""
    return (values > 0) & (values < np.inf)


def is_volume(values: FloatArray) -> BoolArray:
    """Tell which values are observed volumes: finite and not negative; zero is an observation."""
    return (values >= 0) & (values < np.inf)


def as_rows(name: str, values: npt.ArrayLike, offsets: IntArray) -> FloatArray:
    """Convert as `as_floats` does and require one element per row of the panel."""
    array = as_floats(name, values)
    if array.size != offsets[-1]:
        raise ValueError(f"{name} has {array.size} rows, but offsets end at {offsets[-1]}")
    return array


def as_offsets(offsets: npt.ArrayLike) -> IntArray:
    """Convert the bounds of the tickers to int64; they begin at 0 and never descend."""
    array = np.asarray(offsets)
    if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu":
        raise ValueError("offsets must be a one-dimensional array of integers of length n_tickers + 1")
    array = array.astype(np.int64)
    if array[0] != 0 or (array[1:] < array[:-1]).any():
        raise ValueError("offsets must start at 0 and never descend")
    return array


def as_sessions(name: str, sessions: npt.ArrayLike, offsets: IntArray) -> SessionArray:
    """Convert session ordinals or day numbers to integers that ascend within each ticker."""
    array = np.asarray(sessions)
    if array.shape != (offsets[-1],) or array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold {offsets[-1]} integers, got {array.dtype} of shape {array.shape}")
    # Differences of an unsigned or a narrow type would wrap around.
    if array.dtype not in (np.dtype(np.int32), np.dtype(np.int64)):
        array = array.astype(np.int64)
    not_after = array[1:] <= array[:-1]
    starts = offsets[(offsets > 0) & (offsets < array.size)]
    not_after[starts - 1] = False
    if not_after.any():
        row = int(np.argmax(not_after)) + 1
        raise ValueError(f"{name} must ascend within each ticker; row {row} is not after row {row - 1}")
    return array


def first_rows(offsets: IntArray, count: int) -> RowArray:
    """Give the positions of the first `count` rows of every ticker (fewer where a ticker is shorter)."""
    lengths = np.minimum(offsets[1:] - offsets[:-1], count)
    ends = np.cumsum(lengths)
    rows: RowArray = np.repeat(offsets[:-1] - (ends - lengths), lengths)
    rows += np.arange(rows.size)
    return rows
