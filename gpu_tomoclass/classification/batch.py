"""Many volumes, one after the other, as a job file says: what is done is skipped, failures do not stop it."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.job_file import ABOUT_LABELS, CLASSIFYING, READING, SETTINGS, WRITING, Item
from gpu_tomoclass.classification.label_tasks import check_labels, done_before, work_on_labels
from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.classification.products import check_products, products_of
from gpu_tomoclass.device import Device
from gpu_tomoclass.errors import DataError, StoppedError, TomoclassError
from gpu_tomoclass.features import aspect_of, check_lengths
from gpu_tomoclass.model import Model, fits_volume, load_model
from gpu_tomoclass.outputs import protecting
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import Region, Volume, check_volume_target, convert, open_volume


@dataclass
class Outcome:
    """Outcome of one volume.

    Attributes
    ----------
    item : Item
    status : {"done", "skipped", "failed", "ready"}
        "ready" where it was only looked at.
    seconds : float
    n_planes : int
    message : str
        Why it was skipped or failed; empty if it was done without notes.
    exit_code : int
        0 unless it failed.
    """

    item: Item
    status: str
    seconds: float = 0.0
    n_planes: int = 0
    message: str = ""
    exit_code: int = 0
    counts: Mapping[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "source": self.item.source,
            "output": self.item.output,
            "task": self.item.task,
            "status": self.status,
            "seconds": round(self.seconds, 3),
            "n_planes": self.n_planes,
            "counts": dict(self.counts),
            "message": self.message,
            "exit_code": self.exit_code,
        }


def run_job(
    items: Sequence[Item],
    *,
    open_device: Callable[[str, int, int | None], Device],
    say: Callable[[str], None] = lambda line: None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[Outcome]:
    """Work through the volumes, one after the other.

    Parameters
    ----------
    items : sequence of Item
    open_device : callable
        (name, gpu_id, workers) -> Device; called once for each combination.
    say : callable, optional
        Given a line of text for each volume.
    progress : callable, optional
        Called with (planes done, planes in all) of the volume in work.
    should_stop : callable, optional
        See :func:`gpu_tomoclass.classification.classify_volume.classify`; the volume in work stays resumable.

    Returns
    -------
    list of Outcome
        One for each item, also for those that failed.

    Raises
    ------
    StoppedError
        If ``should_stop`` said so.
    """
    read, made = [], set()
    for item in items:  # what an earlier item makes may be read by a later one
        read += [name for name in item.inputs if os.path.abspath(name) not in made]
        made |= {os.path.abspath(name) for name in item.outputs}
    with protecting(*read):  # no output takes the place of a volume that another item reads, perhaps later
        return _run_items(items, open_device=open_device, say=say, progress=progress, should_stop=should_stop)


def _run_items(
    items: Sequence[Item],
    *,
    open_device: Callable[[str, int, int | None], Device],
    say: Callable[[str], None],
    progress: Progress | None,
    should_stop: Callable[[], bool],
) -> list[Outcome]:
    models: dict[str, Model] = {}
    devices: dict[tuple[str, int, int | None], Device] = {}

    def device_of(item: Item) -> Device:
        settings = item.settings
        key = settings.get("device", "auto"), settings.get("gpu_id", 0), settings.get("workers")
        if key not in devices:
            devices[key] = open_device(*key)
        return devices[key]

    def model_of(item: Item) -> Model:
        path = item.settings["model"]
        if path not in models:
            models[path] = load_model(path)
        return models[path]

    outcomes = []
    for number, item in enumerate(items, start=1):
        say(f"{number} of {len(items)}: {item.task} {item.source}")
        began = time.perf_counter()
        try:
            if item.task == "convert":
                outcome = _convert(item, progress=progress, should_stop=should_stop)
            elif item.task in ABOUT_LABELS:
                device = device_of(item) if item.settings.get("device") == "cuda" else None
                outcome = _of_labels(item, device, progress=progress, should_stop=should_stop)
            else:
                model = model_of(item)
                outcome = _finished_before(item, model) or _classify(
                    item, model, device_of(item), progress=progress, should_stop=should_stop
                )
        except StoppedError:
            raise
        except TomoclassError as error:
            outcome = _failed(item, error)
        except (MemoryError, OSError) as error:
            outcome = Outcome(item, "failed", message=str(error) or type(error).__name__, exit_code=5)
        outcome.seconds = time.perf_counter() - began
        if outcome.status != "done":
            say(f"{outcome.status}: {outcome.message}")
        outcomes.append(outcome)
    return outcomes


def check_job(items: Sequence[Item], *, say: Callable[[str], None] = lambda line: None) -> list[Outcome]:
    """Look at every volume, model and output of a job, reading headers only: what a run would refuse, it refuses.

    Returns
    -------
    list of Outcome
        ``"ready"``, ``"skipped"`` or ``"failed"``.
    """
    models: dict[str, Model] = {}
    outcomes: list[Outcome] = []
    made: set[str] = set()
    for number, item in enumerate(items, start=1):
        say(f"{number} of {len(items)}: {item.task} {item.source}")
        try:
            if os.path.abspath(item.source) in made and not os.path.lexists(item.source):
                outcomes.append(Outcome(item, "ready", message="its volume will be made before"))
            else:
                outcomes.append(_checked_item(item, models))
        except TomoclassError as error:
            outcomes.append(_failed(item, error))
        made |= {os.path.abspath(name) for name in item.outputs}
    return outcomes


def _checked_item(item: Item, models: dict[str, Model]) -> Outcome:
    settings = item.settings
    options = _writing(item)
    overwrite = settings.get("overwrite", False)
    with open_volume(item.source, **_reading(item)) as volume:
        message = "; ".join(volume.notes)
        if item.task == "convert":
            if done := _converted_before(item, volume):
                return done
            check_volume_target(
                item.output, dtype=volume.dtype, shape=volume.shape, overwrite=overwrite,
                classes=volume.classes if volume.dtype == np.uint8 else (), **options,
            )  # fmt: skip
            return Outcome(item, "ready", n_planes=volume.shape[0], message=message)
        if item.task in ABOUT_LABELS:
            if done_before(item):
                return Outcome(item, "skipped", n_planes=volume.shape[0], message="was done before")
            check_labels(item, volume)
            return Outcome(item, "ready", n_planes=volume.shape[0], message=message)
        path = settings["model"]
        if path not in models:
            models[path] = load_model(path)
        model = models[path]
        if done := _finished_before(item, model):
            return done
        notes = [*volume.notes, *fits_volume(model, volume, force=settings.get("force", False))]
        check_lengths(used_blocks(model), aspect_of(volume.voxel_size))
        run = RunOptions(**{key: value for key, value in settings.items() if key in CLASSIFYING})
        shape = Region.of(volume, planes=run.planes, crop=run.crop, mask=run.mask).box_shape
        goes_on = Path(f"{item.output}.partial").exists()
        check_products(
            products_of(item.output, model.classes, run.products),
            shape=shape,
            overwrite=overwrite or goes_on,
            **options,
        )
        if goes_on:
            notes.append("was interrupted and will go on")
        return Outcome(item, "ready", n_planes=shape[0], message="; ".join(notes))


def _failed(item: Item, error: TomoclassError) -> Outcome:
    """Outcome of a failure, in the words of a job file: ``--memory-limit`` is its ``memory_limit``."""

    def key(option: re.Match[str]) -> str:
        name = option[1].replace("-", "_")
        if name not in SETTINGS:
            return option[0]
        return f"{name} = true" if SETTINGS[name] is bool else name

    return Outcome(item, "failed", message=re.sub(r"--([a-z][a-z-]*[a-z])", key, str(error)), exit_code=error.exit_code)


def _classify(
    item: Item, model: Model, device: Device, *, progress: Progress | None, should_stop: Callable[[], bool]
) -> Outcome:
    options = {key: value for key, value in item.settings.items() if key in (*CLASSIFYING, *WRITING)}
    with open_volume(item.source, **_reading(item)) as volume:
        result = classify(
            volume, model, output=item.output, device=device, progress=progress, should_stop=should_stop, **options
        )
    return Outcome(item, "done", n_planes=result.n_planes, message="; ".join(result.notes), counts=result.counts)


def _convert(item: Item, *, progress: Progress | None, should_stop: Callable[[], bool]) -> Outcome:
    with open_volume(item.source, **_reading(item)) as volume:
        if done := _converted_before(item, volume):
            return done
        overwrite = item.settings.get("overwrite", False)
        options = _writing(item)
        convert(volume, item.output, overwrite=overwrite, progress=progress, should_stop=should_stop, **options)
        return Outcome(item, "done", n_planes=volume.shape[0])


def _of_labels(
    item: Item, device: Device | None, *, progress: Progress | None, should_stop: Callable[[], bool]
) -> Outcome:
    with open_volume(item.source, **_reading(item)) as labels:
        n_planes = labels.shape[0]
        if done_before(item):
            return Outcome(item, "skipped", n_planes=n_planes, message="was done before")
        found = work_on_labels(item, labels, device=device, progress=progress, should_stop=should_stop)
    return Outcome(item, "done", n_planes=n_planes, message=found)


def _converted_before(item: Item, volume: Volume) -> Outcome | None:
    """A skipped outcome if the output is there and is such a volume."""
    if not os.path.lexists(item.output) or item.settings.get("overwrite"):
        return None
    with open_volume(item.output) as there:
        if (there.shape, there.dtype) != (volume.shape, volume.dtype):
            raise DataError(f"exists already and is another volume: {there.dtype} {there.shape}", where=item.output)
    return Outcome(item, "skipped", n_planes=volume.shape[0], message="was converted before")


def _finished_before(item: Item, model: Model) -> Outcome | None:
    """A skipped outcome if the output is there and made by this model from this volume."""
    if not os.path.lexists(item.output) or item.settings.get("overwrite") or Path(f"{item.output}.partial").exists():
        return None
    with open_volume(item.output) as labels, open_volume(item.source, **_reading(item)) as volume:
        made, n_planes = labels.metadata, labels.shape[0]
        wanted = {"model": model.hash, "input": volume.fingerprint()}
    by = made.get("model", {})
    by_hash = by.get("adapted", {}).get("from") if item.settings.get("adapt") == "auto" else None
    found = {"model": by_hash or by.get("hash"), "input": made.get("input")}
    differing = [name for name in wanted if found[name] is not None and found[name] != wanted[name]]
    if differing:
        raise DataError(
            f"exists already and was made from another {' and another '.join(differing)}",
            where=item.output,
            do="choose another output, or set overwrite = true",
        )
    return Outcome(item, "skipped", n_planes=n_planes, message="was done before")


def _writing(item: Item) -> dict[str, Any]:
    return {key: value for key, value in item.settings.items() if key in WRITING}


def _reading(item: Item) -> dict[str, Any]:
    return {key: value for key, value in item.settings.items() if key in READING}
