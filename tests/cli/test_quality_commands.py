"""cross-validate, select-features, check and train --also as a person runs them."""

import json

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.cli import run
from gpu_tomoclass.model.reading import load_model

FEW = ["--features", "gaussian_blur,median,variance", "--sigma-max", "4", "--trees", "30", "--no-cache", "-q"]


def made(nz=6, ny=40, nx=44, *, noise=300, levels=(0, 1000, 2200, 3400), seed=0):
    """Volume uint16, and strokes uint8 on planes 1 and 4: four of each class and plane."""
    random = np.random.default_rng(seed)
    truth = np.ones((ny, nx), np.uint8)
    truth[8:32, 10:36] = 2
    truth[16:24, 16:30] = 3
    volume = np.array(levels)[truth] + random.normal(0, noise, (nz, ny, nx))
    strokes = np.zeros((nz, ny, nx), np.uint8)
    for z in (1, 4):
        for y, x in ((3, 2), (3, 24), (36, 2), (36, 24), (10, 12), (10, 26), (29, 12), (29, 26),
                     (17, 17), (17, 25), (22, 17), (22, 25)):  # fmt: skip
            strokes[z, y, x : x + 4] = truth[y, x]
    return volume.clip(0).astype(np.uint16), strokes


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """a and b are of one kind, other is not."""
    path = tmp_path_factory.mktemp("quality")
    for name, options in {
        "a": {},
        "b": {"seed": 1},
        "other": {"noise": 1500, "levels": (0, 3000, 900, 2000), "seed": 2},
    }.items():
        volume, strokes = made(**options)
        tifffile.imwrite(path / f"{name}.tif", volume, imagej=True, metadata={"axes": "ZYX"})
        tifffile.imwrite(path / f"{name}_strokes.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    assert run(["train", str(path / "a.tif"), str(path / "a_strokes.tif"), "-o", str(path / "a.tcm"), *FEW]) == 0
    return path


def test_cross_validate(folder, command):
    marked = (folder / "a.tif", folder / "a_strokes.tif")
    text = command("cross-validate", *marked, "--importance", "--class-names", "vacuum,rubber,silica", *FEW)
    assert text.code == 0, text.out
    for word in ("held-out strokes (24 in 5 folds)", "out-of-bag", "rubber", "precision", "median", "when permuted"):
        assert word in text.out
    found = json.loads(command("cross-validate", *marked, "--group", "plane", "--folds", 2, "--json", *FEW).out)
    assert found["groups"] == found["folds"] == 2
    assert np.sum(found["matrix"]) == found["voxels"] == 2 * 12 * 4
    assert found["accuracy"] == pytest.approx(np.trace(found["matrix"]) / found["voxels"])
    assert found["importance"] == {}


def test_volumes_are_held_out(folder, command):
    both = [folder / "a.tif", folder / "a_strokes.tif", "--also", folder / "b.tif", folder / "b_strokes.tif"]
    found = json.loads(command("cross-validate", *both, "--group", "volume", "--folds", 2, "--json", *FEW).out)
    assert found["groups"] == 2
    assert found["voxels"] == 2 * 2 * 12 * 4
    by_itself = json.loads(command("cross-validate", *both, "--group", "volume", "--json", *FEW).out)
    assert by_itself["folds"] == 2  # as many as there are, where that is less than 5
    done = command("cross-validate", *both, "--group", "volume", "--folds", 5, *FEW)
    assert done.code == 3
    assert "2 volumes, 5 folds" in done.err


def test_train_pools_volumes(folder, tmp_path, command):
    both = [folder / "a.tif", folder / "a_strokes.tif", "--also", folder / "other.tif", folder / "other_strokes.tif"]
    done = command("train", *both, "-o", tmp_path / "both.tcm", *FEW)
    assert done.code == 0, done.out
    model = load_model(tmp_path / "both.tcm")
    assert sum(model.training["counts"].values()) == 2 * 2 * 12 * 4
    assert len(model.training["also"]) == 1
    for name in ("a", "other"):  # what it was trained among fits
        assert command("check", folder / f"{name}.tif", tmp_path / "both.tcm", "-q").code == 0


def test_rows_and_no_volume_leave_nothing_to_pool(folder, tmp_path, command):
    also = ("--also", folder / "b.tif", folder / "b_strokes.tif")
    done = command("train", "--from", "data.arff", *also, "-o", tmp_path / "m.tcm")
    assert done.code == 2
    assert "data.arff: does not exist" in done.err


def test_select_features(folder, tmp_path, command):
    marked = (folder / "a.tif", folder / "a_strokes.tif")
    picture = tmp_path / "curve.png"
    done = command("select-features", *marked, "-o", picture, "--epsilon", "0.05", *FEW)
    assert done.code == 0, done.out
    assert picture.read_bytes().startswith(b"\x89PNG")
    line = next(line for line in done.out.splitlines() if line.startswith("--features "))
    assert "--sigma-max 4" in line
    again = command("train", *marked, "-o", tmp_path / "m.tcm", *line.split(), "--trees", 5, "--no-cache", "-q")
    assert again.code == 0, again.out
    found = json.loads(command("select-features", *marked, "--epsilon", "0.05", "--json", *FEW).out)
    assert set(found["chosen"]["families"]) <= {"gaussian_blur", "median", "variance"}
    assert found["chosen"]["seconds"] <= found["full"]["seconds"]
    assert found["seconds_together"]["full"] > 0


def test_select_features_keeps_an_existing_picture(folder, tmp_path, capsys):
    picture = tmp_path / "curve.png"
    picture.write_bytes(b"mine")
    words = ["select-features", folder / "a.tif", folder / "a_strokes.tif", "-o", picture]
    assert run([*map(str, words), *FEW]) == 3
    assert picture.read_bytes() == b"mine"
    assert "--overwrite" in capsys.readouterr().err


def test_check_says_what_differs(folder, capsys):
    model = str(folder / "a.tcm")
    assert run(["check", str(folder / "b.tif"), model, "-q"]) == 0
    assert "verdict: fits" in capsys.readouterr().out
    assert run(["check", str(folder / "other.tif"), model, "-q", "--json", "--planes", "1:3"]) == 4
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["verdict"] == "does not fit"
    assert found["planes"] == [1, 2]
    assert err.count("error:") == 1
    for word in ("other.tif", "does not fit", "drift", next(iter(found["per_family"])), "train --also"):
        assert word in err


def test_doubt_is_a_note(folder, capsys, monkeypatch):
    monkeypatch.setattr("gpu_tomoclass.training.drift.SAME", -1.0)
    monkeypatch.setattr("gpu_tomoclass.training.drift.NEAR_DRIFT", -1.0)
    assert run(["check", str(folder / "b.tif"), str(folder / "a.tcm")]) == 0
    out, err = capsys.readouterr()
    assert "verdict: doubtful" in out
    assert "note: doubtful" in err
