"""Several providers as one: the next is asked where the one before failed, and the reason is kept.

What belongs here: the order and its bookkeeping. What does not: anything that knows a vendor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import date
from typing import TYPE_CHECKING, TypeVar

from finance_assets.market.sources.base import Overview, QuoteBatch, QuoteProvider
from finance_assets.providers.errors import (
    AllProvidersFailed,
    AuthenticationFailed,
    ProviderError,
    ProviderNotInstalled,
    QuotaExhausted,
)

if TYPE_CHECKING:
    from types import TracebackType

Answer = TypeVar("Answer", QuoteBatch, Overview)

_FINAL = (QuotaExhausted, AuthenticationFailed, ProviderNotInstalled)
"""Errors that hold for every further ticker too; the provider is not asked again by this instance."""


class FallbackProvider:
    """Asks providers in order, per ticker, until one answers.

    Make a new instance for each run: a provider whose quota is used up, whose key is refused or which is not
    installed is left out for the rest of the instance's life.

    Parameters
    ----------
    providers
        In order of preference; at least one.
    """

    def __init__(self, providers: Sequence[QuoteProvider]) -> None:
        if not providers:
            raise ValueError("a fallback needs at least one provider")
        self.providers = tuple(providers)
        self._out: dict[int, ProviderError] = {}
        self._lock = threading.Lock()

    @property
    def name(self) -> str:
        """Names of the providers in order; a batch carries the name of the one that answered."""
        return ",".join(provider.name for provider in self.providers)

    def __repr__(self) -> str:
        """Show the order."""
        return f"FallbackProvider({list(self.providers)!r})"

    def __enter__(self) -> FallbackProvider:
        """Return the provider itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections of every provider that has some."""
        for provider in self.providers:
            close = getattr(provider, "close", None)
            if callable(close):
                close()

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        """Return the first provider's batch; ``fallback_reason`` says why earlier ones did not supply it.

        Raises
        ------
        AllProvidersFailed
            With every provider's error.
        """
        return self._first(symbol, lambda provider: provider.fetch_quotes(symbol, start, end))

    def fetch_overview(self, symbol: str) -> Overview:
        """Return the first provider's overview; ``fallback_reason`` as for quotes.

        Raises
        ------
        AllProvidersFailed
            With every provider's error.
        """
        return self._first(symbol, lambda provider: provider.fetch_overview(symbol))

    def _first(self, symbol: str, ask: Callable[[QuoteProvider], Answer]) -> Answer:
        errors: list[ProviderError] = []
        reasons: list[str] = []
        for position, provider in enumerate(self.providers):
            with self._lock:
                earlier = self._out.get(position)
            if earlier is not None:
                errors.append(earlier)
                reasons.append(f"{provider.name}: skipped, {earlier.reason_code} earlier in this run")
                continue
            try:
                answer = ask(provider)
            except ProviderError as error:
                errors.append(error)
                reasons.append(error.summary)
                if isinstance(error, _FINAL):
                    with self._lock:
                        self._out[position] = error
                continue
            return replace(answer, fallback_reason="; ".join(reasons) or None)
        raise AllProvidersFailed(symbol, errors)
