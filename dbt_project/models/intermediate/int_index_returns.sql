-- Grain: one index on one exchange session, from the session before its first return to the last with prices.
-- An index is a composite that somebody else has made: its return counts where it spans exactly one session, and its level
-- compounds by the rules of ours (macros/levels.sql).

with sessions as (

    select session_date, session_ordinal
    from {{ ref('stg_trading_sessions') }}

),

indices as (

    select index_symbol, sector, is_benchmark
    from {{ ref('stg_indices') }}

),

returns as (

    select
        indices.index_symbol,
        returned.session_date,
        returned.total_return as daily_return
    from indices
    inner join {{ ref('stg_ticker_returns') }} as returned
        on indices.index_symbol = returned.symbol
    where
        returned.total_return is not null
        and returned.span_sessions = 1

),

last_session as (

    select max(session_date) as session_date
    from {{ ref('stg_stock_prices') }}

),

starts as (

    select
        returns.index_symbol,
        min(sessions.session_ordinal) - 1 as start_ordinal
    from returns
    inner join sessions on returns.session_date = sessions.session_date
    group by returns.index_symbol

),

daily as (

    select
        starts.index_symbol,
        sessions.session_date,
        case when sessions.session_ordinal = starts.start_ordinal then 1 else 0 end as is_start,
        returns.daily_return
    from starts
    inner join sessions on sessions.session_ordinal >= starts.start_ordinal
    inner join last_session on sessions.session_date <= last_session.session_date
    left join returns
        on starts.index_symbol = returns.index_symbol
        and sessions.session_date = returns.session_date

),

chained as (

    select
        *,
        {{ running_chain_start('index_symbol') }} as chain_start_date
    from daily

),

compounded as (

    select
        *,
        {{ total_losses('index_symbol') }} as total_losses,
        {{ log_growth('index_symbol') }} as log_growth
    from chained

)

select
    compounded.index_symbol,
    compounded.session_date,
    indices.sector,
    indices.is_benchmark,
    compounded.daily_return,
    case
        when compounded.daily_return is not null then 'ok'
        when compounded.is_start = 1 then 'insufficient_history'
        else 'no_data'
    end as daily_return_status,
    {{ compounded_level() }} as level,
    {{ level_base() }} as chain_start_date
from compounded
inner join indices on compounded.index_symbol = indices.index_symbol
