"""Whether volatility comes in clusters, how long a shock lasts, and what volatility to expect next.

Belongs here: autocorrelation of return sizes, tests for autoregressive variance, GARCH(1,1) and exponentially weighted
volatility. Does not belong here: plain and rolling deviations (``risk``), tables, storage, Dagster.

Returns are simple, decimal fractions, in the order of time; missing ones are left out. Volatilities are annualised by
the root of 252. scipy and arch are imported where they are used: they take seconds.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import (
    NO_VARIATION,
    SESSIONS_PER_YEAR,
    FloatArray,
    as_returns,
    mean_and_deviation,
    observed,
)

__all__ = [
    "Clustering",
    "Garch",
    "Significance",
    "arch_lm",
    "autocorrelations",
    "ewma_volatility",
    "garch",
    "ljung_box",
    "volatility_clustering",
]

#: Lags of the autocorrelations of the size of returns, of Ljung and Box's test and of Engle's.
ACF_LAGS: Final = 20
LJUNG_BOX_LAGS: Final = 10
ARCH_LAGS: Final = 5
#: Fewest returns of the tests and of the model.
TEST_RETURNS: Final = 250
GARCH_RETURNS: Final = 500
#: Weight of yesterday's variance, and returns that seed it (RiskMetrics).
EWMA_DECAY: Final = 0.94
EWMA_SEED: Final = 30
#: Both tests below this level: volatility is called clustered.
SIGNIFICANCE: Final = 0.01


class Significance(NamedTuple):
    """A test statistic and its p-value; both None where it is undefined, and then ``status`` says why."""

    statistic: float | None
    p_value: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class Garch:
    """GARCH(1,1) with a constant mean and normal errors, fitted to returns in percent.

    Attributes
    ----------
    omega
        Constant of the variance, in squared fractions per session.
    alpha, beta
        Weights of the last squared surprise and of the last variance.
    persistence
        ``alpha + beta``.
    half_life
        Sessions until half of a shock to variance is gone; None where it never is (persistence 1) or none is left.
    volatility
        Annualised volatility expected of the session after the last.
    status
        Why all of it is None, or ok.
    """

    omega: float | None
    alpha: float | None
    beta: float | None
    persistence: float | None
    half_life: float | None
    volatility: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class Clustering:
    """All that is known about the clustering of one series' volatility.

    Attributes
    ----------
    autocorrelations
        Of the size of returns, lags 1 to 20; None where undefined, and then ``acf_status`` says why.
    ljung_box
        On squared demeaned returns, 10 lags.
    arch_lm
        Engle's test, 5 lags.
    garch
        The fitted model.
    ewma_volatility
        Annualised, as of the last return.
    volatility
        GARCH's forecast, or the exponentially weighted volatility where there is none.
    volatility_model
        ``garch`` or ``ewma``: which of them it is; None where there is neither.
    is_clustered
        Whether both tests reject at 1 %; None where one of them is undefined.
    n_returns
        Returns used.
    """

    autocorrelations: tuple[float, ...] | None
    acf_status: Status
    ljung_box: Significance
    arch_lm: Significance
    garch: Garch
    ewma_volatility: float | None
    volatility: float | None
    volatility_model: str | None
    is_clustered: bool | None
    n_returns: int


def autocorrelations(returns: npt.ArrayLike, lags: int = ACF_LAGS) -> FloatArray | None:
    """Compute the autocorrelations of the size of returns at lags 1 to `lags`.

    Returns
    -------
    numpy.ndarray or None
        The usual estimator, whose sums are all divided by those of lag 0. None with no more returns than lags, and
        where all returns are of one size.
    """
    values, status = _autocorrelations(observed("returns", returns)[0], lags)
    return values if status is Status.OK else None


def ljung_box(returns: npt.ArrayLike, lags: int = LJUNG_BOX_LAGS) -> Significance:
    """Test squared demeaned returns for autocorrelation (Ljung and Box).

    Undefined with fewer than 250 returns (``insufficient_history``) and where they do not vary (``zero_variance``).
    """
    squares, status = _squared_surprises(observed("returns", returns)[0])
    if status is not Status.OK:
        return Significance(None, None, status)
    acf, status = _acf(squares, lags)
    if status is not Status.OK:
        return Significance(None, None, status)
    n = squares.size
    statistic = n * (n + 2) * float((acf**2 / (n - np.arange(1, lags + 1))).sum())
    return Significance(statistic, _chi_square_tail(statistic, lags), Status.OK)


def arch_lm(returns: npt.ArrayLike, lags: int = ARCH_LAGS) -> Significance:
    """Test for autoregressive conditional heteroskedasticity (Engle): regress squared surprises on their own past.

    Undefined with fewer than 250 returns (``insufficient_history``) and where they do not vary (``zero_variance``).
    """
    squares, status = _squared_surprises(observed("returns", returns)[0])
    if status is not Status.OK:
        return Significance(None, None, status)
    y = squares[lags:]
    columns = [squares[lags - lag : squares.size - lag] for lag in range(1, lags + 1)]
    # In units of the mean square: its own size would be lost beside the constant.
    scale = squares.mean()
    design = np.column_stack([np.ones(y.size), *(column / scale for column in columns)])
    target = y / scale
    total = float(((target - target.mean()) ** 2).sum())
    if total <= NO_VARIATION * y.size:
        return Significance(None, None, Status.ZERO_VARIANCE)
    solution = np.linalg.lstsq(design, target, rcond=None)[0]
    residual = float(((target - design @ solution) ** 2).sum())
    statistic = y.size * (1.0 - residual / total)
    return Significance(statistic, _chi_square_tail(statistic, lags), Status.OK)


def ewma_volatility(returns: npt.ArrayLike, decay: float = EWMA_DECAY, seed: int = EWMA_SEED) -> FloatArray:
    """Compute the exponentially weighted volatility as of each session (RiskMetrics).

    Variance is ``decay`` of the last variance and ``1 - decay`` of the newest squared return; no mean is removed. It
    starts with the mean of the first `seed` squared returns.

    Returns
    -------
    numpy.ndarray
        Annualised; NaN before the seed is full and where the session has no return. Values do not depend on later
        returns.

    Raises
    ------
    ValueError
        `decay` is not between 0 and 1, or `seed` is below 1.
    """
    if not 0 < decay < 1 or seed < 1:
        raise ValueError(f"decay must be between 0 and 1 and seed at least 1, got {decay} and {seed}")
    array = as_returns("returns", returns)
    result = np.full(array.size, np.nan)
    places = np.flatnonzero(~np.isnan(array))
    if places.size < seed:
        return result
    squares = (array[places] ** 2).tolist()
    variance = math.fsum(squares[:seed]) / seed
    variances = [variance]
    for square in squares[seed:]:
        variance = decay * variance + (1.0 - decay) * square
        variances.append(variance)
    result[places[seed - 1 :]] = np.sqrt(np.array(variances) * SESSIONS_PER_YEAR)
    return result


def garch(returns: npt.ArrayLike) -> Garch:
    """Fit GARCH(1,1) with a constant mean and normal errors by maximum likelihood (package ``arch``).

    Undefined with fewer than 500 returns (``insufficient_history``), without variance (``zero_variance``), and where
    the optimiser finds no maximum (``not_converged``): then use :func:`ewma_volatility`.
    """
    values = observed("returns", returns)[0]
    if values.size < GARCH_RETURNS:
        return _no_garch(Status.INSUFFICIENT_HISTORY if values.size else Status.NO_DATA)
    if mean_and_deviation(values[None, :])[2][0]:
        return _no_garch(Status.ZERO_VARIANCE)
    from arch import arch_model

    # The likelihood is best conditioned in percent. The optimiser's complaints come back as its flag.
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        model = arch_model(values * 100.0, mean="Constant", vol="GARCH", p=1, q=1, dist="normal", rescale=False)
        try:
            fit = model.fit(disp="off", show_warning=False)
        except (ValueError, np.linalg.LinAlgError, FloatingPointError):
            return _no_garch(Status.NOT_CONVERGED)
    parameters = np.asarray(fit.params, dtype=np.float64)
    if fit.convergence_flag != 0 or not np.isfinite(parameters).all():
        return _no_garch(Status.NOT_CONVERGED)
    _, omega, alpha, beta = (float(value) for value in parameters)
    persistence = alpha + beta
    last_surprise, last_deviation = float(fit.resid[-1]), float(fit.conditional_volatility[-1])
    variance = omega + alpha * last_surprise**2 + beta * last_deviation**2
    if not (variance > 0 and 0 <= persistence <= 1 + 1e-6):
        return _no_garch(Status.NOT_CONVERGED)
    # Near 1 the half-life is a quotient of roundings.
    lasting = persistence >= 1 - 1e-6 or persistence <= 1e-6
    return Garch(
        omega=omega / 1e4,
        alpha=alpha,
        beta=beta,
        persistence=persistence,
        half_life=None if lasting else math.log(0.5) / math.log(persistence),
        volatility=math.sqrt(variance * SESSIONS_PER_YEAR) / 100.0,
        status=Status.OK,
    )


def volatility_clustering(returns: npt.ArrayLike) -> Clustering:
    """Compute everything above for one series; see :class:`Clustering`."""
    values = observed("returns", returns)[0]
    acf, acf_status = _autocorrelations(values, ACF_LAGS)
    box, lm, model = ljung_box(values), arch_lm(values), garch(values)
    smoothed = ewma_volatility(values)
    ewma = float(smoothed[-1]) if smoothed.size and np.isfinite(smoothed[-1]) else None
    expected = model.volatility if model.volatility is not None else ewma
    tested = box.p_value is not None and lm.p_value is not None
    return Clustering(
        autocorrelations=tuple(acf.tolist()) if acf_status is Status.OK else None,
        acf_status=acf_status,
        ljung_box=box,
        arch_lm=lm,
        garch=model,
        ewma_volatility=ewma,
        volatility=expected,
        volatility_model=None if expected is None else "garch" if model.volatility is not None else "ewma",
        is_clustered=(box.p_value < SIGNIFICANCE and lm.p_value < SIGNIFICANCE)  # type: ignore[operator]
        if tested
        else None,
        n_returns=values.size,
    )


def _no_garch(status: Status) -> Garch:
    return Garch(None, None, None, None, None, None, status)


def _autocorrelations(values: FloatArray, lags: int) -> tuple[FloatArray, Status]:
    if values.size <= lags:
        return np.empty(0), Status.INSUFFICIENT_HISTORY if values.size else Status.NO_DATA
    return _acf(np.abs(values), lags)


def _acf(values: FloatArray, lags: int) -> tuple[FloatArray, Status]:
    centred = values - values.mean()
    total = float((centred * centred).sum())
    if total <= (NO_VARIATION * max(1.0, abs(float(values.mean())))) ** 2 * values.size:
        return np.empty(0), Status.ZERO_VARIANCE
    return np.array([(centred[lag:] * centred[:-lag]).sum() for lag in range(1, lags + 1)]) / total, Status.OK


def _squared_surprises(values: FloatArray) -> tuple[FloatArray, Status]:
    """Return squared demeaned returns in percent, and whether a test may be made of them."""
    if values.size < TEST_RETURNS:
        return values, Status.INSUFFICIENT_HISTORY if values.size else Status.NO_DATA
    if mean_and_deviation(values[None, :])[2][0]:
        return values, Status.ZERO_VARIANCE
    return ((values - values.mean()) * 100.0) ** 2, Status.OK


def _chi_square_tail(statistic: float, degrees: int) -> float:
    from scipy.special import chdtrc

    return float(chdtrc(degrees, max(statistic, 0.0)))
