"""Many breaks at a time are explained as one is: the same hypothesis, remainder and sentence."""

from collections import Counter
from datetime import date
from decimal import Decimal, localcontext
from random import Random
from typing import Any

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.advisory.explanations import HYPOTHESES, BreakContext, explain_break
from finance_assets.advisory.explanations_columnar import EXPLAINED_CODES, SIDE_COLUMNS, SIDES, explain_breaks
from finance_assets.advisory.performance import PERFORMANCE_COLUMNS, performance_schema
from finance_assets.advisory.twrr import CONTEXT, period_return
from finance_assets.reference.flow_timings import TIMINGS

D = Decimal

#: Few enough that they meet, with signs, nothing, parts of a cent, hundredfolds, and more than 64 bits hold.
AMOUNTS = [
    D(text)
    for text in (
        "0", "0", "100000", "100000", "104500", "104500.01", "103000", "1000", "10000000", "5000", "2000", "250",
        "-5000", "-100000", "0.01", "0.00000001", "99999.98", "99999.97999999", "1234.5", "123456789012.25",
        "12345678901225", "300000000",
    )
]  # fmt: skip
OFFSETS = [
    D(text)
    for text in (
        "0", "0", "0", "0.0001", "-0.0001", "0.00010000000001", "-0.00010000000001", "0.00005", "-0.000000004", "0.3",
    )
]  # fmt: skip
MONEY_FIELDS = ("ending_market_value", "net_flow", "beginning_market_value", "fees", "contributions")


def side(random: Random, period_end: date) -> dict[str, Any]:
    def amount(null: float = 0.1) -> Decimal | None:
        return None if random.random() < null else random.choice(AMOUNTS)

    row: dict[str, Any] = {name: amount() for name in SIDE_COLUMNS[3:9]}
    if row["contributions"] is not None and row["distributions"] is not None:
        row["net_flow"] = row["contributions"] - row["distributions"]
    row |= {
        "vendor": random.choice(["alpha", "bravo"]), "period_end": period_end, "timing": random.choice(TIMINGS),
        "currency": random.choice(["USD", "USD", "EUR", None]), "return_net": None, "return_gross": None,
    }  # fmt: skip
    return row


def stated_return(random: Random, row: dict[str, Any]) -> Decimal:
    """A return that some change of the row's values may give, near the tolerance or not."""
    values = [random.choice([v for v in row.values() if isinstance(v, Decimal)] or [D(1)]) for _ in range(4)]
    money = [row["beginning_market_value"], row["contributions"], row["distributions"], row["ending_market_value"]]
    values = [v if own is None or random.random() < 0.15 else own for v, own in zip(values, money, strict=True)]
    if random.random() < 0.3:
        values[1], values[2] = values[2], values[1]
    value = period_return(*values, random.choice(TIMINGS)) or D(0)
    with localcontext(CONTEXT):
        value = value * random.choice([1, 1, 1, 100, 10_000, D("0.01")]) + random.choice(OFFSETS)
    return max(min(value, D(10) ** 9), -(D(10) ** 9)).quantize(D("1e-14"))


def broken(random: Random) -> dict[str, Any]:
    """A break and the rows around it."""
    code = random.choice(EXPLAINED_CODES)
    around = {
        name: side(random, date(2024, month, 28)) if name == "own" or random.random() < 0.8 else None
        for name, month in zip(SIDES, (2, 1, 3, 2, 1, 3), strict=True)
    }
    own = around["own"]
    assert own is not None
    difference: Decimal | None
    if code == "RETURN_TOLERANCE":
        field = random.choice(["return_net", "return_net", "return_gross"])
        own[field] = stated_return(random, own)
        difference = D("0.5")
    elif code in ("VENDOR_MISMATCH", "VALUE_MISMATCH"):
        field = random.choice(MONEY_FIELDS)
        other = around["other"] or own
        difference = (own[field] or D(0)) - (other[field] or D(0))
    else:
        field = "beginning_market_value" if code == "CONTINUITY" else "ending_market_value"
        own[field] = own[field] or D(0)
        around["previous"] = previous = around["previous"] or side(random, date(2024, 1, 28))
        previous["ending_market_value"] = previous["ending_market_value"] or D(0)
        if code == "CONTINUITY":
            difference = own[field] - previous["ending_market_value"]
        else:
            difference = random.choice(AMOUNTS) + random.choice([D(0), D("0.02"), D("-0.03"), D("0.00000001")])
    return {"code": code, "field": field, "difference": difference, **around}


def table_of(breaks: list[dict[str, Any]]) -> pa.Table:
    schema = performance_schema()
    row = pa.struct([schema.field(name) for name in SIDE_COLUMNS])
    fields = [("place", pa.int64()), ("code", pa.string()), ("field", pa.string())]
    fields += [("difference", pa.decimal128(38, 14)), *((name, row) for name in SIDES)]
    rows = [{"place": place, **one} for place, one in enumerate(breaks)]
    return pa.Table.from_pylist(rows, schema=pa.schema(fields))


def compared(breaks: list[dict[str, Any]]) -> Counter[tuple[str, str]]:
    """Explain breaks in both ways, and count what explained them."""
    table = table_of(breaks)
    got = {row["place"]: row for row in explain_breaks(table).to_pylist()}
    counted: Counter[tuple[str, str]] = Counter()
    for place, one in enumerate(table.to_pylist()):
        around = BreakContext(*(one[name] for name in SIDES))
        expected = explain_break(one["code"], one["field"], one["difference"], around)
        found = got.get(place)
        if expected is None:
            assert found is None, (one, found)
            continue
        with localcontext(CONTEXT):
            remaining = expected.remaining.quantize(D("1e-14"))
        assert found == {
            "place": place, "hypothesis": expected.hypothesis, "explanation": expected.wording, "remaining": remaining,
        }, one  # fmt: skip
        counted[one["code"], expected.hypothesis] += 1
    return counted


def test_fields_are_columns_of_performance() -> None:
    assert set(SIDE_COLUMNS) <= PERFORMANCE_COLUMNS.keys()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32))
def test_as_one_by_one(seed: int) -> None:
    random = Random(seed)
    compared([broken(random) for _ in range(200)])


def test_every_hypothesis_is_among_the_compared() -> None:
    random = Random(1)
    counted = compared([broken(random) for _ in range(6000)])
    assert {hypothesis for _, hypothesis in counted} == set(HYPOTHESES)
    for code in EXPLAINED_CODES:
        assert len([hypothesis for of_code, hypothesis in counted if of_code == code]) >= 6, counted


def test_no_breaks() -> None:
    assert explain_breaks(table_of([])).num_rows == 0
