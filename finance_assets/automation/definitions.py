"""Automation over several domains: the morning schedule, alerts, unfinished work, and automation conditions."""

import dagster as dg

from finance_assets.automation.data_alerts import data_alerts
from finance_assets.automation.morning import MORNING_JOBS, MORNING_SCHEDULES
from finance_assets.automation.run_failures import run_failure_alerts
from finance_assets.automation.unfinished import unfinished_sessions, unfinished_work
from finance_assets.settings import Settings


def definitions(_: Settings) -> dg.Definitions:
    """Return the definitions of the automation."""
    return dg.Definitions(
        jobs=MORNING_JOBS,
        schedules=MORNING_SCHEDULES,
        sensors=[
            run_failure_alerts,
            data_alerts,
            unfinished_work,
            unfinished_sessions,
            dg.AutomationConditionSensorDefinition(
                "automation",
                target=dg.AssetSelection.all(),
                default_status=dg.DefaultSensorStatus.RUNNING,
                description="Starts assets when their inputs are new and their blocking checks have passed.",
            ),
        ],
    )
