"""Why a metric has no value: the status codes that stand beside every computed column.

Belongs here: the closed list of statuses and their integer codes. Nothing else; no module of this package is
imported, so that every domain can use it.
"""

from enum import StrEnum


class Status(StrEnum):
    """State of one computed value; anything but ``OK`` and ``LARGE_FLOW_UNVALUED`` goes with a NULL.

    Tables store the text (``"ok"``, ``"no_data"``, ...). Arrays in memory hold the small integer `code`,
    which is the position in this list, so that ``STATUSES[code]`` gives the member back and an Arrow
    dictionary column needs only the codes and the list. Codes are not stored: the order may change, the texts
    may not.
    """

    OK = "ok"
    """The value is defined."""
    NO_DATA = "no_data"
    """The input itself is missing on that date, or was quarantined (non-finite, price <= 0)."""
    INSUFFICIENT_HISTORY = "insufficient_history"
    """Fewer observations so far than one full window."""
    ZERO_VARIANCE = "zero_variance"
    """The window does not vary, so a score relative to its spread has no meaning."""
    UNDEFINED_DENOMINATOR = "undefined_denominator"
    """The ratio's denominator is zero or of a sign that makes the ratio meaningless."""
    NO_MOVEMENT = "no_movement"
    """No price change since the first observation: neither a gain nor a loss to compare."""
    MISSING_INPUT = "missing_input"
    """One of several inputs is missing."""
    NON_POSITIVE_AVERAGE_CAPITAL = "non_positive_average_capital"
    """Modified Dietz: the average capital of the period is zero or negative."""
    GAP = "gap"
    """A chain of periods is broken before this one."""
    OUTSIDE_DOMAIN = "outside_domain"
    """The formula is not valid for these inputs."""
    NOT_CONVERGED = "not_converged"
    """An iterative estimate did not converge."""
    LARGE_FLOW_UNVALUED = "large_flow_unvalued"
    """A large flow on a date without a valuation: the return is kept, but not certified. Alone among the statuses
    it stands beside a value."""

    @property
    def code(self) -> int:
        """Position in `STATUSES`: the value that stands for this status in int8 arrays."""
        return _CODES[self]


STATUSES: tuple[Status, ...] = tuple(Status)
"""All statuses in the order of their codes."""

_CODES: dict[Status, int] = {status: code for code, status in enumerate(STATUSES)}
