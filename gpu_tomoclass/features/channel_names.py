"""What a list of channel names of Trainable Weka Segmentation (TWS) says about the bank that made it.

TWS's training files and models hold nothing else about their features. The names are read by trial: a number in a name
is a sigma of a family if the family's own labels for that sigma are among the names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.families import FAMILIES, SIGMA_LIMITS, Family, Request, single

NUMBER = re.compile(r"\d+(?:\.\d+)?")
PATCH = re.compile(r"Kuwahara_(\d{1,6})_ |Membrane_projections_\d_(\d{1,6})_")
THICKNESS = re.compile(r"Membrane_projections_\d_\d+_(\d{1,6})$|Anisotropic_diffusion_.*_(\d{1,6})\.0$")


def implied_settings(names: Sequence[str]) -> dict[str, Any]:
    """Arguments of :class:`~gpu_tomoclass.features.bank.FeatureBank`: families, sigmas, membrane_thickness,
    membrane_patch.

    Raises
    ------
    ModelError
        If membrane settings contradict each other.
    """
    thickness = _setting(names, THICKNESS, what="membrane thickness", default=1)
    patch = _setting(names, PATCH, what="membrane patch", default=19)
    families, sigmas = [], []
    for row in FAMILIES.values():
        mine = [name for name in names if name.startswith(row.weka_name + "_")]
        found = _sigmas(row, mine, thickness=thickness, patch=patch)
        if mine and (found or not row.per_sigma):
            families.append(row.name)
            sigmas.append(found)
    return {
        "families": tuple(families),
        "sigmas": tuple(sigmas),
        "membrane_thickness": thickness,
        "membrane_patch": patch,
    }


def _setting(names: Sequence[str], pattern: re.Pattern[str], *, what: str, default: int) -> int:
    found = {int(match[match.lastindex or 0]) for name in names if (match := pattern.match(name))}
    if len(found) > 1:
        raise ModelError(f"more than one {what}: {', '.join(map(str, sorted(found)))}", where="channel names")
    return found.pop() if found else default


def _sigmas(row: Family, names: Sequence[str], *, thickness: int, patch: int) -> tuple[float, ...]:
    """The sigmas of a family, from those of the names that are its own."""
    if not row.per_sigma:
        return ()
    numbers = {single(float(text)) for name in names for text in NUMBER.findall(name)}
    candidates = sorted(s for s in numbers if s <= SIGMA_LIMITS[1] and (s == int(s) or not row.whole_pixels))
    found = set()
    for sigma in candidates:
        smaller = tuple(s for s in candidates if s < sigma)
        parameters = row.parameters(Request(sigma, smaller, thickness, patch))
        if not set(row.labels(**parameters)).isdisjoint(names):
            found.add(sigma)
            found.update(parameters.get("smaller", ()))
    return tuple(sorted(found))
