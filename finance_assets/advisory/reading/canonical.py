"""Canonical rows of one table: the grain, the ends of periods, the net flow, and the flags that a row has by itself.

Belongs here: what becomes of the typed columns of a table. Does not belong here: how they were typed
(`finance_assets.advisory.reading.detection`), and what is to be said of a row beside others
(`finance_assets.advisory.reading.flagging`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import encoded, months_of
from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.detection import Interpreted
from finance_assets.advisory.reading.layouts import RawTable
from finance_assets.advisory.reading.outcome import ENCODED_ROWS, MONEY_TYPE, RETURN_TYPE
from finance_assets.advisory.reading.values import month_end
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS, VendorContract


@dataclass(frozen=True)
class Grains:
    """The grain of the rows of a table: of each, where a column says it or they are proved to differ, or of all."""

    by_row: list[str] | None
    common: str
    is_stated: bool = False


def said_of_grain(table: RawTable, typed: Interpreted) -> str:
    """Return what a title and the headers may say of the grain."""
    returns = (table.headers[i] for c in ("return_net", "return_gross") for i in typed.mapping.columns.get(c, []))
    return "|".join([typed.title, typed.date_header, *returns])


def grains_of(table: RawTable, typed: Interpreted, contract: VendorContract | None) -> Grains:
    """Find the grain of the rows of one table."""
    if contract and contract.granularity:
        return Grains(typed.grain, contract.granularity, is_stated=True)
    good = np.ones(len(typed.lines), bool)
    good[list(typed.bad)] = False
    grain = _inferred_grain(typed, pa.array(good), said_of_grain(table, typed))
    return Grains(typed.grain or _grains_by_row(typed, good, grain), grain)


def _grains_by_row(typed: Interpreted, good: Any, grain: str) -> list[str] | None:
    """Return the grain of each row where the rows of one table are proved to differ."""
    size = len(typed.lines)
    if size == 0 or not good.any():
        return None
    ends = pc.fill_null(pc.cast(typed.period_end, pa.int32()), 0).to_numpy(zero_copy_only=False)
    if typed.period_start.null_count == 0:
        span = ends - pc.cast(typed.period_start, pa.int32()).to_numpy(zero_copy_only=False)
        codes = np.select([span <= 4, (span >= 26) & (span <= 35), (span >= 85) & (span <= 95)], [0, 1, 2], 3)
        distinct = np.flatnonzero(np.bincount(codes[good], minlength=4)).tolist()
        words = np.array(["daily", "monthly", "quarterly", ""])
        return words[codes].tolist() if len(distinct) > 1 and 3 not in distinct else None
    money = typed.money
    if grain != "monthly" or not {"beginning_market_value", "ending_market_value"} <= set(money):
        return None
    # An account that only reports quarter ends, and rolls forward from one to the next, reports quarters.
    months = months_of(ends)
    codes = typed.account.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    order = np.lexsort((ends, codes))
    same = codes[order][1:] == codes[order][:-1]
    steps = np.diff(months[order])
    if not (same & (steps == 3)).any():
        return None
    begin = pc.fill_null(pc.cast(money["beginning_market_value"], pa.float64()), float("nan")).to_numpy(
        zero_copy_only=False
    )
    end = pc.fill_null(pc.cast(money["ending_market_value"], pa.float64()), float("nan")).to_numpy(zero_copy_only=False)
    rolls = np.abs(begin[order][1:] - end[order][:-1]) <= 0.005
    quarter_end = (months[order] + 1) % 3 == 0
    proved = same & (steps == 3) & rolls & quarter_end[1:] & quarter_end[:-1]
    quarterly = set(codes[order][1:][proved].tolist()) - set(codes[order][1:][same & ~proved].tolist())
    if not quarterly:
        return None
    return ["quarterly" if code in quarterly else grain for code in codes.tolist()]


def _inferred_grain(typed: Interpreted, good: Any, stated: str) -> str:
    ends = pc.filter(typed.period_end, good)
    starts = None
    if typed.period_start.null_count < len(typed.period_start):
        starts = pc.filter(typed.period_start, good)

    def steps() -> tuple[Any, Any]:
        account = encoded(pc.filter(typed.account, good)).indices.to_numpy(zero_copy_only=False)
        days = pc.cast(ends, pa.int32()).to_numpy(zero_copy_only=False)
        order = np.lexsort((days, account))
        same = account[order][1:] == account[order][:-1]
        return days[order[:-1][same]], days[order[1:][same]]

    return grain_of(typed.date_kind, ends, starts, stated, steps)


def grain_of(kind: str, ends: Any, starts: Any | None, stated: str, steps: Callable[[], tuple[Any, Any]]) -> str:
    """Infer the grain of rows.

    Parameters
    ----------
    kind
        What the dates of the file are: days, months, quarters.
    ends, starts
        Ends of the periods, and their beginnings where they are stated.
    stated
        What titles and headers say.
    steps
        Gives the ends of periods that follow each other in an account, as two arrays of days since 1970.

    Returns
    -------
    str
        ``daily``, ``monthly`` or ``quarterly``.
    """
    if kind == "quarter":
        return "quarterly"
    if starts is not None:
        span = pc.subtract(pc.cast(ends, pa.int32()), pc.cast(starts, pa.int32())).drop_null()
        if len(span):
            middle = float(np.median(span.to_numpy(zero_copy_only=False)))
            if middle <= 4:
                return "daily"
            if 26 <= middle <= 35:
                return "monthly"
            if 85 <= middle <= 95:
                return "quarterly"
    if len(ends) == 0:
        return "monthly"
    before, after = steps()
    day_steps = after.astype(np.int64) - before
    month_steps = months_of(after) - months_of(before)
    distinct = np.unique(pc.cast(ends, pa.int32()).to_numpy(zero_copy_only=False))
    months = months_of(distinct)
    quarter_ends = bool(np.all((months + 1) % 3 == 0))
    moved = day_steps > 0
    if moved.any():
        within = (month_steps[moved] == 0).mean()
        if within > 0.3 or float(np.median(day_steps[moved])) <= 7:
            return "daily"
        return "quarterly" if quarter_ends and np.all(month_steps[moved] % 3 == 0) else "monthly"
    if re.search(r"(?i)\bdaily\b", stated):
        return "daily"
    if quarter_ends and re.search(r"(?i)\bquarterly\b|\bquarter[- ]end|\bqtd\b|\bquarter\b|\bquartal", stated):
        return "quarterly"
    if len(distinct) > 3 and len(np.unique(months)) == 1:
        return "daily"
    return "monthly"


def _last_business_day(day: date) -> bool:
    """Whether only a weekend and at most one holiday lie between a day and the end of its month."""
    end = month_end(day.year, day.month)
    if day >= end or day.weekday() > 4:
        return False
    between = sum((day + timedelta(days=n)).weekday() < 5 for n in range(1, (end - day).days + 1))
    return between <= 1


def canonical_rows(table: RawTable, typed: Interpreted, grain: Grains, label: str, warnings: set[str]) -> pa.Table:
    """Build canonical rows of the good rows of one table.

    Parameters
    ----------
    table, typed
        The table, and its columns.
    grain
        What `grains_of` found.
    label
        Name of the member of an archive, or of the sheet.
    warnings
        What is noticed is added to it.

    Returns
    -------
    pyarrow.Table
        `ENCODED_ROWS`, in the order of the table.
    """
    size = table.rows
    by_row = grain.by_row
    grains = (
        pa.array([g or grain.common for g in by_row], pa.string()).dictionary_encode()
        if by_row
        else repeated(grain.common, size)
    )
    flags: dict[int, list[str]] = {row: list(said) for row, said in table.flags.items()}
    ends, stated = _period_ends(typed, grains, flags, warnings, bool(by_row))
    money = dict(typed.money)
    contributions, distributions = money.get("contributions"), money.get("distributions")
    net = money.get("net_flow")
    if contributions is not None or distributions is not None:
        given = [a for a in (contributions, distributions) if a is not None]
        zero = pa.scalar(Decimal(0), MONEY_TYPE)
        c, d = (
            (pc.fill_null(a, zero) if a.null_count else a)
            if a is not None
            else pa.nulls(size, MONEY_TYPE).fill_null(zero)
            for a in (contributions, distributions)
        )
        computed = pc.cast(pc.subtract(c, d), MONEY_TYPE)
        if all(a.null_count for a in given):
            known = pc.is_valid(given[0])
            for other in given[1:]:
                known = pc.or_(known, pc.is_valid(other))
            computed = pc.if_else(known, computed, None)
        if net is not None:
            differs = pc.fill_null(pc.not_equal(net, computed), False)
            if len(given) == 2:
                for row in pc.indices_nonzero(differs).to_pylist():
                    flags.setdefault(row, []).append("net_flow_differs")
            computed = pc.coalesce(net, computed) if net.null_count else net
        net = computed
    arrays: dict[str, Any] = {
        "account_id": typed.account,
        "period_start": typed.period_start,
        "period_end": ends,
        "stated_period_end": stated,
        "granularity": grains,
        "currency": typed.currency,
        "member": repeated(label, size),
        "line": typed.lines,
    }
    for name in MONEY:
        arrays[name] = net if name == "net_flow" and net is not None else money.get(name, pa.nulls(size, MONEY_TYPE))
    for name in RETURNS:
        arrays[name] = typed.returns.get(name, pa.nulls(size, RETURN_TYPE))
    arrays["flags"] = flag_texts(repeated("", size), flags)
    columns = [arrays[f.name] for f in ENCODED_ROWS]
    rows = pa.table(
        [
            column.dictionary_encode() if pa.types.is_dictionary(f.type) else column
            for f, column in zip(ENCODED_ROWS, columns, strict=True)
        ],
        schema=ENCODED_ROWS,
    )
    if typed.bad:
        mask = np.ones(size, bool)
        mask[list(typed.bad)] = False
        rows = rows.filter(pa.array(mask))
    return rows


def repeated(text: str, rows: int) -> Any:
    """Return a column that has the same text in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text], pa.string()))


def flag_texts(texts: Any, flags: Mapping[int, Sequence[str]]) -> Any:
    """Add flags to the texts of some rows, a dictionary before and after."""
    if not flags:
        return texts
    indices = texts.indices.to_numpy(zero_copy_only=False).copy()
    known = texts.dictionary.to_pylist()
    places = {text: place for place, text in enumerate(known)}
    for row, said in flags.items():
        text = ";".join([*([before] if (before := known[indices[row]]) else []), *said])
        place = places.get(text)
        if place is None:
            place = places[text] = len(known)
            known.append(text)
        indices[row] = place
    return pa.DictionaryArray.from_arrays(pa.array(indices, pa.int32()), pa.array(known, pa.string()))


def _period_ends(
    typed: Interpreted, grains: Any, flags: dict[int, list[str]], warnings: set[str], mixed: bool
) -> tuple[Any, Any]:
    """Move stated dates to the end of their period where that is what they mean."""
    encoded = typed.period_end.dictionary_encode()
    distinct = encoded.dictionary.to_pylist()
    size = len(typed.lines)
    stated_default = pa.nulls(size, pa.date32())
    daily = pc.equal(grains, "daily")
    if pc.all(daily).as_py() and size:
        return typed.period_end, stated_default
    odd = [d for d in distinct if d is not None and d != month_end(d.year, d.month)]
    if not odd:
        return typed.period_end, stated_default
    label_only = typed.date_header in {
        "month",
        "monat",
        "mois",
        "mes",
        "mese",
        "period",
        "reporting month",
        "reporting period",
        "periode",
        "periodo",
        "quarter",
        "year month",
    }
    firsts = [d for d in odd if d.day == 1]
    moved: dict[date, date] = {}
    off: set[date] = set()
    known = [d for d in distinct if d is not None]
    if firsts and len(firsts) == len(known) and not mixed:
        if not label_only:
            raise FileRejected("ambiguous_period")
        moved = {d: month_end(d.year, d.month) for d in firsts}
        warnings.add("period_label_normalised")
    else:
        for d in odd:
            if _last_business_day(d):
                moved[d] = month_end(d.year, d.month)
            else:
                off.add(d)
    new = pa.array([moved.get(d, d) if d is not None else None for d in distinct], pa.date32())
    old = pa.array([d if d in moved else None for d in distinct], pa.date32())
    ends, stated = pc.take(new, encoded.indices), pc.take(old, encoded.indices)
    if mixed:
        ends = pc.if_else(daily, typed.period_end, ends)
        stated = pc.if_else(daily, None, stated)
    if not (firsts and len(firsts) == len(known)):
        for row in pc.indices_nonzero(pc.is_valid(stated)).to_pylist():
            flags.setdefault(row, []).append("business_day_period_end")
    if off:
        mask = pc.is_in(typed.period_end, pa.array(sorted(off), pa.date32()))
        for row in pc.indices_nonzero(pc.and_(mask, pc.invert(daily))).to_pylist():
            flags.setdefault(row, []).append("off_cycle_period_end")
    return ends, stated
