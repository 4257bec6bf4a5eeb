"""An array as a volume that tells which planes were read, and whose planes may be damaged."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpu_tomoclass.errors import DataError
from gpu_tomoclass.volumes import ArrayVolume


class CountedVolume(ArrayVolume):
    """Planes of ``array`` (nz, ny, nx); keyword arguments as of ArrayVolume. Planes in ``broken`` cannot be read."""

    def __init__(self, array: np.ndarray, **options: Any) -> None:
        super().__init__(array, **options)
        self.planes_read: list[int] = []
        self.broken: set[int] = set()

    def _read_plane(self, z: int) -> np.ndarray:
        self.planes_read.append(z)
        if z in self.broken:
            raise DataError(f"plane {z} is damaged", where=self.path)
        return super()._read_plane(z)
