"""Particles: volume, size, surface, place and distance of every object of a class; shares of all classes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import KDTree, SphericalVoronoi

from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.labels.objects import ObjectFinder, ObjectSlab
from gpu_tomoclass.labels.splitting import NECK, SplitObjects
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import VolumeLike, VoxelSize, open_volume

BORDERS = ("count", "exclude", "half")


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
        Towards other classes, in square units, inside the volume: where the volume's border cuts a particle is no
        surface. See `surface_weights` for the estimator.
    contact : (n,) float64
        Area of the cuts to particles of the same class that it touches; 0 unless these were told apart.
    centre : (n, 3) float64
        Centre of mass (z, y, x); the centre of voxel (0, 0, 0) is (0, 0, 0).
    neighbour : (n,) float64
        Distance from centre to centre of the nearest other particle, counted or not; NaN if there is none.
    touches_border : (n,) bool
        Whether a voxel lies on the border of the volume: volume and diameter are then lower bounds.
    counted : (n,) bool
        Whether the rule for the border lets the particle into counts and distributions.
    """

    value: int
    unit: str
    voxels: np.ndarray
    volume: np.ndarray
    diameter: np.ndarray
    surface: np.ndarray
    contact: np.ndarray
    centre: np.ndarray
    neighbour: np.ndarray
    touches_border: np.ndarray
    counted: np.ndarray

    def __len__(self) -> int:
        return len(self.voxels)

    def summary(self) -> dict[str, Any]:
        """JSON-ready numbers: of all particles together, and of the distributions of the counted ones."""
        chosen = self.counted
        return {
            "particles": len(self),
            "touching_border": int(self.touches_border.sum()),
            "counted": int(chosen.sum()),
            "surface": float(self.surface.sum()),
            "diameter": _distribution(self.diameter[chosen], self.volume[chosen]),
            "neighbour": _distribution(self.neighbour[chosen]),
        }


@dataclass(frozen=True)
class Measurement:
    """All classes of a label volume.

    Attributes
    ----------
    unit : str
        Of lengths, ``"nm"`` or ``"voxel"``.
    names : dict of int to str
        Of the label values that there are.
    voxels : dict of int to int
        Number of voxels of each of these values.
    outside : frozenset of int
        Values that are not the specimen.
    voxel_volume : float
        In cubic units.
    particles : dict of int to Particles
        By label value, of the classes that were measured.
    settings : dict
        How particles were told apart and counted, for records.
    """

    unit: str
    names: Mapping[int, str]
    voxels: Mapping[int, int]
    outside: frozenset[int]
    voxel_volume: float
    particles: Mapping[int, Particles]
    settings: Mapping[str, Any]

    def fraction(self, value: int) -> float:
        """Share of a class in the volume, without what is outside of the specimen; NaN for what is outside."""
        inside = sum(n for v, n in self.voxels.items() if v not in self.outside)
        return float("nan") if value in self.outside else self.voxels.get(value, 0) / max(1, inside)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready: settings and, for each class, its share and the summary of its particles."""
        classes = []
        for value, name in self.names.items():
            share = None if value in self.outside else self.fraction(value)
            amount = {"voxels": self.voxels[value], "volume": self.voxels[value] * self.voxel_volume, "fraction": share}
            found = self.particles[value].summary() if value in self.particles else {}
            classes.append({"value": value, "name": name, **amount, **found})
        return {"unit": self.unit, **self.settings, "classes": classes}


def measure_particles(
    labels: VolumeLike,
    *,
    value: int,
    split: bool = False,
    neck: float = NECK,
    border: str = "count",
    slab_planes: int | None = None,
    device: Device | str | None = None,
    progress: Progress | None = None,
) -> Particles:
    """Measure the particles of one class; see `measure_classes`."""
    found = measure_classes(
        labels, values=(value,), split=split, neck=neck, border=border, slab_planes=slab_planes, device=device,
        progress=progress,
    )  # fmt: skip
    return found.particles[value]


def measure_classes(
    labels: VolumeLike,
    *,
    values: Collection[int] | None = None,
    outside: Collection[int] = (),
    split: bool = False,
    neck: float = NECK,
    border: str = "count",
    slab_planes: int | None = None,
    device: Device | str | None = None,
    progress: Progress | None = None,
) -> Measurement:
    """Measure every connected object (26 neighbours) of the classes, and the shares of all classes.

    The volume is read once, slab by slab, so it may be larger than the memory; with ``split`` it is held in memory.

    Parameters
    ----------
    labels : Volume, path or array
        Label values 0..255.
    values : collection of int, optional
        Classes whose particles are measured; by default all that there are, but for 0 and ``outside``.
    outside : collection of int
        Classes that are not the specimen, such as vacuum: fractions are those of the rest.
    split : bool
        Tell particles that touch apart, by distance transform and watershed.
    neck : float
        Two particles are told apart where the neck between them is thinner than this share of the thinner one; see
        :mod:`gpu_tomoclass.labels.splitting`.
    border : {"count", "exclude", "half"}
        Which particles that touch the border of the volume are counted: all; none (small ones are then
        overrepresented); those that do not touch the last plane, row or column, which makes the number of particles
        per volume unbiased (H. J. G. Gundersen, J. Microsc. 111 (1977) 219-223, in three dimensions).
    slab_planes : int, optional
        Planes in memory at once; the result does not depend on it.
    device : str or Device, optional
        ``"cuda"``: objects and distances are found on the GPU, by cuCIM; default: the CPU.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    UsageError
        If a class is no label value, or ``neck`` or ``border`` is none of those above.
    ResourceError
        If the memory does not hold a slab, or the volume with ``split``; raised before the work.
    """
    if border not in BORDERS:
        raise UsageError(f"border {border!r} is unknown", do=f"choose {', '.join(BORDERS)}")
    labels = open_volume(labels)
    wanted = sorted(set(range(1, 256)) - set(outside) if values is None else values)
    finder: ObjectFinder | SplitObjects
    if split:
        finder = SplitObjects(labels, classes=wanted, neck=neck, slab_planes=slab_planes, device=device)
    else:
        finder = ObjectFinder(labels, classes=wanted, slab_planes=slab_planes, device=device)
    size = labels.voxel_size or (1.0, 1.0, 1.0)
    weights = surface_weights(size)
    sums: list[np.ndarray] = [np.zeros((len(_SUMS), 1))]  # one column per preliminary number
    of_number: list[np.ndarray] = [np.zeros(1, np.uint8)]
    voxels = np.zeros(256, np.int64)
    for slab in finder.slabs(progress):
        voxels += np.bincount(slab.labels.ravel(), minlength=256)
        columns, class_of = _sums(slab, labels.shape, weights)
        sums.append(columns)
        of_number.append(class_of)
    final, rows, class_of = finder.final(), np.hstack(sums), np.concatenate(of_number)
    n = int(final.max(initial=0))
    totals = {name: np.bincount(final, row, minlength=n + 1)[1:] for name, row in zip(_SUMS, rows, strict=True)}
    value = np.zeros(n + 1, np.uint8)
    value[final[class_of > 0]] = class_of[class_of > 0]  # a slab need not have every number of its range
    unit = "voxel" if labels.voxel_size is None else "nm"
    present = [v for v in range(256) if voxels[v]]
    chosen = present if values is None else wanted
    return Measurement(
        unit=unit,
        names=_names(present, labels.classes),
        voxels={v: int(voxels[v]) for v in present},
        outside=frozenset(outside),
        voxel_volume=float(np.prod(size)),
        particles={
            v: _particles(v, {k: row[value[1:] == v] for k, row in totals.items()}, size=size, unit=unit, border=border)
            for v in chosen
            if v in wanted
        },
        settings={"split": {"neck": neck} if split else None, "border": border},
    )


_SUMS = ("voxels", "z", "y", "x", "surface", "contact", "border", "far_border")


def _sums(
    slab: ObjectSlab, shape: tuple[int, int, int], weights: dict[tuple[int, int, int], float]
) -> tuple[np.ndarray, np.ndarray]:
    """Sums over the voxels of each number of the slab, (len(_SUMS), count) float64, and its label value."""
    z, y, x = np.nonzero(slab.numbers)
    number = slab.numbers[z, y, x] - (slab.last - slab.count)
    values = np.zeros(slab.count + 1, np.uint8)
    values[number] = slab.labels[z, y, x]
    surface, contact = (None if area is None else area[z, y, x] for area in _areas_per_voxel(slab, weights))
    z += slab.first
    last = [n - 1 for n in shape]
    far = (z == last[0]) | (y == last[1]) | (x == last[2])
    near = (z == 0) | (y == 0) | (x == 0)
    amounts = [None, z, y, x, surface, np.zeros(len(z)) if contact is None else contact, near | far, far]
    return np.stack([np.bincount(number, a, minlength=slab.count + 1)[1:] for a in amounts]).astype(float), values[1:]


def _particles(value: int, sums: dict[str, np.ndarray], *, size: VoxelSize, unit: str, border: str) -> Particles:
    voxels = sums["voxels"]
    volume = voxels * np.prod(size)
    centre = np.stack([sums[axis] for axis in "zyx"], axis=1) / voxels[:, None] * size
    touches, far = sums["border"] > 0, sums["far_border"] > 0
    left_out = {"count": np.zeros(len(voxels), bool), "exclude": touches, "half": far}[border]
    return Particles(
        value=value,
        unit=unit,
        voxels=voxels.astype(np.int64),
        volume=volume,
        diameter=np.cbrt(6 * volume / np.pi),
        surface=sums["surface"],
        contact=sums["contact"],
        centre=centre,
        neighbour=_nearest(centre),
        touches_border=touches,
        counted=~left_out,
    )


def _names(values: Collection[int], classes: Collection[LabelClass]) -> dict[int, str]:
    known = {c.value: c.name for c in classes}
    return {v: known.get(v, "unlabelled" if v == 0 else f"class {v}") for v in values}


def _distribution(values: np.ndarray, weights: np.ndarray | None = None) -> dict[str, float] | None:
    """Mean, standard deviation and quantiles of the known values, and their mean by weight; None without any."""
    known = ~np.isnan(values)
    if not known.any():
        return None
    values = values[known]
    found = {"mean": values.mean(), "standard_deviation": values.std()}
    quantiles = {"smallest": 0, "tenth": 0.1, "median": 0.5, "ninetieth": 0.9, "largest": 1}
    found |= dict(zip(quantiles, np.quantile(values, list(quantiles.values())), strict=True))
    if weights is not None:
        found["mean_by_volume"] = np.average(values, weights=weights[known])
    return {name: float(v) for name, v in found.items()}


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


def _areas_per_voxel(
    slab: ObjectSlab, weights: dict[tuple[int, int, int], float]
) -> tuple[np.ndarray, np.ndarray | None]:
    """Surface towards other classes, and contact with objects of the same, of each voxel: (n, ny, nx) float32."""
    before = [] if slab.before is None else [slab.before[None]]
    after = [] if slab.after is None else [slab.after[None]]
    labels = np.concatenate([*before, slab.labels, *after])
    surface = np.zeros(labels.shape, np.float32)
    contact = None if slab.around is None else np.zeros(labels.shape, np.float32)
    for step, weight in weights.items():
        here = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(step, labels.shape, strict=True))
        there = tuple(slice(max(0, s), n - max(0, -s)) for s, n in zip(step, labels.shape, strict=True))
        other = labels[here] != labels[there]
        change = other * np.float32(weight)
        surface[here] += change
        surface[there] += change
        if contact is not None and slab.around is not None:
            change = (~other & (slab.around[here] != slab.around[there])) * np.float32(weight)
            contact[here] += change
            contact[there] += change
    own = slice(len(before), len(before) + len(slab.labels))
    return surface[own], None if contact is None else contact[own]


def _nearest(centre: np.ndarray) -> np.ndarray:
    if len(centre) < 2:
        return np.full(len(centre), np.nan)
    return KDTree(centre).query(centre, k=2)[0][:, 1]
