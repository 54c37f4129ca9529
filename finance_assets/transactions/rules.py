"""The rules of a message: what is accepted, what it means exactly, and why the rest is rejected.

What belongs here: bytes in, meaning out, for one message or for many. Pure: no clock, no store, no Dagster. Numbers are
decimals from the byte on: a float never holds one. docs/transactions.md lists the rules for people.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from finance_assets.reference.currencies import ACTIVE, WITHDRAWN, currency_code
from finance_assets.reference.transaction_categories import CATEGORIES, STANDARD, THRESHOLDS

if TYPE_CHECKING:
    import pyarrow as pa

ACCEPTED: Final = "accepted"
REJECTED: Final = "rejected"

MAX_BODY_BYTES: Final = 256 * 1024
MAX_FIELD_BYTES: Final = 4 * 1024
MAX_DEPTH: Final = 32
MAX_INTEGER_DIGITS: Final = 15
#: Decimal places that the tables hold; a value with more is rejected rather than rounded.
MAX_DECIMALS: Final = 18
#: How far a sender's clock may be ahead of ours.
FUTURE_TOLERANCE: Final = timedelta(minutes=5)

REQUIRED: Final = ("transaction_id", "user_id", "amount", "currency", "timestamp", "merchant")

#: Reason code -> what is wrong and what to do about it. A detail never repeats what the message says.
REASONS: Final[dict[str, str]] = {
    "body_too_large": f"the body is longer than {MAX_BODY_BYTES} bytes",
    "bad_encoding": "the body is not UTF-8, or an escape stands for half a character; send UTF-8",
    "empty_body": "the body is empty; send one JSON object",
    "malformed_json": "the body is not JSON; send one JSON object and nothing after it",
    "not_an_object": "the body is JSON, but no object; send one JSON object",
    "duplicate_keys": "an object names a key twice, so its meaning is open; name each key once",
    "too_deep": f"the body is nested deeper than {MAX_DEPTH} levels",
    "field_too_long": f"a field, or the name of one, is longer than {MAX_FIELD_BYTES} bytes",
    **{f"{name}_missing": f"{name} is missing, null or blank" for name in REQUIRED},
    **{f"{name}_invalid": f"{name} is not a string" for name in ("transaction_id", "user_id", "currency", "merchant")},
    "amount_not_number": "amount is neither a finite JSON number nor a string of ASCII digits with an optional point",
    "amount_zero": "amount is zero",
    "amount_negative": "amount is negative",
    "amount_out_of_range": f"amount has more than {MAX_INTEGER_DIGITS} integer digits",
    "amount_too_precise": f"amount has more than {MAX_DECIMALS} decimals, which could not be stored without rounding",
    "unknown_currency": "currency is not an active ISO 4217 code of money",
    "timestamp_invalid": "timestamp is not an instant in RFC 3339, such as 2025-01-15T10:30:00Z",
    "timezone_missing": "timestamp has no zone; end it with Z or an offset such as +01:00",
    "future_timestamp": f"timestamp is more than {FUTURE_TOLERANCE.seconds // 60} minutes in the future",
}

#: Messages that are held as Python objects at a time: more would only keep the garbage collector busy.
_MESSAGES_AT_ONCE = 2048
#: Depth up to which a body that is too deep is parsed all the same, to learn its id.
_READABLE_DEPTH = 200
#: A number with an exponent of more digits is beyond every bound.
_EXPONENT_DIGITS = 6

_BYTE_ORDER_MARK = "\ufeff"
_JSON_SPACE = " \t\n\r"
#: Length of 2025-01-15T10:30:00Z, as nearly all timestamps are written.
_CANONICAL_INSTANT = 20
_PLAIN_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?")
_LOCAL = r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?"
_RFC_3339 = re.compile(_LOCAL + r"(?:[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])")
_WITHOUT_ZONE = re.compile(_LOCAL)
#: A message as nearly all are written: the six fields in their order, ids of visible ASCII, nothing escaped.
_USUAL = re.compile(
    r'\{"transaction_id": ?"([!#-\[\]-~]+)", ?"user_id": ?"([!#-\[\]-~]+)", ?'
    rf'"amount": ?((?:0|[1-9][0-9]{{0,{MAX_INTEGER_DIGITS - 1}}})(?:\.[0-9]{{1,{MAX_DECIMALS}}})?), ?'
    r'"currency": ?"([A-Z]{3})", ?'
    r'"timestamp": ?"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?Z)", ?'
    r'"merchant": ?"([^"\\]+)"\}'
)
# A text that never ends counts as text to the end, so that the search goes over the body once.
_JSON_TEXT = re.compile(r'"(?:[^"\\]++|\\.)*+\\?+(?:"|\Z)', re.DOTALL)
_BRACKETS = re.compile(r"[\[\]{}]")


class _Number(str):
    """A JSON number as it was written."""

    __slots__ = ()


class _Constant(str):
    """``NaN``, ``Infinity`` or ``-Infinity``: what Python reads as JSON, and JSON does not know."""

    __slots__ = ()


# Objects become tuples of pairs, so that a key that is named twice is seen and a list is told from an object.
_DECODER = json.JSONDecoder(
    parse_float=_Number,
    parse_int=_Number,
    parse_constant=_Constant,
    object_pairs_hook=tuple,
)
_scan: Callable[[str, int], tuple[Any, int]] = vars(_DECODER)["scan_once"]
_quoted = json.encoder.encode_basestring


class _RejectedError(Exception):
    """A rule is broken; carries the reason code."""

    def __init__(self, reason: str, transaction_id: str | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.transaction_id = transaction_id


@dataclass(frozen=True, slots=True)
class Classified:
    """What one message means.

    Attributes
    ----------
    outcome
        ``accepted`` or ``rejected``. Whether it is a duplicate depends on other messages; see ``resolution``.
    reason, detail
        Code of :data:`REASONS` and its sentence; None where the message is accepted.
    transaction_id
        Trimmed. Of a rejected message as it was sent, where it could be read at all.
    user_id
        Trimmed.
    amount
        Exact, in the currency's major unit, with as many decimals as were sent.
    currency
        ISO 4217 code.
    timestamp_utc
        When the payment was made, cut to microseconds.
    merchant
        As sent.
    extra
        JSON object of the fields beyond the required ones, numbers as they were written; None where there are none.
    transaction_category
        One of :data:`CATEGORIES`.
    fingerprint
        SHA-256 of the meaning: the same for ``250`` and ``250.00``, for one instant in two offsets and for any order of
        keys. None where the message is rejected.
    """

    outcome: str
    reason: str | None = None
    detail: str | None = None
    transaction_id: str | None = None
    user_id: str | None = None
    amount: Decimal | None = None
    currency: str | None = None
    timestamp_utc: datetime | None = None
    merchant: str | None = None
    extra: str | None = None
    transaction_category: str | None = None
    fingerprint: str | None = None


def categorise(amount: Decimal) -> str:
    """Return the category of an amount, compared exactly as it is: 999.995 is not yet high.

    Parameters
    ----------
    amount
        Finite, in the currency's major unit, not rounded. Zero and less, as of refunds, are standard.

    Returns
    -------
    str
        One of :data:`CATEGORIES`.
    """
    for category, least in THRESHOLDS.items():
        if amount >= least:
            return category
    return STANDARD


def classify(body: bytes, now: datetime) -> Classified:
    """Return what one message means.

    Parameters
    ----------
    body
        The bytes as they came.
    now
        The instant against which the future is judged; aware.

    Returns
    -------
    Classified
        Accepted with its meaning, or rejected with a reason; no bytes make this raise.
    """
    try:
        found = _meaning(body, _horizon(now))
    except _RejectedError as rejected:
        reason = rejected.reason
        return Classified(REJECTED, reason, REASONS[reason], rejected.transaction_id)
    transaction_id, user_id, amount_text, _, currency, instant, merchant, extra, fingerprint = found
    amount = Decimal(amount_text)
    return Classified(
        ACCEPTED,
        transaction_id=transaction_id,
        user_id=user_id,
        amount=amount,
        currency=currency,
        timestamp_utc=instant.replace(tzinfo=UTC),
        merchant=merchant,
        extra=extra,
        transaction_category=categorise(amount),
        fingerprint=fingerprint,
    )


def classify_batch(messages: Iterable[tuple[str, bytes]], now: datetime) -> pa.Table:
    """Return what many messages mean, one row per message, in their order.

    Parameters
    ----------
    messages
        Message id and body of each.
    now
        The instant against which the future is judged; aware.

    Returns
    -------
    pyarrow.Table
        Columns ``message_id``, ``outcome``, ``reason``, ``detail``, ``transaction_id``, ``user_id``, ``amount``
        (``decimal128(38, 18)``), ``amount_text`` (exactly as many decimals as were sent), ``currency``,
        ``timestamp_utc``, ``merchant``, ``extra``, ``transaction_category``, ``fingerprint``, as in
        :class:`Classified`.
        What belongs to accepted messages only is null in the others.
    """
    import pyarrow as pa

    horizon = _horizon(now)
    waiting = iter(messages)
    chunks = []
    while chunk := list(islice(waiting, _MESSAGES_AT_ONCE)):
        chunks.append(_classified_chunk(chunk, horizon))
    return pa.concat_tables(chunks or [_classified_chunk((), horizon)])


def _classified_chunk(messages: Sequence[tuple[str, bytes]], horizon: datetime) -> pa.Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    reasons: list[str | None] = []
    meanings: list[tuple[Any, ...]] = []
    for _, body in messages:
        try:
            meanings.append(_meaning(body, horizon))
            reasons.append(None)
        except _RejectedError as rejected:
            meanings.append((rejected.transaction_id, *_NOTHING))
            reasons.append(rejected.reason)
    columns: Sequence[Sequence[Any]] = list(zip(*meanings, strict=True)) or [()] * (len(_NOTHING) + 1)
    ids, users, texts, plain, currencies, instants, merchants, extras, fingerprints = columns
    amount = pa.array(plain, pa.string()).cast(pa.decimal128(38, MAX_DECIMALS))
    reason = pa.array(reasons, pa.string())
    accepted = pc.is_null(reason)
    reached = [pc.greater_equal(amount, pa.scalar(least, amount.type)) for least in THRESHOLDS.values()]
    category = pc.case_when(pc.make_struct(*reached), *CATEGORIES)
    return pa.table(
        {
            "message_id": pa.array([message_id for message_id, _ in messages], pa.string()),
            "outcome": pc.if_else(accepted, ACCEPTED, REJECTED),
            "reason": reason,
            "detail": pa.array([None if code is None else REASONS[code] for code in reasons], pa.string()),
            "transaction_id": pa.array(ids, pa.string()),
            "user_id": pa.array(users, pa.string()),
            "amount": amount,
            "amount_text": pa.array(texts, pa.string()),
            "currency": pa.array(currencies, pa.string()),
            "timestamp_utc": pa.array(instants, pa.timestamp("us", "UTC")),
            "merchant": pa.array(merchants, pa.string()),
            "extra": pa.array(extras, pa.string()),
            "transaction_category": pc.if_else(accepted, category, pa.scalar(None, pa.string())),
            "fingerprint": pa.array(fingerprints, pa.string()),
        }
    )


#: What stands after the id in the row of a rejected message.
_NOTHING = (None,) * 8


def _horizon(now: datetime) -> datetime:
    """Return the latest instant that is no future, naive and in UTC: aware ones cost the better half of a parse."""
    if now.tzinfo is None:
        raise ValueError("now needs a zone")
    return now.astimezone(UTC).replace(tzinfo=None) + FUTURE_TOLERANCE


#: Id, user, amount as sent and without trailing zeros, currency, instant (naive, in UTC), merchant, extra, fingerprint.
_Meaning = tuple[str, str, str, str, str, datetime, str, str | None, str]


def _meaning(body: bytes, horizon: datetime) -> _Meaning:
    """Return what an acceptable message means; raise what is wrong with any other."""
    return _usual_meaning(body, horizon) or _careful_meaning(body, horizon)


def _usual_meaning(body: bytes, horizon: datetime) -> _Meaning | None:
    """Return what :func:`_careful_meaning` would, but sooner, of a message as nearly all are; None of others."""
    if len(body) > MAX_FIELD_BYTES:
        return None
    try:
        usual = _USUAL.fullmatch(body.decode())
        if usual is None:
            return None
        transaction_id, user_id, amount_text, currency, timestamp, merchant = usual.groups()
        instant = datetime.fromisoformat(timestamp[:-1])
    except ValueError:
        return None
    if instant > horizon or currency not in ACTIVE or not merchant.isprintable() or merchant.isspace():
        return None
    amount = amount_text.rstrip("0").rstrip(".") if "." in amount_text else amount_text
    if amount == "0":
        return None
    fingerprint = _fingerprint(transaction_id, user_id, amount, currency, _spelled(timestamp, instant), merchant)
    return transaction_id, user_id, amount_text, amount, currency, instant, merchant, None, fingerprint


def _careful_meaning(body: bytes, horizon: datetime) -> _Meaning:
    pairs, brackets = _parsed(body)
    fields = dict(pairs)
    sent_id = fields.get("transaction_id")
    try:
        if len(fields) != len(pairs):
            if [name for name, _ in pairs].count("transaction_id") > 1:
                sent_id = None
            raise _RejectedError("duplicate_keys")
        # No field is longer than its body, and one pair of brackets holds no object within an object.
        if len(body) > MAX_FIELD_BYTES:
            _refuse_long_fields(pairs)
        if brackets > 1:
            _refuse_double_keys(pairs)
        transaction_id = _text(fields, "transaction_id").strip()
        user_id = _text(fields, "user_id").strip()
        amount_text, amount = _amount(fields.get("amount"))
        currency = currency_code(_text(fields, "currency"))
        if currency is None:
            raise _RejectedError("unknown_currency")
        instant, canonical_instant = _instant(fields, horizon)
        if currency in WITHDRAWN and instant.replace(tzinfo=UTC) >= WITHDRAWN[currency]:
            raise _RejectedError("unknown_currency")
        merchant = _text(fields, "merchant")
    except _RejectedError as rejected:
        rejected.transaction_id = sent_id if type(sent_id) is str and len(sent_id) <= MAX_FIELD_BYTES else None
        raise
    extra, canonical = None, ""
    if len(fields) > len(REQUIRED):
        beyond = tuple((name, value) for name, value in pairs if name not in _REQUIRED_NAMES)
        extra, canonical = _json(beyond), _json(beyond, canonical=True)
    fingerprint = _fingerprint(transaction_id, user_id, amount, currency, canonical_instant, merchant, canonical)
    return transaction_id, user_id, amount_text, amount, currency, instant, merchant, extra, fingerprint


def _fingerprint(
    transaction_id: str, user_id: str, amount: str, currency: str, instant: str, merchant: str, extra: str = ""
) -> str:
    # The lengths of free texts come first: where one ends and the next begins is then beyond doubt.
    meaning = (
        f"{len(transaction_id)} {len(user_id)} {len(merchant)} {amount} {currency} {instant}\n"
        f"{transaction_id}{user_id}{merchant}{extra}"
    )
    return sha256(meaning.encode()).hexdigest()


_REQUIRED_NAMES = frozenset(REQUIRED)


def _parsed(body: bytes) -> tuple[tuple[tuple[str, Any], ...], int]:
    """Return the members of the one JSON object that the body is, and how many brackets open in it at most."""
    if len(body) > MAX_BODY_BYTES:
        raise _RejectedError("body_too_large")
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise _RejectedError("bad_encoding") from None
    text = text.removeprefix(_BYTE_ORDER_MARK).strip(_JSON_SPACE)
    brackets = text.count("{") + text.count("[")
    too_deep = brackets > MAX_DEPTH and (depth := _depth(text)) > MAX_DEPTH
    if too_deep and depth > _READABLE_DEPTH:
        raise _RejectedError("too_deep")
    try:
        pairs, end = _scan(text, 0)
    except (ValueError, StopIteration):
        raise _RejectedError("malformed_json" if text else "empty_body") from None
    if end != len(text):
        raise _RejectedError("malformed_json")
    if type(pairs) is not tuple:
        raise _RejectedError("malformed_json" if type(pairs) is _Constant else "not_an_object")
    if "\\u" in text or "NaN" in text or "Infinity" in text:
        _refuse_what_is_no_json(pairs)
    if too_deep:
        raise _RejectedError("too_deep", _id_of(pairs))
    return pairs, brackets


def _depth(text: str) -> int:
    """Return how deep brackets are nested outside of texts, whether or not they are closed."""
    deepest = depth = 0
    for bracket in _BRACKETS.findall(_JSON_TEXT.sub("", text)):
        depth += 1 if bracket in "{[" else -1
        deepest = max(deepest, depth)
    return deepest


def _id_of(pairs: tuple[tuple[str, Any], ...]) -> str | None:
    """Return the id of a message that is rejected as a whole, where it has one that can be stored."""
    found = [value for name, value in pairs if name == "transaction_id"]
    if len(found) != 1 or type(found[0]) is not str or len(found[0]) > MAX_FIELD_BYTES or not _is_unicode(found[0]):
        return None
    return found[0]


def _refuse_what_is_no_json(pairs: tuple[tuple[str, Any], ...]) -> None:
    """Reject NaN and infinities anywhere but in amount, which has a reason of its own, and halves of characters."""
    waiting: list[Any] = [value for name, value in pairs if not (name == "amount" and type(value) is _Constant)]
    waiting += [name for name, _ in pairs]
    reason = None
    while waiting and reason != "malformed_json":
        value = waiting.pop()
        if isinstance(value, tuple | list):
            waiting += value
        elif type(value) is _Constant:
            reason = "malformed_json"
        elif isinstance(value, str) and not _is_unicode(value):
            reason = "bad_encoding"
    if reason is not None:
        raise _RejectedError(reason, _id_of(pairs))


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_long_fields(pairs: tuple[tuple[str, Any], ...]) -> None:
    for name, value in pairs:
        text = value if isinstance(value, str) else _json(value)
        if max(len(name.encode()), len(text.encode())) > MAX_FIELD_BYTES:
            raise _RejectedError("field_too_long")


def _refuse_double_keys(value: Any) -> None:
    waiting = [value]
    while waiting:
        value = waiting.pop()
        if type(value) is tuple:
            if len({name for name, _ in value}) != len(value):
                raise _RejectedError("duplicate_keys")
            waiting += [held for _, held in value]
        elif type(value) is list:
            waiting += value


def _text(fields: dict[str, Any], name: str) -> str:
    """Return a required text; reject one that is not there, is none, or shows nothing."""
    value = fields.get(name)
    if type(value) is not str:
        raise _RejectedError(f"{name}_missing" if value is None else f"{name}_invalid")
    if not value or value.isspace() or (not value.isprintable() and _is_blank(value)):
        raise _RejectedError(f"{name}_missing")
    return value


def _is_blank(text: str) -> bool:
    """Return whether a text has no character that shows: spaces, control and format characters only."""
    return all(unicodedata.category(character)[0] in "CZ" for character in text)


def _amount(value: Any) -> tuple[str, str]:
    """Return an amount with the decimals that were sent, and without trailing zeros; reject what is none."""
    if type(value) is _Number:
        token: str = value
        if "e" in token or "E" in token:
            token = _expanded(token)
        if token[0] == "-":
            raise _RejectedError("amount_negative" if token.strip("-0.") else "amount_zero")
        whole, _, decimals = token.partition(".")
    elif value is None or (type(value) is str and _is_blank(value)):
        raise _RejectedError("amount_missing")
    elif type(value) is str and _PLAIN_DECIMAL.fullmatch(value):
        whole, _, decimals = value.partition(".")
        whole = whole.lstrip("0") or "0"
    else:
        raise _RejectedError("amount_not_number")
    if len(whole) > MAX_INTEGER_DIGITS:
        raise _RejectedError("amount_out_of_range")
    if not decimals:
        if whole == "0":
            raise _RejectedError("amount_zero")
        return whole, whole
    kept = decimals.rstrip("0")
    if len(kept) > MAX_DECIMALS:
        raise _RejectedError("amount_too_precise")
    if not kept and whole == "0":
        raise _RejectedError("amount_zero")
    return f"{whole}.{decimals}", f"{whole}.{kept}" if kept else whole


def _expanded(token: str) -> str:
    """Return a JSON number with an exponent as digits; what lies beyond all bounds is rejected, never written out."""
    mantissa, _, exponent = token.replace("E", "e").partition("e")
    if not mantissa.strip("-0."):
        return "0"
    if mantissa[0] == "-":
        return mantissa
    if len(exponent.lstrip("+-0")) > _EXPONENT_DIGITS:
        raise _RejectedError("amount_too_precise" if exponent[0] == "-" else "amount_out_of_range")
    # The constructor is exact; arithmetic would round to the context.
    value = Decimal(token)
    if value.adjusted() >= MAX_INTEGER_DIGITS:
        raise _RejectedError("amount_out_of_range")
    if value.adjusted() < -MAX_DECIMALS:
        raise _RejectedError("amount_too_precise")
    return format(value, "f")


def _instant(fields: dict[str, Any], horizon: datetime) -> tuple[datetime, str]:
    """Return the instant of the payment, naive and in UTC as the horizon is, and its one spelling.

    What is no instant, or lies too far ahead, is rejected.
    """
    text = fields.get("timestamp")
    if text is None or (type(text) is str and _is_blank(text)):
        raise _RejectedError("timestamp_missing")
    if type(text) is not str:
        raise _RejectedError("timestamp_invalid")
    if not _RFC_3339.fullmatch(text):
        raise _RejectedError("timezone_missing" if _WITHOUT_ZONE.fullmatch(text) else "timestamp_invalid")
    try:
        # Cuts to microseconds; knows the length of months, no 24th hour and no 60th second.
        if text[-1] in "Zz":
            instant = datetime.fromisoformat(text[:-1])
        else:
            instant = datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
    except (ValueError, OverflowError):
        raise _RejectedError("timestamp_invalid") from None
    if instant > horizon:
        raise _RejectedError("future_timestamp")
    return instant, _spelled(text, instant)


def _spelled(text: str, instant: datetime) -> str:
    """Return the one spelling of an instant that was written as ``text``."""
    is_canonical = len(text) == _CANONICAL_INSTANT and text[10] == "T" and text[-1] == "Z"
    return text if is_canonical else f"{instant.isoformat()}Z"


def _json(value: Any, *, canonical: bool = False) -> str:
    """Return a parsed value as JSON; numbers as they were written.

    With ``canonical``, what means the same gives the same text: keys sorted, numbers by value.
    """
    kind = type(value)
    if kind is str:
        return _quoted(value)
    if kind is _Number:
        return _canonical_number(value) if canonical else str(value)
    if kind is tuple:
        members = [f"{_quoted(name)}:{_json(held, canonical=canonical)}" for name, held in value]
        return "{" + ",".join(sorted(members) if canonical else members) + "}"
    if kind is list:
        return "[" + ",".join([_json(held, canonical=canonical) for held in value]) + "]"
    return "null" if value is None else "true" if value else "false"


def _canonical_number(token: str) -> str:
    """Return the one spelling of a number's value: digits without zeros around them, and a power of ten."""
    mantissa, _, exponent = token.replace("E", "e").partition("e")
    sign = "-" if mantissa[0] == "-" else ""
    whole, _, decimals = mantissa.lstrip("-").partition(".")
    digits = (whole + decimals).lstrip("0")
    if not digits:
        return "0"
    power = int(exponent or "0") - len(decimals) + len(digits) - len(digits.rstrip("0"))
    return f"{sign}{digits.rstrip('0')}e{power}"
