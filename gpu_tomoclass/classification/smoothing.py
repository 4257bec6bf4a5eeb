"""Class probabilities smoothed in three dimensions before the class is taken: a Gaussian, plane by plane.

A pixel's neighbours are mostly of its class, those above and below as much as those beside it, while the forest's noise
is another in each. Every plane is classified once and filtered within itself; then planes are added with the weights of
a Gaussian along z. Sums go from the first plane to the last, so a result has the same bits whatever slab asks for it.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future

import numpy as np

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.volumes import VoxelSize

TRUNCATE = 3.0  # sigmas; the rest of a Gaussian is 0.3 %
MAX_SIGMA = 32.0  # voxels
Computed = Sequence[np.ndarray | None]  # for each plane (n_classes, ny, nx) float32; None: it could not be read


def sigma_in_voxels(sigma_nm: float, voxel_size: VoxelSize | None) -> tuple[float, float, float]:
    """Sigma along z, y, x in voxels.

    Raises
    ------
    UsageError
        If the size of a voxel is not known, or sigma is no positive number or above 32 voxels.
    """
    if voxel_size is None:
        raise UsageError(
            "probabilities are smoothed by a distance in nm, and the volume does not say how large a voxel is",
            do="give --voxel-size",
        )
    z, y, x = (sigma_nm / edge for edge in voxel_size)
    if not 0 < max(z, y, x) <= MAX_SIGMA:
        raise UsageError(
            f"sigma of {sigma_nm:g} nm is {max(z, y, x):.3g} voxels", do=f"give more than 0 and at most {MAX_SIGMA:g}"
        )
    return z, y, x


def planes_around(sigma: float) -> int:
    """Planes on each side that a sigma along z (in voxels) looks at."""
    return math.ceil(TRUNCATE * sigma - 0.5) if sigma > 0 else 0


class Smoother:
    """Smooths the probabilities of slabs; threads share the planes that they have in common.

    Parameters
    ----------
    sigma : (z, y, x)
        In voxels.
    """

    def __init__(self, sigma: tuple[float, float, float]) -> None:
        self._in_plane = sigma[1:]
        self.reach = planes_around(sigma[0])
        distance = np.arange(-self.reach, self.reach + 1)
        self._weights = np.exp(-0.5 * (distance / max(sigma[0], 1e-9)) ** 2).astype(np.float32)
        self._planes: dict[int, Future[np.ndarray | None]] = {}
        self._at_work: list[int] = []  # the first plane that each slab in work needs
        self._lock = threading.Lock()

    def smoothed(
        self, start: int, stop: int, *, depth: int, compute: Callable[[int, int], Computed]
    ) -> list[np.ndarray | None]:
        """Probabilities of planes ``start`` to ``stop - 1`` of a volume of ``depth`` planes.

        Parameters
        ----------
        compute : callable
            (first, last + 1) -> probabilities of these planes; asked for each plane once, by whoever comes first.

        Returns
        -------
        list
            Of each plane (n_classes, ny, nx) float32; None where no plane around could be read.
        """
        low, high = max(0, start - self.reach), min(depth, stop + self.reach)
        with self._lock:
            self._at_work.append(low)
        try:
            near = self._filtered(low, high, compute)
            return [self._along_z(z, near, low) for z in range(start, stop)]
        finally:
            with self._lock:
                self._at_work.remove(low)
                needed = min(self._at_work, default=stop - self.reach)
                for z in [z for z in self._planes if z < needed]:
                    del self._planes[z]

    def _filtered(self, low: int, high: int, compute: Callable[[int, int], Computed]) -> list[np.ndarray | None]:
        while True:
            with self._lock:
                mine = [z for z in range(low, high) if z not in self._planes]
                self._planes.update((z, Future()) for z in mine)
                waiting = [self._planes[z] for z in range(low, high)]
            try:
                for first, last in _runs(mine):
                    for z, plane in zip(range(first, last), compute(first, last), strict=True):
                        waiting[z - low].set_result(None if plane is None else self._within(plane))
            except BaseException:  # whoever waits for one of these planes computes it for himself
                with self._lock:
                    for z in (z for z in mine if not waiting[z - low].done()):
                        del self._planes[z]
                        waiting[z - low].set_exception(_FailedElsewhere())
                raise
            try:
                return [future.result() for future in waiting]
            except _FailedElsewhere:
                continue

    def _within(self, plane: np.ndarray) -> np.ndarray:
        from scipy.ndimage import gaussian_filter1d  # half a second, for runs that smooth only

        for axis, sigma in zip((1, 2), self._in_plane, strict=True):
            if sigma > 0:
                plane = gaussian_filter1d(plane, sigma, axis=axis, mode="nearest", truncate=TRUNCATE)
        return plane

    def _along_z(self, z: int, near: Sequence[np.ndarray | None], low: int) -> np.ndarray | None:
        total: np.ndarray | None = None
        weight = np.float32(0)
        for plane, w in zip(range(z - self.reach, z + self.reach + 1), self._weights, strict=True):
            values = near[plane - low] if low <= plane < low + len(near) else None
            if values is not None:
                total = values * w if total is None else total + values * w
                weight += w
        return None if total is None else total / weight


class _FailedElsewhere(Exception):
    """The thread that was computing a plane has failed."""


def _runs(planes: Sequence[int]) -> list[tuple[int, int]]:
    """(first, last + 1) of the runs of rising numbers without a gap."""
    ends = [i for i in range(1, len(planes) + 1) if i == len(planes) or planes[i] != planes[i - 1] + 1]
    return [(planes[i], planes[j - 1] + 1) for i, j in zip([0, *ends], ends, strict=False)] if planes else []
