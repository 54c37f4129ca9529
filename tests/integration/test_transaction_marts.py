"""The marts of transactions over a month of payments, built once by Dagster and dbt, against plain Python."""

from __future__ import annotations

import random
import shutil
import statistics
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.transactions import Delivery, transaction

from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    MART_TRANSACTION_ANOMALIES,
    MART_TRANSACTION_CONTROL,
    MART_TRANSACTION_VOLUME,
    REJECTED_TRANSACTIONS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.registry import build_definitions
from finance_assets.resources import build_lake, build_warehouse
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake, parquet_bytes
from finance_assets.transactions.batches import write_batch

pytestmark = [
    pytest.mark.slow,
    # Of dbt and what it loads.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]


@dataclass
class Marts:
    """A deployment in a folder of its own."""

    settings: Settings
    instance: dg.DagsterInstance

    @property
    def lake(self) -> Lake:
        return build_lake(self.settings)

    def rows(self, contract: Contract) -> list[dict[str, Any]]:
        """Rows of a table of the lake."""
        held: list[dict[str, Any]] = self.lake.read(contract).table.to_pylist()
        return held

    def mart(self, contract: Contract) -> list[dict[str, Any]]:
        """Rows of a relation of the warehouse."""
        held: list[dict[str, Any]] = build_warehouse(self.settings).read(contract).to_pylist()
        return held

    def materialize(self, selection: dg.AssetSelection, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        definitions = build_definitions(self.settings)
        return dg.materialize(
            [asset for asset in definitions.assets or [] if isinstance(asset, dg.AssetsDefinition)],
            selection=selection,
            resources=definitions.resources,
            instance=self.instance,
            raise_on_error=raise_on_error,
        )


DAYS = 24
SPIKE = datetime(2025, 1, 23, 14, tzinfo=UTC)


def month() -> list[Delivery]:
    """Three and a half weeks of payments: dollars with a daily rhythm and one spike, euros at noon alone, one yen."""
    source = random.Random(42)
    deliveries: list[Delivery] = []

    def add(at: datetime, amount: str, currency: str, merchant: str) -> None:
        number = len(deliveries)
        body = transaction(f"t{number}", amount, currency=currency, merchant=merchant, timestamp=at.isoformat())
        received = at + timedelta(seconds=30)
        deliveries.append(Delivery(f"m{number}", body, received, received))

    for day in range(DAYS):
        for hour in (3, 9, 14, 20):
            start = datetime(2025, 1, 1, hour, tzinfo=UTC) + timedelta(days=day)
            count = {3: 1, 9: 4, 14: 6, 20: 3}[hour] + (source.randrange(3) if hour != 3 else 0)
            for _ in range(count * (9 if start == SPIKE else 1)):
                amount = str(Decimal(source.randrange(1, 200_000)) / 100)
                add(
                    start + timedelta(seconds=source.randrange(3600)),
                    amount,
                    "USD",
                    source.choice(["Café", "a\u0000b", "x"]),
                )
        for _ in range(2):
            add(datetime(2025, 1, 1, 12, tzinfo=UTC) + timedelta(days=day), "0.000000000000000001", "EUR", "thin")
    add(datetime(2025, 1, 10, 5, tzinfo=UTC), "999999999999999.999999999999999999", "JPY", "all")
    add(datetime(2025, 1, 10, 5, 30, tzinfo=UTC), "999999999999999.999999999999999999", "JPY", "all")
    # What is no plain first message: on days of its own, so that each part of the control total is seen.
    last = deliveries[-1].received_at + timedelta(days=3)
    for place, one in enumerate(deliveries[:40]):
        body = one.body if place % 2 else one.body.replace(b'"user_id": "u-1"', b'"user_id": "u-2"')
        deliveries.append(Delivery(f"again{place}", body, last, last + timedelta(hours=place)))
    deliveries += [Delivery(f"bad{place}", b"{", last, last + timedelta(hours=place)) for place in range(30)]
    return deliveries


@pytest.fixture(scope="module")
def month_of_payments(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Marts]:
    with dg.DagsterInstance.ephemeral() as instance:
        made = Marts(Settings(home=tmp_path_factory.mktemp("month")), instance)
        deliveries, processed = month(), datetime(2025, 3, 1, tzinfo=UTC)
        for start in range(0, len(deliveries), 150):
            write_batch(made.lake, deliveries[start : start + 150], processed)
        # The queue delivers some again, in another micro-batch and on another day.
        late = timedelta(days=2)
        again = [replace(one, received_at=one.received_at + late, receive_count=2) for one in deliveries[::17]]
        write_batch(made.lake, again, processed)
        result = made.materialize(dg.AssetSelection.groups("transactions"))
        assert all(check.passed for check in result.get_asset_check_evaluations())
        yield made


@pytest.fixture(scope="module")
def exact() -> Iterator[None]:
    """Sums of decimals that are not rounded to Python's 28 digits."""
    with localcontext() as context:
        context.prec = 60
        yield


def test_volume_and_value_are_exact_per_currency(month_of_payments: Marts, exact: None) -> None:
    expected: dict[tuple[Any, ...], list[Decimal]] = defaultdict(list)
    for row in month_of_payments.rows(CORE_TRANSACTIONS):
        hour = row["timestamp_utc"].replace(minute=0, second=0, microsecond=0)
        expected[row["currency"], hour, row["transaction_category"], row["merchant"]].append(row["amount"])
    found = month_of_payments.mart(MART_TRANSACTION_VOLUME)
    assert len(found) == len(expected) > 100
    for row in found:
        amounts = expected[row["currency"], row["hour_ts_utc"], row["transaction_category"], row["merchant"]]
        assert (row["transaction_count"], row["total_amount"]) == (len(amounts), sum(amounts))
        assert (row["smallest_amount"], row["largest_amount"]) == (min(amounts), max(amounts))
    yen = [row for row in found if row["currency"] == "JPY"]
    assert [row["total_amount"] for row in yen] == [Decimal("1999999999999999.999999999999999998")]


def test_the_control_total_ties_day_by_day(month_of_payments: Marts, exact: None) -> None:
    parts = {
        "accepted": CORE_TRANSACTIONS, "duplicate": DUPLICATE_TRANSACTIONS, "conflict": TRANSACTION_CONFLICTS,
        "rejected": REJECTED_TRANSACTIONS,
    }  # fmt: skip
    counts: Counter[tuple[Any, ...]] = Counter()
    amounts: dict[tuple[Any, ...], Decimal] = defaultdict(Decimal)
    for part, contract in parts.items():
        for row in month_of_payments.rows(contract):
            place = (row["received_ts_utc"].date(), row.get("currency") or "XXX")
            counts[*place, part] += 1
            amounts[*place, part] += row.get("amount") or Decimal(0)
    found = month_of_payments.mart(MART_TRANSACTION_CONTROL)
    for row in found:
        place = (row["received_date"], row["currency"])
        assert row["ties"]
        assert [row[f"{part}_count"] for part in parts] == [counts[*place, part] for part in parts]
        assert [row[f"{part}_amount"] for part in list(parts)[:3]] == [
            amounts[*place, part] for part in list(parts)[:3]
        ]
        assert row["received_count"] == sum(counts[*place, part] for part in parts)
        assert row["received_amount"] == sum(amounts[*place, part] for part in parts)
    assert sum(row["received_count"] for row in found) == len(month())
    assert sum(row["rejected_count"] for row in found) == 30
    assert sum(row["conflict_count"] for row in found) == sum(row["duplicate_count"] for row in found) == 20
    assert {(*place,) for *place, _ in counts} == {(row["received_date"], row["currency"]) for row in found}


def test_a_message_that_is_lost_between_raw_and_core_breaks_the_control_total(
    month_of_payments: Marts, tmp_path: Path
) -> None:
    """The flag is seen to be false: a part is taken away behind the pipeline's back, and the mart is built again."""
    home = tmp_path / "home"
    shutil.copytree(month_of_payments.settings.home_dir, home)
    hurt = Marts(Settings(home=home), month_of_payments.instance)
    [path] = hurt.lake.list(hurt.lake.folder(CORE_TRANSACTIONS))
    table = hurt.lake.read(CORE_TRANSACTIONS).table
    hurt.lake.put(path, parquet_bytes(table.slice(1)))
    made = hurt.materialize(
        dg.AssetSelection.keys(
            "intermediate/int_transaction_outcomes",
            "intermediate/int_received_transactions",
            "mart/mart_transaction_control",
        ),
        raise_on_error=False,
    )
    failed = [check for check in made.get_asset_check_evaluations() if not check.passed]
    assert [(check.check_name, check.severity) for check in failed] == [
        ("mart_transaction_control__rules", dg.AssetCheckSeverity.ERROR)
    ]
    lost = table.slice(0, 1).to_pylist()[0]
    [broken] = [row for row in hurt.mart(MART_TRANSACTION_CONTROL) if not row["ties"]]
    assert (broken["received_date"], broken["currency"]) == (lost["received_ts_utc"].date(), lost["currency"])
    assert broken["received_amount"] - broken["accepted_amount"] == lost["amount"]


def test_anomalies_are_those_of_a_robust_score_by_hand(month_of_payments: Marts) -> None:
    hourly: dict[tuple[str, datetime], list[float]] = defaultdict(lambda: [0.0, 0.0])
    for row in month_of_payments.rows(CORE_TRANSACTIONS):
        held = hourly[row["currency"], row["timestamp_utc"].replace(minute=0, second=0, microsecond=0)]
        held[0] += 1
        held[1] += float(row["amount"])
    last = max(hour for _, hour in hourly)
    first = {currency: min(hour for code, hour in hourly if code == currency) for currency, _ in hourly}
    found = {(row["currency"], row["hour_ts_utc"]): row for row in month_of_payments.mart(MART_TRANSACTION_ANOMALIES)}
    assert found.keys() == {
        (currency, start + timedelta(hours=place))
        for currency, start in first.items()
        for place in range(int((last - start).total_seconds() // 3600) + 1)
    }
    seen: Counter[str] = Counter()
    for (currency, hour), row in found.items():
        for measure, index in (("count", 0), ("value", 1)):
            status, score = row[f"{measure}_score_status"], row[f"{measure}_score"]
            seen[status] += 1
            if hour - timedelta(days=20) < first[currency]:
                assert (status, score, row[f"is_{measure}_anomaly"]) == ("insufficient_history", None, None)
                continue
            before = [hourly.get((currency, hour - timedelta(days=day)), [0.0, 0.0])[index] for day in range(1, 21)]
            middle = statistics.median(before)
            spread = statistics.median(abs(value - middle) for value in before)
            if spread == 0:
                assert (status, score, row[f"is_{measure}_anomaly"]) == ("zero_variance", None, None)
                continue
            here = hourly.get((currency, hour), [0.0, 0.0])[index]
            assert status == "ok"
            assert score == pytest.approx(0.67449 * (here - middle) / spread, rel=1e-9)
            assert row[f"is_{measure}_anomaly"] == (score > 3.5)
    assert set(seen) == {"ok", "insufficient_history", "zero_variance"}
    spike = found["USD", SPIKE]
    assert (spike["is_count_anomaly"], spike["is_value_anomaly"]) == (True, True)
    assert sum(row["is_count_anomaly"] or False for row in found.values()) <= 3
