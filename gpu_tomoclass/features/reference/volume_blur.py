"""G3(s): the Gaussian blur of imglib2 as TWS 3D calls it, and the families Gaussian_blur and Difference_of_Gaussian.

Source: ``net.imglib2.algorithm.gauss3.Gauss3`` of imglib2-algorithm 0.14. Passes along x, y, z, each rounded to
float32; edges mirror without repeating the edge voxel, again and again where the kernel is longer than the line. Sigma
is the true standard deviation in voxels of x; along another axis it is sigma times the aspect.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.features.reference.volume_source import Image, Positions, VolumeSource, mirrored, taps


def blur_reach(sigma: float, aspect: float = 1.0) -> int:
    """Half-width in voxels of the kernel along an axis of this aspect."""
    return max(2, int(3.0 * (sigma * aspect) + 0.5) + 1) - 1


def blur_kernel(std: float) -> npt.NDArray[np.float32]:
    """One-sided kernel of a standard deviation in voxels: float32, index 0 is the centre.

    exp(-i^2 / 2 std^2), its end replaced by a parabola that touches it and reaches 0 one voxel beyond, normalised to a
    sum of 1 over both sides.
    """
    length = blur_reach(std) + 1
    kernel = [1.0] + [math.exp(-(i * i) / (2.0 * std * std)) for i in range(1, length)]
    least, r = math.inf, length - 1
    while r >= length // 2:
        a = kernel[r] / ((length - r) * (length - r))
        if a >= least:
            r += 1
            break
        least = a
        r -= 1
    r = max(r, length // 2)
    for i in range(r + 1, length):
        kernel[i] = least * ((length - i) * (length - i))
    total = 0.5 * kernel[0]
    for value in kernel[1:]:
        total += value
    share = 1.0 / (2.0 * total)
    return np.array([value * share for value in kernel]).astype(np.float32)


def running_sums(image: Image, kernel: npt.NDArray[np.float32], rows: Positions) -> Image:
    """Convolution along axis 1 as a running float32 sum from the lowest to the highest tap.

    Parameters
    ----------
    image : ndarray
        (n, length, m) float32.
    kernel : ndarray
        One-sided.
    rows : ndarray
        (n_out + 2 half,): where along axis 1 tap k of output i lies, entry i + k.

    Returns
    -------
    ndarray
        (n, n_out, m) float32.
    """
    half = len(kernel) - 1
    n_out = len(rows) - 2 * half
    result = image[:, rows[:n_out]] * kernel[half]
    for k in range(1, 2 * half + 1):
        result += image[:, rows[k : k + n_out]] * kernel[abs(k - half)]
    return result


def blur(source: VolumeSource, sigma: float) -> Image:
    """G3(sigma) of the wanted planes: (n, ny, nx) float32. A volume of one plane has no pass along z."""
    nz, ny, nx = source.image.shape
    cz, cy, cx = source.aspect.axes
    kernel = blur_kernel(sigma * cx)
    lines = np.ascontiguousarray(source.image.transpose(0, 2, 1))
    lines = running_sums(lines, kernel, mirrored(taps(0, nx, len(kernel) - 1), nx))
    image = np.ascontiguousarray(lines.transpose(0, 2, 1))
    kernel = blur_kernel(sigma * cy)
    image = running_sums(image, kernel, mirrored(taps(0, ny, len(kernel) - 1), ny))
    if source.depth == 1:
        return image
    kernel = blur_kernel(sigma * cz)
    planes = mirrored(taps(source.start, source.stop, len(kernel) - 1), source.depth)
    return running_sums(image.reshape(1, nz, ny * nx), kernel, source.within_slab(planes)).reshape(source.shape)


def gaussian_blur(source: VolumeSource, *, sigma: float) -> Image:
    """``Gaussian_blur``: (1, n, ny, nx) float32."""
    return blur(source, sigma)[np.newaxis]


def difference_of_gaussian(source: VolumeSource, *, sigma: float, smaller: Sequence[float]) -> Image:
    """``Difference_of_Gaussian``: G3(sigma) - G3(t) for each smaller t; (len(smaller), n, ny, nx) float32."""
    larger = blur(source, sigma)
    return np.stack([larger - blur(source, t) for t in smaller])
