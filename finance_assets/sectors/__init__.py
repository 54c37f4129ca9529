"""Sector performance and risk."""
