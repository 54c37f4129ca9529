"""PostgreSQL that hangs, drips or is away: publishing and the ledger end in time."""

from __future__ import annotations

import time
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from fixtures.faulty_server import (
    Fault,
    closes,
    drip_reply,
    ends_within,
    garbage,
    hanging_resolver,
    resets,
    serve,
    silent,
)
from fixtures.quotes import table_of
from fixtures.rows import good_row

from finance_assets.contracts.advisory import PERFORMANCE_HISTORY as CONTRACT
from finance_assets.providers.outbound import limited
from finance_assets.storage import ledger as ledgers
from finance_assets.storage import postgres
from finance_assets.storage.ledger import Ledger
from finance_assets.storage.postgres import PublishError, connect, publish

SECRET = "T0PSECRET"


def rows() -> pa.Table:
    return table_of(CONTRACT, [good_row(CONTRACT, income=Decimal(1))])


@pytest.mark.parametrize("fault", [silent, drip_reply, garbage, closes, resets])
def test_a_server_that_does_not_let_in_is_given_up(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 0.4)
    with serve(fault) as server, ends_within(0.4), pytest.raises(PublishError, match="was not published") as caught:
        publish(f"postgresql://user:{SECRET}@127.0.0.1:{server.port}/none?sslmode=disable", CONTRACT, rows())
    assert SECRET not in str(caught.value)


def test_a_name_that_is_not_found_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    # psycopg looks names up in Python or in libpq, as its version goes; both are waited for no longer.
    with hanging_resolver(monkeypatch.setattr), ends_within(0.3), pytest.raises(psycopg.Error):
        connect("host=database.invalid", connect_seconds=0.3)


def test_a_statement_that_does_not_end_is_given_up(postgres_url: str) -> None:
    connection = connect(postgres_url.replace("+psycopg", ""), statement_seconds=0.3)
    with ends_within(0.3), pytest.raises(psycopg.OperationalError, match=r"did not answer: no end within 0\.3 s"):
        connection.execute("select pg_sleep(20)")
    assert connection.closed
    with connect(postgres_url.replace("+psycopg", ""), statement_seconds=5) as again:
        assert again.execute("select 7").fetchone() == (7,)
    again.close()


def test_the_limits_of_the_caller_hold(postgres_url: str) -> None:
    with (
        connect(postgres_url.replace("+psycopg", "")) as connection,
        limited(0.3),
        ends_within(0.3),
        pytest.raises(psycopg.OperationalError, match=r"no end within 0\.3 s"),
    ):
        connection.execute("select pg_sleep(20)")


def test_a_publication_that_waits_for_a_lock_ends_in_time(postgres_url: str) -> None:
    publish(postgres_url, CONTRACT, rows())
    with connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute(f"lock table published.{CONTRACT.name} in exclusive mode")
        with ends_within(0.5), pytest.raises(PublishError, match=r"did not answer: no end within 0\.5 s"):
            publish(postgres_url, CONTRACT, rows(), seconds=0.5)
        other.rollback()
    other.close()
    assert publish(postgres_url, CONTRACT, rows()).rows == 1


def test_the_ledger_ends_in_time_and_heals(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "BUSY_TIMEOUT_SECONDS", 0.5)
    ledger = Ledger(postgres_url, lambda: datetime(2024, 1, 5, tzinfo=UTC))
    day = date(2024, 1, 5)
    assert ledger.try_acquire("vendor", day, 5)
    with connect(postgres_url.replace("+psycopg", "")) as other:
        other.execute("lock table ledger_quotas in access exclusive mode")
        with ends_within(0.5), pytest.raises(Exception, match="did not answer"):
            ledger.used("vendor", day)
        other.rollback()
    other.close()
    begun = time.monotonic()
    assert ledger.used("vendor", day) == 1
    assert time.monotonic() - begun < 1
    ledger.close()


def test_a_ledger_whose_server_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "CONNECT_SECONDS", 0.4)
    with serve(silent) as server:
        ledger: Any = Ledger(
            f"postgresql://user:{SECRET}@127.0.0.1:{server.port}/none", lambda: datetime(2024, 1, 5, tzinfo=UTC)
        )
        with ends_within(0.4), pytest.raises(Exception, match="connecting to PostgreSQL did not end within") as caught:
            ledger.used("vendor", date(2024, 1, 5))
        assert SECRET not in str(caught.value)
