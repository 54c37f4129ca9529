-- Grain: one message that was received, whatever became of it.
-- Straight from raw, past the tables that it is compared with. Micro-batches that are not settled yet are left out: the
-- next settlement takes them. A message that the queue delivered again stands in several micro-batches and counts once,
-- as in the one that became known first.

with deliveries as (

    select
        messages.message_id,
        messages.received_ts_utc,
        coalesce(messages.currency, 'XXX') as currency,
        messages.amount,
        row_number() over (
            partition by messages.message_id
            order by arrivals.sequence, arrivals.ordinal
        ) as delivery
    from {{ source('raw', 'transactions') }} as messages
    inner join {{ source('core', 'transaction_arrivals') }} as arrivals
        on messages.batch_sha256 = arrivals.batch_sha256

)

select
    message_id,
    cast(received_ts_utc as date) as received_date,
    currency,
    amount
from deliveries
where delivery = 1
