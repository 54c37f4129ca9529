"""The history: first versions, corrections, and silence where a file says again what is known."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.advisory.history import new_versions, versions_of_files
from finance_assets.contracts.advisory import PERFORMANCE_HISTORY, VENDOR_ROWS
from finance_assets.contracts.arrow import conform, empty_table

FIRST = datetime(2013, 2, 1, 8, tzinfo=UTC)
SECOND = datetime(2013, 2, 5, 8, tzinfo=UTC)


def rows(*changes: dict[str, Any], received: datetime = FIRST, sha: str = "a" * 64) -> pa.Table:
    plain: dict[str, Any] = {"net_flow": Decimal(0), "received_ts_utc": received, "file_sha256": sha}
    return table_of(
        VENDOR_ROWS, *(good_row(VENDOR_ROWS, **(plain | {"line": n + 2} | one)) for n, one in enumerate(changes))
    )


def known(history: pa.Table, *names: str) -> list[tuple[Any, ...]]:
    return [tuple(row[name] for name in names) for row in history.to_pylist()]


NOTHING = empty_table(PERFORMANCE_HISTORY)


def test_what_was_unknown_is_a_first_version_with_its_origin() -> None:
    found = new_versions(rows({"account_id": "B"}, {"account_id": "A"}), NOTHING)
    assert known(found, "account_id", "version", "line", "file_sha256", "received_ts_utc") == [
        ("A", 1, 3, "a" * 64, FIRST),
        ("B", 1, 2, "a" * 64, FIRST),
    ]


def test_a_file_that_says_again_what_is_known_adds_nothing() -> None:
    history = new_versions(rows({}, {"account_id": "B"}), NOTHING)
    again = rows({"flags": "other", "line": 9}, {"account_id": "B"}, received=SECOND, sha="b" * 64)
    assert new_versions(again, history).num_rows == 0


def test_a_correction_is_the_next_version_and_what_was_known_stays() -> None:
    history = new_versions(rows({}, {"account_id": "B"}), NOTHING)
    corrected = rows({"ending_market_value": Decimal("10.01")}, {"account_id": "B"}, received=SECOND, sha="b" * 64)
    found = new_versions(corrected, history)
    assert known(found, "version", "ending_market_value", "received_ts_utc") == [(2, Decimal("10.01000000"), SECOND)]
    back = new_versions(rows({}, received=SECOND, sha="c" * 64), pa.concat_tables([history, found]))
    assert known(back, "version", "ending_market_value") == [(3, Decimal(10))]


def test_a_value_that_is_taken_back_is_a_correction_too() -> None:
    history = new_versions(rows({}), NOTHING)
    assert new_versions(rows({"return_net": None}, received=SECOND), history).num_rows == 1
    assert new_versions(rows({"return_net": Decimal("0.10000000000001")}, received=SECOND), history).num_rows == 1


def test_vendors_grains_and_periods_are_facts_of_their_own() -> None:
    history = new_versions(rows({}), NOTHING)
    others = rows(
        {"vendor": "another"}, {"granularity": "quarterly"}, {"period_end": date(2013, 1, 31)}, {"account_id": "Z"}
    )
    assert known(new_versions(others, history), "version") == [(1,)] * 4


def test_a_fact_that_an_archive_states_twice_is_one_version() -> None:
    twice = rows({"member": "a.csv", "line": 5}, {"member": "b.csv", "line": 2})
    assert known(new_versions(twice, NOTHING), "member", "line") == [("a.csv", 5)]


def test_money_keeps_every_digit() -> None:
    value = Decimal("-12345678901234567890.12345678")
    (row,) = new_versions(rows({"appreciation": value}), NOTHING).to_pylist()
    assert row["appreciation"] == value


@pytest.mark.parametrize("seed", range(12))
def test_files_that_are_added_together_add_what_they_add_one_after_the_other(seed: int) -> None:
    chance = Random(seed)
    history, before, order, files = NOTHING, NOTHING, list[str](), list[pa.Table]()
    expected = list[pa.Table]()
    for number in range(9):
        said = [
            {
                "account_id": chance.choice("ABC"),
                "period_end": date(2013, chance.choice([1, 3]), 31),
                "ending_market_value": Decimal(chance.choice([100, 101])),
                "fees": chance.choice([None, Decimal(1)]),
                "member": chance.choice(["", "a"]),
            }
            for _ in range(chance.randrange(1, 6))
        ]
        digest = f"{number:064x}"
        table = rows(*said, received=FIRST + timedelta(days=number), sha=digest)
        new = new_versions(table, history)
        history = pa.concat_tables([history, new])
        if number < 3:
            before = history
        else:
            order.append(digest)
            files.append(table)
            expected.append(new)
    order.append("f" * 64)
    found = versions_of_files(pa.concat_tables(files), order, before)
    assert list(found) == order
    assert found.pop("f" * 64).num_rows == 0, "a file without rows"
    assert any(table.num_rows for table in expected)
    for table, wanted in zip(found.values(), expected, strict=True):
        assert conform(PERFORMANCE_HISTORY, table).equals(conform(PERFORMANCE_HISTORY, wanted))
