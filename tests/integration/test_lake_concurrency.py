"""Runs that write partitions at once, die in the middle and are run again, with a reader in between.

Writers are forks of one process that has imported everything and started no thread: a writer starts in a millisecond,
so that many can be killed.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from fixtures.rows import good_row

from finance_assets.contracts.market import QUOTES
from finance_assets.storage.lake import TEMPORARY_FOLDER, Lake

pytestmark = pytest.mark.slow

DAYS = tuple(f"2013-01-{day:02}" for day in range(7, 13))
SYMBOLS = 400
KILLS = 25

#: Forks a writer for each line it reads (lake, log, partitions, first version, last version, step), and tells its pid and
#: then its status. A writer writes each version into all its partitions, and logs it when that is durable.
NURSERY = """
import os, sys
sys.path[:0] = {path!r}
import pyarrow, pyarrow.parquet, pyarrow.compute, pyarrow.fs, numpy
from test_lake_concurrency import Lake, QUOTES, quotes_of

for line in sys.stdin:
    folder, log, keys, version, last, step = line.split()
    pid = os.fork()
    if pid == 0:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        for version in range(int(version), int(last) + 1, int(step)):
            # A lake of its own for each version: each sweeps what the dead have left, and nothing of the living.
            Lake(folder).write_partitions(QUOTES, quotes_of(keys.split(","), version), keys.split(","))
            os.write(descriptor, b"%d\\n" % version)
        os._exit(0)
    print(pid, flush=True)
"""


def quotes_of(keys: list[str] | tuple[str, ...], version: int) -> pa.Table:
    """Quotes whose every row carries a version, as volume."""
    rows = []
    for key in keys:
        row = good_row(QUOTES, session_date=key, volume=version)
        rows += [row | {"symbol": f"S{number:03}"} for number in range(SYMBOLS)]
    columns = {name: [row[name] for row in rows] for name in QUOTES.column_names}
    columns["session_date"] = pa.array(columns["session_date"]).cast(pa.date32())
    return pa.table({name: pa.array(values, QUOTES.schema.field(name).type) for name, values in columns.items()})


class Nursery:
    """Makes writers, and knows how they ended."""

    def __init__(self) -> None:
        path = [str(Path(__file__).parent), *(entry for entry in sys.path if entry)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", NURSERY.format(path=path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def writer(self, lake: Path, log: Path, keys: tuple[str, ...], first: int, last: int, step: int = 1) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(lake, log, ",".join(keys), first, last, step, file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate(timeout=60)


def is_running(pid: int) -> bool:
    """Whether a fork still works; one that has ended is a zombie until its nursery closes."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(pid: int) -> None:
    deadline = time.monotonic() + 60
    while is_running(pid):
        assert time.monotonic() < deadline, "a writer hangs"
        time.sleep(0.005)


def logged(log: Path) -> list[int]:
    return [int(line) for line in log.read_text().split()] if log.exists() else []


def versions(lake: Lake, keys: tuple[str, ...] = DAYS) -> list[int]:
    """The version of each partition; every row of it must be there, and of that version."""
    table = lake.read(QUOTES, keys=keys).table
    assert table.num_rows == SYMBOLS * len(keys)
    volumes = table.column("volume").to_pylist()
    found = [set(volumes[start : start + SYMBOLS]) for start in range(0, len(volumes), SYMBOLS)]
    assert all(len(of_partition) == 1 for of_partition in found), "a file holds rows of two versions"
    return [of_partition.pop() for of_partition in found]


@pytest.fixture
def nursery() -> Iterator[Nursery]:
    made = Nursery()
    yield made
    made.close()


def test_writers_that_are_killed_leave_whole_partitions_and_the_next_run_heals(
    nursery: Nursery, tmp_path: Path
) -> None:
    folder, log = tmp_path / "lake", tmp_path / "log"
    lake = Lake(str(folder))
    lake.write_partitions(QUOTES, quotes_of(DAYS, 0), DAYS)
    dice = random.Random(20)
    durable = in_a_file = between_files = 0
    for _ in range(KILLS):
        pid = nursery.writer(folder, log, DAYS, durable + 1, 10**6)
        # At first until it writes at all, then to an instant that nobody chose.
        while not (said := logged(log)) or said[-1] <= durable:
            assert is_running(pid)
            time.sleep(0.001)
        time.sleep(dice.uniform(0.0, 0.05))
        os.kill(pid, signal.SIGKILL)
        wait_for(pid)
        durable = logged(log)[-1]
        found = versions(lake)
        assert set(found) <= {durable, durable + 1}, "what was logged is there, and of the next version whole files"
        assert lake.partitions(QUOTES) == list(DAYS), "no other file can be seen"
        between_files += len(set(found)) == 2
        in_a_file += bool(os.listdir(folder / TEMPORARY_FOLDER))
        # A version that got as far as its last file may be there without having been logged.
        durable = max(durable, min(found))
    assert between_files, "no kill came between two files; the test proved nothing"
    assert in_a_file, "no kill came in the middle of a file; the test proved nothing"

    wait_for(nursery.writer(folder, log, DAYS, durable + 1, durable + 1))
    assert versions(lake) == [durable + 1] * len(DAYS)
    assert os.listdir(folder / TEMPORARY_FOLDER) == []


def test_two_writers_and_a_reader_disturb_each_other_in_nothing(nursery: Nursery, tmp_path: Path) -> None:
    folder = tmp_path / "lake"
    lake = Lake(str(folder))
    # Two partitions are written by both, and two by one of them each.
    shared, of_odd, of_even = DAYS[:2], DAYS[2:4], DAYS[4:]
    lake.write_partitions(QUOTES, quotes_of(DAYS, 0), DAYS)
    last = 80
    writers = {
        nursery.writer(folder, tmp_path / "odd", (*shared, *of_odd), 1, last - 1, 2): tmp_path / "odd",
        nursery.writer(folder, tmp_path / "even", (*shared, *of_even), 2, last, 2): tmp_path / "even",
    }
    seen: set[int] = set()
    previous = [0] * len(DAYS)
    while any(map(is_running, writers)):
        found = versions(lake)
        seen.update(found[:2])
        own = slice(2, None)
        assert all(now >= before for now, before in zip(found[own], previous[own], strict=True)), "a version went back"
        previous = found
    assert len(seen) > 2, "the reader never met the writers; the test proved nothing"
    assert logged(tmp_path / "odd") == list(range(1, last, 2)), "no writer failed"
    assert logged(tmp_path / "even") == list(range(2, last + 1, 2))
    assert set(versions(lake, shared)) <= {last - 1, last}
    assert versions(lake, of_odd) == [last - 1] * 2
    assert versions(lake, of_even) == [last] * 2
    assert os.listdir(folder / TEMPORARY_FOLDER) == []
