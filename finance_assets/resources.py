"""Resources that several domains share, built from the settings. None of them opens anything before its first use."""

from __future__ import annotations

from finance_assets.contracts import CONTRACTS
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake, S3Options, WriterOptions
from finance_assets.storage.ledger import Ledger
from finance_assets.storage.warehouse import DuckDBWarehouse


def build_lake(settings: Settings) -> Lake:
    """Return the lake of a deployment."""
    return Lake(
        settings.lake,
        S3Options(settings.aws_region, settings.s3_endpoint_url),
        WriterOptions(settings.writer_lease_seconds, settings.writer_wait_seconds),
    )


def build_warehouse(settings: Settings, *, waits: bool = True) -> DuckDBWarehouse:
    """Return the warehouse of a deployment; without ``waits``, opening it fails if another process has opened it."""
    return DuckDBWarehouse(
        path=settings.warehouse_file,
        lake=build_lake(settings),
        contracts=tuple(CONTRACTS.values()),
        scratch_dir=settings.home_dir / "scratch",
        waits=waits,
    )


def build_ledger(settings: Settings) -> Ledger:
    """Return the ledger of a deployment."""
    return Ledger(settings.ledger, settings.clock)
