"""The exchange: its time zone. Sessions are in :mod:`finance_assets.partitions`."""

#: Session dates are dates in this zone.
EXCHANGE_ZONE = "America/New_York"
