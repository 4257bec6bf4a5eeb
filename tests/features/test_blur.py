"""Gaussian blur: against SciPy, and at settings for which there is no golden output."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.features.reference.blur import gaussian_blur, gaussian_kernel, kernel_radius


def noise(shape: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(30000.0, 8000.0, shape).astype(np.float32)


@pytest.mark.parametrize(("sigma", "entries"), [(1.0, 3), (2.0, 5), (4.0, 8), (8.0, 15), (16.0, 28)])
def test_kernel_size(sigma: float, entries: int) -> None:
    kernel, beyond = gaussian_kernel(0.4 * sigma, max_radius=1000)
    assert len(kernel) == len(beyond) == entries
    assert kernel_radius(sigma) == entries - 1


@pytest.mark.parametrize("std", [0.4, 1.3, 6.4, 8.4])
def test_kernel_sums_to_one(std: float) -> None:
    kernel, beyond = gaussian_kernel(std, max_radius=1000)
    weights = kernel.astype(np.float64)
    assert weights[0] + 2 * weights[1:].sum() == pytest.approx(1.0, abs=1e-6)  # float32 entries
    np.testing.assert_allclose(beyond[:-1], weights[::-1].cumsum()[::-1][1:], atol=1e-6)
    assert beyond[-1] == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("sigma", [2.0, 4.0, 8.0, 16.0, 20.0, 24.0, 32.0, 64.0, 100.0])
def test_agrees_with_scipy(sigma: float) -> None:
    """The same Gaussian but for the ends: cut at 4.13 std and bent to 0, where SciPy goes on to 8 std.

    That part holds less than 1e-4 of the weight. Large sigmas go by splines on reduced lines, which fit as well.
    """
    image = noise((150, 170))
    expected = ndimage.gaussian_filter(image.astype(np.float64), 0.4 * sigma, mode="nearest", truncate=8.0)
    scale = np.ptp(expected)
    assert np.abs(gaussian_blur(image, sigma) - expected).max() < 1e-4 * scale


@pytest.mark.parametrize("sigma", [1.0, 16.0, 32.0, 300.0])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 5), (60, 50)])
def test_constant_stays_constant(sigma: float, shape: tuple[int, int]) -> None:
    image = np.full(shape, 1000.0, dtype=np.float32)
    np.testing.assert_allclose(gaussian_blur(image, sigma), image, rtol=2e-5)  # up to 2 x 101 float32 additions


@pytest.mark.parametrize("sigma", [8.0, 16.0, 20.0, 32.0])
def test_lines_shorter_than_the_kernel(sigma: float) -> None:
    image = noise((9, 7))
    expected = ndimage.gaussian_filter(image.astype(np.float64), 0.4 * sigma, mode="nearest", truncate=8.0)
    np.testing.assert_allclose(gaussian_blur(image, sigma), expected, atol=1e-5 * np.ptp(image))  # as above


def test_x_pass_and_y_pass_agree_up_to_rounding() -> None:
    image = noise((40, 61))
    np.testing.assert_allclose(gaussian_blur(image, 4.0).T, gaussian_blur(image.T.copy(), 4.0), rtol=1e-6)
