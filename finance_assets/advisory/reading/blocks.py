"""A large delimited or Parquet file, read block by block: what is in between stays small, and in the same memory.

Belongs here: cutting the text, reading each block with the code that reads whole files, the proof that all blocks say
the same, and the rows of the file in the order in which they are stored. A file whose blocks differ in a convention, or
of which something depends on all rows at once, is not read here; the caller then reads it as a whole, with the same
outcome.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from functools import partial
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import (
    combine_chunks,
    decimals_of,
    integers_of,
    months_of,
    one_of_many,
    ranks_of,
    thread_map,
)
from finance_assets.advisory.reading.budget import OverBudget, current_budget, spending
from finance_assets.advisory.reading.canonical import (
    Grains,
    canonical_rows,
    grain_of,
    grains_of,
    said_of_grain,
)
from finance_assets.advisory.reading.containers import FileBytes
from finance_assets.advisory.reading.decoding import is_plain, single_feeds
from finance_assets.advisory.reading.detection import Interpreted, floats_of, interpret
from finance_assets.advisory.reading.flagging import (
    NUMBERS,
    Repeated,
    RollForwardCheck,
    flagged_texts,
    footing_of,
    neighbours,
    repeated_rows,
)
from finance_assets.advisory.reading.headers import month_columns
from finance_assets.advisory.reading.layouts import (
    HEAD_BYTES,
    Block,
    NotInBlocksError,
    RawTable,
    columnar_table,
    first_accounts,
    line_ends,
    open_parquet,
    opening_of,
    parquet_headers,
    parquet_rows,
    parquet_table,
    plan_of,
)
from finance_assets.advisory.reading.outcome import ENCODED_ROWS, ROWS, quarantine_row
from finance_assets.advisory.reading.rejection import FileRejected
from finance_assets.advisory.reading.vendor_contract import VendorContract

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]

LARGE_TEXT = 1 << 25
"""From so many bytes on a text is read by blocks."""
BLOCK_BYTES = 1 << 24
LARGE_TABLE = 1 << 18
"""From so many rows on a Parquet file is."""
#: Rows are put in order by runs of so many on average.
_LONG_RUN = 512
#: Rows whose keys are there again, which are looked at one by one: where there are more, the file is in question.
_MOST_REPEATED = 1 << 17
#: Rows of a run, on average, that is worth merging.
_MERGED_RUN = 64
_QUOTE, _LINE_END = ord('"'), ord("\n")
#: How much is looked at for the end of a line.
_LOOK_BYTES = 1 << 12
#: Rows of a Parquet file that are one block, and rows whose flags are found at a time.
_ROWS_AT_ONCE = 1 << 17


@dataclass
class LargeRows:
    """The rows of a large file, to be had in parts, in the order in which they are stored.

    Attributes
    ----------
    columns
        `ENCODED_ROWS` by name, in the order of the file. Of a column of decimals the unscaled integers, if 64 bits hold
        all of them; None where the whole column is null.
    order
        Place in the columns of each row; None where the file has them in that order.
    keys
        What the rows are sorted by.
    previous
        Place among the rows of the row before each in its account and grain; -1 where there is none.
    ending
        Ending values as floats, NaN where unknown.
    is_footed
        Whether components that do not add up are the fault of their row.
    """

    columns: dict[str, pa.ChunkedArray | None]
    order: Ints | None
    keys: _Keys
    previous: Ints
    ending: npt.NDArray[np.float64]
    is_footed: bool
    _said: set[str] = field(default_factory=set)
    _looked_at: set[tuple[int, int]] = field(default_factory=set)

    @property
    def count(self) -> int:
        """How many rows there are."""
        return len(self.previous)

    @property
    def grains(self) -> list[str]:
        """The grains of the rows."""
        return self.keys.grains

    def parts(self, size: int) -> list[Callable[[], pa.Table]]:
        """Return what gives the rows as `ENCODED_ROWS`, so many at a time; may be called in several threads."""
        return [partial(self._part, start, min(size, self.count - start)) for start in range(0, self.count, size)]

    def table(self) -> pa.Table:
        """Return all rows as `ROWS`, in the order of account, grain and period, in which smaller files have them."""
        whole = pa.concat_tables([ENCODED_ROWS.empty_table(), *(part() for part in self.parts(_ROWS_AT_ONCE))]).cast(
            ROWS
        )
        names = ("account_id", "granularity", "period_end")
        return whole.sort_by([(name, "ascending") for name in names])

    def said(self) -> set[str]:
        """Return the codes of all flags; rows that were not given out yet are looked at for it."""
        if sum(size for _, size in self._looked_at) < self.count:
            self._looked_at.clear()
            starts = range(0, self.count, _ROWS_AT_ONCE)
            thread_map(lambda start: self._flags(start, min(_ROWS_AT_ONCE, self.count - start)), starts)
        return {code.partition(":")[0] for text in self._said for code in text.split(";") if code}

    def _part(self, start: int, size: int) -> pa.Table:
        with one_of_many():
            return self._rows(start, size)

    def _rows(self, start: int, size: int) -> pa.Table:
        numbers = {name: self._piece(name, start, size) for name in NUMBERS}
        columns = [
            self._flags(start, size, numbers)
            if kind.name == "flags"
            else _expanded(
                numbers[kind.name] if kind.name in numbers else self._piece(kind.name, start, size), kind.type, size
            )
            for kind in ENCODED_ROWS
        ]
        return pa.table(columns, schema=ENCODED_ROWS)

    def _flags(self, start: int, size: int, numbers: dict[str, Any] | None = None) -> pa.DictionaryArray:
        """Return the flags of some rows: those that they have by themselves, and what disagrees."""
        if numbers is None:
            numbers = {name: self._piece(name, start, size) for name in NUMBERS}
        here = slice(start, start + size)
        flags = flagged_texts(
            self._piece("flags", start, size),
            {name: None if found is None else _floats(found, ROWS.field(name).type) for name, found in numbers.items()},
            neighbours(self.previous[here], self.keys.grain[here], self.grains, self.keys.days[here], self._before),
            self._value,
            is_footed=self.is_footed,
            offset=start,
        )
        self._said.update(flags.dictionary.to_pylist())
        self._looked_at.add((start, size))
        return flags

    def _before(self, rows: Ints) -> tuple[Ints, npt.NDArray[np.float64]]:
        """Return period end and ending value of some rows."""
        return self.keys.days[rows], self.ending[rows]

    def _piece(self, name: str, start: int, size: int) -> Any | None:
        """Return some rows of a column, in one piece; where they are a few runs of the file's, by their runs."""
        column = self.columns[name]
        if column is None:
            return None
        if self.order is None:
            return combine_chunks(column.slice(start, size))
        places = self.order[start : start + size]
        if _has_short_runs(places):
            return combine_chunks(column.take(pa.array(places)))
        cuts = np.flatnonzero(np.diff(places) != 1) + 1
        starts, stops = places[np.r_[0, cuts]].tolist(), (places[np.r_[cuts, size] - 1] + 1).tolist()
        pieces = [column.slice(first, stop - first) for first, stop in zip(starts, stops, strict=True)]
        return combine_chunks(pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], column.type))

    def _value(self, name: str, row: int) -> Decimal | None:
        """Return the exact value of a number."""
        column = self.columns[name]
        place = row if self.order is None else int(self.order[row])
        found = None if column is None else column[place].as_py()
        return Decimal(found).scaleb(-ROWS.field(name).type.scale) if isinstance(found, int) else found


@dataclass(frozen=True)
class ByBlocks:
    """What became of a large file that was read by blocks.

    Attributes
    ----------
    rows
        Its good rows.
    table, typed
        The first block and its columns, which stand for all in what was decided.
    quarantined, warnings, skipped
        Leftovers of all blocks.
    identity
        Share of rows for which the identities hold, over all blocks.
    """

    rows: LargeRows
    table: RawTable
    typed: Interpreted
    quarantined: list[dict[str, Any]]
    warnings: set[str]
    skipped: Counter[str]
    identity: float | None


@dataclass(frozen=True)
class _Read:
    """One block: its canonical rows as small as they can be kept, and what was decided."""

    columns: dict[str, Any]
    size: int
    table: RawTable
    typed: Interpreted
    grain: Grains
    said_of_grain: str
    warnings: set[str]
    quarantined: list[dict[str, Any]]
    footing: RollForwardCheck
    starts: str
    firsts: str

    def agrees(self, other: _Read) -> bool:
        """Whether what was decided for all rows is the same."""
        return (self.typed.conventions, self.grain.common, self.starts, self.table.headers, self.typed.date_header) == (
            other.typed.conventions, other.grain.common, other.starts, other.table.headers, other.typed.date_header
        )  # fmt: skip


#: Gives the tables of one block after the other; told where to ask for the accounts of the first rows.
_Tables = Callable[["Callable[[], frozenset[str]] | None"], Iterator[RawTable]]


@contextmanager
def _forward_error(known: Future[frozenset[str]]) -> Iterator[None]:
    """Hand an error on to those who wait for something."""
    try:
        yield
    except BaseException as error:
        if not known.done():
            known.set_exception(error)
        raise


def read_by_blocks(
    kind: str, data: bytes | FileBytes, contract: VendorContract | None, latest: date, label: str
) -> ByBlocks | None:
    """Read a large delimited text or Parquet file block by block.

    Parameters
    ----------
    kind
        ``text``, ``parquet``, or another one, which is not read so.
    data
        UTF-8 text with single line feeds, or the bytes of the Parquet file. On a disk also text with those of Windows;
        of text in another encoding some block tells.
    contract
        Contract that matched the file.
    latest
        The day of receipt.
    label
        Name of the member of an archive.

    Returns
    -------
    ByBlocks or None
        None where the file is not large, or must be read as a whole.
    """
    try:
        if kind == "text" and len(data) >= LARGE_TEXT:
            blocks = _of_text(data, contract)
        elif kind == "parquet":
            blocks = _of_parquet(data, contract)
        else:
            return None

        if not blocks:
            return None
        known: Future[frozenset[str]] = Future()
        budget = current_budget()

        def read(place: int) -> list[_Read]:
            # What is wrong with the first block, those that ask it for accounts hear as well.
            budget.tick()
            with spending(budget), _forward_error(known) if not place else nullcontext():
                found: list[_Read] = []
                for table in blocks[place](known.result if place else None):
                    made = _read(table, contract, latest, label)
                    budget.tick()
                    if not place and not found:
                        known.set_result(first_accounts(table.columns[made.typed.mapping.columns["account_id"][0]]))
                    # The first table stands for all in what was decided, but for its rows.
                    found.append(_without_rows(made))
                return found

        return _put_together([made for reads in thread_map(read, range(len(blocks))) for made in reads])
    except OverBudget:
        raise
    except (NotInBlocksError, FileRejected, pa.ArrowException, OSError):
        # What is wrong with the file, or looks so in a block, is said of the whole. Arrow has a damaged page of a
        # Parquet file for an error of the disk.
        return None


def _of_text(data: bytes | FileBytes, contract: VendorContract | None) -> list[_Tables]:
    """Return the blocks of a delimited text, of which none has records of another."""
    if contract is not None and contract.positional and not contract.has_header:
        return []
    head = data[:HEAD_BYTES]
    head = head[: head.rfind(b"\n") + 1]
    opening = opening_of(single_feeds(head), contract)
    if not opening.is_columnar:
        return []
    title = opening.head[opening.found]
    start = 0
    for _ in range(title.line):
        start = head.find(b"\n", start) + 1
        if not start:
            raise NotInBlocksError
    if head.count(b'"', 0, start) % 2 or not is_plain(head[:start]):
        raise NotInBlocksError
    pieces = _cut(data, start)
    lines = accumulate((piece.line_ends for piece in pieces), initial=title.line + 1)
    plan = plan_of(data, start, opening.delimiter, [cell.strip() for cell in title.cells], contract)

    def tables(piece: _Piece, line: int, known: Callable[[], frozenset[str]] | None) -> Iterator[RawTable]:
        text = single_feeds(data[piece.start : piece.stop])
        numbers = line + _record_lines(text, piece)
        block = Block(text, numbers, plan, known, piece.start == start, piece.stop == len(data))
        yield columnar_table(block, opening, contract)

    return [partial(tables, piece, line) for piece, line in zip(pieces, lines, strict=False)]


def _of_parquet(data: bytes | FileBytes, contract: VendorContract | None) -> list[_Tables]:
    """Return the row groups of a large Parquet file, each of which may give several tables."""
    with open_parquet(data) as file:
        if file.metadata.num_rows < LARGE_TABLE or month_columns(parquet_headers(data)):
            return []
        rows = [file.metadata.row_group(place).num_rows for place in range(file.num_row_groups)]

    def tables(place: int, before: int, _: Callable[[], frozenset[str]] | None) -> Iterator[RawTable]:
        with open_parquet(data) as file:
            whole = parquet_rows(file, place)
        for start in range(0, whole.num_rows, _ROWS_AT_ONCE):
            yield parquet_table(whole.slice(start, _ROWS_AT_ONCE), contract, is_large=True, before=before + start)

    before = [0, *accumulate(rows)]
    return [partial(tables, place, before[place]) for place in range(len(rows)) if rows[place]]


class _Piece(NamedTuple):
    """Where some records begin and end, how many quotes are among them, and how many ends of lines."""

    start: int
    stop: int
    quotes: int
    line_ends: int


def _cut(data: bytes | FileBytes, start: int) -> list[_Piece]:
    """Cut a text, from a place on, into pieces of whole records."""
    pieces = _measured(data, _bounds(data, start))
    if any(piece.quotes % 2 for piece in pieces):
        # A line end between two quotes ends no record.
        pieces = _measured(data, _bounds(data, start, is_quoted=True))
    if not pieces:
        raise NotInBlocksError
    return pieces


def _bounds(data: bytes | FileBytes, start: int, *, is_quoted: bool = False) -> list[int]:
    bounds = [start]
    while bounds[-1] < len(data):
        begin = bounds[-1]
        place = begin + BLOCK_BYTES
        # The last piece is no small one: whether its last row is cut off, those before it tell.
        end = _next_line(data, place) if len(data) - place > BLOCK_BYTES // 4 else len(data)
        is_open = is_quoted and data[begin:end].count(b'"') % 2
        while is_open:
            if end == len(data) or end - begin > 2 * BLOCK_BYTES:
                raise NotInBlocksError
            after = _next_line(data, end)
            is_open ^= data[end:after].count(b'"') % 2
            end = after
        bounds.append(end)
    return bounds


def _next_line(data: bytes | FileBytes, place: int) -> int:
    """Return where the next line begins."""
    while place < len(data):
        found = data[place : place + _LOOK_BYTES].find(b"\n")
        if found >= 0:
            return place + found + 1
        place += _LOOK_BYTES
    return len(data)


def _measured(data: bytes | FileBytes, bounds: Sequence[int]) -> list[_Piece]:
    """Return the pieces between bounds; none of a file on a disk may be anything but plain text."""

    def measured(bound: tuple[int, int]) -> _Piece:
        text = data[slice(*bound)]
        if isinstance(data, FileBytes) and not is_plain(text):
            raise NotInBlocksError
        return _Piece(*bound, text.count(b'"') if b'"' in text else 0, line_ends(text))

    return thread_map(measured, pairwise(bounds))


def _record_lines(text: bytes, piece: _Piece) -> Ints:
    """Return the line of each record of a piece, counted from 0."""
    is_ended = text.endswith(b"\n")
    if not piece.quotes:
        return np.arange(piece.line_ends + (not is_ended))
    raw = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(raw == _LINE_END)
    quotes = np.flatnonzero(raw == _QUOTE)
    is_record = np.searchsorted(quotes, ends) % 2 == 0
    starts: Ints = np.r_[0, np.flatnonzero(is_record) + 1]
    return starts[:-1] if is_ended else starts


def _read(table: RawTable, contract: VendorContract | None, latest: date, label: str) -> _Read:
    """Read the table of one block as if it were that of a file."""
    typed = interpret(table, contract, latest)
    grain = grains_of(table, typed, contract)
    if typed.is_mixed or (grain.by_row is not None and typed.grain is None):
        raise NotInBlocksError
    warnings = set(typed.warnings)
    rows = canonical_rows(table, typed, grain, label, warnings)
    quarantined = [quarantine_row(row.line, label, row.account, row.reason, row.detail) for row in table.bad]
    quarantined += [
        quarantine_row(line, label, typed.account[row].as_py(), reason, detail)
        for row, (reason, detail, line) in sorted(typed.bad.items())
    ]
    columns = {kind.name: _compact(combine_chunks(rows[kind.name])) for kind in ENCODED_ROWS}
    floats = {
        name: None if columns[name] is None else _floats(columns[name], ROWS.field(name).type) for name in NUMBERS
    }
    ends = pc.unique(typed.period_end).drop_null()
    firsts = int(pc.sum(pc.equal(pc.day(ends), 1)).as_py() or 0)
    missing = typed.period_start.null_count
    return _Read(
        columns,
        rows.num_rows,
        table,
        typed,
        grain,
        said_of_grain(table, typed),
        warnings,
        quarantined,
        footing_of(floats),
        starts="all" if not missing else "none" if missing == table.rows else "some",
        firsts="all" if firsts == len(ends) else "some" if firsts else "none",
    )


def _without_rows(read: _Read) -> _Read:
    """Forget the columns of a table whose rows were taken."""
    read.table.columns = []
    read.typed.money, read.typed.returns = {}, {}
    return read


def _compact(array: Any) -> Any | None:
    """Return a column in half of its memory: decimals as integers where they fit, nothing where all is null."""
    if not pa.types.is_decimal(array.type):
        return array
    if array.null_count == len(array):
        return None
    integers = integers_of(array)
    if integers is None:
        return array
    return pa.array(integers, mask=pc.is_null(array).to_numpy(zero_copy_only=False) if array.null_count else None)


def _floats(array: Any, kind: Any) -> Any:
    """Return what `_compact` made as floats, the same as `floats_of` makes of the decimals."""
    if pa.types.is_decimal(array.type):
        return floats_of(array)
    if array.null_count:
        made = array.fill_null(0).to_numpy() / 10.0**kind.scale
        made[array.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return made
    return array.to_numpy() / 10.0**kind.scale


def _decimals(array: Any, kind: Any) -> Any:
    """Return what `_compact` made as decimals again."""
    if pa.types.is_decimal(array.type):
        return array
    if not array.null_count:
        return decimals_of(array.to_numpy(), kind)
    return decimals_of(array.fill_null(0).to_numpy(), kind, array.is_valid().to_numpy(zero_copy_only=False))


def _expanded(array: Any | None, kind: Any, size: int) -> Any:
    """Return what is kept of a column, so many rows of it, in its own type again."""
    if array is None:
        return pa.nulls(size, kind)
    return _decimals(array, kind) if pa.types.is_decimal(kind) else array


def _put_together(reads: Sequence[_Read]) -> ByBlocks:
    """Put the rows of blocks in the order in which they are stored, once it is proved that they say the same."""
    first = reads[0]
    if not all(first.agrees(read) for read in reads[1:]):
        raise NotInBlocksError
    firsts = {read.firsts for read in reads if len(read.typed.period_end)}
    if ("all" in firsts and len(firsts) > 1) or first.starts == "some":
        # Whether a first of the month names its month, the dates of the whole file say.
        raise NotInBlocksError
    count = sum(read.size for read in reads)
    stated = {read.table.stated_count for read in reads} - {None}
    if not count or stated - {sum(read.table.counted for read in reads)}:
        raise NotInBlocksError
    columns = {kind.name: _joined([read.columns[kind.name] for read in reads], reads, kind) for kind in ENCODED_ROWS}
    for read in reads:
        # They live on in the joined ones alone.
        read.columns.clear()

    def sorted_keys() -> tuple[_Keys, Ints, Ints | None]:
        keys = _keys(columns)
        stored = keys.stored()
        runs = int(np.count_nonzero(stored[1:] <= stored[:-1])) + 1
        # Long runs are merged, the rest is sorted from the ground up.
        kind: Literal["stable", "quicksort"] = "stable" if runs * _MERGED_RUN < len(stored) else "quicksort"
        return keys, stored, None if runs == 1 else np.argsort(stored, kind=kind)

    def ending_values() -> Any:
        emv = columns["ending_market_value"]
        kind = ROWS.field("ending_market_value").type
        return np.full(count, np.nan) if emv is None else _floats(combine_chunks(emv), kind)

    (keys, stored, order), ending = thread_map(lambda work: work(), (sorted_keys, ending_values))
    quarantined = [entry for read in reads for entry in read.quarantined]
    warnings = set().union(*(read.warnings for read in reads))
    skipped: Counter[str] = sum((read.table.skipped for read in reads), Counter())
    footing: RollForwardCheck = sum((read.footing for read in reads), RollForwardCheck())
    if order is not None:
        order, repeated, their_footing = _without_repeated(columns, stored, order)
        footing -= their_footing
        quarantined += repeated.quarantined
        if repeated.duplicates:
            skipped["duplicate_rows"] += repeated.duplicates
            warnings.add("duplicate_rows")
        if not len(order):
            raise NotInBlocksError
        series, grain, days, ending = thread_map(
            lambda column: column[order], (keys.series, keys.grain, keys.days, ending)
        )
        keys = _Keys(series, grain, days, keys.grains)
        if _has_short_runs(order):
            thread_map(lambda names: _join_pieces(columns, names), (ENCODED_ROWS.names[::2], ENCODED_ROWS.names[1::2]))
    previous = keys.previous()
    _check_grain(first, columns, keys, previous)
    is_another_sum = footing.is_another_sum(frozenset(name for name in NUMBERS if columns[name] is None))
    rows = LargeRows(columns, order, keys, previous, ending, not is_another_sum)
    if is_another_sum:
        warnings.add("components_do_not_foot")
    weights = [(read.typed.identity, read.size) for read in reads if read.typed.identity is not None]
    sized = sum(size for _, size in weights)
    return ByBlocks(
        rows,
        first.table,
        first.typed,
        quarantined,
        warnings,
        skipped,
        sum(share * size for share, size in weights) / sized if sized else None,
    )


def _without_repeated(
    columns: Mapping[str, pa.ChunkedArray | None], stored: Ints, order: Ints
) -> tuple[Ints, Repeated, RollForwardCheck]:
    """Leave out of an order the rows that are there more than once; say what became of them, and how they foot."""
    stored = stored[order]
    same = stored[1:] == stored[:-1]
    again = np.flatnonzero(np.r_[same, False] | np.r_[False, same])
    if len(again) > _MOST_REPEATED:
        raise NotInBlocksError
    if not len(again):
        return order, Repeated([], 0, []), RollForwardCheck()
    # Those of one key in the order of the file.
    again = again[np.lexsort((order[again], stored[again]))]
    rows = _taken(columns, order[again])
    found = repeated_rows(rows)
    dropped = rows.take(pa.array(found.dropped, pa.int64()))
    floats = {name: None if columns[name] is None else floats_of(combine_chunks(dropped[name])) for name in NUMBERS}
    kept = np.ones(len(order), bool)
    kept[again[found.dropped]] = False
    return order[kept], found, footing_of(floats)


def _taken(columns: Mapping[str, pa.ChunkedArray | None], places: Ints) -> pa.Table:
    """Return a few rows of the columns of `LargeRows`, as they are in the file."""
    taken = {
        name: None if column is None else combine_chunks(column.take(pa.array(places)))
        for name, column in columns.items()
    }
    return pa.table([_expanded(taken[kind.name], kind.type, len(places)) for kind in ENCODED_ROWS], schema=ENCODED_ROWS)


def _has_short_runs(places: Ints) -> bool:
    """Whether places are no runs that would be worth their slices."""
    return int(np.count_nonzero(np.diff(places) != 1)) * _LONG_RUN > len(places)


def _join_pieces(columns: dict[str, pa.ChunkedArray | None], names: Sequence[str]) -> None:
    """Bring columns into one piece each, of which single rows are taken at once; one after the other is let go."""
    for name in names:
        column = columns.pop(name)
        columns[name] = None if column is None else pa.chunked_array([combine_chunks(column)])
        del column


def _joined(pieces: Sequence[Any], reads: Sequence[_Read], kind: pa.Field) -> pa.ChunkedArray | None:
    """Join a column of all blocks, in one type."""
    if all(piece is None for piece in pieces):
        return None
    if pa.types.is_decimal(kind.type):
        is_wide = any(piece is not None and pa.types.is_decimal(piece.type) for piece in pieces)
        type_ = kind.type if is_wide else pa.int64()
        pieces = [_expanded(piece, type_, read.size) for piece, read in zip(pieces, reads, strict=True)]
    joined = pa.chunked_array(list(pieces))
    return joined.unify_dictionaries() if pa.types.is_dictionary(kind.type) else joined


@dataclass(frozen=True)
class _Keys:
    """What rows are sorted by, as numbers.

    Attributes
    ----------
    series
        Account and grain: the account in the order of text, and the grain in the two lowest bits.
    grain
        The grain.
    days
        Period ends, in days since 1970.
    grains
        The grains by number, in the order of text.
    """

    series: Ints
    grain: Ints
    days: Ints
    grains: list[str]

    def stored(self) -> Ints:
        """Return one number per row that ascends in the order in which rows are stored; days fit into 24 bits."""
        made: Ints = self.days.astype(np.int64)
        made -= made.min()
        made <<= 38
        made |= self.series
        return made

    def previous(self) -> Ints:
        """Return the place of the row before each in its account and grain, -1 where there is none.

        Rows must be in the order in which they are stored: a period holds each account once, so that periods can be
        stepped through.
        """
        made = np.empty(len(self.days), np.int64)
        last = np.full(int(self.series.max()) + 1, -1)
        bounds = np.flatnonzero(np.r_[True, self.days[1:] != self.days[:-1], True])
        for start, stop in pairwise(bounds.tolist()):
            series = self.series[start:stop]
            made[start:stop] = last[series]
            last[series] = np.arange(start, stop)
        return made


def _keys(columns: dict[str, pa.ChunkedArray | None]) -> _Keys:
    account, grain = (_text_numbers(columns[name]) for name in ("account_id", "granularity"))
    texts = columns["granularity"]
    ends = columns["period_end"]
    assert texts is not None
    assert ends is not None
    series = account.astype(np.int64)
    series <<= 2
    series |= grain
    return _Keys(series, grain, ends.cast(pa.int32()).to_numpy(), sorted(texts.chunk(0).dictionary.to_pylist()))


def _text_numbers(column: pa.ChunkedArray | None) -> Any:
    """Return the place of each row's text among the sorted texts of a column whose pieces share a dictionary."""
    assert column is not None
    numbers = ranks_of(column.chunk(0).dictionary)
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in column.chunks])
    return codes if (numbers == np.arange(len(numbers))).all() else numbers[codes]


def _check_grain(first: _Read, columns: dict[str, Any], keys: _Keys, previous: Ints) -> None:
    """Hold the grain that each block found against all rows; which accounts report quarters is not asked of blocks."""
    if first.grain.is_stated or first.starts == "all":
        # The length of periods decides, in each block as in all of them.
        return
    has = previous >= 0
    before, after = keys.days[previous[has]], keys.days[has]
    found = grain_of(
        first.typed.date_kind, combine_chunks(columns["period_end"]), None, first.said_of_grain, lambda: (before, after)
    )
    if found != first.grain.common:
        raise NotInBlocksError
    if found == "monthly" and first.typed.grain is None and (months_of(after) - months_of(before) == 3).any():
        raise NotInBlocksError
