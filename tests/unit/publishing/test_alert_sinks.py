"""Alerts by e-mail and SNS, told once, and what raises them."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.aws import aws as aws
from fixtures.aws import aws_endpoint as aws_endpoint
from fixtures.aws import client
from fixtures.rows import good_row, table_of

from finance_assets.automation.data_alerts import RISK_METRICS, check_alerts, limit_alerts, overdue_alerts
from finance_assets.contracts.market import QUOTES
from finance_assets.publishing.alerts import Alert, EmailSink, SnsSink, alert_sinks, send_alert
from finance_assets.resources import build_lake
from finance_assets.settings import Settings, SettingsError
from finance_assets.storage.ledger import Ledger

ALERT = Alert(
    title="quotes of 2013-03-01\nare overdue",
    severity="error",
    since=datetime(2013, 3, 1, 21, tzinfo=UTC),
    detail="core/quotes lacks 2013-03-01 € nothing came",
    action="finance-assets materialize",
    key="overdue:core/quotes:2013-03-01",
)


@dataclass
class MailServer:
    """An SMTP server of the few commands that smtplib uses."""

    refuse: bytes = b""
    messages: list[bytes] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)
    port: int = 0


@pytest.fixture
def mail() -> Iterator[MailServer]:
    state = MailServer()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 loopback\r\n")
            while line := self.rfile.readline():
                command = line.decode().strip()
                state.commands.append(command)
                verb = command.split(" ")[0].upper()
                if state.refuse and verb == state.refuse.decode().split(" ")[0]:
                    self.wfile.write(b"550 no\r\n")
                elif verb == "EHLO":
                    self.wfile.write(b"250-loopback\r\n250 AUTH PLAIN\r\n")
                elif verb == "AUTH":
                    self.wfile.write(b"235 welcome\r\n")
                elif verb == "DATA":
                    self.wfile.write(b"354 go on\r\n")
                    body = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        body.append(part)
                    state.messages.append(b"".join(body))
                    self.wfile.write(b"250 taken\r\n")
                elif verb == "QUIT":
                    self.wfile.write(b"221 bye\r\n")
                    return
                else:
                    self.wfile.write(b"250 ok\r\n")

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        state.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def sink(mail: MailServer, **changes: Any) -> EmailSink:
    given: dict[str, Any] = {"security": "none"} | changes
    return EmailSink("127.0.0.1", mail.port, "platform@example.org", ("a@example.org", "b@example.org"), **given)


def test_an_alert_goes_out_as_one_mail(mail: MailServer) -> None:
    sink(mail).send(ALERT)
    from email import message_from_bytes
    from email.policy import default

    (text,) = mail.messages
    message = message_from_bytes(text, policy=default)
    assert message["Subject"] == "[error] quotes of 2013-03-01 are overdue"
    assert message["To"] == "a@example.org, b@example.org"
    assert "What to do: finance-assets materialize" in message.get_content()
    assert "€ nothing came" in message.get_content()
    assert [line for line in mail.commands if line.startswith("rcpt")] == [
        "rcpt TO:<a@example.org>",
        "rcpt TO:<b@example.org>",
    ]


def test_the_password_is_in_no_message(mail: MailServer) -> None:
    mail.refuse = b"AUTH"
    with pytest.raises(ConnectionError, match="answered 550") as caught:
        sink(mail, user="me", password="T0PSECRET").send(ALERT)
    assert "T0PSECRET" not in str(caught.value) + repr(sink(mail, password="T0PSECRET"))
    assert caught.value.__context__ is None


@pytest.mark.parametrize(("refuse", "said"), [(b"MAIL", "answered 550"), (b"RCPT", "refused a@example.org")])
def test_a_refusal_is_an_error(mail: MailServer, refuse: bytes, said: str) -> None:
    mail.refuse = refuse
    with pytest.raises(ConnectionError, match=said):
        sink(mail).send(ALERT)


def test_a_server_without_encryption_is_not_given_the_alert(mail: MailServer) -> None:
    with pytest.raises(ConnectionError, match="could not be used: SMTPNotSupportedError"):
        sink(mail, security="starttls", user="me", password="secret").send(ALERT)
    assert mail.messages == []


def test_each_place_is_told_once_and_a_failed_one_again(tmp_path: Path, mail: MailServer) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", lambda: datetime(2013, 3, 1, tzinfo=UTC))
    mail.refuse = b"DATA"
    assert len(send_alert(ALERT, [sink(mail)], ledger)) == 1
    mail.refuse = b""
    assert send_alert(ALERT, [sink(mail)], ledger) == []
    assert send_alert(ALERT, [sink(mail)], ledger) == []
    assert len(mail.messages) == 1
    ledger.close()


@pytest.mark.cloud
def test_an_alert_reaches_who_subscribed_to_the_topic(aws: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", aws)
    with client("sns", aws) as sns, client("sqs", aws) as sqs:
        topic = sns.create_topic(Name="alerts")["TopicArn"]
        queue = sqs.create_queue(QueueName="alert-readers")["QueueUrl"]
        arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
        SnsSink(topic, "us-east-1").send(ALERT)
        (received,) = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=5)["Messages"]
    body = json.loads(received["Body"])
    assert body["Subject"] == "[error] quotes of 2013-03-01 are overdue"
    assert body["Message"] == ALERT.text()


def test_settings_name_the_places(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        alert_smtp_host="mail.example.org",
        alert_email_from="p@example.org",
        alert_email_to="a@example.org,b@example.org",
        alert_sns_topic="arn:aws:sns:us-east-1:1:alerts",
    )
    assert [type(one).__name__ for one in alert_sinks(settings)] == ["LogSink", "EmailSink", "SnsSink"]
    with pytest.raises((SettingsError, ValueError), match="set all three or none"):
        Settings(home=tmp_path, alert_smtp_host="mail.example.org")
    with pytest.raises((SettingsError, ValueError), match="no ARN"):
        Settings(home=tmp_path, alert_sns_topic="alerts")


def test_overdue_quotes(tmp_path: Path) -> None:
    """The partition of Friday appears at 21:00 UTC; its quotes are overdue sixteen hours later."""
    friday = date(2013, 3, 1)
    early = Settings(home=tmp_path, now=datetime(2013, 3, 2, 12, tzinfo=UTC), market_start=date(2013, 2, 25))
    late = Settings(home=tmp_path, now=datetime(2013, 3, 2, 14, tzinfo=UTC), market_start=date(2013, 2, 25))
    lake = build_lake(late)
    for day in (25, 26, 27, 28):
        row = good_row(QUOTES, session_date=date(2013, 2, day))
        lake.write_partitions(QUOTES, table_of(QUOTES, row), [f"2013-02-{day}"])
    assert overdue_alerts(early, lake) == []
    (alert,) = overdue_alerts(late, lake)
    assert (alert.key, alert.since) == ("overdue:core/quotes:2013-03-01", datetime(2013, 3, 1, 21, tzinfo=UTC))
    lake.write_partitions(QUOTES, table_of(QUOTES, good_row(QUOTES, session_date=friday)), [friday.isoformat()])
    assert overdue_alerts(late, lake) == []


def test_breached_limits(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, limit_var_99=0.05, limit_drawdown=0.2)
    lake = build_lake(settings)
    assert limit_alerts(settings, lake) == []
    newest, before = date(2013, 3, 1), date(2013, 2, 28)
    rows = [
        good_row(
            RISK_METRICS,
            sector=sector,
            session_date=day,
            risk_window="trailing_252",
            var_historical_99=var,
            current_drawdown=drawdown,
        )
        for sector, day, var, drawdown in (
            ("Energy", newest, 0.051, -0.2),
            ("Financials", newest, 0.05, -0.21),
            ("Utilities", before, 0.9, -0.9),  # not on the newest session
        )
    ]
    lake.write(RISK_METRICS, table_of(RISK_METRICS, *rows))
    assert {alert.key for alert in limit_alerts(settings, lake)} == {
        "limit:limit_var_99:Energy:2013-03-01",
        "limit:limit_drawdown:Financials:2013-03-01",
    }
    assert limit_alerts(Settings(home=tmp_path), lake) == []


def test_a_failed_blocking_check_is_told_and_a_warning_is_not() -> None:
    @dg.asset
    def quotes() -> None: ...

    @dg.asset_check(asset=quotes)
    def wrong() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, description="3 rows are wrong")

    @dg.asset_check(asset=quotes)
    def odd() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False, severity=dg.AssetCheckSeverity.WARN)

    keys = [dg.AssetCheckKey(dg.AssetKey("quotes"), name) for name in ("wrong", "odd", "never_ran")]
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([quotes, wrong, odd], instance=instance)
        (alert,) = check_alerts(instance, keys)
    assert (alert.title, alert.detail) == ("check wrong of quotes failed", "3 rows are wrong")
