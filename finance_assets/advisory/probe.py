"""Reading a file in a process of its own, to see whether reading it ends the process.

What belongs here: the program that reads one file and keeps nothing, and the function that starts it. A run that was
killed, or ran out of memory, leaves behind which files it may have been reading; each of them is read here before it
is read in a run again, so that a file which ends whatever reads it ends no run more than twice.

    python -m finance_assets.advisory.probe FILE NAME [FOLDER OF CONTRACTS ...]
"""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path


class ProcessEndedError(RuntimeError):
    """A process ended while it read a file; the message says how."""


def try_reading(path: Path, name: str, contract_folders: Sequence[Path]) -> None:
    """Read a file in a process of its own.

    Parameters
    ----------
    path
        The file.
    name
        Name under which it was delivered.
    contract_folders
        Folders of vendor contracts.

    Raises
    ------
    ProcessEndedError
        A signal ended that process.
    """
    command = [sys.executable, "-P", "-m", __name__, str(path.absolute()), name, *map(str, contract_folders)]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
    )
    if done.returncode < 0:
        ended_by = signal.Signals(-done.returncode).name
        raise ProcessEndedError(
            f"reading it ended the process ({ended_by}): it needs more memory than there is, or breaks a library"
        )


def main(arguments: Sequence[str]) -> None:
    """Read the file that the command line names."""
    import pyarrow as pa

    from finance_assets.advisory.reading.blocks import LARGE_TEXT
    from finance_assets.advisory.reading.containers import FileBytes
    from finance_assets.advisory.reading.reader import read_vendor_file
    from finance_assets.advisory.vendor_contracts import load_all_contracts
    from finance_assets.storage.lake import ROW_GROUP_ROWS

    file, name, *folders = arguments
    contracts = load_all_contracts([Path(folder) for folder in folders])
    with Path(file).open("rb") as opened:
        is_large = Path(file).stat().st_size >= LARGE_TEXT
        data = FileBytes(opened.fileno()) if is_large else opened.read()
        reading = read_vendor_file(data, name, contracts=contracts, received_at=datetime.now(UTC))
        if not isinstance(reading.content, pa.Table):
            # Of a large file the rows are made part by part.
            for make in reading.content.parts(ROW_GROUP_ROWS):
                make()


if __name__ == "__main__":
    main(sys.argv[1:])
