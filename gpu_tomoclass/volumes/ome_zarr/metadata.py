"""OME-Zarr metadata of a volume that we write: ``multiscales``, ``image-label`` and ``omero``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.classes import PALETTE, LabelClass
from gpu_tomoclass.volumes.volume import VoxelSize

LARGEST_COARSE = 256  # pixels; levels are added until a plane is no longer than this
SHORT = 64  # an axis no longer than this is not halved


ANGSTROMS = 10  # in a nanometre
PORTAL_FACTORS = [(1, 1, 1), (2, 2, 2), (4, 4, 4)]


def level_factors(shape: tuple[int, int, int]) -> list[tuple[int, int, int]]:
    """By how much each level of a pyramid is coarser than the full resolution, along z, y, x; the first is (1, 1, 1).

    Each level halves the axes that are longer than ``SHORT``, until planes are at most ``LARGEST_COARSE`` pixels long.
    """
    factors, lengths = [(1, 1, 1)], shape
    while max(lengths[1:]) > LARGEST_COARSE:
        step = tuple(2 if n > SHORT else 1 for n in lengths)
        lengths = tuple(-(-n // s) for n, s in zip(lengths, step, strict=True))  # type: ignore[assignment]
        z, y, x = (f * s for f, s in zip(factors[-1], step, strict=True))
        factors.append((z, y, x))
    return factors


def ome_metadata(
    name: str,
    dtype: np.dtype[Any],
    voxel_size: VoxelSize | None,
    classes: Sequence[LabelClass],
    channels: Sequence[str],
    *,
    factors: Sequence[tuple[int, int, int]] = ((1, 1, 1),),
    origin: Sequence[float] | None = None,
    windows: Sequence[tuple[float, float]] | None = None,
    in_angstroms: bool = False,
) -> dict[str, Any]:
    """``multiscales``, ``image-label`` and ``omero`` without versions.

    ``origin`` is the position (z, y, x) of the first voxel in nm, which counts with a voxel size; ``windows`` are the
    values of each channel that viewers show as black and white, by default 0 to 1, or the range of the integers.

    A coarse voxel of labels is the first of those it stands for; of anything else it is their mean, so its centre lies
    elsewhere, which a translation says.
    """
    axes: list[dict[str, str]] = [{"name": "c", "type": "channel"}] if channels else []
    for letter in "zyx":
        unit = "angstrom" if in_angstroms else "nanometer"
        axes.append({"name": letter, "type": "space"} | ({"unit": unit} if voxel_size else {}))
    of_nm = ANGSTROMS if in_angstroms else 1
    levels = []
    for i, factor in enumerate(factors):
        lead, voxel = (
            [1.0] * len(channels[:1]),
            [s * of_nm for s in map(float, voxel_size)] if voxel_size else [1.0] * 3,
        )
        scale = lead + [s * f for s, f in zip(voxel, factor, strict=True)]
        transformations: list[dict[str, Any]] = [{"type": "scale", "scale": scale}]
        middle = 0 if classes else 0.5  # the middle of a coarse voxel, in voxels of the finest level
        at = [o * of_nm for o in origin] if origin is not None and voxel_size is not None else (0.0, 0.0, 0.0)
        place = [o + s * (f - 1) * middle for o, s, f in zip(at, voxel, factor, strict=True)]
        if any(place):
            shift = [0.0 for _ in lead] + place
            transformations.append({"type": "translation", "translation": shift})
        levels.append({"path": str(i), "coordinateTransformations": transformations})
    image: dict[str, Any] = {"name": name.split(".")[0] or name, "axes": axes, "datasets": levels}
    if len(levels) > 1:
        image["type"] = "nearest" if classes else "mean"
    ome: dict[str, Any] = {"multiscales": [image]}
    if classes:
        # 0 is no class: transparent, so that viewers do not choose a colour for it.
        colours = [{"label-value": 0, "rgba": [0, 0, 0, 0]}]
        colours += [{"label-value": c.value, "rgba": [*c.colour, 255]} for c in classes]
        properties = [{"label-value": 0, "class": "unlabelled"}]
        properties += [{"label-value": c.value, "class": c.name} for c in classes]
        ome["image-label"] = {"colors": colours, "properties": properties}
    if channels:
        top = 1.0 if dtype.kind == "f" else float(np.iinfo(dtype).max)
        shown = windows or [(0.0, top)] * len(channels)
        ome["omero"] = {
            "channels": [
                {"label": label, "active": True, "color": "{:02X}{:02X}{:02X}".format(*colour),
                 "window": {"min": low, "max": high, "start": low, "end": high}}
                for label, colour, (low, high) in zip(channels, _cycle(PALETTE, len(channels)), shown, strict=True)
            ]
        }  # fmt: skip
    return ome


def with_versions(ome: Mapping[str, Any]) -> dict[str, Any]:
    """Version 0.4 of each part, which from 0.5 on stands once above them."""
    out = dict(ome)
    out["multiscales"] = [{"version": "0.4", **image} for image in ome["multiscales"]]
    for part in ("image-label", "omero"):
        if part in ome:
            out[part] = {"version": "0.4", **ome[part]}
    return out


def _cycle(colours: Sequence[tuple[int, int, int]], n: int) -> list[tuple[int, int, int]]:
    return [colours[i % len(colours)] for i in range(n)]
