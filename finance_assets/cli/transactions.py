"""The commands ``transactions classify``, ``quarantine`` and ``replay``; those of queues are in ``cli/queue.py``."""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from finance_assets.cli import queue as queue_commands
from finance_assets.cli.errors import cli_errors, fail, read_settings
from finance_assets.regular_files import UnreadableFileError, open_regular
from finance_assets.terminal_output import console, say, shown
from finance_assets.text import escape_name, redact_personal_data

#: Maximum size of a replayed file: all messages are read before the first is sent.
MAX_REPLAYED_BYTES = 256 << 20
app = typer.Typer(
    help="Card transactions: classify, consume and produce messages, replay rejected ones and dead letters.",
    no_args_is_help=True,
)


def register_commands(root: typer.Typer) -> None:
    """Add the commands of this branch to ``finance-assets``."""
    queue_commands.register_commands(app)
    root.add_typer(app, name="transactions")


def parse_instant(text: str | None, option: str) -> datetime:
    """Return the instant given to an option; the current time if the option was not used."""
    if text is None:
        return datetime.now(UTC)
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise fail(f"{option} takes an instant such as 2025-02-01T00:00:00Z, not {text!r}") from None
    if instant.tzinfo is None:
        raise fail(f"{option} needs a zone, such as {text}Z")
    return instant.astimezone(UTC)


@app.command()
def classify(
    source: Annotated[
        Path,
        typer.Argument(metavar="IN.jsonl", help="Messages: message_id with body or body_b64; - for standard input."),
    ],
    target: Annotated[
        Path,
        typer.Argument(metavar="OUT.jsonl", help="Output file, one line per input line; - for standard output."),
    ],
    now: Annotated[
        str | None,
        typer.Option(
            "--now", metavar="ISO", help="Current time for the rule on future dates, with zone. Default: now."
        ),
    ] = None,
) -> None:
    """Show whether each message would be accepted, rejected, a duplicate or a conflict; uses no queue and no table.

    The output file appears when it is complete. Exit status 2 means that an input line is not a message.
    """
    at = parse_instant(now, "--now")
    from finance_assets.transactions.classifying import LineError, classify_file

    part = target.with_name(f"{target.name}.part{os.getpid()}")
    try:
        with sys.stdin.buffer if str(source) == "-" else open_regular(source) as reading:
            if str(target) == "-":
                counts = classify_file(reading, sys.stdout.buffer, at)
                sys.stdout.buffer.flush()
            else:
                with part.open("wb") as writing:
                    counts = classify_file(reading, writing, at)
                os.replace(part, target)
    except LineError as error:
        raise fail(f"{escape_name(source)}: {error}") from None
    except UnreadableFileError as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{escape_name(error.filename or source)}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    summary = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    console(stderr=str(target) == "-").print(f"{sum(counts.values()):,} messages: {summary}", soft_wrap=True)


@app.command()
def quarantine(
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="CODE", help="Only this reason; can be repeated.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="OUT.jsonl", help="Write the messages to a file, for correction and replay."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Maximum number of messages to show.")] = 20,
) -> None:
    """Show messages that were rejected or that conflict with an accepted transaction, with the reason.

    Exit status 1 means that there are some.
    """
    settings = read_settings()
    from collections import Counter

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from finance_assets.resources import build_lake
    from finance_assets.transactions.quarantine import quarantined, write_lines

    with cli_errors():
        entries = list(quarantined(build_lake(settings), reason or ()))
        if export is not None:
            with export.open("wb") as target:
                write_lines(entries, target)
    if not entries:
        console().print("Nothing is in quarantine.")
        return
    table = Table(box=SIMPLE_HEAD)
    for name in ("message", "received (UTC)", "transaction", "reason", "detail"):
        table.add_column(name, overflow="fold", no_wrap=name not in ("transaction", "detail"))
    for entry in entries[-limit:]:
        # The sender chose the id. Redact before truncating: a truncated card number is not recognized.
        sent_id = redact_personal_data(entry["transaction_id"] or "")
        table.add_row(
            shown(entry["message_id"]),
            entry["received_ts_utc"][:19].replace("T", " "),
            shown(sent_id[:40]),
            entry["reason"],
            shown(entry["detail"]),
        )
    console().print(table)
    counts = ", ".join(f"{count:,} {code}" for code, count in Counter(e["reason"] for e in entries).most_common())
    console().print(f"{min(limit, len(entries))} of {len(entries):,} shown: {counts}.", soft_wrap=True)
    console().print(
        "--export OUT.jsonl writes them to a file. Correct the bodies, check them with transactions classify, then "
        "send them with transactions replay.",
        soft_wrap=True,
    )
    raise typer.Exit(1)


@app.command()
def replay(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Messages with body or body_b64, as quarantine exports them.")
    ],
) -> None:
    """Send the messages of a file to the queue, such as quarantined messages after a correction.

    A message that was already accepted counts as a duplicate and has no effect. The quarantine keeps the originals.
    """
    settings = read_settings()
    from finance_assets.transactions.classifying import LineError
    from finance_assets.transactions.quarantine import bodies_of

    with cli_errors():
        try:
            with open_regular(source, max_bytes=MAX_REPLAYED_BYTES) as lines:
                bodies = bodies_of(lines)
        except LineError as error:
            raise fail(f"{escape_name(source)}: {error}; nothing was sent") from None
        empty = sum(not body for body in bodies)
        if empty:
            raise fail(
                f"{escape_name(source)}: {empty} messages have an empty body, which SQS does not accept; "
                "nothing was sent"
            )
        queue = queue_commands.main_queue(settings)
        sent = len(queue.send(bodies))
    say(f"sent {sent:,} messages to {queue.name}")
