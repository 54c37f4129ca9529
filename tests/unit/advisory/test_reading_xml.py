"""XML: records in elements, bank statements, and what no parser should be made to do."""

from __future__ import annotations

import time
from datetime import date
from decimal import Decimal
from xml.sax.saxutils import escape

import pytest
import yaml
from fixtures.spreadsheets import ods, parts_of, xlsb, xml_sheet, zipped
from fixtures.vendor_files import check, quarantined, read, truth

from finance_assets.advisory.reading import markup
from finance_assets.advisory.reading.containers import FileRejected
from finance_assets.advisory.reading.proposing import propose_contract
from finance_assets.advisory.reading.vendor_contract import Detection, VendorContract, contract_from_sheet

HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


def fields(t) -> dict[str, object]:
    return {
        "AccountId": t.account, "PeriodEnd": t.end, "Currency": "USD", "BeginningMarketValue": t.bmv, "NetFlow": t.net,
        "Fees": t.fees, "EndingMarketValue": t.emv, "NetReturn": t.ret,
    }  # fmt: skip


def flat(rows=None, extra: str = "") -> str:
    body = "\n".join(
        "<Row>" + "".join(f"<{k}>{escape(str(v))}</{k}>" for k, v in fields(t).items()) + extra + "</Row>"
        for t in rows or truth()
    )
    return f"{HEAD}<Performance>\n{body}\n</Performance>\n"


# --- records ---------------------------------------------------------------------------------------------------------


def test_child_elements():
    reading = read(flat(), "performance.csv")
    check(reading)
    assert reading.action == "accept"
    assert sorted(reading.rows["line"].to_pylist()) == list(range(3, 15))


def test_attributes():
    rows = "\n".join("<r " + " ".join(f'{k}="{v}"' for k, v in fields(t).items()) + "/>" for t in truth())
    check(read(f'<rows xmlns="urn:acme">{rows}</rows>'))


def nested(wrap: str = "Account", periods: str = "Period") -> str:
    out = [HEAD + '<Report xmlns:a="urn:acme"><Title>Performance</Title><Accounts>']
    for account in dict.fromkeys(t.account for t in truth()):
        out.append(f'<a:{wrap} id="{account}"><Ccy>USD</Ccy><Periods>')
        for t in truth():
            if t.account == account:
                out.append(
                    f"<{periods}><EndDate>{t.end}</EndDate><BeginningValue>{t.bmv}</BeginningValue><NetFlow>{t.net}</NetFlow>"
                    f"<EndingValue>{t.emv}</EndingValue><Return>{t.ret * 100}</Return></{periods}>"
                )
        out.append(f"</Periods></a:{wrap}>")
    return "\n".join([*out, "</Accounts></Report>"])


def test_periods_below_accounts():
    check(read(nested()))


def test_accounts_with_one_period_each_and_one_account_with_one():
    rows = [t for t in truth() if t.end.month == 2]
    check(read(flat(rows)), rows)
    check(read(flat(rows[:1])), rows[:1])
    mixed = [t for t in truth() if t.account == "12E45678" or t.end.month == 1]
    text = HEAD + "<R><As>"
    for account in ("0012345678", "12E45678"):
        text += f"<A><AccountNo>{account}</AccountNo><Ps>"
        for t in mixed:
            if t.account == account:
                text += f'<P end_date="{t.end}" bmv="{t.bmv}" net_flow="{t.net}" emv="{t.emv}" twr="{t.ret}"/>'
        text += "</Ps></A>"
    check(read(text + "</As></R>"), mixed)


def test_values_with_names_and_amounts_with_currencies():
    named = "".join(
        "<rec>" + "".join(f'<field name="{k}">{v}</field>' for k, v in fields(t).items()) + "</rec>" for t in truth()
    )
    check(read(f"<data>{named}</data>"))
    amounts = "".join(
        f'<Row><AccountId>{t.account}</AccountId><PeriodEnd>{t.end}</PeriodEnd><BeginningValue Ccy="CHF">{t.bmv}</BeginningValue>'
        f'<NetFlow Ccy="CHF">{t.net}</NetFlow><EndingValue Ccy="CHF">{t.emv}</EndingValue><NetReturn>{t.ret}</NetReturn></Row>'
        for t in truth()
    )
    reading = read(f"<data>{amounts}</data>")
    check(reading)
    assert set(reading.rows["currency"].to_pylist()) == {"CHF"}


def test_exact_decimals_entities_and_sections():
    text = (
        flat()
        .replace("<Fees>0.00</Fees>", "<Fees><![CDATA[0.00]]></Fees>", 1)
        .replace("1234567.89", "99999999999999.01", 1)
    )
    row = next(r for r in read(text).rows.to_pylist() if r["line"] == 3)
    assert row["beginning_market_value"] == Decimal("99999999999999.01")
    check(read(flat().replace("0012345678", "&#48;012345678")))


def test_nothing_stated_is_null():
    text = (
        flat()
        .replace("<Fees>0.00</Fees>", "<Fees/>")
        .replace(
            "<PeriodEnd>2024-01-31</PeriodEnd>",
            '<PeriodEnd xmlns:x="http://www.w3.org/2001/XMLSchema-instance" x:nil="true"/>',
        )
    )
    reading = read(text)
    assert [reason for _, reason in quarantined(reading)] == ["missing_required"] * 2


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "iso-8859-1", "windows-1252"])
def test_encodings(encoding):
    declared = encoding.removesuffix("-sig").removesuffix("-le")
    text = flat().replace("UTF-8", declared).replace("<Row>", "<Row><Name>Zürich</Name>")
    check(read(text.encode(encoding)))
    if encoding.startswith("utf"):
        check(read(text.removeprefix(text[: text.index("<Perf")]).encode(encoding)))


def test_encodings_that_are_declared_wrongly():
    text = flat().replace("<Row>", "<Row><Name>Zürich</Name>")
    check(read(text.replace("UTF-8", "utf-16").encode()))
    check(read(text.encode("cp1252")))
    check(read(text.replace(' encoding="UTF-8"', "").encode("utf-16")))
    assert read(text.encode("cp1252").replace(b"Z\xfcrich", b"\x81\x8d\x8f\x90" * 9)).file_reason == "undecodable"


def test_comments_and_lines_before_the_document():
    check(read("\n\n" + flat()))
    reading = read("<!-- made by Acme -->\n" + flat().removeprefix(HEAD))
    check(reading)
    assert min(reading.rows["line"].to_pylist()) == 3


def test_personal_data_is_dropped():
    secrets = ("900-12-3456", "1961-04-09", "jane@example.com", "+1 212 555 0100")
    text = flat(extra="<TaxId>{}</TaxId><BirthDate>{}</BirthDate><Email>{}</Email><Misc>{}</Misc>".format(*secrets))
    text = text.replace("<AccountId>0012345678</AccountId>", "<AccountId>jane@example.com</AccountId>", 1)
    text = text.replace(f"<EndingMarketValue>{truth()[3].emv}<", "<EndingMarketValue>jane@example.com<")
    reading = read(text)
    assert "pii_columns_dropped" in reading.warnings
    assert reading.quarantined.num_rows == 2
    blob = str(reading) + str(reading.rows.to_pylist()) + str(reading.quarantined.to_pylist())
    assert not [s for s in secrets if s in blob]


def test_a_contract_leads_to_the_rows_and_names_them():
    rows = "".join(
        f"<k><a>{t.account}</a><d>{t.end}</d><b>{t.bmv}</b><f>{t.net}</f><e>{t.emv}</e><r>{t.ret * 10000}</r></k>"
        for t in truth()
    )
    noise = "<head><k><a>1</a><d>x</d></k><k><a>2</a><d>x</d></k></head>"
    contract = VendorContract(
        vendor="acme", layout="xml", xml_rows="out.body.k", return_unit="bps", currency_default="EUR",
        columns={"a": "account_id", "d": "period_end", "b": "beginning_market_value", "f": "net_flow", "e": "ending_market_value", "r": "return_net"},
    )  # fmt: skip
    reading = read(f"<out>{noise}<body>{rows}</body></out>", "x", [contract])
    check(reading)
    assert reading.vendor == "acme"
    assert contract_from_sheet("acme", {"xml_rows": "/out/body/k"}).xml_rows == "out.body.k"
    wrong = contract.model_copy(update={"xml_rows": "out.bodies.k"})
    assert read(f"<out>{noise}<body>{rows}</body><bodies/></out>", "x", [wrong]).action == "quarantine_file"


@pytest.mark.parametrize(
    ("text", "reason"),
    [("<rss><channel><item><title>x</title><link>y</link></item></channel></rss>", "unknown_schema"), ("<a/>", "empty_file"),
     ("<a>text</a>", "unknown_schema"), ("<a><b></a>", "malformed_xml"), ("<a>", "truncated_file"), ("<a>&nbsp;</a>", "malformed_xml"),
     ('<?xml version="1.0" encoding="klingon"?><a/>', "undecodable"), ('<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"/>', "html_content"),
     ("<Positions>" + "<P><Account>1</Account><Symbol>IBM</Symbol><Quantity>5</Quantity><Price>1</Price></P>" * 2 + "</Positions>", "not_performance"),
     ('<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.09"><X/></Document>', "not_performance"),
     ("<Document><BkToCstmrDbtCdtNtfctn><GrpHdr><a/></GrpHdr></BkToCstmrDbtCdtNtfctn></Document>", "not_performance")],
)  # fmt: skip
def test_xml_without_rows(text, reason):
    reading = read(text, "x.xls")
    assert (reading.action, reading.file_reason, reading.rows.num_rows) == ("quarantine_file", reason, 0)


def test_a_document_that_is_cut_off():
    assert read(flat()[:900]).file_reason == "truncated_file"
    assert read(flat()[:-5]).file_reason == "truncated_file"


# --- attacks ---------------------------------------------------------------------------------------------------------

LAUGHS = (
    "<!DOCTYPE l [<!ENTITY a 'ha'>"
    + "".join(f"<!ENTITY {chr(98 + n)} '{f'&{chr(97 + n)};' * 10}'>" for n in range(9))
    + "]>"
)


@pytest.mark.parametrize(
    "doctype",
    [LAUGHS, '<!DOCTYPE l SYSTEM "http://127.0.0.1:9/x.dtd">', '<!DOCTYPE l [<!ENTITY j SYSTEM "file:///etc/passwd">]>',
     '<!DOCTYPE l [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p;]>', "<!DOCTYPE l>"],
)  # fmt: skip
def test_document_types_are_refused(doctype):
    start = time.monotonic()
    for text in (f"{HEAD}{doctype}<l>&j;</l>", f"{doctype}<l>&j;</l>", f"<!-- x -->{doctype}<l/>"):
        assert read(text).file_reason == "xml_doctype"
    assert time.monotonic() - start < 2


def test_a_doctype_within_workbooks():
    sheet = xml_sheet({"S": [["a"]]}).decode().replace("<Workbook", LAUGHS + "<Workbook", 1)
    assert read(sheet).file_reason == "xml_doctype"
    for data, part in ((ods({"S": [["a"]]}), "content.xml"), (xlsb({"S": [["a"]]}), "xl/_rels/workbook.bin.rels")):
        parts = parts_of(data)
        parts[part] = parts[part].replace(b"?>", b"?>" + LAUGHS.encode(), 1)
        assert read(zipped(parts)).file_reason == "xml_doctype"


def test_deep_wide_and_huge_documents_end():
    start = time.monotonic()
    assert read("<a>" * 200_000).file_reason == "xml_too_deep"
    assert read("<a>" * 99 + "</a>" * 99).action == "quarantine_file"
    assert read('<a b="' + "x" * (20 << 20) + '"/>').action == "quarantine_file"
    assert read("<a " + " ".join(f'a{n}="{n}"' for n in range(100_000)) + "/>").file_reason in {
        "too_many_columns",
        "unknown_schema",
    }
    assert (
        read("<a>" + "".join(f"<r><c{n}>1</c{n}></r>" for n in range(20_000)) + "</a>").file_reason
        == "too_many_columns"
    )
    assert read("<a>" + "x" * (20 << 20) + "</a>").action == "quarantine_file"
    assert time.monotonic() - start < 15


def test_too_many_elements(monkeypatch):
    monkeypatch.setattr(markup, "MAX_ELEMENTS", 100)
    with pytest.raises(FileRejected, match="xml_too_large"):
        markup.elements(b"<a>" + b"<b/>" * 200 + b"</a>")


# --- camt.053 --------------------------------------------------------------------------------------------------------


def balance(code: str, amount: str, day: str, sign: str = "CRDT", ccy: str = "EUR", more: str = "") -> str:
    return f'<Bal><Tp><CdOrPrtry><Cd>{code}</Cd></CdOrPrtry></Tp>{more}<Amt Ccy="{ccy}">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd><Dt><Dt>{day}</Dt></Dt></Bal>'


def entry(
    amount: str,
    sign: str = "CRDT",
    status: str = "BOOK",
    day: str = "2024-01-15",
    ccy: str = "EUR",
    more: str = "",
    new: bool = False,
) -> str:
    said = f"<Sts><Cd>{status}</Cd></Sts>" if new else f"<Sts>{status}</Sts>"
    return (
        f'<Ntry><Amt Ccy="{ccy}">{amount}</Amt><CdtDbtInd>{sign}</CdtDbtInd>{more}{said}<BookgDt><Dt>{day}</Dt></BookgDt>'
        f'<NtryDtls><TxDtls><Amt Ccy="{ccy}">1.00</Amt><RltdPties><Dbtr><Nm>Jane Secret</Nm></Dbtr></RltdPties></TxDtls></NtryDtls></Ntry>'
    )


SPAN = "<FrToDt><FrDtTm>2024-01-01T00:00:00+01:00</FrDtTm><ToDtTm>2024-01-31T23:59:59+01:00</ToDtTm></FrToDt>"
IBAN = "<IBAN>DE89370400440532013000</IBAN>"


def statement(*parts: str, account: str = IBAN, span: str = SPAN, ccy: str = "<Ccy>EUR</Ccy>", more: str = "") -> str:
    owner = "<Ownr><Nm>Jane Secret</Nm><CtctDtls><EmailAdr>jane@example.com</EmailAdr></CtctDtls></Ownr>"
    return f"<Stmt><Id>S1</Id>{more}{span}<Acct><Id>{account}</Id>{ccy}{owner}</Acct>{''.join(parts)}</Stmt>"


def camt(*statements: str, version: str = "02") -> str:
    return (
        f'{HEAD}<Document xmlns="urn:iso:std:iso:20022:tech:xsd:camt.053.001.{version}"><BkToCstmrStmt><GrpHdr><MsgId>M</MsgId></GrpHdr>\n'
        + "\n".join(statements)
        + "</BkToCstmrStmt></Document>"
    )


MONTH = (balance("OPBD", "1000.10", "2024-01-01"), balance("CLBD", "1100.15", "2024-01-31"))
ENTRIES = (entry("150.05"), entry("25.00"), entry("75.00", "DBIT"))


def row(text: str) -> dict[str, object]:
    reading = read(text, "lies.csv")
    assert reading.rows.num_rows == 1, (reading.file_reason, reading.quarantined.to_pylist())
    return reading.rows.to_pylist()[0]


@pytest.mark.parametrize("version", ["02", "08"])
def test_a_statement(version):
    entries = [entry("150.05", new=version == "08"), entry("25.00"), entry("75.00", "DBIT")]
    reading = read(camt(statement(*MONTH, *entries), version=version), "lies.csv")
    assert (reading.warnings, reading.granularity) == (["large_cash_flow"], "monthly")
    (got,) = reading.rows.to_pylist()
    wanted = {
        "account_id": "DE89370400440532013000", "period_start": date(2024, 1, 1), "period_end": date(2024, 1, 31), "currency": "EUR",
        "beginning_market_value": Decimal("1000.10"), "contributions": Decimal("175.05"), "distributions": Decimal("75.00"),
        "net_flow": Decimal("100.05"), "ending_market_value": Decimal("1100.15"), "return_net": None, "line": 3,
    }  # fmt: skip
    assert {k: got[k] for k in wanted} == wanted
    assert "Secret" not in str(reading) + str(reading.rows.to_pylist())


def test_debit_balances_pending_entries_and_another_id():
    got = row(
        camt(
            statement(
                balance("PRCD", "50.00", "2023-12-31", "DBIT"), balance("CLBD", "250.00", "2024-01-31", "DBIT"), balance("ITBD", "9.00", "2024-01-10"),
                entry("200.00", "DBIT"), entry("999.00", status="PDNG"), entry("5.00", "DBIT", status="INFO", ccy="USD"),
                account="<Othr><Id>0012345678</Id></Othr>", span="", ccy="",
            )
        )
    )  # fmt: skip
    assert (got["account_id"], got["period_start"], got["period_end"]) == (
        "0012345678",
        date(2024, 1, 1),
        date(2024, 1, 31),
    )
    assert (got["beginning_market_value"], got["ending_market_value"]) == (-50, -250)
    assert (got["contributions"], got["distributions"], got["currency"]) == (0, 200, "EUR")
    assert "negative_market_value" in got["flags"]
    assert "foot" not in got["flags"]


def test_entries_that_do_not_add_up_are_flagged_with_the_amount():
    got = row(camt(statement(*MONTH, *ENTRIES[:2])))
    assert "components_do_not_foot:-75" in got["flags"].split(";")
    assert got["contributions"] == Decimal("175.05")


def test_a_reversal_counts_as_it_is_booked():
    """The indicator says that another entry was undone; the direction is that of this one."""
    reversal = entry("75.00", "CRDT", more="<RvslInd>true</RvslInd>")
    reading = read(
        camt(
            statement(
                balance("OPBD", "1000.10", "2024-01-01"), balance("CLBD", "1175.15", "2024-01-31"), *ENTRIES, reversal
            )
        )
    )
    (got,) = reading.rows.to_pylist()
    assert (got["contributions"], got["distributions"], got["net_flow"]) == (Decimal("250.05"), 75, Decimal("175.05"))
    assert "foot" not in got["flags"]
    assert reading.warnings == ["large_cash_flow", "reversals_as_booked"]


def test_signs_are_not_proved_where_they_are_stated():
    got = row(
        camt(
            statement(
                balance("OPBD", "1000.00", "2024-01-01"), balance("CLBD", "900.00", "2024-01-31"), entry("100.00")
            )
        )
    )
    assert (got["contributions"], got["net_flow"]) == (100, 100)
    assert "components_do_not_foot:-200" in got["flags"].split(";")


def test_several_statements():
    other = "<IBAN>CH9300762011623852957</IBAN>"
    days = [
        statement(balance("OPBD", f"{n}.00", f"2024-01-0{n}"), balance("CLBD", f"{n + 1}.00", f"2024-01-0{n}"), entry("1.00", day=f"2024-01-0{n}"),
                  span=f"<FrToDt><FrDtTm>2024-01-0{n}T00:00:00</FrDtTm><ToDtTm>2024-01-0{n + 1}T00:00:00</ToDtTm></FrToDt>", account=other)
        for n in range(2, 6)
    ]  # fmt: skip
    reading = read(camt(*days))
    assert reading.granularity == "daily"
    assert [r["period_end"].day for r in reading.rows.to_pylist()] == [2, 3, 4, 5]
    assert not [r for r in reading.rows.to_pylist() if "break" in r["flags"]]


def test_statements_that_cannot_be_used():
    broken = {
        "missing_required": statement(MONTH[0], *ENTRIES),
        "bad_number": statement(MONTH[0], balance("CLBD", "1.100,15", "2024-01-31")),
        "unknown_flow_indicator": statement(*MONTH, entry("5.00", "PLUS")),
        "ambiguous_currency": statement(*MONTH, entry("5.00", ccy="USD")),
        "duplicate_conflict": statement(*MONTH, balance("CLBD", "1.00", "2024-01-31")),
        "ambiguous_balance": statement(MONTH[0], balance("CLBD", "1.00", "2024-01-31", more="<CdtLine><Incl>true</Incl><Amt Ccy='EUR'>500.00</Amt></CdtLine>")),
        "incomplete_statement": statement(*MONTH, more="<StmtPgntn><PgNb>1</PgNb><LastPgInd>false</LastPgInd></StmtPgntn>"),
    }  # fmt: skip
    good = statement(*MONTH, *ENTRIES, account="<IBAN>CH9300762011623852957</IBAN>")
    reading = read(camt(*broken.values(), statement(*MONTH, account=""), good))
    assert reading.rows.num_rows == 1
    assert [q["reason"] for q in reading.quarantined.to_pylist()] == [*broken, "missing_required"]
    assert [q["line"] for q in reading.quarantined.to_pylist()] == list(range(3, 11))
    assert {q["account_id"] for q in reading.quarantined.to_pylist()} == {"DE89370400440532013000", ""}
    assert read(camt(broken["missing_required"])).file_reason == "no_good_rows"
    assert read(camt()).file_reason == "empty_file"


def test_pages_of_one_statement():
    def page(number: int, last: bool) -> str:
        return f"<ElctrncSeqNb>7</ElctrncSeqNb><StmtPgntn><PgNb>{number}</PgNb><LastPgInd>{str(last).lower()}</LastPgInd></StmtPgntn>"

    interim = balance("CLBD", "1150.15", "2024-01-31").replace(
        "</CdOrPrtry>", "</CdOrPrtry><SubTp><Cd>INTM</Cd></SubTp>"
    )
    got = row(camt(
        statement(MONTH[0], interim, balance("ITBD", "1150.15", "2024-01-20"), ENTRIES[0], more=page(1, False)),
        statement(balance("ITBD", "1150.15", "2024-01-20"), MONTH[1], *ENTRIES[1:], more=page(2, True)),
    ))  # fmt: skip
    assert (got["contributions"], got["distributions"]) == (Decimal("175.05"), 75)
    assert "foot" not in got["flags"]


@pytest.mark.parametrize(
    ("summary", "reason"),
    [("<TtlCdtNtries><NbOfNtries>2</NbOfNtries><Sum>175.05</Sum></TtlCdtNtries>", None), ("<TtlNtries><NbOfNtries>4</NbOfNtries></TtlNtries>", None),
     ("<TtlNtries><NbOfNtries>5</NbOfNtries></TtlNtries>", "trailer_count_mismatch"), ("<TtlDbtNtries><Sum>75.01</Sum></TtlDbtNtries>", "trailer_sum_mismatch")],
)  # fmt: skip
def test_control_totals(summary, reason):
    text = camt(statement(*MONTH, f"<TxsSummry>{summary}</TxsSummry>", *ENTRIES, entry("9.00", status="PDNG")))
    assert read(text).file_reason == reason


def test_entries_of_another_period():
    assert (
        "entries_outside_period"
        in read(camt(statement(*MONTH, *ENTRIES[:2], entry("75.00", "DBIT", day="2024-02-02")))).warnings
    )


def test_within_an_envelope():
    inner = camt(statement(*MONTH, *ENTRIES)).removeprefix(HEAD)
    assert row(f'<Envelope xmlns="urn:bank"><AppHdr><To>x</To></AppHdr>{inner}</Envelope>')["net_flow"] == Decimal(
        "100.05"
    )


def test_a_bank_is_named_by_its_bic():
    servicer = "<Svcr><FinInstnId><BIC>COBADEFFXXX</BIC></FinInstnId></Svcr>"
    text = camt(statement(*MONTH, *ENTRIES, ccy=f"<Ccy>EUR</Ccy>{servicer}"))
    draft = VendorContract.model_validate(yaml.safe_load(propose_contract(text.encode(), "commerz.xml")))
    assert draft.detect.contains == ("COBADEFFXXX",)
    reading = read(text, "x", [draft.model_copy(update={"detect": Detection(contains=("COBADEFF",))})])
    assert (reading.vendor, reading.rows.num_rows) == ("commerz", 1)
    assert read(camt(statement(*MONTH, *ENTRIES)), "x", [draft]).vendor.startswith("detected:")
