-- Grain: one ticker on one exchange session. Returns are computed upstream, on prices adjusted for corporate actions.
-- A table, not a view: core/ticker_kpis is one file per session, and every test and every model behind this one would open all of
-- them again (thousands of requests where the lake is on S3).

{{ config(materialized='table') }}

select
    symbol,
    session_date,
    total_return,
    return_span_sessions as span_sessions
from {{ source('core', 'ticker_kpis') }}
