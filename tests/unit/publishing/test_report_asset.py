"""The report as an asset: its page in the lake, its row, what Dagster shows, and a rerun."""

from __future__ import annotations

import hashlib
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from fixtures.rows import good_row, table_of

from finance_assets.contracts.market import QUOTES
from finance_assets.contracts.publishing import DAILY_REPORT, SECTOR_PERFORMANCE
from finance_assets.publishing.assets import daily_report
from finance_assets.publishing.report import SECTIONS
from finance_assets.registry import build_resources
from finance_assets.settings import Settings

FRIDAY = date(2013, 3, 1)


def make(resources: dict[str, Any], instance: dg.DagsterInstance, **options: Any) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [daily_report],
        instance=instance,
        resources={name: resources[name] for name in ("lake", "settings", "lake_io_manager")},
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        **options,
    )


def test_a_page_and_its_row(tmp_path: Path) -> None:
    resources = build_resources(Settings(home=tmp_path))
    lake = resources["lake"]
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(dg.Failure, match="finance-assets materialize"):
            make(resources, instance)
        lake.write_partitions(QUOTES, table_of(QUOTES, good_row(QUOTES, session_date=FRIDAY)), ["2013-03-01"])
        performance = good_row(SECTOR_PERFORMANCE, sector="Energy", session_date=FRIDAY)
        lake.write(SECTOR_PERFORMANCE, table_of(SECTOR_PERFORMANCE, performance))
        result = make(resources, instance)
        (row,) = lake.read(DAILY_REPORT).table.to_pylist()
        page = lake.get(f"{lake.root}/{row['page_path']}")
        assert hashlib.sha256(page).hexdigest() == row["page_sha256"]
        assert (row["session_date"], row["section_count"]) == (FRIDAY, 1)
        # What is missing is in the row, on the page and in Dagster.
        assert row["missing_sections"].count("has not been made yet") == len(SECTIONS) - 1
        assert page.count(b"Not yet computed") == len(SECTIONS) - 1
        metadata = result.asset_materializations_for_node("published__daily_report")[0].metadata
        assert isinstance(metadata["report"], dg.MarkdownMetadataValue)
        assert "| Energy |" in str(metadata["report"].value)

        files = {path: path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file()}
        assert make(resources, instance).success
        assert {path: path.read_bytes() for path in Path(lake.root).rglob("*") if path.is_file()} == files
    resources["ledger"].close()
