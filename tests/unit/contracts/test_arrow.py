"""Tables are brought to their contract without changing a value: what does not fit is an error that names it."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.rows import good_row, good_table, table_of
from hypothesis import given
from hypothesis import strategies as st

from finance_assets.contracts.arrow import conform, empty_table, fit, is_strictly_sorted, storage_schema
from finance_assets.contracts.arrow_types import ARROW_TYPES
from finance_assets.contracts.market import QUOTES
from finance_assets.contracts.model import ContractError

PRICE = ARROW_TYPES["price"]
NOON = datetime(2013, 1, 2, 12, tzinfo=UTC)


def fitted(values: Any, kind: str, type_: pa.DataType | None = None) -> list[Any]:
    column = pa.chunked_array([values if isinstance(values, pa.Array) else pa.array(values, type_)])
    made = fit(column, ARROW_TYPES[kind], "core/quotes.close")
    assert made.type == ARROW_TYPES[kind]
    return list(made.to_pylist())


@pytest.mark.parametrize(
    ("values", "type_", "kind", "expected"),
    [
        ([0.1, 1234567890.12, 1e-8, None], None, "price", ["0.1", "1234567890.12", "0.00000001", None]),
        ([0.1], pa.float32(), "price", ["0.1"]),
        ([5, -7], pa.int64(), "price", ["5", "-7"]),
        ([9_999_999_999], pa.uint64(), "price", ["9999999999"]),
        ([Decimal("1.5")], pa.decimal128(4, 1), "price", ["1.5"]),
        ([Decimal("1.50000000000")], pa.decimal128(38, 11), "price", ["1.5"]),
        ([None, None], pa.null(), "price", [None, None]),
        ([2.0, None], None, "int64", [2, None]),
        ([Decimal(3)], pa.decimal128(38, 0), "int32", [3]),
        ([2**53], None, "float64", [2.0**53]),
        ([Decimal("0.25")], None, "float64", [0.25]),
        ([Decimal("0.1")], pa.decimal128(18, 8), "float64", [0.1]),
        (["a", None], pa.large_string(), "string", ["a", None]),
        (["a"], pa.string_view(), "string", ["a"]),
        ([datetime(2013, 1, 2)], pa.timestamp("ns"), "date", [date(2013, 1, 2)]),
        ([date(2013, 1, 2)], pa.date64(), "date", [date(2013, 1, 2)]),
        ([NOON], pa.timestamp("ms", "America/New_York"), "timestamp", [NOON]),
        ([], pa.float64(), "price", []),
    ],
)
def test_a_value_that_fits_is_the_same_value(
    values: list[Any], type_: pa.DataType | None, kind: str, expected: list[Any]
) -> None:
    exact = [None if value is None else Decimal(value) for value in expected] if kind == "price" else expected
    assert fitted(values, kind, type_) == exact


def test_a_dictionary_is_spelt_out() -> None:
    assert fitted(pa.array(["a", "b", "a"]).dictionary_encode(), "string") == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("values", "type_", "kind", "complaint"),
    [
        ([1.0, 1 / 3], None, "price", "0.3333333333333333 in row 1 does not fit decimal128(18, 8) without loss"),
        ([float("nan")], None, "price", "nan in row 0"),
        ([float("inf")], None, "price", "inf in row 0"),
        ([1.0, 2.0, 1e10], None, "price", "10000000000.0 in row 2"),
        ([Decimal("0.000000001")], None, "price", "in row 0"),
        ([10**10], None, "price", "10000000000 in row 0"),
        ([1, 2, 2**40], None, "int32", "1099511627776 in row 2"),
        ([1.5], None, "int64", "1.5 in row 0"),
        ([float("nan")], None, "int64", "nan in row 0"),
        ([2**53 + 1], None, "float64", "9007199254740993 in row 0"),
        ([Decimal("0.12345678901234567890")], None, "float64", "in row 0"),
        ([datetime(2013, 1, 2, 5)], None, "date", "datetime.datetime(2013, 1, 2, 5, 0) in row 0"),
        (pa.array([1], pa.timestamp("ns", "UTC")), None, "timestamp", "in row 0"),
        ([datetime(2013, 1, 2)], None, "timestamp", "does not become timestamp[us, tz=UTC]; say in which time zone"),
        ([NOON], None, "date", "does not become date32[day]; say the date in the zone that is meant"),
        (["1.5"], None, "price", "string does not become decimal128(18, 8)"),
        (["2013-01-02"], None, "date", "string does not become date32[day]"),
        ([20_000], pa.int32(), "date", "int32 does not become date32[day]"),
        ([5], None, "string", "int64 does not become string"),
        ([b"\xff"], None, "string", "binary does not become string"),
        ([1], None, "bool", "int64 does not become bool"),
        ([True], None, "int32", "bool does not become int32"),
        ([[1]], None, "int32", "list<item: int64> does not become int32"),
    ],
)
def test_a_value_that_does_not_fit_is_named_with_its_column_and_row(
    values: Any, type_: pa.DataType | None, kind: str, complaint: str
) -> None:
    with pytest.raises(ContractError) as caught:
        fitted(values, kind, type_)
    assert str(caught.value).startswith("core/quotes.close: ")
    assert complaint in str(caught.value)


@given(st.decimals(Decimal("-9999999999"), Decimal("9999999999"), places=8))
def test_a_price_survives_as_the_float_that_names_it_or_is_refused(price: Decimal) -> None:
    number = float(price)
    if Decimal(repr(number)) == price:
        assert fitted([number], "price") == [price]
    else:
        # More than a float can hold: whatever comes of it, it is not another price without a word.
        with contextlib.suppress(ContractError):
            assert fitted([number], "price") == [Decimal(repr(number))]


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=20))
def test_no_float_is_rounded_into_a_price(numbers: list[float]) -> None:
    try:
        made = fitted(numbers, "price", pa.float64())
    except ContractError:
        assert any(
            number != number or abs(number) >= 1e10 or -Decimal(repr(number)).normalize().as_tuple().exponent > 8  # type: ignore[operator]
            for number in numbers
        )
    else:
        assert made == [Decimal(repr(number)) for number in numbers]


def test_columns_are_put_in_order_and_stripped_of_metadata() -> None:
    table = good_table(QUOTES, 3)
    mixed = table.select(sorted(QUOTES.column_names)).replace_schema_metadata({"pandas": "{}"})
    assert conform(QUOTES, mixed).equals(table)
    assert conform(QUOTES, mixed).schema.metadata is None


def test_missing_unknown_and_double_columns_are_all_named() -> None:
    table = good_table(QUOTES).drop_columns(["close", "volume"])
    table = table.append_column("colour", pa.array(["red"])).append_column("open", table.column("open"))
    with pytest.raises(ContractError) as caught:
        conform(QUOTES, table)
    assert str(caught.value) == (
        "core/quotes: missing columns: close, volume; columns without a contract: colour; "
        "columns that are there twice: open"
    )


def test_a_column_that_does_not_fit_is_named_with_its_table() -> None:
    table = good_table(QUOTES)
    place = table.column_names.index("close")
    with pytest.raises(ContractError, match=r"core/quotes\.close: 0\.3333333333333333 in row 0"):
        conform(QUOTES, table.set_column(place, "close", pa.array([1 / 3])))


def test_a_frame_of_pandas_becomes_the_contract() -> None:
    frame = good_table(QUOTES, 2).to_pandas()
    frame["close"] = [10.25, 10.5]
    frame["session_date"] = pd.to_datetime(frame["session_date"])
    frame["volume"] = [5.0, np.nan]
    made = conform(QUOTES, pa.Table.from_pandas(frame, preserve_index=False))
    assert made.schema.equals(storage_schema(QUOTES))
    assert made.column("close").to_pylist() == [Decimal("10.25"), Decimal("10.5")]
    assert made.column("volume").to_pylist() == [5, None]


def shuffled(table: pa.Table, seed: int) -> pa.Table:
    """The rows in another order, in chunks of another size."""
    taken = table.take(pa.array(np.random.default_rng(seed).permutation(table.num_rows)))
    return pa.Table.from_batches(taken.to_batches(max_chunksize=3), schema=taken.schema)


def test_rows_come_sorted_whatever_order_they_had() -> None:
    table = good_table(QUOTES, 50)
    for seed in range(3):
        made = conform(QUOTES, shuffled(table, seed))
        assert made.equals(table)
        assert is_strictly_sorted(made, QUOTES.key)


def test_rows_that_share_a_key_have_one_order_too() -> None:
    rows = [good_row(QUOTES, volume=volume) for volume in (3, 1, None, 2)]
    first = conform(QUOTES, table_of(QUOTES, *rows))
    assert first.column("volume").to_pylist() == [1, 2, 3, None]
    assert conform(QUOTES, table_of(QUOTES, *reversed(rows))).equals(first)


def test_an_order_of_ones_own_is_completed_by_the_key() -> None:
    table = good_table(QUOTES, 20)
    made = conform(QUOTES, shuffled(table, 1), order=("session_date",))
    assert made.column("symbol").to_pylist() == sorted(table.column("symbol").to_pylist())
    coarse = replace(QUOTES, sort_by=("currency",))
    assert conform(coarse, shuffled(table, 2)).equals(table)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], True),
        (["a"], True),
        ([None], False),
        (["a", "b"], True),
        (["b", "a"], False),
        (["a", "a"], False),
        (["a", None], False),
        (["a", None, "c"], False),
    ],
)
def test_strictly_sorted_means_ascending_without_nulls_and_doubles(values: list[str | None], expected: bool) -> None:
    assert is_strictly_sorted(pa.table({"x": pa.array(values, pa.string())}), ["x"]) is expected


def test_a_later_column_decides_among_equals() -> None:
    table = pa.table({"x": [1, 1, 2], "y": [1, 2, 0]})
    assert is_strictly_sorted(table, ["x", "y"])
    assert not is_strictly_sorted(table, ["y", "x"])
    assert not is_strictly_sorted(pa.table({"x": [1, 1, 2], "y": [2, 2, 0]}), ["x", "y"])


def test_an_empty_table_has_the_types_of_the_contract() -> None:
    assert empty_table(QUOTES).schema.equals(storage_schema(QUOTES))
    assert conform(QUOTES, empty_table(QUOTES)).num_rows == 0
    nothing = pa.table({name: pa.nulls(0) for name in QUOTES.column_names})
    assert conform(QUOTES, nothing).schema.equals(storage_schema(QUOTES))
