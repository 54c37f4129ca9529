"""What the reading of one landed file may cost.

Belongs here: the limits on what comes out of a file, and the one account of them for a file and everything in it. A
budget is opened where the bytes of a landed file enter the reader; archives, members, workbooks, sheets and tables
all draw on it, so that many small pieces cost no more than one large one.

Limits on what is held in memory are constants. Limits on what may honestly grow with a file (bytes taken out of
archives, cells that a sheet does not write out, values of Parquet, processor time) grow with its size. Processor time
is that of the threads which read the file, not time on the clock: a busy machine rejects nothing. What is allowed is
several times what the slowest good file of its size needs, so that a slow processor rejects nothing either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import NamedTuple

from finance_assets.advisory.reading.rejection import FileRejected

MAX_EXPANDED = 1 << 30
"""Most bytes that archives may expand to, workbooks and other archives within them included."""
MAX_RATIO = 150
"""Most bytes out for one byte that landed, once more than `RATIO_FLOOR` bytes are out."""
RATIO_FLOOR = 1 << 20
MAX_MEMBERS = 500
"""Most members of one archive, and of all archives of a delivery that are not workbooks."""
MAX_PARTS = 20_000
"""Most parts of all workbooks of a delivery."""
MAX_SHEETS = 2000
MAX_TABLES = 1000
"""Most tables: each is interpreted by itself."""
MAX_ROWS = 1 << 20
"""Most rows of sheets: those of the largest sheet that a spreadsheet has."""
MAX_CELLS = 20_000_000
"""Most cells that are held one by one: of sheets, of nested documents, and of text that has no plain columns. The empty
ones before the last of a row count."""
IMPLIED_FLOOR = 200_000
"""So many cells may always be held that a sheet does not write out one by one: those of repeated rows and columns, and
the empty ones before the last of a row."""
IMPLIED_PER_BYTE = 8
"""Most of them for one byte that landed, beyond the floor; sheets have less than one, sparse ones two or three."""
IMPLIED_PER_ROW = 8
"""How many of them a repeated row counts for, beside its cells: a row costs as much as so many cells."""
MAX_CHARACTERS = 1 << 29
"""Most characters of text that cells hold together; text that repeats counts as often as it stands there."""
MAX_ELEMENTS = 60_000_000
"""Most elements of XML: three for each cell that there may be."""
ELEMENTS_FLOOR = 1_000_000
ELEMENTS_PER_BYTE = 4
"""Most elements for one byte that landed, beyond the floor; packed workbooks have one or two."""
MAX_OBJECTS = 5_000_000
"""Most objects and lists of JSON."""
OBJECTS_FLOOR = 200_000
BYTES_PER_OBJECT = 8
"""Fewest bytes of text for each of them, beyond the floor."""
MAX_RECORDS = 40_000_000
"""Most records of binary workbooks."""
VALUES_FLOOR = 1 << 24
"""So many bytes of Parquet values may always come out of a file; beyond, `MAX_RATIO` holds."""
CPU_BASE = 60.0
"""Seconds of processor time that every file may take. Small files take less than one on a slow machine."""
CPU_PER_LANDED_MB = 10.0
"""Seconds more for each megabyte that landed. The slowest format, a workbook, takes six."""
CPU_PER_EXPANDED_MB = 2.0
"""Seconds more for each megabyte that came out of archives, up to `CPU_EXPANDED_MOST`. JSON takes
less than one."""
CPU_EXPANDED_MOST = 600.0

_MEGABYTE = 1 << 20


class OverBudget(FileRejected):
    """A landed file, with all that is in it, would cost more than is spent on it; the rest of it is not read either."""


class _Limit(NamedTuple):
    reason: str
    most: int
    what: str
    advice: str


_SPLIT = "split the file and deliver the parts"
_LIMITS = {
    "members": _Limit("too_many_members", MAX_MEMBERS, "members of archives", "deliver them in several archives"),
    "parts": _Limit("too_many_members", MAX_PARTS, "parts of workbooks", _SPLIT),
    "sheets": _Limit("too_many_sheets", MAX_SHEETS, "sheets", "split the workbook"),
    "tables": _Limit("too_many_tables", MAX_TABLES, "tables with a header of their own", _SPLIT),
    "rows": _Limit("too_many_rows", MAX_ROWS, "rows of sheets", f"{_SPLIT}, or deliver text or Parquet"),
    "cells": _Limit("too_many_cells", MAX_CELLS, "cells", f"{_SPLIT}, or deliver one plain table as text or Parquet"),
    "implied": _Limit(
        "too_many_cells",
        MAX_CELLS,
        "cells of repeated rows, repeated columns and gaps within rows",
        "write each row once, without wide gaps, or deliver one plain table as text or Parquet",
    ),
    "characters": _Limit("too_much_text", MAX_CHARACTERS, "characters of text in cells", _SPLIT),
    "elements": _Limit("xml_too_large", MAX_ELEMENTS, "elements of XML", _SPLIT),
    "objects": _Limit("too_many_objects", MAX_OBJECTS, "objects and lists of JSON", f"{_SPLIT}, or deliver Parquet"),
    "records": _Limit("too_many_cells", MAX_RECORDS, "records of a binary workbook", _SPLIT),
}
#: What is given back when the same content is read again.
_HELD = ("tables", "rows", "cells", "implied", "characters")


class Budget:
    """What may still be taken out of one landed file; any thread may draw on it.

    Parameters
    ----------
    landed
        Size of the file in bytes.
    """

    def __init__(self, landed: int) -> None:
        self.landed = landed
        self.expanded = 0
        self.cpu_seconds = 0.0
        self._used = dict.fromkeys(_LIMITS, 0)
        self._values = 0
        self._lock = threading.Lock()
        self._thread = threading.local()
        self.tick()

    def used(self, what: str) -> int:
        """Return how much was taken of a resource.

        Parameters
        ----------
        what
            ``members``, ``parts``, ``sheets``, ``tables``, ``rows``, ``cells``, ``implied`` (cells that a sheet does
            not write out), ``characters``, ``elements``, ``objects`` or ``records``.
        """
        return self._used[what]

    def take(self, what: str, count: int = 1) -> None:
        """Take some of a resource (see :meth:`used`).

        Raises
        ------
        OverBudget
            There is not so much left; with how much was asked for, and what can be done.
        """
        with self._lock:
            self._used[what] += count
            used = self._used[what]
        if used > self.most(what):
            self._refuse(what, used)

    def need(self, what: str, count: int) -> None:
        """Refuse, before anything is built, what would take more of a resource than is left; takes nothing."""
        if self._used[what] + count > self.most(what):
            self._refuse(what, self._used[what] + count)

    def most(self, what: str) -> int:
        """Return how much of a resource (see :meth:`used`) the file may take altogether."""
        most = _LIMITS[what].most
        if what == "elements":
            return min(most, max(ELEMENTS_FLOOR, ELEMENTS_PER_BYTE * self.landed))
        if what == "implied":
            return min(most, max(IMPLIED_FLOOR, IMPLIED_PER_BYTE * self.landed))
        if what == "objects":
            return min(most, max(OBJECTS_FLOOR, (self.landed + self.expanded) // BYTES_PER_OBJECT))
        return most

    def _refuse(self, what: str, used: int) -> None:
        limit = _LIMITS[what]
        raise OverBudget(
            limit.reason,
            f"the file has {used:,} {limit.what} or more, and {self.most(what):,} are read: {limit.advice}",
        )

    def take_cells(self, count: int, characters: int = 0) -> None:
        """Take cells and the characters that are in them."""
        self.take("cells", count)
        self.take("characters", characters)

    def take_expanded(self, count: int) -> None:
        """Take bytes that come out of an archive.

        Raises
        ------
        OverBudget
            ``decompression_bomb``.
        """
        with self._lock:
            self.expanded += count
        self._check_expanded(self.expanded)

    def need_expanded(self, count: int) -> None:
        """Refuse an archive that states more bytes than may still come out; takes nothing."""
        self._check_expanded(self.expanded + count)

    def _check_expanded(self, expanded: int) -> None:
        most = min(MAX_EXPANDED, max(RATIO_FLOOR, MAX_RATIO * self.landed))
        if expanded > most:
            raise OverBudget(
                "decompression_bomb",
                f"{expanded:,} bytes or more come out of {self.landed:,}, and {most:,} are taken out of a file of this "
                f"size: {_SPLIT}, or deliver it uncompressed",
            )

    def take_values(self, size: int) -> None:
        """Take bytes of values that a Parquet file gives.

        Raises
        ------
        OverBudget
            ``decompression_bomb``.
        """
        with self._lock:
            self._values += size
        self.need_values(0)

    def need_values(self, size: int) -> None:
        """Refuse a Parquet file that states more bytes of values than may still come out; takes nothing."""
        most = max(VALUES_FLOOR, MAX_RATIO * self.landed)
        if self._values + size > most:
            raise OverBudget(
                "decompression_bomb",
                f"{self._values + size:,} bytes of values come out of {self.landed:,}, and {most:,} are taken out of "
                f"a Parquet file of this size: {_SPLIT}",
            )

    @property
    def most_cpu_seconds(self) -> float:
        """How much processor time the file may take."""
        from_expanded = min(CPU_EXPANDED_MOST, CPU_PER_EXPANDED_MB * self.expanded / _MEGABYTE)
        return CPU_BASE + CPU_PER_LANDED_MB * self.landed / _MEGABYTE + from_expanded

    def tick(self) -> None:
        """Count the processor time of this thread since it was here last; called between units of work.

        Raises
        ------
        OverBudget
            ``too_slow_to_read``.
        """
        now = time.thread_time()
        before = getattr(self._thread, "before", now)
        self._thread.before = now
        with self._lock:
            self.cpu_seconds += now - before
        if self.cpu_seconds > self.most_cpu_seconds:
            raise OverBudget(
                "too_slow_to_read",
                f"reading took {self.cpu_seconds:.0f} seconds of processor time, and {self.most_cpu_seconds:.0f} are "
                f"spent on a file of {self.landed:,} bytes: {_SPLIT}, or deliver one plain table as text or Parquet",
            )

    @contextmanager
    def looking(self) -> Iterator[None]:
        """Give back, after a first look at the content, what was held in memory for it."""
        before = {what: self._used[what] for what in _HELD}
        try:
            yield
        finally:
            self._used |= before

    @contextmanager
    def again(self) -> Iterator[None]:
        """Give back, after a step that failed, what was held in memory for it; the next step reads the same content."""
        before = {what: self._used[what] for what in _HELD}
        values = self._values
        try:
            yield
        except BaseException:
            self._used |= before
            self._values = values
            raise


_current: ContextVar[Budget | None] = ContextVar("budget", default=None)


def current_budget() -> Budget:
    """Return the budget of the file that is being read; where a step is called by itself, one of its own."""
    return _current.get() or Budget(1 << 30)


@contextmanager
def spending(budget: Budget) -> Iterator[Budget]:
    """Let everything that this thread reads inside draw on a budget."""
    token = _current.set(budget)
    try:
        yield budget
    finally:
        _current.reset(token)
