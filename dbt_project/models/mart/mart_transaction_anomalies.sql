-- Grain: one currency in one hour of the last 366 days, from the currency's first transaction to the last hour of all,
-- hours without any transaction included. The bound is there because a sender's clock may be centuries behind.
-- The reference of an hour is the same hour of the day on the 20 days before: it knows the rhythm of a day, and the hour
-- itself is no part of it. Score after Iglewicz and Hoaglin (1993): 0.67449 (x - median) / MAD, an anomaly above 3.5.

{%- set days = 20 %}
{%- set shown_days = 366 %}
{%- set measures = {'count': 'transaction_count', 'value': 'total_amount'} %}

with traded as (

    select
        currency,
        hour_ts_utc,
        count(*) as transaction_count,
        {{ as_exact('sum(amount)') }} as total_amount
    from {{ ref('stg_transactions') }}
    group by currency, hour_ts_utc

),

currencies as (

    select currency, min(hour_ts_utc) as first_hour
    from traded
    group by currency

),

last_hour as (

    select max(hour_ts_utc) as hour_ts_utc
    from traded

),

digits as (

    {%- for digit in range(10) %}
    select {{ digit }} as digit
    {{- ' union all' if not loop.last }}
    {%- endfor %}

),

-- Counted out from digits: Redshift generates series on its leader alone.
hours_before_last as (

    select ones.digit + 10 * tens.digit + 100 * hundreds.digit + 1000 * thousands.digit as hours_before
    from digits as ones
    cross join digits as tens
    cross join digits as hundreds
    cross join digits as thousands

),

all_hours as (

    select
        hours_before_last.hours_before,
        {{ hours_after('last_hour.hour_ts_utc', '(-hours_before_last.hours_before)') }} as hour_ts_utc
    from last_hour
    cross join hours_before_last
    where hours_before_last.hours_before < {{ 24 * (shown_days + days) }}

),

hourly as (

    select
        currencies.currency,
        currencies.first_hour,
        all_hours.hour_ts_utc,
        all_hours.hours_before < {{ 24 * shown_days }} as is_shown,
        coalesce(traded.transaction_count, 0) as transaction_count,
        {{ as_exact('coalesce(traded.total_amount, 0)') }} as total_amount
    from currencies
    inner join all_hours on all_hours.hour_ts_utc >= currencies.first_hour
    left join traded
        on currencies.currency = traded.currency
        and all_hours.hour_ts_utc = traded.hour_ts_utc

),

day_numbers as (

    {%- for day in range(1, days + 1) %}
    select {{ day }} as days_before
    {{- ' union all' if not loop.last }}
    {%- endfor %}

),

-- Only hours whose reference is whole.
pairs as (

    select
        hourly.currency,
        hourly.hour_ts_utc,
        {%- for measure, column in measures.items() %}
        {{ as_float('earlier.' ~ column) }} as {{ measure }}_value
        {{- ',' if not loop.last }}
        {%- endfor %}
    from hourly
    cross join day_numbers
    inner join hourly as earlier
        on hourly.currency = earlier.currency
        and earlier.hour_ts_utc = {{ hours_after('hourly.hour_ts_utc', '(-24 * day_numbers.days_before)') }}
    where
        hourly.is_shown
        and hourly.hour_ts_utc >= {{ hours_after('hourly.first_hour', 24 * days) }}

),

medians as (

    select
        currency,
        hour_ts_utc,
        {%- for measure in measures %}
        percentile_cont(0.5) within group (order by {{ measure }}_value) as {{ measure }}_median
        {{- ',' if not loop.last }}
        {%- endfor %}
    from pairs
    group by currency, hour_ts_utc

),

deviations as (

    select
        pairs.currency,
        pairs.hour_ts_utc,
        {%- for measure in measures %}
        min(medians.{{ measure }}_median) as {{ measure }}_median,
        percentile_cont(0.5) within group (
            order by abs(pairs.{{ measure }}_value - medians.{{ measure }}_median)
        ) as {{ measure }}_mad
        {{- ',' if not loop.last }}
        {%- endfor %}
    from pairs
    inner join medians
        on pairs.currency = medians.currency
        and pairs.hour_ts_utc = medians.hour_ts_utc
    group by pairs.currency, pairs.hour_ts_utc

),

scored as (

    select
        hourly.currency,
        hourly.hour_ts_utc,
        hourly.transaction_count,
        hourly.total_amount,
        {%- for measure, column in measures.items() %}
        case
            when deviations.currency is null then 'insufficient_history'
            when
                deviations.{{ measure }}_mad
                <= 1e-12 * greatest({{ as_float('1') }}, abs(deviations.{{ measure }}_median))
                then 'zero_variance'
            else 'ok'
        end as {{ measure }}_score_status,
        case
            when
                deviations.{{ measure }}_mad
                > 1e-12 * greatest({{ as_float('1') }}, abs(deviations.{{ measure }}_median))
                then
                    0.67449 * ({{ as_float('hourly.' ~ column) }} - deviations.{{ measure }}_median)
                    / deviations.{{ measure }}_mad
        end as {{ measure }}_score
        {{- ',' if not loop.last }}
        {%- endfor %}
    from hourly
    left join deviations
        on hourly.currency = deviations.currency
        and hourly.hour_ts_utc = deviations.hour_ts_utc
    where hourly.is_shown

)

select
    currency,
    hour_ts_utc,
    transaction_count,
    total_amount,
    {%- for measure in measures %}
    {{ as_float(measure ~ '_score') }} as {{ measure }}_score,
    {{ measure }}_score_status,
    {{ measure }}_score > 3.5 as is_{{ measure }}_anomaly
    {{- ',' if not loop.last }}
    {%- endfor %}
from scored
