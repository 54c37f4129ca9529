"""What Dagster's checks found last: for the report, and for alerts.

What belongs here: the list of every check of the platform, and reading their newest results from the instance.
"""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dagster_metadata import CHECK_NAME
from finance_assets.contracts.dbt import dbt_test_names
from finance_assets.publishing.report import QualityLine


def check_keys() -> list[dg.AssetCheckKey]:
    """Return the key of every check: those of the contracts, dbt's tests, and those that rooms define."""
    from importlib import import_module

    from finance_assets.registry import CHECK_MODULES

    keys = []
    for contract in CONTRACTS.values():
        names = dbt_test_names(contract) if contract.is_built_by_dbt else [CHECK_NAME]
        keys += [dg.AssetCheckKey(dg.AssetKey(contract.asset_key), name) for name in names]
    for module in CHECK_MODULES:
        for checks in dg.load_asset_checks_from_modules([import_module(module)]):
            keys += list(checks.check_keys)
    return list(dict.fromkeys(keys))


def quality_lines(
    instance: dg.DagsterInstance, keys: Sequence[dg.AssetCheckKey] | None = None
) -> tuple[list[QualityLine], int]:
    """Return what every check found last, by table and name, and how many have never run."""
    lines, unchecked = [], 0
    for key in sorted(check_keys() if keys is None else keys):
        event = instance.get_latest_asset_check_evaluation_record(key)
        found = None if event is None else event.event
        evaluation = (
            None if found is None or found.dagster_event is None else found.dagster_event.asset_check_evaluation_data
        )
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
