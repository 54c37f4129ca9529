"""The transactions domain: queued payments to exact transactions, quarantine and marts."""

import dagster as dg

from finance_assets.contracts.dagster_metadata import contract_checks
from finance_assets.contracts.transactions import CONTRACTS
from finance_assets.partitions import load_assets
from finance_assets.settings import Settings
from finance_assets.transactions import assets
from finance_assets.transactions.resources import build_transaction_intake
from finance_assets.transactions.sensors import queued_transactions_sensor, transactions_job


def definitions(settings: Settings) -> dg.Definitions:
    """Return the definitions of the domain."""
    return dg.Definitions(
        assets=load_assets(assets, settings),
        asset_checks=contract_checks(CONTRACTS),
        jobs=[transactions_job],
        sensors=[queued_transactions_sensor],
        resources={"transaction_intake": build_transaction_intake(settings)},
    )
