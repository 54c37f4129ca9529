"""Equity market: quotes, corporate actions, indicators."""
