"""The benchmark for GPUs runs to its end, on the simulated GPU and on this CPU, and stores what it says."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from simulated_cupy import SimulatedCupy, installed

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PARTS = ("forest", "labels", "host to device", "device to host")


@pytest.fixture
def bench_gpu(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The script as a module, with a small forest."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    module = importlib.import_module("bench_gpu")
    monkeypatch.setattr(module, "TRAINING_ROWS", 60)
    monkeypatch.setattr(module, "N_TREES", 3)
    return module


def arguments(device: str, families: str, path: Path) -> list[str]:
    size = ["--shape", "12,40", "--slab", "2", "--planes", "3", "--repeats", "2"]
    return ["--device", device, "--families", families, *size, "--json", str(path)]


def check(stored: dict[str, Any], families: tuple[str, ...], path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert json.loads(path.read_text()) == stored
    assert set(stored["parts"]) == {*families, *PARTS}
    assert set(stored["files"]) == {"read", "write"}
    for figures in (*stored["parts"].values(), *stored["files"].values()):
        assert 0 <= figures["min_ms"] <= figures["median_ms"]
    assert stored["whole"]["n_planes"] == 3
    assert stored["whole"]["seconds"] > 0
    printed = capsys.readouterr().out
    assert all(f"\n{part} " in printed for part in stored["parts"])


def test_on_a_simulated_gpu(bench_gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    families = ("neighbors", "lipschitz")
    with installed(SimulatedCupy()) as cupy:
        stored = bench_gpu.main(arguments("cuda", ",".join(families), tmp_path / "gpu.json"))
    check(stored, families[::-1], tmp_path / "gpu.json", capsys)
    assert "Simulated GPU" in stored["device"]
    calls = [call.name for call in cupy.calls]
    by_events = stored["whole"]["profile"]["thread_seconds"]
    assert set(by_events) == {"original", *families, "forest", "host to device", "device to host"}
    assert min(by_events.values()) > 0
    # All parts by events, twice each; then each slab: one plane at first, and the whole volume.
    n_slabs = (calls.count("cuda.get_elapsed_time") - 2 * len(stored["parts"])) / len(by_events)
    assert n_slabs == int(n_slabs) >= 3
    assert {launch.file for launch in cupy.launches} >= {"neighbors.cu", "lipschitz.cu", "forest.cu", "labels.cu"}


def test_on_this_cpu(bench_gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    stored = bench_gpu.main(arguments("native", "neighbors,gaussian_blur", tmp_path / "cpu.json"))
    check(stored, ("neighbors", "gaussian_blur"), tmp_path / "cpu.json", capsys)


def test_a_report_in_one_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps on this CPU with tiny sizes; one that fails, one that hangs and one that is missing stop no other."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    gpu_report, gpu_steps = (importlib.import_module(name) for name in ("gpu_report", "gpu_steps"))
    every = gpu_report.steps(tmp_path, device="native", gpu_id=0, quick=True, ncu=True, sanitize=True)
    usual = [step for step in every if not step.name.startswith(("ncu", "sanitizer"))]
    assert [step.name for step in usual] == ["doctor", "tests", "parts", "forests", "launches", "whole", "rivals"]
    assert sum(step.limit for step in usual) <= gpu_report.TOTAL_SECONDS + 60  # no step is to take all of its limit
    for name in (
        "forests",
        "launches",
        "whole",
        "rivals",
    ):  # here rather than in processes, which would cost their imports
        gpu_steps.run_step(name, device="native", gpu_id=0, target=tmp_path / f"{name}.json", quick=True)
    python = sys.executable
    planted = [
        gpu_report.Step("fails", [python, "-c", "raise SystemExit(7)"], 20),
        gpu_report.Step("hangs", [python, "-c", "import time; time.sleep(600)"], 0.2),
        gpu_report.Step("is missing", ["no-such-profiler"], 5),
    ]
    monkeypatch.setattr(gpu_report, "steps", lambda *_, **__: [*planted, usual[0]])
    found = gpu_report.make_report(tmp_path, device="native", gpu_id=0, quick=True, ncu=False, sanitize=False)
    assert [(step["name"], step["result"]) for step in found["steps"]] == [
        ("fails", "failed (7)"),
        ("hangs", "stopped at its limit"),
        ("is missing", "no-such-profiler is not installed"),
        ("doctor", "ok"),
    ]
    assert json.loads((tmp_path / "report.json").read_text()) == found
    assert [run["output"] for run in found["whole"]] == [name for name, _ in gpu_steps.RUNS]
    assert [forest["rows"] for forest in found["forests"]] == [100, 200]
    assert {r["rival"]: "min_ms" in r for r in found["rivals"]}["ours: gaussian_blur"]
    assert all(check["agrees"] for check in found["doctor"]["devices"][0]["checks"])
    text = (tmp_path / "report.html").read_text()
    for word in (
        "stopped at its limit",
        "neighbors",
        "float32.ome.zarr",
        "grown from",
        "CuPy: median_filter",
        "checked anew",
    ):
        assert word in text
    assert "http" not in text  # nothing is loaded from elsewhere
    assert gpu_report.run_steps(usual[:1], tmp_path, total=1)[0].result == "no time left"
