"""Families of planes smoothed along z: SciPy along z, TWS's filters within the plane; slabs give a volume's values."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from gpu_tomoclass import compute_features, train
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.features import FEATURE_SETS, FeatureBank, FeatureEngine, Place
from gpu_tomoclass.features.families import FAMILIES, PLANE_FAMILIES, SMOOTHED_FAMILIES, VOLUME_FAMILIES
from gpu_tomoclass.model import fits_volume
from gpu_tomoclass.volumes import ArrayVolume

VOLUME = np.random.default_rng(3).normal(1000, 200, (13, 30, 34)).astype(np.float32)
FAST = [name for name in SMOOTHED_FAMILIES if name not in ("z_anisotropic_diffusion", "z_kuwahara")]
NUMPY, NATIVE = NumpyDevice(threads=1), NativeDevice(threads=1)


@pytest.mark.parametrize(("size", "z_sigma", "in_planes"), [(None, 2.0, 2.0), ((2.0, 1.0, 1.0), 2.0, 1.0),
                                                             ((2.0, 1.0, 1.0), "6nm", 3.0)])  # fmt: skip
def test_planes_are_smoothed_along_z_and_filtered_as_tws_does(size, z_sigma, in_planes):
    bank = FeatureBank.create(["z_gaussian_blur", "z_neighbors"], sigma_max=4, z_sigma=z_sigma)
    found, names = compute_features(ArrayVolume(VOLUME, voxel_size=size), bank, intensity="none", device=NUMPY)
    smoothed = gaussian_filter1d(VOLUME, in_planes, axis=0, mode="mirror", truncate=3.0)
    plain = FeatureBank.create(["gaussian_blur", "neighbors"], sigma_max=4)
    planes, of_planes = compute_features(smoothed, plain, intensity="none", device=NUMPY)
    start = "Z_6.0nm_" if z_sigma == "6nm" else "Z_2.0_"
    assert list(names) == ["original", *(f"{start}{name}" for name in of_planes[1:])]
    # The end of imglib2's kernel is a parabola where SciPy's is cut off: a hundredth of the noise.
    np.testing.assert_allclose(found[1:], planes[1:], atol=0.02 * VOLUME.std())


def test_the_filters_are_those_of_the_family_of_planes():
    """In every bit: the blur of another family across planes, whose pass along z is the same, is checked by TWS."""
    bank = FeatureBank.create(FAST, sigma_max=2, z_sigma=1.5)
    planes = gaussian_planes(1.5)
    plain = FeatureBank.create([name.removeprefix("z_") for name in FAST], sigma_max=2)
    found = bank.compute_volume(VOLUME)
    for z in (0, 6):
        of_plane = plain.compute(planes[z])
        assert [name.removeprefix("Z_1.5_") for name in bank.channels] == list(plain.channels)
        np.testing.assert_array_equal(found[1:, z], of_plane[1:])


def gaussian_planes(sigma: float) -> np.ndarray:
    from gpu_tomoclass.features.block import volume_source
    from gpu_tomoclass.features.reference.smoothed import along_z

    return along_z(volume_source(VOLUME, Place.whole(len(VOLUME))), sigma)


@pytest.mark.parametrize("device", [NUMPY, NATIVE], ids=["numpy", "native"])
def test_a_slab_with_its_halo_gives_the_values_of_the_volume(device):
    bank = FeatureBank.create(["z_gaussian_blur", "z_median", "hessian"], sigma_max=4)
    engine = FeatureEngine(device, bank.blocks)
    whole = device.numpy(engine.compute(VOLUME)).copy()
    halo = bank.z_reach()
    assert halo == 6, "three sigmas of 2 planes"
    for start, stop in ((0, 2), (6, 7), (11, 13)):
        place = Place.with_halo(start, stop, depth=len(VOLUME), halo=halo)
        slab = VOLUME[place.first : place.first + place.n_planes]
        np.testing.assert_array_equal(device.numpy(engine.compute(slab, place=place)), whole[:, start:stop])
    (one,) = (device.numpy(engine.compute(VOLUME[:1])).copy(),)
    plain = FeatureBank.create(["gaussian_blur", "median", "hessian"], sigma_max=4)
    n_smoothed = sum(len(b.channels) for b in bank.blocks if b.dimensions == 3)
    by_name = dict(zip(plain.channels, plain.compute(VOLUME[0]), strict=True))
    for name, values in list(zip(bank.channels, one[:, 0], strict=True))[-n_smoothed:]:
        np.testing.assert_array_equal(values, by_name[name.removeprefix("3D_Z_2.0_")])  # a single plane is not smoothed


def test_devices_agree():
    bank = FeatureBank.create(list(SMOOTHED_FAMILIES), sigma_max=2)
    ours, native = (d.numpy(FeatureEngine(d, bank.blocks).compute(VOLUME)) for d in (NUMPY, NATIVE))
    for block in bank.blocks[1:]:
        a, b = ours[block.start : block.stop], native[block.start : block.stop]
        allowed = FAMILIES[block.family].tolerance.factor * float(np.nanmax(np.abs(a)))
        np.testing.assert_allclose(b, a, rtol=0, atol=allowed)


def test_they_are_in_none_of_twss_sets_and_their_names_are_not_twss():
    assert [name for name, families in FEATURE_SETS.items() if set(families) & set(SMOOTHED_FAMILIES)] == ["paper+z"]
    assert not set(SMOOTHED_FAMILIES) & {*PLANE_FAMILIES, *VOLUME_FAMILIES}
    bank, paper = FeatureBank.create("paper+z"), FeatureBank.create("paper")
    assert bank.channels[: paper.n_channels] == paper.channels
    assert all(name.startswith("3D_Z_2.0_") for name in bank.channels[paper.n_channels :])


@pytest.mark.parametrize(
    "bank",
    [
        FeatureBank.create("paper+z"),
        FeatureBank.create("paper+z", z_sigma=1.3),
        FeatureBank.create(["z_hessian", "z_entropy"], sigma_max=4, z_sigma=0.7),
    ],
)
def test_a_bank_is_found_by_its_description_and_by_its_names(bank):
    assert FeatureBank.from_dict(bank.to_dict()) == bank
    found, _ = FeatureBank.from_channels(list(bank.channels))
    assert found == bank


def test_a_length_in_nm_needs_the_size_of_voxels():
    bank = FeatureBank.create("z_median", sigma_max=2, z_sigma="4nm")
    assert FeatureBank.from_dict(bank.to_dict()) == bank
    assert not bank.fits_any_voxels  # radii are in pixels
    assert FeatureBank.create("z_hessian", sigmas={"z_hessian": "2,4nm"}, z_sigma="4nm").fits_any_voxels
    with pytest.raises(UsageError, match="the size of the voxels is not known"):
        compute_features(VOLUME, bank, device=NUMPY)


@pytest.mark.parametrize("sigma", [3, "4nm", "2nm"])
def test_a_sigma_along_z_without_smoothed_planes_is_refused(sigma):
    with pytest.raises(UsageError, match=r"none is among the features; choose paper\+z"):
        FeatureBank.create("paper", z_sigma=sigma)
    FeatureBank.create("paper", z_sigma=2)  # the default


def test_unknown_features_are_answered_by_what_is_like_them():
    with pytest.raises(UsageError, match=r"did you mean z_hessian, paper\+z\? choose weka-default") as caught:
        FeatureBank.create(["z_hesian", "paper-z", "original"])
    assert "z_" in str(caught.value).split("?")[1]
    assert "z_gabor" not in str(caught.value)


def test_a_table_in_nm_says_which_options_make_the_rows_again():
    names = FeatureBank.create("z_hessian", sigma_max=2, z_sigma="4nm").channels
    with pytest.raises(ModelError, match="--z-sigma"):
        FeatureBank.from_channels(list(names))


def test_training_on_a_sub_stack_says_that_its_planes_are_no_neighbours():
    marks = np.zeros(VOLUME.shape, np.uint8)
    marks[4, 3:9, 3:9], marks[7, 15:20, 15:20] = 1, 2
    made = {"every": 6, "start": 3, "nz": 80}
    for metadata in ({"substack": made}, {}, {"substack": None}, {"substack": {"every": "6"}}):
        for features in ("z_median", "mean_3d", "median"):
            volume = ArrayVolume(VOLUME, metadata=metadata)
            notes = train(volume, marks, features=features, device=NUMPY, n_trees=2, cache=None).report.notes
            expected = metadata == {"substack": made} and features != "median"
            assert any("--every 6" in note for note in notes) == expected


def test_a_volume_of_one_plane_is_no_neighbourhood():
    marks = np.zeros(VOLUME.shape, np.uint8)
    marks[4, 3:9, 3:9], marks[7, 15:20, 15:20] = 1, 2
    for features in ("z_median", "median"):
        model = train(ArrayVolume(VOLUME), marks, features=features, device=NUMPY, n_trees=2, cache=None)
        notes = [fits_volume(model, ArrayVolume(VOLUME[planes])) for planes in (slice(1), slice(2))]
        assert [any("one plane" in note for note in found) for found in notes] == [features == "z_median", False]


@pytest.mark.parametrize("sigma", [0, -1, 33, "nm", "1,2", float("nan"), None])
def test_an_impossible_sigma_along_z_is_refused(sigma):
    with pytest.raises(UsageError, match="along z"):
        FeatureBank.create("z_hessian", z_sigma=sigma)
