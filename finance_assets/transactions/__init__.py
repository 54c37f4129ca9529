"""Card-like transactions: exact, never lost, each with one effect.

What belongs here: the rules of a message (``rules``, ``currencies``), the micro-batch that is written durably
(``batches``), which message stands (``resolution``), and the ways in: a drained queue, a consumer, a Lambda.
"""
