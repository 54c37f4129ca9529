"""What a delivered byte string is, and what is safe to take out of it.

Belongs here: the bytes of a delivered file, recognition by content and the opening of archives in memory, within
limits. A member that is unsafe rejects the whole file; nothing is ever written to disk.
"""

from __future__ import annotations

import io
import lzma
import os
import re
import stat
import zipfile
import zlib
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from finance_assets.advisory.reading.budget import MAX_MEMBERS, Budget, current_budget
from finance_assets.advisory.reading.rejection import FileRejected

__all__ = ["READABLE", "ZIPPED_WORKBOOKS", "FileBytes", "FileRejected", "Member", "kind_of", "open_members"]

_CHUNK = 1 << 16
_LONGEST_ENTRY = 1 << 10
"""Most bytes that the directory of an archive has for each member, on average."""
ZIPPED_WORKBOOKS = frozenset({"xlsx", "xlsb", "ods"})
READABLE = frozenset({"text", "parquet", "xml", "xls"}) | ZIPPED_WORKBOOKS
"""Kinds of content that can hold rows; XML may be a workbook too, which its root tells."""
_COMPOUND = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
_BARE_XLS = re.compile(rb"\x09[\x00\x02\x04\x08][\x04-\x10]\x00", re.DOTALL)
"""The first record of a workbook of old, which had no container around its records."""
_OPEN_DOCUMENT_SHEETS = b"application/vnd.oasis.opendocument.spreadsheet"
_BINARY = (
    (b"%PDF", "pdf"),
    (b"\x89PNG", "image"),
    (b"\xff\xd8\xff", "image"),
    (b"GIF8", "image"),
    (b"7z\xbc\xaf\x27\x1c", "unsupported_archive"),
    (b"Rar!", "unsupported_archive"),
    (b"BZh", "unsupported_archive"),
    (b"\xfd7zXZ\x00", "unsupported_archive"),
    (b"\x28\xb5\x2f\xfd", "unsupported_archive"),
    (b"{\\rtf", "rtf"),
    (b"MZ", "executable"),
    (b"\x7fELF", "executable"),
    (b"SQLite format 3", "database"),
    (b"-----BEGIN PGP", "encrypted"),
    (b"Salted__", "encrypted"),
)


_CUT = "the file was cut while it was being read"


class FileBytes:
    """The bytes of a file on a disk, of which only what is asked for comes into memory; any thread may ask.

    Parameters
    ----------
    descriptor
        An open file that nobody changes.
    start
        Where its content begins.
    """

    def __init__(self, descriptor: int, start: int = 0) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = os.fstat(descriptor).st_size - start

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        pieces = []
        while start < stop:
            # A system call gives two gigabytes at most.
            pieces.append(os.pread(self._descriptor, stop - start, self._start + start))
            if not pieces[-1]:
                raise OSError(_CUT)
            start += len(pieces[-1])
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def after(self, size: int) -> FileBytes:
        """Return the content without its first bytes."""
        return FileBytes(self._descriptor, self._start + size)

    def opened(self) -> io.BufferedReader:
        """Return a stream with a place of its own."""
        return io.BufferedReader(_Stream(self._descriptor, self._start, self._size))


class _Stream(io.RawIOBase):
    """A descriptor as a stream that does not share its place with others."""

    def __init__(self, descriptor: int, start: int, size: int) -> None:
        self._descriptor, self._start, self._size = descriptor, start, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._place, io.SEEK_END: self._size}[whence]
        return self._place

    def readinto(self, buffer: Any) -> int:
        wanted = memoryview(buffer)[: max(0, self._size - self._place)]
        read = os.preadv(self._descriptor, [wanted], self._start + self._place) if wanted else 0
        if wanted and not read:
            raise OSError(_CUT)
        self._place += read
        return read


@dataclass(frozen=True)
class Member:
    """One piece of content: the file itself (name ``""``) or a member of an archive."""

    name: str
    kind: str  # one of READABLE
    data: bytes


def kind_of(data: bytes) -> str:
    """Say what a byte string is, by its content.

    Parameters
    ----------
    data
        The whole content.

    Returns
    -------
    str
        ``empty``, ``gzip``, ``zip``, ``html``, one of `READABLE`, or the reason why it cannot be read (``pdf``,
        ``encrypted``, ``unsupported_document``, ...).

    Raises
    ------
    FileRejected
        ``too_many_members`` of an archive.
    """
    if not data:
        return "empty"
    if data[:2] == b"\x1f\x8b":
        return "gzip"
    if data[:4] == b"PK\x03\x04" or data[:4] == b"PK\x05\x06":
        try:
            with opened_archive(data) as archive:
                return _kind_of_archive(archive)
        except _BROKEN_ARCHIVE:
            return "corrupt_archive"
    if data[:4] == b"PAR1":
        return "parquet"
    if data[:8] == _COMPOUND:
        # An encrypted workbook is a compound file with this stream in its directory.
        return "encrypted" if "EncryptedPackage".encode("utf-16-le") in data else "xls"
    if _BARE_XLS.match(data):
        return "xls"
    for magic, kind in _BINARY:
        if data.startswith(magic):
            return kind
    head = data[:2048].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "text"
    while comment := re.match(rb"<!--.*?-->\s*", head, re.DOTALL):
        head = head[comment.end() :]
    if re.match(rb"<(!doctype html|html|head|body|table|meta|style|div|!--)", head) or b"<html" in head[:1024]:
        return "html"
    if head.startswith((b"<?xml", b"<!doctype")) or re.match(rb"<[a-z_][\w:.-]*[\s/>]", head):
        return "xml"
    return "text"


def _kind_of_archive(archive: zipfile.ZipFile) -> str:
    names = set(archive.namelist())
    if "xl/workbook.xml" in names or any(n.startswith("xl/") and n.endswith("workbook.xml") for n in names):
        return "xlsx"
    if "xl/workbook.bin" in names:
        return "xlsb"
    if "mimetype" in names:
        with archive.open("mimetype") as stream:
            sheets = stream.read(len(_OPEN_DOCUMENT_SHEETS)) == _OPEN_DOCUMENT_SHEETS
        return "ods" if sheets else "unsupported_document"
    return "unsupported_document" if "[Content_Types].xml" in names else "zip"


def opened_archive(data: bytes) -> zipfile.ZipFile:
    """Open a zip archive.

    Parameters
    ----------
    data
        Its content.

    Raises
    ------
    FileRejected
        ``too_many_members``, before the directory is read: the library makes an object of each entry.
    zipfile.BadZipFile
        It is none, or damaged.
    """
    # The record at the end says how long the directory is; the library reads so much, however many entries it states.
    end = data.rfind(b"PK\x05\x06", max(0, len(data) - (1 << 16) - 22))
    size = int.from_bytes(data[end + 12 : end + 16], "little") if end >= 0 else 0
    if end >= 76 and data[end - 20 : end - 16] == b"PK\x06\x07" and data[end - 76 : end - 72] == b"PK\x06\x06":
        size = int.from_bytes(data[end - 36 : end - 28], "little")
    if size > MAX_MEMBERS * _LONGEST_ENTRY:
        raise FileRejected(
            "too_many_members",
            f"the directory of the archive is {size:,} bytes long, and {MAX_MEMBERS} members are read: deliver them in "
            "several archives",
        )
    return zipfile.ZipFile(io.BytesIO(data))


def _gunzip(data: bytes) -> bytes:
    """Expand gzip (also several streams in a row) within the limits."""
    budget = current_budget()
    out = bytearray()
    place = 0
    while place < len(data):
        if data[place : place + 2] != b"\x1f\x8b":
            if data[place:].strip(b"\0"):
                raise FileRejected("corrupt_archive")
            break
        engine = zlib.decompressobj(31)
        size = 1 << 8
        while not engine.eof:
            chunk = engine.unconsumed_tail
            if not chunk:
                chunk = data[place : place + size]
                place += len(chunk)
                size = min(2 * size, _CHUNK)
            if not chunk:
                raise FileRejected("corrupt_archive")
            try:
                expanded = engine.decompress(chunk, 1 << 20)
            except zlib.error as error:
                raise FileRejected("corrupt_archive") from error
            out += expanded
            budget.take_expanded(len(expanded))
        # What the engine did not use is read again: many short streams in a row cost no more than one.
        place -= len(engine.unused_data)
        budget.tick()
    return bytes(out)


def _unsafe(info: zipfile.ZipInfo) -> bool:
    name = info.orig_filename if hasattr(info, "orig_filename") else info.filename
    parts = re.split(r"[/\\]", name)
    link = stat.S_ISLNK(info.external_attr >> 16)
    return link or ".." in parts or name.startswith(("/", "\\")) or bool(re.match(r"[A-Za-z]:", name)) or "\0" in name


def _checked_infos(archive: zipfile.ZipFile, budget: Budget, what: str) -> list[zipfile.ZipInfo]:
    infos = archive.infolist()
    if len(infos) > MAX_MEMBERS:
        raise FileRejected(
            "too_many_members",
            f"the archive has {len(infos):,} members, and {MAX_MEMBERS} are read: deliver them in several archives",
        )
    budget.take(what, len(infos))
    if any(_unsafe(info) for info in infos):
        raise FileRejected("path_traversal")
    if any(info.flag_bits & 1 for info in infos):
        raise FileRejected("encrypted")
    budget.need_expanded(sum(info.file_size for info in infos))
    # Members that share their bytes expand to more than any archive that a program writes.
    spans = sorted((info.header_offset, info.header_offset + 30 + info.compress_size) for info in infos)
    if any(after[0] < before[1] for before, after in pairwise(spans)):
        raise FileRejected("decompression_bomb", "members of the archive overlap: create the archive again")
    return infos


_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    EOFError,
    NotImplementedError,
    OSError,
    ValueError,
    RuntimeError,
    lzma.LZMAError,
)


def _unzip(data: bytes) -> list[tuple[str, bytes]]:
    budget = current_budget()
    members: list[tuple[str, bytes]] = []
    try:
        with opened_archive(data) as archive:
            for info in _checked_infos(archive, budget, "members"):
                base = re.split(r"[/\\]", info.filename)[-1]
                if info.is_dir() or base.startswith(".") or info.filename.startswith("__MACOSX/"):
                    continue
                content = bytearray()
                with archive.open(info) as stream:
                    # The directory may lie about sizes, so what comes out is counted as well.
                    while chunk := stream.read(_CHUNK):
                        content += chunk
                        budget.take_expanded(len(chunk))
                members.append((info.filename, bytes(content)))
                budget.tick()
    except _BROKEN_ARCHIVE as error:
        raise FileRejected("corrupt_archive") from error
    return members


def check_workbook(data: bytes) -> None:
    """Refuse a workbook that is an unsafe archive.

    Parameters
    ----------
    data
        Content of a workbook of one of `ZIPPED_WORKBOOKS`.

    Raises
    ------
    FileRejected
        If its members are encrypted, escape, overlap or expand beyond the limits.
    """
    budget = current_budget()
    try:
        with opened_archive(data) as archive:
            for info in _checked_infos(archive, budget, "parts"):
                with archive.open(info) as stream:
                    while chunk := stream.read(_CHUNK):
                        budget.take_expanded(len(chunk))
                budget.tick()
    except _BROKEN_ARCHIVE as error:
        raise FileRejected("corrupt_archive") from error


def open_members(data: bytes) -> list[Member]:
    """Take apart what was delivered.

    Parameters
    ----------
    data
        The delivered bytes.

    Returns
    -------
    list of Member
        One for a plain file; one per file in an archive. Members that cannot hold rows keep their kind, so that the
        reader can skip and count them.

    Raises
    ------
    FileRejected
        If the file is empty, unsafe, or of a kind that is not read.
    """
    kind = kind_of(data)
    if kind == "empty":
        raise FileRejected("empty_file")
    if kind == "gzip":
        inner = _gunzip(data)
        inner_kind = kind_of(inner)
        if inner_kind in {"gzip", "zip"}:
            raise FileRejected("nested_archive")
        if inner_kind == "empty":
            raise FileRejected("empty_file")
        return [_plain("", inner, inner_kind)]
    if kind == "zip":
        members = []
        for name, content in _unzip(data):
            inner_kind = kind_of(content)
            if inner_kind in {"gzip", "zip", "unsupported_archive"}:
                raise FileRejected("nested_archive")
            if inner_kind in ZIPPED_WORKBOOKS:
                check_workbook(content)
            members.append(Member(name, inner_kind, content))
        if not members:
            raise FileRejected("empty_file")
        return members
    return [_plain("", data, kind)]


def _plain(name: str, data: bytes, kind: str) -> Member:
    if kind in ZIPPED_WORKBOOKS:
        check_workbook(data)
    elif kind == "html":
        raise FileRejected("html_content")
    elif kind == "encrypted":
        raise FileRejected("encrypted")
    elif kind not in READABLE:
        raise FileRejected(kind if kind.startswith(("corrupt", "unsupported")) else f"{kind}_content")
    return Member(name, kind, data)
