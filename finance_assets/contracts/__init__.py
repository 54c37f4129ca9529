"""Table contracts: what every table promises, and what is generated from the promise.

``model`` says what a contract is; one module per domain lists its tables; ``arrow``, ``validation``, ``dbt`` and
``dictionary`` turn them into schemas, tests, YAML and documentation. A new table starts here.
"""

from __future__ import annotations

from finance_assets.contracts import advisory, macro, market, publishing, sectors, transactions
from finance_assets.contracts.model import (
    Column,
    Contract,
    ContractError,
    Layer,
    Partitioning,
    RowRule,
    Store,
)
from finance_assets.contracts.status import Status

#: Every contract by its path, ``layer/name``.
CONTRACTS: dict[str, Contract] = {
    contract.path: contract
    for contract in (
        *market.CONTRACTS,
        *sectors.CONTRACTS,
        *macro.CONTRACTS,
        *advisory.CONTRACTS,
        *transactions.CONTRACTS,
        *publishing.CONTRACTS,
    )
}


def contract_of(path: str) -> Contract:
    """Return the contract of ``layer/name``.

    Raises
    ------
    ContractError
        There is no such table; the message lists those of the same layer.
    """
    try:
        return CONTRACTS[path]
    except KeyError:
        layer = path.split("/")[0]
        known = [name for name in CONTRACTS if name.split("/")[0] == layer] or list(CONTRACTS)
        raise ContractError(f"no table {path!r}; known: {', '.join(sorted(known))}") from None


__all__ = [
    "CONTRACTS",
    "Column",
    "Contract",
    "ContractError",
    "Layer",
    "Partitioning",
    "RowRule",
    "Status",
    "Store",
    "contract_of",
]
