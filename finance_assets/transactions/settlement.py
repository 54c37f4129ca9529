"""Settling: from micro-batches as received to transactions, duplicates, conflicts and rejected messages.

What belongs here: the order in which micro-batches become known, and the core tables that follow from it. Each
settlement takes what is new, writes its order first (``core/transaction_arrivals``), then the tables, and
``core/transactions`` last: that file says that the settlement is complete. A settlement that dies is done again from
its order, and gives the same files. So what stood once stands for ever, and all of it can be made again from raw.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from finance_assets.contracts.model import Contract
from finance_assets.contracts.transactions import (
    CORE_TRANSACTIONS,
    DUPLICATE_TRANSACTIONS,
    RAW_TRANSACTIONS,
    REJECTED_TRANSACTIONS,
    TRANSACTION_ARRIVALS,
    TRANSACTION_CONFLICTS,
)
from finance_assets.storage.lake import LakeError
from finance_assets.transactions.resolution import CONFLICT, DUPLICATE, resolve
from finance_assets.transactions.rules import ACCEPTED, REJECTED

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.storage.lake import Lake

#: Messages that one settlement takes at most (but at least one micro-batch): what is held in memory at a time.
MAX_MESSAGES = 100_000
#: Resolution -> its table, in the order in which they are written.
TABLES: dict[str, Contract] = {
    CONFLICT: TRANSACTION_CONFLICTS,
    DUPLICATE: DUPLICATE_TRANSACTIONS,
    REJECTED: REJECTED_TRANSACTIONS,
    ACCEPTED: CORE_TRANSACTIONS,
}


@dataclass
class Settled:
    """What settling came to.

    Attributes
    ----------
    sequences
        Numbers of the settlements that were made, or finished.
    batches
        Micro-batches in them.
    messages
        Resolution -> messages.
    redelivered
        Messages that an earlier micro-batch held already, and that are not counted again.
    """

    sequences: list[int] = field(default_factory=list)
    batches: int = 0
    messages: dict[str, int] = field(default_factory=lambda: dict.fromkeys(TABLES, 0))
    redelivered: int = 0


def sequence_key(sequence: int) -> str:
    """Return the name of a settlement's files; names sort as the numbers do."""
    return f"{sequence:010d}"


def unsettled_batches(lake: Lake) -> list[str]:
    """Return the micro-batches of which no complete settlement tells, sorted."""
    arrivals = lake.read(TRANSACTION_ARRIVALS, columns=["sequence", "batch_sha256"]).table.to_pydict()
    complete = set(lake.partitions(CORE_TRANSACTIONS))
    settled = {
        batch
        for sequence, batch in zip(arrivals["sequence"], arrivals["batch_sha256"], strict=True)
        if sequence_key(sequence) in complete
    }
    return sorted(set(lake.partitions(RAW_TRANSACTIONS)) - settled)


def settle(lake: Lake, log: Callable[[str], object] = lambda _: None) -> Settled:
    """Finish settlements that died, then settle every micro-batch that is new.

    One at a time: who calls this is the only writer of these tables, see ``storage.writers``.

    Raises
    ------
    AlreadyThereError
        Another settlement was made at the same time all the same. Its order stands, and the next settlement takes what
        it left.
    LakeError
        A micro-batch that was settled is no longer in the lake.
    """
    done = Settled()
    arrivals = lake.read(TRANSACTION_ARRIVALS).table
    complete = set(lake.partitions(CORE_TRANSACTIONS))
    recorded = sorted(set(arrivals.column("sequence").to_pylist()))
    for sequence in recorded:
        if sequence_key(sequence) not in complete:
            log(f"settlement {sequence} is recorded but not complete; making it again")
            _settle_sequence(lake, sequence, done)
    known = set(arrivals.column("batch_sha256").to_pylist())
    sequence = recorded[-1] if recorded else 0
    for plan in _plans(lake, known):
        sequence += 1
        lake.write(TRANSACTION_ARRIVALS, _with_sequence(plan, sequence), key=sequence_key(sequence))
        _settle_sequence(lake, sequence, done)
        log(f"settlement {sequence}: {plan.num_rows} micro-batches")
    return done


def _plans(lake: Lake, known: set[str]) -> Iterator[pa.Table]:
    """Yield the new micro-batches as parts of a size that fits in memory, in the order in which they were received."""
    import numpy as np
    import pyarrow as pa

    new = sorted(set(lake.partitions(RAW_TRANSACTIONS)) - known)
    if not new:
        return
    rows = lake.read(RAW_TRANSACTIONS, keys=new, columns=["batch_sha256", "received_ts_utc"]).table
    batches = (
        rows.group_by("batch_sha256")
        .aggregate([("received_ts_utc", "min"), ("received_ts_utc", "count")])
        .rename_columns(["batch_sha256", "first_received_ts_utc", "message_count"])
        .sort_by([("first_received_ts_utc", "ascending"), ("batch_sha256", "ascending")])
    )
    ends = np.cumsum(batches.column("message_count").to_numpy())
    start = 0
    while start < batches.num_rows:
        taken = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, taken + MAX_MESSAGES, side="right")))
        yield batches.slice(start, stop - start).append_column(
            "ordinal", pa.array(np.arange(stop - start, dtype=np.int32))
        )
        start = stop


def _with_sequence(table: pa.Table, sequence: int) -> pa.Table:
    import pyarrow as pa

    return table.append_column("sequence", pa.repeat(pa.scalar(sequence, pa.int64()), table.num_rows))


def _settle_sequence(lake: Lake, sequence: int, done: Settled) -> None:
    """Write the core tables of one settlement; a function of its order, of raw, and of the settlements before it."""
    import pyarrow as pa
    import pyarrow.compute as pc

    key = sequence_key(sequence)
    plan = lake.read(TRANSACTION_ARRIVALS, keys=[key]).table.sort_by("ordinal")
    batches = plan.column("batch_sha256").to_pylist()
    read = lake.read(RAW_TRANSACTIONS, keys=batches)
    if read.missing:
        raise LakeError(
            f"{RAW_TRANSACTIONS.path} lacks micro-batch {read.missing[0]}, which settlement {sequence} holds; restore "
            "its file, without which nobody knows what was received"
        )
    order = pc.index_in(read.table.column("batch_sha256"), pa.array(batches))
    rows = read.table.append_column("ordinal", order).sort_by(
        [("ordinal", "ascending"), ("sent_ts_utc", "ascending"), ("message_id", "ascending")]
    )
    rows, known = _first_deliveries(lake, rows, sequence, done)
    settled = resolve(rows, known)
    rows = _with_sequence(rows, sequence)
    for name in settled.column_names:
        rows = rows.append_column(name, settled.column(name))
    for resolution, contract in TABLES.items():
        own = rows.filter(pc.equal(rows.column("resolution"), resolution))
        lake.write(contract, own.select(contract.column_names), key=key)
        done.messages[resolution] += own.num_rows
    done.sequences.append(sequence)
    done.batches += len(batches)


def _first_deliveries(lake: Lake, rows: pa.Table, sequence: int, done: Settled) -> tuple[pa.Table, dict[str, str]]:
    """Return the messages that nobody has counted yet, and what stands of their ids in the settlements before."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    messages = rows.column("message_id")
    counted = [
        _held_before(lake, contract, sequence, "message_id", messages, ["message_id"]).column(0)
        for contract in TABLES.values()
    ]
    seen = pc.is_in(messages, pa.chunked_array([chunk for column in counted for chunk in column.chunks], pa.string()))
    codes = messages.combine_chunks().dictionary_encode().indices.to_numpy()
    is_first = np.zeros(rows.num_rows, bool)
    is_first[np.unique(codes, return_index=True)[1]] = True
    kept = rows.filter(pc.and_(pa.array(is_first), pc.invert(seen)))
    done.redelivered += rows.num_rows - kept.num_rows
    ids = kept.column("transaction_id").drop_null()
    standing = _held_before(lake, CORE_TRANSACTIONS, sequence, "transaction_id", ids, ["transaction_id", "fingerprint"])
    return kept, dict(zip(*(standing.column(name).to_pylist() for name in standing.column_names), strict=True))


def _held_before(
    lake: Lake, contract: Contract, sequence: int, column: str, values: pa.ChunkedArray, columns: list[str]
) -> pa.Table:
    """Return what earlier settlements hold of some values of a column; read piece by piece, these columns alone."""
    import pyarrow as pa
    import pyarrow.compute as pc

    wanted = pa.array(values.unique().to_pylist(), pa.string())
    where = (pc.field("sequence") < sequence) & pc.field(column).isin(wanted)
    return lake.scan(contract).dataset.to_table(columns=columns, filter=where)
