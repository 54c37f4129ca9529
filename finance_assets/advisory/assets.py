"""Assets of the advisory branch: what vendors sent, what is known, what it comes to, and what does not agree.

What belongs here: thin Dagster assets that read inputs, call the maths beside them and hand over tables.
"""

from collections.abc import Iterator
from typing import Any

import dagster as dg

from finance_assets import dagster_output
from finance_assets.advisory.intake import Intake
from finance_assets.advisory.results import WRITTEN_BY_ONE, History, breaks_now, completeness_now, write_performance
from finance_assets.contracts.advisory import (
    ACCOUNT_PERFORMANCE,
    PERFORMANCE_HISTORY,
    QUARANTINED_FILES,
    QUARANTINED_ROWS,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
    VENDOR_FILES,
    VENDOR_ROWS,
)
from finance_assets.contracts.dagster_metadata import asset_attributes
from finance_assets.contracts.model import Contract
from finance_assets.reference import pools
from finance_assets.storage.lake import Lake
from finance_assets.storage.write_steps import sole_writer
from finance_assets.text import code_span, escape_markdown, escape_name

#: One run at a time reads files or extends the history: the order in which files become known matters.
#: Files that metadata name.
LISTED = 50

_RAW = {
    VENDOR_FILES: "Every file that a vendor sent: what it was taken for and what became of it; from the landing zone.",
    VENDOR_ROWS: "Rows of accepted files in the canonical form, exact decimals, each with file and physical line.",
    QUARANTINED_ROWS: "Records that could not be read or whose meaning is not sure, with line and reason.",
    QUARANTINED_FILES: "Files of which nothing was loaded, with the reason and what to do about it.",
}


def _spec(contract: Contract, description: str, *deps: Contract) -> dg.AssetSpec:
    attributes = asset_attributes(contract)
    return dg.AssetSpec(**attributes, description=description, deps=[dg.AssetKey(dep.asset_key) for dep in deps])


@dg.multi_asset(
    name="vendor_intake",
    specs=[_spec(contract, text) for contract, text in _RAW.items()],
    pool=pools.ADVISORY,
)
def vendor_intake(
    context: dg.AssetExecutionContext, intake: dg.ResourceParam[Intake], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Any]]:
    """Read every file that is whole and not yet dealt with; keep its bytes, its rows and what is wrong with it."""
    with sole_writer(lake, *WRITTEN_BY_ONE):
        pending = intake.pending(settle=True)
        taken = intake.take(pending, log=dagster_output.log(context).info)
    told = "\n".join(
        f"- {code_span(one.key)}: {one.action}"
        + (f" ({escape_markdown(one.reason)})" if one.reason else "")
        + f", {one.rows} rows"
        for one in taken[:LISTED]
    )
    for contract in _RAW:
        yield dagster_output.materialized(
            asset_key=dg.AssetKey(contract.asset_key),
            metadata={
                "dagster/row_count": sum(lake.row_counts(contract).values()),
                "files_read": len(taken),
                "rows_read": sum(one.rows for one in taken),
                "rows_quarantined": sum(one.quarantined for one in taken),
                "files": dagster_output.markdown(told or "no new file"),
                "uri": lake.scan_address(contract),
            },
        )
    failed = [one for one in taken if one.action == "failed"]
    if failed:
        left = len(pending) - len(taken)
        others = "the others were" if not left else f"{left} others wait, since they would meet the same"
        raise dagster_output.failure(
            f"{len(failed)} files could not be dealt with, {others}: "
            + "; ".join(f"{escape_name(one.key)}: {one.reason}" for one in failed[:LISTED]),
            allow_retries=False,
        )


@dg.asset(
    **asset_attributes(PERFORMANCE_HISTORY),
    deps=[dg.AssetKey(VENDOR_FILES.asset_key), dg.AssetKey(VENDOR_ROWS.asset_key)],
    pool=pools.ADVISORY,
)
def performance_history(
    context: dg.AssetExecutionContext, intake: dg.ResourceParam[Intake], lake: dg.ResourceParam[Lake]
) -> dg.MaterializeResult[Any]:
    """Every version of what a vendor says of an account and period, append-only, with valid and known time."""
    added = 0
    with sole_writer(lake, *WRITTEN_BY_ONE):
        history = History(lake)
        for line, versions in history.add_all(intake.unknown_to_history()):
            dagster_output.log(context).info(
                f"{escape_name(line['landing_key'])}: {versions} of {line['row_count']} rows say something new"
            )
            added += versions
    return dagster_output.materialized(
        metadata={
            "dagster/row_count": sum(lake.row_counts(PERFORMANCE_HISTORY).values()),
            "versions_added": added,
            "uri": lake.scan_address(PERFORMANCE_HISTORY),
        }
    )


@dg.asset(
    **asset_attributes(ACCOUNT_PERFORMANCE),
    deps=[dg.AssetKey(PERFORMANCE_HISTORY.asset_key)],
    pool=pools.ADVISORY,
)
def account_performance(intake: dg.ResourceParam[Intake], lake: dg.ResourceParam[Lake]) -> dg.MaterializeResult[Any]:
    """One row per vendor, account, grain and period: flows, roll-forward, time-weighted returns linked in chains."""
    with sole_writer(lake, *WRITTEN_BY_ONE):
        written = write_performance(lake, intake.contracts)
    return dagster_output.materialized(
        metadata={
            "dagster/row_count": written.rows,
            "months_rewritten": len(written.months),
            "first_month_rewritten": min(written.months, default=None),
            "uri": lake.scan_address(ACCOUNT_PERFORMANCE),
        }
    )


@dg.asset(
    **asset_attributes(RECONCILIATION_BREAKS),
    deps=[dg.AssetKey(ACCOUNT_PERFORMANCE.asset_key), dg.AssetKey(PERFORMANCE_HISTORY.asset_key)],
    pool=pools.ADVISORY,
    io_manager_key="lake_io_manager",
)
def reconciliation_breaks(lake: dg.ResourceParam[Lake]) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per disagreement about an account and period, with its explanation, age and status; from performance."""
    with sole_writer(lake, *WRITTEN_BY_ONE):
        table = breaks_now(lake)
        by_status = table.group_by("status").aggregate([("break_id", "count")]).to_pylist()
        yield dagster_output.materialized(
            value=table, metadata={row["status"]: row["break_id_count"] for row in by_status}
        )


@dg.asset(
    **asset_attributes(VENDOR_COMPLETENESS),
    deps=[dg.AssetKey(PERFORMANCE_HISTORY.asset_key)],
    pool=pools.ADVISORY,
    io_manager_key="lake_io_manager",
)
def vendor_completeness(
    intake: dg.ResourceParam[Intake], lake: dg.ResourceParam[Lake]
) -> Iterator[dg.MaterializeResult[Any]]:
    """One row per vendor, grain and month: accounts and files expected against those received; from the history."""
    with sole_writer(lake, *WRITTEN_BY_ONE):
        yield dagster_output.materialized(value=completeness_now(lake, intake.contracts))
