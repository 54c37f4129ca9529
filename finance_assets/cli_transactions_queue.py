"""The commands on queues: ``transactions produce``, ``consume``, ``queue`` and ``dlq …``.

What belongs here: reading arguments and showing results; the work is done by the transactions room, whose modules are
imported inside the commands.
"""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finance_assets.terminal import (
    console,
    fail,
    print_text,
    read_settings,
    say,
    shown,
    shown_message,
    told_in_one_line,
)
from finance_assets.text import SafeLineFormatter, escape_name, redact_personal_data

if TYPE_CHECKING:
    from finance_assets.settings import Settings
    from finance_assets.transactions.queue import Queue

dlq_app = typer.Typer(
    help="Dead letters: messages on which processing itself broke, again and again.", no_args_is_help=True
)
#: Folder of the local queue in the platform's home.
LOCAL_FOLDER = "queue"
#: Characters of a body that a list shows.
SHOWN = 60


def register_commands(app: typer.Typer) -> None:
    """Add these commands to ``finance-assets transactions``."""
    app.command()(produce)
    app.command()(consume)
    app.command(
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False}
    )(queue)
    app.add_typer(dlq_app, name="dlq")


def _queue_folder(settings: "Settings") -> Path:
    return settings.home_dir / LOCAL_FOLDER


def _url(settings: "Settings") -> str:
    """Return the address of the queue: the setting's, else that of the local queue that runs for this home."""
    if settings.transactions_queue_url:
        return settings.transactions_queue_url
    from finance_assets.transactions.local_queue import find

    found = find(_queue_folder(settings))
    if found is None:
        raise fail(
            "there is no queue: set FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL, or start one on this machine with "
            "finance-assets transactions queue"
        )
    return found.queue_url


def main_queue(settings: "Settings", connections: int = 10) -> "Queue":
    """Return the queue of transactions; end the command where there is none."""
    from finance_assets.transactions.queue import Queue

    return Queue(_url(settings), settings.aws_region, settings.arrival_clock, connections)


def _dead(settings: "Settings") -> "Queue":
    """Return the queue of dead letters: the setting's, else that of the queue's own redrive policy."""
    main = main_queue(settings)
    if settings.transactions_queue_url and settings.transactions_dlq_url:
        return replace(main, url=settings.transactions_dlq_url)
    return main.dead_letters()


@contextmanager
def _told() -> Iterator[None]:
    from finance_assets.transactions.aws import AwsError
    from finance_assets.transactions.consuming import ConsumeError
    from finance_assets.transactions.local_queue import LocalQueueError

    with told_in_one_line():
        try:
            yield
        except (AwsError, ConsumeError, LocalQueueError) as error:
            raise fail(str(error), status=1) from None


@contextmanager
def _ended_by_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` on SIGTERM, Ctrl-C and the end of the terminal while the block lasts."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # as it is under nohup
        numbers.append(signal.SIGHUP)
    before = {number: signal.signal(number, lambda *_: stop()) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def produce(
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.01, metavar="N", help="Messages a second. Default: 10.")
    ] = 10.0,
    count: Annotated[
        int | None, typer.Option("--count", min=0, metavar="N", help="How many. Default: until it is stopped.")
    ] = None,
    bad_rate: Annotated[
        float,
        typer.Option(
            "--bad-rate",
            min=0.0,
            max=1.0,
            metavar="P",
            help="Share of duplicates, conflicts and messages that break a rule, of every kind there is.",
        ),
    ] = 0.02,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="S", help="The same seed and first instant give the same messages. Default: by chance."
        ),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="As fast as the queue takes them; --rate is ignored.")] = False,
) -> None:
    """Send simulated card transactions to the queue."""
    settings = read_settings()
    import random
    import threading
    from collections import Counter
    from datetime import timedelta

    from finance_assets.transactions.producing import messages, send

    chosen = random.SystemRandom().randrange(2**31) if seed is None else seed
    speed = None if fast or rate is None else rate
    stopped = threading.Event()
    kinds: Counter[str] = Counter()
    step = timedelta(microseconds=1) if speed is None or settings.now is not None else timedelta(seconds=1 / speed)
    with _told(), _ended_by_signals(stopped.set):
        to = main_queue(settings)
        say(f"sending to {to.address}, seed {chosen}", stderr=True)
        done = send(
            messages(chosen, settings.arrival_clock(), bad_rate=bad_rate, step=step),
            to,
            count=count,
            rate=speed,
            stop=stopped.is_set,
            told=lambda batch, _: kinds.update(each.expected for each in batch),
        )
    told = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    pace = f"{done.count / done.seconds:,.0f} a second" if done.seconds else "at once"
    console().print(f"sent {done.count:,} messages, {pace}; expected: {told or 'none'}", soft_wrap=True)


def consume(
    receivers: Annotated[int, typer.Option("--receivers", min=1, max=64, help="Threads that receive.")] = 4,
    wait_seconds: Annotated[
        int, typer.Option("--wait-seconds", min=0, max=20, help="How long a receive waits for a first message.")
    ] = 5,
    batch_seconds: Annotated[
        float,
        typer.Option(
            "--batch-seconds", min=0.0, max=60.0, help="A micro-batch is written when its first message is so old."
        ),
    ] = 0.02,
    held: Annotated[int, typer.Option("--held", min=10, help="Most messages received and not yet deleted.")] = 1000,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve /metrics for Prometheus here.")
    ] = None,
    metrics_host: Annotated[str, typer.Option("--metrics-host", help="Address on which to serve it.")] = "127.0.0.1",
    table: Annotated[bool, typer.Option("--table/--no-table", help="Put transactions to DynamoDB.")] = True,
    dagster: Annotated[bool, typer.Option("--dagster/--no-dagster", help="Tell Dagster of new micro-batches.")] = True,
    stop_when_idle: Annotated[
        float | None,
        typer.Option(
            "--stop-when-idle",
            min=0.1,
            metavar="SECONDS",
            help="End when the queue says for so long that there is nothing; exit status 1 where it does not answer.",
        ),
    ] = None,
) -> None:
    """Take messages off the queue as they come: to the lake, to DynamoDB, then delete them.

    Runs until SIGTERM or Ctrl-C, which finishes what is held and ends with status 0. A log line every ten seconds says
    rate, latency, rejects and lag.
    """
    settings = read_settings()
    import logging

    from finance_assets.registry import lake_of
    from finance_assets.transactions.aws import origin_of
    from finance_assets.transactions.consuming import Consumer, DagsterReporter, Options, freeze_loaded, lake_store
    from finance_assets.transactions.monitoring import serving
    from finance_assets.transactions.table import TransactionTable

    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(SafeLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(handlers=[handler])
    logging.getLogger("finance_assets").setLevel(logging.INFO)
    options = Options(
        receivers=receivers,
        wait_seconds=wait_seconds,
        batch_messages=settings.transactions_micro_batch_messages,
        batch_seconds=batch_seconds,
        held_messages=held,
    )
    with _told(), ExitStack() as stack:
        source = main_queue(settings, connections=receivers + options.deleters + 2)
        placed = TransactionTable(settings.transactions_table, settings.aws_region, origin_of(source.url))
        consumer = Consumer(
            source,
            lake_store(lake_of(settings)),
            placed if table else None,
            options,
            settings.arrival_clock,
            idle_stop=stop_when_idle,
        )
        if metrics_port is not None:
            address = stack.enter_context(serving(consumer.monitor, metrics_port, metrics_host))
            say(f"metrics at {address}", stderr=True)
        if dagster:
            if settings.profile == "local":
                from finance_assets.running import dagster_home

                dagster_home(settings)
            # Without a DAGSTER_HOME there is no Dagster to tell.
            if os.environ.get("DAGSTER_HOME"):
                stack.enter_context(DagsterReporter(consumer.monitor))
        freeze_loaded(source, *([placed] if table else []))
        stack.enter_context(_ended_by_signals(consumer.stop))
        say(f"consuming {source.address}", stderr=True)
        consumer.run()
    told = {name: consumer.monitor.total(f"{name}_total") for name in ("received", "stored", "deleted", "left")}
    console().print(", ".join(f"{number:,} {name}" for name, number in told.items()), soft_wrap=True)


def queue(context: typer.Context) -> None:
    """Run a real SQS and DynamoDB endpoint on this machine, alone or for the length of a command.

    finance-assets transactions queue -- dagster dev … runs the command with the queue's variables set. Where a queue is
    set already, or none can be started, the command runs all the same.
    """
    settings = read_settings()
    from finance_assets.transactions import local_queue

    command = context.args
    if command and settings.transactions_queue_url:
        raise typer.Exit(_run(command, {}))
    with _told():
        try:
            with local_queue.running(_queue_folder(settings)) as running:
                if command:
                    raise typer.Exit(_run(command, running.environment()))
                for name, value in running.environment().items():
                    print_text(f"export {name}={shlex.quote(value)}")
                console(stderr=True).print("The local queue runs; Ctrl-C ends it, and it keeps its messages.")
                with _ended_by_signals(lambda: None):
                    signal.pause()
        except local_queue.LocalQueueError as error:
            if not command:
                raise
            console(stderr=True).print(f"[yellow]warning:[/yellow] {shown_message(error)}", soft_wrap=True)
            raise typer.Exit(_run(command, {})) from None


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end; signals reach it, and its status is returned."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})
    except OSError as error:
        raise fail(f"{escape_name(command[0])}: {error.strerror}", status=127) from None
    # Ctrl-C reaches the command from the terminal; SIGTERM, and the end of the terminal, have to be passed on.
    handlers: dict[int, Any] = {signal.SIGTERM: lambda *_: process.terminate(), signal.SIGINT: lambda *_: None}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        handlers[signal.SIGHUP] = lambda *_: process.terminate()
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        status = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


@dlq_app.command("list")
def dlq_list(
    limit: Annotated[int, typer.Option("--limit", min=1, max=1000, help="Most messages to show.")] = 20,
) -> None:
    """Show dead letters, and leave them there. Exit status 1 means that there are some."""
    settings = read_settings()
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    with _told():
        dead = _dead(settings)
        depth = dead.depth()
        letters = dead.peek(limit)
    if not letters and not depth.total:
        console().print("There are no dead letters.")
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("message", "sent (UTC)", "deliveries", "bytes", "body"):
        table.add_column(name, overflow="fold", no_wrap=name != "body")
    for letter in letters:
        text = letter.body[: SHOWN * 4].decode("utf-8", "replace")
        # Somebody's payment: redacted before it is cut, for half of a card number is not known for one.
        begun = redact_personal_data(text)
        table.add_row(
            letter.message_id,
            f"{letter.sent_at:%Y-%m-%d %H:%M:%S}",
            str(letter.receive_count),
            f"{len(letter.body):,}",
            shown(begun[:SHOWN]) + ("…" if len(begun) > SHOWN else ""),
        )
    console().print(table)
    console().print(
        f"{len(letters)} of about {depth.total:,} shown. After a fix: finance-assets transactions dlq replay.",
        soft_wrap=True,
    )
    raise typer.Exit(1)


@dlq_app.command("replay")
def dlq_replay(
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, help="At most so many. Default: all there are.")
    ] = None,
) -> None:
    """Bring dead letters back to the queue, after what broke on them is mended.

    Each is sent before it is deleted, so none is lost; one that is sent twice is a duplicate, without effect.
    """
    settings = read_settings()
    from finance_assets.transactions.queue import redrive

    with _told():
        main = main_queue(settings)
        moved = redrive(_dead(settings), main, limit)
    console().print(f"brought {moved:,} messages back to {shown(main.name)}", soft_wrap=True)
