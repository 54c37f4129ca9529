{#- Calendar arithmetic on dates, in the few dialects whose spelling differs. -#}

{#- The day `months` calendar months before a date; a day that the month does not have becomes its last one. -#}
{% macro months_before(date, months) -%}
    {{ return(adapter.dispatch('months_before', 'finance_assets')(date, months)) }}
{%- endmacro %}

{% macro default__months_before(date, months) -%}
    cast({{ date }} - interval '{{ months }} months' as date)
{%- endmacro %}

{#- dateadd clips; add_months would also turn the last day of a month into the last day of the other. -#}
{% macro redshift__months_before(date, months) -%}
    cast(dateadd(month, -{{ months }}, {{ date }}) as date)
{%- endmacro %}

{#- The last day of the calendar year before a date's. -#}
{% macro end_of_prior_year(date) -%}
    cast(date_trunc('year', {{ date }}) as date) - 1
{%- endmacro %}

{#- A date after every other, for an interval without an end. -#}
{% macro end_of_time() -%}
    cast('9999-12-31' as date)
{%- endmacro %}
