"""What a consumer says of itself: percentiles, a line, and Prometheus' text."""

from __future__ import annotations

import re
import urllib.error
import urllib.request

import pytest

from finance_assets.transactions.monitoring import METRICS, Monitor, label, percentile, serving


@pytest.mark.parametrize(
    ("share", "expected"), [(0.5, 50), (0.95, 95), (0.99, 99), (0.991, 100), (1.0, 100), (0.001, 1)]
)
def test_percentiles_are_values_that_occurred(share: float, expected: int) -> None:
    assert percentile([float(n) for n in range(1, 101)], share) == expected


def test_no_values_have_no_percentile() -> None:
    assert percentile([], 0.99) is None


def monitored() -> tuple[Monitor, list[float]]:
    now = [100.0]
    return Monitor(lambda: now[0]), now


def test_a_line_tells_of_the_time_since_the_last() -> None:
    monitor, now = monitored()
    monitor.count("deleted_total", 5000)
    monitor.count("stored_total", 4990, label("outcome", "accepted"))
    monitor.count("rejected_total", 10, label("reason", "malformed_json"))
    monitor.durable(n / 1000 for n in range(1, 101))
    monitor.set("lag_seconds", 1.25)
    now[0] += 10
    line = monitor.line()
    assert line.startswith("500 messages/s, receipt to durable 50/95/99 ms (p50/p95/p99), 4,990 stored, 10 rejected")
    assert "lag 1.2 s" in line
    now[0] += 10
    assert monitor.line().startswith("0 messages/s, receipt to durable -/-/- ms")


def test_prometheus_can_read_it() -> None:
    monitor, _ = monitored()
    monitor.count("received_total", 7)
    monitor.count("rejected_total", 2, label("reason", 'quo"te\\and\nline'))
    monitor.durable([0.001, 0.03, 0.2, 99.0])
    monitor.line()
    text = monitor.prometheus()
    sample = re.compile(r'[a-z_]+(\{[a-z]+="(\\.|[^"\\])*"\})? [0-9.e+-]+')
    for line in text.splitlines():
        assert line.startswith("# ") or sample.fullmatch(line), line
    assert "finance_assets_transactions_received_total 7\n" in text
    assert r'{reason="quo\"te\\and\nline"} 2' in text
    assert 'durable_seconds_bucket{le="0.005"} 1\n' in text
    assert 'durable_seconds_bucket{le="0.05"} 2\n' in text
    assert 'durable_seconds_bucket{le="+Inf"} 4\n' in text
    assert "durable_seconds_count 4\n" in text
    assert 'recent_seconds{quantile="0.5"} 0.03\n' in text
    for metric in METRICS:
        assert f"# TYPE finance_assets_transactions_{metric} " in text


def test_it_is_served() -> None:
    monitor, _ = monitored()
    monitor.count("batches_total", 3)
    with serving(monitor, 0) as address:
        with urllib.request.urlopen(address, timeout=5) as response:
            assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
            assert b"batches_total 3" in response.read()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(address.replace("/metrics", "/else"), timeout=5)
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(address, timeout=1)
