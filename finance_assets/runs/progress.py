"""The progress display of runs in a terminal, and the log file that takes the output of their steps."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

import dagster as dg

from finance_assets.runs.results import step_asset
from finance_assets.storage.run_ownership import holder_of
from finance_assets.text import SafeLineFormatter

if TYPE_CHECKING:
    from rich.console import Console

POLL_SECONDS = 0.4


@contextlib.contextmanager
def open_file_logger(path: Path) -> Iterator[dg.LoggerDefinition]:
    """Yield a logger that writes to a file for the length of a block; the terminal shows the progress display."""
    logger = logging.Logger("finance_assets.terminal_runs", logging.DEBUG)
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(SafeLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield dg.LoggerDefinition(lambda _: logger, description="Writes to terminal-runs.log in DAGSTER_HOME.")
    finally:
        handler.close()


@contextlib.contextmanager
def redirect_output(path: Path, console: Console) -> Iterator[Console]:
    """Redirect the output of steps and their child processes to a file; yield a console on the terminal.

    Dagster copies the output of a step to the terminal too, where it would break the progress display.
    """
    from finance_assets.terminal_output import console as console_of

    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        shown = console
        if _file_descriptor(console.file) in (1, 2):
            stream = stack.enter_context(os.fdopen(os.dup(console.file.fileno()), "w", encoding="utf-8"))
            shown = console_of(file=stream, width=console.width)
        log = stack.enter_context(path.open("ab"))
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(log.fileno(), descriptor)
        # Flush before the descriptors are restored, so that no buffered output reaches the terminal.
        stack.callback(sys.stderr.flush)
        stack.callback(sys.stdout.flush)
        yield shown


def _file_descriptor(file: IO[str]) -> int | None:
    """Return the file descriptor of a stream; None if it has none, as in a test."""
    try:
        return file.fileno()
    except (OSError, ValueError, AttributeError):
        return None


class RunProgress:
    """A progress bar that follows the step events of runs from a separate thread; the run needs the main thread."""

    def __init__(self, console: Console, instance: dg.DagsterInstance, steps: int) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}", markup=False),
            console=console,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
            disable=not console.is_terminal,
        )
        self._console = console
        self._task = self._progress.add_task("starting", total=steps)
        self._instance = instance
        self._done = 0
        #: The last printed message about a waiting step.
        self._printed = ""

    def __enter__(self) -> RunProgress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def follow(self, run_id: str, steps: int) -> Iterator[None]:
        """Show the progress of a run for the length of a block, then count it as done."""
        self._progress.update(self._task, description="recording the plan")
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                # The display may skip an update, for example when the database is busy.
                with contextlib.suppress(Exception):
                    self._look(run_id)

        thread = threading.Thread(target=watch, name="progress", daemon=True)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
        self._done += steps
        self._progress.update(self._task, completed=self._done)

    def _look(self, run_id: str) -> None:
        if not self._instance.has_run(run_id):
            return
        stats = self._instance.get_run_step_stats(run_id)
        ended = sum(step.end_time is not None for step in stats)
        under_way = [step.step_key for step in stats if step.start_time is not None and step.end_time is None]
        if under_way:
            description = ", ".join(step_asset(name) for name in under_way)
            self._progress.update(self._task, completed=self._done + ended, description=description[:60])
            return
        waiting = describe_wait(self._instance, run_id)
        if waiting and waiting != self._printed:
            self._printed = waiting
            self._console.print(f"waiting: {waiting}", markup=False, soft_wrap=True)
        if waiting:
            self._progress.update(self._task, completed=self._done + ended, description="waiting")


def describe_wait(instance: dg.DagsterInstance, run_id: str) -> str:
    """Describe what the steps of a run wait for: pool, run, process and start time; empty if they do not wait."""
    storage = instance.event_log_storage
    for pool in sorted(storage.get_concurrency_keys()):
        info = storage.get_concurrency_info(pool)
        steps = sorted(step.step_key for step in info.pending_steps if step.run_id == run_id)
        others = sorted({slot.run_id for slot in info.claimed_slots} - {run_id})
        if steps and others:
            holder = holder_of(instance.root_directory, others[0])
            run = instance.get_run_record_by_id(others[0])
            since = f", since {run.create_timestamp:%Y-%m-%d %H:%M:%S} UTC" if run is not None else ""
            whose = f" of {holder}" if holder else since
            return f"{step_asset(steps[0])} waits for the pool {pool!r}, which run {others[0][:8]}{whose}, holds"
    return ""
