"""Two commands with Dagster instances of their own over one lake, as two people on one machine would start them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from finance_assets.advisory.generating import vendor_files
from finance_assets.contracts.advisory import CONTRACTS, PERFORMANCE_HISTORY
from finance_assets.contracts.model import Store
from finance_assets.reference.sample_period import SAMPLE_END
from finance_assets.storage.lake import Lake

COMMAND = (sys.executable, "-m", "finance_assets.cli", "materialize", "-s", 'group:"advisory"')


def drop_files(landing: Path) -> None:
    landing.mkdir(parents=True)
    for file in vendor_files(7, 12, 4, SAMPLE_END.replace(month=1, day=31)):
        path = landing / file.name
        path.write_bytes(file.data)
        os.utime(path, (file.received_at.timestamp(),) * 2)


def start(home: Path, instance: Path) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "FINANCE_ASSETS_HOME": str(home),
        "DAGSTER_HOME": str(instance),
        "COLUMNS": "200",
    }
    return subprocess.Popen(COMMAND, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def tables(home: Path) -> dict[str, bytes]:
    lake = home / "lake"
    return {
        str(path.relative_to(lake)): path.read_bytes()
        for contract in CONTRACTS
        if contract.store is Store.LAKE
        for path in (lake / contract.path).glob("*")
    }


def test_two_commands_at_once_leave_what_one_leaves(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for home in (alone, shared):
        drop_files(home / "landing")
    one = start(alone, tmp_path / "dagster-0")
    said, _ = one.communicate(timeout=240)
    assert one.returncode == 0, said
    both = [start(shared, tmp_path / f"dagster-{number}") for number in (1, 2)]
    outputs = [process.communicate(timeout=240)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert Lake(str(shared / "lake")).read(PERFORMANCE_HISTORY).table.num_rows > 20
    assert tables(shared) == tables(alone)
