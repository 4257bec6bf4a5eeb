"""scikit-learn's habits. Its own checks run where they ask nothing of a table; the others are named with the reason."""

import pickle

import dask.array
import numpy as np
import pytest
from sklearn.base import clone, is_classifier
from sklearn.exceptions import NotFittedError
from sklearn.utils import estimator_checks
from test_learning import FEATURES, case

import gpu_tomoclass as gt

APPLY = [
    "check_estimator_cloneable", "check_estimator_tags_renamed", "check_valid_tag_types", "check_estimator_repr",
    "check_no_attributes_set_in_init", "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order", "check_parameters_default_constructible", "check_get_params_invariance", "check_set_params",
    "check_estimators_unfitted",
]  # fmt: skip
# All others call ``fit`` with a table (samples, features) and one label for each row, which is no image with marks:
# what they check is checked below, with images.


def classifier(**options):
    return gt.PixelClassifier(FEATURES, **{"n_trees": 10, "device": "numpy", **options})


@pytest.fixture(scope="module")
def fitted():
    return classifier(class_names=["out", "in"]).fit(*case())


@pytest.mark.parametrize("check", APPLY)
def test_checks_of_scikit_learn(check):
    getattr(estimator_checks, check)("PixelClassifier", classifier())


def test_fitted_names(fitted):
    assert is_classifier(fitted)
    assert fitted.classes_.tolist() == [1, 2]
    assert fitted.n_features_in_ == len(fitted.feature_names_in_) == 12
    assert tuple(fitted.feature_names_in_) == gt.FeatureBank(FEATURES).channels
    assert 0.9 < fitted.oob_score_ == 1 - fitted.model_.training["oob_error"] <= 1
    assert sum(fitted.feature_importances_.values()) == pytest.approx(1)
    assert [c.name for c in fitted.model_.classes] == ["out", "in"]


def test_predictions_agree_with_each_other(fitted):
    volume, marks = case()
    labels, probabilities = fitted.predict(volume), fitted.predict_proba(volume)
    assert (labels.dtype, labels.shape) == (np.uint8, volume.shape)
    assert (probabilities.dtype, probabilities.shape) == (np.float32, (*volume.shape, 2))
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-6)  # each is rounded to float32
    np.testing.assert_array_equal(fitted.classes_[probabilities.argmax(axis=-1)], labels)
    np.testing.assert_array_equal(fitted.predict(volume[2]), labels[2])
    np.testing.assert_array_equal(fitted.predict([volume, volume[2]])[1], labels[2])
    right = (labels == marks)[marks != 0].mean()
    assert fitted.score(volume, marks) == right
    assert fitted.score([volume, volume], [marks, marks]) == right


def test_several_images_of_several_shapes():
    (a, marks_a), (b, marks_b) = case(1), case(2, shape=(5, 30, 40))
    together = classifier().fit([a, b], [marks_a, marks_b])
    expected = gt.train(a, marks_a, also=[(b, marks_b)], features=FEATURES, n_trees=10, device="numpy")
    np.testing.assert_array_equal(together.model_.forest.threshold, expected.forest.threshold)
    planes = classifier().fit([a[1], b[4]], [marks_a[1], marks_b[4]])
    assert planes.predict(a[1]).shape == a[1].shape
    with pytest.raises(gt.errors.UsageError, match="2 images and 1 label images"):
        classifier().fit([a, b], [marks_a])
    with pytest.raises(gt.errors.ModelError, match="shape"):
        classifier().fit(a, marks_b)


def test_settings_are_copied_not_shared_and_fit_changes_none(fitted):
    copy = clone(fitted)
    assert copy.get_params() == fitted.get_params()
    assert not hasattr(copy, "model_")
    with pytest.raises(NotFittedError):
        copy.predict(case()[0])
    with_device = classifier(device=gt.choose_device("numpy"))
    assert clone(with_device).device is with_device.device
    before = with_device.get_params()
    assert with_device.fit(*case()) is with_device
    assert with_device.get_params() == before
    first = with_device.model_.hash
    assert with_device.fit(*case()).model_.hash == first  # again from the start, and the same


def test_random_state():
    volume, marks = case()

    def trees(state):
        return classifier(random_state=state).fit(volume, marks).model_.forest.threshold

    np.testing.assert_array_equal(trees(3), trees(3))
    np.testing.assert_array_equal(trees(np.random.RandomState(3)), trees(np.random.RandomState(3)))
    assert trees(3).tolist() != trees(4).tolist()


def test_saved_loaded_pickled(fitted, tmp_path):
    volume, _ = case()
    fitted.save(tmp_path / "m.tcm")
    loaded = gt.PixelClassifier.load(tmp_path / "m.tcm", device="numpy")
    for other in (loaded, pickle.loads(pickle.dumps(fitted))):
        np.testing.assert_array_equal(other.predict(volume), fitted.predict(volume))
    assert loaded.n_trees == 10
    assert loaded.oob_score_ == fitted.oob_score_
    with pytest.raises(NotFittedError):
        classifier().save(tmp_path / "n.tcm")


def test_predict_in_map_blocks(fitted):
    volume, _ = case()
    blocks = dask.array.from_array(volume, chunks=(2, -1, -1))
    labels = blocks.map_blocks(fitted.predict, dtype=np.uint8)
    np.testing.assert_array_equal(labels.compute(), fitted.predict(volume))


def test_wrong_input_is_refused_by_name():
    volume, marks = case()
    with pytest.raises(gt.errors.DataError, match="has 1 axes"):
        classifier().fit(volume[0, 0], marks[0, 0])
    with pytest.raises(gt.errors.DataError, match="holds no labels"):
        classifier().fit(volume, np.zeros_like(marks))
    with pytest.raises(gt.errors.DataError, match="labels are whole numbers"):
        classifier().fit(volume, marks + 0.5)
    with pytest.raises(gt.errors.DataError, match="nothing to score"):
        classifier().fit(volume, marks).score(volume, np.zeros_like(marks))
