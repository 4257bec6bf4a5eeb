"""From volumes and strokes, whatever they are given as, to a model and to how good it will be."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any

from gpu_tomoclass.annotations import (
    Annotation,
    TrainingTable,
    check_arff_target,
    load_annotation,
    load_annotations,
    load_arff,
    pooled_tables,
    save_arff,
)
from gpu_tomoclass.device import Device, worker_count
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureBank, FeatureCache, make_bank
from gpu_tomoclass.model import Model, TrainingReport, load_model
from gpu_tomoclass.training import (
    CrossValidation,
    Selection,
    TrainingResult,
    TrainingRows,
    collect_rows,
    measure_costs,
    measure_together,
    old_rows,
    select_families,
    slab_to_time,
)
from gpu_tomoclass.training import cross_validate as validate_rows
from gpu_tomoclass.training import train as train_rows
from gpu_tomoclass.training import train_from_table as train_table
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, Planes, Volume, VolumeLike, is_array, open_volume

StrPath = str | PathLike[str]
Table = TrainingTable | StrPath
Marks = StrPath | Planes | Volume | Annotation | Sequence[StrPath]


def train(
    volume: VolumeLike,
    marks: Marks,
    *,
    features: str | Sequence[str] | FeatureBank = "paper",
    also: Sequence[tuple[VolumeLike, Marks]] = (),
    rows: Table | Sequence[Table] | None = None,
    old: Model | StrPath | None = None,
    old_weight: float = 1.0,
    keep_rows: bool = False,
    every: int | None = None,
    start: int | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    label_axes: str | None = None,
    skip_bad_rois: bool = False,
    intensity: str = "auto",
    nan: str = "error",
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    engine: str = "auto",
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    balance: bool = False,
    seed: int = 42,
    cache: FeatureCache | StrPath | None = None,
    save_rows: StrPath | None = None,
    overwrite: bool = False,
    device: Device | str = "auto",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Model:
    """Train a model from strokes on some planes of a volume; only these planes are read and computed.

    Parameters
    ----------
    volume : Volume, path or array
        What :func:`open_volume` takes.
    marks : path, paths, array or Annotation
        ImageJ ROIs (``.zip``, ``.roi``) or a label image: 0 unlabelled, 1, 2, .. the classes; several files are merged.
    features : str, sequence of str or FeatureBank
        ``"paper"``, ``"weka-default"``, ``"all"``, family names, or a bank with its sigmas.
    also : sequence of (volume, marks)
        More volumes of the same type of voxels, whose strokes are pooled with these.
    rows : TrainingTable, path or sequence of them, optional
        Training rows that Fiji saved (ARFF), of the same features, to be pooled with the strokes.
    old : Model or path, optional
        A model that kept its rows (or whose rows ``rows`` gives), adapted to this volume if that differs: its rows are
        pooled with the strokes. Features and grey scale are those of this model.
    old_weight : float
        What one of its rows counts beside a new one: more than 0, at most 1.
    keep_rows : bool
        Keep the training rows in the model, to be pooled with strokes on other volumes.
    every, start : int, optional
        The planes of ``marks`` are every n-th of the volume, see :func:`load_annotation`; the model remembers it.
    class_names : sequence of str or dict, optional
        Names of the classes 1, 2, ..; or value -> name.
    label_axes : str, optional
        Axes of label images whose file says them wrong: ``"xyz"``.
    skip_bad_rois : bool
        Leave out ROIs that cannot be used instead of refusing the file.
    intensity : {"auto", "none"}
        Whether floats are scaled and signed 16 bit is shifted as ImageJ does, or every value taken as stored.
    nan : {"error", "fill", "mask"}
        Voxels that are not finite.
    crop : str, optional
        ``"z0:z1,y0:y1,x0:x1"``: strokes outside of this box are left out; features see what is around.
    mask : Volume, path or array, optional
        Of the volume's shape; strokes where it is 0 are left out.
    engine : {"auto", "weka", "sklearn", "cuml"}
        Who grows the forest; ``"weka"``, the trees that Fiji grows, where that works.
    n_trees, max_features, max_depth, min_samples_leaf, balance, seed
        Of the forest: trees, features tried per split, depth (default unlimited), pixels per leaf, whether every class
        has the same weight, random seed.
    cache : FeatureCache or path, optional
        Keeps computed features, so that training again with more strokes takes seconds.
    save_rows : path, optional
        Also write the training rows (``.arff``), which Fiji loads.
    overwrite : bool
        Whether ``save_rows`` may replace a file.
    device : str or Device
        Where features are computed; ``"auto"`` is the first that works.
    workers : int, optional
        Threads that grow the forest; default one per core.
    progress : callable, optional
        Called with (planes done, planes in all).

    Returns
    -------
    Model
        ``model.report`` says what was noted and how long it took.

    Raises
    ------
    UsageError
        If something asked for is not possible.
    DataError
        If a file cannot be used or fewer than two classes are marked.
    ModelError
        If marks and volume do not fit each other.
    """
    if save_rows is not None:
        check_arff_target(save_rows, overwrite=overwrite)
    reading = {"every": every, "start": start, "axes": label_axes, "class_names": class_names}
    table = None if rows is None else _pooled(rows)
    bank, earlier = make_bank(features), None
    if old is not None:
        model = load_model(old) if isinstance(old, (str, PathLike)) else old
        if features != "paper" and bank != model.bank:
            raise UsageError("features differ from those of the old model", do="leave features out")
        bank, earlier, table = model.bank, old_rows(model, weight=old_weight, table=table), None
    partial = table is not None or earlier is not None
    pairs = marked_volumes([(volume, marks), *also], skip_bad_rois=skip_bad_rois, partial=partial, **reading)
    (first, annotation), *more = pairs
    result = train_rows(
        first,
        annotation,
        bank=bank,
        also=more,
        table=table,
        old=earlier,
        keep_rows=keep_rows,
        intensity=intensity,
        nan=nan,
        crop=crop,
        mask=mask,
        cache=opened_cache(cache),
        device=device,
        workers=workers,
        progress=progress,
        engine=engine,
        n_trees=n_trees,
        max_features=max_features,
        max_depth=max_depth,
        min_samples_leaf=min_samples_leaf,
        balance=balance,
        seed=seed,
    )
    if save_rows is not None:
        save_arff(save_rows, result.table, exact=True, overwrite=overwrite)
    model = reported(result)
    if every is None and start is None:
        return model
    return dataclasses.replace(model, training={**model.training, "substack": {"every": every, "start": start}})


def train_from_table(
    table: Table | Sequence[Table],
    *,
    hessian: str = "auto",
    gabor: str = "fast",
    engine: str = "auto",
    n_trees: int = 200,
    max_features: int = 2,
    max_depth: int | None = None,
    min_samples_leaf: int = 1,
    balance: bool = False,
    seed: int = 42,
    keep_rows: bool = False,
    save_rows: StrPath | None = None,
    overwrite: bool = False,
    workers: int | None = None,
) -> Model:
    """Train a model from training rows that Fiji saved: a table, or the path of its ARFF file.

    The features are read from the names of the channels; values enter as Fiji computed them.

    Parameters
    ----------
    table : TrainingTable, path or sequence of them
        Several, of the same channels and classes, are pooled.
    hessian : {"auto", "current", "legacy"}
        The formula of the Hessian's eigenvalues, see :class:`FeatureBank`; ``"auto"``: the one that the rows follow.
    gabor : {"fast", "exact"}
        How the model computes Gabor, see :class:`FeatureBank`.
    engine, n_trees, max_features, max_depth, min_samples_leaf, balance, seed, keep_rows, save_rows, overwrite
    workers
        See :func:`train`.

    Raises
    ------
    UsageError
        If there is no such file.
    ModelError
        If a channel is not one of ours; it is named.
    DataError
        If the file is damaged, or fewer than two classes have rows.
    """
    if save_rows is not None:
        check_arff_target(save_rows, overwrite=overwrite)
    result = train_table(_pooled(table), hessian=hessian, gabor=gabor, engine=engine, n_trees=n_trees,
                         max_features=max_features, max_depth=max_depth, min_samples_leaf=min_samples_leaf,
                         balance=balance, seed=seed, workers=workers, keep_rows=keep_rows)  # fmt: skip
    if save_rows is not None:
        save_arff(save_rows, result.table, exact=True, overwrite=overwrite)
    return reported(result)


def cross_validate(
    volume: VolumeLike,
    marks: Marks,
    *,
    features: str | Sequence[str] | FeatureBank = "paper",
    also: Sequence[tuple[VolumeLike, Marks]] = (),
    grouping: str = "stroke",
    n_folds: int | None = None,
    importance: bool = False,
    every: int | None = None,
    start: int | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    label_axes: str | None = None,
    skip_bad_rois: bool = False,
    intensity: str = "auto",
    nan: str = "error",
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    seed: int = 42,
    cache: FeatureCache | StrPath | None = None,
    device: Device | str = "auto",
    workers: int | None = None,
    features_progress: Progress | None = None,
    progress: Progress | None = None,
    **forest_options: Any,
) -> CrossValidation:
    """Say how good a model of these strokes will be: each stroke is classified by a forest that did not see it.

    Parameters
    ----------
    volume, marks, features, also, every, start, class_names, label_axes, skip_bad_rois, intensity, nan, crop, mask
        See :func:`train`.
    grouping : {"stroke", "plane", "volume"}
        What is held out at a time.
    n_folds : int, optional
        The groups are dealt to so many folds; default 5, or fewer where there are fewer groups.
    importance : bool
        Also measure how much each family of features matters.
    seed : int
        Of the folds and the forests.
    cache, device, workers
        See :func:`train`.
    features_progress : callable, optional
        Called with (planes done, planes in all) while features are computed.
    progress : callable, optional
        Called with (forests done, forests in all) after that.
    **forest_options
        engine, n_trees, max_features, max_depth, min_samples_leaf, balance.

    Raises
    ------
    DataError
        If there are too few groups.
    """
    rows, _ = _rows(
        [(volume, marks), *also], bank=make_bank(features), cache=cache, intensity=intensity, nan=nan, crop=crop,
        mask=mask, device=device, progress=features_progress, skip_bad_rois=skip_bad_rois, every=every, start=start,
        axes=label_axes, class_names=class_names,
    )  # fmt: skip
    return validate_rows(rows, grouping=grouping, n_folds=n_folds, importance=importance, device=device, seed=seed,
                         progress=progress, **{"n_jobs": worker_count(workers), **forest_options})  # fmt: skip


def select_features(
    volume: VolumeLike,
    marks: Marks,
    *,
    features: str | Sequence[str] | FeatureBank = "paper",
    also: Sequence[tuple[VolumeLike, Marks]] = (),
    epsilon: float = 0.002,
    grouping: str = "stroke",
    n_folds: int | None = None,
    every: int | None = None,
    start: int | None = None,
    class_names: Sequence[str] | Mapping[int, str] | None = None,
    label_axes: str | None = None,
    skip_bad_rois: bool = False,
    intensity: str = "auto",
    nan: str = "error",
    crop: Crop | None = None,
    mask: VolumeLike | None = None,
    seed: int = 42,
    cache: FeatureCache | StrPath | None = None,
    device: Device | str = "auto",
    workers: int | None = None,
    features_progress: Progress | None = None,
    progress: Progress | None = None,
    **forest_options: Any,
) -> Selection:
    """Find the cheapest families of features with which a model of these strokes is as good as with all of them.

    Families are left out, the most expensive first, while the cross-validated score stays within ``epsilon`` of that of
    all; costs are measured on the first marked plane, on this device.

    Parameters
    ----------
    volume, marks, features, also, every, start, class_names, label_axes, skip_bad_rois, intensity, nan, crop, mask
        See :func:`train`; ``features`` are those to choose from.
    epsilon : float
        So much less mean Dice coefficient than with all families is good enough.
    grouping, n_folds, seed, features_progress
        See :func:`cross_validate`.
    cache, device, workers
        See :func:`train`.
    progress : callable, optional
        Called with (sets of families tried, the most that may be tried) after the features.
    **forest_options
        engine, n_trees, max_features, max_depth, min_samples_leaf, balance.

    Returns
    -------
    Selection
        ``selection.chosen.families`` is what ``features=`` of :func:`train` takes.

    Raises
    ------
    DataError
        If there are too few groups, or only one family.
    UsageError
        If epsilon is negative.
    """
    rows, (first, annotation) = _rows(
        [(volume, marks), *also], bank=make_bank(features), cache=cache, intensity=intensity, nan=nan, crop=crop,
        mask=mask, device=device, progress=features_progress, skip_bad_rois=skip_bad_rois, every=every, start=start,
        axes=label_axes, class_names=class_names,
    )  # fmt: skip
    slab = slab_to_time(rows.bank, first, int(annotation.z[0]), scale=rows.scale, nan=nan)
    found = select_families(
        rows, measure_costs(rows.bank, slab, device=device), epsilon=epsilon, grouping=grouping, n_folds=n_folds,
        device=device, seed=seed, progress=progress, **{"n_jobs": worker_count(workers), **forest_options},
    )  # fmt: skip
    together = {
        name: measure_together(rows.bank, candidate.families, slab, device=device)
        for name, candidate in (("full", found.full), ("chosen", found.chosen))
    }
    return dataclasses.replace(found, seconds_together=together)


def _rows(
    pairs: Sequence[tuple[VolumeLike, Marks]],
    *,
    bank: FeatureBank,
    cache: FeatureCache | StrPath | None,
    intensity: str,
    nan: str,
    crop: Crop | None,
    mask: VolumeLike | None,
    device: Device | str,
    progress: Progress | None,
    **reading: Any,
) -> tuple[TrainingRows, tuple[Volume, Annotation]]:
    """Training rows of marked volumes, and the first of these."""
    marked = marked_volumes(pairs, **reading)
    rows = collect_rows(marked, bank=bank, intensity=intensity, nan=nan, crop=crop, mask=mask,
                        cache=opened_cache(cache), device=device, progress=progress)  # fmt: skip
    return rows, marked[0]


def marked_volumes(
    pairs: Sequence[tuple[VolumeLike, Marks]], *, partial: bool = False, **reading: Any
) -> list[tuple[Volume, Annotation]]:
    """Open volumes with their annotations; a single one must have two classes unless ``partial``, several may share
    them.

    Parameters
    ----------
    pairs : sequence of (volume, marks)
    **reading
        Of :func:`gpu_tomoclass.annotations.load_annotation`.
    """
    found = []
    for source, marks in pairs:
        volume = open_volume(source)
        if isinstance(marks, Annotation):
            found.append((volume, marks))
            continue
        files = [marks] if isinstance(marks, (str, PathLike, Volume)) or is_array(marks) else list(marks)  # type: ignore[arg-type]
        if not files:
            raise UsageError("there are no marks", where=volume.path, do="give a label image or ImageJ ROIs")
        if len(files) == 1:
            alone = len(pairs) == 1 and not partial
            annotation = load_annotation(
                files[0], volume_shape=volume.full_shape, bin=volume.bin, partial=not alone, **reading
            )
        else:
            annotation = load_annotations(
                files, volume_shape=volume.full_shape, bin=volume.bin, partial=partial, **reading
            )
        found.append((volume, annotation))
    return found


def reported(result: TrainingResult) -> Model:
    """The model of a training, with its report."""
    report = TrainingReport(
        notes=tuple(result.notes),
        seconds=result.seconds,
        seconds_per_plane=result.seconds_per_plane,
        cached_blocks=result.cached_blocks,
    )
    return dataclasses.replace(result.model, report=report)


def opened_cache(cache: FeatureCache | StrPath | None) -> FeatureCache | None:
    """The cache, opened if it is a folder."""
    return FeatureCache(cache) if isinstance(cache, (str, PathLike)) else cache


def _pooled(tables: Table | Sequence[Table]) -> TrainingTable:
    given = [tables] if isinstance(tables, (TrainingTable, str, PathLike)) else tables
    if not given:
        raise UsageError("there are no training rows", do="give a table or the path of an ARFF file")
    return pooled_tables([table if isinstance(table, TrainingTable) else load_arff(table) for table in given])
