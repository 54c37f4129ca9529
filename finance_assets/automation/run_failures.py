"""An alert for every run that fails.

What belongs here: the sensor that Dagster wakes when a run has failed.
"""

import dagster as dg

from finance_assets.publishing.alerts import Alert, alert_sinks, send_alert
from finance_assets.settings import Settings

#: Characters of a failure message that an alert carries; the run's page has all of it.
LONGEST_DETAIL = 1500


def failure_alert(context: dg.RunFailureSensorContext) -> Alert:
    """Return the alert for a failed run: what failed, why, and where to look."""
    run = context.dagster_run
    steps = context.get_step_failure_events()
    causes = [
        f"{event.step_key}: {event.step_failure_data.error_display_string.strip()}"
        if event.step_failure_data and event.step_failure_data.error
        else f"{event.step_key}: {event.message}"
        for event in steps
    ]
    detail = "\n".join(causes) or context.failure_event.message or "no step said why"
    record = context.instance.get_run_record_by_id(run.run_id)
    since = (
        record.create_timestamp
        if record is not None
        else context.instance.get_run_records(limit=1)[0].create_timestamp
    )
    return Alert(
        title=f"run {run.run_id[:8]} of {run.job_name} failed",
        severity="error",
        since=since,
        detail=detail[:LONGEST_DETAIL],
        action=f"open /runs/{run.run_id} in Dagster, mend the cause, and re-execute the run from failure",
        key=f"run-failure:{run.run_id}",
    )


@dg.run_failure_sensor(
    name="run_failure_alerts",
    description="Tells log and webhook of every failed run: which, since when, why, what to do.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_failure_alerts(context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings]) -> None:
    """Send one alert per failed run."""
    send_alert(failure_alert(context), alert_sinks(settings))
