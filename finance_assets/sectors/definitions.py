"""The sectors domain: sector composites, risk, correlations, portfolios, signals and their marts."""

import dagster as dg

from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.contracts.sectors import CONTRACTS
from finance_assets.partitions import load_assets
from finance_assets.sectors import assets, checks
from finance_assets.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the domain."""
    return dg.Definitions(
        assets=load_assets(assets, settings),
        asset_checks=[*contract_checks(CONTRACTS), *dg.load_asset_checks_from_modules([checks])],
    )
