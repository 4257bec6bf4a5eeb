"""The run that programs are told about: one of ``--log-json``, ``--result``, ``--syslog`` is given; see run_record.py.

This module is light: it is imported with every command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpu_tomoclass.cli.run_record import Run

_runs: list[Run] = []  # under way in this process, the innermost last


def begin(run: Run) -> None:
    """Make ``run`` the one that :func:`current` gives."""
    _runs.append(run)


def end(exit_code: int, *, since: int) -> None:
    """End the runs that began when ``since`` of them were under way."""
    while len(_runs) > since:
        _runs.pop().end(exit_code)


def n_under_way() -> int:
    """Runs under way in this process: a command can run within another one's process."""
    return len(_runs)


def current() -> Run | None:
    """The run that programs are told about, if any."""
    return _runs[-1] if _runs else None


def wants_result() -> bool:
    """Tell whether the run under way writes a result for programs."""
    return bool(_runs) and _runs[-1].has_result


def add_result(**values: Any) -> None:
    """Add to the result of the run under way; without one nothing happens."""
    if _runs:
        _runs[-1].add(values)


def fail(error: BaseException) -> None:
    """Say what stopped the run under way."""
    if _runs:
        _runs[-1].fail(error)
