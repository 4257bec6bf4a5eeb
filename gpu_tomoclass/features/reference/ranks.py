"""Variance, Mean, Minimum, Maximum and Median over the disk D(r) of ImageJ's rank filters; edges repeat.

Source: ``ij.plugin.filter.RankFilters`` of ImageJ 1.54. TWS passes its sigma as the radius.
"""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from gpu_tomoclass.features.reference.disk import disk_footprint, disk_half_widths
from gpu_tomoclass.features.reference.source import FeatureSource

VALUES_AT_ONCE = 2**19  # the disks of so many pixels are sorted together that they hold about 2 MiB


def variance(source: FeatureSource, *, radius: float) -> np.ndarray:
    """``Variance``: population variance (S2 - S1^2 / n) / n, not below 0; (1, ny, nx) float32."""
    total, total_of_squares, n = _disk_sums(source.image, radius, squares=True)
    result = ((total_of_squares - total * total / n) / n).astype(np.float32)
    return np.maximum(result, np.float32(0))[np.newaxis]


def mean(source: FeatureSource, *, radius: float) -> np.ndarray:
    """``Mean``: S1 / n; (1, ny, nx) float32."""
    total, _, n = _disk_sums(source.image, radius, squares=False)
    return (total / n).astype(np.float32)[np.newaxis]


def minimum(source: FeatureSource, *, radius: float) -> np.ndarray:
    """``Minimum``; (1, ny, nx) float32."""
    return -_disk_maximum(-source.image, radius)[np.newaxis]


def maximum(source: FeatureSource, *, radius: float) -> np.ndarray:
    """``Maximum``; (1, ny, nx) float32."""
    return _disk_maximum(source.image, radius)[np.newaxis]


def median(source: FeatureSource, *, radius: float) -> np.ndarray:
    """``Median``: the middle one of the sorted values (their number is odd); (1, ny, nx) float32."""
    image = source.image
    ny, nx = image.shape
    inside = disk_footprint(radius)
    half, n = len(inside) // 2, int(inside.sum())
    windows = sliding_window_view(np.pad(image, half, mode="edge"), inside.shape)
    result = np.empty_like(image)
    n_columns = max(1, min(nx, VALUES_AT_ONCE // n))
    n_rows = max(1, VALUES_AT_ONCE // (n * n_columns))
    for y in range(0, ny, n_rows):
        for x in range(0, nx, n_columns):
            values = windows[y : y + n_rows, x : x + n_columns][:, :, inside]
            values.partition(n // 2, axis=-1)
            result[y : y + n_rows, x : x + n_columns] = values[:, :, n // 2]
    return result[np.newaxis]


def _disk_sums(image: np.ndarray, radius: float, *, squares: bool) -> tuple[np.ndarray, np.ndarray, int]:
    """Sums of the values and (if asked) of their squares over the disk, float64 (ny, nx), and its number of pixels.

    ImageJ sums a 3 x 3 disk afresh at every pixel. For larger disks it does so in the first column, and from there on
    adds what enters at the right and subtracts what leaves at the left: the same up to rounding, which is copied too
    (whole numbers up to 16 bits leave none).
    """
    ny, nx = image.shape
    widths = disk_half_widths(radius)
    half = len(widths) // 2
    padded = np.pad(image.astype(np.float64), half, mode="edge")
    n_full = nx if half < 2 else 1  # columns that are summed afresh
    sums = np.zeros((2 if squares else 1, ny, nx))
    for y, width in enumerate(widths):
        for x in range(half - width, half + width + 1):
            value = padded[y : y + ny, x : x + n_full]
            sums[0, :, :n_full] += value
            if squares:
                sums[1, :, :n_full] += value * value
    if n_full < nx:
        for y, width in enumerate(widths):
            leaving = padded[y : y + ny, half - width : half - width + nx - 1]
            entering = padded[y : y + ny, half + width + 1 : half + width + nx]
            sums[0, :, 1:] -= leaving
            sums[0, :, 1:] += entering
            if squares:
                sums[1, :, 1:] -= leaving * leaving
                sums[1, :, 1:] += entering * entering
        np.cumsum(sums, axis=2, out=sums)
    return sums[0], sums[-1], sum(2 * width + 1 for width in widths)


def _disk_maximum(image: np.ndarray, radius: float) -> np.ndarray:
    """Maximum over the disk: a running maximum of each row's width, then over the rows."""
    ny = len(image)
    widths = disk_half_widths(radius)
    half = len(widths) // 2
    result = np.full_like(image, -np.inf)
    for width in set(widths):
        rows = ndimage.maximum_filter1d(image, 2 * width + 1, axis=1, mode="nearest")
        padded = np.pad(rows, ((half, half), (0, 0)), mode="edge")
        for y in (y for y, w in enumerate(widths) if w == width):
            np.maximum(result, padded[y : y + ny], out=result)
    return result
