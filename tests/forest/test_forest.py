"""The forest: grown as scikit-learn grows it, walked as the arrays say, refused when the arrays are no forest."""

import dataclasses
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.errors import DataError, ModelError, TomoclassError, UsageError
from gpu_tomoclass.forest import predict
from gpu_tomoclass.forest.arrays import FIELDS, LEAF, Forest
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn, train_forest
from gpu_tomoclass.forest.predict import lead, predict_classes, predict_probabilities


def rows(n=300, n_features=6, n_classes=3, seed=0, levels=12):
    """Few distinct values, so that many lie exactly on thresholds and many rows tie."""
    rng = np.random.default_rng(seed)
    values = rng.integers(0, levels, (n, n_features)).astype(np.float32)
    labels = (values[:, 0] + values[:, 1] + rng.normal(0, 4, n) > levels).astype(int)
    labels += (values[:, 2] > levels * 0.7) * (n_classes - 2)
    return values, (labels * 40 + 5).astype(np.uint8)


def walk(forest, pixel):
    """Plain-Python definition: votes of one pixel, a missing value going both ways."""

    def votes(node, weight):
        if forest.feature[node] < 0:
            return weight * forest.votes[forest.child[node]].astype(np.float64)
        value, left = pixel[forest.feature[node]], int(forest.child[node])
        if np.isnan(value):
            share = float(forest.left_fraction[node])
            return votes(left, weight * share) + votes(left + 1, weight * (1 - share))
        return votes(left if value < forest.threshold[node] else left + 1, weight)

    total = sum(votes(int(root), 1.0) for root in forest.roots)
    return total / total.sum()


@pytest.fixture(scope="module")
def trained():
    return train_forest(*rows(), n_trees=25)


@pytest.mark.parametrize("n_classes", [2, 3, 5])
def test_equals_scikit_learn(n_classes):
    values, labels = rows(n_classes=n_classes, seed=n_classes)
    theirs = RandomForestClassifier(20, max_features=2, criterion="entropy", random_state=7).fit(values, labels)
    forest = forest_from_sklearn(theirs)
    rng = np.random.default_rng(1)
    on = forest.threshold[forest.feature >= 0]
    pixels = np.concatenate([values, rng.choice(on, (200, 6)), np.nextafter(rng.choice(on, (200, 6)), -np.inf)])
    found = predict_probabilities(forest, np.ascontiguousarray(pixels.T))
    # leaf shares are float32 here and float64 there; a mean of 20 keeps half a unit in the last place
    np.testing.assert_allclose(found.T, theirs.predict_proba(pixels), atol=1e-6)
    ours = train_forest(values, labels, n_trees=20, seed=7)
    np.testing.assert_array_equal(ours.forest.threshold, forest.threshold)


@pytest.mark.parametrize(("walkers", "block", "few"), [(None, None, None), (7, 11, 2), (64, 50, 1000)])
def test_equals_the_plain_walk_whatever_the_blocks(trained, monkeypatch, walkers, block, few):
    for name, value in (("WALKERS", walkers), ("BLOCK", block), ("FEW", few)):
        if value is not None:
            monkeypatch.setattr(predict, name, value)
    rng = np.random.default_rng(2)
    pixels = rng.integers(0, 12, (6, 130)).astype(np.float32)
    pixels[rng.random(pixels.shape) < 0.1] = np.nan
    expected = np.array([walk(trained.forest, p) for p in pixels.T]).T
    for n_threads in (1, 2):
        found = predict_probabilities(trained.forest, pixels, n_threads=n_threads)
        np.testing.assert_allclose(found, expected, atol=1e-6)  # float32 result of float64 sums


def test_first_of_equal_classes_wins():
    probabilities = np.array([[0.4, 0.2], [0.4, 0.4], [0.2, 0.4]], np.float32)
    np.testing.assert_array_equal(predict_classes(probabilities, np.array([9, 20, 30], np.uint8)), [9, 20])


def test_restricted_to_used_features(trained):
    forest = trained.forest
    used = forest.used_features()
    pixels = np.random.default_rng(3).integers(0, 12, (6, 50)).astype(np.float32)
    backwards = used[::-1]
    np.testing.assert_array_equal(
        predict_probabilities(forest.restricted(backwards), np.ascontiguousarray(pixels[backwards])),
        predict_probabilities(forest, pixels),
    )
    with pytest.raises(UsageError, match="leave out"):
        forest.restricted(used[1:])


def test_same_seed_same_arrays_whatever_the_threads():
    values, labels = rows(seed=5)
    a, b = (train_forest(values, labels, n_trees=12, seed=3, n_jobs=n).forest for n in (1, 2))
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
    other = train_forest(values, labels, n_trees=12, seed=4).forest
    assert a.n_nodes != other.n_nodes or (a.threshold != other.threshold).any()


def test_out_of_bag_error_and_balance():
    values, labels = rows(seed=6)
    ours = train_forest(values, labels, n_trees=40, balance=True)
    columns = np.unique(labels, return_inverse=True)[1]
    theirs = RandomForestClassifier(
        40, max_features=2, criterion="entropy", class_weight="balanced", oob_score=True, random_state=42
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # weights decide how often a row is drawn: some are never left out
        theirs.fit(values, columns)
    votes = theirs.oob_decision_function_
    voted = np.nan_to_num(votes).sum(axis=1) > 0
    assert ours.n_never_out_of_bag == (~voted).sum()
    assert ours.oob_error == pytest.approx((votes.argmax(axis=1) != columns)[voted].mean())
    np.testing.assert_allclose(
        predict_probabilities(ours.forest, np.ascontiguousarray(values.T)).T, theirs.predict_proba(values), atol=1e-6
    )


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        (lambda v, y: (v[:0], y[:0]), DataError, "row"),
        (lambda v, y: (v, np.full_like(y, 5)), DataError, "class"),
        (lambda v, y: (np.where(v == 3, np.inf, v).astype(np.float32), y), DataError, "infinite"),
        (lambda v, y: (v, np.where(y == 5, 0, y).astype(np.uint8)), DataError, "1"),
    ],
)
def test_unusable_rows(change, kind, words):
    with pytest.raises(kind, match=words):
        train_forest(*change(*rows()), n_trees=2)


def test_impossible_settings():
    for setting in ({"n_trees": 0}, {"max_depth": 0}, {"criterion": "luck"}, {"seed": -1}):
        with pytest.raises(UsageError, match=next(iter(setting))):
            train_forest(*rows(), **setting)


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_corrupt_arrays_are_refused_or_harmless(trained, data):
    """Any entry replaced by any value: a ModelError, or a forest whose every walk ends with finite probabilities."""
    forest = trained.forest
    name = data.draw(st.sampled_from(sorted(FIELDS)))
    array = getattr(forest, name).copy()
    index = tuple(data.draw(st.integers(0, n - 1)) for n in array.shape)
    if array.dtype.kind == "f":
        value = data.draw(st.floats(width=32))
    else:
        top = np.iinfo(array.dtype).max
        value = data.draw(st.integers(-5, forest.n_nodes + 5) | st.sampled_from([-top - 1, top]))
    array[index] = value
    try:
        corrupt = dataclasses.replace(forest, **{name: array})
    except ModelError:
        return
    pixels = np.random.default_rng(0).integers(-1, 13, (6, 40)).astype(np.float32)
    assert np.isfinite(predict_probabilities(corrupt, pixels)).all()


@pytest.mark.parametrize("name", sorted(FIELDS))
def test_wrong_shapes_and_types_are_refused(trained, name):
    array = getattr(trained.forest, name)
    for wrong in (array[:-1], array[:0], array[None], array.astype(np.complex64), array.astype(np.int8)):
        with pytest.raises(TomoclassError, match="not valid"):
            dataclasses.replace(trained.forest, **{name: wrong})


def test_a_cycle_is_refused():
    """Node 1 would send pixels back to node 1: a walk without end."""
    with pytest.raises(ModelError, match="after its parent"):
        Forest(
            feature=np.array([0, 0, -1], np.int32),
            threshold=np.zeros(3, np.float32),
            child=np.array([1, 1, 0], np.int32),
            left_fraction=np.full(3, 0.5, np.float32),
            votes=np.ones((1, 2), np.float32),
            roots=np.array([0], np.int64),
            n_features=1,
        )


def test_shares_of_questions() -> None:
    """By hand: a root sends 3/4 left to a leaf and 1/4 right to a second question; a tree that is a leaf."""
    forest = Forest(
        feature=np.array([0, LEAF, 1, LEAF, LEAF, LEAF], np.int32),
        threshold=np.array([1, 0, 2, 0, 0, 0], np.float32),
        child=np.array([1, 0, 3, 1, 2, 3], np.int32),
        left_fraction=np.array([0.75, 0, 0.5, 0, 0, 0], np.float32),
        votes=np.ones((4, 2), np.float32),
        roots=np.array([0, 5], np.int64),
        n_features=2,
    )
    np.testing.assert_array_equal(forest.question_shares(), [1, 0, 0.25, 0, 0, 0])


def test_lead_of_the_best_class() -> None:
    probabilities = np.array([[0.5, 1, 0.25, 0], [0.125, 0, 0.5, 0], [0.375, 0, 0.25, 0]], np.float32)
    np.testing.assert_array_equal(lead(probabilities), np.array([0.125, 1, 0.25, 0], np.float32))
    np.testing.assert_array_equal(lead(probabilities.reshape(3, 2, 2)).ravel(), lead(probabilities))
