"""Anisotropic diffusion by ``kernels/diffusion.cu``, on a CPU by ``kernels/diffusion_cpu.cu``."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array, Device
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.diffusion import A1, A2, N_ITERATIONS

START_CHUNK = 1024  # pixels that a block of diffusion_start has in shared memory
THREADS = 256
BLOCK = (32, 8)
ROWS = 16  # per tile
PIXELS_AT_ONCE = 96 * 2**20  # of all jobs: a GPU is busy with far fewer, and each takes 28 bytes
CLUSTERS = (1, 2, 4, 8, 16)  # blocks
CLUSTER_THREADS = 640  # of each; of more, some GPUs have too few registers for each
CLUSTER_HEADER = 64  # values, as in kernels/diffusion.cu
LANES = 16  # as in kernels/diffusion_cpu.cu: rows of its scratch are whole numbers of lanes


def anisotropic_diffusion(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.diffusion.anisotropic_diffusion` in every bit; see
    ``families.py``.

    A job is one channel. Jobs run side by side, the longest first; on a GPU no more requests at once than keep it busy.
    """
    requests = sorted(requests, key=lambda request: -request.parameters["smoothings"])
    n_blocks = smallest_cluster(source.device, *source.shape[1:])
    if n_blocks:
        _run_clusters(source, requests, n_blocks)
    elif source.device.wants_gpu_plan:
        together = max(1, PIXELS_AT_ONCE // (max(len(r.out) for r in requests) * math.prod(source.shape)))
        groups = [requests[i : i + together] for i in range(0, len(requests), together)]
        most = max(sum(len(request.out) for request in group) for group in groups)
        longest = N_ITERATIONS * int(requests[0].parameters["smoothings"])
        for group in groups:
            _run_steps(source, group, most=most, longest=longest)
    else:
        _run_on_cpu(source, requests)


def smallest_cluster(device: Device, ny: int, nx: int) -> int:
    """Blocks of the smallest cluster whose shared memory holds a job on a plane; 0 if none does."""
    for n in CLUSTERS:
        if n <= device.cluster_blocks and cluster_bytes(-(-ny // n), nx) <= device.shared_bytes:
            return n
    return 0


def cluster_bytes(rows: int, nx: int) -> int:
    """Shared memory of a block of a cluster that holds so many rows."""
    return 4 * (CLUSTER_HEADER + 5 * rows * nx + 2 * nx)


class _Jobs(NamedTuple):
    """Of some requests, the longest first: smoothings of each job, and what kernels are told of all."""

    smoothings: list[int]
    args: dict[str, Any]

    @classmethod
    def of(cls, source: DeviceSource, requests: Sequence[BlockRequest]) -> _Jobs:
        workspace, (nz, ny, nx) = source.workspace, source.shape
        jobs = [(request, job) for request in requests for job in request.parameters.get("jobs", range(len(A1)))]
        smoothings = [int(request.parameters["smoothings"]) for request, _ in jobs]
        thresholds = [float(request.parameters["edge_threshold"]) for request, _ in jobs]
        slopes = [float(A1[job]) for _, job in jobs]
        key = (*smoothings, *thresholds, *slopes)
        args = {
            "limits": source.shared("diffusion limits", (nz, 3), np.float64, lambda out: _start(source, out)),
            "smoothings": workspace.constant(("diffusion smoothings", key), lambda: np.array(smoothings, np.int32)),
            "a1": workspace.constant(("diffusion a1", key), lambda: np.array(slopes, np.float64)),
            "edge_threshold": workspace.constant(
                ("diffusion thresholds", key), lambda: np.array(thresholds, np.float64)
            ),
            "a2": float(A2),
            "ny": ny,
            "nx": nx,
        }
        return cls(smoothings, args)


def _run_on_cpu(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    workspace, (nz, ny, nx) = source.workspace, source.shape
    smoothings, args = _Jobs.of(source, requests)
    wide = -(-nx // LANES) * LANES
    result = workspace.array("diffusion result", (len(smoothings), nz, ny, nx), np.float32)
    scratch = workspace.array("diffusion rows", (len(smoothings), nz, ny, 5 * wide + 2 * LANES), np.float32)
    source.device.launch(
        "diffusion_cpu.cu",
        "diffusion_cpu",
        grid=(nz, len(smoothings)),
        block=(1,),
        args={**args, "image": source.image, "scratch": scratch, "result": result},
        defines={"ONE_THREAD": 1},
    )
    _hand_out(source, requests, result)


def _run_clusters(source: DeviceSource, requests: Sequence[BlockRequest], n_blocks: int) -> None:
    """All steps of all jobs in one launch."""
    device, (nz, ny, nx) = source.device, source.shape
    smoothings, args = _Jobs.of(source, requests)
    result = source.workspace.array("diffusion result", (len(smoothings), nz, ny, nx), np.float32)
    device.launch(
        "diffusion.cu",
        "diffusion_cluster",
        grid=(n_blocks, nz, len(smoothings)),
        block=(32, CLUSTER_THREADS // 32),
        args={**args, "image": source.image, "result": result, "nz": nz},
        defines={"CLUSTER": n_blocks, "SHARED_BYTES": device.shared_bytes, "THREADS": CLUSTER_THREADS},
    )
    _hand_out(source, requests, result)


def _hand_out(source: DeviceSource, requests: Sequence[BlockRequest], result: Array) -> None:
    """Results of all jobs (n_jobs, nz, ny, nx) to the arrays of those who asked."""
    start = 0
    for request in requests:
        stop = start + len(request.out)
        source.device.copy(result[start:stop], request.out)
        start = stop


def _start(source: DeviceSource, out: Array) -> None:
    """Minimum, maximum and standard deviation of each plane cut to whole numbers: (nz, 3) float64."""
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    threads = THREADS if on_gpu else 1
    source.device.launch(
        "diffusion_start.cu",
        "diffusion_start",
        grid=(nz,),
        block=(threads,),
        args={"image": source.image, "limits": out, "ny": ny, "nx": nx},
        defines={"THREADS": threads, "CHUNK": START_CHUNK, **({} if on_gpu else {"ONE_THREAD": 1})},
    )


def _run_steps(source: DeviceSource, requests: Sequence[BlockRequest], *, most: int, longest: int) -> None:
    """Step t of every job that has one in one launch; before it the tensors of jobs whose iteration begins there.

    The arrays have room for ``most`` jobs of the ``longest`` steps.
    """
    device, workspace, (nz, ny, nx) = source.device, source.workspace, source.shape
    smoothings, args = _Jobs.of(source, requests)
    n_items, n_steps, n_pixels = len(smoothings) * nz, N_ITERATIONS * max(smoothings), ny * nx

    def room(name: str, dtype: npt.DTypeLike, per_job: int, n: int) -> Array:
        return workspace.array(f"diffusion {name}", (most * per_job,), dtype)[:n]

    images = [room(f"images {i}", np.float32, nz * n_pixels, n_items * n_pixels) for i in range(2)]
    speeds = [room(f"speeds {i}", np.float32, nz * n_pixels, n_items * n_pixels) for i in range(2)]
    tensor = room("tensor", np.float32, 3 * nz * n_pixels, 3 * n_items * n_pixels)
    fastest = room("fastest", np.int32, nz * longest, n_items * n_steps)
    tx, ty = BLOCK
    defines = {"TX": tx, "TY": ty, "ROWS": ROWS, "THREADS": THREADS}
    device.launch(
        "diffusion.cu",
        "diffusion_begin",
        grid=(-(-n_pixels // THREADS), nz, len(smoothings)),
        block=(THREADS,),
        args={
            "image": source.image,
            "images": images[0],
            "fastest": fastest,
            "n_slots": n_steps,
            "n_pixels": n_pixels,
        },
        defines=defines,
    )
    make_tensor = device.kernel("diffusion.cu", "diffusion_tensor", defines=defines)
    move = device.kernel("diffusion.cu", "diffusion_step", defines=defines)
    names = ("limits", "smoothings", "ny", "nx")
    step_args = {
        **{name: args[name] for name in names},
        **{"tensor": tensor, "fastest": fastest, "n_slots": n_steps, "nz": nz, "n_items": n_items},
    }
    tensor_args = {
        **{name: args[name] for name in (*names, "a1", "edge_threshold", "a2")},
        **{"tensor": tensor, "fastest": fastest, "n_slots": n_steps, "nz": nz, "n_items": n_items},
    }
    tiles = (-(-nx // tx), -(-ny // ROWS))
    for t in range(n_steps):
        active = [n for n in smoothings if t < N_ITERATIONS * n]  # the first ones, as they are sorted
        now, moved = t % 2, 1 - t % 2
        shape = {"grid": (*tiles, len(active) * nz), "block": BLOCK}
        if any(t % n == 0 for n in active):
            make_tensor(**shape, args={**tensor_args, "images": images[now], "speeds": speeds[now], "t": t})
        arrays = {
            "images": images[now],
            "speeds": speeds[now],
            "moved_images": images[moved],
            "moved_speeds": speeds[moved],
        }
        move(**shape, args={**step_args, **arrays, "t": t})
    start = 0
    for request in requests:
        stop = start + len(request.out) * nz * n_pixels
        done = images[N_ITERATIONS * int(request.parameters["smoothings"]) % 2]  # where its last step has left it
        device.copy(done[start:stop].reshape(request.out.shape), request.out)
        start = stop
