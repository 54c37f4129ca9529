"""Large Arrow columns as NumPy wants them: in one piece, text as numbers, several at a time.

What belongs here: what the reader of files and the maths both do to columns, whatever is in them.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

#: Digits of the largest decimal of Arrow, and more.
_EXACT = Context(prec=100)
#: Elements of a block: a handful of such arrays of floats fits into the cache of a core.
_BLOCK = 1 << 15


def combine_chunks(array: Any) -> Any:
    """Return one contiguous array of what may come in pieces."""
    if isinstance(array, pa.ChunkedArray):
        # One piece is not copied.
        array = array.chunk(0) if array.num_chunks == 1 else array.combine_chunks()
        if isinstance(array, pa.ChunkedArray):
            array = pa.concat_arrays(array.chunks) if array.num_chunks else pa.array([], array.type)
    return array


def taken(table: pa.Table, places: Any) -> pa.Table:
    """Return rows of a table by their places; a run of them is not copied."""
    if len(places) and places[-1] - places[0] == len(places) - 1 and (places[1:] > places[:-1]).all():
        return table.slice(int(places[0]), len(places))
    return table.take(pa.array(places))


def keep_freed_memory() -> None:
    """Let the process keep memory that it frees, for what it asks for next, where the libraries can be told.

    Arrays of NumPy and Arrow come and go by the megabyte. By default each is given back to the system, at once or
    after a second, and the next one is paid for page by page. On other systems than glibc, and with another pool than
    jemalloc, nothing changes.
    """
    if pa.default_memory_pool().backend_name == "jemalloc":
        pa.jemalloc_set_decay_ms(_KEPT_MS)
    if sys.platform != "linux":
        return
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option, value in ((_M_TRIM_THRESHOLD, 1 << 28), (_M_MMAP_THRESHOLD, 1 << 25)):
        mallopt(option, value)


#: How long Arrow keeps what was freed: longer than a step takes to ask for it again.
_KEPT_MS = 10_000


def give_back_freed_memory() -> None:
    """Let Arrow give back soon what is freed, as it does by itself: for a step that needs most of the memory."""
    if pa.default_memory_pool().backend_name == "jemalloc":
        pa.jemalloc_set_decay_ms(1_000)


_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_here = threading.local()


def thread_map(function: Callable[[Any], Any], items: Iterable[Any]) -> list[Any]:
    """Return what a function gives for each item, computed in threads: Arrow and NumPy use all cores so.

    Parameters
    ----------
    function
        Called once for each item. Where it calls this again, that is done by its own thread: all cores have work.
    items
        Few large ones.

    Returns
    -------
    list
        In the order of the items.
    """
    if getattr(_here, "is_one_of_many", False):
        return [function(item) for item in items]
    with ThreadPoolExecutor(os.cpu_count() or 1, initializer=_join_the_others) as pool:
        return list(pool.map(function, items))


def _join_the_others() -> None:
    _here.is_one_of_many = True


@contextmanager
def one_of_many() -> Iterator[None]:
    """Let what is done inside share out no work: others of its kind are under way already."""
    before = getattr(_here, "is_one_of_many", False)
    _here.is_one_of_many = True
    try:
        yield
    finally:
        _here.is_one_of_many = before


def by_blocks(function: Callable[..., tuple[Any, ...]], *arrays: Any) -> tuple[Any, ...]:
    """Return what a function gives for arrays, computed block by block in threads.

    What is in between then stays in the processor's cache, and no array of the size of the whole is made for it.

    Parameters
    ----------
    function
        Takes arrays and returns arrays, of the same length, whose elements depend on the same ones of the given alone.
        Divisions by zero and the like are passed over in silence.
    arrays
        Arrays of NumPy or Arrow, of one length.

    Returns
    -------
    tuple of numpy.ndarray
        Whole arrays, in the order of the function's.
    """
    size = len(arrays[0])

    def block(start: int) -> tuple[Any, ...]:
        with np.errstate(all="ignore"):
            return function(*(array[start : start + _BLOCK] for array in arrays))

    first = block(0)
    if size <= _BLOCK:
        return first
    whole = tuple(np.empty(size, array.dtype) for array in first)

    def keep(start: int, made: tuple[Any, ...]) -> None:
        for array, piece in zip(whole, made, strict=True):
            array[start : start + _BLOCK] = piece

    def part(starts: range) -> None:
        for start in starts:
            keep(start, block(start))

    keep(0, first)
    starts = range(_BLOCK, size, _BLOCK)
    threads = os.cpu_count() or 1
    thread_map(part, [starts[place::threads] for place in range(threads)])
    return whole


def encoded(column: Any) -> Any:
    """Return text as one contiguous dictionary array; what is one already is not encoded again."""
    if isinstance(column, pa.ChunkedArray) and pa.types.is_dictionary(column.type):
        column = column.unify_dictionaries()
    array = combine_chunks(column)
    return array if pa.types.is_dictionary(array.type) else array.dictionary_encode()


def ranks_of(texts: Any) -> Any:
    """Return the place of each of some distinct texts among the sorted ones."""
    order = pc.sort_indices(texts).to_numpy()
    ranks = np.empty(len(order), np.int32)
    ranks[order] = np.arange(len(order), dtype=np.int32)
    return ranks


def text_ranks(column: Any) -> Any:
    """Return the place of each row's text among the sorted texts of a dictionary array without nulls."""
    return ranks_of(column.dictionary).astype(np.int64)[column.indices.to_numpy(zero_copy_only=False)]


def months_of(days: Any) -> Any:
    """Return the months of days since 1970, counted from 1970."""
    return days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)


def first_days_of(months: Any) -> Any:
    """Return the first days of months counted from 1970, in days since 1970."""
    return months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)


def integers_of(decimals: Any) -> Any | None:
    """Return the unscaled integers of an array of decimals where 64 bits hold all of them, else nothing.

    Parameters
    ----------
    decimals
        One contiguous array of decimals of 128 bits.

    Returns
    -------
    numpy.ndarray or None
        A copy; what stands for a null is any number.
    """
    if decimals.type.bit_width != 128:
        return None
    words = np.frombuffer(decimals.buffers()[1], np.int64)[2 * decimals.offset : 2 * (decimals.offset + len(decimals))]
    low, high = words[::2].copy(), words[1::2]
    misfits = high != low >> 63
    if misfits.any():
        if not decimals.null_count or (misfits & pc.is_valid(decimals).to_numpy(zero_copy_only=False)).any():
            return None
        low[misfits] = 0
    return low


def decimals_of(integers: Any, kind: Any, validity: Any | None = None) -> Any:
    """Return unscaled integers of 64 bits as decimals; the reverse of `integers_of`.

    Parameters
    ----------
    integers
        Array of integers.
    kind
        The Arrow type, of 128 bits.
    validity
        Where there is a value, as booleans; everywhere if not given.

    Returns
    -------
    pyarrow.Decimal128Array
        As many decimals.
    """
    words = np.empty((len(integers), 2), np.int64)
    words[:, 0] = integers
    np.right_shift(integers, 63, out=words[:, 1])
    bits = None if validity is None else pa.array(validity, pa.bool_()).buffers()[1]
    return pa.Array.from_buffers(kind, len(integers), [bits, pa.py_buffer(words)])


def large_decimals(integers: Any, kind: Any, validity: Any) -> Any:
    """Return unscaled integers of any size as decimals, null where there is no value.

    Parameters
    ----------
    integers
        Array of Python's integers.
    kind
        The Arrow type.
    validity
        Where there is a value, as booleans.

    Returns
    -------
    pyarrow.Decimal128Array
        As many decimals.
    """
    found = zip(integers.tolist(), validity.tolist(), strict=True)
    return pa.array([_EXACT.scaleb(Decimal(number), -kind.scale) if known else None for number, known in found], kind)
