"""The DynamoDB table of the low-latency path: one item per transaction that stands.

What belongs here: putting transactions so that the first one of an id stands, a repetition changes nothing, and other
content under the same id is seen. boto3 is imported at first use.

One ``TransactWriteItems`` carries up to a hundred conditional puts, which is what makes a thousand a second possible
where a single put takes a millisecond of a processor. It writes all or none: where some ids are taken, DynamoDB names
them and shows what stands there, and the rest is sent again.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any, Literal

from finance_assets.transactions.aws import AwsError, explained, make_client

#: DynamoDB takes at most so many puts in one transaction.
PUTS_AT_ONCE = 100
#: Text that one transaction carries at most: DynamoDB refuses more than 4 MB.
BYTES_AT_ONCE = 2 * 1024 * 1024
#: DynamoDB takes no longer key; a longer id is replaced by its hash there.
MAX_KEY_BYTES = 2048
ATTEMPTS = 6
FIRST_PAUSE_SECONDS = 0.05
TABLE_SETTING = "FINANCE_ASSETS_TRANSACTIONS_TABLE"

Placed = Literal["accepted", "duplicate", "conflict", "failed"]
#: Reasons for which a put of a cancelled transaction is simply sent again.
_AGAIN = ("None", "TransactionConflict", "ThrottlingError", "ProvisionedThroughputExceeded")


@dataclass(frozen=True, slots=True)
class Item:
    """One accepted transaction, as it goes into the table.

    Attributes
    ----------
    transaction_id, user_id, currency, merchant, transaction_category
        As the rules give them.
    amount
        The exact amount as digits.
    timestamp_utc, processed_at_utc
        When it was paid, and when it was classified.
    extra
        JSON of what else the message said.
    fingerprint
        Hash of its meaning.
    message_id
        The queue's id of the message that brought it.
    """

    transaction_id: str
    user_id: str
    amount: str
    currency: str
    timestamp_utc: datetime
    merchant: str
    transaction_category: str
    extra: str | None
    fingerprint: str
    processed_at_utc: datetime
    message_id: str

    @property
    def key(self) -> str:
        """The partition key: the id, or its hash where it is too long for a key."""
        encoded = self.transaction_id.encode("utf-8")
        if len(encoded) <= MAX_KEY_BYTES:
            return self.transaction_id
        return f"sha256:{hashlib.sha256(encoded).hexdigest()}"

    def attributes(self) -> dict[str, dict[str, str]]:
        """Return it as DynamoDB writes it; amounts are its exact decimals of up to 38 digits."""
        texts = {
            "transaction_id": self.key,
            "user_id": self.user_id,
            "currency": self.currency,
            "timestamp_utc": _instant(self.timestamp_utc),
            "merchant": self.merchant,
            "transaction_category": self.transaction_category,
            "fingerprint": self.fingerprint,
            "processed_at_utc": _instant(self.processed_at_utc),
            "message_id": self.message_id,
        }
        written = {name: {"S": value} for name, value in texts.items()}
        written["amount"] = {"N": self.amount}
        if self.extra is not None:
            written["extra"] = {"S": self.extra}
        if self.key != self.transaction_id:
            written["full_transaction_id"] = {"S": self.transaction_id}
        return written


def _instant(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


class TableError(AwsError):
    """The table did not do what it was asked; the message says why and what to do."""


@dataclass
class TransactionTable:
    """The table; threads may share it.

    Parameters
    ----------
    name
        Its name. Its partition key is the text ``transaction_id``.
    region, endpoint
        As for the queue.
    connections
        How many threads use it at a time.
    """

    name: str
    region: str | None = None
    endpoint: str | None = None
    connections: int = 4
    _pause: Callable[[float], None] = field(default=time.sleep, repr=False)

    @cached_property
    def client(self) -> Any:
        """The boto3 client; made at first use."""
        return make_client("dynamodb", region=self.region, endpoint=self.endpoint, connections=self.connections)

    def put(self, items: Sequence[Item]) -> list[Placed]:
        """Put transactions; return what became of each, in order.

        Returns
        -------
        list
            ``accepted``: it stands, by this message (which may have come before). ``duplicate``: the same meaning
            stands, by another message. ``conflict``: something else stands under the id. ``failed``: DynamoDB refuses
            this very item, whatever is tried.

        Raises
        ------
        TableError
            The table is not there, out of reach, or refuses. Some of the items may be in it; putting all of them again
            is right.
        """
        placed: list[Placed] = []
        for part in _parts(items):
            placed += self._put_part(part)
        return placed

    def _put_part(self, items: Sequence[Item]) -> list[Placed]:
        # One transaction may name a key once. The first of a key is put; the others are held against what stands.
        first: dict[str, int] = {}
        for place, item in enumerate(items):
            first.setdefault(item.key, place)
        standing: dict[str, tuple[str, str]] = {}
        failed: set[str] = set()
        waiting = list(first)
        for attempt in range(ATTEMPTS):
            if not waiting:
                break
            before = len(waiting)
            waiting = self._try([items[first[key]] for key in waiting], standing, failed)
            if len(waiting) == before:  # nobody's fault but the table's: it is busy
                self._pause(FIRST_PAUSE_SECONDS * 2**attempt)
        if waiting:
            raise TableError(
                f"putting to {self.name}: {len(waiting)} items were not taken in {ATTEMPTS} attempts; it is busy",
                is_passing=True,
            )
        return [self._outcome(item, standing, failed) for item in items]

    @staticmethod
    def _outcome(item: Item, standing: dict[str, tuple[str, str]], failed: set[str]) -> Placed:
        if item.key in failed:
            return "failed"
        fingerprint, message_id = standing[item.key]
        if fingerprint != item.fingerprint:
            return "conflict"
        return "accepted" if message_id == item.message_id else "duplicate"

    def _try(self, items: Sequence[Item], standing: dict[str, tuple[str, str]], failed: set[str]) -> list[str]:
        """Put items at once; note what stands and what cannot be put; return the keys to try again."""
        from botocore.exceptions import BotoCoreError, ClientError

        puts = [
            {
                "Put": {
                    "TableName": self.name,
                    "Item": item.attributes(),
                    "ConditionExpression": "attribute_not_exists(transaction_id)",
                    "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
                }
            }
            for item in items
        ]
        try:
            self.client.transact_write_items(TransactItems=puts)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code", "")
            reasons = error.response.get("CancellationReasons")
            if code == "TransactionCanceledException" and reasons and len(reasons) == len(items):
                return self._cancelled(items, reasons, standing, failed)
            if code == "ValidationException" and len(items) > 1:
                # One of them is no item: find it by putting each alone.
                return [key for item in items for key in self._try([item], standing, failed)]
            if code == "ValidationException":
                failed.add(items[0].key)
                return []
            raise self._explained(error) from error
        except BotoCoreError as error:
            raise self._explained(error) from error
        standing.update({item.key: (item.fingerprint, item.message_id) for item in items})
        return []

    def _cancelled(
        self,
        items: Sequence[Item],
        reasons: Sequence[dict[str, Any]],
        standing: dict[str, tuple[str, str]],
        failed: set[str],
    ) -> list[str]:
        again: list[str] = []
        for item, reason in zip(items, reasons, strict=True):
            code = reason.get("Code") or "None"
            if code == "ConditionalCheckFailed":
                old = reason.get("Item", {})
                standing[item.key] = (
                    old.get("fingerprint", {}).get("S", ""),
                    old.get("message_id", {}).get("S", ""),
                )
            elif code in _AGAIN:
                again.append(item.key)
            else:
                failed.add(item.key)
        return again

    def _explained(self, error: Exception) -> TableError:
        told = explained(error, f"putting to the DynamoDB table {self.name}", setting=TABLE_SETTING)
        return TableError(str(told), is_passing=told.is_passing)


def _parts(items: Sequence[Item]) -> list[Sequence[Item]]:
    parts: list[list[Item]] = [[]]
    size = 0
    for item in items:
        # What can be long; an item is hardly more than its message, of 256 KiB at most.
        cost = 512 + 4 * (len(item.extra or "") + len(item.merchant) + len(item.transaction_id) + len(item.user_id))
        if parts[-1] and (len(parts[-1]) == PUTS_AT_ONCE or size + cost > BYTES_AT_ONCE):
            parts.append([])
            size = 0
        parts[-1].append(item)
        size += cost
    return [part for part in parts if part]
