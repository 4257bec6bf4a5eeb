"""Particles of a class: volume, size, surface, place and distance of every connected object of a label volume."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from os import PathLike
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.spatial import KDTree, SphericalVoronoi

from gpu_tomoclass.device import Device
from gpu_tomoclass.labels.objects import ObjectFinder, ObjectSlab
from gpu_tomoclass.labels.pictures import chart_png
from gpu_tomoclass.outputs import atomic, check_output, check_suffix
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import VolumeLike, VoxelSize, open_volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Particles:
    """The particles of one class, in the order of their first voxel (z, y, x).

    Attributes
    ----------
    value : int
        Label value of the class.
    unit : str
        Of lengths: ``"nm"``, or ``"voxel"`` where the volume has no voxel size.
    voxels : (n,) int64
    volume : (n,) float64
        In cubic units.
    diameter : (n,) float64
        Of the sphere of that volume.
    surface : (n,) float64
        In square units, inside the volume: where the volume's border cuts a particle is no surface. See
        `surface_weights` for the estimator.
    centre : (n, 3) float64
        Centre of mass (z, y, x); the centre of voxel (0, 0, 0) is (0, 0, 0).
    neighbour : (n,) float64
        Distance from centre to centre of the nearest other particle; NaN if there is none.
    touches_border : (n,) bool
        Whether a voxel lies on the border of the volume: volume and diameter are then lower bounds.
    """

    value: int
    unit: str
    voxels: np.ndarray
    volume: np.ndarray
    diameter: np.ndarray
    surface: np.ndarray
    centre: np.ndarray
    neighbour: np.ndarray
    touches_border: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)


def measure_particles(
    labels: VolumeLike,
    *,
    value: int,
    slab_planes: int | None = None,
    device: Device | str | None = None,
    progress: Progress | None = None,
) -> Particles:
    """Measure every connected object (26 neighbours) of one class.

    The volume is read once, slab by slab, so it may be larger than the memory.

    Parameters
    ----------
    labels : Volume, path or array
        Label values 0..255.
    value : int
        The class.
    slab_planes : int, optional
        Planes in memory at once; the result does not depend on it.
    device : str or Device, optional
        ``"cuda"``: objects are found on the GPU, by cuCIM; default: the CPU.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ResourceError
        If the memory does not hold a slab; raised before the work.
    """
    labels = open_volume(labels)
    finder = ObjectFinder(labels, classes=(value,), slab_planes=slab_planes, device=device)
    size = labels.voxel_size or (1.0, 1.0, 1.0)
    weights = surface_weights(size)
    nz, ny, nx = labels.shape
    sums: list[np.ndarray] = [np.zeros((6, 1))]  # one column per preliminary number: voxels, z, y, x, surface, border
    for slab in finder.slabs(progress):
        z, y, x = np.nonzero(slab.numbers)
        number = slab.numbers[z, y, x] - (slab.last - slab.count)
        surface = _surface_per_voxel(slab, value, weights)[z, y, x]
        z += slab.first
        border = (z == 0) | (z == nz - 1) | (y == 0) | (y == ny - 1) | (x == 0) | (x == nx - 1)
        columns = [np.bincount(number, w, minlength=slab.count + 1)[1:] for w in (None, z, y, x, surface, border)]
        sums.append(np.stack(columns).astype(np.float64))
    final = finder.final()
    n = int(final.max())
    voxels, *places, surfaces, borders = (np.bincount(final, row, minlength=n + 1)[1:] for row in np.hstack(sums))
    volume = voxels * np.prod(size)
    centre = np.stack(places, axis=1) / voxels[:, None] * size
    return Particles(
        value=value,
        unit="voxel" if labels.voxel_size is None else "nm",
        voxels=voxels.astype(np.int64),
        volume=volume,
        diameter=np.cbrt(6 * volume / np.pi),
        surface=surfaces,
        centre=centre,
        neighbour=_nearest(centre),
        touches_border=borders > 0,
    )


def surface_weights(voxel_size: VoxelSize) -> dict[tuple[int, int, int], float]:
    """Surface that a change between two voxels counts for, by the step (z, y, x) from one to the other.

    Crofton's formula with the 13 directions of the 26 neighbours: the surface is four times the mean over all
    directions of the area that lines of a direction enter, and a direction stands for the directions nearer to it than
    to the other 12 (its Voronoi cell on the sphere). A line of voxels along step ``k`` stands for the area
    ``V / |k|`` of its cross-section, with the voxel volume ``V``, and is entered once for two changes.

    The sum is right on average over directions: a ball in voxels comes out as the ball of its volume, to 4 % at a
    radius of 3 voxels and to 1 % from 8 on. A flat face counts for 0.92 to 1.03 of its area by its direction, for 0.87
    to 1.10 with voxels twice as long in one direction as in the others.

    Returns
    -------
    dict
        13 steps, one of each pair of opposite ones.
    """
    steps = [(z, y, x) for z in (-1, 0, 1) for y in (-1, 0, 1) for x in (-1, 0, 1) if (z, y, x) != (0, 0, 0)]
    vectors = np.array(steps) * np.array(voxel_size)
    lengths = np.linalg.norm(vectors, axis=1)
    areas = SphericalVoronoi(vectors / lengths[:, None]).calculate_areas()
    share = 2 * areas / (4 * np.pi)  # of a step and its opposite
    weights = 2 * np.prod(voxel_size) * share / lengths
    return {step: float(w) for step, w in zip(steps, weights, strict=True) if step > (0, 0, 0)}


def _surface_per_voxel(slab: ObjectSlab, value: int, weights: dict[tuple[int, int, int], float]) -> np.ndarray:
    """Surface that each voxel of the slab stands for: (n, ny, nx) float32."""
    before = [] if slab.before is None else [slab.before[None]]
    after = [] if slab.after is None else [slab.after[None]]
    inside = np.concatenate([*before, slab.labels, *after]) == value
    surface = np.zeros(inside.shape, np.float32)
    for step, weight in weights.items():
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, inside.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, inside.shape, strict=True))
        change = (inside[here] != inside[there]) * np.float32(weight)
        surface[here] += change
        surface[there] += change
    return surface[len(before) : len(before) + len(slab.labels)]


def _nearest(centre: np.ndarray) -> np.ndarray:
    if len(centre) < 2:
        return np.full(len(centre), np.nan)
    return KDTree(centre).query(centre, k=2)[0][:, 1]


# --- files -----------------------------------------------------------------------------------------------------------


def save_particles(particles: Particles, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a CSV file, one line per particle; the header names the units, an unknown distance is empty.

    Raises
    ------
    DataError
        If it exists and ``overwrite`` is not set.
    """
    u = particles.unit
    header = ["particle", "voxels", f"volume_{u}3", f"equivalent_diameter_{u}", f"surface_{u}2"]
    header += [f"centre_{axis}_{u}" for axis in "zyx"] + [f"nearest_neighbour_{u}", "touches_border"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    for i in range(len(particles)):
        numbers = (particles.volume[i], particles.diameter[i], particles.surface[i], *particles.centre[i])
        distance = "" if np.isnan(particles.neighbour[i]) else f"{particles.neighbour[i]:.6g}"
        row: list[Any] = [i + 1, int(particles.voxels[i]), *(f"{v:.6g}" for v in numbers), distance]
        writer.writerow([*row, "yes" if particles.touches_border[i] else "no"])
    _write(path, text.getvalue().encode(), overwrite=overwrite)


def particle_figure(particles: Particles, *, title: str) -> Figure:
    """Histograms of the equivalent diameter, by number and by volume, and of the nearest-neighbour distance."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10.5, 3.4), layout="constrained")
    figure.suptitle(title)
    blue, orange, green = (0, 0.447, 0.698), (0.902, 0.624, 0), (0, 0.62, 0.451)
    panels = (
        ("equivalent diameter", "particles", particles.diameter, None, blue),
        ("equivalent diameter", "share of the class's volume", particles.diameter, particles.volume, orange),
        ("nearest neighbour, centre to centre", "particles", particles.neighbour, None, green),
    )
    for axes, (name, amount, values, weights, colour) in zip(figure.subplots(1, 3), panels, strict=True):
        known = ~np.isnan(values)
        shares = None if weights is None else weights[known] / weights.sum()
        if known.any():
            bins = int(np.clip(2 * known.sum() ** (1 / 2), 5, 60))
            axes.hist(values[known], bins=bins, weights=shares, color=(*colour, 0.35), edgecolor=colour)
        else:
            axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        if weights is None:
            axes.yaxis.get_major_locator().set_params(integer=True)  # particles are counted
        axes.set(xlabel=f"{name} ({particles.unit})", ylabel=amount)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def check_measurement_targets(
    path: str | PathLike[str], histograms: str | PathLike[str] | None, *, overwrite: bool = False
) -> None:
    """Raise before the work what writing would raise after it."""
    from gpu_tomoclass.labels.pictures import check_picture_target

    check_suffix(path, ".csv")
    check_output(path, overwrite=overwrite)
    if histograms is not None:
        check_picture_target(histograms, overwrite=overwrite)


def save_histograms(particles: Particles, path: str | PathLike[str], *, title: str, overwrite: bool = False) -> None:
    """Write `particle_figure` as a PNG."""
    _write(path, chart_png(particle_figure(particles, title=title)), overwrite=overwrite)


def _write(path: str | PathLike[str], content: bytes, *, overwrite: bool) -> None:
    with atomic(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(content)
