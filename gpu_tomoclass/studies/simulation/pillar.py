"""A rubber pillar with aggregates of silica spheres: grown, projected, spoilt, reconstructed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, gaussian_filter1d

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.studies.simulation.tilt_series import (
    projection_matrix,
    shift_projections,
    sirt,
    tilt_angles,
    to_integers,
)
from gpu_tomoclass.types import Progress

SAMPLE_CLASSES = ("vacuum", "rubber", "silica")


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
    spheres : (n, 4) float64
        Centre (z, y, x) and radius of every silica sphere in voxels, the centre of voxel (0, 0, 0) at (0, 0, 0); in the
        order in which they were placed, also where one lies in another or beyond the pillar.
    """

    volume: np.ndarray
    truth: np.ndarray
    class_names: tuple[str, ...]
    voxel_size: tuple[float, float, float]
    settings: dict[str, Any] = field(default_factory=dict)
    spheres: np.ndarray = field(default_factory=lambda: np.empty((0, 4)))


@dataclass(frozen=True)
class PillarRecipe:
    """Recipe of a piece of a silica-filled rubber pillar: noise, misalignment, missing wedge.

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
_SLAB_PIXELS = 2**24  # pixels of the fine grid in memory at once


@dataclass(frozen=True)
class MadePillar:
    """A pillar and its reconstruction; planes are converted when they are asked for."""

    recipe: PillarRecipe
    fine_truth: np.ndarray
    pixels: np.ndarray
    grey_range: tuple[float, float]
    spheres: np.ndarray

    def volume_plane(self, z: int) -> np.ndarray:
        """(ny, nx) uint16."""
        return to_integers(self.pixels[z], low=self.grey_range[0], high=self.grey_range[1], bits=16)

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

    fine_truth, spheres = _pillar(
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
    return MadePillar(recipe, fine_truth, pixels, _grey_range(pixels, slab=slab), spheres)


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
        spheres=made.spheres,
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
) -> tuple[np.ndarray, np.ndarray]:
    """Pillar on the fine grid, (nz, 2 ny, 2 nx) uint8, 0 vacuum, 1 rubber, 2 silica, and its spheres, (n, 4) float64.

    Lengths are in pixels.
    """
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
    spheres = []
    while filled < target:
        for centre, r in _aggregate(nz=nz, radius=radius, sphere=sphere, rng=rng):
            spheres.append((*(centre + np.array((0, ny / 2, nx / 2)) - 0.5), r))
            box = tuple(
                slice(*np.searchsorted(axis.ravel(), (c - r, c + r))) for axis, c in zip((z, y, x), centre, strict=True)
            )
            dz, dy, dx = z[box[0]] - centre[0], y[:, box[1]] - centre[1], x[:, :, box[2]] - centre[2]
            inside = (dz**2 + dy**2 + dx**2 < r * r) & (truth[box] == 1)
            truth[box][inside] = 2
            filled += int(inside.sum())
    return truth, np.array(spheres, np.float64).reshape(-1, 4)


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
    sigma, reach = 5, 20  # the Gaussian's, and where scipy cuts it
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
    place = 1e-4 * (pixels.size - 1)  # where the percentile lies in sorted order, from either end
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
