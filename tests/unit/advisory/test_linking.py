"""Linking whole columns: against plain loops, beyond 64 bits, in whatever order and company, and window by window."""

from __future__ import annotations

import math
import random
from dataclasses import fields
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, localcontext
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.advisory import linking
from finance_assets.advisory.linking import Linker, Links, RowInputs, Series, exact_sums, in_order, put_in_order

FIRST = date(2020, 1, 1)


def history(*rows: dict[str, Any]) -> pa.Table:
    """A history of the columns that order needs."""
    plain = {
        "vendor": "v",
        "account_id": "a",
        "granularity": "monthly",
        "period_end": FIRST,
        "received_ts_utc": datetime(2024, 1, 1, tzinfo=UTC),
        "file_sha256": "f",
        "line": 1,
    }
    types = {
        **dict.fromkeys(("vendor", "account_id", "granularity", "file_sha256"), pa.string()),
        "period_end": pa.date32(),
        "received_ts_utc": pa.timestamp("us", tz="UTC"),
        "line": pa.int64(),
    }
    return pa.Table.from_pylist([plain | row for row in rows], schema=pa.schema(types))


def test_rows_come_in_the_order_of_their_keys() -> None:
    days = [FIRST + timedelta(days=n) for n in range(5)]
    rows = [
        {"vendor": v, "account_id": a, "granularity": g, "period_end": d}
        for v in "zb"
        for a in ("10", "9")
        for g in ("monthly", "daily")
        for d in days
    ]
    random.Random(3).shuffle(rows)
    table = history(*rows)
    for given_table in (table, table.set_column(0, "vendor", table["vendor"].dictionary_encode())):
        ordered = in_order(given_table)
        keys = given_table.take(pa.array(ordered.places)).to_pylist()
        said = [(row["period_end"], row["vendor"], row["account_id"], row["granularity"]) for row in keys]
        assert said == sorted(said)
        assert len(set(ordered.series.tolist())) == 8
        assert [FIRST + timedelta(days=n) for n in (ordered.days - (FIRST - date(1970, 1, 1)).days).tolist()] == [
            row["period_end"] for row in keys
        ]


def test_the_newest_version_counts_and_ties_have_an_order() -> None:
    early, late = datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 1, 2, tzinfo=UTC)
    table = history(
        {"received_ts_utc": late, "file_sha256": "b", "line": 9},
        {"account_id": "b"},
        {"received_ts_utc": early, "file_sha256": "z", "line": 99},
        {"received_ts_utc": late, "file_sha256": "c", "line": 2},
        {"received_ts_utc": late, "file_sha256": "c", "line": 3},
    )
    assert in_order(table).places.tolist() == [4, 1]
    assert in_order(table.slice(0, 4)).places.tolist() == [3, 1]
    assert in_order(table.slice(0, 3)).places.tolist() == [0, 1]


@pytest.mark.parametrize("name", ["vendor", "account_id", "granularity", "period_end"])
def test_a_key_has_no_nulls(name: str) -> None:
    with pytest.raises(ValueError, match=f"{name} has a null"):
        in_order(history({}, {name: None}))


def test_nothing_is_in_order() -> None:
    ordered = in_order(history())
    assert len(ordered.places) == 0
    assert link([], [], [], [], []) == []


def test_many_series_over_many_days_still_make_one_number_each(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks that would not fit into 64 bits together with the days are made dense first."""
    table = history(*({"account_id": f"{n % 3}", "period_end": FIRST + timedelta(days=n)} for n in range(9)))
    expected = in_order(table)
    real = linking._ranks

    def wide(given_table: pa.Table, name: str) -> tuple[Any, int]:
        ranks, count = real(given_table, name)
        return (ranks << 58, count << 58) if name == "account_id" else (ranks, count)

    monkeypatch.setattr(linking, "_ranks", wide)
    found = in_order(table)
    assert found.places.tolist() == expected.places.tolist()
    assert found.series.tolist() == expected.series.tolist() == [0, 1, 2] * 3


def integers(amounts: list[Decimal | None]) -> Any:
    """Amounts as hundred-millionths, in 64 bits where they hold them; 0 for unknown ones."""
    made = [0 if amount is None else int(amount.scaleb(8)) for amount in amounts]
    return np.array(made, object if any(abs(number) >> 62 for number in made) else np.int64)


def link(
    series: list[int], days: list[int], factors: list[float], flows: list[Decimal | None], starts: list[int],
    cuts: list[int] | None = None, **others: Any,
) -> list[dict[str, Any]]:  # fmt: skip
    """What links say of each row, with None for what they do not know; linked in so many steps."""
    size = len(factors)
    endings = others.get("endings", [Decimal(1)] * size)
    stated, daily, currency = (
        others.get(name, [value] * size) for name, value in (("stated", True), ("daily", False), ("currency", 0))
    )
    linker, made = Linker(), list[dict[str, Any]]()
    for first, stop in pairwise([0, *(cuts or []), size]):
        here = slice(first, stop)
        links = linker.link(
            np.array(series[here], np.int64),
            np.array(days[here], np.int64),
            RowInputs(
                period_start=np.array(starts[here], np.int32),
                starts_as_stated=np.array(stated[here], bool),
                is_daily=np.array(daily[here], bool),
                currency=np.array(currency[here], np.int32),
                factor=np.array(factors[here], np.float64),
                net_flow=integers(flows[here]),
                has_flow=np.array([flow is not None for flow in flows[here]], bool),
                ending=integers(endings[here]),
                has_ending=np.array([ending is not None for ending in endings[here]], bool),
            ),
        )
        made += told(links)
    return made


def told(links: Links) -> list[dict[str, Any]]:
    kind = pa.decimal128(38, 8)
    columns = {field.name: getattr(links, field.name).tolist() for field in fields(links)}
    columns["flow_so_far"] = exact_sums(links.flow_so_far, links.has_flow_so_far, kind).to_pylist()
    columns["ending_before"] = exact_sums(links.ending_before, links.has_ending_before, kind).to_pylist()
    rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
    for row in rows:
        row |= {name: None if math.isnan(row[name]) else row[name] for name in ("wealth_chain", "wealth_all")}
        row |= {"gap_days": None} if row["is_first"] else {}
    return rows


AMOUNT = st.integers(-(10**28) + 1, 10**28 - 1).map(lambda n: Decimal(n).scaleb(-8))
ROW = st.tuples(
    st.integers(0, 3),  # series
    st.booleans(),  # a gap before it
    st.one_of(st.just(math.nan), st.floats(0, 2)),
    st.one_of(st.none(), AMOUNT),
    st.sampled_from([-1, 0, 1]),
    st.one_of(st.none(), AMOUNT),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(ROW, max_size=60), st.permutations(range(4)), st.sets(st.integers(0, 60), max_size=4))
def test_links_are_those_of_a_plain_loop(
    rows: list[tuple[int, bool, float, Decimal | None, int, Decimal | None]], numbers: list[int], cuts: set[int]
) -> None:
    # Periods of all series end on the same days, some of them after a gap. Within a period they come in any order.
    places: dict[int, int] = {}
    keyed = []
    for series, gap, *others in rows:
        places[series] = period = places.get(series, 0) + (2 if gap else 1)
        keyed.append((100 + 30 * period, numbers[series], *others))
    keyed.sort(key=lambda row: row[0])
    days, starts = [row[0] for row in keyed], [row[0] - 29 for row in keyed]
    factors, flows, currency, endings = ([row[place] for row in keyed] for place in (2, 3, 4, 5))
    found = link(
        [row[1] for row in keyed], days, factors, flows, starts, sorted(cut for cut in cuts if cut < len(keyed)),
        currency=currency, endings=endings,
    )  # fmt: skip
    states: dict[int, dict[str, Any]] = {}
    for place, (_, series, factor, flow, money, _) in enumerate(keyed):
        row = found[place]
        state = states.get(series)
        if state is None:
            state = states[series] = {"sum": Decimal(0), "known": True, "chain": 1, "start": starts[place]}
            state |= {"all": None, "one": None, "mixed": False}
            assert (row["is_first"], row["gap_days"], row["currency_changed"]) == (True, None, False)
            assert row["ending_before"] is None
        else:
            last = state["place"]
            gap_days = starts[place] - days[last] - 1
            changed = money >= 0 and currency[last] >= 0 and money != currency[last]
            assert (row["is_first"], row["gap_days"], row["currency_changed"]) == (False, gap_days, changed)
            assert row["ending_before"] == endings[last]
            state["mixed"] = state["mixed"] or changed
            if gap_days or changed or math.isnan(factors[last]):
                state |= {"chain": state["chain"] + 1, "start": starts[place], "one": None}
        state["place"] = place
        state["known"] = state["known"] and flow is not None
        with localcontext(prec=60):
            state["sum"] += flow or 0
        if not math.isnan(factor):
            for name in ("all", "one"):
                state[name] = factor if state[name] is None else state[name] * factor
        assert row["flow_so_far"] == (state["sum"] if state["known"] else None)
        assert (row["wealth_all"], row["wealth_chain"]) == (state["all"], state["one"])
        assert (row["chain_id"], row["currencies_mixed"]) == (state["chain"], state["mixed"])
        assert row["chain_start"] == state["start"]


def test_a_sum_that_outgrows_64_bits_goes_on_exactly() -> None:
    large = Decimal(1 << 60).scaleb(-8)
    rows = link([0] * 5, [30, 60, 90, 120, 150], [1.0] * 5, [large] * 5, [1, 31, 61, 91, 121], [2, 3])
    assert [row["flow_so_far"] for row in rows] == [large * n for n in range(1, 6)]


def test_rows_that_come_out_of_order_are_refused() -> None:
    for days in ([60, 30], [30, 30]):
        with pytest.raises(ValueError, match="in the order of their periods, each once"):
            link([0, 0], days, [1.0] * 2, [Decimal(0)] * 2, [1, 31], [1])


def test_series_have_one_number_in_all_parts() -> None:
    chance = random.Random(9)
    series, numbers = Series(), dict[tuple[int, int, int], int]()
    for size in (0, 1, 50, 400):
        keys = [(chance.randrange(3), chance.randrange(200), chance.randrange(3)) for _ in range(size)]
        vendor, account, grain = np.array(keys, np.int32).reshape(-1, 3).T
        for key, number in zip(keys, series.numbers(vendor, account, grain).tolist(), strict=True):
            assert numbers.setdefault(key, number) == number
    assert sorted(numbers.values()) == list(range(len(numbers)))


def test_rows_of_a_period_stay_as_they_come_unless_a_key_comes_twice() -> None:
    series, days = np.array([2, 0, 1, 0]), np.array([5, 5, 5, 6])

    def versions(places: Any) -> tuple[Any, ...]:
        return (places,)

    assert put_in_order(series, days, versions).places.tolist() == [0, 1, 2, 3]
    assert put_in_order(series, days, versions, by_series=True).places.tolist() == [1, 2, 0, 3]
    assert put_in_order(series, np.array([6, 6, 6, 5]), versions).places.tolist() == [3, 1, 2, 0]
    assert put_in_order(np.array([2, 0, 2, 0]), days, versions).places.tolist() == [1, 2, 3]


@pytest.mark.parametrize(
    ("apart", "daily", "stated", "gap"),
    [
        (-1, False, True, 0),  # the start repeats the end of the period before
        (-1, True, True, -1),
        (-2, False, True, -2),
        (4, True, False, 0),  # a weekend and a holiday
        (5, True, False, 5),
        (1, True, True, 1),
        (1, False, False, 1),
    ],
)
def test_neighbours(apart: int, daily: bool, stated: bool, gap: int) -> None:
    rows = link(
        [0, 0], [100, 150], [1.0, 1.0], [Decimal(0)] * 2, [90, 101 + apart], daily=[daily] * 2, stated=[stated] * 2
    )
    assert [row["gap_days"] for row in rows] == [None, gap]
    assert [row["chain_id"] for row in rows] == [1, 1 if gap == 0 else 2]
