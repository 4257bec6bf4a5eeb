"""A family's row says how much memory its reference needs: compared with what NumPy allocates, for every family."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.block import volume_source
from gpu_tomoclass.features.families import FAMILIES
from gpu_tomoclass.features.place import Place
from gpu_tomoclass.features.reference.source import FeatureSource

SHARED = 4  # bytes per pixel of a blurred plane, which a plane keeps for all families
SIGMAS = {  # with which a family needs most, where that is not 1; fewer where that would take seconds
    "gaussian_blur": (16,),
    "difference_of_gaussians": (8, 16),
    "variance": (16,),
    "mean": (16,),
    "minimum": (16,),
    "maximum": (16,),
    "median": (8,),
    "derivatives": (16,),
    "laplacian": (16,),
    "entropy": (2,),
    "difference_of_gaussian_3d": (1, 2),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_the_reference_needs_what_its_row_says(name: str) -> None:
    """No more, so that a plan holds; and not a quarter of it, so that memory is not left idle."""
    row = FAMILIES[name]
    by_plane = row.dimensions == 2 or row.is_smoothed
    sigmas = {name: SIGMAS.get(name.removeprefix("z_"), (1,) if by_plane else (2,))} if row.per_sigma else {}
    bank = FeatureBank.create([name], sigmas=sigmas)
    (block, *_) = (block for block in bank.blocks if block.family == name)
    block = (block.parts or (block,))[0]  # what is computed at once
    random = np.random.default_rng(0)
    # Large enough that lines beyond the border, which every filter needs, do not count.
    shape = (300, 301) if row.dimensions == 2 else (20, 100, 101)
    if row.is_smoothed:  # one plane of a slab that has its halo already
        shape = (2 * block.reaches()[0] + 1, 300, 301)
    image = random.integers(0, 60000, shape).astype(np.float32)
    source = FeatureSource(image) if row.dimensions == 2 else volume_source(image, Place.whole(len(image)))
    if row.is_smoothed:
        source = volume_source(
            image, Place.with_halo(len(image) // 2, len(image) // 2 + 1, depth=len(image), halo=len(image) // 2)
        )
    tracemalloc.start()
    try:
        row.compute(source, dict(block.parameters))  # type: ignore[arg-type]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    needed = peak / (image[0].size if row.is_smoothed else image.size) - 4 * len(block.channels)
    assert needed <= row.scratch + SHARED * len(sigmas.get(name, ())) * by_plane
    assert needed >= row.scratch / 4
