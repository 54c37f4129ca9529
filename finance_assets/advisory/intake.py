"""From the landing zone to the raw tables: one file after the other, nothing lost, nothing twice.

What belongs here: which files are to be read, since when each is known, and the order of the durable writes. Reading a
file is ``reading``'s work, running is ``assets``'.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finance_assets.advisory.history import history_key
from finance_assets.contracts.advisory import (
    PERFORMANCE_HISTORY,
    QUARANTINED_FILES,
    QUARANTINED_ROWS,
    VENDOR_FILES,
    VENDOR_ROWS,
)
from finance_assets.storage.lake import ROW_GROUP_ROWS, Lake
from finance_assets.storage.landing import LandedFile, Landing
from finance_assets.storage.ledger import FileIdentity, FileStatus, Ledger
from finance_assets.storage.writers import WriterLostError

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.advisory.reading.containers import FileBytes
    from finance_assets.advisory.reading.reader import FileReading
    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.contracts.model import Contract
    from finance_assets.settings import Clock

#: Folder of the lake that keeps the bytes of vendors' files.
LANDED_FOLDER = "vendor_files"
SHIPPED_CONTRACTS = Path(__file__).parent / "vendors"
#: Known times differ at least by this: timestamps are stored in microseconds.
TICK = timedelta(microseconds=1)
MAX_ATTEMPTS = 3
#: The fictitious vendors of the sample: few enough for a quick look, and of the time of the sample's quotes.
SAMPLE_SEED, SAMPLE_ACCOUNTS, SAMPLE_MONTHS, SAMPLE_LAST_MONTH = 7, 40, 13, date(2013, 1, 31)


def _system_clock() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of one file.

    Attributes
    ----------
    key
        The file's key below the landing zone.
    action
        ``accept``, ``accept_with_warnings``, ``quarantine_file``, ``skip_duplicate``, or ``failed`` where the reader
        itself broke.
    reason
        Why the file is in quarantine or failed.
    rows, quarantined
        Rows loaded and left out.
    vendor
        Name of the contract or layout.
    """

    key: str
    action: str
    reason: str | None = None
    rows: int = 0
    quarantined: int = 0
    vendor: str = ""


@dataclass
class Intake:
    """The way of a file into the raw tables.

    Parameters
    ----------
    landing, lake, ledger
        Where files arrive, where tables and bytes are kept, and where it is written down what is done.
    contract_folders
        Folders of vendor contracts, later ones go before earlier ones.
    clock
        The real time. The clock of the sample stands in 2013 and would take every newer period for one of the future.
    """

    landing: Landing
    lake: Lake
    ledger: Ledger
    contract_folders: Sequence[Path] = (SHIPPED_CONTRACTS,)
    clock: Clock = field(default=_system_clock)

    @cached_property
    def contracts(self) -> list[VendorContract]:
        """Every vendor contract of the deployment."""
        from finance_assets.advisory.reading.vendor_contract import load_contracts

        found: dict[str, VendorContract] = {}
        for folder in self.contract_folders:
            if folder.is_dir():
                found |= {contract.vendor: contract for contract in load_contracts(folder)}
        return list(found.values())

    # -- what is to be done ------------------------------------------------------------------------------

    def pending(self) -> list[LandedFile]:
        """Return the landed files that are whole and not yet dealt with, oldest first."""
        listed = {file.identity: file for file in self.landing.whole(self.clock())}
        unseen = self.ledger.unseen(listed, max_attempts=MAX_ATTEMPTS)
        return sorted((listed[identity] for identity in unseen), key=lambda file: (file.modified, file.identity.key))

    def register(self) -> pa.Table:
        """Return ``raw/vendor_files``."""
        return self.lake.read(VENDOR_FILES).table

    # -- doing it ----------------------------------------------------------------------------------------

    def take(self, files: Iterable[LandedFile], log: Callable[[str], None] = lambda _: None) -> list[Taken]:
        """Read files into the raw tables, one after the other.

        Of each file the bytes are kept first, then its rows and what is quarantined, then its line in
        ``raw/vendor_files``; the ledger is told last. A run that is killed in between does the file again, with the
        same outcome. A file on which the reader breaks is noted and does not hold up the others.

        Parameters
        ----------
        files
            What to read, oldest first.
        log
            Told of every file.

        Raises
        ------
        VendorContractError
            A contract is broken. No file is touched: none of them is to blame.
        """
        from finance_assets.advisory.columns import keep_freed_memory

        keep_freed_memory()
        _ = self.contracts
        register = self.register()
        seen = _seen(register)
        written = _written(register)
        known_until = _newest(register)
        taken = []
        for file in files:
            identity = file.identity
            # Known time never runs backwards: a file that was put there with an old date is known from now on.
            received = min(file.modified, self.clock())
            is_again = (identity.key, identity.size, file.modified) in written
            if known_until is not None and received <= known_until and not is_again:
                received = known_until + TICK
            try:
                with self._arriving(identity) as (data, keep):
                    outcome, digest = self._take_one(data, keep, identity.key, received, seen)
            except WriterLostError:
                # Nothing is wrong with the file, and nothing of it may be said here any more.
                raise
            except Exception as error:
                reason = f"{type(error).__name__}: {error}"[:500]
                self.ledger.record(identity, FileStatus.FAILED, reason=reason)
                taken.append(Taken(identity.key, "failed", reason))
                log(f"{identity.key}: failed: {reason}")
                continue
            if outcome.action != "skip_duplicate":
                known_until = received if known_until is None else max(known_until, received)
                if outcome.action != "quarantine_file":
                    seen[digest] = (identity.key, identity.size)
            status = FileStatus.QUARANTINED if outcome.action == "quarantine_file" else FileStatus.PROCESSED
            self.ledger.record(identity, status, reason=outcome.reason)
            taken.append(outcome)
            log(_sentence(outcome))
        return taken

    def replay(self, digests: Sequence[str], log: Callable[[str], None] = lambda _: None) -> list[Taken]:
        """Read kept files again, as after a contract was added; what is new in them is known from now on.

        Parameters
        ----------
        digests
            SHA-256 of the files, as in ``raw/vendor_files``.
        log
            Told of every file.

        Raises
        ------
        KeyError
            A file was never received.
        """
        register = self.register()
        known = {row["file_sha256"]: row for row in register.to_pylist()}
        newest = _newest(register)
        taken = []
        for digest in digests:
            if digest not in known:
                raise KeyError(f"no file with sha256 {digest} was received")
            row = known[digest]
            received = self.clock() if newest is None else max(self.clock(), newest + TICK)
            newest = received
            with self._kept(digest) as data:
                outcome, _ = self._take_one(data, lambda _: None, row["landing_key"], received, {})
            taken.append(outcome)
            log(_sentence(outcome))
        return taken

    def bytes_of(self, digest: str) -> bytes:
        """Return the kept bytes of a file that was received."""
        return self.lake.get(self.lake.landed_path(digest, LANDED_FOLDER))

    @contextmanager
    def _arriving(self, file: FileIdentity) -> Iterator[tuple[bytes | FileBytes, Callable[[str], object]]]:
        """Give the bytes of a landed file, and what keeps them under their sha256; a large one stays on the disk."""
        from finance_assets.advisory.reading.blocks import LARGE_TEXT
        from finance_assets.advisory.reading.containers import FileBytes

        if self.landing.is_s3 or self.lake.is_s3 or file.size < LARGE_TEXT:
            data = self.landing.read(file.key)
            yield data, lambda digest: self.lake.land(data, LANDED_FOLDER, digest=digest)
        else:
            with self.lake.arriving(self.landing.path(file.key)) as copy:
                yield FileBytes(copy.descriptor), lambda digest: copy.keep(digest, LANDED_FOLDER)

    @contextmanager
    def _kept(self, digest: str) -> Iterator[bytes | FileBytes]:
        """Give the bytes of a file that was received; a large one stays on the disk."""
        from finance_assets.advisory.reading.blocks import LARGE_TEXT
        from finance_assets.advisory.reading.containers import FileBytes

        path = self.lake.landed_path(digest, LANDED_FOLDER)
        if self.lake.is_s3 or Path(path).stat().st_size < LARGE_TEXT:
            yield self.bytes_of(digest)
        else:
            with Path(path).open("rb") as file:
                yield FileBytes(file.fileno())

    def _take_one(
        self,
        data: bytes | FileBytes,
        keep: Callable[[str], object],
        key: str,
        received: datetime,
        seen: Mapping[str, tuple[str, int]],
    ) -> tuple[Taken, str]:
        import pyarrow as pa

        from finance_assets.advisory.reading.reader import digest_of, read_vendor_file

        name = key.rsplit("/", 1)[-1]
        with ThreadPoolExecutor(1, initializer=_step_aside) as pool:
            # The bytes are counted, and on their way to the disk, while they are read.
            counted = pool.submit(digest_of, data)
            kept = pool.submit(lambda: keep(counted.result()))
            may_be_known = any(size == len(data) for _, size in seen.values())
            reading = read_vendor_file(
                data,
                name,
                contracts=self.contracts,
                received_at=received,
                seen={digest: where for digest, (where, _) in seen.items()} if may_be_known else {},
                sha256=counted.result,
            )
            kept.result()
        digest = reading.sha256
        if reading.refused == "skip_duplicate":
            return Taken(key, reading.refused, f"the same bytes as {seen[digest][0]}"), digest
        tables = raw_tables(reading, key=key, size=len(data), received=received)
        # raw/vendor_files last: a file that has its line there has all its rows.
        for contract, rows in tables:
            if isinstance(rows, pa.Table):
                self.lake.write(contract, rows, key=digest)
            else:
                self.lake.write_parts(contract, rows, key=digest)
        outcome = Taken(
            key,
            reading.action,
            reading.file_reason,
            reading.row_count,
            reading.quarantined.num_rows,
            reading.vendor,
        )
        return outcome, digest

    # -- the history -------------------------------------------------------------------------------------

    def unknown_to_history(self) -> list[dict[str, Any]]:
        """Return the lines of ``raw/vendor_files`` whose rows the history has not seen yet, oldest first."""
        done = set(self.lake.partitions(PERFORMANCE_HISTORY))
        rows = [row for row in self.register().to_pylist() if row["action"].startswith("accept")]
        rows.sort(key=lambda row: (row["received_ts_utc"], row["file_sha256"]))
        return [row for row in rows if history_key(row["received_ts_utc"], row["file_sha256"]) not in done]


def _step_aside() -> None:
    """Let the other threads of the process go first where there is work for all cores."""
    # Elsewhere than on Linux a priority is a process's, and the number of a thread may be that of a stranger.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 10)


def drop_sample_files(folder: Path) -> int:
    """Put the files of fictitious vendors into a landing folder, as if they had come over two years; return how many.

    Files that are there already stay as they are, so that nothing is read twice. There is something to see in them:
    a correction, values that do not agree, a row that cannot be read, a file that was cut off, an account that is lost.
    """
    from finance_assets.advisory.generating import vendor_files

    folder.mkdir(parents=True, exist_ok=True)
    count = 0
    for file in vendor_files(SAMPLE_SEED, SAMPLE_ACCOUNTS, SAMPLE_MONTHS, SAMPLE_LAST_MONTH):
        path = folder / file.name
        count += 1
        if not path.exists():
            # Whole at once: a sensor may be looking.
            temporary = path.with_name(f".{path.name}")
            temporary.write_bytes(file.data)
            received = file.received_at.timestamp()
            os.utime(temporary, (received, received))
            temporary.replace(path)
    return count


def raw_tables(
    reading: FileReading, *, key: str, size: int, received: datetime
) -> Iterator[tuple[Contract, pa.Table | list[Callable[[], pa.Table]]]]:
    """Return a file's rows of each raw table, in the order in which they are to be written.

    Of a large file, what makes the rows part by part, in the order of the table.
    """
    import pyarrow as pa

    from finance_assets.contracts.arrow import storage_schema

    def constant(name: str, value: Any, rows: int) -> pa.Array:
        """Return a column of one value; text as a dictionary, since five million hashes take a third of a gigabyte."""
        kind = storage_schema(VENDOR_ROWS).field(name).type
        if not pa.types.is_string(kind):
            return pa.repeat(pa.scalar(value, kind), rows)
        return pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), pa.array([value], pa.string()))

    origin = {"file_sha256": reading.sha256, "vendor": reading.vendor, "received_ts_utc": received}

    def with_constants(table: pa.Table, values: Mapping[str, Any]) -> pa.Table:
        for name, value in values.items():
            table = table.append_column(name, constant(name, value, table.num_rows))
        return table

    first_version = origin | {"contract_version": reading.contract_version, "version": 1}
    if isinstance(reading.content, pa.Table):
        yield VENDOR_ROWS, with_constants(reading.content, first_version)
    else:
        parts = reading.content.parts(ROW_GROUP_ROWS)
        yield VENDOR_ROWS, [partial(lambda part: with_constants(part(), first_version), part) for part in parts]
    left_out = with_constants(reading.quarantined, origin)
    left_out = left_out.append_column("ordinal", pa.array(range(left_out.num_rows), pa.int32()))
    yield (
        QUARANTINED_ROWS,
        left_out.append_column("landing_key", pa.repeat(pa.scalar(key, pa.string()), left_out.num_rows)),
    )
    is_suspect = reading.refused == "quarantine_file"
    what_to_do = (
        "compare with a whole file, or write a contract (finance-assets vendors propose), then "
        f"finance-assets vendors replay {reading.sha256[:12]}"
    )
    line = {
        "file_sha256": reading.sha256,
        "landing_key": key,
        "size_bytes": size,
        "received_ts_utc": received,
        "vendor": reading.vendor,
    }
    suspect = [line | {"reason": reading.file_reason or "unknown", "what_to_do": what_to_do}] if is_suspect else []
    yield QUARANTINED_FILES, pa.Table.from_pylist(suspect, schema=storage_schema(QUARANTINED_FILES))
    line |= {
        "contract_version": reading.contract_version,
        "action": reading.action,
        "file_reason": reading.file_reason,
        "warnings": ";".join(reading.warnings),
        "row_count": reading.row_count,
        "quarantined_count": reading.quarantined.num_rows,
        "skipped": ";".join(f"{reason}={count}" for reason, count in sorted(reading.skipped.items())),
        "detection_score": None if reading.score is None else float(reading.score),
        "runner_up": reading.runner_up,
    }
    yield VENDOR_FILES, pa.Table.from_pylist([line], schema=storage_schema(VENDOR_FILES))


def _seen(register: pa.Table) -> dict[str, tuple[str, int]]:
    """Return key and size of the files of which something was loaded: their bytes need not be read again."""
    return {
        row["file_sha256"]: (row["landing_key"], row["size_bytes"])
        for row in register.to_pylist()
        if row["action"] != "quarantine_file"
    }


def _newest(register: pa.Table) -> datetime | None:
    import pyarrow.compute as pc

    newest = pc.max(register.column("received_ts_utc")).as_py()
    return None if newest is None else newest.astimezone(UTC)


def _written(register: pa.Table) -> set[tuple[str, int, datetime]]:
    """Return key, size and known time of every line: a run that died may have written one and not told the ledger."""
    return {(row["landing_key"], row["size_bytes"], row["received_ts_utc"]) for row in register.to_pylist()}


def _sentence(taken: Taken) -> str:
    reason = f" ({taken.reason})" if taken.reason else ""
    return f"{taken.key}: {taken.action}{reason}, {taken.rows} rows, {taken.quarantined} quarantined"
