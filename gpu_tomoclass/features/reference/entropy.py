"""Entropy of the grey levels in a disk around each pixel, for the darkest 32, 64, 128 and 256 of 256 levels."""

from __future__ import annotations

import math

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

LN2 = math.log(2.0)
BINS = (32, 64, 128, 256)
"""TWS means numbers of bins, but its histogram always has 256; these are how many of the darkest levels count."""


def entropy(source: FeatureSource, *, radius: int) -> np.ndarray:
    """Shannon entropy in bits of the grey levels below 32, 64, 128 and 256 in a disk.

    Works on :meth:`FeatureSource.bytes_own`. With h_k the number of disk pixels of level k and n their number below
    ``bins``: -sum over k < bins of (h_k / n) log2(h_k / n), 0 if n = 0. Pixels outside the plane do not count. A
    constant plane gives 0.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).
    radius : int
        Radius of the disk in pixels: offsets with dx^2 + dy^2 <= (radius + 0.5)^2.

    Returns
    -------
    ndarray
        (4, ny, nx) float32, one channel for each of :data:`BINS`.
    """
    grey = source.bytes_own()
    ny, nx = grey.shape
    half_widths = [math.isqrt(radius * radius + radius - dy * dy) for dy in range(-radius, radius + 1)]
    n = [_count_in_disk(grey < bins, half_widths).ravel() for bins in BINS]
    total = np.zeros((len(BINS), ny * nx))
    for level in np.unique(grey):
        count = _count_in_disk(grey == level, half_widths).ravel()
        seen = np.flatnonzero(count)
        for bins, n_counted, sum_ in zip(BINS, n, total, strict=True):
            if level < bins:
                p = count[seen] / n_counted[seen]
                sum_[seen] -= p * np.log(p) / LN2
    return total.reshape(len(BINS), ny, nx).astype(np.float32)


def _count_in_disk(mask: np.ndarray, half_widths: list[int]) -> np.ndarray:
    """Number of set pixels in the disk around each pixel: (ny, nx) int32, by running sums along the disk's rows."""
    ny, nx = mask.shape
    radius = len(half_widths) // 2
    running = np.zeros((ny + 2 * radius, nx + 2 * radius + 1), dtype=np.int32)
    np.cumsum(np.pad(mask, radius), axis=1, out=running[:, 1:])
    count = np.zeros((ny, nx), dtype=np.int32)
    for row, half in enumerate(half_widths):
        start, stop = radius - half, radius + half + 1
        count += running[row : row + ny, stop : stop + nx] - running[row : row + ny, start : start + nx]
    return count
