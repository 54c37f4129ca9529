"""The code location: what ``dagster dev`` and ``workspace.yaml`` load."""

from finance_assets.registry import build_definitions
from finance_assets.settings import Settings

defs = build_definitions(Settings.from_env())
