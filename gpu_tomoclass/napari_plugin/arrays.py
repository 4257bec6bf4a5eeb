"""Planes of a volume as an array that reads them when a viewer asks for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

HELD_BYTES = 2**28  # of planes looked at last


class PlaneArray:
    """An array (n_planes, ny, nx) of chosen planes; a viewer shows it as it shows any other, and never holds it whole.

    Parameters
    ----------
    read : callable
        Gives plane z, (ny, nx).
    planes : sequence of int
    shape : tuple of int
        (ny, nx)
    dtype : dtype
    """

    ndim = 3

    def __init__(
        self, read: Callable[[int], npt.NDArray[Any]], planes: Sequence[int], shape: tuple[int, int], dtype: Any
    ) -> None:
        self._read, self._planes = read, list(planes)
        self.shape, self.dtype = (len(self._planes), *shape), np.dtype(dtype)
        self._held: OrderedDict[int, npt.NDArray[Any]] = OrderedDict()
        self._most = max(2, HELD_BYTES // (self.dtype.itemsize * shape[0] * shape[1]))

    @property
    def size(self) -> int:
        """Voxels."""
        return int(np.prod(self.shape))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> npt.NDArray[Any]:
        first, *rest = key if isinstance(key, tuple) else (key,)
        if first is Ellipsis:
            first, rest = slice(None), [Ellipsis, *rest]
        if isinstance(first, slice):
            chosen = range(*first.indices(len(self)))
            stack = np.empty((len(chosen), *self.shape[1:]), self.dtype)
            for at, number in enumerate(chosen):
                stack[at] = self._plane(number)
            return stack[(slice(None), *rest)]
        if np.ndim(first) == 0:
            return self._plane(int(first))[tuple(rest)]
        return self[:][(first, *rest)]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> npt.NDArray[Any]:
        return self[:] if dtype is None else self[:].astype(dtype)

    def _plane(self, number: int) -> npt.NDArray[Any]:
        number = range(len(self))[number]
        if number not in self._held:
            self._held[number] = self._read(self._planes[number])
            while len(self._held) > self._most:
                self._held.popitem(last=False)
        self._held.move_to_end(number)
        return self._held[number]
