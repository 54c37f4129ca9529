"""A vendor's file full of attacks goes its whole way, and nothing of it is shown raw anywhere."""

from __future__ import annotations

import io
import json
import logging
import os
import unicodedata
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from fixtures.quotes import fake_settings
from markdown_it import MarkdownIt
from typer.testing import CliRunner

from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.sensors import vendor_files_sensor
from finance_assets.cli import app as cli
from finance_assets.contracts.advisory import PERFORMANCE_HISTORY, QUARANTINED_FILES, QUARANTINED_ROWS
from finance_assets.registry import build_definitions
from finance_assets.runs.execute import run_missing
from finance_assets.storage.ledger import Ledger
from finance_assets.terminal_output import console
from finance_assets.text import escape_name, unescape_name
from finance_assets.transactions.queue import Queue

ATTACK = "\x1b]0;x\x07\x1b[31mev\nil\u202e\u2066\u200b\x9b"
MARKUP = "[red]`x`](http://evil.example)<img src=x>"
RECEIVED = datetime(2013, 2, 4, 8, tzinfo=UTC)
HEADER = "account_id,period_end,currency,beginning_market_value,contributions,distributions,ending_market_value,return"
ACCOUNT = f"A-1{ATTACK}[bold]"


def row(account: str, start: int) -> str:
    return f'"{account}",2013-01-31,USD,{start}.00,0.00,0.00,{start * 1.01:.2f},0.01'


def table(*accounts: str, header: str = HEADER) -> str:
    return "\n".join([header, *(row(account, 1000 + 100 * n) for n, account in enumerate(accounts))]) + "\n"


def raw(text: str) -> set[str]:
    """Return what must not be there; lines of our own end with a line feed."""
    bad = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return {repr(letter) for letter in text if unicodedata.category(letter) in bad and letter != "\n"} | {
        repr(line) for line in text.splitlines() if line.startswith("il")
    }


@pytest.fixture
def home(tmp_path: Path) -> Path:
    settings = fake_settings(tmp_path)
    landing = Path(settings.landing)
    landing.mkdir(parents=True)
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr(f"member{ATTACK}.csv", table(ACCOUNT, "A-2", "A-3") + "A-4,2013-01-31\n")
    files = {
        f"good{ATTACK}.zip": zipped.getvalue(),
        f"bad{ATTACK}{MARKUP.replace('/', '')}.csv": f"no,header{ATTACK}\n1,2\n".encode(),
        f"headers{ATTACK}.csv": table("B-1", "B-2", header=f"{HEADER},note{ATTACK}").encode(),
        f"rows{ATTACK}.csv": table("C-1", f"C-2{ATTACK}", "C-3").replace("1100.00", f"what{ATTACK}").encode(),
    }
    for name, data in files.items():
        path = landing / name
        path.write_bytes(data)
        os.utime(path, (RECEIVED.timestamp(), RECEIVED.timestamp()))
    return tmp_path


def command(home: Path, *arguments: str) -> str:
    environment = {"FINANCE_ASSETS_HOME": str(home), "COLUMNS": "250", "DAGSTER_HOME": str(home / "dagster")}
    result = CliRunner().invoke(cli.app, list(arguments), prog_name="finance-assets", env=environment)
    assert result.exit_code in (0, 1), result.output
    return result.output


def told(event: dg.DagsterEvent) -> list[str]:
    """Return every text that a person reads of an event."""
    said = [event.message or ""]
    data: Any = event.event_specific_data
    made = getattr(data, "materialization", None)
    for holder in (made, data if hasattr(data, "check_name") else None):
        if holder is not None:
            said += [str(getattr(value, "value", value)) for value in holder.metadata.values()]
            said.append(getattr(holder, "description", None) or "")
    return said


def test_nothing_of_an_attack_is_shown_raw(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    settings = fake_settings(home)
    heard: list[str] = []

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record.getMessage())

    logger = logging.Logger("heard")
    logger.addHandler(Heard())
    definitions = build_definitions(settings)
    intake = build_intake(settings)
    with dg.DagsterInstance.ephemeral(tempdir=str(home)) as instance:
        ask = vendor_files_sensor(dg.build_sensor_context(instance=instance, resources={"intake": intake}))
        assert isinstance(ask, dg.RunRequest)
        repository = dg.Definitions(
            assets=definitions.assets,
            jobs=[dg.define_asset_job("all", selection=dg.AssetSelection.groups("advisory"))],
            asset_checks=definitions.asset_checks,
            resources=definitions.resources,
            executor=definitions.executor,
            loggers={"heard": dg.LoggerDefinition(lambda _: logger)},
        )
        result = repository.resolve_job_def("all").execute_in_process(
            instance=instance, run_config={"loggers": {"heard": {}}}
        )
    files, rows = (intake.lake.read(one).table.to_pylist() for one in (QUARANTINED_FILES, QUARANTINED_ROWS))
    assert [line for line in files if ATTACK in line["landing_key"]]
    assert {line["landing_key"].split("\x1b")[0] for line in rows} >= {"rows"}
    history = intake.lake.read(PERFORMANCE_HISTORY).table.to_pylist()
    assert ACCOUNT in {line["account_id"] for line in history}

    texts = [text for event in result.all_events for text in told(event)]
    assert any("\\x1b[31mev\\nil\\u202e" in text for text in texts)
    assert not set().union(*map(raw, [*texts, *heard]))
    assert any("good\\x1b" in text for text in heard)
    listed = {text for text in texts if text.startswith("- `")}
    assert listed
    for text in listed:
        parsed = [child for token in MarkdownIt("commonmark").parse(text) for child in token.children or ()]
        assert not {child.type for child in parsed} & {"link_open", "image", "html_inline"}
        assert f"bad{ATTACK}{MARKUP.replace('/', '')}.csv" in {unescape_name(child.content) for child in parsed}

    shown = {
        "quarantine": command(home, "vendors", "quarantine"),
        "list": command(home, "vendors", "list"),
        "status": command(home, "status"),
        "inspect": command(home, "vendors", "inspect", settings.landing),
        "replay": command(home, "vendors", "replay", files[0]["file_sha256"][:12]),
        "restatements": command(home, "restatements", "--between", "2013-01-01", "2013-12-31"),
        "json": command(home, "vendors", "inspect", settings.landing, "--json", "-"),
        # The account as a person copies it from a table.
        "explain": command(home, "explain", escape_name(ACCOUNT), "2013-01"),
        "unknown": command(home, "explain", f"Z{ATTACK}", "2013-01"),
    }
    for name, text in shown.items():
        assert not raw(text), name
    assert "bad\\x1b]0;x\\x07\\x1b[31mev\\nil\\u202e" in shown["quarantine"].replace("\n", "").replace(" ", "")
    assert "A-1\\x1b]0;x\\x07\\x1b[31mev\\nil\\u202e" in shown["explain"]
    assert f"good{ATTACK}.zip" in {Path(name).name for name in json.loads(shown["json"])}
    assert not raw("".join(capfd.readouterr()))


def test_the_log_of_a_terminal_run_has_no_forged_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(home / "dagster"))
    file = io.StringIO()
    outcome = run_missing(fake_settings(home), select='group:"advisory"', console=console(file=file, width=200))
    assert outcome is not None
    outcome.show(console(file=file, width=200))
    log = (home / "dagster" / "terminal-runs.log").read_text("utf-8")
    assert "good\\x1b" in log
    assert not raw(log)
    assert not raw(file.getvalue())


def test_a_proposed_contract_has_the_headers_as_they_are_and_shows_nothing_raw(tmp_path: Path) -> None:
    header = HEADER.replace("return", "net\u202e return\u200b")
    path = tmp_path / "new.csv"
    path.write_text(table("A-1", "A-2", "A-3", header=header), "utf-8")
    said = command(tmp_path, "vendors", "propose", str(path))
    assert not raw(said)
    assert "net\u202e return\u200b" in yaml.safe_load(said)["columns"]


def test_wrong_arguments_are_repeated_harmlessly(tmp_path: Path) -> None:
    for arguments in (
        [f"--{ATTACK}"],
        [f"x{ATTACK}"],
        ["explain", "a", f"b{ATTACK}"],
        ["vendors", "inspect", f"n{ATTACK}"],
    ):
        result = CliRunner().invoke(cli.app, arguments, env={"FINANCE_ASSETS_HOME": str(tmp_path), "COLUMNS": "250"})
        assert result.exit_code == 2
        assert not raw(result.output)


@pytest.mark.parametrize(
    "variables",
    [
        {"TRANSACTIONS_QUEUE_URL": "http://user:s3cr3tWORD1@127.0.0.1:9/000000000000/q"},
        {"TRANSACTIONS_QUEUE_URL": "http://127.0.0.1:9/000000000000/q?token=s3cr3tWORD1"},
        {"TRANSACTIONS_QUEUE_URL": "ftp://user:s3cr3tWORD1@127.0.0.1/q"},
        {"LEDGER_URL": "postgresql://user:s3cr3tWORD1@127.0.0.1:9/db"},
        {"LEDGER_URL": "mysql://user:s3cr3tWORD1@127.0.0.1:9/db"},
        {"S3_ENDPOINT_URL": "ftp://user:s3cr3tWORD1@127.0.0.1:9"},
    ],
)
def test_no_command_prints_the_secret_of_an_address(tmp_path: Path, variables: dict[str, str]) -> None:
    environment = {f"FINANCE_ASSETS_{name}": value for name, value in variables.items()}
    environment |= {"FINANCE_ASSETS_HOME": str(tmp_path), "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}
    for arguments in (
        ["transactions", "dlq", "list"],
        ["transactions", "produce", "--count", "1"],
        ["vendors", "list"],
    ):
        result = CliRunner().invoke(cli.app, arguments, env=environment)
        assert "s3cr3tWORD1" not in result.output
        assert "s3cr3tWORD1" not in str(result.exception)


def test_no_object_shows_the_secret_of_an_address(tmp_path: Path) -> None:
    url = "http://user:s3cr3tWORD1@127.0.0.1:9/000000000000/q"
    settings = fake_settings(tmp_path, transactions_queue_url=url, s3_endpoint_url=url, fred_url=url)
    queue = Queue(url, "us-east-1")
    for thing in (
        settings,
        queue,
        queue.address,
        queue.name,
        Ledger(url.replace("http", "postgresql"), settings.clock),
    ):
        assert "s3cr3tWORD1" not in repr(thing)
