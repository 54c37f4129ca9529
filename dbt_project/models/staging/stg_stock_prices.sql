-- Grain: one ticker on one exchange session.

select
    symbol,
    session_date,
    close as close_price,
    volume,
    currency,
    price_basis
from {{ source('core', 'quotes') }}
