"""A small truth, and the ways in which vendors write it."""

from __future__ import annotations

import io
from calendar import monthrange
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from finance_assets.advisory.reading.reader import FileReading, read_vendor_file
from finance_assets.advisory.reading.vendor_contract import VendorContract

RECEIVED = datetime(2024, 7, 3, 6, tzinfo=UTC)


@dataclass(frozen=True)
class Truth:
    account: str
    end: date
    bmv: Decimal
    contributions: Decimal
    distributions: Decimal
    fees: Decimal
    emv: Decimal
    ret: Decimal

    @property
    def net(self) -> Decimal:
        return self.contributions - self.distributions

    @property
    def gross(self) -> Decimal:
        base = self.bmv + self.net / 2
        return ((self.emv - self.bmv - self.net + self.fees) / base).quantize(Decimal("1e-8"))


def truth(
    accounts: Sequence[str] = ("0012345678", "12E45678"), months: Sequence[int] = (1, 2, 3, 4, 5, 6)
) -> list[Truth]:
    """Consistent rows: they roll forward, and returns are Modified Dietz with weight 1/2."""
    rows = []
    for n, account in enumerate(accounts):
        value = Decimal("1234567.89") / (n + 1)
        value = value.quantize(Decimal("0.01"))
        for m in months:
            contributions = Decimal("10250.50") if (m + n) % 3 == 0 else Decimal("0.00")
            distributions = Decimal("4075.25") if (m + n) % 3 == 1 else Decimal("0.00")
            fees = (value / 400).quantize(Decimal("0.01")) if m % 3 == 1 else Decimal("0.00")
            gain = (value * Decimal(((m * 7 + n * 5) % 9) * 4 - 13) / 1000).quantize(Decimal("0.01"))
            emv = value + contributions - distributions + gain
            net = contributions - distributions
            ret = (gain / (value + net / 2)).quantize(Decimal("1e-8"))
            end = date(2024, m, monthrange(2024, m)[1])
            rows.append(Truth(account, end, value, contributions, distributions, fees, emv, ret))
            value = emv
    return rows


HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,fees,ending_market_value,net_return"


def line(t: Truth, sep: str = ",", **changed: object) -> str:
    fields = {
        "account": t.account, "end": t.end.isoformat(), "currency": "USD", "bmv": t.bmv, "c": t.contributions,
        "d": t.distributions, "fees": t.fees, "emv": t.emv, "ret": t.ret,
    }  # fmt: skip
    fields.update(changed)
    return sep.join(str(v) for v in fields.values())


def csv(rows: Sequence[Truth] | None = None, header: str = HEADER, sep: str = ",") -> str:
    rows = truth() if rows is None else rows
    return "\n".join([header.replace(",", sep), *(line(t, sep) for t in rows)]) + "\n"


def read(
    data: bytes | str, name: str = "file.csv", contracts: Sequence[VendorContract] = (), **more: object
) -> FileReading:
    raw = data.encode() if isinstance(data, str) else data
    return read_vendor_file(raw, name, contracts=contracts, received_at=RECEIVED, **more)  # type: ignore[arg-type]


def check(reading: FileReading, rows: Sequence[Truth] | None = None, *, flows: bool = True, ret: int = 8) -> None:
    """The rows read are exactly the truth."""
    rows = truth() if rows is None else rows
    assert reading.action in {"accept", "accept_with_warnings"}, (reading.action, reading.file_reason, reading.warnings)
    got = {(r["account_id"], r["period_end"]): r for r in reading.rows.to_pylist()}
    assert set(got) == {(t.account, t.end) for t in rows}, reading.quarantined.to_pylist()[:3]
    assert len(got) == reading.rows.num_rows
    for t in rows:
        r = got[(t.account, t.end)]
        if r["beginning_market_value"] is not None:
            assert r["beginning_market_value"] == t.bmv
        if r["ending_market_value"] is not None or ret == 0:
            assert r["ending_market_value"] == t.emv
        if flows:
            assert r["net_flow"] == t.net
        if ret and r["return_net"] is not None:
            assert round(r["return_net"], ret) == round(t.ret, ret)


def quarantined(reading: FileReading) -> list[tuple[int, str]]:
    return [(q["line"], q["reason"]) for q in reading.quarantined.to_pylist()]


def workbook(sheets: dict[str, list[list[object]]], formats: dict[str, str] | None = None) -> bytes:
    """An xlsx file; `formats` gives number formats by column letter."""
    import openpyxl

    book = openpyxl.Workbook()
    book.remove(book.active)
    for title, rows in sheets.items():
        sheet = book.create_sheet(title)
        for row in rows:
            sheet.append(row)
        for letter, shape in (formats or {}).items():
            for cell in sheet[letter]:
                if isinstance(cell.value, (int, float)):
                    cell.number_format = shape
    out = io.BytesIO()
    book.save(out)
    return out.getvalue()
