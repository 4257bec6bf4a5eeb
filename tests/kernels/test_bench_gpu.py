"""The benchmark for GPUs runs to its end, on the simulated GPU and on this CPU, and stores what it says."""

from __future__ import annotations

import importlib
import json
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
