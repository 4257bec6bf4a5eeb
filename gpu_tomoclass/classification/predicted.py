"""Predict what a run takes on a GPU that is not here: for a head node without one.

Reading, the GPU and writing work at the same time, so the longest of them counts, with what is before and after.

Memory comes from the same dry run as every plan. Times come from ``predicted_speed.json``: seconds per voxel of each
family on each GPU, with ``basis``, where they are from: counted by ``benchmarks/roofline``, whose ``--ship`` writes the
table, or for some GPUs only scaled from another one. Nobody has measured them, so a time is given as a range.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from gpu_tomoclass.classification.on_device import used_blocks
from gpu_tomoclass.classification.pipeline import n_writers
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.device import DryDevice
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import CUBES, Aspect, FeatureBank, FeatureBlock, smallest_cluster
from gpu_tomoclass.model import Model

TABLE = Path(__file__).with_name("predicted_speed.json")
USABLE = 0.95  # share of a GPU's memory; the rest is the context's and the driver's
RANGE = (
    0.6,
    1.8,
)  # shortest and longest, as multiples of the prediction; reading the machine code by hand gave 1.1 to 1.8
# Busy seconds of the threads that read (and prepare) and that write, by benchmarks/results/finish.json, where computing
# is free: per voxel; of files that are not OME-Zarr or are, of labels and of each class as bytes.
READ_SECONDS = 7.2e-9
WRITE_SECONDS = {False: (1.34e-8, 1.82e-8), True: (4.88e-8, 4.43e-8)}
START_SECONDS = (
    1.8  # 1.3 measured here of importing CuPy and our own and packing a forest; a context and cubins assumed
)
GRAPH_SECONDS = 1e-4  # of the host, for a family of a slab whose launches are repeated; assumed
STREAMS = 2
# What a channel across planes costs grows with this power of its reach: with the voxels of a ball, with its rows, or
# with the taps of three passes.
POWERS = {"mean_3d": 3, "variance_3d": 3, "median_3d": 2, "minimum_3d": 2, "maximum_3d": 2}


@dataclass(frozen=True)
class PredictedTime:
    """Seconds of a run on a GPU, predicted.

    Attributes
    ----------
    gpu : str
    kernels, launching, reading, writing : float
        Of stages that work at the same time: the GPU; Python, which asks it; the thread that reads; those that write.
    around : float
        Before the first slab is on the GPU and after the last has left it: starting, reading one, writing one.
    seconds : float
        The longest of the stages, and what is around them.
    at_least, at_most : float
    assumptions : sequence of str
    """

    gpu: str
    kernels: float
    launching: float
    reading: float
    writing: float
    around: float
    seconds: float
    at_least: float
    at_most: float
    assumptions: Sequence[str]


class PlannedGpu(DryDevice):
    """A GPU of the table, with all of its memory free; computes nothing."""

    def __init__(self, name: str) -> None:
        super().__init__("cuda")
        self.row = gpu_row(name)
        self.cluster_blocks, self.shared_bytes = self.row["cluster_blocks"], self.row["shared_bytes"]
        self.description = f"{self.row['name']}, which is not here: predicted"

    def free_memory(self) -> int:
        return int(USABLE * self.row["memory"])

    def side_by_side(self) -> tuple[DryDevice, int]:
        return self, STREAMS


@cache
def _table() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def planned_gpus() -> tuple[str, ...]:
    """Names of the GPUs that can be planned for."""
    return tuple(_table()["gpus"])


def gpu_row(name: str) -> dict[str, Any]:
    """Row of the table for a GPU.

    Raises
    ------
    UsageError
        If it has none of this name.
    """
    found: dict[str, dict[str, Any]] = _table()["gpus"]
    if name not in found:
        raise UsageError(f"nothing is known about a GPU {name!r}", do=f"choose one of {', '.join(found)}")
    return found[name]


def predict_time(
    model: Model,
    name: str,
    *,
    shape: tuple[int, int, int],
    slab_planes: int,
    products: ProductOptions,
    aspect: Aspect = CUBES,
    is_zarr: bool = False,
) -> PredictedTime:
    """Time of classifying (nz, ny, nx) voxels of this aspect by slabs, file to file: OME-Zarr, or another format.

    Families that the table does not have count as the most expensive of the paper's, per channel.

    Raises
    ------
    UsageError
        If the GPU is not in the table.
    """
    row, n_voxels = gpu_row(name), math.prod(shape)
    per_voxel, launches, unknown = 0.0, row["launches"]["forest"], []
    of_paper = _weights(FeatureBank.create("paper").blocks)
    dearest = max(row["seconds_per_voxel"][family] / weight for family, weight in of_paper.items())
    reference = {**of_paper, **_weights(FeatureBank.create("weka-3d").blocks)}
    blocks = used_blocks(model)
    fits = smallest_cluster(PlannedGpu(name), *shape[1:]) > 0
    large = {} if fits else row["large_planes"]
    for family, weight in _weights(blocks, aspect).items():
        seconds = large[family]["seconds_per_voxel"] if family in large else row["seconds_per_voxel"].get(family)
        if seconds is None:
            unknown.append(family)
            per_voxel += weight * dearest
            launches += 10
        else:
            share = weight / reference[family]
            per_voxel += share * seconds
            per_slab = large[family]["launches"] if family in large else row["launches"][family]
            launches += math.ceil(share * per_slab)
    per_voxel += row["seconds_per_voxel"]["forest"] * _forest_weight(model)
    kernels = n_voxels * per_voxel
    n_slabs = math.ceil(shape[0] / slab_planes)
    kinds = 1 + bool(shape[0] % slab_planes)  # the last slab is smaller
    anew = min(n_slabs, 2 * STREAMS * kinds)  # each thread asks twice before launches are repeated as graphs
    n_graphs = len({block.family for block in blocks}) + row["launches"]["forest"]
    launching = anew * launches * _table()["launch_seconds"] + (n_slabs - anew) * n_graphs * GRAPH_SECONDS
    reading = n_voxels * READ_SECONDS
    writing = n_voxels * _write_seconds(products, len(model.classes), is_zarr=is_zarr) / n_writers(on_gpu=True)
    around = START_SECONDS + (reading + writing) * min(1.0, slab_planes / shape[0])
    seconds = max(kernels, launching, reading, writing) + around
    assumptions = [
        f"nobody has measured on this GPU: {row['basis']}; 70 microseconds of Python per launch, later slabs as graphs",
        "reading, computing and writing at the same time, as measured without a GPU on a local disk with the volume in"
        f" memory; {n_writers(on_gpu=True)} threads that write side by side, which takes a node of 8 cores or more;"
        " a cold start compiles for about 10 seconds",
    ]
    if any(block.dimensions == 3 for block in blocks):
        assumptions.append("families across planes each for itself, of a slab between two others with its whole halo")
    if unknown:
        assumptions.append(f"not in the table, counted as its dearest family: {', '.join(unknown)}")
    low, high = RANGE
    at_least, at_most = low * seconds, high * seconds
    return PredictedTime(
        name, kernels, launching, reading, writing, around, seconds, at_least, at_most, assumptions
    )  # fmt: skip


def _write_seconds(products: ProductOptions, n_classes: int, *, is_zarr: bool) -> float:
    """Of a thread, per voxel; what is float32 takes four times as long as bytes."""
    of_labels, of_bytes = WRITE_SECONDS[is_zarr]
    n_bytes = {None: 0, "uint8": 1, "float32": 4}[products.probabilities] * n_classes + 4 * bool(products.uncertainty)
    return of_labels + of_bytes * n_bytes


def _weights(blocks: Sequence[FeatureBlock], aspect: Aspect = CUBES) -> Mapping[str, float]:
    """Work of each family, smoothed planes with the others, in channels: diffusion's times the number of its
    smoothings, times a power of their reach across planes."""
    found: dict[str, float] = {}
    for block in blocks:
        work: float = dict(block.parameters).get("smoothings", 1) * len(block.channels)
        family = block.family
        if block.is_smoothed:  # the kernels of the family of planes; smoothing takes little
            family = family.removeprefix("z_")
        elif block.dimensions == 3:
            work *= max(block.reaches(aspect)) ** POWERS.get(family, 1)
        found[family] = found.get(family, 0.0) + work
    return found


def _forest_weight(model: Model) -> float:
    """Of the forest, as a share of the table's: by its trees and the depth that so many nodes ask for."""
    usual, forest = _table()["forest"], model.forest
    depth = math.log2(max(2.0, forest.n_nodes / forest.n_trees))
    return forest.n_trees / usual["n_trees"] * depth / math.log2(usual["n_nodes"] / usual["n_trees"])


def batch_script(
    command: Sequence[str], *, gpu: str, host_bytes: int, seconds: float, cores: int = 16, job: str = "classify"
) -> list[str]:
    """Lines of a script for Slurm's ``sbatch``: one GPU, memory with a quarter more, three times the predicted time.

    Parameters
    ----------
    command : sequence of str
        Its words, quoted for a shell.
    gpu : str
        As the cluster names it.
    host_bytes : int
        That the command needs at most.
    seconds : float
        Predicted.
    cores : int
    job : str
        Its name.
    """
    minutes = max(10, math.ceil(3 * seconds / 60))
    return [
        "#!/bin/bash",
        f"#SBATCH --job-name={job}",
        f"#SBATCH --gpus={gpu}:1",
        f"#SBATCH --cpus-per-task={cores}",
        f"#SBATCH --mem={math.ceil(1.25 * host_bytes / 2**30)}G",
        f"#SBATCH --time={minutes // 60:02d}:{minutes % 60:02d}:00",
        "",
        " ".join(command),
    ]
