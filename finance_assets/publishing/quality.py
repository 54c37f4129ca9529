"""What Dagster's checks found last: for the report, and for alerts.

What belongs here: the list of every check of the platform, and reading their newest results from the instance.
"""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
from collections.abc import Sequence
from types import ModuleType

import dagster as dg

import finance_assets
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import CHECK_NAME
from finance_assets.contracts.dbt import dbt_test_names
from finance_assets.publishing.report import QualityLine

#: Runs in a row that may have planned a check without coming to it.
PLANNED_AT_MOST = 20


def check_keys() -> list[dg.AssetCheckKey]:
    """Return the key of every check: those of the contracts, dbt's tests, and those that rooms define."""
    keys = []
    for contract in CONTRACTS.values():
        names = dbt_test_names(contract) if contract.is_built_by_dbt else [CHECK_NAME]
        keys += [dg.AssetCheckKey(dg.AssetKey(contract.asset_key), name) for name in names]
    for checks in dg.load_asset_checks_from_modules(_check_modules()):
        keys += list(checks.check_keys)
    return list(dict.fromkeys(keys))


def _check_modules() -> list[ModuleType]:
    """Return the module ``checks`` of each domain that has one."""
    packages = [module.name for module in pkgutil.iter_modules(finance_assets.__path__) if module.ispkg]
    names = [f"{finance_assets.__name__}.{package}.checks" for package in packages]
    return [importlib.import_module(name) for name in names if importlib.util.find_spec(name) is not None]


def newest_evaluation(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> tuple[dg.EventLogEntry, dg.AssetCheckEvaluation] | None:
    """Return what a check found last, and the event that says so; None where it has never run to its end.

    A run plans its checks before they run, and one that dies leaves them so: what was found before still stands.
    """
    for record in instance.event_log_storage.get_asset_check_execution_history(key, limit=PLANNED_AT_MOST):
        event = record.event
        if event is None or event.dagster_event is None:
            continue
        if event.dagster_event.event_type_value == dg.DagsterEventType.ASSET_CHECK_EVALUATION.value:
            return event, event.dagster_event.asset_check_evaluation_data
    return None


def quality_lines(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey] | None = None
) -> tuple[list[QualityLine], int]:
    """Return what every check found last, by table and name, and how many have never run."""
    lines, unchecked = [], 0
    for key in sorted(check_keys() if keys is None else keys):
        found = newest_evaluation(instance, key)
        evaluation = None if found is None else found[1]
        if evaluation is None:
            unchecked += 1
            continue
        lines.append(
            QualityLine(
                table=key.asset_key.to_user_string(),
                check=key.name,
                passed=evaluation.passed,
                is_error=evaluation.severity is dg.AssetCheckSeverity.ERROR,
                description=evaluation.description or "",
            )
        )
    return lines, unchecked
