"""Time transactions: the rules alone, the queue alone, the consumer between them, and its memory over a million.

    python benchmarks/transactions.py [--rate 1000] [--seconds 30] [--million 1000000] [--no-table] [--only NAME…]

The queue is the local one, fed at a rate by a process of its own: its receive rate falls when much waits in it. What
the consumer is held against is the same queue with receive and delete only. Parts: rules, queue, consumer, memory.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path

import psutil

from finance_assets.storage.lake import Lake
from finance_assets.transactions import local_queue
from finance_assets.transactions.consuming import Consumer, Options, freeze_loaded, lake_store
from finance_assets.transactions.local_queue import LocalQueue
from finance_assets.transactions.monitoring import Monitor, percentile
from finance_assets.transactions.producing import messages, send
from finance_assets.transactions.queue import Depth, Message, Queue
from finance_assets.transactions.rules import classify_batch
from finance_assets.transactions.table import TransactionTable

PARTS = ("rules", "queue", "consumer", "memory")
BAD_RATE = 0.02
RULES_MESSAGES = 200_000
REPEATS = 3
#: Left out of the percentiles: a producer and a consumer that are just starting.
WARM_UP_SECONDS = 3.0


class EveryLatency(Monitor):
    """A monitor that keeps every latency, with when it was noted."""

    def __init__(self) -> None:
        super().__init__()
        self.noted = array("d")
        self.values = array("d")

    def durable(self, seconds: Iterable[float]) -> None:
        """Note latencies."""
        values = list(seconds)
        self.noted.extend([time.monotonic()] * len(values))
        self.values.extend(values)
        super().durable(values)


def rules() -> None:
    now = datetime.now(UTC)
    source = islice(messages(1, now, bad_rate=BAD_RATE), RULES_MESSAGES)
    # A body of a quarter of a megabyte is a hazard, not a payment: a few of them would be the whole measurement.
    given = [(f"m{n}", each.body) for n, each in enumerate(source) if len(each.body) < 10_000]
    size = sum(len(body) for _, body in given)
    print(f"rules: {len(given):,} messages, {size / len(given):.0f} bytes each, {BAD_RATE:.0%} not plainly good")

    def floor() -> None:
        for _, body in given:
            with suppress(ValueError):
                json.loads(body)

    for name, work in (("floor: json.loads alone", floor), ("classify_batch", lambda: classify_batch(given, now))):
        best = min(_seconds(work) for _ in range(REPEATS))
        print(f"  {name:28} {len(given) / best:12,.0f} messages/s   best of {REPEATS}")


def _seconds(work: object) -> float:
    begun = time.perf_counter()
    work()  # type: ignore[operator]
    return time.perf_counter() - begun


@contextmanager
def produced(url: str, rate: float, count: int) -> Iterator[subprocess.Popen[str]]:
    """Feed the queue from another process."""
    command = [sys.executable, __file__, "--produce", url, "--rate", str(rate), "--count", str(count)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def produce(url: str, rate: float, count: int) -> None:
    now = datetime.now(UTC)
    made = list(islice(messages(int(now.timestamp()), now - timedelta(hours=1), bad_rate=BAD_RATE), count))
    done = send(iter(made), Queue(url, local_queue.REGION), count=count, rate=rate)
    print(done.count / done.seconds)


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and its children."""
    family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return float(sum(sum(each.cpu_times()[:2]) for each in family))


def queue_alone(made: LocalQueue, rate: float, seconds: float) -> None:
    """Receive and delete with three threads, fed faster than they can take."""
    count = int(rate * seconds * 2)
    taken = [0] * 3
    queue = Queue(made.queue_url, local_queue.REGION)
    with produced(made.queue_url, rate * 3, count) as feeding:

        def work(place: int) -> None:
            idle = 0
            while idle < 2:
                got = queue.receive(wait_seconds=1)
                idle = 0 if got else idle + (feeding.poll() is not None)
                queue.delete(got)
                taken[place] += len(got)

        while not queue.depth().total:
            time.sleep(0.05)
        begun, server = time.monotonic(), cpu_seconds(made.pid)
        threads = [threading.Thread(target=work, args=(place,)) for place in range(len(taken))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = time.monotonic() - begun - 1
        server = cpu_seconds(made.pid) - server
    print(f"queue alone (receive + delete, {len(taken)} threads): {sum(taken) / spent:,.0f} messages/s,", end=" ")
    print(f"the endpoint busy {server / spent:.0%} of a core (sending to it included)")


def consumer(made: LocalQueue, folder: Path, rate: float, seconds: float, with_table: bool) -> None:
    count = int(rate * (seconds + WARM_UP_SECONDS))
    monitor = EveryLatency()
    options = Options(receivers=3, wait_seconds=1, line_seconds=3600)
    table = TransactionTable(made.table, local_queue.REGION, made.endpoint) if with_table else None
    queue = Queue(made.queue_url, local_queue.REGION, connections=8)
    working = Consumer(
        queue,
        lake_store(Lake(str(folder / "lake"))),
        table,
        options,
        monitor=monitor,
        idle_stop=5,
    )
    freeze_loaded(queue, *([table] if table else []))
    own, server = sum(os.times()[:2]), cpu_seconds(made.pid)
    begun = time.monotonic()
    with produced(made.queue_url, rate, count) as feeding:
        working.run()
        offered = float(feeding.communicate()[0])
    first, last = monitor.noted[0], monitor.noted[-1]
    spent = time.monotonic() - begun
    own, server = sum(os.times()[:2]) - own, cpu_seconds(made.pid) - server
    steady = sorted(
        value for noted, value in zip(monitor.noted, monitor.values, strict=True) if noted > first + WARM_UP_SECONDS
    )
    parts = [f"p{share * 100:g} {1000 * (percentile(steady, share) or 0):.0f} ms" for share in (0.5, 0.95, 0.99)]
    shown = ", ".join(parts)
    print(f"consumer{'' if with_table else ' without table'}, {rate:,.0f}/s asked, {offered:,.0f}/s offered:", end=" ")
    print(f"{len(monitor.values) / (last - first):,.0f} messages/s")
    batches = monitor.total("batches_total")
    print(f"  receipt to durable: {shown}, most {1000 * steady[-1]:.0f} ms; {batches:,} micro-batches")
    print(f"  busy: consumer {own / spent:.0%} of a core, endpoint {server / spent:.0%}; load {os.getloadavg()[0]:.1f}")
    deleted = monitor.total("deleted_total")
    if deleted != count:
        print(f"  {count - deleted:,} of {count:,} messages were not deleted")


class Endless:
    """A queue that needs no endpoint: as many messages as asked for, each once."""

    def __init__(self, count: int) -> None:
        self._lock = threading.Lock()
        self._now = datetime.now(UTC)
        self._source = islice(messages(1, self._now, bad_rate=BAD_RATE, step=timedelta(microseconds=1)), count)
        self._number = 0
        self.deleted = 0

    def receive(self, max_messages: int, wait_seconds: int) -> list[Message]:
        """Return the next messages."""
        with self._lock:
            taken = [each.body for each in islice(self._source, max_messages)]
            first, self._number = self._number, self._number + len(taken)
        if not taken:
            time.sleep(0.05)
        return [
            Message(f"m{first + n}", f"r{first + n}", body, self._now, self._now, 1) for n, body in enumerate(taken)
        ]

    def delete(self, batch: Sequence[Message]) -> list[Message]:
        """Count messages."""
        with self._lock:
            self.deleted += len(batch)
        return []

    release = delete

    def hold(self, batch: Sequence[Message], seconds: int) -> list[Message]:
        """Do nothing: they are hidden for ever."""
        return []

    def depth(self) -> Depth:
        """Return nothing of use."""
        return Depth(0, 0, 0)

    def visibility_seconds(self) -> int:
        """Return long enough."""
        return 3600


def memory(folder: Path, count: int) -> None:
    """Take a million through receivers, rules, micro-batches and deletion, and look at the memory on the way."""
    source = Endless(count)
    working = Consumer(
        source,
        lake_store(Lake(str(folder / "million"))),
        None,
        Options(receivers=1, batch_messages=1000, batch_seconds=0.2, held_messages=3000, line_seconds=3600),
        idle_stop=2,
    )
    process, samples = psutil.Process(), [(0, 0.0)]
    done = threading.Event()

    def sample() -> None:
        while not done.wait(0.5):
            samples.append((source.deleted, process.memory_info().rss / 1e6))

    watching = threading.Thread(target=sample)
    watching.start()
    begun = time.monotonic()
    working.run()
    spent = time.monotonic() - begun - 2
    done.set()
    watching.join()
    print(
        f"memory over {source.deleted:,} messages through the consumer in this process (no endpoint, no table),",
        end=" ",
    )
    print(f"{source.deleted / spent:,.0f} messages/s, making them included:")
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        at, used = next(((n, mb) for n, mb in samples if n >= share * source.deleted), samples[-1])
        print(f"  after {at:>9,}: {used:6.0f} MB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=1000)
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--million", type=int, default=1_000_000)
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--produce", help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.produce:
        produce(options.produce, options.rate, options.count)
        return
    if "rules" in options.only:
        rules()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if {"queue", "consumer"} & set(options.only):
            with local_queue.run_local_queue(folder / "queue") as made:
                if "queue" in options.only:
                    queue_alone(made, options.rate, options.seconds)
                if "consumer" in options.only:
                    consumer(made, folder, options.rate, options.seconds, not options.no_table)
        if "memory" in options.only:
            memory(folder, options.million)


if __name__ == "__main__":
    main()
