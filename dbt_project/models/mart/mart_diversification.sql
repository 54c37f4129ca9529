-- Grain: one sector in one portfolio, as of the newest session of each calendar month.
-- A sector that was not there the month before has no change, and a portfolio with such a sector no turnover: what was held
-- before and is gone now would be missing from it.

{%- set measures = [
    'weight', 'risk_contribution', 'portfolio_volatility', 'diversification_ratio', 'effective_bets', 'effective_sectors',
] %}

with months as (

    select
        session_date,
        lag(session_date) over (order by session_date) as prior_session_date
    from (select distinct session_date from {{ source('core', 'sector_portfolios') }}) as dates

),

portfolios as (

    select *
    from {{ source('core', 'sector_portfolios') }}

),

changed as (

    select
        portfolios.*,
        before.sector_count as prior_sector_count,
        portfolios.weight - before.weight as weight_change,
        max(portfolios.session_date) over () as newest_date
    from portfolios
    inner join months on portfolios.session_date = months.session_date
    left join portfolios as before
        on months.prior_session_date = before.session_date
        and portfolios.method = before.method
        and portfolios.sector = before.sector

),

turned as (

    select
        *,
        count(weight_change) over (partition by session_date, method) as changes,
        sum({{ as_exact('abs(weight_change)') }}) over (partition by session_date, method) as changed_weight
    from changed

)

select
    session_date,
    method,
    sector,
    session_count,
    sector_count,
    {%- for measure in measures %}
    {{ measure }},
    {{ measure }}_status,
    {%- endfor %}
    weight_change,
    case
        when changes = sector_count and prior_sector_count = sector_count
            then {{ as_float('changed_weight') }} / 2
    end as turnover,
    session_date = newest_date as is_newest
from turned
