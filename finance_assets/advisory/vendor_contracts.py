"""The vendor contracts of a deployment, from several folders."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from finance_assets.advisory.reading.vendor_contract import VendorContract


def load_all_contracts(folders: Iterable[Path]) -> list[VendorContract]:
    """Return the vendor contracts of several folders; a later folder overrides an earlier one."""
    from finance_assets.advisory.reading.vendor_contract import load_contracts

    found: dict[str, VendorContract] = {}
    for folder in folders:
        if folder.is_dir():
            found |= {contract.vendor: contract for contract in load_contracts(folder)}
    return list(found.values())
