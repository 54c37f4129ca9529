"""Contracts: what content cannot show, from our own files and from onboarding sheets."""

from __future__ import annotations

import json
from decimal import Decimal
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from fixtures.spreadsheets import WRITERS
from fixtures.vendor_files import HEADER, RECEIVED, check, csv, line, quarantined, read, truth, workbook

from finance_assets.advisory.performance import account_performance
from finance_assets.advisory.reading.inspection import inspect_files
from finance_assets.advisory.reading.proposing import propose_contract
from finance_assets.advisory.reading.vendor_contract import (
    VendorContract,
    implied,
    load_contracts,
    read_onboarding_sheet,
)
from finance_assets.advisory.results import policies

CONTRACTS = load_contracts(Path(str(files("finance_assets.advisory") / "vendors" / "examples")))


def sheet(tmp_path, content) -> list[VendorContract]:
    path = tmp_path / "contracts.json"
    path.write_text(json.dumps(content))
    return read_onboarding_sheet(path)


def test_there_are_contracts():
    assert len(CONTRACTS) >= 6
    assert len({c.vendor for c in CONTRACTS}) == len(CONTRACTS)


def trailing(value) -> str:
    return f"{-value}-" if value < 0 else f"{value}"


def northgate(rows, count=None, total=None) -> str:
    out = ["NGH|NORTHGATE|20240702"]
    out += [
        f"NGD|{t.account:<20}|{t.end:%Y%m%d}|USD|{t.bmv}|{t.contributions}|{t.distributions}|{t.fees}|{t.emv}|{trailing(t.ret * 100)}"
        for t in rows
    ]
    out.append(
        f"NGT|{count if count is not None else len(rows):09d}|{total if total is not None else sum(t.emv for t in rows)}"
    )
    return "\r\n".join(out) + "\r\n"


def test_records_with_a_trailer(make_history):
    reading = read(northgate(truth()), "x.txt", CONTRACTS)
    check(reading)
    assert (reading.vendor, reading.contract_version) == ("northgate_custody", 1)
    history = make_history(*({**row, "vendor": reading.vendor} for row in reading.rows.to_pylist()))
    applied = {
        row["period_end"].month: (row["timing"], row["policy_version"])
        for row in account_performance(history, policies(CONTRACTS)).to_pylist()
    }
    before, since = ("mid", "northgate_custody-1"), ("eod", "northgate_custody-1@2024-04-30")
    assert applied == {1: before, 2: before, 3: before, 4: since, 5: since, 6: since}


@pytest.mark.parametrize(
    ("text", "reason"),
    [(northgate(truth(), count=13), "trailer_count_mismatch"), (northgate(truth(), total=Decimal(5)), "trailer_sum_mismatch"),
     (northgate(truth()).rpartition("NGT")[0], "missing_trailer")],
)  # fmt: skip
def test_trailers_that_disagree(text, reason):
    reading = read(text, "x.txt", CONTRACTS)
    assert (reading.action, reading.file_reason, reading.rows.num_rows) == ("quarantine_file", reason, 0)


def signed(value, places, width) -> str:
    scaled = int(value.scaleb(places))
    return f"{'-' if scaled < 0 else '+'}{abs(scaled):0{width - 1}d}"


def test_fixed_width_with_implied_decimals():
    rows = truth()
    out = ["BOF HARBOR CLEARING REFRESHED".ljust(120)]
    out += [
        f"HCP{t.account:<18}{t.end:%m%d%Y}USD{signed(t.bmv, 2, 19)}{signed(t.net, 2, 19)}{signed(t.emv, 2, 19)}{signed(t.ret, 8, 12)}".ljust(
            120
        )
        for t in rows
    ]
    end = f"EOF HARBOR CLEARING TOTAL DETAIL RECORDS: {len(rows):08d}".ljust(120)
    reading = read("\n".join([*out, end]), "x.dat", CONTRACTS)
    check(reading)
    assert reading.rows["contributions"].null_count == 12
    assert read("\n".join([*out[:-1], end]), "x.dat", CONTRACTS).file_reason == "trailer_count_mismatch"
    broken = out[3][:60]
    reading = read("\n".join([*out[:3], broken, *out[4:], end]), "x.dat", CONTRACTS)
    assert quarantined(reading) == [(4, "wrong_record_length")]


def test_no_header():
    rows = truth()
    text = "\n".join(f"{t.account},{t.end:%m/%d/%Y},{t.ret * 100}" for t in rows)
    reading = read(text, "x.csv", CONTRACTS)
    assert reading.vendor == "quill_index"
    assert {r["return_net"] for r in reading.rows.to_pylist()} == {t.ret for t in rows}
    assert reading.rows["line"].to_pylist()[0] == 1


def zoned(value, width) -> str:
    digits = f"{abs(int(value.scaleb(2))):0{width}d}"
    return digits[:-1] + ("}JKLMNOPQR" if value < 0 else "{ABCDEFGHI")[int(digits[-1])]


def test_zoned_decimals():
    rows = truth(("0012345678", "0000000042"))
    out = [
        f"D1{t.account}{t.end:%y%m%d}{zoned(t.bmv, 13)}{zoned(t.net, 13)}{zoned(t.emv, 13)}{signed(t.ret * 100, 6, 9)}".ljust(
            70
        )
        for t in rows
    ]
    reading = read("\n".join([*out, f"T1{len(rows):08d}".ljust(70)]), "x.dat", CONTRACTS)
    check(reading, rows, ret=6)
    assert (reading.vendor, reading.contract_version) == ("meridian_trust", 2)
    assert set(reading.rows["currency"].to_pylist()) == {"USD"}
    assert "missing_trailer" in read("\n".join(out), "x.dat", CONTRACTS).warnings


@pytest.mark.parametrize(
    ("text", "picture", "expected"),
    [("12{", "zoned_v99", "1.20"), ("12}", "zoned_v99", "-1.20"), ("1234", "v99", "12.34"), ("+00439532", "s9(2)v8", "0.00439532"), ("-5", "v99", "-0.05"), ("12A4", "v99", "?"), ("", "v99", ""), ("123-", "9(3)v9(2)", "-1.23")],
)  # fmt: skip
def test_implied_decimals(text, picture, expected):
    assert implied(text, picture) == expected or Decimal(implied(text, picture)) == Decimal(expected)


def test_european_with_its_own_headers_and_lost_zeros():
    rows = truth(("00123456", "00000042"))

    def de(value) -> str:
        return f"{value:,}".replace(",", "#").replace(".", ",").replace("#", ".")

    out = ["Mandatsschlüssel;Tag;Einheit;Vortrag;Zugang;Abgang;Übertrag;Erfolg"]
    out += [
        f"{int(t.account)};{t.end:%d/%m/%Y};EUR;{de(t.bmv)};{de(t.contributions)};{de(t.distributions)};{de(t.emv)};{de(t.ret * 100)}"
        for t in rows
    ]
    out += ["Summe;;;;;;9.999,00;", "Erstellt am 01.07.2024"]
    reading = read("\n".join(out).encode("cp1252"), "x.csv", CONTRACTS)
    check(reading, rows)
    assert reading.vendor == "rheinhafen_bank"
    assert "id_zeros_restored" in reading.warnings


def test_json_under_a_path():
    rows = truth()
    body = [
        {
            "k": t.account,
            "d": t.end.isoformat(),
            "c": "USD",
            "b": str(t.bmv),
            "f": str(t.net),
            "e": str(t.emv),
            "r": str(t.ret * 10000),
        }
        for t in rows
    ]
    reading = read(json.dumps({"payload": {"views": {"rows": body}}}), "x.json", CONTRACTS)
    check(reading)
    assert reading.vendor == "lumen_views"


def test_xml_under_a_path():
    rows = "".join(
        f"<row><k>{t.account}</k><d>{t.end}</d><c>USD</c><b>{t.bmv}</b><f>{t.net}</f><e>{t.emv}</e><r>{t.ret * 10000}</r></row>"
        for t in truth()
    )
    noise = "<head><row><k>1</k><d>x</d></row><row><k>2</k><d>y</d></row></head>"
    reading = read(f"<export>{noise}<body>{rows}</body></export>", "x.xml", CONTRACTS)
    check(reading)
    assert reading.vendor == "tarnside_custody"


def test_sections_by_contract():
    rows = truth(("A/1", "B/2"))
    out = ["Larkspur Reports", ""]
    for account in ("A/1", "B/2"):
        out += [f"Client ref {account}", "Date,Opening Value,Net Flow,Closing Value,Return %"]
        out += [f"{t.end:%d/%m/%Y},{t.bmv},{t.net},{t.emv},{t.ret * 100}" for t in rows if t.account == account]
        out += ["Section total,,,1.00,"]
    reading = read("\n".join([*out, "Printed by nobody"]), "x.csv", CONTRACTS)
    check(reading, rows)
    assert set(reading.rows["currency"].to_pylist()) == {"GBP"}


def test_sheet_headerless(tmp_path):
    rows = truth()
    contracts = sheet(
        tmp_path,
        {
            "tango": {
                "header": False,
                "delimiter": ",",
                "fields": [
                    "account_id",
                    "period_end:%m/%d/%Y",
                    "beginning_market_value",
                    "net_flow",
                    "ending_market_value",
                    "return:percent",
                ],
                "currency_default": "USD",
            }
        },
    )
    text = "\n".join(f"{t.account},{t.end:%m/%d/%Y},{t.bmv},{t.net},{t.emv},{t.ret * 100}" for t in rows)
    reading = read(text, "x.csv", contracts)
    check(reading)
    assert reading.vendor == "tango"


def test_sheet_zoned_record_prefixes_and_trailer_sums(tmp_path):
    rows = truth(("0012345678", "0000000042"))
    entry = {
        "fixed_width": True, "record_prefixes": {"header": "00", "detail": "10", "trailer": "99"}, "trailer_required": True,
        "trailer_fields": {"count": [2, 10], "sum_ending_market_value:zoned_v99": [10, 25]},
        "fields": {"account_id": [2, 12], "period_end:%y%m%d": [12, 18], "beginning_market_value:zoned_v99": [18, 31], "net_flow:zoned_v99": [31, 44], "ending_market_value:zoned_v99": [44, 57]},
    }  # fmt: skip
    contracts = sheet(tmp_path, {"_readme": "x", "uniform": entry})
    out = [
        "00UNIFORM 20240702",
        *(f"10{t.account}{t.end:%y%m%d}{zoned(t.bmv, 13)}{zoned(t.net, 13)}{zoned(t.emv, 13)}" for t in rows),
    ]
    end = f"99{len(rows):08d}{zoned(sum(t.emv for t in rows), 15)}"
    check(read("\n".join([*out, end]), "x.dat", contracts), rows)
    wrong = f"99{len(rows):08d}{zoned(sum(t.emv for t in rows) + 1, 15)}"
    assert read("\n".join([*out, wrong]), "x.dat", contracts).file_reason == "trailer_sum_mismatch"


@pytest.mark.parametrize("columns", [{"Kto": "account_id", "Tag": "period_end", "AW": "beginning_market_value", "EW": "ending_market_value", "NF": "net_flow", "R": "return:percent"},
                                     {"account_id": "Kto", "period_end": "Tag", "beginning_market_value": "AW", "ending_market_value": "EW", "net_flow": "NF", "return:percent": "R"}])  # fmt: skip
def test_sheet_aliases(tmp_path, columns):
    contracts = sheet(tmp_path, {"victor": {"column_aliases": columns, "date_order": "dmy"}})
    out = [
        "Kto;Tag;AW;EW;NF;R",
        *(f"{t.account};{t.end:%d/%m/%Y};{t.bmv};{t.emv};{t.net};{t.ret * 100}" for t in truth()),
    ]
    reading = read("\n".join(out), "x.csv", contracts)
    check(reading)
    assert reading.vendor == "victor"


def test_sheet_terms_that_content_cannot_show_are_found_by_name(tmp_path):
    rows = truth(months=(1, 2, 3, 4))
    text = "\n".join([HEADER, *(line(t, end=f"0{t.end.month}/05/2024", account=t.account.lstrip("0")) for t in rows)])
    contracts = sheet(
        tmp_path, {"yankee": {"date_order": "mdy", "account_id_width": 10}, "other": {"date_order": "dmy"}}
    )
    reading = read(text, "yankee_20240401.csv", contracts)
    assert reading.vendor == "yankee"
    assert "contract_by_name" in reading.warnings
    assert reading.rows["account_id"].to_pylist()[0] == "0012345678"
    assert read(text, "nobody.csv", contracts).file_reason == "ambiguous_dates"


def test_a_contract_that_the_values_contradict(tmp_path):
    contracts = sheet(tmp_path, {"xray": {"return_unit": "percent"}})
    assert read("Xray Partners\n" + csv(), "x.csv", contracts).file_reason == "return_unit_contradicts_contract"


def test_inspection_orders_and_skips(tmp_path):
    (tmp_path / "b.csv").write_text(csv())
    (tmp_path / "a.csv").write_text(csv())
    entries = inspect_files([tmp_path / "b.csv", tmp_path / "a.csv"], CONTRACTS, RECEIVED)
    assert [e["action"] for e in entries.values()] == ["accept", "skip_duplicate"]
    assert entries["a.csv"]["rows"][0]["return"] == "0.0150248"
    json.dumps(entries)


def test_proposals_are_contracts_without_values():
    text = csv().replace(HEADER, HEADER + ",ssn").replace("\n0", "\n0").replace("USD", "USD")
    draft = propose_contract(text.encode(), "new vendor 2024.csv")
    assert VendorContract.model_validate(yaml.safe_load(draft)).columns["net_return"] == "return_net"
    assert "1234567.89" not in draft
    for data in (b"", b'{"a": 1}', b"%PDF", b"D1234567890\nD1234567891\n" * 4, b"a1,2024-01-31,5\n" * 4):
        VendorContract.model_validate(yaml.safe_load(propose_contract(data, "x")))


def test_names_of_accounts_are_not_names_of_vendors(tmp_path):
    contracts = sheet(tmp_path, {"oscar": {"return_unit": "percent"}})
    rows = truth()
    objects = [
        {
            "account": t.account,
            "name": "Oscar Fund",
            "date": str(t.end),
            "bmv": str(t.bmv),
            "net_flow": str(t.net),
            "emv": str(t.emv),
            "twr": str(t.ret),
        }
        for t in rows
    ]
    reading = read(json.dumps(objects), "x.json", contracts)
    check(reading)
    assert reading.vendor.startswith("detected:")
    text = "\n".join(["name," + HEADER, *(f"Oscar Fund,{line(t)}" for t in rows)])
    assert read(text, "x.csv", contracts).vendor.startswith("detected:")


UNKNOWN = {"Mandat": "account_id", "Tag X": "period_end", "Vortrag Q": "beginning_market_value", "Zug": "net_flow", "Uebertrag": "ending_market_value", "Erfolg P": "return_net"}  # fmt: skip


@pytest.mark.parametrize("kind", ["xls", "xlsb", "ods", "xml", "xlsx"])
def test_the_draft_for_a_workbook_leads_to_a_contract(kind):
    rows = [[t.account, t.end, float(t.bmv), float(t.net), float(t.emv), float(t.ret * 100)] for t in truth()]
    sheets = {"Notes": [["nothing"]], "Perf": [["Report"], [], list(UNKNOWN), *rows]}
    data = workbook(sheets) if kind == "xlsx" else WRITERS[kind](sheets)
    assert read(data).file_reason == "unknown_schema"
    draft = propose_contract(data, "acme.xls")
    assert "header in row 3" in draft
    assert "1234567.89" not in draft
    assert "dates possible" in draft
    contract = VendorContract.model_validate(yaml.safe_load(draft))
    assert contract.columns == dict.fromkeys(UNKNOWN, "ignore") | {"Mandat": "account_id"}
    reading = read(data, "x", [contract.model_copy(update={"columns": UNKNOWN, "currency_default": "EUR"})])
    check(reading)
    assert reading.vendor == "acme"


def test_the_draft_for_xml_leads_to_a_contract():
    tags = ["K", "T", "V", "Z", "U", "E"]
    records = "".join(
        "<s><h><K>bank</K></h><d>" + "".join(f"<{g}>{v}</{g}>" for g, v in zip(tags, (t.account, t.end, t.bmv, t.net, t.emv, t.ret), strict=True)) + "<Email>jane@example.com</Email></d></s>"
        for t in truth()
    )  # fmt: skip
    data = f"<Doc>{records}</Doc>".encode()
    draft = propose_contract(data, "acme.xml")
    assert "jane" not in draft
    contract = VendorContract.model_validate(yaml.safe_load(draft))
    assert set(contract.columns) == {"s.h.K", "s.d.K", *tags[1:]}
    wanted = dict(zip(["s.d.K", *tags[1:]], UNKNOWN.values(), strict=True))
    reading = read(data, "x", [contract.model_copy(update={"columns": {"s.h.K": "ignore", **wanted}})])
    check(reading)
    assert reading.vendor == "acme"
    for other in (
        b"<!DOCTYPE a><a/>",
        b"<a/>",
        b"<Document><BkToCstmrStmt><Stmt><Id>1</Id></Stmt></BkToCstmrStmt></Document>",
    ):
        VendorContract.model_validate(yaml.safe_load(propose_contract(other, "x")))
