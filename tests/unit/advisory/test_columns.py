"""Columns in one piece, in blocks and as numbers."""

from __future__ import annotations

import threading
from decimal import Context, Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finance_assets.advisory import columns
from finance_assets.advisory.columns import (
    by_blocks,
    combine_chunks,
    decimals_of,
    encoded,
    integers_of,
    keep_freed_memory,
    large_decimals,
    one_of_many,
    taken,
    text_ranks,
    thread_map,
)


@pytest.mark.parametrize("size", [0, 1, 6, 7, 8, 20, 21])
def test_blocks_give_what_the_whole_gives(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 7)
    one, other = np.arange(size, dtype=float), np.arange(size)[::-1]

    def work(a: Any, b: Any) -> tuple[Any, Any]:
        assert len(a) <= 7
        return a / b, a > b

    share, more = by_blocks(work, one, other)
    with np.errstate(all="ignore"):
        np.testing.assert_array_equal(share, one / other)
    np.testing.assert_array_equal(more, one > other)
    assert (share.dtype, more.dtype) == (np.float64, np.bool_)


def test_an_error_in_a_block_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_BLOCK", 2)

    def work(a: Any) -> tuple[Any]:
        if a[0] >= 4:
            raise ArithmeticError("in the third block")
        return (a,)

    with pytest.raises(ArithmeticError, match="third"):
        by_blocks(work, np.arange(9))


def test_text_is_encoded_once_and_ranked() -> None:
    pieces = pa.chunked_array([pa.array(["b", "a"]).dictionary_encode(), pa.array(["c", "b"]).dictionary_encode()])
    for column in (pieces, pieces.cast(pa.string()), pa.array(["b", "a", "c", "b"])):
        made = encoded(column)
        assert made.to_pylist() == ["b", "a", "c", "b"]
        assert text_ranks(made).tolist() == [1, 0, 2, 1]
    array = pa.array(["x", "y"]).dictionary_encode()
    assert encoded(array) is array
    assert combine_chunks(pa.chunked_array([], pa.int64())).equals(pa.array([], pa.int64()))


MONEY = pa.decimal128(28, 8)


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), max_size=50), st.integers(0, 10))
def test_integers_are_decimals_and_back(numbers: list[int | None], skip: int) -> None:
    values = [None if n is None else Decimal(n).scaleb(-8) for n in numbers]
    array = pa.array(values, MONEY).slice(skip)
    integers = integers_of(array)
    assert integers is not None
    known = [value is not None for value in values[skip:]]
    assert [n for n, k in zip(integers.tolist(), known, strict=True) if k] == [
        n for n in numbers[skip:] if n is not None
    ]
    assert decimals_of(integers, MONEY, np.array(known, bool)).equals(array)
    wide = np.array([0 if n is None else n for n in numbers[skip:]], object)
    assert large_decimals(wide, MONEY, np.array(known, bool)).equals(array)


@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**28 - 1])
def test_what_does_not_fit_into_64_bits_is_said(number: int) -> None:
    value = Decimal(number).scaleb(-8, Context(prec=60))
    array = pa.array([Decimal(1), value], MONEY)
    assert integers_of(array) is None
    assert integers_of(array.slice(0, 1)).tolist() == [10**8]
    # What stands for a null is nobody's value.
    mask = pa.array([True, False])
    assert integers_of(pa.array([Decimal(1), None], MONEY)).tolist()[0] == 10**8
    assert integers_of(pc.if_else(mask, array, None)).tolist()[0] == 10**8
    assert large_decimals(np.array([number], object), MONEY, np.array([True])).to_pylist() == [value]
    assert integers_of(pa.array([1], pa.decimal256(50, 8))) is None


def test_rows_are_taken_by_place_and_runs_are_not_copied() -> None:
    table = pa.table({"n": list(range(10))})
    run = taken(table, np.arange(3, 7))
    assert run["n"].to_pylist() == [3, 4, 5, 6]
    assert run["n"].chunk(0).buffers()[1].address == table["n"].chunk(0).buffers()[1].address
    for places in ([6, 5, 4, 3], [0, 2, 1, 3], [2, 2, 3], []):
        assert taken(table, np.array(places, np.int64))["n"].to_pylist() == places


def test_work_within_work_is_done_by_its_own_thread() -> None:
    def inner(_: int) -> str:
        return threading.current_thread().name

    def outer(_: int) -> bool:
        return set(thread_map(inner, range(3))) == {threading.current_thread().name}

    assert all(thread_map(outer, range(4)))
    assert threading.current_thread().name not in thread_map(inner, range(3))
    with one_of_many():
        assert set(thread_map(inner, range(3))) == {threading.current_thread().name}
    assert threading.current_thread().name not in thread_map(inner, range(3))


def test_keeping_memory_changes_no_result() -> None:
    keep_freed_memory()
    assert np.ones(1 << 20).sum() == 1 << 20
