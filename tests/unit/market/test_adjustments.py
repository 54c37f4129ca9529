"""Adjustments against Yahoo's published example, recorded prices, and a plain-Python reference."""

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.market.adjustments import (
    CorporateAction,
    adjustment_factors,
    split_adjusted,
    split_adjusted_volume,
    total_return_adjusted,
    total_returns,
)

Floats = npt.NDArray[np.float64]

# Yahoo Finance help, "What is the adjusted close?" (Microsoft, February 2003).
YAHOO_DATES = ["2003-02-13", "2003-02-14", "2003-02-18", "2003-02-19"]
YAHOO_CLOSES = [46.99, 48.30, 24.96, 24.53]
YAHOO_ADJUSTED = [23.42, 24.07, 24.88, 24.53]
YAHOO_ACTIONS = [
    CorporateAction(date(2003, 2, 18), "split", 2.0),
    CorporateAction(date(2003, 2, 19), "dividend", 0.08),
]


def days(n: int, first: str = "2020-01-01") -> npt.NDArray[np.datetime64]:
    return np.datetime64(first) + np.arange(n)


# -- published numbers ---------------------------------------------------------------------------------------


def test_the_published_example_of_yahoo() -> None:
    result = total_return_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS, dates=YAHOO_DATES)
    np.testing.assert_allclose(result, YAHOO_ADJUSTED, atol=0.005)
    np.testing.assert_allclose(
        split_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS, dates=YAHOO_DATES), [23.495, 24.15, 24.96, 24.53]
    )


@pytest.mark.parametrize(
    ("cash", "close", "factor"), [(0.08, 24.96, 0.9968), (2.40, 16.51, 0.8546), (1.25, 51.20, 0.9756)]
)
def test_the_published_dividend_multipliers_of_yahoo(cash: float, close: float, factor: float) -> None:
    result = total_return_adjusted([close, close], [CorporateAction(1, "dividend", cash)])
    assert result[0] / close == pytest.approx(factor, abs=5e-5)
    assert result[1] == close


@pytest.mark.parametrize(("ratio", "factor"), [(2.0, 0.5), (4.0, 0.25), (0.2, 5.0)])
def test_the_published_split_multipliers_of_yahoo(ratio: float, factor: float) -> None:
    result = split_adjusted([80.0, 20.0], [CorporateAction(1, "split", ratio)])
    np.testing.assert_allclose(result, [80.0 * factor, 20.0], rtol=1e-15)


def test_apple_in_2005() -> None:
    """Two for one on 2005-02-28: 88.99 before is 44.495 after, and volumes double."""
    apple = pytest.importorskip("bokeh_sampledata.stocks").AAPL
    close = pd.Series(apple["close"], index=pd.to_datetime(apple["date"]))
    split = [CorporateAction("2005-02-28", "split", 2)]
    result = pd.Series(split_adjusted(close, split), index=close.index)
    assert result["2005-02-25"] == pytest.approx(44.495, rel=1e-12)
    assert result["2005-02-28"] == 44.86
    volume = pd.Series(split_adjusted_volume(apple["volume"], split, dates=apple["date"]), index=close.index)
    assert volume["2005-02-25"] == 2 * 16348400
    # Yahoo's adjusted close (later actions cancel in a ratio of two dates).
    adjusted = pd.Series(apple["adj_close"], index=close.index)["2003":"2010"]  # type: ignore[misc]
    ratio = result["2003":"2010"] / adjusted  # type: ignore[misc]
    assert ratio.max() / ratio.min() == pytest.approx(1, abs=1e-6)


def test_microsoft_in_2003_and_2004() -> None:
    """Real closes with a split and three dividends against Yahoo's own column of adjusted closes.

    The column divides by ``1 + D / close on the ex-date``, which for dividends this small is the same to
    1e-4.
    """
    microsoft = pytest.importorskip("bokeh_sampledata.stocks").MSFT
    frame = pd.DataFrame(microsoft, index=pd.to_datetime(microsoft["date"]))["2003-01":"2004-10"]  # type: ignore[misc]
    actions = [
        CorporateAction("2004-08-23", "dividend", 0.08),
        CorporateAction("2003-02-18", "split", 2),
        CorporateAction("2003-02-19", "dividend", 0.08),
        CorporateAction("2003-10-15", "dividend", 0.16),
    ]

    def spread(applied: list[CorporateAction]) -> float:
        ratio = total_return_adjusted(frame["close"], applied) / frame["adj_close"]
        return float(ratio.max() / ratio.min() - 1)

    assert spread(actions) < 2e-4
    for left_out in actions:
        assert spread([a for a in actions if a is not left_out]) > 2e-3


# -- the rule ------------------------------------------------------------------------------------------------


def test_a_dividend_on_the_day_of_a_split_is_in_new_shares() -> None:
    actions: list[CorporateAction] = [
        CorporateAction(1, "dividend", 1.0),
        CorporateAction(1, "split", 2.0),
    ]
    for order in (actions, actions[::-1]):
        # One old share of 100 became two of 50, each of which paid 1.
        np.testing.assert_allclose(total_return_adjusted([100.0, 49.0], order), [49.0, 49.0], rtol=1e-15)


def test_several_actions_on_one_day_combine() -> None:
    splits = [CorporateAction(1, "split", 2.0), CorporateAction(1, "split", 1.5)]
    np.testing.assert_allclose(split_adjusted([90.0, 30.0], splits), [30.0, 30.0], rtol=1e-15)
    dividends = [CorporateAction(1, "dividend", 10.0), CorporateAction(1, "dividend", 40.0)]
    np.testing.assert_allclose(total_return_adjusted([100.0, 50.0], dividends), [50.0, 50.0], rtol=1e-15)


def test_a_dividend_refers_to_the_last_observed_close() -> None:
    closes = [200.0, math.nan, math.nan, 98.0]
    result = total_return_adjusted(closes, [CorporateAction(2, "dividend", 2.0)])
    np.testing.assert_allclose(result, [198.0, np.nan, np.nan, 98.0], rtol=1e-15)
    # Split on the unobserved day before: the dividend is per new share.
    result = total_return_adjusted(closes, [CorporateAction(1, "split", 2), CorporateAction(2, "dividend", 2.0)])
    np.testing.assert_allclose(result, [98.0, np.nan, np.nan, 98.0], rtol=1e-15)
    # Dividend first: two new shares stand for one that was paid 4.
    result = total_return_adjusted(closes, [CorporateAction(1, "dividend", 4.0), CorporateAction(2, "split", 2)])
    np.testing.assert_allclose(result, [98.0, np.nan, np.nan, 98.0], rtol=1e-15)


def test_a_volume_between_missing_closes_knows_its_own_splits() -> None:
    volumes = [10.0, 20.0, 30.0, 40.0]
    result = split_adjusted_volume(volumes, [CorporateAction(2, "split", 2)])
    np.testing.assert_array_equal(result, [20.0, 40.0, 30.0, 40.0])
    factors = adjustment_factors([0, 4], np.arange(4), [8.0, np.nan, np.nan, 4.0], [0], [2], [2.0], [np.nan])
    np.testing.assert_array_equal(factors.split, [0.5, 0.5, 1.0, 1.0])


def test_actions_outside_the_dates() -> None:
    closes, when = [10.0, 11.0], ["2020-01-02", "2020-01-03"]
    early = [CorporateAction("2019-01-01", "split", 2), CorporateAction("2020-01-02", "dividend", 1)]
    np.testing.assert_array_equal(total_return_adjusted(closes, early, dates=when), closes)
    late = [CorporateAction("2021-01-01", "split", 2)]
    np.testing.assert_array_equal(split_adjusted(closes, late, dates=when), [5.0, 5.5])
    late = [CorporateAction("2021-01-01", "dividend", 1.1)]
    np.testing.assert_allclose(total_return_adjusted(closes, late, dates=when), [9.0, 9.9], rtol=1e-15)


def test_a_dividend_before_any_observed_close_changes_nothing() -> None:
    closes = [math.nan, 0.0, 10.0]
    result = total_return_adjusted(closes, [CorporateAction(2, "dividend", 1.0)])
    np.testing.assert_array_equal(result[2:], closes[2:])


def test_no_actions_and_no_prices() -> None:
    np.testing.assert_array_equal(total_return_adjusted([1.0, 2.0], []), [1.0, 2.0])
    assert split_adjusted([], [CorporateAction(0, "split", 2)]).size == 0
    assert total_return_adjusted({}, []).size == 0


def reference_total_return(closes: Sequence[float], actions: Sequence[CorporateAction]) -> Floats:
    """Walk forward as a holder of one share who reinvests at the close before, less the dividend."""
    n = len(closes)
    growth = np.full(n, np.nan)
    last, held, pending = None, 1.0, 0.0  # held: after reinvestment, in shares of today
    for i in range(n):
        for kind in ("split", "dividend"):
            for action in actions:
                if action.ex_date == i and action.action_type == kind and last is not None:
                    if kind == "split":
                        held *= action.value
                        last /= action.value
                        pending /= action.value
                    else:
                        pending += action.value
        if not math.isnan(closes[i]):
            if last is not None and pending:
                held *= last / (last - pending)
            last, pending = closes[i], 0.0
            growth[i] = held * closes[i]
    return growth


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_relative_changes_are_total_returns(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 25))
    price = st.one_of(st.floats(5.0, 500.0), st.just(math.nan))
    closes = data.draw(st.lists(price, min_size=n, max_size=n))
    splits = st.builds(CorporateAction, st.integers(0, n - 1), st.just("split"), st.sampled_from([0.5, 2.0, 3.0, 1.5]))
    dividends = st.builds(
        CorporateAction, st.integers(0, n - 1), st.just("dividend"), st.floats(0, 0.02, allow_subnormal=False)
    )
    actions = data.draw(st.lists(st.one_of(splits, dividends), max_size=8))
    adjusted = total_return_adjusted(closes, actions)
    expected = reference_total_return(closes, actions)
    observed = ~np.isnan(expected)
    assert (np.isnan(adjusted) == ~observed).all()
    if observed.any():
        last = np.flatnonzero(observed)[-1]
        if not any(isinstance(a.ex_date, int) and a.ex_date > last for a in actions):
            assert adjusted[last] == closes[last]
        np.testing.assert_allclose(adjusted[observed] / adjusted[last], expected[observed] / expected[last], rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(0.01, 1e4), min_size=1, max_size=30),
    st.lists(st.tuples(st.integers(0, 35), st.sampled_from([2.0, 0.1, 1.5, 7.0])), max_size=6),
)
def test_a_split_is_no_event(level: list[float], splits: list[tuple[int, float]]) -> None:
    """Prices of a company that splits, adjusted, are those of one that does not; turnover never changes."""
    held = np.array([math.prod([q for at, q in splits if at > i]) for i in range(len(level))])
    raw = np.array(level) * held
    actions = [CorporateAction(at, "split", q) for at, q in splits]
    np.testing.assert_allclose(split_adjusted(raw, actions), level, rtol=1e-12)
    volumes = np.arange(len(level)) + 1.0
    turnover = split_adjusted(raw, actions) * split_adjusted_volume(volumes, actions)
    np.testing.assert_allclose(turnover, raw * volumes, rtol=1e-12)


# -- forms of input ------------------------------------------------------------------------------------------


def test_every_form_of_prices_and_actions_agrees() -> None:
    index = pd.to_datetime(YAHOO_DATES)
    prices: list[tuple[Any, dict[str, Any]]] = [
        (YAHOO_CLOSES, {"dates": YAHOO_DATES}),
        (np.array(YAHOO_CLOSES), {"dates": np.array(YAHOO_DATES, dtype="datetime64[D]")}),
        (YAHOO_CLOSES, {"dates": [date.fromisoformat(d) for d in YAHOO_DATES]}),
        (YAHOO_CLOSES, {"dates": pa.array([date.fromisoformat(d) for d in YAHOO_DATES])}),
        (pa.array(YAHOO_CLOSES), {"dates": index}),
        (pd.Series(YAHOO_CLOSES, index=index), {}),
        (pd.Series(YAHOO_CLOSES, index=index.tz_localize("America/New_York")), {}),
        (pd.Series(YAHOO_CLOSES, index=[date.fromisoformat(d) for d in YAHOO_DATES]), {}),
        (pd.Series(YAHOO_CLOSES), {"dates": index}),
        (dict(zip(YAHOO_DATES, YAHOO_CLOSES, strict=True)), {}),
    ]
    records = [
        {"ex_date": date(2003, 2, 18), "action_type": "split", "split_ratio": 2.0, "cash_amount": None},
        {"ex_date": date(2003, 2, 19), "action_type": "dividend", "split_ratio": None, "cash_amount": 0.08},
    ]
    actions: list[Any] = [
        YAHOO_ACTIONS,
        [tuple(a) for a in YAHOO_ACTIONS],
        iter(YAHOO_ACTIONS),
        records,
        [{"ex_date": "2003-02-18", "action_type": "split", "value": 2}, records[1]],
        pa.Table.from_pylist(records),
        pd.DataFrame(records),
        pd.DataFrame(records).assign(ex_date=lambda t: pd.to_datetime(t.ex_date)),
        [
            CorporateAction(datetime(2003, 2, 18, 14, tzinfo=UTC), "split", 2),
            CorporateAction(np.datetime64("2003-02-19"), "dividend", 0.08),
        ],
    ]
    expected = total_return_adjusted(
        YAHOO_CLOSES, [CorporateAction(2, "split", 2), CorporateAction(3, "dividend", 0.08)]
    )
    for close, keywords in prices:
        np.testing.assert_array_equal(total_return_adjusted(close, YAHOO_ACTIONS, **keywords), expected)
    for form in actions:
        np.testing.assert_array_equal(
            total_return_adjusted(YAHOO_CLOSES, form, dates=YAHOO_DATES), expected, err_msg=str(form)
        )


def test_the_caller_s_prices_are_left_alone() -> None:
    closes = np.array(YAHOO_CLOSES)
    total_return_adjusted(closes, YAHOO_ACTIONS, dates=YAHOO_DATES)
    np.testing.assert_array_equal(closes, YAHOO_CLOSES)


def test_dated_actions_need_dated_prices() -> None:
    with pytest.raises(TypeError, match=r"pass dates=\.\.\., a pandas Series indexed by date"):
        split_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS)
    with pytest.raises(TypeError, match="pass dates="):
        split_adjusted(pd.Series(YAHOO_CLOSES), YAHOO_ACTIONS)
    with pytest.raises(TypeError, match="is a position, but close has dates"):
        split_adjusted(YAHOO_CLOSES, [CorporateAction(2, "split", 2)], dates=YAHOO_DATES)
    with pytest.raises(TypeError, match="not integers"):
        split_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS, dates=[1, 2, 3, 4])
    with pytest.raises(TypeError, match="must hold dates"):
        split_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS, dates=["a", "b", "c", "d"])
    with pytest.raises(TypeError, match="a table or a sequence"):
        split_adjusted(YAHOO_CLOSES, {"2003-02-18": 2}, dates=YAHOO_DATES)  # type: ignore[dict-item]


@pytest.mark.parametrize(
    ("dates", "message"),
    [
        (["2003-02-13", "2003-02-18", "2003-02-14", "2003-02-19"], "dates must ascend"),
        (["2003-02-13", "2003-02-13", "2003-02-14", "2003-02-19"], "dates must ascend"),
        (YAHOO_DATES[:3], "4 values, but there are 3 dates"),
        (["2003-02-13", "NaT", "2003-02-18", "2003-02-19"], "missing dates"),
    ],
)
def test_refused_dates(dates: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        split_adjusted(YAHOO_CLOSES, YAHOO_ACTIONS, dates=dates)


@pytest.mark.parametrize("ratio", [0.0, -2.0, math.inf])
def test_refused_split_ratios(ratio: float) -> None:
    with pytest.raises(ValueError, match=r"split of .* ex-date 1: a split ratio must be positive"):
        split_adjusted([1.0, 2.0], [CorporateAction(1, "split", ratio)])


@pytest.mark.parametrize("cash", [-0.1, math.inf, 100.0, 100.01])
def test_refused_dividends(cash: float) -> None:
    dividend = [CorporateAction(1, "dividend", cash)]
    with pytest.raises(ValueError, match=r"dividend of .* ex-date 1: .* below the last close before"):
        total_return_adjusted([100.0, 1.0], dividend)
    np.testing.assert_array_equal(split_adjusted([100.0, 1.0], dividend), [100.0, 1.0])


def test_refused_actions() -> None:
    with pytest.raises(ValueError, match="'split' or 'dividend', got 'merger'"):
        split_adjusted([1.0], [(0, "merger", 1.0)])
    for value in (None, math.nan):
        record = {"ex_date": 0, "action_type": "split", "split_ratio": value, "cash_amount": 1.0}
        with pytest.raises(ValueError, match="has no value"):
            split_adjusted([1.0], [record])


# -- panels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_a_panel_equals_its_series(seed: int) -> None:
    rng = np.random.default_rng(seed)
    offsets, when, closes = [0], [], []
    tickers: list[int] = []
    actions: list[CorporateAction] = []
    for ticker, length in enumerate([0, 1, 2, 50, 0, *rng.integers(0, 80, 10)]):
        offsets.append(offsets[-1] + length)
        own = np.sort(rng.choice(200, length, replace=False)) + 18_000
        when.append(own)
        close = rng.uniform(5, 50, length)
        close[rng.random(length) < 0.2] = np.nan
        closes.append(close)
        for _ in range(rng.integers(0, 8)):
            kind = "split" if rng.random() < 0.4 else "dividend"
            value = rng.choice([2.0, 0.5, 3.0]) if kind == "split" else rng.uniform(0, 0.2)
            day = np.datetime64(int(rng.integers(17_990, 18_210)), "D")
            actions.append(CorporateAction(day, kind, float(value)))  # type: ignore[arg-type]
            tickers.append(ticker)
    shuffled = rng.permutation(len(actions))
    actions, tickers = [actions[i] for i in shuffled], [tickers[i] for i in shuffled]
    all_dates, all_closes = np.concatenate(when).astype("datetime64[D]"), np.concatenate(closes)
    factors = adjustment_factors(
        offsets,
        all_dates,
        all_closes,
        tickers,
        np.array([a.ex_date for a in actions]),
        [a.value if a.action_type == "split" else np.nan for a in actions],
        [a.value if a.action_type == "dividend" else np.nan for a in actions],
    )
    assert not factors.rejected.any()
    for ticker in range(len(offsets) - 1):
        rows = slice(offsets[ticker], offsets[ticker + 1])
        mine = [a for a, t in zip(actions, tickers, strict=True) if t == ticker]
        close, own = all_closes[rows], all_dates[rows]
        np.testing.assert_array_equal(close * factors.split[rows], split_adjusted(close, mine, dates=own))
        np.testing.assert_array_equal(close * factors.total_return[rows], total_return_adjusted(close, mine, dates=own))


def test_a_bad_action_spoils_its_own_history_only() -> None:
    closes = [10.0, 10.0, 10.0] * 4
    result = adjustment_factors(
        offsets=[0, 3, 6, 9, 12],
        dates=np.tile(days(3), 4),
        close=closes,
        action_ticker=[1, 0, 2, 3],
        action_ex_date=days(3)[[2, 1, 1, 1]],
        split_ratio=[np.nan, 2.0, -1.0, np.nan],
        cash_amount=[10.0, np.nan, np.nan, -0.5],
    )
    nan = np.nan
    np.testing.assert_array_equal(result.rejected, [True, False, True, True])
    np.testing.assert_array_equal(result.split, [0.5, 1, 1, 1, 1, 1, nan, 1, 1, 1, 1, 1])
    np.testing.assert_array_equal(result.total_return, [0.5, 1, 1, nan, nan, 1, nan, 1, 1, nan, 1, 1])


def test_one_row_may_carry_a_split_and_a_dividend() -> None:
    result = adjustment_factors([0, 2], days(2), [100.0, 49.0], [0], days(2)[1:], [2.0], [1.0])
    np.testing.assert_allclose(result.total_return, [0.49, 1.0], rtol=1e-15)


def test_a_panel_without_actions() -> None:
    nothing: list[int] = []
    result = adjustment_factors([0, 2], days(2), [1.0, 2.0], nothing, nothing, nothing, nothing)
    np.testing.assert_array_equal(result.split, [1.0, 1.0])
    np.testing.assert_array_equal(result.total_return, [1.0, 1.0])
    assert result.rejected.size == 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_ticker": [1]}, r"0 \.\. 0"),
        ({"action_ticker": [-1]}, r"0 \.\. 0"),
        ({"action_ticker": [0, 0]}, "differ in length"),
        ({"action_ticker": [0.0]}, "integers"),
        ({"dates": days(2)[::-1]}, "dates must ascend"),
        ({"dates": days(3)}, "dates must hold 2"),
        ({"close": [1.0]}, "close has 1 rows"),
    ],
)
def test_refused_panels(changes: dict[str, Any], message: str) -> None:
    good: dict[str, Any] = {
        "offsets": [0, 2],
        "dates": days(2),
        "close": [1.0, 2.0],
        "action_ticker": [0],
        "action_ex_date": days(1),
        "split_ratio": [2.0],
        "cash_amount": [np.nan],
    }
    adjustment_factors(**good)
    with pytest.raises(ValueError, match=message):
        adjustment_factors(**{**good, **changes})


# -- returns -------------------------------------------------------------------------------------------------


def test_returns_connect_observed_closes_only() -> None:
    result = total_returns([10.0, 11.0, math.nan, 0.0, 12.1, 12.1])
    np.testing.assert_allclose(result.values, [np.nan, 0.1, np.nan, np.nan, 0.1, 0.0], rtol=1e-12)
    np.testing.assert_array_equal(result.span_sessions, [0, 1, 0, 0, 3, 1])
    assert result.span_sessions.dtype == np.int32


def test_returns_of_a_panel_stay_within_a_ticker() -> None:
    closes = [10.0, 11.0, math.nan, 5.0, 4.0, math.nan, 8.0, 8.0]
    sessions = [3, 5, 6, 1, 2, 3, 9, 10]
    result = total_returns(closes, sessions, offsets=[0, 0, 3, 6, 7, 8, 8])
    wanted = [np.nan, 0.1, np.nan, np.nan, -0.2, np.nan, np.nan, np.nan]
    np.testing.assert_allclose(result.values, wanted, rtol=1e-12)
    np.testing.assert_array_equal(result.span_sessions, [0, 2, 0, 0, 1, 0, 0, 0])


def test_returns_of_nothing() -> None:
    for closes in ([], [5.0], [math.nan] * 3):
        result = total_returns(closes)
        assert np.isnan(result.values).all()
        assert (result.span_sessions == 0).all()
    assert np.isnan(total_returns([1e-300, 1e300]).values).all()
