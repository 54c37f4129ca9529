"""Queued transactions start runs by themselves.

What belongs here: the sensor on the depth of the queue. It reads attributes and never receives: a message that a sensor
received would be hidden from the run that it starts.
"""

import time
from itertools import takewhile

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts import transactions
from finance_assets.contracts.model import Store
from finance_assets.storage.runs import run_under_way
from finance_assets.transactions.draining import QUEUE_IS_NOT_SET, TransactionIntake

#: How many messages waited when a run was started.
DEPTH_TAG = "finance_assets/queue_depth"
INTERVAL_SECONDS = 15
#: After failures the pause doubles up to this: an outage ends by itself, and nobody has to start anything.
LONGEST_PAUSE_SECONDS = 900
COUNTED_FAILURES = 8

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
    """Start one run at a time while messages wait; the truth about what is done is the queue itself."""
    if transaction_intake.queue is None:
        return dagster_output.skip(QUEUE_IS_NOT_SET)
    depth = transaction_intake.depth()
    if not depth.visible:
        return dagster_output.skip(
            f"no message waits; {depth.in_flight} are being processed, {depth.delayed} are delayed"
        )
    running = run_under_way(context.instance, transactions_job.name)
    if running is not None:
        return dagster_output.skip(f"{depth.visible} messages wait for run {running.run_id[:8]}")
    failures, ended = _failures_in_a_row(context.instance)
    wait = min(INTERVAL_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS) - (time.time() - ended) if failures else 0
    if wait > 0:
        return dagster_output.skip(
            f"{depth.visible} messages wait; the last {failures} runs failed, so the next starts in {wait:.0f} s. Look "
            f"at the newest run of {transactions_job.name} and mend the cause: nothing is lost meanwhile"
        )
    # No run key: a queue that is as deep as an hour ago holds other messages.
    return dg.RunRequest(tags={DEPTH_TAG: str(depth.visible)})


def _failures_in_a_row(instance: dg.DagsterInstance) -> tuple[int, float]:
    """Return how many of the newest runs failed, up to the longest pause, and when the newest ended (Unix time)."""
    records = instance.get_run_records(dg.RunsFilter(job_name=transactions_job.name), limit=COUNTED_FAILURES)
    failed = list(takewhile(lambda record: record.dagster_run.status is dg.DagsterRunStatus.FAILURE, records))
    return len(failed), (failed[0].end_time or 0.0) if failed else 0.0
