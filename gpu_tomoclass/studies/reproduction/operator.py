"""A scripted operator teaches a model: strokes, then looks at the result and strokes where it is wrong.

The truth takes the place of the operator's eyes, so this one never errs: an optimistic operator. What does not need the
truth's every pixel are the first strokes, some inside of every class; the scores with these alone are reported beside.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gpu_tomoclass import Annotation, Device, FeatureBank, FeatureCache, LabelClass, Model, Volume, preview, train
from gpu_tomoclass.studies.strokes import correction_strokes, draw_strokes

Plane = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Habits:
    """Habits of the operator who paints.

    Attributes
    ----------
    strokes, length : int
        First strokes of each class on a plane, and the pixels that one aims at.
    rounds : int
        How often the result is looked at and corrected.
    corrections, correction_length : int
        Strokes on each plane in a round, on the largest wrong areas, and the pixels that one aims at.
    n_trees : int
        Of the forest.
    """

    strokes: int = 3
    length: int = 24
    rounds: int = 10
    corrections: int = 12
    correction_length: int = 20
    n_trees: int = 200


@dataclass(frozen=True)
class Look:
    """The result at which the operator looked: pixels painted before it, and its accuracy on the painted planes."""

    pixels: int
    accuracy: float


@dataclass(frozen=True)
class Lesson:
    """Record of the operator's work.

    Attributes
    ----------
    first, last : Model
        With the first strokes alone, and with all corrections.
    first_strokes, strokes : dict of int to array
        Painted planes, (ny, nx) label values, 0 where nothing is painted.
    habits : Habits
    looks : list of Look
        After the first strokes and after every round.
    seconds : float
    """

    first: Model
    last: Model
    first_strokes: dict[int, Plane]
    strokes: dict[int, Plane]
    habits: Habits
    looks: list[Look]
    seconds: float


def teach(
    volume: Volume,
    truth: Callable[[int], Plane],
    *,
    planes: Sequence[int],
    classes: Sequence[LabelClass],
    habits: Habits,
    bank: FeatureBank,
    cache: FeatureCache,
    device: Device,
    seed: int = 0,
    step: Callable[[], None] = lambda: None,
) -> Lesson:
    """Strokes on some planes, a forest, and rounds of looking and correcting.

    Parameters
    ----------
    volume : Volume
    truth : callable
        Of a plane's number: its (ny, nx) label values.
    planes : sequence of int
        Those that the operator paints on and looks at.
    classes : sequence of LabelClass
    habits : Habits
    bank : FeatureBank
    cache : FeatureCache
        Keeps the features of the painted planes from round to round.
    device : Device
    seed : int
        Of the strokes.
    step : callable, optional
        Called after every training.
    """
    began = time.perf_counter()
    true = {z: truth(z) for z in planes}
    strokes = {z: draw_strokes(true[z], per_class=habits.strokes, length=habits.length, seed=seed + z) for z in planes}
    first_strokes = dict(strokes)
    looks: list[Look] = []
    models: list[Model] = []
    found: dict[int, Plane] = {}
    for i in range(habits.rounds + 1):
        if i > 0:
            strokes = {
                z: correction_strokes(true[z], found[z], strokes[z], n=habits.corrections,
                                      length=habits.correction_length, seed=seed + 1000 * i + z)
                for z in planes
            }  # fmt: skip
        annotation = annotation_of(strokes, volume, classes)
        model = train(volume, annotation, features=bank, cache=cache, device=device, n_trees=habits.n_trees)
        models = [*models[:1], model]
        found = {z: preview(model, volume, plane=z, cache=cache, device=device).labels for z in planes}
        accuracy = float(np.mean([(found[z] == true[z]).mean() for z in planes]))
        looks.append(Look(sum(int((s > 0).sum()) for s in strokes.values()), accuracy))
        step()
    return Lesson(models[0], models[-1], first_strokes, strokes, habits, looks, time.perf_counter() - began)


def annotation_of(strokes: dict[int, Plane], volume: Volume, classes: Sequence[LabelClass]) -> Annotation:
    """Strokes on planes (number -> label values) as an annotation of the volume."""
    places = [(np.full(int((s > 0).sum()), z), *np.nonzero(s), s[s > 0]) for z, s in strokes.items()]
    z, y, x, label = (np.concatenate(column) for column in zip(*places, strict=True))
    return Annotation.from_voxels(z, y, x, label, shape=volume.shape, classes=classes, path="strokes")
