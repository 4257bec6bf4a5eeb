"""The demo: a sample tomogram is made, marked, learned, corrected, classified, compared with the truth and reported."""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import grey_dilation

from gpu_tomoclass import (
    ClassifyResult,
    Device,
    FeatureBank,
    FeatureCache,
    LabelClass,
    Model,
    Volume,
    __version__,
    choose_device,
    classify,
    create_volume,
    default_classes,
    open_volume,
    preview,
    save_model,
    train,
)
from gpu_tomoclass.baseline import otsu_thresholds, threshold_labels
from gpu_tomoclass.labels import (
    Confusion,
    Report,
    class_image,
    compare_volumes,
    grey_image,
    histogram_figure,
    overlay_image,
)
from gpu_tomoclass.outputs import check_output
from gpu_tomoclass.studies.simulation.pillar import SampleVolume, simulate_sample
from gpu_tomoclass.studies.strokes import correction_strokes, draw_strokes
from gpu_tomoclass.types import Progress

EVERY = 6  # one plane in six is marked
STROKES, LENGTH = 3, 24  # per class and plane, pixels
ROUNDS, CORRECTIONS = 3, 6  # looks, and strokes per plane after each
OUTPUTS = ("sample.tif", "truth.tif", "strokes.tif", "materials.tcm", "labels.tif", "report.html")


def run_demo(
    folder: str | PathLike[str],
    *,
    seed: int = 0,
    device: Device | str = "auto",
    overwrite: bool = False,
    say: Callable[[str], None] = lambda message: None,
    progress: Progress | None = None,
    shape: tuple[int, int, int] = (24, 168, 136),
) -> str:
    """Make a sample tomogram, train on a few planes, classify it, compare with the truth, write a report.

    Everything goes through the files and functions that a user's own data go through.

    Parameters
    ----------
    folder : path
        Made if needed; ``sample.tif``, ``truth.tif``, ``strokes.tif``, ``materials.tcm``, ``labels.tif`` and
        ``report.html`` are written there.
    seed : int
        Of the simulation and the strokes.
    device : str or Device
        ``"auto"`` is the first that works.
    overwrite : bool
    say : callable, optional
        Given a line of text for each step.
    progress : callable, optional
        Called with (planes done, planes in all) while classifying.
    shape : tuple of int
        (nz, ny, nx) of the sample.

    Returns
    -------
    str
        Path of the report.

    Raises
    ------
    DataError
        If an output exists and ``overwrite`` is not set.
    """
    device = choose_device(device)
    target = Path(folder)
    paths = {name: target / name for name in OUTPUTS}
    for path in paths.values():
        check_output(path, overwrite=overwrite)
    seconds: dict[str, float] = {}

    def timed(step: str, started: float) -> None:
        seconds[step] = time.perf_counter() - started

    say("making the sample tomogram: a silica-filled rubber pillar, noise, misalignment, missing wedge")
    started = time.perf_counter()
    sample = simulate_sample(shape=shape, seed=seed)
    classes = default_classes(sample.class_names)
    _write(paths["sample.tif"], sample.volume, sample=sample, overwrite=overwrite)
    _write(paths["truth.tif"], sample.truth, sample=sample, classes=classes, overwrite=overwrite)
    timed("simulate the tomogram", started)

    bank = FeatureBank.create("paper")
    marked = list(range(EVERY // 2, shape[0], EVERY))
    strokes = np.zeros(shape, dtype=np.uint8)
    with (
        tempfile.TemporaryDirectory() as scratch,
        open_volume(paths["sample.tif"]) as volume,
        open_volume(paths["truth.tif"]) as truth,
    ):
        cache = FeatureCache(scratch)
        for z in marked:
            strokes[z] = draw_strokes(sample.truth[z], per_class=STROKES, length=LENGTH, seed=seed + z)
        say(f"training on {STROKES} strokes per class on planes {', '.join(map(str, marked))}")
        started = time.perf_counter()
        first = _train(volume, strokes, paths["strokes.tif"], sample=sample, bank=bank, cache=cache,
                       classes=classes, device=device, overwrite=overwrite)  # fmt: skip
        timed("first training (features of the marked planes)", started)

        started = time.perf_counter()
        last = first
        for i in range(1, ROUNDS + 1):
            say(f"look {i} of {ROUNDS}: {CORRECTIONS} strokes on the largest errors of each marked plane, train again")
            for z in marked:
                seen = preview(last, volume, plane=z, cache=cache, device=device)
                strokes[z] = correction_strokes(
                    sample.truth[z], seen.labels, strokes[z], n=CORRECTIONS, length=LENGTH, seed=seed + 1000 * i + z
                )
            last = _train(volume, strokes, paths["strokes.tif"], sample=sample, bank=bank, cache=cache,
                          classes=classes, device=device, overwrite=True)  # fmt: skip
        save_model(last, paths["materials.tcm"], overwrite=overwrite)
        timed(f"{ROUNDS} times look, correct, train again (features from the cache)", started)

        say("classifying the volume")
        result = classify(volume, last, output=paths["labels.tif"], device=device, overwrite=overwrite,
                          progress=progress)  # fmt: skip
        seconds["classify the volume"] = result.seconds
        with open_volume(paths["labels.tif"]) as labels:
            unseen = [z for z in range(shape[0]) if z not in marked]
            score = compare_volumes(labels, truth, planes=unseen)
            report = _report(sample, labels=labels, strokes=strokes, marked=marked, score=score, result=result,
                             trainings=(first, last), seconds=seconds, device=device)  # fmt: skip
    report.write(paths["report.html"], overwrite=overwrite)
    say(f"accuracy on the {len(unseen)} planes without strokes: {_percent(score.accuracy)}, Dice {score.mean_dice:.3f}")
    return str(paths["report.html"])


def _write(
    path: Path, array: np.ndarray, *, sample: SampleVolume, classes: tuple[LabelClass, ...] = (), overwrite: bool
) -> None:
    with create_volume(
        path, shape=array.shape, dtype=array.dtype, voxel_size=sample.voxel_size, classes=classes, overwrite=overwrite
    ) as writer:
        for z, plane in enumerate(array):
            writer.write_plane(z, plane)


def _train(
    volume: Volume,
    strokes: np.ndarray,
    path: Path,
    *,
    sample: SampleVolume,
    bank: FeatureBank,
    cache: FeatureCache,
    classes: tuple[LabelClass, ...],
    device: Device,
    overwrite: bool,
) -> Model:
    _write(path, strokes, sample=sample, classes=classes, overwrite=overwrite)
    return train(volume, path, features=bank, cache=cache, device=device)


def _report(
    sample: SampleVolume,
    *,
    labels: Volume,
    strokes: np.ndarray,
    marked: list[int],
    score: Confusion,
    result: ClassifyResult,
    trainings: tuple[Model, Model],
    seconds: Mapping[str, float],
    device: Device,
) -> Report:
    first, last = trainings
    classes, n_marked = last.classes, sum(last.training["counts"].values())
    thresholds = otsu_thresholds(sample.volume, levels=len(classes))
    otsu = threshold_labels(sample.volume, thresholds)
    by_threshold = Confusion(classes)
    for z in range(len(otsu)):
        if z not in marked:
            by_threshold.update(sample.truth[z], otsu[z])
    report = Report("gpu_tomoclass: the sample tomogram")
    report.text(
        f"{_percent(score.accuracy)} of the voxels on planes without strokes are right (mean Dice "
        f"{score.mean_dice:.3f}); grey-level thresholds (multi-Otsu) get {_percent(by_threshold.accuracy)} "
        f"({by_threshold.mean_dice:.3f}).",
        big=True,
    )
    report.text(
        f"The sample is a simulated electron tomogram, so the truth is known. {len(marked)} of {len(otsu)} planes were "
        f"marked by a script that imitates a person: {STROKES} strokes per class on each, then {ROUNDS} times "
        f"{CORRECTIONS} strokes where the result was most wrong; {n_marked} pixels in all, "
        f"{100 * n_marked / sample.truth.size:.2f} % of the volume."
    )
    report.heading("Planes")
    report.legend(classes)
    unmarked = [z for z in range(len(otsu)) if z not in marked]
    for z in (marked[len(marked) // 2], unmarked[len(unmarked) // 3], unmarked[-1 - len(unmarked) // 6]):
        plane, found = sample.volume[z], labels.plane(z)
        seen = "marked plane" if z in marked else "plane"
        images = [(grey_image(plane), f"{seen} {z}: reconstruction")]
        if z in marked:
            wide = grey_dilation(strokes[z], size=3)  # one pixel is too thin to see here
            images.append((overlay_image(plane, wide, classes=classes, alpha=1), "strokes, drawn wider"))
        else:
            images.append((overlay_image(plane, found, classes=classes), "classified, over the grey values"))
        images += [
            (class_image(otsu[z], classes), "thresholds (multi-Otsu)"),
            (class_image(found, classes), "classified"),
            (class_image(sample.truth[z], classes), "truth"),
        ]
        report.figures(images)
    report.chart(
        histogram_figure(
            sample.volume, sample.truth, classes=classes,
            thresholds=thresholds.tolist(),
        ),
        caption="Grey values of the materials, by the truth: they overlap, so no threshold separates them.",
        alt="Histogram of grey values for each material; the curves of neighbouring materials overlap widely.",
    )  # fmt: skip
    report.heading("Agreement with the truth, planes without strokes")
    report.confusion(score)
    report.heading("Training")
    steps = (("first strokes", first.training), ("with corrections", last.training))
    report.table(
        ("", "pixels", "out-of-bag error", *(c.name for c in classes)),
        [(n, sum(t["counts"].values()), _percent(t["oob_error"]), *t["counts"].values()) for n, t in steps],
    )
    rows = [
        (family, _percent(share), f"{result.seconds_per_plane.get(family, 0):.3f}")
        for family, share in last.training["importance"].items()
    ]
    report.table(("feature family", "importance", "seconds per plane"), rows)
    report.heading("Time")
    steps_and_forest = {**seconds, "of which the forest, per plane": result.seconds_per_plane.get("forest", 0.0)}
    report.table(("step", "seconds"), [(name, f"{s:.1f}") for name, s in steps_and_forest.items()])
    report.heading("Settings")
    report.properties(_settings(sample, last, result, device=device))
    report.heading("The same, by hand")
    report.commands(
        (
            "gpu-tomoclass train sample.tif strokes.tif -o materials.tcm --overwrite",
            f"gpu-tomoclass preview sample.tif materials.tcm --plane {marked[0]} -o look.png",
            "gpu-tomoclass classify sample.tif materials.tcm -o labels.ome.zarr",
            "gpu-tomoclass evaluate labels.ome.zarr truth.tif",
        )
    )
    return report


def _settings(sample: SampleVolume, model: Model, result: ClassifyResult, *, device: Device) -> dict[str, Any]:
    return {
        "sample": {
            **sample.settings,
            "shape (z, y, x)": " x ".join(map(str, sample.volume.shape)),
            "voxel": f"{sample.voxel_size[2]:g} nm",
        },
        "features": f"{model.bank.n_channels} channels, {len(model.bank.families)} families",
        "forest": {**model.training["settings"], "nodes": model.forest.n_nodes, "depth": model.forest.depth},
        "model hash": model.hash,
        "planes per second": result.n_planes / result.seconds,
        "device": f"{device.name}: {device.description}",
        "software": {"gpu_tomoclass": __version__, **{k: v for k, v in model.versions.items() if k != "gpu_tomoclass"}},
        "machine": f"{platform.machine()}, {platform.system()}",
    }


def _percent(share: float | None) -> str:
    return "unknown" if share is None else f"{100 * share:.2f} %"
