"""What is tested on a real GPU, where there is one; without one, once on a simulated GPU as far as that goes."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import cucim_stand_in
import cuml_stand_in
import nvforest_stand_in
import pytest
from late_gpu import late_gpu

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.errors import TomoclassError

DRIVERS = ("/dev/nvidiactl", "/dev/dxg")  # Linux; Linux within Windows


@cache
def why_no_gpu() -> str:
    """Empty where a GPU works."""
    if not any(os.path.exists(path) for path in DRIVERS):
        return "there is no GPU: no NVIDIA driver is loaded"
    try:
        CudaDevice(0)
    except TomoclassError as error:
        return f"there is no GPU: {error}"
    return ""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """``case``: every case of tests/kernels on a GPU; without one a single skipped test that says why."""
    if "case_name" in metafunc.fixturenames:
        from kernel_cases import all_cases

        reason = why_no_gpu()
        names = [pytest.param("all cases", marks=pytest.mark.skip(reason=reason))] if reason else list(all_cases())
        metafunc.parametrize("case_name", names)


@pytest.fixture
def real_gpu() -> CudaDevice:
    """A GPU, or the test is skipped."""
    if why_no_gpu():
        pytest.skip(why_no_gpu())
    return CudaDevice(0)


@pytest.fixture
def gpu() -> Iterator[Device]:
    """A GPU; where there is none, our own code on a simulated one that does its work in a shuffled legal order."""
    if not why_no_gpu():
        yield CudaDevice(0)
        return
    with late_gpu("mixed", 1) as (device, _):
        yield device


class LimitedGpu(NamedTuple):
    """A GPU, and a function that leaves so many bytes of its memory to it."""

    device: Device
    leave: Callable[[int], None]


@pytest.fixture
def limited_gpu() -> Iterator[LimitedGpu]:
    """As ``gpu``, with memory that can be made short."""
    if why_no_gpu():
        with late_gpu("now", limit=2**30) as (device, cupy):

            def leave(n_bytes: int) -> None:
                cupy.memory.limit = cupy.memory.n_bytes + n_bytes

            device.free_memory = lambda: cupy.memory.limit - cupy.memory.n_bytes  # type: ignore[method-assign]
            yield LimitedGpu(device, leave)
        return
    import cupy

    device, pool = CudaDevice(0), cupy.get_default_memory_pool()
    before = pool.get_limit()

    def leave(n_bytes: int) -> None:
        device.release_memory()
        pool.set_limit(size=pool.used_bytes() + n_bytes)

    yield LimitedGpu(device, leave)
    pool.set_limit(size=before)
    device.release_memory()


@pytest.fixture
def cuml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one on a GPU, where it is installed; its stand-in on a simulated GPU."""
    if why_no_gpu():
        for name, module in cuml_stand_in.modules().items():
            monkeypatch.setitem(sys.modules, name, module)
    elif find_spec("cuml") is None:
        pytest.skip("cuML is not installed")


@pytest.fixture
def nvforest(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ``cuml``."""
    if why_no_gpu():
        monkeypatch.setitem(sys.modules, "nvforest", nvforest_stand_in.module())
    elif find_spec("nvforest") is None:
        pytest.skip("nvForest is not installed")


@pytest.fixture
def cucim(gpu: Device, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one on a GPU, where it is installed; its stand-in on a simulated GPU."""
    if why_no_gpu():
        for name, module in cucim_stand_in.modules(gpu).items():
            monkeypatch.setitem(sys.modules, name, module)
    elif find_spec("cucim") is None:
        pytest.skip("cuCIM is not installed")
