"""What the rows around a missing, extra, double or corrected row prove, and what they come near to proving."""

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from finance_assets.advisory.explanations import ROW_HYPOTHESES
from finance_assets.advisory.performance import account_performance, current_versions
from finance_assets.advisory.reconciliation import BREAK_CODES, performance_breaks

JAN, FEB, MAR, APR = date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31), date(2024, 4, 30)
EARLY, LATE = datetime(2024, 5, 3, tzinfo=UTC), datetime(2024, 6, 3, tzinfo=UTC)

Row = dict[str, Any]


def found(code: str, history: pa.Table, existing: pa.Table | None = None) -> list[Row]:
    table = performance_breaks(account_performance(current_versions(history), {}), history=history, existing=existing)
    rows = [row for row in table.to_pylist() if row["code"] == code]
    assert all(row["remaining"] is None for row in rows), "no hypothesis about rows leaves an amount"
    assert {row["hypothesis"] for row in rows} <= {None, *ROW_HYPOTHESES[code]}
    return rows


def only(code: str, history: pa.Table, existing: pa.Table | None = None) -> tuple[str | None, str]:
    (row,) = found(code, history, existing)
    return row["hypothesis"], row["explanation"]


def row(account: str = "A1", end: date = JAN, opening: Any = 100, ending: Any = 100, **changes: Any) -> Row:
    return {
        "account_id": account, "period_end": end, "beginning_market_value": opening, "ending_market_value": ending,
        **changes,
    }  # fmt: skip


def test_hypotheses_belong_to_codes() -> None:
    assert set(ROW_HYPOTHESES) <= set(BREAK_CODES)


# -- GAP ---------------------------------------------------------------------------------------------------------------


def test_a_gap_that_several_accounts_have_is_a_missing_file(make_history: Any) -> None:
    rows = [row(name, end) for name in ("A1", "A2") for end in (JAN, MAR)]
    assert [r["hypothesis"] for r in found("GAP", make_history(*rows))] == ["missing_file"] * 2
    assert (
        "No account of alpha has a monthly row in between, and 2 have this gap."
        in (found("GAP", make_history(*rows))[0]["explanation"])
    )
    # Of one account alone nobody can tell; rows of another grain or vendor say nothing.
    others = [row("A2", FEB, granularity="quarterly"), row("A3", FEB, vendor="bravo"), row("A4", JAN), row("A5", APR)]
    assert only("GAP", make_history(*rows[:2], *others))[0] is None


def test_a_gap_that_others_do_not_have_is_missing_rows(make_history: Any) -> None:
    rows = [row(end=JAN), row(end=APR), row("A2", JAN), row("A2", FEB), row("A2", MAR), row("A2", APR)]
    hypothesis, text = only("GAP", make_history(*rows))
    assert hypothesis == "missing_rows"
    assert "Other accounts of alpha have 2 monthly rows in between." in text


@pytest.mark.parametrize(
    ("opening", "words"),
    [
        ("100", "The beginning value is the ending value before the gap, 100.00 USD: flows and results in between"),
        ("100.02", "The beginning value is the ending value before the gap, 100.02 USD"),
        ("1234567.5", "of 1,234,567.50 less the ending value before the gap, 100.00, is 1,234,467.50 USD: flows and"),
    ],
)
def test_what_carries_over_a_gap(opening: str, words: str, make_history: Any) -> None:
    assert words in only("GAP", make_history(row(), row(end=MAR, opening=opening)))[1]


def test_values_in_two_currencies_are_not_compared(make_history: Any) -> None:
    text = only("GAP", make_history(row(), row(end=MAR, currency="EUR")))[1]
    assert text == "29 days before 2024-03-01 have no row."


def test_gap_of_an_empty_account(make_history: Any) -> None:
    others = [row("A2", end) for end in (JAN, FEB, MAR)]
    left = row(ending=0, distributions=100)
    hypothesis, text = only("GAP", make_history(*others, left, row(end=MAR, opening=0, contributions=100)))
    assert hypothesis == "empty_account"
    assert text.endswith("have no row. There was nothing in the account before it, and nothing at its end.")
    assert only("GAP", make_history(*others, left, row(end=MAR, opening="0.01")))[0] == "missing_rows"
    assert only("GAP", make_history(*others, row(ending="0.01"), row(end=MAR, opening=0)))[0] == "missing_rows"


def test_overlap(make_history: Any) -> None:
    first = date(2024, 1, 1)
    hypothesis, text = only("GAP", make_history(row(), row(end=FEB, ending=103, period_start=first)))
    assert hypothesis == "overlap"
    assert "That one, 2024-01-01 to 2024-01-31, lies wholly within it. Both begin with 100.00 USD." in text
    text = only("GAP", make_history(row(), row(end=FEB, opening=101, period_start=date(2024, 1, 15))))[1]
    assert text == "The period starts 17 days before the end of the one before."


# -- MISSING -----------------------------------------------------------------------------------------------------------


def test_renamed_account(make_history: Any) -> None:
    stays = [row("S", JAN, 5, 5, file_sha256="f9"), row("S", FEB, 5, 5)]
    gone, new = row("old", ending="777.00"), row("new", FEB, opening="777.02", ending=1)
    hypothesis, text = only("MISSING", make_history(*stays, gone, new))
    assert hypothesis == "renamed_account"
    assert "Account new of alpha appears for the first time in the period ended 2024-02-29" in text
    near_misses = [
        [gone, {**new, "beginning_market_value": "777.03"}],
        [{**gone, "ending_market_value": 0}, {**new, "beginning_market_value": 0}],
        [gone, {**new, "currency": "EUR"}],
        [gone, {**new, "vendor": "bravo"}],
        [gone, new, {**new, "account_id": "new2", "beginning_market_value": "776.99"}],
        [gone, {**gone, "account_id": "old2"}, new],
        [gone, new, row("new", JAN, ending="777.02")],
        [gone, {**new, "period_end": MAR}],
        [gone, new, {**gone, "period_end": MAR}],
    ]
    for rows in near_misses:
        hypotheses = {r["hypothesis"] for r in found("MISSING", make_history(*stays, *rows))}
        assert "renamed_account" not in hypotheses, rows


def test_whole_delivery(make_history: Any) -> None:
    lost = [row(name, ending=value, file_sha256="lost") for name, value in (("A1", 7), ("A2", 8))]
    rest = [row("B1", JAN, file_sha256="came"), row("B1", FEB, file_sha256="came2")]
    rows = found("MISSING", make_history(*lost, *rest))
    assert [r["hypothesis"] for r in rows] == ["whole_delivery"] * 2
    assert "None of the 2 accounts that file lost states for that period came." in rows[0]["explanation"]
    # One of them came; and a file of a single account.
    assert only("MISSING", make_history(*lost, *rest, row("A2", FEB, file_sha256="came2")))[0] is None
    assert only("MISSING", make_history(lost[0], *rest))[0] is None


def test_account_that_comes_again(make_history: Any) -> None:
    stays = [row("S", end, file_sha256="f9") for end in (JAN, FEB, MAR)]
    hypothesis, text = only("MISSING", make_history(*stays, row(), row(end=MAR)))
    assert hypothesis == "missing_rows"
    assert text.endswith("It is there again in the period ended 2024-03-31.")
    # Rows of another grain are not its own.
    assert only("MISSING", make_history(*stays, row(), row(end=MAR, granularity="quarterly")))[0] is None


def test_closed(make_history: Any) -> None:
    stays = [row("S", JAN, file_sha256="f9"), row("S", FEB)]
    assert only("MISSING", make_history(*stays, row(ending=0)))[0] == "closed"
    again = [row("S", MAR), row(end=MAR, opening=0)]
    assert only("MISSING", make_history(*stays, row(ending=0), *again))[0] == "closed"
    assert only("MISSING", make_history(*stays, row(ending="0.01")))[0] is None
    # What was withdrawn is no break.
    assert found("MISSING", make_history(*stays, row(ending=0, distributions=100))) == []


# -- RESTATED ----------------------------------------------------------------------------------------------------------


def corrected(make_history: Any, before: Row, after: Row, *others: Row) -> tuple[str | None, str]:
    old = {**row(received_ts_utc=EARLY, file_sha256="old"), **before}
    new = {**row(received_ts_utc=LATE, file_sha256="new"), **after}
    return only("RESTATED", make_history(old, new, *others))


@pytest.mark.parametrize(
    ("before", "after", "hypothesis", "words"),
    [
        (
            {"contributions": 9, "distributions": 2},
            {"contributions": 2, "distributions": 9},
            "sign",
            "contributions from 9.00 to 2.00, distributions from 2.00 to 9.00. The sign is turned.",
        ),
        ({"contributions": 9, "distributions": 2}, {"contributions": 2, "distributions": 8}, None, "Changed"),
        ({"contributions": 9}, {"contributions": -9, "fees": 1}, None, "fees from nothing to 1.00."),
        ({"contributions": 9, "fees": 5}, {"contributions": -9, "fees": -5}, "sign", "fees from 5.00 to -5.00."),
        ({"return_net": "-0.00005"}, {"return_net": "0.00005"}, "sign", "return net from -0.00005 to 0.00005."),
        ({"return_net": "-0.00005"}, {"return_net": "0.00006"}, None, "return net from -0.00005 to 0.00006."),
        ({"return_net": "0.00005"}, {"return_net": "0"}, None, "return net from 0.00005 to 0."),
        ({"beginning_market_value": 10_000}, {"beginning_market_value": 100}, "percent", "from 10,000.00 to 100.00."),
        ({"beginning_market_value": 10_000}, {"beginning_market_value": "100.01"}, None, "Changed"),
        ({"return_net": "1.23"}, {"return_net": "0.000123"}, "percent", "return net from 1.23 to 0.000123."),
        ({"return_net": "1.23"}, {"return_net": "0.0124"}, None, "return net from 1.23 to 0.0124."),
        ({"contributions": 1, "fees": 2}, {"contributions": 100, "fees": 2}, "percent", "from 1.00 to 100.00."),
        ({"contributions": 1, "fees": 2}, {"contributions": 100, "fees": 3}, None, "Changed"),
        ({"contributions": 1, "fees": 200}, {"contributions": 100, "fees": 2}, None, "Changed"),
    ],
)
def test_restated_values(before: Row, after: Row, hypothesis: str | None, words: str, make_history: Any) -> None:
    got = corrected(make_history, before, after)
    assert got[0] == hypothesis
    assert words in got[1]
    assert got[1].startswith("File new of 2024-06-03 replaces file old of 2024-05-03. Changed: ")


def test_correction_of_a_return(make_history: Any) -> None:
    hypothesis, text = corrected(make_history, {"return_net": "0.02"}, {"return_net": "0.0001"})
    assert hypothesis == "correction"
    assert text.endswith("return net from 0.02 to 0.0001. The break is gone: RETURN_TOLERANCE.")
    hypothesis, text = corrected(make_history, {"return_net": "0.0001"}, {"return_net": "0.02"})
    assert hypothesis == "new_break"
    assert text.endswith("The break is new: RETURN_TOLERANCE.")
    # Both are broken, and neither.
    assert corrected(make_history, {"return_net": "0.02"}, {"return_net": "0.03"})[0] is None
    assert corrected(make_history, {"return_net": "0.0001"}, {"return_net": "0.00005"})[0] is None


def test_correction_of_a_rollforward_under_the_policy_of_the_vendor(make_history: Any) -> None:
    before, after = {"appreciation": "5"}, {"appreciation": "5", "ending_market_value": "105.02"}
    hypothesis, text = corrected(make_history, before, after)
    assert hypothesis == "correction"
    assert text.endswith("The break is gone: ROLLFORWARD.")
    assert corrected(make_history, before, {"appreciation": "5", "ending_market_value": "105.03"})[0] is None


def test_correction_of_continuity_here_and_in_the_next_period(make_history: Any) -> None:
    sooner = {"received_ts_utc": EARLY}
    around = [row(end=date(2023, 12, 31), ending=100, **sooner), row(end=FEB, opening=120, **sooner)]
    before = {"beginning_market_value": 90, "ending_market_value": 110}
    hypothesis, text = corrected(make_history, before, {"ending_market_value": 120}, *around)
    assert hypothesis == "correction"
    assert text.endswith("The break is gone: CONTINUITY, CONTINUITY of the next period.")
    hypothesis, text = corrected(make_history, {"ending_market_value": 120}, before, *around)
    assert hypothesis == "new_break"
    # One break goes, and another one comes.
    hypothesis, text = corrected(
        make_history, before, {"beginning_market_value": 100, "ending_market_value": 120, "return_net": 1}, *around
    )
    assert hypothesis == "new_break"
    assert "The break is gone: CONTINUITY" in text
    assert "The break is new: RETURN_TOLERANCE." in text
    again = {"ending_market_value": 112, "beginning_market_value": 90}
    assert corrected(make_history, before, again, *around)[0] is None
    # A neighbour that came, or was corrected, with the new version or after it was not beside the old one.
    for received in (LATE, datetime(2024, 7, 1, tzinfo=UTC)):
        later = [{**one, "received_ts_utc": received} for one in around]
        assert corrected(make_history, before, {"ending_market_value": 120}, *later)[0] is None
    # Nor is an amount in another currency compared.
    euros = {**before, "currency": "EUR"}
    assert corrected(make_history, euros, {"ending_market_value": 120}, *around)[0] is None


# -- DUPLICATE ---------------------------------------------------------------------------------------------------------


def test_duplicates(make_history: Any) -> None:
    same = [row(line=3), row(line=4)]
    assert only("DUPLICATE", make_history(*same)) == (
        "identical_rows",
        "File f1 states this period 2 times. The rows say the same.",
    )
    other = row(line=5, ending="100.01", fees=1)
    hypothesis, text = only("DUPLICATE", make_history(*same, other))
    assert hypothesis == "conflicting_rows"
    assert "They differ: ending market value (100.00 on line 3, 100.00 on line 4, 100.01 on line 5), fees (" in text
    assert "fees (nothing on line 3, nothing on line 4, 1.00 on line 5)." in text
    # A row of another file is a version, and no second row of this one.
    earlier = row(line=9, ending=7, file_sha256="f0", received_ts_utc=EARLY)
    assert only("DUPLICATE", make_history(*same, earlier))[0] == "identical_rows"


# -- EXTRA and MISSING_IN_VENDOR ---------------------------------------------------------------------------------------


def records(*rows: tuple[str, date, Any, Any]) -> pa.Table:
    schema = pa.schema(
        {
            "account_id": pa.string(),
            "period_end": pa.date32(),
            "beginning_market_value": pa.decimal128(28, 8),
            "ending_market_value": pa.decimal128(28, 8),
        }
    )
    columns = list(zip(*rows, strict=True))
    arrays = [pa.array(columns[0]), pa.array(columns[1], pa.date32())]
    arrays += [pc.cast(pa.array([str(v) for v in column]), pa.decimal128(28, 8)) for column in columns[2:]]
    return pa.table(arrays, schema=schema)


def test_account_that_the_records_know_by_another_name(make_history: Any) -> None:
    history = make_history(row("old", JAN, 500, 510), row("new", FEB, 510, "520.01"))
    existing = records(("old", JAN, 500, 510), ("old", FEB, 510, 520))
    hypothesis, text = only("EXTRA", history, existing)
    assert hypothesis == "renamed_account"
    assert text.startswith("alpha states an ending value of 520.01 USD. In the existing records account old alone")
    hypothesis, text = only("MISSING_IN_VENDOR", history, existing)
    assert hypothesis == "renamed_account"
    assert text.startswith("The existing records have an ending value of 520.00. Account new of alpha alone has this")
    for other in (
        records(("old", JAN, 500, 510), ("old", FEB, 510, "520.04")),
        records(("old", JAN, 500, 510), ("old", FEB, 510, 520), ("third", FEB, 1, 520)),
    ):
        assert only("EXTRA", history, other)[0] is None
        assert only("MISSING_IN_VENDOR", history, other)[0] is None
    assert "do not know the account" in only("EXTRA", history, records(("old", JAN, 500, 510)))[1]
    # An account of the records that the vendor states as well is not free.
    both = make_history(row("old", JAN, 500, 510), row("old", FEB, 510, 520), row("new", FEB, 510, 520))
    assert only("EXTRA", both, existing)[0] is None


def test_account_without_value_has_no_other_name(make_history: Any) -> None:
    history = make_history(row("old", JAN, 500, 510), row("new", FEB, 0, 0))
    assert only("EXTRA", history, records(("old", JAN, 500, 510), ("old", FEB, 510, 0)))[0] is None


def test_values_in_another_period(make_history: Any) -> None:
    history = make_history(row("A1", JAN, 500, 510), row("A1", MAR, 510, 520))
    existing = records(("A1", JAN, 500, 510), ("A1", FEB, 510, 520))
    hypothesis, text = only("EXTRA", history, existing)
    assert hypothesis == "period_shift"
    assert "same values in the period ended 2024-02-29, which alpha does not state." in text
    hypothesis, text = only("MISSING_IN_VENDOR", history, existing)
    assert hypothesis == "period_shift"
    assert "alpha states the same values in the period ended 2024-03-31" in text
    for other in (
        records(("A1", JAN, 500, 510), ("A1", FEB, 510, "520.03")),
        records(("A1", JAN, 500, 510), ("A1", FEB, 511, 520)),
        records(("A1", JAN, 500, 510), ("A1", date(2024, 5, 31), 510, 520)),
        records(("A1", JAN, 500, 510), ("A1", FEB, 510, 520), ("A1", APR, 510, 520)),
    ):
        assert only("EXTRA", history, other)[0] is None
        assert {r["hypothesis"] for r in found("MISSING_IN_VENDOR", history, other)} == {None}
