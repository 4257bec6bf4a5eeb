"""Clicks as a command line and as Python, to be repeated on a cluster or written into a paper."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu_tomoclass.features import FAMILIES, FeatureBank

FLAGS = {  # of train, by keyword
    "features": "--features",
    "sigma_min": "--sigma-min",
    "sigma_max": "--sigma-max",
    "membrane_thickness": "--membrane-thickness",
    "membrane_patch": "--membrane-patch",
    "hessian": "--hessian",
    "gabor": "--gabor",
    "z_sigma": "--z-sigma",
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
        bank = self.settings.get("features")
        asked = bank_keywords(bank) if isinstance(bank, FeatureBank) else {}
        sigmas = asked.pop("sigmas", {})
        settings = _options({**self.settings, **asked}, FLAGS)
        for family, values in sigmas.items():
            settings += ["--sigmas", f"{family}={values}"]
        lines = [["classify", self.volume, self.model, "-o", self.labels, *reading]]
        if self.settings.get("nan", "error") != "error":
            lines[0] += ["--nan", str(self.settings["nan"])]
        if self.trained:
            lines.insert(0, ["train", self.volume, self.strokes, "-o", self.model, *settings, *reading])
        return "\n".join(shlex.join(["gpu-tomoclass", *line]) for line in lines)

    def python(self) -> str:
        """The same as a script."""
        reading = "".join(f", {name}={value!r}" for name, value in self.reading.items())
        settings = "".join(f", {name}={_python(value)}" for name, value in self.settings.items())
        nan = f", nan={self.settings['nan']!r}" if self.settings.get("nan", "error") != "error" else ""
        lines = ["import gpu_tomoclass as gt", "", f"volume = gt.open_volume({self.volume!r}{reading})"]
        if self.trained:
            lines += [f"model = gt.train(volume, {self.strokes!r}{settings})", f"gt.save_model(model, {self.model!r})"]
        else:
            lines.append(f"model = gt.load_model({self.model!r})")
        return "\n".join([*lines, f"gt.classify(volume, model, output={self.labels!r}{nan})", ""])


def bank_keywords(bank: FeatureBank) -> dict[str, Any]:
    """Keywords of :meth:`FeatureBank.create` that make the same channels; those that have their defaults are left out.

    A range of sigmas if there is one that gives them all; else ``sigmas`` of each family as text, ``"1,2,4"`` or
    ``"2,4nm"``. Numbers have the fewest digits that give the same float32.
    """
    settings = {name: getattr(bank, name) for name in ("membrane_thickness", "membrane_patch", "hessian", "gabor")}
    along_z = f"{_digits(bank.z_sigma)}nm" if bank.z_nm else float(_digits(bank.z_sigma))
    families = list(bank.families)
    usual = FeatureBank.create(families)
    if (bank.z_sigma, bank.z_nm) != (usual.z_sigma, usual.z_nm):
        settings["z_sigma"] = along_z
    keywords = {"features": families, **{k: v for k, v in settings.items() if v != getattr(usual, k)}}
    if (bank.sigmas, bank.nm) == (usual.sigmas, usual.nm):
        return keywords
    kept = [sigmas for name, sigmas in zip(families, bank.sigmas, strict=True) if FAMILIES[name].sigmas != "doubled"]
    blurs = [sigma for sigmas in (kept if any(kept) else bank.sigmas) for sigma in sigmas if sigma > 0]
    ends = {"sigma_min": float(_digits(min(blurs, default=1))), "sigma_max": float(_digits(max(blurs, default=1)))}
    for names in (["sigma_max"], ["sigma_min"], ["sigma_min", "sigma_max"]):
        span: dict[str, Any] = {name: ends[name] for name in names}
        if FeatureBank.create(families, **settings, **span) == bank:
            return keywords | span
    sigmas = {}
    for name in families:
        if bank.sigmas_of(name) != usual.sigmas_of(name) or name in bank.nm:
            whole = FAMILIES[name].whole_pixels  # of which only the whole part counts
            numbers = [_digits(int(sigma) if whole else sigma) for sigma in bank.sigmas_of(name)]
            sigmas[name] = ",".join(numbers) + ("nm" if name in bank.nm else "")
    return keywords | {"sigmas": sigmas}


def _digits(sigma: float) -> str:
    return np.format_float_positional(np.float32(sigma), trim="-")


def _python(value: object) -> str:
    if not isinstance(value, FeatureBank):
        return repr(value)
    families, *others = bank_keywords(value).items()
    if not others:
        return repr(families[1])
    return f"gt.FeatureBank.create({families[1]!r}{''.join(f', {name}={given!r}' for name, given in others)})"


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
