"""From the history in the lake to the tables that people read, and back from a number to its inputs.

What belongs here: reading and writing the advisory tables piece by piece. The maths is in the modules beside this one.
"""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finance_assets.advisory.history import history_key, new_versions
from finance_assets.advisory.performance import (
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    LINKING_COLUMNS,
    Performance,
    Policy,
    account_performance,
    current_versions,
)
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    PERFORMANCE_HISTORY,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
    VENDOR_ROWS,
)

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.completeness import Rhythm
    from finance_assets.advisory.intake import Intake
    from finance_assets.advisory.linking import Ordered
    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.storage.lake import Lake, RowGroup

#: Memory of the computation; beyond it, DuckDB goes by way of the disk.
MEMORY_LIMIT = "1800MB"
#: Up to so many rows the history is read once and whole; of a larger one, what links the rows comes first.
ROWS_IN_MEMORY = 1_000_000
#: Rows whose performance is computed at a time, of about 600 bytes.
ROWS_AT_ONCE = 262_144
#: Such parts under way at a time.
WRITERS = 3
#: What tells files of the history apart whose rows have nothing in common.
_SPAN = ("vendor", "period_end")
#: Text of the history that repeats from row to row.
_REPETITIVE = ("vendor", "account_id", "granularity", "currency", "file_sha256", "member", "flags")
#: Vendor whose rows are the records of the house, with which the others are compared.
OWN_RECORDS = "books"


def policies(contracts: Sequence[VendorContract]) -> dict[str, Policy | tuple[Policy, ...]]:
    """Return how the flows of each vendor are timed, as its contract declares; the others have the default.

    The version of a policy is ``<vendor>-<contract version>``, with ``@`` and the day since when it holds where the
    contract says one. It depends on no other entry, so that a new one leaves the rows before it as they are.
    """
    made: dict[str, Policy | tuple[Policy, ...]] = {}
    for contract in contracts:
        version = f"{contract.vendor}-{contract.version}"
        several = tuple(
            Policy(
                terms.timing,
                version if terms.since is None else f"{version}@{terms.since}",
                terms.large_flow_threshold,
                terms.since,
            )
            for terms in contract.timings
        )
        if several:
            made[contract.vendor] = several if len(several) > 1 else several[0]
    return made


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
    that are as they were are not touched. Of a table that is too large for memory only what links its rows is kept;
    the wide rows are read for some months at a time.
    """
    import numpy as np
    import pyarrow as pa

    from finance_assets.advisory.columns import keep_freed_memory, taken

    keep_freed_memory()
    groups = lake.row_groups(PERFORMANCE_HISTORY)
    size = sum(group.rows for group in groups)
    if size <= ROWS_IN_MEMORY:
        history = lake.read(PERFORMANCE_HISTORY, columns=list(HISTORY_COLUMNS), dictionaries=_REPETITIVE).table
        history = history.unify_dictionaries().combine_chunks()
        performance = Performance([lambda: history], [history.num_rows], policies(contracts))
    else:
        read = partial(
            lake.read_row_group, PERFORMANCE_HISTORY, columns=list(LINKING_COLUMNS), dictionaries=_REPETITIVE
        )
        parts = [partial(read, group) for group in groups]
        performance = Performance(parts, [group.rows for group in groups], policies(contracts))
    months, starts, counts = np.unique(performance.months, return_index=True, return_counts=True)
    days = months.astype("datetime64[M]").astype("datetime64[D]").astype(str).tolist()
    pieces = list(_ranges(counts, ROWS_AT_ONCE))

    def bounds(piece: range) -> slice:
        return slice(int(starts[piece.start]), int(starts[piece.stop - 1] + counts[piece.stop - 1]))

    if size > ROWS_IN_MEMORY:
        wide = _RowGroups(lake, groups, performance.rows.places, [bounds(piece) for piece in pieces])

    def write(piece: range) -> list[str]:
        part = bounds(piece)
        table = pa.concat_tables(
            performance.part(chosen, rows)
            for chosen, rows in (
                wide.parts(part) if size > ROWS_IN_MEMORY else [(part, taken(history, performance.rows.places[part]))]
            )
        )
        written = []
        for month in piece:
            rows = _by_key(performance.rows, slice(int(starts[month]), int(starts[month] + counts[month])))
            own = table.slice(int(starts[month]) - part.start, int(counts[month]))
            if lake.write_partition_if_changed(
                ACCOUNT_PERFORMANCE, own if rows is None else taken(own.combine_chunks(), rows), days[month]
            ):
                written.append(days[month])
        return written

    with ThreadPoolExecutor(WRITERS) as pool:
        changed = [day for written in pool.map(write, pieces) for day in written]
    return Written(len(performance), tuple(changed))


def _by_key(rows: Ordered, month: slice) -> npt.NDArray[np.int64] | None:
    """Return the order by key of the rows of a month, which are in that of periods; None where it is the same."""
    import numpy as np

    days, series = rows.days[month], rows.series[month]
    return None if days[0] == days[-1] else np.lexsort((days, series))


class _RowGroups:
    """The wide rows of a large history: read as they are asked for, kept as long as somebody will ask for them.

    Parameters
    ----------
    lake, groups
        Where the rows are.
    places
        Place in the history of each row of the result.
    pieces
        The rows of the result that will be asked for.
    """

    def __init__(
        self, lake: Lake, groups: Sequence[RowGroup], places: npt.NDArray[np.int64], pieces: Sequence[slice]
    ) -> None:
        import numpy as np

        self._lake = lake
        self._groups = groups
        self._places = places
        self._starts = np.array([group.start for group in groups])
        self._lock = threading.Lock()
        self._tables: dict[int, Future[pa.Table]] = {}
        #: Pieces that have yet to ask for each group.
        self._asking = Counter(group for piece in pieces for group in np.unique(self._of(piece)).tolist())

    def _of(self, piece: slice) -> npt.NDArray[np.int64]:
        """Return the row group of each row of a piece."""
        import numpy as np

        return np.searchsorted(self._starts, self._places[piece], side="right") - 1

    def parts(self, piece: slice) -> Iterator[tuple[slice, pa.Table]]:
        """Yield the rows of a piece, in parts as they are stored where each group has a run of them."""
        import numpy as np
        import pyarrow as pa

        from finance_assets.advisory.columns import taken

        groups = self._of(piece)
        cuts = np.flatnonzero(groups[1:] != groups[:-1]) + 1
        asked = np.unique(groups).tolist()
        if len(asked) == len(cuts) + 1:
            for first, stop in pairwise([0, *cuts.tolist(), len(groups)]):
                group = int(groups[first])
                part = slice(piece.start + first, piece.start + stop)
                yield part, taken(self._table(group), self._places[part] - self._starts[group])
        else:
            tables = [self._table(group) for group in asked]
            starts = self._starts[asked]
            before = np.r_[0, np.cumsum([table.num_rows for table in tables])[:-1]] - starts
            shift = before[np.searchsorted(starts, self._places[piece], side="right") - 1]
            yield piece, taken(pa.concat_tables(tables).unify_dictionaries(), self._places[piece] + shift)
        with self._lock:
            for group in asked:
                self._asking[group] -= 1
                if not self._asking[group]:
                    del self._tables[group]

    def _table(self, group: int) -> pa.Table:
        """Return a row group; the first who asks for it reads it."""
        with self._lock:
            is_mine = group not in self._tables
            future = self._tables.setdefault(group, Future())
        if is_mine:
            try:
                table = self._lake.read_row_group(
                    PERFORMANCE_HISTORY, self._groups[group], list(HISTORY_COLUMNS), _REPETITIVE
                )
                future.set_result(table)
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


def _ranges(counts: npt.NDArray[np.int64], at_most: int) -> Iterator[range]:
    """Cut months with so many rows each into runs of months with at most so many, or of one month."""
    first, rows = 0, 0
    for place, count in enumerate(counts.tolist()):
        if place > first and rows + count > at_most:
            yield range(first, place)
            first, rows = place, 0
        rows += count
    if len(counts):
        yield range(first, len(counts))


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
        lake.attach(connection, ACCOUNT_PERFORMANCE, "all_performance")
        lake.attach(connection, PERFORMANCE_HISTORY, "all_history")
        own = f"vendor = '{OWN_RECORDS}'"
        key = ", ".join(KEY_COLUMNS)
        existing = connection.execute(f"select * from all_performance where {own}").to_arrow_table()
        connection.execute(
            f"create temp table history as select {', '.join(HISTORY_COLUMNS)} from all_history semi join "
            f"(select {key} from all_history where version > 1 and not {own}) using ({key})"
        )
        connection.execute(f"create temp view performance as select * from all_performance where not ({own})")
        found = performance_breaks(connection, existing=existing if existing.num_rows else None)
    before = lake.read(RECONCILIATION_BREAKS).table.select(aged_schema().names)
    now = known_until(lake)
    return before if now is None else age_breaks(before, found, now)


def rhythms(contracts: Sequence[VendorContract], seen: Collection[str]) -> dict[str, Rhythm]:
    """Return how often each vendor sends, as its contract says, of those that sent something or should have."""
    from finance_assets.advisory.completeness import Rhythm

    return {
        contract.vendor: Rhythm(contract.rhythm.frequency, contract.rhythm.files)
        for contract in contracts
        if contract.rhythm is not None and (contract.vendor in seen or contract.rhythm.since is not None)
    }


def completeness_now(lake: Lake, contracts: Sequence[VendorContract]) -> pa.Table:
    """Return ``core/vendor_completeness`` up to the newest month of which anything is known."""
    import pyarrow as pa

    from finance_assets.advisory.completeness import completeness
    from finance_assets.contracts.arrow import empty_table

    with _database() as connection:
        lake.attach(connection, PERFORMANCE_HISTORY, "history_rows")
        known = connection.execute("select vendor, max(period_end) from history_rows group by vendor").fetchall()
        if not known:
            return empty_table(VENDOR_COMPLETENESS)
        seen = {vendor for vendor, _ in known}
        table = completeness(connection, max(last for _, last in known), rhythms(contracts, seen))
    names = [", ".join(accounts or ()) for accounts in table["missing_accounts"].to_pylist()]
    place = table.schema.get_field_index("missing_accounts")
    return table.set_column(place, "missing_accounts", pa.array(names, pa.string()))


@dataclass
class History:
    """``core/performance_history``, to which files are added one after the other."""

    lake: Lake

    @cached_property
    def _spans(self) -> dict[str, dict[str, tuple[Any, Any]]]:
        return self.lake.bounds(PERFORMANCE_HISTORY, _SPAN)

    def add(self, line: Mapping[str, Any]) -> int:
        """Add what a file says that was not known before; return the number of new versions.

        Parameters
        ----------
        line
            The file's line of ``raw/vendor_files``.
        """
        digest, key = line["file_sha256"], history_key(line["received_ts_utc"], line["file_sha256"])
        scan = self.lake.scan(VENDOR_ROWS, [digest])
        span = self.lake.bounds(VENDOR_ROWS, _SPAN, [digest]).get(digest, {})
        before = [other for other, theirs in self._spans.items() if _may_overlap(span, theirs)]
        if before or scan.outdated or not scan.keys:
            known = self.lake.read(PERFORMANCE_HISTORY, keys=before, where=_within(span)).table
            versions = new_versions(scan.dataset.to_table(), known)
            self.lake.write(PERFORMANCE_HISTORY, versions, key=key)
            added = int(versions.num_rows)
        else:
            # Nothing is known of these periods: every row is a first version, as it stands in the file's rows.
            self.lake.share(VENDOR_ROWS, digest, PERFORMANCE_HISTORY, key)
            added = int(line["row_count"])
        self._spans[key] = span
        return added


def _may_overlap(span: Mapping[str, tuple[Any, Any]], other: Mapping[str, tuple[Any, Any]]) -> bool:
    """Whether two files may speak of the same vendor and period; they may where a footer does not say."""
    return all(
        name not in span or name not in other or (span[name][0] <= other[name][1] and other[name][0] <= span[name][1])
        for name in _SPAN
    )


def _within(span: Mapping[str, tuple[Any, Any]]) -> pc.Expression | None:
    """Return the filter of the rows that a file with such bounds may be about."""
    import pyarrow.compute as pc

    found: pc.Expression | None = None
    for name, (least, greatest) in span.items():
        here = (pc.field(name) >= least) & (pc.field(name) <= greatest)
        found = here if found is None else found & here
    return found


# -- from a number to its inputs -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Told:
    """An explanation.

    Attributes
    ----------
    lines
        Plain text.
    holds
        Computing now gives what the table holds; True where an earlier state is explained, which no table holds, and
        False where there is no row at all.
    """

    lines: tuple[str, ...]
    holds: bool


def explanation(intake: Intake, account: str, first: date, last: date, *, as_of: datetime | None = None) -> Told | None:
    """Write out how the returns of an account came about, and what is missing; None where nothing is known of it.

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

    from finance_assets.advisory.explaining import explain_missing, explain_row, missing_periods

    lake = intake.lake
    of_account = pc.field("account_id") == account
    history = lake.scan(PERFORMANCE_HISTORY).dataset.to_table(columns=list(HISTORY_COLUMNS), filter=of_account)
    declared = policies(intake.contracts)
    computed = account_performance(current_versions(history, as_of), declared)
    rows = computed.to_pylist()
    chosen = [row for row in rows if first <= row["period_end"] <= last]
    stored = {
        tuple(row[name] for name in ACCOUNT_PERFORMANCE.key): row
        for row in lake.scan(ACCOUNT_PERFORMANCE).dataset.to_table(filter=of_account).to_pylist()
    }
    files = {row["file_sha256"]: row["landing_key"] for row in intake.register().to_pylist()}
    # Breaks are of what is known now.
    now = pc.field("account_id") == account if as_of is None else pc.scalar(False)
    breaks = lake.scan(RECONCILIATION_BREAKS).dataset.to_table(filter=now).to_pylist()
    missing = missing_periods(breaks, rows, first, last, partial(_states, lake, first, last))
    lines: list[str] = []
    holds = bool(chosen)
    for row in sorted(chosen, key=lambda row: (row["vendor"], row["granularity"], row["period_end"])):
        held = stored.get(tuple(row[name] for name in ACCOUNT_PERFORMANCE.key))
        shown = row if as_of is not None or held is None else held
        if lines:
            lines.append("")
        lines += explain_row(shown, row, declared)
        lines += [
            f"{one['code']} ({one['status']}): {one['explanation'] or 'nothing that was tried closes the gap'}"
            for one in breaks
            if (one["vendor"], one["granularity"], one["period_end"])
            == (row["vendor"], row["granularity"], row["period_end"])
        ]
        lines.append(f"That file landed as {files.get(row['file_sha256'], 'a file that is no longer registered')}.")
        if as_of is not None:
            lines.append(f"This is what was known at {as_of:%Y-%m-%d %H:%M} UTC, computed now; no table holds it.")
        elif held is None:
            lines.append("core/account_performance does not hold this yet: finance-assets materialize.")
            holds = False
        else:
            holds = holds and held["return_net_computed"] == row["return_net_computed"]
    for one, series in missing:
        if lines:
            lines.append("")
        lines += explain_missing(one, series, files)
    return Told(tuple(lines), holds) if lines else None


def _states(lake: Lake, first: date, last: date, vendor: str, granularity: str) -> bool:
    """Whether a vendor has rows of a grain that end between two days."""
    import pyarrow.compute as pc

    found = (pc.field("period_end") >= first) & (pc.field("period_end") <= last)
    found &= (pc.field("vendor") == vendor) & (pc.field("granularity") == granularity)
    rows: int = lake.scan(ACCOUNT_PERFORMANCE).dataset.head(1, columns=["vendor"], filter=found).num_rows
    return rows > 0


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
