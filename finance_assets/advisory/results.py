"""From the history in the lake to the tables that people read, and back from a number to its inputs.

What belongs here: reading and writing the advisory tables piece by piece. The maths is in the modules beside this one.
"""

from __future__ import annotations

import os
import tempfile
import threading
from bisect import bisect
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finance_assets.advisory.history import history_key, new_versions, versions_of_files
from finance_assets.advisory.performance import (
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    Performance,
    Policy,
    Rows,
    Window,
    account_performance,
    current_versions,
)
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    CONTRACTS,
    PERFORMANCE_HISTORY,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
    VENDOR_ROWS,
)
from finance_assets.contracts.model import Contract, Store
from finance_assets.sql import literal

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.completeness import DeliverySchedule
    from finance_assets.advisory.intake import Intake
    from finance_assets.advisory.linking import Links
    from finance_assets.advisory.reading.vendor_contract import VendorContract
    from finance_assets.storage.lake import Lake

#: Memory of the computation; beyond it, DuckDB goes by way of the disk.
MEMORY_LIMIT = "1800MB"
#: Up to so many rows the history is read whole; a larger one by its row groups.
ROWS_IN_MEMORY = 1_000_000
#: Rows whose performance is computed at a time, of about 600 bytes.
ROWS_AT_ONCE = 131_072
#: Such windows that are made ready, and that are written, at a time; more cores would be paid for with memory.
WRITERS = max(1, min(4, os.cpu_count() or 1) - 1)
#: What tells files of the history apart whose rows have nothing in common.
_SPAN = ("vendor", "period_end", "account_id")
#: Rows of small files that are added to the history together: of so many, what is known is read once.
ROWS_TOGETHER = 200_000
#: Vendors whose rows are asked for one by one; of more, what lies between the first and the last is read.
VENDORS_ASKED = 20
#: Text of the history that repeats from row to row.
_REPETITIVE = ("vendor", "account_id", "granularity", "currency", "file_sha256", "member", "flags")
#: The right to write the branch, see ``storage.writers``: its name and its tables.
WRITTEN_BY_ONE: tuple[str, *tuple[Contract, ...]] = (
    "advisory",
    *(contract for contract in CONTRACTS if contract.store is Store.LAKE),
)
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
            connection.execute(f"set temp_directory = {literal(folder)}")
            connection.execute("set preserve_insertion_order = false")
            yield connection
        finally:
            connection.close()


@dataclass(frozen=True, slots=True)
class WriteSummary:
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


def write_performance(lake: Lake, contracts: Sequence[VendorContract]) -> WriteSummary:
    """Compute ``core/account_performance`` of all that is known, and rewrite the months that are other than before.

    A period that comes late, or is corrected, changes its month and those after it, since returns are linked. Months
    that are as they were are not touched. The history is gone through once, some months at a time: of what came before
    a handful of numbers is kept of each series.

    Raises
    ------
    LakeError
        A file of the history holds rows of other periods than its footer says.
    """
    from finance_assets.advisory.columns import keep_freed_memory
    from finance_assets.storage.lake import map_ahead

    keep_freed_memory()
    performance = Performance(policies(contracts))
    stored = _stored_rows(lake)
    windows = _Windows(stored, performance)
    counted, changed = 0, list[str]()
    with ThreadPoolExecutor(WRITERS + 1) as pool:
        writing: deque[Future[list[str]]] = deque()
        # Linked one after the other, what is before and after it side by side.
        for window in map_ahead(pool, windows.window, range(len(windows)), WRITERS):
            counted += len(window)
            writing.append(pool.submit(_write_months, lake, performance, window, performance.link(window)))
            if len(writing) > WRITERS:
                changed += writing.popleft().result()
        for written in writing:
            changed += written.result()
    return WriteSummary(counted, tuple(changed))


def _write_months(lake: Lake, performance: Performance, window: Window, links: Links) -> list[str]:
    """Write the months of a window that are other than before; return their first days."""
    import numpy as np

    from finance_assets.advisory.columns import months_of, taken
    from finance_assets.advisory.linking import by_key

    table = performance.table(window, links)
    months = months_of(window.days)
    bounds = np.flatnonzero(np.r_[True, months[1:] != months[:-1], True]).tolist() if len(window) else []
    written = []
    for start, stop in pairwise(bounds):
        own = table.slice(start, stop - start)
        if window.days[start] != window.days[stop - 1]:
            own = own.unify_dictionaries().combine_chunks()
            own = taken(own, by_key(own))
        day = str(months[start].astype("datetime64[M]").astype("datetime64[D]"))
        if lake.write_partition_if_changed(ACCOUNT_PERFORMANCE, own, day):
            written.append(day)
    return written


@dataclass(frozen=True)
class _Stored:
    """Rows of the history that are read at once.

    Attributes
    ----------
    name
        Where they are, for the message.
    read
        Reads them.
    count
        How many they are.
    bounds
        First and last end of their periods, as NumPy's days; None where nobody knows.
    """

    name: str
    read: Callable[[], pa.Table]
    count: int
    bounds: Any | None

    def checked(self, performance: Performance) -> Rows:
        """Return the rows, once it is sure that none of them is of another period than was said."""
        import numpy as np

        from finance_assets.storage.lake import LakeError

        rows = performance.numbered(self.read())
        if self.bounds is not None and len(rows.days):
            first, last = self.bounds.astype(np.int64)
            if rows.days.min() < first or rows.days.max() > last:
                raise LakeError(
                    f"{self.name} holds periods that do not end from {self.bounds[0]} to {self.bounds[1]}, as its "
                    "footer says; restore the file, or make the history again from raw/vendor_rows"
                )
        return rows


def _stored_rows(lake: Lake) -> list[_Stored]:
    """Return what the history is read by: a small one whole, a large one by its row groups."""
    import numpy as np
    import pyarrow.compute as pc

    columns = list(HISTORY_COLUMNS)
    groups = lake.row_groups(PERFORMANCE_HISTORY, "period_end")
    if sum(group.rows for group in groups) > ROWS_IN_MEMORY:
        read = partial(lake.read_row_group, PERFORMANCE_HISTORY, columns=columns, dictionaries=_REPETITIVE)
        return [
            _Stored(
                f"{PERFORMANCE_HISTORY.path}, {group.key}, row group {group.index},",
                partial(read, group),
                group.rows,
                None if group.bounds is None else np.array(group.bounds, "datetime64[D]"),
            )
            for group in groups
        ]
    table = lake.read(PERFORMANCE_HISTORY, columns=columns, dictionaries=_REPETITIVE).table
    table = table.unify_dictionaries().combine_chunks()
    if not table.num_rows:
        return []
    ends = np.array(list(pc.min_max(table["period_end"]).as_py().values()), "datetime64[D]")
    return [_Stored(PERFORMANCE_HISTORY.path, lambda: table, table.num_rows, ends)]


class _Windows:
    """The history cut into windows of whole months, and its rows: read for the first that needs them, kept to the last.

    Parameters
    ----------
    stored
        The rows.
    performance
        What they are for.
    """

    def __init__(self, stored: Sequence[_Stored], performance: Performance) -> None:
        import numpy as np

        from finance_assets.advisory.columns import first_days_of, months_of

        self._stored, self._performance = stored, performance
        spans = [None if rows.bounds is None else tuple(months_of(rows.bounds).tolist()) for rows in stored]
        first = min((span[0] for span in spans if span is not None), default=0)
        last = max((span[1] for span in spans if span is not None), default=0)
        months = [span or (first, last) for span in spans]
        # How many rows end in a month is only known when they are read.
        weights = np.zeros(last - first + 1)
        for rows, (begin, end) in zip(stored, months, strict=True):
            weights[begin - first : end - first + 1] += rows.count / (end - begin + 1)
        runs = [(first + run.start, first + run.stop) for run in _ranges(weights, ROWS_AT_ONCE)] if stored else []
        self._rows_of = [
            [place for place, (begin, end) in enumerate(months) if begin < stop and end >= start]
            for start, stop in runs
        ]
        # What is not known can be anywhere.
        cuts = [_BEGINNING, *first_days_of(np.array([start for start, _ in runs[1:]], np.int64)).tolist(), _END]
        self._spans = list(pairwise(cuts)) if runs else []
        #: Windows that have yet to ask for each of the rows.
        self._asking = Counter(place for places in self._rows_of for place in places)
        self._read: dict[int, Future[Rows]] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._spans)

    def window(self, place: int) -> Window:
        """Return a window; may be called in several threads."""
        found = [self._rows(one).within(*self._spans[place]) for one in self._rows_of[place]]
        with self._lock:
            for one in self._rows_of[place]:
                self._asking[one] -= 1
                if not self._asking[one]:
                    del self._read[one]
        return self._performance.window(found)

    def _rows(self, place: int) -> Rows:
        """Return rows; the first who asks for them reads them."""
        with self._lock:
            is_mine = place not in self._read
            future = self._read.setdefault(place, Future())
        if is_mine:
            try:
                future.set_result(self._stored[place].checked(self._performance))
            except BaseException as error:
                future.set_exception(error)
                raise
        return future.result()


#: Days before and after all periods.
_BEGINNING, _END = -(1 << 31), (1 << 31) - 1


def _ranges(counts: npt.NDArray[np.float64], at_most: int) -> Iterator[range]:
    """Cut months with about so many rows each into runs of months with at most so many, or of one month."""
    first, rows = 0, 0.0
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


def rhythms(contracts: Sequence[VendorContract], seen: Collection[str]) -> dict[str, DeliverySchedule]:
    """Return how often each vendor sends, as its contract says, of those that sent something or should have."""
    from finance_assets.advisory.completeness import DeliverySchedule

    return {
        contract.vendor: DeliverySchedule(contract.rhythm.frequency, contract.rhythm.files)
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


class _Spans:
    """Which vendors, periods and accounts each file of the history speaks of; found by vendor."""

    def __init__(self, spans: Mapping[str, Mapping[str, tuple[Any, Any]]]) -> None:
        self._of_vendor: dict[str, dict[str, Mapping[str, tuple[Any, Any]]]] = {}
        #: Files of several vendors, and those whose footers do not say.
        self._others: dict[str, Mapping[str, tuple[Any, Any]]] = {}
        for key, span in spans.items():
            self.add(key, span)

    def add(self, key: str, span: Mapping[str, tuple[Any, Any]]) -> None:
        """Add a file."""
        first, last = span.get("vendor", (None, None))
        place = self._others if first is None or first != last else self._of_vendor.setdefault(first, {})
        place[key] = span

    def overlapping(self, span: Mapping[str, tuple[Any, Any]]) -> list[str]:
        """Return the files that may speak of the same facts as one with these bounds."""
        places = [self._others]
        if "vendor" in span:
            first, last = span["vendor"]
            places += [self._of_vendor.get(first, {})] if first == last else list(self._of_vendor.values())
        else:
            places += list(self._of_vendor.values())
        return [key for place in places for key, theirs in place.items() if _may_overlap(span, theirs)]


@dataclass
class History:
    """``core/performance_history``, to which files are added one after the other."""

    lake: Lake

    @cached_property
    def _spans(self) -> _Spans:
        return _Spans(self.lake.bounds(PERFORMANCE_HISTORY, _SPAN))

    def add_all(self, lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
        """Add what files say that was not known before; yield each with the number of new versions, once it is stored.

        Small files are compared together, so that what is known is read once for many of them; each is stored by
        itself and in turn, with the same outcome as of :meth:`add`.

        Parameters
        ----------
        lines
            The files' lines of ``raw/vendor_files``, in the order in which they became known.
        """
        together: list[Mapping[str, Any]] = []
        rows = 0
        there = sorted(self.lake.partitions(PERFORMANCE_HISTORY))
        for line in lines:
            is_large = line["row_count"] >= ROWS_TOGETHER
            # A file of the history that became known in between is known to those after it alone.
            is_apart = bool(together) and bisect(there, _key_of(together[-1])) != bisect(there, _key_of(line))
            if together and (is_large or is_apart or rows + line["row_count"] > ROWS_TOGETHER):
                yield from self._add_small(together)
                together, rows = [], 0
            if is_large:
                yield line, self.add(line)
            else:
                together.append(line)
                rows += line["row_count"]
        if len(together) == 1:
            yield together[0], self.add(together[0])
        elif together:
            yield from self._add_small(together)

    def _add_small(self, lines: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], int]]:
        digests = [line["file_sha256"] for line in lines]
        read = self.lake.read(VENDOR_ROWS, keys=digests)
        spans, vendors = _spans_of(read.table, "file_sha256"), _spans_of(read.table, "vendor")
        first = _key_of(lines[0])
        before = {key for span in vendors.values() for key in self._spans.overlapping(span) if key < first}
        known = self.lake.read(PERFORMANCE_HISTORY, keys=before, where=_within_any(list(vendors.values()))).table
        found = versions_of_files(read.table, digests, known)
        counts = _counts(read.table)
        shared = set(read.keys) - set(read.outdated)
        for line in lines:
            digest, key = line["file_sha256"], _key_of(line)
            versions = found[digest]
            if digest in shared and versions.num_rows == counts[digest] and _are_first(versions):
                self.lake.share(VENDOR_ROWS, digest, PERFORMANCE_HISTORY, key)
            else:
                self.lake.write(PERFORMANCE_HISTORY, versions, key=key)
            self._spans.add(key, spans.get(digest, {}))
            yield line, versions.num_rows

    def add(self, line: Mapping[str, Any]) -> int:
        """Add what a file says that was not known before; return the number of new versions.

        What was known before is what files hold that became known earlier, so doing it again gives the same bytes,
        whoever does it and whatever came later.

        Parameters
        ----------
        line
            The file's line of ``raw/vendor_files``.

        Raises
        ------
        AlreadyThereError
            The history holds something else of this file; it was left as it is.
        """
        digest, key = line["file_sha256"], _key_of(line)
        scan = self.lake.scan(VENDOR_ROWS, [digest])
        span = self.lake.bounds(VENDOR_ROWS, _SPAN, [digest]).get(digest, {})
        before = [other for other in self._spans.overlapping(span) if other < key]
        if before or scan.outdated or not scan.keys:
            known = self.lake.read(PERFORMANCE_HISTORY, keys=before, where=_within(span)).table
            versions = new_versions(scan.dataset.to_table(), known)
            self.lake.write(PERFORMANCE_HISTORY, versions, key=key)
            added = int(versions.num_rows)
        else:
            # Nothing is known of these periods: every row is a first version, as it stands in the file's rows.
            self.lake.share(VENDOR_ROWS, digest, PERFORMANCE_HISTORY, key)
            added = int(line["row_count"])
        self._spans.add(key, span)
        return added


def _key_of(line: Mapping[str, Any]) -> str:
    return history_key(line["received_ts_utc"], line["file_sha256"])


def _spans_of(rows: pa.Table, by: str) -> dict[str, dict[str, tuple[Any, Any]]]:
    """Return the bounds of the rows of each file, or of each vendor."""
    measured = [(name, kind) for name in _SPAN for kind in ("min", "max")]
    found = rows.select(list(dict.fromkeys([by, *_SPAN]))).group_by(by).aggregate(measured).to_pylist()
    return {row[by]: {name: (row[f"{name}_min"], row[f"{name}_max"]) for name in _SPAN} for row in found}


def _counts(rows: pa.Table) -> Counter[str]:
    """Return how many rows each file has."""
    import pyarrow.compute as pc

    return Counter({one["values"]: one["counts"] for one in pc.value_counts(rows["file_sha256"]).to_pylist()})


def _are_first(versions: pa.Table) -> bool:
    """Whether all rows are the first versions of their facts, of which there are some."""
    import pyarrow.compute as pc

    return bool(versions.num_rows) and pc.max(versions["version"]).as_py() == 1


def _within_any(spans: Sequence[Mapping[str, tuple[Any, Any]]]) -> pc.Expression | None:
    """Return the filter of the rows that one of several files may be about."""
    if len(spans) > VENDORS_ASKED:
        spans = [{name: (min(s[name][0] for s in spans), max(s[name][1] for s in spans)) for name in _SPAN}]
    found: pc.Expression | None = None
    for span in spans:
        here = _within(span)
        found = here if found is None or here is None else found | here
    return found


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
