"""Tables of risk, correlation, clustering, portfolios and signals, from tables of composites and indices.

What belongs here: the way from the rows of ``int_sector_returns`` and ``int_index_returns`` to those of the tables that
dbt's risk marts read. The measures themselves stand in the modules beside this one.

A row is a pure function of the returns that it rests on. Tables whose rows are dear carry a fingerprint of those
returns; given the stored table, only rows whose fingerprint has changed are computed, and the result is the same as
computing all of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from finance_assets.contracts import sectors as contracts
from finance_assets.contracts.status import STATUSES, Status
from finance_assets.sectors import correlations, diversification, exposure, risk, signals, volatility
from finance_assets.sectors._arrays import SESSIONS_PER_YEAR, FloatArray, Measured

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.contracts.model import Contract

__all__ = [
    "COMPOSITE_COLUMNS",
    "INDEX_COLUMNS",
    "Panel",
    "correlation_table",
    "exposure_table",
    "portfolio_table",
    "read_panel",
    "risk_table",
    "signal_table",
    "volatility_table",
]

#: What the tables here need of the composites and of the indices.
COMPOSITE_COLUMNS: Final = ("sector", "session_date", "daily_return", "level", "chain_start_date")
INDEX_COLUMNS: Final = ("index_symbol", "session_date", "is_benchmark", "daily_return", "level", "chain_start_date")

#: Returns of a trailing risk window, of a clustering estimate, and sessions of a portfolio.
RISK_WINDOW: Final = 252
CLUSTERING_RETURNS: Final = 1260
PORTFOLIO_SESSIONS: Final = 252
#: Months of a regression on macro changes.
EXPOSURE_MONTHS: Final = 60
#: Enters every fingerprint: raise it when a formula changes, and every row is computed anew.
VERSION: Final = 2
#: Windows computed at a time, which bounds memory: 2,000 windows of 252 returns are 4 MB, and a measure holds several.
WINDOWS_AT_ONCE: Final = 2000

DayArray = npt.NDArray[np.datetime64]
IndexArray = npt.NDArray[np.intp]


@dataclass(frozen=True)
class Panel:
    """Returns and levels of all composites and of the benchmark, side by side.

    Attributes
    ----------
    sessions
        Sessions of the composites, ascending; the same for all.
    names
        Sectors in the order of the columns.
    returns, levels
        Sessions x sectors, NaN where there is none.
    chains
        Session on which each level is 1.0; NaT where there is no level.
    starts
        Row of the first session of each sector.
    benchmark
        Symbol of the benchmark; None where there is none.
    market_returns, market_levels, market_chains
        Of the benchmark, on the same sessions.
    """

    sessions: DayArray
    names: tuple[str, ...]
    returns: FloatArray
    levels: FloatArray
    chains: DayArray
    starts: IndexArray
    benchmark: str | None
    market_returns: FloatArray
    market_levels: FloatArray
    market_chains: DayArray

    @cached_property
    def series(self) -> dict[str, FloatArray]:
        """Returns by name: every sector, then the benchmark where there is one."""
        found = {name: self.returns[:, place] for place, name in enumerate(self.names)}
        return found if self.benchmark is None else {**found, self.benchmark: self.market_returns}


def read_panel(composites: pa.Table, indices: pa.Table) -> Panel:
    """Lay the rows of composites and of the benchmark out as arrays.

    Parameters
    ----------
    composites
        `COMPOSITE_COLUMNS` of ``int_sector_returns``.
    indices
        `INDEX_COLUMNS` of ``int_index_returns``; at most one of them is the benchmark.

    Raises
    ------
    ValueError
        Two indices are marked as the benchmark.
    """
    import pyarrow.compute as pc

    days = _days(composites, "session_date")
    sessions, rows = np.unique(days, return_inverse=True)
    names, columns = np.unique(np.array(composites.column("sector").to_pylist(), dtype=object), return_inverse=True)
    shape = (sessions.size, names.size)

    def laid_out(values: Any, nothing: Any) -> Any:
        table = np.full(shape, nothing)
        table[rows, columns] = values
        return table

    starts = np.full(names.size, sessions.size, dtype=np.intp)
    np.minimum.at(starts, columns, rows)

    market = indices.filter(pc.field("is_benchmark"))
    symbols = market.column("index_symbol").unique().to_pylist()
    if len(symbols) > 1:
        raise ValueError(f"only one index can be the benchmark, not {', '.join(sorted(symbols))}")
    market_days = _days(market, "session_date")
    place = np.minimum(np.searchsorted(sessions, market_days), max(sessions.size - 1, 0))
    inside = sessions[place] == market_days if sessions.size else np.zeros(0, dtype=np.bool_)

    def beside(values: Any, nothing: Any) -> Any:
        column = np.full(sessions.size, nothing)
        if sessions.size:
            column[place[inside]] = values[inside]
        return column

    return Panel(
        sessions=sessions,
        names=tuple(names.tolist()),
        returns=laid_out(_floats(composites, "daily_return"), np.nan),
        levels=laid_out(_floats(composites, "level"), np.nan),
        chains=laid_out(_days(composites, "chain_start_date"), np.datetime64("NaT", "D")),
        starts=starts,
        benchmark=symbols[0] if symbols else None,
        market_returns=beside(_floats(market, "daily_return"), np.nan),
        market_levels=beside(_floats(market, "level"), np.nan),
        market_chains=beside(_days(market, "chain_start_date"), np.datetime64("NaT", "D")),
    )


# -- risk --------------------------------------------------------------------------------------------------------

_RISK_NAMES: Final = tuple(measure.name for measure in contracts.RISK_MEASURES)
_MARKET_NAMES: Final = frozenset(
    (
        *("alpha", "alpha_annual", "alpha_t", "beta", "beta_t", "r_squared"),
        *("treynor_ratio", "tracking_error", "information_ratio", "m_squared", "relative_volatility"),
    )
)
_NO_PLACE: Final = -1


def risk_table(panel: Panel, risk_free: float = 0.0, stored: pa.Table | None = None) -> pa.Table:
    """Compute the rows of ``core/sector_risk``.

    Parameters
    ----------
    panel
        Composites and benchmark.
    risk_free
        Effective annual rate.
    stored
        The table as it is; rows whose input has not changed are taken from it.
    """
    import pyarrow as pa

    kept = _Kept(contracts.SECTOR_RISK, stored)
    parts = [
        part
        for place, name in enumerate(panel.names)
        for part in (
            _trailing_risk(panel, place, name, risk_free, kept),
            _risk_since_start(panel, place, name, risk_free, kept),
        )
        if part.num_rows
    ]
    return pa.concat_tables([*parts, kept.table()])


def _trailing_risk(panel: Panel, place: int, name: str, risk_free: float, kept: _Kept) -> pa.Table:
    """Return the rows of one sector over the last 252 returns, as of every session, that are not kept."""
    returns, market = panel.returns[:, place], panel.market_returns
    own_places = np.flatnonzero(~np.isnan(returns))
    pair_places = np.flatnonzero(~np.isnan(returns) & ~np.isnan(market))
    rows = np.arange(panel.starts[place], panel.sessions.size)
    own_end = _window_ends(rows, own_places, RISK_WINDOW)
    pair_end = _window_ends(rows, pair_places, RISK_WINDOW)

    own, paired, market_paired = returns[own_places], returns[pair_places], market[pair_places]
    prints = []
    for row, end, pair in zip(rows.tolist(), own_end.tolist(), pair_end.tolist(), strict=True):
        seen = [own[end - RISK_WINDOW + 1 : end + 1]] if end >= 0 else []
        if pair >= 0:
            span = slice(pair - RISK_WINDOW + 1, pair + 1)
            seen += [paired[span], market_paired[span]]
        # Without a window the status depends on whether there is a return on the session at all.
        there = (bool(np.isnan(returns[row])), bool(np.isnan(market[row])), panel.benchmark is None)
        prints.append(_fingerprint(seen, risk_free, there))
    fresh = kept.missing([(name, day, "trailing_252") for day in panel.sessions[rows].tolist()], prints)
    if not fresh.size:
        return _empty(contracts.SECTOR_RISK)
    rows, own_end, pair_end = rows[fresh], own_end[fresh], pair_end[fresh]

    values = {measure: np.full(rows.size, np.nan) for measure in _RISK_NAMES}
    codes = {measure: np.full(rows.size, Status.INSUFFICIENT_HISTORY.code, dtype=np.int8) for measure in _RISK_NAMES}
    no_return, no_market = np.isnan(returns[rows]), np.isnan(market[rows])
    for measure in _RISK_NAMES:
        if measure in _MARKET_NAMES:
            codes[measure][no_market] = (Status.MISSING_INPUT if panel.benchmark is None else Status.NO_DATA).code
        codes[measure][no_return] = Status.NO_DATA.code

    def fill(at: IndexArray, found: Mapping[str, Measured]) -> None:
        for measure, result in found.items():
            values[measure][at], codes[measure][at] = result.value, result.status

    drawdown = _Drawdowns(rows.size)
    spans = np.arange(RISK_WINDOW) - RISK_WINDOW + 1
    for at in _batches(np.flatnonzero(own_end >= 0)):
        window = own_places[own_end[at][:, None] + spans]
        fill(at, risk.window_measures(returns[window], None, risk_free))
        drawdown.put(at, risk.window_drawdowns(returns[window]), window)
    for at in _batches(np.flatnonzero(pair_end >= 0)):
        window = pair_places[pair_end[at][:, None] + spans]
        fill(at, risk.market_measures(returns[window], market[window], risk_free))

    full = own_end >= 0
    first = np.where(full, own_places[np.maximum(own_end - RISK_WINDOW + 1, 0)] if own_places.size else 0, _NO_PLACE)
    return _risk_rows(
        panel,
        name,
        "trailing_252",
        rows,
        np.where(full, RISK_WINDOW, 0),
        first,
        np.where(full, rows - first + 1 - RISK_WINDOW, 0),
        risk_free,
        values,
        codes,
        drawdown,
        [prints[n] for n in fresh.tolist()],
    )


def _risk_since_start(panel: Panel, place: int, name: str, risk_free: float, kept: _Kept) -> pa.Table:
    """Return the rows of one sector over all returns so far, as of each month's newest session, that are not kept."""
    returns, market = panel.returns[:, place], panel.market_returns
    own_places = np.flatnonzero(~np.isnan(returns))
    ends = own_places[_newest_of(panel.sessions[own_places].astype("datetime64[M]"))]
    prints = [
        _fingerprint([returns[: end + 1], market[: end + 1]], risk_free, (False, False, panel.benchmark is None))
        for end in ends.tolist()
    ]
    fresh = kept.missing([(name, day, "since_start") for day in panel.sessions[ends].tolist()], prints)
    if not fresh.size:
        return _empty(contracts.SECTOR_RISK)
    rows = ends[fresh]
    first = int(own_places[0])
    counts = np.searchsorted(own_places, rows, side="right")
    values = {measure: np.full(rows.size, np.nan) for measure in _RISK_NAMES}
    absent = Status.MISSING_INPUT if panel.benchmark is None else Status.NO_DATA
    codes = {measure: np.full(rows.size, absent.code, dtype=np.int8) for measure in _RISK_NAMES}
    drawdown = _Drawdowns(rows.size)
    for number, count in enumerate(counts.tolist()):
        window = own_places[:count]
        found = risk.window_measures(returns[window][None, :], None, risk_free)
        if panel.benchmark is not None:
            both = window[~np.isnan(market[window])]
            found |= risk.market_measures(returns[both][None, :], market[both][None, :], risk_free)
        for measure, result in found.items():
            values[measure][number], codes[measure][number] = result.value[0], result.status[0]
        drawdown.put(np.array([number]), risk.window_drawdowns(returns[window][None, :]), window[None, :])
    return _risk_rows(
        panel,
        name,
        "since_start",
        rows,
        counts,
        np.full(rows.size, first, dtype=np.intp),
        rows - first + 1 - counts,
        risk_free,
        values,
        codes,
        drawdown,
        [prints[number] for number in fresh.tolist()],
    )


class _Drawdowns:
    """Where the deepest fall of each window lies, as rows of the panel; -1 for nowhere."""

    def __init__(self, count: int) -> None:
        self.peak, self.trough, self.recovery = (np.full(count, _NO_PLACE, dtype=np.intp) for _ in range(3))
        self.length = np.zeros(count, dtype=np.int32)

    def put(self, at: IndexArray, found: risk.WindowDrawdowns, window: IndexArray) -> None:
        # Position 0 is the level before the first return of the window: that of the session before it.
        before = np.concatenate((np.maximum(window[:, :1] - 1, 0), window), axis=1)
        lost = np.arange(at.size)
        for target, position in (
            (self.peak, found.peak),
            (self.trough, found.trough),
            (self.recovery, found.recovery),
        ):
            target[at] = np.where(position >= 0, before[lost, np.maximum(position, 0)], _NO_PLACE)
        end = np.where(found.recovery >= 0, found.recovery, window.shape[1])
        self.length[at] = np.where(found.peak >= 0, end - found.peak, 0)


def _risk_rows(
    panel: Panel,
    name: str,
    window: str,
    rows: IndexArray,
    counts: npt.NDArray[Any],
    first: IndexArray,
    missing: npt.NDArray[Any],
    risk_free: float,
    values: Mapping[str, FloatArray],
    codes: Mapping[str, npt.NDArray[np.int8]],
    drawdown: _Drawdowns,
    prints: Sequence[str],
) -> pa.Table:
    import pyarrow as pa

    columns: dict[str, Any] = {
        "sector": pa.repeat(name, rows.size),
        "session_date": pa.array(panel.sessions[rows]),
        "risk_window": pa.repeat(window, rows.size),
        "return_count": pa.array(counts.astype(np.int32)),
        "window_start_date": _dates(panel.sessions, first),
        "window_missing_sessions": pa.array(missing.astype(np.int32)),
        "risk_free_rate": pa.repeat(float(risk_free), rows.size),
        "drawdown_peak_date": _dates(panel.sessions, drawdown.peak),
        "drawdown_trough_date": _dates(panel.sessions, drawdown.trough),
        "drawdown_recovery_date": _dates(panel.sessions, drawdown.recovery),
        "drawdown_sessions": pa.array(drawdown.length, mask=drawdown.length == 0),
        "input_fingerprint": pa.array(prints, pa.string()),
    }
    for measure in _RISK_NAMES:
        columns |= _measure(measure, Measured(values[measure], codes[measure]))
    return _table(contracts.SECTOR_RISK, columns)


# -- correlations ------------------------------------------------------------------------------------------------


def correlation_table(panel: Panel) -> pa.Table:
    """Compute the rows of ``core/sector_correlations``: every pair of series once, and each with itself.

    It is quick enough to be computed whole. A pair has rows from the first session that both series have.
    """
    import pyarrow as pa

    starts = dict(zip(panel.names, panel.starts.tolist(), strict=True))
    parts = []
    for first, a in panel.series.items():
        for second, b in panel.series.items():
            if first > second:
                continue
            begin = max(starts.get(first, 0), starts.get(second, 0))
            x, y = a[begin:], b[begin:]
            found = {
                "correlation_30": correlations.rolling_correlations(x, y, 30),
                "correlation_252": correlations.rolling_correlations(x, y, 252),
                "correlation_full": correlations.expanding_correlations(x, y),
            }
            columns: dict[str, Any] = {
                "series": pa.repeat(first, x.size),
                "other_series": pa.repeat(second, x.size),
                "session_date": pa.array(panel.sessions[begin:]),
            }
            for name, result in found.items():
                if first == second:
                    # Exactly, not up to rounding.
                    result = Measured(np.where(np.isnan(result.value), np.nan, 1.0), result.status)
                columns |= _measure(name, result)
            parts.append(_table(contracts.SECTOR_CORRELATIONS, columns))
    return pa.concat_tables([*parts, _empty(contracts.SECTOR_CORRELATIONS)])


# -- volatility clustering ---------------------------------------------------------------------------------------


def volatility_table(panel: Panel, stored: pa.Table | None = None) -> pa.Table:
    """Compute the rows of ``core/sector_volatility``, from at most 1,260 returns each.

    Parameters
    ----------
    panel
        Composites and benchmark.
    stored
        The table as it is; rows whose input has not changed are taken from it.
    """
    import pyarrow as pa

    kept = _Kept(contracts.SECTOR_VOLATILITY, stored)
    rows: list[dict[str, Any]] = []
    for name, returns in panel.series.items():
        places = np.flatnonzero(~np.isnan(returns))
        months = panel.sessions[places].astype("datetime64[M]").astype(np.int64)
        ends = _newest_of(months // 3)
        used = [places[max(end + 1 - CLUSTERING_RETURNS, 0) : end + 1] for end in ends.tolist()]
        prints = [_fingerprint([returns[window]]) for window in used]
        days = panel.sessions[places[ends]].tolist()
        fresh = kept.missing([(name, day) for day in days], prints)
        rows.extend(
            {
                "series": name,
                "session_date": days[number],
                "window_start_date": panel.sessions[used[number][0]].item(),
                "input_fingerprint": prints[number],
                **_clustering(volatility.volatility_clustering(returns[used[number]])),
            }
            for number in fresh.tolist()
        )
    return pa.concat_tables([_of_rows(contracts.SECTOR_VOLATILITY, rows), kept.table()])


def _clustering(found: volatility.Clustering) -> dict[str, Any]:
    sizes = found.autocorrelations or (None,) * volatility.ACF_LAGS
    values: dict[str, tuple[float | None, Status]] = {
        **{f"abs_return_acf_{lag}": (value, found.acf_status) for lag, value in enumerate(sizes, start=1)},
        "ljung_box": (found.ljung_box.statistic, found.ljung_box.status),
        "ljung_box_p": (found.ljung_box.p_value, found.ljung_box.status),
        "arch_lm": (found.arch_lm.statistic, found.arch_lm.status),
        "arch_lm_p": (found.arch_lm.p_value, found.arch_lm.status),
        **{
            f"garch_{name}": (getattr(found.garch, name), found.garch.status)
            for name in ("omega", "alpha", "beta", "persistence", "half_life", "volatility")
        },
        "ewma_volatility": (
            found.ewma_volatility,
            Status.OK if found.ewma_volatility is not None else Status.INSUFFICIENT_HISTORY,
        ),
    }
    if found.garch.status is Status.OK and found.garch.half_life is None:
        # A shock that never fades, or is gone at once.
        values["garch_half_life"] = (None, Status.OUTSIDE_DOMAIN)
    return {
        "return_count": found.n_returns,
        "volatility": found.volatility,
        "volatility_model": found.volatility_model,
        "is_clustered": found.is_clustered,
        **_with_statuses(values),
    }


# -- portfolios --------------------------------------------------------------------------------------------------


def portfolio_table(panel: Panel, stored: pa.Table | None = None) -> pa.Table:
    """Compute the rows of ``core/sector_portfolios``, from the last 252 sessions that all sectors have.

    To choose from are the sectors that have a return on the session.

    Parameters
    ----------
    panel
        Composites.
    stored
        The table as it is; rows whose input has not changed are taken from it.
    """
    import pyarrow as pa

    kept = _Kept(contracts.SECTOR_PORTFOLIOS, stored)
    rows: list[dict[str, Any]] = []
    there = ~np.isnan(panel.returns)
    places = np.flatnonzero(there.any(axis=1))
    for end in places[_newest_of(panel.sessions[places].astype("datetime64[M]"))].tolist():
        chosen = np.flatnonzero(there[end])
        common = np.flatnonzero(there[: end + 1, chosen].all(axis=1))[-PORTFOLIO_SESSIONS:]
        returns = np.ascontiguousarray(panel.returns[np.ix_(common, chosen)])
        names = [panel.names[place] for place in chosen.tolist()]
        day = panel.sessions[end].item()
        print_ = _fingerprint([returns], *names)
        for method in diversification.METHODS:
            keys = [(day, method, name) for name in names]
            if not kept.missing(keys, [print_] * len(keys)).size:
                continue
            about = {
                "session_date": day,
                "method": method,
                "session_count": common.size,
                "sector_count": len(names),
                "input_fingerprint": print_,
            }
            held = _portfolio(returns, method)
            rows.extend({**about, "sector": name, **values} for name, values in zip(names, held, strict=True))
    kept.drop_groups(("session_date", "method"), rows)
    return pa.concat_tables([_of_rows(contracts.SECTOR_PORTFOLIOS, rows), kept.table()])


def _portfolio(returns: FloatArray, method: str) -> list[dict[str, Any]]:
    """Return the values of each sector in a portfolio."""
    names = ("portfolio_volatility", "diversification_ratio", "effective_bets", "effective_sectors")
    try:
        held = diversification.optimal_weights(returns, method)
    except diversification.UndefinedWeights as undefined:
        nothing = dict.fromkeys(("weight", "risk_contribution", *names), (None, undefined.status))
        return [_with_statuses(nothing)] * returns.shape[1]
    covariance = np.atleast_2d(np.cov(returns, rowvar=False))
    variance = float(held @ covariance @ held)
    shares = diversification.risk_contributions(held, covariance)
    of_portfolio = {
        "portfolio_volatility": float(np.sqrt(max(variance, 0.0) * SESSIONS_PER_YEAR)),
        "diversification_ratio": diversification.diversification_ratio(held, covariance),
        "effective_bets": diversification.effective_number_of_bets(held, covariance),
        "effective_sectors": diversification.effective_number_of_assets(held),
    }

    def explained(value: float | None) -> tuple[float | None, Status]:
        return value, Status.ZERO_VARIANCE if value is None else Status.OK

    return [
        _with_statuses(
            {
                "weight": (float(weight), Status.OK),
                "risk_contribution": explained(None if shares is None else float(shares[place])),
                **{name: explained(value) for name, value in of_portfolio.items()},
            }
        )
        for place, weight in enumerate(held)
    ]


# -- signals -----------------------------------------------------------------------------------------------------


def signal_table(panel: Panel) -> pa.Table:
    """Compute the rows of ``core/sector_signals``.

    Signals of levels are computed within each unbroken chain of returns, since a level says nothing across a break; the
    volatility regime counts returns and goes on. Rotation needs the benchmark and is ``missing_input`` without one.
    """
    import pyarrow as pa

    parts = [_empty(contracts.SECTOR_SIGNALS)]
    for place, name in enumerate(panel.names):
        begin = int(panel.starts[place])
        levels, market = panel.levels[begin:, place], panel.market_levels[begin:]
        chains = _chain_pieces(panel.chains[begin:, place])
        both = _chain_pieces(panel.chains[begin:, place], panel.market_chains[begin:])
        size = levels.size
        found = {
            "trend": _piecewise(size, chains, signals.trend, levels),
            "momentum": _piecewise(size, chains, signals.momentum, levels),
            "rotation": _piecewise(size, both, signals.rotation, levels, market),
            "volatility_regime": signals.volatility_regime(panel.returns[begin:, place]),
        }
        if panel.benchmark is None:
            found["rotation"].status[~np.isnan(levels)] = Status.MISSING_INPUT.code
        days = panel.sessions[begin:]
        parts.extend(_signal_rows(name, kind, days, signal) for kind, signal in found.items())
    return pa.concat_tables(parts)


def _signal_rows(sector: str, kind: str, days: DayArray, signal: signals.Signal) -> pa.Table:
    import pyarrow as pa

    undefined = signal.state == ""
    return _table(
        contracts.SECTOR_SIGNALS,
        {
            "sector": pa.repeat(sector, days.size),
            "session_date": pa.array(days),
            "signal": pa.repeat(kind, days.size),
            "state": pa.array(signal.state.astype(object), pa.string(), mask=undefined),
            "state_status": _statuses(signal.status),
            "since_date": _dates(days, signal.since),
            "is_new": pa.array(signal.changed),
            "value": pa.array(signal.value, mask=np.isnan(signal.value)),
            "reference_value": pa.array(signal.reference, mask=np.isnan(signal.reference)),
        },
    )


def _chain_pieces(*chains: DayArray) -> list[IndexArray]:
    """Return the rows of each stretch on which every chain is there and the same."""
    there = np.logical_and.reduce([~np.isnat(chain) for chain in chains])
    rows = np.flatnonzero(there)
    if not rows.size:
        return []
    breaks = np.logical_or.reduce([chain[rows][1:] != chain[rows][:-1] for chain in chains])
    return [np.asarray(piece) for piece in np.split(rows, np.flatnonzero(breaks) + 1)]


def _piecewise(
    size: int, pieces: Sequence[IndexArray], compute: Callable[..., signals.Signal], *arrays: FloatArray
) -> signals.Signal:
    """Return a signal over all rows, computed on each piece alone; where there is none it is ``no_data``."""
    state = np.full(size, "", dtype="U16")
    since = np.full(size, -1, dtype=np.intp)
    changed = np.zeros(size, dtype=np.bool_)
    value, reference = np.full(size, np.nan), np.full(size, np.nan)
    status = np.full(size, Status.NO_DATA.code, dtype=np.int8)
    for rows in pieces:
        found = compute(*(array[rows] for array in arrays))
        state[rows], changed[rows], status[rows] = found.state, found.changed, found.status
        value[rows], reference[rows] = found.value, found.reference
        since[rows] = np.where(found.since >= 0, rows[np.maximum(found.since, 0)], -1)
    return signals.Signal(state, since, changed, value, reference, status)


# -- macro exposure ----------------------------------------------------------------------------------------------


def exposure_table(
    panel: Panel, indicators: pa.Table, transforms: Mapping[str, str], stored: pa.Table | None = None
) -> pa.Table:
    """Compute the rows of ``core/sector_exposures``: monthly returns regressed on the market and on macro changes.

    Parameters
    ----------
    panel
        Composites and benchmark.
    indicators
        Macro series: ``series_id``, ``reference_date``, ``release_date``, ``value``; a revision is a later release.
    transforms
        What becomes of each series, by ``series_id``; see :data:`finance_assets.sectors.exposure.TRANSFORMS`. Series
        that are not named are not used.
    stored
        The table as it is; rows whose input has not changed are taken from it.

    Returns
    -------
    pyarrow.Table
        One row per sector, month (its newest session so far), regression and factor: ``alpha``, ``market``, and one
        series or, in the regression ``joint``, all of them. A regression holds the last 60 months whose return, market
        return and changes are all there, of which 36 are needed. A month's change is between what had been released by
        its newest session and by that of the one before. The joint regression leaves out a series that by then has
        fewer than 36 changes in 60 months (``no_data``, ``insufficient_history``) or always the same one
        (``zero_variance``), so that one that begins late does not hold up the others.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kept = _Kept(contracts.SECTOR_EXPOSURES, stored)
    ends = _newest_of(panel.sessions.astype("datetime64[M]"))
    days = panel.sessions[ends]
    market = _monthly_returns(panel.market_levels, panel.market_chains, ends)
    changes: dict[str, FloatArray] = {}
    for name, transform in sorted(transforms.items()):
        own = indicators.filter(pc.field("series_id") == name)
        known = exposure.known_values(
            _days(own, "reference_date"), _days(own, "release_date"), _floats(own, "value"), days
        )
        changes[name] = exposure.macro_changes(known, transform)
    absent_series = [_absent_series(changes, end) for end in range(days.size)]
    rows: list[dict[str, Any]] = []
    for place, sector in enumerate(panel.names):
        returns = _monthly_returns(panel.levels[:, place], panel.chains[:, place], ends)
        paired = ~np.isnan(returns) & ~np.isnan(market)
        for end in np.flatnonzero(ends >= panel.starts[place]).tolist():
            for model in (*changes, contracts.JOINT_MODEL):
                names = tuple(changes) if model == contracts.JOINT_MODEL else (model,)
                absent = absent_series[end] if model == contracts.JOINT_MODEL else {}
                chosen = [name for name in names if name not in absent]
                complete = paired[: end + 1].copy()
                for name in chosen:
                    complete &= ~np.isnan(changes[name][: end + 1])
                used = np.flatnonzero(complete)[-EXPOSURE_MONTHS:]
                factors = {"market": market[used], **{name: changes[name][used] for name in chosen}}
                print_ = _fingerprint(
                    [returns[used], days[used].astype(np.float64), *factors.values()],
                    [(name, transforms[name], str(absent.get(name, ""))) for name in names],
                )
                keys = [(sector, days[end].item(), model, name) for name in ("alpha", "market", *names)]
                if not kept.missing(keys, [print_] * len(keys)).size:
                    continue
                fit = exposure.factor_exposure(returns[used], factors)
                about = {
                    "sector": sector,
                    "session_date": days[end].item(),
                    "model": model,
                    "r_squared": fit.r_squared,
                    "adjusted_r_squared": fit.adjusted_r_squared,
                    "month_count": fit.n_observations,
                    "window_start_date": days[used[0]].item() if used.size else None,
                    "newey_west_lags": fit.lags,
                    "input_fingerprint": print_,
                }
                nothing = [exposure.Coefficient(name, None, None, None, None, absent[name]) for name in absent]
                rows.extend(
                    {
                        **about,
                        "factor": coefficient.factor,
                        "transform": transforms.get(coefficient.factor),
                        **_with_statuses({"coefficient": (coefficient.value, coefficient.status)}),
                        "standard_error": coefficient.standard_error,
                        "t_statistic": coefficient.t_statistic,
                        "variance_inflation": coefficient.variance_inflation,
                    }
                    for coefficient in (*fit.coefficients, *nothing)
                )
    kept.drop_groups(("sector", "session_date", "model"), rows)
    return pa.concat_tables([_of_rows(contracts.SECTOR_EXPOSURES, rows), kept.table()])


def _absent_series(changes: Mapping[str, FloatArray], end: int) -> dict[str, Status]:
    """Return the series that a joint regression up to a month cannot hold, and why; later months play no part."""
    why: dict[str, Status] = {}
    for name, change in changes.items():
        recent = change[max(end + 1 - EXPOSURE_MONTHS, 0) : end + 1]
        seen = recent[~np.isnan(recent)]
        if not seen.size:
            why[name] = Status.NO_DATA
        elif seen.size < exposure.LEAST_OBSERVATIONS:
            why[name] = Status.INSUFFICIENT_HISTORY
        elif seen.min() == seen.max():
            why[name] = Status.ZERO_VARIANCE
    return why


def _monthly_returns(levels: FloatArray, chains: DayArray, ends: IndexArray) -> FloatArray:
    """Return the return between the newest sessions of two months that follow; NaN across a break of the chain."""
    at, chain = levels[ends], chains[ends]
    result = np.full(ends.size, np.nan)
    # The level before is a base only where it counts from the same session.
    unbroken = (chain[1:] == chain[:-1]) & (at[:-1] > 0)
    result[1:] = np.where(unbroken, at[1:] / np.where(unbroken, at[:-1], 1.0) - 1.0, np.nan)
    return result


# -- rows that are kept ------------------------------------------------------------------------------------------


class _Kept:
    """Rows of a stored table whose input has not changed since."""

    def __init__(self, contract: Contract, stored: pa.Table | None) -> None:
        self._contract = contract
        self._stored = _empty(contract) if stored is None else stored
        keys = [self._stored.column(name).to_pylist() for name in contract.key]
        prints = self._stored.column("input_fingerprint").to_pylist()
        self._held = {
            key: (row, print_) for row, (key, print_) in enumerate(zip(zip(*keys, strict=True), prints, strict=True))
        }
        self._rows: dict[tuple[Any, ...], int] = {}

    def missing(self, keys: Sequence[tuple[Any, ...]], prints: Sequence[str]) -> IndexArray:
        """Return the positions of the keys that must be computed; keep the rows of the others."""
        absent = []
        for position, (key, print_) in enumerate(zip(keys, prints, strict=True)):
            row, held = self._held.get(key, (-1, ""))
            if held == print_:
                self._rows[key] = row
            else:
                absent.append(position)
        return np.array(absent, dtype=np.intp)

    def drop_groups(self, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
        """Keep no row of a group of which rows were computed anew."""
        places = [self._contract.key.index(name) for name in columns]
        renewed = {tuple(row[name] for name in columns) for row in rows}
        self._rows = {
            key: row for key, row in self._rows.items() if tuple(key[place] for place in places) not in renewed
        }

    def table(self) -> pa.Table:
        """Return the rows that are kept."""
        return self._stored.take(sorted(self._rows.values())) if self._rows else _empty(self._contract)


def _fingerprint(arrays: Sequence[FloatArray], *parameters: object) -> str:
    """Return a short hash of returns and parameters."""
    digest = hashlib.blake2b(digest_size=12)
    digest.update(repr((VERSION, [array.shape for array in arrays], parameters)).encode())
    for array in arrays:
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# -- arrays and columns ------------------------------------------------------------------------------------------


def _newest_of(periods: npt.NDArray[Any]) -> IndexArray:
    """Return the position of the last of each run of equal periods."""
    if not periods.size:
        return np.empty(0, dtype=np.intp)
    return np.flatnonzero(np.r_[periods[1:] != periods[:-1], True])


def _window_ends(rows: IndexArray, places: IndexArray, length: int) -> IndexArray:
    """Return for each row its position among `places` where a full window ends on it; -1 where none does."""
    if not places.size:
        return np.full(rows.size, -1, dtype=np.intp)
    position = np.minimum(np.searchsorted(places, rows), places.size - 1)
    return np.where((places[position] == rows) & (position >= length - 1), position, -1)


def _batches(rows: IndexArray) -> list[IndexArray]:
    return [rows[start : start + WINDOWS_AT_ONCE] for start in range(0, rows.size, WINDOWS_AT_ONCE)]


def _floats(table: pa.Table, name: str) -> FloatArray:
    return np.asarray(table.column(name).to_numpy(), dtype=np.float64)


def _days(table: pa.Table, name: str) -> DayArray:
    return np.asarray(table.column(name).to_numpy().astype("datetime64[D]"))


def _dates(sessions: DayArray, places: IndexArray) -> Any:
    """Return the sessions at places as dates; null at -1."""
    import pyarrow as pa

    nowhere = places < 0
    days = sessions[np.where(nowhere, 0, places)] if sessions.size else np.empty(0, dtype="datetime64[D]")
    return pa.array(days, mask=nowhere)


def _statuses(codes: npt.NDArray[np.int8]) -> Any:
    import pyarrow as pa

    names = pa.array([str(status) for status in STATUSES])
    return pa.DictionaryArray.from_arrays(pa.array(codes), names).cast(pa.string())


def _measure(name: str, found: Measured) -> dict[str, Any]:
    import pyarrow as pa

    return {name: pa.array(found.value, mask=np.isnan(found.value)), f"{name}_status": _statuses(found.status)}


def _with_statuses(values: Mapping[str, tuple[float | None, Status]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, (value, status) in values.items():
        columns |= {name: value, f"{name}_status": str(status)}
    return columns


def _table(contract: Contract, columns: Mapping[str, Any]) -> pa.Table:
    import pyarrow as pa

    from finance_assets.contracts.arrow import storage_schema

    return pa.table([columns[name] for name in contract.column_names], schema=storage_schema(contract))


def _of_rows(contract: Contract, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    import pyarrow as pa

    from finance_assets.contracts.arrow import storage_schema

    return pa.Table.from_pylist(list(rows), schema=storage_schema(contract))


def _empty(contract: Contract) -> pa.Table:
    from finance_assets.contracts.arrow import empty_table

    return empty_table(contract)
