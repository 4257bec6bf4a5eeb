"""Steps beyond the paper and their worth: smoothing, z-context, suggestions, adapting, on some planes of the pillar.

All rows but the last two are of the pillar, judged on the same planes; the last two are of another specimen with a
quarter of the dose, whose own operator has not painted anything.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass import Annotation, FeatureBank, Model, Volume, adapt, classify, open_volume, suggest, train
from gpu_tomoclass.studies.reproduction.case import CaseResult, Plane, Settings
from gpu_tomoclass.studies.reproduction.operator import annotation_of
from gpu_tomoclass.studies.reproduction.scores import Scores
from gpu_tomoclass.studies.simulation.files import write_pillar
from gpu_tomoclass.studies.strokes import place_strokes

N_PLANES = 12  # judged of the pillar: of the middle, where something is painted near them, and never on them
N_OTHER = 8  # planes of the other specimen, the middle ones of 24
N_LOOKED = 12  # planes that suggestions and adapting look at
OTHER_PLANES = 24
SMOOTH_VOXELS = 1.0
LOW_DOSE = 10.0  # counts per pixel and projection instead of 40
N_STEPS = 8
TITLES = {
    "strokes": "first strokes",
    "corrected": "the paper's way: corrected",
    "smoothed": "corrected, smoothed",
    "context": "corrected, z-context",
    "context_smoothed": "corrected, z-context, smoothed",
    "suggested": "strokes at suggested places",
    "suggested_smoothed": "suggested places, smoothed",
    "given": "another pillar, a quarter of the dose: as it is",
    "adapted": "the same, adapted",
}


@dataclass(frozen=True)
class AddedStep:
    """A row: name, pixels that were painted for it, scores."""

    name: str
    pixels: int
    scores: Scores

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        found = self.scores.to_dict()
        return {"title": TITLES[self.name], "pixels": self.pixels, "planes": self.scores.n_planes, **found}


def added_steps(
    result: CaseResult,
    *,
    folder: Path,
    settings: Settings,
    with_other: bool = True,
    step: Callable[[], None] = lambda: None,
) -> list[AddedStep]:
    """Classify planes of the pillar in the ways of `TITLES`.

    Parameters
    ----------
    result : CaseResult
        Of the pillar.
    folder : path
        For temporary files.
    settings : Settings
    with_other : bool
        Also simulate another pillar: not where the pillar is the user's.
    step : callable, optional
        Called `N_STEPS` times.
    """
    case, volume, lesson = result.case, result.volume, result.lesson
    middle = min(case.judged, key=lambda z: abs(z - case.painted[len(case.painted) // 2]))
    judged = sorted(sorted(case.judged, key=lambda z: abs(z - middle))[:N_PLANES])
    sigma = None if volume.voxel_size is None else SMOOTH_VOXELS * volume.voxel_size[2]
    growing: dict[str, Any] = {"n_trees": settings.habits.n_trees, "device": settings.device, "seed": 42}
    found: list[AddedStep] = []

    def row(name: str, labels: Callable[[int], Plane], painted: dict[int, Plane]) -> None:
        scores = Scores(case.classes, halo=case.halo)
        for z in judged:
            scores.update(result.truth(z), labels(z))
        found.append(AddedStep(name, _pixels(painted), scores))

    with tempfile.TemporaryDirectory(dir=folder, prefix=".steps-") as scratch, ExitStack() as stack:

        def classified(model: Model, source: Volume, planes: list[int], smooth: float | None) -> Callable[[int], Plane]:
            first, stop = min(planes), max(planes) + 1
            path = Path(scratch) / "labels.tif"
            classify(source, model, output=path, planes=(first, stop), smooth=smooth, device=settings.device,
                     overwrite=True, restart=True)  # fmt: skip
            with open_volume(path) as labels:
                kept = {z: labels.plane(z - first) for z in planes}
            step()
            return kept.__getitem__

        row("strokes", result.methods["strokes"].labels, lesson.first_strokes)
        row("corrected", result.methods["corrected"].labels, lesson.strokes)
        if sigma is not None:
            row("smoothed", classified(lesson.last, volume, judged, sigma), lesson.strokes)
        marks = annotation_of(lesson.strokes, volume, case.classes)
        families = [settings.families] if isinstance(settings.families, str) else list(settings.families)
        smoothed = [name for name in FeatureBank.create("paper+z").families if name.startswith("z_")]
        context = train(
            volume,
            marks,
            features=[*families, *smoothed],
            **growing,
        )
        row("context", classified(context, volume, judged, None), lesson.strokes)
        if sigma is not None:
            row("context_smoothed", classified(context, volume, judged, sigma), lesson.strokes)
        model, strokes = _at_places(result, judged, settings=settings, growing=growing)
        step()
        row("suggested", classified(model, volume, judged, None), strokes)
        if sigma is not None:
            row("suggested_smoothed", classified(model, volume, judged, sigma), strokes)
        if not with_other or volume.voxel_size is None:
            return found

        names = write_pillar(
            Path(scratch) / "other.tif", shape=(OTHER_PLANES, *volume.shape[1:]), voxel=volume.voxel_size[2],
            seed=settings.seed + 1, counts=LOW_DOSE,
        )  # fmt: skip
        other, truth = (stack.enter_context(open_volume(name)) for name in names)
        planes = list(range((OTHER_PLANES - N_OTHER) // 2, (OTHER_PLANES + N_OTHER) // 2))
        tried = adapt(lesson.last, other, n_planes=N_LOOKED, device=settings.device)
        for name, fitted in (("given", lesson.last), ("adapted", tried.model)):
            labels = classified(fitted, other, planes, None)
            scores = Scores(case.classes, halo=case.halo)
            for z in planes:
                scores.update(truth.plane(z), labels(z))
            found.append(AddedStep(name, _pixels(lesson.strokes), scores))
    return found


def _at_places(
    result: CaseResult, judged: list[int], *, settings: Settings, growing: dict[str, Any]
) -> tuple[Model, dict[int, Plane]]:
    """The first strokes, then rounds of strokes at suggested places: half as many of these as corrections."""
    volume, habits, lesson = result.volume, settings.habits, result.lesson
    strokes = {z: plane.copy() for z, plane in lesson.first_strokes.items()}
    n = max(2, len(result.case.painted) * habits.corrections // 4)
    allowed = np.ones(volume.shape, np.uint8)
    allowed[judged] = 0
    model = lesson.first
    for i in range(habits.rounds):
        marks: Annotation = annotation_of(strokes, volume, result.case.classes)
        for place in suggest(model, volume, marks, n=n, n_planes=N_LOOKED, mask=allowed, device=settings.device):
            box = np.s_[place.y : place.y + place.height, place.x : place.x + place.width]
            plane = strokes.setdefault(place.z, np.zeros(volume.shape[1:], np.uint8))
            plane[box] = place_strokes(result.truth(place.z)[box], plane[box], seed=settings.seed + 100 * i)
        marks = annotation_of(strokes, volume, result.case.classes)
        model = train(volume, marks, features=settings.bank(), **growing)
    return model, strokes


def _pixels(strokes: dict[int, Plane]) -> int:
    return sum(int((plane > 0).sum()) for plane in strokes.values())
