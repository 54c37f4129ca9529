"""Time-weighted returns of accounts in exact decimals: one period, its timing, linking, Modified Dietz.

Belongs here: the arithmetic of one account, value by value, as the reference that the columnar computation in
`finance_assets.advisory.performance` is tested against and that explanations write out. Does not belong here:
tables, vendors' policies as files, storage, Dagster.

All money and returns are `decimal.Decimal`; every function computes in `CONTEXT` (50 digits) whatever the caller's
context is, and rounds nothing. Flows are positive into the account. Formulas are those of the metric
specification, section C: Bacon, "Practical Portfolio Performance Measurement and Attribution", chapter 2; GIPS
2020 and its Q&A for large flows.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext
from typing import Final, Literal, NamedTuple, get_args

from finance_assets.contracts.status import Status
from finance_assets.reference.flow_timings import TIMINGS

__all__ = [
    "CONTEXT",
    "DAYS_PER_YEAR",
    "LARGE_FLOW_THRESHOLD",
    "RULES",
    "TIMINGS",
    "RowReturn",
    "SplitReturn",
    "SubPeriod",
    "TimingChoice",
    "annualise",
    "large_flow_days",
    "link",
    "modified_dietz",
    "net_flow_of",
    "period_return",
    "row_return",
    "split_at_large_flows",
    "timing_for",
]

Rule = Literal["declared", "inception", "full_withdrawal", "no_capital"]
RULES: Final[tuple[str, ...]] = get_args(Rule)
"""Why a timing was applied: the vendor's policy, or one of the three overrides."""

CONTEXT: Final = Context(prec=50, rounding=ROUND_HALF_EVEN)
"""Decimal arithmetic of this module: more digits than any product of two stored values needs."""

DAYS_PER_YEAR: Final = Decimal("365.25")
LARGE_FLOW_THRESHOLD: Final = Decimal("0.10")
"""A day's net flow of this share of the beginning value or more is a large one, unless the policy says otherwise."""

_FEWEST_DAYS_TO_ANNUALISE: Final = 365
_ONE: Final = Decimal(1)
_ZERO: Final = Decimal(0)

DatedFlows = Mapping[date, Decimal] | Iterable[tuple[date, Decimal]]


class TimingChoice(NamedTuple):
    """The flow timing to apply to one period and the reason for it."""

    timing: str
    """One of `TIMINGS`."""
    rule: str
    """One of `RULES`."""


class RowReturn(NamedTuple):
    """The return of one period under the applied timing."""

    value: Decimal | None
    """Decimal fraction; None where undefined."""
    timing: str
    rule: str
    status: Status


class SubPeriod(NamedTuple):
    """A part of a period between two valuations."""

    start: date
    end: date
    beginning_value: Decimal
    ending_value: Decimal
    flows: tuple[tuple[date, Decimal], ...]
    """Flows inside the part, one net amount per day; the large flow at its edge is in the values."""
    value: Decimal | None
    """Modified Dietz return of the part."""


class SplitReturn(NamedTuple):
    """The linked return of a period that was split at its large flows."""

    value: Decimal | None
    status: Status
    parts: tuple[SubPeriod, ...]
    unvalued: tuple[date, ...]
    """Days with a large flow and no valuation."""


def period_return(
    bmv: Decimal, contributions: Decimal, distributions: Decimal, emv: Decimal, timing: str
) -> Decimal | None:
    """Compute the return of one period from its values and flows, under the timing that is given.

    With ``F = contributions - distributions``:

    ===================== ===============================================
    timing                return
    ===================== ===============================================
    sod                   ``EMV / (BMV + F) - 1``
    eod                   ``(EMV - F) / BMV - 1``
    mid                   ``(EMV - BMV - F) / (BMV + F / 2)``
    mixed                 ``(EMV + out) / (BMV + in) - 1``
    flow_after_valuation  ``EMV / BMV - 1``; EMV is the value before the
                          flow, BMV the previous value after its flow
    ===================== ===============================================

    Parameters
    ----------
    bmv, emv
        Value at the beginning and at the end of the period.
    contributions, distributions
        Money in and money out, both positive; only their difference counts, except for ``mixed``.
    timing
        One of `TIMINGS`. Overrides (inception, full withdrawal) are the choice of `timing_for`.

    Returns
    -------
    decimal.Decimal or None
        Decimal fraction in full precision. None where the denominator is zero or negative.

    Raises
    ------
    ValueError
        If the timing is unknown or an amount is not finite.

    Examples
    --------
    50,000 put into 100,000 on a day on which the only stock goes from 10 to 12, valued at 180,000 at the end:
    20 % at the start of the day, 24 % in the middle, 30 % at the end.
    """
    _require_timing(timing)
    _require_finite(bmv, contributions, distributions, emv)
    with localcontext(CONTEXT):
        return _ratio(bmv, contributions - distributions, contributions, emv, timing)


def timing_for(bmv: Decimal, net_flow: Decimal, emv: Decimal, declared: str) -> TimingChoice:
    """Choose the flow timing of one period: the declared one unless it cannot describe the period.

    Overrides, in this order: an account that starts from nothing (BMV 0, money in) takes its flow at the start; a
    full withdrawal (money out, EMV 0) at the end; a period without any capital (BMV + F and EMV both 0) has no
    return, and links with factor 1. A vendor's timing is never inferred from the sign of a flow otherwise.

    Parameters
    ----------
    bmv, net_flow, emv
        Beginning value, contributions less distributions, ending value.
    declared
        Timing of the vendor's policy, one of `TIMINGS`.

    Returns
    -------
    TimingChoice
        The timing and one of `RULES`.

    Raises
    ------
    ValueError
        If the timing is unknown.
    """
    _require_timing(declared)
    if bmv == 0 and net_flow > 0:
        return TimingChoice("sod", "inception")
    if emv == 0 and bmv > 0 and net_flow < 0:
        return TimingChoice("eod", "full_withdrawal")
    # A margin debt that is paid off also adds up to 0/0, but it is a negative value, not the absence of capital.
    if bmv == 0 and net_flow == 0 and emv == 0:
        return TimingChoice("sod", "no_capital")
    return TimingChoice(declared, "declared")


def net_flow_of(
    contributions: Decimal | None, distributions: Decimal | None, stated: Decimal | None = None
) -> Decimal | None:
    """Give the net flow: contributions less distributions where both are known, else the stated one, else None."""
    if contributions is not None and distributions is not None:
        with localcontext(CONTEXT):
            return contributions - distributions
    return stated


def row_return(
    bmv: Decimal | None,
    contributions: Decimal | None,
    distributions: Decimal | None,
    emv: Decimal | None,
    declared: str,
    *,
    net_flow: Decimal | None = None,
    large_flow_threshold: Decimal = LARGE_FLOW_THRESHOLD,
    valued_daily: bool = False,
) -> RowReturn:
    """Compute the return of one row of a vendor's history, with overrides and a status.

    Parameters
    ----------
    bmv, contributions, distributions, emv
        As for `period_return`; None where the vendor does not state them.
    declared
        Timing of the vendor's policy.
    net_flow
        Stated net flow, used where contributions or distributions are missing.
    large_flow_threshold
        Share of BMV from which a net flow is large.
    valued_daily
        True where the period is one day: a large flow in it is valued.

    Returns
    -------
    RowReturn
        Value None and ``missing_input`` if a value or the flow is unknown; ``undefined_denominator`` if there is
        no capital, BMV is negative (margin) or the denominator is not positive (``non_positive_average_capital``
        for ``mid``); ``outside_domain`` if the account lost more than all of it. ``large_flow_unvalued`` keeps the
        value. A full withdrawal counts as valued: the amount that left is the value.

    Raises
    ------
    ValueError
        If the timing is unknown.
    """
    _require_timing(declared)
    flow = net_flow_of(contributions, distributions, net_flow)
    if bmv is None or emv is None or flow is None:
        return RowReturn(None, declared, "declared", Status.MISSING_INPUT)
    timing, rule = timing_for(bmv, flow, emv, declared)
    if rule == "no_capital" or bmv < 0:
        return RowReturn(None, timing, rule, Status.UNDEFINED_DENOMINATOR)
    if timing == "mixed" and contributions is None:
        return RowReturn(None, timing, rule, Status.MISSING_INPUT)
    with localcontext(CONTEXT):
        value = _ratio(bmv, flow, contributions, emv, timing)
        large = bmv > 0 and abs(flow) >= large_flow_threshold * bmv
    if value is None:
        mid = timing == "mid"
        return RowReturn(
            None, timing, rule, Status.NON_POSITIVE_AVERAGE_CAPITAL if mid else Status.UNDEFINED_DENOMINATOR
        )
    if value < -1:
        return RowReturn(None, timing, rule, Status.OUTSIDE_DOMAIN)
    unvalued = large and flow != 0 and not valued_daily and rule != "full_withdrawal"
    return RowReturn(value, timing, rule, Status.LARGE_FLOW_UNVALUED if unvalued else Status.OK)


def link(period_returns: Sequence[Decimal | None]) -> Decimal | None:
    """Link returns of contiguous periods: ``prod(1 + R) - 1``.

    Parameters
    ----------
    period_returns
        Decimal fractions in order of time.

    Returns
    -------
    decimal.Decimal or None
        The cumulative return. None if any of them is None or below -1 (there is nothing left to go on with);
        exactly -1 from a total loss on; 0 for no periods, the neutral element of linking.
    """
    total = _ONE
    with localcontext(CONTEXT):
        for value in period_returns:
            if value is None or value < -1:
                return None
            total *= _ONE + value
        return total - _ONE


def annualise(total: Decimal | None, days: int) -> Decimal | None:
    """Express a cumulative return per year: ``(1 + R) ** (365.25 / days) - 1``.

    Parameters
    ----------
    total
        Cumulative return, decimal fraction.
    days
        Calendar days that it covers, both ends included.

    Returns
    -------
    decimal.Decimal or None
        None for less than a year (365 days), which GIPS does not allow to annualise, and for a return below -1.
    """
    if total is None or days < _FEWEST_DAYS_TO_ANNUALISE or total < -1:
        return None
    if total == -1:
        return Decimal(-1)
    with localcontext(CONTEXT):
        return (_ONE + total) ** (DAYS_PER_YEAR / days) - _ONE


def modified_dietz(
    bmv: Decimal, emv: Decimal, flows: DatedFlows, start: date, end: date, flows_at: str
) -> Decimal | None:
    """Compute the Modified Dietz return of a period with dated flows.

    ``(EMV - BMV - sum F) / (BMV + sum w F)`` with ``w = (CD - D) / CD`` for flows at the end of their day and
    ``(CD - D + 1) / CD`` at its start; CD is the number of days in the period, D the day of the flow, 1 on the
    first. It is money-weighted: use it only where no flow is large.

    Parameters
    ----------
    bmv, emv
        Value before the first day and after the last.
    flows
        Dated net amounts, positive into the account; those of one day are summed.
    start, end
        First and last day of the period, both included (1 to 31 January, CD = 31).
    flows_at
        ``start`` or ``end`` of the day.

    Returns
    -------
    decimal.Decimal or None
        Decimal fraction. None where the average capital is zero or negative.

    Raises
    ------
    ValueError
        If the period ends before it starts, a flow lies outside of it, or `flows_at` is unknown.
    """
    if flows_at not in ("start", "end"):
        raise ValueError(f"flows_at {flows_at!r} is not one of start, end")
    if end < start:
        raise ValueError(f"the period ends on {end}, before it starts on {start}")
    _require_finite(bmv, emv)
    days = (end - start).days + 1
    with localcontext(CONTEXT):
        gain, weighted = emv - bmv, bmv * days  # capital times days: no division before the last one
        for day, amount in _per_day(flows):
            if not start <= day <= end:
                raise ValueError(f"the flow of {day} lies outside {start}..{end}")
            gain -= amount
            weighted += amount * ((end - day).days + (1 if flows_at == "start" else 0))
        return gain * days / weighted if weighted > 0 else None


def large_flow_days(
    bmv: Decimal, flows: DatedFlows, threshold: Decimal = LARGE_FLOW_THRESHOLD
) -> tuple[tuple[date, Decimal], ...]:
    """Give the days whose net flow is large: its size reaches `threshold` times BMV.

    The flows of a day are netted first. With BMV zero or negative there is no share, hence no large flow.
    """
    if bmv <= 0:
        return ()
    with localcontext(CONTEXT):
        limit = threshold * bmv
        return tuple((day, amount) for day, amount in _per_day(flows) if amount != 0 and abs(amount) >= limit)


def split_at_large_flows(
    bmv: Decimal,
    emv: Decimal,
    flows: DatedFlows,
    start: date,
    end: date,
    flows_at: str,
    *,
    valuations: Mapping[date, Decimal],
    threshold: Decimal = LARGE_FLOW_THRESHOLD,
) -> SplitReturn:
    """Split a period at its large flows, compute Modified Dietz per part, and link the parts.

    Parameters
    ----------
    bmv, emv, flows, start, end, flows_at
        As for `modified_dietz`.
    valuations
        Value of the account just before the flow, by date of the flow: at the start of that day or at its end,
        as `flows_at` says. The next part begins with that value plus the flow.
    threshold
        Share of BMV from which a day's net flow is large; set in advance by policy.

    Returns
    -------
    SplitReturn
        The linked return, status and parts. If a large flow has no valuation the period is not split there, and
        the return comes with ``large_flow_unvalued``: kept, not certified. ``non_positive_average_capital`` and no
        value if a part has no return.

    Raises
    ------
    ValueError
        As `modified_dietz`.
    """
    large = large_flow_days(bmv, flows, threshold)
    values = dict(valuations)
    with localcontext(CONTEXT):
        # At the very edge of the period the value before the flow is known without a valuation.
        for day, amount in large:
            if flows_at == "start" and day == start:
                values[day] = bmv
            elif flows_at == "end" and day == end:
                values[day] = emv - amount
    unvalued = tuple(day for day, _ in large if day not in values)
    remaining = _per_day(flows)
    for day, _ in remaining:
        if not start <= day <= end:
            raise ValueError(f"the flow of {day} lies outside {start}..{end}")
    parts: list[SubPeriod] = []

    def close(first: date, last: date, opening: Decimal, closing: Decimal, inside: list[tuple[date, Decimal]]) -> None:
        if last < first:  # the flow is at the very edge of the period
            return
        ordered = tuple(inside)
        value = modified_dietz(opening, closing, ordered, first, last, flows_at)
        parts.append(SubPeriod(first, last, opening, closing, ordered, value))

    first, opening, done = start, bmv, date.min
    for day, amount in large:
        if day not in values:
            continue
        last = day - timedelta(days=1) if flows_at == "start" else day
        close(first, last, opening, values[day], [f for f in remaining if done < f[0] < day])
        with localcontext(CONTEXT):
            opening = values[day] + amount
        first, done = last + timedelta(days=1), day
    close(first, end, opening, emv, [f for f in remaining if f[0] > done])
    total = link([part.value for part in parts])
    if total is not None and len(parts) == 1:
        total = parts[0].value  # no rounding by linking a single part
    if total is None:
        domain = all(part.value is not None for part in parts)
        status = Status.OUTSIDE_DOMAIN if domain else Status.NON_POSITIVE_AVERAGE_CAPITAL
    else:
        status = Status.LARGE_FLOW_UNVALUED if unvalued else Status.OK
    return SplitReturn(total, status, tuple(parts), unvalued)


def _ratio(bmv: Decimal, flow: Decimal, inflow: Decimal | None, emv: Decimal, timing: str) -> Decimal | None:
    """Gain over the capital of the timing, in the caller's context."""
    gain = emv - bmv - flow
    if timing == "sod":
        capital = bmv + flow
    elif timing == "eod":
        capital = bmv
    elif timing == "mid":
        gain, capital = 2 * gain, 2 * bmv + flow
    elif timing == "mixed":
        if inflow is None:
            return None
        capital = bmv + inflow
    else:
        gain, capital = emv - bmv, bmv
    return gain / capital if capital > 0 else None


def _per_day(flows: DatedFlows) -> list[tuple[date, Decimal]]:
    """Net flow per day, in order of date."""
    sums: dict[date, Decimal] = {}
    with localcontext(CONTEXT):
        for day, amount in flows.items() if isinstance(flows, Mapping) else flows:
            _require_finite(amount)
            sums[day] = sums.get(day, _ZERO) + amount
    return sorted(sums.items())


def _require_timing(timing: str) -> None:
    if timing not in TIMINGS:
        raise ValueError(f"unknown timing {timing!r}; known are {', '.join(TIMINGS)}")


def _require_finite(*amounts: Decimal) -> None:
    for amount in amounts:
        if not amount.is_finite():
            raise ValueError(f"{amount} is not an amount")
