"""FeatureSource: what a plane becomes before any filter."""

from __future__ import annotations

import numpy as np
import pytest

from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features.reference.source import FeatureSource, stretch_to_bytes


def test_stretch_rounds_half_up_and_saturates() -> None:
    image = np.array([[-5.0, 10.0, 10.5, 11.0, 265.0, 400.0]], dtype=np.float32)
    assert stretch_to_bytes(image, low=10.0, high=265.0).tolist() == [[0, 0, 1, 1, 255, 255]]


def test_stretch_follows_the_formula_at_every_level() -> None:
    image = np.arange(20, 20002, dtype=np.float32).reshape(1, -1)
    expected = [min(255, int((v - 20) * (255.0 / 19981.0) + 0.5)) for v in range(20, 20002)]
    assert stretch_to_bytes(image, low=20.0, high=20001.0)[0].tolist() == expected


def test_stretch_of_a_constant_plane_is_zero() -> None:
    source = FeatureSource(np.full((3, 4), 1000, dtype=np.uint16))
    assert not source.bytes_own().any()
    assert not source.bytes_display().any()


def test_non_finite_pixels_do_not_set_the_range() -> None:
    plane = np.array([[0.0, 255.0, np.nan, np.inf, -np.inf]], dtype=np.float32)
    assert FeatureSource(plane).bytes_own().tolist() == [[0, 255, 0, 255, 0]]


def test_display_range_changes_the_display_bytes_only() -> None:
    plane = np.array([[0.0, 40.0, 100.0]], dtype=np.float32)
    source = FeatureSource(plane, display_range=(20.0, 220.0))
    assert source.bytes_own().tolist() == [[0, 102, 255]]
    assert source.bytes_display().tolist() == [[0, 26, 102]]


@pytest.mark.parametrize(
    "dtype", ["?", "i1", "u1", "<i2", ">i2", "<u2", ">u2", "<i4", ">i4", "u8", "<f2", ">f4", "<f8"]
)
def test_any_dtype_is_seen_as_float32(dtype: str) -> None:
    plane = np.asfortranarray(np.array([[0, 1, 1], [1, 0, 1]]).astype(dtype) * np.array(100).astype(dtype))
    source = FeatureSource(plane)
    assert source.image.dtype == np.float32
    assert source.image.flags.c_contiguous
    np.testing.assert_array_equal(source.image, plane.astype(np.float32))


def test_source_is_read_only_and_leaves_the_caller_alone() -> None:
    plane = np.ones((4, 5), dtype=np.float32)
    source = FeatureSource(plane)
    for array in (source.image, source.gaussian(2.0), source.bytes_own(), source.bytes_display()):
        assert not array.flags.writeable
    plane[0, 0] = 2.0  # still the caller's


def test_shared_results_are_computed_once() -> None:
    source = FeatureSource(np.arange(30.0).reshape(5, 6))
    assert source.gaussian(2.0) is source.gaussian(2.0)
    assert source.gaussian(0.0) is source.image
    assert source.bytes_own() is source.bytes_own()


@pytest.mark.parametrize(
    ("plane", "display_range"),
    [
        (np.zeros(5), None),
        (np.zeros((2, 3, 4)), None),
        (np.zeros((0, 4)), None),
        (np.zeros((2, 3), dtype=complex), None),
        (np.zeros((2, 3)), (1.0, 1.0)),
        (np.zeros((2, 3)), (0.0, np.nan)),
    ],
)
def test_impossible_sources_are_refused(plane: np.ndarray, display_range: tuple[float, float] | None) -> None:
    with pytest.raises(UsageError):
        FeatureSource(plane, display_range=display_range)
