"""A ``cuda`` device whose GPU does everything as late, or in as odd an order, as CUDA allows, on this CPU."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from simulated_cupy import SimulatedCupy, installed
from simulated_streams import CUDARuntimeError

from gpu_tomoclass.device.cuda import CudaDevice
from gpu_tomoclass.device.native import NativeDevice

ILLEGAL = "cudaErrorIllegalAddress: an illegal memory access was encountered"


@dataclass
class OnThisCpu:
    """Runs kernels compiled for this CPU; the one of ``broken``, (file, which launch of it), fails as on a GPU."""

    native: NativeDevice
    broken: tuple[str, int] | None = None
    n_launches: int = 0

    def __call__(
        self, module: Any, name: str, grid: tuple[int, ...], block: tuple[int, ...], values: list[Any]
    ) -> None:
        if not module.file:  # the device's first try
            values[0][...] = 42
            return
        if self.broken is not None and module.file == self.broken[0]:
            self.n_launches += 1
            if self.n_launches == self.broken[1]:
                raise CUDARuntimeError(ILLEGAL)
        options = (option[2:].partition("=") for option in module.options if option.startswith("-D"))
        kernel = self.native.kernel(module.file, name, defines={key: value for key, _, value in options})
        args = {}
        for parameter, value in zip(kernel.signature.parameters, values, strict=True):
            # Indices that nobody has written would be followed to wherever they point.
            if parameter.is_const and parameter.dtype == np.int32 and (value == -1).all():
                raise CUDARuntimeError(ILLEGAL)
            args[parameter.name] = value
        kernel(grid=grid, block=block, args=args)


@contextmanager
def late_gpu(
    order: str, seed: int = 0, *, limit: int | None = None, broken: tuple[str, int] | None = None
) -> Iterator[tuple[CudaDevice, SimulatedCupy]]:
    """The device, and the simulation under it."""
    run = OnThisCpu(NativeDevice(threads=1, gpu_plan=True), broken)
    with (
        installed(SimulatedCupy(order=order, seed=seed, limit=limit, run=run, keeps_arrays=False)) as cupy,
        np.errstate(all="ignore"),
    ):
        device = CudaDevice()
        if limit is not None:
            device.free_memory = lambda: limit - cupy.memory.n_bytes  # type: ignore[method-assign]
        yield device, cupy
