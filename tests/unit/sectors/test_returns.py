"""Period returns against the metric specification, DuckDB's calendar and hand-made levels."""

import math
from datetime import date, datetime, timedelta
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.sectors.returns import (
    PERIODS,
    composite_returns,
    levels_from_returns,
    period_return,
    reference_date,
)


def business_levels(first: str = "2020-12-01", last: str = "2022-06-30") -> "pd.Series[float]":
    """Levels that tell their date: the ordinal of the day, on weekdays."""
    index = pd.bdate_range(first, last)
    return pd.Series([float(d.toordinal()) for d in index], index=index)


@pytest.mark.parametrize(
    ("as_of", "period", "reference"),
    [
        # METRICS B2
        ("2022-03-31", "1M", "2022-02-28"),
        ("2022-03-31", "3M", "2021-12-31"),
        ("2022-03-31", "YTD", "2021-12-31"),
        ("2022-03-31", "1Y", "2021-03-31"),
        ("2022-03-31", "1D", "2022-03-30"),
        # the target falls on a weekend: the session before it
        ("2022-02-14", "1M", "2022-01-14"),
        ("2022-03-15", "3M", "2021-12-15"),
        ("2022-06-20", "1M", "2022-05-20"),
        ("2022-03-22", "1M", "2022-02-22"),
        ("2022-02-08", "1M", "2022-01-07"),  # 8 January 2022 is a Saturday
        ("2022-01-03", "YTD", "2021-12-31"),
        ("2022-01-03", "1D", "2021-12-31"),
        ("2022-05-31", "3M", "2022-02-28"),
        ("2022-06-30", "cumulative", "2020-12-01"),
    ],
)
def test_reference_session(as_of: str, period: str, reference: str) -> None:
    levels = business_levels()
    result = period_return(levels, as_of, period)
    assert result == levels[as_of] / levels[reference] - 1
    assert isinstance(result, float)


def test_reference_dates_agree_with_duckdb() -> None:
    """Interval arithmetic of the warehouse, over two leap years and a century that is none."""
    for first in (date(1899, 12, 25), date(2023, 12, 25)):
        last = first + timedelta(days=1200)
        rows = duckdb.sql(
            f"""
            SELECT day::DATE, (day - INTERVAL 1 MONTH)::DATE, (day - INTERVAL 3 MONTH)::DATE,
                   (day - INTERVAL 1 YEAR)::DATE, (date_trunc('year', day) - INTERVAL 1 DAY)::DATE
            FROM generate_series(DATE '{first}', DATE '{last}', INTERVAL 1 DAY) AS t(day)
            """
        ).fetchall()
        assert len(rows) == 1201
        for day, *expected in rows:
            assert [reference_date(day, p) for p in ("1M", "3M", "1Y", "YTD")] == expected


def test_leap_day() -> None:
    assert reference_date("2024-02-29", "1Y") == date(2023, 2, 28)
    assert reference_date("2024-03-31", "1M") == date(2024, 2, 29)


def test_none_before_the_first_level() -> None:
    levels = {"2022-01-10": 1.0, "2022-02-10": 1.1, "2022-02-11": 1.21}
    assert period_return(levels, "2022-02-10", "1M") == pytest.approx(0.1)
    assert period_return(levels, "2022-02-11", "1M") == pytest.approx(0.21)
    for period in ("3M", "YTD", "1Y"):
        assert period_return(levels, "2022-02-11", period) is None
    assert period_return(levels, "2022-01-10", "1D") is None
    assert period_return(levels, "2022-01-10", "cumulative") == 0.0


def test_none_without_a_level_on_the_date_itself() -> None:
    levels = business_levels()
    for as_of in ("2022-03-26", "2030-01-01", "2000-01-01"):
        assert period_return(levels, as_of, "1M") is None
    levels["2022-03-31"] = math.nan
    assert period_return(levels, "2022-03-31", "1D") is None
    assert period_return(levels, "2022-04-01", "1D") == levels["2022-04-01"] / levels["2022-03-30"] - 1
    assert period_return({}, "2022-03-31", "1D") is None


def test_a_total_loss_sticks() -> None:
    levels = {"2022-01-03": 1.0, "2022-01-04": 0.0, "2022-01-05": 0.0}
    assert period_return(levels, "2022-01-04", "1D") == -1.0
    assert period_return(levels, "2022-01-05", "cumulative") == -1.0
    assert period_return(levels, "2022-01-05", "1D") is None


def test_forms_of_levels_and_dates() -> None:
    series = business_levels()
    days = pd.DatetimeIndex(series.index)
    expected = period_return(series, "2022-03-31", "3M")
    forms: list[Any] = [
        series.to_dict(),
        (series.index, series.to_numpy()),
        (days.date, series.tolist()),
        ([str(d.date()) for d in days], series),
        series.tz_localize("America/New_York"),
        pd.Series(series.to_numpy(), index=days.date),
    ]
    for levels in forms:
        assert period_return(levels, "2022-03-31", "3M") == expected
    as_ofs: list[Any] = [
        date(2022, 3, 31),
        datetime(2022, 3, 31, 16, 0),
        np.datetime64("2022-03-31"),
        pd.Timestamp("2022-03-31", tz="America/New_York"),
    ]
    for as_of in as_ofs:
        assert period_return(series, as_of, "3M") == expected


def test_refused_arguments() -> None:
    levels = business_levels()
    with pytest.raises(ValueError, match="1D, 1M, 3M, YTD, 1Y, cumulative, got '2M'"):
        period_return(levels, "2022-03-31", "2M")
    with pytest.raises(ValueError, match="got 'ytd'"):
        reference_date("2022-03-31", "ytd")
    with pytest.raises(ValueError, match="refers to a level"):
        reference_date("2022-03-31", "1D")
    with pytest.raises(ValueError, match="ascend"):
        period_return(levels[::-1], "2022-03-31", "1M")
    with pytest.raises(ValueError, match="differ in shape"):
        period_return((["2022-03-31"], [1.0, 2.0]), "2022-03-31", "1M")
    with pytest.raises(ValueError, match="not a date"):
        period_return(levels, "NaT", "1M")
    for undated in ([1.0, 2.0], np.ones(3), pd.Series([1.0, 2.0])):
        with pytest.raises(TypeError, match="levels must"):
            period_return(undated, "2022-03-31", "1M")


# -- composites ----------------------------------------------------------------------------------------------


def test_a_composite_is_the_mean_of_members_with_a_return() -> None:
    nan = math.nan
    returns = [[0.01, 0.03, 0.08], [0.02, nan, 0.04], [nan, nan, 0.05], [nan, nan, nan]]
    np.testing.assert_allclose(composite_returns(returns), [0.04, 0.03, np.nan, np.nan], rtol=1e-14)


def test_a_sector_of_one_needs_no_second_member() -> None:
    np.testing.assert_array_equal(composite_returns([[0.01], [math.nan]]), [0.01, np.nan])
    returns = [[0.01, 0.02], [0.03, 0.5], [0.04, math.nan]]
    members = [[True, True], [True, False], [True, True]]
    # On the second session it has one member; on the third it has two, of which one has no return.
    np.testing.assert_allclose(composite_returns(returns, members), [0.015, 0.03, np.nan], rtol=1e-14)


def test_weights_of_the_session_before() -> None:
    returns = [[0.10, 0.20, 0.30], [0.10, 0.20, math.nan], [0.10, 0.20, 0.30]]
    caps = [[1.0, 2.0, 1.0], [3.0, 1.0, 9.0], [1.0, math.nan, 0.0]]
    expected = [(0.1 + 0.4 + 0.3) / 4, (0.3 + 0.2) / 4, math.nan]
    np.testing.assert_allclose(composite_returns(returns, weights=caps), expected, rtol=1e-14)


def test_refused_composites() -> None:
    with pytest.raises(ValueError, match="sessions x securities"):
        composite_returns([0.1, 0.2])
    with pytest.raises(ValueError, match="same shape"):
        composite_returns([[0.1, 0.2]], members=[[True]])


def test_levels_start_at_one_the_session_before() -> None:
    np.testing.assert_allclose(levels_from_returns([0.1, -0.5]), [1.0, 1.1, 0.55], rtol=1e-15)
    np.testing.assert_array_equal(levels_from_returns([0.5, -1.0, 0.5]), [1.0, 1.5, 0.0, 0.0])
    np.testing.assert_allclose(levels_from_returns([0.1, math.nan, 0.1]), [1, 1.1, np.nan, np.nan])
    np.testing.assert_allclose(levels_from_returns([0.1, math.inf, 0.1]), [1, 1.1, np.nan, np.nan])
    np.testing.assert_array_equal(levels_from_returns([]), [1.0])
    with pytest.raises(ValueError, match="below -1"):
        levels_from_returns([-1.5])
    with pytest.raises(ValueError, match="one-dimensional"):
        levels_from_returns([[0.1]])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-0.9, 2.0), min_size=1, max_size=40))
def test_period_returns_compound_back(returns: list[float]) -> None:
    levels = levels_from_returns(returns)
    index = pd.bdate_range("2021-12-31", periods=len(levels))
    total = period_return((index, levels), index[-1], "cumulative")
    assert total == pytest.approx(math.prod(1 + r for r in returns) - 1, rel=1e-9, abs=1e-12)
    assert period_return((index, levels), index[-1], "1D") == pytest.approx(returns[-1], rel=1e-9, abs=1e-9)


def test_the_periods_of_the_contract_are_there() -> None:
    assert set(PERIODS) >= {"1D", "1M", "3M", "YTD", "1Y"}
