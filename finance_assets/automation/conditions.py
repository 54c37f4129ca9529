"""Automation conditions that assets share.

What belongs here: when an asset starts by itself. Rooms take these and define none.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

_CHECKS_PASSED = dg.AutomationCondition.all_deps_blocking_checks_passed()

#: For a partition: start when its inputs are new, and only if every blocking check on them passed. ``eager()`` alone
#: ignores checks.
WHEN_INPUTS_ARE_GOOD = (dg.AutomationCondition.eager() & _CHECKS_PASSED).with_label("when inputs are good")

#: For a table over all partitions: the same, but a partition that was never made does not hold it up for ever. What
#: is missing is seen by the checks.
WHEN_HISTORY_IS_NEW = (
    dg.AutomationCondition.eager().without(~dg.AutomationCondition.any_deps_missing()) & _CHECKS_PASSED
).with_label("when history is new")


def when_history_is_new_at(cron: str, daily: str, timezone: str = "UTC") -> dg.AutomationCondition[Any]:
    """Return ``WHEN_HISTORY_IS_NEW`` that waits for a tick of ``cron``, for inputs that change every few seconds.

    At each tick of ``daily`` it does not ask what is new: an input that changes at the very look that sees the table
    made counts as handled, and if it was the last one for a while, nothing else would bring it in.
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
