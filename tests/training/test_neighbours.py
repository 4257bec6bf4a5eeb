"""Labels of neighbours as a witness, and a map of grey values that is used part of the way."""

import dataclasses

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.features import FeatureBank, IntensityScale
from gpu_tomoclass.training import adapt_model
from gpu_tomoclass.training.adapt_model import _part_way, adapt, try_map
from gpu_tomoclass.training.drift import Looked
from gpu_tomoclass.training.neighbours import APART, LESS_ALIKE, agreement, beside, share_of_map
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes import ArrayVolume

DEVICE = NumpyDevice(threads=1)


@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.9, 0.07, 0.03)])
def test_agreement_is_cohens_kappa_of_pairs_in_both_orders(shares):
    random = np.random.default_rng(0)
    here = random.choice(len(shares), 500, p=shares)
    there = np.where(random.uniform(size=500) < 0.8, here, random.choice(len(shares), 500))
    both = np.concatenate([here, there]), np.concatenate([there, here])
    assert agreement(here, there) == pytest.approx(cohen_kappa_score(*both))


def test_labels_of_one_class_agree_by_chance():
    assert agreement(np.zeros(5, int), np.zeros(5, int)) == 0
    assert agreement(np.full(5, 2), np.full(5, 2)) == 0


@pytest.mark.parametrize("shape", [(30, 20), (20, 5), (3, 3)])
def test_beside_a_pixel_is_one_in_its_row_or_column(shape):
    pixels = np.repeat(np.arange(shape[0] * shape[1]), 2)  # every pixel by a row and by a column
    y, x = np.unravel_index(pixels, shape)
    there_y, there_x = np.unravel_index(beside(pixels, shape), shape)
    far = np.abs(there_y - y), np.abs(there_x - x)
    for axis, room in ((0, shape[0] > APART), (1, shape[1] > APART)):
        own = slice(axis, None, 2)
        assert (far[1 - axis][own] == 0).all()
        assert set(far[axis][own]) <= ({APART, 0} if room else {0})
        assert (far[axis][own] == APART).mean() >= min(1.0, 2 * (shape[axis] - APART) / shape[axis]) * room


def test_a_neighbour_that_does_not_count_is_not_compared():
    mask = np.zeros((2, 30, 30), np.uint8)
    mask[:, 10:13, :20] = 1  # less high than neighbours are apart
    looked = Looked.at(ArrayVolume(np.zeros((2, 30, 30), np.uint8), voxel_size=None), mask=mask)
    plane = type("Plane", (), {"image": np.zeros((30, 30)), "filled": None})
    pixels = np.array([10 * 30 + 2, 10 * 30 + 2, 10 * 30 + 18, 12 * 30 + 5])
    found = looked.beside(0, plane, pixels)
    assert found.tolist() == [10 * 30 + 2, 10 * 30 + 6, 10 * 30 + 18, 12 * 30 + 9]
    plane.filled = np.zeros((30, 30), bool)
    plane.filled[10, 6] = True
    assert looked.beside(0, plane, pixels).tolist() == [*pixels[:3].tolist(), 12 * 30 + 9]


def test_the_share_of_a_map_bounds_how_much_less_neighbours_agree():
    assert share_of_map(-0.1) == share_of_map(LESS_ALIKE) == 1
    assert share_of_map(2 * LESS_ALIKE) == pytest.approx(0.5)
    assert share_of_map(0.5) < 0.05


SCALES = {
    "as stored": IntensityScale(),
    "adapted before": IntensityScale().mapped([(0, 100), (300, 500), (1000, 600)]),
    "a scale of its own": IntensityScale(kind="percentile", gain=3.0, offset=-50.0),
}


@pytest.mark.parametrize("as_given", SCALES.values(), ids=SCALES.keys())
@pytest.mark.parametrize("base", [IntensityScale(), IntensityScale(kind="percentile", gain=2.0, offset=10.0)])
def test_part_of_a_map_lies_between_the_values_as_given_and_the_map(as_given, base):
    raw = np.linspace(0, 1000, 301)
    points = [(0.0, 40.0), (700.0, 900.0), (2010.0, 2400.0)]
    whole, given = base.mapped(points).apply(raw), as_given.apply(raw)
    for share in (0.0, 0.3, 1.0):
        part = base.mapped(_part_way(as_given, base, points, share)).apply(raw)
        # Beyond the first point maps are level: there the value as given is that of the point.
        inside = raw * base.gain + base.offset >= (points[1][0] if share < 1 and as_given.gain != 1 else 0)
        np.testing.assert_allclose(part[inside], ((1 - share) * given + share * whole)[inside], rtol=1e-5, atol=1e-2)


@pytest.fixture(scope="module")
def model():
    """Two grey levels in noise, of which the border is known well."""
    random = np.random.default_rng(0)
    truth = np.ones((4, 40, 40), np.uint8)
    truth[:, :, 20:] = 2
    volume = (20000 + 8000 * (truth == 2) + random.normal(0, 2500, truth.shape)).astype(np.uint16)
    z, y, x = (a.ravel() for a in np.meshgrid([0, 2], np.arange(0, 40, 3), np.arange(0, 40, 2), indexing="ij"))
    strokes = Annotation.from_voxels(
        z, y, x, truth[z, y, x], shape=truth.shape, classes=default_classes(["low", "high"])
    )
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=2)
    return train(ArrayVolume(volume, voxel_size=None), strokes, bank=bank, n_trees=20, device=DEVICE).model, volume


def test_a_map_that_frays_regions_is_used_part_of_the_way(model, monkeypatch):
    model, volume = model
    other = (volume // 2 + 10000).astype(np.uint16)
    whole = adapt(model, other, device=DEVICE, always=True)
    assert whole.share == 1
    assert whole.model.training["adapted"]["share"] == 1
    # How much labels fray is another test's: here it is said, and that the volume is near.
    monkeypatch.setattr(adapt_model, "WRONG_DRIFT", 1.0)
    monkeypatch.setattr(adapt_model, "share_of_map", lambda less_alike: 0.25)
    part = adapt(model, other, device=DEVICE, always=True)
    assert part.adapted
    assert part.share == part.model.training["adapted"]["share"] == 0.25
    assert part.reason.startswith("adapted 25 % of the way")
    known = np.clip(other, *np.array(whole.model.intensity.points)[[0, -1], 0])  # beyond what was seen maps are level
    np.testing.assert_allclose(
        part.model.intensity.apply(known), 0.75 * known + 0.25 * whole.model.intensity.apply(known), rtol=1e-5
    )
    assert part.after.mean_margin != whole.after.mean_margin
    floats = adapt(model, other.astype(np.float32), device=DEVICE, always=True)
    assert floats.share == 1  # a type that the model as given cannot be asked about


def test_a_map_that_steepens_noise_is_used_in_part_and_does_less_harm(model):
    """The model knows noise of 2500; here it is 4800 and contrast lower: a map to the whole contrast frays regions."""
    model, _ = model
    random = np.random.default_rng(1)
    truth = np.ones((4, 40, 40), np.uint8)
    truth[:, :, 20:] = 2
    noisy = (20000 + 0.8 * (8000 * (truth == 2) + random.normal(0, 6000, truth.shape))).astype(np.uint16)
    tried = try_map(model, Looked.at(ArrayVolume(noisy, voxel_size=None)), device=DEVICE)
    assert tried.alike[1] < tried.alike[0] - LESS_ALIKE
    assert tried.share == LESS_ALIKE / (tried.alike[0] - tried.alike[1])
    scales = model.intensity, tried.part, tried.scale
    models = [dataclasses.replace(model, intensity=scale) for scale in scales]
    given, part, whole = ((m.predict(noisy, device=DEVICE).labels == truth).mean() for m in models)
    assert whole < given - 0.01
    assert part > given - 0.005
