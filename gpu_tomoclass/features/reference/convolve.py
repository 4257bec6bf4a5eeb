"""C(K): ImageJ's 2-D convolution with a small kernel, and its nearest-neighbour rotation of kernels.

Sources: ``ij.plugin.filter.Convolver.convolveFloat`` and ``ij.process.FloatProcessor.rotate`` of ImageJ 1.54.
"""

from __future__ import annotations

import math

import numpy as np


def convolve(image: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Correlation with ``kernel`` (it is not flipped), normalised to its sum if that is not 0; edges repeat.

    Each product is rounded to float32, the sum runs in double precision over the kernel row by row, and the result is
    rounded to float32.

    Parameters
    ----------
    image : ndarray
        (ny, nx) float32, finite (taps of weight 0 are skipped).
    kernel : ndarray
        2-D float32 with odd sides.

    Returns
    -------
    ndarray
        (ny, nx) float32.
    """
    ny, nx = image.shape
    half_y, half_x = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.pad(image, ((half_y, half_y), (half_x, half_x)), mode="edge")
    total = np.zeros(image.shape)
    for y, x in np.argwhere(kernel):
        total += padded[y : y + ny, x : x + nx] * kernel[y, x]
    weight = float(kernel.astype(np.float64).sum())
    if weight != 0:
        total *= 1.0 / weight
    return total.astype(np.float32)


def rotate_nearest(kernel: np.ndarray, degrees: float) -> np.ndarray:
    """Rotate a square image about its centre, nearest neighbour, 0 outside: (n, n) -> (n, n), same dtype."""
    n = len(kernel)
    centre = (n - 1) / 2.0
    angle = -degrees / (180.0 / math.pi)
    cos, sin = math.cos(angle), math.sin(angle)
    y, x = np.arange(n, dtype=np.float64)[:, np.newaxis], np.arange(n, dtype=np.float64)[np.newaxis, :]
    # The offsets are added in ImageJ's order: points half-way between pixels fall by the last bit.
    x_source = x * cos + (centre * sin - centre * cos - y * sin + centre)
    y_source = x * sin + (-centre * sin - centre * cos + y * cos + centre)
    inside = (x_source >= -0.01) & (x_source < n) & (y_source >= -0.01) & (y_source < n)
    x_index = np.clip((x_source + 0.5).astype(np.int64), 0, n - 1)
    y_index = np.clip((y_source + 0.5).astype(np.int64), 0, n - 1)
    return np.where(inside, kernel[y_index, x_index], kernel.dtype.type(0))
