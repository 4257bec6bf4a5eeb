"""Tasks of a job file that work on finished labels: clean, measure, evaluate."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

from gpu_tomoclass.classes import LabelClass, class_value
from gpu_tomoclass.classification.job_file import WRITING, Item
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, StoppedError, UsageError
from gpu_tomoclass.labels import (
    check_measurement_targets,
    clean,
    evaluate_volumes,
    measure_classes,
    same_planes,
    save_evaluation,
    save_histograms,
    save_particles,
)
from gpu_tomoclass.outputs import check_output, check_suffix
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Volume, check_volume_target, open_volume


def done_before(item: Item) -> bool:
    """Tell whether the outputs are there and not older than what they are made from.

    Raises
    ------
    DataError
        If one is there and is older, or only some are there.
    """
    there = [output for output in item.outputs if os.path.lexists(output)]
    if not there or item.settings.get("overwrite"):
        return False
    made = min(os.path.getmtime(output) for output in there)
    older = [name for name in item.inputs if _file_time(name) > made]
    if not older and len(there) == len(item.outputs):
        return True
    what = f"exists already and is older than {older[0]}" if older else "exists already, but not all that goes with it"
    raise DataError(what, where=there[0], do="remove it, or set overwrite = true")


def _file_time(name: str) -> float:
    path = name.partition("::")[0]
    return os.path.getmtime(path) if os.path.exists(path) else 0.0


def check_labels(item: Item, labels: Volume) -> None:
    """Raise what the task would raise for its settings and outputs, before the work."""
    settings, overwrite = item.settings, item.settings.get("overwrite", False)
    for key in ("classes", "outside"):
        _values(settings.get(key, ()), labels.classes)
    if item.task == "clean":
        if "min_size" not in settings:
            raise UsageError("clean has no min_size", do="give the smallest object to keep, such as min_size = 50")
        check_volume_target(item.output, dtype="uint8", shape=labels.shape, overwrite=overwrite,
                            classes=labels.classes, **_writing(item))  # fmt: skip
    elif item.task == "measure":
        check_measurement_targets(item.output, item.picture, overwrite=overwrite)
    else:
        check_suffix(item.output, ".csv", ".json")
        check_output(item.output, overwrite=overwrite)
        with open_volume(settings["truth"]) as truth:
            same_planes(labels, truth, settings.get("planes"))
            _halo(item, (*labels.classes, *truth.classes))


def work_on_labels(
    item: Item, labels: Volume, *, device: Device | None, progress: Progress | None, should_stop: Callable[[], bool]
) -> str:
    """Do the task.

    Returns
    -------
    str
        One line about what was found.

    Raises
    ------
    StoppedError
        If ``should_stop`` said so; nothing is left of the output then.
    """

    def advance(done: int, total: int) -> None:
        if should_stop():
            raise StoppedError(f"stopped during {item.task}", where=item.source, do="run the job again")
        if progress is not None:
            progress(done, total)

    check_labels(item, labels)
    return {"clean": _clean, "measure": _measure, "evaluate": _evaluate}[item.task](item, labels, device, advance)


def _clean(item: Item, labels: Volume, device: Device | None, progress: Progress) -> str:
    settings = item.settings
    found = clean(
        labels,
        item.output,
        min_size=settings["min_size"],
        fill=settings.get("fill", False),
        classes=_values(settings.get("classes", ()), labels.classes) or None,
        overwrite=settings.get("overwrite", False),
        device=device,
        progress=progress,
        **_writing(item),
    )
    return f"{sum(found.objects.values())} objects removed"


def _measure(item: Item, labels: Volume, device: Device | None, progress: Progress) -> str:
    settings, overwrite = item.settings, item.settings.get("overwrite", False)
    found = measure_classes(
        labels,
        values=_values(settings.get("classes", ()), labels.classes) or None,
        outside=_values(settings.get("outside", ()), labels.classes),
        device=device,
        progress=progress,
        **{name: settings[name] for name in ("split", "neck", "border") if name in settings},
    )
    save_particles(found, item.output, overwrite=overwrite)
    if item.picture is not None:
        save_histograms(found, item.picture, title=os.path.basename(item.source), overwrite=overwrite)
    return "counted: " + ", ".join(f"{p.counted.sum()} {found.names[v]}" for v, p in found.particles.items())


def _evaluate(item: Item, labels: Volume, device: Device | None, progress: Progress) -> str:
    settings = item.settings
    with open_volume(settings["truth"]) as truth:
        ours, theirs, _ = same_planes(labels, truth, settings.get("planes"))
        found = evaluate_volumes(
            ours,
            theirs,
            ignore=settings.get("ignore", ()),
            mapping=dict(settings.get("map", ())),
            boundaries=settings.get("boundaries", True),
            halo=_halo(item, (*labels.classes, *truth.classes)),
            device=device,
            progress=progress,
        )
    save_evaluation(found, item.output, overwrite=settings.get("overwrite", False))
    return f"accuracy {100 * found.confusion.accuracy:.2f} %"


def _values(given: Sequence[Any], classes: Sequence[LabelClass]) -> list[int]:
    return [class_value(str(name), classes) for name in given]


def _halo(item: Item, classes: Sequence[LabelClass]) -> tuple[int, int] | None:
    given = item.settings.get("halo")
    if given is None:
        return None
    solid, background = _values(given, classes)
    return solid, background


def _writing(item: Item) -> dict[str, Any]:
    return {key: item.settings[key] for key in WRITING if key in item.settings}
