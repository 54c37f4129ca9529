"""The command as people type it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from fixtures.quotes import raw_table
from typer.testing import CliRunner

from finance_assets import demo, project_files
from finance_assets.cli import app as cli
from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.market import QUOTES_RAW
from finance_assets.runs import execute
from finance_assets.runs.results import RunOutcome
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

ROOT = Path(cli.__file__).resolve().parents[2]
COMMANDS = ["demo", "materialize", "status", "home", "contracts", "contracts show", "contracts write"]


class Answer:
    """What a command printed, without colours and line breaks, and its status."""

    def __init__(self, arguments: Sequence[str]) -> None:
        result = CliRunner().invoke(cli.app, list(arguments), prog_name="finance-assets")
        self.status = result.exit_code
        self.out, self.err = (re.sub(r"\x1b\[[0-9;]*m", "", stream) for stream in (result.stdout, result.stderr))
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception

    @property
    def error(self) -> str:
        """The one line on standard error."""
        (line,) = self.err.splitlines()
        return line


def answer(*arguments: str) -> Answer:
    return Answer(arguments)


# -- help --------------------------------------------------------------------------------------------------------------


def test_help_begins_with_where_to_begin() -> None:
    result = answer("--help")
    assert result.status == 0
    flat = " ".join(result.out.split())
    assert "Start with demo" in flat
    assert "FINANCE_ASSETS_" in flat
    for command in ("demo", "materialize", "status", "home", "contracts"):
        assert re.search(rf"│ {command} +[A-Z]", result.out), f"{command} says nothing of itself"
    assert "[bold]" not in result.out


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_and_every_option(command: str) -> None:
    for option in ("--help", "-h"):
        result = answer(*command.split(), option)
        assert result.status == 0
    assert "Usage: finance-assets" in result.out
    assert "[bold]" not in result.out
    for line in result.out.splitlines():
        match = re.match(r"│ (--[a-z]+)", line)
        if match is not None:
            assert len(re.sub(r"[│\s]|--?[a-z]+|[A-Z-]{3,}", "", line)) > 10, f"{match[1]} has no help: {line}"


def test_without_a_command_the_help_is_shown() -> None:
    result = answer()
    assert "Usage: finance-assets" in result.out + result.err


def test_help_needs_no_heavy_module() -> None:
    """It answers at once: Dagster, pandas and the calendar take seconds."""
    code = (
        "import sys\nfrom typer.testing import CliRunner\nfrom finance_assets.cli.app import app\n"
        "CliRunner().invoke(app, ['--help'])\n"
        "print([name for name in ('dagster', 'pandas', 'pyarrow', 'duckdb') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


# -- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [["status"], ["demo"], ["materialize"], ["home"]])
def test_a_wrong_setting_is_reported_in_one_line(command: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_PROFILE", "cloud")
    result = answer(*command)
    assert result.status == 2
    assert result.error.startswith("error: settings: FINANCE_ASSETS_PROFILE: Input should be 'local' or 'aws'")
    assert result.out == ""


@pytest.mark.parametrize(
    ("variable", "value", "words"),
    [
        ("FINANCE_ASSETS_MARKET_PROVIDERS", "sample,yahoo", "'sample' stands alone"),
        ("FINANCE_ASSETS_MARKET_START", "yesterday", "FINANCE_ASSETS_MARKET_START: "),
        ("FINANCE_ASSETS_MARKET_START", "2099-01-01", "FINANCE_ASSETS_MARKET_START=2099-01-01 is in the future"),
        ("FINANCE_ASSETS_HEAL_SESSIONS", "-1", "FINANCE_ASSETS_HEAL_SESSIONS: "),
        ("FINANCE_ASSETS_NOW", "2013-03-01", "FINANCE_ASSETS_NOW: "),
    ],
)
def test_the_line_names_the_variable(variable: str, value: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    result = answer("status")
    assert result.status == 2
    assert words in result.error


def test_a_secret_in_a_wrong_setting_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_PROFILE", "aws")
    monkeypatch.setenv("FINANCE_ASSETS_LEDGER_URL", "postgresql://user:T0PSECRET@host/db")
    monkeypatch.setenv("FINANCE_ASSETS_ALPHA_VANTAGE_API_KEY", "T0PSECRET")
    result = answer("status")
    assert result.status == 2
    assert "FINANCE_ASSETS_LAKE_URI" in result.error
    assert "T0PSECRET" not in result.out + result.err


def test_an_unknown_setting_is_named_and_the_likely_one_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_MARKET_STRAT", "2012-01-03")
    monkeypatch.setenv("FINANCE_ASSETS_DBT_SCRATCH", "/tmp")
    result = answer("home")
    assert result.status == 0
    assert result.error == (
        "warning: unknown setting FINANCE_ASSETS_MARKET_STRAT; did you mean FINANCE_ASSETS_MARKET_START?"
    )


# -- dates and selections ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["demo", "materialize"])
@pytest.mark.parametrize("option", ["--from", "--to"])
@pytest.mark.parametrize("day", ["yesterday", "2013-02-30", "01.03.2013", ""])
def test_a_wrong_date_is_told_with_an_example(command: str, option: str, day: str) -> None:
    result = answer(command, option, day)
    assert result.status == 2
    assert result.error == f"error: {option} takes a date such as 2013-03-01, not {day!r}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["materialize", "--select", 'group:"none"', "--to", "2013-03-01"], "names no asset"),
        (["materialize", "--select", "((", "--to", "2013-03-01"], "is not a valid asset selection"),
        (["materialize", "--from", "2013-03-02"], "there is no closed session between 2013-03-02 and 2013-03-01"),
        (["demo", "--from", "2012-05-02", "--to", "2012-05-01"], "the range ends before it begins"),
    ],
)
def test_what_cannot_be_run_is_refused_in_one_line(
    arguments: list[str], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_MARKET_START", "2013-02-25")
    result = answer(*arguments)
    assert result.status == 2
    assert result.error.startswith("error: ")
    assert words in result.error


# -- demo and materialize ----------------------------------------------------------------------------------------------


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the command asked for, instead of a run."""
    seen: dict[str, Any] = {"success": True}

    def run(settings: Settings, **asked: Any) -> RunOutcome | None:
        seen.update(asked)
        if seen.get("nothing"):
            return None
        return RunOutcome(settings, success=seen["success"], rows={"core/quotes": 12}, runs=["1"])

    monkeypatch.setattr(demo, "sample_queue", lambda settings, _: nullcontext(settings))
    monkeypatch.setattr(execute, "run_assets", run)
    monkeypatch.setattr(execute, "run_missing", run)
    return seen


def test_the_demo_runs_everything_and_says_what_to_try_next(made: dict[str, Any]) -> None:
    result = answer("demo", "--from", "2012-05-01")
    assert result.status == 0
    assert (str(made["first"]), made["last"], made.get("select", "*")) == ("2012-05-01", None, "*")
    assert "1 run succeeded" in result.out
    assert "Three things to try next" in result.out
    made["success"] = False
    assert answer("demo").status == 1


def test_the_demo_refuses_another_provider(monkeypatch: pytest.MonkeyPatch, made: dict[str, Any]) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_MARKET_PROVIDERS", "yahoo")
    result = answer("demo")
    assert result.status == 2
    assert "FINANCE_ASSETS_MARKET_PROVIDERS is yahoo" in result.error
    assert "materialize" in result.error
    assert "console" not in made


def test_the_demo_does_not_write_into_a_lake_of_live_quotes(made: dict[str, Any]) -> None:
    settings = Settings.from_env()
    Lake(settings.lake).write_partitions(QUOTES_RAW, raw_table(), ["2024-03-04"])
    result = answer("demo")
    assert result.status == 2
    assert "holds quotes up to 2024-03-04" in result.error
    assert "FINANCE_ASSETS_HOME" in result.error
    assert "console" not in made


def test_materialize_without_dates_makes_what_is_missing(made: dict[str, Any]) -> None:
    assert answer("materialize", "-s", 'group:"market"').status == 0
    assert made["select"] == 'group:"market"'
    assert "first" not in made
    made["success"] = False
    assert answer("materialize").status == 1
    made["nothing"] = True
    result = answer("materialize")
    assert result.status == 0
    assert "nothing to do" in result.out


def test_materialize_with_dates_makes_sessions_again(made: dict[str, Any]) -> None:
    assert answer("materialize", "--from", "2012-05-01", "--to", "2012-05-04").status == 0
    assert (str(made["first"]), str(made["last"]), made["select"]) == ("2012-05-01", "2012-05-04", "*")


@pytest.mark.parametrize("error", [OSError("no space left on device"), KeyboardInterrupt()])
def test_what_stops_a_run_is_reported_in_one_line(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(execute, "run_missing", run)
    result = answer("materialize")
    if isinstance(error, KeyboardInterrupt):
        assert result.status == 130
        assert "interrupted; finance-assets materialize continues" in result.error
    else:
        assert result.status == 2
        assert result.error == "error: OSError: no space left on device"


# -- status and home ---------------------------------------------------------------------------------------------------


def test_the_status_of_an_empty_lake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FINANCE_ASSETS_MARKET_START", "2013-02-25")
    result = answer("status")
    assert result.status == 1
    assert "No table has been built yet" in result.out
    assert "newest closed session 2013-03-01" in result.out
    for path in CONTRACTS:
        assert path in result.out


def test_home_is_made_ready_and_printed_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "here and there"))
    result = answer("home")
    assert result.status == 0
    assert result.out == f"{tmp_path}/here and there\n"
    assert (tmp_path / "here and there" / "dagster.yaml").exists()


# -- contracts ---------------------------------------------------------------------------------------------------------


def test_a_contract_is_shown_with_units() -> None:
    result = answer("contracts", "show", "core/ticker_kpis")
    assert result.status == 0
    flat = " ".join(result.out.split())
    assert "One ticker on one exchange session" in flat
    assert "fraction per year" in re.sub(r"[│|]", "", flat) or "per year" in flat


def test_all_contracts_are_listed() -> None:
    result = answer("contracts", "show")
    assert result.status == 0
    assert [line.split()[0] for line in result.out.splitlines() if "/" in line.split(" ")[0]] == list(CONTRACTS)


def test_an_unknown_table_is_refused_with_those_that_are_near() -> None:
    result = answer("contracts", "show", "core/quote")
    assert result.status == 2
    assert result.error.startswith("error: no table 'core/quote'; known: core/account_performance")


def test_generated_files_are_written_and_then_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(project_files, "find_checkout", lambda: tmp_path)
    (tmp_path / "dbt_project" / "models").mkdir(parents=True)
    result = answer("contracts", "write", "--check")
    assert result.status == 1
    assert "docs/data_dictionary.md" in result.error
    assert "run finance-assets contracts write" in result.error
    result = answer("contracts", "write")
    assert result.status == 0
    assert "wrote docs/data_dictionary.md" in result.out
    assert (tmp_path / "docs" / "data_dictionary.md").exists()
    result = answer("contracts", "write", "--check")
    assert result.status == 0
    assert result.out == "Everything generated from the contracts is up to date.\n"
    (tmp_path / "docs" / "data_dictionary.md").write_text("edited by hand")
    assert answer("contracts", "write", "--check").status == 1
