"""dbt's YAML, generated from the contracts: sources, models, columns and data tests.

What belongs here: pure functions from contracts to YAML text, and the two that compare it with a dbt project or write
it there. The SQL of a model is written by hand in ``dbt_project/models``; what is promised about its rows is not
written twice, so the rules come out of :mod:`finance_assets.contracts.validation`.

After changing a contract, run ``make generate``; a test fails while the files are stale.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.model import Column, Contract, ContractError, Layer, Store
from finance_assets.contracts.validation import column_expressions, rule_expressions
from finance_assets.project_files import find_project_path

#: Lake layers that dbt reads, each a dbt source of the same name.
SOURCE_LAYERS = (Layer.RAW, Layer.CORE)
#: Warehouse layers that dbt builds, in the order of the data's way.
MODEL_LAYERS = (Layer.STAGING, Layer.INTERMEDIATE, Layer.MART)
#: The dbt project of this repository.
PROJECT_DIR = find_project_path("dbt_project")

_HEADER = """\
# Generated from finance_assets.contracts. Do not edit: change the contract, then run
#   make generate
"""
_LINE_WIDTH = 118

#: DuckDB alone knows ``isfinite``. Comparing the magnitude with the largest double says the same everywhere: infinity
#: is above it, and NaN either sorts above every number (DuckDB, PostgreSQL) or compares as false.
_IS_FINITE = re.compile(r'\bisfinite\(\s*("(?:[^"]|"")+"|[a-z_][a-z0-9_.]*)\s*\)', re.IGNORECASE)
_LARGEST_DOUBLE = "cast('1.7976931348623157e308' as double precision)"


def portable_sql(expression: str) -> str:
    """Return a rule's expression in SQL that DuckDB, PostgreSQL and Redshift all take.

    Parameters
    ----------
    expression
        Boolean SQL expression from :func:`finance_assets.contracts.validation.rule_expressions`.

    Raises
    ------
    ContractError
        The expression calls ``isfinite`` on more than a column, which cannot be rewritten.
    """
    rewritten = _IS_FINITE.sub(rf"abs(\1) <= {_LARGEST_DOUBLE}", expression)
    if "isfinite" in rewritten.lower():
        raise ContractError(f"isfinite is DuckDB's own and takes a column here: {expression}")
    return rewritten


def _column_kind(column: Column, rule: str) -> str:
    """Return which of a model's tests holds a column's rule."""
    if rule == f"{column.name} is not null":
        return "not_null"
    if rule == f"{column.name} is finite":
        return "finite"
    if rule == f"{column.name} is one of its allowed values":
        return "allowed"
    if rule.startswith((f"{column.name} >", f"{column.name} <=")):
        return "in_bounds"
    raise ContractError(f"no dbt test is generated for the rule {rule!r}; name its kind in contracts/dbt.py")


def rules_by_test(contract: Contract) -> dict[str, dict[str, str]]:
    """Return the row rules of a contract as its dbt tests hold them.

    Returns
    -------
    dict
        Kind of test (``not_null``, ``finite``, ``in_bounds``, ``allowed``, ``rules``) -> rule name -> portable SQL that
        is true for a legal row. Kinds without a rule are left out.
    """
    kinds: dict[str, dict[str, str]] = {kind: {} for kind in ("not_null", "finite", "in_bounds", "allowed", "rules")}
    of_columns = {
        rule: _column_kind(column, rule) for column in contract.columns for rule in column_expressions(column)
    }
    for rule, expression in rule_expressions(contract).items():
        kinds[of_columns.get(rule, "rules")][rule] = portable_sql(expression)
    return {kind: rules for kind, rules in kinds.items() if rules}


def _relation(path: str) -> str:
    """Return how a dbt test names the relation of ``layer/name``."""
    layer, name = path.split("/", 1)
    return f"source('{layer}', '{name}')" if layer in SOURCE_LAYERS else f"ref('{name}')"


def _references(contract: Contract) -> list[tuple[str, str, str]]:
    """Return (column, relation, field) for each column that refers to another table."""
    found = []
    for column in contract.columns:
        if column.references is not None:
            path, _, field = column.references.rpartition(".")
            if path not in CONTRACTS or field not in CONTRACTS[path].column_names:
                raise ContractError(f"{contract.path}.{column.name} refers to {column.references}, which is no column")
            found.append((column.name, path, field))
    return found


def dbt_tests(contract: Contract) -> dict[str, dict[str, Any]]:
    """Return the data tests of one model: stable test name -> dbt's entry for it.

    One test per kind of promise, so that a table is scanned a handful of times and not once per column; each
    failing row carries the name of the rule that it breaks.
    """
    key = list(contract.key)
    tests: dict[str, dict[str, Any]] = {}

    def add(kind: str, macro: str, arguments: Mapping[str, Any]) -> None:
        name = f"{contract.name}__{kind}"
        tests[name] = {macro: {"name": name, "arguments": {"key": key, **arguments}}}

    add("unique_key", "contract_unique_key", {})
    for kind, rules in rules_by_test(contract).items():
        add(kind, "contract_rules", {"rules": dict(rules)})
    for column, path, field in _references(contract):
        add(
            f"{column}__references",
            "contract_references",
            {"column": column, "to": _relation(path), "field": field},
        )
    return tests


def dbt_test_names(contract: Contract) -> list[str]:
    """Return the names of the data tests generated for a model; each is also the name of a Dagster asset check."""
    return list(dbt_tests(contract))


def dbt_test_descriptions(contract: Contract) -> dict[str, str]:
    """Return what each generated test of a model promises, in words."""
    described = {f"{contract.name}__unique_key": f"One row per {', '.join(contract.key)}."}
    for kind, rules in rules_by_test(contract).items():
        described[f"{contract.name}__{kind}"] = "; ".join(rules) + "."
    for column, path, field in _references(contract):
        described[f"{contract.name}__{column}__references"] = f"Every {column} is a {field} of {path}."
    return described


def _meta(contract: Contract) -> dict[str, Any]:
    return {
        "dagster": {"asset_key": contract.asset_key},
        "grain": contract.grain,
        "key": list(contract.key),
        "source": contract.source,
    }


def _columns(contract: Contract) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "data_type": column.sql_type,
            "description": column.description,
            "config": {"meta": {"unit": column.unit}},
        }
        for column in contract.columns
    ]


def _describe(contract: Contract) -> str:
    return f"{contract.grain} {contract.description}"


def _dump(document: Mapping[str, Any]) -> str:
    import yaml

    class PlainDumper(yaml.SafeDumper):
        """Writes a repeated list again, where YAML would refer to the first by an anchor."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
            super().increase_indent(flow, False)

    text = yaml.dump(dict(document), Dumper=PlainDumper, sort_keys=False, allow_unicode=True, width=_LINE_WIDTH)
    return _HEADER + text


def sources_yaml(contracts: Iterable[Contract]) -> str:
    """Return ``sources.yml``: one dbt source per lake layer, each with all its tables."""
    held = [contract for contract in contracts if contract.store is Store.LAKE]
    return _dump(
        {
            "version": 2,
            "sources": [
                {
                    "name": str(layer),
                    "schema": str(layer),
                    "description": f"Views over the lake's {layer} layer.",
                    "tables": [
                        {
                            "name": contract.name,
                            "description": _describe(contract),
                            "config": {"meta": _meta(contract)},
                            "columns": _columns(contract),
                        }
                        for contract in held
                        if contract.layer is layer
                    ],
                }
                for layer in SOURCE_LAYERS
            ],
        }
    )


def models_yaml(contracts: Iterable[Contract], layer: Layer) -> str:
    """Return ``_<layer>.yml``: the models of one warehouse layer with their columns and tests.

    Every model's contract is enforced by dbt: building it fails where the SQL gives other columns or types. Database
    constraints are left out on purpose. They would turn a bad row into a failed build without a name,
    DuckDB pays an index for a key, and Redshift accepts keys without enforcing them; the tests say what broke.
    """
    return _dump(
        {
            "version": 2,
            "models": [
                {
                    "name": contract.name,
                    "description": _describe(contract),
                    "config": {"contract": {"enforced": True}, "meta": _meta(contract)},
                    "columns": _columns(contract),
                    "data_tests": list(dbt_tests(contract).values()),
                }
                for contract in contracts
                if contract.is_built_by_dbt and contract.layer is layer
            ],
        }
    )


def dbt_yaml(contracts: Iterable[Contract] | None = None) -> dict[str, str]:
    """Return every generated file of the dbt project: path below the project -> text."""
    chosen: Sequence[Contract] = list(CONTRACTS.values() if contracts is None else contracts)
    files = {"models/sources.yml": sources_yaml(chosen)}
    for layer in MODEL_LAYERS:
        if any(contract.is_built_by_dbt and contract.layer is layer for contract in chosen):
            files[f"models/{layer}/_{layer}.yml"] = models_yaml(chosen, layer)
    return files


def stale_dbt_yaml(project_dir: Path = PROJECT_DIR) -> list[Path]:
    """Return the generated files that are missing from the project or differ from what the contracts say."""
    stale = []
    for name, text in dbt_yaml().items():
        path = project_dir / name
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path)
    return stale


def write_dbt_yaml(project_dir: Path = PROJECT_DIR) -> list[Path]:
    """Write the generated files that are stale and return their paths."""
    generated = dbt_yaml()
    stale = stale_dbt_yaml(project_dir)
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(generated[path.relative_to(project_dir).as_posix()], encoding="utf-8")
    return stale


if __name__ == "__main__":
    written = write_dbt_yaml()
    sys.stdout.write("".join(f"wrote {path}\n" for path in written) or "dbt's YAML is up to date\n")
