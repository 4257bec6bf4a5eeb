"""Simulated tomograms whose truth is known: a phantom slice as in the paper, and a small sample volume for the demo.

Geometry, everywhere: the tilt axis is z, so each z plane is projected and reconstructed on its own. At tilt angle 0
the beam runs along y (down the rows), so a missing wedge around +-90 degrees blurs the top and bottom of things.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift
from skimage.transform import iradon, radon

from gpu_tomoclass.errors import UsageError

PHANTOM_CLASSES = ("background", "void", "matrix", "inset", "shell")
PHANTOM_LEVELS = (0, 64, 128, 191, 255)  # evenly spaced: the only set tried for which plain thresholding works at all
SAMPLE_CLASSES = ("vacuum", "rubber", "silica")

# (x, y, half width, half height, degrees, class); each ellipse overwrites those before it. Geometry of the Shepp-Logan
# plugin for ImageJ (P. Thevenaz, 2009), in units of half the image width, y upwards.
_ELLIPSES = (
    (0.0, 0.0, 0.69, 0.92, 0.0, 4),
    (0.0, -0.0184, 0.6624, 0.874, 0.0, 2),
    (0.22, 0.0, 0.11, 0.31, -18.0, 1),
    (-0.22, 0.0, 0.16, 0.41, 18.0, 1),
    (0.0, 0.35, 0.21, 0.25, 0.0, 3),
    (0.0, 0.1, 0.046, 0.046, 0.0, 3),
    (0.0, -0.1, 0.046, 0.046, 0.0, 3),
    (-0.08, -0.605, 0.046, 0.023, 0.0, 3),
    (0.0, -0.605, 0.023, 0.023, 0.0, 3),
    (0.06, -0.605, 0.023, 0.046, 0.0, 3),
)


# --- the phantom ---------------------------------------------------------------------------------------------------


def phantom_labels(size: int = 512) -> np.ndarray:
    """Classes of the modified Shepp-Logan phantom: (size, size) uint8, 0..4 in the order of `PHANTOM_CLASSES`."""
    if size < 16:
        raise UsageError(f"a phantom of {size} pixels has no room for its ellipses", do="use a size of 16 or more")
    along = (np.arange(size) - (size - 1) / 2) * 2 / size
    x, y = along[None, :], -along[:, None]
    labels = np.zeros((size, size), np.uint8)
    for xc, yc, a, b, degrees, value in _ELLIPSES:
        c, s = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
        u, v = x - xc, y - yc
        labels[((c * u + s * v) / a) ** 2 + ((c * v - s * u) / b) ** 2 < 1] = value
    return labels


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


def simulate_phantom(
    *,
    size: int = 512,
    angles: np.ndarray | None = None,
    levels: Sequence[float] = PHANTOM_LEVELS,
    eight_bit: bool = True,
    poisson: float = 0.0,
    max_shift: float = 0.0,
    bits: int = 8,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """A phantom slice, projected, spoiled and reconstructed.

    Parameters
    ----------
    size : int
        Pixels per side.
    angles : array, optional
        Tilt angles in degrees; by default 0 to 178 in steps of 2. ``tilt_angles(-76, 76, 2)`` has the missing wedge.
    levels : five numbers
        Grey value of each class; the background is vacuum, so the first is 0.
    eight_bit : bool
        Store the sinogram as 8-bit grey values 0..255, rounded, as an ImageJ user does.
    poisson : float
        Mean of an independent Poisson integer added to every sinogram pixel in units of its 0..255 scale
        (signal-independent); 0.5 in the paper, 0 for none.
    max_shift : float
        Every projection is shifted by a uniform random -max_shift..max_shift pixels (cubic spline); 1 in the paper.
    bits : 8 or 16
        Of the result, which is scaled so that its minimum is 0 and its maximum 255 or 65535.
    seed : int
        Of noise and shifts; the same seed gives the same image.

    Returns
    -------
    reconstruction : (size, size) uint8 or uint16
    labels : (size, size) uint8
        0..4, see `PHANTOM_CLASSES`.
    """
    if len(levels) != len(PHANTOM_CLASSES) or levels[0] != 0:
        raise UsageError(f"phantom levels are {tuple(levels)}", do="give five, background first and 0")
    if bits not in (8, 16):
        raise UsageError(f"{bits} bits", do="use 8 or 16")
    if poisson < 0 or max_shift < 0:
        raise UsageError(f"noise mean {poisson} and shift {max_shift} must not be negative")
    angles = tilt_angles(0, 178, 2) if angles is None else np.asarray(angles, np.float64)
    rng = np.random.default_rng(seed)
    labels = phantom_labels(size)
    sinogram = project(np.asarray(levels, np.float64)[labels], angles)
    sinogram *= 255 / sinogram.max()
    if eight_bit:
        sinogram = np.round(sinogram)
    if poisson:
        sinogram = sinogram + rng.poisson(poisson, sinogram.shape)
    if eight_bit:
        sinogram = np.minimum(sinogram, 255)
    if max_shift:
        sinogram = shift_projections(sinogram, rng.uniform(-max_shift, max_shift, len(angles)))
        if eight_bit:
            sinogram = np.clip(np.round(sinogram), 0, 255)
    image = reconstruct(sinogram, angles)
    return _to_integers(image, low=image.min(), high=image.max(), bits=bits), labels


def shift_projections(sinogram: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift column i of a (n_bins, n_angles, ...) sinogram by ``shifts[i]`` pixels (cubic spline)."""
    shifted = np.empty_like(sinogram)
    for i, by in enumerate(shifts):
        projection = sinogram[:, i]
        shifted[:, i] = shift(projection, (by,) + (0,) * (projection.ndim - 1), order=3, mode="nearest")
    return shifted


def _to_integers(image: np.ndarray, *, low: float, high: float, bits: int) -> np.ndarray:
    top = 2**bits - 1
    scaled = np.clip((image - low) * (top / (high - low)), 0, top)
    return np.round(scaled).astype(np.uint8 if bits == 8 else np.uint16)


# --- projector and SIRT for many planes at once ----------------------------------------------------------------------


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


# --- the sample volume ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class SampleVolume:
    """A simulated tomogram with its truth.

    Attributes
    ----------
    volume : (nz, ny, nx) uint16
        The reconstruction, as a microscope's software would give it.
    truth : (nz, ny, nx) uint8
        1..k in the order of ``class_names``; every voxel has a class.
    class_names : tuple of str
    voxel_size : tuple of float
        (z, y, x) in nm.
    settings : dict
        How it was made, for reports.
    """

    volume: np.ndarray
    truth: np.ndarray
    class_names: tuple[str, ...]
    voxel_size: tuple[float, float, float]
    settings: dict[str, Any] = field(default_factory=dict)


def simulate_sample(
    *,
    shape: tuple[int, int, int] = (24, 160, 136),
    diameter: float = 150.0,
    voxel: float = 1.25,
    silica_fraction: float = 0.25,
    sphere_radius: float = 9.0,
    angles: np.ndarray | None = None,
    levels: tuple[float, float] = (1.0, 1.9),
    counts: float = 40.0,
    max_shift: float = 0.6,
    iterations: int = 20,
    seed: int = 0,
) -> SampleVolume:
    """A piece of a silica-filled rubber pillar as electron tomography shows it: noise, misalignment, missing wedge.

    The projections are made from a grid twice as fine as the reconstruction, so that the reconstruction does not
    profit from sharing its own model of the specimen.

    Parameters
    ----------
    shape : (nz, ny, nx)
    diameter, voxel, sphere_radius : float
        Of the pillar, of a voxel's edge and of the median silica sphere, in nm. The pillar must fit into the plane.
    silica_fraction : float
        Volume fraction of silica in the pillar, in aggregates of 4 to 20 touching spheres.
    angles : array, optional
        Tilt angles in degrees, by default -76 to 70 in steps of 2.
    levels : (rubber, silica)
        Signal per nm relative to rubber; vacuum is 0.
    counts : float
        Mean counts at the thickest place of the projections (Poisson noise, and read noise of a third of a count).
    max_shift : float
        Every projection is shifted by a uniform random -max_shift..max_shift pixels.
    iterations : int
        Of SIRT.
    seed : int
        The same seed gives the same volume.
    """
    nz, ny, nx = shape
    if diameter / voxel > 0.98 * min(ny, nx):
        raise UsageError(f"a pillar of {diameter} nm does not fit into {min(ny, nx)} voxels of {voxel} nm")
    if not 0 <= silica_fraction <= 0.6:
        raise UsageError(f"a silica fraction of {silica_fraction} cannot be packed", do="use 0 to 0.6")
    angles = tilt_angles(-76, 70, 2) if angles is None else np.asarray(angles, np.float64)
    rng = np.random.default_rng(seed)
    radius, sphere = diameter / voxel / 2, sphere_radius / voxel
    fine_truth = _pillar(shape, radius=radius, fraction=silica_fraction, sphere=sphere, rng=rng)
    texture = gaussian_filter(rng.standard_normal(shape), 5)
    texture *= 0.08 / texture.std()  # rubber is not quite homogeneous
    projections = _project_fine(fine_truth, texture, levels=levels, angles=angles, n_bins=nx)
    projections = gaussian_filter1d(projections, 1.0, axis=0)  # the probe and the detector blur by about a pixel
    scale = counts / projections.max()
    noisy = rng.poisson(projections * scale) + rng.normal(0, 1 / 3, projections.shape)
    noisy = shift_projections(noisy / scale, rng.uniform(-max_shift, max_shift, len(angles)))
    rays = noisy.transpose(1, 0, 2).reshape(len(angles) * nx, nz).astype(np.float32)
    pixels = sirt(projection_matrix(angles, shape=(ny, nx), n_bins=nx), rays, iterations=iterations)
    low, high = np.percentile(pixels, (0.01, 99.99))
    return SampleVolume(
        volume=np.ascontiguousarray(_to_integers(pixels.T.reshape(shape), low=low, high=high, bits=16)),
        truth=_majority(fine_truth) + np.uint8(1),
        class_names=SAMPLE_CLASSES,
        voxel_size=(voxel, voxel, voxel),
        settings={
            "specimen": f"silica-filled rubber pillar, {diameter:g} nm",
            "silica volume fraction": round(float((fine_truth == 2).sum() / (fine_truth > 0).sum()), 4),
            "tilt angles (degrees)": f"{angles[0]:g} to {angles[-1]:g}, {len(angles)} projections",
            "counts at the thickest place": counts,
            "misalignment (pixels)": f"up to ±{max_shift:g}",
            "reconstruction": f"SIRT, {iterations} iterations",
            "seed": seed,
        },
    )


_FINE = 2  # fine pixels per pixel, in the plane


def _pillar(
    shape: tuple[int, int, int], *, radius: float, fraction: float, sphere: float, rng: np.random.Generator
) -> np.ndarray:
    """Pillar on the fine grid: (nz, 2 ny, 2 nx) uint8, 0 vacuum, 1 rubber, 2 silica; lengths in pixels."""
    nz, ny, nx = shape
    z = np.arange(nz)[:, None, None] + 0.5
    y = ((np.arange(ny * _FINE) + 0.5) / _FINE - ny / 2)[None, :, None]
    x = ((np.arange(nx * _FINE) + 0.5) / _FINE - nx / 2)[None, None, :]
    angle, phase = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 2)
    outline = 1 + 0.02 * np.cos(2 * angle + phase[0] + 0.02 * z) + 0.01 * np.cos(3 * angle + phase[1] - 0.04 * z)
    truth = (np.hypot(y, x) < radius * (0.93 + 0.04 * z / nz) * outline).astype(np.uint8)
    target, filled = fraction * truth.sum(), 0
    while filled < target:
        for centre, r in _aggregate(nz=nz, radius=radius, sphere=sphere, rng=rng):
            box = tuple(
                slice(*np.searchsorted(axis.ravel(), (c - r, c + r))) for axis, c in zip((z, y, x), centre, strict=True)
            )
            dz, dy, dx = z[box[0]] - centre[0], y[:, box[1]] - centre[1], x[:, :, box[2]] - centre[2]
            inside = (dz**2 + dy**2 + dx**2 < r * r) & (truth[box] == 1)
            truth[box][inside] = 2
            filled += int(inside.sum())
    return truth


def _aggregate(*, nz: int, radius: float, sphere: float, rng: np.random.Generator) -> list[tuple[np.ndarray, float]]:
    """Centres and radii of 4 to 20 touching spheres, each attached to a random earlier one."""
    spheres: list[tuple[np.ndarray, float]] = []
    for _ in range(rng.integers(4, 21)):
        r = float(sphere * np.exp(rng.normal(0, 0.18)))
        if spheres:
            neighbour, neighbour_radius = spheres[rng.integers(len(spheres))]
            direction = rng.standard_normal(3)
            centre = neighbour + direction / np.linalg.norm(direction) * (neighbour_radius + r) * 0.9
        else:
            centre = rng.uniform((0, -radius, -radius), (nz, radius, radius))
        spheres.append((centre, r))
    return spheres


def _project_fine(
    truth: np.ndarray, texture: np.ndarray, *, levels: tuple[float, float], angles: np.ndarray, n_bins: int
) -> np.ndarray:
    """Projections of the fine pillar, binned to the detector: (n_bins, n_angles, nz), in signal times pixel."""
    nz, ny, nx = truth.shape
    signal = np.array((0.0, *levels), np.float32)[truth]
    fine_texture = texture.astype(np.float32).repeat(_FINE, axis=1).repeat(_FINE, axis=2)
    signal *= 1 + np.where(truth == 1, 1.0, 0.4).astype(np.float32) * fine_texture  # silica varies less
    pixels = signal.reshape(nz, -1).T / _FINE**2
    projections = np.empty((n_bins, len(angles), nz), np.float32)
    for i, angle in enumerate(angles):  # one angle at a time: the matrix of all on the fine grid would be 100 MB
        fine = projection_matrix(np.array([angle]), shape=(ny, nx), n_bins=n_bins * _FINE) @ pixels
        projections[:, i] = fine.reshape(n_bins, _FINE, nz).sum(axis=1)
    return projections


def _majority(fine_truth: np.ndarray) -> np.ndarray:
    """Most frequent class of every 2 x 2 fine pixels, the smaller value where two tie: (nz, ny, nx) uint8."""
    nz, ny, nx = fine_truth.shape
    blocks = fine_truth.reshape(nz, ny // _FINE, _FINE, nx // _FINE, _FINE)
    return np.argmax([(blocks == value).sum(axis=(2, 4)) for value in range(3)], axis=0).astype(np.uint8)
