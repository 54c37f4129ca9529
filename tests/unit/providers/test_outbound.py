"""Deadlines and caps of everything outbound, against a server with every fault."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest
from fixtures.faulty_server import (
    HTTP_BROKEN,
    HTTP_FLOODS,
    HTTP_HANGS,
    Fault,
    allocates_less_than,
    answers,
    certificate,
    declares_four_gigabytes,
    drip_body,
    drip_headers,
    drip_tls_handshake,
    endless_redirects,
    ends_within,
    gzip_bomb,
    half_answer,
    hanging_resolver,
    serve,
    silent,
)

from finance_assets.macro.series import SERIES
from finance_assets.macro.sources import FredProvider
from finance_assets.market.sources import AlphaVantageProvider, InMemoryQuotaLedger
from finance_assets.providers import http, outbound
from finance_assets.providers.aws_clients import make_limited_client
from finance_assets.providers.errors import ProviderError, ProviderUnavailable, RateLimited, UnexpectedResponse
from finance_assets.providers.http import HttpClient, HttpResponse, RetryPolicy, Timeouts
from finance_assets.providers.outbound import (
    MAX_LEFT_BEHIND,
    AnswerTooLarge,
    OutboundTimeout,
    call_within,
    limited,
    open_connection,
    time_left,
)
from finance_assets.settings import Settings, SettingsError

NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)
#: Between two bytes more is allowed than for the whole: what ends a call is its deadline.
SHORT = Timeouts(connect=5.0, read=5.0, total=0.4, call=0.5)
CAP = 1_000_000
#: What a provider's client takes at most, where nothing else is said.
PROVIDERS_CAP = 32 * 1024 * 1024
#: Below what any unbounded answer reaches within the deadline; the cap, its copies and a few pieces are less.
MEMORY = 12_000_000


def get(url: str, *, attempts: int = 1, max_bytes: int = CAP, timeouts: Timeouts = SHORT, **more: Any) -> HttpResponse:
    with HttpClient(
        "vendor",
        url,
        clock=lambda: NOW,
        timeouts=timeouts,
        retry=RetryPolicy(attempts=attempts, first_wait=0.05, jitter=0.0),
        max_bytes=max_bytes,
        **more,
    ) as client:
        return client.get("/query", {}, symbol="IBM", check=lambda response: response)


@pytest.mark.parametrize("fault", HTTP_HANGS)
def test_an_answer_without_end_ends_with_the_deadline(fault: Fault) -> None:
    with serve(fault) as server, ends_within(SHORT.total), pytest.raises(ProviderUnavailable) as caught:
        get(server.url)
    assert caught.value.reason_code == "timeout"
    assert "timed out (no end within 0." in str(caught.value)


@pytest.mark.parametrize("fault", HTTP_FLOODS)
def test_a_flood_is_cut_at_the_cap(fault: Fault) -> None:
    longer = Timeouts(connect=5.0, read=5.0, total=5.0, call=5.0)
    with serve(fault) as server, allocates_less_than(MEMORY), pytest.raises(UnexpectedResponse) as caught:
        get(server.url, timeouts=longer)
    # httpx refuses headers of more than 100 kB itself.
    assert caught.value.reason_code == ("truncated_body" if fault.__name__ == "endless_headers" else "too_large")


@pytest.mark.parametrize("fault", HTTP_BROKEN)
def test_a_broken_answer_is_an_error_and_in_time(fault: Fault) -> None:
    with serve(fault) as server, ends_within(SHORT.call), pytest.raises(ProviderError):
        get(server.url, attempts=3)


def test_a_declared_length_beyond_the_cap_is_refused_before_the_body() -> None:
    def declare(peer: Any) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000001\r\n\r\n")
        peer.hang()

    with serve(declare) as server, ends_within(0.1), pytest.raises(UnexpectedResponse) as caught:
        get(server.url)
    assert caught.value.reason_code == "too_large"


def test_a_body_longer_than_declared_is_cut_where_it_was_declared_to_end() -> None:
    def lie(peer: Any) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok and more")

    with serve(lie) as server:
        assert get(server.url).body == b"ok"


def test_redirects_share_the_time_of_the_attempt() -> None:
    tight = Timeouts(connect=5.0, read=5.0, total=0.3, call=5.0)
    with serve(endless_redirects) as server, ends_within(0.3, slack=0.4), pytest.raises(ProviderError) as caught:
        get(server.url, timeouts=tight)
    assert caught.value.reason_code == "timeout"


def test_attempts_and_waits_share_the_time_of_the_call() -> None:
    with serve(drip_headers) as server, ends_within(1.0, slack=0.5), pytest.raises(ProviderUnavailable) as caught:
        get(server.url, attempts=10, timeouts=Timeouts(total=0.3, call=1.0))
    assert 2 <= caught.value.attempts <= 4


def test_a_wait_that_outlasts_the_call_is_not_begun() -> None:
    def busy(peer: Any) -> None:
        peer.read_request()
        peer.send(b"HTTP/1.1 429 Slow Down\r\nRetry-After: 30\r\nContent-Length: 0\r\n\r\n")

    with serve(busy) as server, ends_within(0.2), pytest.raises(RateLimited) as caught:
        get(server.url, attempts=4)
    assert caught.value.retry_after_seconds == 30


def test_a_name_that_cannot_be_looked_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with hanging_resolver(monkeypatch.setattr), ends_within(SHORT.call), pytest.raises(ProviderUnavailable) as caught:
        get("http://vendor.invalid")
    assert caught.value.reason_code == "timeout"


@pytest.mark.parametrize("fault", [silent, drip_tls_handshake])
def test_a_handshake_that_does_not_end(fault: Fault) -> None:
    with serve(fault) as server, ends_within(SHORT.call), pytest.raises(ProviderUnavailable) as caught:
        get(server.url.replace("http:", "https:"))
    assert caught.value.reason_code == "timeout"


@pytest.fixture
def trusted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server's TLS context whose certificate our clients trust."""
    context, public = certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(public))
    monkeypatch.setenv("AWS_CA_BUNDLE", str(public))
    http.certificates.cache_clear()
    yield context
    http.certificates.cache_clear()


def test_an_answer_over_tls_comes_back(trusted: Any) -> None:
    with serve(answers(b"ok"), trusted) as server:
        assert get(server.url).body == b"ok"


@pytest.mark.parametrize("fault", [drip_headers, drip_body])
def test_an_answer_over_tls_ends_with_the_deadline(trusted: Any, fault: Fault) -> None:
    with serve(fault, trusted) as server, ends_within(SHORT.total), pytest.raises(ProviderUnavailable) as caught:
        get(server.url)
    assert caught.value.reason_code == "timeout"


def test_a_proxy_that_drips(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(drip_headers) as proxy, ends_within(SHORT.call), pytest.raises(ProviderUnavailable):
        monkeypatch.setenv("https_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        monkeypatch.setenv("NO_PROXY", "")
        get("https://vendor.invalid")


@pytest.mark.parametrize("fault", [silent, drip_headers, drip_body, gzip_bomb])
def test_alpha_vantage_ends_in_time(fault: Fault) -> None:
    with (
        serve(fault) as server,
        AlphaVantageProvider(
            "key",
            clock=lambda: NOW,
            quota=InMemoryQuotaLedger(),
            base_url=server.url,
            timeouts=SHORT,
            retry=RetryPolicy(attempts=3, first_wait=0.05),
        ) as provider,
        allocates_less_than(PROVIDERS_CAP + MEMORY),
        ends_within(SHORT.call),
        pytest.raises(ProviderError),
    ):
        provider.fetch_quotes("IBM", date(2024, 1, 2), date(2024, 1, 5))


@pytest.mark.parametrize("fault", [silent, drip_headers, drip_body, declares_four_gigabytes])
def test_fred_ends_in_time(fault: Fault) -> None:
    with serve(fault) as server:
        provider = FredProvider(
            "key",
            clock=lambda: NOW,
            series=SERIES,
            base_url=server.url,
            timeouts=SHORT,
            retry=RetryPolicy(attempts=3, first_wait=0.05),
        )
        with allocates_less_than(PROVIDERS_CAP + MEMORY), ends_within(SHORT.call), pytest.raises(ProviderError):
            provider.fetch(SERIES[0])
        provider.close()


# -- the limits themselves ---------------------------------------------------------------------------------------------


def test_limits_inside_others_do_not_outlast_them() -> None:
    assert time_left() is None
    assert time_left(3.0) == 3.0
    with limited(0.2) as outer, limited(60.0) as inner:
        assert inner.time_left() <= 0.2
        assert (time_left(5.0) or 0.0) <= 0.2
        time.sleep(0.25)
        assert inner.is_over
        assert inner.reason() == outer.reason() == "no end within 0.2 s"
        with pytest.raises(OutboundTimeout, match=r"no end within 0\.2 s"):
            time_left()
    assert time_left() is None


def test_bytes_count_for_every_limit_around_them() -> None:
    with (
        serve(lambda peer: peer.send(b"x" * 5_000)) as server,
        limited(5.0, max_bytes=1_000) as outer,
        limited(5.0, max_bytes=1_000_000),
        open_connection("127.0.0.1", server.port) as connection,
        pytest.raises(AnswerTooLarge),
    ):
        while connection.recv(100):
            pass
    assert outer.received_bytes == 1_100
    assert outer.reason() == "the answer is longer than 1000 bytes"


def test_a_socket_keeps_the_time_out_that_it_was_given() -> None:
    with serve(silent) as server, open_connection("127.0.0.1", server.port, 5.0) as connection:
        assert connection.gettimeout() == 5.0
        with limited(0.1), ends_within(0.1), pytest.raises(TimeoutError):
            connection.recv(1)
        assert connection.gettimeout() == 5.0
        connection.settimeout(0.05)
        with ends_within(0.05), pytest.raises(TimeoutError):
            connection.recv(1)


def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(answers(b"ok")) as server, socket.socket() as full:
        # A backlog that is full swallows what comes, as a black hole does.
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        stuffing = []
        for _ in range(4):
            one = socket.socket()
            one.setblocking(False)
            one.connect_ex(full.getsockname())
            stuffing.append(one)
        kind = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
        found = [(*kind, full.getsockname()), (*kind, ("127.0.0.1", server.port))]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: found)
        with ends_within(0.5), open_connection("two.invalid", 80, 0.5) as connection:
            assert connection.getpeername() == ("127.0.0.1", server.port)
        for one in stuffing:
            one.close()


def test_what_the_call_returns_or_raises_comes_back() -> None:
    assert call_within(lambda: 7, 1.0, "seven") == 7
    with pytest.raises(KeyError, match="nothing"):
        call_within(lambda: {}["nothing"], 1.0, "nothing")
    with limited(9.0):
        assert (call_within(time_left, 5.0, "the limits hold in the thread") or 99) <= 9.0


def test_a_call_that_hangs_is_left_behind_and_its_result_discarded() -> None:
    free, discarded = threading.Event(), []
    for _ in range(MAX_LEFT_BEHIND):
        with ends_within(0.02), pytest.raises(OutboundTimeout, match="waiting did not end within"):
            call_within(lambda: free.wait(30), 0.02, "waiting", discard=discarded.append)
    with ends_within(0.0), pytest.raises(OutboundTimeout, match="8 earlier tries have not ended"):
        call_within(lambda: free.wait(30), 5.0, "waiting")
    assert call_within(lambda: 1, 1.0, "something else") == 1
    free.set()
    deadline = time.monotonic() + 5
    while outbound._left_behind["waiting"] and time.monotonic() < deadline:
        time.sleep(0.01)
    assert call_within(lambda: 2, 1.0, "waiting") == 2
    assert discarded == [True] * MAX_LEFT_BEHIND


def test_a_process_ends_beside_a_look_up_that_hangs() -> None:
    code = (
        "import socket, threading\n"
        "socket.getaddrinfo = lambda *_: threading.Event().wait()\n"
        "from finance_assets.providers.outbound import OutboundTimeout, look_up\n"
        "try:\n    look_up('vendor.invalid', 80, 0.1)\n"
        "except OutboundTimeout as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20, check=True)
    assert done.stdout == "the look-up of vendor.invalid did not end within 0.1 s\n"


# -- AWS ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")


ASKED = {
    "sqs": ("receive_message", {"QueueUrl": "http://127.0.0.1/1/queue"}),
    "dynamodb": ("get_item", {"TableName": "table", "Key": {"key": {"S": "1"}}}),
    "s3": ("list_objects_v2", {"Bucket": "bucket"}),
    "secretsmanager": ("get_secret_value", {"SecretId": "secret"}),
    "sns": ("publish", {"TopicArn": "arn:aws:sns:us-east-1:1:alerts", "Message": "text"}),
}


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("service", sorted(ASKED))
@pytest.mark.parametrize("fault", [*HTTP_HANGS, *HTTP_FLOODS, half_answer])
def test_an_aws_service_that_does_not_answer_properly(service: str, fault: Fault) -> None:
    from botocore.exceptions import BotoCoreError

    call, named = ASKED[service]
    with serve(fault) as server:
        client = make_limited_client(
            service, region="us-east-1", endpoint=server.url, seconds=0.4, attempts=1, max_bytes=CAP
        )
        with allocates_less_than(MEMORY), ends_within(0.4), pytest.raises(BotoCoreError):
            getattr(client, call)(**named)
        client.close()


@pytest.mark.usefixtures("credentials")
def test_an_answer_of_aws_that_is_too_long_says_so() -> None:
    from botocore.exceptions import HTTPClientError

    with serve(declares_four_gigabytes) as server:
        client = make_limited_client("sns", region="us-east-1", endpoint=server.url, attempts=1, max_bytes=CAP)
        with pytest.raises(HTTPClientError, match="the answer is longer than 1000000 bytes"):
            client.publish(TopicArn="arn:aws:sns:us-east-1:1:alerts", Message="text")
        client.close()


@pytest.mark.usefixtures("credentials")
def test_aws_over_tls_ends_with_the_deadline(trusted: Any) -> None:
    from botocore.exceptions import BotoCoreError

    for fault in (drip_headers, drip_body):
        with serve(fault, trusted) as server:
            client = make_limited_client("sns", region="us-east-1", endpoint=server.url, seconds=0.4, attempts=1)
            with ends_within(0.4), pytest.raises(BotoCoreError):
                client.publish(TopicArn="arn:aws:sns:us-east-1:1:alerts", Message="text")
            client.close()


@pytest.mark.usefixtures("credentials")
def test_a_name_of_aws_that_cannot_be_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    from botocore.exceptions import BotoCoreError

    client = make_limited_client("sns", region="us-east-1", endpoint="http://sns.invalid", seconds=0.3, attempts=1)
    with hanging_resolver(monkeypatch.setattr), ends_within(0.3), pytest.raises(BotoCoreError):
        client.publish(TopicArn="arn:aws:sns:us-east-1:1:alerts", Message="text")
    client.close()


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize("fault", [silent, drip_headers, drip_body])
def test_a_secret_that_does_not_come_is_given_up(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finance_assets.settings.SECRET_SECONDS", 0.4)
    with serve(fault) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.url)
        settings = Settings(secrets_manager_id="finance-assets/prod")
        with ends_within(0.4), pytest.raises(SettingsError, match="FINANCE_ASSETS_SECRETS_MANAGER_ID"):
            settings.secret("fred_api_key")


@pytest.mark.usefixtures("credentials")
def test_a_secret_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    body = json.dumps({"SecretString": json.dumps({"fred_api_key": "k3y"})}).encode()
    with serve(answers(body)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_SECRETS_MANAGER", server.url)
        assert Settings(secrets_manager_id="finance-assets/prod").secret("fred_api_key") == "k3y"
