"""How stored axes become z, y, x, and reading by layers of planes: shared by the MRC, Zarr and HDF5 readers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

import numpy as np

from gpu_tomoclass.errors import UsageError

# A layer (the planes of one row of chunks) is kept decoded up to this size, so that each chunk is decoded once.
LAYER_BYTES = 2**30


def stored_order(axes: str | None, declared: str, *, where: str) -> str:
    """The three axes as stored, slowest first, in lower case: ``axes`` if the user gave it, else ``declared``.

    Raises
    ------
    UsageError
        If ``axes`` is not a permutation of z, y, x.
    """
    order = (declared if axes is None else axes).lower()
    if sorted(order) != ["x", "y", "z"]:
        raise UsageError(f"axes '{axes}' is not an order of z, y, x", where=where, do="for example --axes yzx")
    return order


def order_notes(axes: str | None, declared: str, order: str) -> list[str]:
    """The sentence for a volume whose planes are transposed on reading; empty for z, y, x as stored."""
    if order == "zyx" and axes is None:
        return []
    source = "as the header says" if axes is None else f"as asked (the file says {declared.upper()})"
    return [f"axes are stored as {order.upper()}, {source}; planes are read as ZYX"]


def spatial_axes(shape: Sequence[int]) -> tuple[int, ...] | None:
    """Which axes of an array without named axes hold the image: three, or two for a single plane.

    Axes of length 1 beyond the third are left out, the first ones first. None if more than three axes are longer, or
    the array has fewer than two.
    """
    kept = list(range(len(shape)))
    for axis in range(len(shape)):
        if len(kept) > 3 and shape[axis] == 1:
            kept.remove(axis)
    return tuple(kept) if 2 <= len(kept) <= 3 else None


class LayerCache:
    """Keeps the layer of planes that was read last.

    Parameters
    ----------
    n_planes, thickness : int
        Planes in the volume, and in a layer (one chunk thick).
    plane_bytes : int
        Bytes of one decoded plane; layers above ``LAYER_BYTES`` are not kept.
    """

    def __init__(self, n_planes: int, thickness: int, plane_bytes: int) -> None:
        self.n_planes, self.thickness = n_planes, max(1, thickness)
        self.fits = self.thickness * plane_bytes <= LAYER_BYTES
        self._kept: tuple[int, np.ndarray] | None = None
        self._lock = threading.Lock()  # so that two threads do not decode the same layer twice

    def plane(self, z: int, read: Callable[[int, int], np.ndarray]) -> np.ndarray:
        """Plane z, the caller's own, of the layer that ``read(start, stop)`` returns with z as its first axis."""
        if not self.fits or self.thickness == 1:
            return read(z, z + 1)[0]
        start = z - z % self.thickness
        with self._lock:
            if self._kept is None or self._kept[0] != start:
                self._kept = None  # before reading, so that only one layer is in memory
                self._kept = start, read(start, min(start + self.thickness, self.n_planes))
            return self._kept[1][z - start].copy()

    def notes(self) -> list[str]:
        """A sentence if reading plane by plane decodes the same chunks again and again."""
        if self.fits or self.thickness == 1:
            return []
        return [
            f"chunks are {self.thickness} planes thick and a layer of them is too large to keep: reading planes in "
            f"order decodes each chunk {self.thickness} times; copy the volume with thinner chunks first"
        ]

    def clear(self) -> None:
        self._kept = None
