"""Dagster's IO managers: assets hand over tables, these put them where the profile says.

What belongs here: the bridge between Dagster's contexts and the lake or the warehouse. Assets return and take Arrow
tables and know neither.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.contracts import contract_of
from finance_assets.contracts.model import Contract, ContractError
from finance_assets.storage.lake import Lake, LakeError
from finance_assets.storage.warehouse import Warehouse

if TYPE_CHECKING:
    import pyarrow as pa

#: Metadata of a materialisation: rows that the whole run wrote into the table.
RUN_ROW_COUNT = "run_row_count"
#: How many missing partitions a message lists by name.
LISTED = 10


def _contract(context: dg.OutputContext | dg.InputContext) -> Contract:
    return contract_of("/".join(context.asset_key.path))


def _as_arrow(value: Any, path: str) -> pa.Table:
    """Return what an asset handed over as an Arrow table."""
    import pyarrow as pa

    if isinstance(value, pa.Table):
        return value
    if isinstance(value, pa.RecordBatch):
        return pa.Table.from_batches([value])
    # An asset that made a frame has imported pandas; another need not.
    pandas = sys.modules.get("pandas")
    if pandas is not None and isinstance(value, pandas.DataFrame):
        try:
            return pa.Table.from_pandas(value, preserve_index=False)
        except pa.ArrowException as error:
            raise ContractError(f"{path}: the frame has a column of mixed types: {error}") from error
    raise TypeError(f"{path}: an asset returns a pyarrow.Table or a pandas.DataFrame, not {type(value).__name__}")


class LakeIOManager(dg.IOManager):
    """Tables as files of the lake, one per partition.

    A run may write one partition, a whole range (``BackfillPolicy.single_run()``) or an unpartitioned table: the rows
    are split by the contract's partition column, and every partition of the run is replaced, also by no rows.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write what an asset returned; None means that it wrote by itself."""
        if obj is None:
            return
        contract = _contract(context)
        table = _as_arrow(obj, contract.path)
        if context.has_asset_partitions:
            counts = self._lake.write_partitions(contract, table, list(context.asset_partition_keys))
            metadata: dict[str, Any] = {
                RUN_ROW_COUNT: table.num_rows,
                "partitions_written": len(counts),
                "uri": self._lake.scan_address(contract),
            }
            if len(counts) == 1:
                # Dagster puts the same metadata on every partition of a range, where it would be no partition's count.
                metadata["dagster/row_count"] = table.num_rows
            context.add_output_metadata(dagster_output.metadata(metadata))
        else:
            size = self._lake.write(contract, table)
            context.add_output_metadata(
                dagster_output.metadata(
                    {
                        "dagster/row_count": table.num_rows,
                        "bytes": size,
                        "uri": self._lake.scan_address(contract),
                    }
                )
            )

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the partitions that the run needs; say which of them were never made.

        A range may have gaps, but a table of which nothing at all is there is an error: what is made of it would be
        empty and look finished.
        """
        contract = _contract(context)
        columns = (context.definition_metadata or {}).get("columns")
        if context.has_asset_partitions:
            read = self._lake.read(contract, keys=context.asset_partition_keys, columns=columns)
            if read.missing and not read.keys:
                raise LakeError(
                    f"{contract.path} has no file for {read.missing[0]} to {read.missing[-1]} at "
                    f"{self._lake.scan_address(contract)}; materialise it first"
                )
            if read.missing:
                shown = ", ".join(read.missing[:LISTED]) + (", …" if len(read.missing) > LISTED else "")
                dagster_output.log(context).warning(
                    f"{contract.path}: {len(read.missing)} of the partitions asked for were never made: {shown}"
                )
            return read.table
        if not self._lake.partitions(contract) and not contract.sparse:
            raise LakeError(f"{contract.path} has no file at {self._lake.scan_address(contract)}; materialise it first")
        return self._lake.read(contract, columns=columns).table


class WarehouseIOManager(dg.IOManager):
    """Tables as relations of the warehouse."""

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Replace the relation's rows; None means that dbt wrote it."""
        if obj is None:
            return
        contract = _contract(context)
        rows = self._warehouse.replace(contract, _as_arrow(obj, contract.path))
        context.add_output_metadata({"dagster/row_count": rows})

    def load_input(self, context: dg.InputContext) -> Any:
        """Read the whole relation."""
        columns = (context.definition_metadata or {}).get("columns")
        return self._warehouse.read(_contract(context), columns)
