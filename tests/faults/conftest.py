"""A deployment in a folder of its own for each fault test."""

from pathlib import Path

import pytest
from fixtures.faults import Home


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")
