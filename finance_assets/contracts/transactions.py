"""Contracts of the transactions branch: messages as received, what became of each, and what they come to.

What belongs here: one contract per table of the group ``transactions``. Amounts are ``money``: exact, in the major unit
of the row's currency, never added across currencies. Every message is in exactly one of the four core tables.
"""

from __future__ import annotations

from finance_assets.contracts.model import Column, Contract, Layer, Partitioning, RowRule, Store
from finance_assets.contracts.status import Status
from finance_assets.reference.anomalies import MODIFIED_Z_THRESHOLD
from finance_assets.reference.transaction_categories import CATEGORIES

GROUP = "transactions"
OUTCOMES = ("accepted", "rejected")
RESOLUTIONS = ("accepted", "duplicate", "conflict", "rejected")
#: Code of ISO 4217 for transactions that involve no currency: of messages whose currency could not be read.
NO_CURRENCY = "XXX"
SCORE_STATUSES = (Status.OK.value, Status.INSUFFICIENT_HISTORY.value, Status.ZERO_VARIANCE.value)

_BATCH = Column(
    "batch_sha256", "string", "hex digits", "SHA-256 of the micro-batch's sorted message ids; the name of its file."
)
_MESSAGE = Column("message_id", "string", "text", "The queue's own id of the message; the same at every delivery.")
_SENT = Column("sent_ts_utc", "timestamp", "UTC", "When the queue took the message.")
_RECEIVED = Column("received_ts_utc", "timestamp", "UTC", "When the message was first received from the queue.")
_SEQUENCE = Column(
    "sequence", "int64", "count", "Number of the settlement, from 1, in which the message became known.", minimum=1
)
_TRANSACTION = Column(
    "transaction_id", "string", "text", "The sender's id of the transaction, trimmed, case-sensitive."
)
_USER = Column("user_id", "string", "text", "The sender's id of the user, trimmed.")
_AMOUNT = Column(
    "amount",
    "money",
    "currency",
    "Exact amount in the currency's major unit, with every decimal that was sent.",
    minimum=0,
    exclusive_minimum=True,
)
_DECIMALS = Column("amount_decimals", "int32", "digits", "Decimals as they were sent: 2 for 250.00.", minimum=0)
_CURRENCY = Column("currency", "string", "ISO 4217", "Currency of the amount.")
_TIMESTAMP = Column("timestamp_utc", "timestamp", "UTC", "When the payment was made, cut to microseconds.")
_MERCHANT = Column("merchant", "string", "text", "Merchant as sent. May hold any text: escape it where it is shown.")
_EXTRA = Column(
    "extra", "string", "JSON object", "Fields beyond the required ones, numbers as written; null where none.", True
)
_CATEGORY = Column(
    "transaction_category",
    "string",
    "enumeration",
    "Of the exact amount, whatever the currency: high_value from 1000, medium_value from 100, else standard.",
    allowed=CATEGORIES,
)
_FINGERPRINT = Column(
    "fingerprint",
    "string",
    "hex digits",
    "SHA-256 of the meaning: the same for 250 and 250.00, for one instant in two offsets, for any order of keys.",
)
_PROCESSED = Column("processed_at_utc", "timestamp", "UTC", "When the rules were applied to the message.")
_BODY = Column("body", "string", "text", "The body as received; null where it is not UTF-8.", True)
_BODY_BASE64 = Column("body_base64", "string", "base64", "The body where it is not UTF-8, else null.", True)
_REASON = Column("reason", "string", "code", "Why the message was rejected; see docs/transactions.md.")
_DETAIL = Column("detail", "string", "text", "What is wrong and what to do; never a part of the message.")


def _optional(column: Column) -> Column:
    """Return a column that is null for rejected messages."""
    return Column(
        column.name,
        column.type,
        column.unit,
        f"{column.description} Null where the message is rejected.",
        True,
        column.minimum,
        column.maximum,
        column.exclusive_minimum,
        column.allowed,
    )


#: What an accepted message says.
_MEANING = (
    _TRANSACTION,
    _USER,
    _AMOUNT,
    _DECIMALS,
    _CURRENCY,
    _TIMESTAMP,
    _MERCHANT,
    _EXTRA,
    _CATEGORY,
    _FINGERPRINT,
    _PROCESSED,
)
#: How a message came, and when it became known.
_ARRIVAL = (_MESSAGE, _SENT, _RECEIVED, _BATCH, _SEQUENCE)

RAW_TRANSACTIONS = Contract(
    layer=Layer.RAW,
    name="transactions",
    group=GROUP,
    grain="One message of one micro-batch, as it was received.",
    description=(
        "Bodies byte for byte, with what the rules say of each. A message that the queue delivers again may stand in "
        "two micro-batches; the core tables count it once."
    ),
    source="The SQS queue.",
    append_only=True,
    partitioning=Partitioning.ARRIVAL,
    columns=(
        _BATCH,
        _MESSAGE,
        _BODY,
        _BODY_BASE64,
        _SENT,
        Column("received_ts_utc", "timestamp", "UTC", "When this delivery was received."),
        Column(
            "receive_count", "int32", "count", "How often the queue had delivered it, this time included.", False, 1
        ),
        Column("outcome", "string", "enumeration", "What the rules say of the message alone.", allowed=OUTCOMES),
        Column("reason", "string", "code", "Why it is rejected; null where it is accepted.", True),
        Column("detail", "string", "text", "The reason in words; null where it is accepted.", True),
        Column(
            "transaction_id",
            "string",
            "text",
            "The sender's id, trimmed; of a rejected message as sent, null where it could not be read.",
            True,
        ),
        *(_optional(column) for column in _MEANING[1:-1]),
        _PROCESSED,
    ),
    key=("batch_sha256", "message_id"),
    # The order in which the messages of one batch become known: the sender's, as far as the queue tells.
    sort_by=("sent_ts_utc", "message_id"),
    rules=(
        RowRule("one_body", "(body is null) <> (body_base64 is null)", "a body is text or base64, never both"),
        RowRule(
            "rejected_explained",
            "(reason is null) = (outcome = 'accepted') and (detail is null) = (reason is null)",
            "a message has a reason exactly where it is rejected",
        ),
        RowRule(
            "accepted_is_complete",
            "outcome = 'rejected' or (transaction_id is not null and user_id is not null and amount is not null "
            "and amount_decimals is not null and currency is not null and timestamp_utc is not null "
            "and merchant is not null and transaction_category is not null and fingerprint is not null)",
            "an accepted message has a meaning",
        ),
    ),
)

TRANSACTION_ARRIVALS = Contract(
    layer=Layer.CORE,
    name="transaction_arrivals",
    group=GROUP,
    grain="One micro-batch.",
    description=(
        "The order in which micro-batches became known, fixed once: a settlement takes all that are new, writes their "
        "order here first, and then what follows from it. The first message with an id stands, so the order decides; "
        "with it, the other core tables can be made again, byte for byte."
    ),
    source="raw/transactions.",
    append_only=True,
    partitioning=Partitioning.ARRIVAL,
    columns=(
        _SEQUENCE,
        Column("ordinal", "int32", "position", "Position of the micro-batch in the settlement, from 0.", minimum=0),
        _BATCH,
        Column("message_count", "int64", "messages", "Messages of the micro-batch.", minimum=1),
        Column("first_received_ts_utc", "timestamp", "UTC", "When the first of them was received."),
    ),
    key=("sequence", "ordinal"),
)

CORE_TRANSACTIONS = Contract(
    layer=Layer.CORE,
    name="transactions",
    group=GROUP,
    grain="One transaction: the first accepted message with its id.",
    description="Transactions that stand. What stood once is never replaced.",
    source="raw/transactions, in the order of core/transaction_arrivals.",
    partitioning=Partitioning.ARRIVAL,
    columns=(*_MEANING, *_ARRIVAL),
    key=("transaction_id",),
)

DUPLICATE_TRANSACTIONS = Contract(
    layer=Layer.CORE,
    name="duplicate_transactions",
    group=GROUP,
    grain="One message that says again what stands.",
    description="Messages without effect: the same id and the same meaning as a transaction that stands.",
    source="raw/transactions, in the order of core/transaction_arrivals.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=(*_ARRIVAL, _TRANSACTION, _AMOUNT, _CURRENCY, _FINGERPRINT),
    key=("message_id",),
)

TRANSACTION_CONFLICTS = Contract(
    layer=Layer.CORE,
    name="transaction_conflicts",
    group=GROUP,
    grain="One message that contradicts what stands.",
    description=(
        "Quarantine: the id of a transaction that stands, with other content. The first stands; core/transactions has "
        "it under the same transaction_id."
    ),
    source="raw/transactions, in the order of core/transaction_arrivals.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=(
        *_ARRIVAL,
        *_MEANING,
        Column("standing_fingerprint", "string", "hex digits", "Fingerprint of the transaction that stands."),
    ),
    key=("message_id",),
    rules=(RowRule("is_other_content", "fingerprint <> standing_fingerprint", "a conflict says something else"),),
)

REJECTED_TRANSACTIONS = Contract(
    layer=Layer.CORE,
    name="rejected_transactions",
    group=GROUP,
    grain="One message that breaks a rule.",
    description="Quarantine: the body as received, with a reason. A repaired message is sent to the queue again.",
    source="raw/transactions, in the order of core/transaction_arrivals.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=(
        *_ARRIVAL,
        _REASON,
        _DETAIL,
        Column("transaction_id", "string", "text", "The sender's id as sent, where it could be read.", True),
        _BODY,
        _BODY_BASE64,
        _PROCESSED,
    ),
    key=("message_id",),
    rules=(RowRule("one_body", "(body is null) <> (body_base64 is null)", "a body is text or base64, never both"),),
)

_HOUR = Column("hour_ts_utc", "timestamp", "UTC", "Beginning of the hour in which the payments were made.")
_COUNT = Column("transaction_count", "int64", "transactions", "Transactions that stand.", minimum=1)
_TOTAL = Column("total_amount", "money", "currency", "Exact sum of their amounts.", minimum=0, exclusive_minimum=True)

STG_TRANSACTIONS = Contract(
    layer=Layer.STAGING,
    name="stg_transactions",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One transaction that stands.",
    description="Transactions with the hour in which they were made.",
    source="core/transactions.",
    columns=(_TRANSACTION, _AMOUNT, _CURRENCY, _TIMESTAMP, _HOUR, _MERCHANT, _CATEGORY),
    key=("transaction_id",),
    inputs=("core/transactions",),
)

INT_TRANSACTION_OUTCOMES = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_transaction_outcomes",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One message that was received, by what became of it.",
    description="The four core tables put together: each message is in one of them.",
    source="core/transactions, core/duplicate_transactions, core/transaction_conflicts, core/rejected_transactions.",
    columns=(
        _MESSAGE,
        Column("received_date", "date", "date", "Day in UTC on which the message was first received."),
        Column("resolution", "string", "enumeration", "What became of the message.", allowed=RESOLUTIONS),
        Column(
            "currency",
            "string",
            "ISO 4217",
            "Currency of the amount; XXX, no currency, where the message is rejected.",
        ),
        Column("amount", "money", "currency", "Exact amount; null where the message is rejected.", True, 0),
    ),
    key=("message_id",),
    inputs=(
        "core/transactions",
        "core/duplicate_transactions",
        "core/transaction_conflicts",
        "core/rejected_transactions",
    ),
    rules=(
        RowRule(
            "rejected_without_amount",
            "(amount is null) = (resolution = 'rejected')",
            "an amount is known of what is not rejected",
        ),
    ),
)

INT_RECEIVED_TRANSACTIONS = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_received_transactions",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One message that was received, whatever became of it.",
    description="Messages of settled micro-batches straight from raw, counted once however often they were delivered.",
    source="raw/transactions, core/transaction_arrivals.",
    columns=(
        _MESSAGE,
        Column("received_date", "date", "date", "Day in UTC on which the message was first received."),
        Column("currency", "string", "ISO 4217", "Currency of the amount; XXX where the rules reject the message."),
        Column("amount", "money", "currency", "Exact amount; null where the rules reject the message.", True, 0),
    ),
    key=("message_id",),
    inputs=("raw/transactions", "core/transaction_arrivals"),
)

MART_TRANSACTION_VOLUME = Contract(
    layer=Layer.MART,
    name="mart_transaction_volume",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One category, currency and merchant in one hour.",
    description="How many transactions there were and what they come to. A sum never mixes currencies.",
    source="stg_transactions.",
    columns=(
        _HOUR,
        _CURRENCY,
        _CATEGORY,
        _MERCHANT,
        _COUNT,
        _TOTAL,
        Column("smallest_amount", "money", "currency", "Smallest amount.", minimum=0, exclusive_minimum=True),
        Column("largest_amount", "money", "currency", "Largest amount.", minimum=0, exclusive_minimum=True),
    ),
    key=("currency", "hour_ts_utc", "transaction_category", "merchant"),
    inputs=("staging/stg_transactions",),
)


def _score(measure: str, words: str) -> tuple[Column, ...]:
    return (
        Column(
            f"{measure}_score",
            "float64",
            "robust z",
            f"0.67449 times the distance of {words} from the median of the same hour on the 20 days before, over their "
            "median absolute deviation.",
            True,
        ),
        Column(
            f"{measure}_score_status",
            "string",
            "enumeration",
            f"Why {measure}_score is null, or ok: insufficient_history in a currency's first 20 days, zero_variance "
            "where the 20 hours do not vary.",
            allowed=SCORE_STATUSES,
        ),
        Column(
            f"is_{measure}_anomaly",
            "bool",
            "true/false",
            f"Whether {measure}_score is above {MODIFIED_Z_THRESHOLD}; null where there is no score.",
            True,
        ),
    )


MART_TRANSACTION_ANOMALIES = Contract(
    layer=Layer.MART,
    name="mart_transaction_anomalies",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One currency in one hour of the last 366 days, from its first transaction on; also hours without any.",
    description=(
        "Unusually many transactions, or unusually much money, for this hour of the day. The score is robust: earlier "
        "spikes do not mask a new one. The hour itself is no part of what it is compared with."
    ),
    source="stg_transactions.",
    columns=(
        _CURRENCY,
        _HOUR,
        Column(
            "transaction_count", "int64", "transactions", "Transactions that stand; 0 in an hour without.", False, 0
        ),
        Column("total_amount", "money", "currency", "Exact sum of their amounts; 0 in an hour without.", False, 0),
        *_score("count", "the count"),
        *_score("value", "the sum"),
    ),
    key=("currency", "hour_ts_utc"),
    inputs=("staging/stg_transactions",),
    rules=tuple(
        RowRule(
            f"{measure}_score_explained",
            f"({measure}_score is null) = ({measure}_score_status <> 'ok') "
            f"and (is_{measure}_anomaly is null) = ({measure}_score is null)",
            "a score and its flag are null exactly where the status is not ok",
        )
        for measure in ("count", "value")
    ),
)


def _tied(outcome: str, description: str) -> tuple[Column, Column]:
    return (
        Column(f"{outcome}_count", "int64", "messages", description, minimum=0),
        Column(f"{outcome}_amount", "money", "currency", f"Exact sum of their amounts. {description}", minimum=0),
    )


MART_TRANSACTION_CONTROL = Contract(
    layer=Layer.MART,
    name="mart_transaction_control",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One currency on one day of receipt in UTC; XXX holds messages whose rejection left no currency.",
    description=(
        "Control total: received = accepted + duplicate + conflict + rejected, in messages and to the last decimal of "
        "the amounts. Received is counted in raw/transactions, the others in their own tables, so that nothing can be "
        "lost between them unseen."
    ),
    source="int_received_transactions, int_transaction_outcomes.",
    columns=(
        Column("received_date", "date", "date", "Day in UTC on which the messages were first received."),
        Column("currency", "string", "ISO 4217", "Currency of the amounts; XXX, no currency, of rejected messages."),
        *_tied("received", "Messages received, each once."),
        *_tied("accepted", "Messages whose transaction stands."),
        *_tied("duplicate", "Messages that say again what stands."),
        *_tied("conflict", "Messages that contradict what stands."),
        Column(
            "rejected_count", "int64", "messages", "Messages that break a rule; their amounts are unknown.", False, 0
        ),
        Column("ties", "bool", "true/false", "Whether counts and amounts of the parts add up to what was received."),
    ),
    key=("currency", "received_date"),
    inputs=("intermediate/int_received_transactions", "intermediate/int_transaction_outcomes"),
    rules=(RowRule("control_total_ties", "ties", "no message is lost or counted twice between receipt and outcome"),),
)

CONTRACTS = (
    RAW_TRANSACTIONS,
    TRANSACTION_ARRIVALS,
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
    REJECTED_TRANSACTIONS,
    STG_TRANSACTIONS,
    INT_TRANSACTION_OUTCOMES,
    INT_RECEIVED_TRANSACTIONS,
    MART_TRANSACTION_VOLUME,
    MART_TRANSACTION_ANOMALIES,
    MART_TRANSACTION_CONTROL,
)
