"""The rows of a history in order, and what each has from the rows before it: gaps, chains, sums and products.

Belongs here: whole columns of many accounts at once, in NumPy. Does not belong here: the return of a single row
(`finance_assets.advisory.returns`), the arithmetic of a single value and its proof
(`finance_assets.advisory.twrr`), tables on disk.

A series is the rows of one vendor, account and grain. Rows come in the order of their periods, and all series are
stepped through side by side, one period after the other: what is kept of a series is a handful of numbers, a product is
taken in the order of the periods, and comes out the same in whatever company.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from finance_assets.advisory.columns import decimals_of, encoded, large_decimals, text_ranks

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

DAILY_GAP_DAYS: Final = 5
"""Daily rows this many calendar days apart are taken as neighbours: weekends and holidays are not told apart."""


@dataclass(frozen=True)
class Ordered:
    """The newest version of each key of a history, in the order of the periods.

    Attributes
    ----------
    places
        Place of each row in the history.
    series
        Number of each row's vendor, account and grain.
    days
        Period ends, in days since 1970; ascend.
    """

    places: Ints
    series: Ints
    days: Ints


@dataclass(frozen=True)
class RowInputs:
    """What rows have by themselves, in the order of their periods.

    Attributes
    ----------
    period_start
        First days of the periods, in days since 1970.
    starts_as_stated
        Whether the vendor states the first day; else it is that of the calendar.
    is_daily
        Whether the row is of the daily grain.
    currency
        A number per currency; -1 for an unknown one.
    factor
        One plus the return; NaN where there is none.
    net_flow
        Flows, in hundred-millionths; of 64 bits, or Python's integers. 0 where unknown.
    has_flow
        Whether the flow is known.
    ending
        Values at the end, as the flows.
    has_ending
        Whether that value is known.
    """

    period_start: Ints
    starts_as_stated: Bools
    is_daily: Bools
    currency: Any
    factor: Floats
    net_flow: Any
    has_flow: Bools
    ending: Any
    has_ending: Bools


@dataclass(frozen=True)
class Links:
    """What rows have from the rows before them in their series, in the order of their periods.

    Attributes
    ----------
    is_first
        Whether there is no row before it.
    ending_before
        Value at the end of the row before, in hundred-millionths; of no meaning where it has none.
    has_ending_before
        Whether the row before has one.
    gap_days
        Days between the end of the period before and this start; 0 for adjacent ones, negative for an overlap; of no
        meaning for the first of a series.
    currency_changed
        Whether the currency is another than that of the row before; not where one of them is unknown.
    currencies_mixed
        Whether it changed in this row or in one before.
    flow_so_far
        Sum of the flows so far, exact; of 64 bits, or Python's integers.
    has_flow_so_far
        Whether all of them are known.
    chain_id
        Number of the chain within the series, from 1.
    chain_start
        First day of the chain, in days since 1970.
    wealth_chain, wealth_all
        Product of the factors of the chain, and of the series, so far; NaN before the first that is known.
    """

    is_first: Bools
    ending_before: Any
    has_ending_before: Bools
    gap_days: npt.NDArray[np.int32]
    currency_changed: Bools
    currencies_mixed: Bools
    flow_so_far: Any
    has_flow_so_far: Bools
    chain_id: npt.NDArray[np.int32]
    chain_start: npt.NDArray[np.int32]
    wealth_chain: Floats
    wealth_all: Floats

    def part(self, rows: slice) -> Links:
        """Return the links of some of the rows."""
        return Links(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})


def in_order(history: pa.Table) -> Ordered:
    """Put the newest version of each key of a history in the order of period, vendor, account and grain.

    Parameters
    ----------
    history
        Rows with ``vendor``, ``account_id``, ``granularity``, ``period_end``, ``received_ts_utc``, ``file_sha256`` and
        ``line``; text may be a dictionary. The newest ``received_ts_utc`` wins; ties go to the highest
        ``file_sha256``, then to the highest ``line``.

    Returns
    -------
    Ordered
        One row per key. Numbers of series are in the order of their texts.

    Raises
    ------
    ValueError
        A part of a key is null.
    """
    ranks = [_ranks(history, name) for name in ("vendor", "account_id", "granularity")]
    days = _days(history, "period_end")
    series, count = ranks[0][0].astype(np.int64), ranks[0][1]
    for numbers, more in ranks[1:]:
        series *= more
        series += numbers
        count *= more
    if len(days) and count > min(_LARGEST // (int(days.max()) - int(days.min()) + 1), max(1 << 20, 4 * len(days))):
        # Few of the numbers are taken: what is kept of a series is kept for each.
        series = np.unique(series, return_inverse=True)[1].astype(np.int64)
    return put_in_order(series, days, lambda places: version_numbers(history, places), by_series=True)


#: The largest number to sort by.
_LARGEST: Final = 1 << 62


def put_in_order(
    series: Ints, days: Ints, versions: Callable[[Ints], tuple[Ints, ...]], *, by_series: bool = False
) -> Ordered:
    """Put the newest version of each key in the order of the periods.

    Parameters
    ----------
    series
        Number of each row's series.
    days
        Period ends, in days since 1970.
    versions
        Gives, for some rows, numbers that say which version is the newest, the most important last.
    by_series
        Put the rows of a period in the order of the series. Else rows that come day after day, each key once, stay as
        they are.

    Returns
    -------
    Ordered
        One row per key.
    """
    days = days.astype(np.int64)
    if not len(days):
        return Ordered(np.zeros(0, np.int64), series, days)
    # One number to sort by.
    keys = days - days.min()
    keys *= int(series.max()) + 1
    keys += series
    places = np.arange(len(keys))
    if not (keys[1:] > keys[:-1]).all():
        if not by_series and (days[1:] >= days[:-1]).all() and not _has_doubles(keys):
            return Ordered(places, series, days)
        places = np.argsort(keys, kind="stable")
        keys = keys[places]
        again = keys[1:] == keys[:-1]
        if again.any():
            places = _newest(keys, again, places, versions)
        series, days = series[places], days[places]
    return Ordered(places, series, days)


def _has_doubles(keys: Ints) -> bool:
    ordered = np.sort(keys)
    return bool((ordered[1:] == ordered[:-1]).any())


def by_key(history: pa.Table) -> Ints:
    """Return the places of rows by vendor, account, grain and period; of a key the newest version, as `in_order`."""
    rows = in_order(history)
    found: Ints = rows.places[np.lexsort((rows.days, rows.series))]
    return found


def _newest(keys: Ints, again: Bools, places: Ints, versions: Callable[[Ints], tuple[Ints, ...]]) -> Ints:
    """Return the places without those of keys that are there again in a newer version."""
    repeated = np.flatnonzero(np.r_[again, False] | np.r_[False, again])
    order = np.lexsort((*versions(places[repeated]), keys[repeated]))
    sorted_keys = keys[repeated][order]
    is_last = np.r_[sorted_keys[1:] != sorted_keys[:-1], True]
    kept = np.ones(len(places), bool)
    kept[repeated] = False
    kept[repeated[order[is_last]]] = True
    return places[kept]


def version_numbers(history: pa.Table, places: Ints) -> tuple[Ints, ...]:
    """Return line, file and known time of some rows, as numbers."""
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = history.select(["received_ts_utc", "file_sha256", "line"]).take(pa.array(places))
    known = pc.fill_null(rows["received_ts_utc"].cast(pa.int64()), np.iinfo(np.int64).min).to_numpy()
    lines = pc.fill_null(rows["line"], -1).to_numpy()
    files, _ = _ranks(rows, "file_sha256")
    return lines, files, known


class Series:
    """A number for each vendor, account and grain, given out as they appear."""

    def __init__(self) -> None:
        self._count = 0
        self._numbers: dict[int, npt.NDArray[np.int32]] = {}

    def numbers(self, vendor: Any, account: Any, grain: Any) -> npt.NDArray[np.int32]:
        """Return the numbers of the series of some rows.

        Parameters
        ----------
        vendor, account, grain
            Numbers of their texts, the same whenever this is asked; fewer than 2**31 of each.
        """
        others = (vendor.astype(np.int64) << 32) | grain
        if len(others) and (others == others[0]).all():
            return self._of(int(others[0]), account)
        found = np.empty(len(account), np.int32)
        for other in np.unique(others).tolist():
            own = others == other
            found[own] = self._of(other, account[own])
        return found

    def _of(self, other: int, accounts: Any) -> npt.NDArray[np.int32]:
        """Return the numbers of the series of accounts with the same vendor and grain."""
        size = int(accounts.max()) + 1
        known = self._numbers.get(other, np.zeros(0, np.int32))
        if size > len(known):
            known = np.r_[known, np.full(max(size, 2 * len(known)) - len(known), -1, np.int32)]
            self._numbers[other] = known
        found: npt.NDArray[np.int32] = known[accounts]
        if (found < 0).any():
            new = np.unique(accounts[found < 0])
            known[new] = np.arange(self._count, self._count + len(new), dtype=np.int32)
            self._count += len(new)
            found = known[accounts]
        return found


#: What is kept of a series: the type, and what stands there before its first row.
_KEPT: Final[dict[str, tuple[Any, Any]]] = {
    "is_there": (bool, False), "day": (np.int64, 0), "was_undefined": (bool, False), "mixed": (bool, False),
    "unknown": (bool, False), "currency": (np.int32, -1), "flow": (np.int64, 0), "chain_id": (np.int32, 0),
    "chain_start": (np.int32, 0), "wealth_chain": (np.float64, np.nan), "wealth_all": (np.float64, np.nan),
    "ending": (np.int64, 0), "has_ending": (bool, False),
}  # fmt: skip


class Linker:
    """Links rows to those before them, as they come: period after period."""

    def __init__(self) -> None:
        self._kept = {name: np.zeros(0, kind) for name, (kind, _) in _KEPT.items()}
        self._flows = 0.0

    def link(self, series: Ints, days: Ints, alone: RowInputs) -> Links:
        """Link rows to those before them, among these and those that were linked before.

        Parameters
        ----------
        series
            Number of each row's series, from 0.
        days
            Period ends, in days since 1970; ascend. Of a series each comes once, and after all that were linked.
        alone
            What each of the rows has by itself.

        Returns
        -------
        Links
            In the same order.

        Raises
        ------
        ValueError
            A row is not after those of its series that were linked.

        Notes
        -----
        A chain restarts after a gap or an overlap, after a row without a factor, and where the currency changes.
        """
        size = len(days)
        flows = alone.net_flow
        self._flows += float(np.abs(flows.astype(np.float64)).sum())
        self._widen("flow", is_wide=flows.dtype == object or self._flows >= _LARGEST)
        self._widen("ending", is_wide=alone.ending.dtype == object)
        self._make_room(int(series.max(initial=-1)) + 1)
        made = Links(
            is_first=np.empty(size, bool),
            ending_before=np.empty(size, self._kept["ending"].dtype),
            has_ending_before=np.empty(size, bool),
            gap_days=np.empty(size, np.int32),
            currency_changed=np.empty(size, bool),
            currencies_mixed=np.empty(size, bool),
            flow_so_far=np.empty(size, self._kept["flow"].dtype),
            has_flow_so_far=np.empty(size, bool),
            chain_id=np.empty(size, np.int32),
            chain_start=np.empty(size, np.int32),
            wealth_chain=np.empty(size),
            wealth_all=np.empty(size),
        )
        bounds = np.flatnonzero(np.r_[True, days[1:] != days[:-1], True]).tolist() if size else []
        for first, stop in pairwise(bounds):
            self._step(int(days[first]), series[first:stop], slice(first, stop), alone, made)
        return made

    def _widen(self, name: str, *, is_wide: bool) -> None:
        """Let Python's integers be kept where 64 bits do not hold them."""
        if is_wide:
            self._kept[name] = self._kept[name].astype(object, copy=False)

    def _make_room(self, count: int) -> None:
        held = len(self._kept["day"])
        if count > held:
            more = max(count, 2 * held) - held
            for name, (_, nothing) in _KEPT.items():
                kept = self._kept[name]
                self._kept[name] = np.concatenate([kept, np.full(more, nothing, kept.dtype)])

    def _step(self, day: int, series: Ints, here: slice, alone: RowInputs, made: Links) -> None:
        """Link the rows of one period."""
        kept = self._kept
        count, least = len(series), int(series[0])
        # Where the series follow each other, what is kept of them need not be picked out.
        is_run = int(series[-1]) - least == count - 1 and bool((series[1:] - series[:-1] == 1).all())
        own: Any = slice(least, least + count) if is_run else series
        is_first = ~kept["is_there"][own]
        last_day = kept["day"][own]
        if (~is_first & (last_day >= day)).any():
            raise ValueError("rows must come in the order of their periods, each once")
        start, factor, currency = alone.period_start[here], alone.factor[here], alone.currency[here]
        apart = start - last_day - 1
        is_daily = alone.is_daily[here]
        # A start that repeats the end of the period before is the date of the opening valuation.
        is_adjacent = ~is_daily & (apart == -1)
        if is_daily.any():
            is_adjacent |= is_daily & ~alone.starts_as_stated[here] & (apart >= 0) & (apart < DAILY_GAP_DAYS)
        gap = np.where(is_adjacent, 0, apart)
        before = kept["currency"][own]
        changed = ~is_first & (currency >= 0) & (before >= 0) & (currency != before)
        starts_chain = is_first | (gap != 0) | kept["was_undefined"][own] | changed
        mixed, unknown = kept["mixed"][own] | changed, kept["unknown"][own] | ~alone.has_flow[here]
        flow = kept["flow"][own] + alone.net_flow[here]
        chain_id = kept["chain_id"][own] + starts_chain
        chain_start = np.where(starts_chain, start, kept["chain_start"][own])
        wealth_chain = _times(np.where(starts_chain, np.nan, kept["wealth_chain"][own]), factor)
        wealth_all = _times(kept["wealth_all"][own], factor)
        for whole, now in (
            (made.is_first, is_first), (made.ending_before, kept["ending"][own]),
            (made.has_ending_before, kept["has_ending"][own]), (made.gap_days, gap), (made.currency_changed, changed),
            (made.currencies_mixed, mixed), (made.flow_so_far, flow), (made.has_flow_so_far, ~unknown),
            (made.chain_id, chain_id), (made.chain_start, chain_start), (made.wealth_chain, wealth_chain),
            (made.wealth_all, wealth_all),
        ):  # fmt: skip
            whole[here] = now
        for name, now in (
            ("is_there", True), ("day", day), ("was_undefined", np.isnan(factor)), ("mixed", mixed),
            ("unknown", unknown), ("currency", currency), ("flow", flow), ("chain_id", chain_id),
            ("chain_start", chain_start), ("wealth_chain", wealth_chain), ("wealth_all", wealth_all),
            ("ending", alone.ending[here]), ("has_ending", alone.has_ending[here]),
        ):  # fmt: skip
            kept[name][own] = now


def _times(so_far: Floats, factor: Floats) -> Floats:
    """Return the products of what is known; NaN where neither is."""
    product: Floats = so_far * factor
    is_nan = np.isnan(product)
    return np.where(is_nan, np.fmax(so_far, factor), product) if is_nan.any() else product


def exact_sums(sums: Any, is_known: Bools, kind: pa.DataType) -> pa.Array:
    """Return running flows as decimals with eight places, null where they are not known."""
    if sums.dtype == object:
        return large_decimals(sums, kind, is_known)
    return decimals_of(sums, kind, None if is_known.all() else is_known)


def _ranks(table: pa.Table, name: str) -> tuple[Ints, int]:
    """Return the place of each row's text among the sorted texts of a column, and how many texts there are."""
    column = encoded(table.column(name))
    if column.null_count:
        raise ValueError(f"{name} has a null")
    return text_ranks(column), max(len(column.dictionary), 1)


def _days(table: pa.Table, name: str) -> Ints:
    """Return dates as days since 1970."""
    import pyarrow as pa

    column = table.column(name)
    if column.null_count:
        raise ValueError(f"{name} has a null")
    days: Ints = column.cast(pa.int32()).to_numpy().astype(np.int64)
    return days
