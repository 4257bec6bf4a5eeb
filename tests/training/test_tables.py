"""Rows that Fiji saved beside strokes on a volume: the same rows, in TWS's order, and the classes of both."""

from dataclasses import replace

import numpy as np
import pytest

from gpu_tomoclass.annotations.annotation import Annotation
from gpu_tomoclass.annotations.arff import save_arff
from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.errors import DataError, ModelError
from gpu_tomoclass.features.bank import FeatureBank
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.training.train_model import train
from gpu_tomoclass.volumes.opening import create_volume, open_volume

SHAPE = (2, 30, 26)
BANK = FeatureBank.create(["median", "hessian"], sigma_max=2)
OPTIONS = {"bank": BANK, "device": "numpy", "n_trees": 5}


def strokes(z, names=("void", "solid"), values=(1, 2)):
    y = np.arange(3, 27)
    label = np.where(y < 15, *values)
    classes = [c for c in default_classes([*names, "more"][: max(values)]) if c.value in values]
    return Annotation.from_voxels(np.full(24, z), y, np.full(24, 9), label, shape=SHAPE, classes=classes)


@pytest.fixture(scope="module")
def volume():
    array = np.random.default_rng(4).integers(0, 900, SHAPE).astype(np.uint16)
    array[:, 15:] += 700
    return array


@pytest.fixture(scope="module")
def second(volume):
    """The training of the strokes on plane 1."""
    return train(open_volume(volume), strokes(1), **OPTIONS).table


def test_rows_come_behind_those_of_the_strokes(volume, second):
    opened = open_volume(volume)
    first = train(opened, strokes(0), **OPTIONS)
    table = replace(second, values=second.values[:, ::-1], channels=second.channels[::-1])  # in another order
    both = train(opened, strokes(0), table=table, **OPTIONS)
    np.testing.assert_array_equal(both.table.values, np.concatenate([first.table.values, second.values]))
    np.testing.assert_array_equal(both.table.label, np.concatenate([first.table.label, second.label]))
    assert both.counts == {"void": 24, "solid": 24}
    assert any("24 rows of a table are pooled" in note for note in both.notes)


@pytest.mark.parametrize(
    ("of_strokes", "values", "of_rows", "classes", "labels"),
    [
        (("void", "solid"), (1, 2), ("solid", "void"), {1: "void", 2: "solid"}, [2, 1]),  # by name
        (("class 1", "class 2"), (1, 2), ("pore", "wall"), {1: "pore", 2: "wall"}, [1, 2]),  # by number
        (("void", "solid"), (1, 2), ("class 1", "class 2"), {1: "void", 2: "solid"}, [1, 2]),
        (("void", "solid"), (1, 2), ("void", "solid", "dirt"), {1: "void", 2: "solid", 3: "dirt"}, [1, 2]),
    ],
)
def test_classes_of_both(volume, second, of_strokes, values, of_rows, classes, labels):
    rows = train(
        open_volume(volume), strokes(0, of_strokes, values), table=replace(second, class_names=of_rows), **OPTIONS
    )
    of_table = rows.table.label[24:]
    assert set(rows.counts) == {classes[v] for v in set(labels) | {1, 2}}
    np.testing.assert_array_equal(of_table, np.array(labels)[second.label - 1])


def test_what_does_not_go_together(volume, second):
    opened = open_volume(volume)
    other = replace(second, class_names=("pore", "wall"), path="data.arff")
    with pytest.raises(DataError, match=r"data\.arff: has the classes pore, wall; class 1 of the strokes is void; g"):
        train(opened, strokes(0), table=other, **OPTIONS)
    with pytest.raises(ModelError, match=r"not expected: Median.*leave the feature options out"):
        train(opened, strokes(0), table=second, **{**OPTIONS, "bank": FeatureBank.create(["hessian"], sigma_max=2)})
    with pytest.raises(ModelError, match="floats, which are scaled here; give --intensity none"):
        train(open_volume(volume.astype(np.float32)), strokes(0), table=second, **OPTIONS)
    assert train(open_volume(volume.astype(np.float32)), strokes(0), table=second, intensity="none", **OPTIONS).model


def test_the_command_takes_rows_beside_one_class_of_strokes(volume, second, tmp_path, command):
    """With --from or among the annotations; features are those of the rows."""
    for name, array in (("v", volume), ("s", strokes(0).plane_labels(0)[None].clip(0, 1))):
        with create_volume(tmp_path / f"{name}.tif", shape=array.shape, dtype=array.dtype) as writer:
            for z, plane in enumerate(array):
                writer.write_plane(z, plane)
    save_arff(tmp_path / "data.arff", second, exact=True)
    common = ("--start", 0, "--trees", 5, "--no-cache", "--device", "numpy")
    marked = (tmp_path / "v.tif", tmp_path / "s.tif")
    for words in ((*marked, "--from", tmp_path / "data.arff"), (*marked, tmp_path / "data.arff")):
        done = command("train", *words, "-o", tmp_path / "m.tcm", "--overwrite", *common)
        assert done.code == 0, done.err
        assert "median" in done.out
        assert load_model(tmp_path / "m.tcm").training["counts"] == {"void": 36, "solid": 12}
    done = command("train", tmp_path / "v.tif", tmp_path / "data.arff", "-o", tmp_path / "n.tcm", *common)
    assert done.code == 2
    assert "at least one annotation on it, or rows that Fiji saved without a volume" in done.err
