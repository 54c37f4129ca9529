"""Workbooks of the kind ``.xlsx``, read with openpyxl from the cells that are there.

Belongs here: what openpyxl is given to read. Its own readers of sheets and of shared strings build objects for whatever
a part holds: rows up to the last one that a sheet names, merged ranges, rules of formats. Here parts are counted while
they are read, and of a sheet only the rows with cells are looked at.
"""

from __future__ import annotations

import io
import warnings
import zipfile
from collections.abc import Iterator
from typing import Any

from finance_assets.advisory.reading.budget import Budget
from finance_assets.advisory.reading.layouts import MAX_WIDTH, Row, cell_text
from finance_assets.advisory.reading.rejection import FileRejected

MAX_BLANK = 10_000
"""Most blank rows of a workbook that count as lines; further ones are passed over."""
_MAX_LINE = 1 << 20
_MAX_COLUMN = 1 << 14
_SPARE = 64
"""Empty cells that are kept behind the last one of a row with text."""
_CHUNK = 1 << 16
_MAX_WHOLE = 300_000
"""Most elements of a part that openpyxl makes one object of: styles, relations, the list of sheets. A workbook has
65,490 formats of cells at most."""
_MAX_OPEN = 1_000_000
"""Most elements of a row, or of what stands around rows, and of one shared string."""
_MAX_TAG = 1 << 20
"""Most bytes without the end of a tag; a cell has 32,767 characters at most."""
_DOCTYPES = (b"<!DOCTYPE", b"<!ENTITY")


class _Part(io.RawIOBase):
    """A part of a workbook, counted while it is read.

    Parameters
    ----------
    stream
        Gives its bytes.
    budget
        What is drawn on.
    """

    def __init__(self, stream: Any, budget: Budget) -> None:
        self._stream = stream
        self._budget = budget
        self._since_tag = 0
        self._tail = b""
        self.open_elements = 0
        """Elements since the reader was last done with some."""

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return self._looked_at(self._stream.read(size), _MAX_OPEN)
        pieces = []
        while piece := self._looked_at(self._stream.read(_CHUNK), _MAX_WHOLE):
            pieces.append(piece)
        return b"".join(pieces)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _looked_at(self, piece: bytes, most: int) -> bytes:
        elements = piece.count(b"<") - piece.count(b"</")
        self._budget.take("elements", max(0, elements))
        self._budget.tick()
        self.open_elements += elements
        if self.open_elements > most:
            raise FileRejected(
                "xml_too_large",
                f"one part, row or text of the workbook has more than {most:,} elements: copy the values to a new "
                "workbook",
            )
        last = piece.rfind(b">")
        self._since_tag = len(piece) - last - 1 if last >= 0 else self._since_tag + len(piece)
        if self._since_tag > _MAX_TAG:
            raise FileRejected(
                "too_much_text", f"a cell or tag of the workbook is longer than {_MAX_TAG:,} bytes: shorten its text"
            )
        # In UTF-16 every other byte of it is zero.
        text = (self._tail + piece).replace(b"\0", b"")
        if any(doctype in text for doctype in _DOCTYPES):
            raise FileRejected("xml_doctype", "a part of the workbook has a document type definition: save it again")
        self._tail = text[-len(_DOCTYPES[0]) :]
        return piece


class _Archive(zipfile.ZipFile):
    """The archive of a workbook; its parts are counted while they are read."""

    budget: Budget

    def open(self, *args: Any, **options: Any) -> Any:
        return _Part(super().open(*args, **options), self.budget)


def sheets(data: bytes, budget: Budget) -> Iterator[tuple[str, Iterator[Row]]]:
    """Read the sheets of a workbook.

    Parameters
    ----------
    data
        Its content, already checked.
    budget
        What is drawn on: rows and elements. Cells are the caller's to count.

    Yields
    ------
    tuple
        Title, and the rows in their order, to be taken before the next sheet; blank ones too, up to `MAX_BLANK`.

    Raises
    ------
    FileRejected
        ``xml_doctype``, ``xml_too_large``, ``too_much_text``, ``corrupt_workbook`` for a row or cell outside of a
        sheet, and what the budget refuses. What the library finds damaged it says with any other error.
    """
    from openpyxl.reader.excel import ExcelReader  # type: ignore[import-untyped,unused-ignore]
    from openpyxl.styles.stylesheet import apply_stylesheet  # type: ignore[import-untyped,unused-ignore]

    class Reader(ExcelReader):  # type: ignore[misc,unused-ignore]
        """Reads what says how cells are meant, and where sheets are."""

        def __init__(self) -> None:
            super().__init__(io.BytesIO(data), read_only=True, data_only=True, keep_links=False)
            self.archive = _Archive(io.BytesIO(data))
            self.archive.budget = budget
            self.parts: list[tuple[str, str]] = []
            self.blank_left = MAX_BLANK

        def read_strings(self) -> None:
            self.shared_strings = _strings(self)

        def read_worksheets(self) -> None:
            for sheet, relation in self.parser.find_sheets():
                if relation.target in self.valid_files and "chartsheet" not in relation.Type:
                    self.parts.append((sheet.name, relation.target))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = Reader()
        reader.read_manifest()
        reader.read_strings()
        reader.read_workbook()
        apply_stylesheet(reader.archive, reader.wb)
        reader.read_worksheets()
    for title, part in reader.parts:
        yield title, _rows(reader, part)
    reader.archive.close()


def _strings(reader: Any) -> list[str]:
    """Return the shared strings of a workbook, as openpyxl reads them."""
    from openpyxl.cell.text import Text  # type: ignore[import-untyped,unused-ignore]
    from openpyxl.reader.excel import SHARED_STRINGS  # type: ignore[import-untyped,unused-ignore]
    from openpyxl.xml.constants import SHEET_MAIN_NS  # type: ignore[import-untyped,unused-ignore]
    from openpyxl.xml.functions import iterparse  # type: ignore[import-untyped,unused-ignore]

    found = reader.package.find(SHARED_STRINGS)
    made: list[str] = []
    if found is None:
        return made
    with reader.archive.open(found.PartName[1:]) as part:
        for _, element in iterparse(part):
            if element.tag == f"{{{SHEET_MAIN_NS}}}si":
                made.append(Text.from_tree(element).content.replace("x005F_", ""))
                element.clear()
                part.open_elements = 0
    return made


def _rows(reader: Any, path: str) -> Iterator[Row]:
    """Yield the rows of a sheet."""
    from openpyxl.cell.read_only import ReadOnlyCell  # type: ignore[import-untyped,unused-ignore]
    from openpyxl.worksheet._reader import (  # type: ignore[import-untyped,unused-ignore]
        CELL_TAG,
        ROW_TAG,
        WorkSheetParser,
    )
    from openpyxl.xml.functions import iterparse  # type: ignore[import-untyped,unused-ignore]

    book, budget = reader.wb, reader.archive.budget
    sheet = _Sheet(book)
    formats: dict[Any, str] = {}

    def text_of(cell: dict[str, Any]) -> tuple[str, bool]:
        style = cell["style_id"]
        if style not in formats:
            formats[style] = ReadOnlyCell(sheet, 1, 1, None, style_id=style).number_format or ""
        return cell_text(cell["value"], formats[style])

    line, blank, cells_here = 1, 0, 0
    with reader.archive.open(path) as part, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        parser = WorkSheetParser(
            part,
            reader.shared_strings,
            data_only=True,
            epoch=book.epoch,
            date_formats=book._date_formats,
            timedelta_formats=book._timedelta_formats,
        )
        for _, element in iterparse(part):
            if element.tag == CELL_TAG:
                cells_here += 1
                if cells_here > _MAX_COLUMN:
                    raise FileRejected("corrupt_workbook", "a row of the workbook has more cells than a sheet columns")
            if element.tag != ROW_TAG:
                continue
            number, cells = parser.parse_row(element)
            element.clear()
            parser.row_dimensions.clear()
            part.open_elements = cells_here = 0
            if not 0 < number <= _MAX_LINE or any(cell["row"] > _MAX_LINE for cell in cells):
                raise FileRejected("corrupt_workbook", f"a row of the workbook lies outside of the {_MAX_LINE:,} rows")
            if number < line:
                continue  # the sheet is further already
            blank += number - line
            line = number + 1
            found = {
                cell["column"] - 1: text_of(cell)
                for cell in cells
                if cell["value"] is not None and cell["column"] <= MAX_WIDTH
            }
            filled = [place for place, (text, _) in found.items() if text]
            if not filled:
                blank += 1
                continue
            yield from _blanks(number, blank, reader)
            blank = 0
            width = min(max(cell["column"] for cell in cells), MAX_WIDTH, max(filled) + 1 + _SPARE)
            budget.take("rows")
            yield Row(
                cells[0]["row"],
                [found[place][0] if place in found else "" for place in range(width)],
                frozenset(place for place in filled if found[place][1]),
            )
        yield from _blanks(line, blank, reader)


def _blanks(line: int, count: int, reader: Any) -> Iterator[Row]:
    """Yield the blank rows before a line."""
    if count <= reader.blank_left:
        reader.blank_left -= count
        for number in range(line - count, line):
            yield Row(number, [])


class _Sheet:
    """What a cell of openpyxl asks for the formats of its workbook."""

    def __init__(self, book: Any) -> None:
        self.parent = book
