"""Disks and rank filters: against SciPy and the plain formulas."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from gpu_tomoclass.features.reference import ranks
from gpu_tomoclass.features.reference.disk import disk_footprint, disk_half_widths
from gpu_tomoclass.features.reference.source import FeatureSource

RADII = (0.5, 1.0, 1.5, 2.0, 2.5, 5.0, 16.0)


def noise(shape: tuple[int, int] = (40, 33)) -> np.ndarray:
    return np.random.default_rng(3).normal(100.0, 20.0, shape).astype(np.float32)


@pytest.mark.parametrize(("radius", "pixels"), [(0.5, 5), (1.0, 9), (2.0, 21), (4.0, 57), (8.0, 213), (16.0, 805)])
def test_number_of_pixels(radius: float, pixels: int) -> None:
    assert disk_footprint(radius).sum() == pixels
    assert sum(2 * width + 1 for width in disk_half_widths(radius)) == pixels


def test_the_two_radii_with_an_older_size() -> None:
    assert disk_half_widths(1.5) == disk_half_widths(1.75) != disk_half_widths(1.45)
    assert disk_half_widths(2.5) == disk_half_widths(2.85) != disk_half_widths(2.45)


@pytest.mark.parametrize("radius", RADII)
@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ranks.minimum, ndimage.minimum_filter),
        (ranks.maximum, ndimage.maximum_filter),
        (ranks.median, ndimage.median_filter),
    ],
)
def test_order_statistics_equal_scipy(ours, theirs, radius: float) -> None:  # type: ignore[no-untyped-def]
    image = noise()
    expected = theirs(image, footprint=disk_footprint(radius), mode="nearest")
    np.testing.assert_array_equal(ours(FeatureSource(image), radius=radius)[0], expected)


def test_median_does_not_depend_on_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    source = FeatureSource(noise())
    whole = ranks.median(source, radius=4.0)
    monkeypatch.setattr(ranks, "VALUES_AT_ONCE", 57 * 10)  # ten disks: a part of a row
    np.testing.assert_array_equal(ranks.median(source, radius=4.0), whole)


@pytest.mark.parametrize("radius", RADII)
def test_mean_and_variance_follow_the_formulas(radius: float) -> None:
    image = noise()
    disk = disk_footprint(radius).astype(np.float64)
    wide = image.astype(np.float64)
    mean = ndimage.correlate(wide, disk / disk.sum(), mode="nearest")
    square = ndimage.correlate(wide * wide, disk / disk.sum(), mode="nearest")
    source = FeatureSource(image)
    # Results are float32; S2 / n and the squared mean are 25 times the variance, which costs two of 16 digits.
    np.testing.assert_allclose(ranks.mean(source, radius=radius)[0], mean, rtol=1e-7)
    np.testing.assert_allclose(ranks.variance(source, radius=radius)[0], square - mean**2, rtol=1e-6)


def test_variance_of_a_constant_is_exactly_zero() -> None:
    assert not ranks.variance(FeatureSource(np.full((9, 50), 54321, dtype=np.uint16)), radius=4.0).any()
    assert (ranks.variance(FeatureSource(np.full((9, 50), 0.1)), radius=4.0) >= 0).all()
