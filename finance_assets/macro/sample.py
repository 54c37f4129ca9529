"""Real macro series, offline, read from the data that ``arch`` carries.

What belongs here: where the sample lies and how it is read. The package is found by its import spec and its files are
read as text; nothing is imported.

``arch.data`` (NCSA licence) has West Texas Intermediate from 1986, consumer prices without food and energy from 1957,
yields of Aaa and Baa bonds from 1919, and the VIX from 2014, all to the turn of 2018; FRED is their source. They come
without vintages: the numbers are those of 2019, and the release date is the reference date plus the publication lag.
For prices that means the timing is right and the revision is not; every row says so (``assumed_lag``). What was
released after the platform's clock is never returned, so the sample of 2013 has no VIX.
"""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from finance_assets.macro.series import SAMPLE_SERIES
from finance_assets.macro.sources import ASSUMED_LAG, MISSING, Observation, SeriesBatch, first_releases
from finance_assets.providers.errors import Clock, ProviderNotInstalled, SymbolNotFound, UnexpectedResponse, utc_now
from finance_assets.providers.packages import package_file

if TYPE_CHECKING:
    from finance_assets.macro.series import MacroSeries

#: Series -> file of the package, and the column in it.
FILES: dict[str, tuple[str, str]] = {
    "DCOILWTICO": ("data/wti/wti.csv.gz", "DCOILWTICO"),
    "CPILFESL": ("data/core_cpi/core-cpi.csv.gz", "CPILFESL"),
    "AAA": ("data/default/default.csv.gz", "AAA"),
    "BAA": ("data/default/default.csv.gz", "BAA"),
    "VIXCLS": ("data/vix/vix.csv.gz", "vix"),
}


class SampleMacroProvider:
    """Macro series of the embedded sample.

    Parameters
    ----------
    clock
        Says which day it is; give it a fixed time, so that reruns are equal byte for byte.
    """

    name = "sample"
    series = SAMPLE_SERIES

    def __init__(self, *, clock: Clock) -> None:
        self._clock = clock

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def fetch(self, series: MacroSeries) -> SeriesBatch:
        """Return the observations of a series that were published by the clock's day.

        Raises
        ------
        SymbolNotFound
            The sample does not have the series.
        ProviderNotInstalled
            ``arch`` is not installed.
        UnexpectedResponse
            The file is not as it was.
        """
        import gzip
        from importlib.metadata import version

        if series.series_id not in FILES:
            raise SymbolNotFound(self.name, series.series_id, f"the sample has {', '.join(FILES)}")
        file, column = FILES[series.series_id]
        path = package_file("arch", file)
        if path is None:
            raise ProviderNotInstalled(
                self.name,
                series.series_id,
                f"arch/{file} is not installed; install the dependencies again",
            )
        page = path.read_bytes()
        header, *lines = gzip.decompress(page).decode("utf-8").splitlines()
        names = header.split(",")
        if names[0] != "Date" or column not in names:
            raise UnexpectedResponse(self.name, series.series_id, f"{path} has the columns {header}, not {column}")
        place = names.index(column)
        today = utc_now(self._clock).date()
        rows = []
        for line in lines:
            cells = line.split(",")
            month, day, year = cells[0].split("/")
            reference = date(int(year), int(month), int(day))
            released = series.assumed_release(reference)
            if released <= today:
                rows.append(Observation(reference, released, ASSUMED_LAG, cells[place] or MISSING))
        return SeriesBatch(
            series_id=series.series_id,
            provider=self.name,
            request=f"read arch {version('arch')}: {file}, column {column}",
            fetched_ts_utc=utc_now(self._clock),
            pages=(page,),
            page_suffix=".csv.gz",
            observations=first_releases(rows),
        )
