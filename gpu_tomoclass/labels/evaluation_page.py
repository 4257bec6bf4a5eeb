"""The page that `gpu-tomoclass evaluate -o report.html` writes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.labels.evaluate import Evaluation, as_labels
from gpu_tomoclass.labels.pictures import class_image, grey_image, volume_contrast
from gpu_tomoclass.labels.report import Report
from gpu_tomoclass.volumes import Volume

WRONG = (213, 94, 0)  # vermilion
RIGHT, IGNORED = 60, 255  # grey levels


def evaluation_report(
    evaluation: Evaluation,
    labels: Volume,
    truth: Volume,
    *,
    mapping: Mapping[int, int] | None = None,
    ignore: tuple[int, ...] = (),
    grey: Volume | None = None,
) -> Report:
    """Scores, volume fractions, borders and halo, with three planes as pictures.

    Parameters
    ----------
    evaluation : Evaluation
    labels, truth, mapping, ignore
        What was compared, for the pictures.
    grey : Volume, optional
        The reconstruction, shown beside its labels; of the same shape.
    """
    score = evaluation.confusion
    classes = _classes(evaluation, labels, truth)
    report = Report(f"{_name(labels)} against {_name(truth)}")
    report.text(
        f"{100 * score.accuracy:.2f} % of {score.total:,} voxels are right; mean Dice {score.mean_dice:.3f}, mean IoU "
        f"{score.mean_iou:.3f}.",
        big=True,
    )
    report.heading("Classes")
    report.confusion(score)
    if evaluation.boundaries is not None:
        _boundaries(report, evaluation)
    if evaluation.halo is not None:
        names = {c.value: c.name for c in classes}
        solid, background = (names.get(v, f"class {v}") for v in (evaluation.halo.solid, evaluation.halo.background))
        report.heading("Halo")
        report.text(
            f"Of the {evaluation.halo.pixels:,} pixels of {solid} and {background} within {evaluation.halo.distance:g} "
            f"pixels of the other, {_percent(evaluation.halo.share)} were given to other classes."
        )
    report.heading("Planes")
    report.legend(classes)
    table = np.arange(256, dtype=np.uint8)
    for before, after in (mapping or {}).items():
        table[before] = after
    nz = labels.shape[0]
    limits = None if grey is None else volume_contrast(grey)
    for z in sorted({nz // 4, nz // 2, (3 * nz) // 4}):
        stored = as_labels(truth.plane(z), what=f"{truth.path}: plane {z}")
        true, found = table[stored], as_labels(labels.plane(z), what=f"{labels.path}: plane {z}")
        wrong = np.full((*true.shape, 3), RIGHT, np.uint8)
        wrong[true != found] = WRONG
        wrong[np.isin(stored, ignore)] = IGNORED
        report.figures(
            [
                *([] if grey is None else [(grey_image(grey.plane(z), limits), f"plane {z}: grey values")]),
                (class_image(true, classes), f"plane {z}: truth"),
                (class_image(found, classes), "labels"),
                (wrong, "wrong in orange" + (", ignored in white" if ignore else "")),
            ]
        )
    report.heading("Compared")
    for volume, what in ((labels, "labels"), (truth, "truth")):
        size = volume.voxel_size
        facts = {
            "file": _name(volume),
            "shape (z, y, x)": " x ".join(map(str, volume.shape)),
            "voxel (z, y, x)": "unknown" if size is None else " x ".join(f"{v:g}" for v in size) + " nm",
        }
        report.properties({what: facts})
    return report


def _boundaries(report: Report, evaluation: Evaluation) -> None:
    boundaries = evaluation.boundaries
    assert boundaries is not None
    report.heading("Borders")
    report.text(
        "Distance from each border pixel of a class in the labels to the nearest border of that class in the same "
        "plane of the truth. Pixels on planes whose truth has no such border have no distance and are "
        "counted on their own."
    )
    rows = []
    in_nm = evaluation.voxel_size is not None
    for value, name in zip(evaluation.confusion.values, evaluation.confusion.names, strict=True):
        found = boundaries.of(value)
        units = [found["pixels"], *([found["nm"]] if in_nm else [])]
        numbers: list[Any] = []
        for distances in units:
            numbers += ["none", "none"] if distances is None else [f"{distances[k]:.2f}" for k in ("mean", "p95")]
        rows.append((name, *numbers, found["lost"]))
    header = ["class", "mean (pixels)", "95 % within (pixels)"]
    header += ["mean (nm)", "95 % within (nm)"] if in_nm else []
    report.table((*header, "without a distance"), rows)


def _classes(evaluation: Evaluation, labels: Volume, truth: Volume) -> list[LabelClass]:
    """The compared classes with the colours of the files, else of the palette."""
    known = {c.value: c for c in (*truth.classes, *labels.classes)}
    confusion = evaluation.confusion
    return [
        known.get(value, LabelClass(value, name, PALETTE[i % len(PALETTE)]))
        for i, (value, name) in enumerate(zip(confusion.values, confusion.names, strict=True))
    ]


def _name(volume: Volume) -> str:
    return os.path.basename(volume.path.rstrip("/\\"))


def _percent(share: float) -> str:
    return "an unknown share" if np.isnan(share) else f"{100 * share:.2f} %"
