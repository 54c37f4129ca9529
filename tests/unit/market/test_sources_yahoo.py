"""Yahoo through the real yfinance and curl, against the loopback server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from fixtures.faulty_server import (
    HTTP_BROKEN,
    HTTP_FLOODS,
    HTTP_HANGS,
    Fault,
    allocates_less_than,
    ends_within,
    gzip_bomb,
    serve,
)
from fixtures.market_api import (
    HTML_PAGE,
    MarketApi,
    Reply,
    as_json,
    yahoo_chart,
    yahoo_error,
    yahoo_stamp,
    yahoo_summary,
)

from finance_assets.market.sources import (
    ProviderError,
    ProviderNotInstalled,
    ProviderUnavailable,
    QuoteProvider,
    RateLimited,
    RetryPolicy,
    SymbolNotFound,
    Timeouts,
    UnexpectedResponse,
    YahooProvider,
    quote_schema,
    yahoo,
)
from finance_assets.market.sources.yahoo import as_written

yfinance_data = pytest.importorskip("yfinance.data", reason="the yahoo extra is not installed")

NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
START, END = date(2024, 1, 2), date(2024, 1, 5)
CHART, SUMMARY = "/v8/finance/chart/AAPL", "/v10/finance/quoteSummary/AAPL"


@pytest.fixture
def api() -> Iterator[MarketApi]:
    # yfinance keeps one session, cookie and crumb per process; every test begins without.
    yfinance_data.SingletonMeta._instances.clear()
    with MarketApi() as server:
        yield server
    yfinance_data.SingletonMeta._instances.clear()


@pytest.fixture(scope="session")
def cookies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("yfinance")


@pytest.fixture
def make(api: MarketApi, cookies: Path) -> Iterator[Any]:
    made: list[YahooProvider] = []

    def provider(**changes: object) -> YahooProvider:
        options: dict[str, object] = {
            "clock": lambda: NOW,
            "cache_dir": cookies,
            "base_url": api.url,
            "timeouts": Timeouts(connect=0.3, total=0.5),
            "retry": RetryPolicy(attempts=2),
            "sleep": lambda seconds: None,
            **changes,
        }
        made.append(YahooProvider(**options))  # type: ignore[arg-type]
        return made[-1]

    yield provider
    for one in made:
        one.close()


def bar(
    day: str, close: float | None, volume: int | None = 1000, adjusted: float | None = None
) -> tuple[int, list[Any]]:
    return yahoo_stamp(day), [close, close, close, close, close if adjusted is None else adjusted, volume]


def failure(api: MarketApi, make: Any, *replies: Reply, **changes: object) -> ProviderError:
    api.reply(CHART, *replies)
    with pytest.raises(ProviderError) as caught:
        make(**changes).fetch_quotes("AAPL", START, END)
    return caught.value


def test_it_is_a_provider(make: Any) -> None:
    assert isinstance(make(), QuoteProvider)


def test_a_chart_becomes_rows_and_its_bytes_are_kept(api: MarketApi, make: Any) -> None:
    document = yahoo_chart(
        "AAPL",
        [
            (
                yahoo_stamp("2024-01-04"),
                [
                    182.14999389648438,
                    183.08999633789062,
                    180.8800048828125,
                    181.91000366210938,
                    180.5,
                    71983600,
                ],
            ),
            (
                yahoo_stamp("2024-01-05"),
                [
                    181.99000549316406,
                    182.75999450683594,
                    180.1699981689453,
                    181.17999267578125,
                    179.75,
                    62303300,
                ],
            ),
        ],
        dividends=[(yahoo_stamp("2024-01-05"), 0.24)],
    )
    api.reply(CHART, as_json(document))
    batch = make().fetch_quotes("AAPL", START, END)
    assert batch.table.schema.equals(quote_schema())
    assert batch.table.to_pylist() == [
        {
            "quote_date": date(2024, 1, 4),
            "open": Decimal("182.15"),
            "high": Decimal("183.09"),
            "low": Decimal("180.88"),
            "close": Decimal("181.91"),
            "vendor_adjusted_close": Decimal("180.5"),
            "volume": 71983600,
            "dividend_amount": Decimal(0),
            "split_ratio": 1.0,
            "currency": "USD",
            "price_basis": "raw",
            "action_derivation": "reported",
            "parse_error": None,
        },
        {
            "quote_date": date(2024, 1, 5),
            "open": Decimal("181.99"),
            "high": Decimal("182.76"),
            "low": Decimal("180.17"),
            "close": Decimal("181.18"),
            "vendor_adjusted_close": Decimal("179.75"),
            "volume": 62303300,
            "dividend_amount": Decimal("0.24"),
            "split_ratio": 1.0,
            "currency": "USD",
            "price_basis": "raw",
            "action_derivation": "reported",
            "parse_error": None,
        },
    ]
    assert batch.page == json.dumps(document).encode()
    assert (batch.provider, batch.symbol, batch.page_suffix, batch.fetched_ts_utc) == (
        "yahoo",
        "AAPL",
        ".json",
        NOW,
    )


def test_the_request_runs_through_today_and_carries_the_crumb_that_no_text_shows(api: MarketApi, make: Any) -> None:
    api.reply(CHART, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 1.0)])))
    batch = make().fetch_quotes("AAPL", START, date(2024, 1, 4))
    sent = api.seen(CHART)[0].params
    assert sent["crumb"] == "loopback-crumb"
    assert int(sent["period1"]) <= yahoo_stamp("2024-01-02", 0, 0)
    assert int(sent["period2"]) >= NOW.timestamp()
    assert sent["events"] == "div,splits,capitalGains"
    assert "crumb" not in batch.request
    assert batch.request.startswith(f"GET {api.url}/v8/finance/chart/AAPL?period1=")


def test_an_index_symbol_is_escaped_once(api: MarketApi, make: Any) -> None:
    api.reply(
        "/v8/finance/chart/",
        as_json(yahoo_chart("^GSPC", [bar("2024-01-04", 4688.68017578125)], instrumentType="INDEX")),
    )
    row = make().fetch_quotes("^GSPC", START, END).table.to_pylist()[0]
    assert api.seen("/v8/finance/chart/")[0].path in ("/v8/finance/chart/^GSPC", "/v8/finance/chart/%5EGSPC")
    assert (row["close"], row["currency"]) == (Decimal("4688.68"), "points")


def test_splits_after_the_range_are_undone(api: MarketApi, make: Any) -> None:
    # AAPL around its 4:1 split of 2020-08-31, as Yahoo gives it today: everything before is divided by four.
    bars = [
        (yahoo_stamp("2020-08-06", 13), [100.0, 115.0, 108.75, 113.90249633789062, 111.0, 202428800]),
        (
            yahoo_stamp("2020-08-07", 13),
            [113.20500183105469, 113.67500305175781, 110.2925033569336, 111.11250305175781, 108.5, 198045600],
        ),
        (
            yahoo_stamp("2020-08-31", 13),
            [127.58000183105469, 131.0, 126.0, 129.0399932861328, 126.2, 225702700],
        ),
    ]
    document = yahoo_chart(
        "AAPL",
        bars,
        dividends=[(yahoo_stamp("2020-08-07", 13), 0.205)],
        splits=[(yahoo_stamp("2020-08-31", 13), 4, 1)],
    )
    api.reply(CHART, as_json(document))
    cut = make().fetch_quotes("AAPL", date(2020, 8, 6), date(2020, 8, 7)).table.to_pylist()
    assert [row["close"] for row in cut] == [Decimal("455.61"), Decimal("444.45")]
    assert [row["volume"] for row in cut] == [50607200, 49511400]
    assert [row["dividend_amount"] for row in cut] == [0, Decimal("0.82")]
    assert [row["vendor_adjusted_close"] for row in cut] == [Decimal("111"), Decimal("108.5")]
    assert [row["split_ratio"] for row in cut] == [1.0, 1.0]

    whole = make().fetch_quotes("AAPL", date(2020, 8, 6), date(2020, 8, 31)).table.to_pylist()
    assert whole[:2] == cut
    assert (whole[2]["close"], whole[2]["volume"], whole[2]["split_ratio"]) == (
        Decimal("129.04"),
        225702700,
        4.0,
    )


def test_two_splits_multiply_and_a_reverse_split_divides(api: MarketApi, make: Any) -> None:
    document = yahoo_chart(
        "AAPL",
        [
            bar("2024-01-02", 17.857142857142858, 2800),
            bar("2024-01-03", 125.0, 400),
            bar("2024-01-04", 1000.0, 10),
        ],
        splits=[(yahoo_stamp("2024-01-03"), 7, 1), (yahoo_stamp("2024-01-04"), 1, 8)],
        dividends=[(yahoo_stamp("2024-01-02"), 0.073571)],
    )
    api.reply(CHART, as_json(document))
    rows = make().fetch_quotes("AAPL", START, END).table.to_pylist()
    assert [row["close"] for row in rows] == [Decimal("15.625"), Decimal("15.625"), Decimal("1000")]
    assert [row["volume"] for row in rows] == [3200, 3200, 10]
    assert [row["split_ratio"] for row in rows] == [1.0, 7.0, 0.125]
    assert rows[0]["dividend_amount"] == Decimal("0.064375")


def test_undoing_a_split_does_not_blow_up_the_rounding_of_the_vendor(api: MarketApi, make: Any) -> None:
    # 500.00 / 28 in single precision is 17.85714340209961; times 28 that is 500.0000152587891.
    document = yahoo_chart(
        "AAPL",
        [bar("2024-01-02", 17.85714340209961), bar("2024-01-03", 1.0), bar("2024-01-04", 1.0)],
        splits=[(yahoo_stamp("2024-01-03"), 7, 1), (yahoo_stamp("2024-01-04"), 4, 1)],
    )
    api.reply(CHART, as_json(document))
    assert make().fetch_quotes("AAPL", START, START).table["close"].to_pylist() == [Decimal(500)]


@pytest.mark.parametrize(
    ("number", "meant"),
    [
        ("187.14999389648438", "187.15"),
        ("0.10000000149011612", "0.1"),
        ("543210.5", "543210.5"),
        ("187.15", "187.15"),  # a double that is no single-precision float
        ("111.11250305175781", "111.1125"),
        ("1e300", "1E+300"),
    ],
)
def test_widened_single_precision_is_read_as_written(number: str, meant: str) -> None:
    assert as_written(Decimal(number)) == Decimal(meant)


def test_bad_values_stay_with_their_reason(api: MarketApi, make: Any) -> None:
    document = yahoo_chart("AAPL", [bar("2024-01-03", None, None), bar("2024-01-04", -1.0), bar("2024-01-05", 3.0)])
    document["chart"]["result"][0]["indicators"]["quote"][0]["volume"][2] = "many"
    api.reply(CHART, as_json(document))
    rows = make().fetch_quotes("AAPL", START, END).table.to_pylist()
    assert rows[0]["parse_error"] == "open: missing; high: missing; low: missing; close: missing; volume: missing"
    assert 'close: "-1.0" is negative' in rows[1]["parse_error"]
    assert rows[2]["parse_error"] == 'volume: "many" is not a whole number'
    assert [row["close"] for row in rows] == [None, None, Decimal(3)]


def test_an_action_without_a_bar_is_not_lost(api: MarketApi, make: Any) -> None:
    document = yahoo_chart(
        "AAPL",
        [bar("2024-01-02", 10.0), bar("2024-01-05", 11.0)],
        dividends=[(yahoo_stamp("2024-01-03"), 0.5), (yahoo_stamp("2023-12-29"), 0.5)],
    )
    api.reply(CHART, as_json(document))
    rows = make().fetch_quotes("AAPL", START, END).table.to_pylist()
    assert [row["quote_date"].day for row in rows] == [2, 3, 5]
    assert rows[1]["dividend_amount"] == Decimal("0.5")
    assert rows[1]["parse_error"] == "row: an action on a day without a bar"


def test_the_running_session_is_left_out_and_a_repeated_last_price_too(api: MarketApi, make: Any) -> None:
    live = yahoo_stamp("2024-01-05", 21, 0)
    bars = [bar("2024-01-04", 10.0), bar("2024-01-05", 11.0), (live, [11.5] * 5 + [1])]
    api.reply(CHART, as_json(yahoo_chart("AAPL", bars, regularMarketTime=live)))
    closed = make().fetch_quotes("AAPL", START, END)
    assert closed.table["close"].to_pylist() == [10, 11]
    assert closed.notes == ("2024-01-05: the vendor repeated its last price as a second bar, which was left out",)
    running = make(clock=lambda: datetime(2024, 1, 5, 19, 0, tzinfo=UTC)).fetch_quotes("AAPL", START, END)
    assert running.table["close"].to_pylist() == [10]
    assert running.notes[0] == "2024-01-05: left out, its session had not ended at 2024-01-05T19:00Z"


def test_a_date_that_comes_twice_otherwise_is_kept_twice_for_validation(api: MarketApi, make: Any) -> None:
    bars = [bar("2024-01-04", 10.0), (yahoo_stamp("2024-01-04", 18), [11.0] * 5 + [1])]
    api.reply(CHART, as_json(yahoo_chart("AAPL", bars)))
    assert make().fetch_quotes("AAPL", START, END).table["quote_date"].to_pylist() == [date(2024, 1, 4)] * 2


def test_dates_are_those_of_the_exchange(api: MarketApi, make: Any) -> None:
    # Sydney opens at 23:00 UTC of the day before.
    document = yahoo_chart(
        "AAPL",
        [(yahoo_stamp("2024-01-03", 23, 0), [5.0] * 5 + [1])],
        time_zone="Australia/Sydney",
        currency="AUD",
    )
    api.reply(CHART, as_json(document))
    row = make().fetch_quotes("AAPL", START, END).table.to_pylist()[0]
    assert (row["quote_date"], row["currency"]) == (date(2024, 1, 4), "AUD")


def test_no_data_in_the_range_is_an_empty_table(api: MarketApi, make: Any) -> None:
    api.reply(CHART, as_json(yahoo_error("Bad Request", "Data doesn't exist for startDate = 1, endDate = 2"), 400))
    batch = make().fetch_quotes("AAPL", START, END)
    assert batch.table.num_rows == 0
    assert batch.notes == ("the vendor has no data from 2024-01-02 on",)
    api.reply("/v8/finance/chart/MSFT", as_json(yahoo_chart("MSFT", [])))
    assert make().fetch_quotes("MSFT", START, END).table.num_rows == 0


def test_an_unknown_ticker_is_final(api: MarketApi, make: Any) -> None:
    error = failure(api, make, as_json(yahoo_error("Not Found", "No data found, symbol may be delisted"), 404))
    assert type(error) is SymbolNotFound
    assert error.attempts == 1
    assert "No data found, symbol may be delisted" in str(error)


def test_429_for_ever_is_a_rate_limit_after_every_try(api: MarketApi, make: Any) -> None:
    error = failure(api, make, Reply(429, b"Too Many Requests"))
    assert type(error) is RateLimited
    assert (error.reason_code, error.attempts, error.retryable) == ("rate_limited", 2, True)


def test_429_waits_as_asked_then_succeeds(api: MarketApi, make: Any) -> None:
    sleeps: list[float] = []
    # yfinance repeats a refused request once by itself, with another cookie.
    refused = Reply(429, b"Too Many Requests", {"Retry-After": "7"})
    api.reply(CHART, refused, refused, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    assert make(sleep=sleeps.append).fetch_quotes("AAPL", START, END).table.num_rows == 1
    assert sleeps == [7.0]


def test_server_errors_then_an_answer(api: MarketApi, make: Any) -> None:
    api.reply(CHART, Reply(502), Reply(502), as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    assert make().fetch_quotes("AAPL", START, END).table.num_rows == 1


@pytest.mark.parametrize(
    ("reply", "kind", "reason", "attempts"),
    [
        (Reply(503, b"down"), ProviderUnavailable, "server_error", 2),
        (Reply(200, b"<html>Will be right back...</html>"), ProviderUnavailable, "server_error", 2),
        (
            Reply(401, b'{"finance":{"error":{"code":"Unauthorized","description":"Invalid Crumb"}}}'),
            ProviderUnavailable,
            "session_refused",
            2,
        ),
        (Reply(fault="hang"), ProviderUnavailable, "timeout", 2),
        (Reply(200, b"{" * 400, fault="drip"), ProviderUnavailable, "timeout", 2),
        (Reply(fault="reset"), ProviderUnavailable, "connection_failed", 2),
        (Reply(200, b'{"chart": {}}' * 9, fault="truncate"), UnexpectedResponse, "truncated_body", 2),
        (Reply(200, b'{"chart": '), UnexpectedResponse, "not_json", 1),
        (Reply(200, HTML_PAGE), UnexpectedResponse, "not_json", 1),
        (Reply(200, b"[]"), UnexpectedResponse, "wrong_shape", 1),
        (Reply(200, b'{"chart": {"result": null, "error": null}}'), UnexpectedResponse, "wrong_shape", 1),
        (Reply(200, b'{"chart": {"result": [{}], "error": null}}'), UnexpectedResponse, "wrong_shape", 1),
        (as_json(yahoo_error("Internal", "oops")), UnexpectedResponse, "http_200", 1),
        (as_json(yahoo_chart("MSFT", [bar("2024-01-04", 1.0)])), UnexpectedResponse, "wrong_shape", 1),
        (
            as_json(yahoo_chart("AAPL", [bar("2024-01-04", 1.0)], time_zone="Mars/Olympus")),
            UnexpectedResponse,
            "wrong_shape",
            1,
        ),
        (
            as_json(yahoo_chart("AAPL", [bar("2024-01-04", 1.0)], splits=[(yahoo_stamp("2024-01-04"), 0, 1)])),
            UnexpectedResponse,
            "wrong_shape",
            1,
        ),
        (
            as_json(yahoo_chart("AAPL", [bar("2024-01-04", 1.0)], splits=[(yahoo_stamp("2024-01-04"), 1, 0)])),
            UnexpectedResponse,
            "wrong_shape",
            1,
        ),
        (Reply(418), UnexpectedResponse, "http_418", 1),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_fault_has_its_error(
    api: MarketApi, make: Any, reply: Reply, kind: type[ProviderError], reason: str, attempts: int
) -> None:
    error = failure(api, make, reply)
    assert (type(error), error.reason_code, error.attempts) == (kind, reason, attempts)
    assert "AAPL" in str(error)


def test_columns_of_different_length_are_refused(api: MarketApi, make: Any) -> None:
    document = yahoo_chart("AAPL", [bar("2024-01-03", 1.0), bar("2024-01-04", 1.0)])
    document["chart"]["result"][0]["indicators"]["quote"][0]["close"].pop()
    assert failure(api, make, as_json(document)).reason_code == "wrong_shape"


def test_a_body_over_the_limit_is_refused(api: MarketApi, make: Any) -> None:
    error = failure(api, make, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 1.0)])), max_bytes=200)
    assert (type(error), error.reason_code) == (UnexpectedResponse, "too_large")


def test_a_refused_connection_is_unavailable(api: MarketApi, make: Any) -> None:
    with MarketApi() as gone:
        url = gone.url
    with pytest.raises(ProviderUnavailable) as caught:
        make(base_url=url).fetch_quotes("AAPL", START, END)
    assert caught.value.reason_code == "connection_failed"


def test_a_failing_cookie_or_crumb_does_not_stop_the_chart(api: MarketApi, make: Any) -> None:
    api.reply("/v1/test/getcrumb", Reply(429, b"Too Many Requests"))
    api.reply("/consent", Reply(500))
    api.reply(CHART, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    assert make().fetch_quotes("AAPL", START, END).table.num_rows == 1


def test_a_stumble_of_yfinance_is_an_error_like_others(api: MarketApi, make: Any) -> None:
    # No crumb, and a consent page with a token but without a session: yfinance reads a field of None.
    api.reply("/v1/test/getcrumb", Reply(200, b"<html>"))
    api.reply("/consent", Reply(200, b'<html><input name="csrfToken" value="x"></html>'))
    error = failure(api, make, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    assert (type(error), error.reason_code) == (UnexpectedResponse, "yfinance_failed")


def test_the_overview(api: MarketApi, make: Any) -> None:
    api.reply(SUMMARY, as_json(yahoo_summary()))
    overview = make().fetch_overview("AAPL")
    assert (overview.name, overview.instrument_type) == ("Apple Inc.", "equity")
    assert (overview.sector, overview.sector_scheme) == ("Technology", "yahoo")
    assert (overview.currency, overview.exchange) == ("USD", "XNAS")
    assert (overview.eps, overview.pe_ratio) == (Decimal("6.08"), Decimal("31.402344"))
    assert json.loads(overview.page or b"") == yahoo_summary()


def test_an_overview_with_formatted_and_missing_values(api: MarketApi, make: Any) -> None:
    document = yahoo_summary(
        defaultKeyStatistics={"trailingEps": {"raw": -2.5, "fmt": "-2.50"}},
        summaryDetail={"trailingPE": "Infinity"},
        assetProfile={},
    )
    api.reply(SUMMARY, as_json(document))
    overview = make().fetch_overview("AAPL")
    assert (overview.eps, overview.pe_ratio, overview.sector) == (Decimal("-2.5"), None, None)


def test_an_overview_of_an_unknown_ticker(api: MarketApi, make: Any) -> None:
    api.reply(
        SUMMARY,
        as_json(yahoo_error("Not Found", "Quote not found for symbol: AAPL", outer="quoteSummary"), 404),
    )
    with pytest.raises(SymbolNotFound):
        make().fetch_overview("AAPL")


def test_cookies_lie_where_the_first_provider_was_told(api: MarketApi, make: Any) -> None:
    api.reply(CHART, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    make().fetch_quotes("AAPL", START, END)
    first = yahoo._cache_directory
    assert first is not None
    assert (first / "cookies.db").exists()


def test_without_yfinance_it_says_what_to_install(make: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "yfinance", None)
    with pytest.raises(ProviderNotInstalled, match=r"finance-assets\[yahoo\]"):
        make().fetch_quotes("AAPL", START, END)


# -- deadlines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*HTTP_HANGS, *HTTP_FLOODS, *HTTP_BROKEN])
def test_no_answer_outlasts_the_deadline_or_fills_the_memory(fault: Fault, make: Any) -> None:
    with serve(fault) as server:
        provider = make(
            base_url=server.url,
            timeouts=Timeouts(connect=5.0, total=0.5, call=0.8),
            retry=RetryPolicy(attempts=3, first_wait=0.05),
            sleep=time.sleep,
            max_bytes=1_000_000,
        )
        with allocates_less_than(12_000_000), ends_within(0.8), pytest.raises(ProviderError):
            provider.fetch_quotes("AAPL", START, END)


def test_a_body_that_grows_when_unpacked_is_refused(make: Any) -> None:
    with serve(gzip_bomb) as server, pytest.raises(UnexpectedResponse) as caught:
        make(base_url=server.url, timeouts=Timeouts(total=5.0), max_bytes=1_000_000).fetch_quotes("AAPL", START, END)
    assert caught.value.reason_code == "too_large"


def test_a_cookie_that_does_not_come_leaves_time_for_the_quotes(api: MarketApi, make: Any) -> None:
    api.reply("/v1/test/getcrumb", Reply(fault="hang"))
    api.reply("/consent", Reply(fault="hang"))
    api.reply(CHART, as_json(yahoo_chart("AAPL", [bar("2024-01-04", 10.0)])))
    provider = make(timeouts=Timeouts(connect=0.3, total=1.5), retry=RetryPolicy(attempts=1))
    with ends_within(1.5):
        assert provider.fetch_quotes("AAPL", START, END).table.num_rows == 1


def test_another_thread_that_hangs_does_not_hold_this_one(api: MarketApi, make: Any) -> None:
    lock = yahoo._yfinance_lock
    with lock, ends_within(0.6):
        error = failure(api, make, Reply(200, b"{}"), timeouts=Timeouts(total=0.3, call=0.6))
    assert (type(error), error.reason_code) == (ProviderUnavailable, "timeout")
