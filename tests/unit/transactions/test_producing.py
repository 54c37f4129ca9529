"""Simulated messages: their mix, their repeatability, and that the rules see in them what was put in."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import islice

import pytest

from finance_assets.transactions.producing import POISONS, Produced, messages, send
from finance_assets.transactions.rules import classify

START = datetime(2026, 3, 2, 9, 30, tzinfo=UTC)
NOW = START + timedelta(minutes=1)


def made(count: int, *, seed: int = 7, bad_rate: float = 0.0) -> list[Produced]:
    return list(islice(messages(seed, START, bad_rate=bad_rate, step=timedelta(milliseconds=1)), count))


def test_the_same_seed_gives_the_same_bytes() -> None:
    first = [each.body for each in made(500, bad_rate=0.3)]
    assert first == [each.body for each in made(500, bad_rate=0.3)]
    assert first != [each.body for each in made(500, seed=8, bad_rate=0.3)]
    later = islice(messages(7, NOW, bad_rate=0.3), 500)
    ids = {each.transaction_id for each in made(500)}
    assert not ids & {each.transaction_id for each in later}, "a later run makes new payments, no conflicts"


def test_without_bad_ones_all_are_good() -> None:
    assert {each.expected for each in made(2000)} == {"accepted"}
    assert len({each.transaction_id for each in made(2000)}) == 2000


@pytest.mark.parametrize("bad_rate", [0.02, 0.3, 1.0])
def test_the_share_of_bad_ones_is_as_asked(bad_rate: float) -> None:
    bad = sum(each.expected != "accepted" for each in made(4000, bad_rate=bad_rate)) / 4000
    assert bad == pytest.approx(bad_rate, abs=0.03)


def test_the_rules_see_what_was_put_in() -> None:
    """Independent of each other: the maker knows by making, the rules by reading."""
    standing: dict[str, str] = {}
    kinds: Counter[str] = Counter()
    for each in made(20_000, bad_rate=0.5):
        found = classify(each.body, NOW)
        kinds[each.kind] += 1
        if each.expected == "rejected":
            assert found.outcome == "rejected", each.kind
            continue
        assert found.outcome == "accepted", (each, found)
        assert (found.transaction_id, found.currency) == (each.transaction_id, each.currency)
        assert found.amount is not None
        assert found.amount == each.amount
        known = standing.setdefault(found.transaction_id or "", found.fingerprint or "")
        same = known == found.fingerprint
        assert {"accepted": same, "duplicate": same, "conflict": not same}[each.expected], each
    assert set(kinds) >= {*POISONS, "plain", "unusual", "duplicate", "conflict"}


def test_amounts_fit_their_currency() -> None:
    plain = [each for each in made(3000) if each.kind == "plain"]
    decimals = {(each.currency, -each.amount.as_tuple().exponent) for each in plain if each.amount}  # type: ignore[operator]
    assert {("USD", 2), ("JPY", 0), ("KWD", 3)} <= decimals
    assert ("JPY", 2) not in decimals
    assert all(each.amount and each.amount > 0 for each in plain)
    assert {Decimal(100) <= (each.amount or 0) < 1000 for each in plain} == {True, False}


@pytest.mark.parametrize(("start", "rate"), [(START.replace(tzinfo=None), 0.1), (START, -0.1), (START, 1.5)])
def test_what_makes_no_sense_is_refused(start: datetime, rate: float) -> None:
    with pytest.raises(ValueError, match=r"zone|share"):
        messages(1, start, bad_rate=rate)


class Clock:
    """Time that passes only by sleeping, and by what sending costs."""

    def __init__(self, cost: float = 0.0) -> None:
        self.now, self.cost, self.taken = 100.0, cost, []

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def send(self, bodies: list[bytes]) -> list[str]:
        self.taken.append((self.now, len(bodies)))
        self.now += self.cost
        return ["id"] * len(bodies)


@pytest.mark.parametrize(("rate", "count"), [(1000.0, 995), (50.0, 52), (3.0, 7)])
def test_the_rate_is_kept(rate: float, count: int) -> None:
    clock = Clock(cost=0.001)
    sent = send(messages(1, START), clock, count=count, rate=rate, monotonic=lambda: clock.now, sleep=clock.sleep)
    assert sent.count == sum(size for _, size in clock.taken) == count
    assert count / sent.seconds == pytest.approx(rate, rel=0.25)
    assert max(size for _, size in clock.taken) <= 10


def test_a_sender_that_fell_behind_does_not_burst_for_long() -> None:
    clock = Clock()
    seconds_lost = iter([20.0])

    def slow(bodies: list[bytes]) -> list[str]:
        ids = Clock.send(clock, bodies)
        clock.now += next(seconds_lost, 0.0)
        return ids

    clock.send = slow  # type: ignore[method-assign]
    send(messages(1, START), clock, count=3000, rate=100, monotonic=lambda: clock.now, sleep=clock.sleep)
    behind = [size for at, size in clock.taken if at == clock.taken[1][0]]
    assert sum(behind) <= 110


def test_it_stops_on_request() -> None:
    clock = Clock()
    sent = send(messages(1, START), clock, count=None, rate=None, stop=lambda: len(clock.taken) == 3)
    assert sent.count == 30


def test_sent_messages_are_reported_with_their_ids() -> None:
    sent: list[tuple[int, int]] = []
    send(
        messages(1, START), Clock(), count=15, rate=None, on_sent=lambda batch, ids: sent.append((len(batch), len(ids)))
    )
    assert sent == [(10, 10), (5, 5)]
