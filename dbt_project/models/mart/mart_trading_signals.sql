-- Grain: one signal of one sector on one exchange session.

with signals as (

    select
        *,
        max(session_date) over () as newest_date
    from {{ source('core', 'sector_signals') }}

),

sessions as (

    select session_date, session_ordinal
    from {{ ref('stg_trading_sessions') }}

)

select
    signals.sector,
    signals.session_date,
    signals.signal,
    signals.state,
    signals.state_status,
    signals.since_date,
    signals.is_new,
    signals.value,
    signals.reference_value,
    cast(today.session_ordinal - began.session_ordinal + 1 as integer) as sessions_in_state,
    case
        when not signals.is_new then null
        when signals.signal = 'trend' and signals.state = 'bullish' then 'golden_cross'
        when signals.signal = 'trend' and signals.state = 'bearish' then 'death_cross'
        else signals.signal || ' ' || signals.state
    end as event,
    signals.session_date = signals.newest_date as is_newest
from signals
inner join sessions as today on signals.session_date = today.session_date
left join sessions as began on signals.since_date = began.session_date
