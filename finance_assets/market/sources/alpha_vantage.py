"""Alpha Vantage: daily series and company overviews.

What belongs here: the request, its answer, and the vendor's way of saying no. Interface as documented at
https://www.alphavantage.co/documentation/ (``TIME_SERIES_DAILY``, ``TIME_SERIES_DAILY_ADJUSTED``,
``OVERVIEW``).

Facts that shape the code:

- Numbers are JSON strings under numbered keys (``"4. close": "142.4500"``); both functions give prices as
  traded.
- ``TIME_SERIES_DAILY_ADJUSTED`` adds the adjusted close, the cash dividend and the split coefficient of each
  day, and needs a premium key. ``TIME_SERIES_DAILY`` knows no actions, so those columns are null: "does not
  say", not "none".
- ``outputsize=compact`` is the last 100 sessions; ``full`` needs a premium key too. The shorter one is asked
  for whenever it must cover the range. A refusal is remembered, so that it costs one request and not one per
  ticker.
- Refusals come with status 200 and a body of one key: ``Note`` (rate), ``Information`` (rate, daily quota,
  premium, demo key) or ``Error Message`` (unknown ticker, bad key, bad function). Some of them quote the key.
- The free key has 25 requests a day. Each attempt, retries included, is counted in the injected ledger before
  it is sent. The vendor does not say when its day begins; we count by the calendar day of US/Eastern, the
  time zone that its answers name.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import date, datetime
from typing import TYPE_CHECKING, Any, Literal

from finance_assets.market.sources.base import (
    RAW,
    REPORTED,
    Overview,
    QuotaLedger,
    QuoteBatch,
    QuoteRow,
    check_range,
    last_finished_date,
    parse_count,
    parse_decimal,
    quote_table,
    quoted,
)
from finance_assets.providers.errors import (
    AuthenticationFailed,
    Clock,
    PremiumRequired,
    ProviderError,
    QuotaExhausted,
    RateLimited,
    SymbolNotFound,
    UnexpectedResponse,
    utc_now,
)
from finance_assets.providers.http import (
    HttpClient,
    HttpResponse,
    RetryPolicy,
    Secret,
    Sleep,
    Timeouts,
    Uniform,
    excerpt,
    parse_json,
)
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    from decimal import Decimal
    from types import TracebackType

BASE_URL = "https://www.alphavantage.co"
FREE_REQUESTS_PER_DAY = 25
COMPACT_SESSIONS = 100
TIME_ZONE = "America/New_York"

# 140 calendar days hold at most 100 weekdays, so a compact answer covers any range that starts within them.
_COMPACT_DAYS = 140
_PATH = "/query"
_SERIES = "Time Series (Daily)"
_META = "Meta Data"
_REFUSALS = ("Error Message", "Information", "Note")
_PRICE_FIELDS = (("open", "1. open"), ("high", "2. high"), ("low", "3. low"), ("close", "4. close"))
_NO_VALUE = frozenset({"", "None", "-"})
_FOREIGN_SUFFIX = re.compile(r"\.[A-Z]{2,}$")

_MICS = {
    "NYSE": "XNYS",
    "NASDAQ": "XNAS",
    "NYSE ARCA": "ARCX",
    "NYSE MKT": "XASE",
    "AMEX": "XASE",
    "BATS": "BATS",
}
_INSTRUMENT_TYPES = {"common stock": "equity", "etf": "etf", "mutual fund": "mutual_fund", "index": "index"}


class AlphaVantageProvider:
    """Quotes and overviews from Alpha Vantage.

    Parameters
    ----------
    api_key
        The key; None or empty fails at the first fetch, without a request.
    clock
        Wall clock: stamps batches, picks the output size and the quota's day.
    quota
        Ledger that counts requests, shared by every process that uses the key.
    daily_limit
        Requests a day; None counts without a limit, as for a premium key.
    adjusted
        Ask ``TIME_SERIES_DAILY_ADJUSTED``, which needs a premium key and brings dividends and splits.
    base_url
        Scheme and host, for tests.
    timeouts, retry, sleep, uniform
        See `finance_assets.providers.http`.
    """

    name = "alpha_vantage"

    def __init__(
        self,
        api_key: str | None,
        *,
        clock: Clock,
        quota: QuotaLedger,
        daily_limit: int | None = FREE_REQUESTS_PER_DAY,
        adjusted: bool = False,
        base_url: str = BASE_URL,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        sleep: Sleep = time.sleep,
        uniform: Uniform | None = None,
    ) -> None:
        self.adjusted = adjusted
        self.daily_limit = daily_limit
        self._key = Secret((api_key or "").strip())
        self._clock = clock
        self._quota = quota
        self._refused: dict[tuple[str, str], str] = {}
        self._http = HttpClient(
            self.name,
            base_url,
            clock=clock,
            secrets={"apikey": self._key},
            timeouts=timeouts,
            retry=retry or RetryPolicy(first_wait=2.0),
            sleep=sleep,
            uniform=uniform,
        )

    def __repr__(self) -> str:
        """Show host and function, never the key."""
        return f"AlphaVantageProvider({hide_url_secrets(self._http.base_url)!r}, adjusted={self.adjusted})"

    def __enter__(self) -> AlphaVantageProvider:
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
        """Close the connections."""
        self._http.close()

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        """Return the daily quotes of ``symbol`` from ``start`` to ``end``, both included.

        The currency is USD for tickers without an exchange suffix; for others (``TSCO.LON``) the vendor does
        not say and the column is null. The session that is still running is left out, with a note.

        Raises
        ------
        ProviderError
            A subclass per cause; see `finance_assets.providers.errors`.
        """
        check_range(start, end)
        # The session is judged by the time of asking, the batch stamped with the time of the answer.
        asked = utc_now(self._clock)
        function = "TIME_SERIES_DAILY_ADJUSTED" if self.adjusted else "TIME_SERIES_DAILY"
        size: Literal["compact", "full"] = "compact" if (_eastern_date(asked) - start).days < _COMPACT_DAYS else "full"
        params = {"function": function, "symbol": symbol, "outputsize": size, "datatype": "json"}

        def check(response: HttpResponse) -> tuple[HttpResponse, dict[str, Any]]:
            document = self._document(response, symbol, function, expected=_SERIES)
            return response, self._series(document, response, symbol)

        response, series = self._ask(params, symbol, (function, size), check)
        finished = last_finished_date(asked, TIME_ZONE)
        rows: list[QuoteRow] = []
        notes: list[str] = []
        for text, fields in series.items():
            quote_date = self._date(text, symbol, response)
            if not start <= quote_date <= end:
                continue
            if quote_date > finished:
                notes.append(f"{quote_date}: left out, its session had not ended at {asked:%Y-%m-%dT%H:%MZ}")
                continue
            rows.append(self._row(quote_date, fields, symbol))
        return QuoteBatch(
            symbol=symbol,
            provider=self.name,
            request=response.request,
            fetched_ts_utc=utc_now(self._clock),
            page=response.body,
            page_suffix=".json",
            table=quote_table(rows),
            notes=tuple(notes),
        )

    def fetch_overview(self, symbol: str) -> Overview:
        """Return the company overview of ``symbol``; an unknown ticker is answered with an empty object.

        Raises
        ------
        ProviderError
            A subclass per cause.
        """
        params = {"function": "OVERVIEW", "symbol": symbol}

        def check(response: HttpResponse) -> tuple[HttpResponse, dict[str, Any]]:
            return response, self._document(response, symbol, "OVERVIEW", expected="Symbol")

        response, document = self._ask(params, symbol, ("OVERVIEW", ""), check)
        kind = _text(document.get("AssetType"))
        exchange = _text(document.get("Exchange"))
        return Overview(
            symbol=symbol,
            name=_text(document.get("Name")),
            instrument_type=None
            if kind is None
            else _INSTRUMENT_TYPES.get(kind.lower(), kind.lower().replace(" ", "_")),
            sector=_text(document.get("Sector")),
            sector_scheme=self.name,
            currency=_text(document.get("Currency")),
            exchange=None if exchange is None else _MICS.get(exchange.upper(), exchange),
            eps=self._ratio(document.get("EPS"), "EPS", symbol),
            pe_ratio=self._ratio(document.get("PERatio"), "PERatio", symbol),
            provider=self.name,
            request=response.request,
            fetched_ts_utc=utc_now(self._clock),
            page=response.body,
        )

    # --- asking ---

    def _ask(
        self,
        params: Mapping[str, str],
        symbol: str,
        kind: tuple[str, str],
        check: Any,
    ) -> tuple[HttpResponse, dict[str, Any]]:
        if not self._key:
            raise AuthenticationFailed(
                self.name,
                symbol,
                "no API key. Set one (https://www.alphavantage.co/support/#api-key) or drop the provider",
            )
        if kind in self._refused:
            raise PremiumRequired(
                self.name, symbol, f"not asked, since the key's plan refused it before: {self._refused[kind]}"
            )
        try:
            answer: tuple[HttpResponse, dict[str, Any]] = self._http.get(
                _PATH, params, symbol=symbol, check=check, before_request=lambda: self._acquire(symbol)
            )
        except PremiumRequired as error:
            self._refused[kind] = error.message
            raise
        return answer

    def _acquire(self, symbol: str) -> None:
        day = _eastern_date(utc_now(self._clock))
        if not self._quota.try_acquire(self.name, day, self.daily_limit):
            raise QuotaExhausted(
                self.name,
                symbol,
                f"all {self.daily_limit} requests of {day} (US/Eastern) are used. Wait for the next day, "
                "raise the limit if the key has a larger plan, or put another provider behind this one",
            )

    # --- reading ---

    def _document(self, response: HttpResponse, symbol: str, function: str, *, expected: str) -> dict[str, Any]:
        document = parse_json(response, provider=self.name, symbol=symbol)
        if isinstance(document, dict) and expected in document:
            return document
        if document == {} and function == "OVERVIEW":
            raise SymbolNotFound(
                self.name, symbol, f"{response.request} answered {{}}: the vendor has no overview of {symbol}"
            )
        if isinstance(document, dict):
            for name in _REFUSALS:
                if isinstance(document.get(name), str):
                    raise self._refusal(name, document[name], symbol, function)
        raise UnexpectedResponse(
            self.name,
            symbol,
            f"the answer to {response.request} has no {expected!r}. It begins: {excerpt(response.body)}. "
            "Compare it with https://www.alphavantage.co/documentation/",
            reason_code="wrong_shape",
        )

    def _refusal(self, name: str, text: str, symbol: str, function: str) -> ProviderError:
        """Turn a refusal in a 200 body into an error; in this order, since one text names several limits."""
        said = f'the vendor said under "{name}": {_quoted_line(text)}'
        low = text.lower()
        if (
            "apikey is invalid or missing" in low
            or "invalid api key" in low
            or "demo api key" in low
            or "**demo**" in low
        ):
            return AuthenticationFailed(self.name, symbol, f"{said}. Check the key")
        if "is a premium endpoint" in low or "is a premium feature" in low:
            return PremiumRequired(
                self.name,
                symbol,
                f"{said}. With a free key use TIME_SERIES_DAILY and ranges within the last {COMPACT_SESSIONS} sessions",
            )
        if "spreading out" in low or "per minute" in low or "per second" in low:
            return RateLimited(self.name, symbol, f"{said}. Lower the request rate")
        if re.search(r"(requests|calls) per day", low) or "daily rate limit" in low:
            return QuotaExhausted(self.name, symbol, f"{said}. Wait for the next day or use a larger plan")
        if name == "Error Message":
            if "does not exist" in low:
                return UnexpectedResponse(
                    self.name,
                    symbol,
                    f"{said}. {function} may have been withdrawn",
                    reason_code="wrong_function",
                )
            if "invalid api call" in low or "symbol" in low:
                return SymbolNotFound(self.name, symbol, f"{said}. Most often the ticker is unknown to the vendor")
        elif "rate limit" in low or "call frequency" in low or "thank you for using alpha vantage" in low:
            return RateLimited(self.name, symbol, f"{said}. Lower the request rate")
        return UnexpectedResponse(
            self.name, symbol, f"{said}. The text is not known here; report it", reason_code="unknown_refusal"
        )

    def _series(self, document: Mapping[str, Any], response: HttpResponse, symbol: str) -> dict[str, Any]:
        series, meta = document[_SERIES], document.get(_META)
        if not isinstance(series, dict):
            raise self._wrong_shape(response, symbol, f"{_SERIES!r} is not an object")
        if isinstance(meta, dict) and str(meta.get("2. Symbol", symbol)).upper() != symbol.upper():
            raise self._wrong_shape(response, symbol, f"it is about {quoted(meta['2. Symbol'])}")
        if not series:
            raise SymbolNotFound(
                self.name,
                symbol,
                f"{response.request} answered an empty series: the vendor has no daily bars of {symbol}",
                reason_code="empty_series",
            )
        known = {key for _, key in _PRICE_FIELDS}
        if not any(isinstance(fields, dict) and known & fields.keys() for fields in series.values()):
            raise self._wrong_shape(response, symbol, f"no row has any of {sorted(known)}")
        return series

    def _date(self, text: str, symbol: str, response: HttpResponse) -> date:
        try:
            if len(text) != len("2000-01-01"):
                raise ValueError
            return date.fromisoformat(text)
        except ValueError:
            raise self._wrong_shape(response, symbol, f"{quoted(text)} is not a date") from None

    def _wrong_shape(self, response: HttpResponse, symbol: str, what: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.name,
            symbol,
            f"the answer to {response.request} is not in the documented shape: {what}. Compare it with "
            "https://www.alphavantage.co/documentation/",
            reason_code="wrong_shape",
        )

    def _row(self, quote_date: date, fields: object, symbol: str) -> QuoteRow:
        currency = None if _FOREIGN_SUFFIX.search(symbol.upper()) else "USD"
        if not isinstance(fields, dict):
            return QuoteRow(
                quote_date,
                currency=currency,
                price_basis=RAW,
                parse_error=f"row: {quoted(fields)} is not an object",
            )
        errors: list[str | None] = []
        prices: dict[str, Decimal | None] = {}
        for column, key in _PRICE_FIELDS:
            prices[column], error = parse_decimal(fields.get(key), column)
            errors.append(error)
        volume, error = parse_count(fields.get("6. volume" if self.adjusted else "5. volume"), "volume")
        errors.append(error)
        adjusted = dividend = split = None
        if self.adjusted:
            adjusted, error = parse_decimal(fields.get("5. adjusted close"), "vendor_adjusted_close")
            errors.append(error)
            dividend, error = parse_decimal(fields.get("7. dividend amount"), "dividend_amount")
            errors.append(error)
            split, error = parse_decimal(fields.get("8. split coefficient"), "split_ratio")
            if split is not None and split <= 0:
                split, error = None, "split_ratio: must be above zero"
            errors.append(error)
        found = [error for error in errors if error is not None]
        return QuoteRow(
            quote_date,
            open=prices["open"],
            high=prices["high"],
            low=prices["low"],
            close=prices["close"],
            vendor_adjusted_close=adjusted,
            volume=volume,
            dividend_amount=dividend,
            split_ratio=None if split is None else float(split),
            currency=currency,
            price_basis=RAW,
            action_derivation=None if dividend is None and split is None else REPORTED,
            parse_error="; ".join(found) or None,
        )

    def _ratio(self, value: object, field_name: str, symbol: str) -> Decimal | None:
        if value is None or (isinstance(value, str) and value.strip() in _NO_VALUE):
            return None
        number, error = parse_decimal(value, field_name, allow_negative=True)
        if error is not None:
            raise UnexpectedResponse(
                self.name,
                symbol,
                f"the overview holds a value that is not a number. {error}",
                reason_code="wrong_shape",
            )
        return number


def _quoted_line(text: str) -> str:
    """Show a vendor's sentence in quotes, on one line, cut to three hundred characters."""
    line = " ".join(text.split())
    return '"' + (line if len(line) <= 300 else line[:300] + "…") + '"'


def _eastern_date(moment: datetime) -> date:
    from zoneinfo import ZoneInfo

    return moment.astimezone(ZoneInfo(TIME_ZONE)).date()


def _text(value: object) -> str | None:
    if not isinstance(value, str) or value.strip() in _NO_VALUE:
        return None
    return value.strip()
