"""Lipschitz by ``kernels/lipschitz.cu`` on a GPU, ``kernels/lipschitz_cpu.cu`` on a CPU."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.reference.lipschitz import SLOPES

MAX_THREADS = 512  # per block on a GPU; wider rows give each thread more pixels


def lipschitz(source: DeviceSource, requests: Sequence[BlockRequest]) -> None:
    """Equal to :func:`gpu_tomoclass.features.reference.lipschitz.lipschitz` in every bit."""
    nz, ny, nx = source.shape
    on_gpu = source.device.wants_gpu_plan
    pixels = -(-nx // MAX_THREADS)
    threads = -(-nx // (32 * pixels)) * 32
    for request in requests:
        source.device.launch(
            "lipschitz.cu" if on_gpu else "lipschitz_cpu.cu",
            "lipschitz" if on_gpu else "lipschitz_cpu",
            grid=(len(SLOPES), nz),
            block=(threads,) if on_gpu else (1,),
            args={
                "grey": source.bytes_display(),
                "steps": source.workspace.constant("lipschitz steps", steps),
                "cover": source.workspace.array("lipschitz cover", (len(SLOPES), nz, ny, nx), np.uint8),
                "result": request.out,
                "ny": ny,
                "nx": nx,
            },
            defines={"THREADS": threads, "PIXELS": pixels} if on_gpu else {"ONE_THREAD": 1},
        )


def steps() -> npt.NDArray[np.int32]:
    """Costs of a straight and a diagonal step, for each slope: (5, 2) int32."""
    return np.array([(slope, int(slope * math.sqrt(2.0))) for slope in SLOPES], np.int32)
