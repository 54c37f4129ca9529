"""An alert for every run that fails.

What belongs here: the sensor that Dagster wakes when a run has failed.
"""

from datetime import datetime, timedelta

import dagster as dg

from finance_assets.publishing.alerts import Alert, alert_sinks, send_alert
from finance_assets.settings import Settings
from finance_assets.storage.ledger import Ledger

#: Characters of a failure message that an alert carries; the run's page has all of it.
LONGEST_DETAIL = 1500
#: For how long, and for how many failed runs, a place that could not be reached is tried again.
LOOK_BACK, RECENT_FAILURES = timedelta(days=1), 20
_FAILURES = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}


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


def failure_alert(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Alert:
    """Return the alert for a failed run: what failed, why, and where to look."""
    events = [entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=_FAILURES)]
    causes = [f"{event.step_key}: {failure_message(event)}" for event in events if event and event.is_step_failure]
    ends = [event.message or "" for event in events if event and event.is_job_failure]
    record = instance.get_run_record_by_id(run.run_id)
    assert record is not None, "a run that failed has a record"
    return Alert(
        title=f"run {run.run_id[:8]} of {run.job_name} failed",
        severity="error",
        since=record.create_timestamp,
        detail=("\n".join(causes) or "\n".join(ends) or "no step said why")[:LONGEST_DETAIL],
        action=f"open /runs/{run.run_id} in Dagster, mend the cause, and re-execute the run from failure",
        key=f"run-failure:{run.run_id}",
    )


def recent_failure_alerts(instance: dg.DagsterInstance, now: datetime) -> list[Alert]:
    """Return an alert for each run that Dagster launched and that failed within the last day, oldest first.

    Dagster wakes the sensor below once per failed run; a place that could not be reached then is told through these.
    """
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=now - LOOK_BACK)
    runs = [run for run in instance.get_runs(failed, limit=RECENT_FAILURES) if run.remote_job_origin is not None]
    return [failure_alert(instance, run) for run in reversed(runs)]


@dg.run_failure_sensor(
    name="run_failure_alerts",
    description="Tells everybody who wants alerts of every failed run: which, since when, why, what to do.",
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def run_failure_alerts(
    context: dg.RunFailureSensorContext, settings: dg.ResourceParam[Settings], ledger: dg.ResourceParam[Ledger]
) -> None:
    """Send one alert per failed run."""
    send_alert(failure_alert(context.instance, context.dagster_run), alert_sinks(settings), ledger)
