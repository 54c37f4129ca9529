"""Quotes from a live provider's own code, over the network of this machine, into the lake: quota, key, faults."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.market_api import (
    AV_BAD_SYMBOL,
    AV_QUOTA,
    MarketApi,
    Reply,
    as_json,
    av_bar,
    av_daily,
    av_overview,
)
from fixtures.quotes import MarketBranch

from finance_assets.contracts.market import CORPORATE_ACTIONS, INSTRUMENTS, QUOTES, QUOTES_RAW, TICKER_KPIS
from finance_assets.settings import Settings

KEY = "KEY5ECRETxyz0987"
#: A Tuesday evening; the sessions of the week before and of the weekend between.
NOW = datetime(2024, 3, 12, 22, tzinfo=UTC)
FRIDAY, SATURDAY, MONDAY, TUESDAY = (date(2024, 3, day) for day in (8, 9, 11, 12))
CALENDAR_DAY = date(2024, 3, 12)


@pytest.fixture
def api() -> Iterator[MarketApi]:
    with MarketApi() as server:
        yield server


def settings(home: Path, api: MarketApi, **changes: Any) -> Settings:
    given: dict[str, Any] = {
        "home": home,
        "market_providers": ("alpha_vantage",),
        "symbols": ("IBM", "NVDA"),
        "market_start": date(2024, 3, 4),
        "now": NOW,
        "alpha_vantage_url": api.url,
        "alpha_vantage_api_key": KEY,
        "provider_attempts": 1,
    }
    return Settings(**(given | changes))


def daily(symbol: str, close: str = "142.45") -> Reply:
    days = {f"2024-03-{day:02}": av_bar(close) for day in (4, 5, 6, 7, 8, 11, 12)}
    return as_json(av_daily(symbol, days))


def recorded_branch(chosen: Settings) -> MarketBranch:
    """A branch whose runs are recorded in files, to be searched for what must not be there."""
    folder = chosen.home_dir / "dagster"
    folder.mkdir(parents=True, exist_ok=True)
    return MarketBranch(chosen, instance=dg.DagsterInstance.local_temp(str(folder)))


def everything_written(home: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}


def assert_key_is_nowhere(home: Path, *texts: str) -> None:
    written = everything_written(home)
    assert any(path.suffix == ".db" for path in written), "there is no event log to look into"
    holding = [str(path.relative_to(home)) for path, data in written.items() if KEY.encode() in data]
    assert holding == []
    for text in texts:
        assert KEY not in text


def test_quotes_come_over_the_network_and_the_key_stays_out(
    tmp_path: Path, api: MarketApi, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    api.reply("TIME_SERIES_DAILY", daily("IBM"), daily("NVDA", "141.00"))
    api.reply("OVERVIEW", as_json(av_overview()), as_json(av_overview(Symbol="NVDA", Name="NVIDIA", EPS="1.5")))
    made = recorded_branch(settings(tmp_path, api))
    made.tables()
    result = made.run(FRIDAY, TUESDAY, checks=True)
    assert result.success

    rows = made.read(QUOTES_RAW).to_pylist()
    assert {(row["symbol"], row["session_date"]) for row in rows} == {
        (symbol, day) for symbol in ("IBM", "NVDA") for day in (FRIDAY, MONDAY, TUESDAY)
    }
    assert {row["provider"] for row in rows} == {"alpha_vantage"}
    assert {row["fetched_ts_utc"] for row in rows} == {NOW}
    for row in rows:
        assert f"symbol={row['symbol']}" in row["request"]
        assert "apikey=***" in row["request"]
        landed = made.lake.get(made.lake.landed_path(row["response_sha256"], "market", "alpha_vantage", suffix=".json"))
        assert json.loads(landed)["Meta Data"]["2. Symbol"] == row["symbol"]
    assert set(made.read(QUOTES).column("close").to_pylist()) == {Decimal("142.45"), Decimal("141")}
    assert made.read(TICKER_KPIS).num_rows == 6
    assert [(row["name"], row["eps"]) for row in made.read(INSTRUMENTS).to_pylist()][-1] == ("NVIDIA", Decimal("1.5"))

    # The server did get the key; nobody else did.
    assert {request.params["apikey"] for request in api.requests} == {KEY}
    metadata = [
        str(value)
        for event in result.get_asset_materialization_events()
        for value in event.materialization.metadata.values()
    ]
    out, err = capfd.readouterr()
    assert_key_is_nowhere(tmp_path, caplog.text, out, err, *metadata)


def test_the_quota_is_counted_across_runs(tmp_path: Path, api: MarketApi) -> None:
    api.reply("TIME_SERIES_DAILY", daily("IBM"), daily("NVDA"), daily("IBM"))
    chosen = settings(tmp_path, api, alpha_vantage_daily_limit=3)
    first = MarketBranch(chosen)
    first.tables()
    # Two overviews were answered by 404 and still cost a request each: the day has one left.
    assert first.resources["ledger"].used("alpha_vantage", CALENDAR_DAY) == 2
    assert first.run(TUESDAY).success
    assert first.resources["ledger"].used("alpha_vantage", CALENDAR_DAY) == 3
    assert {row["symbol"] for row in first.read(QUOTES_RAW).to_pylist()} == {"IBM"}

    # Another process, the same ledger: nothing is sent any more.
    sent = len(api.requests)
    second = MarketBranch(chosen)
    result = second.run(MONDAY, raise_on_error=False)
    assert not result.success
    assert len(api.requests) == sent
    failure = next(event for event in result.all_events if event.is_step_failure)
    said = failure.step_failure_data.user_failure_data.description
    assert "all 3 requests of 2024-03-12 (US/Eastern) are used" in said
    assert "Asking again will not help" in said
    # What was there stays there.
    assert {row["symbol"] for row in second.read(QUOTES_RAW).to_pylist()} == {"IBM"}


def test_refusals_that_repeat_the_key_are_recorded_without_it(
    tmp_path: Path, api: MarketApi, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level("DEBUG")
    api.reply("TIME_SERIES_DAILY", as_json({"Information": AV_QUOTA.replace("KEY", KEY)}))
    made = recorded_branch(settings(tmp_path, api))
    result = made.run(TUESDAY, raise_on_error=False)
    failure = next(event for event in result.all_events if event.is_step_failure)
    assert "25 requests per day" in failure.step_failure_data.user_failure_data.description
    # The refusal holds for every ticker, so the second one was not asked for.
    assert len(api.seen("TIME_SERIES_DAILY")) == 1
    out, err = capfd.readouterr()
    assert_key_is_nowhere(tmp_path, caplog.text, out, err, failure.step_failure_data.error_display_string)


def test_an_unknown_ticker_and_a_server_error_cost_only_their_ticker(tmp_path: Path, api: MarketApi) -> None:
    api.reply("TIME_SERIES_DAILY", as_json({"Error Message": AV_BAD_SYMBOL}), Reply(503, b"down"), daily("NVDA"))
    made = MarketBranch(settings(tmp_path, api, symbols=("AAAA", "IBM", "NVDA")))
    result = made.run(TUESDAY, raise_on_error=False)
    (event,) = [
        event for event in result.get_asset_materialization_events() if event.asset_key.path[-2:] == ["raw", "quotes"]
    ]
    failed = event.materialization.metadata["failed_symbols"].value
    assert isinstance(failed, dict)
    assert "unknown to the vendor" in failed["AAAA"]
    assert "503" in failed["IBM"]
    assert {row["symbol"] for row in made.read(QUOTES_RAW).to_pylist()} == {"NVDA"}


def test_splits_and_dividends_of_the_adjusted_function(tmp_path: Path, api: MarketApi) -> None:
    days = {
        "2024-03-08": av_bar("400.00", adjusted_close="99.5")
        | {"2. high": "400.0", "1. open": "399.0", "3. low": "398"},
        "2024-03-11": av_bar("100.00", adjusted_close="99.5", split="4.0")
        | {"2. high": "101.0", "1. open": "100.5", "3. low": "99.0"},
        "2024-03-12": av_bar("101.00", adjusted_close="101.0", dividend="0.5000")
        | {"2. high": "101.5", "1. open": "100.5", "3. low": "99.0"},
    }
    api.reply("TIME_SERIES_DAILY_ADJUSTED", as_json(av_daily("NVDA", days, adjusted=True)))
    api.reply("OVERVIEW", as_json(av_overview(Symbol="NVDA")))
    made = MarketBranch(settings(tmp_path, api, symbols=("NVDA",), alpha_vantage_adjusted=True))
    made.tables()
    assert made.run(FRIDAY, TUESDAY, checks=True).success
    actions = [
        (row["ex_date"], row["action_type"], row["split_ratio"], row["cash_amount"], row["derivation"])
        for row in made.read(CORPORATE_ACTIONS).to_pylist()
    ]
    assert actions == [
        (MONDAY, "split", 4.0, None, "reported"),
        (TUESDAY, "dividend", None, Decimal("0.5"), "reported"),
    ]
    kpis = made.read(TICKER_KPIS).to_pylist()
    assert [row["close_split_adjusted"] for row in kpis] == [100.0, 100.0, 101.0]
    assert [row["total_return"] for row in kpis] == [None, pytest.approx(0.0), pytest.approx(101.0 / 99.5 - 1)]


def test_the_next_provider_is_asked_when_the_quota_is_used_up(tmp_path: Path, api: MarketApi) -> None:
    """The order of the settings; Yahoo has no server here and fails with a reason of its own."""
    api.reply("TIME_SERIES_DAILY", daily("IBM"), daily("NVDA"))
    chosen = settings(
        tmp_path, api, market_providers=("alpha_vantage", "yahoo"), alpha_vantage_daily_limit=1, yahoo_url=api.url
    )
    made = MarketBranch(chosen)
    result = made.run(TUESDAY, raise_on_error=False)
    (event,) = [
        event for event in result.get_asset_materialization_events() if event.asset_key.path[-2:] == ["raw", "quotes"]
    ]
    failed = event.materialization.metadata["failed_symbols"].value
    assert isinstance(failed, dict)
    assert set(failed) == {"NVDA"}
    assert "alpha_vantage: quota_exhausted" in failed["NVDA"]
    assert "yahoo: " in failed["NVDA"]
    assert SATURDAY not in {row["session_date"] for row in made.read(QUOTES_RAW).to_pylist()}
