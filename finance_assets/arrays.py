"""What the maths of several domains share: arrays that can be trusted, and what was known at a time.

What belongs here: conversions of what callers give, and rules over arrays that more than one domain follows. No
financial rule, no table, no storage, no Dagster.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def as_floats(name: str, values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Convert to a contiguous one-dimensional float64 array; None, NA and masked elements become NaN.

    Raises
    ------
    ValueError
        Not one-dimensional numbers; the message begins with ``name``.
    """
    import numpy as np

    if isinstance(values, np.ma.MaskedArray):
        # np.asarray would drop the mask and let the masked numbers through.
        values = np.ma.filled(values.astype(np.float64), np.nan)
    try:
        array = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a one-dimensional sequence of numbers: {error}") from error
    if array.ndim != 1:
        raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
    return np.ascontiguousarray(array)


def known_rows(
    reference: npt.NDArray[np.datetime64], release: npt.NDArray[np.datetime64], as_of: npt.NDArray[np.datetime64]
) -> npt.NDArray[np.intp]:
    """Return which published number of one series was the known one at the end of each date.

    Parameters
    ----------
    reference, release
        One entry per published number: what it is about, and when it was published. A revision is a later release of
        the same reference date.
    as_of
        Ascending dates.

    Returns
    -------
    numpy.ndarray
        Per date the place of the number of the newest reference date published by then, in its newest release by
        then; -1 before the first. A number is never seen before its release.
    """
    import numpy as np

    if reference.size == 0:
        return np.full(as_of.size, -1, dtype=np.intp)
    order = np.lexsort((reference, release))
    about, published = reference[order], release[order]
    # In the order of release, an entry counts where nothing newer was published before it.
    place = np.maximum.accumulate(np.where(about >= np.maximum.accumulate(about), np.arange(about.size), -1))
    at = np.searchsorted(published, as_of, side="right") - 1
    return np.where(at >= 0, order[place[np.maximum(at, 0)]], -1)
