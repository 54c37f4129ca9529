"""What a table contract is: columns with type, unit, meaning and bounds; a grain; a key; rules on a row.

What belongs here: the description of tables, and nothing that reads or writes one. A contract is data. The
modules beside this one turn it into an Arrow schema, a Dagster check, dbt sources, a Glue table and
the data dictionary.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


class Layer(StrEnum):
    """Where a table stands on the way from source to reader."""

    RAW = "raw"
    CORE = "core"
    STAGING = "staging"
    INTERMEDIATE = "intermediate"
    MART = "mart"
    PUBLISHED = "published"


class Store(StrEnum):
    """What holds the table: files in the lake, a relation that dbt builds, or one JSON document per row."""

    LAKE = "lake"
    WAREHOUSE = "warehouse"
    DOCUMENTS = "documents"


class Partitioning(StrEnum):
    """How a lake table is cut into files: one, one per session or month, or one per thing that arrived."""

    NONE = "none"
    SESSION = "session"
    MONTH = "month"
    ARRIVAL = "arrival"


#: Column type -> standard SQL type, spelled so that DuckDB, PostgreSQL and Redshift all take it.
SQL_TYPES: dict[str, str] = {
    "string": "varchar",
    "date": "date",
    "bool": "boolean",
    "int32": "integer",
    "int64": "bigint",
    "float64": "double precision",
    "price": "decimal(18,8)",
    "amount": "decimal(28,8)",
    "rate": "decimal(24,14)",
    "exact": "decimal(38,14)",
    "money": "decimal(38,18)",
    "timestamp": "timestamp with time zone",
}


#: Types whose values have an order that bounds can speak of.
_NUMERIC = ("int32", "int64", "float64", "price", "amount", "rate", "exact", "money")
#: Names of layers, tables and columns: they become folders, SQL identifiers and JSON keys without quoting.
_NAME = re.compile(r"[a-z][a-z0-9_]*")
_REFERENCE = re.compile(r"[a-z][a-z0-9_]*/[a-z][a-z0-9_]*\.[a-z][a-z0-9_]*")


class ContractError(ValueError):
    """A table, or a contract itself, breaks the rules; the message says which and where."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes
    ----------
    name
        Field's standard term; carries unit and basis where they could be mistaken.
    type
        A key of :data:`SQL_TYPES`. ``price`` and ``amount`` (money of any size) are exact decimals with eight places,
        ``rate`` (a fraction as somebody stated it) one with fourteen, ``exact`` whatever of these it may be, ``money``
        (a payment in any currency, and sums of such) one with eighteen.
    unit
        Unit of the values (``USD``, ``fraction``, ``percent``, ``shares``, ``sessions``, …) or ``text``/``date``/….
    description
        What the value means, and when it is null.
    nullable
        Whether null is a legal value.
    minimum, maximum
        Inclusive bounds of a legal value; with ``exclusive_minimum`` the lower one is itself illegal.
    allowed
        The only legal values, where the column is an enumeration.
    references
        ``layer/table.column`` that must hold each value (checked by dbt in the warehouse).
    """

    name: str
    type: str
    unit: str
    description: str
    nullable: bool = False
    minimum: Decimal | int | float | None = None
    maximum: Decimal | int | float | None = None
    exclusive_minimum: bool = False
    allowed: tuple[str, ...] = ()
    references: str | None = None

    def __post_init__(self) -> None:
        """Refuse a type that no store knows, and promises that no value could break or keep."""
        where = f"column {self.name!r}"
        if not _NAME.fullmatch(self.name):
            raise ContractError(f"{where}: a name is lower case letters, digits and _, and begins with a letter")
        if self.type not in SQL_TYPES:
            raise ContractError(f"{where}: unknown type {self.type!r}; use one of {', '.join(SQL_TYPES)}")
        if not self.description or not self.unit:
            raise ContractError(f"{where} needs a unit and a description")
        bounded = self.minimum is not None or self.maximum is not None
        if bounded and self.type not in _NUMERIC:
            raise ContractError(f"{where}: bounds are for numbers, not for {self.type}")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ContractError(f"{where}: the minimum {self.minimum} is above the maximum {self.maximum}")
        if self.exclusive_minimum and self.minimum is None:
            raise ContractError(f"{where}: exclusive_minimum without a minimum")
        if self.allowed and self.type != "string":
            raise ContractError(f"{where}: allowed values are for strings, not for {self.type}")
        if len(set(self.allowed)) != len(self.allowed):
            raise ContractError(f"{where}: an allowed value is listed twice")
        if self.references is not None and not _REFERENCE.fullmatch(self.references):
            raise ContractError(f"{where}: references {self.references!r} is not layer/table.column")

    @property
    def sql_type(self) -> str:
        """The standard SQL name of the type."""
        return SQL_TYPES[self.type]


@dataclass(frozen=True, slots=True)
class RowRule:
    """A rule that every row must satisfy, written as a portable SQL expression (null counts as satisfied)."""

    name: str
    expression: str
    description: str


@dataclass(frozen=True)
class Contract:
    """All that is promised about one table.

    Attributes
    ----------
    layer, name
        Together the asset key, ``[layer, name]``.
    grain
        What one row is, in words.
    description
        What the table is for.
    source
        Where the values come from.
    columns
        Every column, in order.
    key
        Names of the columns that identify a row.
    partitioning
        How the lake cuts the table into files.
    partition_column
        Column whose value names the file of a row, where the table is partitioned.
    sparse
        A partition without rows has no file: for tables that are empty on most days.
    append_only
        A file that is there is never replaced: what was written once is what every later step rests on.
    store
        Lake file or warehouse relation.
    rules
        Row rules beyond the bounds of the columns.
    inputs
        For warehouse relations: the tables read, as ``layer/name``.
    group, owner
        Shown in Dagster.
    """

    layer: Layer
    name: str
    grain: str
    description: str
    source: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    group: str
    partitioning: Partitioning = Partitioning.NONE
    partition_column: str | None = None
    sparse: bool = False
    append_only: bool = False
    store: Store = Store.LAKE
    rules: tuple[RowRule, ...] = ()
    inputs: tuple[str, ...] = ()
    owner: str = "team:data-platform"
    sort_by: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        """Refuse a contract that contradicts itself."""
        names = [column.name for column in self.columns]
        where = f"contract {self.path}"
        if not _NAME.fullmatch(self.name):
            raise ContractError(f"{where}: a name is lower case letters, digits and _, and begins with a letter")
        for kind, listed in (
            ("column", names),
            ("key column", self.key),
            ("rule", [rule.name for rule in self.rules]),
        ):
            if len(set(listed)) != len(listed):
                raise ContractError(f"{where}: a {kind} is named twice")
        for used in (*self.key, *self.sort_by, *((self.partition_column,) if self.partition_column else ())):
            if used not in names:
                raise ContractError(f"{where}: {used!r} is in the key, the order or the partition, but is no column")
        if not self.key:
            raise ContractError(f"{where}: a table has a key")
        if not (self.grain and self.description and self.source and self.group and self.owner):
            raise ContractError(f"{where} needs a grain, a description, a source, a group and an owner")
        for name in self.key:
            if self.column(name).nullable:
                raise ContractError(f"{where}: key column {name!r} may not be nullable")
        by_value = self.partitioning in (Partitioning.SESSION, Partitioning.MONTH)
        if by_value != (self.partition_column is not None):
            raise ContractError(f"{where}: partitioning and partition_column go together")
        if self.append_only and (self.partitioning is not Partitioning.ARRIVAL or self.store is not Store.LAKE):
            raise ContractError(f"{where}: only files of the lake that arrive one by one can be append-only")
        if self.partition_column is not None:
            partition = self.column(self.partition_column)
            if partition.type != "date" or partition.nullable:
                raise ContractError(f"{where}: partition column {partition.name!r} must be a date and never null")
            if partition.name not in self.key:
                # A key that leaves it out could be unique in each file and double in the table.
                raise ContractError(f"{where}: partition column {partition.name!r} must be part of the key")

    @property
    def path(self) -> str:
        """``layer/name``: the asset key as a path, and the folder in the lake."""
        return f"{self.layer}/{self.name}"

    @property
    def is_built_by_dbt(self) -> bool:
        """Whether the table is a model of the dbt project; other relations of the warehouse are written by assets."""
        return self.store is Store.WAREHOUSE and self.layer is not Layer.PUBLISHED

    @property
    def may_be_empty(self) -> bool:
        """Whether no file at all is in order: nothing may have arrived, or no row may be worth a file."""
        return self.sparse or self.partitioning in (Partitioning.MONTH, Partitioning.ARRIVAL)

    @property
    def asset_key(self) -> list[str]:
        """The asset key, ``[layer, name]``."""
        return [str(self.layer), self.name]

    @property
    def column_names(self) -> list[str]:
        """Names of the columns, in order."""
        return [column.name for column in self.columns]

    @property
    def order(self) -> tuple[str, ...]:
        """Columns by which the rows of a file are sorted, so that row groups prune and bytes repeat."""
        return self.sort_by or self.key

    def column(self, name: str) -> Column:
        """Return the column called ``name``; KeyError where there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(f"{self.path} has no column {name!r}")

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema, with unit and description as field metadata."""
        import pyarrow as pa

        from finance_assets.contracts.arrow_types import ARROW_TYPES

        return pa.schema(
            [
                pa.field(
                    column.name,
                    ARROW_TYPES[column.type],
                    nullable=column.nullable,
                    metadata={"unit": column.unit, "description": column.description},
                )
                for column in self.columns
            ]
        )
