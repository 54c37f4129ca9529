"""What a running consumer says of itself: counters, latencies, a log line, and the text that Prometheus reads.

What belongs here: counting and showing. Nothing here decides anything.
"""

from __future__ import annotations

import bisect
import math
import threading
import time
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

#: Upper bounds in seconds of the latency histogram.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
QUANTILES = (0.5, 0.95, 0.99)
PREFIX = "finance_assets_transactions"
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Metric -> (kind, meaning). Labels are given where a metric is counted.
METRICS = {
    "received_total": ("counter", "Deliveries received from the queue."),
    "stored_total": ("counter", "Messages written durably to the lake, by what the rules say of them."),
    "rejected_total": ("counter", "Messages rejected, by reason."),
    "placed_total": ("counter", "Transactions put to the table, by what became of them."),
    "deleted_total": ("counter", "Messages deleted from the queue."),
    "left_total": ("counter", "Messages left in the queue: processing itself broke on them."),
    "handed_back_total": ("counter", "Messages handed back to the queue at the end."),
    "batches_total": ("counter", "Micro-batches written."),
    "waits_total": ("counter", "Attempts that failed and are made again, by step."),
    "held": ("gauge", "Messages received and not yet deleted."),
    "waiting": ("gauge", "Whether a step waits for a service: 1 while it does."),
    "queue_visible": ("gauge", "Messages that wait in the queue, about."),
    "queue_in_flight": ("gauge", "Messages that somebody has received and not deleted, about."),
    "lag_seconds": ("gauge", "Age of the message received last, from its sending to its receipt."),
}


def percentile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed; None of no values.

    Parameters
    ----------
    ordered
        Ascending.
    share
        Above 0, up to 1.
    """
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None


class Monitor:
    """Counters, gauges and latencies of one consumer; threads may share it.

    Parameters
    ----------
    monotonic
        Seconds that never run backwards.
    """

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._monotonic = monotonic
        self._counts: Counter[tuple[str, str]] = Counter()
        self._gauges: dict[tuple[str, str], float] = {}
        self._histogram = [0] * (len(BUCKETS) + 1)
        self._sum = 0.0
        # Of the time since the last line; bounded by how much comes in that time.
        self._recent = array("d")
        self._last = (monotonic(), Counter[tuple[str, str]]())
        self._quantiles: dict[float, float | None] = dict.fromkeys(QUANTILES)

    def count(self, metric: str, number: int = 1, labels: str = "") -> None:
        """Add to a counter; ``labels`` is ``name="value"``."""
        with self._lock:
            self._counts[metric, labels] += number

    def set(self, metric: str, value: float, labels: str = "") -> None:
        """Set a gauge."""
        with self._lock:
            self._gauges[metric, labels] = value

    def total(self, metric: str, labels: str | None = None) -> int:
        """Return a counter, over all its labels where none is given."""
        with self._lock:
            return sum(
                number
                for (name, own), number in self._counts.items()
                if name == metric and (labels is None or own == labels)
            )

    def durable(self, seconds: Iterable[float]) -> None:
        """Note how long each of some messages took from its receipt until it was durable."""
        values = list(seconds)
        with self._lock:
            self._recent.extend(values)
            self._sum += sum(values)
            for value in values:
                self._histogram[bisect.bisect_left(BUCKETS, value)] += 1

    def line(self) -> str:
        """Return what happened since the last line, for the log."""
        with self._lock:
            now = self._monotonic()
            then, before = self._last
            since = Counter(self._counts)
            since.subtract(before)
            self._last = (now, Counter(self._counts))
            recent, self._recent = sorted(self._recent), array("d")
            self._quantiles = {share: percentile(recent, share) for share in QUANTILES}
            gauges = dict(self._gauges)
            quantiles = dict(self._quantiles)
        seconds = max(now - then, 1e-9)

        def of(metric: str, wanted: str = "") -> int:
            return sum(n for (name, own), n in since.items() if name == metric and (not wanted or own == wanted))

        def milliseconds(value: float | None) -> str:
            return "-" if value is None else f"{value * 1000:.0f}"

        parts = [
            f"{of('deleted_total') / seconds:,.0f} messages/s",
            "receipt to durable "
            + "/".join(milliseconds(quantiles[share]) for share in QUANTILES)
            + " ms (p50/p95/p99)",
            f"{of('stored_total'):,} stored",
            f"{of('rejected_total'):,} rejected",
            f"{of('placed_total', label('outcome', 'duplicate')):,} duplicates",
            f"{of('placed_total', label('outcome', 'conflict')):,} conflicts",
            f"lag {gauges.get(('lag_seconds', ''), 0.0):.1f} s",
            f"{gauges.get(('queue_visible', ''), 0.0):,.0f} in the queue",
            f"{gauges.get(('held', ''), 0.0):,.0f} held",
        ]
        if left := of("left_total"):
            parts.append(f"{left:,} left for the dead letters")
        if waits := of("waits_total"):
            parts.append(f"{waits:,} attempts failed")
        return ", ".join(parts)

    def prometheus(self) -> str:
        """Return everything in Prometheus' text format, version 0.0.4."""
        with self._lock:
            counts, gauges = dict(self._counts), dict(self._gauges)
            histogram, total = list(self._histogram), self._sum
            quantiles = dict(self._quantiles)
        lines: list[str] = []
        for metric, (kind, meaning) in METRICS.items():
            lines += [f"# HELP {PREFIX}_{metric} {meaning}", f"# TYPE {PREFIX}_{metric} {kind}"]
            values: dict[tuple[str, str], float] = {**counts, **gauges}
            found = {own: value for (name, own), value in values.items() if name == metric}
            for own, value in sorted(found.items() or {"": 0.0}.items()):
                lines.append(f"{PREFIX}_{metric}{{{own}}} {value:.17g}" if own else f"{PREFIX}_{metric} {value:.17g}")
        name = f"{PREFIX}_durable_seconds"
        lines += [f"# HELP {name} From the receipt of a message until it is durable.", f"# TYPE {name} histogram"]
        below = 0
        for bound, number in zip((*BUCKETS, math.inf), histogram, strict=True):
            below += number
            lines.append(f'{name}_bucket{{le="{"+Inf" if bound == math.inf else f"{bound:g}"}"}} {below}')
        lines += [f"{name}_sum {total:.17g}", f"{name}_count {below}"]
        name = f"{PREFIX}_durable_recent_seconds"
        lines += [
            f"# HELP {name} Percentiles of the same between the last two lines of the log.",
            f"# TYPE {name} gauge",
        ]
        lines += [
            f'{name}{{quantile="{share:g}"}} {value:.6g}' for share, value in quantiles.items() if value is not None
        ]
        return "\n".join(lines) + "\n"


def label(name: str, value: str) -> str:
    """Return a label as Prometheus writes it."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'{name}="{escaped}"'


@contextmanager
def serving(monitor: Monitor, port: int, host: str = "127.0.0.1") -> Iterator[str]:
    """Serve ``/metrics`` for the length of a block; give its address.

    Parameters
    ----------
    port
        0 takes one that is free.

    Raises
    ------
    OSError
        The port is in use.
    """

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            known = self.path.split("?")[0] in ("/metrics", "/")
            body = monitor.prometheus().encode() if known else b"see /metrics\n"
            self.send_response(200 if known else 404)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing: a scrape every few seconds is no news."""

    server = ThreadingHTTPServer((host, port), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.2}, name="metrics", daemon=True)
    thread.start()
    try:
        yield f"http://{host}:{server.server_address[1]}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
