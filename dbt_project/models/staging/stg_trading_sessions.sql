-- Grain: one session of the exchange calendar.

select
    session_date,
    session_ordinal,
    is_early_close
from {{ source('raw', 'trading_sessions') }}
