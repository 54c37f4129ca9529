{#- A return over a period is the level over that of a reference session, less one. It exists only within one chain of
    daily returns. Columns expected in scope: level, level_status, session_date, chain_start_date, start_date (the
    composite's first session), reference_<period>_date and reference_<period>_level. -#}

{#- The level on the reference session. The session before a chain's first return holds no level of its own after a break,
    but the chain starts from 1.0 on it. -#}
{% macro base_level(period) -%}
    case
        when reference_{{ period }}_date = chain_start_date then {{ as_float('1') }}
        else reference_{{ period }}_level
    end
{%- endmacro %}

{% macro period_status(period) -%}
    case
        when level is null then daily_return_status
        when reference_{{ period }}_date is null or reference_{{ period }}_date < start_date
            then 'insufficient_history'
        when reference_{{ period }}_date < chain_start_date then 'gap'
        when {{ base_level(period) }} = 0 then 'undefined_denominator'
        else 'ok'
    end
{%- endmacro %}

{% macro period_return(period) -%}
    case
        when {{ period_status(period) }} = 'ok' then level / {{ base_level(period) }} - 1
    end
{%- endmacro %}
