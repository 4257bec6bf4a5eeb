"""Diffusion in clusters of thread blocks: its work, counted on two blocks of the very shape, and its time.

Nothing of a job leaves the chip, so that its time is that of instructions, of shared memory, and of the two barriers of
each smoothing, at which a multiprocessor has nothing else to do: one block fills its memory.
"""

from __future__ import annotations

import math
from collections import Counter
from functools import cache
from unittest import mock

import numpy as np
import simulated_cupy
from bench_native import sample_plane

from benchmarks.roofline.counts import CountingMachine, Launch
from benchmarks.roofline.gpus import Gpu
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.diffusion import anisotropic_diffusion, cluster_bytes
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.diffusion import N_ITERATIONS

BARRIER_CYCLES = 500  # from the last arrival to the first instruction behind it, other blocks' writes included
SMOOTHINGS = (1, 2, 4, 8, 16)  # of the paper's channels, two jobs each


def cluster_launch(launch: Launch) -> bool:
    """Tell whether the blocks of a launch form clusters."""
    return "CLUSTER" in dict(launch.defines)


def clusters_at_once(gpu: Gpu, n_blocks: int) -> int:
    """Clusters that run at a time, a block on each multiprocessor.

    These come in groups that a cluster does not span and whose sizes differ: one fewer is assumed than would fill the
    GPU.
    """
    return max(1, gpu.multiprocessors // n_blocks - 1)


def barrier_seconds(launch: Launch, gpu: Gpu) -> float:
    """Seconds that the clusters of a launch stand at barriers."""
    n_blocks, nz, _ = launch.grid
    n_steps = sum(2 * nz * N_ITERATIONS * n for n in SMOOTHINGS)
    return n_steps * 2 * BARRIER_CYCLES / gpu.clock / clusters_at_once(gpu, n_blocks)


def cluster_counts(launch: Launch) -> Counter[str]:
    """Work of a launch, of the paper's ten jobs on each of its planes."""
    n_blocks, nz, n_jobs = launch.grid
    if n_jobs != 2 * len(SMOOTHINGS):
        raise ValueError(f"{n_jobs} jobs, not the paper's")
    rows, nx = -(-launch.numbers["ny"] // n_blocks), int(launch.numbers["nx"])
    once, twice = (_counts_of_two(rows, nx, n) for n in (1, 2))
    total: Counter[str] = Counter()
    for key in once.keys() | twice.keys():
        per_job = sum(once[key] + (n - 1) * (twice[key] - once[key]) for n in SMOOTHINGS) * 2
        total[key] = nz * n_blocks / 2 * per_job
    return total


@cache
def _counts_of_two(rows: int, nx: int, smoothings: int) -> Counter[str]:
    """One job on a cluster of two blocks with ``rows`` rows each, interpreted."""
    plane = np.resize(sample_plane(), (1, 2 * rows, nx)).astype(np.float32)
    needed = cluster_bytes(rows, nx)
    with mock.patch.object(simulated_cupy, "Machine", CountingMachine):
        device, cupy = simulated_cupy.ptx_device()
        device.cluster_blocks, device.shared_bytes = 2, math.ceil(needed / 1024) * 1024
        cupy.launches.clear()
        CountingMachine.done = {}
        parameters = {"smoothings": smoothings, "edge_threshold": 1.0, "jobs": (0,)}
        out = device.empty((1, *plane.shape), np.float32)
        anisotropic_diffusion(DeviceSource(plane, Workspace(device)), [BlockRequest(parameters, out)])
        return next(found.counts for found in cupy.launches if found.kernel == "diffusion_cluster")
