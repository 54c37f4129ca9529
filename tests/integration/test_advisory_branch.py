"""The advisory branch from landed files to breaks: real runs, a real lake, fictitious vendors."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pyarrow.parquet as pq
import pytest
from fixtures.quotes import fake_settings
from typer.testing import CliRunner

from finance_assets.advisory import intake as intake_module
from finance_assets.advisory import results
from finance_assets.advisory.generating import GeneratedFile, vendor_files, write_large_csv
from finance_assets.advisory.history import history_key
from finance_assets.advisory.intake import Intake, drop_sample_files
from finance_assets.advisory.reading import blocks, layouts, reader
from finance_assets.advisory.reading.containers import FileBytes
from finance_assets.advisory.reading.reader import FileReading
from finance_assets.advisory.reading.vendor_contract import VendorContract
from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.results import History, completeness_now
from finance_assets.advisory.sensors import PLAN_TAG, vendor_files_sensor
from finance_assets.cli import app as cli
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    CONTRACTS,
    PERFORMANCE_HISTORY,
    QUARANTINED_FILES,
    QUARANTINED_ROWS,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
    VENDOR_FILES,
    VENDOR_ROWS,
)
from finance_assets.contracts.model import Contract
from finance_assets.registry import build_definitions
from finance_assets.settings import Settings
from finance_assets.storage.lake import SMALL_FILE_ROWS, TEMPORARY_FOLDER, Lake, LakeError, StagedFile, encoding
from finance_assets.storage.ledger import FileStatus

LAST_MONTH = date(2013, 1, 31)
HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"
RECEIVED = datetime(2013, 2, 4, 8, tzinfo=UTC)


@cache
def generated() -> tuple[GeneratedFile, ...]:
    return tuple(vendor_files(7, 21, 6, LAST_MONTH))


class Branch:
    """A deployment whose landing folder a test fills."""

    def __init__(self, home: Path, **changes: Any) -> None:
        self.settings: Settings = fake_settings(home, **changes)
        self.definitions = build_definitions(self.settings)
        self.landing = Path(self.settings.landing)
        self.intake: Intake = build_intake(self.settings)
        self.lake: Lake = self.intake.lake
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(home))

    def drop(self, name: str, data: bytes | str, received: datetime = RECEIVED) -> Path:
        path = self.landing / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        os.utime(path, (received.timestamp(), received.timestamp()))
        return path

    def drop_all(self, *files: GeneratedFile) -> None:
        for file in files or generated():
            self.drop(f"sample/{file.name}", file.data, file.received_at)

    def run(self, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("advisory_performance").execute_in_process(
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=raise_on_error,
        )

    def rows(self, contract: Contract) -> list[dict[str, Any]]:
        table = self.lake.read(contract).table
        return table.sort_by([(name, "ascending") for name in contract.key]).to_pylist()

    def bytes(self) -> dict[str, bytes]:
        root = Path(self.lake.root)
        folders = [root / contract.path for contract in CONTRACTS]
        return {str(path.relative_to(root)): path.read_bytes() for one in folders for path in sorted(one.glob("*"))}

    def kept(self) -> dict[str, bytes]:
        folder = Path(self.lake.root) / "landing"
        return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def left_over(self) -> list[str]:
        folder = Path(self.lake.root) / TEMPORARY_FOLDER
        return os.listdir(folder) if folder.exists() else []

    def command(self, *arguments: str) -> tuple[int, str]:
        environment = {"FINANCE_ASSETS_HOME": str(self.settings.home), "COLUMNS": "200"}
        result = CliRunner().invoke(cli.app, list(arguments), prog_name="finance-assets", env=environment)
        return result.exit_code, result.output


@pytest.fixture
def branch(tmp_path: Path) -> Iterator[Branch]:
    made = Branch(tmp_path)
    yield made
    made.intake.ledger.close()
    made.instance.dispose()


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Branch]:
    """All generated files, read in one run."""
    made = Branch(tmp_path_factory.mktemp("filled"))
    made.drop_all()
    result = made.run()
    assert all(check.passed for check in result.get_asset_check_evaluations())
    yield made
    made.intake.ledger.close()
    made.instance.dispose()


def csv(*rows: str) -> str:
    return "\n".join((HEADER, *rows)) + "\n"


JANUARY = csv(
    "A1,2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01",
    "A1,2013-01-31,USD,1010.00,100.00,0.00,1121.20,0.0106603774",
    "A2,2012-12-31,USD,500.00,0.00,0.00,495.00,-0.01",
    "A2,2013-01-31,USD,495.00,0.00,0.00,499.95,0.01",
)


# -- all of it ---------------------------------------------------------------------------------------------------------


def test_every_file_has_its_line_and_its_bytes(filled: Branch) -> None:
    register = {row["landing_key"]: row for row in filled.rows(VENDOR_FILES)}
    assert set(register) == {f"sample/{file.name}" for file in generated()}
    for file in generated():
        row = register[f"sample/{file.name}"]
        assert filled.intake.bytes_of(row["file_sha256"]) == file.data
        assert abs(row["received_ts_utc"] - file.received_at) < timedelta(seconds=1)
    assert {row["vendor"] for row in register.values() if row["action"].startswith("accept")} == {
        *("northgate", "harbour", "meridian", "rheintal", "lumen", "cascade", "summit")
    }


def test_no_record_of_a_file_is_lost(filled: Branch) -> None:
    loaded = len(filled.rows(VENDOR_ROWS))
    left_out = filled.rows(QUARANTINED_ROWS)
    assert loaded == sum(row["row_count"] for row in filled.rows(VENDOR_FILES))
    assert [(row["reason"].split(":")[0], row["line"]) for row in left_out] == [("bad_number", 2)]
    assert [row["reason"] for row in filled.rows(QUARANTINED_FILES)] == ["missing_trailer"]


def test_every_row_leads_to_the_line_it_came_from(filled: Branch) -> None:
    checked = 0
    for row in filled.rows(VENDOR_ROWS):
        if row["vendor"] not in ("northgate", "harbour", "lumen"):
            continue
        lines = filled.intake.bytes_of(row["file_sha256"]).decode().splitlines()
        line = lines[row["line"] - 1]
        assert row["account_id"] in line
        assert str(row["ending_market_value"].normalize().quantize(Decimal("0.01"))) in line.replace(",", "").replace(
            '"', " "
        )
        checked += 1
    assert checked > 50


def test_the_returns_are_those_of_the_vendors_where_nothing_is_wrong(filled: Branch) -> None:
    wrong = {(row["vendor"], row["account_id"], row["period_end"]) for row in filled.rows(RECONCILIATION_BREAKS)}
    compared = 0
    for row in filled.rows(ACCOUNT_PERFORMANCE):
        if row["return_net"] is None or (row["vendor"], row["account_id"], row["period_end"]) in wrong:
            continue
        assert row["return_net_computed"] == pytest.approx(float(row["return_net"]), abs=1e-4)
        compared += 1
    assert compared > 100


def test_what_was_planted_is_found(filled: Branch) -> None:
    breaks = filled.rows(RECONCILIATION_BREAKS)
    codes = {row["code"] for row in breaks}
    assert {"RESTATED", "GAP"} <= codes
    assert all(row["status"] == "open" and row["first_seen"] == row["last_seen"] for row in breaks)
    calendar = filled.rows(VENDOR_COMPLETENESS)
    lost = [row for row in calendar if row["status"] != "complete"]
    assert {row["vendor"] for row in lost} >= {"harbour"}


def test_running_again_changes_no_byte(filled: Branch) -> None:
    before = filled.bytes()
    filled.run()
    assert filled.bytes() == before


# -- what comes later --------------------------------------------------------------------------------------------------


def test_a_correction_is_a_version_and_the_past_stays_explained(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    months = {path.name: path.read_bytes() for path in Path(branch.lake.folder(ACCOUNT_PERFORMANCE)).iterdir()}
    corrected = JANUARY.replace("1121.20,0.0106603774", "1131.80,0.0206603774")
    branch.drop("january_v2.csv", corrected, RECEIVED + timedelta(days=3))
    branch.run()

    versions = [
        (row["version"], row["ending_market_value"])
        for row in branch.rows(PERFORMANCE_HISTORY)
        if (row["account_id"], row["period_end"]) == ("A1", LAST_MONTH)
    ]
    assert versions == [(1, Decimal("1121.20")), (2, Decimal("1131.80"))]
    assert len(branch.rows(PERFORMANCE_HISTORY)) == 5, "what the second file repeats is no version"
    after = {path.name: path.read_bytes() for path in Path(branch.lake.folder(ACCOUNT_PERFORMANCE)).iterdir()}
    assert after["2012-12-01.parquet"] == months["2012-12-01.parquet"]
    assert after["2013-01-01.parquet"] != months["2013-01-01.parquet"]

    code, said = branch.command("explain", "A1", "2013-01")
    assert code == 0
    assert "1131.8" in said
    assert "january_v2.csv" in said
    assert "line 3" in said
    code, said = branch.command("explain", "A1", "2013-01", "--as-of", "2013-02-05")
    assert code == 0
    assert "1121.2" in said
    assert "1131.8" not in said
    code, said = branch.command("restatements", "--between", "2013-02-05", "2013-02-28")
    assert code == 0
    assert "january_v2.csv, line 3" in said
    code, said = branch.command("restatements", "--between", "2013-02-01", "2013-02-28")
    assert "january_v2.csv, line 3" in said, "also where the first version came within the days"


def test_what_is_listed_as_restated_is_a_break_as_well(branch: Branch) -> None:
    header = f"{HEADER},fees,income,return_gross,benchmark_return"
    lines = [f"{line},3.00,4.00,0.02,0.03" for line in JANUARY.splitlines()[1:]]
    folder = branch.settings.home / "vendors"
    folder.mkdir()
    contract = {"vendor": "wide", "version": 1, "detect": {"required_headers": ["benchmark_return"]}}
    (folder / "wide.yaml").write_text(json.dumps({**contract, "return_unit": "decimal"}))
    branch.intake = build_intake(branch.settings)
    branch.definitions = build_definitions(branch.settings)
    branch.drop("first.csv", "\n".join((header, *lines)) + "\n")
    branch.run()
    changed = zip(lines, ("3.00,", "4.00,", "0.02,", "0.03"), ("3.01,", "4.01,", "0.021,", "0.031"), strict=True)
    again = [line.replace(f",{old}", f",{new}") for line, old, new in changed]
    branch.drop("second.csv", "\n".join((header, *again)) + "\n", RECEIVED + timedelta(days=1))
    branch.run()
    breaks = [row for row in branch.rows(RECONCILIATION_BREAKS) if row["code"] == "RESTATED"]
    assert {row["field"] for row in breaks} == {"fees", "income", "return_gross", "benchmark_return"}
    listed = results.restated(branch.intake, RECEIVED, RECEIVED + timedelta(days=2))
    assert sorted((row["account"], row["period"], row["value"]) for row in listed) == sorted(
        (row["account_id"], row["period_end"], row["field"]) for row in breaks
    )
    said = branch.command("restatements", "--between", "2013-02-05", "2013-02-05")[1]
    assert all(name in said for name in ("fees", "income", "return_gross", "benchmark_return"))
    # The same rows in another order come from other lines, and say nothing new.
    branch.drop("third.csv", "\n".join((header, *reversed(again))) + "\n", RECEIVED + timedelta(days=2))
    branch.run()
    assert [row["break_id"] for row in branch.rows(RECONCILIATION_BREAKS) if row["code"] == "RESTATED"] == [
        row["break_id"] for row in breaks
    ]


def test_a_late_month_rewrites_itself_and_those_after_it(branch: Branch) -> None:
    december, january = (csv(*JANUARY.splitlines()[1::2]), csv(*JANUARY.splitlines()[2::2]))
    branch.drop("january.csv", january)
    branch.run()
    assert [row["chain_start"] for row in branch.rows(ACCOUNT_PERFORMANCE)] == [date(2013, 1, 1)] * 2
    branch.drop("december.csv", december, RECEIVED + timedelta(days=1))
    branch.run()
    found = {(row["account_id"], row["period_end"]): row for row in branch.rows(ACCOUNT_PERFORMANCE)}
    assert found["A2", LAST_MONTH]["chain_start"] == date(2012, 12, 1)
    assert found["A2", LAST_MONTH]["cumulative_return_chain"] == pytest.approx(0.99 * 1.01 - 1, abs=1e-12)


def test_a_break_that_is_mended_is_resolved_and_keeps_its_age(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY.replace("499.95,0.01", "509.95,0.01"))
    branch.run()
    (found,) = [row for row in branch.rows(RECONCILIATION_BREAKS) if row["code"] == "RETURN_TOLERANCE"]
    assert (found["account_id"], found["status"]) == ("A2", "open")
    branch.drop("january_v2.csv", JANUARY, RECEIVED + timedelta(days=9))
    branch.run()
    (later,) = [row for row in branch.rows(RECONCILIATION_BREAKS) if row["code"] == "RETURN_TOLERANCE"]
    assert later["break_id"] == found["break_id"]
    assert (later["status"], later["first_seen"]) == ("resolved", found["first_seen"])


def test_the_same_bytes_under_another_name_are_skipped(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    before = branch.bytes()
    branch.drop("copy of january.csv", JANUARY, RECEIVED + timedelta(days=1))
    branch.run()
    assert branch.bytes() == before
    assert [file.reason for file in branch.intake.ledger.files() if file.reason] == ["the same bytes as january.csv"]
    assert branch.intake.pending() == []


def test_known_time_never_runs_backwards(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    branch.drop("older.csv", JANUARY.replace("A1", "B1").replace("A2", "B2"), RECEIVED - timedelta(days=30))
    branch.run()
    known = {row["landing_key"]: row["received_ts_utc"] for row in branch.rows(VENDOR_FILES)}
    assert known["older.csv"] > known["january.csv"] == RECEIVED


def test_a_file_that_is_still_being_written_is_left(branch: Branch) -> None:
    path = branch.drop("january.csv", JANUARY[:-5], datetime.now(UTC))
    looked_again: list[float] = []

    def write_on(seconds: float) -> None:
        looked_again.append(seconds)
        path.write_text(JANUARY)

    branch.intake.pause = write_on
    assert branch.intake.take(branch.intake.pending(settle=True)) == []
    # One that is the same after some seconds is whole, however new it is.
    branch.intake.pause = looked_again.append
    assert [one.action for one in branch.intake.take(branch.intake.pending(settle=True))] == ["accept"]
    assert looked_again == [5.0, 5.0]


def test_nothing_landed_is_no_error(branch: Branch) -> None:
    result = branch.run()
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert branch.rows(ACCOUNT_PERFORMANCE) == []


# -- what goes wrong ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("large_text", [blocks.LARGE_TEXT, 1], ids=["in memory", "on the disk"])
def test_a_run_that_is_killed_at_any_write_is_finished_by_the_next(
    large_text: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LARGE_TEXT", large_text)
    files = [file for file in generated() if "201301" in file.name and not file.name.startswith("summit")]
    whole = Branch(tmp_path / "whole")
    whole.drop_all(*files)
    whole.run()
    expected = whole.bytes() | whole.kept()
    replace = os.replace
    writes = 0

    class KilledError(BaseException):
        pass

    broken = Branch(tmp_path / "broken")
    broken.drop_all(*files)
    die_at = [1]

    def dying(source: str, target: str) -> None:
        nonlocal writes
        if str(target).startswith(broken.lake.root):
            die_at[0] -= 1
            if die_at[0] == 0:
                deaths.append(Path(target).relative_to(broken.lake.root).parts[0])
                raise KilledError(target)
            writes += 1
        replace(source, target)

    deaths: list[str] = []
    monkeypatch.setattr(os, "replace", dying)
    for place in range(1, 40):
        die_at[0] = place
        with suppress(KilledError):
            broken.run()
            break
    monkeypatch.setattr(os, "replace", replace)
    broken.run()
    assert len(deaths) >= 5
    assert {"landing", "raw", "core"} <= set(deaths)
    assert writes > 20
    assert broken.bytes() | broken.kept() == expected


def test_a_file_on_which_the_reader_breaks_does_not_hold_up_the_others(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    branch.drop("a_bad.csv", JANUARY.replace("A", "X"))
    branch.drop("b_good.csv", JANUARY)
    from finance_assets.storage.landing import Landing

    read = Landing.read

    def broken(self: Landing, key: str) -> bytes:
        if key == "a_bad.csv":
            raise OSError("the disk is on fire")
        return read(self, key)

    monkeypatch.setattr(Landing, "read", broken)
    result = branch.run(raise_on_error=False)
    assert not result.success
    assert [row["landing_key"] for row in branch.rows(VENDOR_FILES)] == ["b_good.csv"]
    (failed,) = branch.intake.ledger.files(FileStatus.FAILED)
    assert (failed.identity.key, failed.reason) == ("a_bad.csv", "OSError: the disk is on fire")
    monkeypatch.setattr(Landing, "read", read)
    branch.run()
    assert len(branch.rows(VENDOR_FILES)) == 2


def test_what_is_in_quarantine_is_shown_and_replayed_after_a_contract(branch: Branch) -> None:
    headless = "\n".join(JANUARY.splitlines()[1:]) + "\n"
    branch.drop("headless.csv", headless)
    branch.run()
    (suspect,) = branch.rows(QUARANTINED_FILES)
    assert branch.rows(PERFORMANCE_HISTORY) == []
    code, said = branch.command("vendors", "quarantine")
    assert code == 1
    assert "headless.csv" in said
    assert suspect["file_sha256"][:12] in said

    folder = branch.settings.home / "vendors"
    folder.mkdir()
    names = ["account_id", "period_end", "currency", "beginning_market_value", "contributions", "distributions"]
    contract = {
        "vendor": "headless",
        "version": 3,
        "has_header": False,
        "delimiter": ",",
        "fields": [{"name": name} for name in [*names, "ending_market_value", "return_net"]],
        "return_unit": "decimal",
        "timing": "eod",
    }
    (folder / "headless.yaml").write_text(json.dumps(contract))
    code, said = branch.command("vendors", "replay", suspect["file_sha256"][:10])
    assert code == 0, said
    assert "headless.csv: accept" in said
    again = Branch(branch.settings.home)
    again.run()
    assert again.rows(QUARANTINED_FILES) == []
    assert {row["contract_version"] for row in again.rows(PERFORMANCE_HISTORY)} == {3}
    assert {(row["timing"], row["policy_version"]) for row in again.rows(ACCOUNT_PERFORMANCE)} == {
        ("eod", "headless-3")
    }
    code, said = again.command("vendors", "list")
    assert code == 0
    assert re.search(r"headless\s+version 3\s+eod", said)
    code, said = again.command("vendors", "quarantine")
    assert (code, "Nothing is in quarantine." in said) == (0, True)


def test_personal_data_reaches_no_table_log_or_screen(branch: Branch, capfd: pytest.CaptureFixture[str]) -> None:
    secrets = ("900-12-3456", "jane.smith@example.com", "1961-04-09")
    lines = JANUARY.splitlines()
    told = [f"{lines[0]},ssn,email,date_of_birth", *(f"{line},{','.join(secrets)}" for line in lines[1:])]
    told[2] = told[2].replace("1010.00", "what?")
    path = branch.drop("private.csv", "\n".join(told) + "\n")
    result = branch.run()
    assert branch.rows(QUARANTINED_ROWS)
    code, said = branch.command("vendors", "inspect", str(path), "--json", "-")
    assert code == 0
    tables = repr([branch.rows(contract) for contract in CONTRACTS])
    events = repr(list(result.all_events))
    printed = "".join(capfd.readouterr())
    for secret in secrets:
        assert secret not in tables + events + printed + said


# -- what starts it ----------------------------------------------------------------------------------------------------


def tick(branch: Branch) -> dg.RunRequest | dg.SkipReason:
    context = dg.build_sensor_context(instance=branch.instance, resources={"intake": branch.intake})
    answer = vendor_files_sensor(context)
    assert isinstance(answer, dg.RunRequest | dg.SkipReason)
    return answer


def test_the_sensor_asks_for_a_run_when_something_has_landed(branch: Branch) -> None:
    assert "nothing new in" in str(tick(branch).skip_message)  # type: ignore[union-attr]
    branch.drop("january.csv", JANUARY)
    request = tick(branch)
    assert isinstance(request, dg.RunRequest)
    assert request.run_key is not None
    assert request.run_key.endswith("__attempt1")
    branch.run()
    assert isinstance(tick(branch), dg.SkipReason)
    assert vendor_files_sensor.default_status is dg.DefaultSensorStatus.RUNNING
    assert vendor_files_sensor.minimum_interval_seconds <= 10


def test_the_sensor_waits_for_a_run_and_gives_up_after_three(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    request = tick(branch)
    assert isinstance(request, dg.RunRequest)
    job = branch.definitions.resolve_job_def("advisory_performance")
    running = branch.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=request.tags)
    skipped = tick(branch)
    assert isinstance(skipped, dg.SkipReason)
    assert f"wait for run {running.run_id[:8]}" in str(skipped.skip_message)
    branch.instance.report_run_canceling(running)
    assert isinstance(tick(branch), dg.SkipReason), "a run that is being stopped may still write"
    branch.instance.report_run_failed(running)
    keys = [request.run_key]
    for _ in range(2):
        again = tick(branch)
        assert isinstance(again, dg.RunRequest)
        keys.append(again.run_key)
        run = branch.instance.create_run_for_job(job, status=dg.DagsterRunStatus.STARTED, tags=again.tags)
        branch.instance.report_run_failed(run)
    assert len(set(keys)) == 3, "a key that was used is skipped for ever"
    given_up = tick(branch)
    assert isinstance(given_up, dg.SkipReason)
    assert "3 runs have ended without dealing with january.csv" in str(given_up.skip_message)
    branch.drop("another.csv", JANUARY.replace("A", "B"))
    assert isinstance(tick(branch), dg.RunRequest), "with another file it is another plan"
    assert PLAN_TAG in request.tags


# -- where it goes -----------------------------------------------------------------------------------------------------


def test_the_results_are_published_to_postgresql(tmp_path: Path, postgres_url: str) -> None:
    branch = Branch(tmp_path, publish_url=postgres_url)
    branch.drop("january.csv", JANUARY)
    branch.run()

    def publish() -> dict[str, Any]:
        key = dg.AssetKey(["published", "account_performance"])
        result = dg.materialize(
            [asset for asset in branch.definitions.assets or () if isinstance(asset, dg.AssetsDefinition)],
            selection=[key],
            resources=dict(branch.definitions.resources or {}),
            instance=branch.instance,
        )
        (made,) = result.asset_materializations_for_node("published__account_performance")
        return {name: value.value for name, value in made.metadata.items()}

    assert publish() == {"dagster/row_count": 4, "inserted": 4, "updated": 0, "deleted": 0}
    branch.drop("january_v2.csv", JANUARY.replace("499.95,0.01", "504.90,0.02"), RECEIVED + timedelta(days=3))
    branch.run()
    assert publish() == {"dagster/row_count": 4, "inserted": 0, "updated": 1, "deleted": 0}
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        found = connection.execute(
            "select ending_market_value, return_net from published.account_performance "
            "where account_id = 'A2' order by period_end"
        ).fetchall()
    assert found == [(Decimal("495.00000000"), Decimal("-0.01")), (Decimal("504.90000000"), Decimal("0.02"))]


def test_the_files_of_the_history_ascend_as_knowledge_does(filled: Branch) -> None:
    keys = filled.lake.partitions(PERFORMANCE_HISTORY)
    accepted = [row for row in filled.rows(VENDOR_FILES) if row["action"].startswith("accept")]
    accepted.sort(key=lambda row: (row["received_ts_utc"], row["file_sha256"]))
    assert keys == [history_key(row["received_ts_utc"], row["file_sha256"]) for row in accepted]


def test_a_file_that_is_due_and_does_not_come_is_seen(tmp_path: Path) -> None:
    intake = build_intake(Settings(home=tmp_path))
    drop_sample_files(tmp_path / "landing")
    intake.take(intake.pending())
    history = History(intake.lake)
    for line in intake.unknown_to_history():
        history.add(line)
    rows = completeness_now(intake.lake, intake.contracts).to_pylist()
    missed = [(row["vendor"], row["period_month"]) for row in rows if row["files_received"] < row["files_expected"]]
    assert missed == [("harbour", date(2012, 5, 1)), ("harbour", date(2013, 1, 1))]
    # A vendor that never sent is due only from a date that its contract names.
    never = VendorContract.model_validate({"vendor": "never", "rhythm": {"files": 2, "since": "2013-01-01"}})
    silent = VendorContract.model_validate({"vendor": "silent", "rhythm": {"files": 2}})
    added = completeness_now(intake.lake, [*intake.contracts, never, silent]).to_pylist()
    extra = [row for row in added if row["vendor"] in {"never", "silent"}]
    assert [(row["vendor"], row["files_expected"], row["status"]) for row in extra] == [
        ("never", 2, "nothing_received")
    ]


def test_months_that_do_not_fit_into_memory_come_out_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    intake = build_intake(Settings(home=tmp_path))
    drop_sample_files(tmp_path / "landing")
    intake.take(intake.pending())
    history = History(intake.lake)
    added = sum(history.add(line) for line in intake.unknown_to_history())
    at_once = results.write_performance(intake.lake, intake.contracts)
    held = intake.lake.read(ACCOUNT_PERFORMANCE).table
    # A correction says a period again.
    assert held.num_rows == at_once.rows < added
    monkeypatch.setattr(results, "ROWS_IN_MEMORY", 100)
    monkeypatch.setattr(results, "ROWS_AT_ONCE", 60)
    again = results.write_performance(intake.lake, intake.contracts)
    assert (again.rows, again.months) == (at_once.rows, ())
    assert intake.lake.read(ACCOUNT_PERFORMANCE).table.equals(held)
    # In row groups of another order, each of which has rows of many months.
    known = intake.lake.read(PERFORMANCE_HISTORY).table
    for key in intake.lake.partitions(PERFORMANCE_HISTORY):
        Path(intake.lake.file(PERFORMANCE_HISTORY, key)).unlink()
    by_account = known.sort_by([(name, "ascending") for name in ("account_id", "period_end", "version")])
    file = intake.lake.file(PERFORMANCE_HISTORY, "all")
    # Also where the footers do not say of which months, or of some only.
    for says in (["period_end"], False, ["vendor"]):
        pq.write_table(by_account, file, row_group_size=90, store_schema=False, write_statistics=says)
        groups = intake.lake.row_groups(PERFORMANCE_HISTORY, "period_end")
        assert len(groups) > 5
        assert all((group.bounds is None) == (says != ["period_end"]) for group in groups)
        other = results.write_performance(intake.lake, intake.contracts)
        assert (other.rows, other.months) == (at_once.rows, ())
    pq.write_table(by_account.slice(0, 300), file, row_group_size=90, store_schema=False)
    other_file = intake.lake.file(PERFORMANCE_HISTORY, "silent")
    pq.write_table(by_account.slice(300), other_file, row_group_size=90, store_schema=False, write_statistics=False)
    assert results.write_performance(intake.lake, intake.contracts).months == ()
    for day in intake.lake.partitions(ACCOUNT_PERFORMANCE):
        Path(intake.lake.file(ACCOUNT_PERFORMANCE, day)).unlink()
    assert results.write_performance(intake.lake, intake.contracts).months == at_once.months
    assert intake.lake.read(ACCOUNT_PERFORMANCE).table.equals(held)

    # A footer that is wrong hides no row in silence.
    say = intake.lake.row_groups

    def wrong(*asked: Any) -> Any:
        first, last = date(2012, 1, 31), date(2013, 1, 31)
        return [
            replace(group, bounds=(last, last) if place % 2 else (first, first))
            for place, group in enumerate(say(*asked))
        ]

    with monkeypatch.context() as patched:
        patched.setattr(intake.lake, "row_groups", wrong)
        with pytest.raises(LakeError, match=r"row group \d+, holds periods that do not end from 20"):
            results.write_performance(intake.lake, intake.contracts)


def test_a_large_file_is_stored_alike_whether_it_is_read_in_blocks_or_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also the odd rows in it, and in row groups that are encoded side by side."""
    file = tmp_path / "large.csv"
    write_large_csv(file, 60, 24)
    lines = file.read_text().splitlines()
    lines[700] = lines[700].replace("USD", "Q")
    lines[900] = lines[900].rsplit(",", 1)[0]
    # No order that a table has.
    rows = lines[1:]
    random.Random(4).shuffle(rows)
    lines = [lines[0], *rows]
    monkeypatch.setattr(intake_module, "ROW_GROUP_ROWS", 400)
    monkeypatch.setattr(reader, "LARGE_ROWS", 400)
    monkeypatch.setattr(encoding, "ROW_GROUP_ROWS", 400)
    monkeypatch.setattr(layouts, "THREADED_TEXT_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 14)
    stored = {}
    for name, least in (("blocks", 0), ("whole", 1 << 40)):
        monkeypatch.setattr(blocks, "LARGE_TEXT", least)
        branch = Branch(tmp_path / name)
        branch.drop("large.csv", "\n".join(lines) + "\n", datetime(2024, 7, 3, tzinfo=UTC))
        (taken,) = branch.intake.take(branch.intake.pending())
        assert (taken.action, taken.rows, taken.quarantined) == ("accept_with_warnings", 1438, 2)
        folder = Path(branch.lake.root) / "raw"
        stored[name] = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.parquet")}
        (file,) = (Path(branch.lake.root) / VENDOR_ROWS.path).iterdir()
        assert pq.ParquetFile(file).num_row_groups == 4
    # How sure the detection is, each block says by itself; it stands in the file's own line alone.
    differing = {path.parent.name for path, data in stored["whole"].items() if stored["blocks"][path] != data}
    assert differing <= {"vendor_files"}
    assert stored["blocks"].keys() == stored["whole"].keys()


# -- large files, which are read from the lake's copy ------------------------------------------------------------------


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Let every file count as a large one; the files that were copied into a lake."""
    monkeypatch.setattr(blocks, "LARGE_TEXT", 1)
    copied: list[Path] = []
    arriving = Lake.stage_file

    def noted(self: Lake, file: Path) -> AbstractContextManager[StagedFile]:
        copied.append(file)
        return arriving(self, file)

    monkeypatch.setattr(Lake, "stage_file", noted)
    return copied


def taken_by(branch: Branch, file: Path) -> dict[str, Any]:
    """Return what is in the lake and the ledger once a deployment has taken what is landed."""
    branch.drop_all()
    lines = file.read_text().splitlines()
    lines[700] = lines[700].replace("USD", "Q")
    day = datetime(2024, 7, 3, tzinfo=UTC)
    branch.drop("large.csv", "\r\n".join([*lines, ""]), day)
    branch.drop("marked.csv", b"\xef\xbb\xbf" + "\n".join(lines[:800]).encode(), day + timedelta(days=1))
    branch.drop("western.csv", "\n".join([*lines[:-1], lines[-1].replace("00", "é", 1)]).encode("cp1252"), day)
    branch.drop("again.csv", "\r\n".join([*lines, ""]), day + timedelta(days=2))
    branch.drop("empty.csv", b" \n", day)
    taken = branch.intake.take(branch.intake.pending())
    ledger = branch.intake.ledger.files()
    lines_of_files = branch.rows(VENDOR_FILES)
    for line in lines_of_files:
        # How sure the detection is, each block says by itself.
        del line["detection_score"], line["runner_up"]
    return {
        "taken": taken,
        "ledger": [(row.identity, row.status, row.attempts, row.reason) for row in ledger],
        "kept": branch.kept(),
        "files": lines_of_files,
        **{
            one.path: branch.lake.read(one).table.to_pylist()
            for one in (VENDOR_ROWS, QUARANTINED_ROWS, QUARANTINED_FILES)
        },
        "left over": branch.left_over(),
    }


def test_a_large_file_is_replayed_from_where_it_is_kept(branch: Branch, large: list[Path], tmp_path: Path) -> None:
    write_large_csv(tmp_path / "large.csv", 60, 24)
    branch.drop("large.csv", (tmp_path / "large.csv").read_text(), datetime(2024, 7, 3, tzinfo=UTC))
    branch.intake.take(branch.intake.pending())
    before = branch.lake.read(VENDOR_ROWS).table
    (line,) = branch.rows(VENDOR_FILES)
    whole = FileBytes.__getitem__
    asked: list[int] = []

    def noted(self: FileBytes, part: slice) -> bytes:
        asked.append(len(whole(self, part)))
        return whole(self, part)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(FileBytes, "__getitem__", noted)
        (taken,) = branch.intake.replay([line["file_sha256"]])
    assert (taken.action, taken.rows) == (line["action"], line["row_count"])
    assert asked
    # From now on it is known; what it says is the same.
    after = branch.lake.read(VENDOR_ROWS).table
    assert after.drop_columns(["received_ts_utc"]).equals(before.drop_columns(["received_ts_utc"]))
    assert branch.rows(VENDOR_FILES)[0]["received_ts_utc"] > line["received_ts_utc"]


def test_files_are_taken_alike_from_the_copy_in_the_lake(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_large_csv(tmp_path / "large.csv", 60, 24)
    monkeypatch.setattr(intake_module, "ROW_GROUP_ROWS", 400)
    monkeypatch.setattr(reader, "LARGE_ROWS", 400)
    monkeypatch.setattr(encoding, "ROW_GROUP_ROWS", 400)
    whole = taken_by(Branch(tmp_path / "whole"), tmp_path / "large.csv")
    copied = request.getfixturevalue("large")
    monkeypatch.setattr(layouts, "THREADED_TEXT_BYTES", 0)
    monkeypatch.setattr(blocks, "BLOCK_BYTES", 1 << 14)
    branch = Branch(tmp_path / "blocks")
    found = taken_by(branch, tmp_path / "large.csv")
    assert found == whole
    assert sorted(copied) == sorted(path for path in branch.landing.rglob("*") if path.is_file())
    actions = {taken.key: taken.action for taken in found["taken"]}
    assert actions["again.csv"] == "skip_duplicate"
    assert actions["empty.csv"] == "quarantine_file"
    assert {actions["large.csv"], actions["western.csv"]} == {"accept_with_warnings"}
    assert len(found["kept"]) == len(actions) - 1
    assert len(found[VENDOR_ROWS.path]) > 3000
    assert found[QUARANTINED_ROWS.path]
    assert {hashlib.sha256(data).hexdigest() for data in found["kept"].values()} == {
        name.rpartition("/")[2] for name in found["kept"]
    }
    assert found["left over"] == []


def test_a_large_file_that_is_gone_before_it_is_copied_holds_up_nothing(branch: Branch, large: list[Path]) -> None:
    gone = branch.drop("a_gone.csv", JANUARY.replace("A", "X"))
    branch.drop("b_good.csv", JANUARY)
    pending = branch.intake.pending()
    gone.unlink()
    failed, good = branch.intake.take(pending)
    assert (failed.key, failed.action) == ("a_gone.csv", "failed")
    assert failed.reason == f"LakeError: {gone} cannot be copied into {branch.lake.root}: No such file or directory"
    assert (good.key, good.action, good.rows) == ("b_good.csv", "accept", 4)
    (noted,) = branch.intake.ledger.files(FileStatus.FAILED)
    assert (noted.identity.key, noted.reason) == ("a_gone.csv", failed.reason)
    assert [row["landing_key"] for row in branch.rows(VENDOR_FILES)] == ["b_good.csv"]
    assert branch.left_over() == []
    # It comes again, and is taken.
    branch.drop("a_gone.csv", JANUARY.replace("A", "X"))
    assert [taken.action for taken in branch.intake.take(branch.intake.pending())] == ["accept"]


def test_a_large_file_that_its_vendor_changes_meanwhile_is_kept_and_read_as_it_was_copied(
    branch: Branch, large: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = branch.drop("january.csv", JANUARY)
    read = reader.read_vendor_file

    def slow(*arguments: Any, **named: Any) -> FileReading:
        path.write_text(JANUARY.replace("A1", "X1")[:-20])
        return read(*arguments, **named)

    monkeypatch.setattr(reader, "read_vendor_file", slow)
    (taken,) = branch.intake.take(branch.intake.pending())
    assert (taken.action, taken.rows) == ("accept", 4)
    assert {row["account_id"] for row in branch.rows(VENDOR_ROWS)} == {"A1", "A2"}
    assert list(branch.kept().values()) == [JANUARY.encode()]


def test_a_large_file_on_which_the_reader_breaks_is_kept_and_leaves_no_copy(
    branch: Branch, large: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    branch.drop("january.csv", JANUARY)

    def broken(*_: Any, **__: Any) -> FileReading:
        raise OSError("the disk is on fire")

    with monkeypatch.context() as patch:
        patch.setattr(reader, "read_vendor_file", broken)
        (taken,) = branch.intake.take(branch.intake.pending())
    assert (taken.action, taken.reason) == ("failed", "OSError: the disk is on fire")
    assert (list(branch.kept().values()), branch.left_over()) == ([JANUARY.encode()], [])
    (taken,) = branch.intake.take(branch.intake.pending())
    assert (taken.action, taken.rows) == ("accept", 4)


def test_the_same_bytes_of_a_large_file_are_skipped(branch: Branch, large: list[Path]) -> None:
    branch.drop("january.csv", JANUARY)
    branch.intake.take(branch.intake.pending())
    before = branch.bytes() | branch.kept()
    branch.drop("copy of january.csv", JANUARY, RECEIVED + timedelta(days=1))
    (taken,) = branch.intake.take(branch.intake.pending())
    assert (taken.action, taken.reason) == ("skip_duplicate", "the same bytes as january.csv")
    assert branch.bytes() | branch.kept() == before
    assert branch.left_over() == []
    assert [path.name for path in large] == ["january.csv", "copy of january.csv"]


def test_a_file_without_rows_holds_up_nothing(branch: Branch) -> None:
    branch.drop("first.csv", csv())
    branch.run()
    (line,) = branch.rows(VENDOR_FILES)
    assert (line["action"], line["warnings"], line["row_count"]) == ("accept_with_warnings", "no_data_rows", 0)
    branch.drop("second.csv", JANUARY, RECEIVED + timedelta(days=1))
    branch.run()
    assert len(branch.rows(PERFORMANCE_HISTORY)) == 4
    assert branch.intake.unknown_to_history() == []


def test_a_first_delivery_is_kept_once(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    (raw,), (known,) = (
        sorted((Path(branch.lake.root) / contract.path).iterdir()) for contract in (VENDOR_ROWS, PERFORMANCE_HISTORY)
    )
    assert raw.samefile(known)
    # A correction is a file of its own, and the history's first file stays what it was.
    branch.drop("again.csv", JANUARY.replace("1121.20", "1121.30"), RECEIVED + timedelta(days=1))
    branch.run()
    assert [row["version"] for row in branch.rows(PERFORMANCE_HISTORY)] == [1, 1, 2, 1, 1]
    assert raw.samefile(known)


def test_a_broken_contract_is_named_and_no_file_pays_for_it(branch: Branch) -> None:
    folder = branch.settings.home / "vendors"
    folder.mkdir()
    (folder / "north.yaml").write_text("vendor: north\ntiming: noon\n")
    branch.drop("january.csv", JANUARY)
    for _ in range(4):
        assert not branch.run(raise_on_error=False).success
    assert branch.intake.ledger.files(FileStatus.FAILED) == []
    for command in (("vendors", "list"), ("vendors", "inspect", str(branch.landing / "january.csv"))):
        code, said = branch.command(*command)
        assert code == 2
        assert re.search(r"north\.yaml is no contract of a vendor: timing: Input should be 'sod'", said), said
    (folder / "north.yaml").write_text("vendor: [unclosed\n")
    assert "north.yaml is no contract of a vendor: while parsing" in branch.command("vendors", "list")[1]
    (folder / "north.yaml").unlink()
    branch.intake = build_intake(branch.settings)
    branch.run()
    assert len(branch.rows(VENDOR_ROWS)) == 4


def test_a_narrow_screen_loses_no_letter(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    branch.drop("again.csv", JANUARY.replace("1121.20", "1121.30"), RECEIVED + timedelta(days=1))
    branch.run()
    said = []
    for width in ("300", "60"):
        environment = {"FINANCE_ASSETS_HOME": str(branch.settings.home), "COLUMNS": width}
        arguments = ["restatements", "--between", "2013-02-05", "2013-02-05"]
        output = CliRunner().invoke(cli.app, arguments, prog_name="finance-assets", env=environment).output
        said.append(sorted(re.sub(r"[\s─]", "", output)))
    assert said[0] == said[1]
    assert len(said[0]) > 100


def test_as_of_a_day_leaves_out_what_came_with_the_next(branch: Branch) -> None:
    branch.drop("january.csv", JANUARY)
    branch.run()
    branch.drop("again.csv", JANUARY.replace("1121.20", "1121.30"), datetime(2013, 2, 6, tzinfo=UTC))
    branch.run()
    assert "R = (1121.2 - " in branch.command("explain", "A1", "2013-01", "--as-of", "2013-02-05")[1]
    assert "R = (1121.3 - " in branch.command("explain", "A1", "2013-01", "--as-of", "2013-02-06")[1]


# -- when flows are timed otherwise ------------------------------------------------------------------------------------


def _north(branch: Branch, timing: object) -> None:
    folder = branch.settings.home / "vendors"
    folder.mkdir(exist_ok=True)
    names = ["account_id", "period_end", "currency", "beginning_market_value", "contributions", "distributions"]
    contract = {
        "vendor": "north",
        "detect": {"required_headers": ["account_id", "northern"]},
        "columns": dict(zip(names, names, strict=True)) | {"northern": "ending_market_value"},
        "timing": timing,
    }
    (folder / "north.yaml").write_text(json.dumps(contract))
    branch.intake = build_intake(branch.settings)


def _four_months(accounts: int, ending: str) -> str:
    """Four months of accounts with a flow in each, which in some accounts is from 8 % to 10 % of the value before."""
    header = f"account_id,period_end,currency,beginning_market_value,contributions,distributions,{ending}"
    lines = [header]
    for account in range(accounts):
        value = Decimal(1000 + account)
        for end, flow in (("2012-10-31", 40), ("2012-11-30", 95), ("2012-12-31", 95), ("2013-01-31", 20)):
            after = value + flow + Decimal("12.34")
            lines.append(f"{ending[0].upper()}{account},{end},USD,{value},{flow}.00,0.00,{after}")
            value = after
    return "\n".join(lines) + "\n"


def test_a_timing_recomputes_the_rows_that_it_holds_for_and_no_others(
    branch: Branch, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among rows of a vendor who declares nothing, in files so large that text is written as dictionaries."""
    _north(branch, "mid")
    branch.drop("north.csv", _four_months(SMALL_FILE_ROWS + 100, "northern"))
    branch.drop("other.csv", _four_months(3, "ending_market_value"))
    branch.run()
    october, november, december, january = (f"{month}-01" for month in ("2012-10", "2012-11", "2012-12", "2013-01"))

    def compute() -> tuple[tuple[str, ...], dict[str, bytes], dict[tuple[Any, ...], dict[str, Any]]]:
        months = results.write_performance(branch.lake, branch.intake.contracts).months
        files = {path.stem: path.read_bytes() for path in Path(branch.lake.folder(ACCOUNT_PERFORMANCE)).iterdir()}
        return (
            months,
            files,
            {tuple(r[k] for k in ACCOUNT_PERFORMANCE.key): r for r in branch.rows(ACCOUNT_PERFORMANCE)},
        )

    def applied() -> dict[str, set[tuple[str, str]]]:
        found: dict[str, set[tuple[str, str]]] = {}
        for row in rows.values():
            if row["vendor"] == "north":
                found.setdefault(str(row["period_month"]), set()).add((row["timing"], row["policy_version"]))
        return found

    months, files, rows = compute()
    assert months == ()
    assert applied() == {month: {("mid", "north-1")} for month in (october, november, december, january)}
    assert len({row["vendor"] for row in rows.values()}) == 2

    # A first day at the end of December: the month before stays, to the byte.
    mid, eod = {"timing": "mid"}, {"since": "2012-12-31", "timing": "eod", "large_flow_threshold": "0.08"}
    _north(branch, [mid, eod])
    before_files, before = files, rows
    months, files, rows = compute()
    assert months == (december, january)
    assert {month for month in files if files[month] != before_files[month]} == {december, january}
    changed = {key for key in rows if rows[key] != before[key]}
    assert changed == {k for k, r in rows.items() if r["vendor"] == "north" and r["period_end"] >= date(2012, 12, 31)}
    early, late = {("mid", "north-1")}, {("eod", "north-1@2012-12-31")}
    assert applied() == {october: early, november: early, december: late, january: late}
    for row in rows.values():
        is_eod = row["policy_version"] == "north-1@2012-12-31"
        assert row["return_net_computed"] == row["return_eod" if is_eod else "return_mid"]
        threshold = Decimal("0.08" if is_eod else "0.10")
        assert row["is_large_flow"] == (row["net_flow"] >= threshold * row["beginning_market_value"])
    assert any(row["is_large_flow"] for row in rows.values())
    assert compute()[0] == ()

    # Without an open beginning those before take the default, which times them alike: they change by its name only.
    _north(branch, [eod])
    before = rows
    months, files, rows = compute()
    assert months == (october, november)
    assert applied()[november] == {("mid", "default-1")}
    assert all(row | {"policy_version": ""} == before[key] | {"policy_version": ""} for key, row in rows.items()), (
        "the months after them too"
    )

    # What is taken back gives what was before, also where the table is computed piece by piece.
    _north(branch, "mid")
    monkeypatch.setattr(results, "ROWS_IN_MEMORY", 1_000)
    monkeypatch.setattr(results, "ROWS_AT_ONCE", 1_500)
    months, files, rows = compute()
    assert months == (october, november, december, january)
    assert files == before_files


def test_people_are_told_which_timing_holds_since_when(branch: Branch) -> None:
    _north(branch, "mid")
    branch.drop("north.csv", _four_months(1, "northern"))
    branch.run()
    _north(branch, [{"since": "2012-12-31", "timing": "eod", "large_flow_threshold": "0.08"}])
    code, said = branch.command("explain", "N0", "2012-12")
    assert code == 1
    assert "Policy north-1@2012-12-31: eod, since 2012-12-31" in said
    assert "The table was computed under another one: finance-assets materialize" in said
    results.write_performance(branch.lake, branch.intake.contracts)
    code, said = branch.command("explain", "N0", "2012-12")
    assert code == 0
    assert "Flow timing: eod (the vendor's timing policy; policy north-1@2012-12-31)" in said
    assert (
        "Policy north-1@2012-12-31: eod, since 2012-12-31 (by the end of the period); "
        "a net flow is large from 8 % of the beginning value\n" in said
    )
    code, said = branch.command("explain", "N0", "2012-11")
    assert code == 0
    assert "Flow timing: mid (the platform's default; policy default-1)" in said
    assert "Policy default-1: mid, the default because north declares a timing only since 2012-12-31" in said
    code, said = branch.command("vendors", "list")
    assert code == 0
    assert re.search(r"north\s+version 1\s+default before 2012-12-31", said)
    assert "eod since 2012-12-31, large flows from 8 %" in said
    sheet = branch.settings.home / "sheet.yaml"
    sheet.write_text("vendor: north\ntiming: [{timing: mid}, {timing: eod}]\n")
    code, said = branch.command("vendors", "inspect", str(branch.landing / "north.csv"), "--contracts", str(sheet))
    assert code == 2
    assert re.search(r"sheet\.yaml is no contract of a vendor: timing: entry 2 has no since: .*\. Mend it", said)


# -- what is missing ---------------------------------------------------------------------------------------------------


def months(account: str, value: str, *ends: str) -> list[str]:
    """Rows without flows or results."""
    return [f"{account},{end},USD,{value},0.00,0.00,{value},0.00" for end in ends]


ENDS = ("2012-10-31", "2012-11-30", "2012-12-31", "2013-01-31")


def test_an_account_that_went_missing_is_explained_where_it_has_no_row(branch: Branch) -> None:
    stays = months("A1", "700.00", *ENDS)
    gone = months("A2", "500.00", *ENDS[:2])
    came = months("A9", "500.00", *ENDS[2:])
    branch.drop("all.csv", csv(*stays, *gone, *came))
    branch.run()
    (vendor,) = {row["vendor"] for row in branch.rows(ACCOUNT_PERFORMANCE)}
    code, said = branch.command("explain", "A2", "2012-12")
    assert code == 1, "there is no return that could be computed again"
    assert said.splitlines() == [
        f"{vendor} account A2: no monthly row from the period ended 2012-12-31 on",
        "MISSING (open): Last seen in the period ended 2012-11-30, with a value of USD 500.00. Account A9 of "
        f"{vendor} appears for the first time in the period ended 2012-12-31, and no other new one begins with this "
        "value.",
        "Hypothesis: renamed_account. One new account of the vendor, and no other, begins with the value this one "
        "ended with.",
        "Found in the data known at 2013-02-04 08:00 UTC, 0 days old.",
        f"What to do: Ask {vendor} whether the two are one account, and explain the new one by its name; their "
        "returns are not linked.",
        said.splitlines()[5],
        "That file landed as all.csv.",
    ]
    assert re.match(
        r"The last row before it is of the period ended 2012-11-30: file [0-9a-f]{64} line 7, ", said.splitlines()[5]
    )
    # It stays missing for as long as the vendor goes on to state others, and was not missing before.
    assert branch.command("explain", "A2", "2013-01")[1] == said
    assert branch.command("explain", "A2", "2012-11")[0] == 0
    assert "MISSING" not in branch.command("explain", "A2", "2012-11")[1]
    code, said = branch.command("explain", "A2", "2013-02")
    assert (code, "nothing is known of account 'A2'" in said) == (1, True)
    # A quarter shows what is there and what is not.
    code, said = branch.command("explain", "A2", "2012-Q4")
    assert code == 0
    assert said.count("Recomputing gives the same number.") == 2
    assert said.count("no monthly row from the period ended 2012-12-31 on") == 1


def test_a_delivery_that_did_not_come_is_explained(branch: Branch) -> None:
    branch.drop("one.csv", csv(*months("A1", "700.00", *ENDS[:2]), *months("A2", "500.00", *ENDS[:2])))
    branch.drop("two.csv", csv(*months("B1", "30.00", *ENDS), *months("B2", "40.00", *ENDS)))
    branch.run()
    code, said = branch.command("explain", "A2", "2012-12")
    assert code == 1
    assert "Hypothesis: whole_delivery." in said
    assert "What to do: See whether it came and was left out (finance-assets vendors quarantine); otherwise" in said
    assert "That file landed as one.csv." in said
    code, said = branch.command("explain", "A2", "2012-12", "--as-of", "2013-02-04")
    assert (code, said.strip()) == (
        1,
        "error: nothing was known of account 'A2' from 2012-12-01 to 2012-12-31 at 2013-02-04 23:59 UTC",
    )
    code, said = branch.command("explain", "nobody", "2012-12")
    assert (code, "nothing is known of account 'nobody'" in said) == (1, True)
    # It comes after all.
    late = csv(*months("A1", "700.00", *ENDS[2:]), *months("A2", "500.00", *ENDS[2:]))
    branch.drop("late.csv", late, RECEIVED + timedelta(days=3))
    branch.run()
    code, said = branch.command("explain", "A2", "2012-12")
    assert code == 0
    assert "no monthly row" not in said
    assert "MISSING (resolved)" in said


def test_a_gap_is_explained_where_it_begins(branch: Branch) -> None:
    around = (ENDS[0], ENDS[3])
    branch.drop("all.csv", csv(*months("A1", "700.00", *around), *months("A2", "500.00", *around)))
    branch.run()
    for period in ("2012-11", "2012-12", "2012-11-30"):
        code, said = branch.command("explain", "A2", period)
        assert code == 1
        assert (
            "account A2: no monthly row of 2012-11-01 to 2012-12-31, before that of the period ended 2013-01-31" in said
        )
        assert "GAP (open): 61 days before 2013-01-01 have no row." in said
        assert "Hypothesis: missing_file." in said
        assert "to send the delivery again." in said
    # Beside its row it is said once.
    code, said = branch.command("explain", "A2", "2013-01")
    assert (code, said.count("GAP")) == (0, 1)
    assert "GAP" not in branch.command("explain", "A2", "2012-10")[1]


def test_a_period_that_only_the_records_of_the_house_have_is_explained(branch: Branch) -> None:
    folder = branch.settings.home / "vendors"
    folder.mkdir()
    books = {"vendor": "books", "version": 1, "detect": {"required_headers": ["book_value"]}}
    books["columns"] = {"book_value": "ending_market_value"}
    (folder / "books.yaml").write_text(json.dumps(books))
    branch.intake = build_intake(branch.settings)
    branch.definitions = build_definitions(branch.settings)
    branch.drop("vendor.csv", csv(*months("A1", "700.00", *ENDS), *months("A2", "500.00", *ENDS[1:])))
    own = csv(*months("A1", "700.00", *ENDS), *months("A2", "500.00", *ENDS))
    branch.drop("own.csv", own.replace("ending_market_value", "book_value"))
    branch.run()
    assert {row["vendor"] for row in branch.rows(ACCOUNT_PERFORMANCE)} > {"books"}
    code, said = branch.command("explain", "A2", "2012-10")
    assert code == 0, "the row of the records can be computed again"
    assert "books account A2, monthly period" in said
    assert "account A2: no monthly row of the period ended 2012-10-31, which the existing records have" in said
    assert "MISSING_IN_VENDOR (open): The existing records have an ending value of 500.00 USD." in said
    assert "Hypothesis: none is proved by the rows around it." in said
    assert "for the period, or correct the records." in said
    assert "The last row before it" not in said
    assert "MISSING_IN_VENDOR" not in branch.command("explain", "A2", "2012-11")[1]
