"""Planes smoothed along z by ``volume_blur.cu``, of which the kernels of the families of planes make channels."""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.features.accelerated.source import DeviceSource
from gpu_tomoclass.features.accelerated.volume_blur import blur_along_z
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.reference.volume_blur import blur_reach


def smoothed_planes(source: VolumeDeviceSource, sigma: float) -> DeviceSource:
    """The wanted planes smoothed along z, equal to :mod:`gpu_tomoclass.features.reference.smoothed` in every bit."""
    smoothed = source.workspace.array("smoothed along z", source.shape, np.float32)
    if source.depth == 1:
        source.device.copy(source.image, smoothed)
    else:
        low, planes = source.planes(blur_reach(sigma, source.aspect[0]))
        blur_along_z(source, planes, sigma, smoothed, low=low)
    return DeviceSource.of(smoothed, source.workspace, name="along z")
