"""The ways of a CPU down the trees: labels without all votes, and the choice between the ways."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.device.compiler import LibraryCache
from gpu_tomoclass.device.native import NativeDevice
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.forest.packing import place_forest
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.predict_on_device import DeviceForest
from gpu_tomoclass.forest.questions import number_leaves, trees_for_labels
from gpu_tomoclass.forest.walks import WALKS, fastest_walk, model_forest, walk_costs

N_PIXELS = 3000


def undecided_forest(n_trees: int, n_classes: int, *, min_samples_leaf: int) -> tuple[Forest, np.ndarray]:
    """Trees that agree little, and pixels from clear ones to ties: (n_features, n_pixels)."""
    random = np.random.default_rng(n_trees)
    rows = random.normal(size=(300, 5)).astype(np.float32)
    labels = np.digitize(rows[:, 0] + random.normal(size=300) * 0.7, np.linspace(-1, 1, n_classes - 1))
    grown = RandomForestClassifier(n_trees, min_samples_leaf=min_samples_leaf, random_state=1, n_jobs=1)
    forest = forest_from_sklearn(grown.fit(rows, labels))
    return forest, random.normal(size=(5, N_PIXELS)).astype(np.float32)


@pytest.mark.parametrize(
    ("n_trees", "n_classes", "min_samples_leaf"),
    [(200, 3, 1), (10, 2, 1), (7, 4, 1), (1, 2, 1), (300, 2, 1), (40, 3, 9)],  # the last has fractions
)
def test_labels_alone_are_those_of_all_votes(n_trees: int, n_classes: int, min_samples_leaf: int) -> None:
    forest, pixels = undecided_forest(n_trees, n_classes, min_samples_leaf=min_samples_leaf)
    pixels[2, 5] = np.nan
    expected = predict_probabilities(forest, pixels)
    ranked = np.sort(expected, axis=0)
    if n_trees == 10:  # equal votes are where the first class must win
        assert (ranked[-1] == ranked[-2]).sum() > 10
    device = NativeDevice(threads=2)
    shares = DeviceForest(forest, device, walk="questions").probabilities(device.array(pixels), want_labels=True)
    np.testing.assert_array_equal(shares.argmax(axis=0), expected.argmax(axis=0))
    if n_trees == 1:
        np.testing.assert_allclose(shares, expected, rtol=1e-6)  # all votes
    else:
        assert np.abs(shares - expected).max() > 0.01  # some pixels were not asked by all trees


def fiji_forest(n_rows: int, n_features: int) -> tuple[Forest, np.ndarray]:
    """Trees as Fiji grows them, whose leaves vote with more or less than one, and pixels."""
    random = np.random.default_rng(n_rows)
    rows = random.normal(size=(n_rows, n_features)).astype(np.float32)
    labels = 1 + np.digitize(rows[:, 0] + random.normal(size=n_rows) * 0.7, [-0.5, 0.5])
    forest = train_weka(rows, labels, n_trees=60, seed=3, n_jobs=1).forest
    return forest, random.normal(size=(n_features, N_PIXELS)).astype(np.float32)


def test_labels_alone_of_fijis_forests_are_those_of_all_votes() -> None:
    forest, pixels = fiji_forest(300, 5)
    assert forest.votes.max() > 1.5
    expected = predict_probabilities(forest, pixels)
    device = NativeDevice(threads=2)
    on_device = DeviceForest(forest, device, walk="questions")
    assert on_device.walk == "questions"
    np.testing.assert_allclose(on_device.probabilities(device.array(pixels)), expected, rtol=1e-6)  # order of sums
    shares = on_device.probabilities(device.array(pixels), want_labels=True)
    np.testing.assert_array_equal(shares.argmax(axis=0), expected.argmax(axis=0))
    assert np.abs(shares - expected).max() > 0.01  # some pixels were not asked by all trees


def test_no_lead_beyond_what_is_to_come_was_ever_lost() -> None:
    """By votes tree by tree in plain NumPy, without the kernel."""
    forest, pixels = fiji_forest(300, 5)
    n, to_come = trees_for_labels(forest)
    assert 0 < n < forest.n_trees
    stops = [*forest.roots.tolist(), forest.n_nodes]
    votes = np.zeros((2, 3, N_PIXELS))  # of the first trees, and of all
    for tree in range(forest.n_trees):
        at = np.full(N_PIXELS, stops[tree])
        while (forest.feature[at] >= 0).any():
            asks = forest.feature[at] >= 0
            right = pixels[forest.feature[at] * asks, np.arange(N_PIXELS)] >= forest.threshold[at]
            at = np.where(asks, forest.child[at] + right, at)
        of_tree = forest.votes[forest.child[at]].T
        votes[1] += of_tree
        votes[0] += of_tree * (tree < n)
    ranked = np.sort(votes[0], axis=0)
    certain = ranked[-1] - ranked[-2] > to_come
    assert 0 < certain.sum() < N_PIXELS
    np.testing.assert_array_equal(votes[0].argmax(axis=0)[certain], votes[1].argmax(axis=0)[certain])


def test_another_forest_needs_no_compiler(tmp_path: Path) -> None:
    """A person's next stroke makes one with other thresholds, columns and leaves."""
    device = NativeDevice(threads=1, cache=LibraryCache(tmp_path))
    compiled = []
    for n_rows, n_features in ((300, 5), (900, 60)):
        forest, pixels = fiji_forest(n_rows, n_features)
        DeviceForest(forest, device, walk="questions").probabilities(device.array(pixels))
        compiled.append({path.name for path in tmp_path.glob("*.so")})
    assert compiled[0] == compiled[1]


def test_the_walk_follows_the_measured_costs() -> None:
    placed = place_forest(model_forest(np.random.default_rng(0)))
    for walk in WALKS:
        costs = dict.fromkeys(WALKS, 1000.0) | {walk: 0.001}
        assert fastest_walk(placed, costs, numbers=number_leaves(placed)) == walk


def test_a_broken_file_of_costs_is_measured_again(tmp_path: Path) -> None:
    costs = walk_costs(NativeDevice(threads=1, cache=LibraryCache(tmp_path)))
    assert costs.keys() == set(WALKS)
    assert all(cost > 0 for cost in costs.values())
    (file,) = tmp_path.glob("*.json")
    kept = NativeDevice(threads=1, cache=LibraryCache(tmp_path))
    assert walk_costs(kept) == costs == json.loads(file.read_text())
    for content in ("", "[1]", '{"questions": 1.0}', '{"questions": 1.0, "steps": NaN, "gathers": -1.0}'):
        file.write_text(content, encoding="latin-1")
        again = NativeDevice(threads=1, cache=LibraryCache(tmp_path))
        assert walk_costs(again).keys() == set(WALKS)
        assert json.loads(file.read_text()) == walk_costs(again)
