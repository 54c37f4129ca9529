"""Rows of the history as tests write them."""

import calendar
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from finance_assets.advisory.performance import history_schema

DECIMALS = {field.name for field in history_schema() if pa.types.is_decimal(field.type)}


def month_end(year: int, month: int) -> date:
    return date(year, month, calendar.monthrange(year, month)[1])


def history_row(**changes: Any) -> dict[str, Any]:
    """A month of an account without flows; numbers may be given as text or integers."""
    row: dict[str, Any] = {
        "vendor": "alpha", "contract_version": 1, "account_id": "A1", "granularity": "monthly", "currency": "USD",
        "period_end": date(2024, 1, 31), "beginning_market_value": "100", "contributions": "0", "distributions": "0",
        "ending_market_value": "101", "file_sha256": "f1", "line": 2, "received_ts_utc": datetime(2024, 7, 1, tzinfo=UTC),
        "flags": "",
    }  # fmt: skip
    row.update(changes)
    return {
        name: Decimal(str(value)) if name in DECIMALS and value is not None else value for name, value in row.items()
    }


def history(*rows: dict[str, Any]) -> pa.Table:
    schema = history_schema()
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in rows], schema=schema)


@pytest.fixture
def make_row() -> Any:
    return history_row


@pytest.fixture
def make_history() -> Any:
    """Build an Arrow table of history rows: ``make_history(dict, ...)``, defaults of one quiet month."""
    return lambda *rows: history(*(history_row(**row) for row in rows))


@pytest.fixture
def make_months() -> Any:
    """Build rows of consecutive months of 2024 from (BMV, in, out, EMV), with the given changes on all of them."""

    def build(*values: tuple[Any, Any, Any, Any], first: int = 1, **changes: Any) -> list[dict[str, Any]]:
        return [
            {
                "period_end": month_end(2024 + (first + n - 1) // 12, (first + n - 1) % 12 + 1),
                "beginning_market_value": bmv,
                "contributions": money_in,
                "distributions": money_out,
                "ending_market_value": emv,
                "line": n + 2,
                **changes,
            }
            for n, (bmv, money_in, money_out, emv) in enumerate(values)
        ]

    return build
