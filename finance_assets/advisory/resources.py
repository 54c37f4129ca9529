"""The intake of vendor files, built from the settings."""

from __future__ import annotations

from finance_assets.advisory.intake import SHIPPED_CONTRACTS, Intake
from finance_assets.resources import build_lake, build_ledger
from finance_assets.settings import Settings
from finance_assets.storage.lake import S3Options
from finance_assets.storage.landing import Landing


def build_intake(settings: Settings) -> Intake:
    """Return the intake of vendor files of a deployment."""
    user_contracts = settings.vendor_contracts or settings.home_dir / "vendors"
    return Intake(
        landing=Landing(settings.landing, S3Options(settings.aws_region, settings.s3_endpoint_url)),
        lake=build_lake(settings),
        ledger=build_ledger(settings),
        contract_folders=(SHIPPED_CONTRACTS, user_contracts),
    )
