"""The commands ``transactions produce``, ``consume``, ``queue`` and ``dlq …``."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from finance_assets.cli.errors import cli_errors, fail, read_settings
from finance_assets.terminal_output import console, print_text, say, shown, shown_message
from finance_assets.text import SafeLineFormatter, escape_name, redact_personal_data

if TYPE_CHECKING:
    from finance_assets.settings import Settings
    from finance_assets.transactions.queue import Queue

dlq_app = typer.Typer(
    help="Dead letters: messages on which the processing code failed repeatedly.", no_args_is_help=True
)
#: Characters of a message body in a list.
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
    from finance_assets.transactions.local_queue import FOLDER_NAME

    return settings.home_dir / FOLDER_NAME


def _queue_url(settings: "Settings") -> str:
    """Return the address of the configured queue, or of the local queue that runs for this home."""
    if settings.transactions_queue_url:
        return settings.transactions_queue_url
    from finance_assets.transactions.local_queue import find_local_queue

    found = find_local_queue(_queue_folder(settings))
    if found is None:
        raise fail(
            "there is no queue: set FINANCE_ASSETS_TRANSACTIONS_QUEUE_URL, or start one on this machine with "
            "finance-assets transactions queue"
        )
    return found.queue_url


def main_queue(settings: "Settings", connections: int = 10) -> "Queue":
    """Return the transaction queue; end the command if there is none."""
    from finance_assets.transactions.queue import Queue

    return Queue(_queue_url(settings), settings.aws_region, settings.arrival_clock, connections)


def _dead_letter_queue(settings: "Settings") -> "Queue":
    """Return the configured dead-letter queue, or that of the queue's redrive policy."""
    main = main_queue(settings)
    if settings.transactions_queue_url and settings.transactions_dlq_url:
        return replace(main, url=settings.transactions_dlq_url)
    return main.dead_letters()


@contextmanager
def queue_errors() -> Iterator[None]:
    """Turn errors of queues and consumers into one line with exit status 1."""
    from finance_assets.transactions.aws import AwsError
    from finance_assets.transactions.consuming import ConsumeError
    from finance_assets.transactions.local_queue import LocalQueueError

    with cli_errors():
        try:
            yield
        except (AwsError, ConsumeError, LocalQueueError) as error:
            raise fail(str(error), status=1) from None


@contextmanager
def _call_on_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call ``stop`` on SIGTERM, SIGINT and SIGHUP for the length of a block."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # ignored under nohup
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
        int | None,
        typer.Option("--count", min=0, metavar="N", help="Number of messages. Default: no limit."),
    ] = None,
    bad_rate: Annotated[
        float,
        typer.Option(
            "--bad-rate",
            min=0.0,
            max=1.0,
            metavar="P",
            help="Share of duplicates, conflicts and messages that break a rule, of all kinds.",
        ),
    ] = 0.02,
    seed: Annotated[
        int | None,
        typer.Option(
            "--seed", metavar="S", help="The same seed and start time give the same messages. Default: random."
        ),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="Send as fast as the queue accepts; --rate is ignored.")] = False,
) -> None:
    """Send simulated card transactions to the queue."""
    settings = read_settings()
    import random
    import threading
    from collections import Counter

    from finance_assets.transactions.producing import messages, send

    chosen = random.SystemRandom().randrange(2**31) if seed is None else seed
    speed = None if fast or rate is None else rate
    stopped = threading.Event()
    kinds: Counter[str] = Counter()
    step = timedelta(microseconds=1) if speed is None or settings.now is not None else timedelta(seconds=1 / speed)
    with queue_errors(), _call_on_signals(stopped.set):
        to = main_queue(settings)
        say(f"sending to {to.address}, seed {chosen}", stderr=True)
        done = send(
            messages(chosen, settings.arrival_clock(), bad_rate=bad_rate, step=step),
            to,
            count=count,
            rate=speed,
            stop=stopped.is_set,
            on_sent=lambda batch, _: kinds.update(each.expected for each in batch),
        )
    summary = ", ".join(f"{number:,} {kind}" for kind, number in sorted(kinds.items()))
    pace = f"{done.count / done.seconds:,.0f} a second" if done.seconds else "at once"
    console().print(f"sent {done.count:,} messages, {pace}; expected: {summary or 'none'}", soft_wrap=True)


def consume(
    receivers: Annotated[int, typer.Option("--receivers", min=1, max=64, help="Number of receiving threads.")] = 4,
    wait_seconds: Annotated[
        int,
        typer.Option("--wait-seconds", min=0, max=20, help="Time that a receive request waits for a message."),
    ] = 5,
    batch_seconds: Annotated[
        float,
        typer.Option(
            "--batch-seconds",
            min=0.0,
            max=60.0,
            help="Write a micro-batch when its first message is this old.",
        ),
    ] = 0.02,
    held: Annotated[int, typer.Option("--held", min=10, help="Most messages received but not yet deleted.")] = 1000,
    metrics_port: Annotated[
        int | None, typer.Option("--metrics-port", min=0, max=65535, help="Serve /metrics for Prometheus on this port.")
    ] = None,
    metrics_host: Annotated[str, typer.Option("--metrics-host", help="Address for /metrics.")] = "127.0.0.1",
    table: Annotated[bool, typer.Option("--table/--no-table", help="Write transactions to DynamoDB.")] = True,
    dagster: Annotated[bool, typer.Option("--dagster/--no-dagster", help="Report micro-batches to Dagster.")] = True,
    stop_when_idle: Annotated[
        float | None,
        typer.Option(
            "--stop-when-idle",
            min=0.1,
            metavar="SECONDS",
            help="End when the queue has been empty for this long; exit status 1 if it does not respond.",
        ),
    ] = None,
) -> None:
    """Consume messages continuously: write them to the lake and to DynamoDB, then delete them from the queue.

    Runs until SIGTERM or Ctrl-C, then finishes the received messages and ends with status 0. A log line every ten
    seconds shows rate, latency, rejects and lag.
    """
    settings = read_settings()
    import logging

    from finance_assets.resources import build_lake
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
    with queue_errors(), ExitStack() as stack:
        source = main_queue(settings, connections=receivers + options.deleters + 2)
        placed = TransactionTable(settings.transactions_table, settings.aws_region, origin_of(source.url))
        consumer = Consumer(
            source,
            lake_store(build_lake(settings)),
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
                from finance_assets.runs.instance import dagster_home

                dagster_home(settings)
            # Without DAGSTER_HOME there is no Dagster instance to report to.
            if os.environ.get("DAGSTER_HOME"):
                stack.enter_context(DagsterReporter(consumer.monitor))
        freeze_loaded(source, *([placed] if table else []))
        stack.enter_context(_call_on_signals(consumer.stop))
        say(f"consuming {source.address}", stderr=True)
        consumer.run()
    totals = {name: consumer.monitor.total(f"{name}_total") for name in ("received", "stored", "deleted", "left")}
    console().print(", ".join(f"{number:,} {name}" for name, number in totals.items()), soft_wrap=True)


def queue(context: typer.Context) -> None:
    """Run a local SQS and DynamoDB endpoint, until Ctrl-C or for the length of a command.

    finance-assets transactions queue -- dagster dev … runs the command with the queue's variables set. If a queue is
    already configured, or none can be started, the command runs without the local queue.
    """
    settings = read_settings()
    from finance_assets.transactions import local_queue

    command = context.args
    if command and settings.transactions_queue_url:
        raise typer.Exit(_run(command, {}))
    with queue_errors():
        try:
            with local_queue.run_local_queue(_queue_folder(settings)) as running:
                if command:
                    raise typer.Exit(_run(command, running.environment))
                for name, value in running.environment.items():
                    print_text(f"export {name}={shlex.quote(value)}")
                console(stderr=True).print("The local queue is running. Ctrl-C stops it and saves its messages.")
                with _call_on_signals(lambda: None):
                    signal.pause()
        except local_queue.LocalQueueError as error:
            if not command:
                raise
            console(stderr=True).print(f"[yellow]warning:[/yellow] {shown_message(error)}", soft_wrap=True)
            raise typer.Exit(_run(command, {})) from None


def _run(command: list[str], environment: dict[str, str]) -> int:
    """Run a command, forward signals to it, and return its exit status."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **environment})
    except OSError as error:
        raise fail(f"{escape_name(command[0])}: {error.strerror}", status=127) from None
    # The terminal sends Ctrl-C to the command itself; SIGTERM and SIGHUP have to be forwarded.
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
    """Show dead letters without removing them. Exit status 1 means that there are some."""
    settings = read_settings()
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    with queue_errors():
        dead = _dead_letter_queue(settings)
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
        # Redact before truncating: a truncated card number is not recognized.
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
        int | None, typer.Option("--limit", min=1, help="Maximum number of messages. Default: all.")
    ] = None,
) -> None:
    """Send dead letters back to the queue, after the cause of their failure is fixed.

    Each is sent before it is deleted, so none is lost; one that is sent twice is a duplicate without effect.
    """
    settings = read_settings()
    from finance_assets.transactions.queue import redrive

    with queue_errors():
        main = main_queue(settings)
        moved = redrive(_dead_letter_queue(settings), main, limit)
    console().print(f"sent {moved:,} messages back to {shown(main.name)}", soft_wrap=True)
