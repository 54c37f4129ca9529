"""The completeness calendar: accounts and files that should have come."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from finance_assets.advisory.completeness import DeliverySchedule, completeness, completeness_schema


def test_account_that_drops_off_and_one_that_is_withdrawn(make_history: Any, make_months: Any) -> None:
    quiet = (100, 0, 0, 100)
    history = make_history(
        *make_months(quiet, quiet, quiet, account_id="stays"),
        *make_months(quiet, account_id="drops"),
        *make_months((100, 0, 100, 0), account_id="leaves"),
        *make_months(
            quiet, first=3, account_id="comes", file_sha256="f2", received_ts_utc=datetime(2024, 8, 1, tzinfo=UTC)
        ),
    )
    table = completeness(history, date(2024, 4, 15), {"alpha": DeliverySchedule("monthly", 2), "bravo": "daily"})
    assert table.schema.equals(completeness_schema())
    rows = table.to_pylist()
    assert [
        (r["period_month"].month, r["accounts_expected"], r["accounts_received"], r["missing_accounts"], r["status"])
        for r in rows
        if r["vendor"] == "alpha"
    ] == [
        (1, 0, 3, [], "missing_files"),
        (2, 2, 1, ["drops"], "missing_accounts"),
        (3, 1, 2, [], "complete"),
        (4, 2, 0, ["comes", "stays"], "nothing_received"),
    ]
    assert [r["accounts_new"] for r in rows[:4]] == [3, 0, 1, 0]
    assert [r["files_received"] for r in rows[:4]] == [1, 1, 2, 0]
    assert rows[2]["last_received_ts_utc"] == datetime(2024, 8, 1, tzinfo=UTC)
    assert rows[4] == {
        **rows[4], "vendor": "bravo", "granularity": "none", "files_expected": 22, "status": "nothing_received",
    }  # fmt: skip


def test_month_without_anything_still_expects(make_history: Any, make_months: Any) -> None:
    months = make_months((1, 0, 0, 1), (1, 0, 0, 1), (1, 0, 0, 1))
    rows = completeness(make_history(months[0], months[2]), date(2024, 3, 31)).to_pylist()
    assert [(r["accounts_expected"], r["accounts_received"], r["status"]) for r in rows] == [
        (0, 1, "complete"),
        (1, 0, "nothing_received"),
        (1, 1, "complete"),
    ]
    assert rows[0]["files_expected"] is None


def test_quarters_and_corrections(make_history: Any) -> None:
    quarter = {"granularity": "quarterly", "period_end": date(2024, 3, 31)}
    history = make_history(
        quarter,
        {**quarter, "received_ts_utc": datetime(2024, 9, 1, tzinfo=UTC), "file_sha256": "f2"},
        {**quarter, "period_end": date(2024, 6, 30)},
        {**quarter, "period_end": date(2025, 6, 30)},
    )
    rows = completeness(history, date(2024, 7, 1), {"alpha": "quarterly"}).to_pylist()
    assert [(r["period_month"], r["files_expected"], r["files_received"]) for r in rows] == [
        (date(2024, 3, 1), 1, 2),
        (date(2024, 6, 1), 1, 1),
    ]


def plainly(rows: list[dict[str, Any]], last: date) -> list[tuple[Any, ...]]:
    """The calendar, month by month, in loops: feed, month, accounts expected, received, missing and new."""
    present: dict[tuple[str, str], dict[date, dict[str, bool]]] = {}
    newest = sorted(rows, key=lambda row: (row["period_end"], row["received_ts_utc"], row["file_sha256"], row["line"]))
    for row in newest:
        quarter = row["granularity"] == "quarterly"
        end = row["period_end"]
        month = date(end.year, end.month + (-end.month % 3 if quarter else 0), 1)
        gone = row["ending_market_value"] == 0 and row["distributions"] > 0
        feed = present.setdefault((row["vendor"], row["granularity"]), {})
        feed.setdefault(month, {})[row["account_id"]] = gone
    found = []
    for feed, months in sorted(present.items()):
        month = min(months)
        while month <= last:
            before = [m for m in months if m < month]
            held = months[max(before)] if before else {}
            due = {account for account, gone in held.items() if not gone}
            here = set(months.get(month, {}))
            found.append((*feed, month, len(due), len(here), sorted(due - here), len(here - set(held))))
            step = month.month + (3 if feed[1] == "quarterly" else 1)
            month = date(month.year + (step > 12), step - 12 * (step > 12), 1)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_the_calendar_is_that_of_a_plain_loop(make_history: Any, seed: int) -> None:
    chance = random.Random(seed)
    rows = []
    for _ in range(chance.choice([5, 60, 200])):
        is_empty = chance.random() < 0.3
        end = date(2024, 1, 1) + timedelta(days=chance.randrange(300))
        rows.append({
            "vendor": chance.choice(["alpha", "bravo"]), "account_id": f"A{chance.randrange(8)}",
            "granularity": chance.choice(["daily", "monthly", "quarterly"]), "period_end": end,
            "contributions": Decimal(0), "distributions": Decimal(chance.choice([0, 100])),
            "ending_market_value": Decimal(0 if is_empty else 100), "line": len(rows),
            "received_ts_utc": datetime(2025, 1, chance.randint(1, 3), tzinfo=UTC),
            "file_sha256": chance.choice("fgh"),
        })  # fmt: skip
    last = date(2024, chance.randint(10, 12), 1)
    calendar = completeness(make_history(*rows), last).to_pylist()
    names = ("vendor", "granularity", "period_month", "accounts_expected", "accounts_received", "missing_accounts")
    assert [tuple(row[name] for name in (*names, "accounts_new")) for row in calendar] == plainly(rows, last)
    assert all(row["accounts_missing"] == len(row["missing_accounts"]) for row in calendar)


def test_rhythms() -> None:
    february = date(2024, 2, 1)
    assert DeliverySchedule("daily").files_in(february) == 21
    assert DeliverySchedule("weekly", 3).files_in(february) == 12
    assert DeliverySchedule("quarterly").files_in(february) == 0
    with pytest.raises(ValueError, match="unknown rhythm"):
        DeliverySchedule("hourly")
    with pytest.raises(ValueError, match="at least one"):
        DeliverySchedule("daily", 0)
