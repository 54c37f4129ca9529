"""Large Arrow columns as NumPy wants them: in one piece, text as numbers, several at a time.

What belongs here: what the reader of files and the maths both do to columns, whatever is in them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def one_array(array: Any) -> Any:
    """Return one contiguous array of what may come in pieces."""
    if isinstance(array, pa.ChunkedArray):
        # One piece is not copied.
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def side_by_side(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Return what a function gives for each item, computed in threads: Arrow and NumPy use all cores so.

    Parameters
    ----------
    function
        Called once for each item.
    items
        Few large ones.

    Returns
    -------
    list
        In the order of the items.
    """
    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        return list(pool.map(function, items))


def encoded(column: Any) -> Any:
    """Return text as one contiguous dictionary array; what is one already is not encoded again."""
    if isinstance(column, pa.ChunkedArray) and pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    array = one_array(column)
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def text_ranks(column: Any) -> Any:
    """Return the place of each row's text among the sorted texts of a dictionary array without nulls."""
    order = pc.sort_indices(column.dictionary).to_numpy()
    ranks = np.empty(len(order), np.int64)
    ranks[order] = np.arange(len(order))
    return ranks[column.indices.to_numpy(zero_copy_only=False)]
