"""Draining the queue into the lake: receive, write durably, delete.

What belongs here: the loop of one run, and what a deployment needs for it. The order of its three steps is the whole
argument: what was not written is not deleted, so it is delivered again; what is delivered again is the same
micro-batch or holds message ids that are counted already.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from finance_assets.contracts.transactions import RAW_TRANSACTIONS, TRANSACTION_ARRIVALS
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.settlement import unsettled_batches

if TYPE_CHECKING:
    from finance_assets.contracts.model import Contract
    from finance_assets.storage.lake import Lake
    from finance_assets.transactions.queue import Depth, Message, Queue

#: What a person sets where there is no queue.
QUEUE_IS_NOT_SET = (
    "no queue is set: set FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL to the address of an SQS queue, such as "
    "https://sqs.us-east-1.amazonaws.com/123456789012/transactions"
)
#: How long the first receive that finds nothing waits: SQS asks only some of its servers when it does not wait.
WAIT_SECONDS = 1
RECEIVE = 10


class QueueNotSetError(RuntimeError):
    """There is no queue to drain; the message says what to set."""


class DrainableQueue(Protocol):
    """What draining asks of a queue."""

    def receive(self, max_messages: int = RECEIVE, wait_seconds: int = 0) -> list[Message]:
        """Receive messages, which stay hidden from others for a while."""

    def delete(self, messages: list[Message]) -> list[Message]:
        """Delete messages for good; return those that could not be."""


@dataclass
class Drained:
    """What one run took.

    Attributes
    ----------
    messages
        Messages written, each delivery counted.
    accepted, rejected
        What the rules say of them.
    batches
        Names of the micro-batches.
    written_before
        How many of those were there already.
    not_deleted
        Messages that are written but could not be deleted; they will be delivered again, without effect.
    is_empty
        Whether the queue gave no more; else the bound was reached.
    """

    messages: int = 0
    accepted: int = 0
    rejected: int = 0
    batches: list[str] = field(default_factory=list)
    written_before: int = 0
    not_deleted: int = 0
    is_empty: bool = False


def drain(
    queue: DrainableQueue,
    lake: Lake,
    clock: Callable[[], datetime],
    *,
    max_messages: int,
    micro_batch_messages: int,
    log: Callable[[str], object] = lambda _: None,
) -> Drained:
    """Take messages off a queue until it is empty or ``max_messages`` are taken.

    Parameters
    ----------
    queue
        Where from.
    lake
        Where to.
    clock
        What time it is, aware.
    max_messages
        Bound of one call, so that a run ends.
    micro_batch_messages
        Messages of one file. They must be received, written and deleted while they are hidden from other receivers.
    log
        Told about each micro-batch.

    Raises
    ------
    QueueError, LakeError, OSError
        The queue or the lake does not answer. What was written before is deleted from the queue, and nothing else.
    """
    done = Drained()
    while done.messages < max_messages and not done.is_empty:
        waiting: list[Message] = []
        wanted = min(micro_batch_messages, max_messages - done.messages)
        while len(waiting) < wanted:
            received = queue.receive(min(RECEIVE, wanted - len(waiting)), WAIT_SECONDS)
            if not received:
                done.is_empty = True
                break
            waiting += received
        if not waiting:
            break
        written = write_batch(lake, waiting, clock())
        not_deleted = queue.delete(waiting)
        accepted = written.accepted.num_rows
        done.messages += len(waiting)
        done.accepted += accepted
        done.rejected += written.table.num_rows - accepted
        done.batches.append(written.key)
        done.written_before += written.was_there
        done.not_deleted += len(not_deleted)
        log(f"micro-batch {written.key[:12]}: {len(waiting)} messages, {accepted} of them accepted")
    return done


@dataclass
class TransactionIntake:
    """The way of queued transactions into a deployment.

    Parameters
    ----------
    lake
        Where to.
    queue
        Where from; None where none is set.
    clock
        What time it is for what arrives, aware.
    max_messages, micro_batch_messages
        As for :func:`drain`.
    """

    lake: Lake
    queue: Queue | None
    clock: Callable[[], datetime]
    max_messages: int
    micro_batch_messages: int

    def depth(self) -> Depth:
        """Return about how many messages wait; receives none.

        Raises
        ------
        QueueNotSetError
            There is no queue.
        """
        return self._queue().depth()

    def unfinished(self, depth: Depth | None = None) -> dict[Contract, str]:
        """Return the tables that do not hold yet what has arrived, with what is missing of each in words.

        The sensor, the command line and the status all ask this.

        Parameters
        ----------
        depth
            What :meth:`depth` has found; it asks by itself where none is given.
        """
        found: dict[Contract, str] = {}
        if depth is None and self.queue is not None:
            depth = self.depth()
        visible = 0 if depth is None else depth.visible
        if visible:
            found[RAW_TRANSACTIONS] = f"{visible} messages wait in the queue"
        unsettled = len(unsettled_batches(self.lake))
        if unsettled:
            found[TRANSACTION_ARRIVALS] = f"{unsettled} micro-batches that were received are not settled yet"
        return found

    def drain(self, log: Callable[[str], object] = lambda _: None) -> Drained:
        """Take what waits, up to the bound.

        Raises
        ------
        QueueNotSetError
            There is no queue.
        """
        return drain(
            self._queue(),
            self.lake,
            self.clock,
            max_messages=self.max_messages,
            micro_batch_messages=self.micro_batch_messages,
            log=log,
        )

    def _queue(self) -> Queue:
        if self.queue is None:
            raise QueueNotSetError(QUEUE_IS_NOT_SET)
        return self.queue
