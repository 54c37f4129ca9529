"""Factor regressions against statsmodels, and what was known of a macro series when."""

from __future__ import annotations

import math
from datetime import date

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from fixtures.returns import market_returns, stock_returns
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.outliers_influence import variance_inflation_factor

from finance_assets.contracts.status import Status
from finance_assets.sectors import exposure

NAN = math.nan


@pytest.fixture(scope="module")
def months() -> pd.DataFrame:
    """Monthly returns of a stock, the market and two others."""
    daily = pd.concat([stock_returns()[["XOM", "JPM", "GE"]], market_returns().rename("market")], axis=1).dropna()
    return (1 + daily).resample("ME").prod() - 1


@pytest.mark.parametrize("count", [36, 60, 240])
def test_regressions_agree_with_statsmodels(months: pd.DataFrame, count: int) -> None:
    table = months.iloc[-count:]
    factors = {"market": table["market"], "oil": table["GE"] * 35.0, "rates": table["JPM"] / 100}
    found = exposure.factor_exposure(table["XOM"], factors)
    design = sm.add_constant(np.column_stack(list(factors.values())))
    lags = math.floor(4 * (count / 100) ** (2 / 9))
    wanted = sm.OLS(table["XOM"].to_numpy(), design).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    assert (found.status, found.n_observations, found.lags) == (Status.OK, count, lags)
    assert [c.factor for c in found.coefficients] == ["alpha", *factors]
    assert [c.value for c in found.coefficients] == pytest.approx(wanted.params, rel=1e-8)
    assert [c.standard_error for c in found.coefficients] == pytest.approx(wanted.bse, rel=1e-8)
    assert [c.t_statistic for c in found.coefficients] == pytest.approx(wanted.tvalues, rel=1e-8)
    assert found.r_squared == pytest.approx(wanted.rsquared, rel=1e-10)
    assert found.adjusted_r_squared == pytest.approx(wanted.rsquared_adj, rel=1e-10)
    inflation = [variance_inflation_factor(design, place) for place in (1, 2, 3)]
    assert [c.variance_inflation for c in found.coefficients[1:]] == pytest.approx(inflation, rel=1e-8)
    np.testing.assert_allclose(exposure.variance_inflation_factors(design[:, 1:]), inflation, rtol=1e-8)


def test_a_factor_that_the_others_explain_is_left_out(months: pd.DataFrame) -> None:
    noise = np.random.default_rng(4).normal(0, 0.002, len(months))
    factors = {"market": months["market"], "copy": months["market"] + noise, "bank": months["JPM"]}
    found = exposure.factor_exposure(months["XOM"], factors)
    copy = found.coefficient("copy")
    assert (copy.value, copy.t_statistic, copy.status) == (None, None, Status.OUTSIDE_DOMAIN)
    assert copy.variance_inflation is not None
    assert copy.variance_inflation > 10
    without = exposure.factor_exposure(months["XOM"], {name: factors[name] for name in ("market", "bank")})
    for name in ("alpha", "market", "bank"):
        assert found.coefficient(name) == without.coefficient(name)
    assert found.r_squared == without.r_squared
    # Without a factor to be kept, the one that the others explain best goes.
    free = exposure.factor_exposure(months["XOM"], factors, kept=())
    assert sum(c.status is Status.OUTSIDE_DOMAIN for c in free.coefficients) == 1
    with pytest.raises(KeyError):
        found.coefficient("nothing")


def test_undefined_regressions(months: pd.DataFrame) -> None:
    own, market = months["XOM"].to_numpy(), months["market"].to_numpy()

    def status(returns: np.ndarray, **factors: np.ndarray) -> Status:
        found = exposure.factor_exposure(returns, factors)
        assert all(c.value is None and c.status is found.status for c in found.coefficients)
        assert found.r_squared is None
        return found.status

    assert status(own, market=market, double=market * 2 + 1) is Status.OUTSIDE_DOMAIN
    assert status(own, market=market, still=np.full(own.size, 0.3)) is Status.ZERO_VARIANCE
    assert status(own[:35], market=market[:35]) is Status.INSUFFICIENT_HISTORY
    holes = market.copy()
    holes[35:] = NAN
    assert status(own, market=holes) is Status.INSUFFICIENT_HISTORY
    assert status(np.full(own.size, NAN), market=market) is Status.NO_DATA
    with pytest.raises(ValueError, match="at least one factor"):
        exposure.factor_exposure(own, {})
    with pytest.raises(ValueError, match="one value per return"):
        exposure.factor_exposure(own, {"market": market[1:]})
    for bad in (np.column_stack([market, market]), np.column_stack([market, np.ones(market.size)])):
        with pytest.raises(ValueError, match="factor"):
            exposure.variance_inflation_factors(bad)


def test_a_perfect_fit_has_no_t_statistic(months: pd.DataFrame) -> None:
    found = exposure.factor_exposure(months["market"] * 2 + 0.01, {"market": months["market"]})
    assert found.coefficient("market").value == pytest.approx(2.0)
    assert found.coefficient("market").t_statistic is None
    assert found.r_squared == pytest.approx(1.0)
    still = exposure.factor_exposure(np.full(len(months), 0.01), {"market": months["market"]})
    assert still.coefficient("market").value == pytest.approx(0.0, abs=1e-14)
    assert still.r_squared is None


def test_gaps_are_left_out(months: pd.DataFrame) -> None:
    own, market = months["XOM"].to_numpy().copy(), months["market"].to_numpy().copy()
    own[5], market[9] = NAN, math.inf
    kept = np.delete(np.arange(own.size), [5, 9])
    assert exposure.factor_exposure(own, {"market": market}) == exposure.factor_exposure(
        own[kept], {"market": market[kept]}
    )


# -- what was known when -----------------------------------------------------------------------------------------

CPI = [
    # about, published, value
    (date(2020, 1, 1), date(2020, 2, 13), 100.0),
    (date(2020, 2, 1), date(2020, 3, 11), 101.0),
    (date(2020, 1, 1), date(2020, 3, 20), 100.5),  # a revision of what is no longer the newest
    (date(2020, 2, 1), date(2020, 3, 25), 101.5),  # a revision of the newest
    (date(2020, 3, 1), date(2020, 4, 10), NAN),  # not a number
]


def test_a_number_is_not_seen_before_its_release() -> None:
    days = ["2020-02-12", "2020-02-13", "2020-03-10", "2020-03-11", "2020-03-20", "2020-03-25", "2020-05-01"]
    found = exposure.known_values(*zip(*CPI, strict=True), days)  # type: ignore[arg-type]
    np.testing.assert_array_equal(found, [NAN, 100.0, 100.0, 101.0, 101.0, 101.5, 101.5])
    np.testing.assert_array_equal(exposure.known_values([], [], [], days), np.full(7, NAN))


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 20), st.floats(1, 9)), max_size=15), st.randoms())
def test_known_values_agree_with_reading_every_release(entries: list[tuple[int, int, float]], random: object) -> None:
    start = np.datetime64("2020-01-01")
    # One number per reference and release date, in any order.
    rows = list({(about, about + delay): value for about, delay, value in entries}.items())
    random.shuffle(rows)  # type: ignore[attr-defined]
    days = start + np.arange(60)
    found = exposure.known_values(
        [start + r[0][0] for r in rows], [start + r[0][1] for r in rows], [r[1] for r in rows], days
    )
    for day in range(60):
        out = [(about, released, value) for (about, released), value in rows if released <= day]
        assert found[day] == max(out)[2] if out else np.isnan(found[day])


def test_changes() -> None:
    known = [NAN, 50.0, 55.0, 55.0, -10.0, 20.0]
    np.testing.assert_allclose(
        exposure.macro_changes(known, "relative_change"), [NAN, NAN, 0.1, 0.0, -65 / 55, NAN], rtol=1e-12
    )
    np.testing.assert_allclose(exposure.macro_changes(known, "difference"), [NAN, NAN, 5, 0, -65, 30])
    np.testing.assert_allclose(
        exposure.macro_changes([100, 101, 103.02, 103.02], "surprise"), [NAN, NAN, 0.01, -0.02], atol=1e-12
    )
    assert exposure.macro_changes([], "difference").size == 0
    with pytest.raises(ValueError, match="relative_change, difference, surprise, got 'log'"):
        exposure.macro_changes([1.0], "log")
