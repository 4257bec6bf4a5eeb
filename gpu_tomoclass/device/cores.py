"""Plane-wise work on a few threads, in order, with a bounded number of planes in flight."""

from __future__ import annotations

import os

from gpu_tomoclass.errors import UsageError


def usable_cores() -> int:
    """Cores that this process may use (a scheduler often grants fewer than the machine has)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def worker_count(workers: int | None) -> int:
    """The number of threads to use: as asked, else one per usable core.

    Raises
    ------
    UsageError
        If fewer than one was asked for.
    """
    if workers is None:
        return usable_cores()
    if workers < 1:
        raise UsageError(f"workers must be 1 or more, not {workers}")
    return workers
