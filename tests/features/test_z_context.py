"""Context across planes: SciPy along z, TWS's filters within the plane; slabs give the values of the volume."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter1d

from gpu_tomoclass import compute_features
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.features import FEATURE_SETS, FeatureBank, FeatureEngine, Place
from gpu_tomoclass.features.families import PLANE_FAMILIES, VOLUME_FAMILIES
from gpu_tomoclass.volumes import ArrayVolume

VOLUME = np.random.default_rng(3).normal(1000, 200, (13, 30, 34)).astype(np.float32)
BANK = FeatureBank.create("z_context")
BLURS = FeatureBank.create("z_blur")


@pytest.mark.parametrize("size", [None, (2.0, 1.0, 1.0)])
def test_planes_are_smoothed_along_z_and_filtered_as_tws_does(size):
    volume = ArrayVolume(VOLUME, voxel_size=size)
    found, names = compute_features(volume, "z_context", intensity="none", device=NumpyDevice(threads=1))
    along = 2.0 if size is None else 1.0  # voxels of 2 nm: sigma is a distance
    smoothed = gaussian_filter1d(VOLUME, along, axis=0, mode="mirror", truncate=3.0)
    for family, sigmas in (("gaussian_blur", (1, 2, 4, 8)), ("median", (1, 2, 4))):
        bank = FeatureBank.create(family, sigma_max=sigmas[-1])
        planes, of_planes = compute_features(smoothed, bank, intensity="none", device=NumpyDevice(threads=1))
        for s in sigmas:
            name = f"{family.capitalize()}_{s}.0"
            ours = found[names.index(f"Z_context_2.0_{name}")]
            # The end of imglib2's kernel is a parabola where SciPy's is cut off: a hundredth of the noise.
            np.testing.assert_allclose(ours, planes[of_planes.index(name)], atol=0.02 * VOLUME.std())


@pytest.mark.parametrize("device", [NumpyDevice(threads=1), NativeDevice(threads=1)], ids=["numpy", "native"])
def test_a_slab_with_its_halo_gives_the_values_of_the_volume(device):
    engine = FeatureEngine(device, BANK.blocks)
    whole = device.numpy(engine.compute(VOLUME)).copy()
    halo = BANK.z_reach()
    assert halo == 6, "three sigmas of 2 planes"
    for start, stop in ((0, 2), (6, 7), (11, 13)):
        place = Place.with_halo(start, stop, depth=len(VOLUME), halo=halo)
        slab = VOLUME[place.first : place.first + place.n_planes]
        np.testing.assert_array_equal(device.numpy(engine.compute(slab, place=place)), whole[:, start:stop])
    (one,) = (device.numpy(engine.compute(VOLUME[:1])).copy(),)
    np.testing.assert_array_equal(one[1 + 4], one[1 + 7 + 4])  # a single plane has no context, whatever sigma


def test_devices_agree_in_every_bit():
    for bank in (BANK, BLURS):
        both = [
            d.numpy(FeatureEngine(d, bank.blocks).compute(VOLUME))
            for d in (NumpyDevice(threads=1), NativeDevice(threads=1))
        ]
        np.testing.assert_array_equal(*both)


def test_z_blur_is_the_blurs_of_z_context():
    all_of_it, blurs = (bank.compute_volume(VOLUME) for bank in (BANK, BLURS))
    for name, values in zip(BLURS.channels[1:], blurs[1:], strict=True):
        sigma, blur = name.removeprefix("Z_blur_").split("_")
        np.testing.assert_array_equal(values, all_of_it[BANK.channels.index(f"Z_context_{sigma}_Gaussian_blur_{blur}")])
    assert BLURS.z_reach() == 6, "three sigmas of 2 planes"


def test_it_is_in_none_of_twss_sets_and_its_names_are_not_twss():
    for family, sets in (("z_context", []), ("z_blur", ["paper+z"])):
        assert [name for name, families in FEATURE_SETS.items() if family in families] == sets
        assert family not in {**PLANE_FAMILIES, **VOLUME_FAMILIES}
    bank, paper = FeatureBank.create("paper+z"), FeatureBank.create("paper")
    assert sorted(set(bank.channels) - set(paper.channels)) == [
        f"3D_Z_blur_{s}.0_{t}.0" for s in (1, 2) for t in (1, 2, 4, 8)
    ]
    assert FeatureBank.from_dict(bank.to_dict()) == bank
    assert BANK.blocks[-1].reaches()[1] < 20, "the reach within the plane is that of the blur"
