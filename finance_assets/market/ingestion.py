"""From what providers answered to rows of ``raw/quotes`` and ``raw/instruments``.

What belongs here: giving each row its session and its provenance, and keeping what an earlier run wrote where nothing
new is known. Nothing is judged (that is ``validation``) and nothing is fetched (that is ``sources``).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

from finance_assets.contracts.market import INSTRUMENTS, QUOTES_RAW

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import pyarrow as pa

    from finance_assets.market.sources.base import Overview, QuoteBatch

#: Columns that say how a row came, not what it says; a refetch that changes only these changes nothing.
PROVENANCE = ("provider", "fetched_ts_utc", "request", "response_sha256", "fallback_reason")
_CONTENT = tuple(name for name in QUOTES_RAW.column_names if name not in PROVENANCE)


@dataclass(frozen=True, slots=True)
class LandedBatch:
    """A provider's answer and the address of its bytes (None where it has none)."""

    batch: QuoteBatch
    response_sha256: str | None


def raw_quotes(batches: Iterable[LandedBatch], sessions: Sequence[date], after: date | None = None) -> pa.Table:
    """Return the rows of ``raw/quotes``: each answer's rows with their session and provenance.

    Parameters
    ----------
    batches
        Answers, one per ticker.
    sessions
        The sessions that are to be filled, in order. A row belongs to the session on or next after its date, so a
        row for a day without a session reaches validation, which refuses it with a reason.
    after
        The session before the first one: a row of a day between the two belongs to the first. None where such rows
        were not asked for.

    Returns
    -------
    pyarrow.Table
        Rows whose session is one of ``sessions``. A provider that returned more than was asked for is cut. What a
        row says does not depend on the range that was asked for: its number counts within ticker and session.
    """
    import numpy as np
    import pyarrow as pa

    from finance_assets.contracts.arrow import empty_table

    days = np.array(sessions, dtype="datetime64[D]")
    first = days[:1] if after is None else np.datetime64(after, "D") + 1
    parts = []
    for landed in batches:
        batch, table = landed.batch, landed.batch.table
        dates = table.column("quote_date").to_numpy().astype("datetime64[D]")
        position = np.searchsorted(days, dates)
        keep = (position < len(days)) & (dates >= first)
        chosen = table.filter(pa.array(keep))
        count = chosen.num_rows

        def repeated(value: object, kind: pa.DataType, count: int = count) -> pa.Array:
            return pa.repeat(pa.scalar(value, kind), count)

        text = pa.string()
        columns = {
            "symbol": repeated(batch.symbol, text),
            "session_date": pa.array(days[position[keep]], pa.date32()),
            "row_number": pa.array(_place_within(position[keep]), pa.int32()),
            "provider": repeated(batch.provider, text),
            "fetched_ts_utc": repeated(batch.fetched_ts_utc, pa.timestamp("us", "UTC")),
            "request": repeated(batch.request, text),
            "response_sha256": repeated(landed.response_sha256, text),
            "fallback_reason": repeated(batch.fallback_reason, text),
            **{name: chosen.column(name) for name in chosen.column_names},
        }
        parts.append(pa.table({name: columns[name] for name in QUOTES_RAW.column_names}))
    return pa.concat_tables(parts) if parts else empty_table(QUOTES_RAW)


def _place_within(groups: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """Return each row's place among the rows of its group, from 0, in the order given."""
    import numpy as np

    order = np.argsort(groups, kind="stable")
    ordered = groups[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]][: len(ordered)])
    place = np.empty_like(order)
    place[order] = np.arange(len(ordered)) - np.repeat(starts, np.diff(np.r_[starts, len(ordered)]))
    return place


def keep_known(fetched: pa.Table, stored: pa.Table) -> pa.Table:
    """Return what a partition range is to hold: new rows where they say something new, else those it held.

    A ticker and session that this run did not get keeps its stored rows, so a failed provider loses nothing. One that
    came again with the same content keeps its first provenance, so a rerun gives the same bytes. The rows of a
    ticker and session are one unit: all of them are kept, or all are replaced.

    Parameters
    ----------
    fetched
        Rows of this run.
    stored
        Rows that the partitions hold now.
    """
    import duckdb

    if stored.num_rows == 0:
        return fetched
    content = ", ".join(f'"{name}"' for name in _CONTENT)
    columns = ", ".join(f'"{name}"' for name in QUOTES_RAW.column_names)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("fetched", fetched)
        connection.register("stored", stored)
        return connection.execute(
            f"""
            with appeared as (select {content} from fetched except select {content} from stored),
            gone as (select {content} from stored except select {content} from fetched),
            changed as (
                select symbol, session_date from appeared
                union
                select symbol, session_date from gone semi join fetched using (symbol, session_date)
            )
            select {columns} from fetched semi join changed using (symbol, session_date)
            union all
            select {columns} from stored anti join changed using (symbol, session_date)
            """
        ).to_arrow_table()


def instrument_versions(
    known: pa.Table, overviews: Mapping[str, Overview], observed: date, stored: pa.Table | None
) -> pa.Table:
    """Return every version of every instrument.

    Parameters
    ----------
    known
        The hand-made universe, with its dates.
    overviews
        What providers say today, by ticker.
    observed
        The day on which they say it: a change since the last stored version becomes a version from that day.
    stored
        What ``raw/instruments`` holds now; None where it was never made.

    Returns
    -------
    pyarrow.Table
        Rows of ``raw/instruments``, no two of a ticker on the same day. Hand-made sectors stand over a provider's,
        whose scheme is not GICS, also in versions stored before the hand-made universe was corrected.
    """
    import pyarrow as pa

    from finance_assets.contracts.arrow import storage_schema

    names = INSTRUMENTS.column_names
    hand_made: dict[str, _Versions] = {}
    for row in known.to_pylist():
        # What lies after the clock is not known yet: neither a later version nor that this one will end.
        if row["valid_from"] <= observed:
            version = {name: row.get(name) for name in names}
            if version["valid_to"] is not None and version["valid_to"] > observed:
                version["valid_to"] = None
            hand_made.setdefault(row["symbol"], {})[row["valid_from"]] = version
    histories = {symbol: dict(versions) for symbol, versions in hand_made.items()}
    for row in stored.to_pylist() if stored is not None else []:
        history = histories.setdefault(row["symbol"], {})
        if row["valid_from"] not in history:
            by_hand = _current(hand_made.get(row["symbol"], {}), row["valid_from"])
            history[row["valid_from"]] = row | (
                {"gics_sector": by_hand["gics_sector"]} if by_hand and by_hand["gics_sector"] else {}
            )
    for symbol, overview in overviews.items():
        history = histories.setdefault(symbol, {})
        current = _current(history, observed)
        said = _from_overview(overview, current, observed)
        if current is None:
            history[observed] = said
        elif any(current[name] != said[name] for name in _OBSERVED):
            # The second look of a day corrects the first; there is one version a day.
            said["valid_to"] = current["valid_to"]
            history[observed] = said
    rows = [row for symbol in sorted(histories) for row in _closed(histories[symbol])]
    return pa.Table.from_pylist(rows, schema=storage_schema(INSTRUMENTS))


_Versions = dict[date, dict[str, Any]]
_OBSERVED = (
    "name",
    "instrument_type",
    "gics_sector",
    "provider_sector",
    "currency",
    "exchange",
    "eps",
    "pe_ratio",
)


def _current(versions: _Versions, day: date) -> dict[str, Any] | None:
    """Return the version that holds on ``day``."""
    begun = [valid_from for valid_from in versions if valid_from <= day]
    row = versions[max(begun)] if begun else None
    return None if row is None or (row["valid_to"] is not None and row["valid_to"] <= day) else row


def _closed(versions: _Versions) -> list[dict[str, Any]]:
    """Return the versions in order, each ended where the next one begins."""
    ordered = [versions[valid_from] for valid_from in sorted(versions)]
    following = [*(row["valid_from"] for row in ordered[1:]), None]
    return [
        row | {"valid_to": after if row["valid_to"] is None or (after and after < row["valid_to"]) else row["valid_to"]}
        for row, after in zip(ordered, following, strict=True)
    ]


def _from_overview(overview: Overview, current: dict[str, Any] | None, observed: date) -> dict[str, Any]:
    """Return a version as a provider states it; what it leaves out stays as it was, but for earnings."""
    before = current or {}
    gics = overview.sector if overview.sector_scheme == "GICS" else None
    return {
        "symbol": overview.symbol,
        "valid_from": observed,
        "valid_to": None,
        "name": overview.name or before.get("name") or overview.symbol,
        "instrument_type": (
            overview.instrument_type
            if overview.instrument_type in ("equity", "index")
            else before.get("instrument_type") or "equity"
        ),
        "gics_sector": gics or before.get("gics_sector"),
        "provider_sector": overview.sector if overview.sector_scheme != "GICS" else before.get("provider_sector"),
        "currency": overview.currency or before.get("currency") or "USD",
        "exchange": overview.exchange or before.get("exchange"),
        "eps": overview.eps,
        "pe_ratio": None if overview.pe_ratio is None else float(overview.pe_ratio),
        "source": f"{overview.provider} overview, {overview.request}",
    }
