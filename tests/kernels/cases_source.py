"""What families share: extremes of planes, 8-bit planes."""

from __future__ import annotations

import numpy as np
from family_cases import Planes, make_planes
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.source import DeviceSource
from gpu_tomoclass.features.reference.source import FeatureSource


def make(random: np.random.Generator, size: Planes) -> Inputs:
    planes = make_planes(random, size)
    if size.kind == "float" and size.ny > 1:
        planes[0, 0, :3] = np.nan, np.inf, -np.inf
        planes[-1, 1] = np.nan
    return {"planes": planes, "display_range": size.display_range}


def run(device: Device, inputs: Inputs) -> np.ndarray:
    source = DeviceSource(inputs["planes"], Workspace(device), display_range=inputs["display_range"])
    return np.stack([device.numpy(source.bytes_own()), device.numpy(source.bytes_display())])


def expected(inputs: Inputs) -> np.ndarray:
    planes = [FeatureSource(plane, display_range=inputs["display_range"]) for plane in inputs["planes"]]
    return np.stack([[p.bytes_own() for p in planes], [p.bytes_display() for p in planes]])


SMALL = (Planes(2, 13, 37), Planes(2, 5, 7, "float", display_range=(-0.5, 1.1)), Planes(1, 1, 1, "constant"))
CASES = [
    Case(
        name="bytes",
        make=make,
        run=run,
        expected=expected,
        sizes=(*SMALL, Planes(2, 56, 64, "small32"), Planes(2, 317, 428), Planes(1, 7, 9, "constant")),
        small_sizes=SMALL,
        tolerance=0,
        why="bytes",
    )
]
