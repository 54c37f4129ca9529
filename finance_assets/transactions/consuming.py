"""The consumer: messages from the queue to durable, table and deletion, with low latency.

What belongs here: the threads and the order of steps. Receivers long-poll; one writer gathers micro-batches by size or
age and writes them to the lake; one thread puts what was accepted to the table; a few delete from the queue::

    receive -> write to the lake (durable) -> put to the table -> delete from the queue

Why this order loses nothing and doubles nothing, wherever it is cut:

- Deletion is last. Whatever dies before it is delivered again when its time in hiding is over.
- A message that is delivered again may be in two micro-batches. It has the same message id there, and the core
  tables count it once. A micro-batch of the same messages is the same file.
- The put is conditional. An item that this very message put before is left as it is, by the message id in it.
- The lake comes before the table, because it is the truth: what stands in the table has always been stored with its
  body before.

Micro-batches are put by one thread in the order of writing, so that the first one written is the first one put.

A step that fails because a service is out of reach, throttles, or a disk is full is tried again with back-off, for as
long as it takes, while what is held stays hidden from other receivers; nothing more is received than the bounds allow.
What no waiting mends (a queue or table that does not exist, no permission) ends the consumer with a message. A message
on which processing itself breaks is left alone: after maxReceiveCount deliveries the queue puts it aside. A message
that breaks a *rule* is no such message: it is stored with its reason, and deleted.
"""

from __future__ import annotations

import errno
import gc
import queue as queues
import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from finance_assets.text import safe_logger
from finance_assets.transactions.aws import AwsError
from finance_assets.transactions.monitoring import Monitor, label
from finance_assets.transactions.queue import BATCH, Depth, Message
from finance_assets.transactions.table import PUTS_AT_ONCE, Item, Placed

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.storage.lake import Lake

log = safe_logger("finance_assets.transactions.consume")

FIRST_PAUSE_SECONDS = 0.2
LONGEST_PAUSE_SECONDS = 20.0
#: A wait is told at once, and then at most so often.
TELL_SECONDS = 10.0
DELETE_ATTEMPTS = 3
#: For how long SQS hides a received message where nothing else is set.
VISIBILITY_SECONDS = 30
#: How often a consumer looks whether it is to end.
LOOK_SECONDS = 0.1
#: Where a consumer is to end when it is idle, how long it waits for the proof: an answer of the queue that there is
#: nothing, and an end of what it holds.
UNPROVED_SECONDS = 15.0
#: Where every message of so many breaks processing, it is not the messages.
ALL_BREAK = 10
#: A micro-batch and everything that is held have at most so many bytes.
BATCH_BYTES = 8 * 1024 * 1024
HELD_BYTES = 64 * 1024 * 1024
#: What no waiting mends, of a local lake.
_HOPELESS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG)


class ConsumeError(RuntimeError):
    """The consumer cannot go on; the message says why and what to do. Nothing is lost."""


class _StoppedError(Exception):
    """The consumer is ending, and what was tried did not work out in time."""


class Source(Protocol):
    """The queue, as the consumer uses it."""

    def receive(self, max_messages: int, wait_seconds: int) -> list[Message]:
        """Receive messages."""

    def delete(self, messages: Sequence[Message]) -> list[Message]:
        """Delete messages; return those that could not be."""

    def release(self, messages: Sequence[Message]) -> list[Message]:
        """Hand messages back."""

    def hold(self, messages: Sequence[Message], seconds: int) -> list[Message]:
        """Hide messages for longer."""

    def depth(self) -> Depth:
        """Return how many messages there are."""

    def visibility_seconds(self) -> int:
        """Return for how long a received message is hidden."""


class Table(Protocol):
    """The table, as the consumer uses it."""

    def put(self, items: Sequence[Item]) -> list[Placed]:
        """Put transactions, and say what became of each."""


@dataclass(frozen=True)
class Stored:
    """A micro-batch that is durable.

    Attributes
    ----------
    key
        Its name in the lake.
    accepted
        How many of its messages are accepted.
    reasons
        Of its rejected messages, by message id.
    read
        Gives its accepted transactions.
    """

    key: str
    accepted: int
    reasons: dict[str, str]
    read: Callable[[], Sequence[Item]]

    @cached_property
    def items(self) -> Sequence[Item]:
        """Its accepted transactions; made when the table's turn comes, for which what writes does not wait."""
        return self.read()


Store = Callable[[Sequence[Message], datetime], Stored]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Options:
    """How a consumer works.

    Attributes
    ----------
    receivers
        Threads that receive.
    deleters
        Threads that delete.
    wait_seconds
        How long a receive waits for a first message; ending takes up to that long.
    batch_messages, batch_seconds
        A micro-batch is written when it has so many messages, or when its first has waited so long.
    held_messages
        Most messages that are received and not yet deleted.
    line_seconds
        How often a line is logged.
    end_seconds
        When it is to end, how long what is under way may still take before it is handed back.
    """

    receivers: int = 4
    deleters: int = 2
    wait_seconds: int = 5
    batch_messages: int = 500
    batch_seconds: float = 0.02
    held_messages: int = 1_000
    line_seconds: float = 10.0
    end_seconds: float = 15.0


@dataclass(slots=True)
class _Delivery:
    """A message that is held, with when it was received, in monotonic seconds."""

    message: Message
    received: float


@dataclass(frozen=True, slots=True)
class _Batch:
    """A micro-batch that is durable, with its deliveries."""

    deliveries: list[_Delivery]
    stored: Stored


@dataclass
class Consumer:
    """Takes messages until it is told to end.

    Parameters
    ----------
    source
        The queue.
    store
        Writes a micro-batch durably.
    table
        Where accepted transactions are put; None for none.
    options
        How it works.
    clock
        What time it is, aware: the time at which rules are applied.
    monitor
        What it counts.
    idle_stop
        Ends by itself after so many seconds without a message; None never. Only an answer of the queue proves that
        there was none, so a queue that does not answer is an error.
    """

    source: Source
    store: Store
    table: Table | None = None
    options: Options = field(default_factory=Options)
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    monitor: Monitor = field(default_factory=Monitor)
    idle_stop: float | None = None

    def __post_init__(self) -> None:
        self._is_asked_to_end = False
        self._ending = threading.Event()
        self._aborting = threading.Event()
        self._failure: Exception | None = None
        self._failed_at: float | None = None
        self._held: dict[str, _Delivery] = {}
        self._held_bytes = 0
        self._room = threading.Condition()
        self._receiving = 0
        self._inbox: queues.SimpleQueue[list[_Delivery] | None] = queues.SimpleQueue()
        self._to_put: queues.SimpleQueue[_Batch | None] = queues.SimpleQueue()
        self._to_delete: queues.SimpleQueue[list[_Delivery] | None] = queues.SimpleQueue()
        self._last_message = self._last_answer = time.monotonic()
        #: Step -> why it does not work at the moment.
        self._troubles: dict[str, str] = {}

    # -- from outside ------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Receive no more, finish what is held, and end. Safe in a signal handler, and more than once.

        A plain flag, at which :meth:`run` looks: an event has a lock, which the interrupted code may hold.
        """
        self._is_asked_to_end = True

    def run(self) -> None:
        """Consume until :meth:`stop`, or until something happens that no waiting mends.

        Raises
        ------
        ConsumeError
            Why it cannot go on. What was held is handed back to the queue.
        """
        visibility = self._visibility()
        receivers = [self._thread(self._receive, f"receiver-{n}") for n in range(self.options.receivers)]
        writer = self._thread(self._write, "writer")
        putter = self._thread(self._put, "putter")
        deleters = [self._thread(self._delete, f"deleter-{n}") for n in range(self.options.deleters)]
        done = threading.Event()
        keeper = threading.Thread(target=self._keep, args=(visibility, done), name="keeper", daemon=True)
        teller = threading.Thread(target=self._tell, args=(done,), name="teller", daemon=True)
        grace = threading.Timer(self.options.end_seconds, self._aborting.set)
        grace.daemon = True
        for thread in (*receivers, writer, putter, *deleters, keeper, teller):
            thread.start()
        try:
            while not (self._is_asked_to_end or self._ending.is_set()):
                time.sleep(LOOK_SECONDS)
                if self.idle_stop is not None and self._is_idle(self.idle_stop):
                    self.stop()
            self._ending.set()
            with self._room:
                self._room.notify_all()
            grace.start()
            for thread in receivers:
                self._join(thread)
            # What was received is finished in order: each step ends when the step before it has.
            self._inbox.put(None)
            self._join(writer)
            self._to_put.put(None)
            self._join(putter)
            for _ in deleters:
                self._to_delete.put(None)
            for thread in deleters:
                self._join(thread)
        finally:
            grace.cancel()
            self._hand_back()
            done.set()
            self._join(keeper)
            self._join(teller)
        if self._failure is not None:
            raise ConsumeError(str(self._failure)) from self._failure

    def _is_idle(self, seconds: float) -> bool:
        """Return whether nothing came for so long, by the queue's own answer, and nothing is held; fail in vain."""
        now = time.monotonic()
        quiet = now - self._last_message
        if quiet <= seconds:
            return False
        with self._room:
            held = len(self._held)
        has_answered = self._last_answer > self._last_message and "receive" not in self._troubles
        if has_answered and not held:
            return True
        if quiet > seconds + self.options.wait_seconds + UNPROVED_SECONDS:
            why = "; ".join(f"waiting to {step}: {error}" for step, error in self._troubles.items())
            left = f"{held} messages are held and not finished" if held else "it may hold messages"
            self._fail(
                ConsumeError(
                    f"the queue is not known to be empty after {quiet:.0f} s, and {left}: "
                    f"{why or 'a request has no answer yet'}. Nothing is lost; run again when it answers"
                )
            )
        return False

    def _visibility(self) -> int:
        """Return for how long a received message is hidden; a guess where the queue does not answer yet."""
        answer: Future[int] = Future()

        def ask() -> None:
            try:
                answer.set_result(self.source.visibility_seconds())
            except Exception as error:
                answer.set_exception(error)

        threading.Thread(target=ask, name="visibility", daemon=True).start()
        try:
            return answer.result(None if self.idle_stop is None else UNPROVED_SECONDS)
        except TimeoutError:
            return VISIBILITY_SECONDS
        except AwsError as error:
            if not error.is_passing:
                raise ConsumeError(str(error)) from error
            # Asked again by nobody: the receivers wait for the queue, and holding only helps.
            return VISIBILITY_SECONDS

    def _join(self, thread: threading.Thread) -> None:
        """Wait for a thread to end; after a failure, one that hangs in a request is left in the end."""
        while thread.is_alive():
            thread.join(LOOK_SECONDS)
            if self._failed_at is not None and time.monotonic() - self._failed_at > self.options.end_seconds:
                return

    # -- the steps ---------------------------------------------------------------------------------------

    def _thread(self, step: Callable[[], None], name: str) -> threading.Thread:
        def guarded() -> None:
            try:
                step()
            except _StoppedError:
                pass
            except Exception as error:
                self._fail(error)

        return threading.Thread(target=guarded, name=name, daemon=True)

    def _fail(self, error: Exception) -> None:
        """End because of an error; the first one is the cause."""
        if self._failure is None:
            self._failure, self._failed_at = error, time.monotonic()
            is_told = isinstance(error, AwsError | OSError | ConsumeError)
            log.error("ending: %s", error, exc_info=None if is_told else error)
        self._aborting.set()
        self._ending.set()
        with self._room:
            self._room.notify_all()

    def _receive(self) -> None:
        while self._may_receive():
            try:
                messages = self._retry_until(
                    "receive",
                    lambda: self.source.receive(BATCH, self.options.wait_seconds),
                    until=self._ending,
                )
                received = self._last_answer = time.monotonic()
                with self._room:
                    deliveries = [_Delivery(message, received) for message in messages]
                    for delivery in deliveries:
                        self._held[delivery.message.receipt] = delivery
                        self._held_bytes += len(delivery.message.body)
            finally:
                with self._room:
                    self._receiving -= 1
            if deliveries:
                self._last_message = received
                last = deliveries[-1].message
                self.monitor.count("received_total", len(deliveries))
                self.monitor.set("lag_seconds", max(0.0, (last.received_at - last.sent_at).total_seconds()))
                self._inbox.put(deliveries)

    def _may_receive(self) -> bool:
        """Wait until there is room for ten more; return False when it is time to end."""
        with self._room:
            while not self._ending.is_set():
                expected = len(self._held) + BATCH * (self._receiving + 1)
                if expected <= max(self.options.held_messages, BATCH) and self._held_bytes < HELD_BYTES:
                    self._receiving += 1
                    return True
                self._room.wait(0.5)
        return False

    def _write(self) -> None:
        waiting: list[_Delivery] = []
        size = 0
        is_open = True
        while is_open or waiting:
            is_full = len(waiting) >= self.options.batch_messages or size >= BATCH_BYTES
            rest = waiting[0].received + self.options.batch_seconds - time.monotonic() if waiting else None
            # What has come goes along, also where the first has waited long enough: a writer that fell behind
            # catches up by larger batches.
            if is_open and not is_full:
                try:
                    got = self._inbox.get(timeout=None if rest is None else max(rest, 0))
                except queues.Empty:
                    pass
                else:
                    is_open = got is not None
                    waiting += got or ()
                    size += sum(len(delivery.message.body) for delivery in got or ())
                    continue
            taken, waiting = waiting[: self.options.batch_messages], waiting[self.options.batch_messages :]
            size = sum(len(delivery.message.body) for delivery in waiting)
            if taken and self._write_batch(taken) == len(taken) >= ALL_BREAK:
                raise ConsumeError(
                    f"processing broke on each of {len(taken)} messages, so the cause is not in them; they come again "
                    "when their time is over. See the log above."
                )

    def _write_batch(self, deliveries: list[_Delivery]) -> int:
        """Write a micro-batch, halved where processing breaks until only the messages are left out that break it.

        Returns
        -------
        int
            Messages that were left out.
        """
        messages = [delivery.message for delivery in deliveries]
        try:
            stored = self._retry_until("write", lambda: self.store(messages, self.clock()))
        except (_StoppedError, AwsError, OSError):
            raise
        except Exception as error:
            if len(deliveries) == 1:
                self._leave(deliveries[0], error)
                return 1
            half = len(deliveries) // 2
            return self._write_batch(deliveries[:half]) + self._write_batch(deliveries[half:])
        now = time.monotonic()
        self.monitor.durable(now - delivery.received for delivery in deliveries)
        rejected = stored.reasons
        self.monitor.count("batches_total")
        self.monitor.count("stored_total", stored.accepted, label("outcome", "accepted"))
        self.monitor.count("stored_total", len(rejected), label("outcome", "rejected"))
        for reason in rejected.values():
            self.monitor.count("rejected_total", 1, label("reason", reason))
        self._to_put.put(_Batch(deliveries, stored))
        return 0

    def _put(self) -> None:
        while (batch := self._to_put.get()) is not None:
            batches = [batch]
            # What came meanwhile goes along: the busier the table, the fuller the requests.
            while sum(each.stored.accepted for each in batches) < PUTS_AT_ONCE and not self._to_put.empty():
                more = self._to_put.get()
                if more is None:
                    self._to_put.put(None)
                    break
                batches.append(more)
            deliveries = [delivery for each in batches for delivery in each.deliveries]
            items = [item for each in batches for item in each.stored.items]
            if self.table is not None and items:
                deliveries = self._put_items(self.table, deliveries, items)
            for start in range(0, len(deliveries), BATCH):
                self._to_delete.put(deliveries[start : start + BATCH])

    def _put_items(self, table: Table, deliveries: list[_Delivery], items: Sequence[Item]) -> list[_Delivery]:
        """Put items, and return the deliveries that are dealt with."""
        placed = self._retry_until("put", lambda: table.put(items))
        for outcome in ("accepted", "duplicate", "conflict"):
            if number := placed.count(outcome):
                self.monitor.count("placed_total", number, label("outcome", outcome))
        failed = {item.message_id for item, outcome in zip(items, placed, strict=True) if outcome == "failed"}
        if not failed:
            return deliveries
        for delivery in deliveries:
            if delivery.message.message_id in failed:
                self._leave(delivery, ItemRefusedError("the table does not take it as an item"))
        return [delivery for delivery in deliveries if delivery.message.message_id not in failed]

    def _delete(self) -> None:
        while (deliveries := self._to_delete.get()) is not None:
            messages = [delivery.message for delivery in deliveries]
            for attempt in range(DELETE_ATTEMPTS):
                messages = self._retry_until("delete", partial(self.source.delete, messages))
                if not messages or self._aborting.wait(FIRST_PAUSE_SECONDS * 2**attempt):
                    break
            # What could not be deleted was delivered to somebody else meanwhile: it has no effect there.
            self.monitor.count("deleted_total", len(deliveries) - len(messages))
            self._let_go(deliveries)

    def _leave(self, delivery: _Delivery, error: Exception) -> None:
        """Leave a message in the queue: it comes again, and at last goes to the dead letters."""
        message = delivery.message
        log.error(
            "message %s (delivery %d) breaks processing and is left in the queue: %s: %s",
            message.message_id,
            message.receive_count,
            type(error).__name__,
            error,
        )
        self.monitor.count("left_total")
        self._let_go([delivery])

    def _let_go(self, deliveries: Sequence[_Delivery]) -> None:
        with self._room:
            for delivery in deliveries:
                if self._held.pop(delivery.message.receipt, None) is not None:
                    self._held_bytes -= len(delivery.message.body)
            self._room.notify_all()
        # The queue's next answer says whether there is more.
        self._last_message = time.monotonic()

    def _hand_back(self) -> None:
        """Hand back what is still held at the end, so that it need not wait for its time to be over."""
        with self._room:
            left = [delivery.message for delivery in self._held.values()]
            self._held.clear()
        if not left:
            return
        try:
            stuck = self.source.release(left)
        except AwsError as error:
            log.warning("%d messages come again when their time is over: %s", len(left), error)
            return
        self.monitor.count("handed_back_total", len(left) - len(stuck))
        log.info("handed %d messages back to the queue", len(left) - len(stuck))

    # -- beside the steps --------------------------------------------------------------------------------

    def _keep(self, visibility: int, done: threading.Event) -> None:
        """Hide what is held for longer, before its time is over."""
        while not done.wait(visibility / 4):
            old = time.monotonic() - visibility / 3
            with self._room:
                messages = [delivery.message for delivery in self._held.values() if delivery.received < old]
            if messages:
                try:
                    self.source.hold(messages, visibility)
                except AwsError as error:
                    log.debug("%d messages were not held: %s", len(messages), error)

    def _tell(self, done: threading.Event) -> None:
        """Log a line every so often, and look at the queue's depth for it."""
        while not done.wait(self.options.line_seconds):
            try:
                depth = self.source.depth()
                self.monitor.set("queue_visible", depth.visible)
                self.monitor.set("queue_in_flight", depth.in_flight)
            except AwsError:
                pass  # the receivers say so
            self._log_line()
        self._log_line()

    def _log_line(self) -> None:
        with self._room:
            self.monitor.set("held", len(self._held))
        log.info("%s", self.monitor.line())

    def _retry_until(self, step: str, action: Callable[[], T], until: threading.Event | None = None) -> T:
        """Do something, again and again with back-off while waiting may help."""
        event = until or self._aborting
        told = -TELL_SECONDS
        attempt = 0
        while True:
            try:
                result = action()
            except (AwsError, OSError) as error:
                if not _is_passing(error):
                    raise
                self._troubles[step] = str(error)
                self.monitor.count("waits_total", 1, label("step", step))
                self.monitor.set("waiting", 1, label("step", step))
                if time.monotonic() - told >= TELL_SECONDS:
                    told = time.monotonic()
                    log.warning("waiting to %s: %s", step, error)
                # Half of it by chance, so that many consumers do not come back at once.
                pause = min(FIRST_PAUSE_SECONDS * 2**attempt, LONGEST_PAUSE_SECONDS) * (0.5 + random.random() / 2)
                attempt = min(attempt + 1, 16)
                if event.wait(pause):
                    raise _StoppedError from error
            else:
                self._troubles.pop(step, None)
                if attempt:
                    self.monitor.set("waiting", 0, label("step", step))
                    log.info("goes on: %s works again", step)
                return result


class ItemRefusedError(RuntimeError):
    """The table refuses an item."""


def _is_passing(error: Exception) -> bool:
    """Return whether waiting may mend an error."""
    if isinstance(error, AwsError):
        return error.is_passing
    return isinstance(error, OSError) and error.errno not in _HOPELESS


class HasClient(Protocol):
    """What talks to a service by a boto3 client that it makes at first use."""

    @property
    def client(self) -> Any:
        """The client."""


def freeze_loaded(*services: HasClient) -> None:
    """Take everything that is loaded now out of the garbage collector's sight, for the rest of the process.

    The clients of ``services`` are made first: they, and boto3 itself, are the most of it.

    A full collection over the objects of boto3, pyarrow and Dagster stops every thread for a tenth of a second, which
    would be the worst latency that a message meets. What is loaded is not garbage.
    """
    for service in services:
        _ = service.client
    gc.collect()
    gc.freeze()


def lake_store(lake: Lake) -> Store:
    """Return what writes micro-batches to a lake."""
    from finance_assets.storage.lake import LakeError
    from finance_assets.transactions.batches import batch_table, write_batch

    # Imports what it takes to write, before a first message would wait for it.
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    stored_of("", batch_table([Message("", "", b"{}", epoch, epoch, 1)], "", epoch))
    if lake.is_s3:
        lake.s3_objects.open()

    def store(messages: Sequence[Message], now: datetime) -> Stored:
        try:
            written = write_batch(lake, messages, now)
        except LakeError as error:
            if lake.is_s3:
                # S3 out of reach: to be waited for, like a disk.
                raise OSError(errno.EIO, str(error)) from error
            raise
        return stored_of(written.key, written.table)

    return store


def stored_of(key: str, table: pa.Table) -> Stored:
    """Return what a written micro-batch holds for the table, and its rejections."""
    import pyarrow.compute as pc

    rejected = table.select(["message_id", "reason"]).filter(pc.is_valid(table.column("reason")))
    reasons = dict(zip(rejected["message_id"].to_pylist(), rejected["reason"].to_pylist(), strict=True))
    return Stored(key, table.num_rows - len(reasons), reasons, lambda: _items(table))


def _items(table: pa.Table) -> list[Item]:
    """Return the accepted transactions of a micro-batch."""
    import pyarrow.compute as pc

    names = [each.name for each in fields(Item)]
    rows = table.filter(pc.is_null(table.column("reason"))).select(names).to_pylist()
    return [Item(**row | {"amount": _digits(row["amount"])}) for row in rows]


def _digits(amount: object) -> str:
    """Return an exact amount without the zeros that the column's type adds."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


class DagsterReporter:
    """Tells Dagster of new micro-batches by a runless event, at most every few seconds.

    Whether Dagster can be told matters to nobody here: where it cannot, that is logged once.

    Parameters
    ----------
    monitor
        Where the counts are.
    seconds
        Least time between two events.
    """

    def __init__(self, monitor: Monitor, seconds: float = 5.0) -> None:
        self._monitor = monitor
        self._seconds = seconds
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="dagster", daemon=True)
        self._told = 0
        self._complained = False

    def __enter__(self) -> DagsterReporter:
        import dagster  # noqa: F401 -- two seconds in which a message would wait, were it imported beside its writing

        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(timeout=10)

    def _run(self) -> None:
        while not self._done.wait(self._seconds):
            self._report()
        self._report()

    def _report(self) -> None:
        batches = self._monitor.total("batches_total")
        if batches == self._told:
            return
        try:
            import dagster as dg

            event = dg.AssetMaterialization(
                asset_key=dg.AssetKey(["raw", "transactions"]),
                description="Micro-batches of the consumer.",
                metadata={
                    "micro_batches": batches - self._told,
                    "micro_batches_since_start": batches,
                    "accepted_since_start": self._monitor.total("stored_total", label("outcome", "accepted")),
                    "rejected_since_start": self._monitor.total("stored_total", label("outcome", "rejected")),
                },
            )
            with dg.DagsterInstance.get() as instance:
                instance.report_runless_asset_event(event)
        except Exception as error:
            if not self._complained:
                log.warning("Dagster is not told of micro-batches (%s); nothing depends on it", error)
            self._complained = True
        else:
            self._told, self._complained = batches, False
