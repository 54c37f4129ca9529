"""Runs that die: killed at ten kinds of moment, their terminal closed, or interrupted while they wait.

After each death the next command goes on at once, ends the dead run and frees its slot; when nothing dies any more,
the lake holds what it would hold had nothing ever died.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
import psutil
import pyarrow.parquet as pq
import pytest
from fixtures.faults import SCALE, Account, Home, healing
from fixtures.faulty import Fault, command, run

from finance_assets.advisory.generating import vendor_files
from finance_assets.advisory.intake import SAMPLE_LAST_MONTH, SAMPLE_SEED

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ADVISORY = ("materialize", "--select", 'group:"advisory"')
TRANSACTIONS = ("materialize", "--select", 'group:"transactions"')
LAKE = "finance_assets.storage.lake:Lake"
#: Where a run dies, and at most at which call.
MOMENTS = [
    ("before the run is recorded", "finance_assets.runs.execute:build_definitions", "before", 1),
    ("when the run was recorded", "dagster._core.instance:DagsterInstance.create_run", "after", 1),
    ("while it takes a slot", "finance_assets.storage.event_log:BatchedSqliteEventLogStorage.claim_concurrency_slot",
     "after", 1),
    ("while it reads a file", "finance_assets.advisory.reading.reader:read_vendor_file", "before", 6),
    ("while it keeps a file's bytes", f"{LAKE}.land", "after", 6),
    ("before a table's file is in place", f"{LAKE}._commit_file", "before", 25),
    ("when a table's file is in place", f"{LAKE}._commit_file", "after", 25),
    ("before the ledger knows", "finance_assets.storage.ledger:Ledger.record_all", "before", 1),
    ("in the history", f"{LAKE}.share", "after", 3),
    ("before the performance", "finance_assets.advisory.assets:write_performance", "before", 1),
    ("before the breaks are written", "finance_assets.advisory.assets:breaks_now", "after", 1),
    ("before an event is stored", "finance_assets.storage.event_log:BatchedSqliteEventLogStorage.store_event",
     "before", 20),
    ("when an event was stored", "finance_assets.storage.event_log:BatchedSqliteEventLogStorage.store_event",
     "after", 20),
]  # fmt: skip


def land(home: Home, accounts: int = 4, months: int = 4) -> int:
    """Put files of the fictitious vendors into the landing zone, all of the same age; return how many."""
    folder = home.folder / "landing"
    folder.mkdir(parents=True)
    files = list(vendor_files(SAMPLE_SEED, accounts, months, SAMPLE_LAST_MONTH))
    for number, file in enumerate(files):
        path = folder / file.name
        path.write_bytes(file.data)
        os.utime(path, (1_360_000_000 + number, 1_360_000_000 + number))
    return len(files)


def tables(lake: Path, *layers: str) -> dict[str, str]:
    """Return the SHA-256 of each file of the lake's tables, by its path."""
    return {
        str(file.relative_to(lake)): hashlib.sha256(file.read_bytes()).hexdigest()
        for layer in layers
        for file in sorted((lake / layer).rglob("*.parquet"))
    }


def runs_and_slots(home: Home) -> tuple[list[dg.DagsterRunStatus], int]:
    """Return the state of every run, newest first, and how many slots are taken or waited for."""
    before = os.environ.get("DAGSTER_HOME")
    os.environ["DAGSTER_HOME"] = str(home.folder / "dagster")
    try:
        with dg.DagsterInstance.get() as instance:
            statuses = [run.status for run in instance.get_runs()]
            storage = instance.event_log_storage
            infos = [storage.get_concurrency_info(key) for key in storage.get_concurrency_keys()]
    finally:
        os.environ.pop("DAGSTER_HOME")
        if before is not None:
            os.environ["DAGSTER_HOME"] = before
    return statuses, sum(len(info.claimed_slots) + len(info.pending_steps) for info in infos)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The lake of a deployment in which nothing dies."""
    home = Home(tmp_path_factory.mktemp("undisturbed") / "home")
    land(home)
    done = run(home.environment(), None, *ADVISORY)
    assert done.returncode == 0, done.stdout + done.stderr
    return tables(home.lake, "raw", "core")


@pytest.mark.parametrize("seed", range(SCALE))
def test_runs_that_are_killed_block_nobody_and_lose_nothing(
    home: Home, undisturbed: dict[str, str], seed: int, account: Account
) -> None:
    """One death after the other in one deployment, each command finding what the one before left behind."""
    chance = random.Random(seed)
    land(home)
    environment = home.environment()
    with account.of("runs killed, or their terminal closed") as injected:
        for what, at, when, most in chance.sample(MOMENTS, len(MOMENTS)):
            signal_name = chance.choice(["SIGKILL", "SIGKILL", "SIGHUP"])
            fault = Fault(at, signal_name, call=chance.randint(1, most), when=when)
            started = time.monotonic()
            done = run(environment, fault, *ADVISORY)
            assert time.monotonic() - started < 120, f"{what}: waited for the dead\n{done.stdout}{done.stderr}"
            injected.faults += done.returncode != 0
            if signal_name == "SIGHUP" and done.returncode != 0:
                assert done.returncode in (1, 130), f"{what}: not ended in order\n{done.stdout}{done.stderr}"
        assert injected.faults >= len(MOMENTS) // 2, "most of the faults struck"
        with healing(injected):
            done = run(environment, None, *ADVISORY)
        assert done.returncode == 0, done.stdout + done.stderr
        assert tables(home.lake, "raw", "core") == undisturbed
        statuses, slots = runs_and_slots(home)
        assert slots == 0
        ended = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
        assert set(statuses) <= ended
        injected.survived += injected.faults
        injected.rows += sum(pq.read_metadata(file).num_rows for file in home.lake.rglob("*.parquet"))


def test_who_waits_says_for_whom_can_be_interrupted_and_goes_on_after_a_death(home: Home, account: Account) -> None:
    with account.of("runs that wait, interrupted") as injected:
        _interrupt_who_waits(home)
        injected.faults, injected.survived = 4, 4


def _interrupt_who_waits(home: Home) -> None:
    """Interrupt three commands that wait for one that stands still, then kill that one."""
    land(home)
    environment = home.environment()
    reading = home.folder / "reading"
    holder = subprocess.Popen(
        command(Fault("finance_assets.advisory.intake:Intake.take", "sleep", mark=str(reading)), *ADVISORY),
        env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        _wait(reading.exists, 120)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            log = home.folder / f"waiting-{number}.log"
            with log.open("w") as output:
                waiting = subprocess.Popen(
                    command(None, *ADVISORY), env=environment, stdout=output, stderr=output, start_new_session=True
                )
            _wait(lambda log=log: "holds" in log.read_text(), 120)  # type: ignore[misc]
            text = log.read_text()
            assert "vendor_intake waits for the pool 'advisory'" in text
            assert f"process {holder.pid}" in text
            assert "since 20" in text
            process = psutil.Process(waiting.pid)
            spent = sum(process.cpu_times()[:2])
            time.sleep(2)
            assert sum(process.cpu_times()[:2]) - spent < 0.8, "it waits without a core of its own"
            waiting.send_signal(number)
            assert waiting.wait(30) == 130
            assert "interrupted" in log.read_text()
        holder.kill()
        holder.wait()
        done = run(environment, None, *ADVISORY)
        assert done.returncode == 0, done.stdout + done.stderr
        assert f"process {holder.pid}" in done.stdout
        assert "has ended" in done.stdout
    finally:
        holder.kill()
        holder.wait()
    assert runs_and_slots(home)[1] == 0


def test_dbt_ends_with_the_run_that_started_it(home: Home, account: Account) -> None:
    with account.of("runs killed while dbt works") as injected:
        _kill_who_runs_dbt(home)
        injected.faults, injected.survived = 1, 1


def _kill_who_runs_dbt(home: Home) -> None:
    """Kill a run while its dbt works: dbt ends too, and the next run has the warehouse."""
    environment = home.environment()
    marked = home.folder / "dbt"
    home.folder.mkdir(parents=True)
    fault = Fault("finance_assets.transform.dbt_assets:_invocation", "sleep", when="after", mark=str(marked))
    killed = subprocess.Popen(
        command(fault, *TRANSACTIONS), env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        _wait(marked.exists, 180)
        children = psutil.Process(killed.pid).children(recursive=True)
        assert any("dbt_process" in " ".join(child.cmdline()) for child in children)
    finally:
        killed.kill()
        killed.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, "dbt would go on writing, and hold the warehouse"
    done = run(environment, None, *TRANSACTIONS)
    assert done.returncode == 0, done.stdout + done.stderr


def _wait(ready: object, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not ready():  # type: ignore[operator]
        assert time.monotonic() < deadline, "nothing happened"
        time.sleep(0.1)
