"""Stands in for CuPy: records every call, and runs kernels as a GPU would - NVRTC's PTX in our interpreter.

It has exactly what ``gpu_tomoclass.device.cuda`` uses, follows CuPy's rules for launches (scalars are passed as they
are, an argument too few is not noticed by CuPy), and raises where a GPU would silently do something else.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import nvrtc
from ptx_machine import Machine
from ptx_parse import parse_ptx

from gpu_tomoclass.device.cuda import CudaDevice


class SimulatedArray(np.ndarray):
    """A kind of its own, so that host and device arrays cannot be mixed up."""

    gpu = 0

    @property
    def device(self) -> SimpleNamespace:
        return SimpleNamespace(id=self.gpu)

    @property
    def data(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    def set(self, values: np.ndarray) -> None:
        """CuPy's rules: a contiguous host array of the same shape and dtype."""
        if isinstance(values, SimulatedArray) or values.dtype != self.dtype or values.shape != self.shape:
            raise TypeError(f"set of {type(values).__name__} {values.dtype} {values.shape}")
        if not (self.flags.c_contiguous and values.flags.c_contiguous):
            raise RuntimeError("set of a non-contiguous array")
        np.asarray(self)[...] = values


class CompileException(Exception):
    pass


class CUDARuntimeError(RuntimeError):
    pass


@dataclass(frozen=True)
class Call:
    """One call of CuPy by its dotted name."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]


@dataclass(frozen=True)
class LaunchRecord:
    """One kernel that ran."""

    file: str
    kernel: str
    options: tuple[str, ...]
    text: str
    grid: tuple[int, ...]
    block: tuple[int, ...]
    counts: Counter[str]
    faults: Counter[str]


@dataclass
class SimulatedCupy:
    """The module ``cupy`` of a machine with some GPUs; change the fields to change the machine."""

    gpus: int = 1
    driver: int = 13000
    runtime_version: int = 13020
    architecture: int = 80
    failure: Exception | None = None  # raised when something is compiled
    calls: list[Call] = field(default_factory=list)
    launches: list[LaunchRecord] = field(default_factory=list)

    __version__ = "14.2.0"
    ndarray = SimulatedArray

    def __post_init__(self) -> None:
        self.cuda = SimpleNamespace(
            Device=lambda number: _Device(self, number),
            runtime=_Runtime(self),
            compiler=SimpleNamespace(CompileException=CompileException),
            Event=lambda: _Event(self),
            get_elapsed_time=self.get_elapsed_time,
        )

    def record(self, name: str, *args: Any, **kwargs: Any) -> None:
        self.calls.append(Call(name, args, kwargs))

    def array(self, values: np.ndarray, **kwargs: Any) -> SimulatedArray:
        self.record("array", values, **kwargs)
        return np.array(values, order="C").view(SimulatedArray)

    def empty(self, shape: Any, dtype: Any) -> SimulatedArray:
        self.record("empty", shape, dtype)
        poisoned = np.empty(shape, dtype)
        poisoned.reshape(-1).view(np.uint8).fill(0xFF)
        return poisoned.view(SimulatedArray)

    def zeros(self, shape: Any, dtype: Any) -> SimulatedArray:
        self.record("zeros", shape, dtype)
        return np.zeros(shape, dtype).view(SimulatedArray)

    def asnumpy(self, array: SimulatedArray) -> np.ndarray:
        self.record("asnumpy", array)
        if not isinstance(array, SimulatedArray):
            raise TypeError(f"asnumpy of {type(array).__name__}")
        return np.array(array)

    def copyto(self, target: SimulatedArray, values: SimulatedArray) -> None:
        self.record("copyto", target, values)
        if not isinstance(values, SimulatedArray):
            raise TypeError(f"copyto of {type(values).__name__}")
        np.asarray(target)[...] = values

    def get_default_memory_pool(self) -> SimpleNamespace:
        self.record("get_default_memory_pool")
        return SimpleNamespace(
            free_bytes=lambda: self.record("cuda.MemoryPool.free_bytes", None) or 1000,
            free_all_blocks=lambda: self.record("cuda.MemoryPool.free_all_blocks", None),
        )

    def get_elapsed_time(self, began: _Event, ended: _Event) -> float:
        self.record("cuda.get_elapsed_time", began, ended)
        if began.at is None or not ended.is_waited_for:
            raise CUDARuntimeError("cudaErrorNotReady: device not ready")
        return 1e3 * (ended.at - began.at)

    def RawModule(self, **kwargs: Any) -> _Module:
        self.record("RawModule", **kwargs)
        return _Module(self, **kwargs)


class _Device:
    def __init__(self, cupy: SimulatedCupy, number: int) -> None:
        cupy.record("cuda.Device", number)
        self.cupy, self.id = cupy, number

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def synchronize(self) -> None:
        self.cupy.record("cuda.Device.synchronize", self)


class _Event:
    def __init__(self, cupy: SimulatedCupy) -> None:
        cupy.record("cuda.Event")
        self.cupy, self.at, self.is_waited_for = cupy, None, False

    def record(self) -> None:
        self.cupy.record("cuda.Event.record", self)
        self.at = time.perf_counter()

    def synchronize(self) -> None:
        self.cupy.record("cuda.Event.synchronize", self)
        self.is_waited_for = self.at is not None


class _Runtime:
    CUDARuntimeError = CUDARuntimeError

    def __init__(self, cupy: SimulatedCupy) -> None:
        self.cupy = cupy

    def driverGetVersion(self) -> int:
        self.cupy.record("cuda.runtime.driverGetVersion")
        return self.cupy.driver

    def runtimeGetVersion(self) -> int:
        self.cupy.record("cuda.runtime.runtimeGetVersion")
        return self.cupy.runtime_version

    def getDeviceCount(self) -> int:
        self.cupy.record("cuda.runtime.getDeviceCount")
        if self.cupy.gpus < 0:
            raise CUDARuntimeError("cudaErrorNoDevice: no CUDA-capable device is detected")
        return self.cupy.gpus

    def getDeviceProperties(self, number: int) -> dict[str, Any]:
        self.cupy.record("cuda.runtime.getDeviceProperties", number)
        return {"name": b"Simulated GPU", "major": self.cupy.architecture // 10, "minor": self.cupy.architecture % 10}

    def memGetInfo(self) -> tuple[int, int]:
        self.cupy.record("cuda.runtime.memGetInfo")
        return 4_000_000, 8_000_000


class _Module:
    def __init__(self, cupy: SimulatedCupy, *, code: str, options: tuple[str, ...]) -> None:
        self.cupy, self.code, self.options = cupy, code, options

    def get_function(self, name: str) -> _Function:
        self.cupy.record("RawModule.get_function", self, name)
        if self.cupy.failure is not None:
            raise self.cupy.failure
        try:
            kernels = parse_ptx(nvrtc.ptx(self.code, self.options, self.cupy.architecture))
        except RuntimeError as error:
            raise CompileException(str(error)) from error
        return _Function(self, kernels[name])


class _Function:
    def __init__(self, module: _Module, kernel: Any) -> None:
        self.module, self.kernel = module, kernel

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...]) -> None:
        module = self.module
        module.cupy.record("RawKernel.__call__", self, grid, block, args)
        arrays, values = {}, []
        for i, value in enumerate(args):
            if isinstance(value, SimulatedArray):
                arrays[f"argument {i}"] = np.asarray(value)
                values.append(f"argument {i}")
            elif isinstance(value, np.generic):
                values.append(value)
            else:
                raise TypeError(f"CuPy would pass {value!r} with a type of its own choice")
        three = tuple((*grid, 1, 1)[:3]), tuple((*block, 1, 1)[:3])
        machine = Machine(self.kernel, grid=three[0], block=three[1], arguments=values, arrays=arrays)
        machine.run()
        found = re.match(r'#line 1 "kernels/(.*)"', module.code)
        module.cupy.launches.append(
            LaunchRecord(
                file=found[1] if found else "",
                kernel=self.kernel.name,
                options=module.options,
                text=module.code,
                grid=three[0],
                block=three[1],
                counts=machine.counts,
                faults=machine.faults,
            )
        )


@contextmanager
def installed(cupy: SimulatedCupy) -> Iterator[SimulatedCupy]:
    """``import cupy`` gives this module."""
    with mock.patch.dict(sys.modules, {"cupy": cupy}):  # type: ignore[dict-item]
        yield cupy


def ptx_device(*, kernels: Path | None = None, architecture: int = 80) -> tuple[CudaDevice, SimulatedCupy]:
    """The cuda device on a simulated GPU, and the simulation that holds what ran."""
    with installed(SimulatedCupy(architecture=architecture)) as cupy:
        return CudaDevice(kernels=kernels), cupy
