{#- Set-based parts of the risk marts. -#}

{#- Annualised sample deviation of the last `length` rows; null before a full window. A window of equal values gives 0: the
    deviation of floats would leave a rounding. -#}
{% macro annual_deviation(column, partition, length) -%}
    {%- set frame -%}
        partition by {{ partition }} order by session_date rows between {{ length - 1 }} preceding and current row
    {%- endset -%}
    case
        when count({{ column }}) over ({{ frame }}) < {{ length }} then null
        when min({{ column }}) over ({{ frame }}) = max({{ column }}) over ({{ frame }}) then {{ as_float('0') }}
        else stddev_samp({{ column }}) over ({{ frame }}) * sqrt({{ as_float('252') }})
    end
{%- endmacro %}

{#- Names of the measures of core/sector_risk, in the order of the contract. -#}
{% macro risk_measures() -%}
    {%- set names = [
        'volatility', 'compound_annual_growth', 'sharpe_ratio', 'sortino_ratio', 'omega_ratio',
        'alpha', 'alpha_annual', 'alpha_t', 'beta', 'beta_t', 'r_squared',
        'treynor_ratio', 'tracking_error', 'information_ratio', 'm_squared', 'relative_volatility',
    ] -%}
    {%- for confidence in ['95', '975', '99'] -%}
        {%- for tail in ['var_historical', 'var_gaussian', 'var_cornish_fisher', 'es_historical', 'es_gaussian'] -%}
            {%- do names.append(tail ~ '_' ~ confidence) -%}
        {%- endfor -%}
    {%- endfor -%}
    {%- do names.extend(['max_drawdown', 'current_drawdown', 'calmar_ratio', 'ulcer_index', 'pain_index']) -%}
    {{ return(names) }}
{%- endmacro %}

{#- The columns of core/sector_volatility that have a status beside them. -#}
{% macro clustering_measures() -%}
    {%- set names = [] -%}
    {%- for lag in range(1, 21) -%}
        {%- do names.append('abs_return_acf_' ~ lag) -%}
    {%- endfor -%}
    {%- do names.extend([
        'ljung_box', 'ljung_box_p', 'arch_lm', 'arch_lm_p', 'garch_omega', 'garch_alpha', 'garch_beta',
        'garch_persistence', 'garch_half_life', 'garch_volatility', 'ewma_volatility',
    ]) -%}
    {{ return(names) }}
{%- endmacro %}
