"""The table that ``gpu-tomoclass plan --gpu`` reads, from what ``benchmarks/roofline`` predicted."""

from __future__ import annotations

import json
import math
from collections.abc import Set
from typing import Any

from benchmarks.roofline.gpus import HOST_SECONDS
from benchmarks.roofline.volumes import volume_families

NAMES = {
    "h100": "H100 SXM 80 GB",
    "h200": "H200 SXM 141 GB",
    "b200": "B200 SXM 180 GB",
    "a100": "A100 SXM 40 GB",
    "l40s": "L40S 48 GB",
    "rtx4090": "RTX 4090",
}


COUNTED = "kernels counted by benchmarks/roofline"
ACROSS = f"families across planes: {COUNTED}"


def table(stored: dict[str, Any], *, n_trees: int, n_nodes: int, earlier: dict[str, Any] | None = None) -> str:
    """JSON: of each GPU its memory, and of each family and the forest seconds per voxel and launches per slab.

    Parameters
    ----------
    stored : dict
        As ``results/roofline.json``.
    n_trees, n_nodes : int
        Of the forest that was counted.
    earlier : dict, optional
        The table before; what has not been counted now stays as it is there.
    """
    n_voxels, gpus = math.prod(stored["volume"]), {}
    predictions = {p["gpu"]["name"]: p for p in stored["predictions"]}
    for short, name in NAMES.items():
        found = predictions[name]
        launches: dict[str, int] = {}
        for kernel in found["kernels"]:
            slab = found["across_slab_planes" if kernel["part"] in volume_families() else "slab_planes"]
            n_slabs = math.ceil(stored["volume"][0] / slab)
            launches[kernel["part"]] = launches.get(kernel["part"], 0) + kernel["launches"] // n_slabs
        seconds = {part: float(f"{s / n_voxels:.3e}") for part, s in found["parts_s"].items()}
        before = {} if earlier is None else earlier["gpus"].get(short, {})
        kept = before.get("seconds_per_voxel", {})
        basis, rest = COUNTED, kept.keys() - seconds.keys()
        if rest and not _is_counted(rest, before["basis"]):
            counted = "families across planes" if seconds.keys() <= set(volume_families()) else ", ".join(seconds)
            basis = f"{before['basis'].split('; ')[0]}; {counted}: {COUNTED}"
        gpus[short] = {
            "name": name,
            "basis": basis,
            "memory": found["gpu"]["memory"],
            "seconds_per_voxel": {**kept, **seconds},
            "launches": {**before.get("launches", {}), **launches},
            "cluster_blocks": found["cluster_blocks"],
            "shared_bytes": found["shared_bytes"],
            "large_planes": {
                **before.get("large_planes", {}),
                **{
                    part: {
                        "seconds_per_voxel": float(f"{large['seconds'] / n_voxels:.3e}"),
                        "launches": large["launches"] // math.ceil(stored["volume"][0] / found["slab_planes"]),
                    }
                    for part, large in found["large_planes"].items()
                },
            },
        }
    shipped = {
        "what": "predicted, nothing was measured on a GPU; each GPU says where its times are from",
        "launch_seconds": HOST_SECONDS,
        "forest": {"n_trees": n_trees, "n_nodes": n_nodes}
        if earlier is None or "forest" in stored["predictions"][0]["parts_s"]
        else earlier["forest"],
        "gpus": gpus,
    }
    return json.dumps(shipped, indent=1) + "\n"


def _is_counted(families: Set[str], basis: str) -> bool:
    """Tell whether a table's basis says that these families have been counted."""
    return basis == COUNTED or (families <= set(volume_families()) and ACROSS in basis.split("; "))
