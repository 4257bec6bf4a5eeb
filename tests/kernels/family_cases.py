"""Makes the cases of a feature family: its kernels against its reference, on many kinds of planes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from kernel_cases import Case, Inputs

from gpu_tomoclass.device import Device
from gpu_tomoclass.device.workspace import Workspace
from gpu_tomoclass.features.accelerated.source import BlockRequest, DeviceSource
from gpu_tomoclass.features.engine import accelerated_family
from gpu_tomoclass.features.families import FAMILIES, ORIGINAL
from gpu_tomoclass.features.reference.source import FeatureSource

Parameters = dict[str, Any]
GOLDEN_FOLDER = Path(__file__).parents[1] / "data" / "golden"


@dataclass(frozen=True)
class Planes:
    """What a case runs on.

    Attributes
    ----------
    nz, ny, nx : int
    kind : str
        ``"noise"``, uint16-like values; ``"float"``, around 0; ``"steps"``, few grey levels with flat regions;
        ``"constant"``, 1000 everywhere; ``"zeros"``, mostly zeros of both signs; ``"denormals"``, denormals too; or a
        golden set such as ``"small16"``, cut to nz, ny, nx (nz copies,
        each rolled by some rows so that planes differ).
    parameters : sequence of dict
        What the reference is called with, one per block.
    display_range : (float, float), optional
    """

    nz: int
    ny: int
    nx: int
    kind: str = "noise"
    parameters: Sequence[Parameters] = field(default_factory=lambda: ({},))
    display_range: tuple[float, float] | None = None


def make_planes(random: np.random.Generator, size: Planes) -> np.ndarray:
    shape = size.nz, size.ny, size.nx
    if size.kind == "noise":
        smooth = np.cumsum(random.normal(size=shape), axis=2) * 300 + 20000
        return np.round(np.clip(smooth + random.normal(size=shape) * 800, 0, 65535)).astype(np.float32)
    if size.kind == "float":
        return random.normal(size=shape).astype(np.float32)
    if size.kind == "steps":
        return (random.integers(0, 3, size=shape).cumsum(axis=1) // 4 * 100).astype(np.float32)
    if size.kind == "constant":
        return np.full(shape, 1000, np.float32)
    if size.kind in ("zeros", "denormals"):
        small = [0, -0.0] if size.kind == "zeros" else [0, -0.0, 1e-45, -1e-45, 1e-39, -1e-39]
        values = random.choice(np.array([1, -2, 300], np.float32), size=shape)
        return np.where(random.random(shape) < 0.9, random.choice(np.array(small, np.float32), size=shape), values)
    image = tifffile.imread(GOLDEN_FOLDER / f"{size.kind}.tif").astype(np.float32)[: size.ny, : size.nx]
    assert image.shape == shape[1:], f"{size.kind} is smaller than {shape[1:]}"
    return np.stack([np.roll(image, 7 * z, axis=0) for z in range(size.nz)])


def run_family(family: str, device: Device, inputs: Inputs) -> np.ndarray:
    """All blocks by kernels: (n_channels of all blocks, nz, ny, nx)."""
    planes, parameters = inputs["planes"], inputs["parameters"]
    accelerated = accelerated_family(family)
    assert accelerated is not None
    n_channels = [len(_row(family).labels(**p)) for p in parameters]
    out = device.empty((sum(n_channels), *planes.shape), np.float32)
    starts = np.cumsum([0, *n_channels])
    requests = [BlockRequest(dict(p), out[a:b]) for p, a, b in zip(parameters, starts[:-1], starts[1:], strict=True)]
    source = DeviceSource(planes, Workspace(device), display_range=inputs["display_range"])
    accelerated(source, requests)
    return device.numpy(out)


def expected_family(family: str, inputs: Inputs) -> np.ndarray:
    """The same by the reference, plane by plane."""
    planes = [FeatureSource(plane, display_range=inputs["display_range"]) for plane in inputs["planes"]]
    blocks = [np.stack([_row(family).compute(p, q) for p in planes], axis=1) for q in inputs["parameters"]]
    return np.concatenate(blocks)


def _row(family: str) -> Any:
    return ORIGINAL if family == ORIGINAL.name else FAMILIES[family]


def family_case(
    family: str, *, sizes: Sequence[Planes], small_sizes: Sequence[Planes], name: str | None = None
) -> Case:
    """A case of one family; its tolerance is that of its row in ``families.py``."""
    tolerance = _row(family).tolerance
    return Case(
        name=family if name is None else name,
        make=lambda random, size: {
            "planes": make_planes(random, size),
            "parameters": size.parameters,
            "display_range": size.display_range,
        },
        run=lambda device, inputs: run_family(family, device, inputs),
        expected=lambda inputs: expected_family(family, inputs),
        sizes=sizes,
        small_sizes=small_sizes,
        tolerance=tolerance.factor,
        relative=True,
        why=tolerance.why,
        ptx_tolerance=tolerance.ptx,
    )
