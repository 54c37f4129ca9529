"""What is to be said of rows beside others: order, duplicates, and the flags of what disagrees.

Belongs here: everything that looks at the rows of a whole file, and changes no value of theirs. Does not belong here:
how a row came about (`finance_assets.advisory.reading.canonical`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import by_blocks, combine_chunks, encoded, months_of, text_ranks, thread_map
from finance_assets.advisory.reading.canonical import flag_texts
from finance_assets.advisory.reading.detection import floats_of, implied_range, zeroed
from finance_assets.advisory.reading.outcome import Part, quarantine_row
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS

if TYPE_CHECKING:
    import numpy.typing as npt

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

LARGE_FLOW = 0.1
"""A net flow of this share of the beginning value or more is flagged."""
NUMBERS = (*MONEY, *RETURNS)
"""Columns that the flags are about."""


@dataclass(frozen=True)
class Neighbours:
    """What rows have from the row of their account and grain before them, in whatever order the rows are.

    Attributes
    ----------
    follows
        The row before is of the adjacent period.
    gap
        Periods are missing between the two, and the account was not closed.
    prior
        Ending value of the row before; NaN where it is unknown. Only of use where the row follows.
    previous
        Place of the row before; -1 where there is none.
    """

    follows: Bools
    gap: Bools
    prior: Floats
    previous: Ints


def neighbours(
    previous: Ints, grain: Any, grains: Sequence[str], days: Any, before: Callable[[Ints], tuple[Any, Floats]]
) -> Neighbours:
    """Say what lies between rows and those before them.

    Parameters
    ----------
    previous
        Place of the row before each in its account and grain; -1 where there is none.
    grain
        Number of each row's grain.
    grains
        The grains, by number.
    days
        Period ends, in days since 1970.
    before
        Gives, for places of rows, their period ends and their ending values, NaN where unknown.

    Returns
    -------
    Neighbours
        In the order of what was given.
    """
    widths = np.array([{"daily": 0, "quarterly": 3}.get(word, 1) for word in grains], np.int64)

    def look(previous: Any, grain: Any, own_days: Any) -> tuple[Any, ...]:
        has = previous >= 0
        days_before, prior = before(np.where(has, previous, 0))
        width = widths[grain]
        day_step = own_days.astype(np.int64) - days_before
        step = months_of(own_days) - months_of(days_before)
        # Chains only run within one grain.
        follows = has & np.where(width == 0, (day_step > 0) & (day_step <= 5), step == width)
        gap = has & np.where(width == 0, day_step > 5, step > width) & (prior != 0)
        return follows, gap, np.where(has, prior, np.nan)

    follows, gap, prior = by_blocks(look, previous, grain, days)
    return Neighbours(follows, gap, prior, previous)


def in_order(rows: pa.Table, part: Part) -> pa.Table:
    """Sort rows by account, grain and period; of exact duplicates one stays, of contradictions none."""
    account, grain = (text_ranks(combine_chunks(rows[name])) for name in ("account_id", "granularity"))
    days = pc.cast(rows["period_end"], pa.int32()).to_numpy().astype(np.int64)
    # One number to sort by: days fit into 24 bits and grains into 2.
    keys = (account << 26) | (grain << 24) | (days - int(days.min()))
    if not np.all(keys[1:] >= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        rows = _taken(rows, pa.array(order))
    same = keys[1:] == keys[:-1]
    return _without_duplicates(rows, same, part) if same.any() else rows


def in_stored_order(rows: pa.Table) -> pa.Table:
    """Sort the rows of one file by period, account and grain, the order in which they are stored."""
    account, grain = (text_ranks(encoded(rows[name])) for name in ("account_id", "granularity"))
    days = pc.cast(rows["period_end"], pa.int32()).to_numpy().astype(np.int64)
    # One number to sort by: days fit into 24 bits and grains into 2.
    keys = (days - int(days.min(initial=0))) << 38 | account << 2 | grain
    return rows if np.all(keys[1:] >= keys[:-1]) else _taken(rows, pa.array(np.argsort(keys, kind="stable")))


def _taken(rows: pa.Table, order: Any) -> pa.Table:
    """Return rows in an order; columns are put in order side by side."""
    columns = thread_map(lambda column: pc.take(combine_chunks(column), order), rows.columns)
    return pa.table(columns, schema=rows.schema)


def _without_duplicates(rows: pa.Table, same: Any, part: Part) -> pa.Table:
    """Drop exact duplicates; quarantine all rows of a key whose values differ. Rows are sorted by their keys."""
    repeated = np.flatnonzero(np.r_[same, False] | np.r_[False, same])
    found = repeated_rows(rows.take(pa.array(repeated)))
    if found.duplicates:
        part.skipped["duplicate_rows"] += found.duplicates
        part.warnings.add("duplicate_rows")
    part.quarantined += found.quarantined
    mask = np.ones(rows.num_rows, bool)
    mask[repeated[found.dropped]] = False
    return rows.filter(pa.array(mask))


class Repeated(NamedTuple):
    """What becomes of rows whose keys are there more than once.

    Attributes
    ----------
    dropped
        Places of those that are no rows of the file.
    duplicates
        How many of them say what another one says.
    quarantined
        The others: nobody knows which of them is right.
    """

    dropped: list[int]
    duplicates: int
    quarantined: list[dict[str, Any]]


def repeated_rows(rows: pa.Table) -> Repeated:
    """Say what becomes of rows whose keys are there more than once: of exact duplicates the first stays.

    Parameters
    ----------
    rows
        All such rows (`ENCODED_ROWS`), those of one key in the order of the file.
    """
    groups: dict[tuple[Any, ...], list[int]] = {}
    for place, key in enumerate(rows.select(["account_id", "period_end", "granularity"]).to_pylist()):
        groups.setdefault(tuple(key.values()), []).append(place)
    values = rows.drop_columns(["line", "member", "flags"]).to_pylist()
    lines, members = rows["line"].to_pylist(), rows["member"].to_pylist()
    dropped: list[int] = []
    duplicates = 0
    quarantined: list[dict[str, Any]] = []
    for key, group in groups.items():
        if all(values[place] == values[group[0]] for place in group):
            dropped += group[1:]
            duplicates += len(group) - 1
            continue
        dropped += group
        detail = f"{len(group)} rows of one account and period differ"
        quarantined += [
            quarantine_row(lines[place], members[place], key[0], "duplicate_conflict", detail) for place in group
        ]
    return Repeated(dropped, duplicates, quarantined)


def flag_rows(rows: pa.Table, part: Part) -> pa.Table:
    """Flag what disagrees: breaks of the roll-forward, footing, implied return, gaps, large flows, negative values.

    Parameters
    ----------
    rows
        `ENCODED_ROWS` of a whole file, in the order of account, grain and period.
    part
        Told what holds of the file as a whole.

    Returns
    -------
    pyarrow.Table
        The rows with their flags.
    """
    arrays = {name: combine_chunks(rows[name]) for name in NUMBERS}
    empty = frozenset(name for name, array in arrays.items() if array.null_count == len(array))
    floats = {name: None if name in empty else floats_of(array) for name, array in arrays.items()}
    grain = combine_chunks(rows["granularity"])
    ending = floats["ending_market_value"]
    account = combine_chunks(rows["account_id"]).indices.to_numpy(zero_copy_only=False)
    grain_of_row = grain.indices.to_numpy(zero_copy_only=False)
    previous = np.arange(-1, rows.num_rows - 1)
    previous[1:][(account[1:] != account[:-1]) | (grain_of_row[1:] != grain_of_row[:-1])] = -1
    days = pc.cast(rows["period_end"], pa.int32()).to_numpy()
    values = np.full(rows.num_rows, np.nan) if ending is None else ending
    near = neighbours(
        previous, grain_of_row, grain.dictionary.to_pylist(), days, lambda places: (days[places], values[places])
    )
    footing = footing_of(floats)
    if footing.is_another_sum(empty):
        part.warnings.add("components_do_not_foot")
    texts = flagged_texts(
        combine_chunks(rows["flags"]),
        floats,
        near,
        lambda name, row: arrays[name][row].as_py(),
        is_footed=not footing.is_another_sum(empty),
    )
    place = rows.schema.get_field_index("flags")
    return rows.set_column(place, rows.schema.field(place), texts)


@dataclass(frozen=True)
class RollForwardCheck:
    """In how many rows beginning value, flow and components can be added up, and in how many the sum is off."""

    testable: int = 0
    off: int = 0

    def __add__(self, other: RollForwardCheck) -> RollForwardCheck:
        return RollForwardCheck(self.testable + other.testable, self.off + other.off)

    def __sub__(self, other: RollForwardCheck) -> RollForwardCheck:
        return RollForwardCheck(self.testable - other.testable, self.off - other.off)

    def is_another_sum(self, empty: frozenset[str]) -> bool:
        """Whether it is off so often that the components mean something else: then no single row is to blame."""
        return self.off > 0.5 * self.testable and (self.testable > 3 or "income" in empty)


def footing_of(floats: Mapping[str, Floats | None]) -> RollForwardCheck:
    """Count the rows whose components do not foot, of columns as `flagged_texts` takes them."""
    if any(floats[name] is None for name in ("beginning_market_value", "ending_market_value", "appreciation")):
        return RollForwardCheck()
    names = [name for name in MONEY if floats[name] is not None]

    def look(*amounts: Any) -> tuple[Any, ...]:
        return _footing(dict(zip(names, amounts, strict=True)))

    testable, off = by_blocks(look, *(floats[name] for name in names))
    return RollForwardCheck(int(np.count_nonzero(testable)), int(np.count_nonzero(off)))


def _footing(f: Mapping[str, Floats]) -> tuple[Bools, Bools]:
    """Return where the components can be added up, and where the sum is off."""
    bmv, emv = f["beginning_market_value"], f["ending_market_value"]
    testable = ~np.isnan(bmv) & ~np.isnan(emv) & ~np.isnan(f["appreciation"])
    total = bmv.copy()
    for name, sign in (("net_flow", 1), ("income", 1), ("appreciation", 1), ("other_adjustments", 1), ("fees", -1)):
        if name in f:
            total += sign * zeroed(f[name])
    return testable, testable & (np.abs(emv - total) > 0.021)


def flagged_texts(
    texts: pa.DictionaryArray,
    floats: Mapping[str, Floats | None],
    near: Neighbours,
    value: Callable[[str, int], Decimal | None],
    *,
    is_footed: bool,
    offset: int = 0,
) -> pa.DictionaryArray:
    """Add to the flags of rows what disagrees.

    Parameters
    ----------
    texts
        Flags so far.
    floats
        Each of `NUMBERS` as floats, NaN where there is none; None for a column that the file does not have at all.
    near
        The rows before these.
    value
        Gives the exact value of a column in a row of the file.
    is_footed
        Whether a sum of components that is off is the fault of its row.
    offset
        Place of the first of these rows among those of the file.

    Returns
    -------
    pyarrow.DictionaryArray
        Codes, separated by ``;``; some with an amount.
    """
    raised: list[tuple[str, Any, Callable[[int], str] | None]] = []

    def raise_flag(mask: Any, code: str, amount: Callable[[int], str] | None = None) -> None:
        if mask is not None and mask.any():
            raised.append((code, mask, amount))

    def total(*terms: tuple[int, str]) -> Callable[[int], str]:
        def amount(row: int) -> str:
            """Add up exact values; a name that ends in ' before' is of the row before."""
            found = Decimal(0)
            for sign, name in terms:
                plain = name.removesuffix(" before")
                place = offset + row if plain == name else int(near.previous[row])
                found += sign * (value(plain, place) or Decimal(0))
            return format(found.normalize() + 0, "f")

        return amount

    names = [name for name in NUMBERS if floats[name] is not None]
    has_bmv, has_returns = "beginning_market_value" in names, not {"return_net", "return_gross"}.isdisjoint(names)

    def look(follows: Any, prior: Any, *amounts: Any) -> tuple[Any, ...]:
        """Return what is to be said of each row by itself, as masks."""
        f = dict(zip(names, amounts, strict=True))
        unknown, nothing = np.full(len(prior), np.nan), np.zeros(len(prior))
        bmv, emv = f.get("beginning_market_value", unknown), f.get("ending_market_value", unknown)
        net = f.get("net_flow", unknown)
        flow = zeroed(f["net_flow"]) if "net_flow" in f else nothing
        fees = zeroed(f["fees"]) if "fees" in f else nothing
        breaks = follows & (np.abs(bmv - prior) > 0.005 + 1e-12 * np.abs(prior))
        negative = (bmv < 0) | (emv < 0)
        large = (bmv > 0) & (emv != 0) & (np.abs(flow) >= LARGE_FLOW * bmv)
        off = _footing(f)[1] if is_footed and has_bmv and "appreciation" in f else nothing.astype(bool)
        start = bmv if has_bmv else np.where(follows, prior, np.nan)
        missed = []
        for name, back in (("return_net", 0.0), ("return_gross", fees)):
            if name not in f:
                missed.append(np.zeros(len(prior), bool))
                continue
            low, high = implied_range(start, flow, emv - start - flow + back)
            # Without flows in the file an implied return is no test of a stated one.
            testable = np.isfinite(low) & np.isfinite(high) & ~np.isnan(f[name]) & ~np.isnan(net)
            missed.append(testable & ((f[name] < low - 2e-4) | (f[name] > high + 2e-4)))
        undefined = np.isnan(f.get("return_net", unknown)) & np.isnan(f.get("return_gross", unknown))
        no_capital = ~((bmv + np.maximum(flow, 0)) > 0) | (bmv < 0)
        return breaks, np.isnan(bmv), negative, large, off, *missed, undefined & no_capital, undefined & ~no_capital

    columns = [floats[name] for name in names]
    breaks, unknown, negative, large, off, missed_net, missed_gross, undefined, missing = by_blocks(
        look, near.follows, near.prior, *columns
    )
    raise_flag(breaks, "rollforward_break", total((1, "beginning_market_value"), (-1, "ending_market_value before")))
    raise_flag(near.gap, "missing_period")
    raise_flag(unknown if has_bmv else None, "beginning_value_missing")
    raise_flag(negative, "negative_market_value")
    raise_flag(large, "large_cash_flow")
    components = ("beginning_market_value", "net_flow", "income", "appreciation", "other_adjustments")
    raise_flag(
        off,
        "components_do_not_foot",
        total((1, "ending_market_value"), *((-1, name) for name in components), (1, "fees")),
    )
    raise_flag(missed_net, "implied_return_mismatch")
    raise_flag(missed_gross, "implied_return_mismatch")
    if has_returns:
        raise_flag(undefined, "return_undefined")
        raise_flag(missing, "return_missing")
    return _raised_texts(texts, raised) if raised else texts


def _raised_texts(texts: Any, raised: Sequence[tuple[str, Any, Any]]) -> Any:
    """Add raised flags to the texts of rows; only those that carry an amount are looked at one by one."""
    bits = np.zeros(len(texts), np.int64)
    counted = np.zeros(len(texts), bool)
    for place, (_, mask, amount) in enumerate(raised):
        bits[mask] |= 1 << place
        if amount is not None:
            counted |= mask
    indices = texts.indices.to_numpy(zero_copy_only=False).copy()
    known = texts.dictionary.to_pylist()
    plain = np.flatnonzero((bits != 0) & ~counted)
    distinct, inverse = np.unique(bits[plain] * len(known) + indices[plain], return_inverse=True)
    made = []
    for combination in distinct.tolist():
        said, before = divmod(combination, len(known))
        codes = [code for place, (code, _, _) in enumerate(raised) if said >> place & 1]
        made.append(";".join([*([known[before]] if known[before] else []), *codes]))
    indices[plain] = len(known) + inverse
    encoded = pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array([*known, *made], pa.string()))
    with_amounts = {
        row: [f"{code}:{amount(row)}" if amount else code for code, mask, amount in raised if mask[row]]
        for row in np.flatnonzero(counted).tolist()
    }
    return flag_texts(encoded, with_amounts)
