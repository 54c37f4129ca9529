"""Publishing to a real PostgreSQL: all of a table or nothing, exactly, and the same rows again change none."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from fixtures.quotes import table_of
from fixtures.rows import good_row

from finance_assets.contracts.advisory import PERFORMANCE_HISTORY as CONTRACT
from finance_assets.contracts.model import Column
from finance_assets.storage.postgres import Published, PublishError, publish

SECRET = "s3cr3t"


def rows(*accounts: str, **more: Any) -> pa.Table:
    return table_of(CONTRACT, [good_row(CONTRACT, account_id=account, **more) for account in accounts])


@pytest.fixture
def reader(postgres_url: str) -> Iterator[psycopg.Cursor[Any]]:
    with psycopg.connect(postgres_url.replace("+psycopg", ""), autocommit=True) as connection:
        yield connection.cursor()


def stored(reader: psycopg.Cursor[Any], columns: str = "*") -> list[Any]:
    return reader.execute(f"select {columns} from published.performance_history order by account_id").fetchall()


def test_a_table_is_made_filled_changed_and_emptied(postgres_url: str, reader: psycopg.Cursor[Any]) -> None:
    assert publish(postgres_url, CONTRACT, rows("A", "B", "C")) == Published(3, 0, 0, 3)
    assert publish(postgres_url, CONTRACT, rows("A", "B", "C")) == Published(0, 0, 0, 3)
    changed = pa.concat_tables([rows("A"), rows("B", income=Decimal("0.01")), rows("D")])
    assert publish(postgres_url, CONTRACT, changed) == Published(1, 1, 1, 3)
    assert stored(reader, "account_id, income") == [
        ("A", good_row(CONTRACT)["income"]),
        ("B", Decimal("0.01000000")),
        ("D", good_row(CONTRACT)["income"]),
    ]
    assert publish(postgres_url, CONTRACT, rows()) == Published(0, 0, 3, 0)
    assert stored(reader) == []


def test_every_value_comes_back_as_it_was(postgres_url: str, reader: psycopg.Cursor[Any]) -> None:
    unusual = rows(
        'a "quoted", id\nof two lines',
        beginning_market_value=Decimal("-99999999999999999999.99999999"),
        income=None,
        return_net=Decimal("-0.98765432109876"),
        received_ts_utc=datetime(2012, 1, 3, 4, 5, 6, 789012, tzinfo=UTC),
        period_end=date(2012, 2, 29),
        flags="",
        member="\\N",
    )
    publish(postgres_url, CONTRACT, unusual)
    (found,) = stored(reader, ", ".join(CONTRACT.column_names))
    assert dict(zip(CONTRACT.column_names, found, strict=True)) == unusual.to_pylist()[0]


def test_readers_see_all_or_nothing(postgres_url: str, reader: psycopg.Cursor[Any]) -> None:
    publish(postgres_url, CONTRACT, rows("A", "B"))
    double = pa.concat_tables([rows("C"), rows("C")])
    with pytest.raises(PublishError, match=r"published\.performance_history was not published: duplicate key"):
        publish(postgres_url, CONTRACT, pa.concat_tables([double, rows("A", income=Decimal(7))]))
    assert [row[0] for row in stored(reader, "account_id")] == ["A", "B"]


def test_a_table_of_other_columns_is_named(postgres_url: str) -> None:
    publish(postgres_url, CONTRACT, rows("A"))
    wider = replace(CONTRACT, columns=(*CONTRACT.columns, Column("more", "string", "text", "More.", True)))
    with pytest.raises(PublishError, match="has other columns than its contract"):
        publish(postgres_url, wider, rows("A").append_column("more", pa.nulls(1, pa.string())))


def test_a_server_that_is_not_there_is_an_error_without_the_password() -> None:
    with pytest.raises(PublishError, match="was not published") as caught:
        publish(f"postgresql+psycopg://user:{SECRET}@127.0.0.1:9/none", CONTRACT, rows("A"))
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None
