"""Contracts of the sector branch: the dbt models, from staging to marts, and what Python computes between them.

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

from dataclasses import dataclass

from finance_assets.contracts.market import PRICE_BASES, STATUSES
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
#: Kinds of series that returns are measured of: our composites, and indices as somebody publishes them.
SERIES_KINDS = ("sector", "index")
#: Windows of the risk measures: the last 252 returns, or all since the composite's start.
RISK_WINDOWS = ("trailing_252", "since_start")
#: Portfolio rules of finance_assets.sectors.diversification.
PORTFOLIO_METHODS = ("min_variance", "max_diversification", "risk_parity", "hrp")
#: What becomes of a macro series before it is a factor, as finance_assets.sectors.exposure has it.
MACRO_TRANSFORMS = ("relative_change", "difference", "surprise")
#: Macro series that are factors -> what becomes of each; adding one is a line. Series that a deployment does not
#: follow are passed over: the packaged sample has core prices and bond yields where FRED has all prices, a Treasury
#: yield and a spread.
MACRO_FACTORS = {
    "DCOILWTICO": "relative_change",
    "DGS10": "difference",
    "VIXCLS": "difference",
    "CPIAUCSL": "surprise",
    "BAA10Y": "difference",
    "CPILFESL": "surprise",
    "AAA": "difference",
    "BAA": "difference",
}
#: The regression on all macro factors at once; the others are named after their one macro series.
JOINT_MODEL = "joint"
#: Signal -> states, as finance_assets.sectors.signals has them.
SIGNAL_STATES = {
    "trend": ("bullish", "bearish", "neutral"),
    "momentum": ("positive", "negative", "neutral"),
    "rotation": ("leading", "weakening", "lagging", "improving"),
    "volatility_regime": ("low", "normal", "high"),
}

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

STG_INDICES = Contract(
    layer=Layer.STAGING,
    name="stg_indices",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One index, in its newest description.",
    description="Indices that have quotes: the benchmark of the market, and sector indices where there are any.",
    source="raw/instruments.",
    columns=(
        Column("index_symbol", "string", "ticker symbol", "Symbol of the index; begins with a caret."),
        Column("index_name", "string", "text", "Name of the index."),
        Column("sector", "string", "GICS sector", "Sector that the index is of; null for a broad one.", nullable=True),
        Column(
            "is_benchmark",
            "bool",
            "true/false",
            "Whether it stands for the market: the dbt variable `benchmark`, the S&P 500.",
        ),
    ),
    key=("index_symbol",),
    inputs=("raw/instruments",),
    rules=(RowRule("benchmark_is_broad", "not is_benchmark or sector is null", "the market is more than one sector"),),
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
        Column(
            "cap_weighted_return",
            "float64",
            "fraction",
            "The same, weighted by capitalisation at the close before; null until a source of shares outstanding is "
            "read.",
            True,
            -1,
        ),
        Column(
            "cap_weighted_return_status",
            "string",
            "enumeration",
            "missing_input: no provider of the platform says yet how many shares there are.",
            allowed=DAILY_STATUSES,
        ),
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
        RowRule(
            "cap_weighted_return_explained",
            "(cap_weighted_return is null) = (cap_weighted_return_status <> 'ok')",
            "cap_weighted_return is null exactly where its status is not ok",
        ),
    ),
)

INT_INDEX_RETURNS = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_index_returns",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One index on one exchange session, from the one before its first return to the last with prices.",
    description="Daily returns of indices and the levels they compound to, by the rules of the composites. A price "
    "index has no dividends in it, while the composites have.",
    source="stg_indices, stg_ticker_returns, stg_stock_prices, stg_trading_sessions.",
    columns=(
        Column("index_symbol", "string", "ticker symbol", "Symbol of the index."),
        _SESSION,
        Column("sector", "string", "GICS sector", "Sector that the index is of; null for a broad one.", nullable=True),
        Column("is_benchmark", "bool", "true/false", "Whether it stands for the market."),
        Column(
            "daily_return",
            "float64",
            "fraction",
            "Return over exactly this session; null where there is none.",
            True,
            -1,
        ),
        Column(
            "daily_return_status",
            "string",
            "enumeration",
            "Why daily_return is null, or ok: insufficient_history on the first session, else no_data.",
            allowed=DAILY_STATUSES,
        ),
        *_LEVEL,
    ),
    key=("index_symbol", "session_date"),
    inputs=(
        "staging/stg_indices",
        "staging/stg_ticker_returns",
        "staging/stg_stock_prices",
        "staging/stg_trading_sessions",
    ),
    rules=(
        *_LEVEL_RULES[1:],
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


def _explained(names: tuple[str, ...]) -> tuple[RowRule, ...]:
    """Return the rule that a value is null exactly where its status is not ok, for each name."""
    return tuple(
        RowRule(
            f"{name}_explained",
            f"({name} is null) = ({name}_status <> 'ok')",
            f"{name} is null exactly where its status is not ok",
        )
        for name in names
    )


INT_PERIOD_RETURNS = Contract(
    layer=Layer.INTERMEDIATE,
    name="int_period_returns",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One composite or index on one exchange session.",
    description="Returns over the usual periods, of composites and indices by one rule; never annualised.",
    source="int_sector_returns, int_index_returns, int_reference_sessions.",
    columns=(
        Column("series_kind", "string", "enumeration", "Composite of a sector, or index.", allowed=SERIES_KINDS),
        Column("series", "string", "text", "GICS sector, or symbol of the index."),
        _SESSION,
        *(column for period in PERIODS for column in _period(period)),
    ),
    key=("series_kind", "series", "session_date"),
    inputs=(
        "intermediate/int_sector_returns",
        "intermediate/int_index_returns",
        "intermediate/int_reference_sessions",
    ),
    rules=_explained(tuple(f"return_{period}" for period in PERIODS)),
)


def _beside(period: str) -> tuple[Column, ...]:
    """Return the columns that set a sector's period return beside the market's, its index's and other sectors'."""
    return (
        Column(
            f"market_return_{period}",
            "float64",
            "fraction",
            "Return of the benchmark over the same period; for cumulative, over the composite's life.",
            True,
            -1,
        ),
        Column(
            f"market_return_{period}_status",
            "string",
            "enumeration",
            f"Why market_return_{period} is null, or ok; missing_input where there is no benchmark.",
            allowed=RETURN_STATUSES,
        ),
        Column(
            f"relative_return_{period}",
            "float64",
            "fraction",
            "Return of the sector less that of the benchmark, arithmetically; null where either is.",
            True,
        ),
        Column(
            f"index_return_{period}",
            "float64",
            "fraction",
            "Return of the published index of the sector; null where the platform reads none.",
            True,
            -1,
        ),
        Column(
            f"rank_{period}",
            "int32",
            "rank, 1 is best",
            "Place among the sectors that have a return; equal returns share a place. Null without one.",
            True,
            1,
        ),
    )


MART_SECTOR_PERFORMANCE = Contract(
    layer=Layer.MART,
    name="mart_sector_performance",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One sector on one exchange session.",
    description="Returns of each sector composite over the usual periods, beside the market's, ranked.",
    source="int_sector_returns, int_period_returns, int_index_returns.",
    columns=(
        _SECTOR,
        _SESSION,
        *_COMPOSITE,
        *_LEVEL,
        *(column for period in PERIODS for column in _period(period)),
        Column(
            "market_level", "float64", "index", "Level of the benchmark on the session, from its own start.", True, 0
        ),
        *(column for period in PERIODS for column in _beside(period)),
    ),
    key=("sector", "session_date"),
    inputs=(
        "intermediate/int_sector_returns",
        "intermediate/int_period_returns",
        "intermediate/int_index_returns",
    ),
    rules=(
        *_LEVEL_RULES,
        *_explained(tuple(f"{kind}_{period}" for kind in ("return", "market_return") for period in PERIODS)),
        *(
            RowRule(
                f"relative_return_{period}_has_both",
                f"(relative_return_{period} is null) = (return_{period} is null or market_return_{period} is null)",
                "a relative return needs both returns, and is there where both are",
            )
            for period in PERIODS
        ),
        *(
            RowRule(
                f"rank_{period}_has_a_return",
                f"(rank_{period} is null) = (return_{period} is null)",
                "what has a return has a rank",
            )
            for period in PERIODS
        ),
    ),
)


# -- risk: computed in Python, kept in the lake, finished in SQL ----------------------------------------------------


@dataclass(frozen=True)
class Measure:
    """A measure of the risk tables: what it is called, counted in, means and may be."""

    name: str
    unit: str
    description: str
    minimum: float | None = None
    maximum: float | None = None

    @property
    def columns(self) -> tuple[Column, Column]:
        """The column of the value and that of its status."""
        return (
            Column(self.name, "float64", self.unit, self.description, True, self.minimum, self.maximum),
            Column(
                f"{self.name}_status",
                "string",
                "enumeration",
                f"Why {self.name} is null, or ok.",
                allowed=STATUSES,
            ),
        )


def _tails() -> tuple[Measure, ...]:
    measures = []
    for name, percent in (("95", "95"), ("975", "97.5"), ("99", "99")):
        for method in ("historical", "gaussian", "cornish_fisher"):
            measures.append(
                Measure(
                    f"var_{method}_{name}",
                    "fraction, positive is a loss",
                    f"Loss of one session that {percent} % of sessions do not exceed, {method.replace('_', '-')}.",
                )
            )
        for method in ("historical", "gaussian"):
            measures.append(
                Measure(
                    f"es_{method}_{name}",
                    "fraction, positive is a loss",
                    f"Mean loss of one session beyond the {percent} % value at risk, {method}.",
                )
            )
    return tuple(measures)


#: Measures of finance_assets.sectors.risk.window_measures, in the order of the columns.
RISK_MEASURES = (
    Measure("volatility", "fraction per year", "Sample deviation of the window's returns, annualised.", 0),
    Measure("compound_annual_growth", "fraction per year", "Annual rate at which the window's returns compound.", -1),
    Measure("sharpe_ratio", "ratio", "Annualised mean of excess returns over their annualised deviation."),
    Measure("sortino_ratio", "ratio", "Annualised mean of excess returns over their annualised downside deviation."),
    Measure("omega_ratio", "ratio", "Sum of gains over the risk-free return, over the sum of shortfalls below it.", 0),
    Measure("alpha", "fraction per session", "Intercept of the regression of excess returns on the market's."),
    Measure("alpha_annual", "fraction per year", "Alpha times 252."),
    Measure("alpha_t", "t-statistic", "Alpha over its classical standard error."),
    Measure("beta", "ratio", "Slope of the regression of excess returns on the market's."),
    Measure("beta_t", "t-statistic", "Beta over its classical standard error."),
    Measure("r_squared", "fraction", "Share of the variance that the market explains.", None, 1),
    Measure("treynor_ratio", "fraction per year", "Compound annual growth above the risk-free rate, over beta."),
    Measure("tracking_error", "fraction per year", "Annualised deviation of the difference to the market.", 0),
    Measure("information_ratio", "ratio", "Difference of compound annual growth to the market's over tracking error."),
    Measure("m_squared", "fraction per year", "Growth that the sector would have had at the market's volatility."),
    Measure("relative_volatility", "ratio", "Volatility over the market's, on the same sessions.", 0),
    *_tails(),
    Measure("max_drawdown", "fraction, 0 or negative", "Deepest fall from a peak within the window.", -1, 0),
    Measure("current_drawdown", "fraction, 0 or negative", "Fall of the last level from the highest one.", -1, 0),
    Measure("calmar_ratio", "ratio", "Compound annual growth over the size of the maximum drawdown."),
    Measure("ulcer_index", "fraction", "Root of the mean squared drawdown.", 0, 1),
    Measure("pain_index", "fraction", "Mean size of the drawdown.", 0, 1),
)
_RISK_NAMES = tuple(measure.name for measure in RISK_MEASURES)
_RISK_COLUMNS = (
    _SECTOR,
    _SESSION,
    Column(
        "risk_window",
        "string",
        "enumeration",
        "trailing_252: the last 252 returns, as of every session. since_start: all returns, as of the newest session "
        "of each calendar month.",
        allowed=RISK_WINDOWS,
    ),
    Column("return_count", "int32", "returns", "Returns in the window; 0 where it is not full.", minimum=0),
    Column("window_start_date", "date", "exchange session", "Session of the first return; null without one.", True),
    Column(
        "window_missing_sessions",
        "int32",
        "sessions",
        "Sessions between the first and the last return of the window that have none.",
        minimum=0,
    ),
    Column("risk_free_rate", "float64", "fraction per year", "Effective annual rate that excess returns are above."),
    *(column for measure in RISK_MEASURES for column in measure.columns),
    Column("drawdown_peak_date", "date", "exchange session", "Session of the peak; null where nothing was lost.", True),
    Column("drawdown_trough_date", "date", "exchange session", "Session of the deepest fall; null as above.", True),
    Column(
        "drawdown_recovery_date",
        "date",
        "exchange session",
        "First session that is back at the peak; null while there is none.",
        True,
    ),
    Column(
        "drawdown_sessions",
        "int32",
        "returns",
        "Returns from the peak to the recovery, or to the end of the window; null where nothing was lost.",
        True,
        1,
    ),
)
_RISK_RULES = (
    *_explained(_RISK_NAMES),
    RowRule("drawdown_order", "drawdown_trough_date > drawdown_peak_date", "a trough follows its peak"),
    RowRule("recovery_order", "drawdown_recovery_date > drawdown_trough_date", "a recovery follows the trough"),
)
_FINGERPRINT = Column(
    "input_fingerprint",
    "string",
    "hash",
    "Of the returns and parameters that the row rests on: a run computes only rows whose input has changed.",
)
_SERIES = Column("series", "string", "text", "GICS sector of a composite, or symbol of the benchmark.")

SECTOR_RISK = Contract(
    layer=Layer.CORE,
    name="sector_risk",
    group=GROUP,
    grain="One sector, one exchange session, one window.",
    description="Risk and risk-adjusted performance of the equal-weight composites.",
    source="int_sector_returns and int_index_returns, by finance_assets.sectors.risk.",
    columns=(*_RISK_COLUMNS, _FINGERPRINT),
    key=("sector", "session_date", "risk_window"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=_RISK_RULES,
)

_CORRELATIONS = (
    Measure("correlation_30", "correlation", "Pearson's, over the last 30 sessions that both have.", -1, 1),
    Measure("correlation_252", "correlation", "Pearson's, over the last 252 sessions that both have.", -1, 1),
    Measure("correlation_full", "correlation", "Pearson's, over all sessions so far that both have.", -1, 1),
)
_CORRELATION_NAMES = tuple(measure.name for measure in _CORRELATIONS)
_DIAGONAL = tuple(
    RowRule(f"{name}_diagonal", f"series <> other_series or {name} = 1", "a series is exactly its own")
    for name in _CORRELATION_NAMES
)
_OTHER = Column("other_series", "string", "text", "The series it is compared with, named likewise.")

SECTOR_CORRELATIONS = Contract(
    layer=Layer.CORE,
    name="sector_correlations",
    group=GROUP,
    grain="One pair of composites or benchmark, each pair once, on one exchange session.",
    description="Correlations of daily returns, rolling and since the start.",
    source="int_sector_returns and int_index_returns, by finance_assets.sectors.correlations.",
    columns=(_SERIES, _OTHER, _SESSION, *(column for measure in _CORRELATIONS for column in measure.columns)),
    key=("series", "other_series", "session_date"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=(
        *_explained(_CORRELATION_NAMES),
        *_DIAGONAL,
        RowRule("each_pair_once", "series <= other_series", "a pair is written in the order of the alphabet"),
    ),
)

_CLUSTERING = (
    *(
        Measure(f"abs_return_acf_{lag}", "correlation", f"Autocorrelation of the size of returns at lag {lag}.", -1, 1)
        for lag in range(1, 21)
    ),
    Measure("ljung_box", "chi-squared, 10 degrees", "Ljung-Box statistic of squared demeaned returns, 10 lags.", 0),
    Measure("ljung_box_p", "probability", "Its p-value.", 0, 1),
    Measure("arch_lm", "chi-squared, 5 degrees", "Engle's test of conditional heteroskedasticity, 5 lags."),
    Measure("arch_lm_p", "probability", "Its p-value.", 0, 1),
    Measure("garch_omega", "squared fraction per session", "Constant of the GARCH(1,1) variance.", 0),
    Measure("garch_alpha", "weight", "Weight of the last squared surprise.", 0),
    Measure("garch_beta", "weight", "Weight of the last variance.", 0),
    Measure("garch_persistence", "weight", "Alpha and beta together.", 0),
    Measure("garch_half_life", "sessions", "Sessions until half of a shock to variance is gone.", 0),
    Measure("garch_volatility", "fraction per year", "Volatility that the model expects of the next session.", 0),
    Measure("ewma_volatility", "fraction per year", "Exponentially weighted volatility, decay 0.94 (RiskMetrics).", 0),
)
_CLUSTERING_COLUMNS = (
    _SERIES,
    _SESSION,
    Column("return_count", "int32", "returns", "Returns used: the last 1,260, or as many as there are.", minimum=0),
    Column("window_start_date", "date", "exchange session", "Session of the first of them.", True),
    *(column for measure in _CLUSTERING for column in measure.columns),
    Column("volatility", "float64", "fraction per year", "GARCH's forecast, or else EWMA.", True, 0),
    Column(
        "volatility_model",
        "string",
        "enumeration",
        "Which of the two it is; null where there is neither.",
        True,
        allowed=("garch", "ewma"),
    ),
    Column(
        "is_clustered",
        "bool",
        "true/false",
        "Whether Ljung-Box and ARCH-LM both reject at 1 %; null where one of them is undefined.",
        True,
    ),
)
_CLUSTERING_RULES = (
    *_explained(tuple(measure.name for measure in _CLUSTERING)),
    RowRule("model_named", "(volatility is null) = (volatility_model is null)", "a volatility names its model"),
)

SECTOR_VOLATILITY = Contract(
    layer=Layer.CORE,
    name="sector_volatility",
    group=GROUP,
    grain="One composite or benchmark, as of the newest session of each calendar quarter.",
    description="Volatility clustering: autocorrelation, tests, GARCH(1,1) and exponentially weighted volatility.",
    source="int_sector_returns and int_index_returns, by finance_assets.sectors.volatility.",
    columns=(*_CLUSTERING_COLUMNS, _FINGERPRINT),
    key=("series", "session_date"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=_CLUSTERING_RULES,
)

_PORTFOLIO = (
    Measure("weight", "fraction", "Share of the sector in the portfolio; 0 where it does not vary.", 0, 1),
    Measure("risk_contribution", "fraction", "Share of the portfolio's variance that the sector makes."),
    Measure("portfolio_volatility", "fraction per year", "Volatility that the portfolio had over the window.", 0),
    Measure("diversification_ratio", "ratio", "Mean volatility of the holdings over that of the portfolio.", 0),
    Measure("effective_bets", "bets", "Effective number of uncorrelated bets, by principal components.", 0),
    Measure("effective_sectors", "sectors", "Inverse of the sum of squared weights.", 0),
)
_PORTFOLIO_COLUMNS = (
    _SESSION,
    Column("method", "string", "enumeration", "Rule of the portfolio.", allowed=PORTFOLIO_METHODS),
    _SECTOR,
    Column(
        "session_count", "int32", "sessions", "Sessions on which all sectors have a return, at most 252.", minimum=0
    ),
    Column(
        "sector_count", "int32", "sectors", "Sectors to choose from: those with a return on the session.", minimum=1
    ),
    *(column for measure in _PORTFOLIO for column in measure.columns),
)

SECTOR_PORTFOLIOS = Contract(
    layer=Layer.CORE,
    name="sector_portfolios",
    group=GROUP,
    grain="One sector in one portfolio, as of the newest session of each calendar month.",
    description="Long-only portfolios of sector composites by four rules, from the last 252 common sessions.",
    source="int_sector_returns, by finance_assets.sectors.diversification.",
    columns=(*_PORTFOLIO_COLUMNS, _FINGERPRINT),
    key=("session_date", "method", "sector"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=_explained(tuple(measure.name for measure in _PORTFOLIO)),
)

_EXPOSURE_COLUMNS = (
    _SECTOR,
    _SESSION,
    Column(
        "model",
        "string",
        "text",
        "Which regression: on the market and one macro series, whose name it has; or joint, on the market and all.",
    ),
    Column("factor", "string", "text", "alpha, market, or a macro series as FRED names it."),
    Column(
        "transform",
        "string",
        "enumeration",
        "What became of the series: relative change, difference in its own unit, or relative change less the one "
        "before (surprise); null for alpha and market.",
        True,
        allowed=MACRO_TRANSFORMS,
    ),
    *Measure(
        "coefficient",
        "monthly return per unit of the factor",
        "Least squares; alpha is the return of a month on which no factor moves. outside_domain: the other factors "
        "explain this one, so that they cannot be told apart.",
    ).columns,
    Column(
        "standard_error", "float64", "as the coefficient", "Newey-West; null also where the fit is perfect.", True, 0
    ),
    Column("t_statistic", "float64", "t-statistic", "Coefficient over its standard error; null as above.", True),
    Column(
        "variance_inflation",
        "float64",
        "ratio",
        "Variance inflation factor among the factors it was judged with; null for alpha, and where it was not judged.",
        True,
        1,
    ),
    Column("r_squared", "float64", "fraction", "Share of variance that the regression explains.", True, None, 1),
    Column("adjusted_r_squared", "float64", "fraction", "The same, less what chance explains.", True, None, 1),
    Column("month_count", "int32", "months", "Months in the regression, at most 60.", minimum=0),
    Column("window_start_date", "date", "exchange session", "Newest session of the first of them.", True),
    Column("newey_west_lags", "int32", "months", "Lags of the errors, floor(4 (n / 100)^(2/9)).", minimum=0),
)
_EXPOSURE_RULES = (
    *_explained(("coefficient",)),
    RowRule("t_has_an_error", "(t_statistic is null) = (standard_error is null)", "a t-statistic has its error"),
)

SECTOR_EXPOSURES = Contract(
    layer=Layer.CORE,
    name="sector_exposures",
    group=GROUP,
    grain="One factor in one regression of one sector, as of the newest session of each calendar month.",
    description="Monthly returns of the composites regressed on the market and on macro changes as they were known.",
    source="int_sector_returns, int_index_returns and core/macro_indicators, by finance_assets.sectors.exposure.",
    columns=(*_EXPOSURE_COLUMNS, _FINGERPRINT),
    key=("sector", "session_date", "model", "factor"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns", "core/macro_indicators"),
    rules=_EXPOSURE_RULES,
)

_SIGNAL_COLUMNS = (
    _SECTOR,
    _SESSION,
    Column("signal", "string", "enumeration", "Which signal.", allowed=tuple(SIGNAL_STATES)),
    Column(
        "state",
        "string",
        "enumeration",
        "State as of the session, from it and earlier ones alone; null where undefined.",
        True,
        allowed=tuple(dict.fromkeys(state for states in SIGNAL_STATES.values() for state in states)),
    ),
    Column("state_status", "string", "enumeration", "Why the state is null, or ok.", allowed=STATUSES),
    Column("since_date", "date", "exchange session", "Session since which the state holds; null as above.", True),
    Column("is_new", "bool", "true/false", "Whether the state began on this session, out of another one."),
    Column(
        "value",
        "float64",
        "see the signal",
        "What decides. trend: mean of the last 50 levels; momentum: return from 252 to 21 sessions ago; rotation: "
        "RRG-style ratio; volatility_regime: annualised volatility of 30 returns.",
        True,
    ),
    Column(
        "reference_value",
        "float64",
        "see the signal",
        "What it is judged by. trend: mean of the last 200 levels; momentum: 0; rotation: RRG-style momentum; "
        "volatility_regime: rank among the last 252 volatilities, 0 to 1.",
        True,
    ),
)
_SIGNAL_RULES = (
    RowRule(
        "state_explained", "(state is null) = (state_status <> 'ok')", "a state is null where its status is not ok"
    ),
    RowRule("state_has_numbers", "(state is null) = (value is null)", "a state has the numbers behind it"),
    RowRule("state_has_both_numbers", "(state is null) = (reference_value is null)", "a state says what judged it"),
    RowRule("state_has_a_start", "(state is null) = (since_date is null)", "a state holds since a session"),
    RowRule("start_is_past", "since_date <= session_date", "a state holds since a session that is past"),
    RowRule("new_begins_today", "not is_new or since_date = session_date", "what is new began on the session"),
)

SECTOR_SIGNALS = Contract(
    layer=Layer.CORE,
    name="sector_signals",
    group=GROUP,
    grain="One signal of one sector on one exchange session.",
    description="Trend, momentum, rotation and volatility regime of the composites, with the numbers behind them.",
    source="int_sector_returns and int_index_returns, by finance_assets.sectors.signals.",
    columns=_SIGNAL_COLUMNS,
    key=("sector", "session_date", "signal"),
    inputs=("intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=_SIGNAL_RULES,
)

MART_RISK_METRICS = Contract(
    layer=Layer.MART,
    name="mart_risk_metrics",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One sector, one exchange session, one window.",
    description="Risk of each sector composite: rolling volatility, and every measure of core/sector_risk.",
    source="core/sector_risk, int_sector_returns, int_index_returns.",
    columns=(
        *_RISK_COLUMNS[:3],
        *Measure(
            "volatility_30", "fraction per year", "Sample deviation of the last 30 returns, annualised.", 0
        ).columns,
        *Measure(
            "relative_volatility_30", "ratio", "Volatility over the benchmark's, on the last 30 sessions of both.", 0
        ).columns,
        *_RISK_COLUMNS[3:],
    ),
    key=("sector", "session_date", "risk_window"),
    inputs=("core/sector_risk", "intermediate/int_sector_returns", "intermediate/int_index_returns"),
    rules=(*_explained(("volatility_30", "relative_volatility_30")), *_RISK_RULES),
)

MART_CORRELATIONS = Contract(
    layer=Layer.MART,
    name="mart_correlations",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One series with one other on one exchange session, in both orders, and each with itself.",
    description="Correlation matrices of the composites and the benchmark, ready for a heat map.",
    source="core/sector_correlations.",
    columns=(
        _SERIES,
        _OTHER,
        _SESSION,
        Column("with_benchmark", "bool", "true/false", "Whether one of the two is the benchmark."),
        *(column for measure in _CORRELATIONS for column in measure.columns),
        Column(
            "correlation_30_change",
            "float64",
            "correlation",
            "correlation_30 less that of 21 sessions before; null where either is.",
            True,
            -2,
            2,
        ),
    ),
    key=("series", "other_series", "session_date"),
    inputs=("core/sector_correlations", "staging/stg_indices"),
    rules=(*_explained(_CORRELATION_NAMES), *_DIAGONAL),
)

MART_VOLATILITY_CLUSTERING = Contract(
    layer=Layer.MART,
    name="mart_volatility_clustering",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One composite or benchmark, as of the newest session of each calendar quarter.",
    description="Whether volatility comes in clusters, how long shocks last, and what volatility to expect.",
    source="core/sector_volatility.",
    columns=(
        *_CLUSTERING_COLUMNS,
        Column(
            "volatility_rank",
            "int32",
            "rank, 1 is the most volatile",
            "Place among all series of the session by expected volatility; null without one.",
            True,
            1,
        ),
        Column("is_newest", "bool", "true/false", "Whether the row is the newest of its series."),
    ),
    key=("series", "session_date"),
    inputs=("core/sector_volatility",),
    rules=(
        *_CLUSTERING_RULES,
        RowRule("ranked", "(volatility is null) = (volatility_rank is null)", "what has a volatility has a rank"),
    ),
)

MART_DIVERSIFICATION = Contract(
    layer=Layer.MART,
    name="mart_diversification",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One sector in one portfolio, as of the newest session of each calendar month.",
    description="Portfolios of sectors by four rules, how diversified they are, and what they changed.",
    source="core/sector_portfolios.",
    columns=(
        *_PORTFOLIO_COLUMNS,
        Column(
            "weight_change",
            "float64",
            "fraction",
            "Weight less that of the month before; null without it.",
            True,
            -1,
            1,
        ),
        Column(
            "turnover",
            "float64",
            "fraction",
            "Half the sum of the sizes of the portfolio's weight changes; null where a sector has none.",
            True,
            0,
        ),
        Column("is_newest", "bool", "true/false", "Whether the row is of the newest session."),
    ),
    key=("session_date", "method", "sector"),
    inputs=("core/sector_portfolios",),
    rules=_explained(tuple(measure.name for measure in _PORTFOLIO)),
)

MART_TRADING_SIGNALS = Contract(
    layer=Layer.MART,
    name="mart_trading_signals",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One signal of one sector on one exchange session.",
    description="Signals with the numbers behind them, since when they hold, and what happened on the session.",
    source="core/sector_signals, stg_trading_sessions.",
    columns=(
        *_SIGNAL_COLUMNS,
        Column(
            "sessions_in_state",
            "int32",
            "sessions",
            "Exchange sessions since since_date, that one included; null without a state.",
            True,
            1,
        ),
        Column(
            "event",
            "string",
            "text",
            "What happened on the session: golden_cross, death_cross, or the signal and its new state; null where "
            "nothing did.",
            True,
        ),
        Column("is_newest", "bool", "true/false", "Whether the row is of the newest session of the table."),
    ),
    key=("sector", "session_date", "signal"),
    inputs=("core/sector_signals", "staging/stg_trading_sessions"),
    rules=(
        *_SIGNAL_RULES,
        RowRule("event_is_new", "(event is not null) = is_new", "an event is a state that has just begun"),
    ),
)

MART_MACRO_EXPOSURE = Contract(
    layer=Layer.MART,
    name="mart_macro_exposure",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One factor in one regression of one sector, as of the newest session of each calendar month.",
    description="How sectors move with oil, yields, volatility and prices beside the market, and which move most.",
    source="core/sector_exposures.",
    columns=(
        *_EXPOSURE_COLUMNS,
        Column(
            "is_significant",
            "bool",
            "true/false",
            "Whether the t-statistic is 1.96 or more in size, which chance gives one time in twenty; null without one.",
            True,
        ),
        Column(
            "exposure_rank",
            "int32",
            "rank, 1 is the largest coefficient",
            "Place of the sector by coefficient, among all in the same regression of the session; null without one.",
            True,
            1,
        ),
        Column("is_newest", "bool", "true/false", "Whether the row is of the newest session of the table."),
    ),
    key=("sector", "session_date", "model", "factor"),
    inputs=("core/sector_exposures",),
    rules=_EXPOSURE_RULES,
)

#: dbt models from staging to the performance mart; Python computes risk from the composites among them.
COMPOSITES = (
    STG_STOCK_PRICES,
    STG_TICKER_RETURNS,
    STG_SECTOR_DATA,
    STG_INDICES,
    STG_TRADING_SESSIONS,
    INT_REFERENCE_SESSIONS,
    INT_SECTOR_RETURNS,
    INT_INDEX_RETURNS,
    INT_PERIOD_RETURNS,
    MART_SECTOR_PERFORMANCE,
)
#: What Python computes from the composites, in the lake.
ANALYTICS = (SECTOR_RISK, SECTOR_CORRELATIONS, SECTOR_VOLATILITY, SECTOR_PORTFOLIOS, SECTOR_SIGNALS, SECTOR_EXPOSURES)
#: dbt models over that.
RISK_MARTS = (
    MART_RISK_METRICS,
    MART_CORRELATIONS,
    MART_VOLATILITY_CLUSTERING,
    MART_DIVERSIFICATION,
    MART_TRADING_SIGNALS,
    MART_MACRO_EXPOSURE,
)
CONTRACTS = (*COMPOSITES, *ANALYTICS, *RISK_MARTS)
