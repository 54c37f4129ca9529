"""Card-like transactions: exact, never lost, each with one effect.

What belongs here: the rules of a message (:mod:`~finance_assets.transactions.rules`), the micro-batch that is written durably
(:mod:`~finance_assets.transactions.batches`), which message stands (:mod:`~finance_assets.transactions.resolution`), and the
ways in: a drained queue, a consumer, a Lambda. ISO 4217 is in :mod:`~finance_assets.transactions.currencies`.
"""
