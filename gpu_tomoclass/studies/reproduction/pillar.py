"""The rubber pillar with silica: simulated here as the paper's was imaged, or given by the user with its truth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from gpu_tomoclass import Particles, measure_particles, open_volume
from gpu_tomoclass.studies.reproduction.case import Case, CaseResult
from gpu_tomoclass.studies.reproduction.given import given_case
from gpu_tomoclass.studies.simulation.files import write_pillar
from gpu_tomoclass.studies.simulation.pillar import SAMPLE_CLASSES
from gpu_tomoclass.types import Progress

SHAPE = (120, 428, 317)  # planes as large as the paper's, 0.55 nm; 861 planes there
FULL_SHAPE = (861, 428, 317)
QUICK_SHAPE = (24, 160, 136)
N_PAINTED = 8
FEWEST_PLANES = 24  # two thirds of them are twice the painted ones
VACUUM, RUBBER, SILICA = 1, 2, 3  # label values


def pillar_files(folder: Path) -> tuple[Path, Path]:
    """The volume and its truth that `make_pillar_case` writes."""
    return folder / "pillar.tif", folder / "pillar_truth.tif"


def make_pillar_case(
    folder: Path,
    *,
    shape: tuple[int, int, int] = SHAPE,
    seed: int = 0,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> Case:
    """Simulate a pillar; the operator paints on planes of its lower two thirds, the rest nobody paints or looks at."""
    volume, truth = write_pillar(
        pillar_files(folder)[0], shape=shape, seed=seed, overwrite=overwrite, progress=progress
    )
    return given_case("pillar", "rubber-silica pillar", volume, truth, names=SAMPLE_CLASSES, n_painted=N_PAINTED,
                      share=2 / 3)  # fmt: skip


def silica_particles(result: CaseResult) -> dict[str, Particles]:
    """Connected silica: in the truth, by NAD and thresholds, by the forest after corrections."""
    paths = {"truth": result.case.truth, **{n: str(result.methods[n].path) for n in ("nad_otsu", "corrected")}}
    found = {}
    for name, path in paths.items():
        value = SILICA - 1 + result.case.lowest if name == "truth" else SILICA
        with open_volume(path) as labels:
            found[name] = measure_particles(labels, value=value)
    return found


def particle_numbers(particles: Particles, *, smallest: float = 0.0) -> dict[str, Any]:
    """For tables and JSON: number and equivalent diameters of particles that are at least ``smallest`` wide."""
    chosen = particles.diameter >= smallest
    diameter, volume = particles.diameter[chosen], particles.volume[chosen]
    return {
        "particles": len(diameter),
        "unit": particles.unit,
        "median_diameter": float(np.median(diameter)) if len(diameter) else None,
        "volume_weighted_diameter": float((diameter * volume).sum() / volume.sum()) if len(diameter) else None,
        "largest_share_of_volume": float(volume.max() / volume.sum()) if len(diameter) else None,
    }
