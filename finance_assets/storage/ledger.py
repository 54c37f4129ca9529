"""The ledger: what was seen and what was done with it, and what was spent of a quota.

What belongs here: small facts that must survive a crash and be shared by every worker, in one SQL database: SQLite on a
laptop, PostgreSQL where several machines work. A row is written after the durable write it tells of, never before;
sensors plan by comparing a listing with the ledger, assets commit to it.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import sqlalchemy as sa

    from finance_assets.settings import Clock

BUSY_TIMEOUT_SECONDS = 30
#: Pause between two attempts to set up a SQLite file that another process is setting up.
SET_UP_PAUSE_SECONDS = 0.05
#: Any number that only the ledger's set-up locks by, in a PostgreSQL database that it may share.
SET_UP_LOCK = 7_310_421_996
#: Keys asked for in one statement: SQLite and PostgreSQL both limit the parameters.
KEYS_AT_ONCE = 500
#: Pause before the third try after a fault; it doubles with each that follows. The second try comes at once.
FIRST_PAUSE = timedelta(seconds=30)
LONGEST_PAUSE = timedelta(hours=1)
#: A reason is a sentence, not a document.
LONGEST_REASON = 500


class LedgerError(RuntimeError):
    """The ledger's database is damaged; the message says which and what to do."""


class FileStatus(StrEnum):
    """What became of a landed file."""

    PROCESSED = "processed"
    QUARANTINED = "quarantined"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class FileIdentity:
    """What makes a file the same file: where it is, how long it is, and what it holds.

    Attributes
    ----------
    key
        Path below the landing folder, or the object's key.
    size
        Bytes.
    fingerprint
        ``sha256:…`` of the content, or ``etag:…`` as the object store gives it.
    """

    key: str
    size: int
    fingerprint: str


@dataclass(frozen=True, slots=True)
class FileRecord:
    """What the ledger knows of a file.

    Attributes
    ----------
    identity
        The file.
    status
        What became of it.
    attempts
        Verdicts on the file; faults of our own are not among them.
    reason
        Why it is in quarantine or failed.
    run_id
        Run that said so.
    recorded_ts_utc
        When that was.
    faults
        Faults in a row of disk, database, network or memory that kept us from reading it.
    retry_ts_utc
        When it is tried again after a fault; None where nothing is waited for.
    """

    identity: FileIdentity
    status: FileStatus
    attempts: int
    reason: str | None
    run_id: str | None
    recorded_ts_utc: datetime
    faults: int = 0
    retry_ts_utc: datetime | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is to be recorded of a file."""

    identity: FileIdentity
    status: FileStatus
    reason: str | None = None
    run_id: str | None = None


def pause_after(faults: int) -> timedelta:
    """Return how long to wait after so many faults in a row: not at all, then ever longer, an hour at the most."""
    if faults < 2:
        return timedelta(0)
    # Beyond so many doublings the longest pause holds in any case.
    return min(LONGEST_PAUSE, FIRST_PAUSE * (1 << min(faults - 2, 16)))


class Ledger:
    """The ledger in one SQL database.

    Parameters
    ----------
    url
        SQLAlchemy address; SQLite and PostgreSQL are supported.
    clock
        Gives the time written into the rows.

    Notes
    -----
    Every change is one statement that the database makes atomic, so workers need no lock among themselves.
    """

    def __init__(self, url: str, clock: Clock) -> None:
        self._url = url
        self._clock = clock
        self._opening = threading.Lock()
        self._opened: sa.Engine | None = None

    def __repr__(self) -> str:
        """Name the ledger without the password that its address may hold; nothing is opened for it."""
        return f"Ledger({self._address().render_as_string(hide_password=True)!r})"

    def _address(self) -> sa.URL:
        import sqlalchemy as sa

        try:
            url = sa.make_url(self._url)
        except (sa.exc.ArgumentError, ValueError):
            # The cause is left out: it may repeat a piece of the address, and so of the password.
            raise ValueError(
                "FINANCE_ASSETS_LEDGER_URL is no address of a database; write sqlite:////path/to/file or "
                "postgresql+psycopg://user:password@host/database"
            ) from None
        backend = url.get_backend_name()
        if backend not in ("sqlite", "postgresql"):
            raise ValueError(f"the ledger runs on sqlite or postgresql, not on {backend}")
        # Without a driver SQLAlchemy would look for psycopg2, which is not among our dependencies.
        return url.set(drivername="postgresql+psycopg") if url.drivername == "postgresql" else url

    @property
    def _engine(self) -> sa.Engine:
        with self._opening:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> sa.Engine:
        """Connect and make the tables; several processes may do so at once."""
        import sqlalchemy as sa

        url = self._address()
        if url.get_backend_name() == "postgresql":
            engine = sa.create_engine(url, pool_pre_ping=True)

            @sa.event.listens_for(engine, "do_connect")
            def _connect(_: object, __: object, given: Any, named: Any) -> Any:
                from finance_assets.storage.postgres import connect

                return connect(*given, statement_seconds=BUSY_TIMEOUT_SECONDS, **named)

            with engine.begin() as connection:
                # Even "create table if not exists" fails where two sessions run it at once.
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(SET_UP_LOCK)))
                self._tables.create_all(connection)
                self._add_new_columns(connection)
            return engine
        if url.database and url.database != ":memory:":
            Path(url.database).parent.mkdir(parents=True, exist_ok=True)
        engine = sa.create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_SECONDS})

        @sa.event.listens_for(engine, "connect")
        def _durable(connection: Any, _: object) -> None:
            # What is committed is on the disk, whatever SQLite was compiled to do with a write-ahead log.
            try:
                connection.execute("pragma synchronous = full")
            except sqlite3.DatabaseError as error:
                raise self._explained(error) from error

        @sa.event.listens_for(engine, "handle_error")
        def _explain(context: Any) -> None:
            explained = self._explained(context.original_exception)
            if isinstance(explained, LedgerError):
                raise explained from context.original_exception

        deadline = time.monotonic() + BUSY_TIMEOUT_SECONDS
        while True:
            try:
                with closing(engine.raw_connection()) as raw:
                    # Readers and a writer side by side.
                    raw.cursor().execute("pragma journal_mode = wal")
                self._tables.create_all(engine)
                with engine.begin() as connection:
                    self._add_new_columns(connection)
            except Exception as error:
                # SQLite does not wait for this lock, and two processes may both find a table or a column missing.
                another_is_at_it = any(
                    said in str(error) for said in ("locked", "already exists", "duplicate column name")
                )
                if not another_is_at_it or time.monotonic() > deadline:
                    raise
                time.sleep(SET_UP_PAUSE_SECONDS)
            else:
                return engine

    def _explained(self, error: BaseException) -> BaseException:
        """Return a LedgerError where SQLite finds its file damaged, else the error."""
        said = str(error)
        if not any(sign in said for sign in ("not a database", "malformed", "disk image")):
            return error
        return LedgerError(
            f"the ledger {self._address().database} is damaged ({said}); restore it from a backup, or move it away: "
            "files that were loaded are known by their sha256 in the lake and are not loaded twice, but what was given "
            "up is tried again, and quotas and alerts are counted from nothing"
        )

    @cached_property
    def _tables(self) -> sa.MetaData:
        import sqlalchemy as sa

        metadata = sa.MetaData()
        sa.Table(
            "ledger_files",
            metadata,
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("size", sa.BigInteger, primary_key=True),
            sa.Column("fingerprint", sa.String, primary_key=True),
            sa.Column("status", sa.String, nullable=False),
            sa.Column("attempts", sa.Integer, nullable=False),
            sa.Column("reason", sa.String),
            sa.Column("run_id", sa.String),
            sa.Column("recorded_ts_utc", sa.String, nullable=False),
            # New columns are nullable: an earlier release may write to the same database.
            sa.Column("faults", sa.Integer),
            sa.Column("retry_ts_utc", sa.String),
        )
        sa.Table(
            "ledger_reading",
            metadata,
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("size", sa.BigInteger, primary_key=True),
            sa.Column("fingerprint", sa.String, primary_key=True),
        )
        sa.Table(
            "ledger_quotas",
            metadata,
            sa.Column("provider", sa.String, primary_key=True),
            sa.Column("day", sa.String, primary_key=True),
            sa.Column("used", sa.Integer, nullable=False),
        )
        sa.Table(
            "ledger_alerts",
            metadata,
            sa.Column("key", sa.String, primary_key=True),
            sa.Column("sink", sa.String, primary_key=True),
            sa.Column("sent_ts_utc", sa.String, nullable=False),
        )
        return metadata

    def _add_new_columns(self, connection: sa.Connection) -> None:
        """Add the columns that a database of an earlier release lacks."""
        import sqlalchemy as sa

        quoted = connection.dialect.identifier_preparer.quote
        for table in self._tables.sorted_tables:
            present = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
            for column in table.columns:
                if column.name not in present:
                    kind = column.type.compile(connection.dialect)
                    connection.execute(
                        sa.text(f"alter table {quoted(table.name)} add column {quoted(column.name)} {kind}")
                    )

    def _upsert(self, table: str, values: dict[str, Any] | None = None) -> Any:
        """Return the dialect's ``insert … on conflict``, not yet told what to do on conflict."""
        from sqlalchemy.dialects import postgresql, sqlite

        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        statement = dialect.insert(self._tables.tables[table])
        return statement if values is None else statement.values(values)

    # -- files -------------------------------------------------------------------------------------------

    def record(
        self,
        identity: FileIdentity,
        status: FileStatus,
        *,
        reason: str | None = None,
        run_id: str | None = None,
    ) -> None:
        """Say what became of a file; call it after the durable write.

        Saying it again counts another attempt and replaces status, reason and run.
        """
        self.record_all([Outcome(identity, status, reason, run_id)])

    def record_all(self, outcomes: Sequence[Outcome]) -> None:
        """Say what became of several files, of all or of none; call it after the durable writes.

        Each counts as :meth:`record` does. What was waited for after a fault is over.
        """
        if not outcomes:
            return
        table = self._tables.tables["ledger_files"]
        statement = self._upsert("ledger_files")
        new = statement.excluded
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.key, table.c.size, table.c.fingerprint],
            set_={
                "status": new.status,
                "attempts": table.c.attempts + 1,
                "reason": new.reason,
                "run_id": new.run_id,
                "recorded_ts_utc": new.recorded_ts_utc,
                "faults": new.faults,
                "retry_ts_utc": new.retry_ts_utc,
            },
        )
        recorded = self._clock().astimezone(UTC).isoformat()
        rows = [
            {
                **_identified(outcome.identity),
                "status": str(outcome.status),
                "attempts": 1,
                "reason": _storable(outcome.reason),
                "run_id": outcome.run_id,
                "recorded_ts_utc": recorded,
                "faults": 0,
                "retry_ts_utc": None,
            }
            for outcome in outcomes
        ]
        with self._engine.begin() as connection:
            connection.execute(statement, rows)

    def record_fault(
        self, identity: FileIdentity, *, reason: str, now: datetime, run_id: str | None = None
    ) -> datetime:
        """Say that a fault of our own kept us from dealing with a file; return when it is tried again.

        It counts as no attempt. Each further fault makes the pause longer (:func:`pause_after`).

        Parameters
        ----------
        identity
            The file.
        reason
            The fault.
        now
            The real time, by which the pause is reckoned: the ledger's own clock may stand still.
        run_id
            Run that met the fault.
        """
        import sqlalchemy as sa

        table = self._tables.tables["ledger_files"]
        same = [table.c[name] == value for name, value in _identified(identity).items()]
        with self._engine.begin() as connection:
            before = connection.execute(sa.select(table.c.faults).where(*same)).scalar() or 0
            retry = (now + pause_after(before + 1)).astimezone(UTC)
            told = {
                "status": str(FileStatus.FAILED),
                "reason": _storable(reason),
                "run_id": run_id,
                "recorded_ts_utc": self._clock().astimezone(UTC).isoformat(),
                "retry_ts_utc": retry.isoformat(),
            }
            statement = self._upsert(
                "ledger_files", {**_identified(identity), **told, "attempts": 0, "faults": before + 1}
            )
            connection.execute(
                statement.on_conflict_do_update(
                    index_elements=[table.c.key, table.c.size, table.c.fingerprint],
                    set_={**told, "faults": sa.func.coalesce(table.c.faults, 0) + 1},
                )
            )
        return retry

    def try_again(self, identities: Iterable[FileIdentity]) -> None:
        """Let failed files be tried as if they never had been, at once."""
        import sqlalchemy as sa

        table = self._tables.tables["ledger_files"]
        with self._engine.begin() as connection:
            for identity in identities:
                same = [table.c[name] == value for name, value in _identified(identity).items()]
                connection.execute(
                    sa.update(table)
                    .where(*same, table.c.status == str(FileStatus.FAILED))
                    .values(attempts=0, faults=0, retry_ts_utc=None)
                )

    def files(self, status: FileStatus | None = None) -> list[FileRecord]:
        """Return what is known of every file, or of those with ``status``, by key."""
        table = self._tables.tables["ledger_files"]
        return self._records(*([] if status is None else [table.c.status == str(status)]))

    def _records(self, *conditions: sa.ColumnElement[bool]) -> list[FileRecord]:
        import sqlalchemy as sa

        table = self._tables.tables["ledger_files"]
        query = sa.select(table).where(*conditions).order_by(table.c.key, table.c.recorded_ts_utc)
        with self._engine.connect() as connection:
            return [
                FileRecord(
                    identity=FileIdentity(row.key, row.size, row.fingerprint),
                    status=FileStatus(row.status),
                    attempts=row.attempts,
                    reason=row.reason,
                    run_id=row.run_id,
                    recorded_ts_utc=datetime.fromisoformat(row.recorded_ts_utc),
                    faults=row.faults or 0,
                    retry_ts_utc=None if row.retry_ts_utc is None else datetime.fromisoformat(row.retry_ts_utc),
                )
                for row in connection.execute(query)
            ]

    def of_keys(self, keys: Iterable[str]) -> list[FileRecord]:
        """Return what is known of the files with these keys, of whatever content."""
        table = self._tables.tables["ledger_files"]
        wanted = list(dict.fromkeys(keys))
        # Only these files are looked up: the ledger grows for ever, and a listing need not.
        found: list[FileRecord] = []
        for start in range(0, len(wanted), KEYS_AT_ONCE):
            found += self._records(table.c.key.in_(wanted[start : start + KEYS_AT_ONCE]))
        return found

    def known(self, listing: Iterable[FileIdentity]) -> dict[FileIdentity, FileRecord]:
        """Return what is known of the files of a listing."""
        wanted = set(listing)
        records = self.of_keys(identity.key for identity in wanted)
        return {record.identity: record for record in records if record.identity in wanted}

    def unseen(
        self, listing: Iterable[FileIdentity], *, max_attempts: int = 3, now: datetime | None = None
    ) -> Sequence[FileIdentity]:
        """Return the files of a listing that are still to be processed, each once, in the listing's order.

        A file is done when it was processed or quarantined; a failed one is tried again until
        ``max_attempts`` is reached, and after a fault of our own as often as it takes. With ``now``, files whose time
        to be tried again has not come are left out. A changed file (other size or fingerprint) is another file.
        """
        listed = list(dict.fromkeys(listing))
        known = self.known(listed)

        def is_due(record: FileRecord) -> bool:
            if record.status is not FileStatus.FAILED or record.attempts >= max_attempts:
                return False
            return now is None or record.retry_ts_utc is None or record.retry_ts_utc <= now

        return [identity for identity in listed if (record := known.get(identity)) is None or is_due(record)]

    def reading(self) -> set[FileIdentity]:
        """Return the files that were being read when what read them was killed; see :meth:`begin_reading`."""
        import sqlalchemy as sa

        with self._engine.connect() as connection:
            rows = connection.execute(sa.select(self._tables.tables["ledger_reading"])).all()
        return {FileIdentity(row.key, row.size, row.fingerprint) for row in rows}

    def begin_reading(self, identity: FileIdentity) -> None:
        """Say that a file is about to be read; call :meth:`end_reading` where it was, however that ended."""
        statement = self._upsert("ledger_reading", _identified(identity)).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            connection.execute(statement)

    def end_reading(self, kept: Iterable[FileIdentity] = ()) -> None:
        """Say that no file is being read any more.

        Parameters
        ----------
        kept
            Files of which is known that reading them ends the process.
        """
        table = self._tables.tables["ledger_reading"]
        with self._engine.begin() as connection:
            connection.execute(table.delete())
            for identity in kept:
                connection.execute(self._upsert("ledger_reading", _identified(identity)))

    # -- quotas ------------------------------------------------------------------------------------------

    def try_acquire(self, provider: str, day: date, limit: int | None) -> bool:
        """Take one request out of a provider's quota of ``day``; False where nothing is left.

        The count is durable before the request is sent: a crash may waste a request, never overspend. A limit of
        None counts without refusing.
        """
        if limit is not None and limit < 1:
            return False
        table = self._tables.tables["ledger_quotas"]
        statement = self._upsert("ledger_quotas", {"provider": provider, "day": day.isoformat(), "used": 1})
        statement = statement.on_conflict_do_update(
            index_elements=[table.c.provider, table.c.day],
            set_={"used": table.c.used + 1},
            where=None if limit is None else table.c.used < limit,
            # Not every driver counts the rows of an insert, so the row itself says that there is one.
        ).returning(table.c.used)
        with self._engine.begin() as connection:
            return connection.execute(statement).scalar() is not None

    def used(self, provider: str, day: date) -> int:
        """Return how many requests were taken out of a provider's quota of ``day``."""
        import sqlalchemy as sa

        table = self._tables.tables["ledger_quotas"]
        query = sa.select(table.c.used).where(table.c.provider == provider, table.c.day == day.isoformat())
        with self._engine.connect() as connection:
            return int(connection.execute(query).scalar() or 0)

    # -- alerts ------------------------------------------------------------------------------------------

    def was_alerted(self, key: str, sink: str) -> bool:
        """Tell whether an alert was delivered to a place already."""
        import sqlalchemy as sa

        table = self._tables.tables["ledger_alerts"]
        query = sa.select(table.c.key).where(table.c.key == key, table.c.sink == sink)
        with self._engine.connect() as connection:
            return connection.execute(query).first() is not None

    def record_alert(self, key: str, sink: str) -> None:
        """Say that an alert was delivered to a place; call it after the delivery."""
        statement = self._upsert(
            "ledger_alerts",
            {"key": key, "sink": sink, "sent_ts_utc": self._clock().astimezone(UTC).isoformat()},
        ).on_conflict_do_nothing()
        with self._engine.begin() as connection:
            connection.execute(statement)

    def close(self) -> None:
        """Close the connections."""
        with self._opening:
            if self._opened is not None:
                self._opened.dispose()
                self._opened = None


def _identified(identity: FileIdentity) -> dict[str, Any]:
    return {"key": identity.key, "size": identity.size, "fingerprint": identity.fingerprint}


def _storable(reason: str | None) -> str | None:
    """Return a reason as a database takes it: without what is no character, and not too long."""
    if reason is None:
        return None
    plain = reason.encode("utf-8", "backslashreplace").decode("utf-8").replace("\x00", "\\x00")
    return plain[:LONGEST_REASON]
