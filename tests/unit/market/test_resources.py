"""The wiring of providers: who is asked, for which tickers, and when asking ends."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures.quotes import JANUARY, FakeProvider, fake_settings, overview, raw_row, raw_table, wandering

from finance_assets.contracts.market import QUOTES_RAW
from finance_assets.market.resources import GIVE_UP_AFTER, MarketData, held_symbols
from finance_assets.market.sources import (
    AlphaVantageProvider,
    AuthenticationFailed,
    InMemoryQuotaLedger,
    ProviderUnavailable,
    SampleProvider,
    SymbolNotFound,
    YahooProvider,
)
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

SYMBOLS = ("AAA", "BBB", "CCC", "DDD", "EEE", "FFF")


def market_data(tmp_path: Path, *providers: Any, **changes: Any) -> MarketData:
    settings = fake_settings(tmp_path, **({"symbols": SYMBOLS} | changes))
    return MarketData(settings, InMemoryQuotaLedger(), providers or None)


def down(symbol: str = "AAA") -> ProviderUnavailable:
    return ProviderUnavailable("fake", symbol, "no answer within 20 s", attempts=4)


def test_providers_are_those_of_the_settings_in_their_order(tmp_path: Path) -> None:
    data = market_data(tmp_path, market_providers=("alpha_vantage", "yahoo"), alpha_vantage_api_key="k", now=None)
    kinds = [type(provider) for provider in data.provider.providers]
    assert kinds == [AlphaVantageProvider, YahooProvider]
    sample = market_data(tmp_path, market_providers=("sample",), symbols=(), now=None, market_start=None)
    assert [type(provider) for provider in sample.provider.providers] == [SampleProvider]


def test_nothing_is_made_before_it_is_used(tmp_path: Path) -> None:
    data = market_data(tmp_path)
    data.close()
    assert "provider" not in data.__dict__
    assert not (tmp_path / "cache").exists()


def test_tickers_are_those_of_the_settings(tmp_path: Path) -> None:
    data = market_data(tmp_path, symbols=("CCC", "AAA", "CCC"))
    assert data.symbols(JANUARY[0], JANUARY[-1]) == ["AAA", "CCC"]
    assert data.universe().num_rows == 0


def sample(tmp_path: Path, **changes: Any) -> MarketData:
    return MarketData(Settings(home=tmp_path, **changes), InMemoryQuotaLedger())


def test_tickers_of_the_universe_are_asked_for_while_they_are_listed(tmp_path: Path) -> None:
    data = sample(tmp_path)
    before, after = date(2012, 5, 17), date(2012, 5, 18)
    assert set(data.symbols_of(after)) - set(data.symbols_of(before)) == {"FB"}
    assert "FB" in data.symbols(before, after)
    assert len(data.symbols_of(after)) == 24
    assert data.symbols_of(date(1980, 1, 2)) == []


def test_a_named_ticker_is_not_expected_before_it_was_listed(tmp_path: Path) -> None:
    """Else every session before its listing would be incomplete for ever, and be run again every day."""
    data = sample(tmp_path, symbols="FB,AAPL,TSLA")
    assert data.symbols_of(date(2012, 5, 17)) == ["AAPL", "TSLA"]
    assert data.symbols_of(date(2012, 5, 18)) == ["AAPL", "FB", "TSLA"]
    assert set(data.universe().column("symbol").to_pylist()) == {"AAPL", "FB"}


def asked(provider: FakeProvider) -> list[str]:
    return [symbol for symbol, _, _ in provider.calls]


def fetched(data: MarketData, symbols: Iterable[str] = SYMBOLS) -> dict[str, str | None]:
    """Error by ticker, None where an answer came."""
    return {
        entry.symbol: None if entry.error is None else type(entry.error).__name__
        for entry in data.quotes(symbols, JANUARY[0], JANUARY[4])
    }


def test_each_ticker_is_answered_or_its_error_is_given(tmp_path: Path) -> None:
    provider = FakeProvider(rows={s: wandering(JANUARY) for s in SYMBOLS if s != "CCC"}, errors={"BBB": down()})
    found = list(market_data(tmp_path, provider).quotes(SYMBOLS, JANUARY[0], JANUARY[4]))
    assert [entry.symbol for entry in found] == list(SYMBOLS)
    for entry in found:
        assert (entry.answer is None) != (entry.error is None)
        assert (entry.error is not None) == (entry.symbol in ("BBB", "CCC"))
    assert found[0].answer is not None
    assert found[0].answer.table.num_rows == 5
    assert provider.calls[0] == ("AAA", JANUARY[0], JANUARY[4])


def test_when_nobody_answers_the_others_are_not_asked(tmp_path: Path) -> None:
    provider = FakeProvider(errors={"*": down()})
    found = list(market_data(tmp_path, provider).quotes(SYMBOLS, JANUARY[0], JANUARY[4]))
    assert asked(provider) == list(SYMBOLS[:GIVE_UP_AFTER])
    assert all(entry.error is not None and entry.error.retryable for entry in found)
    assert "not asked, since 3 tickers before it had no answer" in str(found[-1].error)
    assert "no answer within 20 s" in str(found[-1].error)


def test_an_answer_in_between_keeps_the_others_asked(tmp_path: Path) -> None:
    provider = FakeProvider(rows={"CCC": wandering(JANUARY)}, errors={s: down(s) for s in SYMBOLS if s != "CCC"})
    fetched(market_data(tmp_path, provider))
    assert asked(provider) == list(SYMBOLS)
    # A refusal is an answer too.
    provider = FakeProvider(
        errors={s: down(s) for s in SYMBOLS} | {"CCC": SymbolNotFound("fake", "CCC", "no such ticker")}
    )
    fetched(market_data(tmp_path, provider))
    assert asked(provider) == list(SYMBOLS)


def test_a_refused_key_is_tried_once_also_where_there_is_one_provider(tmp_path: Path) -> None:
    provider = FakeProvider(errors={"*": AuthenticationFailed("fake", "AAA", "the key is refused")})
    found = fetched(market_data(tmp_path, provider))
    assert asked(provider) == ["AAA"]
    assert set(found.values()) == {"AllProvidersFailed"}


def test_overviews_are_asked_of_live_providers_only(tmp_path: Path) -> None:
    provider = FakeProvider(described={"AAA": overview()}, errors={"BBB": down("BBB")})
    found = {entry.symbol: entry for entry in market_data(tmp_path, provider).overviews()}
    assert provider.asked_overviews == list(SYMBOLS)
    assert found["AAA"].answer is not None
    assert found["AAA"].answer.name == "AAA Inc."
    assert found["BBB"].error is not None
    assert list(sample(tmp_path).overviews()) == []


def test_held_symbols_are_read_by_session(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    first, second, third = JANUARY[:3]
    rows = [raw_row(symbol=s, session_date=first) for s in ("AAA", "BBB")]
    rows += [raw_row(symbol="BBB", session_date=third), raw_row(symbol="BBB", session_date=third, row_number=1)]
    lake.write_partitions(QUOTES_RAW, raw_table(*rows), [day.isoformat() for day in (first, second, third)])
    assert held_symbols(lake, [first, second, third, JANUARY[3]]) == {
        first: {"AAA", "BBB"},
        second: set(),
        third: {"BBB"},
        JANUARY[3]: set(),
    }
    assert held_symbols(lake, []) == {}
    assert held_symbols(lake, [second]) == {second: set()}


@pytest.mark.parametrize("now", [datetime(2012, 1, 31, 22, tzinfo=UTC)])
def test_a_batch_is_stamped_by_the_clock_of_the_settings(tmp_path: Path, now: datetime) -> None:
    data = sample(tmp_path, now=now)
    (entry,) = data.quotes(["AAPL"], JANUARY[0], JANUARY[1])
    assert entry.answer is not None
    assert entry.answer.fetched_ts_utc == now
