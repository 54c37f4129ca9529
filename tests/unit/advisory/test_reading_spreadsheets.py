"""Workbooks that are not xlsx: the same hazards, the same behaviour, whatever the kind."""

from __future__ import annotations

import io
import struct
import time
from datetime import date
from decimal import Decimal

import pytest
from fixtures.spreadsheets import (
    ODS_HEAD,
    WRITERS,
    XML_SHEET_HEAD,
    Error,
    Merged,
    Percent,
    ods,
    parts_of,
    record,
    xls,
    xlsb,
    xml_sheet,
    zipped,
)
from fixtures.vendor_files import HEADER, check, quarantined, read, truth

from finance_assets.advisory.reading import spreadsheets
from finance_assets.advisory.reading.binary_workbook import is_date_format
from finance_assets.advisory.reading.containers import kind_of

KINDS = sorted(WRITERS)
every_kind = pytest.mark.parametrize("kind", KINDS)


def cells(t, **changed: object) -> list[object]:
    made: dict[str, object] = {
        "account": t.account, "end": t.end, "currency": "USD", "bmv": float(t.bmv), "c": float(t.contributions),
        "d": float(t.distributions), "fees": float(t.fees), "emv": float(t.emv), "ret": float(t.ret),
    }  # fmt: skip
    made.update(changed)
    return list(made.values())


def grid(**changed: object) -> list[list[object]]:
    return [HEADER.split(","), *(cells(t, **changed) for t in truth())]


@every_kind
def test_a_plain_sheet(kind):
    reading = read(WRITERS[kind]({"Perf": grid()}), "lies.csv")
    check(reading)
    assert reading.action == "accept"
    assert set(reading.rows["member"].to_pylist()) == {"Perf"}
    assert sorted(reading.rows["line"].to_pylist()) == list(range(2, 14))


@every_kind
def test_titles_totals_other_sheets_merged_cells_and_percent_formats(kind):
    rows = truth()
    body = [
        cells(t, ret=Percent(float(t.ret)), end=t.end if n % 2 else f"{t.end:%m/%d/%Y}") for n, t in enumerate(rows)
    ]
    performance = [
        [Merged("Acme Wealth", 4)],
        ["As of 06/30/2024"],
        [],
        HEADER.split(","),
        *body[:6],
        HEADER.split(","),
        *body[6:],
        ["Total", None, None, None, None, None, None, 1.0],
        [],
        ["Past performance is no guarantee of future results."],
    ]
    reading = read(
        WRITERS[kind]({"Cover": [["Hello"]], "Performance": performance, "Notes": [["account_id", "see page 1"]]})
    )
    check(reading)
    assert (reading.skipped["other_sheets"], reading.skipped["totals"], reading.skipped["repeated_headers"]) == (
        2,
        1,
        1,
    )
    assert {r["line"] for r in reading.rows.to_pylist()} == {*range(5, 11), *range(12, 18)}


@every_kind
def test_percent_formats_settle_returns_without_values(kind):
    """Nothing else tells 0.015 below a header of percents from 0.015 percent."""
    rows = truth()
    table = [["account_id", "period_end", "Return %"], *([t.account, t.end, Percent(float(t.ret))] for t in rows)]
    check(read(WRITERS[kind]({"R": table})), flows=False)


@every_kind
def test_wide_with_seven_title_rows(kind):
    rows = truth()
    months = sorted({t.end for t in rows})
    table: list[list[object]] = [
        ["Direct"], ["Report"], ["Currency: EUR"], [], ["Monthly Return %"], ["x"], [], ["Account", *months],
    ]  # fmt: skip
    for account in ("0012345678", "12E45678"):
        table.append([account, *(float(t.ret * 100) for t in rows if t.account == account)])
    reading = read(WRITERS[kind]({"Returns": table}), "direct.xls")
    assert {round(r["return_net"], 8) for r in reading.rows.to_pylist()} == {t.ret for t in rows}
    assert set(reading.rows["currency"].to_pylist()) == {"EUR"}


@every_kind
def test_a_sheet_per_account(kind):
    sheets = {
        account: [
            [f"Account: {account}"],
            HEADER.split(",")[1:],
            *(cells(t)[1:] for t in truth() if t.account == account),
        ]
        for account in ("0012345678", "12E45678")
    }
    check(read(WRITERS[kind](sheets)))


@every_kind
def test_doubles_are_what_the_spreadsheet_shows(kind):
    noisy = [HEADER.split(",")]
    for t in truth():
        third = float(t.bmv) / 3
        noisy.append(cells(t, bmv=third + third + third + 1e-9, emv=float(t.emv) * 1.1 / 1.1))
    check(read(WRITERS[kind]({"S": noisy})))


@every_kind
def test_ids_stored_as_numbers(kind):
    rows = truth(("55512345",))
    table = [
        HEADER.split(","),
        *(cells(t, account=55512345 if n else 1.2345678901234567e17) for n, t in enumerate(rows)),
    ]
    reading = read(WRITERS[kind]({"S": table}))
    assert quarantined(reading) == [(2, "id_precision_lost")]
    assert set(reading.rows["account_id"].to_pylist()) == {"55512345"}


@every_kind
def test_an_error_is_no_empty_cell(kind):
    table = grid()
    table[3][4] = Error("#REF!")  # a flow that is not known is not a flow of nothing
    table[4][8] = Error("#N/A")
    reading = read(WRITERS[kind]({"S": table}))
    assert quarantined(reading) == [(4, "bad_number")]
    (row,) = [r for r in reading.rows.to_pylist() if r["line"] == 5]
    assert row["return_net"] is None


@every_kind
def test_personal_data_is_dropped(kind):
    secrets = ("900-12-3456", date(1961, 4, 9), "jane@example.com", "+1 212 555 0100")
    table = [[*HEADER.split(","), "ssn", "Date of Birth", "E-Mail", "misc"], *([*cells(t), *secrets] for t in truth())]
    table[3][7] = "jane@example.com"
    table[5][0] = "jane@example.com"
    reading = read(WRITERS[kind]({"S": table}))
    assert "pii_columns_dropped" in reading.warnings
    assert reading.quarantined.num_rows == 2
    blob = str(reading) + str(reading.rows.to_pylist()) + str(reading.quarantined.to_pylist())
    assert not [s for s in (*secrets, "1961-04-09", "jane") if str(s) in blob]


@every_kind
def test_no_table_of_performance(kind):
    write = WRITERS[kind]
    assert read(write({"S": [["city", "people"], ["Paris", 2]]})).file_reason == "unknown_schema"
    assert read(write({"S": [[None]]})).file_reason == "empty_file"
    positions = [
        ["account", "symbol", "quantity", "price", "market_value", "as_of"],
        ["A1", "IBM", 1, 5, 5, "2024-01-31"],
    ]
    assert read(write({"S": positions})).file_reason == "not_performance"
    assert read(write({"S": [HEADER.split(",")]})).warnings == ["no_data_rows"]


@every_kind
def test_within_an_archive(kind):
    reading = read(zipped({"a/b.dat": WRITERS[kind]({"Perf": grid()}), "README.txt": b"Hello there"}))
    check(reading)
    assert set(reading.rows["member"].to_pylist()) == {"a/b.dat/Perf"}


@every_kind
def test_damage_is_a_verdict(kind):
    data = WRITERS[kind]({"Perf": grid()})
    for cut in (len(data) // 2, len(data) - 40):
        reading = read(data[:cut])
        assert reading.file_reason in {"corrupt_workbook", "corrupt_archive", "truncated_file"}, reading.file_reason


@pytest.mark.parametrize("kind", ["xls", "xlsb", "ods"])
def test_another_reader_reads_the_same(kind):
    """The writers of these tests are right: a library that shares nothing with them gives the same cells."""
    import python_calamine

    table = [["a", "b", None, "d"], [1.25, 55512345, date(2024, 1, 31), -0.5], [None, "x", 1e-7, 123456789.01]]
    book = python_calamine.load_workbook(io.BytesIO(WRITERS[kind]({"One": table, "Two": [["z"]]})))
    assert book.sheet_names == ["One", "Two"]
    got = book.get_sheet_by_name("One").to_python(skip_empty_area=False)[:3]
    assert [["" if v is None else v for v in row] + [""] * (4 - len(row)) for row in table] == [r[:4] for r in got]


# --- xls -------------------------------------------------------------------------------------------------------------


def test_kinds_are_told_by_content():
    assert {kind: kind_of(write({"S": grid()})) for kind, write in WRITERS.items()} == {k: k for k in KINDS}


def test_an_encrypted_xls():
    import xlwt

    book = xlwt.Workbook()
    book.add_sheet("S").write(0, 0, "x")
    out = io.BytesIO()
    book.save(out)
    data = bytearray(out.getvalue())
    start = data.index(struct.pack("<HH", 0x0809, 16))  # beginning of the workbook's records
    after = start + 20
    filepass = struct.pack("<HHHHH", 0x2F, 6, 0, 0x1234, 0x5678)
    data[after : after + len(filepass)] = filepass
    assert read(bytes(data)).file_reason == "encrypted"


def test_other_documents_in_the_container_of_xls():
    data = xls({"S": grid()}).replace("Workbook".encode("utf-16-le"), "Wordbook".encode("utf-16-le"))
    assert read(data).file_reason == "unsupported_document"


def test_records_without_a_container():
    import xlwt

    book = xlwt.Workbook()
    sheet = book.add_sheet("S")
    for r, row in enumerate(grid()):
        for c, value in enumerate(row):
            sheet.write(r, c, str(value) if isinstance(value, date) else value)
    data = book.get_biff_data()
    assert not data.startswith(b"\xd0\xcf")
    check(read(data))


def test_dates_since_1904():
    import xlwt

    book = xlwt.Workbook()
    book.dates_1904 = True
    sheet = book.add_sheet("S")
    day = xlwt.easyxf(num_format_str="d-mmm-yy")
    for r, row in enumerate(grid()):
        for c, value in enumerate(row):
            if isinstance(value, date):
                sheet.write(r, c, (value - date(1904, 1, 1)).days, day)
            else:
                sheet.write(r, c, value)
    out = io.BytesIO()
    book.save(out)
    check(read(out.getvalue()))
    table = [
        [(v - (date(1904, 1, 1) - date(1899, 12, 30))) if isinstance(v, date) else v for v in row] for row in grid()
    ]
    check(read(xlsb({"S": table}, since_1904=True)))


@pytest.mark.parametrize(
    ("shown", "expected"),
    [("dd/mm/yyyy", True), ("[$-409]mmm-yy;@", True), ("h:mm", True), ("[h]:mm", True), ("0.00%", False), ("General", False),
     ('#,##0.00" days"', False), ("#,##0_);[Red](#,##0)", False), ("", False), ("[Yellow]0.0", False), (r"0\d", False)],
)  # fmt: skip
def test_formats_of_dates(shown, expected):
    assert is_date_format(shown) is expected


@pytest.mark.parametrize(
    ("serial", "expected"),
    [(45322.0, "2024-01-31"), (45322.75, "2024-01-31"), (0.5, "12:00:00"), (-1.0, "-1"), (3e6, "3000000"), (0.999999999, "00:00:00")],
)  # fmt: skip
def test_serials(serial, expected):
    assert spreadsheets.serial_text(serial, False)[0] == expected


# --- xlsb ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "sheet",
    [record(145) + record(0, struct.pack("<I", 1 << 21)), record(145) + record(0, struct.pack("<I", 0)) + record(5, struct.pack("<IId", 1 << 15, 0, 1.0)),
     record(145) + record(5, struct.pack("<IId", 0, 0, 1.0)), record(145) + record(0, b"\0"), record(145) + record(13, b"\0" * 8), b"\x91\x01\xff\xff\xff\x7f",
     record(145) + record(0, struct.pack("<I", 0)) + record(7, struct.pack("<III", 0, 0, 999)), record(145) + record(0, struct.pack("<I", 0)) + record(6, struct.pack("<III", 0, 0, 1 << 30))],
)  # fmt: skip
def test_records_that_lie(sheet):
    parts = parts_of(xlsb({"S": grid()}))
    parts["xl/worksheets/sheet1.bin"] = sheet
    assert read(zipped(parts)).file_reason == "corrupt_workbook"


def test_packed_numbers():
    parts = parts_of(xlsb({"S": grid()}))
    hundredths = ((-12345 << 2) | 3) & 0xFFFFFFFF
    parts["xl/worksheets/sheet1.bin"] = (
        record(145) + record(0, struct.pack("<I", 4)) + record(2, struct.pack("<III", 0, 0, hundredths))
        + record(2, struct.pack("<IIi", 1, 2, 5 << 2 | 2)) + record(1, struct.pack("<II", 2, 0))
        + record(62, struct.pack("<II", 3, 0) + b"\1" + struct.pack("<I", 2) + "hi".encode("utf-16-le")) + record(146)
    )  # fmt: skip
    book = spreadsheets.read_workbook("xlsb", zipped(parts))
    ((title, rows),) = book.sheets
    assert (title, rows) == ("S", [(5, ["-123.45", "500%", "", "hi"], frozenset({0, 1}))])


# --- ods -------------------------------------------------------------------------------------------------------------


def test_an_encrypted_ods():
    manifest = b"<manifest><file-entry><encryption-data/></file-entry></manifest>"
    assert read(ods({"S": grid()}, more={"META-INF/manifest.xml": manifest})).file_reason == "encrypted"
    assert read(ods({"S": grid()}, more={"encrypted-package": b"x"})).file_reason == "encrypted"


def test_other_open_documents():
    assert (
        read(zipped({"mimetype": "application/vnd.oasis.opendocument.text", "content.xml": "<a/>"})).file_reason
        == "unsupported_document"
    )
    assert (
        read(zipped({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"})).file_reason == "corrupt_workbook"
    )


def test_a_flat_document():
    body = parts_of(ods({"S": grid()}))["content.xml"]
    assert isinstance(body, bytes)
    check(read(body.replace(b"office:document-content", b"office:document")))


def test_repeated_cells_notes_and_hidden_values():
    cell = '<table:table-cell office:value-type="string"><office:annotation><text:p>secret note</text:p></office:annotation><text:p>A</text:p><text:p>B<text:s text:c="2"/>C</text:p></table:table-cell>'
    covered = '<table:covered-table-cell office:value-type="string"><text:p>hidden</text:p></table:covered-table-cell>'
    number = '<table:table-cell table:number-columns-repeated="3" office:value-type="currency" office:value="1.5E3"><text:p>$1,500</text:p></table:table-cell>'
    old = "<table:tracked-changes><table:table-cell><text:p>old</text:p></table:table-cell></table:tracked-changes>"
    inner = '<table:table-cell><table:table table:name="inner"><table:table-row><table:table-cell><text:p>inner</text:p></table:table-cell></table:table-row></table:table></table:table-cell>'
    body = f'{old}<table:table table:name="S"><table:table-row table:number-rows-repeated="2">{cell}{covered}{number}{inner}</table:table-row></table:table>'
    book = spreadsheets.read_workbook("ods", ods({}, body=body))
    row = (["A B  C", "", "1500", "1500", "1500"], frozenset({2, 3, 4}))
    assert book.sheets == [("S", [(1, *row), (2, *row)])]


def test_line_ends_between_elements():
    body = parts_of(ods({"S": [["Title"], *grid()]}))["content.xml"]
    assert isinstance(body, bytes)
    check(read(body.replace(b"office:document-content", b"office:document").replace(b"><", b">\n  <")))


def repeated(rows: int, columns: int) -> str:
    return (
        f'<table:table table:name="S"><table:table-row table:number-rows-repeated="{rows}"><table:table-cell '
        f'table:number-columns-repeated="{columns}" office:value-type="float" office:value="1"/></table:table-row></table:table>'
    )


@pytest.mark.parametrize(
    ("rows", "columns", "reason"),
    [(10**8, 1, "too_many_rows"), (10**6, 16384, "too_many_cells"), (10**12, 1, "corrupt_workbook"), (1, 10**9 - 1, "unknown_schema")],
)  # fmt: skip
def test_sheets_that_say_they_are_huge(rows, columns, reason):
    start = time.monotonic()
    assert read(ods({}, body=repeated(rows, columns))).file_reason == reason
    assert time.monotonic() - start < 5


# --- XML spreadsheets ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1", "windows-1252"])
def test_encodings_of_xml_spreadsheets(encoding):
    table = [["Zürich & Söhne"], *grid()]
    check(read(xml_sheet({"Übersicht": table}, encoding)))


def test_attributes_without_a_prefix():
    check(read(xml_sheet({"S": [["Title"], [], *grid()]}).replace(b" ss:", b" ")))


def test_cells_of_xml_spreadsheets():
    body = (
        '<Worksheet ss:Name="S"><Table ss:StyleID="Default"><Column ss:Index="3" ss:StyleID="s1" ss:Span="1"/>'
        '<Row ss:Index="2"><Cell ss:MergeAcross="1"><Data ss:Type="String">a</Data><Comment><ss:Data>secret</ss:Data></Comment></Cell>'
        '<Cell><Data ss:Type="Number">0.5</Data></Cell><Cell ss:StyleID="Default"><Data ss:Type="Number">1.5024800000000001E-2</Data></Cell>'
        '<Cell ss:Index="7"><ss:Data ss:Type="String" xmlns="http://www.w3.org/TR/REC-html40"><B>bold</B> text</ss:Data></Cell></Row>'
        '<Row ss:Span="3"/><Row><Cell><Data ss:Type="Boolean">1</Data></Cell><Cell><Data ss:Type="Number">1e999</Data></Cell>'
        '<Cell><Data ss:Type="Number">1e-999999999</Data></Cell></Row></Table></Worksheet></Workbook>'
    )
    book = spreadsheets.xml_spreadsheet((XML_SHEET_HEAD + body).encode())
    assert book.sheets == [
        ("S", [(2, ["a", "", "50.0%", "0.0150248", "", "", "bold text"], frozenset({2, 3})),
               (7, ["True", "NaN", "0%"], frozenset({1, 2}))]),
    ]  # fmt: skip


@pytest.mark.parametrize("body", ['<Worksheet><Table><Row ss:Index="x"/></Table></Worksheet>', '<Worksheet><Table><Row><Cell ss:Index="-5"/></Row></Table></Worksheet>'])  # fmt: skip
def test_xml_spreadsheets_that_state_nonsense(body):
    assert read(XML_SHEET_HEAD + body + "</Workbook>").file_reason == "corrupt_workbook"


# --- limits of archives ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["xlsb", "ods"])
def test_archives_are_checked_like_others(kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    parts = parts_of(WRITERS[kind]({"Perf": grid()}))
    assert read(zipped(parts | {"../evil.bin": b"x"})).file_reason == "path_traversal"
    assert read(zipped(parts | {"xl/media/zeros": b"0" * (30 << 20)})).file_reason == "decompression_bomb"
    assert read(zipped(parts | {f"x{n}": b"" for n in range(600)})).file_reason == "too_many_members"
    assert not list(tmp_path.iterdir())


def test_a_bomb_in_the_content():
    row = "<table:table-row><table:table-cell><text:p>x</text:p></table:table-cell></table:table-row>"
    assert read(ods({}, body="<table:table>" + row * 400_000 + "</table:table>")).file_reason == "decompression_bomb"


def test_exact_text_of_amounts():
    table = grid()
    table[1][3] = table[1][7] = 99999999999.99
    table[1][8] = None
    for write in WRITERS.values():
        row = next(r for r in read(write({"S": table})).rows.to_pylist() if r["line"] == 2)
        assert row["ending_market_value"] == Decimal("99999999999.99")


def test_documents_of_the_office_head():
    assert read(ODS_HEAD).file_reason == "truncated_file"
