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
    package = Path(str(resources.files("finance_assets")))
    for root in (package / INSTALLED_FOLDER, package.parent):
        path = root / relative
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is missing from the installation of finance-assets; install it again")


def is_checkout() -> bool:
    """Return whether the package runs from a checkout, not from an installed wheel."""
    package = Path(str(resources.files("finance_assets")))
    return not (package / INSTALLED_FOLDER).exists() and (package.parent / "pyproject.toml").exists()
