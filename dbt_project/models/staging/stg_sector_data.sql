-- Grain: one version of one equity's sector membership.
-- A version ends at its own end or at the start of the ticker's next version, whichever is first, so that a
-- reclassification whose predecessor was never closed counts nobody twice. That is settled over all versions, before those
-- without a sector are left out: a ticker whose sector is no longer known has left the one it was in.

with versions as (

    select
        symbol,
        name as company_name,
        instrument_type,
        gics_sector as sector,
        valid_from,
        valid_to,
        lead(valid_from) over (partition by symbol order by valid_from) as next_valid_from
    from {{ source('raw', 'instruments') }}

)

select
    symbol,
    company_name,
    sector,
    valid_from,
    case
        when next_valid_from is null then valid_to
        when valid_to is null or valid_to > next_valid_from then next_valid_from
        else valid_to
    end as valid_to
from versions
where
    instrument_type = 'equity'
    and sector is not null
