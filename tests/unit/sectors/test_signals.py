"""Signals against pandas and the textbook, at the edges, and with a future that is tampered with."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from fixtures.returns import market_returns, stock_returns

from finance_assets.contracts.status import STATUSES, Status
from finance_assets.sectors import signals
from finance_assets.sectors.signals import Signal

NAN = math.nan


def levels_of(ticker: str, count: int = 1500) -> pd.Series:
    return (1 + stock_returns()[ticker].iloc[-count:]).cumprod()


def benchmark(index: pd.Index) -> pd.Series:
    return (1 + market_returns().reindex(index)).cumprod()


def test_the_trend_agrees_with_pandas() -> None:
    levels = levels_of("GE")
    found = signals.trend(levels)
    fast, slow = levels.rolling(50).mean(), levels.rolling(200).mean()
    fast[slow.isna()] = NAN
    np.testing.assert_allclose(found.value, fast, rtol=1e-10)
    np.testing.assert_allclose(found.reference, slow, rtol=1e-10)
    bullish = fast > slow
    wanted = np.where(slow.isna(), "", np.where(bullish, "bullish", "bearish"))
    np.testing.assert_array_equal(found.state, wanted)
    crosses = (bullish != bullish.shift()) & slow.notna() & slow.shift().notna()
    np.testing.assert_array_equal(found.changed, crosses)
    assert found.changed.sum() > 5
    # Since the last cross, or the first session on which there is a trend.
    starts = pd.Series(np.arange(levels.size), index=levels.index).where(crosses | (slow.notna() & slow.shift().isna()))
    np.testing.assert_array_equal(found.since, starts.ffill().fillna(-1).astype(int))
    assert {STATUSES[code] for code in found.status} == {Status.OK, Status.INSUFFICIENT_HISTORY}
    assert (found.status[:199] == Status.INSUFFICIENT_HISTORY.code).all()
    assert (found.status[199:] == Status.OK.code).all()


def test_momentum_leaves_out_the_last_month() -> None:
    levels = levels_of("JPM")
    found = signals.momentum(levels)
    np.testing.assert_allclose(found.value, levels.shift(21) / levels.shift(252) - 1, rtol=1e-12)
    assert (found.state[:252] == "").all()
    assert set(found.state[252:]) == {"positive", "negative"}
    flat = signals.momentum(np.ones(253))
    assert (flat.state[-1], flat.value[-1], flat.reference[-1]) == ("neutral", 0.0, 0.0)
    assert (signals.momentum(np.ones(252)).state == "").all()


def test_the_rotation_agrees_with_pandas() -> None:
    levels = levels_of("XOM")
    market = benchmark(levels.index)
    strength = 100 * levels / market
    ratio = 100 + (strength - strength.rolling(63).mean()) / strength.rolling(63).std()
    pace = 100 * (ratio / ratio.shift(21) - 1)
    speed = 100 + (pace - pace.rolling(63).mean()) / pace.rolling(63).std()
    found = signals.rotation(levels, market)
    np.testing.assert_allclose(found.value, ratio.where(speed.notna()), rtol=1e-9)
    np.testing.assert_allclose(found.reference, speed, rtol=1e-9)
    # METRICS B12: 63 + 21 + 62 levels.
    assert (found.state != "").argmax() == 145
    wanted = np.select(
        [(ratio >= 100) & (speed >= 100), ratio >= 100, speed >= 100], ["leading", "weakening", "improving"], "lagging"
    )
    np.testing.assert_array_equal(found.state[145:], wanted[145:])
    assert set(found.state[145:]) == set(signals.QUADRANTS)
    # Where the chain of a composite starts changes no quadrant: only ratios of levels count.
    np.testing.assert_array_equal(signals.rotation(levels * 7, market).state, found.state)


def test_the_regime_agrees_with_pandas() -> None:
    returns = stock_returns()["KO"].iloc[-1200:]
    found = signals.volatility_regime(returns)
    volatility = returns.rolling(30).std() * math.sqrt(252)
    rank = volatility.rolling(252).apply(
        lambda v: ((v[:-1] < v[-1]).sum() + 0.5 * (v[:-1] == v[-1]).sum()) / 251, raw=True
    )
    np.testing.assert_allclose(found.reference, rank, atol=1e-12)
    np.testing.assert_allclose(found.value, volatility.where(rank.notna()), rtol=1e-9)
    wanted = np.select([rank.isna(), rank >= 0.8, rank <= 0.2], ["", "high", "low"], "normal")
    np.testing.assert_array_equal(found.state, wanted)
    assert set(found.state[290:]) == set(signals.REGIMES)
    still = signals.volatility_regime(np.full(400, 0.01))
    assert (still.state[-1], still.reference[-1], still.value[-1]) == ("normal", 0.5, 0.0)


ALL: dict[str, Callable[[np.ndarray], Signal]] = {
    "trend": lambda returns: signals.trend(np.cumprod(1 + returns)),
    "momentum": lambda returns: signals.momentum(np.cumprod(1 + returns)),
    "rotation": lambda returns: signals.rotation(
        np.cumprod(1 + returns), benchmark(stock_returns().index[-returns.size :]).to_numpy()
    ),
    "volatility_regime": signals.volatility_regime,
}


@pytest.mark.parametrize("name", ALL)
def test_a_changed_future_does_not_move_the_past(name: str) -> None:
    returns = stock_returns()["PFE"].to_numpy()[-900:]
    before = ALL[name](returns)
    rng = np.random.default_rng(8)
    moved = 0
    for cut in (300, 500, 501, 777, 899):
        for future in (rng.normal(0, 0.1, 900), np.full(900, -0.99), np.full(900, 0.3), np.full(900, NAN)):
            if name != "volatility_regime" and np.isnan(future[0]):
                continue  # a level after a missing return is not known either
            changed = returns.copy()
            changed[cut:] = future[cut:]
            after = ALL[name](changed)
            for field in ("state", "since", "changed", "value", "reference", "status"):
                np.testing.assert_array_equal(getattr(after, field)[:cut], getattr(before, field)[:cut], err_msg=field)
            moved += not np.array_equal(after.reference[cut:], before.reference[cut:], equal_nan=True)
    # The future itself did move, so that the comparison means something.
    assert moved >= (0 if name == "momentum" else 10)


@pytest.mark.parametrize("name", ALL)
def test_a_signal_needs_nothing_of_what_follows(name: str) -> None:
    """Cut off after any session, the series says the same up to it, bit by bit."""
    returns = stock_returns()["PFE"].to_numpy()[-700:]
    whole = ALL[name](returns)
    for cut in (1, 146, 253, 300, 699):
        part = (
            signals.rotation(np.cumprod(1 + returns)[:cut], benchmark(stock_returns().index[-700:]).to_numpy()[:cut])
            if name == "rotation"
            else ALL[name](returns[:cut])
        )
        for field in ("state", "since", "changed", "value", "reference", "status"):
            np.testing.assert_array_equal(getattr(part, field), getattr(whole, field)[:cut], err_msg=field)


def test_missing_levels_are_left_out() -> None:
    levels = levels_of("KO", 400).to_numpy()
    holes = np.insert(levels, [0, 150, 300], NAN)
    found, whole = signals.trend(holes), signals.trend(levels)
    kept = ~np.isnan(holes)
    np.testing.assert_array_equal(found.state[kept], whole.state)
    np.testing.assert_array_equal(found.value[kept], whole.value)
    assert (found.state[~kept] == "").all()
    assert {STATUSES[code] for code in found.status[~kept]} == {Status.NO_DATA}
    assert (found.since[~kept] == -1).all()
    # A session without a level breaks no state: since counts in the series as given.
    defined = found.since[kept] >= 0
    np.testing.assert_array_equal(np.flatnonzero(kept)[whole.since[defined]], found.since[kept][defined])
    lost = signals.trend(np.r_[levels, 0.0, -1.0])
    assert (lost.state[-2:] == "").all()


def test_undefined_and_refused() -> None:
    for found in (signals.trend([]), signals.momentum([]), signals.rotation([], []), signals.volatility_regime([])):
        assert found.state.size == found.since.size == 0
    same = levels_of("KO", 300)
    rotation = signals.rotation(same, same)
    assert (rotation.state == "").all()
    assert STATUSES[rotation.status[-1]] is Status.ZERO_VARIANCE
    assert STATUSES[rotation.status[10]] is Status.INSUFFICIENT_HISTORY
    assert signals.trend(np.ones(200)).state[-1] == "neutral"
    with pytest.raises(ValueError, match="below slow"):
        signals.trend(same, 200, 50)
    with pytest.raises(ValueError, match="below year"):
        signals.momentum(same, 21, 252)
    with pytest.raises(ValueError, match="same sessions"):
        signals.rotation(same, same[1:])
    with pytest.raises(ValueError, match="one-dimensional"):
        signals.trend([[1.0]])


def test_runs() -> None:
    np.testing.assert_array_equal(signals.since(np.array(["a", "a", "b", "a", "a"])), [0, 0, 2, 3, 3])
    assert signals.since(np.array([], dtype="U1")).size == 0
