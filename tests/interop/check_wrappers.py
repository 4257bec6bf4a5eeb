"""The examples that wrap the commands run, and give what the commands give; `make interop` calls this file by name."""

import csv
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from gpu_tomoclass.cli import run

EXAMPLES = Path(__file__).parents[2] / "examples"
SCRIPTS = Path(sys.executable).parent


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Two small volumes in data/, a model; the environment's commands are found as in an activated one."""
    random = np.random.default_rng(1)
    (tmp_path / "data").mkdir()
    for name in "ab":
        volume = random.integers(0, 200, (3, 40, 36)).astype(np.uint16)
        volume[:, 10:30, 10:24] += 300
        tifffile.imwrite(tmp_path / "data" / f"{name}.tif", volume, imagej=True, metadata={"axes": "ZYX"})
    strokes = np.zeros((3, 40, 36), np.uint8)
    strokes[1, ::3] = 1
    strokes[1, 12:28, 12:22] = 2
    tifffile.imwrite(tmp_path / "strokes.tif", strokes, imagej=True, metadata={"axes": "ZYX"})
    train = ["train", "data/a.tif", "strokes.tif", "-o", "m.tcm", "--features", "gaussian_blur", "--sigma-max", "2"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(SCRIPTS), prepend=":")
    assert run([*train, "--trees", "5", "--quiet"]) == 0
    assert run(["classify", "data/a.tif", "m.tcm", "-o", "expected.tif", "--quiet"]) == 0
    return tmp_path


def test_snakemake(folder):
    command = [SCRIPTS / "snakemake", "--snakefile", EXAMPLES / "Snakefile", "--cores", "1", "--quiet"]
    done = subprocess.run(
        [*command, "--config", "volumes=data", "model=m.tcm", "class=2"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    labels = tifffile.imread("labels/a.tif")
    np.testing.assert_array_equal(labels, tifffile.imread("expected.tif"))
    for name in "ab":
        with open(f"labels/{name}_particles.csv", encoding="utf-8") as file:
            voxels = sum(int(row["voxels"]) for row in csv.DictReader(file))
        counts = json.loads(Path(f"labels/{name}.json").read_text())["values"]["counts"]
        assert voxels == list(counts.values())[1]
        assert Path(f"labels/{name}_thumbnail.png").stat().st_size > 1000


def test_ewoks(folder, monkeypatch):
    from ewokscore import execute_graph

    monkeypatch.syspath_prepend(str(EXAMPLES))
    from ewoks_tasks import workflow

    found = execute_graph(workflow("data/a.tif", "m.tcm", "labels.tif"), outputs=[{"all": True}])
    expected = tifffile.imread("expected.tif")
    np.testing.assert_array_equal(tifffile.imread("labels.tif"), expected)
    assert list(found["counts"].values()) == np.bincount(expected.ravel())[1:].tolist()
    with pytest.raises(RuntimeError, match=r"none\.tif"):
        execute_graph(workflow("none.tif", "m.tcm", "other.tif"), raise_on_error=True)
