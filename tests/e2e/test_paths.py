"""The command and dbt below folders whose names are data to DuckDB, YAML, Jinja or a shell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pytest
from fixtures.transactions import NOW, Delivery, transaction

from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.settlement import settle

pytestmark = pytest.mark.slow

FOLDER = 'currency=USD/session_date=1999-01-01/vendor=x/it\'s "q" [a]{b,c}* 100% %41 é漢 $HOME ~ ;-x\n{{ y }}'


@pytest.mark.parametrize("folder", [FOLDER, "back\\slash/currency=USD"], ids=["many", "backslash"])
def test_dbt_builds_the_rows_that_were_written(tmp_path: Path, folder: str) -> None:
    home = tmp_path / folder / "home"
    temporary, dagster_home = tmp_path / folder / "tmp", tmp_path / folder / "dagster"
    for path in (temporary, dagster_home):
        path.mkdir(parents=True)
    lake = build_lake(Settings(home=home))
    write_batch(lake, [Delivery(f"m{n}", transaction(str(n), currency="EUR")) for n in range(5)], NOW)
    settle(lake)
    environment = os.environ | {
        "FINANCE_ASSETS_HOME": str(home),
        "DAGSTER_HOME": str(dagster_home),
        "TMPDIR": str(temporary),
        "COLUMNS": "200",
    }
    command = [str(Path(sys.executable).parent / "finance-assets"), "materialize", "--select"]
    done = subprocess.run(
        [*command, 'key:"staging/stg_transactions"'],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    with duckdb.connect(str(Settings(home=home).warehouse_file), read_only=True) as connection:
        query = "select currency, count(*) from staging.stg_transactions group by all"
        assert connection.execute(query).fetchall() == [("EUR", 5)]
