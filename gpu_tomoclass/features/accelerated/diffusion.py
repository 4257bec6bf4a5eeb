"""Anisotropic diffusion by ``kernels/diffusion.cu``, on a CPU by ``kernels/diffusion_cpu.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.diffusion import A1, A2, N_ITERATIONS

START_CHUNK = 1024  # pixels that a block of diffusion_start has in shared memory
THREADS = 256
BLOCK = (32, 8)
ROWS = 16  # per tile
LANES = 16  # as in kernels/diffusion_cpu.cu: rows of its scratch are whole numbers of lanes


def anisotropic_diffusion(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.diffusion.anisotropic_diffusion` in every bit; see
    ``families.py``.

    A job is one channel. Jobs of all requests and planes run side by side, the longest first.
    """
    device, workspace = source.device, source.workspace
    nz, ny, nx = source.shape
    requests = sorted(requests, key=lambda request: -request.parameters["smoothings"])
    jobs = [(request, job) for request in requests for job in request.parameters.get("jobs", range(len(A1)))]
    smoothings = [int(request.parameters["smoothings"]) for request, _ in jobs]
    thresholds = [float(request.parameters["edge_threshold"]) for request, _ in jobs]
    slopes = [float(A1[job]) for _, job in jobs]
    key = (*smoothings, *thresholds, *slopes)
    result = workspace.array("diffusion result", (len(smoothings), nz, ny, nx), np.float32)
    args = {
        "limits": source.shared("diffusion limits", (nz, 3), np.float64, lambda out: _start(source, out)),
        "smoothings": workspace.constant(("diffusion smoothings", key), lambda: np.array(smoothings, np.int32)),
        "a1": workspace.constant(("diffusion a1", key), lambda: np.array(slopes, np.float64)),
        "edge_threshold": workspace.constant(("diffusion thresholds", key), lambda: np.array(thresholds, np.float64)),
        "a2": float(A2),
        "result": result,
        "ny": ny,
        "nx": nx,
    }
    if device.wants_gpu_plan:
        _run_steps(source, smoothings, args)
    else:
        wide = -(-nx // LANES) * LANES
        scratch = workspace.array("diffusion rows", (len(smoothings), nz, ny, 5 * wide + 2 * LANES), np.float32)
        device.launch(
            "diffusion_cpu.cu",
            "diffusion_cpu",
            grid=(nz, len(smoothings)),
            block=(1,),
            args={**args, "image": source.image, "scratch": scratch},
            defines={"ONE_THREAD": 1},
        )
    start = 0
    for request in requests:
        stop = start + len(request.out)
        device.copy(result[start:stop], request.out)
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


def _run_steps(source: DeviceSource, smoothings: Sequence[int], args: dict[str, Any]) -> None:
    """Step t of every job that has one in one launch; before it the tensors of jobs whose iteration begins there."""
    device, workspace = source.device, source.workspace
    nz, ny, nx = source.shape
    n_items, n_steps = len(smoothings) * nz, N_ITERATIONS * max(smoothings)
    images = [workspace.array(f"diffusion images {i}", (n_items, ny, nx), np.float32) for i in range(2)]
    fastest = workspace.array("diffusion fastest", (n_items, n_steps), np.int32)
    speeds = [workspace.array(f"diffusion speeds {i}", (n_items, ny, nx), np.float32) for i in range(2)]
    tensor = workspace.array("diffusion tensor", (3, n_items, ny, nx), np.float32)
    tx, ty = BLOCK
    defines = {"TX": tx, "TY": ty, "ROWS": ROWS, "THREADS": THREADS}
    device.launch(
        "diffusion.cu",
        "diffusion_begin",
        grid=(-(-ny * nx // THREADS), nz, len(smoothings)),
        block=(THREADS,),
        args={
            "image": source.image,
            "images": images[0],
            "fastest": fastest,
            "n_slots": n_steps,
            "n_pixels": ny * nx,
        },
        defines=defines,
    )
    make_tensor = device.kernel("diffusion.cu", "diffusion_tensor", defines=defines)
    move = device.kernel("diffusion.cu", "diffusion_step", defines=defines)
    names = ("limits", "smoothings", "ny", "nx")
    step_args = {
        **{name: args[name] for name in (*names, "result")},
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
