"""Why a break is there: hypotheses tried in a fixed order, the first that closes the gap is the explanation.

Belongs here: the names of all hypotheses; of those that close a gap between numbers the arithmetic and the wording, on
one break and the rows around it. Does not belong here: the same for tables of breaks
(`finance_assets.advisory.explanations_columnar`), breaks that are about rows
(`finance_assets.advisory.row_break_causes`),
finding breaks (`finance_assets.advisory.reconciliation`), storage, Dagster.

All arithmetic is in decimals. A hypothesis closes the gap if what remains is within the tolerance of the break; it
explains, it proves nothing, and the row stays as the vendor stated it.
"""

from collections.abc import Iterator, Mapping
from decimal import Decimal, localcontext
from typing import Any, Final, NamedTuple

from finance_assets.advisory.twrr import CONTEXT, net_flow_of, period_return
from finance_assets.reference.flow_timings import TIMINGS

__all__ = [
    "HYPOTHESES",
    "MONEY_TOLERANCE",
    "RETURN_TOLERANCE",
    "ROW_HYPOTHESES",
    "TIMING_NAMES",
    "BreakContext",
    "Explanation",
    "explain_break",
]

MONEY_TOLERANCE: Final = Decimal("0.02")
"""Four amounts rounded to cents may disagree by two cents (METRICS C4)."""
RETURN_TOLERANCE: Final = Decimal("0.0001")
"""One basis point, inclusive."""

Row = Mapping[str, Any]
Candidate = tuple[str, Decimal]

_FLOWS: Final = (("contributions", "contribution"), ("distributions", "distribution"), ("net_flow", "net flow"))
_RETURNS: Final = ("return_net", "return_gross")
_SCALES: Final = (Decimal(100), Decimal(10_000))
TIMING_NAMES: Final = {
    "sod": "flows at the start",
    "eod": "flows at the end",
    "mid": "flows in the middle",
    "mixed": "money in at the start and out at the end",
    "flow_after_valuation": "an ending value before the flow",
}


class Explanation(NamedTuple):
    """The first hypothesis that closes a gap."""

    hypothesis: str
    """One of `HYPOTHESES`."""
    wording: str
    """A sentence with the numbers, and the cents or basis points that remain."""
    remaining: Decimal
    """What is still unexplained: money, or a return as a decimal fraction."""


class BreakContext(NamedTuple):
    """The row of a break and its neighbours, as rows of the performance table."""

    row: Row
    previous: Row | None = None
    following: Row | None = None
    other: Row | None = None
    """The same account and period of the other vendor, or of the existing records."""
    other_previous: Row | None = None
    other_following: Row | None = None


def explain_break(
    code: str, field: str, difference: Decimal, around: BreakContext, tolerance: Decimal | None = None
) -> Explanation | None:
    """Find the first hypothesis that closes the gap of a break.

    Parameters
    ----------
    code
        ``RETURN_TOLERANCE``, ``CONTINUITY``, ``ROLLFORWARD``, ``VENDOR_MISMATCH`` or ``VALUE_MISMATCH``.
    field
        The value that disagrees: a column of the performance table.
    difference
        Stated less computed return; BMV less the previous EMV; roll-forward less EMV; first vendor less second.
    around
        The rows to explain it with.
    tolerance
        What may remain; by default one basis point for a return, two cents for money.

    Returns
    -------
    Explanation or None
        None if no hypothesis closes the gap, or the code has nothing to close.
    """
    is_return = field in _RETURNS or field == "return_net_computed"
    limit = tolerance if tolerance is not None else RETURN_TOLERANCE if is_return else MONEY_TOLERANCE
    if code == "RETURN_TOLERANCE":
        tries = _return_tries
    elif code in ("CONTINUITY", "ROLLFORWARD", "VENDOR_MISMATCH", "VALUE_MISMATCH") and not is_return:
        tries = {"CONTINUITY": _continuity_tries, "ROLLFORWARD": _rollforward_tries}.get(code, _vendor_tries)
    else:
        return None
    with localcontext(CONTEXT):
        for hypothesis in HYPOTHESES:
            for wording, remaining in tries(hypothesis, field, difference, around):
                if abs(remaining) <= limit:
                    rest = f"{_bp(remaining)} bp" if is_return else f"{_cents(remaining)} cents"
                    return Explanation(hypothesis, f"{wording}; {rest} remain.", remaining)
    return None


HYPOTHESES: Final = (
    "missing_flow",
    "flow_sign",
    "fee",
    "percent",
    "stale_price",
    "flow_timing",
    "currency",
    "period_shift",
)
"""In the order in which they are tried."""

ROW_HYPOTHESES: Final = {
    "GAP": {
        "overlap": "The period begins before the one before it ends.",
        "empty_account": "It ended with 0 before the gap and begins with 0 after it.",
        "missing_rows": "Other accounts of the vendor have rows in between: the rows of this account are missing.",
        "missing_file": "Nobody has rows in between, and several accounts have this gap: a delivery is missing.",
    },
    "MISSING": {
        "renamed_account": "One new account of the vendor, and no other, begins with the value this one ended with.",
        "whole_delivery": "None of the accounts of the file that had stated it came.",
        "closed": "Its last ending value is 0.",
        "missing_rows": "It is there again later: rows of it are missing.",
    },
    "RESTATED": {
        "sign": "What was changed has the opposite sign, or contributions and distributions change places.",
        "percent": "What was changed is a hundred times what it was, or a hundredth; a return also ten thousand times.",
        "new_break": "The new version breaks what the version before did not.",
        "correction": "The version before broke what the new one does not.",
    },
    "DUPLICATE": {
        "identical_rows": "The rows say the same.",
        "conflicting_rows": "The rows differ.",
    },
    "EXTRA": {
        "renamed_account": "One account of the existing records, and no other, has this value; the vendor lacks it.",
        "period_shift": "The existing records have the values of this account one period earlier or later.",
    },
    "MISSING_IN_VENDOR": {
        "renamed_account": "One account of the vendor, and no other, has this value; the existing records lack it.",
        "period_shift": "The vendor states the values of this account one period earlier or later.",
    },
}
"""Of breaks that are about rows: by code, in the order in which they are tried, and what proves each.

`finance_assets.advisory.row_break_causes` tries them on tables, since they rest on other accounts and periods.
"""


def _return_tries(hypothesis: str, field: str, difference: Decimal, around: BreakContext) -> Iterator[Candidate]:
    """Try a stated return against the return that the row's values give under a changed assumption."""
    row, stated = around.row, around.row[field]
    values = _Values.of(row, gross=field == "return_gross")
    if stated is None or values is None:
        return
    fees = row.get("fees") or Decimal(0)

    def given(wording: str, changed: Decimal | None, compared: Decimal = stated) -> Iterator[Candidate]:
        if changed is not None:
            yield f"{wording} gives {_fraction(changed)}, the stated return is {_fraction(stated)}", compared - changed

    if hypothesis == "missing_flow":
        if values.money_in:
            yield from given(
                f"Leaving out the contribution of {_money(values.money_in)}", values.result(money_in=Decimal(0))
            )
        if values.money_out:
            yield from given(
                f"Leaving out the distribution of {_money(values.money_out)}", values.result(money_out=Decimal(0))
            )
        if values.money_in and values.money_out:
            yield from given("Leaving out both flows", values.result(money_in=Decimal(0), money_out=Decimal(0)))
    elif hypothesis == "flow_sign" and values.money_in != values.money_out:
        flow = values.money_in - values.money_out
        yield from given(
            f"The flow with the opposite sign ({_money(-flow)} instead of {_money(flow)})",
            values.result(money_in=values.money_out, money_out=values.money_in),
        )
    elif hypothesis == "fee" and fees:
        word = "Taking out" if field == "return_gross" else "Adding back"
        base = values.emv - fees if field == "return_gross" else values.emv + fees
        yield from given(f"{word} the fees of {_money(fees)}", values.result(emv=base))
        yield from given(f"Counting the fees of {_money(fees)} twice", values.result(emv=2 * values.emv - base))
    elif hypothesis == "percent":
        computed = values.result()
        if computed is not None and abs(computed) > RETURN_TOLERANCE:  # everything over 100 is close to nothing
            for scale in _SCALES:
                yield from given(f"The stated return divided by {scale}: the row", computed, stated / scale)
            yield from given("The stated return times 100: the row", computed, stated * 100)
    elif hypothesis == "stale_price":
        following = around.following
        if values.emv == values.bmv and following is not None and following["beginning_market_value"] is not None:
            later = following["beginning_market_value"]
            yield from given(
                f"The ending value equals the beginning value of {_money(values.bmv)} (stale price); the next"
                f" beginning value of {_money(later)} instead",
                values.result(emv=later),
            )
        flow = values.money_in - values.money_out
        yield from given(
            f"A price unchanged since the period before (ending value {_money(values.bmv + flow)})",
            values.result(emv=values.bmv + flow),
        )
        if flow:
            yield from given(
                f"An ending value equal to the previous one of {_money(values.bmv)} (stale price)",
                values.result(emv=values.bmv),
            )
    elif hypothesis == "flow_timing":
        for timing in TIMINGS:
            if timing != values.timing:
                yield from given(
                    f"With {TIMING_NAMES[timing]} ({timing} instead of {values.timing}) the row",
                    values.result(timing=timing),
                )
    elif hypothesis == "currency" and _differ(row, around.previous, "currency") and around.previous is not None:
        opening = around.previous["ending_market_value"]
        if opening is not None:
            yield from given(
                f"A beginning value of {_money(opening)} in {around.previous['currency']} instead of {row['currency']}",
                values.result(bmv=opening),
            )
    elif hypothesis == "period_shift":
        for name, neighbour in (("previous", around.previous), ("following", around.following)):
            shifted = _Values.of(neighbour, gross=field == "return_gross") if neighbour is not None else None
            if shifted is not None and neighbour is not None:
                yield from given(f"The {name} period, ended {neighbour['period_end']},", shifted.result())


def _continuity_tries(hypothesis: str, field: str, difference: Decimal, around: BreakContext) -> Iterator[Candidate]:
    """Try a beginning value against the ending value of the period before."""
    row, previous, following = around.row, around.previous, around.following
    if previous is None:
        return
    opening, closing = row["beginning_market_value"], previous["ending_market_value"]
    if hypothesis in ("missing_flow", "flow_sign", "fee"):
        yield from _amount_tries(hypothesis, difference, (("of this period", row), ("of the period before", previous)))
    elif hypothesis == "percent":
        yield from _scale_tries("beginning value", opening, closing)
    elif hypothesis == "stale_price":
        if opening == previous["beginning_market_value"]:
            yield f"The beginning value repeats the one of the period before, {_money(opening)} (stale)", Decimal(0)
        elif closing == previous["beginning_market_value"]:
            yield (
                f"The ending value before equals the one before it, {_money(closing)} (stale price);"
                f" the price update of {_money(difference)} is in the beginning value",
                Decimal(0),
            )
    elif hypothesis == "currency" and _differ(row, previous, "currency"):
        yield from _rate(row["currency"], opening, previous["currency"], closing)
    elif hypothesis == "period_shift":
        if following is not None and following["beginning_market_value"] is not None:
            later = following["beginning_market_value"]
            if later == opening:
                yield f"The beginning value is that of the following period, {_money(later)}", opening - later
        if row["ending_market_value"] is not None:
            yield "The beginning value is the ending value of the same period", opening - row["ending_market_value"]


def _rollforward_tries(hypothesis: str, field: str, difference: Decimal, around: BreakContext) -> Iterator[Candidate]:
    """Try beginning value, flows and components against the ending value."""
    row, ending = around.row, around.row["ending_market_value"]
    if hypothesis in ("missing_flow", "flow_sign", "fee"):
        yield from _amount_tries(hypothesis, difference, (("of this period", row),))
    elif hypothesis == "percent":
        yield from _scale_tries("ending value", ending, ending + difference)
    elif hypothesis == "stale_price" and ending == row["beginning_market_value"]:
        yield (
            f"The ending value equals the beginning value of {_money(ending)} (stale price);"
            f" rolled forward it is {_money(ending + difference)}",
            Decimal(0),
        )
    elif hypothesis == "period_shift":
        following = around.following
        if following is not None:
            for name in ("beginning_market_value", "ending_market_value"):
                if following[name] is not None:
                    words = f"The values roll forward to the {name.replace('_', ' ')} of the following period"
                    yield f"{words}, {_money(following[name])}", ending + difference - following[name]


def _vendor_tries(hypothesis: str, field: str, difference: Decimal, around: BreakContext) -> Iterator[Candidate]:
    """Try the same value of two vendors."""
    row, other = around.row, around.other
    if other is None or row[field] is None or other[field] is None:
        return
    first, second, name = str(row["vendor"]), str(other["vendor"]), field.replace("_", " ")
    if hypothesis in ("missing_flow", "flow_sign", "fee"):
        if hypothesis == "flow_sign" and field == "net_flow":
            yield (
                f"The net flows have opposite signs, {_money(row[field])} and {_money(other[field])}",
                (row[field] + other[field]),
            )
        yield from _amount_tries(hypothesis, difference, ((f"of {first}", row), (f"of {second}", other)))
    elif hypothesis == "percent":
        yield from _scale_tries(name, row[field], other[field])
    elif hypothesis == "stale_price" and field == "ending_market_value":
        sides = (
            (first, row, around.previous, around.following, other),
            (second, other, around.other_previous, around.other_following, row),
        )
        for vendor, mine, before, after, theirs in sides:
            if before is not None and mine[field] == before[field]:
                yield f"The ending value of {vendor} equals its previous one, {_money(mine[field])} (stale)", Decimal(0)
            if after is not None and after["beginning_market_value"] is not None:
                opening = after["beginning_market_value"]
                yield (
                    f"{vendor} ends with {_money(mine[field])} (stale or late price) but begins the next period with"
                    f" {_money(opening)}, and the other one ends with {_money(theirs[field])}",
                    opening - theirs[field],
                )
    elif hypothesis == "currency" and _differ(row, other, "currency"):
        yield from _rate(row["currency"], row[field], other["currency"], other[field])
    elif hypothesis == "period_shift" and row[field] != 0:
        for vendor, mine, neighbours in (
            (second, row, (around.other_previous, around.other_following)),
            (first, other, (around.previous, around.following)),
        ):
            for neighbour in neighbours:
                if neighbour is not None and neighbour[field] is not None:
                    yield (
                        f"{vendor} has this {name} in the period ended {neighbour['period_end']},"
                        f" {_money(neighbour[field])}",
                        mine[field] - neighbour[field],
                    )


def _amount_tries(hypothesis: str, difference: Decimal, rows: tuple[tuple[str, Row], ...]) -> Iterator[Candidate]:
    """Try a difference that is one booked amount, or twice that amount where its sign is wrong."""
    for whose, row in rows:
        if hypothesis == "fee":
            fees = row.get("fees")
            if fees:
                yield (
                    f"The difference of {_money(difference)} is the fees {whose}, {_money(fees)}",
                    (abs(difference) - abs(fees)),
                )
                yield (
                    f"The difference of {_money(difference)} is twice the fees {whose}, {_money(fees)}",
                    (abs(difference) - 2 * abs(fees)),
                )
            continue
        for column, name in _FLOWS:
            amount = row.get(column)
            if not amount:
                continue
            if hypothesis == "missing_flow":
                yield (
                    f"The difference of {_money(difference)} is one {name} {whose}, {_money(amount)}",
                    (abs(difference) - abs(amount)),
                )
            else:
                yield (
                    f"The difference of {_money(difference)} is twice the {name} {whose}, {_money(amount)}:"
                    " its sign is turned",
                    abs(difference) - 2 * abs(amount),
                )


def _scale_tries(name: str, value: Decimal, reference: Decimal) -> Iterator[Candidate]:
    """Try a value that is 100 times too large or too small."""
    if value == 0 or reference == 0:
        return
    yield f"The {name} of {_money(value)} is 100 times {_money(reference)}", value / 100 - reference
    yield f"The {name} of {_money(value)} is a hundredth of {_money(reference)}", value - reference / 100


def _rate(currency: str, value: Decimal, other_currency: str, other: Decimal) -> Iterator[Candidate]:
    """Values in two currencies: the rate they imply."""
    if value and other and value / other > 0:
        yield (
            f"{_money(value)} is in {currency}, {_money(other)} in {other_currency}:"
            f" an exchange rate of {value / other:.6f}",
            Decimal(0),
        )


class _Values(NamedTuple):
    """Inputs of one return, to be changed one at a time."""

    bmv: Decimal
    money_in: Decimal
    money_out: Decimal
    emv: Decimal
    timing: str

    @classmethod
    def of(cls, row: Row, *, gross: bool = False) -> "_Values | None":
        flow = net_flow_of(row.get("contributions"), row.get("distributions"), row.get("net_flow"))
        bmv, emv = row["beginning_market_value"], row["ending_market_value"]
        if bmv is None or emv is None or flow is None or (gross and row.get("fees") is None):
            return None
        money_in, money_out = row.get("contributions"), row.get("distributions")
        if money_in is None or money_out is None:
            money_in, money_out = max(flow, Decimal(0)), max(-flow, Decimal(0))
        return cls(bmv, money_in, money_out, emv + row["fees"] if gross else emv, row["timing"])

    def result(self, **changes: Any) -> Decimal | None:
        changed = self._replace(**changes)
        if changed.bmv < 0:
            return None
        return period_return(changed.bmv, changed.money_in, changed.money_out, changed.emv, changed.timing)


def _differ(row: Row, other: Row | None, column: str) -> bool:
    return other is not None and row[column] is not None and other[column] is not None and row[column] != other[column]


def _money(amount: Decimal) -> str:
    """Thousands separated, cents at least, no digit lost."""
    places = max(2, -int(amount.normalize().as_tuple().exponent)) if amount else 2
    return f"{amount:,.{places}f}"


def _fraction(value: Decimal) -> str:
    return f"{value:.6f}"


def _bp(value: Decimal) -> str:
    return f"{value * 10_000:.2f}"


def _cents(value: Decimal) -> str:
    return f"{value * 100:.0f}"
