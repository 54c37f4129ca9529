"""What should have come from each vendor and what came: accounts and files per month.

Belongs here: the completeness calendar from the history and the vendors' rhythms. Does not belong here: the breaks
of single accounts (`finance_assets.advisory.reconciliation`), listing landing folders, storage, Dagster.
"""

from __future__ import annotations

import calendar
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any, Final, Literal, get_args

from finance_assets.advisory.sql import connect

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["COMPLETENESS_COLUMNS", "RHYTHMS", "Rhythm", "completeness", "completeness_schema"]

Frequency = Literal["daily", "weekly", "monthly", "quarterly"]
RHYTHMS: Final[tuple[str, ...]] = get_args(Frequency)
"""How often a vendor sends."""

COMPLETENESS_COLUMNS: Final = {
    "vendor": "Vendor.",
    "granularity": "Grain of the rows; 'none' where a vendor with a rhythm has never sent a row.",
    "period_month": "First day of the month that the rows are about.",
    "accounts_expected": "Accounts in the period before that were not fully withdrawn there.",
    "accounts_received": "Accounts in this period.",
    "accounts_missing": "Accounts expected and not received.",
    "accounts_new": "Accounts received and not in the period before.",
    "missing_accounts": "Their identifiers, sorted; at most 100.",
    "files_expected": "Files by the vendor's rhythm; null where it has none.",
    "files_received": "Files with at least one row of the period, corrections included.",
    "first_received_ts_utc": "When the first row of the period became known.",
    "last_received_ts_utc": "When the last one did.",
    "status": "complete, missing_accounts, missing_files, or nothing_received.",
}
"""Columns of the completeness calendar."""

_NAMED_AT_MOST: Final = 100


@dataclass(frozen=True)
class Rhythm:
    """How many files a vendor sends."""

    frequency: str = "monthly"
    """One of `RHYTHMS`."""
    files: int = 1
    """Files per delivery."""

    def __post_init__(self) -> None:
        if self.frequency not in RHYTHMS:
            raise ValueError(f"unknown rhythm {self.frequency!r}; known are {', '.join(RHYTHMS)}")
        if self.files < 1:
            raise ValueError("a delivery has at least one file")

    def files_in(self, month: date) -> int:
        """Files expected for a month: weekdays, Fridays, one, or one at the end of a quarter, times files."""
        length = calendar.monthrange(month.year, month.month)[1]
        weekdays = [(month.replace(day=1) + timedelta(days=day)).weekday() for day in range(length)]
        deliveries = {
            "daily": sum(day < 5 for day in weekdays),
            "weekly": weekdays.count(4),
            "monthly": 1,
            "quarterly": int(month.month % 3 == 0),
        }
        return deliveries[self.frequency] * self.files


def completeness_schema() -> pa.Schema:
    """Give the Arrow schema of the calendar (`COMPLETENESS_COLUMNS`)."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    types = {
        "vendor": pa.string(), "granularity": pa.string(), "period_month": pa.date32(), "status": pa.string(),
        "missing_accounts": pa.list_(pa.string()), "first_received_ts_utc": moment, "last_received_ts_utc": moment,
    }  # fmt: skip
    return pa.schema([pa.field(name, types.get(name, pa.int64())) for name in COMPLETENESS_COLUMNS])


def completeness(
    history: pa.Table | duckdb.DuckDBPyConnection,
    as_of_month: date,
    expected: Mapping[str, Rhythm | str] | None = None,
) -> pa.Table:
    """Compute the completeness calendar of every vendor up to a month.

    Parameters
    ----------
    history
        Versions of the rows (`finance_assets.advisory.performance.HISTORY_COLUMNS`); later ones of a key add files.
        Or a DuckDB connection in UTC with a relation ``history_rows`` like it, which keeps memory low.
    as_of_month
        Any day of the last month to look at; a vendor that has stopped shows up to there.
    expected
        `Rhythm`, or its frequency, by vendor. Vendors without one have no expected files.

    Returns
    -------
    pyarrow.Table
        `COMPLETENESS_COLUMNS`, one row per vendor, grain and month from the vendor's first on (for quarterly rows:
        every third month), ordered. An account that drops off is expected once, in the period after its last one;
        a period in which nothing came expects what came last. An account is taken as withdrawn where its ending
        value is 0 after money went out.

    Raises
    ------
    ValueError
        If a rhythm is not valid.
    """
    import pyarrow as pa

    if isinstance(history, pa.Table):
        with connect() as connection:
            connection.register("history_rows", history)
            return completeness(connection, as_of_month, expected)
    connection = history
    rhythms = {
        vendor: rhythm if isinstance(rhythm, Rhythm) else Rhythm(rhythm) for vendor, rhythm in (expected or {}).items()
    }
    last = as_of_month.replace(day=1)
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE present AS
        SELECT vendor, granularity, account_id,
        CASE granularity WHEN 'quarterly' THEN (date_trunc('quarter', period_end) + INTERVAL 2 MONTH)::DATE
             ELSE date_trunc('month', period_end)::DATE END AS period_month,
        -- the newest version of the last row of the month says whether the account was withdrawn
        max_by(coalesce(ending_market_value = 0 AND coalesce(contributions - distributions, net_flow) < 0, false),
            (period_end, received_ts_utc, file_sha256, line)) AS withdrawn
        FROM history_rows WHERE date_trunc('month', period_end) <= $last
        GROUP BY ALL
        """,
        {"last": last},
    )
    # The period with rows before this one: a month in which nothing came does not end what is expected.
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE months AS
        WITH bounds AS (
            SELECT vendor, granularity, min(period_month) AS first,
            CASE granularity WHEN 'quarterly' THEN INTERVAL 3 MONTH ELSE INTERVAL 1 MONTH END AS step
            FROM present GROUP BY vendor, granularity
        ),
        every AS (
            SELECT vendor, granularity,
            unnest(generate_series(first::TIMESTAMP, $last::TIMESTAMP, step))::DATE AS period_month
            FROM bounds
        ),
        received AS (SELECT DISTINCT vendor, granularity, period_month AS month_received FROM present)
        SELECT e.*, max(r.month_received) AS month_before
        FROM every e LEFT JOIN received r
        ON r.vendor = e.vendor AND r.granularity = e.granularity AND r.month_received < e.period_month
        GROUP BY ALL
        """,
        {"last": last},
    )
    rows = connection.execute(
        f"""
        WITH due AS (
            SELECT m.vendor, m.granularity, m.period_month, p.account_id
            FROM months m JOIN present p ON p.vendor = m.vendor AND p.granularity = m.granularity
                AND p.period_month = m.month_before
            WHERE NOT p.withdrawn
        ),
        missing AS (
            SELECT d.* FROM due d ANTI JOIN present p USING (vendor, granularity, period_month, account_id)
        ),
        before AS (
            SELECT m.vendor, m.granularity, m.period_month, p.account_id
            FROM months m JOIN present p ON p.vendor = m.vendor AND p.granularity = m.granularity
                AND p.period_month = m.month_before
        ),
        fresh AS (
            SELECT p.vendor, p.granularity, p.period_month, count(*) AS accounts_new
            FROM present p ANTI JOIN before b USING (vendor, granularity, period_month, account_id) GROUP BY ALL
        ),
        files AS (
            SELECT vendor, granularity,
            CASE granularity WHEN 'quarterly' THEN (date_trunc('quarter', period_end) + INTERVAL 2 MONTH)::DATE
                 ELSE date_trunc('month', period_end)::DATE END AS period_month,
            count(DISTINCT file_sha256) AS files_received, min(received_ts_utc) AS first_received_ts_utc,
            max(received_ts_utc) AS last_received_ts_utc
            FROM history_rows GROUP BY ALL
        ),
        expected AS (SELECT vendor, granularity, period_month, count(*) AS n FROM due GROUP BY ALL),
        received AS (SELECT vendor, granularity, period_month, count(*) AS n FROM present GROUP BY ALL),
        absent AS (
            SELECT vendor, granularity, period_month, count(*) AS n,
            list_sort(list(account_id))[:{_NAMED_AT_MOST}] AS names FROM missing GROUP BY ALL
        )
        SELECT m.vendor, m.granularity, m.period_month, coalesce(e.n, 0) AS accounts_expected,
        coalesce(r.n, 0) AS accounts_received, coalesce(a.n, 0) AS accounts_missing,
        coalesce(f.accounts_new, 0) AS accounts_new, coalesce(a.names, []) AS missing_accounts,
        coalesce(s.files_received, 0) AS files_received, s.first_received_ts_utc, s.last_received_ts_utc
        FROM months m
        LEFT JOIN expected e USING (vendor, granularity, period_month)
        LEFT JOIN received r USING (vendor, granularity, period_month)
        LEFT JOIN absent a USING (vendor, granularity, period_month)
        LEFT JOIN fresh f USING (vendor, granularity, period_month)
        LEFT JOIN files s USING (vendor, granularity, period_month)
        """
    ).to_arrow_table()
    result: list[dict[str, Any]] = rows.to_pylist()
    for vendor in rhythms.keys() - {row["vendor"] for row in result}:
        result.append({
            "vendor": vendor, "granularity": "none", "period_month": last, "accounts_expected": 0,
            "accounts_received": 0, "accounts_missing": 0, "accounts_new": 0, "missing_accounts": [],
            "files_received": 0,
        })  # fmt: skip
    for row in result:
        rhythm = rhythms.get(row["vendor"])
        row["files_expected"] = rhythm.files_in(row["period_month"]) if rhythm else None
        if row["files_received"] == 0:
            row["status"] = "nothing_received" if row["files_expected"] != 0 else "complete"
        elif row["accounts_missing"]:
            row["status"] = "missing_accounts"
        else:
            row["status"] = "missing_files" if row["files_received"] < (row["files_expected"] or 0) else "complete"
    result.sort(key=lambda row: (row["vendor"], row["granularity"], row["period_month"]))
    schema = completeness_schema()
    return pa.Table.from_pylist([{name: row.get(name) for name in schema.names} for row in result], schema=schema)
