"""A volume cut out of a stored array of any number of axes: Zarr, HDF5, and whatever a library reads for us."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes.stored_axes import LayerCache, StoredAxes
from gpu_tomoclass.volumes.volume import Volume

# Without chunks, z along rows or columns: as many planes are collected in one pass as this many bytes hold.
SLAB_BYTES = 2**28


class IndexedVolume(Volume):
    """A volume in an array; a reader adds :meth:`_region`.

    Parameters
    ----------
    stored_shape : sequence of int
        Of the whole array.
    stored : StoredAxes
        Which of its axes are z, y, x.
    dtype : numpy.dtype
        Of the array; true/false is read as 1 and 0.
    thickness : int, optional
        Planes that are stored together (a chunk); by default 1, or what fits into memory where z is not slowest.
    notes, others
        As :class:`gpu_tomoclass.volumes.volume.Volume`; the notes of ``stored`` come first.
    """

    def __init__(
        self,
        path: str,
        *,
        stored_shape: Sequence[int],
        stored: StoredAxes,
        dtype: np.dtype[Any],
        thickness: int | None = None,
        notes: Sequence[str] = (),
        **details: Any,
    ) -> None:
        self._spatial = [stored.axis_of[letter] for letter in "zyx" if letter in stored.axis_of]
        self._fixed = dict(stored.fixed)
        nz, ny, nx = ([1] + [int(stored_shape[axis]) for axis in self._spatial])[-3:]
        if min(nz, ny, nx) < 1:
            raise DataError(f"holds no voxels: its shape (z, y, x) is {(nz, ny, nx)}", where=path)
        self._ranges = [range(int(n)) for n in stored_shape]
        for axis, index in self._fixed.items():
            self._ranges[axis] = range(index, index + 1)
        is_mask = dtype == np.bool_
        details.setdefault("axes", stored.letters)
        super().__init__(
            path,
            shape=(nz, ny, nx),
            dtype=np.dtype("uint8") if is_mask else dtype,
            notes=[*stored.notes, *notes, *(["true and false are read as 1 and 0"] if is_mask else [])],
            **details,
        )
        plane_bytes = ny * nx * dtype.itemsize
        if len(self._spatial) < 3:
            thickness = 1
        elif thickness is None:
            first = min(stored.kept) == self._spatial[0]
            thickness = 1 if first else max(1, min(nz, SLAB_BYTES // max(1, plane_bytes)))
        self._layers = LayerCache(nz, thickness, plane_bytes)
        self.notes += self._layers.notes()

    @abc.abstractmethod
    def _region(self, low: Sequence[int], high: Sequence[int]) -> np.ndarray:
        """The values from ``low`` to ``high`` (one number per stored axis), all axes kept."""

    def _read_plane(self, z: int) -> np.ndarray:
        return self._layers.plane(z, self._read_layer)

    def _read_layer(self, start: int, stop: int) -> np.ndarray:
        """Planes ``start`` to ``stop``, axes z, y, x."""
        low, high = [r.start for r in self._ranges], [r.stop for r in self._ranges]
        if len(self._spatial) == 3:
            low[self._spatial[0]], high[self._spatial[0]] = start, stop
        values = self._region(low, high)
        values = values.transpose([*self._fixed, *self._spatial]).reshape(-1, *self.shape[1:])
        return values.view(np.uint8) if values.dtype == np.bool_ else values

    def _reopen(self) -> None:
        self._layers.clear()

    def close(self) -> None:
        self._layers.clear()
