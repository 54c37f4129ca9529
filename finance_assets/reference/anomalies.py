"""Thresholds of anomalies, for the maths and for the texts of contracts."""

from typing import Final

#: A modified z-score above this value is an anomaly (Iglewicz and Hoaglin, 1993).
MODIFIED_Z_THRESHOLD: Final = 3.5
