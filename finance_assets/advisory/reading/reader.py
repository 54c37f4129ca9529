"""One vendor file in, canonical rows out.

Belongs here: the order of the steps, and the result. Rows come out with exact decimals, and nothing of a suspect file.
"""

from __future__ import annotations

import codecs
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.columns import combine_chunks, give_back_freed_memory
from finance_assets.advisory.reading import headers as naming
from finance_assets.advisory.reading.blocks import LARGE_TEXT, ByBlocks, LargeRows, read_by_blocks
from finance_assets.advisory.reading.budget import Budget, OverBudget, current_budget, spending
from finance_assets.advisory.reading.canonical import canonical_rows, grains_of
from finance_assets.advisory.reading.containers import (
    READABLE,
    FileBytes,
    Member,
    kind_of,
    open_members,
)
from finance_assets.advisory.reading.decoding import is_plain, single_feeds, to_utf8
from finance_assets.advisory.reading.detection import Interpreted, interpret
from finance_assets.advisory.reading.flagging import flag_rows, in_order, in_stored_order
from finance_assets.advisory.reading.layouts import (
    RawTable,
    delimited_tables,
    fixed_width_table,
    json_tables,
    parquet_headers,
    parquet_tables,
    records,
    sheet_tables,
    unpivoted,
)
from finance_assets.advisory.reading.layouts import choose_delimiter as _choose
from finance_assets.advisory.reading.matching import Match, match_contracts, named_contract
from finance_assets.advisory.reading.outcome import (
    ENCODED_ROWS,
    QUARANTINED,
    ROWS,
    Part,
    quarantine_row,
    without_doubtful_accounts,
)
from finance_assets.advisory.reading.rejection import FileRejected
from finance_assets.advisory.reading.spreadsheets import Workbook, read_workbook
from finance_assets.advisory.reading.vendor_contract import VendorContract
from finance_assets.advisory.reading.xml_documents import opened, xml_tables

LARGE_ROWS = 1 << 17
"""From so many rows on, those of a file that was read as a whole come in the order in which they are stored."""
#: How much of a text shows what it is.
_GLANCE = 1 << 16
_NAMED_TERMS_HELP = frozenset(
    {"unknown_schema", "ambiguous_dates", "return_unit_unproved", "unknown_measure", "ambiguous_numbers"}
    | {"ambiguous_period", "ambiguous_columns", "unreadable_dates", "undecodable", "columns_do_not_match_header"}
)


@dataclass(frozen=True)
class FileReading:
    """What became of one delivered file.

    Attributes
    ----------
    name, sha256
        The file.
    refused
        ``quarantine_file`` or ``skip_duplicate`` where nothing of it is loaded; else None.
    vendor, contract_version, score, runner_up
        What it was taken for, how sure that is, and what else it could have been.
    file_reason
        Why nothing of it is loaded.
    noticed
        Warnings, but for what the flags of rows say.
    content
        The good rows; those of a large file are to be had in parts.
    quarantined
        Rows that were left out.
    skipped
        Lines that are no rows, counted by what they are.
    granularity
        The grain of the rows, or ``mixed``.
    explanation
        Of a file of which nothing is loaded, what exactly is wrong and what can be done, where the reason does not say
        it all; holds no values of the file.
    """

    name: str
    sha256: str
    refused: str | None
    vendor: str
    contract_version: int | None
    score: float
    runner_up: str | None
    file_reason: str | None
    noticed: frozenset[str]
    content: pa.Table | LargeRows
    quarantined: pa.Table
    skipped: dict[str, int]
    granularity: str | None
    explanation: str = ""

    @cached_property
    def rows(self) -> pa.Table:
        """All good rows (`ROWS`), in the order of account, grain and period; very many of a whole file, as stored."""
        return self.content if isinstance(self.content, pa.Table) else self.content.table()

    @property
    def row_count(self) -> int:
        """How many good rows there are."""
        return int(self.content.num_rows) if isinstance(self.content, pa.Table) else self.content.count

    @cached_property
    def warnings(self) -> list[str]:
        """Codes of what was noticed, sorted. Of a large file, cheapest after its rows were taken."""
        if isinstance(self.content, LargeRows):
            said = self.content.said()
        else:
            texts = pc.unique(self.content["flags"]).to_pylist()
            said = {code.partition(":")[0] for text in texts for code in text.split(";") if code}
        if self.quarantined.num_rows and self.refused is None:
            said = said | {"rows_quarantined"}
        return sorted(self.noticed | said)

    @property
    def action(self) -> str:
        """What becomes of the file: ``accept``, ``accept_with_warnings``, or what it was refused as."""
        return self.refused or ("accept_with_warnings" if self.warnings else "accept")


def read_vendor_file(
    data: bytes | FileBytes,
    name: str,
    *,
    contracts: Sequence[VendorContract] = (),
    received_at: datetime,
    seen: Mapping[str, str] = {},
    sha256: Callable[[], str] | None = None,
) -> FileReading:
    """Read one vendor file.

    Parameters
    ----------
    data
        The delivered bytes; a large file on a disk is read from there, where it can be read by blocks.
    name
        Name under which they were delivered; says nothing about the content.
    contracts
        Contracts of known vendors.
    received_at
        When the file was received; later dates in it are impossible.
    seen
        sha256 -> name of files that were read before.
    sha256
        Gives the hash of the bytes, where somebody else works it out; asked for as late as can be.

    Returns
    -------
    FileReading
        Action, rows, quarantined rows, warnings; never raises for what is in the file.

    Raises
    ------
    MemoryError
        There is not enough memory; that is no verdict on the file.
    """
    hashed = sha256 or (lambda: digest_of(data))
    if seen and hashed() in seen:
        return _refused(name, hashed(), "skip_duplicate", "duplicate_file")
    try:
        with spending(Budget(len(data))):
            part = _read(data, name, contracts, received_at.date())
            return _finished(part, name, hashed())
    except FileRejected as rejected:
        return _refused(name, hashed(), "quarantine_file", rejected.reason, rejected.explanation)
    except MemoryError:
        # A lack of memory says nothing of the file.
        raise
    except (RecursionError, pa.ArrowException, ValueError, ArithmeticError, LookupError, TypeError):
        # A file that breaks a rule of a library in a way that is not foreseen is a file that cannot be read. The
        # message of the error may hold cells of the file, so it goes nowhere.
        return _refused(name, hashed(), "quarantine_file", "unreadable_file")


def digest_of(data: bytes | FileBytes) -> str:
    """Return the sha256 of a file's bytes."""
    if isinstance(data, bytes):
        return hashlib.sha256(data).hexdigest()
    with data.opened() as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _refused(name: str, digest: str, action: str, reason: str, explanation: str = "") -> FileReading:
    return FileReading(
        name=name,
        sha256=digest,
        refused=action,
        vendor="unknown",
        contract_version=None,
        score=0.0,
        runner_up=None,
        file_reason=reason,
        noticed=frozenset(),
        content=ROWS.empty_table(),
        quarantined=QUARANTINED.empty_table(),
        skipped={},
        granularity=None,
        explanation=explanation,
    )


# --- members ---------------------------------------------------------------------------------------------------------


def _read(data: bytes | FileBytes, name: str, contracts: Sequence[VendorContract], latest: date) -> Part:
    part = Part()
    if isinstance(data, FileBytes):
        if _read_from_disk(data, name, contracts, latest, part):
            return part
        data = data[:]
    members = open_members(data)
    reasons: list[FileRejected] = []
    budget = current_budget()
    for member in members:
        if len(members) > 1 and member.kind not in READABLE:
            part.skipped[f"member_{member.kind}"] += 1
            reasons.append(FileRejected("html_content" if member.kind == "html" else f"{member.kind}_content"))
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
            with budget.again():
                _read_member(member, member.name or name, contracts, latest, part, is_alone=len(members) == 1)
        except FileRejected as rejected:
            if len(members) == 1 or isinstance(rejected, OverBudget):
                raise
            del part.tables[mark[0] :], part.quarantined[mark[1] :]
            part.warnings, part.skipped = mark[2], mark[3]
            part.skipped[f"member_{rejected.reason}"] += 1
            reasons.append(rejected)
    if len(members) > 1:
        if not part.tables:
            raise reasons[0] if reasons else FileRejected("unknown_schema")
        if reasons:
            part.warnings.add("members_skipped")
    return part


def _read_from_disk(data: FileBytes, name: str, contracts: Sequence[VendorContract], latest: date, part: Part) -> bool:
    """Read a file of which not all need be in memory; False where that, or anything else, takes all of it."""
    head = data[:_GLANCE]
    kind = kind_of(head)
    if kind == "text":
        if head.startswith(codecs.BOM_UTF8):
            data = data.after(len(codecs.BOM_UTF8))
        head = data[:_GLANCE]
        if not is_plain(head[: head.rfind(b"\n") + 1]) or _kind_of_text(single_feeds(head)) != "text":
            return False
    elif kind != "parquet":
        return False
    chosen = _chosen(kind, data, name, contracts, latest)
    if kind == "text" and chosen.encoding:
        return False
    large = read_by_blocks(kind, data, chosen.contract, latest, "")
    if large is None:
        return False
    _take_large(large, chosen, part)
    return True


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
        ``text``, ``json`` or ``parquet`` and the bytes to parse; ``xlsx`` and the workbook; ``sheets`` and the workbook
        of another kind; ``xml`` and the document.

    Raises
    ------
    FileRejected
        If it cannot be read at all.
    """
    if member.kind in {"xlsx", "xls", "xlsb", "ods"}:
        return "xlsx" if member.kind == "xlsx" else "sheets", read_workbook(member.kind, member.data)
    if member.kind == "xml":
        return _xml_content(member.data)
    if member.kind != "text":
        return member.kind, member.data
    text, _ = to_utf8(member.data, encoding)
    if not text[:4096].strip() and not text.strip():
        raise FileRejected("empty_file")
    kind = _kind_of_text(text)
    if kind == "html":
        raise FileRejected("html_content")
    return _xml_content(text) if kind == "xml" else (kind, text)


def _kind_of_text(text: bytes) -> str:
    """Say what the beginning of a text shows it to be: ``json``, ``html``, ``xml`` or ``text``."""
    head = text[:4096].lstrip()
    if head[:1] == b"{" or (head[:1] == b"[" and re.match(rb"\[\s*[\[{\]]", head)):
        return "json"
    if re.match(rb"(?i)<(!doctype html|html|table|head|body)", head):
        return "html"
    return "xml" if kind_of(head) == "xml" else "text"


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
    if kind in {"xlsx", "sheets"}:
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
        cut = content[:_GLANCE]
        head = single_feeds(cut).decode("utf-8", "replace")
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
        head = content[:_GLANCE].decode("utf-8", "replace")
        # Only text near the top names the author of a document.
        return head, sorted(set(re.findall(r'"([^"\\]{1,60})"\s*:', head)))
    if kind == "parquet":
        try:
            return "", parquet_headers(content)
        except FileRejected:
            return "", None
    if kind == "xml":
        return content.head, content.names
    try:
        with current_budget().looking():
            tables = _tables(kind, content, None)
    except FileRejected:
        return _sheet_text(content)
    # The tables of one sheet have the same titles above them.
    titles = {id(t.preamble): t.preamble for t in tables}
    return "\n".join(line for lines in titles.values() for line in lines), tables[0].headers


def _sheet_text(content: Workbook) -> tuple[str, list[str] | None]:
    """Return the beginning of the sheet that has a header in words that nobody knows, or of the first."""
    found: list[tuple[str, list[str] | None]] = []
    for _, sheet in content.sheets:
        rows = [r.cells[:200] for r in sheet[:40]]
        width = max((sum(bool(c) for c in r) for r in rows), default=0)
        header = next((r for r in rows if width > 2 and sum(bool(c) for c in r) == width), None)
        found.append(("\n".join("\t".join(r).rstrip() for r in rows), header))
    return next((f for f in found if f[1] is not None), found[0] if found else ("", None))


def _read_member(
    member: Member, name: str, contracts: Sequence[VendorContract], latest: date, part: Part, *, is_alone: bool
) -> None:
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
    chosen = _chosen(kind, content, name, contracts, latest)
    contract = chosen.contract
    if chosen.encoding and member.kind == "text":
        kind, content = content_of(member, chosen.encoding)
    large = read_by_blocks(kind, content, contract, latest, member.name) if is_alone else None
    if large is not None:
        _take_large(large, chosen, part)
        return
    if len(member.data) >= LARGE_TEXT:
        # All of it will be in memory.
        give_back_freed_memory()
    try:
        with current_budget().again():
            tables, read = _attempt(kind, content, contract, latest)
    except FileRejected as rejected:
        if contract is not None or by_name is None or rejected.reason not in _NAMED_TERMS_HELP:
            raise
        chosen = _Chosen(by_name, chosen.matches, is_by_name=True)
        tables, read = _attempt(kind, content, by_name, latest)
    _take(tables, read, chosen, member, part)


class _Chosen(NamedTuple):
    """The contract by which a file is read, those that match it, and whether only its name speaks for the one."""

    contract: VendorContract | None
    matches: list[Match]
    is_by_name: bool

    @property
    def noted(self) -> set[str]:
        """The warning that this is worth."""
        return {"contract_by_name"} if self.is_by_name else set()

    @property
    def encoding(self) -> str | None:
        """The encoding that the contract declares, if the content speaks for the contract."""
        return None if self.contract is None or self.is_by_name else self.contract.encoding


def _chosen(kind: str, content: Any, name: str, contracts: Sequence[VendorContract], latest: date) -> _Chosen:
    """Choose the contract by which a file is read."""
    by_name = named_contract(contracts, name)
    head, header = _glance(kind, content)
    matches = match_contracts(contracts, kind, head, header, latest)
    if not matches:
        terms = by_name is not None and (
            by_name.id_width or by_name.date_order or by_name.date_formats or by_name.pictures or by_name.decimal
        )
        if terms and by_name is not None and not by_name.positional:
            return _Chosen(by_name, matches, is_by_name=True)
        return _Chosen(None, matches, is_by_name=False)
    contract = matches[0].contract
    if (
        len(matches) > 1
        and matches[0].score == matches[1].score
        and by_name in (matches[0].contract, matches[1].contract)
    ):
        contract = by_name
    return _Chosen(contract, matches, is_by_name=False)


def _attempt(
    kind: str, content: Any, contract: VendorContract | None, latest: date
) -> tuple[list[RawTable], list[Interpreted]]:
    tables = _tables(kind, content, contract)
    if not tables:
        raise FileRejected("unknown_schema")
    budget = current_budget()
    read = []
    for table in tables:
        read.append(interpret(table, contract, latest))
        budget.tick()
    return tables, read


def _detected(table: RawTable, read: Interpreted) -> str:
    named = sorted(
        f"{name}={naming.normalised(table.headers[i])}" for name, places in read.mapping.columns.items() for i in places
    )
    return "detected:" + hashlib.sha256("|".join(named).encode()).hexdigest()[:8]


def _take(
    tables: list[RawTable],
    read: list[Interpreted],
    chosen: _Chosen,
    member: Member,
    part: Part,
) -> None:
    counted: set[int] = set()
    part.warnings |= chosen.noted
    for table, typed in zip(tables, read, strict=True):
        label = "/".join(x for x in (member.name, table.member) if x)
        if id(table.skipped) not in counted:
            counted.add(id(table.skipped))
            part.skipped.update({k: v for k, v in table.skipped.items() if v})
        part.warnings |= typed.warnings
        for bad_row in table.bad:
            part.quarantined.append(
                quarantine_row(bad_row.line, label, bad_row.account, bad_row.reason, bad_row.detail)
            )
        ids = typed.account
        for row, (reason, detail, line) in sorted(typed.bad.items()):
            part.quarantined.append(quarantine_row(line, label, ids[row].as_py(), reason, detail))
        part.tables.append(canonical_rows(table, typed, grains_of(table, typed, chosen.contract), label, part.warnings))
    if part.vendor == "unknown":
        _identify(part, tables[0], read[0], read[0].identity, chosen)


def _take_large(large: ByBlocks, chosen: _Chosen, part: Part) -> None:
    part.large = large.rows
    part.warnings |= chosen.noted
    part.skipped.update({k: v for k, v in large.skipped.items() if v})
    part.warnings |= large.warnings
    part.quarantined += large.quarantined
    _identify(part, large.table, large.typed, large.identity, chosen)


def _identify(
    part: Part,
    table: RawTable,
    typed: Interpreted,
    identity: float | None,
    chosen: _Chosen,
) -> None:
    """Say what a file was taken for, how sure that is, and what else it could have been."""
    contract, matches, _ = chosen
    own = _detected(table, typed)
    content_score = round(0.6 * min(1.0, typed.mapping.score) + 0.4 * (0.5 if identity is None else identity), 4)
    part.vendor = contract.vendor if contract else own
    part.version = contract.version if contract else None
    own_score = next((m.score for m in matches if contract is m.contract), content_score)
    part.score = round(max(own_score, content_score) if contract else content_score, 4)
    part.candidates = [(m.contract.vendor, m.score) for m in matches if m.contract is not contract]
    if contract:
        part.candidates.append((own, round(min(content_score, part.score) * 0.9, 4)))


# --- the whole file --------------------------------------------------------------------------------------------------


def _finished(part: Part, name: str, digest: str) -> FileReading:
    content: pa.Table | LargeRows
    if part.large is not None:
        content, count, grains = part.large, part.large.count, part.large.grains
    else:
        tables, part.tables = part.tables, []
        rows = pa.concat_tables(tables).unify_dictionaries() if tables else ENCODED_ROWS.empty_table()
        del tables
        if rows.num_rows:
            rows = pa.table([combine_chunks(column) for column in rows.columns], schema=rows.schema)
            rows = in_order(rows, part)
            rows = flag_rows(rows, part)
            if rows.num_rows > LARGE_ROWS:
                # They are written in parts, which must come sorted.
                rows = in_stored_order(rows)
        elif not part.quarantined:
            part.warnings.add("no_data_rows")
        content = pa.table([combine_chunks(rows[f.name]).cast(f.type) for f in ROWS], schema=ROWS)
        count, grains = content.num_rows, pc.unique(content["granularity"]).to_pylist()
    is_empty = count == 0 and bool(part.quarantined)
    without_doubtful_accounts(
        part.quarantined, content["account_id"] if isinstance(content, pa.Table) else content.columns["account_id"]
    )
    best = max(part.candidates, key=lambda c: c[1], default=None)
    return FileReading(
        name=name,
        sha256=digest,
        refused="quarantine_file" if is_empty else None,
        vendor=part.vendor,
        contract_version=part.version,
        score=part.score,
        runner_up=f"{best[0]}:{best[1]}" if best else None,
        file_reason="no_good_rows" if is_empty else None,
        noticed=frozenset(part.warnings),
        content=content,
        quarantined=pa.Table.from_pylist(
            sorted(part.quarantined, key=lambda q: (q["member"], q["line"])), schema=QUARANTINED
        ),
        skipped={k: v for k, v in sorted(part.skipped.items()) if v},
        granularity=grains[0] if len(grains) == 1 else "mixed" if grains else None,
    )
