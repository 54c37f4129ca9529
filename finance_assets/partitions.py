"""Every partitions definition of the platform, and the exchange calendar they come from.

What belongs here: ``daily_sessions`` (one partition per exchange session) and, as domains need them, months and dynamic
sets that a person asks for by name. No other module defines partitions: assets take :data:`SESSIONS`, which
is a placeholder for "one per session". :func:`load_assets` replaces it by the sessions of a deployment.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from functools import lru_cache
from types import ModuleType
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import dagster as dg

from finance_assets.settings import Settings

if TYPE_CHECKING:
    import exchange_calendars as xcals
    import pyarrow as pa

# Backfill policies are the one beta parameter in use (see docs/architecture.md). Partitioned assets import this module.
warnings.filterwarnings("ignore", message=".*`backfill_policy`.*", category=dg.BetaWarning)

#: How far ahead of the clock the calendar is known, so that a long-lived process meets next year's holidays.
CALENDAR_AHEAD = timedelta(days=400)
#: A partition is a day in a zone whose midnight is 21:00 UTC: the close in New York in winter, and one hour after it in
#: summer. So a session's partition appears on the evening of that very day and never before the close. (Windows from
#: one close to the next with an ``end_offset`` of 1 would be exact to the hour, but on a holiday Dagster would then
#: make the partition of the session to come; two ticks a day would be exact, and twelve times as slow to list.)
PARTITION_ZONE = "Etc/GMT-3"
DAILY_CRON = "0 0 * * *"
WEEKEND_CRON = "0 0 * * 0,6"

#: Placeholder on asset definitions: replaced by :func:`daily_sessions` of the settings.
SESSIONS = dg.TimeWindowPartitionsDefinition(
    cron_schedule=DAILY_CRON,
    start="2000-01-03",
    fmt="%Y-%m-%d",
    timezone=PARTITION_ZONE,
    exclusions=[WEEKEND_CRON],
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
    def _calendar(self) -> xcals.ExchangeCalendar:
        # The library refuses a span without a session, so it is asked for more than one closed week.
        return _calendar(self.name, self.start, self.end + timedelta(days=14))

    @property
    def _days(self) -> list[date]:
        days = (session.date() for session in self._calendar.sessions)
        return [day for day in days if day <= self.end]

    def sessions(self, first: date | None = None, last: date | None = None) -> list[date]:
        """Return the sessions from ``first`` to ``last``, both included, in order."""
        return [day for day in self._days if (first is None or day >= first) and (last is None or day <= last)]

    def closed_sessions(self, now: datetime) -> list[date]:
        """Return the sessions that have closed and whose partition therefore exists at ``now``."""
        return [day for day in self._days if available_from(day) <= now]

    def holidays(self) -> list[date]:
        """Return the weekdays without a session."""
        sessions = set(self._days)
        days = (self.start + timedelta(days=n) for n in range((self.end - self.start).days + 1))
        return [day for day in days if day.weekday() < 5 and day not in sessions]

    def table(self) -> pa.Table:
        """Return the calendar as rows of ``raw/trading_sessions``."""
        import pyarrow as pa

        calendar = self._calendar
        schedule = calendar.schedule.iloc[: len(self._days)]
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


def available_from(day: date) -> datetime:
    """Return the instant at which the partition of the session on ``day`` appears."""
    return _midnight(day + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(PARTITION_ZONE))


def daily_sessions(settings: Settings) -> dg.TimeWindowPartitionsDefinition:
    """Return one partition per exchange session, keyed by its date.

    A partition appears when the session has closed, so Friday's is there on Friday evening (see
    :data:`PARTITION_ZONE`). Where the clock stands still, sessions that close after it do not exist.
    """
    calendar = SessionCalendar.of(settings)
    start, end = _midnight(settings.start), None
    if settings.fixed_now is not None:
        closed = calendar.closed_sessions(settings.fixed_now)
        # Without a session the end is the start: one within the first window would make a partition of it.
        end = available_from(closed[-1]) if closed else start
    return dg.TimeWindowPartitionsDefinition(
        cron_schedule=DAILY_CRON,
        start=start,
        end=end,
        fmt="%Y-%m-%d",
        timezone=PARTITION_ZONE,
        exclusions=[WEEKEND_CRON, *(_midnight(day) for day in calendar.holidays())],
    )


def partition_days(keys: Sequence[str]) -> list[date]:
    """Return session partition keys as dates."""
    return [date.fromisoformat(key) for key in keys]


def load_assets(module: ModuleType, settings: Settings) -> list[dg.AssetsDefinition]:
    """Return the assets that a module defines, partitioned by the sessions of a deployment.

    Assets are defined with the placeholder :data:`SESSIONS`, which is replaced by :func:`daily_sessions`.
    """
    definitions = [item for item in dg.load_assets_from_modules([module]) if isinstance(item, dg.AssetsDefinition)]
    if not any(spec.partitions_def == SESSIONS for definition in definitions for spec in definition.specs):
        return definitions
    sessions = daily_sessions(settings)

    def replace_placeholder(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(partitions_def=sessions) if spec.partitions_def == SESSIONS else spec

    return [definition.map_asset_specs(replace_placeholder) for definition in definitions]
