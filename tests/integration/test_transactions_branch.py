"""The transactions branch in Dagster: a real queue to core tables, the sensor, and the queue of the demo."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.transactions import NOW, Delivery, transaction
from rich.console import Console

from finance_assets import demo
from finance_assets.advisory.resources import build_intake
from finance_assets.automation.unfinished import arrivals
from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CONTRACTS,
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.reference.sample_period import SAMPLE_NOW
from finance_assets.registry import build_definitions
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.transactions import local_queue
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.producing import messages
from finance_assets.transactions.queue import Queue
from finance_assets.transactions.resources import build_transaction_intake
from finance_assets.transactions.sensors import (
    INTERVAL_SECONDS,
    queued_transactions_sensor,
    transactions_job,
)


def waiting(settings: Settings) -> set[dg.AssetKey]:
    """The assets that do not hold yet what has arrived."""
    return set(arrivals(build_intake(settings), build_transaction_intake(settings)))


CORE = (CORE_TRANSACTIONS, DUPLICATE_TRANSACTIONS, TRANSACTION_CONFLICTS, REJECTED_TRANSACTIONS)


@dataclass
class Branch:
    """A deployment in a folder of its own."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return build_lake(self.settings)

    def job(self, name: str = transactions_job.name) -> dg.JobDefinition:
        return build_definitions(self.settings).resolve_job_def(name)

    def run(self, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return self.job().execute_in_process(instance=self.instance, raise_on_error=raise_on_error)

    def rows(self, contract: Contract) -> list[dict[str, Any]]:
        held: list[dict[str, Any]] = self.lake.read(contract).table.to_pylist()
        return held

    def tick(self) -> dg.RunRequest | dg.SkipReason:
        intake = build_definitions(self.settings).resources["transaction_intake"]
        answer = queued_transactions_sensor(
            dg.build_sensor_context(instance=self.instance, resources={"transaction_intake": intake})
        )
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Branch(Settings(home=tmp_path / "home"), instance)


def skipped(branch: Branch) -> str:
    answer = branch.tick()
    assert isinstance(answer, dg.SkipReason)
    return str(answer.skip_message)


# --- from the queue to the core tables ----------------------------------------------------------------------------


@pytest.mark.cloud
def test_what_waits_in_the_queue_is_drained_settled_and_gone(branch: Branch, sqs: LocalQueue) -> None:
    branch.settings = branch.settings.model_copy(
        update={"transactions_queue_url": sqs.queue_url, "transactions_micro_batch_messages": 64}
    )
    assert "no message waits" in skipped(branch)
    queue = Queue(sqs.queue_url, "us-east-1")
    produced = list(islice(messages(5, datetime.now(UTC) - timedelta(hours=1), bad_rate=0.3), 300))
    ids = queue.send(each.body for each in produced)
    request = branch.tick()
    assert isinstance(request, dg.RunRequest)
    assert request.run_key is None
    assert queue.depth().in_flight == 0, "a sensor that receives hides messages from its run"

    result = branch.run()

    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert queue.depth().total == 0
    assert "no message waits" in skipped(branch)
    raw = {row["message_id"]: row for row in branch.rows(RAW_TRANSACTIONS)}
    assert {name: row["body"] or row["body_base64"] for name, row in raw.items()}.keys() == set(ids)
    ended = {row["message_id"]: contract.name for contract in CORE for row in branch.rows(contract)}
    assert ended.keys() == set(ids)
    assert len(set(ended.values())) == len(CORE)
    made = {
        "/".join(event.asset_key.path): event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key is not None
    }
    assert made["raw/transactions"]["messages_received"].value == 300
    assert made["core/transactions"]["rows_added"].value == len(branch.rows(CORE_TRANSACTIONS))
    # Nothing new: nothing changes.
    before = {contract.name: branch.rows(contract) for contract in CONTRACTS[:6]}
    branch.run()
    assert {contract.name: branch.rows(contract) for contract in CONTRACTS[:6]} == before


@pytest.mark.cloud
def test_a_run_takes_no_more_than_its_bound(branch: Branch, sqs: LocalQueue) -> None:
    branch.settings = branch.settings.model_copy(
        update={
            "transactions_queue_url": sqs.queue_url,
            "transactions_drain_max_messages": 30,
            "transactions_micro_batch_messages": 20,
        }
    )
    queue = Queue(sqs.queue_url, "us-east-1")
    queue.send(transaction(str(number)) for number in range(50))
    branch.run()
    assert queue.depth().visible == 20
    assert len(branch.rows(CORE_TRANSACTIONS)) == 30
    branch.run()
    assert sorted(int(row["transaction_id"]) for row in branch.rows(CORE_TRANSACTIONS)) == list(range(50))


def test_without_a_queue_the_sensor_skips_and_the_run_says_what_to_set(branch: Branch) -> None:
    assert "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL" in skipped(branch)
    write_batch(branch.lake, [Delivery("m1", transaction("1"))], NOW)
    result = branch.run()
    [raw] = [
        event.materialization.metadata
        for event in result.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey(["raw", "transactions"])
    ]
    assert "FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL" in str(raw["queue"].value)
    # What another way in has written is settled all the same.
    assert [row["transaction_id"] for row in branch.rows(CORE_TRANSACTIONS)] == ["1"]


@pytest.mark.cloud
def test_the_demo_queues_its_payments_once(branch: Branch, sqs: LocalQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_queue, "run_local_queue", lambda _: nullcontext(sqs))
    monkeypatch.setattr(demo, "SAMPLE_TRANSACTIONS", 40)
    shown = Console(file=io.StringIO())
    queue = Queue(sqs.queue_url, "us-east-1")
    for _ in range(2):
        with demo.sample_queue(branch.settings, shown) as queued:
            assert queued.transactions_queue_url == sqs.queue_url
            assert queue.depth().visible == 40
    filled = replace(branch, settings=queued)
    assert dg.AssetKey(["raw", "transactions"]) in waiting(queued)
    filled.run()
    assert len(filled.rows(RAW_TRANSACTIONS)) == 40
    assert all(row["timestamp_utc"] < SAMPLE_NOW for row in filled.rows(CORE_TRANSACTIONS))
    assert waiting(queued).isdisjoint(dg.AssetKey(contract.asset_key) for contract in CONTRACTS)
    with demo.sample_queue(branch.settings, shown):
        assert queue.depth().total == 0, "a second demo changes nothing"


def test_the_demo_goes_on_without_a_queue_and_leaves_a_set_one_alone(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> Any:
        raise local_queue.LocalQueueError("there is no [uv] here")

    monkeypatch.setattr(local_queue, "run_local_queue", refused)
    shown = Console(file=io.StringIO(), width=200)
    with demo.sample_queue(branch.settings, shown) as queued:
        assert queued.transactions_queue_url is None
    assert "no transactions: there is no [uv] here" in shown.file.getvalue()  # type: ignore[attr-defined]
    own = branch.settings.model_copy(update={"transactions_queue_url": "http://127.0.0.1:9/own"})
    with demo.sample_queue(own, shown) as queued:
        assert queued is own


def test_what_is_not_settled_yet_waits(branch: Branch) -> None:
    order = dg.AssetKey(["core", "transaction_arrivals"])
    assert order not in waiting(branch.settings)
    write_batch(branch.lake, [Delivery("m1", transaction("1"))], NOW)
    assert order in waiting(branch.settings)
    branch.run()
    assert order not in waiting(branch.settings)


class Waiting:
    """A queue of which nothing but the depth can be asked."""

    url = "http://queue"

    def depth(self) -> Any:
        from finance_assets.transactions.queue import Depth

        return Depth(visible=7, in_flight=2, delayed=0)


def test_the_sensor_waits_for_a_run_and_longer_after_each_failure(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch.settings = branch.settings.model_copy(update={"transactions_queue_url": Waiting.url})
    monkeypatch.setattr("finance_assets.transactions.queue.Queue.depth", Waiting.depth)
    started = branch.tick()
    assert isinstance(started, dg.RunRequest)
    assert started.tags["finance_assets/queue_depth"] == "7"
    job = branch.job()
    run = branch.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    assert run.run_id[:8] in skipped(branch)
    branch.instance.report_run_failed(run)
    first = skipped(branch)
    assert "the last 1 runs failed" in first
    again = branch.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED)
    branch.instance.report_run_failed(again)
    assert "the last 2 runs failed" in skipped(branch)
    ended = branch.instance.get_run_records(limit=1)[0].end_time
    assert ended is not None
    monkeypatch.setattr("finance_assets.transactions.sensors.time.time", lambda: ended + 4 * INTERVAL_SECONDS - 1)
    assert "starts in 1 s" in skipped(branch)
    monkeypatch.setattr("finance_assets.transactions.sensors.time.time", lambda: ended + 4 * INTERVAL_SECONDS)
    assert isinstance(branch.tick(), dg.RunRequest)
