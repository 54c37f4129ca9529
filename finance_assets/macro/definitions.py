"""The macro domain: macro series with the date on which each value became known."""

import dagster as dg

from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.contracts.macro import CONTRACTS
from finance_assets.macro import assets, checks
from finance_assets.macro.resources import MacroData
from finance_assets.partitions import load_assets
from finance_assets.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the domain."""
    return dg.Definitions(
        assets=load_assets(assets, settings),
        asset_checks=[*contract_checks(CONTRACTS), *dg.load_asset_checks_from_modules([checks])],
        resources={"macro_data": MacroData(settings)},
    )
