"""Alerts about data: failed blocking checks, overdue data, breached limits of risk, and failed runs once more.

What belongs here: what is worth an alert, and the sensor that looks for it. Each alert is told once per place: its key
holds what makes it another one, such as the session.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.run_failures import recent_failure_alerts
from finance_assets.contracts.market import QUOTES
from finance_assets.contracts.publishing import RISK_EXPORTS
from finance_assets.partitions import SessionCalendar, available_from, partition_days
from finance_assets.publishing.alerts import Alert, alert_sinks, send_alerts
from finance_assets.publishing.quality import check_keys, newest_evaluation
from finance_assets.settings import Settings, midnight_utc
from finance_assets.storage.lake import Lake
from finance_assets.storage.ledger import Ledger

RISK_METRICS = next(export for export in RISK_EXPORTS if export.name == "risk_metrics")
#: After a session's partition appears, its quotes are overdue when they are not there so much later: after the
#: morning's first step, and the hours that a failed provider may need.
OVERDUE_AFTER = timedelta(hours=16)
#: Limit -> column of published/risk_metrics, its sign there, and what it is called.
LIMITS = {
    "limit_var_99": ("var_historical_99", 1, "loss of one session at 99 % (historical)"),
    "limit_volatility_30": ("volatility_30", 1, "annualised volatility of 30 sessions"),
    "limit_drawdown": ("current_drawdown", -1, "drawdown from the highest level of 252 returns"),
}


def check_alerts(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey] | None = None) -> list[Alert]:
    """Return an alert for every check whose newest result is an error; a later result is another alert."""
    found = []
    for key in check_keys() if keys is None else keys:
        newest = newest_evaluation(instance, key)
        if newest is None or newest[1].passed or newest[1].severity is not dg.AssetCheckSeverity.ERROR:
            continue
        event, said = newest
        table = key.asset_key.to_user_string()
        found.append(
            Alert(
                title=f"check {key.name} of {table} failed",
                severity="error",
                since=datetime.fromtimestamp(event.timestamp, UTC),
                detail=(said.description or "it said nothing more")[:1500],
                action=f"mend the source and materialise {table} again; what follows from it waits for the check",
                key=f"check:{table}:{key.name}:{event.run_id}",
            )
        )
    return found


def overdue_alerts(settings: Settings, lake: Lake) -> list[Alert]:
    """Return an alert where the newest session should have quotes and has none."""
    now = settings.clock()
    due = [
        session
        for session in SessionCalendar.of(settings).closed_sessions(now)[-10:]
        if available_from(session) + OVERDUE_AFTER <= now
    ]
    held = set(partition_days(lake.partitions(QUOTES)[-20:]))
    missing = [session for session in due if session not in held]
    if not due or due[-1] in held:
        return []
    return [
        Alert(
            title=f"quotes of {due[-1]} are overdue",
            severity="error",
            since=available_from(missing[0]).astimezone(UTC),
            detail=f"core/quotes lacks {', '.join(str(day) for day in missing)}; the newest is "
            f"{max(held, default=None)}",
            action="look at the last run of market_sessions; `finance-assets materialize` fills what is missing",
            key=f"overdue:core/quotes:{due[-1]}",
        )
    ]


def limit_alerts(settings: Settings, lake: Lake) -> list[Alert]:
    """Return an alert for each sector and limit that the newest session's risk breaches."""
    limits = {name: getattr(settings, name) for name in LIMITS if getattr(settings, name) is not None}
    if not limits or not lake.partitions(RISK_METRICS):
        return []
    import pyarrow.compute as pc

    columns = ["sector", "session_date", "risk_window", *(LIMITS[name][0] for name in limits)]
    table = lake.read(RISK_METRICS, columns=columns).table
    table = table.filter(pc.equal(table.column("risk_window"), "trailing_252"))
    if table.num_rows == 0:
        return []
    newest: date = pc.max(table.column("session_date")).as_py()
    rows: list[dict[str, Any]] = table.filter(pc.equal(table.column("session_date"), newest)).to_pylist()
    found = []
    for name, limit in limits.items():
        column, sign, what = LIMITS[name]
        for row in rows:
            if row[column] is not None and sign * row[column] > limit:
                found.append(
                    Alert(
                        title=f"{row['sector']}: {what} is above its limit",
                        severity="warning",
                        since=midnight_utc(newest),
                        detail=f"{sign * row[column]:.4f} on {newest}, the limit is {limit:.4f} (fractions)",
                        action=f"judge the exposure to the sector, or change FINANCE_ASSETS_{name.upper()}",
                        key=f"limit:{name}:{row['sector']}:{newest}",
                    )
                )
    return found


@dg.sensor(
    name="data_alerts",
    minimum_interval_seconds=300,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Tells of failed blocking checks, overdue quotes and breached limits of risk, each once.",
)
def data_alerts(
    context: dg.SensorEvaluationContext,
    lake: dg.ResourceParam[Lake],
    settings: dg.ResourceParam[Settings],
    ledger: dg.ResourceParam[Ledger],
) -> dg.SkipReason:
    """Look for what is worth an alert; starts nothing."""
    alerts = [
        *check_alerts(context.instance),
        *overdue_alerts(settings, lake),
        *limit_alerts(settings, lake),
        *recent_failure_alerts(context.instance, datetime.now(UTC)),
    ]
    failures = send_alerts(alerts, alert_sinks(settings), ledger)
    undelivered = f"; not delivered: {'; '.join(failures)[:500]}" if failures else ""
    return dagster_output.skip(f"{len(alerts)} conditions are worth an alert{undelivered}")
