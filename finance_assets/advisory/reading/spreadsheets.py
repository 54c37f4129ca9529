"""Workbooks: ``.xlsx``, ``.xls``, ``.xlsb``, ``.ods`` and XML spreadsheets.

Belongs here: from the bytes of such a workbook to its sheets as rows of text, with the same meaning for every kind: a
number is what the spreadsheet shows of its double, a cell with a percent format carries the sign, a date is ISO text,
an error is its word. Which rows are a table is decided in `layouts`.
"""

from __future__ import annotations

import io
import re
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, time
from typing import Any

from finance_assets.advisory.reading import binary_workbook, markup
from finance_assets.advisory.reading.budget import IMPLIED_PER_ROW, Budget, current_budget
from finance_assets.advisory.reading.containers import opened_archive
from finance_assets.advisory.reading.layouts import MAX_WIDTH, Row, cell_text
from finance_assets.advisory.reading.rejection import FileRejected

_MAX_XLS = 1 << 28
"""Most bytes of a workbook of old: its sheets have 65,536 rows of 256 columns."""
_MAX_FORMATS = 1 << 16
"""Most fonts, number formats and formats of cells of a workbook of old; Excel writes 4,000."""

_OFFICE = "urn:oasis:names:tc:opendocument:xmlns:office:1.0"
_TABLE = "urn:oasis:names:tc:opendocument:xmlns:table:1.0"
_TEXT = "urn:oasis:names:tc:opendocument:xmlns:text:1.0"
_SHEETS = "urn:schemas-microsoft-com:office:spreadsheet"
_EPOCHS = (datetime(1899, 12, 30), datetime(1904, 1, 1))  # noqa: DTZ001 - spreadsheets know no time zones

Cells = Mapping[int, tuple[str, bool]]


@dataclass
class Workbook:
    """Sheets by their titles, as rows of text; blank rows are left out."""

    sheets: list[tuple[str, list[Row]]] = field(default_factory=list)
    budget: Budget = field(default_factory=current_budget, repr=False, compare=False)

    def open_sheet(self, title: str) -> None:
        """Begin a sheet.

        Parameters
        ----------
        title
            Its name.

        Raises
        ------
        FileRejected
            ``too_many_sheets``.
        """
        self.budget.take("sheets")
        self.budget.tick()
        self.sheets.append((title, []))

    def add(self, line: int, cells: Cells, times: int = 1, written: int | None = None) -> None:
        """Add a row to the last sheet; nothing where it is blank.

        Parameters
        ----------
        line
            Number of the row in the sheet, from one.
        cells
            Text by position, from zero, and whether the cell is a number.
        times
            How often the row follows one after the other.
        written
            How many of the filled cells the sheet writes out; all of them where it is not said.

        Raises
        ------
        FileRejected
            ``too_many_rows``, ``too_many_cells`` or ``too_much_text``.
        """
        filled = [place for place, (text, _) in cells.items() if text and place < MAX_WIDTH]
        if not filled:
            return
        width = max(filled) + 1
        # Before they are there.
        self.budget.take("rows", times)
        self.budget.take_cells(times * width, times * sum(len(cells[place][0]) for place in filled))
        stated = len(filled) if written is None else min(written, len(filled))
        self.budget.take("implied", times * width - stated + (times - 1) * IMPLIED_PER_ROW)
        self.budget.tick()
        texts = [cells[place][0] if place in cells else "" for place in range(width)]
        native = frozenset(place for place in filled if cells[place][1])
        self.sheets[-1][1].extend(Row(line + n, texts, native) for n in range(times))


def read_workbook(kind: str, data: bytes) -> Workbook:
    """Read all sheets of a workbook.

    Parameters
    ----------
    kind
        ``xlsx``, ``xls``, ``xlsb`` or ``ods``.
    data
        Its content; of a zipped one already checked.

    Returns
    -------
    Workbook
        Its sheets, hidden ones too.

    Raises
    ------
    FileRejected
        ``encrypted``, ``corrupt_workbook``, ``unsupported_document`` where a compound file is no workbook, and what
        :meth:`Workbook.add` and :func:`markup.parse` refuse.
    """
    read = {"xlsx": _xlsx, "xls": _xls, "xlsb": _xlsb, "ods": _ods}[kind]
    try:
        return read(data)
    except FileRejected:
        raise
    except Exception as error:  # a damaged part makes whoever reads it raise anything
        raise FileRejected("corrupt_workbook") from error


def serial_text(serial: float, since_1904: bool) -> tuple[str, bool]:
    """Return a number with a date format as text.

    Parameters
    ----------
    serial
        Days since the epoch of the workbook.
    since_1904
        Whether the epoch is 1904.

    Returns
    -------
    tuple
        ISO date or time of day, and False; the number itself, and True, where it is no date.
    """
    if 0 <= serial < 1:
        seconds = round(serial * 86400) % 86400
        return time(seconds // 3600, seconds // 60 % 60, seconds % 60).isoformat(), False
    # Days before March 1900 are off by one in every spreadsheet; no period lies there.
    days = int(serial)
    if not 0 < serial < 2_958_466:
        return cell_text(serial, "")
    return datetime.fromordinal(_EPOCHS[since_1904].toordinal() + days).date().isoformat(), False


# --- xlsx ------------------------------------------------------------------------------------------------------------


def _xlsx(data: bytes) -> Workbook:
    from finance_assets.advisory.reading import excel_workbook

    made = Workbook()
    for title, rows in excel_workbook.sheets(data, made.budget):
        made.open_sheet(title)
        for row in rows:
            # Trailing empty cells are few: see `excel_workbook`.
            made.budget.take_cells(len(row.cells), sum(map(len, row.cells)))
            made.budget.take("implied", row.cells.count(""))
            made.sheets[-1][1].append(row)
    return made


# --- xls -------------------------------------------------------------------------------------------------------------


def _xls(data: bytes) -> Workbook:
    import xlrd

    class Silent(io.TextIOBase):
        """Takes what the library has to say about damage, which may hold cells."""

        def write(self, text: str, /) -> int:
            return len(text)

    _look_over_records(data)
    budget = current_budget()
    try:
        book = xlrd.open_workbook(
            file_contents=data, formatting_info=True, on_demand=True, ragged_rows=True, logfile=Silent()
        )
    except xlrd.XLRDError as error:
        said = str(error)
        if "encrypted" in said:
            raise FileRejected("encrypted") from error
        raise FileRejected("unsupported_document" if "Can't find workbook" in said else "corrupt_workbook") from error
    shown = {index: _xls_format(book, xf) for index, xf in enumerate(book.xf_list)}
    made = Workbook()
    for place, title in enumerate(book.sheet_names()):
        made.open_sheet(title)
        sheet = book.sheet_by_index(place)
        budget.tick()
        for row in range(sheet.nrows):
            if not sheet.row_len(row):
                continue
            cells = {}
            for column, cell in enumerate(sheet.row(row)):
                if cell.ctype == xlrd.XL_CELL_NUMBER:
                    cells[column] = cell_text(float(cell.value), shown.get(cell.xf_index, ""))
                elif cell.ctype == xlrd.XL_CELL_DATE:
                    cells[column] = serial_text(float(cell.value), bool(book.datemode))
                elif cell.ctype == xlrd.XL_CELL_TEXT:
                    cells[column] = str(cell.value).strip(), False
                elif cell.ctype == xlrd.XL_CELL_BOOLEAN:
                    cells[column] = str(bool(cell.value)), False
                elif cell.ctype == xlrd.XL_CELL_ERROR:
                    cells[column] = binary_workbook.error_word(int(cell.value)), False
            made.add(row + 1, cells)
        book.unload_sheet(place)
    return made


_XLS_FORMATS = frozenset({0x31, 0x231, 0x1E, 0x41E, 0x43, 0x243, 0x443, 0xE0, 0x293})
"""Records of fonts, number formats, formats of cells and styles."""
_XLS_CELLS = frozenset({*range(1, 8), 0x27E, 0xFD, 0xD6, *range(0x201, 0x207), 0x406, 0x206})
_MULTIPLE_NUMBERS, _MULTIPLE_BLANKS, _MERGED = 0xBD, 0xBE, 0xE5


def _look_over_records(data: bytes) -> None:
    """Count the records of a workbook of old before the library makes objects of them, and rows up to the last cells.

    Raises
    ------
    FileRejected
        ``too_many_cells``, ``too_many_formats`` or ``workbook_too_large``.
    """
    from xlrd.compdoc import SIGNATURE, CompDoc, CompDocError

    budget = current_budget()
    if len(data) > _MAX_XLS:
        raise FileRejected(
            "workbook_too_large",
            f"a workbook of the kind .xls has {len(data):,} bytes, and {_MAX_XLS:,} are read: save it as .xlsx",
        )
    stream, place, end = data, 0, len(data)
    if data.startswith(SIGNATURE):
        try:
            document = CompDoc(data, logfile=io.StringIO())
            for name in ("Workbook", "Book"):
                found, place, size = document.locate_named_stream(name)
                if found:
                    stream, end = found, place + size
                    break
            else:
                return  # the library says what it is
        except (CompDocError, AssertionError, IndexError, ValueError, struct.error):
            return
    cells = formats = count = rows = last = 0
    header = struct.Struct("<HH").unpack_from
    first = struct.Struct("<H").unpack_from
    while place + 4 <= end:
        kind, size = header(stream, place)
        place += 4
        count += 1
        if kind in _XLS_CELLS or kind in {_MULTIPLE_NUMBERS, _MULTIPLE_BLANKS}:
            cells += 1 if kind in _XLS_CELLS else size // (6 if kind == _MULTIPLE_NUMBERS else 2)
            if size >= 2 and place + 2 <= end:
                last = max(last, first(stream, place)[0] + 1)
        elif kind == _MERGED:
            # The library makes rows down to the end of each range.
            ends = (first(stream, at)[0] + 1 for at in range(place + 4, min(place + size, end) - 1, 8))
            last = max(last, *ends, 0)
        elif kind in _XLS_FORMATS:
            formats += 1
        elif kind & 0xFF == 0x09:
            # The beginning of another sheet.
            rows, last = rows + last, 0
        place += size
        if count % 4096 == 0:
            budget.need("cells", cells)
            budget.need("records", count)
            budget.need("rows", rows + last)
            budget.tick()
            if formats > _MAX_FORMATS:
                break
    budget.need("cells", cells)
    budget.take("records", count)
    # The library makes lists of each row before the last, empty or not.
    budget.need("rows", rows + last)
    if formats > _MAX_FORMATS:
        raise FileRejected(
            "too_many_formats",
            f"the workbook has more than {_MAX_FORMATS:,} fonts and formats of cells: copy the values to a new one",
        )


def _xls_format(book: Any, xf: Any) -> str:
    found = book.format_map.get(xf.format_key)
    return str(found.format_str) if found is not None else ""


# --- xlsb ------------------------------------------------------------------------------------------------------------


def _xlsb(data: bytes) -> Workbook:
    made = Workbook()
    with opened_archive(data) as archive:
        book = binary_workbook.BinaryWorkbook(archive)
        for title, part in book.sheets:
            made.open_sheet(title)
            for line, values in book.rows(part):
                cells: dict[int, tuple[str, bool]] = {}
                for column, (value, number_format) in values.items():
                    if isinstance(value, float) and binary_workbook.is_date_format(number_format):
                        cells[column] = serial_text(value, book.since_1904)
                    else:
                        cells[column] = cell_text(value, number_format)
                made.add(line, cells)
    return made


# --- numbers and cells of XML ----------------------------------------------------------------------------------------


def _number(text: str, number_format: str) -> tuple[str, bool]:
    """Return a number that XML writes as text: that of a double, as in the other workbooks; other text stays."""
    plain = text.strip()
    if not re.fullmatch(r"[-+]?(\d{1,400}\.?\d{0,400}|\.\d{1,400})([eE][-+]?\d{1,9})?", plain, re.ASCII):
        return plain, False
    return cell_text(float(plain), number_format)


class _Reader(ABC):
    """Calls a method by the element that opens or closes; what lies in elements of no interest is passed over."""

    def __init__(self) -> None:
        self.made = Workbook()
        self.ignored = 0
        self.text: list[str] | None = None

    def characters(self, text: str) -> None:
        if self.text is not None and not self.ignored:
            self.text.append(text)

    def start(self, space: str, name: str, attributes: dict[str, str], _: int) -> None:
        if self.ignored or self.passes_over(space, name):
            self.ignored += 1
        else:
            self.opened(space, name, attributes)

    def end(self, space: str, name: str) -> None:
        if self.ignored:
            self.ignored -= 1
        else:
            self.closed(space, name)

    @abstractmethod
    def passes_over(self, space: str, name: str) -> bool:
        """Say whether an element and all that is in it is of no interest."""

    @abstractmethod
    def opened(self, space: str, name: str, attributes: dict[str, str]) -> None:
        """Take the beginning of an element."""

    @abstractmethod
    def closed(self, space: str, name: str) -> None:
        """Take the end of an element."""

    def read(self, data: bytes) -> Workbook:
        markup.parse(data, self.start, self.end, self.characters)
        return self.made


def _count(text: str | None, otherwise: int = 1) -> int:
    """Return a number of cells or rows; a sheet that states nonsense is damaged."""
    if text is None:
        return otherwise
    if not text.isascii() or not text.isdigit() or len(text) > 9:
        raise FileRejected("corrupt_workbook")
    return int(text)


# --- ods -------------------------------------------------------------------------------------------------------------


def _ods(data: bytes) -> Workbook:
    with opened_archive(data) as archive:
        names = set(archive.namelist())
        manifest = archive.read("META-INF/manifest.xml") if "META-INF/manifest.xml" in names else b""
        if "encrypted-package" in names or b"encryption-data" in manifest:
            raise FileRejected("encrypted")
        return open_document(archive.read("content.xml"))


def open_document(data: bytes) -> Workbook:
    """Read the sheets of an OpenDocument spreadsheet.

    Parameters
    ----------
    data
        Its ``content.xml``, or a flat document.

    Returns
    -------
    Workbook
        Its sheets.

    Raises
    ------
    FileRejected
        As :func:`read_workbook`.
    """
    return _OpenDocument().read(data)


class _OpenDocument(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self.tables = 0
        self.line = 1
        self.column = 0
        self.row: dict[int, tuple[str, bool]] = {}
        self.cell: dict[str, str] | None = None
        self.shown: list[str] = []
        self.row_times = 1
        self.written = 0

    def passes_over(self, space: str, name: str) -> bool:
        if space == _TABLE:
            # A table in a cell is not the sheet; old values of cells are kept as tracked changes.
            return name in {"tracked-changes", "shapes"} or (name == "table" and self.tables > 0)
        if space == _OFFICE:
            return name in {"annotation", "forms", "styles", "automatic-styles", "master-styles", "settings", "meta"}
        return self.cell is not None and space != _TEXT  # drawings in a cell

    def opened(self, space: str, name: str, attributes: dict[str, str]) -> None:
        if space == _TABLE and name == "table":
            self.tables += 1
            self.line = 1
            self.made.open_sheet(attributes.get(f"{_TABLE} name", ""))
        elif space == _TABLE and name == "table-row":
            self.row, self.column, self.written = {}, 0, 0
            self.row_times = _count(attributes.get(f"{_TABLE} number-rows-repeated"))
        elif space == _TABLE and name in {"table-cell", "covered-table-cell"}:
            self.cell, self.shown = attributes, []
        elif space == _TEXT and name == "p" and self.cell is not None:
            self.text = self.shown
            if self.shown:
                self.text.append(" ")
        elif space == _TEXT and self.text is not None:
            if name == "s":
                self.text.append(" " * min(_count(attributes.get(f"{_TEXT} c")), 100))
            elif name in {"tab", "line-break"}:
                self.text.append(" ")

    def closed(self, space: str, name: str) -> None:
        if space == _TEXT and name == "p" and self.text is not None:
            self.shown, self.text = self.text, None
        if space != _TABLE:
            return
        if name == "table":
            self.tables -= 1
        elif name == "table-row":
            self.made.add(self.line, self.row, self.row_times, self.written)
            self.line += self.row_times
        elif name in {"table-cell", "covered-table-cell"} and self.cell is not None:
            times = _count(self.cell.get(f"{_TABLE} number-columns-repeated"))
            # Below a merged cell there may be an old value that nobody sees.
            value = self._value(self.cell) if name == "table-cell" else ("", False)
            if value[0]:
                self.written += 1
                for place in range(self.column, min(self.column + times, MAX_WIDTH)):
                    self.row[place] = value
            self.column += times
            self.cell = self.text = None

    def _value(self, cell: dict[str, str]) -> tuple[str, bool]:
        kind = cell.get(f"{_OFFICE} value-type", "string")
        shown = "".join(self.shown).strip()
        if kind in {"float", "currency", "percentage"}:
            # An error is a number without a value, or with one that is not shown.
            if shown.startswith(("#", "Err:")) and any(c.isalpha() for c in shown):
                return shown, False
            return _number(cell.get(f"{_OFFICE} value", ""), "0%" if kind == "percentage" else "")
        if kind == "date":
            return cell.get(f"{_OFFICE} date-value", "")[:10], False
        if kind == "time":
            return cell.get(f"{_OFFICE} time-value", ""), False
        if kind == "boolean":
            return str(cell.get(f"{_OFFICE} boolean-value") == "true"), False
        return shown or cell.get(f"{_OFFICE} string-value", "").strip(), False


# --- XML spreadsheets ------------------------------------------------------------------------------------------------


def xml_spreadsheet(data: bytes) -> Workbook:
    """Read a workbook in the XML of Excel 2003, which many programs name ``.xls``.

    Parameters
    ----------
    data
        The document.

    Returns
    -------
    Workbook
        Its sheets.

    Raises
    ------
    FileRejected
        As :func:`read_workbook`.
    """
    return _XmlSpreadsheet().read(data)


class _XmlSpreadsheet(_Reader):
    def __init__(self) -> None:
        super().__init__()
        self.formats: dict[str, str] = {}
        self.style = ""
        self.line = self.column = 0
        self.row: dict[int, tuple[str, bool]] = {}
        self.row_style = self.table_style = ""
        self.column_styles: dict[int, str] = {}
        self.styled_column = 0
        self.cell_format = ""
        self.merged = 0
        self.kind: str | None = None

    def passes_over(self, space: str, name: str) -> bool:
        # Comments and names of cells hold data that is not the cell's.
        return space == _SHEETS and name in {"Comment", "NamedCell", "Names", "WorksheetOptions", "PhoneticText"}

    def opened(self, space: str, name: str, attributes: dict[str, str]) -> None:
        if space != _SHEETS:
            return  # marks of text within a cell

        def said(key: str) -> str | None:
            return attributes.get(f"{_SHEETS} {key}", attributes.get(key))  # not every program writes the prefix

        if name == "Style":
            self.style = said("ID") or ""
            self.formats[self.style] = self.formats.get(said("Parent") or "", "")
        elif name == "NumberFormat":
            shown = said("Format") or ""
            self.formats[self.style] = "0%" if shown == "Percent" else shown
        elif name == "Worksheet":
            self.made.open_sheet(said("Name") or "")
        elif name == "Table":
            self.line, self.column_styles, self.styled_column = 0, {}, 0
            self.table_style = said("StyleID") or ""
        elif name == "Column":
            first = _count(said("Index"), self.styled_column + 1)
            last = min(first + _count(said("Span"), 0), MAX_WIDTH)
            if style := said("StyleID"):
                self.made.budget.take_cells(max(0, last - first + 1))
                self.made.budget.take("implied", max(0, last - first))
                self.column_styles |= {place - 1: style for place in range(first, last + 1)}
            self.styled_column = last
        elif name == "Row":
            self.line = _count(said("Index"), self.line + 1)
            self.row, self.column, self.merged = {}, 0, 0
            self.row_style = said("StyleID") or ""
            self.row_span = _count(said("Span"), 0)
        elif name == "Cell":
            self.column = _count(said("Index"), self.column + 1)
            self.merged = _count(said("MergeAcross"), 0)
            style = said("StyleID") or self.row_style or self.column_styles.get(self.column - 1, "") or self.table_style
            self.cell_format = self.formats.get(style, "")
        elif name == "Data":
            self.kind, self.text = said("Type") or "String", []

    def closed(self, space: str, name: str) -> None:
        if space != _SHEETS:
            return
        if name == "Data" and self.kind is not None and self.made.sheets:
            text = "".join(self.text or ()).strip()
            if self.kind == "Number":
                value = _number(text, self.cell_format)
            elif self.kind == "DateTime":
                value = text[:10], False
            elif self.kind == "Boolean":
                value = str(text == "1"), False
            else:
                value = text, False
            if 0 < self.column <= MAX_WIDTH:
                self.row[self.column - 1] = value
            self.kind = self.text = None
        elif name == "Cell":
            self.column += self.merged
        elif name == "Row" and self.made.sheets:
            self.made.add(self.line, self.row)
            self.line += self.row_span


def spreadsheet_of(root: tuple[str, str]) -> Callable[[bytes], Workbook] | None:
    """Return what reads an XML document with this root as a workbook.

    Parameters
    ----------
    root
        Namespace and local name of the outermost element.

    Returns
    -------
    Callable | None
        None where it is no workbook.
    """
    return {(_SHEETS, "Workbook"): xml_spreadsheet, (_OFFICE, "document"): open_document}.get(root)
