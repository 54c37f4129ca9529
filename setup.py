"""Copies the files outside the package that it needs at run time into the wheel; the rest is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
#: Where ``finance_assets.project_files`` looks for them in an installed package.
FOLDER = Path("finance_assets", "_project")


class BuildPython(build_py):
    """Build the package with the dbt project and the template of dagster.yaml in it."""

    def run(self):
        """Build the package, then add the files; an editable install finds them in the checkout."""
        super().run()
        if self.editable_mode:
            return
        target = Path(self.build_lib, FOLDER)
        shutil.rmtree(target, ignore_errors=True)
        ignored = shutil.ignore_patterns("target", "logs", "dbt_packages", ".user.yml", "__pycache__")
        shutil.copytree(ROOT / "dbt_project", target / "dbt_project", ignore=ignored)
        template = Path("deploy", "local", "dagster.yaml")
        (target / template).parent.mkdir(parents=True)
        shutil.copyfile(ROOT / template, target / template)


setup(cmdclass={"build_py": BuildPython})
