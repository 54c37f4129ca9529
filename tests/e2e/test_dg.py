"""`dg check defs`, as a person types it in the working copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.dagster_dev import FOREIGN, ROOT

pytestmark = pytest.mark.slow


def test_dg_check_defs_loads_the_definitions_without_a_network(tmp_path: Path) -> None:
    dg = Path(sys.executable).parent / "dg"
    if not dg.exists():
        pytest.skip(f"{dg} is not installed; it comes with dagster-dg-cli")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    environment |= {"HOME": str(tmp_path), "FINANCE_ASSETS_HOME": str(tmp_path / "home")}
    # The definitions must load where nothing can be reached: in a network namespace that has not even a loopback.
    unshare = shutil.which("unshare")
    isolated = [unshare, "--map-root-user", "--net"] if unshare else []
    if isolated and subprocess.run([*isolated, "true"], capture_output=True, check=False).returncode != 0:
        isolated = []  # this machine allows no namespaces
    checked = subprocess.run(
        [*isolated, dg, "check", "defs"], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    printed = checked.stdout + checked.stderr
    assert checked.returncode == 0, printed
    assert "All definitions loaded successfully" in printed
    assert not (tmp_path / "home").exists(), "loading writes nothing"
