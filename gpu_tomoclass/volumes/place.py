"""Where a volume lies in a larger one, as MRC headers say it: kept in the metadata as ``place`` through every output.

Every format that is written has a place for it: the header of MRC, ``xorigin``, ``yorigin`` and ``zorigin`` (pixels) of
ImageJ TIFF, ``PositionX``, .. of the first plane in OME-TIFF, the translation of OME-Zarr; and our own metadata.

``{"origin_nm": [z, y, x], "start": [z, y, x]}``: the position of the first voxel, and its index on the grid of the
whole map (``origin`` and ``nxstart, nystart, nzstart`` of MRC2014; programs use one or the other, so both are kept).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

KEY = "place"


def with_place(metadata: Mapping[str, Any], place: Mapping[str, Any] | None) -> dict[str, Any]:
    """The metadata with another place, or without one."""
    rest = {key: value for key, value in metadata.items() if key != KEY}
    return rest if place is None else {**rest, KEY: dict(place)}


def with_origin(
    metadata: Mapping[str, Any],
    origin_nm: Sequence[float | None] | None,
    *,
    voxel_size: Sequence[float] | None = None,
) -> dict[str, Any]:
    """The metadata with the place that a file states as the position (z, y, x) of its first voxel in nm.

    Nothing changes where the file does not say it for all axes, or says what the metadata, which we wrote, say too:
    these know the start as well.
    """
    if origin_nm is None or any(n is None or not math.isfinite(n) for n in origin_nm):
        return dict(metadata)
    origin = [float(f"{n:.9g}") for n in origin_nm if n is not None]
    known = position(metadata, voxel_size) or [0.0, 0.0, 0.0]
    if np.allclose(origin, known, rtol=1e-6, atol=1e-6):
        return dict(metadata)
    return with_place(metadata, {"origin_nm": origin, "start": [0, 0, 0]})


def position(metadata: Mapping[str, Any], voxel_size: Sequence[float] | None) -> list[float] | None:
    """Where the first voxel lies (z, y, x) in nm: the origin, or where it is 0 the start; None without a place."""
    place = read_place(metadata)
    if place is None:
        return None
    origin, start = place["origin_nm"], place["start"]
    if any(origin) or voxel_size is None:
        return list(origin)
    return [n * float(size) for n, size in zip(start, voxel_size, strict=True)]


def read_place(metadata: Mapping[str, Any]) -> dict[str, list[Any]] | None:
    """The place in the metadata, checked; None if there is none that makes sense."""
    place = metadata.get(KEY)
    try:
        assert isinstance(place, Mapping)
        origin, start = [float(n) for n in place["origin_nm"]], [int(n) for n in place["start"]]
    except (AssertionError, KeyError, TypeError, ValueError):
        return None
    return {"origin_nm": origin, "start": start} if len(origin) == len(start) == 3 else None


def moved(
    metadata: Mapping[str, Any],
    *,
    first: int | tuple[int, int, int],
    voxel_size: Sequence[float] | None,
    spacing: int = 1,
) -> dict[str, Any] | None:
    """The place of the planes from ``first`` on, every ``spacing``-th.

    Where ``first`` is a voxel (z, y, x), that of the box which begins there. A volume without a place begins at 0,
    where viewers put it; None for a part of one that begins there, too.

    An origin of 0 with a start that is not 0 stays so, because then the start counts. On a coarser grid a start along z
    that is no multiple of the spacing has no number, and becomes a part of the origin.
    """
    steps = (first, 0, 0) if isinstance(first, int) else first
    place = read_place(metadata)
    if place is None and not any(steps):
        return None
    origin, start = (list(place["origin_nm"]), list(place["start"])) if place else ([0.0, 0.0, 0.0], [0, 0, 0])
    by_start = not any(origin) and any(start)
    for axis, n in enumerate(steps):
        start[axis] += n
        if not by_start and voxel_size is not None:
            origin[axis] += n * float(voxel_size[axis])
    if spacing > 1 and start[0] % spacing:
        if by_start and voxel_size is not None:
            origin = [n * float(size) for n, size in zip(start, voxel_size, strict=True)]
        start = [0, 0, 0]
    else:
        start[0] //= spacing
    return {"origin_nm": origin, "start": start}


def binned_place(
    metadata: Mapping[str, Any], *, bin: tuple[int, int, int], voxel_size: Sequence[float] | None
) -> dict[str, Any] | None:
    """The place of a volume whose voxels are boxes of ``bin`` voxels of ``voxel_size``; None without a voxel size.

    The first box's centre lies half a box less half a voxel from the first voxel's. Starts become part of the origin.
    """
    if voxel_size is None:
        return None
    origin = position(metadata, voxel_size) or [0.0, 0.0, 0.0]
    moved_by = [(n - 1) / 2 * float(size) for n, size in zip(bin, voxel_size, strict=True)]
    return {"origin_nm": [a + b for a, b in zip(origin, moved_by, strict=True)], "start": [0, 0, 0]}


def turned(metadata: Mapping[str, Any], order: str) -> dict[str, Any] | None:
    """The place of a volume whose axes z, y, x are the stored ones that ``order`` names."""
    place = read_place(metadata)
    if place is None:
        return None
    return {key: [values[order.index(letter)] for letter in "zyx"] for key, values in place.items()}
