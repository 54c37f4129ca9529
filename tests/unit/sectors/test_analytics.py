"""Tables of risk, correlation, clustering, portfolios and signals, from composites with every kind of gap."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import date
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.returns import market_returns, stock_returns

from finance_assets.contracts import sectors as contracts
from finance_assets.contracts.arrow import conform
from finance_assets.contracts.model import Contract
from finance_assets.contracts.validation import violations
from finance_assets.macro.series import SAMPLE_SERIES, SERIES
from finance_assets.sectors import analytics, correlations, diversification, exposure, risk, signals, volatility
from finance_assets.sectors.returns import levels_from_returns

FIRST, LAST = "2005-01-03", "2008-06-30"
#: Sessions of the full range, counted, on which a series has no return.
GAPS = {"Energy": (), "Financials": (400, 401), "Health Care": ()}
STARTS = {"Energy": 0, "Financials": 0, "Health Care": 600}
STOCKS = {"Energy": "XOM", "Financials": "JPM", "Health Care": "JNJ"}
MARKET_GAPS = (300,)


@dataclass(frozen=True)
class Given:
    """Composites and an index as the warehouse holds them."""

    composites: pa.Table
    indices: pa.Table

    @property
    def panel(self) -> analytics.Panel:
        return analytics.read_panel(self.composites, self.indices)


def rows_of(days: pd.DatetimeIndex, returns: np.ndarray) -> pd.DataFrame:
    """Returns as chains of levels: 1.0 on the session before the first return, and again after a gap."""
    frame = pd.DataFrame({"session_date": days.date, "daily_return": returns, "level": math.nan})
    frame["chain_start_date"] = pd.Series([None] * len(days), dtype=object)
    known = ~np.isnan(returns)
    for place in np.flatnonzero(known):
        if place == 0 or not known[place - 1]:
            end = place + int(np.argmin(np.r_[known[place:], False]))
            frame.loc[place : end - 1, "level"] = levels_from_returns(returns[place:end])[1:]
            frame.loc[place : end - 1, "chain_start_date"] = frame.loc[max(place - 1, 0), "session_date"]
    frame.loc[0, "level"], frame.loc[0, "chain_start_date"] = 1.0, frame.loc[0, "session_date"]
    return frame


def arrow(frame: pd.DataFrame) -> pa.Table:
    table = pa.Table.from_pandas(frame, preserve_index=False)
    for name in ("session_date", "chain_start_date"):
        place = table.column_names.index(name)
        table = table.set_column(place, name, table.column(name).cast(pa.date32()))
    return table


def given(count: int | None = None, changed: dict[tuple[str, int], float] | None = None) -> Given:
    """The first `count` sessions; `changed` replaces single returns."""
    stocks = stock_returns().loc[FIRST:LAST].iloc[:count]
    days = pd.DatetimeIndex(stocks.index)
    frames = []
    for sector, ticker in STOCKS.items():
        returns = stocks[ticker].to_numpy().copy()
        returns[[gap for gap in GAPS[sector] if gap < returns.size]] = math.nan
        for (name, place), value in (changed or {}).items():
            if name == sector:
                returns[place] = value
        start = STARTS[sector]
        if start < returns.size:
            returns[start] = math.nan
            frames.append(rows_of(days[start:], returns[start:]).assign(sector=sector))
    market = market_returns().reindex(days).to_numpy().copy()
    market[[gap for gap in MARKET_GAPS if gap < market.size]] = math.nan
    market[0] = math.nan
    index = rows_of(days, market).assign(index_symbol="^GSPC", is_benchmark=True)
    other = index.assign(index_symbol="^XX", is_benchmark=False)
    return Given(
        arrow(pd.concat(frames, ignore_index=True)),
        arrow(pd.concat([index, other], ignore_index=True)),
    )


@cache
def whole() -> Given:
    return given()


#: Prices published weeks later, a price of oil of the day, and a series that begins too late for a regression.
TRANSFORMS = {"CPI": "surprise", "OIL": "relative_change", "LATE": "difference"}


@cache
def macro() -> pa.Table:
    """Macro series with the day each number became known."""
    days = pd.DatetimeIndex(stock_returns().loc[FIRST:LAST].index)
    rng = np.random.default_rng(6)
    about = pd.date_range("2004-11-01", "2008-06-01", freq="MS")
    # Published on the tenth of the month after; one number is revised a year later.
    released = about + pd.DateOffset(months=1, days=9)
    values = 100 * np.cumprod(1 + rng.normal(0.002, 0.01, about.size))
    cpi = pd.DataFrame({"series_id": "CPI", "reference_date": about, "release_date": released, "value": values})
    revised = cpi.iloc[[20]].assign(release_date=released[20] + pd.DateOffset(years=1), value=1.0)
    oil = pd.DataFrame({"series_id": "OIL", "reference_date": days, "release_date": days})
    oil["value"] = 50 * np.cumprod(1 + rng.normal(0, 0.02, len(days)))
    late = oil[oil["reference_date"] >= "2007-01-01"].assign(series_id="LATE")
    unused = oil.assign(series_id="UNUSED")
    return pa.Table.from_pandas(pd.concat([cpi, revised, oil, late, unused], ignore_index=True), preserve_index=False)


def computed(contract: Contract, panel: analytics.Panel, stored: pa.Table | None = None) -> pa.Table:
    table = {
        "sector_risk": lambda: analytics.risk_table(panel, 0.02, stored),
        "sector_correlations": lambda: analytics.correlation_table(panel),
        "sector_volatility": lambda: analytics.volatility_table(panel, stored),
        "sector_portfolios": lambda: analytics.portfolio_table(panel, stored),
        "sector_signals": lambda: analytics.signal_table(panel),
        "sector_exposures": lambda: analytics.exposure_table(panel, macro(), TRANSFORMS, stored),
    }[contract.name]()
    return conform(contract, table)


@cache
def table_of(name: str) -> pa.Table:
    return computed(next(c for c in contracts.ANALYTICS if c.name == name), whole().panel)


def frame_of(name: str, **only: Any) -> pd.DataFrame:
    frame = table_of(name).to_pandas()
    for column, value in only.items():
        frame = frame[frame[column] == value]
    return frame.set_index("session_date").sort_index()


def series_of(sector: str) -> pd.Series[float]:
    frame = whole().composites.to_pandas()
    frame = frame[frame["sector"] == sector]
    return frame.set_index("session_date")["daily_return"]


def market_series() -> pd.Series[float]:
    frame = whole().indices.to_pandas()
    return frame[frame["is_benchmark"]].set_index("session_date")["daily_return"]


@pytest.mark.parametrize("contract", contracts.ANALYTICS, ids=lambda contract: contract.name)
def test_rows_keep_their_contract(contract: Contract) -> None:
    table = table_of(contract.name)
    assert table.num_rows
    assert violations(contract, table) == []


@pytest.mark.parametrize("contract", contracts.ANALYTICS, ids=lambda contract: contract.name)
@pytest.mark.parametrize(("seed", "lost"), [(0, 0.5), (1, 0.02)])
def test_rows_that_are_lost_come_back_to_the_last_bit(contract: Contract, seed: int, lost: float) -> None:
    """Which rows are computed together changes none of them."""
    stored = table_of(contract.name)
    kept = np.random.default_rng(seed).random(stored.num_rows) >= lost
    assert computed(contract, whole().panel, stored.filter(pa.array(kept))).equals(stored)


@pytest.mark.parametrize("contract", contracts.ANALYTICS, ids=lambda contract: contract.name)
def test_one_more_session_gives_what_all_of_them_give(contract: Contract) -> None:
    """Bit by bit, whether rows are kept or computed; and a day later nothing of the past is computed again."""
    count = len(stock_returns().loc[FIRST:LAST])
    yesterday = computed(contract, given(count - 1).panel)
    today = computed(contract, whole().panel, yesterday)
    assert today.equals(table_of(contract.name))
    assert computed(contract, whole().panel, today).equals(today)


@pytest.mark.parametrize("name", ["sector_risk", "sector_volatility", "sector_portfolios"])
def test_only_what_rests_on_a_changed_return_is_computed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    contract = next(c for c in contracts.ANALYTICS if c.name == name)
    stored = table_of(name)
    changed = given(changed={("Energy", 800): 0.05})
    calls: list[int] = []

    def counting(function: Any) -> Any:
        def counted(first: Any, *rest: Any) -> Any:
            calls.append(len(first))
            return function(first, *rest)

        return counted

    monkeypatch.setattr(risk, "window_measures", counting(risk.window_measures))
    monkeypatch.setattr(volatility, "volatility_clustering", counting(volatility.volatility_clustering))
    monkeypatch.setattr(diversification, "optimal_weights", counting(diversification.optimal_weights))
    again = computed(contract, whole().panel, stored)
    assert again.equals(stored)
    assert calls == []
    found = computed(contract, changed.panel, stored)
    done = list(calls)
    assert found.equals(computed(contract, changed.panel))
    assert not found.equals(stored)
    # Nothing before the change moved.
    day = changed.panel.sessions[800].item()
    before, after = stored.to_pandas(), found.to_pandas()
    pd.testing.assert_frame_equal(before[before["session_date"] < day], after[after["session_date"] < day])
    if name == "sector_risk":
        # 878 sessions: 78 trailing windows of one sector, and its three months since.
        assert sum(done) == len(changed.panel.sessions) - 800 + 4
    elif name == "sector_volatility":
        assert len(done) == 2
    else:
        assert len(done) == 4 * 4


def test_a_table_of_another_version_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = table_of("sector_volatility")
    monkeypatch.setattr(analytics, "VERSION", 99)
    renewed = computed(contracts.SECTOR_VOLATILITY, whole().panel, stored)
    assert not set(renewed.column("input_fingerprint").to_pylist()) & set(
        stored.column("input_fingerprint").to_pylist()
    )
    assert renewed.drop_columns(["input_fingerprint"]).equals(stored.drop_columns(["input_fingerprint"]))


# -- risk --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sector", STOCKS)
def test_trailing_windows_hold_252_returns(sector: str) -> None:
    rows = frame_of("sector_risk", sector=sector, risk_window="trailing_252")
    returns, market = series_of(sector), market_series()
    assert list(rows.index) == list(returns.index)
    known = returns.dropna()
    full = known.index[251:]
    assert list(rows.index[rows["volatility_status"] == "ok"]) == list(full)
    assert set(rows.loc[returns.isna(), "volatility_status"]) == {"no_data"}
    early = known.index[:251]
    assert set(rows.loc[early, "sharpe_ratio_status"]) == {"insufficient_history"}
    assert set(rows.loc[early, "return_count"]) == {0}
    for day in (full[0], full[len(full) // 2], full[-1]):
        window = known[known.index <= day].tail(252)
        row = rows.loc[day]
        assert row["sharpe_ratio"] == risk.sharpe_ratio(window, 0.02)
        assert row["var_historical_99"] == risk.value_at_risk(window, 0.99)
        assert (row["return_count"], row["window_start_date"]) == (252, window.index[0])
        span = list(returns.index).index(day) - list(returns.index).index(window.index[0]) + 1
        assert row["window_missing_sessions"] == span - 252
        pairs = pd.concat([known, market], axis=1).dropna()
        pairs = pairs[pairs.index <= day].tail(252)
        if day in pairs.index and len(pairs) == 252:
            assert row["beta"] == risk.alpha_beta(pairs.iloc[:, 0], pairs.iloc[:, 1], 0.02).beta


def test_where_the_market_is_missing_only_what_needs_it_is() -> None:
    rows = frame_of("sector_risk", sector="Energy", risk_window="trailing_252")
    gap = whole().panel.sessions[MARKET_GAPS[0]].item()
    assert rows.loc[gap, "beta_status"] == "no_data"
    assert rows.loc[gap, "volatility_status"] == "ok"
    without = computed(
        contracts.SECTOR_RISK,
        analytics.read_panel(whole().composites, whole().indices.slice(0, 0)),
    ).to_pandas()
    enough = without[(without["volatility_status"] == "ok") & (without["risk_window"] == "trailing_252")]
    assert set(enough["beta_status"]) == {"missing_input"}
    assert enough["sharpe_ratio"].notna().all()


def test_drawdowns_have_dates() -> None:
    rows = frame_of("sector_risk", sector="Financials", risk_window="trailing_252")
    returns = series_of("Financials").dropna()
    for day in rows.index[rows["volatility_status"] == "ok"][::97]:
        window = returns[returns.index <= day].tail(252)
        levels = np.r_[1.0, (1 + window).cumprod()]
        row = rows.loc[day]
        fall = levels / np.maximum.accumulate(levels) - 1
        trough = int(fall.argmin())
        assert row["max_drawdown"] == pytest.approx(fall.min(), rel=1e-12)
        assert row["drawdown_trough_date"] == window.index[trough - 1]
        peak = int(levels[: trough + 1].argmax())
        if peak:
            assert row["drawdown_peak_date"] == window.index[peak - 1]
        else:
            assert row["drawdown_peak_date"] < window.index[0]
        back = np.flatnonzero(levels[trough:] >= levels[peak])
        recovery = None if not back.size else window.index[trough + back[0] - 1]
        assert row["drawdown_recovery_date"] == recovery
        assert row["drawdown_sessions"] == (trough + back[0] if back.size else 252) - peak


def test_since_the_start_as_of_each_months_newest_session() -> None:
    rows = frame_of("sector_risk", sector="Energy", risk_window="since_start")
    returns, market = series_of("Energy").dropna(), market_series()
    ends = returns.groupby([f"{day:%Y-%m}" for day in returns.index]).tail(1).index
    assert list(rows.index) == list(ends)
    for day in (ends[0], ends[5], ends[-1]):
        window = returns[returns.index <= day]
        row = rows.loc[day]
        assert row["return_count"] == window.size
        assert row["window_start_date"] == window.index[0]
        wanted = risk.sharpe_ratio(window, 0.02)
        assert (None if math.isnan(row["sharpe_ratio"]) else row["sharpe_ratio"]) == wanted
        pairs = pd.concat([window, market], axis=1).dropna()
        fit = risk.alpha_beta(pairs.iloc[:, 0], pairs.iloc[:, 1], 0.02)
        assert (None if math.isnan(row["alpha_t"]) else row["alpha_t"]) == fit.alpha_t
    assert rows.loc[ends[0], "sharpe_ratio_status"] == "insufficient_history"


# -- the others --------------------------------------------------------------------------------------------------


def test_correlations_of_every_pair_once() -> None:
    table = table_of("sector_correlations").to_pandas()
    names = [*STOCKS, "^GSPC"]
    pairs = set(zip(table["series"], table["other_series"], strict=True))
    assert pairs == {(a, b) for a in names for b in names if a <= b}
    rows = table[(table["series"] == "Energy") & (table["other_series"] == "Financials")]
    a, b = series_of("Energy").to_numpy(), series_of("Financials").to_numpy()
    np.testing.assert_array_equal(rows["correlation_252"], correlations.rolling_correlations(a, b, 252).value)
    assert set(rows["correlation_30_status"]) == {"ok", "no_data", "insufficient_history"}
    own = table[table["series"] == table["other_series"]]
    assert set(own["correlation_30"].dropna()) == {1.0}
    late = table[table["other_series"] == "Health Care"]["session_date"].min()
    assert late == whole().panel.sessions[STARTS["Health Care"]].item()


def test_clustering_as_of_each_quarters_newest_session() -> None:
    rows = frame_of("sector_volatility", series="^GSPC")
    assert rows.index[0] == date(2005, 3, 31)
    assert rows.index[-1] == date(2008, 6, 30)
    assert len(rows) == 14
    returns = market_series().dropna()
    wanted = volatility.volatility_clustering(returns)
    last = rows.iloc[-1]
    assert last["garch_persistence"] == wanted.garch.persistence
    assert last["ljung_box_p"] == wanted.ljung_box.p_value
    assert last["abs_return_acf_20"] == (wanted.autocorrelations or ())[19]
    assert (last["volatility"], last["volatility_model"]) == (wanted.volatility, "garch")
    first = rows.iloc[0]
    assert (first["garch_alpha_status"], first["volatility_model"]) == ("insufficient_history", "ewma")
    assert first["is_clustered"] is None


def test_portfolios_of_the_sectors_that_are_there() -> None:
    table = table_of("sector_portfolios").to_pandas()
    months = table.groupby("session_date")["sector_count"].first()
    assert list(months.unique()) == [2, 3]
    # Health Care begins late: too few sessions that all have, so there are no weights yet, and that is said.
    begins = table[table["sector_count"] == 3]["session_date"].min()
    early = table[table["session_date"] == begins]
    enough = early["session_count"].iloc[0] >= 7
    assert set(early["weight_status"]) == ({"ok"} if enough else {"insufficient_history"})
    first = table[table["session_date"] == table["session_date"].min()]
    assert set(first["session_count"]) == {19}
    newest = table[table["session_date"] == table["session_date"].max()]
    panel = whole().panel
    returns = panel.returns[~np.isnan(panel.returns).any(axis=1)][-252:]
    for method, rows in newest.groupby("method"):
        held = diversification.optimal_weights(returns, str(method))
        np.testing.assert_array_equal(rows.sort_values("sector")["weight"], held)
        assert rows["risk_contribution"].sum() == pytest.approx(1.0)
        wanted = diversification.effective_number_of_bets(held, np.cov(returns, rowvar=False))
        assert set(rows["effective_bets"]) == {wanted}
        portfolio = pd.Series(returns @ held).std() * math.sqrt(252)
        assert rows["portfolio_volatility"].iloc[0] == pytest.approx(portfolio)


def test_exposures_see_no_number_before_its_release() -> None:
    panel, table = whole().panel, macro()
    days = pd.DatetimeIndex(panel.sessions)
    numbers = table.to_pandas()
    # The revised number is about a date that is old by then, so the newest number known is never that one.
    cpi = numbers[(numbers["series_id"] == "CPI") & (numbers["value"] != 1.0)]
    oil = numbers[numbers["series_id"] == "OIL"]
    found = table_of("sector_exposures").to_pandas()
    assert set(found["model"]) == {"CPI", "OIL", "LATE", "joint"}
    assert "UNUSED" not in set(found["factor"])
    energy = found[(found["sector"] == "Energy") & (found["model"] == "joint")]
    assert set(energy["coefficient_status"]) == {"no_data", "insufficient_history", "ok"}
    last = energy[energy["session_date"] == energy["session_date"].max()].set_index("factor")
    # What begins late holds up only itself.
    assert last.loc["LATE", "coefficient_status"] == "insufficient_history"
    alone = found[(found["model"] == "LATE") & (found["session_date"] == found["session_date"].max())]
    assert set(alone["coefficient_status"]) == {"insufficient_history"}
    last = last.loc[["alpha", "market", "CPI", "OIL"]]

    # The same, month by month, with statsmodels.
    import statsmodels.api as sm

    months = days.to_series().groupby(days.to_period("M")).max()
    level = (1 + series_of("Energy").fillna(0)).cumprod().reindex(days.date)
    level.index = days
    own = level[months].pct_change().to_numpy()
    market = market_series().reindex(days.date)
    broken = days[MARKET_GAPS[0]].to_period("M")
    market_level = (1 + market.fillna(0)).cumprod()
    market_level.index = days
    benchmark = market_level[months].pct_change().to_numpy().copy()
    benchmark[months.index.get_loc(broken)] = math.nan
    known = [cpi[cpi["release_date"] <= day]["value"].iloc[-1] for day in months]
    change = pd.Series(known).pct_change()
    factors = np.column_stack([benchmark, change.diff(), oil.set_index("reference_date")["value"][months].pct_change()])
    complete = ~np.isnan(own) & ~np.isnan(factors).any(axis=1)
    lags = math.floor(4 * (complete.sum() / 100) ** (2 / 9))
    wanted = sm.OLS(own[complete], sm.add_constant(factors[complete])).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    assert last.loc["market", "month_count"] == complete.sum()
    np.testing.assert_allclose(last["coefficient"], wanted.params, rtol=1e-7)
    np.testing.assert_allclose(last["t_statistic"], wanted.tvalues, rtol=1e-7)

    # On the market and one macro change, which is another regression.
    one = found[(found["sector"] == "Energy") & (found["model"] == "OIL")].set_index("factor")
    one = one[one["session_date"] == one["session_date"].max()]
    there = ~np.isnan(own) & ~np.isnan(factors[:, [0, 2]]).any(axis=1)
    wanted = sm.OLS(own[there], sm.add_constant(factors[there][:, [0, 2]])).fit(
        cov_type="HAC", cov_kwds={"maxlags": lags, "use_correction": False}
    )
    np.testing.assert_allclose(one.loc[["alpha", "market", "OIL"], "t_statistic"], wanted.tvalues, rtol=1e-7)
    assert one["transform"].dropna().to_dict() == {"OIL": "relative_change"}
    np.testing.assert_allclose(one["adjusted_r_squared"], wanted.rsquared_adj, rtol=1e-7)

    # A number published after a month's end, however large, moves no row up to it, and rows that it does not move are
    # kept; so is the past where a series begins after it.
    future = table.to_pandas()
    day = date(2008, 3, 31)
    late = future["release_date"] > pd.Timestamp(day)
    future.loc[late, "value"] *= 7.0
    beginning = future[(future["series_id"] == "OIL") & late].assign(series_id="LATER")
    contract = contracts.SECTOR_EXPOSURES
    for numbers, transforms in (
        (future, TRANSFORMS),
        (pd.concat([future, beginning]), {**TRANSFORMS, "LATER": "difference"}),
    ):
        changed = pa.Table.from_pandas(numbers, preserve_index=False)
        moved = conform(contract, analytics.exposure_table(panel, changed, transforms))
        after = moved.to_pandas()
        known = after[(after["session_date"] <= day) & (after["model"] != "LATER") & (after["factor"] != "LATER")]
        pd.testing.assert_frame_equal(
            found[found["session_date"] <= day].reset_index(drop=True).drop(columns="input_fingerprint"),
            known.reset_index(drop=True).drop(columns="input_fingerprint"),
        )
        later = after[(after["session_date"] > day) & (after["factor"] == "OIL")].dropna(subset="coefficient")
        assert len(later)
        assert later.merge(found, on=[*contract.key, "coefficient"]).empty
        again = analytics.exposure_table(panel, changed, transforms, table_of(contract.name))
        assert conform(contract, again).equals(moved)


def test_a_factor_that_does_not_move_is_left_out_of_the_joint_regression() -> None:
    still = macro().to_pandas()
    still.loc[still["series_id"] == "CPI", "value"] = 100.0
    rows = analytics.exposure_table(whole().panel, pa.Table.from_pandas(still, preserve_index=False), TRANSFORMS)
    frame = rows.to_pandas()
    last = frame[(frame["session_date"] == frame["session_date"].max()) & (frame["sector"] == "Energy")]
    statuses = last.set_index(["model", "factor"])["coefficient_status"]
    assert statuses["joint", "CPI"] == "zero_variance"
    assert statuses["joint", "OIL"] == statuses["joint", "market"] == "ok"
    assert statuses["CPI", "market"] == "zero_variance"


def test_every_macro_factor_is_a_series_that_is_followed() -> None:
    followed = {entry.series_id: entry for entry in (*SERIES, *SAMPLE_SERIES)}
    assert set(contracts.MACRO_FACTORS) <= set(followed)
    assert contracts.MACRO_TRANSFORMS == exposure.TRANSFORMS
    assert set(contracts.MACRO_FACTORS.values()) <= set(exposure.TRANSFORMS)
    # Indices of prices are surprises; a number per year or a spread changes by its difference.
    for name, transform in contracts.MACRO_FACTORS.items():
        unit = followed[name].unit
        wanted = (
            "surprise" if unit.startswith("index") else "relative_change" if unit.startswith("USD") else "difference"
        )
        assert transform == wanted, name


def test_signals_do_not_cross_a_break() -> None:
    rows = frame_of("sector_signals", sector="Financials", signal="trend")
    gap = GAPS["Financials"][-1]
    days = whole().panel.sessions
    assert rows.loc[days[gap - 2].item(), "state"] in ("bullish", "bearish")
    assert set(rows.loc[[days[g].item() for g in GAPS["Financials"]], "state_status"]) == {"no_data"}
    after = rows[rows.index > days[gap].item()]
    assert (after["state_status"].iloc[:199] == "insufficient_history").all()
    assert after["state_status"].iloc[199] == "ok"
    # Returns know no chains: the regime goes on.
    regime = frame_of("sector_signals", sector="Financials", signal="volatility_regime")
    assert regime.loc[days[gap + 1].item(), "state_status"] == "ok"
    rotation = frame_of("sector_signals", sector="Energy", signal="rotation")
    assert rotation.loc[days[MARKET_GAPS[0]].item(), "state_status"] == "no_data"
    assert rotation.loc[days[MARKET_GAPS[0] + 1].item(), "state_status"] == "insufficient_history"
    assert rotation.iloc[-1]["state"] in signals.QUADRANTS
    without = analytics.signal_table(analytics.read_panel(whole().composites, whole().indices.slice(0, 0))).to_pandas()
    lost = without[(without["signal"] == "rotation") & (without["sector"] == "Energy")]
    assert set(lost["state_status"]) == {"missing_input"}


@pytest.mark.parametrize("contract", contracts.ANALYTICS, ids=lambda contract: contract.name)
def test_a_changed_future_does_not_move_the_past(contract: Contract) -> None:
    cut = 780
    day = whole().panel.sessions[cut].item()
    changed = given(changed={(sector, place): -0.2 for sector in STOCKS for place in range(cut, cut + 60)})
    before, after = table_of(contract.name).to_pandas(), computed(contract, changed.panel).to_pandas()
    pd.testing.assert_frame_equal(before[before["session_date"] < day], after[after["session_date"] < day])
    assert (
        not before[before["session_date"] >= day]
        .reset_index(drop=True)
        .equals(after[after["session_date"] >= day].reset_index(drop=True))
    )


@pytest.mark.parametrize("contract", contracts.ANALYTICS, ids=lambda contract: contract.name)
def test_nothing_comes_of_nothing(contract: Contract) -> None:
    empty = analytics.read_panel(whole().composites.slice(0, 0), whole().indices.slice(0, 0))
    assert computed(contract, empty).num_rows == 0
    alone = analytics.read_panel(whole().composites.slice(0, 1), whole().indices)
    assert violations(contract, computed(contract, alone)) == []


def test_one_benchmark_at_most() -> None:
    both = whole().indices.set_column(
        whole().indices.column_names.index("is_benchmark"), "is_benchmark", pa.repeat(True, whole().indices.num_rows)
    )
    with pytest.raises(ValueError, match=r"not \^GSPC, \^XX"):
        analytics.read_panel(whole().composites, both)
