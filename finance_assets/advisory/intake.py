"""From the landing zone to the raw tables: one file after the other, nothing lost, nothing twice.

What belongs here: which files are to be read, since when each is known, and the order of the durable writes. Reading a
file is ``reading``'s work, running is ``assets``'.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finance_assets.advisory.history import history_key
from finance_assets.advisory.probe import ProcessEndedError
from finance_assets.advisory.unread import LANDING_ZONE_KEY, MAX_ATTEMPTS, Unread, digest_of_record, unread
from finance_assets.advisory.vendor_contracts import load_all_contracts
from finance_assets.contracts.advisory import (
    PERFORMANCE_HISTORY,
    QUARANTINED_FILES,
    QUARANTINED_ROWS,
    VENDOR_FILES,
    VENDOR_ROWS,
)
from finance_assets.storage.faults import describe_error, is_fault, is_of_one_file
from finance_assets.storage.lake import ROW_GROUP_ROWS, Lake
from finance_assets.storage.landing import QUIET, ChangedError, LandedFile, Landing
from finance_assets.storage.ledger import FileIdentity, FileRecord, FileStatus, Ledger, Outcome
from finance_assets.storage.writers import WriterLostError
from finance_assets.text import escape_name

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
#: Files that the ledger is told of in one transaction, and the seconds after which it is told of fewer.
RECORDED_AT_ONCE, RECORDED_AFTER = 100, 1.0
#: After so many files in a row with a fault that is not of the file, the next one would meet it too.
FAULTS_IN_A_ROW = 2
#: A smaller file is read, hashed and kept by one thread.
SMALL_FILE_BYTES = 1 << 20
#: Warnings of a file whose time of modification says nothing: it is known from when it was read.
MODIFIED_IN_FUTURE, MODIFIED_BEFORE_1970 = "modified_in_future", "modified_before_1970"
#: Recorded in the ledger in place of a file: a run has begun to read files.
_A_RUN = FileIdentity("", 0, "")
#: A file that has no time has this one, or the zone's; some programs write it on purpose.
_NO_TIME = datetime(1970, 1, 2, tzinfo=UTC)
#: The fictitious vendors of the sample: few enough for a quick look, and of the time of the sample's quotes.
SAMPLE_SEED, SAMPLE_ACCOUNTS, SAMPLE_MONTHS, SAMPLE_LAST_MONTH = 7, 40, 13, date(2013, 1, 31)


def _system_clock() -> datetime:
    return datetime.now(UTC)


class IntakeError(RuntimeError):
    """Files were dealt with, but that could not be written down; they are read again, with the same outcome."""


class _NotReceivedError(Exception):
    """The bytes of a landed file could not be had; the cause says why."""


@dataclass(frozen=True, slots=True)
class IntakeResult:
    """What became of one file.

    Attributes
    ----------
    key
        The file's key below the landing zone.
    action
        ``accept``, ``accept_with_warnings``, ``quarantine_file``, ``skip_duplicate``; ``failed`` where the reader
        itself broke, or a fault kept us from dealing with it; ``changed`` where it was written meanwhile, so that it is
        another file the next time.
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


@dataclass(frozen=True, slots=True)
class Look:
    """What lies in the landing zone at a time.

    Attributes
    ----------
    pending
        Files to read, oldest first.
    unread
        What is not read, and why.
    """

    pending: tuple[LandedFile, ...]
    unread: Unread


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
    pause
        Waits for so many seconds.
    """

    landing: Landing
    lake: Lake
    ledger: Ledger
    contract_folders: Sequence[Path] = (SHIPPED_CONTRACTS,)
    clock: Clock = field(default=_system_clock)
    pause: Callable[[float], None] = field(default=time.sleep)

    @cached_property
    def contracts(self) -> list[VendorContract]:
        """Every vendor contract of the deployment."""
        return load_all_contracts(self.contract_folders)

    # -- what is to be done ------------------------------------------------------------------------------

    def pending(self, *, settle: bool = False) -> list[LandedFile]:
        """Return the landed files that are whole, not yet dealt with and not waiting for another try, oldest first.

        Parameters
        ----------
        settle
            Look a second time, after some seconds, at files that were written to just now, or whose time of
            modification lies in the future: those that are still the same are not left for a later call.
        """
        return list(self.look(settle=settle).pending)

    def look(self, *, settle: bool = False) -> Look:
        """Return what lies in the landing zone and is to be read, and what is not read; as :meth:`pending`."""
        now = self.clock()
        files, refused = self.landing.survey()
        listed = {file.identity: file for file in files}
        unseen = [listed[identity] for identity in self.ledger.unseen(listed, max_attempts=MAX_ATTEMPTS, now=now)]
        found = [file for file in unseen if self.landing.is_whole(file, now)]
        if settle:
            whole = {file.identity for file in found}
            unsettled = [file for file in unseen if file.identity not in whole]
            if unsettled:
                self.pause(QUIET.total_seconds())
                found += [file for file in unsettled if self.landing.has_settled(file)]
        found.sort(key=lambda file: (file.modified, file.identity.key))
        return Look(tuple(found), unread(self.ledger, refused, listed.keys()))

    def given_up(self) -> list[FileRecord]:
        """Return the files on which the reader broke as often as it is tried."""
        return list(self.look().unread.given_up)

    def waiting(self) -> list[FileRecord]:
        """Return the files that a fault of ours keeps waiting."""
        return list(self.look().unread.waiting)

    def retry_after(self) -> datetime | None:
        """Return when the first of the waiting files is tried again; None where none waits."""
        return self.look().unread.retry_after

    def is_noted(self, now: Unread | None = None) -> bool:
        """Whether ``raw/quarantined_files`` says what of the landing zone is not read now."""
        there, rows = self._left_out(now)
        return rows == there

    def unread_rows(self, now: Unread | None = None) -> list[dict[str, Any]]:
        """Return what ``raw/quarantined_files`` should say of entries that are not read."""
        return self._left_out(now)[1]

    def digests_to_retry(self) -> list[str]:
        """Return what stands in ``raw/quarantined_files`` for the sha256 of files that were given up or that wait."""
        now = self.look().unread
        return [digest_of_record(one.identity) for one in (*now.given_up, *now.waiting)]

    def retry(self, digests: Sequence[str]) -> list[str]:
        """Let files be tried again that were given up, or that wait; return their keys.

        Parameters
        ----------
        digests
            Of :meth:`digests_to_retry`.
        """
        now, wanted = self.look().unread, set(digests)
        chosen = [one for one in (*now.given_up, *now.waiting) if digest_of_record(one.identity) in wanted]
        self.ledger.try_again(one.identity for one in chosen)
        return [one.identity.key for one in chosen]

    def register(self) -> pa.Table:
        """Return ``raw/vendor_files``."""
        return self.lake.read(VENDOR_FILES).table

    def unfinished(self, look: Look | None = None) -> dict[Contract, str]:
        """Return the tables that do not hold yet what has arrived, with what is missing of each in words.

        The sensor, the command line and the status all ask this.

        Parameters
        ----------
        look
            What :meth:`look` has found; it looks by itself where none is given.
        """
        found: dict[Contract, str] = {}
        look = look or self.look()
        raw = (VENDOR_FILES, VENDOR_ROWS, QUARANTINED_ROWS, QUARANTINED_FILES)
        if look.pending:
            found |= dict.fromkeys(raw, f"{_counted(len(look.pending), 'file')} to be read in {self.landing.uri}")
        elif not self.is_noted(look.unread):
            found |= dict.fromkeys(raw, f"entries of {self.landing.uri} that cannot be read are not noted yet")
        unknown = self.unknown_to_history()
        if unknown:
            found[PERFORMANCE_HISTORY] = f"{_counted(len(unknown), 'file')} read and not yet added to the history"
        return found

    # -- doing it ----------------------------------------------------------------------------------------

    def take(self, files: Sequence[LandedFile], log: Callable[[str], None] = lambda _: None) -> list[IntakeResult]:
        """Read files into the raw tables, one after the other; note what else of the landing zone is not read.

        Of each file the bytes are kept first, then its rows and what is quarantined, then its line in
        ``raw/vendor_files``; the ledger is told last, of some files at once. A run that is killed in between does the
        files again, with the same outcome. A file on which the reader breaks, or that cannot be had, does not hold up
        the others. Where a fault is not of the file (a full disk, a bucket out of reach), the files after the second
        such one are left for the next run: they are not in the result.

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
        IntakeError
            What was done could not be written down.
        """
        from finance_assets.advisory.columns import keep_freed_memory

        keep_freed_memory()
        _ = self.contracts
        known = _Known.of(self.register())
        taken: list[IntakeResult] = []
        faults = 0
        notes = _Notes(self.ledger)
        # Where a run before was killed, any file that it may have been reading can be the reason.
        suspects: set[FileIdentity] = set()
        deadly: set[FileIdentity] = set()
        if files:
            try:
                suspects = self.ledger.reading()
                self.ledger.begin_reading(_A_RUN)
            except Exception as error:
                raise IntakeError(
                    f"no file was read, because the ledger is unavailable ({describe_error(error)})"
                ) from error
        try:
            for file in files:
                try:
                    if suspects:
                        if file.identity in suspects:
                            deadly.add(file.identity)
                            self._try_reading(file)
                            deadly.discard(file.identity)
                        self.ledger.begin_reading(file.identity)
                    one = self._take(file, known)
                except WriterLostError:
                    # Nothing is wrong with the file, and nothing of it may be said here any more.
                    raise
                except ChangedError as error:
                    one = IntakeResult(file.identity.key, "changed", str(error))
                except Exception as error:
                    one, fault = self._failed(file, error, notes)
                    taken.append(one)
                    log(_sentence(one))
                    faults += fault
                    if faults >= FAULTS_IN_A_ROW:
                        log(f"the next file would meet the same; stopped after {faults} in a row: {one.reason}")
                        break
                    continue
                faults = 0
                if one.action != "changed":
                    status = FileStatus.QUARANTINED if one.action == "quarantine_file" else FileStatus.PROCESSED
                    notes.add(Outcome(file.identity, status, one.reason))
                taken.append(one)
                log(_sentence(one))
        finally:
            notes.write()
            # Those that wait are suspects for as long as they do.
            # Where that cannot be written down, the next run reads with care, and nothing else.
            if files:
                with suppress(Exception):
                    self.ledger.end_reading(deadly | suspects.difference(file.identity for file in files) - {_A_RUN})
        if faults < FAULTS_IN_A_ROW:
            self._note_left_out()
        return taken

    def _try_reading(self, file: LandedFile) -> None:
        """Read a file in a process of its own, and keep nothing; raise where that process is ended by a signal."""
        from finance_assets.advisory.probe import try_reading

        name = file.identity.key.rsplit("/", 1)[-1]
        with ExitStack() as stack:
            if self.landing.is_s3:
                path = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "file"
                path.write_bytes(self.landing.read_version(file.identity))
            else:
                path = self.landing.path(file.identity.key)
            try_reading(path, name, self.contract_folders)

    def _failed(self, file: LandedFile, error: Exception, notes: _Notes) -> tuple[IntakeResult, int]:
        """Note that a file was not dealt with; return that, and 1 where the next file would meet the same fault."""
        is_deadly = isinstance(error, ProcessEndedError)
        is_ours = is_fault(error) or is_deadly or isinstance(error, _NotReceivedError)
        if isinstance(error, _NotReceivedError) and isinstance(error.__cause__, Exception):
            cause, is_of_file = error.__cause__, is_of_one_file(error.__cause__)
        else:
            cause, is_of_file = error, is_deadly
        reason = str(error) if is_deadly else describe_error(cause)
        if not is_ours:
            notes.add(Outcome(file.identity, FileStatus.FAILED, reason))
            return IntakeResult(file.identity.key, "failed", reason), 0
        notes.write()
        try:
            self.ledger.record_fault(file.identity, reason=reason, now=self.clock())
        except Exception as other:
            raise IntakeError(
                f"{escape_name(file.identity.key)} could not be read ({reason}), and the ledger could not be updated "
                f"({describe_error(other)}); the file will be retried after the cause is fixed"
            ) from error
        return IntakeResult(file.identity.key, "failed", reason), 0 if is_of_file else 1

    def _take(self, file: LandedFile, known: _Known) -> IntakeResult:
        """Read one file into the raw tables, and add it to what is known."""
        identity, now = file.identity, self.clock()
        # Known time never runs backwards: a file that was put there with an old date is known from now on.
        warning = (
            MODIFIED_IN_FUTURE if file.modified > now else MODIFIED_BEFORE_1970 if file.modified < _NO_TIME else ""
        )
        received = now if warning else file.modified
        is_again = (identity.key, identity.size, file.modified) in known.written
        if known.until is not None and received <= known.until and not is_again:
            received = known.until + TICK
        with self._arriving(identity) as (data, keep):
            taken, digest = self._take_one(data, keep, identity.key, received, known, warning)
        if taken.action != "skip_duplicate":
            known.add(digest, identity, taken, received)
            return taken
        before = known.loaded[digest]
        # A run that died had written its line already.
        return before.taken if (before.key, before.size) == (identity.key, identity.size) and is_again else taken

    def _left_out(self, now: Unread | None = None) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return what ``raw/quarantined_files`` says of entries that are not read, and what it should say."""
        there = self.lake.read(QUARANTINED_FILES, keys=[LANDING_ZONE_KEY]).table.to_pylist()
        since = {row["file_sha256"]: row["received_ts_utc"] for row in there}
        return there, (self.look().unread if now is None else now).rows(since, self.clock())

    def _note_left_out(self) -> None:
        """Bring what is not read into ``raw/quarantined_files``."""
        import pyarrow as pa

        from finance_assets.contracts.arrow import storage_schema

        there, rows = self._left_out()
        if rows != there:
            table = pa.Table.from_pylist(rows, schema=storage_schema(QUARANTINED_FILES))
            self.lake.write(QUARANTINED_FILES, table, key=LANDING_ZONE_KEY)

    def replay(self, digests: Sequence[str], log: Callable[[str], None] = lambda _: None) -> list[IntakeResult]:
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
        lines = {row["file_sha256"]: row for row in register.to_pylist()}
        newest = _Known.of(register).until
        taken = []
        for digest in digests:
            if digest not in lines:
                raise KeyError(f"no file with sha256 {digest} was received")
            row = lines[digest]
            received = self.clock() if newest is None else max(self.clock(), newest + TICK)
            newest = received
            with self._kept(digest) as data:
                outcome, _ = self._take_one(data, lambda _: None, row["landing_key"], received, _Known())
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

        with ExitStack() as stack:
            try:
                if self.landing.is_s3 or self.lake.is_s3 or file.size < LARGE_TEXT:
                    data = self.landing.read_version(file)
                else:
                    copy = stack.enter_context(self.lake.stage_file(self.landing.path(file.key)))
                    self.landing.check_unchanged(file)
                    data = None
            except ChangedError:
                raise
            except Exception as error:
                raise _NotReceivedError from error
            if data is not None:
                yield data, lambda digest: self.lake.land(data, LANDED_FOLDER, digest=digest)
            else:
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
        known: _Known,
        warning: str = "",
    ) -> tuple[IntakeResult, str]:
        import pyarrow as pa

        from finance_assets.advisory.columns import one_of_many
        from finance_assets.advisory.reading.reader import digest_of, read_vendor_file

        name = key.rsplit("/", 1)[-1]

        def read(sha256: Callable[[], str]) -> FileReading:
            return read_vendor_file(
                data,
                name,
                contracts=self.contracts,
                received_at=received,
                # The hash is only waited for where it can be one of these.
                seen=known.names if len(data) in known.sizes else {},
                sha256=sha256,
            )

        if isinstance(data, bytes) and len(data) < SMALL_FILE_BYTES:
            # A thread would take longer than its work.
            digest = digest_of(data)
            keep(digest)
            with one_of_many():
                reading = read(lambda: digest)
        else:
            with ThreadPoolExecutor(1, initializer=_step_aside) as pool:
                # The bytes are counted, and on their way to the disk, while they are read.
                counted = pool.submit(digest_of, data)
                kept = pool.submit(lambda: keep(counted.result()))
                reading = read(counted.result)
                kept.result()
        if warning and reading.refused is None:
            reading = replace(reading, noticed=reading.noticed | {warning})
        digest = reading.sha256
        if reading.refused == "skip_duplicate":
            return IntakeResult(key, reading.refused, f"the same bytes as {known.loaded[digest].key}"), digest
        tables = raw_tables(reading, key=key, size=len(data), received=received)
        # raw/vendor_files last: a file that has its line there has all its rows.
        for contract, rows in tables:
            if isinstance(rows, pa.Table):
                self.lake.write(contract, rows, key=digest)
            else:
                self.lake.write_parts(contract, rows, key=digest)
        outcome = IntakeResult(
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


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


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
    quarantined = with_constants(reading.quarantined, origin)
    quarantined = quarantined.append_column("ordinal", pa.array(range(quarantined.num_rows), pa.int32()))
    yield (
        QUARANTINED_ROWS,
        quarantined.append_column("landing_key", pa.repeat(pa.scalar(key, pa.string()), quarantined.num_rows)),
    )
    is_suspect = reading.refused == "quarantine_file"
    advice = reading.explanation or "compare with a whole file, or write a contract (finance-assets vendors propose)"
    what_to_do = f"{advice}, then finance-assets vendors replay {reading.sha256[:12]}"
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


@dataclass
class _Known:
    """What ``raw/vendor_files`` says, and what was read since.

    Attributes
    ----------
    loaded
        sha256 -> the file, of files of which something was loaded: their bytes need not be read again.
    names
        sha256 -> its key.
    sizes
        How long those are.
    written
        Key, size and known time of every line: a run that died may have written one and not told the ledger.
    until
        Known time of the newest line.
    """

    loaded: dict[str, _Loaded] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    sizes: set[int] = field(default_factory=set)
    written: set[tuple[str, int, datetime]] = field(default_factory=set)
    until: datetime | None = None

    @classmethod
    def of(cls, register: pa.Table) -> _Known:
        import pyarrow.compute as pc

        known = cls()
        newest = pc.max(register.column("received_ts_utc")).as_py()
        known.until = None if newest is None else newest.astimezone(UTC)
        for row in register.to_pylist():
            known.written.add((row["landing_key"], row["size_bytes"], row["received_ts_utc"]))
            if row["action"] != "quarantine_file":
                taken = IntakeResult(
                    row["landing_key"],
                    row["action"],
                    None,
                    row["row_count"],
                    row["quarantined_count"],
                    row["vendor"],
                )
                known._load(row["file_sha256"], row["size_bytes"], taken)
        return known

    def add(self, digest: str, identity: FileIdentity, taken: IntakeResult, received: datetime) -> None:
        """Add a file that was read."""
        self.until = received if self.until is None else max(self.until, received)
        if taken.action != "quarantine_file":
            self._load(digest, identity.size, taken)

    def _load(self, digest: str, size: int, taken: IntakeResult) -> None:
        self.loaded[digest] = _Loaded(size, taken)
        self.names[digest] = taken.key
        self.sizes.add(size)


@dataclass(frozen=True, slots=True)
class _Loaded:
    size: int
    taken: IntakeResult

    @property
    def key(self) -> str:
        return self.taken.key


@dataclass
class _Notes:
    """What the ledger has yet to be told, some files at once."""

    ledger: Ledger
    outcomes: list[Outcome] = field(default_factory=list)
    since: float = field(default_factory=time.monotonic)

    def add(self, outcome: Outcome) -> None:
        """Keep an outcome; tell the ledger where it has waited for long enough."""
        self.outcomes.append(outcome)
        if len(self.outcomes) >= RECORDED_AT_ONCE or time.monotonic() - self.since > RECORDED_AFTER:
            self.write()

    def write(self) -> None:
        """Tell the ledger of all."""
        outcomes, self.outcomes, self.since = self.outcomes, [], time.monotonic()
        if not outcomes:
            return
        try:
            self.ledger.record_all(outcomes)
        except Exception as error:
            raise IntakeError(
                f"{len(outcomes)} files were read, but the ledger could not be updated ({describe_error(error)}); fix "
                "the cause and materialize raw/vendor_files: they are read again, with the same outcome"
            ) from error


def _sentence(taken: IntakeResult) -> str:
    if taken.action in ("failed", "changed"):
        return f"{escape_name(taken.key)}: {taken.action}: {taken.reason}"
    reason = f" ({taken.reason})" if taken.reason else ""
    return f"{escape_name(taken.key)}: {taken.action}{reason}, {taken.rows} rows, {taken.quarantined} quarantined"
