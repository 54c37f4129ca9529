"""Files of vendors start runs by themselves.

What belongs here: the sensor on the landing zone. It plans and never commits: what is done is in the ledger.
"""

import hashlib
from collections.abc import Iterable

import dagster as dg

from finance_assets import dagster_output
from finance_assets.advisory.intake import Intake, Look
from finance_assets.contracts.advisory import CONTRACTS
from finance_assets.contracts.model import Store
from finance_assets.storage.ledger import pause_after
from finance_assets.storage.runs import left_unfinished, run_under_way
from finance_assets.text import escape_name

PLAN_TAG = "finance_assets/vendor_files_plan"
INTERVAL_SECONDS = 10
#: Keys that a message names.
LISTED = 5
#: Runs that may end without dealing with what waits before the next one is put off, ever longer.
RUNS_AT_ONCE = 3
#: Runs of one plan that are counted.
MOST_RUNS = 20
#: What the job makes.
_KEYS = [dg.AssetKey(contract.asset_key) for contract in CONTRACTS if contract.store is Store.LAKE]

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
    description="Looks for files of vendors that are whole and not yet dealt with, and for what a run left unfinished.",
)
def vendor_files_sensor(
    context: dg.SensorEvaluationContext, intake: dg.ResourceParam[Intake]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for one run at a time while something is unfinished: files that landed, or what a run left behind."""
    running = run_under_way(context.instance, advisory_job.name)
    look = intake.look()
    unfinished = intake.unfinished(look)
    left = left_unfinished(context.instance, _KEYS)
    if not unfinished and not left:
        retry = look.unread.retry_after
        waiting = (
            "" if retry is None else f"; {len(look.unread.waiting)} files wait until {retry:%Y-%m-%d %H:%M:%S} UTC"
        )
        return dagster_output.skip(f"nothing new in {intake.landing.uri}{waiting}")
    if running is not None:
        return dagster_output.skip(f"{len(look.pending)} files wait for run {running.run_id[:8]}")
    plan = _plan(intake, look, [*(contract.path for contract in unfinished), *(key.to_user_string() for key in left)])
    # A run key that was used once is skipped for ever, so each attempt has its own.
    runs = context.instance.get_run_records(dg.RunsFilter(tags={PLAN_TAG: plan}), limit=MOST_RUNS)
    if len(runs) >= RUNS_AT_ONCE:
        # Nothing is abandoned: what keeps the runs from ending well may be over by then.
        after = max(run.update_timestamp for run in runs) + pause_after(len(runs) - RUNS_AT_ONCE + 2)
        if intake.clock() < after:
            keys = [escape_name(file.identity.key) for file in look.pending[:LISTED]]
            return dagster_output.skip(
                f"{len(runs)} runs have ended without dealing with {', '.join(keys) or 'what is not read'}; look at "
                "the last one, mend the cause, and materialise raw/vendor_files; the next run is at "
                f"{after:%H:%M:%S} UTC"
            )
    key = f"{plan}__attempt{len(runs) + 1}"
    if len(runs) == MOST_RUNS:
        key += f"_{intake.clock():%Y%m%dT%H%M%S}"
    return dg.RunRequest(run_key=key, tags={PLAN_TAG: plan})


def _plan(intake: Intake, look: Look, tables: Iterable[str]) -> str:
    """Return what tells one state of unfinished work from another: which files and tables, and what became of them."""
    known = intake.ledger.known(file.identity for file in look.pending)
    parts: list[object] = [sorted(set(tables))]
    for file in look.pending:
        record = known.get(file.identity)
        parts.append((file.identity, None if record is None else (record.attempts, record.faults)))
    parts += [entry.digest for entry in look.unread.refused]
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
