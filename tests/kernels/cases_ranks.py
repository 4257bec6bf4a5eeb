"""Variance, Mean, Minimum, Maximum and Median over disks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from family_cases import Planes, family_case
from kernel_cases import Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated import ranks
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource


def radii(*values: float) -> tuple[dict[str, float], ...]:
    return tuple({"radius": float(value)} for value in values)


DEFAULT = radii(1, 2, 4, 8, 16)
# The cross of 5 pixels, sizes that ImageJ keeps from an older version, the largest disk of median_small.cu.
ODD = radii(0.5, 1.5, 2.5, 2.7, 3.2)
AWKWARD = (
    Planes(1, 1, 1, parameters=DEFAULT),
    Planes(1, 1, 67, parameters=DEFAULT),
    Planes(1, 61, 1, parameters=DEFAULT),
    Planes(1, 5, 3, "float", parameters=DEFAULT),
    Planes(2, 13, 71, "steps", parameters=DEFAULT),
    Planes(1, 40, 33, "constant", parameters=DEFAULT),
    Planes(3, 31, 43, "float", parameters=ODD),
    Planes(2, 56, 64, "small8", parameters=DEFAULT),
    Planes(2, 64, 56, "small16", parameters=DEFAULT),
    Planes(2, 56, 64, "small32", parameters=DEFAULT),
    Planes(1, 11, 23, "float", parameters=radii(40.3, 130)),
    Planes(1, 317, 428, parameters=DEFAULT),
)
SMALL = (
    Planes(2, 37, 45, "float", parameters=radii(1, 4)),
    Planes(1, 1, 40, parameters=radii(2, 8)),
    Planes(1, 35, 1, parameters=radii(1.5, 8)),
    Planes(1, 5, 3, "steps", parameters=radii(16)),
    Planes(1, 1, 1, "float", parameters=radii(1, 4)),
)
CASES = [
    family_case(name, sizes=(*SMALL, *AWKWARD), small_sizes=SMALL)
    for name in ("variance", "mean", "minimum", "maximum")
]

MEDIAN_SMALL = (
    Planes(2, 13, 40, parameters=radii(1, 2, 4)),
    Planes(1, 1, 40, "float", parameters=radii(0.5, 3.2)),
    Planes(1, 35, 1, "steps", parameters=radii(2.7, 4)),
    Planes(1, 5, 3, "float", parameters=radii(6)),
    Planes(1, 1, 1, "float", parameters=radii(1, 4)),
)
CASES.append(family_case("median", sizes=(*MEDIAN_SMALL, *AWKWARD), small_sizes=MEDIAN_SMALL))


def median_unsorted(device: Device, inputs: Inputs) -> np.ndarray:
    """Median as a GPU finds it where tiles are too large to be sorted."""
    planes, parameters = inputs["planes"], inputs["parameters"]
    out = device.empty((len(parameters), *planes.shape), np.float32)
    requests = [BlockRequest(dict(p), out[i : i + 1]) for i, p in enumerate(parameters)]
    ranks.median(DeviceSource(planes, Workspace(device)), requests, sorted_on_gpu=0)
    return device.numpy(out)


UNSORTED = (Planes(2, 9, 35, parameters=radii(4)), Planes(1, 7, 1, "float", parameters=radii(3.5)))
CASES.append(
    replace(
        family_case("median", name="median unsorted", sizes=UNSORTED, small_sizes=UNSORTED),
        run=median_unsorted,
    )
)
