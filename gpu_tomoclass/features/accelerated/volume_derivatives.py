"""The five families of Gaussian derivatives across planes by ``derivatives_x.cu``, ``volume_rows.cu`` and
``volume_eigenvalues.cu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.accelerated.source import BlockRequest
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES
from gpu_tomoclass.features.reference.volume_derivatives import (
    FIRST,
    ORDERS,
    PAIRS,
    SECOND,
    axis_kernel,
    axis_reach,
    padded_planes,
)
from gpu_tomoclass.features.reference.volume_source import Positions, mirrored, taps

REACHES = (32, 128, 1280)  # largest half-widths that kernels are compiled for
X_REACHES = (128, 1280)  # of derivatives_x.cu, which families of planes use too
GPU_LINE = 128  # threads of a block along x
GPU_ROWS_X = {128: 4, 1280: 1}  # of each of them: what fits 48 KB of shared memory
GPU_BLOCK = (32, 4)
GPU_ROWS = 4  # of a thread along y or z
CPU_LINE = 512  # voxels of a block along x
CPU_STRIP = {32: 32, 128: 32, 1280: 8}  # columns of a block along y or z
CPU_BAND = 128  # rows of it
VOXEL_THREADS = {True: 128, False: 512}  # of a block where voxels are independent, with the GPU's plan or not

Orders = tuple[int, int, int]


@dataclass(frozen=True)
class _Wanted:
    """A derivative at padded positions ``start`` .. ``start + len(out) - 1``; out: (n, ny, nx) float32."""

    orders: Orders
    start: int
    out: Array


def derivatives(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """``Derivatives``, ``Laplacian``, ``Edges``, ``Hessian`` and ``Structure``, sigma by sigma.

    Equal to :mod:`gpu_tomoclass.features.reference.volume_derivatives` in every bit, eigenvalues but for the last one.
    """
    for (sigma, per_sigma), alike in groupby(sorted(requests, key=_way), key=_way):
        _of_sigma(source, sigma, {request.family: request for request in alike}, per_sigma=per_sigma)


def _way(request: BlockRequest) -> tuple[float, bool]:
    """Properties in which derivatives agree that are shared."""
    return float(request.parameters["sigma"]), bool(request.parameters.get("per_sigma", False))


def _of_sigma(
    source: VolumeDeviceSource, sigma: float, requests: Mapping[str, BlockRequest], *, per_sigma: bool
) -> None:
    n = source.shape[0]
    core = source.start + 1  # padded
    wanted: list[_Wanted] = []
    if "derivatives_3d" in requests:
        out = requests["derivatives_3d"].out
        wanted += [_Wanted((d, d, d), core, out[i]) for i, d in enumerate(ORDERS)]
    second = source.workspace.array("volume second derivatives", (6, *source.shape), np.float32)
    if "hessian_3d" in requests or "laplacian_3d" in requests:
        needed = range(6) if "hessian_3d" in requests else (0, 3, 5)
        wanted += [_Wanted(SECOND[i], core, second[i]) for i in needed]
    scales: Sequence[float] = ()
    if "structure_3d" in requests:
        scales = requests["structure_3d"].parameters.get("scales", INTEGRATION_SCALES)
    margin = axis_reach(scales[-1], 0, source.aspect.z) if scales else 0
    start, stop = max(core - margin, 0), min(core + n + margin, source.depth + 2)
    gradient = [source.scratch(f"gradient {i}", stop - start) for i in range(3)]
    if "edges_3d" in requests or "structure_3d" in requests:
        wanted += [_Wanted(orders, start, out) for orders, out in zip(FIRST, gradient, strict=True)]
    _compute(source, sigma, wanted, per_sigma=per_sigma)
    if "hessian_3d" in requests:
        _per_voxel(source, "volume_eigenvalues", {"entries": second, "result": requests["hessian_3d"].out})
    if "laplacian_3d" in requests:
        args = {"xx": second[0], "yy": second[3], "zz": second[5], "result": requests["laplacian_3d"].out[0]}
        _per_voxel(source, "volume_laplacian", args)
    if "edges_3d" in requests:
        own = {name: image[core - start :][:n] for name, image in zip(("gx", "gy", "gz"), gradient, strict=True)}
        _per_voxel(source, "volume_edges", {**own, "result": requests["edges_3d"].out[0]})
    for i, scale in enumerate(scales):
        _smoothed_products(source, scale, gradient, start, second)
        out = requests["structure_3d"].out[3 * i : 3 * i + 3]
        _per_voxel(source, "volume_eigenvalues", {"entries": second, "result": out})


def _compute(source: VolumeDeviceSource, sigma: float, wanted: Sequence[_Wanted], *, per_sigma: bool) -> None:
    """Fill all these derivatives; what is shared along x, and along x and y, is computed once."""
    way = {"per_sigma": per_sigma}
    in_order = sorted(wanted, key=lambda w: w.orders)
    for dx, of_x in groupby(in_order, key=lambda w: w.orders[0]):
        group = list(of_x)
        planes = [_planes(source, w, _kernel_along_z(source, sigma, w.orders[2], **way)) for w in group]
        first, last = min(int(p.min()) for p in planes), max(int(p.max()) for p in planes)
        image = source.image[first - source.first : last + 1 - source.first]
        lines = source.scratch("lines", len(image))
        _along_x(source, image, sigma, dx, lines, **way)
        done = None
        rows = source.scratch("rows", len(image))
        for w, of_z in zip(group, planes, strict=True):
            _, dy, dz = w.orders
            if dy != done:
                _along_y(source, lines, sigma, dy, rows, **way)
                done = dy
            _along_planes(source, rows, _kernel_along_z(source, sigma, dz, **way), of_z - first, w.out, is_odd=dz % 2)


def _planes(source: VolumeDeviceSource, wanted: _Wanted, kernel: npt.NDArray[np.float64]) -> Positions:
    stop = wanted.start + int(wanted.out.shape[0])
    return source.within_slab(padded_planes(wanted.start, stop, len(kernel) - 1, source.depth))


def _smoothed_products(
    source: VolumeDeviceSource, scale: float, gradient: Sequence[Array], start: int, out: Sequence[Array]
) -> None:
    """The entries of the structure tensor; the gradient begins at padded position ``start``."""
    n = source.shape[0]
    n_planes = int(gradient[0].shape[0])
    kernel = _kernel_along_z(source, scale, 0)
    core = source.start + 1
    planes = mirrored(taps(core, core + n, len(kernel) - 1), source.depth + 2) - start
    low, high = int(planes.min()), int(planes.max()) + 1
    product = source.scratch("product", n_planes)[low:high]
    lines, rows = source.scratch("lines", high - low), source.scratch("rows", high - low)
    for (i, j), entry in zip(PAIRS, out, strict=True):
        _per_voxel(
            source, "volume_product", {"a": gradient[i][low:high], "b": gradient[j][low:high], "result": product}
        )
        _along_x(source, product, scale, 0, lines)
        _along_y(source, lines, scale, 0, rows)
        _along_planes(source, rows, kernel, planes - low, entry, is_odd=0)


def _per_voxel(source: VolumeDeviceSource, kernel: str, args: Mapping[str, Array]) -> None:
    result = args["result"]
    n = int(result.size) // (3 if kernel == "volume_eigenvalues" else 1)
    threads = VOXEL_THREADS[source.device.wants_gpu_plan]
    source.device.launch(
        "volume_eigenvalues.cu",
        kernel,
        grid=(-(-n // threads),),
        block=(threads,),
        args={**args, "n": n},
        defines={"THREADS": threads},
    )


def _along_x(
    source: VolumeDeviceSource, image: Array, sigma: float, order: int, out: Array, *, per_sigma: bool = False
) -> None:
    n_planes, ny, nx = image.shape
    weights, halves, half = _kernel(source, axis_kernel(sigma, order, source.aspect.x, length=nx, per_sigma=per_sigma))
    reach = _reach(half, X_REACHES)
    defines = {"KERNELS": 1, "ODD": order % 2, "REACH": reach}
    if source.device.wants_gpu_plan:
        line, rows, threads = GPU_LINE, GPU_ROWS_X[reach], GPU_LINE
        defines |= {"TX": line, "ROWS": rows}
    else:
        line, rows, threads = CPU_LINE, 1, 1
        defines |= {"TX": line, "ONE_THREAD": 1}
    source.device.launch(
        "derivatives_x.cu",
        "derivatives_x",
        grid=(-(-nx // line), -(-ny // rows), n_planes),
        block=(threads,),
        args={
            "images": image,
            "weights": weights,
            "halves": halves,
            "result": out,
            "stride": half + 1,
            "ny": ny,
            "nx": nx,
        },
        defines=defines,
    )


def _along_y(
    source: VolumeDeviceSource, image: Array, sigma: float, order: int, out: Array, *, per_sigma: bool = False
) -> None:
    ny = int(image.shape[1])
    kernel = axis_kernel(sigma, order, source.aspect.y, length=ny, per_sigma=per_sigma)
    rows = mirrored(taps(0, ny, len(kernel) - 1), ny)
    _along_rows(source, image, kernel, rows, out, is_odd=order % 2)


def _kernel_along_z(
    source: VolumeDeviceSource, sigma: float, order: int, *, per_sigma: bool = False
) -> npt.NDArray[np.float64]:
    return axis_kernel(sigma, order, source.aspect.z, length=source.depth + 2, per_sigma=per_sigma)


def _along_planes(
    source: VolumeDeviceSource,
    image: Array,
    kernel: npt.NDArray[np.float64],
    planes: Positions,
    out: Array,
    *,
    is_odd: int,
) -> None:
    """The pass along z; ``planes`` are the places of the taps in the image."""
    n_in, ny, nx = image.shape
    flat, flat_out = image.reshape(1, n_in, ny * nx), out.reshape(1, -1, ny * nx)
    _along_rows(source, flat, kernel, planes, flat_out, is_odd=is_odd)


def _along_rows(
    source: VolumeDeviceSource,
    image: Array,
    kernel: npt.NDArray[np.float64],
    rows: Positions,
    out: Array,
    *,
    is_odd: int,
) -> None:
    """Along axis 1: (n_sub, n_in, width) -> (n_sub, n_out, width)."""
    n_sub, n_in, width = image.shape
    n_out = int(out.shape[1])
    weights, _, half = _kernel(source, kernel)
    if source.device.wants_gpu_plan:
        (tx, ty), n_rows = GPU_BLOCK, GPU_ROWS
        block, defines = GPU_BLOCK, {"TX": tx, "TY": ty}
    else:
        reach = _reach(half, REACHES)
        (tx, ty), n_rows = (CPU_STRIP[reach], 1), CPU_BAND
        block, defines = (1, 1), {"TX": tx, "TY": ty, "REACH": reach, "ONE_THREAD": 1}
    source.device.launch(
        "volume_rows.cu",
        "volume_rows",
        grid=(-(-width // tx), -(-n_out // (ty * n_rows)), n_sub),
        block=block,
        args={
            "image": image,
            "rows": source.table(rows),
            "weights": weights,
            "result": out,
            "half": half,
            "is_odd": is_odd,
            "n_in": n_in,
            "n_out": n_out,
            "width": width,
        },
        defines=defines,
    )


def _reach(half: int, reaches: Sequence[int]) -> int:
    found = [reach for reach in reaches if half <= reach]
    if not found:
        raise UsageError(f"a kernel of half-width {half} voxels is beyond {reaches[-1]}", do="choose smaller sigmas")
    return found[0]


def _kernel(source: VolumeDeviceSource, kernel: npt.NDArray[np.float64]) -> tuple[Array, Array, int]:
    """On the device: weights (half + 1,) float64, halves (1,) int32; and half."""
    half = len(kernel) - 1
    constant = source.workspace.constant
    return (
        constant(("volume weights", kernel.tobytes()), lambda: kernel),
        constant(("volume halves", half), lambda: np.array([half], np.int32)),
        half,
    )
