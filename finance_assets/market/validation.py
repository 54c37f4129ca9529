"""Which raw quotes are good, and why the others are not.

What belongs here: the rules between ``raw/quotes`` and ``core/quotes``, and the reading of splits and dividends out of
the same rows. A row is accepted or rejected with one reason, the first that applies; none is dropped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from finance_assets.contracts.market import CORPORATE_ACTIONS, QUOTES, QUOTES_RAW, REJECTED_QUOTES

if TYPE_CHECKING:
    import pyarrow as pa


def _said(*names: str) -> str:
    """Return SQL for ``name value, name value``."""
    return "concat(" + ", ', ', ".join(f"'{name} ', coalesce({name}::varchar, 'null')" for name in names) + ")"


#: Reason -> (SQL condition on a raw row, SQL text of the detail); in the order in which they are tried.
RULES: dict[str, tuple[str, str]] = {
    # Providers refuse an action that cannot be right; a price beside one that slipped through cannot be compared.
    "unreadable_value": (
        "parse_error is not null or dividend_amount < 0 or split_ratio <= 0 or not isfinite(split_ratio)",
        f"coalesce(parse_error, {_said('split_ratio', 'dividend_amount')})",
    ),
    "not_a_session": (
        "quote_date <> session_date",
        "concat(quote_date, ' is no session of the exchange; the next one is ', session_date)",
    ),
    "missing_close": ("close is null", "'the provider gave no close'"),
    "missing_currency": ("currency is null", "'the provider gave no currency'"),
    "non_positive_price": (
        "least(coalesce(open, 1), coalesce(high, 1), coalesce(low, 1), close) <= 0",
        _said("open", "high", "low", "close"),
    ),
    "negative_volume": ("volume < 0", _said("volume")),
    "high_below_low": ("high < low", _said("high", "low")),
    "price_outside_range": (
        "greatest(coalesce(open, close), close) > high or least(coalesce(open, close), close) < low",
        _said("open", "close", "low", "high"),
    ),
}
#: A row refused for its prices still tells the truth about a split; one that is misread, misplaced or double does not.
_REASONS_WITHOUT_ACTIONS = ("unreadable_value", "not_a_session", "duplicate")


class ValidatedQuotes(NamedTuple):
    """Raw rows, sorted into what is good, what is not, and what adjusts prices."""

    quotes: pa.Table
    rejected: pa.Table
    actions: pa.Table


def validate_quotes(raw: pa.Table) -> ValidatedQuotes:
    """Sort raw quotes into accepted and rejected rows, and read their corporate actions.

    Parameters
    ----------
    raw
        Rows of ``raw/quotes``.

    Returns
    -------
    ValidatedQuotes
        ``quotes`` and ``rejected`` together hold every raw row once. Of several good rows of one ticker and
        session the first in the provider's answer stands; the others are rejected as duplicates, and the detail
        says whether they agree with it. ``actions`` holds one row per split and dividend.
    """
    import duckdb

    cases = "\n".join(f"when {condition} then '{reason}'" for reason, (condition, _) in RULES.items())
    details = "\n".join(f"when reason = '{reason}' then {detail}" for reason, (_, detail) in RULES.items())
    raw_columns = ", ".join(f'"{name}"' for name in QUOTES_RAW.column_names)
    quote_columns = ", ".join(f'"{name}"' for name in QUOTES.column_names)
    without_actions = ", ".join(f"'{reason}'" for reason in _REASONS_WITHOUT_ACTIONS)
    with duckdb.connect() as connection:
        connection.execute("set timezone = 'UTC'")
        connection.register("raw", raw)
        connection.execute(
            f"""
            create temp table judged as
            with tried as (
                select *, case {cases} end as reason from raw
            ),
            doubled as (
                select symbol, session_date from tried where reason is null
                group by symbol, session_date having count(*) > 1
            ),
            ranked as (
                select
                    *,
                    row_number() over day as place,
                    first_value(row(open, high, low, close, volume)) over day as standing
                from (select * from tried semi join doubled using (symbol, session_date) where reason is null)
                window day as (
                    partition by symbol, session_date
                    order by quote_date, row_number, fetched_ts_utc
                    rows between unbounded preceding and unbounded following
                )
                union all
                select *, 1, null from tried anti join doubled using (symbol, session_date) where reason is null
                union all
                select *, 1, null from tried where reason is not null
            )
            select
                * exclude (reason, place, standing),
                case when reason is null and place > 1 then 'duplicate' else reason end as reason,
                case
                    {details}
                    when reason is null and place > 1 and row(open, high, low, close, volume) is distinct from standing
                        then concat('a second row for the day, with other values than the first: ', standing)
                    when reason is null and place > 1 then 'a second row for the day, with the same values'
                end as detail
            from ranked
            """
        )
        quotes = connection.execute(
            f"select {quote_columns} from judged where reason is null order by session_date, symbol"
        ).to_arrow_table()
        rejected = connection.execute(
            f"select {raw_columns}, reason, detail from judged where reason is not null"
        ).to_arrow_table()
        # One row per action: of several raw rows that state it a good one, else the first in the answer.
        actions = connection.execute(
            f"""
            with stated as (
                select * from judged
                where (reason is null or reason not in ({without_actions})) and currency is not null
            ),
            listed as (
                select symbol, session_date as ex_date, 'split' as action_type, split_ratio,
                    null::decimal(18, 8) as cash_amount, *
                from stated where split_ratio <> 1
                union all
                select symbol, session_date as ex_date, 'dividend' as action_type, null::double as split_ratio,
                    dividend_amount as cash_amount, *
                from stated where dividend_amount > 0
            )
            select symbol, ex_date, action_type, split_ratio, cash_amount, currency,
                coalesce(action_derivation, 'reported') as derivation, provider, fetched_ts_utc
            from listed
            qualify row_number() over (
                partition by symbol, ex_date, action_type order by reason is not null, quote_date, row_number
            ) = 1
            """
        ).to_arrow_table()
    assert quotes.num_rows + rejected.num_rows == raw.num_rows, "a raw row was lost or doubled"
    assert set(rejected.column_names) == set(REJECTED_QUOTES.column_names)
    assert set(actions.column_names) == set(CORPORATE_ACTIONS.column_names)
    return ValidatedQuotes(quotes, rejected, actions)
