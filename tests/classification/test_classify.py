"""Labels do not depend on how the planes are run; only what the forest uses is computed; failures leave nothing."""

import dataclasses

import numpy as np
import pytest
from memory_volume import CountedVolume
from sklearn.ensemble import RandomForestClassifier

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification.classify_volume import classify
from gpu_tomoclass.classification.on_device import Classifier
from gpu_tomoclass.device import NumpyDevice
from gpu_tomoclass.errors import DataError, ModelError, ResourceError, UsageError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.features.prepare import prepare_plane
from gpu_tomoclass.forest.predict import predict_probabilities
from gpu_tomoclass.model.model import Model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.formats import product_name
from gpu_tomoclass.volumes.opening import create_volume, open_volume


@pytest.fixture(scope="module")
def volume():
    rng = np.random.default_rng(3)
    array = rng.integers(0, 400, (9, 32, 28)).astype(np.uint16)
    array[:, 8:24, 6:22] += 300
    return CountedVolume(array)


@pytest.fixture(scope="module")
def annotation(volume):
    z, y, x = np.meshgrid([2, 6], np.arange(2, 30, 3), np.arange(2, 26, 2), indexing="ij")
    z, y, x = z.ravel(), y.ravel(), x.ravel()
    inside = (y >= 8) & (y < 24) & (x >= 6) & (x < 22)
    classes = default_classes(["a", "b", "out", "d", "e", "f", "in"])
    return Annotation.from_voxels(z, y, x, np.where(inside, 7, 3), shape=volume.shape, classes=classes)


@pytest.fixture(scope="module")
def model(volume, annotation):
    volume.planes_read.clear()
    bank = FeatureBank.create(["gaussian_blur", "sobel_filter", "mean", "neighbors"], sigma_max=4)
    result = train(volume, annotation, bank=bank, n_trees=30, engine="sklearn")
    assert set(volume.planes_read) <= {0, 2, 4, 6, 8}  # marked planes, and three for the fingerprint
    return result.model


def test_training_rows_are_the_marked_pixels(volume, annotation, model):
    """The forest is the one that scikit-learn grows on features computed by hand, plane by plane."""
    rows, labels = [], []
    for z in (2, 6):
        features = model.bank.compute(volume.array[z])
        y, x, label = annotation.on_plane(z)
        rows.append(features[:, y, x].T)
        labels.append(label)
    rows, labels = np.concatenate(rows), np.concatenate(labels)
    forest = RandomForestClassifier(30, max_features=2, criterion="entropy", random_state=42).fit(rows, labels)
    pixels = model.bank.compute(volume.array[4]).reshape(model.bank.n_channels, -1)
    expected = forest.predict_proba(pixels.T).T.reshape(2, 32, 28)
    _, found = Classifier(model, NumpyDevice()).classify(volume.array[4:5].astype(np.float32), want_probabilities=True)
    found = found[:, 0]
    np.testing.assert_allclose(found, expected, atol=1e-6)  # votes are summed in float32 steps
    assert model.training["counts"] == {"out": int((labels == 3).sum()), "in": int((labels == 7).sum())}


def test_labels_are_class_values_whatever_the_run(volume, model, tmp_path):
    whole = tmp_path / "whole.tif"
    classify(volume, model, output=whole, device=NumpyDevice(threads=1), probabilities="float32")
    with open_volume(whole) as labels, open_volume(tmp_path / "whole_probabilities.tif", channel=0) as first:
        reference = np.stack([p for _, p in labels.planes()])
        probability = np.stack([p for _, p in first.planes()])
    assert set(np.unique(reference)) == {3, 7}
    np.testing.assert_array_equal(reference == 3, probability >= 0.5)  # two classes, the lower value wins ties
    for workers, planes in ((3, None), (2, (0, 4)), (2, (4, 9)), (1, (8, 9))):
        path = tmp_path / f"{workers}{planes}.tif"
        classify(volume, model, output=path, device=NumpyDevice(threads=workers), planes=planes)
        start, stop = planes or (0, 9)
        with open_volume(path) as labels:
            np.testing.assert_array_equal(np.stack([p for _, p in labels.planes()]), reference[start:stop])


def test_only_used_channels_are_computed(volume, model):
    used = model.forest.used_features()
    families = {b.family for b in model.bank.blocks for i in used if b.start <= i < b.stop}
    only = [i for i, name in enumerate(model.bank.channels) if name.startswith("Mean")]
    classifier = Classifier(model, NumpyDevice())
    assert {b.family for b in classifier.blocks} == families
    # a forest that asks one family only: the blocks of the others are not touched
    forest = model.forest
    feature = np.where(forest.feature >= 0, only[0], -1).astype(np.int32)
    narrow_forest = dataclasses.replace(forest, feature=feature)
    narrow = Model(narrow_forest, model.bank, model.classes, model.intensity)
    timings = {}
    image = prepare_plane(volume, 0, scale=model.intensity).image
    narrow_classifier = Classifier(narrow, NumpyDevice())
    _, probabilities = narrow_classifier.classify(image[np.newaxis], want_probabilities=True, timings=timings)
    assert set(timings) == {"mean", "forest"}
    full = model.bank.compute(image).reshape(model.bank.n_channels, -1)
    np.testing.assert_array_equal(probabilities.reshape(2, -1), predict_probabilities(narrow.forest, full))


def test_a_damaged_plane_leaves_no_output(volume, model, tmp_path):
    broken = CountedVolume(volume.array)
    broken.broken = (1, 5)
    with pytest.raises(DataError, match="plane 1 is damaged"):
        classify(broken, model, output=tmp_path / "x.tif", device=NumpyDevice(threads=2), planes=(1, 4))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(DataError, match="plane 5 is damaged") as caught:
        classify(broken, model, output=tmp_path / "x.tif", device=NumpyDevice(threads=1), planes=(2, 9))
    assert [p.name for p in tmp_path.iterdir()] == ["x.tif.partial"]  # the planes before it are not lost
    assert "repeat the same command" in caught.value.__notes__[0]


def test_missing_planes_are_unlabelled_and_listed(volume, model, tmp_path):
    broken = CountedVolume(volume.array, allow_missing_planes=True)
    broken.broken = (5,)
    result = classify(broken, model, output=tmp_path / "x.tif", device=NumpyDevice(threads=2))
    with open_volume(tmp_path / "x.tif") as labels:
        assert (labels.plane(5) == 0).all()
        assert (labels.plane(4) > 0).all()
    assert result.counts["unlabelled"] == 32 * 28
    assert any("filled with zeros: 5" in note for note in result.notes)


def test_models_that_do_not_fit_are_refused(volume, model, annotation, tmp_path):
    with pytest.raises(ModelError, match=r"uint16.*uint8"):
        classify(CountedVolume((volume.array // 4).astype(np.uint8)), model, output=tmp_path / "x.tif")
    sized = CountedVolume(volume.array, voxel_size=(1.0, 1.0, 1.0))
    trained = train(sized, annotation, bank=FeatureBank.create(["gaussian_blur"]), n_trees=5).model
    other = CountedVolume(volume.array, voxel_size=(1.0, 2.0, 2.0))
    with pytest.raises(ModelError, match=r"2 x 2 nm.*1 x 1 nm.*--force"):
        classify(other, trained, output=tmp_path / "x.tif")
    assert any("2 x 2 nm" in n for n in classify(other, trained, output=tmp_path / "x.tif", force=True).notes)


@pytest.mark.parametrize("planes", [(-1, 3), (3, 3), (5, 2), (0, 10)])
def test_impossible_planes(volume, model, tmp_path, planes):
    with pytest.raises(UsageError, match="0:9"):
        classify(volume, model, output=tmp_path / "x.tif", planes=planes)


def test_a_volume_that_changes_during_the_run_is_refused(volume, model, tmp_path):
    path = tmp_path / "v.tif"
    with create_volume(path, shape=volume.shape, dtype=volume.dtype) as writer:
        for z, plane in volume.planes():
            writer.write_plane(z, plane)
    with open_volume(path) as source:

        def touch(done, total):
            if done == 2:
                with path.open("ab") as file:
                    file.write(b"more")

        with pytest.raises(DataError, match="changed during the run"):
            classify(source, model, output=tmp_path / "out.tif", device=NumpyDevice(threads=1), progress=touch)
    assert not (tmp_path / "out.tif").exists()


def test_names_of_products():
    assert product_name("a/labels.ome.zarr", "probabilities") == "a/labels_probabilities.ome.zarr"
    assert product_name("a.b/x.tif", "uncertainty") == "a.b/x_uncertainty.tif"
    assert product_name("a/l.zarr/", "probabilities") == "a/l_probabilities.zarr"


def test_swapped_axes_and_too_large_scales_are_noted(volume, model, annotation, tmp_path):
    turned = CountedVolume(np.ascontiguousarray(volume.array.transpose(1, 0, 2)[:, :, :]))
    assert sorted(turned.shape) == sorted(volume.shape)
    result = classify(turned, model, output=tmp_path / "x.tif", planes=(0, 1))
    assert any("--axes" in note for note in result.notes)
    bank = FeatureBank.create(["gaussian_blur", "laplacian"], sigma_min=1, sigma_max=16)
    notes = train(volume, annotation, bank=bank, n_trees=3).notes
    # planes of 32 x 28: the Laplacian at 8 and 16 reaches 33 and 65, the blur at 16 (std 6.4) only 27
    assert any("laplacian 8, laplacian 16" in note and "gaussian" not in note for note in notes)


@pytest.mark.parametrize("name", ["x.tif", "x.ome.tif", "x.mrc", "x.ome.zarr"])
def test_the_place_goes_along_with_the_planes(volume, model, tmp_path, name):
    """Labels and probabilities of planes 2 to 4 lie two planes further in z than the volume."""
    there = CountedVolume(volume.array)
    there.voxel_size, there.metadata = (2.0, 1.0, 0.5), {"place": {"origin_nm": [30.0, 20.0, 10.0], "start": [0, 0, 0]}}
    made = classify(there, model, output=tmp_path / name, planes=(2, 5), probabilities="float32", force=True)
    for path in (made.path, *made.other_paths):
        with open_volume(path, channel=0 if "prob" in path and not path.endswith(".mrc") else None) as found:
            assert found.metadata["place"]["origin_nm"] == pytest.approx([34, 20, 10])


def test_products_must_fit_together(volume, model, tmp_path, monkeypatch):
    """Each by itself would: 9 x 32 x 28 labels (8064 bytes), shares of two classes, and an uncertainty."""
    large = CountedVolume(volume.array)
    monkeypatch.setattr("gpu_tomoclass.outputs.disk.free_bytes", lambda target: 100_000)
    with pytest.raises(ResourceError, match=r"needs 104\.8 KB, and 100\.0 KB are free"):
        classify(large, model, output=tmp_path / "x.tif", probabilities="float32", uncertainty="margin")
    assert large.planes_read == []
    assert not list(tmp_path.iterdir())
