"""Comparison with the truth: scores against scikit-learn and by hand, streaming, refusals."""

import json

import numpy as np
import pytest
from memory_volume import CountedVolume
from sklearn import metrics

from gpu_tomoclass.classes import LabelClass, default_classes
from gpu_tomoclass.errors import DataError, ModelError, UsageError
from gpu_tomoclass.labels.evaluate import Confusion, compare_volumes


@pytest.fixture
def pair():
    """Truth and labels over the values 1, 2, 5, 255, four planes."""
    rng = np.random.default_rng(7)
    values = np.array([1, 2, 5, 255], np.uint8)
    truth = values[rng.choice(4, size=(4, 30, 41), p=(0.6, 0.25, 0.1, 0.05))]
    labels = np.where(rng.random(truth.shape) < 0.3, values[rng.integers(0, 4, truth.shape)], truth)
    return truth, labels


def test_scores_are_those_of_scikit_learn(pair):
    truth, labels = pair
    confusion = Confusion()
    for z in range(4):
        confusion.update(truth[z], labels[z])
    flat = truth.ravel(), labels.ravel()
    assert confusion.values == (1, 2, 5, 255)
    assert confusion.total == truth.size
    np.testing.assert_array_equal(confusion.matrix, metrics.confusion_matrix(*flat))
    assert confusion.accuracy == pytest.approx(metrics.accuracy_score(*flat), rel=1e-12)
    expected = {
        "iou": metrics.jaccard_score(*flat, average=None),
        "dice": metrics.f1_score(*flat, average=None),
        "precision": metrics.precision_score(*flat, average=None),
        "recall": metrics.recall_score(*flat, average=None),
    }
    for name, values in expected.items():
        np.testing.assert_allclose(getattr(confusion, name), values, rtol=1e-12)
    assert confusion.mean_iou == pytest.approx(metrics.jaccard_score(*flat, average="macro"), rel=1e-12)
    assert confusion.mean_dice == pytest.approx(metrics.f1_score(*flat, average="macro"), rel=1e-12)
    np.testing.assert_allclose(confusion.true_fractions, [(truth == v).mean() for v in confusion.values])
    np.testing.assert_allclose(confusion.predicted_fractions, [(labels == v).mean() for v in confusion.values])


def test_a_case_by_hand():
    truth = np.array([[1, 1, 1, 1], [2, 2, 2, 3]], np.uint8)
    labels = np.array([[1, 1, 1, 2], [2, 2, 1, 1]], np.uint8)
    confusion = Confusion()
    confusion.update(truth, labels)
    assert confusion.matrix.tolist() == [[3, 1, 0], [1, 2, 0], [1, 0, 0]]
    assert confusion.accuracy == 5 / 8
    np.testing.assert_allclose(confusion.iou, [3 / 6, 2 / 4, 0])
    np.testing.assert_allclose(confusion.dice, [6 / 9, 4 / 6, 0])
    np.testing.assert_allclose(confusion.recall, [3 / 4, 2 / 3, 0])
    np.testing.assert_allclose(confusion.precision, [3 / 5, 2 / 3, np.nan])  # nothing was given to class 3
    assert confusion.mean_iou == pytest.approx(1 / 3)


def test_classes_absent_from_both_do_not_count_in_means():
    confusion = Confusion(default_classes(["matrix", "inset", "never"]))
    confusion.update(np.array([1, 1, 2]), np.array([1, 1, 1]))
    np.testing.assert_allclose(confusion.iou, [2 / 3, 0, np.nan])
    assert confusion.mean_iou == pytest.approx(1 / 3)
    assert confusion.mean_dice == pytest.approx(0.4)
    assert confusion.names == ("matrix", "inset", "never")


def test_nothing_compared_is_nan_not_an_error():
    confusion = Confusion()
    confusion.update(np.ones((2, 2), np.uint8), np.ones((2, 2), np.uint8), mask=np.zeros((2, 2), bool))
    assert confusion.values == ()
    assert np.isnan(confusion.accuracy)
    assert np.isnan(confusion.mean_iou)
    assert confusion.to_dict()["accuracy"] is None


def test_a_prediction_of_no_class_counts_as_wrong_without_being_a_class():
    confusion = Confusion()
    confusion.update(np.array([1, 1, 2, 2]), np.array([1, 0, 2, 0]))
    assert confusion.values == (1, 2)
    assert confusion.accuracy == 0.5
    assert confusion.unclassified.tolist() == [1, 1]
    np.testing.assert_allclose(confusion.recall, 0.5)
    np.testing.assert_allclose(confusion.precision, 1)
    chosen = Confusion([2, 1])
    chosen.update(np.array([1, 1, 2]), np.array([1, 9, 2]))
    assert chosen.matrix.tolist() == [[1, 0], [0, 1]]  # rows and columns in the order given
    assert chosen.unclassified.tolist() == [0, 1]
    assert chosen.accuracy == pytest.approx(2 / 3)


def test_zero_is_a_class_where_the_truth_has_it():
    confusion = Confusion()
    confusion.update(np.array([0, 0, 1]), np.array([0, 1, 1]))
    assert confusion.values == (0, 1)
    np.testing.assert_allclose(confusion.iou, 0.5)


def test_a_mask_leaves_voxels_out(pair):
    truth, labels = pair
    mask = np.random.default_rng(0).random(truth.shape) < 0.5
    masked, selected = Confusion(), Confusion()
    masked.update(truth, labels, mask=mask)
    selected.update(truth[mask], labels[mask])
    np.testing.assert_array_equal(masked.matrix, selected.matrix)
    assert masked.total == mask.sum()


def test_counts_do_not_overflow():
    confusion = Confusion()
    confusion.update(np.array([1, 2]), np.array([1, 1]))
    confusion._counts *= 10**14  # as after 2e14 voxels
    assert confusion.total == 2 * 10**14
    assert confusion.accuracy == 0.5


def test_to_dict_is_json_without_nan():
    confusion = Confusion(default_classes(["a", "b"]))
    confusion.update(np.array([1, 1]), np.array([1, 0]))
    data = json.loads(json.dumps(confusion.to_dict(), allow_nan=False))
    assert data["voxels"] == 2
    assert data["unclassified"] == 1
    assert data["classes"][0] == {
        "value": 1, "name": "a", "dice": pytest.approx(2 / 3), "iou": 0.5, "precision": 1, "recall": 0.5,
        "true_fraction": 1, "predicted_fraction": 0.5,
    }  # fmt: skip
    assert data["classes"][1]["dice"] is None
    assert data["matrix"] == [[1, 0], [0, 0]]


@pytest.mark.parametrize("dtype", [np.int16, np.uint32, np.float32, bool])
def test_whole_numbers_of_any_type_are_labels(dtype):
    truth = np.array([[1, 1], [0, 1]])
    confusion = Confusion()
    confusion.update(truth.astype(dtype), truth.astype(dtype))
    assert confusion.matrix.tolist() == [[1, 0], [0, 3]]


@pytest.mark.parametrize("bad", [np.array([1, 300]), np.array([1, -1]), np.array([1.0, 0.5]), np.array([1.0, np.nan])])
def test_other_values_are_no_labels(bad):
    good = np.array([1, 1], np.uint8)
    for arguments in ((good, bad), (bad, good)):
        with pytest.raises(DataError, match="whole numbers of 0 to 255"):
            Confusion().update(*arguments)


def test_refusals_of_arrays_and_classes():
    one, two = np.ones((2, 2), np.uint8), np.ones((2, 3), np.uint8)
    with pytest.raises(ModelError, match=r"\(2, 2\), \(2, 3\)"):
        Confusion().update(one, two)
    with pytest.raises(ModelError, match="one shape"):
        Confusion().update(one, one, mask=np.ones(4, bool))
    with pytest.raises(DataError, match=r"values \[1\], which are none of the classes \[2, 3\]"):
        Confusion([2, 3]).update(one, one)
    for classes in ([], [1, 1], [256]):
        with pytest.raises(UsageError):
            Confusion(classes)


def test_refused_planes_leave_the_counts_alone():
    confusion = Confusion([1])
    with pytest.raises(DataError):
        confusion.update(np.array([1, 2]), np.array([1, 1]))
    assert confusion.total == 0


def test_volumes_are_read_plane_by_plane(pair):
    truth, labels = map(CountedVolume, pair)
    expected = Confusion()
    expected.update(*pair)
    result = compare_volumes(labels, truth)
    np.testing.assert_array_equal(result.matrix, expected.matrix)
    assert truth.planes_read == labels.planes_read == [0, 1, 2, 3]


def test_volumes_some_planes_ignored_values_and_another_numbering(pair):
    truth, labels = pair
    stored = truth.copy()
    stored[truth == 5] = 0  # this truth calls class 5 "0"
    stored[truth == 255] = 9  # and has 9 where it does not know
    result = compare_volumes(CountedVolume(labels), CountedVolume(stored), planes=[1, 3], ignore=[9], mapping={0: 5})
    known = truth[[1, 3]] != 255
    expected = Confusion()
    expected.update(truth[[1, 3]][known], labels[[1, 3]][known])
    assert result.to_dict() == expected.to_dict()


def test_names_come_from_the_labels_first(pair):
    truth, labels = pair
    ours = CountedVolume(labels, classes=[LabelClass(1, "rubber", (0, 0, 0))])
    theirs = CountedVolume(truth, classes=[LabelClass(1, "other", (0, 0, 0)), LabelClass(5, "silica", (0, 0, 0))])
    assert compare_volumes(ours, theirs).names == ("rubber", "class 2", "silica", "class 255")


def test_volumes_that_do_not_fit(pair):
    truth, labels = pair
    with pytest.raises(ModelError, match=r"labels.tif: is \(4, 41, 30\).*truth.tif is \(4, 30, 41\)"):
        compare_volumes(
            CountedVolume(labels.transpose(0, 2, 1), name="labels.tif"), CountedVolume(truth, name="truth.tif")
        )
    grey = labels.astype(np.uint16)
    grey[2, 3, 4] = 1000
    with pytest.raises(DataError, match=r"grey.tif: plane 2"):
        compare_volumes(CountedVolume(grey, name="grey.tif"), CountedVolume(truth))
    with pytest.raises(UsageError, match="mapping"):
        compare_volumes(CountedVolume(labels), CountedVolume(truth), mapping={0: 300})
