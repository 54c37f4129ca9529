"""Reading vendor text, errors, quota and the finished session."""

from __future__ import annotations

import pickle
import subprocess
import sys
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.market.sources import (
    AllProvidersFailed,
    InMemoryQuotaLedger,
    ProviderError,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
    quote_schema,
)
from finance_assets.market.sources.base import (
    QuoteRow,
    last_finished_date,
    parse_count,
    parse_decimal,
    quote_table,
    simplest_decimal,
)
from finance_assets.providers.errors import utc_now


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("142.4500", "142.45"),
        ("0", "0"),
        (".5", "0.5"),
        ("7.", "7"),
        ("1e-3", "0.001"),
        (" 12.5 ", "12.5"),
        ("29.1067214009", "29.10672140"),
        ("0.000000005", "0"),  # half to even
        ("0.000000015", "0.00000002"),
        ("9999999999.99999999", "9999999999.99999999"),
    ],
)
def test_decimal_text_is_read_exactly(text: str, expected: str) -> None:
    value, error = parse_decimal(text, "close")
    assert error is None
    assert value == Decimal(expected)


@pytest.mark.parametrize(
    "text",
    [
        "None",
        "abc",
        "NaN",
        "Infinity",
        "-Infinity",
        "1,000.5",
        "1_000",
        "",
        "-",
        "٣",
        "0x10",
        "1e9999",
        "12.3.4",
        "9" * 65,
    ],
)
def test_text_that_is_no_decimal_is_named(text: str) -> None:
    value, error = parse_decimal(text, "close")
    assert value is None
    assert error is not None
    assert error.startswith("close: ")
    assert "is not a decimal" in error


@pytest.mark.parametrize("value", [True, 1.5, [1], {"a": 1}])
def test_json_of_another_type_is_no_decimal(value: object) -> None:
    assert parse_decimal(value, "open").value is None


def test_missing_negative_and_too_large_have_their_own_words() -> None:
    assert parse_decimal(None, "low").error == "low: missing"
    assert parse_decimal("-1", "low").error == 'low: "-1" is negative'
    assert parse_decimal("-1", "eps", allow_negative=True).value == Decimal(-1)
    assert "does not fit decimal(18,8)" in str(parse_decimal("10000000000", "low").error)
    assert "does not fit decimal(18,8)" in str(parse_decimal("9999999999.999999999", "low").error)
    assert "does not fit decimal(18,8)" in str(parse_decimal("1e999", "low").error)


def test_long_and_unprintable_values_stay_short_on_one_line() -> None:
    error = parse_decimal("x\n" * 500, "close").error
    assert error is not None
    assert "\n" not in error
    assert len(error) < 120


@pytest.mark.parametrize(("value", "expected"), [("4345952", 4345952), ("123.0", 123), (7, 7), (Decimal("5.0"), 5)])
def test_counts(value: object, expected: int) -> None:
    assert parse_count(value, "volume") == (expected, None)


@pytest.mark.parametrize("value", ["12.5", "-1", "abc", None, True, str(2**63), Decimal("NaN")])
def test_bad_counts_are_named(value: object) -> None:
    count, error = parse_count(value, "volume")
    assert count is None
    assert str(error).startswith("volume: ")


@settings(deadline=None, database=None)
@given(st.decimals(min_value=0, max_value=Decimal("9999999999"), places=8))
def test_every_price_of_eight_places_survives_the_round_trip(value: Decimal) -> None:
    assert parse_decimal(str(value), "close") == (value, None)
    assert quote_table([QuoteRow(date(2020, 1, 2), close=value)])["close"][0].as_py() == value


@settings(deadline=None, database=None)
@given(st.text(max_size=80))
def test_no_text_raises(text: str) -> None:
    value, error = parse_decimal(text, "close")
    assert (value is None) != (error is None)


def test_simplest_decimal() -> None:
    assert str(simplest_decimal(Decimal("0.0799999999"), Decimal("0.000001"))) == "0.08"
    assert str(simplest_decimal(Decimal("2.059988"), Decimal("0.000014"))) == "2.06"
    assert str(simplest_decimal(Decimal("1.23456789123"), Decimal(0))) == "1.23456789"


def test_table_is_sorted_by_date_and_keeps_both_rows_of_one_date() -> None:
    rows = [
        QuoteRow(date(2020, 1, 3), volume=1),
        QuoteRow(date(2020, 1, 2), volume=2),
        QuoteRow(date(2020, 1, 3), volume=3),
    ]
    table = quote_table(rows)
    assert table.schema.equals(quote_schema())
    assert table["volume"].to_pylist() == [2, 1, 3]
    assert quote_table([]).schema.equals(quote_schema())
    assert quote_table([]).num_rows == 0


def test_errors_survive_pickling_and_say_who_and_what() -> None:
    error = RateLimited("alpha_vantage", "IBM", "slow down", attempts=4, retry_after_seconds=7.0)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is RateLimited
    assert copy.__dict__ == error.__dict__
    assert str(copy) == "alpha_vantage, IBM: slow down (after 4 tries)"
    assert copy.summary == "alpha_vantage: rate_limited after 4 tries"
    both = pickle.loads(pickle.dumps(AllProvidersFailed("IBM", [error, QuotaExhausted("yahoo", "IBM", "no more")])))
    assert [type(cause) for cause in both.errors] == [RateLimited, QuotaExhausted]
    assert both.retryable


def test_class_defaults_can_be_overridden_per_error() -> None:
    assert ProviderUnavailable("p", "S", "m").retryable
    assert not ProviderUnavailable("p", "S", "m", retryable=False).retryable
    assert ProviderError("p", "S", "m", reason_code="odd").reason_code == "odd"


def test_ledger_counts_up_to_the_limit_per_provider_and_day() -> None:
    ledger = InMemoryQuotaLedger()
    day = date(2024, 1, 2)
    assert [ledger.try_acquire("a", day, 2) for _ in range(3)] == [True, True, False]
    assert ledger.used("a", day) == 2
    assert ledger.try_acquire("b", day, 2)
    assert ledger.try_acquire("a", date(2024, 1, 3), 2)
    assert all(ledger.try_acquire("a", day, None) for _ in range(5))
    assert ledger.used("a", day) == 7


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        ("2024-01-03T21:14", date(2024, 1, 2)),  # 16:14 in New York
        ("2024-01-03T21:15", date(2024, 1, 3)),
        ("2024-07-03T20:15", date(2024, 7, 3)),  # summer time
        ("2024-01-03T03:00", date(2024, 1, 2)),  # still the evening before in New York
    ],
)
def test_a_session_is_finished_a_quarter_past_four(now: str, expected: date) -> None:
    assert last_finished_date(datetime.fromisoformat(now).replace(tzinfo=UTC), "America/New_York") == expected


def test_a_clock_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        utc_now(lambda: datetime(2024, 1, 1))


def test_import_is_light_and_touches_neither_network_nor_data() -> None:
    code = (
        "import sys\n"
        "opened = []\n"
        "sys.addaudithook(lambda event, arguments: opened.append((event, str(arguments))) if "
        "event.startswith('socket.') "
        "or (event == 'open' and str(arguments[0]).endswith(('.csv', '.gz', '.db'))) else None)\n"
        "import finance_assets.market.sources\n"
        "heavy = {'httpx', 'tenacity', 'yfinance', 'curl_cffi', 'pandas', 'numpy', 'pyarrow', 'skfolio', "
        "'sklearn', 'bokeh_sampledata',\n"
        "         'dagster', 'random', 'finance_assets.storage', 'finance_assets.settings'} & "
        "set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert not opened, opened\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
