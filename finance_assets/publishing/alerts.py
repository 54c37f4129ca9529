"""Alerts: what happened, since when, what to do; through one small interface.

What belongs here: the shape of an alert and the places it can go. Who raises one, and when, is decided elsewhere.

Each place has a deadline for one alert, and no place waits for another: a server that hangs delays neither the others
nor, for longer than that, whoever raised the alert.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Literal, Protocol

from finance_assets.settings import Settings
from finance_assets.text import safe_logger, safe_message

if TYPE_CHECKING:
    import smtplib
    import ssl

log = safe_logger("finance_assets.alerts", keep_newlines=True)

Severity = Literal["warning", "error"]
#: Time of one alert at one place, where the settings say nothing else.
WEBHOOK_TIMEOUT_SECONDS = 10.0
SMTP_TIMEOUT_SECONDS = 10.0
SNS_TIMEOUT_SECONDS = 10.0
#: Time of an alert at a place that has no deadline of its own, and what is allowed beyond a deadline.
PLACE_TIMEOUT_SECONDS = 10.0
GRACE_SECONDS = 1.0
#: After so long no further alert is begun in one call; Dagster cuts the tick of a sensor after 60 s.
SENDING_SECONDS = 20.0
#: A mail server says a few lines to one message, SNS a few hundred bytes.
SMTP_MAX_BYTES = 256 * 1024
SNS_MAX_BYTES = 1024 * 1024
#: How long a mail server that has taken the message is waited for to say good-bye.
SMTP_QUIT_SECONDS = 2.0
#: How long this machine's name is looked for before a mail server is greeted with its address.
OWN_NAME_SECONDS = 1.0
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
    """A place that alerts go to; the name of its class tells the ledger which.

    One that talks to a server has an attribute ``seconds``: the time of one alert there.
    """

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
    seconds
        Time of one alert, from the look-up of the name to the status of the answer.
    """

    def __init__(self, url: str, *, seconds: float | None = None) -> None:
        self._url = url
        self.seconds = WEBHOOK_TIMEOUT_SECONDS if seconds is None else seconds

    def __repr__(self) -> str:
        """Name the class alone: the address is a secret."""
        return "WebhookSink()"

    def send(self, alert: Alert) -> None:
        """Post the alert; an answer other than 2xx raises without naming the address.

        The status says whether the alert was taken. What else the server answers is not read.
        """
        import httpx

        from finance_assets.providers.http import certificates, system_proxy
        from finance_assets.providers.outbound import limit_transport, limited

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

        failure, limits = "", None
        try:
            wire = limit_transport(Wire(verify=certificates(), proxy=system_proxy(address)))
            with (
                httpx.Client(transport=wire, timeout=self.seconds) as client,
                limited(self.seconds) as limits,
                client.stream("POST", "https://alert-webhook", json={"text": alert.text()}) as answer,
            ):
                if not answer.is_success:
                    failure = f"answered {answer.status_code}"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
            failure = f"could not be reached: {type(error).__name__}"
            if limits is not None and limits.is_over:
                failure += f", {limits.reason()}"
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
    seconds
        Time of one alert, from the look-up of the name until the server has taken the message.
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
        seconds: float | None = None,
    ) -> None:
        self._place = (host, port)
        self._sender = sender
        self._recipients = tuple(recipients)
        self._security = security
        self._user = user
        self._password = password
        self.seconds = SMTP_TIMEOUT_SECONDS if seconds is None else seconds

    def __repr__(self) -> str:
        """Name the server, not the credentials."""
        return f"EmailSink({self._place[0]}:{self._place[1]})"

    def send(self, alert: Alert) -> None:
        """Send one message; raises where the server refuses any recipient."""
        import hashlib
        import smtplib
        import ssl
        from email.message import EmailMessage

        from finance_assets.providers.outbound import limit_tls, limited

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
        with limited(self.seconds, max_bytes=SMTP_MAX_BYTES) as limits:
            try:
                context = limit_tls(ssl.create_default_context()) if self._security != "none" else None
                server = _smtp(*self._place, self.seconds, context if self._security == "tls" else None)
                try:
                    server.connect(*self._place)
                    if self._security == "starttls":
                        server.starttls(context=context)
                    if self._user is not None:
                        server.login(self._user, self._password or "")
                    refused = server.send_message(message)
                    _say_goodbye(server)
                finally:
                    server.close()
                if refused:
                    failure = f"refused {', '.join(sorted(refused))}"
            except smtplib.SMTPResponseException as error:
                failure = f"answered {error.smtp_code}"
            except smtplib.SMTPRecipientsRefused as error:
                failure = f"refused {', '.join(sorted(error.recipients))}"
            except (smtplib.SMTPException, OSError) as error:
                failure = f"could not be used: {type(error).__name__}"
                if limits.reason():
                    failure += f", {limits.reason()}"
        # Raised outside the handler: what smtplib raises may repeat the credentials.
        if failure:
            host, port = self._place
            raise ConnectionError(f"the mail server {host}:{port} {failure}; see FINANCE_ASSETS_ALERT_SMTP_HOST")


def _smtp(host: str, port: int, seconds: float, context: ssl.SSLContext | None) -> smtplib.SMTP:
    """Return an SMTP client, not yet connected, whose sockets keep to the limits; with a context it speaks TLS."""
    import smtplib
    import socket

    from finance_assets.providers.outbound import call_within, open_connection

    class Client(smtplib.SMTP):
        def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
            connection = open_connection(host, port, timeout)
            if context is None:
                return connection
            try:
                return context.wrap_socket(connection, server_hostname=host)
            except BaseException:
                connection.close()
                raise

    try:
        # smtplib would look the name up itself, for as long as it takes.
        name = call_within(socket.getfqdn, OWN_NAME_SECONDS, "the look-up of this machine's name")
    except OSError:
        name = ""
    client = Client(local_hostname=name if "." in name else "[127.0.0.1]", timeout=seconds)
    # The name that a certificate is checked for; smtplib sets it only where it connects by itself.
    client._host = host  # type: ignore[attr-defined]
    return client


def _say_goodbye(server: smtplib.SMTP) -> None:
    """End the session. The message has been taken, so whatever becomes of this is no failure."""
    import smtplib

    from finance_assets.providers.outbound import limited

    try:
        with limited(SMTP_QUIT_SECONDS):
            server.quit()
    except (smtplib.SMTPException, OSError) as error:
        log.debug("the mail server took the message and did not say good-bye: %s", type(error).__name__)


class SnsSink:
    """Publishes alerts to a topic of AWS SNS.

    Parameters
    ----------
    topic
        Its ARN.
    region
        Its region.
    seconds
        Time of one alert, with credentials, repetitions and the waits between them.
    """

    def __init__(self, topic: str, region: str, *, seconds: float | None = None) -> None:
        self._topic = topic
        self._region = region
        self.seconds = SNS_TIMEOUT_SECONDS if seconds is None else seconds

    def send(self, alert: Alert) -> None:
        """Publish the alert: the title as subject, the text as message, the severity as an attribute."""
        from finance_assets.providers.outbound import OutboundTimeout, call_within, limited

        # In a thread, since what finds the credentials is botocore's own and keeps to no deadline.
        try:
            with limited(self.seconds):
                call_within(lambda: self._publish(alert), None, f"publishing to {self._topic}")
        except OutboundTimeout as error:
            raise ConnectionError(f"{error}; see FINANCE_ASSETS_ALERT_SNS_TOPIC") from None

    def _publish(self, alert: Alert) -> None:
        from finance_assets.providers.aws_clients import make_limited_client

        client = make_limited_client("sns", region=self._region, seconds=self.seconds, max_bytes=SNS_MAX_BYTES)
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


def alert_sinks(settings: Settings) -> list[AlertSink]:
    """Return the sinks of a deployment: the log always; webhook, e-mail and SNS where they are set."""
    sinks: list[AlertSink] = [LogSink()]
    url = settings.secret("alert_webhook_url")
    if url:
        sinks.append(WebhookSink(url, seconds=settings.alert_timeout_seconds))
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
                seconds=settings.alert_timeout_seconds,
            )
        )
    if settings.alert_sns_topic is not None:
        sinks.append(SnsSink(settings.alert_sns_topic, settings.aws_region, seconds=settings.alert_timeout_seconds))
    return sinks


class AlertLedger(Protocol):
    """Remembers which alert was delivered where."""

    def was_alerted(self, key: str, sink: str) -> bool:
        """Tell whether it was."""

    def record_alert(self, key: str, sink: str) -> None:
        """Say that it was."""


def send_alert(alert: Alert, sinks: Sequence[AlertSink], ledger: AlertLedger | None = None) -> list[str]:
    """Send an alert everywhere; see `send_alerts`."""
    return send_alerts([alert], sinks, ledger)


def send_alerts(alerts: Sequence[Alert], sinks: Sequence[AlertSink], ledger: AlertLedger | None = None) -> list[str]:
    """Send alerts everywhere, to all places at once; return what failed.

    A place that fails or hangs neither stops nor delays another. One that does not end in time is not given the
    further alerts of this call, and after `SENDING_SECONDS` none is begun.

    With a ledger each place is told once: what was delivered is written down after the delivery, and a place that
    failed is tried again the next time the alert is raised.

    Parameters
    ----------
    alerts
        In the order in which a place is given them.
    sinks
        The places.
    ledger
        What remembers deliveries; None sends everything.
    """
    end = time.monotonic() + SENDING_SECONDS
    told: queue.SimpleQueue[_Outcome | None] = queue.SimpleQueue()
    couriers = []
    for place, sink in enumerate(sinks):
        name = type(sink).__name__
        waiting = [alert for alert in alerts if ledger is None or not ledger.was_alerted(alert.key, name)]
        if waiting:
            couriers.append(_Courier(place, sink, waiting, ledger, end, told))
    for courier in couriers:
        courier.start()
    failures: list[tuple[int, str]] = []
    under_way = len(couriers)
    while under_way:
        outcome = told.get()
        if outcome is None:
            under_way -= 1
            continue
        name, why = type(sinks[outcome.place]).__name__, outcome.failure
        if why is None and ledger is not None:
            try:
                ledger.record_alert(outcome.alert.key, name)
            except Exception as error:
                why = f"delivered, but not written down: {error}"
        if why is not None:
            log.error("alert %s was not delivered by %s: %s", safe_message(outcome.alert.key), name, safe_message(why))
            failures.append((outcome.place, safe_message(f"{name}: {why}")))
    return [said for _, said in sorted(failures, key=lambda failure: failure[0])]


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What became of one alert at one place; ``failure`` is None where it was delivered."""

    place: int
    alert: Alert
    failure: str | None


class _Courier(threading.Thread):
    """Takes alerts to one place, one after the other; ends in time, whatever the place does.

    Parameters
    ----------
    place
        Number of the place.
    sink, alerts, ledger
        See `send_alerts`.
    end
        When the last alert may be begun, in monotonic seconds.
    told
        Takes the outcome of each alert, and None at the end.
    """

    def __init__(
        self,
        place: int,
        sink: AlertSink,
        alerts: Sequence[Alert],
        ledger: AlertLedger | None,
        end: float,
        told: queue.SimpleQueue[_Outcome | None],
    ) -> None:
        self._sink_name = type(sink).__name__
        super().__init__(name=f"alerts to {self._sink_name}", daemon=True)
        self._place = place
        self._sink = sink
        self._alerts = alerts
        self._ledger = ledger
        self._end = end
        self._told = told

    def run(self) -> None:
        """Deliver, and tell what became of it."""
        seconds = float(getattr(self._sink, "seconds", PLACE_TIMEOUT_SECONDS))
        given_up = ""
        try:
            for alert in self._alerts:
                begun = time.monotonic()
                if begun > self._end:
                    given_up = given_up or f"the {SENDING_SECONDS:g} s of this round are over"
                failure = f"not tried, since {given_up}" if given_up else self._deliver(alert, seconds)
                if failure is not None and time.monotonic() - begun >= seconds:
                    given_up = "the alert before it did not end in time"
                self._told.put(_Outcome(self._place, alert, failure))
        finally:
            self._told.put(None)

    def _deliver(self, alert: Alert, seconds: float) -> str | None:
        from finance_assets.providers.outbound import call_within

        def record(_: None) -> None:
            # What was delivered after all, too late for whoever waited, is not sent again.
            if self._ledger is not None:
                self._ledger.record_alert(alert.key, self._sink_name)

        try:
            call_within(
                partial(self._sink.send, alert),
                seconds + GRACE_SECONDS,
                f"sending by {self._sink_name}",
                discard=record,
            )
        except Exception as error:
            return str(error)
        return None
