"""The data dictionary: every table and column in words, generated from the contracts.

What belongs here: the rendering of contracts as Markdown. After changing a contract, run
``make generate``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from finance_assets.contracts import CONTRACTS
from finance_assets.contracts.model import Column, Contract, Layer, Partitioning, Store

#: Where the dictionary is kept.
DICTIONARY_PATH = Path(__file__).resolve().parents[2] / "docs" / "data_dictionary.md"

_LAYERS = {
    Layer.RAW: "as received, with where it came from",
    Layer.CORE: "validated and typed; the truth between assets",
    Layer.STAGING: "one source each, renamed, in the warehouse",
    Layer.INTERMEDIATE: "steps towards a mart, in the warehouse",
    Layer.MART: "what analysts query, in the warehouse",
    Layer.PUBLISHED: "marts exported to the lake, for readers outside the pipeline",
}
_INTRODUCTION = """\
# Data dictionary

<!-- Generated from finance_assets.contracts. Do not edit: change the contract, then run
     make generate -->

Every table that the platform keeps: what one row is, where it comes from, and what each column means. Fractions are
fractions (0.05 is five percent), timestamps are UTC, dates are exchange sessions unless the column says otherwise.
What is undefined is null and never NaN, 0 or another stand-in; a column that ends in `_status` says why.
"""


def _anchor(contract: Contract) -> str:
    """Return the fragment that a Markdown renderer gives to the table's heading."""
    return contract.path.replace("/", "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")


def _bounds(column: Column) -> str:
    parts = []
    if column.minimum is not None:
        parts.append(f"{'>' if column.exclusive_minimum else '≥'} {column.minimum}")
    if column.maximum is not None:
        parts.append(f"≤ {column.maximum}")
    if column.allowed:
        parts.append(", ".join(f"`{value}`" for value in column.allowed))
    if column.references is not None:
        parts.append(f"in `{column.references}`")
    return "; ".join(parts)


def _columns(contract: Contract) -> list[str]:
    lines = [
        "| column | type | unit | null | legal values | meaning |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for column in contract.columns:
        name = f"**`{column.name}`**" if column.name in contract.key else f"`{column.name}`"
        cells = (
            name,
            column.sql_type,
            column.unit,
            "yes" if column.nullable else "no",
            _bounds(column),
            column.description,
        )
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def _kept(contract: Contract) -> str:
    if contract.store is Store.WAREHOUSE:
        by_dbt = ", built by dbt" if contract.is_built_by_dbt else ""
        return f"relation `{contract.layer}.{contract.name}` of the warehouse{by_dbt}"
    folder = f"folder `{contract.path}` of the lake"
    if contract.partitioning is Partitioning.SESSION:
        sparse = "; a session without rows has no file" if contract.sparse else ""
        return f"{folder}, one Parquet file per exchange session, by `{contract.partition_column}`{sparse}"
    if contract.partitioning is Partitioning.MONTH:
        return f"{folder}, one Parquet file per month, by `{contract.partition_column}`"
    if contract.partitioning is Partitioning.ARRIVAL:
        sparse = "; what arrived without such rows has no file" if contract.sparse else ""
        return f"{folder}, one Parquet file for each thing that arrived{sparse}"
    return f"{folder}, one Parquet file"


def _table(contract: Contract) -> str:
    facts = [
        f"- **One row**: {contract.grain}",
        f"- **Key**: {', '.join(f'`{name}`' for name in contract.key)}",
        f"- **Source**: {contract.source}",
        f"- **Kept in**: {_kept(contract)}",
        f"- **Owner**: {contract.owner}, group `{contract.group}`",
    ]
    if contract.inputs:
        facts.append(f"- **Reads**: {', '.join(f'`{path}`' for path in contract.inputs)}")
    parts = [f"### {contract.path}", "", contract.description, "", *facts, "", *_columns(contract)]
    if contract.rules:
        parts += ["", "Rules on every row (null counts as satisfied):", ""]
        parts += [f"- {rule.description} (`{rule.name}`: `{rule.expression}`)" for rule in contract.rules]
    return "\n".join(parts)


def data_dictionary(contracts: Iterable[Contract]) -> str:
    """Return the data dictionary as Markdown.

    Parameters
    ----------
    contracts
        The tables. They are listed by layer, in the order of the data's way, and in the given order within one.

    Returns
    -------
    str
        An overview, then per table its grain, description, source, key, place, columns and rules.
    """
    held = list(contracts)
    lines = [_INTRODUCTION]
    sections = []
    for layer in Layer:
        of_layer = [contract for contract in held if contract.layer is layer]
        if not of_layer:
            continue
        lines.append(f"- **{layer}**: {_LAYERS[layer]}")
        lines += [f"  - [{contract.name}](#{_anchor(contract)}): {contract.description}" for contract in of_layer]
        sections.append("\n\n".join([f"## {layer}", *(_table(contract) for contract in of_layer)]))
    return "\n".join(lines) + "\n\n" + "\n\n".join(sections) + "\n"


def write_data_dictionary(path: Path = DICTIONARY_PATH) -> bool:
    """Write the dictionary of all contracts where it differs from the file; say whether it did."""
    text = data_dictionary(CONTRACTS.values())
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return True


if __name__ == "__main__":
    sys.stdout.write(f"wrote {DICTIONARY_PATH}\n" if write_data_dictionary() else "the data dictionary is up to date\n")
