"""Runs started by a person in a terminal: progress while they go, a table when they end.

What belongs here: what ``finance-assets demo``, ``materialize`` and ``status`` do. The runs are ordinary Dagster runs in the
instance of ``DAGSTER_HOME``, so the UI shows them too.
"""

from __future__ import annotations

import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.model import Partitioning, Store
from finance_assets.market.planning import SessionRange
from finance_assets.partitions import SessionCalendar
from finance_assets.registry import build_definitions, build_resources, lake_of
from finance_assets.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console

POLL_SECONDS = 0.4
INSTANCE_TEMPLATE = Path(__file__).resolve().parents[1] / "deploy" / "local" / "dagster.yaml"


@dataclass
class RunOutcome:
    """What one or more runs made.

    Attributes
    ----------
    success
        Every asset was made and every check passed.
    seconds
        How long it took.
    runs
        Dagster's ids of the runs, in order.
    rows
        Rows by asset, ``layer/name``, for the assets that were made; None where the asset does not say.
    partitions
        Sessions by asset, for those that are cut into sessions.
    checks
        ``(asset, check, passed, is an error, what it says)``.
    failures
        ``(step, message)`` of what failed.
    """

    settings: Settings
    success: bool
    seconds: float = 0.0
    runs: list[str] = field(default_factory=list)
    rows: dict[str, int | None] = field(default_factory=dict)
    partitions: dict[str, int] = field(default_factory=dict)
    checks: list[tuple[str, str, bool, bool, str]] = field(default_factory=list)
    failures: list[tuple[str, str]] = field(default_factory=list)

    def add(self, result: dg.ExecuteInProcessResult) -> None:
        """Read the events of a finished run."""
        self.runs.append(result.run_id)
        for event in result.all_events:
            if event.is_step_materialization:
                made = event.step_materialization_data.materialization
                path = "/".join(made.asset_key.path)
                count = made.metadata.get("dagster/row_count")
                self.rows.setdefault(path, None)
                if made.partition is not None:
                    self.partitions[path] = self.partitions.get(path, 0) + 1
                if count is not None and isinstance(count.value, int):
                    self.rows[path] = count.value
            elif event.is_step_failure:
                error = event.step_failure_data.error
                cause = error.cause if error is not None and error.cause is not None else error
                message = cause.message.strip() if cause is not None else event.message or ""
                self.failures.append((event.step_key or "", message.splitlines()[0] if message else ""))
        checks = [
            (
                "/".join(check.asset_key.path),
                check.check_name,
                check.passed,
                check.severity is dg.AssetCheckSeverity.ERROR,
                check.description or "",
            )
            for check in result.get_asset_check_evaluations()
        ]
        self.checks.extend(checks)
        failed = any(is_error and not passed for _, _, passed, is_error, _ in checks)
        self.success = self.success and result.success and not failed

    def show(self, console: Console, *, next_steps: bool = False) -> None:
        """Print the table of results, what failed, and where everything lies."""
        from rich import box
        from rich.table import Table

        table = Table(box=box.SIMPLE_HEAD, title=None, pad_edge=False)
        table.add_column("asset")
        table.add_column("sessions", justify="right")
        table.add_column("rows", justify="right")
        table.add_column("checks passed", justify="right")
        for asset in sorted(self.rows, key=_layer_order):
            own = [check for check in self.checks if check[0] == asset]
            passed = sum(check[2] for check in own)
            rows = self.rows[asset]
            sessions = self.partitions.get(asset, 0)
            mark = f"{passed} of {len(own)}" if own else "-"
            table.add_row(
                asset,
                f"{sessions:,}" if sessions else "-",
                "-" if rows is None else f"{rows:,}",
                mark if passed == len(own) else f"[red]{mark}[/red]",
            )
        console.print()
        console.print(table)
        passed = sum(check[2] for check in self.checks)
        word = "[green]succeeded[/green]" if self.success else "[red]failed[/red]"
        console.print(
            f"{len(self.runs)} runs {word} in {self.seconds:.0f} s: {len(self.rows)} assets, "
            f"{sum(rows or 0 for rows in self.rows.values()):,} rows, {passed} of {len(self.checks)} checks passed."
        )
        for step, message in self.failures:
            console.print(f"[red]{step}[/red]: {message}", soft_wrap=True)
        for asset, check, ok, is_error, text in self.checks:
            if not ok:
                kind = "[red]error[/red]" if is_error else "[yellow]warning[/yellow]"
                console.print(f"{kind} {asset} {check}: {text}", soft_wrap=True)
        lake = self.settings.lake
        console.print()
        console.print("Where it lies", style="bold")
        console.print(f"  lake       {lake}", soft_wrap=True)
        console.print(f"  warehouse  {self.settings.warehouse_file}", soft_wrap=True)
        console.print(f"  published  {lake}/published", soft_wrap=True)
        if next_steps:
            console.print()
            console.print("Three things to try next", style="bold")
            console.print(
                "  1. make dev, then open http://localhost:3000: the asset graph, this run, its checks."
            )
            console.print(f"  2. cat {lake}/published/ticker_documents/AAPL.json", soft_wrap=True)
            console.print(
                "  3. finance-assets contracts show core/ticker_kpis: what every column means, in which unit."
            )


def _layer_order(path: str) -> tuple[int, str]:
    order = ("raw", "core", "staging", "intermediate", "mart", "published")
    layer = path.split("/")[0]
    return (order.index(layer) if layer in order else len(order), path)


def dagster_home(settings: Settings) -> Path:
    """Return the folder of the Dagster instance, made ready: ``DAGSTER_HOME``, or one inside the platform's home."""
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home_dir / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if not target.exists() and INSTANCE_TEMPLATE.exists():
        shutil.copyfile(INSTANCE_TEMPLATE, target)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _file_logger(home: Path) -> dg.LoggerDefinition:
    """Return a logger that writes to a file: in a terminal the progress display speaks."""

    @dg.logger(description="Writes to terminal-runs.log in DAGSTER_HOME.")
    def to_file(_: dg.InitLoggerContext) -> logging.Logger:
        logger = logging.getLogger("finance_assets.terminal_runs")
        logger.propagate = False
        logger.setLevel(logging.INFO)
        if not logger.handlers:
            handler = logging.FileHandler(home / "terminal-runs.log", delay=True)
            handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
            logger.addHandler(handler)
        return logger

    return to_file


def run_missing(settings: Settings, *, select: str, console: Console) -> RunOutcome | None:
    """Make every session that is missing or incomplete, oldest first, and what depends on them; None if all is there."""
    from finance_assets.automation.schedules import ranges_to_run

    resources = build_resources(settings)
    ranges = ranges_to_run(settings, resources["lake"], resources["market_data"], everything=True)
    return _run(settings, select, ranges, console) if ranges else None


def run_assets(
    settings: Settings,
    *,
    select: str = "*",
    first: date | None = None,
    last: date | None = None,
    console: Console,
) -> RunOutcome:
    """Make assets for a range of sessions, in this process.

    Parameters
    ----------
    settings
        The deployment.
    select
        Assets, in Dagster's selection syntax.
    first, last
        Range of sessions; by default all closed ones.
    console
        Where progress is shown.

    Raises
    ------
    ValueError
        No session lies in the range, or the selection names no asset.
    """
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    chosen = [day for day in closed if (first is None or day >= first) and (last is None or day <= last)]
    if not chosen:
        raise ValueError(
            f"no closed session lies between {first} and {last}; they run from {closed[0]} to {closed[-1]}"
        )
    return _run(settings, select, [SessionRange(chosen[0], chosen[-1])], console)


@dataclass(frozen=True)
class Phase:
    """Assets that one run makes: all cut into sessions, or none."""

    partitioned: bool
    keys: tuple[dg.AssetKey, ...]


def plan_phases(assets: Sequence[dg.AssetsDefinition], selected: AbstractSet[dg.AssetKey]) -> list[Phase]:
    """Cut a selection into runs, in order, so that none mixes partitioned with unpartitioned assets.

    In a run over a range Dagster plans an event for every partition of the range and every asset, also for those
    without partitions: mixing them would cost thousands of events that mean nothing.
    """
    chosen = [definition for definition in assets if selected & set(definition.keys)]
    producer = {key: definition for definition in chosen for key in definition.keys}
    levels: dict[int, int] = {}

    def level(definition: dg.AssetsDefinition) -> int:
        if id(definition) not in levels:
            parents = {
                id(producer[dep.asset_key]): producer[dep.asset_key]
                for spec in definition.specs
                for dep in spec.deps
                if dep.asset_key in producer and producer[dep.asset_key] is not definition
            }
            # At one level unpartitioned assets come first, so only the step back from partitioned ones is a new level.
            levels[id(definition)] = max(
                (
                    level(parent) + (parent.partitions_def is not None and definition.partitions_def is None)
                    for parent in parents.values()
                ),
                default=0,
            )
        return levels[id(definition)]

    phases: dict[tuple[int, bool], list[dg.AssetKey]] = {}
    for definition in chosen:
        place = (level(definition), definition.partitions_def is not None)
        phases.setdefault(place, []).extend(key for key in definition.keys if key in selected)
    return [Phase(place[1], tuple(sorted(keys))) for place, keys in sorted(phases.items())]


def _run(settings: Settings, select: str, ranges: Sequence[SessionRange], console: Console) -> RunOutcome:
    """Make a selection for ranges of sessions: phase by phase, and stop after the first that fails."""
    home = dagster_home(settings)
    defs = build_definitions(settings)
    assets = [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    selection = dg.AssetSelection.all() if select == "*" else dg.AssetSelection.from_string(select)
    selected = selection.resolve(assets)
    if not selected:
        raise ValueError(f"the selection {select!r} names no asset")
    phases = plan_phases(assets, selected)
    jobs = [
        dg.define_asset_job(f"terminal_{number}", selection=dg.AssetSelection.assets(*phase.keys))
        for number, phase in enumerate(phases)
    ]
    repository = dg.Definitions(
        assets=defs.assets,
        asset_checks=defs.asset_checks,
        jobs=jobs,
        resources=defs.resources,
        executor=defs.executor,
        loggers={"file": _file_logger(home)},
    )
    resolved = [repository.resolve_job_def(job.name) for job in jobs]
    runs = [
        (
            job,
            {RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()}
            if phase.partitioned
            else {},
        )
        for phase, job in zip(phases, resolved, strict=True)
        for first, last in (ranges if phase.partitioned else ranges[:1])
    ]
    sessions = f"{ranges[0].first} to {ranges[-1].last}"
    console.print(f"{len(selected)} assets, sessions {sessions}, into {settings.lake}", soft_wrap=True)
    started = time.monotonic()
    outcome = RunOutcome(settings, success=True)
    with dg.DagsterInstance.get() as instance:
        steps = sum(len(job.nodes) for job, _ in runs)
        with _Progress(console, steps) as progress:
            for job, tags in runs:
                result = _execute(job, tags, instance, progress)
                outcome.add(result)
                if not outcome.success:
                    break
    outcome.seconds = time.monotonic() - started
    return outcome


def _execute(
    job: dg.JobDefinition, tags: dict[str, str], instance: dg.DagsterInstance, progress: _Progress
) -> dg.ExecuteInProcessResult:
    """Run a job in a thread of this process while the display follows its events."""
    results: list[dg.ExecuteInProcessResult] = []
    errors: list[BaseException] = []
    run_id = str(uuid.uuid4())

    def work() -> None:
        try:
            results.append(
                job.execute_in_process(
                    instance=instance,
                    tags=tags,
                    run_id=run_id,
                    run_config={"loggers": {"file": {}}},
                    raise_on_error=False,
                )
            )
        except BaseException as error:
            errors.append(error)

    progress.follow(run_id)
    thread = threading.Thread(target=work, name="run")
    thread.start()
    while thread.is_alive():
        thread.join(POLL_SECONDS)
        progress.update(instance)
    if errors:
        raise errors[0]
    progress.finish(len(job.nodes))
    return results[0]


class _Progress:
    """A bar that follows runs by their step events."""

    def __init__(self, console: Console, steps: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
        )

        self._progress = Progress(
            SpinnerColumn(),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
            console=console,
            transient=True,
        )
        self._task = self._progress.add_task("starting", total=steps)
        self._run_id = ""
        self._done = 0

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def follow(self, run_id: str) -> None:
        """Follow another run."""
        self._run_id = run_id
        self._progress.update(self._task, description="recording what will be made")

    def update(self, instance: dg.DagsterInstance) -> None:
        """Show how far the run has come."""
        if not instance.has_run(self._run_id):
            return
        stats = instance.get_run_step_stats(self._run_id)
        ended = sum(step.end_time is not None for step in stats)
        under_way = [step.step_key for step in stats if step.start_time is not None and step.end_time is None]
        if under_way:
            description = ", ".join(name.replace("__", "/") for name in under_way)
            self._progress.update(self._task, completed=self._done + ended, description=description[:60])

    def finish(self, steps: int) -> None:
        """Count a run as done."""
        self._done += steps
        self._progress.update(self._task, completed=self._done)


def show_status(settings: Settings, console: Console) -> None:
    """Print every table of the lake: how many sessions, how many rows, the newest, what is missing."""
    from rich import box
    from rich.table import Table

    lake = lake_of(settings)
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name, justify in (
        ("table", "left"),
        ("files", "right"),
        ("rows", "right"),
        ("newest", "left"),
        ("missing", "right"),
    ):
        table.add_column(name, justify=justify)  # type: ignore[arg-type]
    for contract in CONTRACTS.values():
        if contract.store is not Store.LAKE:
            continue
        counts = lake.row_counts(contract)
        partitioned = contract.partitioning is Partitioning.SESSION
        newest = max(counts) if counts and partitioned else "-"
        if contract.sparse:
            missing = "-"
        elif partitioned:
            absent = len({day.isoformat() for day in closed} - set(counts))
            missing = f"[yellow]{absent:,}[/yellow]" if absent else "0"
        else:
            missing = "0" if counts else "[yellow]1[/yellow]"
        table.add_row(contract.path, f"{len(counts):,}", f"{sum(counts.values()):,}", newest, missing)
    console.print(f"profile {settings.profile}, providers {', '.join(settings.market_providers)}")
    console.print(f"lake    {settings.lake}", soft_wrap=True)
    last = closed[-1] if closed else "none"
    console.print(f"clock   {settings.clock().isoformat(timespec='minutes')}, newest closed session {last}")
    console.print(table)
