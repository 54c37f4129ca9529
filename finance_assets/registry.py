"""The registry: the tuple of domains, and the function that merges their definitions.

To add a domain, add its ``definitions`` module to :data:`DOMAINS`. Dagster, the command line, tests and notebooks all
call :func:`build_definitions`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from finance_assets.advisory import definitions as advisory
from finance_assets.automation import definitions as automation
from finance_assets.macro import definitions as macro
from finance_assets.market import definitions as market
from finance_assets.publishing import definitions as publishing
from finance_assets.resources import build_lake, build_ledger, build_warehouse
from finance_assets.sectors import definitions as sectors
from finance_assets.settings import Settings
from finance_assets.storage.io_managers import LakeIOManager, WarehouseIOManager
from finance_assets.transactions import definitions as transactions

DOMAINS = (market, macro, sectors, advisory, transactions, publishing, automation)


def _shared_definitions(settings: Settings) -> dg.Definitions:
    """Return the resources that all domains use, and the executor."""
    lake, warehouse = build_lake(settings), build_warehouse(settings)
    return dg.Definitions(
        resources={
            "settings": settings,
            "lake": lake,
            "warehouse": warehouse,
            "ledger": build_ledger(settings),
            "lake_io_manager": LakeIOManager(lake),
            "warehouse_io_manager": WarehouseIOManager(warehouse),
        },
        # One process per run: ten small assets take a second in one process, and half a minute in ten.
        executor=dg.in_process_executor,
    )


def _merge_domains(settings: Settings) -> dg.Definitions:
    return dg.Definitions.merge(_shared_definitions(settings), *(domain.definitions(settings) for domain in DOMAINS))


def build_resources(settings: Settings) -> dict[str, Any]:
    """Return all resources of a deployment; none of them opens anything before its first use."""
    return dict(_merge_domains(settings).resources or {})


def build_assets(settings: Settings) -> list[dg.AssetsDefinition]:
    """Return all assets, partitioned by the sessions of this deployment."""
    return [asset for asset in _merge_domains(settings).assets or [] if isinstance(asset, dg.AssetsDefinition)]


def build_definitions(settings: Settings, *, resource_overrides: Mapping[str, Any] | None = None) -> dg.Definitions:
    """Return the Definitions of a deployment.

    Parameters
    ----------
    settings
        The deployment.
    resource_overrides
        Resources that replace those of the settings, by key.

    Raises
    ------
    KeyError
        An override names an unknown resource.
    """
    merged = _merge_domains(settings)
    resources = dict(merged.resources or {})
    unknown = sorted(set(resource_overrides or {}) - set(resources))
    if unknown:
        raise KeyError(f"unknown resources {', '.join(unknown)}; known are {', '.join(sorted(resources))}")
    return dg.Definitions(
        assets=merged.assets,
        asset_checks=merged.asset_checks,
        jobs=merged.jobs,
        schedules=merged.schedules,
        sensors=merged.sensors,
        resources=resources | dict(resource_overrides or {}),
        executor=merged.executor,
    )
