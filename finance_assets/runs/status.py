"""The status of a deployment: the content of each table, what is missing or unfinished, and what to do."""

from __future__ import annotations

import os
from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from finance_assets.advisory.resources import build_intake
from finance_assets.automation.unfinished import Reason, Unfinished, arrivals, unfinished_assets
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.model import Contract, Partitioning, Store
from finance_assets.market.resources import build_market_data
from finance_assets.partitions import SessionCalendar
from finance_assets.registry import build_assets
from finance_assets.resources import build_lake, build_warehouse
from finance_assets.runs.instance import open_instance
from finance_assets.runs.results import count_noun, simple_table
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake, LakeError
from finance_assets.storage.run_ownership import holder_of
from finance_assets.storage.runs import UNDER_WAY
from finance_assets.storage.warehouse import DuckDBWarehouse, WarehouseBusyError, WarehouseError
from finance_assets.transactions.aws import AwsError
from finance_assets.transactions.resources import build_transaction_intake

if TYPE_CHECKING:
    from rich.console import Console

#: Why a table without a file or relation is unfinished.
NOTHING_STORED = "it has no stored data"
#: Maximum number of ranges or tables in a sentence.
LISTED = 4


def show_status(settings: Settings, console: Console) -> bool:
    """Print each table, its content, what is missing or unfinished, and what to do; return whether all is complete.

    A warehouse that another process has opened is shown as in use; this function does not wait for it.
    """
    from finance_assets.market.schedules import ranges_to_run
    from finance_assets.terminal_output import shown_message as escape

    lake, warehouse = build_lake(settings), build_warehouse(settings, waits=False)
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    table = simple_table(
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
    ranges = ranges_to_run(settings, lake, build_market_data(settings), everything=True)
    everything = sum(first <= day <= last for day in closed for first, last in ranges)
    # Both print, so both are called.
    behind = any([_show_runs(settings, console), _show_landing(settings, console)])
    if not behind and len(never) == len([each for each in CONTRACTS.values() if not each.may_be_empty]):
        console.print(
            "No table has been built yet. [bold]finance-assets demo[/bold] builds all of them from sample data."
        )
        return False
    if everything:
        listed = ", ".join(str(a) if a == b else f"{a} to {b}" for a, b in ranges[:LISTED])
        more = f" and {len(ranges) - LISTED} more" if len(ranges) > LISTED else ""
        console.print(f"{count_noun(everything, 'session')} missing or incomplete: {listed}{more}.", soft_wrap=True)
    if never:
        console.print(f"Never built: {', '.join(never)}.", soft_wrap=True)
    if everything or never or behind:
        console.print("[bold]finance-assets materialize[/bold] builds what is missing.")
    else:
        console.print("All tables are complete, for every closed session.")
    return not (everything or never or behind)


def _show_runs(settings: Settings, console: Console) -> bool:
    """Print active runs and unfinished tables; return whether any table is unfinished."""
    from finance_assets.terminal_output import shown_message as escape

    home = Path(os.environ.get("DAGSTER_HOME") or settings.home_dir / "dagster")
    if not home.is_dir():
        return False
    with open_instance(settings, console) as instance:
        for run in instance.get_runs(dg.RunsFilter(statuses=list(UNDER_WAY))):
            whose = holder_of(instance.root_directory, run.run_id) or run.status.value.lower().replace("_", " ")
            console.print(f"Active: run {run.run_id[:8]}, {escape(str(whose))}.", soft_wrap=True)
        try:
            assets = build_assets(settings)
            unfinished = find_unfinished(settings, instance, assets, {key for asset in assets for key in asset.keys})
        except AwsError as error:
            console.print(f"[yellow]warning:[/yellow] the queue is unreachable: {escape(str(error))}", soft_wrap=True)
            return True
    by_detail: dict[str, list[str]] = {}
    for key, found in unfinished.items():
        # Tables that were never built are listed by the caller.
        if found.reason is not Reason.NEVER_MADE and found.detail != NOTHING_STORED:
            by_detail.setdefault(found.detail, []).append(key.to_user_string())
    for detail, tables in by_detail.items():
        listed = ", ".join(sorted(tables)[:LISTED])
        more = f" and {len(tables) - LISTED} more" if len(tables) > LISTED else ""
        console.print(f"Unfinished: {listed}{more}: {escape(detail)}.", soft_wrap=True)
    return bool(by_detail)


def _show_landing(settings: Settings, console: Console) -> bool:
    """Print unread entries of the landing zone; return whether any needs action."""
    from finance_assets.terminal_output import shown, shown_message

    try:
        unread = build_intake(settings).look().unread
    except LakeError as error:
        console.print(f"[yellow]warning:[/yellow] {shown_message(error)}", soft_wrap=True)
        return True
    for title, names in (
        ("Abandoned", [one.identity.key for one in unread.given_up]),
        ("Not read", [one.key for one in unread.refused]),
        ("Waiting for a retry", [one.identity.key for one in unread.waiting]),
    ):
        if names:
            more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
            listed = ", ".join(shown(name) for name in names[:LISTED])
            console.print(
                f"{title}: {listed}{more}; see [bold]finance-assets vendors quarantine[/bold].", soft_wrap=True
            )
    return bool(unread.given_up or unread.waiting)


def find_unfinished(
    settings: Settings,
    instance: dg.DagsterInstance,
    assets: Sequence[dg.AssetsDefinition],
    selected: AbstractSet[dg.AssetKey],
) -> dict[dg.AssetKey, Unfinished]:
    """Return the unfinished assets of a selection from all assets of the deployment."""
    arrived = _assets_without_data(settings) | arrivals(build_intake(settings), build_transaction_intake(settings))
    return unfinished_assets(assets, selected, instance, arrived)


def _assets_without_data(settings: Settings) -> dict[dg.AssetKey, str]:
    """Return the unpartitioned assets without stored data, regardless of Dagster's records."""
    lake, warehouse = build_lake(settings), build_warehouse(settings, waits=False)
    return {
        dg.AssetKey(contract.asset_key): NOTHING_STORED
        for contract in CONTRACTS.values()
        if contract.partitioning is not Partitioning.SESSION
        and not contract.may_be_empty
        and _row_counts(warehouse, lake, contract) == {}
    }


def _row_counts(warehouse: DuckDBWarehouse, lake: Lake, contract: Contract) -> dict[str, int] | None:
    """Return row counts by file or of the whole table; None if another process has opened the warehouse."""
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
        # The table was never built, or does not match its current contract.
        return {}
