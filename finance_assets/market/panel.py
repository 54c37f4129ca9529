"""From an Arrow table of quotes to a panel of arrays, and back to columns.

Belongs here: grouping rows by ticker, session ordinals, fast conversion of Arrow columns, results as Arrow
columns. Does not belong here: the rules of indicators and adjustments (their own modules), file access,
Dagster.

A panel holds the rows of many tickers end to end, each ticker's rows in the order of sessions, so that one
call computes an indicator for all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from finance_assets.contracts.status import STATUSES, Status
from finance_assets.market._arrays import FloatArray, IntArray, RowArray
from finance_assets.market.adjustments import AdjustmentFactors, adjustment_factors
from finance_assets.market.indicators import (
    Indicator,
    PriceIndicators,
    VolumeIndicators,
    price_indicators,
    volume_indicators,
)

__all__ = ["Panel", "column_to_floats", "indicator_to_arrow"]

_MAX_EXACT_DIGITS = 18  # of a decimal that fits into 64 bits


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """Quotes of many tickers as arrays, one element per row.

    Attributes
    ----------
    symbols
        Ticker symbols in the order of their rows.
    offsets
        int64 of length ``len(symbols) + 1``; ticker ``i`` owns the rows ``offsets[i]:offsets[i + 1]``.
    days
        int32, session date per row as days since 1970-01-01.
    session_index
        int32, ordinal of the exchange session per row; a step of more than 1 within a ticker is a missed
        session.
    columns
        float64 values by name, NaN where the table has null.
    order
        Row of the table for each row of the panel; None where they are the same.
    """

    symbols: tuple[str, ...]
    offsets: IntArray
    days: npt.NDArray[np.int32]
    session_index: npt.NDArray[np.int32]
    columns: Mapping[str, FloatArray]
    order: RowArray | None = None

    @classmethod
    def from_arrow(
        cls,
        table: pa.Table,
        values: Sequence[str],
        *,
        symbol: str = "symbol",
        session_date: str = "session_date",
        calendar: npt.ArrayLike | None = None,
    ) -> Panel:
        """Group the rows of a table by ticker.

        A table whose tickers are each contiguous and ascending in date is taken as it is; any other is sorted
        by symbol and date (a table in the order of dates, as daily files give it, costs one pass).

        Parameters
        ----------
        table
            One row per ticker and session.
        values
            Names of the numeric columns wanted. Decimals become the nearest doubles (up to 15 digits exactly
            the double that the decimal's text denotes).
        symbol, session_date
            Names of the key columns: text, best read as a dictionary, and date.
        calendar
            All sessions of the exchange that the table can hold, ascending datetime64[D]. Without it, the
            dates that occur in the table count as the sessions: right for a whole market, blind to sessions
            that every ticker in the table missed.

        Returns
        -------
        Panel
            An empty table gives a panel without tickers.

        Raises
        ------
        ValueError
            If a key is null, a (symbol, date) occurs twice, or a date is not in `calendar`.
        TypeError
            If a column is not of a usable type.
        """
        codes, names = _read_symbols(table[symbol])
        days = _read_days(table[session_date])
        session_index = _session_ordinals(days, calendar)
        order = None
        if not _is_grouped(codes, session_index, len(names)):
            codes, names = _alphabetical(codes, names)
            order = _sort_order(codes, session_index)
            codes, days, session_index = codes[order], days[order], session_index[order]
        starts = np.flatnonzero(np.concatenate(([codes.size > 0], codes[1:] != codes[:-1])))
        present = codes[starts]
        again = (codes[1:] == codes[:-1]) & (session_index[1:] == session_index[:-1])
        if again.any():
            row = int(np.argmax(again))
            day = np.datetime64(int(days[row]), "D")
            raise ValueError(f"{names[codes[row]]} has more than one row for {day}")
        columns = {}
        for name in values:
            column = column_to_floats(table[name])
            columns[name] = column if order is None else column[order]
        return cls(
            symbols=tuple(names[code] for code in present.tolist()),
            offsets=np.append(starts, codes.size).astype(np.int64),
            days=days,
            session_index=session_index,
            columns=columns,
            order=order,
        )

    @property
    def n_rows(self) -> int:
        """Number of rows of all tickers."""
        return int(self.offsets[-1])

    @property
    def dates(self) -> npt.NDArray[np.datetime64]:
        """Session date per row as datetime64[D]."""
        return self.days.astype("datetime64[D]")

    def with_columns(self, columns: Mapping[str, FloatArray]) -> Panel:
        """Add or replace columns; each has one element per row of the panel."""
        for name, column in columns.items():
            if column.shape != (self.n_rows,):
                raise ValueError(f"{name} has shape {column.shape}, the panel has {self.n_rows} rows")
        return replace(self, columns={**self.columns, **columns})

    def in_table_order(self, rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Put an array of panel rows into the order of the table the panel was made from."""
        if self.order is None:
            return rows
        result = np.empty_like(rows)
        result[self.order] = rows
        return result

    def price_indicators(
        self, close_split_adjusted: str, close_total_return: str, **parameters: Any
    ) -> PriceIndicators:
        """Compute `indicators.price_indicators` of two columns; `parameters` are its returns and periods."""
        return price_indicators(
            self.offsets,
            self.columns[close_split_adjusted],
            self.columns[close_total_return],
            self.session_index,
            **parameters,
        )

    def volume_indicators(self, volume: str, period: int = 20) -> VolumeIndicators:
        """Compute `indicators.volume_indicators` of a column."""
        return volume_indicators(self.offsets, self.columns[volume], period)

    def adjustment_factors(
        self,
        close: str,
        actions: pa.Table,
        *,
        symbol: str = "symbol",
        ex_date: str = "ex_date",
        split_ratio: str = "split_ratio",
        cash_amount: str = "cash_amount",
    ) -> AdjustmentFactors:
        """Compute `adjustments.adjustment_factors` for a table of corporate actions.

        Parameters
        ----------
        close
            Column of raw closes.
        actions
            One row per action; null where an amount does not apply. Actions of tickers that the panel does
            not hold are passed over.
        symbol, ex_date, split_ratio, cash_amount
            Names of the columns of `actions`.

        Returns
        -------
        AdjustmentFactors
            Factors per row of the panel; `rejected` per row of `actions`.

        Raises
        ------
        ValueError
            If a key of `actions` is null.
        """
        codes, names = _read_symbols(actions[symbol])
        number = {name: i for i, name in enumerate(self.symbols)}
        ticker_of_code = np.array([number.get(name, -1) for name in names], dtype=np.int64)
        ticker = ticker_of_code[codes] if codes.size else np.zeros(0, dtype=np.int64)
        known = ticker >= 0
        factors = adjustment_factors(
            self.offsets,
            self.days,
            self.columns[close],
            ticker[known],
            _read_days(actions[ex_date])[known],
            column_to_floats(actions[split_ratio])[known],
            column_to_floats(actions[cash_amount])[known],
        )
        rejected = np.zeros(actions.num_rows, dtype=np.bool_)
        rejected[known] = factors.rejected
        return factors._replace(rejected=rejected)


def indicator_to_arrow(indicator: Indicator) -> tuple[pa.DoubleArray, pa.DictionaryArray[Any, Any]]:
    """Give an indicator's columns as tables store them.

    Parameters
    ----------
    indicator
        Values and status codes.

    Returns
    -------
    tuple of pyarrow.Array
        The values with null for NaN, and the status as text (a dictionary of strings).
    """
    values: pa.DoubleArray = pa.array(indicator.values, type=pa.float64(), mask=indicator.status != Status.OK.code)
    names = pa.array([status.value for status in STATUSES], type=pa.string())
    return values, pa.DictionaryArray.from_arrays(indicator.status, names)


def column_to_floats(column: pa.ChunkedArray[Any] | pa.Array[Any]) -> FloatArray:
    """Convert a numeric Arrow column to float64, null to NaN.

    Decimals of up to 18 digits are read from their 64-bit integers, several times faster than Arrow's cast
    and with one rounding: the result is the double nearest to the decimal wherever its integer has at most 53
    bits.

    Parameters
    ----------
    column
        Integers, floats or decimals.

    Returns
    -------
    numpy.ndarray
        float64; may share memory with `column` and be read-only.

    Raises
    ------
    TypeError
        If the column is not numeric.
    """
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    kind = column.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        raise TypeError(f"column must be numeric, got {kind}")
    if len(chunks) == 1 and pa.types.is_float64(kind) and chunks[0].null_count == 0:
        shared: FloatArray = chunks[0].to_numpy()
        return shared
    result = np.empty(len(column))
    end = 0
    for chunk in chunks:
        start, end = end, end + len(chunk)
        _chunk_to_floats(chunk, result[start:end])
    return result


def _chunk_to_floats(chunk: pa.Array[Any], out: FloatArray) -> None:
    kind = chunk.type
    if pa.types.is_decimal(kind):
        whole = _decimal_integers(chunk)
        if whole is None:
            out[:] = chunk.cast(pa.float64()).to_numpy(zero_copy_only=False)
        else:
            np.divide(whole, 10.0**kind.scale, out=out)
            if chunk.null_count:
                out[chunk.is_null().to_numpy(zero_copy_only=False)] = np.nan
        return
    out[:] = chunk.to_numpy(zero_copy_only=False)


def _decimal_integers(chunk: pa.Array[Any]) -> npt.NDArray[np.int64] | None:
    """Unscaled integers of a decimal chunk, without a copy; None if they need more than 64 bits."""
    if not pa.types.is_decimal128(chunk.type) or chunk.type.precision > _MAX_EXACT_DIGITS:
        return None
    buffer = chunk.buffers()[1]
    if buffer is None:
        return None
    # Little-endian two's complement of 128 bits: with at most 18 digits, the low half is the number.
    words: npt.NDArray[np.int64] = np.frombuffer(memoryview(buffer), dtype="<i8")
    return words[2 * chunk.offset : 2 * (chunk.offset + len(chunk)) : 2]


def _read_symbols(column: pa.ChunkedArray[Any]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Code of each row's symbol, and the symbols by code; rows of one symbol share one code."""
    if column.null_count:
        raise ValueError("symbol must not be null")
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    column = column.unify_dictionaries()
    if column.num_chunks == 0:
        return np.zeros(0, dtype=np.int32), []
    encoded = cast("list[pa.DictionaryArray[Any, Any]]", column.chunks)
    names = [str(name) for name in encoded[0].dictionary.to_pylist()]
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in encoded]).astype(np.int32, copy=False)
    if len(set(names)) < len(names):
        # A dictionary may hold a value twice (Arrow does not forbid it).
        first = {name: i for i, name in reversed(list(enumerate(names)))}
        codes = np.array([first[name] for name in names], dtype=np.int32)[codes]
    return codes, names


def _read_days(column: pa.ChunkedArray[Any]) -> npt.NDArray[np.int32]:
    if column.null_count:
        raise ValueError("dates must not be null")
    if not (pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)):
        raise TypeError(f"dates must be of a date type, got {column.type}")
    days = column.cast(pa.date32()).cast(pa.int32())
    if days.num_chunks == 0:
        return np.zeros(0, dtype=np.int32)
    result: npt.NDArray[np.int32] = days.to_numpy()
    return result


def _session_ordinals(days: npt.NDArray[np.int32], calendar: npt.ArrayLike | None) -> npt.NDArray[np.int32]:
    if days.size == 0:
        return np.zeros(0, dtype=np.int32)
    first, last = int(days.min()), int(days.max())
    place = days - first
    is_session = np.zeros(last - first + 1, dtype=np.bool_)
    if calendar is None:
        is_session[place] = True
    else:
        sessions = np.asarray(calendar, dtype="datetime64[D]").astype(np.int64) - first
        is_session[sessions[(sessions >= 0) & (sessions < is_session.size)]] = True
        strange = ~is_session[place]
        if strange.any():
            day = np.datetime64(int(days[np.argmax(strange)]), "D")
            raise ValueError(f"{day} is not a session of the calendar")
    # A table over the range of days turns the ordinals into one lookup, without sorting the rows.
    ordinal = (np.cumsum(is_session) - 1).astype(np.int32)
    return ordinal[place]


def _is_grouped(codes: npt.NDArray[np.int32], session_index: npt.NDArray[np.int32], n_symbols: int) -> bool:
    """Tell whether each symbol's rows are contiguous and in the order of sessions."""
    if codes.size == 0:
        return True
    change = codes[1:] != codes[:-1]
    heads = codes[np.concatenate(([True], change))]
    if heads.size > n_symbols or np.unique(heads).size < heads.size:
        return False
    return bool((change | (session_index[1:] >= session_index[:-1])).all())


def _alphabetical(codes: npt.NDArray[np.int32], names: list[str]) -> tuple[npt.NDArray[np.int32], list[str]]:
    """Renumber the symbols in their own order: sorted rows do not depend on how the file was written."""
    order = sorted(range(len(names)), key=names.__getitem__)
    rank = np.empty(len(names), dtype=np.int32)
    rank[order] = np.arange(len(names), dtype=np.int32)
    return rank[codes], [names[i] for i in order]


def _sort_order(codes: npt.NDArray[np.int32], session_index: npt.NDArray[np.int32]) -> RowArray:
    """Rows by symbol, then session: two stable passes, the first one skipped where dates ascend already."""
    if (session_index[1:] >= session_index[:-1]).all():
        return _stable_argsort(codes)
    by_session = _stable_argsort(session_index)
    return by_session[_stable_argsort(codes[by_session])]


def _stable_argsort(keys: npt.NDArray[np.int32]) -> RowArray:
    # NumPy sorts 16-bit integers by radix, several times faster than wider ones.
    narrow = keys.astype(np.uint16) if keys.size and keys.max() < 2**16 else keys
    return np.argsort(narrow, kind="stable")
