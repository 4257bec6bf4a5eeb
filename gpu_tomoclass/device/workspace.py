"""Arrays on a device that outlive a slab: nothing is allocated from one slab to the next."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device.base import Array, Device

Planes = npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]]  # (nz, ny, nx), or nz times (ny, nx)


class Workspace:
    """Arrays on a device that outlive a slab, so that nothing is allocated from one slab to the next.

    Not safe to share between threads.
    """

    def __init__(self, device: Device) -> None:
        self.device = device
        self._arrays: dict[str, Array] = {}
        self._pinned: dict[str, npt.NDArray[Any]] = {}
        self._copying = False  # from or to pinned memory
        self._constants: dict[Hashable, Array] = {}

    def array(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> Array:
        """The array of this name, with whatever it holds; made anew when shape or dtype are others than before."""
        if name in self._arrays and not _is_like(self._arrays[name], shape, dtype):
            self._count_replaced()
        return _kept(self._arrays, name, shape, dtype, self.device.empty)

    def _count_replaced(self) -> None:
        self.device.n_replaced += 1

    def upload(self, name: str, planes: Planes, target: Array) -> None:
        """Copy planes (ny, nx) into an array (nz, ny, nx); they may change once this returns.

        Planes that are one array on the device stay there; they may change once the device has been waited for.
        """
        if self.device.holds(planes):
            self.device.copy(planes, target)
            return
        if not self.device.has_own_memory:
            for z, plane in enumerate(planes):
                self.device.upload(plane, target[z])
            return
        if self._copying:
            self.synchronize()
        values = self._pinned_array(name, target.shape, np.float32)
        np.stack(list(planes), out=values)
        self._copying = True
        self.device.start_upload(values, target)

    def on_host(self, name: str, array: Array) -> npt.NDArray[Any]:
        """The values of an array, which are there after :meth:`synchronize` and until the next call.

        On a CPU the array itself.
        """
        if not self.device.has_own_memory:
            return np.asarray(array)
        values = self._pinned_array(name, array.shape, array.dtype)
        self._copying = True
        self.device.start_download(array, values)
        return values

    def synchronize(self) -> None:
        """Wait for the device, and so for all copies."""
        self.device.synchronize()
        self._copying = False

    def _pinned_array(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        found = self._pinned.get(name)
        if self._copying and found is not None and found.shape != tuple(shape):
            self.synchronize()  # before it is freed: CuPy gives pinned memory to the next who asks, at once
        return _kept(self._pinned, name, shape, dtype, self.device.pinned)

    @property
    def n_bytes(self) -> int:
        """Bytes held on the device."""
        return sum(int(a.nbytes) for a in (*self._arrays.values(), *self._constants.values()))

    def constant(self, key: Hashable, make: Callable[[], npt.NDArray[Any]]) -> Array:
        """A table such as filter weights, uploaded when first asked for; ``key`` must name all it depends on."""
        if key not in self._constants:
            self._constants[key] = self.device.array(np.ascontiguousarray(make()))
        return self._constants[key]


def _kept(
    arrays: dict[str, Array], name: str, shape: Sequence[int], dtype: npt.DTypeLike, make: Callable[..., Array]
) -> Array:
    found = arrays.get(name)
    if found is None or not _is_like(found, shape, dtype):
        arrays.pop(name, None)  # freed before its successor is made
        found = arrays[name] = make(tuple(shape), dtype)
    return found


def _is_like(array: Array, shape: Sequence[int], dtype: npt.DTypeLike) -> bool:
    return tuple(array.shape) == tuple(shape) and bool(array.dtype == np.dtype(dtype))
