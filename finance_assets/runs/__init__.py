"""Runs started from the terminal: execution, progress and status. They are ordinary Dagster runs, visible in the UI."""
