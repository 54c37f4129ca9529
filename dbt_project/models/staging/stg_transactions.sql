-- Grain: one transaction that stands.

select
    transaction_id,
    amount,
    currency,
    timestamp_utc,
    date_trunc('hour', timestamp_utc) as hour_ts_utc,
    merchant,
    transaction_category
from {{ source('core', 'transactions') }}
