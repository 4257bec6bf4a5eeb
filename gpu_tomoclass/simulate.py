"""Simulated tomograms whose truth is known: a phantom slice as in the paper, and a small sample volume for the demo.

Geometry, everywhere: the tilt axis is z, so each z plane is projected and reconstructed on its own. At tilt angle 0
the beam runs along y (down the rows), so a missing wedge around +-90 degrees blurs the top and bottom of things.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import sparse
from scipy.ndimage import gaussian_filter, gaussian_filter1d, shift
from skimage.transform import iradon, radon

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.planes import Progress

PHANTOM_CLASSES = ("background", "void", "matrix", "inset", "shell")
PHANTOM_LEVELS = (0, 64, 128, 191, 255)  # evenly spaced: the only set tried for which plain thresholding works at all
WEDGE = (-76.0, 76.0, 2.0)  # first and last tilt angle and step, in degrees, of a series with a missing wedge
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
    options: dict[str, Any] = {"eight_bit": eight_bit, "poisson": poisson, "max_shift": max_shift, "bits": bits}
    planes = phantom_planes(1, size=size, angles=angles, levels=levels, seed=seed, **options)
    return next(planes), phantom_labels(size)


def phantom_planes(
    n_planes: int,
    *,
    size: int = 512,
    angles: np.ndarray | None = None,
    levels: Sequence[float] = PHANTOM_LEVELS,
    eight_bit: bool = True,
    poisson: float = 0.0,
    max_shift: float = 0.0,
    bits: int = 8,
    seed: int = 0,
) -> Iterator[np.ndarray]:
    """Planes of a tomogram whose every plane is the phantom: `simulate_phantom` is the first of them.

    Each plane has noise of its own. A projection is one picture of all planes, so its shift is the same in all. All
    planes have the grey scale of the first: its minimum is 0, its maximum 255 or 65535, and values beyond are clipped.
    """
    if n_planes < 1:
        raise UsageError(f"a phantom of {n_planes} planes", do="use 1 or more")
    if len(levels) != len(PHANTOM_CLASSES) or levels[0] != 0:
        raise UsageError(f"phantom levels are {tuple(levels)}", do="give five, background first and 0")
    if bits not in (8, 16):
        raise UsageError(f"{bits} bits", do="use 8 or 16")
    if poisson < 0 or max_shift < 0:
        raise UsageError(f"noise mean {poisson} and shift {max_shift} must not be negative")
    angles = tilt_angles(0, 178, 2) if angles is None else np.asarray(angles, np.float64)
    return _phantom_planes(n_planes, size, angles, np.asarray(levels), eight_bit, poisson, max_shift, bits, seed)


def _phantom_planes(
    n_planes: int,
    size: int,
    angles: np.ndarray,
    levels: np.ndarray,
    eight_bit: bool,
    poisson: float,
    max_shift: float,
    bits: int,
    seed: int,
) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(seed)
    clean = project(levels.astype(np.float64)[phantom_labels(size)], angles)
    clean *= 255 / clean.max()
    if eight_bit:
        clean = np.round(clean)
    shifts: np.ndarray | None = None
    scale: tuple[float, float] | None = None
    plane: np.ndarray | None = None
    for _ in range(n_planes):
        if plane is not None and not poisson:  # nothing differs from plane to plane
            yield plane
            continue
        sinogram = clean
        if poisson:
            sinogram = sinogram + rng.poisson(poisson, sinogram.shape)
        if eight_bit:
            sinogram = np.minimum(sinogram, 255)
        if max_shift:
            if shifts is None:
                shifts = rng.uniform(-max_shift, max_shift, len(angles))
            sinogram = shift_projections(sinogram, shifts)
            if eight_bit:
                sinogram = np.clip(np.round(sinogram), 0, 255)
        image = reconstruct(sinogram, angles)
        scale = scale or (image.min(), image.max())
        plane = _to_integers(image, low=scale[0], high=scale[1], bits=bits)
        yield plane


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


@dataclass(frozen=True)
class PillarRecipe:
    """How a piece of a silica-filled rubber pillar is made and seen: noise, misalignment, missing wedge.

    Attributes
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
        Mean counts at the thickest place of the projections (Poisson noise, and read noise of a third of a count); 0
        for no noise.
    max_shift : float
        Every projection is shifted by a uniform random -max_shift..max_shift pixels.
    iterations : int
        Of SIRT.
    seed : int
        The same seed gives the same volume.
    """

    shape: tuple[int, int, int] = (24, 160, 136)
    diameter: float = 150.0
    voxel: float = 1.25
    silica_fraction: float = 0.25
    sphere_radius: float = 9.0
    angles: np.ndarray | None = None
    levels: tuple[float, float] = (1.0, 1.9)
    counts: float = 40.0
    max_shift: float = 0.6
    iterations: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or not self.voxel > 0:
            raise UsageError(f"a pillar of {self.shape} voxels of {self.voxel} nm")
        if self.diameter / self.voxel > 0.98 * min(self.shape[1:]):
            what = f"a pillar of {self.diameter} nm does not fit into {min(self.shape[1:])} voxels of {self.voxel} nm"
            raise UsageError(what, do="use larger voxels or more of them")
        if not 0 <= self.silica_fraction <= 0.6:
            raise UsageError(f"a silica fraction of {self.silica_fraction} cannot be packed", do="use 0 to 0.6")
        if self.counts < 0 or self.max_shift < 0 or self.iterations < 1:
            raise UsageError("counts and shift must not be negative, and SIRT needs at least one iteration")

    @property
    def tilt_angles(self) -> np.ndarray:
        """Tilt angles in degrees: (n_angles,) float64."""
        return tilt_angles(-76, 70, 2) if self.angles is None else np.asarray(self.angles, np.float64)

    def settings(self) -> dict[str, Any]:
        """For reports."""
        angles = self.tilt_angles
        return {
            "specimen": f"silica-filled rubber pillar, {self.diameter:g} nm",
            "tilt angles (degrees)": f"{angles[0]:g} to {angles[-1]:g}, {len(angles)} projections",
            "counts at the thickest place": self.counts,
            "misalignment (pixels)": f"up to ±{self.max_shift:g}",
            "reconstruction": f"SIRT, {self.iterations} iterations",
            "seed": self.seed,
        }


NewArray = Callable[[tuple[int, ...], type[Any]], np.ndarray]
_SLAB_PIXELS = 2**24  # of the fine grid, in memory at once


@dataclass(frozen=True)
class MadePillar:
    """A pillar and its reconstruction; planes are converted when they are asked for."""

    recipe: PillarRecipe
    fine_truth: np.ndarray
    pixels: np.ndarray
    grey_range: tuple[float, float]

    def volume_plane(self, z: int) -> np.ndarray:
        """(ny, nx) uint16."""
        return _to_integers(self.pixels[z], low=self.grey_range[0], high=self.grey_range[1], bits=16)

    def truth_plane(self, z: int) -> np.ndarray:
        """(ny, nx) uint8, 1..3 in the order of `SAMPLE_CLASSES`."""
        return _majority(self.fine_truth[z : z + 1])[0] + np.uint8(1)

    def settings(self) -> dict[str, Any]:
        """The recipe's settings and the silica that there is."""
        silica = sum(int((plane == 2).sum()) for plane in self.fine_truth)
        solid = sum(int((plane > 0).sum()) for plane in self.fine_truth)
        return {**self.recipe.settings(), "silica volume fraction": round(silica / max(1, solid), 4)}


def make_pillar(
    recipe: PillarRecipe, *, new_array: NewArray = np.empty, progress: Progress | None = None
) -> MadePillar:
    """Grow a pillar, project it, spoil the projections, reconstruct it.

    The projections are made from a grid twice as fine as the reconstruction, so that the reconstruction does not
    profit from sharing its own model of the specimen.

    Parameters
    ----------
    recipe : PillarRecipe
    new_array : callable
        ``new_array(shape, dtype)`` makes the arrays that hold all planes; arrays in files keep the memory bounded.
    progress : callable, optional
        Called with (steps done, steps in all); projecting and reconstructing a plane are a step each.
    """
    nz, ny, nx = shape = recipe.shape
    angles = recipe.tilt_angles
    rng = np.random.default_rng(recipe.seed)
    slab = max(1, _SLAB_PIXELS // (_FINE**2 * ny * nx))
    starts = range(0, nz, slab)

    def tell(done: int) -> None:
        if progress is not None:
            progress(done, 2 * nz)

    fine_truth = _pillar(
        shape,
        radius=recipe.diameter / recipe.voxel / 2,
        fraction=recipe.silica_fraction,
        sphere=recipe.sphere_radius / recipe.voxel,
        rng=rng,
        new_array=new_array,
    )
    texture = _texture(shape, slab=slab, rng=rng, new_array=new_array)
    projections = new_array((nx, len(angles), nz), np.float32)
    for z in starts:
        tell(z)
        part = slice(z, min(nz, z + slab))
        seen = _project_fine(fine_truth[part], texture[part], levels=recipe.levels, angles=angles, n_bins=nx)
        projections[:, :, part] = gaussian_filter1d(seen, 1.0, axis=0)  # probe and detector blur by about a pixel
    tell(nz)
    rays = _spoil(projections, recipe, rng=rng, new_array=new_array)
    matrix = projection_matrix(angles, shape=(ny, nx), n_bins=nx)
    pixels = new_array(shape, np.float32)
    for z in starts:
        part = slice(z, min(nz, z + slab))
        found = sirt(matrix, rays[:, :, part].reshape(len(angles) * nx, -1), iterations=recipe.iterations)
        pixels[part] = found.T.reshape(-1, ny, nx)
        tell(nz + part.stop)
    return MadePillar(recipe, fine_truth, pixels, _grey_range(pixels, slab=slab))


def simulate_sample(**options: Any) -> SampleVolume:
    """A pillar in memory; the options are the attributes of `PillarRecipe`."""
    recipe = PillarRecipe(**options)
    made = make_pillar(recipe)
    planes = range(recipe.shape[0])
    return SampleVolume(
        volume=np.stack([made.volume_plane(z) for z in planes]),
        truth=np.stack([made.truth_plane(z) for z in planes]),
        class_names=SAMPLE_CLASSES,
        voxel_size=(recipe.voxel, recipe.voxel, recipe.voxel),
        settings=made.settings(),
    )


_FINE = 2  # fine pixels per pixel, in the plane


def _pillar(
    shape: tuple[int, int, int],
    *,
    radius: float,
    fraction: float,
    sphere: float,
    rng: np.random.Generator,
    new_array: NewArray,
) -> np.ndarray:
    """Pillar on the fine grid: (nz, 2 ny, 2 nx) uint8, 0 vacuum, 1 rubber, 2 silica; lengths in pixels."""
    nz, ny, nx = shape
    z = np.arange(nz)[:, None, None] + 0.5
    y = ((np.arange(ny * _FINE) + 0.5) / _FINE - ny / 2)[None, :, None]
    x = ((np.arange(nx * _FINE) + 0.5) / _FINE - nx / 2)[None, None, :]
    angle, phase = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 2)
    truth = new_array((nz, ny * _FINE, nx * _FINE), np.uint8)
    solid = 0
    for i, height in enumerate(z):
        outline = 1 + 0.02 * np.cos(2 * angle + phase[0] + 0.02 * height)
        outline += 0.01 * np.cos(3 * angle + phase[1] - 0.04 * height)
        truth[i] = (np.hypot(y, x) < radius * (0.93 + 0.04 * height / nz) * outline)[0]
        solid += int(truth[i].sum())
    target, filled = fraction * solid, 0
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


def _texture(shape: tuple[int, int, int], *, slab: int, rng: np.random.Generator, new_array: NewArray) -> np.ndarray:
    """Smooth noise of standard deviation 0.08, (nz, ny, nx) float32: rubber is not quite homogeneous."""
    sigma, reach = 5, 20  # of the Gaussian, and where scipy cuts it
    nz = shape[0]
    smooth_planes, texture = new_array(shape, np.float32), new_array(shape, np.float32)
    for z in range(nz):
        smooth_planes[z] = gaussian_filter(rng.standard_normal(shape[1:]), sigma)
    total, squares = 0.0, 0.0
    for z in range(0, nz, slab):
        first, stop = max(0, z - reach), min(nz, z + slab + reach)
        around = gaussian_filter1d(np.asarray(smooth_planes[first:stop], np.float64), sigma, axis=0)
        smooth = around[z - first : z - first + slab]
        texture[z : z + len(smooth)] = smooth
        total, squares = total + smooth.sum(), squares + np.square(smooth).sum()
    n = texture.size
    scale = np.float32(0.08 / np.sqrt(squares / n - (total / n) ** 2))
    for z in range(nz):
        texture[z] *= scale
    return texture


def _spoil(
    projections: np.ndarray, recipe: PillarRecipe, *, rng: np.random.Generator, new_array: NewArray
) -> np.ndarray:
    """Projections (n_bins, n_angles, nz) with counting and read noise, shifted: (n_angles, n_bins, nz) float32."""
    n_bins, n_angles, nz = projections.shape
    noisy: np.ndarray = projections
    if recipe.counts:
        scale = recipe.counts / projections.max()
        noisy = new_array(projections.shape, np.float64)
        for i in range(n_bins):  # bin by bin, since the memory need not hold all
            noisy[i] = rng.poisson(projections[i] * scale)
        for i in range(n_bins):
            noisy[i] += rng.normal(0, 1 / 3, (n_angles, nz))
            noisy[i] /= scale
    shifts = np.asarray(rng.uniform(-recipe.max_shift, recipe.max_shift, n_angles))
    rays = new_array((n_angles, n_bins, nz), np.float32)
    for i in range(n_angles):
        rays[i] = shift_projections(noisy[:, i : i + 1], shifts[i : i + 1])[:, 0]
    return rays


def _grey_range(pixels: np.ndarray, *, slab: int) -> tuple[float, float]:
    """The 0.01 and 99.99 percentiles of (nz, ny, nx) pixels, a slab in memory at once."""
    place = 1e-4 * (pixels.size - 1)  # of the percentile from either end, in sorted order
    kept = int(place) + 2

    def smallest(values: np.ndarray) -> np.ndarray:
        return values if len(values) <= kept else np.partition(values, kept - 1)[:kept]

    lowest, highest = np.empty(0), np.empty(0)
    for z in range(0, len(pixels), slab):
        part = np.asarray(pixels[z : z + slab], np.float64).ravel()
        lowest = smallest(np.concatenate((lowest, part)))
        highest = smallest(np.concatenate((highest, -part)))
    places = np.arange(len(lowest))
    return float(np.interp(place, places, np.sort(lowest))), -float(np.interp(place, places, np.sort(highest)))


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
