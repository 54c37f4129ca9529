"""The HTTP client against a server with every fault."""

from __future__ import annotations

import gzip
import json
import logging
import threading
import time
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fixtures.market_api import HTML_PAGE, Fault, MarketApi, Reply, as_json

from finance_assets.market.sources import (
    AuthenticationFailed,
    ProviderError,
    ProviderUnavailable,
    RateLimited,
    RetryPolicy,
    Timeouts,
    UnexpectedResponse,
)
from finance_assets.providers.http import HttpClient, HttpResponse, Secret, parse_json, parse_retry_after

KEY = "s3cret/key+7"
NOW = datetime(2024, 1, 5, 22, 0, tzinfo=UTC)


@pytest.fixture
def api() -> Iterator[MarketApi]:
    with MarketApi() as server:
        yield server


_opened: list[HttpClient] = []


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _opened:
        _opened.pop().close()


def client_for(url: str, sleeps: list[float] | None = None, **changes: object) -> HttpClient:
    options: dict[str, object] = {
        "clock": lambda: NOW,
        "secrets": {"apikey": Secret(KEY)},
        "timeouts": Timeouts(connect=2, read=0.3, total=0.6),
        "retry": RetryPolicy(attempts=3, first_wait=1.0, max_wait=4.0, max_retry_after=60.0),
        "sleep": (sleeps if sleeps is not None else []).append,
        "uniform": lambda low, high: low,
        **changes,
    }
    _opened.append(HttpClient("vendor", url, **options))  # type: ignore[arg-type]
    return _opened[-1]


def get(client: HttpClient, path: str = "/query", **params: str) -> HttpResponse:
    return client.get(path, params, symbol="IBM", check=lambda response: response)


def test_the_body_comes_back_as_it_was_sent_and_the_key_goes_along(api: MarketApi) -> None:
    api.reply("/query", Reply(200, b'{"a": 1.10}'))
    response = get(client_for(api.url), q="x y")
    assert response.body == b'{"a": 1.10}'
    assert response.request == f"GET {api.url}/query?q=x+y&apikey=***"
    assert api.requests[0].params == {"q": "x y", "apikey": KEY}


def test_a_compressed_body_is_unpacked(api: MarketApi) -> None:
    api.reply("/query", Reply(200, gzip.compress(b'{"a": 1}'), {"Content-Encoding": "gzip"}))
    assert get(client_for(api.url)).body == b'{"a": 1}'


def test_a_key_repeated_by_the_vendor_is_masked_before_anybody_reads_it(api: MarketApi) -> None:
    api.reply(
        "/query",
        as_json({"said": f"your key {KEY} is slow"}),
        Reply(200, json.dumps(KEY).replace("/", "\\/").encode()),
    )
    client = client_for(api.url)
    assert get(client).body == b'{"said": "your key *** is slow"}'
    assert get(client).body == b'"***"'


def test_server_errors_are_retried_with_growing_waits(api: MarketApi) -> None:
    api.reply("/query", Reply(500), Reply(503), Reply(200, b"ok"))
    sleeps: list[float] = []
    assert get(client_for(api.url, sleeps)).body == b"ok"
    assert sleeps == [1.0, 2.0]


def test_jitter_is_drawn_on_top_of_the_wait(api: MarketApi) -> None:
    api.reply("/query", Reply(500), Reply(200))
    sleeps: list[float] = []
    get(client_for(api.url, sleeps, uniform=lambda low, high: high))
    assert sleeps == [1.25]


def test_a_server_error_for_ever_ends_after_the_last_attempt(api: MarketApi) -> None:
    api.reply("/query", Reply(503, b"upstream down"))
    with pytest.raises(ProviderUnavailable) as caught:
        get(client_for(api.url))
    assert caught.value.attempts == len(api.requests) == 3
    assert caught.value.reason_code == "server_error"
    assert caught.value.retryable
    assert "HTTP 503 (upstream down)" in str(caught.value)


def test_429_without_a_header_backs_off(api: MarketApi) -> None:
    api.reply("/query", Reply(429), Reply(200, b"ok"))
    sleeps: list[float] = []
    get(client_for(api.url, sleeps))
    assert sleeps == [1.0]


@pytest.mark.parametrize(
    ("header", "wait"),
    [
        ("7", 7.0),
        ("Fri, 05 Jan 2024 22:00:09 GMT", 9.0),
        ("Fri, 05 Jan 2024 21:00:00 GMT", 0.0),
        ("soon", 1.0),
    ],
)
def test_429_with_a_header_waits_as_asked(api: MarketApi, header: str, wait: float) -> None:
    api.reply("/query", Reply(429, headers={"Retry-After": header}), Reply(200))
    sleeps: list[float] = []
    get(client_for(api.url, sleeps))
    assert sleeps == [wait]


@pytest.mark.parametrize("header", ["61", "86400", "9" * 40])
def test_a_wait_beyond_the_bound_ends_at_once(api: MarketApi, header: str) -> None:
    api.reply("/query", Reply(429, headers={"Retry-After": header}))
    sleeps: list[float] = []
    with pytest.raises(RateLimited) as caught:
        get(client_for(api.url, sleeps))
    assert sleeps == []
    assert caught.value.attempts == 1
    assert (caught.value.retry_after_seconds or 0.0) >= 61


def test_retry_after_reads_both_forms() -> None:
    assert parse_retry_after(None, NOW) is None
    assert parse_retry_after("-5", NOW) is None
    assert parse_retry_after(" 12 ", NOW) == 12.0


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_is_final(api: MarketApi, status: int) -> None:
    api.reply("/query", Reply(status))
    with pytest.raises(AuthenticationFailed):
        get(client_for(api.url))
    assert len(api.requests) == 1


def test_other_statuses_are_final(api: MarketApi) -> None:
    api.reply("/query", Reply(418))
    with pytest.raises(UnexpectedResponse) as caught:
        get(client_for(api.url))
    assert caught.value.reason_code == "http_418"
    assert len(api.requests) == 1


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_an_answer_that_does_not_come_or_does_not_end_times_out(api: MarketApi, fault: Fault) -> None:
    api.reply("/query", Reply(200, b"x" * 200, fault=fault))
    with pytest.raises(ProviderUnavailable) as caught:
        get(client_for(api.url, retry=RetryPolicy(attempts=2)))
    assert caught.value.reason_code == "timeout"
    assert caught.value.attempts == len(api.requests) == 2


def test_a_time_out_then_an_answer(api: MarketApi) -> None:
    api.reply("/query", Reply(fault="hang"), Reply(200, b"ok"))
    assert get(client_for(api.url)).body == b"ok"


def test_a_reset_connection_is_retried(api: MarketApi) -> None:
    api.reply("/query", Reply(fault="reset"), Reply(200, b"ok"))
    assert get(client_for(api.url)).body == b"ok"


def test_a_reset_connection_for_ever_names_the_host(api: MarketApi) -> None:
    api.reply("/query", Reply(fault="reset"))
    with pytest.raises(ProviderError) as caught:
        get(client_for(api.url))
    assert caught.value.reason_code in ("connection_failed", "truncated_body")
    assert caught.value.attempts == 3
    assert api.url in str(caught.value)


def test_a_refused_connection_is_unavailable() -> None:
    with MarketApi() as server:
        url = server.url
    with pytest.raises(ProviderUnavailable) as caught:
        get(client_for(url))
    assert caught.value.reason_code == "connection_failed"


def test_a_body_cut_off_is_retried_then_reported(api: MarketApi) -> None:
    api.reply("/query", Reply(200, b'{"a": 1}' * 10, fault="truncate"))
    with pytest.raises(UnexpectedResponse) as caught:
        get(client_for(api.url))
    assert caught.value.reason_code == "truncated_body"
    assert caught.value.attempts == 3


def test_a_body_over_the_limit_is_refused(api: MarketApi) -> None:
    api.reply("/query", Reply(200, b"x" * 2000))
    with pytest.raises(UnexpectedResponse) as caught:
        get(client_for(api.url, max_bytes=1999))
    assert caught.value.reason_code == "too_large"
    assert get(client_for(api.url, max_bytes=2000)).status == 200


def test_a_redirect_on_the_same_host_is_followed_with_the_key(api: MarketApi, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    api.reply("/query", Reply(302, headers={"Location": f"/moved?q=1&apikey={KEY}"}))
    api.reply("/moved", Reply(200, b"ok"))
    assert get(client_for(api.url)).body == b"ok"
    assert api.requests[1].params == {"q": "1", "apikey": KEY}
    assert "/moved?q=1" in caplog.text
    assert KEY not in caplog.text


def test_a_secret_shows_itself_only_when_asked() -> None:
    secret = Secret(KEY)
    assert (repr(secret), str(secret), f"{secret}", repr([secret])) == ("***", "***", "***", "[***]")
    assert secret.reveal() == KEY
    assert secret.redact(f"a {KEY} b") == "a *** b"
    assert not Secret("")
    assert Secret("").redact("untouched") == "untouched"


def test_a_redirect_to_another_host_is_not_followed(api: MarketApi) -> None:
    with MarketApi() as other:
        api.reply("/query", Reply(302, headers={"Location": f"{other.url}/query"}))
        with pytest.raises(UnexpectedResponse) as caught:
            get(client_for(api.url))
        assert other.requests == []
    assert caught.value.reason_code == "redirected"


def test_a_redirect_loop_ends(api: MarketApi) -> None:
    api.reply("/query", Reply(302, headers={"Location": "/query"}))
    with pytest.raises(UnexpectedResponse) as caught:
        get(client_for(api.url))
    assert caught.value.reason_code == "redirected"
    assert len(api.requests) == 4


def test_every_attempt_asks_for_leave_first(api: MarketApi) -> None:
    api.reply("/query", Reply(500), Reply(500), Reply(200))
    asked: list[int] = []
    client_for(api.url).get(
        "/query",
        {},
        symbol="IBM",
        check=lambda response: response,
        before_request=lambda: asked.append(len(api.requests)),
    )
    assert asked == [0, 1, 2]


@pytest.mark.parametrize("fault", [None, "hang", "reset", "truncate"])
def test_no_secret_in_logs_errors_tracebacks_or_reprs(
    api: MarketApi, caplog: pytest.LogCaptureFixture, fault: Fault | None
) -> None:
    from urllib.parse import quote

    caplog.set_level(logging.DEBUG)
    api.reply("/query", Reply(500, f"your key {KEY} / {quote(KEY, safe='')} failed".encode() * 2, fault=fault))
    client = client_for(api.url, retry=RetryPolicy(attempts=1))
    with pytest.raises(ProviderError) as caught:
        get(client, q="x")
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    text = "\n".join([caplog.text, str(caught.value), repr(caught.value), repr(client), *shown.format()])
    assert api.requests[0].params["apikey"] == KEY
    assert KEY not in text
    assert quote(KEY, safe="") not in text
    assert "HTTP Request" in caplog.text or fault in ("hang", "reset")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        HTML_PAGE,
        b"[" * 100_000,
        b'{"a": 1e99999999999999999999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"\xff\xfe\x00",
    ],
)
def test_a_body_that_is_not_json_is_named(body: bytes) -> None:
    response = HttpResponse(200, {}, body, "GET there")
    with pytest.raises(UnexpectedResponse) as caught:
        parse_json(response, provider="vendor", symbol="IBM")
    assert caught.value.reason_code == "not_json"
    assert not caught.value.retryable


def test_a_key_that_comes_twice_is_refused() -> None:
    response = HttpResponse(200, {}, b'{"x": {"2024-01-02": 1, "2024-01-02": 2}}', "GET there")
    with pytest.raises(UnexpectedResponse, match="2024-01-02") as caught:
        parse_json(response, provider="vendor", symbol="IBM")
    assert caught.value.reason_code == "duplicate_key"


def test_json_numbers_stay_exact() -> None:
    response = HttpResponse(200, {}, b'{"a": 0.1000000000000000055511151231257827, "b": NaN}', "GET there")
    document = parse_json(response, provider="vendor", symbol="IBM")
    assert str(document["a"]) == "0.1000000000000000055511151231257827"
    assert document["b"] == "NaN"


def test_one_client_serves_several_threads(api: MarketApi, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []

    class SlowToOpen(httpx.Client):
        def __init__(self, **options: Any) -> None:
            opened.append(self)
            time.sleep(0.05)
            super().__init__(**options)

    monkeypatch.setattr(httpx, "Client", SlowToOpen)
    api.reply("/query", as_json({"ok": 1}))
    client = client_for(api.url, timeouts=Timeouts())
    bodies: list[bytes] = []
    threads = [threading.Thread(target=lambda: bodies.append(get(client).body)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert bodies == [b'{"ok": 1}'] * 8
    assert len(opened) == 1
