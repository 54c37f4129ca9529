"""A large file is read by columns that are typed at once; it comes out as a small one does.

What belongs here: the ways of reading large files against each other, as a whole, by blocks, and from a disk.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import random
import zipfile
from collections.abc import Callable, Sequence
from datetime import UTC, date, datetime
from decimal import Decimal

import pyarrow as pa
import pyarrow.csv as arrow_csv
import pyarrow.parquet as pq
import pytest
from fixtures.vendor_files import on_disk

from finance_assets.advisory.generating import vendor_files, write_large_csv
from finance_assets.advisory.reading import blocks, layouts, reader
from finance_assets.advisory.reading.blocks import LargeRows
from finance_assets.advisory.reading.containers import FileBytes
from finance_assets.advisory.reading.reader import FileReading, read_vendor_file
from finance_assets.advisory.reading.vendor_contract import Detection, VendorContract

RECEIVED = datetime(2024, 7, 3, tzinfo=UTC)


def read(data: bytes | FileBytes, name: str = "file.csv", contracts: Sequence[VendorContract] = ()) -> FileReading:
    return read_vendor_file(data, name, contracts=contracts, received_at=RECEIVED)


def read_from_disk(data: bytes, name: str = "file.csv", contracts: Sequence[VendorContract] = ()) -> FileReading:
    with on_disk(data) as file:
        return read(file, name, contracts)


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[layouts.Plan]:
    """What was planned for the files that a test reads; every file counts as large."""
    made: list[layouts.Plan] = []
    plan = layouts.plan_of

    def noted(*args: object) -> layouts.Plan:
        made.append(plan(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(layouts, "plan_of", noted)
    return made


def both_ways(data: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[FileReading, FileReading]:
    small = read(data)
    monkeypatch.setattr(layouts, "THREADED_TEXT_BYTES", 0)
    # The plan rests on the first hundred rows or so, and the rest must hold to it.
    monkeypatch.setattr(layouts, "PLANNED_TEXT", 1 << 14)
    large = read(data)
    for size in (1 << 13, 1 << 16):
        monkeypatch.setattr(blocks, "LARGE_TEXT", 0)
        monkeypatch.setattr(blocks, "BLOCK_BYTES", size)
        monkeypatch.setattr(blocks, "_ROWS_AT_ONCE", 100)
        by_blocks, from_disk = read(data), read_from_disk(data)
        assert_same(small, by_blocks, by_blocks=True)
        assert_same(by_blocks, from_disk)
    monkeypatch.undo()
    return small, large


def assert_same(small: FileReading, large: FileReading, *, by_blocks: bool = False) -> None:
    assert large.sha256 == small.sha256
    assert large.rows.equals(small.rows)
    assert large.row_count == small.row_count
    assert large.quarantined.equals(small.quarantined)
    for name in ("action", "vendor", "file_reason", "warnings", "skipped", "granularity"):
        assert getattr(large, name) == getattr(small, name), name
    # How sure the detection is, blocks say by themselves; the file's score is their mean.
    assert large.score == (pytest.approx(small.score, abs=0.02) if by_blocks else small.score)


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = tmp_path_factory.mktemp("large") / "large.csv"
    assert write_large_csv(path, 60, 24) == 1440
    return path.read_text().splitlines()


def changed(lines: list[str], row: int, column: int, value: str) -> list[str]:
    cells = lines[row].split(",")
    cells[column] = value
    return [*lines[:row], ",".join(cells), *lines[row + 1 :]]


ENDING, RETURN, ACCOUNT, END, CURRENCY = 12, 13, 0, 2, 3
CASES: dict[str, tuple[int, int, str]] = {
    "a word": (700, ENDING, "abc"),
    "nothing": (700, ENDING, ""),
    "a word for nothing": (700, 8, "N/A"),
    "a dash": (700, 8, "-"),
    "an exponent": (700, 8, "1.5E2"),
    "a plus": (700, 8, "+12.50"),
    "thousands": (700, 8, '"1,234.50"'),
    "a bracket": (700, 9, "(12.50)"),
    "a percent sign": (700, RETURN, "1.25%"),
    "a currency sign": (700, 8, "$12.50"),
    "spaces": (700, 8, "  12.50 "),
    "nine decimals": (700, 8, "12.123456789"),
    "nine decimals that end in nothing": (700, 8, "12.120000000"),
    "too large": (700, ENDING, "123456789012345678901234.00"),
    "just too large": (700, ENDING, "100000000000000000000.00"),
    "a return that is too large": (700, RETURN, "90000000000.5"),
    "a return of many decimals": (700, RETURN, "0.0123456789012345678"),
    "not a number": (700, 8, "NaN"),
    "infinite": (700, 8, "inf"),
    "a number that looks like thousands": (700, 8, "1.234"),
    "an account with a space": (700, ACCOUNT, " 0010000003"),
    "a total": (700, ACCOUNT, "Total"),
    "no account": (700, ACCOUNT, ""),
    "a date of another form": (700, END, "20150331"),
    "no date": (700, END, "soon"),
    "another currency": (700, CURRENCY, "eur"),
    "no currency": (700, CURRENCY, "Q"),
}


@pytest.mark.parametrize("case", CASES)
def test_one_odd_cell_makes_no_difference(
    case: str, lines: list[str], monkeypatch: pytest.MonkeyPatch, plans: list[layouts.Plan]
) -> None:
    data = ("\n".join(changed(lines, *CASES[case])) + "\n").encode()
    assert_same(*both_ways(data, monkeypatch))
    assert not plans[0].numbers
    assert len(plans[1].numbers) == 11


def test_plain_columns_are_typed_at_once(
    lines: list[str], monkeypatch: pytest.MonkeyPatch, plans: list[layouts.Plan]
) -> None:
    small, large = both_ways(("\n".join(lines) + "\n").encode(), monkeypatch)
    assert_same(small, large)
    assert large.rows.num_rows == 1440
    assert sorted(plans[1].numbers) == list(range(4, 15))
    assert plans[1].repeated == {0, 1, 2, 3}


def with_commas(lines: list[str]) -> list[str]:
    """Lines as an office in Europe writes them."""
    return [line.replace(",", ";").replace(".", ",") for line in lines]


def with_signs(lines: list[str]) -> list[str]:
    """Lines whose returns carry a percent sign."""
    made = [lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        made.append(",".join([*cells[:RETURN], *(f"{Decimal(cell) * 100:.8f}%" for cell in cells[RETURN:])]))
    return made


ODD_AMOUNTS = ["12.50", "1.234", "1.234,50", "1,234", "12,123456789", "(12,50)", "1.234.567", "1e3", "12 345,50", "abc"]


@pytest.mark.parametrize("amount", ODD_AMOUNTS)
def test_one_odd_amount_among_decimal_commas_makes_no_difference(
    amount: str, lines: list[str], monkeypatch: pytest.MonkeyPatch, plans: list[layouts.Plan]
) -> None:
    made = with_commas(lines)
    cells = made[700].split(";")
    cells[8] = amount
    data = ("\n".join([*made[:700], ";".join(cells), *made[701:]]) + "\n").encode()
    assert_same(*both_ways(data, monkeypatch))
    assert [(plan.mark, len(plan.numbers)) for plan in plans[1:2]] == [(",", 11)]


@pytest.mark.parametrize("columns", [range(4, 15), range(4, 9), range(13, 15), range(4, 5)])
def test_columns_with_another_decimal_mark_make_no_difference(
    columns: range, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [
        ";".join(cell.replace(".", ",") if place in columns else cell for place, cell in enumerate(line.split(",")))
        for line in lines
    ]
    assert_same(*both_ways(("\n".join(made) + "\n").encode(), monkeypatch))


@pytest.mark.parametrize(
    "odd", ["", "Total,,,,,,,,,,,,50633.52,,", "one,two", "End of report", lambda line: line + ",x", lambda line: line]
)
def test_odd_lines_make_no_difference(odd: object, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    line = odd(lines[900]) if callable(odd) else odd
    data = ("\n".join([*lines[:900], line, *lines[900:]]) + "\n").encode()
    small, large = both_ways(data, monkeypatch)
    assert_same(small, large)
    assert small.rows["line"].to_pylist() == large.rows["line"].to_pylist()


@pytest.mark.parametrize("end", [-1, -3, -20])
def test_a_cut_off_file_makes_no_difference(end: int, lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = both_ways("\n".join(lines).encode()[:end], monkeypatch)
    assert_same(small, large)
    assert "truncated_file" in small.warnings


@pytest.mark.parametrize("scale", ["percent", "pence", "thousands", "signed"])
def test_conventions_are_proved_in_numbers_as_in_text(
    scale: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = [lines[0].replace("fees", "fees (thousands)") if scale == "thousands" else lines[0]]
    for line in lines[1:]:
        cells = line.split(",")
        if scale == "percent":
            cells[RETURN:] = [f"{float(cell) * 100:.6f}" for cell in cells[RETURN:]]
        elif scale == "pence":
            cells[CURRENCY] = "GBX"
        elif scale == "signed":
            cells[6], cells[10] = f"-{cells[6]}", f"-{cells[10]}"
        made.append(",".join(cells))
    assert_same(*both_ways(("\n".join(made) + "\n").encode(), monkeypatch))


def test_files_of_every_vendor_are_read_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    for file in vendor_files(3, 12, 6, date(2013, 1, 31)):
        assert_same(*both_ways(file.data, monkeypatch))


def test_many_mutations_make_no_difference(lines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    chance = random.Random(11)
    for _ in range(25):
        data = bytearray(("\n".join(lines[:600]) + "\n").encode())
        for _ in range(chance.randint(1, 6)):
            place = chance.randrange(200, len(data) - 1)
            data[place : place + chance.randint(0, 2)] = chance.choice([b"", b",", b".", b'"', b"-", b"9", b" ", b"\n"])
        assert_same(*both_ways(bytes(data), monkeypatch))


def as_parquet(lines: list[str], types: dict[str, pa.DataType], odd: dict[str, object]) -> bytes:
    """Return rows as a Parquet file, every number of them in the types given; the rest is text."""
    table = arrow_csv.read_csv(
        io.BytesIO(("\n".join(lines) + "\n").encode()),
        convert_options=arrow_csv.ConvertOptions(column_types=dict.fromkeys(lines[0].split(","), pa.string())),
    )
    for name, kind in types.items():
        place = table.schema.get_field_index(name)
        column = table.column(name)
        column = column.cast(pa.decimal128(38, 14)).cast(kind) if pa.types.is_decimal(kind) else column.cast(kind)
        values = column.to_pylist()
        if name in odd:
            values[700] = odd[name]
        table = table.set_column(place, name, pa.array(values, kind))
    sink = io.BytesIO()
    pq.write_table(table, sink, row_group_size=600)
    return sink.getvalue()


MONEY_NAMES = ("beginning_market_value", "contributions", "net_flow", "fees", "ending_market_value")
PARQUETS: dict[str, tuple[pa.DataType, pa.DataType, dict[str, object], bool]] = {
    "decimals": (pa.decimal128(18, 2), pa.decimal128(18, 10), {}, True),
    "floats": (pa.float64(), pa.float64(), {}, True),
    "a missing float": (pa.float64(), pa.float64(), {"fees": None}, True),
    "noise": (pa.float64(), pa.float64(), {"fees": 712752.5800000001}, True),
    "a small float": (pa.float64(), pa.float64(), {"return": 1e-05}, True),
    "a float that is not a number": (pa.float64(), pa.float64(), {"fees": float("nan")}, False),
    "a large return": (pa.float64(), pa.float64(), {"return": 1234.123456789}, True),
    "a float of many decimals": (pa.float64(), pa.float64(), {"fees": 1.123456789}, False),
    "a float that is too large": (pa.float64(), pa.float64(), {"fees": 1e25}, False),
    "a missing decimal": (pa.decimal128(18, 2), pa.decimal128(18, 10), {"ending_market_value": None}, True),
}


@pytest.mark.parametrize("case", PARQUETS)
def test_numbers_of_a_large_parquet_file_stay_numbers(
    case: str, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    money, rate, odd, is_typed = PARQUETS[case]
    types = {**dict.fromkeys(MONEY_NAMES, money), "return": rate, "period_end": pa.date32()}
    data = as_parquet(lines, types, odd)
    small = read(data)
    monkeypatch.setattr(layouts, "LARGE_TABLE", 0)
    (table,) = layouts.parquet_tables(data)
    assert_same(small, read(data))
    assert len(table.decimals) == (6 if is_typed else 5)
    monkeypatch.setattr(blocks, "LARGE_TABLE", 0)
    monkeypatch.setattr(blocks, "_ROWS_AT_ONCE", 250)
    large = read(data)
    assert isinstance(large.content, LargeRows)
    assert_same(small, large, by_blocks=True)
    assert small.rows.num_rows + small.quarantined.num_rows == 1440
    monkeypatch.setattr(reader, "open_members", refuse)
    from_disk = read_from_disk(data)
    assert isinstance(from_disk.content, LargeRows)
    assert_same(large, from_disk)


# --- by blocks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read every text in blocks of eight kilobytes."""
    monkeypatch.setattr(layouts, "THREADED_TEXT_BYTES", 0)
    monkeypatch.setattr(layouts, "PLANNED_TEXT", 1 << 14)
    monkeypatch.setattr(blocks, "LARGE_TEXT", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 13)
    monkeypatch.setattr(blocks, "_ROWS_AT_ONCE", 100)
    monkeypatch.setattr(blocks, "_MOST_REPEATED", 300)


def as_file(lines: list[str], end: str = "\n") -> bytes:
    return (end.join(lines) + end).encode()


def refuse(*_: object) -> object:
    """Stand for what must not be called: that which takes all of a file."""
    raise AssertionError("all of the file came into memory")


def by_account(lines: list[str]) -> list[str]:
    return [lines[0], *sorted(lines[1:], key=lambda line: line.split(",")[0])]


def shuffled(lines: list[str]) -> list[str]:
    rows = lines[1:]
    random.Random(5).shuffle(rows)
    return [lines[0], *rows]


def without(lines: list[str], *names: str) -> list[str]:
    kept = [place for place, name in enumerate(lines[0].split(",")) if name not in names]
    return [",".join(line.split(",")[place] for place in kept) for line in lines]


def larger(lines: list[str]) -> list[str]:
    """Return the lines with amounts in the last block that 64 bits do not hold with eight decimals."""
    made = [*lines[:-40]]
    for line in lines[-40:]:
        cells = line.split(",")
        made.append(",".join([*cells[:4], *(str(Decimal(cell) * 10**9) for cell in cells[4:13]), *cells[13:]]))
    return made


def finer(lines: list[str]) -> list[str]:
    """Return the lines with more decimals in the later ones than in the first."""
    made = lines[:900]
    for line in lines[900:]:
        cells = line.split(",")
        made.append(
            ",".join([*cells[:4], *(f"{cell}00" for cell in cells[4:13]), *(f"{cell}000" for cell in cells[13:])])
        )
    return made


KEPT = {
    "a row twice": lambda lines: as_file([*lines, lines[5]]),
    "a count that is right": lambda lines: as_file([*lines, f"Record count,{len(lines) - 1}"]),
    "no last line end": lambda lines: as_file(lines)[:-1],
    "a row twice in a row": lambda lines: as_file([*lines[:900], lines[899], *lines[900:]]),
    "a row three times, before and after": lambda lines: as_file([lines[0], lines[900], *lines[1:], lines[900]]),
    "a key twice": lambda lines: as_file([*lines, changed(lines, 5, ENDING, "1.00")[5]]),
    "a key three times, two of them alike": lambda lines: as_file(
        [*lines[:700], changed(lines, 5, ENDING, "1.00")[5], *lines[700:], lines[5]]
    ),
    "rows twice and keys twice in no order": lambda lines: as_file(
        shuffled([*lines, *lines[300:310], *changed(lines, 305, ENDING, "1.00")[300:310], lines[20]])
    ),
    "rows twice of which one does not foot": lambda lines: as_file(
        [*changed(lines, 700, ENDING, "1.00"), changed(lines, 700, ENDING, "1.00")[700]]
    ),
    "as it is": lambda lines: as_file(lines),
    "by account": lambda lines: as_file(by_account(lines)),
    "in no order": lambda lines: as_file(shuffled(lines)),
    "line ends of Windows": lambda lines: as_file(lines, "\r\n"),
    "percent signs": lambda lines: as_file(with_signs(lines)),
    "decimal commas": lambda lines: as_file(with_commas(lines)),
    "decimal commas, and points that separate thousands in one row": lambda lines: as_file(
        [
            line.replace(";0,00;", ";1.000,00;", 1) if place == 900 else line
            for place, line in enumerate(with_commas(lines))
        ]
    ),
    "quotes around all": lambda lines: as_file([",".join(f'"{cell}"' for cell in line.split(",")) for line in lines]),
    "titles": lambda lines: as_file(["Performance of all accounts", "", *lines]),
    "names with accents": lambda lines: as_file(
        [f"{line},{'name' if not n else 'Zoë Müller'}" for n, line in enumerate(lines)]
    ),
    "an empty column": lambda lines: as_file(
        [f"{line},{'benchmark return' if not n else ''}" for n, line in enumerate(lines)]
    ),
    "large amounts at the end": lambda lines: as_file(larger(lines)),
    "more decimals at the end": lambda lines: as_file(finer(lines)),
    "no first days": lambda lines: as_file(without(by_account(lines), "period_start")),
    "no beginning values": lambda lines: as_file(without(by_account(lines), "beginning_market_value")),
    "a footer": lambda lines: as_file([*lines, "End of report"]),
    "odd rows here and there": lambda lines: as_file(
        [line if n % 97 else line.replace("USD", "Q") for n, line in enumerate(lines)]
    ),
}


@pytest.mark.parametrize("case", KEPT)
def test_what_is_read_by_blocks_is_what_is_read_as_a_whole(
    case: str, lines: list[str], request: pytest.FixtureRequest
) -> None:
    data = KEPT[case](lines)
    small = read(data)
    request.getfixturevalue("in_blocks")
    large = read(data)
    assert isinstance(large.content, LargeRows)
    assert_same(small, large, by_blocks=True)
    # Rows come in the order in which they are stored, whatever the file's.
    parts = pa.concat_tables(part() for part in large.content.parts(77)).cast(small.rows.schema)
    order = [(name, "ascending") for name in ("period_end", "account_id", "granularity")]
    assert parts.equals(small.rows.sort_by(order))


@pytest.mark.parametrize("case", KEPT)
def test_what_is_read_by_blocks_is_read_so_from_a_disk(
    case: str, lines: list[str], in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = KEPT[case](lines)
    large = read(data)
    monkeypatch.setattr(reader, "open_members", refuse)
    from_disk = read_from_disk(data)
    assert isinstance(from_disk.content, LargeRows)
    assert_same(large, from_disk)


def quarterly_by_period(lines: list[str]) -> list[str]:
    """Return quarters of so many accounts that no block sees two of one account."""
    rows = [line for line in lines[1:] if line.split(",")[2][5:7] in {"03", "06", "09", "12"}]
    return without([lines[0], *(f"{copy}{row}" for row in rows for copy in "123")], "period_start")


WHOLE = {
    "percent signs but for one": lambda lines: as_file(
        [line.replace("%", "", 1) if place == 900 else line for place, line in enumerate(with_signs(lines))]
    ),
    "many rows twice": lambda lines: as_file([*lines, *lines[5:200]]),
    "percent from the middle on": lambda lines: as_file(
        lines[:700]
        + [
            ",".join([*line.split(",")[:13], *(f"{Decimal(c) * 100:.8f}" for c in line.split(",")[13:])])
            for line in lines[700:]
        ]
    ),
    "signs from the middle on": lambda lines: as_file(
        lines[:700]
        + [
            ",".join(f"-{c}" if n == 10 and c != "0.00" else c for n, c in enumerate(line.split(",")))
            for line in lines[700:]
        ]
    ),
    "a count that is wrong": lambda lines: as_file([*lines, "Record count,7"]),
    "a quote that is never closed": lambda lines: as_file(
        [*lines[:500], lines[500].replace("USD", '"USD'), *lines[501:]]
    ),
    "quarters that only the whole shows": lambda lines: as_file(quarterly_by_period(lines)),
}


@pytest.mark.parametrize("case", WHOLE)
def test_what_depends_on_all_rows_is_read_as_a_whole(
    case: str, lines: list[str], request: pytest.FixtureRequest
) -> None:
    data = WHOLE[case](lines)
    small = read(data)
    request.getfixturevalue("in_blocks")
    large = read(data)
    assert isinstance(large.content, pa.Table)
    assert_same(small, large)
    from_disk = read_from_disk(data)
    assert isinstance(from_disk.content, pa.Table)
    assert_same(small, from_disk)


def test_warnings_are_known_before_and_after_the_rows_were_taken(lines: list[str], in_blocks: None) -> None:
    data = as_file(changed(lines, 700, ENDING, "1.00"))
    before, after = read(data), read(data)
    assert isinstance(after.content, LargeRows)
    taken = [part() for part in after.content.parts(50)]
    assert before.warnings == after.warnings
    assert {"rollforward_break", "components_do_not_foot"} <= set(before.warnings)
    assert sum(part.num_rows for part in taken) == before.row_count == 1440


# --- from a disk -----------------------------------------------------------------------------------------------------


def with_names(lines: list[str], name: str) -> list[str]:
    return [f"{line},{name if n else 'name'}" for n, line in enumerate(lines)]


def with_long_cell(lines: list[str], size: int) -> list[str]:
    return [f"{line},{'name' if not n else 'x' * size if n == 900 else 'x'}" for n, line in enumerate(lines)]


#: What is read from the disk block by block, and what else than rows it has.
FROM_DISK: dict[str, Callable[[list[str]], bytes]] = {
    "a byte order mark": lambda lines: b"\xef\xbb\xbf" + as_file(lines),
    "a byte order mark and line ends of Windows": lambda lines: b"\xef\xbb\xbf" + as_file(lines, "\r\n"),
    "a byte order mark before a quote": lambda lines: (
        b"\xef\xbb\xbf" + as_file([lines[0].replace("account_id", '"Account, ID"'), *lines[1:]])
    ),
    "line ends of both kinds": lambda lines: as_file(lines[:700]) + as_file(lines[700:], "\r\n"),
    "titles and line ends of Windows": lambda lines: as_file(["Performance", "", *lines, "End of report"], "\r\n"),
    "line feeds in quotes": lambda lines: as_file(with_names(lines, '"Zoë\nMüller"')),
    "line feeds of Windows in quotes": lambda lines: as_file(with_names(lines, '"Zoë\r\nMüller"'), "\r\n"),
    "quotes in quotes": lambda lines: as_file(with_names(lines, '"the ""old"" one,\n"')),
    "accents all over": lambda lines: as_file(with_names(lines, "é€ß" * 40)),
    "a line longer than a block": lambda lines: as_file(with_long_cell(lines, 1 << 15)),
    "a line longer than the head": lambda lines: as_file(with_long_cell(lines, (1 << 18) + 5)),
    "no last line feed": lambda lines: as_file(lines)[:-1],
    "no last line feed after Windows": lambda lines: as_file(lines, "\r\n")[:-2],
    "a last row that is cut off": lambda lines: as_file(lines, "\r\n")[:-7],
    "a delimiter that is declared": lambda lines: as_file(["sep=;", *(line.replace(",", ";") for line in lines)]),
}


@pytest.mark.parametrize("case", FROM_DISK)
def test_text_of_many_a_kind_is_read_by_blocks_from_a_disk(
    case: str, lines: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = FROM_DISK[case](lines)
    small = read(data)
    request.getfixturevalue("in_blocks")
    monkeypatch.setattr(reader, "open_members", refuse)
    from_disk = read_from_disk(data)
    assert isinstance(from_disk.content, LargeRows)
    assert_same(small, from_disk, by_blocks=True)
    assert small.row_count + small.quarantined.num_rows == 1440


def late(data: bytes, old: bytes, new: bytes) -> bytes:
    """Replace something at its last place, which is in the last block."""
    before, found, after = data.rpartition(old)
    assert found
    return before + new + after


def after_titles(title: str, lines: list[str]) -> bytes:
    """Return lines after titles that are more than is looked at for what the text is, the last of which is given."""
    return as_file([*(["Performance of everybody who is with us and of all others"] * 180), title, *lines])


def in_archive(data: bytes, name: str = "rows.csv") -> bytes:
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return sink.getvalue()


def as_workbook(lines: list[str]) -> bytes:
    import openpyxl

    book = openpyxl.Workbook(write_only=True)
    sheet = book.create_sheet()
    for line in lines:
        sheet.append(line.split(","))
    sink = io.BytesIO()
    book.save(sink)
    return sink.getvalue()


def as_objects(lines: list[str]) -> list[dict[str, str]]:
    header = lines[0].split(",")
    return [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]


def as_xml(lines: list[str]) -> bytes:
    rows = ("".join(f"<{name}>{value}</{name}>" for name, value in row.items()) for row in as_objects(lines))
    return f"<rows>{''.join(f'<row>{row}</row>' for row in rows)}</rows>".encode()


#: What takes all of a file, and what becomes of it: None where it is accepted.
NOT_FROM_DISK: dict[str, tuple[Callable[[list[str]], bytes], str | None]] = {
    "nothing": (lambda _: b"", "empty_file"),
    "nothing but space": (lambda _: b" \r\n" * 9000, "empty_file"),
    "nothing but a byte order mark": (lambda _: b"\xef\xbb\xbf", "empty_file"),
    "one line": (lambda lines: lines[0].encode(), None),
    "a late letter of Western Windows": (
        lambda lines: late(as_file(with_names(lines, "Muller")), b"u", b"\xfc"), None
    ),
    "letters of Western Windows": (lambda lines: "\n".join(with_names(lines, "Zoë")).encode("cp1252"), None),
    "a late letter that is broken": (
        lambda lines: late(as_file(with_names(lines, "Zoë Müller")), "ü".encode(), b"\xc3"), "undecodable"
    ),
    "a late byte of zero": (lambda lines: late(as_file(with_names(lines, "x")), b"x", b"\0"), "binary_content"),
    "a late old line end": (lambda lines: late(as_file(with_names(lines, "a b")), b" ", b"\r"), None),
    "an old line end at the very end": (lambda lines: as_file(lines)[:-1] + b"\r", None),
    "line ends of old": (lambda lines: as_file(lines, "\r"), None),
    "line ends of old and one of today": (lambda lines: as_file(lines, "\r") + b"\n", "unknown_schema"),
    "two bytes a letter": (lambda lines: as_file(lines).decode().encode("utf-16"), None),
    "two bytes a letter without a mark": (lambda lines: as_file(lines).decode().encode("utf-16-be"), None),
    "four bytes a letter": (lambda lines: as_file(lines).decode().encode("utf-32"), None),
    "a byte of zero in the titles": (lambda lines: after_titles("a\0", lines), "binary_content"),
    "a header in Western Windows after titles": (
        lambda lines: after_titles("", with_names(lines, "x")).replace(b",name", b",Abk\xfcrzung", 1), None
    ),
    "an old line end in the titles": (lambda lines: after_titles("a\rb", lines), None),
    "a first line longer than the head": (
        lambda lines: as_file(["x" * ((1 << 18) + 5), *lines]), "unknown_schema"
    ),
    "objects": (lambda lines: json.dumps(as_objects(lines)).encode(), None),
    "objects after space": (lambda lines: b"\r\n" * 1500 + json.dumps(as_objects(lines)).encode(), None),
    "a page of the web": (lambda lines: b"<!DOCTYPE html><table>" + as_file(lines), "html_content"),
    "a page of the web after space": (
        # Four kilobytes show what a text is, without the carriage returns.
        lambda lines: (b" " * 26 + b"\r\n") * 150 + b"<table>\r\n" + as_file(lines), "html_content"
    ),
    "elements": (as_xml, None),
    "an archive": (lambda lines: in_archive(as_file(lines)), None),
    "an archive in an archive": (lambda lines: in_archive(in_archive(as_file(lines)), "a.zip"), "nested_archive"),
    "an archive that is cut off": (lambda lines: in_archive(as_file(lines))[:-30], "corrupt_archive"),
    "a compressed text": (lambda lines: gzip.compress(as_file(lines), mtime=0), None),
    "a workbook": (lambda lines: as_workbook(lines[:200]), None),
    "a letter": (lambda lines: b"%PDF-1.7\n" + as_file(lines), "pdf_content"),
    "a small Parquet file": (lambda lines: as_parquet(lines, {}, {}), None),
    "a Parquet file that is cut off": (lambda lines: as_parquet(lines, {}, {})[:-9], "corrupt_parquet"),
    "a feed of something else": (lambda _: b"ticker,close\n" + b"IBM,1.0\n" * 9000, "unknown_schema"),
}  # fmt: skip


@pytest.mark.parametrize("case", NOT_FROM_DISK)
def test_what_takes_all_of_a_file_is_read_alike_from_a_disk(
    case: str, lines: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, reason = NOT_FROM_DISK[case]
    data = make(lines[:500])
    small = read(data)
    assert small.file_reason == reason
    request.getfixturevalue("in_blocks")
    # So that the tests need no long titles.
    monkeypatch.setattr(reader, "_GLANCE", 1 << 13)
    large = read(data)
    opened, open_members = [], reader.open_members

    def noted(content: bytes) -> object:
        opened.append(content)
        return open_members(content)

    monkeypatch.setattr(reader, "open_members", noted)
    from_disk = read_from_disk(data)
    assert opened == [data]
    assert type(from_disk.content) is type(large.content)
    assert_same(large, from_disk)
    assert_same(small, from_disk, by_blocks=True)


def test_no_more_of_a_file_than_a_block_is_in_memory(
    lines: list[str], in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "_GLANCE", 1 << 12)
    monkeypatch.setattr(blocks, "HEAD_BYTES", 1 << 14)
    data = as_file(with_names(lines, '"Zoë\nMüller"'))
    sizes: list[int] = []
    take = FileBytes.__getitem__

    def noted(self: FileBytes, part: slice) -> bytes:
        found = take(self, part)
        sizes.append(len(found))
        return found

    monkeypatch.setattr(FileBytes, "__getitem__", noted)
    assert isinstance(read_from_disk(data).content, LargeRows)
    assert len(sizes) > 20
    assert max(sizes) <= 1 << 14 < len(data) / 10


@pytest.mark.parametrize("is_parquet", [False, True])
def test_a_file_that_is_cut_while_it_is_read_is_no_verdict_on_it(
    is_parquet: bool, lines: list[str], in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LARGE_TABLE", 0)
    data = as_parquet(lines, {}, {}) if is_parquet else as_file(lines)
    with on_disk(data) as file:
        os.truncate(file._descriptor, len(data) // 2)
        with pytest.raises(OSError, match="was cut while it was being read"):
            read(file)


@pytest.mark.parametrize("from_disk", [False, True])
def test_a_damaged_page_of_a_large_parquet_file_is_a_damaged_file(
    from_disk: bool, lines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    data = bytearray(as_parquet(lines, {}, {}))
    # A page of the second row group.
    place = pq.read_metadata(io.BytesIO(data)).row_group(1).column(4).data_page_offset + 30
    data[place : place + 20] = b"\xff" * 20
    monkeypatch.setattr(blocks, "LARGE_TABLE", 0)
    reading = read_from_disk(bytes(data)) if from_disk else read(bytes(data))
    assert (reading.action, reading.file_reason) == ("quarantine_file", "corrupt_parquet")


@pytest.mark.parametrize("is_cut", [False, True])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_whether_the_last_row_is_cut_off_more_than_the_last_few_tell(
    count: int, is_cut: bool, lines: list[str], request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = len(lines) - 1
    if not is_cut:
        # As short as that of the row that is cut off, but another one is as well.
        for row in (900, last):
            lines = changed(lines, row, RETURN + 1, lines[row].rpartition(",")[2][:-4])
    data = as_file(lines)[: -5 if is_cut else -1]
    small = read(data)
    assert ("truncated_file" in small.warnings) is is_cut
    request.getfixturevalue("in_blocks")
    # A line ends right before the last few rows.
    monkeypatch.setattr(blocks, "BLOCK_BYTES", data.rfind(lines[-count].encode()[:60]) - data.find(b"\n") - 2)
    for large in (read(data), read_from_disk(data)):
        assert isinstance(large.content, LargeRows)
        assert_same(small, large, by_blocks=True)


# --- contracts -------------------------------------------------------------------------------------------------------


def agreed(vendor: str, **terms: object) -> VendorContract:
    detect = Detection(required_headers=("account_id", "period_end"))
    return VendorContract.model_validate({"vendor": vendor, "detect": detect, "return_unit": "decimal", **terms})


def accented(lines: list[str]) -> bytes:
    """Return rows whose accounts are not the same in every encoding."""
    return as_file([f"{'é' if n else ''}{line}" for n, line in enumerate(lines)])


@pytest.mark.parametrize("encoding", ["cp1252", "utf-8", "ascii", "no-such-encoding"])
def test_an_encoding_that_a_contract_declares_holds_on_a_disk_too(
    encoding: str, lines: list[str], in_blocks: None
) -> None:
    data, contracts = accented(lines), [agreed("acme", encoding=encoding)]
    large, from_disk = read(data, contracts=contracts), read_from_disk(data, contracts=contracts)
    assert_same(large, from_disk)
    assert large.vendor == ("acme" if encoding in {"cp1252", "utf-8"} else "unknown")
    assert large.file_reason == (None if large.vendor == "acme" else "undecodable")
    first = {"cp1252": "Ã©", "utf-8": "é"}.get(encoding)
    assert all(account.startswith(first) for account in large.rows["account_id"].to_pylist())


def test_the_encoding_is_that_of_the_contract_by_which_a_file_is_read(lines: list[str], in_blocks: None) -> None:
    """Two contracts fit, and the name tells them apart."""
    data, contracts = accented(lines), [agreed("first", encoding="cp1252"), agreed("second")]
    for name, vendor, letter in (("second.csv", "second", "é"), ("first.csv", "first", "Ã©"), ("x.csv", "first", "Ã©")):
        large, from_disk = read(data, name, contracts), read_from_disk(data, name, contracts)
        assert_same(large, from_disk)
        assert large.vendor == vendor
        assert all(account.startswith(letter) for account in large.rows["account_id"].to_pylist())


@pytest.mark.parametrize("terms", [{}, {"encoding": "cp1252"}])
def test_a_contract_that_only_the_name_speaks_for_is_noted_from_a_disk_too(
    terms: dict[str, str], lines: list[str], in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = accented(lines)
    contracts = [VendorContract.model_validate({"vendor": "acme", "id_width": 20, **terms})]
    large = read(data, "acme_2024.csv", contracts)
    monkeypatch.setattr(reader, "open_members", refuse)
    from_disk = read_from_disk(data, "acme_2024.csv", contracts)
    assert isinstance(from_disk.content, LargeRows)
    assert_same(large, from_disk)
    assert "contract_by_name" in from_disk.warnings
    assert from_disk.vendor == "acme"
    assert "contract_by_name" not in read_from_disk(data, "other.csv", contracts).warnings


def test_the_encoding_of_a_contract_says_nothing_of_a_parquet_file(
    lines: list[str], in_blocks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LARGE_TABLE", 0)
    data, contracts = as_parquet(lines, {}, {}), [agreed("acme", encoding="cp1252")]
    large = read(data, contracts=contracts)
    monkeypatch.setattr(reader, "open_members", refuse)
    from_disk = read_from_disk(data, contracts=contracts)
    assert isinstance(from_disk.content, LargeRows)
    assert_same(large, from_disk)
    assert from_disk.vendor == "acme"
