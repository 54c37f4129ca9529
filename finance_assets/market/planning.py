"""Which sessions the next run must fill.

What belongs here: comparing the sessions that should be there with those that are. Pure; schedules and the command
line call it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import date
from itertools import groupby
from typing import NamedTuple


class SessionRange(NamedTuple):
    """A run of consecutive sessions, both ends included."""

    first: date
    last: date


def sessions_to_fill(closed: Sequence[date], present: Collection[date], lookback: int | None = None) -> list[date]:
    """Return the closed sessions that have no partition, oldest first.

    Parameters
    ----------
    closed
        Sessions whose regular hours have ended, in order.
    present
        Sessions that have a partition.
    lookback
        Only the newest so many sessions are looked at; None for all.
    """
    considered = closed if lookback is None else closed[max(len(closed) - lookback, 0) :]
    there = set(present)
    return [session for session in considered if session not in there]


def absent_symbols(
    expected: Callable[[date], Collection[str]], held: Mapping[date, Collection[str]]
) -> dict[date, list[str]]:
    """Return the sessions whose partition lacks a ticker, oldest first, with the tickers it lacks.

    Parameters
    ----------
    expected
        Gives the tickers that a session ought to have.
    held
        Tickers that each session's partition holds.
    """
    lacking = {session: sorted(set(expected(session)) - set(held[session])) for session in sorted(held)}
    return {session: symbols for session, symbols in lacking.items() if symbols}


def contiguous_ranges(sessions: Sequence[date], calendar: Sequence[date]) -> list[SessionRange]:
    """Return sessions as ranges that are consecutive in the calendar, oldest first.

    One run fills one range; a gap of a single session that is already there splits two runs.
    """
    place = {session: position for position, session in enumerate(calendar)}
    ordered = sorted(set(sessions))
    ranges = []
    for _, group in groupby(enumerate(ordered), key=lambda item: place[item[1]] - item[0]):
        members = [session for _, session in group]
        ranges.append(SessionRange(members[0], members[-1]))
    return ranges
