"""Contracts of the market branch: quotes, instruments, corporate actions, ticker KPIs.

What belongs here: tables whose group is ``market``. Formulas are described where they are computed
(``finance_assets.market``); here stands what a value means.
"""

from __future__ import annotations

from finance_assets.contracts.model import Column, Contract, Layer, Partitioning, RowRule
from finance_assets.contracts.status import Status
from finance_assets.reference.anomalies import MODIFIED_Z_THRESHOLD

GROUP = "market"

PRICE_BASES = ("raw", "total_return_adjusted")
REJECTION_REASONS = (
    "unreadable_value",
    "missing_close",
    "missing_currency",
    "non_positive_price",
    "negative_volume",
    "high_below_low",
    "price_outside_range",
    "not_a_session",
    "duplicate",
)
STATUSES = tuple(str(status) for status in Status)

_SYMBOL = Column("symbol", "string", "ticker symbol", "Ticker as the exchange writes it; indices start with a caret.")
_SESSION = Column("session_date", "date", "exchange session", "Trading session of the exchange calendar.")
_CURRENCY = Column("currency", "string", "ISO 4217", "Currency of every price in the row; points for an index level.")
_PROVENANCE = (
    Column("provider", "string", "provider name", "Who supplied the row."),
    Column(
        "fetched_ts_utc",
        "timestamp",
        "UTC",
        "When the provider answered (for the sample: the sample's clock).",
    ),
    Column("request", "string", "text", "The request that brought the row, without its key."),
    Column(
        "response_sha256",
        "string",
        "sha256",
        "Address of the landed bytes the row was read from; null where the provider hands over no bytes.",
        nullable=True,
    ),
    Column(
        "fallback_reason",
        "string",
        "text",
        "Why providers earlier in the order did not supply the row; null where the first one did.",
        nullable=True,
    ),
)

TRADING_SESSIONS = Contract(
    layer=Layer.RAW,
    name="trading_sessions",
    group=GROUP,
    grain="One session of the exchange calendar.",
    description="The exchange calendar as a table, for SQL that may not generate a series.",
    source="exchange_calendars, calendar XNYS.",
    columns=(
        _SESSION,
        Column(
            "session_ordinal",
            "int32",
            "sessions",
            "Position of the session in the calendar, from 0.",
            minimum=0,
        ),
        Column("open_ts_utc", "timestamp", "UTC", "Opening of the regular session."),
        Column("close_ts_utc", "timestamp", "UTC", "Close of the session; early on half days."),
        Column("is_early_close", "bool", "true/false", "Whether the exchange closes early that day."),
    ),
    key=("session_date",),
    rules=(RowRule("closes_after_open", "close_ts_utc > open_ts_utc", "a session closes after it opens"),),
)

INSTRUMENTS = Contract(
    layer=Layer.RAW,
    name="instruments",
    group=GROUP,
    grain="One version of one instrument's description, valid from a date.",
    description="Names, sectors and listings, point in time: a reclassification is a new row, never an overwrite.",
    source="The hand-made universe shipped with the package, and each provider's company overview.",
    columns=(
        _SYMBOL,
        Column("valid_from", "date", "date", "First day on which this version holds."),
        Column(
            "valid_to",
            "date",
            "date",
            "First day on which it no longer holds; null while it does.",
            nullable=True,
        ),
        Column("name", "string", "text", "Name of the company or index."),
        Column("instrument_type", "string", "enumeration", "Equity or index.", allowed=("equity", "index")),
        Column("gics_sector", "string", "GICS sector", "GICS sector; null where it is not known.", nullable=True),
        Column(
            "provider_sector",
            "string",
            "text",
            "Sector in the provider's own scheme, which is not GICS; null where it states none.",
            nullable=True,
        ),
        Column("currency", "string", "ISO 4217", "Trading currency; points for an index."),
        Column("exchange", "string", "text", "Listing exchange, as a MIC where known.", nullable=True),
        Column(
            "eps",
            "price",
            "currency per share",
            "Earnings per share as the overview states them.",
            nullable=True,
        ),
        Column("pe_ratio", "float64", "ratio", "Price to earnings as the overview states it.", nullable=True),
        Column("source", "string", "text", "Where this version comes from."),
    ),
    key=("symbol", "valid_from"),
    rules=(RowRule("valid_interval", "valid_to > valid_from", "a version ends after it begins"),),
)

_RAW_PRICES = (
    Column(
        "open",
        "price",
        "currency",
        "First price of the session; null where the provider has none.",
        nullable=True,
    ),
    Column("high", "price", "currency", "Highest price; null where the provider has none.", nullable=True),
    Column("low", "price", "currency", "Lowest price; null where the provider has none.", nullable=True),
    Column("close", "price", "currency", "Last price, on the basis that price_basis names.", nullable=True),
    Column(
        "vendor_adjusted_close",
        "price",
        "currency",
        "The provider's own adjusted close, kept as evidence and used in no computation.",
        nullable=True,
    ),
    Column("volume", "int64", "shares", "Shares traded; null where the provider has none.", nullable=True),
    Column(
        "dividend_amount",
        "price",
        "currency per share",
        "Cash dividend that goes ex on this date; 0 for none, null where the provider does not say.",
        nullable=True,
    ),
    Column(
        "split_ratio",
        "float64",
        "new shares per old share",
        "Split that takes effect on this date; 1 for none, null where the provider does not say.",
        nullable=True,
    ),
    Column(
        "action_derivation",
        "string",
        "enumeration",
        "Whether dividend and split were reported or recovered from an adjusted price.",
        nullable=True,
        allowed=("reported", "recovered_from_adjustment_factor"),
    ),
    _CURRENCY,
    Column(
        "price_basis",
        "string",
        "enumeration",
        "raw: as traded. total_return_adjusted: already adjusted for splits and dividends by the provider.",
        allowed=PRICE_BASES,
    ),
)

QUOTES_RAW = Contract(
    layer=Layer.RAW,
    name="quotes",
    group=GROUP,
    grain="One quote of one ticker as a provider gave it.",
    description="Daily quotes as received, with where, when and how they were fetched. Nothing is judged here.",
    source="The configured providers, in order of preference.",
    columns=(
        _SYMBOL,
        Column("session_date", "date", "exchange session", "Partition: the session on or next after quote_date."),
        Column("quote_date", "date", "date", "The date that the provider gave."),
        *_RAW_PRICES,
        Column("parse_error", "string", "text", "What could not be read in the provider's row.", nullable=True),
        *_PROVENANCE,
        Column("row_number", "int32", "rows", "Position of the row in the provider's answer, from 0.", minimum=0),
    ),
    key=("symbol", "session_date", "quote_date", "row_number"),
    partitioning=Partitioning.SESSION,
    partition_column="session_date",
)

QUOTES = Contract(
    layer=Layer.CORE,
    name="quotes",
    group=GROUP,
    grain="One ticker on one exchange session.",
    description="Quotes that passed validation: typed, positive, ordered, one a day, sessions only.",
    source="raw/quotes.",
    columns=(
        _SYMBOL,
        _SESSION,
        Column("open", "price", "currency", "First price; null where the provider has none.", True, 0, None, True),
        Column(
            "high",
            "price",
            "currency",
            "Highest price; null where the provider has none.",
            True,
            0,
            None,
            True,
        ),
        Column("low", "price", "currency", "Lowest price; null where the provider has none.", True, 0, None, True),
        Column("close", "price", "currency", "Last price, on the basis of price_basis.", False, 0, None, True),
        Column("volume", "int64", "shares", "Shares traded; null where the provider has none.", True, 0),
        _CURRENCY,
        Column("price_basis", "string", "enumeration", "raw or total_return_adjusted.", allowed=PRICE_BASES),
        *_PROVENANCE[:2],
    ),
    key=("symbol", "session_date"),
    partitioning=Partitioning.SESSION,
    partition_column="session_date",
    rules=(
        RowRule("high_low", "high >= low", "the highest price is not below the lowest"),
        RowRule("high_bounds", "high >= close and high >= open", "no price of the day is above the highest"),
        RowRule("low_bounds", "low <= close and low <= open", "no price of the day is below the lowest"),
    ),
)

REJECTED_QUOTES = Contract(
    layer=Layer.CORE,
    name="rejected_quotes",
    group=GROUP,
    grain="One raw quote that validation refused, with the reason.",
    description="Quarantine of the market branch. Nothing is dropped: a row is in core/quotes or here.",
    source="raw/quotes.",
    columns=(
        *QUOTES_RAW.columns,
        Column("reason", "string", "enumeration", "Why the row was refused.", allowed=REJECTION_REASONS),
        Column("detail", "string", "text", "What was wrong, with the values."),
    ),
    key=("symbol", "session_date", "quote_date", "row_number"),
    partitioning=Partitioning.SESSION,
    partition_column="session_date",
    sparse=True,
)

CORPORATE_ACTIONS = Contract(
    layer=Layer.CORE,
    name="corporate_actions",
    group=GROUP,
    grain="One split or one dividend of one ticker on its ex-date.",
    description="What adjusts prices. A new action restates the ticker's KPIs.",
    source="raw/quotes: reported by the provider, or recovered from its adjusted close.",
    columns=(
        _SYMBOL,
        Column(
            "ex_date",
            "date",
            "exchange session",
            "First session on which the share trades without the right.",
        ),
        Column("action_type", "string", "enumeration", "Split or cash dividend.", allowed=("split", "dividend")),
        Column("split_ratio", "float64", "new shares per old share", "For a split.", True, 0, None, True),
        Column(
            "cash_amount",
            "price",
            "currency per share",
            "For a dividend, in shares of ex_date.",
            True,
            0,
            None,
            True,
        ),
        _CURRENCY,
        Column(
            "derivation",
            "string",
            "enumeration",
            "Reported by the provider, or recovered from its adjusted close.",
            allowed=("reported", "recovered_from_adjustment_factor"),
        ),
        *_PROVENANCE[:2],
    ),
    key=("symbol", "ex_date", "action_type"),
    partitioning=Partitioning.SESSION,
    partition_column="ex_date",
    sparse=True,
    rules=(
        RowRule(
            "one_value",
            "(action_type = 'split') = (split_ratio is not null) "
            "and (action_type = 'dividend') = (cash_amount is not null)",
            "a split has a ratio and a dividend has an amount, and neither has the other's",
        ),
    ),
)


def _kpi(
    name: str, unit: str, description: str, minimum: float | None = None, maximum: float | None = None
) -> tuple[Column, Column]:
    """Return a KPI and the status that says why it is null."""
    return (
        Column(
            name,
            "float64",
            unit,
            f"{description} Null with a status where undefined.",
            True,
            minimum,
            maximum,
        ),
        Column(f"{name}_status", "string", "enumeration", f"Why {name} is null, or ok.", allowed=STATUSES),
    )


_KPIS = (
    *_kpi(
        "rsi_14",
        "index points 0..100",
        "Relative strength index (Wilder, 14 sessions) of the split-adjusted close.",
        0,
        100,
    ),
    *_kpi("sma_50", "currency", "Mean of the last 50 split-adjusted closes.", 0),
    *_kpi(
        "historical_volatility_30",
        "fraction per year",
        "Sample deviation of the last 30 log returns of the total-return close, times the square root of 252.",
        0,
    ),
    *_kpi("volume_zscore_20", "standard deviations", "Volume against the mean of the 20 sessions before."),
    *_kpi(
        "volume_modified_zscore_20",
        "scaled median absolute deviations",
        "Volume against the median of the 20 sessions before (Iglewicz-Hoaglin).",
    ),
    *_kpi("dividend_payout_ratio", "fraction", "Dividends paid over net income of the same fiscal period."),
)

TICKER_KPIS = Contract(
    layer=Layer.CORE,
    name="ticker_kpis",
    group=GROUP,
    grain="One ticker on one exchange session.",
    description="Price and volume KPIs, on prices adjusted for every corporate action known when it was computed.",
    source="core/quotes, core/corporate_actions, raw/trading_sessions.",
    columns=(
        _SYMBOL,
        _SESSION,
        Column(
            "close_split_adjusted",
            "float64",
            "currency",
            "Close in shares of the newest split; null before a split whose ratio cannot be right.",
            True,
            0,
            None,
            True,
        ),
        Column(
            "total_return",
            "float64",
            "fraction",
            "Simple return since the last observed close, dividends reinvested; null on the first.",
            True,
            -1,
        ),
        Column(
            "return_span_sessions",
            "int32",
            "sessions",
            "Sessions that total_return spans; 1 is normal.",
            True,
            1,
        ),
        *_KPIS,
        Column(
            "is_volume_anomaly",
            "bool",
            "true/false",
            f"Modified z-score above {MODIFIED_Z_THRESHOLD}; null where it is undefined.",
            True,
        ),
        Column("is_low_volume", "bool", "true/false", "z-score of -3 or less; null where it is undefined.", True),
        Column(
            "window_missing_sessions",
            "int32",
            "sessions",
            "Sessions without a quote of this ticker between the oldest and the newest of its last 51 quotes; null "
            "with fewer quotes.",
            True,
            0,
        ),
        Column("price_basis", "string", "enumeration", "Basis of the prices used.", allowed=PRICE_BASES),
        Column(
            "adjustment_basis",
            "string",
            "sha256 prefix",
            "Fingerprint of the corporate actions used: all splits, and dividends up to this session.",
        ),
    ),
    key=("symbol", "session_date"),
    partitioning=Partitioning.SESSION,
    partition_column="session_date",
    rules=tuple(
        RowRule(
            f"{kpi}_explained",
            f"({kpi} is null) = ({kpi}_status <> 'ok')",
            f"{kpi} is null exactly where its status is not ok",
        )
        for kpi in (column.name for column in _KPIS if column.type == "float64")
    ),
)

CONTRACTS = (
    TRADING_SESSIONS,
    INSTRUMENTS,
    QUOTES_RAW,
    QUOTES,
    REJECTED_QUOTES,
    CORPORATE_ACTIONS,
    TICKER_KPIS,
)
