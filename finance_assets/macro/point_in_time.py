"""From observations to tables: what was published, and what of it was known when.

What belongs here: pure functions over Arrow tables. Nothing is fetched and nothing is stored here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from finance_assets.arrays import known_rows
from finance_assets.contracts.arrow import empty_table, storage_schema
from finance_assets.contracts.macro import MACRO_INDICATORS, MACRO_SERIES
from finance_assets.contracts.status import Status
from finance_assets.macro.sources import read_value

if TYPE_CHECKING:
    import pyarrow as pa

    from finance_assets.macro.series import MacroSeries
    from finance_assets.macro.sources import SeriesBatch

OBSERVED = "observed"
VINTAGE = "vintage"


@dataclass(frozen=True, slots=True)
class LandedSeries:
    """A provider's answer, what it is about, and the address of its bytes."""

    series: MacroSeries
    batch: SeriesBatch
    response_sha256: str


def macro_series(landed: Iterable[LandedSeries], stored: pa.Table | None, today: date) -> pa.Table:
    """Return the rows of ``raw/macro_series``: what is known already, and what the answers add to it.

    Parameters
    ----------
    landed
        Answers, one per series.
    stored
        What the table holds; None where it was never made.
    today
        The clock's day.

    Returns
    -------
    pyarrow.Table
        Every stored row as it was, so that a rerun gives the same bytes and a failed provider loses nothing. New
        rows are added. Where a series without vintages states another number for a stored reference date, that is a
        revision which became known today (``observed``): the first number stays what was known until then.
    """
    import pyarrow as pa

    rows: dict[tuple[str, date, date], dict[str, Any]] = {}
    newest: dict[tuple[str, date], dict[str, Any]] = {}
    for row in stored.to_pylist() if stored is not None else []:
        rows[row["series_id"], row["reference_date"], row["release_date"]] = row
        held = newest.get((row["series_id"], row["reference_date"]))
        if held is None or held["release_date"] < row["release_date"]:
            newest[row["series_id"], row["reference_date"]] = row
    for entry in landed:
        for seen in entry.batch.observations:
            released, basis = seen.release_date, seen.release_basis
            known = newest.get((entry.series.series_id, seen.reference_date))
            if known is not None and basis != VINTAGE:
                if known["value_text"] == seen.value_text:
                    continue
                released, basis = max(today, known["release_date"]), OBSERVED
            place = (entry.series.series_id, seen.reference_date, released)
            if place in rows and rows[place]["value_text"] == seen.value_text:
                continue
            value, reading = read_value(seen.value_text)
            rows[place] = {
                "series_id": entry.series.series_id,
                "reference_date": seen.reference_date,
                "release_date": released,
                "series_name": entry.series.name,
                "unit": entry.series.unit,
                "frequency": entry.series.frequency,
                "published_value": value,
                "value_reading": reading,
                "value_text": seen.value_text,
                "release_basis": basis,
                "provider": entry.batch.provider,
                "fetched_ts_utc": entry.batch.fetched_ts_utc,
                "request": entry.batch.request,
                "response_sha256": entry.response_sha256,
            }
    ordered = [rows[place] for place in sorted(rows)]
    return pa.Table.from_pylist(ordered, schema=storage_schema(MACRO_SERIES)) if ordered else empty_table(MACRO_SERIES)


def macro_indicators(published: pa.Table, sessions: Iterable[date]) -> pa.Table:
    """Return the rows of ``core/macro_indicators``.

    Parameters
    ----------
    published
        Rows of ``raw/macro_series``. Those without a number are passed over: what was known before stays known.
    sessions
        Exchange sessions that have closed.
    """
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    schema = storage_schema(MACRO_INDICATORS)
    days = np.array(sorted(sessions), dtype="datetime64[D]")
    described = _described(published)
    numbers = published.filter(pc.is_valid(published.column("published_value")))
    parts = []
    for series_id in sorted(described):
        own = numbers.filter(pc.equal(numbers.column("series_id"), series_id)).combine_chunks()
        reference = own.column("reference_date").to_numpy().astype("datetime64[D]")
        release = own.column("release_date").to_numpy().astype("datetime64[D]")
        place = known_rows(reference, release, days)
        known = place >= 0
        taken = own.take(pa.array(place, mask=~known))
        before = np.r_[np.datetime64("0001-01-01", "D"), days[:-1]] if days.size else days
        safe = np.maximum(place, 0)
        age = (days - reference[safe]).astype(np.int32) if own.num_rows else np.zeros(days.size, np.int32)
        is_new = known & (release[safe] > before) if own.num_rows else known
        columns: dict[str, Any] = {
            "series_id": pa.repeat(series_id, days.size),
            "session_date": pa.array(days, pa.date32()),
            **{name: pa.repeat(text, days.size) for name, text in described[series_id].items()},
            "published_value": taken.column("published_value"),
            "published_value_status": pa.array(np.where(known, str(Status.OK), str(Status.NO_DATA))),
            "reference_date": taken.column("reference_date"),
            "release_date": taken.column("release_date"),
            "release_basis": taken.column("release_basis"),
            "age_days": pa.array(age, pa.int32(), mask=~known),
            "is_new": pa.array(is_new),
        }
        parts.append(pa.table({name: columns[name] for name in schema.names}))
    return pa.concat_tables(parts) if parts else empty_table(MACRO_INDICATORS)


def _described(published: pa.Table) -> dict[str, Mapping[str, str]]:
    """Return name, unit and frequency of every series, as its newest row says."""
    names = ["series_name", "unit", "frequency"]
    rows = published.select(["series_id", *names]).group_by("series_id", use_threads=False)
    return {
        row["series_id"]: {name: row[f"{name}_last"] for name in names}
        for row in rows.aggregate([(name, "last") for name in names]).to_pylist()
    }


@dataclass(frozen=True, slots=True)
class Overdue:
    """A series whose next number should have been published."""

    series_id: str
    newest_reference: date
    days_late: int


def overdue_series(published: pa.Table, series: Iterable[MacroSeries], today: date) -> list[Overdue]:
    """Return the series of which a number should be there that is not; one without any number is not among them.

    The next number is due its lag after the end of its period, with a week of grace.
    """
    import pyarrow.compute as pc

    numbers = published.filter(pc.is_valid(published.column("published_value")))
    newest = {
        row["series_id"]: row["reference_date_max"]
        for row in numbers.group_by("series_id").aggregate([("reference_date", "max")]).to_pylist()
    }
    late = []
    for entry in series:
        if entry.series_id in newest:
            days = (today - newest[entry.series_id]).days - entry.overdue_days
            if days > 0:
                late.append(Overdue(entry.series_id, newest[entry.series_id], days))
    return late
