"""A slab of planes on a device as the features see it, with the work that several families share."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.accelerated.blur import gaussian_blur
from gpu_tomoclass.device.base import Array, Device

EXTREMES_BLOCKS = 32  # per plane, on a GPU; each leaves one pair for the last step
EXTREMES_THREADS = 256
Planes = npt.NDArray[np.float32] | Sequence[npt.NDArray[np.float32]]  # (nz, ny, nx), or nz times (ny, nx)


@dataclass(frozen=True)
class BlockRequest:
    """One feature block to compute.

    Attributes
    ----------
    parameters : dict
        What the family's reference is called with.
    out : array on the device
        (n_channels, nz, ny, nx) float32, C-contiguous; to be filled entirely.
    """

    parameters: dict[str, Any]
    out: Array


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
        return _kept(self._arrays, name, shape, dtype, self.device.empty)

    def upload(self, name: str, planes: Planes, target: Array) -> None:
        """Copy planes (ny, nx) into an array (nz, ny, nx); they may change once this returns."""
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
    if found is None or tuple(found.shape) != tuple(shape) or found.dtype != np.dtype(dtype):
        arrays.pop(name, None)  # freed before its successor is made
        found = arrays[name] = make(tuple(shape), dtype)
    return found


class DeviceSource:
    """A slab on a device; what several families need is computed once, when first asked for.

    Parameters
    ----------
    planes : numpy.ndarray or sequence of numpy.ndarray
        (nz, ny, nx) float32, or nz times (ny, nx), prepared. They may change once this returns.
    workspace : Workspace
    display_range : (float, float), optional
        See :class:`gpu_tomoclass.reference.source.FeatureSource`.

    Attributes
    ----------
    device : Device
    workspace : Workspace
    image : array on the device
        (nz, ny, nx) float32.
    """

    def __init__(
        self,
        planes: Planes,
        workspace: Workspace,
        *,
        display_range: tuple[float, float] | None = None,
    ) -> None:
        found = {(plane.shape, plane.dtype) for plane in planes} if len(planes) else set()
        if len(found) != 1 or any(len(shape) != 2 or 0 in shape or dtype != np.float32 for shape, dtype in found):
            what = ", ".join(f"{dtype} {shape}" for shape, dtype in found) or "none"
            raise ValueError(f"planes of a slab are float32 (ny, nx), at least one with at least one pixel, not {what}")
        self.workspace = workspace
        self.device = workspace.device
        self.display_range = display_range
        self.image = workspace.array("image", (len(planes), *planes[0].shape), np.float32)
        workspace.upload("image", planes, self.image)
        self._ready: set[str] = set()

    @property
    def shape(self) -> tuple[int, int, int]:
        """(nz, ny, nx)."""
        nz, ny, nx = self.image.shape
        return int(nz), int(ny), int(nx)

    def shared(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike, fill: Callable[[Array], None]) -> Array:
        """The array ``name`` of this slab: ``fill`` is called with it once."""
        array = self.workspace.array(f"shared {name}", shape, dtype)
        if name not in self._ready:
            fill(array)
            self._ready.add(name)
        return array

    def gaussian(self, sigma: float) -> Array:
        """Each plane after TWS's Gaussian blur of "sigma": (nz, ny, nx) float32. Sigma 0 is the image itself."""
        if sigma == 0:
            return self.image
        return self.shared(
            f"gaussian {sigma}",
            self.shape,
            np.float32,
            lambda out: gaussian_blur(self.workspace, self.image, out, sigma),
        )

    def extremes(self) -> Array:
        """Minimum and maximum of the finite pixels of each plane: (nz, 2) float32; 0 and 0 if there are none."""
        nz, ny, nx = self.shape

        def fill(out: Array) -> None:
            on_gpu = self.device.wants_gpu_plan
            blocks, threads = (EXTREMES_BLOCKS, EXTREMES_THREADS) if on_gpu else (1, 1)
            partial = self.workspace.array("extremes of parts", (nz, blocks, 2), np.float32)
            defines = {"THREADS": threads} if on_gpu else {"THREADS": 1, "ONE_THREAD": 1}
            self.device.launch(
                "extremes.cu",
                "extremes_of_parts",
                grid=(blocks, nz),
                block=(threads,),
                args={"image": self.image, "partial": partial, "n_pixels": ny * nx},
                defines=defines,
            )
            self.device.launch(
                "extremes.cu",
                "extremes",
                grid=(nz,),
                block=(1,),
                args={"partial": partial, "result": out, "n_parts": blocks},
                defines=defines,
            )

        return self.shared("extremes", (nz, 2), np.float32, fill)

    def bytes_own(self) -> Array:
        """Each plane stretched to 0..255 from its own minimum and maximum: (nz, ny, nx) uint8 (Entropy)."""
        return self.shared("bytes own", self.shape, np.uint8, lambda out: self._stretch(self.extremes(), out))

    def bytes_display(self) -> Array:
        """Each plane stretched to 0..255 from the display range: (nz, ny, nx) uint8 (Bilateral, Lipschitz)."""
        if self.display_range is None:
            return self.bytes_own()
        low, high = (float(np.float32(v)) for v in self.display_range)

        def fill(out: Array) -> None:
            limits = self.workspace.constant(
                ("display range", self.shape[0], low, high),
                lambda: np.tile(np.array([low, high], np.float32), (self.shape[0], 1)),
            )
            self._stretch(limits, out)

        return self.shared("bytes display", self.shape, np.uint8, fill)

    def _stretch(self, limits: Array, out: Array) -> None:
        nz, ny, nx = self.shape
        threads = 256
        self.device.launch(
            "stretch.cu",
            "stretch",
            grid=(-(-ny * nx // threads), nz),
            block=(threads,),
            args={"image": self.image, "limits": limits, "result": out, "n_pixels": ny * nx},
            defines={"THREADS": threads},
        )
