"""What was known when: no number is seen before its release, and a revision does not change the past."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from finance_assets.arrays import known_rows
from finance_assets.contracts.arrow import conform
from finance_assets.contracts.macro import MACRO_INDICATORS, MACRO_SERIES
from finance_assets.contracts.validation import violations
from finance_assets.macro.point_in_time import (
    LandedSeries,
    macro_indicators,
    macro_series,
    overdue_series,
)
from finance_assets.macro.series import SERIES, MacroSeries
from finance_assets.macro.sources import Observation, SeriesBatch

BY_ID = {series.series_id: series for series in SERIES}
CPI, OIL = BY_ID["CPIAUCSL"], BY_ID["DCOILWTICO"]
TODAY = date(2024, 3, 15)
SESSIONS = [date(2024, 1, 8) + timedelta(days=n) for n in range(60)]


def landed(series: MacroSeries, *rows: tuple[date, date, str], basis: str = "vintage") -> LandedSeries:
    batch = SeriesBatch(
        series_id=series.series_id,
        provider="fred",
        request="GET /x",
        fetched_ts_utc=datetime(2024, 3, 15, 12, tzinfo=UTC),
        pages=(b"{}",),
        page_suffix=".json",
        observations=tuple(Observation(about, known, basis, text) for about, known, text in rows),
    )
    return LandedSeries(series, batch, "0" * 64)


DEC, JAN = date(2023, 12, 1), date(2024, 1, 1)
RELEASES = (
    (DEC, date(2024, 1, 11), "308.850"),
    (DEC, date(2024, 2, 9), "308.742"),
    (JAN, date(2024, 2, 13), "309.685"),
    (DEC, date(2024, 2, 20), "308.700"),  # a late revision of what is no longer the newest
)


def known(rows: Any) -> dict[date, Decimal | None]:
    return dict(zip(rows.column("session_date").to_pylist(), rows.column("published_value").to_pylist(), strict=True))


def test_a_number_is_known_from_its_release_and_a_revision_from_its_own() -> None:
    published = macro_series([landed(CPI, *RELEASES)], None, TODAY)
    table = conform(MACRO_INDICATORS, macro_indicators(published, SESSIONS))
    values = known(table)
    assert values[date(2024, 1, 10)] is None
    assert values[date(2024, 1, 11)] == Decimal("308.850")
    assert values[date(2024, 2, 8)] == Decimal("308.850")
    assert values[date(2024, 2, 9)] == Decimal("308.742")
    assert values[date(2024, 2, 13)] == values[date(2024, 3, 1)] == Decimal("309.685")
    assert not list(violations(MACRO_INDICATORS, table))
    assert not list(violations(MACRO_SERIES, published))
    new = [row["session_date"] for row in table.to_pylist() if row["is_new"]]
    assert new == [date(2024, 1, 11), date(2024, 2, 9), date(2024, 2, 13)]


def test_what_is_published_later_moves_no_earlier_session() -> None:
    """Cut the releases anywhere: what was known before the cut stays as it was."""
    whole = known(macro_indicators(macro_series([landed(CPI, *RELEASES)], None, TODAY), SESSIONS))
    for cut in sorted({release for _, release, _ in RELEASES}):
        earlier = [row for row in RELEASES if row[1] < cut]
        part = known(macro_indicators(macro_series([landed(CPI, *earlier)], None, TODAY), SESSIONS)) if earlier else {}
        for session, value in part.items():
            if session < cut:
                assert whole[session] == value


DAYS = st.integers(0, 40)


@given(st.lists(st.tuples(DAYS, st.integers(0, 30)), max_size=25), st.lists(DAYS, min_size=1, max_size=10))
def test_known_rows_agree_with_a_plain_search(entries: list[tuple[int, int]], asked: list[int]) -> None:
    entries = list({(about, about + lag): (about, about + lag) for about, lag in entries}.values())
    base = np.datetime64("2024-01-01", "D")
    reference = base + np.array([e[0] for e in entries], dtype="timedelta64[D]")
    release = base + np.array([e[1] for e in entries], dtype="timedelta64[D]")
    days = sorted(asked)
    found = known_rows(reference, release, base + np.array(days, dtype="timedelta64[D]"))
    for day, place in zip(days, found.tolist(), strict=True):
        seen = [(about, released) for about, released in entries if released <= day]
        assert (entries[place] if place >= 0 else None) == (max(seen) if seen else None)


def test_a_rerun_adds_nothing_and_a_correction_adds_a_row() -> None:
    first = macro_series([landed(OIL, (DEC, date(2023, 12, 9), "75.66"), basis="assumed_lag")], None, TODAY)
    again = macro_series([landed(OIL, (DEC, date(2023, 12, 9), "75.66"), basis="assumed_lag")], first, TODAY)
    assert again.equals(first)
    corrected = macro_series([landed(OIL, (DEC, date(2023, 12, 9), "75.70"), basis="assumed_lag")], first, TODAY)
    rows = [
        (str(r["published_value"].normalize()), r["release_date"], r["release_basis"]) for r in corrected.to_pylist()
    ]
    assert rows == [("75.66", date(2023, 12, 9), "assumed_lag"), ("75.7", TODAY, "observed")]
    assert macro_series([], corrected, TODAY).equals(corrected)  # a failed provider loses nothing


def test_what_is_no_number_is_kept_and_passed_over() -> None:
    published = macro_series(
        [landed(OIL, (DEC, DEC, "75.66"), (DEC + timedelta(1), DEC + timedelta(1), "."), (JAN, JAN, "n/a"))],
        None,
        TODAY,
    )
    assert published.column("value_reading").to_pylist() == ["ok", "no_data", "unreadable"]
    assert set(known(macro_indicators(published, SESSIONS)).values()) == {Decimal("75.66000000000000")}


def test_a_series_without_numbers_is_unknown_on_every_session() -> None:
    table = macro_indicators(macro_series([landed(OIL, (JAN, JAN, "."))], None, TODAY), SESSIONS)
    assert set(table.column("published_value_status").to_pylist()) == {"no_data"}
    assert table.num_rows == len(SESSIONS)
    assert macro_indicators(macro_series([], None, TODAY), SESSIONS).num_rows == 0


@pytest.mark.parametrize(("today", "late"), [(date(2024, 4, 2), None), (date(2024, 4, 3), 1), (date(2024, 4, 12), 10)])
def test_a_release_is_overdue_after_its_lag(today: date, late: int | None) -> None:
    """January's index was published; February's is due within 54 days of 1 February, and a week of grace."""
    published = macro_series([landed(CPI, *RELEASES)], None, TODAY)
    found = overdue_series(published, [CPI], today)
    assert [one.days_late for one in found] == ([] if late is None else [late])
