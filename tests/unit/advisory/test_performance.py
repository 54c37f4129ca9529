"""The performance table against the exact scalar functions, and its chains, flags and versions."""

import random
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from finance_assets.advisory.performance import (
    DEFAULT_POLICY,
    KEY_COLUMNS,
    PERFORMANCE_COLUMNS,
    Performance,
    Policy,
    account_performance,
    certified,
    current_versions,
    performance_schema,
)
from finance_assets.advisory.twrr import annualise, link, period_return, row_return
from finance_assets.reference.flow_timings import TIMINGS

D = Decimal


def table_of(history: pa.Table, policies: Any = None) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = account_performance(history, policies or {}).to_pylist()
    return rows


def test_schema_is_the_documented_one(make_history: Any) -> None:
    table = account_performance(make_history({}), {})
    assert table.schema.equals(performance_schema())
    assert table.column_names == list(PERFORMANCE_COLUMNS)
    assert account_performance(make_history({}).slice(0, 0), {}).num_rows == 0


@pytest.mark.parametrize("timing", TIMINGS)
def test_agrees_with_the_scalar_functions_on_random_rows(timing: str, make_history: Any) -> None:
    """Also with unknown and negative values, inceptions, withdrawals, gaps and both ways to state flows."""
    generator = random.Random(TIMINGS.index(timing))
    rows = []
    for account in range(60):
        month, value = date(2022, 1, 31), generator.choice([0, 100_000, 25_000_000])
        for number in range(18):
            flows = [generator.choice([0, 0, generator.randrange(0, 6_000_000)]) for _ in range(2)]
            ending = max(-2_000_000, value + flows[0] - flows[1] + generator.randrange(-200_000, 300_000))
            if generator.random() < 0.05:
                flows, ending = [0, value], 0
            if generator.random() < 0.05:
                ending = 0
            row: dict[str, Any] = {
                "account_id": f"A{account}",
                "period_end": month,
                "beginning_market_value": D(value) / 100,
                "contributions": D(flows[0]) / 100,
                "distributions": D(flows[1]) / 100,
                "ending_market_value": D(ending) / 100,
                "fees": generator.choice([None, D(generator.randrange(500)) / 100]),
                "line": number,
            }
            if generator.random() < 0.1:
                row.update(contributions=None, distributions=None, net_flow=D(flows[0] - flows[1]) / 100)
            if generator.random() < 0.03:
                row[generator.choice(["beginning_market_value", "ending_market_value", "contributions"])] = None
            if generator.random() > 0.05:
                rows.append(row)
            value = ending
            month = (month + timedelta(days=1)).replace(day=28) + timedelta(days=4)
            month -= timedelta(days=month.day)
    generator.shuffle(rows)
    performance = table_of(make_history(*rows), {"alpha": Policy(timing, "7", D("0.2"))})
    assert len(performance) == len(rows)
    chain: dict[str, list[Any]] = {}
    everything: dict[str, list[D]] = {}
    flows_of: dict[str, D | None] = {}
    last_end: dict[str, date] = {}
    undefined_before: dict[str, bool] = {}
    chain_id: dict[str, int] = {}
    for row in performance:
        account = row["account_id"]
        stated = None if row["contributions"] is not None else row["net_flow"]
        expected = row_return(
            row["beginning_market_value"], row["contributions"], row["distributions"], row["ending_market_value"],
            timing, net_flow=stated, large_flow_threshold=D("0.2"),
        )  # fmt: skip
        assert (row["return_status"], row["timing"], row["timing_rule"]) == (expected.status, *expected[1:3])
        assert_close(row["return_net_computed"], expected.value)
        for variant in ("sod", "mid", "eod"):
            value = None
            known = None not in (row["beginning_market_value"], row["ending_market_value"], row["net_flow"])
            if known and row["beginning_market_value"] >= 0:
                money_in, money_out = max(row["net_flow"], D(0)), max(-row["net_flow"], D(0))
                value = period_return(
                    row["beginning_market_value"], money_in, money_out, row["ending_market_value"], variant
                )
            assert_close(row[f"return_{variant}"], value)
        # Chains and running sums, one row after the other.
        adjacent = account in last_end and (row["period_start"] - last_end[account]).days == 1
        if account not in last_end:
            chain_id[account], chain[account], everything[account], flows_of[account] = 1, [], [], D(0)
        elif not adjacent or undefined_before[account]:
            chain_id[account], chain[account] = chain_id[account] + 1, []
        assert row["chain_id"] == chain_id[account]
        factor = D(0) if expected.rule == "no_capital" else expected.value
        undefined_before[account], last_end[account] = factor is None, row["period_end"]
        if factor is None:
            assert row["cumulative_return_chain"] is None
        else:
            chain[account].append(factor)
            everything[account].append(factor)
            assert_close(row["cumulative_return_chain"], link(chain[account]))
            days = (row["period_end"] - row["chain_start"]).days + 1
            assert_close(row["annualised_return_chain"], annualise(link(chain[account]), days))
        assert_close(row["cumulative_return_all"], link(everything[account]) if everything[account] else None)
        so_far = flows_of[account]
        flows_of[account] = None if so_far is None or row["net_flow"] is None else so_far + row["net_flow"]
        assert row["cumulative_net_flow"] == flows_of[account]
        if None not in (row["gain"], row["net_flow"]):
            gain = row["ending_market_value"] - row["beginning_market_value"] - row["net_flow"]
            assert row["gain"] == gain


def assert_close(value: float | None, expected: D | None) -> None:
    assert (value is None) == (expected is None), (value, expected)
    if value is not None and expected is not None:
        assert abs(D(value) - expected) <= D("1e-12") * (1 + abs(expected))


def test_gap_restarts_the_chain(make_history: Any, make_months: Any) -> None:
    months = make_months((100, 0, 0, 110), (110, 0, 0, 121), (121, 0, 0, 121), (130, 0, 0, 143))
    rows = table_of(make_history(*(months[:2] + months[3:])))
    assert [row["chain_id"] for row in rows] == [1, 1, 2]
    assert [row["gap_days"] for row in rows] == [None, 0, 31]
    assert rows[1]["cumulative_return_chain"] == pytest.approx(0.21, rel=1e-15)
    assert rows[2]["cumulative_return_chain"] == pytest.approx(0.1, rel=1e-15)
    assert rows[2]["cumulative_return_all"] == pytest.approx(0.331, rel=1e-15)
    assert [row["cumulative_status"] for row in rows] == ["ok", "ok", "gap"]
    assert rows[2]["chain_start"] == date(2024, 4, 1)
    assert [row["continuity_difference"] for row in rows] == [None, 0, None]


def test_undefined_return_restarts_the_chain_and_no_capital_does_not(make_history: Any, make_months: Any) -> None:
    months = make_months((100, 0, 0, 110), (110, 0, 115, -5), (-5, 0, 0, -5), (-5, 105, 0, 100), (100, 0, 0, 101))
    rows = table_of(make_history(*months), {"alpha": ("eod", 1, D("0.1"))})
    assert [row["chain_id"] for row in rows] == [1, 1, 1, 2, 3]
    assert [row["is_negative_value"] for row in rows] == [False, True, True, True, False]
    assert rows[2]["cumulative_return_chain"] is None
    assert rows[2]["cumulative_status"] == "gap"
    idle = table_of(make_history(*make_months((100, 0, 110, 0), (0, 0, 0, 0), (0, 50, 0, 55))))
    assert [row["chain_id"] for row in idle] == [1, 1, 1]
    assert [row["timing_rule"] for row in idle] == ["full_withdrawal", "no_capital", "inception"]
    assert [row["is_terminated"] for row in idle] == [True, False, False]
    assert idle[1]["cumulative_return_chain"] == pytest.approx(0.1)
    assert idle[2]["cumulative_return_chain"] == pytest.approx(0.21)


def test_a_total_loss_sticks(make_history: Any, make_months: Any) -> None:
    rows = table_of(make_history(*make_months((100, 0, 0, 0), (0, 100, 0, 120), (120, 0, 0, 130))))
    assert [row["cumulative_return_chain"] for row in rows] == [-1, -1, -1]
    assert [row["return_status"] for row in rows] == ["ok", "ok", "ok"]


def test_grains_and_vendors_are_not_chained_together(make_history: Any) -> None:
    march = date(2024, 3, 31)
    rows = table_of(
        make_history(
            {"period_end": march},
            {"period_end": march, "granularity": "quarterly", "ending_market_value": 103},
            {"period_end": march, "granularity": "daily"},
            {"period_end": march, "vendor": "bravo"},
        )
    )
    assert {row["chain_id"] for row in rows} == {1}
    assert {row["granularity"]: row["period_start"] for row in rows} == {
        "monthly": date(2024, 3, 1), "quarterly": date(2024, 1, 1), "daily": march,
    }  # fmt: skip


def test_daily_rows_pass_weekends_but_not_weeks(make_history: Any) -> None:
    days = [date(2024, 1, 4), date(2024, 1, 5), date(2024, 1, 8), date(2024, 1, 18)]
    rows = table_of(make_history(*({"period_end": day, "granularity": "daily"} for day in days)))
    assert [row["chain_id"] for row in rows] == [1, 1, 1, 2]
    assert [row["gap_days"] for row in rows] == [None, 0, 0, 9]


def test_start_that_repeats_the_end_before_is_adjacent_and_overlaps_are_not(make_history: Any) -> None:
    rows = table_of(
        make_history(
            {"period_start": date(2023, 12, 31), "period_end": date(2024, 1, 31)},
            {"period_start": date(2024, 1, 31), "period_end": date(2024, 2, 29)},
            {"period_start": date(2024, 2, 20), "period_end": date(2024, 3, 31)},
        )
    )
    assert [row["gap_days"] for row in rows] == [None, 0, -10]
    assert [row["chain_id"] for row in rows] == [1, 1, 2]


def test_partial_large_and_gross(make_history: Any, make_months: Any) -> None:
    months = make_months((0, 1000, 0, 1010), (1010, 101, 0, 1121.5), (1121.5, 112, 0, 1240), fees="2")
    months[0]["period_start"] = date(2024, 1, 15)
    rows = table_of(make_history(*months), {"alpha": Policy("eod", "2")})
    assert [row["is_partial"] for row in rows] == [True, False, False]
    assert [row["is_large_flow"] for row in rows] == [False, True, False]
    assert [row["return_status"] for row in rows] == ["ok", "large_flow_unvalued", "ok"]
    assert rows[0]["return_gross_computed"] == pytest.approx(0.012)
    assert rows[1]["return_gross_computed"] == pytest.approx(12.5 / 1010)
    assert rows[0]["policy_version"] == "2"
    without = table_of(make_history(*make_months((100, 0, 0, 101))))[0]
    assert (without["return_gross_computed"], without["return_gross_status"]) == (None, "missing_input")


def test_rollforward_is_exact(make_history: Any) -> None:
    exact = {
        "beginning_market_value": "12345678901234567.89", "contributions": "0.10", "distributions": "0.20",
        "income": "0.30", "appreciation": "-0.05", "fees": "0.01", "other_adjustments": None,
        "ending_market_value": "12345678901234568.00",
    }  # fmt: skip
    row = table_of(make_history(exact))[0]
    assert row["rollforward_difference"] == D("0.03")
    assert row["gain"] == D("0.21")
    assert table_of(make_history({}))[0]["rollforward_difference"] is None


def test_currency_change_breaks_chain_and_flow_sum(make_history: Any, make_months: Any) -> None:
    months = make_months((100, 5, 0, 110), (110, 5, 0, 120), (120, 5, 0, 130))
    months[2]["currency"] = "EUR"
    rows = table_of(make_history(*months))
    assert [row["chain_id"] for row in rows] == [1, 1, 2]
    assert [row["cumulative_net_flow"] for row in rows] == [5, 10, None]
    assert rows[2]["continuity_difference"] is None


def test_annualised_from_a_year_on(make_history: Any, make_months: Any) -> None:
    rows = table_of(
        make_history(
            *make_months(
                *[(round(D(100) * D("1.01") ** n, 8), 0, 0, round(D(101) * D("1.01") ** n, 8)) for n in range(13)]
            )
        )
    )
    assert all(row["annualised_return_chain"] is None for row in rows[:11])
    assert rows[11]["annualised_return_chain"] == pytest.approx((1.01**12) ** (365.25 / 366) - 1, rel=1e-9)


def test_current_versions(make_history: Any) -> None:
    def at(day: int) -> datetime:
        return datetime(2024, 4, day, tzinfo=UTC)

    history = make_history(
        {"ending_market_value": 1, "received_ts_utc": at(1), "file_sha256": "a"},
        {"ending_market_value": 2, "received_ts_utc": at(9), "file_sha256": "b", "line": 5},
        {"ending_market_value": 3, "received_ts_utc": at(9), "file_sha256": "b", "line": 6},
        {"ending_market_value": 4, "received_ts_utc": at(9), "file_sha256": "a", "line": 7},
        {"ending_market_value": 5, "received_ts_utc": at(9), "account_id": "A2"},
    )
    newest = {row["account_id"]: row["ending_market_value"] for row in current_versions(history).to_pylist()}
    assert newest == {"A1": 3, "A2": 5}
    before = current_versions(history, at(8)).to_pylist()
    assert [row["ending_market_value"] for row in before] == [1]
    assert current_versions(history, at(8)).schema.equals(history.schema)
    with pytest.raises(ValueError, match="time zone"):
        current_versions(history, datetime(2024, 4, 8))


def test_parts_in_any_order_are_parts_of_the_table(make_history: Any, make_months: Any) -> None:
    rows = [row for a in range(30) for row in make_months((100, 1, 0, 102), (102, 0, 3, 99), account_id=f"Z{a}")]
    random.Random(5).shuffle(rows)
    history = make_history(*rows)
    whole = account_performance(history, {})
    assert whole["account_id"].to_pylist() == sorted(row["account_id"] for row in rows)
    by_day = history.sort_by([("period_end", "ascending")])
    # However the history is cut, and the text of its parts encoded.
    for size in (60, 13, 1):
        performance = Performance({})
        cut = [by_day.slice(at, size) for at in range(0, 60, size)]
        for place in range(0, len(cut), 2):
            cut[place] = cut[place].set_column(2, "account_id", cut[place]["account_id"].dictionary_encode())
        windows = [performance.window([performance.numbered(part.combine_chunks())]) for part in cut]
        made = pa.concat_tables(
            performance.table(window, performance.link(window)).cast(performance_schema()) for window in windows
        )
        assert made.sort_by([(name, "ascending") for name in KEY_COLUMNS]).equals(whole)
        assert made["line"].to_pylist() == by_day["line"].to_pylist()


def test_a_window_has_the_newest_version_of_each_key_whichever_part_it_is_in(
    make_history: Any, make_months: Any
) -> None:
    rows = [row for a in range(9) for row in make_months((100, 1, 0, 102), (102, 0, 3, 99), account_id=f"Z{a}")]
    later = [row | {"ending_market_value": 7, "line": 8} for row in rows[::3]]
    for row in later:
        row["received_ts_utc"] = datetime(2030, 1, 1, tzinfo=UTC)
    performance = Performance({})
    parts = [performance.numbered(make_history(*part)) for part in (later[:2], rows, later[2:])]
    window = performance.window(parts)
    assert len(window) == 18
    made = performance.table(window, performance.link(window)).cast(performance_schema())
    expected = account_performance(current_versions(make_history(*rows, *later)), {})
    assert made.sort_by([(name, "ascending") for name in KEY_COLUMNS]).equals(expected)


def test_rows_are_picked_by_their_days_in_whatever_order(make_history: Any, make_months: Any) -> None:
    rows = [row for a in range(3) for row in make_months((100, 1, 0, 102), (102, 0, 3, 99), account_id=f"Z{a}")]
    history = make_history(*rows)
    for table in (history, history.sort_by([("period_end", "ascending")])):
        given = Performance({}).numbered(table)
        first, second = sorted(set(given.days.tolist()))
        for span, count in (((first, second), 3), ((first, second + 1), 6), ((second + 1, second + 9), 0)):
            picked = given.within(*span)
            assert picked.table.num_rows == len(picked.days) == len(picked.series) == len(picked.currency) == count
            assert picked.table["period_end"].cast(pa.int32()).to_pylist() == picked.days.tolist()
            assert all(span[0] <= day < span[1] for day in picked.days.tolist())


def test_keys_must_be_unique(make_history: Any) -> None:
    with pytest.raises(ValueError, match="more than once"):
        account_performance(make_history({"line": 1}, {"line": 2}), {})
    with pytest.raises(ValueError, match="has a null"):
        account_performance(make_history({"account_id": None}), {})


def test_policies_are_checked() -> None:
    with pytest.raises(ValueError, match="unknown timing"):
        Policy("noon")
    with pytest.raises(ValueError, match="cannot begin"):
        Policy("eod", "1", D(0))
    assert DEFAULT_POLICY.timing == "mid"


def test_certified_rounds_once() -> None:
    assert certified(0.01234550) == D("0.012346")
    assert certified(D("0.0123445")) == D("0.012344")
    assert certified(None) is None
