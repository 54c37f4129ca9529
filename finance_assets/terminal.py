"""What every command of the terminal shares: where it prints, how it fails, how it reads settings and dates.

What belongs here: helpers of commands. Heavy modules are imported inside them, so that ``--help`` answers at once.
"""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.markup import escape

if TYPE_CHECKING:
    from finance_assets.settings import Settings

PREFIX = "FINANCE_ASSETS_"
PIPED_WIDTH = 120
#: Variables with the prefix that are no settings: dbt's profile reads them, and our own code sets them.
_NOT_SETTINGS = (f"{PREFIX}DBT_",)


def console(*, stderr: bool = False) -> Console:
    """Return the terminal; lines are long enough for every table where nobody looks at one."""
    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else PIPED_WIDTH
    return Console(stderr=stderr, highlight=False, width=width)


def fail(message: str, status: int = 2) -> typer.Exit:
    """Say what is wrong on standard error, in one line, and end with a status."""
    line = " ".join(message.split())
    console(stderr=True).print(f"[red]error:[/red] {escape(line)}", soft_wrap=True)
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
            console(stderr=True).print(f"[yellow]warning:[/yellow] {name} is no setting{hint}", soft_wrap=True)
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
    from sqlalchemy.exc import OperationalError

    from finance_assets.advisory.reading.vendor_contract import VendorContractError
    from finance_assets.running import RunRefusedError
    from finance_assets.storage.lake import LakeError
    from finance_assets.storage.warehouse import WarehouseError
    from finance_assets.transactions.aws import AwsError

    try:
        yield
    except (RunRefusedError, LakeError, WarehouseError, AwsError, VendorContractError) as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"{type(error).__name__}: {error}") from None
    except OperationalError as error:
        raise fail(f"the database of the ledger or of Dagster cannot be reached: {error.orig}") from None
    except KeyboardInterrupt:
        raise fail("interrupted; finance-assets materialize goes on with what is missing", status=130) from None
