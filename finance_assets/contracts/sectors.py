"""Contracts of the sector branch: the dbt models, from staging to marts.

What belongs here: tables whose group is ``sectors``. The SQL stands in ``dbt_project``; columns, types, keys and
tests stand here, and dbt's YAML is generated from them.

How a composite deals with what is missing, since every number below rests on it:

- A member counts from the session after its first close: on the day a share is listed it has no return, and that must
  not break the composite of those that have one.
- A session's return needs two members' returns, or the only member's. Otherwise it is null, nothing is carried forward,
  and the chain of returns ends.
- The level is null on a session without a return. The next return begins a new chain, whose level is 1.0 on the session
  before it (``chain_start_date``). A level is therefore always growth since its own ``chain_start_date``, and a ratio
  of two levels is a return only within one chain: across a break, period returns are null with status ``gap``.
"""

from __future__ import annotations

from finance_assets.contracts.market import PRICE_BASES
from finance_assets.contracts.model import Column, Contract, Layer, RowRule, Store
from finance_assets.contracts.status import Status

GROUP = "sectors"
#: Periods measured from a reference session, in the order of the mart's columns.
REFERENCE_PERIODS = ("1d", "1m", "3m", "ytd", "1y")
PERIODS = (*REFERENCE_PERIODS, "cumulative")
DAILY_STATUSES = tuple(
    str(status) for status in (Status.OK, Status.NO_DATA, Status.MISSING_INPUT, Status.INSUFFICIENT_HISTORY)
)
RETURN_STATUSES = (*DAILY_STATUSES, str(Status.GAP), str(Status.UNDEFINED_DENOMINATOR))

_SYMBOL = Column("symbol", "string", "ticker symbol", "Ticker as the exchange writes it.")
_SESSION = Column("session_date", "date", "exchange session", "Trading session of the exchange calendar.")
_SECTOR = Column("sector", "string", "GICS sector", "GICS sector, as it was on the session.")
_COMPOSITE = (
    Column(
        "member_count",
        "int32",
        "tickers",
        "Members on the session that had a close on an earlier one, so that a return can be measured.",
        minimum=0,
    ),
    Column(
        "return_count",
        "int32",
        "tickers",
        "Members whose return spans exactly this session: those in the mean.",
        minimum=0,
    ),
)
_LEVEL = (
    Column(
        "level",
        "float64",
        "index, 1.0 on chain_start_date",
        "Growth since chain_start_date; 1.0 on the session before the composite's first return; "
        "null on every other session without a return.",
        nullable=True,
        minimum=0,
    ),
    Column(
        "chain_start_date",
        "date",
        "exchange session",
        "Session on which the level is 1.0 by definition. A ratio of two levels is a return only where both "
        "have the same; null where the level is.",
        nullable=True,
    ),
)
_LEVEL_RULES = (
    RowRule("counted_members", "return_count <= member_count", "only members have a return in the mean"),
    RowRule("level_has_a_base", "(level is null) = (chain_start_date is null)", "a level is growth since a date"),
    RowRule("base_is_past", "chain_start_date <= session_date", "growth is since a date that is past"),
)

STG_STOCK_PRICES = Contract(
    layer=Layer.STAGING,
    name="stg_stock_prices",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One ticker on one exchange session.",
    description="Validated closes and volumes, renamed for analysis.",
    source="core/quotes.",
    columns=(
        _SYMBOL,
        _SESSION,
        Column(
            "close_price",
            "price",
            "currency",
            "Last price of the session, on price_basis.",
            False,
            0,
            None,
            True,
        ),
        Column("volume", "int64", "shares", "Shares traded; null where the provider has none.", True, 0),
        Column("currency", "string", "ISO 4217", "Currency of the price."),
        Column("price_basis", "string", "enumeration", "raw or total_return_adjusted.", allowed=PRICE_BASES),
    ),
    key=("symbol", "session_date"),
    inputs=("core/quotes",),
)

STG_TICKER_RETURNS = Contract(
    layer=Layer.STAGING,
    name="stg_ticker_returns",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One ticker on one exchange session.",
    description="Total returns between observed closes, computed once, upstream, in finance_assets.market.adjustments.",
    source="core/ticker_kpis.",
    columns=(
        _SYMBOL,
        _SESSION,
        Column(
            "total_return",
            "float64",
            "fraction",
            "Simple total return since the last close; null on the first.",
            True,
            -1,
        ),
        Column(
            "span_sessions",
            "int32",
            "sessions",
            "Sessions that the return spans; null on the first close.",
            True,
            1,
        ),
    ),
    key=("symbol", "session_date"),
    inputs=("core/ticker_kpis",),
    rules=(
        RowRule(
            "return_has_a_span",
            "total_return is null or span_sessions is not null",
            "a return says what it spans",
        ),
    ),
)

STG_SECTOR_DATA = Contract(
    layer=Layer.STAGING,
    name="stg_sector_data",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One version of one equity's sector membership.",
    description="Point-in-time sector membership of equities whose GICS sector is known. Versions do not overlap: "
    "a new one ends the one before.",
    source="raw/instruments.",
    columns=(
        _SYMBOL,
        Column("company_name", "string", "text", "Name of the company."),
        Column("sector", "string", "GICS sector", "GICS sector while the version holds."),
        Column("valid_from", "date", "date", "First day of the membership."),
        Column(
            "valid_to",
            "date",
            "date",
            "First day after it: its own end, or the start of the ticker's next version; null while it lasts.",
            nullable=True,
        ),
    ),
    key=("symbol", "valid_from"),
    inputs=("raw/instruments",),
    rules=(RowRule("valid_interval", "valid_to > valid_from", "a membership ends after it begins"),),
)

STG_TRADING_SESSIONS = Contract(
    layer=Layer.STAGING,
    name="stg_trading_sessions",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One session of the exchange calendar.",
    description="The exchange calendar.",
    source="raw/trading_sessions.",
    columns=(
        _SESSION,
        Column("session_ordinal", "int32", "sessions", "Position in the calendar, from 0.", False, 0),
        Column("is_early_close", "bool", "true/false", "Whether the exchange closes early."),
    ),
    key=("session_date",),
    inputs=("raw/trading_sessions",),
)


def _reference(period: str, description: str) -> Column:
    return Column(
        f"reference_{period}_date",
        "date",
        "exchange session",
        f"{description} Null where the calendar does not reach back that far.",
        nullable=True,
    )


INT_REFERENCE_SESSIONS = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_reference_sessions",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One session of the exchange calendar.",
    description="From which session each period return of a session is measured.",
    source="stg_trading_sessions.",
    columns=(
        _SESSION,
        _reference("1d", "The session before."),
        _reference("1m", "Last session on or before the day one calendar month earlier, clipped to the month's end."),
        _reference(
            "3m",
            "Last session on or before the day three calendar months earlier, clipped to the month's end.",
        ),
        _reference("ytd", "Last session of the year before."),
        _reference(
            "1y",
            "Last session on or before the day twelve calendar months earlier, clipped to the month's end.",
        ),
    ),
    key=("session_date",),
    inputs=("staging/stg_trading_sessions",),
    rules=tuple(
        RowRule(
            f"reference_{period}_is_past",
            f"reference_{period}_date < session_date",
            "a return is measured from an earlier session",
        )
        for period in REFERENCE_PERIODS
    ),
)

INT_SECTOR_RETURNS = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_sector_returns",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One sector on one exchange session, from the one before its first return to the last with prices.",
    description="Equal-weight, daily rebalanced composite of the sector's members, and its level.",
    source="stg_stock_prices, stg_ticker_returns, stg_sector_data, stg_trading_sessions.",
    columns=(
        _SECTOR,
        _SESSION,
        *_COMPOSITE,
        Column(
            "daily_return",
            "float64",
            "fraction",
            "Mean of the members' simple total returns; null with fewer than two (or the only member's missing).",
            True,
            -1,
        ),
        Column(
            "daily_return_status",
            "string",
            "enumeration",
            "Why daily_return is null, or ok: insufficient_history on the first session, no_data where no member has a "
            "return, missing_input where too few have.",
            allowed=DAILY_STATUSES,
        ),
        *_LEVEL,
    ),
    key=("sector", "session_date"),
    inputs=(
        "staging/stg_stock_prices",
        "staging/stg_ticker_returns",
        "staging/stg_sector_data",
        "staging/stg_trading_sessions",
    ),
    rules=(
        *_LEVEL_RULES,
        RowRule(
            "daily_return_explained",
            "(daily_return is null) = (daily_return_status <> 'ok')",
            "daily_return is null exactly where its status is not ok",
        ),
        RowRule("return_has_a_level", "daily_return is null or level is not null", "a return moves a level"),
    ),
)


def _period(period: str) -> tuple[Column, Column]:
    words = {
        "1d": "the session before",
        "1m": "one calendar month before",
        "3m": "three calendar months before",
        "ytd": "the last session of the year before",
        "1y": "twelve calendar months before",
        "cumulative": "the start of the composite",
    }[period]
    return (
        Column(f"return_{period}", "float64", "fraction", f"Level over the level of {words}, less one.", True, -1),
        Column(
            f"return_{period}_status",
            "string",
            "enumeration",
            f"Why return_{period} is null, or ok: the session's own status where it has no return, "
            "insufficient_history before the composite's start, gap across a break in its returns, "
            "undefined_denominator after a loss of everything.",
            allowed=RETURN_STATUSES,
        ),
    )


MART_SECTOR_PERFORMANCE = Contract(
    layer=Layer.MART,
    name="mart_sector_performance",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One sector on one exchange session.",
    description="Returns of each sector composite over the usual periods; never annualised.",
    source="int_sector_returns, int_reference_sessions.",
    columns=(
        _SECTOR,
        _SESSION,
        *_COMPOSITE,
        *_LEVEL,
        *(column for period in PERIODS for column in _period(period)),
    ),
    key=("sector", "session_date"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_reference_sessions"),
    rules=(
        *_LEVEL_RULES,
        *(
            RowRule(
                f"return_{period}_explained",
                f"(return_{period} is null) = (return_{period}_status <> 'ok')",
                f"return_{period} is null exactly where its status is not ok",
            )
            for period in PERIODS
        ),
    ),
)

CONTRACTS = (
    STG_STOCK_PRICES,
    STG_TICKER_RETURNS,
    STG_SECTOR_DATA,
    STG_TRADING_SESSIONS,
    INT_REFERENCE_SESSIONS,
    INT_SECTOR_RETURNS,
    MART_SECTOR_PERFORMANCE,
)
