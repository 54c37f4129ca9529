"""Every partitions definition of the platform, and the exchange calendar they come from.

What belongs here: ``daily_sessions`` (one partition per exchange session) and, as domains need them, months and dynamic
sets that a person asks for by name. No other module defines partitions: assets take :data:`SESSIONS`, which
stands for "one per session" until :func:`finance_assets.registry.build_definitions` puts the deployment's
calendar, first day and clock in its place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from finance_assets.settings import Settings

if TYPE_CHECKING:
    import exchange_calendars as xcals
    import pyarrow as pa

#: How far ahead of the clock the calendar is known, so that a long-lived process meets next year's holidays.
CALENDAR_AHEAD = timedelta(days=400)
#: The regular close, from which a session's partition can be filled. A half day's appears at the same hour.
CLOSE_CRON = "0 16 * * 1-5"
EXCHANGE_ZONE = "America/New_York"

#: Placeholder on asset definitions: replaced by :func:`daily_sessions` of the settings.
SESSIONS = dg.TimeWindowPartitionsDefinition(
    cron_schedule=CLOSE_CRON, start="2000-01-03", fmt="%Y-%m-%d", timezone=EXCHANGE_ZONE, end_offset=1
)


@lru_cache(maxsize=8)
def _calendar(name: str, start: date, end: date) -> xcals.ExchangeCalendar:
    import exchange_calendars as xcals

    # Bounds are passed: the library's own reach back 20 years, and each year costs time.
    return xcals.get_calendar(name, start=start.isoformat(), end=end.isoformat())


@dataclass(frozen=True)
class SessionCalendar:
    """The exchange's sessions from a first day to some way past the clock.

    Attributes
    ----------
    name
        Calendar of ``exchange_calendars``, such as ``XNYS``.
    start
        First day.
    end
        Last day known.
    """

    name: str
    start: date
    end: date

    @classmethod
    def of(cls, settings: Settings) -> SessionCalendar:
        """Build the calendar of a deployment."""
        end = settings.last_day or (settings.clock() + CALENDAR_AHEAD).date()
        return cls(settings.calendar, settings.start, end)

    @property
    def _days(self) -> list[date]:
        calendar = _calendar(self.name, self.start, self.end)
        return [session.date() for session in calendar.sessions]

    def sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Return the sessions from ``first`` to ``last``, both included, in order."""
        return [
            day for day in self._days if (first is None or day >= first) and (last is None or day <= last)
        ]

    def closed_sessions(self, now: datetime) -> list[date]:
        """Return the sessions whose regular hours have ended at ``now``."""
        calendar = _calendar(self.name, self.start, self.end)
        closes = calendar.closes
        return [session.date() for session, close in closes.items() if close.to_pydatetime() <= now]

    def session_after(self, day: date) -> date:
        """Return the first session after ``day``."""
        calendar = _calendar(self.name, day, day + timedelta(days=30))
        return next(session.date() for session in calendar.sessions if session.date() > day)

    def holidays(self) -> list[date]:
        """Return the weekdays without a session."""
        sessions = set(self._days)
        days = (self.start + timedelta(days=n) for n in range((self.end - self.start).days + 1))
        return [day for day in days if day.weekday() < 5 and day not in sessions]

    def table(self) -> pa.Table:
        """Return the calendar as rows of ``raw/trading_sessions``."""
        import pyarrow as pa

        calendar = _calendar(self.name, self.start, self.end)
        schedule = calendar.schedule
        early = set(calendar.early_closes)
        return pa.table(
            {
                "session_date": pa.array([day.date() for day in schedule.index], pa.date32()),
                "session_ordinal": pa.array(range(len(schedule)), pa.int32()),
                "open_ts_utc": pa.array(schedule["open"].to_list(), pa.timestamp("us", "UTC")),
                "close_ts_utc": pa.array(schedule["close"].to_list(), pa.timestamp("us", "UTC")),
                "is_early_close": pa.array([day in early for day in schedule.index], pa.bool_()),
            }
        )


def daily_sessions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per exchange session, keyed by its date.

    A partition appears at the regular close (16:00 New York), so Friday's is there on Friday evening. Where the
    clock stands still, sessions after it do not exist.
    """
    calendar = SessionCalendar.of(settings)
    zone = ZoneInfo(EXCHANGE_ZONE)

    def at_close(day: date) -> datetime:
        return datetime(day.year, day.month, day.day, 16, tzinfo=zone)

    fixed = settings.last_day
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=CLOSE_CRON,
        start=at_close(settings.start),
        # The window of a session ends at the next session's close, so the end lies there.
        end=at_close(calendar.session_after(fixed)) if fixed is not None else None,
        fmt="%Y-%m-%d",
        timezone=EXCHANGE_ZONE,
        end_offset=0 if fixed is not None else 1,
        exclusions=[at_close(day) for day in calendar.holidays()],
    )


def partition_days(keys: Sequence[str]) -> list[date]:
    """Return session partition keys as dates."""
    return [date.fromisoformat(key) for key in keys]
