"""Why a period is missing, extra, double or corrected: what the rows around it prove.

Belongs here: the hypotheses of breaks that are about rows and not about a number (`ROW_HYPOTHESES` in
`finance_assets.advisory.explanations`), tried in SQL on all breaks of a code at once, and their wording. Does not
belong here: finding the breaks (`finance_assets.advisory.reconciliation`), gaps between numbers
(`finance_assets.advisory.explanations`), storage, Dagster.

A hypothesis needs evidence in the data, and where two answers fit it says nothing: a value that two accounts have
identifies neither.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from finance_assets.advisory.explanations import MONEY_TOLERANCE
from finance_assets.advisory.performance import KEY_COLUMNS

if TYPE_CHECKING:
    import duckdb

__all__ = ["explain_rows"]

_KEYS: Final = ", ".join(KEY_COLUMNS)
_SERIES: Final = "vendor, account_id, granularity"
_AMOUNTS: Final = (
    "ending_market_value", "net_flow", "contributions", "distributions", "beginning_market_value", "fees", "income",
    "appreciation", "other_adjustments",
)  # fmt: skip
_RETURNS: Final = ("return_net", "return_gross", "benchmark_return")
_TEXTS: Final = ("currency", "period_start")
#: A period of a vendor: rows of a month or quarter may end on different days.
_SLOT: Final = "CASE granularity WHEN 'daily' THEN {0} ELSE date_trunc('month', {0})::DATE END"
#: Amounts that differ by two cents at the most are in the same bucket of two cents or in the next.
_BUCKETS_OF_ONE: Final = int(1 / MONEY_TOLERANCE)
_MACROS: Final = (
    # Thousands separated, cents at least, no digit lost; digits that are no 64-bit number stay together.
    """
    money_text(x) AS CASE WHEN x < 0 THEN '-' ELSE '' END
        || coalesce(format('{:,}', TRY_CAST(split_part(abs(x)::VARCHAR, '.', 1) AS BIGINT)),
            split_part(abs(x)::VARCHAR, '.', 1))
        || '.' || rpad(rtrim(split_part(x::VARCHAR, '.', 2), '0'),
            greatest(2, length(rtrim(split_part(x::VARCHAR, '.', 2), '0')))::INTEGER, '0')
    """,
    "plain_text(x) AS CASE WHEN contains(x::VARCHAR, '.') THEN rtrim(rtrim(x::VARCHAR, '0'), '.') ELSE x::VARCHAR END",
    # Money with its currency, if that is known.
    "money_in(x, currency) AS money_text(x) || coalesce(' ' || currency, '')",
)


def explain_rows(connection: duckdb.DuckDBPyConnection) -> None:
    """Make the table ``reasons`` (place, hypothesis, explanation) of breaks that are about rows.

    Parameters
    ----------
    connection
        A database with ``breaks`` as `finance_assets.advisory.reconciliation` finds them, ``performance``, and what
        they were found in: ``history`` and ``broken_before`` for restatements, ``existing_values`` with the rows of
        the existing records.
    """
    for macro in _MACROS:
        connection.execute(f"CREATE OR REPLACE TEMP MACRO {macro}")
    connection.execute("CREATE OR REPLACE TEMP TABLE reasons (place BIGINT, hypothesis VARCHAR, explanation VARCHAR)")
    codes = {code for (code,) in connection.execute("SELECT DISTINCT code FROM breaks").fetchall()}
    if "GAP" in codes:
        connection.execute(f"INSERT INTO reasons {_gaps()}")
    if "MISSING" in codes:
        connection.execute(f"INSERT INTO reasons {_missing()}")
    if "RESTATED" in codes:
        connection.execute(f"INSERT INTO reasons {_restated()}")
    if "DUPLICATE" in codes:
        connection.execute(f"INSERT INTO reasons {_duplicates()}")
    if codes & {"EXTRA", "MISSING_IN_VENDOR"}:
        connection.execute(f"INSERT INTO reasons {_unmatched()}")


def _gaps() -> str:
    """``overlap``, ``empty_account``, ``missing_rows``, ``missing_file``, and whether the values carry over."""
    return f"""
        WITH gaps AS (SELECT place, {_KEYS}, explanation, stated AS days FROM breaks WHERE code = 'GAP'),
        series AS (
            SELECT {_KEYS}, period_start, currency, beginning_market_value AS opening,
            lag(period_start) OVER turn AS before_start, lag(period_end) OVER turn AS before_end,
            lag(currency) OVER turn AS before_currency, lag(beginning_market_value) OVER turn AS before_opening,
            lag(ending_market_value) OVER turn AS closing
            FROM performance SEMI JOIN gaps USING ({_SERIES})
            WINDOW turn AS (PARTITION BY {_SERIES} ORDER BY period_end)
        ),
        each AS (SELECT * FROM gaps JOIN series USING ({_KEYS})),
        windows AS (
            SELECT vendor, granularity, before_end, period_start, count(*) AS accounts FROM each WHERE days > 0
            GROUP BY ALL
        ),
        ends AS (
            SELECT vendor, granularity, period_end, count(*) AS rows
            FROM performance SEMI JOIN windows USING (vendor, granularity) GROUP BY ALL
        ),
        filled AS (
            SELECT w.*, coalesce(sum(e.rows), 0)::BIGINT AS rows
            FROM windows w LEFT JOIN ends e ON e.vendor = w.vendor AND e.granularity = w.granularity
                AND e.period_end > w.before_end AND e.period_end < w.period_start
            GROUP BY ALL
        )
        SELECT place,
        CASE WHEN days < 0 THEN 'overlap' WHEN opening = 0 AND closing = 0 THEN 'empty_account'
             WHEN rows > 0 THEN 'missing_rows'
             -- of a single account nobody knows whether its file or its rows did not come
             WHEN accounts > 1 THEN 'missing_file' END AS hypothesis,
        concat_ws(' ', explanation,
            CASE hypothesis
                WHEN 'empty_account' THEN 'There was nothing in the account before it, and nothing at its end.'
                WHEN 'missing_rows' THEN format('Other accounts of {{}} have {{}} {{}} rows in between.',
                    vendor, rows, granularity)
                WHEN 'missing_file' THEN format('No account of {{}} has a {{}} row in between, and {{}} have this gap.',
                    vendor, granularity, accounts)
                WHEN 'overlap' THEN
                    CASE WHEN before_start >= period_start
                         THEN format('That one, {{}} to {{}}, lies wholly within it.', before_start, before_end) END
            END,
            CASE WHEN currency IS DISTINCT FROM before_currency OR hypothesis = 'empty_account' THEN NULL
                 WHEN days < 0 THEN CASE WHEN opening <> 0 AND opening = before_opening
                    THEN format('Both begin with {{}}.', money_in(opening, currency)) END
                 WHEN abs(opening - closing) <= {MONEY_TOLERANCE}
                 THEN format('The beginning value is the ending value before the gap, {{}}: flows and results in'
                    ' between add up to nothing.', money_in(opening, currency))
                 ELSE format('The beginning value of {{}} less the ending value before the gap, {{}}, is {{}}: flows'
                    ' and results in between.', money_text(opening), money_text(closing),
                    money_in(opening - closing, currency)) END
        )
        FROM each LEFT JOIN filled USING (vendor, granularity, before_end, period_start)
    """


def _missing() -> str:
    """``renamed_account``, ``whole_delivery``, ``closed``, ``missing_rows``."""
    return f"""
        WITH gone AS MATERIALIZED (
            SELECT b.*, p.ending_market_value AS value
            FROM (
                SELECT place, {_KEYS}, explanation, file_sha256, row_end, coalesce(currency, '') AS currency,
                {_SLOT.format("period_end")} AS slot, {_SLOT.format("row_end")} AS last_slot
                FROM breaks WHERE code = 'MISSING'
            ) b JOIN performance p ON {_same("p", "b")} AND p.period_end = b.row_end
        ),
        again AS (
            SELECT g.place, min(p.period_end) AS period_end
            FROM gone g JOIN performance p ON {_same("p", "g")} AND p.period_end > g.period_end
            GROUP BY g.place
        ),
        -- an account that comes again has no other name
        left_for_good AS (SELECT * FROM gone ANTI JOIN again USING (place)),
        firsts AS (
            SELECT {_SERIES}, min(period_end) AS period_end, {_SLOT.format("min(period_end)")} AS slot
            FROM performance SEMI JOIN gone USING (vendor, granularity) GROUP BY {_SERIES}
        ),
        came AS MATERIALIZED (
            SELECT p.vendor, p.account_id, p.granularity, f.slot, p.period_end, coalesce(p.currency, '') AS currency,
            p.beginning_market_value AS value
            FROM (SELECT * FROM firsts SEMI JOIN gone USING (vendor, granularity, slot)) f
            JOIN performance p USING ({_KEYS})
        ),
        renamed AS ({_pairs("left_for_good", "came", ("vendor", "granularity", "slot", "currency"))}),
        stated AS (
            SELECT vendor, granularity, file_sha256, {_SLOT.format("period_end")} AS last_slot,
            count(DISTINCT account_id) AS accounts
            FROM performance SEMI JOIN gone USING (vendor, granularity, file_sha256) WHERE NOT is_terminated
            GROUP BY ALL
        ),
        lost AS (
            SELECT vendor, granularity, file_sha256, last_slot, slot, count(DISTINCT account_id) AS accounts FROM gone
            GROUP BY ALL
        ),
        deliveries AS (
            SELECT * FROM stated JOIN lost USING (vendor, granularity, file_sha256, last_slot, accounts)
            -- of a single account nobody knows whether its file did not come
            WHERE accounts > 1
        )
        SELECT place,
        CASE WHEN r.other IS NOT NULL THEN 'renamed_account' WHEN d.accounts IS NOT NULL THEN 'whole_delivery'
             WHEN g.value = 0 THEN 'closed' WHEN a.period_end IS NOT NULL THEN 'missing_rows' END AS hypothesis,
        concat_ws(' ', g.explanation, CASE hypothesis
            WHEN 'renamed_account' THEN format('Account {{}} of {{}} appears for the first time in the period ended'
                ' {{}}, and no other new one begins with this value.', r.other, g.vendor, g.period_end)
            WHEN 'whole_delivery' THEN format('None of the {{}} accounts that file {{}} states for that period came.',
                d.accounts, left(g.file_sha256, 12))
            WHEN 'closed' THEN 'Nothing was left in it.' END,
            format('It is there again in the period ended {{}}.', a.period_end))
        FROM gone g LEFT JOIN renamed r ON r.one = g.account_id AND {_same("r", "g", ("vendor", "granularity", "slot"))}
        LEFT JOIN again a USING (place)
        LEFT JOIN deliveries d
            ON {_same("d", "g", ("vendor", "granularity", "file_sha256", "last_slot", "slot"))}
        WHERE hypothesis IS NOT NULL
    """


def _restated() -> str:
    """``sign``, ``percent``, ``new_break``, ``correction``, and what was changed."""
    columns = ", ".join((*_AMOUNTS, *_RETURNS, *_TEXTS))
    ordered = "received_ts_utc DESC, file_sha256 DESC, line DESC"
    was = [
        *(f"CASE WHEN n.{f} IS DISTINCT FROM o.{f} THEN {_from_to(f, 'money_text')} END" for f in _AMOUNTS),
        *(f"CASE WHEN n.{f} IS DISTINCT FROM o.{f} THEN {_from_to(f, 'plain_text')} END" for f in _RETURNS),
        *(f"CASE WHEN n.{f} IS DISTINCT FROM o.{f} THEN {_from_to(f, '')} END" for f in _TEXTS),
    ]
    turned = {field: f"o.{field} <> 0 AND n.{field} = -o.{field}" for field in (*_AMOUNTS, *_RETURNS)}
    # Money out that was booked as money in: the two change places.
    swapped = "n.contributions = o.distributions AND n.distributions = o.contributions"
    for field in ("contributions", "distributions"):
        turned[field] = f"({turned[field]}) OR ({swapped})"
    scaled = []
    for times in ("n.{0} = {1} * o.{0}", "{1} * n.{0} = o.{0}"):
        related = {field: f"o.{field} <> 0 AND {times.format(field, 100)}" for field in turned}
        for field in _RETURNS:
            related[field] += f" OR (o.{field} <> 0 AND {times.format(field, 10_000)})"
        scaled.append(related)
    # A neighbour that came or was corrected with this version or after it was not beside the version before.
    own, own_before, after, after_before = (
        f"CASE WHEN n.currency IS NOT DISTINCT FROM o.currency AND n.period_start IS NOT DISTINCT FROM o.period_start"
        f" AND p.{received} < n.received_ts_utc THEN {value} END"
        for received, value in (
            ("received_before", "p.continuity_difference"),
            ("received_before", "p.continuity_difference - n.beginning_market_value + o.beginning_market_value"),
            ("received_after", "p.next_continuity"),
            ("received_after", "p.next_continuity + n.ending_market_value - o.ending_market_value"),
        )
    )
    return f"""
        WITH versions AS (
            SELECT {_KEYS}, {columns}, received_ts_utc,
            row_number() OVER (PARTITION BY {_KEYS} ORDER BY {ordered}) AS place
            FROM history SEMI JOIN (SELECT {_KEYS} FROM breaks WHERE code = 'RESTATED') USING ({_KEYS})
        ),
        around AS (
            SELECT {_KEYS}, continuity_difference, lead(continuity_difference) OVER turn AS next_continuity,
            lag(received_ts_utc) OVER turn AS received_before, lead(received_ts_utc) OVER turn AS received_after
            FROM performance SEMI JOIN (SELECT {_SERIES} FROM breaks WHERE code = 'RESTATED') USING ({_SERIES})
            WINDOW turn AS (PARTITION BY {_SERIES} ORDER BY period_end)
        ),
        broken_now AS (
            SELECT {_KEYS}, bool_or(code = 'ROLLFORWARD') AS rolls, bool_or(code = 'RETURN_TOLERANCE') AS returns
            FROM breaks WHERE code IN ('ROLLFORWARD', 'RETURN_TOLERANCE') GROUP BY {_KEYS}
        ),
        broken_then AS (
            SELECT {_KEYS}, bool_or(code = 'ROLLFORWARD') AS rolls, bool_or(code = 'RETURN_TOLERANCE') AS returns
            FROM broken_before GROUP BY {_KEYS}
        ),
        judged AS (
            SELECT b.place, b.explanation,
            [change FOR change IN [{", ".join(was)}] IF change IS NOT NULL] AS changes,
            {_all_of("n", "o", _AMOUNTS, turned)} AS is_turned,
            {" OR ".join(_all_of("n", "o", _AMOUNTS, related) for related in scaled)} AS is_scaled,
            {_any_of("n", "o", _AMOUNTS)} AS has_amounts, {_any_of("n", "o", _RETURNS)} AS has_returns,
            {_all_of("n", "o", _RETURNS, turned)} AS turns_returns,
            {" OR ".join(_all_of("n", "o", _RETURNS, related) for related in scaled)} AS scales_returns,
            [
                {{'name': 'ROLLFORWARD', 'then': coalesce(t.rolls, false), 'now': coalesce(w.rolls, false)}},
                {{'name': 'RETURN_TOLERANCE', 'then': coalesce(t.returns, false), 'now': coalesce(w.returns, false)}},
                {{'name': 'CONTINUITY', 'then': coalesce(abs({own_before}) > {MONEY_TOLERANCE}, false),
                  'now': coalesce(abs({own}) > {MONEY_TOLERANCE}, false)}},
                {{'name': 'CONTINUITY of the next period',
                  'then': coalesce(abs({after_before}) > {MONEY_TOLERANCE}, false),
                  'now': coalesce(abs({after}) > {MONEY_TOLERANCE}, false)}}
            ] AS breaks_of_row,
            [one.name FOR one IN breaks_of_row IF one.then AND NOT one.now] AS removed,
            [one.name FOR one IN breaks_of_row IF one.now AND NOT one.then] AS introduced
            FROM (SELECT * FROM breaks WHERE code = 'RESTATED') b
            JOIN versions n ON {_same("n", "b", KEY_COLUMNS)} AND n.place = 1
            JOIN versions o ON {_same("o", "b", KEY_COLUMNS)} AND o.place = 2
            LEFT JOIN around p ON {_same("p", "b", KEY_COLUMNS)}
            LEFT JOIN broken_now w ON {_same("w", "b", KEY_COLUMNS)}
            LEFT JOIN broken_then t ON {_same("t", "b", KEY_COLUMNS)}
        )
        SELECT place,
        CASE WHEN CASE WHEN has_amounts THEN is_turned ELSE has_returns AND turns_returns END THEN 'sign'
             WHEN CASE WHEN has_amounts THEN is_scaled ELSE has_returns AND scales_returns END THEN 'percent'
             WHEN len(introduced) > 0 THEN 'new_break' WHEN len(removed) > 0 THEN 'correction' END AS hypothesis,
        concat_ws(' ', explanation, 'Changed: ' || array_to_string(changes, ', ') || '.',
            CASE hypothesis WHEN 'sign' THEN 'The sign is turned.'
                 WHEN 'percent' THEN 'One is a hundred times the other, or ten thousand times.' END,
            CASE WHEN len(removed) > 0 THEN 'The break is gone: ' || array_to_string(removed, ', ') || '.' END,
            CASE WHEN len(introduced) > 0 THEN 'The break is new: ' || array_to_string(introduced, ', ') || '.' END)
        FROM judged
    """


def _duplicates() -> str:
    """``identical_rows``, ``conflicting_rows``."""
    shown = {
        **dict.fromkeys(_AMOUNTS, "money_text"),
        **dict.fromkeys(_RETURNS, "plain_text"),
        **dict.fromkeys(_TEXTS, ""),
    }
    differing = ", ".join(
        f"CASE WHEN count(DISTINCT h.{name}) + (count(h.{name}) < count(*))::INTEGER > 1 THEN '{_words(name)} ('"
        f" || string_agg(coalesce({show}(h.{name})::VARCHAR, 'nothing') || ' on line ' || h.line, ', ' ORDER BY h.line)"
        " || ')' END"
        for name, show in shown.items()
    )
    return f"""
        WITH double AS (
            SELECT b.place, any_value(b.explanation) AS explanation, [{differing}] AS fields
            FROM (SELECT * FROM breaks WHERE code = 'DUPLICATE') b JOIN history h
            ON {_same("h", "b", (*KEY_COLUMNS, "file_sha256", "received_ts_utc"))}
            GROUP BY b.place
        )
        SELECT place, CASE WHEN len(differing) = 0 THEN 'identical_rows' ELSE 'conflicting_rows' END,
        concat_ws(' ', explanation, CASE WHEN len(differing) = 0 THEN 'The rows say the same.'
            ELSE 'They differ: ' || array_to_string(differing, ', ') || '.' END)
        FROM (SELECT *, [field FOR field IN fields IF field IS NOT NULL] AS differing FROM double)
    """


def _unmatched() -> str:
    """``renamed_account`` and ``period_shift`` between a vendor and the existing records."""
    key = ("vendor", "granularity", "period_end")
    months = "(year({0}) * 12 + month({0}))"
    apart = f"abs({months.format('x.period_end')} - {months.format('m.period_end')})"
    return f"""
        WITH extra AS MATERIALIZED (
            SELECT b.place, {", ".join(f"b.{name}" for name in KEY_COLUMNS)}, p.currency,
            p.ending_market_value AS value, p.beginning_market_value AS opening
            FROM breaks b JOIN performance p USING ({_KEYS}) WHERE b.code = 'EXTRA'
        ),
        unstated AS MATERIALIZED (
            SELECT DISTINCT v.vendor, e.account_id, e.granularity, e.period_end, e.currency,
            e.ending_market_value AS value, e.beginning_market_value AS opening
            FROM existing_values e JOIN (
                SELECT DISTINCT vendor, granularity, period_end FROM breaks WHERE code IN ('EXTRA', 'MISSING_IN_VENDOR')
            ) v USING (granularity, period_end)
            ANTI JOIN performance p ON {_same("p", "v", key)} AND p.account_id = e.account_id
        ),
        absent AS MATERIALIZED (
            SELECT b.place, u.* FROM breaks b JOIN unstated u USING ({_KEYS}) WHERE b.code = 'MISSING_IN_VENDOR'
            -- records with several bases of one period may have several values of it
            QUALIFY count(*) OVER (PARTITION BY b.place) = 1
        ),
        renamed AS MATERIALIZED (
            SELECT r.* FROM ({_pairs("extra", "unstated", key)}) r
            JOIN extra x ON {_same("x", "r", key)} AND x.account_id = r.one
            JOIN unstated u ON {_same("u", "r", key)} AND u.account_id = r.other
            WHERE coalesce(x.currency = u.currency, true)
        ),
        shifted AS MATERIALIZED (
            SELECT x.place AS extra, m.place AS absent, x.period_end AS extra_end, m.period_end AS absent_end,
            count(*) OVER (PARTITION BY x.place) AS absents, count(*) OVER (PARTITION BY m.place) AS extras
            FROM extra x JOIN absent m ON {_same("x", "m")}
            WHERE x.value <> 0 AND abs(x.value - m.value) <= {MONEY_TOLERANCE}
            AND coalesce(abs(x.opening - m.opening) <= {MONEY_TOLERANCE}, true)
            AND coalesce(x.currency = m.currency, true)
            AND CASE x.granularity WHEN 'monthly' THEN {apart} = 1 WHEN 'quarterly' THEN {apart} = 3
                ELSE abs(x.period_end - m.period_end) <= 4 END
        ),
        known AS (SELECT DISTINCT account_id FROM existing_values)
        SELECT place,
        CASE WHEN r.other IS NOT NULL THEN 'renamed_account' WHEN s.absent_end IS NOT NULL THEN 'period_shift' END
            AS hypothesis,
        concat_ws(' ', format('{{}} states an ending value of {{}}.', x.vendor, money_in(x.value, x.currency)),
            CASE hypothesis
            WHEN 'renamed_account' THEN format('In the existing records account {{}} alone has this value in this'
                ' period, and {{}} does not state it.', r.other, x.vendor)
            WHEN 'period_shift' THEN format('The existing records have the same values in the period ended {{}},'
                ' which {{}} does not state.', s.absent_end, x.vendor)
            ELSE CASE WHEN k.account_id IS NULL THEN 'The existing records do not know the account.' END END)
        FROM extra x LEFT JOIN renamed r ON {_same("r", "x", key)} AND r.one = x.account_id
        LEFT JOIN shifted s ON s.extra = x.place AND s.absents = 1 AND s.extras = 1
        LEFT JOIN known k ON k.account_id = x.account_id
        UNION ALL
        SELECT place,
        CASE WHEN r.one IS NOT NULL THEN 'renamed_account' WHEN s.extra_end IS NOT NULL THEN 'period_shift' END
            AS hypothesis,
        concat_ws(' ', format('The existing records have an ending value of {{}}.', money_in(m.value, m.currency)),
            CASE hypothesis
            WHEN 'renamed_account' THEN format('Account {{}} of {{}} alone has this value in this period, and the'
                ' existing records do not have it.', r.one, m.vendor)
            WHEN 'period_shift' THEN format('{{}} states the same values in the period ended {{}}, which the existing'
                ' records do not have.', m.vendor, s.extra_end) END)
        FROM absent m LEFT JOIN renamed r ON {_same("r", "m", key)} AND r.other = m.account_id
        LEFT JOIN shifted s ON s.absent = m.place AND s.absents = 1 AND s.extras = 1
    """


def _pairs(left: str, right: str, group: Sequence[str]) -> str:
    """Pair accounts of two relations by a value that is not 0 and that, within two cents, no third account has.

    Values are counted before they are joined: that a thousand accounts have the same round value costs nothing.
    """
    names = ", ".join(group)
    counted = f"""
        SELECT {names}, value, floor(value * {_BUCKETS_OF_ONE})::HUGEINT AS bucket,
        count(DISTINCT account_id) AS accounts, any_value(account_id) AS account_id
        FROM {{}} WHERE value <> 0 GROUP BY {names}, value
    """
    return f"""
        SELECT {names}, one, other FROM (
            SELECT {", ".join(f"l.{name}" for name in group)}, l.account_id AS one, r.account_id AS other,
            sum(r.accounts) OVER (PARTITION BY {", ".join(f"l.{name}" for name in group)}, l.value) AS others,
            sum(l.accounts) OVER (PARTITION BY {", ".join(f"r.{name}" for name in group)}, r.value) AS ones
            FROM (SELECT *, unnest([bucket - 1, bucket, bucket + 1]) AS near FROM ({counted.format(left)})) l
            JOIN ({counted.format(right)}) r ON {_same("r", "l", group)} AND r.bucket = l.near
            WHERE abs(l.value - r.value) <= {MONEY_TOLERANCE}
        ) WHERE ones = 1 AND others = 1
    """


def _same(one: str, other: str, names: Sequence[str] = ("vendor", "account_id", "granularity")) -> str:
    return " AND ".join(f"{one}.{name} = {other}.{name}" for name in names)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _from_to(name: str, show: str) -> str:
    old, new = (f"coalesce({show}({side}.{name})::VARCHAR, 'nothing')" for side in "on")
    return f"'{_words(name)} from ' || {old} || ' to ' || {new}"


def _any_of(new: str, old: str, names: Sequence[str]) -> str:
    """Whether one of the values was changed."""
    return f"({' OR '.join(f'{new}.{name} IS DISTINCT FROM {old}.{name}' for name in names)})"


def _all_of(new: str, old: str, names: Sequence[str], related: dict[str, str]) -> str:
    """Whether all values that were changed are related in such a way."""
    return " AND ".join(
        f"({new}.{name} IS NOT DISTINCT FROM {old}.{name} OR coalesce({related[name]}, false))" for name in names
    )
