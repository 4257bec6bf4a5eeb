"""Sobel, Hessian and difference of Gaussians: against SciPy, linear algebra and analytic planes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.features.reference import edges
from gpu_tomoclass.features.reference.convolve import convolve
from gpu_tomoclass.features.reference.source import FeatureSource

NAMES = ("module", "trace", "determinant", "first", "second", "orientation", "square", "normalised")


def noise(shape: tuple[int, int] = (30, 44)) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 4000, shape).astype(np.uint16)


def hessian_of(plane: np.ndarray, sigma: float = 0.0) -> dict[str, np.ndarray]:
    return dict(zip(NAMES, edges.hessian(FeatureSource(plane), sigma=sigma), strict=True))


def test_sobel_equals_scipy() -> None:
    image = noise().astype(np.float64)
    expected = np.hypot(ndimage.sobel(image, axis=0, mode="nearest"), ndimage.sobel(image, axis=1, mode="nearest"))
    np.testing.assert_allclose(edges.sobel_filter(FeatureSource(image), sigma=0.0)[0], expected, rtol=3e-7)  # float32


@pytest.mark.parametrize("sigma", [2.0, 8.0])
def test_families_see_the_blurred_plane(sigma: float) -> None:
    source = FeatureSource(noise())
    blurred = FeatureSource(source.gaussian(sigma))
    np.testing.assert_array_equal(edges.gaussian_blur(source, sigma=sigma)[0], blurred.image)
    for family in (edges.sobel_filter, edges.hessian):
        np.testing.assert_array_equal(family(source, sigma=sigma), family(blurred, sigma=0.0))


def test_difference_is_smaller_minus_larger() -> None:
    source = FeatureSource(noise())
    result = edges.difference_of_gaussians(source, sigma=8.0, smaller=(1.0, 4.0))
    np.testing.assert_array_equal(result[0], source.gaussian(1.0) - source.gaussian(8.0))
    np.testing.assert_array_equal(result[1], source.gaussian(4.0) - source.gaussian(8.0))


def test_hessian_of_a_quadratic_plane() -> None:
    """A Sobel filter is 8 times a central difference, so the "second derivatives" are 64 times the real ones."""
    y, x = np.mgrid[-10:11, -10:11].astype(np.float32)
    result = {name: values[10, 10] for name, values in hessian_of(1.5 * y * y + 0.5 * x * x + 0.25 * x * y).items()}
    rows, columns, mixed = 64 * 3.0, 64 * 1.0, 64 * 0.25
    # TWS's kernels give rows above minus rows below, columns left minus right: the signs cancel in second derivatives.
    assert result["trace"] == rows + columns
    assert result["determinant"] == rows * columns - mixed**2
    assert result["module"] == pytest.approx(np.sqrt(rows**2 + mixed**2 + columns**2), rel=1e-6)
    assert result["orientation"] == pytest.approx(0.5 * np.arctan2(2 * mixed, rows - columns), rel=1e-6)


def test_hessian_eigenvalues_equal_linear_algebra() -> None:
    plane = noise()
    a = convolve(FeatureSource(plane).image, edges.ROWS)
    rows, mixed = convolve(a, edges.ROWS), convolve(a, edges.COLUMNS)
    columns = convolve(convolve(FeatureSource(plane).image, edges.COLUMNS), edges.COLUMNS)
    matrices = np.stack([rows, mixed, mixed, columns], axis=-1).astype(np.float64).reshape(*plane.shape, 2, 2)
    second, first = np.moveaxis(np.linalg.eigvalsh(matrices), -1, 0)
    result = hessian_of(plane)
    scale = np.abs(first).max()
    np.testing.assert_allclose(result["first"], first, atol=1e-6 * scale)  # sums of float32
    np.testing.assert_allclose(result["second"], second, atol=1e-6 * scale)
    np.testing.assert_allclose(result["normalised"], (first - second) ** 2, rtol=1e-5, atol=1e-6 * scale**2)
    np.testing.assert_allclose(result["square"], (first**2 - second**2) ** 2, rtol=1e-4, atol=1e-6 * scale**4)


def test_hessian_of_a_flat_plane_is_finite() -> None:
    for values in hessian_of(np.full((5, 6), 1000, dtype=np.uint16)).values():
        assert not values.any()


def test_convolve_is_a_normalised_correlation_with_repeated_edges() -> None:
    kernel = np.array([[0, 1, 2], [0, 0, 0], [3, 0, 0]], dtype=np.float32)
    image = noise().astype(np.float32)
    expected = ndimage.correlate(image.astype(np.float64), kernel.astype(np.float64) / 6.0, mode="nearest")
    np.testing.assert_allclose(convolve(image, kernel), expected, rtol=1e-6)
