"""Reading files without loading them: what would become of each.

Belongs here: the entries that the command line and the scorer of samples read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from finance_assets.advisory.reading.reader import FileReading, read_vendor_file
from finance_assets.advisory.reading.vendor_contract import VendorContract
from finance_assets.regular_files import read_regular

#: The largest file that is looked into here, where all of its rows are in memory; a run reads larger ones in parts.
MAX_INSPECTED_BYTES = 256 << 20


def _text(value: Any) -> Any:
    if isinstance(value, Decimal):
        plain = format(value, "f")
        if "." in plain:
            plain = plain.rstrip("0").rstrip(".")
        return "0" if plain in {"-0", ""} else plain
    return value.isoformat() if hasattr(value, "isoformat") else value


def file_entry(reading: FileReading) -> dict[str, Any]:
    """Return what became of a file as plain values.

    Parameters
    ----------
    reading
        What the reader gave.

    Returns
    -------
    dict
        Action, schema, reasons, rows with numbers as text.
    """
    rows = []
    for row in reading.rows.to_pylist():
        entry = {name: _text(value) for name, value in row.items()}
        entry["return"] = entry.pop("return_net")
        rows.append(entry)
    return {
        "action": reading.action,
        "vendor_schema": reading.vendor,
        "contract_version": reading.contract_version,
        "score": reading.score,
        "runner_up": reading.runner_up,
        "file_reason": reading.file_reason,
        "warnings": reading.warnings,
        "skipped": reading.skipped,
        "granularity": reading.granularity,
        "sha256": reading.sha256,
        "rows": rows,
        "quarantined": reading.quarantined.to_pylist(),
    }


def inspect_files(
    paths: Sequence[Path],
    contracts: Sequence[VendorContract] = (),
    received_at: datetime | Mapping[str, datetime] | None = None,
) -> dict[str, dict[str, Any]]:
    """Read files in the order in which they were received.

    Parameters
    ----------
    paths
        Files.
    contracts
        Contracts of known vendors.
    received_at
        When they were received: one time, or a time by file name; now where nothing is said.

    Returns
    -------
    dict
        File name -> entry. The same bytes under a second name are skipped.

    Raises
    ------
    UnreadableFileError
        A path names no regular file, a sparse one, or one of more than `MAX_INSPECTED_BYTES`.
    """
    now = datetime.now(UTC)

    def received(path: Path) -> datetime:
        if isinstance(received_at, Mapping):
            return received_at.get(path.name, now)
        return received_at or now

    seen: dict[str, str] = {}
    entries: dict[str, dict[str, Any]] = {}
    for path in sorted(paths, key=lambda p: (received(p).isoformat(), p.name)):
        data = read_regular(path, max_bytes=MAX_INSPECTED_BYTES)
        reading = read_vendor_file(data, path.name, contracts=contracts, received_at=received(path), seen=seen)
        seen.setdefault(reading.sha256, path.name)
        entries[path.name] = file_entry(reading)
    return entries
