"""Returns of single periods, linking and Modified Dietz: worked examples and properties."""

import decimal
from datetime import date, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.advisory.twrr import (
    CONTEXT,
    annualise,
    large_flow_days,
    link,
    modified_dietz,
    net_flow_of,
    period_return,
    row_return,
    split_at_large_flows,
    timing_for,
)
from finance_assets.contracts.status import Status
from finance_assets.reference.flow_timings import TIMINGS

D = Decimal

JAN_1, JAN_31 = date(2024, 1, 1), date(2024, 1, 31)
#: Rounding of 50 digits, with room for a few operations.
CLOSE = D("1e-40")

money = st.decimals(min_value=0, max_value=10**9, places=2)
positive = st.decimals(min_value=D("0.01"), max_value=10**9, places=2)
returns = st.decimals(min_value=D("-0.99"), max_value=5, places=8)


@pytest.mark.parametrize(("timing", "expected"), [("sod", "0.2"), ("eod", "0.3"), ("mid", "0.24"), ("mixed", "0.2")])
def test_deposit_of_half_the_value_on_a_day_of_plus_a_fifth(timing: str, expected: str) -> None:
    """METRICS C1: 50,000 into 100,000, stock from 10 to 12."""
    assert period_return(D(100_000), D(50_000), D(0), D(180_000), timing) == D(expected)


def test_mixed_takes_money_in_at_the_start_and_out_at_the_end() -> None:
    assert period_return(D(100), D(50), D(30), D(135), "mixed") == D("0.1")


def test_value_before_the_flow() -> None:
    assert period_return(D(100), D(50), D(0), D(110), "flow_after_valuation") == D("0.1")


@pytest.mark.parametrize(
    ("bmv", "money_in", "money_out", "emv", "undefined"),
    [
        (0, 0, 0, 10, {"sod", "eod", "mid", "mixed", "flow_after_valuation"}),
        (0, 100, 0, 101, {"eod", "flow_after_valuation"}),
        (100, 0, 100, 0, {"sod"}),
        (100, 0, 200, 0, {"sod", "mid"}),
        (-100, 100, 0, 0, {"sod", "eod", "mid", "mixed", "flow_after_valuation"}),
    ],
)
def test_denominators(bmv: int, money_in: int, money_out: int, emv: int, undefined: set[str]) -> None:
    got = {t for t in TIMINGS if period_return(D(bmv), D(money_in), D(money_out), D(emv), t) is None}
    assert got == undefined


def test_unknown_timing_and_amounts_that_are_none() -> None:
    with pytest.raises(ValueError, match="unknown timing 'noon'"):
        period_return(D(1), D(0), D(0), D(1), "noon")
    with pytest.raises(ValueError, match="NaN is not an amount"):
        period_return(D("NaN"), D(0), D(0), D(1), "eod")


@pytest.mark.parametrize(
    # account, month, BMV, in, out, EMV, fees and mid, start and end of day as 10 places, of an independent truth
    ("bmv", "money_in", "money_out", "emv", "mid", "sod", "eod"),
    [
        ("734242.22", "9846.36", "5374.08", "744284.45", "0.0075629513", "0.0075400578", "0.0075859844"),
        ("705705.11", "0.00", "0.00", "707691.67", "0.0028150002", "0.0028150002", "0.0028150002"),
        ("22245758", "1840706", "820074", "23482686", "0.0095049788", "0.0092965002", "0.0097230222"),
        ("2023431.12", "0.00", "1967750.34", "0.00", "-0.0535620810", "-1.0000000000", "-0.0275180012"),
        ("2579247.19", "1083283.82", "0.00", "3734146.96", "0.0229472909", "0.0195536774", "0.0277662220"),
        ("1700097.11", "0.00", "1649094.20", "-103955.84", "-0.1769844649", "-3.0382335047", "-0.0911469992"),
    ],
)
def test_against_an_independent_truth(
    bmv: str, money_in: str, money_out: str, emv: str, mid: str, sod: str, eod: str
) -> None:
    for timing, expected in (("mid", mid), ("sod", sod), ("eod", eod)):
        value = period_return(D(bmv), D(money_in), D(money_out), D(emv), timing)
        assert value is not None
        assert round(value, 10) == D(expected)


@pytest.mark.parametrize(
    ("bmv", "flow", "emv", "timing", "rule"),
    [
        (0, 250_000, 253_125, "sod", "inception"),
        (2_023_431, -1_967_750, 0, "eod", "full_withdrawal"),
        (100, -100, 0, "eod", "full_withdrawal"),
        (0, 0, 0, "sod", "no_capital"),
        (100, 10, 111, "mid", "declared"),
        (100, 0, 0, "mid", "declared"),  # a total loss is no withdrawal
        (-100, 100, 0, "mid", "declared"),  # a margin debt paid off is no absence of capital
        (0, -10, 0, "mid", "declared"),
    ],
)
def test_overrides(bmv: int, flow: int, emv: int, timing: str, rule: str) -> None:
    assert timing_for(D(bmv), D(flow), D(emv), "mid") == (timing, rule)


@pytest.mark.parametrize(
    ("row", "declared", "status", "value"),
    [
        (("0", "250000", "0", "253125"), "mid", Status.OK, "0.0125"),
        (("0", "0", "0", "0"), "mid", Status.UNDEFINED_DENOMINATOR, None),
        (("-100", "0", "0", "-90"), "mid", Status.UNDEFINED_DENOMINATOR, None),
        (("-100", "250", "0", "160"), "mid", Status.UNDEFINED_DENOMINATOR, None),
        (("100", "0", "200", "5"), "mid", Status.NON_POSITIVE_AVERAGE_CAPITAL, None),
        (("100", "0", "150", "5"), "sod", Status.UNDEFINED_DENOMINATOR, None),
        (("100", "0", "50", "-60"), "eod", Status.OUTSIDE_DOMAIN, None),
        (("100", "10", "0", "111"), "eod", Status.LARGE_FLOW_UNVALUED, "0.01"),
        (("100", "9.99", "0", "110.99"), "eod", Status.OK, "0.01"),
        (("100", "0", "101", "0"), "mid", Status.OK, "0.01"),
        (("100", "0", "0", "0"), "mid", Status.OK, "-1"),
    ],
)
def test_rows(row: tuple[str, str, str, str], declared: str, status: Status, value: str | None) -> None:
    bmv, money_in, money_out, emv = (D(amount) for amount in row)
    got = row_return(bmv, money_in, money_out, emv, declared)
    assert got.status == status
    assert got.value == (None if value is None else D(value))


def test_rows_with_parts_missing() -> None:
    assert row_return(None, D(0), D(0), D(1), "mid").status == Status.MISSING_INPUT
    assert row_return(D(1), None, D(0), D(1), "mid").status == Status.MISSING_INPUT
    assert row_return(D(100), None, None, D(111), "eod", net_flow=D(1)).value == D("0.1")
    assert row_return(D(100), None, None, D(111), "mixed", net_flow=D(1)).status == Status.MISSING_INPUT
    assert row_return(D(100), D(50), D(0), D(160), "eod", valued_daily=True).status == Status.OK
    assert net_flow_of(D(3), None, D(2)) == 2
    assert net_flow_of(D(3), D(2), D(7)) == 1
    assert net_flow_of(None, None) is None


def test_link() -> None:
    assert link([D("0.1"), D("-0.1")]) == D("-0.01")
    assert link([]) == 0
    assert link([D("0.1"), None]) is None
    assert link([D("0.1"), D(-1), D("0.5")]) == -1
    assert link([D("-1.2"), D("-1.2")]) is None


def test_annualise() -> None:
    assert annualise(D("0.1"), 364) is None
    value = annualise(D("0.21"), 730)
    assert value is not None
    assert abs(value - D("0.10004")) < D("0.0001")
    assert annualise(D(-1), 400) == -1
    assert annualise(D("-1.1"), 400) is None
    assert annualise(None, 400) is None


def test_modified_dietz() -> None:
    flows = [(date(2024, 1, 10), D(60)), (date(2024, 1, 10), D(-10))]
    got = modified_dietz(D(100), D(160), flows, JAN_1, JAN_31, "end")
    assert got is not None
    assert abs(got - D(10) / (100 + D(50) * 21 / 31)) < D("1e-26")
    at_start = modified_dietz(D(100), D(160), {date(2024, 1, 10): D(50)}, JAN_1, JAN_31, "start")
    assert at_start is not None
    assert abs(at_start - D(10) / (100 + D(50) * 22 / 31)) < D("1e-26")


def test_modified_dietz_two_years() -> None:
    """50 into 100 in the middle of two years, 300 at the end: 120 %."""
    flows = [(date(2015, 12, 31), D(50))]
    assert modified_dietz(D(100), D(300), flows, date(2015, 1, 1), date(2016, 12, 30), "end") == D("1.2")


def test_modified_dietz_edges() -> None:
    assert modified_dietz(D(100), D(0), [(JAN_1, D(-200))], JAN_1, JAN_31, "start") is None
    assert modified_dietz(D(100), D(160), [(JAN_31, D(50))], JAN_1, JAN_31, "end") == D("0.1")
    assert modified_dietz(D(100), D(165), [(JAN_1, D(50))], JAN_1, JAN_31, "start") == D("0.1")
    with pytest.raises(ValueError, match="outside"):
        modified_dietz(D(1), D(1), [(date(2024, 2, 1), D(1))], JAN_1, JAN_31, "end")
    with pytest.raises(ValueError, match="flows_at"):
        modified_dietz(D(1), D(1), [], JAN_1, JAN_31, "noon")
    with pytest.raises(ValueError, match="before it starts"):
        modified_dietz(D(1), D(1), [], JAN_31, JAN_1, "end")


def test_large_flows_are_tested_on_the_sum_of_the_day() -> None:
    day = date(2024, 1, 10)
    assert large_flow_days(D(100), [(day, D(6)), (day, D(4))]) == ((day, D(10)),)
    assert large_flow_days(D(100), [(day, D(60)), (day, D(-55))]) == ()
    assert large_flow_days(D(100), [(day, D(-10))]) == ((day, D(-10)),)
    assert large_flow_days(D(0), [(day, D(10))]) == ()


def test_split() -> None:
    day = date(2024, 1, 11)
    got = split_at_large_flows(D(100), D(231), [(day, D(100))], JAN_1, JAN_31, "start", valuations={day: D(110)})
    assert got.status == Status.OK
    assert [part.value for part in got.parts] == [D("0.1"), D("0.1")]
    assert got.value == D("0.21")
    assert [(part.start, part.end) for part in got.parts] == [(JAN_1, date(2024, 1, 10)), (day, JAN_31)]
    unvalued = split_at_large_flows(D(100), D(231), [(day, D(100))], JAN_1, JAN_31, "start", valuations={})
    assert unvalued.status == Status.LARGE_FLOW_UNVALUED
    assert unvalued.unvalued == (day,)
    assert unvalued.value == modified_dietz(D(100), D(231), [(day, D(100))], JAN_1, JAN_31, "start")


@pytest.mark.parametrize(("flows_at", "day", "value"), [("start", JAN_1, "0.1"), ("end", JAN_31, "1.2")])
def test_a_large_flow_at_the_edge_needs_no_valuation(flows_at: str, day: date, value: str) -> None:
    got = split_at_large_flows(D(100), D(220), [(day, D(100))], JAN_1, JAN_31, flows_at, valuations={})
    assert got.status == Status.OK
    assert len(got.parts) == 1
    assert got.value == (D("0.1") if flows_at == "start" else D("0.2"))


@given(st.lists(returns, max_size=8), st.integers(0, 8))
def test_linking_is_associative(values: list[D], at: int) -> None:
    whole, parts = link(values), link([link(values[:at]), link(values[at:])])
    assert whole is not None
    assert parts is not None
    assert abs(whole - parts) <= CLOSE * (1 + abs(whole))


@given(positive, positive, positive, st.sampled_from(["eod", "sod", "mid", "mixed"]))
def test_splitting_a_period_without_flows_at_a_valuation_changes_nothing(
    bmv: D, middle: D, emv: D, timing: str
) -> None:
    zero = D(0)
    whole = period_return(bmv, zero, zero, emv, timing)
    parts = link([period_return(bmv, zero, zero, middle, timing), period_return(middle, zero, zero, emv, timing)])
    assert whole is not None
    assert parts is not None
    assert abs(whole - parts) <= CLOSE * (1 + abs(whole))


@given(positive, positive, money, money, positive, st.integers(2, 30))
@settings(deadline=None)
def test_splitting_where_the_flow_is_valued_gives_the_growth_of_the_parts(
    bmv: D, middle: D, money_in: D, money_out: D, emv: D, place: int
) -> None:
    """With a valuation at each flow the size of the flow has no influence."""
    day = JAN_1 + timedelta(days=place - 1)
    flow = money_in - money_out
    if middle + flow <= 0:
        return
    growth = emv / 10**6  # what one unit grows by after the flow
    ending = CONTEXT.multiply(middle + flow, growth)
    got = split_at_large_flows(
        bmv, ending, [(day, flow)], JAN_1, JAN_31, "start", valuations={day: middle}, threshold=D("1e-12")
    )
    if flow:
        assert got.value is not None
        expected = CONTEXT.subtract(CONTEXT.multiply(CONTEXT.divide(middle, bmv), growth), D(1))
        assert abs(got.value - expected) <= D("1e-30") * (1 + abs(expected))


@given(positive, money, money, st.sampled_from(["sod", "mid", "eod", "mixed"]))
def test_a_deposit_is_never_a_gain(bmv: D, money_in: D, money_out: D, timing: str) -> None:
    """Money that only comes and goes earns nothing, under any timing."""
    value = period_return(bmv, money_in, money_out, bmv + money_in - money_out, timing)
    assert value is None or value == 0


@given(positive, money, money, money, st.sampled_from(TIMINGS))
def test_decimals_in_and_out_whatever_the_context(bmv: D, money_in: D, money_out: D, emv: D, timing: str) -> None:
    value = period_return(bmv, money_in, money_out, emv, timing)
    assert value is None or isinstance(value, D)
    with decimal.localcontext(decimal.Context(prec=3)):
        assert period_return(bmv, money_in, money_out, emv, timing) == value


@given(st.lists(returns, min_size=1, max_size=5))
def test_a_total_loss_sticks(values: list[D]) -> None:
    assert link([D(-1), *values]) == -1
