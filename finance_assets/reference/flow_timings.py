"""Flow timings: when contributions and distributions enter a return."""

from typing import Final, Literal, get_args

Timing = Literal["sod", "eod", "mid", "mixed", "flow_after_valuation"]
TIMINGS: Final[tuple[str, ...]] = get_args(Timing)
"""Start of day, end of day, middle of the period, contributions at the start and distributions at the end, and ending
values that are taken before the flow is booked."""
