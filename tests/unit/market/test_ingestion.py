"""Rows of raw/quotes and raw/instruments: session, provenance, what is kept, and versions over time."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pytest
from fixtures.quotes import FETCHED, bar, overview, raw_row, raw_table, table_of

from finance_assets.contracts.arrow import conform, storage_schema
from finance_assets.contracts.market import INSTRUMENTS, QUOTES_RAW
from finance_assets.contracts.validation import violations
from finance_assets.market.ingestion import LandedBatch, instrument_versions, keep_known, raw_quotes
from finance_assets.market.sources.base import Overview, QuoteBatch, QuoteRow, quote_table
from finance_assets.storage.lake import parquet_bytes

FRIDAY, SATURDAY, SUNDAY, MONDAY, TUESDAY = (date(2012, 1, day) for day in (6, 7, 8, 9, 10))


def landed(rows: Sequence[QuoteRow], symbol: str = "AAA", **changes: Any) -> LandedBatch:
    batch = QuoteBatch(
        symbol=symbol,
        provider="fake",
        request="GET /quotes",
        fetched_ts_utc=FETCHED,
        page=b"{}",
        page_suffix=".json",
        table=quote_table(rows),
    )
    return LandedBatch(replace(batch, **changes), "0" * 64)


def placed(table: pa.Table) -> list[tuple[str, date, date, int]]:
    rows = conform(QUOTES_RAW, table).to_pylist()
    return [(row["symbol"], row["session_date"], row["quote_date"], row["row_number"]) for row in rows]


# -- sessions and provenance -----------------------------------------------------------------------------------------


def test_a_weekend_row_belongs_to_the_next_session() -> None:
    table = raw_quotes([landed([bar(FRIDAY), bar(SATURDAY), bar(SUNDAY), bar(MONDAY)])], [FRIDAY, MONDAY])
    assert placed(table) == [
        ("AAA", FRIDAY, FRIDAY, 0),
        ("AAA", MONDAY, SATURDAY, 0),
        ("AAA", MONDAY, SUNDAY, 1),
        ("AAA", MONDAY, MONDAY, 2),
    ]


def test_what_a_partition_holds_does_not_depend_on_the_range_that_was_asked_for() -> None:
    rows = [bar(FRIDAY), bar(SATURDAY), bar(MONDAY), bar(MONDAY, "11"), bar(TUESDAY)]
    together = raw_quotes([landed(rows)], [FRIDAY, MONDAY, TUESDAY], date(2012, 1, 5))
    apart = [
        raw_quotes([landed(rows)], [FRIDAY], date(2012, 1, 5)),
        # A provider that was asked from Saturday on, and one that returns everything, give the same.
        raw_quotes([landed(rows[1:])], [MONDAY], FRIDAY),
        raw_quotes([landed(rows)], [TUESDAY], MONDAY),
    ]
    assert conform(QUOTES_RAW, pa.concat_tables(apart)).equals(conform(QUOTES_RAW, together))


def test_a_provider_that_returns_more_than_was_asked_for_is_cut() -> None:
    rows = [bar(date(2012, 1, day)) for day in (4, 5, 6, 7, 9, 10, 11)]
    assert placed(raw_quotes([landed(rows)], [MONDAY])) == [("AAA", MONDAY, MONDAY, 0)]
    assert placed(raw_quotes([landed(rows)], [MONDAY], FRIDAY)) == [
        ("AAA", MONDAY, SATURDAY, 0),
        ("AAA", MONDAY, MONDAY, 1),
    ]
    # A row after the last session belongs to one that this run does not fill.
    assert placed(raw_quotes([landed([bar(SATURDAY)])], [FRIDAY])) == []


def test_rows_out_of_order_are_numbered_within_their_session() -> None:
    batch = landed([bar(FRIDAY), bar(MONDAY), bar(MONDAY, "11")])
    mixed = LandedBatch(replace(batch.batch, table=batch.batch.table.take([1, 0, 2])), None)
    table = raw_quotes([mixed], [FRIDAY, MONDAY])
    assert placed(table) == [("AAA", FRIDAY, FRIDAY, 0), ("AAA", MONDAY, MONDAY, 0), ("AAA", MONDAY, MONDAY, 1)]
    assert conform(QUOTES_RAW, table).column("close").to_pylist()[1:] == [Decimal("10"), Decimal("11")]


def test_each_row_carries_its_provenance() -> None:
    table = raw_quotes(
        [
            landed([bar(MONDAY)], fallback_reason="first: rate_limited"),
            landed([bar(MONDAY)], "BBB", provider="other", request="GET /other"),
        ],
        [MONDAY],
    )
    rows = conform(QUOTES_RAW, table).to_pylist()
    assert [(r["symbol"], r["provider"], r["request"], r["fallback_reason"]) for r in rows] == [
        ("AAA", "fake", "GET /quotes", "first: rate_limited"),
        ("BBB", "other", "GET /other", None),
    ]
    assert {row["fetched_ts_utc"] for row in rows} == {FETCHED}
    assert {row["response_sha256"] for row in rows} == {"0" * 64}
    assert violations(QUOTES_RAW, conform(QUOTES_RAW, table)) == []


def test_decimals_and_nulls_pass_through_unchanged() -> None:
    row = QuoteRow(MONDAY, close=Decimal("0.12345678"), currency="USD", parse_error="open: missing")
    (found,) = raw_quotes([landed([row])], [MONDAY]).to_pylist()
    assert found["close"] == Decimal("0.12345678")
    assert found["parse_error"] == "open: missing"
    assert found["open"] is found["volume"] is found["dividend_amount"] is found["split_ratio"] is None


@pytest.mark.parametrize("batches", [[], [landed([])], [landed([]), landed([], "BBB")]])
def test_no_rows_give_an_empty_table(batches: list[LandedBatch]) -> None:
    table = raw_quotes(batches, [MONDAY])
    assert table.num_rows == 0
    assert table.schema.names == QUOTES_RAW.column_names


# -- what is kept ----------------------------------------------------------------------------------------------------

LATER = datetime.fromisoformat("2012-03-01T00:00:00+00:00")


def fetched_later(**changes: Any) -> dict[str, Any]:
    """The same content, fetched again in another way."""
    return raw_row(
        provider="other",
        fetched_ts_utc=LATER,
        request="GET /again",
        response_sha256="1" * 64,
        fallback_reason="fake: down",
        **changes,
    )


def kept(fetched: list[dict[str, Any]], stored: list[dict[str, Any]]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = conform(QUOTES_RAW, keep_known(raw_table(*fetched), raw_table(*stored))).to_pylist()
    return rows


def as_stored(*rows: dict[str, Any]) -> list[dict[str, Any]]:
    table: list[dict[str, Any]] = conform(QUOTES_RAW, raw_table(*rows)).to_pylist()
    return table


def test_the_same_content_keeps_its_first_provenance() -> None:
    stored = [raw_row(), raw_row(symbol="BBB", split_ratio=2.0, dividend_amount="0.5")]
    again = [fetched_later(), fetched_later(symbol="BBB", split_ratio=2.0, dividend_amount="0.5")]
    assert kept(again, stored) == as_stored(*stored)
    first, second = (
        parquet_bytes(conform(QUOTES_RAW, table))
        for table in (raw_table(*stored), keep_known(raw_table(*again), raw_table(*stored)))
    )
    assert first == second


@pytest.mark.parametrize(
    "change",
    [
        {"close": "10.50000001"},
        {"open": None},
        {"volume": 1001},
        {"volume": None},
        {"dividend_amount": "0"},
        {"split_ratio": 1.0},
        {"parse_error": "open: missing"},
        {"currency": "EUR"},
        {"vendor_adjusted_close": "10"},
        {"price_basis": "total_return_adjusted"},
        {"action_derivation": "reported"},
    ],
)
def test_changed_content_replaces_with_its_own_provenance(change: dict[str, Any]) -> None:
    assert kept([fetched_later(**change)], [raw_row()]) == as_stored(fetched_later(**change))
    assert kept([fetched_later()], [raw_row(**change)]) == as_stored(fetched_later())


def test_a_ticker_that_was_not_fetched_keeps_its_rows() -> None:
    stored = [raw_row(), raw_row(symbol="BBB"), raw_row(session_date=TUESDAY)]
    new = fetched_later(symbol="BBB", close="10.60")
    assert kept([new], stored) == as_stored(stored[0], stored[2], new)
    assert kept([], stored) == as_stored(*stored)


def test_a_new_ticker_and_a_new_session_come_in() -> None:
    stored = [raw_row()]
    new = [fetched_later(symbol="BBB"), fetched_later(session_date=TUESDAY)]
    assert kept([fetched_later(), *new], stored) == as_stored(raw_row(), *new)
    assert kept(new, []) == as_stored(*new)


def test_a_day_of_a_ticker_is_kept_or_replaced_whole() -> None:
    first, second = raw_row(), raw_row(row_number=1, close="10.60")
    # The second row is gone, so the whole day is new.
    assert kept([fetched_later()], [first, second]) == as_stored(fetched_later())
    # The second row has come, so the whole day is new.
    both = [fetched_later(), fetched_later(row_number=1, close="10.60")]
    assert kept(both, [first]) == as_stored(*both)
    assert kept(both, [first, second]) == as_stored(first, second)
    # The same rows in another order in the answer are another answer.
    swapped = [fetched_later(row_number=1), fetched_later(close="10.60")]
    assert kept(swapped, [first, second]) == as_stored(*swapped)


def test_the_order_of_rows_in_the_tables_means_nothing() -> None:
    days = [date(2012, 1, day) for day in (9, 10, 11)]
    stored = [raw_row(symbol=symbol, session_date=day) for symbol in ("AAA", "BBB") for day in days]
    fetched = [fetched_later(symbol="AAA", session_date=day, close=f"10.{n}") for n, day in enumerate(days, 5)]
    expected = kept(fetched, stored)
    assert {row["fetched_ts_utc"] for row in expected} == {FETCHED, LATER}
    for seed in range(3):
        shuffled = random.Random(seed)
        shuffled.shuffle(fetched)
        shuffled.shuffle(stored)
        assert kept(fetched, stored) == expected


# -- versions of instruments -----------------------------------------------------------------------------------------


def known(**changes: Any) -> dict[str, Any]:
    return {
        "symbol": "AAA",
        "valid_from": date(2000, 1, 3),
        "valid_to": None,
        "name": "Triple A",
        "instrument_type": "equity",
        "gics_sector": "Energy",
        "provider_sector": None,
        "currency": "USD",
        "exchange": "XNYS",
        "eps": None,
        "pe_ratio": None,
        "source": "by hand",
    } | changes


def versions(
    hand_made: list[dict[str, Any]],
    said: list[Overview],
    observed: date,
    stored: pa.Table | None = None,
) -> pa.Table:
    table = instrument_versions(
        table_of(INSTRUMENTS, hand_made), {overview.symbol: overview for overview in said}, observed, stored
    )
    assert violations(INSTRUMENTS, table) == []
    rows = table.to_pylist()
    for earlier, later in pairwise(rows):
        if earlier["symbol"] == later["symbol"]:
            assert earlier["valid_to"] is not None
            assert earlier["valid_to"] <= later["valid_from"]
    return table


def spans(table: pa.Table) -> list[tuple[str, date, date | None]]:
    return [(row["symbol"], row["valid_from"], row["valid_to"]) for row in table.to_pylist()]


D1, D2, D3 = date(2012, 1, 31), date(2012, 2, 7), date(2012, 2, 14)


def test_nothing_that_lies_after_the_clock_is_known() -> None:
    by_hand = [
        known(valid_to=date(2007, 1, 9)),
        known(valid_from=date(2007, 1, 9), valid_to=date(2018, 9, 28), name="Triple A Inc."),
        known(valid_from=date(2018, 9, 28), gics_sector="Utilities"),
        known(symbol="BBB", valid_from=date(2020, 1, 2)),
    ]
    assert spans(versions(by_hand, [], D1)) == [
        ("AAA", date(2000, 1, 3), date(2007, 1, 9)),
        ("AAA", date(2007, 1, 9), None),
    ]
    assert spans(versions(by_hand, [], date(2018, 9, 28)))[1:] == [
        ("AAA", date(2007, 1, 9), date(2018, 9, 28)),
        ("AAA", date(2018, 9, 28), None),
    ]
    assert versions(by_hand, [], date(1999, 1, 4)).num_rows == 0


def test_an_overview_makes_a_version_and_the_hand_made_sector_stands() -> None:
    table = versions([known()], [overview()], D1)
    assert spans(table) == [("AAA", date(2000, 1, 3), D1), ("AAA", D1, None)]
    row = table.to_pylist()[1]
    assert row["gics_sector"] == "Energy"
    assert row["provider_sector"] == "TECHNOLOGY"
    assert (row["eps"], row["pe_ratio"], row["name"]) == (Decimal("2.5"), 20.5, "AAA Inc.")
    assert row["source"] == "fake overview, GET /overview/AAA"


def test_a_ticker_that_is_not_in_the_universe_is_described_by_its_overview() -> None:
    table = versions([], [overview(instrument_type="etf", currency=None, name=None, exchange=None)], D1)
    (row,) = table.to_pylist()
    assert (row["valid_from"], row["valid_to"]) == (D1, None)
    assert (row["name"], row["instrument_type"], row["currency"]) == ("AAA", "equity", "USD")
    assert row["gics_sector"] is None


def test_a_second_run_changes_nothing() -> None:
    by_hand = [known(), known(symbol="BBB")]
    first = versions(by_hand, [overview(), overview("CCC")], D1)
    for day in (D1, D2, D3):
        assert versions(by_hand, [overview(), overview("CCC")], day, first).equals(first)
        # An overview that failed takes nothing away.
        assert versions(by_hand, [], day, first).equals(first)


def test_a_change_of_sector_or_earnings_makes_a_version_from_that_day() -> None:
    first = versions([known()], [overview()], D1)
    second = versions([known()], [overview(eps=Decimal("2.75"))], D2, first)
    third = versions([known()], [overview(eps=Decimal("2.75"), sector="ENERGY")], D3, second)
    assert spans(third) == [("AAA", date(2000, 1, 3), D1), ("AAA", D1, D2), ("AAA", D2, D3), ("AAA", D3, None)]
    rows = third.to_pylist()
    assert [row["eps"] for row in rows] == [None, Decimal("2.5"), Decimal("2.75"), Decimal("2.75")]
    assert [row["provider_sector"] for row in rows] == [None, "TECHNOLOGY", "TECHNOLOGY", "ENERGY"]
    assert versions([known()], [overview(eps=Decimal("2.75"), sector="ENERGY")], D3, third).equals(third)


def test_a_gics_sector_of_a_provider_changes_the_sector() -> None:
    first = versions([], [overview(sector="Energy", sector_scheme="GICS")], D1)
    second = versions([], [overview(sector="Utilities", sector_scheme="GICS")], D2, first)
    assert [row["gics_sector"] for row in second.to_pylist()] == ["Energy", "Utilities"]
    assert [row["provider_sector"] for row in second.to_pylist()] == [None, None]


def test_the_second_overview_of_a_day_updates_in_place() -> None:
    first = versions([known()], [overview()], D1)
    second = versions([known()], [overview(eps=Decimal("2.60"))], D1, first)
    assert spans(second) == spans(first)
    assert second.to_pylist()[1]["eps"] == Decimal("2.6")


def test_earnings_are_as_stated_also_where_nothing_is_stated() -> None:
    first = versions([known()], [overview()], D1)
    second = versions([known()], [overview(eps=None, pe_ratio=None)], D2, first)
    assert [(row["eps"], row["pe_ratio"]) for row in second.to_pylist()[1:]] == [(Decimal("2.5"), 20.5), (None, None)]


def test_a_correction_of_the_universe_reaches_versions_stored_before() -> None:
    first = versions([known(gics_sector="Energy")], [overview()], D2)
    corrected = [known(valid_to=D1), known(valid_from=D1, gics_sector="Utilities")]
    table = versions(corrected, [], D3, first)
    assert [(row["valid_from"], row["gics_sector"]) for row in table.to_pylist()] == [
        (date(2000, 1, 3), "Energy"),
        (D1, "Utilities"),
        (D2, "Utilities"),
    ]


def test_a_ticker_that_was_delisted_stays_so() -> None:
    table = versions([known(valid_to=date(2010, 6, 1))], [], D1)
    assert spans(table) == [("AAA", date(2000, 1, 3), date(2010, 6, 1))]
    # One that is listed again begins anew.
    table = versions([known(valid_to=date(2010, 6, 1))], [overview()], D1, table)
    assert spans(table) == [("AAA", date(2000, 1, 3), date(2010, 6, 1)), ("AAA", D1, None)]


def test_many_versions_do_not_take_long() -> None:
    """500 tickers looked at once a week for ten years: time that grows with the square would be minutes."""
    import time

    weeks = [date.fromordinal(date(2010, 1, 4).toordinal() + 7 * n) for n in range(60)]
    stored = [
        known(symbol=f"T{number:03}", valid_from=week, valid_to=after, pe_ratio=float(number))
        for number in range(300)
        for week, after in zip(weeks, [*weeks[1:], None], strict=True)
    ]
    said = {f"T{number:03}": overview(f"T{number:03}") for number in range(300)}
    started = time.perf_counter()
    table = instrument_versions(
        storage_schema(INSTRUMENTS).empty_table(), said, date(2012, 1, 31), table_of(INSTRUMENTS, stored)
    )
    assert table.num_rows == 300 * 61
    assert time.perf_counter() - started < 5
