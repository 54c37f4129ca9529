"""Simulated transactions: what card payments look like on the queue, and everything that can be wrong with them.

What belongs here: making messages from a seed, and sending them at a rate. The same seed and first instant give the
same bytes. Each message says what should become of it, by the way in which it was made and not by the rules' code, so
that tests can hold one against the other.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from typing import Any, Literal, Protocol

Expected = Literal["accepted", "duplicate", "conflict", "rejected"]

#: (code, decimals, weight, units of it for one dollar): roughly what a European card issuer sees.
CURRENCIES = (
    ("USD", 2, 46, 1),
    ("EUR", 2, 27, 1),
    ("GBP", 2, 10, 1),
    ("JPY", 0, 6, 150),
    ("CHF", 2, 4, 1),
    ("SEK", 2, 3, 10),
    ("PLN", 2, 2, 4),
    ("KWD", 3, 1, 1),
    ("KRW", 0, 1, 1350),
)
#: (merchant, weight, median dollars, spread of the logarithm). The names are invented.
MERCHANTS = (
    ("Corner Grocery", 24, 31, 0.8),
    ("Blue Kettle Coffee", 18, 6, 0.4),
    ("Metro Transit", 14, 3, 0.5),
    ("Northern Fuel", 10, 48, 0.5),
    ("Fennel & Rye", 9, 42, 0.7),
    ("Café Müller", 7, 14, 0.6),
    ("Harbour Books", 5, 22, 0.7),
    ("Pixel Parcel", 5, 65, 1.1),
    ("Lumen Electronics", 3, 310, 1.0),
    ("Alta Airlines", 2, 420, 0.8),
    ("Hotel Meridian", 2, 260, 0.7),
    ("株式会社みどり", 1, 37, 0.8),
)
#: Text that is data like any other, however it looks.
ODD_MERCHANTS = (
    "<script>alert(1)</script>",
    "Robert'); DROP TABLE payments;--",
    '=HYPERLINK("http://example.invalid")',
    "Shop \u202etxt.exe",
    "Smile \U0001f600 Store",
    "Tab\tand\nnewline",
    "{{7*7}} ${jndi:x}",
)
USERS = 5_000
#: Share of good messages that are unusual but right: numbers as text, other offsets, more fields, a byte order mark.
UNUSUAL = 0.05
#: How many of the latest good messages a duplicate or a conflict may follow.
REMEMBERED = 2_000
#: Of what is bad, this share repeats an id, half of it with other content; the rest breaks a rule.
REPEATED = 0.4
SEND_BATCH = 10
_LONG_BODY = 256 * 1024 + 1
_LONG_FIELD = 4 * 1024 + 1


class Sender(Protocol):
    """What messages are sent to."""

    def send(self, bodies: list[bytes]) -> list[str]:
        """Send messages and return their ids."""


@dataclass(frozen=True, slots=True)
class Produced:
    """One message, and what should become of it where messages arrive in the order of sending.

    Attributes
    ----------
    body
        The bytes.
    expected
        Its outcome.
    kind
        What was done to it: ``plain``, ``unusual``, ``duplicate``, ``conflict``, or the name of a poison.
    transaction_id
        Its id; None where it has none that could be read.
    amount
        Its exact amount, where it has one that is right.
    currency
        Its currency, where the amount is right.
    """

    body: bytes
    expected: Expected
    kind: str
    transaction_id: str | None
    amount: Decimal | None = None
    currency: str | None = None


@dataclass(frozen=True, slots=True)
class _Payment:
    """What a message says, before it is written down."""

    transaction_id: str
    user_id: str
    amount: str
    currency: str
    at: datetime
    merchant: str

    def fields(self) -> dict[str, Any]:
        return {
            "transaction_id": self.transaction_id,
            "user_id": self.user_id,
            "amount": _Literal(self.amount),
            "currency": self.currency,
            "timestamp": _rfc3339(self.at),
            "merchant": self.merchant,
        }


@dataclass(frozen=True, slots=True)
class _Standing:
    """A good message, with the fields from which it was written."""

    produced: Produced
    fields: dict[str, Any]
    at: datetime


class _Literal(str):
    """A JSON token as it is to stand in the text: a decimal that no float may touch."""

    __slots__ = ()


def _rfc3339(at: datetime, zone: timezone = UTC) -> str:
    return at.astimezone(zone).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _written(fields: dict[str, Any]) -> bytes:
    parts = (f"{json.dumps(name)}: {_token(value)}" for name, value in fields.items())
    return ("{" + ", ".join(parts) + "}").encode("utf-8")


def _token(value: Any) -> str:
    return str(value) if isinstance(value, _Literal) else json.dumps(value, ensure_ascii=False)


def messages(
    seed: int, first: datetime, *, bad_rate: float = 0.0, step: timedelta = timedelta(milliseconds=1)
) -> Iterator[Produced]:
    """Make messages without end.

    Parameters
    ----------
    seed
        Any integer. The same seed and first instant give the same bytes.
    first
        When the first payment was made, aware.
    bad_rate
        Share, 0 to 1, of what is not simply good: duplicates, conflicts and every kind of poison.
    step
        Time from one payment to the next.

    Raises
    ------
    ValueError
        ``first`` has no zone, or ``bad_rate`` is no share.
    """
    if first.tzinfo is None:
        raise ValueError("the first instant needs a zone")
    if not 0 <= bad_rate <= 1:
        raise ValueError(f"a share of bad messages is 0 to 1, not {bad_rate}")
    return _messages(random.Random(f"{seed} {first.astimezone(UTC).isoformat()}"), first, bad_rate, step)


def _messages(source: random.Random, first: datetime, bad_rate: float, step: timedelta) -> Iterator[Produced]:
    currency_weights = [weight for _, _, weight, _ in CURRENCIES]
    merchant_weights = [weight for _, weight, _, _ in MERCHANTS]
    known: list[_Standing] = []
    at = first.astimezone(UTC).replace(microsecond=first.microsecond // 1000 * 1000)
    while True:
        code, decimals, _, per_dollar = source.choices(CURRENCIES, currency_weights)[0]
        name, _, median, spread = source.choices(MERCHANTS, merchant_weights)[0]
        units = max(1, round(median * per_dollar * source.lognormvariate(0, spread) * 10**decimals))
        payment = _Payment(
            transaction_id=f"txn_{source.getrandbits(80):020x}",
            # A few customers pay often, most now and then.
            user_id=f"user_{int(USERS * source.random() ** 2):05d}",
            amount=str(Decimal(units).scaleb(-decimals)),
            currency=code,
            at=at.replace(microsecond=at.microsecond // 1000 * 1000),
            merchant=name,
        )
        if source.random() >= bad_rate:
            standing = _good(payment, source)
            yield standing.produced
            if len(known) < REMEMBERED:
                known.append(standing)
            else:
                known[source.randrange(REMEMBERED)] = standing
        elif known and source.random() < REPEATED:
            earlier = source.choice(known)
            yield _duplicate(earlier, source) if source.random() < 0.5 else _conflict(earlier, source)
        else:
            kind = source.choice(tuple(POISONS))
            body = POISONS[kind](payment)
            yield Produced(body, "rejected", kind, None if kind in _WITHOUT_ID else payment.transaction_id)
        at += step


def _good(payment: _Payment, source: random.Random) -> _Standing:
    fields = payment.fields()
    kind, mark = "plain", b""
    if source.random() < UNUSUAL:
        kind = "unusual"
        match source.randrange(8):
            case 0:
                fields["amount"] = payment.amount
            case 1:
                fields["currency"] = f" {payment.currency.lower()} "
            case 2:
                fields["timestamp"] = _rfc3339(payment.at, timezone(timedelta(hours=5, minutes=30)))
            case 3:
                # Nanoseconds, which are cut, with a space and a small z.
                fields["timestamp"] = payment.at.strftime("%Y-%m-%d %H:%M:%S.%f") + "123z"
            case 4:
                fields["merchant"] = source.choice(ODD_MERCHANTS)
            case 5:
                fields["terminal"] = {"id": source.randrange(10_000), "entry": "chip", "tags": ["retail", None]}
            case 6:
                mark = b"\xef\xbb\xbf"
            case _:
                # Finer than the currency: kept as it is.
                fields["amount"] = _Literal(payment.amount + ("0001" if "." in payment.amount else ".0001"))
    amount = Decimal(str(fields["amount"]))
    body = mark + _written(fields)
    produced = Produced(body, "accepted", kind, payment.transaction_id, amount, payment.currency)
    return _Standing(produced, fields, payment.at)


def _duplicate(earlier: _Standing, source: random.Random) -> Produced:
    """Return the same payment again, as another sender might write it."""
    fields = dict(earlier.fields)
    match source.randrange(4):
        case 0:
            amount = str(fields["amount"])
            fields["amount"] = _Literal(amount + ("00" if "." in amount else ".00"))
        case 1:
            fields["timestamp"] = _rfc3339(earlier.at, timezone(timedelta(hours=-8)))
        case 2:
            fields = dict(reversed(fields.items()))
        case _:
            pass
    return replace(earlier.produced, body=_written(fields), expected="duplicate", kind="duplicate")


def _conflict(earlier: _Standing, source: random.Random) -> Produced:
    """Return another payment under the same id."""
    fields = dict(earlier.fields)
    amount = earlier.produced.amount or Decimal(0)
    if source.random() < 0.7:
        amount += 1
        fields["amount"] = _Literal(str(amount))
    else:
        fields["merchant"] = f"{fields['merchant']} No. 2"
    return replace(earlier.produced, body=_written(fields), expected="conflict", kind="conflict", amount=amount)


def _with(**changed: Any) -> Callable[[_Payment], bytes]:
    return lambda payment: _written({**payment.fields(), **changed})


def _without(name: str) -> Callable[[_Payment], bytes]:
    return lambda payment: _written({key: value for key, value in payment.fields().items() if key != name})


def _later(payment: _Payment) -> bytes:
    return _written({**payment.fields(), "timestamp": _rfc3339(payment.at + timedelta(days=1))})


_REQUIRED = ("transaction_id", "user_id", "amount", "currency", "timestamp", "merchant")
#: Everything that a rule refuses, by name.
POISONS: dict[str, Callable[[_Payment], bytes]] = {
    "not_utf8": lambda payment: _written(payment.fields()).replace(b"txn_", b"txn_\xff\xfe"),
    "not_json": lambda payment: _written(payment.fields())[:-9],
    "two_objects": lambda payment: _written(payment.fields()) * 2,
    "an_array": lambda payment: b"[" + _written(payment.fields()) + b"]",
    "a_number": lambda payment: b"42",
    "blank_body": lambda payment: b"  \n",
    "key_twice": lambda payment: _written(payment.fields())[:-1] + b', "amount": 1}',
    "too_deep": _with(nested=_Literal("[" * 40 + "]" * 40)),
    "body_too_long": _with(note=_Literal("[" + ", ".join(['"' + "x" * 4000 + '"'] * (_LONG_BODY // 4000 + 1)) + "]")),
    "field_too_long": _with(merchant="m" * _LONG_FIELD),
    **{f"{name}_missing": _without(name) for name in _REQUIRED},
    **{f"{name}_null": _with(**{name: None}) for name in _REQUIRED},
    **{f"{name}_blank": _with(**{name: "  "}) for name in _REQUIRED},
    **{f"{name}_a_list": _with(**{name: ["x"]}) for name in _REQUIRED},
    "transaction_id_number": _with(transaction_id=123456),
    "user_id_number": _with(user_id=123456),
    "amount_true": _with(amount=True),
    "amount_zero": _with(amount=_Literal("0.00")),
    "amount_negative": _with(amount=_Literal("-12.50")),
    "amount_nan": _with(amount=_Literal("NaN")),
    "amount_infinite": _with(amount=_Literal("Infinity")),
    "amount_sixteen_digits": _with(amount=_Literal("1234567890123456")),
    "amount_signed_text": _with(amount="+157.89"),
    "amount_spaced_text": _with(amount=" 157.89"),
    "amount_exponent_text": _with(amount="1e3"),
    "amount_separators": _with(amount="1,157.89"),
    "amount_underscore": _with(amount="1_157"),
    "amount_with_sign": _with(amount="$157.89"),
    "amount_full_width": _with(amount="１５７"),  # noqa: RUF001
    "currency_unknown": _with(currency="ZZZ"),
    "currency_none": _with(currency="XXX"),
    "currency_test": _with(currency="XTS"),
    "currency_gold": _with(currency="XAU"),
    "timestamp_without_zone": _with(timestamp="2024-06-01T12:00:00"),
    "timestamp_epoch": _with(timestamp=1717243200),
    "timestamp_leap_second": _with(timestamp="2016-12-31T23:59:60Z"),
    "timestamp_no_such_day": _with(timestamp="2024-02-30T12:00:00Z"),
    "timestamp_words": _with(timestamp="yesterday"),
    "timestamp_future": _later,
}
_WITHOUT_ID = frozenset(
    {
        "not_utf8",
        "not_json",
        "two_objects",
        "an_array",
        "a_number",
        "blank_body",
        "transaction_id_missing",
        "transaction_id_null",
        "transaction_id_blank",
        "transaction_id_a_list",
        "transaction_id_number",
    }
)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent."""

    count: int
    seconds: float


def send(
    source: Iterator[Produced],
    sender: Sender,
    *,
    count: int | None,
    rate: float | None,
    stop: Callable[[], bool] = lambda: False,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
    on_sent: Callable[[list[Produced], list[str]], None] = lambda batch, ids: None,
) -> Sent:
    """Send messages, not faster than at a rate.

    Parameters
    ----------
    source
        The messages.
    sender
        Where they go.
    count
        How many; None goes on until ``stop``.
    rate
        Messages a second; None is as fast as they are taken. A sender that fell behind does not catch up by a burst
        longer than a second.
    stop
        Asked before each batch.
    monotonic, sleep
        The clock.
    on_sent
        Called with each batch and its message ids, once it is sent.
    """
    begun = due = monotonic()
    sent = 0
    size = SEND_BATCH if rate is None else max(1, min(SEND_BATCH, int(rate / 10)))
    while not stop() and (count is None or sent < count):
        batch = list(islice(source, size if count is None else min(size, count - sent)))
        if not batch:
            break
        if rate is not None:
            wait = due - monotonic()
            if wait > 0:
                sleep(wait)
            due = max(due, monotonic() - 1) + len(batch) / rate
        ids = sender.send([each.body for each in batch])
        sent += len(batch)
        on_sent(batch, ids)
    return Sent(sent, monotonic() - begun)
