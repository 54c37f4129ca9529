"""The queue client against a real SQS endpoint on loopback, and that endpoint as the platform runs it."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from finance_assets.transactions import local_queue
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.queue import Depth, Queue, QueueError, redrive

pytestmark = [pytest.mark.cloud]


def test_messages_go_through_byte_for_byte(sqs: LocalQueue) -> None:
    queue = Queue(sqs.queue_url, "us-east-1")
    bodies = [
        b'{"a": 1}',
        '{"m": "\u20ac \U0001f600 \u202e"}'.encode(),
        b"\xff\x00",
        b"\x01",
        b"\xef\xbb\xbf{}",
        b" " * 300_000,
    ]
    sent = queue.send(bodies)
    assert queue.depth() == Depth(len(bodies), 0, 0)
    received = {m.message_id: m for _ in range(4) for m in queue.receive(wait_seconds=0)}
    assert [received[one].body for one in sent] == bodies
    assert queue.depth() == Depth(0, len(bodies), 0)
    assert {m.receive_count for m in received.values()} == {1}
    assert all(abs((m.received_at - m.sent_at).total_seconds()) < 30 for m in received.values())
    assert queue.delete(list(received.values())) == []
    assert queue.depth().total == 0


def test_what_is_handed_back_comes_again_at_once(sqs: LocalQueue) -> None:
    queue = Queue(sqs.queue_url, "us-east-1")
    queue.send([b"one"])
    [first] = queue.receive()
    assert queue.receive() == []
    assert queue.release([first]) == []
    [second] = queue.receive()
    assert (second.message_id, second.receive_count) == (first.message_id, 2)
    assert queue.delete([first, second]) == [first], "the first delivery's receipt is no longer valid"


def test_peeking_leaves_everything_there(sqs: LocalQueue) -> None:
    queue = Queue(sqs.queue_url, "us-east-1")
    queue.send([b"%d" % n for n in range(25)])
    assert len(queue.peek(12)) == 12
    assert queue.depth() == Depth(25, 0, 0)


def test_dead_letters_come_back(aws: str) -> None:
    made = local_queue.create_queue(aws, queue="poisoned", table="poisoned", max_receive_count=2)
    queue, dead = Queue(made.queue_url, "us-east-1"), Queue(made.dead_letters_url, "us-east-1")
    queue.send([b"%d" % n for n in range(13)])
    deadline = time.monotonic() + 10
    while dead.depth().visible < 13:  # handed back again and again, as by a consumer that breaks on them
        assert time.monotonic() < deadline
        queue.release(queue.receive())
    assert queue.depth().total == 0
    assert dead.depth() == Depth(13, 0, 0)
    assert redrive(dead, queue, limit=3) == 3
    assert (dead.depth().visible, queue.depth().visible) == (10, 3)
    assert redrive(dead, queue) == 10
    assert dead.depth().total == 0
    bodies = sorted(int(m.body) for _ in range(2) for m in queue.receive())
    assert bodies == list(range(13))


def test_a_queue_that_does_not_exist_is_named(aws: str) -> None:
    queue = Queue(f"{aws}/000000000000/nobody", "us-east-1")
    with pytest.raises(QueueError, match="nobody: there is nothing by that name") as raised:
        queue.receive()
    assert not raised.value.is_passing


def test_the_local_queue_keeps_its_messages_over_a_restart(aws: str, tmp_path: Path) -> None:
    folder = tmp_path / "queue"
    assert local_queue.find_local_queue(folder) is None
    with local_queue.run_local_queue(folder) as first:
        Queue(first.queue_url, "us-east-1").send([b"kept"])
        with local_queue.run_local_queue(folder) as again:
            assert again == first, "one that runs is used"
        assert local_queue.find_local_queue(folder) == first, "and left running"
        assert set(first.environment) == {
            f"FINANCE_ASSETS_TRANSACTIONS_{name}" for name in ("QUEUE_URL", "DLQ_URL", "TABLE")
        }
    assert local_queue.find_local_queue(folder) is None
    with local_queue.run_local_queue(folder) as second:
        assert [m.body for m in Queue(second.queue_url, "us-east-1").receive()] == [b"kept"]
    with pytest.raises(ProcessLookupError):
        os.killpg(second.pid, 0)


def test_without_uv_the_message_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_queue, "find_uv", lambda: None)
    with pytest.raises(local_queue.LocalQueueError, match="make setup"), local_queue.run_local_queue(tmp_path):
        pass


def test_a_registry_out_of_reach_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake = tmp_path / "uv"
    fake.write_text("#!/bin/sh\necho 'no route to the index' >&2\nexit 2\n")
    fake.chmod(0o755)
    monkeypatch.setattr(local_queue, "find_uv", lambda: fake)
    with (
        pytest.raises(local_queue.LocalQueueError, match="no route to the index"),
        local_queue.run_local_queue(tmp_path),
    ):
        pass


def test_a_taken_port_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import socket

    monkeypatch.setattr(local_queue, "install_ministack", lambda folder: ["false"])
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        (tmp_path / local_queue.PORT_FILE).write_text(str(taken.getsockname()[1]))
        with pytest.raises(local_queue.LocalQueueError, match="in use"), local_queue.run_local_queue(tmp_path):
            pass
