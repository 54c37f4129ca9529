"""The consumer against a queue, a store and a table that fail on purpose."""

from __future__ import annotations

import errno
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from fixtures.transactions import running_consumer

from finance_assets.transactions import consuming
from finance_assets.transactions.aws import AwsError
from finance_assets.transactions.consuming import ConsumeError, Consumer, Options, Stored
from finance_assets.transactions.queue import Depth, Message, QueueError
from finance_assets.transactions.table import Item, Placed

NOW = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
QUICK = Options(receivers=2, wait_seconds=0, batch_messages=20, batch_seconds=0.005, line_seconds=60, end_seconds=5)


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "FIRST_PAUSE_SECONDS", 0.005)
    monkeypatch.setattr(consuming, "LONGEST_PAUSE_SECONDS", 0.02)


class Memory:
    """A queue in memory; what is received is hidden until it is deleted or handed back."""

    def __init__(self, bodies: Sequence[bytes]) -> None:
        self.lock = threading.Lock()
        self.waiting = [Message(f"m{n}", f"r{n}", body, NOW, NOW, 1) for n, body in enumerate(bodies)]
        self.hidden: dict[str, Message] = {}
        self.deleted: list[str] = []
        self.held: list[str] = []
        self.most_hidden = 0
        self.fail: Callable[[str], None] = lambda operation: None

    def receive(self, max_messages: int, wait_seconds: int) -> list[Message]:
        self.fail("receive")
        with self.lock:
            taken, self.waiting = self.waiting[:max_messages], self.waiting[max_messages:]
            self.hidden.update({message.receipt: message for message in taken})
            self.most_hidden = max(self.most_hidden, len(self.hidden))
        if not taken:
            time.sleep(0.005)
        return taken

    def delete(self, messages: Sequence[Message]) -> list[Message]:
        self.fail("delete")
        with self.lock:
            for message in messages:
                assert self.hidden.pop(message.receipt, None), f"{message.message_id} deleted twice"
                self.deleted.append(message.message_id)
        return []

    def release(self, messages: Sequence[Message]) -> list[Message]:
        with self.lock:
            for message in messages:
                self.waiting.append(self.hidden.pop(message.receipt))
        return []

    def hold(self, messages: Sequence[Message], seconds: int) -> list[Message]:
        self.held += [message.message_id for message in messages]
        return []

    def depth(self) -> Depth:
        return Depth(len(self.waiting), len(self.hidden), 0)

    def visibility_seconds(self) -> int:
        return 30


class Book:
    """A store and a table that remember, in order, what they were given."""

    def __init__(self, source: Memory) -> None:
        self.source = source
        self.stored: list[str] = []
        self.put_ids: list[str] = []
        self.batches: list[int] = []
        self.fail: Callable[[str, list[str]], None] = lambda operation, ids: None

    def store(self, messages: Sequence[Message], now: datetime) -> Stored:
        ids = [message.message_id for message in messages]
        self.fail("store", ids)
        assert not set(ids) & set(self.source.deleted), "deleted before it was stored"
        self.stored += ids
        self.batches.append(len(ids))
        rejected = {m.message_id: "malformed_json" for m in messages if m.body == b"bad"}
        items = [item(m.message_id) for m in messages if m.message_id not in rejected]
        return Stored("key", len(items), rejected, lambda: items)

    def put(self, items: Sequence[Item]) -> list[Placed]:
        ids = [each.message_id for each in items]
        self.fail("put", ids)
        assert set(ids) <= set(self.stored), "put before it was stored"
        assert not set(ids) & set(self.source.deleted), "deleted before it was put"
        self.put_ids += ids
        return ["accepted"] * len(items)


def item(message_id: str) -> Item:
    return Item(f"t-{message_id}", "u", "1", "USD", NOW, "m", "standard", None, "f", NOW, message_id)


def until(ready: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.002)


def made(count: int, bad: int = 0) -> tuple[Memory, Book]:
    source = Memory([b"bad"] * bad + [b"good"] * (count - bad))
    return source, Book(source)


def consume(source: Memory, book: Book, options: Options = QUICK, until_deleted: int | None = None) -> Consumer:
    consumer = Consumer(source, book.store, book, options, lambda: NOW)
    with running_consumer(consumer) as errors:
        until(lambda: bool(errors) or len(source.deleted) == (until_deleted or -1))
    if errors:
        raise errors[0]
    return consumer


def test_every_message_is_stored_put_and_deleted_once_in_that_order() -> None:
    source, book = made(537, bad=31)
    consumer = consume(source, book, until_deleted=537)
    assert sorted(book.stored) == sorted(source.deleted) == sorted(f"m{n}" for n in range(537))
    assert len(book.put_ids) == 506
    assert max(book.batches) <= 20
    assert consumer.monitor.total("stored_total", 'outcome="rejected"') == 31
    assert consumer.monitor.total("rejected_total", 'reason="malformed_json"') == 31
    assert consumer.monitor.total("deleted_total") == 537


def test_ending_finishes_what_is_held() -> None:
    source, book = made(5000)
    slow = threading.Event()
    book.fail = lambda operation, ids: slow.wait(0.01) and None
    with running_consumer(Consumer(source, book.store, book, QUICK, lambda: NOW)) as errors:
        until(lambda: len(source.deleted) > 40)
    assert not errors
    assert not source.hidden, "nothing is left hidden"
    assert sorted(book.stored) == sorted(source.deleted)
    assert len(source.deleted) + len(source.waiting) == 5000


@pytest.mark.parametrize("step", ["receive", "delete", "store", "put"])
def test_a_passing_failure_is_waited_for(step: str) -> None:
    source, book = made(200)
    failures = iter([True] * 4)

    def fail(operation: str, ids: list[str] | None = None) -> None:
        if operation == step and next(failures, False):
            raise (
                OSError(errno.ENOSPC, "No space left on device")
                if step == "store"
                else AwsError("busy", is_passing=True)
            )

    source.fail, book.fail = fail, fail
    consumer = consume(source, book, until_deleted=200)
    assert sorted(book.stored) == sorted(source.deleted)
    assert Counter(book.stored).most_common(1)[0][1] == 1
    told = "write" if step == "store" else step
    assert consumer.monitor.total("waits_total", f'step="{told}"') == 4


@pytest.mark.parametrize("step", ["receive", "delete", "store", "put"])
def test_what_no_waiting_mends_ends_it_and_hands_everything_back(step: str) -> None:
    source, book = made(200)
    calls: Counter[str] = Counter()

    def fail(operation: str, ids: list[str] | None = None) -> None:
        calls[operation] += 1
        if operation == step and calls[step] > 1:
            if step == "store":
                raise OSError(errno.EROFS, "Read-only file system")
            raise QueueError(f"the {step} is refused; check the role")

    source.fail, book.fail = fail, fail
    with pytest.raises(ConsumeError, match=r"Read-only|check the role"):
        consume(source, book)
    assert not source.hidden, "what was held was handed back"
    assert len(source.deleted) + len(source.waiting) == 200


def test_ending_during_an_outage_hands_back_in_time() -> None:
    source, book = made(100)

    def full(operation: str, ids: list[str]) -> None:
        if operation == "store":
            raise OSError(errno.ENOSPC, "No space left on device")

    book.fail = full
    consumer = Consumer(source, book.store, book, Options(**{**_fields(QUICK), "end_seconds": 0.1}), lambda: NOW)
    with running_consumer(consumer) as errors:
        until(lambda: consumer.monitor.total("waits_total") > 2)
    assert not errors, "an outage is no failure of the consumer"
    assert not source.hidden
    assert len(source.waiting) == 100
    assert source.deleted == []


def _fields(options: Options) -> dict[str, object]:
    return {name: getattr(options, name) for name in Options.__dataclass_fields__}


def test_no_more_is_held_than_allowed_while_nothing_moves() -> None:
    source, book = made(1000)
    blocked = threading.Event()

    def wait(operation: str, ids: list[str]) -> None:
        if operation == "store":
            blocked.wait(5)

    book.fail = wait
    options = Options(**{**_fields(QUICK), "held_messages": 60})
    with running_consumer(Consumer(source, book.store, book, options, lambda: NOW)):
        until(lambda: len(source.hidden) >= 50)
        time.sleep(0.1)
        assert source.most_hidden <= 60
        blocked.set()
        until(lambda: len(source.deleted) > 500)
    assert source.most_hidden <= 60


def test_large_bodies_count_by_their_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "HELD_BYTES", 5_000)
    source = Memory([b"x" * 1000] * 300)
    book = Book(source)
    blocked = threading.Event()
    book.fail = lambda operation, ids: (blocked.wait(5), None)[1]
    with running_consumer(Consumer(source, book.store, book, QUICK, lambda: NOW)):
        time.sleep(0.15)
        assert source.most_hidden <= 5 + 2 * 10, "a receive that was under way may add its ten"
        blocked.set()
        until(lambda: len(source.deleted) == 300)


def test_a_message_that_breaks_processing_is_left_alone() -> None:
    source, book = made(100)

    def fail(operation: str, ids: list[str]) -> None:
        if operation == "store" and {"m7", "m63"} & set(ids):
            raise ZeroDivisionError("a fault of ours")

    book.fail = fail
    consumer = consume(source, book, until_deleted=98)
    assert sorted(m.message_id for m in source.hidden.values()) == ["m63", "m7"], "neither deleted nor handed back"
    assert consumer.monitor.total("left_total") == 2


def test_where_every_message_breaks_it_is_not_the_messages() -> None:
    source, book = made(100)

    def fail(operation: str, ids: list[str]) -> None:
        raise ZeroDivisionError("a fault of ours")

    book.fail = fail
    with pytest.raises(ConsumeError, match="the cause is not in them"):
        consume(source, book)
    assert source.deleted == []


def test_an_item_that_the_table_refuses_is_left_alone() -> None:
    source, book = made(30)
    book.put = lambda items: ["failed" if each.message_id == "m5" else "duplicate" for each in items]  # type: ignore[method-assign]
    consumer = consume(source, book, until_deleted=29)
    assert [m.message_id for m in source.hidden.values()] == ["m5"]
    assert consumer.monitor.total("placed_total", 'outcome="duplicate"') == 29


def test_what_is_held_for_long_stays_hidden() -> None:
    source, book = made(10)
    source.visibility_seconds = lambda: 1  # type: ignore[method-assign]
    blocked = threading.Event()
    book.fail = lambda operation, ids: (blocked.wait(5), None)[1]
    with running_consumer(Consumer(source, book.store, book, QUICK, lambda: NOW)):
        until(lambda: len(source.held) >= 20)
        blocked.set()
        until(lambda: len(source.deleted) == 10)
    assert set(source.held) == {f"m{n}" for n in range(10)}


def test_it_ends_by_itself_when_nothing_comes() -> None:
    source, book = made(10)
    consumer = Consumer(source, book.store, None, QUICK, lambda: NOW, idle_stop=0.1)
    consumer.run()
    assert len(source.deleted) == 10
    assert book.put_ids == [], "without a table nothing is put"


@pytest.mark.parametrize("kind", ["busy", "hangs"])
def test_a_queue_that_does_not_answer_is_not_taken_for_empty(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "UNPROVED_SECONDS", 0.3)
    source, book = made(0)
    hanging = threading.Event()

    def fail(operation: str) -> None:
        if kind == "hangs":
            hanging.wait(30)
        raise QueueError("receiving from the queue: the service is busy (500)", is_passing=True)

    source.fail = fail
    options = replace(QUICK, end_seconds=0.5)
    began = time.monotonic()
    with pytest.raises(
        ConsumeError, match=r"not known to be empty after \d+ s.*" + ("500" if kind == "busy" else "no answer")
    ):
        Consumer(source, book.store, None, options, lambda: NOW, idle_stop=0.1).run()
    assert time.monotonic() - began < 5
    hanging.set()


def test_a_queue_that_answers_again_is_empty_by_its_own_word() -> None:
    source, book = made(5)
    troubles = iter(range(30))

    def fail(operation: str) -> None:
        if operation == "receive" and next(troubles, None) is not None:
            raise QueueError("busy", is_passing=True)

    source.fail = fail
    Consumer(source, book.store, None, QUICK, lambda: NOW, idle_stop=0.1).run()
    assert len(source.deleted) == 5


def test_messages_that_cannot_be_finished_are_no_idleness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "UNPROVED_SECONDS", 0.3)
    source, book = made(3)

    def full(operation: str, ids: list[str]) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    book.fail = full
    with pytest.raises(ConsumeError, match=r"3 messages are held.*waiting to write: .*No space left"):
        Consumer(source, book.store, None, QUICK, lambda: NOW, idle_stop=0.1).run()
    assert len(source.waiting) == 3, "handed back"


def test_a_writer_that_fell_behind_catches_up_by_larger_batches() -> None:
    source, book = made(200)
    first = threading.Event()
    book.fail = lambda operation, ids: None if first.is_set() or first.wait(0.3) else first.set()
    consume(source, book, until_deleted=200)
    assert sorted(book.batches)[-5:] == [20] * 5
