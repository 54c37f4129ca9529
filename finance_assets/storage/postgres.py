"""Publishing a table to PostgreSQL: all of it at once, or nothing; and connections that end in time.

What belongs here: the COPY and MERGE by which final results reach the database that other systems read, and the
connection that they and the ledger use. What the platform computes with stays in the lake.
"""

from __future__ import annotations

import functools
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    import psycopg
    import pyarrow as pa

    from finance_assets.contracts.model import Contract

#: Rows that are turned into text at a time: enough to be fast, and small beside the table.
ROWS_AT_ONCE = 65_536


#: Until a connection stands, from the look-up of the name on.
CONNECT_SECONDS = 10.0
#: A peer that says nothing more is given up after about so long, by the system.
SILENCE_SECONDS = 60
#: Time of one publication, where the settings say nothing else.
PUBLISH_SECONDS = 900.0


class PublishError(RuntimeError):
    """PostgreSQL refused; the message says what, and never holds the password."""


@dataclass(frozen=True, slots=True)
class Published:
    """What one publication changed.

    Attributes
    ----------
    inserted, updated, deleted
        Rows that were new, other than before, and gone.
    rows
        Rows of the table now.
    """

    inserted: int
    updated: int
    deleted: int
    rows: int


def connect(
    conninfo: str = "",
    *,
    statement_seconds: float | None = None,
    connect_seconds: float | None = None,
    **given: Any,
) -> psycopg.Connection[Any]:
    """Return a connection to PostgreSQL, each operation of which ends in time.

    The limits of `finance_assets.providers.outbound.limited` hold for it too. A connection whose operation did not end
    in time is closed.

    Parameters
    ----------
    conninfo, given
        As for `psycopg.connect`.
    statement_seconds
        Time of one operation; None for no limit of its own.
    connect_seconds
        Time until the connection stands, from the look-up of the name on; `CONNECT_SECONDS` by default.

    Raises
    ------
    psycopg.OperationalError
        There is no connection, or none in time.
    """
    import psycopg

    from finance_assets.providers.outbound import call_within

    kind = _limited_connection()
    seconds = CONNECT_SECONDS if connect_seconds is None else connect_seconds
    options = {
        "connect_timeout": max(2, round(seconds)),
        "keepalives_idle": SILENCE_SECONDS // 2,
        "keepalives_interval": SILENCE_SECONDS // 6,
        "keepalives_count": 3,
        "tcp_user_timeout": SILENCE_SECONDS * 1000,
        **given,
    }
    try:
        # In a thread, since libpq looks names up by itself.
        connection: psycopg.Connection[Any] = call_within(
            lambda: kind.connect(conninfo, **options), seconds, "connecting to PostgreSQL", discard=_close
        )
    except TimeoutError as error:
        raise psycopg.OperationalError(str(error)) from error
    connection.statement_seconds = statement_seconds  # type: ignore[attr-defined]
    return connection


def _close(connection: psycopg.Connection[Any]) -> None:
    connection.close()


@functools.cache
def _limited_connection() -> Any:
    """Return psycopg's connection with a limit on each wait for the server."""
    import psycopg

    from finance_assets.providers.outbound import OutboundTimeout, new_limits

    class LimitedConnection(psycopg.Connection[Any]):
        statement_seconds: float | None = None

        def wait(self, gen: Generator[Any, Any, Any], *arguments: Any, **options: Any) -> Any:
            # psycopg resumes the generator several times a second, whether or not the server said something.
            return super().wait(self._within(gen), *arguments, **options)

        def _within(self, gen: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
            limits = new_limits(self.statement_seconds)
            try:
                wanted = next(gen)
                while True:
                    ready = yield wanted
                    limits.check()
                    wanted = gen.send(ready)
            except StopIteration as end:
                return end.value
            except OutboundTimeout as error:
                # What the server still does or says belongs to nobody.
                self.pgconn.finish()
                raise psycopg.OperationalError(f"the database did not answer: {error}") from error

    return LimitedConnection


def publish(
    url: str, contract: Contract, table: pa.Table, *, schema: str = "published", seconds: float = PUBLISH_SECONDS
) -> Published:
    """Make a PostgreSQL table equal to ``table`` in one transaction.

    The rows are copied into a staging table that only this session sees; then rows that differ are merged and rows that
    are no longer there are deleted. Readers see the table before or after, never between. Publishing the same rows
    again changes none.

    Parameters
    ----------
    url
        ``postgresql://…``, with or without a SQLAlchemy driver name.
    contract
        Columns, types and key; the table is created where it is missing.
    table
        All rows.
    schema
        Schema of the target, created where it is missing.
    seconds
        Time of the whole publication.

    Raises
    ------
    PublishError
        The server cannot be reached or does not end in time, or the table there has other columns.
    """
    import psycopg
    from psycopg import sql

    from finance_assets.contracts.arrow import conform
    from finance_assets.providers.outbound import limited

    rows = conform(contract, table)
    target = sql.Identifier(schema, contract.name)
    columns = [sql.Identifier(column.name) for column in contract.columns]
    key = [sql.Identifier(name) for name in contract.key]
    rest = [sql.Identifier(name) for name in contract.column_names if name not in contract.key]
    listed = sql.SQL(", ").join(columns)
    same = sql.SQL(" and ").join(sql.SQL("t.{0} = s.{0}").format(name) for name in key)
    try:
        with limited(seconds), connect(_address(url)) as connection, connection.cursor() as cursor:
            _create(cursor, contract, schema)
            cursor.execute(sql.SQL("create temp table staging (like {}) on commit drop").format(target))
            with cursor.copy(sql.SQL("copy staging ({}) from stdin (format csv)").format(listed)) as copy:
                for chunk in as_csv(rows):
                    copy.write(chunk)
            cursor.execute("analyze staging")
            # One publication at a time; readers are not held up.
            cursor.execute(sql.SQL("lock table {} in share row exclusive mode").format(target))
            cursor.execute(sql.SQL("select exists (select 1 from {})").format(target))
            was_filled = bool((cursor.fetchone() or (False,))[0])
            inserted = updated = deleted = 0
            if not was_filled:
                cursor.execute(sql.SQL("insert into {} ({}) select {} from staging").format(target, listed, listed))
                inserted = cursor.rowcount
            else:
                cursor.execute(
                    sql.SQL("delete from {} t where not exists (select 1 from staging s where {})").format(target, same)
                )
                deleted = cursor.rowcount
                differs = sql.SQL("({}) is distinct from ({})").format(
                    sql.SQL(", ").join(sql.SQL("t.{}").format(name) for name in rest),
                    sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in rest),
                )
                cursor.execute(
                    sql.SQL(
                        "select count(*) filter (where t.{first} is null), "
                        "count(*) filter (where t.{first} is not null and {differs}) "
                        "from staging s left join {target} t on {same}"
                    ).format(first=key[0], differs=differs, target=target, same=same)
                )
                inserted, updated = (int(count) for count in cursor.fetchone() or (0, 0))
                cursor.execute(
                    sql.SQL(
                        "merge into {target} t using staging s on {same} "
                        "when matched and {differs} then update set {assigned} "
                        "when not matched then insert ({listed}) values ({values})"
                    ).format(
                        target=target,
                        same=same,
                        differs=differs,
                        assigned=sql.SQL(", ").join(sql.SQL("{0} = s.{0}").format(name) for name in rest),
                        listed=listed,
                        values=sql.SQL(", ").join(sql.SQL("s.{}").format(name) for name in columns),
                    )
                )
    except psycopg.errors.UndefinedColumn as error:
        raise PublishError(
            f"{schema}.{contract.name} in PostgreSQL has other columns than its contract: {error}; rename or drop "
            "it, and publish again"
        ) from error
    except psycopg.Error as error:
        # The cause is left out: a connection's message may repeat the address.
        raise PublishError(f"{schema}.{contract.name} was not published: {_said(error)}") from None
    return Published(inserted, updated, deleted, rows.num_rows)


def _create(cursor: psycopg.Cursor[Any], contract: Contract, schema: str) -> None:
    """Create schema and table where they are missing."""
    from psycopg import sql

    # Two sessions that create at once would both find it missing.
    cursor.execute("select pg_advisory_xact_lock(hashtext(%s))", (f"{schema}.{contract.name}",))
    cursor.execute(sql.SQL("create schema if not exists {}").format(sql.Identifier(schema)))
    defined = [
        sql.SQL("{} {}{}").format(
            sql.Identifier(column.name), sql.SQL(column.sql_type), sql.SQL("" if column.nullable else " not null")
        )
        for column in contract.columns
    ]
    key = sql.SQL("primary key ({})").format(sql.SQL(", ").join(sql.Identifier(name) for name in contract.key))
    cursor.execute(
        sql.SQL("create table if not exists {} ({})").format(
            sql.Identifier(schema, contract.name), sql.SQL(", ").join([*defined, key])
        )
    )


def as_csv(rows: pa.Table) -> Iterator[bytes]:
    """Return the rows as CSV: null is nothing, an empty text is quoted."""
    import pyarrow.csv as csv

    options = csv.WriteOptions(include_header=False, quoting_style="needed")
    for batch in rows.to_batches(max_chunksize=ROWS_AT_ONCE):
        buffer = io.BytesIO()
        csv.write_csv(batch, buffer, options)
        yield buffer.getvalue()


def _address(url: str) -> str:
    """Return the address without SQLAlchemy's driver name."""
    scheme, found, rest = url.partition("://")
    return f"{scheme.split('+')[0]}{found}{rest}"


def _said(error: psycopg.Error) -> str:
    primary = error.diag.message_primary
    if primary:
        return str(primary)
    # Our own words, not those of a connection, which may repeat the address.
    return str(error) if isinstance(error.__cause__, TimeoutError) else type(error).__name__
