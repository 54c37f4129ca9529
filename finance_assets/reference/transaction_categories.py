"""Categories of transactions by amount."""

from decimal import Decimal
from typing import Final

#: Category -> minimum amount, whatever the currency. An amount below all of them is :data:`STANDARD`.
THRESHOLDS: Final = {"high_value": Decimal(1000), "medium_value": Decimal(100)}
STANDARD: Final = "standard"
CATEGORIES: Final = (*THRESHOLDS, STANDARD)
