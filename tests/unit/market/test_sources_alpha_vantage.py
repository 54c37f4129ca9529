"""Alpha Vantage against the loopback server: documented shapes, refusals in 200 bodies, quota."""

from __future__ import annotations

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from fixtures import market_api as vendor
from fixtures.market_api import MarketApi, Reply, as_json, av_bar, av_daily, av_overview

from finance_assets.market.sources import (
    AlphaVantageProvider,
    AuthenticationFailed,
    InMemoryQuotaLedger,
    PremiumRequired,
    ProviderError,
    ProviderUnavailable,
    QuotaExhausted,
    QuoteProvider,
    RateLimited,
    RetryPolicy,
    SymbolNotFound,
    Timeouts,
    UnexpectedResponse,
    quote_schema,
)

KEY = "TESTKEY1234567"
NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
START, END = date(2024, 1, 2), date(2024, 1, 5)
DAILY, ADJUSTED, OVERVIEW = "TIME_SERIES_DAILY", "TIME_SERIES_DAILY_ADJUSTED", "OVERVIEW"


@pytest.fixture
def api() -> Iterator[MarketApi]:
    with MarketApi() as server:
        yield server


_opened: list[AlphaVantageProvider] = []


@pytest.fixture(autouse=True)
def _close_providers() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def provider_for(api: MarketApi, **changes: object) -> AlphaVantageProvider:
    options: dict[str, object] = {
        "clock": lambda: NOW,
        "quota": InMemoryQuotaLedger(),
        "base_url": api.url,
        "timeouts": Timeouts(connect=2, read=0.3, total=0.6),
        "retry": RetryPolicy(attempts=3),
        "sleep": lambda seconds: None,
        **changes,
    }
    key = options.pop("api_key", KEY)
    _opened.append(AlphaVantageProvider(key, **options))  # type: ignore[arg-type]
    return _opened[-1]


def refusal(api: MarketApi, document: object, function: str = DAILY, **changes: object) -> ProviderError:
    api.reply(function, as_json(document))
    provider = provider_for(api, adjusted=function == ADJUSTED, **changes)
    with pytest.raises(ProviderError) as caught:
        if function == OVERVIEW:
            provider.fetch_overview("IBM")
        else:
            provider.fetch_quotes("IBM", START, END)
    return caught.value


def test_it_is_a_provider(api: MarketApi) -> None:
    assert isinstance(provider_for(api), QuoteProvider)


def test_a_daily_series_becomes_rows_as_traded_without_actions(api: MarketApi) -> None:
    document = av_daily(
        "IBM", {"2024-01-05": av_bar("159.1600"), "2024-01-04": av_bar("160.8600"), "2023-12-29": av_bar()}
    )
    api.reply(DAILY, as_json(document))
    batch = provider_for(api).fetch_quotes("IBM", START, END)
    assert batch.table.schema.equals(quote_schema())
    assert batch.table.to_pylist() == [
        {
            "quote_date": day,
            "open": Decimal("141.00000000"),
            "high": Decimal("143.50000000"),
            "low": Decimal("140.25000000"),
            "close": close,
            "vendor_adjusted_close": None,
            "volume": 4345952,
            "dividend_amount": None,
            "split_ratio": None,
            "currency": "USD",
            "price_basis": "raw",
            "action_derivation": None,
            "parse_error": None,
        }
        for day, close in ((date(2024, 1, 4), Decimal("160.86")), (date(2024, 1, 5), Decimal("159.16")))
    ]
    assert batch.page == json.dumps(document).encode()
    assert (batch.symbol, batch.provider, batch.page_suffix) == ("IBM", "alpha_vantage", ".json")
    assert batch.fetched_ts_utc == NOW
    assert batch.fallback_reason is None
    assert (
        batch.request == f"GET {api.url}/query?function=TIME_SERIES_DAILY&symbol=IBM&outputsize=compact&datatype=json"
        "&apikey=***"
    )
    assert api.requests[0].params == {
        "function": DAILY,
        "symbol": "IBM",
        "outputsize": "compact",
        "datatype": "json",
        "apikey": KEY,
    }


def test_an_adjusted_series_brings_dividend_split_and_adjusted_close(api: MarketApi) -> None:
    rows = {
        "2024-01-03": av_bar("100.00", adjusted_close="29.1067214009"),
        "2024-01-04": av_bar("25.00", adjusted_close="29.2", dividend="0.8200", split="4.0"),
    }
    api.reply(ADJUSTED, as_json(av_daily("IBM", rows, adjusted=True)))
    table = provider_for(api, adjusted=True).fetch_quotes("IBM", START, END).table
    assert table["vendor_adjusted_close"].to_pylist() == [Decimal("29.10672140"), Decimal("29.2")]
    assert table["dividend_amount"].to_pylist() == [0, Decimal("0.82")]
    assert table["split_ratio"].to_pylist() == [1.0, 4.0]
    assert table["action_derivation"].to_pylist() == ["reported", "reported"]
    assert table["volume"].to_pylist() == [4345952, 4345952]


def test_a_price_that_no_float_can_hold_arrives_exactly(api: MarketApi) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-04": av_bar("9007199254.74099301")})))
    assert provider_for(api).fetch_quotes("IBM", START, END).table["close"][0].as_py() == Decimal("9007199254.74099301")


def test_numbers_instead_of_strings_are_read_exactly_too(api: MarketApi) -> None:
    body = json.dumps(av_daily("IBM", {"2024-01-04": av_bar("142.45")})).replace('"142.45"', "142.10000001").encode()
    api.reply(DAILY, Reply(200, body))
    assert provider_for(api).fetch_quotes("IBM", START, END).table["close"][0].as_py() == Decimal("142.10000001")


@pytest.mark.parametrize(("start", "size"), [("2023-08-19", "compact"), ("2023-08-18", "full"), ("2000-01-03", "full")])
def test_the_shorter_output_is_asked_when_it_must_cover_the_range(api: MarketApi, start: str, size: str) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-04": av_bar()})))
    provider_for(api).fetch_quotes("IBM", date.fromisoformat(start), END)
    assert api.requests[0].params["outputsize"] == size


def test_no_window_of_compact_size_holds_more_than_a_hundred_weekdays() -> None:
    from datetime import timedelta

    from finance_assets.market.sources.alpha_vantage import _COMPACT_DAYS, COMPACT_SESSIONS

    for offset in range(7):
        first = date(2024, 1, 1) + timedelta(days=offset)
        days = [first + timedelta(days=day) for day in range(_COMPACT_DAYS)]
        assert sum(day.weekday() < 5 for day in days) <= COMPACT_SESSIONS


@pytest.mark.parametrize(("symbol", "currency"), [("IBM", "USD"), ("BRK.B", "USD"), ("TSCO.LON", None)])
def test_the_currency_is_only_stated_where_it_is_sure(api: MarketApi, symbol: str, currency: str | None) -> None:
    api.reply(DAILY, as_json(av_daily(symbol, {"2024-01-04": av_bar()})))
    assert provider_for(api).fetch_quotes(symbol, START, END).table["currency"].to_pylist() == [currency]


def test_a_weekend_row_is_kept_for_validation_to_refuse(api: MarketApi) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2023-12-30": av_bar(), "2024-01-02": av_bar()})))
    table = provider_for(api).fetch_quotes("IBM", date(2023, 12, 29), END).table
    assert table["quote_date"].to_pylist() == [date(2023, 12, 30), date(2024, 1, 2)]


def test_the_running_session_is_left_out_with_a_note(api: MarketApi) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-04": av_bar(), "2024-01-05": av_bar()})))
    running = provider_for(api, clock=lambda: datetime(2024, 1, 5, 19, 0, tzinfo=UTC)).fetch_quotes("IBM", START, END)
    assert running.table["quote_date"].to_pylist() == [date(2024, 1, 4)]
    assert running.notes == ("2024-01-05: left out, its session had not ended at 2024-01-05T19:00Z",)
    finished = provider_for(api).fetch_quotes("IBM", START, END)
    assert finished.table.num_rows == 2
    assert finished.notes == ()


def test_an_answer_over_the_close_is_judged_by_when_it_was_asked(api: MarketApi) -> None:
    times = iter([datetime(2024, 1, 5, 21, 14, 59, tzinfo=UTC), *[datetime(2024, 1, 5, 21, 15, 3, tzinfo=UTC)] * 9])
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-05": av_bar()})))
    batch = provider_for(api, clock=lambda: next(times)).fetch_quotes("IBM", START, END)
    assert batch.table.num_rows == 0
    assert batch.fetched_ts_utc == datetime(2024, 1, 5, 21, 15, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    ("bar", "error"),
    [
        (av_bar("None"), 'close: "None" is not a decimal'),
        (av_bar("abc"), 'close: "abc" is not a decimal'),
        (av_bar("-1.5"), 'close: "-1.5" is negative'),
        ({**av_bar(), "4. close": None}, "close: missing"),
        ({**av_bar(), "4. close": ["142"]}, "close: \"['142']\" is not a decimal"),
        ({**av_bar(), "4. close": float("nan")}, 'close: "NaN" is not a decimal'),
        (av_bar(volume="1.5"), 'volume: "1.5" is not a whole number'),
        ({"1. open": "1", "2. high": "2", "3. low": "1"}, "close: missing; volume: missing"),
        ("closed", 'row: "closed" is not an object'),
    ],
)
def test_a_row_that_cannot_be_read_stays_with_its_reason(api: MarketApi, bar: object, error: str) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-03": bar, "2024-01-04": av_bar()})))
    rows = provider_for(api).fetch_quotes("IBM", START, END).table.to_pylist()
    assert [row["parse_error"] for row in rows] == [error, None]
    assert rows[0]["quote_date"] == date(2024, 1, 3)
    named = error.split(":")[0]
    if named in rows[0]:
        assert rows[0][named] is None


def test_bad_actions_are_named(api: MarketApi) -> None:
    rows = {"2024-01-03": av_bar(adjusted_close="1", dividend="None", split="0.0")}
    api.reply(ADJUSTED, as_json(av_daily("IBM", rows, adjusted=True)))
    row = provider_for(api, adjusted=True).fetch_quotes("IBM", START, END).table.to_pylist()[0]
    assert row["parse_error"] == 'dividend_amount: "None" is not a decimal; split_ratio: must be above zero'
    assert row["dividend_amount"] is row["split_ratio"] is row["action_derivation"] is None
    assert row["close"] == Decimal("142.45")


@pytest.mark.parametrize(
    ("document", "kind", "reason"),
    [
        ({"Note": vendor.AV_NOTE}, RateLimited, "rate_limited"),
        ({"Information": vendor.AV_SPREAD}, RateLimited, "rate_limited"),
        ({"Information": vendor.AV_SPREAD_2025}, RateLimited, "rate_limited"),
        ({"Information": vendor.AV_QUOTA}, QuotaExhausted, "quota_exhausted"),
        ({"Information": vendor.AV_PREMIUM}, PremiumRequired, "premium_required"),
        ({"Information": vendor.AV_FULL_IS_PREMIUM}, PremiumRequired, "premium_required"),
        ({"Information": vendor.AV_DEMO_KEY}, AuthenticationFailed, "authentication_failed"),
        ({"Information": "Thank you for using Alpha Vantage!"}, RateLimited, "rate_limited"),
        ({"Information": "Our call frequency is 25 calls per day."}, QuotaExhausted, "quota_exhausted"),
        ({"Information": "We moved."}, UnexpectedResponse, "unknown_refusal"),
        ({"Error Message": vendor.AV_BAD_SYMBOL}, SymbolNotFound, "symbol_not_found"),
        ({"Error Message": vendor.AV_BAD_KEY}, AuthenticationFailed, "authentication_failed"),
        ({"Information": vendor.AV_BAD_KEY}, AuthenticationFailed, "authentication_failed"),
        ({"Error Message": vendor.AV_BAD_FUNCTION}, UnexpectedResponse, "wrong_function"),
        (av_daily("IBM", {}), SymbolNotFound, "empty_series"),
        (av_daily("MSFT", {"2024-01-03": av_bar()}), UnexpectedResponse, "wrong_shape"),
        (av_daily("IBM", {"2024-13-03": av_bar()}), UnexpectedResponse, "wrong_shape"),
        (av_daily("IBM", {"20240103": av_bar()}), UnexpectedResponse, "wrong_shape"),
        (av_daily("IBM", {"2024-01-03": {"4: close": "1"}}), UnexpectedResponse, "wrong_shape"),
        ({"Meta Data": {}, "Time Series (Daily)": []}, UnexpectedResponse, "wrong_shape"),
        ({"Meta Data": {}}, UnexpectedResponse, "wrong_shape"),
        ({}, UnexpectedResponse, "wrong_shape"),
        ([], UnexpectedResponse, "wrong_shape"),
        ("x", UnexpectedResponse, "wrong_shape"),
    ],
)
def test_an_error_in_a_200_body_is_told_apart(
    api: MarketApi, document: object, kind: type[ProviderError], reason: str
) -> None:
    error = refusal(api, document)
    assert type(error) is kind
    assert error.reason_code == reason
    assert error.provider == "alpha_vantage"
    assert error.symbol == "IBM"
    # Only a burst limit is worth another try, and every try is made.
    assert len(api.requests) == (3 if kind is RateLimited else 1)
    assert error.retryable == (kind is RateLimited)


def test_a_burst_limit_passes(api: MarketApi) -> None:
    sleeps: list[float] = []
    api.reply(DAILY, as_json({"Note": vendor.AV_NOTE}), as_json(av_daily("IBM", {"2024-01-04": av_bar()})))
    batch = provider_for(api, sleep=sleeps.append, retry=None, uniform=lambda low, high: low).fetch_quotes(
        "IBM", START, END
    )
    assert batch.table.num_rows == 1
    assert sleeps == [2.0]


def test_html_with_status_200_and_a_cut_document_are_no_answer(api: MarketApi) -> None:
    api.reply(DAILY, Reply(200, vendor.HTML_PAGE, {"Content-Type": "text/html"}))
    with pytest.raises(UnexpectedResponse, match="Maintenance") as caught:
        provider_for(api).fetch_quotes("IBM", START, END)
    assert caught.value.reason_code == "not_json"
    api.reply(OVERVIEW, Reply(200, json.dumps(av_overview()).encode()[:-20]))
    with pytest.raises(UnexpectedResponse) as caught:
        provider_for(api).fetch_overview("IBM")
    assert caught.value.reason_code == "not_json"


def test_time_outs_end_as_unavailable(api: MarketApi) -> None:
    api.reply(DAILY, Reply(fault="hang"))
    with pytest.raises(ProviderUnavailable) as caught:
        provider_for(api, retry=RetryPolicy(attempts=2)).fetch_quotes("IBM", START, END)
    assert (caught.value.reason_code, caught.value.attempts) == ("timeout", 2)


def test_a_range_without_rows_is_an_empty_table(api: MarketApi) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2023-12-01": av_bar()})))
    assert provider_for(api).fetch_quotes("IBM", START, END).table.num_rows == 0


def test_a_range_that_ends_before_it_starts_is_refused_without_a_request(api: MarketApi) -> None:
    with pytest.raises(ValueError, match="ends before"):
        provider_for(api).fetch_quotes("IBM", END, START)
    assert api.requests == []


@pytest.mark.parametrize("key", [None, "", "  "])
def test_a_missing_key_fails_without_a_request(api: MarketApi, key: str | None) -> None:
    quota = InMemoryQuotaLedger()
    with pytest.raises(AuthenticationFailed, match="no API key"):
        provider_for(api, api_key=key, quota=quota).fetch_quotes("IBM", START, END)
    assert api.requests == []
    assert quota.used("alpha_vantage", date(2024, 1, 5)) == 0


def test_every_attempt_counts_against_the_quota(api: MarketApi) -> None:
    quota = InMemoryQuotaLedger()
    api.reply(
        DAILY,
        Reply(500),
        as_json({"Note": vendor.AV_NOTE}),
        as_json(av_daily("IBM", {"2024-01-04": av_bar()})),
    )
    provider_for(api, quota=quota).fetch_quotes("IBM", START, END)
    assert quota.used("alpha_vantage", date(2024, 1, 5)) == len(api.requests) == 3


def test_a_used_up_quota_sends_nothing_and_is_final(api: MarketApi) -> None:
    quota = InMemoryQuotaLedger()
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-04": av_bar()})))
    provider = provider_for(api, quota=quota, daily_limit=2)
    provider.fetch_quotes("IBM", START, END)
    provider.fetch_quotes("IBM", START, END)
    with pytest.raises(QuotaExhausted, match="all 2 requests of 2024-01-05") as caught:
        provider.fetch_quotes("IBM", START, END)
    assert not caught.value.retryable
    assert len(api.requests) == quota.used("alpha_vantage", date(2024, 1, 5)) == 2


def test_a_quota_that_ends_between_retries_stops_them(api: MarketApi) -> None:
    api.reply(DAILY, Reply(500))
    with pytest.raises(QuotaExhausted):
        provider_for(api, daily_limit=2).fetch_quotes("IBM", START, END)
    assert len(api.requests) == 2


def test_no_limit_still_counts(api: MarketApi) -> None:
    quota = InMemoryQuotaLedger()
    api.reply(OVERVIEW, as_json(av_overview()))
    provider = provider_for(api, quota=quota, daily_limit=None)
    for _ in range(30):
        provider.fetch_overview("IBM")
    assert quota.used("alpha_vantage", date(2024, 1, 5)) == 30


def test_the_quota_day_is_eastern(api: MarketApi) -> None:
    quota = InMemoryQuotaLedger()
    api.reply(OVERVIEW, as_json(av_overview()))
    provider_for(api, quota=quota, clock=lambda: datetime(2024, 1, 6, 3, 0, tzinfo=UTC)).fetch_overview("IBM")
    assert quota.used("alpha_vantage", date(2024, 1, 5)) == 1


def test_a_premium_refusal_costs_one_request_and_leaves_the_rest_alone(api: MarketApi) -> None:
    api.reply(
        DAILY,
        as_json({"Information": vendor.AV_FULL_IS_PREMIUM}),
        as_json(av_daily("IBM", {"2024-01-04": av_bar()})),
    )
    provider = provider_for(api)
    for _ in range(3):
        with pytest.raises(PremiumRequired):
            provider.fetch_quotes("IBM", date(2010, 1, 4), END)
    assert len(api.requests) == 1
    assert provider.fetch_quotes("IBM", START, END).table.num_rows == 1


def test_the_overview(api: MarketApi) -> None:
    api.reply(OVERVIEW, as_json(av_overview()))
    overview = provider_for(api).fetch_overview("IBM")
    assert overview.name == "International Business Machines"
    assert overview.instrument_type == "equity"
    assert (overview.sector, overview.sector_scheme) == ("TECHNOLOGY", "alpha_vantage")
    assert (overview.currency, overview.exchange) == ("USD", "XNYS")
    assert (overview.eps, overview.pe_ratio) == (Decimal("8.4"), Decimal("36.22"))
    assert overview.fetched_ts_utc == NOW
    assert json.loads(overview.page or b"") == av_overview()
    assert KEY not in overview.request


def test_an_overview_without_earnings_has_nulls_and_a_loss_is_negative(api: MarketApi) -> None:
    api.reply(
        OVERVIEW,
        as_json(av_overview(PERatio="None", EPS="-2.5", Sector="-", Exchange="OTC", AssetType="Closed End Fund")),
    )
    overview = provider_for(api).fetch_overview("IBM")
    assert (overview.eps, overview.pe_ratio, overview.sector) == (Decimal("-2.5"), None, None)
    assert (overview.exchange, overview.instrument_type) == ("OTC", "closed_end_fund")


def test_an_empty_overview_is_an_unknown_ticker(api: MarketApi) -> None:
    assert type(refusal(api, {}, OVERVIEW)) is SymbolNotFound


def test_an_overview_with_an_unreadable_number_is_refused(api: MarketApi) -> None:
    error = refusal(api, av_overview(EPS="a lot"), OVERVIEW)
    assert type(error) is UnexpectedResponse
    assert 'EPS: "a lot" is not a decimal' in str(error)


@pytest.mark.parametrize(
    "document",
    [
        {"Information": vendor.AV_QUOTA.replace("KEY", KEY)},
        {"Error Message": f"bad key {KEY}"},
        {"what": f"is {KEY}"},
        av_daily(f"{KEY}", {"2024-01-03": av_bar()}),
        av_daily("IBM", {f"{KEY}": av_bar()}),
    ],
)
def test_the_key_shows_nowhere_even_where_the_vendor_repeats_it(
    api: MarketApi, caplog: pytest.LogCaptureFixture, document: object
) -> None:
    caplog.set_level(logging.DEBUG)
    error = refusal(api, document)
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    locals_of_the_package = [
        f"{frame.name}: {name} = {value}"
        for frame in shown.stack
        if "finance_assets" in frame.filename
        for name, value in (frame.locals or {}).items()
    ]
    assert api.requests[0].params["apikey"] == KEY
    assert locals_of_the_package
    assert KEY not in "\n".join([caplog.text, str(error), repr(error), repr(error.__dict__), *locals_of_the_package])
    assert "***" in str(error)


def test_the_key_does_not_reach_the_table(api: MarketApi) -> None:
    api.reply(DAILY, as_json(av_daily("IBM", {"2024-01-03": av_bar(KEY), "2024-01-04": KEY})))
    batch = provider_for(api).fetch_quotes("IBM", START, END)
    errors = batch.table["parse_error"].to_pylist()
    assert errors == ['close: "***" is not a decimal', 'row: "***" is not an object']
    assert KEY not in repr(batch)
    assert KEY not in repr(provider_for(api))
