"""What loading the definitions costs and touches: little time, no socket, no file but code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

#: Loads the definitions under an audit hook, and prints what was opened and connected to.
PROBE = """
import json, sys, time
opened, sockets = [], []
def hook(event, arguments):
    if event == "open" and arguments[0] is not None:
        opened.append(str(arguments[0]))
    elif event.startswith("socket.") and event not in ("socket.__new__", "socket.gethostname"):
        sockets.append(event)
    elif event == "sqlite3.connect" or (event == "subprocess.Popen" and arguments[0] != "file"):
        # "file" is asked by Python's own platform.architecture(), for a package.
        opened.append(f"{event} {arguments[0]}")
sys.addaudithook(hook)
started = time.process_time()
import finance_assets.definitions
seconds = time.process_time() - started
heavy = [name for name in ("dbt", "dagster_dbt", "duckdb", "boto3", "talib", "scipy", "plotly", "yfinance", "skfolio",
                           "bokeh_sampledata", "httpx", "curl_cffi") if name in sys.modules]
print(json.dumps({"opened": opened, "sockets": sockets, "seconds": seconds, "heavy": heavy}))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """Load the definitions in a fresh process, three times; the fastest counts, in seconds of processor time."""
    home = tmp_path_factory.mktemp("home")
    environment = {
        "PATH": os.environ["PATH"],
        "FINANCE_ASSETS_HOME": str(home / "never_made"),
        "HOME": str(home),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    results = []
    for _ in range(3):
        out = subprocess.run(
            [sys.executable, "-c", PROBE], env=environment, cwd=home, capture_output=True, text=True, check=True
        )
        results.append(json.loads(out.stdout.splitlines()[-1]))
    assert not (home / "never_made").exists()
    return min(results, key=lambda result: result["seconds"])


def test_no_socket_is_opened(loaded: dict[str, object]) -> None:
    assert loaded["sockets"] == []


def test_no_file_but_code_is_opened(loaded: dict[str, object]) -> None:
    """Python's own files, the packages and this package are code; anything else would be data."""
    code = [
        Path(path).resolve()
        for path in {sys.prefix, sys.base_prefix, sysconfig.get_path("purelib"), sysconfig.get_path("stdlib")}
    ]
    package = Path(__file__).resolve().parents[2] / "finance_assets"
    system = (Path("/usr/share/zoneinfo"), Path("/etc"), Path("/proc"), Path("/dev"), Path("/sys"))
    opened = loaded["opened"]
    assert isinstance(opened, list)
    strangers = [
        path
        for path in opened
        if not path.isdigit()
        and not path.endswith("__path_hook__")
        and not any(Path(path).resolve().is_relative_to(root) for root in (*code, *system))
        and not (Path(path).resolve().is_relative_to(package) and Path(path).suffix in (".py", ".pyc"))
        and not path.endswith((".py", ".pyc", ".so", ".pth"))
    ]
    assert strangers == []


def test_heavy_libraries_wait_until_they_are_used(loaded: dict[str, object]) -> None:
    assert loaded["heavy"] == []


def test_definitions_load_in_under_four_seconds(loaded: dict[str, object]) -> None:
    assert isinstance(loaded["seconds"], float)
    assert loaded["seconds"] < 4.0


def test_no_warning_is_printed() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import finance_assets.definitions"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert "Warning" not in done.stderr
