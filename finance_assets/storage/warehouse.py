"""The warehouse: where SQL lives. DuckDB here; PostgreSQL and Redshift take the same interface.

What belongs here: connections, the views over the lake, reading and replacing relations. dbt owns the relations it
builds. DuckDB's file lock is exclusive, so everything that opens the file runs in the Dagster pool
``warehouse``, which has one slot; readers outside the pipeline use the published layer of the lake instead.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from finance_assets.contracts.model import Contract, Store
from finance_assets.sql import literal, read_parquet
from finance_assets.storage.lake import Lake, S3Options

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

LOCK_ATTEMPTS = 5
LOCK_PAUSE_SECONDS = 0.5


class WarehouseError(RuntimeError):
    """The warehouse refused; the message says what to do."""


class WarehouseBusyError(WarehouseError):
    """Another process holds the warehouse's file."""


class Warehouse(Protocol):
    """What the pipeline asks of any warehouse."""

    def refresh_lake_views(self) -> list[str]:
        """Make every lake table readable as ``layer.name``; return the names."""

    def read(self, contract: Contract, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a relation as an Arrow table in the contract's types."""

    def replace(self, contract: Contract, table: pa.Table) -> int:
        """Replace a relation's rows in one transaction; return how many there are."""

    def dbt_environment(self) -> dict[str, str]:
        """Return the environment that dbt needs to reach the warehouse."""


def configure_connection(connection: duckdb.DuckDBPyConnection, *, s3: S3Options | None) -> None:
    """Prepare a DuckDB connection: UTC, and S3 where the lake is there.

    The extension comes out of its wheel, so nothing is downloaded. The same function serves our own
    connections and, through ``finance_assets.storage.dbt_plugin``, those of dbt.
    """
    connection.execute("set autoinstall_known_extensions = false")
    # A timestamp turned into a date must not depend on the zone of the machine.
    connection.execute("set timezone = 'UTC'")
    # A view of one file per session opens all of them when it is bound and again when it is read.
    connection.execute("set parquet_metadata_cache = true")
    if s3 is None:
        return
    connection.execute(f"load {literal(str(_httpfs()))}")
    import boto3

    credentials = boto3.Session().get_credentials()
    if credentials is None:
        raise WarehouseError("no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or use a role")
    frozen = credentials.get_frozen_credentials()
    options = {
        "type": "s3",
        "key_id": frozen.access_key,
        "secret": frozen.secret_key,
        "region": s3.region,
    }
    if frozen.token:
        options["session_token"] = frozen.token
    if s3.endpoint_url:
        scheme, _, host = s3.endpoint_url.partition("://")
        options |= {
            "endpoint": host.rstrip("/"),
            "url_style": "path",
            "use_ssl": str(scheme == "https").lower(),
        }
    settings = ", ".join(f"{name} {literal(str(value))}" for name, value in options.items())
    connection.execute(f"create or replace temporary secret lake ({settings})")


def _httpfs() -> Path:
    """Return the S3 extension as the file in its wheel."""
    from importlib.util import find_spec

    spec = find_spec("duckdb_extension_httpfs")
    if spec is None or spec.origin is None:
        raise WarehouseError("the package duckdb-extension-httpfs is missing; install the dependencies again")
    found = sorted(Path(spec.origin).parent.glob("extensions/*/httpfs.duckdb_extension"))
    if not found:
        raise WarehouseError("the package duckdb-extension-httpfs holds no extension for this DuckDB")
    return found[-1]


@contextmanager
def _transaction(connection: duckdb.DuckDBPyConnection) -> Iterator[None]:
    """Make what the block does visible at once, or not at all."""
    connection.execute("begin")
    try:
        yield
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _relation(contract: Contract) -> str:
    return f'"{contract.layer}"."{contract.name}"'


@dataclass
class DuckDBWarehouse:
    """The warehouse as one DuckDB file.

    Parameters
    ----------
    path
        The file.
    lake
        The lake whose tables are views here.
    contracts
        Every contract; lake tables become views, warehouse relations are dbt's.
    scratch_dir
        Folder for dbt's targets and logs.
    sleep
        How to wait between two attempts to open a locked file.
    waits
        Whether a locked file is tried again; else it is refused at once.
    """

    path: Path
    lake: Lake
    contracts: Sequence[Contract]
    scratch_dir: Path
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)
    waits: bool = True

    @property
    def _s3(self) -> S3Options | None:
        return self.lake.s3 if self.lake.is_s3 else None

    @contextmanager
    def connect(self, *, read_only: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        """Open the file; it is locked against every other process until the block ends.

        Raises
        ------
        WarehouseError
            Another process holds the file.
        """
        import duckdb

        self.path.parent.mkdir(parents=True, exist_ok=True)
        for attempt in range(1, LOCK_ATTEMPTS + 1):
            try:
                connection = duckdb.connect(str(self.path), read_only=read_only and self.path.exists())
                break
            except (duckdb.IOException, duckdb.ConnectionException) as error:
                # A second connection of this process, which may write where the first may not, is refused as well.
                if not any(reason in str(error).lower() for reason in ("lock", "different configuration")):
                    raise
                if attempt == LOCK_ATTEMPTS or not self.waits:
                    raise WarehouseBusyError(
                        f"{self.path} is open elsewhere ({error}). Close it, or read the published layer of the "
                        "lake, which is never locked."
                    ) from error
                self.sleep(LOCK_PAUSE_SECONDS * attempt)
        try:
            configure_connection(connection, s3=self._s3)
            yield connection
        finally:
            connection.close()

    def refresh_lake_views(self) -> list[str]:
        """Make every lake table a view ``layer.name``: typed, and empty while there are no files.

        All of them change at once, or none does. A view shows new files by itself, except of a local lake with a
        backslash in its path: DuckDB has no pattern for that, and the view names the files that are there now.
        """
        names: list[str] = []
        with self.connect() as connection, _transaction(connection):
            for contract in self.contracts:
                if contract.store is not Store.LAKE:
                    continue
                connection.execute(f'create schema if not exists "{contract.layer}"')
                connection.execute(f"create or replace view {_relation(contract)} as {self._view(contract)}")
                names.append(f"{contract.layer}.{contract.name}")
        return names

    def _view(self, contract: Contract) -> str:
        """Return the query of a lake table."""
        nothing = ", ".join(f'cast(null as {column.sql_type}) as "{column.name}"' for column in contract.columns)
        if not self.lake.partitions(contract):
            return f"select {nothing} where false"
        columns = ", ".join(
            f'cast("{column.name}" as {column.sql_type}) as "{column.name}"' for column in contract.columns
        )
        files = read_parquet(self.lake.scan_files(contract), "union_by_name = true")
        # The empty row set lends its columns to files that an earlier contract wrote without them.
        return f"select {columns} from (select {nothing} where false union all by name select * from {files})"

    def read(self, contract: Contract, columns: Sequence[str] | None = None) -> pa.Table:
        """Return a relation as an Arrow table in the contract's types, sorted by its key.

        Raises
        ------
        WarehouseError
            The relation was never made, or is not what its contract promises.
        """
        import duckdb
        import pyarrow as pa

        from finance_assets.contracts.arrow import fit, storage_schema
        from finance_assets.contracts.model import ContractError

        schema = storage_schema(contract)
        names = list(columns) if columns is not None else contract.column_names
        unknown = [name for name in names if name not in contract.column_names]
        if unknown:
            raise WarehouseError(f"{contract.path} has no column {', '.join(unknown)}")
        listed = ", ".join(f'"{name}"' for name in names)
        order = ", ".join(f'"{name}"' for name in contract.order)
        with self.connect(read_only=True) as connection:
            try:
                table = connection.execute(
                    f"select {listed} from {_relation(contract)} order by {order}"
                ).to_arrow_table()
            except duckdb.CatalogException as error:
                raise WarehouseError(
                    f"there is no {contract.layer}.{contract.name} in {self.path}; materialise {contract.path} first"
                ) from error
            except duckdb.BinderException as error:
                raise WarehouseError(
                    f"{contract.layer}.{contract.name} in {self.path} is not what its contract promises; materialise "
                    f"{contract.path} again ({error})"
                ) from error
        try:
            fitted = [fit(table.column(name), schema.field(name).type, f"{contract.path}.{name}") for name in names]
        except ContractError as error:
            raise WarehouseError(f"{self.path}: {error}; materialise {contract.path} again") from error
        return pa.Table.from_arrays(fitted, schema=pa.schema([schema.field(name) for name in names]))

    def replace(self, contract: Contract, table: pa.Table) -> int:
        """Replace a relation that is not dbt's with ``table``, in one transaction."""
        from finance_assets.contracts.arrow import conform

        rows = conform(contract, table)
        columns = ", ".join(f'"{column.name}" {column.sql_type}' for column in contract.columns)
        with self.connect() as connection:
            connection.register("incoming", rows)
            with _transaction(connection):
                connection.execute(f'create schema if not exists "{contract.layer}"')
                connection.execute(f"create or replace table {_relation(contract)} ({columns})")
                connection.execute(f"insert into {_relation(contract)} select * from incoming")
        return int(rows.num_rows)

    def dbt_environment(self) -> dict[str, str]:
        """Return what the dbt profile and its plugin read from the environment."""
        environment = {
            "FINANCE_ASSETS_DBT_WAREHOUSE_PATH": str(self.path),
            "FINANCE_ASSETS_DBT_SCRATCH": str(self.scratch_dir),
        }
        if self._s3 is not None:
            environment["FINANCE_ASSETS_DBT_S3_REGION"] = self._s3.region
            environment["FINANCE_ASSETS_DBT_S3_ENDPOINT"] = self._s3.endpoint_url or ""
        return environment
