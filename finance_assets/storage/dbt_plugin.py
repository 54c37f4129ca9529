"""dbt-duckdb plugin: gives dbt's connections what our own connections have.

What belongs here: the bridge from dbt-duckdb's plugin interface to
:func:`finance_assets.storage.warehouse.configure_connection`. Named in ``dbt_project/profiles.yml``.
"""

from __future__ import annotations

import os
from typing import Any

from dbt.adapters.duckdb.plugins import BasePlugin

from finance_assets.storage.lake import S3Options
from finance_assets.storage.warehouse import configure_connection


class Plugin(BasePlugin):
    """Configures each connection of dbt as the warehouse does."""

    def configure_connection(self, conn: Any) -> None:
        """Load S3 support where ``FINANCE_ASSETS_DBT_S3_REGION`` says that the lake is there."""
        region = os.environ.get("FINANCE_ASSETS_DBT_S3_REGION")
        endpoint = os.environ.get("FINANCE_ASSETS_DBT_S3_ENDPOINT") or None
        configure_connection(conn, s3=S3Options(region, endpoint) if region else None)
