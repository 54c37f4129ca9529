"""Breaks in tables: what is found, what is within tolerance, identity and age."""

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from finance_assets.advisory import reconciliation
from finance_assets.advisory.explaining import explain_row, restatements
from finance_assets.advisory.history import CONTENT
from finance_assets.advisory.performance import account_performance, current_versions
from finance_assets.advisory.reconciliation import (
    BREAK_CODES,
    age_breaks,
    aged_schema,
    break_id,
    break_schema,
    performance_breaks,
    reconcile,
)
from finance_assets.advisory.twrr import row_return

D = Decimal

JAN, FEB, MAR = date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31)
MONEY = pa.decimal128(28, 8)


def records(*rows: tuple[str, date, str | None], **columns: Any) -> pa.Table:
    return pa.table(
        {
            "account_id": [row[0] for row in rows],
            "period_end": pa.array([row[1] for row in rows], pa.date32()),
            "ending_market_value": pa.array([None if row[2] is None else D(row[2]) for row in rows], MONEY),
            **columns,
        }
    )


def codes_of(table: pa.Table) -> dict[str, list[str]]:
    return {row["account_id"]: row["codes"] for row in table.to_pylist()}


def test_reconcile_codes() -> None:
    vendor = records(("A", JAN, "1.00"), ("B", JAN, "1.02"), ("C", JAN, "1.03"), ("D", JAN, "1"), ("E", JAN, None))
    existing = records(("A", JAN, "1.00"), ("B", JAN, "1.00"), ("C", JAN, "1.00"), ("E", JAN, "1"), ("F", JAN, "1"))
    got = reconcile(vendor, existing)
    assert codes_of(got) == {
        "A": ["OK"],
        "B": ["OK_WITHIN_TOLERANCE"],
        "C": ["VALUE_MISMATCH"],
        "D": ["EXTRA_IN_VENDOR"],
        "E": ["VALUE_MISMATCH"],
        "F": ["MISSING_IN_VENDOR"],
    }
    row = got.to_pylist()[2]
    assert row["difference_ending_market_value"] == D("0.03")
    assert row["fields"] == ["ending_market_value"]
    assert row["basis"] == "net"


def test_reconcile_several_codes_and_deliveries() -> None:
    early, late = datetime(2024, 4, 1, tzinfo=UTC), datetime(2024, 4, 9, tzinfo=UTC)
    vendor = records(
        ("A", JAN, "1"), ("A", JAN, "2"), ("A", JAN, "2"), ("B", JAN, "1"), ("B", JAN, "5"), ("C", JAN, "2"),
        received_ts_utc=pa.array([early, late, late, early, late, late], pa.timestamp("us", "UTC")),
    )  # fmt: skip
    existing = records(("A", JAN, "1"), ("B", JAN, "5"), ("C", JAN, "2"), ("C", JAN, "2"))
    assert codes_of(reconcile(vendor, existing)) == {
        "A": ["DUPLICATE", "RESTATED", "VALUE_MISMATCH"],
        "B": ["OK"],
        "C": ["DUPLICATE"],
    }


def test_reconcile_by_basis_and_tolerance_in_decimals() -> None:
    """Doubles are read by their shortest digits: 0.0123 and 0.0124 are exactly a basis point apart."""
    basis = pa.array(["gross", "net"])
    vendor = pa.table({"account_id": ["A", "A"], "period_end": [JAN, JAN], "basis": basis, "return": [0.0124, 0.01]})
    existing = vendor.set_column(3, "return", pa.array([0.0123, 0.00989]))
    got = reconcile(vendor, existing).to_pylist()
    assert [(row["basis"], row["codes"]) for row in got] == [
        ("gross", ["OK_WITHIN_TOLERANCE"]),
        ("net", ["VALUE_MISMATCH"]),
    ]
    assert [row["codes"] for row in reconcile(vendor, existing, {"return": D("0.001")}).to_pylist()] == [
        ["OK_WITHIN_TOLERANCE"]
    ] * 2
    with pytest.raises(ValueError, match="no column period_end"):
        reconcile(vendor.drop_columns("period_end"), existing)
    with pytest.raises(ValueError, match="negative"):
        reconcile(vendor, existing, {"return": D(-1)})


def test_reconcile_empty() -> None:
    nothing = records()
    assert reconcile(nothing, nothing).num_rows == 0


def breaks_of(rows_of: pa.Table, **others: Any) -> list[dict[str, Any]]:
    table = performance_breaks(account_performance(current_versions(rows_of), {}), **others)
    assert table.schema.equals(break_schema())
    rows: list[dict[str, Any]] = table.to_pylist()
    assert {row["code"] for row in rows} <= BREAK_CODES.keys()
    key = ("code", "vendor", "account_id", "granularity", "period_end", "other_vendor")
    assert [row["break_id"] for row in rows] == [break_id(*(row[name] for name in key)) for row in rows]
    return rows


@pytest.mark.parametrize(("stated", "broken"), [("0.0101", False), ("0.01010000000001", True), ("0.0099", False)])
def test_return_tolerance_is_inclusive(stated: str, broken: bool, make_history: Any) -> None:
    rows = breaks_of(make_history({"return_net": stated}))
    assert [row["code"] for row in rows] == ["RETURN_TOLERANCE"] * broken


def test_return_of_a_partial_period_is_not_compared(make_history: Any) -> None:
    row = {"period_start": date(2024, 1, 10), "return_net": "0.5"}
    assert breaks_of(make_history(row)) == []
    assert len(breaks_of(make_history({**row, "period_start": None}))) == 1


def test_stated_gross_is_compared_where_net_is_not_stated(make_history: Any) -> None:
    row = {"return_gross": "0.015", "fees": "0.50"}
    assert breaks_of(make_history(row)) == []
    assert breaks_of(make_history({**row, "fees": "0.40"}))[0]["field"] == "return_gross"


def test_money_breaks(make_history: Any, make_months: Any) -> None:
    months = make_months((100, 0, 0, 110), ("110.02", 0, 0, 120), ("120.03", 0, 0, 130), (130, 0, 0, 140))
    months[3]["period_end"] = date(2024, 5, 31)
    months[0].update(appreciation="9.98", income=0)
    months[1].update(appreciation="9.95", income=0)
    rows = breaks_of(make_history(*months))
    assert [(row["code"], row["period_end"], row["difference"]) for row in rows] == [
        ("ROLLFORWARD", FEB, D("0.03")),
        ("CONTINUITY", MAR, D("0.03")),
        ("GAP", date(2024, 5, 31), D(30)),
    ]
    assert rows[2]["explanation"].startswith("30 days before 2024-05-01 have no row. The beginning value is")
    assert (rows[0]["file_sha256"], rows[0]["line"]) == ("f1", 3)


def test_account_that_drops_off(make_history: Any, make_months: Any) -> None:
    stays = make_months((1, 0, 0, 1), (1, 0, 0, 1), (1, 0, 0, 1), account_id="stäys")
    drops = make_months((7, 0, 0, 7), account_id="drops")
    leaves = make_months((9, 0, 9, 0), account_id="leaves")
    rows = breaks_of(make_history(*stays, *drops, *leaves))
    assert [(row["code"], row["account_id"], row["period_end"]) for row in rows] == [("MISSING", "drops", FEB)]
    assert rows[0]["explanation"] == "Last seen in the period ended 2024-01-31, with a value of USD 7.00."


def test_vendors_against_each_other(make_history: Any) -> None:
    """The two planted breaks of a known pair of vendors: a stale price, and a flow that was not booked."""
    alpha = [
        (5, "1832159.07", "22591.79", "0.00", "1854212.44"),
        (6, "1854212.44", "0.00", "0.00", "1859598.93"),
    ]
    rows = []
    for month, bmv, money_in, money_out, emv in alpha:
        end = date(2024, month, 31 if month == 5 else 30)
        base = {
            "account_id": "5QK009876", "period_end": end, "beginning_market_value": bmv, "ending_market_value": emv,
            "contributions": money_in, "distributions": money_out,
        }  # fmt: skip
        rows.append(base)
        wrong = str(D(emv) + 125) if month == 5 else emv
        rows.append({**base, "vendor": "foxtrot", "ending_market_value": wrong})
    flow = {
        "account_id": "0000456789", "period_end": date(2024, 4, 30), "beginning_market_value": "605146.43",
        "ending_market_value": "615396.30", "contributions": "0", "distributions": "12500.00",
    }  # fmt: skip
    rows += [flow, {**flow, "vendor": "foxtrot", "distributions": "0"}]
    got = [row for row in breaks_of(make_history(*rows)) if row["code"] == "VENDOR_MISMATCH"]
    assert [(r["account_id"], r["field"], r["difference"], r["hypothesis"], r["remaining"]) for r in got] == [
        ("0000456789", "net_flow", D(-12500), "missing_flow", 0),
        ("5QK009876", "ending_market_value", D(-125), "stale_price", 0),
    ]
    assert "12,500.00" in got[0]["explanation"]
    assert got[0]["other_vendor"] == "foxtrot"


def test_currency_of_two_vendors(make_history: Any) -> None:
    rows = breaks_of(make_history({}, {"vendor": "bravo", "currency": "EUR"}))
    assert [(row["field"], row["explanation"]) for row in rows] == [("currency", "alpha states USD, bravo states EUR.")]


def test_duplicate_and_restated(make_history: Any) -> None:
    early, late = datetime(2024, 2, 3, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC)
    history = make_history(
        {"received_ts_utc": early, "file_sha256": "old"},
        {"received_ts_utc": late, "file_sha256": "new", "ending_market_value": 105, "line": 9},
        {"account_id": "A2", "line": 3},
        {"account_id": "A2", "line": 4},
        {"account_id": "A3", "received_ts_utc": early, "file_sha256": "old"},
        {"account_id": "A3", "received_ts_utc": late, "file_sha256": "new"},
    )
    rows = breaks_of(history, history=history)
    assert [(row["account_id"], row["code"], row["difference"], row["line"]) for row in rows] == [
        ("A1", "RESTATED", D(4), 9),
        ("A2", "DUPLICATE", None, 4),
    ]
    assert rows[0]["explanation"] == (
        "File new of 2024-03-03 replaces file old of 2024-02-03. Changed: ending market value from 101.00 to 105.00."
    )
    changes = restatements(history, early, late).to_pylist()
    assert [(row["account_id"], row["field"], row["difference"], row["new_file_sha256"]) for row in changes] == [
        ("A1", "ending_market_value", D(4), "new")
    ]
    assert restatements(history, late, late).num_rows == 0
    fresh = restatements(history, early - timedelta(days=1), late, include_new=True).to_pylist()
    assert [(row["account_id"], row["kind"]) for row in fresh] == [("A1", "new"), ("A1", "changed"), ("A3", "new")]
    with pytest.raises(ValueError, match="before first"):
        restatements(history, late, early)
    with pytest.raises(ValueError, match="time zone"):
        restatements(history, datetime(2024, 1, 1), late)


#: Before and after, and what the break says of it.
RESTATED_VALUES: dict[str, tuple[Any, Any, str | None]] = {
    "period_start": (None, date(2024, 1, 1), None),
    "currency": ("USD", "EUR", None),
    **dict.fromkeys(
        (
            "beginning_market_value", "contributions", "distributions", "net_flow", "ending_market_value", "fees",
            "income", "appreciation", "other_adjustments",
        ),
        (7, 9, "money"),
    ),
    **dict.fromkeys(("return_net", "return_gross", "benchmark_return"), ("0.01", "0.02", "return")),
}  # fmt: skip
BEFORE, AFTER = datetime(2024, 2, 3, tzinfo=UTC), datetime(2024, 3, 3, tzinfo=UTC)


def restated(make_history: Any, before: dict[str, Any], after: dict[str, Any]) -> tuple[list[Any], list[Any]]:
    """What the breaks say of two versions, and what the list of restatements says."""
    history = make_history(
        {"received_ts_utc": BEFORE, "file_sha256": "old", **before},
        {"received_ts_utc": AFTER, "file_sha256": "new", **after},
    )
    breaks = [row for row in breaks_of(history, history=history) if row["code"] == "RESTATED"]
    return breaks, restatements(history, BEFORE, AFTER).to_pylist()


@pytest.mark.parametrize("name", CONTENT)
def test_whatever_makes_a_version_is_a_restatement(name: str, make_history: Any) -> None:
    before, after, unit = RESTATED_VALUES[name]
    for old, new in ((before, after), (None, after), (after, None)):
        if name == "currency" and None in (old, new):
            continue
        breaks, listed = restated(make_history, {name: old}, {name: new})
        assert [row["field"] for row in listed] == [name]
        assert [(row["field"], row["unit"]) for row in breaks] == [(name, unit)]
        (row,) = breaks
        assert f" Changed: {name.replace('_', ' ')} from " in row["explanation"]
        for value, found in ((new, row["stated"]), (old, row["computed"])):
            assert found == (None if unit is None or value is None else D(str(value)))
        assert (row["difference"] is None) == (unit is None or None in (old, new))
        assert row["difference"] == listed[0]["difference"]


def test_a_restatement_names_one_field_and_tells_all(make_history: Any) -> None:
    before = {"fees": 1, "benchmark_return": "0.01"}
    breaks, listed = restated(make_history, before, {"fees": 2, "benchmark_return": "0.03"})
    assert [(row["field"], row["difference"]) for row in breaks] == [("fees", 1)]
    assert "fees from 1.00 to 2.00, benchmark return from 0.01 to 0.03." in breaks[0]["explanation"]
    assert [row["field"] for row in listed] == ["benchmark_return", "fees"]
    # Amounts of two currencies have no difference.
    breaks, _ = restated(make_history, {"currency": "USD"}, {"currency": "EUR", "ending_market_value": 90})
    assert [(row["field"], row["difference"]) for row in breaks] == [("currency", None)]
    assert "ending market value from 101.00 to 90.00, currency from USD to EUR." in breaks[0]["explanation"]


def test_another_file_that_says_the_same_restates_nothing(make_history: Any) -> None:
    provenance = {"contract_version": 2, "line": 9, "member": "b.csv", "flags": "components_do_not_foot"}
    assert restated(make_history, {}, provenance) == ([], [])
    # Nor does a number that is written otherwise.
    assert restated(make_history, {"fees": "1.5"}, {"fees": "1.50", **provenance}) == ([], [])


def test_against_existing_records(make_history: Any, make_months: Any) -> None:
    history = make_history(*make_months((100, 0, 0, 110), (110, 0, 0, 120), (120, 0, 0, 130)))
    existing = records(("A1", JAN, "110.02"), ("A1", FEB, "121"), ("A1", date(2024, 4, 30), "9"), ("other", JAN, "9"))
    rows = breaks_of(history, existing=existing)
    assert [(row["code"], row["period_end"], row["difference"]) for row in rows] == [
        ("VALUE_MISMATCH", FEB, D(-1)),
        ("EXTRA", MAR, None),
        ("MISSING_IN_VENDOR", date(2024, 4, 30), None),
    ]
    assert {row["other_vendor"] for row in rows} == {"existing"}


def test_differences_from_existing_records_are_explained(make_history: Any, make_months: Any) -> None:
    months = make_months((100, 0, 0, 110), (110, 30, 0, 140), (140, 0, 0, 150))
    existing = records(("A1", JAN, "11000"), ("A1", FEB, "110"), ("A1", MAR, "151.23"))
    rows = [row for row in breaks_of(make_history(*months), existing=existing) if row["code"] == "VALUE_MISMATCH"]
    assert [(row["hypothesis"], row["remaining"]) for row in rows] == [
        ("percent", 0),
        ("missing_flow", 0),
        (None, None),
    ]
    assert rows[1]["explanation"] == "The difference of 30.00 is one contribution of alpha, 30.00; 0 cents remain."
    moved = records(("A1", JAN, "77"), ("A1", FEB, "110"), ("A1", MAR, "150"))
    rows = breaks_of(make_history(*make_months((100, 0, 0, 110), (110, 0, 0, 140), (140, 0, 0, 150))), existing=moved)
    assert rows[0]["explanation"].startswith("the house has this ending market value in the period ended")
    # Doubles have more places than money, and records two bases of one period.
    thirds = existing.set_column(2, "ending_market_value", pa.array([11_000 / 1, 110 + 1 / 3, 151.23]))
    rows = breaks_of(make_history(*months), existing=thirds)
    assert [row["hypothesis"] for row in rows if row["code"] == "VALUE_MISMATCH"] == ["percent", None, None]
    twice = pa.concat_tables([existing.append_column("basis", pa.array([basis] * 3)) for basis in ("net", "gross")])
    rows = breaks_of(make_history(*months), existing=twice)
    assert {row["hypothesis"] for row in rows if row["code"] == "VALUE_MISMATCH"} == {None}


def test_identity_does_not_depend_on_amounts() -> None:
    one = break_id("GAP", "alpha", "A1", "monthly", JAN, None)
    assert one == break_id("GAP", "alpha", "A1", "monthly", JAN, None)
    others = {
        break_id("GAP", "alpha", "A1", "quarterly", JAN, None),
        break_id("GAP", "alpha", "A1", "monthly", FEB, None),
        break_id("GAP", "alpha", "A1", "monthly", JAN, "bravo"),
        break_id("GAP", "alphaA", "1", "monthly", JAN, None),
    }
    assert len(others | {one}) == 5


@pytest.mark.parametrize("at_once", [1, 1000])
def test_ageing(at_once: int, make_history: Any, make_months: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reconciliation, "_AGED_AT_ONCE", at_once)
    months = make_months((100, 0, 0, 110), (111, 0, 0, 120), (125, 0, 0, 130))
    both = performance_breaks(account_performance(make_history(*months), {}))
    one = both.slice(0, 1)
    start = datetime(2024, 7, 1, 6, tzinfo=UTC)

    def statuses(table: pa.Table) -> list[tuple[str, int]]:
        by_id = {row["break_id"]: (row["status"], row["age_days"]) for row in table.to_pylist()}
        return [by_id[identity] for identity in both["break_id"].to_pylist() if identity in by_id]

    first = age_breaks(None, both, start)
    assert first.schema.equals(aged_schema())
    assert statuses(first) == [("open", 0), ("open", 0)]
    assert age_breaks(first, both, start).equals(first)
    second = age_breaks(first, one, start + timedelta(days=3, hours=5))
    assert statuses(second) == [("open", 3), ("resolved", 0)]
    third = age_breaks(second, both, start + timedelta(days=5))
    assert statuses(third) == [("open", 5), ("reopened", 5)]
    fourth = age_breaks(third, both, start + timedelta(days=6))
    assert statuses(fourth) == [("open", 6), ("reopened", 6)]
    assert statuses(age_breaks(fourth, one.slice(0, 0), start + timedelta(days=9))) == [("resolved", 6)] * 2
    with pytest.raises(ValueError, match="after"):
        age_breaks(first, both, start - timedelta(days=1))
    with pytest.raises(ValueError, match="time zone"):
        age_breaks(first, both, datetime(2024, 7, 1))


def test_a_row_written_out(make_history: Any) -> None:
    history = make_history(
        {
            "account_id": "0055512345",
            "beginning_market_value": "734242.22",
            "contributions": "9846.36",
            "distributions": "5374.08",
            "ending_market_value": "744284.45",
            "return_net": "0.0075629513",
            "file_sha256": "ab" * 32,
            "line": 17,
            "contract_version": 3,
        }
    )
    row = account_performance(history, {}).to_pylist()[0]
    again = row_return(
        row["beginning_market_value"], row["contributions"], row["distributions"], row["ending_market_value"], "mid"
    )
    text = explain_row(row, again)
    assert "R = (744284.45 - 734242.22 - 4472.28) / (734242.22 + 4472.28 / 2)" in text
    assert "Net flow F = in - out = 9846.36 USD - 5374.08 USD = 4472.28 USD" in text
    assert any(line.startswith("Return: 0.007562951") and line.endswith("certified 0.007563") for line in text)
    assert "By timing: sod 0.007540, mid 0.007563, eod 0.007586; spread 0.000046" in text
    assert any(
        f"file {'ab' * 32} line 17, contract version 3, known 2024-07-01T00:00:00+00:00" in line for line in text
    )
    assert text[-1] == "Recomputing gives the same number."
    assert explain_row(row, 0.0075)[-1] == "Recomputing gives 0.0075, not the same number."
    assert explain_row(row, row)[-1] == "Recomputing gives the same number."


def test_rows_without_a_return_written_out(make_history: Any) -> None:
    history = make_history(
        {"beginning_market_value": -5, "ending_market_value": -4},
        {"account_id": "A2", "beginning_market_value": None},
        {"account_id": "A3", "contributions": None, "distributions": None, "net_flow": 1},
    )
    rows = account_performance(history, {}).to_pylist()
    first = explain_row(rows[0], None)
    assert "Return: none (undefined_denominator)" in first
    assert "R = ((-4) - (-5) - 0) / ((-5) + 0 / 2)" in first
    assert first[-1] == "Recomputing gives the same number."
    assert "Return: none (missing_input)" in explain_row(rows[1], None)
    assert "Net flow F = 1 USD, as stated" in explain_row(rows[2], None)
    assert explain_row(rows[2], None)[-1] == "Recomputing gives none, not the same number."


def test_breaks_inside_a_database(make_history: Any) -> None:
    """A connection with views gives what tables give, with the versions of its history."""
    history = make_history(
        {"return_net": "0.02"},
        {"ending_market_value": 102, "return_net": "0.03", "received_ts_utc": datetime(2024, 8, 1, tzinfo=UTC)},
    )
    performance = account_performance(current_versions(history), {})
    expected = performance_breaks(performance, history=history)
    assert [row["code"] for row in expected.to_pylist()] == ["RESTATED", "RETURN_TOLERANCE"]
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("performance", performance)
        assert performance_breaks(connection)["code"].to_pylist() == ["RETURN_TOLERANCE"]
        connection.register("history", history)
        assert performance_breaks(connection).equals(expected)


def test_blocks_do_not_show(make_history: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    history = make_history(*({"account_id": f"A{n}", "return_net": "1"} for n in range(5)))
    performance = account_performance(history, {})
    whole = performance_breaks(performance)
    assert whole["hypothesis"].to_pylist() == ["percent"] * 5
    assert whole["break_id"].to_pylist() == [
        break_id("RETURN_TOLERANCE", "alpha", f"A{n}", "monthly", JAN, None) for n in range(5)
    ]
    monkeypatch.setattr(reconciliation, "_EXPLAINED_AT_ONCE", 2)
    assert performance_breaks(performance).equals(whole)
