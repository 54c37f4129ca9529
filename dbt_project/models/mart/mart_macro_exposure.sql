-- Grain: one factor in one regression of one sector, as of the newest session of each calendar month.

with exposures as (

    select *
    from {{ source('core', 'sector_exposures') }}

)

select
    sector,
    session_date,
    model,
    factor,
    transform,
    coefficient,
    coefficient_status,
    standard_error,
    t_statistic,
    variance_inflation,
    r_squared,
    adjusted_r_squared,
    month_count,
    window_start_date,
    newey_west_lags,
    abs(t_statistic) >= {{ as_float('1.96') }} as is_significant,
    case
        when coefficient is not null
            then cast(
                rank() over (partition by session_date, model, factor order by coefficient desc nulls last) as integer
            )
    end as exposure_rank,
    session_date = max(session_date) over () as is_newest
from exposures
