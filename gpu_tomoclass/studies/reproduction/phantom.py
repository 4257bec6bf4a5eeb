"""The five-level phantom as the paper makes it: plain, noisy and misaligned, with a missing wedge."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_tomoclass import default_classes
from gpu_tomoclass.studies.reproduction.case import Case
from gpu_tomoclass.studies.simulation.files import write_phantom
from gpu_tomoclass.studies.simulation.phantom import PHANTOM_CLASSES
from gpu_tomoclass.studies.simulation.tilt_series import WEDGE, tilt_angles

SIZE = 512
QUICK_SIZE = 128
NOISE_AREA = (180, 230)  # x and y in the left void at 512 pixels, as in the paper
BACKGROUND, SHELL = 1, 5  # label values
MIDDLE = (2, 3, 4)  # void, matrix, inset


@dataclass(frozen=True)
class Variant:
    """A way of spoiling the phantom; ``options`` of `gpu_tomoclass.studies.simulation.files.write_phantom`."""

    name: str
    title: str
    options: dict[str, Any]


VARIANTS = (
    Variant("plain", "plain", {}),
    Variant("noisy", "noise and misalignment", {"poisson": 0.5, "max_shift": 1.0}),
    Variant("wedge", "missing wedge", {"angles": tilt_angles(*WEDGE)}),
)


def phantom_files(folder: Path, variant: Variant) -> tuple[Path, Path]:
    """The volume and its truth that `make_phantom` writes."""
    return folder / f"phantom_{variant.name}.tif", folder / f"phantom_{variant.name}_truth.tif"


def make_phantom(
    folder: Path, variant: Variant, *, size: int = SIZE, seed: int = 0, n_planes: int = 1, overwrite: bool = False
) -> Case:
    """Simulate one variant; with several planes, which differ in noise only, the operator paints on the first alone."""
    volume, truth = write_phantom(
        phantom_files(folder, variant)[0],
        size=size,
        seed=seed,
        n_planes=n_planes,
        overwrite=overwrite,
        **variant.options,
    )
    x, y = (round(value * size / SIZE) for value in NOISE_AREA)
    return Case(
        name=f"phantom_{variant.name}",
        title=f"phantom, {variant.title}",
        volume=volume,
        truth=truth,
        classes=default_classes(PHANTOM_CLASSES),
        painted=(0,),
        judged=(0,),
        noise_area=(x, y),
        halo=(SHELL, BACKGROUND),
    )
