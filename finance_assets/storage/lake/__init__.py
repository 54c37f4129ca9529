"""The lake: immutable Parquet files at one address, a local folder or an S3 prefix.

A partition (or one landed file, or one micro-batch: any key) is one file, ``<layer>/<table>/<key>.parquet``; a table
without partitions is ``<layer>/<table>/data.parquet``. Landed bytes are stored below ``landing/`` under their sha256.

A reader sees either the old file or the new one, never a part of one. A writer that is killed leaves at most a file in
``_tmp/``, which the next writer removes: a writer holds a lock on its temporary file while it runs, so an unlocked one
has no writer.

======================  ==================================================================
``files``               addresses, listing, and putting whole files in place
``landed_files``        landed bytes below ``landing/``
``table_writer``        writing tables
``table_reader``        reading tables, row groups and footers
``encoding``            encoding tables as Parquet
``local_files``         temporary files, locks, durable folders
``model``               errors, options, results, names of files and folders
======================  ==================================================================
"""

from __future__ import annotations

from finance_assets.storage.lake.encoding import ROW_GROUP_ROWS, SMALL_FILE_ROWS, map_ahead, parquet_bytes
from finance_assets.storage.lake.files import COPY_PART_BYTES
from finance_assets.storage.lake.landed_files import LandedFiles
from finance_assets.storage.lake.model import (
    LANDING_FOLDER,
    LOCKS_FOLDER,
    SINGLE_FILE_KEY,
    SUFFIX,
    TEMPORARY_FOLDER,
    AlreadyThereError,
    LakeError,
    LakeRead,
    LakeScan,
    NotSortedError,
    RowGroup,
    S3Options,
    StagedFile,
    WriterOptions,
)
from finance_assets.storage.lake.table_reader import TableReader
from finance_assets.storage.lake.table_writer import TableWriter

__all__ = [
    "COPY_PART_BYTES",
    "LANDING_FOLDER",
    "LOCKS_FOLDER",
    "ROW_GROUP_ROWS",
    "SINGLE_FILE_KEY",
    "SMALL_FILE_ROWS",
    "SUFFIX",
    "TEMPORARY_FOLDER",
    "AlreadyThereError",
    "Lake",
    "LakeError",
    "LakeRead",
    "LakeScan",
    "NotSortedError",
    "RowGroup",
    "S3Options",
    "StagedFile",
    "WriterOptions",
    "map_ahead",
    "parquet_bytes",
]


class Lake(TableReader, TableWriter, LandedFiles):
    """Parquet tables and landed files at one address.

    Parameters
    ----------
    uri
        An absolute folder or ``s3://bucket/prefix``.
    s3
        How to reach S3, where the address is there.
    writers
        How writers wait for each other.
    """
