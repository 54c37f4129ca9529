-- Grain: one message that was received, by what became of it.
-- The four core tables put together. A message that were in two of them would break the key, one that is in none the
-- control total.

with outcomes as (

    select message_id, received_ts_utc, 'accepted' as resolution, currency, amount
    from {{ source('core', 'transactions') }}

    union all

    select message_id, received_ts_utc, 'duplicate' as resolution, currency, amount
    from {{ source('core', 'duplicate_transactions') }}

    union all

    select message_id, received_ts_utc, 'conflict' as resolution, currency, amount
    from {{ source('core', 'transaction_conflicts') }}

    union all

    -- What a rejected message means is not known: it counts as a message, and has no amount.
    select
        message_id,
        received_ts_utc,
        'rejected' as resolution,
        'XXX' as currency,
        {{ as_exact('null') }} as amount
    from {{ source('core', 'rejected_transactions') }}

)

select
    message_id,
    cast(received_ts_utc as date) as received_date,
    resolution,
    currency,
    amount
from outcomes
