"""A label volume that is an array, for tests of what reads volumes."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_tomoclass.volumes.volume import Volume


class ArrayVolume(Volume):
    """Planes of ``array`` (nz, ny, nx); keyword arguments as of Volume."""

    def __init__(self, array: np.ndarray, **options: Any) -> None:
        super().__init__("array", shape=array.shape, dtype=array.dtype, format="array", **options)
        self.array = array
        self.planes_read: list[int] = []

    def _read_plane(self, z: int) -> np.ndarray:
        self.planes_read.append(z)
        return self.array[z]
