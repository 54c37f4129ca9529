"""Transactions: card-like messages of a queue, exact and never lost."""
