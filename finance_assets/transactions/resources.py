"""The intake of queued transactions, built from the settings."""

from __future__ import annotations

from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.transactions.draining import TransactionIntake
from finance_assets.transactions.queue import Queue


def build_transaction_intake(settings: Settings) -> TransactionIntake:
    """Return the intake of queued transactions of a deployment."""
    url = settings.transactions_queue_url
    return TransactionIntake(
        lake=build_lake(settings),
        queue=None if url is None else Queue(url, settings.aws_region, settings.arrival_clock),
        clock=settings.arrival_clock,
        max_messages=settings.transactions_drain_max_messages,
        micro_batch_messages=settings.transactions_micro_batch_messages,
    )
