"""Cross-validation: groups stay together, and scikit-learn on the same folds finds the same."""

import dataclasses
import json

import numpy as np
import pytest
from quality_cases import made_rows
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support
from sklearn.model_selection import PredefinedSplit, cross_val_predict

from gpu_tomoclass.device import choose_device
from gpu_tomoclass.errors import DataError, UsageError
from gpu_tomoclass.forest.grow_sklearn import train_forest
from gpu_tomoclass.training.cross_validation import class_predictor, cross_validate, family_channels, make_folds

FOREST = {"n_trees": 20, "n_jobs": 1}


@pytest.fixture(scope="module")
def rows():
    return made_rows(spread=2.0)


def fold_numbers(rows, grouping, *, n_folds, seed):
    number = np.empty(len(rows.labels), dtype=int)
    folds = make_folds(rows, rows.groups(grouping), grouping=grouping, n_folds=n_folds, seed=seed)
    for i, (seen, held_out) in enumerate(folds):
        assert not np.intersect1d(seen, held_out).size
        number[held_out] = i
    return number


def test_scikit_learn_finds_the_same(rows):
    ours = cross_validate(rows, engine="sklearn", n_folds=3, seed=7, **FOREST)
    theirs = cross_val_predict(
        RandomForestClassifier(n_estimators=20, criterion="entropy", max_features=2, random_state=7),
        rows.values,
        rows.labels,
        cv=PredefinedSplit(fold_numbers(rows, "stroke", n_folds=3, seed=7)),
    )
    np.testing.assert_array_equal(ours.predicted, theirs)
    np.testing.assert_array_equal(ours.confusion.matrix, confusion_matrix(rows.labels, theirs))
    expected = precision_recall_fscore_support(rows.labels, theirs)
    for found, reference in zip((ours.confusion.precision, ours.confusion.recall, ours.confusion.dice), expected,
                                strict=False):  # fmt: skip
        np.testing.assert_allclose(found, reference)
    whole = RandomForestClassifier(
        n_estimators=20, criterion="entropy", max_features=2, random_state=7, oob_score=True
    ).fit(rows.values, rows.labels)
    judged = ~np.isnan(whole.oob_decision_function_).any(axis=1)
    right = whole.classes_[whole.oob_decision_function_.argmax(axis=1)] == rows.labels
    assert ours.oob_error == pytest.approx(1 - right[judged].mean())
    json.dumps(ours.to_dict())


@pytest.mark.parametrize("grouping", ["stroke", "plane", "volume"])
def test_groups_are_held_out_whole(rows, grouping):
    n_folds = 2
    number = fold_numbers(rows, grouping, n_folds=n_folds, seed=1)
    key = {
        "stroke": rows.places[:, :3],  # a stroke is a run along x
        "plane": rows.places[:, :2],
        "volume": rows.places[:, :1],
    }[grouping]
    groups, of_row = np.unique(key, axis=0, return_inverse=True)
    assert len(groups) == np.unique(rows.groups(grouping)).size
    for i in range(len(groups)):
        assert np.unique(number[of_row.ravel() == i]).size == 1
    assert set(number) == set(range(n_folds))


def test_strokes_touch_diagonally_and_differ_by_class_and_plane():
    """Two diagonal neighbours are one stroke; another class, plane or volume is another."""
    rows = made_rows(n_strokes=3, length=2)
    places = np.array([[0, 0, 5, 5], [0, 0, 6, 6], [0, 0, 5, 6], [0, 0, 6, 9], [0, 1, 5, 5], [1, 0, 5, 5]], np.int32)
    found = dataclasses.replace(rows, places=places, labels=np.array([1, 1, 2, 1, 1, 1], np.uint8)).groups("stroke")
    assert found[0] == found[1]
    assert np.unique(found).size == 5


def test_strokes_that_resemble_themselves_flatter_the_out_of_bag_error():
    """The reason for groups: here the strokes differ as much as the classes do."""
    rows = made_rows(spread=4.0, n_strokes=24)
    found = cross_validate(rows, engine="sklearn", **FOREST)
    assert found.oob_error < 0.02
    assert 1 - found.confusion.accuracy > 0.1


def test_importance_is_that_of_the_useful_family(rows):
    found = cross_validate(rows, importance=True, engine="sklearn", **FOREST)
    chance = found.confusion.accuracy - 1 / 3
    assert next(iter(found.importance)) == "median"
    assert found.importance["median"] > 0.5 * chance
    assert all(abs(found.importance[name]) < 0.1 for name in ("original", "gaussian_blur", "neighbors"))
    assert set(found.importance) == set(family_channels(rows.bank))


def test_a_family_that_no_forest_asks_has_no_importance():
    rows = made_rows()
    values = rows.values.copy()
    values[:, family_channels(rows.bank)["neighbors"]] = 1.0
    found = cross_validate(dataclasses.replace(rows, values=values), importance=True, n_folds=2, **FOREST)
    assert found.importance["neighbors"] == 0.0


def test_devices_predict_the_same_classes(rows):
    trained = train_forest(rows.values, rows.labels, n_trees=10)
    features = np.ascontiguousarray(made_rows(seed=5).values.T)
    on_numpy = class_predictor(trained.forest, trained.class_values, device=choose_device("numpy"))(features)
    on_device = class_predictor(trained.forest, trained.class_values, device=choose_device("native"))(features)
    np.testing.assert_array_equal(on_device, on_numpy)
    assert set(on_numpy) == {1, 2, 3}


def test_progress_and_engines(rows):
    steps = []
    found = cross_validate(rows, n_folds=3, progress=lambda done, n: steps.append((done, n)), **FOREST)
    assert steps == [(0, 4), (1, 4), (2, 4), (3, 4), (4, 4)]
    assert found.n_folds == len(found.fold_accuracy) == 3
    assert found.n_groups == 12
    assert found.confusion.total == len(rows.labels)


def test_too_few_groups_are_counted(rows):
    with pytest.raises(DataError, match="12 strokes, 13 folds"):
        cross_validate(rows, n_folds=13, **FOREST)
    with pytest.raises(DataError, match=r"2 volumes, 5 folds.*group by strokes"):
        cross_validate(rows, grouping="volume", n_folds=5, **FOREST)
    one = dataclasses.replace(rows, places=np.where(np.arange(4) > 0, rows.places, 0))
    with pytest.raises(DataError, match="1 volume, 2 folds"):
        cross_validate(one, grouping="volume", n_folds=2, **FOREST)


def test_a_class_in_one_fold_is_named(rows):
    """Class c on one stroke only: the forest that must judge it would not know it."""
    last = rows.places[rows.labels == 3][0, 2]
    keep = (rows.labels != 3) | (rows.places[:, 2] == last)
    few = dataclasses.replace(rows, values=rows.values[keep], labels=rows.labels[keep], places=rows.places[keep])
    with pytest.raises(DataError, match="class c is marked on 1 stroke, all in one fold"):
        cross_validate(few, n_folds=3, **FOREST)


def test_nonsense_is_refused(rows):
    with pytest.raises(UsageError, match="1 folds"):
        cross_validate(rows, n_folds=1)
    with pytest.raises(UsageError, match="stroke, plane, volume"):
        cross_validate(rows, grouping="pixel")
