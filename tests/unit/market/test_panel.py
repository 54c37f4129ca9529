"""Panels from Arrow tables: grouping, sorting, calendars, decimals, and the way back."""

from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from finance_assets.contracts.status import Status
from finance_assets.market.adjustments import CorporateAction, total_return_adjusted
from finance_assets.market.indicators import Indicator, historical_volatility, rsi, volume_zscore
from finance_assets.market.panel import Panel, column_to_floats, indicator_to_arrow

DAY_0 = np.datetime64("2024-01-01")


def quotes(n_tickers: int = 4, n_sessions: int = 70, seed: int = 0) -> pa.Table:
    """Quotes sorted by symbol and session; prices with 8 decimals; weekends in the dates."""
    rng = np.random.default_rng(seed)
    sessions = np.busday_offset(DAY_0, np.arange(n_sessions))
    close = 50 * np.exp(np.cumsum(rng.normal(0, 0.02, (n_tickers, n_sessions)), axis=1)).ravel()
    symbols = np.repeat([f"T{i}" for i in range(n_tickers)], n_sessions)
    return pa.table(
        {
            "symbol": pa.array(symbols).dictionary_encode(),
            "session_date": np.tile(sessions, n_tickers),
            "close": pa.array([Decimal(f"{c:.8f}") for c in close], type=pa.decimal128(18, 8)),
            "volume": rng.integers(1000, 10**7, close.size),
        }
    )


def test_a_sorted_table_is_taken_as_it_is() -> None:
    table = quotes()
    panel = Panel.from_arrow(table, ["close", "volume"])
    assert panel.order is None
    assert panel.symbols == ("T0", "T1", "T2", "T3")
    np.testing.assert_array_equal(panel.offsets, [0, 70, 140, 210, 280])
    np.testing.assert_array_equal(panel.dates, table["session_date"].to_numpy())
    np.testing.assert_array_equal(panel.session_index, np.tile(np.arange(70), 4))
    np.testing.assert_array_equal(panel.columns["volume"], table["volume"].to_numpy())
    assert panel.n_rows == 280


@pytest.mark.parametrize("layout", ["by_date", "random", "descending", "interleaved_runs"])
@pytest.mark.parametrize("symbols", ["dictionary", "text", "large"])
def test_any_order_of_rows_gives_the_same(layout: str, symbols: str) -> None:
    table = quotes()
    if symbols != "dictionary":
        kind = pa.string() if symbols == "text" else pa.large_string()
        table = table.set_column(0, "symbol", table["symbol"].cast(pa.string()).cast(kind))
    by_symbol = Panel.from_arrow(table, ["close"])
    rng = np.random.default_rng(1)
    order = {
        "by_date": np.arange(280).reshape(4, 70).T.ravel(),
        "random": rng.permutation(280),
        "descending": np.arange(280)[::-1],
        "interleaved_runs": np.r_[0:30, 70:210, 30:70, 210:280],
    }[layout]
    shuffled = table.take(pa.array(order))
    panel = Panel.from_arrow(shuffled, ["close"])
    assert panel.order is not None
    assert panel.symbols == by_symbol.symbols
    for name in ("offsets", "days", "session_index"):
        np.testing.assert_array_equal(getattr(panel, name), getattr(by_symbol, name))
    np.testing.assert_array_equal(panel.columns["close"], by_symbol.columns["close"])
    back = panel.in_table_order(panel.columns["close"])
    np.testing.assert_array_equal(back, column_to_floats(shuffled["close"]))
    strength = panel.price_indicators("close", "close").rsi.values
    expected = by_symbol.price_indicators("close", "close").rsi.values[order]
    np.testing.assert_array_equal(panel.in_table_order(strength), expected)


def test_contiguous_tickers_keep_the_order_of_the_table() -> None:
    table = quotes(3, 5)
    table = pa.concat_tables([table.slice(10, 5), table.slice(0, 5), table.slice(5, 5)])
    panel = Panel.from_arrow(table, ["close"])
    assert panel.order is None
    assert panel.symbols == ("T2", "T0", "T1")
    np.testing.assert_array_equal(panel.columns["close"], column_to_floats(table["close"]))


def test_chunks_with_dictionaries_of_their_own(tmp_path: Any) -> None:
    table = quotes(6, 40)
    plain = table.set_column(0, "symbol", table["symbol"].cast(pa.string()))
    pq.write_table(plain, tmp_path / "quotes.parquet", row_group_size=33)
    read = pq.read_table(tmp_path / "quotes.parquet", read_dictionary=["symbol"])
    pieces = pa.concat_tables([plain.slice(i, 33) for i in range(0, 240, 33)])
    encoded = pa.table({**{n: read[n] for n in read.column_names}})
    for source in (read, pieces, encoded):
        panel = Panel.from_arrow(source, ["close"])
        assert panel.symbols == tuple(f"T{i}" for i in range(6))
        np.testing.assert_array_equal(panel.columns["close"], column_to_floats(table["close"]))
    by_date = plain.take(pa.array(np.arange(240).reshape(6, 40).T.ravel()))
    parts = pa.concat_tables(
        [
            by_date.slice(i, 6).set_column(0, "symbol", by_date.slice(i, 6)["symbol"].dictionary_encode())
            for i in range(0, 240, 6)
        ]
    )
    np.testing.assert_array_equal(Panel.from_arrow(parts, ["close"]).columns["close"], column_to_floats(table["close"]))


def test_a_dictionary_may_repeat_a_symbol_or_hold_unused_ones() -> None:
    symbol = pa.DictionaryArray.from_arrays(pa.array([3, 3, 1, 2], type=pa.int8()), pa.array(["X", "A", "A", "B"]))
    table = pa.table({"symbol": symbol, "session_date": DAY_0 + np.array([0, 1, 0, 1]), "close": [1.0] * 4})
    panel = Panel.from_arrow(table, ["close"])
    assert panel.symbols == ("B", "A")
    np.testing.assert_array_equal(panel.offsets, [0, 2, 4])


def test_a_split_ticker_is_noticed_beside_unused_symbols() -> None:
    symbol = pa.DictionaryArray.from_arrays(pa.array([0, 1, 0], type=pa.int32()), pa.array(["A", "B", "C"]))
    table = pa.table({"symbol": symbol, "session_date": DAY_0 + np.arange(3), "close": [1.0, 2.0, 3.0]})
    panel = Panel.from_arrow(table, ["close"])
    assert panel.symbols == ("A", "B")
    np.testing.assert_array_equal(panel.columns["close"], [1.0, 3.0, 2.0])


def test_results_equal_those_of_the_single_series() -> None:
    table = quotes()
    keep = np.ones(280, dtype=bool)
    keep[[5, 80, 81, 82, 83, 84, 85, 86, 150]] = False
    panel = Panel.from_arrow(table.filter(pa.array(keep)), ["close", "volume"])
    result = panel.price_indicators("close", "close", volatility_period=20)
    scores = panel.volume_indicators("volume")
    closes = np.where(keep, column_to_floats(table["close"]), np.nan)
    for i in range(4):
        session = closes[70 * i : 70 * i + 70]
        rows = slice(panel.offsets[i], panel.offsets[i + 1])
        seen = ~np.isnan(session)
        np.testing.assert_array_equal(result.rsi.values[rows], rsi(session)[seen])
        np.testing.assert_array_equal(
            result.historical_volatility.values[rows], historical_volatility(session, 20)[seen]
        )
        np.testing.assert_array_equal(scores.zscore.values[rows], volume_zscore(panel.columns["volume"][rows]))


def test_sessions_that_every_ticker_missed_are_known_from_the_calendar_only() -> None:
    table = quotes(2, 70)
    keep = np.tile(~np.isin(np.arange(70), np.arange(30, 37)), 2)
    partial = table.filter(pa.array(keep))
    calendar = table["session_date"].to_numpy()[:70]
    blind, aware = Panel.from_arrow(partial, ["close"]), Panel.from_arrow(partial, [], calendar=calendar)
    assert np.diff(blind.session_index[:63]).max() == 1
    assert np.diff(aware.session_index[:63]).max() == 8
    np.testing.assert_array_equal(aware.session_index[:63], np.flatnonzero(keep[:70]))
    longer = np.concatenate((calendar[:1] - 30, calendar, calendar[-1:] + 30))
    np.testing.assert_array_equal(Panel.from_arrow(partial, [], calendar=longer).session_index, aware.session_index)
    with pytest.raises(ValueError, match=f"{calendar[3]} is not a session"):
        Panel.from_arrow(partial, [], calendar=np.delete(calendar, 3))


def test_empty_tables() -> None:
    for table in (quotes().slice(0, 0), quotes().schema.empty_table()):
        panel = Panel.from_arrow(table, ["close"])
        assert panel.symbols == ()
        assert panel.n_rows == 0
        assert panel.price_indicators("close", "close").rsi.values.size == 0


def test_refused_tables() -> None:
    table = quotes(2, 5)
    with pytest.raises(ValueError, match="T1 has more than one row for 2024-01-02"):
        Panel.from_arrow(pa.concat_tables([table, table.slice(6, 1)]), ["close"])
    with pytest.raises(ValueError, match="T0 has more than one row for 2024-01-01"):
        Panel.from_arrow(pa.concat_tables([table.slice(0, 1), table]), ["close"])
    with pytest.raises(ValueError, match="symbol must not be null"):
        Panel.from_arrow(table.set_column(0, "symbol", pa.array([None] * 10, type=pa.string())), [])
    with pytest.raises(ValueError, match="dates must not be null"):
        Panel.from_arrow(table.set_column(1, "session_date", pa.array([None] * 10, type=pa.date32())), [])
    with pytest.raises(TypeError, match="date type"):
        Panel.from_arrow(table.set_column(1, "session_date", pa.array(range(10))), [])
    with pytest.raises(TypeError, match="numeric"):
        Panel.from_arrow(table, ["symbol"])


# -- decimals ------------------------------------------------------------------------------------------------

DECIMALS = ["0.1", "-0.1", "123456789.12345678", "-0.00000001", None, "9999999999.99999999", "0", "44.86"]


@pytest.mark.parametrize("precision", [18, 20, 38])
def test_decimals_become_the_nearest_doubles(precision: int) -> None:
    values = [None if d is None else Decimal(d) for d in DECIMALS]
    column = pa.chunked_array([values[:3], values[3:5], [], values[5:]], type=pa.decimal128(precision, 8))
    expected = [np.nan if d is None else float(d) for d in DECIMALS]
    exactly = precision == 18
    np.testing.assert_allclose(column_to_floats(column), expected, rtol=0 if exactly else 1e-15)
    np.testing.assert_allclose(column_to_floats(column.slice(1, 5)), expected[1:6], rtol=0 if exactly else 1e-15)
    np.testing.assert_allclose(
        column_to_floats(column.combine_chunks().slice(2, 4)), expected[2:6], rtol=0 if exactly else 1e-15
    )


def test_decimals_beyond_64_bits() -> None:
    values = [Decimal(10) ** 25, -(Decimal(10) ** 25), None]
    column = pa.array(values, type=pa.decimal128(38, 8))
    np.testing.assert_allclose(column_to_floats(column), [1e25, -1e25, np.nan], rtol=1e-15)


def test_every_price_with_15_digits_is_read_exactly() -> None:
    """Arrow's own cast is off in the last digit for about one price in seven."""
    whole = np.random.default_rng(0).integers(-(10**15), 10**15, 20_000)
    column = pa.array([Decimal(int(w)).scaleb(-8) for w in whole], type=pa.decimal128(18, 8))
    expected = np.array([float(Decimal(int(w)).scaleb(-8)) for w in whole])
    np.testing.assert_array_equal(column_to_floats(column), expected)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([1, None, 3], type=pa.int64()),
        pa.array([1.0, None, 3.0]),
        pa.array([1, None, 3], type=pa.uint8()),
        pa.array([1.0, None, 3.0], type=pa.float32()),
        pa.array([Decimal(1), None, Decimal(3)], type=pa.decimal256(50, 2)),
        pa.array([Decimal(1), None, Decimal(3)], type=pa.decimal128(18, 0)),
        pa.chunked_array([[1], [None, 3]]),
    ],
)
def test_null_becomes_nan(column: Any) -> None:
    result = column_to_floats(column)
    assert result.dtype == np.float64
    np.testing.assert_array_equal(result, [1.0, np.nan, 3.0])


def test_a_column_of_nulls() -> None:
    np.testing.assert_array_equal(column_to_floats(pa.nulls(3, pa.decimal128(18, 8))), np.full(3, np.nan))
    assert column_to_floats(pa.chunked_array([], type=pa.decimal128(18, 8))).size == 0


# -- actions and results -------------------------------------------------------------------------------------


def test_factors_from_a_table_of_actions() -> None:
    panel = Panel.from_arrow(quotes(3, 30), ["close"])
    actions = pa.table(
        {
            "symbol": ["T2", "T9", "T0", "T2", "T1"],
            "ex_date": DAY_0 + np.array([14, 3, 4, 21, 7]),
            "split_ratio": pa.array([2.0, 2.0, None, None, -1.0]),
            "cash_amount": pa.array([None, None, Decimal("0.5"), Decimal("0.25"), None], type=pa.decimal128(18, 8)),
        }
    )
    factors = panel.adjustment_factors("close", actions)
    np.testing.assert_array_equal(factors.rejected, [False, False, False, False, True])
    for i, own in {
        0: [CorporateAction(DAY_0 + 4, "dividend", 0.5)],
        2: [CorporateAction(DAY_0 + 14, "split", 2), CorporateAction(DAY_0 + 21, "dividend", 0.25)],
    }.items():
        rows = slice(30 * i, 30 * i + 30)
        close = panel.columns["close"][rows]
        np.testing.assert_array_equal(
            close * factors.total_return[rows], total_return_adjusted(close, own, dates=panel.dates[rows])
        )
    adjusted = panel.with_columns({"close_total_return": panel.columns["close"] * factors.total_return})
    values, status = adjusted.price_indicators("close", "close_total_return", volatility_period=5)[2]
    assert status[30] == Status.NO_DATA.code
    assert np.isnan(values[30])
    with pytest.raises(ValueError, match="has shape"):
        panel.with_columns({"x": np.zeros(3)})
    no_actions = panel.adjustment_factors("close", actions.slice(0, 0))
    np.testing.assert_array_equal(no_actions.total_return, np.ones(90))


def test_an_indicator_as_columns() -> None:
    codes: npt.NDArray[np.int8] = np.array([Status.OK.code, Status.NO_DATA.code, Status.OK.code], dtype=np.int8)
    values, status = indicator_to_arrow(Indicator(np.array([1.5, np.nan, 0.0]), codes))
    assert values.to_pylist() == [1.5, None, 0.0]
    assert status.to_pylist() == ["ok", "no_data", "ok"]
    assert pc.count(status, mode="only_null").as_py() == 0
