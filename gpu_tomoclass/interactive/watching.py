"""The loop for those who stay in Fiji: strokes are saved there, and a page that reloads itself shows what they give."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os import PathLike, fspath
from typing import Any

import numpy as np

from gpu_tomoclass.annotations import Annotation, SubStack, load_annotations
from gpu_tomoclass.classification import preview
from gpu_tomoclass.device import Device, choose_device
from gpu_tomoclass.errors import StoppedError, TomoclassError
from gpu_tomoclass.features import FeatureBank, FeatureCache, make_bank
from gpu_tomoclass.interactive.suggestions import (
    Suggestion,
    grey_description,
    patch_size,
    patches_to_mark,
    suggest_places,
)
from gpu_tomoclass.labels import Report, grey_image, overlay_image, volume_contrast
from gpu_tomoclass.model import check_model_target, save_model
from gpu_tomoclass.outputs import check_output, check_suffix
from gpu_tomoclass.training import Patch, TrainingResult, train
from gpu_tomoclass.volumes import Volume, refuse_binned

StrPath = str | PathLike[str]
PAUSE = 0.5  # seconds between looks at the files; a file must be the same for two of them
RELOAD = 3  # seconds after which the page loads itself again
MOST_PLANES = 40  # shown in the page


@dataclass(frozen=True)
class _Seen:
    """Labels of a marked plane."""

    z: int
    overlay: np.ndarray  # (ny, nx, 3) uint8
    marked: np.ndarray  # (ny, nx) bool
    uncertainty: np.ndarray  # (ny, nx) uint8
    patches: list[Patch]


def watch(
    volume: Volume,
    strokes: Sequence[StrPath],
    *,
    output: StrPath,
    page: StrPath,
    features: str | Sequence[str] | FeatureBank = "paper",
    every: int | None = None,
    start: int | None = None,
    class_names: Sequence[str] | None = None,
    label_axes: str | None = None,
    skip_bad_rois: bool = False,
    intensity: str = "auto",
    nan: str = "error",
    cache: FeatureCache | None = None,
    device: Device | str = "auto",
    overwrite: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    say: Callable[[str], None] = lambda text: None,
    **forest_options: Any,
) -> int:
    """Train again whenever a file of strokes changes; write the model and a page of the marked planes.

    Files that are not there yet are waited for. What cannot be used (half-saved, one class only) is said, in the page
    too; the model stays as it was.

    Parameters
    ----------
    volume : Volume
    strokes : sequence of path
        ImageJ ROIs or label images.
    output, page : path
        Model (``.tcm``) and page (``.html``), written again each time.
    features, every, start, class_names, label_axes, skip_bad_rois, intensity, nan, cache, device, **forest_options
        See :func:`gpu_tomoclass.train`.
    overwrite : bool
        Whether model and page may be there already.
    should_stop : callable
        Asked twice a second; ends the watch.
    say : callable
        Called with a line for each change.

    Returns
    -------
    int
        How often a model was written.

    Raises
    ------
    UsageError, DataError
        If model or page cannot be written.
    """
    refuse_binned(volume)
    check_suffix(page, ".html", ".htm")
    check_output(page, overwrite=overwrite, inputs=[*volume.inputs(), *strokes])
    check_model_target(output, overwrite=overwrite)
    device, bank = choose_device(device), make_bank(features)
    substack = SubStack.of(volume.shape[0], every=every, start=start)
    reading: dict[str, Any] = {"every": every, "start": start, "class_names": class_names, "axes": label_axes,
               "skip_bad_rois": skip_bad_rois}  # fmt: skip
    limits = volume_contrast(volume)
    known: object = None
    trouble, last, n_written = "", None, 0
    while not should_stop():
        now = [_stamp(path) for path in strokes]
        if now == known:
            time.sleep(PAUSE)
            continue
        if None in now:
            absent = ", ".join(fspath(path) for path, stamp in zip(strokes, now, strict=True) if stamp is None)
            say(f"waiting for {absent}")
            known = now
            continue
        time.sleep(PAUSE)  # whoever saves may not have finished
        if [_stamp(path) for path in strokes] != now:
            continue
        known = now
        began = time.perf_counter()
        try:
            annotation = load_annotations(strokes, volume_shape=volume.shape, **reading)
            result = train(
                volume, annotation, bank=bank, intensity=intensity, nan=nan, cache=cache, device=device,
                **forest_options,
            )  # fmt: skip
            last = (result, annotation, _look(result, annotation, volume, limits, nan, cache, device, should_stop))
            save_model(result.model, output, overwrite=overwrite or n_written > 0)
            n_written += 1
            trouble = ""
            seconds = time.perf_counter() - began
            say(f"{_marked_text(annotation)}: {fspath(output)}, {seconds:.1f} s")
        except StoppedError:
            break
        except TomoclassError as error:
            trouble = str(error)
            say(f"not used: {error}")
        report = _page(os.path.basename(volume.path), trouble, last, substack)
        report.write(page, overwrite=True)
    return n_written


def _stamp(path: StrPath) -> tuple[int, int] | None:
    """Size and time of a file, of a folder those of all that is in it; None if it is not there."""
    try:
        status = os.stat(path)
        if not os.path.isdir(path):
            return status.st_size, status.st_mtime_ns
        files = [os.stat(os.path.join(at, name)) for at, _, names in os.walk(path) for name in names]
    except OSError:
        return None
    return sum(f.st_size for f in files), max((f.st_mtime_ns for f in files), default=status.st_mtime_ns)


def _look(
    result: TrainingResult,
    annotation: Annotation,
    volume: Volume,
    limits: tuple[float, float],
    nan: str,
    cache: FeatureCache | None,
    device: Device,
    should_stop: Callable[[], bool],
) -> list[_Seen]:
    """The marked planes, with strokes over the classes."""
    model, found = result.model, []
    for z in annotation.planes().tolist()[:MOST_PLANES]:
        if should_stop():
            raise StoppedError("the watch has ended")
        shown = preview(model, volume, plane=z, nan=nan, force=True, cache=cache, device=device)
        strokes = annotation.plane_labels(z)
        overlay = overlay_image(shown.plane, shown.labels, classes=model.classes, limits=limits)
        solid = overlay_image(shown.plane, strokes, classes=model.classes, alpha=1, limits=limits)
        overlay[strokes > 0] = solid[strokes > 0]
        uncertainty = np.rint(255 * (1 - shown.confidence)).astype(np.uint8)
        patches = patches_to_mark(
            z, uncertainty, shown.labels, grey_description(shown.plane), strokes > 0,
            values=[c.value for c in model.classes],
        )  # fmt: skip
        found.append(_Seen(z, overlay, strokes > 0, uncertainty, patches))
    return found


def _page(
    name: str,
    trouble: str,
    last: tuple[TrainingResult, Annotation, list[_Seen]] | None,
    substack: SubStack | None,
) -> Report:
    report = Report(f"{name}: strokes and what they give", reload_seconds=RELOAD)
    if trouble:
        report.text(f"The strokes that were saved last were not used: {trouble}", big=True)
    if last is None:
        report.text("There is no model yet: this page waits for strokes of two classes.")
        return report
    result, annotation, seen = last
    model = result.model
    error = "unknown" if result.oob_error is None else f"{100 * result.oob_error:.2f} %"
    report.text(
        f"{_marked_text(annotation)}, out-of-bag error {error} (usually too good: cross-validate says how good the"
        " model is). The page loads itself again."
    )
    report.legend(model.classes)
    report.table(("class", "marked pixels"), list(result.counts.items()))
    patches = [patch for s in seen for patch in s.patches]
    places = suggest_places(patches, size=patch_size(seen[0].uncertainty.shape)) if seen else []
    report.heading("Marked planes")
    for s in seen:
        here = [(i + 1, place) for i, place in enumerate(places) if place.z == s.z]
        numbers = ", ".join(str(i) for i, _ in here)
        caption = f"plane {s.z}, uncertainty" + (f"; in the frames: {numbers}" if here else "")
        report.figures([(s.overlay, f"plane {s.z}, classes and strokes"),
                        (_framed(s.uncertainty, [place for _, place in here]), caption)])  # fmt: skip
    if places:
        report.heading("Where to mark next")
        slices = {} if substack is None else {int(z): i + 1 for i, z in enumerate(substack.planes)}
        rows = [(i + 1, _plane_text(s.z, slices), s.y, s.x, s.uncertainty) for i, s in enumerate(places)]
        report.table(("place", "plane", "y", "x", "uncertainty"), rows)
    for note in dict.fromkeys([*annotation.notes, *result.notes]):
        report.text(note)
    return report


def _marked_text(annotation: Annotation) -> str:
    n, n_planes = annotation.z.size, annotation.planes().size
    return f"{n} marked pixels on {n_planes} plane{'' if n_planes == 1 else 's'}"


def _plane_text(z: int, slices: dict[int, int]) -> str:
    """With the number that ImageJ shows for it in the sub-stack."""
    return f"{z} (slice {slices[z]} of the sub-stack)" if z in slices else str(z)


def _framed(uncertainty: np.ndarray, places: Sequence[Suggestion]) -> np.ndarray:
    """Uncertainty as grey values, with frames around places: (ny, nx, 3) uint8."""
    image = grey_image(uncertainty, (0, 255))
    frame = np.zeros(uncertainty.shape, np.bool_)
    half = patch_size(uncertainty.shape) // 2
    for place in places:
        low_y, low_x = max(0, place.y - half), max(0, place.x - half)
        part = frame[low_y : place.y + half + 1, low_x : place.x + half + 1]
        part[:2], part[-2:], part[:, :2], part[:, -2:] = True, True, True, True
    image[frame] = (230, 159, 0)
    return image
