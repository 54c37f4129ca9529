"""From the history in the lake to the tables that people read, and back from a number to its inputs.

What belongs here: reading and writing the advisory tables piece by piece. The maths is in the modules beside this one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from finance_assets.advisory.performance import (
    HISTORY_COLUMNS,
    Policy,
    current_versions_query,
    performance_query,
)
from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE, PERFORMANCE_HISTORY

if TYPE_CHECKING:
    import duckdb

    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.storage.lake import Lake

#: Memory of the computation; beyond it, DuckDB goes by way of the disk.
MEMORY_LIMIT = "1800MB"


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
        counted = connection.execute(
            "select period_month, count(*) from performance group by all order by all"
        ).fetchall()
        changed = []
        for month, _ in counted:
            table = connection.execute("select * from performance where period_month = ?", [month]).to_arrow_table()
            if lake.write_partition_if_changed(ACCOUNT_PERFORMANCE, table, month.isoformat()):
                changed.append(month.isoformat())
    return Written(sum(rows for _, rows in counted), tuple(changed))
