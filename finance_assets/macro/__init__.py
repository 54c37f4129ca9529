"""Macro series: interest rates, prices, unemployment, oil, volatility; with the day each number became known."""
