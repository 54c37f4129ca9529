"""Queued transactions start runs by themselves.

What belongs here: the sensor on the depth of the queue. It reads attributes and never receives: a message that a sensor
received would be hidden from the run that it starts.
"""

import time

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts import contract_of, transactions
from finance_assets.contracts.model import Store
from finance_assets.storage.runs import left_unfinished, pause_after_failures, run_under_way
from finance_assets.transactions.draining import QUEUE_IS_NOT_SET, TransactionIntake

#: How many messages waited when a run was started.
DEPTH_TAG = "finance_assets/queue_depth"
INTERVAL_SECONDS = 15
#: After failures the pause doubles up to this: an outage ends by itself, and nobody has to start anything.
LONGEST_PAUSE_SECONDS = 900
#: What the job makes.
_KEYS = [dg.AssetKey(contract.asset_key) for contract in transactions.CONTRACTS if contract.store is Store.LAKE]

transactions_job = dg.define_asset_job(
    "transactions",
    selection=dg.AssetSelection.assets(
        *(dg.AssetKey(contract.asset_key) for contract in transactions.CONTRACTS if contract.store is Store.LAKE)
    ),
    description="Queued messages to transactions and quarantine. The marts follow by their automation conditions.",
)


@dg.sensor(
    name="queued_transactions",
    job=transactions_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Looks how many transactions wait in the queue, and starts a run that takes them.",
)
def queued_transactions_sensor(
    context: dg.SensorEvaluationContext, transaction_intake: dg.ResourceParam[TransactionIntake]
) -> dg.RunRequest | dg.SkipReason:
    """Ask for one run at a time while something is unfinished: messages that wait, or what a run left behind."""
    running = run_under_way(context.instance, transactions_job.name)
    depth = None if transaction_intake.queue is None else transaction_intake.depth()
    work = dict(transaction_intake.unfinished(depth))
    for key, run in left_unfinished(context.instance, _KEYS).items():
        work.setdefault(
            contract_of(key.to_user_string()), f"run {run.run_id[:8]} has left {key.to_user_string()} behind"
        )
    if not work:
        return dagster_output.skip(
            QUEUE_IS_NOT_SET
            if depth is None
            else f"no message waits; {depth.in_flight} are being processed, {depth.delayed} are delayed"
        )
    what = next(iter(work.values()))
    if running is not None:
        return dagster_output.skip(f"{what}; run {running.run_id[:8]} is under way")
    failures, wait = pause_after_failures(
        context.instance,
        dg.RunsFilter(job_name=transactions_job.name),
        shortest=INTERVAL_SECONDS,
        longest=LONGEST_PAUSE_SECONDS,
        now=time.time(),
    )
    if wait > 0:
        return dagster_output.skip(
            f"{what}; the last {failures} runs failed, so the next starts in {wait:.0f} s. Look at the newest run of "
            f"{transactions_job.name} and mend the cause: nothing is lost meanwhile"
        )
    # No run key: a queue that is as deep as an hour ago holds other messages.
    return dg.RunRequest(tags={DEPTH_TAG: str(0 if depth is None else depth.visible)})
