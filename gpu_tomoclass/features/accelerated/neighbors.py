"""Neighbors by ``kernels/neighbors.cu``, on a CPU by ``kernels/neighbors_cpu.cu``."""

from __future__ import annotations

from collections.abc import Sequence

from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource

BLOCK = (128, 2)


def neighbors(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.neighbors.neighbors` in every bit."""
    nz, ny, nx = source.shape
    tx, ty = BLOCK
    for request in requests:
        args = {
            "image": source.image,
            "result": request.out,
            "distance": request.parameters["distance"],
            "ny": ny,
            "nx": nx,
        }
        if source.device.wants_gpu_plan:
            source.device.launch(
                "neighbors.cu",
                "neighbors",
                grid=(-(-nx // tx), -(-ny // ty), nz),
                block=BLOCK,
                args=args,
                defines={"TX": tx, "TY": ty},
            )
        else:
            source.device.launch(
                "neighbors_cpu.cu",
                "neighbors_cpu",
                grid=(1, ny, nz),
                block=(1,),
                args=args,
                defines={"ONE_THREAD": 1},
            )
