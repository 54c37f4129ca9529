"""Reading tables: many files at once, one row group at a time, as a DuckDB relation, or only their footers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any, TypeVar

from finance_assets.contracts.model import Contract, ContractError
from finance_assets.contracts.validation import schema_difference
from finance_assets.sql import read_parquet
from finance_assets.storage.lake.files import LOCAL_READERS, S3_READERS, LakeFiles
from finance_assets.storage.lake.model import SUFFIX, LakeError, LakeRead, LakeScan, RowGroup, key_from_path
from finance_assets.storage.parquet_parts import MAGIC

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.fs as pafs

#: A file of at most so many bytes is read whole, by one request; a larger one is scanned, and its row groups pruned.
WHOLE_FILE_BYTES = 8 * 1024 * 1024
#: Files whose rows are joined (and filtered) at a time, so that a table of many small files has few chunks.
FILES_AT_ONCE = 256
#: Attempts to read files that are replaced while they are read; enough also on a busy machine.
READ_ATTEMPTS = 12

T = TypeVar("T")


class TableReader(LakeFiles):
    """Reads the tables of a lake."""

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
            Text columns to return as dictionaries: repeated text then takes a fraction of the memory.

        Returns
        -------
        LakeRead
            Rows in the order of the partitions; an empty table of the contract where there are none.

        Raises
        ------
        LakeError
            A file is broken, or has values that the current contract does not allow. The message names it.
        """
        import pyarrow as pa

        wanted = None if keys is None else set(keys)
        unknown = [name for name in columns or () if name not in contract.column_names]
        if unknown:
            raise LakeError(f"{contract.path} has no column {', '.join(unknown)}")

        def is_chosen(info: pafs.FileInfo) -> bool:
            key = key_from_path(info.path)
            return (
                (wanted is None or key in wanted) and (first is None or key >= first) and (last is None or key <= last)
            )

        for attempt in range(1, READ_ATTEMPTS + 1):
            chosen = [info for info in self._list_files(self.folder(contract), SUFFIX) if is_chosen(info)]
            present = tuple(key_from_path(info.path) for info in chosen)
            missing = () if wanted is None or contract.sparse else tuple(sorted(wanted - set(present)))
            try:
                table, outdated = self._read_files(contract, chosen, columns, where, frozenset(dictionaries))
            except (pa.ArrowException, LakeError, OSError):
                # A writer may have removed or replaced a file between the listing and the reading: list again.
                if attempt == READ_ATTEMPTS or not self._have_changed(chosen):
                    raise
            else:
                # A small file is read by one request, and an open local file does not change. Only the requests for a
                # large object could be answered from two versions of it.
                large = [info for info in chosen if self.is_s3 and info.size > WHOLE_FILE_BYTES]
                if not self._have_changed(large):
                    return LakeRead(table, missing, present, outdated)
        raise LakeError(f"{contract.path} was rewritten {READ_ATTEMPTS} times while it was read; read it again")

    def _have_changed(self, files: Sequence[pafs.FileInfo]) -> bool:
        """Return whether one of the files was removed or replaced since it was listed."""
        if not files:
            return False
        listed = {info.path: info for info in self._list_files(os.path.dirname(files[0].path), SUFFIX)}
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
        """Return the rows of some files in the current types, and which files were written by an earlier contract."""
        import pyarrow as pa

        from finance_assets.contracts.arrow import storage_schema

        names = list(columns) if columns is not None else contract.column_names
        # A filter may use any column, so a file that is read whole keeps them all until it is filtered.
        requested = names if where is None else contract.column_names
        outdated: dict[str, str] = {}

        def note_difference(info: pafs.FileInfo, difference: str) -> None:
            if difference:
                outdated[key_from_path(info.path)] = difference

        def read_small_file(info: pafs.FileInfo) -> pa.Table:
            table, difference = self._read_whole_file(contract, info.path, requested, dictionaries)
            note_difference(info, difference)
            return table

        groups: list[pa.Table] = []
        with ThreadPoolExecutor(S3_READERS if self.is_s3 else LOCAL_READERS) as pool:
            for is_small, run in groupby(files, key=lambda info: info.size <= WHOLE_FILE_BYTES):
                infos = list(run)
                if not is_small:
                    for info in infos:
                        table, difference = self._scan_file(contract, info.path, names, where, dictionaries)
                        note_difference(info, difference)
                        groups.append(table)
                    continue
                for start in range(0, len(infos), FILES_AT_ONCE):
                    table = pa.concat_tables(list(pool.map(read_small_file, infos[start : start + FILES_AT_ONCE])))
                    if where is not None:
                        table = table.filter(where).select(names)
                    # Small files give small chunks, which would slow every later step.
                    groups.append(table.combine_chunks())
        empty = _with_dictionaries(storage_schema(contract), dictionaries, names).empty_table()
        return pa.concat_tables([group for group in groups if group.num_rows] or [empty]), outdated

    def _read_whole_file(
        self, contract: Contract, path: str, names: Sequence[str], dictionaries: frozenset[str]
    ) -> tuple[pa.Table, str]:
        """Read a file by one request; return its rows, and how its schema differs from the current one."""
        import pyarrow.parquet as pq

        def read_rows(data: pa.BufferReader) -> tuple[pa.Schema, pa.Table]:
            with pq.ParquetFile(data, read_dictionary=dictionaries) as file:
                schema = file.schema.to_arrow_schema()
                return schema, file.read(columns=[name for name in names if name in schema.names], use_threads=False)

        file_schema, table = self._read_one_version(path, read_rows)
        difference = schema_difference(contract, file_schema)
        return (_cast_to_contract(contract, path, table, names, dictionaries) if difference else table), difference

    def _read_one_version(self, path: str, read: Callable[[pa.BufferReader], T]) -> T:
        """Return what ``read`` returns for the bytes of one version of a Parquet file.

        The length is requested from S3 before the bytes: where another version is written between the two requests,
        the bytes are cut off. Bytes that cannot be read are requested again.
        """
        import pyarrow as pa

        reason: object = "it does not end like one"
        for _ in range(READ_ATTEMPTS if self.is_s3 else 1):
            data = self.get(path)
            if not data.endswith(MAGIC):
                continue
            try:
                return read(pa.BufferReader(data))
            except (pa.ArrowInvalid, OSError) as error:
                reason = error
        raise _broken_file_error(path, reason)

    def _scan_file(
        self,
        contract: Contract,
        path: str,
        names: Sequence[str],
        where: pc.Expression | None,
        dictionaries: frozenset[str],
    ) -> tuple[pa.Table, str]:
        """Return the rows of a large file that pass the filter, and how its schema differs from the current one."""
        import pyarrow as pa
        import pyarrow.dataset as ds
        import pyarrow.parquet as pq

        from finance_assets.contracts.arrow import storage_schema

        try:
            if where is None:
                # Each column becomes one chunk, which saves as much memory again where one chunk is needed.
                with (
                    self.filesystem.open_input_file(path) as stream,
                    pq.ParquetFile(stream, read_dictionary=dictionaries, pre_buffer=self.is_s3) as file,
                ):
                    schema = file.schema.to_arrow_schema()
                    table = file.read(columns=[name for name in names if name in schema.names])
            else:
                file_format = ds.ParquetFileFormat(dictionary_columns=dictionaries)
                dataset = ds.dataset(path, format=file_format, filesystem=self.filesystem, partitioning=None)
                schema = _with_dictionaries(dataset.schema, frozenset())
                # The filter may name a column that the file does not have yet: there it is null.
                absent = [field for field in storage_schema(contract) if field.name not in schema.names]
                table = dataset.replace_schema(pa.schema([*dataset.schema, *absent])).to_table(
                    columns=list(names),
                    filter=where,
                    fragment_scan_options=ds.ParquetFragmentScanOptions(pre_buffer=self.is_s3),
                )
        except pa.ArrowInvalid as error:
            raise _broken_file_error(path, error) from error
        difference = schema_difference(contract, schema)
        return (_cast_to_contract(contract, path, table, names, dictionaries) if difference else table), difference

    def scan(self, contract: Contract, keys: Iterable[str] | None = None) -> LakeScan:
        """Return a table, or some of its files, to be read in pieces: it may be larger than memory.

        Files that an earlier contract wrote are read in the current types, and named in the result.
        """
        import pyarrow as pa
        import pyarrow.dataset as ds

        from finance_assets.contracts.arrow import storage_schema

        files = self._list_table(contract, keys)
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
            differences = {
                key_from_path(fragment.path): schema_difference(contract, fragment.physical_schema)
                for fragment in dataset.get_fragments()
            }
        except pa.ArrowInvalid as error:
            raise _broken_file_error(self.folder(contract), error) from error
        outdated = {key: difference for key, difference in differences.items() if difference}
        return LakeScan(dataset, tuple(key_from_path(info.path) for info in files), outdated)

    def attach(self, connection: duckdb.DuckDBPyConnection, contract: Contract, name: str) -> LakeScan:
        """Make a table a relation of a DuckDB connection, for queries over more rows than fit in memory.

        Parameters
        ----------
        connection
            An open database; the relation lasts as long as the connection.
        contract
            The table.
        name
            Name of the relation.

        Returns
        -------
        LakeScan
            The files behind the relation.
        """
        scan = self.scan(contract)
        if self.is_s3 or scan.outdated or not scan.keys:
            connection.register(name, scan.dataset)
        else:
            # DuckDB's own reader runs on all cores, and reads only the columns of a query.
            files = read_parquet(self.file(contract, key) for key in scan.keys)
            columns = ", ".join(contract.column_names)
            connection.execute(f"create or replace temp view {name} as select {columns} from {files}")
        return scan

    # -- row groups and footers --------------------------------------------------------------------------

    def row_counts(self, contract: Contract) -> dict[str, int]:
        """Return the number of rows of each file of a table, from the files' footers."""
        return {key: footer.num_rows for key, footer in self._read_footers(contract).items()}

    def row_groups(self, contract: Contract, bounds_of: str = "") -> list[RowGroup]:
        """Return the row groups of all files of a table, in the order of the files, from their footers.

        Parameters
        ----------
        contract
            The table.
        bounds_of
            Column whose minimum and maximum to return.
        """
        groups = []
        for key, footer in self._read_footers(contract).items():
            for index, bounds in enumerate(_column_bounds(footer, bounds_of)):
                groups.append(RowGroup(key, index, footer.row_group(index).num_rows, bounds))
        return groups

    def read_row_group(
        self, contract: Contract, group: RowGroup, columns: Sequence[str], dictionaries: Sequence[str] = ()
    ) -> pa.Table:
        """Read one row group.

        Parameters
        ----------
        contract
            The table.
        group
            A row group that `row_groups` returned.
        columns
            Columns to read.
        dictionaries
            Text columns to return as dictionaries.

        Returns
        -------
        pyarrow.Table
            The rows, in the current types, each column as one chunk.

        Raises
        ------
        LakeError
            The file was removed or replaced since, is broken, or has values that the current contract does not allow.
        """
        import pyarrow as pa
        import pyarrow.parquet as pq

        names, path = frozenset(dictionaries), self.file(contract, group.key)
        try:
            with (
                self.filesystem.open_input_file(path) as stream,
                pq.ParquetFile(stream, read_dictionary=names, pre_buffer=self.is_s3) as file,
            ):
                schema = file.schema.to_arrow_schema()
                present = [name for name in columns if name in schema.names]
                table = file.read_row_group(group.index, columns=present, use_threads=False)
        except (pa.ArrowInvalid, OSError) as error:
            raise _broken_file_error(path, error) from error
        if table.num_rows != group.rows:
            raise LakeError(f"{path} was replaced while it was read; run this again")
        difference = schema_difference(contract, schema)
        return _cast_to_contract(contract, path, table, columns, names) if difference else table

    def bounds(
        self, contract: Contract, names: Sequence[str], keys: Iterable[str] | None = None
    ) -> dict[str, dict[str, tuple[Any, Any]]]:
        """Return the minimum and maximum of some columns in each file of a table, from the files' footers.

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
            By key and column. A column that has no value at all, or no statistics in the footer, is missing there.
        """
        bounds: dict[str, dict[str, tuple[Any, Any]]] = {}
        for key, footer in self._read_footers(contract, keys).items():
            bounds[key] = {}
            for name in names:
                groups = _column_bounds(footer, name)
                known = [group for group in groups if group is not None]
                if known and len(known) == len(groups):
                    bounds[key][name] = (min(low for low, _ in known), max(high for _, high in known))
        return bounds

    def _read_footers(self, contract: Contract, keys: Iterable[str] | None = None) -> dict[str, Any]:
        """Return the footer of each file of a table, or of some."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        def read_footer(info: pafs.FileInfo) -> Any:
            try:
                if self.is_s3 and info.size <= WHOLE_FILE_BYTES:
                    return self._read_one_version(info.path, pq.read_metadata)
                return pq.read_metadata(info.path, filesystem=self.filesystem)
            except FileNotFoundError:
                # Removed since it was listed.
                return None
            except pa.ArrowInvalid as error:
                raise _broken_file_error(info.path, error) from error

        files = self._list_table(contract, keys)
        with ThreadPoolExecutor(S3_READERS if self.is_s3 else LOCAL_READERS) as pool:
            footers = list(pool.map(read_footer, files))
        return {
            key_from_path(info.path): footer for info, footer in zip(files, footers, strict=True) if footer is not None
        }

    def _list_table(self, contract: Contract, keys: Iterable[str] | None) -> list[pafs.FileInfo]:
        """Return the files of a table, or those of some keys."""
        wanted = None if keys is None else set(keys)
        files = self._list_files(self.folder(contract), SUFFIX)
        return [info for info in files if wanted is None or key_from_path(info.path) in wanted]


def _column_bounds(footer: Any, name: str) -> list[tuple[Any, Any] | None]:
    """Return the minimum and maximum of a column in each row group; None where the footer has no statistics."""
    names = [footer.schema.column(i).path for i in range(footer.num_columns)]
    column = names.index(name) if name in names else None
    bounds: list[tuple[Any, Any] | None] = []
    for index in range(footer.num_row_groups):
        statistics = None if column is None else footer.row_group(index).column(column).statistics
        if statistics is not None and statistics.has_min_max:
            bounds.append((statistics.min, statistics.max))
        else:
            bounds.append(None)
    return bounds


def _with_dictionaries(
    schema: pa.Schema, dictionaries: frozenset[str], names: Sequence[str] | None = None
) -> pa.Schema:
    """Return the fields of some columns, those in ``dictionaries`` as dictionaries of text and the others plain."""
    import pyarrow as pa

    def convert_field(name: str) -> pa.Field:
        field = schema.field(name)
        plain = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
        return field.with_type(pa.dictionary(pa.int32(), plain) if name in dictionaries else plain)

    return pa.schema([convert_field(name) for name in (schema.names if names is None else names)])


def _cast_to_contract(
    contract: Contract, path: str, table: pa.Table, names: Sequence[str], dictionaries: frozenset[str]
) -> pa.Table:
    """Return rows that an earlier contract wrote in the types of the current one."""
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
            raise LakeError(
                f"{path} was written by an earlier contract: {error}; materialise its partition again"
            ) from error
    result = pa.Table.from_arrays(columns, schema=_with_dictionaries(schema, frozenset(), names))
    return result.cast(_with_dictionaries(schema, dictionaries, names)) if dictionaries else result


def _broken_file_error(path: str, reason: object) -> LakeError:
    return LakeError(f"{path} is not a whole Parquet file ({reason}); materialise its partition again")
