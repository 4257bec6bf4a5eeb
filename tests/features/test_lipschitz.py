"""Lipschitz features against the closed form of the cover, and against the plugin's pixel-by-pixel sweeps."""

import numpy as np
import pytest

from gpu_tomoclass.features.reference.lipschitz import lipschitz
from gpu_tomoclass.features.reference.source import FeatureSource

COSTS = [(5, 7), (10, 14), (15, 21), (20, 28), (25, 35)]
SHAPES = [(9, 11), (1, 12), (12, 1), (2, 2), (1, 1)]


def source_of(shape):
    return FeatureSource(np.random.default_rng(sum(shape)).integers(0, 4000, shape).astype(np.uint16))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_closed_form_of_the_cover(shape):
    """The cheapest way over (dy, dx) takes all its diagonal steps, the rest straight: the cover is a union of cones."""
    source = source_of(shape)
    grey = source.bytes_display().astype(int)
    y, x = np.indices(shape).reshape(2, -1)
    dy, dx = abs(y[:, None] - y), abs(x[:, None] - x)
    for channel, (straight, diagonal) in zip(lipschitz(source), COSTS, strict=True):
        cost = diagonal * np.minimum(dy, dx) + straight * abs(dy - dx)
        cover = (grey.ravel() - cost).max(axis=1).reshape(shape)
        np.testing.assert_array_equal(channel, grey - cover + 255)


def swept(grey, straight, diagonal):
    """Two raster sweeps as the plugin does them, first rows and row starts included."""
    ny, nx = grey.shape
    cover = [[int(v) for v in row] for row in grey]
    for flip in (False, True):
        for y in reversed(range(ny)) if flip else range(ny):
            above = min(y + 1, ny - 1) if flip else max(y - 1, 0)
            left, upper_left = straight, diagonal
            for x in reversed(range(nx)) if flip else range(nx):
                ahead = max(x - 1, 0) if flip else min(x + 1, nx - 1)
                p = max(left - straight, upper_left - diagonal)
                upper_left = cover[above][x]
                p = max(p, upper_left - straight, cover[above][ahead] - diagonal)
                left = cover[y][x] = max(p, cover[y][x])
    return grey.astype(int) - np.array(cover) + 255


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_sweeps(shape):
    source = source_of(shape)
    expected = np.stack([swept(source.bytes_display(), *costs) for costs in COSTS])
    result = lipschitz(source)
    assert result.dtype == np.float32
    np.testing.assert_array_equal(result, expected)


def test_constant_plane_is_255():
    assert (lipschitz(FeatureSource(np.full((5, 7), 3.5))) == 255).all()


def test_one_bright_pixel_makes_a_cone():
    plane = np.zeros((21, 21))
    plane[10, 10] = 255
    depth = 255 - lipschitz(FeatureSource(plane))[:, 10, 10:]
    for row, (straight, _) in zip(depth, COSTS, strict=True):
        np.testing.assert_array_equal(row[1:], np.maximum(0, 255 - straight * np.arange(1, 11)))
        assert row[0] == 0
