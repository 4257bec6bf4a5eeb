"""Gaussian_blur and Difference_of_Gaussian across planes by ``volume_blur.cu`` and ``difference.cu``."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.device import Array
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.accelerated.source import BlockRequest
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.reference.volume_blur import blur_kernel, blur_reach
from gpu_tomoclass.features.reference.volume_source import Positions, mirrored, taps

GPU_BLOCK = (32, 8)
REACHES = (32, 128, 1024)  # largest half-widths that kernels for a CPU are compiled for
CPU_LINES = (512, 16)  # voxels and rows of a block along x
CPU_BAND = (128, 128)  # columns and rows of a block along y or z
DIFFERENCE_THREADS = {True: 256, False: 1024}  # of a block, with the GPU's plan or not


def gaussian_blur(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.volume_blur.gaussian_blur` in every bit."""
    for request in requests:
        source.device.copy(blur(source, request.parameters["sigma"]), request.out[0])


def difference_of_gaussian(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.volume_blur.difference_of_gaussian` in every bit."""
    threads = DIFFERENCE_THREADS[source.device.wants_gpu_plan]
    for request in requests:
        larger = blur(source, request.parameters["sigma"])
        for t, out in zip(request.parameters["smaller"], request.out, strict=True):
            source.device.launch(
                "difference.cu",
                "difference",
                grid=(-(-int(larger.size) // threads), 1),
                block=(threads,),
                args={**dict.fromkeys("abcd", larger), "other": blur(source, t), "result": out, "n": int(larger.size)},
                defines={"THREADS": threads},
            )


def blur(source: VolumeDeviceSource, sigma: float) -> Array:
    """G3(sigma) of the wanted planes: (n, ny, nx) float32."""
    return source.shared(f"blur {sigma}", source.shape, np.float32, lambda out: _blur(source, sigma, out))


def _blur(source: VolumeDeviceSource, sigma: float, out: Array) -> None:
    _, ny, nx = source.shape
    cz, cy, cx = source.aspect.axes
    low, planes = source.planes(0 if source.depth == 1 else blur_reach(sigma, cz))
    n_planes = int(planes.shape[0])
    lines = source.scratch("lines", n_planes)
    half = blur_reach(sigma, cx)
    _along_x(source, planes, mirrored(taps(0, nx, half), nx), sigma * cx, lines)
    half = blur_reach(sigma, cy)
    places = mirrored(taps(0, ny, half), ny)
    if source.depth == 1:
        _along_rows(source, lines, places, sigma * cy, out, n_sub=1)
        return
    rows = source.scratch("rows", n_planes)
    _along_rows(source, lines, places, sigma * cy, rows, n_sub=n_planes)
    blur_along_z(source, rows, sigma, out, low=low)


def blur_along_z(source: VolumeDeviceSource, planes: Array, sigma: float, out: Array, *, low: int) -> None:
    """The pass along z alone: of planes from ``low`` on, all that it meets, to the wanted ones."""
    (n, ny, nx), cz = source.shape, source.aspect[0]
    places = mirrored(taps(source.start, source.stop, blur_reach(sigma, cz)), source.depth) - low
    flat = planes.reshape(1, int(planes.shape[0]), ny * nx)
    _along_rows(source, flat, places, sigma * cz, out.reshape(1, n, ny * nx), n_sub=1)


def _reach(half: int) -> int:
    found = [reach for reach in REACHES if half <= reach]
    if not found:
        raise UsageError(f"a blur of half-width {half} voxels is beyond {REACHES[-1]}", do="choose smaller sigmas")
    return found[0]


def _weights(source: VolumeDeviceSource, std: float) -> Array:
    return source.workspace.constant(("volume blur", std), lambda: blur_kernel(std))


def _along_x(source: VolumeDeviceSource, image: Array, places: Positions, std: float, out: Array) -> None:
    n_planes, ny, nx = image.shape
    half = (len(places) - nx) // 2
    n_lines = n_planes * ny
    if source.device.wants_gpu_plan:
        (tx, ty), block = GPU_BLOCK, GPU_BLOCK
        defines = {"TX": tx, "TY": ty}
    else:
        (tx, ty), block = CPU_LINES, (1, 1)
        defines = {"TX": tx, "TY": ty, "REACH": _reach(half), "ONE_THREAD": 1}
    source.device.launch(
        "volume_blur.cu",
        "volume_blur_x",
        grid=(-(-nx // tx), -(-n_lines // ty)),
        block=block,
        args={
            "image": image,
            "places": source.table(places),
            "weights": _weights(source, std),
            "result": out,
            "half": half,
            "n_lines": n_lines,
            "nx": nx,
        },
        defines=defines,
    )


def _along_rows(
    source: VolumeDeviceSource, image: Array, places: Positions, std: float, out: Array, *, n_sub: int
) -> None:
    """Along axis 1: (n_sub, n_in, width) -> (n_sub, n_out, width)."""
    _, n_in, width = image.shape
    n_out = int(out.shape[1])
    half = (len(places) - n_out) // 2
    if source.device.wants_gpu_plan:
        (tx, ty), block = GPU_BLOCK, GPU_BLOCK
        defines = {"TX": tx, "TY": ty}
    else:
        (tx, ty), block = CPU_BAND, (1, 1)
        defines = {"TX": tx, "TY": ty, "REACH": _reach(half), "ONE_THREAD": 1}
    source.device.launch(
        "volume_blur.cu",
        "volume_blur_rows",
        grid=(-(-width // tx), -(-n_out // ty), n_sub),
        block=block,
        args={
            "image": image,
            "places": source.table(places),
            "weights": _weights(source, std),
            "result": out,
            "half": half,
            "n_in": n_in,
            "n_out": n_out,
            "width": width,
        },
        defines=defines,
    )
