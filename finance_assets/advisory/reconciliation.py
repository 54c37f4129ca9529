"""Breaks: a vendor against itself, against what it states, against other vendors and against existing records.

Belongs here: finding breaks in the performance table and between tables, their identity, and their age across runs.
Does not belong here: why a break is there (`finance_assets.advisory.explanations`), reading files, storage, Dagster.

Money is compared as exact decimals, returns as well: whether a return is a basis point off is decided in `Decimal`,
never in floating point. All of it is columns in DuckDB, since a vendor that counts its returns in another way breaks
millions of rows; Python sees single breaks only where a return is within a hair of the tolerance.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.explanations import MONEY_TOLERANCE, RETURN_TOLERANCE
from finance_assets.advisory.performance import (
    HISTORY_COLUMNS,
    KEY_COLUMNS,
    Policy,
    account_performance,
    history_schema,
)
from finance_assets.advisory.row_break_causes import explain_rows
from finance_assets.advisory.sql import connect
from finance_assets.advisory.twrr import CONTEXT, period_return
from finance_assets.sql import literal

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = [
    "BREAK_CODES",
    "BREAK_COLUMNS",
    "DEFAULT_TOLERANCES",
    "RECONCILIATION_CODES",
    "age_breaks",
    "aged_schema",
    "break_id",
    "break_schema",
    "performance_breaks",
    "reconcile",
]

BREAK_CODES: Final = {
    "RETURN_TOLERANCE": "The stated return is more than a basis point from the computed one.",
    "ROLLFORWARD": "Beginning value, flow and stated gain do not add up to the ending value.",
    "CONTINUITY": "The beginning value is not the ending value of the adjacent period before.",
    "GAP": "Periods are missing before this one, or it overlaps the one before.",
    "MISSING": "The account was in the vendor's period before and is not in this one.",
    "EXTRA": "The vendor states a period that the existing records do not have.",
    "MISSING_IN_VENDOR": "The existing records have a period that the vendor does not state.",
    "VALUE_MISMATCH": "The vendor and the existing records state different values.",
    "DUPLICATE": "One file states the same period of the account more than once.",
    "RESTATED": "A later file changed what an earlier one stated.",
    "VENDOR_MISMATCH": "Two vendors state different values.",
}
"""Codes of breaks and what they mean."""

RECONCILIATION_CODES: Final = (
    "DUPLICATE",
    "EXTRA_IN_VENDOR",
    "MISSING_IN_VENDOR",
    "OK",
    "OK_WITHIN_TOLERANCE",
    "RESTATED",
    "VALUE_MISMATCH",
)
"""Codes of `reconcile`."""

BREAK_COLUMNS: Final = {
    "break_id": "Stable identity across runs: a hash of code, vendor, account, grain, period and other vendor.",
    "code": "One of BREAK_CODES.",
    "vendor": "Vendor whose row breaks.",
    "account_id": "Account.",
    "granularity": "Grain of the row.",
    "period_end": "Last day of the period.",
    "other_vendor": "Second vendor of VENDOR_MISMATCH, or 'existing'; else null.",
    "field": "Value that disagrees.",
    "currency": "Currency of money.",
    "unit": "Of the numbers: money, return (decimal fraction) or days.",
    "stated": "What the vendor states.",
    "computed": "What it is compared with.",
    "difference": "stated less computed, exact (a computed return to 14 places).",
    "tolerance": "What would have been accepted, inclusive.",
    "hypothesis": "The first hypothesis that closes the gap, or that the rows around prove; null if none does.",
    "explanation": "Sentences with numbers.",
    "remaining": "What the hypothesis leaves unexplained, in the same unit; null for one about rows.",
    "file_sha256": "File of the row.",
    "line": "Its physical line.",
    "received_ts_utc": "When the row became known.",
}
"""Columns of the table of breaks."""

DEFAULT_TOLERANCES: Final[dict[str, Decimal]] = {
    "beginning_market_value": MONEY_TOLERANCE,
    "contributions": MONEY_TOLERANCE,
    "distributions": MONEY_TOLERANCE,
    "net_flow": MONEY_TOLERANCE,
    "ending_market_value": MONEY_TOLERANCE,
    "fees": MONEY_TOLERANCE,
    "return": RETURN_TOLERANCE,
    "return_net": RETURN_TOLERANCE,
    "return_gross": RETURN_TOLERANCE,
}
"""Columns that `reconcile` compares, and what it accepts; inclusive."""

_NUMBER: Final = "DECIMAL(38, 14)"
#: Breaks that are explained at a time, with the rows around them.
_EXPLAINED_AT_ONCE: Final = 100_000
#: Versions before a restatement whose returns are computed at a time.
_RESTATED_AT_ONCE: Final = 262_144
#: Breaks whose rows are put together with their age at a time.
_AGED_AT_ONCE: Final = 1_000_000
#: What a restatement names first, of all that was changed: amounts of two currencies are not compared.
_RESTATED_FIELDS: Final = (
    "currency", "ending_market_value", "net_flow", "contributions", "distributions", "beginning_market_value",
    "return_net", "fees", "income", "appreciation", "other_adjustments", "return_gross", "benchmark_return",
    "period_start",
)  # fmt: skip
_COMPARED: Final = ("ending_market_value", "net_flow", "beginning_market_value", "currency", "return_net")
_CONTEXT_COLUMNS: Final = (
    "vendor", "account_id", "granularity", "period_end", "currency", "beginning_market_value", "contributions",
    "distributions", "net_flow", "ending_market_value", "fees", "timing", "return_net", "return_gross",
)  # fmt: skip


def break_schema() -> pa.Schema:
    """Give the Arrow schema of the table of breaks (`BREAK_COLUMNS`)."""
    import pyarrow as pa

    number = pa.decimal128(38, 14)
    types = {
        "period_end": pa.date32(), "stated": number, "computed": number, "difference": number, "tolerance": number,
        "remaining": number, "line": pa.int64(), "received_ts_utc": pa.timestamp("us", tz="UTC"),
    }  # fmt: skip
    return pa.schema([pa.field(name, types.get(name, pa.string())) for name in BREAK_COLUMNS])


def aged_schema() -> pa.Schema:
    """Give the Arrow schema of breaks with their age: `break_schema` and first_seen, last_seen, status, age_days."""
    import pyarrow as pa

    moment = pa.timestamp("us", tz="UTC")
    added = [("first_seen", moment), ("last_seen", moment), ("status", pa.string()), ("age_days", pa.int32())]
    return pa.schema([*break_schema(), *(pa.field(name, kind) for name, kind in added)])


def break_id(code: str, vendor: str, account_id: str, granularity: str, period_end: Any, other: str | None) -> str:
    """Give the identity of a break: 16 hexadecimal digits that do not change between runs.

    The amount is not part of it: a break that moves by a cent is the same break. The grain is, since a month and a
    quarter of one account end on the same day.
    """
    key = "\x1f".join((code, vendor, account_id, granularity, str(period_end), other or ""))
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def reconcile(vendor: pa.Table, existing: pa.Table, tolerances: Mapping[str, Decimal] | None = None) -> pa.Table:
    """Compare a vendor's rows with existing records, key by key.

    Parameters
    ----------
    vendor
        Rows with ``account_id``, ``period_end``, values, and optionally ``basis`` (``net`` where absent),
        ``received_ts_utc``, ``file_sha256`` and ``line``. A key may come in several deliveries (told apart by
        ``received_ts_utc``); the newest counts.
    existing
        Records with the same keys and values.
    tolerances
        Largest accepted difference by column, inclusive; only these columns are compared, where both tables have
        them. By default `DEFAULT_TOLERANCES`.

    Returns
    -------
    pyarrow.Table
        One row per key of either side, ordered by key: ``account_id``, ``period_end``, ``basis``, ``codes`` (sorted
        list of `RECONCILIATION_CODES`), ``fields`` (columns out of tolerance), and per compared column
        ``vendor_*``, ``existing_*`` and ``difference_*`` (vendor less existing, exact).
        ``DUPLICATE``: the key stands more than once in one delivery or in the existing records. ``RESTATED``: a
        mismatch, and the same key came in an earlier delivery. A value on one side only is a mismatch, a null on
        both is none.

    Raises
    ------
    ValueError
        If a table has no ``account_id`` or ``period_end``, or a tolerance is negative.
    """
    limits = dict(DEFAULT_TOLERANCES if tolerances is None else tolerances)
    for table, name in ((vendor, "vendor"), (existing, "existing")):
        for column in ("account_id", "period_end"):
            if column not in table.column_names:
                raise ValueError(f"the {name} table has no column {column}")
    if any(limit < 0 for limit in limits.values()):
        raise ValueError("a tolerance cannot be negative")
    with connect() as connection:
        connection.register("vendor_rows", vendor)
        connection.register("existing_rows", existing)
        query = _reconciliation("vendor_rows", vendor.schema, "existing_rows", existing.schema, limits)
        return connection.execute(f"{query} ORDER BY account_id, period_end, basis").to_arrow_table()


def _reconciliation(
    vendor: str, vendor_schema: pa.Schema, existing: str, existing_schema: pa.Schema, limits: Mapping[str, Decimal]
) -> str:
    """Give the query of `reconcile` on two relations."""
    compared = [name for name in limits if name in vendor_schema.names and name in existing_schema.names]
    columns = "".join(
        f", v.{name} AS vendor_{name}, e.{name} AS existing_{name}, v.{name} - e.{name} AS difference_{name}"
        for name in compared
    )
    beyond = [
        f"CASE WHEN v.{name} IS DISTINCT FROM e.{name} AND coalesce(abs(v.{name} - e.{name}) > {limits[name]:f}, true)"
        f" THEN '{name}' END"
        for name in sorted(compared)
    ]
    equal = " AND ".join(f"v.{name} IS NOT DISTINCT FROM e.{name}" for name in compared) or "true"
    return f"""
        WITH v AS ({_latest(vendor, vendor_schema, compared)}),
        e AS ({_latest(existing, existing_schema, compared)}),
        joined AS (
            SELECT coalesce(v.account_id, e.account_id) AS account_id,
            coalesce(v.period_end, e.period_end) AS period_end,
            coalesce(v.basis, e.basis) AS basis, v.account_id IS NULL AS missing, e.account_id IS NULL AS extra,
            coalesce(v.repeated, false) OR coalesce(e.repeated, false) AS repeated,
            coalesce(v.deliveries, 0) > 1 AS again,
            {equal} AS equal,
            CASE WHEN missing OR extra THEN []::VARCHAR[]
                 ELSE [name FOR name IN [{", ".join(beyond) or "NULL::VARCHAR"}] IF name IS NOT NULL] END AS fields
            {columns}
            FROM v FULL JOIN e ON v.account_id = e.account_id AND v.period_end = e.period_end AND v.basis = e.basis
        )
        SELECT account_id, period_end, basis,
        list_sort([code FOR code IN [
            CASE WHEN missing THEN 'MISSING_IN_VENDOR' END, CASE WHEN extra THEN 'EXTRA_IN_VENDOR' END,
            CASE WHEN repeated THEN 'DUPLICATE' END, CASE WHEN len(fields) > 0 THEN 'VALUE_MISMATCH' END,
            CASE WHEN len(fields) > 0 AND again THEN 'RESTATED' END,
            CASE WHEN NOT missing AND NOT extra AND NOT repeated AND len(fields) = 0
                 THEN CASE WHEN equal THEN 'OK' ELSE 'OK_WITHIN_TOLERANCE' END END
        ] IF code IS NOT NULL]) AS codes,
        joined.* EXCLUDE (account_id, period_end, basis, missing, extra, repeated, again, equal)
        FROM joined
    """


def performance_breaks(
    performance: pa.Table | duckdb.DuckDBPyConnection,
    *,
    history: pa.Table | None = None,
    existing: pa.Table | None = None,
) -> pa.Table:
    """Find every break in the performance table, each with its explanation.

    Parameters
    ----------
    performance
        The table of `finance_assets.advisory.performance.account_performance`, or a DuckDB connection in UTC with a
        table or view ``performance`` like it, which keeps memory low, and optionally one ``history``.
    history
        All versions of the rows, with all columns of the history, for ``DUPLICATE`` and ``RESTATED``; without it there
        are none.
    existing
        Existing records with ``account_id``, ``period_end`` and values, optionally ``granularity``; for ``EXTRA``,
        ``MISSING_IN_VENDOR`` and ``VALUE_MISMATCH`` of accounts that the vendor and the records both know, monthly
        where no grain is given.

    Returns
    -------
    pyarrow.Table
        `BREAK_COLUMNS`, ordered by vendor, account, grain, period, code and other vendor. At most one break per
        identity: of several fields the first of ending value, net flow, beginning value, currency, return counts; of a
        restatement the currency goes first, any other value may be the field, and the explanation names all.

    Notes
    -----
    Money breaks where it is more than two cents off, a stated return where it is more than a basis point off the
    computed one; partial periods are not compared with a full period's return.
    """
    import pyarrow as pa

    if isinstance(performance, pa.Table):
        with connect() as connection:
            connection.register("performance", performance)
            return performance_breaks(connection, history=history, existing=existing)
    connection = performance
    _keep_suspicious(connection)
    _make_found(connection)
    _find_money_breaks(connection)
    _find_return_breaks(connection)
    _find_vendor_breaks(connection)
    _find_missing_breaks(connection)
    if history is not None:
        connection.register("history", history)
    if history is not None or _has_relation(connection, "history"):
        _find_version_breaks(connection)
    if existing is not None:
        _find_existing_breaks(connection, existing)
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE breaks AS
        SELECT row_number() OVER () AS place, {_BREAK_ID} AS break_id, * FROM found
        """
    )
    connection.execute("DROP TABLE found")
    if _count(connection, "SELECT count(*) FROM breaks WHERE code = 'RESTATED'"):
        connection.register("broken_before", _broken_before(connection))
    explain_rows(connection)
    connection.register("explained", _explained(connection))
    names = {name: f"b.{name}" for name in BREAK_COLUMNS}
    names |= {
        "hypothesis": "coalesce(e.hypothesis, r.hypothesis) AS hypothesis",
        "explanation": "coalesce(e.explanation, r.explanation, b.explanation) AS explanation",
        "remaining": "e.remaining",
    }
    table = connection.execute(
        f"""
        SELECT {", ".join(names.values())}
        FROM breaks b LEFT JOIN explained e USING (place) LEFT JOIN reasons r USING (place)
        ORDER BY vendor, account_id, granularity, period_end, code, coalesce(other_vendor, '')
        """
    ).to_arrow_table()
    connection.unregister("explained")
    return table.cast(break_schema())


def age_breaks(previous: pa.Table | None, current: pa.Table, now: datetime) -> pa.Table:
    """Carry the age and status of breaks from one run to the next.

    Parameters
    ----------
    previous
        Result of the run before (`aged_schema`), or None on the first run.
    current
        All breaks of this run (`break_schema`).
    now
        Time of this run, with a time zone.

    Returns
    -------
    pyarrow.Table
        `aged_schema`, one row per break ever seen, ordered by ``break_id``. A break that is still there keeps its
        ``first_seen``; one that is gone becomes ``resolved`` with the numbers it had; a resolved one that comes back
        is ``reopened`` and stays so until it is resolved again. ``age_days`` counts whole days from first_seen to
        now, for a resolved one to last_seen. Running again at the same time changes nothing.

    Raises
    ------
    ValueError
        If `now` has no time zone or lies before a time at which a break was seen.
    """
    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    import numpy as np
    import pyarrow as pa

    moment = f"TIMESTAMPTZ '{now.astimezone(UTC).isoformat()}'"
    with connect() as connection:
        for name, table, columns in (
            ("current", current, ["break_id"]),
            ("previous", previous, ["break_id", "first_seen", "last_seen", "status"]),
        ):
            table = aged_schema().empty_table() if table is None else table
            places = pa.array(np.arange(table.num_rows))
            connection.register(name, table.select(columns).append_column("place", places))
        if _count(connection, f"SELECT count(*) FROM previous WHERE last_seen > {moment}"):
            raise ValueError(f"breaks have been seen after {now.astimezone(UTC).isoformat()}")
        # Only what tells the age is joined; the wide rows are taken from where they lie.
        aged = connection.execute(
            f"""
            SELECT *, CAST((epoch_us(last_seen) - epoch_us(first_seen)) // {_MICROSECONDS_OF_A_DAY} AS INTEGER)
                AS age_days
            FROM (
                SELECT break_id, coalesce(c.place, p.place + {current.num_rows}) AS place,
                coalesce(p.first_seen, {moment}) AS first_seen,
                CASE WHEN c.place IS NULL THEN p.last_seen ELSE {moment} END AS last_seen,
                CASE WHEN c.place IS NULL THEN 'resolved' WHEN coalesce(p.status, 'open') = 'open' THEN 'open'
                    ELSE 'reopened' END AS status
                FROM current c FULL JOIN previous p USING (break_id)
            )
            ORDER BY break_id
            """
        ).to_arrow_table()
    rows = current.select(break_schema().names)
    if previous is not None:
        # The numbers are those of the last time that the break was there.
        rows = pa.concat_tables([rows, previous.select(rows.column_names)])
    parts = [aged_schema().empty_table()]
    for start in range(0, aged.num_rows, _AGED_AT_ONCE):
        part = aged.slice(start, _AGED_AT_ONCE)
        ages = [part[name] for name in aged_schema().names[len(rows.column_names) :]]
        parts.append(pa.table([*rows.take(part["place"]).columns, *ages], schema=aged_schema()))
    return pa.concat_tables(parts)


def _exact(name: str, schema: pa.Schema) -> str:
    """Write a column of numbers so that it can be cast to decimals without loss.

    Text in between keeps the shortest digits of a double: 0.1 becomes 0.1, not 0.1000000000000000055. It is slow, so
    decimals go without it.
    """
    import pyarrow as pa

    return name if pa.types.is_decimal(schema.field(name).type) else f"CAST({name} AS VARCHAR)"


def _latest(relation: str, schema: pa.Schema, compared: Iterable[str]) -> str:
    """Select the newest row per key with exact values, how many deliveries it came in, and whether one repeats it."""
    names = set(schema.names)
    basis = "coalesce(basis, 'net')" if "basis" in names else "'net'"
    received = "received_ts_utc" if "received_ts_utc" in names else "NULL::TIMESTAMPTZ"
    file = "file_sha256" if "file_sha256" in names else "''"
    line = "line" if "line" in names else "0"
    values = "".join(f", CAST({_exact(name, schema)} AS {_NUMBER}) AS {name}" for name in compared)
    return f"""
        SELECT * FROM (
            SELECT account_id, period_end, {basis} AS basis{values},
            count(DISTINCT coalesce({received}, TIMESTAMPTZ '1970-01-01 00:00:00+00')) OVER same AS deliveries,
            count(*) OVER same > deliveries AS repeated,
            row_number() OVER (PARTITION BY account_id, period_end, {basis}
                ORDER BY {received} DESC NULLS LAST, {file} DESC, {line} DESC) AS place
            FROM {relation}
            WINDOW same AS (PARTITION BY account_id, period_end, {basis})
        ) WHERE place = 1
    """


_PROVENANCE: Final = "vendor, account_id, granularity, period_end, currency, file_sha256, line, received_ts_utc"
#: Columns of what is found; ``row_end`` is the period of the row that file and line are of, where it is another one.
_FOUND: Final = {
    "code": "VARCHAR", "vendor": "VARCHAR", "account_id": "VARCHAR", "granularity": "VARCHAR", "period_end": "DATE",
    "other_vendor": "VARCHAR", "field": "VARCHAR", "currency": "VARCHAR", "unit": "VARCHAR", "stated": _NUMBER,
    "computed": _NUMBER, "difference": _NUMBER, "tolerance": _NUMBER, "hypothesis": "VARCHAR",
    "explanation": "VARCHAR", "remaining": _NUMBER, "file_sha256": "VARCHAR", "line": "BIGINT",
    "received_ts_utc": "TIMESTAMPTZ", "row_end": "DATE",
}  # fmt: skip
#: `break_id` in SQL.
_BREAK_ID: Final = """
    sha256(concat_ws(chr(31), code, vendor, account_id, granularity, period_end::VARCHAR, coalesce(other_vendor, '')))
    [:16]
"""
_MICROSECONDS_OF_A_DAY: Final = 86_400_000_000


#: A double return is exact to 1e-15: what is so far from a tolerance is beyond it, or within, for certain.
_MARGIN: Final = Decimal("1e-9")
_SUSPICIOUS_COLUMNS: Final = (
    *dict.fromkeys((*_PROVENANCE.split(", "), *_CONTEXT_COLUMNS)), "period_start", "gap_days", "is_partial",
    "rollforward_difference", "continuity_difference", "return_net_computed", "return_gross_computed",
)  # fmt: skip


def _keep_suspicious(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``suspicious``: the few rows that may break by themselves or against the one before.

    The months that have such rows are found by the columns that tell, and only they are read once more.
    """
    suspicion = f"""
        abs(rollforward_difference) > {MONEY_TOLERANCE} OR abs(continuity_difference) > {MONEY_TOLERANCE}
        OR gap_days <> 0 OR (NOT is_partial AND return_net_computed IS NOT NULL AND
            abs(CASE WHEN return_net IS NOT NULL THEN return_net_computed ELSE return_gross_computed END
                - coalesce(return_net, return_gross)::DOUBLE) > {RETURN_TOLERANCE - _MARGIN:f})
    """
    months = connection.execute(f"SELECT DISTINCT period_month FROM performance WHERE {suspicion}").fetchall()
    listed = ", ".join(f"DATE '{month}'" for (month,) in sorted(months)) or "NULL"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP TABLE suspicious AS
        SELECT {", ".join(_SUSPICIOUS_COLUMNS)} FROM performance WHERE period_month IN ({listed}) AND ({suspicion})
        """
    )


def _make_found(connection: duckdb.DuckDBPyConnection) -> None:
    columns = ", ".join(f"{name} {kind}" for name, kind in _FOUND.items())
    connection.execute(f"CREATE OR REPLACE TEMP TABLE found ({columns})")


def _find_money_breaks(connection: duckdb.DuckDBPyConnection) -> None:
    """ROLLFORWARD, CONTINUITY and GAP: exact in SQL."""
    connection.execute(
        f"""
        INSERT INTO found BY NAME
        SELECT *, stated - computed AS difference FROM (
            SELECT 'ROLLFORWARD' AS code, {_PROVENANCE}, 'ending_market_value' AS field, 'money' AS unit,
            CAST(ending_market_value AS {_NUMBER}) AS stated,
            CAST(ending_market_value + rollforward_difference AS {_NUMBER}) AS computed,
            {MONEY_TOLERANCE} AS tolerance, CAST(NULL AS VARCHAR) AS explanation
            FROM suspicious WHERE abs(rollforward_difference) > {MONEY_TOLERANCE}
            UNION ALL
            SELECT 'CONTINUITY', {_PROVENANCE}, 'beginning_market_value', 'money',
            beginning_market_value, beginning_market_value - continuity_difference, {MONEY_TOLERANCE}, NULL
            FROM suspicious WHERE abs(continuity_difference) > {MONEY_TOLERANCE}
            UNION ALL
            SELECT 'GAP', {_PROVENANCE}, 'period_start', 'days', gap_days, 0, 0,
            CASE WHEN gap_days > 0 THEN format('{{}} days before {{}} have no row.', gap_days, period_start)
                 ELSE format('The period starts {{}} days before the end of the one before.', -gap_days) END
            FROM suspicious WHERE gap_days <> 0
        )
        """
    )


def _find_return_breaks(connection: duckdb.DuckDBPyConnection) -> None:
    """RETURN_TOLERANCE: doubles decide what is clear by a wide margin, decimals what is near the tolerance."""
    import pyarrow as pa

    compared = f"""
        SELECT *, CASE WHEN return_net IS NOT NULL THEN 'return_net' ELSE 'return_gross' END AS field,
        CASE field WHEN 'return_net' THEN return_net ELSE return_gross END AS stated_return,
        CASE field WHEN 'return_net' THEN return_net_computed ELSE return_gross_computed END AS computed_return,
        abs(computed_return - stated_return::DOUBLE) AS apart
        FROM suspicious
        WHERE NOT is_partial AND return_net_computed IS NOT NULL AND apart > {RETURN_TOLERANCE - _MARGIN:f}
    """
    connection.execute(
        f"""
        INSERT INTO found BY NAME
        SELECT 'RETURN_TOLERANCE' AS code, {_PROVENANCE}, field, 'return' AS unit,
        CAST(stated_return AS {_NUMBER}) AS stated, CAST(computed_return AS {_NUMBER}) AS computed,
        stated - computed AS difference, {RETURN_TOLERANCE} AS tolerance
        FROM ({compared}) WHERE apart > {RETURN_TOLERANCE + _MARGIN:f}
        """
    )
    near = connection.execute(
        f"""
        SELECT {", ".join(_CONTEXT_COLUMNS)}, file_sha256, line, received_ts_utc, field, stated_return
        FROM ({compared}) WHERE apart <= {RETURN_TOLERANCE + _MARGIN:f}
        """
    ).to_arrow_table()
    for batch in near.to_batches(max_chunksize=_EXPLAINED_AT_ONCE):
        rows = pa.Table.from_pylist(list(_beyond_tolerance(batch.to_pylist())), schema=_near_schema())
        connection.register("beyond", rows)
        connection.execute("INSERT INTO found BY NAME SELECT * FROM beyond")
        connection.unregister("beyond")


def _near_schema() -> pa.Schema:
    import pyarrow as pa

    names = ("code", *_PROVENANCE.split(", "), "field", "unit", "stated", "computed", "difference", "tolerance")
    return pa.schema([break_schema().field(name) for name in names])


def _beyond_tolerance(rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Decide in decimals which returns near the tolerance are beyond it."""
    for row in rows:
        money_in, money_out = row["contributions"], row["distributions"]
        if money_in is None or money_out is None:
            money_in, money_out = row["net_flow"], Decimal(0)
        with localcontext(CONTEXT):
            fees = row["fees"] if row["field"] == "return_gross" else Decimal(0)
            ending = row["ending_market_value"] + fees
            computed = period_return(row["beginning_market_value"], money_in, money_out, ending, row["timing"])
            if computed is None or abs(row["stated_return"] - computed) <= RETURN_TOLERANCE:
                continue
            computed = computed.quantize(Decimal("1e-14"))
            item = {name: row[name] for name in (*_PROVENANCE.split(", "), "field")}
            item.update(code="RETURN_TOLERANCE", unit="return", stated=row["stated_return"], computed=computed)
            item.update(difference=row["stated_return"] - computed, tolerance=RETURN_TOLERANCE)
        yield item


def _find_vendor_breaks(connection: duckdb.DuckDBPyConnection) -> None:
    """VENDOR_MISMATCH: the same account and period of two vendors, the first field that disagrees."""
    if _count(connection, "SELECT count(DISTINCT vendor) FROM performance") < 2:
        return
    money = [name for name in _COMPARED if name not in ("currency", "return_net")]
    cases = [f"WHEN abs(a.{name} - b.{name}) > {MONEY_TOLERANCE} THEN '{name}'" for name in money]
    cases.append("WHEN a.currency <> b.currency THEN 'currency'")
    cases.append(f"WHEN abs(a.return_net - b.return_net) > {RETURN_TOLERANCE} THEN 'return_net'")
    pick = " ".join(f"WHEN '{name}' THEN {{side}}.{name}" for name in (*money, "return_net"))
    left, right = (
        f"CAST(CASE field {pick.format(side=side)} ELSE {side}.ending_market_value END AS {_NUMBER})" for side in "ab"
    )
    provenance = ", ".join(f"a.{name.strip()}" for name in _PROVENANCE.split(","))
    connection.execute(
        f"""
        INSERT INTO found BY NAME
        SELECT 'VENDOR_MISMATCH' AS code, {provenance}, b.vendor AS other_vendor, CASE {" ".join(cases)} END AS field,
        CASE field WHEN 'return_net' THEN 'return' ELSE 'money' END AS unit, {left} AS stated, {right} AS computed,
        stated - computed AS difference,
        CASE field WHEN 'return_net' THEN {RETURN_TOLERANCE} ELSE {MONEY_TOLERANCE} END AS tolerance,
        CASE field WHEN 'currency' THEN format('{{}} states {{}}, {{}} states {{}}.',
            a.vendor, a.currency, b.vendor, b.currency) END AS explanation
        FROM performance a JOIN performance b ON a.account_id = b.account_id AND a.granularity = b.granularity
            AND a.period_end = b.period_end AND a.vendor < b.vendor
        WHERE CASE {" ".join(cases)} END IS NOT NULL
        """
    )


def _find_missing_breaks(connection: duckdb.DuckDBPyConnection) -> None:
    """MISSING: in the vendor's period before, not withdrawn, and not in the next one the vendor stated."""
    connection.execute(
        """
        INSERT INTO found BY NAME
        WITH slots AS (
            SELECT vendor, account_id, granularity, period_end, is_terminated,
            CASE granularity WHEN 'daily' THEN period_end ELSE period_month END AS slot FROM performance
        ),
        calendar AS MATERIALIZED (
            SELECT vendor, granularity, slot, lead(slot) OVER turn AS next_slot,
            lead(max(period_end)) OVER turn AS next_end, row_number() OVER turn AS turn_number,
            count(*) OVER (PARTITION BY vendor, granularity) AS turns
            FROM slots GROUP BY vendor, granularity, slot
            WINDOW turn AS (PARTITION BY vendor, granularity ORDER BY slot)
        ),
        accounts AS (
            SELECT vendor, account_id, granularity, min(slot) AS first_slot, max(slot) AS last_slot, count(*) AS rows
            FROM slots GROUP BY vendor, account_id, granularity
        ),
        -- most accounts are there once in each turn, up to the last
        irregular AS (
            SELECT a.vendor, a.account_id, a.granularity FROM accounts a
            JOIN calendar f ON f.vendor = a.vendor AND f.granularity = a.granularity AND f.slot = a.first_slot
            JOIN calendar l ON l.vendor = a.vendor AND l.granularity = a.granularity AND l.slot = a.last_slot
            WHERE l.turn_number < l.turns OR l.turn_number - f.turn_number + 1 <> a.rows
        ),
        followed AS (
            SELECT *, lead(slot) OVER (PARTITION BY vendor, account_id, granularity ORDER BY period_end) AS then_slot
            FROM slots SEMI JOIN irregular USING (vendor, account_id, granularity)
        ),
        absent AS (
            SELECT f.vendor, f.account_id, f.granularity, f.period_end, c.next_end
            FROM followed f JOIN calendar c USING (vendor, granularity, slot)
            WHERE NOT f.is_terminated AND c.next_slot IS NOT NULL AND coalesce(f.then_slot > c.next_slot, true)
        )
        SELECT 'MISSING' AS code, p.vendor, p.account_id, p.granularity, a.next_end AS period_end, p.currency,
        p.file_sha256, p.line, p.received_ts_utc, 'account_id' AS field,
        format('Last seen in the period ended {}, with a value of {} {}.', p.period_end, p.currency,
            p.ending_market_value::DECIMAL(28, 2)::VARCHAR) AS explanation, p.period_end AS row_end
        FROM absent a JOIN performance p USING (vendor, account_id, granularity, period_end)
        """
    )


def _find_version_breaks(connection: duckdb.DuckDBPyConnection) -> None:
    """DUPLICATE and RESTATED: the newest version against the one before."""
    keys = ", ".join(KEY_COLUMNS)
    numbers = [name for name in _RESTATED_FIELDS if name not in ("currency", "period_start")]
    changed = " ".join(
        f"WHEN {name} IS DISTINCT FROM lag({name}) OVER versions THEN '{name}'" for name in _RESTATED_FIELDS
    )
    old = " ".join(f"WHEN '{name}' THEN CAST(old.{name} AS {_NUMBER})" for name in numbers)
    new = old.replace("old.", "")
    olds = ", ".join(f"'{name}': lag({name}) OVER versions" for name in numbers)
    returns = ", ".join(f"'{name}'" for name in numbers if "return" in name)
    connection.execute(
        f"""
        INSERT INTO found BY NAME
        WITH repeated AS (SELECT {keys} FROM history GROUP BY ALL HAVING count(*) > 1),
        versions AS (
            SELECT h.*, row_number() OVER (PARTITION BY {keys}
                ORDER BY received_ts_utc DESC, file_sha256 DESC, line DESC) AS newest,
            count(*) OVER (PARTITION BY {keys}, file_sha256, received_ts_utc) AS in_file,
            lag(file_sha256) OVER versions AS old_file, lag(received_ts_utc) OVER versions AS old_received,
            CASE WHEN old_file IS NOT NULL THEN CASE {changed} END END AS field, {{{olds}}} AS old
            FROM history h SEMI JOIN repeated USING ({keys})
            WINDOW versions AS (PARTITION BY {keys} ORDER BY received_ts_utc, file_sha256, line)
        )
        SELECT 'RESTATED' AS code, {_PROVENANCE}, field,
        CASE WHEN field IN ({returns}) THEN 'return' WHEN field NOT IN ('currency', 'period_start') THEN 'money' END
            AS unit,
        CASE field {new} END AS stated, CASE field {old} END AS computed, stated - computed AS difference,
        format('File {{}} of {{}} replaces file {{}} of {{}}.', left(file_sha256, 12), received_ts_utc::DATE,
            left(old_file, 12), old_received::DATE) AS explanation
        FROM versions WHERE newest = 1 AND field IS NOT NULL AND old_received < received_ts_utc
        UNION ALL
        SELECT 'DUPLICATE', {_PROVENANCE}, NULL, NULL, NULL, NULL, NULL,
        format('File {{}} states this period {{}} times.', left(file_sha256, 12), in_file)
        FROM versions WHERE newest = 1 AND in_file > 1
        """
    )


def _broken_before(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Give the key and code of what the version before a restatement broke by itself."""
    import pyarrow as pa

    keys = ", ".join(KEY_COLUMNS)
    restated = f"(SELECT {keys} FROM breaks WHERE code = 'RESTATED')"
    timings = connection.execute(
        f"""
        SELECT vendor, any_value(timing) FROM performance SEMI JOIN {restated} USING (vendor)
        WHERE timing_rule = 'declared' GROUP BY vendor
        """
    ).fetchall()
    policies = {vendor: Policy(timing) for vendor, timing in timings}
    reader = connection.execute(
        f"""
        SELECT {", ".join(HISTORY_COLUMNS)} FROM history SEMI JOIN {restated} USING ({keys})
        QUALIFY row_number() OVER (
            PARTITION BY {keys} ORDER BY received_ts_utc DESC, file_sha256 DESC, line DESC
        ) = 2
        """
    ).to_arrow_reader(_RESTATED_AT_ONCE)
    broken = []
    for batch in reader:
        # What links the rows does not matter here, so they may be computed in any division.
        before = account_performance(pa.Table.from_batches([batch]).cast(history_schema()), policies)
        with connect() as then:
            then.register("performance", before)
            _keep_suspicious(then)
            _make_found(then)
            _find_money_breaks(then)
            _find_return_breaks(then)
            codes = f"SELECT {keys}, code FROM found WHERE code IN ('ROLLFORWARD', 'RETURN_TOLERANCE')"
            broken.append(then.execute(codes).to_arrow_table())
    return pa.concat_tables(broken)


def _find_existing_breaks(connection: duckdb.DuckDBPyConnection, existing: pa.Table) -> None:
    """Each vendor against the existing records of the accounts it knows."""
    connection.register("existing", existing)
    grain = "granularity" if "granularity" in existing.column_names else "'monthly'"
    values = [name for name in DEFAULT_TOLERANCES if name in existing.column_names and name in _CONTEXT_COLUMNS]
    limits = {name: DEFAULT_TOLERANCES[name] for name in values}
    columns = dict.fromkeys(_CONTEXT_COLUMNS, "NULL::VARCHAR")
    columns |= {"account_id": "account_id", "granularity": grain, "period_end": "period_end"}
    for name in DEFAULT_TOLERANCES:
        kind = "DECIMAL(24, 14)" if name.startswith("return") else "DECIMAL(28, 8)"
        if name in columns:
            given = _exact(name, existing.schema) if name in existing.column_names else "NULL"
            columns[name] = f"CAST({given} AS {kind})"
    if "currency" in existing.column_names:
        columns["currency"] = "currency"
    columns["vendor"] = "'existing'"
    connection.execute(
        f"""
        CREATE OR REPLACE TEMP VIEW existing_values AS
        SELECT {", ".join(f"{value} AS {name}" for name, value in columns.items())} FROM existing
        """
    )
    mine = "SELECT account_id, period_end, currency, file_sha256, line, received_ts_utc"
    mine += "".join(f", {name}" for name in values) + " FROM performance WHERE vendor = {} AND granularity = {}"
    for vendor, granularity in connection.execute(
        "SELECT DISTINCT vendor, granularity FROM performance ORDER BY ALL"
    ).fetchall():
        connection.execute(f"CREATE OR REPLACE TEMP VIEW mine AS {mine.format(literal(vendor), literal(granularity))}")
        connection.execute(
            f"""
            CREATE OR REPLACE TEMP VIEW theirs AS
            SELECT * FROM existing SEMI JOIN mine USING (account_id) WHERE {grain} = {literal(granularity)}
            """
        )
        schema = connection.execute("SELECT * FROM mine LIMIT 0").to_arrow_table().schema
        first = "CASE {} END".format(" ".join(f"WHEN list_contains(r.fields, '{n}') THEN '{n}'" for n in values))
        of_field, numbers = "field", {}
        for name, column in (("stated", "vendor_{}"), ("computed", "existing_{}"), ("difference", "difference_{}")):
            cases = " ".join(f"WHEN '{n}' THEN r.{column.format(n)}" for n in values)
            numbers[name] = f"CASE {of_field} {cases} END" if values else "NULL"
        tolerance = " ".join(f"WHEN '{n}' THEN {limits[n]:f}" for n in values)
        connection.execute(
            f"""
            INSERT INTO found BY NAME
            WITH r AS ({_reconciliation("mine", schema, "theirs", existing.schema, limits)}),
            -- records may have several bases of one period
            coded AS (
                SELECT DISTINCT ON (r.account_id, r.period_end, code) r.*, unnest(r.codes) AS code FROM r
                WHERE NOT list_has_any(r.codes, ['OK', 'OK_WITHIN_TOLERANCE']) ORDER BY r.basis
            )
            SELECT CASE r.code WHEN 'EXTRA_IN_VENDOR' THEN 'EXTRA' ELSE r.code END AS code,
            {literal(vendor)} AS vendor, r.account_id, {literal(granularity)} AS granularity, r.period_end,
            'existing' AS other_vendor,
            CASE WHEN r.code = 'VALUE_MISMATCH' THEN {first if values else "NULL::VARCHAR"} END AS field,
            m.currency,
            CASE WHEN starts_with(field, 'return') THEN 'return' WHEN field IS NOT NULL THEN 'money' END AS unit,
            {", ".join(f"{number} AS {name}" for name, number in numbers.items())},
            {f"CASE field {tolerance} END" if values else "NULL"} AS tolerance,
            m.file_sha256, m.line, m.received_ts_utc
            FROM coded r LEFT JOIN mine m USING (account_id, period_end)
            WHERE r.code IN ('EXTRA_IN_VENDOR', 'MISSING_IN_VENDOR', 'VALUE_MISMATCH')
            """
        )


def _explained(connection: duckdb.DuckDBPyConnection) -> pa.Table:
    """Try the hypotheses on the breaks that have a number to close, block by block."""
    import pyarrow as pa

    from finance_assets.advisory.explanations_columnar import EXPLAINED_CODES, SIDE_COLUMNS, explain_breaks

    codes = f"code IN {EXPLAINED_CODES} AND difference IS NOT NULL AND field <> 'currency'"
    with_records = _count(connection, "SELECT count(*) FROM breaks WHERE code = 'VALUE_MISMATCH'") > 0
    with_others = with_records or _count(connection, "SELECT count(*) FROM breaks WHERE code = 'VENDOR_MISMATCH'") > 0
    fields = {name: name for name in SIDE_COLUMNS}
    rows = f"SELECT {', '.join(_CONTEXT_COLUMNS)} FROM performance"
    if with_records:
        # Of a period that the records have on several bases nobody knows which to look at.
        rows += f"""
            UNION ALL SELECT {", ".join(_CONTEXT_COLUMNS)} FROM existing_values
            QUALIFY count(*) OVER (PARTITION BY account_id, granularity, period_end) = 1
        """
        fields["vendor"] = "CASE vendor WHEN 'existing' THEN 'the house' ELSE vendor END"
    row = f"struct_pack({', '.join(f'{name} := {value}' for name, value in fields.items())})"
    names = {"own": "other", "previous": "other_previous", "following": "other_following"}
    if with_others:
        others = ", ".join(f"o.{name} AS {other}" for name, other in names.items())
        keys = " AND ".join(f"o.{name} = b.{name}" for name in KEY_COLUMNS if name != "vendor")
        beside = f"LEFT JOIN series o ON o.vendor = b.other_vendor AND {keys}"
    else:
        others = ", ".join(f"CASE WHEN false THEN s.own END AS {other}" for other in names.values())
        beside = ""
    reader = connection.execute(
        f"""
        WITH open AS (SELECT * FROM breaks WHERE {codes}),
        series AS {"MATERIALIZED" if with_others else ""} (
            SELECT * FROM (
                SELECT {", ".join(KEY_COLUMNS)}, {row} AS own, lag(own) OVER turn AS previous,
                lead(own) OVER turn AS following
                FROM ({rows}) SEMI JOIN open USING (account_id, granularity)
                WINDOW turn AS (PARTITION BY vendor, account_id, granularity ORDER BY period_end)
            ) SEMI JOIN open USING (account_id, granularity, period_end)
        )
        SELECT b.place, b.code, b.field, s.own, s.previous, s.following, {others},
        CASE WHEN b.code = 'ROLLFORWARD' THEN -b.difference
            -- values of existing records may be doubles
            WHEN b.unit = 'money' THEN CAST(CAST(b.difference AS DECIMAL(38, 8)) AS {_NUMBER})
            ELSE b.difference END AS difference
        FROM open b JOIN series s USING ({", ".join(KEY_COLUMNS)}) {beside}
        """
    ).to_arrow_reader(_EXPLAINED_AT_ONCE)
    parts = [explain_breaks(pa.Table.from_batches([batch])) for batch in reader]
    return pa.concat_tables(parts) if parts else explain_breaks(reader.schema.empty_table())


def _has_relation(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    return _count(connection, f"SELECT count(*) FROM information_schema.tables WHERE table_name = '{name}'") > 0


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
