"""Parts of a Parquet file, joined: the same bytes as one writer makes."""

from __future__ import annotations

import io
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.storage.parquet_parts import PartsError, join_parts

OPTIONS: dict[str, Any] = {"store_schema": False, "coerce_timestamps": "us"}


def one_writer(tables: list[pa.Table], **options: Any) -> bytes:
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, tables[0].schema, **OPTIONS | options) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=1 << 20)
    return sink.getvalue()


def joined(tables: list[pa.Table], **options: Any) -> bytes:
    parts = []
    for table in tables:
        part = io.BytesIO()
        pq.write_table(table, part, row_group_size=1 << 20, **OPTIONS | options)
        parts.append(memoryview(part.getvalue()))
    sink = io.BytesIO()
    assert join_parts(iter(parts), sink) == sum(table.num_rows for table in tables)
    return sink.getvalue()


def wide(rows: int, first: int = 0) -> pa.Table:
    """Return rows of every type that tables have, with nulls, and more columns than fit into one byte's count."""
    numbers = range(first, first + rows)
    return pa.table(
        {
            "text": pa.array([f"t{n % 7}" if n % 5 else None for n in numbers], pa.string()),
            "day": pa.array([date.fromordinal(730_000 + n) for n in numbers], pa.date32()),
            "time": pa.array([datetime(2024, 1, 1, tzinfo=UTC)] * rows, pa.timestamp("us", tz="UTC")),
            "money": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(28, 8)),
            "price": pa.array([Decimal(n) / 100 for n in numbers], pa.decimal128(18, 8)),
            "flag": pa.array([n % 3 == 0 for n in numbers], pa.bool_()),
            "nothing": pa.nulls(rows, pa.float64()),
            **{f"f{place}": pa.array([n / 3 for n in numbers], pa.float64()) for place in range(20)},
        }
    )


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"compression": "zstd", "compression_level": 1},
        {"use_dictionary": False, "write_statistics": False},
        {"use_dictionary": ["text"], "store_decimal_as_integer": True},
        {"write_page_index": True},
        {"data_page_size": 256, "data_page_version": "2.0"},
    ],
)
def test_joined_parts_are_the_file_of_one_writer(options: dict[str, Any]) -> None:
    tables = [wide(300), wide(17, 300), wide(1, 317), wide(500, 318)]
    whole = joined(tables, **options)
    if "write_page_index" in options:
        # One writer puts the indexes of all row groups at the end; the parts keep theirs, at places that are right.
        assert pq.ParquetFile(io.BytesIO(whole)).read().equals(pa.concat_tables(tables))
    else:
        assert whole == one_writer(tables, **options)
    read = pq.ParquetFile(io.BytesIO(whole))
    assert read.read().equals(pa.concat_tables(tables))
    assert [read.metadata.row_group(n).num_rows for n in range(4)] == [300, 17, 1, 500]
    for place, table in enumerate(tables):
        assert read.read_row_group(place).equals(table)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.one_of(st.none(), st.text(max_size=20)), min_size=1, max_size=40), min_size=1, max_size=20))
def test_any_text_in_any_number_of_parts(parts: list[list[str | None]]) -> None:
    tables = [pa.table({"text": pa.array(part, pa.string())}) for part in parts]
    assert joined(tables) == one_writer(tables)


def test_one_part_stays_as_it_is() -> None:
    assert joined([wide(20)]) == one_writer([wide(20)])
    assert joined([wide(0)]) == one_writer([wide(0)])


def test_what_is_no_part_is_refused() -> None:
    part = io.BytesIO()
    pq.write_table(wide(5), part, **OPTIONS)
    good = memoryview(part.getvalue())
    other = io.BytesIO()
    pq.write_table(pa.table({"another": [1]}), other, **OPTIONS)
    for parts, message in (
        ([], "there is no part"),
        ([memoryview(b"PAR1")], "no Parquet file"),
        ([good, memoryview(b"x" * 40)], "no Parquet file"),
        ([memoryview(b"PAR1" + b"\xff\xff\xff\x7f" + b"PAR1")], "no whole footer"),
        ([good, memoryview(other.getvalue())], "another schema"),
    ):
        with pytest.raises(PartsError, match=message):
            join_parts(parts, io.BytesIO())
