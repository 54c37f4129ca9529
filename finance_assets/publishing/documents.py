"""One JSON document per ticker, from its newest KPIs and its description.

What belongs here: the shape of the documents, which consumers rely on key by key. Pure.
"""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from finance_assets.contracts.arrow import storage_schema
from finance_assets.contracts.publishing import TICKER_DOCUMENTS

if TYPE_CHECKING:
    import pyarrow as pa

KPI_NAMES = (
    "rsi_14_day",
    "historical_volatility_30day_percent",
    "sma_50_day",
    "dividend_payout_ratio",
    "volume_anomaly_signal",
)
DOCUMENT_SUFFIX = ".json"


def ticker_documents(kpis: pa.Table, instruments: pa.Table, processed_at: datetime) -> pa.Table:
    """Return one row per ticker: its newest KPIs with its name, earnings and the time.

    Parameters
    ----------
    kpis
        Rows of ``core/ticker_kpis``; of each ticker the newest counts.
    instruments
        Rows of ``raw/instruments``; of each ticker the version that holds today counts, else that of its newest
        session.
    processed_at
        The platform's clock, which says what today is.
    """
    import pyarrow as pa

    newest = kpis.group_by("symbol").aggregate([("session_date", "max")])
    newest = newest.rename_columns({"session_date_max": "session_date"})
    versions: dict[str, list[dict[str, Any]]] = {}
    for version in instruments.to_pylist():
        versions.setdefault(version["symbol"], []).append(version)
    rows = []
    # One row per ticker is left: the only ones that become Python objects.
    for kpi in kpis.join(newest, ["symbol", "session_date"], join_type="left semi").sort_by("symbol").to_pylist():
        own = versions.get(kpi["symbol"], [])
        # Earnings are those known now; a ticker that is listed no longer keeps its last description.
        known = _version(own, processed_at.astimezone(UTC).date()) or _version(own, kpi["session_date"])
        volatility = kpi["historical_volatility_30"]
        rows.append(
            {
                "symbol": kpi["symbol"],
                "company_name": known.get("name"),
                "pe_ratio": known.get("pe_ratio"),
                "eps": known.get("eps"),
                "processed_at": processed_at.astimezone(UTC),
                "rsi_14_day": kpi["rsi_14"],
                "historical_volatility_30day_percent": None if volatility is None else volatility * 100.0,
                "sma_50_day": kpi["sma_50"],
                "dividend_payout_ratio": kpi["dividend_payout_ratio"],
                "volume_anomaly_signal": _signal(kpi["is_volume_anomaly"], kpi["is_low_volume"]),
            }
        )
    return pa.Table.from_pylist(rows, schema=storage_schema(TICKER_DOCUMENTS))


def document_bytes(row: dict[str, Any]) -> bytes:
    """Return one row as its JSON document, UTF-8, keys in their agreed order, a line feed at the end.

    An amount of money is written with the digits it has; what is undefined is null.
    """
    eps = row["eps"]
    document = {
        "symbol": row["symbol"],
        "company_name": row["company_name"],
        "pe_ratio": row["pe_ratio"],
        # At most 18 digits, and 15 of them are exact in the shortest form that a float prints.
        "eps": None if eps is None else float(eps),
        "processed_at": row["processed_at"].isoformat().replace("+00:00", "Z"),
        "calculated_kpis": {name: row[name] for name in KPI_NAMES},
    }
    return (json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def document_row(data: bytes) -> dict[str, Any]:
    """Return the row that :func:`document_bytes` wrote.

    Raises
    ------
    ValueError
        The bytes are not such a document; the message says what is wrong.
    """
    try:
        document = json.loads(data)
        row: dict[str, Any] = document | document["calculated_kpis"]
        del row["calculated_kpis"]
        row["processed_at"] = datetime.fromisoformat(row["processed_at"])
        row["eps"] = None if row["eps"] is None else Decimal(repr(row["eps"]))
    except (ArithmeticError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error
    if list(row) != [*(name for name in TICKER_DOCUMENTS.column_names if name not in KPI_NAMES), *KPI_NAMES]:
        raise ValueError(f"its keys are {', '.join(row)}")
    return row


def document_name(symbol: str) -> str:
    """Return the file name of a ticker's document; characters that a path could stumble on are percent-encoded."""
    return f"{quote(symbol, safe='')}{DOCUMENT_SUFFIX}"


def _version(versions: list[dict[str, Any]], day: date) -> dict[str, Any]:
    """Return the version of one instrument that holds on ``day``; empty where there is none."""
    holding = [
        row for row in versions if row["valid_from"] <= day and (row["valid_to"] is None or row["valid_to"] > day)
    ]
    return max(holding, key=lambda row: row["valid_from"]) if holding else {}


def _signal(is_high: bool | None, is_low: bool | None) -> str | None:
    """Which way the volume is out of the ordinary."""
    if is_high:
        return "high"
    if is_low:
        return "low"
    if is_high is None and is_low is None:
        return None
    return "normal"
