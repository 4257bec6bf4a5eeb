"""A volume: a 3-D image on disk, axes z, y, x, read plane by plane; the formats are in :mod:`gpu_tomoclass.io`.

This room does no arithmetic: a plane comes out exactly as stored (native byte order, C-contiguous), or an error names
file and plane. Inputs are opened read-only. Opening reads headers only, so a 100 GB volume opens at once.
"""

from __future__ import annotations

import abc
from collections.abc import Iterator, Mapping, Sequence
from os import PathLike, fspath
from types import TracebackType
from typing import Any, Self

import numpy as np

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.errors import DataError, UsageError

VoxelSize = tuple[float, float, float]  # (z, y, x) in nm


class Volume(abc.ABC):
    """A readable volume.

    Attributes
    ----------
    path : str
        As the user gave it (``file.h5::/path`` included).
    shape : tuple of int
        (nz, ny, nx).
    dtype : numpy.dtype
        Of the planes, native byte order.
    format : str
        What was understood, for people: ``"ImageJ TIFF"``, ``"MRC mode 1"``, ``"OME-Zarr 0.4"``.
    axes : str
        Axes as stored, slowest first: ``"ZYX"``, ``"CYX"``.
    voxel_size : tuple of float or None
        (z, y, x) in nm; None where the file does not say.
    notes : list of str
        Sentences the user should see: an assumption made, a header corrected, planes missing.
    missing_planes : set of int
        Planes that could not be read and were filled with zeros (only with ``allow_missing_planes``).
    classes : tuple of LabelClass
        Class names and colours that the file carries; empty if none.
    metadata : dict
        Anything else worth keeping (provenance of a file we wrote).
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        shape: tuple[int, int, int],
        dtype: np.dtype[Any],
        format: str,
        axes: str = "ZYX",
        voxel_size: VoxelSize | None = None,
        notes: Sequence[str] = (),
        classes: Sequence[LabelClass] = (),
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        self.path = fspath(path)
        self.shape = shape
        self.dtype = np.dtype(dtype).newbyteorder("=")
        self.format = format
        self.axes = axes
        self.voxel_size = voxel_size
        self.notes = list(notes)
        self.missing_planes: set[int] = set()
        self.classes = tuple(classes)
        self.metadata = dict(metadata or {})

    @abc.abstractmethod
    def _read_plane(self, z: int) -> np.ndarray:
        """Plane z as stored, shape (ny, nx); any failure is a DataError that names the plane."""

    def plane(self, z: int) -> np.ndarray:
        """Plane ``z``: (ny, nx), ``dtype``, C-contiguous.

        Raises
        ------
        UsageError
            If there is no plane z.
        DataError
            If the plane cannot be read as the header declares it.
        """
        if not 0 <= z < self.shape[0]:
            raise UsageError(f"there is no plane {z}, only 0 to {self.shape[0] - 1}", where=self.path)
        plane = np.ascontiguousarray(self._read_plane(z), dtype=self.dtype)
        if plane.shape != self.shape[1:]:
            raise DataError(f"plane {z} is {plane.shape}, not {self.shape[1:]} as declared", where=self.path)
        return plane

    def planes(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[tuple[int, np.ndarray]]:
        """(z, plane) for z in range(start, stop, step)."""
        for z in range(start, self.shape[0] if stop is None else stop, step):
            yield z, self.plane(z)

    def close(self) -> None:
        """Release the file; the volume cannot be read afterwards."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()


class VolumeWriter(abc.ABC):
    """A volume being written plane by plane, in any order of planes unless the format says otherwise.

    The data go to a hidden temporary name beside the target. Leaving the ``with`` block normally checks that every
    plane was written, syncs and renames; leaving it by an exception removes the temporary data and keeps any older
    file of that name. So a file with the final name is always complete.
    """

    path: str
    shape: tuple[int, int, int]

    @abc.abstractmethod
    def write_plane(self, z: int, plane: np.ndarray) -> None:
        """Write plane z: (ny, nx), or (n_channels, ny, nx) where the volume was created with channels."""

    @abc.abstractmethod
    def finish(self) -> None:
        """Complete the file and give it its name."""

    @abc.abstractmethod
    def discard(self) -> None:
        """Remove what was written."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is None:
            self.finish()
        else:
            self.discard()
