"""NAD of planes against its reference in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.baseline.nad_kernels import nad_planes
from gpu_tomoclass.baseline.nad_reference import NadParameters, nad_plane
from gpu_tomoclass.device import Device
from gpu_tomoclass.device.tolerances import NAD


class Size(NamedTuple):
    """Planes and what they are diffused with."""

    nz: int
    ny: int
    nx: int
    parameters: NadParameters
    kind: str = "noise"


def make(random: np.random.Generator, size: Size) -> Inputs:
    """An edge, a line and noise, at the middle of a 16-bit range; left of the edge is the noise area."""
    nz, ny, nx = size.nz, size.ny, size.nx
    if size.kind == "constant":
        return {"planes": np.full((nz, ny, nx), 1000, np.float32), "parameters": size.parameters}
    y, x = np.mgrid[:ny, :nx]
    planes = 20000.0 + 8000 * (x > nx // 2) + 6000 * (abs(y - x // 2 - ny // 4) < 2)
    planes = planes + random.normal(0, 1000, (nz, ny, nx))
    return {"planes": planes.astype(np.float32), "parameters": size.parameters}


def run(device: Device, inputs: Inputs) -> np.ndarray:
    return nad_planes(inputs["planes"], device=device, parameters=inputs["parameters"])


def expected(inputs: Inputs) -> np.ndarray:
    return np.stack([nad_plane(plane, inputs["parameters"]) for plane in inputs["planes"]])


def one_step(**changes: object) -> NadParameters:
    return NadParameters(**{"iterations": 1, "noise_area": (0, 0), **changes})  # type: ignore[arg-type]


SMALL = (
    Size(2, 11, 37, one_step()),
    Size(1, 3, 70, one_step(iterations=2, contrast=800.0, structure=1e12, balance=1.0)),
    Size(1, 1, 9, one_step(sigma=0.0, structure_sigma=1.0)),
    Size(1, 10, 1, one_step(balance=0.0, grey_level=0.0, noise_area=None)),
    Size(1, 5, 6, one_step(), "constant"),
)
CASES = [
    Case(
        name="nad",
        make=make,
        run=run,
        expected=expected,
        sizes=(
            *SMALL,
            Size(1, 1, 1, one_step(iterations=3)),
            Size(2, 61, 131, NadParameters(noise_area=(20, 45))),
            Size(1, 97, 83, NadParameters(noise_area=(10, 80), iterations=20, time_step=0.25, second_eigenvector=1.0)),
            Size(1, 317, 428, NadParameters(noise_area=(40, 250), iterations=10)),
        ),
        small_sizes=SMALL,
        tolerance=NAD.factor,
        relative=True,
        why=NAD.why,
    ),
]
