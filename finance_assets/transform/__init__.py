"""Transformations in SQL: the dbt project as Dagster assets.

``dbt_assets`` turns warehouse contracts into assets and runs dbt for them; the SQL stands in ``dbt_project``.
"""
