"""Generated files: the same bytes for the same seed, one truth behind them, and the planted problems."""

import csv
import importlib.util
import io
import json
from collections import defaultdict
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest

from finance_assets.advisory.generating import (
    CONTRACTS,
    LARGE_COLUMNS,
    VENDORS,
    GeneratedFile,
    ground_truth,
    vendor_files,
    write_large_csv,
)
from finance_assets.advisory.performance import account_performance
from finance_assets.advisory.reconciliation import performance_breaks

D = Decimal

LAST = date(2024, 6, 30)


@pytest.fixture(scope="module")
def files() -> list[GeneratedFile]:
    return list(vendor_files(7, 60, 12, LAST))


def of(files: list[GeneratedFile], vendor: str) -> list[GeneratedFile]:
    return [file for file in files if file.name.startswith(vendor)]


def test_truth_rolls_forward_in_whole_cents() -> None:
    rows = ground_truth(3, 80, 24, LAST)
    accounts = defaultdict(list)
    for row in rows:
        accounts[row.account_id].append(row)
    assert len(accounts) == 80
    for series in accounts.values():
        for before, after in zip(series, series[1:], strict=False):
            assert after.beginning == before.ending
            assert after.period_start == after.period_end.replace(day=1)
    assert any(row.beginning == 0 and row.period_start.day == 15 for row in rows)
    assert any(row.ending == 0 for row in rows)
    assert any(row.beginning and row.contributions * 10 >= row.beginning for row in rows)
    assert all(abs(row.value) < 1 for row in rows if row.value is not None)


def test_same_seed_same_bytes(files: list[GeneratedFile]) -> None:
    assert list(vendor_files(7, 60, 12, LAST)) == files
    assert [file.data for file in vendor_files(8, 60, 12, LAST)] != [file.data for file in files]


def test_every_layout_and_order_of_receipt(files: list[GeneratedFile]) -> None:
    expected = set(VENDORS) if importlib.util.find_spec("openpyxl") else set(VENDORS) - {"summit"}
    assert {file.name.split("_")[0] for file in files} == expected
    assert [file.received_at for file in files] == sorted(file.received_at for file in files)
    assert len({file.name for file in files}) == len(files)
    assert len({file.data for file in files}) == len(files)


def test_planted_problems(files: list[GeneratedFile]) -> None:
    notes = " | ".join(file.notes for file in files)
    for words in (
        "superseded",
        "corrects",
        "wrong by 125.00",
        "cut off",
        "cannot be read",
        "stands twice",
        "dropped off",
    ):
        assert words in notes
    assert len(of(files, "harbour")) == 11


def test_pipe_totals_and_cut_off(files: list[GeneratedFile]) -> None:
    for file in of(files, "harbour"):
        lines = file.data.decode().splitlines()
        details = [line.split("|") for line in lines if line.startswith("DTL")]
        if file.notes.startswith("cut off"):
            assert not lines[-1].startswith("TRL")
            continue
        _, count, total = lines[-1].split("|")
        assert int(count) == len(details)
        assert D(total) == sum(D(cells[8]) for cells in details)
        assert all(len(cells) == len(CONTRACTS["harbour"]["detail_fields"]) for cells in details)


def test_fixed_width(files: list[GeneratedFile]) -> None:
    contract = CONTRACTS["meridian"]
    fields = contract["fields"]
    for file in of(files, "meridian"):
        lines = file.data.decode().split("\r\n")[:-1]
        assert {len(line) for line in lines} == {contract["record_length"]}
        assert lines[-1].split(contract["trailer_count_after"])[1].strip() == f"{len(lines) - 2:010d}"
        for line in lines[1:-1]:
            start, end = fields["ending_market_value:s9(15)v99"]
            assert int(line[start:end]) >= 0
            start, end = fields["period_end:%Y%m%d"]
            assert line[start:end].isdigit()


def test_views_agree(files: list[GeneratedFile]) -> None:
    """Comma and JSON lines and European files state the truth, but for what is planted."""
    truth = {(row.account_id, row.period_end.isoformat()): row for row in ground_truth(7, 60, 12, LAST)}
    seen = wrong = 0
    for file in of(files, "northgate"):
        for row in csv.DictReader(io.StringIO(file.data.decode())):
            ending = D(row["ending_market_value"].replace(",", "")) * 100
            seen += 1
            wrong += ending != truth[row["account_id"], row["period_end"]].ending
    assert wrong == 2
    for file in of(files, "lumen"):
        for line in file.data.decode().splitlines():
            record = json.loads(line)
            seen += 1
            assert D(record["ending_market_value"]) * 100 == truth[record["account_id"], record["period_end"]].ending
    spoiled = 0
    for file in of(files, "rheintal"):
        for cells in csv.reader(io.StringIO(file.data.decode("cp1252")), delimiter=";"):
            seen += 1
            spoiled += "x" in cells[3]
    assert spoiled == 1
    assert seen > 100


def test_few_accounts_and_months() -> None:
    assert list(vendor_files(1, 1, 1, LAST))
    assert list(vendor_files(1, 3, 2, LAST))
    with pytest.raises(ValueError, match="at least one"):
        ground_truth(1, 0, 1, LAST)


@pytest.mark.parametrize("name", ["large.csv", "large.psv", "large.parquet"])
def test_large_file(name: str, tmp_path: Path) -> None:
    path, delimiter = tmp_path / name, "|" if name.endswith("psv") else ","
    assert write_large_csv(path, 50, 24, delimiter) == 1200
    with duckdb.connect() as connection:
        reader = (
            "read_parquet(?)" if name.endswith("parquet") else f"read_csv(?, all_varchar=true, delim='{delimiter}')"
        )
        rows = connection.execute(f"SELECT * FROM {reader} ORDER BY account_id, period_end", [str(path)])
        assert [column[0] for column in rows.description] == list(LARGE_COLUMNS)
        before = None
        for cells in rows.fetchall():
            row = dict(zip(LARGE_COLUMNS, cells, strict=True))
            amount = {name: D(row[name]) for name in LARGE_COLUMNS[4:]}
            bmv, emv, flow = amount["beginning_market_value"], amount["ending_market_value"], amount["net_flow"]
            if before is not None and before[0] == row["account_id"]:
                assert bmv == before[1]
            before = (row["account_id"], emv)
            assert flow == amount["contributions"] - amount["distributions"]
            assert bmv + flow + amount["income"] + amount["appreciation"] - amount["fees"] == emv
            assert abs((emv - bmv - flow) / (bmv + flow / 2) - amount["return"]) < D("1e-9")
            assert row["period_start"][:8] == row["period_end"][:8]
        assert row["period_end"] == "2024-06-30"


def test_truth_has_no_breaks_but_the_large_flows_are_seen(make_history: Any) -> None:
    """The generator, the performance table and the breaks agree on what a faultless vendor is."""
    truth = ground_truth(7, 60, 12, LAST)
    history = make_history(
        *(
            {
                "account_id": row.account_id,
                "currency": row.currency,
                "period_start": row.period_start,
                "period_end": row.period_end,
                "beginning_market_value": D(row.beginning) / 100,
                "contributions": D(row.contributions) / 100,
                "distributions": D(row.distributions) / 100,
                "fees": D(row.fees) / 100,
                "ending_market_value": D(row.ending) / 100,
                "return_net": row.value,
            }
            for row in truth
        )
    )
    performance = account_performance(history, {})
    assert performance_breaks(performance).num_rows == 0
    computed = {(r["account_id"], r["period_end"]): r for r in performance.to_pylist()}
    for row in truth:
        got = computed[row.account_id, row.period_end]
        assert (got["return_net_computed"] is None) == (row.value is None)
        if row.value is not None:
            assert abs(D(got["return_net_computed"]) - row.value) < D("1e-10")
        assert got["is_partial"] == (row.period_start.day == 15)
        assert got["is_terminated"] == (row.ending == 0 and row.distributions > 0)
    assert any(r["return_status"] == "large_flow_unvalued" for r in computed.values())
