"""Values enter the bank as Fiji sees them, or by a recorded scale; nothing non-finite gets through."""

import numpy as np
import pytest
from memory_volume import CountedVolume

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.prepare import prepare_plane


def volume(dtype, *, shape=(3, 8, 9), seed=0):
    return CountedVolume((np.random.default_rng(seed).normal(100, 20, shape)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.uint32])
def test_integers_enter_as_they_are(dtype):
    source = volume(dtype)
    scale = IntensityScale.for_volume(source)
    assert source.planes_read == []  # deciding costs no plane
    image = prepare_plane(source, 1, scale=scale).image
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image, source.array[1].astype(np.float32))


def test_signed_16_bit_is_shifted_as_imagej_does():
    # the value that Fiji was seen to use: voxel 5634 of a signed file is 38402 in the channel `original`
    source = CountedVolume(np.full((1, 2, 2), 5634, np.int16))
    source.array[0, 0, 0] = -32768
    image = prepare_plane(source, 0, scale=IntensityScale.for_volume(source)).image
    assert image[1, 1] == 38402
    assert image[0, 0] == 0


def test_float_scale_is_robust_and_repeatable():
    rng = np.random.default_rng(1)
    array = rng.normal(0.002, 0.0005, (40, 32, 32)).astype(np.float32)
    array[3, 4, 5] = 1e6  # one hot voxel
    source = CountedVolume(array)
    scale = IntensityScale.for_volume(source)
    assert len(source.planes_read) == 16
    image = prepare_plane(source, 0, scale=scale).image
    # 99 % of the values lie in 10..90 % of the 16-bit range: the scale follows the values, not the outlier
    inside = (image > 6553) & (image < 58982)
    assert 0.98 < inside.mean() < 1.0
    assert prepare_plane(source, 3, scale=scale).image.max() == 65535
    assert IntensityScale.from_dict(scale.to_dict()) == scale
    # analytic: affine, so differences keep their ratio
    a, b, c = np.float64(array[0, 0, :3])
    ia, ib, ic = np.float64(image[0, :3])
    np.testing.assert_allclose((ia - ib) / (ib - ic), (a - b) / (b - c), rtol=1e-3)  # float32 voxels near 1e-7 of range


def test_mode_none_changes_nothing():
    for dtype in (np.int16, np.float32):
        source = volume(dtype)
        scale = IntensityScale.for_volume(source, mode="none")
        np.testing.assert_array_equal(prepare_plane(source, 0, scale=scale).image, source.array[0].astype(np.float32))


def test_constant_float_volume_is_finite_and_noted():
    source = CountedVolume(np.full((2, 4, 4), 0.25, np.float32))
    plane = prepare_plane(source, 0, scale=IntensityScale.for_volume(source))
    assert np.ptp(plane.image) == 0
    assert any("constant" in note for note in plane.notes)


def test_non_finite_voxels_are_counted_and_refused():
    source = volume(np.float32)
    source.array[1, 2, 3] = np.nan
    source.array[2, 0, 0] = np.inf
    with pytest.raises(
        DataError, match=r"2 voxels are NaN or infinite, in 2 of 3 planes \(1, 2\).*z=1, y=2, x=3.*--nan"
    ):
        prepare_plane(source, 1, scale=IntensityScale.for_volume(source))


def test_fill_takes_the_nearest_value():
    source = volume(np.float32)
    source.array[1, 2, 3] = np.nan
    plane = prepare_plane(source, 1, scale=IntensityScale(), nan="fill")
    neighbours = [source.array[1, y, x] for y, x in ((1, 3), (3, 3), (2, 2), (2, 4))]
    assert plane.image[2, 3] in neighbours
    assert plane.filled.sum() == 1
    assert plane.filled[2, 3]
    with pytest.raises(DataError, match="no finite voxel"):
        prepare_plane(CountedVolume(np.full((1, 3, 3), np.nan, np.float32)), 0, scale=IntensityScale(), nan="fill")


def test_precision_and_overflow_are_told():
    big = CountedVolume(np.array([[[2**24 + 1, 0], [1, 2]]], np.int32))
    assert any("2^24" in note for note in prepare_plane(big, 0, scale=IntensityScale()).notes)
    huge = CountedVolume(np.array([[[1e300, 0], [1, 2]]], np.float64))
    with pytest.raises(DataError, match="beyond float32"):
        prepare_plane(huge, 0, scale=IntensityScale())


@pytest.mark.parametrize(
    "broken",
    [
        {},
        {"kind": "x", "gain": 1, "offset": 0, "clip": None},
        {"kind": "as-is", "gain": "nan", "offset": 0, "clip": None},
        {"kind": "percentile", "gain": 1, "offset": 0, "clip": [1]},
    ],
)
def test_malformed_scales_are_refused(broken):
    with pytest.raises(ModelError, match="intensity scale"):
        IntensityScale.from_dict(broken)


def test_unknown_choices_are_usage_errors():
    with pytest.raises(UsageError, match="auto, none"):
        IntensityScale.for_volume(volume(np.uint8), mode="magic")
    with pytest.raises(UsageError, match="error, fill, mask"):
        prepare_plane(volume(np.uint8), 0, scale=IntensityScale(), nan="ignore")
    with pytest.raises(DataError, match="complex64"):
        IntensityScale.for_volume(volume(np.complex64))


def test_half_a_percent_lies_beyond_each_end():
    """The 0.5th and the 99.5th percentile of 0..1000 are 5 and 995; they become 10 % and 90 % of 65535."""
    ramp = np.arange(1001, dtype=np.float32).reshape(1, 7, 143)
    scale = IntensityScale.for_volume(CountedVolume(ramp))
    np.testing.assert_allclose(scale.apply(np.float32([[5, 500, 995]])), [[6553.5, 32767.5, 58981.5]], rtol=1e-6)
