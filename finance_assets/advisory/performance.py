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
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.returns import DEFAULT_POLICY, Policies, Policy
from finance_assets.reference.flow_timings import TIMINGS

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from finance_assets.advisory.linking import Links
    from finance_assets.advisory.returns import RowReturns

__all__ = [
    "DEFAULT_POLICY",
    "HISTORY_COLUMNS",
    "KEY_COLUMNS",
    "PERFORMANCE_COLUMNS",
    "Performance",
    "Policy",
    "Rows",
    "Window",
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

    from finance_assets.advisory.linking import by_key

    if as_of is not None:
        if as_of.tzinfo is None:
            raise ValueError("as_of must have a time zone")
        history = history.filter(pc.field("received_ts_utc") <= pa.scalar(as_of.astimezone(UTC)))
    return history.take(pa.array(by_key(history)))


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
    import pyarrow as pa

    from finance_assets.advisory.linking import by_key

    performance = Performance(policies)
    window = performance.window([performance.numbered(history)])
    if len(window) != history.num_rows:
        raise ValueError("a key occurs more than once; select the current versions first")
    table = performance.table(window, performance.link(window)).cast(performance_schema())
    return table.take(pa.array(by_key(table)))


@dataclass(frozen=True)
class Rows:
    """Rows of a history, with what tells them apart as numbers.

    Attributes
    ----------
    table
        `HISTORY_COLUMNS`; text may be dictionaries.
    days
        Period ends, in days since 1970.
    series
        Number of each row's vendor, account and grain.
    currency
        A number per currency; -1 for an unknown one.
    """

    table: pa.Table
    days: npt.NDArray[np.int32]
    series: npt.NDArray[np.int32]
    currency: npt.NDArray[np.int32]

    @cached_property
    def _is_by_day(self) -> bool:
        return bool((self.days[1:] >= self.days[:-1]).all())

    def within(self, first: int, stop: int) -> Rows:
        """Return the rows whose periods end from one day on, before another; a run of them is not copied."""
        import numpy as np

        if self._is_by_day:
            start, end = np.searchsorted(self.days, (first, stop)).tolist()
            own = slice(start, end)
            return Rows(self.table.slice(start, end - start), self.days[own], self.series[own], self.currency[own])
        return self.taken(np.flatnonzero((self.days >= first) & (self.days < stop)))

    def taken(self, places: npt.NDArray[np.int64]) -> Rows:
        """Return some of the rows."""
        from finance_assets.advisory.columns import taken

        return Rows(taken(self.table, places), self.days[places], self.series[places], self.currency[places])

    @staticmethod
    def joined(parts: Sequence[Rows]) -> Rows:
        """Return the rows of several one after the other, each column in one piece."""
        import numpy as np
        import pyarrow as pa

        table = pa.concat_tables(part.table for part in parts).unify_dictionaries().combine_chunks()
        days, series, currency = (
            np.concatenate([getattr(part, name) for part in parts]) for name in ("days", "series", "currency")
        )
        return Rows(table, days, series, currency)


@dataclass(frozen=True)
class Window:
    """All that counts of some periods, in their order, and what the rows say by themselves.

    Attributes
    ----------
    parts
        The rows, one part after the other.
    returns
        What those of each part say.
    days
        Period ends of all, in days since 1970; ascend.
    """

    parts: list[Rows]
    returns: list[RowReturns]
    days: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.days)


class Performance:
    """The performance table of a history that is given period after period.

    What is kept of the rows before is a handful of numbers of each series, and the texts of the keys.

    Parameters
    ----------
    policies
        As for `account_performance`.

    Raises
    ------
    ValueError
        If a policy is not valid.
    """

    def __init__(self, policies: Policies) -> None:
        from finance_assets.advisory.linking import Linker, Series
        from finance_assets.advisory.returns import PolicyTable

        self._policies = PolicyTable(policies)
        self._linker = Linker()
        self._series = Series()
        self._texts = {name: _Texts() for name in _CODED}
        self._lock = threading.Lock()

    def numbered(self, table: pa.Table) -> Rows:
        """Give numbers to what tells rows of the history apart; may be called in several threads.

        Raises
        ------
        ValueError
            A part of a key is null.
        """
        import pyarrow as pa

        from finance_assets.advisory.columns import combine_chunks

        for name in KEY_COLUMNS:
            if table[name].null_count:
                raise ValueError(f"{name} has a null")
        days = combine_chunks(table["period_end"]).cast(pa.int32()).to_numpy()
        with self._lock:
            *key, currency = (self._texts[name].codes(table[name]) for name in _CODED)
            return Rows(table, days, self._series.numbers(*key), currency)

    def window(self, rows: Sequence[Rows]) -> Window:
        """Work out what rows say by themselves; may be called in several threads.

        Parameters
        ----------
        rows
            All of some periods. Of a key the newest version counts, as in `current_versions`.
        """
        import numpy as np

        from finance_assets.advisory.linking import put_in_order, version_numbers
        from finance_assets.advisory.returns import RowReturns

        parts = [part for part in rows if part.table.num_rows]
        days = np.concatenate([np.zeros(0, np.int64), *(part.days for part in parts)])
        if parts:

            def versions(places: npt.NDArray[np.int64]) -> tuple[Any, ...]:
                import pyarrow as pa

                told = [part.table.select(["received_ts_utc", "file_sha256", "line"]) for part in parts]
                return version_numbers(pa.concat_tables(told).unify_dictionaries(), places)

            series = np.concatenate([part.series for part in parts]).astype(np.int64)
            ordered = put_in_order(series, days, versions)
            if len(ordered.places) < len(series) or (ordered.places[1:] < ordered.places[:-1]).any():
                parts, days = [Rows.joined(parts).taken(ordered.places)], ordered.days
        returns = [RowReturns(part.table, self._policies) for part in parts]
        for alone in returns:
            # It is what the links wait for.
            _ = alone.factor
        return Window(parts, returns, days)

    def link(self, window: Window) -> Links:
        """Link the rows of a window to those of the windows before it, each of which was linked before it."""
        import numpy as np

        from finance_assets.advisory.linking import RowInputs

        columns: dict[str, list[Any]] = {name: [] for name in RowInputs.__dataclass_fields__}
        for part, alone in zip(window.parts, window.returns, strict=True):
            ending, flow = alone.amount("ending_market_value").at_full_scale(), alone.net_flow.at_full_scale()
            for name, values in (
                ("period_start", alone.starts), ("starts_as_stated", alone.starts_as_stated),
                ("is_daily", alone.grain == 0), ("currency", part.currency), ("factor", alone.factor),
                # Of a flow that is unknown nothing is added.
                ("net_flow", flow.integers if flow.known.all() else np.where(flow.known, flow.integers, 0)),
                ("has_flow", flow.known), ("ending", ending.integers), ("has_ending", ending.known),
            ):  # fmt: skip
                columns[name].append(values)
        none = np.zeros(0, np.int32)
        whole: dict[str, Any] = {name: np.concatenate(values) if values else none for name, values in columns.items()}
        series = np.concatenate([np.zeros(0, np.int64), *(part.series for part in window.parts)])
        return self._linker.link(series, window.days, RowInputs(**whole))

    def table(self, window: Window, links: Links) -> pa.Table:
        """Return a window's rows of the table; may be called in several threads.

        Returns
        -------
        pyarrow.Table
            `PERFORMANCE_COLUMNS`, in the order of the window; text as dictionaries.
        """
        import pyarrow as pa

        tables, start = [], 0
        for part, alone in zip(window.parts, window.returns, strict=True):
            tables.append(self._part(part.table, alone, links.part(slice(start, start + alone.size))))
            start += alone.size
        return pa.concat_tables(tables) if tables else performance_schema().empty_table()

    def _part(self, rows: pa.Table, alone: RowReturns, links: Links) -> pa.Table:
        import numpy as np
        import pyarrow as pa

        from finance_assets.advisory.columns import first_days_of
        from finance_assets.advisory.linking import exact_sums
        from finance_assets.advisory.returns import SCALE, STATUS_TEXTS, TIMING_RULES, Amount
        from finance_assets.contracts.status import Status

        has_return = ~np.isnan(alone.factor)
        wealth, start, chain = links.wealth_chain, links.chain_start, links.chain_id

        # What an adjacent period ended with.
        bmv = alone.amount("beginning_market_value").at_full_scale()
        is_adjacent = ~links.is_first & (links.gap_days == 0) & ~links.currency_changed & bmv.known
        is_adjacent &= links.has_ending_before
        continuity = Amount(bmv.integers - links.ending_before, is_adjacent, SCALE)

        days = alone.ends - start + 1
        is_year = has_return & (days >= 365)
        annualised = np.full(alone.size, np.nan)
        # Of NumPy's two powers, the one that is the same on all processors.
        annualised[is_year] = np.float_power(wealth[is_year], 365.25 / days[is_year]) - 1

        cumulative_status = np.full(alone.size, Status.OK.code, np.int8)
        cumulative_status[(chain > 1) | ~has_return] = Status.GAP.code
        cumulative_status[np.isnan(links.wealth_all)] = Status.NO_DATA.code

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
        is_summed = links.has_flow_so_far & ~links.currencies_mixed
        made = {
            "period_start": dates(alone.starts),
            "period_month": dates(first_days_of(alone.months)),
            "net_flow": decimals("net_flow", alone.net_flow),
            "cumulative_net_flow": exact_sums(links.flow_so_far, is_summed, sum_type),
            "gain": decimals("gain", alone.gain),
            "rollforward_difference": decimals("rollforward_difference", alone.rollforward_difference),
            "continuity_difference": decimals("continuity_difference", continuity),
            "gap_days": pa.array(links.gap_days, mask=links.is_first),
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
            "cumulative_return_all": floats(links.wealth_all - 1),
            "cumulative_status": text(cumulative_status, STATUS_TEXTS),
            "annualised_return_chain": floats(annualised),
            "is_large_flow": pa.array(alone.is_large_flow),
            "is_terminated": pa.array(alone.is_terminated),
            "is_partial": pa.array(alone.is_partial),
            "is_negative_value": pa.array(alone.is_negative_value),
        }
        return pa.table({name: made[name] if name in made else rows[name] for name in PERFORMANCE_COLUMNS})


#: Text that is kept as numbers: what makes a series, and the currency.
_CODED: Final = ("vendor", "account_id", "granularity", "currency")


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


def _schema(columns: Mapping[str, str]) -> pa.Schema:
    import pyarrow as pa

    types = {
        "string": pa.string(), "int32": pa.int32(), "int64": pa.int64(), "date32": pa.date32(), "bool": pa.bool_(),
        "double": pa.float64(), "timestamp[us, UTC]": pa.timestamp("us", tz="UTC"), _MONEY: pa.decimal128(28, 8),
        _RETURN: pa.decimal128(24, 14), "decimal128(38, 8)": pa.decimal128(38, 8),
    }  # fmt: skip
    return pa.schema([pa.field(name, types[kind]) for name, kind in columns.items()])
