"""What the tables of a file leave: canonical rows, rows that were left out, and what was noticed.

Belongs here: the shapes that the steps of reading hand on to each other.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from finance_assets.advisory.reading.values import PERSONAL_VALUE
from finance_assets.advisory.reading.vendor_contract import MONEY, RETURNS

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


def left_out(line: int, member: str, account: str, reason: str, detail: str) -> dict[str, Any]:
    """Return a row of `QUARANTINED`, without an account that may be personal data."""
    # No account is a date; in a line that is shifted it may be one of birth.
    hidden = re.search(PERSONAL_VALUE + r"|^\d{1,4}[-./]\d{1,2}[-./]\d{1,4}$", account or "")
    safe = "" if hidden or len(account) > 64 or "@" in account else account
    return {"line": line, "member": member, "account_id": safe, "reason": reason, "detail": detail}
