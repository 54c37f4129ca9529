"""Where everything lives: group -> modules, and the one function that makes Definitions of them.

What belongs here: the list of rooms and the wiring of resources. A newcomer reads :data:`ASSET_MODULES` and knows
the house; Dagster, the command line, tests and notebooks all call :func:`build_definitions`.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

import dagster as dg

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.partitions import SESSIONS, daily_sessions
from finance_assets.settings import Settings
from finance_assets.storage.io_managers import LakeIOManager, WarehouseIOManager
from finance_assets.storage.lake import Lake, S3Options, WriterOptions
from finance_assets.storage.ledger import Ledger
from finance_assets.storage.warehouse import DuckDBWarehouse

if TYPE_CHECKING:
    from finance_assets.advisory.intake import Intake
    from finance_assets.transactions.draining import TransactionIntake

# Backfill policies are the one beta parameter that is worth its warning (see docs/architecture.md).
warnings.filterwarnings("ignore", message=".*`backfill_policy`.*", category=dg.BetaWarning)

#: Asset group -> modules that define its assets.
ASSET_MODULES: dict[str, tuple[str, ...]] = {
    "market": ("finance_assets.market.assets",),
    "macro": ("finance_assets.macro.assets",),
    "sectors": ("finance_assets.sectors.assets",),
    "advisory": ("finance_assets.advisory.assets",),
    "transactions": ("finance_assets.transactions.assets",),
    "publishing": ("finance_assets.publishing.assets",),
}
#: Modules whose asset checks go beyond the contracts.
CHECK_MODULES: tuple[str, ...] = (
    "finance_assets.market.checks",
    "finance_assets.macro.checks",
    "finance_assets.sectors.checks",
    "finance_assets.advisory.checks",
    "finance_assets.publishing.checks",
)


def _modules(names: tuple[str, ...]) -> list[ModuleType]:
    return [import_module(name) for name in names]


def lake_of(settings: Settings) -> Lake:
    """Return the lake of a deployment."""
    return Lake(
        settings.lake,
        S3Options(settings.aws_region, settings.s3_endpoint_url),
        WriterOptions(settings.writer_lease_seconds, settings.writer_wait_seconds),
    )


def warehouse_of(settings: Settings, *, waits: bool = True) -> DuckDBWarehouse:
    """Return the warehouse of a deployment; with ``waits`` false, one that is held is refused at once."""
    return DuckDBWarehouse(
        path=settings.warehouse_file,
        lake=lake_of(settings),
        contracts=tuple(CONTRACTS.values()),
        scratch_dir=settings.home_dir / "scratch",
        waits=waits,
    )


def intake_of(settings: Settings) -> Intake:
    """Return the way of vendors' files into a deployment."""
    from finance_assets.advisory.intake import SHIPPED_CONTRACTS, Intake
    from finance_assets.storage.landing import Landing

    own = settings.vendor_contracts or settings.home_dir / "vendors"
    return Intake(
        landing=Landing(settings.landing, S3Options(settings.aws_region, settings.s3_endpoint_url)),
        lake=lake_of(settings),
        ledger=Ledger(settings.ledger, settings.clock),
        contract_folders=(SHIPPED_CONTRACTS, own),
    )


def transaction_intake_of(settings: Settings) -> TransactionIntake:
    """Return the way of queued transactions into a deployment."""
    from finance_assets.transactions.draining import TransactionIntake
    from finance_assets.transactions.queue import Queue

    url = settings.transactions_queue_url
    return TransactionIntake(
        lake=lake_of(settings),
        queue=None if url is None else Queue(url, settings.aws_region, settings.arrival_clock),
        clock=settings.arrival_clock,
        max_messages=settings.transactions_drain_max_messages,
        micro_batch_messages=settings.transactions_micro_batch_messages,
    )


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return every resource of a deployment; none of them opens anything before it is used."""
    from finance_assets.macro.resources import MacroData
    from finance_assets.market.resources import MarketData

    lake, warehouse = lake_of(settings), warehouse_of(settings)
    intake = intake_of(settings)
    ledger = intake.ledger
    return {
        "settings": settings,
        "lake": lake,
        "warehouse": warehouse,
        "ledger": ledger,
        "market_data": MarketData(settings, ledger),
        "macro_data": MacroData(settings),
        "intake": intake,
        "transaction_intake": transaction_intake_of(settings),
        "lake_io_manager": LakeIOManager(lake),
        "warehouse_io_manager": WarehouseIOManager(warehouse),
    }


def build_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return every asset, cut into the sessions of this deployment's calendar and clock."""
    sessions = daily_sessions(settings)

    def place(spec: dg.AssetSpec) -> dg.AssetSpec:
        return spec.replace_attributes(partitions_def=sessions) if spec.partitions_def == SESSIONS else spec

    modules = [module for names in ASSET_MODULES.values() for module in _modules(names)]
    return [
        definition.map_asset_specs(place)
        for definition in dg.load_assets_from_modules(modules)
        if isinstance(definition, dg.AssetsDefinition)
    ]


def build_definitions(settings: Settings, *, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the Definitions of a deployment.

    Parameters
    ----------
    settings
        The deployment.
    resource_overrides
        Resources to use instead of the settings' own, by key.

    Raises
    ------
    KeyError
        An override names no resource.
    """
    from finance_assets.advisory.sensors import advisory_job, vendor_files_sensor
    from finance_assets.automation.data_alerts import data_alerts
    from finance_assets.automation.run_failures import run_failure_alerts
    from finance_assets.automation.schedules import (
        MORNING_JOBS,
        MORNING_SCHEDULES,
        market_sessions_daily,
        market_sessions_job,
    )
    from finance_assets.automation.unfinished import unfinished_sessions, unfinished_work
    from finance_assets.transactions.sensors import queued_transactions_sensor, transactions_job

    resources = build_resources(settings)
    unknown = sorted(set(resource_overrides or {}) - set(resources))
    if unknown:
        raise KeyError(f"no resource is called {', '.join(unknown)}; there are {', '.join(sorted(resources))}")
    return dg.Definitions(
        assets=build_assets(settings),
        asset_checks=[
            *contract_checks(CONTRACTS.values()),
            *dg.load_asset_checks_from_modules(_modules(CHECK_MODULES)),
        ],
        jobs=[market_sessions_job, *MORNING_JOBS, advisory_job, transactions_job],
        schedules=[market_sessions_daily, *MORNING_SCHEDULES],
        sensors=[
            run_failure_alerts,
            data_alerts,
            vendor_files_sensor,
            queued_transactions_sensor,
            unfinished_work,
            unfinished_sessions,
            dg.AutomationConditionSensorDefinition(
                "automation",
                target=dg.AssetSelection.all(),
                default_status=dg.DefaultSensorStatus.RUNNING,
                description="Starts assets whose inputs are new and good.",
            ),
        ],
        resources={**resources, **(resource_overrides or {})},
        # One process per run: ten small assets take a second in one process, and half a minute in ten.
        executor=dg.in_process_executor,
    )
