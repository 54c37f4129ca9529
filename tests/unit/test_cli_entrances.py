"""What a person names on the command line, or puts into a folder, and is no file: one line, at once, and status 2."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from finance_assets.cli.app import app

pytestmark = pytest.mark.timeout(5, func_only=True)
GOOD = "Account ID,Period End,Beginning MV,Ending MV,Net Flow,Return %\nA1,2013-01-31,100.00,101.00,0.00,1.00\n"


def _sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 50 << 30)


FAULTS: dict[str, tuple[Callable[[Path], None], str]] = {
    "pipe": (os.mkfifo, "it is a named pipe; name a file"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "it is a device; name a file"),
    "sparse": (_sparse, "is a sparse file: 0 of its 53,687,091,200 bytes"),
    "dangling": (lambda path: path.symlink_to("gone"), "a symbolic link to a file that is not there"),
}
ENTRANCES = {
    "inspect": ("vendors", "inspect", "BAD"),
    "contracts": ("vendors", "inspect", "good.csv", "--contracts", "BAD"),
    "propose": ("vendors", "propose", "BAD"),
    "classify": ("transactions", "classify", "BAD", "out.jsonl"),
    "replay": ("transactions", "replay", "BAD"),
}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    # Imported before the time of a test runs.
    import finance_assets.advisory.reading.proposing
    import finance_assets.registry
    import finance_assets.runs.execute  # noqa: F401

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FINANCE_ASSETS_HOME", str(tmp_path / "home"))
    Path("good.csv").write_text(GOOD)
    return tmp_path / "home"


def run(*arguments: str, status: int) -> tuple[str, str]:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.stdout, done.stderr


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_what_is_no_file_is_reported_in_one_line(entrance: str, fault: str) -> None:
    make, said = FAULTS[fault]
    make(Path("bad.file"))
    _, error = run(*(part.replace("BAD", "bad.file") for part in ENTRANCES[entrance]), status=2)
    if (entrance, fault) != ("propose", "dangling"):
        # The parser itself refuses what is not there.
        (line,) = error.splitlines()
        assert "bad.file" in line
        assert said in line
    assert not Path("out.jsonl").exists()


def test_a_file_that_is_too_large_is_reported_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("finance_assets.advisory.reading.inspection.MAX_INSPECTED_BYTES", 10)
    for command in ("inspect", "propose"):
        assert "is too large" in run("vendors", command, "good.csv", status=2)[1]
    Path("folder").mkdir()
    Path("good.csv").rename("folder/good.csv")
    assert "good.csv is not read: too_large" in run("vendors", "inspect", "folder", status=1)[0]


@pytest.mark.parametrize("output", ["screen", "json"])
def test_a_folder_is_judged_as_the_landing_zone_is(output: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "ok.csv").write_text(GOOD)
    (folder / ".hidden").write_text("x")
    for name, (make, _) in FAULTS.items():
        make(folder / f"{name}.csv")
    (folder / "out.csv").symlink_to(tmp_path / "good.csv")
    (folder / "line\nend.csv").symlink_to(tmp_path / "good.csv")
    arguments = ("--json", "-") if output == "json" else ()
    out, error = run("vendors", "inspect", "folder", *arguments, status=1)
    told = (error if output == "json" else out).splitlines()
    for line in (
        "pipe.csv is not read: not_a_file: it is a named pipe",
        "device.csv is not read: symbolic_link: it leads out of the landing zone",
        "sparse.csv is not read: sparse_file: 0 of its 53,687,091,200 bytes are on the disk",
        "dangling.csv is not read: symbolic_link: what it leads to is not there",
        "out.csv is not read: symbolic_link: it leads out of the landing zone",
        "line\\x0aend.csv is not read: symbolic_link: it leads out of the landing zone",
    ):
        assert any(each.startswith(line) for each in told), line
    assert "ok.csv" in out
    assert "hidden" not in out + error


def test_a_link_that_is_named_is_followed() -> None:
    Path("link.csv").symlink_to("good.csv")
    done = CliRunner().invoke(app, ["vendors", "inspect", "link.csv"])
    assert done.exit_code in (0, 1)
    assert "link.csv" in done.output


@pytest.mark.parametrize("fault", [*FAULTS, "folder"])
def test_what_is_no_file_among_the_contracts_is_reported_in_one_line(fault: str, home: Path) -> None:
    make, said = {**FAULTS, "folder": (Path.mkdir, "it is a folder")}[fault]
    (home / "vendors").mkdir(parents=True)
    make(home / "vendors" / "p.yaml")
    (line,) = run("vendors", "inspect", "good.csv", status=2)[1].splitlines()
    assert "vendors/p.yaml" in line
    assert said in line
    assert "Take it out of the folder of contracts" in line
