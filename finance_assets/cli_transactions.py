"""The commands of the transactions branch: ``transactions …``.

What belongs here: ``classify``, ``quarantine`` and ``replay``. The other commands on queues are in
``cli_transactions_queue``. The work is done by the transactions room, whose modules are imported inside the commands.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from finance_assets import cli_transactions_queue
from finance_assets.regular_files import UnreadableFileError, open_regular
from finance_assets.terminal import console, fail, read_settings, say, shown, told_in_one_line
from finance_assets.text import escape_name, redact_personal_data

#: The largest file of messages that is replayed: all of them are read before the first is sent.
MAX_REPLAYED_BYTES = 256 << 20

app = typer.Typer(
    help="Card-like transactions: classify messages, consume and produce them, bring dead letters back.",
    no_args_is_help=True,
)


def register_commands(root: typer.Typer) -> None:
    """Add the commands of this branch to ``finance-assets``."""
    cli_transactions_queue.register_commands(app)
    root.add_typer(app, name="transactions")


def instant_of(text: str | None, option: str) -> datetime:
    """Return the instant that an option was given; now, where it was not given."""
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
        Path, typer.Argument(metavar="OUT.jsonl", help="Where to write, a line for a line; - for standard output.")
    ],
    now: Annotated[
        str | None,
        typer.Option(
            "--now", metavar="ISO", help="Instant against which the future is judged, with zone. Default: now."
        ),
    ] = None,
) -> None:
    """Say of each message whether it is accepted, rejected, a duplicate or a conflict; touch no queue and no table.

    The output appears when it is complete. Exit status 2 means that a line of the input is no message.
    """
    at = instant_of(now, "--now")
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
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    console(stderr=str(target) == "-").print(f"{sum(counts.values()):,} messages: {told}", soft_wrap=True)


@app.command()
def quarantine(
    reason: Annotated[
        list[str] | None, typer.Option("--reason", metavar="CODE", help="Only this reason; may be repeated.")
    ] = None,
    export: Annotated[
        Path | None,
        typer.Option("--export", metavar="OUT.jsonl", help="Write the messages, to be repaired and replayed."),
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="Most messages to show.")] = 20,
) -> None:
    """Show the messages that were rejected or contradict what stands, with the reason.

    Exit status 1 means that there are some.
    """
    settings = read_settings()
    from collections import Counter

    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    from finance_assets.registry import lake_of
    from finance_assets.transactions.quarantine import quarantined, write_lines

    with told_in_one_line():
        entries = list(quarantined(lake_of(settings), reason or ()))
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
        # The sender chose the id. Redacted before it is cut: half of a card number is not known for one.
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
        "--export OUT.jsonl writes them. Repair the bodies, look with transactions classify, then transactions replay.",
        soft_wrap=True,
    )
    raise typer.Exit(1)


@app.command()
def replay(
    source: Annotated[
        Path, typer.Argument(metavar="IN.jsonl", help="Messages with body or body_b64, as quarantine exports them.")
    ],
) -> None:
    """Send the messages of a file to the queue, such as those of the quarantine after a repair or a mended rule.

    A message that stands already is a duplicate, without effect. The quarantine keeps what was received.
    """
    settings = read_settings()
    from finance_assets.transactions.classifying import LineError
    from finance_assets.transactions.quarantine import bodies_of

    with told_in_one_line():
        try:
            with open_regular(source, max_bytes=MAX_REPLAYED_BYTES) as lines:
                bodies = bodies_of(lines)
        except LineError as error:
            raise fail(f"{escape_name(source)}: {error}; nothing was sent") from None
        empty = sum(not body for body in bodies)
        if empty:
            raise fail(
                f"{escape_name(source)}: {empty} messages have an empty body, which no queue carries; nothing was sent"
            )
        queue = cli_transactions_queue.main_queue(settings)
        sent = len(queue.send(bodies))
    say(f"sent {sent:,} messages to {queue.name}")
