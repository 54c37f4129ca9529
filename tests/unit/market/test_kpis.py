"""Rows of core/ticker_kpis: against independent arithmetic, against themselves, and against the contract."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from fixtures.quotes import sessions_table, table_of
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, TICKER_KPIS
from finance_assets.contracts.status import Status
from finance_assets.contracts.validation import violations
from finance_assets.market import kpis
from finance_assets.market.kpis import (
    HISTORY_QUOTES,
    adjustment_basis,
    changed_sessions,
    restated_symbols,
    stale_rows,
    symbols_short_of_history,
    ticker_kpis,
)

#: Weekdays stand for sessions: the maths knows the calendar only as a table.
CALENDAR = [
    day
    for day in (date(2009, 1, 1) + timedelta(days=n) for n in range(1500))
    if day.weekday() < 5 and (day.month, day.day) != (12, 25)
]
STAMP = datetime(2012, 2, 1, tzinfo=UTC)


def quotes_table(closes: dict[str, dict[date, float]], volumes: dict[str, dict[date, int]] | None = None) -> pa.Table:
    """Rows of core/quotes in the order in which files give them: by session."""
    rows = [
        {
            "symbol": symbol,
            "session_date": day,
            "close": Decimal(f"{close:.8f}"),
            "volume": (volumes or {}).get(symbol, {}).get(day),
            "currency": "USD",
            "price_basis": "raw",
            "provider": "fake",
            "fetched_ts_utc": STAMP,
        }
        for symbol, series in closes.items()
        for day, close in series.items()
    ]
    return table_of(QUOTES, sorted(rows, key=lambda row: (row["session_date"], row["symbol"])))


def action(symbol: str, day: date, *, split: float | None = None, cash: str | None = None) -> dict[str, Any]:
    return {
        "symbol": symbol,
        "ex_date": day,
        "action_type": "dividend" if split is None else "split",
        "split_ratio": split,
        "cash_amount": None if cash is None else Decimal(cash),
        "currency": "USD",
        "derivation": "reported",
        "provider": "fake",
        "fetched_ts_utc": STAMP,
    }


def actions_table(*rows: dict[str, Any]) -> pa.Table:
    return table_of(CORPORATE_ACTIONS, rows)


def compute(
    quotes: pa.Table,
    actions: pa.Table | None = None,
    sessions: pa.Table | None = None,
    first: date | None = None,
) -> pa.Table:
    """The KPIs, held against their contract."""
    known = actions_table() if actions is None else actions
    table = ticker_kpis(quotes, known, sessions_table(CALENDAR) if sessions is None else sessions, first)
    assert violations(TICKER_KPIS, table) == []
    return table


def column(table: pa.Table, name: str, symbol: str = "AAA") -> list[Any]:
    import pyarrow.compute as pc

    values: list[Any] = table.filter(pc.equal(table.column("symbol"), symbol)).column(name).to_pylist()
    return values


def walk(days: Sequence[date], seed: int, start: float = 50.0) -> dict[date, float]:
    """A random walk in cents."""
    steps = np.random.default_rng(seed).normal(0, 0.02, len(days))
    return {day: round(float(price), 2) for day, price in zip(days, start * np.exp(np.cumsum(steps)), strict=True)}


def random_volumes(days: Sequence[date], seed: int) -> dict[date, int]:
    drawn = np.random.default_rng(seed).lognormal(10, 0.6, len(days))
    return {day: int(volume) for day, volume in zip(days, drawn, strict=True)}


# -- independent references, in plain pandas ---------------------------------------------------------------------------


def reference(
    closes: dict[date, float], volumes: dict[date, int], actions: list[dict[str, Any]], early: set[date]
) -> pd.DataFrame:
    """Every KPI of one ticker, one row at a time, from the formulas of METRICS.md."""
    days = sorted(closes)
    split = {a["ex_date"]: a["split_ratio"] for a in actions if a["split_ratio"] is not None}
    cash = {a["ex_date"]: float(a["cash_amount"]) for a in actions if a["cash_amount"] is not None}
    rows = []
    gains: list[float] = []
    losses: list[float] = []
    logs: list[float] = []
    average_gain = average_loss = math.nan
    adjusted: list[float] = []
    judged: list[float] = []
    for number, day in enumerate(days):
        later = math.prod(ratio for ex_date, ratio in split.items() if ex_date > day)
        adjusted.append(closes[day] / later)
        row: dict[str, float] = {"close": adjusted[-1], "total_return": math.nan, "rsi": math.nan, "hv": math.nan}
        if number:
            before = days[number - 1]
            between = [ex for ex in {*split, *cash} if before < ex <= day]
            ratio = math.prod(split.get(ex, 1.0) for ex in between)
            # All of these tests put one action between two closes at the most, or both on one day.
            paid = sum(cash.get(ex, 0.0) for ex in between)
            row["total_return"] = ratio * closes[day] / (closes[before] - paid * ratio) - 1
            logs.append(math.log1p(row["total_return"]))
            change = adjusted[-1] - adjusted[-2]
            gains.append(max(change, 0.0))
            losses.append(max(-change, 0.0))
            if len(gains) == 14:
                average_gain, average_loss = sum(gains) / 14, sum(losses) / 14
            elif len(gains) > 14:
                average_gain = (13 * average_gain + gains[-1]) / 14
                average_loss = (13 * average_loss + losses[-1]) / 14
            if len(gains) >= 14:
                row["rsi"] = 100 * average_gain / (average_gain + average_loss)
            if len(logs) >= 30:
                row["hv"] = float(pd.Series(logs[-30:]).std(ddof=1)) * math.sqrt(252)
        row["sma"] = sum(adjusted[-50:]) / 50 if number >= 49 else math.nan
        row["zscore"] = row["modified"] = math.nan
        if day not in early:
            volume = volumes[day] * later
            if len(judged) >= 20:
                window = pd.Series(judged[-20:])
                row["zscore"] = (volume - window.mean()) / window.std(ddof=1)
                median = window.median()
                row["modified"] = 0.67449 * (volume - median) / (window - median).abs().median()
            judged.append(volume)
        rows.append(row)
    return pd.DataFrame(rows, index=days)


REFERENCE_COLUMNS = {
    "close": "close_split_adjusted",
    "total_return": "total_return",
    "rsi": "rsi_14",
    "sma": "sma_50",
    "hv": "historical_volatility_30",
    "zscore": "volume_zscore_20",
    "modified": "volume_modified_zscore_20",
}


def test_every_kpi_equals_an_independent_computation() -> None:
    days = CALENDAR[:140]
    early = {days[70], days[110]}
    listed_late = days[35:]
    with_gap = [day for number, day in enumerate(days) if number not in (60, 61, 90)]
    closes = {"AAA": walk(days, 1), "BBB": walk(listed_late, 2, 20.0), "CCC": walk(with_gap, 3, 400.0)}
    volumes = {symbol: random_volumes(list(series), 9) for symbol, series in closes.items()}
    actions = [
        action("AAA", days[40], split=2.0),
        action("AAA", days[80], cash="0.73"),
        action("AAA", days[100], split=0.1),
        action("BBB", days[60], split=1.5),
        action("BBB", days[60], cash="0.40"),
        action("CCC", days[120], cash="2.15"),
    ]
    table = compute(quotes_table(closes, volumes), actions_table(*actions), sessions_table(CALENDAR, early))
    assert table.num_rows == sum(map(len, closes.values()))
    for symbol, series in closes.items():
        own = [entry for entry in actions if entry["symbol"] == symbol]
        expected = reference(series, volumes[symbol], own, early)
        assert column(table, "session_date", symbol) == list(expected.index)
        for name, kpi in REFERENCE_COLUMNS.items():
            found = np.array(column(table, kpi, symbol), dtype=np.float64)
            np.testing.assert_allclose(found, expected[name], rtol=1e-9, atol=1e-12, err_msg=f"{symbol} {kpi}")


def test_first_values_come_where_the_window_is_full() -> None:
    days = CALENDAR[:60]
    table = compute(quotes_table({"AAA": walk(days, 4)}, {"AAA": random_volumes(days, 5)}))
    for name, place in {
        "total_return": 1,
        "rsi_14": 14,
        "sma_50": 49,
        "historical_volatility_30": 30,
        "volume_zscore_20": 20,
        "volume_modified_zscore_20": 20,
        "window_missing_sessions": 50,
    }.items():
        values = column(table, name)
        assert values[:place] == [None] * place, name
        assert None not in values[place:], name
    assert column(table, "rsi_14_status")[:15] == ["insufficient_history"] * 14 + ["ok"]


# -- undefined values --------------------------------------------------------------------------------------------------


def test_what_is_undefined_is_null_with_a_status_and_never_a_stand_in() -> None:
    days = CALENDAR[:60]
    flat = dict.fromkeys(days, 10.0)
    same = dict.fromkeys(days, 500)
    table = compute(quotes_table({"AAA": flat, "IDX": walk(days, 6)}, {"AAA": same}))
    assert set(column(table, "rsi_14")) == {None}
    assert column(table, "rsi_14_status") == ["insufficient_history"] * 14 + ["no_movement"] * 46
    assert column(table, "historical_volatility_30")[30:] == [0.0] * 30
    assert column(table, "sma_50")[49:] == [10.0] * 11
    assert column(table, "volume_zscore_20_status")[20:] == ["zero_variance"] * 40
    assert column(table, "volume_modified_zscore_20_status")[20:] == ["zero_variance"] * 40
    assert column(table, "is_volume_anomaly") == [None] * 60
    # A ticker without volume, as every one of the sample's second source.
    for name in ("volume_zscore_20", "volume_modified_zscore_20"):
        assert column(table, name, "IDX") == [None] * 60
        assert column(table, f"{name}_status", "IDX") == ["no_data"] * 60
    assert column(table, "is_volume_anomaly", "IDX") == column(table, "is_low_volume", "IDX") == [None] * 60
    for symbol in ("AAA", "IDX"):
        assert column(table, "dividend_payout_ratio", symbol) == [None] * 60
        assert column(table, "dividend_payout_ratio_status", symbol) == ["missing_input"] * 60


def test_every_status_is_one_of_the_list_and_goes_with_a_null() -> None:
    days = CALENDAR[:80]
    table = compute(quotes_table({"AAA": walk(days, 7), "BBB": walk(days[40:], 8)}, {"AAA": random_volumes(days, 1)}))
    names = [name for name in table.column_names if name.endswith("_status")]
    assert len(names) == 6
    for name in names:
        values = table.column(name.removesuffix("_status")).to_pylist()
        for value, status in zip(values, table.column(name).to_pylist(), strict=True):
            assert Status(status)
            assert (value is None) == (status != "ok")
            assert value is None or math.isfinite(value)


def test_numbers_stay_within_their_bounds() -> None:
    days = CALENDAR[:70]
    up = {day: 10.0 + n for n, day in enumerate(days)}
    down = {day: 100.0 - n for n, day in enumerate(days)}
    table = compute(quotes_table({"UPS": up, "DWN": down}))
    assert set(column(table, "rsi_14", "UPS")[14:]) == {100.0}
    assert set(column(table, "rsi_14", "DWN")[14:]) == {0.0}


def test_a_spike_is_an_anomaly_and_a_half_day_is_neither_judged_nor_counted() -> None:
    days = CALENDAR[:64]
    usual = [1000 + n % 7 for n in range(64)]
    volumes = dict(zip(days, usual, strict=True)) | {days[40]: 9000, days[45]: 1, days[50]: 10}
    table = compute(
        quotes_table({"AAA": walk(days, 3)}, {"AAA": volumes}), sessions=sessions_table(CALENDAR, {days[50]})
    )
    high = column(table, "is_volume_anomaly")
    low = column(table, "is_low_volume")
    assert [n for n, flag in enumerate(high) if flag] == [40]
    assert column(table, "volume_zscore_20_status")[50] == "no_data"
    assert high[50] is low[50] is None
    # The spike at 40 hides the low volume at 45 from the plain score, and a half day would have been lower still.
    assert not any(low)
    without_spike = volumes | {days[40]: 1003}
    table = compute(
        quotes_table({"AAA": walk(days, 3)}, {"AAA": without_spike}), sessions=sessions_table(CALENDAR, {days[50]})
    )
    assert [n for n, flag in enumerate(column(table, "is_low_volume")) if flag] == [45]


def test_sessions_without_a_quote_are_counted_and_a_return_says_what_it_spans() -> None:
    days = CALENDAR[:70]
    quoted = [day for number, day in enumerate(days) if number not in (30, 31, 32, 33, 34, 35, 50)]
    table = compute(quotes_table({"AAA": walk(quoted, 3), "BBB": walk(days, 4)}))
    spans = dict(zip(quoted, column(table, "return_span_sessions"), strict=True))
    assert spans[days[0]] is None
    assert spans[days[36]] == 7
    assert spans[days[51]] == 2
    assert {spans[day] for day in quoted[1:]} == {1, 2, 7}
    assert column(table, "window_missing_sessions")[50] == 7
    assert column(table, "window_missing_sessions", "BBB")[50:] == [0] * 20


# -- one session, or all of them ---------------------------------------------------------------------------------------


def assert_same(one: pa.Table, other: pa.Table) -> None:
    assert one.num_rows == other.num_rows
    assert changed_sessions(other, one) == []
    for field in one.schema:
        left, right = one.column(field.name), other.column(field.name)
        if field.name in ("close_split_adjusted", "total_return") or pa.types.is_floating(field.type):
            np.testing.assert_allclose(
                np.array(left.to_pylist(), dtype=float), np.array(right.to_pylist(), dtype=float), rtol=1e-8, atol=1e-8
            )
        else:
            assert left.to_pylist() == right.to_pylist(), field.name


@st.composite
def panels(draw: st.DrawFn) -> tuple[pa.Table, pa.Table, pa.Table, date]:
    """Tickers with gaps, late listings, splits, dividends and half days; and a session to ask for."""
    days = CALENDAR[: draw(st.integers(60, 130))]
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    closes, volumes, actions = {}, {}, []
    for symbol in ("AAA", "BBB", "CCC"):
        start = int(rng.integers(0, 40)) if symbol != "AAA" else 0
        own = [day for day in days[start:] if rng.random() > draw(st.sampled_from([0.0, 0.03]))]
        closes[symbol] = walk(own, seed + len(symbol) + start)
        if symbol != "CCC":
            volumes[symbol] = random_volumes(own, seed)
        for day in days:
            if rng.random() < 0.02:
                actions.append(action(symbol, day, split=float(rng.choice([2.0, 3.0, 0.5, 1.5]))))
            if rng.random() < 0.03:
                actions.append(action(symbol, day, cash=f"{rng.random():.2f}"))
    early = {day for day in days if rng.random() < 0.03}
    first = draw(st.sampled_from(days[30:]))
    return quotes_table(closes, volumes), actions_table(*actions), sessions_table(CALENDAR, early), first


@settings(max_examples=15, deadline=None)
@given(panels())
def test_one_session_equals_recomputing_everything(panel: tuple[pa.Table, pa.Table, pa.Table, date]) -> None:
    import pyarrow.compute as pc

    quotes, actions, sessions, first = panel
    everything = compute(quotes, actions, sessions)
    day = pa.scalar(first, pa.date32())
    up_to = quotes.filter(pc.less_equal(quotes.column("session_date"), day))
    alone = compute(up_to, actions, sessions, first)
    assert_same(alone, everything.filter(pc.equal(everything.column("session_date"), day)))
    # The order of rows means nothing, to the last bit.
    backwards = quotes.take(list(range(quotes.num_rows))[::-1])
    assert compute(backwards, actions, sessions).equals(everything)


def test_a_long_history_may_be_cut_where_it_is_said_to_be_enough() -> None:
    """The RSI forgets its seed; the cut history of the asset gives the same numbers to 1e-8."""
    import pyarrow.compute as pc

    days = CALENDAR[:900]
    quotes = quotes_table({"AAA": walk(days, 1), "BBB": walk(days, 2)})
    everything = compute(quotes)
    first = days[-3]
    start = days[-3 - kpis.HISTORY_SESSIONS]
    cut = quotes.filter(pc.greater_equal(quotes.column("session_date"), pa.scalar(start, pa.date32())))
    assert symbols_short_of_history(cut, first) == []
    late = everything.filter(pc.greater_equal(everything.column("session_date"), pa.scalar(first, pa.date32())))
    assert_same(compute(cut, first=first), late)


def test_a_price_that_stands_still_needs_its_whole_history() -> None:
    """After a flat line of 600 quotes the RSI still is what the last move left, however long ago that was."""
    import pyarrow.compute as pc

    days = CALENDAR[:900]
    moved = walk(days[:300], 1)
    quotes = quotes_table({"AAA": moved | dict.fromkeys(days[300:], moved[days[299]]), "BBB": walk(days, 2)})
    first = days[-1]
    start = days[-1 - kpis.HISTORY_SESSIONS]
    cut = quotes.filter(pc.greater_equal(quotes.column("session_date"), pa.scalar(start, pa.date32())))
    assert symbols_short_of_history(cut, first) == ["AAA"]
    assert column(compute(cut, first=first), "rsi_14_status") == ["no_movement"]
    whole = compute(quotes, first=first)
    assert column(whole, "rsi_14_status") == ["ok"]
    assert symbols_short_of_history(quotes, first) == ["AAA"]


def test_tickers_short_of_history_are_those_asked_for_with_too_few_quotes() -> None:
    days = CALENDAR[: HISTORY_QUOTES + 10]
    first = days[-2]
    quotes = quotes_table(
        {
            "OLD": walk(days, 1),
            "NEW": walk(days[-30:], 2),
            "GONE": walk(days[-30:-5], 3),
            "TODAY": walk(days[-1:], 4),
            "SEEN": walk(days[-2 - HISTORY_QUOTES - 1 :], 5),
            "ALMOST": walk(days[-2 - HISTORY_QUOTES :], 6),
        }
    )
    assert symbols_short_of_history(quotes, first) == ["ALMOST", "NEW", "TODAY"]
    assert symbols_short_of_history(quotes_table({}), first) == []


# -- corporate actions -------------------------------------------------------------------------------------------------


def test_a_future_split_rescales_and_leaves_returns_alone() -> None:
    days = CALENDAR[:60]
    quotes = quotes_table({"AAA": walk(days, 3)}, {"AAA": random_volumes(days, 4)})
    before = compute(quotes)
    after = compute(quotes, actions_table(action("AAA", CALENDAR[80], split=4.0)))
    for name in ("close_split_adjusted", "sma_50"):
        np.testing.assert_allclose(
            np.array(column(after, name), float), np.array(column(before, name), float) / 4, rtol=1e-14
        )
    for name in ("total_return", "rsi_14", "historical_volatility_30", "volume_zscore_20"):
        np.testing.assert_allclose(
            np.array(column(after, name), float), np.array(column(before, name), float), rtol=1e-10, atol=1e-14
        )
    assert set(column(after, "adjustment_basis")) != set(column(before, "adjustment_basis"))


def test_a_dividend_after_a_tickers_last_quote_is_not_held_against_it() -> None:
    """A liquidating dividend larger than an old price must not wipe out the ticker's history."""
    days = CALENDAR[:60]
    quotes = quotes_table({"AAA": walk(days[:40], 3), "BBB": walk(days, 4)})
    with_dividend = compute(quotes, actions_table(action("AAA", days[50], cash="500")))
    assert with_dividend.drop_columns("adjustment_basis").equals(compute(quotes).drop_columns("adjustment_basis"))


def test_actions_of_other_tickers_change_nothing() -> None:
    days = CALENDAR[:60]
    quotes = quotes_table({"AAA": walk(days, 3)})
    assert compute(quotes, actions_table(action("ZZZ", days[20], split=2.0))).equals(compute(quotes))


SPLIT = (date(2011, 6, 1), "split", 2.0, None)
DIVIDEND = (date(2011, 3, 1), "dividend", None, Decimal("0.25"))


def test_the_basis_counts_all_splits_and_the_dividends_so_far() -> None:
    early, between, late = date(2011, 2, 1), date(2011, 4, 1), date(2011, 7, 1)
    nothing = adjustment_basis([], late)
    assert adjustment_basis([DIVIDEND], early) == nothing
    assert adjustment_basis([DIVIDEND], DIVIDEND[0]) == adjustment_basis([DIVIDEND], between) != nothing
    assert adjustment_basis([SPLIT], early) == adjustment_basis([SPLIT], late) != nothing
    both = adjustment_basis([SPLIT, DIVIDEND], late)
    assert both == adjustment_basis([DIVIDEND, SPLIT], late)
    assert len({nothing, both, adjustment_basis([SPLIT], late), adjustment_basis([DIVIDEND], late)}) == 4
    other_amount = (*DIVIDEND[:3], Decimal("0.26"))
    other_ratio = (*SPLIT[:2], 3.0, None)
    assert adjustment_basis([SPLIT, other_amount], late) != both != adjustment_basis([other_ratio, DIVIDEND], late)
    assert len(both) == kpis.BASIS_LENGTH


def test_rows_carry_the_basis_and_none_is_stale_by_itself() -> None:
    days = CALENDAR[:60]
    quotes = quotes_table({"AAA": walk(days, 3), "BBB": walk(days, 4), "CCC": walk(days, 5)})
    actions = [
        action("AAA", days[10], split=2.0),
        action("AAA", days[20], cash="0.1"),
        action("AAA", days[30], cash="0.2"),
        action("CCC", days[10], cash="0.2"),
        action("CCC", days[90 - 60], split=3.0),
    ]
    table = compute(quotes, actions_table(*actions))
    for symbol in ("AAA", "BBB", "CCC"):
        own = [
            (a["ex_date"], a["action_type"], a["split_ratio"], a["cash_amount"])
            for a in actions
            if a["symbol"] == symbol
        ]
        assert column(table, "adjustment_basis", symbol) == [adjustment_basis(own, day) for day in days]
    assert not any(stale_rows(table, actions_table(*actions[::-1])).to_pylist())
    assert restated_symbols(table, actions_table(*actions)) == []


def test_stale_rows_are_those_that_a_new_action_touches() -> None:
    days = CALENDAR[:40]
    quotes = quotes_table({"AAA": walk(days, 3), "BBB": walk(days, 4), "CCC": walk(days, 5)})
    old = [action("BBB", days[5], cash="0.1")]
    written = compute(quotes, actions_table(*old))
    new = [*old, action("AAA", days[-1], split=2.0), action("BBB", days[30], cash="0.3")]
    stale = written.filter(stale_rows(written, actions_table(*new)))
    found = set(zip(stale.column("symbol").to_pylist(), stale.column("session_date").to_pylist(), strict=True))
    assert found == {("AAA", day) for day in days} | {("BBB", day) for day in days[30:]}
    assert restated_symbols(written, actions_table(*new)) == ["AAA", "BBB"]
    # An action that was taken back is as new as one that came.
    assert restated_symbols(written, actions_table()) == ["BBB"]
    assert len(stale_rows(written.slice(0, 0), actions_table(*new))) == 0
    backwards = written.take(list(range(written.num_rows))[::-1])
    assert stale_rows(backwards, actions_table(*new)).sum().as_py() == len(found)


def test_a_dividend_that_cannot_be_right_makes_the_returns_before_it_unknown_and_spares_other_tickers() -> None:
    days = CALENDAR[:60]
    table = compute(
        quotes_table({"AAA": walk(days, 3), "BBB": walk(days, 4)}),
        actions_table(action("AAA", days[30], cash="100000")),
    )
    returns = column(table, "total_return")
    assert returns[:31] == [None] * 31
    assert None not in returns[31:]
    assert None not in column(table, "close_split_adjusted")
    assert None not in column(table, "total_return", "BBB")[1:]


# -- two versions ------------------------------------------------------------------------------------------------------


def changed_value(table: pa.Table, row: int, name: str, value: Any) -> pa.Table:
    values = table.column(name).to_pylist()
    values[row] = value
    index = table.column_names.index(name)
    return table.set_column(index, table.schema.field(name), pa.array(values, table.schema.field(name).type))


def test_sessions_that_say_something_else_are_found() -> None:
    days = CALENDAR[:60]
    table = compute(quotes_table({"AAA": walk(days, 3)}, {"AAA": random_volumes(days, 4)}))
    assert changed_sessions(table, table) == []
    rsi = column(table, "rsi_14")[50]
    for name, value, expected in (
        ("rsi_14", rsi * (1 + 1e-13), []),
        ("rsi_14", rsi + 1e-6, [days[50]]),
        ("rsi_14", None, [days[50]]),
        ("rsi_14_status", "no_data", [days[50]]),
        ("window_missing_sessions", 3, [days[50]]),
        ("adjustment_basis", "other", [days[50]]),
        ("is_volume_anomaly", None, [days[50]]),
    ):
        assert changed_sessions(changed_value(table, 50, name, value), table) == expected, name
        assert changed_sessions(table, changed_value(table, 50, name, value)) == expected, name
    assert changed_sessions(table.slice(0, 59), table) == [days[59]]
    assert changed_sessions(table, table.slice(1)) == [days[0]]
    assert changed_sessions(table, table.slice(0, 0)) == list(days)


# -- what cannot be computed -------------------------------------------------------------------------------------------


def test_a_quote_outside_the_calendar_says_what_to_do() -> None:
    quotes = quotes_table({"AAA": walk(CALENDAR[:3], 1)})
    with pytest.raises(ValueError, match=r"2009-01-0\d.*materialise raw/trading_sessions first"):
        ticker_kpis(quotes, actions_table(), sessions_table(CALENDAR[1:]))


def test_two_quotes_of_a_day_are_refused() -> None:
    quotes = quotes_table({"AAA": walk(CALENDAR[:3], 1)})
    with pytest.raises(ValueError, match="AAA has more than one row"):
        ticker_kpis(pa.concat_tables([quotes, quotes]), actions_table(), sessions_table(CALENDAR))


def test_no_quotes_give_no_rows() -> None:
    empty = compute(quotes_table({}))
    assert empty.num_rows == 0
    # Also where every quote is history.
    assert compute(quotes_table({"AAA": walk(CALENDAR[:5], 1)}), first=CALENDAR[10]).num_rows == 0


def test_no_loop_over_rows() -> None:
    """500 tickers x 1,260 sessions take seconds; a Python list per row would take a minute."""
    import time

    days, count = CALENDAR[:300], 100
    rng = np.random.default_rng(1)
    prices = np.round(50 * np.exp(np.cumsum(rng.normal(0, 0.01, (len(days), count)), axis=0)), 2)
    symbols = [f"T{number:03}" for number in range(count)]
    rows = len(days) * count
    quotes = pa.table(
        {
            "symbol": pa.array(symbols * len(days)),
            "session_date": pa.array(np.repeat(np.array(days, "datetime64[D]"), count)),
            "close": pa.array(prices.ravel()),
            "volume": pa.array(rng.integers(1, 10_000, rows)),
            "price_basis": pa.repeat("raw", rows),
        }
    )
    actions = actions_table(*(action(symbol, day, cash="0.1") for symbol in symbols for day in days[::60]))
    sessions = sessions_table(CALENDAR)
    ticker_kpis(quotes.slice(0, 2 * count), actions, sessions)
    started = time.perf_counter()
    assert ticker_kpis(quotes, actions, sessions).num_rows == rows
    assert time.perf_counter() - started < 3
