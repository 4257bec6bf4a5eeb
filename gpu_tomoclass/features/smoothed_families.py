"""Families of planes smoothed along z: ours, not TWS's.

A plane's noise is its own, while the specimen goes on above and below. So the volume is smoothed along z alone, and
any family of planes is computed of the smoothed planes: ``z_hessian`` is the Hessian of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from gpu_tomoclass.features.family import Family, Request, size_text
from gpu_tomoclass.features.reference.volume_blur import blur_reach

SMOOTHED, SMOOTHING = 12, 40  # bytes per pixel: beside the filter, and of the smoothing itself


def of_smoothed_planes(row: Family) -> Family:
    """The family of planes ``row``, computed of planes that are smoothed along z."""

    def within(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda z, z_nm=False, **parameters: function(**parameters)

    def parameters(request: Request) -> dict[str, Any]:
        along = {"z": request.z} | ({"z_nm": True} if request.z_nm else {})
        return row.parameters(request) | along

    def labels(z: float, z_nm: bool = False, **parameters: Any) -> list[str]:
        return [f"Z_{size_text(z, nm=z_nm)}_{name}" for name in row.labels(**parameters)]

    def parts(**given: Any) -> list[dict[str, Any]]:
        along = {name: value for name, value in given.items() if name in ("z", "z_nm")}
        plain = {name: value for name, value in given.items() if name not in along}
        return [part | along for part in row.parts(**plain)]

    return replace(
        row,
        name=f"z_{row.name}",
        dimensions=3,
        is_smoothed=True,
        parameters=parameters,
        labels=labels,
        parts=parts,
        reach=lambda aspect, z, **parameters: blur_reach(z, aspect),
        reach_in_plane=within(row.reach),
        changed_in=within(row.changed_in),
        has_kernel=within(row.has_kernel),
        scratch=max(row.scratch + SMOOTHED, SMOOTHING),
    )
