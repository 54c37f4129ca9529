"""Dagster's SQLite event log, made fit for backfills over thousands of sessions.

What belongs here: the one storage class that ``deploy/local/dagster.yaml`` names. Nothing else imports it.

Dagster's own class builds a SQLAlchemy engine for every event, so its statement cache is always cold, and
commits every event by itself. A single-run backfill of 3,269 sessions writes two events for each asset and session;
here they are written in one transaction per batch, through engines that stay open. What is stored, and
where, is the same: taking the three lines out of dagster.yaml goes back to Dagster's class on the same files.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import groupby
from typing import TYPE_CHECKING, Any

from dagster._core.storage.event_log.schema import SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    ASSET_CHECK_EVENTS,
    ASSET_EVENTS,
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)
from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS
from sqlalchemy import create_engine, text
from sqlalchemy.pool import NullPool

if TYPE_CHECKING:
    from dagster import EventLogEntry
    from sqlalchemy import Connection, Engine

BATCH_SIZE_VARIABLE = "DAGSTER_EVENT_BATCH_SIZE"


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's SQLite event log with engines kept open and one transaction per batch of events.

    A relative ``base_dir`` is taken below ``DAGSTER_HOME``, so that the configuration file holds no path of
    a machine. Dagster hands over batches only where ``DAGSTER_EVENT_BATCH_SIZE`` is set; the class sets a
    size of 500 where the environment says nothing.
    """

    def __init__(self, base_dir: str, inst_data: Any = None) -> None:
        self._engines: dict[str, Engine] = {}
        os.environ.setdefault(BATCH_SIZE_VARIABLE, "500")
        if not os.path.isabs(base_dir):
            base_dir = os.path.join(os.environ["DAGSTER_HOME"], base_dir)
        super().__init__(base_dir=base_dir, inst_data=inst_data)

    @classmethod
    def from_config_value(cls, inst_data: Any, config_value: Any) -> BatchedSqliteEventLogStorage:
        """Build the storage from the ``config`` block of dagster.yaml."""
        return cls(inst_data=inst_data, **config_value)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        with self._db_lock:
            engine = self._engines.get(shard)
            if engine is None:
                # NullPool: connections are cheap in SQLite, and none may be inherited over a fork.
                engine = create_engine(
                    self.conn_string_for_shard(shard),
                    poolclass=NullPool,
                    connect_args={"timeout": SQLITE_BUSY_TIMEOUT_SECONDS},
                )
                if shard not in self._initialized_dbs:
                    self._initdb(engine)
                    self._initialized_dbs.add(shard)
                self._engines[shard] = engine
            with engine.connect() as connection, connection.begin():
                yield connection

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store the asset events of a batch in a transaction per file, and any others one by one.

        A batch is of one run. Planned events of assets come mixed with those of their checks, which Dagster
        also keeps in a table of their own.
        """
        of_assets = [event for event in events if _is_plain_asset_event(event)]
        for event in events:
            if not _is_plain_asset_event(event):
                self.store_event(event)
        for _, batch in groupby(of_assets, key=lambda event: event.run_id):
            self._store_asset_events(list(batch))

    def _store_asset_events(self, events: Sequence[EventLogEntry]) -> None:
        """Write events of one run into the run's file and the index, each in one transaction."""
        rows = [self._event_to_row(event) for event in events]
        with self._connect(events[0].run_id) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
        with self._connect(INDEX_SHARD_NAME) as connection:
            connection.execute(SqlEventLogStorageTable.insert(), rows)
            # One writer at a time, and one transaction: the rows just written have consecutive ids.
            last_id = int(connection.execute(text("select last_insert_rowid()")).scalar_one())
            event_ids = range(last_id - len(rows) + 1, last_id + 1)
            self._store_asset_event_tags(connection, events, event_ids)
            # The asset's own row keeps only its newest event of each type.
            newest = {(row["asset_key"], row["dagster_event_type"]): at for at, row in enumerate(rows)}
            for at in newest.values():
                self._store_asset_event(connection, events[at], event_ids[at])

    def dispose(self) -> None:
        """Close what is open."""
        for engine in self._engines.values():
            engine.dispose()
        self._engines.clear()
        super().dispose()


def _is_plain_asset_event(event: EventLogEntry) -> bool:
    """Whether an event goes into the run's file and the index, and nowhere else."""
    kind = event.dagster_event_type if event.is_dagster_event else None
    return kind in ASSET_EVENTS and kind not in ASSET_CHECK_EVENTS
