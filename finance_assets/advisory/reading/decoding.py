"""From bytes to text.

Belongs here: byte order marks, UTF-8, UTF-16 and the one-byte code page of Western offices. Text that none of them
gives is refused; a wrong guess would only show in the names of accounts.
"""

from __future__ import annotations

import codecs
import re
import unicodedata

from finance_assets.advisory.reading.containers import FileRejected

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def to_utf8(data: bytes, encoding: str | None = None) -> tuple[bytes, str]:
    """Return text as UTF-8 with single line feeds.

    Parameters
    ----------
    data
        Bytes of a text file.
    encoding
        Encoding that a contract declares.

    Returns
    -------
    tuple
        UTF-8 without a byte order mark, and the name of the encoding found.

    Raises
    ------
    FileRejected
        If it is no text in any of the encodings.
    """
    text, name = _decoded(data, encoding)
    if b"\0" in text:
        raise FileRejected("binary_content")
    return single_feeds(text), name


def single_feeds(text: bytes) -> bytes:
    """Return text with line feeds alone at the ends of its lines."""
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n")
        if b"\r" in text:
            # Old line ends only count where there are no others; inside a line they are just space.
            text = text.replace(b"\r", b"\n" if b"\n" not in text else b" ")
    return text


def is_plain(text: bytes) -> bool:
    """Whether a piece of a text, from one line feed to another, is what `to_utf8` would make of it, piece by piece."""
    if not text.isascii():
        try:
            text.decode("utf-8")
        except UnicodeDecodeError:
            return False
    return b"\0" not in text and (b"\r" not in text or text.count(b"\r") == text.count(b"\r\n"))


def _decoded(data: bytes, encoding: str | None) -> tuple[bytes, str]:
    if encoding:
        try:
            return data.decode(encoding).removeprefix("\ufeff").encode(), encoding
        except (UnicodeDecodeError, LookupError, UnicodeError) as error:
            raise FileRejected("undecodable") from error
    for mark, name in _MARKS:
        if data.startswith(mark):
            try:
                return data.decode(name).encode(), name
            except UnicodeError as error:
                raise FileRejected("undecodable") from error
    if b"\0" in data[:4096]:
        return _without_mark(data)
    if data.isascii():
        return data, "utf-8"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return _one_byte(data)
    return data, "utf-8"


def _without_mark(data: bytes) -> tuple[bytes, str]:
    """UTF-16 without a mark: every second byte of Western text is zero."""
    head = data[:4096]
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = len(head) // 2 or 1
    name = (
        "utf-16-le"
        if odd > 0.7 * half and even < 0.1 * half
        else "utf-16-be"
        if even > 0.7 * half and odd < 0.1 * half
        else None
    )
    if name is None:
        raise FileRejected("binary_content")
    try:
        return data.decode(name).encode(), name
    except UnicodeError as error:
        raise FileRejected("undecodable") from error


def _one_byte(data: bytes) -> tuple[bytes, str]:
    sequences = len(re.findall(rb"[\xc3-\xdf][\x80-\xbf]|[\xe0-\xef][\x80-\xbf]{2}", data[:1_000_000]))
    high = len(re.findall(rb"[\x80-\xff]", data[:1_000_000]))
    if sequences * 2 > 0.5 * high and sequences > 2:
        # Mostly good UTF-8 with broken bytes: damaged, not another encoding.
        raise FileRejected("undecodable")
    try:
        text = data.decode("cp1252")
    except UnicodeDecodeError as error:
        raise FileRejected("undecodable") from error
    strange = [c for c in text[:1_000_000] if ord(c) > 126 or (ord(c) < 32 and c not in "\t\r\n\f")]
    letters = sum(unicodedata.category(c)[0] == "L" or c in "€£¥\xa0’‘“”–—…·°§«»®©ºª²³½¼" for c in strange)  # noqa: RUF001
    if strange and letters < 0.7 * len(strange):
        raise FileRejected("undecodable")
    return text.encode(), "cp1252"
