"""Contracts describe tables that can exist; one that contradicts itself is refused where it is written."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from finance_assets.contracts import CONTRACTS, contract_of
from finance_assets.contracts.arrow import storage_schema
from finance_assets.contracts.arrow_types import ARROW_TYPES
from finance_assets.contracts.model import (
    SQL_TYPES,
    Column,
    Contract,
    ContractError,
    Layer,
    Partitioning,
    RowRule,
    Store,
)

ID = Column("id", "string", "text", "What identifies a row.")
DAY = Column("day", "date", "date", "A day.")
AMOUNT = Column("amount", "price", "USD", "An amount.", nullable=True)


def contract(**changes: Any) -> Contract:
    given: dict[str, Any] = {
        "layer": Layer.RAW,
        "name": "things",
        "group": "tests",
        "grain": "One thing.",
        "description": "Things.",
        "source": "A test.",
        "columns": (ID, DAY, AMOUNT),
        "key": ("id", "day"),
    }
    return Contract(**(given | changes))


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_contract_says_all_that_is_generated_from_it(path: str) -> None:
    table = CONTRACTS[path]
    assert table.path == path == "/".join(table.asset_key)
    for text in (table.grain, table.description, table.source, *(column.description for column in table.columns)):
        assert text.endswith("."), text
        assert "  " not in text
    assert table.owner.startswith("team:")
    for rule in table.rules:
        assert any(f"{name}" in rule.expression for name in table.column_names), rule.name
        assert rule.description


@pytest.mark.parametrize("path", CONTRACTS)
def test_what_a_contract_refers_to_exists(path: str) -> None:
    table = CONTRACTS[path]
    for column in table.columns:
        if column.references is not None:
            target, _, name = column.references.rpartition(".")
            assert contract_of(target).column(name).type == column.type
    for read in table.inputs:
        assert read in CONTRACTS
    assert (table.store is Store.WAREHOUSE) <= bool(table.inputs), "a warehouse relation says what it reads"


def test_the_same_name_means_the_same_type_everywhere() -> None:
    types: dict[str, set[str]] = {}
    for table in CONTRACTS.values():
        for column in table.columns:
            types.setdefault(column.name, set()).add(column.type)
    assert {name: kinds for name, kinds in types.items() if len(kinds) > 1} == {}


def test_an_export_repeats_its_mart() -> None:
    export, mart = CONTRACTS["published/sector_performance"], CONTRACTS["mart/mart_sector_performance"]
    assert (export.columns, export.key, export.rules) == (mart.columns, mart.key, mart.rules)
    assert export.store is Store.LAKE
    assert export.inputs == (mart.path,)


def test_every_type_has_an_arrow_and_a_sql_type() -> None:
    assert ARROW_TYPES.keys() == SQL_TYPES.keys()


def test_schemas_carry_the_contract_and_files_only_the_types() -> None:
    table = contract()
    field = table.schema.field("amount")
    assert field.metadata == {b"unit": b"USD", b"description": b"An amount."}
    assert (field.type, field.nullable) == (pa.decimal128(18, 8), True)
    assert not table.schema.field("id").nullable
    expected = [(c.name, c.unit.encode(), c.description.encode(), c.nullable) for c in table.columns]
    assert [(f.name, f.metadata[b"unit"], f.metadata[b"description"], f.nullable) for f in table.schema] == expected
    reworded = replace(table, columns=(ID, DAY, replace(AMOUNT, description="Another wording.")))
    assert storage_schema(reworded).equals(storage_schema(table), check_metadata=True)


def test_rows_are_ordered_by_the_key_unless_the_contract_says_otherwise() -> None:
    assert contract().order == ("id", "day")
    assert contract(sort_by=("day",)).order == ("day",)


def test_a_table_that_is_not_there_is_named_with_its_neighbours() -> None:
    with pytest.raises(ContractError, match=r"no table 'core/quote'; known: .*core/quotes") as caught:
        contract_of("core/quote")
    assert "raw/" not in str(caught.value)
    with pytest.raises(ContractError, match="known: core/account_performance"):
        contract_of("nowhere/quotes")
    with pytest.raises(KeyError, match="raw/things has no column 'nothing'"):
        contract().column("nothing")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"type": "currency"}, "unknown type 'currency'; use one of string"),
        ({"name": "Total Amount"}, "lower case letters"),
        ({"name": 'a"; drop table t; --'}, "lower case letters"),
        ({"unit": ""}, "needs a unit and a description"),
        ({"description": ""}, "needs a unit and a description"),
        ({"type": "string", "minimum": 0}, "bounds are for numbers"),
        ({"type": "date", "maximum": 1}, "bounds are for numbers"),
        ({"minimum": 2, "maximum": Decimal(1)}, "the minimum 2 is above the maximum 1"),
        ({"exclusive_minimum": True}, "exclusive_minimum without a minimum"),
        ({"allowed": ("a",)}, "allowed values are for strings"),
        ({"type": "string", "allowed": ("a", "a")}, "an allowed value is listed twice"),
        ({"references": "raw.things.id"}, "is not layer/table.column"),
    ],
)
def test_a_column_that_contradicts_itself_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint):
        replace(AMOUNT, **changes)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"name": "../things"}, "lower case letters"),
        ({"columns": (ID, DAY, ID)}, "a column is named twice"),
        ({"key": ("id", "id")}, "a key column is named twice"),
        ({"rules": (RowRule("r", "id > ''", "a"), RowRule("r", "id > 'a'", "b"))}, "a rule is named twice"),
        ({"key": ("nothing",)}, "'nothing' is in the key, the order or the partition, but is no column"),
        ({"sort_by": ("nothing",)}, "'nothing' is in the key, the order"),
        ({"key": ()}, "a table has a key"),
        ({"key": ("id", "amount")}, "key column 'amount' may not be nullable"),
        ({"grain": ""}, "needs a grain"),
        ({"owner": ""}, "an owner"),
        ({"partition_column": "day"}, "partitioning and partition_column go together"),
        ({"partitioning": Partitioning.SESSION}, "partitioning and partition_column go together"),
        ({"partitioning": Partitioning.SESSION, "partition_column": "id"}, "must be a date and never null"),
        (
            {
                "partitioning": Partitioning.SESSION,
                "partition_column": "day",
                "columns": (ID, replace(DAY, nullable=True), AMOUNT),
                "key": ("id",),
            },
            "must be a date and never null",
        ),
        ({"partitioning": Partitioning.SESSION, "partition_column": "day", "key": ("id",)}, "must be part of the key"),
    ],
)
def test_a_contract_that_contradicts_itself_is_refused(changes: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ContractError, match=complaint) as caught:
        contract(**changes)
    assert "contract raw/" in str(caught.value), "the message names the table"
