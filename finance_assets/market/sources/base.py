"""What every quote provider promises.

What belongs here: the ``QuoteProvider`` and ``QuotaLedger`` protocols, the shapes that providers return, and the
reading of vendor text into exact decimals. What does not: anything that knows a vendor; errors are in
``finance_assets.providers.errors``.

Money never passes through a float where the vendor gives text: JSON strings and JSON numbers are read into
``Decimal`` and rounded half to even to eight decimals. A value that cannot be read leaves a null in its
column and a sentence in ``parse_error``, so that validation can quarantine the row with its reason; no row is
dropped.

Nothing heavy is imported at module level: ``pyarrow`` loads when the first table is built.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
    import pyarrow as pa

PriceBasis = Literal["raw", "total_return_adjusted"]

RAW: PriceBasis = "raw"
TOTAL_RETURN_ADJUSTED: PriceBasis = "total_return_adjusted"
REPORTED = "reported"
RECOVERED = "recovered_from_adjustment_factor"

PRICE_DIGITS = 18
PRICE_PLACES = 8

_QUANTUM = Decimal(1).scaleb(-PRICE_PLACES)
_PRICE_LIMIT = Decimal(10) ** (PRICE_DIGITS - PRICE_PLACES)
_INT64_LIMIT = 2**63
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?", re.ASCII)
_LONGEST_NUMBER = 64
_LONGEST_QUOTED_VALUE = 60
_REGULAR_CLOSE_SETTLED = time(16, 15)


# --- what providers return
# --------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class QuoteBatch:
    """Many sessions of one ticker, from one call.

    Attributes
    ----------
    symbol
        Ticker as it was asked for.
    provider
        Who answered.
    request
        The request in words, without its key.
    fetched_ts_utc
        When the answer came, by the injected clock, in UTC.
    page
        The bytes as they came, to be landed.
    page_suffix
        File suffix that fits ``page``, such as ``.json``.
    table
        One row per quote, ascending by date, with the schema of `quote_schema`.
    fallback_reason
        Why providers earlier in the order did not supply the batch; None where the first one did.
    notes
        What a reader of the batch ought to know, such as an unfinished session that was left out.
    """

    symbol: str
    provider: str
    request: str
    fetched_ts_utc: datetime
    page: bytes | None = field(repr=False)
    page_suffix: str
    table: pa.Table = field(repr=False)
    fallback_reason: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Overview:
    """What a provider says of one instrument.

    Attributes
    ----------
    symbol
        Ticker as it was asked for.
    name
        Name of the company or index; None where the provider gives none.
    instrument_type
        ``equity``, ``index``, ``etf``, ``mutual_fund``, or the provider's own word in snake case.
    sector
        Sector in the scheme that ``sector_scheme`` names.
    sector_scheme
        ``GICS``, or the provider's name where the provider has a scheme of its own.
    currency
        ISO 4217 code, or ``points`` for an index level.
    exchange
        MIC where it is known, else the provider's own code.
    eps
        Earnings per share, trailing twelve months, as stated.
    pe_ratio
        Price to earnings as stated.
    provider
        Who answered.
    request
        The request in words, without its key.
    fetched_ts_utc
        When the answer came, by the injected clock, in UTC.
    page
        The bytes as they came; None where nothing was fetched.
    page_suffix
        File suffix that fits ``page``.
    fallback_reason
        Why providers earlier in the order did not answer; None where the first one did.
    """

    symbol: str
    name: str | None
    instrument_type: str | None
    sector: str | None
    sector_scheme: str
    currency: str | None
    exchange: str | None
    eps: Decimal | None
    pe_ratio: Decimal | None
    provider: str
    request: str
    fetched_ts_utc: datetime
    page: bytes | None = field(repr=False)
    page_suffix: str = ".json"
    fallback_reason: str | None = None


@runtime_checkable
class QuoteProvider(Protocol):
    """Somebody who knows quotes: one call returns many sessions of one ticker."""

    @property
    def name(self) -> str:
        """Name that is written into the ``provider`` column."""
        ...

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        """Return the quotes of ``symbol`` from ``start`` to ``end``, both included."""
        ...

    def fetch_overview(self, symbol: str) -> Overview:
        """Return what the provider says of ``symbol``."""
        ...


class QuotaLedger(Protocol):
    """A durable count of requests per provider and day. Two processes share one ledger."""

    def try_acquire(self, provider: str, day: date, limit: int | None) -> bool:
        """Count one request and return True, or return False and count nothing if ``limit`` is reached.

        Atomic across processes. A ``limit`` of None counts without refusing.
        """
        ...

    def used(self, provider: str, day: date) -> int:
        """Return how many requests were counted for ``provider`` on ``day``."""
        ...


class InMemoryQuotaLedger:
    """A ledger that forgets at exit: for notebooks and tests, never for a deployment."""

    def __init__(self) -> None:
        import threading

        self._lock = threading.Lock()
        self._counts: dict[tuple[str, date], int] = {}

    def try_acquire(self, provider: str, day: date, limit: int | None) -> bool:
        """Count one request unless ``limit`` is reached."""
        with self._lock:
            count = self._counts.get((provider, day), 0)
            if limit is not None and count >= limit:
                return False
            self._counts[(provider, day)] = count + 1
            return True

    def used(self, provider: str, day: date) -> int:
        """Return how many requests were counted."""
        with self._lock:
            return self._counts.get((provider, day), 0)


# --- reading vendor text
# ----------------------------------------------------------------------------------------


class QuoteRow(NamedTuple):
    """One row of a `QuoteBatch` before it becomes Arrow; a value that could not be read is None."""

    quote_date: date
    open: Decimal | None = None
    high: Decimal | None = None
    low: Decimal | None = None
    close: Decimal | None = None
    vendor_adjusted_close: Decimal | None = None
    volume: int | None = None
    dividend_amount: Decimal | None = None
    split_ratio: float | None = None
    currency: str | None = None
    price_basis: PriceBasis = RAW
    action_derivation: str | None = None
    parse_error: str | None = None


class Parsed(NamedTuple):
    """A value, or why there is none."""

    value: Decimal | None
    error: str | None


def quote_schema() -> pa.Schema:
    """Return the Arrow schema of `QuoteBatch.table`."""
    import pyarrow as pa

    price = pa.decimal128(PRICE_DIGITS, PRICE_PLACES)
    fields: list[pa.Field[Any]] = [
        pa.field("quote_date", pa.date32(), nullable=False),
        pa.field("open", price),
        pa.field("high", price),
        pa.field("low", price),
        pa.field("close", price),
        pa.field("vendor_adjusted_close", price),
        pa.field("volume", pa.int64()),
        pa.field("dividend_amount", price),
        pa.field("split_ratio", pa.float64()),
        pa.field("currency", pa.string()),
        pa.field("price_basis", pa.string(), nullable=False),
        pa.field("action_derivation", pa.string()),
        pa.field("parse_error", pa.string()),
    ]
    return pa.schema(fields)


def quote_table(rows: Sequence[QuoteRow]) -> pa.Table:
    """Build a table with the schema of `quote_schema`, ascending by date, else in the given order."""
    import pyarrow as pa

    schema = quote_schema()
    ordered = sorted(rows, key=lambda row: row.quote_date)
    columns = zip(*ordered, strict=True) if ordered else ((),) * len(schema)
    arrays = [pa.array(list(column), schema_field.type) for column, schema_field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)


def round_price(value: Decimal) -> Decimal:
    """Round to the eight decimals of every price column, half to even."""
    return value.quantize(_QUANTUM, rounding=ROUND_HALF_EVEN)


def parse_decimal(value: object, name: str, *, allow_negative: bool = False) -> Parsed:
    """Read a vendor's text or JSON number exactly.

    Parameters
    ----------
    value
        Text, ``int`` or ``Decimal`` as ``json.loads(…, parse_float=Decimal)`` gives them.
    name
        Name of the field, for the error.
    allow_negative
        Whether a value below zero is legal (earnings) or a fault (prices).

    Returns
    -------
    Parsed
        The value rounded to eight decimals, or None and a sentence such as ``close: "abc" is not a decimal``.

    Notes
    -----
    Only ASCII digits with an optional point and exponent count as a number: ``Decimal`` itself would also
    take ``NaN``, ``Infinity``, ``1_000`` and digits of other scripts.
    """
    if value is None:
        return Parsed(None, f"{name}: missing")
    if isinstance(value, Decimal) and value.is_finite():
        number = value
    elif isinstance(value, int) and not isinstance(value, bool):
        number = Decimal(value)
    elif isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    else:
        return Parsed(None, f"{name}: {quoted(value)} is not a decimal")
    if number < 0 and not allow_negative:
        return Parsed(None, f"{name}: {quoted(value)} is negative")
    if abs(number) < _PRICE_LIMIT and abs(rounded := round_price(number)) < _PRICE_LIMIT:
        return Parsed(rounded, None)
    return Parsed(None, f"{name}: {quoted(value)} does not fit decimal({PRICE_DIGITS},{PRICE_PLACES})")


def parse_count(value: object, name: str) -> tuple[int | None, str | None]:
    """Read a whole number of shares; ``123.0`` is one, ``123.5`` is not."""
    if isinstance(value, str) and len(value) <= _LONGEST_NUMBER and _NUMBER.fullmatch(value.strip()):
        number = Decimal(value.strip())
    elif isinstance(value, int) and not isinstance(value, bool):
        number = Decimal(value)
    elif isinstance(value, Decimal) and value.is_finite():
        number = value
    elif value is None:
        return None, f"{name}: missing"
    else:
        return None, f"{name}: {quoted(value)} is not a whole number"
    if number != number.to_integral_value():
        return None, f"{name}: {quoted(value)} is not a whole number"
    if number < 0:
        return None, f"{name}: {quoted(value)} is negative"
    if number >= _INT64_LIMIT:
        return None, f"{name}: {quoted(value)} does not fit int64"
    return int(number), None


def quoted(value: object) -> str:
    """Show a vendor's value in an error: quoted, on one line, cut to sixty characters."""
    text = value if isinstance(value, str) else str(value)
    if len(text) > _LONGEST_QUOTED_VALUE:
        text = text[:_LONGEST_QUOTED_VALUE] + "…"
    return '"' + "".join(character if character.isprintable() else "�" for character in text) + '"'


def simplest_decimal(value: Decimal, tolerance: Decimal, places: int = PRICE_PLACES) -> Decimal:
    """Return the decimal with the fewest places that lies within ``tolerance`` of ``value``.

    For numbers that are known only to a tolerance, such as ``0.0799999999`` that can only mean ``0.08``.
    """
    for digits in range(places):
        candidate = value.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN)
        if abs(candidate - value) <= tolerance:
            return candidate
    return value.quantize(Decimal(1).scaleb(-places), rounding=ROUND_HALF_EVEN)


# --- time
# -------------------------------------------------------------------------------------------------------


def check_range(start: date, end: date) -> None:
    """Refuse a range that ends before it starts."""
    if end < start:
        raise ValueError(f"the range ends before it starts: {start} > {end}")


def last_finished_date(now: datetime, time_zone: str) -> date:
    """Return the newest date whose regular session is over at ``now``.

    Providers hand out the running session as if it were a finished one; its "close" is only the last trade. A
    date counts as finished from 16:15 in the exchange's time zone, a quarter of an hour after the regular
    close; on half days the wait is merely longer than it need be.
    """
    from zoneinfo import ZoneInfo

    local = now.astimezone(ZoneInfo(time_zone))
    return local.date() if local.time() >= _REGULAR_CLOSE_SETTLED else local.date() - timedelta(days=1)
