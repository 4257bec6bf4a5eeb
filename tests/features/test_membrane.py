"""Membrane projections: the ten kernels, and the projections."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.features.reference.convolve import rotate_nearest
from gpu_tomoclass.features.reference.membrane import membrane_kernels, membrane_projections, project
from gpu_tomoclass.features.reference.source import FeatureSource


def test_pixel_counts_of_the_default_kernels() -> None:
    assert [int(k.sum()) for k in membrane_kernels(19, 1)] == [38, 36, 38, 38, 36, 38, 36, 38, 38, 36]


@pytest.mark.parametrize(
    ("patch", "thickness", "columns"),
    [(19, 1, [9, 10]), (19, 2, [8, 9, 10]), (19, 3, [8, 9, 10, 11]), (11, 3, [4, 5, 6, 7]), (3, 2, [0, 1, 2])],
)
def test_columns_of_the_upright_line(patch: int, thickness: int, columns: list[int]) -> None:
    upright = membrane_kernels(patch, thickness)[0]
    assert np.flatnonzero(upright.any(axis=0)).tolist() == columns
    assert upright[:, columns].all()


def test_kernels_are_turned_lines() -> None:
    """The longest axis of each kernel lies i * 18 degrees from upright, clockwise in a picture with y down."""
    for i, kernel in enumerate(membrane_kernels(19, 1)):
        y, x = np.argwhere(kernel).T - 9.0
        direction = np.linalg.eigh(np.cov(x, y))[1][:, 1]
        angle = np.degrees(np.arctan2(direction[1], direction[0])) - 90.0
        assert (angle - i * 18 + 90) % 180 - 90 == pytest.approx(0.0, abs=3.0)  # 19 pixels of whole positions


def test_quarter_and_half_turns_are_exact() -> None:
    image = np.random.default_rng(1).normal(size=(7, 7)).astype(np.float32)
    np.testing.assert_array_equal(rotate_nearest(image, 0.0), image)
    np.testing.assert_array_equal(rotate_nearest(image, 90.0), np.rot90(image, -1))
    np.testing.assert_array_equal(rotate_nearest(image, 180.0), image[::-1, ::-1])


def test_projections_equal_numpy() -> None:
    stack = np.random.default_rng(2).normal(500.0, 30.0, (10, 12, 13)).astype(np.float32)
    wide = stack.astype(np.float64)
    result = project(stack)
    expected = [wide.mean(0), wide.max(0), wide.min(0), wide.sum(0), wide.std(0, ddof=1), np.median(wide, 0)]
    np.testing.assert_allclose(result, expected, rtol=2e-6)  # the sum is of ten float32 additions


def test_a_bright_line_is_the_maximum_over_directions() -> None:
    plane = np.zeros((41, 41), dtype=np.float32)
    plane[:, 20:22] = 100.0
    result = membrane_projections(FeatureSource(plane), patch=19, thickness=1)
    mean, largest, smallest, total, _, median = result[:, 20, 20]
    assert largest == 100.0  # the upright kernel lies on it entirely
    assert smallest < median < mean < largest
    assert total == pytest.approx(10 * mean, rel=1e-6)


def test_constant_plane() -> None:
    result = membrane_projections(FeatureSource(np.full((8, 9), 1000.0)), patch=19, thickness=1)
    np.testing.assert_allclose(result[[0, 1, 2, 5]], 1000.0, rtol=1e-6)
    np.testing.assert_allclose(result[4], 0.0, atol=1e-3)
