"""What a new user does wrong, or needs on the first day: refused early, or said."""

from __future__ import annotations

import csv
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import numpy as np
import pytest
import roifile
import tifffile

from gpu_tomoclass.cli import cli
from gpu_tomoclass.model import load_model
from gpu_tomoclass.volumes import open_volume

FEW = ("--features", "gaussian_blur", "--sigma-max", 2, "--trees", 5, "--no-cache", "--device", "numpy")
SHAPE = (12, 24, 26)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """volume.tif, strokes.tif (classes 1 and 2 on planes 2 and 8), truth.tif (values 0 and 1), m.tcm."""
    path = tmp_path_factory.mktemp("first")
    truth = np.zeros(SHAPE, np.uint8)
    truth[:, 6:18, 6:20] = 1
    grey = (1000 + 3000.0 * truth + np.random.default_rng(0).normal(0, 100, SHAPE)).astype(np.uint16)
    strokes = np.zeros(SHAPE, np.uint8)
    for z in (2, 8):
        strokes[z, 1:3, 2:22], strokes[z, 10:12, 8:18] = 1, 2
    for name, array in (("volume", grey), ("strokes", strokes), ("truth", truth)):
        tifffile.imwrite(path / f"{name}.tif", array, imagej=True, metadata={"axes": "ZYX"})
    return path


@pytest.fixture(scope="module")
def model(folder):
    from gpu_tomoclass.cli import run

    path = folder / "m.tcm"
    words = ["train", folder / "volume.tif", folder / "strokes.tif", "-o", path, "-q", *FEW]
    assert run([str(word) for word in words]) == 0
    return path


def entries(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize(
    ("options", "code", "said"),
    [
        (("-o", "labels"), 2, "the suffix '' names no format"),
        (("-o", "labels.png"), 2, "the suffix '.png' names no format"),
        (("-o", "y.tif", "--ome-version", "0.5"), 2, "ome_version='0.5' means nothing for TIFF"),
        (("-o", "y.mrc", "--sharded"), 2, "sharded=True means nothing for MRC"),
        (("-o", "y.ome.zarr", "--sharded"), 2, "0.4 has no shards"),
        (("-o", "volume.tif/y.tif"), 5, "is a file, not a folder"),
        (("-o", "there.tif"), 3, "exists already"),
    ],
)
def test_a_bad_output_is_refused_before_the_first_plane(folder, model, command, monkeypatch, options, code, said):
    """Also by plan, which is asked before the night."""
    monkeypatch.chdir(folder)
    (folder / "there.tif").touch()
    before = entries(folder)
    for words in (("classify",), ("plan", "--no-time")):
        done = command(*words, "volume.tif", model, *options, "--device", "numpy", "-q")
        assert done.code == code, done.err
        assert said in done.err
        assert entries(folder) == before


def test_an_option_given_twice_is_refused(folder, model, command):
    done = command("classify", folder / "volume.tif", model, "-o", "a.tif", "--planes", "0:2", "--planes", "2:4")
    assert done.code == 2
    assert "--planes is given twice" in done.err
    done = command("classify", folder / "volume.tif", model, "-o", "a.tif", "--output", "b.tif")
    assert done.code == 2
    assert "--output is given twice" in done.err


def test_swapped_arguments_are_understood(folder, model, command, tmp_path):
    done = command("classify", model, folder / "volume.tif", "-o", tmp_path / "l.tif", "--planes", "0:1", "--device",
                   "numpy")  # fmt: skip
    assert done.code == 0, done.err
    assert "is a model: taken as MODEL" in done.err
    assert command("check", model, folder / "volume.tif", "--device", "numpy", "--n-planes", 1, "-q").code == 0


def test_voxel_size_given(folder, command, tmp_path):
    given = ("--voxel-size", "2,0.5,0.5")
    found = json.loads(command("info", folder / "volume.tif", "--json", *given).out)
    assert found["voxel_size_nm"] == [2, 0.5, 0.5]
    path = tmp_path / "v.tcm"
    done = command("train", folder / "volume.tif", folder / "strokes.tif", "-o", path, *given, *FEW)
    assert done.code == 0, done.err
    assert load_model(path).voxel_size == (2, 0.5, 0.5)
    words = ("classify", folder / "volume.tif", path, "--planes", "0:1", "--device", "numpy", "-q")
    done = command(*words, "-o", tmp_path / "l.tif", "--voxel-size", 0.6)
    assert done.code == 4
    assert "--voxel-size" in done.err
    assert command(*words, "-o", tmp_path / "l.tif", "--voxel-size", 0.5).code == 0
    with open_volume(tmp_path / "l.tif") as labels:
        assert labels.voxel_size == pytest.approx((0.5, 0.5, 0.5))
        assert labels.metadata["input"]["voxel_size_given"]["nm"] == [0.5, 0.5, 0.5]
    assert command("info", folder / "volume.tif", "--voxel-size", "1,2").code == 2


def test_volumes_of_other_voxels_are_not_pooled(folder, command, tmp_path):
    other = tmp_path / "other.tif"
    assert command("convert", folder / "volume.tif", "-o", other, "--voxel-size", 0.8, "-q").code == 0
    one = tmp_path / "one.tif"
    assert command("convert", folder / "volume.tif", "-o", one, "--voxel-size", 0.5, "-q").code == 0
    marks = folder / "strokes.tif"
    done = command("train", one, marks, "--also", other, marks, "-o", tmp_path / "m.tcm", *FEW)
    assert done.code == 4
    assert "has voxels of 0.8 nm" in done.err
    assert not (tmp_path / "m.tcm").exists()


def rois(path, planes):
    """One square per class on each plane; roifile counts positions from 0."""
    for z in planes:
        for group, top in ((1, 1), (2, 10)):
            points = np.array([[8, top], [18, top], [18, top + 2], [8, top + 2]], np.float32)
            roi = roifile.ImagejRoi.frompoints(points, name=f"{z}-{group}", position=z)
            roi.group = group
            roi.tofile(path, mode="a" if path.exists() else "w")


def test_forgotten_every_is_noted(command, tmp_path):
    """ROIs of a sub-stack lie on its first planes: where they landed is said, and what may be meant."""
    volume = np.random.default_rng(1).integers(0, 999, (40, 24, 26)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    rois(tmp_path / "r.zip", (0, 1, 2))
    done = command("train", tmp_path / "v.tif", tmp_path / "r.zip", "-o", tmp_path / "m.tcm", *FEW)
    assert done.code == 0, done.err
    assert "strokes on planes 0 to 2; pixels: class 1 60, class 2 60" in done.err, done.err
    assert "all ROIs lie on planes 0 to 2 of 40" in done.err
    assert "--every" in done.err
    done = command("train", tmp_path / "v.tif", tmp_path / "r.zip", "--every", 15, "-o", tmp_path / "n.tcm", *FEW)
    assert "strokes on planes 7, 22, 37" in done.err
    assert "all ROIs" not in done.err


def test_evaluate_names_another_numbering(folder, command, tmp_path):
    truth = tifffile.imread(folder / "truth.tif")
    tifffile.imwrite(tmp_path / "l.tif", truth + 1, imagej=True, metadata={"axes": "ZYX"})
    done = command("evaluate", tmp_path / "l.tif", folder / "truth.tif", "--no-boundaries")
    assert done.code == 0
    assert "with --map 0:1,1:2 the accuracy is 100.00 %" in done.err
    done = command("evaluate", tmp_path / "l.tif", folder / "truth.tif", "--no-boundaries", "--map", "0:1,1:2")
    assert "accuracy 100.00 %" in done.out
    assert "--map" not in done.err


def test_labels_of_some_planes_are_compared_with_these(folder, model, command, tmp_path):
    part = tmp_path / "part.tif"
    words = ("classify", folder / "volume.tif", model, "-o", part, "--planes", "3:7", "--device", "numpy", "-q")
    assert command(*words).code == 0
    shown = ("--no-boundaries", "--map", "0:1,1:2")
    done = command("evaluate", part, folder / "truth.tif", *shown)
    assert done.code == 0, done.err
    assert "was made of planes 3:7" in done.err
    truth = tifffile.imread(folder / "truth.tif")[3:7] + 1
    accuracy = 100 * (tifffile.imread(part) == truth).mean()
    assert f"accuracy {accuracy:.2f} %" in done.out
    assert command("evaluate", part, folder / "truth.tif", *shown, "--planes", "3:7").out == done.out
    assert command("evaluate", part, folder / "truth.tif", *shown, "--planes", "3:8").code == 2


def test_class_on_one_plane_and_too_good(folder, command, tmp_path):
    strokes = np.zeros(SHAPE, np.uint8)
    strokes[2, 1:3, 2:22], strokes[2, 10:12, 8:18], strokes[8, 1:3, 2:22] = 1, 2, 1
    tifffile.imwrite(tmp_path / "s.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    few = ("--features", "gaussian_blur", "--sigma-max", 2, "--trees", 60, "--no-cache", "--device", "numpy")
    done = command("train", folder / "volume.tif", tmp_path / "s.tif", "-o", tmp_path / "m.tcm", *few)
    assert done.code == 0, done.err
    assert "class class 2 is marked on one plane only" in done.err
    assert "out-of-bag error of 0 is too good" in done.err


def test_train_like_takes_names_features_and_every(command, tmp_path):
    volume = np.random.default_rng(1).integers(0, 999, (40, 24, 26)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "v.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    rois(tmp_path / "r.zip", (0, 1))
    first = ("train", tmp_path / "v.tif", tmp_path / "r.zip", "--every", 15, "--class-names", "out,in")
    assert command(*first, "-o", tmp_path / "a.tcm", *FEW).code == 0
    again = ("train", tmp_path / "v.tif", tmp_path / "r.zip", "--like", tmp_path / "a.tcm", "--trees", 5,
             "--no-cache", "--device", "numpy")  # fmt: skip
    done = command(*again, "-o", tmp_path / "b.tcm")
    assert done.code == 0, done.err
    assert "strokes on planes 7, 22; pixels: out 40, in 40" in done.err
    a, b = (load_model(tmp_path / f"{name}.tcm") for name in "ab")
    assert a.bank == b.bank
    assert command(*again, "--features", "median", "-o", tmp_path / "c.tcm").code == 0
    assert load_model(tmp_path / "c.tcm").bank != a.bank


def test_tables_are_pooled(folder, command, tmp_path):
    table = tmp_path / "a.arff"
    done = command("train", folder / "volume.tif", folder / "strokes.tif", "-o", tmp_path / "m.tcm", "--save-rows",
                   table, *FEW)  # fmt: skip
    assert done.code == 0, done.err
    shorter = tmp_path / "b.arff"
    lines = table.read_text().splitlines()
    shorter.write_text("\n".join(lines[:-7]) + "\n")
    done = command("train", "--from", table, "--from", shorter, "-o", tmp_path / "p.tcm", "--trees", 3)
    assert done.code == 0, done.err
    counts = load_model(tmp_path / "p.tcm").training["counts"]
    assert sum(counts.values()) == 2 * sum(load_model(tmp_path / "m.tcm").training["counts"].values()) - 7
    other = tmp_path / "c.arff"
    other.write_text(table.read_text().replace("Gaussian_blur_1.0", "Gaussian_blur_4.0"))
    done = command("train", "--from", table, "--from", other, "-o", tmp_path / "q.tcm", "--trees", 3)
    assert done.code == 3, done.err
    assert "has other channels than" in done.err


def test_info_of_all_planes_and_of_channels(folder, model, command, tmp_path):
    found = json.loads(command("info", folder / "truth.tif", "--stats", "--json", "-q").out)["all_planes"]
    truth = tifffile.imread(folder / "truth.tif")
    assert found["voxels"] == {"value 0": int((truth == 0).sum()), "value 1": int((truth == 1).sum())}
    grey = tifffile.imread(folder / "volume.tif")
    done = command("info", folder / "volume.tif", "--stats", "--json", "--picture", tmp_path / "look.png")
    found = json.loads(done.out)["all_planes"]
    assert (found["min"], found["max"]) == (grey.min(), grey.max())
    assert found["mean"] == pytest.approx(grey.mean())
    assert (tmp_path / "look.png").read_bytes().startswith(b"\x89PNG")
    words = ("classify", folder / "volume.tif", model, "-o", tmp_path / "l.tif", "--probabilities", "--planes", "0:2")
    assert command(*words, "--device", "numpy", "-q").code == 0
    done = command("info", tmp_path / "l_probabilities.tif")
    assert done.code == 0, done.err
    assert "several channels" in done.out


@pytest.mark.parametrize(("name", "begin"), [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")])
def test_preview_formats_strokes_and_outlines(folder, model, command, tmp_path, name, begin):
    done = command("preview", folder / "volume.tif", model, "--plane", 2, "-o", tmp_path / name, "--outlines",
                   "--strokes", folder / "strokes.tif", "--voxel-size", 0.5, "--device", "numpy",
                   "--no-cache")  # fmt: skip
    assert done.code == 0, done.err
    assert (tmp_path / name).read_bytes().startswith(begin)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("measure", "truth.tif", "--class", 1, "-o", "x.xlsx"), "must end in .csv"),
        (("evaluate", "truth.tif", "truth.tif", "-o", "r.pdf"), "must end in .html"),
        (("preview", "volume.tif", "m.tcm", "--plane", 0, "-o", "x.jpg"), "ends in .png, .svg or .pdf"),
    ],
)
def test_what_is_written_is_what_the_name_says(folder, model, command, monkeypatch, words, said):
    monkeypatch.chdir(folder)
    before = entries(folder)
    done = command(*words)
    assert done.code == 2
    assert said in done.err
    assert entries(folder) == before


def test_report_shows_the_grey_values(folder, model, command, tmp_path):
    part = tmp_path / "part.tif"
    words = ("classify", folder / "volume.tif", model, "-o", part, "--planes", "3:7", "--device", "numpy", "-q")
    assert command(*words).code == 0
    page = tmp_path / "r.html"
    done = command("evaluate", part, folder / "truth.tif", "--grey", folder / "volume.tif", "-o", page, "-q")
    assert done.code == 0, done.err
    assert "grey values" in page.read_text()


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_examples_of_the_help_are_of_this_command(name):
    """Every example parses: its options exist and have such values."""
    command = cli.commands[name]
    for example in getattr(command, "examples", ()):
        first, *words = shlex.split(example)
        assert first == name
        command.make_context(name, words, parent=click.Context(cli))


def test_the_page_of_the_command_line_runs_as_printed(folder, command, tmp_path, monkeypatch):
    """All but "demo", whose files are those of this module; with few features and trees."""
    for name, of_demo in (("volume", "sample"), ("strokes", "strokes"), ("truth", "truth")):
        shutil.copy(folder / f"{name}.tif", tmp_path / f"{of_demo}.tif")
    for name in ("TRAIN", "CROSS_VALIDATE"):
        monkeypatch.setenv(f"GPU_TOMOCLASS_{name}_FEATURES", "gaussian_blur")
        monkeypatch.setenv(f"GPU_TOMOCLASS_{name}_N_TREES", "5")
    monkeypatch.setenv("GPU_TOMOCLASS_TRAIN_CLASS_NAMES", "rubber,silica")
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text(encoding="utf-8")
    lines = [line for block in re.findall(r"```sh\n(.*?)```", page, re.S) for line in block.splitlines()]
    assert lines[:2] == ["gpu-tomoclass demo -o demo", "cd demo"]
    truth = ("--map", "0:1", "--map", "1:2")  # of these labels and this truth, which begins at 0
    for line in lines[2:]:
        words = shlex.split(line)[1:]
        done = command(*words, *(truth if words[0] == "evaluate" else ()))
        assert done.code == 0, f"{line}: {done.err}"
    made = {
        "look.png",
        "mine.tcm",
        "mine.ome.zarr",
        "mine_uncertainty.ome.zarr",
        "scores.csv",
        "particles.csv",
        "figure.svg",
    }
    assert made <= {path.name for path in tmp_path.iterdir()}


def test_a_folder_that_is_not_there_is_misspelt(folder, model, command, tmp_path):
    wrong = tmp_path / "labls" / "y.tif"
    for words in (
        ("classify", folder / "volume.tif", model, "-o", wrong),
        ("substack", folder / "volume.tif", "-o", wrong, "--every", 3),
        ("classify", folder / "volume.tif", model, "-o", tmp_path / "y.tif", "--profile", wrong.with_suffix(".json")),
    ):
        done = command(*words)
        assert done.code == 2
        assert f"its folder does not exist; correct the name, or make {tmp_path / 'labls'}" in done.err
    assert entries(tmp_path) == []


def test_scores_for_programs(folder, command, tmp_path):
    words = ("evaluate", folder / "truth.tif", folder / "truth.tif", "-q", "-o")
    assert command(*words, tmp_path / "r.json").code == 0
    assert command(*words, tmp_path / "r.csv").code == 0
    found = json.loads((tmp_path / "r.json").read_text())
    with open(tmp_path / "r.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert found["accuracy"] == 1
    assert [(row["value"], row["name"], float(row["iou"])) for row in rows] == [
        (str(c["value"]), c["name"], 1.0) for c in found["classes"]
    ]
    assert any(name.startswith("border_") for name in rows[0])
    assert command(*words, tmp_path / "r.pdf").code == 2


def test_rois_on_mrc_files_may_be_upside_down(folder, command, tmp_path):
    assert command("convert", folder / "volume.tif", "-o", tmp_path / "v.mrc", "-q").code == 0
    rois = []
    for group, (x, y) in ((1, (2, 1)), (2, (8, 10))):
        box = roifile.ImagejRoi(roitype=roifile.ROI_TYPE.RECT, left=x, top=y, right=x + 8, bottom=y + 2, group=group)
        box.position, box.name = 3, f"stroke-{group}"
        rois.append(box)
    roifile.roiwrite(tmp_path / "s.zip", rois, mode="w")
    for volume, said in ((tmp_path / "v.mrc", True), (folder / "volume.tif", False)):
        done = command("train", volume, tmp_path / "s.zip", "-o", tmp_path / "m.tcm", "--overwrite", *FEW)
        assert done.code == 0, done.err
        assert ("Bio-Formats shows MRC files upside down" in done.err) == said


def test_info_is_for_people(folder, model, command, tmp_path):
    output = tmp_path / "l.tif"
    assert command("classify", folder / "volume.tif", model, "-o", output, "--device", "numpy", "-q").code == 0
    shown = command("info", output).out
    assert "made_by" in shown
    assert "mtime" not in shown
    assert "crc32" not in shown
    assert "crc32" in command("info", output, "--json").out


def test_compiling_is_said_once(monkeypatch, tmp_path, capsys):
    from gpu_tomoclass.device import LibraryCache, find_compiler, when_compiling

    cache = LibraryCache(tmp_path)
    said = []
    when_compiling(lambda: said.append("compiling"))
    for code in ('extern "C" int one() { return 1; }', 'extern "C" int two() { return 2; }'):
        cache.library(code, find_compiler(cache))
    assert said == ["compiling"]
