"""Rows of core/ticker_kpis are the same bytes in whatever ranges, order and gaps their sessions are computed.

``FINANCE_ASSETS_TEST_RANGES`` is the number of made-up markets that are tried; a few by default.
"""

from __future__ import annotations

import hashlib
import os
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from fixtures.quotes import sessions_table, table_of
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, TICKER_KPIS, TRADING_SESSIONS
from finance_assets.market import assets
from finance_assets.market.kpis import HISTORY_SESSIONS, ticker_kpis
from finance_assets.storage.lake import Lake

EXAMPLES = int(os.environ.get("FINANCE_ASSETS_TEST_RANGES", "4"))
CALENDAR = [day for day in (date(2009, 1, 1) + timedelta(days=n) for n in range(1100)) if day.weekday() < 5]
#: More sessions than one run loads before those it is asked for, so that ranges really are cut.
LENGTH = HISTORY_SESSIONS + 170
#: The newest sessions, which are deleted and computed again in parts.
PLAYED = 120
STAMP = datetime(2012, 2, 1, tzinfo=UTC)


def random_market(seed: int) -> tuple[pa.Table, pa.Table, set[date]]:
    """Quotes and actions of tickers of many kinds, and the half days.

    There are tickers that are always there, that miss sessions, that are listed late, are silent for long, stand still
    for long (across a split too), that never move, and that pay and split often.
    """
    rng = np.random.default_rng(seed)
    days = CALENDAR[:LENGTH]
    quotes: list[dict[str, Any]] = []
    actions: list[dict[str, Any]] = []
    for symbol in ("ALWAYS", "FLAT", "GAPS", "HALT", "LATE", "PAYS", "SILENT", "SPLITS", "STILL"):
        price, prices = float(rng.uniform(5, 400)), []
        for _ in days:
            price *= float(np.exp(rng.normal(0, 0.02)))
            prices.append(round(price, int(rng.integers(1, 5))))
        own = list(range(len(days)))
        if symbol == "GAPS":
            own = [n for n in own if rng.random() > 0.15]
        elif symbol == "LATE":
            own = own[-int(rng.integers(20, PLAYED)) :]
        elif symbol == "SILENT":
            away = int(rng.integers(30, LENGTH - 20))
            own = [n for n in own if n < 25 or n > away]
        elif symbol == "FLAT":
            prices = [12.34] * len(days)
        halt = range(0)
        if symbol in ("HALT", "STILL"):
            start = int(rng.integers(20, 150))
            halt = range(start, LENGTH - int(rng.integers(0, PLAYED)) if symbol == "HALT" else LENGTH)
        splits: dict[int, float] = {}
        chance = {"SPLITS": 0.02, "ALWAYS": 0.002}.get(symbol, 0.0)
        for n in range(len(days)):
            if rng.random() < chance:
                splits[n] = float(rng.choice([2.0, 3.0, 0.1, 1.5, 1.1, 7.0]))
        if symbol == "STILL":
            splits[LENGTH - int(rng.integers(1, PLAYED))] = 2.0
        for n, ratio in splits.items():
            actions.append({"symbol": symbol, "ex_date": days[n], "action_type": "split", "split_ratio": ratio})
        for n in range(len(days)):
            if rng.random() < {"PAYS": 0.06, "SPLITS": 0.02, "GAPS": 0.02}.get(symbol, 0.0):
                cash = Decimal(f"{rng.uniform(0.001, 0.4):.8f}")
                actions.append({"symbol": symbol, "ex_date": days[n], "action_type": "dividend", "cash_amount": cash})
        for n in own:
            close = prices[halt.start] if n in halt else prices[n]
            if symbol == "STILL":
                close /= np.prod([ratio for at, ratio in splits.items() if at <= n])
            quotes.append(
                {
                    "symbol": symbol,
                    "session_date": days[n],
                    "close": Decimal(f"{max(float(close), 0.01):.8f}"),
                    "volume": int(rng.lognormal(10, 0.6)),
                    "currency": "USD",
                    "price_basis": "raw",
                    "provider": "fake",
                    "fetched_ts_utc": STAMP,
                }
            )
    filled = {"currency": "USD", "derivation": "reported", "provider": "fake", "fetched_ts_utc": STAMP}
    early = {day for day in days if rng.random() < 0.02}
    known = [{"split_ratio": None, "cash_amount": None} | action | filled for action in actions]
    return table_of(QUOTES, quotes), table_of(CORPORATE_ACTIONS, known), early


class Market:
    """A lake with one made-up market, and the asset run on ranges of its sessions."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.lake = Lake(str(folder))
        self.days = [day.isoformat() for day in CALENDAR[:LENGTH]]
        self.quotes, self.actions, early = random_market(seed)
        self.sessions = sessions_table(CALENDAR[:LENGTH], early)
        self.lake.write(TRADING_SESSIONS, self.sessions)
        self.lake.write_partitions(QUOTES, self.quotes, self.days)
        self.lake.write_partitions(CORPORATE_ACTIONS, self.actions, self.days)

    def materialise(self, first: int, last: int) -> None:
        """Run the asset on the sessions from one to another, both included, and store what it returns."""
        keys = self.days[first : last + 1]
        context = dg.build_asset_context(partition_key_range=dg.PartitionKeyRange(keys[0], keys[-1]))
        for result in assets.ticker_kpis(context, self.lake):
            self.lake.write_partitions(TICKER_KPIS, result.value, keys)

    def delete(self, place: int) -> None:
        Path(self.lake.file(TICKER_KPIS, self.days[place])).unlink(missing_ok=True)

    def missing(self) -> list[int]:
        there = set(self.lake.partitions(TICKER_KPIS))
        return [place for place, day in enumerate(self.days) if day not in there and place >= LENGTH - PLAYED]

    def digests(self) -> dict[str, str]:
        return {
            key: hashlib.sha256(self.lake.get(self.lake.file(TICKER_KPIS, key))).hexdigest()
            for key in self.lake.partitions(TICKER_KPIS)
        }


def different_columns(expected: pa.Table, found: pa.Table) -> list[str]:
    return [name for name in expected.column_names if not expected.column(name).equals(found.column(name))]


@pytest.mark.timeout(60 + 30 * EXAMPLES)
@settings(
    max_examples=EXAMPLES,
    # Where it fails, the assertion names the columns; making a market smaller takes minutes and tells no more.
    phases=(Phase.explicit, Phase.generate),
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_any_ranges_gaps_and_order_give_the_same_bytes(
    data: st.DataObject, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = Market(tmp_path_factory.mktemp("market"), seed)
    begin = LENGTH - PLAYED
    whole = ticker_kpis(made.quotes, made.actions, made.sessions, CALENDAR[begin])
    made.lake.write_partitions(TICKER_KPIS, whole, made.days[begin:])
    expected = made.digests()

    # From nothing, in random pieces and a random order.
    for place in range(begin, LENGTH):
        made.delete(place)
    cuts = sorted(data.draw(st.sets(st.integers(begin + 1, LENGTH - 1), max_size=4), label="cuts"))
    pieces = list(zip([begin, *cuts], [*(cut - 1 for cut in cuts), LENGTH - 1], strict=True))
    for first, last in data.draw(st.permutations(pieces), label="order"):
        made.materialise(first, last)
    check(made, expected, whole)

    # Some sessions are lost, and come back in ranges of those that follow each other, in a random order.
    lost = data.draw(st.sets(st.integers(begin, LENGTH - 1), min_size=1, max_size=6), label="lost")
    for place in lost:
        made.delete(place)
    assert made.missing() == sorted(lost)
    for place in data.draw(st.permutations(sorted(lost)), label="return"):
        made.materialise(place, place)
    check(made, expected, whole)

    # A range over sessions that are there and some that are not.
    for place in lost:
        made.delete(place)
    made.materialise(min(lost), max(lost))
    check(made, expected, whole)


def check(made: Market, expected: dict[str, str], whole: pa.Table) -> None:
    found = made.digests()
    if found == expected:
        return
    assert found.keys() == expected.keys()
    for key, digest in expected.items():
        if found[key] != digest:
            day = pc.equal(whole.column("session_date"), pa.scalar(date.fromisoformat(key), pa.date32()))
            stored = made.lake.read(TICKER_KPIS, keys=[key]).table
            right = whole.filter(day).sort_by("symbol")
            names = different_columns(right, stored.sort_by("symbol"))
            raise AssertionError(f"{key} differs in {names}: {stored.select(['symbol', *names])} for {right}")


def test_a_return_is_that_of_its_own_inputs_to_the_last_bit() -> None:
    """Dividends and splits after a row, and how many of them are known, change no bit of its return."""
    quotes, actions, early = random_market(7)
    sessions = sessions_table(CALENDAR, early)
    whole = ticker_kpis(quotes, actions, sessions)
    for last in (LENGTH - 200, LENGTH - 90, LENGTH - 2):
        until = pa.scalar(CALENDAR[last], pa.date32())
        part = ticker_kpis(quotes.filter(pc.less_equal(quotes.column("session_date"), until)), actions, sessions)
        own = whole.filter(pc.less_equal(whole.column("session_date"), until))
        assert different_columns(own, part) == []
    shuffled = actions.take(np.random.default_rng(1).permutation(actions.num_rows))
    assert ticker_kpis(quotes, shuffled, sessions).equals(whole)
