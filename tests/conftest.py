"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
from golden_sets import GOLDEN_NAMES, GoldenSet


@pytest.fixture(scope="session")
def golden() -> dict[str, GoldenSet]:
    """The golden sets by name: small8, small16, small32."""
    return {name: GoldenSet(name) for name in GOLDEN_NAMES}
