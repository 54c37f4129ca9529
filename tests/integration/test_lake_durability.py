"""The lake under fire: writers that are killed, writers side by side, a reader in between."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from datetime import date, timedelta
from functools import lru_cache
from pathlib import Path

import pyarrow as pa
import pytest

from finance_assets.contracts.arrow import conform
from finance_assets.contracts.market import TRADING_SESSIONS
from finance_assets.storage.lake import TEMPORARY_FOLDER, Lake, parquet_bytes

pytestmark = pytest.mark.slow

FIRST = date(2020, 1, 1)
ROWS = 20_000
KILLS = 10
#: More kills until one comes in the middle of a write, which takes a while on a busy machine.
MORE_KILLS = 50

#: Writes version after version of one table, each with its number in every row, and says which one is durable.
WRITER = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import importlib.util
spec = importlib.util.spec_from_file_location("durability", {module!r})
durability = importlib.util.module_from_spec(spec)
spec.loader.exec_module(durability)
lake = durability.Lake(sys.argv[1])
version, last = int(sys.argv[2]), int(sys.argv[3])
step = int(sys.argv[4])
while version <= last:
    for _ in range(int(sys.argv[6])):
        lake.put(lake.file(durability.TRADING_SESSIONS, sys.argv[5]), durability.version_bytes(version))
    print(version, flush=True)
    version += step
"""


#: Brings a file into a lake and is killed, before it is kept or after that.
BRINGER = """
import os, signal, sys
from pathlib import Path
from finance_assets.storage.lake import Lake
with Lake(sys.argv[1]).stage_file(Path(sys.argv[2])) as copy:
    if sys.argv[3] == "after":
        copy.keep(sys.argv[4], "vendor_files")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def version_table(version: int, rows: int = ROWS) -> pa.Table:
    """Rows of raw/trading_sessions that all carry one version: a file that mixes two is torn."""
    days = [FIRST + timedelta(days=n) for n in range(rows)]
    opens = pa.array([n * 86_400_000_000 for n in range(rows)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    closes = pa.array([n * 86_400_000_000 + 1 for n in range(rows)], pa.int64()).cast(pa.timestamp("us", "UTC"))
    return pa.table(
        {
            "session_date": pa.array(days, pa.date32()),
            "session_ordinal": pa.array([version] * rows, pa.int32()),
            "open_ts_utc": opens,
            "close_ts_utc": closes,
            "is_early_close": pa.array([False] * rows),
        }
    )


@lru_cache(maxsize=1)
def version_bytes(version: int) -> bytes:
    """The file of one version."""
    return parquet_bytes(conform(TRADING_SESSIONS, version_table(version)))


def start_writer(
    lake: Path, first: int, last: int, *, step: int = 1, key: str = "data", repeat: int = 1
) -> subprocess.Popen[str]:
    code = WRITER.format(tests=str(Path(__file__).parents[1]), module=__file__)
    return subprocess.Popen(
        [sys.executable, "-c", code, str(lake), str(first), str(last), str(step), key, str(repeat)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


def read_version(lake: Lake) -> int:
    """The version that the table holds; every row must be there, and of that version."""
    table = lake.read(TRADING_SESSIONS).table
    assert table.num_rows == ROWS
    versions = table.column("session_ordinal").unique().to_pylist()
    assert len(versions) == 1, f"a file holds rows of {versions}"
    return int(versions[0])


def test_a_killed_writer_leaves_a_whole_file_and_the_next_one_sweeps(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.write(TRADING_SESSIONS, version_table(0))
    dice = random.Random(7)
    durable = 0
    in_the_middle = 0
    for kill in range(KILLS + MORE_KILLS):
        if kill >= KILLS and in_the_middle:
            break
        writer = start_writer(tmp_path / "lake", durable + 1, durable + 10_000, repeat=400)
        assert writer.stdout is not None
        durable = int(writer.stdout.readline())
        time.sleep(dice.uniform(0.0, 0.6))
        writer.send_signal(signal.SIGKILL)
        said = [int(line) for line in writer.stdout.read().split()]
        writer.wait()
        writer.stdout.close()
        durable = max([durable, *said])
        found = read_version(lake)
        # What was reported as written is there; the one under way may be, whole, too.
        assert found in (durable, durable + 1)
        durable = found
        in_the_middle += bool(os.listdir(tmp_path / "lake" / TEMPORARY_FOLDER))
        assert [path.name for path in (tmp_path / "lake" / TRADING_SESSIONS.path).iterdir()] == ["data.parquet"]
    assert in_the_middle, "no kill came in the middle of a write; the test proved nothing"
    # The next writer of another process removes what the dead ones left.
    healer = start_writer(tmp_path / "lake", durable + 1, durable + 1)
    assert healer.communicate(timeout=60)[0].split() == [str(durable + 1)]
    assert os.listdir(tmp_path / "lake" / TEMPORARY_FOLDER) == []
    assert read_version(lake) == durable + 1


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_file_that_arrives_is_kept_whole_or_swept(tmp_path: Path, when: str) -> None:
    data = random.Random(1).randbytes(3_000_000)
    digest = hashlib.sha256(data).hexdigest()
    (tmp_path / "theirs.csv").write_bytes(data)
    killed = subprocess.run(
        [sys.executable, "-c", BRINGER, tmp_path / "lake", tmp_path / "theirs.csv", when, digest],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    )
    assert killed.returncode == -signal.SIGKILL
    lake = Lake(str(tmp_path / "lake"))
    left = list((tmp_path / "lake" / TEMPORARY_FOLDER).iterdir())
    if when == "before":
        assert [path.read_bytes() for path in left] == [data]
        assert not lake.exists(lake.landed_path(digest, "vendor_files"))
    else:
        assert left == []
        assert lake.get(lake.landed_path(digest, "vendor_files")) == data
    with lake.stage_file(tmp_path / "theirs.csv") as copy:
        copy.keep(digest, "vendor_files")
    found = [path for path in (tmp_path / "lake").rglob("*") if path.is_file()]
    assert found == [Path(lake.landed_path(digest, "vendor_files"))]
    assert found[0].read_bytes() == data


def test_two_writers_and_a_reader_at_once(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    lake.write(TRADING_SESSIONS, version_table(0))
    # Odd and even versions of one file, and each writer a file of its own.
    writers = [
        start_writer(tmp_path / "lake", 1, 59, step=2),
        start_writer(tmp_path / "lake", 2, 60, step=2),
        start_writer(tmp_path / "lake", 1, 30, key="other"),
    ]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        table = lake.read(TRADING_SESSIONS, keys=["data"]).table
        assert table.num_rows == ROWS
        versions = table.column("session_ordinal").unique().to_pylist()
        assert len(versions) == 1
        seen.add(versions[0])
    for writer in writers:
        output = writer.communicate()[0]
        assert writer.returncode == 0
        assert len(output.split()) == 30
    assert lake.partitions(TRADING_SESSIONS) == ["data", "other"]
    assert lake.read(TRADING_SESSIONS, keys=["data"]).table.column("session_ordinal")[0].as_py() in (59, 60)
    assert lake.read(TRADING_SESSIONS, keys=["other"]).table.column("session_ordinal")[0].as_py() == 30
    assert len(seen) > 1, "the reader never met a writer; the test proved nothing"
