"""Z_context and Z_blur by kernels: ``volume_blur.cu`` along z, ``blur.cu`` and ``median*.cu`` within the plane."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpu_tomoclass.features.accelerated.blur import gaussian_blur
from gpu_tomoclass.features.accelerated.ranks import median
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.accelerated.volume_blur import blur_along_z
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.reference.volume_blur import blur_reach
from gpu_tomoclass.features.reference.z_context import BLURS, MEDIANS


def z_context(source: VolumeDeviceSource, requests: Sequence[BlockRequest]) -> None:
    """``Z_context`` and ``Z_blur``, equal to :mod:`gpu_tomoclass.features.reference.z_context` in every bit."""
    n, ny, nx = source.shape
    smoothed = source.workspace.array("smoothed along z", (n, ny, nx), np.float32)
    for request in requests:
        sigma = request.parameters["sigma"]
        low, planes = source.planes(0 if source.depth == 1 else blur_reach(sigma, source.aspect[0]))
        if source.depth == 1:
            source.device.copy(planes, smoothed)
        else:
            blur_along_z(source, planes, sigma, smoothed, low=low)
        for k, blur in enumerate(BLURS):
            gaussian_blur(source.workspace, smoothed, request.out[k], blur)
        if request.family == "z_blur":
            continue
        within = DeviceSource.of(smoothed, source.workspace, name=f"smoothed {sigma}")
        of_median = [
            BlockRequest({"radius": radius}, request.out[k : k + 1], "median")
            for k, radius in enumerate(MEDIANS, start=len(BLURS))
        ]
        median(within, of_median)
