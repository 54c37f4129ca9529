-- Grain: one category, currency and merchant in one hour.
-- Amounts of different currencies are never added.

select
    hour_ts_utc,
    currency,
    transaction_category,
    merchant,
    count(*) as transaction_count,
    {{ as_exact('sum(amount)') }} as total_amount,
    min(amount) as smallest_amount,
    max(amount) as largest_amount
from {{ ref('stg_transactions') }}
group by hour_ts_utc, currency, transaction_category, merchant
