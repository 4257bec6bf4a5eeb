"""Membrane_projections: the response to lines in ten directions, projected over the directions.

Source: ``trainableSegmentation.FeatureStack.getMembraneFeatures`` of TWS 4.0.0 and ImageJ's ``ZProjector``.
"""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.features.reference.convolve import convolve, rotate_nearest
from gpu_tomoclass.features.reference.source import FeatureSource

N_ANGLES = 10


def membrane_kernels(patch: int, thickness: int) -> list[np.ndarray]:
    """Ten (patch, patch) float32 kernels of 0 and 1: a line through the centre, turned in steps of 18 degrees.

    The line is thickness + 1 columns wide, m - floor(thickness / 2) .. m + ceil(thickness / 2) about the middle m, so
    an odd thickness lies half a pixel off the centre. Both are as in TWS.
    """
    line = np.zeros((patch, patch), dtype=np.float32)
    middle = patch // 2
    line[:, middle - thickness // 2 : middle + (thickness + 1) // 2 + 1] = 1
    return [rotate_nearest(line, i * (180 // N_ANGLES)) for i in range(N_ANGLES)]


def membrane_projections(source: FeatureSource, *, patch: int, thickness: int) -> np.ndarray:
    """``Membrane_projections``: mean, maximum, minimum, sum, standard deviation and median over ten directions.

    Parameters
    ----------
    source : FeatureSource
        The plane.
    patch : int
        Odd side of the kernels in pixels.
    thickness : int
        Membrane thickness in pixels; see :func:`membrane_kernels`.

    Returns
    -------
    ndarray
        (6, ny, nx) float32.
    """
    responses = np.stack([convolve(source.image, kernel) for kernel in membrane_kernels(patch, thickness)])
    return project(responses)


def project(stack: np.ndarray) -> np.ndarray:
    """ImageJ's six z projections of an (n, ny, nx) float32 stack with even n: (6, ny, nx) float32.

    Mean (double sum), maximum, minimum, sum (float32, in order), sample standard deviation sqrt((n S2 - S1^2) / n /
    (n - 1)) in double precision (0 where rounding makes it negative), median (mean of the two middle values).
    """
    n = len(stack)
    result = np.zeros((6, *stack.shape[1:]), dtype=np.float32)
    total = np.zeros(stack.shape[1:])
    total_of_squares = np.zeros(stack.shape[1:])
    for image in stack:
        wide = image.astype(np.float64)
        total += wide
        total_of_squares += wide * wide
        result[3] += image
    result[0] = total / n
    result[1] = stack.max(axis=0)
    result[2] = stack.min(axis=0)
    variance = np.maximum((n * total_of_squares - total * total) / n, 0.0)
    result[4] = np.sqrt(variance / (n - 1.0))
    ordered = np.sort(stack, axis=0)
    result[5] = (ordered[n // 2 - 1] + ordered[n // 2]) / np.float32(2)
    return result
