"""Edges of the forest: figures by hand, one-node trees, infinite and missing values, corrupt forests with gaps."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.forest.arrays import Forest
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn, train_forest
from gpu_tomoclass.forest.predict import predict_classes, predict_probabilities

FLOAT_MAX = np.finfo(np.float32).max


def rows(n=150, n_features=4, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 8, (n, n_features)).astype(np.float32)
    return values, (1 + (values[:, 0] + rng.normal(0, 2, n) > 5)).astype(np.uint8)


def stumps(*, left_fraction=0.25, votes=((1, 3), (2, 0))):
    """One question (feature 1 of 3, threshold 2) and, as a second tree, a single leaf without a preference."""
    return Forest(
        feature=np.array([1, -1, -1, -1], np.int32),
        threshold=np.array([2, 0, 0, 0], np.float32),
        child=np.array([1, 0, 1, 2], np.int32),
        left_fraction=np.array([left_fraction, 0, 0, 0], np.float32),
        votes=np.array([*votes, (1, 1)], np.float32),
        roots=np.array([0, 3], np.int64),
        n_features=3,
    )


def test_a_forest_computed_by_hand():
    forest = stumps()
    below = np.nextafter(np.float32(2), np.float32(0))
    asked = np.array([below, 2, -np.inf, np.inf, np.nan], np.float32)
    pixels = np.stack([np.full(5, np.nan, np.float32), asked, np.full(5, np.nan, np.float32)])
    # votes: left (1, 3), right (2, 0), each + (1, 1); missing: a quarter left, three quarters right
    left, right, missing = (2 / 6, 4 / 6), (3 / 4, 1 / 4), ((0.25 + 1.5 + 1) / 4.5, (0.75 + 1) / 4.5)
    expected = np.array([left, right, left, right, missing]).T
    np.testing.assert_allclose(predict_probabilities(forest, pixels), expected, rtol=1e-6)  # float32 result
    np.testing.assert_array_equal(forest.used_features(), [1])
    assert (forest.n_trees, forest.n_leaves, forest.n_classes, forest.depth) == (2, 3, 2, 1)
    only = forest.restricted([1])
    assert only.n_features == 1
    np.testing.assert_array_equal(predict_probabilities(only, pixels[1:2]), predict_probabilities(forest, pixels))


def test_trees_of_one_node_need_no_feature():
    values, labels = rows()
    theirs = RandomForestClassifier(5, min_samples_leaf=200, random_state=0).fit(values, labels)
    forest = forest_from_sklearn(theirs)
    assert forest.n_nodes == forest.n_trees == 5
    assert forest.used_features().size == 0
    found = predict_probabilities(forest.restricted([]), np.empty((0, 7), np.float32))
    np.testing.assert_allclose(found.T, theirs.predict_proba(values[:7]), atol=1e-6)  # float32 result


@pytest.mark.parametrize("n_pixels", [0, 1])
def test_few_pixels_and_many_threads(n_pixels):
    found = predict_probabilities(stumps(), np.zeros((3, n_pixels), np.float32), n_threads=3)
    assert found.shape == (2, n_pixels)


def test_impossible_requests():
    forest = stumps()
    for columns in ([1, 1], [[1]], [3], [-1]):
        with pytest.raises(UsageError, match="columns"):
            forest.restricted(columns)
    with pytest.raises(ModelError, match="2 features"):
        predict_probabilities(forest, np.zeros((2, 5), np.float32))
    for wrong in (np.zeros((3, 5)), np.zeros(3, np.float32)):
        with pytest.raises(DataError, match="float32"):
            predict_probabilities(forest, wrong)
    with pytest.raises(UsageError, match="threads"):
        predict_probabilities(forest, np.zeros((3, 5), np.float32), n_threads=0)
    with pytest.raises(ModelError, match="3 class values"):
        predict_classes(np.zeros((2, 5), np.float32), np.array([1, 2, 3], np.uint8))


def test_labels_must_be_whole_numbers_of_a_label_image():
    values, labels = rows()
    for wrong in (labels.astype(int) * 200, labels.astype(int) - 1, labels.astype(float), labels[:-1]):
        with pytest.raises(DataError, match="labels"):
            train_forest(values, wrong, n_trees=2)
    with pytest.raises(DataError, match="median_2"):
        train_forest(np.where(values == 3, np.inf, values)[:, :1], labels, n_trees=2, channels=["median_2"])


def test_out_of_bag_error_counted_by_hand():
    """Every row judged by the trees whose bootstrap sample it is not in; few trees, so that some rows have none."""
    values, labels = rows()
    ours = train_forest(values, labels, n_trees=4, seed=9)
    theirs = RandomForestClassifier(4, max_features=2, criterion="entropy", random_state=9).fit(values, labels)
    votes = np.zeros((labels.size, 2))
    for tree, drawn in zip(theirs.estimators_, theirs.estimators_samples_, strict=True):
        left_out = np.setdiff1d(np.arange(labels.size), drawn)
        votes[left_out] += tree.predict_proba(values[left_out])
    judged = votes.sum(axis=1) > 0
    called = 1 + votes.argmax(axis=1)
    assert 0 < ours.n_never_out_of_bag == (~judged).sum()
    assert ours.oob_error == pytest.approx((called != labels)[judged].mean())
    for i in (1, 2):
        for j in (1, 2):
            assert ours.oob_confusion[i - 1, j - 1] == (judged & (labels == i) & (called == j)).sum()


def test_missing_training_values_are_noted_and_go_both_ways():
    values, labels = rows()
    values[::5, 0] = np.nan
    ours = train_forest(values, labels, n_trees=10)
    assert any("30 of 150 training pixels have missing values" in note for note in ours.notes)
    assert np.isfinite(predict_probabilities(ours.forest, np.ascontiguousarray(values.T))).all()


@settings(max_examples=100, deadline=None)
@given(t=st.floats(-1e30, 1e30), steps=st.integers(-3, 3))
def test_thresholds_split_float32_exactly_as_float64_does(t, steps):
    """``value <= t`` with a float64 t, and ``value < s`` with the float32 s, for the values next to t."""
    from gpu_tomoclass.forest.arrays import smallest_above

    value = np.float32(t)
    for _ in range(abs(steps)):
        value = np.nextafter(value, np.float32(np.copysign(FLOAT_MAX, steps)))
    assert (value < smallest_above(np.array([t]))[0]) == (float(value) <= t)


@settings(max_examples=100, deadline=None)
@given(
    fraction=st.floats(0, 1, width=32),
    votes=st.lists(st.tuples(*[st.floats(0, float(FLOAT_MAX), width=32)] * 2), min_size=2, max_size=2),
    threshold=st.floats(width=32, allow_nan=False, allow_infinity=False),
)
def test_any_accepted_numbers_give_finite_probabilities(fraction, votes, threshold):
    """From subnormal fractions and votes to the largest: sums neither overflow nor vanish, missing values included."""
    try:
        forest = stumps(left_fraction=fraction, votes=tuple(votes))
        forest = dataclasses.replace(forest, threshold=np.array([threshold, 0, 0, 0], np.float32))
    except ModelError:
        assert min(sum(row) for row in votes) < np.finfo(np.float32).tiny  # a leaf must vote for something
        return
    asked = np.array([np.nan, -np.inf, 0, np.inf], np.float32)
    found = predict_probabilities(forest, np.stack([asked] * 3))
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-6)  # float32 rounding of two shares


def test_a_deep_chain_of_missing_values_ends():
    """2000 questions in a row, each missing: weights shrink below the smallest float64 and the votes remain whole."""
    n = 2000
    # node 0 is the root; then pairs of a leaf (left) and the next question (right)
    feature = np.full(2 * n + 1, -1, np.int32)
    inner = np.array([0, *range(2, 2 * n, 2)])
    feature[inner] = 0
    child = np.empty(2 * n + 1, np.int32)
    child[inner] = inner + 1
    leaf = np.flatnonzero(feature == -1)
    child[leaf] = np.arange(leaf.size)
    forest = Forest(
        feature=feature,
        threshold=np.zeros(2 * n + 1, np.float32),
        child=child,
        left_fraction=np.full(2 * n + 1, 0.5, np.float32),
        votes=np.tile(np.array([[1, 3]], np.float32), (leaf.size, 1)),
        roots=np.zeros(1, np.int64),
        n_features=1,
    )
    assert forest.depth == n
    found = predict_probabilities(forest, np.full((1, 3), np.nan, np.float32))
    np.testing.assert_allclose(found, [[0.25] * 3, [0.75] * 3], rtol=1e-6)  # float32 result
