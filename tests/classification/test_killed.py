"""Killed at chosen changes of the disk, for every kind of output; ``make kill-test`` tries a hundred."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

TOOL = Path(__file__).parents[2] / "tools" / "kill_test.py"


def test_killed_and_repeated() -> None:
    """Of each kind before the first change and before the two last, in which the run is tidied up."""
    done = subprocess.run(
        [sys.executable, str(TOOL), "--kills", "15"], capture_output=True, text=True, timeout=1200, check=False
    )
    assert done.returncode == 0, done.stderr
    found = dict(re.findall(r"^(\S+): (\d+) kills among \d+ changes of the disk, the same bytes", done.stdout, re.M))
    kinds = ("labels.tif", "labels.ome.tif", "labels.ome.zarr", "sharded.ome.zarr", "labels.mrc")
    assert set(found) == set(kinds)
    # A run makes a change or two more or less, as its threads come to write: the last kill of three may find it ended.
    assert all(int(n) in (2, 3) for n in found.values()), found
