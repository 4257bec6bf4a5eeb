"""Clicks as a command line and as Python, to be repeated on a cluster or written into a paper."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

FLAGS = {  # of train, by keyword
    "features": "--features",
    "intensity": "--intensity",
    "nan": "--nan",
    "engine": "--forest",
    "n_trees": "--trees",
    "max_features": "--max-features",
    "max_depth": "--max-depth",
    "min_samples_leaf": "--min-samples-leaf",
    "balance": "--balance",
    "seed": "--seed",
}
READING = {  # of all commands that open a volume
    "voxel_size": "--voxel-size",
    "axes": "--axes",
    "series": "--series",
    "channel": "--channel",
    "allow_missing_planes": "--allow-missing-planes",
    "shape": "--shape",
    "dtype": "--dtype",
    "offset": "--offset",
}


@dataclass(frozen=True)
class Recipe:
    """A training and a classification.

    Attributes
    ----------
    volume, strokes, model, labels : str
        Files.
    settings : mapping
        Keywords of :func:`gpu_tomoclass.train` that differ from the defaults.
    reading : mapping
        Keywords of :func:`gpu_tomoclass.open_volume` that were given.
    trained : bool
        False: the model was opened, and there is nothing to train.
    """

    volume: str
    strokes: str
    model: str
    labels: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    reading: Mapping[str, Any] = field(default_factory=dict)
    trained: bool = True

    def command(self) -> str:
        """Two lines for a shell."""
        reading = _options(self.reading, READING)
        settings = _options(self.settings, FLAGS)
        lines = [["classify", self.volume, self.model, "-o", self.labels, *reading]]
        if self.settings.get("nan", "error") != "error":
            lines[0] += ["--nan", str(self.settings["nan"])]
        if self.trained:
            lines.insert(0, ["train", self.volume, self.strokes, "-o", self.model, *settings, *reading])
        return "\n".join(shlex.join(["gpu-tomoclass", *line]) for line in lines)

    def python(self) -> str:
        """The same as a script."""
        reading = "".join(f", {name}={value!r}" for name, value in self.reading.items())
        settings = "".join(f", {name}={value!r}" for name, value in self.settings.items())
        nan = f", nan={self.settings['nan']!r}" if self.settings.get("nan", "error") != "error" else ""
        lines = ["import gpu_tomoclass as gt", "", f"volume = gt.open_volume({self.volume!r}{reading})"]
        if self.trained:
            lines += [f"model = gt.train(volume, {self.strokes!r}{settings})", f"gt.save_model(model, {self.model!r})"]
        else:
            lines.append(f"model = gt.load_model({self.model!r})")
        return "\n".join([*lines, f"gt.classify(volume, model, output={self.labels!r}{nan})", ""])


def _options(values: Mapping[str, Any], flags: Mapping[str, str]) -> list[str]:
    found = []
    for name, value in values.items():
        if value is True:
            found.append(flags[name])
        elif isinstance(value, Sequence) and not isinstance(value, str):
            found += [flags[name], ",".join(map(str, value))]
        else:
            found += [flags[name], str(value)]
    return found
