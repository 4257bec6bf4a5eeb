"""G(s): ImageJ's Gaussian blur as Trainable Weka Segmentation (TWS) calls it, in single precision.

The number that TWS calls sigma is not the standard deviation: std = 0.4 sigma. The x pass comes first, then the y pass;
edges repeat the edge pixel. Every step below is done in the precision and order of ImageJ 1.54 (``GaussianBlur``), so
that results agree in every bit.
"""

from __future__ import annotations

import math

import numpy as np

ACCURACY = 0.0002
"""Kernel values below this fraction of the peak are cut off; ImageJ's choice for 16-bit and float images."""

STD_PER_SIGMA = 0.4
MIN_REDUCED_STD = 4.0  # blurs of more than 2 * this + 0.5 are done on reduced lines
REDUCED_MARGIN = 3  # samples that a reduced line has beyond each end


def gaussian_blur(image: np.ndarray, sigma: float, *, factor: float = 1.0) -> np.ndarray:
    """TWS's ``Gaussian_blur`` of one plane.

    Parameters
    ----------
    image : ndarray
        (ny, nx) float32.
    sigma : float
        TWS's sigma > 0 in pixels; the standard deviation is 0.4 sigma.
    factor : float
        Of all values: the weights along y are multiplied by it. Ours, for derivatives over one sigma in nm.

    Returns
    -------
    ndarray
        (ny, nx) float32, a new array.
    """
    std = STD_PER_SIGMA * sigma
    along_x = blur_columns(np.ascontiguousarray(image.T), std)
    return blur_columns(np.ascontiguousarray(along_x.T), std, factor=factor)


def blur_columns(lines: np.ndarray, std: float, *, factor: float = 1.0) -> np.ndarray:
    """Blur along axis 0: (length, n_lines) float32 -> the same shape and dtype; ``std`` in pixels."""
    if not is_reduced(std):
        return _convolve(lines, *scaled_kernel(std, factor, max_radius=len(lines)))
    step, reduced_std = reduction(std, length=len(lines))
    reduced = _reduce(lines, step)
    reduced = _convolve(reduced, *scaled_kernel(reduced_std, factor, max_radius=len(reduced)))
    return _enlarge(reduced, step, length=len(lines))


def is_reduced(std: float) -> bool:
    """Tell whether a blur is done on reduced lines."""
    return std > 2 * MIN_REDUCED_STD + 0.5


def reduction(std: float, *, length: int) -> tuple[int, float]:
    """The factor by which lines are reduced, and the standard deviation in reduced samples of the blur between."""
    factor = min(math.floor(std / MIN_REDUCED_STD), length)
    # Reducing has a std of 1/2 and enlarging one of 1/sqrt(3) reduced samples; variances add.
    return factor, math.sqrt(std * std / (factor * factor) - 1.0 / 3.0 - 1.0 / 4.0)


def reduced_length(length: int, factor: int) -> int:
    """Samples of a reduced line."""
    return (length + factor - 1) // factor + 2 * REDUCED_MARGIN


def gaussian_kernel(std: float, *, max_radius: int) -> tuple[np.ndarray, np.ndarray]:
    """One-sided kernel and the weight of everything beyond each of its entries.

    Parameters
    ----------
    std : float
        Standard deviation in samples.
    max_radius : int
        Largest number of entries (the line length); limits below 50 count as 50.

    Returns
    -------
    kernel, beyond : ndarray
        float32 of equal length; ``kernel[0]`` is the centre, ``beyond[i]`` the sum of all weights with index > i.
    """
    limit = max(max_radius, 50)
    radius = min(math.ceil(std * math.sqrt(-2.0 * math.log(ACCURACY))) + 1, limit)
    kernel = np.array([math.exp(-0.5 * i * i / std / std) for i in range(radius)], dtype=np.float32)
    if 3 < radius < limit:
        # End in a parabola that reaches 0 at ``radius``, so that the cut makes no step.
        slope, r = math.inf, radius
        while r > radius // 2:
            r -= 1
            a = math.sqrt(float(kernel[r])) / (radius - r)
            if a >= slope:
                break
            slope = a
        for j in range(r + 2, radius):
            kernel[j] = (radius - j) * (radius - j) * slope * slope
    if radius < limit:
        total = float(kernel[0])
        for value in kernel[1:]:
            total += 2.0 * float(value)
    else:
        total = std * math.sqrt(2.0 * math.pi)
    beyond = np.empty_like(kernel)
    running = 0.5 + 0.5 * float(kernel[0]) / total
    for i in range(radius):
        weight = float(kernel[i]) / total
        running -= weight
        kernel[i], beyond[i] = weight, running
    return kernel, beyond


def scaled_kernel(std: float, factor: float, *, max_radius: int) -> tuple[np.ndarray, np.ndarray]:
    """:func:`gaussian_kernel` times a factor, in float32; every bit the same for a factor of 1."""
    kernel, beyond = gaussian_kernel(std, max_radius=max_radius)
    return kernel * np.float32(factor), beyond * np.float32(factor)


def kernel_radius(sigma: float) -> int:
    """Half-width in pixels of the kernel of :func:`gaussian_blur` on a long line; 0 for sigma 0.

    For the reduced lines of large sigmas it includes reducing (1.5 reduced samples) and enlarging (2).
    """
    std = STD_PER_SIGMA * sigma
    if std <= 0:
        return 0
    reach = math.sqrt(-2.0 * math.log(ACCURACY))
    if not is_reduced(std):
        return math.ceil(std * reach)
    factor, reduced_std = reduction(std, length=math.floor(std))
    return factor * (math.ceil(reduced_std * reach) + 4)


def _convolve(lines: np.ndarray, kernel: np.ndarray, beyond: np.ndarray) -> np.ndarray:
    """Symmetric convolution along axis 0; samples beyond the ends equal the end sample, through ``beyond``."""
    length, radius = len(lines), len(kernel)
    padded = np.zeros((length + 2 * (radius - 1), lines.shape[1]), dtype=np.float32)
    padded[radius - 1 : radius - 1 + length] = lines
    result = lines * kernel[0]
    near = min(radius, length)
    result[:near] += beyond[:near, np.newaxis] * lines[0]
    # At length - radius ImageJ adds the (rounding-sized) rest too, but only where the line's start is out of reach.
    start = length - radius if length - radius >= near else max(0, length - radius + 1)
    result[start:] += beyond[length - 1 - np.arange(start, length), np.newaxis] * lines[-1]
    for k in range(1, radius):
        both = padded[radius - 1 - k : radius - 1 - k + length] + padded[radius - 1 + k : radius - 1 + k + length]
        both *= kernel[k]
        result += both
    return result


def reducing_kernel(factor: int) -> np.ndarray:
    """Weights of quadratic-spline reduction: (3 factor,) float32."""
    mid = 3 * factor // 2
    kernel = np.zeros(3 * factor, dtype=np.float32)
    for i in range((3 * factor + 1) // 2):
        x = i / factor
        value = (0.75 - x * x) / factor if i <= factor // 2 else (0.125 + 0.5 * (x - 1) * (x - 2)) / factor
        kernel[mid - i] = kernel[mid + i] = value
    return kernel


def _reduce(lines: np.ndarray, factor: int) -> np.ndarray:
    """Quadratic-spline reduction along axis 0 by ``factor``, with 3 samples beyond each end.

    ImageJ goes through the line once: each third of the kernel is summed for itself, then the three sums.
    """
    kernel = reducing_kernel(factor)
    n_out = reduced_length(len(lines), factor)
    centre = -REDUCED_MARGIN * factor - factor // 2 + factor * np.arange(n_out)
    sums = np.zeros((3, n_out, lines.shape[1]), dtype=np.float32)
    for part in range(3):
        for x in range(factor):
            source = np.clip(centre + x + (part - 1) * factor, 0, len(lines) - 1)
            sums[part] += kernel[x + part * factor] * lines[source]
    result: np.ndarray = sums[0] + sums[1] + sums[2]
    return result


def enlarging_kernel(factor: int) -> np.ndarray:
    """Weights of cubic B-spline interpolation: (4 factor,) float32."""
    mid = 2 * factor
    kernel = np.zeros(4 * factor, dtype=np.float32)
    for i in range(2 * factor):
        x = i / factor
        value = 2.0 / 3.0 - x * x * (1 - 0.5 * x) if i < factor else (2.0 - x) * (2.0 - x) * (2.0 - x) / 6.0
        kernel[mid + i] = kernel[mid - i] = value
    return kernel


def _enlarge(reduced: np.ndarray, factor: int, *, length: int) -> np.ndarray:
    """Cubic B-spline interpolation along axis 0 back to ``length`` samples."""
    kernel = enlarging_kernel(factor)
    position = np.arange(length) + REDUCED_MARGIN * factor + factor - 1
    above, phase = position // factor, factor - 1 - position % factor
    result = reduced[above - 2] * kernel[phase, np.newaxis]
    for part in range(1, 4):
        result += reduced[above - 2 + part] * kernel[phase + part * factor, np.newaxis]
    return result
