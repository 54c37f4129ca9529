"""Which contract a file belongs to.

Belongs here: the comparison of contracts with the content of a file. The name of a file never says what is in it; the
only use of a name is to find a contract whose terms content cannot show (the width of ids, the order of dates), and
that is recorded as a warning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.layouts import choose_delimiter, records
from finance_assets.advisory.reading.values import parse_number, read_date
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS, VendorContract, implied


@dataclass(frozen=True)
class Match:
    """A contract and how well it fits."""

    contract: VendorContract
    score: float


def _value_score(contract: VendorContract, rows: list[list[str]], latest: date) -> float:
    """Return the share of typed fields of sample rows that read as the contract says."""
    good = seen = 0
    for cells in rows:
        for spec, text in zip(contract.fields, cells, strict=False):
            value = text.strip()
            if spec.name == "period_end":
                seen += 1
                formats = (spec.format,) if spec.format else contract.date_formats
                reading = read_date(value, latest, tuple(f for f in formats if f))
                good += bool(reading and reading.readings)
            elif spec.name in MONEY or spec.name in RETURNS:
                if not value:
                    continue
                seen += 1
                picture = spec.picture or contract.pictures.get(spec.name)
                plain = implied(value, picture) if picture else value
                marks = (contract.decimal,) if contract.decimal else (".", ",")
                good += any(not isinstance(parse_number(plain, mark), str) for mark in marks)
            elif spec.name == "account_id":
                seen += 1
                good += bool(value)
    return good / seen if seen else 0.0


def _positional(contract: VendorContract, lines: list[str], latest: date, separator: str | None = None) -> float:
    lines = [line for line in lines if line.strip()]
    if not lines:
        return 0.0
    prefixes = (contract.header_prefix, contract.detail_prefix, contract.trailer.prefix if contract.trailer else None)
    if contract.layout == "fixed_width":
        if contract.header_prefix and not lines[0].startswith(contract.header_prefix):
            return 0.0
        details = (
            [x for x in lines if x.startswith(contract.detail_prefix)]
            if contract.detail_prefix
            else [x for x in lines if not any(p and x.startswith(p) for p in prefixes)]
        )
        if contract.detail_prefix and len(details) < 0.5 * max(1, len(lines) - 2):
            return 0.0
        length = contract.record_length or max((s.end or 0) for s in contract.fields)
        fitting = [x for x in details if len(x.rstrip()) <= length and len(x) >= 0.6 * length]
        if details and len(fitting) < 0.7 * len(details):
            return 0.0
        rows = [[x[s.start : s.end] for s in contract.fields] for x in details[:50]]
    else:
        delimiter = separator or contract.delimiter or choose_delimiter("\n".join(lines))
        try:
            cells = [r.cells for r in records("\n".join(lines) + "\n", delimiter) if any(c.strip() for c in r.cells)]
        except FileRejected:
            return 0.0
        index = contract.record_type_index or 0
        if contract.header_prefix and not any(
            c[index].strip().startswith(contract.header_prefix) for c in cells[:2] if index < len(c)
        ):
            return 0.0
        if contract.detail_prefix:
            rows = [c for c in cells if index < len(c) and c[index].strip() == contract.detail_prefix]
            if len(rows) < 0.5 * max(1, len(cells) - 2):
                return 0.0
        else:
            rows = [
                c
                for c in cells
                if not any(p and c[index : index + 1] and c[index].strip().startswith(p) for p in prefixes)
            ]
            if rows and Counter(len(c) for c in rows).most_common(1)[0][0] != len(contract.fields):
                return 0.0
            if rows and naming.is_header(rows[0]):
                return 0.0
        rows = rows[:50]
    if not rows:
        return 0.6 if contract.header_prefix or contract.detail_prefix else 0.0
    share = _value_score(contract, rows, latest)
    anchored = bool(contract.header_prefix or contract.detail_prefix)
    if share < (0.5 if anchored else 0.75):
        return 0.0
    return 0.5 * anchored + 0.5 * share


def match_contracts(
    contracts: Sequence[VendorContract], kind: str, head: str, header: list[str] | None, latest: date
) -> list[Match]:
    """Score contracts against the content of a file.

    Parameters
    ----------
    contracts
        Candidates.
    kind
        ``text``, ``json``, ``xml``, ``xlsx``, ``sheets`` (of another workbook) or ``parquet``.
    head
        Text of the first lines, of titles and of top-level strings.
    header
        Header row, if there is one.
    latest
        The day of receipt.

    Returns
    -------
    list of Match
        Those that fit, best first.
    """
    found: list[Match] = []
    lines = head.split("\n")
    # Inside of records a vendor's name is more likely that of an account.
    titles = head.partition("[")[0] if kind == "json" else head if kind == "xml" else _titles(lines, header)
    present = {naming.normalised(h) for h in header or []} | {h.strip() for h in header or []}
    for contract in contracts:
        detect = contract.detect
        score = 0.0
        if contract.layout not in {"auto", kind} and (contract.layout in {"json", "xml"} or kind == "xml"):
            continue  # short names in one may be those in the other
        if detect.required_headers:
            if not all(h in present or naming.normalised(h) in present for h in detect.required_headers):
                continue
            score = max(score, 0.9 + 0.001 * len(detect.required_headers))
        if detect.record_prefixes:
            if not all(any(line.startswith(p) for line in lines) for p in detect.record_prefixes):
                continue
            score = max(score, 0.8)
        if detect.contains:
            if not any(c.casefold() in head.casefold() for c in detect.contains):
                continue
            score = max(score, 0.9)
        if contract.positional and not contract.has_header:
            sheet = kind in {"xlsx", "sheets"} and contract.layout != "fixed_width"
            shape = _positional(contract, lines, latest, "\t" if sheet else None) if kind == "text" or sheet else 0.0
            if shape == 0.0:
                continue
            score = max(score, shape)
        elif detect.column_count is not None and len(header or []) != detect.column_count:
            continue
        else:
            if contract.columns and header:
                wanted = [h for h in contract.columns if naming.normalised(h)]
                hits = sum(
                    h in present
                    or naming.normalised(h) in present
                    or any(naming.normalised(p) == naming.normalised(h) for p in present)
                    for h in wanted
                )
                if wanted and hits >= 2 and hits >= 0.6 * len(wanted):
                    score = max(score, 0.5 + 0.4 * hits / len(wanted))
            if contract.section_pattern and any(_found(contract.section_pattern, line) for line in lines[:400]):
                score = max(score, 0.7)
            if (
                contract.json_rows
                and kind == "json"
                and all(f'"{p}"' in head for p in contract.json_rows.split(".") if p and not p.isdigit() and p != "*")
            ):
                score = max(score, 0.6)
            if contract.xml_rows and kind == "xml" and set(contract.xml_rows.split(".")) <= set(header or []):
                score = max(score, 0.6)
        vendor = re.escape(contract.vendor.replace("_", " "))
        if len(contract.vendor) >= 3 and re.search(rf"(?i)(?<![a-z0-9]){vendor}(?![a-z0-9])", titles.replace("_", " ")):
            score = score + 0.3 if score else 0.6
        if score:
            found.append(Match(contract, round(score, 4)))
    return sorted(found, key=lambda m: -m.score)


def _found(pattern: str, text: str) -> bool:
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False


def _titles(lines: list[str], header: list[str] | None) -> str:
    """Return the lines above the header, where a report names its author."""
    if header is None:
        return "\n".join(lines[:3])
    first = header[0].strip() if header else ""
    out = []
    for line in lines[:60]:
        if first and first in line and sum(h.strip() in line for h in header if h.strip()) >= 2:
            break
        out.append(line)
    return "\n".join(out)


def named_contract(contracts: Sequence[VendorContract], name: str) -> VendorContract | None:
    """Return the contract whose vendor the name of a file mentions, for terms that content cannot show.

    Parameters
    ----------
    contracts
        Candidates.
    name
        Name of the file.

    Returns
    -------
    VendorContract | None
        The only one mentioned.
    """
    words = {w for w in re.split(r"[^a-z0-9]+", name.casefold()) if w}
    found = [c for c in contracts if set(re.split(r"[^a-z0-9]+", c.vendor.casefold())) <= words]
    return found[0] if len(found) == 1 else None
