"""Statements of banks: ISO 20022 camt.053, one row per statement.

Belongs here: which balances, entries and dates of a statement make a row of account performance. The opening booked
balance is the beginning value, the closing booked one the ending value; what was booked in between are the flows. A
balance or entry that is a debit is negative to the account, whatever it reverses.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import Decimal

import pyarrow as pa

from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.layouts import BadRow, RawTable
from finance_assets.advisory.reading.markup import Element

_COLUMNS = (
    "account_id",
    "period_start",
    "period_end",
    "currency",
    "beginning_market_value",
    "contributions",
    "distributions",
    "ending_market_value",
)
_AMOUNTS = range(4, 8)


class _Unusable(Exception):  # noqa: N818 - it is a verdict on a statement
    """A statement that cannot be a row: reason and detail."""


@dataclass
class _Entries:
    """What was booked, and what came beside it."""

    credits: Decimal = Decimal(0)
    debits: Decimal = Decimal(0)
    booked: list[tuple[bool, Decimal]] = field(default_factory=list)
    every: list[tuple[bool, Decimal]] = field(default_factory=list)
    outside: bool = False
    reversed: bool = False

    def sums(self, entries: Sequence[tuple[bool, Decimal]], credit: bool | None) -> tuple[int, Decimal]:
        chosen = [amount for is_credit, amount in entries if credit is None or is_credit == credit]
        return len(chosen), sum(chosen, Decimal(0))


def _all(element: Element, *path: str) -> Iterator[Element]:
    """Yield the elements at the end of a path of names."""
    if not path:
        yield element
        return
    for child in element.children:
        if child.name == path[0]:
            yield from _all(child, *path[1:])


def _text(element: Element, *path: str) -> str:
    """Return the text of the first element at the end of a path, empty where there is none."""
    return next((found.text for found in _all(element, *path) if found.text), "")


def servicers(messages: Sequence[Element]) -> list[str]:
    """Return which banks made statements.

    Parameters
    ----------
    messages
        Elements ``BkToCstmrStmt``.

    Returns
    -------
    list of str
        BICs of the servicers of accounts, or their names where there is no BIC; none where statements do not say it.
    """
    found: dict[str, None] = {}
    for bank in (b for message in messages for b in _all(message, "Stmt", "Acct", "Svcr", "FinInstnId")):
        found.setdefault(_text(bank, "BICFI") or _text(bank, "BIC") or _text(bank, "Nm"))
    return [text for text in found if text]


def statement_table(messages: Sequence[Element]) -> RawTable:
    """Read the statements of messages.

    Parameters
    ----------
    messages
        Elements ``BkToCstmrStmt``.

    Returns
    -------
    RawTable
        A row per statement under canonical names. A statement without account or closing booked balance, with amounts
        in several currencies or with pages that are not there is among ``bad``. Where balances and entries do not add
        up, ``flags`` has the amount: closing less opening less credits plus debits. Undefined where the opening balance
        is missing: the beginning value is empty and nothing is compared.

    Raises
    ------
    FileRejected
        ``empty_file`` without statements; ``trailer_count_mismatch`` or ``trailer_sum_mismatch`` where a summary of
        entries states another number or sum than there is.
    """
    rows: list[list[str]] = []
    lines: list[int] = []
    bad: list[BadRow] = []
    warnings: set[str] = set()
    flags: dict[int, list[str]] = {}
    statements = [found for message in messages for found in _all(message, "Stmt")]
    if not statements:
        raise FileRejected("empty_file")
    for pages in _by_statement(statements):
        account = _text(pages[0], "Acct", "Id", "IBAN") or _text(pages[0], "Acct", "Id", "Othr", "Id")
        try:
            row, off, said = _row(pages, account)
        except _Unusable as unusable:
            bad.append(BadRow(pages[0].line, account, *unusable.args))
            continue
        warnings |= said
        if off:
            flags[len(rows)] = [f"components_do_not_foot:{format(off.normalize(), 'f')}"]
        rows.append(row)
        lines.append(pages[0].line)
    table = RawTable(
        list(_COLUMNS),
        [pa.array([row[i] for row in rows], pa.string()) for i in range(len(_COLUMNS))],
        pa.array(lines, pa.int64()),
        native={i: pa.repeat(pa.scalar(True), len(rows)) for i in _AMOUNTS},
        bad=bad,
        warnings=warnings,
        flags=flags,
    )
    table.directed = True
    return table


def _by_statement(statements: Sequence[Element]) -> list[list[Element]]:
    """Return the pages of each statement together."""
    made: dict[tuple[str, ...], list[Element]] = {}
    for place, statement in enumerate(statements):
        account = _text(statement, "Acct", "Id", "IBAN") or _text(statement, "Acct", "Id", "Othr", "Id")
        number = _text(statement, "ElctrncSeqNb") or _text(statement, "LglSeqNb") or _text(statement, "Id")
        paged = _text(statement, "StmtPgntn", "PgNb") != ""
        made.setdefault((account, number) if paged else (str(place),), []).append(statement)
    return list(made.values())


def _row(pages: Sequence[Element], account: str) -> tuple[list[str], Decimal, set[str]]:
    """Return the cells of a row, what its balances and entries differ by, and warnings."""
    if not account:
        raise _Unusable("missing_required", "a statement without an account")
    if numbers := [_text(page, "StmtPgntn", "PgNb") for page in pages if _text(page, "StmtPgntn", "PgNb")]:
        last = [_text(page, "StmtPgntn", "LastPgInd") in {"true", "1"} for page in pages]
        if sorted(numbers) != sorted(str(n) for n in range(1, len(pages) + 1)) or sum(last) != 1:
            raise _Unusable("incomplete_statement", "not all pages of the statement are in the file")
    currencies = {_text(page, "Acct", "Ccy") for page in pages} - {""}
    opening = _balance(pages, ("OPBD", "PRCD"), currencies)
    closing = _balance(pages, ("CLBD",), currencies)
    if closing is None:
        raise _Unusable("missing_required", "no closing booked balance (CLBD)")
    start, end = _period(pages, opening, closing)
    entries = _booked(pages, currencies, start, end)
    if len(currencies) > 1:
        raise _Unusable("ambiguous_currency", "balances or entries in several currencies")
    for page in pages:
        if len(pages) == 1:
            _check_summary(page, entries)
    off = closing[1] - opening[1] - entries.credits + entries.debits if opening else Decimal(0)
    warnings = set()
    if entries.outside:
        warnings.add("entries_outside_period")
    if entries.reversed:
        warnings.add("reversals_as_booked")
    amounts = [opening[1] if opening else None, entries.credits, entries.debits, closing[1]]
    cells = ["" if amount is None else format(amount, "f") for amount in amounts]
    return [account, start, end, next(iter(currencies), ""), *cells], off, warnings


def _balance(pages: Sequence[Element], codes: Sequence[str], currencies: set[str]) -> tuple[str, Decimal, str] | None:
    """Return date, amount and code of the booked balance at the edge of a statement."""
    for code in codes:
        found: dict[str, Decimal] = {}
        for balance in (b for page in pages for b in _all(page, "Bal")):
            if _text(balance, "Tp", "CdOrPrtry", "Cd") != code or _text(balance, "Tp", "SubTp", "Cd") == "INTM":
                continue  # of another kind, or at the edge of a page
            for line in [*_all(balance, "CdtLine"), *_all(balance, "CdtLn")]:
                if _text(line, "Incl") in {"true", "1"} and _text(line, "Amt").strip("0."):
                    raise _Unusable("ambiguous_balance", f"the balance {code} includes a credit line")
            day = (_text(balance, "Dt", "Dt") or _text(balance, "Dt", "DtTm"))[:10]
            amount = _signed(balance, currencies)
            if found.setdefault(day, amount) != amount:
                raise _Unusable("duplicate_conflict", f"two balances {code} of one day differ")
        if found:
            day = max(found) if code == "CLBD" else min(found)
            return day, found[day], code
    return None


def _signed(element: Element, currencies: set[str]) -> Decimal:
    """Return the amount of a balance or an entry, negative where it is a debit."""
    amounts = list(_all(element, "Amt"))
    text = amounts[0].text if len(amounts) == 1 else ""
    if not re.fullmatch(r"\d{1,18}(\.\d{1,8})?", text, re.ASCII):
        raise _Unusable("bad_number", f"the amount of {element.name} in line {element.line} cannot be read")
    currencies |= {amounts[0].attributes.get("Ccy", "")} - {""}
    direction = _text(element, "CdtDbtInd")
    if direction not in {"CRDT", "DBIT"}:
        raise _Unusable("unknown_flow_indicator", f"{element.name} in line {element.line}: neither CRDT nor DBIT")
    return Decimal(text) if direction == "CRDT" else -Decimal(text)


def _period(
    pages: Sequence[Element], opening: tuple[str, Decimal, str] | None, closing: tuple[str, Decimal, str]
) -> tuple[str, str]:
    """Return the first and the last day of a statement, as it states them or as its balances are dated."""
    spans = [span for page in pages for name in ("FrToDt", "FrToDtTm") for span in _all(page, name)]
    starts = [text for span in spans if (text := _text(span, "FrDtTm") or _text(span, "FrDt"))]
    ends = [text for span in spans if (text := _text(span, "ToDtTm") or _text(span, "ToDt"))]
    start = min(starts)[:10] if starts else ""
    if not start and opening is not None:
        # The balance before a period is that of the evening before.
        start = _next_day(opening[0]) if opening[2] == "PRCD" else opening[0]
    end = max(ends) if ends else closing[0]
    if re.fullmatch(r"[-0-9]{10}T00:00:00(\.0+)?(Z|[-+]00:00)?", end) and _next_day(closing[0]) == end[:10]:
        end = closing[0]  # midnight ends the day before
    return start, end[:10]


def _next_day(text: str) -> str:
    try:
        return (date.fromisoformat(text) + timedelta(days=1)).isoformat()
    except ValueError:
        return text


def _booked(pages: Sequence[Element], currencies: set[str], start: str, end: str) -> _Entries:
    made = _Entries()
    for entry in (e for page in pages for e in _all(page, "Ntry")):
        status = _text(entry, "Sts", "Cd") or _text(entry, "Sts")
        pending = status not in {"", "BOOK"}
        # What is not booked may be in any currency, and does not matter.
        amount = _signed(entry, set() if pending else currencies)
        credit = _text(entry, "CdtDbtInd") == "CRDT"
        made.every.append((credit, abs(amount)))
        if pending:
            continue
        made.booked.append((credit, abs(amount)))
        # The direction is the one in which the account was booked, also where the entry reverses another.
        made.reversed |= _text(entry, "RvslInd") in {"true", "1"}
        if credit:
            made.credits += amount
        else:
            made.debits -= amount
        day = (_text(entry, "BookgDt", "Dt") or _text(entry, "BookgDt", "DtTm"))[:10]
        made.outside |= bool(day) and not (start or day) <= day <= end
    return made


def _check_summary(statement: Element, entries: _Entries) -> None:
    """Compare the entries with what the statement says of all of them; banks count pending ones, or do not."""
    names: tuple[tuple[str, bool | None], ...] = (("TtlCdtNtries", True), ("TtlDbtNtries", False), ("TtlNtries", None))
    for name, credit in names:
        for summary in _all(statement, "TxsSummry", name):
            have = [entries.sums(some, credit) for some in (entries.booked, entries.every)]
            number, total = _text(summary, "NbOfNtries"), _text(summary, "Sum")
            if number and number.isascii() and number.isdigit() and all(int(number) != count for count, _ in have):
                raise FileRejected("trailer_count_mismatch")
            if re.fullmatch(r"\d{1,18}(\.\d{1,8})?", total, re.ASCII) and all(Decimal(total) != s for _, s in have):
                raise FileRejected("trailer_sum_mismatch")
