"""The period of the sample data."""

from datetime import UTC, date, datetime

#: First and last session that both packages of the sample have.
SAMPLE_START = date(2000, 3, 1)
SAMPLE_END = date(2013, 3, 1)
#: With the sample the clock is fixed half an hour after the close of its last session.
SAMPLE_NOW = datetime(2013, 3, 1, 21, 30, tzinfo=UTC)
