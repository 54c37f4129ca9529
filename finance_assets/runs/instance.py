"""The Dagster instance of a deployment: its folder, its configuration, and errors that say what to do."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._check import CheckError

from finance_assets.project_files import find_project_path
from finance_assets.settings import Settings
from finance_assets.storage.run_ownership import end_dead_runs

if TYPE_CHECKING:
    from rich.console import Console

INSTANCE_TEMPLATE = find_project_path("deploy/local/dagster.yaml")
#: SHA-256 of the templates that earlier releases copied to DAGSTER_HOME.
EARLIER_TEMPLATES = frozenset({"d853464ba7cbcd813232498c0295bd45fd77bf92c31c4d92d3ff9253adb7ec96"})


class RunRefusedError(ValueError):
    """The requested run is not possible; the message says why and what to do."""


def dagster_home(settings: Settings) -> Path:
    """Prepare and return the folder of the Dagster instance.

    It is ``DAGSTER_HOME`` if that is set, otherwise ``dagster`` in the home of the platform.
    An unmodified ``dagster.yaml`` of an earlier release is replaced by the current one; an edited one is kept.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home_dir / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if INSTANCE_TEMPLATE.exists() and (not target.exists() or _is_earlier_template(target)):
        # Replaced atomically, because another command may be reading it.
        part = home / f".dagster.yaml.{os.getpid()}"
        shutil.copyfile(INSTANCE_TEMPLATE, part)
        part.replace(target)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _is_earlier_template(file: Path) -> bool:
    return hashlib.sha256(file.read_bytes()).hexdigest() in EARLIER_TEMPLATES


@contextlib.contextmanager
def open_instance(settings: Settings, console: Console) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance for the length of a block, and mark runs whose process is gone as failed.

    Raises
    ------
    RunRefusedError
        ``dagster.yaml`` or a database of the instance cannot be read; the message says which and what to do.
    """
    from finance_assets.terminal_output import shown_message as escape

    home = dagster_home(settings)
    with contextlib.ExitStack() as stack:
        with _explained_instance(home):
            instance = stack.enter_context(dg.DagsterInstance.get())
            dead = end_dead_runs(instance)
            launcher = type(instance.run_launcher).__name__
        if launcher == "DefaultRunLauncher":
            console.print(
                f"[yellow]note:[/yellow] {escape(str(home / 'dagster.yaml'))} has no run_launcher, so dagster dev "
                "does not look for dead runs; copy run_launcher and run_monitoring from deploy/local/dagster.yaml",
                soft_wrap=True,
            )
        for run in dead:
            whose = escape(str(run.holder)) if run.holder else "unknown process"
            console.print(
                f"[yellow]note:[/yellow] the process of run {run.run_id[:8]} has ended ({whose}). The run is marked as "
                "failed and its pool slots are free.",
                soft_wrap=True,
            )
        yield instance


@contextlib.contextmanager
def _explained_instance(home: Path) -> Iterator[None]:
    """Turn Dagster's errors about a broken instance into one line that says what to do."""
    import yaml
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig):
            raise RunRefusedError(
                f"the Dagster databases in {home} are locked by another process; try again, and find the process with "
                "lsof if it lasts"
            ) from error
        raise RunRefusedError(
            f"the Dagster databases in {home} cannot be opened ({error.orig}); check the disk and the permissions "
            "of this folder"
        ) from error
    except DatabaseError as error:
        raise RunRefusedError(
            f"a Dagster database in {home} is damaged ({error.orig}); move {home / 'history'} and "
            f"{home / 'schedules'} away and try again: the data is in the lake and the ledger, only the records of "
            "earlier runs are lost"
        ) from error
    except (dg.DagsterError, yaml.YAMLError, CheckError, ImportError, UnicodeDecodeError, OSError) as error:
        raise RunRefusedError(
            f"{home / 'dagster.yaml'} cannot be used: {first_sentence(error)} Fix or remove it; the next command "
            "creates the default one"
        ) from error


def first_sentence(error: Exception) -> str:
    """Return the first sentence of an error's message."""
    return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".") + "."
