"""NAD of volumes against its reference in float64."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.baseline.nad_reference import NadParameters
from gpu_tomoclass.baseline.nad_volume_kernels import VolumeSteps
from gpu_tomoclass.baseline.nad_volume_reference import nad_volume
from gpu_tomoclass.device import Device
from gpu_tomoclass.device.tolerances import NAD_VOLUME


class Size(NamedTuple):
    """A volume and what it is diffused with, in slabs of so many planes."""

    nz: int
    ny: int
    nx: int
    parameters: NadParameters
    kind: str = "noise"
    slab_planes: int = 1000


def make(random: np.random.Generator, size: Size) -> Inputs:
    """An edge, an oblique sheet and noise, at the middle of a 16-bit range; left of the edge is the noise area."""
    shape = size.nz, size.ny, size.nx
    z, y, x = np.mgrid[: size.nz, : size.ny, : size.nx]
    volume = 20000.0 + 8000 * (x > size.nx // 2) + 6000 * (abs(y - x // 2 + z // 3 - size.ny // 4) < 2)
    if size.kind == "noise":
        volume = volume + random.normal(0, 1000, shape)
    elif size.kind == "constant":
        volume = np.full(shape, 1000.0)
    elif size.kind == "line":  # two eigenvalues are 0 in many places, all three in others
        volume = np.where((abs(y - size.ny // 2) < 1) & (abs(z - size.nz // 2) < 1), 3000.0, 1000.0)
    return {"volume": volume.astype(np.float32), "parameters": size.parameters, "slab_planes": size.slab_planes}


def run(device: Device, inputs: Inputs) -> np.ndarray:
    u = device.array(inputs["volume"])
    moved = device.empty(u.shape, np.float32)
    planes = min(len(u), inputs["slab_planes"])
    steps = VolumeSteps(device, inputs["parameters"], shape=u.shape, slab_planes=planes, on_device=True)
    return np.array(device.numpy(steps.run(u, moved)))[np.newaxis]


def expected(inputs: Inputs) -> np.ndarray:
    return nad_volume(inputs["volume"], inputs["parameters"])[np.newaxis]


def of(**changes: object) -> NadParameters:
    return NadParameters(**{"dimensions": 3, "iterations": 1, "noise_area": (0, 0, 0), **changes})  # type: ignore[arg-type]


SMALL = (
    Size(3, 5, 37, of()),
    Size(2, 9, 6, of(structure_sigma=0.5, contrast=800.0, structure=1e12, balance=1.0)),
    Size(7, 1, 5, of(sigma=0.0, structure_sigma=0.25, balance=0.0, grey_level=0.0, noise_area=None), slab_planes=2),
    Size(3, 4, 5, of(structure_sigma=0.5), "constant"),
    Size(5, 6, 5, of(structure_sigma=0.5), "line"),
)
CASES = [
    Case(
        name="nad volume",
        make=make,
        run=run,
        expected=expected,
        sizes=(
            *SMALL,
            Size(1, 1, 1, of(iterations=3)),
            Size(18, 31, 70, of(noise_area=(20, 15, 8), iterations=10)),
            Size(
                30, 23, 41, of(noise_area=(5, 9, 12), iterations=5, time_step=1 / 6, second_eigenvector=1.0), "noise", 7
            ),
            Size(14, 26, 33, of(noise_area=(5, 9, 6), iterations=10, balance=1.0, second_eigenvector=0.0), "sheet"),
            Size(11, 60, 129, of(noise_area=(20, 30, 4), iterations=3), "line"),
        ),
        small_sizes=SMALL,
        tolerance=NAD_VOLUME.factor,
        relative=True,
        why=NAD_VOLUME.why,
    ),
]
