"""tune as a person runs it; the commands that it recommends run."""

import csv
import json
import shlex

import numpy as np
import tifffile

from gpu_tomoclass import volumes
from gpu_tomoclass.cli import run
from gpu_tomoclass.model import load_model


def test_tune_recommends_commands_that_run(tmp_path, monkeypatch, command):
    random = np.random.default_rng(0)
    strokes = np.zeros((4, 24, 26), np.uint8)
    for z in (0, 2):
        for y in range(2, 22, 2):
            strokes[z, y, 3:7], strokes[z, y, 18:22] = 1, 2
    volume = 900 + 200 * (np.arange(26) > 12) + random.normal(0, 200, strokes.shape)
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("my volume.tif", volume.clip(0).astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite("s.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    words = ["tune", "my volume.tif", "s.tif", "--voxel-size", "2", "--class-names", "a,b c", "--features",
             "sobel_filter", "--smooth", "4", "--min-samples-leaf", "1,3",
             "--trees", "6", "--folds", "3", "--device", "numpy", "--workers", "1", "--no-cache"]  # fmt: skip
    done = command(*words, "-o", "choice.json")
    assert done.code == 0, done.err
    assert "promise, on strokes that no choice has seen (3 folds)" in done.out
    found = json.loads((tmp_path / "choice.json").read_text())
    assert found["chosen"]["smooth"] == 4
    lines = [shlex.split(line) for line in found["commands"]]
    assert done.out.endswith("".join(f"  {line}\n" for line in found["commands"]))
    for name, *line in lines:
        assert name == "gpu-tomoclass"
        assert run([*line, "-q"]) == 0
    model = load_model(tmp_path / "my volume_tuned.tcm")
    assert [c.name for c in model.classes] == ["a", "b c"]
    assert model.training["settings"]["max_features"] == found["chosen"]["max_features"]
    assert set(model.bank.families) == set(found["chosen"]["features"].split(","))
    with tifffile.TiffFile(tmp_path / "my volume_labels.tif") as file:
        assert file.series[0].shape == strokes.shape


def test_other_volumes_are_closed_and_their_notes_shown(tmp_path, monkeypatch, command):
    strokes = np.zeros((1, 20, 26), np.uint8)
    for y in (2, 7, 12, 17):
        strokes[0, y, 3:7], strokes[0, y, 18:22] = 1, 2
    volume = 900 + 200 * (np.arange(26) > 12) + np.random.default_rng(0).normal(0, 50, strokes.shape)
    for name in ("v", "w"):
        tifffile.imwrite(tmp_path / f"{name}.tif", volume.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "s.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    opened, closed = volumes.open_volume, []

    def noted(path, **options):
        volume = opened(path, **options)
        volume.notes.append(f"a note of {volume.path[-5:]}")
        close = volume.close
        volume.close = lambda: (closed.append(volume.path[-5:]), close())
        return volume

    monkeypatch.setattr(volumes, "open_volume", noted)
    words = ["tune", tmp_path / "v.tif", tmp_path / "s.tif", "--also", tmp_path / "w.tif", tmp_path / "s.tif",
             "--features", "sobel_filter", "--smooth", "0", "--trees", "3", "--folds", "2", "--device", "numpy",
             "--no-cache"]  # fmt: skip
    done = command(*words)
    assert done.code == 0
    assert "a note of v.tif" in done.err
    assert "a note of w.tif" in done.err
    assert sorted(closed) == ["v.tif", "w.tif"]


def test_results_as_a_table_and_bad_names(tmp_path, command):
    strokes = np.zeros((1, 20, 26), np.uint8)
    for y in (2, 7, 12, 17):
        strokes[0, y, 3:7], strokes[0, y, 18:22] = 1, 2
    volume = 900 + 200 * (np.arange(26) > 12) + np.random.default_rng(0).normal(0, 50, strokes.shape)
    tifffile.imwrite(tmp_path / "v.tif", volume.astype(np.uint16), imagej=True, metadata={"axes": "ZYX"})
    tifffile.imwrite(tmp_path / "s.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    words = ["tune", tmp_path / "v.tif", tmp_path / "s.tif", "--features", "sobel_filter", "--smooth", "0",
             "--trees", "3", "--folds", "2", "--device", "numpy", "--no-cache", "-q"]  # fmt: skip
    assert command(*words, "-o", tmp_path / "t.xlsx").code == 2
    assert command(*words, "-o", tmp_path / "t.csv").code == 0
    with open(tmp_path / "t.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sum(int(row["chosen"]) for row in rows) == 1
    assert all(0 <= float(row["score"]) <= 1 and float(row["seconds_per_plane"]) > 0 for row in rows)
    assert command(*words, "-o", tmp_path / "t.csv").code == 3, "an existing file is kept"
