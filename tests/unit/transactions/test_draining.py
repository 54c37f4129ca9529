"""Draining: written before deleted, bounded, and no message lost or doubled wherever it breaks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from fixtures.transactions import NOW, transaction

from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.storage.lake import Lake
from finance_assets.transactions.draining import QueueNotSetError, TransactionIntake, drain
from finance_assets.transactions.queue import Message


class Memory:
    """A queue in memory: what is received is hidden, what is not deleted comes back by `reappear`."""

    def __init__(self, lake: Lake, bodies: Sequence[bytes]) -> None:
        self.lake = lake
        self.waiting = {f"m{place:04}": body for place, body in enumerate(bodies)}
        self.hidden: dict[str, bytes] = {}
        self.stuck: set[str] = set()
        self.fails_after = 10**9

    def receive(self, max_messages: int = 10, wait_seconds: int = 0) -> list[Message]:
        assert 1 <= max_messages <= 10
        self.fails_after -= 1
        if self.fails_after < 0:
            raise OSError("the queue is out of reach")
        taken = list(self.waiting)[:max_messages]
        self.hidden |= {name: self.waiting.pop(name) for name in taken}
        return [Message(name, f"r-{name}", self.hidden[name], NOW, NOW, 1) for name in taken]

    def delete(self, messages: Sequence[Message]) -> list[Message]:
        stored = set(self.lake.read(RAW_TRANSACTIONS, columns=["message_id"]).table["message_id"].to_pylist())
        for message in messages:
            assert message.message_id in stored, "deleted before it was written"
            if message.message_id not in self.stuck:
                del self.hidden[message.message_id]
        return [message for message in messages if message.message_id in self.stuck]

    def reappear(self) -> None:
        self.waiting |= self.hidden
        self.hidden = {}


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def run(queue: Memory, *, most: int = 1000, micro: int = 25) -> object:
    return drain(queue, queue.lake, lambda: NOW, max_messages=most, micro_batch_messages=micro)


def stored(lake: Lake) -> list[str]:
    return lake.read(RAW_TRANSACTIONS).table["message_id"].to_pylist()


def test_a_run_takes_all_that_waits_in_micro_batches(lake: Lake) -> None:
    queue = Memory(lake, [transaction(str(place)) for place in range(60)] + [b"x", b"y"])
    done = drain(queue, lake, lambda: NOW, max_messages=1000, micro_batch_messages=25)
    assert (done.messages, done.accepted, done.rejected, len(done.batches)) == (62, 60, 2, 3)
    assert done.is_empty
    assert sorted(lake.row_counts(RAW_TRANSACTIONS).values()) == [12, 25, 25]
    assert not queue.waiting
    assert not queue.hidden


def test_a_run_is_bounded(lake: Lake) -> None:
    queue = Memory(lake, [transaction(str(place)) for place in range(60)])
    done = drain(queue, lake, lambda: NOW, max_messages=37, micro_batch_messages=25)
    assert (done.messages, done.is_empty, len(queue.waiting)) == (37, False, 23)


def test_an_empty_queue_writes_nothing(lake: Lake) -> None:
    done = drain(Memory(lake, []), lake, lambda: NOW, max_messages=10, micro_batch_messages=5)
    assert (done.messages, done.batches, done.is_empty) == (0, [], True)
    assert lake.partitions(RAW_TRANSACTIONS) == []


def test_what_could_not_be_written_is_not_deleted(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = Memory(lake, [transaction(str(place)) for place in range(60)])
    put, calls = Lake.put, []

    def full(self: Lake, path: str, data: bytes) -> None:
        calls.append(path)
        if len(calls) == 2:
            raise OSError(28, "No space left on device")
        put(self, path, data)

    with monkeypatch.context() as patch:
        patch.setattr(Lake, "put", full)
        with pytest.raises(OSError, match="No space"):
            run(queue)
    assert (len(queue.waiting), len(queue.hidden)) == (10, 25)
    queue.reappear()
    run(queue)
    assert sorted(stored(lake)) == [f"m{place:04}" for place in range(60)]


def test_messages_that_cannot_be_deleted_come_again_as_the_same_file(lake: Lake) -> None:
    queue = Memory(lake, [transaction(str(place)) for place in range(20)])
    queue.stuck = {"m0003", "m0004"}
    done = drain(queue, lake, lambda: NOW, max_messages=1000, micro_batch_messages=25)
    assert done.not_deleted == 2
    queue.stuck = set()
    queue.reappear()
    again = drain(queue, lake, lambda: NOW, max_messages=1000, micro_batch_messages=25)
    assert again.messages == 2
    assert len(lake.partitions(RAW_TRANSACTIONS)) == 2
    queue.waiting = {name: transaction(str(int(name[1:]))) for name in ("m0003", "m0004")}
    third = drain(queue, lake, lambda: NOW, max_messages=1000, micro_batch_messages=25)
    assert third.written_before == 1
    assert len(lake.partitions(RAW_TRANSACTIONS)) == 2


def test_what_was_received_before_an_outage_comes_back(lake: Lake) -> None:
    queue = Memory(lake, [transaction(str(place)) for place in range(60)])
    queue.fails_after = 4
    with pytest.raises(OSError, match="out of reach"):
        run(queue)
    assert len(stored(lake)) == 25
    queue.fails_after = 10**9
    queue.reappear()
    run(queue)
    assert sorted(stored(lake)) == [f"m{place:04}" for place in range(60)]


def test_without_a_queue_it_says_what_to_set(lake: Lake) -> None:
    intake = TransactionIntake(lake, None, lambda: NOW, 10, 5)
    for use in (intake.drain, intake.depth):
        with pytest.raises(QueueNotSetError, match="FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL"):
            use()
