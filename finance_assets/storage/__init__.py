"""Where data lives: the lake (files), the warehouse (SQL), the ledger (what was seen), Dagster's IO managers.

What belongs here: reading and writing, durable and atomic. Nothing here knows what a number means.
"""
