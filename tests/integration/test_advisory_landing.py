"""A landing zone with every kind of bad entry, and faults of the machine: nothing is held up, nothing is abandoned."""

from __future__ import annotations

import ast
import errno
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from fixtures.landing_zone import put_bad_entries, put_odd_names
from fixtures.quotes import fake_settings
from typer.testing import CliRunner

from finance_assets.advisory import results
from finance_assets.advisory.intake import MODIFIED_BEFORE_1970, MODIFIED_IN_FUTURE, Intake, IntakeError
from finance_assets.advisory.reading import reader
from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.sensors import vendor_files_sensor
from finance_assets.cli import app as cli
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    PERFORMANCE_HISTORY,
    QUARANTINED_FILES,
    RAW_TABLES,
    VENDOR_FILES,
    VENDOR_ROWS,
)
from finance_assets.contracts.model import Contract, ContractError
from finance_assets.registry import build_definitions
from finance_assets.storage.lake import Lake
from finance_assets.storage.landing import Landing
from finance_assets.storage.ledger import FileStatus, Ledger

RECEIVED = datetime(2013, 2, 4, 8, tzinfo=UTC)
HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"
GOOD = f"""{HEADER}
A1,2012-12-31,USD,1000.00,0.00,0.00,1010.00,0.01
A1,2013-01-31,USD,1010.00,100.00,0.00,1121.20,0.0106603774
A2,2012-12-31,USD,500.00,0.00,0.00,495.00,-0.01
A2,2013-01-31,USD,495.00,0.00,0.00,499.95,0.01
"""


class Zone:
    """A deployment, its landing zone, and a clock that a test moves."""

    def __init__(self, home: Path) -> None:
        self.settings = fake_settings(home)
        self.intake: Intake = build_intake(self.settings)
        self.now: datetime | None = None
        self.intake.clock = lambda: self.now or datetime.now(UTC)
        self.paused: list[float] = []
        self.intake.pause = self.paused.append
        self.definitions = build_definitions(self.settings, resource_overrides={"intake": self.intake})
        self.folder = Path(self.settings.landing)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.instance = dg.DagsterInstance.ephemeral(tempdir=str(home))

    @property
    def ledger(self) -> Ledger:
        return self.intake.ledger

    def drop(self, name: str, data: str = GOOD, received: float = RECEIVED.timestamp()) -> Path:
        path = self.folder / name
        path.write_text(data)
        os.utime(path, (received, received))
        return path

    def drop_many(self, count: int) -> None:
        for number in range(count):
            self.drop(f"f{number:02}.csv", GOOD.replace("A", f"N{number}"), RECEIVED.timestamp() + number)

    def run(self) -> dg.ExecuteInProcessResult:
        return self.definitions.resolve_job_def("advisory_performance").execute_in_process(
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            raise_on_error=False,
        )

    def tick(self) -> dg.RunRequest | dg.SkipReason:
        answer = vendor_files_sensor(dg.build_sensor_context(instance=self.instance, resources={"intake": self.intake}))
        assert isinstance(answer, dg.RunRequest | dg.SkipReason)
        return answer

    def take(self) -> dict[str, str]:
        return {one.key: one.action for one in self.intake.take(self.intake.pending())}

    def rows(self, contract: Contract) -> list[dict[str, Any]]:
        return self.intake.lake.read(contract).table.to_pylist()

    def reasons(self) -> dict[str, str]:
        return {row["landing_key"]: row["reason"] for row in self.rows(QUARANTINED_FILES)}

    def loaded(self) -> set[str]:
        return {row["landing_key"] for row in self.rows(VENDOR_FILES)}

    def bytes(self) -> dict[str, bytes]:
        root = Path(self.intake.lake.root)
        tables = [root / contract.path for contract in (*RAW_TABLES, PERFORMANCE_HISTORY, ACCOUNT_PERFORMANCE)]
        return {str(path.relative_to(root)): path.read_bytes() for one in tables for path in sorted(one.glob("*"))}

    def command(self, *arguments: str) -> tuple[int, str]:
        environment = {"FINANCE_ASSETS_HOME": str(self.settings.home), "COLUMNS": "400"}
        result = CliRunner().invoke(cli.app, list(arguments), prog_name="finance-assets", env=environment)
        return result.exit_code, result.output


@pytest.fixture
def zone(tmp_path: Path) -> Iterator[Zone]:
    made = Zone(tmp_path / "home")
    yield made
    made.ledger.close()
    made.instance.dispose()


# -- entries that are no files -----------------------------------------------------------------------------------------


def test_every_entry_is_judged_by_itself(zone: Zone, tmp_path: Path) -> None:
    zone.drop("good.csv")
    bad = put_bad_entries(zone.folder, tmp_path / "outside")
    assert isinstance(zone.tick(), dg.RunRequest)
    result = zone.run()
    assert result.success
    assert all(check.passed for check in result.get_asset_check_evaluations())
    assert zone.loaded() == {"good.csv"}
    assert len(zone.rows(ACCOUNT_PERFORMANCE)) == 4
    assert {key: reason.partition(":")[0] for key, reason in zone.reasons().items()} == bad
    assert zone.ledger.files(FileStatus.FAILED) == []
    assert zone.reasons()["loop.csv"] == "symbolic_link: it leads to itself"
    assert zone.reasons()["dangling.csv"] == "symbolic_link: what it leads to is not there"
    assert zone.reasons()["leads out.csv"] == "symbolic_link: it leads out of the landing zone"

    # A second look and a second run do nothing.
    assert isinstance(zone.tick(), dg.SkipReason)
    before = zone.bytes()
    assert zone.run().success
    assert zone.bytes() == before

    code, output = zone.command("vendors", "quarantine")
    assert code == 1
    assert all(key in output for key in bad if len(key) < 100)
    assert "put the file itself in its place" in output

    # What is mended is read, and leaves the list.
    (zone.folder / "pipe.csv").unlink()
    zone.drop("pipe.csv", GOOD.replace("A", "B"))
    (zone.folder / "loop.csv").unlink()
    assert isinstance(zone.tick(), dg.RunRequest)
    assert zone.run().success
    assert zone.loaded() == {"good.csv", "pipe.csv"}
    assert set(zone.reasons()) == set(bad) - {"pipe.csv", "loop.csv"}


def test_odd_names_are_names(zone: Zone) -> None:
    names = put_odd_names(zone.folder, GOOD.encode())
    for name in names:
        os.utime(zone.folder / name, (RECEIVED.timestamp(), RECEIVED.timestamp()))
    result = zone.run()
    assert result.success
    assert zone.loaded() == set(names)
    assert zone.reasons() == {}
    assert isinstance(zone.tick(), dg.SkipReason)


def test_what_is_swapped_for_a_pipe_since_it_was_listed_is_not_waited_for(zone: Zone) -> None:
    path = zone.drop("a.csv")
    zone.drop("b.csv", GOOD.replace("A", "B"))
    pending = zone.intake.pending()
    path.unlink()
    os.mkfifo(path)
    taken = {one.key: one for one in zone.intake.take(pending)}
    assert (taken["a.csv"].action, taken["b.csv"].action) == ("failed", "accept")
    assert "is no file any more" in str(taken["a.csv"].reason)
    assert set(zone.reasons()) == {"a.csv"}
    assert zone.intake.pending() == []


def test_a_file_that_changes_while_it_is_read_is_another_file(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    path = zone.drop("a.csv")
    read = Landing.read

    def growing(self: Landing, key: str) -> bytes:
        data = read(self, key)
        with path.open("a") as file:
            file.write("A3,2013-01-31,USD,495.00,0.00,0.00,499.95,0.01\n")
        return data

    pending = zone.intake.pending()
    with monkeypatch.context() as patched:
        patched.setattr(Landing, "read", growing)
        (taken,) = zone.intake.take(pending)
    assert taken.action == "changed"
    assert (zone.loaded(), zone.ledger.files()) == (set(), [])
    os.utime(path, (RECEIVED.timestamp() + 9, RECEIVED.timestamp() + 9))
    assert zone.take() == {"a.csv": "accept"}
    assert len(zone.rows(VENDOR_ROWS)) == 5


@pytest.mark.parametrize(
    ("modified", "warning"),
    [
        (16_725_225_600, MODIFIED_IN_FUTURE),
        (2**34 - 1, MODIFIED_IN_FUTURE),
        (0, MODIFIED_BEFORE_1970),
        (-86_400, MODIFIED_BEFORE_1970),
        (-(2**31), MODIFIED_BEFORE_1970),
    ],
)
def test_a_time_that_says_nothing_is_told_and_holds_nothing_up(zone: Zone, modified: int, warning: str) -> None:
    zone.drop("a.csv", received=modified)
    begun = datetime.now(UTC)
    result = zone.run()
    assert result.success
    (line,) = zone.rows(VENDOR_FILES)
    assert (line["action"], line["warnings"]) == ("accept_with_warnings", warning)
    assert begun <= line["received_ts_utc"] <= datetime.now(UTC)
    # It was written just now, so that a second look was needed where its own time says nothing.
    assert zone.paused == ([5.0] if warning == MODIFIED_IN_FUTURE else [])
    assert zone.intake.pending() == []


def test_a_file_of_the_future_is_read_after_two_looks(zone: Zone) -> None:
    zone.drop("a.csv", received=datetime(2100, 1, 1, tzinfo=UTC).timestamp())
    zone.now = RECEIVED
    assert zone.intake.pending() == []
    zone.now += timedelta(seconds=4)
    assert zone.intake.pending() == []
    zone.now += timedelta(seconds=1)
    assert [file.identity.key for file in zone.intake.pending()] == ["a.csv"]
    # One that is still being written is not.
    zone.drop("a.csv", GOOD + "\n", received=datetime(2100, 1, 2, tzinfo=UTC).timestamp())
    assert zone.intake.pending() == []


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_read(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("closed", "open"):
        (zone.folder / name).mkdir()
        zone.drop(f"{name}/a.csv", GOOD.replace("A", name.upper()))
    opened = os.open

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if path == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert zone.run().success
        assert zone.loaded() == {"open/a.csv"}
        assert zone.reasons() == {"closed/": "folder_cannot_be_listed: Permission denied"}
        assert isinstance(zone.tick(), dg.SkipReason)
    assert isinstance(zone.tick(), dg.RunRequest)
    zone.run()
    assert (zone.loaded(), zone.reasons()) == ({"open/a.csv", "closed/a.csv"}, {})


# -- many files --------------------------------------------------------------------------------------------------------


def drop_months(zone: Zone, count: int) -> None:
    """Drop files of the same accounts and months, some of which say something new."""
    for number in range(count):
        # Every file speaks of the facts of all the others.
        data = GOOD.replace("495.00,-0.01", f"{490 + number % 7}.00,-0.01").replace("A2", f"A{number % 5}")
        zone.drop(f"f{number:03}.csv", f"{data}\n" + "\n" * (number % 50), RECEIVED.timestamp() + number)


def test_small_files_are_added_together_with_the_same_outcome(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    drop_months(zone, 60)
    zone.take()
    other = Zone(zone.settings.home / "other")
    drop_months(other, 60)
    other.take()
    history = results.History(zone.intake.lake)
    singly = [(line["file_sha256"], history.add(line)) for line in zone.intake.unknown_to_history()]
    # In several lots, some of one file.
    monkeypatch.setattr(results, "ROWS_TOGETHER", 50)
    together = results.History(other.intake.lake).add_all(other.intake.unknown_to_history())
    assert [(line["file_sha256"], versions) for line, versions in together] == singly
    assert 10 < sum(versions > 0 for _, versions in singly) < 60
    assert other.bytes() == zone.bytes()
    assert other.intake.unknown_to_history() == []
    other.ledger.close()
    other.instance.dispose()


def test_what_a_file_costs_does_not_depend_on_how_many_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sqlalchemy as sa

    counts: Counter[str] = Counter()

    def counted(owner: Any, name: str) -> None:
        real = getattr(owner, name)

        def call(*arguments: Any, **named: Any) -> Any:
            counts[name] += 1
            return real(*arguments, **named)

        monkeypatch.setattr(owner, name, call)

    for owner, name in (
        (Lake, "_list_files"), (Lake, "get"), (Lake, "put"), (Lake, "share"), (os, "fsync"), (os, "open"),
        (results, "versions_of_files"), (results, "new_versions"),
    ):  # fmt: skip
        counted(owner, name)
    costs = []
    for files in (40, 80, 160):
        made = Zone(tmp_path / str(files))
        drop_months(made, files)

        def statement(*_: object) -> None:
            counts["statements"] += 1

        sa.event.listen(made.ledger._engine, "before_cursor_execute", statement)
        counts.clear()
        made.take()
        for _ in results.History(made.intake.lake).add_all(made.intake.unknown_to_history()):
            pass
        results.write_performance(made.intake.lake, made.intake.contracts)
        costs.append(Counter(counts))
        made.ledger.close()
        made.instance.dispose()
    for name in counts:
        first, second = costs[1][name] - costs[0][name], costs[2][name] - costs[1][name]
        assert second <= 2 * first + 6, (name, costs)
    assert costs[2]["statements"] < 30
    assert costs[2]["_listing"] < 60
    assert costs[2]["versions_of_files"] + costs[2]["new_versions"] == 1


# -- faults of our own -------------------------------------------------------------------------------------------------

FAULTS: dict[str, Callable[[], Exception]] = {
    "no space": lambda: OSError(errno.ENOSPC, "No space left on device"),
    "quota": lambda: OSError(errno.EDQUOT, "Disk quota exceeded"),
    "read-only": lambda: OSError(errno.EROFS, "Read-only file system"),
    "too many files": lambda: OSError(errno.EMFILE, "Too many open files"),
    "disk": lambda: OSError(errno.EIO, "Input/output error"),
    "memory": lambda: MemoryError("no room"),
    "arrow's memory": lambda: pa.lib.ArrowMemoryError("malloc of size 5 failed"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_the_lake_is_charged_to_no_file(zone: Zone, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    zone.drop_many(12)
    met: list[str] = []

    def broken(self: Lake, *_: Any, **__: Any) -> int:
        met.append(name)
        raise FAULTS[name]()

    zone.now = datetime.now(UTC)
    with monkeypatch.context() as patched:
        patched.setattr(Lake, "write", broken)
        for _ in range(5):
            met.clear()
            result = zone.run()
            assert not result.success
            assert len(met) <= 2, "the next file would meet the same"
            zone.now += timedelta(hours=2)
    failed = zone.ledger.files(FileStatus.FAILED)
    assert 2 <= len(failed) <= 12
    assert {record.attempts for record in failed} == {0}
    assert zone.intake.given_up() == []
    assert len(zone.intake.waiting()) == len(failed)
    assert zone.run().success
    assert len(zone.loaded()) == 12
    assert len(zone.rows(ACCOUNT_PERFORMANCE)) == 48
    assert zone.intake.waiting() == []
    assert zone.reasons() == {}


@pytest.mark.parametrize("name", ["no space", "memory"])
def test_a_fault_while_reading_is_charged_to_no_file(zone: Zone, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    zone.drop_many(4)

    def broken(*_: Any, **__: Any) -> Any:
        raise FAULTS[name]()

    with monkeypatch.context() as patched:
        # Deep in the reader, which answers other errors with a verdict.
        patched.setattr(reader, "_read", broken)
        assert list(zone.take().values()) == ["failed"] * 2
    assert [record.attempts for record in zone.ledger.files(FileStatus.FAILED)] == [0, 0]
    assert set(zone.take().values()) == {"accept"}


def test_a_file_that_cannot_be_opened_waits_ever_longer_and_the_others_do_not(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.drop_many(3)
    opened = os.open
    asked: list[str] = []

    def refuse(path: Any, *arguments: Any, **named: Any) -> int:
        if str(path).endswith("f00.csv"):
            asked.append(str(path))
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, *arguments, **named)

    start = zone.now = datetime.now(UTC)
    with monkeypatch.context() as patched:
        patched.setattr(os, "open", refuse)
        assert not zone.run().success
        assert zone.loaded() == {"f01.csv", "f02.csv"}
        assert zone.reasons() == {
            "f00.csv": f"cannot_be_read: LakeError: f00.csv in {zone.folder} cannot be read: Permission denied"
        }
        times = []
        for second in range(0, 5 * 3600, 10):
            zone.now = start + timedelta(seconds=second)
            if zone.intake.pending():
                times.append(second)
                zone.take()
        pauses = [later - earlier for earlier, later in zip(times, times[1:], strict=False)]
        assert pauses[:5] == [30, 60, 120, 240, 480]
        assert max(pauses) == pauses[-1] == 3600
        assert len(asked) == 1 + len(times)
        (record,) = zone.intake.waiting()
        assert (record.attempts, record.faults) == (0, 1 + len(times))
        assert zone.intake.retry_after() == record.retry_ts_utc
        # What the run that failed has left behind is carried on, without the file that waits.
        assert isinstance(zone.tick(), dg.RunRequest)
        assert zone.run().success
        assert "1 files wait until" in str(zone.tick().skip_message)  # type: ignore[union-attr]
        code, output = zone.command("vendors", "quarantine")
        assert (code, "Permission denied" in output, "will be retried after" in output) == (1, True, True)
    zone.now += timedelta(hours=1)
    assert isinstance(zone.tick(), dg.RunRequest)
    assert zone.run().success
    assert len(zone.loaded()) == 3
    assert zone.reasons() == {}


def test_a_ledger_that_cannot_be_told_costs_nothing(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    import sqlalchemy as sa

    zone.drop_many(5)
    whole = Zone(zone.settings.home / "whole")
    whole.drop_many(5)
    assert whole.run().success

    def locked(*_: Any, **__: Any) -> None:
        raise sa.exc.OperationalError("insert", {}, sqlite3.OperationalError("database is locked"))

    with monkeypatch.context() as patched:
        patched.setattr(Ledger, "record_all", locked)
        with pytest.raises(IntakeError, match=r"\d files were read, but the ledger could not be updated .*locked"):
            zone.intake.take(zone.intake.pending())
        assert not zone.run().success
    assert zone.ledger.files() == []
    assert zone.run().success
    assert {record.reason for record in zone.ledger.files()} == {None}
    assert zone.bytes() == whole.bytes()
    whole.ledger.close()
    whole.instance.dispose()


def test_what_the_reader_fails_on_is_given_up_in_sight_of_all_and_can_be_tried_again(
    zone: Zone, monkeypatch: pytest.MonkeyPatch
) -> None:
    zone.drop_many(3)
    read = reader.read_vendor_file

    def broken(data: Any, name: str, **named: Any) -> Any:
        if name == "f01.csv":
            raise ZeroDivisionError("account 900-12-3456")
        return read(data, name, **named)

    with monkeypatch.context() as patched:
        patched.setattr(reader, "read_vendor_file", broken)
        for _ in range(3):
            assert isinstance(zone.tick(), dg.RunRequest)
            assert not zone.run().success
        # What the runs that failed have left behind is carried on, without the file that was given up.
        assert isinstance(zone.tick(), dg.RunRequest)
        result = zone.run()
        assert result.success
        assert isinstance(zone.tick(), dg.SkipReason)
    assert zone.loaded() == {"f00.csv", "f02.csv"}
    failed = [check for check in result.get_asset_check_evaluations() if not check.passed]
    assert [(check.check_name, check.severity) for check in failed] == [
        ("no_file_given_up", dg.AssetCheckSeverity.ERROR)
    ]
    assert "f01.csv" in str(failed[0].description)
    (row,) = zone.rows(QUARANTINED_FILES)
    assert re.fullmatch(r"reader failed: ZeroDivisionError in finance_assets\.\S+, line \d+", row["reason"])
    assert "900-12-3456" not in repr(zone.ledger.files()) + repr(zone.rows(QUARANTINED_FILES))
    code, output = zone.command("vendors", "quarantine")
    assert (code, "reader failed: ZeroDivisionError" in output) == (1, True)
    code, output = zone.command("vendors", "retry", row["file_sha256"][:10])
    assert (code, "f01.csv: will be read again" in output) == (0, True)
    assert isinstance(zone.tick(), dg.RunRequest)
    assert zone.run().success
    assert len(zone.loaded()) == 3
    assert zone.command("vendors", "quarantine")[0] == 0


def test_rows_that_do_not_fit_count_as_the_readers_failure(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> None:
    zone.drop("a.csv")

    write = Lake.write

    def refuse(self: Lake, contract: Contract, *arguments: Any, **named: Any) -> int:
        if contract == VENDOR_ROWS:
            raise ContractError("raw/vendor_rows.fees: 900-12-3456 does not fit")
        return write(self, contract, *arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(Lake, "write", refuse)
        for _ in range(3):
            assert zone.take() == {"a.csv": "failed"}
    assert "900-12-3456" not in repr(zone.rows(QUARANTINED_FILES))
    (record,) = zone.intake.given_up()
    assert record.attempts == 3
    assert zone.command("vendors", "replay", zone.intake.digests_to_retry()[0][:8])[0] == 0
    assert zone.take() == {"a.csv": "accept"}


def test_a_file_that_ends_whatever_reads_it_holds_up_nobody(zone: Zone, tmp_path: Path) -> None:
    """As a file on which a library crashes, or for which there is not enough memory: here, a name in a patched Python."""
    zone.drop_many(3)
    zone.drop("deadly.csv", received=RECEIVED.timestamp() - 1)  # the first in order
    patches = tmp_path / "patches"
    patches.mkdir()
    (patches / "sitecustomize.py").write_text(
        "import os, signal, finance_assets.advisory.reading.reader as reader\n"
        "read = reader.read_vendor_file\n"
        "def deadly(data, name, **given):\n"
        "    if name == 'deadly.csv':\n"
        "        os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return read(data, name, **given)\n"
        "reader.read_vendor_file = deadly\n"
    )
    script = (
        "import sys\nfrom pathlib import Path\nfrom fixtures.quotes import fake_settings\n"
        "from finance_assets.advisory.resources import build_intake\n"
        "intake = build_intake(fake_settings(Path(sys.argv[1])))\n"
        "print({one.key: one.action for one in intake.take(intake.pending())})\n"
    )

    def take() -> subprocess.CompletedProcess[str]:
        tests = Path(__file__).resolve().parents[1]
        return subprocess.run(
            [sys.executable, "-c", script, str(zone.settings.home)],
            env={**os.environ, "PYTHONPATH": f"{patches}{os.pathsep}{tests}"},
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )

    assert [take().returncode for _ in range(2)] == [-signal.SIGSEGV] * 2
    done = take()
    assert done.returncode == 0, done.stderr
    assert ast.literal_eval(done.stdout) == {
        "deadly.csv": "failed", "f00.csv": "accept", "f01.csv": "accept", "f02.csv": "accept",
    }  # fmt: skip
    (waiting,) = zone.intake.waiting()
    assert (waiting.attempts, waiting.faults) == (0, 1)
    assert waiting.reason is not None
    assert "reading it ended the process (SIGSEGV)" in waiting.reason
    assert "SIGSEGV" in zone.reasons()["deadly.csv"]
    # Once the library is mended it is read like any other.
    zone.now = datetime.now(UTC) + timedelta(hours=2)
    assert zone.take() == {"deadly.csv": "accept"}
    assert zone.ledger.reading() == set()
