"""A slab of planes on a device as the features see it, with the work that several families share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Planes, Workspace
from gpu_tomoclass.features.accelerated.blur import gaussian_blur

EXTREMES_BLOCKS = 32  # per plane, on a GPU; each leaves one pair for the last step
EXTREMES_THREADS = 256


@dataclass(frozen=True)
class BlockRequest:
    """One feature block to compute.

    Attributes
    ----------
    parameters : dict
        What the family's reference is called with.
    out : array on the device
        (n_channels, nz, ny, nx) float32, C-contiguous; to be filled entirely.
    family : str
        Which family, where one function computes several.
    """

    parameters: dict[str, Any]
    out: Array
    family: str = ""


class DeviceSource:
    """A slab on a device; what several families need is computed once, when first asked for.

    Parameters
    ----------
    planes : numpy.ndarray or sequence of numpy.ndarray
        (nz, ny, nx) float32, or nz times (ny, nx), prepared. They may change once this returns.
    workspace : Workspace
    wanted : slice
        Of the planes: those whose features are computed one by one.
    display_range : (float, float), optional
        See :class:`gpu_tomoclass.features.reference.source.FeatureSource`.

    Attributes
    ----------
    device : Device
    workspace : Workspace
    slab : array on the device
        All planes: (nz, ny, nx) float32.
    image : array on the device
        Those that are wanted.
    """

    def __init__(
        self,
        planes: Planes,
        workspace: Workspace,
        *,
        wanted: slice = slice(None),
        display_range: tuple[float, float] | None = None,
    ) -> None:
        self.workspace = workspace
        self.device = workspace.device
        self.display_range = display_range
        self.slab = uploaded_slab(planes, workspace)
        self.image = self.slab[wanted]
        self._shared_name = "shared"
        self._ready: set[str] = set()

    @classmethod
    def of(cls, image: Array, workspace: Workspace, *, name: str) -> DeviceSource:
        """Planes (nz, ny, nx) float32 that are on the device; what is shared has names of its own."""
        found = cls.__new__(cls)
        found.workspace, found.device, found.display_range = workspace, workspace.device, None
        found.slab = found.image = image
        found._shared_name, found._ready = f"shared {name}", set()
        return found

    @property
    def shape(self) -> tuple[int, int, int]:
        """(planes that are wanted, ny, nx)."""
        nz, ny, nx = self.image.shape
        return int(nz), int(ny), int(nx)

    def shared(self, name: str, shape: Sequence[int], dtype: npt.DTypeLike, fill: Callable[[Array], None]) -> Array:
        """The array ``name`` of this slab: ``fill`` is called with it once."""
        array = self.workspace.array(f"{self._shared_name} {name}", shape, dtype)
        if name not in self._ready:
            fill(array)
            self._ready.add(name)
        return array

    def gaussian(self, sigma: float, *, factor: float = 1.0) -> Array:
        """Each plane after TWS's Gaussian blur of "sigma", times a factor: (nz, ny, nx) float32.

        Sigma 0 is the image itself.
        """
        if sigma == 0:
            return self.image
        return self.shared(
            f"gaussian {sigma}" if factor == 1 else f"gaussian {sigma} times {factor}",
            self.shape,
            np.float32,
            lambda out: gaussian_blur(self.workspace, self.image, out, sigma, factor=factor),
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


def uploaded_slab(planes: Planes, workspace: Workspace) -> Array:
    """The planes on the device, (nz, ny, nx) float32; always in the same array of the workspace."""
    found = {(plane.shape, plane.dtype) for plane in planes} if len(planes) else set()
    if len(found) != 1 or any(len(shape) != 2 or 0 in shape or dtype != np.float32 for shape, dtype in found):
        what = ", ".join(f"{dtype} {shape}" for shape, dtype in found) or "none"
        raise ValueError(f"planes of a slab are float32 (ny, nx), at least one with at least one pixel, not {what}")
    slab = workspace.array("image", (len(planes), *planes[0].shape), np.float32)
    workspace.upload("image", planes, slab)
    return slab


def original(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.source.original` in every bit."""
    for request in requests:
        source.device.copy(source.image, request.out[0])
