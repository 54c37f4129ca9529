"""FRED, the Federal Reserve Bank of St. Louis' database, by its keyed JSON interface.

What belongs here: how observations are asked for and read, and what a provider of macro series returns. Knows no
Dagster, storage or settings, and opens nothing at import.

What the interface does, and what follows from it:

- A revised series is asked for with its vintages (``realtime_start`` to ``realtime_end`` over all time,
  ``output_type=1``): one observation per number and per span of days on which it was the published one. The first day
  of the span is the release date.
- One request may span 2,000 vintages at most and return 100,000 observations. Where there are more vintages, they are
  listed and asked for in groups. FRED cuts the spans at the borders of a request, so a number that did not change
  across a border comes twice; only its first release is kept.
- ``.`` stands for "no number", as on a holiday. It is kept as such, never as zero.
- Errors come as JSON with ``error_message``: an unknown series and a refused key are both answers with status 400.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from finance_assets.providers.errors import (
    AuthenticationFailed,
    Clock,
    SymbolNotFound,
    UnexpectedResponse,
    utc_now,
)
from finance_assets.providers.http import HttpClient, HttpResponse, RetryPolicy, Secret, Timeouts, parse_json
from finance_assets.text import hide_url_secrets

if TYPE_CHECKING:
    from finance_assets.macro.series import MacroSeries

FRED_URL = "https://api.stlouisfed.org"
#: Most observations of one answer, and most vintages of one request, by FRED's documentation and its error messages.
PAGE_ROWS = 100_000
VINTAGES_AT_ONCE = 2_000
#: Most vintage dates of one answer.
VINTAGE_PAGE = 10_000
FIRST_DAY, LAST_DAY = "1776-07-04", "9999-12-31"
MISSING = "."
#: How a release date is known: from the archive of vintages, or from the reference date and the lag of publication.
VINTAGE, ASSUMED_LAG = "vintage", "assumed_lag"
#: Digits that ``decimal(38,14)`` has.
_PLACES, _WHOLE_LIMIT = 14, Decimal(10) ** 24
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)", re.ASCII)


class Observation(NamedTuple):
    """One number as it was published: what it is about, since when it was known, and the text that stated it."""

    reference_date: date
    release_date: date
    release_basis: str
    value_text: str


@dataclass(frozen=True, eq=False)
class SeriesBatch:
    """All observations of one series, from one or a few requests.

    Attributes
    ----------
    series_id
        FRED's name.
    provider
        Who answered.
    request
        The (first) request in words, without its key.
    fetched_ts_utc
        When the answer came, by the injected clock.
    pages
        The bytes as they came, to be landed; the last one is what the rows refer to.
    page_suffix
        File suffix that fits them.
    observations
        By reference date, then release date; of a number that did not change only the first release.
    """

    series_id: str
    provider: str
    request: str
    fetched_ts_utc: datetime
    pages: tuple[bytes, ...] = field(repr=False)
    page_suffix: str
    observations: tuple[Observation, ...] = field(repr=False)


class MacroProvider(Protocol):
    """Somebody who knows macro series."""

    @property
    def name(self) -> str:
        """Name that is written into the ``provider`` column."""

    @property
    def series(self) -> Sequence[MacroSeries]:
        """What can be asked for."""

    def fetch(self, series: MacroSeries) -> SeriesBatch:
        """Return all observations that were published by the clock's day."""

    def close(self) -> None:
        """Close the connections."""


def read_value(text: str) -> tuple[Decimal | None, str]:
    """Read an observation's text exactly.

    Returns
    -------
    tuple
        The number and ``ok``; None and ``no_data`` for FRED's full stop; None and ``unreadable`` for anything that is
        no plain decimal, or has more digits than ``decimal(38,14)``.
    """
    stripped = text.strip()
    if stripped == MISSING:
        return None, "no_data"
    if len(stripped) <= 64 and _NUMBER.fullmatch(stripped):
        number = Decimal(stripped)
        exponent = number.as_tuple().exponent
        if abs(number) < _WHOLE_LIMIT and isinstance(exponent, int) and -exponent <= _PLACES:
            return number, "ok"
    return None, "unreadable"


def first_releases(observations: Sequence[Observation]) -> tuple[Observation, ...]:
    """Return observations in order, without those that only repeat the number before them.

    Two spans of one reference date with the same text are one release that a border between requests cut in two.
    """
    kept: list[Observation] = []
    for row in sorted(observations):
        before = kept[-1] if kept else None
        if before and before.reference_date == row.reference_date and before.value_text == row.value_text:
            continue
        kept.append(row)
    return tuple(kept)


class FredProvider:
    """Asks FRED.

    Parameters
    ----------
    key
        The API key; it is added on the wire, and never shown.
    clock
        Gives the time of the answer, and the day after which nothing is known.
    series
        What to follow.
    base_url, timeouts, retry, client
        See `finance_assets.providers.http`.
    """

    name = "fred"

    def __init__(
        self,
        key: str | None,
        *,
        clock: Clock,
        series: Sequence[MacroSeries],
        base_url: str = FRED_URL,
        timeouts: Timeouts | None = None,
        retry: RetryPolicy | None = None,
        client: HttpClient | None = None,
    ) -> None:
        self.series = tuple(series)
        self._key = key
        self._clock = clock
        self._client = client or HttpClient(
            self.name,
            base_url,
            clock=clock,
            secrets={"api_key": Secret(key or "")},
            timeouts=timeouts,
            retry=retry,
            max_bytes=64 * 1024 * 1024,
        )

    def __repr__(self) -> str:
        """Show the address, never the key."""
        return f"FredProvider({hide_url_secrets(self._client.base_url)!r})"

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def fetch(self, series: MacroSeries) -> SeriesBatch:
        """Return all observations of a series that were published by the clock's day.

        Raises
        ------
        ProviderError
            A subclass per cause: no key, refused key, unknown series, too many requests, no answer, other shape.
        """
        if not self._key:
            raise AuthenticationFailed(
                self.name,
                series.series_id,
                "there is no API key. Set FINANCE_ASSETS_FRED_API_KEY; keys are free at "
                "https://fred.stlouisfed.org/docs/api/api_key.html",
                attempts=0,
            )
        today = utc_now(self._clock).date()
        pages: list[bytes] = []
        rows: list[Observation] = []
        for first, last in self._spans(series, pages):
            rows += self._observations(series, first, last, pages)
        known = [row for row in rows if row.release_date <= today]
        return SeriesBatch(
            series_id=series.series_id,
            provider=self.name,
            request=self._client.describe("/fred/series/observations", {"series_id": series.series_id}),
            fetched_ts_utc=utc_now(self._clock),
            pages=tuple(pages),
            page_suffix=".json",
            observations=first_releases(known),
        )

    def _spans(self, series: MacroSeries, pages: list[bytes]) -> list[tuple[str, str] | tuple[None, None]]:
        """Return the spans of vintages to ask for: none at all where a series is not revised."""
        if not series.is_revised:
            return [(None, None)]
        dates: list[str] = []
        while True:
            offset = len(dates)
            params = {
                "series_id": series.series_id,
                "file_type": "json",
                "limit": str(VINTAGE_PAGE),
                "offset": str(offset),
            }
            document = self._ask("/fred/series/vintagedates", params, series.series_id, "vintage_dates", pages)
            found = document["vintage_dates"]
            dates += [self._day(text, series.series_id).isoformat() for text in found]
            if len(found) < VINTAGE_PAGE:
                break
        if len(dates) <= VINTAGES_AT_ONCE:
            return [(FIRST_DAY, LAST_DAY)]
        starts = [*range(0, len(dates), VINTAGES_AT_ONCE - 1)]
        spans: list[tuple[str, str] | tuple[None, None]] = []
        for place, start in enumerate(starts):
            first = FIRST_DAY if place == 0 else dates[start]
            last = dates[starts[place + 1] - 1] if place + 1 < len(starts) else LAST_DAY
            spans.append((first, last))
        return spans

    def _observations(
        self, series: MacroSeries, first: str | None, last: str | None, pages: list[bytes]
    ) -> list[Observation]:
        rows: list[Observation] = []
        read = 0
        while True:
            params = {
                "series_id": series.series_id,
                "file_type": "json",
                "output_type": "1",
                "sort_order": "asc",
                "limit": str(PAGE_ROWS),
                "offset": str(read),
            }
            if first is not None and last is not None:
                params |= {"realtime_start": first, "realtime_end": last}
            document = self._ask("/fred/series/observations", params, series.series_id, "observations", pages)
            found = document["observations"]
            rows += [self._read(series, entry, first is not None) for entry in found]
            read += len(found)
            count = document.get("count")
            if not isinstance(count, int) or isinstance(count, bool):
                raise self._odd(series.series_id, f"count is {count!r}, no whole number")
            if read >= count:
                return rows
            if not found:
                raise self._odd(series.series_id, f"page at offset {read} is empty, though count says {count}")

    def _read(self, series: MacroSeries, entry: Any, has_vintages: bool) -> Observation:
        if not isinstance(entry, dict) or not isinstance(entry.get("value"), str):
            raise self._odd(series.series_id, f"an observation has no text value: {str(entry)[:80]}")
        reference = self._day(entry.get("date"), series.series_id)
        if has_vintages:
            released, basis = self._day(entry.get("realtime_start"), series.series_id), VINTAGE
        else:
            released, basis = series.assumed_release(reference), ASSUMED_LAG
        return Observation(reference, released, basis, entry["value"])

    def _day(self, text: Any, series_id: str) -> date:
        try:
            return date.fromisoformat(text)
        except (TypeError, ValueError):
            raise self._odd(series_id, f"{str(text)[:40]!r} is no date") from None

    def _odd(self, series_id: str, what: str) -> UnexpectedResponse:
        return UnexpectedResponse(
            self.name, series_id, f"{what}. The interface may have changed; nothing of this answer is used"
        )

    def _ask(
        self, path: str, params: dict[str, str], series_id: str, wanted: str, pages: list[bytes]
    ) -> dict[str, Any]:
        """Return the JSON object of an answer, and keep its bytes."""

        def check(response: HttpResponse) -> tuple[bytes, Any]:
            return response.body, parse_json(response, provider=self.name, symbol=series_id)

        try:
            body, document = self._client.get(path, params, symbol=series_id, check=check)
        except UnexpectedResponse as error:
            raise self._explained(error, series_id) from None
        if not isinstance(document, dict) or not isinstance(document.get(wanted), list):
            raise self._odd(series_id, f"the answer has no list {wanted!r}")
        pages.append(body)
        return document

    def _explained(self, error: UnexpectedResponse, series_id: str) -> Exception:
        """Return what an answer with status 400 means."""
        if error.reason_code != "http_400":
            return error
        said = error.message.lower()
        if "variable api_key" in said:
            return AuthenticationFailed(
                self.name, series_id, f"{error.message} FINANCE_ASSETS_FRED_API_KEY holds the key"
            )
        if "series does not exist" in said:
            return SymbolNotFound(self.name, series_id, f"{error.message} Mend finance_assets/macro/series.py")
        return error
