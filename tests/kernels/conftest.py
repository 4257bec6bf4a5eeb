"""Fixtures of the kernel tests: devices for the small test kernels."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from kernel_tools import SOURCES

from gpu_tomoclass.device.native import NativeDevice


@pytest.fixture(scope="session")
def native() -> NativeDevice:
    """Compiled for speed."""
    return NativeDevice(threads=2, kernels=SOURCES)


@pytest.fixture(scope="session")
def checked() -> Callable[[int], NativeDevice]:
    """Thread by thread: poisoned shared memory, and for a seed other than 0 a shuffled schedule."""
    return lambda seed: NativeDevice(build="checked", seed=seed, kernels=SOURCES)
