"""What runs produced: rows, checks and failures, and the table that shows them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import dagster as dg

from finance_assets.automation.run_failures import failure_message
from finance_assets.project_files import find_checkout
from finance_assets.settings import Settings

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

#: Metadata of a materialization: rows of its partition, and rows of the whole run if the asset reports them.
ROW_COUNT = "dagster/row_count"
RUN_ROW_COUNT = "run_row_count"


@dataclass
class RunOutcome:
    """The results of one or more runs.

    Attributes
    ----------
    success
        All assets were built and all checks passed.
    seconds
        Elapsed time.
    runs
        Dagster ids of the runs, in order.
    rows
        Rows by asset, ``layer/name``, for the assets that were built; None if the asset does not report them.
    partitions
        Number of sessions by asset, for assets partitioned by session.
    checks
        ``(asset, check, passed, is an error, description)``.
    failures
        ``(step, message)`` of failed steps.
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
        """Add the events of a finished run.

        Rows of an asset partitioned by session are summed over all runs. The rows of one run are its
        ``run_row_count``, or the sum over its partitions if it reports none.
        """
        self.runs.append(result.run_id)
        by_asset: dict[str, _AssetRows] = {}
        for event in result.all_events:
            if event.is_step_materialization:
                entry = event.step_materialization_data.materialization
                by_asset.setdefault("/".join(entry.asset_key.path), _AssetRows()).add(entry)
            elif event.is_step_failure:
                message = failure_message(event)
                self.failures.append((event.step_key or "", message.splitlines()[0] if message else ""))
        for path, counts in by_asset.items():
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
        """Print the table of results, the failures, and where the data is stored."""
        from finance_assets.terminal_output import shown_message as escape

        table = simple_table(("asset", "left"), ("sessions", "right"), ("rows", "right"), ("checks passed", "right"))
        for asset in sorted(self.rows, key=_layer_order):
            checks = [check for check in self.checks if check[0] == asset]
            passed = sum(check[2] for check in checks)
            rows = self.rows[asset]
            sessions = self.partitions.get(asset, 0)
            mark = f"{passed} of {len(checks)}" if checks else "-"
            table.add_row(
                asset,
                f"{sessions:,}" if sessions else "-",
                "-" if rows is None else f"{rows:,}",
                mark if passed == len(checks) else f"[red]{mark}[/red]",
            )
        console.print()
        console.print(table)
        passed = sum(check[2] for check in self.checks)
        word = "[green]succeeded[/green]" if self.success else "[red]failed[/red]"
        console.print(
            f"{count_noun(len(self.runs), 'run')} {word} in {self.seconds:.0f} s: "
            f"{count_noun(len(self.rows), 'asset')}, "
            f"{count_noun(sum(rows or 0 for rows in self.rows.values()), 'row')}, "
            f"{passed} of {count_noun(len(self.checks), 'check')} passed."
        )
        for step, message in self.failures:
            console.print(f"[red]failed[/red] {step_asset(step)}: {escape(message)}", soft_wrap=True)
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
                "\nFix the cause, then run [bold]finance-assets materialize[/bold]: it builds what is missing."
            )
        lake = escape(self.settings.lake)
        console.print()
        console.print("Where the data is", style="bold")
        console.print(f"  lake       {lake}", soft_wrap=True)
        console.print(f"  warehouse  {escape(str(self.settings.warehouse_file))}", soft_wrap=True)
        console.print(f"  published  {lake}/published", soft_wrap=True)
        if next_steps and self.success:
            console.print()
            console.print("Three things to try next", style="bold")
            start = "make dev" if find_checkout() else "dagster dev -m finance_assets.definitions"
            console.print(f"  1. {start}, then open http://localhost:3000: the asset graph, this run, its checks.")
            console.print(f"  2. cat {lake}/published/ticker_documents/AAPL.json", soft_wrap=True)
            console.print(
                "  3. finance-assets explain 9756-0034 2012-11: why a vendor's return differs from the computed one."
            )


@dataclass
class _AssetRows:
    """The row counts that one run reports for one asset."""

    counts: list[int] = field(default_factory=list)
    of_run: int | None = None
    partitions: set[str] = field(default_factory=set)

    def add(self, event: dg.AssetMaterialization) -> None:
        """Add one materialization."""
        if event.partition is not None:
            self.partitions.add(event.partition)
        for name in (ROW_COUNT, RUN_ROW_COUNT):
            count = getattr(event.metadata.get(name), "value", None)
            if isinstance(count, int) and name == ROW_COUNT:
                self.counts.append(count)
            elif isinstance(count, int):
                self.of_run = count

    @property
    def rows(self) -> int | None:
        """Rows of the run; None if the asset reports none."""
        if self.of_run is not None:
            return self.of_run
        return sum(self.counts) if self.counts else None


def count_noun(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural if needed."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def step_asset(step: str) -> str:
    """Return the asset of a step key, in which Dagster replaces the slash by two underscores."""
    return step.replace("__", "/")


def simple_table(*columns: tuple[str, str]) -> Table:
    """Return an empty table; each column has a name and a justification."""
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
