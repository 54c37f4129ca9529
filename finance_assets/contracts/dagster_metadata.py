"""Contracts as Dagster shows and enforces them: column metadata with units, and one blocking check per table.

What belongs here: the only part of the contracts that imports Dagster.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts.model import Contract, Partitioning, Store
from finance_assets.contracts.validation import SCHEMA_RULE, Violation, row_count, rule_expressions, violations
from finance_assets.reference.pools import WAREHOUSE as WAREHOUSE_POOL

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

    from finance_assets.storage.lake import LakeRead, LakeScan

CHECK_NAME = "honours_contract"
RANGE_START_TAG = "dagster/asset_partition_range_start"
RANGE_END_TAG = "dagster/asset_partition_range_end"
PARTITION_TAG = "dagster/partition"
#: Name of the rule that what the run wrote is there.
FILES_RULE = "every partition has a file"
#: Broken rules that a check's description spells out.
SHOWN = 10
_KINDS = {Store.LAKE: "parquet", Store.WAREHOUSE: "sql", Store.DOCUMENTS: "json"}


def column_schema(contract: Contract) -> dg.TableSchema:
    """Return the columns as Dagster's table schema; the unit opens each description."""
    return dg.TableSchema(
        columns=[
            dg.TableColumn(
                name=column.name,
                type=column.sql_type,
                description=f"[{column.unit}] {column.description}",
                constraints=dg.TableColumnConstraints(nullable=column.nullable),
                tags={"unit": _tag(column.unit)},
            )
            for column in contract.columns
        ]
    )


def _tag(unit: str) -> str:
    """Return a unit as a tag value, which takes only letters, digits and ``_ . -``, 63 at the most."""
    plain = (letter if (letter.isascii() and letter.isalnum()) or letter in "_.-" else "_" for letter in unit)
    return "".join(plain).strip("_.-")[:63].rstrip("_.-")


def asset_attributes(contract: Contract) -> dict[str, Any]:
    """Return what the contract says of an asset: key, group, owner, metadata; for ``dg.asset(**…)``.

    The description is the asset's own docstring; the contract's grain and source are metadata.
    """
    return {
        "key": dg.AssetKey(contract.asset_key),
        "group_name": contract.group,
        "owners": [contract.owner],
        "metadata": contract_metadata(contract),
        "kinds": {_KINDS[contract.store]},
    }


def contract_metadata(contract: Contract) -> dict[str, Any]:
    """Return the metadata that a contract puts on its asset."""
    return {
        "dagster/column_schema": column_schema(contract),
        "grain": contract.grain,
        "key": ", ".join(contract.key),
        "source": contract.source,
    }


def run_partitions(context: dg.AssetCheckExecutionContext) -> dict[str, str]:
    """Return the first and last partition that the run is about, or nothing where it is about the whole table."""
    tags = context.run.tags
    if RANGE_START_TAG in tags and RANGE_END_TAG in tags:
        return {"first": tags[RANGE_START_TAG], "last": tags[RANGE_END_TAG]}
    if PARTITION_TAG in tags:
        return {"first": tags[PARTITION_TAG], "last": tags[PARTITION_TAG]}
    return {}


def check_result(
    contract: Contract, table: "pa.Table | ds.Dataset", found: Sequence[Violation] = ()
) -> dg.AssetCheckResult:
    """Hold rows against the contract and say what breaks it.

    Parameters
    ----------
    contract
        The promise.
    table
        The rows.
    found
        What is already known to be wrong, such as a file that is missing.
    """
    broken = [*found, *violations(contract, table)]
    count = row_count(table)
    lines = [f"{v.rule}: broken {v.rows} times, first by {v.example}" for v in broken[:SHOWN]]
    if len(broken) > SHOWN:
        lines.append(f"and {len(broken) - SHOWN} more rules")
    return dagster_output.asset_check(
        passed=not broken,
        severity=dg.AssetCheckSeverity.ERROR,
        description="; ".join(lines) if lines else f"{count} rows honour the contract",
        metadata={
            "rows": count,
            # Beyond the rules on a row: the schema and the key.
            "rules": len(rule_expressions(contract)) + 2,
            "broken": [v.rule for v in broken],
        },
    )


def file_violations(contract: Contract, read: "LakeRead | LakeScan", span: dict[str, str]) -> list[Violation]:
    """Return what is wrong with the files themselves: not there, or written by another contract.

    Parameters
    ----------
    contract
        The promise.
    read
        What was read of the table.
    span
        ``first`` and ``last`` partition of the run; empty where the whole table was read.
    """
    found = []
    if not contract.sparse:
        absent = [key for key in sorted(set(span.values())) if key not in read.keys]
        if not span and not read.keys and not contract.may_be_empty:
            absent = ["the table itself, which was never made"]
        if absent:
            found.append(Violation(FILES_RULE, len(absent), absent[0]))
    if read.outdated:
        key, difference = next(iter(read.outdated.items()))
        found.append(Violation(SCHEMA_RULE, len(read.outdated), f"{key}: {difference}"))
    return found


def contract_check(contract: Contract) -> dg.AssetChecksDefinition:
    """Return the blocking check of one lake table.

    It reads the partitions that the run wrote (the whole table where the run names none), and fails on every
    promise that a row breaks; what is downstream then does not run.
    """

    @dg.asset_check(
        asset=dg.AssetKey(contract.asset_key),
        name=CHECK_NAME,
        blocking=True,
        description=f"Every row of {contract.path} keeps the promises of its contract.",
        required_resource_keys={"lake"},
    )
    def honours_contract(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        lake = context.resources.lake
        if contract.partitioning in (Partitioning.MONTH, Partitioning.ARRIVAL):
            # Months and arrivals are no partitions of a run, and the table may be larger than memory.
            scan = lake.scan(contract)
            return check_result(contract, scan.dataset, file_violations(contract, scan, {}))
        span = run_partitions(context) if contract.partitioning is Partitioning.SESSION else {}
        read = lake.read(contract, **span)
        return check_result(contract, read.table, file_violations(contract, read, span))

    return honours_contract


def relation_check(contract: Contract) -> dg.AssetChecksDefinition:
    """Return the blocking check of a relation that is not dbt's: every row of it keeps the contract."""

    @dg.asset_check(
        asset=dg.AssetKey(contract.asset_key),
        name=CHECK_NAME,
        blocking=True,
        description=f"Every row of {contract.path} keeps the promises of its contract.",
        required_resource_keys={"warehouse"},
        pool=WAREHOUSE_POOL,
    )
    def honours_contract(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
        return check_result(contract, context.resources.warehouse.read(contract))

    return honours_contract


def contract_checks(contracts: Iterable[Contract]) -> list[dg.AssetChecksDefinition]:
    """Return the blocking check of every table of ours; dbt's generated tests guard dbt's."""
    checks = []
    for contract in contracts:
        if contract.store is Store.LAKE:
            checks.append(contract_check(contract))
        elif contract.store is Store.WAREHOUSE and not contract.is_built_by_dbt:
            checks.append(relation_check(contract))
    return checks
