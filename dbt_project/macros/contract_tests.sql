{#- The data tests that finance_assets/contracts/dbt.py generates for every model. Each returns one row per offence, with the
    name of the rule and the row's key as text, so that Dagster can say which rule broke, how often and where. -#}

{% macro key_as_text(key) -%}
    {%- for column in key -%}
        coalesce(cast({{ adapter.quote(column) }} as varchar), 'null')
        {%- if not loop.last %} || ', ' || {% endif -%}
    {%- endfor -%}
{%- endmacro %}


{#- One row per key. -#}
{% test contract_unique_key(model, key) %}
    {%- set columns = key | map('string') | list -%}
    select
        'one row per {{ columns | join(", ") }}' as rule,
        {{ key_as_text(columns) }} as row_key
    from {{ model }}
    group by {% for column in columns %}{{ adapter.quote(column) }}{{ ', ' if not loop.last }}{% endfor %}
    having count(*) > 1
{% endtest %}


{#- Row rules: `rules` maps a rule's name to an expression that is true for a legal row; null counts as legal. One scan tests
    all; a row that breaks several is returned with the first. -#}
{% test contract_rules(model, key, rules) %}
    select
        case
            {%- for rule, expression in rules.items() %}
            when not coalesce(({{ expression }}), true) then '{{ rule | replace("'", "''") }}'
            {%- endfor %}
        end as rule,
        {{ key_as_text(key) }} as row_key
    from {{ model }}
    where
        {%- for expression in rules.values() %}
        {{ 'or ' if not loop.first }}not coalesce(({{ expression }}), true)
        {%- endfor %}
{% endtest %}


{#- Every value of `column` is a `field` of the relation `to`; null refers to nothing. -#}
{% test contract_references(model, key, column, to, field) %}
    select
        '{{ column }} is a {{ field }} of {{ to.schema }}.{{ to.identifier }}' as rule,
        {{ key_as_text(key) }} as row_key
    from {{ model }}
    where
        {{ adapter.quote(column) }} is not null
        and {{ adapter.quote(column) }} not in (
            select known.{{ adapter.quote(field) }}
            from {{ to }} as known
            where known.{{ adapter.quote(field) }} is not null
        )
{% endtest %}
