"""Opening files that a person or a folder names, where anything may stand in the place of a file.

What belongs here: the judgement whether something is a file whose bytes can be read to an end, and opening it. A pipe
never answers, a device never ends, and a sparse file takes memory for bytes that nobody wrote.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from finance_assets.text import escape_name

#: The largest file that is read; a larger one is no delivery of a vendor.
MAX_FILE_BYTES = 64 << 30
#: From so many bytes on a file is asked whether it is on the disk at all.
SPARSE_FROM_BYTES = 32 << 20
#: A sparse file has not even this share of its bytes on the disk.
STORED_SHARE = 1 / 64
_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC


class UnreadableFileError(OSError):
    """What was named is no file that can be read; the message names it, says why, and what to do.

    Parameters
    ----------
    path
        What was named.
    complaint
        Why it is not read, and what to do.
    number
        The error number of the operating system.
    """

    def __init__(self, path: str | os.PathLike[str], complaint: str, number: int = errno.EINVAL) -> None:
        super().__init__(number, complaint, os.fspath(path))

    def __str__(self) -> str:
        return f"{escape_name(self.filename)} {self.strerror}"


def irregular_kind(mode: int) -> str | None:
    """Return what a file's mode says that it is, such as ``a named pipe``; None for a regular file."""
    if stat.S_ISREG(mode):
        return None
    return next((what for is_kind, what in _KINDS if is_kind(mode)), "of an unknown kind")


def is_sparse(state: os.stat_result) -> bool:
    """Whether a large file has hardly any of its bytes on the disk."""
    return state.st_size >= SPARSE_FROM_BYTES and state.st_blocks * 512 < state.st_size * STORED_SHARE


def check_regular(path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES, follow_links: bool = True) -> None:
    """Check that a path names a file that can be read; nothing is opened.

    Parameters
    ----------
    path
        What was named.
    max_bytes
        The largest size that is read.
    follow_links
        Whether a symbolic link may stand for the file that it leads to.

    Raises
    ------
    UnreadableFileError
        It is no regular file, larger than `max_bytes`, or sparse; or there is none.
    """
    try:
        state = os.stat(path, follow_symlinks=follow_links)
    except OSError as error:
        raise _out_of_reach(path, error) from None
    _check(path, state, max_bytes)


def open_regular(
    path: str | os.PathLike[str], *, max_bytes: int = MAX_FILE_BYTES, follow_links: bool = True
) -> BinaryIO:
    """Open a regular file for reading; never waits for the other end of a pipe.

    Parameters
    ----------
    path, max_bytes, follow_links
        As of :func:`check_regular`.

    Returns
    -------
    BinaryIO
        The open file.

    Raises
    ------
    UnreadableFileError
        As of :func:`check_regular`, or it cannot be opened.
    """
    # Opening a device can move it, and opening a pipe lets a writer go on: so it is looked at first.
    check_regular(path, max_bytes=max_bytes, follow_links=follow_links)
    try:
        descriptor = os.open(path, _FLAGS if follow_links else _FLAGS | os.O_NOFOLLOW)
    except OSError as error:
        raise _out_of_reach(path, error) from None
    try:
        # It may have been replaced since.
        _check(path, os.fstat(descriptor), max_bytes)
        return open(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: str | os.PathLike[str], *, max_bytes: int, follow_links: bool = True) -> bytes:
    """Return the bytes of a regular file.

    Parameters
    ----------
    path, max_bytes, follow_links
        As of :func:`check_regular`.

    Returns
    -------
    bytes
        All of them.

    Raises
    ------
    UnreadableFileError
        As of :func:`open_regular`, or it grew beyond `max_bytes` while it was read.
    """
    with open_regular(path, max_bytes=max_bytes, follow_links=follow_links) as file:
        # Files of /proc say that they are empty, and others grow.
        size = os.fstat(file.fileno()).st_size
        data = file.read(size + 1)
        if len(data) > size:
            data += file.read(max_bytes + 1 - len(data))
    if len(data) > max_bytes:
        raise UnreadableFileError(path, _too_large(len(data), max_bytes), errno.EFBIG)
    return data


def _check(path: str | os.PathLike[str], state: os.stat_result, max_bytes: int) -> None:
    kind = irregular_kind(state.st_mode)
    if kind is not None:
        raise UnreadableFileError(path, f"is no regular file: it is {kind}; name a file")
    if is_sparse(state):
        stored = f"{state.st_blocks * 512:,} of its {state.st_size:,} bytes are on the disk"
        raise UnreadableFileError(path, f"is a sparse file: {stored}; fetch it again, complete")
    if state.st_size > max_bytes:
        raise UnreadableFileError(path, _too_large(state.st_size, max_bytes), errno.EFBIG)


def _too_large(size: int, max_bytes: int) -> str:
    return f"is too large: {size:,} bytes, of which at most {max_bytes:,} are read here; name a smaller file"


def _out_of_reach(path: str | os.PathLike[str], error: OSError) -> UnreadableFileError:
    if isinstance(error, FileNotFoundError) and Path(path).is_symlink():
        complaint = "is a symbolic link to a file that is not there; name a file"
    else:
        complaint = f"cannot be read: {error.strerror or error}"
    return UnreadableFileError(path, complaint, error.errno or errno.EIO)
