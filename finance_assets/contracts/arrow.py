"""Arrow schemas from contracts, and tables brought to them.

What belongs here: the one cast that every write uses. The cast
changes how a value is held, never the value: what would lose a digit, an hour or a zone is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.contracts.arrow_types import ARROW_TYPES
from finance_assets.contracts.model import Contract, ContractError

_TEXT_DICTIONARY = pa.dictionary(pa.int32(), pa.string())


@lru_cache(maxsize=256)
def storage_schema(contract: Contract) -> pa.Schema:
    """Return the schema as files hold it: types alone, so that a change of wording changes no byte."""
    return pa.schema([pa.field(column.name, ARROW_TYPES[column.type]) for column in contract.columns])


def conform(
    contract: Contract, table: pa.Table, order: Sequence[str] | None = None, *, dictionaries: bool = False
) -> pa.Table:
    """Bring ``table`` to the contract: its columns, in its order, in its types, sorted.

    The same rows give the same table, in whatever order they come.

    Parameters
    ----------
    contract
        The promise.
    table
        Any Arrow table that has exactly the contract's columns, in any order.
    order
        Columns to sort by instead of the contract's own order.
    dictionaries
        Keep text that comes as a dictionary as one.

    Raises
    ------
    ContractError
        A column is missing, unknown or double, or a value does not fit its type without loss: a price of more than
        eight places, a date with an hour, a timestamp without a zone. The message names column, row and value.
    """
    return _sorted(fitted(contract, table, dictionaries=dictionaries), order or contract.order, contract)


def fitted(contract: Contract, table: pa.Table, *, dictionaries: bool = False) -> pa.Table:
    """Bring ``table`` to the contract's columns and types, as :func:`conform` does, in the order that its rows have.

    Raises
    ------
    ContractError
        As for :func:`conform`.
    """
    _same_columns(contract, table.column_names)
    columns, fields = [], []
    for field in storage_schema(contract):
        column = table.column(field.name)
        if dictionaries and column.type == _TEXT_DICTIONARY and field.type == pa.string():
            field = field.with_type(column.type)
        else:
            column = fit(column, field.type, f"{contract.path}.{field.name}")
        columns.append(column)
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def empty_table(contract: Contract) -> pa.Table:
    """Return a table of the contract with no rows."""
    return storage_schema(contract).empty_table()


def is_strictly_sorted(table: pa.Table, names: Sequence[str]) -> bool:
    """Return whether rows ascend by ``names`` and no two are alike in them; False where one of them is null."""
    if table.num_rows < 2:
        return all(table.column(name).null_count == 0 for name in names)
    ascends: pa.ChunkedArray | None = None
    for name in reversed(names):
        column = table.column(name)
        if pa.types.is_dictionary(column.type):
            if (
                not column.null_count
                and all(len(chunk.dictionary) == 1 for chunk in column.chunks)
                and (len({chunk.dictionary[0].as_py() for chunk in column.chunks}) == 1)
            ):
                continue  # one text decides nothing
            column = column.cast(column.type.value_type)
        before, after = column.slice(0, table.num_rows - 1), column.slice(1)
        below = pc.less(before, after)
        ascends = below if ascends is None else pc.or_(below, pc.and_(pc.equal(before, after), ascends))
    return ascends is not None and bool(pc.all(ascends, skip_nulls=False).as_py())


def fit(column: pa.ChunkedArray, wanted: pa.DataType, where: str) -> pa.ChunkedArray:
    """Return ``column`` as ``wanted``, value for value.

    Parameters
    ----------
    column
        Values. A number counts as the shortest decimal that names it, so the float 0.1 is the price 0.1. Text is
        text: reading numbers and dates out of it is a parser's work, which knows what to do with nonsense.
    wanted
        A type that a contract can name.
    where
        ``layer/table.column``, for the message.

    Raises
    ------
    ContractError
        A value does not fit without loss, or no value of the column's type could.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if column.type == wanted:
        return column
    cast = _cast(column.type, wanted)
    if cast is None:
        advice = _ADVICE.get((pa.types.is_timestamp(column.type), str(wanted)), "")
        raise ContractError(f"{where}: {column.type} does not become {wanted}{advice}")
    try:
        return cast(column)
    except (pa.ArrowException, ArithmeticError, ValueError) as error:
        place = _first_misfit(column, cast)
        value = column[place].as_py()
        raise ContractError(f"{where}: {value!r} in row {place} does not fit {wanted} without loss") from error


#: (source is a timestamp, target) -> what to do about it.
_ADVICE = {
    (True, "timestamp[us, tz=UTC]"): "; say in which time zone it is",
    (True, "date32[day]"): "; say the date in the zone that is meant",
}

_Cast = Callable[[pa.ChunkedArray], pa.ChunkedArray]


def _cast(have: pa.DataType, wanted: pa.DataType) -> _Cast | None:
    """Return the cast that raises where a value would change; None where the types have nothing in common."""
    kinds = pa.types
    if kinds.is_null(have):
        return lambda column: column.cast(wanted)
    if kinds.is_decimal(wanted):
        if kinds.is_decimal(have):
            return lambda column: column.cast(wanted)
        if kinds.is_integer(have):
            # Arrow asks the target for room for any integer, so the digits are counted on the way down.
            return lambda column: column.cast(pa.decimal128(38, wanted.scale)).cast(wanted)
        if kinds.is_floating(have):
            return lambda column: _decimals(column, wanted)
    elif kinds.is_integer(wanted):
        if kinds.is_integer(have) or kinds.is_floating(have) or kinds.is_decimal(have):
            return lambda column: column.cast(wanted)
    elif kinds.is_floating(wanted):
        if kinds.is_integer(have) or kinds.is_floating(have):
            return lambda column: column.cast(wanted)
        if kinds.is_decimal(have):
            return lambda column: _there_and_back(column, wanted, lambda made: made.cast(pa.string()).cast(have))
    elif kinds.is_date32(wanted):
        if kinds.is_date64(have) or (kinds.is_timestamp(have) and have.tz is None):
            return lambda column: _there_and_back(column, wanted, lambda made: made.cast(have))
    elif kinds.is_timestamp(wanted):
        if kinds.is_timestamp(have) and have.tz is not None:
            return lambda column: column.cast(wanted)
    elif kinds.is_string(wanted) and (kinds.is_large_string(have) or kinds.is_string_view(have)):
        return lambda column: column.cast(wanted)
    return None


def _decimals(column: pa.ChunkedArray, wanted: pa.Decimal128Type) -> pa.ChunkedArray:
    """Return floats as the shortest decimals that name them.

    By way of text: a direct cast would round without a word, and give the price 1234567890.12 noise in its last places.
    """
    smallest = 10.0**-wanted.scale
    size = pc.abs(column)
    if pc.any(pc.and_(pc.greater(size, 0.0), pc.less(size, smallest))).as_py():
        # Arrow itself reads 1e-200 as zero.
        raise ValueError("a value is too small")
    return column.cast(pa.string()).cast(wanted)


def _there_and_back(column: pa.ChunkedArray, wanted: pa.DataType, back: _Cast) -> pa.ChunkedArray:
    made = column.cast(wanted)
    if not pc.all(pc.equal(back(made), column)).as_py() and column.null_count < len(column):
        raise ValueError("a value changed")
    return made


def _first_misfit(column: pa.ChunkedArray, cast: _Cast) -> int:
    """Return the place of the first value that ``cast`` refuses, by halving."""
    first, last = 0, len(column)
    while last - first > 1:
        middle = (first + last) // 2
        try:
            cast(column.slice(first, middle - first))
            first = middle
        except (pa.ArrowException, ArithmeticError, ValueError):
            last = middle
    return first


def _same_columns(contract: Contract, names: Sequence[str]) -> None:
    """Refuse columns that are not those of the contract."""
    complaints = {
        "missing columns": [name for name in contract.column_names if name not in names],
        "columns without a contract": [name for name in names if name not in contract.column_names],
        "columns that are there twice": sorted({name for name in names if list(names).count(name) > 1}),
    }
    said = [f"{complaint}: {', '.join(listed)}" for complaint, listed in complaints.items() if listed]
    if said:
        raise ContractError(f"{contract.path}: {'; '.join(said)}")


def _sorted(table: pa.Table, order: Sequence[str], contract: Contract) -> pa.Table:
    """Return the rows in the one order that they have: by ``order``, then by the key, then by all the rest."""
    names = [*order, *(name for name in contract.key if name not in order)]
    if is_strictly_sorted(table, names):
        return table
    text = pa.schema(
        [pa.field(f.name, f.type.value_type if pa.types.is_dictionary(f.type) else f.type) for f in table.schema]
    )
    table = table.cast(text).combine_chunks()
    ordered = table.sort_by([(name, "ascending") for name in names])
    if is_strictly_sorted(ordered, names):
        return ordered
    # Rows that share a key break the contract, which the check will say; their order is fixed all the same.
    names += [name for name in contract.column_names if name not in names]
    return table.sort_by([(name, "ascending") for name in names])
