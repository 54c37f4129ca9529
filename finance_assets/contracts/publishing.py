"""Contracts of what readers outside the pipeline use: marts exported to the lake, and one document per ticker.

What belongs here: tables of the ``published`` layer. An export repeats its mart, so its columns are the mart's.
"""

from __future__ import annotations

from dataclasses import replace

from finance_assets.contracts.advisory import ACCOUNT_PERFORMANCE
from finance_assets.contracts.model import Column, Contract, Layer, Partitioning, Store
from finance_assets.contracts.sectors import MART_SECTOR_PERFORMANCE, RISK_MARTS
from finance_assets.reference.anomalies import MODIFIED_Z_THRESHOLD

GROUP = "publishing"
VOLUME_SIGNALS = ("high", "normal", "low")


def _published(contract: Contract, name: str) -> Contract:
    """Return the contract of an export: the same rows and columns, as one file in the lake."""
    return replace(
        contract,
        layer=Layer.PUBLISHED,
        name=name,
        group=GROUP,
        store=Store.LAKE,
        inputs=(contract.path,),
        source=f"{contract.path}.",
        description=f"{contract.description} Exported for dashboards, the API and notebooks.",
    )


SECTOR_PERFORMANCE = _published(MART_SECTOR_PERFORMANCE, "sector_performance")
#: The risk marts under their own names: risk_metrics, correlations, volatility_clustering and so on.
RISK_EXPORTS = tuple(_published(mart, mart.name.removeprefix("mart_")) for mart in RISK_MARTS)

TICKER_DOCUMENTS = Contract(
    layer=Layer.PUBLISHED,
    name="ticker_documents",
    group=GROUP,
    store=Store.DOCUMENTS,
    grain="One ticker, as of its newest session.",
    description="One JSON document per ticker; the KPIs stand in the object calculated_kpis.",
    source="core/ticker_kpis, raw/instruments.",
    columns=(
        Column("symbol", "string", "ticker symbol", "Ticker as the exchange writes it."),
        Column("company_name", "string", "text", "Name of the company or index.", True),
        Column("pe_ratio", "float64", "ratio", "Price to earnings as the provider's overview states it.", True),
        Column("eps", "price", "currency per share", "Earnings per share as the overview states them.", True),
        Column("processed_at", "timestamp", "UTC", "When the document was made, by the platform's clock."),
        Column("rsi_14_day", "float64", "index points 0..100", "Relative strength index.", True, 0, 100),
        Column(
            "historical_volatility_30day_percent",
            "float64",
            "percent per year",
            "Historical volatility of 30 returns, times 100.",
            True,
            0,
        ),
        Column("sma_50_day", "float64", "currency", "Mean of the last 50 split-adjusted closes.", True, 0),
        Column("dividend_payout_ratio", "float64", "fraction", "Dividends paid over net income.", True),
        Column(
            "volume_anomaly_signal",
            "string",
            "enumeration",
            f"high: modified z-score above {MODIFIED_Z_THRESHOLD}; low: z-score of -3 or less; "
            "null where both are undefined.",
            True,
            allowed=VOLUME_SIGNALS,
        ),
    ),
    key=("symbol",),
)

DAILY_REPORT = Contract(
    layer=Layer.PUBLISHED,
    name="daily_report",
    group=GROUP,
    grain="One report, about one exchange session.",
    description="Index of the morning's reports. Each is one HTML page in the lake that needs nothing else to be read.",
    source="The published marts, core/macro_indicators, and what Dagster's checks found last.",
    columns=(
        Column("session_date", "date", "exchange session", "Session that the report is about."),
        Column("made_ts_utc", "timestamp", "UTC", "When it was made, by the platform's clock."),
        Column("page_path", "string", "path", "The page, below the lake's address."),
        Column("page_sha256", "string", "sha256", "Fingerprint of its bytes."),
        Column("page_bytes", "int64", "bytes", "Length of the page.", minimum=1),
        Column("section_count", "int32", "sections", "Sections that could be shown.", minimum=0),
        Column("missing_sections", "string", "text", "Sections that could not, with the reasons; null for none.", True),
        Column("unknown_values", "int32", "values", "Values that the page shows as unknown.", minimum=0),
        Column("failed_blocking_checks", "int32", "checks", "Blocking checks that had failed.", minimum=0),
        Column("warned_checks", "int32", "checks", "Checks that asked for a look.", minimum=0),
        Column("summary", "string", "Markdown", "The report in a few lines."),
    ),
    key=("session_date",),
)

ACCOUNT_RETURNS = replace(
    ACCOUNT_PERFORMANCE,
    layer=Layer.PUBLISHED,
    group=GROUP,
    store=Store.WAREHOUSE,
    partitioning=Partitioning.NONE,
    partition_column=None,
    key=("vendor", "account_id", "granularity", "period_end"),
    inputs=(ACCOUNT_PERFORMANCE.path,),
    source=f"{ACCOUNT_PERFORMANCE.path}.",
    description=(
        f"{ACCOUNT_PERFORMANCE.description} A table of the warehouse, and of PostgreSQL where "
        "FINANCE_ASSETS_PUBLISH_URL names one."
    ),
)

CONTRACTS = (SECTOR_PERFORMANCE, *RISK_EXPORTS, TICKER_DOCUMENTS, DAILY_REPORT, ACCOUNT_RETURNS)
