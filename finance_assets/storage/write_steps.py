"""One writer at a time, for Dagster's steps.

What belongs here: telling whoever looks at a run, in the UI or a terminal, which writer it waits for.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import dagster as dg

from finance_assets.contracts.model import Contract
from finance_assets.dagster_output import log
from finance_assets.storage.lake import Lake
from finance_assets.storage.writers import single_writer

_listeners: list[Callable[[str], object]] = []


@contextmanager
def sole_writer(lake: Lake, name: str, *tables: Contract) -> Iterator[None]:
    """Hold the right to write some tables while a part of a step lasts.

    What is read to be written again is read inside the block. An asset whose table an IO manager writes yields its
    result inside the block: Dagster writes it before it goes on with the asset.

    Parameters
    ----------
    lake
        The lake.
    name
        What the right is called; whoever writes one of the tables uses the same name.
    tables
        The tables.

    Raises
    ------
    WriterBusyError
        Another process kept the right for as long as the settings let a run wait.
    """
    try:
        context: dg.OpExecutionContext | None = dg.OpExecutionContext.get()
    except dg.DagsterInvariantViolationError:
        context = None

    def tell(text: str) -> None:
        if context is not None:
            log(context).warning(text)
        for listener in tuple(_listeners):
            listener(text)

    with single_writer(lake, name, tables, run=context.run_id if context is not None else "", tell=tell):
        yield


@contextmanager
def report_waits_to(listener: Callable[[str], object]) -> Iterator[None]:
    """Tell ``listener`` too what steps of this process wait for, while the block lasts."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)
