"""Drift: shares counted directly, SciPy's distance as a bound, and phantoms where a model fits and where not."""

import dataclasses
import json

import numpy as np
import pytest
from scipy import stats

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import choose_device
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.intensity import IntensityScale
from gpu_tomoclass.forest.arrays import LEAF, Forest
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.model.model import N_QUANTILES, Model, save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.studies.simulation.phantom import simulate_phantom
from gpu_tomoclass.studies.simulation.tilt_series import tilt_angles
from gpu_tomoclass.studies.strokes import draw_strokes
from gpu_tomoclass.training import check_drift
from gpu_tomoclass.training.drift import (
    DOUBTFUL_DRIFT,
    channel_quantiles,
    compare,
    mean_lead,
    probabilities_of,
    question_drift,
    question_weights,
    share_below,
)
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

STEP = 1 / (N_QUANTILES - 1)  # how well remembered quantiles know a share


def columns(n, *, seed=0):
    """(n, 4): smooth, skewed, whole numbers with many ties, constant."""
    random = np.random.default_rng(seed)
    return np.stack(
        [random.normal(size=n), random.exponential(size=n), random.poisson(2, n), np.full(n, 3)], axis=1
    ).astype(np.float32)


def test_quantiles_are_those_of_numpy_and_rise():
    sample = columns(1001)
    sample[5, 0] = np.nan
    sample[6, 0] = np.inf
    found = channel_quantiles(sample)
    assert found.shape == (4, N_QUANTILES)
    assert found.dtype == np.float32
    assert (np.diff(found, axis=1) >= 0).all()
    finite = sample[np.isfinite(sample[:, 0]), 0]
    assert found[0, 0] == finite.min()
    assert found[0, -1] == finite.max()
    assert found[1, N_QUANTILES // 2] == np.median(sample[:, 1])  # of an odd number it is one of the values
    np.testing.assert_array_equal(found[3], 3)
    np.testing.assert_array_equal(channel_quantiles(np.full((9, 1), np.nan, np.float32)), 0)


@pytest.mark.parametrize("channel", range(4))
def test_shares_below_are_counted(channel):
    sample = columns(5000)
    quantiles = channel_quantiles(sample)[channel]
    values = sample[:, channel]
    thresholds = np.unique(np.concatenate([values[:200], values[:200] + np.float32(0.01), [-99, 99]])).astype(
        np.float32
    )
    counted = np.array([(values < t).mean() for t in thresholds])
    found = share_below(quantiles, thresholds)
    np.testing.assert_allclose(found, counted, atol=STEP)
    assert found[0] == 0
    assert found[-1] == 1
    if channel == 0:  # interpolation knows a smooth distribution much better
        inner = (counted > 2 * STEP) & (counted < 1 - 2 * STEP)
        np.testing.assert_allclose(found[inner], counted[inner], atol=STEP / 4)


def test_questions_are_weighed_by_who_is_asked():
    """A root that sends 3/4 left, where a second question is: weights 1 and 3/4, to sum 1."""
    forest = Forest(
        feature=np.array([0, 1, LEAF, LEAF, LEAF], np.int32),
        threshold=np.array([1, 2, 0, 0, 0], np.float32),
        child=np.array([1, 3, 0, 1, 2], np.int32),
        left_fraction=np.array([0.75, 0.5, 0, 0, 0], np.float32),
        votes=np.eye(3, 2, dtype=np.float32) + np.float32(0.5),
        roots=np.array([0], np.int64),
        n_features=2,
    )
    np.testing.assert_allclose(question_weights(forest), [1 / 1.75, 0.75 / 1.75, 0, 0, 0])
    # Training: both channels evenly 0..4. Sample: channel 0 always below its threshold, channel 1 never.
    quantiles = np.tile(np.linspace(0, 4, N_QUANTILES, dtype=np.float32), (2, 1))
    sample = np.array([[0, 3]] * 10, np.float32)
    np.testing.assert_allclose(question_drift(forest, quantiles, sample), [0.75, 0.5, 0, 0, 0])


def test_weights_of_a_grown_forest_are_counted_by_walking():
    """Of a forest without bootstrap fractions: rows of training that reach each node, walked here one by one."""
    sample = columns(300)
    forest = train_forest(sample, 1 + (sample[:, 0] + sample[:, 1] > 1), n_trees=5, n_jobs=1).forest
    weights = question_weights(forest)
    assert weights.sum() == pytest.approx(1)
    assert (weights[forest.feature == LEAF] == 0).all()
    roots = weights[forest.roots]
    assert roots == pytest.approx(np.full(5, roots[0]))
    for node in np.flatnonzero(forest.feature != LEAF):
        left, right = forest.child[node], forest.child[node] + 1
        for child, share in ((left, forest.left_fraction[node]), (right, 1 - forest.left_fraction[node])):
            if forest.feature[child] != LEAF:
                assert weights[child] == pytest.approx(weights[node] * share, rel=1e-5, abs=1e-12)


def made_model(sample, *, seed=0):
    """Three channels of one family beside the grey value."""
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=4)
    assert sample.shape[1] == bank.n_channels
    labels = 1 + (sample[:, 0] + sample[:, 1] > 1)
    forest = train_forest(sample, labels, n_trees=10, seed=seed, n_jobs=1).forest
    return Model(
        forest=forest,
        bank=bank,
        classes=default_classes(["a", "b"]),
        intensity=IntensityScale(),
        training={"mean_margins": [mean_lead(probabilities_of(forest, sample))]},
        quantiles=channel_quantiles(sample)[np.newaxis],
    )


@pytest.mark.parametrize("shift", [0.0, 0.3, 2.0])
def test_no_question_drifts_further_than_the_kolmogorov_smirnov_distance(shift):
    known, other = columns(4000), columns(3000, seed=1)
    other[:, :3] += np.float32(shift)
    model = made_model(known)
    of_node = question_drift(model.forest, model.quantiles[0], other)
    for channel in range(3):
        furthest = of_node[model.forest.feature == channel].max()
        distance = stats.ks_2samp(known[:, channel], other[:, channel]).statistic
        assert furthest <= distance + STEP
        if shift == 2.0:
            assert furthest > 0.5 * distance


def test_the_same_pixels_fit_and_foreign_ones_do_not():
    known = columns(4000)
    model = made_model(known)
    same = compare(model, columns(4000, seed=2))
    assert same.verdict == "fits"
    assert same.drift < STEP / 2
    assert same.outside < 0.01
    far = compare(model, known + np.float32(50))
    assert far.verdict == "does not fit"
    assert far.outside == pytest.approx(1, abs=0.01)
    assert far.drift > 0.3
    assert 0 <= same.drift < far.drift <= 1
    assert set(far.per_family) <= {"original", "gaussian_blur"}
    json.dumps(far.to_dict())
    unsure = compare(dataclasses.replace(model, training={"mean_margins": [same.mean_margin + 0.3]}), known)
    assert unsure.verdict == "does not fit"
    assert f"instead of {same.mean_margin + 0.3:.2f}" in unsure.explain()


def test_of_several_volumes_the_nearest_counts():
    """A mixture of both would fit neither."""
    near, far = columns(4000), columns(4000, seed=1) + np.float32(20)
    model = made_model(np.concatenate([near, far]))
    both = dataclasses.replace(
        model,
        quantiles=np.stack([channel_quantiles(near), channel_quantiles(far)]),
        training={"mean_margins": [mean_lead(probabilities_of(model.forest, sample)) for sample in (near, far)]},
    )
    for sample in (near, far):
        found = compare(both, sample)
        assert found.verdict == "fits"
        assert found.drift < STEP / 2
        assert found.mean_margin == found.trained_margin
        assert compare(model, sample).drift > 0.1  # the mixture


def test_missing_values_are_left_out():
    known = columns(2000)
    model = made_model(known)
    holes = columns(2000, seed=3)
    whole = compare(model, holes)
    holes[::2] = np.nan
    holes[1, 0] = np.inf
    holed = compare(model, holes)
    assert holed.drift == pytest.approx(whole.drift, abs=0.02)
    assert compare(model, np.full_like(known, np.nan)).drift == 0


def test_a_forest_that_asks_nothing_drifts_nowhere():
    sample = columns(50)
    model = made_model(sample)
    leaf = Forest(
        feature=np.array([LEAF], np.int32), threshold=np.zeros(1, np.float32), child=np.zeros(1, np.int32),
        left_fraction=np.zeros(1, np.float32), votes=np.ones((1, 2), np.float32), roots=np.zeros(1, np.int64),
        n_features=4,
    )  # fmt: skip
    found = compare(dataclasses.replace(model, forest=leaf, training={"mean_margins": [0.0]}), sample + np.float32(9))
    assert (found.drift, found.outside, found.per_family) == (0.0, 0.0, {})


# --- small phantoms --------------------------------------------------------------------------------------------------

NOISY = {"poisson": 0.5, "max_shift": 1.0}
KINDS = {
    "noisy": NOISY,
    "noisy too": NOISY,
    "other contrast": {**NOISY, "levels": (0, 40, 110, 150, 255)},
    "very noisy wedge": {"poisson": 4.0, "max_shift": 3.0, "angles": tilt_angles(-60, 60, 4)},
}
SIZE = 96


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    """Path and truth (1..5) of four volumes of 4 planes."""
    folder = tmp_path_factory.mktemp("phantoms")
    found = {}
    for i, (name, options) in enumerate(KINDS.items()):
        made = [simulate_phantom(size=SIZE, seed=10 * i + z, **options) for z in range(4)]
        path = folder / f"{i}.tif"
        with create_volume(path, shape=(4, SIZE, SIZE), dtype=np.uint8, voxel_size=None) as writer:
            for z, (image, _) in enumerate(made):
                writer.write_plane(z, image)
        found[name] = path, np.stack([labels for _, labels in made]) + np.uint8(1)
    return found


@pytest.fixture(scope="module")
def models(phantoms):
    """A model of planes 0 and 2 of each."""
    bank = FeatureBank.create(["gaussian_blur", "median", "variance", "hessian"], sigma_max=8)
    found = {}
    for name, (path, truth) in phantoms.items():
        painted = np.zeros_like(truth)
        for z in (0, 2):
            painted[z] = draw_strokes(truth[z], per_class=5, length=20, seed=z)
        z, y, x = np.nonzero(painted)
        classes = default_classes(["background", "void", "matrix", "inset", "shell"])
        annotation = Annotation.from_voxels(z, y, x, painted[z, y, x], shape=truth.shape, classes=classes)
        with open_volume(path) as volume:
            found[name] = train(volume, annotation, bank=bank, n_trees=50, device=choose_device("native")).model
    return found


def accuracy(model, path, truth):
    with open_volume(path) as volume:
        images = np.stack([volume.plane(z) for z in (1, 3)]).astype(np.float32)
    classifier = Classifier(model, choose_device("native"))
    found = np.stack([classifier.classify(image[np.newaxis])[0][0] for image in images])
    return (found == truth[[1, 3]]).mean()


def test_another_realisation_of_the_noise_fits(phantoms, models):
    path, truth = phantoms["noisy too"]
    own, lent = accuracy(models["noisy too"], path, truth), accuracy(models["noisy"], path, truth)
    assert own - lent < 0.03  # the transfer is a good one
    with open_volume(path) as volume:
        found = check_drift(models["noisy"], volume)
        assert check_drift(models["noisy too"], volume).verdict == "fits"
    assert found.verdict == "fits"
    assert found.planes == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("trained_on", "applied_to"),
    [("noisy", "very noisy wedge"), ("other contrast", "noisy"), ("other contrast", "very noisy wedge")],
)
def test_bad_transfers_are_told(phantoms, models, trained_on, applied_to):
    path, truth = phantoms[applied_to]
    own, lent = accuracy(models[applied_to], path, truth), accuracy(models[trained_on], path, truth)
    assert own - lent > 0.1  # the transfer is a bad one
    with open_volume(path) as volume:
        found = check_drift(models[trained_on], volume)
    assert found.verdict != "fits"
    assert found.drift > DOUBTFUL_DRIFT or found.mean_margin < found.trained_margin


def test_planes_and_devices(phantoms, models, tmp_path):
    path, _ = phantoms["noisy"]
    save_model(models["noisy"], tmp_path / "m.tcm")
    model = load_model(tmp_path / "m.tcm")  # what a file holds is enough
    steps = []
    with open_volume(path) as volume:
        found = check_drift(model, volume, planes=(1, 3), progress=lambda done, n: steps.append((done, n)))
        assert found.planes == [1, 2]
        assert steps == [(n, 8) for n in range(1, 9)], "as given, and adapted three times"
        assert check_drift(model, volume, n_planes=1).planes == [2]
        on_native = check_drift(model, volume, n_planes=2, device=choose_device("native"))
        on_numpy = check_drift(model, volume, n_planes=2, device=choose_device("numpy"))
        assert on_native.drift == pytest.approx(on_numpy.drift, abs=1e-3)
        assert on_native.mean_margin == pytest.approx(on_numpy.mean_margin, abs=1e-3)
        for planes in ((3, 3), (0, 9), (-1, 2)):
            with pytest.raises(UsageError, match="cannot be looked at"):
                check_drift(model, volume, planes=planes)
        with pytest.raises(UsageError, match="0 planes"):
            check_drift(model, volume, n_planes=0)
        with pytest.raises(ModelError, match="does not know the volume"):
            check_drift(dataclasses.replace(model, quantiles=None), volume)
        with pytest.raises(ModelError, match="does not know the volume"):
            check_drift(dataclasses.replace(model, training={}), volume)


def test_pixels_that_were_not_finite_are_not_looked_at(tmp_path):
    """Half of a float volume is missing: with mask the rest is what is compared; nothing at all is an error."""
    random = np.random.default_rng(0)
    whole = random.normal(size=(2, 30, 32)).astype(np.float32)
    whole[:, :, 16:] += 3
    holed = whole.copy()
    holed[:, :15] = np.nan
    for name, array in (("whole", whole), ("holed", holed)):
        with create_volume(tmp_path / f"{name}.mrc", shape=array.shape, dtype=array.dtype, voxel_size=None) as writer:
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    z, y, x = (v.ravel() for v in np.mgrid[:1, :30:3, :32])
    annotation = Annotation.from_voxels(z, y, x, 1 + (x >= 16), shape=whole.shape)
    bank = FeatureBank.create(["gaussian_blur"], sigma_max=1)
    with open_volume(tmp_path / "whole.mrc") as volume:
        model = train(volume, annotation, bank=bank, n_trees=10).model
    with open_volume(tmp_path / "holed.mrc") as volume:
        assert check_drift(model, volume, nan="mask").drift < 0.05
        with pytest.raises(DataError):
            check_drift(model, volume, nan="error")
