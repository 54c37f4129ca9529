"""Checks of the advisory branch beyond the contracts: whether every file was dealt with.

What belongs here: questions about a table as a whole. Rules on rows are in the contracts.
"""

import dagster as dg

from finance_assets import dagster_output
from finance_assets.advisory.intake import Intake
from finance_assets.contracts.advisory import VENDOR_FILES
from finance_assets.text import escape_name

#: Files that a description names.
LISTED = 10


@dg.asset_check(
    asset=dg.AssetKey(VENDOR_FILES.asset_key),
    description="The reader was given up on no file. What is wrong in a file is no concern of this check.",
)
def no_file_given_up(intake: dg.ResourceParam[Intake]) -> dg.AssetCheckResult:
    """Fail for as long as a file is given up; say how many wait for a fault to be over."""
    now = intake.look().unread
    named = [f"{escape_name(one.identity.key)} ({one.reason})" for one in now.given_up[:LISTED]]
    said = "no file was given up"
    if named:
        said = (
            f"the reader failed on {len(now.given_up)} files: {'; '.join(named)}; finance-assets vendors quarantine "
            "shows them, and vendors retry tries them again"
        )
    if now.waiting:
        said += f"; {len(now.waiting)} files wait for a fault to be over"
    return dagster_output.asset_check(
        passed=not now.given_up,
        description=said,
        metadata={"given_up": len(now.given_up), "waiting": len(now.waiting), "refused": len(now.refused)},
    )
