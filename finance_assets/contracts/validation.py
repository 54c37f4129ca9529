"""Hold a table against its contract and say what breaks it.

What belongs here: the one reading of a contract as a test of rows. The Dagster checks, the tests and the
command line all call :func:`violations`; dbt's generated tests say the same in SQL for warehouse relations.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from typing import TYPE_CHECKING

from finance_assets.contracts.model import Column, Contract
from finance_assets.sql import literal

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds


#: Memory of a check; beyond it, counting goes by way of the disk.
MEMORY_LIMIT = "1500MB"
#: Name of the rule that columns and types are those of the contract.
SCHEMA_RULE = "schema equals the contract"


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that rows break: which, on how many rows, and the key of the first of them."""

    rule: str
    rows: int
    example: str


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def column_expressions(column: Column) -> dict[str, str]:
    """Return rule name -> SQL expression true for a legal value, for one column."""
    name = _quoted(column.name)
    expressions: dict[str, str] = {}
    if not column.nullable:
        expressions[f"{column.name} is not null"] = f"{name} is not null"
    if column.type == "float64":
        # NaN and infinity are never stored: what is undefined is null.
        expressions[f"{column.name} is finite"] = f"isfinite({name})"
    if column.minimum is not None:
        sign = ">" if column.exclusive_minimum else ">="
        expressions[f"{column.name} {sign} {column.minimum}"] = f"{name} {sign} {column.minimum}"
    if column.maximum is not None:
        expressions[f"{column.name} <= {column.maximum}"] = f"{name} <= {column.maximum}"
    if column.allowed:
        listed = ", ".join(literal(value) for value in column.allowed)
        expressions[f"{column.name} is one of its allowed values"] = f"{name} in ({listed})"
    return expressions


def rule_expressions(contract: Contract) -> dict[str, str]:
    """Return every rule on a single row: rule name -> SQL expression true for a legal row."""
    expressions: dict[str, str] = {}
    for column in contract.columns:
        expressions.update(column_expressions(column))
    for rule in contract.rules:
        expressions[f"{rule.name}: {rule.description}"] = rule.expression
    return expressions


def key_rule(contract: Contract) -> str:
    """Return the name of the rule that the key is unique."""
    return f"one row per {', '.join(contract.key)}"


def schema_difference(contract: Contract, schema: pa.Schema) -> str:
    """Return how ``schema`` differs from the contract's, in words; an empty text where it does not.

    Names, types and order count; what a schema says of nulls does not, since the rows are asked.
    """
    from finance_assets.contracts.arrow import storage_schema

    wanted = storage_schema(contract)
    if schema.equals(wanted):
        return ""
    have = [f"{field.name}: {field.type}" for field in schema]
    promised = [f"{field.name}: {field.type}" for field in wanted]
    if have == promised:
        return ""
    absent = [column for column in promised if column not in have]
    strange = [column for column in have if column not in promised]
    parts = [
        f"without {', '.join(absent)}" if absent else "",
        f"with {', '.join(strange)}" if strange else "",
    ]
    return "; ".join(part for part in parts if part) or "columns in another order or twice"


def row_count(table: pa.Table | ds.Dataset) -> int:
    """Return the number of rows of a table or a dataset."""
    import pyarrow as pa

    return int(table.num_rows) if isinstance(table, pa.Table) else int(table.count_rows())


def violations(contract: Contract, table: pa.Table | ds.Dataset) -> list[Violation]:
    """Return every promise of ``contract`` that ``table`` breaks; an empty list where all hold.

    Parameters
    ----------
    contract
        The promise.
    table
        Rows as stored. Its columns and types are part of the promise. A dataset is read piece by piece.

    Returns
    -------
    list of Violation
        In the order of the contract: schema, then rules on rows, then the key.
    """
    from finance_assets.contracts.arrow import is_strictly_sorted

    differing = schema_difference(contract, table.schema)
    count = row_count(table)
    if differing:
        return [Violation(SCHEMA_RULE, count, differing)]
    if count == 0:
        return []

    import duckdb
    import pyarrow as pa

    found: list[Violation] = []
    key = ", ".join(_quoted(name) for name in contract.key)
    example = f"concat_ws(', ', {key})"
    with tempfile.TemporaryDirectory() as spill, duckdb.connect() as connection:
        # A table that may be larger than memory is counted out of it.
        connection.execute(f"set temp_directory = {literal(spill)}")
        connection.execute(f"set memory_limit = '{MEMORY_LIMIT}'")
        # A rule on a timestamp gives the same answer on a machine in any zone.
        connection.execute("set timezone = 'UTC'")
        connection.register("t", table)
        # Null counts as kept: "not null" is null, which counts and filters as false.
        broken = {rule: f"not ({expression})" for rule, expression in rule_expressions(contract).items()}
        if broken:
            tallies = ", ".join(f"count(case when {condition} then 1 end)" for condition in broken.values())
            counts = connection.execute(f"select {tallies} from t").fetchone() or ()
            for (rule, condition), count in zip(broken.items(), counts, strict=True):
                if count:
                    first = connection.execute(f"select min({example}) from t where {condition}").fetchone()
                    found.append(Violation(rule, int(count), str(first[0]) if first else ""))
        # Rows as the lake holds them ascend by partition and key; only others need to be counted out.
        ascending = sorted(contract.key, key=lambda name: name != contract.partition_column)
        is_sorted = isinstance(table, pa.Table) and (
            is_strictly_sorted(table, contract.key) or is_strictly_sorted(table, ascending)
        )
        if not is_sorted:
            surplus, first_key = connection.execute(
                f"""
                select sum(n - 1), min({example})
                from (select {key}, count(*) as n from t group by {key} having count(*) > 1)
                """
            ).fetchone() or (None, None)
            if surplus:
                found.append(Violation(key_rule(contract), int(surplus), str(first_key)))
    return found
