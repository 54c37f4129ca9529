{#- How daily returns compound to levels, for composites and indices alike. A session without a return ends the chain: the
    level is null there, and the next return begins a new one from 1.0 on the session before it. Columns expected in scope:
    session_date, daily_return and is_start (1 on the first session of a series). `series` names the column to go by. -#}

{#- The newest session without a return: where the running chain begins. -#}
{% macro running_chain_start(series) -%}
    max(case when daily_return is null then session_date end) over (
        partition by {{ series }}
        order by session_date
        rows between unbounded preceding and current row
    )
{%- endmacro %}

{#- A loss of everything has no logarithm and no way back: it is counted, and the level stays at 0. -#}
{% macro total_losses(series) -%}
    sum(case when daily_return <= -1 then 1 else 0 end) over (
        partition by {{ series }}, chain_start_date
        order by session_date
        rows between unbounded preceding and current row
    )
{%- endmacro %}

{% macro log_growth(series) -%}
    sum({{ as_exact('case when daily_return > -1 then ln(1 + daily_return) else 0 end') }}) over (
        partition by {{ series }}, chain_start_date
        order by session_date
        rows between unbounded preceding and current row
    )
{%- endmacro %}

{#- The level, from the columns total_losses and log_growth. -#}
{% macro compounded_level() -%}
    case
        when daily_return is null and is_start = 0 then null
        when total_losses > 0 then {{ as_float('0') }}
        else exp({{ as_float('log_growth') }})
    end
{%- endmacro %}

{#- Since when the level counts; null where there is none. -#}
{% macro level_base() -%}
    case when daily_return is not null or is_start = 1 then chain_start_date end
{%- endmacro %}
