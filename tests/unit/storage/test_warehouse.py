"""The warehouse in a DuckDB file: views over the lake, exact values, whole replacements, and a clear word on its lock."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.arrow import conform, storage_schema
from finance_assets.contracts.market import INSTRUMENTS, QUOTES, TRADING_SESSIONS
from finance_assets.contracts.model import Store
from finance_assets.contracts.sectors import MART_SECTOR_PERFORMANCE, STG_STOCK_PRICES
from finance_assets.storage import warehouse as warehouse_module
from finance_assets.storage.lake import Lake
from finance_assets.storage.warehouse import DuckDBWarehouse, WarehouseError, configure_connection

LAKE_TABLES = [contract for contract in CONTRACTS.values() if contract.store is Store.LAKE]


@pytest.fixture
def warehouse(tmp_path: Path) -> DuckDBWarehouse:
    return make(tmp_path)


def make(folder: Path, lake: str = "lake") -> DuckDBWarehouse:
    return DuckDBWarehouse(
        path=folder / "deep" / "warehouse.duckdb",
        lake=Lake(str(folder / lake)),
        contracts=tuple(CONTRACTS.values()),
        scratch_dir=folder / "scratch",
        sleep=lambda _: None,
    )


def quotes(*days: str) -> pa.Table:
    return table_of(QUOTES, *(good_row(QUOTES, session_date=date.fromisoformat(day)) for day in days))


def by_a_person(path: Path, query: str) -> list[tuple[Any, ...]]:
    """What somebody sees who opens the file with nothing but DuckDB."""
    with duckdb.connect(str(path), read_only=True) as connection:
        return connection.execute(query).fetchall()


def fill(lake: Lake) -> None:
    """Put one good row into every lake table."""
    for contract in LAKE_TABLES:
        row = good_row(contract)
        if contract.partition_column is None:
            lake.write(contract, table_of(contract, row))
        else:
            lake.write_partitions(contract, table_of(contract, row), [str(row[contract.partition_column])])


# -- views over the lake -------------------------------------------------------------------------------------


def test_every_lake_table_is_a_view_typed_and_empty_before_it_is_made(warehouse: DuckDBWarehouse) -> None:
    names = warehouse.refresh_lake_views()
    assert names == [f"{contract.layer}.{contract.name}" for contract in LAKE_TABLES]
    for contract in LAKE_TABLES:
        described = by_a_person(warehouse.path, f"describe {contract.layer}.{contract.name}")
        assert [(name, kind) for name, kind, *_ in described] == [
            (column.name, DUCKDB_TYPES[column.type]) for column in contract.columns
        ]
        assert by_a_person(warehouse.path, f"select count(*) from {contract.layer}.{contract.name}") == [(0,)]


DUCKDB_TYPES = {
    "string": "VARCHAR",
    "date": "DATE",
    "bool": "BOOLEAN",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "float64": "DOUBLE",
    "price": "DECIMAL(18,8)",
    "amount": "DECIMAL(28,8)",
    "rate": "DECIMAL(24,14)",
    "exact": "DECIMAL(38,14)",
    "money": "DECIMAL(38,18)",
    "timestamp": "TIMESTAMP WITH TIME ZONE",
}


def test_a_person_who_opens_the_file_can_query_every_lake_table(warehouse: DuckDBWarehouse) -> None:
    fill(warehouse.lake)
    warehouse.refresh_lake_views()
    for contract in LAKE_TABLES:
        described = by_a_person(warehouse.path, f"describe {contract.layer}.{contract.name}")
        assert [kind for _, kind, *_ in described] == [DUCKDB_TYPES[column.type] for column in contract.columns]
        rows = by_a_person(warehouse.path, f"select * from {contract.layer}.{contract.name}")
        assert len(rows) == 1
        assert dict(zip(contract.column_names, rows[0], strict=True)) == good_row(contract)


def test_a_view_shows_new_partitions_without_being_made_again(warehouse: DuckDBWarehouse) -> None:
    warehouse.lake.write_partitions(QUOTES, quotes("2013-01-02"), ["2013-01-02"])
    warehouse.refresh_lake_views()
    warehouse.lake.write_partitions(QUOTES, quotes("2013-01-03"), ["2013-01-03"])
    query = "select session_date from core.quotes order by 1"
    assert by_a_person(warehouse.path, query) == [(date(2013, 1, 2),), (date(2013, 1, 3),)]


def test_a_view_shows_files_of_an_earlier_contract(warehouse: DuckDBWarehouse) -> None:
    before = replace(QUOTES, columns=tuple(column for column in QUOTES.columns if column.name != "volume"), rules=())
    row = {name: value for name, value in good_row(QUOTES).items() if name != "volume"}
    warehouse.lake.write_partitions(before, table_of(before, row), ["2013-02-28"])
    warehouse.refresh_lake_views()
    assert by_a_person(warehouse.path, "select volume, close from core.quotes") == [(None, Decimal(10))]
    warehouse.lake.write_partitions(QUOTES, quotes("2013-03-01"), ["2013-03-01"])
    query = "select volume from core.quotes order by session_date"
    assert by_a_person(warehouse.path, query) == [(None,), (1,)]


@pytest.mark.parametrize("folder", ["it's [here]*?", "with space/é"])
def test_a_folder_may_have_any_name(tmp_path: Path, folder: str) -> None:
    warehouse = make(tmp_path, folder)
    warehouse.lake.write_partitions(QUOTES, quotes("2013-01-02"), ["2013-01-02"])
    warehouse.refresh_lake_views()
    assert by_a_person(warehouse.path, "select count(*) from core.quotes") == [(1,)]


def test_views_change_all_at_once_or_not_at_all(warehouse: DuckDBWarehouse) -> None:
    warehouse.refresh_lake_views()
    fill(warehouse.lake)
    with warehouse.connect() as connection:
        connection.execute("drop view published.sector_performance")
        connection.execute("create table published.sector_performance (x integer)")
    with pytest.raises(duckdb.CatalogException, match="sector_performance"):
        warehouse.refresh_lake_views()
    assert by_a_person(warehouse.path, "select count(*) from core.quotes") == [(0,)]


# -- reading and replacing -----------------------------------------------------------------------------------


def test_decimals_and_times_survive_the_round_trip(warehouse: DuckDBWarehouse) -> None:
    instants = [datetime(2013, 1, 2, 14, 30, 0, micro, tzinfo=UTC) for micro in (0, 1, 999_999)]
    rows = [
        good_row(TRADING_SESSIONS, session_date=date(2013, 1, day), open_ts_utc=instant)
        for day, instant in enumerate(instants, 2)
    ]
    contract = replace(TRADING_SESSIONS, name="kept")
    assert warehouse.replace(contract, table_of(contract, *rows)) == 3
    assert warehouse.read(contract).equals(table_of(contract, *rows))

    prices = ["0.00000001", "9999999999.99999999", "-1.10000000", "0"]
    contract = replace(INSTRUMENTS, name="priced")
    priced = table_of(contract, *(good_row(contract, symbol=text, eps=Decimal(text), pe_ratio=0.1) for text in prices))
    warehouse.replace(contract, priced)
    read = warehouse.read(contract)
    assert read.equals(conform(contract, priced))
    assert {row["symbol"]: row["eps"] for row in read.to_pylist()} == {text: Decimal(text) for text in prices}


def test_a_day_is_the_same_day_on_a_machine_in_any_zone(
    warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        with warehouse.connect() as connection:
            said = connection.execute("select cast(timestamptz '2013-01-02 23:59:59+00' as date)").fetchone()
            assert connection.execute("select current_setting('timezone')").fetchone() == ("UTC",)
        assert said == (date(2013, 1, 2),)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_rows_come_sorted_in_the_types_of_the_contract(warehouse: DuckDBWarehouse) -> None:
    contract = replace(STG_STOCK_PRICES, name="prices")
    table = table_of(contract, *(good_row(contract, symbol=symbol) for symbol in "CAB"))
    warehouse.replace(contract, table)
    assert warehouse.read(contract).column("symbol").to_pylist() == ["A", "B", "C"]
    some = warehouse.read(contract, ["close_price", "volume"])
    assert some.schema.equals(pa.schema([storage_schema(contract).field(name) for name in ("close_price", "volume")]))
    assert some.num_rows == 3


def test_a_relation_is_read_back_in_narrower_types_only_without_loss(warehouse: DuckDBWarehouse) -> None:
    contract = replace(STG_STOCK_PRICES, name="prices")
    warehouse.replace(contract, table_of(contract, good_row(contract)))
    with warehouse.connect() as connection:
        connection.execute("alter table staging.prices alter close_price type double")
        connection.execute("update staging.prices set close_price = 10.25")
    assert warehouse.read(contract).column("close_price").to_pylist() == [Decimal("10.25")]
    with warehouse.connect() as connection:
        connection.execute("update staging.prices set close_price = 1/3")
    with pytest.raises(WarehouseError, match=r"staging/prices\.close_price: 0\.333.*materialise staging/prices again"):
        warehouse.read(contract)


def test_what_was_never_made_is_named_with_what_to_do(warehouse: DuckDBWarehouse) -> None:
    with pytest.raises(WarehouseError, match=r"no mart\.mart_sector_performance in .*; materialise mart/mart_sector"):
        warehouse.read(MART_SECTOR_PERFORMANCE)
    contract = replace(STG_STOCK_PRICES, name="prices")
    warehouse.replace(contract, table_of(contract, good_row(contract)))
    with pytest.raises(WarehouseError, match="staging/prices has no column colour"):
        warehouse.read(contract, ["colour"])
    with warehouse.connect() as connection:
        connection.execute("alter table staging.prices drop close_price")
    with pytest.raises(WarehouseError, match=r"staging\.prices in .* is not what its contract promises"):
        warehouse.read(contract)


def test_a_replacement_is_whole_or_not_at_all(warehouse: DuckDBWarehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = replace(STG_STOCK_PRICES, name="prices")
    before = table_of(contract, good_row(contract, symbol="A"), good_row(contract, symbol="B"))
    warehouse.replace(contract, before)
    real = DuckDBWarehouse.connect

    class Failing:
        def __init__(self, connection: duckdb.DuckDBPyConnection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> Any:
            return getattr(self._connection, name)

        def execute(self, query: str) -> Any:
            if query.startswith("insert"):
                raise duckdb.OutOfMemoryException("no memory")
            return self._connection.execute(query)

    @contextmanager
    def connect(self: DuckDBWarehouse, *, read_only: bool = False) -> Iterator[Any]:
        with real(self, read_only=read_only) as connection:
            yield Failing(connection)

    with monkeypatch.context() as patch:
        patch.setattr(DuckDBWarehouse, "connect", connect)
        with pytest.raises(duckdb.OutOfMemoryException):
            warehouse.replace(contract, table_of(contract, good_row(contract, symbol="C")))
    assert warehouse.read(contract).equals(before)
    assert warehouse.replace(contract, table_of(contract)) == 0
    assert warehouse.read(contract).num_rows == 0


# -- the lock ------------------------------------------------------------------------------------------------

HOLDER = """
import sys
import duckdb
connection = duckdb.connect(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
"""


@contextmanager
def another_process_holds(path: Path) -> Iterator[subprocess.Popen[str]]:
    path.parent.mkdir(parents=True, exist_ok=True)
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        yield holder
    finally:
        if holder.poll() is None:
            holder.communicate("\n", timeout=30)


def test_a_file_that_another_process_holds_is_asked_for_a_few_times_and_then_named(
    warehouse: DuckDBWarehouse,
) -> None:
    pauses: list[float] = []
    warehouse.sleep = pauses.append
    with another_process_holds(warehouse.path):
        for use in (warehouse.refresh_lake_views, lambda: warehouse.read(STG_STOCK_PRICES)):
            pauses.clear()
            with pytest.raises(WarehouseError, match="is open elsewhere") as caught:
                use()
            assert str(warehouse.path) in str(caught.value)
            assert "read the published layer of the lake, which is never locked" in str(caught.value)
            assert len(pauses) == warehouse_module.LOCK_ATTEMPTS - 1
            assert sum(pauses) <= 10
    assert len(warehouse.refresh_lake_views()) == len(LAKE_TABLES)


def test_a_file_that_is_let_go_meanwhile_is_used(warehouse: DuckDBWarehouse) -> None:
    with another_process_holds(warehouse.path) as holder:

        def let_go(_: float) -> None:
            if holder.poll() is None:
                holder.communicate("\n", timeout=30)

        warehouse.sleep = let_go
        assert warehouse.refresh_lake_views()


def test_a_reader_waits_for_a_writer_of_the_same_process(warehouse: DuckDBWarehouse) -> None:
    contract = replace(STG_STOCK_PRICES, name="prices")
    warehouse.replace(contract, table_of(contract, good_row(contract)))
    inside, waited = threading.Event(), threading.Event()

    def hold() -> None:
        with warehouse.connect():
            inside.set()
            waited.wait(30)

    thread = threading.Thread(target=hold)
    thread.start()
    assert inside.wait(30)

    def pause(_: float) -> None:
        waited.set()
        thread.join(30)

    warehouse.sleep = pause
    assert warehouse.read(contract).num_rows == 1
    assert waited.is_set()


def test_a_file_that_is_no_database_is_not_taken_for_a_locked_one(warehouse: DuckDBWarehouse) -> None:
    warehouse.path.parent.mkdir(parents=True)
    warehouse.path.write_bytes(b"not a database" * 1000)
    warehouse.sleep = lambda _: pytest.fail("there is nothing to wait for")
    with pytest.raises(duckdb.Error, match="not a valid DuckDB"):
        warehouse.refresh_lake_views()


# -- connections ---------------------------------------------------------------------------------------------


def test_no_connection_downloads_an_extension() -> None:
    with duckdb.connect() as connection:
        configure_connection(connection, s3=None)
        assert connection.execute("select current_setting('autoinstall_known_extensions')").fetchone() == (False,)


def test_dbts_connections_are_like_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dbt.adapters.duckdb", reason="dbt-duckdb is not installed")
    from finance_assets.storage.dbt_plugin import Plugin

    monkeypatch.delenv("FINANCE_ASSETS_DBT_S3_REGION", raising=False)
    with duckdb.connect() as connection:
        Plugin.create("finance_assets.storage.dbt_plugin", config={}).configure_connection(connection)
        assert connection.execute("select current_setting('timezone')").fetchone() == ("UTC",)


def test_dbt_is_told_where_everything_is(warehouse: DuckDBWarehouse, tmp_path: Path) -> None:
    assert warehouse.dbt_environment() == {
        "FINANCE_ASSETS_DBT_WAREHOUSE_PATH": str(warehouse.path),
        "FINANCE_ASSETS_DBT_SCRATCH": str(tmp_path / "scratch"),
    }
