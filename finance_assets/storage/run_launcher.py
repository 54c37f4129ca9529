"""Dagster's launcher of local runs, which knows whether a run's process is alive.

What belongs here: the one launcher class that ``deploy/local/dagster.yaml`` names. Nothing else imports it. Dagster's
own class cannot tell a run that works from one whose process is gone, so that run monitoring passes over it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

from finance_assets.storage.run_ownership import (
    DeadRun,
    end_dead_runs,
    held_run,
    holder_of,
    mark_as_dead,
    run_is_alive,
)

if TYPE_CHECKING:
    from dagster import DagsterRun
    from dagster._core.launcher.base import LaunchRunContext


class LocalRunLauncher(DefaultRunLauncher):
    """Dagster's local launcher with a lock on each run, so that run monitoring finds those whose process is gone."""

    def launch_run(self, context: LaunchRunContext) -> None:
        """Start a run's process, and hold the run until that process has begun."""
        with held_run(self._instance.root_directory, context.dagster_run.run_id):
            super().launch_run(context)

    @property
    def supports_check_run_worker_health(self) -> bool:
        """Whether run monitoring may ask after a run's process: yes."""
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        """Return whether a run's process is alive."""
        if run_is_alive(self._instance, run):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        mark_as_dead(self._instance, run)
        self._instance.event_log_storage.free_concurrency_slots_for_run(run.run_id)
        dead = DeadRun(run.run_id, run.job_name, run.status, holder_of(self._instance.root_directory, run.run_id))
        return CheckRunHealthResult(WorkerStatus.FAILED, dead.message)

    def terminate(self, run_id: str) -> bool:
        """End a run's process; a run whose process is gone is marked as canceled at once."""
        run = self._instance.get_run_by_id(run_id)
        if run is not None and not run.is_finished and not run_is_alive(self._instance, run):
            self._instance.report_run_canceling(run)
            end_dead_runs(self._instance)
            return True
        return bool(super().terminate(run_id))  # type: ignore[no-untyped-call]
