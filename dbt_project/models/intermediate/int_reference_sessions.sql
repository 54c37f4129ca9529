-- Grain: one session of the exchange calendar.
-- The last session on or before a target day is found by laying targets and sessions on one time line and carrying the
-- newest session forward: one sort, where a join on "not after" would compare every day with every other.

with sessions as (

    select
        session_date,
        lag(session_date) over (order by session_date) as prior_session_date
    from {{ ref('stg_trading_sessions') }}

),

targets as (

    {% for period, day in {
        '1m': months_before('session_date', 1),
        '3m': months_before('session_date', 3),
        'ytd': end_of_prior_year('session_date'),
        '1y': months_before('session_date', 12),
    }.items() -%}
    select
        session_date,
        '{{ period }}' as period,
        {{ day }} as target_date
    from sessions
    {{ 'union all' if not loop.last }}
    {% endfor %}

),

time_line as (

    select
        session_date as day,
        0 as is_target,
        session_date as known_session_date,
        cast(null as date) as session_date,
        cast(null as varchar) as period
    from sessions

    union all

    select
        target_date as day,
        1 as is_target,
        cast(null as date) as known_session_date,
        session_date,
        period
    from targets

),

found as (

    select
        session_date,
        period,
        is_target,
        -- On the target day itself the session sorts first, so it counts.
        max(known_session_date) over (
            order by day, is_target rows between unbounded preceding and current row
        ) as reference_date
    from time_line

),

reference_dates as (

    select
        session_date,
        max(case when period = '1m' then reference_date end) as reference_1m_date,
        max(case when period = '3m' then reference_date end) as reference_3m_date,
        max(case when period = 'ytd' then reference_date end) as reference_ytd_date,
        max(case when period = '1y' then reference_date end) as reference_1y_date
    from found
    where is_target = 1
    group by session_date

)

select
    sessions.session_date,
    sessions.prior_session_date as reference_1d_date,
    reference_dates.reference_1m_date,
    reference_dates.reference_3m_date,
    reference_dates.reference_ytd_date,
    reference_dates.reference_1y_date
from sessions
inner join reference_dates on sessions.session_date = reference_dates.session_date
