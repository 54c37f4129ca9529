"""The JSON documents that consumers read key by key."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from fixtures.quotes import table_of

from finance_assets.contracts.market import INSTRUMENTS, TICKER_KPIS
from finance_assets.contracts.publishing import TICKER_DOCUMENTS
from finance_assets.contracts.validation import violations
from finance_assets.publishing.assets import CURRENT_SESSIONS, ticker_documents_asset
from finance_assets.publishing.checks import ticker_documents_honour_contract
from finance_assets.publishing.documents import document_bytes, document_name, ticker_documents
from finance_assets.settings import Settings
from finance_assets.storage.lake import Lake

NOW = datetime(2012, 2, 1, 22, 30, tzinfo=UTC)
EARLIER, NEWEST = date(2012, 1, 30), date(2012, 1, 31)


def kpi(**changes: Any) -> dict[str, Any]:
    return {
        "symbol": "AAA",
        "session_date": NEWEST,
        "close_split_adjusted": 51.5,
        "total_return": 0.01,
        "return_span_sessions": 1,
        "rsi_14": 61.25,
        "rsi_14_status": "ok",
        "sma_50": 50.125,
        "sma_50_status": "ok",
        "historical_volatility_30": 0.2345,
        "historical_volatility_30_status": "ok",
        "volume_zscore_20": 0.5,
        "volume_zscore_20_status": "ok",
        "volume_modified_zscore_20": 0.75,
        "volume_modified_zscore_20_status": "ok",
        "dividend_payout_ratio": None,
        "dividend_payout_ratio_status": "missing_input",
        "is_volume_anomaly": False,
        "is_low_volume": False,
        "window_missing_sessions": 0,
        "price_basis": "raw",
        "adjustment_basis": "0" * 16,
    } | changes


UNDEFINED = {
    "rsi_14": None,
    "rsi_14_status": "insufficient_history",
    "sma_50": None,
    "sma_50_status": "insufficient_history",
    "historical_volatility_30": None,
    "historical_volatility_30_status": "insufficient_history",
    "is_volume_anomaly": None,
    "is_low_volume": None,
}


def instrument(**changes: Any) -> dict[str, Any]:
    return {
        "symbol": "AAA",
        "valid_from": date(2000, 1, 3),
        "valid_to": None,
        "name": "Triple A, Inc.",
        "instrument_type": "equity",
        "gics_sector": "Energy",
        "provider_sector": None,
        "currency": "USD",
        "exchange": "XNYS",
        "eps": Decimal("8.4"),
        "pe_ratio": 36.22,
        "source": "by hand",
    } | changes


def documents(kpis: list[dict[str, Any]], instruments: list[dict[str, Any]], now: datetime = NOW) -> pa.Table:
    table = ticker_documents(table_of(TICKER_KPIS, kpis), table_of(INSTRUMENTS, instruments), now)
    assert violations(TICKER_DOCUMENTS, table) == []
    return table


def document(kpi_row: dict[str, Any], *instruments: dict[str, Any], now: datetime = NOW) -> dict[str, Any]:
    (row,) = documents([kpi_row], list(instruments), now).to_pylist()
    read: dict[str, Any] = json.loads(document_bytes(row))
    return read


def test_the_keys_are_those_agreed_on_in_their_order() -> None:
    found = document(kpi(), instrument())
    assert list(found) == ["symbol", "company_name", "pe_ratio", "eps", "processed_at", "calculated_kpis"]
    assert list(found["calculated_kpis"]) == [
        "rsi_14_day",
        "historical_volatility_30day_percent",
        "sma_50_day",
        "dividend_payout_ratio",
        "volume_anomaly_signal",
    ]


def test_the_values_are_those_of_the_kpi_row() -> None:
    assert document(kpi(dividend_payout_ratio=0.1625, dividend_payout_ratio_status="ok"), instrument()) == {
        "symbol": "AAA",
        "company_name": "Triple A, Inc.",
        "pe_ratio": 36.22,
        "eps": 8.4,
        "processed_at": "2012-02-01T22:30:00Z",
        "calculated_kpis": {
            "rsi_14_day": 61.25,
            "historical_volatility_30day_percent": pytest.approx(23.45),
            "sma_50_day": 50.125,
            "dividend_payout_ratio": 0.1625,
            "volume_anomaly_signal": "normal",
        },
    }


def test_what_is_undefined_is_null() -> None:
    found = document(kpi(**UNDEFINED))
    assert found["company_name"] is found["pe_ratio"] is found["eps"] is None
    assert set(found["calculated_kpis"].values()) == {None}


@pytest.mark.parametrize(
    ("high", "low", "signal"),
    [
        (True, False, "high"),
        (True, None, "high"),
        (False, True, "low"),
        (None, True, "low"),
        (False, False, "normal"),
        (None, False, "normal"),
        (False, None, "normal"),
        (None, None, None),
    ],
)
def test_the_signal_of_the_volume(high: bool | None, low: bool | None, signal: str | None) -> None:
    found = document(kpi(is_volume_anomaly=high, is_low_volume=low), instrument())
    assert found["calculated_kpis"]["volume_anomaly_signal"] == signal


def test_bytes_are_utf8_json_that_ends_with_a_line_feed() -> None:
    (row,) = documents([kpi()], [instrument(name="Crédit Ägricole")]).to_pylist()
    data = document_bytes(row)
    assert data == document_bytes(row)
    assert data.endswith(b"}\n")
    assert "Crédit Ägricole" in data.decode("utf-8")
    with pytest.raises(ValueError, match="JSON"):
        document_bytes(row | {"rsi_14_day": float("nan")})


def test_earnings_keep_the_digits_they_have() -> None:
    (row,) = documents([kpi()], [instrument(eps=Decimal("-0.10000001"))]).to_pylist()
    assert b'"eps": -0.10000001,' in document_bytes(row)


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        ("AAPL", "AAPL.json"),
        ("^GSPC", "%5EGSPC.json"),
        ("BRK/B", "BRK%2FB.json"),
        ("BRK.B", "BRK.B.json"),
        ("../AAPL", "..%2FAAPL.json"),
        ("A B", "A%20B.json"),
    ],
)
def test_a_file_name_cannot_leave_its_folder(symbol: str, name: str) -> None:
    assert document_name(symbol) == name
    assert document(kpi(symbol=symbol))["symbol"] == symbol


def test_of_each_ticker_its_newest_row_counts_whatever_the_order() -> None:
    rows = [
        kpi(rsi_14=30.0, session_date=EARLIER),
        kpi(rsi_14=70.0),
        kpi(symbol="BBB", rsi_14=40.0, session_date=EARLIER),
        kpi(symbol="^GSPC", rsi_14=50.0),
    ]
    for given in (rows, rows[::-1]):
        table = documents(given, [])
        assert list(zip(table["symbol"].to_pylist(), table["rsi_14_day"].to_pylist(), strict=True)) == [
            ("AAA", 70.0),
            ("BBB", 40.0),
            ("^GSPC", 50.0),
        ]
    assert documents([], [instrument()]).num_rows == 0


def test_the_description_is_the_one_that_holds_today() -> None:
    """An overview of the evening describes the ticker of that evening's session too."""
    versions = [
        instrument(valid_to=date(2012, 2, 1), eps=None, name="Old"),
        instrument(valid_from=date(2012, 2, 1), eps=Decimal("2"), name="New"),
    ]
    found = document(kpi(), *versions)
    assert (found["company_name"], found["eps"]) == ("New", 2.0)
    found = document(kpi(), *versions, now=datetime(2012, 1, 31, 22, tzinfo=UTC))
    assert (found["company_name"], found["eps"]) == ("Old", None)


def test_a_ticker_that_is_no_longer_listed_keeps_its_last_description() -> None:
    found = document(kpi(), instrument(valid_to=date(2012, 2, 1), name="Gone"), instrument(symbol="ZZZ", name="Other"))
    assert found["company_name"] == "Gone"


def test_a_clock_of_another_zone_is_written_in_utc() -> None:
    assert document(kpi(), now=datetime.fromisoformat("2012-02-01T17:30:00-05:00"))["processed_at"] == (
        "2012-02-01T22:30:00Z"
    )


# -- the asset ---------------------------------------------------------------------------------------------------------


def publish(lake: Lake, settings: Settings) -> dg.MaterializeResult[Any]:
    result: dg.MaterializeResult[Any] = ticker_documents_asset(lake=lake, settings=settings)
    return result


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path, now=NOW)


@pytest.fixture
def lake(settings: Settings) -> Lake:
    made = Lake(settings.lake)
    made.write(INSTRUMENTS, table_of(INSTRUMENTS, [instrument()]))
    return made


def put(lake: Lake, *rows: dict[str, Any]) -> None:
    days = sorted({row["session_date"].isoformat() for row in rows})
    lake.write_partitions(TICKER_KPIS, table_of(TICKER_KPIS, rows), days)


def test_each_document_equals_its_kpi_row(lake: Lake, settings: Settings) -> None:
    put(lake, kpi(), kpi(symbol="^GSPC", **UNDEFINED))
    result = publish(lake, settings)
    folder = Path(lake.folder(TICKER_DOCUMENTS))
    assert sorted(path.name for path in folder.iterdir()) == ["%5EGSPC.json", "AAA.json"]
    found = json.loads((folder / "AAA.json").read_bytes())
    assert found["calculated_kpis"]["rsi_14_day"] == kpi()["rsi_14"]
    assert found["calculated_kpis"]["sma_50_day"] == kpi()["sma_50"]
    assert found["processed_at"] == "2012-02-01T22:30:00Z"
    assert result.metadata is not None
    assert result.metadata["dagster/row_count"] == 2
    before = {path: path.read_bytes() for path in folder.iterdir()}
    publish(lake, settings)
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_a_document_that_breaks_its_contract_is_not_written(lake: Lake, settings: Settings) -> None:
    put(lake, kpi(rsi_14=170.0))
    with pytest.raises(dg.Failure, match=r"no document was written: rsi_14_day <= 100: broken 1 times, first by AAA"):
        publish(lake, settings)
    assert not Path(lake.folder(TICKER_DOCUMENTS)).exists()


def test_stored_documents_are_read_back_as_rows_that_keep_their_contract(lake: Lake, settings: Settings) -> None:
    put(lake, kpi(), kpi(symbol="^GSPC", **UNDEFINED))
    publish(lake, settings)
    result = ticker_documents_honour_contract(lake=lake)
    assert result.passed, result.description
    assert result.metadata["rows"].value == 2


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda text: text[:-20], "AAA.json: JSONDecodeError"),
        (lambda text: text.replace('"AAA"', '"BBB"'), "AAA.json: it is the document of BBB"),
        (lambda text: text.replace('"eps"', '"EPS"'), "AAA.json: KeyError: 'eps'"),
        (lambda text: text.replace("{", '{"more": 1,', 1), "its keys are more, symbol"),
        (lambda text: "[]", "AAA.json: TypeError"),
        (lambda text: re.sub(r'("rsi_14_day": )[0-9.]+', r"\g<1>170.0", text), "rsi_14_day <= 100: broken 1 times"),
    ],
)
def test_a_stored_document_that_was_spoilt_fails_the_check(
    lake: Lake, settings: Settings, change: Callable[[str], str], complaint: str
) -> None:
    put(lake, kpi())
    publish(lake, settings)
    (path,) = Path(lake.folder(TICKER_DOCUMENTS)).iterdir()
    path.write_text(change(path.read_text()))
    result = ticker_documents_honour_contract(lake=lake)
    assert not result.passed
    assert complaint in (result.description or "")


def test_a_ticker_that_has_been_silent_for_long_gets_no_new_document(lake: Lake, settings: Settings) -> None:
    days = [date.fromordinal(NEWEST.toordinal() - n) for n in range(CURRENT_SESSIONS + 1)]
    put(lake, *(kpi(session_date=day) for day in days), kpi(symbol="OLD", session_date=days[-1]))
    publish(lake, settings)
    assert [path.name for path in Path(lake.folder(TICKER_DOCUMENTS)).iterdir()] == ["AAA.json"]
