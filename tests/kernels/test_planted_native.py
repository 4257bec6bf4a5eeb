"""Mistakes planted in small kernels are found when they run thread by thread: tests of the tests."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from kernel_tools import BOX_TOLERANCE, expected_box, run_box, run_total

from gpu_tomoclass.device.native import NativeDevice

Checked = Callable[[int], NativeDevice]
SEEDS = (0, 1, 2, 3)


def is_found(checked: Checked, bug: int) -> bool:
    """Whether any of the schedules reports an error or gives a wrong result."""
    image = np.random.default_rng(1).normal(size=(9, 70)).astype(np.float32)
    for seed in SEEDS:
        try:
            mean = run_box(checked(seed), image, bug=bug)
        except RuntimeError:
            return True
        if not np.allclose(mean, expected_box(image), atol=BOX_TOLERANCE, rtol=0):
            return True
    return False


@pytest.mark.parametrize("bug", [1, 2, 6], ids=["first barrier", "second barrier", "early return"])
def test_barriers(checked: Checked, bug: int) -> None:
    assert is_found(checked, bug)
    assert not is_found(checked, 0)


def test_early_return_is_explained(checked: Checked) -> None:
    with pytest.raises(RuntimeError, match=r"kernels/box_phases.cu: box: __syncthreads is reached by a part"):
        run_box(checked(0), np.zeros((4, 33), np.float32), bug=6)


def test_missing_barrier_of_a_reduction(checked: Checked) -> None:
    values = np.arange(1, 1001, dtype=np.int32)
    assert all(run_total(checked(seed), values) == values.sum() for seed in SEEDS)
    assert any(run_total(checked(seed), values, bug=1) != values.sum() for seed in SEEDS)


def test_wrong_warp_mask(checked: Checked, native: NativeDevice) -> None:
    for device in (checked(0), native):
        with pytest.raises(RuntimeError, match="a lane is not named in its own warp mask"):
            run_total(device, np.arange(256, dtype=np.int32), bug=2)


def test_threads_at_different_barriers(checked: Checked, native: NativeDevice) -> None:
    for device in (checked(0), native):
        with pytest.raises(RuntimeError, match="wait at different barriers"):
            run_total(device, np.arange(256, dtype=np.int32), bug=3)
