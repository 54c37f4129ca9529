"""Assets of the transactions branch: messages as received, and what became of each.

What belongs here: thin Dagster assets that drain the queue and settle what was received.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW, when_history_is_new_at
from finance_assets.contracts import transactions
from finance_assets.contracts.dagster_metadata import asset_attributes
from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_ARRIVALS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.reference import pools
from finance_assets.storage.lake import Lake
from finance_assets.storage.write_steps import sole_writer
from finance_assets.transactions.draining import QUEUE_IS_NOT_SET, TransactionIntake
from finance_assets.transactions.resolution import CONFLICT, DUPLICATE
from finance_assets.transactions.rules import ACCEPTED, REJECTED
from finance_assets.transactions.settlement import settle
from finance_assets.transform.dbt_assets import build_dbt_assets

#: One run at a time decides which message stands.

_SETTLED = {
    TRANSACTION_ARRIVALS: "Micro-batches in the order in which they became known, fixed once; from raw/transactions.",
    CORE_TRANSACTIONS: "Transactions that stand: the first accepted message with each id, exact, with its category.",
    DUPLICATE_TRANSACTIONS: "Messages that say again what stands; they have no effect, and are counted.",
    TRANSACTION_CONFLICTS: "Messages with the id of a transaction that stands and other content, in quarantine.",
    REJECTED_TRANSACTIONS: "Messages that break a rule, with body and reason, in quarantine.",
}
_RESOLUTIONS = {
    CORE_TRANSACTIONS: ACCEPTED,
    DUPLICATE_TRANSACTIONS: DUPLICATE,
    TRANSACTION_CONFLICTS: CONFLICT,
    REJECTED_TRANSACTIONS: REJECTED,
}


def _spec(contract: Contract, description: str) -> dg.AssetSpec:
    return dg.AssetSpec(
        **asset_attributes(contract),
        description=description,
        deps=[dg.AssetKey(RAW_TRANSACTIONS.asset_key)],
        # What the consumer and the Lambda write is settled too, though no run of ours wrote it.
        automation_condition=WHEN_HISTORY_IS_NEW,
    )


@dg.asset(**asset_attributes(RAW_TRANSACTIONS), pool=pools.TRANSACTIONS)
def raw_transactions(
    context: dg.AssetExecutionContext,
    transaction_intake: dg.ResourceParam[TransactionIntake],
    lake: dg.ResourceParam[Lake],
) -> dg.MaterializeResult[Any]:
    """One message of one micro-batch as the SQS queue gave it, with what the rules say of it; amounts exact.

    A run takes what waits, up to FINANCE_ASSETS_TRANSACTIONS_DRAIN_MAX_MESSAGES: it writes a micro-batch durably, then
    deletes its messages. The consumer and the Lambda write into the same table.
    """
    metadata: dict[str, Any] = {}
    if transaction_intake.queue is None:
        dagster_output.log(context).warning(f"Nothing was received: {QUEUE_IS_NOT_SET}")
        metadata["queue"] = QUEUE_IS_NOT_SET
    else:
        done = transaction_intake.drain(dagster_output.log(context).info)
        if done.not_deleted:
            dagster_output.log(context).warning(
                f"{done.not_deleted} messages are written but could not be deleted from the queue; they will be "
                "delivered again, without effect"
            )
        metadata = {
            "queue": transaction_intake.queue.address,
            "messages_received": done.messages,
            "messages_accepted": done.accepted,
            "messages_rejected": done.rejected,
            "micro_batches": len(done.batches),
            "queue_is_empty": done.is_empty,
        }
    counts = lake.row_counts(RAW_TRANSACTIONS)
    return dagster_output.materialized(
        metadata={**metadata, "dagster/row_count": sum(counts.values()), "uri": lake.scan_address(RAW_TRANSACTIONS)}
    )


@dg.multi_asset(
    name="settled_transactions",
    specs=[_spec(contract, text) for contract, text in _SETTLED.items()],
    pool=pools.TRANSACTIONS,
)
def settled_transactions(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Fix the order of new micro-batches and decide which of their messages stand."""
    with sole_writer(lake, "transactions", *_SETTLED):
        done = settle(lake, dagster_output.log(context).info)
    for contract in _SETTLED:
        resolution = _RESOLUTIONS.get(contract)
        yield dagster_output.materialized(
            asset_key=dg.AssetKey(contract.asset_key),
            metadata={
                "dagster/row_count": sum(lake.row_counts(contract).values()),
                "rows_added": done.batches if resolution is None else done.messages[resolution],
                "settlements": len(done.sequences),
                "messages_delivered_again": done.redelivered,
                "uri": lake.scan_address(contract),
            },
        )


transaction_models = build_dbt_assets(
    "transaction_models",
    [contract for contract in transactions.CONTRACTS if contract.is_built_by_dbt],
    # A consumer reports every few seconds, and dbt takes longer than that.
    automation_condition=when_history_is_new_at("*/10 * * * *", daily="5 0 * * *"),
)
