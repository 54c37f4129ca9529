"""Places that hang, flood and break: each alert ends in time, and the other places get theirs."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures.faulty_server import (
    HTTP_BROKEN,
    HTTP_FLOODS,
    HTTP_HANGS,
    SMTP_FAULTS,
    Fault,
    FaultyServer,
    allocates_less_than,
    answers,
    certificate,
    closes,
    converse,
    declares_four_gigabytes,
    drip_body,
    drip_chunks,
    drip_headers,
    drip_reply,
    drip_tls_handshake,
    endless_body,
    endless_chunks,
    endless_reply,
    ends_within,
    gzip_bomb,
    half_answer,
    half_packed_answer,
    hanging_resolver,
    mail_server,
    resets_in_the_body,
    serve,
    silent,
    unknown_packing,
)

from finance_assets.publishing import alerts
from finance_assets.publishing.alerts import (
    Alert,
    EmailSink,
    SnsSink,
    WebhookSink,
    alert_sinks,
    send_alert,
    send_alerts,
)
from finance_assets.settings import Settings
from finance_assets.storage.ledger import Ledger

SECONDS = 0.4
MEMORY = 12_000_000
SECRET = "T0PSECRETpath"


def alert(number: int = 1) -> Alert:
    return Alert("quotes are overdue", "error", datetime(2013, 3, 1, tzinfo=UTC), "none came", "look", f"key-{number}")


class Recorder:
    """A place that takes everything at once."""

    def __init__(self) -> None:
        self.taken: list[str] = []

    def send(self, alert: Alert) -> None:
        self.taken.append(alert.key)


class Hanging:
    """A place that knows no deadline."""

    seconds = SECONDS

    def __init__(self) -> None:
        self.free = threading.Event()
        self.asked: list[str] = []

    def send(self, alert: Alert) -> None:
        self.asked.append(alert.key)
        self.free.wait(30)


def webhook(server: FaultyServer) -> WebhookSink:
    return WebhookSink(f"{server.url}/{SECRET}", seconds=SECONDS)


def mail(server: FaultyServer, **given: Any) -> EmailSink:
    return EmailSink(
        "127.0.0.1", server.port, "p@example.org", ("a@example.org",), seconds=SECONDS, **{"security": "none"} | given
    )


@pytest.fixture(autouse=True, scope="module")
def _loaded() -> None:
    """Import what is imported at first use, which takes longer than the deadlines here."""
    import boto3
    import httpx  # noqa: F401

    from finance_assets.providers.http import certificates

    certificates()
    boto3.client("sns", region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test").close()


@pytest.fixture
def sns(monkeypatch: pytest.MonkeyPatch) -> Callable[[FaultyServer], SnsSink]:
    def make(server: FaultyServer) -> SnsSink:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
        monkeypatch.setenv("AWS_ENDPOINT_URL_SNS", server.url)
        return SnsSink("arn:aws:sns:us-east-1:1:alerts", "us-east-1", seconds=SECONDS)

    return make


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    made = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}", lambda: datetime(2013, 3, 1, tzinfo=UTC))
    made.used("none", datetime(2013, 3, 1, tzinfo=UTC).date())
    yield made
    made.close()


# -- webhook -----------------------------------------------------------------------------------------------------------

#: The status has come, and says that the alert was taken; what follows is not read.
TAKEN = (
    drip_body,
    drip_chunks,
    endless_body,
    endless_chunks,
    declares_four_gigabytes,
    gzip_bomb,
    half_answer,
    half_packed_answer,
    resets_in_the_body,
    unknown_packing,
)


@pytest.mark.parametrize("fault", TAKEN)
def test_what_a_webhook_says_after_its_status_is_not_read(fault: Fault) -> None:
    with serve(fault) as server, allocates_less_than(MEMORY), ends_within(0.2):
        webhook(server).send(alert())


@pytest.mark.parametrize("fault", [fault for fault in (*HTTP_HANGS, *HTTP_FLOODS, *HTTP_BROKEN) if fault not in TAKEN])
def test_a_webhook_without_a_status_is_given_up(fault: Fault) -> None:
    with (
        serve(fault) as server,
        allocates_less_than(MEMORY),
        ends_within(SECONDS),
        pytest.raises(ConnectionError, match="FINANCE_ASSETS_ALERT_WEBHOOK_URL") as caught,
    ):
        webhook(server).send(alert())
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None


def test_a_webhook_whose_error_never_ends_is_a_failure() -> None:
    def refuse(peer: Any) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 500 No\r\n\r\n")
        while True:
            peer.send(b"x" * 65_536)

    with serve(refuse) as server, ends_within(0.2), pytest.raises(ConnectionError, match="answered 500"):
        webhook(server).send(alert())


@pytest.mark.parametrize("fault", [silent, drip_tls_handshake])
def test_a_webhook_whose_handshake_does_not_end(fault: Fault) -> None:
    with serve(fault) as server, ends_within(SECONDS), pytest.raises(ConnectionError, match=r"no end within 0\.4 s"):
        WebhookSink(f"https://127.0.0.1:{server.port}", seconds=SECONDS).send(alert())


def test_names_that_are_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging_resolver(monkeypatch.setattr):
        for sink in (
            WebhookSink("http://webhook.invalid", seconds=SECONDS),
            EmailSink("mail.invalid", 25, "p@example.org", ("a@example.org",), security="none", seconds=SECONDS),
        ):
            with ends_within(SECONDS), pytest.raises(ConnectionError):
                sink.send(alert())


# -- e-mail ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("at", ["greeting", "ehlo", "mail", "rcpt", "data", "message"])
@pytest.mark.parametrize("fault", SMTP_FAULTS)
def test_a_mail_server_that_does_not_go_on_is_given_up(at: str, fault: Fault) -> None:
    with (
        serve(mail_server(at, fault)) as server,
        allocates_less_than(MEMORY),
        ends_within(SECONDS),
        pytest.raises(ConnectionError, match="FINANCE_ASSETS_ALERT_SMTP_HOST"),
    ):
        mail(server).send(alert())


def test_an_endless_reply_is_cut_at_the_cap() -> None:
    with (
        serve(mail_server("ehlo", endless_reply)) as server,
        pytest.raises(ConnectionError, match="longer than 262144"),
    ):
        EmailSink("127.0.0.1", server.port, "p@example.org", ("a@example.org",), security="none", seconds=20).send(
            alert()
        )


@pytest.mark.parametrize("fault", [silent, drip_reply, drip_tls_handshake])
@pytest.mark.parametrize("security", ["tls", "starttls"])
def test_a_mail_server_whose_handshake_does_not_end(security: str, fault: Fault) -> None:
    handles = fault if security == "tls" else mail_server("starttls", fault)
    with serve(handles) as server, ends_within(SECONDS), pytest.raises(ConnectionError):
        mail(server, security=security).send(alert())


@pytest.mark.parametrize("fault", [*SMTP_FAULTS, lambda peer: peer.send(b"500 no\r\n")])
def test_a_message_that_was_taken_is_delivered_whatever_the_good_bye(
    fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "SMTP_QUIT_SECONDS", 0.1)
    with serve(mail_server("quit", fault)) as server, ends_within(SECONDS):
        mail(server).send(alert())
    assert server.requests == ["message"]


def test_mail_over_tls_is_delivered_and_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, public = certificate(tmp_path)
    with serve(mail_server("never", silent), context) as server:
        with pytest.raises(ConnectionError, match="SSLCertVerificationError"):
            mail(server, security="tls").send(alert())
        monkeypatch.setenv("SSL_CERT_FILE", str(public))
        mail(server, security="tls").send(alert())
    assert server.requests == ["message"]


def test_mail_over_starttls_is_delivered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context, public = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))

    def upgrade(peer: Any) -> None:
        peer.send(b"220 go on\r\n")
        peer.server._peers.append(context.wrap_socket(peer.socket, server_side=True))
        inner = type(peer)(peer.server._peers[-1], peer.server)
        converse(inner, "never", silent)

    with serve(mail_server("starttls", upgrade)) as server:
        mail(server, security="starttls").send(alert())
    assert server.requests == ["message"]


# -- SNS ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [*HTTP_HANGS, *HTTP_FLOODS, closes, half_answer])
def test_sns_that_does_not_answer_properly_is_given_up(fault: Fault, sns: Callable[[FaultyServer], SnsSink]) -> None:
    with serve(fault) as server:
        sink = sns(server)
        with allocates_less_than(MEMORY), ends_within(SECONDS), pytest.raises(Exception, match=r".+"):
            sink.send(alert())
        assert server.connections <= 3


def test_credentials_that_do_not_come_are_given_up(
    sns: Callable[[FaultyServer], SnsSink], monkeypatch: pytest.MonkeyPatch
) -> None:
    import boto3

    over = threading.Event()
    monkeypatch.setattr(boto3, "client", lambda *_, **__: over.wait(30))
    with serve(silent) as server, ends_within(SECONDS), pytest.raises(ConnectionError, match="ALERT_SNS_TOPIC"):
        sns(server).send(alert())
    over.set()


# -- all places --------------------------------------------------------------------------------------------------------


@contextmanager
def every_hanging_place(sns: Callable[[FaultyServer], SnsSink]) -> Iterator[list[Any]]:
    hanging = Hanging()
    with (
        serve(drip_headers) as web,
        serve(mail_server("greeting", drip_reply)) as post,
        serve(drip_body) as topic,
    ):
        yield [webhook(web), mail(post), sns(topic), hanging]
        hanging.free.set()


@pytest.mark.parametrize("place", range(5))
def test_a_place_is_told_whatever_hangs_before_and_after_it(
    place: int, sns: Callable[[FaultyServer], SnsSink], ledger: Ledger
) -> None:
    recorder = Recorder()
    with every_hanging_place(sns) as sinks:
        sinks.insert(place, recorder)
        with ends_within(SECONDS + alerts.GRACE_SECONDS):
            failures = send_alert(alert(), sinks, ledger)
        assert recorder.taken == ["key-1"]
        assert [failure.split(":")[0] for failure in failures] == ["WebhookSink", "EmailSink", "SnsSink", "Hanging"]
        assert ledger.was_alerted("key-1", "Recorder")
        for name in ("WebhookSink", "EmailSink", "SnsSink", "Hanging"):
            assert not ledger.was_alerted("key-1", name)


def test_the_others_are_told_while_one_hangs() -> None:
    hanging, recorder = Hanging(), Recorder()
    done = threading.Thread(target=send_alert, args=(alert(), [hanging, recorder]))
    done.start()
    deadline = time.monotonic() + 5
    while not recorder.taken and time.monotonic() < deadline:
        time.sleep(0.005)
    assert recorder.taken == ["key-1"]
    assert done.is_alive(), "the other place was told before this one was given up"
    hanging.free.set()
    done.join()


def test_a_place_that_failed_is_tried_again_and_the_others_are_not(ledger: Ledger) -> None:
    recorder = Recorder()
    with serve(drip_headers) as server:
        sink = webhook(server)
        assert len(send_alert(alert(), [sink, recorder], ledger)) == 1
        server.fault = answers(b"ok")
        assert send_alert(alert(), [sink, recorder], ledger) == []
        assert send_alert(alert(), [sink, recorder], ledger) == []
        assert len(server.requests) == 2
    assert recorder.taken == ["key-1"]


def test_a_round_of_many_alerts_is_bounded_and_ends_at_the_next(ledger: Ledger) -> None:
    hanging, recorder = Hanging(), Recorder()
    many = [alert(number) for number in range(20)]
    with ends_within(SECONDS + alerts.GRACE_SECONDS):
        failures = send_alerts(many, [hanging, recorder], ledger)
    assert len(failures) == 20
    assert hanging.asked == ["key-0"], "a place that hangs is not given the others of this round"
    assert recorder.taken == [one.key for one in many]
    hanging.free.set()
    deadline = time.monotonic() + 5
    while not ledger.was_alerted("key-0", "Hanging") and time.monotonic() < deadline:
        time.sleep(0.01)
    # What was delivered after all is written down, and the rest comes in the next round.
    assert send_alerts(many, [hanging, recorder], ledger) == []
    assert hanging.asked == [one.key for one in many]
    assert len(recorder.taken) == 20


def test_no_alert_is_begun_after_the_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "SENDING_SECONDS", 0.2)

    class Slow(Recorder):
        seconds = 5.0

        def send(self, alert: Alert) -> None:
            time.sleep(0.15)
            super().send(alert)

    slow = Slow()
    with ends_within(0.4):
        failures = send_alerts([alert(number) for number in range(9)], [slow])
    assert slow.taken == ["key-0", "key-1"]
    assert len(failures) == 7
    assert "not tried, since the 0.2 s of this round are over" in failures[0]


def test_a_delivery_that_cannot_be_written_down_is_a_failure() -> None:
    class Broken:
        def was_alerted(self, key: str, sink: str) -> bool:
            return False

        def record_alert(self, key: str, sink: str) -> None:
            raise OSError("disk full")

    recorder = Recorder()
    (failure,) = send_alert(alert(), [recorder], Broken())
    assert failure == "Recorder: delivered, but not written down: disk full"


def test_the_deadline_is_a_setting(tmp_path: Path) -> None:
    settings = Settings(
        home=tmp_path,
        alert_timeout_seconds=3.0,
        alert_webhook_url="https://example.org",
        alert_smtp_host="mail.example.org",
        alert_email_from="p@example.org",
        alert_email_to="a@example.org",
        alert_sns_topic="arn:aws:sns:us-east-1:1:alerts",
    )
    assert [getattr(sink, "seconds", None) for sink in alert_sinks(settings)] == [None, 3.0, 3.0, 3.0]
    assert [WebhookSink("x").seconds, SnsSink("x", "y").seconds] == [10.0, 10.0]
