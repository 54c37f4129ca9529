{#- Arithmetic on hours, in the few dialects whose spelling differs. -#}

{#- The instant `hours` hours after another. -#}
{% macro hours_after(instant, hours) -%}
    {{ return(adapter.dispatch('hours_after', 'finance_assets')(instant, hours)) }}
{%- endmacro %}

{% macro default__hours_after(instant, hours) -%}
    {{ instant }} + interval '1 hour' * {{ hours }}
{%- endmacro %}

{% macro redshift__hours_after(instant, hours) -%}
    dateadd(hour, {{ hours }}, {{ instant }})
{%- endmacro %}
