"""What of the landing zone is not read, and why: one list for the table, the commands, the sensor and the checks.

What belongs here: bringing together what the landing zone refuses, what the reader was given up on and what a fault of
our own keeps waiting, as rows of ``raw/quarantined_files``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from finance_assets.storage.landing import RefusedEntry, printable_key
from finance_assets.storage.ledger import FileIdentity, FileRecord, FileStatus, Ledger

#: File of ``raw/quarantined_files`` that holds them; those of files that were read are called by their sha256.
LANDING_ZONE_KEY = "landing_zone"
#: Verdicts of the reader after which a file is given up.
MAX_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Unread:
    """What of the landing zone is not read.

    Attributes
    ----------
    refused
        Entries that are no files to read.
    given_up
        Files on which the reader broke as often as it is tried.
    waiting
        Files that a fault of ours keeps waiting, for as long as it lasts.
    """

    refused: tuple[RefusedEntry, ...]
    given_up: tuple[FileRecord, ...]
    waiting: tuple[FileRecord, ...]

    @property
    def retry_after(self) -> datetime | None:
        """When the first of the waiting files is tried again; None where none waits."""
        return min((one.retry_ts_utc for one in self.waiting if one.retry_ts_utc is not None), default=None)

    def rows(self, known: Mapping[str, datetime], now: datetime) -> list[dict[str, Any]]:
        """Return rows of ``raw/quarantined_files``.

        Parameters
        ----------
        known
            When those that stand there already were received, by ``file_sha256``.
        now
            When the others are.
        """
        found = [(entry.digest, entry.key, entry.size, entry.reason, entry.what_to_do) for entry in self.refused]
        for record in self.given_up:
            digest = digest_of_record(record.identity)
            mend = (
                f"report it to whoever maintains the reader; after a fix finance-assets vendors retry {digest[:12]}, "
                "or take the file away"
            )
            found.append(_row_of(digest, record, "reader failed", mend))
        for record in self.waiting:
            mend = "mend the cause; it is tried again by itself, ever more seldom, at least once an hour"
            found.append(_row_of(digest_of_record(record.identity), record, "cannot_be_read", mend))
        return [
            {
                "file_sha256": digest,
                "landing_key": key,
                "size_bytes": size,
                "received_ts_utc": known.get(digest, now),
                "vendor": "unknown",
                "reason": reason,
                "what_to_do": what_to_do,
            }
            for digest, key, size, reason, what_to_do in sorted(found)
        ]


def _row_of(digest: str, record: FileRecord, code: str, what_to_do: str) -> tuple[str, str, int, str, str]:
    identity = record.identity
    return digest, printable_key(identity.key), identity.size, f"{code}: {record.reason or 'unknown'}", what_to_do


def digest_of_record(identity: FileIdentity) -> str:
    """Return what stands for the sha256 of a file whose bytes are not in the lake."""
    return hashlib.sha256(f"{identity.key}\0{identity.size}\0{identity.fingerprint}".encode()).hexdigest()


def unread(ledger: Ledger, refused: Iterable[RefusedEntry], listed: Collection[FileIdentity]) -> Unread:
    """Return what is not read.

    A file that was given up stays on the list until it is tried again with success, or is gone and another version of
    it was dealt with; one that waits, for as long as it lies there.

    Parameters
    ----------
    ledger
        What is known of files.
    refused
        Entries that the landing zone refuses now.
    listed
        Files that lie there now.
    """
    failed = ledger.files(FileStatus.FAILED)
    dealt_with = {
        record.identity.key
        for record in ledger.of_keys({record.identity.key for record in failed if record.identity not in listed})
        if record.status is not FileStatus.FAILED
    }
    given_up = [
        record
        for record in failed
        if record.attempts >= MAX_ATTEMPTS and (record.identity in listed or record.identity.key not in dealt_with)
    ]
    waiting = [
        record for record in failed if record.attempts < MAX_ATTEMPTS and record.faults and record.identity in listed
    ]
    return Unread(tuple(refused), tuple(given_up), tuple(waiting))
