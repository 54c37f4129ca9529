"""Every hazard of vendor files has a file here, and the behaviour that is promised for it."""

from __future__ import annotations

import gzip
import io
import json
import math
import stat
import zipfile
from datetime import date
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fixtures.vendor_files import HEADER, check, csv, line, quarantined, read, truth, workbook

from finance_assets.advisory.reading.outcome import ROWS


def de(value: object) -> str:
    """German notation."""
    return f"{value:,}".replace(",", "#").replace(".", ",").replace("#", ".")


# --- delimiters, titles, footers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("sep", [",", ";", "|", "\t"])
def test_delimiters(sep):
    reading = read(csv(sep=sep))
    check(reading)
    assert reading.action == "accept"
    assert reading.rows.schema == ROWS
    assert reading.vendor.startswith("detected:")
    assert reading.granularity == "monthly"


def test_same_headers_give_the_same_detected_schema():
    assert (
        read(csv()).vendor
        == read(csv(truth(("X1", "X2")))).vendor
        != read(csv(header=HEADER.replace("fees", "mgmt_fee"))).vendor
    )


def test_title_rows_blank_lines_footers_totals_and_repeated_headers():
    rows = truth()
    text = "\n".join(
        ["Acme Reporting", "As of 06/30/2024", "", HEADER, *(line(t) for t in rows[:6]), "Subtotal,,,,,,,99.00,", "",
         HEADER, *(line(t) for t in rows[6:]), "Grand Total,,,,,,,123456.00,", "Total accounts: 2", "", "Past performance is no guarantee of future results.",
         '"Source: Acme, Inc. All rights reserved."']
    )  # fmt: skip
    reading = read(text)
    check(reading)
    assert reading.skipped["totals"] >= 2
    assert reading.skipped["repeated_headers"] == 1
    assert reading.quarantined.num_rows == 0
    last = {r["line"] for r in reading.rows.to_pylist() if r["account_id"] == rows[6].account}
    assert last == {14, 15, 16, 17, 18, 19}


def test_a_total_in_another_column_is_no_account():
    rows = truth()
    header = "account_name," + HEADER
    text = "\n".join([header, *("Smith Total Return," + line(t) for t in rows), "Total,,,USD,,,,,12.00,"])
    check(read(text))


def test_record_count_in_a_footer_is_checked():
    assert read(csv() + "Record Count,12\n").rows.num_rows == 12
    assert read(csv() + "Record Count,13\n").file_reason == "trailer_count_mismatch"


def test_sections_per_account():
    rows = truth()
    header = HEADER.replace("account_id,", "")
    parts = []
    for account in ("0012345678", "12E45678"):
        parts += [f"Account: {account} - Somebody", header]
        parts += [line(t).partition(",")[2] for t in rows if t.account == account]
        parts += ["Total,,,,,,1.00,", ""]
    check(read("\n".join(parts)))


def test_several_grids_of_other_shape_do_not_shift_columns():
    rows = truth()
    text = csv(rows) + "1,2\n"
    reading = read(text)
    check(reading)
    assert quarantined(reading) == [(14, "wrong_field_count")]


# --- encodings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "utf-32"])
def test_encodings(encoding):
    text = (
        csv()
        .replace(HEADER, "name," + HEADER)
        .replace("\n0", "\nMüller & Söhne Zürich,0")
        .replace("\n1", "\nFrançois,1")
    )
    check(read(text.encode(encoding)))


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe\x00", b"\x81\x8d\x8f" * 30, csv().encode() + b"\x00\x01\x02", "é".encode() * 40 + b"\xff\xfe" * 3],
)
def test_undecodable(data):
    assert read(data).action == "quarantine_file"


def test_non_breaking_spaces():
    check(read(csv().replace("0012345678", "\u00a00012345678\u00a0").replace(",USD", ",USD\u00a0")))


def test_carriage_returns():
    check(read(csv().replace("\n", "\r\n")))
    check(read(csv().replace("\n", "\r")))


# --- dates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape",
    ["%Y-%m-%d", "%m/%d/%Y", "%d/%m/%Y", "%d.%m.%Y", "%y%m%d", "%Y%m%d", "%m%d%y", "%d-%b-%Y", "%b %d %Y", "%B %Y", "%b-%y",
     "%Y/%m/%d", "%m/%d/%y", "%Y-%m", "%Y%m", "%Y-%m-%dT00:00:00Z", "%m%d%Y", "%d %B %Y", "%Y-%m-%d 00:00:00"],
)  # fmt: skip
def test_date_forms(shape):
    text = "\n".join([HEADER, *(line(t, end=t.end.strftime(shape)) for t in truth())]) + "\n"
    check(read(text))


@pytest.mark.parametrize(
    "names",
    [["31. Januar 2024", "29. Februar 2024", "31. März 2024"], ["31 janvier 2024", "29 février 2024", "31 mars 2024"],
     ["31 de enero de 2024", "29 de febrero de 2024", "31 de marzo de 2024"], ["31 gennaio 2024", "29 febbraio 2024", "31 marzo 2024"]],
)  # fmt: skip
def test_month_names_of_other_languages(names):
    rows = truth(months=(1, 2, 3))
    text = "\n".join([HEADER, *(line(t, end=names[t.end.month - 1]) for t in rows)])
    check(read(text), rows)


def test_excel_serials():
    text = "\n".join([HEADER, *(line(t, end=(t.end - date(1899, 12, 30)).days) for t in truth())])
    check(read(text))


@pytest.mark.parametrize("shape", ["{y}Q{q}", "Q{q} {y}", "{y}-Q{q}"])
def test_quarters(shape):
    rows = truth(months=(3, 6))
    text = "\n".join([HEADER, *(line(t, end=shape.format(y=2024, q=t.end.month // 3)) for t in rows)])
    reading = read(text)
    check(reading, rows)
    assert reading.granularity == "quarterly"


def test_ambiguous_dates():
    rows = truth(months=(1, 2, 3, 4))
    text = "\n".join([HEADER, *(line(t, end=f"0{t.end.month}/05/2024") for t in rows)])
    assert read(text).file_reason == "ambiguous_dates"


def test_impossible_and_future_dates():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[1] = line(rows[1], end="2024-02-31")
    lines[11] = line(rows[11], end="2024-09-30")
    lines[7] = line(rows[7], end="soon")
    reading = read("\n".join([HEADER, *lines]))
    assert quarantined(reading) == [(3, "bad_date"), (9, "bad_date"), (13, "future_date")]


def test_one_date_that_only_fits_another_order_is_a_row():
    rows = truth()
    lines = [line(t, end=t.end.strftime("%m/%d/%Y")) for t in rows]
    lines[2] = line(rows[2], end="31/03/2024")
    assert quarantined(read("\n".join([HEADER, *lines]))) == [(4, "bad_date")]


def test_last_business_day():
    days = {3: "2024-03-28", 6: "2024-06-28"}
    text = "\n".join([HEADER, *(line(t, end=days.get(t.end.month, t.end)) for t in truth())])
    reading = read(text)
    check(reading)
    assert "business_day_period_end" in reading.warnings
    stated = {r["stated_period_end"] for r in reading.rows.to_pylist()}
    assert stated == {None, date(2024, 3, 28), date(2024, 6, 28)}


def test_first_days_of_months_say_nothing():
    text = "\n".join([HEADER, *(line(t, end=t.end.replace(day=1)) for t in truth())])
    assert read(text).file_reason == "ambiguous_period"


def test_date_in_the_title():
    rows = truth(months=(5,))
    header = HEADER.replace("period_end,", "")
    text = "\n".join(["Acme", "As of 05/31/2024", header, *(line(t).replace(f",{t.end}", "") for t in rows)])
    reading = read(text)
    check(reading, rows)
    assert "date_from_title" in reading.warnings


# --- returns ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("factor", "header"),
    [(100, "net_return"), (1, "net_return"), (10000, "net_return"), (100, "Return %"), (10000, "Return (bps)")],
)
def test_units_of_returns(factor, header):
    text = "\n".join([HEADER.replace("net_return", header), *(line(t, ret=t.ret * factor) for t in truth())])
    check(read(text))


def test_percent_signs():
    check(read("\n".join([HEADER, *(line(t, ret=f"{t.ret * 100}%") for t in truth())])))


def test_a_unit_that_cannot_be_proved():
    rows = truth()
    text = "\n".join(["account_id,period_end,net_return", *(f"{t.account},{t.end},{t.ret * 100}" for t in rows)])
    assert read(text).file_reason == "return_unit_unproved"
    reading = read(text.replace("net_return", "Net Return (%)"))
    assert reading.rows.num_rows == 12
    assert reading.rows["return_net"][0].as_py() == rows[0].ret


def test_a_mix_of_units():
    rows = truth()
    values = [f"{t.ret * 100}%" if n % 2 else f"{t.ret}" for n, t in enumerate(rows)]
    values[4] = "0.77"
    reading = read("\n".join([HEADER, *(line(t, ret=v) for t, v in zip(rows, values, strict=True))]))
    assert quarantined(reading) == [(6, "unproved_return_unit")]
    check(reading, [t for n, t in enumerate(rows) if n != 4])
    assert "mixed_return_units" in reading.warnings


def test_a_mix_without_signs():
    rows = truth()
    values = [t.ret * 100 if n % 2 else t.ret for n, t in enumerate(rows)]
    reading = read("\n".join([HEADER, *(line(t, ret=v) for t, v in zip(rows, values, strict=True))]))
    check(reading)
    assert "mixed_return_units" in reading.warnings


def test_gross_and_net():
    text = "\n".join([HEADER + ",gross_return", *(f"{line(t)},{t.gross}" for t in truth())])
    reading = read(text)
    check(reading)
    assert {r["return_gross"] for r in reading.rows.to_pylist()} == {t.gross for t in truth()}


def test_an_unlabelled_return_before_fees():
    text = "\n".join([HEADER.replace("net_return", "twr"), *(line(t, ret=t.gross) for t in truth())])
    reading = read(text)
    assert "return_is_gross" in reading.warnings
    assert reading.rows["return_net"].null_count == 12


# --- numbers ---------------------------------------------------------------------------------------------------------


def test_number_styles():
    rows = truth()
    lines = []
    for n, t in enumerate(rows):
        c = "—" if t.contributions == 0 else f'"${t.contributions:,}"'
        d = "n/a" if n == 0 else "-" if t.distributions == 0 else f"{t.distributions}"
        emv = f'"{t.emv:,}"'
        lines.append(line(t, bmv=f'" $ {t.bmv:,} "', c=c, d=d, emv=emv, ret=f"({abs(t.ret)})" if t.ret < 0 else t.ret))
    check(read("\n".join([HEADER, *lines])), flows=False)
    lines = [line(t, ret=f"{abs(t.ret)}-" if t.ret < 0 else t.ret) for t in rows]
    check(read("\n".join([HEADER, *lines])))


def test_an_em_dash_is_zero_and_not_available_is_null():
    rows = truth(months=(2,))
    reading = read("\n".join([HEADER, line(rows[0], c="—", d="0", fees="n/a"), line(rows[1], c="0", d="—", fees="0")]))
    first, second = reading.rows.to_pylist()
    assert first["contributions"] == 0
    assert second["distributions"] == 0
    assert first["fees"] is None


def test_decimal_comma_with_round_thousands():
    lines = []
    for t in truth():
        lines.append(
            line(
                t,
                ";",
                end=t.end.strftime("%d.%m.%Y"),
                bmv=de(t.bmv),
                c=de(t.contributions),
                d=de(t.distributions),
                fees=de(t.fees),
                emv=de(t.emv),
                ret=de(t.ret * 100) + " %",
            )
        )
    check(read("\n".join([HEADER.replace(",", ";"), *lines])))


def test_the_locale_comes_from_the_whole_column():
    header = "Konto;Stichtag;Währung;Anfangswert;Einzahlungen;Auszahlungen;Endwert"
    rows = ["A-1;31.01.2024;EUR;1.000;500;0;1.500", "A-1;29.02.2024;EUR;1.500;0;0;1.512,25"]
    got = read("\n".join([header, *rows])).rows.to_pylist()
    assert [r["ending_market_value"] for r in got] == [Decimal(1500), Decimal("1512.25")]
    assert got[0]["contributions"] == 500


def test_swiss_and_french_thousands():
    for mark in ("'", " ", "\u202f", "\u00a0", "’"):  # noqa: RUF001
        text = "\n".join(
            [
                HEADER,
                *(line(t, bmv=f"{t.bmv:,}".replace(",", mark), emv=f"{t.emv:,}".replace(",", mark)) for t in truth()),
            ]
        )
        check(read(text))


@pytest.mark.parametrize("value", ["NaN", "1e400", "inf", "-Infinity", "12abc", "#REF!", "1,2,3"])
def test_unreadable_numbers(value):
    rows = truth()
    lines = [line(t) for t in rows]
    lines[3] = line(rows[3], emv=f'"{value}"')
    assert quarantined(read("\n".join([HEADER, *lines]))) == [(5, "bad_number")]


def test_scientific_notation_of_amounts():
    rows = truth()
    check(read("\n".join([HEADER, *(line(t, emv=f"{t.emv:E}") for t in rows)])))


def test_too_many_digits():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[0] = line(rows[0], emv="1.1234567891234")
    lines[6] = line(rows[6], emv="1" * 25)
    assert quarantined(read("\n".join([HEADER, *lines]))) == [(2, "too_precise"), (8, "too_large")]


def test_a_return_below_minus_100_percent():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[2] = line(rows[2], ret="-1.2")
    assert (4, "return_below_minus_100") in quarantined(read("\n".join([HEADER, *lines])))


# --- currencies ------------------------------------------------------------------------------------------------------


def test_currencies():
    rows = truth()
    lines = [
        line(t, currency=c)
        for t, c in zip(
            rows, ["usd", "US$", "", "XYZ", "EUR", "€", "JPY", "chf", "USD", "USD", "GBP", "£"], strict=True
        )
    ]
    reading = read("\n".join([HEADER, *lines]))
    assert quarantined(reading) == [(4, "missing_currency"), (5, "unknown_currency")]
    assert [r["currency"] for r in reading.rows.to_pylist()] == [
        "USD",
        "USD",
        "EUR",
        "EUR",
        "JPY",
        "CHF",
        "USD",
        "USD",
        "GBP",
        "GBP",
    ]
    assert {"currency_normalised", "currency_symbol"} <= set(reading.warnings)


@pytest.mark.parametrize("word", ["GBX", "GBp", "pence"])
def test_pence(word):
    rows = truth()
    pence = [
        line(
            t,
            currency=word,
            bmv=t.bmv * 100,
            c=t.contributions * 100,
            d=t.distributions * 100,
            fees=t.fees * 100,
            emv=t.emv * 100,
        )
        for t in rows
    ]
    reading = read("\n".join([HEADER, *pence]))
    check(reading)
    assert set(reading.rows["currency"].to_pylist()) == {"GBP"}
    assert "minor_unit_currency" in reading.warnings


def test_no_minor_unit_and_currency_of_header():
    text = "\n".join(
        [
            "account,date,market value begin (JPY),market value end (JPY)",
            "A1,2024-01-31,1000000,1100000",
            "A1,2024-02-29,1100000,1200000",
        ]
    )
    reading = read(text)
    assert set(reading.rows["currency"].to_pylist()) == {"JPY"}


# --- ids -------------------------------------------------------------------------------------------------------------


def test_ids_are_text():
    ids = ("0012345678", "900719925474099312", "12E45678", "1234-5678", "00000000000001")
    check(read(csv(truth(ids))), truth(ids))
    spaced = csv(truth(ids)).replace("0012345678", "  0012345678 ")
    check(read(spaced), truth(ids))


@pytest.mark.parametrize("lost", ["1.23E+11", "9.00719925474099E+17", "1E+11", "1,23E+11"])
def test_ids_in_scientific_notation(lost):
    rows = truth()
    lines = [line(t) for t in rows]
    lines[0] = line(rows[0], account=f'"{lost}"')
    assert quarantined(read("\n".join([HEADER, *lines]))) == [(2, "id_scientific_notation")]


def test_missing_account():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[0] = line(rows[0], account="")
    assert quarantined(read("\n".join([HEADER, *lines]))) == [(2, "missing_required")]


# --- duplicates ------------------------------------------------------------------------------------------------------


def test_duplicates():
    rows = truth()
    lines = [line(t) for t in rows]
    text = "\n".join(
        [HEADER, *lines, lines[2], line(rows[5], emv=rows[5].emv + 10), lines[0].replace("0012345678", " 0012345678 ")]
    )
    reading = read(text)
    assert quarantined(reading) == [(7, "duplicate_conflict"), (15, "duplicate_conflict")]
    assert reading.rows.num_rows == 11
    assert reading.skipped["duplicate_rows"] == 2


def test_the_same_bytes_again():
    first = read(csv())
    again = read(csv(), seen={first.sha256: "file.csv"})
    assert again.action == "skip_duplicate"
    assert again.rows.num_rows == 0


# --- order, gaps, grains ---------------------------------------------------------------------------------------------


def test_out_of_order_and_missing_period():
    rows = [t for t in truth() if not (t.account == "0012345678" and t.end.month == 3)]
    reading = read(csv(list(reversed(rows))))
    check(reading, rows)
    assert "missing_period" in reading.warnings
    assert [r["period_end"] for r in reading.rows.to_pylist()[:5]] == [t.end for t in rows[:5]]
    flagged = [r["period_end"] for r in reading.rows.to_pylist() if "missing_period" in r["flags"]]
    assert flagged == [date(2024, 4, 30)]


def test_daily():
    header = "account,date,mv_begin,net_flow,mv_end"
    value, out = Decimal(1000), [header]
    for day in (3, 4, 5, 6, 7, 10, 11, 12, 13, 14, 17, 18, 19, 20, 21, 24, 25, 26, 27, 28):
        out.append(f"A1,2024-06-{day:02d},{value},0,{value + day}")
        value += day
    reading = read("\n".join(out))
    assert reading.granularity == "daily"
    assert reading.rows["stated_period_end"].null_count == 20
    assert "rollforward_break" not in reading.warnings


def test_quarterly():
    rows = truth(months=(3, 6))
    reading = read(csv(rows))
    check(reading, rows)
    assert reading.granularity == "quarterly"


def test_grain_by_row():
    rows = truth(("A1",), (4, 5, 6))
    text = "\n".join(
        [HEADER + ",frequency", *(line(t) + ",M" for t in rows), line(rows[2], bmv=rows[0].bmv, ret="0.0001") + ",Q"]
    )
    reading = read(text)
    assert sorted(reading.rows["granularity"].to_pylist()) == ["monthly"] * 3 + ["quarterly"]


# --- layouts ---------------------------------------------------------------------------------------------------------


def wide(rows, measure=True, shape="%b-%y"):
    months = sorted({t.end for t in rows})
    out = [",".join(["Account", *(["Measure"] if measure else []), *(m.strftime(shape) for m in months)])]
    measures = {"Beginning MV": "bmv", "Net Flows": "net", "Ending MV": "emv", "Return %": "ret"}
    for account in dict.fromkeys(t.account for t in rows):
        own = {t.end: t for t in rows if t.account == account}
        for label, name in measures.items():
            values = [getattr(own[m], name) * (100 if name == "ret" else 1) for m in months]
            out.append(",".join([account, label, *map(str, values)]))
    return out


@pytest.mark.parametrize("shape", ["%b-%y", "%Y-%m-%d", "%Y-%m", "%m/%d/%Y", "%b %Y", "%Y%m"])
def test_wide(shape):
    reading = read(
        "\n".join(
            ["Report of Nobody", "", *wide(truth(), shape=shape), "", "Past performance is no guarantee of anything."]
        )
    )
    check(reading)
    assert reading.rows["contributions"].null_count == 12


def test_wide_with_an_unreadable_cell_names_its_own_line():
    lines = wide(truth())
    lines[3] = lines[3].rpartition(",")[0] + ",oops"
    reading = read("\n".join(lines))
    assert quarantined(reading) == [(4, "bad_number")]
    assert reading.rows.num_rows == 11


def test_wide_returns_only():
    rows = truth()
    months = sorted({t.end for t in rows})
    head = ["Monthly returns in percent, net of fees", "Account," + ",".join(m.strftime("%b %Y") for m in months)]
    body = [f"{a}," + ",".join(str(t.ret * 100) for t in rows if t.account == a) for a in ("0012345678", "12E45678")]
    reading = read("\n".join(head + body))
    assert {r["return_net"] for r in reading.rows.to_pylist()} == {t.ret for t in rows}


def test_wide_measures_in_the_header():
    rows = truth(months=(1, 2))
    header = "Account,Jan-24 BMV,Jan-24 Net Flow,Jan-24 EMV,Feb-24 BMV,Feb-24 Net Flow,Feb-24 EMV"
    body = []
    for a in ("0012345678", "12E45678"):
        body.append(a + "," + ",".join(f"{t.bmv},{t.net},{t.emv}" for t in rows if t.account == a))
    check(read("\n".join([header, *body])), rows)


def objects(rows):
    return [
        {"account": {"id": t.account, "currency": "USD"}, "period_end": t.end.isoformat(), "values": {"beginning_market_value": float(t.bmv), "ending_market_value": float(t.emv)},
         "flows": {"contributions": float(t.contributions), "distributions": float(t.distributions)}, "returns": {"net": float(t.ret)}}
        for t in rows
    ]  # fmt: skip


def test_json_array_and_document():
    check(read(json.dumps(objects(truth()), indent=1)))
    check(read(json.dumps({"vendor": "x", "as_of": "2024-06-30", "data": {"rows": objects(truth())}})))


def test_json_lines_with_damage():
    lines = [json.dumps(o) for o in objects(truth())]
    lines[2] = lines[2][:50]
    lines[4] = lines[4].replace('"ending_market_value": ', '"ending_market_value": NaN, "x": ')
    reading = read("\n".join(lines) + "\n")
    assert quarantined(reading) == [(3, "malformed_json"), (5, "bad_number")]


def test_json_accounts_with_periods():
    rows = truth()
    document = {
        "accounts": [
            {"account_number": a, "currency": "USD", "periods": [{"end_date": t.end.isoformat(), "bmv": str(t.bmv), "net_flow": str(t.net), "emv": str(t.emv), "twr": str(t.ret)} for t in rows if t.account == a]}
            for a in ("0012345678", "12E45678")
        ]
    }  # fmt: skip
    check(read(json.dumps(document)))


def test_json_tree():
    rows = truth(months=(6,))
    leaves = [
        {
            "name": "N",
            "grouping": "account",
            "account_number": t.account,
            "columns": {"bmv": float(t.bmv), "net_flow": float(t.net), "emv": f"{t.emv:E}", "twr": float(t.ret)},
            "children": [],
        }
        for t in rows
    ]
    total = {
        "name": "Total",
        "grouping": "total",
        "columns": {"bmv": 1.0, "net_flow": 0.0, "emv": 2.0, "twr": 0.1},
        "children": [
            {
                "name": "Household",
                "grouping": "household",
                "columns": {"bmv": 1.0, "net_flow": 0.0, "emv": 2.0, "twr": 0.1},
                "children": leaves,
            }
        ],
    }
    document = {
        "meta": {"columns": [{"key": "bmv", "display_name": "Beginning Value"}], "currency": "USD"},
        "data": {"type": "portfolio_views", "attributes": {"period_end": "2024-06-30", "total": total}},
    }
    check(read(json.dumps(document)), rows)


def test_json_columns_and_rows():
    rows = truth()
    document = {"columns": HEADER.split(","), "rows": [line(t).split(",") for t in rows]}
    check(read(json.dumps(document)))


def test_a_json_array_that_is_cut_off():
    text = json.dumps(objects(truth()), indent=1)
    reading = read(text[: text.rfind("returns")])
    assert "truncated_file" in reading.warnings
    assert reading.rows.num_rows == 11
    assert quarantined(reading)[0][1] == "truncated_row"


def test_parquet():
    rows = truth()
    table = pa.table(
        {"account_id": [t.account for t in rows], "period_end": [t.end for t in rows], "currency": ["USD"] * 12, "bmv": [t.bmv for t in rows],
         "net_flow": [float(t.net) for t in rows], "emv": [float(t.emv) for t in rows], "twr": [float(t.ret) for t in rows]}
    )  # fmt: skip
    out = io.BytesIO()
    pq.write_table(table, out)
    check(read(out.getvalue(), "x.bin"))


def test_workbook():
    rows = truth()
    grid = [["Acme Wealth"], ["As of 06/30/2024"], [], HEADER.split(",")]
    for n, t in enumerate(rows):
        end = t.end.strftime("%m/%d/%Y") if n % 2 else t.end
        grid.append(
            [
                t.account,
                end,
                "USD",
                float(t.bmv),
                float(t.contributions),
                float(t.distributions),
                float(t.fees),
                float(t.emv),
                float(t.ret),
            ]
        )
    grid += [
        ["Total", None, None, None, None, None, None, 1.0],
        [],
        ["Past performance is no guarantee of future results."],
    ]
    data = workbook(
        {"Cover": [["Hello"]], "Performance": grid, "Notes": [["account_id", "see page 1"]]},
        {"I": "0.00%", "D": "#,##0.00"},
    )
    reading = read(data, "lies.csv")
    check(reading)
    assert reading.skipped["other_sheets"] == 2
    assert set(reading.rows["member"].to_pylist()) == {"Performance"}
    assert reading.rows["line"].to_pylist()[0] == 5


def test_workbook_wide_with_seven_title_rows():
    rows = truth()
    months = sorted({t.end for t in rows})
    grid: list[list[object]] = [
        ["Direct"],
        ["Report"],
        ["Currency: EUR"],
        [],
        ["Monthly Return %"],
        ["x"],
        [],
        ["Account", *months],
    ]
    for a in ("0012345678", "12E45678"):
        grid.append([a, *(float(t.ret * 100) for t in rows if t.account == a)])
    reading = read(workbook({"Returns": grid}), "direct.xlsx")
    assert {round(r["return_net"], 8) for r in reading.rows.to_pylist()} == {t.ret for t in rows}
    assert set(reading.rows["currency"].to_pylist()) == {"EUR"}


def test_a_sheet_per_account():
    rows = truth()
    sheets = {}
    for a in ("0012345678", "12E45678"):
        grid = [[f"Account: {a}"], HEADER.split(",")[1:]]
        grid += [
            [
                t.end,
                "USD",
                float(t.bmv),
                float(t.contributions),
                float(t.distributions),
                float(t.fees),
                float(t.emv),
                float(t.ret),
            ]
            for t in rows
            if t.account == a
        ]
        sheets[a] = grid
    check(read(workbook(sheets), "x.xlsx"))


# --- flows and signs -------------------------------------------------------------------------------------------------


def test_signed_distributions_and_fees():
    text = "\n".join([HEADER, *(line(t, d=-t.distributions, fees=-t.fees) for t in truth())])
    reading = read(text)
    check(reading)
    assert {"signed_distributions", "signed_fees"} <= set(reading.warnings)
    assert {r["fees"] for r in reading.rows.to_pylist()} == {t.fees for t in truth()}


def test_a_net_flow_with_the_wrong_sign():
    text = "\n".join(
        [
            "account,date,bmv,net flow,emv,net return",
            *(f"{t.account},{t.end},{t.bmv},{-t.net},{t.emv},{t.ret}" for t in truth()),
        ]
    )
    reading = read(text)
    check(reading)
    assert "net_flow_sign_flipped" in reading.warnings
    assert reading.rows["contributions"].null_count == 12


def test_an_amount_with_a_credit_debit_indicator():
    out = ["account,date,bmv,amount,CdtDbtInd,emv,return"]
    out += [
        f"{t.account},{t.end},{t.bmv},{abs(t.net)},{'DBIT' if t.net < 0 else 'CRDT'},{t.emv},{t.ret}" for t in truth()
    ]
    check(read("\n".join(out)))


def test_breaks_are_loaded_and_flagged():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[2] = line(rows[2], bmv=rows[2].bmv + Decimal("125.00"))
    reading = read("\n".join([HEADER, *lines]))
    assert reading.rows.num_rows == 12
    flags = [r["flags"] for r in reading.rows.to_pylist() if r["flags"]]
    assert flags == ["rollforward_break:125"]


def test_components_that_do_not_foot():
    out = ["account,date,bmv,contributions,withdrawals,income,appreciation,fees,emv"]
    out += [f"A{n},2024-01-31,1000,0,0,10,20,5,{1025 if n else 1030}" for n in range(5)]
    reading = read("\n".join(out))
    assert [r["flags"] for r in reading.rows.to_pylist() if r["flags"]] == ["components_do_not_foot:5"]


def test_closed_dormant_margin_new_and_large():
    lines = ["C,2024-01-31,USD,100.00,0,100.50,0,0.00,0.005", "D,2024-01-31,USD,0,0,0,0,0,", "D,2024-02-29,USD,0,0,0,0,0,n/a", "M,2024-01-31,USD,-50.00,0,0,0,-60.00,",
             "N,2024-01-31,USD,0,1000.00,0,0,1010.00,0.01", "L,2024-01-31,USD,1000.00,500.00,0,0,1512.50,0.01"]  # fmt: skip
    reading = read("\n".join([HEADER, *lines]))
    assert reading.rows.num_rows == 6
    assert {"large_cash_flow", "negative_market_value", "return_undefined"} <= set(reading.warnings)
    flagged = {r["account_id"] for r in reading.rows.to_pylist() if "large_cash_flow" in r["flags"]}
    assert flagged == {"L"}


# --- columns and schemas ---------------------------------------------------------------------------------------------


def test_new_renamed_and_reordered_columns():
    header = "Desk Colour,Closing Market Value,Net TWR,Fees Charged,Withdrawals,Additions,Opening Market Value,CCY,Valuation Date,Acct #"
    out = [header]
    out += [
        f"blue,{t.emv},{t.ret},{t.fees},{t.distributions},{t.contributions},{t.bmv},USD,{t.end},{t.account}"
        for t in truth()
    ]
    reading = read("\n".join(out))
    check(reading)
    assert reading.warnings == ["unknown_columns"]


@pytest.mark.parametrize(
    "header",
    ["Kontonummer;Stichtag;Währung;Anfangsbestand;Einzahlungen;Auszahlungen;Gebühren;Endbestand;Rendite netto (%)",
     "Numéro de compte;Date de valorisation;Devise;Valeur initiale;Apports;Retraits;Frais;Valeur finale;Rendement net %",
     "Número de cuenta;Fecha;Divisa;Valor inicial;Aportaciones;Retiros;Comisiones;Valor final;Rentabilidad neta (%)",
     "Numero conto;Data;Valuta;Valore iniziale;Versamenti;Prelievi;Commissioni;Valore finale;Rendimento netto (%)"],
)  # fmt: skip
def test_headers_in_other_languages(header):
    out = [header]
    out += [
        line(
            t,
            ";",
            end=t.end.strftime("%d.%m.%Y"),
            bmv=de(t.bmv),
            c=de(t.contributions),
            d=de(t.distributions),
            fees=de(t.fees),
            emv=de(t.emv),
            ret=de(t.ret * 100),
        )
        for t in truth()
    ]
    check(read("\n".join(out)))


@pytest.mark.parametrize(
    ("text", "reason"),
    [("account,symbol,quantity,price,market_value,as_of\nA1,IBM,10,5,50,2024-01-31\n", "not_performance"),
     ("Account Number,CUSIP,Shares,Price,Market Value,Date\nA1,123456789,10,5,50,2024-01-31\n", "not_performance"),
     ("city,people\nParis,2\nRome,3\n", "unknown_schema"), ("hello world\n", "unknown_schema"),
     ("<html><body><table><tr><td>account</td></tr></table></body></html>", "html_content"), ("%PDF-1.7 x", "pdf_content"),
     ("<?xml version='1.0'?><Document/>", "empty_file"), ("", "empty_file"), ("\n\n  \n", "empty_file"), ("{}", "empty_file"), ("[]", "empty_file"), ('{"a": ', "malformed_json")],
)  # fmt: skip
def test_files_that_are_refused(text, reason):
    reading = read(text, "performance.xls")
    assert (reading.action, reading.file_reason, reading.rows.num_rows) == ("quarantine_file", reason, 0)


def test_header_only():
    reading = read(HEADER + "\n")
    assert reading.action == "accept_with_warnings"
    assert reading.warnings == ["no_data_rows"]


def test_the_last_line_is_cut_off():
    text = csv().rstrip("\n")
    for cut in (text[: -len("00000000")], text[: text.rfind(",")], text[: text.rfind("\n") + 8]):
        reading = read(cut)
        assert quarantined(reading) == [(13, "truncated_row")], cut[-40:]
        assert "truncated_file" in reading.warnings


def test_quoted_line_breaks_keep_physical_lines():
    rows = truth()
    lines = [f'"Baker,\nAnn",{line(t)}' if n % 2 == 0 else f'"Al ""X""",{line(t)}' for n, t in enumerate(rows)]
    lines[10] = f'"Baker\n\n",{line(rows[10], emv="oops")}'
    reading = read("\n".join(["name," + HEADER, *lines]) + "\n")
    assert quarantined(reading) == [(17, "bad_number")]
    assert reading.rows["line"].to_pylist()[:3] == [2, 4, 5]


def test_a_stray_quote_does_not_swallow_rows():
    rows = truth()
    text = "\n".join(
        ["name," + HEADER, *(f'5" pipe,{line(t)}' if n == 3 else f"x,{line(t)}" for n, t in enumerate(rows))]
    )
    check(read(text))


# --- archives --------------------------------------------------------------------------------------------------------


def zipped(members: dict[str, bytes], **attributes: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.compress_type = zipfile.ZIP_DEFLATED
            for key, value in attributes.items():
                setattr(info, key, value)
            archive.writestr(info, content)
    return out.getvalue()


def test_gzip_and_zip():
    check(read(gzip.compress(csv().encode())))
    rows = truth()
    reading = read(
        zipped(
            {"a.csv": csv(rows[:6]).encode(), "b/b.csv": csv(rows[6:], sep=";").encode(), "README.txt": b"Hello there"}
        )
    )
    check(reading)
    assert set(reading.rows["member"].to_pylist()) == {"a.csv", "b/b.csv"}
    assert "members_skipped" in reading.warnings


@pytest.mark.parametrize("name", ["../evil.csv", "/etc/evil.csv", "a/../../evil.csv", "C:\\evil.csv", "..\\evil.csv"])
def test_path_traversal(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    reading = read(zipped({"good.csv": csv().encode(), name: csv().encode()}))
    assert (reading.action, reading.file_reason) == ("quarantine_file", "path_traversal")
    assert not list(tmp_path.iterdir())


def test_links_in_archives():
    assert (
        read(zipped({"a.csv": b"/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16)).file_reason
        == "path_traversal"
    )


def test_bombs_and_nested_archives():
    zeros = b"0" * (30 << 20)
    assert read(zipped({"a.csv": zeros})).file_reason == "decompression_bomb"
    assert read(gzip.compress(zeros)).file_reason == "decompression_bomb"
    assert read(zipped({"a.zip": zipped({"a.csv": csv().encode()})})).file_reason == "nested_archive"
    assert read(gzip.compress(gzip.compress(csv().encode()))).file_reason == "nested_archive"


def test_encrypted_and_damaged_archives():
    data = bytearray(zipped({"a.csv": csv().encode()}))
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.index(mark) + offset] |= 1
    assert read(bytes(data)).file_reason == "encrypted"
    assert read(gzip.compress(csv().encode())[:-20]).file_reason == "corrupt_archive"
    assert read(zipped({"a.csv": csv().encode()})[:-30]).file_reason == "corrupt_archive"
    assert read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + "EncryptedPackage".encode("utf-16-le")).file_reason == "encrypted"
    assert read(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 600).file_reason == "corrupt_workbook"


# --- personal data ---------------------------------------------------------------------------------------------------


def test_personal_data_is_dropped():
    secrets = ("900-12-3456", "1961-04-09", "jane@example.com", "+1 212 555 0100", "987-65-4321")
    header = HEADER + ",ssn,Date of Birth,E-Mail,Phone No,misc code"
    lines = [f"{line(t)},{','.join(secrets)}" for t in truth()]
    lines[3] = lines[3].replace(str(truth()[3].emv), "jane@example.com")
    lines[4] = lines[4] + ",900-12-3456"
    lines[5] = "jane@example.com" + lines[5][10:]
    reading = read("\n".join([header, *lines]))
    assert "pii_columns_dropped" in reading.warnings
    assert reading.quarantined.num_rows == 3
    blob = str(reading)
    blob += str(reading.rows.to_pylist()) + str(reading.quarantined.to_pylist())
    assert not [s for s in secrets if s in blob]


@pytest.mark.parametrize(
    ("header", "field"),
    [
        ("TWR (gross)", "return_gross"),
        ("Market Value (End)", "ending_market_value"),
        ("Market Value (USD)", "ending_market_value"),
        ("Ein-/Auszahlungen", "net_flow"),
        ("Contributions/Withdrawals", "net_flow"),
        ("Gesamtrendite netto", "return_net"),
        ("begMktVal", "beginning_market_value"),
        ("Client Ref", "account_id"),
        ("Bmk Return", "benchmark_return"),
        ("Since Inception Return", "ignore"),
        ("Plus-value", "appreciation"),
        ("Steuer-ID", "ignore"),
    ],
)
def test_words_of_headers(header, field):
    from finance_assets.advisory.reading.headers import field_of

    assert field_of(header)[0] == field


@pytest.mark.parametrize("cut", [3, 10, 40])
def test_a_wide_table_that_is_cut_off(cut):
    text = "\n".join(wide(truth()))
    assert quarantined(read(text[:-cut])) == [(9, "truncated_row")]


def test_control_records_without_a_contract():
    assert read(csv() + "TRAILER,12,999.00\n").rows.num_rows == 12
    assert read(csv() + "TRAILER,14,999.00\n").file_reason == "trailer_count_mismatch"


def test_basis_points_in_the_cell():
    check(read("\n".join([HEADER, *(line(t, ret=f"{t.ret * 10000} bps") for t in truth())])))


def test_amounts_in_thousands():
    out = ["account,date,bmv (000s),net flow (000s),emv (000s)"]
    out += [f"{t.account},{t.end},{t.bmv / 1000},{t.net / 1000},{t.emv / 1000}" for t in truth()]
    reading = read("\n".join(out))
    check(reading)
    assert "amounts_scaled" in reading.warnings


def test_a_wide_table_of_percent_signs_is_of_returns():
    reading = read("Account,Jan 2024,Feb 2024\nA1,1.2%,3.4%\nA2,1%,-2%\n")
    assert [r["return_net"] for r in reading.rows.to_pylist()] == [
        Decimal(v) for v in ("0.012", "0.034", "0.01", "-0.02")
    ]
    assert read("Account,Jan 2024,Feb 2024\nA1,1.2,3.4\nA2,1,-2\n").file_reason == "unknown_measure"


def test_periods_above_measures():
    text = ",Jan-24,,,Feb-24,,\nAccount,BMV,Net Flow,EMV,BMV,Net Flow,EMV\nA1,100,0,110,110,5,120\nA2,100,0,110,110,5,120\n"
    reading = read(text)
    assert reading.rows["ending_market_value"].to_pylist() == [110, 120, 110, 120]
    assert reading.rows["line"].to_pylist() == [3, 3, 4, 4]


def test_years_and_months_in_columns():
    out = [
        "account,year,month,bmv,net flow,emv",
        *(f"{t.account},2024,{t.end.month},{t.bmv},{t.net},{t.emv}" for t in truth()),
    ]
    check(read("\n".join(out)))


def test_json_with_a_map_of_months():
    rows = truth()
    accounts = [
        {
            "account": a,
            "currency": "USD",
            "returns": {f"{t.end:%Y-%m}": f"{t.ret * 100}%" for t in rows if t.account == a},
        }
        for a in ("0012345678", "12E45678")
    ]
    reading = read(json.dumps(accounts))
    assert {r["return_net"] for r in reading.rows.to_pylist()} == {t.ret for t in rows}


def test_a_row_of_units_and_totals_of_groups():
    out = [HEADER, ",,,USD,USD,USD,USD,USD,%", *(line(t) for t in truth()), "Relationship Total: Smith,,,,,,,99.00,"]
    reading = read("\n".join(out))
    check(reading)
    assert (reading.skipped["unit_rows"], reading.skipped["totals"]) == (1, 1)


def test_ids_guarded_against_spreadsheets():
    check(read(csv().replace("0012345678", '="0012345678"')))


def test_numeric_ids_in_a_workbook():
    rows = truth(("55512345",))
    grid = [
        HEADER.split(","),
        *(
            [
                55512345 if n else 1.2345678901234567e17,
                t.end,
                "USD",
                float(t.bmv),
                float(t.contributions),
                float(t.distributions),
                float(t.fees),
                float(t.emv),
                float(t.ret),
            ]
            for n, t in enumerate(rows)
        ),
    ]
    reading = read(workbook({"S": grid}))
    assert quarantined(reading) == [(2, "id_precision_lost")]


def test_noise_of_doubles_in_a_workbook():
    rows = truth()
    grid = [
        HEADER.split(","),
        *(
            [
                t.account,
                t.end,
                "USD",
                float(t.bmv) + 1e-9,
                float(t.contributions),
                float(t.distributions),
                float(t.fees),
                float(t.emv),
                float(t.ret),
            ]
            for t in rows
        ),
    ]
    check(read(workbook({"S": grid})))


def test_accounts_of_two_grains():
    rows = [*truth(("A", "B")), *truth(("Q",), (3, 6))]
    reading = read(csv(rows))
    check(reading, rows)
    assert {r["granularity"] for r in reading.rows.to_pylist() if r["account_id"] == "Q"} == {"quarterly"}
    assert reading.granularity == "mixed"
    assert reading.action == "accept"


def test_grain_from_the_span_of_each_row():
    rows = truth(("A",), (4, 5, 6))
    out = [
        HEADER + ",period_start",
        *(f"{line(t)},{t.end.replace(day=1)}" for t in rows),
        line(rows[2], bmv=rows[0].bmv) + ",2024-04-01",
    ]
    reading = read("\n".join(out))
    assert sorted(reading.rows["granularity"].to_pylist()) == ["monthly"] * 3 + ["quarterly"]


def test_json_objects_one_after_the_other():
    check(read("\n".join(json.dumps(o, indent=1) for o in objects(truth()))))


def test_json_elements_that_are_no_records():
    reading = read(json.dumps([*objects(truth()), None, "x"]))
    check(reading)
    assert reading.skipped["not_records"] == 2
    assert "records_ignored" in reading.warnings


def test_noise_of_doubles_in_text():
    rows = truth()
    lines = [line(t) for t in rows]
    lines[2] = line(rows[2], emv=repr(math.nextafter(float(rows[2].emv), math.inf)))
    lines[3] = line(rows[3], bmv=repr(math.nextafter(float(rows[3].bmv), 0)))
    reading = read("\n".join([HEADER, *lines]))
    check(reading)
    assert reading.warnings == ["float_noise_rounded"]


@pytest.mark.parametrize("data", [b"\xef\xbb\xbf", b"\xff\xfe", b"\xef\xbb\xbf\r\n\r\n", b"   "])
def test_nothing_but_a_mark(data):
    assert read(data).file_reason == "empty_file"


def test_header_only_in_other_layouts():
    for data in (
        workbook({"S": [["Title"], HEADER.split(",")]}),
        f"Title\n\n{HEADER}\n".encode(),
        HEADER.encode("utf-16"),
    ):
        reading = read(data)
        assert (reading.action, reading.warnings) == ("accept_with_warnings", ["no_data_rows"])
