"""The commands of the transactions branch: ``transactions …``.

What belongs here: ``classify`` and ``quarantine``, which need no queue. The commands on queues are in
``cli_transactions_queue``. The work is done by the transactions room, whose modules are imported inside the commands.
"""

import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from finance_assets import cli_transactions_queue
from finance_assets.terminal import console, fail

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
        with sys.stdin.buffer if str(source) == "-" else source.open("rb") as reading:
            if str(target) == "-":
                counts = classify_file(reading, sys.stdout.buffer, at)
                sys.stdout.buffer.flush()
            else:
                with part.open("wb") as writing:
                    counts = classify_file(reading, writing, at)
                os.replace(part, target)
    except LineError as error:
        raise fail(f"{source}: {error}") from None
    except OSError as error:
        raise fail(f"{error.filename or source}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
    told = ", ".join(f"{count:,} {outcome}" for outcome, count in counts.items())
    console(stderr=str(target) == "-").print(f"{sum(counts.values()):,} messages: {told}", soft_wrap=True)
