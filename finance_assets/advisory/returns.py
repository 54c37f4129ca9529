"""What rows of account performance say by themselves: net flow, gain, timing, return and its status, column by column.

Belongs here: whole columns of single rows, in NumPy; money as integers, so that every sum and every comparison is
exact. Does not belong here: what a row has from those before it (`finance_assets.advisory.linking`), the arithmetic of
a single value and its proof (`finance_assets.advisory.twrr`), tables on disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from finance_assets.advisory.columns import (
    combine_chunks,
    decimals_of,
    encoded,
    first_days_of,
    integers_of,
    large_decimals,
    months_of,
)
from finance_assets.advisory.twrr import LARGE_FLOW_THRESHOLD
from finance_assets.contracts.status import STATUSES, Status
from finance_assets.reference.flow_timings import TIMINGS

if TYPE_CHECKING:
    from datetime import date

    import numpy.typing as npt
    import pyarrow as pa

    Ints = npt.NDArray[np.int64]
    Floats = npt.NDArray[np.float64]
    Bools = npt.NDArray[np.bool_]

__all__ = ["DEFAULT_POLICY", "GRAINS", "TIMING_RULES", "Amount", "Policies", "Policy", "RowReturns", "policies_by_date"]

GRAINS: Final = ("daily", "monthly", "quarterly")
TIMING_RULES: Final = ("declared", "inception", "full_withdrawal", "no_capital")
#: Decimals of money.
SCALE: Final = 8
#: Eight such integers can be added up in 64 bits.
_LIMIT: Final = 1 << 60
#: Decimals at which larger money is tried before it goes beyond 64 bits: cents.
_SMALL_SCALE: Final = 2
_MONEY: Final = (
    "beginning_market_value", "contributions", "distributions", "net_flow", "ending_market_value", "fees", "income",
    "appreciation", "other_adjustments",
)  # fmt: skip
_SOD, _EOD, _MID, _MIXED, _AFTER = (TIMINGS.index(t) for t in ("sod", "eod", "mid", "mixed", "flow_after_valuation"))
_DECLARED, _INCEPTION, _WITHDRAWAL, _NO_CAPITAL = range(4)


@dataclass(frozen=True)
class Policy:
    """How the flows of one vendor are timed; configuration with a version, never inferred from data."""

    timing: str = "mid"
    """One of `finance_assets.advisory.twrr.TIMINGS`."""
    version: str = "default-1"
    large_flow_threshold: Decimal = LARGE_FLOW_THRESHOLD
    """Share of the beginning value from which a net flow is large."""
    since: date | None = None
    """The first period end that it holds for; None for the policy that holds before all others."""

    def __post_init__(self) -> None:
        if self.timing not in TIMINGS:
            raise ValueError(f"unknown timing {self.timing!r}; known are {', '.join(TIMINGS)}")
        if not (self.large_flow_threshold.is_finite() and self.large_flow_threshold > 0):
            raise ValueError(f"a large flow cannot begin at {self.large_flow_threshold} of the beginning value")


DEFAULT_POLICY: Final = Policy()
"""For vendors without a policy: middle of the period, since only a period total of flows is known."""

Policies = Mapping[str, "Policy | Sequence[Policy] | tuple[str, str | int, Decimal]"]


class PolicyTable:
    """The policies of all vendors, by number.

    Parameters
    ----------
    policies
        By vendor: a policy, several with the day since when each holds, or ``(timing, version,
        large_flow_threshold)``.

    Raises
    ------
    ValueError
        Two policies of a vendor hold since the same day.
    """

    def __init__(self, policies: Policies) -> None:
        self.policies: list[Policy] = [DEFAULT_POLICY]
        self._by_vendor: dict[str, tuple[int, Ints]] = {}
        for vendor, given in policies.items():
            several = policies_by_date(given)
            since = [_days(policy.since) for policy in several]
            for policy, following in pairwise(several):
                if policy.since == following.since:
                    raise ValueError(f"{vendor}: two policies hold since {policy.since or 'the beginning'}")
            # Before the first of them nothing is declared.
            self._by_vendor[vendor] = (len(self.policies), np.array(since, np.int64))
            self.policies += several
        self.timings = np.array([TIMINGS.index(policy.timing) for policy in self.policies], np.int8)
        self.versions = sorted({policy.version for policy in self.policies})
        self.version_numbers = np.array([self.versions.index(policy.version) for policy in self.policies], np.int32)

    def numbers(self, vendor: pa.DictionaryArray, days: Ints) -> Ints:
        """Return the number of each row's policy: that of its vendor which holds at the end of its period."""
        known = [self._by_vendor.get(text) for text in vendor.dictionary.to_pylist()]
        codes = vendor.indices.to_numpy(zero_copy_only=False)
        first = np.array([0 if found is None else found[0] for found in known], np.int64)
        numbers: Ints = first[codes]
        for code, found in enumerate(known):
            if found is not None and (len(found[1]) > 1 or found[1][0] > _BEGINNING):
                own = codes == code
                place = np.searchsorted(found[1], days[own], side="right")
                numbers[own] = np.where(place > 0, found[0] + place - 1, 0)
        return numbers


#: A day before every date.
_BEGINNING: Final = -(1 << 40)


def _days(since: date | None) -> int:
    return _BEGINNING if since is None else since.toordinal() - 719_163


def policies_by_date(given: Any) -> list[Policy]:
    """Return the policies of one vendor, in any form that `Policies` has, in the order in which they hold."""
    if isinstance(given, Policy):
        return [given]
    if isinstance(given, tuple) and len(given) == 3 and isinstance(given[0], str):
        timing, version, threshold = given
        return [Policy(timing, str(version), threshold)]
    return sorted(given, key=lambda policy: _days(policy.since))


@dataclass(frozen=True)
class Amount:
    """A column of money.

    Attributes
    ----------
    integers
        In units of the last decimal; of 64 bits, or Python's where those do not hold a sum of them.
    known
        Where there is a value.
    scale
        Decimals.
    """

    integers: Any
    known: Bools
    scale: int

    def floats(self) -> Floats:
        """Return the nearest floats, NaN where there is no value."""
        if self.integers.dtype == object:
            unit = 10**self.scale
            made = np.array([number / unit for number in self.integers.tolist()], np.float64)
        else:
            made = self.integers / 10.0**self.scale
        made[~self.known] = np.nan
        return made

    def decimals(self, kind: pa.DataType) -> pa.Array:
        """Return an Arrow array of decimals, as many as `SCALE` or more."""
        shift = 10 ** (kind.scale - self.scale)
        if self.integers.dtype != object and (shift == 1 or _fits(self.integers, (1 << 63) // shift)):
            return decimals_of(self.integers * shift, kind, None if self.known.all() else self.known)
        return large_decimals(self.integers.astype(object) * shift, kind, self.known)

    def at_full_scale(self) -> Amount:
        """Return the same with `SCALE` decimals."""
        shift = 10 ** (SCALE - self.scale)
        if shift == 1:
            return self
        integers = self.integers
        if integers.dtype != object and not _fits(integers, (1 << 63) // shift):
            integers = integers.astype(object)
        return Amount(integers * shift, self.known, SCALE)


def _fits(integers: Ints, limit: int) -> bool:
    return not len(integers) or (-limit < int(integers.min()) and int(integers.max()) < limit)


class RowReturns:
    """What the rows of a history say by themselves; each column is computed when it is asked for.

    Parameters
    ----------
    rows
        Rows of the history: vendor, granularity, period_start, period_end and money. Money that is not among them, as
        components where only links are asked for, counts as unknown.
    policies
        How the flows of vendors are timed.

    Notes
    -----
    Per row ``R = gain / capital`` as in `finance_assets.advisory.twrr.row_return`, which is the definition.
    """

    def __init__(self, rows: pa.Table, policies: PolicyTable) -> None:
        import pyarrow as pa

        self._rows = rows
        self._policies = policies
        self.size = rows.num_rows
        self._amounts = _amounts(rows)
        grain = encoded(rows["granularity"])
        numbers = {text: number for number, text in enumerate(GRAINS)}
        places = np.array([numbers.get(text, -1) for text in grain.dictionary.to_pylist()] or [-1], np.int8)
        self.grain: Any = places[grain.indices.fill_null(0).to_numpy(zero_copy_only=False)] if self.size else places[:0]
        self.ends = combine_chunks(rows["period_end"]).cast(pa.int32()).to_numpy(zero_copy_only=False).astype(np.int64)
        vendor = encoded(rows["vendor"])
        self._policy = policies.numbers(vendor, self.ends)

    def amount(self, name: str) -> Amount:
        """Return a column of money as the row states it."""
        return self._amounts[name]

    # -- the period --------------------------------------------------------------------------------------

    @cached_property
    def starts_as_stated(self) -> Bools:
        """Whether the vendor states the first day."""
        found: Bools = combine_chunks(self._rows["period_start"]).is_valid().to_numpy(zero_copy_only=False)
        return found

    @cached_property
    def months(self) -> Ints:
        """Month in which the period ends, counted from 1970."""
        found: Ints = months_of(self.ends)
        return found

    @cached_property
    def _calendar_starts(self) -> Ints:
        """First day of the month or quarter; of another grain the last day of the period."""
        first = np.where(self.grain == 2, self.months - self.months % 3, self.months)
        days: Ints = first_days_of(first)
        return np.where(self.grain >= 1, days, self.ends)

    @cached_property
    def starts(self) -> Ints:
        """First day of the period, in days since 1970: stated, or that of the calendar."""
        import pyarrow as pa

        stated = combine_chunks(self._rows["period_start"]).cast(pa.int32())
        if not stated.null_count:
            found: Ints = stated.to_numpy().astype(np.int64)
            return found
        return np.where(self.starts_as_stated, stated.fill_null(0).to_numpy(), self._calendar_starts)

    @cached_property
    def is_partial(self) -> Bools:
        """Whether the period starts inside its month or quarter."""
        return _bools((self.grain >= 1) & (self.starts > self._calendar_starts))

    # -- money -------------------------------------------------------------------------------------------

    @cached_property
    def net_flow(self) -> Amount:
        """Contributions less distributions where both are known, else the stated net flow."""
        paid_in, paid_out, net = (self._amounts[n] for n in ("contributions", "distributions", "net_flow"))
        both = paid_in.known & paid_out.known
        difference = paid_in.integers - paid_out.integers
        if both.all():
            return Amount(difference, both, net.scale)
        return Amount(np.where(both, difference, net.integers), both | net.known, net.scale)

    @cached_property
    def capital_at_start(self) -> Amount:
        """Beginning value and net flow."""
        bmv, flow = self._amounts["beginning_market_value"], self.net_flow
        return Amount(bmv.integers + flow.integers, bmv.known & flow.known, bmv.scale)

    @cached_property
    def gain(self) -> Amount:
        """Ending value less beginning value less net flow."""
        emv, capital = self._amounts["ending_market_value"], self.capital_at_start
        return Amount(emv.integers - capital.integers, emv.known & capital.known, emv.scale)

    @cached_property
    def rollforward_difference(self) -> Amount:
        """Beginning value, net flow and stated components less the ending value; unknown without appreciation."""
        appreciation, total = self._amounts["appreciation"], -self.gain.integers
        for name, sign in (("appreciation", 1), ("income", 1), ("fees", -1), ("other_adjustments", 1)):
            # What is unknown is 0.
            total = total + sign * self._amounts[name].integers
        return Amount(total, self.gain.known & appreciation.known, self.gain.scale)

    @cached_property
    def is_negative_value(self) -> Bools:
        """Whether the beginning or ending value is negative, as with margin."""
        bmv, emv = self._amounts["beginning_market_value"], self._amounts["ending_market_value"]
        return _bools((bmv.integers < 0) | (emv.integers < 0))

    # -- timing ------------------------------------------------------------------------------------------

    @cached_property
    def policy_versions(self) -> npt.NDArray[np.int32]:
        """Number of the policy's version among those of the policies."""
        found: npt.NDArray[np.int32] = self._policies.version_numbers[self._policy]
        return found

    @cached_property
    def timing_rule(self) -> npt.NDArray[np.int8]:
        """Why a timing was applied: number in `TIMING_RULES`."""
        bmv, emv = self._amounts["beginning_market_value"], self._amounts["ending_market_value"]
        flow = self.net_flow
        has_flow = bmv.known & flow.known
        no_start = has_flow & emv.known & _bools(bmv.integers == 0)
        rule = np.zeros(self.size, np.int8)
        rule[no_start & _bools(flow.integers == 0) & _bools(emv.integers == 0)] = _NO_CAPITAL
        leaves = has_flow & emv.known & _bools(emv.integers == 0) & _bools(bmv.integers > 0)
        rule[leaves & _bools(flow.integers < 0)] = _WITHDRAWAL
        rule[no_start & _bools(flow.integers > 0)] = _INCEPTION
        return rule

    @cached_property
    def timing(self) -> npt.NDArray[np.int8]:
        """Flow timing that was applied: number in `TIMINGS`."""
        declared = self._policies.timings[self._policy]
        by_rule = np.array([_SOD, _SOD, _EOD, _SOD], np.int8)
        return np.where(self.timing_rule == _DECLARED, declared, by_rule[self.timing_rule])

    @cached_property
    def is_large_flow(self) -> Bools:
        """Whether the net flow reaches the policy's share of a positive beginning value; decided exactly."""
        bmv, flow = self._amounts["beginning_market_value"], self.net_flow
        rows = bmv.known & flow.known & _bools(bmv.integers > 0) & _bools(flow.integers != 0)
        found = np.zeros(self.size, bool)
        for number in np.unique(self._policy):
            share = Fraction(self._policies.policies[int(number)].large_flow_threshold)
            own = np.flatnonzero(rows & (self._policy == number))
            size, base = np.abs(flow.integers[own]), bmv.integers[own]
            limit = base.astype(np.float64) * float(share)
            over = size.astype(np.float64) - limit
            reaches = over > 0
            # Floats decide what is clear; what is close is compared as integers of any size.
            for place in np.flatnonzero(np.abs(over) <= 1e-9 * limit).tolist():
                reaches[place] = int(size[place]) * share.denominator >= share.numerator * int(base[place])
            found[own] = reaches
        return found

    # -- returns -----------------------------------------------------------------------------------------

    @cached_property
    def _gain(self) -> Floats:
        return self.gain.floats()

    @cached_property
    def _sod(self) -> Floats:
        """Capital with flows at the start; the sum is exact, and so is its sign: doubles of x and -x cancel."""
        bmv, capital = self._amounts["beginning_market_value"], self.capital_at_start
        return np.where(_bools(bmv.integers >= 0) & _bools(capital.integers > 0), capital.floats(), np.nan)

    @cached_property
    def _eod(self) -> Floats:
        bmv, capital = self._amounts["beginning_market_value"], self.capital_at_start
        return np.where(_bools(bmv.integers > 0) & capital.known, bmv.floats(), np.nan)

    @cached_property
    def _mid(self) -> Floats:
        bmv, capital = self._amounts["beginning_market_value"], self.capital_at_start
        twice = bmv.floats() + capital.floats()
        return np.where(_bools(bmv.integers >= 0) & (twice > 0), twice / 2, np.nan)

    @cached_property
    def return_sod(self) -> Floats:
        """Return with flows at the start of the period; NaN where undefined."""
        return _ratio(self._gain, self._sod)

    @cached_property
    def return_mid(self) -> Floats:
        """... with flows in the middle."""
        return _ratio(self._gain, self._mid)

    @cached_property
    def return_eod(self) -> Floats:
        """... with flows at the end."""
        return _ratio(self._gain, self._eod)

    @cached_property
    def timing_spread(self) -> Floats:
        """Largest less smallest of the three that are defined."""
        three = (self.return_sod, self.return_mid, self.return_eod)
        return np.fmax(np.fmax(three[0], three[1]), three[2]) - np.fmin(np.fmin(three[0], three[1]), three[2])

    @cached_property
    def _capital(self) -> Floats:
        """Capital under the applied timing; NaN where there is none."""
        timing = self.timing
        made = self._eod
        for own, capital in ((timing == _SOD, "_sod"), (timing == _MID, "_mid"), (timing == _MIXED, "_mixed")):
            if own.any():
                made = np.where(own, getattr(self, capital), made)
        return made

    @cached_property
    def _mixed(self) -> Floats:
        bmv, paid_in = self._amounts["beginning_market_value"], self._amounts["contributions"]
        capital = Amount(bmv.integers + paid_in.integers, bmv.known & paid_in.known & self.net_flow.known, bmv.scale)
        return np.where(_bools(bmv.integers >= 0) & _bools(capital.integers > 0), capital.floats(), np.nan)

    @cached_property
    def _earned(self) -> Floats:
        after = self.timing == _AFTER
        if not after.any():
            return self._gain
        bmv, emv = self._amounts["beginning_market_value"], self._amounts["ending_market_value"]
        grown = Amount(emv.integers - bmv.integers, emv.known & bmv.known, emv.scale)
        return np.where(after, grown.floats(), self._gain)

    @cached_property
    def _loses_more_than_all(self) -> Bools:
        """Whether the return is below -100 %; decided exactly: earnings and capital add up to less than 0."""
        timing, flow = self.timing, self.net_flow.integers
        left = self._amounts["ending_market_value"].integers
        flows_back = (timing == _EOD) | (timing == _MIXED)
        if flows_back.any():
            left = left - np.where(flows_back, flow, 0)
        if (timing == _MIXED).any():
            left = left + np.where(timing == _MIXED, self._amounts["contributions"].integers, 0)
        if (timing == _MID).any():
            left = np.where(timing == _MID, left + left - flow, left)
        return _bools(left < 0)

    @cached_property
    def return_net(self) -> Floats:
        """Return after fees under the applied timing; NaN where undefined."""
        return np.where(self._loses_more_than_all, np.nan, _ratio(self._earned, self._capital))

    @cached_property
    def return_gross(self) -> Floats:
        """Return before the stated fees; NaN where undefined."""
        before = _ratio(self._earned + self._amounts["fees"].floats(), self._capital)
        return np.where(self._loses_more_than_all, np.nan, before)

    @cached_property
    def status(self) -> npt.NDArray[np.int8]:
        """Status of the net return, as `Status.code`."""
        bmv, emv = self._amounts["beginning_market_value"], self._amounts["ending_market_value"]
        timing, rule, no_capital = self.timing, self.timing_rule, np.isnan(self._capital)
        unvalued = self.is_large_flow & (self.grain != 0) & (rule != _WITHDRAWAL)
        made = np.where(unvalued, Status.LARGE_FLOW_UNVALUED.code, Status.OK.code).astype(np.int8)
        made[self._loses_more_than_all] = Status.OUTSIDE_DOMAIN.code
        made[no_capital] = Status.UNDEFINED_DENOMINATOR.code
        made[no_capital & (timing == _MID)] = Status.NON_POSITIVE_AVERAGE_CAPITAL.code
        made[(timing == _MIXED) & ~self._amounts["contributions"].known] = Status.MISSING_INPUT.code
        made[(rule == _NO_CAPITAL) | _bools(bmv.integers < 0)] = Status.UNDEFINED_DENOMINATOR.code
        made[~(bmv.known & emv.known & self.net_flow.known)] = Status.MISSING_INPUT.code
        return made

    @cached_property
    def gross_status(self) -> npt.NDArray[np.int8]:
        """Status of the gross return: without fees an input is missing, else as of the net return."""
        return np.where(self._amounts["fees"].known, self.status, np.int8(Status.MISSING_INPUT.code))

    @cached_property
    def factor(self) -> Floats:
        """What the row links with: one plus the return, 1 without any capital, NaN where there is no return."""
        made = 1 + self.return_net
        made[self.timing_rule == _NO_CAPITAL] = 1.0
        return made

    @cached_property
    def is_terminated(self) -> Bools:
        """Whether all was withdrawn."""
        return _bools(self.timing_rule == _WITHDRAWAL)


STATUS_TEXTS: Final = tuple(str(status) for status in STATUSES)
"""Texts of the statuses, by code."""


def _amounts(rows: pa.Table) -> dict[str, Amount]:
    """Return the money of rows as integers with one number of decimals; unknown amounts are 0."""
    import pyarrow as pa

    columns = {name: combine_chunks(rows[name]) for name in _MONEY if name in rows.column_names}
    nothing = Amount(np.zeros(rows.num_rows, np.int64), np.zeros(rows.num_rows, bool), SCALE)
    for scale in (SCALE, _SMALL_SCALE):
        try:
            made = {name: _amount(column, scale) for name, column in columns.items()}
        except (pa.ArrowInvalid, OverflowError):
            # More than 64 bits, or more decimals than cents.
            continue
        return {name: made.get(name, Amount(nothing.integers, nothing.known, scale)) for name in _MONEY}
    return {
        name: _any_amount(columns[name])
        if name in columns
        else Amount(nothing.integers.astype(object), nothing.known, SCALE)
        for name in _MONEY
    }


def _amount(column: Any, scale: int) -> Amount:
    import pyarrow as pa

    known: Any = np.ones(len(column), bool)
    if column.null_count == len(column):
        return Amount(np.zeros(len(column), np.int64), np.zeros(len(column), bool), scale)
    if scale != column.type.scale:
        column = column.cast(pa.decimal128(28, scale))
    integers = integers_of(column)
    if integers is None:
        raise OverflowError
    if column.null_count:
        known = column.is_valid().to_numpy(zero_copy_only=False)
        integers[~known] = 0
    if not _fits(integers, _LIMIT):
        raise OverflowError
    return Amount(integers, known, scale)


def _any_amount(column: Any) -> Amount:
    """Return money of any size, in Python's integers."""
    values = column.to_pylist()
    integers = np.empty(len(values), object)
    # 28 digits are what `Decimal` computes with, and what money has.
    integers[:] = [0 if value is None else int(value.scaleb(SCALE)) for value in values]
    return Amount(integers, column.is_valid().to_numpy(zero_copy_only=False), SCALE)


def _bools(found: Any) -> Bools:
    """Return comparisons as booleans, also those of Python's integers."""
    made: Bools = np.asarray(found, bool)
    return made


def _ratio(above: Floats, below: Floats) -> Floats:
    with np.errstate(all="ignore"):
        made: Floats = above / below
    return made
