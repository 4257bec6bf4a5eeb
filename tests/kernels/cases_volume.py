"""Families across planes: slabs by kernels, against the reference on the whole volume."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.smoothed import smoothed_planes
from gpu_tomoclass.features.accelerated.source import BlockRequest
from gpu_tomoclass.features.accelerated.volume_source import VolumeDeviceSource
from gpu_tomoclass.features.engine import accelerated_family
from gpu_tomoclass.features.families import FAMILIES
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.volume_source import CUBES, Aspect, VolumeSource


class Size(NamedTuple):
    """A volume, the planes of it that are wanted and those that the slab holds besides.

    ``kind``: ``"noise"``, whole numbers up to 16 bits; ``"float"``, around 0; ``"steps"``, few grey levels with flat
    regions; ``"constant"``; ``"outlier"``: ``"float"`` with one value far away; ``"flat"``: two values, not whole.
    """

    depth: int
    ny: int
    nx: int
    sigmas: tuple[float, ...]
    core: tuple[int, int] | None = None
    halo: int = 0
    kind: str = "noise"
    aspect: Aspect = CUBES


def make(random: np.random.Generator, size: Size) -> Inputs:
    shape = size.depth, size.ny, size.nx
    values = np.cumsum(random.normal(size=shape), axis=2) * 300 + 20000 + random.normal(size=shape) * 800
    volume = np.round(np.clip(values, 0, 65535))
    if size.kind in ("float", "outlier"):
        volume = random.normal(size=shape)
        volume[0, 0, 0] = 1e9 if size.kind == "outlier" else volume[0, 0, 0]
    elif size.kind == "flat":
        volume = 0.25 + 0.5 * (random.random(shape) < 0.5)
    elif size.kind == "steps":
        volume = random.integers(0, 3, size=shape).cumsum(axis=1) // 4 * 100 - 200
    elif size.kind == "constant":
        volume = np.full(shape, 1000)
    return {"volume": volume.astype(np.float32), "size": size}


def blocks(family: str, size: Size) -> list[dict[str, Any]]:
    """Parameters of a family's blocks at the sizes's sigmas."""
    name = "radius" if FAMILIES[family].reference.startswith("volume_ranks") else "sigma"
    if FAMILIES[family].is_smoothed:
        return [{"sigma": 2.0, "z": sigma} for sigma in size.sigmas[:1]]
    if family != "difference_of_gaussian_3d":
        return [{name: sigma} for sigma in size.sigmas]
    return [{"sigma": s, "smaller": tuple(t for t in size.sigmas if t < s)} for s in size.sigmas[1:]]


def run(families: tuple[str, ...], device: Device, inputs: Inputs) -> np.ndarray:
    size, volume = inputs["size"], inputs["volume"]
    start, stop = size.core or (0, size.depth)
    first, last = max(start - size.halo, 0), min(stop + size.halo, size.depth)
    image = device.array(volume[first:last])
    workspace = Workspace(device)
    place = Place(first, last - first, size.depth, start, stop, size.aspect)
    source = VolumeDeviceSource(image, workspace, place)
    wanted = [(family, p) for family in families for p in blocks(family, size)]
    counts = [len(FAMILIES[family].labels(**p)) for family, p in wanted]
    out = device.empty((sum(counts), *source.shape), np.float32)
    starts = np.cumsum([0, *counts])
    requests = [
        BlockRequest(p, out[a:b], family) for (family, p), a, b in zip(wanted, starts[:-1], starts[1:], strict=True)
    ]
    accelerated = accelerated_family(families[0])
    assert accelerated is not None
    if FAMILIES[families[0]].is_smoothed:
        (z,) = {request.parameters.pop("z") for request in requests}
        accelerated(smoothed_planes(source, z), requests)
    else:
        accelerated(source, requests)
    return device.numpy(out)


def expected(families: tuple[str, ...], inputs: Inputs) -> np.ndarray:
    size = inputs["size"]
    source = VolumeSource(inputs["volume"], aspect=size.aspect)
    start, stop = size.core or (0, size.depth)
    found = [FAMILIES[family].compute(source, p)[:, start:stop] for family in families for p in blocks(family, size)]
    return np.concatenate(found)


def grouped(channels: np.ndarray, together: int) -> np.ndarray:
    return channels.reshape(-1, together * channels.shape[1], *channels.shape[2:])


def case(
    name: str,
    families: tuple[str, ...],
    *,
    sizes: tuple[Size, ...],
    small_sizes: tuple[Size, ...],
    together: int = 1,
) -> Case:
    """``together``: so many channels share the value that tolerances are relative to."""
    tolerance = max((FAMILIES[family].tolerance for family in families), key=lambda t: t.factor)
    return Case(
        name=name,
        make=make,
        run=lambda device, inputs: grouped(run(families, device, inputs), together),
        expected=lambda inputs: grouped(expected(families, inputs), together),
        sizes=sizes,
        small_sizes=small_sizes,
        tolerance=tolerance.factor,
        relative=True,
        why=tolerance.why,
        ptx_tolerance=tolerance.ptx,
    )


# A slab in the middle; one plane; single rows; slabs at both ends, kernels longer than the volume.
SMALL = (
    Size(7, 5, 37, (1.0, 1.3), core=(2, 5), halo=7),
    Size(1, 6, 5, (1.0, 2.0)),
    Size(5, 1, 9, (0.3, 3.0), kind="float", aspect=Aspect(0.5)),
    Size(9, 3, 4, (0.8, 1.5), core=(7, 9), halo=9, kind="steps", aspect=Aspect(2.0, 0.8)),
)
LARGE = (
    Size(20, 21, 47, (1.0, 2.0, 4.0, 8.0)),
    Size(30, 19, 33, (1.0, 2.0, 4.0), core=(11, 14), halo=25, kind="float", aspect=Aspect(0.5894736842105263, 0.8)),
)
TINY = Size(4, 3, 34, (1.0,), core=(1, 3), halo=3)
PAIR = Size(3, 3, 33, (1.0,), core=(1, 2), halo=3)
FLAT = Size(3, 1, 5, (1.0,), kind="constant")
LONG = Size(3, 4, 321, (32.0,), aspect=Aspect(1.0, 1.5))  # longer than the shorter compiled kernels
BALLS = Size(20, 21, 47, (1.0, 2.0, 4.0))
BALL = Size(33, 30, 61, (12.0,), core=(16, 17), halo=12)  # ranks of more than 16 bits, ends of rows
LINES = (  # a warp along each line; parts of lines; several voxels that share a level, very many, equal ones
    Size(4, 3, 40, (2.0,), core=(1, 3), halo=3),
    Size(1, 2, 150, (2.5,)),
    Size(3, 1, 37, (2.0,), kind="float", aspect=Aspect(0.7)),
    Size(7, 5, 9, (3.0,), core=(3, 4), halo=3, kind="outlier"),
    Size(7, 5, 9, (3.0,), core=(3, 4), halo=3, kind="flat"),
)
PASSES = ("derivatives_3d", "laplacian_3d", "edges_3d")
TENSORS = ("hessian_3d", "structure_3d")
CASES = [
    case("volume blur", ("gaussian_blur_3d",), sizes=(*SMALL, *LARGE, LONG), small_sizes=SMALL),
    case("volume difference", ("difference_of_gaussian_3d",), sizes=SMALL[:1], small_sizes=SMALL[:1]),
    case("volume derivatives", PASSES, sizes=(*SMALL, *LARGE, LONG), small_sizes=(TINY, *SMALL[1:3])),
    case("volume tensors", TENSORS, sizes=(SMALL[0], *LARGE), small_sizes=(PAIR,)),
    # A tensor with an eigenvalue of 0 gives rounding noise instead, so differences are shares of the largest.
    case("volume singular tensors", TENSORS, sizes=(*SMALL[1:3], FLAT), small_sizes=(FLAT,), together=3),
    case("volume minimum", ("minimum_3d",), sizes=(*SMALL, *LARGE), small_sizes=SMALL),
    case("volume maximum", ("maximum_3d",), sizes=(SMALL[2], LARGE[1]), small_sizes=SMALL[:1]),
    case("volume sums", ("mean_3d", "variance_3d"), sizes=(*SMALL, *LARGE), small_sizes=SMALL),
    case("volume mean", ("mean_3d",), sizes=SMALL[:1], small_sizes=SMALL[:1]),
    case("smoothed planes", ("z_gaussian_blur",), sizes=(*SMALL, LARGE[1]), small_sizes=(TINY, *SMALL[1:2])),
    case("volume median", ("median_3d",), sizes=(*SMALL, BALLS, LARGE[1], BALL), small_sizes=(TINY, *SMALL[1:3])),
    case("volume median lines", ("median_3d",), sizes=LINES, small_sizes=LINES),
]
