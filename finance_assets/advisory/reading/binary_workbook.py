"""The binary workbook of Excel (``.xlsb``): records in the parts of a zip archive, as [MS-XLSB] describes them.

Belongs here: from records to values of cells with their number formats. No library that is kept gives the errors and
the number formats of such cells; an error that reads as an empty cell would pass for "no flow".
"""

from __future__ import annotations

import functools
import posixpath
import re
import struct
import zipfile
from collections.abc import Iterator

from finance_assets.advisory.reading import markup

MAX_LINE, MAX_COLUMN = 1 << 20, 1 << 14
_ROW, _FIRST_CELL, _LAST_CELL, _RICH_TEXT = 0, 1, 11, 62
_SHORT_CELLS = range(12, 19)
_SHARED, _FORMAT, _XF, _BEGIN_XFS, _END_XFS = 19, 44, 47, 617, 618
_BEGIN_DATA, _END_DATA, _BOOK_PROPERTIES, _SHEET = 145, 146, 153, 156

ERRORS = {0: "#NULL!", 7: "#DIV/0!", 15: "#VALUE!", 23: "#REF!", 29: "#NAME?", 36: "#NUM!", 42: "#N/A"}

# Of the formats that every workbook has, those that are no plain number: [ECMA-376] 18.8.30.
_BUILT_IN: dict[int, str] = {9: "0%", 10: "0.00%"}
_BUILT_IN |= dict.fromkeys([*range(14, 18), *range(27, 32), 36, *range(50, 59)], "yyyy-mm-dd")
_BUILT_IN |= dict.fromkeys([*range(18, 22), *range(32, 36), *range(45, 48)], "h:mm:ss") | {22: "yyyy-mm-dd h:mm"}

Value = float | str | bool | None


def error_word(code: int) -> str:
    """Return what a spreadsheet shows for an error.

    Parameters
    ----------
    code
        Its code in a binary workbook.

    Returns
    -------
    str
        ``#DIV/0!``, ``#REF!``, ...; ``#ERROR!`` for a code that nobody knows.
    """
    return ERRORS.get(code, "#ERROR!")


@functools.lru_cache(maxsize=10_000)
def is_date_format(number_format: str) -> bool:
    """Say whether a number format shows a number as a date or a time of day.

    Parameters
    ----------
    number_format
        ``dd/mm/yyyy``, ``#,##0.00`` and the like.

    Returns
    -------
    bool
        True where letters of dates stand outside of quotes and brackets.
    """
    bare = re.sub(r'"[^"]*"|\\.|_.|\*.|\[(?!h+\]|m+\]|s+\])[^\]]*\]', "", number_format[:256], flags=re.IGNORECASE)
    return bare.casefold() != "general" and re.search(r"(?i)[dmyhs]", bare) is not None


def records(part: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield type, beginning and end of the records of a part.

    Parameters
    ----------
    part
        Its content.

    Yields
    ------
    tuple
        One per record.

    Raises
    ------
    ValueError
        If a record is longer than the part.
    """
    place, size = 0, len(part)
    while place < size:
        kind = part[place]
        place += 1
        if kind & 0x80:
            kind = (kind & 0x7F) | ((part[place] & 0x7F) << 7)
            place += 1
        length = shift = 0
        while True:
            byte = part[place]
            place += 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80 or shift == 28:
                break
        if place + length > size:
            raise ValueError("a record ends outside of its part")
        yield kind, place, place + length
        place += length


def _string(part: bytes, place: int, end: int) -> tuple[str, int]:
    """Return text with its length before it, and where it ends; a null string is empty."""
    (count,) = struct.unpack_from("<I", part, place)
    place += 4
    if count == 0xFFFFFFFF:
        return "", place
    if place + 2 * count > end:
        raise ValueError("text ends outside of its record")
    return part[place : place + 2 * count].decode("utf-16-le", "replace"), place + 2 * count


def _rk(raw: int) -> float:
    """Return a number that is packed into 30 bits, with two flags: an integer, and in hundredths."""
    if raw & 2:
        whole = raw >> 2
        value = float(whole - (1 << 30) if whole & (1 << 29) else whole)
    else:
        (value,) = struct.unpack("<d", b"\0\0\0\0" + struct.pack("<I", raw & 0xFFFFFFFC))
    return value / 100 if raw & 1 else value


class BinaryWorkbook:
    """An open workbook.

    Parameters
    ----------
    archive
        Its archive, already checked.

    Raises
    ------
    KeyError, ValueError, struct.error, IndexError
        If parts are missing or damaged.
    """

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._names = set(archive.namelist())
        self.since_1904 = False
        self.sheets: list[tuple[str, str]] = []
        """Title and part of each sheet of cells."""
        targets, strings, styles = self._relations()
        book = archive.read("xl/workbook.bin")
        for kind, place, end in records(book):
            if kind == _BOOK_PROPERTIES:
                self.since_1904 = bool(book[place] & 1)
            elif kind == _SHEET:
                relation, place = _string(book, place + 8, end)
                title, _ = _string(book, place, end)
                if targets.get(relation, "").endswith("/worksheet"):
                    self.sheets.append((title, targets[relation].partition(" ")[0]))
        self._strings = self._shared_strings(strings)
        self._formats = self._number_formats(styles)

    def _relations(self) -> tuple[dict[str, str], str, str]:
        """Return ``part type`` by relation, and the parts of shared strings and styles."""
        found: dict[str, str] = {}
        strings, styles = "xl/sharedStrings.bin", "xl/styles.bin"

        def start(_: str, name: str, attributes: dict[str, str], __: int) -> None:
            nonlocal strings, styles
            target = attributes.get("Target", "")
            if name != "Relationship" or attributes.get("TargetMode") == "External" or not target:
                return
            part = target.lstrip("/") if target.startswith("/") else posixpath.normpath(f"xl/{target}")
            kind = attributes.get("Type", "")
            found[attributes.get("Id", "")] = f"{part} {kind}"
            if kind.endswith("/sharedStrings"):
                strings = part
            elif kind.endswith("/styles"):
                styles = part

        markup.parse(self._archive.read("xl/_rels/workbook.bin.rels"), start, lambda *_: None, lambda _: None)
        return found, strings, styles

    def _shared_strings(self, name: str) -> list[str]:
        if name not in self._names:
            return []
        part = self._archive.read(name)
        return [_string(part, place + 1, end)[0] for kind, place, end in records(part) if kind == _SHARED]

    def _number_formats(self, name: str) -> list[str]:
        """Return the number format of each style of cells."""
        if name not in self._names:
            return []
        part = self._archive.read(name)
        own: dict[int, str] = {}
        found: list[int] = []
        cells = False
        for kind, place, end in records(part):
            if kind == _FORMAT:
                (number,) = struct.unpack_from("<H", part, place)
                own[number] = _string(part, place + 2, end)[0]
            elif kind in {_BEGIN_XFS, _END_XFS}:
                cells = kind == _BEGIN_XFS
            elif kind == _XF and cells:
                found.append(struct.unpack_from("<H", part, place + 2)[0])
        return [own.get(number, _BUILT_IN.get(number, "")) for number in found]

    def rows(self, part_name: str) -> Iterator[tuple[int, dict[int, tuple[Value, str]]]]:
        """Yield the rows of a sheet.

        Parameters
        ----------
        part_name
            Part of the sheet.

        Yields
        ------
        tuple
            Number of the row from one, and value and number format by column from zero. A number is a float, an
            error its word.

        Raises
        ------
        ValueError
            If the part is damaged, or has cells in a form that is not read.
        """
        part = self._archive.read(part_name)
        line, within = 0, False
        cells: dict[int, tuple[Value, str]] = {}
        for kind, place, end in records(part):
            if kind == _BEGIN_DATA:
                within = True
            elif kind == _END_DATA:
                break
            elif not within:
                continue
            elif kind == _ROW:
                if cells:
                    yield line, cells
                cells = {}
                (row,) = struct.unpack_from("<I", part, place)
                if row >= MAX_LINE:
                    raise ValueError("a row outside of the sheet")
                line = row + 1
            elif _FIRST_CELL <= kind <= _LAST_CELL or kind == _RICH_TEXT:
                column, style = struct.unpack_from("<II", part, place)
                if column >= MAX_COLUMN or line == 0:
                    raise ValueError("a cell outside of the sheet")
                value = self._value(kind, part, place + 8, end)
                if value is not None:
                    style &= 0xFFFFFF
                    cells[column] = value, self._formats[style] if style < len(self._formats) else ""
            elif kind in _SHORT_CELLS:
                raise ValueError("cells without columns are not read")
        if cells:
            yield line, cells

    def _value(self, kind: int, part: bytes, place: int, end: int) -> Value:
        if kind == 1:
            return None
        if kind == 2:
            return _rk(struct.unpack_from("<I", part, place)[0])
        if kind in {3, 11}:
            return error_word(part[place])
        if kind in {4, 10}:
            return bool(part[place])
        if kind in {5, 9}:
            return float(struct.unpack_from("<d", part, place)[0])
        if kind == 7:
            number: int = struct.unpack_from("<I", part, place)[0]
            return self._strings[number]
        return _string(part, place + 1 if kind == _RICH_TEXT else place, end)[0]
