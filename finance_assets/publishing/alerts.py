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
from finance_assets.text import safe_logger, safe_message

log = safe_logger("finance_assets.alerts", keep_newlines=True)

Severity = Literal["warning", "error"]
WEBHOOK_TIMEOUT_SECONDS = 10.0
SMTP_TIMEOUT_SECONDS = 15.0
SNS_SUBJECT = 99


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
        """Return the alert as plain text; no line of the detail can pass for one of ours."""
        detail = safe_message(self.detail, keep_newlines=True).replace("\n", "\n  ")
        return (
            f"[{self.severity}] {safe_message(self.title)}\nsince {self.since.isoformat()}\n{detail}\n"
            f"What to do: {safe_message(self.action)}"
        )


class AlertSink(Protocol):
    """A place that alerts go to; the name of its class tells the ledger which."""

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


class EmailSink:
    """Sends alerts by SMTP.

    Parameters
    ----------
    host, port, security
        The server; ``starttls`` and ``tls`` check its certificate.
    sender, recipients
        Addresses.
    user, password
        Credentials, where the server wants any; the password is never logged.
    """

    def __init__(
        self,
        host: str,
        port: int,
        sender: str,
        recipients: Sequence[str],
        *,
        security: Literal["starttls", "tls", "none"] = "starttls",
        user: str | None = None,
        password: str | None = None,
    ) -> None:
        self._place = (host, port)
        self._sender = sender
        self._recipients = tuple(recipients)
        self._security = security
        self._user = user
        self._password = password

    def __repr__(self) -> str:
        """Name the server, not the credentials."""
        return f"EmailSink({self._place[0]}:{self._place[1]})"

    def send(self, alert: Alert) -> None:
        """Send one message; raises where the server refuses any recipient."""
        import hashlib
        import smtplib
        import ssl
        from email.message import EmailMessage

        message = EmailMessage()
        # A header is one line, whatever a title holds.
        message["Subject"] = safe_message(" ".join(f"[{alert.severity}] {alert.title}".split()))
        message["From"] = self._sender
        message["To"] = ", ".join(self._recipients)
        # The same alert has the same id, so that a mail program shows a repetition as one.
        digest = hashlib.sha256(f"{alert.key} {alert.since.isoformat()}".encode()).hexdigest()[:32]
        message["Message-ID"] = f"<{digest}@finance-assets>"
        message.set_content(alert.text())
        failure = ""
        try:
            context = ssl.create_default_context() if self._security != "none" else None
            server: smtplib.SMTP
            if self._security == "tls":
                server = smtplib.SMTP_SSL(*self._place, timeout=SMTP_TIMEOUT_SECONDS, context=context)
            else:
                server = smtplib.SMTP(*self._place, timeout=SMTP_TIMEOUT_SECONDS)
            with server:
                if self._security == "starttls":
                    server.starttls(context=context)
                if self._user is not None:
                    server.login(self._user, self._password or "")
                refused = server.send_message(message)
            if refused:
                failure = f"refused {', '.join(sorted(refused))}"
        except smtplib.SMTPResponseException as error:
            failure = f"answered {error.smtp_code}"
        except smtplib.SMTPRecipientsRefused as error:
            failure = f"refused {', '.join(sorted(error.recipients))}"
        except (smtplib.SMTPException, OSError) as error:
            failure = f"could not be used: {type(error).__name__}"
        # Raised outside the handler: what smtplib raises may repeat the credentials.
        if failure:
            host, port = self._place
            raise ConnectionError(f"the mail server {host}:{port} {failure}; see FINANCE_ASSETS_ALERT_SMTP_HOST")


class SnsSink:
    """Publishes alerts to a topic of AWS SNS.

    Parameters
    ----------
    topic
        Its ARN.
    region
        Its region.
    """

    def __init__(self, topic: str, region: str) -> None:
        self._topic = topic
        self._region = region

    def send(self, alert: Alert) -> None:
        """Publish the alert: the title as subject, the text as message, the severity as an attribute."""
        import boto3

        client = boto3.client("sns", region_name=self._region)
        try:
            # SNS takes subjects of up to 100 ASCII characters on one line.
            subject = (
                safe_message(" ".join(f"[{alert.severity}] {alert.title}".split())).encode("ascii", "replace").decode()
            )
            client.publish(
                TopicArn=self._topic,
                Subject=subject[:SNS_SUBJECT],
                Message=alert.text(),
                MessageAttributes={
                    "severity": {"DataType": "String", "StringValue": alert.severity},
                    "key": {"DataType": "String", "StringValue": alert.key},
                },
            )
        finally:
            client.close()


def _system_proxy(address: str) -> str | None:
    """Return the proxy that the environment names for an address."""
    from urllib.parse import urlsplit
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(address)
    return None if proxy_bypass(parts.hostname or "") else getproxies().get(parts.scheme)


def alert_sinks(settings: Settings) -> list[AlertSink]:
    """Return the sinks of a deployment: the log always; webhook, e-mail and SNS where they are set."""
    sinks: list[AlertSink] = [LogSink()]
    url = settings.secret("alert_webhook_url")
    if url:
        sinks.append(WebhookSink(url))
    if settings.alert_smtp_host is not None and settings.alert_email_from is not None:
        sinks.append(
            EmailSink(
                settings.alert_smtp_host,
                settings.alert_smtp_port,
                settings.alert_email_from,
                settings.alert_email_to,
                security=settings.alert_smtp_security,
                user=settings.alert_smtp_user,
                password=settings.secret("alert_smtp_password"),
            )
        )
    if settings.alert_sns_topic is not None:
        sinks.append(SnsSink(settings.alert_sns_topic, settings.aws_region))
    return sinks


class AlertLedger(Protocol):
    """Remembers which alert was delivered where."""

    def was_alerted(self, key: str, sink: str) -> bool:
        """Tell whether it was."""

    def record_alert(self, key: str, sink: str) -> None:
        """Say that it was."""


def send_alert(alert: Alert, sinks: Sequence[AlertSink], ledger: AlertLedger | None = None) -> list[str]:
    """Send an alert everywhere; one place that fails stops no other. Return what failed.

    With a ledger each place is told once: what was delivered is written down after the delivery, and a place that
    failed is tried again the next time the alert is raised.
    """
    failures = []
    for sink in sinks:
        place = type(sink).__name__
        if ledger is not None and ledger.was_alerted(alert.key, place):
            continue
        try:
            sink.send(alert)
            if ledger is not None:
                ledger.record_alert(alert.key, place)
        except Exception as error:
            log.error(
                "alert %s was not delivered by %s: %s",
                safe_message(alert.key),
                type(sink).__name__,
                safe_message(error),
            )
            failures.append(safe_message(f"{type(sink).__name__}: {error}"))
    return failures
