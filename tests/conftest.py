"""What every test gets: a clean environment and settings whose home is a folder of the test's own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

#: Fixtures that several tests share; each module says what it starts.
pytest_plugins = [
    "fixtures.aws",
    "fixtures.browser",
    "fixtures.dagster_dev",
    "fixtures.faults",
    "fixtures.postgres",
    "fixtures.writer_process",
]

ROOT = Path(__file__).resolve().parents[1]
#: Variables of the person's shell that must not reach a test.
PREFIXES = ("FINANCE_ASSETS_", "DAGSTER_", "AWS_", "DBT_")


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith(PREFIXES):
            monkeypatch.delenv(name)
    monkeypatch.setenv("FINANCE_ASSETS_HOME", str(tmp_path / "home"))
    # A console of a known width, so that what is printed does not depend on who runs the tests.
    monkeypatch.setenv("COLUMNS", "120")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what the fault tests injected and what became of it."""
    from fixtures.faults import lines_of

    reports = [report for group in ("passed", "failed") for report in terminalreporter.stats.get(group, [])]
    lines = lines_of(report for report in reports if report.when == "call")
    if lines:
        terminalreporter.section("injected faults")
        for line in lines:
            terminalreporter.write_line(line)
