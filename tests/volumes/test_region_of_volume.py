"""Voxels that count: those of the box in which the mask is not 0, whatever its values are."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes import ArrayVolume, Region

SHAPE = (4, 5, 6)


def test_outside_is_where_the_mask_is_0_or_the_box_ends() -> None:
    mask = np.zeros(SHAPE, np.uint8)
    mask[1:3, 1:4, 2:5] = 7
    mask[1, 1, 2] = 1
    region = Region.of(ArrayVolume(np.zeros(SHAPE)), crop="1:,2:,:4", mask=mask)
    for z in range(SHAPE[0]):
        expected = np.ones(SHAPE[1:], bool)
        if z in (1, 2):
            expected[2:4, 2:4] = False
        found = region.outside(z)
        assert found is not None
        np.testing.assert_array_equal(found, expected)
    assert (region.first, region.box_shape) == ((1, 2, 0), (3, 3, 4))
    assert region.to_dict()["crop"] == "1:4,2:5,0:4"


def test_all_of_a_volume_has_no_outside() -> None:
    volume = ArrayVolume(np.zeros(SHAPE))
    assert Region.of(volume).is_whole
    assert Region.of(volume, crop=":,:,:").outside(0) is None
    assert Region.of(volume, mask=np.full(SHAPE, 3, np.uint8)).outside(0) is None


def test_planes_and_box_meet_or_are_refused() -> None:
    volume = ArrayVolume(np.zeros(SHAPE))
    assert Region.of(volume, planes=(0, 3), crop="2:,:,:").box[0] == (2, 3)
    with pytest.raises(UsageError, match="are not in the box"):
        Region.of(volume, planes=(0, 2), crop="2:,:,:")
    with pytest.raises(UsageError, match="is not inside of the volume's"):
        Region.of(volume, crop="0:5,:,:")
    with pytest.raises(DataError, match=r"the mask is \(4, 5, 5\)"):
        Region.of(volume, mask=np.zeros((4, 5, 5), np.uint8))
