"""Stale prices, jumps, drift: on made-up series with one fault each, and on the sample's real ones."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pytest

from finance_assets.market.quality import drift, jumps, robust_z, split_like, stale_symbols

FIRST = date(2012, 1, 2)


def returns(*values: float, symbol: str = "AAA") -> pa.Table:
    """A quiet year of returns, and then the given ones."""
    quiet = np.random.default_rng(7).normal(0, 0.01, 200)
    every = [None, *quiet.tolist(), *values]
    days = [FIRST + timedelta(days=n) for n in range(len(every))]
    return pa.table(
        {"symbol": [symbol] * len(every), "session_date": days, "total_return": pa.array(every, pa.float64())}
    )


LAST = FIRST + timedelta(days=201)


@pytest.mark.parametrize(
    ("value", "ratio"),
    [
        (-0.50, 2.0),
        (-0.51, 2.0),
        (-0.4813, None),  # 3.7 % off: a fall, not a split
        (1.0, 0.5),
        (-0.8571, 7.0),
        (-0.0, None),
        (-1.0, None),
        (float("nan"), None),
    ],
)
def test_what_looks_like_a_split(value: float, ratio: float | None) -> None:
    found = split_like(value)
    assert found is None if ratio is None else found == pytest.approx(ratio)


def test_robust_z_is_not_masked_by_outliers() -> None:
    """Worked by hand: of 0..98 and one outlier the median is 49.5 and the median deviation 25."""
    usual = np.r_[np.arange(99.0), 1e6]
    assert robust_z(149.5, usual) == pytest.approx(0.67449 * 100 / 25)
    assert robust_z(1.0, np.zeros(100)) is None
    assert robust_z(1.0, np.arange(59.0)) is None


def test_a_missed_split_is_a_jump_and_a_recorded_one_is_not() -> None:
    table = returns(-0.498)
    (jump,) = jumps(table, FIRST, [])
    assert (jump.symbol, jump.session, jump.split_ratio) == ("AAA", LAST, 2.0)
    assert "like a split of 2" in str(jump)
    assert jumps(table, FIRST, [("AAA", LAST)]) == []
    assert jumps(table, LAST + timedelta(days=1), []) == []  # before the sessions to judge


def test_large_but_usual_is_no_jump() -> None:
    wild = returns(*([0.2, -0.2] * 100))
    assert jumps(wild, LAST + timedelta(days=150), []) == []
    assert jumps(returns(0.149), FIRST, []) == []


def test_the_history_of_another_ticker_does_not_count() -> None:
    short = pa.table({"symbol": ["BBB"], "session_date": [LAST], "total_return": pa.array([-0.5], pa.float64())})
    assert jumps(pa.concat_tables([returns(0.01), short]), FIRST, []) == []
    assert jumps(short.slice(0, 0), FIRST, []) == []


def test_a_price_is_stale_when_its_newest_closes_are_equal() -> None:
    days = [FIRST + timedelta(days=n) for n in range(7)]
    quotes = pa.table(
        {
            "symbol": ["AAA"] * 7 + ["BBB"] * 7 + ["CCC"] * 7,
            "session_date": days * 3,
            # AAA rests at the end, BBB rested before, CCC rests too shortly and begins where BBB ends.
            "close": [1, 2, 3, 3, 3, 3, 3, 5, 5, 5, 5, 5, 5, 6, 6, 6, 6, 7, 7, 7, 7],
        }
    )
    assert stale_symbols(quotes) == {"AAA": (days[2], 5)}
    assert stale_symbols(quotes.slice(0, 0)) == {}


def test_drift_is_measured_against_the_median() -> None:
    counts = {f"2013-02-{day:02}": 20 for day in range(1, 11)} | {"2013-02-05": 2, "2013-02-11": 10}
    assert drift(counts) == (10, 20, -0.5)
    assert drift({"a": 1, "b": 1}) is None
    assert drift(dict.fromkeys("abcdefg", 0)) is None
