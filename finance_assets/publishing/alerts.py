"""Alerts: what happened, since when, what to do; through one small interface.

What belongs here: the shape of an alert and the places it can go. Who raises one, and when, is decided elsewhere.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Protocol

from finance_assets.settings import Settings

log = logging.getLogger("finance_assets.alerts")

Severity = Literal["warning", "error"]
WEBHOOK_TIMEOUT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Alert:
    """Something a person should know.

    Attributes
    ----------
    title
        What happened, in one line.
    severity
        ``error`` where a number is wrong or missing, ``warning`` where somebody should look.
    since
        When it began, UTC.
    detail
        The message of the failure, or the numbers.
    action
        What to do about it.
    key
        What makes two alerts the same, so that one failure is told once.
    """

    title: str
    severity: Severity
    since: datetime
    detail: str
    action: str
    key: str

    def text(self) -> str:
        """Return the alert as plain text."""
        return (
            f"[{self.severity}] {self.title}\nsince {self.since.isoformat()}\n{self.detail}\nWhat to do: {self.action}"
        )


class AlertSink(Protocol):
    """A place that alerts go to."""

    def send(self, alert: Alert) -> None:
        """Deliver the alert, or raise."""


class LogSink:
    """Writes alerts to the log."""

    def send(self, alert: Alert) -> None:
        """Write the alert."""
        log.log(logging.ERROR if alert.severity == "error" else logging.WARNING, alert.text())


class WebhookSink:
    """Posts alerts as JSON with a ``text`` field, the shape that Slack and its like take.

    Parameters
    ----------
    url
        Address; it holds a secret and is never logged.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def __repr__(self) -> str:
        """Name the class alone: the address is a secret."""
        return "WebhookSink()"

    def send(self, alert: Alert) -> None:
        """Post the alert; an answer other than 2xx raises without naming the address."""
        import httpx

        address = self._url

        class Wire(httpx.HTTPTransport):
            """Puts the address in at the last moment, below everything of httpx that logs or raises."""

            def handle_request(self, request: httpx.Request) -> httpx.Response:
                url = httpx.URL(address)
                headers = {**request.headers, "host": url.netloc.decode("ascii")}
                return super().handle_request(
                    httpx.Request(
                        request.method, url, headers=headers, stream=request.stream, extensions=request.extensions
                    )
                )

        failure = ""
        try:
            wire = Wire(proxy=_system_proxy(address))
            with httpx.Client(transport=wire, timeout=WEBHOOK_TIMEOUT_SECONDS) as client:
                answer = client.post("https://alert-webhook", json={"text": alert.text()})
            if not answer.is_success:
                failure = f"answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            failure = f"could not be reached: {type(error).__name__}"
        # Raised outside the handler: what httpx raises knows the address, and stays out of the chain.
        if failure:
            raise ConnectionError(f"the alert webhook {failure}; its address is FINANCE_ASSETS_ALERT_WEBHOOK_URL")


def _system_proxy(address: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(address)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def alert_sinks(settings: Settings) -> list[AlertSink]:
    """Return the sinks of a deployment: the log always, the webhook where one is set."""
    sinks: list[AlertSink] = [LogSink()]
    url = settings.secret("alert_webhook_url")
    if url:
        sinks.append(WebhookSink(url))
    return sinks


def send_alert(alert: Alert, sinks: Sequence[AlertSink]) -> list[str]:
    """Send an alert everywhere; one place that fails stops no other. Return what failed."""
    failures = []
    for sink in sinks:
        try:
            sink.send(alert)
        except Exception as error:
            log.error("alert %s was not delivered by %s: %s", alert.key, type(sink).__name__, error)
            failures.append(f"{type(sink).__name__}: {error}")
    return failures
