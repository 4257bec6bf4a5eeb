"""Banks found from the channel names of Trainable Weka Segmentation (TWS).

TWS's training files and models hold nothing else about their features. The names are read by trial: a number in a name
is a sigma of a family if the family's own labels for that sigma are among the names.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, TypeVar

from gpu_tomoclass.errors import ModelError
from gpu_tomoclass.features.families import FAMILIES, ORIGINAL, VOLUME_FAMILIES
from gpu_tomoclass.features.family import SIGMA_LIMITS, Family, Request, single, wide_number

VOLUME_PREFIX = "3D_"
"""Before TWS's names of channels that look across planes, in a bank that has other families, too."""
# Families that only one kind of TWS's features has, and ours of smoothed planes; the rest of a name is numbers.
ONLY_3D = re.compile(
    r"Z_\d|Edges_|Difference_of_Gaussian_|Hessian_(largest|middle|smallest)_|Structure_middle_|Derivatives_\d+_\d+_\d+_"
)
ONLY_RGB = ("Hue", "Saturation", "Brightness")
# In which TWS writes what both kinds have, within one sigma.
ORDER_2D = ("Gaussian_blur", "Variance", "Mean", "Minimum", "Maximum", "Median", "Laplacian")
ORDER_3D = ("Gaussian_blur", "Laplacian", "Minimum", "Maximum", "Mean", "Median", "Variance")
IN_NM = re.compile(r"_\d+(\.\d+)?nm(_|$)")
NUMBER = re.compile(r"\d+(?:\.\d+)?")
PATCH = re.compile(r"Kuwahara_(\d{1,6})_ |Membrane_projections_\d_(\d{1,6})_")
IS_SMOOTHED = re.compile(rf"^(?:{VOLUME_PREFIX})?Z_(\d{{1,3}}(?:\.\d+)?)_")
THICKNESS = re.compile(r"Membrane_projections_\d_\d+_(\d{1,6})$|Anisotropic_diffusion_.*_(\d{1,6})\.0$")

Number = TypeVar("Number", int, float)


def image_kind(relation: str, names: Sequence[str]) -> str:
    """Kind of features that a classifier or training rows of TWS are of.

    Parameters
    ----------
    relation : str
        The name of the training data, such as ``TWS-2D-v4.0.0-grayscale``; ``segment`` or anything else says nothing.
    names : sequence of str
        The channels, in the order of the file.

    Returns
    -------
    str
        ``"2D"`` or ``"3D"``, of grey images; ``"RGB"``, of colour images; ``""`` where neither the relation nor the
        names nor, for families of one name in 2-D and 3-D, their order tell.
    """
    said = re.match(r"TWS-(2D|3D)-.*", relation)
    if (said and "RGB" in relation) or any(name in ONLY_RGB for name in names):
        return "RGB"
    if any(name.startswith(VOLUME_PREFIX) for name in names):
        return "2D"  # of both; the prefix tells which is which
    if (said and said[1] == "3D") or any(ONLY_3D.match(name) for name in names):
        return "3D"
    by_sigma: dict[str, list[str]] = {}
    for name in names:
        if name != "original":
            family, _, sigma = name.rpartition("_")
            by_sigma.setdefault(sigma, []).append(family)
    if said or not all(set(families) <= set(ORDER_2D) for families in by_sigma.values()):
        return "2D"
    fits = [
        kind
        for kind, order in (("2D", ORDER_2D), ("3D", ORDER_3D))
        if all(sorted(families, key=order.index) == families for families in by_sigma.values())
    ]
    return fits[0] if len(fits) == 1 else ""


def grey_dimensions(relation: str, names: Sequence[str]) -> tuple[int, list[str]]:
    """Tell whether TWS 2D or 3D made the channels, by :func:`image_kind`.

    Returns
    -------
    dimensions : int
        2 or 3; 2 where nothing tells.
    notes : list of str
        For the user, where nothing tells.

    Raises
    ------
    ModelError
        If the features are of colour images, or of both 2-D and 3-D.
    """
    kind = image_kind(relation, names)
    if kind == "RGB":
        telling = [name for name in names if name in ONLY_RGB] or names[-1:]
        raise ModelError(
            f"features of colour images (relation {relation[:60]!r}, {telling[0][:60]!r}); only grey images are known",
            where="channel names",
            do="train in Fiji on a grey image",
        )
    if kind == "3D":
        families = ("Z_", *(f"{row.weka_name}_" for row in VOLUME_FAMILIES.values()))
        foreign = [name for name in names if name != ORIGINAL.name and not name.startswith(families)]
        if foreign:
            telling = [name for name in names if ONLY_3D.match(name)] or names[-1:]
            raise ModelError(
                f"3-D features (relation {relation[:60]!r}, {telling[0][:60]!r}) have no {foreign[0][:60]!r}",
                where="channel names",
                do="the grey features of TWS are expected, either 2-D or 3-D",
            )
    notes = []
    if kind == "":
        notes = [f"neither the relation, {relation[:60]!r}, nor the channels tell 2-D from 3-D features; taken as 2-D"]
    return (3 if kind == "3D" else 2), notes


def implied_settings(names: Sequence[str], *, dimensions: int | None = None) -> dict[str, Any]:
    """Arguments of :class:`~gpu_tomoclass.features.bank.FeatureBank`: families, sigmas, membrane_thickness,
    membrane_patch.

    Parameters
    ----------
    names : sequence of str
    dimensions : {2, 3}, optional
        Whether TWS 2D or 3D made them; by default :func:`image_kind` decides. Names with :data:`VOLUME_PREFIX` are of a
        bank of both.

    Raises
    ------
    ModelError
        If membrane settings contradict each other.
    """
    in_nm = [name for name in names if IN_NM.search(name)]
    if in_nm:
        raise ModelError(
            f"{in_nm[0][:60]!r} has a sigma in nm: a table does not tell the voxels it was computed on",
            where="channel names",
            do="train on the volume and its strokes, with the same --sigmas and --z-sigma",
        )
    plain = [re.sub(IS_SMOOTHED, "", name) for name in names]
    thickness = _setting(plain, THICKNESS, what="membrane thickness", default=1)
    patch = _setting(plain, PATCH, what="membrane patch", default=19)
    along_z = _setting(names, IS_SMOOTHED, what="sigma along z", default=0.0)
    families, sigmas = [], []
    across = [name.removeprefix(VOLUME_PREFIX) for name in names if name.startswith(VOLUME_PREFIX)]
    of_planes = [name for name in names if not name.startswith(VOLUME_PREFIX)]
    if not across and (dimensions == 3 or (dimensions is None and image_kind("", names) == "3D")):
        across, of_planes = of_planes, []
    for row in FAMILIES.values():
        candidates = across if row.dimensions == 3 else of_planes
        starts = f"Z_{wide_number(along_z)}_{row.weka_name}_" if row.is_smoothed else f"{row.weka_name}_"
        mine = [name for name in candidates if name.startswith(starts)]
        found = _sigmas(row, mine, len(starts), thickness=thickness, patch=patch, z=along_z)
        if mine and (found or not row.per_sigma):
            families.append(row.name)
            sigmas.append(found)
    return {
        "families": tuple(families),
        "sigmas": tuple(sigmas),
        "membrane_thickness": thickness,
        "membrane_patch": patch,
        **({"z_sigma": single(along_z)} if along_z else {}),
    }


def _setting(names: Sequence[str], pattern: re.Pattern[str], *, what: str, default: Number) -> Number:
    kind = type(default)
    found = {kind(match[match.lastindex or 0]) for name in names if (match := pattern.match(name))}
    if len(found) > 1:
        raise ModelError(f"more than one {what}: {', '.join(map(str, sorted(found)))}", where="channel names")
    return found.pop() if found else default


def _sigmas(
    row: Family, names: Sequence[str], start: int, *, thickness: int, patch: int, z: float
) -> tuple[float, ...]:
    """The sigmas of a family, from those of the names that are its own."""
    if not row.per_sigma:
        return ()
    numbers = {single(float(text)) for name in names for text in NUMBER.findall(name[start:])}
    candidates = sorted(s for s in numbers if s <= SIGMA_LIMITS[1] and (s == int(s) or not row.whole_pixels))
    found = set()
    for sigma in candidates:
        smaller = tuple(s for s in candidates if s < sigma)
        parameters = row.parameters(Request(sigma, smaller, thickness, patch, z=z))
        if not set(row.labels(**parameters)).isdisjoint(names):
            found.add(sigma)
            found.update(parameters.get("smaller", ()))
    return tuple(sorted(found))
