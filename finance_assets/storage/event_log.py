"""Dagster's SQLite event log, made fit for backfills over thousands of sessions.

What belongs here: the one storage class that ``deploy/local/dagster.yaml`` names. Nothing else imports it.

Dagster's own class builds a SQLAlchemy engine for every event, so its statement cache is always cold, and
commits every event by itself. A single-run backfill of 3,269 sessions writes two events for each asset and session;
here they are written in one transaction per batch, through engines that stay open. What is stored, and
where, is the same: taking ``event_log_storage`` out of dagster.yaml goes back to Dagster's class on the same files.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from dagster._core.errors import raise_execution_interrupts
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS, DagsterEventType
from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import INDEX_SHARD_NAME, SqliteEventLogStorage
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

from finance_assets.storage.run_ownership import end_dead_runs, hold_run, release_ended_runs

if TYPE_CHECKING:
    from dagster import EventLogEntry
    from dagster._utils.concurrency import ConcurrencyClaimStatus
    from sqlalchemy import Connection, Engine

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"
#: Pause of a step that waits for a slot. Dagster's executor in one process asks again at once, with a core of its own.
BLOCKED_PAUSE_SECONDS = 0.25
#: A step that waits looks this often whether those before it are alive.
LIVENESS_SECONDS = 5.0
#: Engines kept open: a web server looks into every run that a person opens, and must not keep them all.
OPEN_ENGINES = 32


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's SQLite event log with engines kept open and one transaction per batch of events.

    A relative ``base_dir`` is taken below ``DAGSTER_HOME``, so that the configuration file holds no path of
    a machine. Dagster hands over batches only where ``DAGSTER_EVENT_BATCH_SIZE`` is set; the class sets a
    size of 500 where the environment says nothing.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        #: Transactions that the thread with the lock has open, by file.
        self._open: dict[str, Connection] = {}
        self._looked_at_holders = float("-inf")
        os.environ.setdefault(BATCH_SIZE_VARIABLE, "500")
        if not os.path.isabs(base_dir):
            home = os.environ.get("DAGSTER_HOME")
            if not home:
                raise ValueError(f"base_dir {base_dir!r} lies below DAGSTER_HOME, which is not set")
            base_dir = os.path.join(home, base_dir)
        super().__init__(base_dir=base_dir, inst_data=inst_data)
        # A batch calls Dagster's own methods, which connect again, inside its transaction.
        self._db_lock = threading.RLock()  # type: ignore[assignment]

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> BatchedSqliteEventLogStorage:
        """Build the storage from the ``config`` block of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            if shard in self._open:
                yield self._open[shard]
                return
            with self._engine(shard).begin() as connection:
                self._open[shard] = connection
                try:
                    yield connection
                finally:
                    del self._open[shard]

    def _engine(self, shard: str) -> Engine:
        """Return the engine of one file, whose tables are there; call it with the lock held."""
        engine = self._engines.get(shard)
        if engine is None:
            # NullPool: connections are cheap in SQLite, and none may be inherited over a fork.
            engine = self._engines[shard] = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=NullPool,
                connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
            )
        self._engines.move_to_end(shard)
        while len(self._engines) > OPEN_ENGINES:
            self._engines.popitem(last=False)[1].dispose()
        # Wiping and upgrading forget which files are ready, so this is asked whether or not the engine is new.
        if shard not in self._initialized_dbs:
            self._initdb(engine)
            self._initialized_dbs.add(shard)
        return engine

    def store_event(self, event: EventLogEntry) -> None:
        """Store an event; the process in which a run begins holds the run until it ends (``run_ownership``)."""
        if self.has_instance and _is_of_own_process(event):
            self._hold(event.run_id)
        super().store_event(event)

    def _hold(self, run_id: str) -> None:
        hold_run(self._instance.root_directory, run_id)
        release_ended_runs(self._instance)

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        """Claim a slot of a pool for a step; free those of dead runs, and wait a moment where there is none.

        Raises
        ------
        DagsterExecutionInterruptedError
            The run was to end while the step waited.
        """
        if not self.has_instance:
            return super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        self._hold(run_id)
        status = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if not status.is_claimed and time.monotonic() - self._looked_at_holders > LIVENESS_SECONDS:
            self._looked_at_holders = time.monotonic()
            end_dead_runs(self._instance)
            status = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        if status.is_claimed:
            return status
        # Dagster's executor in one process neither sleeps between two claims nor looks whether it is to end.
        with raise_execution_interrupts():
            time.sleep(BLOCKED_PAUSE_SECONDS)
        asked_again_at_once: ConcurrencyClaimStatus = status.with_sleep_interval(0.0)
        return asked_again_at_once

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store the events of a batch, which are those of assets and their checks in one run, in one transaction."""
        if not all(map(_is_of_asset, events)) or len({event.run_id for event in events}) != 1:
            super().store_event_batch(events)
            return
        rows = [self._event_to_row(event) for event in events]
        # Both files are written before either is committed, the run's own first: where a batch fails nothing of it is
        # kept, and Dagster, which then stores it event by event, stores none twice.
        with self._connect(INDEX_SHARD_NAME) as index, self._connect(events[0].run_id) as run:
            run.execute(SqlEventLogStorageTable.insert(), rows)
            index.execute(SqlEventLogStorageTable.insert(), rows)
            # One writer at a time, and one transaction: the rows just written have consecutive ids.
            last_id = int(index.execute(text("select last_insert_rowid()")).scalar_one())
            ids = range(last_id - len(rows) + 1, last_id + 1)
            of_assets = [at for at, event in enumerate(events) if event.dagster_event_type in ASSET_EVENTS]
            self._store_asset_event_tags(index, [events[at] for at in of_assets], [ids[at] for at in of_assets])
            # The asset's own row keeps only its newest event of each type.
            newest = {(rows[at]["asset_key"], rows[at]["dagster_event_type"]): at for at in of_assets}
            for at in sorted(newest.values()):
                self._store_asset_event(index, events[at], ids[at])
            for event, event_id in zip(events, ids, strict=True):
                if event.dagster_event_type in ASSET_CHECK_EVENTS:
                    self.store_asset_check_event(event, event_id)

    def dispose(self) -> None:
        """Close what is open."""
        with self._db_lock:
            for engine in self._engines.values():
                engine.dispose()
            self._engines.clear()
        super().dispose()


def _is_of_own_process(event: EventLogEntry) -> bool:
    """Whether an event tells that this process begins to work on a run."""
    found = event.dagster_event
    if found is None:
        return False
    if found.event_type is DagsterEventType.ENGINE_EVENT:
        pid = found.engine_event_data.metadata.get("pid")
        return pid is not None and str(pid.value) == str(os.getpid())
    return found.event_type in (DagsterEventType.RUN_START, DagsterEventType.STEP_START)


def _is_of_asset(event: EventLogEntry) -> bool:
    """Whether an event goes into the run's file and the index, and into no other table but those of assets."""
    kind = event.dagster_event_type if event.is_dagster_event else None
    return kind in ASSET_EVENTS or kind in ASSET_CHECK_EVENTS
