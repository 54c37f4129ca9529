-- Grain: one sector on one exchange session.
-- Each composite's period returns beside the benchmark's and those of the sector's own index, and its place among the sectors.

{%- set periods = ['1d', '1m', '3m', 'ytd', '1y', 'cumulative'] %}
{%- set measured_periods = ['1d', '1m', '3m', 'ytd', '1y'] %}

with composites as (

    select
        *,
        min(session_date) over (partition by sector) as start_date
    from {{ ref('int_sector_returns') }}

),

period_returns as (

    select *
    from {{ ref('int_period_returns') }}

),

indices as (

    select
        index_symbol,
        session_date,
        is_benchmark,
        daily_return_status,
        level,
        chain_start_date,
        min(session_date) over (partition by index_symbol) as start_date,
        -- Where several indices are of one sector, the first by name stands for it.
        row_number() over (partition by sector, session_date order by index_symbol) as place,
        sector
    from {{ ref('int_index_returns') }}

),

-- The newest beginning of the benchmark's chain that is not after a composite's start tells its level there: a level of
-- its own on that session, or 1.0 where a chain begins on it.
bases as (

    select
        starts.sector,
        market.chain_start_date,
        market.level as market_level
    from (select distinct sector, start_date from composites) as starts
    inner join indices as market
        on market.is_benchmark
        and starts.start_date = market.session_date

),

beside as (

    select
        composites.sector,
        composites.session_date,
        composites.member_count,
        composites.return_count,
        composites.level,
        composites.chain_start_date,
        {%- for period in periods %}
        own.return_{{ period }},
        own.return_{{ period }}_status,
        {%- endfor %}
        market.level as market_level,
        {%- for period in measured_periods %}
        benchmark.return_{{ period }} as market_return_{{ period }},
        coalesce(benchmark.return_{{ period }}_status, 'missing_input') as market_return_{{ period }}_status,
        {%- endfor %}
        -- Over the composite's life, not over the benchmark's.
        case
            when market.session_date is null then 'missing_input'
            when market.level is null then market.daily_return_status
            when market.start_date > composites.start_date then 'insufficient_history'
            when composites.start_date < market.chain_start_date then 'gap'
            when bases.market_level = 0 then 'undefined_denominator'
            else 'ok'
        end as market_return_cumulative_status,
        case
            when composites.start_date = market.chain_start_date then market.level - 1
            when bases.chain_start_date = market.chain_start_date and bases.market_level > 0
                then market.level / bases.market_level - 1
        end as market_return_cumulative,
        {%- for period in periods %}
        sector_index.return_{{ period }} as index_return_{{ period }}
        {{- ',' if not loop.last }}
        {%- endfor %}
    from composites
    inner join period_returns as own
        on own.series_kind = 'sector'
        and composites.sector = own.series
        and composites.session_date = own.session_date
    left join indices as market
        on market.is_benchmark
        and composites.session_date = market.session_date
    left join bases on composites.sector = bases.sector
    left join period_returns as benchmark
        on benchmark.series_kind = 'index'
        and market.index_symbol = benchmark.series
        and market.session_date = benchmark.session_date
    left join indices as own_index
        on composites.sector = own_index.sector
        and composites.session_date = own_index.session_date
        and own_index.place = 1
    left join period_returns as sector_index
        on sector_index.series_kind = 'index'
        and own_index.index_symbol = sector_index.series
        and own_index.session_date = sector_index.session_date

)

select
    sector,
    session_date,
    member_count,
    return_count,
    level,
    chain_start_date,
    {%- for period in periods %}
    return_{{ period }},
    return_{{ period }}_status,
    {%- endfor %}
    market_level,
    {%- for period in periods %}
    market_return_{{ period }},
    market_return_{{ period }}_status,
    return_{{ period }} - market_return_{{ period }} as relative_return_{{ period }},
    index_return_{{ period }},
    case
        when return_{{ period }} is not null
            then cast(rank() over (partition by session_date order by return_{{ period }} desc nulls last) as integer)
    end as rank_{{ period }}
    {{- ',' if not loop.last }}
    {%- endfor %}
from beside
