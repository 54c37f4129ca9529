-- Grain: one sector on one exchange session, from the session before its first return to the last session with prices.
-- Equal-weight composite, rebalanced daily: the mean of the members' simple total returns over exactly that session. It
-- needs two of them, or the only member's; else it is null, nothing is carried forward, and the next return begins a
-- new chain. finance_assets/contracts/sectors.py states the rules in full.

with sessions as (

    select session_date, session_ordinal
    from {{ ref('stg_trading_sessions') }}

),

memberships as (

    select
        symbol,
        sector,
        valid_from,
        coalesce(valid_to, {{ end_of_time() }}) as valid_to
    from {{ ref('stg_sector_data') }}

),

returns as (

    select symbol, session_date, total_return, span_sessions
    from {{ ref('stg_ticker_returns') }}

),

first_closes as (

    select symbol, min(session_date) as session_date
    from returns
    group by symbol

),

-- A member counts from the day after its first close: until then there is nothing to measure a return from.
measurable_memberships as (

    select
        memberships.sector,
        case
            when first_closes.session_date >= memberships.valid_from then first_closes.session_date + 1
            else memberships.valid_from
        end as measurable_from,
        memberships.valid_to
    from memberships
    inner join first_closes on memberships.symbol = first_closes.symbol

),

member_counts as (

    select
        measurable_memberships.sector,
        sessions.session_date,
        cast(count(*) as integer) as member_count
    from sessions
    inner join measurable_memberships
        on sessions.session_date >= measurable_memberships.measurable_from
        and sessions.session_date < measurable_memberships.valid_to
    group by measurable_memberships.sector, sessions.session_date

),

member_returns as (

    select
        memberships.sector,
        returns.session_date,
        cast(count(*) as integer) as return_count,
        {{ as_float('sum(' ~ as_exact('returns.total_return') ~ ')') }} / count(*) as mean_return
    from returns
    inner join memberships
        on returns.symbol = memberships.symbol
        and returns.session_date >= memberships.valid_from
        and returns.session_date < memberships.valid_to
    where
        returns.total_return is not null
        and returns.span_sessions = 1
    group by memberships.sector, returns.session_date

),

composites as (

    select
        member_counts.sector,
        member_counts.session_date,
        member_counts.member_count,
        coalesce(member_returns.return_count, 0) as return_count,
        case
            when member_returns.return_count >= 2 or member_counts.member_count = 1
                then member_returns.mean_return
        end as daily_return
    from member_counts
    left join member_returns
        on member_counts.sector = member_returns.sector
        and member_counts.session_date = member_returns.session_date

),

last_session as (

    select max(session_date) as session_date
    from {{ ref('stg_stock_prices') }}

),

starts as (

    select
        composites.sector,
        min(sessions.session_ordinal) - 1 as start_ordinal
    from composites
    inner join sessions on composites.session_date = sessions.session_date
    where composites.daily_return is not null
    group by composites.sector

),

grid as (

    select
        starts.sector,
        sessions.session_date,
        case when sessions.session_ordinal = starts.start_ordinal then 1 else 0 end as is_start
    from starts
    inner join sessions on sessions.session_ordinal >= starts.start_ordinal
    inner join last_session on sessions.session_date <= last_session.session_date

),

daily as (

    select
        grid.sector,
        grid.session_date,
        grid.is_start,
        coalesce(composites.member_count, 0) as member_count,
        coalesce(composites.return_count, 0) as return_count,
        composites.daily_return
    from grid
    left join composites
        on grid.sector = composites.sector
        and grid.session_date = composites.session_date

),

chained as (

    select
        *,
        {{ running_chain_start('sector') }} as chain_start_date
    from daily

),

compounded as (

    select
        *,
        {{ total_losses('sector') }} as total_losses,
        {{ log_growth('sector') }} as log_growth
    from chained

)

select
    sector,
    session_date,
    member_count,
    return_count,
    daily_return,
    case
        when daily_return is not null then 'ok'
        when is_start = 1 then 'insufficient_history'
        when return_count = 0 then 'no_data'
        else 'missing_input'
    end as daily_return_status,
    {{ compounded_level() }} as level,
    {{ level_base() }} as chain_start_date,
    -- Nothing that the platform reads says how many shares there are.
    cast(null as double precision) as cap_weighted_return,
    'missing_input' as cap_weighted_return_status
from compounded
