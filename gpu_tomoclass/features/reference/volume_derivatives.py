"""IS3(s; dx, dy, dz): Gaussian derivatives of ImageScience in three dimensions, and the five families made of them.

Sources: ``imagescience.feature.Differentiator``, ``Laplacian``, ``Edges``, ``Hessian``, ``Structure`` of ImageScience
3.0.0. Kernels are those of :mod:`gpu_tomoclass.features.reference.derivatives`; along an axis the standard deviation is
sigma times the aspect. Passes along x, y, z: sums in double precision, each pass rounded to float32; edges mirror
without repeating the edge voxel.

TWS puts a copy of the first plane in front of the volume and one of the last behind it; everything is computed on
these depth + 2 planes, and the results of the two copies are dropped. "Padded" positions count the front copy as 0.
Derivatives are per voxel, not per length: nothing is rescaled where voxels are no cubes. ``per_sigma`` is ours, for
sigmas in nm: a derivative of order d is multiplied by the d-th power of the axis's standard deviation in voxels, so
that it is a difference over one sigma along every axis, whatever the voxels.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES, derivative_kernel, derivative_reach
from gpu_tomoclass.features.reference.volume_eigenvalues import absolute_eigenvalues
from gpu_tomoclass.features.reference.volume_source import Image, Positions, VolumeSource, mirrored, taps, within

ORDERS = (1, 2, 3, 4, 5)
"""Orders d of the family Derivatives; each channel is the mixed derivative of order d along x, y and z."""
SECOND = ((2, 0, 0), (1, 1, 0), (1, 0, 1), (0, 2, 0), (0, 1, 1), (0, 0, 2))
"""Orders along x, y, z of the entries xx, xy, xz, yy, yz, zz of the Hessian."""
FIRST = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
PAIRS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of FIRST, in the order of SECOND
ROWS_AT_ONCE = 64 * 64  # values of a row that are convolved together


def axis_sigma(sigma: float, aspect: float) -> float:
    """Standard deviation in voxels along an axis: ImageScience divides by the quotient of the lengths."""
    return sigma / (1.0 / aspect)


def axis_reach(sigma: float, order: int, aspect: float = 1.0) -> int:
    """Half-width in voxels of the kernel along an axis of this aspect, on a long line."""
    return derivative_reach(axis_sigma(sigma, aspect), order)


def structure_reach(sigma: float, aspect: float = 1.0, *, scales: Sequence[float] = INTEGRATION_SCALES) -> int:
    """Distance in voxels along an axis over which ``Structure`` looks."""
    return axis_reach(sigma, 1, aspect) + axis_reach(scales[-1], 0, aspect)


def axis_kernel(
    sigma: float, order: int, aspect: float, *, length: int, per_sigma: bool = False
) -> npt.NDArray[np.float64]:
    """One-sided kernel along an axis, at most as long as its line."""
    return derivative_kernel(axis_sigma(sigma, aspect), order, length=length, per_sigma=per_sigma)


def convolved(image: Image, kernel: npt.NDArray[np.float64], rows: Positions, *, odd: bool) -> Image:
    """Convolution along axis 1 with a one-sided kernel, pairs of taps from the centre outwards, in double precision.

    Parameters
    ----------
    image : ndarray
        (n, length, m) float32.
    kernel : ndarray
        float64.
    rows : ndarray
        (n_out + 2 half,): where along axis 1 tap k - half of output i lies, entry i + k.
    odd : bool
        The kernel changes sign at its centre.

    Returns
    -------
    ndarray
        (n, n_out, m) float32.
    """
    half = len(kernel) - 1
    n_out = len(rows) - 2 * half
    result = np.empty((len(image), n_out, image.shape[2]), np.float32)
    combine = np.subtract if odd else np.add
    for start in range(0, image.shape[2], ROWS_AT_ONCE):
        part = image[:, :, start : start + ROWS_AT_ONCE].astype(np.float64)
        total = part[:, rows[half : half + n_out]] * kernel[0]
        for k in range(1, half + 1):
            total += combine(part[:, rows[half - k :][:n_out]], part[:, rows[half + k :][:n_out]]) * kernel[k]
        result[:, :, start : start + ROWS_AT_ONCE] = total
    return result


def along_x(image: Image, sigma: float, order: int, aspect: float = 1.0, *, per_sigma: bool = False) -> Image:
    """The pass along x: (nz, ny, nx) float32 -> the same."""
    nx = image.shape[2]
    kernel = axis_kernel(sigma, order, aspect, length=nx, per_sigma=per_sigma)
    lines = np.ascontiguousarray(image.transpose(0, 2, 1))
    rows = mirrored(taps(0, nx, len(kernel) - 1), nx)
    return np.ascontiguousarray(convolved(lines, kernel, rows, odd=order % 2 == 1).transpose(0, 2, 1))


def along_y(image: Image, sigma: float, order: int, aspect: float, *, per_sigma: bool = False) -> Image:
    """The pass along y: (nz, ny, nx) float32 -> the same."""
    ny = image.shape[1]
    kernel = axis_kernel(sigma, order, aspect, length=ny, per_sigma=per_sigma)
    return convolved(image, kernel, mirrored(taps(0, ny, len(kernel) - 1), ny), odd=order % 2 == 1)


def padded_planes(start: int, stop: int, half: int, depth: int) -> Positions:
    """Planes of the volume under the taps of padded positions ``start`` to ``stop - 1``."""
    return np.clip(mirrored(taps(start, stop, half), depth + 2) - 1, 0, depth - 1)


def along_z(image: Image, kernel: npt.NDArray[np.float64], planes: Positions, *, odd: bool) -> Image:
    """The pass along z; ``planes`` are indices into the image: (nz, ny, nx) float32 -> (n_out, ny, nx)."""
    nz, ny, nx = image.shape
    return convolved(image.reshape(1, nz, ny * nx), kernel, planes, odd=odd).reshape(-1, ny, nx)


def partial_derivatives(
    source: VolumeSource,
    sigma: float,
    orders: Iterable[tuple[int, int, int]],
    *,
    start: int,
    stop: int,
    per_sigma: bool = False,
) -> list[Image]:
    """IS3(sigma; dx, dy, dz) for each of these orders at padded positions ``start`` to ``stop - 1``.

    Returns
    -------
    list of ndarray
        (stop - start, ny, nx) float32 each.
    """
    cz, cy, cx = source.aspect.axes
    of_x: dict[int, Image] = {}
    of_plane: dict[tuple[int, int], Image] = {}
    result = []
    for dx, dy, dz in orders:
        if (dx, dy) not in of_plane:
            if dx not in of_x:
                of_x[dx] = along_x(source.image, sigma, dx, cx, per_sigma=per_sigma)
            of_plane[dx, dy] = along_y(of_x[dx], sigma, dy, cy, per_sigma=per_sigma)
        kernel = axis_kernel(sigma, dz, cz, length=source.depth + 2, per_sigma=per_sigma)
        planes = source.within_slab(padded_planes(start, stop, len(kernel) - 1, source.depth))
        result.append(along_z(of_plane[dx, dy], kernel, planes, odd=dz % 2 == 1))
    return result


def _of_core(
    source: VolumeSource, sigma: float, orders: Iterable[tuple[int, int, int]], per_sigma: bool
) -> list[Image]:
    first, stop = source.start + 1, source.stop + 1
    return partial_derivatives(source, sigma, orders, start=first, stop=stop, per_sigma=per_sigma)


def derivatives(source: VolumeSource, *, sigma: float, per_sigma: bool = False) -> Image:
    """``Derivatives``: IS3(sigma; d, d, d) for d = 1..5; (5, n, ny, nx) float32."""
    return np.stack([_of_core(source, sigma, [(d, d, d)], per_sigma)[0] for d in ORDERS])


def laplacian(source: VolumeSource, *, sigma: float, per_sigma: bool = False) -> Image:
    """``Laplacian``: (I_zz + I_yy) + I_xx; (1, n, ny, nx) float32."""
    xx, yy, zz = _of_core(source, sigma, ((2, 0, 0), (0, 2, 0), (0, 0, 2)), per_sigma)
    return ((zz + yy) + xx)[np.newaxis]


def edges(source: VolumeSource, *, sigma: float, per_sigma: bool = False) -> Image:
    """``Edges``: length of the gradient, sqrt(I_x^2 + I_y^2 + I_z^2) in double; (1, n, ny, nx) float32."""
    x, y, z = (image.astype(np.float64) for image in _of_core(source, sigma, FIRST, per_sigma))
    return np.sqrt(x * x + y * y + z * z).astype(np.float32)[np.newaxis]


def hessian(source: VolumeSource, *, sigma: float, per_sigma: bool = False) -> Image:
    """``Hessian``: absolute eigenvalues, largest first; (3, n, ny, nx) float32."""
    return absolute_eigenvalues(_of_core(source, sigma, SECOND, per_sigma))


def structure(
    source: VolumeSource, *, sigma: float, scales: Sequence[float] = INTEGRATION_SCALES, per_sigma: bool = False
) -> Image:
    """``Structure``: eigenvalues of the structure tensor at each of these scales of integration, in voxels of x.

    The products of the three derivatives of first order are rounded to float32 and smoothed with IS3(i; 0, 0, 0); both
    steps see the padded planes.

    Returns
    -------
    ndarray
        (6, n, ny, nx) float32: largest, middle, smallest at the first scale, then at the second.
    """
    cz = source.aspect[0]
    margin = axis_reach(scales[-1], 0, cz)
    start, stop = max(source.start + 1 - margin, 0), min(source.stop + 1 + margin, source.depth + 2)
    gradient = partial_derivatives(source, sigma, FIRST, start=start, stop=stop, per_sigma=per_sigma)
    results = []
    for scale in scales:
        kernel = axis_kernel(scale, 0, cz, length=source.depth + 2)
        planes = mirrored(taps(source.start + 1, source.stop + 1, len(kernel) - 1), source.depth + 2)
        indices = within(planes, start, stop - start)
        entries = [
            along_z(smoothed_planes(gradient[i] * gradient[j], scale, source.aspect.axes), kernel, indices, odd=False)
            for i, j in PAIRS
        ]
        results.append(absolute_eigenvalues(entries))
    return np.concatenate(results)


def smoothed_planes(image: Image, sigma: float, aspect: Sequence[float]) -> Image:
    """The passes along x and y of IS3(sigma; 0, 0, 0)."""
    return along_y(along_x(image, sigma, 0, aspect[2]), sigma, 0, aspect[1])
