"""Local files: temporary files and their locks, durable folders, and comparing the content of two files."""

from __future__ import annotations

import errno
import fcntl
import io
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

#: Error numbers of a file system that has no hard links, or not for this file.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)
#: Bytes of two files that are compared at a time.
COMPARED_BYTES = 1 << 20


@contextmanager
def open_temporary_file(folder: str) -> Iterator[tuple[int, str]]:
    """Create a temporary file that is locked while the block lasts; remove it unless the block has renamed it.

    Yields
    ------
    tuple of int and str
        The open file descriptor and the path.
    """
    while True:
        path = os.path.join(folder, uuid.uuid4().hex)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileNotFoundError:
            # Another process removed the whole folder.
            make_folder(folder)
            continue
        # A sweeper may remove the file between its creation and its locking; then create another one.
        if lock_file(descriptor) is not False and os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        yield descriptor, path
    finally:
        if os.path.exists(path):
            os.unlink(path)
        os.close(descriptor)


def lock_file(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file without waiting.

    Returns
    -------
    bool or None
        True where this process holds the lock now, False where another one does, None where the file system has no
        locks.
    """
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return None
        raise
    return True


def sweep_folder(folder: str) -> None:
    """Remove the unfinished files of writers that have ended: files that nobody has locked."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if lock_file(descriptor):
                os.unlink(path)
        except FileNotFoundError:
            # Its writer has renamed it to its final name.
            continue
        finally:
            os.close(descriptor)


def make_folder(folder: str) -> None:
    """Create a folder and its parents durably: each new folder is an entry of its parent, which is synced."""
    missing = []
    while not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(missing):
        os.makedirs(path, exist_ok=True)
        sync_folder(os.path.dirname(path))


def sync_folder(folder: str) -> None:
    """Make renames in a folder durable, by syncing the folder's own entries."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def have_same_bytes(one: bytes | memoryview | BinaryIO, other: bytes | memoryview | BinaryIO) -> bool:
    """Return whether two files have the same bytes."""
    first, second = _as_file(one), _as_file(other)
    while True:
        left, right = first.read(COMPARED_BYTES), second.read(COMPARED_BYTES)
        if left != right:
            return False
        if not left:
            return True


def have_same_rows(one: bytes | memoryview | BinaryIO, other: bytes | memoryview | BinaryIO) -> bool:
    """Return whether two Parquet files have the same rows in the same row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        first, second = pq.ParquetFile(_as_file(one)), pq.ParquetFile(_as_file(other))
        groups = first.num_row_groups
        return (
            groups == second.num_row_groups
            and first.schema_arrow.equals(second.schema_arrow)
            and all(first.read_row_group(index).equals(second.read_row_group(index)) for index in range(groups))
        )
    except pa.ArrowInvalid:
        return False


def _as_file(content: bytes | memoryview | BinaryIO) -> BinaryIO:
    """Return content as a file that is at its beginning."""
    if isinstance(content, bytes | memoryview):
        return io.BytesIO(content)
    content.seek(0)
    return content
