"""One Parquet file of parts that were encoded by themselves, so that all cores encode a large table.

Belongs here: the footer of a Parquet file, as far as parts must be shifted to be joined. What is in a part, its encoder
says. The joined file is, byte by byte, the one that a single writer makes of the same row groups.

A footer is a struct in Thrift's compact protocol. It is read and written field by field, known or not; only the places
of column chunks and the counts of rows are understood. Source: apache/parquet-format, parquet.thrift, and the
specification of the compact protocol.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, BinaryIO

#: How every whole Parquet file begins and ends.
MAGIC = b"PAR1"
_BOOLEANS = (1, 2)
_INTEGERS = (3, 4, 5, 6)
_DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 7, 8, 9, 10, 12
#: FileMetaData: rows of the file, and its row groups.
_FILE_ROWS, _ROW_GROUPS = 3, 4
#: RowGroup: its columns, where it begins, and its number.
_COLUMNS, _GROUP_OFFSET, _ORDINAL = 1, 5, 7
#: ColumnChunk: where it is said to begin, its metadata, and where its indexes are.
_CHUNK_OFFSETS, _METADATA = (2, 4, 6), 3
#: ColumnMetaData: where pages of data, index, dictionary and a Bloom filter begin.
_PAGE_OFFSETS = (9, 10, 11, 14)

#: Fields of a struct: number, type, value.
Struct = list[list[Any]]


class PartsError(ValueError):
    """A part is no Parquet file, or not one of the same table as the others."""


def join_parts(parts: Iterable[memoryview], sink: BinaryIO) -> int:
    """Write one Parquet file of the row groups of several.

    Parameters
    ----------
    parts
        Whole Parquet files of one schema, in the order of their rows; each is let go when it is written.
    sink
        Where the file goes.

    Returns
    -------
    int
        Rows of the file.

    Raises
    ------
    PartsError
        A part is no Parquet file, or of another schema than the first; or there are none.
    """
    whole: Struct | None = None
    groups: list[Struct] = []
    rows, place = 0, len(MAGIC)
    sink.write(MAGIC)
    for part in parts:
        footer, end = _footer(part)
        body = part[len(MAGIC) : end]
        if whole is None:
            whole = footer
        elif _schema(footer) != _schema(whole):
            raise PartsError("a part has another schema than the first")
        for group in _field(footer, _ROW_GROUPS)[1]:
            _shift(group, place - len(MAGIC), len(groups))
            groups.append(group)
        rows += _field(footer, _FILE_ROWS)
        sink.write(body)
        place += len(body)
    if whole is None:
        raise PartsError("there is no part")
    _set_field(whole, _FILE_ROWS, rows)
    _set_field(whole, _ROW_GROUPS, (_STRUCT, groups))
    encoded = bytearray()
    _write_struct(encoded, whole)
    sink.write(encoded + len(encoded).to_bytes(4, "little") + MAGIC)
    return rows


def _footer(part: memoryview) -> tuple[Struct, int]:
    """Return the footer of a Parquet file, and where it begins."""
    if len(part) < 12 or part[:4] != MAGIC or part[-4:] != MAGIC:
        raise PartsError("a part is no Parquet file")
    begin = len(part) - 8 - int.from_bytes(part[-8:-4], "little")
    if begin < len(MAGIC):
        raise PartsError("a part has no whole footer")
    return _Reader(bytes(part[begin:-8])).struct(), begin


def _schema(footer: Struct) -> list[list[Any]]:
    """Return what must be the same in all parts."""
    return [field for field in footer if field[0] not in (_FILE_ROWS, _ROW_GROUPS)]


def _shift(group: Struct, by: int, number: int) -> None:
    """Move a row group."""
    for field in group:
        if field[0] == _GROUP_OFFSET:
            field[2] += by
        elif field[0] == _ORDINAL:
            field[2] = number
    for chunk in _field(group, _COLUMNS)[1]:
        for field in chunk:
            # Writers of today leave the place of the chunk itself at 0.
            if field[0] in _CHUNK_OFFSETS and field[2]:
                field[2] += by
        for field in _field(chunk, _METADATA):
            if field[0] in _PAGE_OFFSETS:
                field[2] += by


def _field(struct: Struct, number: int) -> Any:
    for field in struct:
        if field[0] == number:
            return field[2]
    raise PartsError(f"a footer has no field {number}")


def _set_field(struct: Struct, number: int, value: Any) -> None:
    for field in struct:
        if field[0] == number:
            field[2] = value


# --- Thrift's compact protocol ---------------------------------------------------------------------------------------


class _Reader:
    """Reads a struct; what follows it is not looked at."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def struct(self) -> Struct:
        fields: Struct = []
        number = 0
        while head := self._byte():
            delta, kind = head >> 4, head & 15
            number = number + delta if delta else self._integer()
            fields.append([number, kind, None if kind in _BOOLEANS else self._value(kind)])
        return fields

    def _value(self, kind: int) -> Any:
        if kind in _INTEGERS:
            return self._byte() if kind == 3 else self._integer()
        if kind == _BINARY:
            return self._bytes(self._varint())
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind in (_LIST, _SET):
            head = self._byte()
            size, element = head >> 4, head & 15
            size = self._varint() if size == 15 else size
            # The elements of a list of booleans are bytes.
            return element, [self._byte() if element in _BOOLEANS else self._value(element) for _ in range(size)]
        if kind == _STRUCT:
            return self.struct()
        raise PartsError(f"a footer has a field of type {kind}")

    def _byte(self) -> int:
        self.place += 1
        return self.data[self.place - 1]

    def _bytes(self, size: int) -> bytes:
        self.place += size
        return self.data[self.place - size : self.place]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)


def _write_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for number, kind, value in struct:
        if 0 < number - before < 16:
            out.append((number - before) << 4 | kind)
        else:
            out.append(kind)
            _write_integer(out, number)
        before = number
        if kind not in _BOOLEANS:
            _write_value(out, kind, value)
    out.append(0)


def _write_value(out: bytearray, kind: int, value: Any) -> None:
    if kind == 3:
        out.append(value)
    elif kind in _INTEGERS:
        _write_integer(out, value)
    elif kind == _BINARY:
        _write_varint(out, len(value))
        out += value
    elif kind == _DOUBLE:
        out += value
    elif kind == _STRUCT:
        _write_struct(out, value)
    else:
        element, values = value
        if len(values) < 15:
            out.append(len(values) << 4 | element)
        else:
            out.append(0xF0 | element)
            _write_varint(out, len(values))
        for one in values:
            if element in _BOOLEANS:
                out.append(one)
            else:
                _write_value(out, element, one)


def _write_varint(out: bytearray, value: int) -> None:
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)


def _write_integer(out: bytearray, value: int) -> None:
    _write_varint(out, value << 1 if value >= 0 else ((-value) << 1) - 1)
