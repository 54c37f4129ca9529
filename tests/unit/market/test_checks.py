"""Checks of quotes against a lake in which one thing is wrong."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, TICKER_KPIS
from finance_assets.market.checks import (
    no_session_missing,
    no_stale_price,
    no_unexplained_jump,
    no_unrecorded_split,
    row_count_is_usual,
    volume_is_usual,
)
from finance_assets.partitions import SessionCalendar
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

NOW = datetime(2013, 3, 1, 22, tzinfo=UTC)
START = date(2012, 9, 4)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, market_start=START, now=NOW)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    return build_lake(settings)


def sessions(settings: Settings) -> list[date]:
    return SessionCalendar.of(settings).closed_sessions(NOW)


def fill_kpis(lake: Lake, days: list[date], last_return: float, **changes: Any) -> None:
    usual = np.random.default_rng(3).normal(0, 0.01, len(days)).tolist()
    for day, value in zip(days, [*usual[:-1], last_return], strict=True):
        row = good_row(TICKER_KPIS, symbol="AAA", session_date=day, total_return=value, **changes)
        lake.write_partitions(TICKER_KPIS, table_of(TICKER_KPIS, row), [day.isoformat()])


def judged(result: object) -> dg.AssetCheckResult:
    assert isinstance(result, dg.AssetCheckResult)
    return result


def test_a_split_that_nobody_recorded_is_an_error_until_it_is_known(settings: Settings, lake: Lake) -> None:
    days = sessions(settings)
    fill_kpis(lake, days, -0.5)
    found = judged(no_unrecorded_split(lake=lake, settings=settings))
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert f"AAA {days[-1]}: -50.0%" in str(found.description)
    assert judged(no_unexplained_jump(lake=lake, settings=settings)).passed
    real = settings.model_copy(update={"acknowledged_jumps": (f"AAA:{days[-1]}",)})
    assert judged(no_unrecorded_split(lake=lake, settings=real)).passed
    action = good_row(
        CORPORATE_ACTIONS, symbol="AAA", ex_date=days[-1], action_type="split", split_ratio=2.0, cash_amount=None
    )
    key = days[-1].isoformat()
    lake.write_partitions(CORPORATE_ACTIONS, table_of(CORPORATE_ACTIONS, action), [key])
    assert judged(no_unrecorded_split(lake=lake, settings=settings)).passed


def test_a_jump_that_is_no_split_asks_for_a_look(settings: Settings, lake: Lake) -> None:
    fill_kpis(lake, sessions(settings), 0.4)
    found = judged(no_unexplained_jump(lake=lake, settings=settings))
    assert (found.passed, found.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert judged(no_unrecorded_split(lake=lake, settings=settings)).passed


def test_unusual_volume_is_listed(settings: Settings, lake: Lake) -> None:
    days = sessions(settings)[-2:]
    fill_kpis(lake, days, 0.0, is_volume_anomaly=True)
    assert str(judged(volume_is_usual(lake=lake)).description).startswith("AAA on 2013-03-01")
    fill_kpis(lake, days, 0.0, is_volume_anomaly=None, is_low_volume=None)
    assert judged(volume_is_usual(lake=lake)).passed


def test_gaps_stale_prices_and_lost_rows(settings: Settings, lake: Lake) -> None:
    days = sessions(settings)[-8:]

    def fill(day: date, *symbols: str) -> None:
        rows = [good_row(QUOTES, symbol=symbol, session_date=day) for symbol in symbols]
        lake.write_partitions(QUOTES, table_of(QUOTES, *rows), [day.isoformat()])

    for day in days[:3]:
        fill(day, "AAA", "BBB")
    assert judged(no_session_missing(lake=lake, settings=settings)).passed
    assert judged(no_stale_price(lake=lake)).passed
    for day in days[4:]:
        fill(day, "AAA", "BBB")
    found = judged(no_session_missing(lake=lake, settings=settings))
    assert not found.passed
    assert f"1 sessions are missing: {days[3]}" in str(found.description)
    assert judged(row_count_is_usual(lake=lake)).passed
    stale = judged(no_stale_price(lake=lake))
    assert stale.metadata["stale_count"].value == 2
    fill(days[-1], "AAA")
    assert f"1 rows on {days[-1]}, usually 2 (-50%)" in str(judged(row_count_is_usual(lake=lake)).description)
