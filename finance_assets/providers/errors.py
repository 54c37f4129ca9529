# ruff: noqa: N818  (errors are named for what happened: RateLimited, QuotaExhausted)
"""What every client of the outside world may raise, and the clock it is given.

What belongs here: the errors, each with a reason and whether trying again may help. What does not: anything that knows
a vendor, or what its answers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar

Clock = Callable[[], datetime]


def utc_now(clock: Clock) -> datetime:
    """Return the clock's time in UTC; refuse a clock without a time zone."""
    now = clock()
    if now.tzinfo is None:
        raise ValueError("the clock must return a time with a time zone, such as datetime.now(UTC)")
    return now.astimezone(UTC)


class ProviderError(Exception):
    """A provider did not answer as asked.

    Parameters
    ----------
    provider
        Name of the provider.
    symbol
        Ticker that was asked for.
    message
        What went wrong, where, and what to do. Never holds a key.
    reason_code
        Short word for metadata; the class has a default.
    retryable
        Whether the same request may succeed later without a change; the class has a default.
    attempts
        How many times the request was sent.
    retry_after_seconds
        How long the provider asked to wait, where it said so.
    """

    default_reason_code: ClassVar[str] = "provider_error"
    default_retryable: ClassVar[bool] = False

    def __init__(
        self,
        provider: str,
        symbol: str,
        message: str,
        *,
        reason_code: str | None = None,
        retryable: bool | None = None,
        attempts: int = 1,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.provider = provider
        self.symbol = symbol
        self.message = message
        self.reason_code = self.default_reason_code if reason_code is None else reason_code
        self.retryable = self.default_retryable if retryable is None else retryable
        self.attempts = attempts
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        """Return provider, ticker and message in one line."""
        tries = f" (after {self.attempts} tries)" if self.attempts > 1 else ""
        return f"{self.provider}, {self.symbol}: {self.message}{tries}"

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle by state, so that the error crosses process borders."""
        return (_rebuild_error, (type(self), dict(self.__dict__)))

    @property
    def summary(self) -> str:
        """Provider, reason and number of tries: ``alpha_vantage: rate_limited after 4 tries``."""
        return f"{self.provider}: {self.reason_code}" + (f" after {self.attempts} tries" if self.attempts > 1 else "")


def _rebuild_error(kind: type[ProviderError], state: dict[str, Any]) -> ProviderError:
    error = kind.__new__(kind)
    Exception.__init__(error, state["message"])
    error.__dict__.update(state)
    return error


class RateLimited(ProviderError):
    """Too many requests in a short time; waiting helps."""

    default_reason_code = "rate_limited"
    default_retryable = True


class QuotaExhausted(ProviderError):
    """The day's requests are used up; nothing helps until the provider's next day."""

    default_reason_code = "quota_exhausted"


class SymbolNotFound(ProviderError):
    """The provider does not know the ticker, or has no daily bars for it."""

    default_reason_code = "symbol_not_found"


class AuthenticationFailed(ProviderError):
    """The key is missing or refused."""

    default_reason_code = "authentication_failed"


class PremiumRequired(ProviderError):
    """The key is good but its plan does not include the request; another request may be included."""

    default_reason_code = "premium_required"


class ProviderUnavailable(ProviderError):
    """No answer: time-outs, refused connections, server errors."""

    default_reason_code = "unavailable"
    default_retryable = True


class ProviderNotInstalled(ProviderError):
    """The package that the provider reads is not installed."""

    default_reason_code = "not_installed"


class UnexpectedResponse(ProviderError):
    """An answer that is not in the documented shape."""

    default_reason_code = "unexpected_response"


class AllProvidersFailed(ProviderError):
    """Every provider in the order failed; ``errors`` holds each reason, in order."""

    default_reason_code = "all_providers_failed"

    def __init__(self, symbol: str, errors: Sequence[ProviderError]) -> None:
        self.errors = tuple(errors)
        super().__init__(
            ", ".join(error.provider for error in self.errors),
            symbol,
            "every provider failed. " + "; ".join(f"{error.summary} ({error.message})" for error in self.errors),
            retryable=any(error.retryable for error in self.errors),
        )
