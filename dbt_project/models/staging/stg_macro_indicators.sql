-- Grain: one series on one exchange session on which something of it was known.

select
    series_id,
    session_date,
    series_name,
    unit,
    frequency,
    cast(value as double precision) as value,
    cast(lag(value) over (partition by series_id order by session_date) as double precision) as previous_value,
    reference_date,
    release_date,
    release_basis,
    is_new
from {{ source('core', 'macro_indicators') }}
where value is not null
