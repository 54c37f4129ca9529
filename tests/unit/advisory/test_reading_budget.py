"""What one landed file may cost: bombs of every kind, and good files beside them."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal

import pytest

from finance_assets.advisory.intake import raw_tables
from finance_assets.advisory.reading import budget, excel_workbook
from finance_assets.advisory.reading.budget import Budget, OverBudget, current_budget, spending
from finance_assets.advisory.reading.reader import FileReading
from tests.fixtures import bombs
from tests.fixtures.bombs import BOMBS, cells, grid, rows_of_truth, xlsx
from tests.fixtures.spreadsheets import ods, xls, xml_sheet, zipped
from tests.fixtures.vendor_files import RECEIVED, check, csv, on_disk, read, truth

CPU_SECONDS = 8.0
"""Most processor time for a bomb; nearly all take a tenth."""


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_costs_little_and_says_what_to_do(name: str) -> None:
    bomb = BOMBS[name]
    data = bomb.make()
    read(csv())
    start = time.process_time()
    reading = read(data, "delivery.bin")
    spent = time.process_time() - start
    assert reading.file_reason in bomb.reasons, (reading.file_reason, reading.explanation)
    assert spent < CPU_SECONDS
    if reading.file_reason is None:
        check(reading)
    else:
        assert (reading.action, reading.rows.num_rows) == ("quarantine_file", 0)
    if reading.file_reason in {limit.reason for limit in budget._LIMITS.values()} | {"decompression_bomb"}:
        assert reading.explanation
    check(read(csv()))  # the next file has a budget of its own


MEMORY = {
    "last_cell": 60,
    "zip_of_last_cells": 60,
    "many_sheets": 80,
    "long_string_many_times": 800,
    "elements_in_one_another": 450,
    "wide_context": 600,
    "dictionary_bomb": 120,
    "run_length_bomb": 60,
    "list_bomb": 60,
    "text_in_structures": 60,
    "text_in_lists": 60,
    "decimal_bomb": 120,
    "bomb_in_each_member": 120,
    "ods_repeated": 60,
    "ods_repeated_rows": 20,
    "ods_repeated_columns": 60,
    "tag_without_end": 80,
}
"""Most megabytes by which the process may grow."""


@pytest.mark.parametrize("name", MEMORY)
def test_a_bomb_takes_little_memory(name: str) -> None:
    script = (
        "import resource, sys\n"
        "from tests.fixtures.bombs import BOMBS\n"
        "from tests.fixtures.vendor_files import csv, read\n"
        "import openpyxl, xlrd\n"
        "data = BOMBS[sys.argv[1]].make()\n"
        "read(csv())\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "read(data)\n"
        "unit = 1 if sys.platform == 'darwin' else 1024\n"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit >> 20, flush=True)\n"
    )
    run = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", script, name],
        capture_output=True,
        text=True,
        timeout=300,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert run.stdout, f"ended with {run.returncode} before the file was read:\n{run.stderr}"
    assert int(run.stdout) < MEMORY[name]


# --- one budget for all that is in a file ----------------------------------------------------------------------------


def small(what: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(budget._LIMITS, what, budget._LIMITS[what]._replace(most=most))


def json_lines(rows: list[dict[str, object]]) -> str:
    return "\n".join(map(json.dumps, rows)) + "\n"


def records() -> list[dict[str, object]]:
    return [bombs._record(t) for t in truth()]


WRITERS: dict[str, Callable[[], bytes]] = {
    "xlsx": lambda: xlsx([rows_of_truth()]),
    "xls": lambda: xls({"S": grid()}),
    "ods": lambda: ods({"S": grid()}),
    "xml_sheet": lambda: xml_sheet({"S": grid()}),
    "json": lambda: json.dumps(records()).encode(),
    "json_lines": lambda: json_lines(records()).encode(),
}


@pytest.mark.parametrize("kind", WRITERS)
def test_members_draw_on_one_budget(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    one = WRITERS[kind]()
    small("cells", 300, monkeypatch)
    check(read(one))  # about 120 cells
    check(read(zipped({"a": one, "b.txt": "nothing"})))
    both = read(zipped(dict.fromkeys(("a", "b", "c"), one)))
    assert (both.action, both.file_reason) == ("quarantine_file", "too_many_cells")
    assert "300 are read" in both.explanation
    assert "split the file" in both.explanation


def test_sheets_draw_on_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    small("rows", 30, monkeypatch)
    check(read(xlsx([rows_of_truth(), cells(1, ["note"])])))
    both = read(xlsx([rows_of_truth(), rows_of_truth(), rows_of_truth()]))
    assert both.file_reason == "too_many_rows"


def test_archives_within_archives_draw_on_one_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    """A workbook is an archive: what comes out of it and what came out before count together."""
    monkeypatch.setattr(budget, "RATIO_FLOOR", 10_000)
    monkeypatch.setattr(budget, "MAX_RATIO", 0)
    one = xlsx([rows_of_truth()])
    check(read(one))
    assert read(zipped({"a.xlsx": one, "b.xlsx": one})).file_reason == "decompression_bomb"
    assert read(gzip.compress(b"a,b\n" * 5000)).file_reason == "decompression_bomb"


@pytest.mark.parametrize(
    "data",
    [
        lambda: xlsx([rows_of_truth()]),
        lambda: zipped({"a.csv": csv(), "b.csv": csv()}),
        lambda: json.dumps(records()).encode(),
        lambda: ods({"S": grid()}),
        lambda: xls({"S": grid()}),
        lambda: csv().encode(),
        lambda: gzip.compress(csv().encode()),
    ],
)
def test_processor_time_is_limited(data: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    content = data()
    check(read(content))
    for name in ("CPU_BASE", "CPU_PER_LANDED_MB", "CPU_PER_EXPANDED_MB"):
        monkeypatch.setattr(budget, name, 0.0)
    reading = read(content)
    assert (reading.action, reading.file_reason) == ("quarantine_file", "too_slow_to_read")
    assert "seconds of processor time" in reading.explanation


def test_what_was_taken_to_look_is_given_back() -> None:
    taken = Budget(1000)
    taken.take("cells", 5)
    with taken.looking():
        taken.take_cells(10, 100)
    assert (taken.used("cells"), taken.used("characters")) == (5, 0)

    def fails() -> None:
        with taken.again():
            taken.take("cells", 10)
            raise ValueError

    with pytest.raises(ValueError):
        fails()
    assert taken.used("cells") == 5
    with taken.again():
        taken.take("cells", 10)
    assert taken.used("cells") == 15
    with pytest.raises(OverBudget, match="too_many_cells"):
        taken.need("cells", budget.MAX_CELLS)
    assert taken.used("cells") == 15


def test_what_is_read_draws_on_the_budget_of_its_file() -> None:
    own = Budget(10)
    with spending(own):
        assert current_budget() is own
    assert current_budget() is not own


def test_limits_grow_with_the_file() -> None:
    large = Budget(200 << 20)
    assert large.most_cpu_seconds > 2000
    assert large.most("elements") == budget.MAX_ELEMENTS
    large.need_values(20 << 30)
    with pytest.raises(OverBudget, match="decompression_bomb"):
        Budget(1 << 20).need_values(1 << 30)


def test_the_register_of_files_says_what_was_exceeded_and_what_to_do() -> None:
    reading = read(bombs.ods_repeated())
    tables = {contract.name: rows for contract, rows in raw_tables(reading, key="a.ods", size=1, received=RECEIVED)}
    (line,) = tables["quarantined_files"].to_pylist()  # type: ignore[union-attr]
    assert line["reason"] == "too_many_cells"
    assert "20,000,000 are read" in line["what_to_do"]
    assert f"vendors replay {reading.sha256[:12]}" in line["what_to_do"]


@pytest.mark.parametrize("rows", [12, 60_000])
def test_a_small_parquet_file_of_values_that_repeat_is_read(rows: int) -> None:
    header, *lines = grid()
    columns = {str(name): [line[n] for line in lines] * (rows // 12) for n, name in enumerate(header)}
    columns["account_id"] = [f"{n:010d}" for n in range(rows)]
    reading = read(bombs.parquet(columns))
    assert (reading.file_reason, reading.rows.num_rows) == (None, rows)


# --- cells that a sheet does not write out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        bombs.ods_repeated,
        bombs.ods_repeated_rows,
        bombs.ods_repeated_narrow_rows,
        bombs.ods_repeated_often,
        bombs.ods_repeated_columns,
        bombs.xml_sheet_gaps,
        bombs.few_wide_rows,
    ],
)
def test_cells_that_are_not_written_out_are_refused_before_they_are_built(make: Callable[[], bytes]) -> None:
    data = make()
    read(csv())
    start = time.process_time()
    reading = read(data)
    assert time.process_time() - start < 1
    assert (reading.action, reading.file_reason) == ("quarantine_file", "too_many_cells")
    assert "deliver one plain table as text or Parquet" in reading.explanation


@pytest.mark.parametrize("times", [2, 100, 1000])
def test_a_row_that_a_sheet_repeats_is_read_as_often(times: int) -> None:
    reading = read(bombs.ods_repeated_rows(times))
    assert reading.file_reason is None
    assert (reading.rows.num_rows, reading.skipped["duplicate_rows"]) == (len(truth()), times - 1)


def test_cells_that_are_not_written_out_may_grow_with_the_file() -> None:
    assert Budget(1000).most("implied") == budget.IMPLIED_FLOOR
    assert Budget(1 << 20).most("implied") == budget.IMPLIED_PER_BYTE << 20
    assert Budget(1 << 30).most("implied") == budget.MAX_CELLS


# --- sparse sheets ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("row", [30, 1000, 500_000, 1_048_576])
@pytest.mark.parametrize("column", [0, 9, 300, 16_383])
def test_data_far_from_the_first_cell_is_read(row: int, column: int) -> None:
    """Blank rows and columns before the table, and a note far behind it."""
    table = grid()
    first = min(row, 1_048_576 - len(table))
    reading = read(xlsx(["".join(cells(first + n, line, min(column, 1000)) for n, line in enumerate(table))]))
    check(reading)
    assert reading.rows["line"].to_pylist() == list(range(first + 1, first + len(table)))
    more = read(xlsx([rows_of_truth() + cells(row, ["note"], column)]))
    check(more)


def test_blank_rows_count_while_they_are_few() -> None:
    assert read(xlsx([rows_of_truth(5)])).skipped["blank_lines"] == 4
    assert "blank_lines" not in read(xlsx([rows_of_truth(excel_workbook.MAX_BLANK + 2)])).skipped


def test_a_large_workbook_is_read() -> None:
    accounts = [f"{n:010d}" for n in range(2000)]
    one = csv(truth(["0012345678"], [1])).splitlines()[1].split(",")[1:]
    values: list[object] = [one[0], one[1], *map(float, one[2:])]
    body = cells(1, grid()[0]) + "".join(cells(n, [account, *values]) for n, account in enumerate(accounts, 2))
    reading = read(xlsx([body]))
    assert reading.rows.num_rows == len(accounts)
    assert reading.rows["ending_market_value"][0].as_py() == Decimal(one[-2])


# --- keys that are named twice ---------------------------------------------------------------------------------------


def twice(record: dict[str, object]) -> str:
    """A record that names a key twice, with the same value."""
    text = json.dumps(record)
    return text[:-1] + ', "fees": 1}'


def the_one_left_out(reading: FileReading, line: int) -> None:
    assert reading.rows.num_rows == len(truth()) - 1
    (left_out,) = reading.quarantined.to_pylist()
    assert (left_out["line"], left_out["reason"]) == (line, "duplicate_keys")
    assert "'fees'" in left_out["detail"]


@pytest.mark.parametrize("place", [0, 3, 11])
def test_a_line_of_json_that_names_a_key_twice_is_left_out(place: int) -> None:
    lines = [twice(r) if n == place else json.dumps(r) for n, r in enumerate(records())]
    the_one_left_out(read("\n".join(lines) + "\n"), place + 1)


@pytest.mark.parametrize("place", [0, 3, 11])
@pytest.mark.parametrize("above", ["[{}]", '{{"asOf": "2024-06-30", "accounts": [{}]}}'])
def test_a_record_of_a_document_that_names_a_key_twice_is_left_out(place: int, above: str) -> None:
    lines = [twice(r) if n == place else json.dumps(r) for n, r in enumerate(records())]
    the_one_left_out(read(above.format("\n" + ",\n".join(lines))), place + 2)


def test_a_key_named_twice_within_a_record_leaves_it_out() -> None:
    lines = [json.dumps(r) for r in records()]
    lines[4] = lines[4][:-1] + ', "more": {"x": {"fees": 1, "fees": 1}}}'
    the_one_left_out(read("[\n" + ",\n".join(lines) + "]"), 6)
    the_one_left_out(read("\n".join(lines)), 5)


@pytest.mark.parametrize(
    "text",
    [
        '{{"currency": "USD", "currency": "EUR",\n"rows": [{}]}}',
        '{{"meta": {{"a": 1, "a": 2}},\n"rows": [{}]}}',
        '{{"rows": [{}],\n"totals": {{"a": 1, "a": 2}}}}',
        '{{"rows": [], "rows":\n[{}]}}',
    ],
)
def test_a_key_named_twice_above_records_refuses_the_document(text: str) -> None:
    reading = read(text.format(",\n".join(map(json.dumps, records()))))
    assert (reading.action, reading.file_reason) == ("quarantine_file", "duplicate_keys")
    assert "line 1" in reading.explanation or "line 13" in reading.explanation
    assert "name each key once" in reading.explanation


def test_accounts_as_keys_that_come_twice_refuse_the_document() -> None:
    entry = json.dumps({k: v for k, v in records()[0].items() if k != "account_id"})
    reading = read(f'{{"accounts": {{"A1": {entry}, "A2": {entry}, "A1": {entry}}}}}')
    assert (reading.action, reading.file_reason) == ("quarantine_file", "duplicate_keys")
    assert "'A1'" in reading.explanation


def test_all_lines_with_keys_named_twice_refuse_the_file() -> None:
    reading = read("\n".join(map(twice, records())) + "\n")
    assert (reading.action, reading.file_reason) == ("quarantine_file", "duplicate_keys")


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
@pytest.mark.parametrize("form", ["lines", "array"])
def test_numbers_that_json_does_not_know_are_left_out(constant: str, form: str) -> None:
    lines = [json.dumps(r) for r in records()]
    value = json.dumps(records()[2]["ending_market_value"])
    lines[2] = lines[2].replace(f'"ending_market_value": {value}', f'"ending_market_value": {constant}')
    reading = read("\n".join(lines) if form == "lines" else "[" + ",\n".join(lines) + "]")
    (left_out,) = reading.quarantined.to_pylist()
    assert (left_out["line"], left_out["reason"]) == (3, "bad_number")
    assert reading.rows.num_rows == len(truth()) - 1


# --- text ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [bombs.one_line, bombs.one_line_of_fields])
def test_one_line_on_a_disk_costs_little(make: Callable[[], bytes]) -> None:
    start = time.process_time()
    with on_disk(make()) as file:
        reading = read(file)  # type: ignore[arg-type]
    assert reading.action == "quarantine_file"
    assert time.process_time() - start < CPU_SECONDS
