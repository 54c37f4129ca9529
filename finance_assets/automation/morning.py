"""Schedules: what runs by the clock.

What belongs here: jobs and the hours they start. Which sessions a run fills is decided by
``finance_assets.market.planning`` from what the lake holds, so a missed session heals at the next run, whatever made
it miss.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts import macro, market, publishing, sectors
from finance_assets.contracts.market import QUOTES, QUOTES_RAW, TICKER_KPIS
from finance_assets.contracts.model import Contract
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.reference.exchange import EXCHANGE_ZONE
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.run_ownership import DEAD_TAG

# -- the morning ----------------------------------------------------------------------------------------------------
#
# Six steps, each at its hour on exchange sessions. From its hour on a step looks every five minutes whether what it
# needs is there and good, says what it waits for, and starts once. What has run is asked of the run records: a daemon
# that was down in the morning makes up for it, and a failed step is left to the person whom the alert has told.

#: Tags of a morning's runs.
STEP_TAG, MORNING_TAG = "finance_assets/step", "finance_assets/morning"
#: Five-minute ticks from an hour to noon.
LAST_HOUR = 12
#: From here on the report is made of what there is: an analyst without a page knows less than one with gaps.
REPORT_WAITS_UNTIL = time(9, 30)


def _keys(contracts: Iterable[Contract]) -> list[dg.AssetKey]:
    return [dg.AssetKey(contract.asset_key) for contract in contracts]


_MODELS = (*sectors.COMPOSITES, macro.STG_MACRO_INDICATORS)
_METRICS = (
    *sectors.ANALYTICS,
    *sectors.RISK_MARTS,
    publishing.SECTOR_PERFORMANCE,
    *publishing.RISK_EXPORTS,
)
_INPUTS = (
    QUOTES_RAW,
    QUOTES,
    TICKER_KPIS,
    market.INSTRUMENTS,
    market.TRADING_SESSIONS,
    macro.MACRO_SERIES,
    macro.MACRO_INDICATORS,
)

morning_ingestion_job = dg.define_asset_job(
    "morning_ingestion",
    selection=dg.AssetSelection.assets(*_keys((macro.MACRO_SERIES, macro.MACRO_INDICATORS))),
    description="06:00: macro series, and what was known of them. Quotes that are missing are filled beside it.",
)
morning_quality_job = dg.define_asset_job(
    "morning_quality",
    selection=dg.AssetSelection.checks_for_assets(*_keys(_INPUTS)),
    description="06:30: every check of quotes, KPIs, instruments and macro series.",
)
morning_dbt_job = dg.define_asset_job(
    "morning_dbt",
    selection=dg.AssetSelection.assets(*_keys(_MODELS)).without_checks(),
    description="07:00: dbt models from staging to the performance mart.",
)
morning_dbt_tests_job = dg.define_asset_job(
    "morning_dbt_tests",
    selection=dg.AssetSelection.checks_for_assets(*_keys(_MODELS)),
    description="07:30: dbt's tests of these models.",
)
morning_metrics_job = dg.define_asset_job(
    "morning_metrics",
    selection=dg.AssetSelection.assets(*_keys(_METRICS)),
    description="08:00: risk, correlations, portfolios and signals, their marts, and the exports.",
)
morning_report_job = dg.define_asset_job(
    "morning_report",
    selection=dg.AssetSelection.assets(*_keys((publishing.DAILY_REPORT,))),
    description="08:30: the report. Alerts follow from what the checks found.",
)


@dataclass(frozen=True)
class Step:
    """One step of the morning.

    Attributes
    ----------
    name
        Name of its schedule, and of its job.
    at
        From when it may start, New York time.
    job
        What it runs.
    after
        The step that must have succeeded; None for the first.
    guarded
        Tables whose blocking checks must not have failed.
    """

    name: str
    at: time
    job: Any  # what define_asset_job returns has no public name
    after: str | None
    guarded: tuple[Contract, ...] = ()


STEPS = (
    Step("morning_ingestion", time(6, 0), morning_ingestion_job, None),
    Step("morning_quality", time(6, 30), morning_quality_job, "morning_ingestion"),
    Step("morning_dbt", time(7, 0), morning_dbt_job, "morning_quality", _INPUTS),
    Step("morning_dbt_tests", time(7, 30), morning_dbt_tests_job, "morning_dbt"),
    Step("morning_metrics", time(8, 0), morning_metrics_job, "morning_dbt_tests", (*_INPUTS, *_MODELS)),
    Step("morning_report", time(8, 30), morning_report_job, "morning_metrics"),
)


def waits_for(step: Step, now: datetime, settings: Settings, lake: Lake, instance: dg.DagsterInstance) -> str | None:
    """Return what a step waits for, in words; None where it may start now.

    Parameters
    ----------
    step
        The step.
    now
        Time of the tick, aware.
    settings, lake, instance
        The deployment.
    """
    local = now.astimezone(ZoneInfo(EXCHANGE_ZONE))
    morning = local.date()
    if not SessionCalendar(settings.calendar, morning, morning).sessions(morning, morning):
        return f"{morning} is no session of the exchange"
    if local.time() < step.at:
        return f"its hour, {step.at:%H:%M} in New York"
    state, run_id = _run_of(instance, step.name, morning)
    if state is not None:
        told = {
            "succeeded": "nothing: it has run",
            "running": "the end of its own run",
            "failed": "somebody to re-execute its failed run",
        }[state]
        return f"{told} ({run_id[:8]})"
    if step.name == "morning_report" and local.time() >= REPORT_WAITS_UNTIL:
        return None
    if step.after is None:
        return None
    closed = [day for day in SessionCalendar.of(settings).closed_sessions(settings.clock()) if day < morning]
    held = partition_days(lake.partitions(QUOTES)[-1:])
    if closed and (not held or held[-1] < closed[-1]):
        return f"quotes of {closed[-1]}; the newest in core/quotes are of {held[-1] if held else 'no session'}"
    state, run_id = _run_of(instance, step.after, morning)
    if state != "succeeded":
        return f"{step.after}, which {'has not run today' if state is None else f'is {state} ({run_id[:8]})'}"
    failed = _failed_checks(instance, step.guarded)
    if failed:
        return f"blocking checks to pass: {', '.join(failed[:5])}{' and more' if len(failed) > 5 else ''}"
    return None


def _run_of(instance: dg.DagsterInstance, step: str, morning: date) -> tuple[str | None, str]:
    """Return the state of a step's newest run of a morning: succeeded, running, failed, or None where there is none."""
    tags = {STEP_TAG: step, MORNING_TAG: morning.isoformat()}
    # A run whose process is gone proves nothing about the step, which starts anew.
    runs = [run for run in instance.get_runs(filters=dg.RunsFilter(tags=tags)) if DEAD_TAG not in run.tags]
    if not runs:
        return None, ""
    # A run that somebody cancelled was meant to stop, so it is not started anew.
    states = {
        dg.DagsterRunStatus.SUCCESS: "succeeded",
        dg.DagsterRunStatus.FAILURE: "failed",
        dg.DagsterRunStatus.CANCELED: "failed",
    }
    return states.get(runs[0].status, "running"), runs[0].run_id


def _failed_checks(instance: dg.DagsterInstance, contracts: Iterable[Contract]) -> list[str]:
    """Return the checks of tables that found an error at their newest look."""
    from finance_assets.publishing.quality import check_keys, quality_lines

    guarded = set(_keys(contracts))
    lines, _ = quality_lines(instance, [key for key in check_keys() if key.asset_key in guarded])
    return [f"{line.table} {line.check}" for line in lines if not line.passed and line.is_error]


def _schedule(step: Step) -> dg.ScheduleDefinition:
    """Return the schedule of a step: every five minutes from its hour to noon, and started once a session."""
    minutes = ",".join(str(minute) for minute in range(step.at.minute, 60, 5))
    cron = [f"{minutes} {step.at.hour} * * 1-5", f"*/5 {step.at.hour + 1}-{LAST_HOUR - 1} * * 1-5"]

    @dg.schedule(
        name=step.name,
        job=step.job,
        cron_schedule=cron,
        execution_timezone=EXCHANGE_ZONE,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description=f"{step.job.description} Starts when what it needs is there and good.",
    )
    def tick(
        context: dg.ScheduleEvaluationContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
    ) -> dg.RunRequest | dg.SkipReason:
        now = context.scheduled_execution_time
        waiting = waits_for(step, now, settings, lake, context.instance)
        if waiting is not None:
            return dagster_output.skip(f"{step.name} waits for {waiting}")
        morning = now.astimezone(ZoneInfo(EXCHANGE_ZONE)).date().isoformat()
        return dg.RunRequest(
            run_key=f"{step.name}:{morning}:{now.isoformat()}", tags={STEP_TAG: step.name, MORNING_TAG: morning}
        )

    definition: dg.ScheduleDefinition = tick
    return definition


MORNING_JOBS = tuple(step.job for step in STEPS)
MORNING_SCHEDULES = tuple(_schedule(step) for step in STEPS)
