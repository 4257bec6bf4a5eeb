"""From Fiji and back by commands: classifiers imported, rows saved from which Fiji grows the same forest."""

import json
import sys

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.annotations.arff import load_arff
from gpu_tomoclass.cli import run
from gpu_tomoclass.forest.arrays import FIELDS
from gpu_tomoclass.model.fiji.classifier import load_fiji_model
from gpu_tomoclass.model.reading import load_model

NAMES = ("small8", "small16", "small32")


@pytest.fixture
def call(capsys):
    """call(*arguments) -> (exit code, stdout, stderr)."""

    def call(*arguments):
        code = run([*map(str, arguments)])
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return code, out, err

    return call


@pytest.mark.parametrize("name", NAMES)
def test_imported_classifier_classifies_as_fiji(golden, call, tmp_path, name):
    """Every pixel of Fiji's own result, from the image alone."""
    code, out, err = call("model", "import", golden[name].model_path, "-o", tmp_path / "m.tcm")
    assert code == 0
    assert "200 trees" in out
    assert "272" in out
    assert "class 1, class 2, class 3" in out
    assert "note: voxel values enter as stored" in err
    # without a display range in the file, Fiji's 32-bit image had the range of the plane, as here
    code, _, err = call("classify", golden[name].image_path, tmp_path / "m.tcm", "-o", tmp_path / "labels.tif", "-q")
    assert code == 0, err
    labels = tifffile.imread(tmp_path / "labels.tif").squeeze()
    np.testing.assert_array_equal(labels, golden[name].result["class_index"] + 1)


def test_model_info_of_both_kinds(golden, call, tmp_path):
    path = golden["small8"].model_path
    code, out, _ = call("model", "info", path, "--json")
    assert code == 0
    fiji = json.loads(out)
    assert fiji["relation"] == "TWS-2D-v4.0.0-grayscale"
    assert fiji["trained with"]["seed"] == 42
    assert fiji["trained with"]["out-of-bag error"] == pytest.approx(3 / 152)
    call("model", "import", path, "-o", tmp_path / "m.tcm", "--signed-16-bit", "-q")
    code, out, _ = call("model", "info", tmp_path / "m.tcm", "--json")
    ours = json.loads(out)
    assert ours["forest"] == fiji["forest"]
    assert ours["bank"] == fiji["bank"]
    assert ours == json.loads(call("info", tmp_path / "m.tcm", "--json")[1])
    assert load_model(tmp_path / "m.tcm").intensity.offset == 32768
    code, out, _ = call("model", "info", path)
    assert "FastRandomForest" in out


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (b"Laplacian_2.0", b"Edges____2.0_", "Edges____2.0_"),
        (b"TWS-2D-v4.0.0-grayscale", b"TWS-3D-v4.0.0-grayscale", "3-D features"),
        (b"TWS-2D-v4.0.0-grayscale", b"TWS-2D-v4.0.0-RGB......", "colour images"),
        (b"hr.irb.fastRandomForest.FastRandomForest", b"weka.classifiers.functions.MultilayerPer", "MultilayerPer"),
    ],
)
def test_classifiers_that_cannot_be_imported_are_named(golden, call, tmp_path, old, new, said):
    data = golden["small8"].model_path.read_bytes()
    assert len(old) == len(new)
    assert old in data
    path = tmp_path / "other.model"
    path.write_bytes(data.replace(old, new))
    code, _, err = call("model", "import", path, "-o", tmp_path / "m.tcm")
    assert code == 4
    assert said in err
    assert "other.model" in err
    assert not (tmp_path / "m.tcm").exists()


def test_a_classifier_in_the_place_of_a_model_says_how_to_bring_it(golden, call, tmp_path):
    small = golden["small8"]
    code, _, err = call("classify", small.image_path, small.model_path, "-o", tmp_path / "x.tif")
    assert code == 4
    assert "gpu-tomoclass model import" in err
    code, _, err = call("model", "import", small.model_path, "-o", tmp_path / "m.model")
    assert code == 2
    assert "ends in .tcm" in err


def test_saved_rows_grow_the_same_forest_again(golden, call, tmp_path):
    """Strokes as a label image, all 272 channels: the forest that Fiji grew, but for the last bits of Gabor."""
    small = golden["small8"]
    names = ",".join(small.result["class_names"])
    rows = tmp_path / "rows.arff"
    code, out, _ = call(
        "train", small.image_path, small.labels_path, "-o", tmp_path / "a.tcm", "--features", "all", "--class-names",
        names, "--save-rows", rows, "--no-cache", "-q",
    )  # fmt: skip
    assert code == 0
    assert "forest (weka): 200 trees" in out
    assert "rows: " in out
    code, out, err = call("train", "--from", rows, "-o", tmp_path / "b.tcm")
    assert code == 0
    assert "six decimals" not in err
    a, b = (load_model(tmp_path / f"{n}.tcm") for n in "ab")
    fiji = load_fiji_model(small.model_path)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(a.forest, name), getattr(b.forest, name), err_msg=name)
        if name != "threshold":
            np.testing.assert_array_equal(getattr(a.forest, name), getattr(fiji.forest, name), err_msg=name)
    gabor = [i for i, channel in enumerate(a.bank.channels) if channel.startswith("Gabor")]
    exact = ~np.isin(a.forest.feature, gabor)
    np.testing.assert_array_equal(a.forest.threshold[exact], fiji.forest.threshold[exact])
    assert a.training["data_hash"] == b.training["data_hash"]
    assert load_arff(rows).class_names == fiji.class_names


def test_rows_of_some_classes_keep_their_names(case_folder, call, tmp_path):
    """Classes 2 and 5 are marked, 1, 3 and 4 are not: the file has two classes, in the order of their values."""
    folder, strokes = case_folder
    code, _, err = call(
        "train", folder / "volume.tif", folder / "strokes.tif", "-o", tmp_path / "m.tcm", "--save-rows",
        tmp_path / "rows.arff", "--features", "gaussian_blur", "--class-names", "a,b,c,d,e", "--trees", 5, "-q",
        "--no-cache",
    )  # fmt: skip
    assert code == 0, err
    table = load_arff(tmp_path / "rows.arff")
    assert table.class_names == ("b", "e")
    np.testing.assert_array_equal(table.label, 1 + (strokes[strokes > 0] == 5))
    code, _, err = call(
        "train", folder / "volume.tif", folder / "strokes.tif", "-o", tmp_path / "n.tcm", "--save-rows", "rows.csv"
    )
    assert (code, "ends in .arff" in err) == (2, True)
    code, _, err = call(
        "train", folder / "volume.tif", folder / "strokes.tif", "-o", tmp_path / "n.tcm", "--save-rows",
        tmp_path / "rows.arff",
    )  # fmt: skip
    assert (code, "exists" in err) == (3, True)
    assert not (tmp_path / "n.tcm").exists()  # refused before the work


@pytest.fixture
def case_folder(tmp_path):
    rng = np.random.default_rng(0)
    volume = rng.integers(0, 1000, (2, 24, 24)).astype(np.uint16)
    strokes = np.zeros(volume.shape, np.uint8)
    strokes[:, 4, 3:20], strokes[:, 15, 3:20] = 2, 5
    volume[strokes == 5] += 500
    for name, array in (("volume", volume), ("strokes", strokes)):
        tifffile.imwrite(tmp_path / f"{name}.tif", array, imagej=True, metadata={"axes": "ZYX"})
    return tmp_path, strokes


def test_engines_by_name(case_folder, call, tmp_path, monkeypatch):
    folder, _ = case_folder
    common = ("train", folder / "volume.tif", folder / "strokes.tif", "--features", "gaussian_blur", "--trees", 5,
              "--no-cache", "--overwrite", "-o", tmp_path / "m.tcm")  # fmt: skip
    for options, engine in (
        ((), "weka"), (("--forest", "sklearn"), "sklearn"), (("--forest", "weka", "--seed", -7), "weka"),
        (("--min-samples-leaf", 2), "sklearn"),
    ):  # fmt: skip
        code, out, err = call(*common, *options)
        assert code == 0, err
        assert f"forest ({engine}): 5 trees" in out
        assert load_model(tmp_path / "m.tcm").training["settings"]["engine"] == engine
    assert "scikit-learn's, not Fiji's" in err
    for options, exit_code, said in (
        (("--forest", "luck"), 2, "luck"),
        (("--forest", "sklearn", "--seed", -7), 2, "seed is -7"),
        (("--forest", "weka", "--min-samples-leaf", 2), 2, "min_samples_leaf"),
    ):
        code, _, err = call(*common, *options)
        assert code == exit_code
        assert said in err
    monkeypatch.setitem(sys.modules, "cuml", None)
    code, _, err = call(*common, "--forest", "cuml")
    assert code == 5
    assert "cuML is not installed" in err


def test_a_table_in_the_order_of_stacks_grows_fijis_trees(golden, tmp_path):
    """Fiji puts Gabor after Kuwahara when it trains on a stack; random numbers follow that order, and so do we."""
    from gpu_tomoclass.annotations.arff import TrainingTable
    from gpu_tomoclass.forest.grow_weka import train_weka
    from gpu_tomoclass.training.train_model import train_from_table

    small = golden["small16"]
    y, x = np.nonzero(small.label_image)
    is_gabor = np.array([name.startswith("Gabor") for name in small.channels])
    after = max(i for i, name in enumerate(small.channels) if name.startswith("Kuwahara"))
    order = [0, *np.flatnonzero(~is_gabor[: after + 1])[1:], *np.flatnonzero(is_gabor), *range(after + 1, 272)]
    values = small.features[:, y, x].T[:, order]
    channels = tuple(small.channels[i] for i in order)
    table = TrainingTable(values, small.label_image[y, x], channels, ("a", "b", "c"))
    result = train_from_table(table, n_trees=20)
    by_table = train_weka(values, table.label, n_trees=20).forest
    asked = result.model.forest.feature >= 0
    names = np.array(result.model.bank.channels)[result.model.forest.feature[asked]]
    np.testing.assert_array_equal(names, np.array(channels)[by_table.feature[asked]])
    np.testing.assert_array_equal(result.model.forest.threshold, by_table.threshold)
    in_bank_order = train_weka(small.features[:, y, x].T, table.label, n_trees=20).forest
    assert in_bank_order.n_nodes != by_table.n_nodes or (in_bank_order.threshold != by_table.threshold).any()
    assert result.table.channels == channels


def test_rows_of_volumes_are_refused_by_path(golden, call, tmp_path):
    text = golden["small8"].arff_path.read_text().replace("TWS-2D-v4.0.0", "TWS-3D-v4.0.0", 1)
    path = tmp_path / "volume.arff"
    path.write_text(text)
    code, _, err = call("train", "--from", path, "-o", tmp_path / "m.tcm")
    assert code == 4
    assert str(path) in err
    assert "3-D features" in err
    assert not (tmp_path / "m.tcm").exists()


def test_formula_of_the_hessian_on_the_command_line(golden, call, tmp_path):
    """Asked for, it overrides what the file says, and says so."""
    classifier = golden["small8"].model_path
    for formula, expected in (("legacy", "legacy"), ("current", None), ("auto", None)):
        code, _, err = call(
            "model", "import", classifier, "-o", tmp_path / "m.tcm", "--hessian", formula, "--overwrite"
        )
        assert code == 0, err
        assert load_model(tmp_path / "m.tcm").bank.to_dict().get("hessian") == expected
    rows = golden["small8"].arff_path
    code, _, err = call("train", "--from", rows, "-o", tmp_path / "n.tcm", "--trees", 2, "--hessian", "legacy")
    assert code == 0, err
    assert load_model(tmp_path / "n.tcm").bank.hessian == "legacy"
    assert "follow the current formula" in err
