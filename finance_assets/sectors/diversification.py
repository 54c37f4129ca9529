"""Long-only portfolios of sectors by four rules, and how diversified each is.

Belongs here: weights, the diversification ratio, the effective number of bets. Does not belong here: views on expected
returns (none of the four rules needs them), tables, storage, Dagster.

All rules work on the sample covariance (``ddof=1``) of the sessions on which every asset has a return. Three of them
follow from a covariance of full rank without a general optimiser, to rounding; the rest is skfolio's, imported where
used.
"""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

import numpy as np
import numpy.typing as npt

from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import FloatArray, mean_and_deviation

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "METHODS",
    "Method",
    "UndefinedWeights",
    "diversification_ratio",
    "effective_number_of_assets",
    "effective_number_of_bets",
    "optimal_weights",
    "risk_contributions",
    "weights",
]

Method = Literal["min_variance", "max_diversification", "risk_parity", "hrp"]
METHODS: Final[tuple[str, ...]] = get_args(Method)
"""Rules that :func:`weights` knows."""

#: An eigenvalue of the covariance so far below zero, relative to the largest, is no rounding.
_NOT_NEGATIVE: Final = -1e-10
#: Nor does it count as zero so far above it: the covariance has full rank, and weights computed from it have digits.
_FULL_RANK: Final = 1e-10
#: Newton's method doubles the digits at each step; it takes about ten.
_NEWTON_STEPS: Final = 100
_NEWTON_DONE: Final = 1e-9


class UndefinedWeights(ValueError):  # noqa: N818 - it says what is undefined, not that something failed
    """There are no such weights; ``status`` says why in the code that tables store."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


def weights(returns: Any, method: Method | str) -> pd.Series[float] | None:
    """Compute the weights of a long-only, fully invested portfolio.

    Parameters
    ----------
    returns
        Simple returns, sessions x assets: a pandas DataFrame, or an array, whose assets are then 0, 1, …
        Sessions on which an asset has none are left out.
    method
        ``min_variance``; ``max_diversification`` (largest ratio of the mean volatility to the portfolio's);
        ``risk_parity`` (equal contributions to variance); ``hrp`` (hierarchical risk parity, as skfolio has it:
        distances from Pearson's correlation, Ward linkage, optimal leaf order, inverse variance).

    Returns
    -------
    pandas.Series or None
        Weight by asset, none negative, sum 1. An asset that does not vary is excluded: weight 0. One asset has weight
        1. None with fewer than 2 N + 1 common sessions for N assets, where no asset varies, where the covariance is
        not positive semi-definite, and where the optimiser fails.

    Raises
    ------
    ValueError
        Unknown method, or `returns` is no table of at least one asset.
    """
    import pandas as pd

    table = returns if isinstance(returns, pd.DataFrame) else pd.DataFrame(np.asarray(returns, dtype=np.float64))
    try:
        found = optimal_weights(table.to_numpy(dtype=np.float64), method)
    except UndefinedWeights:
        return None
    return pd.Series(found, index=table.columns, name="weight")


def optimal_weights(returns: FloatArray, method: Method | str) -> FloatArray:
    """Compute weights as :func:`weights` does, from an array, and say why where there are none.

    Raises
    ------
    UndefinedWeights
        Its status is ``insufficient_history``, ``zero_variance``, ``outside_domain`` (covariance not positive
        semi-definite) or ``not_converged``.
    ValueError
        Unknown method, or not a table.
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    table = np.asarray(returns, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise ValueError(f"returns must be sessions x assets, got shape {table.shape}")
    table = table[np.isfinite(table).all(axis=1)]
    sessions, count = table.shape
    if sessions < 2 * count + 1:
        raise UndefinedWeights(
            Status.INSUFFICIENT_HISTORY,
            f"{count} assets need {2 * count + 1} sessions on which all have a return; there are {sessions}",
        )
    varying = ~mean_and_deviation(np.ascontiguousarray(table.T))[2]
    if not varying.any():
        raise UndefinedWeights(Status.ZERO_VARIANCE, "no asset varies")
    result = np.zeros(count)
    if varying.sum() == 1:
        result[varying] = 1.0
        return result
    chosen = table[:, varying]
    covariance = np.cov(chosen, rowvar=False)
    eigenvalues = np.linalg.eigvalsh(covariance)
    if eigenvalues[0] < _NOT_NEGATIVE * eigenvalues[-1]:
        raise UndefinedWeights(Status.OUTSIDE_DOMAIN, "the covariance is not positive semi-definite")
    direct = _direct(covariance, method) if eigenvalues[0] > _FULL_RANK * eigenvalues[-1] else None
    result[varying] = _optimise(chosen, method) if direct is None else direct
    return result


def _direct(covariance: FloatArray, method: str) -> FloatArray | None:
    """Return the weights that follow from a covariance of full rank; None where it takes an optimiser."""
    if method == "hrp":
        return None
    deviations = np.sqrt(np.diag(covariance))
    if method == "min_variance":
        held = _least_variance(covariance / covariance.diagonal().mean())
    else:
        # Both rules know no units: of assets of one volatility, then back.
        correlations = covariance / np.outer(deviations, deviations)
        held = _least_variance(correlations) if method == "max_diversification" else _equal_contributions(correlations)
        held = None if held is None else held / deviations
    return None if held is None else np.asarray(held / held.sum())


def _least_variance(matrix: FloatArray) -> FloatArray | None:
    """Return, up to its size, the non-negative vector of least variance among those of one sum.

    With ``matrix = L L'`` it is the least-squares solution of ``L' y = inv(L) 1`` over ``y >= 0``, which an active-set
    method reaches in finitely many steps.
    """
    from scipy.optimize import nnls

    root = np.linalg.cholesky(matrix)
    try:
        return np.asarray(nnls(root.T, np.linalg.solve(root, np.ones(len(matrix))))[0])
    except RuntimeError:  # too many steps
        return None


def _equal_contributions(matrix: FloatArray) -> FloatArray | None:
    """Return, up to its size, the positive vector whose elements contribute equally to its variance.

    It minimises ``y' M y / 2 - mean(log y)`` (Spinu 2013), which is convex and self-concordant: Newton's method, with
    steps that its decrement shortens, comes to the minimum from anywhere and stays positive.
    """
    share = 1.0 / len(matrix)
    held = np.full(len(matrix), 1.0 / math.sqrt(matrix.sum()))
    for _ in range(_NEWTON_STEPS):
        gradient = matrix @ held - share / held
        step = np.linalg.solve(matrix + np.diag(share / held**2), gradient)
        decrement = math.sqrt(max(float(gradient @ step), 0.0) / share)
        held = held - step if decrement < 0.25 else held - step / (1.0 + decrement)
        if decrement < _NEWTON_DONE:
            return held
    return None


def _optimise(returns: FloatArray, method: str) -> FloatArray:
    from skfolio.exceptions import OptimizationError
    from skfolio.optimization import (
        HierarchicalRiskParity,
        MaximumDiversification,
        MeanRisk,
        RiskBudgeting,
    )

    # By default skfolio minimises variance, budgets it equally and clusters by Ward's linkage, all long-only.
    estimator: Any = {
        "min_variance": MeanRisk,
        "max_diversification": MaximumDiversification,
        "risk_parity": RiskBudgeting,
        "hrp": HierarchicalRiskParity,
    }[method]()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = np.asarray(estimator.fit(returns).weights_, dtype=np.float64)
    except (OptimizationError, np.linalg.LinAlgError) as error:
        raise UndefinedWeights(Status.NOT_CONVERGED, f"{method}: {error}") from error
    # A solver ends within its tolerance of the bounds.
    found = np.maximum(found, 0.0)
    if not np.isfinite(found).all() or not math.isclose(found.sum(), 1.0, abs_tol=1e-4):
        raise UndefinedWeights(Status.NOT_CONVERGED, f"{method}: the weights add up to {found.sum()}")
    return np.asarray(found / found.sum())


def risk_contributions(weights: npt.ArrayLike, covariance: npt.ArrayLike) -> FloatArray | None:
    """Compute each asset's share of the portfolio's variance; they add up to 1. None where there is no variance."""
    held, matrix = _checked(weights, covariance)
    own = matrix @ held
    variance = float(held @ own)
    return np.asarray(held * own / variance) if variance > 0 else None


def diversification_ratio(weights: npt.ArrayLike, covariance: npt.ArrayLike) -> float | None:
    """Compute the weighted mean of volatilities over the portfolio's volatility (Choueifaty); 1 for a single asset.

    None where the portfolio has no variance.
    """
    held, matrix = _checked(weights, covariance)
    variance = float(held @ matrix @ held)
    return float(held @ np.sqrt(np.diag(matrix))) / math.sqrt(variance) if variance > 0 else None


def effective_number_of_bets(weights: npt.ArrayLike, covariance: npt.ArrayLike) -> float | None:
    """Compute the exponential of the entropy of variance over uncorrelated bets (Meucci 2009).

    The bets are the principal components of the covariance: 1 where one of them makes all the variance, N where N
    make the same. None where there is no variance.
    """
    held, matrix = _checked(weights, covariance)
    eigenvalues, vectors = np.linalg.eigh(matrix)
    shares = (vectors.T @ held) ** 2 * np.maximum(eigenvalues, 0.0)
    total = float(shares.sum())
    if total <= 0:
        return None
    shares = shares[shares > 0] / total
    return math.exp(-float((shares * np.log(shares)).sum()))


def effective_number_of_assets(weights: npt.ArrayLike) -> float | None:
    """Compute the inverse of the sum of squared weights (Herfindahl); None where all are 0."""
    held = np.asarray(weights, dtype=np.float64)
    total = float((held**2).sum())
    return 1.0 / total if total > 0 else None


def _checked(weights: npt.ArrayLike, covariance: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    held, matrix = np.asarray(weights, dtype=np.float64), np.asarray(covariance, dtype=np.float64)
    if held.ndim != 1 or matrix.shape != (held.size, held.size):
        raise ValueError(f"{held.shape} weights do not go with a covariance of shape {matrix.shape}")
    return held, matrix
