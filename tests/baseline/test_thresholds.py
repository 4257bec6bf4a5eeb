"""Thresholds of grey against scikit-image on whole arrays and exhaustive search; label volumes by them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from memory_volume import CountedVolume
from skimage.filters import threshold_multiotsu, threshold_otsu

from gpu_tomoclass.baseline import otsu_thresholds, threshold_labels, volume_histogram, write_otsu
from gpu_tomoclass.baseline.thresholds import grey_histogram
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.volumes.opening import open_volume


def mixture(means=(40, 90, 150, 200), sd=6.0, n=3000, seed=0):
    rng = np.random.default_rng(seed)
    values = np.concatenate([rng.normal(m, sd, n) for m in means])
    rng.shuffle(values)
    return values.reshape(len(means), -1, 50)


def within_variance(values, thresholds):
    labels = np.digitize(values, thresholds)
    return sum(values[labels == k].var() * (labels == k).mean() for k in np.unique(labels))


@pytest.mark.parametrize("levels", [2, 3, 4])
def test_8_bit_thresholds_are_those_of_scikit_image(levels):
    image = mixture().round().clip(0, 255).astype(np.uint8)
    # there, a value of the threshold itself belongs to the class below
    expected = threshold_multiotsu(image, levels) + 0.5
    np.testing.assert_array_equal(otsu_thresholds(image, levels=levels), expected)
    if levels == 2:
        assert otsu_thresholds(image, levels=2)[0] == threshold_otsu(image) + 0.5


def test_no_other_thresholds_have_a_smaller_variance_within_classes():
    image = mixture(means=(3, 9, 15), sd=1.5).round().clip(0, 20).astype(np.int16)
    best = min(itertools.combinations(np.arange(0.5, 20), 2), key=lambda t: within_variance(image, t))
    np.testing.assert_array_equal(otsu_thresholds(image, levels=3), best)


def test_float_and_16_bit_images_agree_with_scikit_image_to_a_bin():
    image = (mixture() * 200).astype(np.float32)
    bin_width = np.ptp(image) / 256
    expected = threshold_multiotsu(image, 4) + bin_width / 2  # it gives middles of bins, we give their ends
    np.testing.assert_allclose(otsu_thresholds(image, levels=4), expected, rtol=0, atol=1e-2)
    whole = np.round(image).astype(np.uint16)
    np.testing.assert_allclose(otsu_thresholds(whole, levels=4), expected, rtol=0, atol=bin_width)


def test_six_levels_on_half_the_bins():
    image = mixture(means=(20, 60, 100, 140, 180, 220), sd=4.0, n=2000).round().clip(0, 255).astype(np.uint8)
    found = otsu_thresholds(image, levels=6)
    # of equally good places between two modes (no value is there), which are 3 sigma around them
    np.testing.assert_allclose(found, [40, 80, 120, 160, 200], rtol=0, atol=8)
    labels = threshold_labels(image, found)
    np.testing.assert_allclose(np.bincount(labels.ravel())[1:], 2000, rtol=0.02)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint32, np.float32, np.float64])
def test_the_histogram_of_a_volume_is_that_of_its_voxels(dtype):
    image = (mixture() - 100).clip(-128, 127)
    image = (image * 200 if np.dtype(dtype).itemsize > 1 else image).astype(np.int64)
    image = (image - image.min() if np.dtype(dtype).kind == "u" else image).astype(dtype)
    found = volume_histogram(CountedVolume(image))
    assert found.counts.sum() == image.size
    assert len(found.counts) <= 256
    assert found.edges[0] <= image.min()
    assert image.max() <= found.edges[-1]
    np.testing.assert_array_equal(found.counts, np.histogram(image.astype(np.float64), found.edges)[0])
    if image.dtype.kind in "iu":
        assert np.ptp(np.diff(found.edges)) == 0
        assert ((found.edges % 1) == 0.5).all()
    whole = grey_histogram(image)
    np.testing.assert_array_equal(found.counts, whole.counts)
    np.testing.assert_array_equal(found.edges, whole.edges)


def test_as_many_grey_values_as_classes():
    image = np.array([[10, 10, 200], [90, 90, 10]], np.uint8)
    labels = threshold_labels(image, otsu_thresholds(image, levels=3))
    np.testing.assert_array_equal(labels, [[1, 1, 3], [2, 2, 1]])
    for flat in (np.full((3, 3), 7, np.uint8), np.full((3, 3), 7.5, np.float32)):
        with pytest.raises(DataError, match="1 different grey values cannot make 2 classes"):
            otsu_thresholds(flat, levels=2)


def test_a_value_of_a_threshold_belongs_above_it():
    labels = threshold_labels(np.array([0.9, 1.0, 1.9, 2.0, 5.0]), [1.0, 2.0])
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(labels, [1, 2, 2, 3, 3])


@pytest.mark.parametrize("wrong", [[], [2.0, 1.0], [1.0, 1.0], [np.nan], [np.inf], list(range(255))])
def test_refused_thresholds(wrong):
    with pytest.raises(UsageError, match="1 to 254 ascending numbers"):
        threshold_labels(np.zeros((2, 2)), wrong)


def test_refused_levels_and_voxels():
    for levels in (1, 7):
        with pytest.raises(UsageError, match="choose 2 to 6"):
            otsu_thresholds(np.zeros((2, 2), np.uint8), levels=levels)
    with pytest.raises(DataError, match="NaN or infinite"):
        otsu_thresholds(np.array([[1.0, np.nan]]), levels=2)
    with pytest.raises(DataError, match="complex64, not integers or floats"):
        otsu_thresholds(np.zeros((2, 2), np.complex64), levels=2)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_write_otsu(tmp_path, dtype):
    image = mixture().clip(0, 255).astype(dtype)
    volume = CountedVolume(image, voxel_size=(2.0, 1.0, 1.0), metadata={"from": "a test"})
    seen: list[tuple[int, int]] = []
    result = write_otsu(
        volume, tmp_path / "l.tif", levels=4, names=("a", "b", "c", "d"), progress=lambda *p: seen.append(p)
    )
    passes = 2 if dtype is np.uint8 else 3
    assert len(volume.planes_read) == passes * len(image)
    assert seen == sorted(seen)
    assert seen[-1] == (passes * len(image), passes * len(image))
    expected = threshold_labels(image, otsu_thresholds(image, levels=4))
    with open_volume(tmp_path / "l.tif") as labels:
        np.testing.assert_array_equal(np.stack([p for _, p in labels.planes()]), expected)
        assert [(c.value, c.name) for c in labels.classes] == [(1, "a"), (2, "b"), (3, "c"), (4, "d")]
        assert labels.voxel_size == (2.0, 1.0, 1.0)
        assert labels.metadata["from"] == "a test"
        assert labels.metadata["thresholds"]["values"] == list(result.thresholds)
    assert result.voxels == {k: int((expected == k).sum()) for k in range(1, 5)}


def test_write_otsu_with_given_thresholds_reads_once(tmp_path):
    volume = CountedVolume(mixture())
    result = write_otsu(volume, tmp_path / "l.ome.zarr", thresholds=(65.0, 120.0))
    assert volume.planes_read == [0, 1, 2, 3]
    assert result.thresholds == (65.0, 120.0)
    with open_volume(tmp_path / "l.ome.zarr") as labels:
        np.testing.assert_array_equal(labels.plane(2), threshold_labels(volume.array[2], (65.0, 120.0)))


def test_write_otsu_leaves_nothing_behind_when_it_fails(tmp_path):
    image = mixture()
    image[2, 3, 4] = np.nan
    for options, error, message in (
        ({}, DataError, "NaN or infinite"),
        ({"thresholds": (60.0,)}, DataError, "NaN or infinite"),
        ({"levels": 9}, UsageError, "choose 2 to 6"),
        ({"names": ("a", "b")}, UsageError, "2 names for 3 classes"),
    ):
        with pytest.raises(error, match=message):
            write_otsu(CountedVolume(image), tmp_path / "l.tif", **options)
        assert list(tmp_path.iterdir()) == []
    volume = CountedVolume(image)
    with pytest.raises(UsageError, match="names no format"):
        write_otsu(volume, tmp_path / "l.png")
    assert volume.planes_read == []
