"""The rows of a history in order, and what each has from the rows before it: gaps, chains, sums and products.

Belongs here: whole columns of many accounts at once, in NumPy. Does not belong here: the return of a single row
(`finance_assets.advisory.returns`), the arithmetic of a single value and its proof
(`finance_assets.advisory.twrr`), tables on disk.

A series is the rows of one vendor, account and grain. Rows are in the order of their periods, and all series are
stepped through side by side, one period after the other: what is kept of a series is a handful of numbers, a product is
taken in the order of the periods, and comes out the same in whatever company.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from finance_assets.advisory.columns import decimals_of, encoded, large_decimals, side_by_side, text_ranks

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

DAILY_GAP_DAYS: Final = 5
"""Daily rows this many calendar days apart are taken as neighbours: weekends and holidays are not told apart."""

#: From so many rows on, series are shared out among threads.
_SHARED_ROWS = 1 << 18


@dataclass(frozen=True)
class Ordered:
    """The newest version of each key of a history, in the order of period, vendor, account and grain.

    Attributes
    ----------
    places
        Place of each row in the history.
    series
        Number of each row's vendor, account and grain, in the order of their texts; ascends within a period.
    days
        Period ends, in days since 1970; ascend.
    """

    places: Ints
    series: Ints
    days: Ints


@dataclass(frozen=True)
class Alone:
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
    """

    period_start: Ints
    starts_as_stated: Bools
    is_daily: Bools
    currency: Any
    factor: Floats
    net_flow: Any
    has_flow: Bools


@dataclass(frozen=True)
class Links:
    """What rows have from the rows before them in their series, in the order of their periods.

    Attributes
    ----------
    previous
        Place of the row before among the rows in order; -1 for the first of a series.
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

    previous: Ints
    gap_days: npt.NDArray[np.int32]
    currency_changed: Bools
    currencies_mixed: Bools
    flow_so_far: Any
    has_flow_so_far: Bools
    chain_id: npt.NDArray[np.int32]
    chain_start: npt.NDArray[np.int32]
    wealth_chain: Floats
    wealth_all: Floats


def in_order(history: pa.Table) -> Ordered:
    """Put the newest version of each key of a history in the order of the periods.

    Parameters
    ----------
    history
        Rows with ``vendor``, ``account_id``, ``granularity``, ``period_end``, ``received_ts_utc``, ``file_sha256`` and
        ``line``; text may be a dictionary. The newest ``received_ts_utc`` wins; ties go to the highest
        ``file_sha256``, then to the highest ``line``.

    Returns
    -------
    Ordered
        One row per key.

    Raises
    ------
    ValueError
        A part of a key is null.
    """
    ranks = [_ranks(history, name) for name in ("vendor", "account_id", "granularity")]
    return put_in_order(ranks, _days(history, "period_end"), lambda places: version_numbers(history, places))


def put_in_order(
    ranks: Sequence[tuple[Ints, int]], days: Ints, versions: Callable[[Ints], tuple[Ints, ...]]
) -> Ordered:
    """Put the newest version of each key in the order of the periods.

    Parameters
    ----------
    ranks
        Of vendor, account and grain: the place of each row's text among all texts, and how many there are.
    days
        Period ends, in days since 1970.
    versions
        Gives, for some rows, numbers that say which version is the newest, the most important last.

    Returns
    -------
    Ordered
        One row per key.
    """
    (series, count), *others = ranks
    series = series.astype(np.int64)
    for numbers, more in others:
        series *= more
        series += numbers
        count *= more
    if not len(days):
        return Ordered(np.zeros(0, np.int64), series, days.astype(np.int64))
    first = int(days.min())
    width = int(days.max()) - first + 1
    if count > (1 << 62) // width or count > max(1 << 20, 4 * len(series)):
        # Few of the numbers are taken: what is kept of a series is kept for each.
        found, series = np.unique(series, return_inverse=True)
        count, series = len(found), series.astype(np.int64)
    # One number to sort by.
    keys = days.astype(np.int64)
    keys -= first
    keys *= count
    keys += series
    places = np.arange(len(keys))
    if not (keys[1:] >= keys[:-1]).all():
        places = np.argsort(keys, kind="stable")
        keys = keys[places]
    again = keys[1:] == keys[:-1]
    if again.any():
        places = _newest(keys, again, places, versions)
    if len(places) < len(series) or not (places[1:] > places[:-1]).all():
        series, days = series[places], days[places]
    return Ordered(places, series, days)


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


def linked(rows: Ordered, alone: Alone) -> Links:
    """Link rows to those before them.

    Parameters
    ----------
    rows
        Rows in the order of their periods.
    alone
        What each of them has by itself.

    Returns
    -------
    Links
        In the same order.

    Notes
    -----
    A chain restarts after a gap or an overlap, after a row without a factor, and where the currency changes.
    """
    size = len(rows.days)
    flows = alone.net_flow
    if flows.dtype != object and float(np.abs(flows.astype(np.float64)).sum()) >= float(1 << 62):
        flows = flows.astype(object)
    made = Links(
        previous=np.empty(size, np.int64),
        gap_days=np.empty(size, np.int32),
        currency_changed=np.empty(size, bool),
        currencies_mixed=np.empty(size, bool),
        flow_so_far=np.empty(size, flows.dtype),
        has_flow_so_far=np.empty(size, bool),
        chain_id=np.empty(size, np.int32),
        chain_start=np.empty(size, np.int32),
        wealth_chain=np.empty(size),
        wealth_all=np.empty(size),
    )
    if not size:
        return made
    bounds = np.flatnonzero(np.r_[True, rows.days[1:] != rows.days[:-1], True]).tolist()
    series = int(rows.series.max()) + 1
    threads = 1 if size < _SHARED_ROWS else 2
    shares = [(series * place // threads, series * (place + 1) // threads) for place in range(threads)]
    side_by_side(lambda share: _link(rows, alone, flows, bounds, share, made), shares)
    return made


def _link(rows: Ordered, alone: Alone, flows: Any, bounds: list[int], share: tuple[int, int], made: Links) -> None:
    """Link the rows of the series from one number to another."""
    least, end = share
    count = end - least
    last = np.full(count, -1)
    last_day = np.zeros(count, np.int64)
    was_undefined, mixed, unknown = np.zeros(count, bool), np.zeros(count, bool), np.zeros(count, bool)
    last_currency = np.full(count, -1, np.int32)
    flow_sum = np.zeros(count, flows.dtype)
    chain_id, chain_start = np.zeros(count, np.int32), np.zeros(count, np.int64)
    wealth_chain, wealth_all = np.full(count, np.nan), np.full(count, np.nan)
    for first, stop in pairwise(bounds):
        day = int(rows.days[first])
        low, high = np.searchsorted(rows.series[first:stop], (least, end)) + first
        if low == high:
            continue
        here = slice(int(low), int(high))
        series = rows.series[here] - least
        # Where every series has a row, what is kept of them need not be picked out.
        own: Any = slice(None) if high - low == count else series
        start, factor, currency = alone.period_start[here], alone.factor[here], alone.currency[here]
        previous = last[own]
        is_first = previous < 0
        apart = start - last_day[own] - 1
        is_daily = alone.is_daily[here]
        # A start that repeats the end of the period before is the date of the opening valuation.
        is_adjacent = ~is_daily & (apart == -1)
        if is_daily.any():
            is_adjacent |= is_daily & ~alone.starts_as_stated[here] & (apart >= 0) & (apart < DAILY_GAP_DAYS)
        gap = np.where(is_adjacent, 0, apart)
        currency_before = last_currency[own]
        changed = ~is_first & (currency >= 0) & (currency_before >= 0) & (currency != currency_before)
        starts_chain = is_first | (gap != 0) | was_undefined[own] | changed
        mixed_now, unknown_now = mixed[own] | changed, unknown[own] | ~alone.has_flow[here]
        flow_now = flow_sum[own] + flows[here]
        id_now = chain_id[own] + starts_chain
        start_now = np.where(starts_chain, start, chain_start[own])
        chain_now = _times(np.where(starts_chain, np.nan, wealth_chain[own]), factor)
        all_now = _times(wealth_all[own], factor)
        for whole, now in (
            (made.previous, previous), (made.gap_days, gap), (made.currency_changed, changed),
            (made.currencies_mixed, mixed_now), (made.flow_so_far, flow_now), (made.has_flow_so_far, ~unknown_now),
            (made.chain_id, id_now), (made.chain_start, start_now), (made.wealth_chain, chain_now),
            (made.wealth_all, all_now),
        ):  # fmt: skip
            whole[here] = now
        for kept, now in (
            (last, np.arange(low, high)), (last_day, day), (was_undefined, np.isnan(factor)), (mixed, mixed_now),
            (unknown, unknown_now), (last_currency, currency), (flow_sum, flow_now), (chain_id, id_now),
            (chain_start, start_now), (wealth_chain, chain_now), (wealth_all, all_now),
        ):  # fmt: skip
            kept[own] = now


def _times(so_far: Floats, factor: Floats) -> Floats:
    """Return the products of what is known; NaN where neither is."""
    product: Floats = so_far * factor
    is_nan = np.isnan(product)
    return np.where(is_nan, np.fmax(so_far, factor), product) if is_nan.any() else product


def exact_sums(links: Links, part: slice | Ints, is_known: Bools, kind: pa.DataType) -> pa.Array:
    """Return the running flows of some rows as decimals with eight places, null where they are not known."""
    sums = links.flow_so_far[part]
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
