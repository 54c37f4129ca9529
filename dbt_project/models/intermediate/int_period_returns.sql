-- Grain: one composite or index on one exchange session.
-- Period returns: the level over that of the period's reference session, less one. Across a break in the daily returns there
-- is none, because the level starts again; see finance_assets/contracts/sectors.py.

{%- set periods = ['1d', '1m', '3m', 'ytd', '1y'] %}

with series_levels as (

    select
        'sector' as series_kind,
        sector as series,
        session_date,
        daily_return_status,
        level,
        chain_start_date
    from {{ ref('int_sector_returns') }}

    union all

    select
        'index' as series_kind,
        index_symbol as series,
        session_date,
        daily_return_status,
        level,
        chain_start_date
    from {{ ref('int_index_returns') }}

),

composites as (

    select
        *,
        min(session_date) over (partition by series_kind, series) as start_date
    from series_levels

),

reference_sessions as (

    select *
    from {{ ref('int_reference_sessions') }}

),

measured as (

    select
        composites.*,
        {%- for period in periods %}
        reference_sessions.reference_{{ period }}_date,
        reference_{{ period }}.level as reference_{{ period }}_level
        {{- ',' if not loop.last }}
        {%- endfor %}
    from composites
    inner join reference_sessions on composites.session_date = reference_sessions.session_date
    {%- for period in periods %}
    left join composites as reference_{{ period }}
        on composites.series_kind = reference_{{ period }}.series_kind
        and composites.series = reference_{{ period }}.series
        and reference_sessions.reference_{{ period }}_date = reference_{{ period }}.session_date
    {%- endfor %}

)

select
    series_kind,
    series,
    session_date,
    {%- for period in periods %}
    {{ period_return(period) }} as return_{{ period }},
    {{ period_status(period) }} as return_{{ period }}_status,
    {%- endfor %}
    -- Since the start, where it is 0; after a break that return is not known any more.
    case
        when chain_start_date = start_date then level - 1
    end as return_cumulative,
    case
        when level is null then daily_return_status
        when chain_start_date > start_date then 'gap'
        else 'ok'
    end as return_cumulative_status
from measured
