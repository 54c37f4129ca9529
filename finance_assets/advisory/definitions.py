"""The advisory domain: vendor files to account performance and reconciliation breaks."""

import dagster as dg

from finance_assets.advisory import assets, checks
from finance_assets.advisory.resources import build_intake
from finance_assets.advisory.sensors import advisory_job, vendor_files_sensor
from finance_assets.contracts.advisory import CONTRACTS
from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.partitions import load_assets
from finance_assets.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the domain."""
    return dg.Definitions(
        assets=load_assets(assets, settings),
        asset_checks=[*contract_checks(CONTRACTS), *dg.load_asset_checks_from_modules([checks])],
        jobs=[advisory_job],
        sensors=[vendor_files_sensor],
        resources={"intake": build_intake(settings)},
    )
