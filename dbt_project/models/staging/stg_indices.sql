-- Grain: one index, in its newest description.

with versions as (

    select
        symbol as index_symbol,
        name as index_name,
        gics_sector as sector,
        row_number() over (partition by symbol order by valid_from desc) as age
    from {{ source('raw', 'instruments') }}
    where instrument_type = 'index'

)

select
    index_symbol,
    index_name,
    sector,
    index_symbol = '{{ var("benchmark") }}' and sector is null as is_benchmark
from versions
where age = 1
