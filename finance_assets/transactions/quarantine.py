"""What is in quarantine, as lines that can be repaired, classified again and sent again.

What belongs here: reading ``core/rejected_transactions`` and ``core/transaction_conflicts`` as messages, and the
messages of such a file. Nothing is taken out of quarantine: what was received stays what it was.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator
from typing import IO, TYPE_CHECKING, Any

from finance_assets.contracts.transactions import (
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.transactions.classifying import CONFLICT_REASON, message_of_line

if TYPE_CHECKING:
    from finance_assets.storage.lake import Lake


def quarantined(lake: Lake, reasons: Collection[str] = ()) -> Iterator[dict[str, Any]]:
    """Yield the messages in quarantine, oldest first.

    Parameters
    ----------
    lake
        Where the tables are.
    reasons
        Only these reason codes; a conflict has ``duplicate_conflict``. Empty: all.

    Yields
    ------
    dict
        ``message_id``, ``received_ts_utc`` (text), ``reason``, ``detail``, ``transaction_id`` and ``body`` or
        ``body_b64``: a line that ``transactions classify`` and ``transactions replay`` take.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    rejected = lake.read(REJECTED_TRANSACTIONS).table.to_pylist()
    conflicts = lake.read(TRANSACTION_CONFLICTS).table.to_pylist()
    # The body of a conflict is in raw alone.
    bodies = {
        (row["batch_sha256"], row["message_id"]): row
        for row in lake.read(
            RAW_TRANSACTIONS,
            keys={row["batch_sha256"] for row in conflicts},
            columns=["batch_sha256", "message_id", "body", "body_base64"],
            where=pc.field("message_id").isin(pa.array([row["message_id"] for row in conflicts], pa.string())),
        ).table.to_pylist()
    }
    for row in conflicts:
        kept = bodies[row["batch_sha256"], row["message_id"]]
        row.update(
            body=kept["body"],
            body_base64=kept["body_base64"],
            reason=CONFLICT_REASON,
            detail="a message with this id and other content stands; give this one an id of its own if both are meant",
        )
    for row in sorted(rejected + conflicts, key=lambda row: (row["received_ts_utc"], row["message_id"])):
        if reasons and row["reason"] not in reasons:
            continue
        body = {"body": row["body"]} if row["body"] is not None else {"body_b64": row["body_base64"]}
        yield {
            "message_id": row["message_id"],
            "received_ts_utc": row["received_ts_utc"].isoformat(),
            "reason": row["reason"],
            "detail": row["detail"],
            "transaction_id": row["transaction_id"],
            **body,
        }


def write_lines(entries: Iterable[dict[str, Any]], target: IO[bytes]) -> int:
    """Write messages as JSON lines; return how many."""
    count = 0
    for entry in entries:
        target.write(json.dumps(entry).encode() + b"\n")
        count += 1
    return count


def bodies_of(lines: Iterable[bytes]) -> list[bytes]:
    """Return the bodies of messages in JSON lines, as bytes.

    Raises
    ------
    LineError
        A line is no message; nothing is to be sent then.
    """
    return [message_of_line(number, line)[1] for number, line in enumerate(lines, 1) if line.strip()]
