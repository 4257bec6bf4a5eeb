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
from gpu_tomoclass.forest.packing import place_forest
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.predict_on_device import DeviceForest
from gpu_tomoclass.forest.questions import number_leaves
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
