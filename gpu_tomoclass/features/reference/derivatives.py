"""IS(s, dx, dy): Gaussian derivatives of the ImageScience library, and the families Derivatives, Laplacian, Structure.

Sources: ``imagescience.feature.Differentiator`` and ``Structure`` of ImageScience 3.0.0. Here sigma is the true
standard deviation in pixels, nothing is normalised for scale, and edges mirror without repeating the edge pixel.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.features.reference.source import FeatureSource

ORDERS = (2, 3, 4, 5)
"""Orders d of the family Derivatives; each channel is the mixed derivative of order d in x and in y."""

INTEGRATION_SCALES = (1.0, 3.0)
"""Standard deviations in pixels of the smoothing of the structure tensor."""

LINES_AT_ONCE = 64  # few enough for the working arrays to stay in the processor's cache


def gaussian_derivative(image: np.ndarray, sigma: float, *, dx: int, dy: int, per_sigma: bool = False) -> np.ndarray:
    """Derivative of order (dx, dy), each 0..5, of the plane smoothed with standard deviation ``sigma``.

    The x pass comes first; sums are in double precision, and each pass is rounded to float32.

    Parameters
    ----------
    image : ndarray
        (ny, nx) float32.
    per_sigma : bool
        Ours, for sigmas in nm: derivatives are over one sigma, not a pixel: of order d times sigma^d.

    Returns
    -------
    ndarray
        (ny, nx) float32.
    """
    along_x = _convolve_columns(np.ascontiguousarray(image.T), sigma, dx, per_sigma)
    return _convolve_columns(np.ascontiguousarray(along_x.T), sigma, dy, per_sigma)


def derivative_reach(sigma: float, order: int) -> int:
    """Half-width of the kernel in pixels: 3 sigma for order 0, 4 for 1 and 2, 5 from 3 on."""
    return int(sigma * (3.0 if order == 0 else 4.0 if order <= 2 else 5.0))


def derivative_kernel(sigma: float, order: int, *, length: int, per_sigma: bool = False) -> np.ndarray:
    """One-sided kernel, at most ``length`` entries, float64.

    Order 0: exp(-k^2 / 2 sigma^2), normalised to a sum of 1 over both sides. Order d: the d-th derivative of the
    Gaussian of unit area, (-1)^d He_d(k / sigma) exp(-k^2 / 2 sigma^2) / (sqrt(2 pi) sigma^(d+1)) with the Hermite
    polynomial He_d, sampled, not normalised. A kernel that is cut down to its centre has no derivative: 0.
    ``per_sigma``: times sigma^d.
    """
    size = min(derivative_reach(sigma, order) + 1, length)
    if size == 1:
        return np.array([1.0 if order == 0 else 0.0])
    i2 = 1.0 / (sigma * sigma)
    i4, i6 = i2 * i2, i2 * i2 * i2
    scale = math.sqrt(2.0 * math.pi) * sigma
    kernel = np.empty(size)
    for k in range(size):
        k2 = float(k * k)
        bell = math.exp(k2 * (-0.5 * i2))
        match order:
            case 0:
                kernel[k] = bell
            case 1:
                kernel[k] = -i2 / scale * k * bell
            case 2:
                kernel[k] = i2 / scale * (k2 * i2 - 1) * bell
            case 3:
                kernel[k] = -i4 / scale * k * (k2 * i2 - 3) * bell
            case 4:
                kernel[k] = i4 / scale * (k2 * k2 * i4 - 6 * k2 * i2 + 3) * bell
            case 5:
                kernel[k] = -i6 / scale * k * (k2 * k2 * i4 - 10 * k2 * i2 + 15) * bell
            case _:
                raise ValueError(f"no kernel of order {order}")
    if order == 0:
        total = 0.0
        for value in kernel:
            total += value
        kernel /= total * 2.0 - kernel[0]
    return kernel * sigma**order if per_sigma else kernel


def _convolve_columns(lines: np.ndarray, sigma: float, order: int, per_sigma: bool) -> np.ndarray:
    """Convolution along axis 0 with the kernel of that order: (length, n_lines) float32 -> the same."""
    length = len(lines)
    kernel = derivative_kernel(sigma, order, length=length, per_sigma=per_sigma)
    half = len(kernel) - 1
    combine = np.add if order % 2 == 0 else np.subtract
    result = np.empty_like(lines)
    for start in range(0, lines.shape[1], LINES_AT_ONCE):
        chunk = lines[:, start : start + LINES_AT_ONCE].astype(np.float64)
        padded = np.pad(chunk, ((half, half), (0, 0)), mode="reflect") if half else chunk
        total = chunk * kernel[0]
        pair = np.empty_like(chunk)
        for k in range(1, half + 1):
            combine(padded[half - k : half - k + length], padded[half + k : half + k + length], out=pair)
            pair *= kernel[k]
            total += pair
        result[:, start : start + LINES_AT_ONCE] = total
    return result


def derivatives(source: FeatureSource, *, sigma: float, per_sigma: bool = False) -> np.ndarray:
    """``Derivatives``: IS(sigma, d, d) for d = 2..5; (4, ny, nx) float32."""
    return np.stack([gaussian_derivative(source.image, sigma, dx=d, dy=d, per_sigma=per_sigma) for d in ORDERS])


def laplacian(source: FeatureSource, *, sigma: float, per_sigma: bool = False) -> np.ndarray:
    """``Laplacian``: IS(sigma, 2, 0) + IS(sigma, 0, 2); (1, ny, nx) float32."""
    image = source.image
    second_x = gaussian_derivative(image, sigma, dx=2, dy=0, per_sigma=per_sigma)
    return (second_x + gaussian_derivative(image, sigma, dx=0, dy=2, per_sigma=per_sigma))[np.newaxis]


def structure(
    source: FeatureSource, *, sigma: float, scales: Sequence[float] = INTEGRATION_SCALES, per_sigma: bool = False
) -> np.ndarray:
    """``Structure``: eigenvalues of the structure tensor at two integration scales.

    The products of IS(sigma, 1, 0) and IS(sigma, 0, 1) are smoothed with each of :data:`INTEGRATION_SCALES`; the
    absolute eigenvalues come from the stable solution of the quadratic in double precision. ``scales`` are those that
    are wanted.

    Returns
    -------
    ndarray
        (4, ny, nx) float32: largest and smallest at the first integration scale, then at the second.
    """
    ix = gaussian_derivative(source.image, sigma, dx=1, dy=0, per_sigma=per_sigma)
    iy = gaussian_derivative(source.image, sigma, dx=0, dy=1, per_sigma=per_sigma)
    result = np.empty((2 * len(scales), *source.shape), dtype=np.float32)
    for i, scale in enumerate(scales):
        products = (ix * ix, ix * iy, iy * iy)
        xx, xy, yy = (gaussian_derivative(p, scale, dx=0, dy=0).astype(np.float64) for p in products)
        b = -(xx + yy)
        c = xx * yy - xy * xy
        root = np.sqrt(b * b - 4.0 * c)
        q = -0.5 * (b + np.where(b < 0, -root, root))
        first = np.abs(q)
        second = np.abs(np.divide(c, q, out=np.zeros_like(c), where=q != 0))
        result[2 * i] = np.maximum(first, second)
        result[2 * i + 1] = np.minimum(first, second)
    return result
