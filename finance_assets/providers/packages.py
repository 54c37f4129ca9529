"""Data that comes in installed packages, as the samples do."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def package_file(package: str, file: str) -> Path | None:
    """Find a file of an installed package without importing the package; None where either is not there."""
    from importlib.util import find_spec
    from pathlib import Path

    spec = find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder, file)
        if path.is_file():
            return path
    return None
