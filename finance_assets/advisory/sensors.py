"""Files of vendors start runs by themselves.

What belongs here: the sensor on the landing zone. It plans and never commits: what is done is in the ledger.
"""

import hashlib

import dagster as dg

from finance_assets import dagster_output
from finance_assets.advisory.intake import MAX_ATTEMPTS, Intake
from finance_assets.storage.runs import run_under_way
from finance_assets.text import escape_name

PLAN_TAG = "finance_assets/vendor_files_plan"
INTERVAL_SECONDS = 10
#: Keys that a message names.
LISTED = 5

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
    pending = intake.pending()
    if not pending:
        return dagster_output.skip(f"nothing new in {intake.landing.uri}")
    plan = hashlib.sha256(repr([file.identity for file in pending]).encode()).hexdigest()[:16]
    running = run_under_way(context.instance, advisory_job.name)
    if running is not None:
        return dagster_output.skip(f"{len(pending)} files wait for run {running.run_id[:8]}")
    # A run key that was used once is skipped for ever, so each attempt has its own.
    attempts = len(context.instance.get_runs(dg.RunsFilter(tags={PLAN_TAG: plan}), limit=MAX_ATTEMPTS))
    if attempts >= MAX_ATTEMPTS:
        keys = ", ".join(escape_name(file.identity.key) for file in pending[:LISTED])
        return dagster_output.skip(
            f"{attempts} runs have ended without dealing with {keys}; "
            "look at the last one, mend the cause, and materialise raw/vendor_files"
        )
    return dg.RunRequest(run_key=f"{plan}__attempt{attempts + 1}", tags={PLAN_TAG: plan})
