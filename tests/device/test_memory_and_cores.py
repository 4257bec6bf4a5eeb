"""What the machine has: cores and memory, from the files that Linux keeps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpu_tomoclass.device import memory
from gpu_tomoclass.device.cores import usable_cores, worker_count
from gpu_tomoclass.errors import UsageError


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="only Linux grants single cores to a process")
def test_cores_that_a_scheduler_grants() -> None:
    granted = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(granted)})
        assert usable_cores() == worker_count(None) == 1
    finally:
        os.sched_setaffinity(0, granted)
    assert usable_cores() == len(granted)


def test_workers_as_asked() -> None:
    assert worker_count(7) == 7
    with pytest.raises(UsageError):
        worker_count(0)


@pytest.mark.parametrize(
    ("machine", "group", "address_space", "expected"),
    [(5000, 3000, 4000, 3000), (2000, 3000, None, 2000), (None, 3000, 1000, 1000), (5000, -20, None, 0), (None,) * 4],
)
def test_the_least_of_all_limits(
    monkeypatch: pytest.MonkeyPatch,
    machine: int | None,
    group: int | None,
    address_space: int | None,
    expected: int | None,
) -> None:
    monkeypatch.setattr(memory, "_of_machine", lambda: machine)
    monkeypatch.setattr(memory, "_of_group", lambda *files: group)
    monkeypatch.setattr(memory, "_of_address_space", lambda: address_space)
    assert memory.available_bytes() == expected


def test_limit_of_a_control_group(tmp_path: Path) -> None:
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    limit.write_text("4096000\n")
    used.write_text("96000\n")
    assert memory._of_group(str(limit), str(used)) == 4_000_000
    limit.write_text("max\n")
    assert memory._of_group(str(limit), str(used)) is None
    assert memory._of_group(str(tmp_path / "none"), str(used)) is None
