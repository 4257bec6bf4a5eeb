"""Stands in for CuPy: records every call, and runs kernels as a GPU would - NVRTC's PTX in our interpreter.

It has exactly what ``gpu_tomoclass.device.cuda`` uses, follows CuPy's rules for launches (scalars are passed as they
are, an argument too few is not noticed by CuPy), and raises where a GPU would silently do something else.
"""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import nvrtc
from ptx_constant import doubtful_reads
from ptx_machine import Machine
from ptx_parse import parse_ptx
from simulated_streams import CUDARuntimeError, Event, Memory, Schedule, Stream, same, within

from gpu_tomoclass.device.cuda import CudaDevice

# (module, kernel, grid, block, arguments in the order of the parameters: arrays, and scalars of NumPy)
Run = Callable[[Any, str, tuple[int, ...], tuple[int, ...], list[Any]], None]


class SimulatedArray(np.ndarray):
    """A kind of its own, so that host and device arrays cannot be mixed up."""

    gpu = 0
    cupy: SimulatedCupy
    raw: np.ndarray  # the memory
    owner: np.ndarray  # at whose end it is given back

    def __array_finalize__(self, other: Any) -> None:
        for name in ("cupy", "raw", "owner"):
            if hasattr(other, name):
                setattr(self, name, getattr(other, name))

    @property
    def device(self) -> SimpleNamespace:
        return SimpleNamespace(id=self.gpu)

    @property
    def data(self) -> SimpleNamespace:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)

    @property
    def values(self) -> np.ndarray:
        """As the GPU sees them, without keeping the memory."""
        return same(self, self.raw) if within(self, self.raw) else np.asarray(self)

    def set(self, values: np.ndarray) -> None:
        """CuPy's rules: a contiguous host array of the same shape and dtype; ordinary memory is copied at once."""
        self.cupy.record("ndarray.set", self, values)
        self.cupy.schedule.refuse_capture()
        if isinstance(values, SimulatedArray) or values.dtype != self.dtype or values.shape != self.shape:
            raise TypeError(f"set of {type(values).__name__} {values.dtype} {values.shape}")
        if not (self.flags.c_contiguous and values.flags.c_contiguous):
            raise RuntimeError("set of a non-contiguous array")
        pinned = self.cupy.memory.as_pinned(values)
        self.cupy.copy(np.array(values) if pinned is None else pinned, self.values)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {"shape": self.shape, "typestr": self.dtype.str, "data": (self.ctypes.data, False), "version": 3}

    def get(self, *, out: np.ndarray | None = None, blocking: bool = True) -> np.ndarray:
        if out is None:
            return self.cupy.asnumpy(self)
        self.cupy.record("ndarray.get", self, out=out, blocking=blocking)
        self.cupy.schedule.refuse_capture()
        if isinstance(out, SimulatedArray) or out.dtype != self.dtype or out.shape != self.shape:
            raise TypeError(f"get to {type(out).__name__} {out.dtype} {out.shape}")
        pinned = self.cupy.memory.as_pinned(out)
        self.cupy.copy(self.values, out if pinned is None else pinned)
        if blocking or pinned is None:
            self.cupy.schedule.finish(self.cupy.schedule.current())
        return out


class CompileException(Exception):
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
    largest_cluster: int = 16
    failure: Exception | None = None  # raised when something is compiled
    order: str = "now"  # when work is done, see simulated_streams
    seed: int = 0
    limit: int | None = None  # bytes of memory
    run: Run | None = None  # runs a kernel instead of the interpreter
    counted: bool = True  # whether the interpreter counts sectors and bank conflicts
    keeps_arrays: bool = True  # in the calls; then their memory is never given back
    calls: list[Call] = field(default_factory=list)
    launches: list[LaunchRecord] = field(default_factory=list)

    __version__ = "14.2.0"
    ndarray = SimulatedArray

    def __post_init__(self) -> None:
        self.schedule = Schedule(self.order, self.seed, note=self.record, clock=time.perf_counter)
        self.memory = Memory(self.schedule, limit=self.limit)
        stream = self.schedule.new_stream
        self.cuda = SimpleNamespace(
            Device=lambda number: _Device(self, number),
            driver=SimpleNamespace(funcSetAttribute=partial(self.record, "cuda.driver.funcSetAttribute")),
            runtime=_Runtime(self),
            compiler=SimpleNamespace(CompileException=CompileException),
            Stream=_Streams(stream, self.schedule.null),
            Event=self._event,
            get_elapsed_time=self.get_elapsed_time,
            get_current_stream=self._current_stream,
            alloc_pinned_memory=self._alloc_pinned_memory,
            get_allocator=self._get_allocator,
            set_allocator=self._set_allocator,
        )
        self.allocator: Any = "the pool's"

    def record(self, name: str, *args: Any, **kwargs: Any) -> None:
        if not self.keeps_arrays:
            args = tuple(None if isinstance(value, (np.ndarray, tuple)) else value for value in args)
            kwargs = {key: None if isinstance(value, np.ndarray) else value for key, value in kwargs.items()}
        self.calls.append(Call(name, args, kwargs))

    def copy(self, values: np.ndarray, target: np.ndarray) -> None:
        """On the current stream."""

        def work() -> bool:
            target[...] = values
            return True

        self.schedule.ask(work)

    def array(self, values: np.ndarray, **kwargs: Any) -> SimulatedArray:
        self.record("array", values, **kwargs)
        found = self._allocate(values.shape, values.dtype)
        self.copy(np.array(values), found.values)
        return found

    def empty(self, shape: Any, dtype: Any) -> SimulatedArray:
        self.record("empty", shape, dtype)
        return self._allocate(shape, dtype)

    def zeros(self, shape: Any, dtype: Any) -> SimulatedArray:
        self.record("zeros", shape, dtype)
        found = self._allocate(shape, dtype)
        self.copy(np.zeros(found.shape, dtype), found.values)
        return found

    def asnumpy(self, array: SimulatedArray) -> np.ndarray:
        self.record("asnumpy", array)
        if not isinstance(array, SimulatedArray):
            raise TypeError(f"asnumpy of {type(array).__name__}")
        self.schedule.finish(self.schedule.current())
        return np.array(array)

    def isfinite(self, array: SimulatedArray) -> SimulatedArray:
        """Computed at once, on memory that must be there by now, as all arithmetic of arrays here."""
        self.record("isfinite", array)
        self.schedule.finish(self.schedule.current())
        found = self._allocate(array.shape, np.bool_)
        found.values[...] = np.isfinite(array.values)
        return found

    def searchsorted(self, a: SimulatedArray, v: SimulatedArray, side: str = "left") -> SimulatedArray:
        self.record("searchsorted", a, v, side=side)
        found = self._allocate(v.shape, np.int64)
        found.values[...] = np.searchsorted(a.values, v.values, side=side)  # type: ignore[call-overload]
        return found

    def copyto(self, target: SimulatedArray, values: SimulatedArray) -> None:
        self.record("copyto", target, values)
        if not isinstance(values, SimulatedArray):
            raise TypeError(f"copyto of {type(values).__name__}")
        self.copy(values.values, target.values)

    def get_default_memory_pool(self) -> SimpleNamespace:
        self.record("get_default_memory_pool")
        return SimpleNamespace(
            free_bytes=lambda: self.record("cuda.MemoryPool.free_bytes", None) or 1000,
            free_all_blocks=lambda: self.record("cuda.MemoryPool.free_all_blocks", None),
        )

    def get_default_pinned_memory_pool(self) -> SimpleNamespace:
        self.record("get_default_pinned_memory_pool")
        return SimpleNamespace(free_all_blocks=lambda: self.record("cuda.PinnedMemoryPool.free_all_blocks", None))

    def get_elapsed_time(self, began: Event, ended: Event) -> float:
        self.record("cuda.get_elapsed_time", began, ended)
        if not 0 < began.n_done == began.n_recorded or not 0 < ended.n_done == ended.n_recorded:
            raise CUDARuntimeError("cudaErrorNotReady: device not ready")
        return 1e3 * (ended.at - began.at)

    def RawModule(self, **kwargs: Any) -> _Module:
        self.record("RawModule", **kwargs)
        return _Module(self, **kwargs)

    def _current_stream(self) -> Stream:
        self.record("cuda.get_current_stream")
        return self.schedule.current()

    def _event(self) -> Event:
        self.record("cuda.Event")
        return Event(self.schedule)

    def _allocate(self, shape: Any, dtype: Any) -> SimulatedArray:
        kind = np.dtype(dtype)
        self.schedule.check()
        self.schedule.refuse_capture()  # CuPy's pool may have to ask the driver
        raw, owner = self.memory.device(int(np.prod(shape)) * kind.itemsize)
        array = np.ndarray(shape, kind, buffer=raw).view(SimulatedArray)
        array.cupy, array.raw, array.owner = self, raw, owner
        return array

    def _get_allocator(self) -> Any:
        self.record("cuda.get_allocator")
        return self.allocator

    def _set_allocator(self, allocator: Any) -> None:
        self.record("cuda.set_allocator", allocator)
        self.allocator = allocator

    def _alloc_pinned_memory(self, n_bytes: int) -> Any:
        self.record("cuda.alloc_pinned_memory", n_bytes)
        return self.memory.pinned(n_bytes)


class _Streams:
    """The class ``cuda.Stream``."""

    def __init__(self, make: Callable[..., Stream], null: Stream) -> None:
        self._make, self.null = make, null

    def __call__(self, **kwargs: Any) -> Stream:
        return self._make(**kwargs)


class _Device:
    def __init__(self, cupy: SimulatedCupy, number: int) -> None:
        cupy.record("cuda.Device", number)
        self.cupy, self.id = cupy, number

    def __enter__(self) -> _Device:
        return self

    def __exit__(self, *_: object) -> None:
        pass


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
        major, minor = divmod(self.cupy.architecture, 10)
        shared = 1024 * {80: 163, 86: 99, 89: 99, 90: 227, 100: 227, 120: 99}[self.cupy.architecture]
        return {"name": b"Simulated GPU", "major": major, "minor": minor, "sharedMemPerBlockOptin": shared}

    def memGetInfo(self) -> tuple[int, int]:
        self.cupy.record("cuda.runtime.memGetInfo")
        return 4_000_000, 8_000_000


class _Module:
    def __init__(self, cupy: SimulatedCupy, *, code: str, options: tuple[str, ...]) -> None:
        self.cupy, self.code, self.options = cupy, code, options
        found = re.match(r'#line 1 "kernels/(.*)"', code)
        self.file = found[1] if found else ""

    def get_function(self, name: str) -> _Function:
        self.cupy.record("RawModule.get_function", self, name)
        if self.cupy.failure is not None:
            raise self.cupy.failure
        if self.cupy.run is not None:
            return _Function(self, name, None)
        try:
            architecture = self.cupy.architecture
            if architecture not in nvrtc.architectures(self.options):
                architecture = nvrtc.architectures(self.options)[0]
            kernels = parse_ptx(nvrtc.ptx(self.code, self.options, architecture))
        except RuntimeError as error:
            raise CompileException(str(error)) from error
        return _Function(self, name, kernels[name])


class _Function:
    def __init__(self, module: _Module, name: str, kernel: Any) -> None:
        self.module, self.name, self.code = module, name, kernel
        self.kernel = SimpleNamespace(ptr=id(self))
        self.max_dynamic_shared_size_bytes = 48 * 1024

    def __call__(
        self, grid: tuple[int, ...], block: tuple[int, ...], args: tuple[Any, ...], *, shared_mem: int = 0
    ) -> None:
        given = {"shared_mem": shared_mem} if shared_mem else {}
        self.module.cupy.record("RawKernel.__call__", self, grid, block, args, **given)
        if nvrtc.cluster_blocks(self.module.options) > self.module.cupy.largest_cluster:
            raise CUDARuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE")
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise CUDARuntimeError("CUDA_ERROR_INVALID_VALUE: invalid argument")
        values: list[Any] = []
        for value in args:
            if not isinstance(value, (SimulatedArray, np.generic)):
                raise TypeError(f"CuPy would pass {value!r} with a type of its own choice")
            values.append(value.values if isinstance(value, SimulatedArray) else value)
        shape = tuple((*grid, 1, 1)[:3]), tuple((*block, 1, 1)[:3])

        def work() -> bool:
            self._run(*shape, values, shared_mem)
            return True

        self.module.cupy.schedule.ask(work)

    def _run(self, grid: tuple[int, ...], block: tuple[int, ...], values: list[Any], given: int) -> None:
        module = self.module
        if module.cupy.run is not None:
            module.cupy.run(module, self.name, grid, block, values)
            return
        arrays: dict[str, np.ndarray] = {}
        arguments, named = [], {}  # an array that is given twice is one array
        for i, value in enumerate(values):
            if isinstance(value, np.ndarray):
                name = named.setdefault((value.ctypes.data, value.nbytes) if value.size else i, f"argument {i}")
                arrays.setdefault(name, value)
                arguments.append(name)
            else:
                arguments.append(value)
        machine = Machine(
            self.code, grid=grid, block=block, arguments=arguments, arrays=arrays, counted=module.cupy.counted,
            given=given,
        )  # fmt: skip
        machine.run()
        machine.faults.update(f"reads as constant where it may write: {text}" for text in doubtful_reads(self.code))
        module.cupy.launches.append(
            LaunchRecord(
                file=module.file,
                kernel=self.name,
                options=module.options,
                text=module.code,
                grid=grid,
                block=block,
                counts=machine.counts,
                faults=machine.faults,
            )
        )


@contextmanager
def installed(cupy: SimulatedCupy) -> Iterator[SimulatedCupy]:
    """``import cupy`` gives this module."""
    with mock.patch.dict(sys.modules, {"cupy": cupy}):  # type: ignore[dict-item]
        yield cupy


def ptx_device(*, kernels: Path | None = None, counted: bool = True) -> tuple[CudaDevice, SimulatedCupy]:
    """The cuda device on a simulated GPU, and the simulation that holds what ran."""
    with installed(SimulatedCupy(counted=counted)) as cupy:
        return CudaDevice(kernels=kernels), cupy
