"""A CPU device whose arrays lie in frames: reading over an edge gives NaN, writing over it is noticed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.native import ALIGNMENT, NativeDevice

FRAME = 64 * 1024  # bytes on each side: more than a plane's row, less than would slow the tests
POISON = 0xFF  # NaN as a float, -1 as an integer


class FramedDevice(NativeDevice):
    """Arrays within poisoned memory; :meth:`check_frames` looks whether the frames are intact."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._frames: list[np.ndarray] = []

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
        kind = np.dtype(dtype)
        n = int(np.prod(shape)) * kind.itemsize
        memory = np.full(n + 2 * FRAME + ALIGNMENT, POISON, np.uint8)
        start = FRAME + (-(memory.ctypes.data + FRAME) % ALIGNMENT)
        self._frames += [memory[:start], memory[start + n :]]
        return memory[start : start + n].view(kind).reshape(shape)

    def check_frames(self) -> None:
        """AssertionError if a kernel wrote outside of an array."""
        damaged = [frame for frame in self._frames if (frame != POISON).any()]
        self._frames.clear()
        assert not damaged, "a kernel wrote outside of an array"


class ExactDevice(NativeDevice):
    """Arrays that end where their memory ends, for the address sanitizer."""

    def empty(self, shape: int | Sequence[int], dtype: npt.DTypeLike) -> np.ndarray:
        return np.full(shape, np.frombuffer(bytes([POISON] * 8), dtype=dtype)[0])
