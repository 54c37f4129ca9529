-- Grain: one series on one exchange session on which something of it was known.

select
    series_id,
    session_date,
    series_name,
    unit,
    frequency,
    published_value,
    lag(published_value) over (partition by series_id order by session_date) as previous_published_value,
    reference_date,
    release_date,
    release_basis,
    is_new
from {{ source('core', 'macro_indicators') }}
where published_value is not null
