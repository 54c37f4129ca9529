"""Micro-batches and what becomes of their messages: once, in one order, and the same when it is done again."""

from __future__ import annotations

import random
from collections import Counter
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fixtures.transactions import NOW, Delivery, delivery, transaction
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    RESOLUTIONS,
    TRANSACTION_ARRIVALS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.contracts.validation import violations
from finance_assets.storage.lake import Lake, LakeError
from finance_assets.transactions import settlement
from finance_assets.transactions.batches import batch_key, original_body, write_batch
from finance_assets.transactions.resolution import resolve
from finance_assets.transactions.settlement import TABLES, settle, unsettled_batches

CORE = (TRANSACTION_ARRIVALS, *TABLES.values())


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


def files(lake: Lake, *contracts: Any) -> dict[str, bytes]:
    """Every file of some tables with its bytes."""
    return {path: lake.get(path) for contract in contracts or CORE for path in lake.list(lake.folder(contract))}


def ids(lake: Lake, contract: Any) -> set[str]:
    return set(lake.read(contract).table["message_id"].to_pylist())


# --- which message stands -----------------------------------------------------------------------------------------

messages = st.lists(
    st.tuples(st.sampled_from(["accepted", "accepted", "rejected"]), st.sampled_from("abcd"), st.sampled_from("xy")),
    max_size=30,
)


@given(messages, st.dictionaries(st.sampled_from("abcz"), st.sampled_from("xy")))
@settings(max_examples=150, deadline=None)
def test_the_first_stands_as_a_loop_would_say(
    given_messages: list[tuple[str, str, str]], known: dict[str, str]
) -> None:
    standing = dict(known)
    expected = []
    for outcome, transaction_id, fingerprint in given_messages:
        if outcome == "rejected":
            expected.append(("rejected", None))
            continue
        if transaction_id not in standing:
            standing[transaction_id] = fingerprint
            expected.append(("accepted", fingerprint))
        else:
            same = standing[transaction_id] == fingerprint
            expected.append(("duplicate" if same else "conflict", standing[transaction_id]))
    table = pa.table(
        {
            "outcome": pa.array([outcome for outcome, _, _ in given_messages], pa.string()),
            "transaction_id": pa.array([one for _, one, _ in given_messages], pa.string()),
            "fingerprint": pa.array(
                [None if outcome == "rejected" else mark for outcome, _, mark in given_messages], pa.string()
            ),
        }
    )
    found = resolve(table, known)
    assert (
        list(zip(found["resolution"].to_pylist(), found["standing_fingerprint"].to_pylist(), strict=True)) == expected
    )
    assert set(found["resolution"].to_pylist()) <= set(RESOLUTIONS)


# --- micro-batches ------------------------------------------------------------------------------------------------


def test_a_micro_batch_keeps_every_byte_and_its_name_is_its_messages(lake: Lake) -> None:
    bodies = [
        transaction("1", "250.00"),
        b"\xff\x00",
        b"",
        "{\u0000}".encode(),
        transaction("2", merchant="a\u0000b 🏪"),
    ]
    received = [delivery(f"m{place}", body, second=place) for place, body in enumerate(bodies)]
    written = write_batch(lake, received, NOW)
    assert written.key == batch_key(f"m{place}" for place in reversed(range(5)))
    rows = lake.read(RAW_TRANSACTIONS, keys=[written.key]).table
    assert rows.equals(written.table)
    assert violations(RAW_TRANSACTIONS, rows) == []
    assert [original_body(row["body"], row["body_base64"]) for row in rows.to_pylist()] == bodies
    assert rows["reason"].to_pylist() == [None, "bad_encoding", "empty_body", "malformed_json", None]
    assert rows["amount_decimals"].to_pylist() == [2, None, None, None, 2]
    assert written.accepted["transaction_id"].to_pylist() == ["1", "2"]


def test_a_micro_batch_that_is_there_is_left_as_it_is(lake: Lake) -> None:
    received = [delivery("a", transaction("1")), delivery("b", b"x")]
    first = write_batch(lake, received, NOW)
    before = files(lake, RAW_TRANSACTIONS)
    again = [Delivery(one.message_id, one.body, one.sent_at, one.received_at, 2) for one in reversed(received)]
    second = write_batch(lake, [*again, again[0]], NOW + timedelta(days=1))
    assert (first.was_there, second.was_there) == (False, True)
    assert second.key == first.key
    assert second.table.equals(first.table)
    assert files(lake, RAW_TRANSACTIONS) == before


def test_a_message_that_is_twice_in_a_micro_batch_is_written_once(lake: Lake) -> None:
    written = write_batch(lake, [delivery("a", transaction("1")), delivery("a", transaction("1"), second=5)], NOW)
    assert written.table["received_ts_utc"].to_pylist() == [NOW]
    with pytest.raises(ValueError, match="at least one"):
        write_batch(lake, [], NOW)


# --- settling -----------------------------------------------------------------------------------------------------


def test_each_message_ends_in_one_table(lake: Lake) -> None:
    write_batch(lake, [delivery("m1", transaction("t")), delivery("m2", transaction("t", "157.890"), second=1)], NOW)
    write_batch(
        lake,
        [
            delivery("m3", transaction("t", "2.00"), second=10),
            delivery("m4", transaction("r", "0"), second=11),
            # The rejected message did not reserve its id.
            delivery("m5", transaction("r", "5"), second=12),
            delivery("m6", transaction("r", "6"), second=13),
        ],
        NOW,
    )
    done = settle(lake)
    assert done.messages == {"accepted": 2, "duplicate": 1, "conflict": 2, "rejected": 1}
    assert (ids(lake, CORE_TRANSACTIONS), ids(lake, DUPLICATE_TRANSACTIONS)) == ({"m1", "m5"}, {"m2"})
    assert (ids(lake, TRANSACTION_CONFLICTS), ids(lake, REJECTED_TRANSACTIONS)) == ({"m3", "m6"}, {"m4"})
    standing = {row["transaction_id"]: row["fingerprint"] for row in lake.read(CORE_TRANSACTIONS).table.to_pylist()}
    for row in lake.read(TRANSACTION_CONFLICTS).table.to_pylist():
        assert row["standing_fingerprint"] == standing[row["transaction_id"]] != row["fingerprint"]
    rejected = lake.read(REJECTED_TRANSACTIONS).table.to_pylist()[0]
    assert (rejected["reason"], rejected["body"]) == ("amount_zero", transaction("r", "0").decode())
    for contract in CORE:
        assert violations(contract, lake.read(contract).table) == []


def test_what_stands_stands_though_an_earlier_message_comes_later(lake: Lake) -> None:
    write_batch(lake, [delivery("late", transaction("t", "1"), second=100)], NOW)
    settle(lake)
    write_batch(lake, [delivery("early", transaction("t", "2"), second=1)], NOW)
    settle(lake)
    assert (ids(lake, CORE_TRANSACTIONS), ids(lake, TRANSACTION_CONFLICTS)) == ({"late"}, {"early"})


def test_within_a_settlement_the_order_is_of_receipt_and_in_a_batch_of_sending(lake: Lake) -> None:
    write_batch(lake, [delivery("b2", transaction("t", "3"), second=50)], NOW)
    write_batch(
        lake,
        [
            delivery("b1", transaction("t", "2"), second=20, sent=9),
            delivery("c1", transaction("t", "1"), second=20, sent=8),
        ],
        NOW,
    )
    settle(lake)
    assert ids(lake, CORE_TRANSACTIONS) == {"c1"}
    assert lake.read(TRANSACTION_ARRIVALS).table["message_count"].to_pylist() == [2, 1]


def test_a_message_that_is_delivered_again_counts_once(lake: Lake) -> None:
    one, two, bad = (
        delivery("m1", transaction("1")),
        delivery("m2", transaction("2"), second=1),
        delivery("m3", b"?", second=2),
    )
    write_batch(lake, [one, bad], NOW)
    settle(lake)
    write_batch(lake, [one, two], NOW)
    write_batch(lake, [one, two, bad], NOW)
    done = settle(lake)
    assert done.redelivered == 4
    assert done.messages == {"accepted": 1, "duplicate": 0, "conflict": 0, "rejected": 0}
    assert (ids(lake, CORE_TRANSACTIONS), ids(lake, REJECTED_TRANSACTIONS)) == ({"m1", "m2"}, {"m3"})


def test_a_settlement_of_rejected_messages_alone(lake: Lake) -> None:
    write_batch(lake, [delivery("m1", transaction("1"))], NOW)
    settle(lake)
    write_batch(lake, [delivery("m2", b"{"), delivery("m3", transaction("1", "0"))], NOW)
    assert settle(lake).messages == {"accepted": 0, "duplicate": 0, "conflict": 0, "rejected": 2}
    assert lake.read(CORE_TRANSACTIONS, keys=[settlement.sequence_key(2)]).table.num_rows == 0


def test_settling_without_anything_new_changes_nothing(lake: Lake) -> None:
    assert settle(lake).sequences == []
    assert files(lake) == {}
    write_batch(lake, [delivery("m1", transaction("1"))], NOW)
    assert len(unsettled_batches(lake)) == 1
    settle(lake)
    before = files(lake)
    assert unsettled_batches(lake) == []
    assert settle(lake).sequences == []
    assert files(lake) == before


def flood(seed: int, count: int) -> list[list[Delivery]]:
    """Micro-batches of messages with duplicates, conflicts, poison and redeliveries, in the order of receipt."""
    source = random.Random(seed)
    received: list[Delivery] = []
    batches = []
    for number in range(count):
        batch = []
        for place in range(source.randrange(1, 8)):
            chance = source.random()
            second = number + place / 100
            if chance < 0.15 and received:
                earlier = source.choice(received)
                batch.append(
                    Delivery(earlier.message_id, earlier.body, earlier.sent_at, NOW + timedelta(seconds=second), 2)
                )
                continue
            transaction_id = str(source.randrange(40))
            body = b"{" if chance < 0.25 else transaction(transaction_id, source.choice(["1", "1.0", "2"]))
            batch.append(delivery(f"m{number}-{place}", body, second=second))
        received += batch
        batches.append(batch)
    return batches


@pytest.mark.parametrize("seed", range(3))
def test_however_it_is_cut_every_message_is_counted_once_and_one_stands_per_id(lake: Lake, seed: int) -> None:
    source = random.Random(seed)
    sent: dict[str, bytes] = {}
    for batch in flood(seed, 30):
        write_batch(lake, batch, NOW)
        sent |= {one.message_id: one.body for one in batch}
        if source.random() < 0.3:
            settle(lake)
    settle(lake)
    ended = Counter(one for contract in TABLES.values() for one in lake.read(contract).table["message_id"].to_pylist())
    assert ended == Counter(dict.fromkeys(sent, 1))
    standing = lake.read(CORE_TRANSACTIONS).table["transaction_id"].to_pylist()
    assert len(standing) == len(set(standing)) > 0
    assert all(lake.read(contract).table.num_rows for contract in TABLES.values())


def test_all_of_it_can_be_made_again_from_raw_and_the_order(lake: Lake) -> None:
    for number, batch in enumerate(flood(11, 24)):
        write_batch(lake, batch, NOW)
        if number % 5 == 0:
            settle(lake)
    settle(lake)
    before = files(lake)
    for contract in TABLES.values():
        for path in lake.list(lake.folder(contract)):
            Path(path).unlink()
    assert len(settle(lake).sequences) == 6
    assert files(lake) == before
    # One settlement in the middle alone, too: what came after it does not count as known.
    Path(lake.file(CORE_TRANSACTIONS, settlement.sequence_key(3))).unlink()
    assert settle(lake).sequences == [3]
    assert files(lake) == before


def test_a_settlement_that_dies_is_done_again_wherever_it_died(
    lake: Lake, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calm = Lake(str(tmp_path / "calm"))
    for batch in flood(5, 12):
        for each in (lake, calm):
            write_batch(each, batch, NOW)
    settle(calm)
    put = Lake.put
    budget = 0
    for budget in range(20):
        writes = 0

        def dying(self: Lake, path: str, data: bytes, budget: int = budget) -> None:
            nonlocal writes
            writes += 1
            if writes > budget:
                raise OSError(28, "No space left on device", path)
            put(self, path, data)

        with monkeypatch.context() as patch:
            patch.setattr(Lake, "put", dying)
            try:
                settle(lake)
                break
            except OSError:
                continue
    assert budget >= 3
    settle(lake)
    names = {path.removeprefix(lake.root): data for path, data in files(lake).items()}
    assert names == {path.removeprefix(calm.root): data for path, data in files(calm).items()}


def test_a_settlement_is_cut_where_memory_would_be_short(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(settlement, "MAX_MESSAGES", 5)
    for number, size in enumerate([3, 2, 1, 9, 4]):
        write_batch(
            lake,
            [delivery(f"m{number}-{place}", transaction(f"{number}-{place}"), second=number) for place in range(size)],
            NOW,
        )
    assert settle(lake).sequences == [1, 2, 3, 4]
    arrivals = lake.read(TRANSACTION_ARRIVALS).table
    assert list(zip(arrivals["sequence"].to_pylist(), arrivals["message_count"].to_pylist(), strict=True)) == [
        (1, 3), (1, 2), (2, 1), (3, 9), (4, 4),
    ]  # fmt: skip
    assert lake.read(CORE_TRANSACTIONS).table.num_rows == 19


def test_a_micro_batch_that_is_gone_is_an_error_that_names_it(lake: Lake) -> None:
    key = write_batch(lake, [delivery("m1", transaction("1"))], NOW).key
    settle(lake)
    Path(lake.file(RAW_TRANSACTIONS, key)).unlink()
    Path(lake.file(CORE_TRANSACTIONS, settlement.sequence_key(1))).unlink()
    with pytest.raises(LakeError, match=key):
        settle(lake)
