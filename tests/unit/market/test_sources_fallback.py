"""Several providers as one: order, reasons, and what is not asked twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime
from typing import Any

import pytest
from fixtures.market_api import MarketApi, Reply, as_json, av_bar, av_daily

from finance_assets.market.sources import (
    AllProvidersFailed,
    AlphaVantageProvider,
    AuthenticationFailed,
    FallbackProvider,
    InMemoryQuotaLedger,
    Overview,
    PremiumRequired,
    ProviderError,
    ProviderNotInstalled,
    ProviderUnavailable,
    QuotaExhausted,
    QuoteBatch,
    QuoteProvider,
    RateLimited,
    RetryPolicy,
    SymbolNotFound,
    Timeouts,
    UnexpectedResponse,
)
from finance_assets.market.sources.base import quote_table

NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
START, END = date(2024, 1, 2), date(2024, 1, 5)


class Scripted:
    """A provider that answers, or raises what it is told."""

    def __init__(self, name: str, answer: Callable[[str], ProviderError | None] = lambda symbol: None) -> None:
        self.name = name
        self.asked: list[str] = []
        self._answer = answer

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        self._ask(symbol)
        return QuoteBatch(symbol, self.name, "ask", NOW, b"", ".json", quote_table([]))

    def fetch_overview(self, symbol: str) -> Overview:
        self._ask(symbol)
        return Overview(symbol, "Name", "equity", None, self.name, "USD", None, None, None, self.name, "ask", NOW, b"")

    def _ask(self, symbol: str) -> None:
        self.asked.append(symbol)
        error = self._answer(symbol)
        if error is not None:
            raise error


def failing(name: str, kind: type[ProviderError], **options: Any) -> Scripted:
    return Scripted(name, lambda symbol: kind(name, symbol, "no", **options))


def test_the_first_provider_that_answers_is_the_only_one_asked() -> None:
    first, second = Scripted("first"), Scripted("second")
    fallback = FallbackProvider([first, second])
    assert isinstance(fallback, QuoteProvider)
    batch = fallback.fetch_quotes("IBM", START, END)
    assert (batch.provider, batch.fallback_reason) == ("first", None)
    assert second.asked == []
    assert fallback.name == "first,second"


def test_the_reason_names_provider_cause_and_tries() -> None:
    fallback = FallbackProvider(
        [failing("av", RateLimited, attempts=4), failing("yahoo", SymbolNotFound), Scripted("sample")]
    )
    batch = fallback.fetch_quotes("IBM", START, END)
    assert batch.provider == "sample"
    assert batch.fallback_reason == "av: rate_limited after 4 tries; yahoo: symbol_not_found"
    assert fallback.fetch_overview("IBM").fallback_reason == batch.fallback_reason


@pytest.mark.parametrize("kind", [QuotaExhausted, AuthenticationFailed, ProviderNotInstalled])
def test_what_holds_for_every_ticker_is_not_asked_again(kind: type[ProviderError]) -> None:
    first = failing("av", kind)
    fallback = FallbackProvider([first, Scripted("yahoo")])
    reasons = [fallback.fetch_quotes(symbol, START, END).fallback_reason for symbol in ("IBM", "MSFT")]
    assert first.asked == ["IBM"]
    assert reasons == [
        f"av: {kind.default_reason_code}",
        f"av: skipped, {kind.default_reason_code} earlier in this run",
    ]
    assert FallbackProvider([first, Scripted("yahoo")]).fetch_quotes("GE", START, END).fallback_reason == reasons[0]


@pytest.mark.parametrize(
    "kind", [RateLimited, SymbolNotFound, ProviderUnavailable, UnexpectedResponse, PremiumRequired]
)
def test_what_may_differ_by_ticker_is_asked_again(kind: type[ProviderError]) -> None:
    first = Scripted("av", lambda symbol: kind("av", symbol, "no") if symbol == "IBM" else None)
    fallback = FallbackProvider([first, Scripted("yahoo")])
    assert fallback.fetch_quotes("IBM", START, END).provider == "yahoo"
    assert fallback.fetch_quotes("MSFT", START, END).provider == "av"


def test_when_all_fail_every_reason_is_told() -> None:
    fallback = FallbackProvider([failing("av", QuotaExhausted), failing("yahoo", ProviderUnavailable, attempts=3)])
    with pytest.raises(AllProvidersFailed) as caught:
        fallback.fetch_quotes("IBM", START, END)
    assert [type(error) for error in caught.value.errors] == [QuotaExhausted, ProviderUnavailable]
    assert caught.value.retryable
    assert "av: quota_exhausted (no); yahoo: unavailable after 3 tries (no)" in str(caught.value)
    with pytest.raises(AllProvidersFailed) as caught:
        fallback.fetch_quotes("MSFT", START, END)
    assert [type(error) for error in caught.value.errors] == [QuotaExhausted, ProviderUnavailable]
    final = FallbackProvider([failing("av", SymbolNotFound), failing("yahoo", SymbolNotFound)])
    with pytest.raises(AllProvidersFailed) as caught:
        final.fetch_quotes("IBM", START, END)
    assert not caught.value.retryable


def test_a_bug_is_not_hidden_as_a_fallback() -> None:
    class Broken(Scripted):
        def _ask(self, symbol: str) -> None:
            raise KeyError(symbol)

    with pytest.raises(KeyError):
        FallbackProvider([Broken("av"), Scripted("yahoo")]).fetch_quotes("IBM", START, END)


def test_an_empty_order_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        FallbackProvider([])


@pytest.fixture
def api() -> Iterator[MarketApi]:
    with MarketApi() as server:
        yield server


def test_a_live_provider_that_fails_on_the_wire_is_followed_by_the_next(api: MarketApi) -> None:
    api.reply("TIME_SERIES_DAILY", Reply(503))
    with MarketApi() as healthy:
        healthy.reply("TIME_SERIES_DAILY", as_json(av_daily("IBM", {"2024-01-04": av_bar()})))

        def alpha(url: str) -> AlphaVantageProvider:
            return AlphaVantageProvider(
                "K",
                clock=lambda: NOW,
                quota=InMemoryQuotaLedger(),
                base_url=url,
                timeouts=Timeouts(connect=2, read=1, total=2),
                retry=RetryPolicy(attempts=4),
                sleep=lambda seconds: None,
            )

        with FallbackProvider([alpha(api.url), alpha(healthy.url)]) as fallback:
            batch = fallback.fetch_quotes("IBM", START, END)
    assert batch.fallback_reason == "alpha_vantage: server_error after 4 tries"
    assert batch.table.num_rows == 1
    assert len(api.requests) == 4
