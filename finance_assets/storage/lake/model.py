"""Errors, options and results of the lake, and how its files and folders are named."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

SINGLE_FILE_KEY = "data"
SUFFIX = ".parquet"
TEMPORARY_FOLDER = "_tmp"
LOCKS_FOLDER = "_locks"
LANDING_FOLDER = "landing"


class LakeError(RuntimeError):
    """A lake operation failed; the message names the table, the key and the address."""


class AlreadyThereError(LakeError):
    """A file that must not be replaced exists with different content; it was left unchanged."""


class NotSortedError(LakeError):
    """Rows that are written without sorting are not in the order of their contract."""


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
        A writer that has not renewed its lease for this long is treated as stopped, where the operating system does
        not say whether it is alive.
    wait_seconds
        Longest time to wait for another writer.
    """

    lease_seconds: float = 30.0
    wait_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class LakeRead:
    """Rows that were read, and which files they came from.

    Attributes
    ----------
    table
        The rows.
    missing
        Requested partitions that have no file.
    keys
        Files that were read.
    outdated
        Files written by an earlier contract, with how their schema differs from the current one. Their rows are in
        ``table`` too, in the current types, with null for columns that they do not have.
    """

    table: pa.Table
    missing: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    outdated: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class LakeScan:
    """A table that is read in pieces.

    Attributes
    ----------
    dataset
        The rows, in the contract's types.
    keys
        The table's files.
    outdated
        Files written by an earlier contract, with how their schema differs from the current one.
    """

    dataset: ds.Dataset
    keys: tuple[str, ...]
    outdated: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class StagedFile:
    """A copy of a file inside the lake that is not stored under its final name yet.

    Attributes
    ----------
    descriptor
        The copy, open for reading.
    keep
        Store the copy; takes the sha256 and the folders below ``landing/``, as :meth:`Lake.land` does.
    """

    descriptor: int
    keep: Callable[..., None]


@dataclass(frozen=True, slots=True)
class RowGroup:
    """One row group of a table's file, which is read as a unit.

    Attributes
    ----------
    key, index
        The file, and the number of the row group in it.
    rows
        Number of rows.
    bounds
        Minimum and maximum of the requested column; None where the footer has no statistics.
    """

    key: str
    index: int
    rows: int
    bounds: tuple[Any, Any] | None = None


def key_from_path(path: str) -> str:
    """Return the key of a table's file: its name without the suffix."""
    return path.rsplit("/", 1)[-1].removesuffix(SUFFIX)
