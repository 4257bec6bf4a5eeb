"""Fixtures shared by all tests."""

from __future__ import annotations

import pytest
from commands import Commands
from golden_sets import GOLDEN_NAMES, GoldenSet


@pytest.fixture(scope="session")
def golden() -> dict[str, GoldenSet]:
    """The golden sets by name: small8, small16, small32."""
    return {name: GoldenSet(name) for name in GOLDEN_NAMES}


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Commands:
    """command(*words) runs a command line: its exit code, stdout, stderr."""
    return Commands(capsys)
