"""The axes of a HyperSpy signal, as its files keep them: attributes of ``axis-0``, ``axis-1``, .. beside ``data``.

The same in HDF5 (``.hspy``) and in Zarr (``.zspy``); see the formats' pages in RosettaSciIO's documentation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gpu_tomoclass.volumes.units import nanometres

SIGNALS = "Experiments"  # the group that holds a group per signal


def signal_axes(
    attributes: Sequence[Mapping[str, Any]],
) -> tuple[list[str] | None, list[float | None], list[float | None]]:
    """Names (None: they say nothing of y and x), and nm of a step and of the first voxel along each stored axis.

    Raises
    ------
    IndexError, TypeError, ValueError
        If they are damaged.
    """
    n = len(attributes)
    names, sizes, origins = [""] * n, [None] * n, [None] * n  # type: list[str], list[float | None], list[float | None]
    for number, axis in enumerate(attributes):
        at = int(axis.get("index_in_array", number))
        names[at] = text(axis.get("name", "")).lower()
        scale, unit = axis.get("scale"), nanometres(text(axis.get("units", "")))
        if scale is not None and unit is not None:
            sizes[at] = abs(float(scale)) * unit
            origins[at] = float(axis.get("offset", 0)) * unit
    if {*names} >= {"y", "x"}:
        return names, sizes, origins
    return (["z", "y", "x"] if n == 3 else None), sizes, origins


def text(value: Any) -> str:
    """An attribute as text: HDF5 gives bytes, or an array of one."""
    if getattr(value, "size", 0) == 1 and hasattr(value, "ravel"):
        value = value.ravel()[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
