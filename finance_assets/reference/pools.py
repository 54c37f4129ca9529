"""Dagster pools: each limits how many steps of all runs use one resource at the same time (see ``dagster.yaml``)."""

#: DuckDB allows one process to open the warehouse file.
WAREHOUSE = "warehouse"
#: Providers limit the rate of requests.
MARKET_PROVIDERS = "market_providers"
MACRO_PROVIDERS = "macro_providers"
#: Steps of these pools read and rewrite the same files.
TICKER_KPIS = "ticker_kpis"
ADVISORY = "advisory"
TRANSACTIONS = "transactions"
