"""One vendor file in, canonical rows out.

Belongs here: the order of the steps, what is checked between rows (duplicates, roll-forward, gaps, large flows), and
the result. Rows come out sorted by account, grain and period, with exact decimals, and nothing of a suspect file.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import by_blocks, one_array, side_by_side, text_ranks
from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading.containers import READABLE, FileRejected, Member, kind_of, open_members
from finance_assets.advisory.reading.decoding import to_utf8
from finance_assets.advisory.reading.detection import Interpreted, floats_of, implied_range, interpret, zeroed
from finance_assets.advisory.reading.layouts import (
    RawTable,
    delimited_tables,
    fixed_width_table,
    json_tables,
    parquet_tables,
    records,
    sheet_tables,
    unpivoted,
    workbook_sheets,
    workbook_tables,
)
from finance_assets.advisory.reading.layouts import choose_delimiter as _choose
from finance_assets.advisory.reading.matching import Match, match_contracts, named_contract
from finance_assets.advisory.reading.spreadsheets import Workbook, read_workbook
from finance_assets.advisory.reading.values import PERSONAL_VALUE, month_end
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS, VendorContract
from finance_assets.advisory.reading.xml_documents import opened, xml_tables

_MONEY_TYPE = pa.decimal128(28, 8)
_RETURN_TYPE = pa.decimal128(24, 14)

ROWS = pa.schema(
    [
        ("account_id", pa.string()),
        ("period_start", pa.date32()),
        ("period_end", pa.date32()),
        ("stated_period_end", pa.date32()),
        ("granularity", pa.string()),
        ("currency", pa.string()),
        *[(name, _MONEY_TYPE) for name in MONEY],
        *[(name, _RETURN_TYPE) for name in RETURNS],
        ("member", pa.string()),
        ("line", pa.int64()),
        ("flags", pa.string()),
    ]
)
"""Schema of canonical rows."""

_ENCODED_ROWS = pa.schema(
    [f.with_type(pa.dictionary(pa.int32(), pa.string())) if pa.types.is_string(f.type) else f for f in ROWS]
)

QUARANTINED = pa.schema(
    [
        ("line", pa.int64()),
        ("member", pa.string()),
        ("account_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Schema of quarantined rows."""

LARGE_FLOW = 0.1
"""A net flow of this share of the beginning value or more is flagged."""
_DAYS = {"monthly": 31, "quarterly": 92}
_NAMED_TERMS_HELP = frozenset(
    {"unknown_schema", "ambiguous_dates", "return_unit_unproved", "unknown_measure", "ambiguous_numbers"}
    | {"ambiguous_period", "ambiguous_columns", "unreadable_dates", "undecodable", "columns_do_not_match_header"}
)


@dataclass(frozen=True)
class FileReading:
    """What became of one delivered file."""

    name: str
    sha256: str
    action: str
    vendor: str
    contract_version: int | None
    score: float
    runner_up: str | None
    file_reason: str | None
    warnings: list[str]
    rows: pa.Table
    quarantined: pa.Table
    skipped: dict[str, int]
    granularity: str | None


@dataclass
class _Part:
    """Rows and leftovers of the tables of a file."""

    tables: list[pa.Table] = field(default_factory=list)
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)
    vendor: str = "unknown"
    version: int | None = None
    score: float = 0.0
    candidates: list[tuple[str, float]] = field(default_factory=list)


def read_vendor_file(
    data: bytes,
    name: str,
    *,
    contracts: Sequence[VendorContract] = (),
    received_at: datetime,
    seen: Mapping[str, str] = {},
    sha256: str | None = None,
) -> FileReading:
    """Read one vendor file.

    Parameters
    ----------
    data
        The delivered bytes.
    name
        Name under which they were delivered; says nothing about the content.
    contracts
        Contracts of known vendors.
    received_at
        When the file was received; later dates in it are impossible.
    seen
        sha256 -> name of files that were read before.
    sha256
        Of the bytes, where it is known already.

    Returns
    -------
    FileReading
        Action, rows, quarantined rows, warnings; never raises for what is in the file.
    """
    digest = sha256 or hashlib.sha256(data).hexdigest()
    if digest in seen:
        return _refused(name, digest, "skip_duplicate", "duplicate_file")
    try:
        part = _read(data, name, contracts, received_at.date())
        return _finished(part, name, digest)
    except FileRejected as rejected:
        return _refused(name, digest, "quarantine_file", rejected.reason)
    except (RecursionError, MemoryError, pa.ArrowException, ValueError, ArithmeticError, LookupError, TypeError):
        # A file that breaks a rule of a library in a way that is not foreseen is a file that cannot be read. The
        # message of the error may hold cells of the file, so it goes nowhere.
        return _refused(name, digest, "quarantine_file", "unreadable_file")


def _refused(name: str, digest: str, action: str, reason: str) -> FileReading:
    return FileReading(
        name,
        digest,
        action,
        "unknown",
        None,
        0.0,
        None,
        reason,
        [],
        ROWS.empty_table(),
        QUARANTINED.empty_table(),
        {},
        None,
    )


# --- members ---------------------------------------------------------------------------------------------------------


def _read(data: bytes, name: str, contracts: Sequence[VendorContract], latest: date) -> _Part:
    members = open_members(data)
    part = _Part()
    reasons: list[str] = []
    for member in members:
        if len(members) > 1 and member.kind not in READABLE:
            part.skipped[f"member_{member.kind}"] += 1
            reasons.append("html_content" if member.kind == "html" else f"{member.kind}_content")
            continue
        if member.kind not in READABLE:
            raise FileRejected(
                "html_content"
                if member.kind == "html"
                else "empty_file"
                if member.kind == "empty"
                else f"{member.kind}_content"
            )
        mark = (len(part.tables), len(part.quarantined), set(part.warnings), Counter(part.skipped))
        try:
            _read_member(member, member.name or name, contracts, latest, part)
        except FileRejected as rejected:
            if len(members) == 1:
                raise
            del part.tables[mark[0] :], part.quarantined[mark[1] :]
            part.warnings, part.skipped = mark[2], mark[3]
            part.skipped[f"member_{rejected.reason}"] += 1
            reasons.append(rejected.reason)
    if len(members) > 1:
        if not part.tables:
            raise FileRejected(reasons[0] if reasons else "unknown_schema")
        if reasons:
            part.warnings.add("members_skipped")
    return part


def content_of(member: Member, encoding: str | None = None) -> tuple[str, Any]:
    """Say how a member is read.

    Parameters
    ----------
    member
        A file, or a member of an archive.
    encoding
        Of text, from a contract.

    Returns
    -------
    tuple
        ``text``, ``json``, ``xlsx`` or ``parquet`` and the bytes to parse; ``sheets`` and the workbook of another kind;
        ``xml`` and the document.

    Raises
    ------
    FileRejected
        If it cannot be read at all.
    """
    if member.kind in {"xls", "xlsb", "ods"}:
        return "sheets", read_workbook(member.kind, member.data)
    if member.kind == "xml":
        return _xml_content(member.data)
    if member.kind != "text":
        return member.kind, member.data
    text, _ = to_utf8(member.data, encoding)
    if not text[:4096].strip() and not text.strip():
        raise FileRejected("empty_file")
    head = text[:4096].lstrip()
    if head[:1] == b"{" or (head[:1] == b"[" and re.match(rb"\[\s*[\[{\]]", head)):
        return "json", text
    if re.match(rb"(?i)<(!doctype html|html|table|head|body)", head):
        raise FileRejected("html_content")
    if kind_of(head) == "xml":
        return _xml_content(text)
    return "text", text


_DECLARED = re.compile(rb"""^(\s*<\?xml[^>]*?)\s+encoding\s*=\s*(["'])([^"'>]*)\2""")


def _xml_content(data: bytes) -> tuple[str, Any]:
    """Return a workbook or a document in XML."""
    declared = _DECLARED.match(data.removeprefix(b"\xef\xbb\xbf"))
    if declared is None or re.match(rb"(?i)(utf|ucs|us-ascii)", declared[3]):
        # Many a program declares UTF-16 or nothing and writes something else: the bytes decide, as in other text.
        text, _ = to_utf8(data)
        data = _DECLARED.sub(rb"\1", text)
    content = opened(data)
    return ("sheets" if isinstance(content, Workbook) else "xml"), content


def _tables(kind: str, content: Any, contract: VendorContract | None) -> list[RawTable]:
    if kind == "xlsx":
        return workbook_tables(content, contract)
    if kind == "sheets":
        return sheet_tables(content.sheets, contract)
    if kind == "xml":
        return [unpivoted(t, contract.columns if contract else {}) for t in xml_tables(content, contract)]
    if kind in {"parquet", "json"}:
        flat = parquet_tables(content, contract) if kind == "parquet" else json_tables(content, contract)
        return [unpivoted(table, contract.columns if contract else {}) for table in flat]
    if contract is not None and contract.layout == "fixed_width":
        return [fixed_width_table(content, contract)]
    return delimited_tables(content, contract)


def _glance(kind: str, content: Any) -> tuple[str, list[str] | None]:
    """Return the beginning of a file as text, and its header, to compare with contracts."""
    if kind == "text":
        cut = content[: 1 << 16]
        head = cut.decode("utf-8", "replace")
        if len(cut) < len(content):
            head = head[: head.rfind("\n") + 1] or head
        delimiter = _choose(head)
        try:
            rows = [r.cells for r in records(head, delimiter, limit=200)]
        except FileRejected:
            return head, None
        # A header in a language that only a contract knows is still the first wide row of words.
        found = naming.find_header(rows)
        if found is None:
            width = max((len(r) for r in rows), default=0)
            found = next(
                (
                    i
                    for i, r in enumerate(rows)
                    if len(r) == width and width > 2 and not any(re.search(r"\d{3}", c) for c in r)
                ),
                None,
            )
        return head, rows[found] if found is not None else None
    if kind == "json":
        head = content[: 1 << 16].decode("utf-8", "replace")
        # Only text near the top names the author of a document.
        return head, sorted(set(re.findall(r'"([^"\\]{1,60})"\s*:', head)))
    if kind == "xml":
        return content.head, content.names
    try:
        tables = parquet_tables(content) if kind == "parquet" else _tables(kind, content, None)
    except FileRejected:
        return ("", None) if kind == "parquet" else _sheet_text(kind, content)
    return "\n".join(line for t in tables for line in t.preamble), tables[0].headers


def _sheet_text(kind: str, content: Any) -> tuple[str, list[str] | None]:
    """Return the beginning of the sheet that has a header in words that nobody knows, or of the first."""
    try:
        sheets = workbook_sheets(content) if kind == "xlsx" else content.sheets
    except FileRejected:
        return "", None
    found: list[tuple[str, list[str] | None]] = []
    for _, sheet in sheets:
        rows = [r.cells[:200] for r in sheet[:40]]
        width = max((sum(bool(c) for c in r) for r in rows), default=0)
        header = next((r for r in rows if width > 2 and sum(bool(c) for c in r) == width), None)
        found.append(("\n".join("\t".join(r).rstrip() for r in rows), header))
    return next((f for f in found if f[1] is not None), found[0] if found else ("", None))


def _read_member(member: Member, name: str, contracts: Sequence[VendorContract], latest: date, part: _Part) -> None:
    by_name = named_contract(contracts, name)
    try:
        kind, content = content_of(member)
    except FileRejected as rejected:
        encoded = [c for c in contracts if c.encoding]
        if rejected.reason not in {"undecodable", "binary_content"} or not encoded:
            raise
        kind, content = content_of(
            member, encoded[0].encoding if len(encoded) == 1 else by_name.encoding if by_name else None
        )
    head, header = _glance(kind, content)
    matches = match_contracts(contracts, kind, head, header, latest)
    if matches and matches[0].contract.encoding and member.kind == "text":
        kind, content = content_of(member, matches[0].contract.encoding)
    contract: VendorContract | None = matches[0].contract if matches else None
    if (
        len(matches) > 1
        and matches[0].score == matches[1].score
        and by_name in (matches[0].contract, matches[1].contract)
    ):
        contract = by_name
    noted: set[str] = set()
    terms = by_name is not None and (
        by_name.id_width or by_name.date_order or by_name.date_formats or by_name.pictures or by_name.decimal
    )
    if contract is None and terms and by_name is not None and not by_name.positional:
        contract = by_name
        noted.add("contract_by_name")
    try:
        tables, read = _attempt(kind, content, contract, latest)
    except FileRejected as rejected:
        if contract is not None or by_name is None or rejected.reason not in _NAMED_TERMS_HELP:
            raise
        contract = by_name
        noted.add("contract_by_name")
        tables, read = _attempt(kind, content, contract, latest)
    _take(tables, read, contract, matches, member, part)
    part.warnings |= noted


def _attempt(
    kind: str, content: Any, contract: VendorContract | None, latest: date
) -> tuple[list[RawTable], list[Interpreted]]:
    tables = _tables(kind, content, contract)
    if not tables:
        raise FileRejected("unknown_schema")
    return tables, [interpret(table, contract, latest) for table in tables]


def _detected(table: RawTable, read: Interpreted) -> str:
    named = sorted(
        f"{name}={naming.normalised(table.headers[i])}" for name, places in read.mapping.columns.items() for i in places
    )
    return "detected:" + hashlib.sha256("|".join(named).encode()).hexdigest()[:8]


def _take(
    tables: list[RawTable],
    read: list[Interpreted],
    contract: VendorContract | None,
    matches: list[Match],
    member: Member,
    part: _Part,
) -> None:
    counted: set[int] = set()
    for table, typed in zip(tables, read, strict=True):
        label = "/".join(x for x in (member.name, table.member) if x)
        if id(table.skipped) not in counted:
            counted.add(id(table.skipped))
            part.skipped.update({k: v for k, v in table.skipped.items() if v})
        part.warnings |= typed.warnings
        for bad_row in table.bad:
            part.quarantined.append(_quarantine(bad_row.line, label, bad_row.account, bad_row.reason, bad_row.detail))
        ids = typed.account
        for row, (reason, detail, line) in sorted(typed.bad.items()):
            part.quarantined.append(_quarantine(line, label, ids[row].as_py(), reason, detail))
        part.tables.append(_canonical(table, typed, contract, label, part))
    if part.vendor == "unknown":
        own = _detected(tables[0], read[0])
        identity = read[0].identity if read[0].identity is not None else 0.5
        content_score = round(0.6 * min(1.0, read[0].mapping.score) + 0.4 * identity, 4)
        part.vendor = contract.vendor if contract else own
        part.version = contract.version if contract else None
        chosen = next((m.score for m in matches if contract is m.contract), content_score)
        part.score = round(max(chosen, content_score) if contract else content_score, 4)
        part.candidates = [(m.contract.vendor, m.score) for m in matches if m.contract is not contract]
        if contract:
            part.candidates.append((own, round(min(content_score, part.score) * 0.9, 4)))


def _quarantine(line: int, member: str, account: str, reason: str, detail: str) -> dict[str, Any]:
    # No account is a date; in a line that is shifted it may be one of birth.
    hidden = re.search(PERSONAL_VALUE + r"|^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}$", account or "")
    safe = "" if hidden or len(account) > 64 or "@" in account else account
    return {"line": line, "member": member, "account_id": safe, "reason": reason, "detail": detail}


# --- rows ------------------------------------------------------------------------------------------------------------


def _grains(typed: Interpreted, contract: VendorContract | None, table: RawTable) -> tuple[list[str] | None, str]:
    """Return the grain by row where a column states it, and the grain of the table."""
    good = np.ones(len(typed.lines), bool)
    good[list(typed.bad)] = False
    stated = "|".join(
        [
            typed.title,
            typed.date_header,
            *(table.headers[i] for c in ("return_net", "return_gross") for i in typed.mapping.columns.get(c, [])),
        ]
    )
    if contract and contract.granularity:
        return typed.grain, contract.granularity
    grain = _inferred_grain(typed, pa.array(good), stated)
    return typed.grain or _grains_by_row(typed, good, grain), grain


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
    months = ends.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
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
    if typed.date_kind == "quarter":
        return "quarterly"
    ends = pc.filter(typed.period_end, good)
    if typed.period_start.null_count < len(typed.period_start):
        starts = pc.filter(typed.period_start, good)
        span = pc.subtract(pc.cast(ends, pa.int32()), pc.cast(starts, pa.int32())).drop_null()
        if len(span):
            middle = float(np.median(span.to_numpy(zero_copy_only=False)))
            if middle <= 4:
                return "daily"
            if 26 <= middle <= 35:
                return "monthly"
            if 85 <= middle <= 95:
                return "quarterly"
    account = pc.filter(typed.account, good)
    if len(ends) == 0:
        return "monthly"
    dates64 = (
        pc.cast(pc.cast(ends, pa.timestamp("s")), pa.timestamp("s"))
        .to_numpy(zero_copy_only=False)
        .astype("datetime64[D]")
    )
    months = dates64.astype("datetime64[M]").astype(np.int64)
    codes = account.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    days = dates64.astype(np.int64)
    order = np.lexsort((days, codes))
    same = codes[order][1:] == codes[order][:-1]
    day_steps = np.diff(days[order])[same]
    month_steps = np.diff(months[order])[same]
    moved = day_steps > 0
    if moved.any():
        within = (month_steps[moved] == 0).mean()
        if within > 0.3 or float(np.median(day_steps[moved])) <= 7:
            return "daily"
        steps = month_steps[moved]
        quarter_ends = bool(np.all((months + 1) % 3 == 0))
        if quarter_ends and np.all(steps % 3 == 0):
            return "quarterly"
        return "monthly"
    if re.search(r"(?i)\bdaily\b", stated):
        return "daily"
    quarter_ends = bool(np.all((months + 1) % 3 == 0))
    if quarter_ends and re.search(r"(?i)\bquarterly\b|\bquarter[- ]end|\bqtd\b|\bquarter\b|\bquartal", stated):
        return "quarterly"
    distinct = np.unique(days)
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


def _canonical(
    table: RawTable, typed: Interpreted, contract: VendorContract | None, label: str, part: _Part
) -> pa.Table:
    """Build canonical rows of the good rows of one table."""
    size = table.rows
    by_row, grain = _grains(typed, contract, table)
    grains = (
        pa.array([g or grain for g in by_row], pa.string()).dictionary_encode() if by_row else _repeated(grain, size)
    )
    flags: dict[int, list[str]] = {row: list(said) for row, said in table.flags.items()}
    ends, stated = _period_ends(typed, grains, flags, part, bool(by_row))
    money = dict(typed.money)
    contributions, distributions = money.get("contributions"), money.get("distributions")
    net = money.get("net_flow")
    if contributions is not None or distributions is not None:
        given = [a for a in (contributions, distributions) if a is not None]
        zero = pa.scalar(Decimal(0), _MONEY_TYPE)
        c, d = (
            (pc.fill_null(a, zero) if a.null_count else a)
            if a is not None
            else pa.nulls(size, _MONEY_TYPE).fill_null(zero)
            for a in (contributions, distributions)
        )
        computed = pc.cast(pc.subtract(c, d), _MONEY_TYPE)
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
        "member": _repeated(label, size),
        "line": typed.lines,
    }
    for name in MONEY:
        arrays[name] = net if name == "net_flow" and net is not None else money.get(name, pa.nulls(size, _MONEY_TYPE))
    for name in RETURNS:
        arrays[name] = typed.returns.get(name, pa.nulls(size, _RETURN_TYPE))
    arrays["flags"] = _flag_texts(_repeated("", size), flags)
    columns = [arrays[f.name] for f in _ENCODED_ROWS]
    rows = pa.table(
        [
            column.dictionary_encode() if pa.types.is_dictionary(f.type) else column
            for f, column in zip(_ENCODED_ROWS, columns, strict=True)
        ],
        schema=_ENCODED_ROWS,
    )
    if typed.bad:
        mask = np.ones(size, bool)
        mask[list(typed.bad)] = False
        rows = rows.filter(pa.array(mask))
    return rows


def _repeated(text: str, rows: int) -> Any:
    """Return a column that has the same text in every row."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text], pa.string()))


def _flag_texts(texts: Any, flags: Mapping[int, Sequence[str]]) -> Any:
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
    typed: Interpreted, grains: Any, flags: dict[int, list[str]], part: _Part, mixed: bool
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
        part.warnings.add("period_label_normalised")
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


# --- between rows ----------------------------------------------------------------------------------------------------


def _finished(part: _Part, name: str, digest: str) -> FileReading:
    tables, part.tables = part.tables, []
    rows = pa.concat_tables(tables).unify_dictionaries() if tables else _ENCODED_ROWS.empty_table()
    del tables
    if rows.num_rows:
        rows = pa.table([one_array(column) for column in rows.columns], schema=rows.schema)
        rows = _in_order(rows, part)
        rows = _flagged(rows, part)
    elif not part.quarantined:
        part.warnings.add("no_data_rows")
    rows = pa.table([one_array(rows[f.name]).cast(f.type) for f in ROWS], schema=ROWS)
    codes = pc.unique(rows["flags"]).to_pylist() if rows.num_rows else []
    for text in codes:
        part.warnings |= {code.partition(":")[0] for code in text.split(";") if code}
    quarantined = pa.Table.from_pylist(
        sorted(part.quarantined, key=lambda q: (q["member"], q["line"])), schema=QUARANTINED
    )
    if rows.num_rows == 0 and quarantined.num_rows:
        action, reason = "quarantine_file", "no_good_rows"
    elif part.warnings or quarantined.num_rows:
        action, reason = "accept_with_warnings", None
    else:
        action, reason = "accept", None
    if quarantined.num_rows and action != "quarantine_file":
        part.warnings.add("rows_quarantined")
    grains = pc.unique(rows["granularity"]).to_pylist() if rows.num_rows else []
    best = max(part.candidates, key=lambda c: c[1], default=None)
    return FileReading(
        name=name,
        sha256=digest,
        action=action,
        vendor=part.vendor,
        contract_version=part.version,
        score=part.score,
        runner_up=f"{best[0]}:{best[1]}" if best else None,
        file_reason=reason,
        warnings=sorted(part.warnings),
        rows=rows,
        quarantined=quarantined,
        skipped={k: v for k, v in sorted(part.skipped.items()) if v},
        granularity=(grains[0] if len(grains) == 1 else "mixed" if grains else None),
    )


def _in_order(rows: pa.Table, part: _Part) -> pa.Table:
    """Sort rows by account, grain and period; of exact duplicates one stays, of contradictions none."""
    account, grain = (text_ranks(one_array(rows[name])) for name in ("account_id", "granularity"))
    days = pc.cast(rows["period_end"], pa.int32()).to_numpy().astype(np.int64)
    # One number to sort by: days fit into 24 bits and grains into 2.
    keys = (account << 26) | (grain << 24) | (days - int(days.min()))
    if not np.all(keys[1:] >= keys[:-1]):
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        rows = _taken(rows, pa.array(order))
    same = keys[1:] == keys[:-1]
    return _without_duplicates(rows, keys, same, part) if same.any() else rows


def _taken(rows: pa.Table, order: Any) -> pa.Table:
    """Return rows in an order; columns are put in order side by side."""
    columns = side_by_side(lambda column: pc.take(one_array(column), order), rows.columns)
    return pa.table(columns, schema=rows.schema)


def _without_duplicates(rows: pa.Table, keys: Any, same: Any, part: _Part) -> pa.Table:
    """Drop exact duplicates; quarantine all rows of a key whose values differ. Rows are sorted by their keys."""
    repeated = np.flatnonzero(np.r_[same, False] | np.r_[False, same])
    groups: dict[tuple[Any, ...], list[int]] = {}
    names = ["account_id", "period_end", "granularity"]
    for row, entry in zip(repeated.tolist(), rows.select(names).take(pa.array(repeated)).to_pylist(), strict=True):
        groups.setdefault(tuple(entry[name] for name in names), []).append(row)
    values = [n for n in ROWS.names if n not in {"line", "member", "flags"}]
    indices = [row for group in groups.values() for row in group]
    picked = dict(zip(indices, rows.select(values).take(pa.array(indices)).to_pylist(), strict=True))
    drop: set[int] = set()
    for key, group in groups.items():
        if all(picked[row] == picked[group[0]] for row in group):
            drop.update(group[1:])
            part.skipped["duplicate_rows"] += len(group) - 1
            part.warnings.add("duplicate_rows")
            continue
        drop.update(group)
        for row in group:
            part.quarantined.append(
                _quarantine(
                    rows["line"][row].as_py(),
                    rows["member"][row].as_py(),
                    key[0],
                    "duplicate_conflict",
                    f"{len(group)} rows of one account and period differ",
                )
            )
    mask = np.ones(rows.num_rows, bool)
    mask[list(drop)] = False
    return rows.filter(pa.array(mask))


def _flagged(rows: pa.Table, part: _Part) -> pa.Table:
    """Flag what disagrees: breaks of the roll-forward, footing, implied return, gaps, large flows, negative values."""
    size = rows.num_rows
    names = [*MONEY, *RETURNS]
    arrays = {name: one_array(rows[name]) for name in names}
    is_empty = {name: array.null_count == size for name, array in arrays.items()}
    raised: list[tuple[str, Any, Any]] = []

    def raise_flag(mask: Any, code: str, amount: Callable[[int], str] | None = None) -> None:
        if mask.any():
            raised.append((code, mask, amount))

    def cents(*terms: tuple[int, str, int]) -> Any:
        def amount(row: int) -> str:
            total = Decimal(0)
            for sign, name, shift in terms:
                total += sign * (rows[name][row + shift].as_py() or Decimal(0))
            return format(total.normalize() + 0, "f")

        return amount

    account = one_array(rows["account_id"]).indices.to_numpy(zero_copy_only=False)
    grain = one_array(rows["granularity"])
    grain_code, grain_names = grain.indices.to_numpy(zero_copy_only=False), grain.dictionary.to_pylist()
    days = pc.cast(rows["period_end"], pa.int32()).to_numpy()
    months = days.astype("datetime64[D]").astype("datetime64[M]").astype(np.int64)
    follows = np.zeros(size, bool)
    gap = np.zeros(size, bool)
    if size > 1:
        # Chains only run within one grain.
        same = (account[1:] == account[:-1]) & (grain_code[1:] == grain_code[:-1])
        step = np.diff(months)
        day_step = np.diff(days)
        for code, word in enumerate(grain_names):
            own = same & (grain_code[1:] == code)
            if word == "daily":
                next_ = own & (day_step > 0) & (day_step <= 5)
                gap[1:] |= own & (day_step > 5)
            else:
                width = 3 if word == "quarterly" else 1
                next_ = own & (step == width)
                gap[1:] |= own & (step > width)
            follows[1:] |= next_
    emv = floats_of(arrays["ending_market_value"])
    closed = np.zeros(size, bool)
    closed[1:] = emv[:-1] == 0
    prior = np.full(size, np.nan)
    prior[1:] = emv[:-1]
    no_bmv = is_empty["beginning_market_value"]

    def look(follows: Any, prior: Any, *amounts: Any) -> tuple[Any, ...]:
        """Return what is to be said of each row by itself, as masks."""
        f = dict(zip(names, map(floats_of, amounts), strict=True))
        bmv, emv, net = f["beginning_market_value"], f["ending_market_value"], f["net_flow"]
        flow, fees = zeroed(net), zeroed(f["fees"])
        breaks = follows & (np.abs(bmv - prior) > 0.005 + 1e-12 * np.abs(prior))
        negative = (bmv < 0) | (emv < 0)
        large = (bmv > 0) & (emv != 0) & (np.abs(flow) >= LARGE_FLOW * bmv)
        has = ~np.isnan(bmv) & ~np.isnan(emv) & ~np.isnan(f["appreciation"])
        parts = zeroed(f["income"]) + zeroed(f["appreciation"]) + zeroed(f["other_adjustments"])
        off = has & (np.abs(emv - (bmv + flow + parts - fees)) > 0.021)
        start = np.where(follows, prior, np.nan) if no_bmv else bmv
        missed = []
        for name, back in (("return_net", 0.0), ("return_gross", fees)):
            low, high = implied_range(start, flow, emv - start - flow + back)
            # Without flows in the file an implied return is no test of a stated one.
            testable = np.isfinite(low) & np.isfinite(high) & ~np.isnan(f[name]) & ~np.isnan(net)
            missed.append(testable & ((f[name] < low - 2e-4) | (f[name] > high + 2e-4)))
        undefined = np.isnan(f["return_net"]) & np.isnan(f["return_gross"])
        no_capital = ~((bmv + np.maximum(flow, 0)) > 0) | (bmv < 0)
        return (
            breaks, np.isnan(bmv), negative, large, has, off, *missed, undefined & no_capital, undefined & ~no_capital
        )  # fmt: skip

    breaks, unknown, negative, large, has, off, missed_net, missed_gross, undefined, missing = by_blocks(
        look, follows, prior, *arrays.values()
    )
    raise_flag(breaks, "rollforward_break", cents((1, "beginning_market_value", 0), (-1, "ending_market_value", -1)))
    raise_flag(gap & ~closed, "missing_period")
    if not no_bmv:
        raise_flag(unknown, "beginning_value_missing")
    raise_flag(negative, "negative_market_value")
    raise_flag(large, "large_cash_flow")
    if off.any():
        if off.sum() <= 0.5 * has.sum() or (has.sum() <= 3 and not is_empty["income"]):
            raise_flag(
                off,
                "components_do_not_foot",
                cents(
                    (1, "ending_market_value", 0),
                    (-1, "beginning_market_value", 0),
                    (-1, "net_flow", 0),
                    (-1, "income", 0),
                    (-1, "appreciation", 0),
                    (-1, "other_adjustments", 0),
                    (1, "fees", 0),
                ),
            )
        else:
            part.warnings.add("components_do_not_foot")
    raise_flag(missed_net, "implied_return_mismatch")
    raise_flag(missed_gross, "implied_return_mismatch")
    if not (is_empty["return_net"] and is_empty["return_gross"]):
        raise_flag(undefined, "return_undefined")
        raise_flag(missing, "return_missing")
    if not raised:
        return rows
    place = rows.schema.get_field_index("flags")
    return rows.set_column(place, rows.schema.field(place), _raised_texts(one_array(rows["flags"]), raised))


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
    return _flag_texts(encoded, with_amounts)
