"""What the columns of a raw table mean, and the proof of it.

Belongs here: the assignment of columns to fields, and the conventions (unit of returns, sign of flows and fees, order
of dates, decimal mark) that the values themselves prove through the accounting identities. What cannot be proved
rejects the file or the row.
"""

from __future__ import annotations

import functools
import itertools
import re
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import by_blocks, integers_of, thread_map
from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading import values as typing_
from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.layouts import RawTable
from finance_assets.advisory.reading.vendor_contract import CANONICAL, MONEY, RETURNS, VendorContract

_SUMMED = ("income", "appreciation", "fees", "other_adjustments", "contributions", "distributions")
_MARKS = {".": "dot", ",": "comma"}
_PLACES = {"decimal": 0, "percent": 2, "bps": 4}
_UNITS = tuple(_PLACES)
Floats = Any


@dataclass
class Mapping:
    """Which column is which field, and how good the case for it is."""

    columns: dict[str, list[int]]
    score: float = 0.0
    unknown: list[int] = field(default_factory=list)
    personal: list[int] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)


@dataclass
class Interpreted:
    """Typed columns of one table, before duplicates and breaks are looked for.

    ``conventions`` is what was decided for all of its rows (columns, signs, units, the order of dates), to be compared
    with what other rows of the same file say; ``is_mixed`` tells that the rows differ in the unit of their returns.
    """

    account: Any
    period_start: Any
    period_end: Any
    date_kind: str
    currency: Any
    money: dict[str, Any]
    returns: dict[str, Any]
    grain: list[str] | None
    lines: Any
    bad: dict[int, tuple[str, str, int]]
    warnings: set[str]
    mapping: Mapping
    date_header: str = ""
    title: str = ""
    identity: float | None = None
    conventions: tuple[Any, ...] = ()
    is_mixed: bool = False


def _shape_ok(name: str, texts: Any, latest: date) -> bool:
    """Whether the values of a column can be what its header says."""
    sample = [t for t in texts.to_pylist() if t]
    if not sample:
        return True
    if name in MONEY or name in RETURNS:
        good = 0
        for text in sample:
            for mark in (".", ","):
                if not isinstance(typing_.parse_number(text, mark), str):
                    good += 1
                    break
        return good >= 0.5 * len(sample)
    if name in {"period_end", "period_start"}:
        # A date is there many times.
        is_date = {text: typing_.read_date(text, latest) is not None for text in set(sample)}
        return sum(map(is_date.__getitem__, sample)) >= 0.5 * len(sample)
    if name == "currency":
        short = sum(len(t) <= 20 for t in sample)
        return short >= 0.5 * len(sample) and not all(re.fullmatch(r"[\d.,\s-]+", t) for t in sample)
    return True


def assign(table: RawTable, contract: VendorContract | None, latest: date) -> Mapping:
    """Assign columns to fields.

    Parameters
    ----------
    table
        Raw table.
    contract
        Contract that matched; its aliases decide.
    latest
        The day of receipt.

    Returns
    -------
    Mapping
        Columns by field.

    Raises
    ------
    FileRejected
        If the table is another feed or lacks what a performance row needs.
    """
    if table.positional is not None:
        by_name: dict[str, list[int]] = {}
        for i, name in enumerate(table.headers):
            if name in CANONICAL:
                by_name.setdefault(name, [i])
        return Mapping(by_name, score=1.0)
    aliases = contract.columns if contract else {}
    if not aliases and (feed := naming.feed_of([table.headers])):
        raise FileRejected(feed)
    proposals = naming.proposals(table.headers, aliases)
    mapping = Mapping({})
    for i, header in enumerate(table.headers):
        aliased = proposals[i][1] >= 2
        if not aliased and naming.is_personal(header.split(".")[-1] if not re.search(r"\s", header) else header):
            mapping.personal.append(i)
        elif proposals[i][0] in {None, "ignore"} and table.rows:
            sample = [t for t in table.text(i, 200).to_pylist() if t]
            if sample and sum(bool(re.match(typing_.PERSONAL_VALUE, t)) for t in sample) >= 0.5 * len(sample):
                mapping.personal.append(i)
            elif proposals[i][0] is None and header.strip():
                mapping.unknown.append(i)
    by_field: dict[str, list[tuple[float, int]]] = {}
    for i, (proposed, said) in enumerate(proposals):
        # What a record says itself comes before what stands above it.
        score = said - 0.05 if i in table.inherited else said
        if proposed and proposed != "ignore" and score >= 0.3 and i not in mapping.personal:
            by_field.setdefault(proposed, []).append((score, i))
    if "flow_indicator" not in by_field:
        by_field["net_flow"] = [c for c in by_field.get("net_flow", []) if c[0] > 0.3]
    scores = []
    for name, candidates in by_field.items():
        candidates = sorted(candidates, key=lambda c: (-c[0], c[1]))
        # A column that was typed while it was read has nothing but numbers.
        fitting = [c for c in candidates if c[1] in table.decimals or _shape_ok(name, table.text(c[1], 400), latest)]
        if len(fitting) < len(candidates) and (not fitting or fitting[0] != candidates[0]):
            mapping.warnings.add("column_not_readable")
        if not fitting:
            continue
        best = fitting[0][0]
        tied = [i for s, i in fitting if s == best]
        scores.append(min(best, 1.0))
        if len(tied) == 1:
            mapping.columns[name] = tied
            continue
        distinct = [tied[0]]
        for i in tied[1:]:
            if not any(table.columns[i].equals(table.columns[j]) for j in distinct):
                distinct.append(i)
        totals = [i for i in distinct if re.search(r"\b(total|gesamt|totale)\b", naming.normalised(table.headers[i]))]
        if len(distinct) == 1:
            mapping.columns[name] = distinct
        elif name in _SUMMED and len({naming.normalised(table.headers[i]) for i in distinct}) == len(distinct):
            mapping.columns[name] = totals[:1] or distinct
            if not totals:
                mapping.warnings.add("columns_summed")
        elif name == "account_id":
            mapping.columns[name] = distinct[:1]
            mapping.warnings.add("several_account_columns")
        elif name in {"currency", "granularity", "flow_indicator"}:
            mapping.columns[name] = distinct[:1]
        else:
            raise FileRejected("ambiguous_columns")
    if not {"account_id"} <= set(mapping.columns):
        raise FileRejected("unknown_schema")
    if not {"ending_market_value", "return_net", "return_gross"} & set(mapping.columns):
        raise FileRejected("unknown_schema")
    if mapping.personal:
        mapping.warnings.add("pii_columns_dropped")
    if mapping.unknown:
        mapping.warnings.add("unknown_columns")
    mapping.score = sum(scores) / max(1, len(scores))
    return mapping


_TITLE_DATE = re.compile(
    r"(?i)(?:as of|as at|period end(?:ed|ing)?|month end(?:ed|ing)?|quarter end(?:ed|ing)?|per|stichtag"
    r"|valuation date|au|al|a fecha de|for)"
    r"\s*:?\s*(\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}\.? [^\W\d_]+ \d{4}|[^\W\d_]+ \d{1,2},? \d{4}"
    r"|[^\W\d_]+ \d{4}|Q[1-4] \d{4})"
)


def _numbers(
    table: RawTable, mapping: Mapping, contract: VendorContract | None
) -> tuple[dict[int, typing_.Numbers], dict[int, str], set[str]]:
    """Type all number columns, each in the decimal mark that its values, or the file's, prove; say which it is."""
    warnings: set[str] = set()
    places = [(name, i) for name in (*MONEY, *RETURNS) for i in mapping.columns.get(name, [])]
    evidence = {
        # Plain numbers with digits after a mark prove the mark.
        i: typing_.Evidence(**{_MARKS[table.mark]: int(table.decimals[i] > 0 and i not in table.native)})
        if i in table.decimals
        else typing_.number_evidence(table.columns[i], table.native.get(i))
        for _, i in places
    }
    total = sum(evidence.values(), typing_.Evidence())
    fields = {s.name: s for s in contract.fields} if contract and table.positional else {}
    out: dict[int, typing_.Numbers] = {}
    marks: dict[int, str] = {}
    for name, i in places:
        marks[i] = table.mark
        if i in table.decimals:
            out[i] = typing_.Numbers(table.columns[i], {}, decimals=table.decimals[i])
            continue
        own = evidence[i]
        mark: str | None = contract.decimal if contract else None
        if name in fields and (fields[name].picture or (contract and contract.pictures.get(name))):
            mark = "."
        mark = mark or own.proved
        if mark is None and own.conflicting:
            raise FileRejected("ambiguous_numbers")
        if mark is None:
            ambiguous = own.ambiguous_dot + own.ambiguous_comma
            mark = total.proved
            if mark is None and ambiguous and name in RETURNS and not (own.ambiguous_dot and own.ambiguous_comma):
                # A return of a thousand percent and more is no reading of "1.234".
                mark = "." if own.ambiguous_dot else ","
            elif mark is None and ambiguous:
                filled = pc.sum(pc.match_substring_regex(table.columns[i], r"\d")).as_py() or 0
                if own.ambiguous_dot and own.ambiguous_comma:
                    raise FileRejected("ambiguous_numbers")
                whole = total.ambiguous_dot + total.ambiguous_comma
                if whole < 3 or ambiguous < 0.3 * filled or (total.ambiguous_dot and total.ambiguous_comma):
                    raise FileRejected("ambiguous_numbers")
                # Money has no three decimals in all of many values: the mark separates thousands.
                mark = "," if own.ambiguous_dot else "."
                warnings.add("thousands_separator_inferred")
        picture = contract.pictures.get(name) if contract and not table.positional else None
        texts = table.columns[i]
        if picture:
            from finance_assets.advisory.reading.vendor_contract import implied

            texts = pa.array([implied(t, picture) for t in texts.to_pylist()], pa.string())
            mark = "."
        marks[i] = mark or "."
        out[i] = typing_.numbers(texts, marks[i], table.native.get(i), round_to=18 if name in RETURNS else None)
    return out, marks, warnings


def _write_basis_points_as_percent(table: RawTable, contract: VendorContract | None) -> None:
    """Rewrite returns that carry "bps" or "pct" in the cell with a percent sign."""
    for i, (name, _) in enumerate(naming.proposals(table.headers, contract.columns if contract else {})):
        if name not in RETURNS or i in table.decimals:
            continue
        marked = pc.match_substring_regex(table.columns[i], r"(?i)\d\s*(bps?|basis points|pct|percent|prozent)\.?$")
        if not pc.any(marked).as_py():
            continue
        out = []
        for text in table.columns[i].to_pylist():
            match = re.fullmatch(r"(?i)(.*\d)\s*(bps?|basis points|pct|percent|prozent)\.?", text)
            if match is None:
                out.append(text)
            elif match[2].casefold().startswith("b"):
                number = typing_.parse_number(match[1], "," if re.search(r",\d{1,2}$", match[1]) else ".")
                out.append(f"{number / 100:f}%" if isinstance(number, Decimal) else text)
            else:
                out.append(match[1] + "%")
        table.columns[i] = pa.array(out, pa.string())


def _join_year_and_month(table: RawTable) -> None:
    """Join a column of years and one of months, where no other column is a date."""
    names = [naming.normalised(h) for h in table.headers]
    year = next((i for i, n in enumerate(names) if n in {"year", "jahr", "annee", "ano", "anno"}), None)
    month = next((i for i, n in enumerate(names) if n in {"month", "monat", "mois", "mes", "mese"}), None)
    if year is None or month is None or table.positional is not None:
        return
    pairs = list(zip(table.columns[year].to_pylist(), table.columns[month].to_pylist(), strict=True))
    if not all(
        re.fullmatch(r"(19|20)\d\d", y) and re.fullmatch(r"\d{1,2}|[^\W\d_]{3,}\.?", m) for y, m in pairs if y and m
    ):
        return
    joined = [(f"{y}-{m.zfill(2)}" if m.isdigit() else f"{m} {y}") if y and m else "" for y, m in pairs]
    table.columns[month] = pa.array(joined, pa.string())
    table.native.pop(month, None)


def floats_of(array: Any) -> Floats:
    """Return decimals as floats, NaN where there is none.

    A decimal of up to 64 bits becomes the float nearest to it; Arrow's own cast, which the larger ones take, may be off
    by the last bit, and takes five times as long.
    """
    whole = integers_of(array)
    if whole is None:
        cast = pc.cast(array, pa.float64())
        return (pc.fill_null(cast, float("nan")) if cast.null_count else cast).to_numpy(zero_copy_only=False)
    floats: Floats = whole / 10.0**array.type.scale
    if array.null_count:
        floats[pc.is_null(array).to_numpy(zero_copy_only=False)] = np.nan
    return floats


def zeroed(array: Floats) -> Floats:
    """Return floats with 0 in place of NaN; the same array where there is none."""
    missing = np.isnan(array)
    return np.where(missing, 0.0, array) if missing.any() else array


class _Identities:
    """The accounting identities of a table, as far as its columns allow them."""

    def __init__(self, floats: dict[str, Floats], rows: int, prior: Floats) -> None:
        self.f = floats
        self.rows = rows
        bmv = floats.get("beginning_market_value")
        self.bmv: Floats = prior if bmv is None else np.where(np.isnan(bmv), prior, bmv)
        self.emv = floats.get("ending_market_value", np.full(rows, np.nan))
        self.zeroed = {name: zeroed(array) for name, array in floats.items()}
        self.fees = self._or_nothing("fees")

    def _or_nothing(self, name: str) -> Floats:
        found = self.zeroed.get(name)
        return np.zeros(self.rows) if found is None else found

    def where(self, mask: Any) -> _Identities:
        """Return the identities of some of the rows."""
        chosen = {name: array[mask] for name, array in self.f.items()}
        return _Identities(chosen, int(mask.sum()), self.bmv[mask])

    def flow(self, contribution: int, distribution: int, net: int) -> Floats:
        f = self.f
        if "contributions" in f or "distributions" in f:
            made = contribution * self._or_nothing("contributions") - distribution * self._or_nothing("distributions")
            if "net_flow" in f:
                unstated = np.isnan(f["contributions"]) if "contributions" in f else np.zeros(self.rows, bool)
                unstated &= np.isnan(f["distributions"]) if "distributions" in f else False
                if unstated.any():
                    made = np.where(unstated & ~np.isnan(f["net_flow"]), net * self.zeroed["net_flow"], made)
            return made
        return net * self._or_nothing("net_flow")

    def footing(self, contribution: int, distribution: int, net: int, fees: int) -> Floats:
        parts = self._or_nothing("income") + self._or_nothing("appreciation") + self._or_nothing("other_adjustments")
        return self.emv - (self.bmv + self.flow(contribution, distribution, net) + parts - fees * self.fees)

    def implied(self, flow: Floats, add_back: Any = 0.0) -> tuple[Floats, Floats]:
        """Return the lowest and highest Modified Dietz return over all weights of the flow."""
        emv, rows = self.emv, self.rows

        def implied(start: Floats, end: Floats, flow: Floats, more: Floats) -> tuple[Floats, Floats]:
            return implied_range(start, flow, end - start - flow + more)

        low, high = by_blocks(implied, self.bmv, emv, flow, np.broadcast_to(add_back, rows))
        return low, high


def implied_range(start: Floats, flow: Floats, gain: Floats) -> tuple[Floats, Floats]:
    """Return the lowest and highest Modified Dietz return over all weights of the flow, NaN without capital.

    Parameters
    ----------
    start, flow, gain
        Value at the start, net flow and gain of each row.

    Returns
    -------
    tuple
        Lowest and highest return. Without capital at the start the flow is the capital.
    """
    first, middle, last = (
        np.where(base > 0, gain / base, np.nan) for base in (start, start + 0.5 * flow, start + flow)
    )
    low, high = np.fmin(np.fmin(first, middle), last), np.fmax(np.fmax(first, middle), last)
    none = start <= 0
    return np.where(none, last, low), np.where(none, last, high)


def _matches(stated: Floats, low: Floats, high: Floats, places: int, decimals: int) -> Any:
    """Whether stated returns, in a unit, are what the values imply."""
    rounding = 0.6 * 10.0 ** -(decimals + places) + 2e-6

    def matches(stated: Floats, low: Floats, high: Floats) -> tuple[Any]:
        slack = rounding + 0.004 * np.maximum(np.abs(low), np.abs(high))
        value = stated / 10.0**places
        return ((value >= low - slack) & (value <= high + slack),)

    (found,) = by_blocks(matches, stated, low, high)
    return found


@dataclass
class _Signs:
    contribution: int = 1
    distribution: int = 1
    net: int = 1
    fees: int = 1
    footed: float | None = None
    proved: bool = False


def _clearly_better(one: Any, other: Any) -> bool:
    """Whether one reading explains rows that the other does not, and hardly the other way round."""
    return int(np.sum(one & ~other)) > 2 * int(np.sum(other & ~one))


def _prove_signs(identities: _Identities, returns: list[tuple[Floats, int]]) -> _Signs:
    """Find the signs of flows and fees under which the identities hold."""
    f = identities.f

    def options(name: str) -> tuple[int, ...]:
        return (1, -1) if name in f and bool(np.any(zeroed(f[name]) != 0)) else (1,)

    combos = list(
        itertools.product(options("contributions"), options("distributions"), options("net_flow"), options("fees"))
    )
    testable = ~np.isnan(identities.bmv) & ~np.isnan(identities.emv)
    best = _Signs()
    if "appreciation" in f and "beginning_market_value" in f and testable.any():
        default = (np.abs(identities.footing(1, 1, 1, 1)) <= 0.021) & testable
        left = identities.where(testable & ~default)
        if not any((np.abs(left.footing(*combo)) <= 0.021).any() for combo in combos):
            # No other reading explains a row that this one does not: nothing can be better.
            combos_tried = [(1, 1, 1, 1)]
        else:
            combos_tried = combos
        holds = {
            c: default if c == (1, 1, 1, 1) else (np.abs(identities.footing(*c)) <= 0.021) & testable
            for c in combos_tried
        }
        winner = max(combos_tried, key=lambda c: (int(holds[c].sum()), c == (1, 1, 1, 1), sum(c)))
        footed = int(holds[winner].sum()) / int(testable.sum())
        if footed >= 0.5 and _clearly_better(holds[winner], default):
            return _Signs(*winner, footed=footed, proved=True)
        footed = int(default.sum()) / int(testable.sum())
        if footed >= 0.5:
            return _Signs(footed=footed, proved=True)
        best.footed = footed
    if returns and testable.any():
        flows = sorted({c[:3] for c in combos}, reverse=True)
        matched: dict[tuple[int, int, int], Any] = {}
        for combo3 in flows:
            flow = identities.flow(*combo3)
            material = testable & (np.abs(flow) > 0.001 * np.abs(identities.bmv))
            low, high = identities.implied(flow)
            tries = [
                _matches(stated, low, high, places, decimals) & material
                for stated, decimals in returns
                for places in _PLACES.values()
            ]
            matched[combo3] = max(tries, key=lambda t: int(t.sum()))
        plain = matched[(1, 1, 1)]
        winner3 = max(flows, key=lambda c: (int(matched[c].sum()), c == (1, 1, 1)))
        if _clearly_better(matched[winner3], plain):
            return _Signs(*winner3, footed=best.footed, proved=True)
        best.proved = bool(plain.any())
    return best


def _prior_values(order: Any, same: Any, emv: Floats) -> Floats:
    """Return the previous ending value of each row's account, where there is one."""
    prior = np.full(len(order), np.nan)
    if len(order) > 1:
        prior[order[1:][same]] = emv[order[:-1][same]]
    return prior


def _by_account(account: Any, days: Any) -> tuple[Any, Any]:
    """Return the order of rows by account and day, and which row in it has the account of the one before."""
    codes = account.dictionary_encode().indices.to_numpy(zero_copy_only=False).astype(np.int64)
    # One number to sort by: days fit into 24 bits, the rest is room for accounts.
    keys = (codes << 24) | (days.astype(np.int64) - int(days.min(initial=0)))
    order = np.argsort(keys, kind="stable")
    codes = codes[order]
    return order, codes[1:] == codes[:-1]


def interpret(table: RawTable, contract: VendorContract | None, latest: date) -> Interpreted:
    """Type a raw table and prove its conventions.

    Parameters
    ----------
    table
        Raw table.
    contract
        Contract that matched, if any.
    latest
        The day of receipt.

    Returns
    -------
    Interpreted
        Typed columns with the reasons of rows that cannot be used.

    Raises
    ------
    FileRejected
        If a convention cannot be proved for the file as a whole.
    """
    _write_basis_points_as_percent(table, contract)
    _join_year_and_month(table)
    mapping = assign(table, contract, latest)
    warnings = set(mapping.warnings) | table.warnings
    rows = table.rows
    bad: dict[int, tuple[str, str, int]] = {}
    lines = table.lines.to_numpy(zero_copy_only=False)

    def refuse(row: int, reason: str, detail: str, column: int | None = None) -> None:
        line = int(table.cell_lines[column][row].as_py()) if column in table.cell_lines else int(lines[row])
        bad.setdefault(row, (reason, detail, line))

    title = " | ".join(table.preamble)
    aliases_units = dict(contract.units) if contract else {}
    specs = {s.name: s for s in contract.fields} if contract and table.positional else {}

    # Ids
    place = mapping.columns["account_id"][0]
    account, reasons, said = typing_.account_ids(
        table.columns[place],
        table.native.get(place) if place in table.lossy else None,
        contract.id_width if contract else None,
    )
    warnings |= said
    for row, reason in reasons.items():
        refuse(row, reason, "account_id", place)

    # Dates
    given = contract.date_order if contract else None
    texts_of: dict[str, Any] = {}
    if "period_end" in mapping.columns:
        texts_of["period_end"] = table.columns[mapping.columns["period_end"][0]]
    else:
        match = _TITLE_DATE.search(title)
        if not match:
            raise FileRejected("unknown_schema")
        texts_of["period_end"] = pa.array([match[1]] * rows, pa.string())
        warnings.add("date_from_title")
    if "period_start" in mapping.columns:
        texts_of["period_start"] = table.columns[mapping.columns["period_start"][0]]
    readings = {}
    for name, texts in texts_of.items():
        formats: tuple[str, ...] = ()
        if name in specs and specs[name].format:
            formats = (str(specs[name].format),)
        elif contract and contract.date_formats:
            formats = contract.date_formats
        native = table.native.get(mapping.columns[name][0]) if name in mapping.columns else None
        if native is not None and formats:
            formats = ()
        readings[name] = typing_.unique_readings(texts, latest, formats)
    try:
        order = typing_.choose_order([r for _, _, rs in readings.values() for r in rs if r is not None], latest, given)
    except typing_.AmbiguousDatesError as error:
        raise FileRejected("ambiguous_dates") from error
    typed_dates = {
        name: typing_.dates(indices, distinct, found, order, latest, required=name == "period_end")
        for name, (indices, distinct, found) in readings.items()
    }
    ends = typed_dates["period_end"]
    for name, typed in typed_dates.items():
        column = mapping.columns.get(name, [None])[0]
        for row, reason in typed.bad.items():
            if name == "period_end" or reason != "missing_required":
                refuse(row, reason, name, column)
    if rows and len(ends.bad) == rows and all(r == "bad_date" for r in ends.bad.values()):
        raise FileRejected("unreadable_dates")
    starts = typed_dates["period_start"].values if "period_start" in typed_dates else pa.nulls(rows, pa.date32())
    if "period_start" in typed_dates:
        late = pc.fill_null(pc.greater(starts, ends.values), False)
        for row in pc.indices_nonzero(late).to_pylist():
            refuse(row, "bad_date", "the period ends before it begins")

    # Numbers
    typed_numbers, marks, said = _numbers(table, mapping, contract)
    warnings |= said
    single: dict[str, typing_.Numbers] = {}
    for name in (*MONEY, *RETURNS):
        columns = mapping.columns.get(name, [])
        for i in columns:
            for row, reason in typed_numbers[i].bad.items():
                refuse(row, reason, name, i)
            if name in MONEY and typed_numbers[i].percent is not None:
                for row in pc.indices_nonzero(typed_numbers[i].percent).to_pylist():
                    refuse(row, "bad_number", f"{name} has a percent sign", i)
        if not columns:
            continue
        if len(columns) == 1:
            single[name] = typed_numbers[columns[0]]
        else:
            parts = [pc.cast(typed_numbers[i].values, pa.decimal128(36, 16), safe=False) for i in columns]
            total = parts[0]
            for part in parts[1:]:
                both = pc.add(pc.fill_null(total, 0), pc.fill_null(part, 0))
                some = pc.or_(pc.is_valid(total), pc.is_valid(part))
                total = pc.cast(pc.if_else(some, both, None), pa.decimal128(36, 16))
            single[name] = typing_.Numbers(pc.cast(total, typing_.NUMBER), {})

    # Flows with a separate credit/debit indicator
    if "flow_indicator" in mapping.columns and "net_flow" in single:
        i = mapping.columns["flow_indicator"][0]
        indicators = [naming.normalised(t) or t for t in table.columns[i].to_pylist()]
        debit = np.array(
            [
                w in {"d", "dr", "dbit", "debit", "w", "out", "s", "soll", "withdrawal", "outflow", "-", "minus", "db"}
                for w in indicators
            ],
            bool,
        )
        credit = np.array(
            [
                w in {"c", "cr", "crdt", "credit", "in", "h", "haben", "deposit", "inflow", "+", "plus"}
                for w in indicators
            ],
            bool,
        )
        flows = single["net_flow"].values
        nonzero = pc.fill_null(pc.not_equal(flows, pa.scalar(0, typing_.NUMBER)), False).to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(~debit & ~credit & nonzero).tolist():
            refuse(row, "unknown_flow_indicator", "net_flow", i)
        absolute = pc.abs(flows)
        single["net_flow"].values = pc.if_else(
            pa.array(debit), pc.negate(absolute), pc.if_else(pa.array(credit), absolute, flows)
        )

    # Identities
    amounts = [name for name in MONEY if name in single]
    floats = dict(zip(amounts, thread_map(lambda name: floats_of(single[name].values), amounts), strict=True))
    days = pc.fill_null(pc.cast(ends.values, pa.int32()), 0).to_numpy(zero_copy_only=False)
    emv = floats.get("ending_market_value", np.full(rows, np.nan))
    sequence, same = _by_account(account, days)
    prior = _prior_values(sequence, same, emv)
    identities = _Identities(floats, rows, prior)
    stated = {name: floats_of(single[name].values) for name in RETURNS if name in single}
    marked = {
        name: mask.to_numpy(zero_copy_only=False)
        if (mask := single[name].percent) is not None
        else np.zeros(rows, bool)
        for name in stated
    }
    tests = [
        (np.where(marked[n], stated[n] / 100, stated[n]) if marked[n].any() else stated[n], single[n].decimals)
        for n in ("return_net", "return_gross")
        if n in stated
    ]
    signs = _Signs() if table.directed else _prove_signs(identities, tests)
    flipped: dict[str, int] = {}
    for name, sign in (
        ("contributions", signs.contribution),
        ("distributions", signs.distribution),
        ("net_flow", signs.net),
        ("fees", signs.fees),
    ):
        if name not in single:
            continue
        nonzero = floats[name][(~np.isnan(floats[name])) & (floats[name] != 0)]
        all_negative = bool(len(nonzero)) and bool(np.all(nonzero < 0))
        if (
            sign == 1
            and all_negative
            and name in {"distributions", "fees"}
            and not (signs.proved and name == "distributions" and not len(nonzero))
        ):
            # The column states a direction by its name; that all of its values are negative repeats it.
            sign = -1 if not (signs.footed is not None and signs.footed >= 0.5) else 1
        flipped[name] = sign
        if sign == -1:
            single[name].values = pc.negate(single[name].values)
            floats[name] = -floats[name]
            warnings.add({"fees": "signed_fees", "net_flow": "net_flow_sign_flipped"}.get(name, f"signed_{name}"))
    identities = _Identities(floats, rows, identities.bmv)
    flow = identities.flow(1, 1, 1)

    # Units of returns
    unit_of: dict[str, str] = {}
    is_mixed = False
    returns: dict[str, Any] = {}
    identity_share: float | None = None
    for name in RETURNS:
        if name not in single:
            continue
        header = table.headers[mapping.columns[name][0]]
        hint = naming.unit_hint(header) if table.positional is None else None
        if hint is None and re.search(
            r"(?i)(returns?|rendite|performance)[^|]{0,40}(%|percent|prozent)|all returns[^|]*%", title
        ):
            hint = "percent"
        elif hint is None and re.search(r"(?i)returns?[^|]{0,40}basis points", title):
            hint = "bps"
        declared: str | None = aliases_units.get(name)
        if name in specs:
            declared = specs[name].unit or declared
            if specs[name].picture and declared is None:
                declared = contract.return_unit if contract and contract.return_unit else "decimal"
        declared = declared or (contract.return_unit if contract else None)
        add_back: Floats | float = identities.fees if name == "return_gross" else 0.0
        ranges = [identities.implied(flow, add_back)]
        if name == "return_net" and "return_gross" not in single and "fees" in single:
            # A return without a label may be before fees.
            ranges.append(identities.implied(flow, identities.fees))
        if name == "benchmark_return":
            ranges = [(np.full(rows, np.nan), np.full(rows, np.nan))]
            hint = hint or (
                unit_of.get("return_net") or unit_of.get("return_gross") if not marked[name].any() else None
            )
        verdict = _unit(stated[name], marked[name], ranges, single[name].decimals, hint, declared, name)
        unit_of[name] = verdict.unit
        is_mixed |= len(verdict.units) > 0
        warnings |= verdict.warnings
        if verdict.share is not None:
            identity_share = verdict.share
        column = mapping.columns[name][0]
        for row in verdict.unproved:
            refuse(row, "unproved_return_unit", name, column)
        if verdict.dropped:
            continue
        values = single[name].values
        by_unit: dict[str, Any] = {
            u: _rounded(typing_.shifted(values, _PLACES[u])) for u in np.unique(verdict.units).tolist()
        }
        if by_unit:
            made = pa.nulls(rows, pa.decimal128(38, 22))
            codes = np.asarray(verdict.units)
            for unit, part in by_unit.items():
                if len(by_unit) == 1:
                    made = part
                    break
                part = pc.cast(part, pa.decimal128(38, 22), safe=False)
                made = pc.if_else(pa.array(codes == unit), part, made)
        else:
            made = _rounded(typing_.shifted(values, _PLACES[verdict.unit]))
        returns[name] = _fit_returns(made, name, column, refuse)
    if "return_net" in returns and "return_gross" not in returns:
        header = naming.normalised(table.headers[mapping.columns["return_net"][0]])
        labelled = bool(re.search(r"\b(net|netto|nette|neto|netta|nof)\b", header)) and table.positional is None
        net_terms = contract.gross_net if contract else None
        if net_terms == "gross" or (
            not labelled and net_terms is None and _is_gross(identities, flow, floats_of(returns["return_net"]))
        ):
            returns["return_gross"] = returns.pop("return_net")
            warnings.add("return_is_gross")

    # A mapping under which nothing holds is no mapping.
    testable = ~np.isnan(floats.get("beginning_market_value", np.full(rows, np.nan))) & ~np.isnan(emv)
    if "beginning_market_value" in floats:
        pairs = testable & ~np.isnan(prior)
        rolls = np.abs(identities.f["beginning_market_value"] - prior) <= 0.01 + 1e-6 * np.abs(prior)
        rolled = float(np.sum(rolls & pairs)) / int(pairs.sum()) if pairs.sum() >= 5 else None
        shares = [s for s in (rolled, signs.footed, identity_share) if s is not None]
        if shares and max(shares) < 0.05 and len(shares) > 1:
            raise FileRejected("identities_do_not_hold")
        identity_share = max(shares) if shares else identity_share

    # Currency
    currency, said = _currency(table, mapping, contract, single, refuse, title)
    warnings |= said

    money: dict[str, Any] = {}
    pence = currency[1]
    any_pence = pence is not None
    for name in MONEY:
        if name not in single:
            continue
        scale = naming.scale_hint(table.headers[mapping.columns[name][0]]) if table.positional is None else 0
        scale = scale or naming.scale_hint(title)
        if scale:
            warnings.add("amounts_scaled")
        values = typing_.shifted(single[name].values, -scale)
        money[name] = _fit_money(values, name, mapping.columns[name][0], refuse, pence, warnings)

    required = "ending_market_value" if "ending_market_value" in money else None
    column = mapping.columns[required][0] if required else None
    if required:
        missing = pc.is_null(money[required])
        for row in pc.indices_nonzero(missing).to_pylist():
            refuse(row, "missing_required", required, column)
    elif returns:
        empty = (
            pc.and_(*[pc.is_null(returns[n]) for n in ("return_net", "return_gross") if n in returns][:2])
            if {"return_net", "return_gross"} <= set(returns)
            else pc.is_null(next(v for k, v in returns.items() if k != "benchmark_return"))
        )
        for row in pc.indices_nonzero(empty).to_pylist():
            refuse(row, "missing_required", "return")
    for name, made in returns.items():
        below = pc.fill_null(pc.less(made, pa.scalar(-1, pa.decimal128(24, 14))), False)
        for row in pc.indices_nonzero(below).to_pylist():
            refuse(
                row,
                "return_below_minus_100",
                name,
                mapping.columns.get(name, mapping.columns.get("return_net", [None]))[0],
            )
        # A dash where there is no capital says that the return is undefined, not that it is nil.
        source = single.get(name) or single.get("return_net")
        if source is not None and source.dashes is not None:
            capital = zeroed(identities.bmv + np.maximum(flow, 0)) > 0
            undefined = pc.and_(source.dashes, pa.array(~capital))
            if "ending_market_value" in floats:
                returns[name] = pc.if_else(undefined, None, made)

    grain = None
    if "granularity" in mapping.columns:
        i = mapping.columns["granularity"][0]
        said_grains = {
            "daily": ("d", "day", "daily"),
            "monthly": ("m", "month", "monthly", "mtd"),
            "quarterly": ("q", "quarter", "quarterly", "qtd"),
        }
        grain_of = {word: long for long, short in said_grains.items() for word in short}
        grain = [grain_of.get(naming.normalised(t), "") for t in table.columns[i].to_pylist()]
        for row, word in enumerate(grain):
            if not word and table.columns[i][row].as_py():
                refuse(row, "unknown_granularity", "granularity", i)
    date_column = mapping.columns.get("period_end", [None])[0]
    return Interpreted(
        account=account,
        period_start=starts,
        period_end=ends.values,
        date_kind=ends.kind,
        currency=currency[0],
        money=money,
        returns=returns,
        grain=grain,
        lines=table.lines,
        bad=bad,
        warnings=warnings,
        mapping=mapping,
        date_header=naming.normalised(table.headers[date_column]) if date_column is not None else "",
        title=title,
        identity=identity_share,
        conventions=(
            mapping.columns,
            mapping.unknown,
            mapping.personal,
            {name: sign for name, sign in flipped.items() if sign == -1},
            unit_of,
            sorted(returns),
            order,
            ends.kind,
            marks,
            any_pence,
        ),
        is_mixed=is_mixed,
    )


@dataclass
class _Verdict:
    unit: str
    units: Any = field(default_factory=list)
    unproved: list[int] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    share: float | None = None
    dropped: bool = False


def _unit(
    stated: Floats,
    marked: Any,
    ranges: list[tuple[Floats, Floats]],
    decimals: int,
    hint: str | None,
    declared: str | None,
    name: str,
) -> _Verdict:
    """Prove the unit of a column of returns.

    A percent sign settles its own value. Bare values are settled by what the market values imply, then by a contract,
    then by the header. Where values of one column are proved to differ, each must be proved by itself.
    """
    rows = len(stated)
    filled = ~np.isnan(stated)
    bare = filled & ~marked & (stated != 0)
    if not bare.any():
        # A zero is the same in every unit.
        return _Verdict("percent" if marked.any() else declared or hint or "decimal")
    low = ranges[0][0]
    hit = {
        u: functools.reduce(np.logical_or, (_matches(stated, *r, _PLACES[u], decimals) for r in ranges)) & bare
        for u in _UNITS
    }
    number = np.sum([hit[u].astype(np.int8) for u in _UNITS], axis=0, dtype=np.int8)
    decisive = {u: hit[u] & (number == 1) for u in _UNITS}
    counts = {u: int(decisive[u].sum()) for u in _UNITS}
    total = sum(counts.values())
    testable = int((bare & ~np.isnan(low)).sum())
    leader = max(_UNITS, key=lambda u: counts[u])
    share = np.count_nonzero(hit[leader] & ~np.isnan(low)) / testable if testable else None
    others = total - counts[leader]
    warnings: set[str] = set()
    if marked.any():
        # Some values carry a sign and some do not: the bare ones must each be proved.
        units, unproved = [], []
        column_unit = leader if total and not others and counts[leader] >= 0.8 * max(1, testable) else None
        for row in range(rows):
            if marked[row]:
                units.append("percent")
            elif not bare[row]:
                units.append("decimal")
            else:
                own = next((u for u in _UNITS if decisive[u][row]), None)
                if own is None and column_unit and np.isnan(low[row]) and declared:
                    own = declared
                units.append(own or "decimal")
                if own is None:
                    unproved.append(row)
        return _Verdict("percent", units, unproved, {"mixed_return_units"}, share)
    if total == 0:
        unit = declared or hint
        if unit is None:
            if name == "benchmark_return":
                return _Verdict("decimal", dropped=True, warnings={"benchmark_unit_unproved"})
            raise FileRejected("return_unit_unproved")
        return _Verdict(unit, share=share)
    mixed = others > 0 and (others >= 0.02 * total) and (others >= 2 or total <= 20)
    if mixed and counts[leader] < 10 and others == 1 and declared == leader:
        mixed = False
    if mixed:
        undecided = np.flatnonzero(bare & (_decided(decisive, "") == "")).tolist()
        return _Verdict(leader, _decided(decisive, leader), undecided, {"mixed_return_units"}, share)
    if testable >= 4 and share is not None and share < 0.25 and not (declared or hint):
        raise FileRejected("return_unit_unproved")
    if declared and declared != leader and (share or 0) >= 0.5 and counts[leader] >= 2:
        raise FileRejected("return_unit_contradicts_contract")
    if hint and hint != leader and not declared:
        if counts[leader] >= 2 and (share or 0) >= 0.5:
            warnings.add("return_unit_differs_from_header")
        else:
            leader = hint
    if declared:
        leader = declared
    if others:
        warnings.add("mixed_return_units")
        return _Verdict(leader, _decided(decisive, leader), [], warnings, share)
    return _Verdict(leader, warnings=warnings, share=share)


def _decided(decisive: dict[str, Any], otherwise: str) -> Any:
    """Return the unit that each row proves by itself, or another."""
    return np.select([decisive[u] for u in _UNITS], list(_UNITS), otherwise)


def _is_gross(identities: _Identities, flow: Floats, stated: Floats) -> bool:
    """Whether an unlabelled return is proved to be before fees."""
    base = np.abs(identities.bmv) + np.abs(flow)
    with np.errstate(all="ignore"):
        charged = (identities.fees > 0.0005 * base) & ~np.isnan(stated)
    if not charged.any():
        return False
    low, high = identities.implied(flow)
    low_gross, high_gross = identities.implied(flow, identities.fees)
    net = (stated >= low - 5e-5) & (stated <= high + 5e-5)
    gross = (stated >= low_gross - 5e-5) & (stated <= high_gross + 5e-5)
    return bool(np.sum(gross & ~net & charged) >= 1 and np.sum(net & ~gross & charged) == 0)


def _rounded(values: Any) -> Any:
    """Round to the decimals of a return, where there are more."""
    return values if values.type.scale <= 14 else pc.round(values, 14)


def _fit_returns(values: Any, name: str, column: int, refuse: Any) -> Any:
    target = pa.decimal128(24, 14)
    try:
        return pc.cast(values, target)
    except pa.ArrowInvalid:
        large = pc.fill_null(pc.greater(pc.abs(pc.cast(values, pa.float64())), 9e9), False)
        for row in pc.indices_nonzero(large).to_pylist():
            refuse(row, "too_large", name, column)
        return pc.cast(pc.if_else(large, None, values), target, safe=False)


def _without_noise(value: Decimal) -> Decimal | None:
    """Return what a double meant whose last bits were printed: ``712752.5800000001``."""
    if len(value.normalize().as_tuple().digits) < 16 or Decimal(repr(float(value))) != value.normalize():
        return None
    meant = Decimal(format(float(value), ".15g"))
    return meant if meant == round(meant, 8) else None


def _fit_money(values: Any, name: str, column: int, refuse: Any, pence: Any | None, warnings: set[str]) -> Any:
    target = pa.decimal128(28, 8)

    def fitted(array: Any) -> Any:
        try:
            return pc.cast(array, target)
        except pa.ArrowInvalid:
            rounded = pc.round(array, 8)
            precise = pc.fill_null(pc.not_equal(rounded, array), False)
            rows = pc.indices_nonzero(precise)
            meant = [_without_noise(v) for v in pc.take(array, rows).to_pylist()]
            for row, value in zip(rows.to_pylist(), meant, strict=True):
                if value is None:
                    refuse(row, "too_precise", name, column)
            if any(v is not None for v in meant):
                warnings.add("float_noise_rounded")
                rounded = pc.replace_with_mask(rounded, precise, pa.array(meant, rounded.type))
                precise = pc.and_(precise, pc.is_null(rounded))
            large = pc.fill_null(pc.greater_equal(pc.abs(pc.cast(array, pa.float64())), 1e20), False)
            for row in pc.indices_nonzero(large).to_pylist():
                refuse(row, "too_large", name, column)
            return pc.cast(pc.if_else(pc.or_(precise, large), None, rounded), target, safe=False)

    if pence is None:
        return fitted(values)
    scale = values.type.scale
    buffers = values.buffers()
    hundredth = pa.Array.from_buffers(
        pa.decimal128(38, scale + 2), len(values), buffers, null_count=values.null_count, offset=values.offset
    )
    mask = pa.array(pence)
    plain = fitted(pc.if_else(mask, None, values))
    return pc.if_else(mask, fitted(pc.if_else(mask, hundredth, None)), plain)


def _currency(
    table: RawTable, mapping: Mapping, contract: VendorContract | None, single: dict[str, Any], refuse: Any, title: str
) -> tuple[tuple[Any, Any | None], set[str]]:
    """Type the currency: of the column, the headers, the title or the contract, in this order."""
    rows = table.rows
    warnings: set[str] = set()
    if "currency" in mapping.columns:
        place = mapping.columns["currency"][0]
        encoded = table.columns[place].dictionary_encode()
        codes, pence_codes, reasons = [], [], {}
        for n, text in enumerate(encoded.dictionary.to_pylist()):
            code, said, power = typing_.read_currency(text)
            codes.append(code)
            pence_codes.append(power == 2)
            if code is None:
                reasons[n] = said
            elif said:
                warnings.add(said)
        positions = encoded.indices.to_numpy(zero_copy_only=False)
        for row in np.flatnonzero(np.isin(positions, list(reasons))).tolist():
            refuse(row, reasons[int(positions[row])], "currency", place)
        pence = np.array(pence_codes, bool)[positions] if any(pence_codes) else None
        return (pc.take(pa.array(codes, pa.string()), encoded.indices), pence), warnings
    money_headers = (
        [table.headers[i] for n in MONEY for i in mapping.columns.get(n, [])] if table.positional is None else []
    )
    hints = {h for h in map(naming.currency_hint, money_headers) if h}
    if not hints:
        match = re.search(
            r"(?i)(?:currency|währung|devise|moneda|divisa|valuta|(?:all )?(?:amounts|values|figures)[^|]{0,20} in)"
            r"\s*[:=]?\s*\(?([A-Z]{3})\b",
            title,
        )
        if match and match[1] in typing_.ISO_CURRENCIES:
            hints = {match[1]}
    if len(hints) > 1:
        raise FileRejected("ambiguous_currency")
    code = next(iter(hints), None) or (contract.currency_default if contract else None)
    pence_all = None
    if code:
        read, _, power = typing_.read_currency(code)
        code = read
        if power:
            pence_all = np.ones(rows, bool)
            warnings.add("minor_unit_currency")
    return (pa.array([code] * rows, pa.string()), pence_all), warnings
