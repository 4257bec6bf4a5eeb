"""The families that look across planes, against TWS 3D's own output, bit for bit; and slabs against volumes."""

from __future__ import annotations

import numpy as np
import pytest
from golden_volumes import VOLUMES

from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import Aspect, FeatureBank, FeatureEngine, Place, aspect_of
from gpu_tomoclass.features.block import halo, volume_source
from gpu_tomoclass.features.families import VOLUME_FAMILIES
from gpu_tomoclass.features.reference.volume_ball import ball_rows, ball_size
from gpu_tomoclass.features.reference.volume_source import CUBES, mirrored, voxel_aspect


@pytest.mark.parametrize("name", list(VOLUMES))
def test_every_channel_equals_tws_bit_for_bit(name: str) -> None:
    golden = VOLUMES[name]
    bank = FeatureBank.create("weka-3d", sigma_max=golden.sigma_max)
    assert bank.channels == golden.channels
    found = bank.compute_volume(golden.image, aspect=golden.aspect)[:, golden.planes]
    different = [c for c, a, b in zip(bank.channels, found, golden.features, strict=True) if not np.array_equal(a, b)]
    assert not different


@pytest.mark.parametrize("name", list(VOLUMES))
def test_kernels_equal_tws(name: str) -> None:
    """Bit for bit here; a processor with other cosines may differ in the last bit of an eigenvalue."""
    golden = VOLUMES[name]
    engine = FeatureEngine(NativeDevice(threads=2), FeatureBank.create("weka-3d", sigma_max=golden.sigma_max).blocks)
    place = Place.whole(len(golden.image), aspect=golden.aspect)
    found = engine.compute(golden.image.astype(np.float32), place=place)[:, golden.planes]
    scale = np.abs(golden.features).max(axis=(1, 2, 3), keepdims=True)
    exact = np.array([not channel.startswith(("Hessian", "Structure")) for channel in golden.channels])
    np.testing.assert_array_equal(found[exact], golden.features[exact])
    assert (np.abs(found - golden.features) <= 1.2e-7 * scale).all()  # one unit in the last place


def test_the_voxel_size_matters_to_all_channels_but_the_grey_value() -> None:
    """Otherwise the comparison with the anisotropic volume would prove nothing."""
    golden = VOLUMES["aniso16"]
    bank = FeatureBank.create("weka-3d", sigma_max=golden.sigma_max)
    found = bank.compute_volume(golden.image)[:, golden.planes]
    assert all(not np.array_equal(a, b) for a, b in zip(found[1:], golden.features[1:], strict=True))


@pytest.mark.parametrize("family", list(VOLUME_FAMILIES))
@pytest.mark.parametrize("aspect", [CUBES, Aspect(0.5, 0.8), Aspect(1.7)])
def test_a_slab_with_its_halo_gives_the_values_of_the_volume(family: str, aspect: Aspect) -> None:
    """Also where kernels are longer than the volume is deep, and at its ends."""
    volume = np.random.default_rng(5).normal(size=(23, 7, 9)).astype(np.float32)
    bank = FeatureBank.create([family], sigmas={family: (1.0, 2.5)})
    whole = bank.compute_volume(volume, aspect=aspect)
    for start, stop in ((0, 1), (9, 13), (21, 23)):
        place = Place.with_halo(start, stop, depth=23, halo=bank.z_reach(aspect), aspect=aspect)
        slab = volume[place.first : place.first + place.n_planes]
        np.testing.assert_array_equal(bank.compute_volume(slab, place=place), whole[:, start:stop])


@pytest.mark.parametrize("family", list(VOLUME_FAMILIES))
def test_the_reach_is_no_larger_than_it_must_be(family: str) -> None:
    """A plane less is noticed, or changes the values."""
    volume = np.random.default_rng(5).normal(size=(41, 6, 7)).astype(np.float32)
    bank = FeatureBank.create([family], sigmas={family: (1.0, 2.0)})
    block = bank.blocks[-1]
    whole = VOLUME_FAMILIES[family].compute(volume_source(volume, Place.whole(41)), dict(block.parameters))[:, 20:21]
    place = Place.with_halo(20, 21, depth=41, halo=halo([block]) - 1)
    slab = volume[place.first : place.first + place.n_planes]
    try:
        less = VOLUME_FAMILIES[family].compute(volume_source(slab, place), dict(block.parameters))
    except ValueError:
        return
    assert not np.array_equal(less, whole)


def test_names_in_a_bank_of_both() -> None:
    bank = FeatureBank.create(["mean", "mean_3d"], sigma_max=2.0)
    assert bank.channels == ("original", "Mean_1.0", "Mean_2.0", "3D_Mean_1.0", "3D_Mean_2.0")
    assert FeatureBank.from_channels(bank.channels)[0] == bank
    assert FeatureBank.from_dict(bank.to_dict()) == bank


@pytest.mark.parametrize(
    "features",
    ["weka-3d", "weka-3d-default", ["laplacian_3d", "minimum_3d", "median_3d"], ["difference_of_gaussian_3d"]],
)
def test_names_and_their_order_tell_3d_from_2d(features: str | list[str]) -> None:
    bank = FeatureBank.create(features)
    again, order = FeatureBank.from_channels(bank.channels)
    assert again == bank
    assert order.tolist() == list(range(bank.n_channels))
    planes = FeatureBank.create(["gaussian_blur", "variance", "mean", "median", "laplacian"])
    assert FeatureBank.from_channels(planes.channels)[0] == planes


def test_one_shared_family_is_taken_for_2d_unless_the_relation_says_3d() -> None:
    names = FeatureBank.create(["median_3d"], sigma_max=8.0).channels
    assert FeatureBank.from_channels(names)[0].families == ("median",)
    assert FeatureBank.from_channels(names, dimensions=3)[0].families == ("median_3d",)


def test_default_sigmas_are_those_of_tws() -> None:
    bank = FeatureBank.create(["mean", "mean_3d"])
    assert bank.sigmas_of("mean") == (1.0, 2.0, 4.0, 8.0, 16.0)
    assert bank.sigmas_of("mean_3d") == (1.0, 2.0, 4.0, 8.0)


def test_sets_of_planes_are_what_they_were() -> None:
    assert FeatureBank.create("all").n_channels == 272
    assert FeatureBank.create("weka-3d").n_channels == 95
    assert FeatureBank.create("weka-3d-default").n_channels == 9


def test_a_plane_alone_is_refused() -> None:
    with pytest.raises(UsageError, match="looks across planes"):
        FeatureBank.create("weka-3d").compute(np.zeros((8, 8)))
    with pytest.raises(UsageError, match="up to 32"):
        FeatureBank.create("weka-3d", sigma_max=64.0)


@pytest.mark.parametrize(
    ("radius", "n"), [(1, 7), (1.5, 19), (2, 33), (3, 123), (4, 257), (6, 925), (8, 2109), (12, 7153), (16, 17077)]
)
def test_voxels_of_balls(radius: float, n: int) -> None:
    """As counted in ImageJ."""
    assert ball_size(ball_rows(radius, CUBES)) == n


def test_mirror_is_that_of_numpy() -> None:
    for length in (1, 2, 3, 7):
        expected = np.pad(np.arange(length), 23, mode="reflect")
        np.testing.assert_array_equal(mirrored(np.arange(-23, length + 23), length), expected)


def test_aspect_of_voxels() -> None:
    assert aspect_of(None) == CUBES
    assert aspect_of((0.55, 0.55, 0.55)) == (1.0, 1.0, 1.0, 0.55)
    assert voxel_aspect((8.0, 4.0, 4.0)) == (0.5, 1.0, 1.0, 4.0)
    assert voxel_aspect((0.1 + 0.2, 0.3, 0.3)).axes == CUBES.axes  # lengths that went through units
    with pytest.raises(UsageError):
        voxel_aspect((0.0, 1.0, 1.0))
