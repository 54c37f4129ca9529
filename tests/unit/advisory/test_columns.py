"""Columns in one piece, in blocks and as numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from finance_assets.advisory import columns
from finance_assets.advisory.columns import by_blocks, encoded, one_array, text_ranks


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
    assert one_array(pa.chunked_array([], pa.int64())).equals(pa.array([], pa.int64()))
