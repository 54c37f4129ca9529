"""Micro-batches: messages of a queue written durably, under a name that they themselves give.

What belongs here: the one write that comes before a message is deleted from its queue. The drain asset, the consumer
and the Lambda all use it. The name is the hash of the message ids, so a batch that is delivered again after a crash is
the file that is there already: it is left as it is, because others may have read it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import TYPE_CHECKING, Protocol

from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.storage.lake import AlreadyThereError
from finance_assets.transactions.rules import ACCEPTED, classify_batch

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.storage.lake import Lake


class ReceivedMessage(Protocol):
    """What a micro-batch keeps of one delivery; :class:`finance_assets.transactions.queue.Message` is one."""

    @property
    def message_id(self) -> str:
        """The queue's own id of the message."""

    @property
    def body(self) -> bytes:
        """The bytes that were sent."""

    @property
    def sent_at(self) -> datetime:
        """When the queue took it, aware."""

    @property
    def received_at(self) -> datetime:
        """When this delivery was received, aware."""

    @property
    def receive_count(self) -> int:
        """How often it was delivered, this time included."""


@dataclass(frozen=True, slots=True)
class WriteSummary:
    """A micro-batch that is durable.

    Attributes
    ----------
    key
        SHA-256 of its sorted message ids: the name of its file in ``raw/transactions``.
    table
        Its rows as they are stored, in the order in which they become known: ``sent_ts_utc``, ``message_id``.
    was_there
        Whether it had been written before; then ``table`` is what was written then.
    """

    key: str
    table: pa.Table
    was_there: bool

    @property
    def accepted(self) -> pa.Table:
        """The rows whose outcome is ``accepted``."""
        import pyarrow.compute as pc

        return self.table.filter(pc.equal(self.table.column("outcome"), ACCEPTED))


def batch_key(message_ids: Iterable[str]) -> str:
    """Return the name of a micro-batch: the same for the same messages in whatever order they come."""
    return sha256("\n".join(sorted(set(message_ids))).encode()).hexdigest()


def write_batch(lake: Lake, messages: Sequence[ReceivedMessage], now: datetime) -> WriteSummary:
    """Write messages durably as one micro-batch; after this they may be deleted from their queue.

    Parameters
    ----------
    lake
        Where to.
    messages
        At least one. A message that is there twice is written once.
    now
        The instant at which the rules are applied; aware.

    Raises
    ------
    ValueError
        There are no messages.
    LakeError, OSError
        The lake did not take it (disk full, S3 out of reach): nothing may be deleted from the queue.
    """
    if not messages:
        raise ValueError("a micro-batch has at least one message")
    key = batch_key(message.message_id for message in messages)
    if lake.exists(lake.file(RAW_TRANSACTIONS, key)):
        return WriteSummary(key, lake.read(RAW_TRANSACTIONS, keys=[key]).table, was_there=True)
    table = batch_table(messages, key, now)
    try:
        lake.write(RAW_TRANSACTIONS, table, key=key)
    except AlreadyThereError:
        # Another receiver of the same messages was faster; its times of receipt stand.
        return WriteSummary(key, lake.read(RAW_TRANSACTIONS, keys=[key]).table, was_there=True)
    return WriteSummary(key, table, was_there=False)


def batch_table(messages: Sequence[ReceivedMessage], key: str, now: datetime) -> pa.Table:
    """Return the rows of one micro-batch, each with what the rules say of it, in the order of the contract."""
    import pyarrow as pa

    from finance_assets.contracts.arrow import conform

    # In the contract's order, so that nothing is sorted again column by column.
    once = sorted(
        {message.message_id: message for message in reversed(messages)}.values(),
        key=lambda message: (message.sent_at, message.message_id),
    )
    classified = classify_batch(((message.message_id, message.body) for message in once), now)
    texts, encoded = zip(*(_body_columns(message.body) for message in once), strict=True)
    decimals = [None if text is None else len(text.partition(".")[2]) for text in classified["amount_text"].to_pylist()]
    instants = pa.timestamp("us", "UTC")
    stored = classified.drop_columns(["amount_text"]).combine_chunks()
    added = {
        "batch_sha256": pa.repeat(pa.scalar(key), len(once)),
        "body": pa.array(texts, pa.string()),
        "body_base64": pa.array(encoded, pa.string()),
        "sent_ts_utc": pa.array([message.sent_at for message in once], instants),
        "received_ts_utc": pa.array([message.received_at for message in once], instants),
        "receive_count": pa.array([message.receive_count for message in once], pa.int32()),
        "amount_decimals": pa.array(decimals, pa.int32()),
        "processed_at_utc": pa.repeat(pa.scalar(now, instants), len(once)),
    }
    for name, column in added.items():
        stored = stored.append_column(name, column)
    return conform(RAW_TRANSACTIONS, stored)


def _body_columns(body: bytes) -> tuple[str | None, str | None]:
    try:
        return body.decode(), None
    except UnicodeDecodeError:
        return None, base64.b64encode(body).decode("ascii")


def original_body(text: str | None, encoded: str | None) -> bytes:
    """Return the bytes of a message from the columns ``body`` and ``body_base64``."""
    return text.encode() if text is not None else base64.b64decode(encoded or "")
