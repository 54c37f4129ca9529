"""The Arrow type of each contract type."""

import pyarrow as pa

ARROW_TYPES: dict[str, pa.DataType] = {
    "string": pa.string(),
    "date": pa.date32(),
    "bool": pa.bool_(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float64": pa.float64(),
    "price": pa.decimal128(18, 8),
    "amount": pa.decimal128(28, 8),
    "rate": pa.decimal128(24, 14),
    "exact": pa.decimal128(38, 14),
    "money": pa.decimal128(38, 18),
    "timestamp": pa.timestamp("us", tz="UTC"),
}
