"""The queue of transactions: SQS, on AWS or on this machine.

What belongs here: depth, receive, delete, hand back, hold, send, and bringing dead letters back. Nothing here knows
what a message means. boto3 is imported when a queue is first used.

SQS carries text. Bytes that are no such text (not UTF-8, or characters that it refuses) travel as base64 with the
message attribute ``content_encoding``, and come out as the bytes that went in.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any

from finance_assets.text import hide_url_secrets
from finance_assets.transactions.aws import READ_SECONDS, AwsError, explained, make_client, origin_of

#: SQS takes and gives at most so many messages at once.
BATCH = 10
#: Bytes of one batch: below what any SQS endpoint takes. A larger message travels alone.
BATCH_BYTES = 240 * 1024
#: The longest that SQS holds a receive open.
MAX_WAIT_SECONDS = 20
SEND_ATTEMPTS = 8
#: An answer of at most so many bytes is checked as a whole.
SMALL_ANSWER = 4096
FIRST_PAUSE_SECONDS = 0.1
ENCODING_ATTRIBUTE = "content_encoding"
QUEUE_SETTING = "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL"

#: What SQS refuses in a body (and an empty body).
_REFUSED = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class QueueError(AwsError):
    """The queue did not do what it was asked; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Depth:
    """About how many messages a queue holds.

    Attributes
    ----------
    visible
        Waiting to be received.
    in_flight
        Received and neither deleted nor handed back.
    delayed
        Sent with a delay that has not passed.
    """

    visible: int
    in_flight: int
    delayed: int

    @property
    def total(self) -> int:
        """All of them."""
        return self.visible + self.in_flight + self.delayed


@dataclass(frozen=True, slots=True)
class Message:
    """One delivery of one message.

    Attributes
    ----------
    message_id
        The queue's own id; the same at every delivery.
    receipt
        What deletes this delivery.
    body
        The bytes that were sent.
    sent_at
        When the queue took it, UTC, to the millisecond.
    received_at
        When this delivery was received, UTC.
    receive_count
        How often it was delivered, this time included.
    """

    message_id: str
    receipt: str
    body: bytes
    sent_at: datetime
    received_at: datetime
    receive_count: int


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass
class Queue:
    """One SQS queue; threads may share it.

    Parameters
    ----------
    url
        Address of the queue. One that is not at AWS is also the address of the endpoint.
    region
        AWS region; None takes that of the environment.
    clock
        What time it is, aware.
    connections
        How many threads use it at a time.
    """

    url: str = field(repr=False)
    region: str | None = None
    clock: Callable[[], datetime] = _system_clock
    connections: int = 10
    _pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    @cached_property
    def client(self) -> Any:
        """The boto3 client; made at first use."""
        client = make_client(
            "sqs",
            region=self.region,
            endpoint=origin_of(self.url),
            read_seconds=READ_SECONDS + MAX_WAIT_SECONDS,
            connections=self.connections,
        )
        client.meta.events.register("before-parse.sqs", _refuse_garbage)
        return client

    @property
    def address(self) -> str:
        """The address as it may be shown: without credentials and tokens."""
        return hide_url_secrets(self.url)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rstrip("/").rsplit("/", 1)[-1]

    def _call(self, doing: str, operation: str, **arguments: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            return getattr(self.client, operation)(QueueUrl=self.url, **arguments)
        except _GarbageError as error:
            raise QueueError(
                f"{doing} {self.url}: what answers is not SQS ({error}); is {QUEUE_SETTING} right, or is it a proxy?",
                is_passing=True,
            ) from error
        except (BotoCoreError, ClientError) as error:
            told = explained(error, f"{doing} {self.address}", setting=QUEUE_SETTING)
            raise QueueError(str(told), is_passing=told.is_passing) from error

    def depth(self) -> Depth:
        """Return about how many messages there are; receives none.

        Raises
        ------
        QueueError
            The queue is not there, out of reach, or refuses.
        """
        names = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
        answer = self._call("reading the depth of", "get_queue_attributes", AttributeNames=names)
        visible, in_flight, delayed = (int(answer.get("Attributes", {}).get(name, 0)) for name in names)
        return Depth(visible, in_flight, delayed)

    def visibility_seconds(self) -> int:
        """Return for how long a received message is hidden from other receivers."""
        answer = self._call("reading", "get_queue_attributes", AttributeNames=["VisibilityTimeout"])
        return int(answer.get("Attributes", {}).get("VisibilityTimeout", 30))

    def dead_letters(self) -> Queue:
        """Return the queue to which this one's redrive policy sends messages that were delivered too often.

        Raises
        ------
        QueueError
            It has no such policy.
        """
        answer = self._call("reading the redrive policy of", "get_queue_attributes", AttributeNames=["RedrivePolicy"])
        policy = answer.get("Attributes", {}).get("RedrivePolicy")
        if not policy:
            raise QueueError(
                f"{self.address} has no dead-letter queue; give it a redrive policy, or set "
                "FINANCE_ASSETS_TRANSACTIONS_DLQ_URL"
            )
        name = json.loads(policy)["deadLetterTargetArn"].rsplit(":", 1)[-1]
        # The queue of a policy is in the same account and region, so its address differs in the name only.
        return replace(self, url=f"{self.url.rstrip('/').rsplit('/', 1)[0]}/{name}")

    def receive(
        self, max_messages: int = BATCH, wait_seconds: int = 0, *, visibility_seconds: int | None = None
    ) -> list[Message]:
        """Receive messages; each stays hidden from others until it is deleted, handed back, or its time is over.

        Parameters
        ----------
        max_messages
            1 to 10.
        wait_seconds
            How long to wait for a first message, 0 to 20 (a long poll).
        visibility_seconds
            How long they stay hidden. None: as the queue is set.

        Returns
        -------
        list of Message
            Empty where none came.
        """
        hidden = {} if visibility_seconds is None else {"VisibilityTimeout": visibility_seconds}
        answer = self._call(
            "receiving from",
            "receive_message",
            MaxNumberOfMessages=max_messages,
            WaitTimeSeconds=wait_seconds,
            MessageSystemAttributeNames=["SentTimestamp", "ApproximateReceiveCount"],
            MessageAttributeNames=[ENCODING_ATTRIBUTE],
            **hidden,
        )
        now = self.clock()
        return [_message(one, now) for one in answer.get("Messages", ())]

    def delete(self, messages: Sequence[Message]) -> list[Message]:
        """Delete messages for good; return those that could not be deleted, which will be delivered again."""
        return self._in_batches("deleting from", "delete_message_batch", messages)

    def release(self, messages: Sequence[Message]) -> list[Message]:
        """Hand messages back, so that they are delivered again at once; return those that could not be."""
        return self.hold(messages, 0)

    def hold(self, messages: Sequence[Message], seconds: int) -> list[Message]:
        """Hide messages for so many more seconds; return those that could not be."""
        return self._in_batches(
            "holding messages of", "change_message_visibility_batch", messages, VisibilityTimeout=seconds
        )

    def _in_batches(self, doing: str, operation: str, messages: Sequence[Message], **more: Any) -> list[Message]:
        failed: list[Message] = []
        for start in range(0, len(messages), BATCH):
            batch = messages[start : start + BATCH]
            answer = self._call(
                doing,
                operation,
                Entries=[
                    {"Id": str(place), "ReceiptHandle": message.receipt, **more} for place, message in enumerate(batch)
                ],
            )
            failed += [batch[int(entry["Id"])] for entry in answer.get("Failed", ())]
        return failed

    def send(self, bodies: Iterable[bytes]) -> list[str]:
        """Send messages; return their ids in order.

        Those that the queue did not take for a reason of its own are sent again, with back-off. An answer that is lost
        on its way means that a message may be sent twice: what receives has to know a duplicate.

        Raises
        ------
        QueueError
            The queue refuses a body (empty, or too large), or goes on not taking some.
        """
        return [sent for batch in _batches(bodies) for sent in self._send_batch(batch)]

    def _send_batch(self, bodies: Sequence[bytes]) -> list[str]:
        ids: dict[int, str] = {}
        left = list(range(len(bodies)))
        for attempt in range(SEND_ATTEMPTS):
            answer = self._call(
                "sending to",
                "send_message_batch",
                Entries=[{"Id": str(place), **_carried(bodies[place])} for place in left],
            )
            ids.update({int(entry["Id"]): entry["MessageId"] for entry in answer.get("Successful", ())})
            failed = answer.get("Failed", ())
            if not failed:
                return [ids[place] for place in range(len(bodies))]
            for entry in failed:
                if entry.get("SenderFault"):
                    raise QueueError(
                        f"sending to {self.address}: a body of {len(bodies[int(entry['Id'])]):,} bytes was refused: "
                        f"{entry.get('Code')}: {entry.get('Message', '')}"
                    )
            left = [int(entry["Id"]) for entry in failed]
            self._pause(FIRST_PAUSE_SECONDS * 2**attempt)
        raise QueueError(
            f"sending to {self.address}: {len(left)} messages were not taken after {SEND_ATTEMPTS} attempts",
            is_passing=True,
        )

    def peek(self, limit: int) -> list[Message]:
        """Return up to ``limit`` messages and leave them there.

        SQS cannot look without receiving: they are received, which counts, and handed back.
        """
        seen: dict[str, Message] = {}
        try:
            while len(seen) < limit and (batch := self.receive(min(BATCH, limit - len(seen)), visibility_seconds=60)):
                seen.update({message.message_id: message for message in batch})
        finally:
            self.release(list(seen.values()))
        return list(seen.values())


def redrive(dead: Queue, main: Queue, limit: int | None = None) -> int:
    """Bring dead letters back to the queue they came from; return how many.

    Each is sent before it is deleted: a crash in between sends it twice, and loses none. A message has a new id and a
    receive count of zero afterwards. Only as many as were there at the beginning: one that dies again waits for the
    next call.
    """
    here = dead.depth()
    wanted = here.visible if limit is None else min(limit, here.visible)
    moved = 0
    while moved < wanted:
        batch = dead.receive(min(BATCH, wanted - moved), wait_seconds=1)
        if not batch:
            break
        main.send(message.body for message in batch)
        stuck = dead.delete(batch)
        if stuck:
            raise QueueError(
                f"{len(stuck)} messages were sent back to {main.address} but not deleted from {dead.address}; they "
                "will come again as duplicates, which have no effect"
            )
        moved += len(batch)
    return moved


def carried_text(body: bytes) -> tuple[str, bool]:
    """Return a body as SQS carries it, and whether that is base64."""
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if not text or _REFUSED.search(text):
        return base64.b64encode(body).decode("ascii"), True
    return text, False


def original_bytes(text: str, encoding: str | None) -> bytes:
    """Return the bytes that were sent, from the text that SQS carried and its ``content_encoding``."""
    if encoding == "base64":
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass  # some other sender's idea of the attribute: the text itself is what came
    return text.encode("utf-8", "surrogatepass")


def _carried(body: bytes) -> dict[str, Any]:
    if not body:
        raise QueueError("SQS does not carry an empty message")
    text, encoded = carried_text(body)
    if not encoded:
        return {"MessageBody": text}
    attribute = {"DataType": "String", "StringValue": "base64"}
    return {"MessageBody": text, "MessageAttributes": {ENCODING_ATTRIBUTE: attribute}}


def _message(raw: dict[str, Any], now: datetime) -> Message:
    attributes = raw.get("Attributes", {})
    encoding = raw.get("MessageAttributes", {}).get(ENCODING_ATTRIBUTE, {}).get("StringValue")
    return Message(
        message_id=raw["MessageId"],
        receipt=raw["ReceiptHandle"],
        body=original_bytes(raw["Body"], encoding),
        sent_at=_EPOCH + timedelta(milliseconds=int(attributes.get("SentTimestamp", 0))),
        received_at=now,
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
    )


def _batches(bodies: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut bodies into batches that SQS takes: at most ten, and not too many bytes."""
    batch: list[bytes] = []
    size = 0
    for body in bodies:
        cost = len(body) * 4 // 3 + 64  # as much as base64 makes of it
        if batch and (len(batch) == BATCH or size + cost > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(body)
        size += cost
    if batch:
        yield batch


class _GarbageError(Exception):
    """An answer is none of SQS."""


def _refuse_garbage(response_dict: Mapping[str, Any], operation_model: Any, **_: Any) -> None:
    """Raise where a good answer is not JSON: botocore would read a proxy's page as a queue without messages."""
    if response_dict["status_code"] >= 300:
        return
    body = bytes(response_dict["body"]).strip()
    # Some operations answer nothing. Only small answers are read twice.
    is_json = operation_model.output_shape is None if not body else body.startswith(b"{") and body.endswith(b"}")
    if is_json and 0 < len(body) <= SMALL_ANSWER:
        try:
            json.loads(body)
        except ValueError:
            is_json = False
    if not is_json:
        raise _GarbageError(f"{len(body)} bytes that are not JSON")
