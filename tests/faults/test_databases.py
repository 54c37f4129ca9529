"""Databases that are locked, damaged or gone, and a configuration that cannot be read: one line that says what to do."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fixtures.faults import Account, Home, healing
from fixtures.faulty import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STATUS = ("status",)
ADVISORY = ("materialize", "--select", 'group:"advisory"')
HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"


def land(home: Home) -> None:
    folder = home.folder / "landing"
    folder.mkdir(parents=True)
    path = folder / "january.csv"
    path.write_text(f"{HEADER}\nA1,2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01\n")
    os.utime(path, (1_360_000_000,) * 2)


def one_line(done: subprocess.CompletedProcess[str], *words: str) -> None:
    """Assert that a command failed with one line that holds some words, and without a traceback."""
    errors = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert done.returncode in (1, 2), done.stdout + done.stderr
    assert len(errors) == 1, done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    for word in words:
        assert word in errors[0]


def test_dagsters_own_files(home: Home, account: Account) -> None:
    land(home)
    environment = home.environment()
    done = run(environment, None, *ADVISORY)
    assert done.returncode == 0, done.stdout + done.stderr
    dagster = home.folder / "dagster"
    kept = home.folder / "kept"
    shutil.copytree(dagster, kept)
    faults = {
        "not YAML": ("dagster.yaml", b"telemetry: [", ("dagster.yaml", "remove it")),
        "an unknown entry": ("dagster.yaml", b"nonsense: 1\n", ("dagster.yaml", "remove it")),
        "a class that is not there": (
            "dagster.yaml", b"run_launcher:\n  module: no_such_module\n  class: Launcher\n", ("dagster.yaml", "remove it"),
        ),
        "damaged runs": ("history/runs.db", b"\0" * 4096, ("Dagster", "move")),
        "damaged events": ("history/runs/index.db", os.urandom(8192), ("Dagster", "move")),
        "damaged schedules": ("schedules/schedules.db", b"no database at all" * 300, ("Dagster", "move")),
    }  # fmt: skip
    with account.of("databases and configuration: Dagster's") as injected:
        for name, (file, data, words) in faults.items():
            for extra in ("-wal", "-shm"):
                (dagster / f"{file}{extra}").unlink(missing_ok=True)
            (dagster / file).write_bytes(data)
            injected.faults += 1
            for arguments in (STATUS, ADVISORY):
                begun = time.monotonic()
                done = run(environment, None, *arguments)
                assert time.monotonic() - begun < 60, f"{name}: it waits"
                assert "Traceback" not in done.stdout + done.stderr
                # A command does not open the schedules, and launches no run.
                if name not in ("damaged schedules", "a class that is not there"):
                    one_line(done, *words)
            shutil.rmtree(dagster)
            with healing(injected):
                # What the line advises: the records of runs are lost, and nothing else.
                if file.endswith(".yaml"):
                    shutil.copytree(kept, dagster)
                    (dagster / file).unlink()
                done = run(environment, None, *ADVISORY)
            assert done.returncode == 0, f"{name}\n{done.stdout}{done.stderr}"
            shutil.rmtree(dagster)
            shutil.copytree(kept, dagster)
            injected.survived += 1


def test_the_ledger(home: Home, account: Account) -> None:
    land(home)
    ledger = home.folder / "ledger.db"
    # Where the ledger lies by default is asked of the settings, so that a new place does not pass for a healthy one.
    code = "from finance_assets.settings import Settings; print(Settings.from_env().ledger)"
    environment = home.environment()
    url = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    ledger = Path(url.stdout.strip().removeprefix("sqlite:///"))
    with account.of("databases and configuration: the ledger") as injected:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        ledger.write_bytes(os.urandom(8192))
        injected.faults += 1
        failed = run(environment, None, *ADVISORY)
        assert failed.returncode == 1
        assert f"the ledger {ledger} is damaged" in failed.stdout
        assert "move it away" in failed.stdout
        for arguments in (STATUS, ("vendors", "quarantine")):
            one_line(run(environment, None, *arguments), f"the ledger {ledger} is damaged")
        ledger.unlink()
        with healing(injected):
            assert run(environment, None, *ADVISORY).returncode == 0
        injected.survived += 1


def test_a_held_warehouse_keeps_no_status_waiting(home: Home, account: Account) -> None:
    import duckdb

    home.folder.mkdir(parents=True)
    script = (
        "import duckdb, sys, time; c = duckdb.connect(sys.argv[1]); c.execute('create table if not exists t (x int)'); "
        "print('held', flush=True); time.sleep(600)"
    )
    warehouse = home.folder / "warehouse.duckdb"
    with account.of("databases and configuration: a held warehouse") as injected:
        holder = subprocess.Popen(
            [sys.executable, "-c", script, str(warehouse)], stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            injected.faults += 1
            begun = time.monotonic()
            done = run(home.environment(), None, *STATUS)
            assert time.monotonic() - begun < 30, "it waits for the warehouse"
            assert "in use" in done.stdout, done.stdout + done.stderr
        finally:
            holder.kill()
            holder.communicate()
        with healing(injected):
            assert "in use" not in run(home.environment(), None, *STATUS).stdout
        injected.survived += 1
    assert duckdb.__version__


def test_a_locked_run_database_is_named_and_waited_for_no_longer_than_it_takes(home: Home, account: Account) -> None:
    land(home)
    environment = home.environment()
    assert run(environment, None, *ADVISORY).returncode == 0
    with account.of("databases and configuration: a locked run database") as injected:
        with sqlite3.connect(home.folder / "dagster" / "history" / "runs.db", isolation_level=None) as connection:
            connection.execute("pragma locking_mode = exclusive")
            connection.execute("begin exclusive")
            injected.faults += 1
            begun = time.monotonic()
            one_line(run(environment, None, *ADVISORY), "locked")
            assert time.monotonic() - begun < 120
            connection.execute("rollback")
        connection.close()
        with healing(injected):
            done = run(environment, None, *ADVISORY)
        assert done.returncode == 0, done.stdout + done.stderr
        injected.survived += 1
