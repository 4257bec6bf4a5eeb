"""Job files: what is done with which volumes, how, and what the outputs are called.


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

Paths are relative to the job file. See ``docs/streaming.md``.
"""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from gpu_tomoclass.classification.options import RunOptions
from gpu_tomoclass.device import DEVICES
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.labels import BORDERS
from gpu_tomoclass.outputs import refuse_inputs, size_bytes
from gpu_tomoclass.volumes import checked_bin, checked_voxel_size, product_name, split_suffix

# A task, the end of its outputs' names, and whether these are tables.
TASKS = {
    "classify": ("_labels", False),
    "convert": ("", False),
    "clean": ("_clean", False),
    "measure": ("_particles", True),
    "evaluate": ("_scores", True),
}
READING: dict[str, type | tuple[type, ...]] = {
    "axes": str,
    "series": int,
    "channel": int,
    "allow_missing_planes": bool,
    "voxel_size": (list, float, int),
    "shape": list,
    "dtype": str,
    "offset": int,
    "bin": (int, list),
}
WRITING = {"ome_version": str, "sharded": bool, "portal": bool}


def _toml_type(hint: Any) -> type:
    """TOML's type for one such as ``str | None`` or a tuple."""
    kinds: list[Any] = [kind for kind in get_args(hint) or (hint,) if kind is not NoneType]
    return list if get_origin(kinds[0]) is tuple else kinds[0]


CLASSIFYING: dict[str, type | tuple[type, ...]] = {
    **{name: _toml_type(hint) for name, hint in get_type_hints(RunOptions).items()},
    "memory_limit": (int, str),  # bytes, or "2G"
    "smooth": (float, int),
}
ABOUT_LABELS: dict[str, dict[str, type | tuple[type, ...]]] = {
    "clean": {"min_size": int, "fill": bool, "classes": list},
    "measure": {
        "classes": list, "outside": list, "split": bool, "neck": float, "border": str, "histograms": bool, "table": str,
    },
    "evaluate": {
        "truth": str, "ignore": list, "map": list, "halo": list, "boundaries": bool, "planes": list, "table": str,
    },
}  # fmt: skip
COMMON: dict[str, type | tuple[type, ...]] = {
    "task": str,
    "output": str,
    "name": str,
    "device": str,
    "gpu_id": int,
    "workers": int,
    "overwrite": bool,
    **READING,
}
VOLUMES_OUT: dict[str, type | tuple[type, ...]] = {"format": str, **WRITING}
KNOWN_BY: dict[str, dict[str, type | tuple[type, ...]]] = {
    "classify": {"model": str, **COMMON, **VOLUMES_OUT, **CLASSIFYING},
    "convert": {**COMMON, **VOLUMES_OUT},
    "clean": {**COMMON, **VOLUMES_OUT, **ABOUT_LABELS["clean"]},
    "measure": {**COMMON, **ABOUT_LABELS["measure"]},
    "evaluate": {**COMMON, **ABOUT_LABELS["evaluate"]},
}
SETTINGS: dict[str, type | tuple[type, ...]] = {"task": str, "model": str} | {
    name: kind for known in KNOWN_BY.values() for name, kind in known.items()
}
TYPE_NAMES = {str: "a text", int: "a whole number", bool: "true or false", list: "a list", float: "a number"}
CHOICES: dict[str, tuple[str, ...]] = {
    "task": tuple(TASKS),
    "device": ("auto", *DEVICES),
    "ome_version": ("0.4", "0.5"),
    "border": BORDERS,
    "table": (".csv", ".json"),
}
LEAST = {"min_size": 1, "series": 0, "channel": 0, "offset": 0, "gpu_id": 0, "workers": 1}


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
    def inputs(self) -> list[str]:
        """The volume, and the model, the mask and the truth where the task has one."""
        names = [name for name in ("model", "mask", "truth") if name in KNOWN_BY[self.task]]
        return [self.source, *(self.settings[name] for name in names if name in self.settings)]

    @property
    def outputs(self) -> list[str]:
        """The new volume or table, and what is written beside it."""
        if self.task != "classify":
            return [self.output, *([] if self.picture is None else [self.picture])]
        beside = [product for product in ("probabilities", "uncertainty") if self.settings.get(product)]
        return [self.output, *(product_name(self.output, product) for product in beside)]

    @property
    def picture(self) -> str | None:
        """Histograms of a measurement, if they are wanted."""
        wanted = self.task == "measure" and self.settings.get("histograms")
        return str(Path(self.output).with_suffix(".png")) if wanted else None


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
        task = settings.get("task", "classify")
        # Settings at the top are for those tasks that know them; only planes would be missed.
        unknown = [key for key in (*given, *(("planes",) if "planes" in settings else ())) if key not in KNOWN_BY[task]]
        if unknown:
            known = ", ".join(KNOWN_BY[task])
            raise UsageError(f"{unknown[0]} is no setting of {task}", where=where, do=f"known are {known}")
        for key in ({"classify": "model", "clean": "min_size", "evaluate": "truth"}.get(task),):
            if key is not None and key not in settings:
                raise UsageError(f"has no {key}", where=where, do=f"give {key} here or at the top of the file")
        made = [output for item in items for output in item.outputs]
        sources = _matches(pattern, file.parent, where=where, made=made)
        items += [_item(source, settings, folder=file.parent) for source in sources]
    _refuse_collisions(items, file)
    return items


def _checked(settings: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    for key, value in settings.items():
        if key not in SETTINGS:
            raise UsageError(f"unknown setting {key!r}", where=where, do=f"known are {', '.join(SETTINGS)}")
        known = SETTINGS[key]
        kinds = known if isinstance(known, tuple) else (known,)
        if type(value) not in kinds:
            named = " or ".join(TYPE_NAMES[kind] for kind in kinds)
            raise UsageError(f"{key} = {value!r} is not {named}", where=where)
        if key in CHOICES and value not in CHOICES[key]:
            raise UsageError(f"{key} {value!r} is unknown", where=where, do=f"choose {', '.join(CHOICES[key])}")
        if key in LEAST and value < LEAST[key]:
            raise UsageError(f"{key} = {value} is below {LEAST[key]}", where=where)
    checked = dict(settings)
    planes = settings.get("planes")
    if planes is not None and (len(planes) != 2 or any(type(z) is not int for z in planes)):
        raise UsageError(f"planes = {planes!r:.60} is no [first, last + 1]", where=where)
    if planes is not None:
        checked["planes"] = tuple(planes)
    _check_lists(settings, where=where)
    try:
        if isinstance(settings.get("memory_limit"), str):
            checked["memory_limit"] = size_bytes(settings["memory_limit"])
        if "voxel_size" in settings:
            checked["voxel_size"] = checked_voxel_size(settings["voxel_size"])
        if "bin" in settings:
            checked["bin"] = checked_bin(settings["bin"])
        RunOptions(**{key: value for key, value in checked.items() if key in CLASSIFYING})
    except UsageError as error:
        raise UsageError(error.what, where=where, do=error.do) from error
    except ValueError as error:
        raise UsageError(f"memory_limit: {error}", where=where) from error
    return checked


def _check_lists(settings: Mapping[str, Any], *, where: str) -> None:
    """Refuse lists of labels that hold something else, and a neck that is no share."""
    for key in ("classes", "outside", "halo"):
        if any(type(name) not in (str, int) for name in settings.get(key, ())):
            raise UsageError(f"{key} = {settings[key]!r:.60} are no names or label values", where=where)
    if len(settings.get("halo", "ab")) != 2:
        raise UsageError(
            f"halo = {settings['halo']!r:.60} are not two classes", where=where, do="give solid and background"
        )
    if any(type(value) is not int for value in settings.get("ignore", ())):
        raise UsageError(f"ignore = {settings['ignore']!r:.60} are no label values", where=where)
    for pair in settings.get("map", ()):
        if type(pair) is not list or [type(value) for value in pair] != [int, int]:
            raise UsageError(f"map has {pair!r:.60}", where=where, do="give pairs [value in truth, value in labels]")
    if not 0 < settings.get("neck", 0.5) < 1:
        raise UsageError(f"neck = {settings['neck']} is no share between 0 and 1", where=where)


def _matches(pattern: str, folder: Path, *, where: str, made: Sequence[str]) -> list[str]:
    """Files of a pattern, also those that earlier items make, or one path as it is (``file.h5::/data`` included)."""
    path = pattern if os.path.isabs(pattern) else str(folder / pattern)
    if not glob.has_magic(path):
        return [path]
    parts = Path(os.path.normpath(path)).parts
    planned = [
        name
        for name in (os.path.normpath(output) for output in made)
        if len(Path(name).parts) == len(parts) and all(map(fnmatch.fnmatchcase, Path(name).parts, parts))
    ]
    there = [os.path.normpath(name) for name in glob.glob(path, recursive=True) if not name.endswith(".partial")]
    found = sorted({*there, *planned})
    if not found:
        raise UsageError(f"nothing matches {pattern!r}", where=where)
    return found


def _item(source: str, settings: Mapping[str, Any], *, folder: Path) -> Item:
    name = os.path.basename(source.partition("::")[0].rstrip("/\\"))
    stem, _ = split_suffix(name)
    task = settings.get("task", "classify")
    ending, is_table = TASKS[task]
    words = {"stem": stem, "name": name, "suffix": name[len(stem) :].lstrip("."), "task": task}
    base = _filled_in(settings.get("name", f"{{stem}}{ending}"), words)
    suffix = settings.get("table", ".csv") if is_table else settings.get("format", ".ome.zarr")
    target = folder / settings.get("output", ".") / f"{base}{suffix}"
    resolved = dict(settings)
    if "model" in resolved:
        resolved["model"] = str(folder / resolved["model"])
    if "mask" in resolved:
        resolved["mask"] = str(folder / resolved["mask"])
    if "truth" in resolved:
        resolved["truth"] = str(folder / _filled_in(resolved["truth"], words))
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
        for output in item.outputs:
            try:
                refuse_inputs(output, [*item.inputs, file])
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
