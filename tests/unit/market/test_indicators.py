"""Indicators against published numbers, plain-Python references, and the traps of TA-Lib."""

import math
import statistics
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.status import STATUSES, Status
from finance_assets.market import indicators
from finance_assets.market.indicators import (
    Indicator,
    historical_volatility,
    historical_volatility_with_status,
    price_indicators,
    rsi,
    rsi_with_status,
    sma,
    sma_with_status,
    volume_indicators,
    volume_modified_zscore,
    volume_modified_zscore_with_status,
    volume_zscore,
    volume_zscore_with_status,
    window_missing_sessions,
)
from finance_assets.reference.anomalies import MODIFIED_Z_THRESHOLD

# StockCharts ChartSchool, "Relative Strength Index (RSI)", spreadsheet of the worked example (QQQQ closes).
STOCKCHARTS_CLOSES = [
    *(44.3389, 44.0902, 44.1497, 43.6124, 44.3278, 44.8264, 45.0955, 45.4245, 45.8433, 46.0826, 45.8931),
    *(46.0328, 45.6140, 46.2820, 46.2820, 46.0028, 46.0328, 46.4116, 46.2222, 45.6439, 46.2122, 46.2521),
    *(45.7137, 46.4515, 45.7835, 45.3548, 44.0288, 44.1783, 44.2181, 44.5672, 43.4205, 42.6628, 43.1314),
]
STOCKCHARTS_RSI = [
    *(70.53, 66.32, 66.55, 69.41, 66.36, 57.97, 62.93, 63.26, 56.06, 62.38),
    *(54.71, 50.42, 39.99, 41.46, 41.87, 45.46, 37.30, 33.08, 37.77),
]

ALL: dict[str, Callable[..., npt.NDArray[np.float64]]] = {
    "rsi": rsi,
    "sma": sma,
    "historical_volatility": historical_volatility,
    "volume_zscore": volume_zscore,
    "volume_modified_zscore": volume_modified_zscore,
}
WITH_STATUS: dict[str, Callable[..., Indicator]] = {
    "rsi": rsi_with_status,
    "sma": sma_with_status,
    "historical_volatility": historical_volatility_with_status,
    "volume_zscore": volume_zscore_with_status,
    "volume_modified_zscore": volume_modified_zscore_with_status,
}


def walk(n: int, seed: int = 0, start: float = 50.0, sigma: float = 0.02) -> npt.NDArray[np.float64]:
    return start * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, sigma, n)))


def statuses(indicator: Indicator) -> list[str]:
    return [STATUSES[code].value for code in indicator.status.tolist()]


def reference_rsi(closes: list[float], period: int = 14) -> list[float]:
    """Wilder's definition, literally, in the form 100 - 100 / (1 + RS)."""
    changes = [b - a for a, b in pairwise(closes)]
    gains, losses = [max(c, 0.0) for c in changes], [max(-c, 0.0) for c in changes]
    out = [math.nan] * len(closes)
    if len(changes) < period:
        return out
    gain, loss = sum(gains[:period]) / period, sum(losses[:period]) / period
    for i in range(period, len(closes)):
        if i > period:
            gain = ((period - 1) * gain + gains[i - 1]) / period
            loss = ((period - 1) * loss + losses[i - 1]) / period
        if loss:
            out[i] = 100 - 100 / (1 + gain / loss)
        elif gain:
            out[i] = 100.0
    return out


def reference_volatility(closes: list[float], period: int = 30, year: float = 252) -> list[float]:
    returns = [math.log(b / a) for a, b in pairwise(closes)]
    out = [math.nan] * len(closes)
    for i in range(period, len(closes)):
        out[i] = statistics.stdev(returns[i - period : i]) * math.sqrt(year)
    return out


# -- RSI -----------------------------------------------------------------------------------------------------


def test_rsi_matches_the_published_worked_example() -> None:
    result = rsi(STOCKCHARTS_CLOSES)
    assert np.isnan(result[:14]).all()
    # The closes are published to 4 digits, the results to 2.
    np.testing.assert_allclose(result[14:], STOCKCHARTS_RSI, atol=0.006)
    assert result[-1] == pytest.approx(37.7730, abs=5e-5)


@pytest.mark.parametrize("period", [2, 3, 14, 21])
def test_rsi_matches_the_definition(period: int) -> None:
    closes = walk(400, seed=period).round(2)
    np.testing.assert_allclose(rsi(closes, period), reference_rsi(closes.tolist(), period), rtol=1e-12)


def test_rsi_of_only_gains_is_100_and_of_only_losses_is_0() -> None:
    up, down = np.arange(1.0, 31.0), np.arange(30.0, 0.0, -1.0)
    assert (rsi(up)[14:] == 100).all()
    assert (rsi(down)[14:] == 0).all()
    assert set(statuses(rsi_with_status(down))[14:]) == {"ok"}


def test_rsi_of_an_unchanged_price_is_undefined_until_it_moves() -> None:
    result = rsi_with_status([10.0] * 20 + [11.0, 10.5])
    assert np.isnan(result.values[:20]).all()
    assert statuses(result)[:14] == ["insufficient_history"] * 14
    assert statuses(result)[14:20] == ["no_movement"] * 6
    assert result.values[20] == 100
    # AG = 13/14 * 1/14, AL = 0.5/14
    assert result.values[21] == pytest.approx(100 * (13 / 14) / (13 / 14 + 0.5))


def test_rsi_survives_a_missing_close() -> None:
    """TA-Lib gives 0, a false oversold signal, from the first interior NaN to the end."""
    closes = np.array(STOCKCHARTS_CLOSES)
    with_gap = np.insert(closes, 20, np.nan)
    result = rsi_with_status(with_gap)
    assert statuses(result)[20] == "no_data"
    np.testing.assert_array_equal(np.delete(result.values, 20), rsi(closes))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 0.0, -1.0])
def test_unusable_closes_are_left_out(bad: float) -> None:
    closes = walk(120)
    spoiled = np.insert(closes, [0, 40, 40, 120], bad)
    for function in (rsi, sma):
        kept = np.delete(function(spoiled), [0, 41, 42, 123])
        np.testing.assert_array_equal(kept, function(closes))


@pytest.mark.parametrize("flat_sessions", [500, 30_000])
def test_rsi_keeps_its_value_through_a_long_halt(flat_sessions: int) -> None:
    """While the price stands still both averages shrink alike, so RSI stays until they would underflow."""
    closes = np.concatenate((STOCKCHARTS_CLOSES, np.full(flat_sessions, STOCKCHARTS_CLOSES[-1])))
    result = rsi_with_status(closes)
    np.testing.assert_allclose(result.values[32:], rsi(STOCKCHARTS_CLOSES)[-1], rtol=1e-12)
    assert set(statuses(result)[14:]) == {"ok"}
    # After the halt only the new movement counts.
    assert rsi(np.append(closes, closes[-1] * 1.01))[-1] == pytest.approx(100, abs=1e-9)
    assert rsi(np.append(closes, closes[-1] * 0.99))[-1] == pytest.approx(0, abs=1e-9)


def test_a_short_halt_in_a_restarted_recursion() -> None:
    """The exact recursion gives what the plain one gives where that one is still good."""
    closes = np.concatenate((walk(40), np.full(20, 7.0), walk(40, seed=1)))
    expected = reference_rsi(closes.tolist())
    np.testing.assert_allclose(indicators._wilder_rsi(closes, 14), expected, rtol=1e-12)


@pytest.mark.parametrize("scale", [1e-9, 1e-13, 1e-300, 1e-308, 1e9, 1e300, 3.5e306])
def test_rsi_does_not_depend_on_the_price_level(scale: float) -> None:
    closes = np.array(STOCKCHARTS_CLOSES)
    np.testing.assert_allclose(rsi(closes * scale), rsi(closes), rtol=1e-9)


def test_rsi_of_tiny_prices_through_a_halt() -> None:
    """The averages of such prices are soon below the normal range, where digits are lost."""
    closes = np.concatenate((STOCKCHARTS_CLOSES, np.full(300, STOCKCHARTS_CLOSES[-1])))
    np.testing.assert_allclose(rsi(closes * 1e-305), rsi(closes), rtol=1e-9)
    assert np.isnan(rsi([1e-305, 2e-305, 1e-305])).all()
    # Beside a price of 1, a change of the smallest double is no movement that could be divided by.
    assert np.isnan(rsi([5e-324] * 15 + [1e-323, 1.0])[:16]).all()


def test_rsi_of_changes_that_overflow_when_added() -> None:
    closes = np.tile([1.7e308, 8e307, 9e307], 9)
    np.testing.assert_allclose(rsi(closes), rsi(np.ldexp(closes, -1000)), rtol=1e-12)
    assert 40 < rsi(closes)[-1] < 60


def test_the_traps_of_talib_are_real() -> None:
    """Should TA-Lib mend these, the detour around it could go."""
    import talib

    closes = np.array(STOCKCHARTS_CLOSES)
    assert talib.RSI(np.full(30, 10.0), 14)[-1] == 0
    assert talib.RSI(np.insert(closes, 20, np.nan), 14)[-1] == 0
    assert talib.RSI(np.concatenate((closes, np.full(30_000, closes[-1]))), 14)[-1] == pytest.approx(50)
    assert not 0 < talib.RSI(np.tile([1.7e308, 8e307, 9e307], 9), 14)[-1] < 100


def test_rsi_does_not_rely_on_the_threshold_of_older_talib_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """C libraries before 0.8 take an average movement below 1e-14 for none and report 0."""

    def older(prices: npt.NDArray[np.float64], period: int) -> npt.NDArray[np.float64]:
        import talib

        values = talib.RSI(prices, period)
        changes = np.abs(np.diff(prices))
        mean = changes[:period].mean()
        for i in range(period, prices.size):
            mean = mean if i == period else ((period - 1) * mean + changes[i - 1]) / period
            values[i] = values[i] if mean >= 1e-14 else 0.0
        return values

    halted = np.concatenate((STOCKCHARTS_CLOSES, np.full(500, STOCKCHARTS_CLOSES[-1])))
    tiny = np.array(STOCKCHARTS_CLOSES) * 1e-14
    assert older(halted, 14)[-1] == older(tiny, 14)[-1] == 0
    expected_halted, expected_tiny = rsi(halted), rsi(tiny)
    monkeypatch.setattr(indicators, "_talib_rsi", lambda: older)
    np.testing.assert_allclose(rsi(halted), expected_halted, rtol=1e-12)
    np.testing.assert_allclose(rsi(tiny), expected_tiny, rtol=1e-12)


def test_rsi_ignores_global_settings_of_talib() -> None:
    import talib

    expected = rsi(walk(100))
    try:
        talib.set_unstable_period("RSI", 20)  # type: ignore[attr-defined]
        np.testing.assert_allclose(rsi(walk(100)), expected, rtol=1e-12)
    finally:
        talib.set_unstable_period("RSI", 0)  # type: ignore[attr-defined]


def test_rsi_with_a_period_beyond_talib() -> None:
    closes = walk(100_010, sigma=0.001)
    result = rsi(closes, 100_001)
    assert np.isnan(result[:100_001]).all()
    np.testing.assert_allclose(result[-3:], reference_rsi(closes.tolist(), 100_001)[-3:], rtol=1e-9)


# -- moving average ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [1, 2, 3, 7, 50, 64, 127])
def test_sma_is_the_mean_of_its_window(period: int) -> None:
    closes = walk(300, sigma=0.2)
    result = sma(closes, period)
    assert np.isnan(result[: period - 1]).all()
    expected = [math.fsum(closes[i - period + 1 : i + 1]) / period for i in range(period - 1, 300)]
    np.testing.assert_allclose(result[period - 1 :], expected, rtol=2e-15)


def test_sma_forgets_a_spike() -> None:
    """A running sum keeps the rounding error of the spike: 1e12 leaves about 1e-4 in every later mean."""
    closes = np.concatenate((np.full(60, 1e12), walk(200, start=1e-3)))
    expected = [math.fsum(closes[i - 49 : i + 1]) / 50 for i in range(120, 260)]
    np.testing.assert_allclose(sma(closes)[120:], expected, rtol=2e-15)


@pytest.mark.parametrize("price", [0.1, 1 / 3, 44.3389, 1e-9, 1e308])
def test_sma_of_a_constant_is_that_constant(price: float) -> None:
    assert (sma(np.full(123, price))[49:] == price).all()


def test_sma_status() -> None:
    closes = [1.0, 2.0, math.nan, 3.0, 4.0]
    result = sma_with_status(closes, 3)
    assert statuses(result) == ["insufficient_history"] * 2 + ["no_data", "ok", "ok"]
    np.testing.assert_array_equal(result.values, [np.nan, np.nan, np.nan, 2.0, 3.0])


# -- historical volatility -----------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [2, 5, 30, 33])
def test_volatility_matches_the_definition(period: int) -> None:
    closes = walk(200, seed=3)
    result = historical_volatility(closes, period, 260)
    np.testing.assert_allclose(result, reference_volatility(closes.tolist(), period, 260), rtol=1e-12)


def test_volatility_of_a_textbook_series() -> None:
    """Hull, "Estimating volatility from historical data": 20 returns, daily sd 0.01216, 19.3 % a year."""
    prices = [
        *(20.00, 20.10, 19.90, 20.00, 20.50, 20.25, 20.90, 20.90, 20.90, 20.75, 20.75),
        *(21.00, 21.10, 20.90, 20.90, 21.25, 21.40, 21.40, 21.25, 21.75, 22.00),
    ]
    result = historical_volatility(prices, period=20)
    assert result[-1] == pytest.approx(0.193, abs=5e-4)
    assert result[-1] / math.sqrt(252) == pytest.approx(0.01216, abs=5e-6)


@pytest.mark.parametrize("price", [100.0, 0.1, 1e-300, 1e300])
def test_volatility_of_a_constant_price_is_exactly_zero(price: float) -> None:
    result = historical_volatility_with_status([price] * 40)
    assert (result.values[30:] == 0.0).all()
    assert set(statuses(result)[30:]) == {"ok"}


def test_volatility_of_constant_growth_has_no_cancellation() -> None:
    """Means far above the spread: squares subtracted from squares would leave about 1e-8."""
    closes = 2.0 ** np.arange(60)
    assert historical_volatility(closes)[-1] < 1e-14


@pytest.mark.parametrize(("missed", "counts"), [(1, True), (4, True), (5, False), (40, False)])
def test_a_return_over_more_than_five_sessions_is_left_out(missed: int, counts: bool) -> None:
    before, after = walk(40, seed=1), walk(40, seed=2, start=500.0)
    closes = np.concatenate((before, np.full(missed, np.nan), after))
    returns = [*np.diff(np.log(before)), math.log(after[0] / before[-1]), *np.diff(np.log(after))]
    if not counts:
        del returns[39]
    result = historical_volatility_with_status(closes, period=30)
    expected = statistics.stdev(returns[-45:-15]) * math.sqrt(252)  # 15 sessions before the end
    assert result.values[-16] == pytest.approx(expected, rel=1e-12)
    assert statuses(result)[40 : 40 + missed] == ["no_data"] * missed
    first_after = result.values[40 + missed]
    if counts:
        assert first_after > 2 * result.values[39]
    else:
        assert first_after == result.values[39]  # no new return: the volatility known before


def test_volatility_needs_a_full_window_of_counting_returns() -> None:
    closes = np.insert(walk(31), 10, [np.nan] * 5)
    assert np.isnan(historical_volatility(closes)).all()
    assert np.isfinite(historical_volatility(np.append(closes, 50.0))[-1])
    only_gaps = np.full(200, np.nan)
    only_gaps[::10] = walk(20)
    assert set(statuses(historical_volatility_with_status(only_gaps, 2))) == {
        "no_data",
        "insufficient_history",
    }


def test_volatility_beyond_the_range_of_quotients() -> None:
    closes = [1e-200, 1e200, 1e-200, 1e200]
    step = math.log(1e200) - math.log(1e-200)
    wanted = statistics.stdev([step, -step, step]) * math.sqrt(252)
    assert historical_volatility(closes, 3)[-1] == pytest.approx(wanted, rel=1e-12)


# -- volume --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("period", [2, 3, 5, 20, 21])
def test_volume_scores_match_the_definitions(period: int) -> None:
    volumes = np.random.default_rng(5).lognormal(13, 1, 150).round()
    z, robust = volume_zscore(volumes, period), volume_modified_zscore(volumes, period)
    assert np.isnan(z[:period]).all()
    assert np.isnan(robust[:period]).all()
    for i in range(period, 150):
        window = volumes[i - period : i].tolist()
        median = statistics.median(window)
        mad = statistics.median(abs(v - median) for v in window)
        assert z[i] == pytest.approx((volumes[i] - statistics.fmean(window)) / statistics.stdev(window), rel=1e-12)
        assert robust[i] == pytest.approx(0.67449 * (volumes[i] - median) / mad, rel=1e-12)


def test_an_earlier_spike_masks_the_plain_score_only() -> None:
    rng = np.random.default_rng(0)
    volumes = rng.normal(1e6, 5e4, 40).round()
    volumes[30] = 2e7
    volumes[35] = 5e6  # still five times the usual
    z, robust = volume_zscore(volumes), volume_modified_zscore(volumes)
    assert z[30] > 3
    assert robust[30] > 3.5
    assert z[35] < 3
    assert robust[35] > 3.5


@pytest.mark.parametrize("name", ["AAPL", "IBM"])
def test_volume_scores_of_real_volumes_match_pandas(name: str) -> None:
    stocks = pytest.importorskip("bokeh_sampledata.stocks")
    volumes = pd.Series(getattr(stocks, name)["volume"], dtype=float)
    earlier = volumes.shift(1).rolling(20)
    expected = (volumes - earlier.mean()) / earlier.std()
    np.testing.assert_allclose(volume_zscore(volumes), expected, rtol=1e-9)
    median = earlier.median()
    mad = earlier.apply(lambda window: np.median(np.abs(window - np.median(window))), raw=True)
    robust = volume_modified_zscore(volumes)
    np.testing.assert_allclose(robust, 0.67449 * (volumes - median) / mad, rtol=1e-9)
    # Spikes come in clusters, which mask each other in the plain score.
    n_plain = int((expected >= indicators.VOLUME_Z_ANOMALY).sum())
    assert int((robust > MODIFIED_Z_THRESHOLD).sum()) > n_plain > 50


def test_volume_zero_is_an_observation_and_negative_is_not() -> None:
    volumes = [0.0, 2.0, 4.0, -5.0, 6.0]
    result = volume_zscore_with_status(volumes, 3)
    assert statuses(result) == ["insufficient_history"] * 3 + ["no_data", "ok"]
    assert result.values[4] == pytest.approx((6 - 2) / 2)


def test_a_window_without_spread_gives_no_score() -> None:
    constant = volume_zscore_with_status([1e9] * 25 + [2e9])
    assert statuses(constant)[20:] == ["zero_variance"] * 6
    mostly = [5.0] * 11 + [*range(1, 10)] + [7.0]
    result = volume_modified_zscore_with_status(mostly)
    assert statuses(result)[20] == "zero_variance"  # 12 of 20 are 5, so the MAD is 0 though they vary
    assert statuses(volume_zscore_with_status(mostly))[20] == "ok"
    # Rounding noise around a level is no spread either: sd 0.5 against 1e-12 of the mean.
    noisy = np.array([i % 2 for i in range(21)])
    assert volume_zscore_with_status(1e9 + noisy).status[-1] == Status.OK.code
    assert volume_zscore_with_status(1e15 + noisy).status[-1] == Status.ZERO_VARIANCE.code
    assert volume_zscore_with_status(noisy * 1e-13).status[-1] == Status.ZERO_VARIANCE.code


# -- properties ----------------------------------------------------------------------------------------------

prices = st.lists(
    st.floats(min_value=1e-4, max_value=1e5, allow_nan=False, allow_subnormal=False), min_size=0, max_size=90
)


@settings(max_examples=60, deadline=None)
@given(prices, st.sampled_from([2, 3, 5]), st.integers(-300, 300))
def test_scaling_by_a_power_of_two_changes_nothing(closes: list[float], period: int, power: int) -> None:
    scaled = np.ldexp(np.array(closes, dtype=float), power)
    np.testing.assert_allclose(rsi(scaled, period), rsi(closes, period), rtol=1e-9)
    np.testing.assert_array_equal(historical_volatility(scaled, period), historical_volatility(closes, period))
    np.testing.assert_array_equal(sma(scaled, period), np.ldexp(sma(closes, period), power))


@settings(max_examples=60, deadline=None)
@given(prices, st.sampled_from([2, 3, 14]))
def test_values_are_in_bounds_and_explained(closes: list[float], period: int) -> None:
    for name, function in WITH_STATUS.items():
        values, status = function(closes, period)
        assert values.dtype == np.float64
        assert status.dtype == np.int8
        assert values.shape == status.shape == (len(closes),)
        assert (np.isnan(values) == (status != Status.OK.code)).all(), name
        assert not np.isinf(values).any(), name
    strength = rsi(closes, period)
    strength = strength[~np.isnan(strength)]
    assert ((strength >= 0) & (strength <= 100)).all()
    np.testing.assert_allclose(rsi(closes, period), reference_rsi(closes, period), rtol=1e-7, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_missing_rows_only_leave_holes(data: st.DataObject) -> None:
    n = data.draw(st.integers(0, 120))
    closes = walk(n, seed=data.draw(st.integers(0, 99)))
    holes = np.array(data.draw(st.lists(st.integers(0, n), max_size=4)), dtype=int)
    wide = np.insert(closes, holes, np.nan)
    for name in ("rsi", "sma", "volume_zscore", "volume_modified_zscore"):
        result = ALL[name](wide, 5)
        np.testing.assert_array_equal(result[~np.isnan(wide)], ALL[name](closes, 5))
        assert np.isnan(result[np.isnan(wide)]).all()
    # At most 4 neighbours are missing, so no return spans more than 5 sessions.
    result = historical_volatility(wide, 5)
    np.testing.assert_array_equal(result[~np.isnan(wide)], historical_volatility(closes, 5))


@pytest.mark.parametrize("cut", [1, 7, 311, 1000])
def test_windows_do_not_depend_on_the_history_loaded(cut: int) -> None:
    closes = walk(1500, sigma=0.3)  # runs over many orders of magnitude
    for name, warm_up in {"sma": 49, "historical_volatility": 30, "volume_zscore": 20}.items():
        function = ALL[name]
        full, part = function(closes)[cut:], function(closes[cut:])
        np.testing.assert_array_equal(part[warm_up:], full[warm_up:])


def test_rsi_reloaded_from_400_rows_agrees() -> None:
    closes = walk(3000)
    full = rsi(closes)
    for end in range(500, 3000, 97):
        assert rsi(closes[end - 400 : end])[-1] == pytest.approx(full[end - 1], abs=1e-8)


# -- what callers may pass -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ALL)
def test_accepted_inputs(name: str) -> None:
    function = ALL[name]
    array = walk(60).round()
    expected = function(array, 5)
    frozen = array.copy()
    frozen.setflags(write=False)
    strided = np.repeat(array, 2)[::2]
    same = [
        *(
            array.tolist(),
            tuple(array),
            array.astype(int).tolist(),
            array.astype(np.float32),
            frozen,
            strided,
        ),
        *(pd.Series(array), pd.Series(array, dtype="Float64"), pa.array(array), pa.chunked_array([array])),
        [Decimal(int(v)) for v in array],
    ]
    for values in same:
        np.testing.assert_array_equal(function(values, 5), expected)
    with_null = [None, *array.tolist()]
    masked = np.ma.masked_array(np.insert(array, 0, 1e6), mask=[True] + [False] * 60)
    for values in (with_null, pd.Series(with_null, dtype="Float64"), pa.array(with_null), masked):
        result = function(values, 5)
        assert np.isnan(result[0])
        np.testing.assert_array_equal(result[1:], expected)


@pytest.mark.parametrize("name", ALL)
def test_short_and_empty_inputs(name: str) -> None:
    function = ALL[name]
    for n in range(3):
        result = function(np.full(n, 7.0), 5)
        assert result.shape == (n,)
        assert result.dtype == np.float64
        assert np.isnan(result).all()
    assert np.isnan(function([math.nan] * 30, 5)).all()


@pytest.mark.parametrize("name", ALL)
def test_inputs_are_left_alone(name: str) -> None:
    closes = walk(80)
    before = closes.copy()
    ALL[name](closes, 5)
    np.testing.assert_array_equal(closes, before)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("values", [5.0, [[1.0, 2.0]], np.ones((3, 1)), ["a"], "12", [[1.0], [1.0, 2.0]]])
def test_refused_inputs(name: str, values: object) -> None:
    with pytest.raises(ValueError, match="one-dimensional"):
        ALL[name](values)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("period", [0, -3, 2.5, True, "14", None])
def test_refused_periods(name: str, period: object) -> None:
    with pytest.raises(ValueError, match="period must be an integer"):
        ALL[name]([1.0, 2.0], period)


def test_a_period_of_one_is_an_average_only() -> None:
    np.testing.assert_array_equal(sma([3.0, 4.0], 1), [3.0, 4.0])
    for name in ALL.keys() - {"sma"}:
        with pytest.raises(ValueError, match="at least 2"):
            ALL[name]([1.0, 2.0], 1)


@pytest.mark.parametrize("year", [0, -252, math.nan, math.inf])
def test_refused_year(year: float) -> None:
    with pytest.raises(ValueError, match="sessions_per_year"):
        historical_volatility([1.0, 2.0], sessions_per_year=year)


def test_importing_is_light() -> None:
    code = (
        "import sys, finance_assets.market.indicators;"
        "print([m for m in ('pandas', 'talib', 'polars', 'pyarrow', 'dagster') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# -- panels --------------------------------------------------------------------------------------------------


def random_panel(
    seed: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.int32], npt.NDArray[np.float64]]:
    """Tickers of many lengths, with missed rows (not in the panel) and unusable closes (in it as NaN)."""
    rng = np.random.default_rng(seed)
    offsets, closes, sessions, volumes = [0], [], [], []
    for length in [0, 1, 2, 14, 15, 16, 30, 31, 50, 0, 120, *rng.integers(0, 300, 12), 0]:
        present = np.sort(rng.choice(length + 60, length, replace=False)) + rng.integers(0, 1000)
        close = walk(length, seed=int(rng.integers(10**6)))
        close[rng.random(length) < 0.03] = rng.choice([np.nan, 0.0, -1.0, np.inf])
        if length > 100 and rng.random() < 0.5:
            close[20:] = 7.0  # a halt: the exact recursion takes over
        volume = rng.lognormal(10, 1, length).round()
        volume[rng.random(length) < 0.05] = np.nan
        offsets.append(offsets[-1] + length)
        closes.append(close)
        sessions.append(present)
        volumes.append(volume)
    return (
        np.array(offsets),
        np.concatenate(closes),
        np.concatenate(sessions).astype(np.int32),
        np.concatenate(volumes),
    )


@pytest.mark.parametrize("group_rows", [1, 500, 1 << 17])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_a_panel_equals_its_series(seed: int, group_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(indicators, "_GROUP_ROWS", group_rows)
    offsets, close, sessions, volume = random_panel(seed)
    other = close * 1.7
    panel = price_indicators(offsets, close, other, sessions, rsi_period=5, volatility_period=7)
    volumes = volume_indicators(offsets, volume)
    for start, stop in pairwise(offsets.tolist()):
        rows = slice(start, stop)
        own = sessions[rows] - (sessions[start] if stop > start else 0)
        calendar = np.full(int(own[-1]) + 1 if own.size else 0, np.nan)
        calendar_other = calendar.copy()
        calendar[own], calendar_other[own] = close[rows], other[rows]
        for got, want in (
            (panel.rsi, rsi_with_status(calendar, 5)),
            (panel.sma, sma_with_status(calendar, 50)),
            (panel.historical_volatility, historical_volatility_with_status(calendar_other, 7)),
        ):
            np.testing.assert_array_equal(got.values[rows], want.values[own])
            np.testing.assert_array_equal(got.status[rows], want.status[own])
        for got, want in (
            (volumes.zscore, volume_zscore_with_status(volume[rows])),
            (volumes.modified_zscore, volume_modified_zscore_with_status(volume[rows])),
        ):
            np.testing.assert_array_equal(got.values[rows], want.values)
            np.testing.assert_array_equal(got.status[rows], want.status)


def test_a_panel_without_session_index_takes_rows_as_sessions() -> None:
    closes = np.concatenate((walk(60), walk(70, seed=1)))
    panel = price_indicators([0, 60, 130], closes, closes)
    np.testing.assert_array_equal(panel.historical_volatility.values[60:], historical_volatility(closes[60:]))
    np.testing.assert_array_equal(panel.rsi.values[:60], rsi(closes[:60]))


def test_an_empty_panel() -> None:
    for offsets in ([0], [0, 0, 0]):
        panel = price_indicators(offsets, [], [], np.zeros(0, dtype=int))
        assert all(part.values.size == part.status.size == 0 for part in panel)
        assert all(part.values.size == 0 for part in volume_indicators(offsets, []))


@pytest.mark.parametrize("kind", [np.int64, np.uint32, np.int16, np.uint8])
def test_session_ordinals_of_any_integer_type(kind: type) -> None:
    closes = np.concatenate((walk(40), walk(40, seed=1)))
    sessions = np.tile(np.delete(np.arange(48), range(20, 28)), 2)
    expected = price_indicators([0, 40, 80], closes, closes, sessions.astype(np.int32), volatility_period=5)
    got = price_indicators([0, 40, 80], closes, closes, sessions.astype(kind), volatility_period=5)
    np.testing.assert_array_equal(got.historical_volatility.values, expected.historical_volatility.values)


def test_narrow_session_ordinals_do_not_wrap_around() -> None:
    closes = walk(40)
    sessions = np.concatenate((np.arange(-120, -100), np.arange(100, 120))).astype(np.int8)
    got = price_indicators([0, 40], closes, closes, sessions, volatility_period=5).historical_volatility
    assert got.values[20] == got.values[19]  # the return over 201 sessions is left out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 3], [1.0] * 3, [1.0] * 3), "start at 0"),
        (([0, 3, 2], [1.0] * 2, [1.0] * 2), "never descend"),
        (([0, 3], [1.0] * 2, [1.0] * 3), "close_split_adjusted has 2 rows"),
        (([0, 3], [1.0] * 3, [1.0] * 4), "close_total_return has 4 rows"),
        (([0.0, 3.0], [1.0] * 3, [1.0] * 3), "integers"),
        (([], [], []), "integers"),
        (([0, 3], [1.0] * 3, [1.0] * 3, [1, 2]), "session_index must hold 3"),
        (([0, 3], [1.0] * 3, [1.0] * 3, [1.0, 2.0, 3.0]), "integers"),
        (([0, 3], [1.0] * 3, [1.0] * 3, [1, 3, 3]), "row 2 is not after row 1"),
    ],
)
def test_refused_panels(arguments: tuple[object, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        price_indicators(*arguments)  # type: ignore[arg-type]


def test_sessions_may_start_again_with_the_next_ticker() -> None:
    price_indicators([0, 2, 2, 4], [1.0] * 4, [1.0] * 4, [7, 8, 1, 2])


def test_missing_sessions_inside_the_window() -> None:
    observed = [True, True, False, True, True, True, False, False, True]
    got = window_missing_sessions(observed, 3)
    np.testing.assert_array_equal(got, [-1, -1, -1, 1, 1, 0, -1, -1, 2])
    panel = window_missing_sessions([True] * 6, 2, offsets=[0, 3, 6], session_index=np.array([10, 11, 15, 3, 5, 6]))
    np.testing.assert_array_equal(panel, [-1, 0, 3, -1, 1, 0])
    assert window_missing_sessions([], 3).size == 0
    np.testing.assert_array_equal(window_missing_sessions([True, False], 3), [-1, -1])


def test_status_codes_round_trip() -> None:
    assert [STATUSES[status.code] for status in Status] == list(Status)
    assert Status.OK.code == 0
    assert len(Status) == 12
