"""Files of the lake: addresses, listing, reading bytes, and putting whole files in place atomically and durably.

Local files are written to ``_tmp/``, synced and renamed. On S3 a file is one upload that becomes visible when it is
complete. A file of an append-only table is created exclusively: a second writer fails, whatever locks were held.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, BinaryIO

from finance_assets.contracts.model import Contract
from finance_assets.sql import pattern_of_files
from finance_assets.storage.lake import local_files
from finance_assets.storage.lake.local_files import NO_LINKS, have_same_bytes, have_same_rows, open_temporary_file
from finance_assets.storage.lake.model import (
    SINGLE_FILE_KEY,
    SUFFIX,
    TEMPORARY_FOLDER,
    AlreadyThereError,
    LakeError,
    S3Options,
    WriterOptions,
    key_from_path,
)
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    import builtins

    import pyarrow.fs as pafs

    from finance_assets.storage.s3_objects import S3Objects

#: S3 copies a larger file in parts of this size: one copy request takes at most 5 GB, and is slow for large files.
COPY_PART_BYTES = 256 * 1024 * 1024
COPY_PART_SECONDS = 120.0
WRITERS = 8
#: Concurrent requests to S3. Fewer keep a local disk busy.
S3_READERS = 16
LOCAL_READERS = 4

#: Takes the path of a commit; raises where the process must not write it (see ``storage.writers``).
Guard = Callable[[str], None]
#: Whether `LakeFiles.put` creates a new file and must not replace one.
_IS_NEW: ContextVar[bool] = ContextVar("is_new", default=False)
_GUARDS: dict[str, list[Guard]] = {}
SAFE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


@dataclass
class LakeFiles:
    """Files at one address, a local folder or an S3 prefix.

    Parameters
    ----------
    uri
        An absolute folder or ``s3://bucket/prefix``.
    s3
        How to reach S3, where the address is there.
    writers
        How writers wait for each other.
    """

    uri: str
    s3: S3Options = field(default_factory=S3Options)
    writers: WriterOptions = field(default_factory=WriterOptions)

    @property
    def is_s3(self) -> bool:
        """Whether the lake is on S3."""
        return self.uri.startswith("s3://")

    @property
    def root(self) -> str:
        """The address as the file system names it: a path, or ``bucket/prefix``."""
        return self.uri.removeprefix("s3://").rstrip("/")

    @cached_property
    def filesystem(self) -> pafs.FileSystem:
        """The Arrow file system of the lake, opened at first use."""
        import pyarrow as pa
        import pyarrow.fs as pafs

        if not self.is_s3:
            return pafs.LocalFileSystem()
        if pa.io_thread_count() < S3_READERS:
            pa.set_io_thread_count(S3_READERS)
        scheme, _, host = (self.s3.endpoint_url or "https://").partition("://")
        if scheme not in ("http", "https"):
            raise LakeError(
                f"FINANCE_ASSETS_S3_ENDPOINT_URL={hide_url_secrets(self.s3.endpoint_url or '')!r} is not an address; "
                "write http://host:port or https://host"
            )
        return pafs.S3FileSystem(
            region=self.s3.region,
            endpoint_override=host.rstrip("/") or None,
            scheme=scheme,
            # A small file is one PUT; a large one is a multipart upload that appears when it is complete.
            allow_delayed_open=True,
            connect_timeout=10,
            request_timeout=60,
        )

    @cached_property
    def s3_objects(self) -> S3Objects:
        """Client of conditional S3 requests."""
        from finance_assets.storage.s3_objects import S3Objects

        return S3Objects(self.s3.region, self.s3.endpoint_url, COPY_PART_BYTES, seconds=COPY_PART_SECONDS)

    # -- addresses ---------------------------------------------------------------------------------------

    def folder(self, contract: Contract) -> str:
        """Return the folder of a table."""
        return f"{self.root}/{contract.path}"

    def file(self, contract: Contract, key: str = SINGLE_FILE_KEY) -> str:
        """Return the path of one file of a table.

        Raises
        ------
        LakeError
            The key could escape from the table's folder.
        """
        if not SAFE_KEY.fullmatch(key):
            raise LakeError(f"{contract.path}: {key!r} cannot name a file; use letters, digits and . _ = + -")
        return f"{self.folder(contract)}/{key}{SUFFIX}"

    def scan_address(self, contract: Contract) -> str:
        """Return the address of all files of a table, to be shown to people; DuckDB takes `scan_files`."""
        return f"{self._scheme}{self.folder(contract)}/*{SUFFIX}"

    def scan_files(self, contract: Contract) -> str | builtins.list[str]:
        """Return what `finance_assets.sql.read_parquet` takes for all files of a table.

        A pattern, which also matches files that are written later; the list of current files where DuckDB has no
        pattern for the folder.
        """
        folder = f"{self._scheme}{self.folder(contract)}"
        return pattern_of_files(folder, SUFFIX) or self.list(self.folder(contract), SUFFIX)

    def partitions(self, contract: Contract) -> builtins.list[str]:
        """Return the keys of the files of a table, sorted."""
        return [key_from_path(path) for path in self.list(self.folder(contract), SUFFIX)]

    @property
    def _scheme(self) -> str:
        return "s3://" if self.is_s3 else ""

    # -- reading -----------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Return whether there is a file at ``path``."""
        import pyarrow.fs as pafs

        with self.explain_s3_errors("looking for", path):
            return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)

    def get(self, path: str) -> bytes:
        """Return the bytes at ``path``; raise FileNotFoundError if it does not exist."""
        with self.explain_s3_errors("reading", path), self.filesystem.open_input_file(path) as file:
            return bytes(file.readall())

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Return the paths of the files directly below ``folder``, sorted; a failed listing raises."""
        return [info.path for info in self._list_files(folder, suffix)]

    def _list_files(self, folder: str, suffix: str) -> builtins.list[pafs.FileInfo]:
        import pyarrow.fs as pafs

        selector = pafs.FileSelector(folder, allow_not_found=True)
        with self.explain_s3_errors("listing", folder):
            infos = self.filesystem.get_file_info(selector)
            # Arrow lists a missing bucket like a folder without files.
            if not infos and self.is_s3 and self._is_bucket_missing():
                raise OSError("there is no such bucket")
        matching = (info for info in infos if info.type == pafs.FileType.File and info.path.endswith(suffix))
        return sorted(matching, key=lambda info: info.path)

    def _is_bucket_missing(self) -> bool:
        import pyarrow.fs as pafs

        return bool(self.filesystem.get_file_info(self.root.split("/")[0]).type == pafs.FileType.NotFound)

    @contextmanager
    def explain_s3_errors(self, doing: str, path: str) -> Iterator[None]:
        """Turn errors of S3 into a `LakeError` that says what failed, where, and what to check."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            if not self.is_s3:
                raise
            raise LakeError(
                f"{doing} s3://{path} at {hide_url_secrets(self.s3.endpoint_url or 'AWS')}, region {self.s3.region}, "
                f"failed: {hide_url_secrets(str(error))}. "
                "Check FINANCE_ASSETS_LAKE_URI, FINANCE_ASSETS_S3_ENDPOINT_URL, the credentials and their permissions."
            ) from error

    # -- writing -----------------------------------------------------------------------------------------

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Write ``data`` to ``path``, whole and durably, or not at all."""
        self._put_files([path], lambda _: data, is_new=_IS_NEW.get())

    def _put_files(
        self, paths: Iterable[str], data: Callable[[int], bytes | memoryview], *, is_new: bool = False
    ) -> None:
        """Write the bytes ``data(index)`` to each of ``paths``; after an error no further file is begun.

        Where ``is_new``, an existing file is left unchanged, and is an error unless it has the same content.
        """
        listed = list(paths)
        folders = sorted({os.path.dirname(path) for path in listed})
        if not self.is_s3:
            for folder in folders:
                local_files.make_folder(folder)

        write_file = self._create_file if is_new else self._replace_file

        def put_file(index: int) -> None:
            if self.is_s3:
                self._upload(listed[index], data(index), is_new=is_new)
            else:
                content = data(index)
                write_file(listed[index], lambda file: file.write(content))

        if len(listed) == 1 and (not self.is_s3 or threading.current_thread() is not threading.main_thread()):
            put_file(0)
        else:
            # Even a single upload runs in a thread: an interrupt reaches only the main thread, and so never falls
            # between opening and writing, which would leave an empty object.
            _run_all(put_file, range(len(listed)), WRITERS)
        if not self.is_s3:
            for folder in folders:
                local_files.sync_folder(folder)

    def _upload(self, path: str, data: bytes | memoryview, *, is_new: bool) -> None:
        self.check_guards(path)
        if is_new:
            with self.explain_s3_errors("writing", path):
                try:
                    self.s3_objects.create(path, data)
                except FileExistsError:
                    self._check_same_content(path, data)
            return
        # Without this, Arrow would compress files that are named .gz, which are compressed already.
        with (
            self.explain_s3_errors("writing", path),
            self.filesystem.open_output_stream(path, compression=None) as stream,
        ):
            stream.write(data)

    def _write_local(self, path: str, write: Callable[[BinaryIO], object], *, is_new: bool = False) -> int:
        """Create a local file with what ``write`` writes, whole and durably; return its size in bytes."""
        folder = os.path.dirname(path)
        local_files.make_folder(folder)
        size = (self._create_file if is_new else self._replace_file)(path, write)
        local_files.sync_folder(folder)
        return size

    def _replace_file(self, path: str, write: Callable[[BinaryIO], object]) -> int:
        """Write a local file, replacing any; the caller syncs the folder, once for all of its files."""
        return self._write_and_commit(path, write, is_new=False)

    def _create_file(self, path: str, write: Callable[[BinaryIO], object]) -> int:
        """Write a local file where there is none; the caller syncs the folder."""
        return self._write_and_commit(path, write, is_new=True)

    def _write_and_commit(self, path: str, write: Callable[[BinaryIO], object], *, is_new: bool) -> int:
        with open_temporary_file(self.temporary_folder) as (descriptor, temporary):
            with open(descriptor, "wb", closefd=False) as file:
                write(file)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            self._commit_file(temporary, path, is_new=is_new)
        return size

    def _commit_file(self, temporary: str, path: str, *, is_new: bool) -> None:
        """Give a temporary file its final name; where ``is_new``, an existing file of that name is kept.

        Raises
        ------
        AlreadyThereError
            Another file has the name, with different content.
        """
        self.check_guards(path)
        if not is_new:
            os.replace(temporary, path)
            return
        try:
            # Unlike a rename, a link fails where the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            with open(temporary, "rb") as content:
                self._check_same_content(path, content)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # Without hard links, only the writers' lock protects the time between the check and the rename.
            if os.path.exists(path):
                with open(temporary, "rb") as content:
                    self._check_same_content(path, content)
            else:
                os.replace(temporary, path)

    def _check_same_content(self, path: str, content: bytes | memoryview | BinaryIO) -> None:
        """Raise unless the existing file has the content that was to be written: the same bytes, or the same rows.

        Rows count too, since another release of the Parquet library may write them as different bytes.
        """
        existing: bytes | BinaryIO = self.get(path) if self.is_s3 else open(path, "rb")  # noqa: SIM115
        try:
            is_same = have_same_bytes(existing, content) or (
                path.endswith(SUFFIX) and have_same_rows(existing, content)
            )
        finally:
            if not isinstance(existing, bytes):
                existing.close()
        if not is_same:
            raise AlreadyThereError(
                f"{path} exists with different content, and files of its table are never replaced; nothing was "
                "written. Another process wrote it meanwhile, or it is damaged: run again, and if that fails in the "
                "same way, compare the file with its backup"
            )

    def _has_bytes(self, path: str, data: memoryview) -> bool:
        """Return whether a file has exactly these bytes."""
        with self.explain_s3_errors("looking for", path):
            size = self.filesystem.get_file_info(path).size
        return size == len(data) and self.get(path) == data

    def _link_file(self, source: str, path: str, *, is_new: bool) -> None:
        """Give a local file a second name, durably; copy it where the file system has no hard links."""
        folder = os.path.dirname(path)
        local_files.make_folder(folder)
        temporary = os.path.join(self.temporary_folder, uuid.uuid4().hex)
        descriptor = os.open(source, os.O_RDONLY)
        try:
            # The lock belongs to the file, whatever its name: the sweeper does not remove the new name.
            local_files.lock_file(descriptor)
            try:
                os.link(source, temporary)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # The file system has no hard links.
                data = self.get(source)
                (self._create_file if is_new else self._replace_file)(path, lambda file: file.write(data))
            else:
                # A rename between two names of one file does nothing, so the temporary name is removed here.
                try:
                    self._commit_file(temporary, path, is_new=is_new)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary)
        finally:
            os.close(descriptor)
        local_files.sync_folder(folder)

    def _copy_on_s3(self, source: str, path: str, *, is_new: bool) -> None:
        """Have S3 copy a file: in one request, or in parts where it is large or must not replace another."""
        with self.explain_s3_errors("copying", path):
            size = self.filesystem.get_file_info(source).size
            self.check_guards(path)
            if is_new:
                if size is None:
                    raise FileNotFoundError(f"{source} does not exist")
                try:
                    self.s3_objects.copy_new(source, path, size)
                except FileExistsError:
                    self._check_same_content(path, self.get(source))
            elif (size or 0) > COPY_PART_BYTES:
                self.s3_objects.copy_in_parts(source, path)
            else:
                self.filesystem.copy_file(source, path)

    # -- guards ------------------------------------------------------------------------------------------

    @contextmanager
    def guard_commits(self, guard: Guard) -> Iterator[None]:
        """Call ``guard`` before each commit of this process to the lake, while the block lasts.

        Parameters
        ----------
        guard
            Takes the path that is about to be written; raises where it must not be.
        """
        guards = _GUARDS.setdefault(self.root, [])
        guards.append(guard)
        try:
            yield
        finally:
            guards.remove(guard)

    def check_guards(self, path: str) -> None:
        """Raise where a guard of this process forbids writing ``path``."""
        for guard in tuple(_GUARDS.get(self.root, ())):
            guard(path)

    @cached_property
    def temporary_folder(self) -> str:
        """Local folder of unfinished files, swept at first use."""
        folder = os.path.join(self.root, TEMPORARY_FOLDER)
        local_files.make_folder(folder)
        local_files.sweep_folder(folder)
        return folder


@contextmanager
def forbid_replacing(contract: Contract) -> Iterator[None]:
    """Let :meth:`LakeFiles.put` replace no file of an append-only table, while the block lasts."""
    token = _IS_NEW.set(contract.append_only)
    try:
        yield
    finally:
        _IS_NEW.reset(token)


def _run_all(work: Callable[[int], None], items: Iterable[int], workers: int) -> None:
    """Call ``work`` on each item in threads; after the first error the running calls finish and no other begins."""
    pool = ThreadPoolExecutor(workers)
    try:
        for future in [pool.submit(work, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)
