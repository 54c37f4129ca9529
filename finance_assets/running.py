"""Runs started by a person in a terminal: progress while they go, a table when they end.

What belongs here: what ``finance-assets demo``, ``materialize`` and ``status`` do. The runs are ordinary Dagster runs
in the instance of ``DAGSTER_HOME``, so the UI shows them too.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
import shutil
import signal
import sys
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path
from typing import IO, TYPE_CHECKING

import dagster as dg
from dagster._check import CheckError

from finance_assets.automation.run_failures import failure_message
from finance_assets.automation.unfinished import Reason, Unfinished, arrivals, unfinished_assets
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.market import QUOTES_RAW
from finance_assets.contracts.model import Contract, Partitioning, Store
from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.market.planning import SessionRange
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.registry import (
    build_assets,
    build_definitions,
    build_resources,
    intake_of,
    lake_of,
    transaction_intake_of,
    warehouse_of,
)
from finance_assets.settings import SAMPLE_END, SAMPLE_NOW, Settings
from finance_assets.storage.lake import Lake, LakeError
from finance_assets.storage.run_ownership import end_dead_runs, end_on_hangup, held_run, holder_of
from finance_assets.storage.runs import UNDER_WAY
from finance_assets.storage.warehouse import DuckDBWarehouse, WarehouseBusyError, WarehouseError
from finance_assets.storage.write_steps import waits_told_to
from finance_assets.text import SafeLineFormatter
from finance_assets.transactions.aws import AwsError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

POLL_SECONDS = 0.4
INSTANCE_TEMPLATE = Path(__file__).resolve().parents[1] / "deploy" / "local" / "dagster.yaml"
#: Versions of the template that earlier releases copied to DAGSTER_HOME, by their SHA-256.
EARLIER_TEMPLATES = frozenset({"d853464ba7cbcd813232498c0295bd45fd77bf92c31c4d92d3ff9253adb7ec96"})
#: Why a table is unfinished of which there is no file and no relation.
NOTHING_STORED = "nothing of it is stored"
#: Metadata of a materialization: rows of its partition, and rows of the whole run where the asset says so.
ROW_COUNT = "dagster/row_count"
RUN_ROW_COUNT = "run_row_count"
#: Ranges and tables that a sentence lists.
LISTED = 4
#: The sample's simulated payments: thirty days of them, each a third of an hour after the one before.
SAMPLE_TRANSACTIONS = 2160
SAMPLE_TRANSACTION_STEP = timedelta(minutes=20)
SAMPLE_TRANSACTION_SEED = 2013
SAMPLE_BAD_RATE = 0.05


class RunRefusedError(ValueError):
    """What was asked for cannot be run; the message says why and what to ask for instead."""


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
        """Read the events of a finished run.

        Rows of an asset cut into sessions are those of all runs together: of each run what it says of itself in
        ``run_row_count``, else the sum over its partitions.
        """
        self.runs.append(result.run_id)
        made: dict[str, _Made] = {}
        for event in result.all_events:
            if event.is_step_materialization:
                entry = event.step_materialization_data.materialization
                made.setdefault("/".join(entry.asset_key.path), _Made()).add(entry)
            elif event.is_step_failure:
                message = failure_message(event)
                self.failures.append((event.step_key or "", message.splitlines()[0] if message else ""))
        for path, counts in made.items():
            rows = counts.rows
            before = self.rows.get(path) if counts.partitions else None
            self.rows[path] = rows if before is None else before + (rows or 0)
            if counts.partitions:
                self.partitions[path] = self.partitions.get(path, 0) + len(counts.partitions)
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
        from finance_assets.terminal import shown_message as escape

        table = _table(("asset", "left"), ("sessions", "right"), ("rows", "right"), ("checks passed", "right"))
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
            f"{_counted(len(self.runs), 'run')} {word} in {self.seconds:.0f} s: {_counted(len(self.rows), 'asset')}, "
            f"{_counted(sum(rows or 0 for rows in self.rows.values()), 'row')}, "
            f"{passed} of {_counted(len(self.checks), 'check')} passed."
        )
        for step, message in self.failures:
            console.print(f"[red]failed[/red] {_readable(step)}: {escape(message)}", soft_wrap=True)
        repeated: dict[tuple[str, str, bool, str], int] = {}
        for asset, check, ok, is_error, text in self.checks:
            if not ok:
                repeated[asset, check, is_error, text] = repeated.get((asset, check, is_error, text), 0) + 1
        for (asset, check, is_error, text), times in repeated.items():
            kind = "[red]error[/red]" if is_error else "[yellow]warning[/yellow]"
            often = f" ({times} times)" if times > 1 else ""
            console.print(f"{kind} {asset} {check}{often}: {escape(text)}", soft_wrap=True)
        if not self.success:
            console.print(
                "\nMend the cause, then run [bold]finance-assets materialize[/bold]: it makes what is missing."
            )
        lake = escape(self.settings.lake)
        console.print()
        console.print("Where it lies", style="bold")
        console.print(f"  lake       {lake}", soft_wrap=True)
        console.print(f"  warehouse  {escape(str(self.settings.warehouse_file))}", soft_wrap=True)
        console.print(f"  published  {lake}/published", soft_wrap=True)
        if next_steps and self.success:
            console.print()
            console.print("Three things to try next", style="bold")
            console.print("  1. make dev, then open http://localhost:3000: the asset graph, this run, its checks.")
            console.print(f"  2. cat {lake}/published/ticker_documents/AAPL.json", soft_wrap=True)
            console.print(
                "  3. finance-assets explain 9756-0034 2012-11: why a vendor's stated return is not the computed one."
            )


@dataclass
class _Made:
    """What one run says of one asset."""

    counts: list[int] = field(default_factory=list)
    of_run: int | None = None
    partitions: set[str] = field(default_factory=set)

    def add(self, made: dg.AssetMaterialization) -> None:
        if made.partition is not None:
            self.partitions.add(made.partition)
        for name in (ROW_COUNT, RUN_ROW_COUNT):
            count = getattr(made.metadata.get(name), "value", None)
            if isinstance(count, int) and name == ROW_COUNT:
                self.counts.append(count)
            elif isinstance(count, int):
                self.of_run = count

    @property
    def rows(self) -> int | None:
        if self.of_run is not None:
            return self.of_run
        return sum(self.counts) if self.counts else None


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def _readable(step: str) -> str:
    """Return a step's key as the asset's: Dagster writes two underscores for the slash."""
    return step.replace("__", "/")


def _table(*columns: tuple[str, str]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, justify in columns:
        table.add_column(name, justify=justify, no_wrap=True)  # type: ignore[arg-type]
    return table


def _layer_order(path: str) -> tuple[int, str]:
    order = ("raw", "core", "staging", "intermediate", "mart", "published")
    layer = path.split("/")[0]
    return (order.index(layer) if layer in order else len(order), path)


def dagster_home(settings: Settings) -> Path:
    """Return the folder of the Dagster instance, made ready: ``DAGSTER_HOME``, or one inside the platform's home.

    A ``dagster.yaml`` that is an earlier version of ours is replaced by today's; one that somebody has edited stays.
    """
    home = Path(os.environ.get("DAGSTER_HOME") or settings.home_dir / "dagster").absolute()
    home.mkdir(parents=True, exist_ok=True)
    target = home / "dagster.yaml"
    if INSTANCE_TEMPLATE.exists() and (not target.exists() or _is_earlier_template(target)):
        # Whole at once: another command may be reading it.
        part = home / f".dagster.yaml.{os.getpid()}"
        shutil.copyfile(INSTANCE_TEMPLATE, part)
        part.replace(target)
    os.environ["DAGSTER_HOME"] = str(home)
    return home


def _is_earlier_template(file: Path) -> bool:
    return hashlib.sha256(file.read_bytes()).hexdigest() in EARLIER_TEMPLATES


@contextlib.contextmanager
def open_instance(settings: Settings, console: Console) -> Iterator[dg.DagsterInstance]:
    """Open the Dagster instance for the length of a block, and end the runs in it whose process is gone.

    Raises
    ------
    RunRefusedError
        ``dagster.yaml`` or a database of the instance cannot be read; the message says which and what to do.
    """
    from finance_assets.terminal import shown_message as escape

    home = dagster_home(settings)
    with contextlib.ExitStack() as stack:
        with _explained_instance(home):
            instance = stack.enter_context(dg.DagsterInstance.get())
            dead = end_dead_runs(instance)
            launcher = type(instance.run_launcher).__name__
        if launcher == "DefaultRunLauncher":
            console.print(
                f"[yellow]note:[/yellow] {escape(str(home / 'dagster.yaml'))} names no run_launcher, so that dagster "
                "dev does not look for dead runs; take run_launcher and run_monitoring over from "
                "deploy/local/dagster.yaml",
                soft_wrap=True,
            )
        for run in dead:
            whose = escape(str(run.holder)) if run.holder else "its process"
            console.print(
                f"[yellow]note:[/yellow] run {run.run_id[:8]} was left behind: {whose}, is gone. It is marked as ended "
                "and its slots are free.",
                soft_wrap=True,
            )
        yield instance


@contextlib.contextmanager
def _explained_instance(home: Path) -> Iterator[None]:
    """Turn what Dagster raises about a broken instance into one line that says what to do."""
    import yaml
    from sqlalchemy.exc import DatabaseError, OperationalError

    try:
        yield
    except OperationalError as error:
        if "locked" in str(error.orig):
            raise RunRefusedError(
                f"the Dagster databases in {home} are locked by another process; try again, and look with lsof who "
                "holds them where it lasts"
            ) from error
        raise RunRefusedError(
            f"the Dagster databases in {home} cannot be opened ({error.orig}); look at the disk and the permissions "
            "of that folder"
        ) from error
    except DatabaseError as error:
        raise RunRefusedError(
            f"a Dagster database in {home} is damaged ({error.orig}); move {home / 'history'} and "
            f"{home / 'schedules'} away and try again: the lake and the ledger hold the data, only the records of "
            "earlier runs are lost"
        ) from error
    except (dg.DagsterError, yaml.YAMLError, CheckError, ImportError, UnicodeDecodeError, OSError) as error:
        raise RunRefusedError(
            f"{home / 'dagster.yaml'} cannot be used: {_first_line(error)} Mend it, or remove it: the next command "
            "puts the usual one in its place"
        ) from error


def end_like_interrupt() -> None:
    """Let SIGTERM and the end of the terminal (SIGHUP) end this process as Ctrl-C does: in order, and with records."""
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, signal.default_int_handler)
    end_on_hangup()


@contextlib.contextmanager
def _file_logger(path: Path) -> Iterator[dg.LoggerDefinition]:
    """Give a logger that writes to a file while the block lasts: in a terminal the progress display speaks."""
    logger = logging.Logger("finance_assets.terminal_runs", logging.DEBUG)
    handler = logging.FileHandler(path, delay=True, encoding="utf-8")
    handler.setFormatter(SafeLineFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    try:
        yield dg.LoggerDefinition(lambda _: logger, description="Writes to terminal-runs.log in DAGSTER_HOME.")
    finally:
        handler.close()


@contextlib.contextmanager
def _output_to(path: Path, console: Console) -> Iterator[Console]:
    """Send what steps and the commands they start print to a file; give a console that still reaches the person.

    Dagster shows what a step prints both in the UI and here, where it would tear the progress display.
    """
    from finance_assets.terminal import console as console_of

    sys.stdout.flush()
    sys.stderr.flush()
    with contextlib.ExitStack() as stack:
        shown = console
        if _descriptor(console.file) in (1, 2):
            stream = stack.enter_context(os.fdopen(os.dup(console.file.fileno()), "w", encoding="utf-8"))
            shown = console_of(file=stream, width=console.width)
        log = stack.enter_context(path.open("ab"))
        for descriptor in (1, 2):
            kept = os.dup(descriptor)
            stack.callback(os.close, kept)
            stack.callback(os.dup2, kept, descriptor)
            os.dup2(log.fileno(), descriptor)
        # Before the descriptors go back, so that nothing buffered reaches the person late.
        stack.callback(sys.stderr.flush)
        stack.callback(sys.stdout.flush)
        yield shown


def _descriptor(file: IO[str]) -> int | None:
    """Return the file descriptor below a stream; None where it has none, as in a test."""
    try:
        return file.fileno()
    except (OSError, ValueError, AttributeError):
        return None


def run_missing(settings: Settings, *, select: str = "*", console: Console) -> RunOutcome | None:
    """Make what is missing of a selection; None if all is there.

    Sessions that are missing or incomplete are made, oldest first, and the tables over all sessions after them. Where
    every session is complete, those tables are made that never were, or that are older than what they are made of.
    """
    from finance_assets.automation.schedules import ranges_to_run

    resources = build_resources(settings)
    ranges = ranges_to_run(settings, resources["lake"], resources["market_data"], everything=True)
    return _run(settings, select, ranges, console)


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
        Range of sessions; by default all closed ones. What of it is no closed session is left out, and said.
    console
        Where progress is shown.

    Raises
    ------
    RunRefusedError
        No closed session lies in the range, or the selection names no asset.
    """
    chosen = _chosen_range(settings, first, last, console)
    outcome = _run(settings, select, [chosen], console)
    assert outcome is not None, "a run over a range makes something"
    return outcome


def _chosen_range(settings: Settings, first: date | None, last: date | None, console: Console) -> SessionRange:
    """Return the closed sessions between two days, and say where they are fewer than asked for."""
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    if not closed:
        raise RunRefusedError(f"no session has closed since FINANCE_ASSETS_MARKET_START={settings.start}")
    if first is not None and last is not None and first > last:
        raise RunRefusedError(f"the range ends before it begins: {first} is after {last}")
    chosen = [day for day in closed if (first is None or day >= first) and (last is None or day <= last)]
    if not chosen:
        raise RunRefusedError(
            f"no closed session lies between {first or closed[0]} and {last or closed[-1]}; "
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
    """Assets that one run makes: all cut into sessions, or none."""

    partitioned: bool
    keys: tuple[dg.AssetKey, ...]


def plan_phases(assets: Sequence[dg.AssetsDefinition], selected: AbstractSet[dg.AssetKey]) -> list[Phase]:
    """Cut a selection into runs, in order, so that none mixes partitioned with unpartitioned assets.

    In a run over a range Dagster plans an event for every partition of the range and every asset, also for those
    without partitions: mixing them would cost thousands of events that mean nothing. Assets that only come together
    stay together; those of a definition that can be cut, such as dbt's, may fall into several runs.
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
            # At one level unpartitioned assets come first, so only the step back from partitioned ones is a new level.
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
        # Starting dbt costs seconds: a model waits for as long as nothing needs it, so that most go together.
        definition, keys = units[key]
        if not definition.can_subset or definition.partitions_def is not None:
            return level((definition, keys))
        return min((latest(child) for child in children.get(key, ())), default=highest)

    phases: dict[tuple[int, bool], set[dg.AssetKey]] = {}
    for key, (definition, _) in units.items():
        phases.setdefault((latest(key), definition.partitions_def is not None), set()).add(key)
    return [Phase(place[1], tuple(sorted(keys))) for place, keys in sorted(phases.items())]


def land_sample_files(settings: Settings) -> None:
    """Put the files of the sample's fictitious vendors where files land, if that is a folder."""
    from finance_assets.advisory.intake import drop_sample_files

    if not settings.landing.startswith("s3://"):
        drop_sample_files(Path(settings.landing) / "sample")


@contextlib.contextmanager
def queued_sample(settings: Settings, console: Console) -> Iterator[Settings]:
    """Run a local queue while the block lasts, with simulated transactions in it; give settings that name the queue.

    A queue that is set is left alone: nobody wants made-up payments in it. So is a lake that holds transactions: a
    second demo changes nothing. Where no local queue can be started, that is said, and all else goes on.
    """
    from finance_assets.cli_transactions_queue import LOCAL_FOLDER
    from finance_assets.terminal import shown_message as escape
    from finance_assets.transactions import local_queue
    from finance_assets.transactions.aws import AwsError

    with contextlib.ExitStack() as stack:
        if settings.transactions_queue_url is None:
            try:
                local = stack.enter_context(local_queue.running(settings.home_dir / LOCAL_FOLDER))
                settings = settings.model_copy(
                    update={
                        "transactions_queue_url": local.queue_url,
                        "transactions_dlq_url": local.dead_letters_url,
                        "transactions_table": local.table,
                    }
                )
                _send_sample_transactions(settings)
            except (local_queue.LocalQueueError, AwsError) as error:
                console.print(f"[yellow]note:[/yellow] no transactions: {escape(str(error))}", soft_wrap=True)
        yield settings


def _send_sample_transactions(settings: Settings) -> None:
    """Put the sample's payments of thirty days into the queue, unless there are or were any."""
    from itertools import islice

    from finance_assets.transactions.producing import messages

    intake = transaction_intake_of(settings)
    if intake.queue is None or intake.lake.partitions(RAW_TRANSACTIONS) or intake.depth().total:
        return
    first = SAMPLE_NOW - SAMPLE_TRANSACTION_STEP * SAMPLE_TRANSACTIONS
    made = messages(SAMPLE_TRANSACTION_SEED, first, bad_rate=SAMPLE_BAD_RATE, step=SAMPLE_TRANSACTION_STEP)
    intake.queue.send(each.body for each in islice(made, SAMPLE_TRANSACTIONS))


def _unfinished(
    settings: Settings, instance: dg.DagsterInstance, select: AbstractSet[dg.AssetKey] | None = None
) -> dict[dg.AssetKey, Unfinished]:
    """Return what is unfinished of a selection, by default of everything."""
    assets = build_assets(settings)
    selected = {key for asset in assets for key in asset.keys} if select is None else select
    arrived = _absent(settings) | arrivals(intake_of(settings), transaction_intake_of(settings))
    return unfinished_assets(assets, selected, instance, arrived)


def _absent(settings: Settings) -> dict[dg.AssetKey, str]:
    """Return the assets without sessions of which nothing is stored, whatever Dagster has recorded."""
    lake, warehouse = lake_of(settings), warehouse_of(settings, waits=False)
    return {
        dg.AssetKey(contract.asset_key): NOTHING_STORED
        for contract in CONTRACTS.values()
        if contract.partitioning is not Partitioning.SESSION
        and not contract.may_be_empty
        and _row_counts(warehouse, lake, contract) == {}
    }


def _selected(assets: Sequence[dg.AssetsDefinition], select: str) -> AbstractSet[dg.AssetKey]:
    """Return the assets that a selection names."""
    try:
        with warnings.catch_warnings():
            # Dagster warns of a beta parameter that its own parser passes.
            warnings.simplefilter("ignore", dg.BetaWarning)
            selected = dg.AssetSelection.from_coercible(select).resolve(assets)
    except dg.DagsterError as error:
        # Dagster's own messages for a wrong selection speak of definitions; say what a person can do.
        raise RunRefusedError(f"{select!r} is no selection of assets: {_first_line(error)} {_SELECTION_HELP}") from None
    if not selected:
        raise RunRefusedError(f"the selection {select!r} names no asset. {_SELECTION_HELP}")
    # Assets that only come together are made together.
    together = [set(asset.keys) for asset in assets if not asset.can_subset and not asset.keys.isdisjoint(selected)]
    return set(selected).union(*together)


_SELECTION_HELP = """Try 'key:"core/quotes"', 'group:"market"' or 'key:"core/ticker_kpis"+' (with all that follows)."""


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".") + "."


def _run(settings: Settings, select: str, ranges: Sequence[SessionRange], console: Console) -> RunOutcome | None:
    """Make a selection for ranges of sessions: phase by phase, and stop after the first that fails.

    Without a range only tables over all sessions are made, and of them only those that are outdated; None where none
    is.
    """
    from finance_assets.terminal import shown_message as escape

    log = dagster_home(settings) / "terminal-runs.log"
    end_like_interrupt()
    defs = build_definitions(settings)
    assets = [asset for asset in defs.assets or [] if isinstance(asset, dg.AssetsDefinition)]
    selected = _selected(assets, select)
    with contextlib.ExitStack() as stack:
        instance = stack.enter_context(open_instance(settings, console))
        if not ranges:
            selected = set(_unfinished(settings, instance, selected))
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
            loggers={"file": stack.enter_context(_file_logger(log))},
        )
        runs: list[tuple[dg.JobDefinition, dict[str, str]]] = []
        for phase, unresolved in zip(phases, jobs, strict=True):
            tags = [{RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()} for first, last in ranges]
            resolved = repository.resolve_job_def(unresolved.name)
            runs.extend((resolved, tag) for tag in (tags if phase.partitioned else [{}]))
        sessions = f", sessions {ranges[0].first} to {ranges[-1].last}" if ranges else ""
        gaps = f" in {len(ranges)} ranges" if len(ranges) > 1 else ""
        console.print(
            f"{_counted(len(selected), 'asset')}{sessions}{gaps}, into {escape(settings.lake)}", soft_wrap=True
        )
        started = time.monotonic()
        outcome = RunOutcome(settings, success=True)
        shown = stack.enter_context(_output_to(log, console))
        stack.enter_context(waits_told_to(lambda text: shown.print(escape(text), soft_wrap=True)))
        with _Progress(shown, instance, sum(len(job.nodes) for job, _ in runs)) as progress:
            for job, tag in runs:
                run_id = str(uuid.uuid4())
                with _recorded_run(instance, run_id), progress.follow(run_id, len(job.nodes)):
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
def _recorded_run(instance: dg.DagsterInstance, run_id: str) -> Iterator[None]:
    """Hold a run for the length of a block; one that is interrupted before it began is recorded as canceled."""
    with held_run(instance.root_directory, run_id):
        try:
            yield
        except BaseException:
            run = instance.get_run_by_id(run_id)
            if run is not None and not run.is_finished:
                instance.report_run_canceled(run, "The command was interrupted.")
            raise


def _was_interrupted(result: dg.ExecuteInProcessResult) -> bool:
    """Whether a run ended by Ctrl-C or a signal, in a step or while one waited."""
    errors = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    errors += [event.job_failure_data.error for event in result.all_events if event.is_job_failure]
    return any(error is not None and error.cls_name == "DagsterExecutionInterruptedError" for error in errors)


class _Progress:
    """A bar that follows runs by their step events, from a thread of its own: the run has the main one, and Ctrl-C."""

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
        #: What a step waits for, as it was last printed.
        self._printed = ""

    def __enter__(self) -> _Progress:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    @contextlib.contextmanager
    def follow(self, run_id: str, steps: int) -> Iterator[None]:
        """Show how far a run has come while the block lasts, then count it as done."""
        self._progress.update(self._task, description="recording what will be made")
        ended = threading.Event()

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                # The display may miss a beat, as when the database is busy; the run goes on.
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
            description = ", ".join(_readable(name) for name in under_way)
            self._progress.update(self._task, completed=self._done + ended, description=description[:60])
            return
        waiting = _blocked_by(self._instance, run_id)
        if waiting and waiting != self._printed:
            self._printed = waiting
            self._console.print(f"waiting: {waiting}", markup=False, soft_wrap=True)
        if waiting:
            self._progress.update(self._task, completed=self._done + ended, description="waiting")


def _blocked_by(instance: dg.DagsterInstance, run_id: str) -> str:
    """Return for what the steps of a run wait: pool, run, process, and since when; empty where they do not."""
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
            return f"{_readable(steps[0])} waits for the pool {pool!r}, which run {others[0][:8]}{whose}, holds"
    return ""


def live_sessions_in(settings: Settings) -> date | None:
    """Return the newest session of the lake that lies after the sample's end; None where there is none.

    The sample would overwrite the sessions before it.
    """
    newest = partition_days(lake_of(settings).partitions(QUOTES_RAW)[-1:])
    return newest[0] if newest and newest[0] > SAMPLE_END else None


def show_status(settings: Settings, console: Console) -> bool:
    """Print every table, what it holds, what is missing or unfinished, and what to do; return whether all is there.

    It waits for nobody: a warehouse that another process holds is named as in use.
    """
    from finance_assets.automation.schedules import ranges_to_run
    from finance_assets.terminal import shown_message as escape

    lake, warehouse = lake_of(settings), warehouse_of(settings, waits=False)
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    table = _table(
        ("table", "left"),
        ("sessions", "right"),
        ("rows", "right"),
        ("newest", "left"),
        ("missing", "right"),
    )
    never: list[str] = []
    for contract in CONTRACTS.values():
        by_session = contract.partitioning is Partitioning.SESSION
        counts = _row_counts(warehouse, lake, contract)
        keys = sorted(counts or {})
        rows = "in use" if counts is None else f"{sum(counts.values()):,}"
        absent = len({day.isoformat() for day in closed}.difference(keys)) if by_session else int(not keys)
        if counts is None or contract.may_be_empty:
            missing = "-"
        else:
            missing = f"[yellow]{absent:,}[/yellow]" if absent else "0"
            if not keys:
                never.append(contract.path)
        table.add_row(
            contract.path,
            f"{len(keys):,}" if by_session else "-",
            rows,
            keys[-1] if keys and by_session else "-",
            missing,
        )
    console.print(f"profile    {settings.profile}, quotes from {', '.join(settings.market_providers)}")
    console.print(f"lake       {escape(settings.lake)}", soft_wrap=True)
    console.print(f"warehouse  {escape(str(settings.warehouse_file))}", soft_wrap=True)
    last = closed[-1] if closed else "none"
    console.print(f"clock      {settings.clock():%Y-%m-%d %H:%M} UTC, newest closed session {last}")
    console.print(table)
    resources = build_resources(settings)
    ranges = ranges_to_run(settings, lake, resources["market_data"], everything=True)
    everything = sum(first <= day <= last for day in closed for first, last in ranges)
    # Each of them prints, so both are asked.
    behind = any([_show_runs(settings, console), _show_landing(settings, console)])
    if not behind and len(never) == len([each for each in CONTRACTS.values() if not each.may_be_empty]):
        console.print("Nothing was made yet. [bold]finance-assets demo[/bold] makes all of it from the sample.")
        return False
    if everything:
        listed = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges[:LISTED])
        more = f" and {len(ranges) - LISTED} more" if len(ranges) > LISTED else ""
        console.print(f"{_counted(everything, 'session')} missing or incomplete: {listed}{more}.", soft_wrap=True)
    if never:
        console.print(f"Never made: {', '.join(never)}.", soft_wrap=True)
    if everything or never or behind:
        console.print("[bold]finance-assets materialize[/bold] makes what is missing.")
    else:
        console.print("Everything is there: every closed session is complete.")
    return not (everything or never or behind)


def _show_runs(settings: Settings, console: Console) -> bool:
    """Print the runs that are under way and the tables that are unfinished; return whether any is unfinished."""
    from finance_assets.terminal import shown_message as escape

    home = Path(os.environ.get("DAGSTER_HOME") or settings.home_dir / "dagster")
    if not home.is_dir():
        return False
    with open_instance(settings, console) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=list(UNDER_WAY))):
            whose = holder_of(instance.root_directory, run.run_id) or run.status.value.lower().replace("_", " ")
            console.print(f"Under way: run {run.run_id[:8]}, {escape(str(whose))}.", soft_wrap=True)
        try:
            unfinished = _unfinished(settings, instance)
        except AwsError as error:
            console.print(f"[yellow]warning:[/yellow] the queue cannot be asked: {escape(str(error))}", soft_wrap=True)
            return True
    by_detail: dict[str, list[str]] = {}
    for key, found in unfinished.items():
        # A table that was never made is listed with the tables.
        if found.reason is not Reason.NEVER_MADE and found.detail != NOTHING_STORED:
            by_detail.setdefault(found.detail, []).append(key.to_user_string())
    for detail, tables in by_detail.items():
        listed = ", ".join(sorted(tables)[:LISTED])
        more = f" and {len(tables) - LISTED} more" if len(tables) > LISTED else ""
        console.print(f"Unfinished: {listed}{more}: {escape(detail)}.", soft_wrap=True)
    return bool(by_detail)


def _show_landing(settings: Settings, console: Console) -> bool:
    """Print what of the landing zone is not read, and why; return whether somebody has to act on it."""
    from finance_assets.terminal import shown, shown_message

    try:
        unread = intake_of(settings).look().unread
    except LakeError as error:
        console.print(f"[yellow]warning:[/yellow] {shown_message(error)}", soft_wrap=True)
        return True
    for title, names in (
        ("Given up", [one.identity.key for one in unread.given_up]),
        ("Not read", [one.key for one in unread.refused]),
        ("Waiting for a fault to be over", [one.identity.key for one in unread.waiting]),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            listed = ", ".join(shown(name) for name in names[:LISTED])
            console.print(
                f"{title}: {listed}{more}; see [bold]finance-assets vendors quarantine[/bold].", soft_wrap=True
            )
    return bool(unread.given_up or unread.waiting)


def _row_counts(warehouse: DuckDBWarehouse, lake: Lake, contract: Contract) -> dict[str, int] | None:
    """Return rows by file, or of the whole table; None where another process holds the warehouse."""
    if contract.store is Store.LAKE:
        return lake.row_counts(contract)
    if contract.store is Store.DOCUMENTS:
        documents = len(lake.list(lake.folder(contract), ".json"))
        return {contract.name: documents} if documents else {}
    if not warehouse.path.exists():
        return {}
    try:
        return {contract.name: warehouse.read(contract, contract.key).num_rows}
    except WarehouseBusyError:
        return None
    except WarehouseError:
        # It was never made, or is not what its contract says today.
        return {}
