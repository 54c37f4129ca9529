"""Which sessions a run must fill."""

from __future__ import annotations

from datetime import date
from itertools import pairwise

import pytest
from fixtures.quotes import JANUARY
from hypothesis import given
from hypothesis import strategies as st

from finance_assets.market.planning import SessionRange, absent_symbols, contiguous_ranges, sessions_to_fill


def test_sessions_without_a_partition_are_to_be_filled_oldest_first() -> None:
    present = {JANUARY[0], JANUARY[2], date(1999, 1, 4)}
    assert sessions_to_fill(JANUARY[:5], present) == [JANUARY[1], JANUARY[3], JANUARY[4]]
    assert sessions_to_fill(JANUARY[:5], JANUARY) == []
    assert sessions_to_fill([], []) == []


@pytest.mark.parametrize(
    ("lookback", "expected"), [(0, []), (1, [JANUARY[4]]), (3, [*JANUARY[3:5]]), (99, [JANUARY[1], *JANUARY[3:5]])]
)
def test_only_the_newest_sessions_are_looked_at(lookback: int, expected: list[date]) -> None:
    assert sessions_to_fill(JANUARY[:5], {JANUARY[0], JANUARY[2]}, lookback) == expected


def test_a_session_that_lacks_a_ticker_names_it() -> None:
    held = {JANUARY[2]: {"AAA"}, JANUARY[0]: {"AAA", "BBB", "OLD"}, JANUARY[1]: set()}
    listed = {JANUARY[0]: ["AAA"], JANUARY[1]: ["BBB", "AAA"], JANUARY[2]: ["AAA", "BBB"]}
    assert absent_symbols(listed.__getitem__, held) == {JANUARY[1]: ["AAA", "BBB"], JANUARY[2]: ["BBB"]}
    assert list(absent_symbols(listed.__getitem__, held)) == [JANUARY[1], JANUARY[2]]
    assert absent_symbols(lambda _: [], held) == {}


def test_consecutive_sessions_are_one_range_over_weekends_and_holidays() -> None:
    # The 13th is a Friday, the 16th a holiday.
    assert contiguous_ranges([date(2012, 1, 17), date(2012, 1, 13)], JANUARY) == [
        SessionRange(date(2012, 1, 13), date(2012, 1, 17))
    ]
    assert contiguous_ranges([JANUARY[0], JANUARY[1], JANUARY[3], JANUARY[3]], JANUARY) == [
        SessionRange(JANUARY[0], JANUARY[1]),
        SessionRange(JANUARY[3], JANUARY[3]),
    ]
    assert contiguous_ranges([], JANUARY) == []


@given(st.sets(st.sampled_from(JANUARY)))
def test_ranges_hold_every_session_once_and_cannot_be_joined(sessions: set[date]) -> None:
    ranges = contiguous_ranges(list(sessions), JANUARY)
    covered = [day for first, last in ranges for day in JANUARY if first <= day <= last]
    assert covered == sorted(sessions)
    for (_, end), (start, _) in pairwise(ranges):
        assert JANUARY.index(start) - JANUARY.index(end) > 1
