"""When things run: conditions, schedules, and what is said when a run fails."""
