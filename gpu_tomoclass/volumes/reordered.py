"""A volume whose axes are stored in another order, read as z, y, x.

Where z runs along rows or columns of the stored planes, one plane needs every stored plane. So as many planes as fit a
memory budget are collected in one pass over the file and kept: reading all planes in order costs
``ceil(volume size / budget)`` passes (one pass in all where the format can read single rows, as uncompressed TIFF).
"""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.volumes.place import turned, with_place
from gpu_tomoclass.volumes.volume import Volume

SLAB_BYTES = 2**28


class ReorderedVolume(Volume):
    """``base`` with its axes renamed and transposed; nothing is flipped.

    Parameters
    ----------
    base : Volume
        As stored; closed together with this volume.
    order : str
        What the axes of ``base`` are, slowest first, in lower case: ``"xyz"``, ``"zxy"``, ...
    slab_bytes : int
        Memory for planes collected in one pass.
    """

    def __init__(self, base: Volume, *, order: str, slab_bytes: int = SLAB_BYTES) -> None:
        z, y, x = (order.index(letter) for letter in "zyx")
        size = base.voxel_size
        super().__init__(
            base.path,
            shape=(base.shape[z], base.shape[y], base.shape[x]),
            dtype=base.dtype,
            format=base.format,
            axes=base.axes,
            voxel_size=None if size is None else (size[z], size[y], size[x]),
            classes=base.classes,
            metadata=with_place(base.metadata, turned(base.metadata, order)),
            files=base.files(),
        )
        self.notes = base.notes  # one list: what is found while reading the base is seen here too
        self._base, self._order = base, order
        plane_bytes = self.shape[1] * self.shape[2] * self.dtype.itemsize
        self._thickness = max(1, min(self.shape[0], slab_bytes // plane_bytes))
        self._slab: tuple[int, np.ndarray] | None = None

    def _read_plane(self, z: int) -> np.ndarray:
        if self._order[0] == "z":
            plane = self._base.plane(z)
            return plane if self._order == "zyx" else plane.T
        with self._lock:
            start = z - z % self._thickness
            if self._slab is None or self._slab[0] != start:
                self._slab = None  # freed before the next is collected
                self._slab = start, self._collect(start, min(start + self._thickness, self.shape[0]))
            return self._slab[1][z - start].copy()

    def _collect(self, start: int, stop: int) -> np.ndarray:
        """Planes start to stop, (stop - start, ny, nx), in one pass over the stored planes."""
        slab = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for k in range(self._base.shape[0]):
            by_rows = self._order[1] == "z"
            part = self._base.rows(k, start, stop) if by_rows else self._base.plane(k)[:, start:stop].T
            if self._order[0] == "y":
                slab[:, k, :] = part
            else:
                slab[:, :, k] = part
        return slab

    def close(self) -> None:
        self._slab = None
        self._base.close()

    def __del__(self) -> None:
        """The base closes itself where nobody else holds it."""
