"""Errors of commands: what a command reads from options and the environment, and one line for each error.

Heavy modules are imported inside the functions, so that ``--help`` starts quickly.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING, Any

import typer
import typer.core

from finance_assets.terminal_output import console, shown, shown_message
from finance_assets.text import safe_message

if TYPE_CHECKING:
    from finance_assets.settings import Settings

PREFIX = "FINANCE_ASSETS_"
#: Variables with the prefix that are not settings: our code sets them for dbt's profile.
_NOT_SETTINGS = (f"{PREFIX}DBT_",)


class SafeGroup(typer.core.TyperGroup):
    """The root command; its messages about wrong arguments quote them without control characters."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Parse the arguments of the root command."""
        with _escape_usage_errors():
            return super().make_context(*arguments, **options)

    def invoke(self, context: Any) -> Any:
        """Parse the arguments of a subcommand and run it."""
        with _escape_usage_errors():
            return super().invoke(context)


@contextmanager
def _escape_usage_errors() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Only errors of the argument parser; typer vendors their class under a private name.
        if hasattr(error, "format_message") and isinstance(vars(error).get("message"), str):
            setattr(error, "message", safe_message(vars(error)["message"]))  # noqa: B010
        raise


def fail(message: str, status: int = 2) -> typer.Exit:
    """Print an error in one line on standard error and return the exit with a status."""
    line = " ".join(message.split())
    console(stderr=True).print(f"[red]error:[/red] {shown_message(line)}", soft_wrap=True)
    return typer.Exit(status)


def parse_day(text: str | None, option: str) -> date | None:
    """Return the date given to an option; None if the option was not used."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise fail(f"{option} takes a date such as 2013-03-01, not {text!r}") from None


def read_settings() -> Settings:
    """Read the settings; an invalid one ends the command with a one-line error, an unknown one causes a warning."""
    from pydantic import ValidationError
    from pydantic_settings import SettingsError as UnreadableError

    from finance_assets.settings import Settings

    known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and name.upper() not in known and not name.startswith(_NOT_SETTINGS):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            console(stderr=True).print(f"[yellow]warning:[/yellow] unknown setting {shown(name)}{hint}", soft_wrap=True)
    try:
        return Settings.from_env()
    except ValidationError as error:
        entries = error.errors(include_input=False)
        raise fail("settings: " + "; ".join(map(_describe_setting_error, entries))) from None
    except UnreadableError as error:
        raise fail(f"settings: {error}") from None


def _describe_setting_error(entry: object) -> str:
    """Describe one invalid setting by the name of its variable, without its value."""
    details = entry if isinstance(entry, dict) else {}
    message = str(details.get("msg", "")).removeprefix("Value error, ")
    name = "_".join(str(part) for part in details.get("loc", ())[:1]).upper()
    return f"{PREFIX}{name}: {message}" if name and PREFIX not in message else message


@contextmanager
def cli_errors() -> Iterator[None]:
    """Turn errors that the user can fix into one line: a refused run, an unreachable folder or database."""
    from sqlalchemy.exc import DatabaseError

    from finance_assets.advisory.intake import IntakeError
    from finance_assets.advisory.reading.vendor_contract import VendorContractError
    from finance_assets.regular_files import UnreadableFileError
    from finance_assets.runs.instance import RunRefusedError
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
            f"the database of the ledger or of Dagster cannot be used: {error.orig}; check the free disk space "
            "and the permissions of its folder"
        ) from None
    except KeyboardInterrupt:
        raise fail("interrupted; finance-assets materialize continues with the missing tables", status=130) from None
