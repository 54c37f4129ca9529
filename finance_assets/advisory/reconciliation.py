"""Breaks: a vendor against itself, against what it states, against other vendors and against existing records.

Belongs here: finding breaks in the performance table and between tables, their identity, and their age across runs.
Does not belong here: why a break is there (`finance_assets.advisory.explanations`), reading files, storage, Dagster.

Money is compared as exact decimals, returns as well: whether a return is a basis point off is decided in `Decimal`,
never in floating point.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.explanations import MONEY_TOLERANCE, RETURN_TOLERANCE, Surroundings, explain_break
from finance_assets.advisory.performance import KEY_COLUMNS, _connect
from finance_assets.advisory.twrr import CONTEXT, period_return

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
    "hypothesis": "The first hypothesis that closes the gap; null if none does.",
    "explanation": "A sentence with numbers.",
    "remaining": "What the hypothesis leaves unexplained, in the same unit.",
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
_STATUSES: Final = ("open", "reopened", "resolved")
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
    compared = [name for name in limits if name in vendor.column_names and name in existing.column_names]
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
    query = f"""
        WITH v AS ({_latest("vendor_rows", vendor.schema, compared)}),
        e AS ({_latest("existing_rows", existing.schema, compared)}),
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
        FROM joined ORDER BY account_id, period_end, basis
    """
    with _connect() as connection:
        connection.register("vendor_rows", vendor)
        connection.register("existing_rows", existing)
        return connection.execute(query).to_arrow_table()


def performance_breaks(
    performance: pa.Table | duckdb.DuckDBPyConnection,
    *,
    history: pa.Table | None = None,
    existing: pa.Table | None = None,
    explain_at_most: int = 20_000,
) -> pa.Table:
    """Find every break in the performance table, each with its explanation.

    Parameters
    ----------
    performance
        The table of `finance_assets.advisory.performance.account_performance`, or a DuckDB connection in UTC with a
        table or view ``performance`` like it, which keeps memory low, and optionally one ``history``.
    history
        All versions of the rows, for ``DUPLICATE`` and ``RESTATED``; without it there are none.
    existing
        Existing records with ``account_id``, ``period_end`` and values, optionally ``granularity``; for ``EXTRA``,
        ``MISSING_IN_VENDOR`` and ``VALUE_MISMATCH`` of accounts that the vendor and the records both know, monthly
        where no grain is given.
    explain_at_most
        Hypotheses are tried on that many breaks (about 2,500 a second); the rest is reported unexplained.

    Returns
    -------
    pyarrow.Table
        `BREAK_COLUMNS`, ordered by vendor, account, grain, period, code and other vendor. At most one break per
        identity: of several fields the first of ending value, net flow, beginning value, currency, return counts.

    Notes
    -----
    Money breaks where it is more than two cents off, a stated return where it is more than a basis point off the
    computed one; partial periods are not compared with a full period's return.
    """
    import pyarrow as pa

    if isinstance(performance, pa.Table):
        with _connect() as connection:
            connection.register("performance", performance)
            return performance_breaks(connection, history=history, existing=existing, explain_at_most=explain_at_most)
    connection = performance
    _keep_suspicious(connection)
    found = _money_breaks(connection) + _return_breaks(connection) + _vendor_breaks(connection)
    found += _missing_breaks(connection)
    if history is not None:
        connection.register("history", history)
    if history is not None or _has_relation(connection, "history"):
        found += _version_breaks(connection)
    if existing is not None:
        found += _existing_breaks(connection, existing)
    unique: dict[str, dict[str, Any]] = {}
    for item in found:
        item["break_id"] = break_id(
            item["code"], item["vendor"], item["account_id"], item["granularity"], item["period_end"],
            item.get("other_vendor"),
        )  # fmt: skip
        unique.setdefault(item["break_id"], item)
    breaks = list(unique.values())
    _explain(connection, breaks, explain_at_most)
    breaks.sort(
        key=lambda b: (
            b["vendor"],
            b["account_id"],
            b["granularity"],
            b["period_end"],
            b["code"],
            b.get("other_vendor") or "",
        )
    )
    schema = break_schema()
    return pa.Table.from_pylist([{name: item.get(name) for name in schema.names} for item in breaks], schema=schema)


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
    import pyarrow as pa

    if now.tzinfo is None:
        raise ValueError("now must have a time zone")
    now = now.astimezone(UTC)
    before = {} if previous is None else {row["break_id"]: row for row in previous.to_pylist()}
    if any(row["last_seen"] > now for row in before.values()):
        raise ValueError(f"breaks have been seen after {now.isoformat()}")
    here = {row["break_id"]: row for row in current.to_pylist()}
    rows = []
    for identity in sorted(before.keys() | here.keys()):
        old, new = before.get(identity), here.get(identity)
        if new is None:
            assert old is not None
            row = {**old, "status": "resolved"}
        elif old is None:
            row = {**new, "first_seen": now, "last_seen": now, "status": "open"}
        else:
            status = "open" if old["status"] == "open" else "reopened"
            row = {**new, "first_seen": old["first_seen"], "last_seen": now, "status": status}
        row["age_days"] = (row["last_seen"] - row["first_seen"]) // timedelta(days=1)
        rows.append(row)
    return pa.Table.from_pylist(rows, schema=aged_schema())


def _latest(relation: str, schema: pa.Schema, compared: Iterable[str]) -> str:
    """Select the newest row per key with exact values, how many deliveries it came in, and whether one repeats it."""
    import pyarrow as pa

    names = set(schema.names)
    basis = "coalesce(basis, 'net')" if "basis" in names else "'net'"
    received = "received_ts_utc" if "received_ts_utc" in names else "NULL::TIMESTAMPTZ"
    file = "file_sha256" if "file_sha256" in names else "''"
    line = "line" if "line" in names else "0"
    # Text in between keeps the shortest digits of a double: 0.1 becomes 0.1, not 0.1000000000000000055. It is slow,
    # so decimals go without it.
    exact = {
        name: name if pa.types.is_decimal(schema.field(name).type) else f"CAST({name} AS VARCHAR)" for name in compared
    }
    values = "".join(f", CAST({value} AS {_NUMBER}) AS {name}" for name, value in exact.items())
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


def _money_breaks(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """ROLLFORWARD, CONTINUITY and GAP: exact in SQL."""
    found = _rows(
        connection,
        f"""
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
        """,
    )
    for item in found:
        item["difference"] = item["stated"] - item["computed"]
    return found


def _return_breaks(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """RETURN_TOLERANCE: doubles decide what is clear by a wide margin, decimals what is near the tolerance."""
    compared = f"""
        SELECT *, CASE WHEN return_net IS NOT NULL THEN 'return_net' ELSE 'return_gross' END AS field,
        CASE field WHEN 'return_net' THEN return_net ELSE return_gross END AS stated_return,
        CASE field WHEN 'return_net' THEN return_net_computed ELSE return_gross_computed END AS computed_return,
        abs(computed_return - stated_return::DOUBLE) AS apart
        FROM suspicious
        WHERE NOT is_partial AND return_net_computed IS NOT NULL AND apart > {RETURN_TOLERANCE - _MARGIN:f}
    """
    found = _rows(
        connection,
        f"""
        SELECT 'RETURN_TOLERANCE' AS code, {_PROVENANCE}, field, 'return' AS unit,
        CAST(stated_return AS {_NUMBER}) AS stated, CAST(computed_return AS {_NUMBER}) AS computed,
        stated - computed AS difference, {RETURN_TOLERANCE} AS tolerance
        FROM ({compared}) WHERE apart > {RETURN_TOLERANCE + _MARGIN:f}
        """,
    )
    near = _rows(
        connection,
        f"""
        SELECT {", ".join(_CONTEXT_COLUMNS)}, file_sha256, line, received_ts_utc, field, stated_return
        FROM ({compared}) WHERE apart <= {RETURN_TOLERANCE + _MARGIN:f}
        """,
    )
    for row in near:
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
        found.append(item)
    return found


def _vendor_breaks(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """VENDOR_MISMATCH: the same account and period of two vendors, the first field that disagrees."""
    if _count(connection, "SELECT count(DISTINCT vendor) FROM performance") < 2:
        return []
    money = [name for name in _COMPARED if name not in ("currency", "return_net")]
    cases = [f"WHEN abs(a.{name} - b.{name}) > {MONEY_TOLERANCE} THEN '{name}'" for name in money]
    cases.append("WHEN a.currency <> b.currency THEN 'currency'")
    cases.append(f"WHEN abs(a.return_net - b.return_net) > {RETURN_TOLERANCE} THEN 'return_net'")
    pick = " ".join(f"WHEN '{name}' THEN {{side}}.{name}" for name in (*money, "return_net"))
    left, right = (
        f"CAST(CASE field {pick.format(side=side)} ELSE {side}.ending_market_value END AS {_NUMBER})" for side in "ab"
    )
    provenance = ", ".join(f"a.{name.strip()}" for name in _PROVENANCE.split(","))
    return _rows(
        connection,
        f"""
        SELECT 'VENDOR_MISMATCH' AS code, {provenance}, b.vendor AS other_vendor, CASE {" ".join(cases)} END AS field,
        CASE field WHEN 'return_net' THEN 'return' ELSE 'money' END AS unit, {left} AS stated, {right} AS computed,
        stated - computed AS difference,
        CASE field WHEN 'return_net' THEN {RETURN_TOLERANCE} ELSE {MONEY_TOLERANCE} END AS tolerance,
        CASE field WHEN 'currency' THEN format('{{}} states {{}}, {{}} states {{}}.',
            a.vendor, a.currency, b.vendor, b.currency) END AS explanation
        FROM performance a JOIN performance b ON a.account_id = b.account_id AND a.granularity = b.granularity
            AND a.period_end = b.period_end AND a.vendor < b.vendor
        WHERE CASE {" ".join(cases)} END IS NOT NULL
        """,
    )


def _missing_breaks(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """MISSING: in the vendor's period before, not withdrawn, and not in the next one the vendor stated."""
    return _rows(
        connection,
        """
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
        -- most accounts are there once in each turn, up to the last
        irregular AS (
            SELECT vendor, account_id, granularity FROM slots JOIN calendar USING (vendor, granularity, slot)
            GROUP BY ALL
            HAVING max(turn_number) < any_value(turns) OR max(turn_number) - min(turn_number) + 1 <> count(*)
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
            p.ending_market_value::DECIMAL(28, 2)::VARCHAR) AS explanation
        FROM absent a JOIN performance p USING (vendor, account_id, granularity, period_end)
        """,
    )


def _version_breaks(connection: duckdb.DuckDBPyConnection) -> list[dict[str, Any]]:
    """DUPLICATE and RESTATED: the newest version against the one before."""
    keys = ", ".join(KEY_COLUMNS)
    fields = (
        "ending_market_value",
        "net_flow",
        "contributions",
        "distributions",
        "beginning_market_value",
        "return_net",
    )
    changed = " ".join(f"WHEN {name} IS DISTINCT FROM lag({name}) OVER versions THEN '{name}'" for name in fields)
    old = " ".join(f"WHEN '{name}' THEN CAST(old.{name} AS {_NUMBER})" for name in fields)
    new = old.replace("old.", "")
    olds = ", ".join(f"'{name}': lag({name}) OVER versions" for name in fields)
    return _rows(
        connection,
        f"""
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
        CASE field WHEN 'return_net' THEN 'return' ELSE 'money' END AS unit,
        CASE field {new} END AS stated, CASE field {old} END AS computed, stated - computed AS difference,
        format('File {{}} of {{}} replaces file {{}} of {{}}.', left(file_sha256, 12), received_ts_utc::DATE,
            left(old_file, 12), old_received::DATE) AS explanation
        FROM versions WHERE newest = 1 AND field IS NOT NULL AND old_received < received_ts_utc
        UNION ALL
        SELECT 'DUPLICATE', {_PROVENANCE}, NULL, NULL, NULL, NULL, NULL,
        format('File {{}} states this period {{}} times.', left(file_sha256, 12), in_file)
        FROM versions WHERE newest = 1 AND in_file > 1
        """,
    )


def _existing_breaks(connection: duckdb.DuckDBPyConnection, existing: pa.Table) -> list[dict[str, Any]]:
    """Each vendor against the existing records of the accounts it knows."""
    connection.register("existing", existing)
    grain = "granularity" if "granularity" in existing.column_names else "'monthly'"
    values = [name for name in DEFAULT_TOLERANCES if name in existing.column_names and name in _CONTEXT_COLUMNS]
    names = {"EXTRA_IN_VENDOR": "EXTRA"}
    found = []
    pairs = connection.execute("SELECT DISTINCT vendor, granularity FROM performance ORDER BY ALL").fetchall()
    for vendor, granularity in pairs:
        mine = connection.execute(
            "SELECT * FROM performance WHERE vendor = ? AND granularity = ?", [vendor, granularity]
        ).to_arrow_table()
        connection.register("mine", mine)
        theirs = connection.execute(
            f"SELECT * FROM existing SEMI JOIN mine USING (account_id) WHERE {grain} = ?", [granularity]
        ).to_arrow_table()
        result = reconcile(mine, theirs, {name: DEFAULT_TOLERANCES[name] for name in values})
        connection.register("result", result)
        rows = connection.execute(
            """
            SELECT r.*, m.currency, m.file_sha256, m.line, m.received_ts_utc
            FROM result r LEFT JOIN mine m USING (account_id, period_end)
            WHERE NOT list_has_any(r.codes, ['OK', 'OK_WITHIN_TOLERANCE'])
            """
        ).to_arrow_table()
        for row in rows.to_pylist():
            for code in row["codes"]:
                if code not in ("EXTRA_IN_VENDOR", "MISSING_IN_VENDOR", "VALUE_MISMATCH"):
                    continue
                item = {name: row[name] for name in ("account_id", "period_end", "currency", "file_sha256", "line")}
                item.update(code=names.get(code, code), vendor=vendor, granularity=granularity, other_vendor="existing")
                item["received_ts_utc"] = row["received_ts_utc"]
                if code == "VALUE_MISMATCH":
                    field = min(row["fields"], key=lambda name: values.index(name))
                    unit = "return" if field.startswith("return") else "money"
                    item.update(field=field, unit=unit, tolerance=DEFAULT_TOLERANCES[field])
                    item.update(stated=row[f"vendor_{field}"], computed=row[f"existing_{field}"])
                    item["difference"] = row[f"difference_{field}"]
                found.append(item)
    return found


def _explain(connection: duckdb.DuckDBPyConnection, breaks: list[dict[str, Any]], at_most: int) -> None:
    """Try the hypotheses on the breaks that have something to close."""
    import pyarrow as pa

    codes = ("RETURN_TOLERANCE", "CONTINUITY", "ROLLFORWARD", "VENDOR_MISMATCH")
    open_ones = [item for item in breaks if item["code"] in codes][:at_most]
    if not open_ones:
        return
    wanted = {(item["account_id"], item["granularity"]) for item in open_ones}
    accounts = pa.table({"account_id": [a for a, _ in wanted], "granularity": [g for _, g in wanted]})
    connection.register("wanted", accounts)
    rows = connection.execute(
        f"""
        SELECT {", ".join(_CONTEXT_COLUMNS)} FROM performance SEMI JOIN wanted USING (account_id, granularity)
        ORDER BY vendor, account_id, granularity, period_end
        """
    ).to_arrow_table()
    series: dict[tuple[str, str, str], list[dict[str, Any]]] = defaultdict(list)
    places: dict[tuple[Any, ...], int] = {}
    for row in rows.to_pylist():
        key = (row["vendor"], row["account_id"], row["granularity"])
        places[(*key, row["period_end"])] = len(series[key])
        series[key].append(row)

    def triple(vendor: str, item: Mapping[str, Any]) -> tuple[Any, Any, Any]:
        key = (vendor, item["account_id"], item["granularity"])
        place = places.get((*key, item["period_end"]))
        if place is None:
            return None, None, None
        line = series[key]
        return line[place], line[place - 1] if place else None, line[place + 1] if place + 1 < len(line) else None

    for item in open_ones:
        row, previous, following = triple(item["vendor"], item)
        other = triple(item["other_vendor"], item) if item.get("other_vendor") else (None, None, None)
        if row is None or item["difference"] is None or item["field"] == "currency":
            continue
        around = Surroundings(row, previous, following, *other)
        difference = -item["difference"] if item["code"] == "ROLLFORWARD" else item["difference"]
        result = explain_break(item["code"], item["field"], difference, around, item["tolerance"])
        if result is not None:
            with localcontext(CONTEXT):
                remaining = result.remaining.quantize(Decimal("1e-14"))
            item.update(hypothesis=result.hypothesis, explanation=result.wording, remaining=remaining)


def _rows(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = connection.execute(query).to_arrow_table().to_pylist()
    return rows


def _has_relation(connection: duckdb.DuckDBPyConnection, name: str) -> bool:
    return _count(connection, f"SELECT count(*) FROM information_schema.tables WHERE table_name = '{name}'") > 0


def _count(connection: duckdb.DuckDBPyConnection, query: str) -> int:
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
