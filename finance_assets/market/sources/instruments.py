"""The hand-made universe: name, listing and GICS sector of each instrument of the sample, point in time.

What belongs here: reading ``finance_assets/market/data/instruments.csv``. A row is one version of one
instrument, valid from ``valid_from`` (included) to ``valid_to`` (excluded; empty while it holds), so that
sector membership is point-in-time: a reclassification is a new row. Versions begin with the sample data
(1990-01-02) or the listing, if later; they vouch for nothing earlier. The ``source`` column says where a
row's sector comes from.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa


def instrument_schema() -> pa.Schema:
    """Return the Arrow schema of `load_instruments`."""
    import pyarrow as pa

    fields: list[pa.Field[Any]] = [
        pa.field("symbol", pa.string(), nullable=False),
        pa.field("valid_from", pa.date32(), nullable=False),
        pa.field("valid_to", pa.date32()),
        pa.field("name", pa.string(), nullable=False),
        pa.field("instrument_type", pa.string(), nullable=False),
        pa.field("gics_sector", pa.string()),
        pa.field("currency", pa.string(), nullable=False),
        pa.field("exchange", pa.string()),
        pa.field("source", pa.string(), nullable=False),
    ]
    return pa.schema(fields)


def load_instruments() -> pa.Table:
    """Return every version of every instrument, ascending by symbol and ``valid_from``."""
    from importlib.resources import files
    from io import BytesIO

    from pyarrow import csv

    schema = instrument_schema()
    text = files("finance_assets.market").joinpath("data/instruments.csv").read_bytes()
    options = csv.ConvertOptions(
        column_types={field.name: field.type for field in schema},
        include_columns=schema.names,
        null_values=[""],
        strings_can_be_null=True,
    )
    table = csv.read_csv(BytesIO(text), convert_options=options)
    return table.sort_by([("symbol", "ascending"), ("valid_from", "ascending")]).cast(schema)


def instrument_as_of(symbol: str, day: date) -> dict[str, Any] | None:
    """Return the version of ``symbol`` that held on ``day``, or None."""
    for row in load_instruments().to_pylist():
        if row["symbol"] == symbol and row["valid_from"] <= day and (row["valid_to"] is None or day < row["valid_to"]):
            return dict(row)
    return None
