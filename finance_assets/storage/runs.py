"""Runs as Dagster's instance records them.

What belongs here: questions that sensors of several domains, the command line and the status ask of it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from itertools import takewhile

import dagster as dg

from finance_assets.storage.run_ownership import DEAD_TAG, end_dead_runs

#: A run in one of these may still write.
UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)
#: Failures in a row that are counted; the pause between two attempts has reached its longest by then.
COUNTED_FAILURES = 8


def run_under_way(instance: dg.DagsterInstance, job_name: str) -> dg.DagsterRun | None:
    """Return a run of a job that has not ended; None where there is none.

    Runs whose process is gone are ended first: nothing waits for them.
    """
    end_dead_runs(instance)
    found = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=list(UNDER_WAY)), limit=1)
    return found[0] if found else None


def left_unfinished(
    instance: dg.DagsterInstance,
    keys: Collection[dg.AssetKey],
    *,
    checks: Collection[dg.AssetCheckKey] = (),
    canceled: bool = False,
) -> dict[dg.AssetKey, dg.DagsterRun]:
    """Return the assets whose newest run has failed before it made them, or before it checked them, with that run.

    Parameters
    ----------
    instance
        The Dagster instance; its dead runs have been ended.
    keys
        The assets to look at.
    checks
        Checks of these assets that have to have come to an end.
    canceled
        Whether a run that a person canceled counts as well; it was meant to stop.
    """
    ends = {dg.DagsterRunStatus.FAILURE} | ({dg.DagsterRunStatus.CANCELED} if canceled else set())
    planned: list[tuple[dg.AssetKey, str]] = []
    for record in instance.get_asset_records(list(keys)):
        entry = record.asset_entry
        newest, run_id = entry.last_planned_materialization_storage_id, entry.last_planned_materialization_run_id
        if newest is not None and run_id is not None and newest > (entry.last_materialization_storage_id or -1):
            planned.append((entry.asset_key, run_id))
    if checks:
        wanted = [key for key in checks if key.asset_key in keys]
        found_checks = instance.event_log_storage.get_latest_asset_check_execution_by_key(wanted)
        planned += [(key.asset_key, one.run_id) for key, one in found_checks.items() if one.status.value == "PLANNED"]
    found: dict[dg.AssetKey, dg.DagsterRun] = {}
    runs: dict[str, dg.DagsterRun | None] = {}
    for key, run_id in planned:
        if run_id not in runs:
            runs[run_id] = instance.get_run_by_id(run_id)
        run = runs[run_id]
        if run is not None and run.status in ends:
            found[key] = run
    return found


def pause_after_failures(
    instance: dg.DagsterInstance, runs: dg.RunsFilter, *, shortest: float, longest: float, now: float
) -> tuple[int, float]:
    """Return how many of the newest runs failed in a row, and for how many seconds to wait before the next.

    The pause doubles with each failure. A run whose process is gone does not count: nothing is known to be wrong with
    what it did.

    Parameters
    ----------
    instance
        The Dagster instance.
    runs
        Which runs to look at.
    shortest, longest
        The pause after one failure and after many, in seconds.
    now
        The time, Unix.
    """
    records = instance.get_run_records(runs, limit=COUNTED_FAILURES)
    failed = list(takewhile(lambda record: record.dagster_run.status is dg.DagsterRunStatus.FAILURE, records))
    counted = [record for record in failed if DEAD_TAG not in record.dagster_run.tags]
    if not counted:
        return 0, 0.0
    ended = counted[0].end_time or 0.0
    return len(counted), max(0.0, min(shortest * 2 ** len(counted), longest) - (now - ended))


def assets_under_way(instance: dg.DagsterInstance, keys: Sequence[dg.AssetKey]) -> set[dg.AssetKey]:
    """Return the assets that a run which has not ended is to make."""
    found: set[dg.AssetKey] = set()
    for run in instance.get_runs(dg.RunsFilter(statuses=list(UNDER_WAY))):
        found |= set(run.asset_selection or ())
    runs: dict[str, dg.DagsterRun | None] = {}
    for record in instance.get_asset_records(list(keys)):
        run_id = record.asset_entry.last_planned_materialization_run_id
        if run_id is None:
            continue
        if run_id not in runs:
            runs[run_id] = instance.get_run_by_id(run_id)
        planned = runs[run_id]
        if planned is not None and not planned.is_finished:
            found.add(record.asset_entry.asset_key)
    return found.intersection(keys)
