"""Correlations against pandas, on real returns and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fixtures.returns import market_returns, stock_returns
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.status import STATUSES, Status
from finance_assets.sectors import correlations


def gappy() -> tuple[pd.Series, pd.Series]:
    first = stock_returns()["XOM"].iloc[:800].copy()
    second = market_returns().reindex(first.index).copy()
    first.iloc[[3, 100, 101, 400]] = math.nan
    second.iloc[[3, 250, 799]] = math.nan
    return first, second


@pytest.mark.parametrize("window", [30, 252])
def test_rolling_agrees_with_pandas(window: int) -> None:
    first, second = gappy()
    both = pd.concat([first, second], axis=1).dropna()
    wanted = both.iloc[:, 0].rolling(window).corr(both.iloc[:, 1]).reindex(first.index)
    found = correlations.rolling_correlations(first, second, window)
    np.testing.assert_allclose(found.value, wanted, rtol=1e-9, atol=1e-12)
    statuses = {STATUSES[code] for code in found.status}
    assert statuses == {Status.OK, Status.NO_DATA, Status.INSUFFICIENT_HISTORY}
    assert (np.isnan(found.value) == (found.status != Status.OK.code)).all()


def test_expanding_agrees_with_pandas_and_does_not_look_ahead() -> None:
    first, second = gappy()
    both = pd.concat([first, second], axis=1).dropna()
    wanted = both.iloc[:, 0].expanding(30).corr(both.iloc[:, 1]).reindex(first.index)
    found = correlations.expanding_correlations(first, second)
    np.testing.assert_allclose(found.value, wanted, rtol=1e-10)
    np.testing.assert_array_equal(
        correlations.expanding_correlations(first[:500], second[:500]).value, found.value[:500]
    )
    last = correlations.correlation(first[:-1], second[:-1])
    assert found.value[-2] == pytest.approx(last, rel=1e-12)


def test_the_matrix_agrees_with_pandas() -> None:
    table = stock_returns().iloc[-600:, :6].copy()
    table.iloc[:100, 2] = math.nan
    table.iloc[:580, 5] = math.nan
    found = correlations.correlation_matrix(table)
    np.testing.assert_allclose(found, table.corr(min_periods=30), rtol=1e-12, atol=1e-15)
    assert (np.diag(found)[:5] == 1.0).all()
    assert np.isnan(found[5]).all()
    np.testing.assert_array_equal(found, found.T)


def test_undefined() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(2, 30))
    assert correlations.correlation(a, b) is not None
    assert correlations.correlation(a[1:], b[1:]) is None
    assert correlations.correlation(np.r_[a, math.nan], np.r_[b, 0.1]) == correlations.correlation(a, b)
    assert correlations.correlation(a, np.full(30, 0.01)) is None
    assert correlations.correlation([], []) is None
    assert correlations.correlation(a, a) == pytest.approx(1.0, abs=1e-15)
    assert correlations.correlation(a, -a / 10) == pytest.approx(-1.0, abs=1e-15)
    still = correlations.rolling_correlations(np.full(40, 0.01), rng.normal(size=40) / 100)
    assert {STATUSES[code] for code in still.status} == {Status.INSUFFICIENT_HISTORY, Status.ZERO_VARIANCE}
    still = correlations.expanding_correlations(np.full(40, 0.013), rng.normal(size=40) / 100)
    assert {STATUSES[code] for code in still.status} == {Status.INSUFFICIENT_HISTORY, Status.ZERO_VARIANCE}
    with pytest.raises(ValueError, match="same sessions"):
        correlations.rolling_correlations(a, b[1:])
    with pytest.raises(ValueError, match="sessions x series"):
        correlations.correlation_matrix(a)
    with pytest.raises(ValueError, match="at least 2"):
        correlations.rolling_correlations(a, b, 1)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(-0.9, 0.9), st.floats(-0.9, 0.9)), min_size=30, max_size=60))
def test_always_between_minus_one_and_one(pairs: list[tuple[float, float]]) -> None:
    first, second = (np.array(values) for values in zip(*pairs, strict=True))
    for found in (
        correlations.rolling_correlations(first, second),
        correlations.expanding_correlations(first, second),
    ):
        defined = found.value[~np.isnan(found.value)]
        assert (np.abs(defined) <= 1).all()
        assert ((found.status == Status.OK.code) == ~np.isnan(found.value)).all()
