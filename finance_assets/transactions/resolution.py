"""Which message stands: the first with an id, the others being duplicates of it or conflicts with it.

What belongs here: the decision, for many messages at once. Pure: what stands already is handed in.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from finance_assets.transactions.rules import ACCEPTED, REJECTED

if TYPE_CHECKING:
    import pyarrow as pa

DUPLICATE: Final = "duplicate"
CONFLICT: Final = "conflict"


def resolve(messages: pa.Table, known: Mapping[str, str]) -> pa.Table:
    """Return what becomes of each message, one row per message, in their order.

    Parameters
    ----------
    messages
        Columns ``outcome``, ``transaction_id`` and ``fingerprint``, in the order in which they became known. A
        rejected message does not reserve its id.
    known
        Transaction id -> fingerprint of what stands already. Ids that no message has do no harm.

    Returns
    -------
    pyarrow.Table
        ``resolution``: ``accepted`` (it stands), ``duplicate`` (it means what stands), ``conflict`` (it means something
        else) or ``rejected``. ``standing_fingerprint``: of what stands under the id once this message is settled;
        null where it is rejected.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    accepted = np.flatnonzero(pc.equal(messages.column("outcome"), ACCEPTED).to_numpy(zero_copy_only=False))
    ids = messages.column("transaction_id").take(accepted).combine_chunks().dictionary_encode()
    own = messages.column("fingerprint").take(accepted).combine_chunks()
    before = pa.array([known.get(one) for one in ids.dictionary.to_pylist()], pa.string())
    # Codes are given in the order of first appearance, so the first message of each is where it comes up first.
    codes = ids.indices.to_numpy()
    _, first = np.unique(codes, return_index=True)
    standing = pc.coalesce(before, own.take(first)).take(ids.indices)
    is_first = np.zeros(len(codes), bool)
    is_first[first] = True
    stands = pc.and_(pa.array(is_first), pc.is_null(before.take(ids.indices)))
    settled = pc.if_else(stands, ACCEPTED, pc.if_else(pc.equal(own, standing), DUPLICATE, CONFLICT))
    place = np.full(messages.num_rows, -1)
    place[accepted] = np.arange(len(accepted))
    places = pa.array(place, mask=place < 0)
    return pa.table(
        {
            "resolution": pc.fill_null(settled.take(places), REJECTED),
            "standing_fingerprint": standing.take(places),
        }
    )
