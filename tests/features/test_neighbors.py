"""Neighbors: shifts with mirrored edges."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.features.reference.neighbors import DIRECTIONS, neighbors
from gpu_tomoclass.features.reference.source import FeatureSource


@pytest.mark.parametrize("distance", [1, 2, 7])
def test_equals_a_reflected_pad(distance: int) -> None:
    image = np.random.default_rng(4).normal(size=(9, 12)).astype(np.float32)
    padded = np.pad(image, distance, mode="reflect")
    result = neighbors(FeatureSource(image), distance=distance)
    for channel, (dx, dy) in enumerate(DIRECTIONS):
        y, x = distance * (1 + dy), distance * (1 + dx)
        np.testing.assert_array_equal(result[channel], padded[y : y + 9, x : x + 12])


def test_channel_order_starts_left_above() -> None:
    image = np.arange(9, dtype=np.float32).reshape(3, 3)
    assert neighbors(FeatureSource(image), distance=1)[:, 1, 1].tolist() == [0, 3, 6, 1, 7, 2, 5, 8]


def test_still_outside_after_mirroring_is_missing() -> None:
    """A line of 3: TWS mirrors at the start, then at the end, so -3 goes to 3 and 1, but 5 to -1, where nothing is."""
    result = neighbors(FeatureSource(np.arange(3, dtype=np.float32).reshape(1, 3)), distance=3)
    left, right = result[DIRECTIONS.index((-1, 0))], result[DIRECTIONS.index((1, 0))]
    np.testing.assert_array_equal(left, [[1.0, 2.0, 1.0]])  # -3, -2, -1
    np.testing.assert_array_equal(right, [[1.0, 0.0, np.nan]])  # 3, 4, 5
    assert np.isnan(result[DIRECTIONS.index((0, 1))]).all()  # one row only
