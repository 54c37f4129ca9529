"""A path is a name: whatever characters it has, the lake and the warehouse read what was written, and nothing else."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import duckdb
import pytest
from fixtures.aws import REGION
from fixtures.paths import HIVE_FOLDERS, NASTY_FOLDERS, NASTY_LAKES
from fixtures.rows import good_row, table_of

from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE
from finance_assets.contracts.market import QUOTES, TRADING_SESSIONS
from finance_assets.contracts.transactions import CORE_TRANSACTIONS
from finance_assets.reference.sample_period import SAMPLE_NOW
from finance_assets.settings import Settings
from finance_assets.sql import exact_path, literal, pattern_of_files, read_parquet
from finance_assets.storage.lake import Lake, S3Options
from finance_assets.storage.ledger import Ledger
from finance_assets.storage.warehouse import DuckDBWarehouse, configure_connection

DAYS = ["2013-01-02", "2013-01-03"]
QUOTED: list[dict[str, Any]] = [
    good_row(QUOTES, session_date=date.fromisoformat(day), symbol="AAA", currency="EUR") for day in DAYS
]


def decoys(folder: Path) -> None:
    """Files of the same names in folders that a pattern in the folder's name would find."""
    for name in ("x", "a", "b", "every-thing", "everything", "what", "whit", "back/slash", "a/b"):
        other = Lake(str(folder.parent / name / "lake"))
        other.write_partitions(QUOTES, table_of(QUOTES, good_row(QUOTES, symbol="DECOY")), ["2013-02-28"])


@pytest.mark.parametrize("name", NASTY_LAKES)
def test_a_lake_reads_what_was_written_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    decoys(folder)
    lake = Lake(str(folder / "lake"))
    lake.write_partitions(QUOTES, table_of(QUOTES, *QUOTED), DAYS)
    lake.write(TRADING_SESSIONS, table_of(TRADING_SESSIONS, good_row(TRADING_SESSIONS)))
    assert lake.partitions(QUOTES) == DAYS
    assert lake.read(QUOTES).table.to_pylist() == QUOTED
    assert lake.scan(QUOTES).dataset.to_table().to_pylist() == QUOTED
    assert lake.row_counts(QUOTES) == dict.fromkeys(DAYS, 1)
    columns = ", ".join(QUOTES.column_names)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        lake.attach(connection, QUOTES, "attached")
        found = connection.execute(f"select {columns} from attached order by session_date").to_arrow_table()
    assert found.to_pylist() == QUOTED
    warehouse = DuckDBWarehouse(
        tmp_path / "warehouse.duckdb", lake, [QUOTES, TRADING_SESSIONS], tmp_path / "scratch", sleep=lambda _: None
    )
    warehouse.refresh_lake_views()
    assert warehouse.read(QUOTES).to_pylist() == QUOTED
    assert warehouse.read(TRADING_SESSIONS).num_rows == 1


@pytest.mark.parametrize("name", HIVE_FOLDERS)
@pytest.mark.parametrize("contract", [QUOTES, CORE_TRANSACTIONS, ACCOUNT_PERFORMANCE], ids=lambda c: c.path)
def test_no_folder_of_the_path_is_a_value(tmp_path: Path, name: str, contract: Any) -> None:
    row = good_row(contract)
    lake = Lake(str(tmp_path / name / "lake"))
    if contract.partition_column is None:
        lake.write(contract, table_of(contract, row), "key")
    else:
        lake.write_partitions(contract, table_of(contract, row), [str(row[contract.partition_column])])
    warehouse = DuckDBWarehouse(
        tmp_path / name / "w.duckdb", lake, [contract], tmp_path / "scratch", sleep=lambda _: None
    )
    warehouse.refresh_lake_views()
    assert warehouse.read(contract).to_pylist() == [row]
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        lake.attach(connection, contract, "attached")
        assert connection.execute("select * from attached").to_arrow_table().to_pylist() == [row]
        # Nor does a column come by which the table does not have.
        described = connection.execute(f"describe select * from {read_parquet(lake.scan_files(contract))}").fetchall()
    assert [column for column, *_ in described] == contract.column_names
    assert lake.scan(contract).dataset.to_table().to_pylist() == [row]


@pytest.mark.parametrize("name", NASTY_FOLDERS)
def test_warehouse_and_ledger_lie_in_a_folder_of_any_name(tmp_path: Path, name: str) -> None:
    home = tmp_path / name / "home"
    elsewhere = tmp_path / "warehouse.duckdb" if "#" in name else None
    settings = Settings(home=home, warehouse_path=elsewhere)
    ledger = Ledger(settings.ledger, lambda: SAMPLE_NOW)
    assert ledger.try_acquire("fake", SAMPLE_NOW.date(), 5)
    ledger.close()
    assert (home / "ledger.sqlite").exists()
    warehouse = DuckDBWarehouse(
        settings.warehouse_file, Lake(settings.lake), [QUOTES], home / "scratch", sleep=lambda _: None
    )
    warehouse.refresh_lake_views()
    assert settings.warehouse_file.exists()
    assert warehouse.read(QUOTES).num_rows == 0


def test_a_view_of_a_path_with_a_backslash_names_its_files(tmp_path: Path) -> None:
    """DuckDB has no pattern for such a folder, so new files appear when the views are made again, as dbt's runs do."""
    lake = Lake(str(tmp_path / "back\\slash"))
    warehouse = DuckDBWarehouse(tmp_path / "w.duckdb", lake, [QUOTES], tmp_path / "scratch", sleep=lambda _: None)
    for count, row in enumerate(QUOTED, start=1):
        lake.write_partitions(QUOTES, table_of(QUOTES, row), [row["session_date"].isoformat()])
        warehouse.refresh_lake_views()
        assert warehouse.read(QUOTES).num_rows == count


@pytest.mark.parametrize("prefix", ["currency=EUR", "it's", "sp ace", "a+b", "é", "~x", "$x", "a&b", "a@b:c;d,e!"])
def test_a_lake_on_s3_may_lie_below_any_prefix_that_settings_allow(aws: str, bucket: str, prefix: str) -> None:
    lake = Lake(f"s3://{bucket}/{prefix}/lake", S3Options(REGION, aws))
    lake.write_partitions(QUOTES, table_of(QUOTES, *QUOTED), DAYS)
    assert lake.read(QUOTES).table.to_pylist() == QUOTED
    assert lake.scan(QUOTES).dataset.to_table().to_pylist() == QUOTED
    with duckdb.connect() as connection:
        configure_connection(connection, s3=lake.s3)
        columns = ", ".join(QUOTES.column_names)
        files = read_parquet(lake.scan_files(QUOTES), "union_by_name = true")
        found = connection.execute(f"select {columns} from {files} order by session_date").to_arrow_table()
    assert found.to_pylist() == QUOTED


def test_texts_and_paths_stand_for_themselves() -> None:
    assert literal("it's") == "'it''s'"
    assert exact_path("/a[b]/*?/c") == "/a[[]b]/[*][?]/c"
    assert exact_path("/back\\slash/x") == "/back\\slash/x"
    assert pattern_of_files("/a*", ".parquet") == "/a[*]/*.parquet"
    assert pattern_of_files("/a\\b", ".parquet") is None
    assert read_parquet(["/a'b", "/c"]) == "read_parquet(['/a''b', '/c'], hive_partitioning = false)"
