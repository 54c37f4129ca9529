"""Everything that is generated from the contracts and committed: dbt's YAML and the data dictionary.

What belongs here: the list of generated files. A test holds each against its generator.
"""

from __future__ import annotations

from pathlib import Path

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.dbt import stale_dbt_yaml, write_dbt_yaml
from finance_assets.contracts.dictionary import data_dictionary

DICTIONARY = Path("docs") / "data_dictionary.md"


def write_files(root: Path) -> list[Path]:
    """Write every generated file below the repository's root; return them."""
    written = list(write_dbt_yaml(root / "dbt_project"))
    target = root / DICTIONARY
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(data_dictionary(CONTRACTS.values()), encoding="utf-8")
    return [*written, target]


def stale_files(root: Path) -> list[Path]:
    """Return the generated files that differ from what the contracts say."""
    stale = list(stale_dbt_yaml(root / "dbt_project"))
    target = root / DICTIONARY
    if not target.exists() or target.read_text(encoding="utf-8") != data_dictionary(CONTRACTS.values()):
        stale.append(target)
    return stale
