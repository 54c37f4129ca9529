-- Grain: one sector, one exchange session, one window.
-- Rolling deviations are set-based and computed here; regressions, tails and drawdowns are computed upstream in
-- finance_assets.sectors.risk, and only joined.

with sectors as (

    select sector, session_date, daily_return
    from {{ ref('int_sector_returns') }}

),

market as (

    select session_date, daily_return
    from {{ ref('int_index_returns') }}
    where is_benchmark

),

-- Windows count the returns that are there, so that sessions without one are left out before.
own_deviations as (

    select
        sector,
        session_date,
        {{ annual_deviation('daily_return', 'sector', 30) }} as volatility_30
    from sectors
    where daily_return is not null

),

paired as (

    select
        sectors.sector,
        sectors.session_date,
        sectors.daily_return,
        market.daily_return as market_return
    from sectors
    inner join market on sectors.session_date = market.session_date
    where
        sectors.daily_return is not null
        and market.daily_return is not null

),

paired_deviations as (

    select
        sector,
        session_date,
        {{ annual_deviation('daily_return', 'sector', 30) }} as volatility,
        {{ annual_deviation('market_return', 'sector', 30) }} as market_volatility
    from paired

),

has_market as (

    select count(*) as sessions
    from market

),

rolling as (

    select
        sectors.sector,
        sectors.session_date,
        own_deviations.volatility_30,
        case
            when sectors.daily_return is null then 'no_data'
            when own_deviations.volatility_30 is null then 'insufficient_history'
            else 'ok'
        end as volatility_30_status,
        case
            when sectors.daily_return is null then 'no_data'
            when has_market.sessions = 0 then 'missing_input'
            when paired_deviations.sector is null then 'no_data'
            when paired_deviations.market_volatility is null then 'insufficient_history'
            when paired_deviations.market_volatility = 0 then 'zero_variance'
            else 'ok'
        end as relative_volatility_30_status,
        case
            when paired_deviations.market_volatility > 0
                then paired_deviations.volatility / paired_deviations.market_volatility
        end as relative_volatility_30
    from sectors
    cross join has_market
    left join own_deviations
        on sectors.sector = own_deviations.sector
        and sectors.session_date = own_deviations.session_date
    left join paired_deviations
        on sectors.sector = paired_deviations.sector
        and sectors.session_date = paired_deviations.session_date

)

{%- set measures = risk_measures() %}

select
    risk.sector,
    risk.session_date,
    risk.risk_window,
    rolling.volatility_30,
    rolling.volatility_30_status,
    rolling.relative_volatility_30,
    rolling.relative_volatility_30_status,
    risk.return_count,
    risk.window_start_date,
    risk.window_missing_sessions,
    risk.risk_free_rate,
    {%- for measure in measures %}
    risk.{{ measure }},
    risk.{{ measure }}_status,
    {%- endfor %}
    risk.drawdown_peak_date,
    risk.drawdown_trough_date,
    risk.drawdown_recovery_date,
    risk.drawdown_sessions
from {{ source('core', 'sector_risk') }} as risk
inner join rolling
    on risk.sector = rolling.sector
    and risk.session_date = rolling.session_date
