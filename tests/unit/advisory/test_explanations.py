"""Each hypothesis closes the gap it is for, in order, and none closes what it cannot."""

from datetime import date
from decimal import Decimal
from typing import Any

import pytest

from finance_assets.advisory.explanations import HYPOTHESES, BreakContext, explain_break

D = Decimal


def row(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "vendor": "alpha", "account_id": "A1", "period_end": date(2024, 2, 29), "currency": "USD",
        "beginning_market_value": 100_000, "contributions": 5000, "distributions": 2000, "ending_market_value": 104_500,
        "fees": 250, "timing": "mid", "return_net": None, "return_gross": None,
    }  # fmt: skip
    values.update(changes)
    values = {name: D(str(v)) if isinstance(v, int | float) else v for name, v in values.items()}
    if "net_flow" not in values:
        values["net_flow"] = values["contributions"] - values["distributions"]
    return values


#: Computed: 1500 / 101500 = 0.014778.
@pytest.mark.parametrize(
    ("changes", "stated", "hypothesis", "words"),
    [
        ({}, "0.065657", "missing_flow", "Leaving out the contribution of 5,000.00 gives"),
        ({}, "-0.00488", "missing_flow", "Leaving out the distribution of 2,000.00 gives"),
        ({}, "0.045", "missing_flow", "Leaving out both flows"),
        ({}, "0.076142", "flow_sign", "opposite sign (-3,000.00 instead of 3,000.00)"),
        ({}, "0.017241", "fee", "Adding back the fees of 250.00"),
        ({}, "0.012315", "fee", "Counting the fees of 250.00 twice"),
        ({}, "1.4778", "percent", "divided by 100"),
        ({}, "147.78", "percent", "divided by 10000"),
        ({}, "0.00014778", "percent", "times 100"),
        ({}, "0", "stale_price", "A price unchanged since the period before"),
        ({}, "-0.029557", "stale_price", "equal to the previous one"),
        ({}, "0.014563", "flow_timing", "flows at the start (sod instead of mid)"),
        ({}, "0.015", "flow_timing", "flows at the end (eod instead of mid)"),
        ({"contributions": 30_000, "distributions": 27_000}, "0.011538", "flow_timing", "mixed instead of mid"),
    ],
)
def test_returns(changes: dict[str, Any], stated: str, hypothesis: str, words: str) -> None:
    this = row(**changes, return_net=D(stated))
    got = explain_break("RETURN_TOLERANCE", "return_net", D(0), BreakContext(this))
    assert got is not None
    assert got.hypothesis == hypothesis
    assert words in got.wording
    assert abs(got.remaining) <= D("0.0001")
    assert got.wording.endswith("bp remain.")


def test_returns_with_neighbours() -> None:
    following = row(beginning_market_value=106_000, ending_market_value=120_000, period_end=date(2024, 3, 31))
    stale = row(contributions=0, distributions=0, ending_market_value=100_000, return_net=D("0.06"))
    got = explain_break("RETURN_TOLERANCE", "return_net", D("0.06"), BreakContext(stale, None, following))
    assert got is not None
    assert (got.hypothesis, got.remaining) == ("stale_price", 0)
    shifted = row(return_net=D("0.102326"))
    got = explain_break("RETURN_TOLERANCE", "return_net", D("0.1"), BreakContext(shifted, None, following))
    assert got is not None
    assert got.hypothesis == "period_shift"
    assert "The following period, ended 2024-03-31," in got.wording
    previous = row(currency="EUR", ending_market_value=90_000)
    other = row(return_net=(D(104_500) - 93_000) / D(91_500))
    got = explain_break("RETURN_TOLERANCE", "return_net", D("0.1"), BreakContext(other, previous))
    assert got is not None
    assert got.hypothesis == "currency"


def test_nothing_explains_an_arbitrary_return() -> None:
    around = BreakContext(row(return_net=D("0.2345")))
    assert explain_break("RETURN_TOLERANCE", "return_net", D("0.21"), around) is None
    assert explain_break("GAP", "period_start", D(3), around) is None


@pytest.mark.parametrize(
    ("opening", "previous", "hypothesis"),
    [
        (105_000, {"ending_market_value": 100_000}, "missing_flow"),
        (97_000, {"ending_market_value": 103_000}, "flow_sign"),
        (100_250, {"ending_market_value": 100_000}, "fee"),
        (100_000, {"ending_market_value": 10_000_000}, "percent"),
        (100_000, {"beginning_market_value": 100_000, "ending_market_value": 111_111}, "stale_price"),
        (100_777, {"beginning_market_value": 100_000, "ending_market_value": 100_000}, "stale_price"),
        (92_000, {"beginning_market_value": 90_000, "ending_market_value": 101_234, "currency": "EUR"}, "currency"),
        (104_500, {"beginning_market_value": 90_000, "ending_market_value": 101_234}, "period_shift"),
    ],
)
def test_continuity(opening: int, previous: dict[str, Any], hypothesis: str) -> None:
    before = row(**previous, period_end=date(2024, 1, 31))
    this = row(beginning_market_value=opening)
    difference = this["beginning_market_value"] - before["ending_market_value"]
    got = explain_break("CONTINUITY", "beginning_market_value", difference, BreakContext(this, before))
    assert got is not None
    assert got.hypothesis == hypothesis
    assert got.wording.endswith("cents remain.")


@pytest.mark.parametrize(
    ("ending", "difference", "hypothesis"),
    [
        (104_500, "5000.01", "missing_flow"),
        (104_500, "-4000", "flow_sign"),
        (104_500, "250", "fee"),
        (104_500, "500", "fee"),
        (10_450_000, "-10345500", "percent"),
        (100_000, "777", "stale_price"),
        (104_500, "1500", "period_shift"),
    ],
)
def test_rollforward(ending: int, difference: str, hypothesis: str) -> None:
    this = row(ending_market_value=ending)
    following = row(beginning_market_value=106_000, ending_market_value=120_000)
    got = explain_break("ROLLFORWARD", "ending_market_value", D(difference), BreakContext(this, None, following))
    assert got is not None
    assert got.hypothesis == hypothesis
    assert abs(got.remaining) <= D("0.02")


@pytest.mark.parametrize(
    ("field", "mine", "theirs", "hypothesis"),
    [
        ("net_flow", {}, {"distributions": 0}, "missing_flow"),
        (
            "net_flow",
            {"contributions": 3000, "distributions": 0},
            {"contributions": 0, "distributions": 3000},
            "flow_sign",
        ),
        ("ending_market_value", {}, {"ending_market_value": 104_750}, "fee"),
        ("ending_market_value", {}, {"ending_market_value": 1045}, "percent"),
        ("ending_market_value", {}, {"ending_market_value": 99_999}, "stale_price"),
        ("ending_market_value", {}, {"ending_market_value": 96_000, "currency": "EUR"}, "currency"),
        ("ending_market_value", {"ending_market_value": 88_888}, {}, "period_shift"),
    ],
)
def test_vendors(field: str, mine: dict[str, Any], theirs: dict[str, Any], hypothesis: str) -> None:
    this, other = row(**mine), row(**theirs, vendor="bravo")
    before = row(ending_market_value=99_999, vendor="bravo")
    after = row(ending_market_value=88_888, beginning_market_value=77_777, vendor="bravo")
    around = BreakContext(this, None, None, other, before, after)
    got = explain_break("VENDOR_MISMATCH", field, this[field] - other[field], around)
    assert got is not None
    assert got.hypothesis == hypothesis


def test_order_and_wording() -> None:
    assert HYPOTHESES == (
        "missing_flow", "flow_sign", "fee", "percent", "stale_price", "flow_timing", "currency", "period_shift",
    )  # fmt: skip
    # The difference is a flow and the fees alike: the first hypothesis is reported.
    this = row(fees=5000)
    got = explain_break("ROLLFORWARD", "ending_market_value", D("4999.99"), BreakContext(this))
    assert got is not None
    assert got.hypothesis == "missing_flow"
    assert got.wording == ("The difference of 4,999.99 is one contribution of this period, 5,000.00; -1 cents remain.")
