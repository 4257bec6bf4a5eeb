"""A device that computes nothing: what would be allocated and launched, without a GPU, without work, without memory."""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Array, BoundKernel, HostDevice, check_same_kind
from gpu_tomoclass.device.launch import Dim3
from gpu_tomoclass.device.signature import parse_signatures
from gpu_tomoclass.device.sources import kernel_source

LARGE = 1 << 28  # bytes
MAP_NORESERVE = 0x4000  # Linux's number; Python names it since 3.13


class DryDevice(HostDevice):
    """Stands in for another device. Its arrays are never written, so the system gives them no memory.

    Parameters
    ----------
    like : str
        Name of the device to stand in for; ``"cuda"`` shapes launches for a GPU.
    threads : int
        Those of a CPU.

    Attributes
    ----------
    n_bytes, n_pinned : int
        Bytes allocated so far on the device and in :meth:`pinned` memory.
    launches : list of tuple
        (file, kernel, defines, grid, block, arguments) of every launch; arguments in the order of the parameters,
        arrays as (shape, dtype).
    """

    computes = False

    def __init__(self, like: str, *, threads: int = 1) -> None:
        super().__init__()
        self.threads = threads
        self.name, self.description = like, f"a plan for {like}"
        self.wants_gpu_plan = self.has_own_memory = like == "cuda"
        self.n_bytes = self.n_pinned = 0
        self.launches: list[tuple[str, str, tuple[tuple[str, str], ...], Dim3, Dim3, list[Any]]] = []

    def array(self, values: npt.NDArray[Any]) -> Array:
        return self.empty(values.shape, values.dtype)

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        array = _room(shape, np.dtype(dtype))
        self.n_bytes += array.nbytes
        return array

    def zeros(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> Array:
        return self.empty(shape, dtype)

    def pinned(self, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        array = np.empty(shape, dtype)
        self.n_pinned += array.nbytes
        return array

    def upload(self, values: npt.NDArray[Any], target: Array) -> None:
        check_same_kind(values, target)

    def figures(self, name: str, measure: Callable[[], dict[str, float]], *, keys: Sequence[str]) -> dict[str, float]:
        # Nothing can be measured: the first of the ways is assumed, of a forest's walks the one with the most tables.
        return {key: 1.0 if i else 1e-6 for i, key in enumerate(keys)}

    def _bind(self, file: str, name: str, defines: tuple[tuple[str, str], ...]) -> BoundKernel:
        signature = parse_signatures(kernel_source(file), dict(defines))[name]

        def run(grid: Dim3, block: Dim3, values: list[Any]) -> None:
            seen = [(v.shape, v.dtype) if isinstance(v, np.ndarray) else v for v in values]
            self.launches.append((file, name, defines, grid, block, seen))

        return BoundKernel(signature, lambda array: int(array.ctypes.data), run)


def _room(shape: int | Sequence[int], dtype: np.dtype[Any]) -> Array:
    """An array that is never written; more than the machine has where the system promises memory only when it is."""
    n_bytes = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if n_bytes < LARGE or not sys.platform.startswith("linux"):
        return np.empty(shape, dtype)
    # Linux refuses a plain allocation that is larger than all memory.
    promised = mmap.mmap(-1, n_bytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
    return np.frombuffer(promised, dtype).reshape(shape)
