"""The wheel: built from a copy of the checkout, installed elsewhere, and run without the checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("finance_assets", "dbt_project", "deploy")
FILES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md")
BUILD = "import sys; from setuptools import build_meta; print(getattr(build_meta, sys.argv[1])(sys.argv[2]))"


def build(source: Path, kind: str, target: Path) -> Path:
    """Build a wheel or an sdist of a folder, without network."""
    target.mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)],
        cwd=source,
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
    )
    return target / done.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that was built from an sdist of a copy; neither of both folders is left."""
    folder = tmp_path_factory.mktemp("wheel")
    copy = folder / "copy"
    copy.mkdir()
    ignored = shutil.ignore_patterns("__pycache__", "target", "logs")
    for name in SOURCES:
        shutil.copytree(ROOT / name, copy / name, ignore=ignored)
    for name in FILES:
        shutil.copyfile(ROOT / name, copy / name)
    archive = build(copy, "sdist", folder / "sdist")
    shutil.unpack_archive(archive, folder / "unpacked", filter="data")
    built = build(next((folder / "unpacked").iterdir()), "wheel", folder / "dist")
    shutil.rmtree(copy)
    shutil.rmtree(folder / "unpacked")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with the wheel; it finds the dependencies in the environment of the tests."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(home)], check=True, timeout=120)
    pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(pip, check=True, timeout=120)
    packages = next((home / "lib").glob("python*")) / "site-packages"
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    dbt = home / "bin" / "dbt"
    dbt.write_text(f"#!{home}/bin/python\nfrom dbt.cli.main import cli\n\ncli()\n")
    dbt.chmod(0o755)
    return home


def run(environment: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command of the environment in a folder of its own."""
    inherited = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FINANCE_ASSETS_", "DAGSTER_", "PYTHON"))
    }
    return subprocess.run(
        [str(environment / "bin" / command[0]), *command[1:]],
        cwd=folder,
        env=inherited | {"HOME": str(folder), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=500,
        check=False,
    )


def test_the_wheel_has_the_project_files_and_nothing_generated(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    in_checkout = {
        f"finance_assets/_project/{path.relative_to(ROOT)}"
        for path in (ROOT / "dbt_project").rglob("*")
        if path.is_file() and path.suffix in (".sql", ".yml") and not {"target", "logs"} & set(path.parts)
    }
    assert len(in_checkout) > 30
    assert in_checkout <= set(names)
    assert "finance_assets/_project/deploy/local/dagster.yaml" in names
    assert not [name for name in names if "target/" in name or "logs/" in name or "__pycache__" in name]
    assert not [name for name in names if name.startswith("tests/")]


def test_the_demo_runs_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    where = run(environment, tmp_path, "python", "-c", "import finance_assets; print(finance_assets.__file__)")
    assert where.stdout.startswith(str(environment)), where.stdout + where.stderr
    done = run(environment, tmp_path, "finance-assets", "demo", "--from", "2013-02-20", "--to", "2013-03-01")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "dagster dev -m finance_assets.definitions" in done.stdout
    assert (tmp_path / ".finance_assets" / "lake" / "published" / "ticker_documents" / "AAPL.json").exists()
    assert (tmp_path / ".finance_assets" / "dagster" / "dagster.yaml").exists()
    refused = run(environment, tmp_path, "finance-assets", "contracts", "write")
    assert refused.returncode == 2
    assert "installed package" in refused.stderr
