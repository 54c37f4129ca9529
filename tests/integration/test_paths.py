"""Files of vendors and transactions below folders whose names say something to DuckDB, and what the command shows."""

from __future__ import annotations

import os
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import dagster as dg
import duckdb
import pytest
from fixtures.paths import NASTY_FOLDERS
from fixtures.quotes import fake_settings
from fixtures.transactions import NOW, Delivery, transaction
from typer.testing import CliRunner

from finance_assets.advisory import results
from finance_assets.cli import app as cli
from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE, VENDOR_FILES
from finance_assets.contracts.transactions import CORE_TRANSACTIONS
from finance_assets.registry import build_definitions
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.storage.ledger import Ledger
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.settlement import settle

RECEIVED = datetime(2013, 2, 4, 8, tzinfo=UTC).timestamp()
ROWS = """\
account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return
A1,2012-12-31,EUR,1000.00,0.00,0.00,1010.00,0.01
A1,2013-01-31,EUR,1010.00,100.00,0.00,1121.20,0.0106603774
A2,2012-12-31,EUR,500.00,0.00,0.00,495.00,-0.01
A2,2013-01-31,EUR,495.00,0.00,0.00,499.95,0.01
"""
#: One folder within another: what is one name's business is no other's.
TOGETHER = (
    "currency=USD/session_date=1999-01-01/vendor=x/period_end=2001-01-31/[x]/it's {a,b}*",
    'say "so"/100% %41/é漢字/$HOME/~/{{ x }}/new\nline',
    "back\\slash/currency=USD",
)


@pytest.mark.parametrize("name", TOGETHER)
def test_vendors_files_and_transactions_keep_their_values(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / name
    temporary = home / "temporary"
    temporary.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr(tempfile, "tempdir", None)
    settings = fake_settings(home)
    landing = Path(settings.landing) / "vendor=y" / "x=1"
    landing.mkdir(parents=True)
    (landing / "rows currency=JPY [1].csv").write_text(ROWS)
    os.utime(landing / "rows currency=JPY [1].csv", (RECEIVED, RECEIVED))
    definitions = build_definitions(settings)
    lake = build_lake(settings)
    write_batch(lake, [Delivery(f"m{n}", transaction(str(n), currency="EUR")) for n in range(5)], NOW)
    with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
        result = definitions.resolve_job_def("advisory_performance").execute_in_process(
            instance=instance, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        )
        assert result.success
    settle(lake)

    (file,) = lake.read(VENDOR_FILES).table.to_pylist()
    assert (file["landing_key"], file["row_count"]) == ("vendor=y/x=1/rows currency=JPY [1].csv", 4)
    performance = lake.read(ACCOUNT_PERFORMANCE).table.to_pylist()
    assert len(performance) == 4
    assert {row["currency"] for row in performance} == {"EUR"}
    settled = lake.read(CORE_TRANSACTIONS).table.to_pylist()
    assert len(settled) == 5
    assert {(row["currency"], row["amount"]) for row in settled} == {("EUR", Decimal("157.89"))}

    with results._database() as connection:
        connection.execute("set timezone = 'UTC'")
        lake.attach(connection, CORE_TRANSACTIONS, "attached")
        assert connection.execute("select distinct currency from attached").fetchall() == [("EUR",)]
    resources = definitions.resources or {}
    resources["warehouse"].refresh_lake_views()
    with duckdb.connect(str(settings.warehouse_file), read_only=True) as connection:
        for table in (CORE_TRANSACTIONS, ACCOUNT_PERFORMANCE):
            query = f"select distinct currency from {table.layer}.{table.name}"
            assert connection.execute(query).fetchall() == [("EUR",)], table.path


@pytest.mark.parametrize("name", [name for name in NASTY_FOLDERS if "#" not in name])
def test_status_is_shown_wherever_the_home_is(tmp_path: Path, name: str) -> None:
    environment = {"FINANCE_ASSETS_HOME": str(tmp_path / name), "COLUMNS": "200"}
    lake = build_lake(Settings(home=tmp_path / name))
    write_batch(lake, [Delivery("m1", transaction("1"))], NOW)
    result = CliRunner().invoke(cli.app, ["status"], prog_name="finance-assets", env=environment)
    assert result.exit_code in (0, 1), result.output
    assert "raw/transactions" in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_a_path_that_cannot_be_used_is_reported_in_one_line(tmp_path: Path) -> None:
    environment = {"FINANCE_ASSETS_HOME": str(tmp_path / "wh?t"), "COLUMNS": "200"}
    result = CliRunner().invoke(cli.app, ["status"], prog_name="finance-assets", env=environment)
    assert result.exit_code == 2
    assert "name another folder" in " ".join(result.output.split())
    assert not (tmp_path / "wh?t").exists()


def test_the_ledger_of_such_a_home_is_found_again(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path / TOGETHER[0])
    day = NOW.date()
    for _ in range(2):
        ledger = Ledger(settings.ledger, lambda: NOW)
        ledger.try_acquire("fake", day, None)
        ledger.close()
    ledger = Ledger(settings.ledger, lambda: NOW)
    assert ledger.used("fake", day) == 2
    ledger.close()
