"""Raw tables out of every layout: delimited text, fixed width, workbooks, JSON and Parquet.

Belongs here: finding the rows. A raw table has text columns under the headers of the file, the physical line of every
row, and a count of what was passed over (titles, totals, footers, repeated headers, other sheets). What the columns
mean is decided elsewhere; here only the question "is this a header" is asked.
"""

from __future__ import annotations

import csv
import io
import json
import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import combine_chunks, decimals_of, integers_of, thread_map
from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading.budget import current_budget
from finance_assets.advisory.reading.containers import FileBytes
from finance_assets.advisory.reading.decoding import single_feeds
from finance_assets.advisory.reading.rejection import FileRejected
from finance_assets.advisory.reading.values import MONTHS, max_decimals, read_date, trimmed
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS, VendorContract, implied

csv.field_size_limit(1 << 24)
DELIMITERS = (",", ";", "|", "\t")
_SAMPLE_ROWS = 400
MAX_COLUMNS = 5000
"""A wider table is damaged, or meant to do damage."""
MAX_WIDTH = 2000
"""Cells of a row of a sheet from there on are not read."""
_LONGEST_LINE = 500
"""Characters of a line in which a title, a total or a section is looked for; patterns are not free."""
_AT_ONCE = 1 << 8
"""So many rows are counted at a time."""
TOTAL = (
    r"(?i)^\W*(grand|sub|account|portfolio|household|overall|report|file|net)?[\s-]*(totals?|summe"
    r"|gesamt(summe)?|zwischensumme"
    r"|sums?|average|mean|median|durchschnitt|moyenne|insgesamt|totaux|sous-total|totale|totales|suma|somma|subtotales?|subtotale)\b(?![-_.]?\w*\d)"
    r"|^\w[\w .-]*\s(sub-?)?totals?:?$|^\D{0,40}\btotals?\b\D*$"
)
_SECTION = re.compile(
    r"(?i)^\W*(?:account|acct|a/c|konto|depot|compte|cuenta|conto|portfolio|portefeuille)"
    r"(?:\s*(?:no|number|num|id|nr|nummer|code|#|n°|número|numero|numéro))?\.?(?:\s*[:#=]\s*|\s+(?=[\w./-]*\d{3}))(?P<rest>.*)$"
)
_CURRENCY_LINE = re.compile(
    r"(?i)^\W*(?:.*\b(?:in|currency|währung|devise|moneda|divisa|valuta|ccy)\b\s*(?:is"
    r"|in)?\s*[:=]?\s*\(?)([A-Z]{3})\b\)?\W*$"
)


class BadRow(NamedTuple):
    """A line that is no row of the table and no title, total or footer either."""

    line: int
    account: str
    reason: str
    detail: str


@dataclass
class RawTable:
    """Columns of one table: text, or numbers where a large file has nothing but plain ones in a column.

    ``decimals`` has the columns of numbers, with the most digits after the mark that their text has, and ``mark`` that
    decimal mark. Text that repeats may be a dictionary. ``directed`` says that the source states the direction of every
    flow, ``flags`` what is known of a row already. ``stated_count`` is how many records a trailer tells of, ``counted``
    how many there were.
    """

    headers: list[str]
    columns: list[Any]
    lines: Any
    member: str = ""
    native: dict[int, Any] = field(default_factory=dict)
    cell_lines: dict[int, Any] = field(default_factory=dict)
    preamble: list[str] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    delimiter: str = ""
    positional: VendorContract | None = None
    header_line: int = 0
    lossy: set[int] = field(default_factory=set)
    inherited: set[int] = field(default_factory=set)
    directed: bool = False
    flags: dict[int, list[str]] = field(default_factory=dict)
    decimals: dict[int, int] = field(default_factory=dict)
    mark: str = "."
    stated_count: int | None = None
    counted: int = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return len(self.lines)

    def text(self, place: int, most: int | None = None) -> Any:
        """Return a column, or the beginning of it, as text; where it is numbers, as text that means the same."""
        return as_text(self.columns[place] if most is None else self.columns[place].slice(0, most))


def as_text(column: Any) -> Any:
    """Return a column of a raw table as an array of text, empty where there is none."""
    if pa.types.is_string(column.type):
        return column
    return pc.fill_null(pc.cast(column, pa.string()), "")


def by_value(column: Any, function: Callable[[Any], Any]) -> Any:
    """Apply a function of text to each row of a column, once for each distinct value where it is a dictionary."""
    if not pa.types.is_dictionary(column.type):
        return function(as_text(column))
    return pc.take(function(column.dictionary), column.indices)


class Row(NamedTuple):
    """One record of a grid: where it starts, its cells, and which cells the source typed as numbers."""

    line: int
    cells: list[str]
    native: frozenset[int] = frozenset()


def _filled(cells: Iterable[str]) -> list[str]:
    return [c for c in cells if c.strip()]


def is_total(text: str) -> bool:
    """Say whether the label of a row announces a total.

    Parameters
    ----------
    text
        First cells of the row.
    """
    return re.search(TOTAL, text[:_LONGEST_LINE]) is not None


def _prose(cells: list[str]) -> bool:
    """Whether filled cells are a sentence or a note rather than values."""
    text = " ".join(cells)
    words = re.findall(r"[^\W\d_]{2,}", text)
    return len(words) >= 3 and len(re.findall(r"\d", text)) <= max(8, len(text) // 4)


class _Sorter:
    """Decides whether a line of a table is a row, or what else it is."""

    def __init__(self, header: list[str], account: int | None, footers: tuple[str, ...], skipped: Counter[str]) -> None:
        self.header = [naming.normalised(h) for h in header]
        self.account = account
        self.footers = footers
        self.skipped = skipped
        self.count: int | None = None

    def noise(self, cells: list[str], expected: int) -> str | None:
        """Return why a line is no row, or None."""
        filled = _filled(cells)
        if not filled:
            return "blank_lines"
        first = filled[0].strip()
        if self.footers and any(_begins(first, f) or _begins(" ".join(filled), f) for f in self.footers):
            return "footers"
        if [naming.normalised(c) for c in cells[: len(self.header)]] == self.header[: len(cells)] and len(filled) > 1:
            return "repeated_headers"
        filled = [c[:300] for c in filled]
        first = first[:300]
        account = cells[self.account].strip()[:300] if self.account is not None and self.account < len(cells) else first
        if is_total(account or first) or (not account and any(map(is_total, filled))):
            return "totals"
        if not account and not any(re.search(r"\d", c) for c in filled):
            return "unit_rows"
        if match := re.match(
            r"(?i)^\W*(?:(?:total )?(?:record|row|line|detail)s?\s*(?:count)?|count|anzahl)\b\W*(\d+)?\W*$", first
        ):
            number = match[1] or (filled[1].strip() if len(filled) > 1 else "")
            if re.fullmatch(r"\d+", number):
                self.count = int(number)
            return "footers"
        if re.fullmatch(r"(?i)(trl|trlr|trailer|eof|footer|end|tr|99)", first) and len(filled) <= 4 < expected:
            numbers = [c.strip() for c in filled[1:] if re.fullmatch(r"\d{1,12}", c.strip())]
            if numbers:
                self.count = int(numbers[0])
            return "trailer_records"
        if len(filled) <= 3 and expected > 3 and _prose(filled):
            return "footers"
        if len(filled) == 1 and expected > 2 and not re.search(r"\d", first):
            return "footers"
        if len(filled) == 1 and expected > 3 and re.match(r"[^\W\d_]{4,}[\s:]", first):
            return "footers"
        if len(filled) == 1 and expected > 2 and re.search(r"\s", first) and len(first.split()) >= 3:
            return "footers"
        if re.match(r"(?i)^(page\s+\d+|end of (file|report)|\*{2,}|-{3,}|={3,}|#)", first):
            return "footers"
        return None


def _begins(text: str, beginning: str) -> bool:
    plain = beginning.strip().removeprefix("^")
    if text.strip().casefold().startswith(plain.casefold()):
        return True
    try:
        return re.match(beginning, text.strip()) is not None
    except re.error:
        return False


# --- delimited text --------------------------------------------------------------------------------------------------


def records(text: str, delimiter: str, start: int = 1, limit: int | None = None) -> Iterator[Row]:
    """Split delimited text into records with their physical lines.

    Parameters
    ----------
    text
        Text with single line feeds.
    delimiter
        One character.
    start
        Physical line of the beginning of the text.
    limit
        Stop after so many records.

    Yields
    ------
    Row
        Records; blank lines give rows without cells.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    line, count = start, 0
    try:
        for cells in reader:
            yield Row(line, cells)
            line = start + reader.line_num
            count += 1
            if limit is not None and count >= limit:
                return
    except csv.Error as error:
        raise FileRejected("unreadable_text") from error


def _all_records(text: str, delimiter: str) -> list[Row]:
    """Return all records of a text that has no plain columns, one by one."""
    budget = current_budget()
    made: list[Row] = []
    cells = 0
    for row in records(text, delimiter):
        made.append(row)
        cells += len(row.cells)
        if len(made) % _AT_ONCE == 0:
            budget.take_cells(cells)
            budget.tick()
            cells = 0
    budget.take_cells(cells)
    return made


def choose_delimiter(sample: str) -> str:
    """Find the delimiter that gives the most regular table with the best header.

    Parameters
    ----------
    sample
        Beginning of the text.

    Returns
    -------
    str
        One of `DELIMITERS`.
    """
    best, best_score = ",", -1.0
    for delimiter in DELIMITERS:
        if delimiter not in sample:
            continue
        try:
            rows = [r.cells for r in records(sample, delimiter, limit=200) if _filled(r.cells)]
        except FileRejected:
            continue
        widths = Counter(len(c) for c in rows if len(c) > 1)
        if not widths:
            continue
        width, times = widths.most_common(1)[0]
        header = max((naming.header_score(c) for c in rows[:60]), default=0.0)
        score = header * 10 + times / len(rows) * 3 + min(width, 30) / 30
        if score > best_score:
            best, best_score = delimiter, score
    return best


HEAD_BYTES = 1 << 18
"""How much of a text shows how it begins."""


class Opening(NamedTuple):
    """How delimited text begins.

    Attributes
    ----------
    delimiter
        What stands between two fields.
    head
        The first records.
    found
        Which of them is the header.
    is_columnar
        Whether each record below is one row; else the text has sections, or a column per month.
    """

    delimiter: str
    head: list[Row]
    found: int
    is_columnar: bool


def opening_of(data: bytes, contract: VendorContract | None) -> Opening:
    """Look at how delimited text with a header begins.

    Parameters
    ----------
    data
        UTF-8 text with single line feeds.
    contract
        Contract that matched the file.

    Raises
    ------
    FileRejected
        There is no header of account performance.
    """
    cut = data[:HEAD_BYTES]
    if len(cut) < len(data):
        cut = cut[: cut.rfind(b"\n") + 1] or cut
    sample = cut.decode("utf-8", "replace")
    delimiter = _delimiter_of(sample, contract)
    aliases = contract.columns if contract else {}
    head = list(records(sample, delimiter, limit=_SAMPLE_ROWS))
    sectioned = contract is not None and contract.section_pattern is not None
    found = naming.find_header([r.cells for r in head], aliases)
    if found is None:
        raise FileRejected(naming.feed_of([r.cells for r in head]) or "unknown_schema")
    header = head[found].cells
    if len(header) > MAX_COLUMNS:
        raise FileRejected("too_many_columns")
    fields = naming.fields_of(header, aliases)
    months = naming.month_columns(header) or (found > 0 and naming.month_columns(head[found - 1].cells))
    return Opening(delimiter, head, found, not (sectioned or "account_id" not in fields or months))


def _delimiter_of(sample: str, contract: VendorContract | None) -> str:
    if match := re.match(r"(?i)sep=(.)\r?\n", sample):
        return match[1]
    return (contract.delimiter if contract else None) or choose_delimiter(sample)


def delimited_tables(data: bytes, contract: VendorContract | None = None) -> list[RawTable]:
    """Read delimited text.

    Parameters
    ----------
    data
        UTF-8 text with single line feeds.
    contract
        Contract that matched the file.

    Returns
    -------
    list of RawTable
        Usually one.
    """
    if not data[:4096].strip() and not data.strip():
        raise FileRejected("empty_file")
    if contract and contract.positional and not contract.has_header:
        return [_positional(data, _delimiter_of(data[:HEAD_BYTES].decode("utf-8", "replace"), contract), contract)]
    opening = opening_of(data, contract)
    if not opening.is_columnar:
        aliases = contract.columns if contract else {}
        header = opening.head[opening.found].cells
        every = _all_records(data.decode("utf-8"), opening.delimiter)
        cut_rows: list[BadRow] = []
        if not data.endswith(b"\n") and naming.month_columns(header):
            account = naming.fields_of(header, aliases).get("account_id")
            every, cut_rows = _without_cut_row(every, header, account)
        tables = grid_tables(every, contract)
        if cut_rows and tables:
            tables[-1].bad += cut_rows
            tables[-1].warnings.add("truncated_file")
        if not data.endswith(b"\n"):
            _mark_cut_off(tables, data.count(b"\n") + 1)
        return _with_delimiter(tables, opening.delimiter)
    return [columnar_table(data, opening, contract)]


def _with_delimiter(tables: list[RawTable], delimiter: str) -> list[RawTable]:
    for table in tables:
        table.delimiter = delimiter
    return tables


def _record_starts(data: bytes, skip: int) -> tuple[int | None, Any] | None:
    """Return where the first record after some others begins and the physical line of each from there on.

    Nothing where quotes cannot be paired; no beginning where there are no more records.
    """
    if b'"' not in data:
        start = 0
        for _ in range(skip):
            start = data.find(b"\n", start) + 1
            if start == 0:
                return None, np.array([], np.int64)
        count = line_ends(data, start) + (not data.endswith(b"\n"))
        return (start if start < len(data) else None), np.arange(skip + 1, skip + 1 + count)
    raw = np.frombuffer(data, np.uint8)
    ends = np.flatnonzero(raw == 10)
    if len(ends) == 0 or ends[-1] != len(raw) - 1:
        ends = np.append(ends, len(raw))
    quotes = np.flatnonzero(raw == 34)
    if len(quotes) % 2:
        return None
    chosen = np.flatnonzero(np.searchsorted(quotes, ends) % 2 == 0)
    offsets = np.concatenate(([0], ends[chosen[:-1]] + 1))
    lines = np.concatenate(([1], chosen[:-1] + 2))
    return (int(offsets[skip]) if skip < len(offsets) else None), lines[skip:]


def line_ends(data: bytes, start: int = 0) -> int:
    """Count the line ends from a place on."""
    raw = np.frombuffer(data, np.uint8, offset=start) if start < len(data) else np.zeros(0, np.uint8)

    def count(first: int) -> int:
        pieces = range(first, min(first + (1 << 26), len(raw)), 1 << 18)
        return sum(int(np.count_nonzero(raw[piece : piece + (1 << 18)] == ord("\n"))) for piece in pieces)

    return sum(thread_map(count, range(0, len(raw), 1 << 26)))


class _Parsed(NamedTuple):
    """Columns of delimited text, and the records that have another number of fields: place and text."""

    columns: list[Any]
    decimals: dict[int, int]
    invalid: list[tuple[int, str]]


class NotInBlocksError(Exception):
    """A block of a large text cannot be read by itself; the text must be read as a whole."""


class Block(NamedTuple):
    """Some of the records of a text.

    Attributes
    ----------
    text
        Their bytes.
    lines
        Physical line of each record.
    plan
        How the columns of the text are read.
    known
        Gives the accounts of the first rows of the text; None for the block in which they are.
    is_first, is_last
        Whether the first record of the text is in it, and the last one.
    """

    text: bytes
    lines: Any
    plan: Plan
    known: Callable[[], Set[str]] | None
    is_first: bool
    is_last: bool


@dataclass
class Plan:
    """How the columns of a large file are read at once: as numbers, with their decimals, or as a dictionary.

    Numbers are read with as many decimals as the first ones have, which spares Arrow a multiplication for each;
    ``uneven`` gathers the columns in which others turned out to have more. ``mark`` is the decimal mark of all.
    """

    numbers: dict[int, tuple[Any, int]] = field(default_factory=dict)
    repeated: set[int] = field(default_factory=set)
    uneven: set[int] = field(default_factory=set)
    mark: str = "."


THREADED_TEXT_BYTES = 1 << 22
"""From so many bytes on, columns of plain numbers are typed while they are read."""
PLANNED_TEXT = 1 << 18
"""How much of the text is looked at to decide which columns these are."""
BLOCK_SIZE = 1 << 21
"""Bytes that Arrow parses at a time in one thread: what it makes of them stays in the processor's cache."""
_MONEY_LIMIT, _RETURN_LIMIT = 1e20, 9e9
_ABSENT = ("", "NULL", "null", "N/A", "n/a", "NA", "na", "None", "none", "nil", "#N/A", "<NA>")


def plan_of(
    data: bytes | FileBytes, start: int, delimiter: str, header: list[str], contract: VendorContract | None
) -> Plan:
    """Decide from the first records of a large file, which begin at a place, how its columns can be read.

    A column is read as numbers where its header names an amount or a return and its first values are plain numbers.
    Whether all the others are as well, the reading itself tells.
    """
    plan = Plan()
    if len(data) - start < THREADED_TEXT_BYTES:
        return plan

    def sample(text: bytes) -> list[list[str]]:
        cells = (r.cells for r in records(single_feeds(text).decode("utf-8", "replace"), delimiter))
        return [row for row in cells if len(row) == len(header)]

    beginning = data[start : start + PLANNED_TEXT]
    rows = sample(beginning[: beginning.rfind(b"\n") + 1])
    end = data[max(start, len(data) - PLANNED_TEXT // 8) :]
    ending = sample(end[end.find(b"\n") + 1 :])
    # Where the last rows are of other periods than the first, accounts come again in each.
    dated = naming.fields_of(header, contract.columns if contract else {}).get("period_end")
    several = dated is not None and not {r[dated] for r in rows} & {r[dated] for r in ending}
    found: dict[str, dict[int, tuple[Any, int]]] = {".": {}, ",": {}}
    for place, (name, _) in enumerate(naming.proposals(header, contract.columns if contract else {})):
        cells = {r[place].strip() for r in rows}
        is_repetitive = len(cells) <= 0.9 * len(rows) or (name == "account_id" and several)
        if name in {"account_id", "period_start", "period_end", "currency"} and is_repetitive:
            plan.repeated.add(place)
        if (name in MONEY or name in RETURNS) and not (contract and contract.pictures.get(name)):
            for mark in _marks(delimiter, contract):
                digits = _decimals_of(cells - set(_ABSENT), mark)
                if digits is not None and (name in RETURNS or digits <= 8):
                    kind = pa.decimal128(28, 8) if name in MONEY else pa.decimal128(24, 14)
                    found[mark][place] = (kind, digits)
    # Numbers without decimals are those of either mark.
    plan.mark = max(found, key=lambda mark: sum(digits > 0 for _, digits in found[mark].values()))
    plan.numbers = found[plan.mark]
    if not any(digits for _, digits in plan.numbers.values()):
        plan.numbers = {}
    return plan


def _marks(delimiter: str, contract: VendorContract | None) -> list[str]:
    """Return what can be the decimal mark."""
    if contract is not None and contract.decimal is not None:
        return [contract.decimal]
    return ["."] if delimiter == "," else [".", ","]


def _decimals_of(cells: Set[str], mark: str) -> int | None:
    """Return the most decimals that plain numbers have; None if they are none, or the mark may separate thousands."""
    plain = re.compile(rf"-?\d{{1,18}}({re.escape(mark)}\d{{1,14}})?")
    digits = max((len(c.partition(mark)[2]) for c in cells), default=0)
    if not cells or not all(plain.fullmatch(c) for c in cells):
        return None
    is_proved = any(re.search(rf"{re.escape(mark)}(\d{{1,2}}|\d{{4,}})$", c) for c in cells)
    return digits if is_proved or not digits else None


def _parsed(
    data: bytes, start: int, delimiter: str, width: int, plan: Plan, count: int, *, threads: bool
) -> _Parsed | None:
    """Read records by columns; None where they cannot be read so. What does not hold of a plan is read as text."""
    import pyarrow.csv as arrow_csv

    names = [f"c{i}" for i in range(width)]
    numbers = dict(plan.numbers)
    invalid: list[tuple[int, str]] = []

    def keep(row: Any) -> str:
        invalid.append((row.number - 1, row.text))
        return "skip"

    # Only one thread knows the numbers of records, which those with another number of fields need.
    threads = threads and bool(numbers)
    text = pa.py_buffer(data).slice(start)
    is_quoted = data.find(b'"', start) >= 0
    block_size = 1 << 23 if threads else BLOCK_SIZE
    table: Any = None
    while table is None:
        types = {name: pa.string() for name in names}
        types |= {names[i]: pa.dictionary(pa.int32(), pa.string()) for i in plan.repeated}
        types |= {
            names[i]: kind if i in plan.uneven else pa.decimal128(38, digits) for i, (kind, digits) in numbers.items()
        }
        invalid.clear()
        try:
            table = arrow_csv.read_csv(
                pa.BufferReader(text),
                read_options=arrow_csv.ReadOptions(use_threads=threads, column_names=names, block_size=block_size),
                parse_options=arrow_csv.ParseOptions(
                    delimiter=delimiter,
                    newlines_in_values=is_quoted,
                    ignore_empty_lines=False,
                    invalid_row_handler=None if threads else keep,
                ),
                convert_options=arrow_csv.ConvertOptions(
                    column_types=types,
                    strings_can_be_null=False,
                    null_values=list(_ABSENT),
                    decimal_point=plan.mark,
                ),
            )
        except pa.ArrowException as error:
            if numbers and (named := re.match(r"In CSV column #(\d+)", str(error))) and int(named[1]) in numbers:
                if int(named[1]) not in plan.uneven:
                    plan.uneven.add(int(named[1]))
                else:
                    del numbers[int(named[1])]
                continue
            if threads:
                threads = False
                continue
            return None
        typed = {i: _with_scale(table.column(names[i]), kind) for i, (kind, _) in numbers.items()}
        large = [i for i, column in typed.items() if column is None]
        if large:
            table = None
            for i in large:
                del numbers[i]
    if table.num_rows + len(invalid) != count:
        return None
    table = table.unify_dictionaries()
    columns = [typed[i] if i in typed else _trimmed_column(table.column(names[i])) for i in range(width)]
    return _Parsed(columns, {i: digits for i, (_, digits) in numbers.items()}, invalid)


def _with_scale(column: Any, kind: Any) -> Any | None:
    """Return numbers as one array of decimals of a kind; None where one is too large for it."""
    factor = 10 ** (kind.scale - column.type.scale)
    pieces: list[Any] = [integers_of(piece) for piece in column.chunks] if factor > 1 and len(column) else [None]
    limit = (1 << 63) // factor
    if any(piece is None or (len(piece) and not -limit < piece.min() <= piece.max() < limit) for piece in pieces):
        try:
            cast = pc.cast(combine_chunks(column), kind)
        except pa.ArrowInvalid:
            return None
        return None if _too_large(cast) else cast
    for piece in pieces:
        piece *= factor
    validity = None
    if column.null_count:
        validity = np.concatenate([piece.is_valid().to_numpy(zero_copy_only=False) for piece in column.chunks])
    return decimals_of(np.concatenate(pieces) if len(pieces) != 1 else pieces[0], kind, validity)


def _too_large(column: Any) -> bool:
    """Whether a number is too large for its column: Arrow's reader does not count digits before the point."""
    # The upper halves of the integers tell most columns without a cast.
    half = int((_MONEY_LIMIT if column.type.scale == 8 else _RETURN_LIMIT) * 10**column.type.scale) >> 64
    pieces = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if all(-half < least and greatest < half for least, greatest in map(_upper_halves, pieces)):
        return False
    limit = _MONEY_LIMIT if column.type.scale == 8 else _RETURN_LIMIT
    ends = pc.min_max(pc.cast(column, pa.float64())).as_py()
    return any(end is not None and abs(end) >= limit for end in ends.values())


def _upper_halves(decimals: Any) -> tuple[int, int]:
    """Return the least and the greatest upper 64 bits of an array of decimals, of nulls as well."""
    words = np.frombuffer(decimals.buffers()[1], np.int64)[2 * decimals.offset : 2 * (decimals.offset + len(decimals))]
    return int(words[1::2].min(initial=0)), int(words[1::2].max(initial=0))


def _trimmed_column(column: Any) -> Any:
    column = combine_chunks(column)
    if not pa.types.is_dictionary(column.type):
        return trimmed(column)
    if column.null_count:
        return trimmed(as_text(column)).dictionary_encode()
    values = trimmed(column.dictionary)
    if values.equals(column.dictionary):
        return column
    made = pa.DictionaryArray.from_arrays(column.indices, values)
    # Texts that differ in the spaces around them alone are one value.
    return made if pc.count_distinct(values).as_py() == len(values) else trimmed(as_text(made)).dictionary_encode()


def columnar_table(text: bytes | Block, opening: Opening, contract: VendorContract | None) -> RawTable:
    """Read a table with one header by columns; only lines that do not fit it are looked at one by one.

    Parameters
    ----------
    text
        UTF-8 text with single line feeds, or some of its records.
    opening
        How it begins.
    contract
        Contract that matched the file.

    Raises
    ------
    NotInBlocksError
        Of a block: what is to be said of its records depends on the others.
    """
    block = text if isinstance(text, Block) else None
    data = text.text if isinstance(text, Block) else text
    delimiter, head, found, _ = opening
    header = [h.strip() for h in head[found].cells]
    body = [r.cells for r in head[found + 1 :] if _filled(r.cells)]
    widths = Counter(len(c) for c in body)
    if widths and len(header) not in widths:
        common = widths.most_common(1)[0][0]
        spare = common - len(header)
        if spare > 0 and not any("".join(c[-spare:]).strip() for c in body if len(c) == common):
            header = [*header, *[""] * spare]
        elif spare < 0 and not any(header[spare:]):
            header = header[:spare]
        elif common > len(header):
            raise FileRejected("columns_do_not_match_header")
    width = len(header)
    skipped: Counter[str] = Counter()
    skipped["title_rows"] = sum(1 for r in head[:found] if _filled(r.cells))
    skipped["blank_lines"] = sum(1 for r in head[:found] if not _filled(r.cells))
    preamble = [" ".join(_filled(r.cells)) for r in head[:found] if _filled(r.cells)]
    if block is not None and not block.is_first:
        skipped.clear()
    begins = _record_starts(data, found + 1) if block is None else (0, block.lines)
    read: _Parsed | None = None
    if begins is not None and width > 1 and begins[0] is not None:
        plan = plan_of(data, begins[0], delimiter, header, contract) if block is None else block.plan
        if not data.endswith(b"\n"):
            # Whether the last value is cut off, its text tells.
            plan = Plan()
        read = _parsed(data, begins[0], delimiter, width, plan, len(begins[1]), threads=block is None)
    if read is None and block is not None:
        raise NotInBlocksError
    decimals: dict[int, int] = {}
    mark = "."
    if read is not None and begins is not None:
        lines = begins[1]
        columns, decimals, mark = read.columns, read.decimals, plan.mark
        mask = np.ones(len(lines), bool)
        mask[[i for i, _ in read.invalid]] = False
        good_lines = lines[mask] if read.invalid else lines
        odd = [(int(lines[i]), next(iter(records(text, delimiter)), Row(0, [])).cells) for i, text in read.invalid]
    else:
        # Quotes that cannot be paired, or no rows: one record after the other.
        rows = _all_records(data.decode("utf-8"), delimiter)[found + 1 :]
        fitting = [r for r in rows if len(r.cells) == width]
        columns = [trimmed(pa.array([r.cells[i] for r in fitting], pa.string())) for i in range(width)]
        good_lines = np.array([r.line for r in fitting], np.int64)
        odd = [(r.line, r.cells) for r in rows if len(r.cells) != width]
    fields = naming.fields_of(header, contract.columns if contract else {})
    account = fields.get("account_id")
    sorter = _Sorter(header, account, contract.footers if contract else (), skipped)
    bad: list[BadRow] = []
    last_line = max([int(good_lines[-1]) if len(good_lines) else 0, *(line for line, _ in odd)], default=0)
    cut_off = (block is None or block.is_last) and not data.endswith(b"\n")
    warnings: set[str] = set()
    unclosed = cut_off and begins is None and data.rpartition(b"\n")[2].count(b'"') % 2 == 1
    known: Set[str] = frozenset()
    if block is not None and block.known is not None:
        known = block.known() if odd else known
    elif account is not None and odd and len(good_lines):
        known = first_accounts(columns[account])
    for line, cells in odd:
        first = cells[account].strip() if account is not None and account < len(cells) else ""
        if account and len(cells) > width and first not in known:
            first = ""  # shifted: this may be part of a name
        last = line == last_line
        if (
            last
            and cut_off
            and (first in known or len(cells) > 1)
            and len(cells) < width
            and not sorter.noise(cells, width)
        ):
            bad.append(BadRow(line, first, "truncated_row", "the last line is cut off"))
            warnings.add("truncated_file")
            continue
        reason = None if first and first in known else sorter.noise(cells, width)
        if reason is None and last and cut_off and len(cells) < width:
            bad.append(BadRow(line, first, "truncated_row", "the last line is cut off"))
            warnings.add("truncated_file")
        elif reason:
            skipped[reason] += 1
        else:
            bad.append(BadRow(line, first, "wrong_field_count", f"{len(cells)} fields where the header has {width}"))
    result = RawTable(
        header,
        columns,
        pa.array(good_lines, pa.int64()),
        preamble=preamble,
        skipped=skipped,
        bad=bad,
        warnings=warnings,
        delimiter=delimiter,
        header_line=head[found].line,
        decimals=decimals,
        mark=mark,
    )
    if unclosed and result.rows and account is not None and result.lines[-1].as_py() == last_line:
        bad.append(BadRow(last_line, result.columns[account][-1].as_py(), "truncated_row", "the last line is cut off"))
        warnings.add("truncated_file")
        mask = np.ones(result.rows, bool)
        mask[-1] = False
        keep_rows(result, pa.array(mask))
    _drop_noise(result, sorter, account)
    result.stated_count, result.counted = sorter.count, result.rows + len(result.bad)
    if block is None and result.stated_count not in {None, result.counted}:
        raise FileRejected("trailer_count_mismatch")
    if cut_off:
        _mark_cut_off([result], data.count(b"\n") + (1 if block is None else int(block.lines[0])))
    return result


def first_accounts(column: Any) -> frozenset[str]:
    """Return the accounts of the first rows of a table: what begins with one of them is a row, if a broken one."""
    return frozenset(column.slice(0, 1000).to_pylist())


def _drop_noise(table: RawTable, sorter: _Sorter, account: int | None) -> None:
    """Drop rows of the right width that are blank, totals, notes or the header again."""
    if table.rows == 0:
        return
    key = table.columns[account if account is not None else 0]
    title = table.headers[account or 0].casefold()

    def is_suspicious(texts: Any) -> Any:
        found = pc.or_(
            pc.equal(texts, ""),
            pc.match_substring_regex(
                texts, r"(?i)tot|summe|gesamt|insges|suma|somma|sous|page|end of|[*=#-]{2,}|count|record"
            ),
        )
        found = pc.or_(found, pc.equal(pc.utf8_lower(texts), title))
        # Text with several words and no other cell that is filled can only be a note.
        found = pc.or_(found, pc.match_substring_regex(texts, r"\S\s+\S+\s+\S"))
        if sorter.footers:
            footers = "|".join(f"(?i)^{re.escape(f)}" for f in sorter.footers)
            found = pc.fill_null(pc.or_(found, pc.match_substring_regex(texts, footers)), True)
        return found

    suspicious = by_value(key, is_suspicious)
    dated = naming.fields_of(table.headers, {}).get("period_end")
    if dated is not None:
        suspicious = pc.or_(suspicious, by_value(table.columns[dated], lambda texts: pc.equal(texts, "")))
    indices = pc.indices_nonzero(suspicious).to_numpy()
    if len(indices) == 0:
        return
    drop = []
    picked = [as_text(pc.take(c, pa.array(indices))).to_pylist() for c in table.columns]
    for place, row in enumerate(indices.tolist()):
        reason = sorter.noise([c[place] for c in picked], len(table.headers))
        if reason:
            table.skipped[reason] += 1
            drop.append(row)
    if drop:
        mask = np.ones(table.rows, bool)
        mask[drop] = False
        keep_rows(table, pa.array(mask))


def keep_rows(table: RawTable, mask: Any) -> None:
    """Keep the rows of a raw table where the mask is true.

    Parameters
    ----------
    table
        Changed in place.
    mask
        Boolean array.
    """
    if table.flags:
        kept = pc.indices_nonzero(mask).to_pylist()
        table.flags = {new: table.flags[old] for new, old in enumerate(kept) if old in table.flags}
    table.columns = [pc.filter(c, mask) for c in table.columns]
    table.lines = pc.filter(table.lines, mask)
    table.native = {k: pc.filter(v, mask) for k, v in table.native.items()}
    table.cell_lines = {k: pc.filter(v, mask) for k, v in table.cell_lines.items()}


def _mark_cut_off(tables: list[RawTable], final_line: int) -> None:
    """Quarantine a last row whose last value is not as long as all others, where the last line has no end."""
    if not tables or tables[-1].rows < 4 or tables[-1].cell_lines:
        return
    table = tables[-1]
    if table.lines[-1].as_py() != final_line:
        return
    values = as_text(table.columns[-1].slice(max(0, table.rows - 2000))).to_pylist()
    if not _shorter(values[-1], values[:-1]):
        return
    fields = naming.fields_of(table.headers, {})
    account = table.columns[fields["account_id"]][-1].as_py() if "account_id" in fields else ""
    table.bad.append(BadRow(final_line, account, "truncated_row", "the last line is cut off"))
    table.warnings.add("truncated_file")
    mask = np.ones(table.rows, bool)
    mask[-1] = False
    keep_rows(table, pa.array(mask))


def _decimals(text: str) -> int:
    text = text[-_LONGEST_LINE:]
    return len(re.sub(r"^.*?[.,](?=\d*\D*$)|\D+$", "", text)) if re.search(r"[.,]\d*\D*$", text) else 0


def _shorter(own: str, others: list[str]) -> bool:
    """Whether a last value misses an end that all others have."""
    if not others or not all(others):
        return False
    if not own:
        return True
    ends = {v[-1] for v in others}
    if len(ends) == 1 and not next(iter(ends)).isalnum() and own[-1] not in ends:
        return True
    tails = {_decimals(v) for v in others}
    return len(tails) == 1 and 0 not in tails and _decimals(own) < next(iter(tails))


def _without_cut_row(rows: list[Row], header: list[str], account: int | None) -> tuple[list[Row], list[BadRow]]:
    """Take a last record that is cut off out of the records of a table of periods."""
    last = rows[-1] if rows else None
    if last is None or len(_filled(last.cells)) < 2:
        return rows, []
    short = len(last.cells) < len(header) and account is not None and bool(last.cells[account : account + 1])
    numbers = [c for c in last.cells[:-1] if re.search(r"[.,]\d", c)]
    if not short and not (len(last.cells) == len(header) and len(numbers) >= 2 and _shorter(last.cells[-1], numbers)):
        return rows, []
    own = last.cells[account].strip() if account is not None and account < len(last.cells) else ""
    return rows[:-1], [BadRow(last.line, own, "truncated_row", "the last line is cut off")]


# --- records by contract ---------------------------------------------------------------------------------------------


def _positional(data: bytes, delimiter: str, contract: VendorContract) -> RawTable:
    """Read records whose fields a contract names: delimited or fixed width, with control records."""
    text = data.decode("utf-8")
    fixed = contract.layout == "fixed_width"
    skipped: Counter[str] = Counter()
    bad: list[BadRow] = []
    specs = contract.fields
    rows: list[tuple[int, list[str]]] = []
    preamble: list[str] = []
    trailer_cells: tuple[str, list[str]] | None = None
    index = contract.record_type_index or 0
    trailer = contract.trailer
    length = contract.record_length or max((s.end or 0 for s in specs), default=0)
    source: Iterable[tuple[int, str, list[str]]]
    if fixed:
        source = ((n, line, []) for n, line in enumerate(text.split("\n"), 1))
    else:
        source = ((r.line, delimiter.join(r.cells), r.cells) for r in records(text, delimiter))
    last_line = data.rstrip(b"\n").count(b"\n") + 1
    warnings: set[str] = set()
    budget = current_budget()
    held = 0
    for number, line, cells in source:
        held += len(cells) or len(specs)
        if number % _AT_ONCE == 0:
            budget.take_cells(held)
            budget.tick()
            held = 0
        if not line.strip():
            if number <= last_line:
                skipped["blank_lines"] += 1
            continue
        kind = line if fixed else (cells[index].strip() if index < len(cells) else "")
        if trailer and _is_kind(kind, trailer.prefix, fixed):
            trailer_cells = (line, cells)
            continue
        if contract.header_prefix and _is_kind(kind, contract.header_prefix, fixed):
            preamble.append(line)
            skipped["header_records"] += 1
            continue
        if contract.detail_prefix and not _is_kind(kind, contract.detail_prefix, fixed):
            if any(_begins(line, f) for f in contract.footers) or is_total(kind.strip()):
                skipped["footers"] += 1
            elif not contract.header_prefix and not rows:
                skipped["header_records"] += 1
            else:
                bad.append(BadRow(number, "", "unknown_record_type", "a record type that the contract does not name"))
            continue
        if any(_begins(line, f) for f in contract.footers):
            skipped["footers"] += 1
            continue
        if fixed:
            short = len(line.rstrip()) < min(
                length,
                max((s.end or 0) for s in specs if s.name in MUST) if any(s.name in MUST for s in specs) else length,
            )
            if short or (
                contract.record_length and len(line) > contract.record_length and line[contract.record_length :].strip()
            ):
                if not contract.detail_prefix and _prose(line.split()):
                    skipped["footers"] += 1
                    continue
                cut = number == last_line and not data.endswith(b"\n")
                account = next((line[s.start : s.end].strip() for s in specs if s.name == "account_id"), "")
                bad.append(
                    BadRow(number, account, "truncated_row" if cut else "wrong_record_length", "not the record length")
                )
                if cut:
                    warnings.add("truncated_file")
                continue
            rows.append((number, [line[s.start : s.end] for s in specs]))
        elif len(cells) < len(specs) or any(c.strip() for c in cells[len(specs) :]):
            place = next((i for i, s in enumerate(specs) if s.name == "account_id"), 0)
            sorter = _Sorter([], place, contract.footers, skipped)
            reason = None if contract.detail_prefix else sorter.noise(cells, len(specs))
            if reason:
                skipped[reason] += 1
                continue
            account = cells[place].strip() if place < len(cells) else ""
            cut = number == last_line and not data.endswith(b"\n")
            bad.append(BadRow(number, account, "truncated_row" if cut else "wrong_field_count", f"{len(cells)} fields"))
            if cut:
                warnings.add("truncated_file")
        else:
            if not contract.detail_prefix:
                place = next((i for i, s in enumerate(specs) if s.name == "account_id"), 0)
                sorter = _Sorter([], place, contract.footers, skipped)
                reason = sorter.noise(cells, len(specs)) if is_total(cells[place]) or not cells[place].strip() else None
                if reason:
                    skipped[reason] += 1
                    continue
            rows.append((number, cells[: len(specs)]))
    columns = []
    for i, spec in enumerate(specs):
        values: list[str] = [c[i].strip() for _, c in rows]
        picture = spec.picture or contract.pictures.get(spec.name)
        if picture:
            values = [implied(v, picture) for v in values]
        columns.append(pa.array(values, pa.string()))
    table = RawTable(
        [s.name for s in specs],
        columns,
        pa.array([n for n, _ in rows], pa.int64()),
        preamble=preamble,
        skipped=skipped,
        bad=bad,
        warnings=warnings,
        delimiter="" if fixed else delimiter,
        positional=contract,
    )
    _check_trailer(table, contract, trailer_cells, fixed)
    return table


MUST = frozenset({"account_id", "period_end", "ending_market_value"})


def _is_kind(kind: str, prefix: str, fixed: bool) -> bool:
    return (
        kind.startswith(prefix)
        if fixed
        else kind.strip() == prefix.strip() or (len(prefix) > 3 and kind.startswith(prefix))
    )


def _check_trailer(table: RawTable, contract: VendorContract, found: tuple[str, list[str]] | None, fixed: bool) -> None:
    """Compare the control record with what was read."""
    trailer = contract.trailer
    if trailer is None:
        return
    if found is None:
        if trailer.required:
            raise FileRejected("missing_trailer")
        table.warnings.add("missing_trailer")
        return
    if "truncated_file" in table.warnings and trailer.required:
        raise FileRejected("truncated_file")
    line, cells = found
    stated = None
    if trailer.count_after is not None:
        match = re.search(re.escape(trailer.count_after) + r"\s*(\d+)", line)
        if match is None:
            raise FileRejected("bad_trailer")
        stated = match[1]
    elif trailer.count_slice is not None:
        stated = line[slice(*trailer.count_slice)].strip()
    elif trailer.count_index is not None:
        if trailer.count_index >= len(cells):
            raise FileRejected("bad_trailer")
        stated = cells[trailer.count_index].strip()
    if stated is not None:
        if not re.fullmatch(r"\d+", stated):
            raise FileRejected("bad_trailer")
        count = table.rows + len(table.bad)
        if trailer.count_includes_control_records:
            count += 1 + table.skipped["header_records"]
        if int(stated) != count:
            raise FileRejected("trailer_count_mismatch")
    from finance_assets.advisory.reading.values import parse_number

    sums: list[tuple[str, str]] = []
    for name, place in trailer.sums.items():
        if place >= len(cells):
            raise FileRejected("bad_trailer")
        sums.append((name, cells[place].strip()))
    sums += [(name, line[slice(*span)].strip()) for name, span in trailer.sum_slices.items()]
    for name, after in trailer.sum_after.items():
        match = re.search(re.escape(after) + r"\s*([-+()\d.,]+[A-R{}]?)", line)
        if match is None:
            raise FileRejected("bad_trailer")
        sums.append((name, match[1]))
    for name, text in sums:
        if name not in table.headers:
            continue
        place = table.headers.index(name)
        spec = contract.fields[place]
        picture = trailer.sum_pictures.get(name) or (
            None if "." in text else spec.picture or contract.pictures.get(name)
        )
        mark = contract.decimal or "."
        total = parse_number(implied(text, picture) if picture else text, mark)
        values = [parse_number(v, "." if spec.picture else mark) for v in table.columns[place].to_pylist()]
        if table.bad or any(isinstance(v, str) for v in values):
            continue  # a row that cannot be read explains a difference; the count above was still checked
        if not isinstance(total, Decimal) or total != sum((v for v in values if isinstance(v, Decimal)), Decimal(0)):
            raise FileRejected("trailer_sum_mismatch")


def fixed_width_table(data: bytes, contract: VendorContract) -> RawTable:
    """Read fixed-width records by contract.

    Parameters
    ----------
    data
        UTF-8 text with single line feeds.
    contract
        Contract with offsets.

    Returns
    -------
    RawTable
        One table.
    """
    return _positional(data, "", contract)


# --- grids -----------------------------------------------------------------------------------------------------------


def _section(cells: list[str], contract: VendorContract | None) -> tuple[str, str] | None:
    """Return account and currency of the line that opens an account's section."""
    filled = [c.strip()[:_LONGEST_LINE] for c in cells if c.strip()]
    if not filled:
        return None
    if contract and contract.section_pattern:
        for joined in ("|".join(filled), " ".join(filled), ",".join(filled)):
            match = re.search(contract.section_pattern, joined)
            if match:
                named = match.groupdict()
                account = named.get("account") or named.get("account_id") or (match[1] if match.groups() else "")
                return (account or "").strip(), (named.get("currency") or "").strip()
        return None
    if len(filled) > 4:
        return None
    match = _SECTION.match(filled[0])
    rest = match["rest"].strip() if match else ""
    if (match is None and len(filled) in (2, 3) and naming.field_of(filled[0].rstrip(":"))[0] == "account_id") or (
        match and not rest and len(filled) > 1
    ):
        rest = filled[1]
    if not rest:
        return None
    brackets = re.search(r"\(([\w./-]*\d[\w./-]*)\)", rest)
    token = re.match(r"[\w][\w./-]*", rest)
    account = token[0] if token and re.search(r"\d", token[0]) else brackets[1] if brackets else ""
    if not account:
        return None
    currency = re.search(r"\b(?:currency|ccy|in)\W+([A-Z]{3})\b|\(([A-Z]{3})\)|[,;|]\s*([A-Z]{3})$", " | ".join(filled))
    return account, next((g for g in (currency.groups() if currency else ()) if g), "")


def grid_tables(rows: Iterable[Row], contract: VendorContract | None = None, member: str = "") -> list[RawTable]:
    """Find the tables in a grid of cells: below titles, by section, with months across.

    Parameters
    ----------
    rows
        Records in their order.
    contract
        Contract that matched.
    member
        Name of the sheet or member.

    Returns
    -------
    list of RawTable
        Tables; none if there is no header.
    """
    aliases = contract.columns if contract else {}
    footers = contract.footers if contract else ()
    tables: list[_Builder] = []
    preamble: list[str] = []
    skipped: Counter[str] = Counter()
    builder: _Builder | None = None
    account = currency = ""
    previous: list[str] = []
    budget = current_budget()
    for count, row in enumerate(rows):
        if count % _AT_ONCE == 0:
            budget.tick()
        filled = _filled(row.cells)
        if not filled:
            skipped["blank_lines"] += 1
            continue
        section = _section(row.cells, contract)
        if section is not None and (
            builder is None or builder.sectioned or not builder.rows or (contract and contract.section_pattern)
        ):
            account, currency = section[0], section[1]
            skipped["section_rows"] += 1
            continue
        if naming.is_header(row.cells, aliases):
            fields = naming.fields_of(row.cells, aliases)
            same = builder is not None and [naming.normalised(c) for c in row.cells] == [
                naming.normalised(c) for c in builder.header
            ]
            if builder is not None and same:
                skipped["repeated_headers"] += 1
                continue
            header = row.cells
            months = naming.month_columns(header)
            if not months and previous and naming.month_columns(previous):
                header = _two_rows(previous, header)
                months = naming.month_columns(header)
            if (
                builder is None
                or not builder.rows
                or set(fields) - set(naming.fields_of(builder.header, aliases))
                or "account_id" not in fields
            ):
                budget.take("tables")
                builder = _Builder(
                    header,
                    row.line,
                    "account_id" not in fields,
                    _Sorter(header, fields.get("account_id"), footers, skipped),
                )
                tables.append(builder)
                continue
        previous = row.cells
        if builder is None:
            if match := _CURRENCY_LINE.match(" ".join(filled)[:_LONGEST_LINE]):
                currency = currency or match[1].upper()
            preamble.append(" ".join(filled))
            skipped["title_rows"] += 1
            continue
        match = _CURRENCY_LINE.match(" ".join(filled)[:_LONGEST_LINE]) if len(filled) <= 2 else None
        if match and builder.sectioned:
            currency = match[1].upper()
            continue
        builder.add(row, account, currency)
    found = [b.table(preamble, skipped, member) for b in tables if b.rows or b.bad or len(tables) == 1]
    return [unpivoted(table, aliases) for table in found]


def _two_rows(upper: list[str], lower: list[str]) -> list[str]:
    """Join a row of periods and the row of measures below it."""
    out, period = [], ""
    for i in range(max(len(upper), len(lower))):
        above = upper[i].strip() if i < len(upper) else ""
        below = lower[i].strip() if i < len(lower) else ""
        period = above or period
        out.append(
            f"{period} {below}".strip()
            if period and naming.month_of(period) and below and naming.field_of(below)[0] != "account_id"
            else below or above
        )
    return out


class _Builder:
    """Rows of one table as they come."""

    def __init__(self, header: list[str], line: int, sectioned: bool, sorter: _Sorter) -> None:
        self.header = [h.strip() for h in header]
        while self.header and not self.header[-1]:
            self.header.pop()
        self.line = line
        self.sectioned = sectioned
        self.sorter = sorter
        self.rows: list[tuple[Row, str, str]] = []
        self.bad: list[BadRow] = []

    def add(self, row: Row, account: str, currency: str) -> None:
        reason = self.sorter.noise(row.cells, len(self.header))
        if reason is None and self.sectioned and len(_filled(row.cells)) == 1:
            reason = "footers"
        if reason:
            self.sorter.skipped[reason] += 1
            return
        width = len(self.header)
        wide = any(c.strip() for c in row.cells[width:])
        if wide or len(row.cells) < width - 3 - width // 2:
            place = self.sorter.account
            own = (
                account if self.sectioned else row.cells[place] if place is not None and place < len(row.cells) else ""
            )
            self.bad.append(BadRow(row.line, own, "wrong_field_count", f"{len(row.cells)} cells"))
            return
        self.rows.append((row, account, currency))

    def table(self, preamble: list[str], skipped: Counter[str], member: str) -> RawTable:
        headers, width = list(self.header), len(self.header)
        budget = current_budget()
        # Rows may be shorter than the header, and what stands above a section is written to each of its rows.
        budget.need("cells", width * len(self.rows))
        budget.need("characters", sum(len(account) + len(currency) for _, account, currency in self.rows))
        budget.tick()
        columns, native = [], {}
        for i in range(width):
            columns.append(
                trimmed(pa.array([r.cells[i] if i < len(r.cells) else "" for r, _, _ in self.rows], pa.string()))
            )
            typed = [i in r.native for r, _, _ in self.rows]
            if any(typed):
                native[i] = pa.array(typed, pa.bool_())
        if self.sectioned and any(a for _, a, _ in self.rows):
            headers.append("account_id")
            columns.append(pa.array([a for _, a, _ in self.rows], pa.string()))
        if any(c for _, _, c in self.rows) and "currency" not in naming.fields_of(headers, {}):
            headers.append("currency")
            columns.append(pa.array([c for _, _, c in self.rows], pa.string()))
        return RawTable(
            headers,
            columns,
            pa.array([r.line for r, _, _ in self.rows], pa.int64()),
            member=member,
            native=native,
            preamble=preamble,
            skipped=skipped,
            bad=self.bad,
            header_line=self.line,
        )


def unpivoted(table: RawTable, aliases: dict[str, str]) -> RawTable:
    """Turn columns of periods into rows, where there are any.

    Parameters
    ----------
    table
        Raw table.
    aliases
        From a contract.

    Returns
    -------
    RawTable
        A row per account and period; the table itself if it has no columns of periods.
    """
    if not naming.month_columns(table.headers):
        return table
    months = naming.month_columns(table.headers)
    ids = [i for i in range(len(table.headers)) if i not in months]
    fields = naming.fields_of([table.headers[i] for i in ids], aliases)
    fields = {name: ids[i] for name, i in fields.items()}
    data = [c.to_pylist() for c in table.columns]
    measure_column = next((i for i in ids if naming.is_measure_column(table.headers[i], data[i])), None)
    if "account_id" not in fields:
        raise FileRejected("unknown_schema")
    account = data[fields["account_id"]]
    filled_account = ""
    currency = data[fields["currency"]] if "currency" in fields else None
    title = " ".join(table.preamble)
    records_out: dict[tuple[str, str], dict[str, tuple[str, int, bool]]] = {}
    first_line: dict[tuple[str, str], int] = {}
    currencies: dict[tuple[str, str], str] = {}
    measures: dict[str, None] = {}
    lines = table.lines.to_pylist()
    natives = {k: v.to_pylist() for k, v in table.native.items()}
    doubled: set[tuple[str, str, str]] = set()
    # Nothing but a return is written with a percent sign throughout.
    shown = [data[i][row] for i in months for row in range(table.rows) if data[i][row]]
    all_percent = bool(shown) and all(t.endswith("%") for t in shown)
    bad = list(table.bad)
    budget = current_budget()
    for row in range(table.rows):
        if row % _AT_ONCE == 0:
            budget.tick()
            budget.need("cells", len(records_out) * (3 + len(measures)))
        filled_account = account[row] or filled_account
        if measure_column is None and not account[row]:
            bad.append(BadRow(lines[row], "", "missing_required", "no account"))
            continue
        for place, (period, own_measure) in months.items():
            measure = own_measure or (data[measure_column][row] if measure_column is not None else "")
            if not measure:
                measure = naming.title_measure(title) or ("Return %" if all_percent else "")
                if not measure:
                    raise FileRejected("unknown_measure")
            text = data[place][row]
            if not text:
                continue
            key = (filled_account, period)
            cell = records_out.setdefault(key, {})
            first_line.setdefault(key, lines[row])
            if currency is not None and currency[row]:
                currencies.setdefault(key, currency[row])
            measures.setdefault(measure)
            if measure in cell and cell[measure][0] != text:
                doubled.add((*key, measure))
            cell[measure] = (text, lines[row], bool(place in natives and natives[place][row]))
    for acct, period, measure in sorted(doubled):
        cell = records_out.pop((acct, period), {})
        if cell:
            bad.append(BadRow(cell[measure][1], acct, "duplicate_conflict", f"two values of one measure in {period}"))
    keys = list(records_out)
    budget.need("cells", len(keys) * (3 + len(measures)))
    budget.need("characters", sum(len(account) + len(period) for account, period in keys))
    headers = ["account_id", "period", *measures]
    columns = [pa.array([k[0] for k in keys], pa.string()), pa.array([k[1] for k in keys], pa.string())]
    native, cell_lines = {}, {}
    for i, measure in enumerate(measures, 2):
        cells = [records_out[k].get(measure, ("", first_line[k], False)) for k in keys]
        columns.append(pa.array([c[0] for c in cells], pa.string()))
        cell_lines[i] = pa.array([c[1] for c in cells], pa.int64())
        native[i] = pa.array([c[2] for c in cells], pa.bool_())
    if currency is not None:
        headers.append("currency")
        columns.append(pa.array([currencies.get(k, "") for k in keys], pa.string()))
    return RawTable(
        headers,
        columns,
        pa.array([first_line[k] for k in keys], pa.int64()),
        member=table.member,
        native=native,
        cell_lines=cell_lines,
        preamble=table.preamble,
        skipped=table.skipped,
        bad=bad,
        warnings=table.warnings,
        header_line=table.header_line,
    )


# --- workbooks -------------------------------------------------------------------------------------------------------


def plain_number(value: float | int | Decimal) -> str:
    """Write a number that a binary format held, without the noise of its last bits.

    Parameters
    ----------
    value
        The number.

    Returns
    -------
    str
        Plain digits.
    """
    if isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            return "NaN"
        shortest = repr(value)
        number = Decimal(shortest)
        if len(number.as_tuple().digits) > 15:
            # A spreadsheet shows and means fifteen digits.
            number = Decimal(format(value, ".15g"))
        if 1000 <= abs(number) < 10**15:
            number = round(number, 8)  # of an amount of this size the rest is noise of the sums before it
    else:
        number = Decimal(value)
    if number == number.to_integral_value() and abs(number.adjusted()) < 40:
        return str(number.quantize(Decimal(1)))
    return format(number, "f") if number.adjusted() > -40 else "0"


def cell_text(value: Any, number_format: str) -> tuple[str, bool]:
    """Write the value of a cell as text.

    Parameters
    ----------
    value
        What a workbook holds.
    number_format
        How it is shown; only a percent sign in it matters.

    Returns
    -------
    tuple
        Text, empty where there is nothing, and whether it is a number.
    """
    if value is None:
        return "", False
    if isinstance(value, bool):
        return str(value), False
    if isinstance(value, datetime):
        return value.date().isoformat(), False
    if isinstance(value, date):
        return value.isoformat(), False
    if isinstance(value, time):
        return value.isoformat(), False
    if isinstance(value, (int, float, Decimal)):
        plain = plain_number(value)
        shown = re.sub(r'"[^"]*"|\\.|\[[^\]]*\]', "", (number_format or "")[:256])
        if "%" in shown and plain != "NaN":
            return format(Decimal(plain) * 100, "f") + "%", True
        return plain, True
    return str(value).strip(), False


def sheet_tables(sheets: Iterable[tuple[str, list[Row]]], contract: VendorContract | None = None) -> list[RawTable]:
    """Find the tables of performance in the sheets of a workbook.

    Parameters
    ----------
    sheets
        Titles and rows.
    contract
        Contract that matched.

    Returns
    -------
    list of RawTable
        One per table; other sheets are counted in the first.

    Raises
    ------
    FileRejected
        If no sheet has one.
    """
    sheets = list(sheets)
    tables: list[RawTable] = []
    other = 0
    feeds: list[str] = []
    for title, rows in sheets:
        if contract and contract.positional and not contract.has_header:
            found = [_positional_grid(rows, contract, title)]
        else:
            found = grid_tables(rows, contract, title)
        feed = naming.feed_of([r.cells for r in rows[:50]])
        if feed and not found:
            feeds.append(feed)
        if not found or feed:
            other += 1
            continue
        tables += found
    if not tables:
        raise FileRejected(feeds[0] if feeds else "unknown_schema" if any(r for _, r in sheets) else "empty_file")
    if other:
        tables[0].skipped["other_sheets"] += other
    for table in tables:
        table.lossy = set(range(len(table.headers)))  # a workbook holds every number as a double
    return tables


def _positional_grid(rows: list[Row], contract: VendorContract, title: str) -> RawTable:
    kept = [r for r in rows if _filled(r.cells)]
    names = [s.name for s in contract.fields]
    columns = [
        pa.array([r.cells[i].strip() if i < len(r.cells) else "" for r in kept], pa.string()) for i in range(len(names))
    ]
    native = {i: pa.array([i in r.native for r in kept], pa.bool_()) for i in range(len(names))}
    return RawTable(
        names, columns, pa.array([r.line for r in kept], pa.int64()), member=title, native=native, positional=contract
    )


# --- JSON ------------------------------------------------------------------------------------------------------------

LINE = "\0line"
"""Key under which an object of a document keeps where it stands."""
_NOT_FINITE = "NaN"
_LONGEST_PATH = 2000
"""Most characters of the keys above a value, which are written before its own."""


class _Decoder(json.JSONDecoder):
    """JSON with exact numbers, with the offset of every object, and with the keys that an object names twice."""

    def __init__(self) -> None:
        super().__init__(
            parse_float=self._number,
            parse_int=self._number,
            parse_constant=lambda _: _Native(_NOT_FINITE),
            object_pairs_hook=self._object,
        )
        self.repeated: dict[int, str] = {}
        """A key that is named twice, by the offset of the object."""
        self._budget = current_budget()
        self._twice: str | None = None
        self._numbers = self._objects = 0
        parse: Callable[..., tuple[dict[str, Any], int]] = json.decoder.JSONObject  # type: ignore[attr-defined]
        parse_list: Callable[..., tuple[list[Any], int]] = json.decoder.JSONArray  # type: ignore[attr-defined]

        def positioned(s_and_end: tuple[str, int], *args: Any) -> tuple[dict[str, Any], int]:
            self._count()
            made, end = parse(s_and_end, *args)
            made[LINE] = s_and_end[1] - 1
            if self._twice is not None:
                self.repeated[s_and_end[1] - 1], self._twice = self._twice, None
            return made, end

        def counted(*args: Any) -> tuple[list[Any], int]:
            self._count()
            return parse_list(*args)

        self.parse_object = positioned
        self.parse_array = counted
        self.scan_once = json.scanner.py_make_scanner(self)  # type: ignore[attr-defined]

    def _count(self) -> None:
        self._objects += 1
        if self._objects % _AT_ONCE == 0:
            self._budget.take("objects", _AT_ONCE)
            self._budget.tick()

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            self._twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        return made

    def _number(self, text: str) -> _Native:
        self._numbers += 1
        if self._numbers % 4096 == 0:
            self._budget.need("cells", self._numbers)
        return _Native(text if len(text) <= 60 else _NOT_FINITE)


class _Native(str):
    """A number as the source wrote it."""

    __slots__ = ()


def json_tables(data: bytes, contract: VendorContract | None = None) -> list[RawTable]:
    """Read JSON (arrays, nested documents, trees) and JSON lines.

    Parameters
    ----------
    data
        UTF-8 text with single line feeds.
    contract
        Contract that matched.

    Returns
    -------
    list of RawTable
        One table.
    """
    text = data.decode("utf-8").strip("\ufeff")
    decoder = _Decoder()
    skipped: Counter[str] = Counter()
    bad: list[BadRow] = []
    warnings: set[str] = set()
    documents: list[tuple[Any, int]] = []
    failed: int | None = None
    ends = np.flatnonzero(np.frombuffer(text.encode("utf-32-le"), np.uint32) == 10)

    def line_of(offset: int) -> int:
        return int(np.searchsorted(ends, offset)) + 1

    lines = text.split("\n")
    start = next((i for i, line in enumerate(lines) if line.strip()), 0)
    by_line = sum(1 for line in lines if line.strip().startswith("{")) > 1 and _parses(decoder, lines[start])
    offsets_absolute = True
    try:
        if by_line and not text.lstrip().startswith("["):
            offsets_absolute = False
            for number, line in enumerate(lines, 1):
                if not line.strip():
                    if number < len(lines):
                        skipped["blank_lines"] += 1
                    continue
                decoder.repeated.clear()
                try:
                    made = decoder.decode(line)
                    if not isinstance(made, dict):
                        raise ValueError
                except ValueError:
                    last = number == len(lines)
                    bad.append(BadRow(number, "", "truncated_row" if last else "malformed_json", "not a JSON object"))
                    if last:
                        warnings.add("truncated_file")
                    continue
                if decoder.repeated:
                    bad.append(
                        BadRow(number, "", "duplicate_keys", _named_twice(next(iter(decoder.repeated.values()))))
                    )
                    continue
                documents.append((made, number))
            if skipped["blank_lines"]:
                warnings.add("blank_lines")
        else:
            decoder.repeated.clear()
            document, failed = _whole(decoder, text)
            ignored = sum(not isinstance(e, (dict, list)) for e in document) if isinstance(document, list) else 0
            if ignored and ignored < len(document):
                skipped["not_records"] += ignored
                warnings.add("records_ignored")
            documents.append((document, 0))
            if failed is not None and failed < 0:
                warnings.add("truncated_file")
            elif failed is not None:
                bad.append(BadRow(line_of(failed), "", "truncated_row", "the document ends within this record"))
                warnings.add("truncated_file")
    except RecursionError as error:
        raise FileRejected("malformed_json", "objects lie too deep in one another: flatten them") from error
    path = contract.json_rows if contract and offsets_absolute else None
    records = Records(line_of if offsets_absolute else None, skipped, bad, warnings)
    for document, number in documents:
        records.add(document, path, number)
        if offsets_absolute and decoder.repeated:
            _leave_out_repeated(records, decoder, text, failed)
    return [records.table(contract)]


def _named_twice(key: str) -> str:
    return f"an object names the key {key[:60]!r} twice, so its meaning is open; name each key once"


def _leave_out_repeated(records: Records, decoder: _Decoder, text: str, failed: int | None) -> None:
    """Quarantine the records of a document that name a key twice; where that is above records, all of it is in doubt.

    Raises
    ------
    FileRejected
        ``duplicate_keys``.
    """
    line_of = records.line_of or _same_line
    repeated = sorted(decoder.repeated.items())
    starts = sorted({offset for _, offset in records.flat})
    omitted: dict[int, str] = {}
    end = -1
    for place, key in repeated:
        if failed is not None and 0 <= failed <= place:
            break  # in the record within which the document ends
        found = bisect_right(starts, place) - 1
        start = starts[found] if found >= 0 else -1
        if start != place and place >= end and start >= 0:
            end = decoder.raw_decode(text, start)[1]
        if start < 0 or (start != place and place >= end):
            raise FileRejected("duplicate_keys", f"line {line_of(place)}: {_named_twice(key)}")
        omitted.setdefault(start, key)
    for start, key in omitted.items():
        records.bad.append(BadRow(line_of(start), "", "duplicate_keys", _named_twice(key)))
    records.flat = [(record, offset) for record, offset in records.flat if offset not in omitted]


def _same_line(offset: int) -> int:
    return offset


@dataclass
class Records:
    """Flat records out of nested documents, whatever these were written in.

    ``line_of`` gives the line of the offset of an object; without it each document has a line of its own.
    """

    line_of: Callable[[int], int] | None
    skipped: Counter[str] = field(default_factory=Counter)
    bad: list[BadRow] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    flat: list[tuple[dict[str, Any], int]] = field(default_factory=list)
    from_above: set[str] = field(default_factory=set)
    preamble: list[str] = field(default_factory=list)
    empty: bool | None = None

    def add(self, document: Any, path: str | None = None, line: int = 0) -> None:
        """Write out the records of a document.

        Parameters
        ----------
        document
            Dicts and lists; a dict has its offset under `LINE`.
        path
            Keys that lead to the list of records, with dots between them; without it the lists are found.
        line
            Line of the document, where objects have no offsets.

        Raises
        ------
        FileRejected
            ``unknown_schema`` where the path leads nowhere.
        """
        before = len(self.flat)
        if self.empty is None:
            self.empty = not document or (isinstance(document, dict) and not document.keys() - {LINE})
        root, context = document, dict[str, Any]()
        if path:
            for part in path.split("."):
                if isinstance(root, dict) and part in root:
                    _scalars({k: v for k, v in root.items() if k != part}, "", context)
                    root = root[part]
                elif isinstance(root, list) and part.isdigit() and int(part) < len(root):
                    root = root[int(part)]
                elif isinstance(root, list):
                    break  # the rest of the path lies within the elements
                elif part not in {"*", ""}:
                    raise FileRejected("unknown_schema")
        elif isinstance(root, dict):
            self.preamble += titles_of(root)
        _expand(root, "", context, self.flat, None, self.from_above)
        if self.line_of is None:
            self.flat[before:] = [(r, line) for r, _ in self.flat[before:]]

    def table(self, contract: VendorContract | None = None) -> RawTable:
        """Return the records as a table.

        Parameters
        ----------
        contract
            Contract that matched.

        Returns
        -------
        RawTable
            A column per key, with the keys above it; rows of totals are left out.

        Raises
        ------
        FileRejected
            If there are no records, or more keys than a table has columns.
        """
        if not self.flat:
            if self.bad:
                if all(row.reason == "duplicate_keys" for row in self.bad):
                    raise FileRejected("duplicate_keys", f"line {self.bad[0].line}: {self.bad[0].detail}")
                raise FileRejected("malformed_json")
            raise FileRejected("empty_file" if self.empty else "unknown_schema")
        headers = list(dict.fromkeys(name for record, _ in self.flat for name in record))
        if len(headers) > MAX_COLUMNS:
            raise FileRejected("too_many_columns")
        budget = current_budget()
        # Where records have keys of their own, most cells of the table are empty.
        budget.need("cells", len(headers) * len(self.flat) - sum(len(record) for record, _ in self.flat))
        columns, native = [], {}
        for i, name in enumerate(headers):
            budget.tick()
            cells = [record.get(name) for record, _ in self.flat]
            texts = [_json_text(c) for c in cells]
            budget.take("characters", sum(map(len, texts)))
            columns.append(trimmed(pa.array(texts, pa.string())))
            typed = [isinstance(c, _Native) for c in cells]
            if any(typed):
                native[i] = pa.array(typed, pa.bool_())
        at = [self.line_of(offset) if self.line_of else offset for _, offset in self.flat]
        table = RawTable(
            headers,
            columns,
            pa.array(at, pa.int64()),
            native=native,
            preamble=self.preamble,
            skipped=self.skipped,
            bad=self.bad,
            warnings=self.warnings,
        )
        table.inherited = {i for i, name in enumerate(headers) if name in self.from_above}
        _drop_totals(table, contract)
        return table


def titles_of(root: dict[str, Any]) -> list[str]:
    """Return text near the top of a document, where a report says what it is.

    Parameters
    ----------
    root
        The document.

    Returns
    -------
    list of str
        At most ten values of each object.
    """
    found = [v for v in root.values() if isinstance(v, str) and not isinstance(v, _Native)][:10]
    for nested in root.values():
        if isinstance(nested, dict):
            found += [v for v in nested.values() if isinstance(v, str) and not isinstance(v, _Native)][:10]
    return found


def _drop_totals(table: RawTable, contract: VendorContract | None) -> None:
    headers, columns = table.headers, table.columns
    fields = naming.fields_of(headers, contract.columns if contract else {})
    if "account_id" not in fields:
        return
    names_of = [
        i
        for i, h in enumerate(headers)
        if naming.normalised(h.split(".")[-1]) in {"name", "grouping", "level", "type", "label"}
    ]
    mask = []
    for row in range(table.rows):
        cells_here = [columns[fields["account_id"]][row].as_py(), *(columns[i][row].as_py() for i in names_of)]
        total = is_total(cells_here[0]) or (not cells_here[0] and any(map(is_total, cells_here)))
        mask.append(not total)
        table.skipped["totals"] += total
    if not all(mask):
        keep_rows(table, pa.array(mask))


def _json_text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value)
    return str(value)


def _parses(decoder: json.JSONDecoder, text: str) -> bool:
    try:
        return isinstance(decoder.decode(text), dict)
    except (ValueError, RecursionError):
        return False


def _whole(decoder: json.JSONDecoder, text: str) -> tuple[Any, int | None]:
    """Parse a document; of an array that is cut off, what is complete, and where the rest begins."""
    try:
        return decoder.decode(text), None
    except ValueError as error:
        start = len(text) - len(text.lstrip())
        if text[start:].startswith("{") and isinstance(error, json.JSONDecodeError) and error.msg == "Extra data":
            return _documents(decoder, text, start), None
        if not text[start:].startswith("["):
            raise FileRejected("malformed_json") from error
    made: list[Any] = []
    position = start + 1
    space = re.compile(r"[\s,]*")
    while True:
        match = space.match(text, position)
        position = match.end() if match else position
        if position >= len(text) or text[position] == "]":
            # All records are complete; only the end of the list is missing.
            return made, None if position < len(text) else -1
        try:
            element, position = decoder.raw_decode(text, position)
        except json.JSONDecodeError as error:
            # Only the end may be missing: damage in the middle makes everything after it doubtful.
            ran_out = error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string")
            if not made or not ran_out:
                raise FileRejected("malformed_json") from error
            return made, position
        made.append(element)


def _documents(decoder: json.JSONDecoder, text: str, position: int) -> list[Any]:
    """Parse objects that follow one another without a list around them."""
    made = []
    try:
        while position < len(text):
            element, position = decoder.raw_decode(text, position)
            made.append(element)
            while position < len(text) and text[position] in " \t\n,":
                position += 1
    except ValueError as error:
        raise FileRejected("malformed_json") from error
    return made


def _scalars(node: dict[str, Any], prefix: str, out: dict[str, Any]) -> None:
    if len(prefix) > _LONGEST_PATH:
        raise FileRejected(
            "too_much_text", f"keys around one another have more than {_LONGEST_PATH:,} characters: shorten them"
        )
    for key, value in node.items():
        if key == LINE:
            continue
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, dict):
            if not _keyed(value):
                _scalars(value, name, out)
        elif not isinstance(value, list):
            out[name] = value


def _keyed(node: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Return entries of an object that is really a list: objects of one shape under keys that are data."""
    entries = [(k, v) for k, v in node.items() if k != LINE]
    if len(entries) < 1 or not all(isinstance(v, dict) for _, v in entries):
        return []
    shapes = [set(v) - {LINE} for _, v in entries]
    data_like = all(re.search(r"\d", k) for k, _ in entries)
    if not data_like or (len(entries) > 1 and len(set.union(*shapes)) > 2 * max(1, len(set.intersection(*shapes)))):
        return []
    return entries


def _entry(label: str, key: str, value: dict[str, Any]) -> dict[str, Any]:
    """Return an object with its key; an object of periods below an account becomes a list."""
    inner = _keyed(value)
    if inner:
        return {label: key, "periods": [{"period": k, **v} for k, v in inner], LINE: value.get(LINE, 0)}
    return {label: key, **value}


def _children(node: dict[str, Any], prefix: str) -> list[tuple[str, list[Any]]]:
    """Return lists of records below a node, through plain objects."""
    found: list[tuple[str, list[Any]]] = []
    titles = next(
        (v for k, v in node.items() if k in {"columns", "headers", "fields", "header"} and isinstance(v, list)), None
    )
    heads = []
    if titles and all(isinstance(t, (str, dict)) for t in titles):
        heads = [t if isinstance(t, str) else str(t.get("name") or t.get("key") or t.get("label")) for t in titles]
    for key, value in node.items():
        if key == LINE:
            continue
        name = f"{prefix}.{key}" if prefix else key
        if isinstance(value, list):
            if value and all(isinstance(v, dict) for v in value):
                found.append((name, value))
            elif value and heads and all(isinstance(v, list) for v in value):
                found.append((name, [{**dict(zip(heads, v, strict=False)), LINE: node.get(LINE, 0)} for v in value]))
        elif isinstance(value, dict):
            keyed = _keyed(value)
            if keyed:
                label = (
                    "period"
                    if all(naming.month_of(k) or re.fullmatch(r"\d{4}-\d{2}-\d{2}", k) for k, _ in keyed)
                    else "account_id"
                )
                found.append((name, [_entry(label, k, v) for k, v in keyed]))
            else:
                found += _children(value, name)
    return found


def _expand(
    node: Any,
    prefix: str,
    context: dict[str, Any],
    out: list[tuple[dict[str, Any], int]],
    parent: dict[str, Any] | None,
    from_above: set[str],
) -> None:
    """Write out the leaves of a document as flat records that carry what stands above them."""
    if isinstance(node, list):
        for element in node:
            _expand(element, prefix, context, out, parent, from_above)
        return
    if not isinstance(node, dict):
        return
    keyed = _keyed(node) if parent is None else []
    if keyed:
        _expand([{"account_id": k, **v} for k, v in keyed], prefix, context, out, node, from_above)
        return
    budget = current_budget()
    budget.tick()
    own: dict[str, Any] = dict(context)
    _scalars(node, prefix, own)
    lists = [(name, rows) for name, rows in _children(node, prefix) if not _metadata(name, rows)]
    if not lists:
        if any(k for k in node if k != LINE):
            # What stands above a record is written to each.
            budget.take_cells(len(own), sum(map(len, own)))
            out.append((own, int(node.get(LINE, 0))))
        return
    if len(own) * len(lists) > len(own) + len(lists):
        budget.need("cells", len(own) * len(lists))
    for name, rows in lists:
        holder = _holder(node, name, prefix)
        tree = sum(k in holder for k in rows[0] if k != LINE) >= 2
        # In a tree the parent's figures are subtotals of its children and must not reach them.
        passed = dict(context) if tree else own
        if tree:
            for key, value in own.items():
                if not isinstance(value, _Native) and re.search(r"(?i)date|currency|period|as_?of", key):
                    passed.setdefault(key, value)
        last = name.split(".")[-1]
        path = prefix if tree and prefix.split(".")[-1] == last else name
        from_above |= set(passed)
        _expand(rows, path, passed, out, node, from_above)


def _holder(node: dict[str, Any], name: str, prefix: str) -> dict[str, Any]:
    """Return the object that holds the list of this name directly."""
    holder: Any = node
    inner = name[len(prefix) :].strip(".") if prefix else name
    for part in inner.split(".")[:-1]:
        if isinstance(holder, dict) and part in holder:
            holder = holder[part]
    return holder if isinstance(holder, dict) else {}


def _metadata(name: str, rows: list[Any]) -> bool:
    """Whether a list describes columns or the like instead of holding records."""
    if re.search(r"(?i)(^|\.)(meta|metadata|columns|groupings|filters|links|errors|warnings|schema)(\.|$)", name):
        return not any(naming.header_score([str(k) for k in r]) >= 2 for r in rows[:3] if isinstance(r, dict))
    return False


# --- Parquet ---------------------------------------------------------------------------------------------------------


def parquet_tables(data: bytes, contract: VendorContract | None = None) -> list[RawTable]:
    """Read a Parquet file.

    Parameters
    ----------
    data
        Its content.
    contract
        Contract that matched the file.

    Returns
    -------
    list of RawTable
        One table; lines are row numbers from one.
    """
    with open_parquet(data) as file:
        try:
            table = parquet_rows(file)
        except (pa.ArrowException, OSError, ValueError) as error:
            raise FileRejected("corrupt_parquet") from error
    return [parquet_table(table, contract, is_large=table.num_rows >= LARGE_TABLE)]


def open_parquet(data: bytes | FileBytes) -> Any:
    """Open a Parquet file.

    Parameters
    ----------
    data
        Its content.

    Raises
    ------
    FileRejected
        ``corrupt_parquet``, or ``too_many_columns``.
    """
    import pyarrow.parquet as pq

    def opened(texts: list[str]) -> Any:
        return pq.ParquetFile(
            data.opened() if isinstance(data, FileBytes) else pa.BufferReader(data),
            read_dictionary=texts,
            thrift_string_size_limit=_MAX_FOOTER,
            thrift_container_size_limit=_MAX_CHUNKS,
        )

    try:
        file = opened([])
        metadata = file.metadata
        if metadata.num_columns > MAX_COLUMNS:
            raise FileRejected("too_many_columns", f"the file has {metadata.num_columns:,} columns")
        # Text that repeats is written once; it is measured before it is written out.
        columns = [metadata.schema.column(place) for place in range(metadata.num_columns)]
        texts = [column.path for column in columns if column.physical_type == "BYTE_ARRAY"]
        return opened(texts) if texts else file
    except (pa.ArrowException, OSError, ValueError) as error:
        raise FileRejected("corrupt_parquet") from error


_MAX_FOOTER = 1 << 26
_MAX_CHUNKS = 1_000_000
"""Most bytes of one text, and most entries of one list, in the description of a Parquet file."""
_VALUE_BYTES = 8
_LONGEST_NUMBER = 32
"""Bytes that a value counts for, and those of the widest decimal."""


def parquet_rows(file: Any, group: int | None = None) -> pa.Table:
    """Read rows of a Parquet file.

    Parameters
    ----------
    file
        What :func:`open_parquet` gave.
    group
        Row group; all of them where there is none.

    Returns
    -------
    pyarrow.Table
        Text is text, however the file has it.

    Raises
    ------
    FileRejected
        ``decompression_bomb`` where more values would come out than the budget of the file has.
    """
    budget = current_budget()
    metadata = file.metadata
    groups = range(metadata.num_row_groups) if group is None else [group]
    # Only bytes of a fixed length have a length here; those of up to 32 are decimals, which count as numbers.
    lengths = [metadata.schema.column(i).length for i in range(metadata.num_columns)]
    sizes = [length if length > _LONGEST_NUMBER else _VALUE_BYTES for length in lengths]
    size = 0
    for place in groups:
        chunks = metadata.row_group(place)
        size += sum(chunks.column(i).num_values * most for i, most in enumerate(sizes))
    budget.need_values(size)
    pieces = []
    for place in groups:
        budget.tick()
        piece = file.read_row_group(place, use_threads=False)
        for column in piece.columns:
            for chunk in column.chunks:
                budget.take_values(_bytes_of_values(chunk))
        pieces.append(piece)
    table = pa.concat_tables(pieces) if pieces else file.schema_arrow.empty_table()
    for i, name in enumerate(table.column_names):
        column = table.column(i)
        if pa.types.is_dictionary(column.type):
            table = table.set_column(i, name, column.cast(column.type.value_type))
    budget.tick()
    return table


def _bytes_of_values(array: Any) -> int:
    """Return how many bytes the values of an array have, those in lists and structures and repeated text too."""
    kind = array.type
    size = len(array) * _VALUE_BYTES
    if pa.types.is_dictionary(kind):
        return size + _characters(array)
    if pa.types.is_fixed_size_binary(kind):
        return max(size, len(array) * int(kind.byte_width))
    if pa.types.is_struct(kind):
        return sum(map(_bytes_of_values, array.flatten()))
    if pa.types.is_map(kind):
        return size + _bytes_of_values(array.keys) + _bytes_of_values(array.items)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        return size + _bytes_of_values(array.flatten())
    return size


def _characters(encoded: Any) -> int:
    """Return how many bytes the texts of a dictionary have where all of them are written out."""
    lengths = pc.fill_null(pc.binary_length(encoded.dictionary), 0).to_numpy(zero_copy_only=False)
    counts = pc.value_counts(pc.drop_null(encoded.indices))
    return int(np.dot(lengths[counts.field("values").to_numpy()].astype(np.int64), counts.field("counts").to_numpy()))


def parquet_headers(data: bytes | FileBytes) -> list[str]:
    """Return the names of the columns of a Parquet file, those in structures by themselves."""
    with open_parquet(data) as file:
        return list(_flat(file.schema_arrow.empty_table()).column_names)


def _flat(table: pa.Table) -> pa.Table:
    return table.flatten() if any(pa.types.is_struct(f.type) for f in table.schema) else table


def parquet_table(table: pa.Table, contract: VendorContract | None, *, is_large: bool, before: int = 0) -> RawTable:
    """Return rows of a Parquet file as a raw table.

    Parameters
    ----------
    table
        All rows of the file, or some.
    contract
        Contract that matched the file.
    is_large
        Keep columns of numbers as numbers.
    before
        Rows of the file before these; lines are row numbers from one.
    """
    table = _flat(table)
    headers, rows = list(table.column_names), table.num_rows
    lossy = {i for i, f in enumerate(table.schema) if pa.types.is_floating(f.type)}
    proposals = naming.proposals(headers, contract.columns if contract else {})
    columns: list[Any] = []
    native: dict[int, Any] = {}
    decimals: dict[int, int] = {}
    for i in range(len(headers)):
        column = table.column(0)
        # What has been read is let go: a large file would be in memory twice.
        table = table.remove_column(0)
        name = proposals[i][0]
        typed = _native_numbers(column, name, contract) if is_large else None
        if typed is not None:
            columns.append(typed[0])
            decimals[i] = typed[1]
            native[i] = pa.repeat(pa.scalar(True), rows)
            continue
        text, is_native = _parquet_text(column)
        if is_native:
            native[i] = combine_chunks(pc.is_valid(text))
        if is_large and name in {"account_id", "period_start", "period_end", "currency"}:
            text = text.dictionary_encode()
        columns.append(_trimmed_column(text))
    lines = pa.array(np.arange(before + 1, before + rows + 1), pa.int64())
    return RawTable(headers, columns, lines, native=native, lossy=lossy, decimals=decimals)


LARGE_TABLE = 50_000
"""From so many rows on, columns of numbers stay numbers."""


def _native_numbers(column: Any, name: str | None, contract: VendorContract | None) -> tuple[Any, int] | None:
    """Return a column of numbers as exact decimals with the digits that they need, or None where it has none."""
    kind = column.type
    if (name not in MONEY and name not in RETURNS) or (contract and contract.pictures.get(name or "")):
        return None
    wanted = pa.decimal128(28, 8) if name in MONEY else pa.decimal128(24, 14)
    try:
        if pa.types.is_floating(kind):
            text = _plain_numbers(combine_chunks(column))
            if text is None:
                return None
            digits = max_decimals(pc.fill_null(text, ""))
            column = text.cast(wanted)
        elif pa.types.is_decimal(kind):
            digits = max(kind.scale, 0)
            if pa.types.is_decimal128(kind) and kind.scale < wanted.scale:
                found = _with_scale(column, wanted)
                return None if found is None else (found, digits)
            column = column.cast(wanted)
        elif pa.types.is_integer(kind):
            digits = 0
            column = column.cast(pa.decimal128(38, wanted.scale)).cast(wanted)
        else:
            return None
    except pa.ArrowException:
        return None
    return None if _too_large(column) else (combine_chunks(column), digits)


def _plain_numbers(column: Any) -> Any | None:
    """Write floats as :func:`plain_number` does; None where one is not finite."""
    text = pc.replace_substring_regex(pc.cast(column, pa.string()), r"\.0$", "")
    # The shortest text of a float is what was meant by it, unless it has an exponent or the noise of its last bits.
    noisy = pc.or_(pc.match_substring_regex(text, r"[^0-9.-]"), pc.greater(pc.binary_length(text), 12))
    rows = pc.indices_nonzero(pc.fill_null(noisy, False))
    if len(rows) == 0:
        return text
    meant = [plain_number(value) for value in pc.take(column, rows).to_pylist()]
    if "NaN" in meant:
        return None
    return pc.replace_with_mask(text, pc.fill_null(noisy, False), pa.array(meant, pa.string()))


def _parquet_text(column: Any) -> tuple[Any, bool]:
    """Return a column of a Parquet file as text, null where there is none, and whether its values are numbers."""
    kind = column.type
    if pa.types.is_dictionary(kind):
        column = column.cast(kind.value_type)
        kind = column.type
    if pa.types.is_floating(kind):
        return pa.array([None if v is None else plain_number(v) for v in column.to_pylist()], pa.string()), True
    if pa.types.is_decimal(kind) or pa.types.is_integer(kind):
        return column.cast(pa.string()), True
    if pa.types.is_date(kind) or pa.types.is_timestamp(kind):
        days = combine_chunks(column.dictionary_encode())
        texts = [None if v is None else v.isoformat()[:10] for v in days.dictionary.to_pylist()]
        return pc.take(pa.array(texts, pa.string()), days.indices), False
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return column.cast(pa.string()), False
    if pa.types.is_temporal(kind):
        return pa.array([None if v is None else v.isoformat()[:10] for v in column.to_pylist()], pa.string()), False
    return pa.array([None if v is None else str(v) for v in column.to_pylist()], pa.string()), False


__all__ = [
    "MONTHS",
    "BadRow",
    "RawTable",
    "Row",
    "choose_delimiter",
    "delimited_tables",
    "fixed_width_table",
    "grid_tables",
    "json_tables",
    "parquet_tables",
    "plain_number",
    "read_date",
    "records",
    "unpivoted",
]
