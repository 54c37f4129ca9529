"""The consumer against a real queue and table on loopback, while services and the disk fail; and the table alone."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from fixtures.aws import Request, S3Proxy, Verdict, client
from fixtures.transactions import running_consumer

from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.storage.lake import Lake
from finance_assets.transactions import consuming
from finance_assets.transactions.consuming import ConsumeError, Consumer, Options, lake_store
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.producing import Produced, messages
from finance_assets.transactions.queue import Queue
from finance_assets.transactions.table import Item, TableError, TransactionTable

pytestmark = [pytest.mark.cloud]

OPTIONS = Options(receivers=2, wait_seconds=1, batch_seconds=0.01, line_seconds=60, end_seconds=20)
NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(consuming, "LONGEST_PAUSE_SECONDS", 0.2)


def sent(queue: Queue, count: int, *, bad_rate: float = 0.2, seed: int = 11) -> dict[str, Produced]:
    batch = list(islice(messages(seed, NOW - timedelta(hours=1), bad_rate=bad_rate), count))
    return dict(zip(queue.send(each.body for each in batch), batch, strict=True))


@contextmanager
def consumer_of(
    sqs: LocalQueue, lake: Lake, *, queue_endpoint: str | None = None, table_endpoint: str | None = None
) -> Iterator[tuple[Consumer, list[Exception]]]:
    url = sqs.queue_url if queue_endpoint is None else sqs.queue_url.replace(sqs.endpoint, queue_endpoint)
    consumer = Consumer(
        Queue(url, "us-east-1"),
        lake_store(lake),
        TransactionTable(sqs.table, "us-east-1", table_endpoint or sqs.endpoint, _pause=lambda seconds: None),
        OPTIONS,
        lambda: NOW,
    )
    with running_consumer(consumer, seconds=60) as errors:
        yield consumer, errors


def until(ready: Any, what: str, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.02)


def items_of(sqs: LocalQueue) -> dict[str, dict[str, Any]]:
    import boto3

    table = boto3.resource("dynamodb", region_name="us-east-1", endpoint_url=sqs.endpoint).Table(sqs.table)
    found: list[dict[str, Any]] = []
    start: dict[str, Any] = {}
    while True:
        answer = table.scan(**start)
        found += answer["Items"]
        if "LastEvaluatedKey" not in answer:
            return {item["transaction_id"]: item for item in found}
        start = {"ExclusiveStartKey": answer["LastEvaluatedKey"]}


def assert_all_there(made: dict[str, Produced], sqs: LocalQueue, lake: Lake) -> None:
    """Every message is in raw with the outcome it should have, and every id once in the table, exact."""
    rows = lake.read(RAW_TRANSACTIONS).table.to_pylist()
    assert {row["message_id"] for row in rows} == set(made)
    for row in rows:
        each = made[row["message_id"]]
        assert (row["outcome"] == "rejected") == (each.expected == "rejected")
        assert row["amount"] == each.amount
    contents: dict[str, set[Decimal]] = {}
    for each in made.values():
        if each.expected != "rejected":
            assert each.transaction_id is not None
            assert each.amount is not None
            contents.setdefault(each.transaction_id, set()).add(each.amount)
    items = items_of(sqs)
    assert set(items) == set(contents)
    for key, item in items.items():
        assert item["amount"] in contents[key]


def test_messages_reach_lake_and_table_and_leave_the_queue(sqs: LocalQueue, tmp_path: Path) -> None:
    queue, lake = Queue(sqs.queue_url, "us-east-1"), Lake(str(tmp_path / "lake"))
    made = sent(queue, 400)
    with consumer_of(sqs, lake) as (consumer, errors):
        until(lambda: queue.depth().total == 0, "the queue is empty")
    assert not errors
    assert_all_there(made, sqs, lake)
    assert consumer.monitor.total("deleted_total") == 400
    placed = {
        outcome: consumer.monitor.total("placed_total", f'outcome="{outcome}"')
        for outcome in ("accepted", "duplicate", "conflict")
    }
    assert placed["accepted"] == len(items_of(sqs))
    assert sum(placed.values()) == sum(each.expected != "rejected" for each in made.values())
    assert placed["duplicate"] > 0
    assert placed["conflict"] > 0


@pytest.mark.parametrize("verdict", ["refuse", "drop"])
def test_a_table_that_throttles_or_hangs_up_is_waited_for(sqs: LocalQueue, tmp_path: Path, verdict: Verdict) -> None:
    queue, lake = Queue(sqs.queue_url, "us-east-1"), Lake(str(tmp_path / "lake"))
    broken = iter(range(12))

    def hook(request: Request) -> Verdict:
        return verdict if request.operation == "TransactWriteItems" and next(broken, None) is not None else "pass"

    made = sent(queue, 150)
    with S3Proxy(sqs.endpoint, hook) as proxy, consumer_of(sqs, lake, table_endpoint=proxy.url) as (consumer, errors):
        until(lambda: queue.depth().total == 0, "the queue is empty")
    assert not errors
    assert consumer.monitor.total("waits_total", 'step="put"') >= 1
    assert_all_there(made, sqs, lake)


def test_a_queue_that_is_down_is_waited_for(sqs: LocalQueue, tmp_path: Path) -> None:
    queue, lake = Queue(sqs.queue_url, "us-east-1"), Lake(str(tmp_path / "lake"))
    is_down = threading.Event()

    def hook(request: Request) -> Verdict:
        return "drop" if is_down.is_set() else "pass"

    made = sent(queue, 60)
    with S3Proxy(sqs.endpoint, hook) as proxy, consumer_of(sqs, lake, queue_endpoint=proxy.url) as (consumer, errors):
        until(lambda: consumer.monitor.total("deleted_total") > 0, "it works at first")
        is_down.set()
        made |= sent(queue, 60, seed=12)
        until(lambda: consumer.monitor.total("waits_total", 'step="receive"') > 0, "it notices")
        is_down.clear()
        until(lambda: queue.depth().total == 0, "it goes on")
    assert not errors
    assert_all_there(made, sqs, lake)


def test_a_full_disk_is_waited_for(sqs: LocalQueue, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue, lake = Queue(sqs.queue_url, "us-east-1"), Lake(str(tmp_path / "lake"))
    real, is_full = os.fsync, threading.Event()

    def fsync(descriptor: int) -> None:
        if is_full.is_set():
            raise OSError(errno.ENOSPC, "No space left on device")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    is_full.set()
    made = sent(queue, 100)
    with consumer_of(sqs, lake) as (consumer, errors):
        until(lambda: consumer.monitor.total("waits_total", 'step="write"') >= 3, "it waits")
        assert consumer.monitor.total("deleted_total") == 0
        assert queue.depth().total == 100, "nothing is deleted that is not durable"
        is_full.clear()
        until(lambda: queue.depth().total == 0, "it goes on")
    assert not errors
    assert_all_there(made, sqs, lake)
    assert not list((tmp_path / "lake" / "_tmp").glob("*")), "nothing half-written is left"


def test_a_table_that_is_not_there_ends_it_with_what_to_do(sqs: LocalQueue, tmp_path: Path) -> None:
    queue, lake = Queue(sqs.queue_url, "us-east-1"), Lake(str(tmp_path / "lake"))
    sent(queue, 30)
    with consumer_of(replace(sqs, table="nowhere"), lake) as (_, errors):
        until(lambda: bool(errors), "it ends")
    [error] = errors
    assert isinstance(error, ConsumeError)
    assert "nowhere" in str(error)
    assert "FINANCE_ASSETS_TRANSACTIONS_TABLE" in str(error)
    assert queue.depth().visible == 30, "everything was handed back"


# -- the table -----------------------------------------------------------------------------------------------


def item(key: str, *, meaning: str = "f", message: str | None = None, amount: str = "1") -> Item:
    return Item(key, "u", amount, "USD", NOW, "m", "standard", None, meaning, NOW, message or f"message of {key}")


@pytest.fixture
def table(sqs: LocalQueue) -> TransactionTable:
    return TransactionTable(sqs.table, "us-east-1", sqs.endpoint, _pause=lambda seconds: None)


def test_the_first_of_an_id_stands(table: TransactionTable, sqs: LocalQueue) -> None:
    assert table.put([item("a", amount="250.10")]) == ["accepted"]
    again: Sequence[Item] = [
        item("b"),
        item("a", amount="250.10"),  # the same message, delivered again
        item("a", message="another"),
        item("a", message="third", meaning="other", amount="9"),
        item("c"),
    ]
    assert table.put(again) == ["accepted", "accepted", "duplicate", "conflict", "accepted"]
    assert {key: found["amount"] for key, found in items_of(sqs).items()} == {"a": Decimal("250.10"), "b": 1, "c": 1}


def test_within_one_call_the_first_stands_too(table: TransactionTable, sqs: LocalQueue) -> None:
    wanted = [item("a", message="1"), item("a", message="2"), item("a", message="3", meaning="other"), item("b")]
    assert table.put(wanted) == ["accepted", "duplicate", "conflict", "accepted"]
    assert items_of(sqs)["a"]["message_id"] == "1"


def test_more_than_fit_in_one_request(table: TransactionTable, sqs: LocalQueue) -> None:
    many = [item(f"t{n}") for n in range(257)]
    assert table.put(many) == ["accepted"] * 257
    assert table.put([replace(each, message_id="later") for each in many]) == ["duplicate"] * 257
    assert len(items_of(sqs)) == 257


def test_an_amount_of_every_digit_is_exact(table: TransactionTable, sqs: LocalQueue) -> None:
    exact = "999999999999999.123456789012345678"
    table.put([item("a", amount=exact)])
    assert str(items_of(sqs)["a"]["amount"]) == exact


def test_an_id_too_long_for_a_key_goes_by_its_hash(table: TransactionTable, sqs: LocalQueue) -> None:
    long, longer = "x" * 4000, "x" * 4001
    assert table.put([item(long), item(longer)]) == ["accepted", "accepted"]
    assert table.put([item(long, message="again")]) == ["duplicate"]
    assert {found["full_transaction_id"] for found in items_of(sqs).values()} == {long, longer}


def test_an_item_that_is_none_fails_alone(table: TransactionTable, sqs: LocalQueue) -> None:
    """More digits than DynamoDB holds: the rules let none through, but were they to, the rest must go on."""
    assert table.put([item("a"), item("b", amount="1" * 40), item("c")]) == ["accepted", "failed", "accepted"]
    assert set(items_of(sqs)) == {"a", "c"}


def test_a_table_that_is_busy_says_that_it_passes(sqs: LocalQueue) -> None:
    with S3Proxy(sqs.endpoint, lambda request: "refuse") as proxy:
        table = TransactionTable(sqs.table, "us-east-1", proxy.url)
        with pytest.raises(TableError, match="busy") as raised:
            table.put([item("a")])
        table.client.close()
    assert raised.value.is_passing


def test_writers_that_race_for_an_id_leave_one(sqs: LocalQueue, table: TransactionTable) -> None:
    outcomes: list[list[str]] = []
    start = threading.Barrier(4)

    def put(number: int) -> None:
        start.wait()
        outcomes.append(list(table.put([item(f"k{n}", message=f"w{number}", meaning=str(number)) for n in range(30)])))

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for position in range(30):
        assert sorted(each[position] for each in outcomes) == ["accepted", "conflict", "conflict", "conflict"]
    with client("dynamodb", sqs.endpoint) as dynamodb:
        assert dynamodb.scan(TableName=sqs.table, Select="COUNT")["Count"] == 30
