"""Risk and risk-adjusted performance of a series of simple returns.

Belongs here: measures of one series, alone or against a market. Does not belong here: how returns come about, tables,
storage, Dagster.

Returns are simple, one per session, decimal fractions, in the order of time. A missing return (NaN) is left out; two
series are compared where both have one. A return below -1 is refused. Risk-free rates are effective annual
fractions; each session earns ``(1 + risk_free) ** (1 / 252) - 1``. Means are annualised by 252, deviations by the root
of 252, growth by compounding; growth over less than 252 sessions is not annualised: what needs it is undefined there.

Every public function gives a float, or None where the measure is undefined. A measure of many windows at once is the
same code: :func:`window_measures` takes a matrix whose rows are windows and gives a status beside each value.
"""

from __future__ import annotations

from statistics import NormalDist
from typing import Final, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from finance_assets.contracts.status import Status
from finance_assets.sectors._arrays import (
    NO_VARIATION,
    SESSIONS_PER_YEAR,
    BoolArray,
    FloatArray,
    Measured,
    as_returns,
    mean_and_deviation,
    measured,
    observed,
    observed_pairs,
    only,
    windows,
)

__all__ = [
    "CONFIDENCES",
    "AlphaBeta",
    "Drawdown",
    "alpha_beta",
    "calmar_ratio",
    "compound_annual_growth",
    "expected_shortfall",
    "information_ratio",
    "m_squared",
    "max_drawdown",
    "omega_ratio",
    "pain_index",
    "relative_volatility",
    "rolling_volatility",
    "sharpe_ratio",
    "sortino_ratio",
    "tracking_error",
    "treynor_ratio",
    "ulcer_index",
    "value_at_risk",
    "volatility",
    "window_measures",
]

VarMethod = Literal["historical", "gaussian", "cornish_fisher"]
EsMethod = Literal["historical", "gaussian"]

#: Confidence levels of the tables, by the name that their columns carry.
CONFIDENCES: Final[dict[str, float]] = {"95": 0.95, "975": 0.975, "99": 0.99}
#: Fewest returns of a Sharpe ratio, of a regression on the market, and of a tail measure by confidence.
SHARPE_RETURNS: Final = 30
REGRESSION_RETURNS: Final = 60
TAIL_RETURNS: Final = 100
FAR_TAIL_RETURNS: Final = 250
FAR_TAIL: Final = 0.99

_ROOT_YEAR: Final = float(np.sqrt(SESSIONS_PER_YEAR))


class AlphaBeta(NamedTuple):
    """Regression of excess returns on the market's excess returns.

    Attributes
    ----------
    alpha
        Intercept, fraction per session.
    beta
        Slope.
    alpha_annual
        ``alpha`` times 252: arithmetic, not compounded.
    alpha_t, beta_t
        Classical t-statistics of the coefficients; None where the fit is perfect.
    r_squared
        Share of the variance that the market explains; None where there is no variance.
    n_returns
        Pairs of returns used.
    """

    alpha: float | None
    beta: float | None
    alpha_annual: float | None
    alpha_t: float | None
    beta_t: float | None
    r_squared: float | None
    n_returns: int


class Drawdown(NamedTuple):
    """The deepest fall from a peak.

    Positions count levels: 0 is the level before the first return, ``k`` the level after ``returns[k - 1]``. Where
    nothing was ever lost the depth is 0 and there are no positions.

    Attributes
    ----------
    depth
        Level at the trough over the level at the peak, less one: 0 or negative. None without a return.
    peak
        Newest position of the highest level before the trough.
    trough
        First position of the deepest fall.
    recovery
        First position after the trough at which the level is back at the peak's; None while it is not.
    """

    depth: float | None
    peak: int | None
    trough: int | None
    recovery: int | None


# -- public: one series ------------------------------------------------------------------------------------------


def value_at_risk(
    returns: npt.ArrayLike, confidence: float = 0.95, method: VarMethod | str = "historical"
) -> float | None:
    """Compute the loss of one session that is not exceeded with the given confidence.

    Parameters
    ----------
    returns
        Simple returns.
    confidence
        Between 0.5 and 1, both excluded.
    method
        ``historical``: the negative quantile of the returns, interpolated linearly (Hyndman-Fan 7). ``gaussian``:
        ``-(mean + z * sd)``, sample deviation. ``cornish_fisher``: the same with a quantile corrected for population
        skewness and excess kurtosis.

    Returns
    -------
    float or None
        Positive is a loss, decimal fraction. None with fewer than 100 returns (250 from 99 % on), and for
        ``cornish_fisher`` without variance or outside the domain where the corrected quantile grows with the
        uncorrected one (Maillard 2012).

    Raises
    ------
    ValueError
        Unknown method, or a confidence outside its bounds.
    """
    _require_confidence(confidence)
    if method not in _VAR:
        raise ValueError(f"method must be one of {', '.join(_VAR)}, got {method!r}")
    return only(_VAR[method](_Windows(observed("returns", returns)), confidence))


def expected_shortfall(
    returns: npt.ArrayLike, confidence: float = 0.95, method: EsMethod | str = "historical"
) -> float | None:
    """Compute the mean loss of one session in the worst ``1 - confidence`` of cases.

    Parameters
    ----------
    returns
        Simple returns.
    confidence
        Between 0.5 and 1, both excluded.
    method
        ``historical``: Rockafellar and Uryasev's, which counts the return at the boundary by the part of it that
        belongs to the tail and so is continuous in the confidence. ``gaussian``: of the fitted normal distribution.

    Returns
    -------
    float or None
        Positive is a loss, decimal fraction. None with fewer than 100 returns (250 from 99 % on).

    Raises
    ------
    ValueError
        Unknown method, or a confidence outside its bounds.
    """
    _require_confidence(confidence)
    if method not in _ES:
        raise ValueError(f"method must be one of {', '.join(_ES)}, got {method!r}")
    return only(_ES[method](_Windows(observed("returns", returns)), confidence))


def sharpe_ratio(returns: npt.ArrayLike, risk_free: float = 0.0) -> float | None:
    """Compute the annualised mean of excess returns over their annualised sample deviation.

    None with fewer than 30 returns and where they do not vary.
    """
    return only(_sharpe(_Windows(observed("returns", returns), risk_free=risk_free)))


def sortino_ratio(returns: npt.ArrayLike, risk_free: float = 0.0) -> float | None:
    """Compute the annualised mean of excess returns over their annualised downside deviation.

    The downside deviation is the root of the mean square of the returns below the risk-free one, over all returns. None
    without returns, and where none of them is below.
    """
    return only(_sortino(_Windows(observed("returns", returns), risk_free=risk_free)))


def volatility(returns: npt.ArrayLike) -> float | None:
    """Compute the annualised sample deviation; None with fewer than two returns. Equal returns give 0."""
    return only(_volatility(_Windows(observed("returns", returns))))


def compound_annual_growth(returns: npt.ArrayLike) -> float | None:
    """Compute the annual rate at which the returns compound; None over fewer than 252 sessions."""
    return only(_growth(_Windows(observed("returns", returns))))


def omega_ratio(returns: npt.ArrayLike, risk_free: float = 0.0) -> float | None:
    """Compute the sum of gains over the risk-free return, over the sum of shortfalls below it.

    None without returns, and where none is below.
    """
    return only(_omega(_Windows(observed("returns", returns), risk_free=risk_free)))


def calmar_ratio(returns: npt.ArrayLike) -> float | None:
    """Compute compound annual growth over the size of the maximum drawdown.

    None over fewer than 252 sessions, and where nothing was ever lost.
    """
    return only(_calmar(_Windows(observed("returns", returns))))


def ulcer_index(returns: npt.ArrayLike) -> float | None:
    """Compute the root of the mean squared drawdown (Martin), over all sessions; None without returns."""
    return only(_ulcer(_Windows(observed("returns", returns))))


def pain_index(returns: npt.ArrayLike) -> float | None:
    """Compute the mean size of the drawdown, over all sessions; None without returns."""
    return only(_pain(_Windows(observed("returns", returns))))


def max_drawdown(returns: npt.ArrayLike) -> Drawdown:
    """Find the deepest fall of the compounded level from a peak; the level before the first return can be one.

    Missing returns are left out, and positions count them, so that they point into the series as given.
    """
    array = as_returns("returns", returns)
    places = np.flatnonzero(~np.isnan(array))
    if places.size == 0:
        return Drawdown(None, None, None, None)
    found = _Windows(np.ascontiguousarray(array[places][None, :])).drawdown

    def place(position: int) -> int | None:
        return None if position < 0 else 0 if position == 0 else int(places[position - 1]) + 1

    depth, peak, trough, recovery = (float(found.depth[0]), *(int(p[0]) for p in found[1:]))
    return Drawdown(depth, place(peak), place(trough), place(recovery))


# -- public: one series against a market -------------------------------------------------------------------------


def alpha_beta(returns: npt.ArrayLike, market: npt.ArrayLike, risk_free: float = 0.0) -> AlphaBeta:
    """Regress excess returns on the market's excess returns by ordinary least squares.

    Parameters
    ----------
    returns, market
        Simple returns of the same sessions.
    risk_free
        Effective annual fraction.

    Returns
    -------
    AlphaBeta
        Every coefficient is None with fewer than 60 pairs, and where the market does not vary.
    """
    pair = _pair(returns, market, risk_free)
    fit = _regression(pair)
    return AlphaBeta(
        only(fit["alpha"]),
        only(fit["beta"]),
        only(fit["alpha_annual"]),
        only(fit["alpha_t"]),
        only(fit["beta_t"]),
        only(fit["r_squared"]),
        pair.n,
    )


def treynor_ratio(returns: npt.ArrayLike, market: npt.ArrayLike, risk_free: float = 0.0) -> float | None:
    """Compute compound annual growth above the risk-free rate over beta; None where either is, or beta is 0."""
    return only(_treynor(_pair(returns, market, risk_free)))


def tracking_error(returns: npt.ArrayLike, market: npt.ArrayLike) -> float | None:
    """Compute the annualised sample deviation of the difference to the market; None with fewer than two pairs."""
    return only(_tracking_error(_pair(returns, market, 0.0)))


def information_ratio(returns: npt.ArrayLike, market: npt.ArrayLike) -> float | None:
    """Compute the difference of compound annual growth over the tracking error.

    None over fewer than 252 sessions, and where the difference to the market does not vary.
    """
    return only(_information(_pair(returns, market, 0.0)))


def m_squared(returns: npt.ArrayLike, market: npt.ArrayLike, risk_free: float = 0.0) -> float | None:
    """Compute the growth that the series would have had at the market's volatility (Modigliani and Modigliani).

    None over fewer than 252 sessions, and where the series does not vary.
    """
    return only(_m_squared(_pair(returns, market, risk_free)))


def relative_volatility(returns: npt.ArrayLike, market: npt.ArrayLike) -> float | None:
    """Compute the volatility over that of the market, on the sessions of both; None where the market does not vary."""
    return only(_relative_volatility(_pair(returns, market, 0.0)))


def rolling_volatility(
    returns: npt.ArrayLike, window: int = 30, sessions_per_year: int = SESSIONS_PER_YEAR
) -> FloatArray:
    """Compute the annualised sample deviation of the last `window` returns, for every session.

    Parameters
    ----------
    returns
        Simple returns, NaN where there is none.
    window
        Returns in a window, at least 2; missing ones are passed over and not counted.

    Returns
    -------
    numpy.ndarray
        One value per session; NaN before the first full window and where the session itself has no return. Equal
        returns give 0.

    Raises
    ------
    ValueError
        `window` is below 2.
    """
    if window < 2:
        raise ValueError(f"window must be at least 2, got {window}")
    array = as_returns("returns", returns)
    result = np.full(array.size, np.nan)
    places = np.flatnonzero(~np.isnan(array))
    if places.size >= window:
        _, deviation, still = mean_and_deviation(windows(array[places], window))
        result[places[window - 1 :]] = np.where(still, 0.0, deviation) * np.sqrt(sessions_per_year)
    return result


# -- public: many windows at once --------------------------------------------------------------------------------


def window_measures(
    rows: FloatArray, market_rows: FloatArray | None = None, risk_free: npt.ArrayLike = 0.0
) -> dict[str, Measured]:
    """Compute every measure of many windows of the same length.

    Parameters
    ----------
    rows
        Simple returns, one window per row, none missing.
    market_rows
        The market's returns on the same sessions, of the same shape. None leaves out what needs a market.
    risk_free
        Effective annual fraction, one for all or one per window.

    Returns
    -------
    dict
        Measure by name, each with one value and one status per window. Drawdown positions are in
        :func:`window_drawdowns`.
    """
    own = _Windows(rows, risk_free=risk_free)
    found = {
        "volatility": _volatility(own),
        "compound_annual_growth": _growth(own),
        "sharpe_ratio": _sharpe(own),
        "sortino_ratio": _sortino(own),
        "omega_ratio": _omega(own),
        "max_drawdown": _max_drawdown(own),
        "current_drawdown": _current_drawdown(own),
        "calmar_ratio": _calmar(own),
        "ulcer_index": _ulcer(own),
        "pain_index": _pain(own),
    }
    for name, confidence in CONFIDENCES.items():
        found |= {f"var_{method}_{name}": compute(own, confidence) for method, compute in _VAR.items()}
        found |= {f"es_{method}_{name}": compute(own, confidence) for method, compute in _ES.items()}
    return found if market_rows is None else found | market_measures(rows, market_rows, risk_free)


def market_measures(rows: FloatArray, market_rows: FloatArray, risk_free: npt.ArrayLike = 0.0) -> dict[str, Measured]:
    """Compute every measure that needs a market, of many windows of pairs; see :func:`window_measures`."""
    pair = _Windows(rows, market_rows, risk_free)
    return {
        **_regression(pair),
        "treynor_ratio": _treynor(pair),
        "tracking_error": _tracking_error(pair),
        "information_ratio": _information(pair),
        "m_squared": _m_squared(pair),
        "relative_volatility": _relative_volatility(pair),
    }


class WindowDrawdowns(NamedTuple):
    """Deepest falls of many windows: see :class:`Drawdown`; a position that does not exist is -1."""

    depth: FloatArray
    peak: npt.NDArray[np.intp]
    trough: npt.NDArray[np.intp]
    recovery: npt.NDArray[np.intp]


def window_drawdowns(rows: FloatArray) -> WindowDrawdowns:
    """Find the deepest fall of every window."""
    return _Windows(rows).drawdown


# -- the measures, on windows ------------------------------------------------------------------------------------


class _Windows:
    """Windows of returns, and what several measures need of them, computed once."""

    def __init__(self, rows: FloatArray, market: FloatArray | None = None, risk_free: npt.ArrayLike = 0.0) -> None:
        self.rows = rows
        self.count, self.n = rows.shape
        self.annual_free = np.broadcast_to(np.asarray(risk_free, dtype=np.float64), (self.count,))
        if not (self.annual_free > -1).all():
            raise ValueError("risk_free is an effective annual fraction above -1, such as 0.02 for two percent")
        self.free = (1.0 + self.annual_free) ** (1.0 / SESSIONS_PER_YEAR) - 1.0
        self.market = None if market is None else _Windows(market, risk_free=risk_free)
        self.cache: dict[str, object] = {}

    def fewer_than(self, count: int) -> BoolArray:
        return np.full(self.count, self.n < count)

    @property
    def empty(self) -> tuple[BoolArray, Status]:
        return np.full(self.count, self.n == 0), Status.NO_DATA

    @property
    def moments(self) -> tuple[FloatArray, FloatArray, BoolArray]:
        if "moments" not in self.cache:
            self.cache["moments"] = mean_and_deviation(self.rows)
        return self.cache["moments"]  # type: ignore[return-value]

    @property
    def excess(self) -> FloatArray:
        return self.rows - self.free[:, None]

    @property
    def ascending(self) -> FloatArray:
        if "ascending" not in self.cache:
            self.cache["ascending"] = np.sort(self.rows, axis=1)
        return self.cache["ascending"]  # type: ignore[return-value]

    @property
    def fall(self) -> FloatArray:
        """Drawdown after each return: level over the highest level so far, less one."""
        if "fall" not in self.cache:
            levels = np.multiply.accumulate(1.0 + self.rows, axis=1)
            # The level before the first return is a peak too.
            self.cache["levels"] = levels
            self.cache["fall"] = levels / np.maximum(np.maximum.accumulate(levels, axis=1), 1.0) - 1.0
        return self.cache["fall"]  # type: ignore[return-value]

    @property
    def drawdown(self) -> WindowDrawdowns:
        if "drawdown" not in self.cache:
            self.cache["drawdown"] = self._find_drawdown()
        return self.cache["drawdown"]  # type: ignore[return-value]

    def _find_drawdown(self) -> WindowDrawdowns:
        none = np.full(self.count, -1, dtype=np.intp)
        if self.n == 0 or self.count == 0:
            return WindowDrawdowns(np.full(self.count, np.nan), none, none.copy(), none.copy())
        fall = self.fall
        deepest = fall.argmin(axis=1)
        depth = np.minimum(np.take_along_axis(fall, deepest[:, None], axis=1)[:, 0], 0.0)
        lost = depth < 0
        levels: FloatArray = np.concatenate((np.ones((self.count, 1)), self.cache["levels"]), axis=1)  # type: ignore[arg-type]
        place = np.arange(self.n + 1)
        trough = deepest + 1
        before = np.where(place <= trough[:, None], levels, -np.inf)
        highest = before.max(axis=1)
        # Of equal peaks the newest: the fall begins there.
        peak = self.n - before[:, ::-1].argmax(axis=1)
        back = (place > trough[:, None]) & (levels >= highest[:, None])
        recovery = np.where(back.any(axis=1), back.argmax(axis=1), -1)
        return WindowDrawdowns(
            np.where(lost, depth, 0.0),
            np.where(lost, peak, -1),
            np.where(lost, trough, -1),
            np.where(lost, recovery, -1),
        )


def _pair(returns: npt.ArrayLike, market: npt.ArrayLike, risk_free: float) -> _Windows:
    own, other = observed_pairs("returns", returns, "market", market)
    return _Windows(own, other, risk_free)


def _of_market(pair: _Windows) -> _Windows:
    if pair.market is None:
        raise ValueError("this measure needs the market's returns")
    return pair.market


def _require_confidence(confidence: float) -> None:
    if not 0.5 < confidence < 1:
        raise ValueError(f"confidence must be between 0.5 and 1, such as 0.95, got {confidence}")


def _short_of_tail(own: _Windows, confidence: float) -> tuple[BoolArray, Status]:
    # 0.99 as a caller computes it may be a rounding below 0.99.
    least = FAR_TAIL_RETURNS if confidence >= FAR_TAIL - 1e-9 else TAIL_RETURNS
    return own.fewer_than(least), Status.INSUFFICIENT_HISTORY


def _undefined(own: _Windows) -> Measured:
    return measured(np.full(own.count, np.nan), own.empty, (True, Status.INSUFFICIENT_HISTORY))


def _historical_var(own: _Windows, confidence: float) -> Measured:
    if own.n == 0:
        return _undefined(own)
    rank = (own.n - 1) * (1.0 - confidence)
    below = int(rank)
    lower, upper = own.ascending[:, below], own.ascending[:, min(below + 1, own.n - 1)]
    return measured(-(lower + (rank - below) * (upper - lower)), _short_of_tail(own, confidence))


def _gaussian_var(own: _Windows, confidence: float) -> Measured:
    if own.n == 0:
        return _undefined(own)
    mean, deviation, _ = own.moments
    return measured(-(mean + _quantile(confidence) * deviation), _short_of_tail(own, confidence))


def _cornish_fisher_var(own: _Windows, confidence: float) -> Measured:
    if own.n == 0:
        return _undefined(own)
    mean, deviation, still = own.moments
    centred = own.rows - mean[:, None]
    second = (centred**2).mean(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = (centred**3).mean(axis=1) / second**1.5
        k = (centred**4).mean(axis=1) / second**2 - 3.0
    z = _quantile(confidence)
    corrected = z + (z**2 - 1) * s / 6 + (z**3 - 3 * z) * k / 24 - (2 * z**3 - 5 * z) * s**2 / 36
    return measured(
        -(mean + corrected * deviation),
        _short_of_tail(own, confidence),
        (still, Status.ZERO_VARIANCE),
        (~_grows_between(s, k, z), Status.OUTSIDE_DOMAIN),
    )


def _grows_between(s: FloatArray, k: FloatArray, z: float) -> BoolArray:
    """Return where the Cornish-Fisher quantile grows all the way from `z` to 0.

    Its slope at ``u`` is the parabola ``1 + u s / 3 + (u² - 1) k / 8 - (6 u² - 5) s² / 36``; where it is not above 0,
    a worse quantile would give a smaller loss.
    """
    square = k / 8 - s**2 / 6
    constant = 1 - k / 8 + 5 * s**2 / 36

    def slope(u: FloatArray | float) -> FloatArray:
        return np.asarray(square * np.square(u) + s / 3 * u + constant)

    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = -(s / 3) / (2 * square)
        inside = (vertex > min(z, 0.0)) & (vertex < max(z, 0.0))
        lowest = np.where(inside, slope(np.where(inside, vertex, 0.0)), np.inf)
        return np.asarray((slope(z) > 0) & (slope(0.0) > 0) & (lowest > 0))


def _historical_es(own: _Windows, confidence: float) -> Measured:
    if own.n == 0:
        return _undefined(own)
    size = own.n * (1.0 - confidence)
    whole = int(size)
    tail = own.ascending[:, :whole].sum(axis=1) + (size - whole) * own.ascending[:, min(whole, own.n - 1)]
    return measured(-tail / size, _short_of_tail(own, confidence))


def _gaussian_es(own: _Windows, confidence: float) -> Measured:
    if own.n == 0:
        return _undefined(own)
    mean, deviation, _ = own.moments
    density = NormalDist().pdf(_quantile(confidence))
    return measured(-(mean - deviation * density / (1.0 - confidence)), _short_of_tail(own, confidence))


_VAR: Final = {"historical": _historical_var, "gaussian": _gaussian_var, "cornish_fisher": _cornish_fisher_var}
_ES: Final = {"historical": _historical_es, "gaussian": _gaussian_es}


def _quantile(confidence: float) -> float:
    return -NormalDist().inv_cdf(confidence)


def _short(own: _Windows, least: int) -> tuple[BoolArray, Status]:
    return own.fewer_than(least), Status.INSUFFICIENT_HISTORY


def _volatility(own: _Windows) -> Measured:
    _, deviation, still = own.moments
    return measured(np.where(still, 0.0, deviation) * _ROOT_YEAR, own.empty, _short(own, 2))


def _sharpe(own: _Windows) -> Measured:
    mean, deviation, still = mean_and_deviation(own.excess)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / deviation * _ROOT_YEAR
    return measured(ratio, own.empty, _short(own, SHARPE_RETURNS), (still, Status.ZERO_VARIANCE))


def _sortino(own: _Windows) -> Measured:
    if own.n == 0:
        return _undefined(own)
    excess = own.excess
    mean = excess.mean(axis=1)
    downside = np.sqrt((np.minimum(excess, 0.0) ** 2).mean(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = mean / downside * _ROOT_YEAR
    none_below = downside <= NO_VARIATION * np.maximum(1.0, np.abs(mean))
    return measured(ratio, (none_below, Status.UNDEFINED_DENOMINATOR))


def _omega(own: _Windows) -> Measured:
    if own.n == 0:
        return _undefined(own)
    excess = own.excess
    below = -np.minimum(excess, 0.0).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.maximum(excess, 0.0).sum(axis=1) / below
    return measured(ratio, (below <= NO_VARIATION, Status.UNDEFINED_DENOMINATOR))


def _growth(own: _Windows) -> Measured:
    if "growth" not in own.cache:
        own.cache["growth"] = _compound(own)
    return own.cache["growth"]  # type: ignore[return-value]


def _compound(own: _Windows) -> Measured:
    if own.n == 0:
        return _undefined(own)
    total = np.multiply.reduce(1.0 + own.rows, axis=1)
    return measured(total ** (SESSIONS_PER_YEAR / own.n) - 1.0, _short(own, SESSIONS_PER_YEAR))


def _max_drawdown(own: _Windows) -> Measured:
    return measured(own.drawdown.depth, own.empty)


def _current_drawdown(own: _Windows) -> Measured:
    return _undefined(own) if own.n == 0 else measured(own.fall[:, -1])


def _calmar(own: _Windows) -> Measured:
    growth, depth = _growth(own), own.drawdown.depth
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = growth.value / np.abs(depth)
    return measured(
        ratio,
        own.empty,
        _short(own, SESSIONS_PER_YEAR),
        (np.abs(depth) <= NO_VARIATION, Status.UNDEFINED_DENOMINATOR),
    )


def _ulcer(own: _Windows) -> Measured:
    return _undefined(own) if own.n == 0 else measured(np.sqrt((own.fall**2).mean(axis=1)))


def _pain(own: _Windows) -> Measured:
    return _undefined(own) if own.n == 0 else measured(-own.fall.mean(axis=1))


# -- against a market --------------------------------------------------------------------------------------------


def _regression(pair: _Windows) -> dict[str, Measured]:
    if "regression" not in pair.cache:
        pair.cache["regression"] = _regress(pair)
    return pair.cache["regression"]  # type: ignore[return-value]


def _regress(pair: _Windows) -> dict[str, Measured]:
    market = _of_market(pair)
    names = ("alpha", "beta", "alpha_annual", "alpha_t", "beta_t", "r_squared")
    if pair.n < 3:
        return {name: _undefined(pair) for name in names}
    y, x = pair.excess, market.excess
    x_mean, _, still = mean_and_deviation(x)
    y_mean, _, flat = mean_and_deviation(y)
    dx, dy = x - x_mean[:, None], y - y_mean[:, None]
    sxx, sxy, syy = (dx * dx).sum(axis=1), (dx * dy).sum(axis=1), (dy * dy).sum(axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        beta = sxy / sxx
        alpha = y_mean - beta * x_mean
        residual = ((dy - beta[:, None] * dx) ** 2).sum(axis=1)
        variance = residual / (pair.n - 2)
        beta_t = beta / np.sqrt(variance / sxx)
        alpha_t = alpha / np.sqrt(variance * (1.0 / pair.n + x_mean**2 / sxx))
        r_squared = 1.0 - residual / syy
    short = (pair.empty, _short(pair, REGRESSION_RETURNS), (still, Status.ZERO_VARIANCE))
    # What is left after a perfect fit is rounding, and so would be a t-statistic of it.
    perfect = (np.sqrt(variance) <= NO_VARIATION * np.maximum(1.0, np.abs(y_mean)), Status.UNDEFINED_DENOMINATOR)
    return {
        "alpha": measured(alpha, *short),
        "beta": measured(beta, *short),
        "alpha_annual": measured(alpha * SESSIONS_PER_YEAR, *short),
        "alpha_t": measured(alpha_t, *short, perfect),
        "beta_t": measured(beta_t, *short, perfect),
        "r_squared": measured(r_squared, *short, (flat, Status.ZERO_VARIANCE)),
    }


def _treynor(pair: _Windows) -> Measured:
    growth, beta = _growth(pair), _regression(pair)["beta"]
    zero = np.abs(beta.value) <= NO_VARIATION
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (growth.value - pair.annual_free) / beta.value
    return measured(
        ratio,
        pair.empty,
        _short(pair, SESSIONS_PER_YEAR),
        (beta.status == Status.ZERO_VARIANCE.code, Status.ZERO_VARIANCE),
        (zero, Status.UNDEFINED_DENOMINATOR),
    )


def _difference(pair: _Windows) -> tuple[FloatArray, BoolArray]:
    _, deviation, still = mean_and_deviation(pair.rows - _of_market(pair).rows)
    return deviation, still


def _tracking_error(pair: _Windows) -> Measured:
    deviation, still = _difference(pair)
    return measured(np.where(still, 0.0, deviation) * _ROOT_YEAR, pair.empty, _short(pair, 2))


def _information(pair: _Windows) -> Measured:
    deviation, still = _difference(pair)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = (_growth(pair).value - _growth(_of_market(pair)).value) / (deviation * _ROOT_YEAR)
    return measured(ratio, pair.empty, _short(pair, SESSIONS_PER_YEAR), (still, Status.ZERO_VARIANCE))


def _m_squared(pair: _Windows) -> Measured:
    _, own, still = pair.moments
    _, other, _ = _of_market(pair).moments
    with np.errstate(divide="ignore", invalid="ignore"):
        value = (_growth(pair).value - pair.annual_free) * other / own + pair.annual_free
    return measured(value, pair.empty, _short(pair, SESSIONS_PER_YEAR), (still, Status.ZERO_VARIANCE))


def _relative_volatility(pair: _Windows) -> Measured:
    _, own, still = pair.moments
    _, other, market_still = _of_market(pair).moments
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where(still, 0.0, own) / other
    return measured(ratio, pair.empty, _short(pair, 2), (market_still, Status.ZERO_VARIANCE))
