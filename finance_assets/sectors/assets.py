"""The sectors branch in Dagster: dbt models from staging to the mart.

What belongs here: the definitions of the branch. SQL stands in ``dbt_project/models``, promises about tables in
``finance_assets.contracts.sectors``, maths in the modules beside this one.
"""

from __future__ import annotations

from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW
from finance_assets.contracts import sectors
from finance_assets.transform.dbt_assets import build_dbt_assets

#: Every model follows its inputs, once their blocking checks have passed: bad quotes move no composite.
sector_models = build_dbt_assets(
    "sector_models",
    sectors.CONTRACTS,
    automation_condition=WHEN_HISTORY_IS_NEW,
)
