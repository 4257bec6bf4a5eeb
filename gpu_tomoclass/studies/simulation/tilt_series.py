"""Projections of planes and reconstructions from them.

Geometry, everywhere: the tilt axis is z, so each z plane is projected and reconstructed on its own. At tilt angle 0
the beam runs along y (down the rows), so a missing wedge around +-90 degrees blurs the top and bottom of things.
"""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.ndimage import shift
from skimage.transform import iradon, radon

from gpu_tomoclass.errors import UsageError

WEDGE = (-76.0, 76.0, 2.0)  # first and last tilt angle and step, in degrees, of a series with a missing wedge


def tilt_angles(first: float, last: float, step: float) -> np.ndarray:
    """Tilt angles in degrees from ``first`` to ``last`` inclusive: float64 (n_angles,)."""
    if not step > 0 or last < first:
        what = f"no tilt angles from {first} to {last} in steps of {step} degrees"
        raise UsageError(what, do="use first <= last and step > 0")
    return first + step * np.arange(int((last - first) / step + 1e-9) + 1)


def project(image: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Parallel projections of a square image that is 0 outside its inscribed circle.

    Parameters
    ----------
    image : (n, n) array
    angles : (n_angles,) array
        In degrees; 0 sums down the rows (beam along y).

    Returns
    -------
    (n, n_angles) float64
        The sinogram, in units of image value times pixel.
    """
    return radon(np.asarray(image, np.float64), theta=angles, circle=True)  # an integer image would be rescaled to 0..1


def reconstruct(sinogram: np.ndarray, angles: np.ndarray) -> np.ndarray:
    """Ramp-filtered back-projection, linear interpolation: (n, n_angles) sinogram to (n, n) float64."""
    sinogram = np.asarray(sinogram, np.float64)
    return iradon(sinogram, theta=angles, filter_name="ramp", interpolation="linear", circle=True)


def shift_projections(sinogram: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift column i of a (n_bins, n_angles, ...) sinogram by ``shifts[i]`` pixels (cubic spline)."""
    shifted = np.empty_like(sinogram)
    for i, by in enumerate(shifts):
        projection = sinogram[:, i]
        shifted[:, i] = shift(projection, (by,) + (0,) * (projection.ndim - 1), order=3, mode="nearest")
    return shifted


def to_integers(image: np.ndarray, *, low: float, high: float, bits: int) -> np.ndarray:
    top = 2**bits - 1
    scaled = np.clip((image - low) * (top / (high - low)), 0, top)
    return np.round(scaled).astype(np.uint8 if bits == 8 else np.uint16)


def projection_matrix(angles: np.ndarray, *, shape: tuple[int, int], n_bins: int) -> sparse.csr_array:
    """Parallel projector of one plane as a sparse matrix, built once and used for all planes.

    Pixel driven: every pixel centre is projected on the detector and its value shared linearly between the two
    nearest bins. The rotation axis passes through the centre of the plane and of the detector; angles turn as in
    `project`.

    Returns
    -------
    (n_angles * n_bins, ny * nx) float32 csr_array
        Times a (ny * nx, n_planes) array of pixels it gives (n_angles * n_bins, n_planes) projections.
    """
    ny, nx = shape
    y, x = np.arange(ny) - (ny - 1) / 2, np.arange(nx) - (nx - 1) / 2
    rows, columns, weights = [], [], []
    for i, angle in enumerate(np.deg2rad(angles)):
        position = (x[None, :] * np.cos(angle) - y[:, None] * np.sin(angle)).ravel() + (n_bins - 1) / 2
        pixels = np.flatnonzero((position >= 0) & (position < n_bins - 1))
        left = position[pixels].astype(np.int32)
        right_weight = (position[pixels] - left).astype(np.float32)
        rows += [left + i * n_bins, left + 1 + i * n_bins]
        columns += [pixels.astype(np.int32)] * 2
        weights += [1 - right_weight, right_weight]
    entries = (np.concatenate(weights), (np.concatenate(rows), np.concatenate(columns)))
    return sparse.coo_array(entries, shape=(len(angles) * n_bins, ny * nx)).tocsr()


def sirt(matrix: sparse.csr_array, projections: np.ndarray, *, iterations: int) -> np.ndarray:
    """Simultaneous iterative reconstruction from zero, no positivity: x += C A^T R (b - A x).

    R and C hold the inverse row and column sums of A (Gregor & Benson 2008); ``projections`` is
    (n_angles * n_bins, n_planes) float32 and the result (n_pixels, n_planes) float32.
    """
    back = matrix.T.tocsr()
    # A ray that grazes a corner has a tiny row sum; dividing by it would blow up noise, so a ray counts as >= 1 pixel.
    row_scale = (1 / np.maximum(matrix.sum(axis=1), 1))[:, None].astype(np.float32)
    column_scale = (1 / np.maximum(matrix.sum(axis=0), 1))[:, None].astype(np.float32)
    x = np.zeros((matrix.shape[1], projections.shape[1]), np.float32)
    for _ in range(iterations):
        x += column_scale * (back @ (row_scale * (projections - matrix @ x)))
    return x
