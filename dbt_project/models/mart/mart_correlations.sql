-- Grain: one series with one other on one exchange session, in both orders, and each with itself.
-- Upstream each pair is computed once; a heat map wants the whole square.

with pairs as (

    select
        *,
        lag(correlation_30, 21) over (partition by series, other_series order by session_date) as correlation_30_before
    from {{ source('core', 'sector_correlations') }}

),

square as (

    select
        series,
        other_series,
        session_date,
        correlation_30,
        correlation_30_status,
        correlation_252,
        correlation_252_status,
        correlation_full,
        correlation_full_status,
        correlation_30_before
    from pairs

    union all

    select
        other_series as series,
        series as other_series,
        session_date,
        correlation_30,
        correlation_30_status,
        correlation_252,
        correlation_252_status,
        correlation_full,
        correlation_full_status,
        correlation_30_before
    from pairs
    where series <> other_series

),

benchmarks as (

    select index_symbol
    from {{ ref('stg_indices') }}
    where is_benchmark

)

select
    square.series,
    square.other_series,
    square.session_date,
    benchmarks.index_symbol is not null as with_benchmark,
    square.correlation_30,
    square.correlation_30_status,
    square.correlation_252,
    square.correlation_252_status,
    square.correlation_full,
    square.correlation_full_status,
    square.correlation_30 - square.correlation_30_before as correlation_30_change
from square
left join benchmarks
    on square.series = benchmarks.index_symbol
    or square.other_series = benchmarks.index_symbol
