"""The table that ``gpu-tomoclass plan --gpu`` reads, from what ``benchmarks/roofline`` predicted."""

from __future__ import annotations

import json
import math
from typing import Any

from benchmarks.roofline.gpus import HOST_SECONDS

NAMES = {
    "h100": "H100 SXM 80 GB",
    "h200": "H200 SXM 141 GB",
    "b200": "B200 SXM 180 GB",
    "a100": "A100 SXM 40 GB",
    "l40s": "L40S 48 GB",
    "rtx4090": "RTX 4090",
}


def table(stored: dict[str, Any], *, n_trees: int, n_nodes: int) -> str:
    """JSON: of each GPU its memory, and of each family and the forest seconds per voxel and launches per slab.

    Parameters
    ----------
    stored : dict
        As ``results/roofline.json``.
    n_trees, n_nodes : int
        Of the forest that was counted.
    """
    n_voxels, gpus = math.prod(stored["volume"]), {}
    predictions = {p["gpu"]["name"]: p for p in stored["predictions"]}
    for short, name in NAMES.items():
        found = predictions[name]
        n_slabs = math.ceil(stored["volume"][0] / found["slab_planes"])
        launches: dict[str, int] = {}
        for kernel in found["kernels"]:
            launches[kernel["part"]] = launches.get(kernel["part"], 0) + kernel["launches"] // n_slabs
        gpus[short] = {
            "name": name,
            "basis": "kernels counted by benchmarks/roofline",
            "memory": found["gpu"]["memory"],
            "seconds_per_voxel": {part: float(f"{s / n_voxels:.3e}") for part, s in found["parts_s"].items()},
            "launches": launches,
        }
    shipped = {
        "what": "predicted, nothing was measured on a GPU; each GPU says where its times are from",
        "launch_seconds": HOST_SECONDS,
        "forest": {"n_trees": n_trees, "n_nodes": n_nodes},
        "gpus": gpus,
    }
    return json.dumps(shipped, indent=1) + "\n"
