"""Execution of assets in this process: which assets and sessions, in which runs, in which order."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import dagster as dg

from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.market.planning import SessionRange
from finance_assets.market.resources import build_market_data
from finance_assets.partitions import SessionCalendar
from finance_assets.registry import build_definitions
from finance_assets.resources import build_lake
from finance_assets.runs.instance import RunRefusedError, dagster_home, first_sentence, open_instance
from finance_assets.runs.progress import RunProgress, open_file_logger, redirect_output
from finance_assets.runs.results import RunOutcome, count_noun
from finance_assets.runs.status import find_unfinished
from finance_assets.settings import Settings
from finance_assets.storage.run_ownership import end_on_hangup, held_run
from finance_assets.storage.write_steps import report_waits_to

if TYPE_CHECKING:
    from rich.console import Console


def interrupt_on_signals() -> None:
    """Let SIGTERM and SIGHUP (a closed terminal) end this process like Ctrl-C: in order, and recorded in Dagster."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_on_hangup()


def run_missing(settings: Settings, *, select: str = "*", console: Console) -> RunOutcome | None:
    """Build what is missing in a selection; return None if nothing is.

    Missing and incomplete sessions are built, oldest first, then the tables over all sessions. If all sessions are
    complete, only tables that were never built or are older than their inputs are built.
    """
    from finance_assets.market.schedules import ranges_to_run

    ranges = ranges_to_run(settings, build_lake(settings), build_market_data(settings), everything=True)
    return _execute(settings, select, ranges, console)


def run_assets(
    settings: Settings,
    *,
    select: str = "*",
    first: date | None = None,
    last: date | None = None,
    console: Console,
) -> RunOutcome:
    """Build assets for a range of sessions, in this process.

    Parameters
    ----------
    settings
        The deployment.
    select
        Assets, in Dagster's selection syntax.
    first, last
        Range of sessions; by default all closed ones. A note names bounds that are not closed sessions.
    console
        Console for the progress.

    Raises
    ------
    RunRefusedError
        The range contains no closed session, or the selection names no asset.
    """
    chosen = _chosen_range(settings, first, last, console)
    outcome = _execute(settings, select, [chosen], console)
    assert outcome is not None, "a run over a range always has assets"
    return outcome


def _chosen_range(settings: Settings, first: date | None, last: date | None, console: Console) -> SessionRange:
    """Return the range of closed sessions between two days; print a note if it is smaller than requested."""
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    if not closed:
        raise RunRefusedError(f"no session has closed since FINANCE_ASSETS_MARKET_START={settings.start}")
    if first is not None and last is not None and first > last:
        raise RunRefusedError(f"the range ends before it begins: {first} is after {last}")
    chosen = [day for day in closed if (first is None or day >= first) and (last is None or day <= last)]
    if not chosen:
        raise RunRefusedError(
            f"there is no closed session between {first or closed[0]} and {last or closed[-1]}; "
            f"they run from {closed[0]} to {closed[-1]}"
        )
    for day, found, bound, word in (
        (first, chosen[0], closed[0], "starting with"),
        (last, chosen[-1], closed[-1], "ending with"),
    ):
        if day is not None and day != found:
            why = "outside the sessions of this deployment" if found == bound else "no session of the exchange"
            console.print(f"[yellow]note:[/yellow] {day} is {why}; {word} {found}", soft_wrap=True)
    return SessionRange(chosen[0], chosen[-1])


@dataclass(frozen=True)
class Phase:
    """The assets of one run: either all partitioned by session, or none."""

    partitioned: bool
    keys: tuple[dg.AssetKey, ...]


def plan_phases(assets: Sequence[dg.AssetsDefinition], selected: AbstractSet[dg.AssetKey]) -> list[Phase]:
    """Divide a selection into ordered runs, none of which mixes partitioned with unpartitioned assets.

    In a run over a range Dagster plans one event per partition and asset, even for assets without partitions: mixing
    them would create thousands of useless events. Assets of a definition that cannot be subset stay together; those of
    other definitions, such as dbt's, may be divided among several runs.
    """
    units: dict[dg.AssetKey, tuple[dg.AssetsDefinition, frozenset[dg.AssetKey]]] = {}
    for definition in assets:
        keys = selected & set(definition.keys)
        for key in keys:
            units[key] = (definition, frozenset({key} if definition.can_subset else keys))
    levels: dict[frozenset[dg.AssetKey], int] = {}

    def level(unit: tuple[dg.AssetsDefinition, frozenset[dg.AssetKey]]) -> int:
        definition, keys = unit
        if keys not in levels:
            parents = {
                dep.asset_key for spec in definition.specs if spec.key in keys for dep in spec.deps
            }.intersection(units) - keys
            # Within a level unpartitioned assets run first, so only edges from partitioned to unpartitioned add one.
            levels[keys] = max(
                (
                    level(units[parent])
                    + (units[parent][0].partitions_def is not None and definition.partitions_def is None)
                    for parent in parents
                ),
                default=0,
            )
        return levels[keys]

    highest = max((level(unit) for unit in units.values()), default=0)
    children: dict[dg.AssetKey, set[dg.AssetKey]] = {}
    for key, (definition, _) in units.items():
        for spec in definition.specs:
            if spec.key == key:
                for dep in spec.deps:
                    children.setdefault(dep.asset_key, set()).add(key)

    def latest(key: dg.AssetKey) -> int:
        # Starting dbt takes seconds, so a model runs as late as its children allow, together with most others.
        definition, keys = units[key]
        if not definition.can_subset or definition.partitions_def is not None:
            return level((definition, keys))
        return min((latest(child) for child in children.get(key, ())), default=highest)

    phases: dict[tuple[int, bool], set[dg.AssetKey]] = {}
    for key, (definition, _) in units.items():
        phases.setdefault((latest(key), definition.partitions_def is not None), set()).add(key)
    return [Phase(partitioned, tuple(sorted(keys))) for (_, partitioned), keys in sorted(phases.items())]


def _resolve_selection(assets: Sequence[dg.AssetsDefinition], select: str) -> AbstractSet[dg.AssetKey]:
    """Return the assets that a selection names."""
    try:
        with warnings.catch_warnings():
            # Dagster's parser itself uses a beta parameter and warns about it.
            warnings.simplefilter("ignore", dg.BetaWarning)
            selected = dg.AssetSelection.from_coercible(select).resolve(assets)
    except dg.DagsterError as error:
        # Dagster's own messages for a wrong selection do not say what to do.
        raise RunRefusedError(
            f"{select!r} is not a valid asset selection: {first_sentence(error)} {_SELECTION_HELP}"
        ) from None
    if not selected:
        raise RunRefusedError(f"the selection {select!r} names no asset. {_SELECTION_HELP}")
    # Assets of a definition that cannot be subset are built together.
    together = [set(asset.keys) for asset in assets if not asset.can_subset and not asset.keys.isdisjoint(selected)]
    return set(selected).union(*together)


_SELECTION_HELP = """Try 'key:"core/quotes"', 'group:"market"' or 'key:"core/ticker_kpis"+' (and all downstream)."""


def _execute(settings: Settings, select: str, ranges: Sequence[SessionRange], console: Console) -> RunOutcome | None:
    """Build a selection for ranges of sessions, phase by phase, and stop after the first failed run.

    Without a range only outdated tables over all sessions are built; None if there are none.
    """
    from finance_assets.terminal_output import shown_message as escape

    log = dagster_home(settings) / "terminal-runs.log"
    interrupt_on_signals()
    defs = build_definitions(settings)
    assets = [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    selected = _resolve_selection(assets, select)
    with contextlib.ExitStack() as stack:
        instance = stack.enter_context(open_instance(settings, console))
        if not ranges:
            selected = set(find_unfinished(settings, instance, assets, selected))
            if not selected:
                return None
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
            loggers={"file": stack.enter_context(open_file_logger(log))},
        )
        runs: list[tuple[dg.JobDefinition, dict[str, str]]] = []
        for phase, unresolved in zip(phases, jobs, strict=True):
            tags = [{RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()} for first, last in ranges]
            resolved = repository.resolve_job_def(unresolved.name)
            runs.extend((resolved, tag) for tag in (tags if phase.partitioned else [{}]))
        sessions = f", sessions {ranges[0].first} to {ranges[-1].last}" if ranges else ""
        gaps = f" in {len(ranges)} ranges" if len(ranges) > 1 else ""
        console.print(
            f"{count_noun(len(selected), 'asset')}{sessions}{gaps}, into {escape(settings.lake)}", soft_wrap=True
        )
        started = time.monotonic()
        outcome = RunOutcome(settings, success=True)
        shown = stack.enter_context(redirect_output(log, console))
        stack.enter_context(report_waits_to(lambda text: shown.print(escape(text), soft_wrap=True)))
        with RunProgress(shown, instance, sum(len(job.nodes) for job, _ in runs)) as progress:
            for job, tag in runs:
                run_id = str(uuid.uuid4())
                with _record_run(instance, run_id), progress.follow(run_id, len(job.nodes)):
                    result = job.execute_in_process(
                        instance=instance,
                        tags=tag,
                        run_id=run_id,
                        run_config={"loggers": {"file": {}}},
                        raise_on_error=False,
                    )
                if _was_interrupted(result):
                    raise KeyboardInterrupt
                outcome.add(result)
                if not outcome.success:
                    break
        outcome.seconds = time.monotonic() - started
    return outcome


@contextlib.contextmanager
def _record_run(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Hold the lock of a run for the length of a block; a run interrupted before its start is recorded as canceled."""
    with held_run(instance.root_directory, run_id):
        try:
            yield
        except BaseException:
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                instance.report_run_canceled(run, "The command was interrupted.")
            raise


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Return whether a run was ended by Ctrl-C or a signal, in a step or while a step waited."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    errors += [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    return any(error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in errors)
