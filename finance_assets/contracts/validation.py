"""Hold a table against its contract and say what breaks it.

What belongs here: the one reading of a contract as a test of rows. The Dagster checks, the tests and the
command line all call :func:`violations`; dbt's generated tests say the same in SQL for warehouse relations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from finance_assets.contracts.model import Column, Contract

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True, slots=True)
class Violation:
    """A promise that rows break: which, on how many rows, and the key of the first of them."""

    rule: str
    rows: int
    example: str


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


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
        listed = ", ".join(_literal(value) for value in column.allowed)
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


def violations(contract: Contract, table: pa.Table) -> list[Violation]:
    """Return every promise of ``contract`` that ``table`` breaks; an empty list where all hold.

    Parameters
    ----------
    contract
        The promise.
    table
        Rows as stored. Its columns and types are part of the promise.

    Returns
    -------
    list of Violation
        In the order of the contract: schema, then rules on rows, then the key.
    """
    from finance_assets.contracts.arrow import storage_schema

    found: list[Violation] = []
    expected = storage_schema(contract)
    if not table.schema.remove_metadata().equals(expected):
        differing = sorted(
            {f"{f.name}: {f.type}" for f in table.schema} ^ {f"{f.name}: {f.type}" for f in expected}
        )
        found.append(
            Violation("schema equals the contract", table.num_rows, ", ".join(differing) or "column order")
        )
        return found
    if table.num_rows == 0:
        return found

    import duckdb

    with duckdb.connect() as connection:
        connection.register("t", table)
        expressions = rule_expressions(contract)
        key = ", ".join(f"{_quoted(name)}" for name in contract.key)
        example = f"concat_ws(', ', {key})"
        broken = {rule: f"not coalesce(({expression}), true)" for rule, expression in expressions.items()}
        if broken:
            sums = ", ".join(f"count(*) filter (where {condition})" for condition in broken.values())
            counts = connection.execute(f"select {sums} from t").fetchone() or ()
            for (rule, condition), count in zip(broken.items(), counts, strict=True):
                if count:
                    first = connection.execute(
                        f"select {example} from t where {condition} order by 1 limit 1"
                    ).fetchone()
                    found.append(Violation(rule, int(count), str(first[0]) if first else ""))
        duplicates = connection.execute(
            f"select {example}, count(*) n from t group by {key}, 1 having count(*) > 1 order by 1"
        ).fetchall()
        if duplicates:
            surplus = sum(int(row[1]) - 1 for row in duplicates)
            found.append(Violation(f"one row per {', '.join(contract.key)}", surplus, str(duplicates[0][0])))
    return found
