"""dbt's YAML out of the contracts: up to date, complete, portable, and telling when it is neither."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import jinja2
import pytest
import yaml

from finance_assets.contracts import CONTRACTS, sectors
from finance_assets.contracts.dbt import (
    PROJECT_DIR,
    dbt_test_descriptions,
    dbt_test_names,
    dbt_tests,
    dbt_yaml,
    models_yaml,
    portable_sql,
    rules_by_test,
    sources_yaml,
    stale_dbt_yaml,
    write_dbt_yaml,
)
from finance_assets.contracts.model import Column, Contract, ContractError, Layer, RowRule, Store
from finance_assets.contracts.validation import rule_expressions

WAREHOUSE = [contract for contract in CONTRACTS.values() if contract.is_built_by_dbt]

EXAMPLE = Contract(
    layer=Layer.MART,
    name="mart_example",
    group="examples",
    store=Store.WAREHOUSE,
    grain="One example on one day.",
    description="A table with every kind of promise.",
    source="Made up.",
    columns=(
        Column("name", "string", "text", "Name.", allowed=("a", "it's")),
        Column("session_date", "date", "date", "Day.", references="raw/trading_sessions.session_date"),
        Column("weight", "float64", "fraction", "Weight.", True, 0, 1, True),
        Column("other", "string", "text", "Another.", True, references="staging/stg_sector_data.symbol"),
    ),
    key=("name", "session_date"),
    rules=(RowRule("weighty", "weight is not null or name = 'a'", "only a may weigh nothing"),),
)


def example_model() -> dict[str, Any]:
    document = yaml.safe_load(models_yaml([EXAMPLE], Layer.MART))
    [model] = document["models"]
    return dict(model)


def test_the_projects_yaml_is_up_to_date() -> None:
    assert stale_dbt_yaml() == [], "run make generate"


def test_a_changed_contract_makes_the_yaml_stale(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project = tmp_path / "dbt_project"
    shutil.copytree(PROJECT_DIR, project, ignore=shutil.ignore_patterns("target", "logs"))
    assert stale_dbt_yaml(project) == []
    mart = sectors.MART_SECTOR_PERFORMANCE
    changed = replace(mart, columns=(*mart.columns, Column("extra", "int64", "rows", "Another column.")))
    monkeypatch.setitem(CONTRACTS, mart.path, changed)
    expected = [project / "models" / "mart" / "_mart.yml"]
    assert stale_dbt_yaml(project) == expected
    assert write_dbt_yaml(project) == expected
    assert stale_dbt_yaml(project) == []
    assert "extra" in expected[0].read_text()


def test_a_missing_file_is_stale(tmp_path: Path) -> None:
    assert {path.relative_to(tmp_path).as_posix() for path in stale_dbt_yaml(tmp_path)} == set(dbt_yaml())
    assert write_dbt_yaml(tmp_path)
    assert write_dbt_yaml(tmp_path) == []


def test_every_model_has_its_sql_and_every_sql_its_contract() -> None:
    sql = {(path.parent.name, path.stem) for path in (PROJECT_DIR / "models").rglob("*.sql")}
    assert sql == {(str(contract.layer), contract.name) for contract in WAREHOUSE}


@pytest.mark.parametrize("contract", WAREHOUSE, ids=lambda contract: contract.name)
def test_a_model_opens_with_its_grain_and_reads_its_inputs(contract: Contract) -> None:
    sql = (PROJECT_DIR / "models" / str(contract.layer) / f"{contract.name}.sql").read_text()
    assert sql.startswith("-- Grain: ")
    read = {f"{layer}/{name}" for layer, name in re.findall(r"source\('(\w+)', '(\w+)'\)", sql)}
    read |= {
        next(other.path for other in WAREHOUSE if other.name == name) for name in re.findall(r"ref\('(\w+)'\)", sql)
    }
    assert read == set(contract.inputs)
    if contract.layer is Layer.STAGING:
        assert len(read) == 1


def test_sources_are_the_lakes_tables_with_types_units_and_keys() -> None:
    document = yaml.safe_load(sources_yaml(CONTRACTS.values()))
    assert [(source["name"], source["schema"]) for source in document["sources"]] == [("raw", "raw"), ("core", "core")]
    tables = {(source["name"], table["name"]): table for source in document["sources"] for table in source["tables"]}
    lake = {
        (str(contract.layer), contract.name): contract
        for contract in CONTRACTS.values()
        if contract.store is Store.LAKE and contract.layer in (Layer.RAW, Layer.CORE)
    }
    assert set(tables) == set(lake)
    for key, contract in lake.items():
        assert tables[key]["config"]["meta"]["dagster"]["asset_key"] == contract.asset_key
        assert [
            (column["name"], column["data_type"], column["config"]["meta"]["unit"]) for column in tables[key]["columns"]
        ] == [(column.name, column.sql_type, column.unit) for column in contract.columns]


def test_a_model_carries_its_contract() -> None:
    model = example_model()
    assert model["config"]["contract"] == {"enforced": True}
    assert model["config"]["meta"]["dagster"]["asset_key"] == ["mart", "mart_example"]
    assert model["description"] == "One example on one day. A table with every kind of promise."
    assert model["columns"][2] == {
        "name": "weight",
        "data_type": "double precision",
        "description": "Weight.",
        "config": {"meta": {"unit": "fraction"}},
    }


def test_each_kind_of_promise_is_one_test_with_a_stable_name() -> None:
    assert dbt_test_names(EXAMPLE) == [
        "mart_example__unique_key",
        "mart_example__not_null",
        "mart_example__finite",
        "mart_example__in_bounds",
        "mart_example__allowed",
        "mart_example__rules",
        "mart_example__session_date__references",
        "mart_example__other__references",
    ]
    generated = [entry for test in example_model()["data_tests"] for entry in test.values()]
    assert [entry["name"] for entry in generated] == dbt_test_names(EXAMPLE)
    assert all(entry["arguments"]["key"] == ["name", "session_date"] for entry in generated)
    assert list(dbt_test_descriptions(EXAMPLE)) == dbt_test_names(EXAMPLE)


@pytest.mark.parametrize("contract", WAREHOUSE, ids=lambda contract: contract.name)
def test_no_rule_is_lost_on_the_way(contract: Contract) -> None:
    generated = [rule for rules in rules_by_test(contract).values() for rule in rules]
    assert sorted(generated) == sorted(rule_expressions(contract))


def test_references_name_sources_and_models() -> None:
    tests = dbt_tests(EXAMPLE)
    lake = tests["mart_example__session_date__references"]["contract_references"]["arguments"]
    assert (lake["column"], lake["to"], lake["field"]) == (
        "session_date",
        "source('raw', 'trading_sessions')",
        "session_date",
    )
    warehouse = tests["mart_example__other__references"]["contract_references"]["arguments"]
    assert warehouse["to"] == "ref('stg_sector_data')"


@pytest.mark.parametrize("target", ["raw/nowhere.session_date", "raw/trading_sessions.nothing"])
def test_a_reference_to_nothing_is_refused(target: str) -> None:
    lost = replace(EXAMPLE, columns=(replace(EXAMPLE.columns[0], references=target), *EXAMPLE.columns[1:]))
    with pytest.raises(ContractError, match="no column"):
        dbt_tests(lost)


def test_finite_is_written_so_that_every_warehouse_takes_it() -> None:
    expression = portable_sql('isfinite("weight")')
    assert "isfinite" not in expression
    largest = 1.7976931348623157e308
    connection = duckdb.connect()
    for text, finite in (
        ("0", True),
        (repr(largest), True),
        (repr(-largest), True),
        ("nan", False),
        ("inf", False),
        ("-inf", False),
    ):
        found = connection.execute(f"select {expression} from (select '{text}'::double as weight)").fetchone()
        assert found == (finite,), text
    assert connection.execute(f"select {expression} from (select null::double as weight)").fetchone() == (None,)


def test_an_expression_that_cannot_be_made_portable_is_refused() -> None:
    with pytest.raises(ContractError, match="isfinite"):
        portable_sql("isfinite(a + b)")


# --- the macros of the generated tests, rendered as dbt renders them ------------------------------------------------


def render(test: str, **arguments: Any) -> str:
    """Return the SQL of a generic test, without the seconds that dbt takes to start."""
    source = (PROJECT_DIR / "macros" / "contract_tests.sql").read_text()
    macro = re.search(r"{% macro key_as_text.*?endmacro %}", source, re.DOTALL)
    body = re.search(rf"{{% test {test}\(.*?%}}(.*?){{% endtest %}}", source, re.DOTALL)
    assert macro
    assert body

    class Adapter:
        @staticmethod
        def quote(name: str) -> str:
            return f'"{name}"'

    class Relation:
        schema, identifier = "raw", "known"

        def __str__(self) -> str:
            return "known"

    return (
        jinja2.Environment()
        .from_string(macro.group(0) + body.group(1))
        .render(adapter=Adapter, to=Relation(), model="rows", key=["name"], **arguments)
    )


def test_a_reference_is_checked_row_by_row() -> None:
    connection = duckdb.connect()
    connection.execute("create table known as select unnest([1, 2, null]) as field")
    connection.execute("create table rows as from (values ('a', 1), ('b', 2), ('c', null), ('d', 4)) t(name, number)")
    sql = render("contract_references", column="number", field="field")
    assert connection.execute(sql).fetchall() == [("number is a field of raw.known", "d")]


def test_rules_name_the_first_that_breaks_and_take_null_as_satisfied() -> None:
    connection = duckdb.connect()
    connection.execute(
        "create table rows as from (values ('a', 1), ('b', -1), ('c', null), (null, -9)) t(name, number)"
    )
    sql = render("contract_rules", rules={"it's positive": '"number" > 0', "above -5": '"number" > -5'})
    assert connection.execute(f"{sql} order by 2").fetchall() == [("it's positive", "b"), ("it's positive", "null")]


def test_a_key_is_unique() -> None:
    connection = duckdb.connect()
    connection.execute("create table rows as from (values ('a'), ('b'), ('a')) t(name)")
    assert connection.execute(render("contract_unique_key")).fetchall() == [("one row per name", "a")]
