"""Encoding tables as Parquet files. The same rows always give the same bytes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from finance_assets.contracts.model import Contract
from finance_assets.storage.lake.model import NotSortedError
from finance_assets.storage.parquet_parts import join_parts

if TYPE_CHECKING:
    import pyarrow as pa

#: Rows of one row group; a session's file has one, a large table several, so that scans can prune.
ROW_GROUP_ROWS = 131_072
#: A file with fewer rows is written without dictionaries: as small, and faster to read and write.
SMALL_FILE_ROWS = 1_000
#: Dictionaries of more bytes are not written: Parquet would give up the dictionary in the middle of the column.
DICTIONARY_BYTES = 1 << 19
#: Parts of a large file that are encoded at a time.
ENCODERS = 2

T = TypeVar("T")
U = TypeVar("U")


def parquet_bytes(table: pa.Table, *, is_small: bool | None = None) -> memoryview:
    """Return ``table`` as the bytes of a Parquet file; the same rows always give the same bytes."""
    import pyarrow as pa

    # No encoding is larger than this; a buffer of fixed size is not copied while it grows.
    buffer = pa.allocate_buffer(int(1.2 * _maximum_plain_size(table)) + (1 << 16))
    sink = pa.FixedSizeBufferWriter(buffer)
    write_parquet(table, sink, is_small=table.num_rows < SMALL_FILE_ROWS if is_small is None else is_small)
    return memoryview(buffer).cast("B")[: sink.tell()]


def _maximum_plain_size(table: pa.Table) -> int:
    """Return an upper bound of the bytes of a table whose text is written without dictionaries."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size: int = table.nbytes + 2048 * table.num_columns
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            longest = max(
                (pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0
            )
            size += len(column) * (int(longest) + 4)
    return size


def write_parquet(table: pa.Table, sink: Any, *, is_small: bool) -> None:
    """Write ``table`` to a file or an Arrow sink; a small table gets no dictionaries."""
    import pyarrow.parquet as pq

    encoded = _with_parquet_dictionaries(table.combine_chunks())
    # A dictionary column that became plain text has few repeated values.
    plain = [field.name for field in encoded.schema if field.type != table.schema.field(field.name).type]
    options = _parquet_options(encoded.schema, is_small, plain)
    pq.write_table(encoded, sink, row_group_size=ROW_GROUP_ROWS, **options)


def _parquet_options(schema: pa.Schema, is_small: bool, plain: Sequence[str] = ()) -> dict[str, Any]:
    """Return the options of ``pyarrow.parquet.write_table``; ``plain`` names text columns without a dictionary."""
    import pyarrow as pa

    return {
        # zstd would save a quarter of the space, and take half as long again to write and to read.
        "compression": "snappy",
        # Numbers rarely repeat: a dictionary of them costs more than it saves.
        "use_dictionary": [
            field.name
            for field in schema
            if not is_small
            and field.name not in plain
            and (pa.types.is_string(field.type) or pa.types.is_dictionary(field.type))
        ],
        # Statistics prune scans that filter by names, dates and counts. No query filters by amounts, and comparing
        # decimals of 128 bits takes a quarter of the writing time.
        "write_statistics": [
            field.name for field in schema if not (pa.types.is_decimal(field.type) and field.type.precision > 18)
        ],
        # A row group is read as a whole.
        "max_rows_per_page": ROW_GROUP_ROWS,
        # DECIMAL(18, …) as a plain integer: half the size, and four times as fast to read.
        "store_decimal_as_integer": True,
        "store_schema": False,
        "coerce_timestamps": "us",
    }


def write_sorted_parts(contract: Contract, parts: Iterable[Callable[[], pa.Table]], sink: BinaryIO) -> None:
    """Write sorted parts of a table as one Parquet file, in the contract's types; threads encode the parts.

    Raises
    ------
    NotSortedError
        A row does not come after the one before.
    """
    from finance_assets.contracts.arrow import fitted, is_strictly_sorted, storage_schema

    order = [*contract.order, *(name for name in contract.key if name not in contract.order)]

    def encode_part(part: Callable[[], pa.Table]) -> tuple[pa.Table, memoryview]:
        """Return the first and the last row of a part, and the part as a Parquet file."""
        table = fitted(contract, part(), dictionaries=True).combine_chunks()
        if not is_strictly_sorted(table, order):
            raise NotSortedError(f"{contract.path}: rows to be written without sorting are not sorted by {order}")
        ends = table.take([0, table.num_rows - 1]) if table.num_rows else table
        return ends.select(order), parquet_bytes(table, is_small=False)

    def encode_parts() -> Iterator[memoryview]:
        import pyarrow as pa

        last_row: pa.Table | None = None
        empty: memoryview | None = None
        for ends, data in map_ahead(pool, encode_part, parts, ENCODERS):
            if not ends.num_rows:
                empty = data
                continue
            if last_row is not None and not is_strictly_sorted(pa.concat_tables([last_row, ends.slice(0, 1)]), order):
                raise NotSortedError(f"{contract.path}: rows to be written without sorting are not sorted by {order}")
            last_row = ends.slice(1)
            yield data
        if last_row is None:
            yield empty if empty is not None else encode_part(storage_schema(contract).empty_table)[1]

    with ThreadPoolExecutor(ENCODERS) as pool:
        join_parts(encode_parts(), sink)


def _with_parquet_dictionaries(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries are those that Parquet builds itself: used texts, in order of appearance.

    The writer takes such dictionaries as they are and hashes no text again. The file is the same as one of plain text.
    """
    import numpy as np
    import pyarrow as pa

    for position, name in enumerate(table.column_names):
        if not pa.types.is_dictionary(table.schema.field(position).type):
            continue
        (array,) = table.column(position).chunks or [pa.array([], table.schema.field(position).type)]
        texts, codes = array.dictionary, array.indices.drop_null().to_numpy()
        if len(codes) and codes.min() == codes.max():
            used = codes[:1]
        else:
            first = np.full(len(texts), len(codes), np.int64)
            first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
            used = np.argsort(first, kind="stable")[: int(np.count_nonzero(first < len(codes)))]
        if len(used) < len(texts) or not (used == np.arange(len(texts))).all():
            new_codes = np.zeros(len(texts), np.int32)
            new_codes[used] = np.arange(len(used), dtype=np.int32)
            texts = texts.take(pa.array(used))
            # A null stays null.
            indices = pa.array(new_codes).take(array.indices) if len(new_codes) else array.indices
            array = pa.DictionaryArray.from_arrays(indices, texts)
            table = table.set_column(position, name, array)
        if texts.nbytes > DICTIONARY_BYTES or 2 * len(texts) > max(len(array), 2):
            # Parquet would give up the dictionary, or the dictionary saves nothing.
            table = table.set_column(position, name, array.cast(pa.string()))
    return table


def map_ahead(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], ahead: int) -> Iterator[U]:
    """Yield ``work(item)`` of each item in order, while threads work on up to ``ahead`` items that follow."""
    pending: deque[Future[U]] = deque()
    for item in items:
        pending.append(pool.submit(work, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
