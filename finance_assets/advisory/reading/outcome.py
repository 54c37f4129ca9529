"""What the tables of a file leave: canonical rows, rows that were left out, and what was noticed.

Belongs here: the shapes that the steps of reading hand on to each other.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.reading.values import PERSONAL_VALUE
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS
from finance_assets.text import redact_personal_data

if TYPE_CHECKING:
    from finance_assets.advisory.reading.blocks import LargeRows

MONEY_TYPE = pa.decimal128(28, 8)
RETURN_TYPE = pa.decimal128(24, 14)

ROWS = pa.schema(
    [
        ("account_id", pa.string()),
        ("period_start", pa.date32()),
        ("period_end", pa.date32()),
        ("stated_period_end", pa.date32()),
        ("granularity", pa.string()),
        ("currency", pa.string()),
        *[(name, MONEY_TYPE) for name in MONEY],
        *[(name, RETURN_TYPE) for name in RETURNS],
        ("member", pa.string()),
        ("line", pa.int64()),
        ("flags", pa.string()),
    ]
)
"""Schema of canonical rows."""

ENCODED_ROWS = pa.schema(
    [f.with_type(pa.dictionary(pa.int32(), pa.string())) if pa.types.is_string(f.type) else f for f in ROWS]
)
"""The same with text as dictionaries."""

QUARANTINED = pa.schema(
    [
        ("line", pa.int64()),
        ("member", pa.string()),
        ("account_id", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
    ]
)
"""Schema of quarantined rows."""


#: Reasons of rows of which it is not sure where a cell begins and ends.
_DAMAGED = frozenset(
    {
        "malformed_json",
        "missing_required",
        "truncated_row",
        "unknown_record_type",
        "wrong_field_count",
        "wrong_record_length",
    }
)
_BANK_ACCOUNT = r"[A-Z]{2}\d{2}[A-Z0-9]{11,30}"


@dataclass
class Part:
    """Rows and leftovers of the tables of a file; of a large one, the rows alone without tables."""

    tables: list[pa.Table] = field(default_factory=list)
    large: LargeRows | None = None
    quarantined: list[dict[str, Any]] = field(default_factory=list)
    warnings: set[str] = field(default_factory=set)
    skipped: Counter[str] = field(default_factory=Counter)
    vendor: str = "unknown"
    version: int | None = None
    score: float = 0.0
    candidates: list[tuple[str, float]] = field(default_factory=list)


def quarantine_row(line: int, member: str, account: str, reason: str, detail: str) -> dict[str, Any]:
    """Return a row of `QUARANTINED`, without an account that may be personal data, and without any in its texts."""
    # No account is a date; in a line that is shifted it may be one of birth.
    hidden = re.search(PERSONAL_VALUE + r"|^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}$", account or "")
    safe = "" if hidden or len(account) > 64 or _shows_personal_data(account) else account
    return {
        "line": line,
        "member": redact_personal_data(member),
        "account_id": safe,
        "reason": reason,
        "detail": redact_personal_data(detail),
    }


def _shows_personal_data(account: str) -> bool:
    """Return whether an account holds personal data, such as what a cell beside it left in it."""
    if re.fullmatch(_BANK_ACCOUNT, account):
        # Vendors number accounts so, too, and as the whole cell it is one.
        return False
    return "@" in account or redact_personal_data(account) != account


def without_doubtful_accounts(quarantined: list[dict[str, Any]], accounts: pa.Array | pa.ChunkedArray) -> None:
    """Take the account out of damaged rows, unless a good row of the file has it.

    In a line that was cut off or has too many or too few fields, the cell of the account may hold what is left of
    another cell: the end of an e-mail address, an account and half of a tax id. No pattern knows such pieces.

    Parameters
    ----------
    quarantined
        Rows of `QUARANTINED`, changed in place.
    accounts
        Accounts of the good rows.
    """
    damaged = [row for row in quarantined if row["account_id"] and row["reason"] in _DAMAGED]
    if not damaged:
        return
    asked = pa.array([row["account_id"] for row in damaged], pa.string())
    if pa.types.is_dictionary(accounts.type):
        chunks = accounts.chunks if isinstance(accounts, pa.ChunkedArray) else [accounts]
        accounts = pa.chunked_array([chunk.dictionary for chunk in chunks], pa.string())
    for row, is_known in zip(damaged, pc.is_in(asked, value_set=accounts).to_pylist(), strict=True):
        if not is_known:
            row["account_id"] = ""
