"""Clustering of volatility against statsmodels, arch and pandas, on real returns and at the edges."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fixtures.returns import market_returns, stock_returns
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.status import Status
from finance_assets.sectors import volatility

CASES = [("XOM", 4000), ("KO", 1000), ("JPM", 251)]


def returns_of(ticker: str, count: int) -> np.ndarray:
    return stock_returns()[ticker].to_numpy()[-count:]


def quiet(count: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.01, count)


@pytest.mark.filterwarnings("ignore:acorr_lm:FutureWarning")
@pytest.mark.parametrize(("ticker", "count"), CASES)
def test_tests_agree_with_statsmodels(ticker: str, count: int) -> None:
    from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
    from statsmodels.tsa.stattools import acf

    r = returns_of(ticker, count)
    np.testing.assert_allclose(volatility.autocorrelations(r), acf(np.abs(r), nlags=20, fft=False)[1:], rtol=1e-9)
    box = acorr_ljungbox((r - r.mean()) ** 2, lags=[10])
    found = volatility.ljung_box(r)
    assert found.statistic == pytest.approx(box["lb_stat"].iloc[0], rel=1e-9)
    assert found.p_value == pytest.approx(box["lb_pvalue"].iloc[0], rel=1e-8, abs=1e-300)
    lm, lm_p = het_arch((r - r.mean()) * 100, nlags=5)[:2]
    engle = volatility.arch_lm(r)
    assert engle.statistic == pytest.approx(lm, rel=1e-9)
    assert engle.p_value == pytest.approx(lm_p, rel=1e-8, abs=1e-300)


def test_garch_agrees_with_a_likelihood_of_our_own() -> None:
    """scipy on the likelihood as it is written in textbooks."""
    from scipy.optimize import minimize

    r = market_returns().to_numpy()[-2000:] * 100
    found = volatility.garch(r / 100)
    assert found.status is Status.OK
    assert found.alpha is not None and found.beta is not None and found.omega is not None  # noqa: PT018
    weights = 0.94 ** np.arange(75)
    weights /= weights.sum()

    def loss(p: np.ndarray) -> float:
        mu, omega, alpha, beta = p
        e2 = (r - mu) ** 2
        variance = float(weights @ e2[:75])
        total = 0.0
        for square in e2.tolist():
            total += math.log(variance) + square / variance
            variance = omega + alpha * square + beta * variance
        return 0.5 * total

    best = minimize(loss, [0.05, 0.05, 0.1, 0.85], bounds=[(-1, 1), (1e-6, 2), (0, 1), (0, 0.999)])
    assert found.omega * 1e4 == pytest.approx(best.x[1], rel=0.05)
    assert found.alpha == pytest.approx(best.x[2], abs=0.005)
    assert found.beta == pytest.approx(best.x[3], abs=0.005)
    assert found.persistence == found.alpha + found.beta
    assert found.half_life == pytest.approx(math.log(0.5) / math.log(found.persistence))


def test_garch_finds_what_was_put_in() -> None:
    rng = np.random.default_rng(11)
    omega, alpha, beta = 0.02, 0.08, 0.90
    variance, r = omega / (1 - alpha - beta), []
    for shock in rng.normal(size=8000):
        r.append(math.sqrt(variance) * shock)
        variance = omega + alpha * r[-1] ** 2 + beta * variance
    found = volatility.garch(np.array(r) / 100)
    assert (found.alpha, found.beta) == pytest.approx((alpha, beta), abs=0.02)
    # The variance that the model expects next, which is known here.
    assert found.volatility == pytest.approx(math.sqrt(variance * 252) / 100, rel=0.05)


@pytest.mark.parametrize("decay", [0.94, 0.9])
def test_ewma_agrees_with_pandas(decay: float) -> None:
    r = pd.Series(returns_of("GE", 700))
    r.iloc[[0, 100, 350]] = math.nan
    squares = r.dropna() ** 2
    seeded = pd.concat([pd.Series([squares.iloc[:30].mean()]), squares.iloc[30:]])
    seeded.index = squares.index[29:]
    wanted = np.sqrt(seeded.ewm(alpha=1 - decay, adjust=False).mean() * 252).reindex(r.index)
    found = volatility.ewma_volatility(r, decay)
    np.testing.assert_allclose(found, wanted, rtol=1e-11)
    # The future does not reach back.
    np.testing.assert_array_equal(volatility.ewma_volatility(r[:500], decay), found[:500])


def test_clusters_are_found_where_they_are() -> None:
    market = volatility.volatility_clustering(market_returns())
    assert market.is_clustered is True
    assert market.volatility_model == "garch"
    assert market.volatility == market.garch.volatility
    assert market.autocorrelations is not None
    assert len(market.autocorrelations) == 20
    assert volatility.volatility_clustering(quiet(2000)).is_clustered is False


def test_short_histories_fall_back_one_after_the_other() -> None:
    r = quiet(600)
    full = volatility.volatility_clustering(r)
    assert full.garch.status is Status.OK
    shorter = volatility.volatility_clustering(r[:499])
    assert shorter.garch.status is Status.INSUFFICIENT_HISTORY
    assert shorter.garch.alpha is None
    assert (shorter.volatility, shorter.volatility_model) == (shorter.ewma_volatility, "ewma")
    assert shorter.is_clustered is False
    short = volatility.volatility_clustering(r[:249])
    assert (short.ljung_box.status, short.arch_lm.status) == (Status.INSUFFICIENT_HISTORY,) * 2
    assert short.is_clustered is None
    assert short.autocorrelations is not None
    tiny = volatility.volatility_clustering(r[:20])
    assert (tiny.autocorrelations, tiny.volatility, tiny.volatility_model) == (None, None, None)
    assert tiny.acf_status is Status.INSUFFICIENT_HISTORY
    nothing = volatility.volatility_clustering([math.nan])
    assert (nothing.acf_status, nothing.garch.status) == (Status.NO_DATA, Status.NO_DATA)
    assert nothing.n_returns == 0


@pytest.mark.parametrize("level", [0.0, 0.01])
def test_returns_that_do_not_vary(level: float) -> None:
    found = volatility.volatility_clustering(np.full(600, level))
    assert found.acf_status is Status.ZERO_VARIANCE
    assert found.ljung_box.status is Status.ZERO_VARIANCE
    assert found.arch_lm.status is Status.ZERO_VARIANCE
    assert found.garch.status is Status.ZERO_VARIANCE
    assert found.is_clustered is None
    # No mean is removed, so a constant return has a size.
    assert found.volatility == pytest.approx(level * math.sqrt(252))


def test_an_optimiser_that_gives_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from types import SimpleNamespace

    import arch

    failed = SimpleNamespace(fit=lambda **_: SimpleNamespace(params=np.ones(4), convergence_flag=9))
    monkeypatch.setattr(arch, "arch_model", lambda *_, **__: failed)
    found = volatility.volatility_clustering(quiet(600))
    assert found.garch.status is Status.NOT_CONVERGED
    assert found.garch.half_life is None
    assert found.volatility_model == "ewma"


def test_alternating_sizes_vary_only_in_sign() -> None:
    """Equal sizes have no autocorrelation, and squared surprises none either."""
    r = np.tile([0.01, -0.01], 200)
    assert volatility.autocorrelations(r) is None
    assert volatility.ljung_box(r).status is Status.ZERO_VARIANCE
    assert volatility.arch_lm(r).status is Status.ZERO_VARIANCE


@settings(max_examples=25, deadline=None)
@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=330))
def test_never_a_number_that_is_none(returns: list[float]) -> None:
    for test in (volatility.ljung_box(returns), volatility.arch_lm(returns)):
        assert (test.statistic is None) == (test.status is not Status.OK)
        assert test.p_value is None or 0 <= test.p_value <= 1


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        volatility.ewma_volatility([0.1], decay=1.0)
