"""FRED's client against a server on loopback: vintages, pages, missing numbers, and everything that goes wrong."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest
from fixtures.fred_api import (
    BAD_KEY,
    NO_SERIES,
    OBSERVATIONS,
    TOO_MANY,
    VINTAGE_DATES,
    observations,
    vintage_dates,
)
from fixtures.market_api import MarketApi, Reply, as_json

from finance_assets.macro import sources
from finance_assets.macro.sample import FILES, SampleMacroProvider
from finance_assets.macro.series import SERIES
from finance_assets.macro.sources import FredProvider, Observation, read_value
from finance_assets.providers.errors import (
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
    UnexpectedResponse,
)
from finance_assets.providers.http import RetryPolicy, Timeouts

KEY = "abcdef0123456789abcdef0123456789"
NOW = datetime(2024, 3, 15, 12, tzinfo=UTC)
BY_ID = {series.series_id: series for series in SERIES}


@pytest.fixture
def api() -> Iterator[MarketApi]:
    with MarketApi() as server:
        yield server


@pytest.fixture
def fred(api: MarketApi) -> Iterator[FredProvider]:
    provider = FredProvider(
        KEY,
        clock=lambda: NOW,
        series=SERIES,
        base_url=api.url,
        retry=RetryPolicy(attempts=2, first_wait=0.0),
        timeouts=Timeouts(connect=2, read=1, total=2),
    )
    yield provider
    provider.close()


def test_a_revised_series_comes_with_its_vintages(api: MarketApi, fred: FredProvider) -> None:
    api.reply(VINTAGE_DATES, vintage_dates(["2024-01-11", "2024-02-13"]))
    api.reply(
        OBSERVATIONS,
        observations(
            [
                ("2023-12-01", "2024-01-11", "308.850"),
                ("2023-12-01", "2024-02-09", "308.742"),
                ("2024-01-01", "2024-02-13", "309.685"),
                ("2024-02-01", "2024-04-12", "1.0"),  # after the clock
            ]
        ),
    )
    batch = fred.fetch(BY_ID["CPIAUCSL"])
    assert batch.observations == (
        Observation(date(2023, 12, 1), date(2024, 1, 11), "vintage", "308.850"),
        Observation(date(2023, 12, 1), date(2024, 2, 9), "vintage", "308.742"),
        Observation(date(2024, 1, 1), date(2024, 2, 13), "vintage", "309.685"),
    )
    asked = api.seen(OBSERVATIONS)[0].params
    assert (asked["realtime_start"], asked["realtime_end"], asked["output_type"], asked["limit"]) == (
        "1776-07-04",
        "9999-12-31",
        "1",
        "100000",
    )
    assert asked["api_key"] == KEY
    assert KEY not in batch.request + repr(fred)


def test_a_market_rate_is_released_after_its_lag(api: MarketApi, fred: FredProvider) -> None:
    api.reply(OBSERVATIONS, observations([("2024-03-13", "2024-03-15", "4.19"), ("2024-03-14", "2024-03-15", ".")]))
    batch = fred.fetch(BY_ID["DGS10"])
    assert batch.observations == (
        Observation(date(2024, 3, 13), date(2024, 3, 14), "assumed_lag", "4.19"),
        Observation(date(2024, 3, 14), date(2024, 3, 15), "assumed_lag", "."),
    )
    assert not api.seen(VINTAGE_DATES)
    assert "realtime_start" not in api.seen(OBSERVATIONS)[0].params


def test_pages_are_read_to_the_end(api: MarketApi, fred: FredProvider) -> None:
    api.reply(
        OBSERVATIONS,
        observations([("2024-03-11", "2024-03-15", "4.1"), ("2024-03-12", "2024-03-15", "4.2")], count=3),
        observations([("2024-03-13", "2024-03-15", "4.3")], count=3, offset=2),
    )
    batch = fred.fetch(BY_ID["DGS10"])
    assert [row.value_text for row in batch.observations] == ["4.1", "4.2", "4.3"]
    assert [request.params["offset"] for request in api.seen(OBSERVATIONS)] == ["0", "2"]
    assert len(batch.pages) == 2


def test_more_vintages_than_one_request_may_span(
    api: MarketApi, fred: FredProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FRED cuts spans at a request's border: what comes twice for that reason is one release."""
    monkeypatch.setattr(sources, "VINTAGES_AT_ONCE", 3)
    days = [(date(2024, 1, 1) + timedelta(days=n)).isoformat() for n in range(4)]
    api.reply(VINTAGE_DATES, vintage_dates(days))
    api.reply(
        OBSERVATIONS,
        observations([("2023-12-01", "2024-01-02", "5.33")]),
        observations([("2023-12-01", "2024-01-03", "5.33"), ("2023-12-01", "2024-01-04", "5.34")]),
    )
    batch = fred.fetch(BY_ID["FEDFUNDS"])
    assert [(row.release_date.day, row.value_text) for row in batch.observations] == [(2, "5.33"), (4, "5.34")]
    spans = [(r.params["realtime_start"], r.params["realtime_end"]) for r in api.seen(OBSERVATIONS)]
    assert spans == [("1776-07-04", "2024-01-02"), ("2024-01-03", "9999-12-31")]


@pytest.mark.parametrize(
    ("reply", "error", "said"),
    [
        (BAD_KEY, AuthenticationFailed, "FINANCE_ASSETS_FRED_API_KEY"),
        (NO_SERIES, SymbolNotFound, "series.py"),
        (TOO_MANY, RateLimited, "429"),
        (Reply(500, b"oops"), ProviderUnavailable, "HTTP 500"),
        (Reply(fault="hang"), ProviderUnavailable, "timed out"),
        (Reply(200, b"<html>maintenance</html>"), UnexpectedResponse, "not JSON"),
        (as_json([]), UnexpectedResponse, "no list"),
        (observations([("2024-13-01", "2024-03-15", "1")]), UnexpectedResponse, "is no date"),
        (observations([("2024-03-01", "2024-03-15", 1)]), UnexpectedResponse, "no text value"),  # type: ignore[list-item]
        (observations([("2024-03-01", "2024-03-15", "1")], count=9), UnexpectedResponse, "is empty"),
        (observations([], count="many"), UnexpectedResponse, "no whole number"),  # type: ignore[arg-type]
        (Reply(200, b'{"observations": ["' + b"x" * 999, fault="truncate"), UnexpectedResponse, "cut off"),
    ],
)
def test_faults_are_named_and_the_key_is_not(
    api: MarketApi, fred: FredProvider, reply: Reply, error: type[ProviderError], said: str
) -> None:
    if said == "is empty":
        api.reply(OBSERVATIONS, reply, observations([], count=9))
    else:
        api.reply(OBSERVATIONS, reply)
    with pytest.raises(error) as caught:
        fred.fetch(BY_ID["DGS10"])
    assert said in str(caught.value)
    assert KEY not in "".join(traceback.format_exception(caught.value))


def test_without_a_key_nothing_is_asked(api: MarketApi) -> None:
    provider = FredProvider(None, clock=lambda: NOW, series=SERIES, base_url=api.url)
    with pytest.raises(AuthenticationFailed, match="FINANCE_ASSETS_FRED_API_KEY"):
        provider.fetch(BY_ID["DGS10"])
    assert not api.requests


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("4.19", (Decimal("4.19"), "ok")),
        ("-37.63", (Decimal("-37.63"), "ok")),
        ("0.00000000000001", (Decimal("1E-14"), "ok")),
        (".", (None, "no_data")),
        ("", (None, "unreadable")),
        ("NaN", (None, "unreadable")),
        ("1,234.5", (None, "unreadable")),
        ("0.000000000000001", (None, "unreadable")),
        ("1" * 25, (None, "unreadable")),
    ],
)
def test_values_are_exact(text: str, value: tuple[Decimal | None, str]) -> None:
    assert read_value(text) == value


def test_the_sample_ends_with_its_clock() -> None:
    """Spot numbers, read from FRED's published tables."""
    provider = SampleMacroProvider(clock=lambda: datetime(2013, 3, 1, 21, 30, tzinfo=UTC))
    found = {series.series_id: provider.fetch(series).observations for series in provider.series}
    assert set(found) == set(FILES)
    assert found["VIXCLS"] == ()  # the package has it from 2014
    oil = {row.reference_date: row for row in found["DCOILWTICO"]}
    assert oil[date(2008, 7, 3)].value_text == "145.31"
    assert oil[date(1986, 1, 2)].value_text == "25.56"
    assert max(oil) == date(2013, 2, 21)
    assert found["CPILFESL"][-1].reference_date == date(2013, 1, 1)
    assert all(row.release_date <= date(2013, 3, 1) for rows in found.values() for row in rows)
    with pytest.raises(SymbolNotFound, match="the sample has"):
        provider.fetch(replace(BY_ID["UNRATE"]))
