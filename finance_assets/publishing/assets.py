"""Assets of the published layer: what dashboards, the API and people read.

What belongs here: copies of marts in the lake. Readers use these and never the warehouse, so none waits for a writer.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.automation.conditions import WHEN_HISTORY_IS_NEW
from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE
from finance_assets.contracts.dagster_metadata import asset_attributes, check_result
from finance_assets.contracts.macro import MACRO_INDICATORS
from finance_assets.contracts.market import INSTRUMENTS, QUOTES, TICKER_KPIS
from finance_assets.contracts.model import Contract
from finance_assets.contracts.publishing import (
    ACCOUNT_RETURNS,
    DAILY_REPORT,
    RISK_EXPORTS,
    SECTOR_PERFORMANCE,
    TICKER_DOCUMENTS,
)
from finance_assets.contracts.sectors import MART_SECTOR_PERFORMANCE, RISK_MARTS
from finance_assets.partitions import SessionCalendar, partition_days
from finance_assets.publishing.documents import DOCUMENT_SUFFIX, document_bytes, document_name, ticker_documents
from finance_assets.publishing.quality import check_keys, quality_lines
from finance_assets.reference.pools import WAREHOUSE as WAREHOUSE_POOL
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake
from finance_assets.storage.warehouse import Warehouse
from finance_assets.storage.write_steps import sole_writer

#: A ticker without a quote in so many sessions is no longer current and gets no new document.
CURRENT_SESSIONS = 30


def _export(mart: Contract, export: Contract, description: str) -> dg.AssetsDefinition:
    """Return the asset that copies a mart of the warehouse into one file of the lake."""

    @dg.asset(
        **asset_attributes(export),
        description=description,
        ins={"mart": dg.AssetIn(key=dg.AssetKey(mart.asset_key), input_manager_key="warehouse_io_manager")},
        io_manager_key="lake_io_manager",
        pool=WAREHOUSE_POOL,
        automation_condition=WHEN_HISTORY_IS_NEW,
    )
    def copied(mart: Any) -> dg.MaterializeResult[Any]:
        return dagster_output.materialized(value=mart)

    definition: dg.AssetsDefinition = copied
    return definition


sector_performance = _export(
    MART_SECTOR_PERFORMANCE,
    SECTOR_PERFORMANCE,
    "The sector performance mart as one Parquet file: a row per sector and session, returns as fractions.",
)

risk_metrics, correlations, volatility_clustering, diversification, trading_signals, macro_exposure = (
    _export(mart, export, f"{mart.path} as one Parquet file. {mart.grain}")
    for mart, export in zip(RISK_MARTS, RISK_EXPORTS, strict=True)
)


@dg.asset(
    **asset_attributes(ACCOUNT_RETURNS),
    deps=[dg.AssetKey(ACCOUNT_PERFORMANCE.asset_key)],
    pool=WAREHOUSE_POOL,
    automation_condition=WHEN_HISTORY_IS_NEW,
)
def account_returns(
    context: dg.AssetExecutionContext,
    lake: dg.ResourceParam[Lake],
    warehouse: dg.ResourceParam[Warehouse],
    settings: dg.ResourceParam[Settings],
) -> dg.MaterializeResult[Any]:
    """Account performance as a table of the warehouse, and of PostgreSQL where one is configured: all of it at once."""
    table = lake.read(ACCOUNT_PERFORMANCE).table
    rows = warehouse.replace(ACCOUNT_RETURNS, table)
    metadata: dict[str, Any] = {"dagster/row_count": rows}
    if settings.publish_url is not None:
        from finance_assets.storage.postgres import publish

        changed = publish(
            settings.publish_url.get_secret_value(),
            ACCOUNT_RETURNS,
            table,
            seconds=settings.publish_timeout_seconds,
        )
        metadata |= {"inserted": changed.inserted, "updated": changed.updated, "deleted": changed.deleted}
        dagster_output.log(context).info(
            f"PostgreSQL: {changed.inserted} new, {changed.updated} changed, {changed.deleted} gone"
        )
    return dagster_output.materialized(metadata=metadata)


@dg.asset(
    **asset_attributes(TICKER_DOCUMENTS),
    deps=[dg.AssetKey(TICKER_KPIS.asset_key), dg.AssetKey(INSTRUMENTS.asset_key)],
    automation_condition=WHEN_HISTORY_IS_NEW,
)
def ticker_documents_asset(
    lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> dg.MaterializeResult[Any]:
    """One JSON document per ticker with its newest KPIs; volatility in percent, everything else in its own unit."""
    recent = lake.partitions(TICKER_KPIS)[-CURRENT_SESSIONS:]
    kpis = lake.read(TICKER_KPIS, keys=recent).table
    documents = ticker_documents(kpis, lake.read(INSTRUMENTS).table, settings.clock())
    judged = check_result(TICKER_DOCUMENTS, documents)
    if not judged.passed:
        # The documents of the last run stay: readers are better off with an old one than with a wrong one.
        raise dagster_output.failure(f"no document was written: {judged.description}")
    folder = lake.folder(TICKER_DOCUMENTS)
    for row in documents.to_pylist():
        lake.put(f"{folder}/{document_name(row['symbol'])}", document_bytes(row))
    return dagster_output.materialized(
        metadata={"dagster/row_count": documents.num_rows, "uri": f"{folder}/*{DOCUMENT_SUFFIX}"}
    )


#: Table of the report -> contract of what it reads.
REPORT_TABLES = {
    "performance": SECTOR_PERFORMANCE,
    **{
        name: export
        for export in RISK_EXPORTS
        for name in ("risk", "correlations", "signals")
        if export.name == {"risk": "risk_metrics", "signals": "trading_signals"}.get(name, name)
    },
    "macro": MACRO_INDICATORS,
}
#: Where the pages lie, below the lake's address.
REPORT_FOLDER = "published/daily_report_pages"


@dg.asset(
    **asset_attributes(DAILY_REPORT),
    deps=[dg.AssetKey(contract.asset_key) for contract in REPORT_TABLES.values()],
    io_manager_key="lake_io_manager",
)
def daily_report(
    context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], settings: dg.ResourceParam[Settings]
) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per report: its page, and how much of it is unknown. The page is about the newest session with quotes.

    A table that is not there leaves its section out, with the reason on the page. The page is written before its row.
    """
    import hashlib

    import pyarrow as pa

    from finance_assets.contracts.arrow import storage_schema
    from finance_assets.publishing.report import SECTIONS, ReportInputs
    from finance_assets.publishing.report import daily_report as make_report

    sessions = lake.partitions(QUOTES)
    if not sessions:
        raise dagster_output.failure(
            "core/quotes holds no session; run `finance-assets materialize` first", allow_retries=False
        )
    session = partition_days(sessions[-1:])[0]
    closed = SessionCalendar.of(settings).closed_sessions(settings.clock())
    # It cannot vouch for itself: its own check comes after it.
    others = [key for key in check_keys() if key.asset_key != context.asset_key]
    quality, unchecked = quality_lines(context.instance, others)
    report = make_report(
        ReportInputs(
            session=session,
            made_at=settings.clock(),
            tables={
                name: lake.read(contract).table if lake.partitions(contract) else None
                for name, contract in REPORT_TABLES.items()
            },
            expected_session=closed[-1] if closed else None,
            quality=quality,
            unchecked=unchecked,
        )
    )
    path = f"{REPORT_FOLDER}/{session}.html"
    row = {
        "session_date": session,
        "made_ts_utc": settings.clock(),
        "page_path": path,
        "page_sha256": hashlib.sha256(report.page).hexdigest(),
        "page_bytes": len(report.page),
        "section_count": len(SECTIONS) - len(report.missing),
        "missing_sections": "; ".join(f"{name}: {why}" for name, why in report.missing.items()) or None,
        "unknown_values": sum(report.unknown.values()),
        "failed_blocking_checks": sum(not line.passed and line.is_error for line in quality),
        "warned_checks": sum(not line.passed and not line.is_error for line in quality),
        "summary": report.summary,
    }
    with sole_writer(lake, DAILY_REPORT.name, DAILY_REPORT):
        lake.put(f"{lake.root}/{path}", report.page)
        stored = lake.read(DAILY_REPORT).table.to_pylist() if lake.partitions(DAILY_REPORT) else []
        rows = [*(other for other in stored if other["session_date"] != session), row]
        yield dagster_output.materialized(
            value=pa.Table.from_pylist(rows, schema=storage_schema(DAILY_REPORT)),
            metadata={
                "report": dagster_output.markdown(report.summary),
                "page": dagster_output.path(f"{lake.root}/{path}"),
                "missing_sections": dict(report.missing),
                "unknown_values": dict(report.unknown),
            },
        )
