"""Derivatives, Laplacian and Structure by ``kernels/derivatives_x.cu`` and ``kernels/derivatives_y.cu``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.derivatives import INTEGRATION_SCALES, ORDERS, derivative_kernel, derivative_reach

REACHES = (128, 1280)  # largest half-widths that kernels are compiled for; the last one is that of the largest sigma
GPU_LINE = 128  # threads of a block along x
GPU_ROWS_X = {128: 4, 1280: 1}  # rows per block for each reach: what fits 48 KB of shared memory
GPU_BLOCK = (32, 4)  # along y
GPU_ROWS_Y = 4  # rows per thread along y
CPU_LINE = 512  # pixels of a block along x
CPU_STRIP, CPU_BAND = 16, 128  # columns (a cache line) and rows of a block along y

Filter = tuple[float, int, bool]  # standard deviation in pixels, order of the derivative, whether it is over a sigma


def derivatives(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.derivatives.derivatives` in every bit."""
    for request in requests:
        filters = _orders(request, *ORDERS)
        lines = _along_x(source, source.image, filters)
        args = {"images": lines, "result": request.out, "odd": _odd(filters)}
        _along_y(source, "derivatives_y", filters, args, n_images=len(filters))


def laplacian(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.derivatives.laplacian` in every bit."""
    for request in requests:
        lines = _along_x(source, source.image, _orders(request, 2, 0))
        _along_y(source, "laplacian_y", _orders(request, 0, 2), {"images": lines, "result": request.out}, n_images=1)


def structure(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.derivatives.structure` in every bit."""
    products = source.workspace.array("structure products", (3, *source.shape), np.float32)
    for request in requests:
        lines = _along_x(source, source.image, _orders(request, 0, 1))
        _along_y(source, "gradient_y", _orders(request, 1, 0), {"images": lines, "products": products}, n_images=1)
        integration = [(scale, 0, False) for scale in request.parameters.get("scales", INTEGRATION_SCALES)]
        lines = _along_x(source, products, integration)
        args = {"images": lines, "result": request.out}
        _along_y(source, "structure_y", integration, args, n_images=len(integration))


def _orders(request: BlockRequest, *orders: int) -> list[Filter]:
    sigma, per_sigma = request.parameters["sigma"], request.parameters.get("per_sigma", False)
    return [(sigma, order, per_sigma) for order in orders]


def _along_x(source: DeviceSource, images: Array, filters: Sequence[Filter]) -> Array:
    """Images of the slab's plane size, convolved with each filter along x: (n_filters, n_images, ny, nx)."""
    nz, ny, nx = source.shape
    n_images = images.size // (ny * nx)
    weights, halves, longest = _filters(source, filters, nx)
    reach = _reach(longest)
    defines = {"KERNELS": len(filters), "ODD": _odd(filters), "REACH": reach}
    if source.device.wants_gpu_plan:
        line, rows, threads = GPU_LINE, GPU_ROWS_X[reach], GPU_LINE
        defines |= {"TX": line, "ROWS": rows}
    else:
        line, rows, threads = CPU_LINE, 1, 1
        defines |= {"TX": line, "ONE_THREAD": 1}
    n_results = len(filters) * n_images
    result = source.workspace.array(f"{n_results // nz} derivatives along x", (n_results, ny, nx), np.float32)
    source.device.launch(
        "derivatives_x.cu",
        "derivatives_x",
        grid=(-(-nx // line), -(-ny // rows), n_images),
        block=(threads,),
        args={
            "images": images,
            "weights": weights,
            "halves": halves,
            "result": result,
            "stride": weights.shape[1],
            "ny": ny,
            "nx": nx,
        },
        defines=defines,
    )
    return result


def _along_y(
    source: DeviceSource, kernel: str, filters: Sequence[Filter], args: Mapping[str, Any], *, n_images: int
) -> None:
    """One of the kernels of ``derivatives_y.cu``; ``n_images`` images per plane have blocks of their own."""
    nz, ny, nx = source.shape
    weights, halves, longest = _filters(source, filters, ny)
    if source.device.wants_gpu_plan:
        (tx, ty), rows = GPU_BLOCK, GPU_ROWS_Y
        block, defines = GPU_BLOCK, {"TX": tx, "TY": ty}
    else:
        (tx, ty), rows = (CPU_STRIP, 1), CPU_BAND
        block, defines = (1, 1), {"TX": tx, "TY": ty, "REACH": _reach(longest), "ONE_THREAD": 1}
    source.device.launch(
        "derivatives_y.cu",
        kernel,
        grid=(-(-nx // tx), -(-ny // (ty * rows)), n_images * nz),
        block=block,
        args={
            **args,
            "weights": weights,
            "halves": halves,
            "stride": weights.shape[1],
            "nz": nz,
            "ny": ny,
            "nx": nx,
        },
        defines=defines,
    )


def _reach(longest: int) -> int:
    return next(reach for reach in REACHES if longest <= reach)


def _odd(filters: Sequence[Filter]) -> int:
    """Bit i: filter i is of odd order."""
    return sum(1 << i for i, (_, order, _) in enumerate(filters) if order % 2)


def _filters(source: DeviceSource, filters: Sequence[Filter], length: int) -> tuple[Array, Array, int]:
    """One-sided kernels for lines of ``length`` pixels.

    Returns
    -------
    weights : array on the device
        (n_filters, longest + 1) float64; behind a shorter kernel are zeros that are not read.
    halves : array on the device
        (n_filters,) int32: index of the last weight.
    longest : int
    """
    halves = [min(derivative_reach(sigma, order), length - 1) for sigma, order, _ in filters]
    longest = max(halves)

    def table() -> npt.NDArray[np.float64]:
        weights = np.zeros((len(filters), longest + 1))
        for row, (sigma, order, per_sigma) in zip(weights, filters, strict=True):
            kernel = derivative_kernel(sigma, order, length=length, per_sigma=per_sigma)
            row[: len(kernel)] = kernel
        return weights

    key = (tuple(filters), length)
    return (
        source.workspace.constant(("derivative weights", *key), table),
        source.workspace.constant(("derivative halves", *key), lambda: np.array(halves, np.int32)),
        longest,
    )
