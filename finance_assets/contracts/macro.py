"""Contracts of the macro branch: published numbers with the day each became known, and what was known on a session.

What belongs here: tables whose group is ``macro``.
"""

from __future__ import annotations

from finance_assets.contracts.model import Column, Contract, Layer, RowRule, Store
from finance_assets.contracts.status import Status

GROUP = "macro"
FREQUENCIES = ("daily", "monthly")
#: How a release date is known; ``observed`` is the day on which this platform first met the number.
RELEASE_BASES = ("vintage", "assumed_lag", "observed")
READINGS = ("ok", "no_data", "unreadable")
VALUE_STATUSES = (str(Status.OK), str(Status.NO_DATA))

_SERIES = Column("series_id", "string", "FRED series", "Name of the series, as FRED has it.")
_DESCRIPTION = (
    Column("series_name", "string", "text", "What the series is."),
    Column("unit", "string", "text", "Unit of its numbers."),
    Column("frequency", "string", "enumeration", "How often there is a number.", allowed=FREQUENCIES),
)
_SESSION = Column("session_date", "date", "exchange session", "Trading session of the exchange calendar.")

MACRO_SERIES = Contract(
    layer=Layer.RAW,
    name="macro_series",
    group=GROUP,
    grain="One published number: a series, the date it is about, the day on which it became known.",
    description="Macro series with their vintages. A revision is a new row, never an overwrite.",
    source="FRED series/observations, or the data packaged with arch; release dates without vintages by "
    "finance_assets.macro.series.",
    columns=(
        _SERIES,
        Column("reference_date", "date", "date", "What the number is about: a day, or the first day of its month."),
        Column(
            "release_date", "date", "date", "First day on which it was the published number, as release_basis says."
        ),
        *_DESCRIPTION,
        Column(
            "published_value",
            "exact",
            "the series' unit",
            "The number, exactly as published; null unless value_reading is ok.",
            True,
        ),
        Column(
            "value_reading",
            "string",
            "enumeration",
            "ok; no_data where the source says that there is no number; unreadable where the text is none.",
            allowed=READINGS,
        ),
        Column("value_text", "string", "text", "The number as the source wrote it."),
        Column(
            "release_basis",
            "string",
            "enumeration",
            "vintage: FRED's archive; assumed_lag: reference date plus the lag of publication; observed: the day on "
            "which a number differed from the one stored before.",
            allowed=RELEASE_BASES,
        ),
        Column("provider", "string", "provider name", "Who supplied the row."),
        Column("fetched_ts_utc", "timestamp", "UTC", "When the provider answered."),
        Column("request", "string", "text", "The request that brought the row, without its key."),
        Column("response_sha256", "string", "sha256", "Address of the landed bytes that the row was read from."),
    ),
    key=("series_id", "reference_date", "release_date"),
    rules=(
        RowRule(
            "published_value_explained",
            "(published_value is null) = (value_reading <> 'ok')",
            "a value is null where it was not read",
        ),
        RowRule(
            "released_after_reference",
            "release_date >= reference_date",
            "no number is published before what it is about",
        ),
    ),
)

MACRO_INDICATORS = Contract(
    layer=Layer.CORE,
    name="macro_indicators",
    group=GROUP,
    grain="One series on one exchange session.",
    description="What was known of each series at the end of each session: the number of the newest reference date "
    "that was published by then, in its newest release by then.",
    source="raw/macro_series, raw/trading_sessions, by finance_assets.macro.point_in_time.",
    columns=(
        _SERIES,
        _SESSION,
        *_DESCRIPTION,
        Column("published_value", "exact", "the series' unit", "The number known; null before the first.", True),
        Column(
            "published_value_status",
            "string",
            "enumeration",
            "ok, or no_data before the first release.",
            allowed=VALUE_STATUSES,
        ),
        Column("reference_date", "date", "date", "What the number is about; null where there is none.", True),
        Column("release_date", "date", "date", "Since when it was known; null where there is none.", True),
        Column("release_basis", "string", "enumeration", "How release_date is known.", True, allowed=RELEASE_BASES),
        Column(
            "age_days", "int32", "days", "Days from the reference date to the session; null as above.", True, minimum=0
        ),
        Column(
            "is_new",
            "bool",
            "true/false",
            "Whether the number was released since the session before.",
        ),
    ),
    key=("series_id", "session_date"),
    rules=(
        RowRule(
            "published_value_explained",
            "(published_value is null) = (published_value_status <> 'ok')",
            "a value is null where its status is not ok",
        ),
        RowRule(
            "value_has_a_release", "(published_value is null) = (release_date is null)", "a value was released on a day"
        ),
        RowRule("never_ahead", "release_date <= session_date", "no number is seen before it was published"),
        RowRule("about_the_past", "reference_date <= release_date", "no number is published before what it is about"),
    ),
)

STG_MACRO_INDICATORS = Contract(
    layer=Layer.STAGING,
    name="stg_macro_indicators",
    group=GROUP,
    store=Store.WAREHOUSE,
    grain="One series on one exchange session on which something of it was known.",
    description="What was known of each series on each session, for analysis; beside it the number known before.",
    source="core/macro_indicators.",
    columns=(
        _SERIES,
        _SESSION,
        *_DESCRIPTION,
        Column("published_value", "exact", "the series' unit", "The number known at the end of the session."),
        Column(
            "previous_published_value",
            "exact",
            "the series' unit",
            "The number known at the end of the session before; null on the first.",
            True,
        ),
        Column("reference_date", "date", "date", "What the number is about."),
        Column("release_date", "date", "date", "Since when it was known."),
        Column("release_basis", "string", "enumeration", "How release_date is known.", allowed=RELEASE_BASES),
        Column("is_new", "bool", "true/false", "Whether the number was released since the session before."),
    ),
    key=("series_id", "session_date"),
    inputs=("core/macro_indicators",),
    rules=(RowRule("never_ahead", "release_date <= session_date", "no number is seen before it was published"),),
)

CONTRACTS = (MACRO_SERIES, MACRO_INDICATORS, STG_MACRO_INDICATORS)
