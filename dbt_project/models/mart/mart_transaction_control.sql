-- Grain: one currency on one day of receipt.
-- What was received, counted in raw, against what became of it, counted in the core tables.

{%- set parts = ['accepted', 'duplicate', 'conflict'] %}

with received as (

    select
        received_date,
        currency,
        count(*) as message_count,
        {{ as_exact('coalesce(sum(amount), 0)') }} as total_amount
    from {{ ref('int_received_transactions') }}
    group by received_date, currency

),

outcomes as (

    select
        received_date,
        currency,
        {%- for part in parts %}
        count(case when resolution = '{{ part }}' then 1 end) as {{ part }}_count,
        {{ as_exact("coalesce(sum(case when resolution = '" ~ part ~ "' then amount end), 0)") }} as {{ part }}_amount,
        {%- endfor %}
        count(case when resolution = 'rejected' then 1 end) as rejected_count
    from {{ ref('int_transaction_outcomes') }}
    group by received_date, currency

),

-- A day and currency that only one of the two knows is what this table is there to show.
compared as (

    select
        coalesce(received.received_date, outcomes.received_date) as received_date,
        coalesce(received.currency, outcomes.currency) as currency,
        coalesce(received.message_count, 0) as received_count,
        {{ as_exact('coalesce(received.total_amount, 0)') }} as received_amount,
        {%- for part in parts %}
        coalesce(outcomes.{{ part }}_count, 0) as {{ part }}_count,
        {{ as_exact('coalesce(outcomes.' ~ part ~ '_amount, 0)') }} as {{ part }}_amount,
        {%- endfor %}
        coalesce(outcomes.rejected_count, 0) as rejected_count
    from received
    full outer join outcomes
        on received.received_date = outcomes.received_date
        and received.currency = outcomes.currency

)

select
    *,
    received_count = accepted_count + duplicate_count + conflict_count + rejected_count
    and received_amount = accepted_amount + duplicate_amount + conflict_amount as ties
from compared
