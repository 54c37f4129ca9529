"""Endpoints that are slow, endless, broken or lying: each call ends in time and in little memory, and works again after."""

from __future__ import annotations

import time
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from fixtures.faults import SCALE, Account, healing
from fixtures.faulty_server import (
    HTTP_BROKEN,
    HTTP_FLOODS,
    HTTP_HANGS,
    SMTP_FAULTS,
    allocates_less_than,
    answers,
    closes,
    ends_within,
    mail_server,
    serve,
)

from finance_assets.providers.aws_clients import make_limited_client
from finance_assets.providers.errors import ProviderError
from finance_assets.providers.http import HttpClient, RetryPolicy, Timeouts
from finance_assets.publishing.alerts import Alert, EmailSink, WebhookSink, send_alert

pytestmark = pytest.mark.timeout(180 * SCALE)

SECONDS = 0.5
SHORT = Timeouts(connect=SECONDS, read=SECONDS, total=SECONDS, call=SECONDS)
CAP = 1_000_000
MEMORY = 16_000_000
HTTP = (*HTTP_HANGS, *HTTP_FLOODS, *HTTP_BROKEN)
#: Connections of one mail: greeting, names, addresses, message.
PLACES = ("greeting", "ehlo", "mail", "data")


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Import what is imported at first use, which takes longer than the deadlines here."""
    from finance_assets.providers.http import certificates

    certificates()
    make_limited_client("sqs", region="us-east-1", endpoint="http://127.0.0.1:1", seconds=1.0).close()
    with serve(answers(b"ok")) as server:
        _get(server.url)


def _get(url: str) -> bytes:
    with HttpClient(
        "vendor",
        url,
        clock=lambda: datetime(2024, 1, 5, tzinfo=UTC),
        timeouts=SHORT,
        retry=RetryPolicy(attempts=2, first_wait=0.05, jitter=0.0),
        max_bytes=CAP,
    ) as client:
        return bytes(client.get("/query", {}, symbol="IBM", check=lambda response: response).body)


def test_providers(account: Account) -> None:
    with account.of("endpoints: providers of quotes and series") as injected:
        for fault in HTTP * SCALE:
            with serve(fault) as server:
                with allocates_less_than(MEMORY), ends_within(SECONDS), pytest.raises(ProviderError):
                    _get(server.url)
                injected.faults += 1
                server.fault = answers(b"ok")
                with healing(injected):
                    assert _get(server.url) == b"ok"
                injected.survived += 1


def test_webhooks(account: Account) -> None:
    class Other:
        """A place beside the faulty one."""

        def __init__(self) -> None:
            self.taken: list[str] = []

        def send(self, alert: Alert) -> None:
            self.taken.append(alert.key)

    alert = Alert("quotes are overdue", "error", datetime(2013, 3, 1, tzinfo=UTC), "none came", "look", "key")
    with account.of("endpoints: webhooks of alerts") as injected:
        for fault in HTTP * SCALE:
            other = Other()
            with serve(fault) as server:
                sink = WebhookSink(f"{server.url}/secret", seconds=SECONDS)
                with allocates_less_than(MEMORY), ends_within(SECONDS, slack=2.0):
                    failures = send_alert(alert, [sink, other])
                injected.faults += 1
                assert other.taken == ["key"], "places do not wait for each other"
                assert "secret" not in str(failures)
                server.fault = answers(b"ok")
                with healing(injected):
                    assert send_alert(alert, [sink, other]) == []
                injected.survived += 1


def test_mail_servers(account: Account) -> None:
    alert = Alert("quotes are overdue", "error", datetime(2013, 3, 1, tzinfo=UTC), "none came", "look", "key")
    with account.of("endpoints: mail servers") as injected:
        for place in PLACES:
            for fault in SMTP_FAULTS[: 3 if SCALE == 1 else None]:
                with serve(mail_server(place, fault)) as server:
                    sink = EmailSink(
                        "127.0.0.1", server.port, "p@example.org", ("a@example.org",), seconds=SECONDS, security="none"
                    )
                    with allocates_less_than(MEMORY), ends_within(SECONDS, slack=2.0):
                        assert len(send_alert(alert, [sink])) == 1
                    injected.faults += 1
                    server.fault = mail_server("quit", closes)
                    with healing(injected):
                        assert send_alert(alert, [sink]) == []
                    injected.survived += 1


def test_aws_services(account: Account, monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import BotoCoreError, ClientError

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with account.of("endpoints: AWS") as injected:
        for fault in (HTTP * SCALE)[:: 2 if SCALE == 1 else 1]:
            with serve(fault) as server:
                client, healthy = (
                    make_limited_client(
                        "sqs", region="us-east-1", endpoint=server.url, seconds=SECONDS, attempts=1, max_bytes=CAP
                    )
                    for _ in range(2)
                )
                begun = time.monotonic()
                with allocates_less_than(MEMORY), ends_within(SECONDS), suppress(BotoCoreError, ClientError):
                    answer = client.receive_message(QueueUrl=f"{server.url}/q")
                    raise AssertionError(f"a fault was read as an answer: {answer}, {time.monotonic() - begun}")
                injected.faults += 1
                server.fault = answers(b"{}")
                with healing(injected):
                    assert healthy.receive_message(QueueUrl=f"{server.url}/q").get("Messages", []) == []
                client.close()
                healthy.close()
                injected.survived += 1
