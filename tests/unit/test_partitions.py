"""Partitions are the exchange's sessions: all of them, no other day, and none before it has closed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import exchange_calendars as xcals
import pytest

from finance_assets.contracts.arrow import conform
from finance_assets.contracts.market import TRADING_SESSIONS
from finance_assets.contracts.validation import violations
from finance_assets.partitions import (
    SESSIONS,
    SessionCalendar,
    available_from,
    daily_sessions,
    partition_days,
)
from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.settings import Settings

NEW_YORK = ZoneInfo(EXCHANGE_ZONE)


def settings_at(now: datetime | str, start: str = "2000-03-01", **more: Any) -> Settings:
    """Settings whose clock stands still."""
    return Settings(market_providers=("yahoo",), now=now, market_start=start, **more)


def in_new_york(day: str, hour: int, minute: int = 0) -> datetime:
    return datetime.combine(date.fromisoformat(day), time(hour, minute), tzinfo=NEW_YORK)


def keys_at(now: datetime | str, start: str = "2000-03-01") -> list[str]:
    """Keys where the clock stands still at ``now``, whatever the real time."""
    with at(datetime(2030, 1, 1, tzinfo=UTC)):
        return list(daily_sessions(settings_at(now, start)).get_partition_keys())


@pytest.fixture(scope="module")
def exchange() -> Iterator[list[date]]:
    """The sessions of the exchange, from the library itself."""
    calendar = xcals.get_calendar("XNYS", start="2000-01-03", end="2027-12-31")
    return [session.date() for session in calendar.sessions]


@contextmanager
def at(instant: datetime) -> Iterator[None]:
    """Let Dagster believe that it is ``instant``."""
    with dg.partition_loading_context(effective_dt=instant):
        yield


# -- which days ----------------------------------------------------------------------------------------------


def test_the_samples_partitions_are_the_exchanges_sessions(exchange: list[date]) -> None:
    keys = daily_sessions(Settings()).get_partition_keys()
    expected = [day for day in exchange if date(2000, 3, 1) <= day <= date(2013, 3, 1)]
    assert partition_days(keys) == expected
    assert len(keys) == 3270


@pytest.mark.parametrize(
    "closed",
    [
        *("2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14"),  # the attacks
        *("2012-10-29", "2012-10-30"),  # the hurricane
        *("2004-06-11", "2007-01-02"),  # mourning
        *("2000-07-04", "2012-12-25", "2013-01-21", "2012-04-06"),  # Good Friday is no federal holiday
        *("2013-02-02", "2013-02-03"),  # a weekend
    ],
)
def test_a_day_without_a_session_has_no_partition(closed: str) -> None:
    sessions = daily_sessions(Settings())
    assert closed not in sessions.get_partition_keys()
    assert not sessions.has_partition_key(closed)


@pytest.mark.parametrize("half", ["2012-11-23", "2012-12-24", "2001-07-03"])
def test_a_half_day_has_a_partition(half: str) -> None:
    assert daily_sessions(Settings()).has_partition_key(half)


def test_days_are_right_across_every_change_of_the_clocks(exchange: list[date]) -> None:
    keys = keys_at(datetime(2027, 1, 4, tzinfo=UTC), start="2016-01-04")
    assert partition_days(keys) == [day for day in exchange if date(2016, 1, 4) <= day <= date(2026, 12, 31)]
    changes = ["2024-03-08", "2024-03-11", "2024-11-01", "2024-11-04"]
    assert [key for key in keys if key in changes] == changes


def test_ten_years_are_far_from_too_many_partitions() -> None:
    assert len(keys_at("2026-01-02T22:00:00Z", start="2016-01-04")) == 2515 < 20_000


def test_windows_follow_each_other_without_a_session_in_two() -> None:
    sessions = daily_sessions(settings_at("2013-12-31T22:00:00Z", start="2013-01-02"))
    windows = [sessions.time_window_for_partition_key(key) for key in sessions.get_partition_keys()]
    for key, window, following in zip(sessions.get_partition_keys(), windows, windows[1:], strict=False):
        assert window.end <= following.start
        regular_close = in_new_york(key, 16)
        assert window.start < regular_close <= window.end
        assert sessions.get_partition_keys_in_time_window(window) == [key]


def test_the_first_day_may_be_a_holiday() -> None:
    assert keys_at("2012-01-05T22:00:00Z", start="2012-01-01") == ["2012-01-03", "2012-01-04", "2012-01-05"]


# -- when a partition appears --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("friday", "closed_at", "appears_at"),
    [("2025-01-10", 16, 16), ("2025-07-11", 16, 17), ("2024-11-29", 13, 16)],
    ids=["winter", "summer", "half day"],
)
def test_fridays_partition_is_there_on_friday_evening_and_never_before_the_close(
    friday: str, closed_at: int, appears_at: int
) -> None:
    sessions = daily_sessions(Settings(market_providers=("yahoo",), market_start="2024-06-03"))
    appears = in_new_york(friday, appears_at)
    assert in_new_york(friday, closed_at) <= appears
    with at(appears - timedelta(seconds=1)):
        assert not sessions.has_partition_key(friday)
        assert friday not in sessions.get_partition_keys()
    with at(appears):
        assert sessions.has_partition_key(friday)
        assert sessions.get_last_partition_key() == friday
    assert available_from(date.fromisoformat(friday)) == appears
    calendar = SessionCalendar("XNYS", date(2024, 6, 3), date(2025, 12, 31))
    assert date.fromisoformat(friday) in calendar.closed_sessions(appears)
    assert date.fromisoformat(friday) not in calendar.closed_sessions(appears - timedelta(seconds=1))


@pytest.mark.parametrize("around", ["2024-11-28", "2024-12-25", "2025-01-01", "2025-03-09", "2025-11-02"])
def test_at_every_hour_the_newest_partition_is_the_newest_closed_session(exchange: list[date], around: str) -> None:
    """Around holidays, of which one made a partition of tomorrow, and changes of the clocks."""
    sessions = daily_sessions(Settings(market_providers=("yahoo",), market_start="2024-10-01"))
    calendar = SessionCalendar("XNYS", date(2024, 10, 1), date(2025, 12, 31))
    for hours in range(0, 24 * 3, 3):
        now = datetime.fromisoformat(f"{around}T00:30:00+00:00") + timedelta(hours=hours)
        with at(now):
            newest = sessions.get_last_partition_key()
        assert newest == max(day for day in exchange if available_from(day) <= now).isoformat(), now
        assert calendar.closed_sessions(now)[-1].isoformat() == newest


@pytest.mark.parametrize(
    ("now", "newest"),
    [
        (in_new_york("2013-03-28", 17), "2013-03-28"),  # Thursday before Good Friday
        (in_new_york("2013-03-29", 20), "2013-03-28"),  # Good Friday
        (in_new_york("2013-03-31", 12), "2013-03-28"),  # Easter
        (in_new_york("2013-04-01", 12), "2013-03-28"),  # Monday noon
        (in_new_york("2013-04-01", 17), "2013-04-01"),
        (in_new_york("2012-11-21", 22), "2012-11-21"),  # before Thanksgiving
        (in_new_york("2013-01-01", 23, 59), "2012-12-31"),
    ],
)
def test_a_clock_that_stands_still_hides_what_closes_after_it(now: datetime, newest: str) -> None:
    settings = settings_at(now)
    keys = daily_sessions(settings).get_partition_keys()
    assert keys[-1] == newest
    assert partition_days(keys) == SessionCalendar.of(settings).closed_sessions(settings.clock())


def test_a_clock_before_the_first_close_has_no_partition() -> None:
    assert keys_at(in_new_york("2013-03-04", 10), start="2013-03-04") == []
    closed = settings_at(in_new_york("2013-03-29", 20), start="2013-03-29")
    assert daily_sessions(closed).get_partition_keys() == []
    assert SessionCalendar.of(closed).sessions() == []


# -- the calendar --------------------------------------------------------------------------------------------


def test_a_running_clock_knows_the_holidays_of_the_year_to_come() -> None:
    calendar = SessionCalendar.of(Settings(market_providers=("yahoo",)))
    assert calendar.end > datetime.now(UTC).date() + timedelta(days=365)
    assert any(day > datetime.now(UTC).date() for day in calendar.holidays())


def test_sessions_are_cut_at_both_ends_inclusively() -> None:
    calendar = SessionCalendar.of(Settings())
    assert calendar.sessions(date(2013, 1, 18), date(2013, 1, 22)) == [date(2013, 1, 18), date(2013, 1, 22)]
    assert calendar.holidays()[-2:] == [date(2013, 1, 21), date(2013, 2, 18)]


def test_the_calendar_as_a_table_keeps_its_contract() -> None:
    table = conform(TRADING_SESSIONS, SessionCalendar.of(Settings()).table())
    assert violations(TRADING_SESSIONS, table) == []
    assert table.num_rows == 3270
    half = {row["session_date"]: row for row in table.slice(table.num_rows - 80).to_pylist()}[date(2012, 12, 24)]
    assert half["is_early_close"]
    assert half["close_ts_utc"] == datetime(2012, 12, 24, 18, tzinfo=UTC)
    assert half["open_ts_utc"] == datetime(2012, 12, 24, 14, 30, tzinfo=UTC)


# -- the placeholder -----------------------------------------------------------------------------------------


def test_the_placeholder_is_no_deployments_partitions() -> None:
    assert daily_sessions(Settings()) != SESSIONS
    assert SESSIONS == SESSIONS
    assert daily_sessions(Settings()) == daily_sessions(Settings())
