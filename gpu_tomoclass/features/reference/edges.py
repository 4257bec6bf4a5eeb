"""The families built on the Gaussian blur G(s): Gaussian_blur, Sobel_filter, Hessian, Difference_of_gaussians.

Source: ``trainableSegmentation.FeatureStack`` of TWS 4.0.0. float32 throughout unless a step says otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.features.reference.blur import STD_PER_SIGMA
from gpu_tomoclass.features.reference.convolve import convolve
from gpu_tomoclass.features.reference.source import FeatureSource

# TWS calls these "x" and "y", but ROWS takes the difference of rows (above minus below) and COLUMNS that of columns.
ROWS = np.array([[1, 2, 1], [0, 0, 0], [-1, -2, -1]], dtype=np.float32)
COLUMNS = np.array([[1, 0, -1], [2, 0, -2], [1, 0, -1]], dtype=np.float32)


def gaussian_blur(source: FeatureSource, *, sigma: float) -> np.ndarray:
    """``Gaussian_blur``: G(sigma), standard deviation 0.4 sigma; (1, ny, nx) float32."""
    return source.gaussian(sigma)[np.newaxis]


def difference_of_gaussians(source: FeatureSource, *, sigma: float, smaller: Sequence[float]) -> np.ndarray:
    """``Difference_of_gaussians``: G(t) - G(sigma) for each t of ``smaller``; (len(smaller), ny, nx) float32."""
    result = np.empty((len(smaller), *source.shape), dtype=np.float32)
    for channel, t in enumerate(smaller):
        np.subtract(source.gaussian(t), source.gaussian(sigma), out=result[channel])
    return result


def over_sigma(sigma: float, order: int, *, per_sigma: bool) -> float:
    """Factor of G(sigma) that makes differences of this order those over one standard deviation, not a pixel."""
    return (STD_PER_SIGMA * sigma) ** order if per_sigma else 1.0


def sobel_filter(source: FeatureSource, *, sigma: float, per_sigma: bool = False) -> np.ndarray:
    """``Sobel_filter``: gradient magnitude sqrt(a^2 + b^2) of G(sigma); sigma 0: no blur; (1, ny, nx) float32.

    ``per_sigma``: ours, for sigmas in nm; see :func:`over_sigma`.
    """
    blurred = source.gaussian(sigma, factor=over_sigma(sigma, 1, per_sigma=per_sigma))
    a, b = convolve(blurred, ROWS), convolve(blurred, COLUMNS)
    return np.sqrt(a * a + b * b)[np.newaxis]


def hessian(source: FeatureSource, *, sigma: float, legacy: bool = False, per_sigma: bool = False) -> np.ndarray:
    """``Hessian`` of G(sigma), by applying Sobel filters twice; sigma 0: no blur.

    With second differences A (rows twice), B (mixed), D (columns twice) and q = (A - D)^2 + 4 B^2:

    0. module sqrt(A^2 + B^2 + D^2) (B counts once)
    1. trace A + D
    2. determinant A D - B^2
    3. first eigenvalue (A + D + sqrt(q)) / 2
    4. second eigenvalue (A + D - sqrt(q)) / 2
    5. orientation of the first eigenvector, +-acos((A - D) / sqrt(q)) / 2 rad with the sign of B; 0 where q = 0
    6. square eigenvalue difference (A + D)^2 q
    7. normalised eigenvalue difference q

    ``legacy``: the eigenvalues of TWS before 3.2.25, (A + D) / 2 +- sqrt(q / 2), which are not those of the matrix; the
    other channels are the same. ``per_sigma``: ours, for sigmas in nm; see :func:`over_sigma`.

    Returns
    -------
    ndarray
        (8, ny, nx) float32.
    """
    blurred = source.gaussian(sigma, factor=over_sigma(sigma, 2, per_sigma=per_sigma))
    a = convolve(blurred, ROWS)
    rows, mixed = convolve(a, ROWS), convolve(a, COLUMNS)
    columns = convolve(convolve(blurred, COLUMNS), COLUMNS)
    result = np.empty((8, *source.shape), dtype=np.float32)
    difference = rows - columns
    result[0] = np.sqrt(rows * rows + mixed * mixed + columns * columns)
    trace = np.add(rows, columns, out=result[1])
    result[2] = rows * columns - mixed * mixed
    q = difference * difference + np.float32(4) * mixed * mixed
    root = np.sqrt(q.astype(np.float64) * (2.0 if legacy else 1.0))  # sqrt(q / 2) is sqrt(2 q) / 2 in every bit
    result[3] = (trace + root).astype(np.float32) / np.float32(2)
    result[4] = (trace - root).astype(np.float32) / np.float32(2)
    # Here TWS sums in double precision, but the square of A - D is a float32.
    root = 4.0 * mixed.astype(np.float64) * mixed + difference * difference
    np.sqrt(root, out=root)
    with np.errstate(invalid="ignore"):  # 0/0 on flat ground, and quotients of 1 + rounding
        angle = 0.5 * np.arccos(difference / root)
    angle[np.isnan(angle)] = 0.0
    result[5] = np.where(mixed < 0, -angle, angle)
    result[6] = trace.astype(np.float64) * trace * q
    result[7] = q
    return result
