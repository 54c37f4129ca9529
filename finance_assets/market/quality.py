"""Questions about quotes that no single row answers: what is stale, what jumps, what is missing.

What belongs here: pure functions over tables. Which of the answers stops the pipeline is decided in ``checks``.

Sources: the robust z-score is 0.67449 times the distance from the median over the median absolute deviation (Iglewicz
and Hoaglin, 1993); it is not masked by the very outlier that it looks for.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

#: Returns before a session that say what is usual, and how few are too few to say it.
USUAL_RETURNS, FEWEST_RETURNS = 252, 60
#: A return is a jump where its robust z is beyond this and its size beyond the other.
JUMP_Z, JUMP_SIZE = 8.0, 0.15
#: A price that moves by a ratio of a split, to so much (in logarithms), without a split on record.
SPLIT_RATIOS = (1.5, 2.0, 3.0, 4.0, 5.0, 7.0, 8.0, 10.0, 15.0, 20.0, 25.0, 30.0, 50.0, 100.0)
SPLIT_TOLERANCE = 0.03
#: Sessions in a row with the same close that are no chance.
STALE_SESSIONS = 5
_MAD_TO_DEVIATION = 0.67449


@dataclass(frozen=True, slots=True, order=True)
class Jump:
    """A return that is far out of the ordinary, with no corporate action on record.

    Attributes
    ----------
    symbol, session
        Where.
    total_return
        The return, a fraction.
    robust_z
        Its robust z-score among the returns before it.
    split_ratio
        The split that the price looks like; None where it looks like none.
    """

    symbol: str
    session: date
    total_return: float
    robust_z: float
    split_ratio: float | None

    def __str__(self) -> str:
        """Say it in one line."""
        looks = "" if self.split_ratio is None else f", like a split of {self.split_ratio:g}"
        return f"{self.symbol} {self.session}: {self.total_return:+.1%}, robust z {self.robust_z:.0f}{looks}"


def split_like(total_return: float) -> float | None:
    """Return the ratio of the split that a return looks like: n for n new shares per old, 1/n for the reverse.

    A price that halves has a return near -50 % and looks like a split of 2. None where the price moved by no common
    ratio, to 3 %.
    """
    if not total_return > -1:
        return None
    moved = -math.log1p(total_return)
    for ratio in SPLIT_RATIOS:
        for signed, shown in ((math.log(ratio), ratio), (-math.log(ratio), 1 / ratio)):
            if abs(moved - signed) <= SPLIT_TOLERANCE:
                return shown
    return None


def robust_z(value: float, usual: npt.NDArray[np.float64]) -> float | None:
    """Return the robust z-score of a value among others; None where these are too few or do not vary."""
    import numpy as np

    if usual.size < FEWEST_RETURNS:
        return None
    middle = float(np.median(usual))
    spread = float(np.median(np.abs(usual - middle)))
    if spread <= 1e-12 * max(1.0, abs(middle)):
        return None
    return _MAD_TO_DEVIATION * (value - middle) / spread


def jumps(returns: pa.Table, since: date, acted: Iterable[tuple[str, date]]) -> list[Jump]:
    """Return the jumps without a corporate action, by ticker and session.

    Parameters
    ----------
    returns
        ``symbol``, ``session_date``, ``total_return``: the sessions to judge and those before them.
    since
        First session to judge.
    acted
        Tickers and ex-dates of corporate actions, and jumps that a person has found to be real.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    explained = set(acted)
    own = returns.filter(pc.is_valid(returns.column("total_return")))
    own = own.sort_by([("symbol", "ascending"), ("session_date", "ascending")]).combine_chunks()
    if own.num_rows == 0:
        return []
    values = own.column("total_return").to_numpy()
    days = own.column("session_date").cast(pa.int32()).to_numpy()
    names = own.column("symbol").combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    starts = np.r_[0, np.flatnonzero(codes[1:] != codes[:-1]) + 1]
    first_of = starts[np.searchsorted(starts, np.arange(codes.size), side="right") - 1]
    begin = (since - date(1970, 1, 1)).days
    found = []
    # Only returns of that size are looked at one by one; there are few.
    for place in np.flatnonzero((days >= begin) & (np.abs(values) > JUMP_SIZE)).tolist():
        value = float(values[place])
        score = robust_z(value, values[max(int(first_of[place]), place - USUAL_RETURNS) : place])
        symbol = names.dictionary[int(codes[place])].as_py()
        session = own.column("session_date")[place].as_py()
        if score is not None and abs(score) > JUMP_Z and (symbol, session) not in explained:
            found.append(Jump(symbol, session, value, score, split_like(value)))
    return sorted(found)


def stale_symbols(quotes: pa.Table, sessions: int = STALE_SESSIONS) -> dict[str, tuple[date, int]]:
    """Return the tickers whose newest closes are all the same: since when, and for how many sessions.

    Parameters
    ----------
    quotes
        ``symbol``, ``session_date``, ``close`` of recent sessions.
    sessions
        Fewest equal closes in a row that count.
    """
    import numpy as np
    import pyarrow as pa

    own = quotes.sort_by([("symbol", "ascending"), ("session_date", "ascending")]).combine_chunks()
    if own.num_rows == 0:
        return {}
    closes = own.column("close").cast(pa.float64()).to_numpy()
    names = own.column("symbol").combine_chunks().dictionary_encode()
    codes = names.indices.to_numpy()
    changed = np.r_[True, (codes[1:] != codes[:-1]) | (closes[1:] != closes[:-1])]
    begins = np.flatnonzero(changed)
    ends = np.r_[begins[1:], codes.size]
    newest = np.r_[codes[1:] != codes[:-1], True][ends - 1]
    stale = {}
    for begin, end in zip(begins[newest].tolist(), ends[newest].tolist(), strict=True):
        if end - begin >= sessions:
            stale[names.dictionary[int(codes[begin])].as_py()] = (
                own.column("session_date")[begin].as_py(),
                end - begin,
            )
    return dict(sorted(stale.items()))


def drift(counts: Mapping[str, int], window: int = 20) -> tuple[int, float, float] | None:
    """Compare the newest partition's rows with the median of those before.

    Returns
    -------
    tuple or None
        Rows of the newest, the median of the ``window`` before it, and the relative difference; None with fewer than
        five before it, or a median of 0.
    """
    from statistics import median

    keys = sorted(counts)
    before = [counts[key] for key in keys[-window - 1 : -1]]
    if len(before) < 5 or not (usual := median(before)):
        return None
    return counts[keys[-1]], usual, counts[keys[-1]] / usual - 1
