"""Connected components and distances of label images, on the CPU or, by cuCIM, on a GPU.

The only module that imports cuCIM, and only when it is asked for. Both kinds give the same numbers: components in the
order of their first voxel, distances between centres of voxels.
"""

from __future__ import annotations

import importlib
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import ResourceError

OTHERWISE = "leave --device cuda out"
MODULES = ("cucim.skimage.measure", "cucim.core.operations.morphology")


class ImageTools(Protocol):
    """Questions to label images."""

    def components(self, values: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.int64], int]:
        """Number the components of equal values that touch by a face, an edge or a corner; 0 is no component.

        Parameters
        ----------
        values : numpy.ndarray
            (nz, ny, nx) uint16.

        Returns
        -------
        numbers : numpy.ndarray
            (nz, ny, nx) int64, 1..count in the order of the first voxel.
        count : int
        """
        ...

    def distances(
        self, inside: npt.NDArray[np.bool_], *, sampling: tuple[float, ...] | None = None
    ) -> npt.NDArray[np.float64]:
        """Distance of each pixel or voxel to the nearest one that is False; there must be one.

        Parameters
        ----------
        inside : numpy.ndarray
            (ny, nx) or (nz, ny, nx) bool.
        sampling : tuple of float, optional
            Size of a pixel (y, x) or of a voxel (z, y, x); default 1.

        Returns
        -------
        numpy.ndarray
            As ``inside``, float64.
        """
        ...


class CpuTools:
    """connected-components-3d and SciPy."""

    def components(self, values: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.int64], int]:
        """As :meth:`ImageTools.components`."""
        import cc3d

        found, count = cc3d.connected_components(values, connectivity=26, return_N=True)
        return found.astype(np.int64), int(count)

    def distances(
        self, inside: npt.NDArray[np.bool_], *, sampling: tuple[float, ...] | None = None
    ) -> npt.NDArray[np.float64]:
        """As :meth:`ImageTools.distances`."""
        from scipy.ndimage import distance_transform_edt

        return distance_transform_edt(inside, sampling=sampling)


class GpuTools:
    """cuCIM, on the GPU that the device is.

    Raises
    ------
    ResourceError
        If cuCIM is missing or cannot be loaded; later, if it fails.
    """

    def __init__(self, device: Device) -> None:
        self._device = device
        try:
            measure, morphology = (importlib.import_module(name) for name in MODULES)
            self._label, self._edt = measure.label, morphology.distance_transform_edt
        # Not only ImportError: CUDA libraries that do not fit each other fail in many ways while they are loaded.
        except Exception as error:
            missing = isinstance(error, ModuleNotFoundError) and error.name == "cucim"
            reason = "is not installed" if missing else f"cannot be loaded: {type(error).__name__}: {error}"
            do = f"pip install 'gpu_tomoclass[rapids12]' or [rapids13], or {OTHERWISE}"
            raise ResourceError(f"cuCIM {reason}", do=do) from error

    def components(self, values: npt.NDArray[np.uint16]) -> tuple[npt.NDArray[np.int64], int]:
        """As :meth:`ImageTools.components`."""
        found, count = self._asked(self._label, values, background=0, return_num=True, connectivity=3)
        return in_order(self._device.numpy(found).astype(np.int64), int(count)), int(count)

    def distances(
        self, inside: npt.NDArray[np.bool_], *, sampling: tuple[float, ...] | None = None
    ) -> npt.NDArray[np.float64]:
        """As :meth:`ImageTools.distances`."""
        return self._device.numpy(self._asked(self._edt, inside, sampling=sampling, float64_distances=True))

    def _asked(self, function: Any, values: np.ndarray, **options: Any) -> Any:
        try:
            return function(self._device.array(values), **options)
        # CuPy, cuCIM and the driver raise kinds of their own; whichever it is, there is no result.
        except Exception as error:
            reason = " ".join(str(error).split())[:300] or type(error).__name__
            raise ResourceError(f"cuCIM failed on an image of {values.shape}: {reason}", do=OTHERWISE) from error


def image_tools(device: Device | str | None) -> ImageTools:
    """Tools on the GPU for ``"cuda"`` or such a device, else on the CPU.

    Raises
    ------
    ResourceError
        If there is no GPU, or no cuCIM, where they are asked for.
    """
    if device is None:
        return CpuTools()
    chosen = choose_device(device)
    return GpuTools(chosen) if chosen.name == "cuda" else CpuTools()


def in_order(numbers: npt.NDArray[np.int64], count: int) -> npt.NDArray[np.int64]:
    """Numbers 1..count (0 stays) given anew, in the order of their first voxels."""
    first = np.full(count + 1, numbers.size)
    # The last assignment to an element counts; going backwards, that is the first voxel's.
    first[numbers.ravel()[::-1]] = np.arange(numbers.size)[::-1]
    rank = np.zeros(count + 1, np.int64)
    rank[1 + np.argsort(first[1:])] = np.arange(1, count + 1)
    return rank[numbers]
