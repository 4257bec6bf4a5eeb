"""Kuwahara by ``kernels/kuwahara.cu`` and ``kuwahara_cpu.cu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.kuwahara import N_ANGLES, N_CRITERIA, line_offsets

GPU_BLOCK = (32, 8)
GPU_PIXELS = 2  # neighbouring pixels per thread
ANGLES_AT_ONCE = 5  # on a GPU: 16 bytes per pixel each
TILE = 32  # pixels that a CPU has in registers
BAND = 32  # rows of a CPU's block, at least
CPU_SCRATCH = 64 << 20  # bytes of a launch, more where there are more threads


def kuwahara(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.kuwahara.kuwahara` in every bit."""
    for request in requests:
        patch = request.parameters["patch"]
        if patch % 2 == 0:  # TWS leaves the plane as it is
            for criterion in range(N_CRITERIA):
                source.device.copy(source.image, request.out[criterion])
        elif source.device.wants_gpu_plan:
            _on_gpu(source, request.out, patch=patch)
        else:
            _on_cpu(source, request.out, patch=patch)


def _raised(source: DeviceSource, *, half: int, pitch: int) -> Array:
    """The planes less their minimum, edges repeated ``half`` times: (nz, ny + 2 half, pitch) float32."""
    nz, ny, nx = source.shape
    tx, ty = GPU_BLOCK
    raised = source.workspace.array(f"kuwahara raised {half}", (nz, ny + 2 * half, pitch), np.float32)
    source.device.launch(
        "kuwahara.cu",
        "kuwahara_raised",
        grid=(-(-pitch // tx), -(-(ny + 2 * half) // ty), nz),
        block=GPU_BLOCK,
        args={
            "image": source.image,
            "extremes": source.extremes(),
            "raised": raised,
            "half": half,
            "pitch": pitch,
            "ny": ny,
            "nx": nx,
        },
        defines={"TX": tx, "TY": ty, "PIXELS": 1},
    )
    return raised


def _starts(source: DeviceSource, patch: int) -> Array:
    """Where each line begins among the pixels of all lines, (11,) int32."""
    return source.workspace.constant(
        ("kuwahara starts", patch), lambda: np.cumsum([0, *map(len, line_offsets(patch))], dtype=np.int32)
    )


def _line_pixels(patch: int) -> npt.NDArray[np.int32]:
    """(dy, dx) of the pixels of all lines: (n, 2)."""
    return np.concatenate(line_offsets(patch)).astype(np.int32)


def _on_gpu(source: DeviceSource, out: Array, *, patch: int) -> None:
    nz, ny, nx = source.shape
    (tx, ty), half = GPU_BLOCK, patch // 2
    pitch = nx + 2 * half
    height = ny + 2 * half
    raised = _raised(source, half=half, pitch=pitch)
    lines = {
        "distances": source.workspace.constant(
            ("kuwahara distances", patch, pitch), lambda: _line_pixels(patch) @ np.array([pitch, 1], np.int32)
        ),
        "starts": _starts(source, patch),
    }
    figures = source.workspace.array("kuwahara figures", (ANGLES_AT_ONCE, nz, height, pitch, 4), np.float32)
    smallest = source.workspace.array("kuwahara smallest", (N_CRITERIA, nz, ny, nx), np.float32)
    for first in range(0, N_ANGLES, ANGLES_AT_ONCE):
        angles = {"first_angle": first, "n_angles": ANGLES_AT_ONCE}
        shared = {**lines, **angles, "figures": figures, "half": half, "ny": ny, "nx": nx}
        source.device.launch(
            "kuwahara.cu",
            "kuwahara_figures",
            grid=(-(-pitch // (tx * GPU_PIXELS)), -(-height // ty), nz),
            block=GPU_BLOCK,
            args={**shared, "raised": raised},
            defines={"TX": tx, "TY": ty, "PIXELS": GPU_PIXELS},
        )
        source.device.launch(
            "kuwahara.cu",
            "kuwahara_calmest",
            grid=(-(-nx // (tx * GPU_PIXELS)), -(-ny // ty), nz),
            block=GPU_BLOCK,
            args={
                **shared,
                "extremes": source.extremes(),
                "smallest": smallest,
                "result": out,
                "is_last": int(first + ANGLES_AT_ONCE == N_ANGLES),
            },
            defines={"TX": tx, "TY": ty, "PIXELS": GPU_PIXELS},
        )


def _on_cpu(source: DeviceSource, out: Array, *, patch: int) -> None:
    nz, ny, nx = source.shape
    half, width = patch // 2, -(-nx // TILE) * TILE
    pitch = width + 2 * half
    band = max(BAND, patch)  # rows around it are computed twice
    n_bands = -(-ny // band)
    per_block = 4 * (band + 2 * half) * pitch + 2 * N_CRITERIA * band * width
    at_once = min(n_bands, max(source.device.threads, CPU_SCRATCH // (4 * nz * per_block)))
    args = {
        "line": source.workspace.constant(("kuwahara line", patch), lambda: _line_pixels(patch)),
        "starts": _starts(source, patch),
        "raised": _raised(source, half=half, pitch=pitch),
        "extremes": source.extremes(),
        "scratch": source.workspace.array("kuwahara scratch", (nz, at_once, per_block), np.float32),
        "result": out,
        "half": half,
        "pitch": pitch,
        "ny": ny,
        "nx": nx,
    }
    for first in range(0, n_bands, at_once):
        source.device.launch(
            "kuwahara_cpu.cu",
            "kuwahara_cpu",
            grid=(min(at_once, n_bands - first), nz),
            block=(1,),
            args={**args, "first_band": first},
            defines={"ONE_THREAD": 1, "BAND": band, "HALF": half},
        )
