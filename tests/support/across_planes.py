"""A family of features that looks across planes, for tests: registered by :func:`register`, nowhere else."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.features.families import FAMILIES
from gpu_tomoclass.features.family import SAME_SUMS, Family
from gpu_tomoclass.features.reference.volume_source import VolumeSource, mirrored, taps

NAME = "box_across"


def half_length(radius: float, aspect: float = 1.0) -> int:
    """Planes on one side; a voxel that is longer along z has fewer."""
    return int(radius * aspect)


def box_across(source: VolumeSource, *, radius: float) -> np.ndarray:
    """Sum of 2 * half_length + 1 planes at each pixel, mirrored at the ends of the volume; whole numbers are exact."""
    half = half_length(radius, source.aspect[0])
    planes = source.within_slab(mirrored(taps(source.start, source.stop, half), source.depth))
    values = source.image[planes].astype(np.float32)
    n = source.stop - source.start
    return sum(values[k : k + n] for k in range(2 * half + 1))[np.newaxis]


def expected(volume: np.ndarray, *, radius: float, aspect: float = 1.0) -> np.ndarray:
    """The same of a whole volume (nz, ny, nx) by SciPy: (nz, ny, nx) float32."""
    n = 2 * half_length(radius, aspect) + 1
    return ndimage.correlate1d(volume.astype(np.float32), np.ones(n), axis=0, mode="mirror")


def register(patch: pytest.MonkeyPatch) -> None:
    """Make the family known until ``patch`` is undone."""
    module = types.ModuleType("box_across")
    module.box_across = box_across  # type: ignore[attr-defined]
    patch.setitem(sys.modules, "gpu_tomoclass.features.reference.box_across", module)
    row = Family(
        name=NAME,
        weka_name="Box_across",
        dimensions=3,
        parameters=lambda r: {"radius": r.sigma},
        labels=lambda radius: [f"Box_across_{radius:g}"],
        reach=lambda aspect, radius: half_length(radius, aspect),
        scratch=24,
        reference="box_across:box_across",
        tolerance=SAME_SUMS,
    )
    patch.setitem(FAMILIES, NAME, row)  # type: ignore[arg-type]
