"""Commands as a person runs them, through the real entry point, in this process."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
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


def run_here(*words: Any, env: Mapping[str, str] | None = None) -> Said:
    """Run a command in this process, as the fixture ``command`` does, but for fixtures that outlive a test."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name, value in (env or {}).items():
            patch.setenv(name, value)
        code = run([str(word) for word in words])
    return Said(code, out.getvalue(), err.getvalue())


def run_apart(*words: Any, env: Mapping[str, str] | None = None) -> Said:
    """Run a command in a process of its own: a second and a half of imports, where the process itself is the point."""
    done = subprocess.run(
        [sys.executable, "-c", "from gpu_tomoclass.cli import main; main()", *map(str, words)],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=1200,
        check=False,
    )
    return Said(done.returncode, done.stdout, done.stderr)


@dataclass
class Commands:
    """``command("info", path, "--json")`` -> :class:`Said`."""

    capsys: pytest.CaptureFixture[str]

    def __call__(self, *words: Any) -> Said:
        self.capsys.readouterr()
        code = run([str(word) for word in words])
        said = self.capsys.readouterr()
        return Said(code, said.out, said.err)
