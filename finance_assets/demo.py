"""The sample data of the demo: vendor files in the landing zone and simulated payments in a local queue."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from finance_assets.contracts.market import QUOTES_RAW
from finance_assets.contracts.transactions import RAW_TRANSACTIONS
from finance_assets.partitions import partition_days
from finance_assets.reference.sample_period import SAMPLE_END, SAMPLE_NOW
from finance_assets.resources import build_lake
from finance_assets.settings import Settings
from finance_assets.transactions.aws import AwsError
from finance_assets.transactions.resources import build_transaction_intake

if TYPE_CHECKING:
    from rich.console import Console

#: The simulated payments: one every twenty minutes for thirty days.
SAMPLE_TRANSACTIONS = 2160
SAMPLE_TRANSACTION_STEP = timedelta(minutes=20)
SAMPLE_TRANSACTION_SEED = 2013
SAMPLE_BAD_RATE = 0.05


def land_sample_files(settings: Settings) -> None:
    """Copy the files of the fictitious vendors into the landing zone, if it is a local folder."""
    from finance_assets.advisory.intake import drop_sample_files

    if not settings.landing.startswith("s3://"):
        drop_sample_files(Path(settings.landing) / "sample")


@contextlib.contextmanager
def sample_queue(settings: Settings, console: Console) -> Iterator[Settings]:
    """Run a local queue with simulated transactions for the length of a block; yield settings that name the queue.

    A configured queue is not filled, because simulated payments do not belong in it. A lake that already has
    transactions gets no more, so that a second demo changes nothing. If no local queue can be started, a note says so
    and the demo continues without transactions.
    """
    from finance_assets.terminal_output import shown_message as escape
    from finance_assets.transactions import local_queue

    with contextlib.ExitStack() as stack:
        if settings.transactions_queue_url is None:
            try:
                local = stack.enter_context(local_queue.run_local_queue(settings.home_dir / local_queue.FOLDER_NAME))
                settings = settings.model_copy(
                    update={
                        "transactions_queue_url": local.queue_url,
                        "transactions_dlq_url": local.dead_letters_url,
                        "transactions_table": local.table,
                    }
                )
                _send_sample_transactions(settings)
            except (local_queue.LocalQueueError, AwsError) as error:
                console.print(f"[yellow]note:[/yellow] no transactions: {escape(str(error))}", soft_wrap=True)
        yield settings


def _send_sample_transactions(settings: Settings) -> None:
    """Send thirty days of simulated payments to the queue, unless the queue or the lake already has some."""
    from itertools import islice

    from finance_assets.transactions.producing import messages

    intake = build_transaction_intake(settings)
    if intake.queue is None or intake.lake.partitions(RAW_TRANSACTIONS) or intake.depth().total:
        return
    first = SAMPLE_NOW - SAMPLE_TRANSACTION_STEP * SAMPLE_TRANSACTIONS
    made = messages(SAMPLE_TRANSACTION_SEED, first, bad_rate=SAMPLE_BAD_RATE, step=SAMPLE_TRANSACTION_STEP)
    intake.queue.send(each.body for each in islice(made, SAMPLE_TRANSACTIONS))


def newest_live_session(settings: Settings) -> date | None:
    """Return the newest session in the lake after the end of the sample; None if there is none.

    Such a session comes from a live provider, and the sample would overwrite the sessions before it.
    """
    newest = partition_days(build_lake(settings).partitions(QUOTES_RAW)[-1:])
    return newest[0] if newest and newest[0] > SAMPLE_END else None
