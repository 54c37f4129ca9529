"""Yahoo Finance, through yfinance.

What belongs here: the two requests (chart and quote summary), their answers, and the way back from Yahoo's
split-adjusted prices to prices as traded.

The requests go through ``yfinance.data.YfData``, which knows Yahoo's cookies, crumbs, consent pages and
browser impersonation, over a session of our own that keeps time-outs and size in bounds. ``Ticker.history``
itself is not used: it hands out floats and hides the bytes, drops empty rows, and caches a failed time-zone
request for the rest of the process. The body of the chart is landed as it came and read here with exact
decimals.

Facts that shape the code:

- Every price, dividend and volume that Yahoo gives is adjusted for all splits up to today, whatever range is
  asked for. So the range is asked for through today, every split after a quote is known, and prices and
  dividends are multiplied (volumes divided) by the product of the later splits; only then the answer is cut
  at ``end``.
- Prices are single-precision floats, widened: 187.15 arrives as 187.14999389648438. A number that is exactly
  a single-precision float is read as the shortest decimal that names that float (187.15); any other as
  written. Undoing a split multiplies the rounding too, so such products are given as the shortest decimal
  within the precision that the vendor's number had.
- Yahoo books spin-offs as splits with ratios such as 1281:1000; they are passed on as it reports them.
- The running session comes as a bar of its own, sometimes twice. It is left out until its session has ended.
- yfinance keeps cookies in SQLite. The first provider of a process decides in which directory.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

from finance_assets.market.sources.base import (
    RAW,
    REPORTED,
    Overview,
    QuoteBatch,
    QuoteRow,
    check_range,
    last_finished_date,
    parse_count,
    parse_decimal,
    quote_table,
    quoted,
    round_price,
    simplest_decimal,
)
from finance_assets.providers.errors import (
    Clock,
    ProviderError,
    ProviderNotInstalled,
    ProviderUnavailable,
    RateLimited,
    SymbolNotFound,
    UnexpectedResponse,
    utc_now,
)
from finance_assets.providers.http import (
    HttpResponse,
    RetryPolicy,
    Sleep,
    Timeouts,
    Uniform,
    call_with_retries,
    excerpt,
    parse_json,
    parse_retry_after,
)
from finance_assets.providers.outbound import AnswerTooLarge, Limits, OutboundTimeout, limited, time_left
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

BASE_URL = "https://query2.finance.yahoo.com"
OVERVIEW_MODULES = ("quoteType", "price", "assetProfile", "summaryDetail", "defaultKeyStatistics")

_OHLC = ("open", "high", "low", "close")
_DOWN = "Will be right back"
_NO_DATA_IN_RANGE = "Data doesn't exist for startDate"
_SINGLE_PRECISION = Decimal(2) ** -24
# Yahoo writes dividends with six decimals.
_DIVIDEND_PRECISION = Decimal("0.0000005")
_NO_SPLIT = Decimal(1)
# Beginnings of the paths of charts and summaries; what else yfinance asks for serves to be let in.
_DATA_PATHS = ("/v8/", "/v10/")
# What a callback of curl returns to end the transfer (CURL_WRITEFUNC_ERROR).
_END_TRANSFER = 0xFFFFFFFF

# yfinance holds one session per process; requests of two providers must not swap it under each other.
_yfinance_lock = threading.Lock()
_cache_directory: Path | None = None

_MICS = {
    "NMS": "XNAS",
    "NGM": "XNAS",
    "NCM": "XNAS",
    "NYQ": "XNYS",
    "PCX": "ARCX",
    "ASE": "XASE",
    "BTS": "BATS",
    "LSE": "XLON",
    "GER": "XETR",
    "TOR": "XTSE",
}
_INSTRUMENT_TYPES = {"EQUITY": "equity", "ETF": "etf", "MUTUALFUND": "mutual_fund", "INDEX": "index"}


class _Split(NamedTuple):
    ex_date: date
    ratio: Decimal


class YahooProvider:
    """Quotes and overviews from Yahoo Finance.

    Parameters
    ----------
    clock
        Wall clock: stamps batches and says what "today" is.
    cache_dir
        Directory for the cookies of yfinance. yfinance has one per process: the first provider sets it.
    base_url
        Where every request to a Yahoo host goes instead; for tests.
    timeouts
        ``total`` bounds one attempt, in which yfinance may send several requests (cookie, crumb, chart), and ``call``
        all attempts with the waits between them.
    retry, sleep, uniform
        See `finance_assets.providers.http`.
    max_bytes
        Longest body that is read.
    """

    name = "yahoo"

    def __init__(
        self,
        *,
        clock: Clock,
        cache_dir: Path,
        base_url: str | None = None,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        sleep: Sleep = time.sleep,
        uniform: Uniform | None = None,
        max_bytes: int = 32 * 1024 * 1024,
    ) -> None:
        self.cache_dir = cache_dir
        self.base_url = base_url
        self.timeouts = timeouts or Timeouts(total=20.0)
        self.retry = retry or RetryPolicy(first_wait=2.0)
        self.max_bytes = max_bytes
        self._clock = clock
        self._sleep = sleep
        self._uniform = uniform
        self._session: Any = None

    def __repr__(self) -> str:
        """Show where requests go."""
        return f"YahooProvider({hide_url_secrets(self.base_url or BASE_URL)!r})"

    def __enter__(self) -> YahooProvider:
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
        """Close the connections; a later request opens new ones."""
        if self._session is not None:
            self._session.close()
            self._session = None

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        """Return the daily quotes of ``symbol`` from ``start`` to ``end``, both included, as traded.

        The session that is still running is left out, with a note. A range in which Yahoo has no data gives
        an empty table. A dividend or split on a day without a bar becomes a row without prices and a
        ``parse_error``.

        Raises
        ------
        ProviderError
            A subclass per cause; see `finance_assets.providers.errors`.
        """
        check_range(start, end)
        # The session is judged by the time of asking, the batch stamped with the time of the answer.
        asked = utc_now(self._clock)
        opening = datetime(start.year, start.month, start.day, tzinfo=UTC) - timedelta(days=1)
        params = {
            "period1": str(int(opening.timestamp())),
            "period2": str(int((asked + timedelta(days=1)).timestamp())),
            "interval": "1d",
            "includePrePost": "false",
            "events": "div,splits,capitalGains",
        }

        def check(response: HttpResponse) -> tuple[HttpResponse, dict[str, Any] | None]:
            return response, self._chart(response, symbol)

        response, chart = self._ask("/v8/finance/chart/", params, symbol, check)
        rows: list[QuoteRow] = []
        notes: list[str] = []
        if chart is None:
            notes.append(f"the vendor has no data from {start} on")
        else:
            rows, notes = self._rows(chart, response, symbol, start, end, asked)
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
        """Return name, sector, listing, earnings per share and price to earnings of ``symbol``.

        Raises
        ------
        ProviderError
            A subclass per cause.
        """
        params = {
            "modules": ",".join(OVERVIEW_MODULES),
            "formatted": "false",
            "corsDomain": "finance.yahoo.com",
        }

        def check(response: HttpResponse) -> tuple[HttpResponse, dict[str, Any] | None]:
            return response, self._result(response, symbol, "quoteSummary")

        response, summary = self._ask("/v10/finance/quoteSummary/", params, symbol, check)
        modules = {name: module if isinstance(module, dict) else {} for name, module in (summary or {}).items()}

        def find(field: str, *places: str) -> Any:
            for place in places:
                value = modules.get(place, {}).get(field)
                if isinstance(value, dict):
                    value = value.get("raw")
                if value not in (None, ""):
                    return value
            return None

        kind, exchange, currency = (
            find("quoteType", "quoteType"),
            find("exchange", "quoteType", "price"),
            find("currency", "price"),
        )
        instrument_type = None if kind is None else _INSTRUMENT_TYPES.get(str(kind).upper(), str(kind).lower())
        return Overview(
            symbol=symbol,
            name=_text(find("longName", "quoteType", "price") or find("shortName", "quoteType", "price")),
            instrument_type=instrument_type,
            sector=_text(find("sector", "assetProfile")),
            sector_scheme=self.name,
            currency="points" if instrument_type == "index" else _text(currency),
            exchange=None if exchange is None else _MICS.get(str(exchange).upper(), str(exchange)),
            eps=self._ratio(find("trailingEps", "defaultKeyStatistics"), "trailingEps", symbol),
            pe_ratio=self._ratio(find("trailingPE", "summaryDetail"), "trailingPE", symbol),
            provider=self.name,
            request=response.request,
            fetched_ts_utc=utc_now(self._clock),
            page=response.body,
        )

    # --- asking ---

    def _ask(
        self,
        folder: str,
        params: Mapping[str, str],
        symbol: str,
        check: Callable[[HttpResponse], tuple[HttpResponse, dict[str, Any] | None]],
    ) -> tuple[HttpResponse, dict[str, Any] | None]:
        from urllib.parse import quote

        path = folder + quote(symbol, safe="^=.-")
        shown = "&".join(f"{name}={value}" for name, value in params.items())
        request = hide_url_secrets(f"GET {self.base_url or BASE_URL}{path}?{shown}")

        def attempt() -> tuple[HttpResponse, dict[str, Any] | None]:
            return check(self._send(path, params, request, symbol))

        with limited(self.timeouts.call):
            return call_with_retries(attempt, policy=self.retry, sleep=self._sleep, uniform=self._uniform)

    def _send(self, path: str, params: Mapping[str, str], request: str, symbol: str) -> HttpResponse:
        global _cache_directory
        try:
            # By name, since neither package is typed throughout.
            yfinance, data, errors = (import_module(f"yfinance{part}") for part in ("", ".data", ".exceptions"))
            curl = import_module("curl_cffi.requests.exceptions")
        except ImportError as error:
            raise ProviderNotInstalled(
                self.name,
                symbol,
                f"yfinance is not installed ({error}). Install it with: pip install 'finance-assets[yahoo]'",
            ) from None

        failure: ProviderError
        with limited(self.timeouts.total) as limits, self._alone(limits, request, symbol):
            if _cache_directory is None:
                self.cache_dir.mkdir(parents=True, exist_ok=True)
                yfinance.set_tz_cache_location(str(self.cache_dir))
                _cache_directory = self.cache_dir
            if self._session is None:
                self._session = _bounded_session(self.base_url, self.timeouts, self.max_bytes)
            try:
                answer = data.YfData(session=self._session).get(
                    url=f"{BASE_URL}{path}", params=dict(params), timeout=self.timeouts.total
                )
                headers = {str(name).lower(): str(value) for name, value in answer.headers.items()}
                response = HttpResponse(int(answer.status_code), headers, bytes(answer.content), request)
            except errors.YFRateLimitError:
                failure = RateLimited(
                    self.name,
                    symbol,
                    f"{request} answered HTTP 429. Lower the request rate or try later",
                    retry_after_seconds=self._retry_after(self._session.last_retry_after),
                )
            except (curl.Timeout, OutboundTimeout):
                failure = self._timed_out(request, symbol)
            except AnswerTooLarge:
                failure = self._too_large(request, symbol)
            except (curl.IncompleteRead, curl.ChunkedEncodingError, curl.ContentDecodingError) as error:
                failure = self._cut_off(request, symbol, error)
            except curl.RequestException as error:
                failure = self._connection_failed(request, symbol, error)
            except Exception as error:  # yfinance reads consent pages on the way and stumbles over them in many ways
                failure = UnexpectedResponse(
                    self.name,
                    symbol,
                    f"yfinance gave up on {request} ({type(error).__name__}: {error}). A newer yfinance may know more",
                    reason_code="yfinance_failed",
                )
            else:
                self._check_status(response, symbol)
                return response
        raise failure

    @contextmanager
    def _alone(self, limits: Limits, request: str, symbol: str) -> Iterator[None]:
        """Hold the lock of yfinance, or raise where another thread holds it until our time is over."""
        if not _yfinance_lock.acquire(timeout=max(limits.time_left(), 0.0)):
            raise self._timed_out(request, symbol)
        try:
            yield
        finally:
            _yfinance_lock.release()

    def _timed_out(self, request: str, symbol: str) -> ProviderUnavailable:
        return ProviderUnavailable(
            self.name,
            symbol,
            f"{request} timed out (connect {self.timeouts.connect:g} s, total {self.timeouts.total:g} s, all attempts "
            f"{self.timeouts.call:g} s). Try later or raise the time-outs",
            reason_code="timeout",
        )

    def _too_large(self, request: str, symbol: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.name,
            symbol,
            f"the answer to {request} is longer than {self.max_bytes} bytes. Ask for a shorter range",
            reason_code="too_large",
        )

    def _connection_failed(self, request: str, symbol: str, error: Exception) -> ProviderError:
        code = int(getattr(error, "code", 0) or 0)
        if code in (18, 92):  # CURLE_PARTIAL_FILE, CURLE_HTTP2_STREAM
            return self._cut_off(request, symbol, error)
        if code == 63:  # CURLE_FILESIZE_EXCEEDED
            return self._too_large(request, symbol)
        return ProviderUnavailable(
            self.name,
            symbol,
            f"no connection for {request} ({type(error).__name__}, curl {code}). Check the network and proxy",
            reason_code="connection_failed",
        )

    def _cut_off(self, request: str, symbol: str, error: Exception) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.name,
            symbol,
            f"the answer to {request} was cut off or malformed ({type(error).__name__})",
            reason_code="truncated_body",
            retryable=True,
        )

    def _retry_after(self, value: str | None) -> float | None:
        return parse_retry_after(value, utc_now(self._clock))

    def _check_status(self, response: HttpResponse, symbol: str) -> None:
        """Raise for statuses that say nothing of the ticker; 400 and 404 carry a reason in their body."""
        where = f"{response.request} answered HTTP {response.status} ({excerpt(response.body)})"
        retry_after = self._retry_after(response.headers.get("retry-after"))
        if response.status == 429:
            raise RateLimited(
                self.name,
                symbol,
                f"{where}. Lower the request rate or try later",
                retry_after_seconds=retry_after,
            )
        if response.status in (401, 403):
            raise ProviderUnavailable(
                self.name,
                symbol,
                f"{where}. Yahoo refused the session; a new one may be taken",
                reason_code="session_refused",
            )
        if response.status == 408 or response.status >= 500 or _DOWN.encode() in response.body[:4096]:
            raise ProviderUnavailable(
                self.name,
                symbol,
                f"{where}. The provider has a fault; try later",
                reason_code="server_error",
                retry_after_seconds=retry_after,
            )
        if response.status not in (200, 400, 404):
            raise UnexpectedResponse(self.name, symbol, where, reason_code=f"http_{response.status}")

    # --- reading ---

    def _result(self, response: HttpResponse, symbol: str, key: str) -> dict[str, Any] | None:
        """Return ``document[key].result[0]``; None where a known ticker has nothing in the range."""
        document = parse_json(response, provider=self.name, symbol=symbol)
        outer = document.get(key) if isinstance(document, dict) else None
        if not isinstance(outer, dict):
            raise self._wrong_shape(response, symbol, f"there is no {key!r} object")
        error = outer.get("error")
        if error:
            said = str(error.get("description") or error) if isinstance(error, dict) else str(error)
            if said.startswith(_NO_DATA_IN_RANGE):
                return None
            if response.status == 404 or (isinstance(error, dict) and error.get("code") == "Not Found"):
                raise SymbolNotFound(
                    self.name,
                    symbol,
                    f"{response.request}: {quoted(said)}. Check the ticker's spelling at Yahoo",
                )
            raise UnexpectedResponse(
                self.name,
                symbol,
                f"{response.request}: {quoted(said)}",
                reason_code=f"http_{response.status}",
            )
        result = outer.get("result")
        if not isinstance(result, list) or not result or not isinstance(result[0], dict):
            raise self._wrong_shape(response, symbol, f"{key!r} has neither result nor error")
        first: dict[str, Any] = result[0]
        return first

    def _chart(self, response: HttpResponse, symbol: str) -> dict[str, Any] | None:
        chart = self._result(response, symbol, "chart")
        if chart is None:
            return None
        meta = chart.get("meta")
        if not isinstance(meta, dict) or not isinstance(meta.get("exchangeTimezoneName"), str):
            raise self._wrong_shape(response, symbol, "the chart does not name its time zone")
        if str(meta.get("symbol", symbol)).upper() != symbol.upper():
            raise self._wrong_shape(response, symbol, f"it is about {quoted(meta.get('symbol'))}")
        return chart

    def _wrong_shape(self, response: HttpResponse, symbol: str, what: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.name,
            symbol,
            f"the answer to {response.request} is not in the known shape: {what}. A newer yfinance may know more",
            reason_code="wrong_shape",
        )

    def _rows(
        self,
        chart: Mapping[str, Any],
        response: HttpResponse,
        symbol: str,
        start: date,
        end: date,
        now: datetime,
    ) -> tuple[list[QuoteRow], list[str]]:
        meta = chart["meta"]
        time_zone = meta["exchangeTimezoneName"]
        try:
            finished = last_finished_date(now, time_zone)
            stamps = chart.get("timestamp") or []
            dates = [_local_date(stamp, time_zone) for stamp in stamps]
            columns = self._columns(chart, len(dates))
            dividends = _events(chart, "dividends", time_zone)
            splits = _splits(_events(chart, "splits", time_zone))
        except (KeyError, TypeError, ValueError, ArithmeticError, OSError, IndexError) as error:
            raise self._wrong_shape(response, symbol, f"{type(error).__name__}: {error}") from None

        currency = "points" if str(meta.get("instrumentType", "")).upper() == "INDEX" else _text(meta.get("currency"))
        live_stamp = meta.get("regularMarketTime")
        rows: list[QuoteRow] = []
        notes: list[str] = []
        bar_dates: set[date] = set()
        for position, quote_date in enumerate(dates):
            if not start <= quote_date <= end:
                continue
            if quote_date > finished:
                notes.append(f"{quote_date}: left out, its session had not ended at {now:%Y-%m-%dT%H:%MZ}")
                continue
            if stamps[position] == live_stamp and dates.count(quote_date) > 1 and quote_date in bar_dates:
                notes.append(f"{quote_date}: the vendor repeated its last price as a second bar, which was left out")
                continue
            bar_dates.add(quote_date)
            values = {name: column[position] for name, column in columns.items()}
            rows.append(_row(quote_date, values, dividends.get(quote_date, []), splits, currency))
        for ex_date in sorted({*dividends, *(split.ex_date for split in splits)} - bar_dates):
            if start <= ex_date <= min(end, finished):
                rows.append(_row(ex_date, {}, dividends.get(ex_date, []), splits, currency))
        return rows, notes

    def _columns(self, chart: Mapping[str, Any], length: int) -> dict[str, Sequence[Any]]:
        indicators = chart["indicators"]
        bars = indicators["quote"][0]
        names = (*_OHLC, "volume") if length else ()
        columns: dict[str, Sequence[Any]] = {name: bars[name] for name in names}
        adjusted = indicators.get("adjclose")
        if adjusted and length:
            columns["vendor_adjusted_close"] = adjusted[0]["adjclose"]
        for name, column in columns.items():
            if not isinstance(column, list) or len(column) != length:
                raise ValueError(f"{name} does not have {length} values")
        return columns

    def _ratio(self, value: object, field_name: str, symbol: str) -> Decimal | None:
        if value is None or value in ("Infinity", "NaN"):
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


def as_written(value: Decimal) -> Decimal:
    """Read a widened single-precision float as the decimal that was meant: 187.14999389648438 is 187.15.

    Parameters
    ----------
    value
        The JSON number, exactly.

    Returns
    -------
    Decimal
        The shortest decimal that names the same single-precision float, if the number is one; else ``value``.
    """
    import numpy as np

    wide = float(value)
    with np.errstate(over="ignore"):
        narrow = np.float32(wide)
    if not np.isfinite(narrow) or float(narrow) != wide:
        return value
    return Decimal(str(narrow))


def _row(
    quote_date: date,
    values: Mapping[str, Any],
    dividends: Sequence[Any],
    splits: Sequence[_Split],
    currency: str | None,
) -> QuoteRow:
    """Build one row as traded: prices and dividends times, volume divided by, the splits that came later."""
    factor = _NO_SPLIT
    today = _NO_SPLIT
    for split in splits:
        if split.ex_date > quote_date:
            factor *= split.ratio
        elif split.ex_date == quote_date:
            today *= split.ratio
    errors: list[str] = []
    prices: dict[str, Decimal | None] = {}
    for name in _OHLC:
        prices[name] = _price(values.get(name), name, factor, errors)
    adjusted = None
    if values.get("vendor_adjusted_close") is not None:
        adjusted = _price(values["vendor_adjusted_close"], "vendor_adjusted_close", _NO_SPLIT, errors)
    volume, error = parse_count(values.get("volume"), "volume")
    if error is not None:
        errors.append(error)
    elif volume is not None and factor != _NO_SPLIT:
        volume = int((Decimal(volume) / factor).to_integral_value())
    if not values:
        errors = ["row: an action on a day without a bar"]
    cash = Decimal(0)
    for amount in dividends:
        number, error = parse_decimal(amount, "dividend_amount")
        if number is None:
            errors.append(error or "dividend_amount: missing")
        elif factor == _NO_SPLIT:
            cash += number
        else:
            cash += simplest_decimal(number * factor, _DIVIDEND_PRECISION * factor)
    return QuoteRow(
        quote_date,
        open=prices["open"],
        high=prices["high"],
        low=prices["low"],
        close=prices["close"],
        vendor_adjusted_close=adjusted,
        volume=volume,
        dividend_amount=round_price(cash),
        split_ratio=float(today),
        currency=currency,
        price_basis=RAW,
        action_derivation=REPORTED,
        parse_error="; ".join(errors) or None,
    )


def _price(value: Any, name: str, factor: Decimal, errors: list[str]) -> Decimal | None:
    number, error = parse_decimal(value, name)
    if number is None:
        errors.append(error or f"{name}: missing")
        return None
    exact = as_written(value) if isinstance(value, Decimal) else number
    if factor != _NO_SPLIT:
        exact = simplest_decimal(exact * factor, abs(exact * factor) * _SINGLE_PRECISION)
        number, error = parse_decimal(exact, name)
        if error is not None:
            errors.append(error)
        return number
    return round_price(exact)


def _local_date(stamp: Any, time_zone: str) -> date:
    from zoneinfo import ZoneInfo

    if not isinstance(stamp, int) or isinstance(stamp, bool):
        raise TypeError(f"timestamp {quoted(stamp)} is not a whole number")
    # Added to the epoch, since fromtimestamp refuses dates before 1970 on some systems.
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=stamp)).astimezone(ZoneInfo(time_zone)).date()


def _events(chart: Mapping[str, Any], kind: str, time_zone: str) -> dict[date, list[Any]]:
    """Return events by exchange date: amounts of dividends, numerator and denominator of splits."""
    found: dict[date, list[Any]] = {}
    for event in ((chart.get("events") or {}).get(kind) or {}).values():
        ex_date = _local_date(event["date"], time_zone)
        value = event["amount"] if kind == "dividends" else (event["numerator"], event["denominator"])
        found.setdefault(ex_date, []).append(value)
    return found


def _splits(events: Mapping[date, Sequence[Any]]) -> list[_Split]:
    splits = []
    for ex_date, ratios in sorted(events.items()):
        for numerator, denominator in ratios:
            ratio = Decimal(numerator) / Decimal(denominator)
            if not ratio.is_finite() or ratio <= 0:
                raise ValueError(f"split {numerator}:{denominator} on {ex_date}")
            splits.append(_Split(ex_date, ratio))
    return splits


def _text(value: object) -> str | None:
    return value.strip() or None if isinstance(value, str) else None


def _bounded_session(base_url: str | None, timeouts: Timeouts, max_bytes: int) -> Any:
    """Return a session for yfinance whose requests end in time, stay small, and go where ``base_url`` says.

    yfinance fetches its cookie and crumb with time-outs of its own (30 s); here no request outlasts the current limits.
    Since it does without both where it has to, each gets a third of what is left, and the rest is the data's.
    """
    from urllib.parse import urlsplit

    curl, curl_requests = import_module("curl_cffi"), import_module("curl_cffi.requests")
    session = curl_requests.Session(
        impersonate="chrome",
        curl_options={
            # Refuses an answer by the length that it declares; what comes is counted below, unpacked.
            curl.CurlOpt.MAXFILESIZE_LARGE: max_bytes,
            # A look-up of a name that hangs is left behind.
            curl.CurlOpt.QUICK_EXIT: 1,
        },
    )
    send = session.request
    session.last_retry_after = None

    def request(method: str, url: str, **options: Any) -> Any:
        parts = urlsplit(url)
        asked = options.get("timeout")
        bound = time_left(timeouts.total) or timeouts.total
        if not parts.path.startswith(_DATA_PATHS):
            bound /= 3
        if isinstance(asked, int | float):
            bound = min(float(asked), bound)
        connect = min(timeouts.connect, bound)
        options["timeout"] = (connect, bound - connect)  # curl_cffi bounds the whole request by their sum
        if base_url is not None:
            if not (parts.hostname or "").endswith("yahoo.com"):
                raise ValueError(f"a request to {parts.hostname} in a session bound to {hide_url_secrets(base_url)}")
            url = base_url.rstrip("/") + (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        body = bytearray()
        is_overrun = False

        def take(piece: bytes) -> int:
            nonlocal is_overrun
            if len(body) + len(piece) > max_bytes:
                is_overrun = True
                return _END_TRANSFER
            body.extend(piece)
            return len(piece)

        try:
            response = send(method=method, url=url, content_callback=take, **options)
        except curl_requests.exceptions.RequestException:
            if not is_overrun:
                raise
        if is_overrun:
            raise AnswerTooLarge(f"the answer is longer than {max_bytes} bytes")
        response.content = bytes(body)
        session.last_retry_after = response.headers.get("retry-after")
        return response

    session.request = request  # Session.get and Session.post go through it
    return session
