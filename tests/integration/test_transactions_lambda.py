"""The Lambda way in: built, deployed from its template, and driven through its event source."""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
import time
import uuid
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from fixtures.aws import client, lake_at

from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.transactions.queue import Queue

pytestmark = [pytest.mark.cloud]

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "lambda"


def body(transaction_id: str, amount: str, **more: Any) -> bytes:
    fields = {"user_id": "u1", "currency": "EUR", "timestamp": "2026-01-15T10:30:00Z", "merchant": "Café", **more}
    text = json.dumps({"transaction_id": transaction_id, **fields}, ensure_ascii=False)
    return f'{text[:-1]}, "amount": {amount}}}'.encode()


@pytest.fixture(scope="module")
def build() -> ModuleType:
    spec = importlib.util.spec_from_file_location("lambda_build", FOLDER / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stack(aws: str, bucket: str, tmp_path: Path, build: ModuleType) -> Iterator[dict[str, str]]:
    """The stack of deploy/lambda; its libraries come from this environment, which is what the layer holds."""
    archive = build.build_function(tmp_path)
    name = f"transactions-{uuid.uuid4().hex[:8]}"
    parameters = {
        "CodeBucket": bucket,
        "LayerKey": "",
        "LakeBucket": bucket,
        "LakePrefix": "some/prefix",
        "TableName": name,
        "QueueName": name,
        "MaxReceiveCount": "1000",
        "Architecture": "x86_64",
        "S3Endpoint": aws,
    }
    with client("s3", aws) as s3, client("cloudformation", aws) as formation, client("lambda", aws) as functions:
        s3.upload_file(str(archive), bucket, archive.name)
        formation.create_stack(
            StackName=name,
            TemplateBody=(FOLDER / "template.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()],
        )
        formation.get_waiter("stack_create_complete").wait(StackName=name, WaiterConfig={"Delay": 1})
        [made] = formation.describe_stacks(StackName=name)["Stacks"]
        outputs = {entry["OutputKey"]: entry["OutputValue"] for entry in made["Outputs"]}
        function = outputs["FunctionName"]
        variables = functions.get_function_configuration(FunctionName=function)["Environment"]["Variables"]
        site = next(path for path in sys.path if path.endswith("site-packages"))
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": {**variables, "PYTHONPATH": site}}
        )
        yield {**outputs, "bucket": bucket, "endpoint": aws, "stack": name}
        formation.delete_stack(StackName=name)


def until(ready: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline, what
        time.sleep(0.1)


def test_messages_go_through_the_event_source(stack: dict[str, str]) -> None:
    endpoint = stack["endpoint"]
    queue = Queue(stack["QueueUrl"].replace("localhost", "127.0.0.1"), "us-east-1")
    with client("lambda", endpoint) as functions:
        [source] = functions.list_event_source_mappings(FunctionName=stack["FunctionName"])["EventSourceMappings"]
        assert source["BatchSize"] == 10
        assert source["MaximumBatchingWindowInSeconds"] == 5
        assert source["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    queue.send(
        [
            body("a", "250.00", terminal={"id": 7}),
            body("a", "250"),
            body("a", "251"),
            body("b", "1000.000000000000000001"),
            b"\xff\xfe",
            b"[]",
            *(body(f"c{n}", "9.99") for n in range(4)),
        ]
    )
    until(lambda: queue.depth().total == 0, "the function takes everything")
    lake = lake_at(stack["bucket"], endpoint)
    rows = lake.read(RAW_TRANSACTIONS).table.to_pylist()
    outcomes = {row["message_id"]: row["outcome"] for row in rows}
    assert sorted(outcomes.values()) == ["accepted"] * 8 + ["rejected"] * 2
    assert {row["reason"] for row in rows} == {None, "bad_encoding", "not_an_object"}
    items = items_of(stack)
    assert set(items) == {"a", "b", *(f"c{n}" for n in range(4))}
    assert items["b"]["amount"] == Decimal("1000.000000000000000001"), "exact, never through a float"
    assert items["b"]["transaction_category"] == "high_value"
    # "a" was sent three times at once; which of the contents came first is the queue's choice.
    assert items["a"]["amount"] in (Decimal(250), Decimal(251))


def test_what_fails_comes_again_and_nothing_is_lost(stack: dict[str, str]) -> None:
    endpoint, table = stack["endpoint"], stack["TableName"]
    queue = Queue(stack["QueueUrl"].replace("localhost", "127.0.0.1"), "us-east-1")
    with client("dynamodb", endpoint) as dynamodb, client("sqs", endpoint) as sqs:
        # What failed comes again after three minutes; a test has no three minutes.
        sqs.set_queue_attributes(QueueUrl=stack["QueueUrl"], Attributes={"VisibilityTimeout": "4"})
        kept = dynamodb.describe_table(TableName=table)["Table"]
        dynamodb.delete_table(TableName=table)
        queue.send([body("x", "1"), body("y", "2"), b"nonsense"])
        lake = lake_at(stack["bucket"], endpoint)
        # Durable, though the table is not there; the records are reported as failed, and stay.
        until(lambda: lake.read(RAW_TRANSACTIONS).table.num_rows >= 3, "the micro-batch is written")
        assert queue.depth().total == 3
        dynamodb.create_table(
            TableName=table,
            KeySchema=kept["KeySchema"],
            AttributeDefinitions=kept["AttributeDefinitions"],
            BillingMode="PAY_PER_REQUEST",
        )
    until(lambda: queue.depth().total == 0, "the records are delivered again")
    assert {key: item["amount"] for key, item in items_of(stack).items()} == {"x": 1, "y": 2}


def items_of(stack: dict[str, str]) -> dict[str, dict[str, Any]]:
    import boto3

    table = boto3.resource("dynamodb", region_name="us-east-1", endpoint_url=stack["endpoint"]).Table(
        stack["TableName"]
    )
    return {item["transaction_id"]: item for item in table.scan()["Items"]}


# -- the package ---------------------------------------------------------------------------------------------


def test_the_package_is_small_and_the_same_every_time(build: ModuleType, tmp_path: Path) -> None:
    first, second = build.build_function(tmp_path / "a"), build.build_function(tmp_path / "b")
    assert first.read_bytes() == second.read_bytes()
    names = zipfile.ZipFile(io.BytesIO(first.read_bytes())).namelist()
    assert "finance_assets/transactions/lambda_handler.py" in names
    assert not [name for name in names if "settings" in name or "registry" in name or "assets.py" in name]
    assert first.stat().st_size < 250_000


def test_the_package_imports_alone_and_brings_no_dagster(build: ModuleType, tmp_path: Path) -> None:
    import subprocess

    zipfile.ZipFile(build.build_function(tmp_path)).extractall(tmp_path / "code")
    site = next(path for path in sys.path if path.endswith("site-packages"))
    program = (
        "import sys; from finance_assets.transactions import lambda_handler as h; "
        "assert h.__file__.startswith(sys.argv[1]), h.__file__; from finance_assets.transactions import consuming; "
        "consuming.lake_store(__import__('finance_assets.storage.lake').storage.lake.Lake(sys.argv[1] + '/lake')); "
        "print([name for name in ('dagster', 'pydantic_settings', 'duckdb', 'sqlalchemy') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "code")],
        env={**os.environ, "PYTHONPATH": f"{tmp_path / 'code'}{os.pathsep}{site}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.stdout.strip(), done.stderr) == ("[]", "")


# -- the handler's own decisions -----------------------------------------------------------------------------


def test_one_record_that_breaks_processing_fails_alone() -> None:
    from finance_assets.transactions.consuming import Stored
    from finance_assets.transactions.lambda_handler import message_of, process

    now = datetime(2026, 1, 15, 11, tzinfo=UTC)
    records = [
        {"messageId": f"m{n}", "receiptHandle": "r", "body": "{}", "attributes": {"SentTimestamp": "1768473000000"}}
        for n in range(10)
    ]
    messages = [message_of(record, now) for record in records]
    assert messages[0].sent_at == datetime(2026, 1, 15, 10, 30, tzinfo=UTC)

    def store(batch: Any, at: datetime) -> Stored:
        if "m3" in {message.message_id for message in batch}:
            raise ZeroDivisionError("a fault of ours")
        return Stored("key", 0, {message.message_id: "amount_missing" for message in batch}, list)

    class Nothing:
        def put(self, items: Any) -> list[Any]:
            return []

    told = process(messages, store, Nothing(), now)
    assert isinstance(told.pop("m3"), ZeroDivisionError)
    assert set(told.values()) == {"rejected (amount_missing)"}
    assert len(told) == 9


def test_a_function_without_its_variables_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    from finance_assets.transactions.lambda_handler import ConfigurationError, build_sinks

    build_sinks.cache_clear()
    with pytest.raises(ConfigurationError, match="FINANCE_ASSETS_LAKE_URI"):
        build_sinks()
    monkeypatch.setenv("FINANCE_ASSETS_LAKE_URI", "s3://bucket/prefix")
    with pytest.raises(ConfigurationError, match="FINANCE_ASSETS_TRANSACTIONS_TABLE"):
        build_sinks()
