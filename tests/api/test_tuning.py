"""Settings chosen by held-out strokes: what helps is found, and is judged on strokes that chose nothing."""

import dataclasses
import itertools

import numpy as np
import pytest

import gpu_tomoclass as gt
from gpu_tomoclass.api.smoothed_rows import SmoothedRows
from gpu_tomoclass.api.tuning import _surely_best
from gpu_tomoclass.api.tuning_result import Setting, standard_error
from gpu_tomoclass.classification import Smoother, sigma_in_voxels
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.features import FeatureBank, IntensityScale
from gpu_tomoclass.volumes import ArrayVolume

FAST = {"n_trees": 5, "device": "numpy", "workers": 1, "features": ["sobel_filter"], "min_samples_leaf": [1]}


def scene(*, noise=4000.0, shape=(5, 28, 28)):
    """Two grey levels in noise, and strokes of four pixels."""
    random = np.random.default_rng(0)
    truth = np.ones(shape, np.uint8)
    truth[:, :, 14:] = 2
    grey = 20000 + 4000.0 * truth + random.normal(0, noise, shape)
    strokes = np.zeros(shape, np.uint8)
    for z in (1, 3):
        for y in range(2, 26, 5):
            for x in (3, 19):
                strokes[z, y, x : x + 4] = truth[z, y, x]
    return ArrayVolume(grey.clip(0, 65535).astype(np.uint16), voxel_size=(2.0, 1.0, 1.0)), strokes


def test_smoothing_at_places_is_that_of_whole_planes():
    """The probabilities are the grey values: smoothed by ``classify``'s smoother, corners and first planes included."""
    volume, _ = scene()
    places = np.array([[0, 0, 0, 0], [0, 2, 13, 27], [0, 4, 27, 9], [0, 1, 5, 6]], np.int32)
    around = SmoothedRows.around(
        places, [volume], [1.0, 2.5], bank=FeatureBank.create(["sobel_filter"], sigma_max=1), device="numpy",
        scale=IntensityScale(),
    )  # fmt: skip
    grey = np.asarray(volume).astype(np.float32)
    which = np.array([1, 3, 0, 2])
    for sigma in (1.0, 2.5):
        smoother = Smoother(sigma_in_voxels(sigma, volume.voxel_size))
        whole = smoother.smoothed(0, 5, depth=5, compute=lambda a, b: list(grey[a:b, np.newaxis]))
        expected = [whole[z][0, y, x] for _, z, y, x in places[which]]
        needed = around.needed(which)
        near = around.values[needed, :1].T  # the first channel is the voxel itself
        np.testing.assert_allclose(
            around.smoothed(which, sigma, near, needed=needed)[0], expected, rtol=1e-5
        )  # float32 sums


def test_what_helps_in_noise_is_chosen_and_promised():
    volume, strokes = scene()
    steps = []
    found = gt.tune(volume, strokes, smooth=[2.0], n_folds=3, progress=lambda n, of: steps.append((n, of)), **FAST)
    assert found.plain == Setting("sobel_filter")
    assert found.chosen.smooth == 2.0
    assert found.promise.n_folds == 3
    assert found.promise.gain > 0.05
    assert found.promise.chosen.accuracy > found.promise.plain.accuracy
    assert found.promise.error == pytest.approx(np.std(found.promise.gains, ddof=1) / 3**0.5)
    assert (
        found.of(found.chosen).seconds_per_plane
        > found.of(dataclasses.replace(found.chosen, smooth=0.0)).seconds_per_plane
        > 0
    )
    assert steps[-1][0] == steps[-1][1] > len(steps) / 2
    assert all(a <= b for a, b in itertools.pairwise(steps))
    # Of 80 marked pixels each is judged once.
    assert found.promise.chosen.total == np.count_nonzero(strokes)


def test_labels_of_chance_promise_nothing():
    """The best of many settings looks better than the first, and is not: strokes have random classes."""
    volume, strokes = scene()
    random = np.random.default_rng(3)
    for z in (1, 3):
        for y in range(2, 26, 5):
            for x in (3, 19):
                strokes[z, y, x : x + 4] = random.integers(1, 3)
    found = gt.tune(volume, strokes, smooth=[2.0], max_features=[1, 2], n_folds=3, **FAST)
    best = max(tried.score for tried in found.tried)
    assert best > found.of(found.plain).score, "chance favours one of them"
    assert found.promise.gain < 0.15, "a choice by chance is worth nothing on other strokes"
    assert found.promise.chosen.accuracy < 0.7


def test_settings_change_only_where_that_helps_surely():
    a, b, c = (Setting("x", n) for n in (1, 2, 3))
    scores = {a: [0.5, 0.6, 0.7], b: [0.9, 0.5, 0.65], c: [0.55, 0.64, 0.76]}
    assert standard_error([0.4, -0.1, -0.05]) > 0.08
    assert _surely_best(a, [a, b], scores) == a
    assert _surely_best(a, [a, b, c], scores) == c
    assert np.isnan(standard_error([1.0]))


def test_time_that_is_not_enough_is_said():
    volume, strokes = scene()
    with pytest.raises(UsageError, match="not enough to try one setting"):
        gt.tune(volume, strokes, smooth=[], minutes=1e-9, **FAST)


def test_what_cannot_be_chosen_is_refused_or_said():
    volume, strokes = scene()
    unknown = ArrayVolume(np.asarray(volume), voxel_size=None)
    found = gt.tune(unknown, strokes, n_folds=2, **FAST)
    assert {tried.setting.smooth for tried in found.tried} == {0.0}
    assert any("how large a voxel is" in note for note in found.notes)
    with pytest.raises(UsageError, match="how large a voxel is"):
        gt.tune(unknown, strokes, smooth=[1.0], **FAST)
    with pytest.raises(UsageError, match="nothing to choose"):
        gt.tune(volume, strokes, **{**FAST, "features": []})
    one = np.zeros_like(strokes)
    one[1, 2, 3:7], one[1, 2, 19:23] = 1, 2
    with pytest.raises(DataError):
        gt.tune(volume, one, **FAST)
