"""One HTTP client for every provider: deadlines, retries, a size limit, and keys that nobody sees.

What belongs here: how bytes are fetched and when to try again. What does not: what the bytes mean; a provider
passes ``check``, which reads the response and raises a `ProviderError` where the answer is an error in
disguise.

Keys are added to the URL inside the transport, below everything that logs, repeats or raises: httpx itself
writes the URL of each request to its log. Exceptions of httpx are replaced, not chained, for the same reason.
Vendors repeat a key in their answers, so it is masked in the body too, before anybody reads or lands it; a
body without the key stays as it came.
"""

from __future__ import annotations

import functools
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from finance_assets.providers.errors import (
    AuthenticationFailed,
    Clock,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    UnexpectedResponse,
    utc_now,
)
from finance_assets.providers.outbound import (
    AnswerTooLarge,
    Limits,
    OutboundTimeout,
    limit_tls,
    limit_transport,
    limited,
    read_body,
    time_left,
)
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    import httpx

T = TypeVar("T")
Sleep = Callable[[float], None]
Uniform = Callable[[float, float], float]

MASK = "***"
_EXCERPT = 200
_MAX_REDIRECTS = 3
_OK = 200


class Secret:
    """A text that shows itself only when asked: not in ``repr``, logs or tracebacks with locals."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Return the text."""
        return self._value

    def __bool__(self) -> bool:
        """Tell whether there is a text at all."""
        return bool(self._value)

    def __repr__(self) -> str:
        """Hide the text."""
        return MASK

    def redact(self, text: str) -> str:
        """Return ``text`` with every spelling of the secret masked."""
        for spelling in self._spellings():
            text = text.replace(spelling, MASK)
        return text

    def redact_bytes(self, body: bytes) -> bytes:
        """Return ``body`` with every spelling of the secret masked."""
        for spelling in self._spellings():
            body = body.replace(spelling.encode(), MASK.encode())
        return body

    def _spellings(self) -> set[str]:
        from urllib.parse import quote, quote_plus

        value = self._value
        return (
            {value, quote(value), quote(value, safe=""), quote_plus(value), value.replace("/", "\\/")}
            if value
            else set()
        )


@dataclass(frozen=True)
class Timeouts:
    """Limits in seconds, on the wall clock.

    Attributes
    ----------
    connect
        Until the connection stands, from the look-up of the name on.
    read
        Between two pieces of the answer.
    total
        For one attempt, from the look-up of the name to the last byte, redirects included: a server that drips a
        byte a second does not hold the run.
    call
        For the whole call, with every attempt and the waits between them. A wait that would last longer is not begun.
    """

    connect: float = 5.0
    read: float = 20.0
    total: float = 60.0
    call: float = 120.0


@dataclass(frozen=True)
class RetryPolicy:
    """When to try again.

    Attributes
    ----------
    attempts
        How often a request is sent at most.
    first_wait, max_wait
        Seconds before the second attempt, doubled before each further one up to the maximum.
    jitter
        Share of each wait that is drawn at random on top, so that runs do not retry in step.
    max_retry_after
        Longest wait that a ``Retry-After`` header may impose; a longer one ends the attempts at once.
    """

    attempts: int = 4
    first_wait: float = 1.0
    max_wait: float = 30.0
    jitter: float = 0.25
    max_retry_after: float = 60.0


@dataclass(frozen=True)
class HttpResponse:
    """A whole answer.

    Attributes
    ----------
    status
        HTTP status.
    headers
        Header names in lower case.
    body
        Bytes after content decoding, secrets masked.
    request
        The request in words, without secrets.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes = field(repr=False)
    request: str


def call_with_retries(
    call: Callable[[], T],
    *,
    policy: RetryPolicy,
    sleep: Sleep,
    uniform: Uniform | None = None,
) -> T:
    """Call until it succeeds, an error is final, or the attempts or the time of the current limits are used up.

    A wait that would outlast the limits (`finance_assets.providers.outbound.limited`) is not begun.

    Parameters
    ----------
    call
        Raises a `ProviderError`; one that is ``retryable`` is tried again.
    policy
        Attempts and waits.
    sleep
        Waits; injected by tests.
    uniform
        Draws the jitter; ``random.uniform`` by default.

    Raises
    ------
    ProviderError
        The last error, with ``attempts`` set to the number of calls.
    """
    import tenacity

    if uniform is None:
        import random

        uniform = random.uniform
    draw = uniform

    def wait(state: tenacity.RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome is not None else None
        backoff = min(policy.max_wait, policy.first_wait * 2.0 ** (state.attempt_number - 1))
        backoff += draw(0.0, policy.jitter * backoff)
        asked = error.retry_after_seconds if isinstance(error, ProviderError) else None
        return backoff if asked is None else max(asked, 0.0)

    def worth_another(error: BaseException) -> bool:
        if not isinstance(error, ProviderError) or not error.retryable:
            return False
        return error.retry_after_seconds is None or error.retry_after_seconds <= policy.max_retry_after

    def stops(state: tenacity.RetryCallState) -> bool:
        if state.attempt_number >= policy.attempts:
            return True
        try:
            left = time_left()
        except OutboundTimeout:
            return True
        return left is not None and state.upcoming_sleep >= left

    retrying = tenacity.Retrying(
        stop=stops,
        wait=wait,
        retry=tenacity.retry_if_exception(worth_another),
        sleep=sleep,
        reraise=True,
    )
    calls = 0

    def counted() -> T:
        nonlocal calls
        calls += 1
        return call()

    try:
        return retrying(counted)
    except ProviderError as error:
        error.attempts = max(calls, 1)
        raise


def parse_retry_after(value: str | None, now: datetime) -> float | None:
    """Read a ``Retry-After`` header: seconds, or an HTTP date; None where it is absent or unreadable."""
    if value is None:
        return None
    text = value.strip()
    if text.isascii() and text.isdigit():
        return float(text) if len(text) < 10 else float("inf")
    from email.utils import parsedate_to_datetime

    try:
        moment = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return max(0.0, (moment - now).total_seconds())


def excerpt(body: bytes) -> str:
    """Return the beginning of a body as one printable line, for an error message."""
    text = " ".join(body[: 4 * _EXCERPT].decode("utf-8", "replace").split())
    text = "".join(character if character.isprintable() else "�" for character in text)
    return text if len(text) <= _EXCERPT else text[:_EXCERPT] + "…"


def parse_json(response: HttpResponse, *, provider: str, symbol: str) -> Any:
    """Read a body as JSON with exact decimals; refuse ``NaN`` and a key that comes twice.

    Raises
    ------
    UnexpectedResponse
        With reason ``not_json`` or ``duplicate_key``.
    """
    import json
    from decimal import Decimal, InvalidOperation

    repeated: list[str] = []

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            repeated.extend(sorted({name for name in names if names.count(name) > 1}))
        return found

    try:
        document = json.loads(response.body, parse_float=Decimal, parse_constant=str, object_pairs_hook=unique)
    except (ValueError, RecursionError, InvalidOperation):
        raise UnexpectedResponse(
            provider,
            symbol,
            f"the answer to {response.request} is not JSON ({len(response.body)} bytes). It begins: "
            f"{excerpt(response.body)}. Ask again later; if it lasts, the provider changed its interface",
            reason_code="not_json",
        ) from None
    if repeated:
        raise UnexpectedResponse(
            provider,
            symbol,
            f"the answer to {response.request} has the key {repeated[0][:80]!r} twice in one object, so one "
            "value would be lost. Report it to the provider",
            reason_code="duplicate_key",
        )
    return document


class HttpClient:
    """Fetches from one host, with patience and limits.

    Parameters
    ----------
    provider
        Name for errors.
    base_url
        Scheme and host; redirects to another host are refused.
    clock
        Wall clock, for ``Retry-After`` dates.
    secrets
        Query parameters that are added on the wire and nowhere else.
    timeouts, retry
        See `Timeouts` and `RetryPolicy`.
    max_bytes
        Longest body that is read.
    sleep, uniform, monotonic
        Injected by tests.
    """

    def __init__(
        self,
        provider: str,
        base_url: str,
        *,
        clock: Clock,
        secrets: Mapping[str, Secret] | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        max_bytes: int = 32 * 1024 * 1024,
        sleep: Sleep = time.sleep,
        uniform: Uniform | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.provider = provider
        self.base_url = base_url.rstrip("/")
        self.timeouts = timeouts or Timeouts()
        self.retry = retry or RetryPolicy()
        self.max_bytes = max_bytes
        self._clock = clock
        self._secrets = dict(secrets or {})
        self._sleep = sleep
        self._uniform = uniform
        self._monotonic = monotonic
        self._client: httpx.Client | None = None
        self._opening = threading.Lock()

    def __repr__(self) -> str:
        """Show the host, never the secrets."""
        return f"HttpClient({self.provider!r}, {hide_url_secrets(self.base_url)!r})"

    def __enter__(self) -> HttpClient:
        """Return the client itself."""
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
        """Close the connections; a later request opens new ones."""
        with self._opening:
            if self._client is not None:
                self._client.close()
                self._client = None

    def redact(self, text: str) -> str:
        """Return ``text`` without any secret of this client."""
        for secret in self._secrets.values():
            text = secret.redact(text)
        return hide_url_secrets(text)

    def describe(self, path: str, params: Mapping[str, str]) -> str:
        """Return the request in words, with each secret as ``***``."""
        from urllib.parse import urlencode

        shown = urlencode({**params, **dict.fromkeys(self._secrets, MASK)}, safe="*")
        return self.redact(f"GET {self.base_url}{path}" + (f"?{shown}" if shown else ""))

    def get(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        symbol: str,
        check: Callable[[HttpResponse], T],
        before_request: Callable[[], None] | None = None,
    ) -> T:
        """Fetch, and return what ``check`` makes of the answer.

        Parameters
        ----------
        path, params
            What to ask for; secrets are added below.
        symbol
            Ticker, for errors.
        check
            Reads a response of status 200; an error it raises that is ``retryable`` is tried again.
        before_request
            Called before every attempt, retries included; raises to forbid it.

        Raises
        ------
        ProviderError
            The last error, with the number of attempts.
        """
        request = self.describe(path, params)

        def attempt() -> T:
            if before_request is not None:
                before_request()
            response = self._send(path, params, request, symbol)
            self._check_status(response, symbol)
            return check(response)

        self._open()  # what is imported at first use is not the provider's time
        with limited(self.timeouts.call, clock=self._monotonic):
            return call_with_retries(attempt, policy=self.retry, sleep=self._sleep, uniform=self._uniform)

    def _send(self, path: str, params: Mapping[str, str], request: str, symbol: str) -> HttpResponse:
        import httpx

        client = self._open()
        url = httpx.URL(self.base_url + path, params=dict(params))
        failure: ProviderError
        limits: Limits | None = None
        try:
            with limited(self.timeouts.total, clock=self._monotonic) as limits:
                for _ in range(_MAX_REDIRECTS + 1):
                    with client.stream("GET", url, timeout=self._timeout()) as response:
                        target = self._redirect_target(response, url)
                        if target is None:
                            body = self._mask(read_body(response, self.max_bytes))
                            return HttpResponse(response.status_code, dict(response.headers), body, request)
                    if (target.host, target.port) != (url.host, url.port) or target.scheme != url.scheme:
                        raise UnexpectedResponse(
                            self.provider,
                            symbol,
                            f"{request} was redirected to another place, "
                            f"{target.scheme}://{target.netloc.decode('ascii')}; not followed, since the key "
                            "would go with it. Check the configured base URL",
                            reason_code="redirected",
                        )
                    url = target
            failure = UnexpectedResponse(
                self.provider,
                symbol,
                f"{request} was redirected more than {_MAX_REDIRECTS} times",
                reason_code="redirected",
            )
        except AnswerTooLarge:
            failure = UnexpectedResponse(
                self.provider,
                symbol,
                f"the answer to {request} is longer than {self.max_bytes} bytes. Ask for a shorter range",
                reason_code="too_large",
            )
        except (httpx.TimeoutException, OutboundTimeout) as error:
            said = limits.reason() if limits is not None else ""
            failure = self._timed_out(request, symbol, said or type(error).__name__)
        except httpx.RemoteProtocolError as error:
            failure = UnexpectedResponse(
                self.provider,
                symbol,
                f"the answer to {request} was cut off or malformed ({self.redact(str(error))})",
                reason_code="truncated_body",
                retryable=True,
            )
        except httpx.DecodingError:
            failure = UnexpectedResponse(
                self.provider,
                symbol,
                f"the answer to {request} could not be unpacked",
                reason_code="truncated_body",
                retryable=True,
            )
        except httpx.TransportError as error:
            failure = ProviderUnavailable(
                self.provider,
                symbol,
                f"no connection for {request} ({type(error).__name__}: {self.redact(str(error))}). Check the "
                "network and proxy",
                reason_code="connection_failed",
            )
        # Raised outside the handlers: the exceptions of httpx carry the request, and stay out of the
        # traceback.
        raise failure

    def _redirect_target(self, response: httpx.Response, url: httpx.URL) -> httpx.URL | None:
        location = response.headers.get("location")
        if not response.is_redirect or location is None:
            return None
        target = url.join(location)
        for name in self._secrets:
            target = target.copy_remove_param(name)
        return target

    def _timeout(self) -> httpx.Timeout:
        """Return the time-outs of the next request: those of the settings, or what is left of the limits."""
        import httpx

        read, connect = time_left(self.timeouts.read), time_left(self.timeouts.connect)
        return httpx.Timeout(read, connect=connect)

    def _mask(self, body: bytes) -> bytes:
        for secret in self._secrets.values():
            body = secret.redact_bytes(body)
        return body

    def _timed_out(self, request: str, symbol: str, what: str) -> ProviderUnavailable:
        return ProviderUnavailable(
            self.provider,
            symbol,
            f"{request} timed out ({what}; connect {self.timeouts.connect:g} s, read {self.timeouts.read:g} "
            f"s, total {self.timeouts.total:g} s, all attempts {self.timeouts.call:g} s). Try later or raise the "
            "time-outs",
            reason_code="timeout",
        )

    def _check_status(self, response: HttpResponse, symbol: str) -> None:
        if response.status == _OK:
            return
        where = f"{response.request} answered HTTP {response.status}"
        said = excerpt(response.body)
        where += f" ({said})" if said else ""
        retry_after = parse_retry_after(response.headers.get("retry-after"), utc_now(self._clock))
        if response.status == 429:
            waits = f"; the server asks to wait {retry_after:g} s" if retry_after is not None else ""
            raise RateLimited(
                self.provider,
                symbol,
                f"{where}{waits}. Lower the request rate or try later",
                retry_after_seconds=retry_after,
            )
        if response.status in (401, 403):
            raise AuthenticationFailed(self.provider, symbol, f"{where}. Check the key and its plan")
        if response.status == 408 or response.status >= 500:
            raise ProviderUnavailable(
                self.provider,
                symbol,
                f"{where}. The provider has a fault; try later",
                reason_code="server_error",
                retry_after_seconds=retry_after,
            )
        raise UnexpectedResponse(
            self.provider,
            symbol,
            f"{where}. Check the configured base URL and the ticker",
            reason_code=f"http_{response.status}",
        )

    def _open(self) -> httpx.Client:
        import httpx

        with self._opening:
            if self._client is None:
                self._client = httpx.Client(
                    transport=_wire_transport(self.base_url, self._secrets),
                    follow_redirects=False,
                    headers={
                        "accept": "application/json",
                        # What can be unpacked piece by piece.
                        "accept-encoding": "gzip, deflate",
                        "user-agent": "finance-assets",
                    },
                )
            return self._client


def _wire_transport(base_url: str, secrets: Mapping[str, Secret]) -> httpx.BaseTransport:
    """Return a transport that adds the secrets to each URL as it goes out, through the system's proxy."""
    import httpx

    class WireTransport(httpx.HTTPTransport):
        def handle_request(self, request: httpx.Request) -> httpx.Response:
            url = request.url.copy_merge_params({name: secret.reveal() for name, secret in secrets.items()})
            wire = httpx.Request(
                request.method,
                url,
                headers=request.headers,
                stream=request.stream,
                extensions=request.extensions,
            )
            return super().handle_request(wire)

    return limit_transport(WireTransport(verify=certificates(), proxy=system_proxy(base_url)))


@functools.cache
def certificates() -> ssl.SSLContext:
    """Read the certificate bundle once per process; it takes longer than a request."""
    import httpx

    return limit_tls(httpx.create_ssl_context())


def system_proxy(base_url: str) -> str | None:
    """Return the proxy that the environment names for an address; None where it names none."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(base_url)
    if proxy_bypass(parts.hostname or ""):
        return None
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return proxy if not proxy or "://" in proxy else f"http://{proxy}"
