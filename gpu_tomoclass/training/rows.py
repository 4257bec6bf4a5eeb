"""Training rows: the features of the marked pixels of one or several volumes, with where each row comes from."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.annotations import Annotation, merge_classes
from gpu_tomoclass.classes import LabelClass
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, ModelError, TomoclassError, UsageError
from gpu_tomoclass.features import (
    FeatureBank,
    FeatureCache,
    FeatureEngine,
    IntensityScale,
    PreparedPlane,
    PreparedSlab,
    aspect_of,
    block_values,
    prepare_slab,
)
from gpu_tomoclass.model import same_voxels
from gpu_tomoclass.training.drift import sampled_pixels
from gpu_tomoclass.training.in_order import map_in_order
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import NO_BIN, Crop, Region, Volume, VolumeLike, VoxelSize, detect_format, voxel_text

GROUPINGS = ("stroke", "plane", "volume")
SAMPLE_PIXELS = 20_000  # of all marked planes together: what the model remembers of the volume's features


def _is_mrc(path: str) -> bool:
    try:
        return detect_format(path).name.startswith("MRC")
    except TomoclassError:  # a volume in memory
        return False


@dataclass(frozen=True)
class TrainingRows:
    """Rows that a forest is grown from.

    Attributes
    ----------
    bank : FeatureBank
    classes : tuple of LabelClass
        Those of the annotations, marked or not.
    values : numpy.ndarray
        (n_rows, n_channels) float32. Rows are in the order of TWS's, volume after volume; see
        :meth:`Annotation.row_order <gpu_tomoclass.annotations.Annotation.row_order>`.
    labels : numpy.ndarray
        (n_rows,) uint8.
    places : numpy.ndarray
        (n_rows, 4) int32: number of the volume, z, y, x.
    samples : list of numpy.ndarray
        Of each volume (n_pixels, n_channels) float32: random pixels of its marked planes.
    scale : IntensityScale
        Applied to all volumes.
    voxel_size : tuple of float or None
        Of the first volume.
    sources : list of dict
        For each volume its fingerprint, dtype and marked planes; JSON-ready.
    seconds_per_plane : dict
        Seconds of computing per family and plane (one thread), for families computed now.
    cached_blocks : int
        Feature blocks that came from the cache.
    notes : list of str
    seconds : float
        Wall time.
    """

    bank: FeatureBank
    classes: tuple[LabelClass, ...]
    values: npt.NDArray[np.float32]
    labels: npt.NDArray[np.uint8]
    places: npt.NDArray[np.int32]
    samples: Sequence[npt.NDArray[np.float32]]
    scale: IntensityScale
    voxel_size: VoxelSize | None
    sources: list[dict[str, Any]]
    seconds_per_plane: Mapping[str, float] = field(default_factory=dict)
    cached_blocks: int = 0
    notes: Sequence[str] = ()
    seconds: float = 0.0

    def groups(self, grouping: str) -> npt.NDArray[np.int64]:
        """A number for each row; rows of one stroke (or plane, or volume) have the same.

        A stroke is a set of marked pixels of one class on one plane that touch each other, diagonally too. Pixels of
        one stroke resemble each other, so a forest must not be tested on a stroke of which it has seen a part.
        """
        if grouping == "volume":
            return self.places[:, 0].astype(np.int64)
        _, of_plane = np.unique(self.places[:, :2], axis=0, return_inverse=True)
        of_plane = of_plane.reshape(-1).astype(np.int64)
        return of_plane if grouping == "plane" else self._strokes(of_plane)

    def _strokes(self, of_plane: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        from scipy import ndimage

        group = np.empty(len(self.labels), dtype=np.int64)
        n = 0
        for plane in np.unique(of_plane):
            rows = np.flatnonzero(of_plane == plane)
            y, x = self.places[rows, 2], self.places[rows, 3]
            y, x = y - y.min(), x - x.min()
            for value in np.unique(self.labels[rows]):
                of_class = self.labels[rows] == value
                painted = np.zeros((y.max() + 1, x.max() + 1), dtype=np.bool_)
                painted[y[of_class], x[of_class]] = True
                connected, n_strokes = ndimage.label(painted, structure=np.ones((3, 3)))
                group[rows[of_class]] = n + connected[y[of_class], x[of_class]]
                n += n_strokes
        return group - 1


def collect_rows(
    volumes: Sequence[tuple[Volume, Annotation]],
    *,
    bank: FeatureBank,
    intensity: str = "auto",
    nan: str = "error",
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    scale: IntensityScale | None = None,
    cache: FeatureCache | None = None,
    device: Device | str = "auto",
    progress: Progress | None = None,
) -> TrainingRows:
    """Compute the features of the marked pixels; only annotated planes are read.

    Parameters
    ----------
    volumes : sequence of (Volume, Annotation)
        One or more; an annotation has the shape of its volume.
    bank : FeatureBank
    intensity : {"auto", "none"}
        See :class:`gpu_tomoclass.features.intensity.IntensityScale`. Several float volumes share the scale of the
        first.
    nan : {"error", "fill", "mask"}
        Non-finite voxels; for ``"mask"`` strokes on them are left out.
    crop, mask : optional
        Leave out what is not in this part of the only volume, see :meth:`gpu_tomoclass.volumes.Region.of`: strokes, and
        pixels that the model remembers. Features see what is around.
    scale : IntensityScale, optional
        That of a model whose rows these are to be pooled with, instead of one by ``intensity``.
    cache : FeatureCache, optional
    device : str or Device
        Where features are computed: ``"auto"``, the first that works, or a name that
        :func:`~gpu_tomoclass.device.choice.choose_device` knows.
    progress : callable, optional
        Called with (planes done, planes in all).

    Raises
    ------
    ModelError
        If an annotation belongs to another shape, or the volumes have values of different kinds.
    DataError
        If a plane cannot be used.
    """
    if not volumes:
        raise DataError("there is no volume to train on")
    first = volumes[0][0]
    for volume, annotation in volumes:
        if annotation.shape != volume.shape:
            raise ModelError(f"is {volume.shape}, the annotation belongs to {annotation.shape}", where=volume.path)
        if volume.dtype != first.dtype:
            raise ModelError(
                f"has {volume.dtype} voxels, {first.path} has {first.dtype}: grey values do not compare",
                where=volume.path,
                do="convert one of them",
            )
        if volume.bin != first.bin:
            raise ModelError(
                f"has bin {volume.bin}, {first.path} has {first.bin}", where=volume.path, do="bin both alike"
            )
        size, other = volume.voxel_size, first.voxel_size
        if size is None or other is None or bank.fits_any_voxels:
            continue
        if not same_voxels(other, size, across=3 in bank.dimensions):
            raise ModelError(
                f"has voxels of {voxel_text(size)}, {first.path} has {voxel_text(other)} (z, y, x): features"
                " have sizes in pixels",
                where=volume.path,
                do="rescale one of them, or give --voxel-size if a file is wrong",
            )
    began = time.perf_counter()
    if len(volumes) > 1 and (crop is not None or mask is not None):
        raise UsageError("a crop or a mask belongs to one volume, and several are given")
    region = Region.of(first, crop=crop, mask=mask)
    outside_of = {int(z): region.outside(int(z)) for z in volumes[0][1].planes()} if not region.is_whole else {}
    notes: list[str] = []
    classes = merge_classes([annotation for _, annotation in volumes], notes)
    notes += [
        f"{volume.path}: Fiji's Bio-Formats shows MRC files upside down, and ROIs drawn on one are mirrored here; draw"
        " on a TIFF, which substack writes"
        for volume, annotation in volumes
        if annotation.traced.any() and _is_mrc(volume.path)
    ]
    if scale is None:
        scale = IntensityScale.for_volume(first, mode=intensity)
    plane_device, n_workers = choose_device(device).side_by_side()
    engines = threading.local()
    hits_before = cache.hits if cache is not None else 0
    marked = [(i, int(z)) for i, (_, annotation) in enumerate(volumes) for z in annotation.planes()]
    n_sampled = -(-SAMPLE_PIXELS // max(1, len(marked)))

    def prepared() -> Iterator[tuple[int, int, PreparedSlab]]:
        held: dict[int, PreparedPlane] = {}  # halos overlap
        of: int | None = None
        for i, z in marked:
            volume = volumes[i][0]
            if of != i:
                held, of = {}, i
            halo = bank.z_reach(aspect_of(volume.voxel_size))
            yield i, z, prepare_slab(volume, z, z + 1, halo=halo, scale=scale, nan=nan, held=held)

    def rows(item: tuple[int, int, PreparedSlab]) -> _PlaneRows:
        i, z, slab = item
        plane = slab.wanted[0]
        y, x, label = volumes[i][1].on_plane(z)
        if plane.missing:
            return _no_rows(bank.n_channels)
        outside = outside_of.get(z)
        if outside is not None:
            keep = ~outside[y, x]
            y, x, label = y[keep], x[keep], label[keep]
            if not y.size:
                return _no_rows(bank.n_channels)
        if nan == "mask" and plane.filled is not None:
            keep = ~plane.filled[y, x]
            y, x, label = y[keep], x[keep], label[keep]
        if not hasattr(engines, "of_thread"):
            engines.of_thread = FeatureEngine(plane_device.for_thread(), bank.blocks)
        return _plane_rows(i, z, slab, y, x, label, engine=engines.of_thread, cache=cache,
                           n_sampled=n_sampled, outside=outside)  # fmt: skip

    parts = []
    for done, part in enumerate(map_in_order(rows, prepared(), workers=n_workers), start=1):
        parts.append(part)
        if progress is not None:
            progress(done, len(marked))
    for volume, _ in volumes:
        volume.check_unchanged()
    if cache is not None:
        cache.trim()
        notes.extend(cache.notes)
    places = np.concatenate([part.places for part in parts])
    if outside_of and (n_left_out := len(volumes[0][1].z) - len(places)):
        notes.append(f"{n_left_out} marked voxels are outside of the crop or the mask, or not usable: left out")
    in_order = _row_order(places, [annotation for _, annotation in volumes])
    timings: dict[str, list[float]] = defaultdict(list)
    for part in parts:
        for family, seconds in part.timings.items():
            timings[family].append(seconds)
    return TrainingRows(
        bank=bank,
        classes=classes,
        values=_taken(np.concatenate([part.values for part in parts]), in_order),
        labels=_taken(np.concatenate([part.labels for part in parts]), in_order),
        places=_taken(places, in_order),
        samples=[
            np.concatenate([part.sample for (of, _), part in zip(marked, parts, strict=True) if of == i])
            for i in sorted({i for i, _ in marked})
        ],
        scale=scale,
        voxel_size=first.voxel_size,
        sources=[
            {
                "volume": v.fingerprint(),
                "dtype": v.dtype.name,
                "planes": [int(z) for z in annotation.planes()],
                **({} if v.bin == NO_BIN else {"bin": list(v.bin)}),
                **({} if region.is_whole else {"region": region.to_dict()}),
            }
            for v, annotation in volumes
        ],
        seconds_per_plane={family: float(np.median(s)) for family, s in timings.items()},
        cached_blocks=cache.hits - hits_before if cache is not None else 0,
        notes=[*(n for _, a in volumes for n in a.notes), *notes, *(n for part in parts for n in part.notes)],
        seconds=time.perf_counter() - began,
    )


def _row_order(places: np.ndarray, annotations: Sequence[Annotation]) -> npt.NDArray[np.int64]:
    """Order of the rows; ``places`` (n, 4), of the voxels that could be used, in raster order."""
    order = []
    for i, annotation in enumerate(annotations):
        rows = np.flatnonzero(places[:, 0] == i)
        shape = annotation.shape
        used = np.ravel_multi_index(places[rows, 1:].T, shape)
        all_of_them = np.ravel_multi_index((annotation.z, annotation.y, annotation.x), shape)
        rank = np.empty(annotation.z.size, dtype=np.int64)
        rank[annotation.row_order()] = np.arange(rank.size)
        order.append(rows[np.argsort(rank[np.searchsorted(all_of_them, used)], kind="stable")])
    return np.concatenate(order)


def _taken(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """``values[rows]``, without a copy where that is all of them in order."""
    return values if (rows[:-1] < rows[1:]).all() else values[rows]


@dataclass(frozen=True)
class _PlaneRows:
    values: np.ndarray  # (n, n_channels) float32
    labels: np.ndarray  # (n,) uint8
    places: np.ndarray  # (n, 4) int32
    sample: np.ndarray  # (m, n_channels) float32
    timings: Mapping[str, float]
    notes: tuple[str, ...]


def _no_rows(n_channels: int) -> _PlaneRows:
    nothing = np.empty((0, n_channels), np.float32)
    return _PlaneRows(nothing, np.empty(0, np.uint8), np.empty((0, 4), np.int32), nothing, {}, ())


def _plane_rows(
    volume_number: int,
    z: int,
    slab: PreparedSlab,
    y: np.ndarray,
    x: np.ndarray,
    label: np.ndarray,
    *,
    engine: FeatureEngine,
    cache: FeatureCache | None,
    n_sampled: int,
    outside: np.ndarray | None = None,
) -> _PlaneRows:
    """Features of the marked pixels of one plane, and of some at random."""
    values = np.empty((y.size, engine.n_channels), dtype=np.float32)
    ny, nx = slab.planes[0].image.shape
    pixels = sampled_pixels(ny * nx, n_sampled, outside=outside, seed=[volume_number, z])
    sample = np.empty((pixels.size, engine.n_channels), dtype=np.float32)
    timings: dict[str, float] = {}
    for block, channels in block_values(engine, slab, cache=cache, timings=timings):
        values[:, block.start : block.stop] = channels[:, y, x].T
        sample[:, block.start : block.stop] = channels.reshape(len(channels), -1)[:, pixels].T
    places = np.stack([np.full(y.size, volume_number), np.full(y.size, z), y, x], axis=1).astype(np.int32)
    return _PlaneRows(values, label, places, sample, timings, slab.notes)
