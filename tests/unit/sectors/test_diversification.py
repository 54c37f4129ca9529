"""Portfolio weights against scipy's optimiser and closed forms, and how diversified they are."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from fixtures.returns import stock_returns
from scipy.optimize import minimize

from finance_assets.contracts.status import Status
from finance_assets.sectors import diversification
from finance_assets.sectors.diversification import METHODS

TICKERS = ["XOM", "JPM", "JNJ", "KO", "WMT", "GE"]


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    return stock_returns().loc["2015-01-02":"2018-12-31", TICKERS]


def weights(table: pd.DataFrame, method: str) -> pd.Series[float]:
    found = diversification.weights(table, method)
    assert found is not None
    return found


@pytest.mark.parametrize("method", METHODS)
def test_weights_are_long_only_and_add_up(table: pd.DataFrame, method: str) -> None:
    found = weights(table, method)
    assert list(found.index) == TICKERS
    assert found.sum() == pytest.approx(1.0, abs=1e-12)
    assert (found >= 0).all()
    pd.testing.assert_series_equal(found, weights(table, method))
    by_position = diversification.weights(table.to_numpy(), method)
    assert by_position is not None
    np.testing.assert_array_equal(by_position, found)


def best(goal: object, count: int) -> np.ndarray:
    found = minimize(
        goal,  # type: ignore[arg-type]
        np.full(count, 1 / count),
        bounds=[(0, 1)] * count,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-14, "maxiter": 500},
    )
    assert found.success
    return np.asarray(found.x)


def test_weights_agree_with_scipys_optimiser(table: pd.DataFrame) -> None:
    sigma = table.cov().to_numpy()
    scaled = sigma / sigma.mean()
    deviation = np.sqrt(np.diag(scaled))
    wanted = best(lambda w: w @ scaled @ w, len(TICKERS))
    np.testing.assert_allclose(weights(table, "min_variance"), wanted, atol=2e-4)
    wanted = best(lambda w: -(w @ deviation) / math.sqrt(w @ scaled @ w), len(TICKERS))
    np.testing.assert_allclose(weights(table, "max_diversification"), wanted, atol=2e-4)


def test_risk_parity_contributes_equally(table: pd.DataFrame) -> None:
    shares = diversification.risk_contributions(weights(table, "risk_parity"), table.cov())
    np.testing.assert_allclose(shares, np.full(len(TICKERS), 1 / len(TICKERS)), atol=1e-4)


def test_hierarchical_risk_parity_agrees_with_the_algorithm_written_out(table: pd.DataFrame) -> None:
    """Ward linkage of correlation distances, optimal leaf order, then bisection by inverse variance (de Prado)."""
    from scipy.cluster.hierarchy import leaves_list, linkage, optimal_leaf_ordering
    from scipy.spatial.distance import squareform

    sigma = table.cov().to_numpy()
    distance = np.sqrt(np.maximum((1 - table.corr().to_numpy()) / 2, 0))
    condensed = squareform(distance, checks=False)
    order = leaves_list(optimal_leaf_ordering(linkage(condensed, "ward"), condensed))
    wanted = np.ones(len(order))

    def variance(items: np.ndarray) -> float:
        block = sigma[np.ix_(items, items)]
        inverse = 1 / np.diag(block)
        held = inverse / inverse.sum()
        return float(held @ block @ held)

    clusters = [order]
    while clusters:
        halves = [c[s] for c in clusters for s in (slice(0, len(c) // 2), slice(len(c) // 2, None)) if len(c) > 1]
        for left, right in zip(halves[::2], halves[1::2], strict=True):
            share = 1 - variance(left) / (variance(left) + variance(right))
            wanted[left] *= share
            wanted[right] *= 1 - share
        clusters = [half for half in halves if len(half) > 1]
    np.testing.assert_allclose(weights(table, "hrp"), wanted, atol=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_edges(table: pd.DataFrame, method: str) -> None:
    one = weights(table[["KO"]], method)
    assert one.to_dict() == {"KO": 1.0}
    still = table[["XOM", "JPM", "KO"]].assign(cash=0.0001)
    found = weights(still, method)
    assert found["cash"] == 0.0
    np.testing.assert_allclose(found[:3], weights(still[["XOM", "JPM", "KO"]], method))
    assert weights(still[["KO", "cash"]], method).to_dict() == {"KO": 1.0, "cash": 0.0}
    assert diversification.weights(still[["cash"]], method) is None
    assert diversification.weights(table.iloc[: 2 * len(TICKERS)], method) is None
    assert diversification.weights(table.iloc[: 2 * len(TICKERS) + 1], method) is not None
    # Only sessions on which every asset has a return count.
    holes = table.copy()
    holes.iloc[:500, 0] = math.nan
    pd.testing.assert_series_equal(weights(holes, method), weights(table.iloc[500:], method))


def test_the_reason_is_told(table: pd.DataFrame) -> None:
    def status(values: np.ndarray) -> Status:
        with pytest.raises(diversification.UndefinedWeights) as raised:
            diversification.optimal_weights(values, "hrp")
        return raised.value.status

    assert status(table.to_numpy()[:5]) is Status.INSUFFICIENT_HISTORY
    assert status(np.full((50, 2), 0.01)) is Status.ZERO_VARIANCE
    with pytest.raises(ValueError, match="min_variance, max_diversification, risk_parity, hrp, got 'equal'"):
        diversification.weights(table, "equal")
    with pytest.raises(ValueError, match="sessions x assets"):
        diversification.optimal_weights(np.ones(3), "hrp")


def test_an_optimiser_that_fails(table: pd.DataFrame, monkeypatch: pytest.MonkeyPatch) -> None:
    import skfolio.optimization
    from skfolio.exceptions import OptimizationError

    def fail(*_: object) -> None:
        raise OptimizationError("infeasible")

    monkeypatch.setattr(skfolio.optimization.MeanRisk, "fit", fail)
    # A share that is listed twice leaves the weights open; an optimiser has to choose.
    twice = table.assign(again=table["KO"])
    with pytest.raises(diversification.UndefinedWeights, match="min_variance: infeasible") as raised:
        diversification.optimal_weights(twice.to_numpy(), "min_variance")
    assert raised.value.status is Status.NOT_CONVERGED
    assert diversification.weights(twice, "min_variance") is None
    # Nor does it give up where the short way does not arrive.
    monkeypatch.setattr(diversification, "_direct", lambda *_: None)
    assert diversification.weights(table, "min_variance") is None


def test_a_share_that_is_listed_twice(table: pd.DataFrame) -> None:
    for method in METHODS:
        found = weights(table.assign(again=table["KO"]), method)
        assert found.sum() == pytest.approx(1.0)
        assert (found >= 0).all()
    found = weights(table.assign(again=table["KO"]), "min_variance")
    together = found.drop("again").add(pd.Series({"KO": found["again"]}), fill_value=0.0)[TICKERS]
    np.testing.assert_allclose(together, weights(table, "min_variance"), atol=1e-4)


def made_up_returns(seed: int) -> np.ndarray:
    """Two to fourteen assets of different volatility, correlated as little or as much, either way."""
    rng = np.random.default_rng(seed)
    assets = int(rng.integers(2, 15))
    common = rng.normal(0, 0.01, (252, 3)) @ rng.normal(0.3, 0.7, (3, assets))
    return np.asarray((common + rng.normal(0, 0.004, (252, assets))) * rng.uniform(0.3, 4, assets))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("method", ["min_variance", "max_diversification", "risk_parity"])
def test_weights_agree_with_skfolio_and_are_optimal(method: str, seed: int) -> None:
    returns = made_up_returns(seed)
    sigma = np.cov(returns, rowvar=False)
    found = diversification.optimal_weights(returns, method)
    # Where variance hardly depends on the weights, a general optimiser stops further away.
    np.testing.assert_allclose(found, diversification._optimise(returns, method), atol=2e-3)

    # Variance moves with each weight that is held alike (per volatility for diversification), no less with the others.
    slope = sigma @ found
    if method == "risk_parity":
        np.testing.assert_allclose(found * slope, (found @ slope) / found.size, rtol=1e-9)
        return
    slope = slope / (np.sqrt(np.diag(sigma)) if method == "max_diversification" else 1.0)
    held = found > 0
    np.testing.assert_allclose(slope[held], slope[held].mean(), rtol=1e-9)
    assert (slope[~held] >= slope[held].mean() * (1 - 1e-9)).all()


def test_measures_of_diversification() -> None:
    independent = np.diag([0.01, 0.04, 0.09])
    parity = np.array([1.0, 1 / 2, 1 / 3])
    parity /= parity.sum()
    assert diversification.effective_number_of_bets(parity, independent) == pytest.approx(3.0)
    assert diversification.diversification_ratio(parity, independent) == pytest.approx(math.sqrt(3))
    assert diversification.effective_number_of_bets([1, 0, 0], independent) == pytest.approx(1.0)
    assert diversification.diversification_ratio([1, 0, 0], independent) == pytest.approx(1.0)
    assert diversification.effective_number_of_assets([0.5, 0.25, 0.25]) == pytest.approx(1 / 0.375)
    together = np.full((3, 3), 0.04)
    assert diversification.diversification_ratio([0.2, 0.3, 0.5], together) == pytest.approx(1.0)
    assert diversification.effective_number_of_bets([0.2, 0.3, 0.5], together) == pytest.approx(1.0)
    nothing = np.zeros((2, 2))
    assert diversification.effective_number_of_bets([0.5, 0.5], nothing) is None
    assert diversification.diversification_ratio([0.5, 0.5], nothing) is None
    assert diversification.risk_contributions([0.5, 0.5], nothing) is None
    assert diversification.effective_number_of_assets([0.0]) is None
    with pytest.raises(ValueError, match="do not go with"):
        diversification.diversification_ratio([0.5, 0.5], independent)


def test_bets_agree_with_principal_components_of_the_returns(table: pd.DataFrame) -> None:
    """The variance that each component's own return series makes in the portfolio."""
    held = np.array([0.4, 0.2, 0.1, 0.1, 0.1, 0.1])
    centred = table.to_numpy() - table.to_numpy().mean(axis=0)
    _, _, components = np.linalg.svd(centred, full_matrices=False)
    parts = (centred @ components.T) * (components @ held)
    shares = parts.var(axis=0, ddof=1)
    assert shares.sum() == pytest.approx((centred @ held).var(ddof=1))
    shares /= shares.sum()
    wanted = math.exp(-(shares * np.log(shares)).sum())
    assert diversification.effective_number_of_bets(held, table.cov()) == pytest.approx(wanted, rel=1e-9)
