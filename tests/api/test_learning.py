"""The functions of the front door give what the command line gives, from files and from arrays alike."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile

import gpu_tomoclass as gt

FEATURES = ["gaussian_blur", "sobel_filter"]


def case(seed=0, shape=(6, 30, 34)):
    """Volume uint16 and strokes on planes 1 and 4: a bright box in noise."""
    rng = np.random.default_rng(seed)
    volume = rng.integers(0, 300, shape).astype(np.uint16)
    volume[:, 8:22, 8:24] += 250
    strokes = np.zeros(shape, np.uint8)
    for z in (1, 4):
        strokes[z, 11:20:2, 10:22] = 2
        strokes[z, [2, 26], 3:30] = 1
    return volume, strokes


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("learning")
    for name, array in zip(("volume.tif", "strokes.tif"), case(), strict=True):
        tifffile.imwrite(folder / name, array, imagej=True, metadata={"axes": "ZYX"})
    return folder


@pytest.fixture(scope="module")
def model(files):
    return gt.train(files / "volume.tif", files / "strokes.tif", features=FEATURES, n_trees=12, device="numpy",
                    class_names=["out", "in"])  # fmt: skip


def test_the_same_as_the_command_line(files, model, tmp_path):
    """Two processes and three ways: the forest, the labels and the features are equal."""
    program = (
        "from gpu_tomoclass.cli import run; import sys; sys.exit(run(sys.argv[1].split()) or run(sys.argv[2].split()))"
    )
    train = ("train volume.tif strokes.tif -o m.tcm --features gaussian_blur,sobel_filter --trees 12 --device numpy "
             "--class-names out,in --no-cache -q")  # fmt: skip
    classify = f"classify volume.tif m.tcm -o {tmp_path}/labels.tif --device numpy -q"
    done = subprocess.run([sys.executable, "-c", program, train, classify], cwd=files, env=os.environ, text=True,
                          capture_output=True, check=False)  # fmt: skip
    assert done.returncode == 0, done.stderr
    ours = gt.load_model(files / "m.tcm")
    assert ours.hash == model.hash
    written = np.asarray(gt.open_volume(tmp_path / "labels.tif"))
    volume, strokes = case()
    np.testing.assert_array_equal(model.predict(volume, device="numpy").labels, written)
    clf = gt.PixelClassifier(FEATURES, n_trees=12, device="numpy").fit(volume, strokes)
    np.testing.assert_array_equal(clf.predict(volume), written)
    np.testing.assert_array_equal(clf.model_.forest.threshold, model.forest.threshold)


def test_arrays_in_place_of_files(files, model):
    volume, strokes = case()
    label_volume = gt.ArrayVolume(strokes)
    annotation = gt.load_annotation(strokes, volume_shape=volume.shape)
    for marks in (strokes, label_volume, annotation, [files / "strokes.tif"]):
        other = gt.train(volume, marks, features=gt.FeatureBank.create(FEATURES), n_trees=12, device="numpy")
        for name in ("feature", "threshold", "child", "votes"):
            np.testing.assert_array_equal(getattr(other.forest, name), getattr(model.forest, name))
    part = gt.train(volume, strokes[1::3], every=3, start=1, features=FEATURES, n_trees=12, device="numpy")
    np.testing.assert_array_equal(part.forest.threshold, model.forest.threshold)


def test_several_volumes_may_share_the_classes():
    (a, marks_a), (b, marks_b) = case(1), case(2)
    only_one, only_two = np.where(marks_a == 1, 1, 0), np.where(marks_b == 2, 2, 0)
    model = gt.train(a, only_one, also=[(b, only_two)], features=FEATURES, n_trees=5, device="numpy")
    assert [c.value for c in model.classes] == [1, 2]
    assert model.training["counts"] == {"class 1": int((only_one == 1).sum()), "class 2": int((only_two == 2).sum())}
    with pytest.raises(gt.errors.DataError, match="holds one class only"):
        gt.train(a, only_one, features=FEATURES)


def test_rows_are_saved_and_trained_from(files, model, tmp_path):
    path = tmp_path / "rows.arff"
    gt.train(files / "volume.tif", files / "strokes.tif", features=FEATURES, n_trees=12, device="numpy", save_rows=path)
    again = gt.train_from_table(path, n_trees=12)
    np.testing.assert_array_equal(again.forest.threshold, model.forest.threshold)
    assert gt.train_from_table(gt.load_arff(path), n_trees=12).hash == again.hash
    with pytest.raises(gt.errors.DataError, match="exists"):
        gt.train(files / "volume.tif", files / "strokes.tif", save_rows=path)


def test_a_model_tells_what_it_is(model, tmp_path):
    assert repr(model).startswith("<Model classes 1 out, 2 in, 12 trees on 12 features, out-of-bag error ")
    assert set(model.report.seconds) == {"features", "forest"}
    model.save(tmp_path / "m.tcm")
    read = gt.load_model(tmp_path / "m.tcm")
    assert read.report is None
    assert read.hash == model.hash


def test_cross_validation_from_files(files):
    found = gt.cross_validate(files / "volume.tif", files / "strokes.tif", features=FEATURES, n_folds=2, n_trees=5,
                              device="numpy")  # fmt: skip
    assert found.n_folds == 2
    assert 0.9 < np.mean(found.fold_accuracy) <= 1


def test_verbs_take_paths_and_arrays(files, model, tmp_path):
    volume, _ = case()
    labels = model.predict(volume, device="numpy").labels
    gt.classify(volume, model, output=tmp_path / "a.tif", device="numpy")
    gt.classify(str(files / "volume.tif"), model, output=tmp_path / "b.tif", device="numpy")
    for name in ("a.tif", "b.tif"):
        np.testing.assert_array_equal(tifffile.imread(tmp_path / name), labels)
    np.testing.assert_array_equal(gt.preview(model, volume, plane=2, device="numpy").labels, labels[2])
    assert gt.make_plan(volume, model, "numpy", measure=False).n_planes == 6
    assert gt.check_drift(model, volume, device="numpy", n_planes=2).drift < 0.5
    assert gt.evaluate_volumes(labels, tmp_path / "a.tif", boundaries=False).confusion.accuracy == 1
    assert gt.measure_particles(tmp_path / "a.tif", value=2).voxels.sum() == (labels == 2).sum()
    gt.clean(labels, tmp_path / "c.tif", min_size=1)
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "c.tif"), labels)


def test_features_of_planes_are_those_of_the_command(files, tmp_path):
    from gpu_tomoclass.features import write_features

    volume, _ = case()
    write_features(
        gt.open_volume(volume), gt.FeatureBank.create(FEATURES), plane=3, output=tmp_path / "f.tif", device="numpy"
    )
    channels, names = gt.compute_features(volume[3], FEATURES, device="numpy")
    np.testing.assert_array_equal(channels, tifffile.imread(tmp_path / "f.tif"))
    assert names == gt.FeatureBank(FEATURES).channels
    several = gt.compute_features(volume[2:5], FEATURES, device="numpy").channels
    np.testing.assert_array_equal(several[:, 1], channels)
    signed = volume[3].astype(np.int16)
    np.testing.assert_array_equal(gt.compute_features(signed, FEATURES, device="numpy").channels[0], signed + 32768.0)
    plain = gt.compute_features(signed, FEATURES, intensity="none", device="numpy").channels[0]
    np.testing.assert_array_equal(plain, signed)
    with pytest.raises(gt.errors.UsageError, match="unknown features 'blurr'"):
        gt.compute_features(volume[3], "blurr")


def test_a_bank_by_the_name_of_a_set():
    assert gt.FeatureBank("weka-default") == gt.FeatureBank.create("weka-default")
    assert gt.FeatureBank(["median", "hessian"]) == gt.FeatureBank.create(["median", "hessian"])
    with pytest.raises(gt.errors.UsageError, match="unknown features 'weka'"):
        gt.FeatureBank("weka")
