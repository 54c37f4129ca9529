"""The AWS Lambda way in: a batch of SQS records becomes durable, and only what failed is reported back.

What belongs here: reading the event, and saying which records are dealt with. The steps and their order are those of
the consumer (see consuming.py): write the micro-batch to the lake, put to the table, and leave the deletion to Lambda,
which deletes what the partial batch response does not name.

Environment: ``FINANCE_ASSETS_LAKE_URI`` (``s3://bucket/prefix``), ``FINANCE_ASSETS_TRANSACTIONS_TABLE``, and where
needed ``FINANCE_ASSETS_S3_ENDPOINT_URL``. Settings are not imported, so that the package needs no pydantic.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response
from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord
from aws_lambda_powertools.utilities.typing import LambdaContext

from finance_assets.storage.lake import Lake, S3Options
from finance_assets.text import json_line, redact_personal_data, safe_message
from finance_assets.transactions.consuming import Store, Stored, Table, lake_store
from finance_assets.transactions.queue import ENCODING_ATTRIBUTE, Message, original_bytes
from finance_assets.transactions.table import Item, Placed, TransactionTable

SERVICE = "transactions"
NAMESPACE = "FinanceAssets"

logger = Logger(service=SERVICE, json_serializer=json_line)
metrics = Metrics(namespace=NAMESPACE, service=SERVICE)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class ConfigurationError(RuntimeError):
    """A variable of the function is missing; the message names it."""


class RecordFailedError(RuntimeError):
    """A record is not dealt with: it is delivered again."""


@cache
def build_sinks() -> tuple[Store, Table]:
    """Return where micro-batches and items go; made once per execution environment.

    Raises
    ------
    ConfigurationError
        A variable is missing.
    """
    uri = os.environ.get("FINANCE_ASSETS_LAKE_URI", "")
    name = os.environ.get("FINANCE_ASSETS_TRANSACTIONS_TABLE", "")
    if not uri.startswith("s3://"):
        raise ConfigurationError("set FINANCE_ASSETS_LAKE_URI=s3://bucket/prefix: a function keeps no files of its own")
    if not name:
        raise ConfigurationError("set FINANCE_ASSETS_TRANSACTIONS_TABLE to the name of the DynamoDB table")
    region = os.environ.get("AWS_REGION", "us-east-1")
    lake = Lake(uri, S3Options(region, os.environ.get("FINANCE_ASSETS_S3_ENDPOINT_URL") or None))
    return lake_store(lake), TransactionTable(name, region)


def message_of(record: Mapping[str, Any], now: datetime) -> Message:
    """Return an SQS record of a Lambda event as a message of the queue."""
    attributes = record.get("attributes", {})
    encoding = record.get("messageAttributes", {}).get(ENCODING_ATTRIBUTE, {}).get("stringValue")
    return Message(
        message_id=record["messageId"],
        receipt=record["receiptHandle"],
        body=original_bytes(record["body"], encoding),
        sent_at=_EPOCH + timedelta(milliseconds=int(attributes.get("SentTimestamp", 0))),
        received_at=now,
        receive_count=int(attributes.get("ApproximateReceiveCount", 1)),
    )


def process(messages: Sequence[Message], store: Store, table: Table, now: datetime) -> dict[str, str | Exception]:
    """Write a micro-batch and put it to the table; return what became of each message, by message id.

    Returns
    -------
    dict
        ``rejected (reason)``, or what :meth:`TransactionTable.put` says, or the error because of which the message is
        not dealt with. Where processing breaks, the batch is halved until it is known on which messages.
    """
    if not messages:
        return {}
    try:
        stored = store(messages, now)
        placed = table.put(stored.items)
    except Exception as error:
        if len(messages) == 1 or _is_outside(error):
            return {message.message_id: error for message in messages}
        half = len(messages) // 2
        return {**process(messages[:half], store, table, now), **process(messages[half:], store, table, now)}
    return _outcomes(stored, placed)


def _is_outside(error: Exception) -> bool:
    """Return whether an error is about a service and not about a message: halving would only repeat it."""
    from finance_assets.storage.lake import LakeError
    from finance_assets.transactions.aws import AwsError

    return isinstance(error, OSError | AwsError | LakeError)


def _outcomes(stored: Stored, placed: Sequence[Placed]) -> dict[str, str | Exception]:
    outcomes: dict[str, str | Exception] = {
        message_id: f"rejected ({reason})" for message_id, reason in stored.reasons.items()
    }
    for item, outcome in zip(stored.items, placed, strict=True):
        outcomes[item.message_id] = _refused(item) if outcome == "failed" else outcome
    return outcomes


def _refused(item: Item) -> Exception:
    return RecordFailedError(f"the table does not take transaction {redact_personal_data(item.key)[:80]!r} as an item")


def _record_outcome(outcomes: Mapping[str, str | Exception]) -> Callable[[SQSRecord], str]:
    """Return what Powertools asks of each record: the outcome, or the error because of which it failed."""

    def judge(record: SQSRecord) -> str:
        outcome = outcomes.get(record.message_id, RecordFailedError("no outcome"))
        if isinstance(outcome, Exception):
            metrics.add_metric("failed", MetricUnit.Count, 1)
            logger.error("left in the queue", message_id=record.message_id, error=safe_message(outcome))
            raise outcome
        kind = outcome.partition(" ")[0]
        metrics.add_metric(kind, MetricUnit.Count, 1)
        if kind != "accepted":
            # Never the body: it is somebody's payment.
            logger.info("not accepted", message_id=record.message_id, outcome=outcome)
        return outcome

    return judge


@logger.inject_lambda_context
@metrics.log_metrics(capture_cold_start_metric=True)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
    """Deal with a batch of records.

    Returns
    -------
    dict
        ``batchItemFailures``: the records that are to be delivered again.

    Raises
    ------
    ConfigurationError
        A variable is missing; all records are delivered again.
    """
    now = datetime.now(UTC)
    store, table = build_sinks()
    outcomes = process([message_of(record, now) for record in event.get("Records", ())], store, table, now)
    logger.info(
        "batch", records=len(outcomes), failed=sum(isinstance(outcome, Exception) for outcome in outcomes.values())
    )
    processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
    return dict(process_partial_response(event, _record_outcome(outcomes), processor, context))
