"""Files outside the package that it needs at run time: the dbt project and the template of ``dagster.yaml``.

In a checkout they are at their place beside the package. A wheel carries copies of them (see ``setup.py``).
"""

from importlib import resources
from pathlib import Path

#: Folder of the copies in an installed package.
INSTALLED_FOLDER = "_project"


def find_project_path(relative: str) -> Path:
    """Return the path of a file or folder of the project, such as ``dbt_project``.

    Raises
    ------
    FileNotFoundError
        Neither the installed package nor the checkout has it.
    """
    package = _package_folder()
    for root in (package / INSTALLED_FOLDER, package.parent):
        path = root / relative
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is missing from the installation of finance-assets; install it again")


def find_checkout() -> Path | None:
    """Return the root of the checkout from which the package runs; None if it runs from an installed wheel."""
    package = _package_folder()
    if (package / INSTALLED_FOLDER).exists() or not (package.parent / "pyproject.toml").exists():
        return None
    return package.parent


def _package_folder() -> Path:
    return Path(str(resources.files("finance_assets")))
