"""Risk measures against quantstats, empyrical, scipy, statsmodels and plain pandas, on real returns and at the edges."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
import scipy.stats
from fixtures.returns import market_returns, stock_returns
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.status import STATUSES, Status
from finance_assets.sectors import risk
from finance_assets.sectors._arrays import windows

NAN = math.nan
TICKERS = ("XOM", "JPM", "JNJ")
#: The crisis, ten quiet years, and all of it.
SPANS = (("2008-01-02", "2009-12-31"), ("2010-01-04", "2019-12-31"), ("1990-01-03", "2022-12-28"))
CASES = [(ticker, *span) for ticker in TICKERS for span in SPANS]


def pair(ticker: str, first: str, last: str) -> tuple[pd.Series[float], pd.Series[float]]:
    own = stock_returns().loc[first:last, ticker]
    return own, market_returns().reindex(own.index)


@pytest.fixture(scope="module")
def quantstats() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import quantstats.stats as stats
    return stats


@pytest.fixture(scope="module")
def empyrical() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import empyrical
    return empyrical


# -- against independent implementations -------------------------------------------------------------------------


@pytest.mark.parametrize(("ticker", "first", "last"), CASES)
@pytest.mark.filterwarnings("ignore")
def test_ratios_agree_with_quantstats_and_empyrical(
    ticker: str, first: str, last: str, quantstats: Any, empyrical: Any
) -> None:
    own, market = pair(ticker, first, last)
    free = 0.02
    per_session = 1.02 ** (1 / 252) - 1

    def near(found: float | None, wanted: float, tolerance: float = 1e-10) -> None:
        assert found == pytest.approx(float(wanted), rel=tolerance, abs=1e-14)

    near(risk.sharpe_ratio(own), quantstats.sharpe(own))
    near(risk.sharpe_ratio(own, free), empyrical.sharpe_ratio(own, risk_free=per_session))
    near(risk.sortino_ratio(own), quantstats.sortino(own))
    near(risk.sortino_ratio(own, free), quantstats.sortino(own - per_session))
    near(risk.volatility(own), empyrical.annual_volatility(own))
    near(risk.compound_annual_growth(own), empyrical.annual_return(own))
    near(risk.omega_ratio(own), empyrical.omega_ratio(own))
    near(risk.max_drawdown(own).depth, empyrical.max_drawdown(own))
    near(risk.max_drawdown(own).depth, quantstats.max_drawdown(own))
    near(risk.calmar_ratio(own), empyrical.calmar_ratio(own))
    near(risk.value_at_risk(own, 0.95, "historical"), -empyrical.value_at_risk(own, 0.05))
    near(risk.value_at_risk(own, 0.99, "gaussian"), -quantstats.value_at_risk(own, confidence=0.99))
    fit = risk.alpha_beta(own, market, free)
    assert fit.beta is not None
    near(fit.beta, empyrical.beta(own, market, risk_free=per_session))
    near((1 + fit.alpha) ** 252 - 1, empyrical.alpha(own, market, risk_free=per_session), 1e-8)  # type: ignore[operator]


@pytest.mark.parametrize(("ticker", "first", "last"), CASES)
def test_the_regression_agrees_with_statsmodels_and_scipy(ticker: str, first: str, last: str) -> None:
    import statsmodels.api as sm

    own, market = pair(ticker, first, last)
    per_session = 1.03 ** (1 / 252) - 1
    x, y = market.to_numpy() - per_session, own.to_numpy() - per_session
    wanted = sm.OLS(y, sm.add_constant(x)).fit()
    found = risk.alpha_beta(own, market, 0.03)
    assert found[:2] == pytest.approx(wanted.params, rel=1e-9)
    assert found[3:5] == pytest.approx(wanted.tvalues, rel=1e-9)
    assert found.r_squared == pytest.approx(wanted.rsquared, rel=1e-9)
    assert found.alpha_annual == pytest.approx(wanted.params[0] * 252, rel=1e-9)
    assert found.n_returns == own.size
    line = scipy.stats.linregress(x, y)
    assert found.beta == pytest.approx(line.slope, rel=1e-10)


@pytest.mark.parametrize(("ticker", "first", "last"), CASES)
def test_what_needs_a_market_agrees_with_pandas(ticker: str, first: str, last: str) -> None:
    own, market = pair(ticker, first, last)
    n, free = own.size, 0.02
    growth = (1 + own).prod() ** (252 / n) - 1
    market_growth = (1 + market).prod() ** (252 / n) - 1
    error = (own - market).std() * math.sqrt(252)
    excess = (own - (1.02 ** (1 / 252) - 1), market - (1.02 ** (1 / 252) - 1))
    beta = excess[0].cov(excess[1]) / excess[1].var()
    assert risk.tracking_error(own, market) == pytest.approx(error, rel=1e-11)
    assert risk.information_ratio(own, market) == pytest.approx((growth - market_growth) / error, rel=1e-9)
    assert risk.treynor_ratio(own, market, free) == pytest.approx((growth - free) / beta, rel=1e-9)
    assert risk.m_squared(own, market, free) == pytest.approx(
        (growth - free) * market.std() / own.std() + free, rel=1e-9
    )
    assert risk.relative_volatility(own, market) == pytest.approx(own.std() / market.std(), rel=1e-11)


@pytest.mark.parametrize(("ticker", "first", "last"), CASES)
@pytest.mark.parametrize("confidence", [0.95, 0.975, 0.99])
def test_tails_agree_with_numpy_and_scipy(ticker: str, first: str, last: str, confidence: float) -> None:
    own = pair(ticker, first, last)[0].to_numpy()
    mean, deviation = own.mean(), own.std(ddof=1)
    normal = scipy.stats.norm(mean, deviation)
    z = scipy.stats.norm.ppf(1 - confidence)

    def value(method: str) -> float | None:
        return risk.value_at_risk(own, confidence, method)

    assert value("historical") == pytest.approx(-np.quantile(own, 1 - confidence), rel=1e-12)
    assert value("gaussian") == pytest.approx(-normal.ppf(1 - confidence), rel=1e-11)
    s, k = scipy.stats.skew(own), scipy.stats.kurtosis(own)
    corrected = z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
    # Its domain, by looking at the whole way from the quantile to the middle.
    way = np.linspace(z, 0, 4001)
    quantiles = way + (way**2 - 1) * s / 6 + (way**3 - 3 * way) * k / 24 - (2 * way**3 - 5 * way) * s**2 / 36
    if (np.diff(quantiles) > 0).all():
        assert value("cornish_fisher") == pytest.approx(-(mean + corrected * deviation), rel=1e-11)
    else:
        assert value("cornish_fisher") is None
    expected = -scipy.stats.norm.expect(loc=mean, scale=deviation, ub=normal.ppf(1 - confidence), conditional=True)
    assert risk.expected_shortfall(own, confidence, "gaussian") == pytest.approx(expected, rel=1e-6)
    # Rockafellar and Uryasev: the least, over thresholds, of the threshold plus the mean excess over it.
    losses = np.sort(-own)
    excess = np.array([t + np.maximum(losses - t, 0).mean() / (1 - confidence) for t in losses[-own.size // 8 :]])
    assert risk.expected_shortfall(own, confidence) == pytest.approx(excess.min(), rel=1e-12)


def test_fat_tails_lower_the_corrected_quantile_at_95_and_raise_it_at_99() -> None:
    own = market_returns().loc["2008-01-02":"2009-12-31"]
    low = [risk.value_at_risk(own, 0.95, m) for m in ("cornish_fisher", "gaussian")]
    high = [risk.value_at_risk(own, 0.99, m) for m in ("cornish_fisher", "gaussian")]
    assert low[0] is not None and low[1] is not None and low[0] < low[1]  # noqa: PT018
    assert high[0] is not None and high[1] is not None and high[0] > high[1]  # noqa: PT018


@pytest.mark.parametrize("window", [2, 30, 252])
def test_rolling_volatility_agrees_with_pandas(window: int) -> None:
    own = stock_returns()["KO"].iloc[:900].copy()
    own.iloc[[0, 50, 51, 400]] = NAN
    wanted = (own.dropna().rolling(window).std() * math.sqrt(252)).reindex(own.index)
    np.testing.assert_allclose(risk.rolling_volatility(own, window), wanted, rtol=1e-9, atol=1e-12)
    assert risk.rolling_volatility(np.full(40, 0.01))[-1] == 0.0
    assert np.isnan(risk.rolling_volatility([0.01])).all()
    with pytest.raises(ValueError, match="at least 2"):
        risk.rolling_volatility(own, 1)


# -- drawdowns ---------------------------------------------------------------------------------------------------


def slow_drawdown(returns: list[float]) -> tuple[float, int | None, int | None, int | None]:
    """By looking at every pair of positions."""
    levels = [1.0]
    for r in returns:
        levels.append(levels[-1] * (1 + r))
    depth, peak, trough = 0.0, None, None
    for j, level in enumerate(levels):
        for i in range(j):
            if levels[i] > 0 and levels[i] == max(levels[: j + 1]) and level / levels[i] - 1 < depth:
                depth, peak, trough = level / levels[i] - 1, i, j
    if trough is None or peak is None:
        return 0.0, None, None, None
    peak = max(i for i in range(trough) if levels[i] == levels[peak])
    recovery = next((j for j in range(trough + 1, len(levels)) if levels[j] >= levels[peak]), None)
    return depth, peak, trough, recovery


@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from([-1.0, -0.5, -0.25, -0.1, 0.0, 0.1, 0.5, 1.0]), min_size=1, max_size=14))
def test_drawdowns_agree_with_looking_at_every_pair(returns: list[float]) -> None:
    found, wanted = risk.max_drawdown(returns), slow_drawdown(returns)
    assert found.depth == pytest.approx(wanted[0], abs=1e-12)
    assert found.depth is not None
    if abs(wanted[0]) > 1e-9:
        levels = np.cumprod(np.r_[1.0, 1 + np.array(returns)])
        assert found.peak is not None and found.trough is not None  # noqa: PT018
        assert levels[found.trough] / levels[found.peak] - 1 == pytest.approx(wanted[0], abs=1e-12)
        assert found.recovery == wanted[3] or found.depth == pytest.approx(wanted[0], abs=1e-12)


def test_the_level_before_the_first_return_is_a_peak() -> None:
    assert risk.max_drawdown([-0.5, 1.0]) == (-0.5, 0, 1, 2)
    assert risk.max_drawdown([-0.5]) == (-0.5, 0, 1, None)
    assert risk.max_drawdown([0.1, -0.5, 0.2, 0.1]) == (-0.5, 1, 2, None)
    assert risk.max_drawdown([0.1, 0.0, 0.2]) == (0.0, None, None, None)
    assert risk.max_drawdown([0.5, -1.0, 3.0]) == (-1.0, 1, 2, None)
    assert risk.max_drawdown([]) == (None, None, None, None)
    assert risk.max_drawdown([NAN]) == (None, None, None, None)
    # Positions point into the series as it was given.
    assert risk.max_drawdown([NAN, 0.5, NAN, -0.5, NAN, 1.0]) == (-0.5, 2, 4, 6)


def test_ulcer_and_pain() -> None:
    # Levels 1, 0.5, 1, 0.75.
    returns = [-0.5, 1.0, -0.25]
    assert risk.pain_index(returns) == pytest.approx((0.5 + 0 + 0.25) / 3)
    assert risk.ulcer_index(returns) == pytest.approx(math.sqrt((0.25 + 0.0625) / 3))
    own = stock_returns()["GE"]
    levels = (1 + own).cumprod()
    fall = levels / levels.cummax().clip(lower=1) - 1
    assert risk.ulcer_index(own) == pytest.approx(math.sqrt((fall**2).mean()), rel=1e-12)
    assert risk.pain_index(own) == pytest.approx(-fall.mean(), rel=1e-12)


# -- undefined ---------------------------------------------------------------------------------------------------

ALONE: dict[str, Callable[[Any], float | None]] = {
    "sharpe": risk.sharpe_ratio,
    "sortino": risk.sortino_ratio,
    "volatility": risk.volatility,
    "growth": risk.compound_annual_growth,
    "omega": risk.omega_ratio,
    "calmar": risk.calmar_ratio,
    "ulcer": risk.ulcer_index,
    "pain": risk.pain_index,
    "var": risk.value_at_risk,
    "var_g": lambda r: risk.value_at_risk(r, 0.99, "gaussian"),
    "var_cf": lambda r: risk.value_at_risk(r, 0.99, "cornish_fisher"),
    "es": risk.expected_shortfall,
    "es_g": lambda r: risk.expected_shortfall(r, 0.99, "gaussian"),
}


@pytest.mark.parametrize("name", ALONE)
def test_nothing_comes_of_nothing(name: str) -> None:
    for returns in ([], [NAN], [NAN, NAN, math.inf]):
        assert ALONE[name](returns) is None
    # One return has a size, but no spread.
    assert (ALONE[name]([-0.01]) is not None) == (name in ("sortino", "omega", "ulcer", "pain"))


@pytest.mark.parametrize("level", [0.01, 0.0, -0.01])
def test_returns_that_do_not_vary(level: float) -> None:
    still = np.full(300, level)
    market = market_returns().to_numpy()[:300]
    assert risk.sharpe_ratio(still) is None
    assert risk.volatility(still) == 0.0
    assert risk.value_at_risk(still, 0.95, "cornish_fisher") is None
    assert risk.value_at_risk(still, 0.95, "gaussian") == pytest.approx(-level)
    assert risk.value_at_risk(still) == pytest.approx(-level)
    assert risk.m_squared(still, market) is None
    assert risk.relative_volatility(still, market) == 0.0
    assert risk.relative_volatility(market, still) is None
    assert risk.information_ratio(still, still) is None
    assert risk.tracking_error(market, market) == 0.0
    fit = risk.alpha_beta(market, still)
    assert (fit.alpha, fit.beta, fit.beta_t, fit.r_squared) == (None, None, None, None)
    flat = risk.alpha_beta(still, market)
    assert flat.beta == pytest.approx(0.0, abs=1e-15)
    assert (flat.beta_t, flat.r_squared) == (None, None)
    assert risk.treynor_ratio(still, market) is None


def test_ten_equal_returns_have_no_sharpe_ratio() -> None:
    assert risk.sharpe_ratio([0.01] * 10) is None
    assert risk.sharpe_ratio([0.01] * 40) is None


def test_ratios_without_a_downside() -> None:
    rising = np.linspace(0.001, 0.02, 300)
    assert risk.sortino_ratio(rising) is None
    assert risk.omega_ratio(rising) is None
    assert risk.calmar_ratio(rising) is None
    assert risk.sortino_ratio([0.02, -0.01]) == pytest.approx(0.005 * 252 / (math.sqrt(0.0001 / 2) * math.sqrt(252)))


@pytest.mark.parametrize(
    ("compute", "least"),
    [
        (risk.sharpe_ratio, 30),
        (lambda r: risk.alpha_beta(r, r[::-1]).beta, 60),
        (lambda r: risk.value_at_risk(r, 0.95), 100),
        (lambda r: risk.value_at_risk(r, 0.975, "gaussian"), 100),
        (lambda r: risk.value_at_risk(r, 0.99), 250),
        (lambda r: risk.value_at_risk(r, 1 - 0.01, "cornish_fisher"), 250),
        (lambda r: risk.expected_shortfall(r, 0.95), 100),
        (lambda r: risk.expected_shortfall(r, 0.99, "gaussian"), 250),
        (risk.compound_annual_growth, 252),
        (risk.calmar_ratio, 252),
        (lambda r: risk.information_ratio(r, r[::-1]), 252),
        (lambda r: risk.treynor_ratio(r, r[::-1]), 252),
        (lambda r: risk.m_squared(r, r[::-1]), 252),
    ],
)
def test_the_fewest_returns(compute: Callable[[Any], float | None], least: int) -> None:
    own = np.random.default_rng(5).normal(0, 0.01, least)
    assert compute(own) is not None
    assert compute(own[1:]) is None
    assert compute(np.r_[NAN, own, math.inf]) == pytest.approx(compute(own))


def test_outside_the_domain_of_cornish_and_fisher() -> None:
    # One crash in a quiet series: the corrected quantile turns back on itself.
    crash = np.r_[np.random.default_rng(1).normal(0, 0.001, 299), -0.5]
    assert risk.value_at_risk(crash, 0.99, "gaussian") is not None
    assert risk.value_at_risk(crash, 0.99, "cornish_fisher") is None


def test_a_loss_of_everything() -> None:
    ruined = np.r_[np.full(200, 0.01), -1.0, np.full(100, 0.01)]
    assert risk.max_drawdown(ruined).depth == -1.0
    assert risk.compound_annual_growth(ruined) == -1.0
    assert risk.calmar_ratio(ruined) == -1.0


def test_the_expected_shortfall_does_not_jump() -> None:
    """At 501 returns the quantile falls on a return, and definitions by counting jump there."""
    own = market_returns().to_numpy()[:501]
    around = [risk.expected_shortfall(own, c) for c in (0.95 - 1e-9, 0.95, 0.95 + 1e-9)]
    assert around == pytest.approx([around[1]] * 3, rel=1e-6)


def test_refused_arguments() -> None:
    with pytest.raises(ValueError, match="cannot be below -1"):
        risk.sharpe_ratio([0.1, -1.5])
    with pytest.raises(ValueError, match="one-dimensional"):
        risk.sharpe_ratio([[0.1]])
    with pytest.raises(ValueError, match="historical, gaussian, cornish_fisher, got 'normal'"):
        risk.value_at_risk([0.1], 0.95, "normal")
    with pytest.raises(ValueError, match="historical, gaussian, got 'cornish_fisher'"):
        risk.expected_shortfall([0.1], 0.95, "cornish_fisher")
    for confidence in (0.05, 95.0, 1.0):
        with pytest.raises(ValueError, match="confidence must be between"):
            risk.value_at_risk([0.1], confidence)
    with pytest.raises(ValueError, match="same sessions"):
        risk.alpha_beta([0.1], [0.1, 0.2])
    with pytest.raises(ValueError, match="above -1"):
        risk.sharpe_ratio([0.1], -2.0)


# -- many windows ------------------------------------------------------------------------------------------------


def test_windows_say_what_single_series_say_bit_by_bit() -> None:
    own, market = (series.to_numpy() for series in pair("PFE", "2005-01-03", "2008-12-31"))
    rows, market_rows = windows(own, 252), windows(market, 252)
    found = risk.window_measures(rows, market_rows, 0.02)
    for place in (0, 17, rows.shape[0] - 1):
        r, m = own[place : place + 252], market[place : place + 252]
        fit = risk.alpha_beta(r, m, 0.02)
        levels = np.cumprod(1 + r)
        fall = levels / np.maximum(np.maximum.accumulate(levels), 1.0) - 1.0
        single: dict[str, float | None] = {
            "volatility": risk.volatility(r),
            "compound_annual_growth": risk.compound_annual_growth(r),
            "sharpe_ratio": risk.sharpe_ratio(r, 0.02),
            "sortino_ratio": risk.sortino_ratio(r, 0.02),
            "omega_ratio": risk.omega_ratio(r, 0.02),
            "max_drawdown": risk.max_drawdown(r).depth,
            "current_drawdown": float(fall[-1]),
            "calmar_ratio": risk.calmar_ratio(r),
            "ulcer_index": risk.ulcer_index(r),
            "pain_index": risk.pain_index(r),
            **{name: getattr(fit, name) for name in risk.AlphaBeta._fields if name != "n_returns"},
            "treynor_ratio": risk.treynor_ratio(r, m, 0.02),
            "tracking_error": risk.tracking_error(r, m),
            "information_ratio": risk.information_ratio(r, m),
            "m_squared": risk.m_squared(r, m, 0.02),
            "relative_volatility": risk.relative_volatility(r, m),
            **{
                f"var_{method}_{name}": risk.value_at_risk(r, confidence, method)
                for name, confidence in risk.CONFIDENCES.items()
                for method in ("historical", "gaussian", "cornish_fisher")
            },
            **{
                f"es_{method}_{name}": risk.expected_shortfall(r, confidence, method)
                for name, confidence in risk.CONFIDENCES.items()
                for method in ("historical", "gaussian")
            },
        }
        assert set(single) == set(found)
        for name, wanted in single.items():
            value, status = found[name].value[place], STATUSES[found[name].status[place]]
            assert (None if np.isnan(value) else float(value)) == wanted, name
            assert (status is Status.OK) == (wanted is not None), name


def test_statuses_say_why() -> None:
    still = np.full((1, 252), 0.01)
    market = windows(market_returns().to_numpy()[:252], 252)
    found = risk.window_measures(still, market)
    reasons = {name: STATUSES[measure.status[0]] for name, measure in found.items()}
    assert reasons["sharpe_ratio"] is Status.ZERO_VARIANCE
    assert reasons["var_cornish_fisher_99"] is Status.ZERO_VARIANCE
    assert reasons["sortino_ratio"] is Status.UNDEFINED_DENOMINATOR
    assert reasons["calmar_ratio"] is Status.UNDEFINED_DENOMINATOR
    assert reasons["r_squared"] is Status.ZERO_VARIANCE
    assert reasons["volatility"] is Status.OK
    short = risk.window_measures(still[:, :20], market[:, :20])
    assert STATUSES[short["beta"].status[0]] is Status.INSUFFICIENT_HISTORY
    nothing = risk.window_measures(np.empty((1, 0)), np.empty((1, 0)))
    assert {STATUSES[measure.status[0]] for measure in nothing.values()} == {Status.NO_DATA}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1.0, 3.0), min_size=0, max_size=130), st.floats(-0.5, 0.5))
def test_never_infinite_and_never_without_a_reason(returns: list[float], free: float) -> None:
    row = np.array(returns)[None, :]
    for name, measure in risk.window_measures(row, row[:, ::-1].copy(), free).items():
        defined = measure.status == Status.OK.code
        assert (np.isfinite(measure.value) == defined).all(), name
