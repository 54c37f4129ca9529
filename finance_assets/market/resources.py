"""What the market assets ask for quotes: providers as the settings say, and the universe of tickers.

What belongs here: the wiring of ``sources`` to settings, secrets and the quota ledger. A provider is made at its first
use, so that definitions load without a socket or a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from finance_assets.contracts.market import QUOTES_RAW
from finance_assets.resources import build_ledger
from finance_assets.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.contracts.model import Contract
    from finance_assets.market.sources import (
        FallbackProvider,
        Overview,
        ProviderError,
        QuotaLedger,
        QuoteBatch,
        QuoteProvider,
    )
    from finance_assets.storage.lake import Lake


#: After so many tickers in a row that failed for want of an answer the others are not asked: each would take minutes.
GIVE_UP_AFTER = 3

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Fetched(Generic[Answer]):
    """What the providers said of one ticker, or why they said nothing: one of the two is None."""

    symbol: str
    answer: Answer | None = None
    error: ProviderError | None = None


class MarketData:
    """Quotes and descriptions of the tickers that the settings name.

    Parameters
    ----------
    settings
        Providers in order of preference, tickers, clock.
    quota
        Where requests are counted, durably and for every process.
    providers
        Providers to use instead of those of the settings; for tests.
    """

    def __init__(
        self, settings: Settings, quota: QuotaLedger, providers: Sequence[QuoteProvider] | None = None
    ) -> None:
        self._settings = settings
        self._quota = quota
        self._given = providers

    @cached_property
    def provider(self) -> FallbackProvider:
        """All providers as one: the first that answers is believed, and why the others did not is recorded.

        Also a single one is wrapped: what holds for every ticker, such as a refused key, is then asked once.
        """
        from finance_assets.market.sources import FallbackProvider

        return FallbackProvider(self._given or [self._make(name) for name in self._settings.market_providers])

    def close(self) -> None:
        """Close the connections to providers; a later request opens new ones."""
        if "provider" in self.__dict__:
            self.provider.close()

    def _make(self, name: str) -> QuoteProvider:
        from finance_assets.market.sources import (
            AlphaVantageProvider,
            RetryPolicy,
            SampleProvider,
            Timeouts,
            YahooProvider,
        )

        settings = self._settings
        timeouts = Timeouts(total=settings.provider_timeout_seconds, call=settings.provider_deadline_seconds)
        retry = RetryPolicy(attempts=settings.provider_attempts, first_wait=2.0)
        if name == "sample":
            return SampleProvider(clock=settings.clock)
        if name == "alpha_vantage":
            return AlphaVantageProvider(
                settings.secret("alpha_vantage_api_key"),
                clock=settings.clock,
                quota=self._quota,
                daily_limit=settings.alpha_vantage_daily_limit,
                adjusted=settings.alpha_vantage_adjusted,
                base_url=settings.alpha_vantage_url,
                timeouts=timeouts,
                retry=retry,
            )
        if name == "yahoo":
            return YahooProvider(
                clock=settings.clock,
                cache_dir=settings.home_dir / "cache" / "yahoo",
                base_url=settings.yahoo_url,
                timeouts=timeouts,
                retry=retry,
            )
        raise ValueError(f"no provider is called {name!r}")

    def universe(self) -> pa.Table:
        """Return the hand-made instruments: all of them, or those that the settings name."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from finance_assets.market.sources import load_instruments

        table = load_instruments()
        if self._settings.symbols:
            table = table.filter(pc.is_in(table.column("symbol"), pa.array(self._settings.symbols)))
        return table

    @cached_property
    def _versions(self) -> list[dict[str, Any]]:
        return list(self.universe().to_pylist())

    def symbols(self, first: date, last: date) -> list[str]:
        """Return the tickers to fetch for sessions from ``first`` to ``last``, sorted.

        Those of the settings, or of the universe where they name none. A ticker that the universe describes is left
        out where none of its versions holds on a day of the range: before it was listed nobody has a quote of it.
        """
        described = {row["symbol"] for row in self._versions}
        listed = {
            row["symbol"]
            for row in self._versions
            if row["valid_from"] <= last and (row["valid_to"] is None or row["valid_to"] > first)
        }
        return sorted(listed | (set(self._settings.symbols) - described))

    def symbols_of(self, session: date) -> list[str]:
        """Return the tickers that ``session`` ought to have."""
        return self.symbols(session, session)

    def quotes(self, symbols: Iterable[str], first: date, last: date) -> Iterator[Fetched[QuoteBatch]]:
        """Ask for the quotes of each ticker; an error of the providers is given, not raised.

        Once `GIVE_UP_AFTER` tickers in a row have failed in a way that may pass, nobody answers, and the others are not
        asked.
        """
        return _ask_each(symbols, lambda symbol: self.provider.fetch_quotes(symbol, first, last))

    def overviews(self) -> Iterator[Fetched[Overview]]:
        """Ask what the providers say of each ticker of today; errors as for quotes.

        The sample has no overviews beyond the hand-made universe, so nothing is asked of it.
        """
        if self._settings.uses_sample and self._given is None:
            return iter(())
        today = self._settings.clock().date()
        return _ask_each(self.symbols_of(today), self.provider.fetch_overview)


def _ask_each(symbols: Iterable[str], ask: Callable[[str], Answer]) -> Iterator[Fetched[Answer]]:
    from finance_assets.market.sources import ProviderError, ProviderUnavailable

    in_a_row: list[ProviderError] = []
    for symbol in symbols:
        if len(in_a_row) >= GIVE_UP_AFTER:
            message = f"not asked, since {len(in_a_row)} tickers before it had no answer, the last {in_a_row[-1]}"
            yield Fetched(symbol, error=ProviderUnavailable(in_a_row[-1].provider, symbol, message, attempts=0))
            continue
        try:
            answer = ask(symbol)
        except ProviderError as error:
            in_a_row = [*in_a_row, error] if error.retryable else []
            yield Fetched(symbol, error=error)
        else:
            in_a_row = []
            yield Fetched(symbol, answer)


def held_symbols(lake: Lake, sessions: Iterable[date], contract: Contract = QUOTES_RAW) -> dict[date, set[str]]:
    """Return the tickers that a table, ``raw/quotes`` by default, holds for each session.

    Parameters
    ----------
    lake
        Where the table is.
    sessions
        Sessions to look at; one without rows has no tickers.
    contract
        A table with a row per ticker and session.
    """
    import numpy as np
    import pyarrow as pa

    held: dict[date, set[str]] = {session: set() for session in sessions}
    keys = [session.isoformat() for session in held]
    table = lake.read(contract, keys=keys, columns=["symbol", "session_date"]).table
    if table.num_rows == 0:
        return held
    encoded = table.column("symbol").combine_chunks().dictionary_encode()
    names = np.array(encoded.dictionary.to_pylist(), dtype=object)
    symbols = names[encoded.indices.to_numpy()]
    days = table.column("session_date").cast(pa.int32()).to_numpy()
    # Partitions come one after the other, so each session is one slice.
    starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
    for start, end in zip(starts.tolist(), [*starts[1:].tolist(), len(days)], strict=True):
        held[table.column("session_date")[start].as_py()].update(symbols[start:end].tolist())
    return held


def build_market_data(settings: Settings) -> MarketData:
    """Return the quotes and descriptions of a deployment; requests are counted in its ledger."""
    return MarketData(settings, build_ledger(settings))
