"""Two processes that write one lake: rows complete, as one writer alone would have left them, whoever dies or stops.

Each writer is a deployment of its own, with its own home, ledger and Dagster instance; the lake is all they share.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from fixtures.aws import S3Proxy, lake_at
from fixtures.quotes import JANUARY, raw_row, raw_table, sessions_table
from fixtures.transactions import NOW, delivery, transaction
from fixtures.writer_process import Writers

from finance_assets.advisory.generating import vendor_files
from finance_assets.contracts.advisory import CONTRACTS as ADVISORY
from finance_assets.contracts.advisory import PERFORMANCE_HISTORY, VENDOR_FILES
from finance_assets.contracts.market import QUOTES, TICKER_KPIS, TRADING_SESSIONS
from finance_assets.contracts.model import Store
from finance_assets.contracts.transactions import RAW_TRANSACTIONS, TRANSACTION_ARRIVALS
from finance_assets.storage.lake import LOCKS_FOLDER, Lake, WriterOptions
from finance_assets.storage.writers import WriterBusyError, single_writer
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.settlement import TABLES, settle, unsettled_batches

#: A few trials; many where somebody wants to know.
SEEDS = range(int(os.environ.get("FINANCE_ASSETS_TEST_SEEDS", "4")))
COUNTER = "raw/trading_sessions/counter"


# -- the right itself ------------------------------------------------------------------------------------------------


def test_no_count_of_two_writers_is_lost(writers: Writers, tmp_path: Path) -> None:
    both = [writers.start("counter", lake=str(tmp_path), times=60) for _ in range(2)]
    assert [writer.end() for writer in both] == [0, 0], [writer.errors for writer in both]
    assert (tmp_path / COUNTER).read_text() == "120"
    # Old claims are removed, the number stays, and nothing is left half made.
    (number,) = (tmp_path / LOCKS_FOLDER / "counter").iterdir()
    assert (int(number.name), list(number.iterdir())) == (120, [])
    assert list((tmp_path / "_tmp").iterdir()) == []


def test_who_waits_is_told_for_whom_and_since_when(writers: Writers, tmp_path: Path) -> None:
    first = writers.start("counter", lake=str(tmp_path), times=1, hold=["inside"], run="run-one")
    first.wait_at("inside")
    second = writers.start("counter", lake=str(tmp_path), times=1)
    deadline = time.monotonic() + 30
    while not second.told:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert f"being written by process {first.pid} on {os.uname().nodename}, run run-one, since 20" in second.told
    assert not (tmp_path / COUNTER).exists()
    first.let_go()
    assert [first.end(), second.end()] == [0, 0]
    assert (tmp_path / COUNTER).read_text() == "2"


def test_a_wait_has_an_end_and_nothing_was_written(writers: Writers, tmp_path: Path) -> None:
    first = writers.start("counter", lake=str(tmp_path), times=1, hold=["inside"])
    first.wait_at("inside")
    lake = Lake(str(tmp_path), writers=WriterOptions(30, 0.3))
    began = time.monotonic()
    with (
        pytest.raises(WriterBusyError, match=rf"written by process {first.pid} on .*waited 0 s.*run again"),
        single_writer(lake, "counter", [TRADING_SESSIONS], tell=lambda _: None),
    ):
        raise AssertionError("two writers at a time")
    assert 0.3 <= time.monotonic() - began < 5
    first.let_go()
    assert first.end() == 0


def test_a_killed_holder_blocks_nobody(writers: Writers, tmp_path: Path) -> None:
    first = writers.start("counter", lake=str(tmp_path), times=1, hold=["inside"], lease=600)
    first.wait_at("inside")
    second = writers.start("counter", lake=str(tmp_path), times=1, lease=600)
    while not second.told:
        time.sleep(0.01)
    first.send(signal.SIGKILL)
    began = time.monotonic()
    assert second.end() == 0
    assert time.monotonic() - began < 5
    assert first.end() == -signal.SIGKILL
    assert (tmp_path / COUNTER).read_text() == "1"


def test_a_stopped_holder_is_followed_after_its_lease_and_writes_nothing_any_more(
    writers: Writers, tmp_path: Path
) -> None:
    first = writers.start("counter", lake=str(tmp_path), times=1, hold=["inside"], lease=1)
    first.wait_at("inside")
    first.send(signal.SIGSTOP)
    second = writers.start("counter", lake=str(tmp_path), times=3, lease=1)
    assert second.end() == 0, second.errors
    assert "taking over writing counter" in second.told
    first.let_go()
    first.send(signal.SIGCONT)
    assert first.end() == 1
    assert "WriterLostError: another process has taken over writing counter" in first.errors
    assert (tmp_path / COUNTER).read_text() == "3"


def test_a_holder_that_works_for_longer_than_its_lease_keeps_it(writers: Writers, tmp_path: Path) -> None:
    first = writers.start("counter", lake=str(tmp_path), times=1, hold=["inside"], lease=2)
    first.wait_at("inside")
    second = writers.start("counter", lake=str(tmp_path), times=1, lease=2)
    time.sleep(4)
    first.let_go()
    assert [first.end(), second.end()] == [0, 0], (first.errors, second.errors)
    assert "taking over" not in second.told
    assert (tmp_path / COUNTER).read_text() == "2"


# -- vendors' files --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def landing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small landing folder, with a file that corrects another."""
    folder = tmp_path_factory.mktemp("landing")
    for file in vendor_files(7, 21, 3, JANUARY[-1].replace(year=2013)):
        if file.name.startswith(("northgate", "meridian")):
            path = folder / file.name
            path.write_bytes(file.data)
            os.utime(path, (file.received_at.timestamp(),) * 2)
    return folder


class Deployments:
    """Deployments over one lake."""

    def __init__(self, folder: Path, landing: Path, **settings: Any) -> None:
        self.lake, self._folder, self._landing = Lake(str(folder / "lake")), folder, landing
        self._settings, self._numbers = settings, itertools.count()

    def settings(self) -> dict[str, Any]:
        """The settings of one more."""
        home = self._folder / f"home-{next(self._numbers)}"
        common = {"lake_uri": self.lake.uri, "landing_uri": str(self._landing)}
        return {"home": str(home), **common, **self._settings}

    def files(self) -> dict[str, bytes]:
        """The branch's tables, file by file."""
        return {
            f"{contract.path}/{path.name}": path.read_bytes()
            for contract in ADVISORY
            if contract.store is Store.LAKE
            for path in Path(self.lake.folder(contract)).glob("*")
        }


@pytest.fixture(scope="module")
def alone(writers: Writers, landing: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What one writer leaves."""
    made = Deployments(tmp_path_factory.mktemp("alone"), landing)
    writer = writers.start("advisory", settings=made.settings())
    assert writer.end() == 0, writer.errors
    assert made.lake.read(PERFORMANCE_HISTORY).table.num_rows > 20
    return made.files()


@pytest.fixture
def deployments(tmp_path: Path, landing: Path) -> Deployments:
    return Deployments(tmp_path, landing)


def pauses(chance: random.Random) -> dict[str, list[float]]:
    """Where and how long a writer waits, by chance."""
    places = ("file", "history", "version", "commit")
    return {place: [chance.choice((0, 0, 0.02, 0.1)) for _ in range(12)] for place in places}


@pytest.mark.parametrize("seed", SEEDS)
def test_two_instances_leave_what_one_leaves(
    seed: int, writers: Writers, deployments: Deployments, alone: dict[str, bytes]
) -> None:
    chance = random.Random(seed)
    # In every fourth trial nothing but the exclusive making of files keeps them apart.
    unlocked = seed % 4 == 3
    both = [
        writers.start("advisory", settings=deployments.settings(), pauses=pauses(chance), unlocked=unlocked)
        for _ in range(2)
    ]
    assert [writer.end() for writer in both] == [0, 0], [writer.errors for writer in both]
    assert deployments.files() == alone


def test_a_second_instance_meets_the_first_in_the_middle_of_the_history(
    writers: Writers, deployments: Deployments, alone: dict[str, bytes]
) -> None:
    # Both have read what the history lacks before either of them adds to it, and nothing keeps them apart.
    first, second = (
        writers.start("advisory", settings=deployments.settings(), hold=["version"], unlocked=True) for _ in range(2)
    )
    for writer in (first, second):
        writer.wait_at("version")
    first.let_go()
    assert first.end() == 0, first.errors
    second.let_go()
    assert second.end() == 0, second.errors
    assert deployments.files() == alone


@pytest.mark.parametrize("seed", range(8))
def test_after_a_kill_the_other_goes_on_at_once(
    seed: int, writers: Writers, deployments: Deployments, alone: dict[str, bytes]
) -> None:
    place = ("commit", "file", "version", "write")[seed % 4]
    doomed = writers.start(
        "advisory", settings=deployments.settings(), hold=[place], skip=random.Random(seed).randint(0, 5)
    )
    doomed.wait_at(place)
    other = writers.start("advisory", settings=deployments.settings())
    doomed.send(signal.SIGKILL)
    died = time.monotonic()
    assert other.end() == 0, other.errors
    assert time.monotonic() - died < 25, "nobody waits for the lease of the dead, 30 s"
    assert doomed.end() == -signal.SIGKILL
    assert deployments.files() == alone


@pytest.mark.parametrize("place", ["file", "version", "commit"])
def test_a_stopped_instance_writes_nothing_once_it_is_followed(
    place: str, writers: Writers, tmp_path: Path, landing: Path, alone: dict[str, bytes]
) -> None:
    deployments = Deployments(tmp_path, landing, writer_lease_seconds=1)
    first = writers.start("advisory", settings=deployments.settings(), hold=[place])
    first.wait_at(place)
    first.send(signal.SIGSTOP)
    second = writers.start("advisory", settings=deployments.settings())
    assert second.end() == 0, second.errors
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").glob("*/*/*.parquet")}
    first.let_go()
    first.send(signal.SIGCONT)
    assert first.end() == 1
    assert "WriterLostError" in first.errors
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lake").glob("*/*/*.parquet")} == before
    assert deployments.files() == alone


def test_a_history_file_that_is_taken_away_is_made_again_byte_by_byte(
    writers: Writers, deployments: Deployments, alone: dict[str, bytes]
) -> None:
    assert writers.start("advisory", settings=deployments.settings()).end() == 0
    assert deployments.lake.read(VENDOR_FILES).table.num_rows > 3
    known = sorted(Path(deployments.lake.folder(PERFORMANCE_HISTORY)).glob("*"))
    # The first, of which later ones are corrections; the last; and all of them.
    for taken in (known[:1], known[-1:], known):
        for path in taken:
            path.unlink()
        assert writers.start("advisory", settings=deployments.settings()).end() == 0
        assert deployments.files() == alone


# -- transactions ----------------------------------------------------------------------------------------------------


def receive(lake: Lake, seed: int) -> None:
    """Write micro-batches in which ids repeat, with the same content and with another."""
    chance = random.Random(seed)
    for batch in range(12):
        bodies = [transaction(str(chance.randint(1, 20)), f"{chance.randint(1, 3)}.50") for _ in range(5)]
        write_batch(
            lake,
            [delivery(f"m{batch}-{place}", body, second=batch * 5 + place) for place, body in enumerate(bodies)],
            NOW,
        )


def settled(lake: Lake) -> dict[str, bytes]:
    tables = (TRANSACTION_ARRIVALS, *TABLES.values())
    return {path: lake.get(path) for contract in tables for path in lake.list(lake.folder(contract))}


@pytest.mark.parametrize("seed", SEEDS)
def test_two_settlers_settle_each_batch_once(seed: int, writers: Writers, tmp_path: Path) -> None:
    lake, chance = Lake(str(tmp_path / "lake")), random.Random(seed)
    receive(lake, seed)
    unlocked = seed % 4 == 3

    def start() -> Any:
        return writers.start(
            "settle",
            settings={"home": str(tmp_path), "lake_uri": lake.uri},
            messages=10,
            unlocked=unlocked,
            pauses={"write": [chance.choice((0, 0.01, 0.05)) for _ in range(20)]},
        )

    both = [start(), start()]
    ended = [writer.end() for writer in both]
    if unlocked:
        # One of them may find that a number is taken, and says so.
        assert all("AlreadyThereError" in writer.errors for writer, status in zip(both, ended, strict=True) if status)
    else:
        assert ended == [0, 0], [writer.errors for writer in both]
    settle(lake)
    assert unsettled_batches(lake) == []
    arrivals = lake.read(TRANSACTION_ARRIVALS).table
    batches = arrivals["batch_sha256"].to_pylist()
    assert sorted(batches) == lake.partitions(RAW_TRANSACTIONS), "each once"
    before = settled(lake)
    for contract in TABLES.values():
        for path in lake.list(lake.folder(contract)):
            os.unlink(path)
    settle(lake)
    assert settled(lake) == before


def test_a_settler_that_comes_late_does_not_take_a_number_that_is_taken(writers: Writers, tmp_path: Path) -> None:
    lake = Lake(str(tmp_path / "lake"))
    receive(lake, 1)
    task = {"settings": {"home": str(tmp_path), "lake_uri": lake.uri, "writer_lease_seconds": 1}}
    late = writers.start("settle", **task, hold=["commit"])
    late.wait_at("commit")
    late.send(signal.SIGSTOP)
    write_batch(lake, [delivery("one more", transaction("99"))], NOW)
    assert writers.start("settle", **task).end() == 0
    before = settled(lake)
    late.let_go()
    late.send(signal.SIGCONT)
    assert late.end() == 1
    assert "WriterLostError" in late.errors
    assert settled(lake) == before
    assert unsettled_batches(lake) == []


# -- KPIs ------------------------------------------------------------------------------------------------------------


def market(lake: Lake) -> None:
    from finance_assets.market.validation import validate_quotes

    rows = [
        raw_row(symbol=symbol, session_date=day, close=10 + number % 7, high=20, low=1, open=10)
        for symbol in ("AAA", "BBB")
        for number, day in enumerate(JANUARY)
    ]
    judged = validate_quotes(raw_table(*rows))
    assert not judged.rejected.num_rows
    lake.write(TRADING_SESSIONS, sessions_table(JANUARY))
    lake.write_partitions(QUOTES, judged.quotes, [day.isoformat() for day in JANUARY])


@pytest.mark.parametrize("seed", range(6))
def test_two_runs_of_kpis_leave_what_one_leaves(seed: int, writers: Writers, tmp_path: Path) -> None:
    chance = random.Random(seed)
    days = [day.isoformat() for day in JANUARY]
    alone, shared = Lake(str(tmp_path / "alone")), Lake(str(tmp_path / "shared"))
    for lake in (alone, shared):
        market(lake)

    def start(lake: Lake, first: str, last: str) -> Any:
        waits = [chance.choice((0, 0.01, 0.05)) for _ in range(30)]
        settings = {"home": str(tmp_path / "home"), "lake_uri": lake.uri}
        return writers.start("kpis", settings=settings, first=first, last=last, pauses={"commit": waits})

    assert start(alone, days[0], days[-1]).end() == 0
    cut = chance.randint(1, len(days) - 2)
    # The later range is filled with a gap before it, so whoever fills the gap restates it.
    both = [start(shared, days[cut], days[-1]), start(shared, days[0], days[cut - 1])]
    assert [writer.end() for writer in both] == [0, 0], [writer.errors for writer in both]
    table = [lake.read(TICKER_KPIS).table for lake in (alone, shared)]
    assert table[0].equals(table[1])


# -- on S3 -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def s3(aws: str, bucket: str) -> dict[str, Any]:
    return {"lake": lake_at(bucket, aws).uri, "endpoint": aws}


@pytest.mark.cloud
def test_no_count_of_two_writers_on_s3_is_lost(aws: str, bucket: str, s3: dict[str, Any], tmp_path: Path) -> None:
    starting = Writers(tmp_path)
    try:
        both = [starting.start("counter", times=8, **s3) for _ in range(2)]
        assert [writer.end() for writer in both] == [0, 0], [writer.errors for writer in both]
        lake = lake_at(bucket, aws)
        assert lake.get(f"{lake.root}/{COUNTER}") == b"16"
    finally:
        starting.close()


@pytest.mark.cloud
def test_dead_and_stopped_holders_on_s3_are_followed(aws: str, bucket: str, s3: dict[str, Any], tmp_path: Path) -> None:
    starting = Writers(tmp_path)
    lake = lake_at(bucket, aws)
    try:
        dead = starting.start("counter", times=1, hold=["inside"], lease=600, **s3)
        dead.wait_at("inside")
        dead.send(signal.SIGKILL)
        assert dead.end() == -signal.SIGKILL
        began = time.monotonic()
        assert starting.start("counter", times=1, **s3).end() == 0
        assert time.monotonic() - began < 20
        stopped = starting.start("counter", times=1, hold=["inside"], lease=2, **s3)
        stopped.wait_at("inside")
        stopped.send(signal.SIGSTOP)
        assert starting.start("counter", times=1, lease=2, **s3).end() == 0
        stopped.let_go()
        stopped.send(signal.SIGCONT)
        assert stopped.end() == 1
        assert "WriterLostError" in stopped.errors
        assert lake.get(f"{lake.root}/{COUNTER}") == b"2"
    finally:
        starting.close()


@pytest.mark.cloud
def test_a_holder_on_s3_asks_nothing_within_its_lease(aws: str, bucket: str) -> None:
    with S3Proxy(aws) as proxy:
        lake = lake_at(bucket, proxy.url)
        with single_writer(lake, "sessions", [TRADING_SESSIONS]):
            proxy.requests.clear()
            lake.write(TRADING_SESSIONS, sessions_table(JANUARY))
            assert proxy.operations() == ["PutObject"]
