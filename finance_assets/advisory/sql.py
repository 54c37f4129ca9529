"""A database in memory for what is best said in SQL.

Belongs here: opening it. Does not belong here: any statement; how values and paths are written into one says
`finance_assets.sql`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def connect() -> duckdb.DuckDBPyConnection:
    """Open an in-memory database that neither reads the machine's settings nor its time zone."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection
