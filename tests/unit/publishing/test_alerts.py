"""Alerts: what they say, where they go, and that no address gets out."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from fixtures.processes import free_port

from finance_assets.publishing import alerts
from finance_assets.publishing.alerts import Alert, LogSink, WebhookSink, alert_sinks, send_alert
from finance_assets.settings import Settings

SECRET = "T0PSECRETpath"
ALERT = Alert(
    title="run 1a2b of market_sessions failed",
    severity="error",
    since=datetime(2012, 1, 31, 22, tzinfo=UTC),
    detail="raw__quotes: no provider answered",
    action="open /runs/1a2b in Dagster",
    key="run-failure:1a2b",
)


@dataclass
class Webhook:
    """A server that takes alerts, and answers as it is told."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    wait: threading.Event = field(default_factory=threading.Event)
    slow: bool = False
    received: list[tuple[str, dict[str, Any], dict[str, str]]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    state = Webhook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            state.received.append(
                (self.path, json.loads(body), {name.lower(): value for name, value in self.headers.items()})
            )
            if state.slow:
                state.wait.wait(10)
            self.send_response(state.status)
            for name, value in state.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *arguments: Any) -> None:
            """Keep the test output quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = False
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    state.url = f"http://127.0.0.1:{server.server_address[1]}/services/{SECRET}?token={SECRET}"
    yield state
    state.wait.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_the_text_says_what_since_when_why_and_what_to_do() -> None:
    assert ALERT.text() == (
        "[error] run 1a2b of market_sessions failed\n"
        "since 2012-01-31T22:00:00+00:00\n"
        "raw__quotes: no provider answered\n"
        "What to do: open /runs/1a2b in Dagster"
    )


@pytest.mark.parametrize(("severity", "level"), [("error", logging.ERROR), ("warning", logging.WARNING)])
def test_the_log_takes_alerts_at_their_level(severity: Any, level: int, caplog: pytest.LogCaptureFixture) -> None:
    alert = Alert(**{name: getattr(ALERT, name) for name in ALERT.__slots__} | {"severity": severity})
    LogSink().send(alert)
    ((name, found, text),) = caplog.record_tuples
    assert (name, found, text) == ("finance_assets.alerts", level, alert.text())


def test_a_webhook_takes_the_text_as_json(webhook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    WebhookSink(webhook.url).send(ALERT)
    ((path, body, headers),) = webhook.received
    assert path == f"/services/{SECRET}?token={SECRET}"
    assert body == {"text": ALERT.text()}
    assert headers["content-type"] == "application/json"
    assert headers["host"] == webhook.url.split("/")[2]
    # httpx writes the address of each request to its log, and it is a secret.
    assert SECRET not in caplog.text


@pytest.mark.parametrize("status", [302, 400, 403, 500])
def test_an_answer_that_is_no_success_is_a_failure(webhook: Webhook, status: int) -> None:
    webhook.status = status
    webhook.headers = {"location": "http://127.0.0.1:9/elsewhere"} if status == 302 else {}
    with pytest.raises(ConnectionError, match=f"answered {status}") as caught:
        WebhookSink(webhook.url).send(ALERT)
    assert_secret_is_not_in(caught.value)
    assert len(webhook.received) == 1


def test_a_slow_webhook_is_given_up(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "WEBHOOK_TIMEOUT_SECONDS", 0.2)
    webhook.slow = True
    with pytest.raises(ConnectionError, match="could not be reached: ReadTimeout") as caught:
        WebhookSink(webhook.url).send(ALERT)
    assert_secret_is_not_in(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:{{port}}/{SECRET}",
        f"http://127.0.0.1:{SECRET}/",
        f"{SECRET}",
        f"ftp://127.0.0.1/{SECRET}",
        f"http://[::{SECRET}/",
        "",
    ],
)
def test_an_address_that_cannot_be_reached_is_not_told(url: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(ConnectionError, match=r"could not be reached.*FINANCE_ASSETS_ALERT_WEBHOOK_URL") as caught:
        WebhookSink(url.format(port=free_port())).send(ALERT)
    assert_secret_is_not_in(caught.value)
    assert SECRET not in caplog.text


def assert_secret_is_not_in(error: BaseException) -> None:
    """Neither in the message nor in what the error came of."""
    import traceback

    assert error.__context__ is None
    assert error.__cause__ is None
    assert SECRET not in "".join(traceback.format_exception(error))


def test_one_place_that_fails_stops_no_other(webhook: Webhook, caplog: pytest.LogCaptureFixture) -> None:
    webhook.status = 500
    failures = send_alert(ALERT, [WebhookSink(webhook.url), LogSink()])
    assert len(failures) == 1
    assert failures[0].startswith("WebhookSink: the alert webhook answered 500")
    messages = [record.getMessage() for record in caplog.records]
    assert any("run-failure:1a2b was not delivered by WebhookSink" in message for message in messages)
    assert ALERT.text() in messages
    assert SECRET not in caplog.text
    assert send_alert(ALERT, [LogSink()]) == []


def test_the_sinks_are_those_of_the_settings(tmp_path: Path, webhook: Webhook) -> None:
    assert [type(sink) for sink in alert_sinks(Settings(home=tmp_path))] == [LogSink]
    settings = Settings(home=tmp_path, alert_webhook_url=webhook.url)
    sinks = alert_sinks(settings)
    assert [type(sink) for sink in sinks] == [LogSink, WebhookSink]
    assert SECRET not in repr(sinks) + repr(settings)
    assert send_alert(ALERT, sinks) == []
    assert len(webhook.received) == 1


def test_a_proxy_of_the_environment_is_used(webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    """The webhook's own address is nowhere; the proxy, our server, gets the request."""
    proxy = "/".join(webhook.url.split("/")[:3])
    for name in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(name, proxy)
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.setenv(name, "")
    WebhookSink("http://alerts.invalid/hook").send(ALERT)
    ((path, body, _),) = webhook.received
    assert path.endswith("/hook")
    assert body == {"text": ALERT.text()}
