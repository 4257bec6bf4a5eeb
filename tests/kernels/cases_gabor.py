"""Gabor: sums of products in float32 against Fourier transforms in double."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from family_cases import Planes, make_planes
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.gabor import ALL_BANKS, gabor_banks
from gpu_tomoclass.features.accelerated.source import DeviceSource
from gpu_tomoclass.features.families import FAMILIES
from gpu_tomoclass.features.reference.gabor import BANKS, gabor
from gpu_tomoclass.features.reference.source import FeatureSource

TOLERANCE = FAMILIES["gabor"].tolerance


@dataclass(frozen=True)
class Some:
    """Planes, and which banks to compute: all take the interpreter of PTX half a minute."""

    planes: Planes
    banks: tuple[int, ...] = ALL_BANKS


def make(random: np.random.Generator, size: Some) -> Inputs:
    return {"planes": make_planes(random, size.planes), "banks": size.banks}


def run(device: Device, inputs: Inputs) -> np.ndarray:
    planes = inputs["planes"]
    out = device.empty((2 * len(BANKS), *planes.shape), np.float32)
    gabor_banks(DeviceSource(planes, Workspace(device)), inputs["banks"], out=out)
    return device.numpy(out)[channels(inputs)]


def expected(inputs: Inputs) -> np.ndarray:
    return np.stack([gabor(FeatureSource(plane)) for plane in inputs["planes"]], axis=1)[channels(inputs)]


def channels(inputs: Inputs) -> list[int]:
    return [2 * bank + i for bank in inputs["banks"] for i in range(2)]


def case(
    name: str, *, sizes: tuple[Some, ...], small_sizes: tuple[Some, ...], tolerance: float = TOLERANCE.factor, why: str
) -> Case:
    return Case(
        name=name,
        make=make,
        run=run,
        expected=expected,
        sizes=sizes,
        small_sizes=small_sizes,
        tolerance=tolerance,
        relative=True,
        why=why,
        ptx_tolerance=max(tolerance, TOLERANCE.ptx),
    )


# Banks 0 and 3 have kernels of 7 x 7 pixels, 1 and 14 of 13 x 13, 11 and 21 of 25 x 25; each the two phases.
# The budget is that of the largest. Planes larger than a block in both directions; planes smaller than the
# kernels, mirrored many times.
SMALL = (
    Some(Planes(1, 11, 35), (11, 21)),
    Some(Planes(2, 17, 33), (0, 3)),
    Some(Planes(1, 9, 7, "float"), (1, 14)),
    Some(Planes(1, 1, 1), (0, 3)),
    Some(Planes(1, 5, 3, "constant"), (3, 1)),
)
SIZES = (
    *(Some(size.planes) for size in SMALL),
    Some(Planes(2, 56, 64, "small8")),
    Some(Planes(1, 64, 56, "small16")),
    Some(Planes(1, 56, 64, "small32")),
    Some(Planes(2, 101, 97)),
    Some(Planes(2, 37, 53, "float")),
    Some(Planes(1, 61, 47, "steps")),
    Some(Planes(2, 33, 31, "constant")),
    Some(Planes(1, 317, 428)),
)
LINES = (Some(Planes(1, 1, 40), (11,)), Some(Planes(1, 40, 1), (21,)))
CASES = [
    case("gabor", sizes=SIZES, small_sizes=SMALL, why=TOLERANCE.why),
    case(
        "gabor lines",
        sizes=tuple(Some(size.planes) for size in LINES),
        small_sizes=LINES,
        tolerance=3e-5,
        why="where nothing varies across the line, oblique kernels nearly cancel: rounding errors are a larger share",
    ),
]
