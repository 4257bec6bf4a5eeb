"""Many volumes from one job file: each is classified (or converted), what is done is skipped, failures do not stop it.

A job file is TOML. Settings at the top hold for all volumes, those of a ``[[volumes]]`` entry for its own::

    model = "materials.tcm"
    output = "labels"
    format = ".ome.zarr"
    probabilities = "uint8"

    [[volumes]]
    path = "tomograms/*.mrc"

    [[volumes]]
    path = "odd_one.tif"
    model = "other.tcm"
    name = "{stem}_special"

Paths are relative to the job file. See ``docs/batch.md``.
"""

from __future__ import annotations

import glob
import os
import re
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.device import DEVICES, Device
from gpu_tomoclass.errors import DataError, StoppedError, TomoclassError, UsageError
from gpu_tomoclass.model import Model, load_model
from gpu_tomoclass.outputs import product_name, protecting, refuse_inputs
from gpu_tomoclass.types import Progress
from gpu_tomoclass.volumes import convert, open_volume

TASKS = ("classify", "convert")
READING = {"axes": str, "series": int, "channel": int, "allow_missing_planes": bool}
WRITING = {"ome_version": str, "sharded": bool}


def _toml_type(hint: Any) -> type:
    """What TOML has for a type such as ``str | None`` or a tuple."""
    kinds: list[Any] = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return list if get_origin(kinds[0]) is tuple else kinds[0]


CLASSIFYING = {name: _toml_type(hint) for name, hint in get_type_hints(RunOptions).items()}
SETTINGS: dict[str, type] = {
    "task": str,
    "model": str,
    "output": str,
    "format": str,
    "name": str,
    "device": str,
    "gpu_id": int,
    "workers": int,
    **READING,
    **WRITING,
    **CLASSIFYING,
}
SUFFIXES = (".ome.zarr", ".ome.tiff", ".ome.tif")


@dataclass(frozen=True)
class Item:
    """One volume of a job.

    Attributes
    ----------
    source : str
    output : str
    settings : dict
        Of :data:`SETTINGS`, those given.
    """

    source: str
    output: str
    settings: Mapping[str, Any]

    @property
    def task(self) -> str:
        return str(self.settings.get("task", "classify"))

    @property
    def outputs(self) -> list[str]:
        """The label volume (or the converted one), probabilities and uncertainty."""
        beside = [product for product in ("probabilities", "uncertainty") if self.settings.get(product)]
        return [self.output, *(product_name(self.output, product) for product in beside)]


@dataclass
class Outcome:
    """What became of one volume.

    Attributes
    ----------
    item : Item
    status : {"done", "skipped", "failed"}
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


def load_job(path: str | PathLike[str]) -> list[Item]:
    """Read a job file and find its volumes.

    Raises
    ------
    UsageError
        If the file is no TOML, a key is unknown or of a wrong type, a pattern matches nothing, or two volumes would be
        written to one output.
    """
    file = Path(path)
    try:
        job = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot be read: {error.strerror}", where=file) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"is not TOML: {error}", where=file) from error
    entries = job.pop("volumes", None)
    if not isinstance(entries, list) or not entries or not all(isinstance(entry, dict) for entry in entries):
        raise UsageError("has no [[volumes]]", where=file, do='add one with a path, such as path = "tomograms/*.mrc"')
    defaults = _checked(job, where=f"{file}")
    items: list[Item] = []
    for number, entry in enumerate(entries, start=1):
        where = f"{file}, volumes entry {number}"
        given = dict(entry)
        pattern = given.pop("path", None)
        if not isinstance(pattern, str):
            raise UsageError("has no path", where=where)
        settings = {**defaults, **_checked(given, where=where)}
        if settings.get("task", "classify") == "classify" and "model" not in settings:
            raise UsageError("has no model", where=where, do="give model here or at the top of the file")
        if settings.get("task") == "convert" and "planes" in settings:
            raise UsageError("planes is no setting of convert", where=where, do="leave it out, or classify")
        items += [_item(source, settings, folder=file.parent) for source in _matches(pattern, file.parent, where=where)]
    _refuse_collisions(items, file)
    return items


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
    read = [item.source for item in items] + [item.settings["model"] for item in items if "model" in item.settings]
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
            else:
                model = model_of(item)
                outcome = _finished_before(item, model) or _classify(
                    item, model, device_of(item), progress=progress, should_stop=should_stop
                )
        except StoppedError:
            raise
        except TomoclassError as error:
            outcome = Outcome(item, "failed", message=str(error), exit_code=error.exit_code)
        except (MemoryError, OSError) as error:
            outcome = Outcome(item, "failed", message=str(error) or type(error).__name__, exit_code=5)
        outcome.seconds = time.perf_counter() - began
        if outcome.status != "done":
            say(f"{outcome.status}: {outcome.message}")
        outcomes.append(outcome)
    return outcomes


def _classify(
    item: Item, model: Model, device: Device, *, progress: Progress | None, should_stop: Callable[[], bool]
) -> Outcome:
    options = {key: value for key, value in item.settings.items() if key in (*CLASSIFYING, *WRITING)}
    if "planes" in options:
        options["planes"] = tuple(options["planes"])
    with open_volume(item.source, **_reading(item)) as volume:
        result = classify(
            volume, model, output=item.output, device=device, progress=progress, should_stop=should_stop, **options
        )
    return Outcome(item, "done", n_planes=result.n_planes, message="; ".join(result.notes), counts=result.counts)


def _convert(item: Item, *, progress: Progress | None, should_stop: Callable[[], bool]) -> Outcome:
    with open_volume(item.source, **_reading(item)) as volume:
        overwrite = item.settings.get("overwrite", False)
        if os.path.lexists(item.output) and not overwrite:
            with open_volume(item.output) as there:
                if (there.shape, there.dtype) != (volume.shape, volume.dtype):
                    raise DataError(
                        f"exists already and is another volume: {there.dtype} {there.shape}", where=item.output
                    )
            return Outcome(item, "skipped", n_planes=volume.shape[0], message="was converted before")
        options = {key: value for key, value in item.settings.items() if key in WRITING}
        convert(volume, item.output, overwrite=overwrite, progress=progress, should_stop=should_stop, **options)
        return Outcome(item, "done", n_planes=volume.shape[0])


def _finished_before(item: Item, model: Model) -> Outcome | None:
    """A skipped outcome if the output is there and made by this model from this volume."""
    if not os.path.lexists(item.output) or item.settings.get("overwrite") or Path(f"{item.output}.partial").exists():
        return None
    with open_volume(item.output) as labels, open_volume(item.source, **_reading(item)) as volume:
        made, n_planes = labels.metadata, labels.shape[0]
        wanted = {"model": model.hash, "input": volume.fingerprint()}
    found = {"model": made.get("model", {}).get("hash"), "input": made.get("input")}
    differing = [name for name in wanted if found[name] is not None and found[name] != wanted[name]]
    if differing:
        raise DataError(
            f"exists already and was made from another {' and another '.join(differing)}",
            where=item.output,
            do="choose another output, or set overwrite = true",
        )
    return Outcome(item, "skipped", n_planes=n_planes, message="was done before")


def _reading(item: Item) -> dict[str, Any]:
    return {key: value for key, value in item.settings.items() if key in READING}


def _checked(settings: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    for key, value in settings.items():
        if key not in SETTINGS:
            raise UsageError(f"unknown setting {key!r}", where=where, do=f"known are {', '.join(SETTINGS)}")
        if type(value) is not SETTINGS[key]:
            raise UsageError(f"{key} = {value!r} is not of the type {SETTINGS[key].__name__}", where=where)
    planes = settings.get("planes")
    if planes is not None and (len(planes) != 2 or any(type(z) is not int for z in planes)):
        raise UsageError(f"planes = {planes!r:.60} is no [first, last + 1]", where=where)
    task, device = settings.get("task", "classify"), settings.get("device", "auto")
    if task not in TASKS:
        raise UsageError(f"task {task!r} is unknown", where=where, do=f"choose {' or '.join(TASKS)}")
    if device not in ("auto", *DEVICES):
        raise UsageError(f"device {device!r} is unknown", where=where, do=f"choose auto, {', '.join(DEVICES)}")
    return dict(settings)


def _matches(pattern: str, folder: Path, *, where: str) -> list[str]:
    """Files of a pattern, or one path as it is (``file.h5::/data`` included)."""
    path = pattern if os.path.isabs(pattern) else str(folder / pattern)
    if not glob.has_magic(path):
        return [path]
    found = sorted(name for name in glob.glob(path, recursive=True) if not name.endswith(".partial"))
    if not found:
        raise UsageError(f"nothing matches {pattern!r}", where=where)
    return found


def _item(source: str, settings: Mapping[str, Any], *, folder: Path) -> Item:
    name = os.path.basename(source.partition("::")[0].rstrip("/\\"))
    lower = name.lower()
    long = next((suffix for suffix in SUFFIXES if lower.endswith(suffix)), "")
    stem = name[: -len(long)] if long else os.path.splitext(name)[0]
    task = settings.get("task", "classify")
    pattern = settings.get("name", "{stem}" if task == "convert" else "{stem}_labels")
    base = _filled_in(pattern, {"stem": stem, "name": name, "suffix": name[len(stem) :].lstrip("."), "task": task})
    target = folder / settings.get("output", ".") / f"{base}{settings.get('format', '.ome.zarr')}"
    resolved = dict(settings)
    if "model" in resolved:
        resolved["model"] = str(folder / resolved["model"])
    return Item(source, str(target), resolved)


def _filled_in(pattern: str, values: Mapping[str, str]) -> str:
    """The pattern with ``{stem}`` and so on replaced; braces mean nothing else, in particular no format."""

    def value(match: re.Match[str]) -> str:
        if match[1] not in values:
            known = ", ".join(f"{{{name}}}" for name in values)
            raise UsageError(f"name {pattern!r} cannot be filled in: {match[0]} is unknown", do=f"use {known}")
        return values[match[1]]

    filled = re.sub(r"[{]([^{}]*)[}]|[{}]", value, pattern)
    if not filled.strip(". ") or "\0" in filled:
        raise UsageError(f"name {pattern!r} gives {filled!r}, which is no name of a file")
    return filled


def _refuse_collisions(items: Sequence[Item], file: Path) -> None:
    seen: dict[str, str] = {}
    for item in items:
        key = os.path.abspath(item.output)
        models = [item.settings["model"]] if "model" in item.settings else []
        for output in item.outputs:
            try:
                refuse_inputs(output, [item.source, *models, file])
            except UsageError as error:
                raise UsageError(
                    f"{output}, which {item.source} would be written to, {error.what}",
                    where=file,
                    do="set output or name",
                ) from error
        if key in seen:
            raise UsageError(
                f"{seen[key]} and {item.source} would both be written to {item.output}",
                where=file,
                do="set output or name for one of them",
            )
        seen[key] = item.source
