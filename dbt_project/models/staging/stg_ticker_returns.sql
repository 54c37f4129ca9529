-- Grain: one ticker on one exchange session. Returns are computed upstream, on prices adjusted for corporate actions.

select
    symbol,
    session_date,
    total_return,
    return_span_sessions as span_sessions
from {{ source('core', 'ticker_kpis') }}
