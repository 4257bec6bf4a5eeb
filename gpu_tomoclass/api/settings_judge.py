"""Settings judged: forests grown on some strokes and scored on others, and the seconds that a plane takes with them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.api.smoothed_rows import SmoothedRows
from gpu_tomoclass.api.tuning_result import Setting
from gpu_tomoclass.classification import Smoother, sigma_in_voxels
from gpu_tomoclass.device import Device
from gpu_tomoclass.features import FeatureBank
from gpu_tomoclass.forest import DeviceForest, TrainedForest, grow_forest, predict_classes, predict_probabilities
from gpu_tomoclass.labels import Confusion
from gpu_tomoclass.training import TrainingRows, marked_classes, measure_together, slab_to_time
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume

JUDGED = 1500  # marked pixels that are judged where smoothing is tried: hundreds of voxels around each are computed
TIMED_PIXELS = 65536
Fold = tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]


class OutOfTime(Exception):
    def __init__(self, best: Setting | None = None) -> None:
        self.best = best


class SettingsJudge:
    """Grows forests of settings on some rows, and scores them on others."""

    def __init__(
        self, rows: TrainingRows, *, banks: Mapping[str, FeatureBank], sigmas: Sequence[float],
        volumes: Sequence[Volume], collecting: Mapping[str, Any], device: Device, n_trees: int, seed: int,
        n_jobs: int | None, deadline: float | None, progress: Progress | None, max_features: Sequence[int] | None,
    ) -> None:  # fmt: skip
        self.rows, self.banks, self.sigmas, self.device = rows, banks, sigmas, device
        self.growing = partial(grow_forest, n_trees=n_trees, seed=seed, n_jobs=n_jobs)
        self.seed, self.deadline, self.progress = seed, deadline, progress
        channel = {name: i for i, name in enumerate(rows.bank.channels)}
        self.columns = {name: np.array([channel[c] for c in bank.channels]) for name, bank in banks.items()}
        self.classes = marked_classes(rows)
        self.per_split: dict[str, list[int]] = {}
        for name, columns in self.columns.items():
            numbers = [2, round(len(columns) ** 0.5)] if max_features is None else list(max_features)
            self.per_split[name] = list(dict.fromkeys(min(n, len(columns)) for n in numbers))
        self.done = self.n_most = 0
        self.judged = np.ones(len(rows.labels), np.bool_)
        self.around: SmoothedRows | None = None
        if sigmas:
            thinned = np.linspace(0, len(rows.labels) - 1, min(JUDGED, len(rows.labels))).astype(int)
            self.judged[:] = False
            self.judged[thinned] = True
            self.place_of = np.cumsum(self.judged) - 1
            self.around = SmoothedRows.around(
                rows.places[self.judged], volumes, sigmas, scale=rows.scale, **collecting
            )  # fmt: skip

    @property
    def late(self) -> bool:
        return self.deadline is not None and time.monotonic() > self.deadline

    def grow(self, setting: Setting, seen: npt.NDArray[np.intp]) -> TrainedForest:
        if self.late:
            raise OutOfTime
        values = np.ascontiguousarray(self.rows.values[np.ix_(seen, self.columns[setting.features])])
        grown = self.growing(
            values, self.rows.labels[seen], max_features=setting.max_features,
            min_samples_leaf=setting.min_samples_leaf,
        )  # fmt: skip
        self.done += 1
        if self.progress is not None:
            self.progress(min(self.done, self.n_most - 1), self.n_most)
        return grown

    def probabilities(self, trained: TrainedForest, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        features = np.ascontiguousarray(values.T)
        if not self.device.runs_kernels:
            return predict_probabilities(trained.forest, features)
        found = DeviceForest(trained.forest, self.device).probabilities(self.device.array(features))
        return self.device.numpy(found)

    def predicted(
        self, setting: Setting, trained: TrainedForest, held_out: npt.NDArray[np.intp], sigmas: Sequence[float]
    ) -> tuple[npt.NDArray[np.intp], dict[float, npt.NDArray[np.uint8]]]:
        """The held-out rows that are judged, and what each smoothing makes of them."""
        rows = held_out[self.judged[held_out]]
        columns, values = self.columns[setting.features], np.array(trained.class_values, np.uint8)
        found = {0.0: predict_classes(self.probabilities(trained, self.rows.values[np.ix_(rows, columns)]), values)}
        wanted = [s for s in sigmas if s]
        if wanted and self.around is not None:
            which = self.place_of[rows]
            needed = self.around.needed(which)
            near = self.probabilities(trained, self.around.values[np.ix_(needed, columns)])
            found |= {s: predict_classes(self.around.smoothed(which, s, near, needed=needed), values) for s in wanted}
        return rows, found

    def scores(self, setting: Setting, folds: Sequence[Fold], sigmas: Sequence[float]) -> dict[float, list[float]]:
        """Of each smoothing the score in each fold."""
        found: dict[float, list[float]] = {s: [] for s in sigmas}
        for seen, held_out in folds:
            rows, predicted = self.predicted(setting, self.grow(setting, seen), held_out, sigmas)
            for sigma in sigmas:
                confusion = Confusion(self.classes)
                confusion.update(self.rows.labels[rows], predicted[sigma])
                found[sigma].append(float(confusion.mean_dice))
        return found


def seconds_of(judge: SettingsJudge, volume: Volume, rows: TrainingRows, *, nan: str) -> Callable[[Setting], float]:
    """A function that measures the seconds of a plane with a setting, each part once."""
    z = int(rows.places[0, 1])
    known: dict[Any, float] = {}
    device, _ = judge.device.side_by_side()
    n_pixels = volume.shape[1] * volume.shape[2]

    def once(key: Any, measure: Callable[[], float]) -> float:
        if key not in known:
            known[key] = measure()
        return known[key]

    def features(name: str) -> float:
        slab = slab_to_time(judge.banks[name], volume, z, scale=rows.scale, nan=nan)
        return measure_together(judge.banks[name], judge.banks[name].families, slab, device=judge.device)

    def forest(setting: Setting) -> float:
        columns = judge.columns[setting.features]
        grown = judge.growing(
            np.ascontiguousarray(rows.values[:, columns]), rows.labels, max_features=setting.max_features,
            min_samples_leaf=setting.min_samples_leaf,
        )  # fmt: skip
        sample = np.concatenate(list(rows.samples))[:, columns]
        sample = np.ascontiguousarray(sample[:: -(-len(sample) // TIMED_PIXELS)].T)
        walk = DeviceForest(grown.forest, device).probabilities if device.runs_kernels else None
        found = []
        for _ in range(3):
            began = time.perf_counter()
            walk(device.array(sample)) if walk is not None else predict_probabilities(grown.forest, sample)
            device.synchronize()
            found.append(time.perf_counter() - began)
        return min(found) * n_pixels / sample.shape[1]

    def smoothing(sigma: float) -> float:
        if not sigma:
            return 0.0
        smoother = Smoother(sigma_in_voxels(sigma, volume.voxel_size))
        shape = (len(judge.classes), *volume.shape[1:])
        plane = np.random.default_rng(0).random(shape, dtype=np.float32)
        n = 2 * smoother.reach + 1
        began = time.perf_counter()
        smoother.smoothed(0, n, depth=n, compute=lambda first, last: [plane] * (last - first))
        return (time.perf_counter() - began) / n

    def seconds(setting: Setting) -> float:
        return (
            once(setting.features, lambda: features(setting.features))
            + once(dataclasses.replace(setting, smooth=0.0), lambda: forest(setting))
            + once(("smooth", setting.smooth), lambda: smoothing(setting.smooth))
        )

    return seconds
