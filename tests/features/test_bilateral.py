"""Bilateral filter against a pixel-by-pixel version of its definition."""

import math

import numpy as np
import pytest

from gpu_tomoclass.features.reference.bilateral import bilateral
from gpu_tomoclass.features.reference.source import FeatureSource

F = np.float32


def bell(radius):
    centre = radius + 1
    values = [F(math.exp(-0.5 * ((i + 1 - centre) / (0.4 * centre)) ** 2)) for i in range(2 * radius + 1)]
    total = F(0)
    for value in values:
        total += value
    return [value / total for value in values]


def filtered(grey, spatial_radius, range_radius):
    ny, nx = grey.shape
    place, level = bell(spatial_radius), bell(range_radius)
    result = np.empty(grey.shape, np.float32)
    for y in range(ny):
        for x in range(nx):
            total, weights = F(0), F(0)
            for m in range(-spatial_radius, spatial_radius + 1):
                for n in range(-spatial_radius, spatial_radius + 1):
                    inside = 0 <= y + m < ny and 0 <= x + n < nx
                    q = int(grey[y + m, x + n]) if inside else 0
                    difference = q - int(grey[y, x])
                    if abs(difference) <= range_radius:
                        w = place[m + spatial_radius] * place[n + spatial_radius] * level[difference + range_radius]
                        total, weights = total + w * F(q), weights + w
            result[y, x] = int(total / weights)
    return result


@pytest.mark.parametrize("shape", [(7, 9), (1, 8), (6, 1)])
def test_equals_the_definition(shape):
    plane = np.random.default_rng(2).integers(3000, 9000, shape).astype(np.uint16)
    source = FeatureSource(plane)
    expected = [filtered(source.bytes_display(), s, r) for s in (5, 10) for r in (50, 100)]
    np.testing.assert_array_equal(bilateral(source), np.stack(expected))


def test_levels_too_far_apart_do_not_mix():
    # 0 and 255 differ by more than 100, and far from the border no zero from outside is within reach of 255 either.
    plane = np.where(np.arange(40) < 20, 10, 250) * np.ones((30, 1))
    for channel in bilateral(FeatureSource(plane)):
        assert not channel[:, :20].any()
        # Truncation may take one level from a mean that rounding has put just below 255.
        assert channel[:, 20:].min() >= 254


def test_zeros_outside_darken_the_border():
    plane = np.full((30, 30), 40.0)
    grey = bilateral(FeatureSource(plane, display_range=(0.0, 255.0)))
    assert (grey[:, 15, 15] >= 39).all()
    assert (grey[:, 0, 0] < grey[:, 15, 15]).all()


def test_constant_plane_is_zero():
    assert not bilateral(FeatureSource(np.full((12, 13), 1000, np.uint16))).any()
