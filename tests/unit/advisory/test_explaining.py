"""What is written about a period without a row."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest

from finance_assets.advisory.explaining import explain_missing, missing_periods
from finance_assets.advisory.explanations import ROW_HYPOTHESES

JAN, FEB, MAR, APR = date(2024, 1, 31), date(2024, 2, 29), date(2024, 3, 31), date(2024, 4, 30)
Row = dict[str, Any]


def broken(code: str, end: date, **changes: Any) -> Row:
    return {
        "code": code, "vendor": "alpha", "account_id": "A1", "granularity": "monthly", "period_end": end,
        "hypothesis": None, "explanation": None, "status": "open", "age_days": 3, "stated": None,
        "first_seen": datetime(2024, 6, 1, tzinfo=UTC), **changes,
    }  # fmt: skip


def row(end: date, **changes: Any) -> Row:
    return {
        "vendor": "alpha", "granularity": "monthly", "period_start": end.replace(day=1), "period_end": end,
        "file_sha256": "f1", "line": 2, "contract_version": None, "received_ts_utc": None, **changes,
    }  # fmt: skip


def told(breaks: list[Row], rows: list[Row], first: date, last: date, *, states: bool = True) -> list[tuple[str, date]]:
    found = missing_periods(breaks, rows, first, last, lambda vendor, granularity: states)
    return [(one["code"], one["period_end"]) for one, _ in found]


def asked(end: date) -> tuple[date, date]:
    return end.replace(day=1), end


def test_an_account_is_missing_until_it_comes_again() -> None:
    missing = [broken("MISSING", FEB)]
    assert told(missing, [row(JAN)], *asked(JAN)) == []
    assert told(missing, [row(JAN)], *asked(FEB)) == [("MISSING", FEB)]
    assert told(missing, [row(JAN)], *asked(MAR)) == [("MISSING", FEB)]
    assert told(missing, [row(JAN)], *asked(MAR), states=False) == [], "nobody knows of the vendor's March"
    assert told(missing, [row(JAN), row(APR)], *asked(MAR)) == [("MISSING", FEB)]
    assert told(missing, [row(JAN), row(MAR)], *asked(MAR)) == []
    assert told(missing, [row(JAN), row(MAR)], *asked(APR)) == []
    # It is told beside the row, if there is one; that of another vendor or grain is none.
    assert told(missing, [row(FEB)], *asked(FEB)) == []
    for other in (row(FEB, vendor="bravo"), row(FEB, granularity="quarterly")):
        assert told(missing, [other], *asked(FEB)) == [("MISSING", FEB)]


def test_a_gap_is_told_where_days_are_missing_and_its_row_is_not_asked_for() -> None:
    gap, rows = broken("GAP", APR, stated=Decimal(60)), [row(JAN), row(APR)]
    for end, expected in ((JAN, []), (FEB, [("GAP", APR)]), (MAR, [("GAP", APR)]), (APR, [])):
        assert told([gap], rows, *asked(end)) == expected
    assert told([gap], rows, date(2024, 1, 1), MAR) == [("GAP", APR)]
    assert told([gap], rows, date(2024, 1, 1), APR) == []
    assert told([{**gap, "status": "resolved"}], rows, *asked(FEB)) == []
    assert told([{**gap, "stated": Decimal(-60)}], rows, *asked(FEB)) == [], "an overlap misses nothing"


def test_what_is_resolved_is_told_of_its_own_period_alone() -> None:
    missing = [broken("MISSING", FEB, status="resolved")]
    assert told(missing, [], *asked(FEB)) == [("MISSING", FEB)]
    assert told(missing, [], *asked(MAR)) == []
    assert not any(line.startswith("What to do") for line in explain_missing(missing[0], [], {}))


def test_other_breaks_miss_nothing() -> None:
    assert told([broken("VENDOR_MISMATCH", FEB), broken("RESTATED", FEB)], [], *asked(FEB)) == []


@pytest.mark.parametrize(
    ("code", "hypothesis"),
    [
        (code, hypothesis)
        for code in ("GAP", "MISSING", "MISSING_IN_VENDOR")
        for hypothesis in (None, *ROW_HYPOTHESES[code])
        if hypothesis != "overlap"
    ],
)
def test_every_hypothesis_says_what_to_do(code: str, hypothesis: str | None) -> None:
    one = broken(code, MAR, hypothesis=hypothesis, stated=Decimal(29))
    lines = explain_missing(one, [row(JAN), row(MAR)], {"f1": "january.csv"})
    (advice,) = [line for line in lines if line.startswith("What to do: ")]
    assert "alpha" in advice
    assert "{" not in advice
    assert sum(line.startswith(f"Hypothesis: {hypothesis or 'none'}") for line in lines) == 1
    assert lines[-1] == "That file landed as january.csv."
