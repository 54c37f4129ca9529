-- Grain: one ticker on one exchange session.
-- A table, not a view: core/quotes is one file per session, and every test and every model behind this one would open all of
-- them again (thousands of requests where the lake is on S3).

{{ config(materialized='table') }}

select
    symbol,
    session_date,
    close as close_price,
    volume,
    currency,
    price_basis
from {{ source('core', 'quotes') }}
