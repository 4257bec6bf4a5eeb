"""Rows of an earlier training: kept in the model on request, drawn by weight, pooled in the grey scale of the model."""

import dataclasses

import numpy as np
import pytest
import tifffile

from gpu_tomoclass import (
    Annotation,
    adapt,
    default_classes,
    load_model,
    save_model,
    train,
)  # fmt: skip
from gpu_tomoclass.cli import run
from gpu_tomoclass.errors import ModelError, UsageError
from gpu_tomoclass.training import old_rows

FAST = {"features": ["gaussian_blur"], "n_trees": 8, "device": "numpy", "workers": 1}


def scene(seed):
    random = np.random.default_rng(seed)
    truth = np.ones((4, 30, 30), np.uint8)
    truth[:, :, 12:] = 2
    truth[:, :, 21:] = 3
    grey = np.array([0, 8000, 14000, 26000])[truth] + random.normal(0, 1500, truth.shape)
    return np.clip(grey, 0, 65535).astype(np.uint16), truth


def marks(truth, planes, *, step=3):
    z, y, x = (a.ravel() for a in np.meshgrid(planes, np.arange(0, 30, step), np.arange(0, 30, 2), indexing="ij"))
    classes = default_classes(["low", "middle", "high"])
    return Annotation.from_voxels(z, y, x, truth[z, y, x], shape=truth.shape, classes=classes)


@pytest.fixture(scope="module")
def old():
    volume, truth = scene(1)
    return train(volume, marks(truth, [0, 2]), keep_rows=True, **FAST)


def test_kept_rows_are_those_of_the_forest_and_survive_the_file(old, tmp_path):
    volume, truth = scene(1)
    strokes = marks(truth, [0, 2])
    assert old.rows.shape == (strokes.z.size, old.bank.n_channels)
    grey = np.sort(volume[strokes.z, strokes.y, strokes.x])
    np.testing.assert_array_equal(np.sort(old.rows[:, 0]), grey)  # the first channel is the voxel itself
    assert np.bincount(old.row_labels)[1:].tolist() == np.bincount(strokes.label)[1:].tolist()
    without = train(volume, strokes, **FAST)
    assert without.rows is None
    assert without.hash == old.hash, "what is classified does not depend on them"
    save_model(old, tmp_path / "m.tcm")
    again = load_model(tmp_path / "m.tcm")
    np.testing.assert_array_equal(again.rows, old.rows)
    np.testing.assert_array_equal(again.row_labels, old.row_labels)


@pytest.mark.parametrize("weight", [0.1, 0.5, 1.0])
def test_a_share_of_each_class_is_drawn(old, weight):
    found = old_rows(old, weight=weight)
    all_of_them = np.bincount(old.row_labels)[1:]
    np.testing.assert_allclose(np.bincount(found.table.label)[1:], weight * all_of_them, atol=0.5)
    assert found.record == {"from": old.hash, "weight": weight, "rows": len(found.table.label)}
    if weight == 1:
        np.testing.assert_array_equal(found.table.values, old.rows)


def test_few_strokes_on_an_adapted_volume_join_the_old_rows(old):
    """One class is marked on the new volume; the others come from the old one, whose grey values it is mapped to."""
    volume, truth = scene(2)
    other = (volume // 2 + 20000).astype(np.uint16)
    adapted = adapt(old, other, device="numpy").model
    strokes = marks(truth, [1], step=10)
    strokes = dataclasses.replace(strokes, **{n: getattr(strokes, n)[strokes.label == 3] for n in ("z", "y", "x")},
                                  label=strokes.label[strokes.label == 3])  # fmt: skip
    model = train(other, strokes, old=adapted, old_weight=0.5, n_trees=8, device="numpy", workers=1)
    assert model.intensity == adapted.intensity
    assert model.training["old_rows"]["from"] == adapted.hash
    counts = model.training["counts"]
    assert counts["high"] == strokes.z.size + round((old.row_labels == 3).sum() / 2)
    assert (model.predict(other, device="numpy").labels == truth).mean() > 0.97
    unmapped = train(other, strokes, old=old, old_weight=0.5, n_trees=8, device="numpy", workers=1)
    assert (unmapped.predict(other, device="numpy").labels == truth).mean() < 0.9


def test_what_cannot_be_pooled_is_refused(old):
    volume, truth = scene(1)
    with pytest.raises(UsageError, match="weigh 0"):
        old_rows(old, weight=0)
    with pytest.raises(ModelError, match="did not keep its training rows"):
        old_rows(dataclasses.replace(old, rows=None, row_labels=None))
    with pytest.raises(UsageError, match="features differ"):
        train(volume, marks(truth, [0]), old=old, features="weka-default")
    with pytest.raises(UsageError, match="contradict"):
        train(volume, marks(truth, [0]), old=old, intensity="none", device="numpy")
    with pytest.raises(ModelError, match="grey values do not compare"):
        train(volume.astype(np.float32), marks(truth, [0]), old=old, device="numpy")
    for rows, labels in (
        (old.rows, None), (old.rows[:3], old.row_labels), (old.rows, old.row_labels + 7),
        (old.rows * np.inf, old.row_labels),
    ):  # fmt: skip
        with pytest.raises(ModelError, match="training rows"):
            dataclasses.replace(old, rows=rows, row_labels=labels)


def test_the_commands_keep_and_pool(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name, seed in (("a", 1), ("b", 2)):
        volume, truth = scene(seed)
        painted = np.zeros_like(truth)
        painted[1, :: 3 if name == "a" else 15] = truth[1, :: 3 if name == "a" else 15]
        tifffile.imwrite(f"{name}.tif", volume, imagej=True, metadata={"axes": "ZYX"})
        tifffile.imwrite(f"{name}_s.tif", painted, imagej=True, metadata={"axes": "ZYX"})
    fast = ["--trees", "5", "--no-cache", "--device", "numpy", "-q"]
    train_a = ["train", "a.tif", "a_s.tif", "--features", "gaussian_blur", *fast]
    assert run([*train_a, "--keep-rows", "--save-rows", "a.arff", "-o", "a.tcm"]) == 0
    assert run([*train_a, "-o", "bare.tcm"]) == 0
    pool = ["train", "b.tif", "b_s.tif", "--also-old-rows", "0.25", *fast]
    assert run([*pool, "--like", "a.tcm", "-o", "b.tcm"]) == 0
    kept = load_model("b.tcm")
    n_new = int((tifffile.imread("b_s.tif") > 0).sum())
    assert sum(kept.training["counts"].values()) == n_new + kept.training["old_rows"]["rows"]
    assert run([*pool, "--like", "bare.tcm", "--from", "a.arff", "-o", "c.tcm"]) == 0
    assert load_model("c.tcm").forest.votes.tobytes() == kept.forest.votes.tobytes(), "the same rows from the file"
    assert run([*pool, "--like", "bare.tcm", "-o", "d.tcm"]) == 4
    assert "--keep-rows" in capsys.readouterr().err
    assert run([*pool, "-o", "d.tcm"]) == 2
    assert "--like" in capsys.readouterr().err
