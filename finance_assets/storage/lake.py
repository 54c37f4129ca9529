"""The lake: immutable Parquet files at one address, a local folder or an S3 prefix.

What belongs here: putting whole files in place atomically, listing them, and reading many of them at once. A
partition (or one landed file, or one micro-batch: any key) is one file, ``<layer>/<table>/<key>.parquet``; a
table without partitions is ``<layer>/<table>/data.parquet``. Landed bytes lie under ``landing/`` by their sha256.

Local files are written to ``_tmp/``, synced and renamed; on S3 they are one upload that becomes visible when it is
complete: a reader sees the old file or the new one. A file of an append-only table is made exclusively: whoever comes
second leaves it as it is, whatever locks were held. A crash leaves at most a file in ``_tmp/``, which the next writer
sweeps: a writer holds a lock on its temporary file for as long as it lives, so what is not locked is nobody's.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import io
import os
import re
import shutil
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

from finance_assets.contracts.model import Contract, ContractError
from finance_assets.contracts.validation import schema_difference
from finance_assets.sql import pattern_of_files, read_parquet
from finance_assets.storage.parquet_parts import MAGIC, join_parts
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    import builtins
    from pathlib import Path

    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.dataset as ds
    import pyarrow.fs as pafs

    from finance_assets.storage.s3_objects import S3Objects

SINGLE_FILE_KEY = "data"
SUFFIX = ".parquet"
TEMPORARY_FOLDER = "_tmp"
LOCKS_FOLDER = "_locks"
LANDING_FOLDER = "landing"
#: Rows of one row group; a session's file holds one, a large table several, so that scans can prune.
ROW_GROUP_ROWS = 131_072
#: A file with fewer rows is written without dictionaries: as small, and read and written in less time.
SMALL_FILE_ROWS = 1_000
#: Texts of so many bytes fit into a dictionary of Parquet, whatever they share.
DICTIONARY_BYTES = 1 << 19
#: A file of at most so many bytes is read whole, by one request; a larger one is scanned, and its row groups pruned.
WHOLE_FILE_BYTES = 8 * 1024 * 1024
#: A file of more bytes is copied by S3 in parts of so many: at once it copies at most 5 GB, and that in a long time.
COPY_PART_BYTES = 256 * 1024 * 1024
COPY_PART_SECONDS = 120.0
#: Files whose rows are joined (and filtered) at a time, so that a table of many small files has few chunks.
FILES_AT_ONCE = 256
WRITERS = 8
#: Bytes of two files that are compared at a time.
COMPARED_BYTES = 1 << 20
#: Parts of a large file that are encoded at a time.
ENCODERS = 2
#: Requests to S3 under way at a time. A local disk is kept busy by fewer.
S3_READERS = 16
LOCAL_READERS = 4
#: A file that two writers replace all the time is met whole in the end, also on a busy machine.
READ_ATTEMPTS = 12

#: What a file system answers that has no hard links, or not for this file.
NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV)

T = TypeVar("T")
U = TypeVar("U")
#: Raises where the process may not write a path any more (see ``storage.writers``); asked before each commit.
Guard = Callable[[str], None]
#: Whether what is put is a file of its own, which replaces none.
_IS_NEW: ContextVar[bool] = ContextVar("is_new", default=False)
_GUARDS: dict[str, list[Guard]] = {}
_SAFE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_SAFE_SUFFIX = re.compile(r"(\.[A-Za-z0-9]+)*")


class LakeError(RuntimeError):
    """The lake refused; the message names the table, the key and the address."""


class AlreadyThereError(LakeError):
    """A file that is never replaced is there already and holds something else; it was left as it is."""


class NotSortedError(LakeError):
    """Rows that were to be written as they come are not in the order of their contract."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3; credentials come from the usual AWS chain."""

    region: str = "us-east-1"
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class WriterOptions:
    """How writers of the same tables wait for each other; see ``storage.writers``.

    Attributes
    ----------
    lease_seconds
        After so long without a sign of life a writer is taken for stopped, where the system does not tell.
    wait_seconds
        How long is waited for another writer.
    """

    lease_seconds: float = 30.0
    wait_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class LakeRead:
    """Rows read, and what was and was not there.

    Attributes
    ----------
    table
        The rows.
    missing
        Requested partitions that have no file.
    keys
        Files that were read.
    outdated
        Files written by an earlier contract, with how they differ from today's. Their rows are in ``table`` all the
        same, in today's types, with null for a column that they do not have.
    """

    table: pa.Table
    missing: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    outdated: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LakeScan:
    """A table that is read piece by piece.

    Attributes
    ----------
    dataset
        The rows, in the contract's types.
    keys
        Its files.
    outdated
        Files written by an earlier contract, with how they differ from today's.
    """

    dataset: ds.Dataset
    keys: tuple[str, ...]
    outdated: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A file on its way into the lake.

    Attributes
    ----------
    descriptor
        Its copy, open for reading.
    keep
        Keeps the copy; takes the sha256 and the folders below ``landing/``, as :meth:`Lake.land` does.
    """

    descriptor: int
    keep: Callable[..., None]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """Rows of a table that are read at once.

    Attributes
    ----------
    key, place
        File, and number in it.
    rows
        How many they are.
    bounds
        Least and greatest value of a column that was asked for; None where the footer does not say.
    """

    key: str
    place: int
    rows: int
    bounds: tuple[Any, Any] | None = None


@dataclass
class Lake:
    """Parquet tables at one address.

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
        """The Arrow file system that holds the lake; opened at first use."""
        import pyarrow as pa
        import pyarrow.fs as pafs

        if not self.is_s3:
            return pafs.LocalFileSystem()
        if pa.io_thread_count() < S3_READERS:
            pa.set_io_thread_count(S3_READERS)
        scheme, _, host = (self.s3.endpoint_url or "https://").partition("://")
        if scheme not in ("http", "https"):
            raise LakeError(
                f"FINANCE_ASSETS_S3_ENDPOINT_URL={hide_url_secrets(self.s3.endpoint_url or '')!r} is no address; "
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

    # -- addresses ---------------------------------------------------------------------------------------

    def folder(self, contract: Contract) -> str:
        """Return the folder of a table."""
        return f"{self.root}/{contract.path}"

    def file(self, contract: Contract, key: str = SINGLE_FILE_KEY) -> str:
        """Return the path of one file of a table.

        Raises
        ------
        LakeError
            The key could leave the folder of the table.
        """
        if not _SAFE_KEY.fullmatch(key):
            raise LakeError(f"{contract.path}: {key!r} cannot name a file; use letters, digits and . _ = + -")
        return f"{self.folder(contract)}/{key}{SUFFIX}"

    def scan_address(self, contract: Contract) -> str:
        """Return the address of all files of a table, for people to read; `scan_files` is for DuckDB."""
        return f"{self._scheme}{self.folder(contract)}/*{SUFFIX}"

    def scan_files(self, contract: Contract) -> str | builtins.list[str]:
        """Return what `finance_assets.sql.read_parquet` takes for all files of a table.

        A pattern, which files of later are part of; where DuckDB has none for the folder, the files there are.
        """
        folder = f"{self._scheme}{self.folder(contract)}"
        return pattern_of_files(folder, SUFFIX) or self.list(self.folder(contract), SUFFIX)

    @property
    def _scheme(self) -> str:
        return "s3://" if self.is_s3 else ""

    # -- writing -----------------------------------------------------------------------------------------

    def write(self, contract: Contract, table: pa.Table, key: str = SINGLE_FILE_KEY) -> int:
        """Replace one file of a table, whole and durably; return its bytes.

        The rows are brought to the contract and sorted, so that the same rows always give the same bytes. A sparse
        table has no file for no rows. A file of an append-only table is made and never replaced: writing the same rows
        again changes nothing.

        Raises
        ------
        AlreadyThereError
            The table is append-only, and the file is there with other rows.
        LakeError
            The table is cut into partitions (see :meth:`write_partitions`), or the key cannot name a file.
        """
        from finance_assets.contracts.arrow import conform

        if contract.partition_column is not None:
            raise LakeError(f"{contract.path} is partitioned by {contract.partition_column}; use write_partitions")
        path = self.file(contract, key)
        if table.num_rows > ROW_GROUP_ROWS:
            starts = range(0, table.num_rows, ROW_GROUP_ROWS)
            try:
                return self.write_parts(
                    contract, [partial(table.slice, start, ROW_GROUP_ROWS) for start in starts], key
                )
            except NotSortedError:
                # It is sorted below, which takes as much memory again.
                pass
        conformed = conform(contract, table)
        if contract.sparse and conformed.num_rows == 0 and not self.exists(path):
            return 0
        data = parquet_bytes(conformed)
        with _never_replacing(contract):
            self.put(path, data)
        return len(data)

    def write_parts(
        self, contract: Contract, parts: Iterable[Callable[[], pa.Table]], key: str = SINGLE_FILE_KEY
    ) -> int:
        """Replace one file of a table with rows that come sorted and in parts; return its bytes.

        Only a few parts are in memory at a time. The file is the same as :meth:`write` makes of all the rows at once
        where each part but the last has ``ROW_GROUP_ROWS`` rows, and the same durably or not at all.

        Parameters
        ----------
        contract
            The table.
        parts
            What makes each part; called in several threads.
        key
            Of the file.

        Raises
        ------
        NotSortedError
            A row does not come after the one before; nothing was written.
        AlreadyThereError
            The table is append-only, and the file is there with other rows.
        LakeError
            The table is cut into partitions, or the key cannot name a file.
        """
        if contract.partition_column is not None:
            raise LakeError(f"{contract.path} is partitioned by {contract.partition_column}; use write_partitions")
        path = self.file(contract, key)
        if self.is_s3:
            # An upload that is left in the middle would appear as it is.
            sink = io.BytesIO()
            _write_sorted(contract, parts, sink)
            data = sink.getbuffer()
            with _never_replacing(contract):
                self.put(path, data)
            return len(data)
        return self._write_local(path, lambda file: _write_sorted(contract, parts, file), is_new=contract.append_only)

    def write_partitions(self, contract: Contract, table: pa.Table, keys: Sequence[str]) -> dict[str, int]:
        """Replace one file for each of ``keys`` with its rows of ``table``; return rows by key.

        Each file is replaced whole, one after the other; all of them are durable when the call returns.

        Parameters
        ----------
        contract
            A partitioned table.
        table
            Rows of all the partitions, in any order.
        keys
            Every partition to replace; one without rows becomes an empty file (or none, where the table is sparse
            and had none).

        Raises
        ------
        LakeError
            A row belongs to none of ``keys``, or a key cannot name a file. Nothing is written.
        """
        from finance_assets.contracts.arrow import conform, storage_schema

        column = contract.partition_column
        if column is None:
            raise LakeError(f"{contract.path} is not partitioned; use write")
        paths = {key: self.file(contract, key) for key in keys}
        # Sorted by partition first: each partition is then a slice, and no row is copied twice.
        conformed = conform(contract, table, order=(column, *(n for n in contract.order if n != column)))
        slices = _slices(contract, column, conformed)
        strangers = sorted(set(slices) - set(paths))
        if strangers:
            raise LakeError(
                f"{contract.path}: rows for {len(strangers)} partitions that this run does not write, "
                f"the first {strangers[0]!r}; nothing was written"
            )
        empty = storage_schema(contract).empty_table()
        existing = set(self.partitions(contract)) if contract.sparse else set()
        replaced = [key for key in paths if not contract.sparse or key in slices or key in existing]
        self._put_all((paths[key] for key in replaced), lambda n: parquet_bytes(slices.get(replaced[n], empty)))
        return {key: slices[key].num_rows if key in slices else 0 for key in paths}

    def write_partition_if_changed(self, contract: Contract, table: pa.Table, key: str) -> bool:
        """Replace one file of a partitioned table unless it holds these very rows; return whether it was replaced.

        A table that is computed as a whole so leaves alone the partitions that came out as they were.
        """
        from finance_assets.contracts.arrow import conform

        path = self.file(contract, key)
        conformed = conform(contract, table, dictionaries=table.num_rows >= SMALL_FILE_ROWS)
        if self.is_s3 or self.exists(path):
            data = parquet_bytes(conformed)
            if self._holds(path, data):
                return False
            self.put(path, data)
        else:
            is_small = conformed.num_rows < SMALL_FILE_ROWS
            self._write_local(path, lambda file: _write_parquet(conformed, file, is_small=is_small))
        return True

    def _holds(self, path: str, data: memoryview) -> bool:
        """Whether a file has these very bytes."""
        with self._explained("looking for", path):
            size = self.filesystem.get_file_info(path).size
        return size == len(data) and self.get(path) == data

    def share(self, contract: Contract, key: str, other: Contract, other_key: str) -> None:
        """Make a file of one table a file of another one too, with the same rows, without writing them again.

        A local file gets a second name, since files are replaced and never changed; S3 copies by itself, a large file
        in parts, up to the largest that it holds. The copy appears when it is complete; a copy that fails takes its
        parts away, and one that is killed leaves them where nobody sees them.

        Parameters
        ----------
        contract, key
            The file.
        other, other_key
            What it is to be as well: of a table with the same columns and order.

        Raises
        ------
        AlreadyThereError
            The other table is append-only, and its file is there with other bytes.
        LakeError
            The tables do not hold the same.
        """
        if [(c.name, c.type) for c in contract.columns] != [(c.name, c.type) for c in other.columns]:
            raise LakeError(f"a file of {contract.path} cannot be one of {other.path}: their columns differ")
        source, path = self.file(contract, key), self.file(other, other_key)
        if self.is_s3:
            self._share_on_s3(source, path, is_new=other.append_only)
            return
        folder = os.path.dirname(path)
        _make_folder(folder)
        temporary = os.path.join(self._temporary_folder, uuid.uuid4().hex)
        descriptor = os.open(source, os.O_RDONLY)
        try:
            # A file is locked by all its names: the sweeper leaves the new one alone.
            _lock(descriptor)
            try:
                os.link(source, temporary)
            except OSError as error:
                if error.errno not in NO_LINKS:
                    raise
                # Not every file system knows second names.
                data = self.get(source)
                (self._create if other.append_only else self._replace)(path, lambda file: file.write(data))
            else:
                # A rename between two names of one file does nothing, so the one too many goes.
                try:
                    self._place(temporary, path, is_new=other.append_only)
                finally:
                    with suppress(FileNotFoundError):
                        os.unlink(temporary)
        finally:
            os.close(descriptor)
        _sync_folder(folder)

    def _share_on_s3(self, source: str, path: str, *, is_new: bool) -> None:
        """Have S3 copy a file: at once, or in parts where it is large or must not replace another."""
        with self._explained("copying", path):
            size = self.filesystem.get_file_info(source).size
            self.check_guards(path)
            if is_new:
                if size is None:
                    raise FileNotFoundError(f"{source} is not there")
                try:
                    self.s3_objects.copy_new(source, path, size)
                except FileExistsError:
                    self._refuse_other(path, self.get(source))
            elif (size or 0) > COPY_PART_BYTES:
                self.s3_objects.copy_in_parts(source, path)
            else:
                self.filesystem.copy_file(source, path)

    @cached_property
    def s3_objects(self) -> S3Objects:
        """Requests to S3 that have conditions."""
        from finance_assets.storage.s3_objects import S3Objects

        return S3Objects(self.s3.region, self.s3.endpoint_url, COPY_PART_BYTES, seconds=COPY_PART_SECONDS)

    def put(self, path: str, data: bytes | memoryview) -> None:
        """Put ``data`` at ``path`` whole: it is all there, durably, or not at all."""
        self._put_all([path], lambda _: data, is_new=_IS_NEW.get())

    def _put_all(
        self, paths: Iterable[str], data: Callable[[int], bytes | memoryview], *, is_new: bool = False
    ) -> None:
        """Put what ``data`` gives for each place in ``paths``; what follows an error is not begun.

        Where ``is_new``, a file that is there is left as it is, and is an error unless it holds the same.
        """
        listed = list(paths)
        folders = sorted({os.path.dirname(path) for path in listed})
        if not self.is_s3:
            for folder in folders:
                _make_folder(folder)

        place_file = self._create if is_new else self._replace

        def put(place: int) -> None:
            if self.is_s3:
                self._upload(listed[place], data(place), is_new=is_new)
            else:
                own = data(place)
                place_file(listed[place], lambda file: file.write(own))

        if len(listed) == 1 and (not self.is_s3 or threading.current_thread() is not threading.main_thread()):
            put(0)
        else:
            # An upload goes through a thread even where it is the only one: an interrupt reaches the main thread only,
            # and so never falls between its opening and its writing, which would leave an empty object.
            _run_all(put, range(len(listed)), WRITERS)
        if not self.is_s3:
            for folder in folders:
                _sync_folder(folder)

    def _upload(self, path: str, data: bytes | memoryview, *, is_new: bool) -> None:
        self.check_guards(path)
        if is_new:
            with self._explained("writing", path):
                try:
                    self.s3_objects.create(path, data)
                except FileExistsError:
                    self._refuse_other(path, data)
            return
        # Arrow would compress what is called .gz, though it is already.
        with (
            self._explained("writing", path),
            self.filesystem.open_output_stream(path, compression=None) as stream,
        ):
            stream.write(data)

    def _write_local(self, path: str, write: Callable[[BinaryIO], object], *, is_new: bool = False) -> int:
        """Make a local file of what ``write`` writes, whole and durably; return its bytes."""
        folder = os.path.dirname(path)
        _make_folder(folder)
        size = (self._create if is_new else self._replace)(path, write)
        _sync_folder(folder)
        return size

    def _replace(self, path: str, write: Callable[[BinaryIO], object]) -> int:
        """Put a local file in place; the caller syncs the folder, once for all that it holds."""
        return self._write_aside(path, write, is_new=False)

    def _create(self, path: str, write: Callable[[BinaryIO], object]) -> int:
        """Put a local file where there is none; the caller syncs the folder."""
        return self._write_aside(path, write, is_new=True)

    def _write_aside(self, path: str, write: Callable[[BinaryIO], object], *, is_new: bool) -> int:
        with _temporary_file(self._temporary_folder) as (descriptor, temporary):
            with open(descriptor, "wb", closefd=False) as file:
                write(file)
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
            self._place(temporary, path, is_new=is_new)
        return size

    def _place(self, temporary: str, path: str, *, is_new: bool) -> None:
        """Give a local file its name; where ``is_new``, a file that has it keeps it.

        Raises
        ------
        AlreadyThereError
            Another file has the name, with other content.
        """
        self.check_guards(path)
        if not is_new:
            os.replace(temporary, path)
            return
        try:
            # Unlike a rename, a link fails where the name is taken.
            os.link(temporary, path)
        except FileExistsError:
            with open(temporary, "rb") as own:
                self._refuse_other(path, own)
        except OSError as error:
            if error.errno not in NO_LINKS:
                raise
            # Without hard links only the lock of the writers stands between the look and the rename.
            if os.path.exists(path):
                with open(temporary, "rb") as own:
                    self._refuse_other(path, own)
            else:
                os.replace(temporary, path)

    def _refuse_other(self, path: str, own: bytes | memoryview | BinaryIO) -> None:
        """Raise unless the file that is there holds what was to be written: the same bytes, or the same rows.

        Rows count too, since another release of the Parquet library may write them as other bytes.
        """
        theirs: bytes | BinaryIO = self.get(path) if self.is_s3 else open(path, "rb")  # noqa: SIM115
        try:
            is_same = _same_bytes(theirs, own) or (path.endswith(SUFFIX) and _same_rows(theirs, own))
        finally:
            if not isinstance(theirs, bytes):
                theirs.close()
        if not is_same:
            raise AlreadyThereError(
                f"{path} is there and holds something else, and files of its table are never replaced; nothing was "
                "written. Another process wrote it meanwhile, or it is damaged: run again, and if that fails in the "
                "same way, compare the file with its backup"
            )

    # -- the right to write ------------------------------------------------------------------------------

    @contextmanager
    def guarded(self, guard: Guard) -> Iterator[None]:
        """Ask ``guard`` before each commit of this process to the lake, while the block lasts.

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
        """Raise where a guard of this process forbids to write ``path``."""
        for guard in tuple(_GUARDS.get(self.root, ())):
            guard(path)

    @cached_property
    def _temporary_folder(self) -> str:
        """Folder of files that are being written, swept when it is first used."""
        folder = os.path.join(self.root, TEMPORARY_FOLDER)
        _make_folder(folder)
        _sweep(folder)
        return folder

    # -- landed bytes ------------------------------------------------------------------------------------

    def land(self, data: bytes, *parts: str, suffix: str = "", digest: str | None = None) -> str:
        """Keep bytes as they came, addressed by their sha256; return the sha256.

        Parameters
        ----------
        data
            The bytes.
        parts
            Folders below ``landing/``, such as the domain and the provider.
        suffix
            File ending, such as ``.json``.
        digest
            The sha256, where it is known already.
        """
        digest = digest or hashlib.sha256(data).hexdigest()
        path = self.landed_path(digest, *parts, suffix=suffix)
        # Whoever comes second brings the same bytes, so these need not be made exclusively.
        if not self.exists(path):
            self.put(path, data)
        return digest

    @contextmanager
    def arriving(self, file: Path) -> Iterator[StagedFile]:
        """Copy a local file into a lake on the same machine, to be read from there and kept under its sha256.

        Whoever is working with the file of others then works with bytes that nobody changes. A copy that is not kept
        is removed.

        Parameters
        ----------
        file
            The file.

        Raises
        ------
        LakeError
            It cannot be read, there is no room for it, or the lake is on S3.
        """
        if self.is_s3:
            raise LakeError(f"{file} is not copied as it is into a lake on S3; land its bytes")
        with _temporary_file(self._temporary_folder) as (descriptor, temporary):
            try:
                # Within the system, where it can: the bytes do not come by here.
                shutil.copyfile(file, temporary)
            except OSError as error:
                raise LakeError(f"{file} cannot be copied into {self.root}: {error.strerror or error}") from error

            def keep(digest: str, *parts: str) -> None:
                path = self.landed_path(digest, *parts)
                if not self.exists(path):
                    _make_folder(os.path.dirname(path))
                    os.fsync(descriptor)
                    os.replace(temporary, path)
                    _sync_folder(os.path.dirname(path))

            yield StagedFile(descriptor, keep)

    def landed_path(self, digest: str, *parts: str, suffix: str = "") -> str:
        """Return the path of landed bytes."""
        for part in parts:
            if not _SAFE_KEY.fullmatch(part):
                raise LakeError(f"{part!r} cannot name a landing folder")
        if not _DIGEST.fullmatch(digest) or not _SAFE_SUFFIX.fullmatch(suffix):
            raise LakeError(f"{digest + suffix!r} cannot name landed bytes; they are called by their sha256")
        return "/".join((self.root, LANDING_FOLDER, *parts, digest + suffix))

    # -- reading -----------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Return whether there is a file at ``path``."""
        import pyarrow.fs as pafs

        with self._explained("looking for", path):
            return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)

    def get(self, path: str) -> bytes:
        """Return the bytes at ``path``; FileNotFoundError where there are none."""
        with self._explained("reading", path), self.filesystem.open_input_file(path) as file:
            return bytes(file.readall())

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Return the paths of the files right below ``folder``, sorted; a failed listing raises."""
        return [info.path for info in self._listing(folder, suffix)]

    def _listing(self, folder: str, suffix: str) -> builtins.list[pafs.FileInfo]:
        import pyarrow.fs as pafs

        selector = pafs.FileSelector(folder, allow_not_found=True)
        with self._explained("listing", folder):
            infos = self.filesystem.get_file_info(selector)
            # Arrow lists a bucket that is not there like a folder without files.
            if not infos and self.is_s3 and self._bucket_is_missing():
                raise OSError("there is no such bucket")
        found = (info for info in infos if info.type == pafs.FileType.File and info.path.endswith(suffix))
        return sorted(found, key=lambda info: info.path)

    def _bucket_is_missing(self) -> bool:
        import pyarrow.fs as pafs

        return bool(self.filesystem.get_file_info(self.root.split("/")[0]).type == pafs.FileType.NotFound)

    @contextmanager
    def _explained(self, doing: str, path: str) -> Iterator[None]:
        """Say what failed, where, and what to do, where S3 does not answer as it should."""
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
                "Check FINANCE_ASSETS_LAKE_URI, FINANCE_ASSETS_S3_ENDPOINT_URL, the credentials and what they allow."
            ) from error

    def partitions(self, contract: Contract) -> builtins.list[str]:
        """Return the keys of the files of a table, sorted."""
        return [_key(path) for path in self.list(self.folder(contract), SUFFIX)]

    def read(
        self,
        contract: Contract,
        *,
        keys: Iterable[str] | None = None,
        first: str | None = None,
        last: str | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
        dictionaries: Sequence[str] = (),
    ) -> LakeRead:
        """Read a table.

        Parameters
        ----------
        contract
            The table.
        keys
            Only these partitions; those without a file are named in the result (never for a sparse table, where
            no file means no rows).
        first, last
            Only partitions from and to these keys, both included.
        columns, where
            Columns to read, and a filter, by which the row groups of large files are pruned.
        dictionaries
            Columns of text that come as dictionaries: text that repeats then takes a fraction of the memory.

        Returns
        -------
        LakeRead
            Rows in the order of the partitions; an empty table of the contract where there are none.

        Raises
        ------
        LakeError
            A file is broken, or holds values that today's contract has no room for. The message names it.
        """
        import pyarrow as pa

        wanted = None if keys is None else set(keys)
        unknown = [name for name in columns or () if name not in contract.column_names]
        if unknown:
            raise LakeError(f"{contract.path} has no column {', '.join(unknown)}")

        def is_chosen(info: pafs.FileInfo) -> bool:
            key = _key(info.path)
            return (
                (wanted is None or key in wanted) and (first is None or key >= first) and (last is None or key <= last)
            )

        for attempt in range(1, READ_ATTEMPTS + 1):
            chosen = [info for info in self._listing(self.folder(contract), SUFFIX) if is_chosen(info)]
            present = tuple(_key(info.path) for info in chosen)
            missing = () if wanted is None or contract.sparse else tuple(sorted(wanted - set(present)))
            try:
                table, outdated = self._read_files(contract, chosen, columns, where, frozenset(dictionaries))
            except (pa.ArrowException, LakeError, OSError):
                # A writer may have removed or replaced a file between our listing and our reading: list again.
                if attempt == READ_ATTEMPTS or not self._have_changed(chosen):
                    raise
            else:
                # A small file is read by one request, and an open local file stays as it was. Only the requests for a
                # large object could be answered by two versions of it.
                large = [info for info in chosen if self.is_s3 and info.size > WHOLE_FILE_BYTES]
                if not self._have_changed(large):
                    return LakeRead(table, missing, present, outdated)
        raise LakeError(f"{contract.path} was rewritten {READ_ATTEMPTS} times while it was read; read it again")

    def _have_changed(self, files: Sequence[pafs.FileInfo]) -> bool:
        """Return whether one of the files was removed or replaced since it was listed."""
        if not files:
            return False
        listed = {info.path: info for info in self._listing(os.path.dirname(files[0].path), SUFFIX)}
        return any(
            (now := listed.get(info.path)) is None or (now.size, now.mtime_ns) != (info.size, info.mtime_ns)
            for info in files
        )

    def _read_files(
        self,
        contract: Contract,
        files: Sequence[pafs.FileInfo],
        columns: Sequence[str] | None,
        where: pc.Expression | None,
        dictionaries: frozenset[str],
    ) -> tuple[pa.Table, dict[str, str]]:
        """Return the rows of some files in today's types, and which files were written by an earlier contract."""
        import pyarrow as pa

        from finance_assets.contracts.arrow import storage_schema

        names = list(columns) if columns is not None else contract.column_names
        # A filter may ask for any column, so a file that is read whole keeps them all until it is filtered.
        asked = names if where is None else contract.column_names
        outdated: dict[str, str] = {}

        def note(info: pafs.FileInfo, difference: str) -> None:
            if difference:
                outdated[_key(info.path)] = difference

        def whole(info: pafs.FileInfo) -> pa.Table:
            table, difference = self._read_whole(contract, info.path, asked, dictionaries)
            note(info, difference)
            return table

        groups: list[pa.Table] = []
        with ThreadPoolExecutor(S3_READERS if self.is_s3 else LOCAL_READERS) as pool:
            for is_small, run in groupby(files, key=lambda info: info.size <= WHOLE_FILE_BYTES):
                infos = list(run)
                if not is_small:
                    for info in infos:
                        table, difference = self._scan(contract, info.path, names, where, dictionaries)
                        note(info, difference)
                        groups.append(table)
                    continue
                for start in range(0, len(infos), FILES_AT_ONCE):
                    table = pa.concat_tables(list(pool.map(whole, infos[start : start + FILES_AT_ONCE])))
                    if where is not None:
                        table = table.filter(where).select(names)
                    # Small files make small chunks, over which every later step would stumble.
                    groups.append(table.combine_chunks())
        empty = _with_dictionaries(storage_schema(contract), dictionaries, names).empty_table()
        return pa.concat_tables([group for group in groups if group.num_rows] or [empty]), outdated

    def _read_whole(
        self, contract: Contract, path: str, names: Sequence[str], dictionaries: frozenset[str]
    ) -> tuple[pa.Table, str]:
        """Return a file's rows by one request, and how its schema differs from today's."""
        import pyarrow.parquet as pq

        def rows(data: pa.BufferReader) -> tuple[pa.Schema, pa.Table]:
            with pq.ParquetFile(data, read_dictionary=dictionaries) as file:
                own = file.schema.to_arrow_schema()
                return own, file.read(columns=[name for name in names if name in own.names], use_threads=False)

        own, table = self._of_one_version(path, rows)
        difference = schema_difference(contract, own)
        return (_as_today(contract, path, table, names, dictionaries) if difference else table), difference

    def _of_one_version(self, path: str, read: Callable[[pa.BufferReader], T]) -> T:
        """Return what ``read`` finds in the bytes of one version of a Parquet file.

        S3 is asked for the length before the bytes: where another version comes between, they are cut off. What then
        cannot be read is asked for again.
        """
        import pyarrow as pa

        why: object = "it does not end like one"
        for _ in range(READ_ATTEMPTS if self.is_s3 else 1):
            data = self.get(path)
            if not data.endswith(MAGIC):
                continue
            try:
                return read(pa.BufferReader(data))
            except (pa.ArrowInvalid, OSError) as error:
                why = error
        raise _unreadable(path, why)

    def _scan(
        self,
        contract: Contract,
        path: str,
        names: Sequence[str],
        where: pc.Expression | None,
        dictionaries: frozenset[str],
    ) -> tuple[pa.Table, str]:
        """Return a large file's rows that pass the filter, and how its schema differs from today's."""
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        from finance_assets.contracts.arrow import storage_schema

        try:
            if where is None:
                # Each column comes in one piece, which saves as much memory again when it is needed so.
                with (
                    self.filesystem.open_input_file(path) as stream,
                    pq.ParquetFile(stream, read_dictionary=dictionaries, pre_buffer=self.is_s3) as file,
                ):
                    own = file.schema.to_arrow_schema()
                    table = file.read(columns=[name for name in names if name in own.names])
            else:
                reading = ds.ParquetFileFormat(dictionary_columns=dictionaries)
                dataset = ds.dataset(path, format=reading, filesystem=self.filesystem, partitioning=None)
                own = _with_dictionaries(dataset.schema, frozenset())
                # The filter may name a column that the file does not have yet: there it is null.
                absent = [field for field in storage_schema(contract) if field.name not in own.names]
                table = dataset.replace_schema(pa.schema([*dataset.schema, *absent])).to_table(
                    columns=list(names),
                    filter=where,
                    fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=self.is_s3),
                )
        except pa.ArrowInvalid as error:
            raise _unreadable(path, error) from error
        difference = schema_difference(contract, own)
        return (_as_today(contract, path, table, names, dictionaries) if difference else table), difference

    def scan(self, contract: Contract, keys: Iterable[str] | None = None) -> LakeScan:
        """Return a table, or some of its files, to be read piece by piece: it may be larger than memory.

        Files that an earlier contract wrote are read in today's types, and named.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        from finance_assets.contracts.arrow import storage_schema

        wanted = None if keys is None else set(keys)
        files = [
            info for info in self._listing(self.folder(contract), SUFFIX) if wanted is None or _key(info.path) in wanted
        ]
        schema = storage_schema(contract)
        if not files:
            return LakeScan(ds.dataset(schema.empty_table()), (), {})
        try:
            dataset = ds.dataset(
                [info.path for info in files],
                schema=schema,
                format="parquet",
                filesystem=self.filesystem,
                partitioning=None,
            )
            differing = {
                _key(fragment.path): schema_difference(contract, fragment.physical_schema)
                for fragment in dataset.get_fragments()
            }
        except pa.ArrowInvalid as error:
            raise _unreadable(self.folder(contract), error) from error
        outdated = {key: difference for key, difference in differing.items() if difference}
        return LakeScan(dataset, tuple(_key(info.path) for info in files), outdated)

    def attach(self, connection: duckdb.DuckDBPyConnection, contract: Contract, name: str) -> LakeScan:
        """Make a table a relation of a DuckDB connection, for queries over more rows than memory holds.

        Parameters
        ----------
        connection
            An open database; the relation lives as long as it.
        contract
            The table.
        name
            Name of the relation.

        Returns
        -------
        LakeScan
            What is behind the relation.
        """
        scan = self.scan(contract)
        if self.is_s3 or scan.outdated or not scan.keys:
            connection.register(name, scan.dataset)
        else:
            # DuckDB's own reader runs on all cores, and reads the columns of a query alone.
            files = read_parquet(self.file(contract, key) for key in scan.keys)
            columns = ", ".join(contract.column_names)
            connection.execute(f"create or replace temp view {name} as select {columns} from {files}")
        return scan

    def row_counts(self, contract: Contract) -> dict[str, int]:
        """Return the rows of each file of a table, from the files' footers."""
        return {key: footer.num_rows for key, footer in self._footers(contract).items()}

    def row_groups(self, contract: Contract, bounds_of: str = "") -> builtins.list[RowGroup]:
        """Return the row groups of all files of a table, in the order of the files, from their footers.

        Parameters
        ----------
        contract
            The table.
        bounds_of
            A column whose least and greatest values are to be told.
        """
        found = []
        for key, footer in self._footers(contract).items():
            for place, bounds in enumerate(_bounds_of(footer, bounds_of)):
                found.append(RowGroup(key, place, footer.row_group(place).num_rows, bounds))
        return found

    def read_row_group(
        self, contract: Contract, group: RowGroup, columns: Sequence[str], dictionaries: Sequence[str] = ()
    ) -> pa.Table:
        """Read one row group.

        Parameters
        ----------
        contract
            The table.
        group
            What to read, as `row_groups` gave it.
        columns
            Columns to read.
        dictionaries
            Columns of text that come as dictionaries.

        Returns
        -------
        pyarrow.Table
            Its rows, in today's types, each column in one piece.

        Raises
        ------
        LakeError
            The file was removed or replaced since, is broken, or holds values that today's contract has no room for.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names, path = frozenset(dictionaries), self.file(contract, group.key)
        try:
            with (
                self.filesystem.open_input_file(path) as stream,
                pq.ParquetFile(stream, read_dictionary=names, pre_buffer=self.is_s3) as file,
            ):
                own = file.schema.to_arrow_schema()
                here = [name for name in columns if name in own.names]
                table = file.read_row_group(group.place, columns=here, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise _unreadable(path, error) from error
        if table.num_rows != group.rows:
            raise LakeError(f"{path} was replaced while it was read; run this again")
        difference = schema_difference(contract, own)
        return _as_today(contract, path, table, columns, names) if difference else table

    def bounds(
        self, contract: Contract, names: Sequence[str], keys: Iterable[str] | None = None
    ) -> dict[str, dict[str, tuple[Any, Any]]]:
        """Return the least and the greatest value of some columns in each file of a table, from the files' footers.

        Parameters
        ----------
        contract
            The table.
        names
            Columns.
        keys
            Only these files.

        Returns
        -------
        dict
            By key and column. A column that has no value at all, or whose footer does not say, is missing there.
        """
        found: dict[str, dict[str, tuple[Any, Any]]] = {}
        for key, footer in self._footers(contract, keys).items():
            found[key] = {}
            for name in names:
                groups = _bounds_of(footer, name)
                said = [bounds for bounds in groups if bounds is not None]
                if said and len(said) == len(groups):
                    found[key][name] = (min(least for least, _ in said), max(greatest for _, greatest in said))
        return found

    def _footers(self, contract: Contract, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the footer of each file of a table, or of some."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def footer(info: pafs.FileInfo) -> Any:
            try:
                if self.is_s3 and info.size <= WHOLE_FILE_BYTES:
                    return self._of_one_version(info.path, pq.read_metadata)
                return pq.read_metadata(info.path, filesystem=self.filesystem)
            except FileNotFoundError:
                # Removed since it was listed.
                return None
            except pa.ArrowInvalid as error:
                raise _unreadable(info.path, error) from error

        wanted = None if keys is None else set(keys)
        files = [
            info for info in self._listing(self.folder(contract), SUFFIX) if wanted is None or _key(info.path) in wanted
        ]
        with ThreadPoolExecutor(S3_READERS if self.is_s3 else LOCAL_READERS) as pool:
            footers = list(pool.map(footer, files))
        return {_key(info.path): found for info, found in zip(files, footers, strict=True) if found is not None}


def _bounds_of(footer: Any, name: str) -> list[tuple[Any, Any] | None]:
    """Return the least and the greatest value of a column in each row group; None where the footer does not say."""
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    column = names.index(name) if name in names else None
    found: list[tuple[Any, Any] | None] = []
    for place in range(footer.num_row_groups):
        said = None if column is None else footer.row_group(place).column(column).statistics
        found.append((said.min, said.max) if said is not None and said.has_min_max else None)
    return found


def parquet_bytes(table: pa.Table, *, is_small: bool | None = None) -> memoryview:
    """Return ``table`` as the bytes of a Parquet file; the same rows always give the same bytes."""
    import pyarrow as pa

    # No encoding makes more of it, and room that is taken at once is not copied as it grows.
    room = pa.allocate_buffer(int(1.2 * _plain_size(table)) + (1 << 16))
    sink = pa.FixedSizeBufferWriter(room)
    _write_parquet(table, sink, is_small=table.num_rows < SMALL_FILE_ROWS if is_small is None else is_small)
    return memoryview(room).cast("B")[: sink.tell()]


def _plain_size(table: pa.Table) -> int:
    """Return at least the bytes of a table whose text is written plainly."""
    import pyarrow as pa
    import pyarrow.compute as pc

    size: int = table.nbytes + 2048 * table.num_columns
    for column in table.columns:
        if pa.types.is_dictionary(column.type):
            longest = max(
                (pc.max(pc.binary_length(chunk.dictionary)).as_py() or 0 for chunk in column.chunks), default=0
            )
            size += len(column) * (int(longest) + 4)
    return size


def _write_parquet(table: pa.Table, sink: Any, *, is_small: bool) -> None:
    import pyarrow.parquet as pq

    encoded = _with_dictionaries_as_written(table.combine_chunks())
    # Text that came as a dictionary and is written without one hardly repeats.
    plain = [field.name for field in encoded.schema if field.type != table.schema.field(field.name).type]
    options = _parquet_options(encoded.schema, is_small, plain)
    pq.write_table(encoded, sink, row_group_size=ROW_GROUP_ROWS, **options)


def _parquet_options(schema: pa.Schema, is_small: bool, plain: Sequence[str] = ()) -> dict[str, Any]:
    """Return how tables are written; columns of text that are written plainly are named."""
    import pyarrow as pa

    return {
        # zstd would save a quarter of the space, and take half as long again to write and to read.
        "compression": "snappy",
        # Numbers seldom repeat: a dictionary of them costs more than it saves.
        "use_dictionary": [
            field.name
            for field in schema
            if not is_small
            and field.name not in plain
            and (pa.types.is_string(field.type) or pa.types.is_dictionary(field.type))
        ],
        # Bounds prune the scans that ask for names, dates and counts; nobody asks for an amount between two others, and
        # to compare decimals of 128 bits takes a quarter of the writing.
        "write_statistics": [
            field.name for field in schema if not (pa.types.is_decimal(field.type) and field.type.precision > 18)
        ],
        # A row group is read as a whole.
        "max_rows_per_page": ROW_GROUP_ROWS,
        # DECIMAL(18, …) as a plain integer: half the size, and four times as fast to read.
        "store_decimal_as_integer": True,
        "store_schema": False,
        "coerce_timestamps": "us",
    }


def _write_sorted(contract: Contract, parts: Iterable[Callable[[], pa.Table]], sink: BinaryIO) -> None:
    """Write parts of a table one after the other, in the contract's types; they are made side by side."""
    from finance_assets.contracts.arrow import fitted, is_strictly_sorted, storage_schema

    order = [*contract.order, *(name for name in contract.key if name not in contract.order)]

    def encoded(part: Callable[[], pa.Table]) -> tuple[pa.Table, memoryview]:
        """Return the first and the last row of a part, and the part as a file."""
        table = fitted(contract, part(), dictionaries=True).combine_chunks()
        if not is_strictly_sorted(table, order):
            raise NotSortedError(f"{contract.path}: rows to be written as they come are not sorted by {order}")
        ends = table.take([0, table.num_rows - 1]) if table.num_rows else table
        return ends.select(order), parquet_bytes(table, is_small=False)

    def files() -> Iterator[memoryview]:
        before: pa.Table | None = None
        empty: memoryview | None = None
        for ends, data in map_in_order(pool, encoded, parts, ENCODERS):
            if not ends.num_rows:
                empty = data
                continue
            if before is not None and not is_strictly_sorted(_joined(before, ends.slice(0, 1)), order):
                raise NotSortedError(f"{contract.path}: rows to be written as they come are not sorted by {order}")
            before = ends.slice(1)
            yield data
        if before is None:
            yield empty if empty is not None else encoded(storage_schema(contract).empty_table)[1]

    with ThreadPoolExecutor(ENCODERS) as pool:
        join_parts(files(), sink)


def _with_dictionaries_as_written(table: pa.Table) -> pa.Table:
    """Return a table whose dictionaries are those that Parquet makes of the text: used texts, as they appear.

    The writer takes them as they are, and no text is hashed again. The file is the same as of plain text.
    """
    import numpy as np
    import pyarrow as pa

    for place, name in enumerate(table.column_names):
        if not pa.types.is_dictionary(table.schema.field(place).type):
            continue
        (array,) = table.column(place).chunks or [pa.array([], table.schema.field(place).type)]
        texts, codes = array.dictionary, array.indices.drop_null().to_numpy()
        if len(codes) and codes.min() == codes.max():
            appearing = codes[:1]
        else:
            first = np.full(len(texts), len(codes), np.int64)
            first[codes[::-1]] = np.arange(len(codes) - 1, -1, -1)
            appearing = np.argsort(first, kind="stable")[: int(np.count_nonzero(first < len(codes)))]
        if len(appearing) < len(texts) or not (appearing == np.arange(len(texts))).all():
            places = np.zeros(len(texts), np.int32)
            places[appearing] = np.arange(len(appearing), dtype=np.int32)
            texts = texts.take(pa.array(appearing))
            # A null has no place.
            indices = pa.array(places).take(array.indices) if len(places) else array.indices
            array = pa.DictionaryArray.from_arrays(indices, texts)
            table = table.set_column(place, name, array)
        if texts.nbytes > DICTIONARY_BYTES or 2 * len(texts) > max(len(array), 2):
            # Parquet would give up the dictionary, or it saves nothing.
            table = table.set_column(place, name, array.cast(pa.string()))
    return table


def _joined(*tables: pa.Table) -> pa.Table:
    import pyarrow as pa

    return pa.concat_tables(tables)


def map_in_order(pool: ThreadPoolExecutor, work: Callable[[T], U], items: Iterable[T], ahead: int) -> Iterator[U]:
    """Yield the outcome of ``work`` on each item in their order, while threads work on so many of the next."""
    under_way: deque[Future[U]] = deque()
    for item in items:
        under_way.append(pool.submit(work, item))
        if len(under_way) > ahead:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()


def _key(path: str) -> str:
    return path.rsplit("/", 1)[-1].removesuffix(SUFFIX)


def _unreadable(path: str, why: object) -> LakeError:
    return LakeError(f"{path} is not a whole Parquet file ({why}); make its partition again")


def _with_dictionaries(
    schema: pa.Schema, dictionaries: frozenset[str], names: Sequence[str] | None = None
) -> pa.Schema:
    """Return the fields of some columns, those named as dictionaries of text and the others as they are."""
    import pyarrow as pa

    def field(name: str) -> pa.Field:
        found = schema.field(name)
        plain = found.type.value_type if pa.types.is_dictionary(found.type) else found.type
        return found.with_type(pa.dictionary(pa.int32(), plain) if name in dictionaries else plain)

    return pa.schema([field(name) for name in (schema.names if names is None else names)])


def _as_today(
    contract: Contract, path: str, table: pa.Table, names: Sequence[str], dictionaries: frozenset[str]
) -> pa.Table:
    """Return rows that an earlier contract wrote as today's would hold them."""
    import pyarrow as pa

    from finance_assets.contracts.arrow import fit, storage_schema

    schema = storage_schema(contract)
    columns = []
    for name in names:
        wanted = schema.field(name).type
        if name not in table.column_names:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, wanted)]))
            continue
        try:
            columns.append(fit(table.column(name), wanted, f"{contract.path}.{name}"))
        except ContractError as error:
            raise LakeError(f"{path} was written by an earlier contract: {error}; make its partition again") from error
    made = pa.Table.from_arrays(columns, schema=_with_dictionaries(schema, frozenset(), names))
    return made.cast(_with_dictionaries(schema, dictionaries, names)) if dictionaries else made


def _slices(contract: Contract, column: str, table: pa.Table) -> dict[str, pa.Table]:
    """Return the rows of each partition of a table that is sorted by its partition column."""
    import numpy as np
    import pyarrow as pa

    if table.num_rows == 0:
        return {}
    if table.column(column).null_count:
        raise LakeError(
            f"{contract.path}: {table.column(column).null_count} rows have no {column}, so they belong to no "
            "partition; nothing was written"
        )
    encoded = table.column(column).cast(pa.string()).combine_chunks().dictionary_encode()
    codes = encoded.indices.to_numpy()
    starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
    ends = np.r_[starts[1:], len(codes)]
    names = encoded.dictionary.to_pylist()
    return {
        names[codes[start]]: table.slice(start, end - start)
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True)
    }


@contextmanager
def _never_replacing(contract: Contract) -> Iterator[None]:
    """Let :meth:`Lake.put` replace no file of an append-only table."""
    token = _IS_NEW.set(contract.append_only)
    try:
        yield
    finally:
        _IS_NEW.reset(token)


def _same_bytes(one: bytes | memoryview | BinaryIO, other: bytes | memoryview | BinaryIO) -> bool:
    """Whether two files hold the same bytes."""
    first, second = _as_file(one), _as_file(other)
    while True:
        left, right = first.read(COMPARED_BYTES), second.read(COMPARED_BYTES)
        if left != right:
            return False
        if not left:
            return True


def _same_rows(one: bytes | memoryview | BinaryIO, other: bytes | memoryview | BinaryIO) -> bool:
    """Whether two Parquet files hold the same rows in the same row groups."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        first, second = pq.ParquetFile(_as_file(one)), pq.ParquetFile(_as_file(other))
        groups = first.num_row_groups
        return (
            groups == second.num_row_groups
            and first.schema_arrow.equals(second.schema_arrow)
            and all(first.read_row_group(place).equals(second.read_row_group(place)) for place in range(groups))
        )
    except pa.ArrowInvalid:
        return False


def _as_file(content: bytes | memoryview | BinaryIO) -> BinaryIO:
    if isinstance(content, bytes | memoryview):
        return io.BytesIO(content)
    content.seek(0)
    return content


def _run_all(work: Callable[[int], None], items: Iterable[int], workers: int) -> None:
    """Call ``work`` on each item in threads; at the first error those under way end, and no other begins."""
    pool = ThreadPoolExecutor(workers)
    try:
        for future in [pool.submit(work, item) for item in items]:
            future.result()
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _temporary_file(folder: str) -> Iterator[tuple[int, str]]:
    """Make a file that is locked for as long as it is being written; remove what is left of it."""
    while True:
        path = os.path.join(folder, uuid.uuid4().hex)
        try:
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except FileNotFoundError:
            # Somebody tidied the whole folder away.
            _make_folder(folder)
            continue
        # A sweeper may have taken the file between its making and its locking: then make another.
        if _lock(descriptor) is not False and os.fstat(descriptor).st_nlink:
            break
        os.close(descriptor)
    try:
        yield descriptor, path
    finally:
        if os.path.exists(path):
            os.unlink(path)
        os.close(descriptor)


def _lock(descriptor: int, *, shared: bool = False) -> bool | None:
    """Lock a file without waiting: False where another process has it, None where the file system has no locks."""
    try:
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL):
            return None
        raise
    return True


def _sweep(folder: str) -> None:
    """Remove what dead writers left half written: files that nobody has locked."""
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            continue
        try:
            if _lock(descriptor):
                os.unlink(path)
        except FileNotFoundError:
            # Its writer has put it in place meanwhile.
            continue
        finally:
            os.close(descriptor)


def _make_folder(folder: str) -> None:
    """Make a folder and those above it, durably: a new folder is an entry of the one above."""
    made = []
    while not os.path.isdir(folder):
        made.append(folder)
        folder = os.path.dirname(folder)
    for path in reversed(made):
        os.makedirs(path, exist_ok=True)
        _sync_folder(os.path.dirname(path))


def _sync_folder(folder: str) -> None:
    """Make a rename durable: the folder's entry is data too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
