"""What is known of each account and period, and since when.

What belongs here: adding a file's rows to the history as versions, and the state of the history at an instant. Pure:
Arrow tables in, Arrow tables out.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from finance_assets.contracts.advisory import PERFORMANCE_HISTORY

if TYPE_CHECKING:
    import pyarrow as pa

#: What identifies a fact; its versions differ in when they became known.
FACT_KEY = ("vendor", "account_id", "granularity", "period_end")
#: How a row came, not what it says: a row that differs in these alone says nothing new.
_PROVENANCE = (
    "received_ts_utc", "version", "stated_period_end", "flags", "file_sha256", "member", "line", "contract_version"
)  # fmt: skip
CONTENT = tuple(name for name in PERFORMANCE_HISTORY.column_names if name not in FACT_KEY and name not in _PROVENANCE)


def new_versions(rows: pa.Table, history: pa.Table) -> pa.Table:
    """Return what the rows of one file add to the history.

    Parameters
    ----------
    rows
        Rows of ``raw/vendor_rows`` of one file.
    history
        All rows of ``core/performance_history`` that were known before the file, of any vendor.

    Returns
    -------
    pyarrow.Table
        Rows of ``core/performance_history``: the first version of a fact that was unknown, and the next one of a fact
        of which the file says something else. A row that repeats what is known adds nothing.
    """
    import duckdb

    from finance_assets.contracts.arrow import conform

    key = ", ".join(FACT_KEY)
    same_key = " and ".join(f"known.{name} = rows.{name}" for name in FACT_KEY)
    differs = " or ".join(f"known.{name} is distinct from rows.{name}" for name in CONTENT)
    columns = ", ".join(
        f"cast(coalesce(known.version, 0) + 1 as integer) as {name}" if name == "version" else f"rows.{name}"
        for name in PERFORMANCE_HISTORY.column_names
    )
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("rows", rows)
        connection.register("history", history)
        # An archive may state a fact in two of its files; the reader has quarantined those that contradict.
        found = connection.execute(
            f"""
            with rows as (
                select * from rows qualify row_number() over (partition by {key} order by member, line) = 1
            ),
            known as (
                select * from history
                semi join rows using ({key})
                qualify row_number() over (partition by {key} order by version desc) = 1
            )
            select {columns}
            from rows left join known on {same_key}
            where known.version is null or {differs}
            """
        ).to_arrow_table()
    return conform(PERFORMANCE_HISTORY, found)


def versions_of_files(rows: pa.Table, order: Sequence[str], history: pa.Table) -> dict[str, pa.Table]:
    """Return what each of several files adds to the history, one after the other; as :func:`new_versions` does.

    A row says something new where it differs from what the file before it said of the same fact, whether that added a
    version or not: what added none said what was known.

    Parameters
    ----------
    rows
        Rows of ``raw/vendor_rows`` of the files.
    order
        sha256 of the files, in the order in which they became known.
    history
        Rows of ``core/performance_history`` that were known before; of the facts of ``rows``, all of them.

    Returns
    -------
    dict of str to pyarrow.Table
        sha256 -> rows of ``core/performance_history``, for every file.
    """
    import duckdb
    import numpy as np
    import pyarrow as pa

    from finance_assets.contracts.arrow import fitted

    key = ", ".join(FACT_KEY)
    lags = ", ".join(f"lag({name}) over facts as before_{name}" for name in CONTENT)
    differs = " or ".join(f"before_{name} is distinct from {name}" for name in CONTENT)
    own = ", ".join(name for name in PERFORMANCE_HISTORY.column_names if name != "version")
    names = ", ".join(
        "cast(known_version + changes as integer) as version" if name == "version" else name
        for name in PERFORMANCE_HISTORY.column_names
    )
    places = pa.table({"file_sha256": pa.array(order, pa.string()), "place": pa.array(range(len(order)), pa.int64())})
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("rows", rows)
        connection.register("history", history)
        connection.register("places", places)
        found = connection.execute(
            f"""
            with said as (
                select {own}, 0 as version, place from rows join places using (file_sha256)
                qualify row_number() over (partition by {key}, place order by member, line) = 1
            ),
            known as (
                select {own}, version, -1 as place from history
                semi join rows using ({key})
                qualify row_number() over (partition by {key} order by version desc) = 1
            ),
            beside as (
                select *, lag(place) over facts as before_place, {lags},
                    max(version) over (partition by {key}) as known_version
                from (from said union all by name from known)
                window facts as (partition by {key} order by place)
            ),
            judged as (
                select *, place >= 0 and (before_place is null or {differs}) as is_new from beside
            ),
            counted as (
                select *, sum(is_new::integer) over (partition by {key} order by place) as changes from judged
            )
            select {names}, place from counted where is_new order by place
            """
        ).to_arrow_table()
    column, asked = found.column("place").to_numpy(), np.arange(len(order))
    starts, stops = np.searchsorted(column, asked, "left"), np.searchsorted(column, asked, "right")
    plain = fitted(PERFORMANCE_HISTORY, found.drop_columns(["place"])).combine_chunks()
    return {
        digest: plain.slice(start, stop - start)
        for digest, start, stop in zip(order, starts.tolist(), stops.tolist(), strict=True)
    }


def history_key(received: datetime, digest: str) -> str:
    """Return the name of the history's file for one reading of a file; names ascend as knowledge does."""
    return f"{received.astimezone(UTC):%Y%m%dT%H%M%S%fZ}-{digest[:16]}"
