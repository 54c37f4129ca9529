"""Files of messages, one JSON object per line, and what becomes of each message.

What belongs here: ``finance-assets transactions classify`` without its terminal. The file is read and written piece by
piece; only ids and fingerprints of what stands are held.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import islice
from typing import IO, Any

from finance_assets.transactions.resolution import CONFLICT, resolve
from finance_assets.transactions.rules import ACCEPTED, REJECTED, classify_batch

#: Resolution -> word of the output.
WORDS = {ACCEPTED: "accept", REJECTED: "reject"}
CONFLICT_REASON = "duplicate_conflict"
_LINES_AT_ONCE = 10_000


class LineError(ValueError):
    """A line is no message; the text says which line and what is wrong with it."""


def classify_lines(lines: Iterable[bytes], now: datetime) -> Iterator[dict[str, Any]]:
    """Yield what becomes of each message, in the order of the lines.

    Parameters
    ----------
    lines
        JSON objects with ``message_id`` (a string) and either ``body`` (a string) or ``body_b64`` (its bytes in
        base64). Other members are ignored, and so are blank lines.
    now
        The instant against which the future is judged; aware.

    Yields
    ------
    dict
        ``message_id``; ``outcome``: accept, reject, duplicate or conflict; ``transaction_id``, of a rejected message
        as sent where it could be read; ``category``, ``amount`` (a string with the decimals that were sent),
        ``currency`` and ``timestamp_utc`` of accepted messages, else null; ``reason``: null where the message is
        accepted or a duplicate.

    Raises
    ------
    LineError
        A line is no such object.
    """
    known: dict[str, str] = {}
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while piece := [message_of_line(number, line) for number, line in islice(numbered, _LINES_AT_ONCE)]:
        table = classify_batch(piece, now)
        resolved = resolve(table, known)
        for row, settled in zip(table.to_pylist(), resolved.to_pylist(), strict=True):
            resolution = settled["resolution"]
            stands = resolution == ACCEPTED
            if stands:
                known[row["transaction_id"]] = row["fingerprint"]
            yield {
                "message_id": row["message_id"],
                "outcome": WORDS.get(resolution, resolution),
                "transaction_id": row["transaction_id"],
                "category": row["transaction_category"] if stands else None,
                "amount": row["amount_text"] if stands else None,
                "currency": row["currency"] if stands else None,
                "timestamp_utc": row["timestamp_utc"].isoformat() if stands else None,
                "reason": CONFLICT_REASON if resolution == CONFLICT else row["reason"],
            }


def classify_file(source: IO[bytes], target: IO[bytes], now: datetime) -> dict[str, int]:
    """Write what becomes of each message of ``source`` to ``target``, a line for a line; return outcome -> messages."""
    counts = dict.fromkeys((WORDS[ACCEPTED], "duplicate", "conflict", WORDS[REJECTED]), 0)
    for answer in classify_lines(source, now):
        counts[answer["outcome"]] += 1
        target.write(json.dumps(answer).encode() + b"\n")
    return counts


def message_of_line(number: int, line: bytes) -> tuple[str, bytes]:
    """Return the message id and the body of a line; LineError where it is no message."""
    try:
        given = json.loads(line)
    except ValueError:
        raise LineError(f"line {number} is not JSON") from None
    message_id = given.get("message_id") if isinstance(given, dict) else None
    if not isinstance(message_id, str):
        raise LineError(f"line {number} is no object with a message_id that is a string")
    body, encoded = given.get("body"), given.get("body_b64")
    if isinstance(body, str) and encoded is None:
        # A half character is no text: as bytes it is not UTF-8, which the rules will say.
        return message_id, body.encode("utf-8", "surrogatepass")
    if isinstance(encoded, str) and body is None:
        try:
            return message_id, base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            raise LineError(f"line {number}: body_b64 is not base64") from None
    raise LineError(f"line {number} needs either a body or a body_b64, a string")
