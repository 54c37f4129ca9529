"""Realistic, entirely fictitious vendor files: for demonstrations, tests and the benchmark of the advisory branch.

Belongs here: a seeded ground truth of accounts, its rendering in the layouts that vendors send, planted problems, and
one large file. Does not belong here: reading files, contracts as files, storage, Dagster.

Every amount is a whole number of cents from a seeded generator, so the same arguments give the same bytes. All
files are views of one truth: an account may be stated by two vendors, and then they agree but for what is planted.
"""

from __future__ import annotations

import calendar
import csv
import importlib
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np

from finance_assets.advisory.twrr import row_return

__all__ = [
    "CONTRACTS",
    "LARGE_COLUMNS",
    "VENDORS",
    "GeneratedFile",
    "TruthRow",
    "ground_truth",
    "vendor_files",
    "write_large_csv",
]

VENDORS: Final = ("northgate", "harbour", "meridian", "rheintal", "lumen", "cascade", "summit")
"""Fictitious vendors, one layout each: comma with header, pipe with header and trailer records, fixed width with
implied decimals, semicolon with decimal comma and percent signs, JSON lines, a column per month, spreadsheet."""

LARGE_COLUMNS: Final = (
    "account_id", "period_start", "period_end", "currency", "beginning_market_value", "contributions", "distributions",
    "net_flow", "income", "appreciation", "fees", "other_adjustments", "ending_market_value", "return", "return_gross",
)  # fmt: skip
"""Columns of `write_large_csv`."""

_FIXED: Final = (
    ("record_type", 3), ("account_id", 12), ("period_end:%Y%m%d", 8), ("currency", 3),
    ("beginning_market_value:s9(15)v99", 16), ("contributions:s9(15)v99", 16), ("distributions:s9(15)v99", 16),
    ("fees:s9(15)v99", 16), ("ending_market_value:s9(15)v99", 16), ("return:s9(11)v8", 12),
)  # fmt: skip


def _fixed_fields() -> dict[str, list[int]]:
    fields, start = {}, 0
    for name, width in _FIXED:
        if name != "record_type":
            fields[name] = [start, start + width]
        start += width
    return fields


CONTRACTS: Final[dict[str, dict[str, Any]]] = {
    "harbour": {
        "delimiter": "|", "record_type_column": 0, "header": "HDR", "detail": "DTL", "trailer": "TRL",
        "trailer_required": True, "trailer_fields": ["record_type", "count", "sum_ending_market_value"],
        "detail_fields": [
            "record_type", "account_id", "period_end:%Y%m%d", "currency", "beginning_market_value", "contributions",
            "distributions", "fees", "ending_market_value", "return:percent",
        ],
        "negative_style": "trailing_minus",
    },
    "meridian": {
        "fixed_width": True, "record_length": sum(width for _, width in _FIXED), "header_prefix": "BOF",
        "trailer_prefix": "EOF", "trailer_count_after": "TOTAL DETAIL RECORDS:", "detail_prefix": "PRF",
        "fields": _fixed_fields(),
    },
}  # fmt: skip
"""What the onboarding sheets of the two vendors say whose layout the content of a file cannot prove."""


@dataclass(frozen=True)
class GeneratedFile:
    """One file as it lands."""

    name: str
    data: bytes
    received_at: datetime
    """UTC."""
    notes: str
    """What is planted in it; empty for a faultless file."""


class TruthRow(NamedTuple):
    """One account and month of the ground truth; money in cents."""

    account_id: str
    period_start: date
    period_end: date
    currency: str
    beginning: int
    contributions: int
    distributions: int
    fees: int
    ending: int
    value: Decimal | None
    """Net return to 10 places, flows in the middle of the month; None without capital."""


def ground_truth(seed: int, accounts: int, months: int, last_month: date) -> list[TruthRow]:
    """Generate the truth that all files are views of.

    Parameters
    ----------
    seed
        Any non-negative number.
    accounts, months
        How many of each, at least one.
    last_month
        Any day of the last month.

    Returns
    -------
    list of TruthRow
        By account, then month. Values roll forward: ``ending = beginning + contributions - distributions + result
    XX

    Raises
    ------
    ValueError
        If there are no accounts or no months.
    """
    if accounts < 1 or months < 1:
        raise ValueError("at least one account and one month are needed")
    random = np.random.default_rng(seed)
    ends = _month_ends(months, last_month)
    market = random.normal(0.006, 0.025, months)
    rows: list[TruthRow] = []
    for number in range(accounts):
        account = _account_id(number, random)
        currency = ("USD", "USD", "USD", "EUR", "GBP", "CHF")[number % 6]
        first = int(random.integers(1, months)) if number % 8 == 5 and months > 2 else 0
        closes = int(random.integers(first + 1, months)) if number % 10 == 7 and months > first + 2 else None
        large = int(random.integers(first + 1, months)) if number % 6 == 2 and months > first + 1 else None
        value = 0 if first else int(random.integers(5_000_000, 400_000_000))
        for month in range(first, months):
            end = ends[month]
            start = end.replace(day=1)
            beginning, money_in, money_out = value, 0, 0
            if first and month == first:
                money_in, start = int(random.integers(10_000_000, 90_000_000)), end.replace(day=15)
            elif month == large:
                money_in = beginning // 4
            else:
                if random.random() < 0.3:
                    money_in = int(random.integers(10_000, 2_500_000))
                if random.random() < 0.2:
                    money_out = min(int(random.integers(10_000, 1_500_000)), beginning // 20)
            fees = beginning // 400 if end.month % 3 == 1 else 0
            change = float(market[month] + random.normal(0, 0.01))
            result = round((beginning + (money_in - money_out) / 2) * max(change, -0.5))
            value = beginning + money_in - money_out + result - fees
            if month == closes:
                money_out, value = money_out + value, 0
            opening, paid_in, paid_out, closing = map(_decimal, (beginning, money_in, money_out, value))
            computed = row_return(opening, paid_in, paid_out, closing, "mid").value
            rounded = None if computed is None else computed.quantize(Decimal("1e-10"))
            rows.append(TruthRow(account, start, end, currency, beginning, money_in, money_out, fees, value, rounded))
            if month == closes:
                break
    return rows


def vendor_files(seed: int, accounts: int, months: int, last_month: date) -> Iterator[GeneratedFile]:
    """Generate the files of all vendors, in order of receipt.

    Planted, where there are enough months and accounts: a monthly file of ``northgate`` that is corrected three
    weeks later; an ending value of ``northgate`` that is wrong by 125.00; a month that ``harbour`` never sends, and a
    file of it that is cut off, without its trailer; an account that drops off the files of ``meridian``; an amount of
    ``rheintal`` that cannot be read; a line of ``lumen`` that stands twice. Large flows, inceptions and withdrawals
    are in the truth.

    Parameters
    ----------
    seed, accounts, months, last_month
        As for `ground_truth`.

    Yields
    ------
    GeneratedFile
        Names begin with the vendor. The spreadsheet is left out where openpyxl is not installed.

    Raises
    ------
    ValueError
        If there are no accounts or no months.
    """
    truth = ground_truth(seed, accounts, months, last_month)
    ends = _month_ends(months, last_month)
    names = list(dict.fromkeys(row.account_id for row in truth))
    # Each account is with one vendor, and every third with a second one as well.
    of_vendor: dict[str, set[str]] = {vendor: set() for vendor in VENDORS}
    for number, name in enumerate(names):
        of_vendor[VENDORS[number % len(VENDORS)]].add(name)
        if number % 3 == 0:
            of_vendor[VENDORS[(number + 3) % len(VENDORS)]].add(name)
    files: list[GeneratedFile] = []
    for month, end in enumerate(ends):
        for vendor, render, suffix in _MONTHLY:
            rows = [row for row in truth if row.period_end == end and row.account_id in of_vendor[vendor]]
            received = datetime(end.year, end.month, end.day, 6, tzinfo=UTC) + timedelta(days=3)
            name, notes = f"{vendor}_performance_{end:%Y%m}.{suffix}", ""
            if vendor == "northgate" and month == months - 2 and rows:
                wrong = [_with_ending(rows[0], 12_500), *rows[1:]]
                files.append(GeneratedFile(name, render(wrong, end), received, "superseded: one ending value is wrong"))
                name, notes = f"{vendor}_performance_{end:%Y%m}_corrected.{suffix}", "corrects the file before"
                received += timedelta(days=21)
            elif vendor == "northgate" and month == months // 2 and rows:
                rows = [*rows[:-1], _with_ending(rows[-1], 12_500)]
                notes = f"ending value of {rows[-1].account_id} is wrong by 125.00"
            elif vendor == "harbour" and month == months // 3 and months > 3:
                continue
            elif vendor == "meridian" and months > 3 and month >= months - 2 and rows:
                dropped = max(of_vendor[vendor])
                rows, notes = [row for row in rows if row.account_id != dropped], f"account {dropped} dropped off"
            data = render(rows, end)
            if vendor == "harbour" and month == months - 1 and rows:
                data, notes = data[: len(data) * 2 // 3], "cut off: no trailer"
            elif vendor == "rheintal" and month == months - 1 and rows:
                data, notes = _spoil(data), "an amount in line 2 cannot be read"
            elif vendor == "lumen" and month == months // 2 and rows:
                lines = data.splitlines(keepends=True)
                data, notes = b"".join([*lines, lines[0]]), "the first line stands twice"
            files.append(GeneratedFile(name, data, received, notes))
    received = datetime(ends[-1].year, ends[-1].month, ends[-1].day, 9, tzinfo=UTC) + timedelta(days=4)
    wide = [row for row in truth if row.account_id in of_vendor["cascade"]]
    if wide:
        files.append(GeneratedFile(f"cascade_history_{ends[-1]:%Y%m}.csv", _wide(wide, ends), received, ""))
    sheet = [row for row in truth if row.account_id in of_vendor["summit"]]
    book = _spreadsheet(sheet, ends[-1]) if sheet else None
    if book is not None:
        files.append(GeneratedFile(f"summit_performance_{ends[-1]:%Y%m}.xlsx", book, received, ""))
    yield from sorted(files, key=lambda file: (file.received_at, file.name))


def write_large_csv(
    path: str | Path, accounts: int, months: int, delimiter: str = ",", *, last_month: date = date(2024, 6, 30)
) -> int:
    """Write one large file, month by month a row per account, for benchmarks: ``accounts * months`` rows.

    The values are exact and roll forward, returns have ten places and flows in the middle of the month; they come
    from a hash, not from a random generator, so that every engine version writes the same file.

    Parameters
    ----------
    path
        File to write; ``.parquet`` writes Parquet with text columns instead.
    accounts, months
        How many of each.
    delimiter
        Of the text file.
    last_month
        Any day of the last month.

    Returns
    -------
    int
        Number of rows.
    """
    from finance_assets.advisory.sql import connect
    from finance_assets.sql import literal

    first = _month_ends(months, last_month)[0].replace(day=1)
    parquet = str(path).endswith(".parquet")
    options = "FORMAT parquet" if parquet else f"FORMAT csv, HEADER, DELIMITER '{delimiter}'"
    columns = ", ".join(f'"{name}"::VARCHAR AS "{name}"' if parquet else f'"{name}"' for name in LARGE_COLUMNS)
    money = ", ".join(
        f"({cents} / 100)::DECIMAL(18, 2) AS {name}"
        for name, cents in (
            ("beginning_market_value", "bmv"),
            ("contributions", "money_in"),
            ("distributions", "money_out"),
            ("net_flow", "(money_in - money_out)"),
            ("income", "income"),
            ("appreciation", "(emv - bmv - money_in + money_out - income + fee)"),
            ("fees", "fee"),
            ("other_adjustments", "0"),
            ("ending_market_value", "emv"),
        )
    )
    capital = "(2 * bmv + money_in - money_out)"
    gain = "(emv - bmv - money_in + money_out)"
    with connect() as connection:
        # Values are random per account and month, and the result of the month is what lies between them. The draw is
        # a table so that all cores write.
        connection.execute(
            f"""
            CREATE TEMP TABLE drawn AS
            SELECT a, m, (base + (base // 1000) * m + h % (base // 50))::BIGINT AS bmv,
            (base + (base // 1000) * (m + 1) + hash(a * 100003 + m + 1) % (base // 50))::BIGINT AS emv,
            (CASE WHEN (h // 7) % 4 = 0 THEN (h // 28) % 2000000 ELSE 0 END)::BIGINT AS money_in,
            (CASE WHEN (h // 11) % 5 = 0 THEN (h // 55) % 1000000 ELSE 0 END)::BIGINT AS money_out,
            bmv // 1000 AS income, CASE WHEN m % 3 = 0 THEN bmv // 400 ELSE 0 END AS fee
            FROM (
                SELECT a, m, 5000000 + hash(a) % 400000000 AS base, hash(a * 100003 + m) AS h
                FROM range({int(accounts)}) AS r(a), range({int(months)}) AS q(m)
            )
            """
        )
        connection.execute(
            f"""
            COPY (
                SELECT {columns} FROM (
                    SELECT lpad((a + 10000000)::VARCHAR, 10, '0') AS account_id,
                    (DATE '{first}' + to_months(m::INTEGER))::DATE AS period_start,
                    last_day(period_start) AS period_end, 'USD' AS currency, {money},
                    (2 * {gain} / {capital})::DECIMAL(18, 10) AS "return",
                    (2 * ({gain} + fee) / {capital})::DECIMAL(18, 10) AS return_gross
                    FROM drawn ORDER BY m, a
                )
            ) TO {literal(str(path))} ({options})
            """
        )
    return accounts * months


def _comma(rows: Sequence[TruthRow], end: date) -> bytes:
    """ISO dates, thousands separators in quotes, returns as decimal fractions."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((
        "account_id", "period_start", "period_end", "currency", "beginning_market_value", "contributions",
        "distributions", "fees", "ending_market_value", "return", "northgate_batch",
    ))  # fmt: skip
    for row in rows:
        amounts = (row.beginning, row.contributions, row.distributions, row.fees, row.ending)
        writer.writerow((
            row.account_id, row.period_start, row.period_end, row.currency,
            *(f"{_decimal(amount):,.2f}" for amount in amounts), "" if row.value is None else f"{row.value:.10f}",
            f"NG{end:%Y%m}",
        ))  # fmt: skip
    return text.getvalue().encode()


def _pipe(rows: Sequence[TruthRow], end: date) -> bytes:
    """Header and trailer records; trailing minus; percent with eight places."""
    lines = [f"HDR|HARBOUR CUSTODY|ACCTPERF|{end:%Y%m%d}|V02"]
    for row in rows:
        amounts = (row.beginning, row.contributions, row.distributions, row.fees, row.ending)
        value = "" if row.value is None else _trailing(f"{row.value * 100:.8f}")
        cells = (_trailing(f"{_decimal(amount):.2f}") for amount in amounts)
        lines.append("|".join(("DTL", row.account_id, f"{row.period_end:%Y%m%d}", row.currency, *cells, value)))
    lines.append(f"TRL|{len(rows):06d}|{_decimal(sum(row.ending for row in rows)):.2f}")
    return ("\n".join(lines) + "\n").encode()


def _fixed(rows: Sequence[TruthRow], end: date) -> bytes:
    """Render fixed width, a leading sign, two implied decimals; returns are fractions with eight."""
    length = sum(width for _, width in _FIXED)
    lines = [f"BOF MERIDIAN TRUST PERFORMANCE DATA OF {end:%m/%d/%Y}".ljust(length)]
    for row in rows:
        amounts = (row.beginning, row.contributions, row.distributions, row.fees, row.ending)
        value = " " * 12 if row.value is None else f"{int((row.value * 100_000_000).to_integral_value()):+012d}"
        cells = "".join(f"{amount:+016d}" for amount in amounts)
        lines.append(f"PRF{row.account_id:<12}{row.period_end:%Y%m%d}{row.currency}{cells}{value}")
    lines.append(f"EOF TOTAL DETAIL RECORDS: {len(rows):010d}".ljust(length))
    return ("\r\n".join(lines) + "\r\n").encode()


def _semicolon(rows: Sequence[TruthRow], end: date) -> bytes:
    """German headings, decimal comma, percent signs, days first, Windows encoding."""
    lines = ["Depotnummer;Währung;Stichtag;Anfangswert;Einlagen;Entnahmen;Gebühren;Endwert;Rendite;Rheintal-Beleg"]
    for row in rows:
        amounts = (row.beginning, row.contributions, row.distributions, row.fees, row.ending)
        value = "" if row.value is None else _european(f"{row.value * 100:,.6f}") + " %"
        cells = (_european(f"{_decimal(amount):,.2f}") for amount in amounts)
        lines.append(
            ";".join((row.account_id, row.currency, f"{row.period_end:%d.%m.%Y}", *cells, value, f"RT{end:%Y%m}"))
        )
    return ("\r\n".join(lines) + "\r\n").encode("cp1252")


def _json_lines(rows: Sequence[TruthRow], end: date) -> bytes:
    """Numbers as text, nested values and flows."""
    lines = [
        json.dumps(
            {
                "account_id": row.account_id,
                "period_end": row.period_end.isoformat(),
                "currency": row.currency,
                "beginning_market_value": f"{_decimal(row.beginning):.2f}",
                "contributions": f"{_decimal(row.contributions):.2f}",
                "distributions": f"{_decimal(row.distributions):.2f}",
                "fees": f"{_decimal(row.fees):.2f}",
                "ending_market_value": f"{_decimal(row.ending):.2f}",
                "return": None if row.value is None else f"{row.value:.10f}",
                "lumen_feed": f"LM{end:%Y%m}",
            }
        )
        for row in rows
    ]
    return "".join(line + "\n" for line in lines).encode()


def _wide(rows: Sequence[TruthRow], ends: Sequence[date]) -> bytes:
    """Title rows, a row per account and measure, a column per month, net flows only."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["Cascade Analytics - performance history"])
    writer.writerow(["Returns in %, net of fees"])
    writer.writerow([])
    writer.writerow(["Account", "Currency", "Measure", *(f"{calendar.month_abbr[e.month]}-{e:%y}" for e in ends)])
    by_account: dict[str, dict[date, TruthRow]] = {}
    for row in rows:
        by_account.setdefault(row.account_id, {})[row.period_end] = row
    measures: tuple[tuple[str, Callable[[TruthRow], str]], ...] = (
        ("Beginning MV", lambda row: f"{_decimal(row.beginning):,.2f}"),
        ("Net Flows", lambda row: f"{_decimal(row.contributions - row.distributions):,.2f}"),
        ("Ending MV", lambda row: f"{_decimal(row.ending):,.2f}"),
        ("Return %", lambda row: "" if row.value is None else f"{row.value * 100:.6f}"),
    )
    for account, periods in by_account.items():
        currency = next(iter(periods.values())).currency
        for name, cell in measures:
            values = [cell(periods[end]) if end in periods else "" for end in ends]
            writer.writerow([account, currency, name, *values])
    return text.getvalue().encode()


def _spreadsheet(rows: Sequence[TruthRow], end: date) -> bytes | None:
    """Title rows, date cells, percent formats, a total line; None without openpyxl."""
    try:
        book = importlib.import_module("openpyxl").Workbook()
    except ImportError:
        return None
    book.properties.created = datetime.combine(end, time.min)
    sheet = book.active
    sheet.title = "Performance"
    sheet.append(["Summit Wealth Partners"])
    sheet.append([f"Account performance to {end:%d %B %Y}"])
    sheet.append([])
    sheet.append([
        "account_id", "period_end", "currency", "beginning_market_value", "contributions", "distributions", "fees",
        "ending_market_value", "return",
    ])  # fmt: skip
    for row in rows:
        amounts = (row.beginning, row.contributions, row.distributions, row.fees, row.ending)
        # A spreadsheet holds doubles; two decimals survive them.
        value = None if row.value is None else float(row.value)
        stated = datetime(row.period_end.year, row.period_end.month, row.period_end.day, tzinfo=UTC).replace(
            tzinfo=None
        )
        sheet.append([row.account_id, stated, row.currency, *(float(_decimal(a)) for a in amounts), value])
        sheet.cell(sheet.max_row, 9).number_format = "0.00%"
    last = [row for row in rows if row.period_end == end]
    sheet.append(["Total", None, None, None, None, None, None, float(_decimal(sum(row.ending for row in last))), None])
    stream = io.BytesIO()
    book.save(stream)
    return _without_clock(stream.getvalue())


def _without_clock(archive: bytes) -> bytes:
    """Give the same archive with fixed times of its members, so that the bytes depend on the seed only."""
    import re
    import zipfile

    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target:
        for member in sorted(source.namelist()):
            data = source.read(member)
            if member == "docProps/core.xml":  # saving stamps the time of day
                data = re.sub(rb"(<dcterms:modified[^>]*>)[^<]*", rb"\g<1>2024-01-01T00:00:00Z", data)
            target.writestr(zipfile.ZipInfo(member, (2024, 1, 1, 0, 0, 0)), data, zipfile.ZIP_DEFLATED)
    return stream.getvalue()


_MONTHLY: Final[tuple[tuple[str, Callable[[Sequence[TruthRow], date], bytes], str], ...]] = (
    ("northgate", _comma, "csv"),
    ("harbour", _pipe, "txt"),
    ("meridian", _fixed, "dat"),
    ("rheintal", _semicolon, "csv"),
    ("lumen", _json_lines, "jsonl"),
)


def _month_ends(months: int, last_month: date) -> list[date]:
    """Last days of the months up to and including the last one."""
    last = last_month.year * 12 + last_month.month - 1
    ends = []
    for number in range(last - months + 1, last + 1):
        year, month = divmod(number, 12)
        ends.append(date(year, month + 1, calendar.monthrange(year, month + 1)[1]))
    return ends


def _account_id(number: int, random: np.random.Generator) -> str:
    """Make identifiers that a typing reader spoils: leading zeros, 12E45678, 18 digits, letters."""
    digits = f"{number:04d}"
    tail = int(random.integers(1000, 10_000))
    return (f"00{digits}{tail}", f"{number + 10}E{tail}", f"{tail}-{digits}", f"AC{digits}{tail}")[number % 4]


def _decimal(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _with_ending(row: TruthRow, cents: int) -> TruthRow:
    """Give the row a wrong ending value and the return of the right one."""
    return row._replace(ending=row.ending + cents)


def _spoil(data: bytes) -> bytes:
    """Make the first amount of the second line unreadable."""
    lines = data.split(b"\r\n")
    cells = lines[1].split(b";")
    cells[3] = b"12.3x4,56"
    return b"\r\n".join([lines[0], b";".join(cells), *lines[2:]])


def _trailing(text: str) -> str:
    return f"{text[1:]}-" if text.startswith("-") else text


def _european(text: str) -> str:
    return text.translate(str.maketrans(",.", ".,"))
