"""Entropy against a histogram of each disk, counted pixel by pixel."""

import math

import numpy as np
import pytest

from gpu_tomoclass.features.reference.entropy import entropy
from gpu_tomoclass.features.reference.source import FeatureSource


def counted(grey, radius, bins):
    ny, nx = grey.shape
    result = np.empty(grey.shape, dtype=np.float32)
    for y in range(ny):
        for x in range(nx):
            histogram = [0] * 256
            for v in range(max(0, y - radius), min(ny, y + radius + 1)):
                for u in range(max(0, x - radius), min(nx, x + radius + 1)):
                    if (v - y) ** 2 + (u - x) ** 2 <= (radius + 0.5) ** 2:
                        histogram[grey[v, u]] += 1
            n = sum(histogram[:bins])
            value = 0.0
            for h in histogram[:bins]:
                if h:
                    value -= h / n * math.log(h / n) / math.log(2.0)
            result[y, x] = value
    return result


@pytest.mark.parametrize(("shape", "radius"), [((12, 13), 1), ((12, 13), 2), ((9, 14), 4), ((5, 6), 8), ((1, 20), 3)])
def test_equals_the_counted_histogram(shape, radius):
    # Squares of a uniform variable: enough dark pixels for every number of bins.
    plane = np.random.default_rng(7).random(shape) ** 3 * 5000
    source = FeatureSource(plane)
    expected = np.stack([counted(source.bytes_own(), radius, bins) for bins in (32, 64, 128, 256)])
    result = entropy(source, radius=radius)
    assert result.dtype == np.float32
    # Both sum the levels in order in double; only the logarithms may differ in their last bit.
    np.testing.assert_allclose(result, expected, rtol=2e-7, atol=1e-15)


@pytest.mark.parametrize(("radius", "n_pixels"), [(1, 9), (2, 21), (4, 69), (8, 225), (16, 861)])
def test_disk_sizes(radius, n_pixels):
    # One bright pixel among n: h = log2(n) - (n - 1) / n * log2(n - 1).
    plane = np.zeros((35, 35))
    plane[17, 17] = 1.0
    expected = math.log2(n_pixels) - (n_pixels - 1) / n_pixels * math.log2(n_pixels - 1)
    assert entropy(FeatureSource(plane), radius=radius)[3, 17, 17] == pytest.approx(expected, rel=1e-6)


def test_only_the_darkest_levels_count():
    # Levels 0 and 40: one of them is below 32, both are below 64. Level 255 sets the stretch and is far away.
    plane = np.where(np.arange(30) % 2 == 0, 0.0, 40.0) * np.ones((30, 1))
    plane[0, 0] = 255.0
    middle = entropy(FeatureSource(plane), radius=2)[:, 20, 20]
    assert middle[0] == 0
    assert middle[1] == middle[2] == middle[3] > 0.9


def test_constant_plane_is_zero():
    assert not entropy(FeatureSource(np.full((6, 9), 7, np.uint8)), radius=4).any()


def test_a_sum_between_two_floats_rounds_as_javas():
    """The exact entropy, 4.3443167209625235, is below the middle of two float32; a double's sum, level by level, above.

    Java's (Math.log, TWS's order of steps) gives 4.344317.
    """
    counts = [
        11,
        8,
        37,
        11,
        4,
        4,
        7,
        5,
        4,
        2,
        1,
        4,
        7,
        1,
        1,
        3,
        1,
        5,
        7,
        38,
        4,
        11,
        2,
        1,
        5,
        7,
        2,
        2,
        2,
        11,
        2,
        2,
        2,
        11,
    ]
    y, x = np.mgrid[-8:9, -8:9]
    plane = np.full(x.shape, 255.0)
    plane[x * x + y * y <= 8.5**2] = np.repeat(np.arange(len(counts)), counts)
    assert entropy(FeatureSource(plane), radius=8)[3, 8, 8] == np.float32(4.344317)
