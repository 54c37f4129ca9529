"""The code location: what ``dagster dev`` and ``workspace.yaml`` load."""

from finance_assets.registry import build_definitions
from finance_assets.settings import Settings
from finance_assets.text import guard_log_records

# What Dagster and libraries log of our exceptions passes no exit of ours.
guard_log_records()
defs = build_definitions(Settings.from_env())
