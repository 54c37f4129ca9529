"""Runs as Dagster's instance records them.

What belongs here: questions that sensors of several domains ask of it.
"""

import dagster as dg

from finance_assets.storage.run_ownership import end_dead_runs

#: A run in one of these may still write.
_UNDER_WAY = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def run_under_way(instance: dg.DagsterInstance, job_name: str) -> dg.DagsterRun | None:
    """Return a run of a job that has not ended; None where there is none.

    Runs whose process is gone are ended first: nothing waits for them.
    """
    end_dead_runs(instance)
    found = instance.get_runs(dg.RunsFilter(job_name=job_name, statuses=_UNDER_WAY), limit=1)
    return found[0] if found else None
