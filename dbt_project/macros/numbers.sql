{#- Sums of floats depend on the order in which threads add them, so two runs over the same rows differ in the last bits.
    Decimals are added exactly, in any order; with 18 places a return loses no more on the way than a float's own rounding. -#}

{% macro as_exact(expression) -%}
    cast({{ expression }} as decimal(38, 18))
{%- endmacro %}

{% macro as_float(expression) -%}
    cast({{ expression }} as double precision)
{%- endmacro %}
