"""Linear Kuwahara filter against a pixel-by-pixel version of its definition."""

import math

import numpy as np
import pytest

from gpu_tomoclass.features.reference.kuwahara import kuwahara, line_offsets
from gpu_tomoclass.features.reference.source import FeatureSource

F = np.float32
TINY = F(2.0**-149)


def rotated_kernel(patch, degrees):
    """Draw a vertical line, rotate it with nearest-neighbour sampling, cut out the middle, transpose."""
    side = patch + 6
    line = np.zeros((side, side), int)
    line[:, (side - 1) // 2] = 1
    c, t = (side - 1) / 2, -math.radians(degrees)
    rotated = np.zeros_like(line)
    for y in range(side):
        for x in range(side):
            xs = (x - c) * math.cos(t) - (y - c) * math.sin(t) + c
            ys = (x - c) * math.sin(t) + (y - c) * math.cos(t) + c
            if -0.01 <= xs < side and -0.01 <= ys < side:
                rotated[y, x] = line[min(int(ys + 0.5), side - 1), min(int(xs + 0.5), side - 1)]
    return rotated[3:-3, 3:-3].T


@pytest.mark.parametrize("patch", [3, 5, 11, 19, 25])
def test_lines_are_the_rotated_drawing(patch):
    for step, line in enumerate(line_offsets(patch)):
        offsets = np.argwhere(rotated_kernel(patch, 18 * step)) - patch // 2
        np.testing.assert_array_equal(np.array(line), offsets)


def test_line_lengths_of_the_default_patch():
    assert [len(line) for line in line_offsets(19)] == [19, 19, 23, 23, 19, 19, 19, 23, 23, 19]


def filtered(plane, patch, criterion):
    ny, nx = plane.shape
    low = plane.min()
    raised = plane - low

    def at(values, y, x):
        return values[min(max(y, 0), ny - 1)][min(max(x, 0), nx - 1)]

    best = {(y, x): (np.finfo(F).max, F(0)) for y in range(ny) for x in range(nx)}
    for step in range(10):
        line = [tuple(offset) for offset in np.argwhere(rotated_kernel(patch, 18 * step)) - patch // 2]
        means, figures = np.zeros((2, ny, nx), F)
        for y, x in best:
            total, squares = F(0), F(0)
            for dy, dx in line:
                value = at(raised, y + dy, x + dx)
                total, squares = total + value, squares + value * value
            m = total / F(len(line))
            variance = squares / F(len(line)) - m * m
            means[y, x] = m
            figures[y, x] = (variance, variance / (m + TINY), variance / (m * m + TINY))[criterion]
        for y, x in best:
            places = [(at(figures, y + dy, x + dx), at(means, y + dy, x + dx)) for dy, dx in line]
            calmest = min(places, key=lambda place: place[0])  # the first of equals, as the plugin's strict <
            if calmest[0] < best[y, x][0]:
                best[y, x] = calmest
    result = np.array([value + F(0.5) + low for _, value in best.values()], dtype=F)
    return result.reshape(ny, nx)


@pytest.mark.parametrize(("shape", "patch"), [((8, 9), 5), ((6, 7), 11), ((1, 10), 5), ((9, 1), 3), ((5, 5), 1)])
def test_equals_the_definition(shape, patch):
    plane = np.random.default_rng(4).normal(1000, 300, shape).astype(F)
    plane[0, 0] = plane.min()
    expected = np.stack([filtered(plane, patch, criterion) for criterion in range(3)])
    np.testing.assert_array_equal(kuwahara(FeatureSource(plane), patch=patch), expected)


@pytest.mark.parametrize("constant", [0.0, 1000.0, -3.25])
def test_constant_plane_gains_a_half(constant):
    assert (kuwahara(FeatureSource(np.full((6, 8), constant)), patch=19) == constant + 0.5).all()


def test_even_patch_leaves_the_plane_as_it_is():
    plane = np.random.default_rng(6).random((7, 7)).astype(F)
    np.testing.assert_array_equal(kuwahara(FeatureSource(plane), patch=20), np.stack([plane] * 3))


def test_step_stays_sharp():
    plane = np.where(np.arange(40) < 20, 100.0, 300.0) * np.ones((40, 1))
    for channel in kuwahara(FeatureSource(plane), patch=11):
        np.testing.assert_array_equal(channel, plane + 0.5)
