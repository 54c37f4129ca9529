"""How strongly returns move with the market and with macroeconomic changes.

Belongs here: a linear regression on several factors with errors that stand autocorrelation and changing variance, the
choice of factors that can be told apart, and what of a macro series was known when. Does not belong here: tables,
storage, Dagster.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from finance_assets.arrays import known_rows
from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import NO_VARIATION, FloatArray, mean_and_deviation

__all__ = [
    "TRANSFORMS",
    "Coefficient",
    "ExposureFit",
    "factor_exposure",
    "known_values",
    "macro_changes",
    "newey_west_lags",
    "variance_inflation_factors",
]

#: Fewest months of a regression.
LEAST_OBSERVATIONS: Final = 36
#: A factor that the others explain so well is left out.
LARGEST_VIF: Final = 10.0

Transform = Literal["relative_change", "difference", "surprise"]
TRANSFORMS: Final[tuple[str, ...]] = ("relative_change", "difference", "surprise")
"""What becomes of a macro series before it is a factor.

``relative_change`` for prices and indices (oil), ``difference`` for rates and index points that are percentages
already (yields, VIX), ``surprise`` for price levels (CPI): the relative change less the one before it, since the best
naive forecast of inflation is the last one.
"""

DayArray = npt.NDArray[np.datetime64]


@dataclass(frozen=True, slots=True)
class Coefficient:
    """One factor's coefficient.

    Attributes
    ----------
    factor
        Name; ``alpha`` is the intercept.
    value, standard_error, t_statistic
        Newey-West standard error. All None where undefined, and then ``status`` says why: the fit's own status, or
        ``outside_domain`` for a factor left out because the others explain it. A perfect fit has no t-statistic.
    variance_inflation
        Variance inflation factor among the factors it was judged with; None for the intercept.
    """

    factor: str
    value: float | None
    standard_error: float | None
    t_statistic: float | None
    variance_inflation: float | None
    status: Status


@dataclass(frozen=True, slots=True)
class ExposureFit:
    """A regression of returns on factors.

    Attributes
    ----------
    coefficients
        The intercept, then every factor in the order given.
    r_squared, adjusted_r_squared
        None where undefined.
    n_observations
        Observations on which the return and every factor are there.
    lags
        Lags of the Newey-West estimator.
    status
        ``ok``, ``no_data``, ``insufficient_history``, ``zero_variance`` (a factor does not vary) or ``outside_domain``
        (the factors are linearly dependent).
    """

    coefficients: tuple[Coefficient, ...]
    r_squared: float | None
    adjusted_r_squared: float | None
    n_observations: int
    lags: int
    status: Status

    def coefficient(self, factor: str) -> Coefficient:
        """Return the coefficient of a factor; KeyError where it was not asked for."""
        for coefficient in self.coefficients:
            if coefficient.factor == factor:
                return coefficient
        raise KeyError(factor)


def newey_west_lags(n_observations: int) -> int:
    """Return the lags of the Newey-West estimator, ``floor(4 (n / 100) ** (2 / 9))``."""
    return int(4.0 * (n_observations / 100.0) ** (2.0 / 9.0))


def factor_exposure(
    returns: npt.ArrayLike,
    factors: Mapping[str, npt.ArrayLike],
    *,
    least: int = LEAST_OBSERVATIONS,
    kept: Sequence[str] = ("market",),
) -> ExposureFit:
    """Regress returns on factors by ordinary least squares with Newey-West errors.

    Parameters
    ----------
    returns
        One value per period, NaN where there is none.
    factors
        Factor by name, of the same length. Periods on which anything is missing are left out.
    least
        Fewest periods.
    kept
        Factors that are never left out for being explained by the others.

    Returns
    -------
    ExposureFit
        The factor with the largest variance inflation above 10 is left out, and so on. Factors that are exactly
        dependent leave nothing defined: which of them is meant cannot be told.

    Raises
    ------
    ValueError
        No factor, or lengths differ.
    """
    names = list(factors)
    y = np.asarray(returns, dtype=np.float64)
    columns = [np.asarray(factors[name], dtype=np.float64) for name in names]
    if not names or y.ndim != 1 or any(column.shape != y.shape for column in columns):
        raise ValueError("give at least one factor, each with one value per return")
    x = np.column_stack(columns)
    complete = np.isfinite(y) & np.isfinite(x).all(axis=1)
    y, x = y[complete], x[complete]
    n = int(y.size)

    def undefined(status: Status) -> ExposureFit:
        nothing = tuple(Coefficient(name, None, None, None, None, status) for name in ("alpha", *names))
        return ExposureFit(nothing, None, None, n, newey_west_lags(n) if n else 0, status)

    if n == 0:
        return undefined(Status.NO_DATA)
    if n < max(least, len(names) + 2):
        return undefined(Status.INSUFFICIENT_HISTORY)
    _, deviation, still = mean_and_deviation(np.ascontiguousarray(x.T))
    if still.any():
        return undefined(Status.ZERO_VARIANCE)
    # Factors come in all units; what depends on what is told from them in their own deviations.
    scaled = (x - x.mean(axis=0)) / deviation
    if np.linalg.matrix_rank(scaled, tol=1e-8 * math.sqrt(n)) < len(names):
        return undefined(Status.OUTSIDE_DOMAIN)

    chosen, inflation, dropped = _drop_collinear(scaled, names, kept)
    used = [names.index(name) for name in chosen]
    design = np.column_stack([np.ones(n), x[:, used]])
    orthogonal, upper = np.linalg.qr(np.column_stack([np.ones(n), scaled[:, used]]))
    solved = np.linalg.solve(upper, orthogonal.T @ y)
    slopes = solved[1:] / deviation[used]
    beta = np.concatenate(([solved[0] - slopes @ x[:, used].mean(axis=0)], slopes))
    residual = y - design @ beta
    lags = newey_west_lags(n)
    errors = _newey_west_errors(x[:, used], deviation[used], residual, lags)
    perfect = math.sqrt(float(residual @ residual) / n) <= NO_VARIATION * max(1.0, float(np.abs(y).max()))

    coefficients = []
    for place, name in enumerate(["alpha", *chosen]):
        value, error = float(beta[place]), float(errors[place])
        told = not perfect and error > 0
        coefficients.append(
            Coefficient(
                name,
                value,
                error if told else None,
                value / error if told else None,
                inflation.get(name),
                Status.OK,
            )
        )
    by_name = {c.factor: c for c in coefficients}
    for name, factor in dropped.items():
        by_name[name] = Coefficient(name, None, None, None, factor, Status.OUTSIDE_DOMAIN)
    total = float(((y - y.mean()) ** 2).sum())
    r_squared = 1.0 - float(residual @ residual) / total if total > NO_VARIATION**2 * n else None
    adjusted = None if r_squared is None else 1.0 - (1.0 - r_squared) * (n - 1) / (n - len(used) - 1)
    return ExposureFit(tuple(by_name[name] for name in ("alpha", *names)), r_squared, adjusted, n, lags, Status.OK)


def variance_inflation_factors(factors: npt.ArrayLike) -> FloatArray:
    """Compute ``1 / (1 - R²)`` of each factor regressed on the others, observations x factors.

    Raises
    ------
    ValueError
        The factors are linearly dependent, or one does not vary.
    """
    x = np.asarray(factors, dtype=np.float64)
    _, deviation, still = mean_and_deviation(np.ascontiguousarray(x.T))
    if still.any():
        raise ValueError("a factor does not vary")
    scaled = (x - x.mean(axis=0)) / deviation
    if np.linalg.matrix_rank(scaled, tol=1e-8 * math.sqrt(x.shape[0])) < x.shape[1]:
        raise ValueError("the factors are linearly dependent")
    return _inflation(scaled)


def _inflation(scaled: FloatArray) -> FloatArray:
    """Return the inflation of standardised factors: what the inverse of their correlation has on its diagonal."""
    correlation = scaled.T @ scaled / (scaled.shape[0] - 1)
    return np.asarray(np.maximum(np.diag(np.linalg.inv(correlation)), 1.0))


def _drop_collinear(
    scaled: FloatArray, names: Sequence[str], kept: Sequence[str]
) -> tuple[list[str], dict[str, float], dict[str, float]]:
    """Return the factors to use, their inflation, and those left out with theirs."""
    chosen = list(names)
    dropped: dict[str, float] = {}
    while True:
        inflation = _inflation(scaled[:, [names.index(name) for name in chosen]])
        able = [(value, name) for value, name in zip(inflation.tolist(), chosen, strict=True) if name not in kept]
        largest, worst = max(able, default=(0.0, ""))
        if largest <= LARGEST_VIF or len(chosen) == 1:
            return chosen, dict(zip(chosen, inflation.tolist(), strict=True)), dropped
        dropped[worst] = largest
        chosen.remove(worst)


def _newey_west_errors(x: FloatArray, deviation: FloatArray, residual: FloatArray, lags: int) -> FloatArray:
    """Return standard errors of intercept and slopes, Bartlett weights, no small-sample correction."""
    n = residual.size
    # In units of the deviations the inverse is well conditioned; errors scale back like the coefficients.
    scaled = np.column_stack([np.ones(n), x / deviation])
    scores = scaled * residual[:, None]
    middle = scores.T @ scores
    for lag in range(1, lags + 1):
        crossed = scores[lag:].T @ scores[:-lag]
        middle += (1.0 - lag / (lags + 1.0)) * (crossed + crossed.T)
    inverse = np.linalg.inv(scaled.T @ scaled)
    errors = np.sqrt(np.maximum(np.diag(inverse @ middle @ inverse), 0.0))
    return np.asarray(errors / np.concatenate(([1.0], deviation)))


def known_values(
    reference_dates: npt.ArrayLike, release_dates: npt.ArrayLike, values: npt.ArrayLike, as_of: npt.ArrayLike
) -> FloatArray:
    """Return what was known of one macro series at the end of each date.

    Parameters
    ----------
    reference_dates, release_dates, values
        One entry per published number: the date it is about, the date it was published, the number. A revision is a
        later release of the same reference date.
    as_of
        Ascending dates.

    Returns
    -------
    numpy.ndarray
        Per date the number of the newest reference date published by then, in its newest release by then; NaN before
        the first. A number is never seen before its release.
    """
    reference = np.asarray(reference_dates, dtype="datetime64[D]")
    release = np.asarray(release_dates, dtype="datetime64[D]")
    number = np.asarray(values, dtype=np.float64)
    days: DayArray = np.asarray(as_of, dtype="datetime64[D]")
    usable = np.isfinite(number) & ~np.isnat(reference) & ~np.isnat(release)
    known = known_rows(reference[usable], release[usable], days)
    # The last place, at which -1 looks, is nothing.
    return np.append(number[usable], np.nan)[known]


def macro_changes(known: npt.ArrayLike, transform: Transform | str) -> FloatArray:
    """Turn a macro series as it was known at the end of each period into changes.

    Parameters
    ----------
    known
        One value per period, from :func:`known_values`.
    transform
        One of `TRANSFORMS`.

    Returns
    -------
    numpy.ndarray
        One change per period; NaN where a value it needs is missing, and where a relative change would be from a
        number that is not positive (oil closed below zero once).

    Raises
    ------
    ValueError
        Unknown transform.
    """
    if transform not in TRANSFORMS:
        raise ValueError(f"transform must be one of {', '.join(TRANSFORMS)}, got {transform!r}")
    values = np.asarray(known, dtype=np.float64)
    result = np.full(values.size, np.nan)
    if transform == "difference":
        result[1:] = values[1:] - values[:-1]
        return result
    base = np.where(values[:-1] > 0, values[:-1], np.nan)
    result[1:] = values[1:] / base - 1.0
    if transform == "surprise":
        change = result.copy()
        result[:] = np.nan
        result[2:] = change[2:] - change[1:-1]
    return result
