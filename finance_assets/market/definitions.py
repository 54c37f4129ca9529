"""The market domain: quotes, instruments, corporate actions and ticker KPIs."""

import dagster as dg

from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.contracts.market import CONTRACTS
from finance_assets.market import assets, checks
from finance_assets.market.resources import build_market_data
from finance_assets.market.schedules import market_sessions_daily, market_sessions_job, morning_quotes
from finance_assets.partitions import load_assets
from finance_assets.settings import Settings


def definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the domain."""
    return dg.Definitions(
        assets=load_assets(assets, settings),
        asset_checks=[*contract_checks(CONTRACTS), *dg.load_asset_checks_from_modules([checks])],
        jobs=[market_sessions_job],
        schedules=[market_sessions_daily, morning_quotes],
        resources={"market_data": build_market_data(settings)},
    )
