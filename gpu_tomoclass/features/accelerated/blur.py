"""G(s), ImageJ's Gaussian blur, by ``kernels/blur.cu`` and, for large sigmas, ``kernels/resample.cu``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.reference.blur import (
    STD_PER_SIGMA,
    enlarging_kernel,
    is_reduced,
    reduced_length,
    reducing_kernel,
    reduction,
    scaled_kernel,
)

if TYPE_CHECKING:
    from gpu_tomoclass.device import Workspace

CHUNK = 64  # pixels of a row that are blurred together; rows of half-blurred images are whole chunks
# Threads of a block, and its chunks of pixels: along x in blur_x, along y in blur_y.
GPU_PLAN = {"LANES": 32, "ROWS": 8, "PIXELS": CHUNK // 32, "RUN": 1}
CPU_PLAN_X = {"ONE_THREAD": 1, "LANES": 1, "ROWS": 1, "PIXELS": CHUNK, "RUN": 8}
CPU_PLAN_Y = {**CPU_PLAN_X, "RUN": 64}  # a strip of 2 * 49 + 64 rows stays in the first-level cache
MAX_RADIUS = 50  # HALO + 1 of the kernel; ImageJ's kernels, cut off at twice 10^-4 and reduced, have no more
RESAMPLE_BLOCK = (64, 4)


def gaussian_blur(workspace: Workspace, image: Array, result: Array, sigma: float, *, factor: float = 1.0) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.blur.gaussian_blur` of every plane in every bit.

    Parameters
    ----------
    workspace : Workspace
    image, result : array on the device
        (nz, ny, nx) float32.
    sigma : float
        TWS's sigma > 0 in pixels; the standard deviation is 0.4 sigma.
    factor : float
        Of all values.
    """
    nz, ny, nx = image.shape
    std = STD_PER_SIGMA * sigma
    if not is_reduced(std):
        rows = workspace.array("blurred rows", (nz, ny, padded(nx)), np.float32)
        _blur(workspace, "blur_x", image, rows, std, length=nx, shape=(nz, ny, nx))
        _blur(workspace, "blur_y", rows, result, std, length=ny, shape=(nz, ny, nx), factor=factor)
        return
    # Each axis: lines are reduced, blurred, and enlarged again.
    step, reduced_std = reduction(std, length=nx)
    n = reduced_length(nx, step)
    reduced = workspace.array(f"rows reduced {step}", (nz, ny, n), np.float32)
    rows = workspace.array(f"rows reduced and blurred {step}", (nz, ny, padded(n)), np.float32)
    along_x = workspace.array("rows of a large blur", (nz, ny, nx), np.float32)
    _reduce(workspace, image, reduced, step, along_x=True, shape=(nz, ny, n))
    _blur(workspace, "blur_x", reduced, rows, reduced_std, length=n, shape=(nz, ny, n))
    _enlarge(workspace, rows, along_x, step, along_x=True)

    step, reduced_std = reduction(std, length=ny)
    n = reduced_length(ny, step)
    reduced = workspace.array(f"columns reduced {step}", (nz, n, padded(nx)), np.float32)
    columns = workspace.array(f"columns reduced and blurred {step}", (nz, n, nx), np.float32)
    _reduce(workspace, along_x, reduced, step, along_x=False, shape=(nz, n, nx))
    _blur(workspace, "blur_y", reduced, columns, reduced_std, length=n, shape=(nz, n, nx), factor=factor)
    _enlarge(workspace, columns, result, step, along_x=False)


def padded(nx: int) -> int:
    """Pixels per row of a half-blurred image.

    An odd number of chunks: the pixels of a column lie in different sets of a cache, whatever the width.
    """
    return (-(-nx // CHUNK) | 1) * CHUNK


def _blur(
    workspace: Workspace,
    kernel: str,
    image: Array,
    result: Array,
    std: float,
    *,
    length: int,
    shape: tuple[int, int, int],
    factor: float = 1.0,
) -> None:
    """One pass over lines of ``length``; ``shape`` without the padding that rows have between the passes."""

    def weights() -> np.ndarray:
        both = np.stack(scaled_kernel(std, factor, max_radius=length))
        if both.shape[1] > MAX_RADIUS:
            raise ValueError(f"a Gaussian of standard deviation {std} has {both.shape[1]} weights on {length} samples")
        return both

    table = workspace.constant(("gaussian kernel", std, length, factor), weights)
    nz, ny, nx = shape
    is_x = kernel == "blur_x"
    plan = GPU_PLAN if workspace.device.wants_gpu_plan else CPU_PLAN_X if is_x else CPU_PLAN_Y
    run_x, run_y = (plan["RUN"], 1) if is_x else (1, plan["RUN"])
    workspace.device.launch(
        "blur.cu",
        kernel,
        grid=(-(-nx // (CHUNK * run_x)), -(-ny // (plan["ROWS"] * run_y)), nz),
        block=(plan["LANES"], plan["ROWS"]),
        args={
            "image": image,
            "weights": table,
            "result": result,
            "radius": int(table.shape[1]),
            "ny": ny,
            "nx": nx,
            "pitch": padded(nx),
        },
        defines=plan,
    )


def _reduce(
    workspace: Workspace, image: Array, result: Array, factor: int, *, along_x: bool, shape: tuple[int, int, int]
) -> None:
    """``shape`` is that of the result, without padding."""
    nz, ny, nx = shape
    _, from_ny, from_nx = image.shape
    tx, ty = RESAMPLE_BLOCK
    workspace.device.launch(
        "resample.cu",
        "reduce",
        grid=(-(-nx // tx), -(-ny // ty), nz),
        block=RESAMPLE_BLOCK,
        args={
            "image": image,
            "weights": workspace.constant(("reducing kernel", factor), lambda: reducing_kernel(factor)),
            "result": result,
            "factor": factor,
            "along_x": along_x,
            "length": from_nx if along_x else from_ny,
            "from_ny": from_ny,
            "from_pitch": from_nx,
            "ny": ny,
            "nx": nx,
            "pitch": int(result.shape[2]),
        },
        defines={"TX": tx, "TY": ty},
    )


def _enlarge(workspace: Workspace, image: Array, result: Array, factor: int, *, along_x: bool) -> None:
    nz, ny, nx = result.shape
    _, from_ny, from_pitch = image.shape
    tx, ty = RESAMPLE_BLOCK
    workspace.device.launch(
        "resample.cu",
        "enlarge",
        grid=(-(-nx // tx), -(-ny // ty), nz),
        block=RESAMPLE_BLOCK,
        args={
            "image": image,
            "weights": workspace.constant(("enlarging kernel", factor), lambda: enlarging_kernel(factor)),
            "result": result,
            "factor": factor,
            "along_x": along_x,
            "from_ny": from_ny,
            "from_pitch": from_pitch,
            "ny": ny,
            "nx": nx,
        },
        defines={"TX": tx, "TY": ty},
    )
