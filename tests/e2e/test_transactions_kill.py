"""Workers are killed at random while messages flow: nothing is lost, nothing doubled, every amount ties.

`KILL_TEST_MESSAGES=100000` sends as many messages through the consumer, and as many kills go on while they flow; the
suite sends fewer, with as many kills.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import boto3
import pytest
from fixtures.killable import Workers, workers
from fixtures.processes import running

from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.storage.lake import Lake
from finance_assets.transactions import local_queue
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.producing import Produced, messages
from finance_assets.transactions.queue import Queue
from finance_assets.transactions.settlement import settle

pytestmark = [pytest.mark.cloud, pytest.mark.slow]

FULL = int(os.environ.get("KILL_TEST_MESSAGES", "0"))
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
#: What a killed worker held comes back after so long.
HIDDEN_SECONDS = 2
#: The endpoint gets slow when much waits in it.
MOST_WAITING = 1500


@pytest.fixture
def queue(aws: str) -> LocalQueue:
    name = f"killed-{random.randrange(10**9)}"
    # Each kill uses up a delivery of what was held, which is no fault of the message.
    return local_queue.create_queue(
        aws, queue=name, table=name, visibility_seconds=HIDDEN_SECONDS, max_receive_count=1000
    )


class Feeder(threading.Thread):
    """Sends messages, as fast as they are taken, and remembers each by its id."""

    def __init__(self, url: str, count: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._queue = Queue(url, "us-east-1")
        self._source = islice(messages(seed, NOW - timedelta(hours=3), bad_rate=0.25), count)
        self.sent: dict[str, Produced] = {}
        self.failure: Exception | None = None

    def run(self) -> None:
        try:
            while batch := list(islice(self._source, 100)):
                ids = self._queue.send(each.body for each in batch)
                self.sent.update(zip(ids, batch, strict=True))
                while self._queue.depth().total > MOST_WAITING:
                    time.sleep(0.05)
        except Exception as error:
            self.failure = error


def kill_at_random(
    crew: Workers, task: dict[str, Any], kills: int, longest: float, until: Callable[[], bool], log: Path
) -> int:
    """Start a worker and kill it, again and again; return how many were killed at work."""
    source = random.Random(7)
    killed = 0
    deadline = time.monotonic() + 90 + FULL / 50
    while killed < kills or not until():
        assert time.monotonic() < deadline, log.read_text()
        child = crew.start(task)
        time.sleep(source.uniform(0.2, longest))
        killed += crew.kill(child) == -signal.SIGKILL
    return killed


def assert_nothing_is_lost_or_doubled(sent: dict[str, Produced], lake: Lake) -> dict[str, int]:
    """Hold the core tables against what was sent: by id, by outcome, and by exact amount."""
    settle(lake)
    tables = {
        "accepted": lake.read(CORE_TRANSACTIONS).table.to_pylist(),
        "duplicate": lake.read(DUPLICATE_TRANSACTIONS).table.to_pylist(),
        "conflict": lake.read(TRANSACTION_CONFLICTS).table.to_pylist(),
        "rejected": lake.read(REJECTED_TRANSACTIONS).table.to_pylist(),
    }
    seen = [row["message_id"] for rows in tables.values() for row in rows]
    assert len(seen) == len(set(seen)), "a message is in two tables, or twice in one"
    assert set(seen) == set(sent), "a message is lost"
    assert {row["message_id"] for row in tables["rejected"]} == {
        message_id for message_id, each in sent.items() if each.expected == "rejected"
    }
    ids = [row["transaction_id"] for row in tables["accepted"]]
    good = {message_id: each for message_id, each in sent.items() if each.expected != "rejected"}
    assert len(ids) == len(set(ids)), "a transaction stands twice"
    assert set(ids) == {each.transaction_id for each in good.values()}
    # Control total: what was sent is what the tables hold, by currency, to the last decimal.
    offered: dict[str, Decimal] = defaultdict(Decimal)
    for each in good.values():
        offered[str(each.currency)] += each.amount or 0
    held: dict[str, Decimal] = defaultdict(Decimal)
    for name in ("accepted", "duplicate", "conflict"):
        for row in tables[name]:
            held[row["currency"]] += row["amount"]
            assert row["amount"] == good[row["message_id"]].amount
    assert held == offered
    return {name: len(rows) for name, rows in tables.items()}


def assert_the_table_agrees(sent: dict[str, Produced], queue: LocalQueue) -> None:
    contents: dict[str, set[Decimal | None]] = defaultdict(set)
    for each in sent.values():
        if each.expected != "rejected":
            contents[str(each.transaction_id)].add(each.amount)
    table = boto3.resource("dynamodb", region_name="us-east-1", endpoint_url=queue.endpoint).Table(queue.table)
    items: dict[str, Decimal] = {}
    start: dict[str, Any] = {}
    while True:
        answer = table.scan(**start)
        items.update({item["transaction_id"]: item["amount"] for item in answer["Items"]})
        if "LastEvaluatedKey" not in answer:
            break
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}
    assert set(items) == set(contents)
    assert all(items[key] in amounts for key, amounts in contents.items())


def report(what: str, killed: int, sent: int, counts: dict[str, int], seconds: float, lake: Lake) -> None:
    """Tell a person who asked with -s what happened."""
    rows = sum(lake.row_counts(RAW_TRANSACTIONS).values())
    told = (
        f"{what}: killed {killed} times in {seconds:.0f} s, {sent:,} messages, {rows - sent:,} stored again; {counts}"
    )
    sys.stdout.write(f"\n{told}\n")


def test_a_consumer_killed_at_random_loses_and_doubles_nothing(queue: LocalQueue, tmp_path: Path) -> None:
    begun = time.monotonic()
    lake, url = Lake(str(tmp_path / "lake")), queue.queue_url
    feeder = Feeder(url, FULL or 2500, seed=101)
    task = {
        "work": "consume", "queue": url, "lake": lake.uri, "table": queue.table,
        "endpoint": queue.endpoint, "now": NOW.isoformat(), "idle": 3600,
    }  # fmt: skip
    log = tmp_path / "workers.log"
    with workers(log) as crew:
        feeder.start()
        # The kills go on until everything was sent; afterwards one worker finishes the rest in peace.
        killed = kill_at_random(crew, task, 14, 8.0 if FULL else 1.2, lambda: not feeder.is_alive(), log)
        assert feeder.failure is None
        assert crew.wait(crew.start({**task, "idle": HIDDEN_SECONDS + 1.5})) == 0, (
            tmp_path / "workers.log"
        ).read_text()
    assert Queue(url, "us-east-1").depth().total == 0
    assert Queue(queue.dead_letters_url, "us-east-1").depth().total == 0
    counts = assert_nothing_is_lost_or_doubled(feeder.sent, lake)
    assert_the_table_agrees(feeder.sent, queue)
    report("consumer", killed, len(feeder.sent), counts, time.monotonic() - begun, lake)
    assert killed >= 14
    assert min(counts.values()) > 0


def test_a_drain_run_killed_at_random_loses_and_doubles_nothing(queue: LocalQueue, tmp_path: Path) -> None:
    begun = time.monotonic()
    lake, url = Lake(str(tmp_path / "lake")), queue.queue_url
    feeder = Feeder(url, FULL // 4 or 1200, seed=202)
    task = {"work": "drain", "queue": url, "lake": lake.uri, "now": NOW.isoformat()}
    log = tmp_path / "workers.log"
    with workers(log) as crew:
        feeder.start()
        killed = kill_at_random(crew, task, 8, 8.0 if FULL else 2.0, lambda: not feeder.is_alive(), log)
        assert feeder.failure is None
        deadline = time.monotonic() + 60 + FULL / 100
        while Queue(url, "us-east-1").depth().total:
            assert time.monotonic() < deadline
            assert crew.wait(crew.start(task)) == 0, log.read_text()
    counts = assert_nothing_is_lost_or_doubled(feeder.sent, lake)
    report("drain run", killed, len(feeder.sent), counts, time.monotonic() - begun, lake)
    assert killed >= 8


@pytest.mark.parametrize(
    ("work", "step"), [("consume", "store"), ("consume", "put"), ("consume", "delete"), ("drain", "store")]
)
def test_a_worker_killed_right_after_a_step(work: str, step: str, queue: LocalQueue, tmp_path: Path) -> None:
    """The very instants at which an order of steps shows: each but the last leaves something undone."""
    lake, url = Lake(str(tmp_path / "lake")), queue.queue_url
    made = list(islice(messages(5, NOW - timedelta(hours=3), bad_rate=0.25), 300))
    sent = dict(zip(Queue(url, "us-east-1").send(each.body for each in made), made, strict=True))
    task = {
        "work": work, "queue": url, "lake": lake.uri, "table": queue.table,
        "endpoint": queue.endpoint, "now": NOW.isoformat(), "idle": HIDDEN_SECONDS + 1.5,
    }  # fmt: skip
    log = tmp_path / "workers.log"
    with workers(log) as crew:
        for die_at in (0, 1):
            assert crew.wait(crew.start({**task, "die_after": step, "die_at": die_at})) == -signal.SIGKILL
        while Queue(url, "us-east-1").depth().total:
            assert crew.wait(crew.start(task)) == 0, log.read_text()
    counts = assert_nothing_is_lost_or_doubled(sent, lake)
    if work == "consume":
        assert_the_table_agrees(sent, queue)
    assert min(counts.values()) > 0


def test_sigterm_finishes_the_batch(queue: LocalQueue, tmp_path: Path) -> None:
    """The real command, with a log and metrics; what it had received is done when it ends."""
    lake, source = Lake(str(tmp_path / "home" / "lake")), Queue(queue.queue_url, "us-east-1")
    source.send(each.body for each in islice(messages(5, NOW, bad_rate=0.2), 600))
    environment = {
        **os.environ,
        **queue.environment,
        "FINANCE_ASSETS_HOME": str(tmp_path / "home"),
        "FINANCE_ASSETS_NOW": NOW.isoformat(),
    }
    command = [
        sys.executable,
        "-m",
        "finance_assets.cli",
        "transactions",
        "consume",
        "--wait-seconds",
        "1",
        "--no-dagster",
    ]
    with running(command, log=tmp_path / "consume.log", environment=environment) as program:
        program.wait_until(lambda: source.depth().total < 590, seconds=60, what="it consumes")
        program.process.send_signal(signal.SIGTERM)
        assert program.process.wait(timeout=40) == 0, program.output
    depth = source.depth()
    assert depth.in_flight == 0, "nothing is left half done"
    rows = sum(lake.row_counts(RAW_TRANSACTIONS).values())
    assert rows == 600 - depth.visible
    assert f"{rows:,} deleted" in program.output
    assert "messages/s, receipt to durable" in program.output


def test_without_a_queue_the_command_says_what_to_do(tmp_path: Path) -> None:
    environment = {**os.environ, "FINANCE_ASSETS_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-m", "finance_assets.cli", "transactions", "consume"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
