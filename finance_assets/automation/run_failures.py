"""An alert for every run that fails.

What belongs here: the sensor that Dagster wakes when a run has failed.
"""

import dagster as dg

from finance_assets.publishing.alerts import Alert, alert_sinks, send_alert
from finance_assets.settings import Settings
from finance_assets.storage.ledger import Ledger

#: Characters of a failure message that an alert carries; the run's page has all of it.
LONGEST_DETAIL = 1500


def failure_message(event: dg.DagsterEvent) -> str:
    """Return why a step failed, in the words of what raised: without Dagster's wrapping and without a stack trace."""
    data = event.step_failure_data
    if data.user_failure_data is not None:
        said = data.user_failure_data.description or data.user_failure_data.label
        if said:
            return said
    error = data.error
    if error is not None and error.cls_name == "DagsterExecutionInterruptedError":
        return "the run was interrupted"
    while error is not None and error.cause is not None and (error.cls_name or "").startswith("Dagster"):
        error = error.cause
    return error.message.strip() if error is not None else event.message or "no reason is known"


def failure_alert(context: dg.RunFailureSensorContext) -> Alert:
    """Return the alert for a failed run: what failed, why, and where to look."""
    run = context.dagster_run
    causes = [f"{event.step_key}: {failure_message(event)}" for event in context.get_step_failure_events()]
    record = context.instance.get_run_record_by_id(run.run_id)
    assert record is not None, "a run that failed has a record"
    return Alert(
        title=f"run {run.run_id[:8]} of {run.job_name} failed",
        severity="error",
        since=record.create_timestamp,
        detail=("\n".join(causes) or context.failure_event.message or "no step said why")[:LONGEST_DETAIL],
        action=f"open /runs/{run.run_id} in Dagster, mend the cause, and re-execute the run from failure",
        key=f"run-failure:{run.run_id}",
    )


@dg.run_failure_sensor(
    name="run_failure_alerts",
    description="Tells everybody who wants alerts of every failed run: which, since when, why, what to do.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_failure_alerts(
    context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings], ledger: dg.ResourceParam[Ledger]
) -> None:
    """Send one alert per failed run."""
    send_alert(failure_alert(context), alert_sinks(settings), ledger)
