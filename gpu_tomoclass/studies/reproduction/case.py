"""One tomogram with its truth, classified in every way that is compared, and judged.

=================  ===============================================================================================
``otsu``           thresholds of grey by multi-Otsu
``best``           the best thresholds of grey that there can be, chosen with the truth
``nad_otsu``       the same two after nonlinear anisotropic diffusion (NAD)
``nad_best``
``strokes``        a forest taught by the first strokes alone
``corrected``      the same after rounds of corrections
=================  ===============================================================================================
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import (
    Device,
    FeatureBank,
    FeatureCache,
    LabelClass,
    Volume,
    classify,
    create_volume,
    open_volume,
    save_model,
)
from gpu_tomoclass.baseline import (
    GreyHistogram,
    NadParameters,
    nad_planes,
    otsu_thresholds,
    threshold_labels,
    volume_histogram,
)
from gpu_tomoclass.labels import as_labels
from gpu_tomoclass.outputs import check_space
from gpu_tomoclass.studies.reproduction.operator import Habits, Lesson, teach
from gpu_tomoclass.studies.reproduction.scores import Scores, best_thresholds, class_histograms

METHODS = {
    "otsu": "thresholds (Otsu)",
    "best": "best possible thresholds",
    "nad_otsu": "NAD, thresholds (Otsu)",
    "nad_best": "NAD, best possible thresholds",
    "strokes": "forest, first strokes",
    "corrected": "forest, corrected",
}
SLAB_PIXELS = 2**21  # denoised at once: 80 MB on the device
Plane = npt.NDArray[np.uint8]
Step = Callable[[], None]


@dataclass(frozen=True)
class Case:
    """One volume of the study.

    Attributes
    ----------
    name : str
        Of its files.
    title : str
        For people.
    volume, truth : str
        Paths.
    classes : tuple of LabelClass
        Values 1..k, from dark to bright.
    painted : tuple of int
        Planes on which the operator paints.
    judged : tuple of int
        Planes that are scored.
    noise_area : (x, y)
        A pixel amid noise, for NAD.
    halo : (solid, background) or None
        Label values of the two classes whose border may have a halo.
    lowest : int
        Value of the first class in the truth's file: 0 or 1.
    """

    name: str
    title: str
    volume: str
    truth: str
    classes: tuple[LabelClass, ...]
    painted: tuple[int, ...]
    judged: tuple[int, ...]
    noise_area: tuple[int, int]
    halo: tuple[int, int] | None = None
    lowest: int = 1


@dataclass(frozen=True)
class Settings:
    """Settings for the work on cases."""

    device: Device
    habits: Habits = field(default_factory=Habits)
    nad: dict[str, Any] = field(default_factory=dict)
    families: str | Sequence[str] = "paper"
    seed: int = 0

    def bank(self) -> FeatureBank:
        return FeatureBank.create(self.families)


@dataclass(frozen=True)
class Method:
    """A way of classifying and what came of it; ``labels`` gives a plane's label values (ny, nx)."""

    name: str
    labels: Callable[[int], Plane]
    scores: Scores
    thresholds: tuple[float, ...] = ()
    path: str | None = None


@dataclass(frozen=True)
class Greys:
    """A histogram of grey values: all voxels, and each class by the truth on the judged planes."""

    edges: npt.NDArray[np.float64]
    counts: npt.NDArray[np.int64]
    of_class: npt.NDArray[np.int64]


@dataclass(frozen=True)
class CaseResult:
    """All ways of classifying a case.

    Attributes
    ----------
    case : Case
    volume, denoised : Volume
        Open for as long as the stack that `study_case` was given.
    truth : callable
        Label values of a plane, (ny, nx).
    greys : dict
        ``"raw"`` and ``"nad"``.
    methods : dict
        By the names of `METHODS`.
    lesson : Lesson
    seconds : dict
        Of the steps.
    """

    case: Case
    volume: Volume
    denoised: Volume
    truth: Callable[[int], Plane]
    greys: dict[str, Greys]
    methods: dict[str, Method]
    lesson: Lesson
    seconds: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        methods = {
            name: {"title": METHODS[name], "thresholds": list(m.thresholds), **m.scores.to_dict()}
            for name, m in self.methods.items()
        }
        looks = [{"pixels": look.pixels, "accuracy_on_painted_planes": look.accuracy} for look in self.lesson.looks]
        return {
            "title": self.case.title,
            "shape": list(self.volume.shape),
            "painted_planes": list(self.case.painted),
            "judged_planes": list(self.case.judged),
            "methods": methods,
            "operator": asdict(self.lesson.habits),
            "looks": looks,
            "seconds": {k: round(v, 2) for k, v in self.seconds.items()},
        }


def outputs(folder: Path, name: str) -> dict[str, Path]:
    """The files that `study_case` writes."""
    made = {
        "nad": "nad",
        "nad_otsu": "nad_otsu",
        "strokes": "first_strokes",
        "corrected": "labels",
        "painted": "strokes",
    }
    return {key: folder / f"{name}_{word}.tif" for key, word in made.items()} | {"model": folder / f"{name}.tcm"}


def n_steps(n_planes: int, habits: Habits) -> int:
    """Number of times that `study_case` calls ``step``."""
    return 3 * n_planes + habits.rounds + 1


def study_case(
    case: Case,
    *,
    folder: Path,
    settings: Settings,
    stack: ExitStack,
    overwrite: bool = False,
    step: Step = lambda: None,
) -> CaseResult:
    """Classify a case in every way and judge it.

    Parameters
    ----------
    case : Case
    folder : path
        Gets the `outputs`.
    settings : Settings
    stack : ExitStack
        Closes the volumes of the result.
    overwrite : bool
    step : callable, optional
        Called `n_steps` times.
    """
    files = outputs(folder, case.name)
    volume, stored = stack.enter_context(open_volume(case.volume)), stack.enter_context(open_volume(case.truth))
    bank = settings.bank()
    features = 4 * bank.n_channels * int(np.prod(volume.shape[1:])) * len(case.painted)
    check_space(folder / "report.html", 8 * int(np.prod(volume.shape)) + features)
    seconds: dict[str, float] = {}

    def truth(z: int) -> Plane:
        return as_labels(stored.plane(z), what=f"{case.truth}: plane {z}") + np.uint8(1 - case.lowest)

    began = time.perf_counter()
    _denoise(volume, files["nad"], case=case, settings=settings, overwrite=overwrite, step=step)
    denoised = stack.enter_context(open_volume(files["nad"]))
    seconds["NAD"] = time.perf_counter() - began

    began = time.perf_counter()
    greys = {"raw": _greys(volume, truth, case), "nad": _greys(denoised, truth, case)}
    thresholds: dict[str, npt.NDArray[np.float64]] = {}
    for kind, prefix in (("raw", ""), ("nad", "nad_")):
        grey = greys[kind]
        thresholds[f"{prefix}otsu"] = otsu_thresholds(GreyHistogram(grey.counts, grey.edges), levels=len(case.classes))
        thresholds[f"{prefix}best"] = best_thresholds(grey.of_class, grey.edges)
    _write_labels(
        files["nad_otsu"], volume, case.classes, overwrite=overwrite,
        planes=(threshold_labels(denoised.plane(z), thresholds["nad_otsu"]) for z in range(volume.shape[0])),
    )  # fmt: skip
    seconds["thresholds"] = time.perf_counter() - began

    # The cache lies beside the results: temporary folders of the system are often small.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".features-") as scratch:
        lesson = teach(
            volume, truth, planes=case.painted, classes=case.classes, habits=settings.habits, bank=bank,
            cache=FeatureCache(scratch), device=settings.device, seed=settings.seed, step=step,
        )  # fmt: skip
    seconds["strokes, training, looks"] = lesson.seconds
    empty = np.zeros(volume.shape[1:], np.uint8)
    _write_labels(files["painted"], volume, case.classes, overwrite=overwrite,
                  planes=(lesson.strokes.get(z, empty) for z in range(volume.shape[0])))  # fmt: skip
    save_model(lesson.last, files["model"], overwrite=overwrite)
    began = time.perf_counter()
    for key, model in (("strokes", lesson.first), ("corrected", lesson.last)):
        classify(volume, model, output=files[key], device=settings.device, overwrite=overwrite, restart=True,
                 progress=_as_steps(step))  # fmt: skip
    seconds["classification, twice"] = time.perf_counter() - began

    began = time.perf_counter()
    painted = {"strokes": lesson.first_strokes, "corrected": lesson.strokes}
    methods = {}
    for name in METHODS:
        if name in thresholds:
            source = denoised if name.startswith("nad") else volume
            labels, path = _by_thresholds(source, thresholds[name]), files.get(name)
        else:
            found = stack.enter_context(open_volume(files[name]))
            labels, path = found.plane, files[name]
        scores = Scores(case.classes, halo=case.halo)
        for z in case.judged:
            scores.update(truth(z), labels(z), painted=painted.get(name, {}).get(z))
        cuts = tuple(float(t) for t in thresholds.get(name, ()))
        methods[name] = Method(name, labels, scores, cuts, None if path is None else str(path))
    seconds["scores"] = time.perf_counter() - began
    return CaseResult(case, volume, denoised, truth, greys, methods, lesson, seconds)


def _denoise(volume: Volume, path: Path, *, case: Case, settings: Settings, overwrite: bool, step: Step) -> None:
    parameters = replace(NadParameters(noise_area=case.noise_area), **settings.nad)
    how = {"nad": {"noise_area": list(case.noise_area)}}
    with create_volume(
        path, shape=volume.shape, dtype=np.float32, voxel_size=volume.voxel_size, metadata=how, overwrite=overwrite
    ) as writer:
        nz, ny, nx = volume.shape
        slab = max(1, SLAB_PIXELS // (ny * nx))
        for first in range(0, nz, slab):
            planes = np.stack([volume.plane(z) for z in range(first, min(nz, first + slab))])
            for i, plane in enumerate(nad_planes(planes, device=settings.device, parameters=parameters)):
                writer.write_plane(first + i, plane)
                step()


def _greys(volume: Volume, truth: Callable[[int], Plane], case: Case) -> Greys:
    histogram = volume_histogram(volume)
    of_class = np.zeros((len(case.classes), len(histogram.counts)), np.int64)
    for z in case.judged:
        of_class += class_histograms(volume.plane(z), truth(z), n_classes=len(case.classes), edges=histogram.edges)
    return Greys(histogram.edges, histogram.counts, of_class)


def _by_thresholds(volume: Volume, thresholds: npt.NDArray[np.float64]) -> Callable[[int], Plane]:
    return lambda z: threshold_labels(volume.plane(z), thresholds)


def _write_labels(path: Path, like: Volume, classes: Sequence[LabelClass], *, planes: Any, overwrite: bool) -> None:
    with create_volume(path, shape=like.shape, dtype=np.uint8, voxel_size=like.voxel_size, classes=classes,
                       overwrite=overwrite) as writer:  # fmt: skip
        for z, plane in enumerate(planes):
            writer.write_plane(z, plane)


def _as_steps(step: Step) -> Callable[[int, int], None]:
    """A step for every plane that a progress callback tells of."""
    seen = 0

    def advance(done: int, total: int) -> None:
        nonlocal seen
        while seen < done:
            seen += 1
            step()

    return advance
