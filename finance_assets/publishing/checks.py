"""Asset checks of the published layer that read what readers read.

What belongs here: the contract of documents, which are no Parquet. A check of its own, not one inside the asset: where
one run holds an asset with such a check together with dbt models, Dagster leaves the models' tests out.
"""

import dagster as dg
import pyarrow as pa

from finance_assets.contracts.arrow import storage_schema
from finance_assets.contracts.dagster_metadata import CHECK_NAME, check_result
from finance_assets.contracts.publishing import TICKER_DOCUMENTS
from finance_assets.contracts.validation import Violation
from finance_assets.publishing.documents import DOCUMENT_SUFFIX, document_name, document_row
from finance_assets.storage.lake import Lake

#: Name of the rule that a file is a document at all.
DOCUMENT_RULE = "every file is a document of its ticker"


@dg.asset_check(
    asset=dg.AssetKey(TICKER_DOCUMENTS.asset_key),
    name=CHECK_NAME,
    blocking=True,
    description="Every stored document bears its ticker's name and keeps the promises of its contract.",
)
def ticker_documents_honour_contract(lake: dg.ResourceParam[Lake]) -> dg.AssetCheckResult:
    """Read every document back, as a reader would."""
    rows, unreadable = [], []
    for path in lake.list(lake.folder(TICKER_DOCUMENTS), suffix=DOCUMENT_SUFFIX):
        name = path.rsplit("/", 1)[-1]
        try:
            row = document_row(lake.get(path))
            if name != document_name(row["symbol"]):
                raise ValueError(f"it is the document of {row['symbol']}")
        except ValueError as error:
            unreadable.append(f"{name}: {error}")
        else:
            rows.append(row)
    found = [Violation(DOCUMENT_RULE, len(unreadable), unreadable[0])] if unreadable else []
    return check_result(TICKER_DOCUMENTS, pa.Table.from_pylist(rows, schema=storage_schema(TICKER_DOCUMENTS)), found)
