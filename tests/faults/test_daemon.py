"""A whole `dagster dev` that dies in the middle of a run: the next one goes on within seconds, without a hand."""

from __future__ import annotations

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import psutil
import pytest
from fixtures.dagster_dev import dagster_dev
from fixtures.faults import SCALE, Account, Home

from finance_assets.advisory.generating import vendor_files
from finance_assets.advisory.intake import SAMPLE_LAST_MONTH, SAMPLE_SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900 * SCALE)]

SETTINGS = {"FINANCE_ASSETS_MARKET_START": "2013-02-19"}
SECONDS = 240.0


def runs(home: Path) -> list[tuple[str, str]]:
    """Return job and state of each run, as the instance's database has them."""
    with suppress(sqlite3.OperationalError):
        database = f"file:{home}/dagster/history/runs.db?mode=ro"
        with closing(sqlite3.connect(database, uri=True)) as connection:
            return connection.execute("select pipeline_name, status from runs").fetchall()
    return []


def wait_for(home: Path, state: str) -> None:
    deadline = time.monotonic() + SECONDS
    while ("advisory_performance", state) not in runs(home):
        assert time.monotonic() < deadline, runs(home)
        time.sleep(0.1)


@pytest.mark.parametrize("trial", range(SCALE))
def test_a_daemon_that_dies_with_its_run(home: Home, account: Account, trial: int) -> None:
    folder = home.folder / "landing"
    folder.mkdir(parents=True)
    for number, file in enumerate(vendor_files(SAMPLE_SEED, 4, 4, SAMPLE_LAST_MONTH)):
        (folder / file.name).write_bytes(file.data)
        os.utime(folder / file.name, (1_360_000_000 + number,) * 2)
    with account.of("dagster dev killed in the middle of a run") as injected:
        with dagster_dev(home.folder, SETTINGS) as server:
            wait_for(home.folder, "STARTED")
            time.sleep(0.1 * trial)
            for process in server.program.members():
                with suppress(psutil.NoSuchProcess):
                    process.kill()
        injected.faults += 1
        with dagster_dev(home.folder, SETTINGS) as server:
            # From here on the web server answers: what is left is finding the dead run and running again.
            begun = time.monotonic()
            wait_for(home.folder, "SUCCESS")
            injected.seconds = time.monotonic() - begun
            assert [state for job, state in runs(home.folder) if job == "advisory_performance"].count("STARTED") == 0
            assert list((home.lake / "core" / "account_performance").glob("*.parquet"))
        injected.survived += 1
