"""Performance of accounts from vendors' rows, columnar: current versions, returns, chains, cumulative values.

Belongs here: what turns the bitemporal history into one row of performance per vendor, account, grain and period: what
the rows say by themselves (`finance_assets.advisory.returns`) put together with what they have from those before them
(`finance_assets.advisory.linking`). Does not belong here: the arithmetic of a single value and its proof
(`finance_assets.advisory.twrr`), reconciliation, tables on disk, Dagster.

Money is exact from input to output; only returns are doubles, computed from exact differences. Every row is a function
of its account's rows alone, so accounts may be computed in any division.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.returns import DEFAULT_POLICY, Policies, Policy
from finance_assets.advisory.twrr import TIMINGS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from finance_assets.advisory.linking import Ordered
    from finance_assets.advisory.returns import PolicyTable

__all__ = [
    "DEFAULT_POLICY",
    "HISTORY_COLUMNS",
    "KEY_COLUMNS",
    "LINKING_COLUMNS",
    "PERFORMANCE_COLUMNS",
    "Performance",
    "Policy",
    "account_performance",
    "certified",
    "current_versions",
    "history_schema",
    "performance_schema",
]

KEY_COLUMNS: Final = ("vendor", "account_id", "granularity", "period_end")
"""What identifies a row of the history in valid time; its versions differ in known time."""

_MONEY: Final = "decimal128(28, 8)"
_RETURN: Final = "decimal128(24, 14)"

HISTORY_COLUMNS: Final[dict[str, str]] = {
    "vendor": "string",
    "contract_version": "int32",
    "account_id": "string",
    "granularity": "string",
    "currency": "string",
    "period_start": "date32",
    "period_end": "date32",
    "beginning_market_value": _MONEY,
    "contributions": _MONEY,
    "distributions": _MONEY,
    "net_flow": _MONEY,
    "ending_market_value": _MONEY,
    "fees": _MONEY,
    "income": _MONEY,
    "appreciation": _MONEY,
    "other_adjustments": _MONEY,
    "return_net": _RETURN,
    "return_gross": _RETURN,
    "benchmark_return": _RETURN,
    "file_sha256": "string",
    "member": "string",
    "line": "int64",
    "received_ts_utc": "timestamp[us, UTC]",
    "flags": "string",
}
"""Columns of the history and their Arrow types. Money in the row's currency, returns as decimal fractions."""

PERFORMANCE_COLUMNS: Final[dict[str, tuple[str, str]]] = {
    "vendor": ("string", "Vendor that stated the row."),
    "account_id": ("string", "Account, as the vendor writes it."),
    "granularity": ("string", "Grain of the row: daily, monthly or quarterly. Grains are never chained together."),
    "currency": ("string", "Currency of all money in the row."),
    "period_start": ("date32", "First day: stated, or the first day of the month or quarter, or the day itself."),
    "period_end": ("date32", "Last day."),
    "period_month": ("date32", "First day of the month of period_end; the partition."),
    "beginning_market_value": (_MONEY, "Stated value at the beginning."),
    "contributions": (_MONEY, "Stated money in."),
    "distributions": (_MONEY, "Stated money out, positive."),
    "ending_market_value": (_MONEY, "Stated value at the end."),
    "fees": (_MONEY, "Stated fees taken from the account."),
    "net_flow": (_MONEY, "Contributions less distributions where both are known, else the stated net flow."),
    "cumulative_net_flow": (
        "decimal128(38, 8)",
        "Running sum of net_flow over all rows of the account; null from the first unknown flow or currency change.",
    ),
    "gain": (_MONEY, "Ending value less beginning value less net flow, exact."),
    "rollforward_difference": (
        _MONEY,
        "Beginning value + net flow + stated components - ending value; null where the vendor states no appreciation.",
    ),
    "continuity_difference": (
        _MONEY,
        "Beginning value less the ending value of the adjacent period before; null without one.",
    ),
    "gap_days": ("int32", "Days between the end of the period before and this start: 0 adjacent, negative overlap."),
    "timing": ("string", "Flow timing that was applied."),
    "timing_rule": ("string", "Why: declared, inception, full_withdrawal or no_capital."),
    "policy_version": ("string", "Version of the timing policy that holds at the end of the period."),
    "return_net_computed": ("double", "Return after fees under the applied timing; decimal fraction, unrounded."),
    "return_status": ("string", "Status of return_net_computed; large_flow_unvalued keeps the value, uncertified."),
    "return_sod": ("double", "The same period with flows at the start of the period."),
    "return_mid": ("double", "... with flows in the middle."),
    "return_eod": ("double", "... with flows at the end."),
    "timing_spread": ("double", "Largest less smallest of the three that are defined."),
    "return_net": (_RETURN, "Net return that the vendor states."),
    "return_gross": (_RETURN, "Gross return that the vendor states."),
    "benchmark_return": (_RETURN, "Benchmark return that the vendor states."),
    "return_gross_computed": ("double", "Return before the stated fees, under the applied timing."),
    "return_gross_status": ("string", "missing_input where fees are not stated; else as return_status."),
    "chain_id": ("int32", "Number of the unbroken chain within the account, from 1."),
    "chain_start": ("date32", "First day of the chain."),
    "cumulative_return_chain": ("double", "Linked return since chain_start: the track record."),
    "cumulative_return_all": ("double", "Linked over all rows that have a return, across breaks."),
    "cumulative_status": ("string", "ok, or gap where cumulative_return_all crosses a break; no_data without any."),
    "annualised_return_chain": ("double", "cumulative_return_chain per year; null for less than 365 days."),
    "is_large_flow": ("bool", "The net flow reaches the policy's share of the beginning value."),
    "is_terminated": ("bool", "All was withdrawn: the last row of the account unless it is funded again."),
    "is_partial": ("bool", "The period starts inside its month or quarter."),
    "is_negative_value": ("bool", "The beginning or ending value is negative (margin)."),
    "contract_version": ("int32", "Version of the vendor's contract that read the row."),
    "file_sha256": ("string", "File the row came from."),
    "member": ("string", "Member of the archive, if any."),
    "line": ("int64", "Physical line in that file."),
    "received_ts_utc": ("timestamp[us, UTC]", "When the row became known."),
}
"""Columns of the performance table in order: Arrow type and meaning."""

LINKING_COLUMNS: Final = (
    *KEY_COLUMNS, "currency", "period_start", "beginning_market_value", "contributions", "distributions", "net_flow",
    "ending_market_value", "file_sha256", "line", "received_ts_utc",
)  # fmt: skip
"""Columns of the history that say which version counts, and how the rows of an account are linked."""


def history_schema() -> pa.Schema:
    """Give the Arrow schema of the history (`HISTORY_COLUMNS`)."""
    return _schema(HISTORY_COLUMNS)


def performance_schema() -> pa.Schema:
    """Give the Arrow schema of the performance table (`PERFORMANCE_COLUMNS`)."""
    return _schema({name: kind for name, (kind, _) in PERFORMANCE_COLUMNS.items()})


def certified(value: float | Decimal | None) -> Decimal | None:
    """Round a return once, to 6 decimal places (half even), for presentation; None stays None."""
    if value is None:
        return None
    return (value if isinstance(value, Decimal) else Decimal(repr(float(value)))).quantize(Decimal("0.000001"))


def current_versions(history: pa.Table, as_of: datetime | None = None) -> pa.Table:
    """Select the newest version of every row that was known at a time.

    Parameters
    ----------
    history
        Rows with `HISTORY_COLUMNS`, any number of versions per key (`KEY_COLUMNS`).
    as_of
        Known time, with a time zone; by default everything.

    Returns
    -------
    pyarrow.Table
        One row per key, same columns, ordered by key. The newest ``received_ts_utc`` wins; ties go to the highest
        ``file_sha256``, then to the highest line.

    Raises
    ------
    ValueError
        If `as_of` has no time zone, or a part of a key is null.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    from finance_assets.advisory.linking import in_order

    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError("as_of must have a time zone")
        history = history.filter(pc.field("received_ts_utc") <= pa.scalar(as_of.astimezone(UTC)))
    ordered = in_order(history)
    return history.take(pa.array(ordered.places[_by_key(ordered)]))


def account_performance(history: pa.Table, policies: Policies) -> pa.Table:
    """Compute the performance table from the current versions of the history.

    Parameters
    ----------
    history
        Rows with `HISTORY_COLUMNS`, one per key (`current_versions`).
    policies
        By vendor a `Policy`, several with the day since when each holds, or ``(timing, version,
        large_flow_threshold)``; `DEFAULT_POLICY` for the others.

    Returns
    -------
    pyarrow.Table
        One row per input row with `PERFORMANCE_COLUMNS`, ordered by key. Undefined values are null with a status,
        never NaN.

    Raises
    ------
    ValueError
        If a policy is not valid, a key is not unique, or a part of it is null.

    Notes
    -----
    Per row ``R = gain / capital`` as in `finance_assets.advisory.twrr.row_return`. A chain restarts after a gap or
    an overlap, after a row without a return, and where the currency changes; a period without any capital links
    with factor 1. A total loss keeps the chain at -100 %.
    """
    performance = Performance([lambda: history], [history.num_rows], policies)
    if len(performance) != history.num_rows:
        raise ValueError("a key occurs more than once; select the current versions first")
    chosen = _by_key(performance.rows)
    return performance.part(chosen, history.take(_indices(performance.rows.places[chosen]))).cast(performance_schema())


def _by_key(rows: Ordered) -> npt.NDArray[np.int64]:
    """Return the order of rows by vendor, account, grain and period."""
    import numpy as np

    return np.lexsort((rows.days, rows.series))


def _indices(places: npt.NDArray[np.int64]) -> pa.Array:
    import pyarrow as pa

    return pa.array(places)


class Performance:
    """The performance table of a history, of which parts are computed as they are asked for.

    What links the rows is computed at once, and takes about 120 bytes of a row; the wide rows are not kept. Parts may
    be computed in several threads.

    Parameters
    ----------
    history
        What gives parts of the history, with `LINKING_COLUMNS` at least; called in several threads. Of a key the newest
        version counts, as in `current_versions`. Text may be dictionaries.
    sizes
        Rows of each part.
    policies
        As for `account_performance`.

    Attributes
    ----------
    rows
        The rows that count, in the order of their periods.

    Raises
    ------
    ValueError
        If a policy is not valid, or a part of a key is null.
    """

    def __init__(self, history: Sequence[Callable[[], pa.Table]], sizes: Sequence[int], policies: Policies) -> None:
        from finance_assets.advisory.columns import side_by_side
        from finance_assets.advisory.linking import Alone, linked, put_in_order
        from finance_assets.advisory.returns import PolicyTable

        self._policies = PolicyTable(policies)
        gathered = _Gathered(sizes)
        side_by_side(lambda part: gathered.put(part, history[part](), self._policies), range(len(history)))
        columns = gathered.columns()
        names = ("vendor", "account_id", "granularity")
        self.rows = put_in_order([gathered.ranks(name) for name in names], columns.pop("days"), gathered.versions)
        places = self.rows.places
        if len(places) < gathered.size or bool((places[1:] < places[:-1]).any()):
            columns = {name: column[places] for name, column in columns.items()}
        self._ending, self._has_ending = columns.pop("ending"), columns.pop("has_ending")
        self._links = linked(self.rows, Alone(**columns))

    def __len__(self) -> int:
        return len(self.rows.places)

    @property
    def months(self) -> npt.NDArray[np.int64]:
        """Month in which each row's period ends, counted from 1970; ascends."""
        from finance_assets.advisory.columns import months_of

        found: npt.NDArray[np.int64] = months_of(self.rows.days)
        return found

    def part(self, chosen: npt.NDArray[np.int64] | slice, rows: pa.Table) -> pa.Table:
        """Compute some rows of the table.

        Parameters
        ----------
        chosen
            Places of rows among `rows` of this, in any order, or a part of them.
        rows
            Their `HISTORY_COLUMNS`, in the order of `chosen`.

        Returns
        -------
        pyarrow.Table
            `PERFORMANCE_COLUMNS`, in the order of `chosen`; text as dictionaries.
        """
        import numpy as np
        import pyarrow as pa

        from finance_assets.advisory.linking import exact_sums
        from finance_assets.advisory.returns import SCALE, STATUS_TEXTS, TIMING_RULES, Amount, RowReturns
        from finance_assets.contracts.status import Status

        alone, links = RowReturns(rows, self._policies), self._links
        previous = links.previous[chosen]
        is_first = previous < 0
        gap, changed, factor = links.gap_days[chosen], links.currency_changed[chosen], alone.factor
        has_return = ~np.isnan(factor)
        wealth, wealth_all = links.wealth_chain[chosen], links.wealth_all[chosen]
        start, chain = links.chain_start[chosen], links.chain_id[chosen]

        # What an adjacent period ended with.
        bmv = alone.amount("beginning_market_value").at_full_scale()
        before = np.where(is_first, 0, previous)
        is_adjacent = ~is_first & (gap == 0) & ~changed & bmv.known & self._has_ending[before]
        continuity = Amount(bmv.integers - self._ending[before], is_adjacent, SCALE)

        days = alone.ends - start + 1
        is_year = has_return & (days >= 365)
        annualised = np.full(alone.size, np.nan)
        # Of NumPy's two powers, the one that is the same on all processors.
        annualised[is_year] = np.float_power(wealth[is_year], 365.25 / days[is_year]) - 1

        cumulative_status = np.full(alone.size, Status.OK.code, np.int8)
        cumulative_status[(chain > 1) | ~has_return] = Status.GAP.code
        cumulative_status[np.isnan(wealth_all)] = Status.NO_DATA.code

        def dates(days: Any) -> pa.Array:
            return pa.array(days.astype(np.int32)).cast(pa.date32())

        def floats(values: Any) -> pa.Array:
            missing = np.isnan(values)
            return pa.array(values, mask=missing if missing.any() else None)

        def text(codes: Any, texts: tuple[str, ...] | list[str]) -> pa.Array:
            return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts, pa.string()))

        def decimals(name: str, amount: Amount) -> pa.Array:
            return amount.decimals(schema.field(name).type)

        schema = performance_schema()
        sum_type = schema.field("cumulative_net_flow").type
        is_summed = links.has_flow_so_far[chosen] & ~links.currencies_mixed[chosen]
        months = alone.months.astype("datetime64[M]").astype("datetime64[D]").astype(np.int64)
        made = {
            "period_start": dates(alone.starts),
            "period_month": dates(months),
            "net_flow": decimals("net_flow", alone.net_flow),
            "cumulative_net_flow": exact_sums(links, chosen, is_summed, sum_type),
            "gain": decimals("gain", alone.gain),
            "rollforward_difference": decimals("rollforward_difference", alone.rollforward_difference),
            "continuity_difference": decimals("continuity_difference", continuity),
            "gap_days": pa.array(gap, mask=is_first),
            "timing": text(alone.timing, list(TIMINGS)),
            "timing_rule": text(alone.timing_rule, TIMING_RULES),
            "policy_version": text(alone.policy_versions, self._policies.versions),
            "return_net_computed": floats(alone.return_net),
            "return_status": text(alone.status, STATUS_TEXTS),
            "return_sod": floats(alone.return_sod),
            "return_mid": floats(alone.return_mid),
            "return_eod": floats(alone.return_eod),
            "timing_spread": floats(alone.timing_spread),
            "return_gross_computed": floats(alone.return_gross),
            "return_gross_status": text(alone.gross_status, STATUS_TEXTS),
            "chain_id": pa.array(chain),
            "chain_start": dates(start),
            "cumulative_return_chain": floats(np.where(has_return, wealth - 1, np.nan)),
            "cumulative_return_all": floats(wealth_all - 1),
            "cumulative_status": text(cumulative_status, STATUS_TEXTS),
            "annualised_return_chain": floats(annualised),
            "is_large_flow": pa.array(alone.is_large_flow),
            "is_terminated": pa.array(alone.is_terminated),
            "is_partial": pa.array(alone.is_partial),
            "is_negative_value": pa.array(alone.is_negative_value),
        }
        return pa.table({name: made[name] if name in made else rows[name] for name in PERFORMANCE_COLUMNS})


class _Gathered:
    """What links the rows of a history, gathered part by part, as numbers.

    Parameters
    ----------
    sizes
        Rows of each part.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._stops = [0, *accumulate(sizes)]
        self.size = self._stops[-1]
        self._lock = threading.Lock()
        self._columns: dict[str, Any] = {}
        self._texts: dict[str, _Texts] = {name: _Texts() for name in _CODED}
        #: Money beyond 64 bits, which comes in Python's integers.
        self._wide: list[tuple[str, slice, Any]] = []
        self._versions: dict[int, pa.Table] = {}

    def put(self, place: int, part: pa.Table, policies: PolicyTable) -> None:
        """Put the rows of one part in their place; may be called in several threads."""
        import numpy as np

        from finance_assets.advisory.returns import RowReturns

        for name in KEY_COLUMNS:
            if part[name].null_count:
                raise ValueError(f"{name} has a null")
        here = slice(*self._stops[place : place + 2])
        if part.num_rows != here.stop - here.start:
            raise ValueError(f"{part.num_rows} rows came where there were to be {here.stop - here.start}")
        alone = RowReturns(part, policies)
        ending, flow = alone.amount("ending_market_value").at_full_scale(), alone.net_flow.at_full_scale()
        # Of a flow that is unknown nothing is added.
        flows = flow.integers if flow.known.all() else np.where(flow.known, flow.integers, 0)
        for name, values in (
            ("days", alone.ends), ("period_start", alone.starts), ("starts_as_stated", alone.starts_as_stated),
            ("is_daily", alone.grain == 0), ("factor", alone.factor), ("net_flow", flows),
            ("has_flow", flow.known), ("ending", ending.integers), ("has_ending", ending.known),
        ):  # fmt: skip
            if values.dtype == object:
                with self._lock:
                    self._wide.append((name, here, values))
            else:
                kind = np.dtype(np.int32) if name in ("days", "period_start") else values.dtype
                self._column(name, kind)[here] = values
        for name in _CODED:
            with self._lock:
                codes = self._texts[name].codes(part[name])
            self._column(name, codes.dtype)[here] = codes
        self._versions[place] = part.select(["received_ts_utc", "file_sha256", "line"])

    def _column(self, name: str, kind: np.dtype[Any]) -> Any:
        """Return a column that can hold values of a type."""
        import numpy as np

        with self._lock:
            column = self._columns.get(name)
            if column is None:
                column = self._columns[name] = np.empty(self.size, kind)
            return column

    def columns(self) -> dict[str, Any]:
        """Return the columns of `linking.Alone`, and days and ending values beside them."""
        import numpy as np

        for name, here, values in self._wide:
            column = self._columns.get(name)
            self._columns[name] = np.zeros(self.size, object) if column is None else column.astype(object, copy=False)
            self._columns[name][here] = values
        return {name: column for name, column in self._columns.items() if name not in _RANKED}

    def ranks(self, name: str) -> tuple[Any, int]:
        """Return the place of each row's text of a key among the sorted texts, and how many there are."""
        import numpy as np

        ranks, codes = self._texts[name].ranks(), self._columns.pop(name)
        return codes if (ranks == np.arange(len(ranks))).all() else ranks[codes], max(len(ranks), 1)

    def versions(self, places: npt.NDArray[np.int64]) -> tuple[Any, ...]:
        """Return line, file and known time of some rows, as numbers."""
        import pyarrow as pa

        from finance_assets.advisory.linking import version_numbers

        return version_numbers(pa.concat_tables(table for _, table in sorted(self._versions.items())), places)


#: Text that is kept as numbers while the parts of a history are gathered; of the first three the order matters.
_RANKED: Final = ("vendor", "account_id", "granularity")
_CODED: Final = (*_RANKED, "currency")


class _Texts:
    """The distinct texts of a column that comes in parts."""

    def __init__(self) -> None:
        self._known: pa.Array | None = None

    def codes(self, column: pa.ChunkedArray) -> npt.NDArray[np.int32]:
        """Return a number per text, the same in all parts; -1 for none."""
        import numpy as np
        import pyarrow as pa
        import pyarrow.compute as pc

        from finance_assets.advisory.columns import encoded

        array = encoded(column)
        if self._known is None:
            self._known = pa.array([], pa.string())
        if not array.dictionary.equals(self._known):
            new = array.dictionary.filter(pc.invert(pc.is_in(array.dictionary, self._known)))
            self._known = pa.concat_arrays([self._known, new.unique()])
        places = pc.index_in(array.dictionary, self._known).to_numpy(zero_copy_only=False).astype(np.int32)
        codes: npt.NDArray[np.int32] = array.indices.fill_null(-1).to_numpy(zero_copy_only=False)
        is_same = len(places) == 0 or bool((places == np.arange(len(places))).all())
        return codes if is_same else np.where(codes < 0, np.int32(-1), places[codes])

    def ranks(self) -> npt.NDArray[np.int32]:
        """Return the place of each text among the sorted ones."""
        import numpy as np

        from finance_assets.advisory.columns import ranks_of

        ranks: npt.NDArray[np.int32] = np.zeros(0, np.int32) if self._known is None else ranks_of(self._known)
        return ranks


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "date32": pa.date32(), "bool": pa.bool_(),
        "double": pa.float64(), "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"), _MONEY: pa.decimal128(28, 8),
        _RETURN: pa.decimal128(24, 14), "decimal128(38, 8)": pa.decimal128(38, 8),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[kind]) for name, kind in columns.items()])
