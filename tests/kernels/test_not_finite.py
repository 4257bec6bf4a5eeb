"""Planes that are not finite.

None reaches a kernel, as ``prepare_plane`` replaces such voxels or refuses them. Should one ever do, kernels that use
values as places (histograms, ranks, tables) must still stay within their arrays.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from test_every_kernel import run_sanitized

from gpu_tomoclass.features.intensity import NAN_POLICIES, IntensityScale
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.volumes.opening import open_volume

# Those whose values become places or decide how far a loop goes, and those that compare.
FAMILIES = ("median", "minimum", "maximum", "entropy", "bilateral", "lipschitz", "kuwahara", "anisotropic_diffusion")


@pytest.mark.parametrize("policy", [policy for policy in NAN_POLICIES if policy != "error"])
def test_kernels_are_never_given_such_planes(tmp_path: Path, policy: str) -> None:
    voxels = np.random.default_rng(2).normal(size=(2, 11, 13)).astype(np.float32)
    voxels[0, 3:5, 2:9] = np.nan
    voxels[1, 0, 0], voxels[1, 10, 12] = np.inf, -np.inf
    tifffile.imwrite(tmp_path / "volume.tif", voxels)
    with open_volume(tmp_path / "volume.tif") as volume:
        for z in range(2):
            prepared = prepare_plane(volume, z, scale=IntensityScale(), nan=policy)
            assert np.isfinite(prepared.image).all()


def test_kernels_stay_within_their_arrays(tmp_path: Path) -> None:
    run = run_sanitized(tmp_path, f"not finite {' '.join(FAMILIES)}")
    assert run.returncode == 0, run.stderr[-4000:]
    assert run.stdout.split() == list(FAMILIES)
