"""From annotated planes to a model: features where there are strokes, cached, then the forest."""

from __future__ import annotations

import hashlib
import platform
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import numpy as np

from gpu_tomoclass import __version__
from gpu_tomoclass.annotations import (
    MIXED_RELATION,
    OLD_RELATION,
    TWS_3D_RELATION,
    TWS_RELATION,
    Annotation,
    TrainingTable,
)
from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.device import Device, choose_device, worker_count
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.features import FeatureBank, FeatureCache, IntensityScale, aspect_of
from gpu_tomoclass.forest import grow_forest
from gpu_tomoclass.model import Model, check_fits
from gpu_tomoclass.training.drift import channel_quantiles, mean_lead, probabilities_of
from gpu_tomoclass.training.earlier_rows import OldRows
from gpu_tomoclass.training.grey_memory import grey_memory
from gpu_tomoclass.training.rows import collect_rows
from gpu_tomoclass.training.tables import bank_of_table, with_table
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, Volume, VolumeLike, VoxelSize


@dataclass(frozen=True)
class TrainingResult:
    """A model and what the person who trained it wants to know.

    Attributes
    ----------
    model : Model
    oob_error : float or None
        Share of training pixels that the trees which had not seen them get wrong; None if every tree had seen all.
    counts : dict
        Training pixels per class name.
    importance : dict
        Share of the forest's impurity decrease per family, largest first, summing to 1.
    table : TrainingTable
        The rows that the forest was grown on, in their order.
    seconds_per_plane : dict
        Seconds of computing per family and plane (one thread), for families computed in this run.
    cached_blocks : int
        Feature blocks (one family at one sigma on one plane) that came from the cache.
    notes : list of str
    seconds : dict
        Wall seconds of the steps ``features`` and ``forest``.
    """

    model: Model
    oob_error: float | None
    counts: Mapping[str, int]
    importance: Mapping[str, float]
    table: TrainingTable
    seconds_per_plane: Mapping[str, float] = field(default_factory=dict)
    cached_blocks: int = 0
    notes: Sequence[str] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)


def train(
    volume: Volume,
    annotation: Annotation,
    *,
    bank: FeatureBank,
    also: Sequence[tuple[Volume, Annotation]] = (),
    table: TrainingTable | None = None,
    old: OldRows | None = None,
    keep_rows: bool = False,
    intensity: str = "auto",
    nan: str = "error",
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    cache: FeatureCache | None = None,
    device: Device | str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
    **forest_options: Any,
) -> TrainingResult:
    """Train a model from strokes on some planes of a volume.

    Only annotated planes are read and computed. With a cache, planes that were computed before cost a disk read.

    Parameters
    ----------
    volume : Volume
    annotation : Annotation
        Of the same shape.
    bank : FeatureBank
    also : sequence of (Volume, Annotation)
        More volumes, of the same dtype, whose strokes are pooled with these.
    table : TrainingTable, optional
        Rows that Fiji saved, of the bank's channels; they come behind those of the strokes, as in TWS.
    old : OldRows, optional
        Rows of an earlier model, see :func:`gpu_tomoclass.training.earlier_rows.old_rows`, behind the others; voxels
        then go through its scale.
    keep_rows : bool
        Keep the rows in the model.
    intensity : {"auto", "none"}
        See :class:`gpu_tomoclass.features.intensity.IntensityScale`.
    nan : {"error", "fill", "mask"}
        Non-finite voxels; for ``"mask"`` strokes on them are left out.
    crop, mask : optional
        See :func:`gpu_tomoclass.training.rows.collect_rows`.
    cache : FeatureCache, optional
    device : str or Device
        Where features are computed: ``"auto"``, the first that works, or a name that
        :func:`~gpu_tomoclass.device.choice.choose_device` knows.
    workers : int, optional
        Threads that grow the forest; default one per usable core.
    progress : callable, optional
        Called with (planes done, planes in all).
    **forest_options
        Of :func:`gpu_tomoclass.forest.grow.grow_forest`: engine, n_trees, max_features, max_depth,
        min_samples_leaf, balance, seed.

    Raises
    ------
    ModelError
        If an annotation belongs to another shape, or the table has other channels than the bank.
    DataError
        If a plane cannot be used, fewer than two classes are marked, or classes of the table are not those of the
        strokes.
    """
    device = choose_device(device)
    if old is not None and intensity != "auto":
        raise UsageError("old rows and intensity contradict each other: voxels go through the old model's scale")
    more_notes: list[str] = []
    if old is not None:
        if old.model.bank != bank:
            raise ModelError("the old rows are of other features", do="leave the feature options out")
        more_notes = check_fits(old.model, dtype=volume.dtype, voxel_size=volume.voxel_size, bin=volume.bin)
    rows = collect_rows(
        [(volume, annotation), *also],
        bank=bank,
        intensity=intensity,
        nan=nan,
        crop=crop,
        mask=mask,
        scale=None if old is None else old.model.intensity,
        cache=cache,
        device=device,
        progress=progress,
    )
    more: dict[str, Any] = {"also": rows.sources[1:]} if also else {}
    found = rows.values, rows.labels, rows.classes
    notes = [*more_notes, *rows.notes]
    if table is not None:
        found = with_table(rows, table, notes)
        more["table"] = table.relation
    if old is not None:
        so_far = replace(rows, values=found[0], labels=found[1], classes=found[2])
        found = with_table(so_far, old.table, notes, same_scale=True, bank=bank if old.kept else None)
        more["old_rows"] = old.record
    values, labels, classes = found
    return _finish(
        values,
        labels,
        bank=bank,
        classes=classes,
        scale=rows.scale,
        voxel_size=rows.voxel_size,
        source={**rows.sources[0], **more, "nan": nan, "device": device.name},
        forest_options={"n_jobs": worker_count(workers), **forest_options},
        samples=rows.samples,
        seconds_per_plane=rows.seconds_per_plane,
        cached_blocks=rows.cached_blocks,
        notes=[*_scale_notes(bank, volume), *_gap_notes(bank, volume), *notes],
        feature_seconds=rows.seconds,
        keep_rows=keep_rows,
    )


def train_from_table(
    table: TrainingTable,
    *,
    hessian: str = "auto",
    gabor: str = "fast",
    workers: int | None = None,
    keep_rows: bool = False,
    **forest_options: Any,
) -> TrainingResult:
    """Train a model from training rows that Fiji saved (ARFF).

    The bank (sigmas, membrane settings) is read from the channel names; values enter as Fiji computed them, so the
    model takes voxel values as stored (signed 16 bit: +32768, see :mod:`gpu_tomoclass.features.intensity`). The
    forest is grown on the channels in the table's order, so that the ``weka`` engine grows the trees that Fiji grows
    from this file.

    Parameters
    ----------
    table : TrainingTable
    hessian : {"auto", "current", "legacy"}
        The formula of the Hessian's eigenvalues, see :class:`~gpu_tomoclass.features.FeatureBank`; ``"auto"``: the one
        that the rows follow.
    gabor : {"fast", "exact"}
        How the model computes Gabor, see :class:`~gpu_tomoclass.features.FeatureBank`.
    keep_rows : bool
        Keep the rows in the model.
    workers, **forest_options
        See :func:`train`.

    Raises
    ------
    ModelError
        If a channel is not one of ours (it is named), or the rows are of colour images.
    DataError
        If fewer than two classes have rows.
    """
    bank, order, notes = bank_of_table(table, hessian=hessian, gabor=gabor)
    return _finish(
        table.values,
        table.label,
        bank=bank,
        order=order,
        classes=default_classes(table.class_names),
        scale=IntensityScale(),
        voxel_size=None,
        source={"table": table.relation},
        forest_options={"n_jobs": worker_count(workers), **forest_options},
        notes=[*table.notes, *notes],
        keep_rows=keep_rows,
    )


def _finish(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    bank: FeatureBank,
    order: np.ndarray | None = None,
    classes: Sequence[LabelClass],
    scale: IntensityScale,
    voxel_size: VoxelSize | None,
    source: Mapping[str, Any],
    forest_options: Mapping[str, Any],
    samples: Sequence[np.ndarray] = (),
    seconds_per_plane: Mapping[str, float] | None = None,
    cached_blocks: int = 0,
    notes: Sequence[str] = (),
    feature_seconds: float = 0.0,
    keep_rows: bool = False,
) -> TrainingResult:
    """Grow the forest; ``order`` are the columns of ``values`` in the order of the bank, if they have another one."""
    marked = np.unique(labels)
    used = tuple(c for c in classes if c.value in marked)
    if len(used) < 2:
        raise DataError(f"training needs two classes, only {[c.name for c in used]} have usable pixels")
    started = time.perf_counter()
    columns = np.arange(bank.n_channels) if order is None else order
    names = np.empty(bank.n_channels, dtype=object)
    names[columns] = bank.channels
    trained = grow_forest(values, labels, channels=names.tolist(), **forest_options)
    forest_seconds = time.perf_counter() - started
    counts = {c.name: int((labels == c.value).sum()) for c in used}
    importance = _importance_per_family(trained.feature_importance[columns], bank)
    forest = trained.forest.restricted(columns)
    seen = [sample for sample in samples if len(sample)]
    remembered: dict[str, Any] = {}
    grey = []
    for sample in seen:
        probabilities = probabilities_of(forest, sample)
        of_sample, shares = grey_memory(sample[:, 0], probabilities)
        grey.append(of_sample)
        remembered.setdefault("mean_margins", []).append(mean_lead(probabilities))
        remembered.setdefault("class_shares", []).append(shares)
    model = Model(
        forest=forest,
        bank=bank,
        classes=used,
        intensity=scale,
        voxel_size=voxel_size,
        training={
            "settings": dict(trained.settings),
            "counts": counts,
            "oob_error": trained.oob_error,
            "importance": importance,
            "data_hash": _data_hash(values[:, columns], labels, bank.channels),
            **remembered,
            **source,
        },
        quantiles=np.stack([channel_quantiles(sample) for sample in seen]) if seen else None,
        grey=np.stack(grey) if grey else None,
        rows=np.ascontiguousarray(values[:, columns]) if keep_rows else None,
        row_labels=labels.astype(np.int32) if keep_rows else None,
        versions={
            "gpu_tomoclass": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "scipy", "scikit-learn")},
        },
    )
    return TrainingResult(
        model=model,
        oob_error=trained.oob_error,
        counts=counts,
        importance=importance,
        table=TrainingTable(
            values,
            (1 + np.searchsorted([c.value for c in used], labels)).astype(np.uint8),
            tuple(names.tolist()),
            tuple(c.name for c in used),
            _relation(bank),
        ),
        seconds_per_plane=dict(seconds_per_plane or {}),
        cached_blocks=cached_blocks,
        notes=list(dict.fromkeys([*notes, *trained.notes])),
        seconds={"features": feature_seconds, "forest": forest_seconds},
    )


def _relation(bank: FeatureBank) -> str:
    """Name that TWS would give to rows of this bank; TWS knows none of planes and volumes together."""
    if bank.dimensions == {3}:
        return TWS_3D_RELATION
    if 3 in bank.dimensions:
        return MIXED_RELATION
    return OLD_RELATION if bank.hessian == "legacy" else TWS_RELATION


def _scale_notes(bank: FeatureBank, volume: Volume) -> list[str]:
    """Scales that look beyond the plane are computed by TWS's border rules, and say little."""
    shape, aspect = volume.shape[1:], aspect_of(volume.voxel_size)
    local = [block for block in bank.blocks if block.is_local]
    beyond = [(block.family, block.sigma) for block in local if max(block.reaches(aspect)[1:]) >= min(shape)]
    if not beyond:
        return []
    listed = ", ".join(name if sigma is None else f"{name} {sigma:g}" for name, sigma in beyond)
    return [f"planes of {shape[0]} x {shape[1]} are smaller than these filters, which mostly see the border: {listed}"]


def _gap_notes(bank: FeatureBank, volume: Volume) -> list[str]:
    """Planes of a sub-stack are no neighbours, and families across planes take them for such."""
    made = volume.metadata.get("substack")
    every = made.get("every") if isinstance(made, Mapping) else None
    if not isinstance(every, int) or every <= 1 or 3 not in bank.dimensions:
        return []
    return [
        f"{volume.path} has every {every}th plane of a volume only, and families across planes (weka-3d, z_..) see"
        f" other neighbours there than in the volume: train on the volume itself, with --every {every}"
    ]


def _importance_per_family(of_channel: np.ndarray, bank: FeatureBank) -> dict[str, float]:
    total: dict[str, float] = defaultdict(float)
    for block in bank.blocks:
        total[block.family] += float(of_channel[block.start : block.stop].sum())
    return dict(sorted(total.items(), key=lambda item: -item[1]))


def _data_hash(values: np.ndarray, labels: np.ndarray, channels: Sequence[str]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    digest.update("\n".join(channels).encode())
    digest.update(np.ascontiguousarray(values).tobytes())
    digest.update(np.ascontiguousarray(labels).tobytes())
    return digest.hexdigest()
