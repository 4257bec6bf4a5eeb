"""Planes that cannot be read, as features across planes see them."""

from __future__ import annotations

import numpy as np

from gpu_tomoclass.features import IntensityScale, prepare_slab
from gpu_tomoclass.volumes import ArrayVolume


def test_a_missing_plane_is_the_nearest_that_can_be_read_and_the_one_before_of_two() -> None:
    values = np.arange(6 * 3 * 2, dtype=np.float32).reshape(6, 3, 2)
    volume = ArrayVolume(values)
    volume.missing_planes.update((2, 4, 5))
    slab = prepare_slab(volume, 0, 6, halo=1, scale=IntensityScale())
    assert [plane.missing for plane in slab.planes] == [False, False, True, False, True, True]
    seen = [int(image[0, 0]) // 6 for image in slab.images]
    assert seen == [0, 1, 1, 3, 3, 3]  # plane 2 lies between two: the one before
    assert not any(image.any() for image in prepare_slab(volume, 4, 6, scale=IntensityScale()).images)
