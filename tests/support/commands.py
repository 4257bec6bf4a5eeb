"""Commands as a person runs them, through the real entry point, in this process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from gpu_tomoclass.cli import run


@dataclass(frozen=True)
class Said:
    """Exit code, stdout and stderr of a command."""

    code: int
    out: str
    err: str


@dataclass
class Commands:
    """``command("info", path, "--json")`` -> :class:`Said`."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: Any) -> Said:
        self.capsys.readouterr()
        code = run([str(word) for word in words])
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)
