"""The lake: immutable Parquet files at one address, a local folder or an S3 prefix.

What belongs here: putting whole files in place atomically, listing them, and reading many of them in one scan. A
partition (or one landed file, or one micro-batch: any key) is one file, ``<layer>/<table>/<key>.parquet``; a
table without partitions is ``<layer>/<table>/data.parquet``. Landed bytes lie under ``landing/`` by their sha256.

Local files are written to ``_tmp/`` and renamed, on S3 they are one upload that becomes visible when it
is complete: a reader sees the old file or the new one. A crash leaves at most a file in ``_tmp/``, which the next
writer sweeps.
"""

from __future__ import annotations

import hashlib
import os
import re
import socket
import uuid
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from finance_assets.contracts.model import Contract

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.fs as pafs

SINGLE_FILE_KEY = "data"
SUFFIX = ".parquet"
TEMPORARY_FOLDER = "_tmp"
LANDING_FOLDER = "landing"
#: Rows of one row group; a session's file holds one, a large table several, so that scans can prune.
ROW_GROUP_ROWS = 131_072
WRITERS = 8
READERS = 16
READ_ATTEMPTS = 5

_SAFE_KEY = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*")


class LakeError(RuntimeError):
    """The lake refused; the message names the table, the key and the address."""


@dataclass(frozen=True, slots=True)
class S3Options:
    """How to reach S3; credentials come from the usual AWS chain."""

    region: str = "us-east-1"
    endpoint_url: str | None = None


@dataclass(frozen=True, slots=True)
class LakeRead:
    """Rows read, and the requested partitions that have no file."""

    table: pa.Table
    missing: tuple[str, ...] = ()


@dataclass
class Lake:
    """Parquet tables at one address.

    Parameters
    ----------
    uri
        An absolute folder or ``s3://bucket/prefix``.
    s3
        How to reach S3, where the address is there.
    """

    uri: str
    s3: S3Options = field(default_factory=S3Options)

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
        if pa.io_thread_count() < READERS:
            pa.set_io_thread_count(READERS)
        scheme, _, host = (self.s3.endpoint_url or "").partition("://")
        return pafs.S3FileSystem(
            region=self.s3.region,
            endpoint_override=host.rstrip("/") or None,
            scheme=scheme or "https",
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
        """Return the address of all files of a table, for an engine that reads it by itself."""
        prefix = "s3://" if self.is_s3 else ""
        return f"{prefix}{self.folder(contract)}/*{SUFFIX}"

    # -- writing -----------------------------------------------------------------------------------------

    def write(self, contract: Contract, table: pa.Table, key: str = SINGLE_FILE_KEY) -> int:
        """Replace one file of a table, whole and durably; return its bytes.

        The rows are brought to the contract and sorted, so that the same rows always give the same bytes. A sparse
        table has no file for no rows.
        """
        from finance_assets.contracts.arrow import conform

        path = self.file(contract, key)
        conformed = conform(contract, table)
        if contract.sparse and conformed.num_rows == 0 and not self.exists(path):
            return 0
        data = parquet_bytes(conformed)
        self.put(path, data)
        return len(data)

    def write_partitions(self, contract: Contract, table: pa.Table, keys: Sequence[str]) -> dict[str, int]:
        """Replace one file for each of ``keys`` with its rows of ``table``; return rows by key.

        Parameters
        ----------
        contract
            A partitioned table.
        table
            Rows of all the partitions, in any order.
        keys
            Every partition to replace; one without rows becomes an empty file (or none, where the table is sparse).

        Raises
        ------
        LakeError
            A row belongs to none of ``keys``. Nothing is written.
        """
        import numpy as np
        import pyarrow as pa

        from finance_assets.contracts.arrow import conform, storage_schema

        column = contract.partition_column
        if column is None:
            raise LakeError(f"{contract.path} is not partitioned")
        schema = storage_schema(contract)
        # Sorted by partition first: each partition is then a slice, and no row is copied twice.
        conformed = conform(contract, table)
        conformed = conformed.sort_by(
            [(column, "ascending"), *((name, "ascending") for name in contract.order if name != column)]
        )
        slices: dict[str, pa.Table] = {}
        if conformed.num_rows:
            encoded = conformed.column(column).cast(pa.string()).combine_chunks().dictionary_encode()
            codes = encoded.indices.to_numpy()
            starts = np.flatnonzero(np.r_[True, codes[1:] != codes[:-1]])
            ends = np.r_[starts[1:], len(codes)]
            names = encoded.dictionary.to_pylist()
            for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
                slices[names[codes[start]]] = conformed.slice(start, end - start)
        strangers = sorted(set(slices) - set(keys))
        if strangers:
            raise LakeError(
                f"{contract.path}: rows for {len(strangers)} partitions that this run does not write, "
                f"the first {strangers[0]!r}; nothing was written"
            )
        empty = schema.empty_table()
        existing = set(self.partitions(contract)) if contract.sparse else set()

        def write_one(key: str) -> None:
            rows = slices.get(key, empty)
            if contract.sparse and rows.num_rows == 0 and key not in existing:
                return
            self.put(self.file(contract, key), parquet_bytes(rows))

        _run_all(write_one, keys, WRITERS)
        return {key: slices[key].num_rows if key in slices else 0 for key in keys}

    def put(self, path: str, data: bytes) -> None:
        """Put ``data`` at ``path`` whole: it is all there, durably, or not at all."""
        if self.is_s3:
            # Arrow would compress what is called .gz, though it is already.
            with self.filesystem.open_output_stream(path, compression=None) as stream:
                stream.write(data)
            return
        folder = os.path.dirname(path)
        temporary = os.path.join(self._temporary_folder, _temporary_name())
        os.makedirs(folder, exist_ok=True)
        try:
            with open(temporary, "xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            if os.path.exists(temporary):
                os.unlink(temporary)
            raise
        _sync_folder(folder)

    @cached_property
    def _temporary_folder(self) -> str:
        folder = os.path.join(self.root, TEMPORARY_FOLDER)
        os.makedirs(folder, exist_ok=True)
        _sweep(folder)
        return folder

    # -- landed bytes ------------------------------------------------------------------------------------

    def land(self, data: bytes, *parts: str, suffix: str = "") -> str:
        """Keep bytes as they came, addressed by their sha256; return the sha256.

        Parameters
        ----------
        data
            The bytes.
        parts
            Folders below ``landing/``, such as the domain and the provider.
        suffix
            File ending, such as ``.json``.
        """
        digest = hashlib.sha256(data).hexdigest()
        path = self.landed_path(digest, *parts, suffix=suffix)
        if not self.exists(path):
            self.put(path, data)
        return digest

    def landed_path(self, digest: str, *parts: str, suffix: str = "") -> str:
        """Return the path of landed bytes."""
        for part in parts:
            if not _SAFE_KEY.fullmatch(part):
                raise LakeError(f"{part!r} cannot name a landing folder")
        return "/".join((self.root, LANDING_FOLDER, *parts, digest + suffix))

    # -- reading -----------------------------------------------------------------------------------------

    def exists(self, path: str) -> bool:
        """Return whether there is a file at ``path``."""
        import pyarrow.fs as pafs

        return bool(self.filesystem.get_file_info(path).type == pafs.FileType.File)

    def get(self, path: str) -> bytes:
        """Return the bytes at ``path``; FileNotFoundError where there are none."""
        with self.filesystem.open_input_file(path) as file:
            return bytes(file.readall())

    def list(self, folder: str, suffix: str = "") -> list[str]:
        """Return the paths of the files right below ``folder``, sorted; a failed listing raises."""
        import pyarrow.fs as pafs

        selector = pafs.FileSelector(folder, allow_not_found=True)
        infos = self.filesystem.get_file_info(selector)
        bucket = self.root.split("/")[0]
        # Arrow lists a bucket that is not there as if it were empty.
        if self.is_s3 and not infos and self.filesystem.get_file_info(bucket).type == pafs.FileType.NotFound:
            raise LakeError(f"listing s3://{folder}: there is no such bucket; check FINANCE_ASSETS_LAKE_URI")
        return sorted(info.path for info in infos if info.type == pafs.FileType.File and info.path.endswith(suffix))

    def partitions(self, contract: Contract) -> list[str]:
        """Return the keys of the files of a table, sorted."""
        return [path.rsplit("/", 1)[-1].removesuffix(SUFFIX) for path in self.list(self.folder(contract), SUFFIX)]

    def read(
        self,
        contract: Contract,
        *,
        keys: Iterable[str] | None = None,
        first: str | None = None,
        last: str | None = None,
        columns: Sequence[str] | None = None,
        where: pc.Expression | None = None,
    ) -> LakeRead:
        """Read a table in one scan.

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
            Columns to read, and a filter that row groups are pruned by.

        Returns
        -------
        LakeRead
            Rows in the order of the partitions; an empty table of the contract where there are none.
        """
        for attempt in range(READ_ATTEMPTS):
            present = self.partitions(contract)
            wanted = None if keys is None else set(keys)
            chosen = [
                key
                for key in present
                if (wanted is None or key in wanted)
                and (first is None or key >= first)
                and (last is None or key <= last)
            ]
            missing = () if wanted is None or contract.sparse else tuple(sorted(wanted - set(chosen)))
            try:
                return LakeRead(self._scan(contract, chosen, columns, where), missing)
            except FileNotFoundError:
                # A writer removed a file between our listing and our reading: list again.
                if attempt == READ_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _scan(
        self,
        contract: Contract,
        keys: Sequence[str],
        columns: Sequence[str] | None,
        where: pc.Expression | None,
    ) -> pa.Table:
        import pyarrow as pa
        import pyarrow.dataset as ds

        from finance_assets.contracts.arrow import storage_schema

        schema = storage_schema(contract)
        if columns is not None:
            schema_read = pa.schema([schema.field(name) for name in columns])
        else:
            schema_read = schema
        if not keys:
            return schema_read.empty_table()
        dataset = ds.dataset(
            [self.file(contract, key) for key in keys],
            schema=schema,
            format="parquet",
            filesystem=self.filesystem,
        )
        options = ds.ParquetFragmentScanOptions(pre_buffer=self.is_s3)
        table: pa.Table = dataset.to_table(
            columns=list(columns) if columns is not None else None,
            filter=where,
            fragment_scan_options=options,
            fragment_readahead=READERS,
        )
        return table

    def row_counts(self, contract: Contract) -> dict[str, int]:
        """Return the rows of each file of a table, from the files' footers."""
        import pyarrow.parquet as pq

        keys = self.partitions(contract)

        def count(key: str) -> int:
            return int(pq.read_metadata(self.file(contract, key), filesystem=self.filesystem).num_rows)

        with ThreadPoolExecutor(READERS) as pool:
            return dict(zip(keys, pool.map(count, keys), strict=True))


def parquet_bytes(table: pa.Table) -> bytes:
    """Return ``table`` as the bytes of a Parquet file; the same rows always give the same bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(
        table.combine_chunks(),
        sink,
        compression="zstd",
        compression_level=1,
        row_group_size=ROW_GROUP_ROWS,
        write_statistics=True,
        # DECIMAL(18, …) as a plain integer: half the size, and four times as fast to read.
        store_decimal_as_integer=True,
        store_schema=False,
        coerce_timestamps="us",
    )
    return bytes(sink.getvalue())


def _run_all(work: Callable[[str], None], items: Sequence[str], workers: int) -> None:
    """Call ``work`` on each item in threads; the first error is raised after those under way have ended."""
    with ThreadPoolExecutor(workers) as pool:
        for future in [pool.submit(work, item) for item in items]:
            future.result()


def _temporary_name() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"


def _sweep(folder: str) -> None:
    """Remove what dead processes of this machine left half written."""
    host = socket.gethostname()
    for name in os.listdir(folder):
        owner, _, _ = name.rpartition("-")
        owner_host, _, pid = owner.rpartition("-")
        if owner_host == host and pid.isdigit() and not _is_alive(int(pid)):
            try:
                os.unlink(os.path.join(folder, name))
            except FileNotFoundError:
                continue


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _sync_folder(folder: str) -> None:
    """Make a rename durable: the folder's entry is data too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
