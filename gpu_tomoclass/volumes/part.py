"""Some planes of a volume as a volume of their own."""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes.volume import Volume


class PartVolume(Volume):
    """Planes ``start`` to ``stop - 1`` of ``base``, read from it.

    Parameters
    ----------
    base : Volume
        Closed by whoever opened it, not together with this volume.
    start, stop : int

    Raises
    ------
    UsageError
        If these planes are not all in the volume.
    """

    def __init__(self, base: Volume, start: int, stop: int) -> None:
        if not 0 <= start < stop <= base.shape[0]:
            raise UsageError(f"planes {start}:{stop} are not among its planes 0:{base.shape[0]}", where=base.path)
        super().__init__(
            base.path,
            shape=(stop - start, *base.shape[1:]),
            dtype=base.dtype,
            format=base.format,
            axes=base.axes,
            voxel_size=base.voxel_size,
            classes=base.classes,
            metadata=base.metadata,
            files=base.files(),
        )
        self.notes = base.notes
        self._base, self.start = base, start

    def _read_plane(self, z: int) -> np.ndarray:
        return self._base.plane(self.start + z)
