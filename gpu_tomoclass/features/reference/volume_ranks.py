"""Minimum, Maximum, Mean, Median and Variance over the ball B(s); voxels outside the volume are left out.

Source: ``ij.process.StackProcessor.filter3D`` of ImageJ 1.54. TWS passes its sigma as the radius.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from gpu_tomoclass.features.reference.volume_ball import ball_rows
from gpu_tomoclass.features.reference.volume_source import Image, VolumeSource

VALUES_AT_ONCE = 2**19  # the balls of so many voxels are sorted together that they hold about 2 MiB


def minimum(source: VolumeSource, *, radius: float) -> Image:
    """``Minimum``: (1, n, ny, nx) float32."""
    window = _Window(source, radius, outside=np.inf)
    result = window.centre().copy()
    for values in window.taps():
        np.minimum(result, values, out=result)
    return result[np.newaxis]


def maximum(source: VolumeSource, *, radius: float) -> Image:
    """``Maximum``: (1, n, ny, nx) float32."""
    window = _Window(source, radius, outside=-np.inf)
    result = window.centre().copy()
    for values in window.taps():
        np.maximum(result, values, out=result)
    return result[np.newaxis]


def mean(source: VolumeSource, *, radius: float) -> Image:
    """``Mean``: sum / n, the sum in double in the order z, y, x; (1, n, ny, nx) float32."""
    window = _Window(source, radius, outside=0)
    total = np.zeros(source.shape)
    for values in window.taps():
        total += values
    return (total / window.count()).astype(np.float32)[np.newaxis]


def variance(source: VolumeSource, *, radius: float) -> Image:
    """``Variance``: (S2 - S1^2 / n) / (n - 1), 0 for a single voxel; not limited at 0. (1, n, ny, nx) float32.

    S1 and S2 are sums in double in the order z, y, x; each square is rounded to float32 before it is added.
    """
    window = _Window(source, radius, outside=0)
    total, total_of_squares = np.zeros(source.shape), np.zeros(source.shape)
    for values in window.taps():
        total += values
        total_of_squares += values * values
    n = window.count()
    sample = (total_of_squares - total * total / n) / np.maximum(n - 1, 1)
    return np.where(n > 1, sample, 0.0).astype(np.float32)[np.newaxis]


def median(source: VolumeSource, *, radius: float) -> Image:
    """``Median``: the middle value, or half the sum of the two in float32 where n is even; (1, n, ny, nx) float32."""
    window = _Window(source, radius, outside=np.inf)
    n = window.count()
    footprint = window.footprint()
    windows = sliding_window_view(window.padded, footprint.shape)
    result = np.empty(source.shape, np.float32)
    nz, ny, nx = source.shape
    n_taps = int(footprint.sum())
    n_columns = max(1, min(nx, VALUES_AT_ONCE // n_taps))
    n_rows = max(1, VALUES_AT_ONCE // (n_taps * n_columns))
    for z in range(nz):
        for y in range(0, ny, n_rows):
            for x in range(0, nx, n_columns):
                place = z, slice(y, y + n_rows), slice(x, x + n_columns)
                values = np.sort(windows[place][:, :, footprint], axis=-1)  # what lies outside sorts behind
                middle = n[place][..., np.newaxis] // 2
                upper = np.take_along_axis(values, middle, axis=-1)[..., 0]
                lower = np.take_along_axis(values, np.maximum(middle - 1, 0), axis=-1)[..., 0]
                even = n[place] % 2 == 0
                result[place] = np.where(even, np.float32(0.5) * (lower + upper), upper)
    return result[np.newaxis]


class _Window:
    """A ball around each wanted voxel.

    Parameters
    ----------
    outside : float
        What stands for voxels that the volume does not have.

    Attributes
    ----------
    padded : ndarray
        (n + 2 half_z, ny + 2 half_y, nx + 2 half_x) float32.
    """

    def __init__(self, source: VolumeSource, radius: float, *, outside: float) -> None:
        self.rows = ball_rows(radius, source.aspect)
        self.shape = source.shape
        self.half = tuple(max(row[i] for row in self.rows) for i in range(3))
        self._inside = self._with_margin(source, np.ones_like(source.image), 0)
        self.padded = self._with_margin(source, source.image, outside)

    def _with_margin(self, source: VolumeSource, image: Image, outside: float) -> Image:
        half_z, half_y, half_x = self.half
        first, last = max(source.start - half_z, 0), min(source.stop + half_z, source.depth)
        inside = image[source.within_slab(np.arange(first, last))]
        before, behind = first - (source.start - half_z), source.stop + half_z - last
        margins = ((before, behind), (half_y, half_y), (half_x, half_x))
        return np.pad(inside, margins, constant_values=np.float32(outside))

    def footprint(self) -> npt.NDArray[np.bool_]:
        """Voxels of the box around the centre that belong to the ball."""
        half_z, half_y, half_x = self.half
        result = np.zeros([2 * half + 1 for half in self.half], bool)
        for dz, dy, width in self.rows:
            result[half_z + dz, half_y + dy, half_x - width : half_x + width + 1] = True
        return result

    def centre(self) -> Image:
        return self._at(self.padded, 0, 0, 0)

    def taps(self, of: Image | None = None) -> list[Image]:
        """Views of the image, moved to each voxel of the ball in the order z, y, x."""
        image = self.padded if of is None else of
        return [self._at(image, dz, dy, dx) for dz, dy, width in self.rows for dx in range(-width, width + 1)]

    def count(self) -> npt.NDArray[np.int64]:
        """Voxels of the ball within the volume: (n, ny, nx)."""
        result = np.zeros(self.shape, np.int64)
        for values in self.taps(self._inside):
            result += values.astype(np.int64)
        return result

    def _at(self, image: Image, dz: int, dy: int, dx: int) -> Image:
        z, y, x = (half + d for half, d in zip(self.half, (dz, dy, dx), strict=True))
        nz, ny, nx = self.shape
        return image[z : z + nz, y : y + ny, x : x + nx]
