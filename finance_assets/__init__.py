"""finance_assets: a Dagster platform whose every number is right, exact, explained and reproducible.

Each domain is a package of its own (``market``, ``sectors``, …); ``registry`` says where everything lives. This
module imports nothing, so that ``import finance_assets`` costs nothing.
"""
