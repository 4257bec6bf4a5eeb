"""Killed at chosen changes of the disk, for every kind of output; ``make kill-test`` tries a hundred."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOL = Path(__file__).parents[2] / "tools" / "kill_test.py"


def load_tool() -> ModuleType:
    spec = importlib.util.spec_from_file_location("kill_test", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill_test"] = module
    spec.loader.exec_module(module)
    return module


tool = load_tool()


@pytest.fixture(scope="module")
def sample(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return tool.sample(tmp_path_factory.mktemp("sample"))


@pytest.mark.parametrize("kind", tool.KINDS)
def test_killed_and_repeated(sample: Any, tmp_path: Path, kind: str) -> None:
    """At the first change, and at the two last, in which the run is tidied up."""
    path, model = sample
    said: list[str] = []
    assert tool.campaign(kind, 3, path=path, model=model, scratch=tmp_path, say=said.append) == 3
    assert "the same bytes after each" in said[0]


def test_moments_cover_the_run_and_its_end() -> None:
    chosen = list(tool.moments(300, 20))
    assert chosen[0] == 0
    assert chosen[-10:] == list(range(290, 300))
    assert len(chosen) == 20
