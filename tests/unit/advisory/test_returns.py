"""Columns of single rows against the scalar functions, for money of any size and number of decimals."""

from __future__ import annotations

from decimal import Context, Decimal, localcontext
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finance_assets.advisory import returns
from finance_assets.advisory.returns import STATUS_TEXTS, TIMING_RULES, PolicyTable, RowReturns
from finance_assets.advisory.twrr import net_flow_of, row_return
from finance_assets.reference.flow_timings import TIMINGS

MONEY = pa.decimal128(28, 8)
NAMES = (
    "beginning_market_value", "contributions", "distributions", "net_flow", "ending_market_value", "fees", "income",
    "appreciation", "other_adjustments",
)  # fmt: skip
EXACT = Context(prec=80)


def columns(rows: list[dict[str, Decimal | None]], timing: str, threshold: str) -> RowReturns:
    size = len(rows)
    table = pa.table(
        {
            "vendor": ["v"] * size,
            "granularity": ["monthly"] * size,
            "period_start": pa.nulls(size, pa.date32()),
            "period_end": pa.array([19_000] * size, pa.int32()).cast(pa.date32()),
            **{name: pa.array([row.get(name) for row in rows], MONEY) for name in NAMES},
        }
    )
    return RowReturns(table, PolicyTable({"v": (timing, "1", Decimal(threshold))}))


def amounts(digits: int, places: int) -> st.SearchStrategy[Decimal | None]:
    """Return amounts of up to so many digits, with so many decimals; a few of them over and over."""
    limit = 10**digits - 1
    some = st.one_of(st.sampled_from([0, 0, 1, 10, -10, 100]), st.integers(-limit, limit))
    return st.one_of(st.none(), some.map(lambda n: EXACT.scaleb(Decimal(n), -places)))


def rows_of(digits: int, places: int) -> st.SearchStrategy[list[dict[str, Decimal | None]]]:
    row = st.fixed_dictionaries(dict.fromkeys(NAMES, amounts(digits, places)))
    return st.lists(row, min_size=1, max_size=25)


@pytest.mark.parametrize(
    ("digits", "places", "scale", "kind"),
    [
        (9, 2, 8, np.int64),
        (15, 8, 8, np.int64),
        (16, 2, 2, np.int64),  # beyond 64 bits with eight places, not with cents
        (27, 8, 8, object),
    ],
)
@pytest.mark.parametrize("timing", TIMINGS)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_rows_are_those_of_the_scalar_functions(
    data: st.DataObject, timing: str, digits: int, places: int, scale: int, kind: Any
) -> None:
    rows = data.draw(rows_of(digits, places))
    # One row that asks for the representation under test.
    extreme = EXACT.scaleb(Decimal(10**digits - 1), -places)
    rows.append({"beginning_market_value": extreme, "ending_market_value": extreme, "net_flow": Decimal(0)})
    made = columns(rows, timing, "0.1")
    assert made.amount("beginning_market_value").scale == scale
    assert made.amount("beginning_market_value").integers.dtype == kind
    flow = made.net_flow.decimals(pa.decimal128(38, 8)).to_pylist()
    gain = made.gain.decimals(pa.decimal128(38, 8)).to_pylist()
    off = made.rollforward_difference.decimals(pa.decimal128(38, 8)).to_pylist()
    for place, row in enumerate(rows):
        bmv, paid_in, paid_out, stated, emv = (row.get(name) for name in NAMES[:5])
        expected = row_return(bmv, paid_in, paid_out, emv, timing, net_flow=stated)
        assert STATUS_TEXTS[made.status[place]] == expected.status, row
        if expected.status != "missing_input" or None not in (bmv, emv, flow[place]):
            assert (TIMINGS[made.timing[place]], TIMING_RULES[made.timing_rule[place]]) == expected[1:3]
        found = made.return_net[place]
        assert np.isnan(found) == (expected.value is None)
        if expected.value is not None:
            assert abs(Decimal(float(found)) - expected.value) <= Decimal("1e-12") * (1 + abs(expected.value))
        with localcontext(prec=60):
            assert flow[place] == net_flow_of(paid_in, paid_out, stated)
            known = None not in (bmv, emv, flow[place])
            assert gain[place] == (emv - bmv - flow[place] if known else None)  # type: ignore[operator]
            components = [row.get(name) or 0 for name in ("appreciation", "income", "other_adjustments")]
            sum_known = known and row.get("appreciation") is not None
            assert off[place] == (sum(components) - (row.get("fees") or 0) - gain[place] if sum_known else None)


@pytest.mark.parametrize("threshold", ["0.1", "0.33333333", "0.00000001", "2.5"])
@given(base=st.integers(1, 10**15), step=st.sampled_from([-1, 0, 1]))
def test_a_flow_is_large_from_the_very_threshold_on(threshold: str, base: int, step: int) -> None:
    with localcontext(prec=60):
        bmv = Decimal(base).scaleb(-8)
        exact = bmv * Decimal(threshold)
        flow = exact.quantize(Decimal("1e-8"), rounding="ROUND_CEILING") + Decimal(step).scaleb(-8)
        is_large = flow != 0 and abs(flow) >= exact
    made = columns([{"beginning_market_value": bmv, "net_flow": -flow, "ending_market_value": bmv}], "eod", threshold)
    assert made.is_large_flow.tolist() == [is_large]


def test_money_that_is_not_there_is_unknown() -> None:
    table = columns([{"beginning_market_value": Decimal(1)}], "mid", "0.1")
    fewer = table._rows.drop_columns(["fees", "income"])
    made = RowReturns(fewer, PolicyTable({}))
    assert not made.amount("fees").known.any()
    assert made.gross_status.tolist() == made.status.tolist()
    assert made.timing.tolist() == [TIMINGS.index(returns.DEFAULT_POLICY.timing)]
