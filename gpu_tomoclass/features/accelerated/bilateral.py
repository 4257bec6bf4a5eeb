"""Bilateral by ``kernels/bilateral.cu`` on a GPU, ``kernels/bilateral_cpu.cu`` on a CPU."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.bilateral import RANGE_RADII, SPATIAL_RADII, weights

BLOCK = (32, 16)  # on a GPU; 512 threads share a copy of the range weights for each lane
TILE = (16, 128)  # rows and columns of a CPU task: its grey levels stay in the first cache
CUT = int(max(RANGE_RADII))  # grey levels; weights beyond are 0


def bilateral(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.bilateral.bilateral` in every bit."""
    nz, ny, nx = source.shape
    constant = source.workspace.constant
    small, large = SPATIAL_RADII
    for request in requests:
        args = {
            "grey": source.bytes_display(),
            "small_spatial": constant(("bilateral", small), lambda: spatial_weights(small)),
            "spatial": constant(("bilateral", large), lambda: spatial_weights(large)),
            "result": request.out,
            "ny": ny,
            "nx": nx,
        }
        if source.device.wants_gpu_plan:
            columns, rows = BLOCK
            source.device.launch(
                "bilateral.cu",
                "bilateral",
                grid=(-(-nx // columns), -(-ny // rows), nz),
                block=BLOCK,
                args={**args, "by_difference": constant("bilateral ranges", lambda: range_weights()[255 : 257 + CUT])},
                defines={"TX": columns, "TY": rows, "CUT": CUT},
            )
        else:
            rows, columns = TILE
            source.device.launch(
                "bilateral_cpu.cu",
                "bilateral_cpu",
                grid=(-(-nx // columns), -(-ny // rows), nz),
                block=(1,),
                args={**args, "weight_pairs": constant("bilateral pairs", range_weight_pairs)},
                defines={"ONE_THREAD": 1, "ROWS": rows, "COLUMNS": columns},
            )


def spatial_weights(radius: float) -> npt.NDArray[np.float32]:
    """Weight of each tap by its place: (2 radius + 1, 2 radius + 1) float32."""
    line = weights(radius)
    return line[:, np.newaxis] * line


def range_weights() -> npt.NDArray[np.float32]:
    """Weights of taps that differ by -255..255 grey levels, in each of the ranges: (511, 2) float32."""
    by_difference = np.zeros((511, len(RANGE_RADII)), np.float32)
    for i, radius in enumerate(RANGE_RADII):
        near = weights(radius)
        cut = len(near) // 2
        by_difference[255 - cut : 256 + cut, i] = near
    return by_difference


def range_weight_pairs() -> npt.NDArray[np.uint64]:
    """The same as one number each, the narrow range's bits below the wide one's: (511,) uint64."""
    bits = range_weights().view(np.uint32).astype(np.uint64)
    return bits[:, 0] | bits[:, 1] << np.uint64(32)
