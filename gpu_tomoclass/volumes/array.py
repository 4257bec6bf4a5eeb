"""An array in memory, or one that reads itself as it is sliced (Zarr, Dask, h5py), as a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeGuard

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.volume import Volume, VoxelSize


class Planes(Protocol):
    """An array (nz, ny, nx) of any library: it says its shape and type, and can be sliced."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...


class ArrayVolume(Volume):
    """The planes of an array; nothing is copied before a plane is asked for.

    Parameters
    ----------
    array : numpy.ndarray, cupy.ndarray, zarr.Array, dask.array.Array, ..
        (nz, ny, nx); anything with ``shape`` and ``dtype`` whose ``array[z]`` becomes a NumPy array. It must not change
        while it is used. Planes of a CuPy array are copied to the host one by one.
    name : str, optional
        For messages and provenance, in place of a file's; default "numpy array", "zarr array", ..
    voxel_size : tuple of float, optional
        (z, y, x) in nm.
    classes, metadata, notes, allow_missing_planes
        See :class:`~gpu_tomoclass.volumes.volume.Volume`.

    Raises
    ------
    UsageError
        If it is no array.
    DataError
        If it has not three axes, holds no numbers or has a mask, which would be lost.
    """

    def __init__(
        self,
        array: Planes,
        *,
        name: str | None = None,
        voxel_size: VoxelSize | None = None,
        classes: Sequence[LabelClass] = (),
        metadata: Mapping[str, Any] | None = None,
        notes: Sequence[str] = (),
        allow_missing_planes: bool = False,
    ) -> None:
        kind = type(array)
        if not is_array(array):
            raise UsageError(f"{kind.__name__} is no array and no path", do="give a file, or an array (z, y, x)")
        library = f"{kind.__module__.partition('.')[0]} array"
        path = library if name is None else name
        if len(array.shape) != 3:
            raise DataError(
                f"has {len(array.shape)} axes, a volume three (z, y, x)",
                where=path,
                do="give array[None] for a single plane" if len(array.shape) == 2 else "choose one channel",
            )
        if np.dtype(array.dtype).kind not in "biuf":
            raise DataError(f"holds {array.dtype}, not real numbers", where=path)
        if isinstance(array, np.ma.MaskedArray) and np.ma.is_masked(array):
            raise DataError("has a mask, which would be lost", where=path, do="give array.filled(numpy.nan)")
        super().__init__(
            path,
            shape=(int(array.shape[0]), int(array.shape[1]), int(array.shape[2])),
            dtype=np.dtype(array.dtype),
            format=library,
            voxel_size=voxel_size,
            classes=classes,
            metadata=metadata,
            notes=notes,
            files=(),
            allow_missing_planes=allow_missing_planes,
        )
        self.array = array

    def _read_plane(self, z: int) -> np.ndarray:
        plane = self.array[z]
        return on_host(plane)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if type(self.array) is np.ndarray:
            return np.array(self.array, dtype=dtype, copy=copy)
        return super().__array__(dtype, copy)


def is_array(source: object) -> TypeGuard[Planes]:
    """Tell whether something can be sliced and says its shape and type."""
    return all(hasattr(source, name) for name in ("shape", "dtype", "__getitem__"))


def on_host(array: Any) -> np.ndarray:
    """An array of any library as NumPy's; CuPy refuses to become that by itself."""
    return np.asarray(array.get() if hasattr(array, "__cuda_array_interface__") else array)
