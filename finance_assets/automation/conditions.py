"""Automation conditions that assets share.

What belongs here: when an asset starts by itself. Rooms take these and define none.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

_Condition = dg.AutomationCondition[Any]
_CHECKS_PASSED = dg.AutomationCondition.all_deps_blocking_checks_passed()


def _has_changed_since_handled() -> _Condition:
    """Return a condition that is true from a change of an input until a run that began after it was requested or seen.

    ``eager()`` takes a change as handled when the table is made at the same look, or after it, by a run that had read
    its inputs before. Here a change beats a run that is seen with it, and a change during a run is remembered until
    the next request. At worst a table is made once more, with the same rows.
    """
    changed = dg.AutomationCondition.newly_missing() | dg.AutomationCondition.any_deps_updated()
    requested, made = dg.AutomationCondition.newly_requested(), dg.AutomationCondition.newly_updated()
    first_look = dg.AutomationCondition.initial_evaluation()
    between_runs = changed.since(((requested | made) & ~changed) | first_look)
    during_a_run = (changed & dg.AutomationCondition.in_progress()).since((requested & ~changed) | first_look)
    return (between_runs | during_a_run).with_label("has changed since handled")


def _when_free() -> _Condition:
    return ~dg.AutomationCondition.any_deps_in_progress() & ~dg.AutomationCondition.in_progress() & _CHECKS_PASSED


#: For a partition: start when its inputs are new, and only if every blocking check on them passed. ``eager()`` ignores
#: checks.
WHEN_INPUTS_ARE_GOOD = (
    dg.AutomationCondition.in_latest_time_window()
    & _has_changed_since_handled()
    & ~dg.AutomationCondition.any_deps_missing()
    & _when_free()
).with_label("when inputs are good")

#: For a table over all partitions: the same, but a partition that was never made does not hold it up for ever. What
#: is missing is seen by the checks.
WHEN_HISTORY_IS_NEW = (_has_changed_since_handled() & _when_free()).with_label("when history is new")


def when_history_is_new_at(cron: str, daily: str, timezone: str = "UTC") -> dg.AutomationCondition[Any]:
    """Return ``WHEN_HISTORY_IS_NEW`` that waits for a tick of ``cron``, for inputs that change every few seconds.

    At each tick of ``daily`` it does not ask what is new, so that a table that nobody asked for is made once a day.
    """
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    tick = dg.AutomationCondition.cron_tick_passed(cron, timezone).since(handled)
    every_day = dg.AutomationCondition.cron_tick_passed(daily, timezone) & _CHECKS_PASSED
    return ((WHEN_HISTORY_IS_NEW & tick) | every_day).with_label(f"when history is new, at {cron}")


def when_missing_or_on(cron: str, timezone: str) -> dg.AutomationCondition[Any]:
    """Return a condition for a table without inputs: once when it is missing, and at each tick of ``cron``.

    ``on_missing()`` passes over what was missing before it looked for the first time, which on a new deployment is
    everything. A run that failed is not repeated at every look: the alert tells of it, and the next tick tries again.
    """
    handled = dg.AutomationCondition.newly_requested() | dg.AutomationCondition.newly_updated()
    when_missing = dg.AutomationCondition.missing().newly_true().since(handled)
    return (when_missing | dg.AutomationCondition.on_cron(cron, timezone)).with_label(f"when missing, and at {cron}")
