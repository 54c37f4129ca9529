"""Contracts of the advisory branch: what vendors sent, what was kept of it, and the performance computed from it.

What belongs here: one contract per table of the group ``advisory``. Money is ``amount`` and stated returns are
``rate``, both exact decimals; only returns that the platform computes are floats.
"""

from __future__ import annotations

from finance_assets.contracts.model import Column, Contract, Layer, Partitioning, RowRule
from finance_assets.reference.flow_timings import TIMINGS

GROUP = "advisory"
GRANULARITIES = ("daily", "monthly", "quarterly")
ACTIONS = ("accept", "accept_with_warnings", "quarantine_file", "skip_duplicate")

_FILE = Column(
    "file_sha256", "string", "hex digits", "SHA-256 of the bytes as they came; they lie in the lake under it."
)
_RECEIVED = Column(
    "received_ts_utc",
    "timestamp",
    "UTC",
    "When the file was received: its time of modification, or when it was read where that is no time to go by.",
)
_VENDOR = Column(
    "vendor",
    "string",
    "text",
    "Name of the vendor's contract, or detected:… for a layout that was proved by content alone.",
)
_CONTRACT_VERSION = Column(
    "contract_version", "int32", "version", "Version of the vendor's contract; null where none was needed.", True
)
_MEMBER = Column(
    "member", "string", "text", "File inside an archive, or sheet of a workbook; empty where there is none."
)
_LINE = Column("line", "int64", "physical line", "Line or row in the file, counted from 1, on which the record begins.")
_ACCOUNT = Column("account_id", "string", "text", "Account as the vendor writes it, trimmed; leading zeros kept.")
_GRANULARITY = Column(
    "granularity",
    "string",
    "enumeration",
    "Length of the period. Grains are never chained together.",
    allowed=GRANULARITIES,
)
_PERIOD_END = Column("period_end", "date", "date", "Last calendar day of the period.")
_PERIOD_START = Column(
    "period_start", "date", "date", "First day of the period where the vendor states it, else null.", True
)
_CURRENCY = Column(
    "currency", "string", "ISO 4217", "Currency of all amounts of the row; null where nobody states it.", True
)
_BEGINNING = Column(
    "beginning_market_value", "amount", "currency", "Market value at the beginning of the period.", True
)
_ENDING = Column("ending_market_value", "amount", "currency", "Market value at the end of the period.", True)
_NET_FLOW = Column(
    "net_flow",
    "amount",
    "currency",
    "External flow, in minus out. Stated, or contributions less distributions where both are.",
    True,
)

#: What a vendor's row says, in the canonical form.
_STATED = (
    _BEGINNING,
    Column("contributions", "amount", "currency", "External flow in; null where only a net flow is stated.", True, 0),
    Column("distributions", "amount", "currency", "External flow out, as a positive amount; null as above.", True, 0),
    _NET_FLOW,
    _ENDING,
    Column("fees", "amount", "currency", "Fees taken out of the account, as a positive amount.", True),
    Column("income", "amount", "currency", "Dividends and interest inside the account.", True),
    Column("appreciation", "amount", "currency", "Realised and unrealised gains.", True),
    Column("other_adjustments", "amount", "currency", "Whatever else the vendor counts, signed.", True),
    Column("return_net", "rate", "fraction", "Return net of fees as the vendor states it.", True, -1),
    Column("return_gross", "rate", "fraction", "Return before fees as the vendor states it.", True, -1),
    Column("benchmark_return", "rate", "fraction", "Return of the benchmark as the vendor states it.", True, -1),
)
_STATED_END = Column(
    "stated_period_end", "date", "date", "Period end as the file says it, where it was normalised, else null.", True
)
_FLAGS = Column("flags", "string", "codes", "What was normalised or is suspicious in the row, separated by ;.")


def _vendor_row_columns(version: str) -> tuple[Column, ...]:
    """Return the columns of a vendor's row: the same in raw and in the history, which may then be one file."""
    return (
        _VENDOR,
        _ACCOUNT,
        _GRANULARITY,
        _PERIOD_END,
        _RECEIVED,
        Column("version", "int32", "count", version, minimum=1),
        _PERIOD_START,
        _STATED_END,
        _CURRENCY,
        *_STATED,
        _FLAGS,
        _FILE,
        _MEMBER,
        _LINE,
        _CONTRACT_VERSION,
    )


VENDOR_FILES = Contract(
    layer=Layer.RAW,
    name="vendor_files",
    group=GROUP,
    grain="One file that a vendor sent, by its content.",
    description="Every file that landed, what it was taken for, and what became of it; the bytes are kept by hash.",
    source="The landing folder or bucket.",
    partitioning=Partitioning.ARRIVAL,
    columns=(
        _FILE,
        Column("landing_key", "string", "text", "Path below the landing folder, or the object's key."),
        Column("size_bytes", "int64", "bytes", "Length of the file.", minimum=0),
        _RECEIVED,
        _VENDOR,
        _CONTRACT_VERSION,
        Column("action", "string", "enumeration", "What became of the file.", allowed=ACTIONS),
        Column("file_reason", "string", "code", "Why the file is in quarantine; null where it is not.", True),
        Column("warnings", "string", "codes", "What was noticed, separated by ;."),
        Column("row_count", "int64", "rows", "Rows that were loaded.", minimum=0),
        Column("quarantined_count", "int64", "rows", "Rows that were quarantined.", minimum=0),
        Column("skipped", "string", "text", "Lines that are no records (titles, totals, blank), as reason=count;…."),
        Column("detection_score", "float64", "score", "How sure the detection was; null with a contract.", True),
        Column("runner_up", "string", "text", "What else it could have been, with its score.", True),
    ),
    key=("file_sha256",),
)

VENDOR_ROWS = Contract(
    layer=Layer.RAW,
    name="vendor_rows",
    group=GROUP,
    grain="One account and period, as one line of one file states it.",
    description="Rows of accepted files in the canonical form, each with the line it came from.",
    source="raw/vendor_files.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=_vendor_row_columns("1: a file states a fact once. The history counts on, from file to file."),
    key=("file_sha256", "member", "line", "account_id", "period_end"),
    # By month, as files come and as performance is computed; the history has them so too.
    sort_by=("vendor", "period_end", "account_id", "granularity"),
)

QUARANTINED_ROWS = Contract(
    layer=Layer.RAW,
    name="quarantined_rows",
    group=GROUP,
    grain="One record of a file that could not be read, or whose meaning is not sure.",
    description="Rows that were left out, with line and reason. The file's bytes are kept; a replay reads them again.",
    source="raw/vendor_files.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=(
        _FILE,
        Column("ordinal", "int32", "position", "Counts the quarantined rows of the file.", minimum=0),
        _MEMBER,
        _LINE,
        Column(
            "account_id",
            "string",
            "text",
            "Account, where it could be read; none that may hold a piece of another cell.",
            True,
        ),
        Column("reason", "string", "code", "Why the row was left out."),
        Column("detail", "string", "text", "The column and what is wrong with it; never personal data."),
        _VENDOR,
        Column("landing_key", "string", "text", "The file's path below the landing folder."),
        _RECEIVED,
    ),
    key=("file_sha256", "ordinal"),
)

QUARANTINED_FILES = Contract(
    layer=Layer.RAW,
    name="quarantined_files",
    group=GROUP,
    grain="One file, or other entry of the landing zone, of which nothing was loaded.",
    description=(
        "Files that are suspect as a whole, and what of the landing zone is not read: entries that are no files, files "
        "on which the reader failed, and those that a fault keeps waiting; with the reason and what to do about it."
    ),
    source="raw/vendor_files.",
    partitioning=Partitioning.ARRIVAL,
    sparse=True,
    columns=(
        Column(
            "file_sha256",
            "string",
            "hex digits",
            "SHA-256 of the bytes as they came; of what names the entry where its bytes were not read.",
        ),
        Column(
            "landing_key",
            "string",
            "text",
            "Path below the landing folder, or the object's key; escaped with \\ where it was not read.",
        ),
        Column("size_bytes", "int64", "bytes", "Length of the file; 0 where it is not known.", minimum=0),
        Column("received_ts_utc", "timestamp", "UTC", "When the file was received, or first found not to be read."),
        _VENDOR,
        Column("reason", "string", "code", "Why nothing was loaded: a code, and after a colon what else is known."),
        Column("what_to_do", "string", "text", "How it can be mended and replayed."),
    ),
    key=("file_sha256",),
)

PERFORMANCE_HISTORY = Contract(
    layer=Layer.CORE,
    name="performance_history",
    group=GROUP,
    grain="One version of what a vendor says of one account and period.",
    description=(
        "Append-only and bitemporal: the period is when it holds, received_ts_utc is since when we know it. A "
        "correction is a new version; a row that says again what is known adds none. The newest version up to an "
        "instant is the state at that instant."
    ),
    source="raw/vendor_rows.",
    append_only=True,
    partitioning=Partitioning.ARRIVAL,
    columns=_vendor_row_columns("1 for the first thing known of the account and period, 2 for the next."),
    key=("vendor", "account_id", "granularity", "period_end", "version"),
    sort_by=("vendor", "period_end", "account_id", "granularity", "version"),
    rules=(
        RowRule(
            "flows_agree",
            "contributions is null or distributions is null or net_flow = contributions - distributions",
            "The net flow is contributions less distributions",
        ),
    ),
)

_TIMING_RULES = ("declared", "inception", "full_withdrawal", "no_capital")


def _amount(name: str, description: str) -> Column:
    return Column(name, "amount", "currency", description, True)


def _return(name: str, description: str) -> Column:
    return Column(name, "float64", "fraction", description, True)


ACCOUNT_PERFORMANCE = Contract(
    layer=Layer.CORE,
    name="account_performance",
    group=GROUP,
    grain="One account and period of one vendor and grain, as it is known now.",
    description=(
        "Flows, roll-forward and time-weighted returns under the vendor's declared flow timing, with those of other "
        "timings beside them, linked over each unbroken chain of periods."
    ),
    source="core/performance_history, the newest version of each fact.",
    partitioning=Partitioning.MONTH,
    partition_column="period_month",
    columns=(
        Column("period_month", "date", "date", "First day of the month in which the period ends; the partition."),
        _VENDOR,
        _ACCOUNT,
        _GRANULARITY,
        Column(
            "period_start",
            "date",
            "date",
            "First day: stated, or the first of the month or quarter, or the day itself.",
        ),
        _PERIOD_END,
        _CURRENCY,
        _BEGINNING,
        _amount("contributions", "Stated money in; null where only a net flow is stated."),
        _amount("distributions", "Stated money out, positive; null as above."),
        _NET_FLOW,
        _ENDING,
        _amount("fees", "Stated fees taken from the account."),
        _amount(
            "cumulative_net_flow",
            "Running sum of the net flows of the account; null from the first unknown flow or change of currency.",
        ),
        _amount("gain", "Ending value less beginning value less net flow, exact."),
        _amount(
            "rollforward_difference",
            "Beginning value, flow and stated components less ending value; null without a stated appreciation.",
        ),
        _amount("continuity_difference", "Beginning value less the ending value of the adjacent period before."),
        Column("gap_days", "int32", "days", "Days missing since the period before; null for the first.", True),
        Column("timing", "string", "enumeration", "Flow timing that was applied.", allowed=TIMINGS),
        Column("timing_rule", "string", "enumeration", "Why that timing.", allowed=_TIMING_RULES),
        Column(
            "policy_version",
            "string",
            "version",
            "The timing policy that holds at the end of the period: vendor, version of its contract, and after @ the "
            "day since when it holds, if one is declared; default-1 where nothing is.",
        ),
        _return("return_net_computed", "Return after fees under the applied timing, unrounded."),
        Column("return_status", "string", "enumeration", "Why the return is null, or not certified."),
        _return("return_sod", "The same period with flows at the start of the day."),
        _return("return_mid", "The same period with flows in the middle."),
        _return("return_eod", "The same period with flows at the end of the day."),
        _return("timing_spread", "Largest less smallest of the three: how much the timing matters."),
        Column("return_net", "rate", "fraction", "Net return as the vendor states it.", True),
        Column("return_gross", "rate", "fraction", "Gross return as the vendor states it.", True),
        Column("benchmark_return", "rate", "fraction", "Benchmark return as the vendor states it.", True),
        _return("return_gross_computed", "Return before the stated fees under the applied timing."),
        Column("return_gross_status", "string", "enumeration", "Why the gross return is null, or not certified."),
        Column("chain_id", "int32", "count", "Number of the unbroken chain of periods within the account.", True),
        Column("chain_start", "date", "date", "First day of the chain; null outside of one.", True),
        _return("cumulative_return_chain", "Linked return since the start of the chain: the track record."),
        _return("cumulative_return_all", "Linked over all rows that have a return, across breaks."),
        Column("cumulative_status", "string", "enumeration", "gap where the linked rows cross a break."),
        _return("annualised_return_chain", "The chain's return per year; null for less than a year."),
        Column("is_large_flow", "bool", "flag", "The flow reaches the policy's share of the beginning value.", True),
        Column("is_terminated", "bool", "flag", "All was withdrawn: the last row unless the account is funded again."),
        Column("is_partial", "bool", "flag", "The period starts inside its month or quarter."),
        Column("is_negative_value", "bool", "flag", "A value is negative, as with margin.", True),
        _CONTRACT_VERSION,
        _FILE,
        _MEMBER,
        _LINE,
        _RECEIVED,
    ),
    key=("period_month", "vendor", "account_id", "granularity", "period_end"),
)

_UNITS = ("money", "return", "days")

RECONCILIATION_BREAKS = Contract(
    layer=Layer.CORE,
    name="reconciliation_breaks",
    group=GROUP,
    grain="One disagreement about one account and period, followed from run to run.",
    description=(
        "What does not agree: stated and computed returns (1 basis point), roll-forward and continuity (2 cents), "
        "vendors with each other and with existing records, what is missing, extra, double or restated; each with the "
        "hypothesis that closes the gap or that the rows around it prove, if there is one."
    ),
    source="core/account_performance, core/performance_history.",
    columns=(
        Column(
            "break_id", "string", "hex digits", "The same from run to run: of code, vendor, account, grain and period."
        ),
        Column("code", "string", "code", "What kind of break it is; docs/metrics.md lists them."),
        Column("vendor", "string", "text", "Vendor whose row breaks."),
        _ACCOUNT,
        _GRANULARITY,
        _PERIOD_END,
        Column("other_vendor", "string", "text", "The second vendor, or existing; null where there is none.", True),
        Column("field", "string", "text", "Value that disagrees.", True),
        _CURRENCY,
        Column(
            "unit",
            "string",
            "enumeration",
            "What the numbers are: money, return (fraction) or days; null without any.",
            True,
            allowed=_UNITS,
        ),
        Column("stated", "exact", "see unit", "What the vendor states.", True),
        Column("computed", "exact", "see unit", "What it is compared with.", True),
        Column("difference", "exact", "see unit", "Stated less computed.", True),
        Column("tolerance", "exact", "see unit", "What would have been accepted.", True),
        Column(
            "hypothesis",
            "string",
            "code",
            "The first that closes the gap, or that the rows around prove; null where none does. See docs/metrics.md.",
            True,
        ),
        Column(
            "explanation", "string", "text", "What is known of it, and the hypothesis with its numbers and names.", True
        ),
        Column(
            "remaining",
            "exact",
            "see unit",
            "What the hypothesis leaves unexplained; null where it is about rows and not about an amount.",
            True,
        ),
        Column("status", "string", "enumeration", "Of the last run.", allowed=("open", "reopened", "resolved")),
        Column("first_seen", "timestamp", "UTC", "Known time of the data that first showed the break."),
        Column("last_seen", "timestamp", "UTC", "Known time of the data that last showed it."),
        Column("age_days", "int32", "days", "From first seen to the newest data, or to its resolution.", minimum=0),
        Column(
            "file_sha256", "string", "hex digits", "File of the row; null where it is the row that is missing.", True
        ),
        Column("line", "int64", "physical line", "Line of the row in its file; null as above.", True),
        Column("received_ts_utc", "timestamp", "UTC", "When the row became known; null as above.", True),
    ),
    key=("break_id",),
    sort_by=("vendor", "account_id", "granularity", "period_end", "code", "break_id"),
)

VENDOR_COMPLETENESS = Contract(
    layer=Layer.CORE,
    name="vendor_completeness",
    group=GROUP,
    grain="One vendor, grain and month.",
    description="Accounts and files that were expected against those that came: an account that drops off is seen.",
    source="core/performance_history and the rhythms of the vendors' contracts.",
    columns=(
        Column("vendor", "string", "text", "Vendor."),
        Column(
            "granularity", "string", "text", "Grain of the rows; none where a vendor with a rhythm sent no row yet."
        ),
        Column("period_month", "date", "date", "First day of the month that the rows are about."),
        Column(
            "accounts_expected",
            "int64",
            "accounts",
            "Accounts of the period before, without those withdrawn.",
            minimum=0,
        ),
        Column("accounts_received", "int64", "accounts", "Accounts of this period.", minimum=0),
        Column("accounts_missing", "int64", "accounts", "Expected and not received.", minimum=0),
        Column("accounts_new", "int64", "accounts", "Received and not in the period before.", minimum=0),
        Column("missing_accounts", "string", "text", "The missing ones, separated by commas; 100 at the most."),
        Column("files_expected", "int64", "files", "By the vendor's rhythm; null where it has none.", True, 0),
        Column("files_received", "int64", "files", "Files with a row of the period, corrections too.", minimum=0),
        Column("first_received_ts_utc", "timestamp", "UTC", "When the first row became known; null without one.", True),
        Column("last_received_ts_utc", "timestamp", "UTC", "When the last row became known; null without one.", True),
        Column(
            "status",
            "string",
            "enumeration",
            "What is missing.",
            allowed=("complete", "missing_accounts", "missing_files", "nothing_received"),
        ),
    ),
    key=("vendor", "granularity", "period_month"),
)

CONTRACTS = (
    VENDOR_FILES,
    VENDOR_ROWS,
    QUARANTINED_ROWS,
    QUARANTINED_FILES,
    PERFORMANCE_HISTORY,
    ACCOUNT_PERFORMANCE,
    RECONCILIATION_BREAKS,
    VENDOR_COMPLETENESS,
)
#: What the reading of a file fills, all at once.
RAW_TABLES = (VENDOR_FILES, VENDOR_ROWS, QUARANTINED_ROWS, QUARANTINED_FILES)
