"""Which macro series the platform follows; adding one is a line.

What belongs here: the list, what a number of each is about, and when it is published. What does not: how it is
fetched (``sources``, ``sample``).

Release dates come from FRED's vintages where a series is revised. A rate of a market is final when it is published, and
FRED's archive of it begins decades later than the rate itself, so its release date is the reference date plus the
publication lag written here. Lags are upper bounds of the ordinary calendar: a number may have been known a little
earlier, never later.

==========  ===================================================================================================
series      first publication of a number
==========  ===================================================================================================
FEDFUNDS    average of a month, Federal Reserve H.15, in the first days of the month after
DGS10       a day's rate, H.15, on the business day after
DGS3MO      the same
CPIAUCSL    a month's index, Bureau of Labor Statistics, about the middle of the month after
CPILFESL    the same, without food and energy
VIXCLS      a day's close, Cboe, on the day after
DCOILWTICO  a day's spot price, Energy Information Administration, weekly: within eight days
BAA10Y      a day's spread, from Moody's yields and H.15, on the business day after
UNRATE      a month's rate, Bureau of Labor Statistics, by the second Friday of the month after
AAA, BAA    average of a month, Moody's, in the first days of the month after
==========  ===================================================================================================
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal

Frequency = Literal["daily", "monthly"]


@dataclass(frozen=True, slots=True)
class MacroSeries:
    """One series.

    Attributes
    ----------
    series_id
        FRED's name of it.
    name
        What it is, in words.
    unit
        Unit of its numbers.
    frequency
        ``daily`` or ``monthly``; a month's number has the first of the month as its reference date.
    lag_days
        Calendar days from the reference date to the first publication, at most.
    is_revised
        Whether published numbers change later, so that vintages matter.
    """

    series_id: str
    name: str
    unit: str
    frequency: Frequency
    lag_days: int
    is_revised: bool

    def assumed_release(self, reference: date) -> date:
        """Return the day by which the number of a reference date is published."""
        return reference + timedelta(days=self.lag_days)

    @property
    def overdue_days(self) -> int:
        """Days after a reference date on which the number of the next one should be there, with a week of grace."""
        return self.lag_days + (31 if self.frequency == "monthly" else 4) + 7


PERCENT = "percent per year"
SERIES: tuple[MacroSeries, ...] = (
    MacroSeries("FEDFUNDS", "Effective federal funds rate", PERCENT, "monthly", 36, True),
    MacroSeries("DGS10", "10-year Treasury yield", PERCENT, "daily", 1, False),
    MacroSeries("DGS3MO", "3-month Treasury yield", PERCENT, "daily", 1, False),
    MacroSeries("CPIAUCSL", "Consumer prices, all items", "index, 1982-84 = 100", "monthly", 54, True),
    MacroSeries("VIXCLS", "VIX, implied volatility of the S&P 500", "percent per year", "daily", 1, False),
    MacroSeries("DCOILWTICO", "Crude oil, West Texas Intermediate", "USD per barrel", "daily", 8, False),
    MacroSeries("BAA10Y", "Baa corporate yield less 10-year Treasury yield", "percentage points", "daily", 1, False),
    MacroSeries("UNRATE", "Unemployment rate", "percent", "monthly", 44, True),
)
#: What the packaged sample has: as many of the above as there are, and kin of the others.
SAMPLE_SERIES: tuple[MacroSeries, ...] = (
    MacroSeries("CPILFESL", "Consumer prices without food and energy", "index, 1982-84 = 100", "monthly", 54, True),
    next(series for series in SERIES if series.series_id == "VIXCLS"),
    next(series for series in SERIES if series.series_id == "DCOILWTICO"),
    MacroSeries("AAA", "Yield of Aaa corporate bonds", PERCENT, "monthly", 36, False),
    MacroSeries("BAA", "Yield of Baa corporate bonds", PERCENT, "monthly", 36, False),
)
