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

__all__ = ["COMPLETENESS_COLUMNS", "RHYTHMS", "DeliverySchedule", "completeness", "completeness_schema"]

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
class DeliverySchedule:
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
    expected: Mapping[str, DeliverySchedule | str] | None = None,
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
        `DeliverySchedule`, or its frequency, by vendor. Vendors without one have no expected files.

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
        vendor: rhythm if isinstance(rhythm, DeliverySchedule) else DeliverySchedule(rhythm)
        for vendor, rhythm in (expected or {}).items()
    }
    last = as_of_month.replace(day=1)
    # Numbers stand for the texts: of a large history every row is grouped and compared with its neighbours.
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE series AS
        SELECT row_number() OVER () AS id, dense_rank() OVER (ORDER BY vendor, granularity) AS feed, *
        FROM (SELECT DISTINCT vendor, granularity, account_id FROM history_rows)
        """
    )
    month = """
        CASE granularity WHEN 'quarterly' THEN (date_trunc('quarter', period_end) + INTERVAL 2 MONTH)::DATE
             ELSE date_trunc('month', period_end)::DATE END
    """
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE present AS
        WITH of_month AS (
            SELECT id, feed, {month} AS period_month,
            -- the newest version of the last row of the month says whether the account was withdrawn
            max_by(coalesce(ending_market_value = 0 AND coalesce(contributions - distributions, net_flow) < 0, false),
                (period_end, received_ts_utc, file_sha256, line)) AS withdrawn
            FROM history_rows JOIN series USING (vendor, granularity, account_id)
            WHERE date_trunc('month', period_end) <= $last
            GROUP BY ALL
        )
        SELECT *, lag(period_month) OVER account AS month_before, lead(period_month) OVER account AS month_after
        FROM of_month WINDOW account AS (PARTITION BY id ORDER BY period_month)
        """,
        {"last": last},
    )
    # The period with rows before this one: a month in which nothing came does not end what is expected.
    connection.execute(
        """
        CREATE OR REPLACE TEMP TABLE months AS
        WITH received AS (SELECT DISTINCT feed, period_month AS month_received FROM present),
        feeds AS (
            SELECT DISTINCT feed, vendor, granularity,
            CASE granularity WHEN 'quarterly' THEN INTERVAL 3 MONTH ELSE INTERVAL 1 MONTH END AS step FROM series
        ),
        bounds AS (
            SELECT feed, vendor, granularity, step, min(month_received) AS first
            FROM received JOIN feeds USING (feed) GROUP BY ALL
        ),
        every AS (
            SELECT feed, vendor, granularity,
            unnest(generate_series(first::TIMESTAMP, $last::TIMESTAMP, step))::DATE AS period_month
            FROM bounds
        )
        SELECT e.*, max(r.month_received) AS month_before
        FROM every e LEFT JOIN received r ON r.feed = e.feed AND r.month_received < e.period_month
        GROUP BY ALL
        """,
        {"last": last},
    )
    rows = connection.execute(
        f"""
        WITH expected AS (
            SELECT feed, period_month AS month_before, count(*) AS n FROM present WHERE NOT withdrawn GROUP BY ALL
        ),
        absent AS (
            -- of the accounts that were there before, those that do not come next in this month
            SELECT m.feed, m.period_month, count(*) AS n,
            list_sort(list(s.account_id))[:{_NAMED_AT_MOST}] AS names
            FROM months m JOIN present p ON p.feed = m.feed AND p.period_month = m.month_before
            JOIN series s ON s.id = p.id
            WHERE NOT p.withdrawn AND p.month_after IS DISTINCT FROM m.period_month
            GROUP BY ALL
        ),
        received AS (
            SELECT m.feed, m.period_month, count(*) AS n,
            count(*) FILTER (p.month_before IS NULL OR p.month_before <> m.month_before) AS accounts_new
            FROM months m JOIN present p ON p.feed = m.feed AND p.period_month = m.period_month
            GROUP BY ALL
        ),
        files AS (
            SELECT vendor, granularity, {month} AS period_month,
            count(DISTINCT file_sha256) AS files_received, min(received_ts_utc) AS first_received_ts_utc,
            max(received_ts_utc) AS last_received_ts_utc
            FROM history_rows GROUP BY ALL
        )
        SELECT m.vendor, m.granularity, m.period_month, coalesce(e.n, 0) AS accounts_expected,
        coalesce(r.n, 0) AS accounts_received, coalesce(a.n, 0) AS accounts_missing,
        coalesce(r.accounts_new, 0) AS accounts_new, coalesce(a.names, []) AS missing_accounts,
        coalesce(s.files_received, 0) AS files_received, s.first_received_ts_utc, s.last_received_ts_utc
        FROM months m
        LEFT JOIN expected e ON e.feed = m.feed AND e.month_before = m.month_before
        LEFT JOIN received r ON r.feed = m.feed AND r.period_month = m.period_month
        LEFT JOIN absent a ON a.feed = m.feed AND a.period_month = m.period_month
        LEFT JOIN files s ON s.vendor = m.vendor AND s.granularity = m.granularity AND s.period_month = m.period_month
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
