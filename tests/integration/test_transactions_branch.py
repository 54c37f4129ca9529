"""The transactions branch in Dagster: a real queue to core tables, and core tables to marts, against plain Python."""

from __future__ import annotations

import io
import random
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import islice
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.transactions import NOW, Delivery, transaction
from rich.console import Console

from finance_assets import running
from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CONTRACTS,
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    MART_TRANSACTION_ANOMALIES,
    MART_TRANSACTION_CONTROL,
    MART_TRANSACTION_VOLUME,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.registry import build_definitions, lake_of, warehouse_of
from finance_assets.settings import SAMPLE_NOW, Settings
from finance_assets.storage.lake import Lake
from finance_assets.transactions import local_queue
from finance_assets.transactions.batches import write_batch
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.producing import messages
from finance_assets.transactions.queue import Queue
from finance_assets.transactions.sensors import (
    INTERVAL_SECONDS,
    queued_transactions_sensor,
    transactions_job,
)

CORE = (CORE_TRANSACTIONS, DUPLICATE_TRANSACTIONS, TRANSACTION_CONFLICTS, REJECTED_TRANSACTIONS)


@dataclass
class Branch:
    """A deployment in a folder of its own."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return lake_of(self.settings)

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
@pytest.mark.xdist_group("cloud")
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
@pytest.mark.xdist_group("cloud")
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
@pytest.mark.xdist_group("cloud")
def test_the_demo_queues_its_payments_once(branch: Branch, sqs: LocalQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_queue, "running", lambda _: nullcontext(sqs))
    monkeypatch.setattr(running, "SAMPLE_TRANSACTIONS", 40)
    shown = Console(file=io.StringIO())
    queue = Queue(sqs.queue_url, "us-east-1")
    for _ in range(2):
        with running.queued_sample(branch.settings, shown) as queued:
            assert queued.transactions_queue_url == sqs.queue_url
            assert queue.depth().visible == 40
    demo = replace(branch, settings=queued)
    assert dg.AssetKey(["raw", "transactions"]) in running._waiting(queued)
    demo.run()
    assert len(demo.rows(RAW_TRANSACTIONS)) == 40
    assert all(row["timestamp_utc"] < SAMPLE_NOW for row in demo.rows(CORE_TRANSACTIONS))
    assert running._waiting(queued).isdisjoint(dg.AssetKey(contract.asset_key) for contract in CONTRACTS)
    with running.queued_sample(branch.settings, shown):
        assert queue.depth().total == 0, "a second demo changes nothing"


def test_the_demo_goes_on_without_a_queue_and_leaves_a_set_one_alone(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(_: Path) -> Any:
        raise local_queue.LocalQueueError("there is no [uv] here")

    monkeypatch.setattr(local_queue, "running", refused)
    shown = Console(file=io.StringIO(), width=200)
    with running.queued_sample(branch.settings, shown) as queued:
        assert queued.transactions_queue_url is None
    assert "no transactions: there is no [uv] here" in shown.file.getvalue()  # type: ignore[attr-defined]
    own = branch.settings.model_copy(update={"transactions_queue_url": "http://127.0.0.1:9/own"})
    with running.queued_sample(own, shown) as queued:
        assert queued is own


def test_what_is_not_settled_yet_waits(branch: Branch) -> None:
    arrivals = dg.AssetKey(["core", "transaction_arrivals"])
    assert arrivals not in running._waiting(branch.settings)
    write_batch(branch.lake, [Delivery("m1", transaction("1"))], NOW)
    assert arrivals in running._waiting(branch.settings)
    branch.run()
    assert arrivals not in running._waiting(branch.settings)


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


# --- from the core tables to the marts ----------------------------------------------------------------------------

FIRST_DAY = date(2025, 1, 1)
DAYS = 24
SPIKE = datetime(2025, 1, 23, 14, tzinfo=UTC)


def month() -> list[Delivery]:
    """Three and a half weeks of payments: dollars with a daily rhythm and one spike, euros at noon alone, one yen."""
    source = random.Random(42)
    deliveries: list[Delivery] = []

    def add(at: datetime, amount: str, currency: str, merchant: str) -> None:
        number = len(deliveries)
        body = transaction(f"t{number}", amount, currency=currency, merchant=merchant, timestamp=at.isoformat())
        received = at + timedelta(seconds=30)
        deliveries.append(Delivery(f"m{number}", body, received, received))

    for day in range(DAYS):
        for hour in (3, 9, 14, 20):
            start = datetime(2025, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)
            count = {3: 1, 9: 4, 14: 6, 20: 3}[hour] + (source.randrange(3) if hour != 3 else 0)
            for _ in range(count * (9 if start == SPIKE else 1)):
                amount = str(Decimal(source.randrange(1, 200_000)) / 100)
                add(
                    start + timedelta(seconds=source.randrange(3600)),
                    amount,
                    "USD",
                    source.choice(["Café", "a\u0000b", "x"]),
                )
        for _ in range(2):
            add(datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(days=day), "0.000000000000000001", "EUR", "thin")
    add(datetime(2025, 1, 10, 5, tzinfo=UTC), "999999999999999.999999999999999999", "JPY", "all")
    add(datetime(2025, 1, 10, 5, 30, tzinfo=UTC), "999999999999999.999999999999999999", "JPY", "all")
    # What is no plain first message: on days of its own, so that each part of the control total is seen.
    last = deliveries[-1].received_at + timedelta(days=3)
    for place, one in enumerate(deliveries[:40]):
        body = one.body if place % 2 else one.body.replace(b'"user_id": "u-1"', b'"user_id": "u-2"')
        deliveries.append(Delivery(f"again{place}", body, last, last + timedelta(hours=place)))
    deliveries += [Delivery(f"bad{place}", b"{", last, last + timedelta(hours=place)) for place in range(30)]
    return deliveries


@pytest.fixture(scope="module")
def month_of_payments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branch]:
    """The marts over a month of payments, built once by Dagster and dbt."""
    with dg.DagsterInstance.ephemeral() as instance:
        branch = Branch(Settings(home=tmp_path_factory.mktemp("month")), instance)
        deliveries = month()
        for start in range(0, len(deliveries), 150):
            write_batch(branch.lake, deliveries[start : start + 150], datetime(2025, 3, 1, tzinfo=UTC))
        # The queue delivers some again, in another micro-batch and on another day.
        again = [
            replace(one, received_at=one.received_at + timedelta(days=2), receive_count=2) for one in deliveries[::17]
        ]
        write_batch(branch.lake, again, datetime(2025, 3, 1, tzinfo=UTC))
        definitions = build_definitions(branch.settings)
        made = dg.materialize(
            [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)],
            selection=dg.AssetSelection.groups("transactions"),
            resources=definitions.resources,
            instance=instance,
        )
        assert made.success
        assert all(check.passed for check in made.get_asset_check_evaluations())
        yield branch


def mart(branch: Branch, contract: Contract) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = warehouse_of(branch.settings).read(contract).to_pylist()
    return rows


@pytest.fixture(scope="module")
def exact() -> Iterator[None]:
    """Sums of decimals that are not rounded to Python's 28 digits."""
    with localcontext() as context:
        context.prec = 60
        yield


slow = [
    pytest.mark.slow,
    pytest.mark.xdist_group("dbt"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


def marked(function: Any) -> Any:
    for mark in slow:
        function = mark(function)
    return function


@marked
def test_volume_and_value_are_exact_per_currency(month_of_payments: Branch, exact: None) -> None:
    expected: dict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    for row in month_of_payments.rows(CORE_TRANSACTIONS):
        hour = row["timestamp_utc"].replace(minute=0, second=0, microsecond=0)
        expected[row["currency"], hour, row["transaction_category"], row["merchant"]].append(row["amount"])
    found = mart(month_of_payments, MART_TRANSACTION_VOLUME)
    assert len(found) == len(expected) > 100
    for row in found:
        amounts = expected[row["currency"], row["hour_ts_utc"], row["transaction_category"], row["merchant"]]
        assert (row["transaction_count"], row["total_amount"]) == (len(amounts), sum(amounts))
        assert (row["smallest_amount"], row["largest_amount"]) == (min(amounts), max(amounts))
    yen = [row for row in found if row["currency"] == "JPY"]
    assert [row["total_amount"] for row in yen] == [Decimal("1999999999999999.999999999999999998")]


@marked
def test_the_control_total_ties_day_by_day(month_of_payments: Branch, exact: None) -> None:
    parts = {
        "accepted": CORE_TRANSACTIONS, "duplicate": DUPLICATE_TRANSACTIONS, "conflict": TRANSACTION_CONFLICTS,
        "rejected": REJECTED_TRANSACTIONS,
    }  # fmt: skip
    counts: Counter[tuple[Any, ...]] = Counter()
    amounts: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for part, contract in parts.items():
        for row in month_of_payments.rows(contract):
            place = (row["received_ts_utc"].date(), row.get("currency") or "XXX")
            counts[*place, part] += 1
            amounts[*place, part] += row.get("amount") or Decimal(0)
    found = mart(month_of_payments, MART_TRANSACTION_CONTROL)
    for row in found:
        place = (row["received_date"], row["currency"])
        assert row["ties"]
        assert [row[f"{part}_count"] for part in parts] == [counts[*place, part] for part in parts]
        assert [row[f"{part}_amount"] for part in list(parts)[:3]] == [
            amounts[*place, part] for part in list(parts)[:3]
        ]
        assert row["received_count"] == sum(counts[*place, part] for part in parts)
        assert row["received_amount"] == sum(amounts[*place, part] for part in parts)
    assert sum(row["received_count"] for row in found) == len(month())
    assert sum(row["rejected_count"] for row in found) == 30
    assert sum(row["conflict_count"] for row in found) == sum(row["duplicate_count"] for row in found) == 20
    assert {(*place,) for *place, _ in counts} == {(row["received_date"], row["currency"]) for row in found}


@marked
def test_a_message_that_is_lost_between_raw_and_core_breaks_the_control_total(
    month_of_payments: Branch, tmp_path: Path
) -> None:
    """The flag is seen to be false: a part is taken away behind the pipeline's back, and the mart is built again."""
    import shutil

    from finance_assets.storage.lake import parquet_bytes

    home = tmp_path / "home"
    shutil.copytree(month_of_payments.settings.home_dir, home)
    hurt = Branch(Settings(home=home), month_of_payments.instance)
    [path] = hurt.lake.list(hurt.lake.folder(CORE_TRANSACTIONS))
    table = hurt.lake.read(CORE_TRANSACTIONS).table
    hurt.lake.put(path, parquet_bytes(table.slice(1)))
    definitions = build_definitions(hurt.settings)
    made = dg.materialize(
        [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)],
        selection=dg.AssetSelection.keys(
            "intermediate/int_transaction_outcomes",
            "intermediate/int_received_transactions",
            "mart/mart_transaction_control",
        ),
        resources=definitions.resources,
        instance=hurt.instance,
        raise_on_error=False,
    )
    failed = [check for check in made.get_asset_check_evaluations() if not check.passed]
    assert [(check.check_name, check.severity) for check in failed] == [
        ("mart_transaction_control__rules", dg.AssetCheckSeverity.ERROR)
    ]
    lost = table.slice(0, 1).to_pylist()[0]
    [broken] = [row for row in mart(hurt, MART_TRANSACTION_CONTROL) if not row["ties"]]
    assert (broken["received_date"], broken["currency"]) == (lost["received_ts_utc"].date(), lost["currency"])
    assert broken["received_amount"] - broken["accepted_amount"] == lost["amount"]


@marked
def test_anomalies_are_those_of_a_robust_score_by_hand(month_of_payments: Branch) -> None:
    hourly: dict[tuple[str, datetime], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in month_of_payments.rows(CORE_TRANSACTIONS):
        held = hourly[row["currency"], row["timestamp_utc"].replace(minute=0, second=0, microsecond=0)]
        held[0] += 1
        held[1] += float(row["amount"])
    last = max(hour for _, hour in hourly)
    first = {currency: min(hour for code, hour in hourly if code == currency) for currency, _ in hourly}
    found = {(row["currency"], row["hour_ts_utc"]): row for row in mart(month_of_payments, MART_TRANSACTION_ANOMALIES)}
    assert found.keys() == {
        (currency, start + timedelta(hours=place))
        for currency, start in first.items()
        for place in range(int((last - start).total_seconds() // 3600) + 1)
    }
    seen: Counter[str] = Counter()
    for (currency, hour), row in found.items():
        for measure, index in (("count", 0), ("value", 1)):
            status, score = row[f"{measure}_score_status"], row[f"{measure}_score"]
            seen[status] += 1
            if hour - timedelta(days=20) < first[currency]:
                assert (status, score, row[f"is_{measure}_anomaly"]) == ("insufficient_history", None, None)
                continue
            before = [hourly.get((currency, hour - timedelta(days=day)), [0.0, 0.0])[index] for day in range(1, 21)]
            middle = statistics.median(before)
            spread = statistics.median(abs(value - middle) for value in before)
            if spread == 0:
                assert (status, score, row[f"is_{measure}_anomaly"]) == ("zero_variance", None, None)
                continue
            here = hourly.get((currency, hour), [0.0, 0.0])[index]
            assert status == "ok"
            assert score == pytest.approx(0.67449 * (here - middle) / spread, rel=1e-9)
            assert row[f"is_{measure}_anomaly"] == (score > 3.5)
    assert set(seen) == {"ok", "insufficient_history", "zero_variance"}
    spike = found["USD", SPIKE]
    assert (spike["is_count_anomaly"], spike["is_value_anomaly"]) == (True, True)
    assert sum(row["is_count_anomaly"] or False for row in found.values()) <= 3
