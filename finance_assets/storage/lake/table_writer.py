"""Writing tables: rows are brought to their contract, sorted and encoded, and each file is replaced whole."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from finance_assets.contracts.model import Contract
from finance_assets.storage.lake import encoding
from finance_assets.storage.lake.encoding import SMALL_FILE_ROWS, parquet_bytes, write_parquet, write_sorted_parts
from finance_assets.storage.lake.files import LakeFiles, forbid_replacing
from finance_assets.storage.lake.model import SINGLE_FILE_KEY, LakeError, NotSortedError

if TYPE_CHECKING:
    import pyarrow as pa


class TableWriter(LakeFiles):
    """Writes the tables of a lake."""

    def write(self, contract: Contract, table: pa.Table, key: str = SINGLE_FILE_KEY) -> int:
        """Replace one file of a table, whole and durably; return its size in bytes.

        The rows are brought to the contract and sorted, so that the same rows always give the same bytes. A sparse
        table has no file where there are no rows. A file of an append-only table is created and never replaced:
        writing the same rows again changes nothing.

        Raises
        ------
        AlreadyThereError
            The table is append-only, and the file exists with other rows.
        LakeError
            The table is partitioned (see :meth:`write_partitions`), or the key cannot name a file.
        """
        from finance_assets.contracts.arrow import conform

        if contract.partition_column is not None:
            raise LakeError(f"{contract.path} is partitioned by {contract.partition_column}; use write_partitions")
        path = self.file(contract, key)
        group_rows = encoding.ROW_GROUP_ROWS
        if table.num_rows > group_rows:
            starts = range(0, table.num_rows, group_rows)
            try:
                return self.write_parts(contract, [partial(table.slice, start, group_rows) for start in starts], key)
            except NotSortedError:
                # It is sorted below, which takes as much memory again.
                pass
        conformed = conform(contract, table)
        if contract.sparse and conformed.num_rows == 0 and not self.exists(path):
            return 0
        data = parquet_bytes(conformed)
        with forbid_replacing(contract):
            self.put(path, data)
        return len(data)

    def write_parts(
        self, contract: Contract, parts: Iterable[Callable[[], pa.Table]], key: str = SINGLE_FILE_KEY
    ) -> int:
        """Replace one file of a table with rows that are sorted and given in parts; return its size in bytes.

        Only a few parts are in memory at a time. Where each part but the last has ``ROW_GROUP_ROWS`` rows, the file is
        the same as the one that :meth:`write` makes of all rows at once. It is written durably or not at all.

        Parameters
        ----------
        contract
            The table.
        parts
            Functions that return the parts; called in several threads.
        key
            Key of the file.

        Raises
        ------
        NotSortedError
            A row does not come after the one before; nothing was written.
        AlreadyThereError
            The table is append-only, and the file exists with other rows.
        LakeError
            The table is partitioned, or the key cannot name a file.
        """
        if contract.partition_column is not None:
            raise LakeError(f"{contract.path} is partitioned by {contract.partition_column}; use write_partitions")
        path = self.file(contract, key)
        if self.is_s3:
            # An interrupted upload of a stream would appear as an incomplete object.
            sink = io.BytesIO()
            write_sorted_parts(contract, parts, sink)
            data = sink.getbuffer()
            with forbid_replacing(contract):
                self.put(path, data)
            return len(data)
        return self._write_local(
            path, lambda file: write_sorted_parts(contract, parts, file), is_new=contract.append_only
        )

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
        slices = _split_by_partition(contract, column, conformed)
        unexpected = sorted(set(slices) - set(paths))
        if unexpected:
            raise LakeError(
                f"{contract.path}: rows for {len(unexpected)} partitions that this run does not write, "
                f"the first {unexpected[0]!r}; nothing was written"
            )
        empty = storage_schema(contract).empty_table()
        existing = set(self.partitions(contract)) if contract.sparse else set()
        replaced = [key for key in paths if not contract.sparse or key in slices or key in existing]
        self._put_files(
            (paths[key] for key in replaced), lambda index: parquet_bytes(slices.get(replaced[index], empty))
        )
        return {key: slices[key].num_rows if key in slices else 0 for key in paths}

    def write_partition_if_changed(self, contract: Contract, table: pa.Table, key: str) -> bool:
        """Replace one file of a partitioned table unless it has exactly these rows; return whether it was replaced.

        A table that is computed as a whole so keeps the files of its unchanged partitions.
        """
        from finance_assets.contracts.arrow import conform

        path = self.file(contract, key)
        conformed = conform(contract, table, dictionaries=table.num_rows >= SMALL_FILE_ROWS)
        if self.is_s3 or self.exists(path):
            data = parquet_bytes(conformed)
            if self._has_bytes(path, data):
                return False
            self.put(path, data)
        else:
            is_small = conformed.num_rows < SMALL_FILE_ROWS
            self._write_local(path, lambda file: write_parquet(conformed, file, is_small=is_small))
        return True

    def share(self, contract: Contract, key: str, other: Contract, other_key: str) -> None:
        """Make a file of one table a file of another table too, with the same rows, without writing them again.

        A local file gets a second name, since files are replaced and never changed. S3 copies the object itself, a
        large one in parts, up to the largest size that it allows. The copy appears when it is complete. A copy that
        fails removes its parts; one that is killed leaves parts that are not visible as objects.

        Parameters
        ----------
        contract, key
            The file.
        other, other_key
            The table, with the same columns and order, and the key of the new file.

        Raises
        ------
        AlreadyThereError
            The other table is append-only, and its file exists with other bytes.
        LakeError
            The tables have different columns.
        """
        if [(c.name, c.type) for c in contract.columns] != [(c.name, c.type) for c in other.columns]:
            raise LakeError(f"a file of {contract.path} cannot be one of {other.path}: their columns differ")
        source, path = self.file(contract, key), self.file(other, other_key)
        if self.is_s3:
            self._copy_on_s3(source, path, is_new=other.append_only)
        else:
            self._link_file(source, path, is_new=other.append_only)


def _split_by_partition(contract: Contract, column: str, table: pa.Table) -> dict[str, pa.Table]:
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
