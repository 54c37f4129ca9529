"""What is unfinished: what has arrived and is not in its table, what a run left behind, what is older than its inputs.

What belongs here: the one answer to "what is still to be done?" over all branches, and the sensor that carries on what
a failed run left behind. The command line, the status and the sensors ask here or the domain that answers for its
arrivals; none of them keeps a list of its own.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import dagster as dg

from finance_assets.automation.morning import STEP_TAG
from finance_assets.contracts import CONTRACTS, advisory, transactions
from finance_assets.contracts.dagster_metadata import RANGE_END_TAG, RANGE_START_TAG
from finance_assets.contracts.model import Contract, Partitioning, Store
from finance_assets.dagster_output import skip
from finance_assets.market.resources import MarketData
from finance_assets.market.schedules import market_sessions_job, ranges_to_run
from finance_assets.publishing.quality import check_keys, newest_evaluation
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.run_ownership import DEAD_TAG, end_dead_runs
from finance_assets.storage.runs import assets_under_way, left_unfinished, pause_after_failures, run_under_way

if TYPE_CHECKING:
    from finance_assets.advisory.intake import Intake
    from finance_assets.transactions.draining import TransactionIntake

INTERVAL_SECONDS = 60
#: After failures the pause doubles from the first to the second of these.
SHORTEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 60.0, 3600.0
#: Names that a message lists.
LISTED = 5
#: The group of assets that a run of the sensor carries on.
GROUP_TAG = "finance_assets/carries_on"
#: Their own sensors look after these every few seconds, for arrivals and for what a run left behind.
_HAVE_A_SENSOR = frozenset(
    dg.AssetKey(contract.asset_key)
    for contract in (*advisory.CONTRACTS, *transactions.CONTRACTS)
    if contract.store is Store.LAKE
)


class Reason(StrEnum):
    """Why a table is unfinished, in the order in which reasons are looked for."""

    ARRIVED = "arrived"
    FAILED = "failed"
    NEVER_MADE = "never made"
    OUTDATED = "outdated"


@dataclass(frozen=True, slots=True)
class Unfinished:
    """Why a table is unfinished.

    Attributes
    ----------
    reason
        What kind of reason.
    detail
        The reason in words.
    """

    reason: Reason
    detail: str


def arrivals(intake: Intake, transaction_intake: TransactionIntake) -> dict[dg.AssetKey, str]:
    """Return the assets that do not hold yet what has arrived outside of Dagster, with what is missing in words."""
    found: dict[Contract, str] = {**intake.unfinished(), **transaction_intake.unfinished()}
    return {dg.AssetKey(contract.asset_key): text for contract, text in found.items()}


def unfinished_assets(
    assets: Sequence[dg.AssetsDefinition],
    selected: AbstractSet[dg.AssetKey],
    instance: dg.DagsterInstance,
    arrived: Mapping[dg.AssetKey, str] | None = None,
) -> dict[dg.AssetKey, Unfinished]:
    """Return the selected assets without partitions that are unfinished, and why.

    An asset is unfinished where something has arrived that it does not hold, where its newest run failed before it was
    made, where it was never made, and where it is older than what it is made of, or made of something unfinished.
    Sessions are planned by :func:`finance_assets.market.schedules.ranges_to_run`, which looks into the tables.

    Parameters
    ----------
    assets
        Every asset of the deployment.
    selected
        The assets to look at.
    instance
        The Dagster instance; its dead runs have been ended.
    arrived
        What :func:`arrivals` says.
    """
    arrived = arrived or {}
    specs = {spec.key: spec for definition in assets for spec in definition.specs}
    made: dict[dg.AssetKey, float] = {}
    for key in specs:
        event = instance.get_latest_materialization_event(key)
        if event is not None:
            made[key] = event.timestamp
    # A person who asks for what is missing means also what somebody has canceled.
    left = left_unfinished(
        instance,
        {key for key in selected if specs[key].partitions_def is None},
        checks=[key for key in check_keys() if key.asset_key in specs],
        canceled=True,
    )
    found: dict[dg.AssetKey, Unfinished | None] = {}

    def look(key: dg.AssetKey) -> Unfinished | None:
        if key not in found:
            parents = [dep.asset_key for dep in specs[key].deps if dep.asset_key in specs]
            newer = [parent for parent in parents if made.get(parent, 0.0) > made.get(key, 0.0)]
            behind = [parent for parent in parents if parent in selected and look(parent)]
            if key in arrived:
                found[key] = Unfinished(Reason.ARRIVED, arrived[key])
            elif key in left:
                found[key] = Unfinished(
                    Reason.FAILED, f"run {left[key].run_id[:8]} ended before it was made and checked"
                )
            elif key not in made:
                found[key] = Unfinished(Reason.NEVER_MADE, "it was never made")
            elif newer or behind:
                found[key] = Unfinished(Reason.OUTDATED, f"{_names(newer or behind)} changed after it was made")
            else:
                found[key] = None
        return found[key]

    return {
        key: unfinished for key in selected if (unfinished := look(key)) is not None and not specs[key].partitions_def
    }


def _names(keys: Collection[dg.AssetKey]) -> str:
    named = ", ".join(sorted(key.to_user_string() for key in keys)[:LISTED])
    return f"{named} and {len(keys) - LISTED} more" if len(keys) > LISTED else named


# -- carrying on -------------------------------------------------------------------------------------------------------


def _blocked(instance: dg.DagsterInstance, deps: AbstractSet[dg.AssetKey]) -> set[dg.AssetKey]:
    """Return the inputs of which a blocking check has failed: what follows waits for somebody to act on it."""
    found = set()
    for key in check_keys():
        if key.asset_key in deps:
            newest = newest_evaluation(instance, key)
            if newest is not None and not newest[1].passed and newest[1].blocking:
                found.add(key.asset_key)
    return found


@dg.sensor(
    name="unfinished_work",
    asset_selection=dg.AssetSelection.all(),
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Carries on what a run left behind that failed or was killed: after a pause that grows, without end.",
)
def unfinished_work(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run per group of assets that were left behind; none starts while another makes the same assets."""
    instance = context.instance
    end_dead_runs(instance)
    requests, waiting = [], []
    by_group: dict[str, list[dg.AssetKey]] = {}
    left = left_unfinished(instance, _keys_without_sessions(), checks=check_keys())
    for key, run in left.items():
        # A step of the morning that failed by itself is left to the person whom the alert has reached.
        if DEAD_TAG in run.tags or STEP_TAG not in run.tags:
            by_group.setdefault(CONTRACTS[key.to_user_string()].group, []).append(key)
    busy = assets_under_way(instance, list(left))
    for group, keys in sorted(by_group.items()):
        if busy.intersection(keys):
            waiting.append(f"{group}: a run is under way")
            continue
        deps = _inputs(context, keys)
        blocked = _blocked(instance, deps - set(keys))
        if blocked:
            waiting.append(f"{group}: blocking checks of {_names(blocked)} have failed")
            continue
        pause = _pause(instance, dg.RunsFilter(tags={GROUP_TAG: group}))
        if pause:
            waiting.append(f"{group}: {pause}")
            continue
        requests.append(dg.RunRequest(asset_selection=sorted(keys), tags={GROUP_TAG: group}))
    if not requests:
        return skip("; ".join(waiting) or "no run has left anything behind")
    return dg.SensorResult(run_requests=requests)


def _keys_without_sessions() -> list[dg.AssetKey]:
    keys = [
        dg.AssetKey(contract.asset_key)
        for contract in CONTRACTS.values()
        if contract.partitioning is not Partitioning.SESSION
    ]
    return [key for key in keys if key not in _HAVE_A_SENSOR]


def _inputs(context: dg.SensorEvaluationContext, keys: Sequence[dg.AssetKey]) -> set[dg.AssetKey]:
    assert context.repository_def is not None, "a sensor of a code location has its repository"
    graph = context.repository_def.asset_graph
    return {parent for key in keys for parent in graph.get(key).parent_keys}


def _pause(instance: dg.DagsterInstance, runs: dg.RunsFilter) -> str:
    """Return for how long the next attempt waits, in words; empty where it may start."""
    failures, wait = pause_after_failures(
        instance, runs, shortest=SHORTEST_PAUSE_SECONDS, longest=LONGEST_PAUSE_SECONDS, now=time.time()
    )
    return f"the last {failures} runs failed, the next starts in {wait:.0f} s" if wait > 0 else ""


@dg.sensor(
    name="unfinished_sessions",
    job=market_sessions_job,
    minimum_interval_seconds=INTERVAL_SECONDS,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Fills the sessions that a failed run left behind: after a pause that grows, without end.",
)
def unfinished_sessions(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    lake: dg.ResourceParam[Lake],
    market_data: dg.ResourceParam[MarketData],
) -> dg.SensorResult | dg.SkipReason:
    """Ask for a run per range of sessions that is missing or incomplete, where the newest run of the job has failed."""
    instance = context.instance
    running = run_under_way(instance, market_sessions_job.name)
    runs = dg.RunsFilter(job_name=market_sessions_job.name)
    newest = instance.get_runs(runs, limit=1)
    if running is not None:
        return skip(f"run {running.run_id[:8]} is under way")
    if not newest or newest[0].status is not dg.DagsterRunStatus.FAILURE:
        return skip("the newest run has left nothing behind")
    pause = _pause(instance, runs)
    if pause:
        return skip(pause)
    ranges = ranges_to_run(settings, lake, market_data)
    if not ranges:
        return skip("every session is complete")
    tags = [{RANGE_START_TAG: first.isoformat(), RANGE_END_TAG: last.isoformat()} for first, last in ranges]
    return dg.SensorResult(run_requests=[dg.RunRequest(tags=tag) for tag in tags])
