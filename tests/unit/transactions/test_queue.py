"""The queue client against answers that SQS gives; the real endpoint is in tests/integration."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError
from hypothesis import given
from hypothesis import strategies as st

from finance_assets.transactions import aws
from finance_assets.transactions.queue import (
    BATCH_BYTES,
    Depth,
    Queue,
    QueueError,
    carried_text,
    original_bytes,
)

URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/transactions"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


class Scripted:
    """Answers in order, and remembers what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.asked.append((operation, arguments))
            answer = self.answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def queue(*answers: Any) -> tuple[Queue, Scripted]:
    made = Queue(URL, "eu-west-1", clock=lambda: NOW, _pause=lambda seconds: None)
    scripted = Scripted(*answers)
    made.__dict__["client"] = scripted
    return made, scripted


def refused(code: str, status: int = 400) -> ClientError:
    return ClientError({"Error": {"Code": code, "Message": "m"}, "ResponseMetadata": {"HTTPStatusCode": status}}, "Op")


def test_depth_asks_for_attributes_only() -> None:
    made, scripted = queue(
        {
            "Attributes": {
                "ApproximateNumberOfMessages": "7",
                "ApproximateNumberOfMessagesNotVisible": "2",
                "ApproximateNumberOfMessagesDelayed": "1",
            }
        }
    )
    depth = made.depth()
    assert depth == Depth(7, 2, 1)
    assert depth.total == 10
    assert [operation for operation, _ in scripted.asked] == ["get_queue_attributes"]


def test_a_message_carries_its_times_and_count() -> None:
    attributes = {"SentTimestamp": "1767323040123", "ApproximateReceiveCount": "3"}
    made, _ = queue({"Messages": [{"MessageId": "m", "ReceiptHandle": "r", "Body": "é", "Attributes": attributes}]})
    [message] = made.receive()
    assert message.body == "é".encode()
    assert message.sent_at == datetime(2026, 1, 2, 3, 4, 0, 123000, tzinfo=UTC)
    assert (message.received_at, message.receive_count) == (NOW, 3)


def test_no_messages() -> None:
    assert queue({})[0].receive() == []


@given(st.binary(min_size=1, max_size=40))
def test_any_bytes_come_out_as_they_went_in(body: bytes) -> None:
    text, encoded = carried_text(body)
    assert text
    assert all(character in "\t\n\r" or character >= " " for character in text)
    assert original_bytes(text, "base64" if encoded else None) == body


def test_the_attribute_of_another_sender_is_not_believed_blindly() -> None:
    assert original_bytes("{}", "base64") == b"{}"
    assert original_bytes("e30=", "gzip") == b"e30="


def test_what_the_queue_did_not_take_is_sent_again_in_place() -> None:
    made, scripted = queue(
        {"Successful": [{"Id": "0", "MessageId": "a"}], "Failed": [{"Id": "1", "SenderFault": False}]},
        {"Successful": [{"Id": "1", "MessageId": "b"}]},
    )
    assert made.send([b"one", b"two"]) == ["a", "b"]
    assert [entry["MessageBody"] for entry in scripted.asked[1][1]["Entries"]] == ["two"]


def test_a_refused_body_is_not_sent_again() -> None:
    made, scripted = queue({"Failed": [{"Id": "0", "SenderFault": True, "Code": "Too", "Message": "big"}]})
    with pytest.raises(QueueError, match="3 bytes was refused: Too: big"):
        made.send([b"abc"])
    assert len(scripted.asked) == 1


def test_an_empty_body_is_refused() -> None:
    with pytest.raises(QueueError, match="empty"):
        queue()[0].send([b""])


def test_batches_hold_ten_and_no_more_bytes_than_sqs_takes() -> None:
    def taken(entries: int) -> dict[str, Any]:
        return {"Successful": [{"Id": str(place), "MessageId": "x"} for place in range(entries)]}

    made, scripted = queue(taken(10), taken(2))
    made.send([b"x"] * 12)
    assert [len(asked["Entries"]) for _, asked in scripted.asked] == [10, 2]
    large = b"x" * (BATCH_BYTES // 3)
    made, scripted = queue(taken(2), taken(1))
    made.send([large] * 3)
    assert [len(asked["Entries"]) for _, asked in scripted.asked] == [2, 1]


@pytest.mark.parametrize(
    ("error", "said", "is_passing"),
    [
        (refused("AWS.SimpleQueueService.NonExistentQueue"), "check FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL", False),
        (refused("QueueDoesNotExist"), "nothing by that name", False),
        (refused("AccessDenied", 403), "what their role allows", False),
        (refused("ExpiredToken", 403), "check the credentials", False),
        (refused("RequestThrottled"), "busy", True),
        (refused("", 503), "busy \\(503\\)", True),
        (refused("InvalidParameterValue"), "InvalidParameterValue: m", False),
        (NoCredentialsError(), "AWS_PROFILE", False),
        (EndpointConnectionError(endpoint_url="http://x"), "no answer", True),
    ],
)
def test_errors_say_what_to_do(error: Exception, said: str, is_passing: bool) -> None:
    made, _ = queue(error)
    with pytest.raises(QueueError, match=said) as raised:
        made.receive()
    assert URL in str(raised.value)
    assert raised.value.is_passing is is_passing


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        (URL, None),
        ("https://sqs.cn-north-1.amazonaws.com.cn/1/q", None),
        ("http://127.0.0.1:4566/000000000000/q", "http://127.0.0.1:4566"),
    ],
)
def test_an_address_elsewhere_is_its_own_endpoint(url: str, origin: str | None) -> None:
    assert aws.origin_of(url) == origin


def test_an_endpoint_on_this_machine_never_sees_real_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    seen: list[Any] = []
    client = Queue("http://127.0.0.1:1/000000000000/q", "us-east-1").client
    client.meta.events.register("before-send", lambda request, **_: seen.append(request.headers))
    with pytest.raises(EndpointConnectionError):
        client.list_queues()
    client.close()
    assert seen
    assert all("Authorization" not in headers for headers in seen)


def test_a_queue_that_is_not_there_says_so() -> None:
    made = Queue("http://127.0.0.1:1/000000000000/q", "us-east-1")
    with pytest.raises(QueueError, match="no answer") as raised:
        made.depth()
    assert raised.value.is_passing
    made.client.close()
