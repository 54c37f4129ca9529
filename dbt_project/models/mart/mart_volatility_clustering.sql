-- Grain: one composite or benchmark, as of the newest session of each calendar quarter.

with estimates as (

    select *
    from {{ source('core', 'sector_volatility') }}

)

select
    series,
    session_date,
    return_count,
    window_start_date,
    {%- for measure in clustering_measures() %}
    {{ measure }},
    {{ measure }}_status,
    {%- endfor %}
    volatility,
    volatility_model,
    is_clustered,
    case
        when volatility is not null
            then cast(rank() over (partition by session_date order by volatility desc nulls last) as integer)
    end as volatility_rank,
    session_date = max(session_date) over (partition by series) as is_newest
from estimates
