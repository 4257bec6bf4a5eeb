"""Forests as treelite models and back; treelite's own predictor (GTIL) and scikit-learn importer are the judges."""

import sys

import numpy as np
import pytest
import treelite
import treelite.sklearn
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier, RandomForestRegressor
from treelite.model_builder import Metadata, ModelBuilder, PostProcessorFunc, TreeAnnotation

from gpu_tomoclass.errors import ModelError, ResourceError
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.forest.grow_sklearn import forest_from_sklearn, train_forest
from gpu_tomoclass.forest.grow_weka import train_weka
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.forest.treelite_arrays import forest_from_treelite, treelite_from_forest


def rows(n=400, n_features=7, seed=0):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(n, n_features)).astype(np.float32)
    values[:, 3] = rng.integers(0, 6, n)
    labels = 1 + (values[:, 0] + rng.normal(0, 0.7, n) > 0) + (values[:, 3] > 3)
    return values, labels.astype(np.uint8)


def pixels_on_thresholds(forest, n=3000):
    """Values drawn from the thresholds of each feature, and from the float32 numbers beside them."""
    rng = np.random.default_rng(1)
    pixels = rng.normal(size=(forest.n_features, n)).astype(np.float32)
    for f in forest.used_features():
        on = forest.threshold[forest.feature == f]
        pixels[f] = rng.choice(np.concatenate([on, np.nextafter(on, np.float32(-np.inf)), pixels[f, :20]]), n)
    return pixels


def built(trees, *, n_features=3, n_classes=2, dtype="float32", task="kMultiClf", op="<=", base=0.0, counts=True):
    """A treelite model as cuML makes it: float32, ``<=``, data counts. A tree is a leaf (votes) or a question
    (feature, threshold, rows, left, right); nodes are written breadth first, as cuML does."""
    builder = ModelBuilder(
        threshold_type=dtype,
        leaf_output_type=dtype,
        metadata=Metadata(n_features, task, True, 1, [n_classes], (1, n_classes)),
        tree_annotation=TreeAnnotation(len(trees), [0] * len(trees), [-1] * len(trees)),
        postprocessor=PostProcessorFunc("identity_multiclass"),
        base_scores=[base] * n_classes,
    )
    for tree in trees:
        builder.start_tree()
        level = [(0, tree)]
        number = 1
        while level:
            key, node = level.pop(0)
            builder.start_node(key)
            if isinstance(node, tuple):
                feature, threshold, n_rows, left, right = node
                builder.numerical_test(
                    feature, threshold, default_left=True, opname=op, left_child_key=number, right_child_key=number + 1
                )
                level += [(number, left), (number + 1, right)]
                number += 2
            else:
                *votes, n_rows = node
                builder.leaf(votes)
            if counts:
                builder.data_count(n_rows)
            builder.end_node()
        builder.end_tree()
    return builder.commit()


@pytest.mark.parametrize("n_classes", [2, 3])
def test_scikit_learn_through_treelite_is_scikit_learn(n_classes):
    values, labels = rows()
    labels = np.minimum(labels, n_classes)
    theirs = RandomForestClassifier(25, criterion="entropy", random_state=3).fit(values, labels)
    through, direct = forest_from_treelite(treelite.sklearn.import_model(theirs)), forest_from_sklearn(theirs)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(through, name), getattr(direct, name), err_msg=name)
        assert getattr(through, name).dtype == getattr(direct, name).dtype
    assert through.n_features == 7


def test_a_model_of_cuml_read_by_hand():
    """``value <= 1`` is ``value < nextafter(1)``; the share of rows that went left comes from the data counts."""
    inner = (2, -0.5, 3, [0.25, 0.75, 1], [1.0, 0.0, 2])
    forest = forest_from_treelite(built([(0, 1.0, 8, [0.0, 1.0, 5], inner), [0.5, 0.5, 8]]))
    up = np.nextafter(np.float32([1.0, -0.5]), np.float32(np.inf))
    assert forest.feature.tolist() == [0, -1, 2, -1, -1, -1]
    assert forest.child.tolist() == [1, 0, 3, 1, 2, 3]
    assert forest.roots.tolist() == [0, 5]
    np.testing.assert_array_equal(forest.threshold, [up[0], 0, up[1], 0, 0, 0])
    np.testing.assert_array_equal(forest.left_fraction, np.float32([5 / 8, 0, 1 / 3, 0, 0, 0]))
    assert forest.votes.tolist() == [[0, 1], [0.25, 0.75], [1, 0], [0.5, 0.5]]
    assert forest.votes.dtype == np.float32
    pixels = np.float32([[1, up[0], 2, np.nan], [0, 0, 0, 0], [9, -0.5, 0, 0]])
    missing = (5 / 8 * 0 + 3 / 8 * 1 + 0.5) / 2  # to the left with 5 of 8 rows; right, -0.5 <= 0 goes right
    expected = [(0 + 0.5) / 2, (0.25 + 0.5) / 2, (1 + 0.5) / 2, missing]
    np.testing.assert_allclose(predict_probabilities(forest, pixels)[0], expected, atol=1e-7)  # float32 result


def test_without_counts_a_missing_value_goes_the_default_way():
    forest = forest_from_treelite(built([(0, 1.0, 8, [0.0, 1.0, 5], [1.0, 0.0, 3])], counts=False))
    assert forest.left_fraction.tolist() == [1, 0, 0]


@pytest.mark.parametrize("op", ["<", "<="])
def test_comparisons_on_the_threshold_agree_with_gtil(op):
    # 0.1 is no float32: a float64 threshold between two of them
    for dtype, threshold in (("float32", 0.5), ("float64", 0.1), ("float64", 0.5)):
        model = built([(1, threshold, 2, [1.0, 0.0, 1], [0.0, 1.0, 1])], dtype=dtype, op=op)
        near = np.float32(threshold)
        values = [np.nextafter(near, np.float32(-1)), near, np.nextafter(near, np.float32(1))]
        pixels = np.float32([[0, 0, 0], values, [0, 0, 0]])
        expected = treelite.gtil.predict(model, pixels.T.astype(dtype))[:, 0]
        np.testing.assert_array_equal(predict_probabilities(forest_from_treelite(model), pixels).T, expected)


@pytest.mark.parametrize(
    "grow",
    [
        lambda v, y: train_forest(v, y, n_trees=30),
        lambda v, y: train_forest(v, y, n_trees=30, min_samples_leaf=9, balance=True),
        lambda v, y: train_weka(v, y, n_trees=30),
    ],
    ids=["sklearn", "sklearn-mixed-leaves", "weka"],
)
def test_gtil_predicts_what_we_predict(grow):
    forest = grow(*rows()).forest
    pixels = pixels_on_thresholds(forest)
    model = treelite_from_forest(forest)
    assert (model.num_tree, model.num_feature, model.input_type) == (30, 7, str(forest.votes.dtype))
    theirs = treelite.gtil.predict(model, np.ascontiguousarray(pixels.T, dtype=forest.votes.dtype))[:, 0].T
    ours = predict_probabilities(forest, pixels)
    np.testing.assert_allclose(ours, theirs / theirs.sum(axis=0), atol=1e-6)  # sums in the type of the votes
    again = forest_from_treelite(model)
    np.testing.assert_array_equal(predict_probabilities(again, pixels), ours)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda v, y: treelite.sklearn.import_model(RandomForestRegressor(2).fit(v, y)), "task_type is 1"),
        (lambda v, y: treelite.sklearn.import_model(GradientBoostingClassifier(n_estimators=2).fit(v, y)), "leaves"),
        (lambda v, y: built([(0, 1.0, 2, [1.0, 0.0, 1], [0.0, 1.0, 1])], op=">"), "tree 0 compares otherwise"),
        (lambda v, y: built([[1.0, 0.0, 1]], base=0.25), "base_scores"),
    ],
)
def test_other_models_are_refused(model, said):
    with pytest.raises(ModelError, match=said):
        forest_from_treelite(model(*rows()))


def test_without_treelite(monkeypatch):
    monkeypatch.setitem(sys.modules, "treelite.model_builder", None)
    with pytest.raises(ResourceError, match="treelite is not installed; pip install treelite"):
        treelite_from_forest(train_weka(*rows(), n_trees=2).forest)
