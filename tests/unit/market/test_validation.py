"""Which raw rows are accepted, why the others are not, and which actions are read."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest
from fixtures.quotes import raw_row, raw_table
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.arrow import conform
from finance_assets.contracts.market import (
    CORPORATE_ACTIONS,
    QUOTES,
    QUOTES_RAW,
    REJECTED_QUOTES,
    REJECTION_REASONS,
)
from finance_assets.contracts.validation import violations
from finance_assets.market.validation import RULES, ValidatedQuotes, validate_quotes

SESSION = date(2012, 1, 9)

#: One row that breaks each rule, and what the detail must mention.
BAD: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "unreadable_value": ({"parse_error": 'close: "abc" is not a decimal', "close": None}, ('"abc"',)),
    "not_a_session": ({"quote_date": date(2012, 1, 7)}, ("2012-01-07", "2012-01-09")),
    "missing_close": ({"close": None}, ("no close",)),
    "missing_currency": ({"currency": None}, ("no currency",)),
    "non_positive_price": ({"low": "0"}, ("low 0.00000000", "open 10.00000000")),
    "negative_volume": ({"volume": -1}, ("volume -1",)),
    "high_below_low": ({"high": "9.00", "low": "9.50"}, ("high 9.00000000", "low 9.50000000")),
    "price_outside_range": ({"close": "11.01"}, ("close 11.01000000", "high 11.00000000")),
}


def check(result: ValidatedQuotes) -> ValidatedQuotes:
    """Hold all three tables against their contracts; what a refused row says is its provider's, not promised."""
    for contract, table in zip((QUOTES, REJECTED_QUOTES, CORPORATE_ACTIONS), result, strict=True):
        broken = [violation.rule for violation in violations(contract, conform(contract, table))]
        if contract is REJECTED_QUOTES:
            broken = [rule for rule in broken if rule.split()[0] not in QUOTES_RAW.column_names]
        assert broken == []
    return result


def judge(*rows: dict[str, Any]) -> ValidatedQuotes:
    return check(validate_quotes(raw_table(*rows)))


def reasons(result: ValidatedQuotes) -> list[str]:
    return list(result.rejected.column("reason").to_pylist())


def test_every_reason_of_the_contract_has_a_bad_row_here() -> None:
    assert set(BAD) | {"duplicate"} == set(REJECTION_REASONS)
    assert set(BAD) == set(RULES)


def test_a_good_row_is_accepted_as_it_is() -> None:
    result = judge(raw_row())
    assert result.quotes.to_pylist() == [
        {
            "symbol": "AAA",
            "session_date": SESSION,
            "open": Decimal("10.00000000"),
            "high": Decimal("11.00000000"),
            "low": Decimal("9.00000000"),
            "close": Decimal("10.50000000"),
            "volume": 1000,
            "currency": "USD",
            "price_basis": "raw",
            "provider": "fake",
            "fetched_ts_utc": raw_row()["fetched_ts_utc"],
        }
    ]
    assert result.rejected.num_rows == 0
    assert result.actions.num_rows == 0


@pytest.mark.parametrize("reason", list(BAD))
def test_a_bad_row_is_refused_for_its_reason_and_says_the_values(reason: str) -> None:
    changes, mentioned = BAD[reason]
    result = judge(raw_row(**changes), raw_row(symbol="GOOD"))
    assert result.quotes.column("symbol").to_pylist() == ["GOOD"]
    (row,) = result.rejected.to_pylist()
    assert row["reason"] == reason
    for text in mentioned:
        assert text in row["detail"]
    assert {name: row[name] for name in QUOTES_RAW.column_names} == raw_row(**changes) | {
        name: raw_table(raw_row(**changes)).column(name)[0].as_py() for name in QUOTES_RAW.column_names
    }


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"open": "-1"}, "non_positive_price"),
        ({"high": "0"}, "non_positive_price"),
        ({"close": "0"}, "non_positive_price"),
        ({"open": "11.00000001"}, "price_outside_range"),
        ({"open": "8.99999999"}, "price_outside_range"),
        ({"close": "8.99"}, "price_outside_range"),
        ({"high": None, "close": "8.99"}, "price_outside_range"),
        ({"low": None, "close": "11.01"}, "price_outside_range"),
        ({"split_ratio": 0.0}, "unreadable_value"),
        ({"split_ratio": -2.0}, "unreadable_value"),
        ({"split_ratio": float("nan")}, "unreadable_value"),
        ({"split_ratio": float("inf")}, "unreadable_value"),
        ({"dividend_amount": "-0.5"}, "unreadable_value"),
    ],
)
def test_other_bad_values(changes: dict[str, Any], reason: str) -> None:
    result = judge(raw_row(**changes))
    assert reasons(result) == [reason]
    assert result.actions.num_rows == 0


@pytest.mark.parametrize(
    "changes",
    [
        {"volume": 0},
        {"volume": None},
        {"open": None, "high": None, "low": None},
        {"open": None},
        {"high": None},
        {"low": None},
        {"open": "11.00", "close": "9.00"},
        {"open": "9", "high": "9", "low": "9", "close": "9"},
        {"dividend_amount": "0", "split_ratio": 1.0},
        {"price_basis": "total_return_adjusted", "volume": None, "open": None, "high": None, "low": None},
        {"open": "0.00000001", "high": "0.00000001", "low": "0.00000001", "close": "0.00000001"},
    ],
)
def test_what_is_legal_is_accepted(changes: dict[str, Any]) -> None:
    result = judge(raw_row(**changes))
    assert reasons(result) == []
    assert result.quotes.num_rows == 1
    assert result.actions.num_rows == 0


def test_decimals_stay_exact() -> None:
    price = "1234567890.12345678"
    result = judge(raw_row(open=price, high=price, low=price, close=price))
    assert result.quotes.column("close").to_pylist() == [Decimal(price)]
    assert result.quotes.schema.field("close").type == pa.decimal128(18, 8)


def test_the_first_reason_that_applies_is_given() -> None:
    result = judge(raw_row(parse_error="volume: missing", quote_date=date(2012, 1, 8), close=None, currency=None))
    assert reasons(result) == ["unreadable_value"]
    result = judge(raw_row(quote_date=date(2012, 1, 8), close=None))
    assert reasons(result) == ["not_a_session"]


def test_duplicates_say_whether_they_agree() -> None:
    same = raw_row(row_number=1)
    other = raw_row(row_number=2, close="10.75")
    result = judge(other, raw_row(), same)
    assert result.quotes.column("close").to_pylist() == [Decimal("10.5")]
    details = {row["row_number"]: row["detail"] for row in result.rejected.to_pylist()}
    assert reasons(result) == ["duplicate"] * 2
    assert details[1] == "a second row for the day, with the same values"
    assert "other values than the first" in details[2]
    assert "10.50000000" in details[2]


def test_the_first_good_row_stands_whatever_bad_row_comes_before_it() -> None:
    bad = raw_row(close=None)
    result = judge(bad, raw_row(row_number=1, close="10.10"), raw_row(row_number=2, close="10.20"))
    assert result.quotes.column("close").to_pylist() == [Decimal("10.1")]
    assert sorted(reasons(result)) == ["duplicate", "missing_close"]


def test_a_weekend_row_does_not_stand_for_the_session() -> None:
    result = judge(raw_row(quote_date=date(2012, 1, 7), close="1", low="1"), raw_row(row_number=1))
    assert result.quotes.column("close").to_pylist() == [Decimal("10.5")]
    assert reasons(result) == ["not_a_session"]


def test_splits_and_dividends_are_read() -> None:
    result = judge(
        raw_row(split_ratio=2.0, dividend_amount="0.25", action_derivation="recovered_from_adjustment_factor"),
        raw_row(symbol="BBB", dividend_amount="0.10"),
        raw_row(symbol="CCC", split_ratio=0.1),
    )
    rows = [
        (row["symbol"], row["ex_date"], row["action_type"], row["split_ratio"], row["cash_amount"], row["derivation"])
        for row in conform(CORPORATE_ACTIONS, result.actions).to_pylist()
    ]
    assert rows == [
        ("AAA", SESSION, "dividend", None, Decimal("0.25"), "recovered_from_adjustment_factor"),
        ("AAA", SESSION, "split", 2.0, None, "recovered_from_adjustment_factor"),
        ("BBB", SESSION, "dividend", None, Decimal("0.10"), "reported"),
        ("CCC", SESSION, "split", 0.1, None, "reported"),
    ]


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"close": None}, True),
        ({"low": "0"}, True),
        ({"volume": -5}, True),
        ({"high": "1"}, True),
        ({"close": "20"}, True),
        ({"parse_error": "close: missing", "close": None}, False),
        ({"quote_date": date(2012, 1, 8)}, False),
        ({"currency": None}, False),
    ],
)
def test_actions_of_refused_rows(changes: dict[str, Any], read: bool) -> None:
    result = judge(raw_row(split_ratio=2.0, dividend_amount="0.25", **changes))
    assert result.quotes.num_rows == 0
    assert result.actions.num_rows == (2 if read else 0)


def test_an_action_stated_twice_is_one_action_and_a_good_row_is_believed() -> None:
    result = judge(
        raw_row(close=None, dividend_amount="0.90"),
        raw_row(row_number=1, dividend_amount="0.25"),
        raw_row(row_number=2, dividend_amount="0.25"),
    )
    assert result.actions.column("cash_amount").to_pylist() == [Decimal("0.25")]


def test_an_empty_table_gives_empty_tables() -> None:
    result = judge()
    assert [table.num_rows for table in result] == [0, 0, 0]


def any_price() -> st.SearchStrategy[str | None]:
    return st.sampled_from([None, "-1", "0", "9", "9.5", "10.00000001", "11", "12"])


@st.composite
def raw_rows(draw: st.DrawFn) -> list[dict[str, Any]]:
    sessions = st.sampled_from([date(2012, 1, 9), date(2012, 1, 10)])
    return [
        raw_row(
            symbol=draw(st.sampled_from(["AAA", "BBB"])),
            session_date=(session := draw(sessions)),
            quote_date=draw(st.sampled_from([session, session, session, date(2012, 1, 8)])),
            open=draw(any_price()),
            high=draw(any_price()),
            low=draw(any_price()),
            close=draw(any_price()),
            volume=draw(st.sampled_from([None, -1, 0, 10])),
            currency=draw(st.sampled_from(["USD", "USD", "USD", None])),
            parse_error=draw(st.sampled_from([None, None, None, "open: missing"])),
            dividend_amount=draw(st.sampled_from([None, "0", "0.5", "-1"])),
            split_ratio=draw(st.sampled_from([None, 1.0, 2.0, 0.0, float("nan")])),
            row_number=number,
        )
        for number in range(draw(st.integers(0, 40)))
    ]


@settings(max_examples=12, deadline=None)
@given(raw_rows())
def test_no_row_is_lost_or_doubled_and_every_promise_holds(rows: list[dict[str, Any]]) -> None:
    result = judge(*rows)
    numbers = [
        *zip(result.quotes.column("symbol").to_pylist(), result.quotes.column("session_date").to_pylist(), strict=True)
    ]
    assert len(set(numbers)) == len(numbers)
    assert result.quotes.num_rows + result.rejected.num_rows == len(rows)
    refused = set(result.rejected.column("row_number").to_pylist())
    assert len(refused) == result.rejected.num_rows
    accepted = [row for row in rows if row["row_number"] not in refused]
    assert sorted(numbers) == sorted((row["symbol"], row["session_date"]) for row in accepted)
    # The order of rows in the table means nothing.
    assert validate_quotes(raw_table(*rows[::-1])).quotes.equals(result.quotes)
