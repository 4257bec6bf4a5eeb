"""Bilateral filter of the 8-bit plane: a Gaussian mean over the pixels that are near in place and in grey level.

Follows ``vib.BilateralFilter`` (VIB-lib 2.2.0) operation by operation, in float32, so results agree in every bit.
"""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

SPATIAL_RADII = (5.0, 10.0)
"""Pixels; the kernels have 11 and 21 taps a side."""
RANGE_RADII = (50.0, 100.0)
"""Grey levels; a pixel that differs by more does not count."""


def bilateral(source: FeatureSource) -> np.ndarray:
    """Smooth a plane without crossing steps in grey level.

    Works on :meth:`FeatureSource.bytes_display`. **Pixels outside the plane are grey level 0 and count** where 0 is
    within the range, so dark borders get darker. The result is cut to a whole grey level. A constant plane gives 0, as
    its 8-bit form is 0.

    Parameters
    ----------
    source : FeatureSource
        The plane, (ny, nx).

    Returns
    -------
    ndarray
        (4, ny, nx) float32, whole numbers 0..255: (spatial, range radius) = (5, 50), (5, 100), (10, 50), (10, 100).

    References
    ----------
    C. Tomasi and R. Manduchi, "Bilateral filtering for gray and color images", ICCV 1998, 839-846.
    """
    grey = source.bytes_display()
    return np.stack([_filter(grey, spatial, level) for spatial in SPATIAL_RADII for level in RANGE_RADII])


def weights(radius: float) -> np.ndarray:
    """Gaussian weights, standard deviation 0.4 (radius + 1), none beyond ``radius``: odd length, float32, sum 1."""
    centre = radius + 1.0
    n_taps = 2 * int(centre) - 1
    distance = (np.arange(1, n_taps + 1) - centre) / (0.4 * centre)
    bell = np.exp(-0.5 * distance * distance).astype(np.float32)
    return bell / np.add.accumulate(bell)[-1]


def _filter(grey: np.ndarray, spatial_radius: float, range_radius: float) -> np.ndarray:
    """One channel: (ny, nx) uint8 -> float32."""
    ny, nx = grey.shape
    spatial, near = weights(spatial_radius), weights(range_radius)
    reach, cut = len(spatial) // 2, len(near) // 2
    by_difference = np.zeros(511, dtype=np.float32)  # weight of a pixel that differs by -255..255
    by_difference[255 - cut : 256 + cut] = near

    padded = np.pad(grey, reach).astype(np.intp)
    padded_float = padded.astype(np.float32)
    from_centre = 255 - grey.astype(np.intp)
    total, total_weight = np.zeros(grey.shape, np.float32), np.zeros(grey.shape, np.float32)
    difference, weight = np.empty(grey.shape, np.intp), np.empty(grey.shape, np.float32)
    for row in range(len(spatial)):
        for column in range(len(spatial)):
            tap = np.s_[row : row + ny, column : column + nx]
            np.add(padded[tap], from_centre, out=difference)
            np.take(by_difference, difference, out=weight, mode="clip")  # "clip" only because "raise" buffers
            weight *= spatial[column] * spatial[row]
            total_weight += weight
            weight *= padded_float[tap]
            total += weight
    total /= total_weight
    return np.floor(total)
