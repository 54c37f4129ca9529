"""From the history in the lake to the tables that people read, and back from a number to its inputs.

What belongs here: reading and writing the advisory tables piece by piece. The maths is in the modules beside this one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finance_assets.advisory.performance import (
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    Policy,
    account_performance,
    current_versions,
    current_versions_query,
    performance_query,
)
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    PERFORMANCE_HISTORY,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
)

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from finance_assets.advisory.intake import Intake
    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.storage.lake import Lake

#: Memory of the computation; beyond it, DuckDB goes by way of the disk.
MEMORY_LIMIT = "1800MB"
#: Rows that leave the database at a time.
BATCH_ROWS = 65_536
#: Vendor whose rows are the records of the house, with which the others are compared.
OWN_RECORDS = "books"


def policies(contracts: Sequence[VendorContract]) -> dict[str, Policy]:
    """Return how the flows of each vendor are timed, as its contract declares; the others have the default."""
    return {
        contract.vendor: Policy(contract.timing, f"{contract.vendor}-{contract.version}")
        for contract in contracts
        if contract.timing is not None
    }


@contextmanager
def _database() -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a database on disk that is gone afterwards, so that a table may be larger than memory."""
    import duckdb

    with tempfile.TemporaryDirectory(prefix="finance-assets-") as folder:
        connection = duckdb.connect(str(Path(folder) / "advisory.duckdb"))
        try:
            connection.execute("set timezone = 'UTC'")
            connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
            connection.execute(f"set temp_directory = '{folder}'")
            connection.execute("set preserve_insertion_order = false")
            yield connection
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class Written:
    """What a computation of ``core/account_performance`` left.

    Attributes
    ----------
    rows
        Rows of the table.
    months
        First days of the months whose rows changed.
    """

    rows: int
    months: tuple[str, ...]


def write_performance(lake: Lake, contracts: Sequence[VendorContract]) -> Written:
    """Compute ``core/account_performance`` of all that is known, and rewrite the months that are other than before.

    A period that comes late, or is corrected, changes its month and those after it, since returns are linked. Months
    that are as they were are not touched.
    """
    columns = ", ".join(HISTORY_COLUMNS)
    with _database() as connection:
        connection.register("history", lake.scan(PERFORMANCE_HISTORY).dataset)
        connection.execute(f"create view versions as select {columns} from history")
        connection.execute(f"create table current_history as {current_versions_query('versions')}")
        connection.execute(f"create table performance as {performance_query('current_history', policies(contracts))}")
        connection.execute("drop table current_history")
        rows = 0
        changed = []
        for month, table in _by_month(connection):
            rows += table.num_rows
            if lake.write_partition_if_changed(ACCOUNT_PERFORMANCE, table, month.isoformat()):
                changed.append(month.isoformat())
    return Written(rows, tuple(changed))


def _by_month(connection: duckdb.DuckDBPyConnection) -> Iterator[tuple[date, pa.Table]]:
    """Yield the rows of each month, sorted by key; one month at a time is in memory."""
    import pyarrow as pa
    import pyarrow.compute as pc

    months = connection.execute("select distinct period_month from performance order by all").fetchall()
    reader = connection.execute(
        f"select * from performance order by {', '.join(ACCOUNT_PERFORMANCE.key)}"
    ).to_arrow_reader(BATCH_ROWS)
    waiting: list[pa.RecordBatch] = []
    place = 0
    for batch in reader:
        start = 0
        while start < batch.num_rows:
            month = months[place][0]
            here = pc.equal(batch.column("period_month").slice(start), pa.scalar(month, pa.date32()))
            count = int(pc.sum(here).as_py() or 0)
            if count:
                waiting.append(batch.slice(start, count))
                start += count
            if start < batch.num_rows:
                yield month, pa.Table.from_batches(waiting)
                waiting = []
                place += 1
    if waiting:
        yield months[place][0], pa.Table.from_batches(waiting)


def known_until(lake: Lake) -> datetime | None:
    """Return the newest known time of the history: the present, as far as the branch is concerned."""
    import pyarrow.compute as pc

    newest = pc.max(lake.scan(PERFORMANCE_HISTORY).dataset.to_table(columns=["received_ts_utc"])["received_ts_utc"])
    known: datetime | None = newest.as_py()
    return known


def breaks_now(lake: Lake) -> pa.Table:
    """Return ``core/reconciliation_breaks``: the breaks of what is known now, with their age since the last run."""
    from finance_assets.advisory.reconciliation import age_breaks, aged_schema, performance_breaks

    with _database() as connection:
        for name, contract in (("all_performance", ACCOUNT_PERFORMANCE), ("all_history", PERFORMANCE_HISTORY)):
            connection.register(name, lake.scan(contract).dataset)
        own = f"vendor = '{OWN_RECORDS}'"
        key = ", ".join(KEY_COLUMNS)
        existing = connection.execute(f"select * from all_performance where {own}").to_arrow_table()
        history = connection.execute(
            f"select {', '.join(HISTORY_COLUMNS)} from all_history semi join "
            f"(select {key} from all_history where version > 1 and not {own}) using ({key})"
        ).to_arrow_table()
        connection.execute(f"create table performance as select * from all_performance where not {own}")
        found = performance_breaks(connection, history=history, existing=existing if existing.num_rows else None)
    before = lake.read(RECONCILIATION_BREAKS).table.select(aged_schema().names)
    now = known_until(lake)
    return before if now is None else age_breaks(before, found, now)


def completeness_now(lake: Lake) -> pa.Table:
    """Return ``core/vendor_completeness`` up to the newest month of which anything is known."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.completeness import completeness
    from finance_assets.contracts.arrow import empty_table

    history = lake.scan(PERFORMANCE_HISTORY).dataset.to_table(columns=list(HISTORY_COLUMNS))
    last = pc.max(history["period_end"]).as_py()
    if last is None:
        return empty_table(VENDOR_COMPLETENESS)
    table = completeness(history, last)
    names = [", ".join(accounts or ()) for accounts in table["missing_accounts"].to_pylist()]
    place = table.schema.get_field_index("missing_accounts")
    return table.set_column(place, "missing_accounts", pa.array(names, pa.string()))


# -- from a number to its inputs -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """An explanation.

    Attributes
    ----------
    lines
        Plain text.
    holds
        Computing now gives what the table holds; True where an earlier state is explained, which no table holds.
    """

    lines: tuple[str, ...]
    holds: bool


def explanation(intake: Intake, account: str, first: date, last: date, *, as_of: datetime | None = None) -> Told | None:
    """Write out how the returns of an account came about; None where nothing is known of it.

    Parameters
    ----------
    intake
        The deployment.
    account
        Account as the vendor writes it.
    first, last
        The periods that end within these days.
    as_of
        What was known at that instant; by default what is known now.
    """
    import pyarrow.compute as pc

    from finance_assets.advisory.explaining import explain_row

    lake = intake.lake
    of_account = pc.field("account_id") == account
    history = lake.scan(PERFORMANCE_HISTORY).dataset.to_table(columns=list(HISTORY_COLUMNS), filter=of_account)
    computed = account_performance(current_versions(history, as_of), policies(intake.contracts))
    chosen = [row for row in computed.to_pylist() if first <= row["period_end"] <= last]
    if not chosen:
        return None
    stored = {
        tuple(row[name] for name in ACCOUNT_PERFORMANCE.key): row
        for row in lake.scan(ACCOUNT_PERFORMANCE).dataset.to_table(filter=of_account).to_pylist()
    }
    files = {row["file_sha256"]: row["landing_key"] for row in intake.register().to_pylist()}
    # Breaks are of what is known now.
    now = pc.field("account_id") == account if as_of is None else pc.scalar(False)
    breaks = lake.scan(RECONCILIATION_BREAKS).dataset.to_table(filter=now).to_pylist()
    lines: list[str] = []
    holds = True
    for row in sorted(chosen, key=lambda row: (row["vendor"], row["granularity"], row["period_end"])):
        held = stored.get(tuple(row[name] for name in ACCOUNT_PERFORMANCE.key))
        shown = row if as_of is not None or held is None else held
        if lines:
            lines.append("")
        lines += explain_row(shown, row)
        lines += [
            f"{one['code']} ({one['status']}): {one['explanation'] or 'nothing that was tried closes the gap'}"
            for one in breaks
            if (one["vendor"], one["granularity"], one["period_end"])
            == (row["vendor"], row["granularity"], row["period_end"])
        ]
        lines.append(f"That file landed as {files.get(row['file_sha256'], 'a file that is no longer registered')}.")
        if as_of is not None:
            lines.append(f"This is the state before {as_of:%Y-%m-%d %H:%M} UTC, computed now; no table holds it.")
        elif held is None:
            lines.append("core/account_performance does not hold this yet: finance-assets materialize.")
            holds = False
        else:
            holds = holds and held["return_net_computed"] == row["return_net_computed"]
    return Told(tuple(lines), holds)


def restated(intake: Intake, first: datetime, last: datetime) -> list[dict[str, Any]]:
    """Return what was corrected between two instants, one row per value, for people to read."""
    from finance_assets.advisory.explaining import restatements

    history = intake.lake.scan(PERFORMANCE_HISTORY).dataset.to_table(columns=list(HISTORY_COLUMNS))
    files = {row["file_sha256"]: row["landing_key"] for row in intake.register().to_pylist()}
    return [
        {
            "vendor": row["vendor"],
            "account": row["account_id"],
            "period": row["period_end"],
            "value": row["field"],
            "before": row["old_value"],
            "after": row["new_value"],
            "by": f"{files.get(row['new_file_sha256'], row['new_file_sha256'])}, line {row['new_line']}",
            "known": f"{row['new_received_ts_utc']:%Y-%m-%d %H:%M}",
        }
        for row in restatements(history, first, last).to_pylist()
    ]
