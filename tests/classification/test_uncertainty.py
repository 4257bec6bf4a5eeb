"""Values of the uncertainty, and how far the mask of filled voxels grows: by hand, and by changing the voxel."""

import numpy as np
import pytest
from memory_volume import ArrayVolume

from gpu_tomoclass.classification.backoff import influenced, uncertainty
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.features.prepare import prepare_slab
from gpu_tomoclass.volumes.opening import open_volume

# Probabilities of three classes; lead of the first over the second; entropy in units of log 3.
BY_HAND = [
    ((1.0, 0.0, 0.0), 1.0, 0.0),
    ((0.5, 0.25, 0.25), 0.25, 1.5 * np.log(2) / np.log(3)),
    ((0.0, 0.5, 0.5), 0.0, np.log(2) / np.log(3)),
    ((0.125, 0.125, 0.75), 0.625, (0.75 * np.log(4 / 3) + 0.25 * np.log(8)) / np.log(3)),
    ((1 / 3, 1 / 3, 1 / 3), 0.0, 1.0),
    ((0.0, 0.0, 0.0), 0.0, 1.0),  # not classified
]


@pytest.mark.parametrize(("probabilities", "lead", "entropy"), BY_HAND)
def test_values_by_hand(probabilities, lead, entropy):
    p = np.array(probabilities, np.float32).reshape(3, 1, 1)
    margin = uncertainty(p, kind="margin")
    assert margin.dtype == np.float32
    assert margin.shape == (1, 1)
    assert margin.item() == 1 - lead
    found = uncertainty(p, kind="entropy")
    assert found.dtype == np.float32
    assert found.item() == pytest.approx(entropy, abs=1e-7)  # one rounding to float32


def test_two_classes_reach_one_too():
    p = np.array([0.5, 0.5], np.float32).reshape(2, 1)
    assert uncertainty(p, kind="entropy").item() == uncertainty(p, kind="margin").item() == 1.0


@pytest.mark.parametrize("kind", ["margin", "entropy"])
def test_a_run_writes_them(sample_path, sample_model, tmp_path, kind):
    with open_volume(sample_path) as volume:
        output = tmp_path / "o.tif"
        classify(
            volume, sample_model, output=output, probabilities="float32", uncertainty=kind, device=NumpyDevice(),
            planes=(3, 5),
        )  # fmt: skip
    p = []
    for channel in range(2):
        with open_volume(tmp_path / "o_probabilities.tif", channel=channel) as found:
            p.append(np.stack([plane for _, plane in found.planes()]).astype(np.float64))
    a, b = p
    if kind == "margin":
        right = 1 - abs(a - b)
    else:
        right = -sum(np.where(q > 0, q * np.log2(np.where(q > 0, q, 1)), 0) for q in p)
    with open_volume(tmp_path / "o_uncertainty.tif") as found:
        values = np.stack([plane for _, plane in found.planes()])
    assert values.dtype == np.float32
    np.testing.assert_allclose(values, right, atol=2e-7)  # float32 steps


@pytest.mark.parametrize(("family", "sigma"), [("neighbors", 4), ("gaussian_blur", 2), ("median", 3), ("hessian", 1)])
def test_the_mask_is_what_the_voxel_changes_and_no_pixel_less(family, sigma):
    """Of a plane in noise, one voxel becomes another: what changes is within the mask, and touches all of its sides."""
    bank = FeatureBank.create([family], sigmas={family: [sigma]})
    image = np.random.default_rng(4).normal(size=(41, 41)).astype(np.float32)
    image[20, 20] = np.nan
    slab = prepare_slab(ArrayVolume(image[np.newaxis]), 0, 1, scale=IntensityScale(), nan="mask")
    mask = influenced(slab, bank.blocks)[0]
    filled = slab.planes[0].image
    changed = np.zeros_like(mask)
    for value in (-1e4, 1e4):  # far from all others, so that ranks change, too
        other = filled.copy()
        other[20, 20] = value
        changed |= (bank.compute(other) != bank.compute(filled)).any(axis=0)
    assert not (changed & ~mask).any()
    sides = [(int(side.min()), int(side.max())) for side in np.nonzero(changed)]
    assert sides == [(int(side.min()), int(side.max())) for side in np.nonzero(mask)]


def test_families_that_see_the_whole_plane_mask_the_voxel_itself():
    image = np.zeros((1, 20, 20), np.float32)
    image[0, 7, 9] = np.inf
    slab = prepare_slab(ArrayVolume(image), 0, 1, scale=IntensityScale(), nan="mask")
    blocks = [block for block in FeatureBank.create(["bilateral"]).blocks if block.family == "bilateral"]
    assert np.argwhere(influenced(slab, blocks)).tolist() == [[0, 7, 9]]
