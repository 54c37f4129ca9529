"""A disk that is full, read-only or failing, too many open files, no memory: in every branch that writes.

Each fault strikes one call of the operating system in one piece of work. What was not written is written by the next
piece of work, and the tables are those of a deployment that no fault struck.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fixtures.faults import SCALE, Account, healing
from fixtures.quotes import fake_settings
from fixtures.transactions import NOW, Delivery, transaction

from finance_assets.advisory.intake import Intake, IntakeError
from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.results import History, write_performance
from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE, PERFORMANCE_HISTORY, VENDOR_ROWS
from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_ARRIVALS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.storage.lake import Lake, LakeError
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.settlement import settle

pytestmark = pytest.mark.timeout(120 * SCALE)

NUMBERS = {
    "disk full": errno.ENOSPC,
    "quota": errno.EDQUOT,
    "read-only": errno.EROFS,
    "disk error": errno.EIO,
    "too many open files": errno.EMFILE,
}
#: Calls of the operating system that a durable write makes, and at most how many of them a fault waits for.
CALLS = {"fsync": 8, "rename": 4, "replace": 4, "link": 4, "open": 12}
FAULTS = 40 * SCALE
#: How a row came, not what it says: a file that a fault kept waiting is known later.
PROVENANCE = ("ts_utc", "sha256", "version", "landing_key")


@contextmanager
def fault(monkeypatch: pytest.MonkeyPatch, call: str, number: int, at: int) -> Iterator[list[int]]:
    """Let the ``at``-th call of ``os.<call>`` and every later one fail while the block lasts; give the calls struck."""
    real, calls, struck = getattr(os, call), 0, []

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        # Devices and what Python itself opens are no part of the disk.
        if call == "open" and str(arguments[0]).startswith(("/dev", "/proc", "/sys")):
            return real(*arguments, **named)
        calls += 1
        if calls >= at:
            struck.append(calls)
            raise OSError(number, os.strerror(number), *([] if call == "fsync" else [str(arguments[0])]))
        return real(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, call, failing)
        yield struck


def contents(lake: Lake, *contracts: Contract) -> list[list[tuple[str, ...]]]:
    """Return the rows of tables, sorted, without how they came."""
    found = []
    for contract in contracts:
        names = [name for name in contract.column_names if not name.endswith(PROVENANCE)]
        table = lake.read(contract, columns=names).table
        found.append(sorted(tuple(map(repr, row.values())) for row in table.to_pylist()))
    return found


# -- files of vendors --------------------------------------------------------------------------------------------------

HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"
ADVISORY = (VENDOR_ROWS, PERFORMANCE_HISTORY, ACCOUNT_PERFORMANCE)


def land(folder: Path, files: int = 3) -> None:
    folder.mkdir(parents=True)
    for number in range(files):
        path = folder / f"f{number}.csv"
        path.write_text(
            f"{HEADER}\nN{number},2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01\n"
            f"N{number},2013-01-31,USD,1010.00,100.00,0.00,1121.20,0.0106603774\n"
        )
        os.utime(path, (1_360_000_000 + number,) * 2)


def advise(intake: Intake) -> bool:
    """Do the advisory branch once; return whether every file was dealt with."""
    taken = intake.take(intake.pending())
    for _ in History(intake.lake).add_all(intake.unknown_to_history()):
        pass
    write_performance(intake.lake, intake.contracts)
    return all(one.action.startswith("accept") for one in taken)


def test_files_of_vendors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    chance = random.Random(1)
    whole = build_intake(fake_settings(tmp_path / "whole"))
    land(Path(whole.landing.uri))
    assert advise(whole)
    expected = contents(whole.lake, *ADVISORY)
    assert [len(rows) for rows in expected] == [6, 6, 6]
    with account.of("disk and memory: files of vendors") as injected:
        for trial in range(FAULTS):
            intake = build_intake(fake_settings(tmp_path / f"trial{trial}"))
            land(Path(intake.landing.uri))
            intake.ledger.files()  # the database is there
            now = datetime.now(UTC)
            intake.clock = lambda now=now: now  # type: ignore[misc]
            name = chance.choice([*NUMBERS, "no memory"])
            if name == "no memory":
                struck = _without_memory(intake, monkeypatch, chance.randint(1, 8))
            else:
                call = chance.choice(list(CALLS))
                with fault(monkeypatch, call, NUMBERS[name], chance.randint(1, CALLS[call])) as met:
                    # What the system says, or ours in its place; anything else fails the test.
                    with suppress(OSError, LakeError, IntakeError):
                        advise(intake)
                    struck = bool(met)
            injected.faults += struck
            assert {record.attempts for record in intake.ledger.files()} <= {0, 1}, "no file is charged"
            assert intake.given_up() == []
            later = now + timedelta(hours=2)
            intake.clock = lambda later=later: later  # type: ignore[misc]
            with healing(injected):
                assert advise(intake), name
            assert contents(intake.lake, *ADVISORY) == expected, name
            assert intake.waiting() == []
            intake.ledger.close()
            injected.survived += struck
            injected.rows += sum(map(len, expected))
        assert injected.faults > FAULTS // 2, "most of the faults struck"
    whole.ledger.close()


def _without_memory(intake: Intake, monkeypatch: pytest.MonkeyPatch, at: int) -> bool:
    calls, write = 0, Lake.write

    def failing(self: Lake, *arguments: Any, **named: Any) -> int:
        nonlocal calls
        calls += 1
        if calls >= at:
            raise pa.lib.ArrowMemoryError("malloc failed") if at % 2 else MemoryError
        return write(self, *arguments, **named)

    with monkeypatch.context() as patched, suppress(MemoryError):
        patched.setattr(Lake, "write", failing)
        advise(intake)
    return calls >= at


# -- transactions ------------------------------------------------------------------------------------------------------

TRANSACTIONS = (
    RAW_TRANSACTIONS, TRANSACTION_ARRIVALS, CORE_TRANSACTIONS, DUPLICATE_TRANSACTIONS, TRANSACTION_CONFLICTS,
    REJECTED_TRANSACTIONS,
)  # fmt: skip


def deliveries(batch: int) -> list[Delivery]:
    """Messages of one micro-batch: good ones, one that a batch before it had, one that conflicts, and a bad one."""
    made = [Delivery(f"m{batch}-{number}", transaction(f"t{batch}-{number}")) for number in range(5)]
    made.append(Delivery(f"d{batch}", transaction("t0-0")))
    made.append(Delivery(f"c{batch}", transaction("t0-1", amount="1.00")))
    made.append(Delivery(f"b{batch}", transaction(f"x{batch}", amount='"no amount"')))
    return made


def receive(lake: Lake) -> None:
    """Receive three micro-batches, as a queue delivers them again and again, and settle."""
    for batch in range(3):
        write_batch(lake, deliveries(batch), NOW)  # type: ignore[arg-type]
        settle(lake)


def test_transactions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account) -> None:
    chance = random.Random(2)
    whole = Lake(str(tmp_path / "whole"))
    receive(whole)
    expected = contents(whole, *TRANSACTIONS)
    # Fifteen messages are good; each batch has one bad one, and after the first a duplicate and a conflict.
    assert len(expected[0]) == 24
    with account.of("disk: transactions") as injected:
        for trial in range(FAULTS):
            lake = Lake(str(tmp_path / f"trial{trial}"))
            call, name = chance.choice(list(CALLS)), chance.choice(list(NUMBERS))
            at = chance.randint(1, 2 * CALLS[call])
            with fault(monkeypatch, call, NUMBERS[name], at) as struck, suppress(OSError, LakeError):
                receive(lake)
            injected.faults += bool(struck)
            with healing(injected):
                receive(lake)
            assert contents(lake, *TRANSACTIONS) == expected, (call, name)
            injected.survived += bool(struck)
            injected.rows += sum(map(len, expected))
        assert injected.faults > FAULTS // 2


# -- a table that is replaced whole ------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_a_table_that_is_replaced_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, account: Account, call: str
) -> None:
    """What every other branch does: read a table, and put another in its place."""
    from fixtures.quotes import raw_row, raw_table

    from finance_assets.contracts.market import QUOTES_RAW

    old, new = (raw_table(raw_row(symbol=symbol)) for symbol in ("AAA", "BBB"))
    key = old.column("session_date")[0].as_py().isoformat()
    with account.of("disk: tables that are replaced") as injected:
        for name, number in NUMBERS.items():
            for at in range(1, 1 + CALLS[call] * SCALE):
                lake = Lake(str(tmp_path / f"{name}{at}"))
                lake.write_partitions(QUOTES_RAW, old, [key])
                with fault(monkeypatch, call, number, at) as struck, suppress(OSError, LakeError):
                    lake.write_partitions(QUOTES_RAW, new, [key])
                (symbol,) = lake.read(QUOTES_RAW).table.column("symbol").to_pylist()
                assert symbol in ("AAA", "BBB")
                injected.faults += bool(struck)
                with healing(injected):
                    lake.write_partitions(QUOTES_RAW, new, [key])
                assert lake.read(QUOTES_RAW).table.column("symbol").to_pylist() == ["BBB"]
                injected.survived += bool(struck)
                injected.rows += 1


def test_a_disk_that_really_has_no_room(tmp_path: Path, account: Account) -> None:
    """Not a call that is made to fail, but a limit of the system on what a process may write."""
    import subprocess
    import sys

    script = """
import resource, sys, signal
from pathlib import Path
from test_disk_and_memory import advise, land
from fixtures.quotes import fake_settings
from finance_assets.advisory.intake import IntakeError
from finance_assets.advisory.resources import build_intake
from finance_assets.storage.lake import LakeError
intake = build_intake(fake_settings(Path(sys.argv[1])))
land(Path(intake.landing.uri), files=2)
intake.ledger.files()
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))
try:
    advise(intake)
except (OSError, LakeError, IntakeError):
    pass
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
assert intake.given_up() == []
from datetime import UTC, datetime, timedelta
intake.clock = lambda: datetime.now(UTC) + timedelta(hours=2)
assert advise(intake)
print(intake.lake.read(__import__("finance_assets.contracts.advisory", fromlist=["x"]).ACCOUNT_PERFORMANCE).table.num_rows)
"""
    paths = os.pathsep.join(str(Path(__file__).resolve().parents[place]) for place in (0, 1))
    with account.of("disk: no room for a file") as injected:
        for size in (0, 100, 4_000):
            done = subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / f"size{size}"), str(size)],
                capture_output=True, text=True, timeout=120, check=False,
                env={**os.environ, "PYTHONPATH": paths},
            )  # fmt: skip
            assert done.returncode == 0, done.stderr
            assert done.stdout.split() == ["4"]
            injected.faults += 1
            injected.survived += 1
            injected.rows += 4
