"""A draft of a contract for a file that no contract knows.

Belongs here: what can be seen in an unknown file, written as a contract with the evidence in comments, for a person to
complete. No value of a cell is repeated, only headers, shapes and counts.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any

from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading.containers import FileRejected, kind_of, open_members
from finance_assets.advisory.reading.decoding import to_utf8
from finance_assets.advisory.reading.layouts import Row, choose_delimiter, parquet_tables, records
from finance_assets.advisory.reading.reader import content_of, read_vendor_file
from finance_assets.advisory.reading.values import number_evidence, trimmed, unique_readings
from finance_assets.advisory.reading.xml_documents import xml_tables
from finance_assets.text import is_plain

_ORDERS = ("mdy", "dmy", "ymd")


def _shape(text: str) -> str:
    """Return the shape of a value: digits as 9, letters as A."""
    plain = re.sub(r"[^\W\d_]", "A", re.sub(r"\d", "9", text.strip()))[:40]
    return re.sub(r"A{2,}", "A+", re.sub(r"9{5,}", "9+", plain))


def _column_evidence(texts: list[str], latest: Any) -> list[str]:
    import pyarrow as pa

    array = trimmed(pa.array(texts, pa.string()))
    out = []
    shapes = Counter(_shape(t) for t in texts if t.strip())
    if shapes:
        out.append("shapes: " + ", ".join(f"{s!r} x{n}" for s, n in shapes.most_common(3)))
    evidence = number_evidence(array)
    if evidence.dot or evidence.comma:
        out.append(f"decimal point proved by {evidence.dot} values, decimal comma by {evidence.comma}")
    elif evidence.ambiguous_dot or evidence.ambiguous_comma:
        out.append("one mark with three digits after it: thousands or decimals, not provable")
    _, _, readings = unique_readings(array, latest)
    dated = [r.readings for r in readings if r is not None and r.readings]
    if dated and len(dated) >= 0.8 * max(1, len([t for t in set(texts) if t.strip()])):
        possible = {o: sum("any" in r or o in r for r in dated) for o in _ORDERS}
        out.append("dates possible as " + ", ".join(f"{o} {n}/{len(dated)}" for o, n in possible.items() if n))
    return out


def _written(lines: list[str], draft: dict[str, Any]) -> str:
    import yaml

    # A header that holds what is not seen is written with escapes, which YAML reads back.
    seen = is_plain(json.dumps(draft, ensure_ascii=False, default=str))

    return "\n".join(lines) + "\n" + yaml.safe_dump(draft, sort_keys=False, allow_unicode=seen)


def _ask_for_terms(reason: str | None, lines: list[str], draft: dict[str, Any]) -> None:
    if reason == "ambiguous_dates":
        lines.append("# The order of day and month is not provable: set date_order to mdy or dmy.")
        draft["date_order"] = None
    if reason == "return_unit_unproved":
        lines.append("# The unit of returns is not provable: set return_unit to decimal, percent or bps.")
        draft["return_unit"] = None


def _describe_columns(
    header: list[str], rows: list[list[str]], lines: list[str], draft: dict[str, Any], latest: date
) -> None:
    """Write what each column seems to be."""
    draft["detect"] = {"required_headers": [h.strip() for h in header if h.strip() and not naming.is_personal(h)][:8]}
    columns = {}
    for i, title in enumerate(header):
        if not title.strip():
            continue
        if naming.is_personal(title):
            lines.append(f"# Column {i} looks like personal data and is dropped.")
            continue
        proposed, score = naming.field_of(title)
        values = [r[i] for r in rows if i < len(r)]
        lines.append(
            f"# {title.strip()!r}: {proposed or 'unknown'} ({score}); " + "; ".join(_column_evidence(values, latest))
        )
        columns[title.strip()] = proposed or "ignore"
    draft["columns"] = columns


def _describe(kind: str, content: Any, lines: list[str], draft: dict[str, Any], latest: date) -> None:
    """Write what is in a workbook, an XML document or a Parquet file."""
    if kind in {"xlsx", "sheets"}:
        draft["layout"] = "xlsx"
        sheets = content.sheets
        found = [(title, rows, at) for title, rows in sheets if (at := _header_row(rows)) is not None]
        if not found:
            lines.append("# No sheet has a row that could be a header: name the fields by position.")
            draft |= {"has_header": False, "fields": []}
            return
        # The sheet with the most rows below its header.
        title, rows, at = max(found, key=lambda f: len(f[1]) - f[2])
        lines.append(f"# Sheet {_shown(title)}, header in row {rows[at].line}. Sheets: {len(sheets)}.")
        _describe_columns(rows[at].cells, [r.cells for r in rows[at + 1 : at + 300]], lines, draft, latest)
        return
    try:
        table = (xml_tables(content) if kind == "xml" else parquet_tables(content))[0]
    except FileRejected as rejected:
        lines.append(f"# There are no records in it ({rejected.reason}).")
        return
    if table.directed:
        lines.append("# Bank statements of ISO 20022 (camt.053): a contract only names the bank, by its BIC.")
        if len(content.servicers) == 1:
            draft["detect"] = {"contains": content.servicers}
        elif content.servicers:
            lines.append(f"# Statements of {len(content.servicers)} banks are in the file.")
        return
    if kind == "xml":
        # The name of an element stands for it wherever it is; only one that is there twice needs its path.
        lines.append("# XML. xml_rows is the path of the elements that are rows, where others are taken for them.")
        draft |= {"layout": "xml", "xml_rows": None}
    values = [table.text(i, 300).to_pylist() for i in range(len(table.headers))]
    last = Counter(h.rpartition(".")[2] for h in table.headers)
    names = [short if kind == "xml" and last[short := h.rpartition(".")[2]] == 1 else h for h in table.headers]
    _describe_columns(names, [list(row) for row in zip(*values, strict=True)], lines, draft, latest)
    if kind == "xml":
        draft["detect"] = {"required_headers": [h.rpartition(".")[2] for h in draft["detect"]["required_headers"]]}


def _header_row(rows: list[Row]) -> int | None:
    """Return the row that is a header, or is as wide as any and has words in its cells."""
    head = [r.cells for r in rows[:200]]
    found = naming.find_header(head)
    if found is not None:
        return found
    width = max((sum(bool(c.strip()) for c in cells) for cells in head), default=0)
    for i, cells in enumerate(head[:-1]):
        filled = [c for c in cells if c.strip()]
        if width > 1 and len(filled) == width and sum(bool(re.search(r"\d", c)) for c in filled) <= width / 4:
            return i
    return None


def _shown(title: str) -> str:
    """Return the title of a sheet, unless it may be an account or a person."""
    return repr(title) if re.fullmatch(r"[^\W\d_]{1,20}", title) else "(title not shown)"


def propose_contract(data: bytes, name: str) -> str:
    """Write a draft of a contract for an unknown file.

    Parameters
    ----------
    data
        The delivered bytes.
    name
        Name of the file; only names the draft.

    Returns
    -------
    str
        YAML with the evidence as comments.
    """
    now = datetime.now(UTC)
    stem = re.sub(r"[^a-z0-9]+", "_", re.sub(r"\d+", "", name.rpartition("/")[2].rpartition(".")[0].casefold())).strip(
        "_"
    )
    reading = read_vendor_file(data, name, received_at=now)
    lines = [
        "# Draft of a vendor contract. Complete it from what the vendor says, then replay the file.",
        f"# Content: {kind_of(data)}; without a contract: {reading.action}"
        + (f" ({reading.file_reason})" if reading.file_reason else "")
        + (f", {reading.row_count} rows, score {reading.score}" if reading.row_count else ""),
    ]
    if reading.warnings:
        lines.append("# Warnings: " + ", ".join(reading.warnings))
    draft: dict[str, Any] = {"vendor": stem or "new_vendor", "version": 1}
    try:
        kind, content = content_of(open_members(data)[0])
        if kind not in {"text", "json"}:
            _describe(kind, content, lines, draft, now.date())
            _ask_for_terms(reading.file_reason, lines, draft)
            return _written(lines, draft)
        text, encoding = to_utf8(open_members(data)[0].data)
    except FileRejected as rejected:
        lines.append(f"# Nothing can be proposed: the content cannot be read ({rejected.reason}).")
        return _written(lines, draft)
    if encoding not in {"utf-8", "utf-8-sig"}:
        draft["encoding"] = encoding
    head = text[: 1 << 16].decode("utf-8", "replace")
    if head.lstrip()[:1] in {"{", "["}:
        keys = [k for k in dict.fromkeys(re.findall(r'"([^"\\]{1,60})"\s*:', head)) if not naming.is_personal(k)]
        lines.append("# JSON; keys and what their words say:")
        lines += [f"#   {key}: {naming.field_of(key)[0]} ({naming.field_of(key)[1]})" for key in keys[:60]]
        draft |= {
            "layout": "json",
            "json_rows": None,
            "columns": {k: naming.field_of(k)[0] or "ignore" for k in keys[:60]},
        }
        return _written(lines, draft)
    filled = [line for line in head.split("\n") if line.strip()]
    lengths = Counter(len(line) for line in filled)
    delimiter = choose_delimiter(head)
    rows = [r.cells for r in records(head, delimiter, limit=300) if any(c.strip() for c in r.cells)]
    widths = Counter(len(r) for r in rows)
    if widths and widths.most_common(1)[0][0] == 1 and lengths and lengths.most_common(1)[0][1] >= 0.6 * len(filled):
        prefixes = Counter(line[:3] for line in filled)
        lines.append(
            f"# Lines of {lengths.most_common(1)[0][0]} characters: fixed width. Offsets are 0-based and half-open."
        )
        lines.append(
            "# Beginnings of lines: "
            + ", ".join(f"{_shape(p) if re.search(r'[0-9]', p) else p!r} x{n}" for p, n in prefixes.most_common(5))
        )
        draft |= {
            "layout": "fixed_width",
            "has_header": False,
            "record_length": lengths.most_common(1)[0][0],
            "fields": [],
        }
        return _written(lines, draft)
    draft["delimiter"] = delimiter
    found = naming.find_header(rows)
    if found is None and rows and sum(bool(re.search(r"\d", c)) for c in rows[0]) <= len(rows[0]) / 4 and len(rows) > 1:
        found = 0
    if found is None:
        lines.append("# No header was recognised: name the fields by position.")
        draft |= {"has_header": False, "fields": []}
        width = widths.most_common(1)[0][0] if widths else 0
        for i in range(width):
            values = [r[i] for r in rows if len(r) == width]
            lines.append(f"# Field {i}: " + "; ".join(_column_evidence(values, now.date())))
        return _written(lines, draft)
    _describe_columns(rows[found], rows[found + 1 :], lines, draft, now.date())
    _ask_for_terms(reading.file_reason, lines, draft)
    return _written(lines, draft)
