"""The commands on queues, against a real endpoint on loopback; and what Dagster is told."""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from finance_assets.cli.app import app
from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.storage.lake import Lake
from finance_assets.transactions import consuming, local_queue
from finance_assets.transactions.consuming import DagsterReporter
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.monitoring import Monitor, label
from finance_assets.transactions.queue import Depth, Queue

pytestmark = [pytest.mark.cloud]


@pytest.fixture
def queue(sqs: LocalQueue, monkeypatch: pytest.MonkeyPatch) -> Queue:
    for name, value in sqs.environment.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("FINANCE_ASSETS_NOW", "2026-03-02T09:30:00Z")
    return Queue(sqs.queue_url, "us-east-1")


def run(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, ["transactions", *arguments])
    assert done.exit_code == status, done.output
    return done.output


def bodies(queue: Queue) -> list[bytes]:
    found = []
    while batch := queue.receive():
        queue.delete(batch)
        found += [message.body for message in batch]
    return found


def test_what_is_produced_can_be_produced_again(queue: Queue) -> None:
    said = run("produce", "--count", "120", "--fast", "--bad-rate", "0.3", "--seed", "7")
    assert re.search(r"sent 120 messages, .* expected: \d+ accepted, \d+ conflict, \d+ duplicate, \d+ rejected", said)
    first = bodies(queue)
    assert len(first) == 120
    run("produce", "--count", "120", "--fast", "--bad-rate", "0.3", "--seed", "7")
    assert sorted(bodies(queue)) == sorted(first)


def test_the_rate_is_kept(queue: Queue) -> None:
    begun = time.monotonic()
    run("produce", "--count", "40", "--rate", "40", "--seed", "1")
    assert time.monotonic() - begun >= 0.85
    assert queue.depth().visible == 40


def test_what_is_produced_is_consumed(queue: Queue) -> None:
    run("produce", "--count", "150", "--fast", "--bad-rate", "0.2", "--seed", "3")
    logging.getLogger("finance_assets").setLevel(logging.WARNING)
    said = run(
        "consume", "--stop-when-idle", "1", "--wait-seconds", "0", "--no-dagster", "--metrics-port", "0", "--receivers", "2"
    )  # fmt: skip
    assert "150 received, 150 stored, 150 deleted, 0 left" in said
    lake = Lake(str(Path(os.environ["FINANCE_ASSETS_HOME"]) / "lake"))
    assert sum(lake.row_counts(RAW_TRANSACTIONS).values()) == 150


@pytest.mark.parametrize("answer", ["500", "503", "hang", "garbage", "{garbage}", "", "closed"])
def test_consume_does_not_take_a_sick_queue_for_an_empty_one(answer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consuming, "UNPROVED_SECONDS", 1.0)
    monkeypatch.setattr(consuming.Options, "__init__", partialmethod(consuming.Options.__init__, end_seconds=1.0))
    with sick_server(answer) as url:
        monkeypatch.setenv("FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL", f"{url}/000000000000/transactions")
        began = time.monotonic()
        said = run("consume", "--stop-when-idle", "0.5", "--wait-seconds", "0", "--no-dagster", status=1)
        assert time.monotonic() - began < 30
    assert "not known to be empty" in said or "receiving from" in said or "reading the attributes" in said
    assert "Traceback" not in said


@contextmanager
def sick_server(answer: str) -> Iterator[str]:
    """A server on loopback that answers wrongly, too late, or not at all."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if answer == "hang":
                ended.wait(60)
            if answer in ("hang", "closed"):
                self.close_connection = True
                return
            is_status = answer.isdigit()
            body = b"{}" if is_status else answer.encode()
            self.send_response(int(answer) if is_status else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *arguments: Any) -> None:
            """Keep the test output quiet."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        block_on_close = False

    server = Server(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


def test_dead_letters_are_listed_and_brought_back(queue: Queue, sqs: LocalQueue) -> None:
    assert "There are no dead letters." in run("dlq", "list")
    dead = Queue(sqs.dead_letters_url, "us-east-1")
    dead.send([b'{"transaction_id": "t"}', b"\x1b[31m[bold]red\xff"])
    said = run("dlq", "list", status=1)
    assert '{"transaction_id": "t"}' in said
    assert "\x1b[31m" not in said, "a body cannot colour the terminal"
    assert "[bold]red" in said, "nor is it markup"
    assert dead.depth() == Depth(2, 0, 0), "they are still there"
    assert "sent 1 messages back" in run("dlq", "replay", "--limit", "1")
    assert (dead.depth().total, queue.depth().visible) == (1, 1)
    run("dlq", "replay")
    assert (dead.depth().total, queue.depth().visible) == (0, 2)


def test_the_dead_letters_are_found_without_a_setting(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FINANCE_ASSETS_TRANSACTIONS_DLQ_URL")
    assert "There are no dead letters." in run("dlq", "list")


def test_a_queue_that_does_not_exist_is_reported_in_one_line(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL", f"{queue.url}-nowhere")
    for command in (["produce", "--count", "1"], ["consume", "--no-dagster"]):
        said = run(*command, status=1)
        assert "nothing by that name" in said
        assert "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL" in said


def test_a_command_runs_with_the_local_queue(aws: str, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    program = (
        "import os, sys; from finance_assets.transactions.queue import Queue; "
        "queue = Queue(os.environ['FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL'], 'us-east-1'); queue.send([b'x']); "
        f"open({str(seen)!r}, 'w').write(str(queue.depth().visible)); sys.exit(7)"
    )
    run("queue", "--", sys.executable, "-c", program, status=7)
    assert seen.read_text() == "1"


def test_a_command_runs_also_where_no_queue_can_be_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(local_queue, "find_uv", lambda: None)
    said = run("queue", "--", sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')")
    assert "make setup" in said
    assert (tmp_path / "ran").exists()
    run("queue", status=1)


def test_dagster_is_told_of_micro_batches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monitor = Monitor()
    with DagsterReporter(monitor, seconds=0.05):
        monitor.count("batches_total", 3)
        monitor.count("stored_total", 40, label("outcome", "accepted"))
        time.sleep(0.2)
    with dg.DagsterInstance.get() as instance:
        event = instance.get_latest_materialization_event(dg.AssetKey(["raw", "transactions"]))
        assert event is not None
        assert event.asset_materialization is not None
        told = {name: value.value for name, value in event.asset_materialization.metadata.items()}
    assert told["micro_batches_since_start"] == 3
    assert told["accepted_since_start"] == 40


def test_without_dagster_nothing_breaks(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setenv("DAGSTER_HOME", "/dev/null/nowhere")
    monitor = Monitor()
    monitor.count("batches_total")
    with DagsterReporter(monitor, seconds=0.02):
        time.sleep(0.2)
    told = [record for record in caplog.records if "Dagster is not told" in record.getMessage()]
    assert len(told) == 1, "once, not every few seconds"
