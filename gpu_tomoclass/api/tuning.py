"""Choose settings by held-out strokes, and say honestly what the choice is worth.

Feature set, features tried per split, pixels per leaf and smoothing are chosen one after the other. A setting is
changed only where that helps by more than the standard error over the folds. What was chosen among many looks too good
on the pixels that chose it, so the promise is of another kind: all of the choosing is done again without a fifth of the
strokes, and judged on these (nested cross-validation).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.api.learning import Marks, StrPath, marked_volumes, opened_cache
from gpu_tomoclass.api.settings_judge import Fold, OutOfTime, SettingsJudge, seconds_of
from gpu_tomoclass.api.tuning_result import Promise, Setting, Tried, Tuning, standard_error
from gpu_tomoclass.classification import sigma_in_voxels
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureBank, FeatureCache
from gpu_tomoclass.forest import TrainedForest
from gpu_tomoclass.labels import Confusion
from gpu_tomoclass.training import collect_rows, make_folds
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Crop, Volume, VolumeLike

FEATURES = ("paper", "weka-default", "paper+z")
LEAVES = (1, 4)
SMOOTH_VOXELS = (1.0, 1.5)
INNER_FOLDS = 3


def tune(
    volume: VolumeLike,
    marks: Marks,
    *,
    features: Sequence[str] = FEATURES,
    max_features: Sequence[int] | None = None,
    min_samples_leaf: Sequence[int] = LEAVES,
    smooth: Sequence[float] | None = None,
    n_trees: int = 100,
    minutes: float | None = None,
    grouping: str = "stroke",
    n_folds: int | None = None,
    also: Sequence[tuple[VolumeLike, Marks]] = (),
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
    progress: Progress | None = None,
) -> Tuning:
    """Choose features, forest and smoothing by held-out strokes.

    Parameters
    ----------
    volume, marks, also, every, start, class_names, label_axes, skip_bad_rois, intensity, nan, crop, mask, cache, device
        See :func:`train`.
    features : sequence of str
        Sets of features, or families with commas; the first is what is begun with.
    max_features : sequence of int, optional
        Features tried per split; default 2 and the square root of the number of channels.
    min_samples_leaf : sequence of int
        Pixels per leaf; other than 1 is scikit-learn's forest, not Fiji's.
    smooth : sequence of float, optional
        Sigmas in nm; default 1 and 1.5 voxels, where the size of a voxel is known. No smoothing is always tried.
    n_trees : int
        Of the forests that judge; train with more.
    minutes : float, optional
        Begin nothing new afterwards. The recommendation comes first, then fold after fold of the promise.
    grouping, n_folds
        See :func:`cross_validate`.
    seed : int
        Of folds and forests.
    workers : int, optional
        Threads that grow forests; default one per core.
    progress : callable, optional
        Called with (forests done, the most that may be grown).

    Raises
    ------
    UsageError
        If there is nothing to choose from, or a number makes no sense.
    DataError
        If there are too few strokes to hold some out twice.
    """
    if not features or not min_samples_leaf or n_trees < 1 or (minutes is not None and minutes <= 0):
        raise UsageError(
            "there is nothing to choose from", do="give features, pixels per leaf, trees and minutes above 0"
        )
    began = time.monotonic()
    reading: dict[str, Any] = {"every": every, "start": start, "axes": label_axes, "class_names": class_names}
    pairs = marked_volumes([(volume, marks), *also], skip_bad_rois=skip_bad_rois, **reading)
    chosen_device = choose_device(device)
    banks = {name: FeatureBank.create(name.split(",")) for name in features}
    union = FeatureBank.create([part for name in features for part in name.split(",")])
    collecting: dict[str, Any] = {"bank": union, "nan": nan, "cache": opened_cache(cache), "device": chosen_device}
    rows = collect_rows(pairs, intensity=intensity, crop=crop, mask=mask, **collecting)
    volumes = [v for v, _ in pairs]
    notes = list(rows.notes)
    sigmas = _sigmas(smooth, volumes, notes)
    folds = make_folds(rows, rows.groups(grouping), grouping=grouping, n_folds=n_folds, seed=seed)
    judge = SettingsJudge(
        rows, banks=banks, sigmas=sigmas, volumes=volumes, collecting=collecting, device=chosen_device, n_trees=n_trees,
        seed=seed, n_jobs=workers, deadline=None if minutes is None else began + 60 * minutes, progress=progress,
        max_features=max_features,
    )  # fmt: skip
    n_settings = len(banks) + len(judge.per_split[features[0]]) - 1 + len(min_samples_leaf) - 1
    judge.n_most = n_settings * len(folds) + len(folds) * (n_settings * INNER_FOLDS + 2)
    plain = Setting(features[0], judge.per_split[features[0]][0], min_samples_leaf[0])
    scores: dict[Setting, list[float]] = {}
    try:
        chosen = _choose(judge, plain, folds, leaves=min_samples_leaf, scores=scores)
    except OutOfTime as late:
        if not late.best:
            raise UsageError(f"{minutes:g} minutes are not enough to try one setting", do="give more") from None
        chosen = late.best
        notes.append("the time was over before all settings were tried")
    promise = None if judge.late else _promise(judge, plain, folds, grouping, min_samples_leaf, notes)
    if promise is None:
        notes.append("there was no time to judge the choice on strokes that it has not seen: it promises nothing")
    seconds = seconds_of(judge, volumes[0], rows, nan=nan)
    tried = [Tried(s, found, seconds(s)) for s, found in scores.items()]
    if progress is not None:
        progress(judge.n_most, judge.n_most)
    return Tuning(plain, chosen, tried, promise, list(dict.fromkeys(notes)))


def _sigmas(asked: Sequence[float] | None, volumes: Sequence[Volume], notes: list[str]) -> tuple[float, ...]:
    size = volumes[0].voxel_size
    if asked is None:
        if size is None:
            notes.append("smoothing was not tried: the volume does not say how large a voxel is (--voxel-size)")
            return ()
        asked = [n * size[2] for n in SMOOTH_VOXELS]
    sigmas = tuple(sorted(s for s in asked if s != 0))
    for volume in volumes:
        for sigma in sigmas:
            sigma_in_voxels(sigma, volume.voxel_size)
    return sigmas


def _choose(
    judge: SettingsJudge,
    plain: Setting,
    folds: Sequence[Fold],
    *,
    leaves: Sequence[int],
    scores: dict[Setting, list[float]],
) -> Setting:
    """One factor after the other; what is tried is added to ``scores``."""
    best: Setting | None = None
    sigmas = (0.0, *judge.sigmas)

    def consider(candidates: Sequence[Setting]) -> None:
        nonlocal best
        assert best is not None
        for candidate in candidates:
            if candidate not in scores:
                try:
                    for sigma, found in judge.scores(candidate, folds, sigmas).items():
                        scores[dataclasses.replace(candidate, smooth=sigma)] = found
                except OutOfTime as late:
                    late.best = best
                    raise
        best = _surely_best(best, candidates, scores)

    for sigma, found in judge.scores(plain, folds, sigmas).items():
        scores[dataclasses.replace(plain, smooth=sigma)] = found
    best = plain
    consider([Setting(name, judge.per_split[name][0], leaves[0]) for name in judge.banks])
    consider([dataclasses.replace(best, max_features=n) for n in judge.per_split[best.features]])
    consider([dataclasses.replace(best, min_samples_leaf=n) for n in leaves])
    return _surely_best(best, [dataclasses.replace(best, smooth=s) for s in sigmas], scores)


def _surely_best(now: Setting, candidates: Sequence[Setting], scores: Mapping[Setting, Sequence[float]]) -> Setting:
    """The best of those that are better than what is there by more than the standard error; else what is there."""
    best, gain = now, 0.0
    for candidate in candidates:
        gains = np.subtract(scores[candidate], scores[now])
        error = standard_error(gains.tolist())
        if gains.mean() > gain and not gains.mean() <= error:
            best, gain = candidate, float(gains.mean())
    return best


def _promise(
    judge: SettingsJudge, plain: Setting, folds: Sequence[Fold], grouping: str,
    leaves: Sequence[int], notes: list[str],
) -> Promise | None:  # fmt: skip
    """Choose without each fold, and judge on it."""
    rows = judge.rows
    chosen, without = Confusion(judge.classes), Confusion(judge.classes)
    gains: list[float] = []
    settings: list[Setting] = []
    for number, (seen, held_out) in enumerate(folds):
        part = dataclasses.replace(rows, values=rows.values[seen], labels=rows.labels[seen], places=rows.places[seen])
        groups = part.groups(grouping)
        n_inner = max(2, min(INNER_FOLDS, np.unique(groups).size))
        try:
            inner = make_folds(part, groups, grouping=grouping, n_folds=n_inner, seed=judge.seed + 1 + number)
        except DataError as error:
            notes.append(f"fold {number + 1} of the promise was left out: {error.what}")
            continue
        try:
            setting = _choose(judge, plain, [(seen[a], seen[b]) for a, b in inner], leaves=leaves, scores={})
            judged = []
            forests: dict[Setting, TrainedForest] = {}  # settings often differ by nothing, or by smoothing alone
            for tried in (setting, plain):
                unsmoothed = dataclasses.replace(tried, smooth=0.0)
                if unsmoothed not in forests:
                    forests[unsmoothed] = judge.grow(unsmoothed, seen)
                which, found = judge.predicted(tried, forests[unsmoothed], held_out, (0.0, tried.smooth))
                of_fold = Confusion(judge.classes)
                of_fold.update(rows.labels[which], found[tried.smooth])
                judged.append((which, found[tried.smooth], float(of_fold.mean_dice)))
        except OutOfTime:
            notes.append(f"there was time for {len(gains)} of {len(folds)} folds of the promise")
            break
        for confusion, (which, labels, _) in zip((chosen, without), judged, strict=True):
            confusion.update(rows.labels[which], labels)
        gains.append(judged[0][2] - judged[1][2])
        settings.append(setting)
    return Promise(len(gains), chosen, without, gains, settings) if gains else None
