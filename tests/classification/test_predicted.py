"""A plan for a GPU that is not here: memory as for one that is, times from the table, nothing measured."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
from commands import Commands

from gpu_tomoclass.classes import default_classes
from gpu_tomoclass.classification import batch_script, make_plan, planned_gpus
from gpu_tomoclass.classification.predicted import (
    RANGE,
    READ_SECONDS,
    PlannedGpu,
    _weights,
    _write_seconds,
    gpu_row,
    predict_time,
)
from gpu_tomoclass.classification.slab import ProductOptions
from gpu_tomoclass.cli.planning import GPUS
from gpu_tomoclass.errors import UsageError
from gpu_tomoclass.features import FeatureBank, IntensityScale
from gpu_tomoclass.forest import grow_forest
from gpu_tomoclass.model.model import Model, save_model
from gpu_tomoclass.model.reading import load_model
from gpu_tomoclass.volumes.opening import open_volume

ROOT = Path(__file__).resolve().parents[2]


def test_the_command_knows_the_gpus_of_the_table() -> None:
    assert planned_gpus() == GPUS
    with pytest.raises(UsageError, match="choose one of h100, h200"):
        gpu_row("k80")


def test_memory_and_time(sample_path: Path, sample_model) -> None:
    """A GPU that computes faster is predicted faster; more planes take longer; slabs fit the memory."""
    with open_volume(sample_path) as volume:
        deep = open_volume(np.broadcast_to(volume[0], (800, *volume.shape[1:])), voxel_size=volume.voxel_size)
    half = (0, 400)
    plans = {name: make_plan(deep, sample_model, gpu=name, planes=half) for name in planned_gpus()}
    twice = make_plan(deep, sample_model, gpu="h100").predicted
    more = make_plan(deep, sample_model, gpu="h100", planes=half, probabilities="float32").predicted
    for name, plan in plans.items():
        assert plan.device == "cuda"
        assert plan.seconds_per_plane is None
        assert plan.n_threads == 2
        assert 0 < plan.device_bytes <= PlannedGpu(name).free_memory()
        time = plan.predicted
        longest = max(time.kernels, time.launching, time.reading, time.writing)
        assert time.seconds == plan.seconds == pytest.approx(longest + time.around)
        assert (time.at_least, time.at_most) == pytest.approx([factor * time.seconds for factor in RANGE])
        assert "nobody has measured" in time.assumptions[0]
        assert "counted by benchmarks/roofline" in time.assumptions[0]
    first = plans["h100"].predicted
    assert plans["rtx4090"].predicted.kernels > first.kernels
    assert twice.kernels == pytest.approx(2 * first.kernels)
    assert more.writing > first.writing
    assert json.dumps(plans["h100"].to_dict())


def test_times_of_the_host_are_those_measured() -> None:
    """Where computing is free: the longest of the readers, and writing of labels and of two classes as bytes."""
    found = json.loads((ROOT / "benchmarks" / "results" / "finish.json").read_text())
    runs, n_voxels = found["runs"], np.prod(found["volume"])
    assert n_voxels * READ_SECONDS == pytest.approx(max(run["read"] for run in runs.values()), rel=0.1)
    for is_zarr, name in ((False, "labels.tif"), (True, "labels.ome.zarr")):
        for probabilities, run in ((None, name), ("uint8", f"{name} and uint8 probabilities")):
            seconds = _write_seconds(ProductOptions(probabilities), 2, is_zarr=is_zarr)
            assert n_voxels * seconds == pytest.approx(runs[run]["write"], rel=0.1)


def test_what_is_longest_depends_on_what_is_written(sample_model: Model) -> None:
    """Labels wait for the GPU; float32 probabilities for the threads that write."""
    where = {"shape": (850, 400, 400), "slab_planes": 128}
    labels = predict_time(sample_model, "h100", **where, products=ProductOptions())
    floats = predict_time(sample_model, "h100", **where, products=ProductOptions("float32"), is_zarr=True)
    assert floats.kernels == labels.kernels
    assert floats.seconds == floats.writing + floats.around > 5 * labels.writing + labels.around


def test_planes_that_fit_no_cluster_take_longer() -> None:
    """Diffusion stays on chip for planes of up to about 420 x 420, and only on GPUs with clusters."""
    bank = FeatureBank.create(["anisotropic_diffusion"])
    rows = np.random.default_rng(0).normal(size=(50, bank.n_channels)).astype(np.float32)
    classes = default_classes(["a", "b"])
    model = Model(grow_forest(rows, np.arange(50) % 2 + 1).forest, bank, classes, IntensityScale())
    ratio = {}
    for name in ("h100", "a100"):
        times = [
            predict_time(model, name, shape=(100, n, n), slab_planes=50, products=ProductOptions()) for n in (400, 500)
        ]
        ratio[name] = times[1].kernels / times[0].kernels / (500 / 400) ** 2
        assert (times[1].launching > times[0].launching) is (name == "h100")
    assert ratio["a100"] == pytest.approx(1.0)
    assert ratio["h100"] > 1.5


def test_a_large_plane_fits_a_card_of_24_gb() -> None:
    """4096 x 4096 with the paper's 252 channels: they are ranked family by family, not kept."""
    bank = FeatureBank.create("paper")
    rows = np.random.default_rng(0).normal(size=(200, bank.n_channels)).astype(np.float32)
    forest = grow_forest(rows, np.arange(200) % 3 + 1).forest
    model = Model(forest, bank, default_classes(["a", "b", "c"]), IntensityScale())
    volume = open_volume(np.broadcast_to(np.float32(0), (2, 4096, 4096)), voxel_size=1.0)
    plan = make_plan(volume, model, gpu="rtx4090")
    assert plan.slab_planes == 1
    assert plan.device_bytes <= 24e9 * 0.8
    assert not any("GPU memory" in warning for warning in plan.warnings)


def test_families_across_planes_have_times() -> None:
    """A median over a ball of twice the radius has four times the rows, a blur of twice the sigma twice."""
    bank = FeatureBank.create("weka-3d")
    for name in planned_gpus():
        seconds, launches = (gpu_row(name)[key] for key in ("seconds_per_voxel", "launches"))
        assert all(seconds[family] > 0 and launches[family] > 0 for family in bank.families)
        assert min(seconds["median_3d"], seconds["mean_3d"]) > seconds["gaussian_blur_3d"]
    small, large = (
        _weights(FeatureBank.create(["median_3d", "gaussian_blur_3d"], sigma_min=s, sigma_max=s).blocks) for s in (4, 8)
    )
    assert large["median_3d"] == 4 * small["median_3d"]
    assert large["gaussian_blur_3d"] == 2 * small["gaussian_blur_3d"]


def test_the_command_says_predicted_and_gives_lines_for_sbatch(
    sample_path: Path, sample_model, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_model(sample_model, tmp_path / "my model.tcm")
    said = Commands(capsys)(
        "plan", sample_path, tmp_path / "my model.tcm", "-o", tmp_path / "o.tif", "--gpu", "l40s", "--planes", "1:3",
        "--probabilities=uint8", "--quiet",
    )  # fmt: skip
    assert said.code == 0, said.err
    done = said.out
    assert "predicted time" in done
    script = done[done.index("#!/bin/bash") :]
    assert "#SBATCH --gpus=l40s:1" in script
    command = script.strip().splitlines()[-1]
    assert command.endswith("--device cuda --planes 1:3 --probabilities=uint8")
    assert "'" in command  # the space of the model's name
    assert load_model(tmp_path / "my model.tcm").hash == sample_model.hash
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0


def test_times_are_whole_minutes_with_a_reserve() -> None:
    lines = batch_script(["x"], gpu="h100", host_bytes=3 * 2**30, seconds=1900.0)
    assert "#SBATCH --time=01:35:00" in lines
    assert "#SBATCH --mem=4G" in lines
    assert "#SBATCH --time=00:10:00" in batch_script(["x"], gpu="h100", host_bytes=1, seconds=2.0)
