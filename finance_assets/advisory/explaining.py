"""One number written out: the formula, its inputs and where they come from; what is missing; and what changed.

Belongs here: text for people about single rows and the policies they are computed under, and the comparison of two
states of the history. Does not belong here: computing tables, the command line, storage, Dagster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal, localcontext
from typing import TYPE_CHECKING, Any, Final

from finance_assets.advisory.explanations import ROW_HYPOTHESES
from finance_assets.advisory.performance import KEY_COLUMNS, certified
from finance_assets.advisory.returns import DEFAULT_POLICY, Policies, Policy, policies_by_date
from finance_assets.advisory.sql import connect
from finance_assets.advisory.twrr import CONTEXT, LARGE_FLOW_THRESHOLD, RowReturn, net_flow_of, period_return

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "RESTATEMENT_COLUMNS",
    "explain_missing",
    "explain_row",
    "missing_periods",
    "policies_in_words",
    "restatements",
]

RESTATEMENT_COLUMNS: Final = (
    *KEY_COLUMNS, "kind", "field", "old_value", "new_value", "difference", "old_file_sha256", "old_line",
    "old_received_ts_utc", "new_file_sha256", "new_line", "new_received_ts_utc",
)  # fmt: skip
"""Columns of `restatements`: values are text as stated, differences exact decimals."""

_VALUES: Final = (
    "beginning_market_value", "contributions", "distributions", "net_flow", "ending_market_value", "fees", "income",
    "appreciation", "other_adjustments", "return_net", "return_gross", "benchmark_return",
)  # fmt: skip
_RULES: Final = {
    "declared": "the vendor's timing policy",
    "inception": "the account starts from nothing, so its flow counts at the start",
    "full_withdrawal": "all was withdrawn, so the flow counts at the end",
    "no_capital": "there is no capital in the period",
}
_FORMULAS: Final = {
    "sod": "EMV / (BMV + F) - 1",
    "eod": "(EMV - F) / BMV - 1",
    "mid": "(EMV - BMV - F) / (BMV + F / 2)",
    "mixed": "(EMV + out) / (BMV + in) - 1",
    "flow_after_valuation": "EMV / BMV - 1, EMV before the flow",
}
#: Breaks of a period that may have no row.
_MISSING_CODES: Final = ("GAP", "MISSING", "MISSING_IN_VENDOR")
_QUARANTINE: Final = "See whether it came and was left out (finance-assets vendors quarantine); otherwise ask {vendor}"
#: What to do about them, by code and hypothesis.
_ADVICE: Final[dict[tuple[str, str | None], str]] = {
    ("GAP", "missing_file"): f"{_QUARANTINE} to send the delivery again.",
    ("GAP", "missing_rows"): f"{_QUARANTINE} for the rows of this account.",
    ("GAP", "empty_account"): "Have {vendor} confirm that the account stood at 0; then nothing is lost.",
    ("GAP", None): f"{_QUARANTINE} for the periods in between.",
    ("MISSING", "renamed_account"): "Ask {vendor} whether the two are one account, and explain the new one by its name;"
    " their returns are not linked.",
    ("MISSING", "whole_delivery"): f"{_QUARANTINE} to send the delivery again.",
    ("MISSING", "closed"): "Have {vendor} confirm that the account was closed; then nothing is lost.",
    ("MISSING", "missing_rows"): f"{_QUARANTINE} for the rows of this account.",
    ("MISSING", None): f"{_QUARANTINE} whether the account was closed, renamed or forgotten.",
    ("MISSING_IN_VENDOR", "renamed_account"): "Ask {vendor} whether the two are one account, and explain that one by"
    " its name.",
    ("MISSING_IN_VENDOR", "period_shift"): "Find out with {vendor} which side has the values in the wrong period.",
    ("MISSING_IN_VENDOR", None): f"{_QUARANTINE} for the period, or correct the records.",
}


def explain_row(
    row: Mapping[str, Any],
    recomputed: RowReturn | Mapping[str, Any] | Decimal | float | None,
    policies: Policies | None = None,
) -> list[str]:
    """Write out how the return of one row came about, in exact decimals.

    Parameters
    ----------
    row
        A row of the performance table (`finance_assets.advisory.performance.PERFORMANCE_COLUMNS`).
    recomputed
        The return computed again from the stored inputs: a `RowReturn`, a row of performance, a number, or None
        where it is undefined.
    policies
        What is declared of every vendor; with it a line says which policy held, and since when.

    Returns
    -------
    list of str
        Lines of plain text: the timing and its policy, formula, the formula with numbers, the result (all digits and
        rounded once), the other timings, flows so far, the vendor's own figure, the inputs with their source, and
        whether recomputing gives the same number: the same 15 significant digits.
    """
    money = _money_of(row.get("currency"))
    bmv, emv = row["beginning_market_value"], row["ending_market_value"]
    money_in, money_out = row.get("contributions"), row.get("distributions")
    flow = net_flow_of(money_in, money_out, row.get("net_flow"))
    timing, rule = row["timing"], row["timing_rule"]
    reason = _RULES.get(rule, rule)
    if rule == "declared" and row.get("policy_version") == DEFAULT_POLICY.version:
        reason = "the platform's default"
    lines = [
        f"{row['vendor']} account {row['account_id']}, {row['granularity']} period {row.get('period_start')}"
        f" to {row['period_end']}",
        f"Flow timing: {timing} ({reason}; policy {row.get('policy_version')})",
    ]
    if policies is not None:
        lines.append(_policy_in_words(row, policies))
    if flow is None:
        lines.append("Net flow F: not stated")
    elif money_in is not None and money_out is not None:
        lines.append(f"Net flow F = in - out = {money(money_in)} - {money(money_out)} = {money(flow)}")
    else:
        lines.append(f"Net flow F = {money(flow)}, as stated")
    value = None
    if bmv is None or emv is None or flow is None:
        lines.append(f"Return: none ({row['return_status']})")
    else:
        if money_in is None or money_out is None:
            money_in, money_out = max(flow, Decimal(0)), max(-flow, Decimal(0))
        lines.append(f"Formula: R = {_FORMULAS[timing]}")
        lines.append(f"R = {_written_out(timing, bmv, money_in, money_out, flow, emv)}")
        value = period_return(bmv, money_in, money_out, emv, timing)
        stored = row["return_net_computed"]
        if value is None or stored is None:
            lines.append(f"Return: none ({row['return_status']})")
            value = None
        else:
            note = "" if row["return_status"] == "ok" else f" ({row['return_status']})"
            lines.append(f"Return: {_plain(value)} = {_percent(value)}; certified {certified(value)}{note}")
        variants = []
        for other in ("sod", "mid", "eod"):
            variant = period_return(bmv, money_in, money_out, emv, other) if bmv >= 0 else None
            variants.append(f"{other} {'none' if variant is None else certified(variant)}")
        spread = row.get("timing_spread")
        lines.append(f"By timing: {', '.join(variants)}" + (f"; spread {certified(spread)}" if spread else ""))
    for column, name in (("return_net", "net"), ("return_gross", "gross")):
        stated = row.get(column)
        if stated is not None:
            line = f"Stated {name} return: {_plain(stated)}"
            if column == "return_net" and value is not None:
                with localcontext(CONTEXT):
                    line += f"; stated less computed {(stated - value) * 10_000:.4f} bp"
            lines.append(line)
    if row.get("cumulative_return_chain") is not None:
        lines.append(
            f"Linked since {row.get('chain_start')} (chain {row.get('chain_id')}):"
            f" {certified(row['cumulative_return_chain'])}"
        )
    for column, name in (("rollforward_difference", "Roll-forward"), ("continuity_difference", "Continuity")):
        if row.get(column) is not None:
            lines.append(f"{name} difference: {money(row[column])}")
    for column in _VALUES:
        if row.get(column) is not None and not column.startswith("return") and column != "benchmark_return":
            lines.append(f"Input {column} = {money(row[column])} from {_source(row)}")
    if not any(line.startswith("Input") for line in lines):
        lines.append(f"Source: {_source(row)}")
    lines.append(_recomputing(row["return_net_computed"], recomputed))
    return lines


def policies_in_words(given: Any) -> list[str]:
    """Say since when a vendor's flows are timed how: a line per policy.

    Parameters
    ----------
    given
        The policies of the vendor, in any form that `finance_assets.advisory.returns.Policies` has; None where nothing
        is declared.
    """
    if given is None:
        return ["default"]
    several = policies_by_date(given)
    lines = [] if several[0].since is None else [f"default before {several[0].since}"]
    for policy in several:
        since = "" if policy.since is None else f" since {policy.since}"
        share = policy.large_flow_threshold
        large = "" if share == LARGE_FLOW_THRESHOLD else f", large flows from {_share(share)}"
        lines.append(f"{policy.timing}{since}{large}")
    return lines


def missing_periods(
    breaks: Iterable[Mapping[str, Any]],
    rows: Iterable[Mapping[str, Any]],
    first: date,
    last: date,
    states: Callable[[str, str], bool],
) -> list[tuple[Mapping[str, Any], list[Mapping[str, Any]]]]:
    """Find what tells why an account has no row between two days.

    Parameters
    ----------
    breaks
        Its breaks with their age (`finance_assets.advisory.reconciliation.aged_schema`).
    rows
        All its rows of the performance table.
    first, last
        Days between which the periods end that are asked for.
    states
        Whether a vendor has rows of a grain, of any account, that end between them.

    Returns
    -------
    list of tuple
        Breaks that have no row of their own between these days, ordered by vendor, grain, period and code, each with
        the rows of its vendor and grain in the order of the periods: a period that is missing, an open gap that
        reaches into these days, and an account that went missing earlier and has not come back by then, where the
        vendor goes on to state others.
    """
    series: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: row["period_end"]):
        series[row["vendor"], row["granularity"]].append(row)

    def tells(one: Mapping[str, Any], own: Sequence[Mapping[str, Any]]) -> bool:
        end, ends = one["period_end"], [row["period_end"] for row in own]
        is_asked, is_open = first <= end <= last, one["status"] != "resolved"
        if one["code"] == "GAP":
            lost = _lost_days(one, own)
            return is_open and not is_asked and lost is not None and lost[0] <= last and first <= lost[1]
        if is_asked:
            return end not in ends
        went_before = one["code"] == "MISSING" and is_open and end < first
        is_back = any(end <= other <= last for other in ends)
        return went_before and not is_back and states(one["vendor"], one["granularity"])

    chosen = [
        (one, series[one["vendor"], one["granularity"]])
        for one in sorted(breaks, key=lambda one: [one[name] for name in (*KEY_COLUMNS, "code")])
        if one["code"] in _MISSING_CODES
    ]
    return [(one, own) for one, own in chosen if tells(one, own)]


def explain_missing(
    one: Mapping[str, Any], series: Sequence[Mapping[str, Any]], landed: Mapping[str, str]
) -> list[str]:
    """Write out what is missing, since when, why that may be, and what to do.

    Parameters
    ----------
    one, series
        As `missing_periods` gives them.
    landed
        Names under which files landed, by sha256.

    Returns
    -------
    list of str
        Lines of plain text.
    """
    code, end, grain, hypothesis = one["code"], one["period_end"], one["granularity"], one["hypothesis"]
    before = next((row for row in reversed(series) if row["period_end"] < end), None)
    after = next((row for row in series if row["period_end"] >= end), None)
    lost = _lost_days(one, series) if code == "GAP" else None
    if lost is not None:
        what = f"no {grain} row of {lost[0]} to {lost[1]}, before that of the period ended {end}"
    elif code == "MISSING":
        what = f"no {grain} row from the period ended {end} on" + (
            f", until that of {after['period_end']}" if after is not None else ""
        )
    else:
        what = f"no {grain} row of the period ended {end}, which the existing records have"
    lines = [
        f"{one['vendor']} account {one['account_id']}: {what}",
        f"{code} ({one['status']}): {one['explanation'] or 'nothing more is known of it'}",
        f"Hypothesis: {hypothesis}. {ROW_HYPOTHESES[code][hypothesis]}"
        if hypothesis is not None
        else "Hypothesis: none is proved by the rows around it.",
        f"Found in the data known at {one['first_seen']:%Y-%m-%d %H:%M} UTC, {one['age_days']} days old.",
    ]
    if one["status"] != "resolved":
        lines.append(f"What to do: {_ADVICE[code, hypothesis].format(vendor=one['vendor'])}")
    if before is not None:
        file = landed.get(before["file_sha256"], "a file that is no longer registered")
        lines.append(f"The last row before it is of the period ended {before['period_end']}: {_source(before)}.")
        lines.append(f"That file landed as {file}.")
    return lines


def _lost_days(gap: Mapping[str, Any], series: Sequence[Mapping[str, Any]]) -> tuple[date, date] | None:
    """Return the first and last day that have no row before the period of a gap; None of an overlap."""
    following = next((row for row in series if row["period_end"] == gap["period_end"]), None)
    days = int(gap["stated"])
    if following is None or following["period_start"] is None or days <= 0:
        return None
    start: date = following["period_start"]
    return start - timedelta(days=days), start - timedelta(days=1)


def restatements(history: pa.Table, first: datetime, last: datetime, *, include_new: bool = False) -> pa.Table:
    """List what was corrected between two known times, value by value.

    Parameters
    ----------
    history
        All versions of the rows (`finance_assets.advisory.performance.HISTORY_COLUMNS`).
    first, last
        Known times, with a time zone: corrections after `first` and up to `last`.
    include_new
        Also list keys of which something became known for the first time (kind ``new``, one row each, no field).

    Returns
    -------
    pyarrow.Table
        `RESTATEMENT_COLUMNS`, one row per value in which a version differs from the one before (kind ``changed``),
        ordered by key, known time and field, with the files and lines of both. A version that states the same values
        is not listed.

    Raises
    ------
    ValueError
        If a time has no time zone or `last` lies before `first`.
    """
    if first.tzinfo is None or last.tzinfo is None:
        raise ValueError("first and last must have a time zone")
    if last < first:
        raise ValueError(f"last ({last}) lies before first ({first})")
    keys = ", ".join(KEY_COLUMNS)
    pair = f"{keys}, version"
    provenance = ", ".join(
        f"{side}.{column} AS {name}_{column}"
        for side, name in (("o", "old"), ("n", "new"))
        for column in ("file_sha256", "line", "received_ts_utc")
    )
    number = "DECIMAL(38, 14)"
    parts = [
        f"""
        SELECT {keys}, 'changed' AS kind, '{column}' AS field, CAST(o.{column} AS VARCHAR) AS old_value,
        CAST(n.{column} AS VARCHAR) AS new_value,
        CAST(n.{column} AS {number}) - CAST(o.{column} AS {number}) AS difference,
        {provenance}
        FROM old_rows o JOIN new_rows n USING ({pair}) WHERE o.{column} IS DISTINCT FROM n.{column}
        """
        for column in _VALUES
    ]
    parts += [
        f"""
        SELECT {keys}, 'changed', '{column}', CAST(o.{column} AS VARCHAR), CAST(n.{column} AS VARCHAR), NULL,
        {provenance}
        FROM old_rows o JOIN new_rows n USING ({pair}) WHERE o.{column} IS DISTINCT FROM n.{column}
        """
        for column in ("currency", "period_start")
    ]
    if include_new:
        parts.append(
            f"""
            SELECT {keys}, 'new', NULL, NULL, NULL, NULL, NULL, NULL, NULL, n.file_sha256, n.line, n.received_ts_utc
            FROM new_rows n WHERE n.version = 1
            """
        )
    with connect() as connection:
        connection.register("history_rows", history)
        # Only what became known in between can have changed.
        between = (
            f"received_ts_utc > TIMESTAMPTZ '{first.isoformat()}' "
            f"AND received_ts_utc <= TIMESTAMPTZ '{last.isoformat()}'"
        )
        connection.execute(
            f"""
            CREATE TEMP TABLE versions AS
            SELECT * REPLACE (CAST(version AS INTEGER) AS version) FROM (
                SELECT *, row_number() OVER (
                    PARTITION BY {keys} ORDER BY received_ts_utc, file_sha256, line
                ) AS version
                FROM history_rows SEMI JOIN (SELECT DISTINCT {keys} FROM history_rows WHERE {between}) USING ({keys})
            )
            """
        )
        connection.execute(f"CREATE TEMP VIEW new_rows AS SELECT * FROM versions WHERE {between}")
        # A version under the number of the one that replaced it.
        connection.execute("CREATE TEMP VIEW old_rows AS SELECT * REPLACE (version + 1 AS version) FROM versions")
        query = " UNION ALL ".join(parts)
        return connection.execute(
            f"SELECT {', '.join(RESTATEMENT_COLUMNS)} FROM ({query}) "
            f"ORDER BY {keys}, new_received_ts_utc, field NULLS FIRST"
        ).to_arrow_table()


def _policy_in_words(row: Mapping[str, Any], policies: Policies) -> str:
    """Say which policy holds for a row, and since when; and where the row was computed under another one."""
    vendor, day = row["vendor"], row["period_end"]
    several = policies_by_date(policies[vendor]) if vendor in policies else []
    begun = [policy for policy in several if policy.since is None or policy.since <= day]
    held: Policy = begun[-1] if begun else DEFAULT_POLICY
    following = several[len(begun)].since if len(begun) < len(several) else None
    if not several:
        span = f"the default because nothing is declared for {vendor}"
    elif not begun:
        span = f"the default because {vendor} declares a timing only since {following} (by the end of the period)"
    else:
        before = f" and before {following}" if following else ""
        span = f"since {held.since or 'the beginning'}{before} (by the end of the period)"
    share = _share(held.large_flow_threshold)
    line = f"Policy {held.version}: {held.timing}, {span}; a net flow is large from {share} of the beginning value"
    is_other = row["policy_version"] != held.version or (
        row["timing_rule"] == "declared" and row["timing"] != held.timing
    )
    if is_other:
        line += ". The table was computed under another one: finance-assets materialize"
    return line


def _share(share: Decimal) -> str:
    with localcontext(CONTEXT):
        return f"{_plain(share * 100)} %"


def _written_out(timing: str, bmv: Decimal, money_in: Decimal, money_out: Decimal, flow: Decimal, emv: Decimal) -> str:
    """Write the formula with its numbers."""
    b, f, e = _number(bmv), _number(flow), _number(emv)
    if timing == "sod":
        return f"{e} / ({b} + {f}) - 1"
    if timing == "eod":
        return f"({e} - {f}) / {b} - 1"
    if timing == "mid":
        return f"({e} - {b} - {f}) / ({b} + {f} / 2)"
    if timing == "mixed":
        return f"({e} + {_number(money_out)}) / ({b} + {_number(money_in)}) - 1"
    return f"{e} / {b} - 1"


def _recomputing(stored: float | None, recomputed: Any) -> str:
    """Whether the arithmetic done again agrees with the table."""
    if isinstance(recomputed, RowReturn):
        again = recomputed.value
    elif isinstance(recomputed, Mapping):
        again = recomputed.get("return_net_computed")
    else:
        again = recomputed
    if stored is None or again is None:
        same = stored is None and again is None
    else:
        # One unit in the fifteenth digit of 1 + R: what double arithmetic may lose.
        same = abs(Decimal(repr(float(stored))) - Decimal(str(again))) <= Decimal("1e-15") * (
            1 + abs(Decimal(str(again)))
        )
    if same:
        return "Recomputing gives the same number."
    return f"Recomputing gives {'none' if again is None else _plain(Decimal(str(again)))}, not the same number."


def _source(row: Mapping[str, Any]) -> str:
    member = f" member {row['member']}" if row.get("member") else ""
    received = row.get("received_ts_utc")
    known = received.isoformat() if isinstance(received, datetime) else received
    version = row.get("contract_version")
    contract = f"contract version {version}" if version is not None else "no contract"
    return f"file {row.get('file_sha256')}{member} line {row.get('line')}, {contract}, known {known}"


def _money_of(currency: str | None) -> Any:
    return lambda amount: f"{_plain(amount)}{' ' + currency if currency else ''}"


def _number(value: Decimal) -> str:
    return f"({_plain(value)})" if value < 0 else _plain(value)


def _plain(value: Decimal) -> str:
    """All digits without trailing zeros or an exponent; at most 28 decimal places."""
    with localcontext(CONTEXT):
        text = f"{round(value, 28):f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _percent(value: Decimal) -> str:
    return f"{value * 100:.4f} %"
