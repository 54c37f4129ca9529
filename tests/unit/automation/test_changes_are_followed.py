"""No change of an input is taken as handled by a run that did not read it, whatever the order of events."""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.events import AssetMaterializationPlannedData, StepMaterializationData

from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW, WHEN_INPUTS_ARE_GOOD

CONDITIONS = [WHEN_INPUTS_ARE_GOOD, WHEN_HISTORY_IS_NEW]
NOW = datetime(2012, 1, 7, tzinfo=UTC)


class Staged:
    """An input and a table made of it; runs, changes and looks happen when the test says so."""

    def __init__(self, instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]) -> None:
        @dg.asset(name="messages")
        def source() -> None: ...

        @dg.asset(name="table", deps=["messages"], automation_condition=condition)
        def table() -> None: ...

        self.definitions = dg.Definitions(assets=[source, table])
        self.instance = instance
        self.cursor: Any = None
        self.version = self.read = self.held = 0
        self.run: dg.DagsterRun | None = None
        self.look()

    def change(self) -> None:
        """The input changes, in a run of its own."""
        self.version += 1
        self.instance.report_runless_asset_event(dg.AssetMaterialization("messages"))

    def start(self) -> None:
        """A run of the table starts and reads its input."""
        assert self.run is None
        run = self.instance.create_run_for_job(
            self.definitions.resolve_implicit_global_asset_job_def(), asset_selection=frozenset({dg.AssetKey("table")})
        )
        self._report(run, "ASSET_MATERIALIZATION_PLANNED", AssetMaterializationPlannedData(dg.AssetKey("table")))
        self._report(run, "PIPELINE_START", None)
        self.run, self.read = run, self.version

    def finish(self, *, succeeds: bool = True) -> None:
        """The run ends; the table holds what the run read when it started."""
        assert self.run is not None
        if succeeds:
            made = StepMaterializationData(dg.AssetMaterialization("table"), [])
            self._report(self.run, "ASSET_MATERIALIZATION", made)
            self.held = self.read
        self._report(self.run, "PIPELINE_SUCCESS", None)
        self.run = None

    def _report(self, run: dg.DagsterRun, kind: str, data: Any) -> None:
        step = None if kind.startswith("PIPELINE") else "table"
        self.instance.report_dagster_event(
            dg.DagsterEvent(kind, run.job_name, step_key=step, event_specific_data=data), run_id=run.run_id
        )

    def look(self) -> bool:
        """Look as the automation sensor does; return whether the table is requested."""
        result = dg.evaluate_automation_conditions(
            defs=self.definitions,
            instance=self.instance,
            asset_selection=dg.AssetSelection.all(),
            cursor=self.cursor,
            evaluation_time=NOW,
        )
        self.cursor = result.cursor
        return result.get_num_requested(dg.AssetKey("table")) > 0

    def settle(self) -> int:
        """Look, and run what is requested, until nothing is; return how many runs that took."""
        runs = quiet = 0
        while quiet < 2:
            if self.look():
                if self.run is None:
                    self.start()
                runs, quiet = runs + 1, 0
            elif self.run is not None:
                self.finish()
                quiet = 0
            else:
                quiet += 1
            assert runs < 10, "requested again and again without a change"
        return runs


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        yield made


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_change_while_the_table_is_made_is_followed(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]
) -> None:
    staged = Staged(instance, condition)
    staged.change()
    assert staged.look()
    staged.start()
    assert not staged.look()
    staged.change()
    assert not staged.look(), "one run at a time"
    staged.finish()
    staged.settle()
    assert staged.held == staged.version


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_change_that_is_seen_with_the_table_made_is_followed(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]
) -> None:
    staged = Staged(instance, condition)
    staged.change()
    assert staged.look()
    staged.start()
    staged.change()
    staged.finish()
    staged.settle()
    assert staged.held == staged.version


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_change_that_was_read_starts_one_run(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any]
) -> None:
    staged = Staged(instance, condition)
    staged.change()
    assert staged.settle() == 1
    assert staged.held == staged.version
    assert staged.settle() == 0


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("seed", range(12))
def test_in_any_order_the_table_ends_up_with_the_newest_input(
    instance: dg.DagsterInstance, condition: dg.AutomationCondition[Any], seed: int
) -> None:
    chance = random.Random(seed)
    staged = Staged(instance, condition)
    for _ in range(12):
        step = chance.choice(["change", "look", "look", "other run", "finish"])
        if step == "change":
            staged.change()
        elif step == "look":
            if staged.look() and staged.run is None:
                staged.start()
        elif step == "other run" and staged.run is None and staged.version:
            staged.start()  # a person, or the command line
        elif step == "finish" and staged.run is not None:
            staged.finish()
    staged.settle()
    assert staged.held == staged.version
