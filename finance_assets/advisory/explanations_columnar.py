"""The hypotheses of `finance_assets.advisory.explanations` on many breaks at a time.

Belongs here: what `explain_break` says of one break, as columns, for the codes whose gap is a number. Does not belong
here: the definition (`finance_assets.advisory.explanations`, which tests hold this against), finding breaks and the
rows around them (`finance_assets.advisory.reconciliation`), storage, Dagster.

Money is whole numbers of 1e-8, a stated return whole numbers of 1e-14. Doubles only sort out what is far from closing
a gap; what closes it is decided, and rounded for its sentence, in whole numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finance_assets.advisory.explanations import MONEY_TOLERANCE, RETURN_TOLERANCE, TIMING_NAMES
from finance_assets.reference.flow_timings import TIMINGS

if TYPE_CHECKING:
    import numpy.typing as npt

    Bools = npt.NDArray[np.bool_]
    Numbers = npt.NDArray[Any]
    Words = Callable[["npt.NDArray[np.int64]"], list[str]]

__all__ = ["EXPLAINED_CODES", "SIDES", "SIDE_COLUMNS", "explain_breaks"]

EXPLAINED_CODES: Final = ("RETURN_TOLERANCE", "ROLLFORWARD", "CONTINUITY", "VENDOR_MISMATCH", "VALUE_MISMATCH")
"""Codes whose gap is a number that a hypothesis may close."""
SIDES: Final = ("own", "previous", "following", "other", "other_previous", "other_following")
"""Columns of structs with the rows around a break, as in `finance_assets.advisory.explanations.BreakContext`."""
SIDE_COLUMNS: Final = (
    "vendor", "period_end", "currency", "beginning_market_value", "contributions", "distributions", "net_flow",
    "ending_market_value", "fees", "timing", "return_net", "return_gross",
)  # fmt: skip
"""Fields of such a struct."""

_UNIT: Final = 10**8
#: A stated return in whole numbers has six places more than money.
_FINER: Final = 10**6
_MONEY_LIMIT: Final = int(MONEY_TOLERANCE * _UNIT)
_RETURN_LIMIT: Final = int(RETURN_TOLERANCE * _UNIT * _FINER)
#: Money whose sums, and hundredfold, have room in 64 bits: 180 million.
_SMALL: Final = 2**54
_FLOWS: Final = (("contributions", "contribution"), ("distributions", "distribution"), ("net_flow", "net flow"))


def explain_breaks(breaks: pa.Table) -> pa.Table:
    """Find the first hypothesis that closes the gap of each break.

    Parameters
    ----------
    breaks
        Rows with ``place`` (any number), ``code`` (`EXPLAINED_CODES`), ``field``, ``difference`` (decimal; of money
        with eight places at most, as `explain_break` takes it), and `SIDES`: structs with `SIDE_COLUMNS` as in the
        performance table, null where there is no such row.

    Returns
    -------
    pyarrow.Table
        ``place``, ``hypothesis``, ``explanation`` and ``remaining`` of the breaks that one closes, in any order; all
        as `finance_assets.advisory.explanations.explain_break` gives them, with the tolerances of the platform.
    """
    found: list[pa.Table] = []
    for code, tries in _TRIES.items():
        of_code = breaks.filter(pc.equal(breaks["code"], code))
        if not of_code.num_rows:
            continue
        block = of_code.combine_chunks().to_batches()[0]
        is_small = _Block(block, exact=False).is_small
        # Large numbers take the same way, as Python's integers, at a tenth of the speed.
        for exact, chosen in ((False, is_small), (True, ~is_small)):
            if chosen.any():
                part = block if chosen.all() else block.filter(pa.array(chosen))
                work = _Block(part, exact=exact)
                tries(work)
                found += work.found()
    schema = pa.schema(
        [
            breaks.schema.field("place"),
            pa.field("hypothesis", pa.string()),
            pa.field("explanation", pa.string()),
            pa.field("remaining", pa.decimal128(38, 14)),
        ]
    )
    return pa.concat_tables([schema.empty_table(), *(part.cast(schema) for part in found)])


class _Side:
    """One of the rows around each break, as columns; what is null counts as 0 and is told apart by `known`."""

    def __init__(self, rows: pa.StructArray, *, exact: bool) -> None:
        self._columns = dict(zip([field.name for field in rows.type], rows.flatten(), strict=True))
        self._exact = exact
        self._units: dict[str, Numbers] = {}
        self._known: dict[str, Bools] = {}

    @property
    def exists(self) -> Bools:
        return self.known("period_end")

    def known(self, name: str) -> Bools:
        if name not in self._known:
            self._known[name] = self._columns[name].is_valid().to_numpy(zero_copy_only=False)
        return self._known[name]

    def units(self, name: str) -> Numbers:
        """Whole numbers of 1e-8 for money, of 1e-14 for returns."""
        if name not in self._units:
            self._units[name] = _units(self._columns[name], exact=self._exact)
        return self._units[name]

    def given(self, name: str) -> Bools:
        """Whether there is such an amount, and it is not 0."""
        given: Bools = self.known(name) & (self.units(name) != 0)
        return given

    def text(self, name: str) -> Numbers:
        text: Numbers = self._columns[name].to_numpy(zero_copy_only=False)
        return text

    def timings(self) -> Numbers:
        """Places in `TIMINGS`, -1 where there is none."""
        places: Numbers = pc.fill_null(pc.index_in(self._columns["timing"], pa.array(TIMINGS)), -1).to_numpy()
        return places

    def differs(self, other: _Side, name: str) -> Bools:

        unlike = pc.fill_null(pc.not_equal(self._columns[name], other._columns[name]), False)
        differs: Bools = unlike.to_numpy(zero_copy_only=False)
        return differs


class _Values(NamedTuple):
    """Inputs of one return per break, to be changed one at a time, and whether they are all known."""

    bmv: Numbers
    money_in: Numbers
    money_out: Numbers
    emv: Numbers
    timing: Numbers
    known: Bools

    @classmethod
    def of(cls, side: _Side, is_gross: Bools) -> _Values:

        both = side.known("contributions") & side.known("distributions")
        flow = side.units("net_flow")
        known = side.known("beginning_market_value") & side.known("ending_market_value")
        known &= (both | side.known("net_flow")) & (~is_gross | side.known("fees"))
        emv = side.units("ending_market_value")
        return cls(
            side.units("beginning_market_value"),
            np.where(both, side.units("contributions"), np.maximum(flow, 0)),
            np.where(both, side.units("distributions"), np.maximum(-flow, 0)),
            np.where(is_gross, emv + side.units("fees"), emv),
            side.timings(),
            known,
        )

    def ratio(self) -> tuple[Numbers, Numbers]:
        """Give gain and capital; the capital is 0 where there is no return."""
        flow = self.money_in - self.money_out
        gain, capital = self.emv - self.bmv - flow, self.bmv + flow
        for timing, its_gain, its_capital in (
            ("eod", gain, self.bmv),
            ("mid", 2 * gain, 2 * self.bmv + flow),
            ("mixed", gain, self.bmv + self.money_in),
            ("flow_after_valuation", self.emv - self.bmv, self.bmv),
        ):
            is_so = self.timing == TIMINGS.index(timing)
            gain, capital = np.where(is_so, its_gain, gain), np.where(is_so, its_capital, capital)
        return gain, np.where((self.bmv < 0) | (capital < 0), 0, capital)


class _Block:
    """Breaks of one code, of which each candidate is tried on those that none before has closed."""

    def __init__(self, breaks: pa.RecordBatch, *, exact: bool) -> None:

        self._breaks = breaks
        self._exact = exact
        self.is_open: Bools = np.ones(breaks.num_rows, bool)
        self._closed: list[tuple[npt.NDArray[np.int64], str, list[str], npt.NDArray[np.int64]]] = []
        sides = {name: _Side(breaks.column(name), exact=exact) for name in SIDES}
        self.row, self.previous, self.following = sides["own"], sides["previous"], sides["following"]
        self.other, self.other_previous = sides["other"], sides["other_previous"]
        self.other_following = sides["other_following"]

    @property
    def is_small(self) -> Bools:
        """Whether all money of a break has room in 64 bits."""
        small = np.ones(self._breaks.num_rows, bool)
        for name in SIDES:
            rows = self._breaks.column(name)
            for field, column in zip(rows.type, rows.flatten(), strict=True):
                if pa.types.is_decimal(field.type):
                    low, high = _words(column)
                    fits = (high == low >> 63) & (low < _SMALL) & (low > -_SMALL)
                    small &= fits | column.is_null().to_numpy(zero_copy_only=False)
        low, high = _words(self._breaks.column("difference"))
        # In finer units, of which twenty bits more are in the high word.
        return small & (abs(high) < _SMALL * _FINER // 2**64)

    @cached_property
    def difference(self) -> Numbers:
        """Differences of money, in whole numbers of 1e-8."""
        column = pc.cast(self._breaks.column("difference"), pa.decimal128(38, 8))
        return _units(column, exact=self._exact)

    def of_field(self, name: str) -> Bools:

        is_so: Bools = pc.equal(self._breaks.column("field"), name).to_numpy(zero_copy_only=False)
        return is_so

    def fields(self) -> list[str]:

        return sorted(pc.unique(self._breaks.column("field").drop_null()).to_pylist())

    def money(self, hypothesis: str, where: Bools, remaining: Numbers | int, words: Words, scale: int = 1) -> None:
        """Close the gap of the breaks where an amount, times `scale`, remains that is within the tolerance."""
        left = np.broadcast_to(remaining, where.shape)
        rows = np.flatnonzero(self.is_open & where & (abs(left) <= _MONEY_LIMIT * scale))
        if not len(rows):
            return
        rest = left[rows].tolist()
        texts = [
            f"{text}; {_rounded(value, _UNIT // 100 * scale, 0)} cents remain."
            for text, value in zip(words(rows), rest, strict=True)
        ]
        self._close(rows, hypothesis, texts, [value * (_FINER // scale) for value in rest])

    def returns(
        self,
        hypothesis: str,
        where: Bools,
        words: Words,
        values: _Values,
        field: str,
        *,
        times: int = 1,
        over: int = 1,
    ) -> None:
        """Close the gap of the breaks whose stated return, times over what is given, is that of the values."""
        gain, capital = values.ratio()
        stated = self.row.units(field)
        where = self.is_open & where & values.known & (capital > 0)
        rows = np.flatnonzero(where)
        if not len(rows):
            return
        gain, capital, stated = gain[rows], capital[rows], stated[rows]
        # Each of the three is off by a rounding at the most, so what is left out is not near the limit.
        changed, compared = gain.astype(float) / capital.astype(float), stated.astype(float) * (times / over / 1e14)
        margin = 1e-9 + 1e-14 * (np.abs(changed) + np.abs(compared))
        near = np.flatnonzero(np.abs(compared - changed) <= float(RETURN_TOLERANCE) + margin)
        chosen, texts, rests = [], [], []
        numbers = (gain[near].tolist(), capital[near].tolist(), stated[near].tolist())
        for place, above, below, said in zip(near.tolist(), *numbers, strict=True):
            # remaining = said * times / over / 1e14 - above / below = rest / whole / 1e14
            whole = below * over
            rest = said * times * below - above * over * _UNIT * _FINER
            if abs(rest) <= _RETURN_LIMIT * whole:
                chosen.append(place)
                rests.append(_nearest(rest, whole))
                texts.append(
                    f" gives {_rounded(above, below, 6)}, the stated return is {_rounded(said, _UNIT * _FINER, 6)};"
                    f" {_rounded(rest, whole * _UNIT * 100, 2)} bp remain."
                )
        if chosen:
            rows = rows[np.array(chosen, np.int64)]
            self._close(rows, hypothesis, list(map(str.__add__, words(rows), texts)), rests)

    def _close(self, rows: npt.NDArray[np.int64], hypothesis: str, texts: list[str], remaining: list[int]) -> None:

        self.is_open[rows] = False
        self._closed.append((rows, hypothesis, texts, np.array(remaining, np.int64)))

    def found(self) -> list[pa.Table]:
        """Give what was closed, piece by piece."""
        places = self._breaks.column("place")
        names = ["place", "hypothesis", "explanation", "remaining"]
        return [
            pa.table(
                [places.take(pa.array(rows)), pa.repeat(hypothesis, len(rows)), texts, _decimals(remaining)], names
            )
            for rows, hypothesis, texts, remaining in self._closed
        ]


# -- the hypotheses, in their order ----------------------------------------------------------------------------


def _try_returns(block: _Block) -> None:
    for field in block.fields():
        _try_return(block, field)


def _try_return(block: _Block, field: str) -> None:
    """Try a stated return against the return that the row's values give under a changed assumption."""
    row, previous, following = block.row, block.previous, block.following
    is_gross = np.full(len(block.is_open), field == "return_gross")
    values = _Values.of(row, is_gross)
    stated = block.of_field(field) & row.known(field)
    nothing = np.zeros_like(values.bmv)
    money_in, money_out, flow = values.money_in, values.money_out, values.money_in - values.money_out

    def given(hypothesis: str, where: Bools, words: Words, changed: _Values, times: int = 1, over: int = 1) -> None:
        block.returns(hypothesis, stated & where & values.known, words, changed, field, times=times, over=over)

    given(
        "missing_flow", money_in != 0, _saying("Leaving out the contribution of {}", money_in),
        values._replace(money_in=nothing),
    )  # fmt: skip
    given(
        "missing_flow", money_out != 0, _saying("Leaving out the distribution of {}", money_out),
        values._replace(money_out=nothing),
    )  # fmt: skip
    given(
        "missing_flow", (money_in != 0) & (money_out != 0), _saying("Leaving out both flows"),
        values._replace(money_in=nothing, money_out=nothing),
    )  # fmt: skip
    given(
        "flow_sign", flow != 0, _saying("The flow with the opposite sign ({} instead of {})", -flow, flow),
        values._replace(money_in=money_out, money_out=money_in),
    )  # fmt: skip
    fees, has_fees = row.units("fees"), row.given("fees")
    base = values.emv - fees if field == "return_gross" else values.emv + fees
    word = "Taking out" if field == "return_gross" else "Adding back"
    given("fee", has_fees, _saying(f"{word} the fees of {{}}", fees), values._replace(emv=base))
    given("fee", has_fees, _saying("Counting the fees of {} twice", fees), values._replace(emv=2 * values.emv - base))
    gain, capital = values.ratio()
    # Everything over 100 is close to nothing.
    counts = abs(gain) > capital // int(1 / RETURN_TOLERANCE)
    for over in (100, 10_000):
        given("percent", counts, _saying(f"The stated return divided by {over}: the row"), values, over=over)
    given("percent", counts, _saying("The stated return times 100: the row"), values, times=100)
    later = following.units("beginning_market_value")
    given(
        "stale_price", (values.emv == values.bmv) & following.known("beginning_market_value"),
        _saying(
            "The ending value equals the beginning value of {} (stale price); the next beginning value of {} instead",
            values.bmv, later,
        ),
        values._replace(emv=later),
    )  # fmt: skip
    unchanged = values.bmv + flow
    given(
        "stale_price", values.known,
        _saying("A price unchanged since the period before (ending value {})", unchanged),
        values._replace(emv=unchanged),
    )  # fmt: skip
    given(
        "stale_price", flow != 0,
        _saying("An ending value equal to the previous one of {} (stale price)", values.bmv),
        values._replace(emv=values.bmv),
    )  # fmt: skip
    for place, timing in enumerate(TIMINGS):
        given(
            "flow_timing", values.timing != place,
            _saying(f"With {TIMING_NAMES[timing]} ({timing} instead of {{}}) the row", texts=(row.text("timing"),)),
            values._replace(timing=np.full_like(values.timing, place)),
        )  # fmt: skip
    opening = previous.units("ending_market_value")
    given(
        "currency", row.differs(previous, "currency") & previous.known("ending_market_value"),
        _saying(
            "A beginning value of {} in {} instead of {}", opening,
            texts=(previous.text("currency"), row.text("currency")),
        ),
        values._replace(bmv=opening),
    )  # fmt: skip
    for name, neighbour in (("previous", previous), ("following", following)):
        given(
            "period_shift", neighbour.exists,
            _saying(f"The {name} period, ended {{}},", texts=(neighbour.text("period_end"),)),
            _Values.of(neighbour, is_gross),
        )  # fmt: skip


def _try_continuity(block: _Block) -> None:
    """Try a beginning value against the ending value of the period before."""
    row, previous, following = block.row, block.previous, block.following
    there = previous.exists
    opening, closing = row.units("beginning_market_value"), previous.units("ending_market_value")
    before, after = previous.units("beginning_market_value"), following.units("beginning_market_value")
    _try_amounts(block, there, (("of this period", row), ("of the period before", previous)))
    _try_scales(block, there, "beginning value", opening, closing)
    repeats = there & previous.known("beginning_market_value")
    block.money(
        "stale_price", repeats & (opening == before), 0,
        _saying("The beginning value repeats the one of the period before, {} (stale)", opening),
    )  # fmt: skip
    block.money(
        "stale_price", repeats & (closing == before), 0,
        _saying(
            "The ending value before equals the one before it, {} (stale price); the price update of {} is in the"
            " beginning value",
            closing, block.difference,
        ),
    )  # fmt: skip
    _try_rate(block, there, row, opening, previous, closing)
    block.money(
        "period_shift", there & following.known("beginning_market_value") & (after == opening), 0,
        _saying("The beginning value is that of the following period, {}", after),
    )  # fmt: skip
    block.money(
        "period_shift", there & row.known("ending_market_value"), opening - row.units("ending_market_value"),
        _saying("The beginning value is the ending value of the same period"),
    )  # fmt: skip


def _try_rollforward(block: _Block) -> None:
    """Try beginning value, flows and components against the ending value."""
    row, following = block.row, block.following
    everywhere = row.exists
    ending, rolled = row.units("ending_market_value"), row.units("ending_market_value") + block.difference
    _try_amounts(block, everywhere, (("of this period", row),))
    _try_scales(block, everywhere, "ending value", ending, rolled)
    is_stale = row.known("beginning_market_value") & (ending == row.units("beginning_market_value"))
    block.money(
        "stale_price", is_stale, 0,
        _saying("The ending value equals the beginning value of {} (stale price); rolled forward it is {}",
                ending, rolled),
    )  # fmt: skip
    for name in ("beginning_market_value", "ending_market_value"):
        theirs = following.units(name)
        block.money(
            "period_shift", following.known(name), rolled - theirs,
            _saying(f"The values roll forward to the {name.replace('_', ' ')} of the following period, {{}}", theirs),
        )  # fmt: skip


def _try_vendors(block: _Block) -> None:
    for field in block.fields():
        if field != "currency" and not field.startswith("return"):
            _try_vendor(block, field)


def _try_vendor(block: _Block, field: str) -> None:
    """Try the same value of two vendors."""
    row, other = block.row, block.other
    where = block.of_field(field) & row.known(field) & other.known(field)
    mine, theirs, name = row.units(field), other.units(field), field.replace("_", " ")
    whose = (("of {}", row), ("of {}", other))
    _try_amounts(block, where, whose, only="missing_flow")
    if field == "net_flow":
        block.money(
            "flow_sign", where, mine + theirs, _saying("The net flows have opposite signs, {} and {}", mine, theirs)
        )
    _try_amounts(block, where, whose, only="flow_sign")
    _try_amounts(block, where, whose, only="fee")
    _try_scales(block, where, name, mine, theirs)
    if field == "ending_market_value":
        sides = (
            (row, mine, block.previous, block.following, theirs),
            (other, theirs, block.other_previous, block.other_following, mine),
        )
        for side, own, before, after, others in sides:
            block.money(
                "stale_price", where & before.known(field) & (own == before.units(field)), 0,
                _saying("The ending value of {} equals its previous one, {} (stale)", own,
                        texts=(side.text("vendor"),), order=(1, 0)),
            )  # fmt: skip
            opening = after.units("beginning_market_value")
            block.money(
                "stale_price", where & after.known("beginning_market_value"), opening - others,
                _saying(
                    "{} ends with {} (stale or late price) but begins the next period with {}, and the other one"
                    " ends with {}",
                    own, opening, others, texts=(side.text("vendor"),), order=(3, 0, 1, 2),
                ),
            )  # fmt: skip
    _try_rate(block, where, row, mine, other, theirs)
    for side, own, neighbours in (
        (other, mine, (block.other_previous, block.other_following)),
        (row, theirs, (block.previous, block.following)),
    ):
        for neighbour in neighbours:
            value = neighbour.units(field)
            block.money(
                "period_shift", where & (mine != 0) & neighbour.known(field), own - value,
                _saying(
                    f"{{}} has this {name} in the period ended {{}}, {{}}", value,
                    texts=(side.text("vendor"), neighbour.text("period_end")), order=(1, 2, 0),
                ),
            )  # fmt: skip


def _try_amounts(block: _Block, where: Bools, rows: Sequence[tuple[str, _Side]], only: str | None = None) -> None:
    """Try a difference that is one booked amount, or twice that amount where its sign is wrong."""
    difference = block.difference
    size = abs(difference)
    for hypothesis in ("missing_flow", "flow_sign", "fee") if only is None else (only,):
        for whose, side in rows:
            names = (side.text("vendor"),) if "{}" in whose else ()
            order = (0, 2, 1) if names else (0, 1)
            if hypothesis == "fee":
                amount, given = side.units("fees"), where & side.given("fees")
                for words, factor in (("", 1), ("twice ", 2)):
                    block.money(
                        hypothesis, given, size - factor * abs(amount),
                        _saying(f"The difference of {{}} is {words}the fees {whose}, {{}}", difference, amount,
                                texts=names, order=order),
                    )  # fmt: skip
                continue
            for column, name in _FLOWS:
                amount, given = side.units(column), where & side.given(column)
                if hypothesis == "missing_flow":
                    block.money(
                        hypothesis, given, size - abs(amount),
                        _saying(f"The difference of {{}} is one {name} {whose}, {{}}", difference, amount,
                                texts=names, order=order),
                    )  # fmt: skip
                else:
                    block.money(
                        hypothesis, given, size - 2 * abs(amount),
                        _saying(f"The difference of {{}} is twice the {name} {whose}, {{}}: its sign is turned",
                                difference, amount, texts=names, order=order),
                    )  # fmt: skip


def _try_scales(block: _Block, where: Bools, name: str, value: Numbers, reference: Numbers) -> None:
    """Try a value that is 100 times too large or too small."""
    where = where & (value != 0) & (reference != 0)
    block.money(
        "percent", where, value - 100 * reference,
        _saying(f"The {name} of {{}} is 100 times {{}}", value, reference), scale=100,
    )  # fmt: skip
    block.money(
        "percent", where, 100 * value - reference,
        _saying(f"The {name} of {{}} is a hundredth of {{}}", value, reference), scale=100,
    )  # fmt: skip


def _try_rate(block: _Block, where: Bools, row: _Side, value: Numbers, side: _Side, other: Numbers) -> None:
    """Values in two currencies: the rate they imply."""

    def words(rows: npt.NDArray[np.int64]) -> list[str]:
        columns = (value, other, row.text("currency"), side.text("currency"))
        return [
            f"{_money(mine)} is in {currency}, {_money(theirs)} in {other_currency}:"
            f" an exchange rate of {_rounded(abs(mine), abs(theirs), 6)}"
            for mine, theirs, currency, other_currency in zip(*(c[rows].tolist() for c in columns), strict=True)
        ]

    same_sign = (value != 0) & (other != 0) & ((value > 0) == (other > 0))
    block.money("currency", where & row.differs(side, "currency") & same_sign, 0, words)


_TRIES: Final[dict[str, Callable[[_Block], None]]] = {
    "RETURN_TOLERANCE": _try_returns,
    "ROLLFORWARD": _try_rollforward,
    "CONTINUITY": _try_continuity,
    "VENDOR_MISMATCH": _try_vendors,
    "VALUE_MISMATCH": _try_vendors,
}


# -- numbers and words -----------------------------------------------------------------------------------------


def _words(column: pa.Array) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Give the low and the high 64 bits of decimals; what stands where one is null means nothing."""
    size, start = len(column), column.offset
    data = column.buffers()[1]
    if data is None or not size:
        return np.zeros(size, np.int64), np.zeros(size, np.int64)
    pairs = np.frombuffer(data, np.int64)[2 * start : 2 * (start + size)].reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1]


def _units(column: pa.Array, *, exact: bool) -> Numbers:
    """Give decimals as whole numbers of their last place, 0 where null: of 64 bits, or of any size."""
    low, high = _words(column)
    is_null = column.is_null().to_numpy(zero_copy_only=False)
    if not exact:
        return np.where(is_null, 0, low)
    units: Numbers = high.astype(object) * 2**64 + low.view(np.uint64).astype(object)
    return np.where(is_null, 0, units)


def _decimals(units: npt.NDArray[np.int64]) -> pa.Array:
    """Give whole numbers of 1e-14 as decimals."""
    pairs = np.stack([units, units >> 63], axis=1)
    return pa.Array.from_buffers(pa.decimal128(38, 14), len(units), [None, pa.py_buffer(np.ascontiguousarray(pairs))])


def _saying(
    template: str, *amounts: Numbers, texts: Sequence[Numbers] = (), order: Sequence[int] | None = None
) -> Words:
    """Fill amounts, then texts, into a template, or both in the given order."""

    def words(rows: npt.NDArray[np.int64]) -> list[str]:
        columns: list[Iterator[str]] = [map(_money, amount[rows].tolist()) for amount in amounts]
        columns += [map(str, text[rows].tolist()) for text in texts]
        if not columns:
            return [template] * len(rows)
        return list(map(template.format, *(columns if order is None else [columns[place] for place in order])))

    return words


def _nearest(above: int, below: int) -> int:
    """Divide by a positive number, to the nearest whole number, half to even."""
    whole, rest = divmod(abs(above), below)
    if 2 * rest > below or (2 * rest == below and whole & 1):
        whole += 1
    return -whole if above < 0 else whole


def _rounded(above: int, below: int, places: int) -> str:
    """Write a quotient with so many places; one that is negative keeps its sign when it is rounded to 0."""
    scale = 10**places
    size = abs(_nearest(above * scale, below))
    sign = "-" if above < 0 else ""
    return f"{sign}{size // scale}.{size % scale:0{places}d}" if places else f"{sign}{size}"


def _money(units: int) -> str:
    """Thousands separated, cents at least, no digit lost."""
    whole, rest = divmod(abs(units), _UNIT)
    cents, finer = divmod(rest, _UNIT // 100)
    sign = "-" if units < 0 else ""
    more = f"{finer:06d}".rstrip("0") if finer else ""
    return f"{sign}{whole:,}.{cents:02d}{more}"
