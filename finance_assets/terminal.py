"""What every command of the terminal shares: where it prints, how it fails, how it reads settings and dates.

What belongs here: helpers of commands, and the one way to the screen: whatever is printed here is harmless (see
``text``). Heavy modules are imported inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import date
from typing import IO, TYPE_CHECKING, Any

import typer
import typer.core
from rich.console import Console, ConsoleOptions, RenderableType
from rich.markup import escape
from rich.segment import Segment

from finance_assets.text import escape_controls, escape_name, hide_url_secrets, safe_message

if TYPE_CHECKING:
    from finance_assets.settings import Settings

PREFIX = "FINANCE_ASSETS_"
PIPED_WIDTH = 120
#: Variables with the prefix that are no settings: dbt's profile reads them, and our own code sets them.
_NOT_SETTINGS = (f"{PREFIX}DBT_",)


class SafeConsole(Console):
    """A terminal on which nothing but our own styles moves, colours or hides anything; addresses show no secret.

    Line ends in what is printed stay, since they are ours: what comes from outside goes through :func:`shown`.
    """

    def render_str(self, text: str, **options: Any) -> Any:
        """Return a string as it is shown."""
        return super().render_str(escape_controls(hide_url_secrets(text), keep_newlines=True), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """Yield what is shown of anything; what did not come as a string is looked at here."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else escape_controls(segment.text, keep_newlines=True)
            yield segment if text == segment.text else Segment(text, segment.style)


def console(*, stderr: bool = False, file: IO[str] | None = None, width: int | None = None) -> Console:
    """Return the terminal; lines are long enough for every table where nobody looks at one.

    Parameters
    ----------
    stderr
        Print on standard error.
    file, width
        Print there, in so many columns.
    """
    stream = file or (sys.stderr if stderr else sys.stdout)
    if width is None and not (stream.isatty() or "COLUMNS" in os.environ):
        width = PIPED_WIDTH
    # Without emoji: ":key:" in a name is no picture.
    return SafeConsole(stderr=stderr, file=file, highlight=False, emoji=False, width=width)


def shown(value: object) -> str:
    """Return a value from outside, such as a name, for the terminal: exact, in one line, without markup."""
    return escape(escape_name(hide_url_secrets(str(value))))


def shown_message(text: object) -> str:
    """Return a message that quotes text from outside, for the terminal: in one line, without markup."""
    return escape(safe_message(text))


def say(message: object, *, stderr: bool = False) -> None:
    """Print a message that quotes text from outside, in one line however long it is."""
    console(stderr=stderr).print(shown_message(message), soft_wrap=True)


def print_text(text: str, *, end: str = "\n") -> None:
    """Print lines for a program or a file on standard output: as they are, but for control characters."""
    sys.stdout.write(escape_controls(text, keep_newlines=True) + end)
    sys.stdout.flush()


class SafeGroup(typer.core.TyperGroup):
    """The root command: what it says of wrong arguments repeats them without control characters."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments of the root."""
        with _harmless_usage_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, context: Any) -> Any:
        """Run the command, whose own arguments are read here."""
        with _harmless_usage_errors():
            return super().invoke(context)


@contextmanager
def _harmless_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Of the parser alone: its class is vendored in typer, under a name that is not public.
        if hasattr(error, "format_message") and isinstance(vars(error).get("message"), str):
            setattr(error, "message", safe_message(vars(error)["message"]))  # noqa: B010
        raise


def fail(message: str, status: int = 2) -> typer.Exit:
    """Say what is wrong on standard error, in one line, and end with a status."""
    line = " ".join(message.split())
    console(stderr=True).print(f"[red]error:[/red] {shown_message(line)}", soft_wrap=True)
    return typer.Exit(status)


def day_of(text: str | None, option: str) -> date | None:
    """Return the date that an option was given, or None where it was not given."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise fail(f"{option} takes a date such as 2013-03-01, not {text!r}") from None


def read_settings() -> Settings:
    """Read the settings; a wrong one ends the command with one line, and an unknown one is named."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as UnreadableError

    from finance_assets.settings import Settings

    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name.upper() not in known and not name.startswith(_NOT_SETTINGS):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            console(stderr=True).print(f"[yellow]warning:[/yellow] {shown(name)} is no setting{hint}", soft_wrap=True)
    try:
        return Settings.from_env()
    except ValidationError as error:
        raise fail("settings: " + "; ".join(_said(entry) for entry in error.errors(include_input=False))) from None
    except UnreadableError as error:
        raise fail(f"settings: {error}") from None


def _said(entry: object) -> str:
    """Return one problem of the settings with the name of the variable; never its value."""
    details = entry if isinstance(entry, dict) else {}
    message = str(details.get("msg", "")).removeprefix("Value error, ")
    name = "_".join(str(part) for part in details.get("loc", ())[:1]).upper()
    return f"{PREFIX}{name}: {message}" if name and PREFIX not in message else message


@contextmanager
def told_in_one_line() -> Iterator[None]:
    """Turn what a person can mend into one line: a run that cannot start, a folder or a database out of reach."""
    from sqlalchemy.exc import DatabaseError

    from finance_assets.advisory.intake import IntakeError
    from finance_assets.advisory.reading.vendor_contract import VendorContractError
    from finance_assets.regular_files import UnreadableFileError
    from finance_assets.running import RunRefusedError
    from finance_assets.storage.lake import LakeError
    from finance_assets.storage.ledger import LedgerError
    from finance_assets.storage.warehouse import WarehouseError
    from finance_assets.transactions.aws import AwsError

    try:
        yield
    except (
        RunRefusedError, LakeError, LedgerError, IntakeError, WarehouseError, AwsError, VendorContractError,
        UnreadableFileError,
    ) as error:  # fmt: skip
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{type(error).__name__}: {error}") from None
    except DatabaseError as error:
        raise fail(
            f"the database of the ledger or of Dagster cannot be used: {error.orig}; look at the room on the disk "
            "and at the permissions of its folder"
        ) from None
    except KeyboardInterrupt:
        raise fail("interrupted; finance-assets materialize goes on with what is missing", status=130) from None
