"""Files of vendors start runs by themselves.

What belongs here: the sensor on the landing zone. It plans and never commits: what is done is in the ledger.
"""

import hashlib

import dagster as dg

from finance_assets.advisory.intake import Intake, Look
from finance_assets.storage.landing import printable_key
from finance_assets.storage.ledger import pause_after
from finance_assets.storage.runs import run_under_way

PLAN_TAG = "finance_assets/vendor_files_plan"
INTERVAL_SECONDS = 10
#: Keys that a message names.
LISTED = 5
#: Runs that may end without dealing with what waits before the next one is put off, ever longer.
RUNS_AT_ONCE = 3
#: Runs of one plan that are counted.
MOST_RUNS = 20

advisory_job = dg.define_asset_job(
    "advisory_performance",
    selection=dg.AssetSelection.groups("advisory"),
    description="Landed vendor files to account performance and reconciliation breaks, in one run.",
)


@dg.sensor(
    name="vendor_files",
    job=advisory_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks for files of vendors that are whole and not yet dealt with.",
)
def vendor_files_sensor(
    context: dg.SensorEvaluationContext, intake: dg.ResourceParam[Intake]
) -> dg.RunRequest | dg.SkipReason:
    """Compare the landing zone with the ledger; one run at a time reads what is new."""
    look = intake.look()
    if not look.pending and intake.is_noted(look.unread):
        retry = look.unread.retry_after
        waiting = (
            "" if retry is None else f"; {len(look.unread.waiting)} files wait until {retry:%Y-%m-%d %H:%M:%S} UTC"
        )
        return dg.SkipReason(f"nothing new in {intake.landing.uri}{waiting}")
    plan = _plan(intake, look)
    running = run_under_way(context.instance, advisory_job.name)
    if running is not None:
        return dg.SkipReason(f"{len(look.pending)} files wait for run {running.run_id[:8]}")
    # A run key that was used once is skipped for ever, so each attempt has its own.
    runs = context.instance.get_run_records(dg.RunsFilter(tags={PLAN_TAG: plan}), limit=MOST_RUNS)
    if len(runs) >= RUNS_AT_ONCE:
        # Nothing is abandoned: what keeps the runs from ending well may be over by then.
        after = max(run.update_timestamp for run in runs) + pause_after(len(runs) - RUNS_AT_ONCE + 2)
        if intake.clock() < after:
            keys = [printable_key(file.identity.key) for file in look.pending[:LISTED]]
            return dg.SkipReason(
                f"{len(runs)} runs have ended without dealing with {', '.join(keys) or 'what is not read'}; look at "
                "the last one, mend the cause, and materialise raw/vendor_files; the next run is at "
                f"{after:%H:%M:%S} UTC"
            )
    key = f"{plan}__attempt{len(runs) + 1}"
    if len(runs) == MOST_RUNS:
        key += f"_{intake.clock():%Y%m%dT%H%M%S}"
    return dg.RunRequest(run_key=key, tags={PLAN_TAG: plan})


def _plan(intake: Intake, look: Look) -> str:
    """Return what tells one state of unfinished work from another: which files, and what became of them so far."""
    known = intake.ledger.known(file.identity for file in look.pending)
    parts: list[object] = []
    for file in look.pending:
        record = known.get(file.identity)
        parts.append((file.identity, None if record is None else (record.attempts, record.faults)))
    parts += [entry.digest for entry in look.unread.refused]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
