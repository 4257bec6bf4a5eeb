"""A small volume with truth and strokes on disk, made once, and a way to run the command line in a process."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tifffile


def small_case(nz=6, ny=40, nx=44):
    """Two materials and vacuum with noise: volume uint16, truth uint8 1..3, strokes uint8 on planes 1 and 4."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:ny, :nx]
    truth = np.ones((nz, ny, nx), np.uint8)
    for z in range(nz):
        truth[z][(y - 20) ** 2 + (x - 21 - z) ** 2 < 200] = 2
        truth[z][(y - 18) ** 2 + (x - 19 - z) ** 2 < 40] = 3
    level = np.array([0, 1000, 2200, 3400])[truth]
    volume = (level + rng.normal(0, 350, truth.shape)).clip(0).astype(np.uint16)
    strokes = np.zeros_like(truth)
    for z in (1, 4):
        for row in (4, 12, 18, 21, 28, 36):
            strokes[z, row, 3:41] = truth[z, row, 3:41]
    return volume, truth, strokes


@pytest.fixture(scope="session")
def case(tmp_path_factory):
    """Folder with volume.tif, truth.tif, strokes.tif."""
    folder = tmp_path_factory.mktemp("case")
    for name, array in zip(("volume", "truth", "strokes"), small_case(), strict=True):
        tifffile.imwrite(folder / f"{name}.tif", array, imagej=True, metadata={"axes": "ZYX"})
    return folder


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """run(*arguments) -> CompletedProcess of gpu-tomoclass in a fresh process, with a cache of its own."""
    cache = tmp_path_factory.mktemp("cache")

    def call(*arguments, cwd=None, env=None, **options):
        return subprocess.run(
            [sys.executable, "-c", "from gpu_tomoclass.cli import main; main()", *map(str, arguments)],
            cwd=cwd,
            env={**os.environ, "XDG_CACHE_HOME": str(cache), **(env or {})},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            **options,
        )

    return call


@pytest.fixture(scope="session")
def model(case, run):
    """A model of the case, with few features and trees: what it is asked to do is not hard."""
    path = case / "model.tcm"
    done = run(
        "train", case / "volume.tif", case / "strokes.tif", "-o", path, "--features", "weka-default", "--sigma-max", 4,
        "--trees", 40, "--class-names", "vacuum,rubber,silica",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return path
