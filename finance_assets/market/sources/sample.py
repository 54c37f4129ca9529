"""The embedded sample: real quotes, offline, read from packages that carry them.

What belongs here: where the sample lies, how it is read, and how corporate actions are recovered from it.
Nothing is copied into the repository: the ``sample`` extra installs the packages.

- ``bokeh_sampledata`` (BSD-3): AAPL, FB, GOOG, IBM, MSFT with raw open, high, low, close, volume and an
  adjusted close, 2000-03-01 to 2013-03-01 (GOOG from 2004-08-19, FB from 2012-05-18).
- ``skfolio`` (BSD-3): 20 US large caps and the S&P 500 index, one adjusted close a day, 1990-01-02 to
  2022-12-28. AAPL and MSFT are in both; they are read from ``bokeh_sampledata`` only, since a change of basis
  in the middle of a series would look like a jump. The other 18 have no open, high, low or volume, and no
  actions: those are inside the price already, and their ``price_basis`` says so. The index is a price level,
  so it is raw.

The sample's clock stands at `SAMPLE_END`, the last session that both packages have; nothing later is ever
returned.

The packages are found by their import specs and read as text. They are not imported: ``bokeh_sampledata``
would be harmless, ``skfolio`` would bring scikit-learn along.

Recovered actions
-----------------
The adjusted close of ``bokeh_sampledata`` is a total-return price in the convention of the former Quandl WIKI
table: on an ex-date ``t`` the factor ``f = adjusted / close`` steps by

    f[t] / f[t-1] = split ratio * (1 + D / close[t]),

with the dividend over the close *of the ex-date*, not of the day before as CRSP and Yahoo do. Solved for D,
every known dividend comes out to the cent (MSFT 3.08 on 2004-11-15: 3.0800000; the CRSP form gives 3.029).
Between actions the factor is constant to 1e-13, which leaves no room for false positives.

The adjusted close also carries the adjustments that came after 2013 (AAPL's 7:1 split of 2014 among them) as
one constant factor. It cancels in every return; as a level it looks ahead, which is why it is evidence and no
input.
"""

from __future__ import annotations

import threading
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from finance_assets.market.sources.base import (
    PRICE_DIGITS,
    PRICE_PLACES,
    RAW,
    RECOVERED,
    TOTAL_RETURN_ADJUSTED,
    Overview,
    QuoteBatch,
    check_range,
    quote_schema,
)
from finance_assets.providers.errors import Clock, ProviderNotInstalled, SymbolNotFound, UnexpectedResponse, utc_now
from finance_assets.providers.packages import package_file
from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_START

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    FloatArray = npt.NDArray[np.float64]

SAMPLE_CLOCK = datetime(2013, 3, 1, 21, 30, tzinfo=UTC)
"""Half an hour after the close of the sample's last session: what the sample's clock shows."""

BOKEH_SYMBOLS = ("AAPL", "FB", "GOOG", "IBM", "MSFT")
SKFOLIO_SYMBOLS = (
    "AMD",
    "BAC",
    "BBY",
    "CVX",
    "GE",
    "HD",
    "JNJ",
    "JPM",
    "KO",
    "LLY",
    "MRK",
    "PEP",
    "PFE",
    "PG",
    "RRC",
    "UNH",
    "WMT",
    "XOM",
)
INDEX_SYMBOL = "^GSPC"
SAMPLE_SYMBOLS = (*sorted((*BOKEH_SYMBOLS, *SKFOLIO_SYMBOLS)), INDEX_SYMBOL)

_BOKEH_FILE = ("bokeh_sampledata", "_data/stocks.csv.gz")
_SKFOLIO_FILE = ("skfolio", "datasets/data/sp500_dataset.csv.gz")
_INDEX_FILE = ("skfolio", "datasets/data/sp500_index.csv.gz")
_INDEX_COLUMN = "SP500"

# A step of the adjustment factor below this is rounding: measured noise is 1e-13, the smallest real step
# 8e-4.
_FACTOR_NOISE = 1e-7
# The factor carries about twelve digits, so a dividend is known to better than this (currency per share).
_DIVIDEND_TOLERANCE = 1e-6
_DIVIDEND_PLACES = 6
# Largest dividend, as a share of the ex-date close, that is believed before the step is called unexplained.
_LARGEST_DIVIDEND = 0.5
# A split is believed only if the price moved with it: the rest of that day's move stays within +-40 %.
_LARGEST_OVERNIGHT_MOVE = 0.34
# Stock dividends below 6:5 cannot be told from cash dividends by the factor alone and are read as cash.
_SMALLEST_SPLIT = 1.2
# With a split (n:1, 1:n or 3:2) on the same day only a small dividend is believed; nothing else tells them
# apart.
_LARGEST_DIVIDEND_WITH_SPLIT = 0.05


class _Source(NamedTuple):
    """A file of an installed package: its bytes as they are, and its rows as text."""

    request: str
    page: bytes
    table: pa.Table


class SampleProvider:
    """Quotes and overviews of the embedded sample.

    Parameters
    ----------
    clock
        Stamps batches. Give it a fixed time (`SAMPLE_CLOCK`), so that reruns are equal byte for byte.
    """

    name = "sample"

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock
        self._sources: dict[tuple[str, str], _Source] = {}
        self._tables: dict[str, pa.Table] = {}
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        """Show the range of the sample."""
        return f"SampleProvider({SAMPLE_START} to {SAMPLE_END})"

    @property
    def symbols(self) -> tuple[str, ...]:
        """Every ticker of the sample."""
        return SAMPLE_SYMBOLS

    def fetch_quotes(self, symbol: str, start: date, end: date) -> QuoteBatch:
        """Return the quotes of ``symbol`` from ``start`` to ``end``, both included.

        None is later than `SAMPLE_END`. ``page`` is the whole file of the package, byte for byte: tickers
        that share a file share one landed page.

        Raises
        ------
        SymbolNotFound
            The sample does not have the ticker.
        ProviderNotInstalled
            The ``sample`` extra is not installed.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        check_range(start, end)
        table, source = self._quotes(symbol)
        days = table["quote_date"]
        kept = pc.and_(pc.greater_equal(days, pa.scalar(start)), pc.less_equal(days, pa.scalar(min(end, SAMPLE_END))))
        clipped = table.filter(kept).combine_chunks()
        return QuoteBatch(
            symbol=symbol,
            provider=self.name,
            request=source.request,
            fetched_ts_utc=utc_now(self._clock),
            page=source.page,
            page_suffix=".csv.gz",
            table=clipped,
            notes=(f"the sample ends on {SAMPLE_END}",) if end > SAMPLE_END else (),
        )

    def fetch_overview(self, symbol: str) -> Overview:
        """Return the sample universe's description of ``symbol`` as of `SAMPLE_END`; it knows no earnings.

        Raises
        ------
        SymbolNotFound
            The sample does not have the ticker.
        """
        from finance_assets.market.sources.instruments import instrument_as_of

        self._check_symbol(symbol)
        known = instrument_as_of(symbol, SAMPLE_END)
        if known is None:
            raise UnexpectedResponse(
                self.name,
                symbol,
                f"instruments.csv has no version of {symbol} on {SAMPLE_END}. Add the row",
                reason_code="wrong_shape",
            )
        return Overview(
            symbol=symbol,
            name=known["name"],
            instrument_type=known["instrument_type"],
            sector=known["gics_sector"],
            sector_scheme="GICS",
            currency=known["currency"],
            exchange=known["exchange"],
            eps=None,
            pe_ratio=None,
            provider=self.name,
            request=f"finance_assets/market/data/instruments.csv: {symbol} on {SAMPLE_END}",
            fetched_ts_utc=utc_now(self._clock),
            page=None,
            page_suffix=".csv",
        )

    # --- reading ---

    def _check_symbol(self, symbol: str) -> None:
        if symbol not in SAMPLE_SYMBOLS:
            raise SymbolNotFound(
                self.name,
                symbol,
                f"the sample does not have this ticker. It has {', '.join(SAMPLE_SYMBOLS)}; for others set a "
                "live provider",
            )

    def _quotes(self, symbol: str) -> tuple[pa.Table, _Source]:
        self._check_symbol(symbol)
        with self._lock:
            if symbol in BOKEH_SYMBOLS:
                source = self._source(symbol, _BOKEH_FILE)
                read = _read_full
            else:
                source = self._source(symbol, _INDEX_FILE if symbol == INDEX_SYMBOL else _SKFOLIO_FILE)
                read = _read_close_only
            if symbol not in self._tables:
                try:
                    self._tables[symbol] = read(source.table, symbol)
                except (KeyError, ValueError) as error:  # Arrow's errors are ValueErrors
                    raise UnexpectedResponse(
                        self.name,
                        symbol,
                        f"{source.request} does not hold what the sample expects: {error}. Install the "
                        "pinned version of the extra: pip install 'finance-assets[sample]'",
                        reason_code="wrong_shape",
                    ) from error
            return self._tables[symbol], source

    def _source(self, symbol: str, place: tuple[str, str]) -> _Source:
        if place not in self._sources:
            package, file = place
            path = package_file(package, file)
            if path is None:
                raise ProviderNotInstalled(
                    self.name,
                    symbol,
                    f"{package}/{file} is not installed. The sample data comes with an extra: pip install "
                    "'finance-assets[sample]'",
                )
            page = path.read_bytes()
            self._sources[place] = _Source(
                f"read {package} {_version(package)}: {file}", page, _read_text_columns(page)
            )
        return self._sources[place]


def recover_actions(close: FloatArray, adjusted_close: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Recover cash dividends and splits from raw and adjusted closes.

    Parameters
    ----------
    close
        Closes as traded, ascending in time; positive.
    adjusted_close
        Total-return adjusted closes of the same days, in the convention of the module docstring.

    Returns
    -------
    dividend : ndarray
        Cash per share that goes ex on each day, in shares of that day; 0 for none.
    split : ndarray
        New shares per old share on each day; 1 for none. The first value of both is NaN: a step needs a day
        before.

    Raises
    ------
    ValueError
        Lengths differ, a value is not positive and finite, or a step is neither a split nor a plausible
        dividend.

    Notes
    -----
    A step is a split if dividing it by a ratio of small whole numbers leaves nothing, and the price moved
    with the ratio. A step too large for a dividend is a split (n:1, 1:n or 3:2) with a dividend of up to
    5 % on the same day. Every other step up is a dividend, ``D = close[t] * (step - 1)``, given as the
    decimal with the fewest places within 0.000001 of that.
    """
    import numpy as np

    close = np.asarray(close, dtype=np.float64)
    adjusted_close = np.asarray(adjusted_close, dtype=np.float64)
    if close.shape != adjusted_close.shape or close.ndim != 1:
        raise ValueError(f"close and adjusted close differ in shape: {close.shape} and {adjusted_close.shape}")
    if not (
        np.isfinite(close).all()
        and np.isfinite(adjusted_close).all()
        and (close > 0).all()
        and (adjusted_close > 0).all()
    ):
        raise ValueError("closes must be positive and finite")
    dividend = np.zeros(close.size)
    split = np.ones(close.size)
    if close.size == 0:
        return dividend, split
    dividend[0] = split[0] = np.nan

    factor = adjusted_close / close
    step = factor[1:] / factor[:-1]
    days = np.flatnonzero(np.abs(step - 1.0) > _FACTOR_NOISE) + 1
    if days.size == 0:
        return dividend, split
    step = step[days - 1]
    move = close[days - 1] / close[days]  # a 2:1 split halves the price

    ratios = _simple_ratios()
    exact = np.abs(step[:, None] / ratios - 1.0) <= _FACTOR_NOISE
    moved = np.abs(np.log(move[:, None] / ratios)) <= _LARGEST_OVERNIGHT_MOVE
    pure = exact & moved
    found = np.where(pure.any(axis=1), ratios[pure.argmax(axis=1)], 1.0)

    # A dividend on the day of a split leaves a remainder just above 1 after the nearest ratio below the step.
    rest = step[:, None] / ratios - 1.0
    inverse = 1.0 / ratios
    common = np.isclose(ratios, np.round(ratios)) | np.isclose(inverse, np.round(inverse)) | (ratios == 1.5)
    both = moved & common & (rest > 0) & (rest <= _LARGEST_DIVIDEND_WITH_SPLIT)
    nearest = np.where(both, rest, np.inf).argmin(axis=1)
    unexplained = ~pure.any(axis=1) & ((step < 1.0) | (step > 1.0 + _LARGEST_DIVIDEND))
    found = np.where(unexplained & both.any(axis=1), ratios[nearest], found)

    cash = close[days] * (step / found - 1.0)
    cash[np.abs(step / found - 1.0) <= _FACTOR_NOISE] = 0.0
    impossible = (cash < 0) | (cash > _LARGEST_DIVIDEND * close[days])
    if impossible.any():
        first = int(days[impossible.argmax()])
        raise ValueError(
            f"the adjustment factor steps by {step[impossible.argmax()]:.8f} at row {first}: neither split nor dividend"
        )
    dividend[days] = _fewest_places(cash)
    split[days] = found
    return dividend, split


def _simple_ratios() -> FloatArray:
    """Split ratios that are believed: p:q with small numbers, and n:1 or 1:n up to 100, without 1:1."""
    import numpy as np

    whole = range(1, 11)
    ratios = (
        {p / q for p in whole for q in whole} | {float(n) for n in range(2, 101)} | {1.0 / n for n in range(2, 101)}
    )
    return np.array(sorted(ratio for ratio in ratios if ratio >= _SMALLEST_SPLIT or ratio <= 1.0 / _SMALLEST_SPLIT))


def _fewest_places(values: FloatArray) -> FloatArray:
    import numpy as np

    result = np.round(values, _DIVIDEND_PLACES)
    for places in range(_DIVIDEND_PLACES - 1, -1, -1):
        shorter = np.round(values, places)
        result = np.where(np.abs(shorter - values) <= _DIVIDEND_TOLERANCE, shorter, result)
    return result


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


def _read_text_columns(page: bytes) -> pa.Table:
    """Read a gzipped CSV with every column as text, so that no number passes through a float."""
    import gzip
    from io import BytesIO

    import pyarrow as pa
    from pyarrow import csv

    text = gzip.decompress(page)
    header = text[: text.index(b"\n")].decode("utf-8").strip().split(",")
    options = csv.ConvertOptions(column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=False)
    return csv.read_csv(BytesIO(text), convert_options=options)


def _as_price(column: pa.ChunkedArray[Any]) -> pa.ChunkedArray[Any]:
    """Cast decimal text to prices; digits beyond the eighth place are rounded half to even."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wide = column.cast(pa.decimal128(38, 18))
    rounded = pc.round(wide, ndigits=PRICE_PLACES, round_mode="half_to_even")
    return rounded.cast(pa.decimal128(PRICE_DIGITS, PRICE_PLACES))


def _read_full(text: pa.Table, symbol: str) -> pa.Table:
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    rows = text.filter(pc.equal(text["Ticker"], pa.scalar(symbol))).sort_by("Date")
    close = rows["Close"].cast(pa.float64()).to_numpy()
    adjusted = rows["Adj Close"].cast(pa.float64()).to_numpy()
    dividend, split = recover_actions(close, adjusted)
    unknown = np.isnan(split)
    price = pa.decimal128(PRICE_DIGITS, PRICE_PLACES)
    # Six decimals are exact as text; the float is only the last bit away from what it means.
    cash = [None if np.isnan(value) else f"{value:.{_DIVIDEND_PLACES}f}" for value in dividend]
    return _table(
        rows["Date"],
        {
            "open": _as_price(rows["Open"]),
            "high": _as_price(rows["High"]),
            "low": _as_price(rows["Low"]),
            "close": _as_price(rows["Close"]),
            "vendor_adjusted_close": _as_price(rows["Adj Close"]),
            "volume": rows["Volume"].cast(pa.int64()),
            "dividend_amount": pa.array(cash, pa.string()).cast(price),
            "split_ratio": pa.array(split, mask=unknown),
            "action_derivation": pa.array([None if missing else RECOVERED for missing in unknown], pa.string()),
        },
        currency="USD",
        price_basis=RAW,
    )


def _read_close_only(text: pa.Table, symbol: str) -> pa.Table:
    is_index = symbol == INDEX_SYMBOL
    rows = text.sort_by("Date")
    close = _as_price(rows[_INDEX_COLUMN if is_index else symbol])
    return _table(
        rows["Date"],
        {"close": close} if is_index else {"close": close, "vendor_adjusted_close": close},
        currency="points" if is_index else "USD",
        price_basis=RAW if is_index else TOTAL_RETURN_ADJUSTED,
    )


def _table(
    dates: pa.ChunkedArray[Any],
    columns: dict[str, pa.Array[Any] | pa.ChunkedArray[Any]],
    *,
    currency: str,
    price_basis: str,
) -> pa.Table:
    import pyarrow as pa

    schema = quote_schema()
    found: dict[str, pa.Array[Any] | pa.ChunkedArray[Any]] = {
        "quote_date": dates.cast(pa.date32()),
        "currency": pa.repeat(currency, len(dates)),
        "price_basis": pa.repeat(price_basis, len(dates)),
        **columns,
    }
    arrays = [found.get(field.name, pa.nulls(len(dates), field.type)) for field in schema]
    return pa.Table.from_arrays(arrays, schema=schema)
