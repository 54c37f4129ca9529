"""Quote providers: the network side of the market branch.

``base`` holds what every provider promises, ``alpha_vantage``, ``yahoo`` and ``sample`` one provider each, ``fallback``
several as one, ``instruments`` the hand-made universe; HTTP and errors come from ``finance_assets.providers``. Nothing
here knows Dagster, storage or settings, and importing it opens no socket and no file.
"""

from __future__ import annotations

from finance_assets.market.sources.alpha_vantage import AlphaVantageProvider
from finance_assets.market.sources.base import (
    InMemoryQuotaLedger,
    Overview,
    QuotaLedger,
    QuoteBatch,
    QuoteProvider,
    quote_schema,
)
from finance_assets.market.sources.fallback import FallbackProvider
from finance_assets.market.sources.instruments import instrument_as_of, instrument_schema, load_instruments
from finance_assets.market.sources.sample import (
    SAMPLE_CLOCK,
    SAMPLE_SYMBOLS,
    SampleProvider,
)
from finance_assets.market.sources.yahoo import YahooProvider
from finance_assets.providers.errors import (
    AllProvidersFailed,
    AuthenticationFailed,
    PremiumRequired,
    ProviderError,
    ProviderNotInstalled,
    ProviderUnavailable,
    QuotaExhausted,
    RateLimited,
    SymbolNotFound,
    UnexpectedResponse,
)
from finance_assets.providers.http import RetryPolicy, Timeouts

__all__ = [
    "SAMPLE_CLOCK",
    "SAMPLE_SYMBOLS",
    "AllProvidersFailed",
    "AlphaVantageProvider",
    "AuthenticationFailed",
    "FallbackProvider",
    "InMemoryQuotaLedger",
    "Overview",
    "PremiumRequired",
    "ProviderError",
    "ProviderNotInstalled",
    "ProviderUnavailable",
    "QuotaExhausted",
    "QuotaLedger",
    "QuoteBatch",
    "QuoteProvider",
    "RateLimited",
    "RetryPolicy",
    "SampleProvider",
    "SymbolNotFound",
    "Timeouts",
    "UnexpectedResponse",
    "YahooProvider",
    "instrument_as_of",
    "instrument_schema",
    "load_instruments",
    "quote_schema",
]
