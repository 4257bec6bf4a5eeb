"""Kuwahara by ``kernels/kuwahara.cu``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpu_tomoclass.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.device.base import Array
from gpu_tomoclass.reference.kuwahara import N_CRITERIA, line_offsets

GPU_BLOCK = (32, 4)
CPU_PIXELS = 16  # at most, beside each other, that a CPU does at a time


def kuwahara(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.reference.kuwahara.kuwahara` in every bit."""
    for request in requests:
        patch = request.parameters["patch"]
        if patch % 2 == 0:  # TWS leaves the plane as it is
            for channel in request.out:
                source.device.copy(source.image, channel)
        else:
            _filter(source, request.out, patch=patch)


def _filter(source: DeviceSource, out: Array, *, patch: int) -> None:
    nz, ny, nx = source.shape
    on_gpu, half = source.device.wants_gpu_plan, patch // 2
    block = tx, ty = GPU_BLOCK if on_gpu else (1, 1)
    defines = {"TX": tx, "TY": ty, **({} if on_gpu else {"ONE_THREAD": 1})}
    # Rows are whole vectors; what lies behind the last pixel of a row belongs to no result.
    width = nx if on_gpu else -(-nx // CPU_PIXELS) * CPU_PIXELS
    n_rows, pitch = ny + 2 * half, width + 2 * half
    array = source.workspace.array
    raised = array("kuwahara raised", (nz, n_rows, pitch), np.float32)
    lines = array("kuwahara lines", (1 + N_CRITERIA, nz, n_rows, pitch), np.float32)
    smallest = array("kuwahara smallest", (N_CRITERIA, nz, ny, width), np.float32)
    best = array("kuwahara best", (N_CRITERIA, nz, ny, width), np.float32)
    offsets = line_offsets(patch)
    distances = source.workspace.constant(
        ("kuwahara distances", patch, pitch),
        lambda: np.array([dy * pitch + dx for line in offsets for dy, dx in line], dtype=np.int32),
    )

    def launch(kernel: str, *, rows: int, columns: int, **args: Any) -> None:
        grid = (-(-columns // tx) if on_gpu else 1, -(-rows // ty), nz)
        source.device.launch("kuwahara.cu", kernel, grid=grid, block=block, args=args, defines=defines)

    padded = {"half": half, "n_rows": n_rows, "pitch": pitch, "ny": ny}
    launch(
        "kuwahara_raised",
        rows=n_rows,
        columns=pitch,
        image=source.image,
        limits=source.extremes(),
        padded=raised,
        nx=nx,
        **padded,
    )
    first = 0
    for line in offsets:
        along = {"distances": distances, "first": first, "n": len(line), **padded}
        launch("kuwahara_line", rows=n_rows, columns=nx + 2 * half, padded=raised, lines=lines, nx=nx, **along)
        launch(
            "kuwahara_search", rows=ny, columns=width, lines=lines, smallest=smallest, result=best, width=width, **along
        )
        first += len(line)
    launch(
        "kuwahara_lowered",
        rows=ny,
        columns=nx,
        best=best,
        limits=source.extremes(),
        result=out,
        width=width,
        ny=ny,
        nx=nx,
    )
