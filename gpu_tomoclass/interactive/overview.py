"""A small copy of a volume in memory, for sections across planes; filled in the background when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.errors import TomoclassError
from gpu_tomoclass.volumes import Volume

MOST_BYTES = 2**28


class Overview:
    """Every n-th voxel along each axis as a grey value, so that all of it fits the memory.

    Parameters
    ----------
    volume : Volume
        Read by a thread of the overview alone.
    limits : (float, float)
        Values that become 0 and 255.
    on_progress : callable
        Called with (planes done, planes in all).
    on_error : callable
        Called with the TomoclassError that ends the reading.
    most_bytes : int
    """

    def __init__(
        self,
        volume: Volume,
        limits: tuple[float, float],
        *,
        on_progress: Callable[[int, int], None],
        on_error: Callable[[TomoclassError], None],
        most_bytes: int = MOST_BYTES,
    ) -> None:
        self._volume, self._limits = volume, limits
        self._on_progress, self._on_error = on_progress, on_error
        self.step = 1
        while np.prod([-(-n // self.step) for n in volume.shape]) > most_bytes:
            self.step += 1
        self._planes = list(range(0, volume.shape[0], self.step))
        shape = (len(self._planes), *(-(-n // self.step) for n in volume.shape[1:]))
        self._voxels = np.zeros(shape, np.uint8)
        self._closed = False
        self._thread = threading.Thread(target=self._read, name="overview", daemon=True)
        self._thread.start()

    def section(self, axis: str, position: int) -> npt.NDArray[np.uint8]:
        """``"y"``: (z, x) at y = ``position``; ``"x"``: (z, y) at x = ``position``; zeros where nothing was read."""
        at = position // self.step
        return self._voxels[:, at].copy() if axis == "y" else self._voxels[:, :, at].copy()

    def close(self) -> None:
        """Stop reading."""
        self._closed = True
        self._thread.join()

    def _read(self) -> None:
        try:
            for i, z in enumerate(self._planes):
                if self._closed:
                    return
                part = self._volume.plane(z)[:: self.step, :: self.step]
                self._voxels[i] = grey_bytes(part, self._limits)
                self._on_progress(i + 1, len(self._planes))
        except TomoclassError as error:
            self._on_error(error)


def grey_bytes(plane: npt.NDArray[np.generic], limits: tuple[float, float]) -> npt.NDArray[np.uint8]:
    """Values as 0..255 between the limits; what is not finite is 0."""
    low, high = limits
    values = np.nan_to_num(plane.astype(np.float32), nan=low, posinf=high, neginf=low)
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low) if high > low else 0)
    return np.clip(scaled, 0, 255).astype(np.uint8)
