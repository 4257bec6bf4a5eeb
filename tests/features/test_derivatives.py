"""ImageScience derivatives: against SciPy's Gaussian derivatives and analytic planes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.features.reference import derivatives
from gpu_tomoclass.features.reference.derivatives import derivative_kernel, derivative_reach, gaussian_derivative
from gpu_tomoclass.features.reference.source import FeatureSource


def noise(shape: tuple[int, int] = (70, 90)) -> np.ndarray:
    return np.random.default_rng(5).normal(100.0, 20.0, shape).astype(np.float32)


@pytest.mark.parametrize(("sigma", "order", "reach"), [(1, 0, 3), (1, 2, 4), (1, 3, 5), (16, 5, 80), (0.5, 1, 2)])
def test_reach(sigma: float, order: int, reach: int) -> None:
    assert derivative_reach(sigma, order) == reach
    assert len(derivative_kernel(sigma, order, length=1000)) == reach + 1


@pytest.mark.parametrize("order", range(6))
@pytest.mark.parametrize("sigma", [2.0, 4.0])
def test_agrees_with_scipy(sigma: float, order: int) -> None:
    """SciPy divides by the sum of the sampled Gaussian where ImageScience divides by its area.

    At sigma 2 and more they differ by what is cut off: 0.27 % of the area at 3 sigma, 6e-5 at 4 and less at 5.
    """
    image = noise()
    ours = gaussian_derivative(image, sigma, dx=order, dy=order)
    c = 3.0 if order == 0 else 4.0 if order <= 2 else 5.0
    theirs = ndimage.gaussian_filter(image.astype(np.float64), sigma, order=order, mode="mirror", truncate=c)
    tolerance = {0: 1e-6, 1: 2e-4, 2: 2e-4}.get(order, 1e-5)
    np.testing.assert_allclose(ours, theirs, atol=tolerance * np.abs(theirs).max())


@pytest.mark.parametrize("order", range(1, 6))
def test_kernel_differentiates_monomials(order: int) -> None:
    """The d-th derivative of x^d / d! is 1; the sampled kernel finds it but for what lies beyond 4 or 5 sigma."""
    sigma = 3.0
    half = derivative_kernel(sigma, order, length=1000)
    k = np.arange(len(half), dtype=np.float64)
    moment = 2 * (half * (-k) ** order).sum()  # convolution: the plane is read at x - k; even and odd orders alike
    assert moment / np.prod(np.arange(1, order + 1)) == pytest.approx(1.0, abs=0.03)


def test_x_is_the_column_axis() -> None:
    x = np.arange(60, dtype=np.float32)
    plane = np.broadcast_to(x, (60, 60))
    inside = (slice(20, 40), slice(20, 40))
    np.testing.assert_allclose(gaussian_derivative(plane, 2.0, dx=1, dy=0)[inside], 1.0, rtol=2e-3)
    np.testing.assert_allclose(gaussian_derivative(plane, 2.0, dx=0, dy=1)[inside], 0.0, atol=1e-6)


def test_no_derivative_across_a_single_pixel() -> None:
    """ImageScience sets a derivative along an axis of length 1 to 0."""
    line = noise((1, 50))
    for order in range(1, 6):
        assert not gaussian_derivative(line, 2.0, dx=0, dy=order).any()
    np.testing.assert_array_equal(gaussian_derivative(line, 2.0, dx=1, dy=0).shape, (1, 50))
    assert gaussian_derivative(line, 2.0, dx=1, dy=0).any()


def test_kernel_is_limited_to_the_line() -> None:
    assert len(derivative_kernel(16.0, 5, length=7)) == 7
    assert np.isfinite(derivatives.derivatives(FeatureSource(noise((7, 5))), sigma=16.0)).all()


def test_laplacian_of_a_paraboloid_is_4() -> None:
    y, x = np.mgrid[-40:41, -40:41].astype(np.float32)
    centre = derivatives.laplacian(FeatureSource(x * x + y * y), sigma=2.0)[0, 40, 40]
    assert centre == pytest.approx(4.0, rel=0.02)  # the kernel ends at 4 sigma, where x^2 still weighs 1.4 %


def test_structure_of_a_ramp() -> None:
    """One direction of slope 5: eigenvalues 25 and 0, at any integration scale."""
    y, x = np.mgrid[:80, :80].astype(np.float32)
    result = derivatives.structure(FeatureSource(3 * x + 4 * y), sigma=2.0)[:, 30:50, 30:50]
    np.testing.assert_allclose(result[[0, 2]], 25.0, rtol=5e-3)
    np.testing.assert_allclose(result[[1, 3]], 0.0, atol=1e-4)


def test_structure_holds_the_eigenvalues_of_the_smoothed_tensor() -> None:
    image = noise()
    ix, iy = gaussian_derivative(image, 1.5, dx=1, dy=0), gaussian_derivative(image, 1.5, dx=0, dy=1)
    xx, xy, yy = (gaussian_derivative(p, 3.0, dx=0, dy=0).astype(np.float64) for p in (ix * ix, ix * iy, iy * iy))
    tensor = np.stack([xx, xy, xy, yy], axis=-1).reshape(*xx.shape, 2, 2)
    smallest, largest = np.moveaxis(np.linalg.eigvalsh(tensor), -1, 0)
    result = derivatives.structure(FeatureSource(image), sigma=1.5)
    np.testing.assert_allclose(result[2], largest, rtol=1e-6)
    np.testing.assert_allclose(result[3], smallest, atol=1e-6 * largest.max())


def test_structure_of_a_constant_is_zero() -> None:
    assert not derivatives.structure(FeatureSource(np.zeros((20, 20))), sigma=2.0).any()
