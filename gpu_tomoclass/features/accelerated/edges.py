"""Gaussian_blur, Sobel_filter, Hessian and Difference_of_gaussians by ``kernels/sobel.cu`` and ``difference.cu``.

What they share, G(s), is :meth:`DeviceSource.gaussian`.
"""

from __future__ import annotations

from collections.abc import Sequence

from gpu_tomoclass.device import Array
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.edges import over_sigma

GPU_TILE = (32, 8)  # pixels and threads of a block
CPU_TILE = (256, 16)  # pixels of a block: three tiles of this size fit the second-level cache
THREADS = {True: 256, False: 1024}  # per block of the difference, with the GPU's plan or not
AT_ONCE = 4  # images that a launch of the difference takes


def gaussian_blur(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.edges.gaussian_blur` in every bit."""
    for request in requests:
        source.device.copy(source.gaussian(request.parameters["sigma"]), request.out[0])


def difference_of_gaussians(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.edges.difference_of_gaussians` in every bit."""
    threads = THREADS[source.device.wants_gpu_plan]
    n = int(source.image.size)
    for request in requests:
        other = source.gaussian(request.parameters["sigma"])
        for start in range(0, len(request.parameters["smaller"]), AT_ONCE):
            images = [source.gaussian(sigma) for sigma in request.parameters["smaller"][start : start + AT_ONCE]]
            source.device.launch(
                "difference.cu",
                "difference",
                grid=(-(-n // threads), len(images)),
                block=(threads,),
                args={
                    **dict(zip("abcd", images + images[:1] * (AT_ONCE - len(images)), strict=True)),
                    "other": other,
                    "result": request.out[start : start + len(images)],
                    "n": n,
                },
                defines={"THREADS": threads},
            )


def sobel_filter(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.edges.sobel_filter` in every bit."""
    for request in requests:
        _launch(source, "gradient", _blurred(source, request, order=1), request.out)


def hessian(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.edges.hessian`; the orientation up to its last bit."""
    for request in requests:
        defines = {"LEGACY": 1} if request.parameters.get("legacy") else {}
        _launch(source, "hessian", _blurred(source, request, order=2), request.out, **defines)


def _blurred(source: DeviceSource, request: BlockRequest, *, order: int) -> Array:
    """The image that differences of this order are taken of."""
    sigma, per_sigma = request.parameters["sigma"], request.parameters.get("per_sigma", False)
    return source.gaussian(sigma, factor=over_sigma(sigma, order, per_sigma=per_sigma))


def _launch(source: DeviceSource, kernel: str, image: Array, out: Array, **defines: int) -> None:
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    tx, ty = GPU_TILE if on_gpu else CPU_TILE
    source.device.launch(
        "sobel.cu",
        kernel,
        grid=(-(-nx // tx), -(-ny // ty), nz),
        block=(tx, ty) if on_gpu else (1, 1),
        args={"image": image, "result": out, "ny": ny, "nx": nx},
        defines={"TX": tx, "TY": ty, **({} if on_gpu else {"ONE_THREAD": 1}), **defines},
    )
