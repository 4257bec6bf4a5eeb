"""Membrane_projections by ``kernels/membrane.cu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.membrane import membrane_kernels

GPU_BLOCK = (32, 4)
CPU_PIXELS = 32  # at most, beside each other, that a CPU does at a time


def membrane_projections(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.membrane.membrane_projections` in every bit."""
    for request in requests:
        _projections(source, request.out, patch=request.parameters["patch"], thickness=request.parameters["thickness"])


def _projections(source: DeviceSource, out: Array, *, patch: int, thickness: int) -> None:
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    block = tx, ty = GPU_BLOCK if on_gpu else (1, 1)
    defines = {"TX": tx, "TY": ty, **({} if on_gpu else {"ONE_THREAD": 1})}
    n_rows = ny + patch - 1
    # What the last pixels of a line that are computed together read beyond the plane belongs to no result.
    pitch = (nx if on_gpu else -(-nx // CPU_PIXELS) * CPU_PIXELS) + patch - 1
    padded = source.workspace.array("membrane padded", (nz, n_rows, pitch), np.float64)
    source.device.launch(
        "membrane.cu",
        "membrane_padded",
        grid=(-(-pitch // tx) if on_gpu else 1, -(-n_rows // ty), nz),
        block=block,
        args={
            "image": source.image,
            "padded": padded,
            "half": patch // 2,
            "n_rows": n_rows,
            "pitch": pitch,
            "ny": ny,
            "nx": nx,
        },
        defines=defines,
    )
    distances, starts, scales = _lines(source, patch=patch, thickness=thickness, pitch=pitch)
    source.device.launch(
        "membrane.cu",
        "membrane",
        grid=(-(-nx // tx) if on_gpu else 1, -(-ny // ty), nz),
        block=block,
        args={
            "padded": padded,
            "distances": distances,
            "starts": starts,
            "scales": scales,
            "result": out,
            "n_rows": n_rows,
            "pitch": pitch,
            "ny": ny,
            "nx": nx,
        },
        defines=defines,
    )


def _lines(source: DeviceSource, *, patch: int, thickness: int, pitch: int) -> tuple[Array, Array, Array]:
    """The pixels of the turned lines in the order in which they are added.

    Returns
    -------
    distances : array on the device
        (n_pixels of all lines,) int32: y * pitch + x within the patch.
    starts : array on the device
        (n_lines + 1,) int32.
    scales : array on the device
        (n_lines,) float64: 1 / pixels of the line.
    """
    constant = source.workspace.constant

    def distances() -> npt.NDArray[np.int32]:
        y, x = np.concatenate(_line_pixels(patch, thickness)).T
        return (y * pitch + x).astype(np.int32)

    def lengths() -> list[int]:
        return [len(pixels) for pixels in _line_pixels(patch, thickness)]

    return (
        constant(("membrane distances", patch, thickness, pitch), distances),
        constant(("membrane starts", patch, thickness), lambda: np.cumsum([0, *lengths()]).astype(np.int32)),
        constant(("membrane scales", patch, thickness), lambda: 1.0 / np.array(lengths(), np.float64)),
    )


def _line_pixels(patch: int, thickness: int) -> list[npt.NDArray[np.int64]]:
    """(n_pixels, 2) y and x of each line, row by row."""
    return [np.argwhere(kernel) for kernel in membrane_kernels(patch, thickness)]
