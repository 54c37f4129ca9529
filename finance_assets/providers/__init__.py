"""How the platform talks to the outside world: one HTTP client and the errors of every provider.

What belongs here: what clients of several domains share. Nothing here knows a vendor, Dagster, storage or settings.
"""
