"""The rows of a history in order, and what each has from the rows before it: gaps, chains, sums and products.

Belongs here: whole columns of many accounts at once, in NumPy. Does not belong here: the return of a single row
(`finance_assets.advisory.performance`), the arithmetic of a single value and its proof
(`finance_assets.advisory.twrr`), tables on disk.

A series is the rows of one vendor, account and grain. Series are worked on side by side, one row of each after the
other, so that a product is taken in the order of the periods and comes out the same in whatever company.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Final

import numpy as np

from finance_assets.advisory.columns import encoded, side_by_side, text_ranks

if TYPE_CHECKING:
    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

DAILY_GAP_DAYS: Final = 5
"""Daily rows this many calendar days apart are taken as neighbours: weekends and holidays are not told apart."""

#: Rows whose series are worked on together: what they need stays in the processor's cache.
_ROWS_AT_ONCE = 1 << 18
_WORD = 32
_WORD_MASK = (1 << _WORD) - 1


@dataclass(frozen=True)
class Ordered:
    """The newest version of each key of a history, in the order of the keys.

    Attributes
    ----------
    places
        Place of each row in the history.
    series
        Number of each row's vendor, account and grain; ascends.
    days
        Period ends, in days since 1970; ascend within a series.
    """

    places: Ints
    series: Ints
    days: Ints


@dataclass(frozen=True)
class Alone:
    """What rows have by themselves, in the order of their keys.

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
        Flows as decimal128(28, 8); null where unknown.
    """

    period_start: Ints
    starts_as_stated: Bools
    is_daily: Bools
    currency: Ints
    factor: Floats
    net_flow: pa.Array

    def part(self, part: slice) -> Alone:
        """Return some of the rows; nothing is copied."""
        return Alone(*(getattr(self, field.name)[part] for field in fields(self)))


def links_schema() -> pa.Schema:
    """Give the Arrow schema of what rows have from the rows before them in their series.

    ``previous``
        Place of the row before among the rows in order; null for the first of a series.
    ``gap_days``
        Days between the end of the period before and this start; 0 for adjacent ones, negative for an overlap; null
        for the first of a series.
    ``currency_changed``
        Whether the currency is another than that of the row before; not where one of them is unknown.
    ``currencies_mixed``
        Whether it changed in this row or in one before.
    ``flow_so_far``
        Sum of the flows so far, exact; null where not all of them are known.
    ``chain_id``
        Number of the chain within the series, from 1.
    ``chain_start``
        First day of the chain.
    ``wealth_chain``, ``wealth_all``
        Product of the factors of the chain, and of the series, so far; null before the first that is known.
    """
    import pyarrow as pa

    return pa.schema(
        {
            "previous": pa.int64(),
            "gap_days": pa.int32(),
            "currency_changed": pa.bool_(),
            "currencies_mixed": pa.bool_(),
            "flow_so_far": pa.decimal128(38, 8),
            "chain_id": pa.int32(),
            "chain_start": pa.date32(),
            "wealth_chain": pa.float64(),
            "wealth_all": pa.float64(),
        }
    )


def in_order(history: pa.Table) -> Ordered:
    """Put the newest version of each key of a history in the order of the keys.

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
    series = np.zeros(history.num_rows, np.int64)
    for name in ("vendor", "account_id", "granularity"):
        ranks, count = _ranks(history, name)
        series = series * count + ranks
    days = _days(history, "period_end")
    if not history.num_rows:
        return Ordered(np.zeros(0, np.int64), series, days)
    first = int(days.min())
    width = int(days.max()) - first + 1
    if int(series.max()) + 1 > (1 << 62) // width:
        series = np.unique(series, return_inverse=True)[1].astype(np.int64)
    # One number to sort by.
    keys = series * width + (days - first)
    places = np.arange(len(keys))
    if not (keys[1:] >= keys[:-1]).all():
        places = np.argsort(keys, kind="stable")
        keys = keys[places]
    again = keys[1:] == keys[:-1]
    if again.any():
        places = _newest(history, keys, again, places)
    if len(places) < len(series) or not (places[1:] > places[:-1]).all():
        series, days = series[places], days[places]
    return Ordered(places, series, days)


def _newest(history: pa.Table, keys: Ints, again: Bools, places: Ints) -> Ints:
    """Return the places without those of keys that are there again in a newer version."""
    import pyarrow as pa
    import pyarrow.compute as pc

    repeated = np.flatnonzero(np.r_[again, False] | np.r_[False, again])
    rows = history.select(["received_ts_utc", "file_sha256", "line"]).take(pa.array(places[repeated]))
    known = pc.fill_null(rows["received_ts_utc"].cast(pa.int64()), np.iinfo(np.int64).min).to_numpy()
    lines = pc.fill_null(rows["line"], -1).to_numpy()
    files, _ = _ranks(rows, "file_sha256")
    order = np.lexsort((lines, files, known, keys[repeated]))
    sorted_keys = keys[repeated][order]
    is_last = np.r_[sorted_keys[1:] != sorted_keys[:-1], True]
    kept = np.ones(len(places), bool)
    kept[repeated] = False
    kept[repeated[order[is_last]]] = True
    return places[kept]


def linked(rows: Ordered, alone: Alone) -> pa.Table:
    """Link rows to those before them.

    Parameters
    ----------
    rows
        Rows in the order of their keys.
    alone
        What each of them has by itself.

    Returns
    -------
    pyarrow.Table
        `links_schema`, in the same order.

    Notes
    -----
    A chain restarts after a gap or an overlap, after a row without a factor, and where the currency changes.
    """
    import pyarrow as pa

    def of(part: slice) -> pa.Table:
        few = Ordered(rows.places[part], rows.series[part], rows.days[part])
        return _linked(few, alone.part(part), part.start)

    parts = side_by_side(of, _whole_series(rows.series))
    return pa.concat_tables([links_schema().empty_table(), *parts]).combine_chunks()


def _whole_series(series: Ints) -> Iterator[slice]:
    """Cut rows into parts of whole series, of about so many rows each."""
    start = 0
    while start < len(series):
        stop = int(np.searchsorted(series, series[min(start + _ROWS_AT_ONCE, len(series)) - 1], side="right"))
        yield slice(start, stop)
        start = stop


def _linked(rows: Ordered, alone: Alone, offset: int) -> pa.Table:
    """Link the rows of whole series, the first of which has a place among all rows."""
    import pyarrow as pa

    period_start, factor, currency = alone.period_start.astype(np.int64), alone.factor, alone.currency
    is_daily, net_flow = alone.is_daily, alone.net_flow
    size = len(rows.series)
    is_first = np.ones(size, bool)
    is_first[1:] = rows.series[1:] != rows.series[:-1]
    before = np.maximum(np.arange(size) - 1, 0)
    apart = period_start - rows.days[before] - 1
    # A start that repeats the end of the period before is the date of the opening valuation.
    is_adjacent = ~is_daily & (apart == -1)
    is_adjacent |= is_daily & ~alone.starts_as_stated & (apart >= 0) & (apart < DAILY_GAP_DAYS)
    gap_days = np.where(is_adjacent, 0, apart)
    currency_changed = ~is_first & (currency >= 0) & (currency[before] >= 0) & (currency != currency[before])
    starts_chain = is_first | (gap_days != 0) | np.isnan(factor)[before] | currency_changed
    series_starts, chain_starts = np.flatnonzero(is_first), np.flatnonzero(starts_chain)
    series_of_row, chain_of_row = np.cumsum(is_first) - 1, np.cumsum(starts_chain) - 1

    def within(counted: Ints) -> Ints:
        """Count from the beginning of the series, not of all rows."""
        since: Ints = counted - np.r_[0, counted[series_starts[1:] - 1]][series_of_row]
        return since

    is_unknown = within(np.cumsum(net_flow.is_null().to_numpy(zero_copy_only=False))) > 0
    wealth_chain = _running_products(factor, chain_starts)
    wealth_all = _running_products(factor, series_starts)
    return pa.table(
        [
            pa.array(offset + before, pa.int64(), mask=is_first),
            pa.array(gap_days.astype(np.int32), mask=is_first),
            pa.array(currency_changed),
            pa.array(within(np.cumsum(currency_changed)) > 0),
            _running_sums(net_flow, within, is_unknown),
            pa.array((chain_of_row - chain_of_row[series_starts][series_of_row] + 1).astype(np.int32)),
            pa.array(period_start[chain_starts][chain_of_row].astype(np.int32)).cast(pa.date32()),
            pa.array(wealth_chain, mask=np.isnan(wealth_chain)),
            pa.array(wealth_all, mask=np.isnan(wealth_all)),
        ],
        schema=links_schema(),
    )


def _running_products(factors: Floats, starts: Ints) -> Floats:
    """Return the product of each row's segment up to it; NaN before the first factor that is one."""
    lengths = np.diff(np.r_[starts, len(factors)])
    order = np.argsort(-lengths, kind="stable")
    places, negative_lengths = starts[order], -lengths[order]
    products = np.empty(len(factors))
    running = np.full(len(places), np.nan)
    for step in range(int(lengths.max())):
        # Segments that have ended are at the end.
        count = int(np.searchsorted(negative_lengths, -step))
        row = places[:count] + step
        factor, so_far = factors[row], running[:count]
        product = so_far * factor
        is_nan = np.isnan(product)
        if is_nan.any():
            product = np.where(is_nan, np.fmax(so_far, factor), product)
        running[:count] = product
        products[row] = product
    return products


def _running_sums(amounts: pa.Array, within: Callable[[Ints], Ints], is_unknown: Bools) -> pa.Array:
    """Return exact running sums of decimals in decimals of 38 digits.

    A decimal is an integer of 128 bits. Its four words of 32 bits are summed by themselves, so that nothing runs over,
    and what exceeds a word is carried to the next at the end.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    size = len(amounts)
    filled = pc.fill_null(amounts, pa.scalar(0, pa.int32()).cast(amounts.type)) if amounts.null_count else amounts
    words = np.frombuffer(filled.buffers()[1], np.uint32)[4 * filled.offset : 4 * (filled.offset + size)].reshape(-1, 4)
    made = np.empty((size, 4), np.uint32)
    carried = np.zeros(size, np.int64)
    for place in range(4):
        word = words[:, place].view(np.int32) if place == 3 else words[:, place]
        total = within(np.cumsum(word, dtype=np.int64)) + carried
        made[:, place] = (total & _WORD_MASK).astype(np.uint32)
        carried = total >> _WORD
    sums = pa.Array.from_buffers(pa.decimal128(38, amounts.type.scale), size, [None, pa.py_buffer(made)])
    return pc.if_else(pa.array(is_unknown), None, sums) if is_unknown.any() else sums


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
