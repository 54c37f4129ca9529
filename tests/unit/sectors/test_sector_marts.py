"""The sectors branch as Dagster sees it, without starting dbt."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW
from finance_assets.contracts import market, sectors
from finance_assets.contracts.dbt import dbt_test_names
from finance_assets.contracts.model import Contract, ContractError
from finance_assets.sectors.assets import sector_models, sector_risk_models
from finance_assets.transform import dbt_assets

STEPS = [(sector_models, sectors.COMPOSITES), (sector_risk_models, sectors.RISK_MARTS)]


@pytest.mark.parametrize(("models", "contracts"), STEPS)
def test_each_model_is_an_asset_with_what_its_contract_says(
    models: dg.AssetsDefinition, contracts: tuple[Contract, ...]
) -> None:
    specs = {spec.key.to_user_string(): spec for spec in models.specs}
    assert set(specs) == {contract.path for contract in contracts}
    for contract in contracts:
        spec = specs[contract.path]
        assert {dep.asset_key.to_user_string() for dep in spec.deps} == set(contract.inputs)
        assert spec.group_name == "sectors"
        assert list(spec.owners) == [contract.owner]
        assert spec.kinds == {"dbt", "sql", "duckdb"}
        assert spec.description is not None
        assert spec.description.startswith(contract.grain)
        assert spec.automation_condition is not None
        columns = spec.metadata["dagster/column_schema"].columns
        assert [(column.name, column.type) for column in columns] == [
            (column.name, column.sql_type) for column in contract.columns
        ]
        assert all(column.tags["unit"] for column in columns)


@pytest.mark.parametrize(("models", "contracts"), STEPS)
def test_each_generated_test_is_a_blocking_check(models: dg.AssetsDefinition, contracts: tuple[Contract, ...]) -> None:
    checks = list(models.check_specs)
    assert {(check.asset_key.to_user_string(), check.name) for check in checks} == {
        (contract.path, name) for contract in contracts for name in dbt_test_names(contract)
    }
    assert all(check.blocking for check in checks)
    assert all(check.description for check in checks)


def test_models_run_one_at_a_time_and_can_be_chosen() -> None:
    for models, _ in STEPS:
        assert models.op.pool == "warehouse"
        assert "warehouse" in models.required_resource_keys
        assert models.can_subset


def test_models_wait_for_the_blocking_checks_of_their_inputs() -> None:
    for models, _ in STEPS:
        assert all(spec.automation_condition == WHEN_HISTORY_IS_NEW for spec in models.specs)


def test_loading_the_definitions_imports_no_dbt() -> None:
    """dbt and dagster-dbt take seconds to import; every run starts a process that loads the definitions."""
    code = (
        "import sys, finance_assets.sectors.assets; "
        "print([name for name in sys.modules if name.split('.')[0] in ('dbt', 'dagster_dbt', 'duckdb', 'pandas')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "[]"


def test_a_lake_table_is_no_dbt_model() -> None:
    with pytest.raises(ContractError, match="core/quotes is kept in the lake"):
        dbt_assets.dbt_asset_specs([market.QUOTES])


def test_the_environment_is_put_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = Path.cwd()
    monkeypatch.setenv("HELD", "before")
    monkeypatch.delenv("FREE", raising=False)
    with pytest.raises(RuntimeError), dbt_assets.environment({"HELD": "within", "FREE": "within"}):
        assert (os.environ["HELD"], os.environ["FREE"]) == ("within", "within")
        os.chdir(tmp_path)
        raise RuntimeError
    assert Path.cwd() == folder
    assert os.environ["HELD"] == "before"
    assert "FREE" not in os.environ


def test_a_missing_dbt_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    with pytest.raises(dg.Failure, match="make setup"):
        dbt_assets.dbt_executable()


def test_only_the_newest_targets_are_kept(tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"run-{number}"
        folder.mkdir()
        os.utime(folder, (number, number))
    dbt_assets._keep_newest(tmp_path, 2)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run-3", "run-4"]
