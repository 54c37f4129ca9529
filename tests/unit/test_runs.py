"""Runs of a person in a terminal: how they are cut, what they report, what they refuse."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from fixtures.quotes import JANUARY, FakeProvider, fake_settings, raw_row, raw_table, sessions_table, wandering
from rich.console import Console

from finance_assets import registry
from finance_assets.automation.unfinished import unfinished_assets
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.market import QUOTES, QUOTES_RAW, TICKER_KPIS, TRADING_SESSIONS
from finance_assets.demo import newest_live_session
from finance_assets.market.resources import MarketData
from finance_assets.registry import build_assets
from finance_assets.resources import build_ledger
from finance_assets.runs import instance
from finance_assets.runs.execute import Phase, plan_phases, run_assets, run_missing
from finance_assets.runs.instance import RunRefusedError, dagster_home
from finance_assets.runs.results import RunOutcome
from finance_assets.runs.status import show_status
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

DAYS = dg.DailyPartitionsDefinition("2012-01-03", end_date="2012-01-06")


def console() -> Console:
    return Console(file=io.StringIO(), width=120, highlight=False)


def text(of: Console) -> str:
    assert isinstance(of.file, io.StringIO)
    return of.file.getvalue()


# -- phases ------------------------------------------------------------------------------------------------------------


def asset(name: str, *deps: str, cut: bool = False) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=list(deps), partitions_def=DAYS if cut else None)
    def made() -> None: ...

    return made


def phases(assets: Sequence[dg.AssetsDefinition], *selected: str) -> list[tuple[bool, list[str]]]:
    keys = {dg.AssetKey(name) for name in selected} or {key for one in assets for key in one.keys}
    return [(phase.partitioned, [key.to_user_string() for key in phase.keys]) for phase in plan_phases(assets, keys)]


def test_assets_of_one_kind_are_one_run() -> None:
    assert phases([asset("a", cut=True), asset("b", "a", cut=True)]) == [(True, ["a", "b"])]
    assert phases([asset("b", "a"), asset("a")]) == [(False, ["a", "b"])]
    assert phases([]) == []


def test_no_run_mixes_partitioned_with_unpartitioned_assets() -> None:
    assets = [
        asset("mart", "quotes", "calendar"),
        asset("quotes", "calendar", cut=True),
        asset("calendar"),
        asset("alone"),
        asset("alone_by_day", cut=True),
    ]
    assert phases(assets) == [
        (False, ["alone", "calendar"]),
        (True, ["alone_by_day", "quotes"]),
        (False, ["mart"]),
    ]


def test_back_and_forth_takes_as_many_runs_as_steps_back() -> None:
    assets = [
        asset("one", cut=True),
        asset("two", "one"),
        asset("three", "two", cut=True),
        asset("four", "three", "one"),
        asset("five", "two"),
    ]
    assert phases(assets) == [(True, ["one"]), (False, ["five", "two"]), (True, ["three"]), (False, ["four"])]


def test_only_what_is_selected_is_run_and_orders_the_rest() -> None:
    assets = [asset("one", cut=True), asset("two", "one"), asset("three", "two", cut=True)]
    assert phases(assets, "two", "three") == [(False, ["two"]), (True, ["three"])]
    assert phases(assets, "three") == [(True, ["three"])]
    # What lies between two selected assets is not made, and does not tie them together.
    assert phases(assets, "one", "three") == [(True, ["one", "three"])]


def test_assets_that_only_come_together_stay_together_and_others_are_cut() -> None:
    def together(can_subset: bool) -> dg.AssetsDefinition:
        @dg.multi_asset(
            specs=[dg.AssetSpec("early"), dg.AssetSpec("late", deps=["by_day"])], can_subset=can_subset, name="dbt"
        )
        def made():  # type: ignore[no-untyped-def]  # Dagster reads the annotation as that of each asset's value
            ...

        return made

    by_day = asset("by_day", cut=True)
    assert phases([together(False), by_day]) == [(True, ["by_day"]), (False, ["early", "late"])]
    # What can be cut waits for as long as nothing needs it, so that dbt starts once.
    assert phases([together(True), by_day]) == [(True, ["by_day"]), (False, ["early", "late"])]
    # A definition that reads what an asset between its own made: cut, or there would be no order at all.
    through = asset("by_day", "early", cut=True)
    assert phases([together(True), through]) == [(False, ["early"]), (True, ["by_day"]), (False, ["late"])]


def test_the_platform_takes_three_runs_in_the_order_of_its_graph(tmp_path: Path) -> None:
    assets = build_assets(Settings(home=tmp_path))
    every = {key for one in assets for key in one.keys}
    planned = plan_phases(assets, every)
    assert [phase.partitioned for phase in planned] == [False, True, False]
    assert {key for phase in planned for key in phase.keys} == every
    assert sum(len(phase.keys) for phase in planned) == len(every)
    place = {key: number for number, phase in enumerate(planned) for key in phase.keys}
    for one in assets:
        for spec in one.specs:
            for dep in spec.deps:
                assert place.get(dep.asset_key, 0) <= place[spec.key], f"{spec.key} comes before {dep.asset_key}"
    assert planned[0].keys == tuple(sorted(planned[0].keys))
    assert isinstance(planned[0], Phase)


# -- what is outdated --------------------------------------------------------------------------------------------------


def test_tables_that_were_never_made_or_are_older_than_their_inputs_are_outdated(tmp_path: Path) -> None:
    assets = [asset("quotes", cut=True), asset("mart", "quotes"), asset("export", "mart"), asset("calendar")]
    every = {key for one in assets for key in one.keys}

    def outdated(*selected: str) -> set[str]:
        keys = {dg.AssetKey(name) for name in selected} or every
        return {key.to_user_string() for key in unfinished_assets(assets, keys, instance)}

    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:

        def make(name: str, partition: str | None = None) -> None:
            instance.report_runless_asset_event(dg.AssetMaterialization(name, partition=partition))

        assert outdated() == {"mart", "export", "calendar"}
        make("quotes", "2012-01-03")
        for name in ("calendar", "mart", "export"):
            make(name)
        assert outdated() == set()
        make("quotes", "2012-01-04")
        assert outdated() == {"mart", "export"}
        assert outdated("export") == set()
        make("mart")
        assert outdated() == {"export"}


# -- outcomes ----------------------------------------------------------------------------------------------------------


def outcome_of(*assets: Any, tags: dict[str, str] | None = None, checks: Sequence[Any] = ()) -> RunOutcome:
    outcome = RunOutcome(Settings(home=Path("/nowhere")), success=True)
    outcome.add(run(assets, tags or {}, checks))
    return outcome


def run(assets: Sequence[Any], tags: dict[str, str], checks: Sequence[Any] = ()) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [*assets, *checks],
        tags=tags,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        instance=_INSTANCE[-1],
    )


_INSTANCE: list[dg.DagsterInstance] = []


@pytest.fixture(autouse=True)
def _instance(tmp_path: Path) -> Iterator[None]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as made:
        _INSTANCE.append(made)
        yield
        _INSTANCE.pop()


RANGE = {"dagster/asset_partition_range_start": "2012-01-03", "dagster/asset_partition_range_end": "2012-01-05"}


def counted(metadata: dict[str, int]) -> dg.AssetsDefinition:
    @dg.asset(key=["core", "quotes"], partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    def quotes() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=metadata)

    return quotes


def test_rows_of_a_range_are_summed_over_its_partitions() -> None:
    outcome = outcome_of(counted({"dagster/row_count": 7}), tags=RANGE)
    assert outcome.rows == {"core/quotes": 21}
    assert outcome.partitions == {"core/quotes": 3}


def test_rows_of_a_range_are_what_the_run_says_of_itself() -> None:
    outcome = outcome_of(counted({"dagster/row_count": 7, "run_row_count": 20}), tags=RANGE)
    assert outcome.rows == {"core/quotes": 20}
    outcome.add(run([counted({"run_row_count": 5})], RANGE))
    assert outcome.rows == {"core/quotes": 25}
    assert outcome.partitions == {"core/quotes": 6}
    assert len(outcome.runs) == 2


def test_an_asset_that_does_not_count_has_no_rows() -> None:
    assert outcome_of(counted({}), tags=RANGE).rows == {"core/quotes": None}


def test_a_table_that_is_made_again_is_counted_once() -> None:
    @dg.asset(key=["mart", "performance"])
    def performance() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"dagster/row_count": 12})

    outcome = outcome_of(performance)
    outcome.add(run([performance], {}))
    assert outcome.rows == {"mart/performance": 12}
    assert outcome.partitions == {}


def checked(passed: bool, severity: dg.AssetCheckSeverity) -> tuple[dg.AssetsDefinition, dg.AssetChecksDefinition]:
    @dg.asset(key=["core", "quotes"])
    def quotes() -> None: ...

    @dg.asset_check(asset=quotes, name="is_right")
    def is_right() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=passed, severity=severity, description="[AAA] is [red]wrong")

    return quotes, is_right


def test_a_warning_is_shown_and_an_error_fails_the_whole() -> None:
    quotes, check = checked(False, dg.AssetCheckSeverity.WARN)
    outcome = outcome_of(quotes, checks=[check])
    assert outcome.success
    outcome.add(run([quotes], {}, [check]))
    shown = console()
    outcome.show(shown)
    # What a check says is told as it is: brackets are no mark-up. And what is repeated is told once.
    assert "warning core/quotes is_right (2 times): [AAA] is [red]wrong" in text(shown)
    assert "0 of 2" in text(shown)

    quotes, check = checked(False, dg.AssetCheckSeverity.ERROR)
    assert not outcome_of(quotes, checks=[check]).success
    quotes, check = checked(True, dg.AssetCheckSeverity.ERROR)
    assert outcome_of(quotes, checks=[check]).success


def test_a_failure_is_told_in_its_own_words() -> None:
    @dg.asset(key=["raw", "quotes"])
    def quotes() -> None:
        raise dg.Failure("no provider answered [401]. Set a key\nand a second line")

    outcome = outcome_of(quotes)
    assert not outcome.success
    assert outcome.failures == [("raw__quotes", "no provider answered [401]. Set a key")]
    shown = console()
    outcome.show(shown, next_steps=True)
    assert "failed raw/quotes: no provider answered [401]. Set a key" in text(shown)
    assert "1 run failed in 0 s: 0 assets, 0 rows, 0 of 0 checks passed." in text(shown)
    assert "finance-assets materialize" in text(shown)
    assert "try next" not in text(shown)


def test_the_table_is_ordered_by_layer_and_says_where_everything_lies(tmp_path: Path) -> None:
    outcome = RunOutcome(Settings(home=tmp_path), success=True, seconds=61.2, runs=["a", "b", "c"])
    outcome.rows = {"published/documents": 24, "core/quotes": 74284, "raw/quotes": 74284, "staging/stg": None}
    outcome.partitions = {"raw/quotes": 3270, "core/quotes": 3270}
    outcome.checks = [("raw/quotes", "honours_contract", True, True, ""), ("core/quotes", "x", True, True, "")]
    shown = console()
    outcome.show(shown, next_steps=True)
    lines = text(shown).splitlines()
    names = [line.split()[0] for line in lines if "/" in line and line.strip().startswith(("raw", "core", "st", "pub"))]
    assert names[:4] == ["raw/quotes", "core/quotes", "staging/stg", "published/documents"]
    assert "3 runs succeeded in 61 s: 4 assets, 148,592 rows, 2 of 2 checks passed." in text(shown)
    assert f"  lake       {tmp_path}/lake" in text(shown)
    assert text(shown).count("\n  1. ") == text(shown).count("\n  2. ") == text(shown).count("\n  3. ") == 1


# -- ranges and selections ---------------------------------------------------------------------------------------------


def test_a_range_without_a_closed_session_is_refused(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path)
    for first, last, words in (
        (date(2012, 1, 14), date(2012, 1, 16), "there is no closed session between 2012-01-14 and 2012-01-16"),
        (date(2012, 2, 1), None, "they run from 2012-01-03 to 2012-01-31"),
        (date(2012, 1, 9), date(2012, 1, 6), "the range ends before it begins: 2012-01-09 is after 2012-01-06"),
    ):
        with pytest.raises(RunRefusedError, match=words):
            run_assets(settings, first=first, last=last, console=console())
    early = fake_settings(tmp_path, now=datetime(2012, 1, 3, 18, tzinfo=UTC))
    with pytest.raises(RunRefusedError, match="no session has closed since FINANCE_ASSETS_MARKET_START=2012-01-03"):
        run_assets(early, console=console())


@pytest.mark.parametrize("select", ["nothing_like_it", "key:nothing_like_it", 'group:"none"', "((", ""])
def test_a_selection_that_names_nothing_is_refused_and_shows_how_it_is_done(tmp_path: Path, select: str) -> None:
    with pytest.raises(RunRefusedError, match="""Try 'key:"core/quotes"'""") as caught:
        run_assets(fake_settings(tmp_path), select=select, console=console())
    assert repr(select) in str(caught.value)


# -- real runs of the market branch ------------------------------------------------------------------------------------


@pytest.fixture
def market_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Two made-up tickers in January, without the rooms behind the market, whose warehouse takes minutes."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "dagster"))
    provider = FakeProvider(rows={"AAA": wandering(JANUARY), "BBB": wandering(JANUARY, 20.0, 5)})

    def with_provider(settings: Settings) -> dg.Definitions:
        defs = registry.market.definitions(settings)
        return dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            resources={"market_data": MarketData(settings, build_ledger(settings), [provider])},
        )

    monkeypatch.setattr(registry, "DOMAINS", (SimpleNamespace(definitions=with_provider),))
    # Dagster's own storage: the batched event log of the template is tested where it is defined.
    template = tmp_path / "template.yaml"
    template.write_text("telemetry:\n  enabled: false\n")
    monkeypatch.setattr(instance, "INSTANCE_TEMPLATE", template)
    return fake_settings(tmp_path / "home", now=datetime(2012, 1, 6, 22, tzinfo=UTC))


def test_what_is_missing_is_made_and_then_nothing_is(market_only: Settings, capfd: pytest.CaptureFixture[str]) -> None:
    shown = console()
    first = run_assets(market_only, first=date(2012, 1, 1), last=date(2012, 1, 4), console=shown)
    assert first.success
    assert first.partitions["core/ticker_kpis"] == 2
    assert first.rows["core/ticker_kpis"] == 4
    assert "note: 2012-01-01 is outside the sessions of this deployment; starting with 2012-01-03" in text(shown)
    assert "7 assets, sessions 2012-01-03 to 2012-01-04" in text(shown)
    # Whatever steps print goes to a file: the terminal shows the progress alone.
    assert capfd.readouterr() == ("", "")
    log = Path(os.environ["DAGSTER_HOME"]) / "terminal-runs.log"
    assert "Started execution of run" in log.read_text()

    second = run_missing(market_only, console=console())
    assert second is not None
    assert second.success
    assert second.partitions["core/quotes"] == 2
    assert run_missing(market_only, console=console()) is None

    shown = console()
    assert show_status(market_only, shown) is False
    lines = {line.split()[0]: line.split() for line in text(shown).splitlines() if line.startswith((" raw", " core"))}
    assert lines["raw/quotes"] == ["raw/quotes", "4", "8", "2012-01-06", "0"]
    assert lines["core/ticker_kpis"] == ["core/ticker_kpis", "4", "8", "2012-01-06", "0"]
    assert "Never built: staging/" in text(shown)
    assert "sessions missing" not in text(shown)


def test_a_failed_run_says_so_and_is_recorded(market_only: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> None:
        raise ValueError("the maths is broken")

    monkeypatch.setattr("finance_assets.market.assets.validate_quotes", broken)
    outcome = run_assets(market_only, console=console())
    assert not outcome.success
    assert outcome.failures == [("validated_quotes", "ValueError: the maths is broken")]
    assert "core/quotes" not in outcome.rows
    with dg.DagsterInstance.get() as instance:
        statuses = [run.status for run in instance.get_runs()]
    assert statuses == [dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS]


# -- status ------------------------------------------------------------------------------------------------------------


def fill(settings: Settings, *days: date, symbols: Sequence[str] = ("AAA", "BBB")) -> None:
    """Write sessions without runs."""
    from finance_assets.market.kpis import ticker_kpis
    from finance_assets.market.validation import validate_quotes

    lake = Lake(settings.lake)
    raw = raw_table(*(raw_row(symbol=symbol, session_date=day) for day in days for symbol in symbols))
    judged = validate_quotes(raw)
    keys = [day.isoformat() for day in days]
    lake.write_partitions(QUOTES_RAW, raw, keys)
    lake.write_partitions(QUOTES, judged.quotes, keys)
    lake.write_partitions(TICKER_KPIS, ticker_kpis(judged.quotes, judged.actions, sessions_table(JANUARY)), keys)


def test_the_status_of_an_empty_lake_says_how_to_begin(tmp_path: Path) -> None:
    shown = console()
    assert show_status(fake_settings(tmp_path), shown) is False
    assert "No table has been built yet. finance-assets demo" in text(shown)
    assert "newest closed session 2012-01-31" in text(shown)
    for path in CONTRACTS:
        assert f" {path} " in text(shown)
    # Looking makes nothing.
    assert not (tmp_path / "warehouse.duckdb").exists()


def test_the_status_names_what_is_missing_and_what_to_do(tmp_path: Path) -> None:
    settings = fake_settings(tmp_path)
    fill(settings, *JANUARY[:6], *JANUARY[8:-1])
    fill(settings, JANUARY[-1], symbols=["AAA"])
    Lake(settings.lake).write(TRADING_SESSIONS, sessions_table(JANUARY))
    shown = console()
    assert show_status(settings, shown) is False
    assert "3 sessions missing or incomplete: 2012-01-11 to 2012-01-12, 2012-01-31." in text(shown)
    assert "Never built: raw/instruments, staging/" in text(shown)
    assert "finance-assets materialize builds what is missing." in text(shown)
    (row,) = (line for line in text(shown).splitlines() if line.startswith(" core/quotes"))
    assert row.split() == ["core/quotes", "18", "35", "2012-01-31", "2"]


def test_sessions_of_a_live_provider_are_seen(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path)
    assert newest_live_session(settings) is None
    lake = Lake(settings.lake)
    lake.write_partitions(QUOTES_RAW, raw_table(), ["2013-03-01"])
    assert newest_live_session(settings) is None
    lake.write_partitions(QUOTES_RAW, raw_table(), ["2013-03-04"])
    assert newest_live_session(settings) == date(2013, 3, 4)


# -- the Dagster instance ----------------------------------------------------------------------------------------------


def test_the_instance_lies_in_dagster_home_or_in_the_home_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path / "home")
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = dagster_home(settings)
    assert home == tmp_path / "home" / "dagster"
    assert os.environ["DAGSTER_HOME"] == str(home)
    assert "event_log_storage" in (home / "dagster.yaml").read_text()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "other"))
    assert dagster_home(settings) == tmp_path / "other"


def test_a_configuration_that_is_there_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    dagster_home(Settings(home=tmp_path / "home"))
    assert (tmp_path / "dagster.yaml").read_text() == "telemetry: {enabled: false}\n"


# -- what is printed while a run goes on -------------------------------------------------------------------------------

PRINTS = """
import os, subprocess, sys
from pathlib import Path
from rich.console import Console
from finance_assets.runs.progress import redirect_output

console = Console(highlight=False)
console.print("before")
with redirect_output(Path(sys.argv[1]), console) as shown:
    print("from python")
    sys.stderr.write("to stderr\\n")
    subprocess.run(["echo", "from a command"], check=True)
    shown.print("to the person")
console.print("after")
"""


def test_only_what_is_meant_for_the_person_reaches_them(tmp_path: Path) -> None:
    log = tmp_path / "log"
    done = subprocess.run(
        [sys.executable, "-c", PRINTS, str(log)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines() == ["before", "to the person", "after"]
    assert done.stderr == ""
    assert sorted(log.read_text().splitlines()) == ["from a command", "from python", "to stderr"]
