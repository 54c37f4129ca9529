"""Which columns of its inputs each column of a dbt model comes from.

What belongs here: reading the SQL that dbt compiled, with sqlglot. dagster-dbt tells the same, but reads the whole SQL
of a model again for each of its columns, which can take longer than building the model.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import dagster as dg

if TYPE_CHECKING:
    from sqlglot.lineage import Node


def column_lineage(manifest: Mapping[str, Any], unique_id: str, sql: str) -> dg.TableColumnLineage:
    """Return which columns of its direct inputs each column of a model comes from.

    Parameters
    ----------
    manifest
        dbt's manifest. It names the columns of models and sources, and their assets (``meta.dagster.asset_key``).
    unique_id
        dbt's name of the model, such as ``model.finance_assets.int_sector_returns``.
    sql
        What dbt compiled for the model.

    Raises
    ------
    sqlglot.errors.SqlglotError
        sqlglot does not understand the SQL.
    """
    from sqlglot import MappingSchema, exp, parse_one, to_table
    from sqlglot.expressions import normalize_table_name
    from sqlglot.lineage import lineage

    dialect = manifest["metadata"]["adapter_type"]
    model = manifest["nodes"][unique_id]
    schema = MappingSchema(dialect=dialect)
    assets: dict[str, dg.AssetKey] = {}
    for name in model["depends_on"]["nodes"]:
        parent = manifest["sources" if name.startswith("source.") else "nodes"][name]
        table = to_table(parent["relation_name"], dialect=dialect)
        columns = {column: about["data_type"] for column, about in parent["columns"].items()}
        schema.add_table(table, columns, dialect=dialect)
        assets[normalize_table_name(table, dialect=dialect)] = dg.AssetKey(
            parent["config"]["meta"]["dagster"]["asset_key"]
        )

    found: dict[str, list[dg.TableColumnDep]] = {column: [] for column in model["columns"]}
    # One call for all columns walks once what they share. Trimmed selects would copy the SQL at every step.
    parsed = parse_one(sql, dialect=dialect)
    for column, root in lineage(None, parsed, schema, dialect=dialect, trim_selects=False, copy=False).items():
        if column.lower() not in found:
            continue
        sources = set()
        for node in _leaves(root):
            source = node.expression.find(exp.Table)
            asset = None if source is None else assets.get(normalize_table_name(source, dialect=dialect))
            if asset is not None:
                sources.add((asset, exp.to_column(node.name).name.lower()))
        found[column.lower()] = [dg.TableColumnDep(asset, name) for asset, name in sorted(sources)]
    return dg.TableColumnLineage(found)


def _leaves(root: "Node") -> "Iterator[Node]":
    """Yield the nodes from which nothing goes on, each once: columns share their way through the common subqueries."""
    waiting, seen = [root], {id(root)}
    while waiting:
        node = waiting.pop()
        if not node.downstream:
            yield node
        for following in node.downstream:
            if id(following) not in seen:
                seen.add(id(following))
                waiting.append(following)
