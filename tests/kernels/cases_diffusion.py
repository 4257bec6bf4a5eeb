"""Anisotropic diffusion: hundreds of steps, of which each depends on the largest change anywhere."""

from __future__ import annotations

from dataclasses import replace
from unittest import mock

import numpy as np
from family_cases import Planes, family_case, run_family
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.features.accelerated import diffusion


def blocks(*smoothings: int, edge_threshold: float = 1.0) -> tuple[dict[str, float], ...]:
    return tuple({"smoothings": n, "edge_threshold": edge_threshold} for n in smoothings)


SMALL = (
    Planes(2, 5, 11, parameters=blocks(1)),
    Planes(1, 3, 35, "float", blocks(1)),
    Planes(1, 18, 2, "steps", blocks(1, edge_threshold=4.0)),
    Planes(1, 1, 5, parameters=blocks(1, 2)),
    Planes(1, 1, 1, parameters=blocks(1)),
    Planes(1, 2, 3, "constant", blocks(1)),
    Planes(1, 50, 50, "float", blocks(1)),  # diffusion_start: several chunks
)
# In 2 KB: clusters of two blocks, of eight with some that have no rows, of four whose rows are of two strips.
IN_CLUSTERS = (
    Planes(1, 14, 11, "float", blocks(1)),
    Planes(1, 9, 30, parameters=blocks(1)),
    Planes(2, 7, 37, "denormals", blocks(2, edge_threshold=4.0)),
)


def in_clusters(device: Device, inputs: Inputs) -> np.ndarray:
    """On a GPU that has clusters, though of small blocks; where none is wanted as ever."""
    if not device.wants_gpu_plan:
        return run_family("anisotropic_diffusion", device, inputs)
    with (
        mock.patch.multiple(device, cluster_blocks=8, shared_bytes=2048, create=True),
        mock.patch.object(diffusion, "CLUSTER_THREADS", 64),
        mock.patch.object(diffusion, "_run_steps", side_effect=AssertionError("no cluster")),
    ):
        return run_family("anisotropic_diffusion", device, inputs)


def cluster_case() -> Case:
    case = family_case(
        "anisotropic_diffusion",
        sizes=(*IN_CLUSTERS, Planes(1, 2, 3, "constant", blocks(1)), Planes(1, 20, 21, parameters=blocks(3, 16))),
        small_sizes=IN_CLUSTERS,
        name="anisotropic_diffusion in clusters",
    )
    return replace(case, run=in_clusters, needs_clusters=True)


CASES = [
    cluster_case(),
    family_case(
        "anisotropic_diffusion",
        sizes=(
            *SMALL,
            Planes(3, 56, 64, "small8", blocks(1, 2, 4, 8, 16)),
            Planes(3, 64, 56, "small16", blocks(1, 2, 4, 8, 16)),
            Planes(2, 56, 64, "small32", blocks(1, 2, 4, 8, 16)),
            Planes(2, 61, 67, parameters=blocks(3, 1, 5)),
            Planes(1, 41, 37, "steps", (*blocks(4), *blocks(2, edge_threshold=3.0))),
            Planes(2, 23, 131, "float", blocks(16)),
            Planes(1, 1, 131, parameters=blocks(8)),
            Planes(1, 131, 1, parameters=blocks(8)),
            Planes(1, 7, 1, parameters=blocks(2)),
            Planes(1, 317, 428, parameters=blocks(1, 4)),
            Planes(1, 96, 128, "steps", blocks(1)),  # few grey levels: squares in the middle between two last places
        ),
        small_sizes=SMALL,
    ),
]
