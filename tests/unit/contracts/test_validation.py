"""Every promise of every contract can be broken, and breaking it is told, alone and with the row."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest
from fixtures.rows import DAY, breaker, good_row, good_table, table_of

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.market import QUOTES, TICKER_KPIS, TRADING_SESSIONS
from finance_assets.contracts.model import Column, Contract, RowRule
from finance_assets.contracts.validation import (
    SCHEMA_RULE,
    Violation,
    column_expressions,
    key_rule,
    rule_expressions,
    violations,
)


def _bad_value(column: Column, rule: str) -> Any:
    """A value of a column that breaks one of its rules."""
    if rule.endswith("is not null"):
        return None
    if rule.endswith("is finite"):
        return float("nan")
    if rule.endswith("is one of its allowed values"):
        return "no such value"
    if " <= " in rule:
        assert column.maximum is not None
        return _typed(column, column.maximum + 1)
    assert column.minimum is not None
    return _typed(column, column.minimum if column.exclusive_minimum else column.minimum - 1)


def _typed(column: Column, number: Any) -> Any:
    exact = column.type in ("price", "amount", "rate", "exact")
    return Decimal(str(number)) if exact else float(number) if column.type == "float64" else int(number)


def _cases(contract: Contract) -> Iterator[tuple[str, dict[str, Any]]]:
    """(rule, changes to a good row that break it) for every rule of a contract."""
    of_columns = {rule: column for column in contract.columns for rule in column_expressions(column)}
    by_name = {f"{rule.name}: {rule.description}": rule for rule in contract.rules}
    for rule in rule_expressions(contract):
        if rule in of_columns:
            column = of_columns[rule]
            yield rule, {column.name: _bad_value(column, rule)}
        else:
            yield rule, breaker(contract, by_name[rule].name)


def _columns_of(contract: Contract, rule: str) -> set[str]:
    """Columns that a rule speaks of."""
    words = set(re.findall(r"[a-z0-9_]+", rule_expressions(contract)[rule]))
    return words.intersection(contract.column_names)


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_good_row_keeps_every_promise(path: str) -> None:
    contract = CONTRACTS[path]
    assert violations(contract, table_of(contract, good_row(contract))) == []
    assert len(rule_expressions(contract)) > len([column for column in contract.columns if not column.nullable])


@pytest.mark.parametrize("path", CONTRACTS)
def test_a_row_that_breaks_a_rule_is_found_by_it(path: str) -> None:
    """All bad rows of a contract at once: one table, counted by `violations` and asked row by row in plain SQL."""
    contract = CONTRACTS[path]
    cases = list(_cases(contract))
    bad = [good_row(contract, **changes) for _, changes in cases]
    if not cases:
        return
    rules = rule_expressions(contract)
    broken = ", ".join(f"coalesce(not ({expression}), false)" for expression in rules.values())
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("t", table_of(contract, *bad))
        # One list a row: which rules it breaks.
        matrix = [row[0] for row in connection.execute(f"select [{broken}] from t").fetchall()]
    names = list(rules)
    found = {violation.rule: violation for violation in violations(contract, table_of(contract, *bad))}
    for place, (rule, changes) in enumerate(cases):
        said = {name for name, is_broken in zip(names, matrix[place], strict=True) if is_broken}
        assert rule in said, f"{rule}: a rule that cannot fail is a defect"
        # What else is said is about the same values: no price is below zero and in order with a price above it.
        for other in said - {rule}:
            assert _columns_of(contract, other) & set(changes), f"{other} has nothing to do with {changes}"
        rows = [number for number, breaks in enumerate(matrix) if breaks[names.index(rule)]]
        assert found[rule].rows == len(rows), rule
        keys = {", ".join(str(bad[n][name]) for name in contract.key if bad[n][name] is not None) for n in rows}
        assert found[rule].example in keys, rule


@pytest.mark.parametrize("path", CONTRACTS)
def test_two_rows_of_one_key_are_found(path: str) -> None:
    contract = CONTRACTS[path]
    row = good_row(contract)
    found = violations(contract, table_of(contract, row, row, row))
    assert found == [Violation(key_rule(contract), 2, ", ".join(str(row[name]) for name in contract.key))]


@pytest.mark.parametrize("path", CONTRACTS)
@pytest.mark.parametrize("flaw", ["missing", "renamed", "another type", "reordered", "twice"])
def test_columns_that_are_not_the_contracts_are_found(path: str, flaw: str) -> None:
    contract = CONTRACTS[path]
    table = table_of(contract, good_row(contract))
    last = table.column_names[-1]
    other = pa.binary() if table.schema.field(last).type != pa.binary() else pa.string()
    table, said = {
        "missing": lambda: (table.drop_columns([last]), f"without {last}: "),
        "renamed": lambda: (table.rename_columns([*table.column_names[:-1], "x"]), "with x: "),
        "another type": lambda: (
            table.set_column(table.num_columns - 1, last, pa.nulls(1, other)),
            f"with {last}: {other}",
        ),
        "reordered": lambda: (table.select(table.column_names[::-1]), "another order"),
        "twice": lambda: (table.append_column(last, table.column(last)), "twice"),
    }[flaw]()
    (found,) = violations(contract, table)
    assert (found.rule, found.rows) == (SCHEMA_RULE, 1)
    assert said in found.example


def test_a_schema_is_held_to_the_contract_also_without_rows() -> None:
    empty = table_of(QUOTES)
    assert violations(QUOTES, empty) == []
    assert [found.rule for found in violations(QUOTES, empty.drop_columns(["close"]))] == [SCHEMA_RULE]


def test_what_a_schema_says_of_nulls_does_not_count() -> None:
    table = table_of(QUOTES, good_row(QUOTES)).cast(
        pa.schema([field.with_nullable(QUOTES.column(field.name).nullable) for field in QUOTES.schema])
    )
    assert violations(QUOTES, table.replace_schema_metadata({"some": "text"})) == []


def test_null_breaks_no_rule_but_not_null() -> None:
    nullable = {column.name: None for column in QUOTES.columns if column.nullable}
    assert violations(QUOTES, table_of(QUOTES, good_row(QUOTES, **nullable))) == []
    found = violations(QUOTES, table_of(QUOTES, good_row(QUOTES, close=None)))
    assert [violation.rule for violation in found] == ["close is not null"]


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_found(number: float) -> None:
    found = violations(TICKER_KPIS, table_of(TICKER_KPIS, good_row(TICKER_KPIS, volume_zscore_20=number)))
    assert [violation.rule for violation in found] == ["volume_zscore_20 is finite"]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(0, []), (100, []), (-0.001, ["rsi_14 >= 0"]), (100.001, ["rsi_14 <= 100"])],
)
def test_bounds_are_inclusive(value: float, expected: list[str]) -> None:
    found = violations(TICKER_KPIS, table_of(TICKER_KPIS, good_row(TICKER_KPIS, rsi_14=value)))
    assert [violation.rule for violation in found] == expected


def test_an_exclusive_bound_is_itself_illegal() -> None:
    row = good_row(QUOTES, open=None, high=None, low=None, close=Decimal(0))
    assert [found.rule for found in violations(QUOTES, table_of(QUOTES, row))] == ["close > 0"]
    assert violations(QUOTES, table_of(QUOTES, row | {"close": Decimal("0.00000001")})) == []


def test_rows_are_counted_and_the_first_key_is_the_example() -> None:
    rows = [good_row(QUOTES, symbol=f"S{place}", volume=-1 if place in (7, 3, 5) else 1) for place in range(9)]
    (found,) = violations(QUOTES, table_of(QUOTES, *reversed(rows)))
    assert found == Violation("volume >= 0", 3, f"S3, {DAY}")


def test_doubles_are_found_in_whatever_order_rows_lie() -> None:
    days = [DAY + timedelta(days=place) for place in range(5)]
    rows = [good_row(QUOTES, symbol=symbol, session_date=day) for day in days for symbol in ("A", "B")]
    assert violations(QUOTES, table_of(QUOTES, *rows)) == [], "by partition, as the lake reads them"
    assert violations(QUOTES, table_of(QUOTES, *rows[::-1])) == []
    (found,) = violations(QUOTES, table_of(QUOTES, *rows, rows[4], rows[4], rows[9]))
    assert found == Violation("one row per symbol, session_date", 3, f"A, {days[2]}")


def test_a_null_in_the_key_is_a_value_among_others_for_uniqueness() -> None:
    row = good_row(QUOTES, symbol=None)
    found = violations(QUOTES, table_of(QUOTES, row, row))
    assert [(violation.rule, violation.rows) for violation in found] == [
        ("symbol is not null", 2),
        ("one row per symbol, session_date", 1),
    ]


def test_quotes_in_an_allowed_value_are_text() -> None:
    column = Column("kind", "string", "text", "A kind.", allowed=("it's", "plain"))
    contract = replace(QUOTES, columns=(*QUOTES.columns, column))
    assert violations(contract, table_of(contract, good_row(contract, kind="it's"))) == []
    assert len(violations(contract, table_of(contract, good_row(contract, kind="its")))) == 1


def test_a_rule_on_a_time_means_utc_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    contract = replace(
        TRADING_SESSIONS,
        rules=(RowRule("same_day", "cast(open_ts_utc as date) = session_date", "it opens on its day"),),
    )
    row = good_row(contract)
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert violations(contract, table_of(contract, row)) == []
        assert len(violations(contract, table_of(contract, row | {"session_date": date(2013, 3, 1)}))) == 1
    finally:
        monkeypatch.undo()
        time.tzset()


def test_many_rows_take_little_time() -> None:
    import time

    table = good_table(QUOTES, 1000)
    many = pa.concat_tables([table] * 100)
    days = pa.array([DAY + timedelta(days=place // 1000) for place in range(many.num_rows)], pa.date32())
    many = many.set_column(many.column_names.index("session_date"), "session_date", days)
    started = time.perf_counter()
    assert violations(QUOTES, many) == []
    assert time.perf_counter() - started < 5


def test_a_dataset_is_judged_like_the_table_it_holds() -> None:
    table = good_table(QUOTES, 3)
    assert violations(QUOTES, ds.dataset(table)) == []
    double = pa.concat_tables([table, table.slice(0, 1)])
    assert violations(QUOTES, ds.dataset(double)) == violations(QUOTES, double)
    assert [found.rule for found in violations(QUOTES, ds.dataset(double))] == [key_rule(QUOTES)]
    assert violations(QUOTES, ds.dataset(table.slice(0, 0))) == []
